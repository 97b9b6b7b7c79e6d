/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * wait.h: something of the device that waits for a fence and may be called off.
 *
 * A fence's callbacks cannot be taken back, so the object outlives what waits:
 * it is counted, and whoever changes the state from ARMED, the fence or the one
 * who calls it off, owns what comes next. The other does nothing more.
 */
#ifndef GPUSVM_SOFT_WAIT_H
#define GPUSVM_SOFT_WAIT_H

#include <gpusvm/fence.h>

struct soft_wait {
	struct gpusvm_fence_callback cb;
	struct host_ref ref;
	u32 armed;
	/* The fence was signalled. Context: of a fence's callback. */
	void (*fire)(struct soft_wait *wait);
	void (*release)(struct soft_wait *wait);
};

/* One reference, the caller's. */
void soft_wait_init(struct soft_wait *wait, void (*fire)(struct soft_wait *),
		    void (*release)(struct soft_wait *));
void soft_wait_put(struct soft_wait *wait);
/* From here on it may be called off; not armed yet. */
void soft_wait_arm(struct soft_wait *wait);
/* True for one of those who try. */
bool soft_wait_take(struct soft_wait *wait);
/* Hangs it on the fence. After true only the owner of what comes next touches it.
 * False: the fence is signalled already, and what comes next is the caller's. After
 * it was called off meanwhile: true. */
bool soft_wait_on(struct soft_wait *wait, struct gpusvm_fence *fence);

/* For a fence that will be signalled here. One without release has an owner who
 * waits until the signaller is done with it, and need not know of references. */
static inline void soft_fence_hold(struct gpusvm_fence *fence)
{
	if (fence->release)
		gpusvm_fence_get(fence);
}
static inline void soft_fence_finish(struct gpusvm_fence *fence, int result)
{
	bool held = fence->release != NULL;

	gpusvm_fence_signal(fence, result);
	if (held)
		gpusvm_fence_put(fence);
}

#endif
