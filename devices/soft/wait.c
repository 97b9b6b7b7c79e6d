/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* wait.c: waiting for fences without a thread. See wait.h. No locks: armed is
 * changed by compare and exchange, once. */
#include "devices/soft/wait.h"

void soft_wait_init(struct soft_wait *wait, void (*fire)(struct soft_wait *),
		    void (*release)(struct soft_wait *))
{
	host_ref_init(&wait->ref);
	wait->armed = 0;
	wait->fire = fire;
	wait->release = release;
}

void soft_wait_put(struct soft_wait *wait)
{
	if (host_ref_put(&wait->ref))
		wait->release(wait);
}

void soft_wait_arm(struct soft_wait *wait)
{
	host_store_seq(&wait->armed, 1);
}

bool soft_wait_take(struct soft_wait *wait)
{
	u32 armed = 1;

	return host_cas(&wait->armed, &armed, 0);
}

static void soft_wait_signalled(struct gpusvm_fence *fence, struct gpusvm_fence_callback *cb)
{
	struct soft_wait *wait = host_container_of(cb, struct soft_wait, cb);

	if (soft_wait_take(wait))
		wait->fire(wait);
	soft_wait_put(wait);
	gpusvm_fence_put(fence);
}

bool soft_wait_on(struct soft_wait *wait, struct gpusvm_fence *fence)
{
	bool mine;

	host_ref_get(&wait->ref);
	gpusvm_fence_get(fence);
	if (gpusvm_fence_add_callback(fence, &wait->cb, soft_wait_signalled) == 0)
		return true;
	gpusvm_fence_put(fence);
	mine = soft_wait_take(wait);
	soft_wait_put(wait);
	return !mine;
}
