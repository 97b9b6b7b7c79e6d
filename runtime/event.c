/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * event.c: events: the pool that they come from, their completion, and what
 * applications ask of them.
 *
 * Concurrency: state goes PENDING, perhaps WAITED, DONE; DONE is stored by an
 * exchange after result and fault, so whoever reads DONE with acquire reads
 * these too. The fence is what devices and queues wait for; it is signalled
 * once, and its callback does the rest (event_signalled). Lists between the
 * two worlds are pushed with a compare and swap and taken whole by an
 * exchange (call.c): nothing is popped one by one, so that no address can come
 * back in between.
 */
#include "runtime/private.h"

#include <limits.h>

#define SLAB_EVENTS 64u

struct event_slab {
	struct event_slab *next;
	struct gpusvm_event events[SLAB_EVENTS];
};

/* ---- Pool ---- */

/* Last put, on any thread: nothing but pushing. */
static void event_release(struct gpusvm_fence *fence)
{
	struct gpusvm_event *event = host_container_of(fence, struct gpusvm_event, fence);
	struct gpusvm *svm = event->svm;

	if (event->buffer) {
		task_push(&svm->pool.trash, &event->task);
		calls_kick(svm);
	} else {
		task_push(&svm->pool.returned, &event->task);
	}
}

static int pool_add_slab(struct event_pool *pool)
{
	struct event_slab *slab = host_alloc_zeroed(sizeof(*slab));
	unsigned i;

	if (!slab)
		return -ENOMEM;
	slab->next = pool->slabs;
	pool->slabs = slab;
	for (i = 0; i < SLAB_EVENTS; i++)
		task_push(&pool->returned, &slab->events[i].task);
	return 0;
}

static int grow_call(struct gpusvm_event *event)
{
	return pool_add_slab(&event->svm->pool);
}

static void event_init(struct gpusvm *svm, struct gpusvm_event *event)
{
	host_memset(event, 0, sizeof(*event));
	event->svm = svm;
	gpusvm_fence_init(&event->fence, event_release);
}

static struct gpusvm_event *event_of(struct task *task)
{
	return host_container_of(task, struct gpusvm_event, task);
}

/* The last event is never given out: it carries the call for more. */
struct gpusvm_event *event_new(struct gpusvm *svm)
{
	struct event_pool *pool = &svm->pool;
	struct task *first, *more;
	int err = 0;

	host_mutex_lock(&pool->lock);
	while (!(first = pool->free) || !first->next) {
		more = task_take_all(&pool->returned);
		if (more) {
			*(first ? &first->next : &pool->free) = more;
			continue;
		}
		if (!first || err)
			break;
		pool->free = NULL;
		event_init(svm, event_of(first));
		err = call(event_of(first), grow_call, TASK_QUICK);
		event_put(event_of(first));
	}
	more = first ? first->next : NULL;
	if (more)
		pool->free = more;
	host_mutex_unlock(&pool->lock);
	if (!more)
		return NULL;
	event_init(svm, event_of(first));
	return event_of(first);
}

struct gpusvm_event *event_new_wait(struct gpusvm *svm)
{
	struct gpusvm_event *event;

	/* All are in use, and there is no memory: one that is put will do. */
	while (!(event = event_new(svm)))
		host_sleep(HOST_MSEC);
	return event;
}

int pool_init(struct gpusvm *svm)
{
	struct event_pool *pool = &svm->pool;

	if (pool_add_slab(pool))
		return -ENOMEM;
	host_mutex_init(&pool->lock, RANK_NONE);
	return 0;
}

void pool_fini(struct gpusvm *svm)
{
	struct event_pool *pool = &svm->pool;
	struct event_slab *slab;
	unsigned i;

	while ((slab = pool->slabs)) {
		pool->slabs = slab->next;
		/* Of events that the application never put. */
		for (i = 0; i < SLAB_EVENTS; i++)
			host_free(slab->events[i].buffer);
		host_free(slab);
	}
	host_mutex_destroy(&pool->lock);
}

