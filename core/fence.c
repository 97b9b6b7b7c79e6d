/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fence.c: fences. See <gpusvm/fence.h>.
 *
 * Locking: fence->lock (RANK_FENCE) guards the callback list and makes the step
 * from "not signalled" to "signalled" one with it: a callback is either in the
 * list when the signaller takes it, or refused. Readers of signalled need no
 * lock: a release store publishes result. Callbacks run with no lock of the
 * fence's held.
 *
 * End of life: the signaller holds a reference, and so does each waiter, so
 * that the last put is the last touch. A fence without release (on a stack) has
 * an owner instead, whose memory goes when gpusvm_fence_wait or
 * gpusvm_fence_fini returns: for these, the signaller's last touch and each put
 * are under the lock, which the owner takes once more before it goes on.
 */
#include <gpusvm/fence.h>

void gpusvm_fence_init(struct gpusvm_fence *fence, void (*release)(struct gpusvm_fence *))
{
	host_ref_init(&fence->ref);
	fence->signalled = 0;
	fence->result = 0;
	fence->callbacks = NULL;
	fence->release = release;
	host_mutex_init(&fence->lock, RANK_FENCE);
	host_waitq_init(&fence->waitq);
}

static void fence_end(struct gpusvm_fence *fence)
{
	host_waitq_destroy(&fence->waitq);
	host_mutex_destroy(&fence->lock);
}

static void fence_free(struct gpusvm_fence *fence)
{
	host_free(fence);
}

struct gpusvm_fence *gpusvm_fence_create(void)
{
	struct gpusvm_fence *fence = host_alloc(sizeof(*fence));

	if (fence)
		gpusvm_fence_init(fence, fence_free);
	return fence;
}

struct gpusvm_fence *gpusvm_fence_get(struct gpusvm_fence *fence)
{
	if (fence)
		host_ref_get(&fence->ref);
	return fence;
}

void gpusvm_fence_put(struct gpusvm_fence *fence)
{
	bool last;

	if (!fence)
		return;
	if (fence->release) {
		if (!host_ref_put(&fence->ref))
			return;
		fence_end(fence);
		fence->release(fence);
		return;
	}
	host_mutex_lock(&fence->lock);
	last = host_ref_put(&fence->ref);
	host_wake_all(&fence->waitq); /* fini */
	host_mutex_unlock(&fence->lock);
	if (last)
		fence_end(fence);
}

/* Returns when whoever held the lock does not touch the fence any more. */
static void fence_pass(struct gpusvm_fence *fence)
{
	host_mutex_lock(&fence->lock);
	host_mutex_unlock(&fence->lock);
}

void gpusvm_fence_fini(struct gpusvm_fence *fence)
{
	host_wait(&fence->waitq, host_load_acquire(&fence->ref.count) == 1);
	fence_pass(fence);
	fence_end(fence);
}

/* In the order in which they were added. */
static struct gpusvm_fence_callback *callbacks_reverse(struct gpusvm_fence_callback *cb)
{
	struct gpusvm_fence_callback *first = NULL, *next;

	for (; cb; cb = next) {
		next = cb->next;
		cb->next = first;
		first = cb;
	}
	return first;
}

void gpusvm_fence_signal(struct gpusvm_fence *fence, int result)
{
	struct gpusvm_fence_callback *cb, *next;

	host_mutex_lock(&fence->lock);
	if (fence->signalled) {
		host_mutex_unlock(&fence->lock);
		return;
	}
	cb = fence->callbacks;
	fence->callbacks = NULL;
	fence->result = result;
	host_store_release(&fence->signalled, 1);
	host_wake_all(&fence->waitq);
	host_mutex_unlock(&fence->lock);

	for (cb = callbacks_reverse(cb); cb; cb = next) {
		next = cb->next; /* fn may free cb */
		cb->fn(fence, cb);
	}
}

bool gpusvm_fence_signalled(const struct gpusvm_fence *fence)
{
	return host_load_acquire(&fence->signalled);
}

int gpusvm_fence_wait(struct gpusvm_fence *fence, u64 deadline, int *result)
{
	if (!host_wait_until(&fence->waitq, gpusvm_fence_signalled(fence), deadline))
		return -ETIME;
	if (!fence->release)
		fence_pass(fence);
	if (result)
		*result = fence->result;
	return 0;
}

int gpusvm_fence_add_callback(struct gpusvm_fence *fence, struct gpusvm_fence_callback *cb,
			      void (*fn)(struct gpusvm_fence *, struct gpusvm_fence_callback *))
{
	int err = -ENOENT;

	/* Spares the lock where it is too late anyway. */
	if (gpusvm_fence_signalled(fence))
		return err;
	host_mutex_lock(&fence->lock);
	if (!fence->signalled) {
		cb->fn = fn;
		cb->next = fence->callbacks;
		fence->callbacks = cb;
		err = 0;
	}
	host_mutex_unlock(&fence->lock);
	return err;
}