void pool_clean(struct gpusvm *svm)
{
	struct task *task, *next;

	if (!host_read_once(&svm->pool.trash))
		return;
	for (task = task_take_all(&svm->pool.trash); task; task = next) {
		next = task->next;
		host_free(event_of(task)->buffer);
		event_of(task)->buffer = NULL;
		task_push(&svm->pool.returned, task);
	}
}

/* ---- Completion ---- */

/* Context: on the signaller's thread, which may hold a device's lock; nothing
 * touches the fence after its callbacks. */
static void event_signalled(struct gpusvm_fence *fence, struct gpusvm_fence_callback *cb)
{
	struct gpusvm_event *event = host_container_of(cb, struct gpusvm_event, callback);
	int result = fence->result;

	/* The device ended the queue: what comes after is -EIO there, and shall be
	 * for what the driver does in it. */
	if (event->kind == EVENT_JOB && result && result != -ENODEV && !event->job.contained)
		host_store_release(&event->queue->ended, 1);
	if (event->wait_for) {
		event_put(event->wait_for);
		event->wait_for = NULL;
	}
	event->result = result;
	if (host_xchg(&event->state, EVENT_DONE) == EVENT_WAITED)
		futex_wake(&event->state, INT_MAX);
	if (event->kind == EVENT_JOB)
		queue_work_done(event->queue);
	else if (!event->queue)
		counter_dec(&event->svm->calls.outstanding);
	event_put(event);
}

void event_arm(struct gpusvm_event *event)
{
	int err = gpusvm_fence_add_callback(&event->fence, &event->callback, event_signalled);

	HOST_CHECK(!err);
}

void event_complete(struct gpusvm_event *event, int result)
{
	gpusvm_fence_signal(&event->fence, result);
}

void event_put(struct gpusvm_event *event)
{
	gpusvm_fence_put(&event->fence);
}

/* -ETIME, or 0 when it is done. What other queues have gone on from is done: where the fence
 * is signalled, and its callback has not come so far, that is waited for. */
static int event_wait(struct gpusvm_event *event, u64 deadline)
{
	u32 state;

	while ((state = host_load_acquire(&event->state)) != EVENT_DONE) {
		if (state == EVENT_PENDING && !host_cas(&event->state, &state, EVENT_WAITED))
			continue;
		if (futex_wait(&event->state, EVENT_WAITED, deadline) == -ETIME) {
			if (!gpusvm_fence_signalled(&event->fence))
				return -ETIME;
			deadline = HOST_FOREVER;
		}
	}
	return 0;
}

static bool event_done(struct gpusvm_event *event)
{
	return gpusvm_fence_signalled(&event->fence) && !event_wait(event, HOST_FOREVER);
}

int event_result(struct gpusvm_event *event)
{
	event_wait(event, HOST_FOREVER);
	return event->result;
}

int event_finish(struct gpusvm_event *event)
{
	int result = event_result(event);

	event_put(event);
	return result;
}

/* ---- What applications ask ---- */

int gpusvm_event_wait(struct gpusvm_event *event, int64_t timeout_ns)
{
	u64 deadline = HOST_FOREVER;

	if (!event)
		return -EINVAL;
	if (host_read_once(&event->svm->in_child))
		return -ENODEV;
	if (timeout_ns == 0 && !event_done(event))
		return -ETIME;
	if (timeout_ns > 0)
		deadline = host_now() + (u64)timeout_ns;
	return event_wait(event, deadline) ?: event->result;
}

int gpusvm_event_fault(struct gpusvm_event *event, struct gpusvm_fault *ret)
{
	struct gpusvm_fault fault = {.size = 0};
	int err;

	if (!event || !ret)
		return -EINVAL;
	if (host_read_once(&event->svm->in_child))
		return -ENODEV;
	err = struct_out_check(ret, sizeof(fault));
	if (err)
		return err;
	if (!event_done(event) || !event->result || !event->job.fault.error)
		return -ENOENT;
	fault.address = event->job.fault.address;
	fault.access = (u32)event->job.fault.access;
	fault.device = event->device;
	fault.error = event->result;
	struct_out(ret, &fault, sizeof(fault));
	return 0;
}

void gpusvm_event_put(struct gpusvm_event *event)
{
	if (event && !host_read_once(&event->svm->in_child))
		event_put(event);
}
