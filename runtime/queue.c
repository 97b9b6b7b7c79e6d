/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * queue.c: queues. Work is posted by the application's threads and fed to the
 * driver by a task, on one thread at a time: what the device does is
 * submitted; what the driver does (prefetch, bind) is done there and then,
 * when the device has finished what was before.
 *
 * Concurrency: fed is not FED_NOT from when somebody took it upon himself to have the
 * queue fed until the feeding task finds nothing more; whoever changes it from
 * FED_NOT posts the task. So pending and parking belong to one thread at a time.
 * Who posts leaves FED_MORE, so that the step back to FED_NOT, which fails then, is the
 * last touch of the queue: right after it another thread may feed it to its end.
 * running counts work from its submission to its completion. A task that
 * needs it to be 0 sets RUNNING_PARKED and returns; the completion that makes
 * it 0 posts the task again. Neither touches the queue afterwards.
 * Progress: feeding waits for nothing but the driver.
 */
#include "runtime/private.h"

#define RUNNING_PARKED (1u << 31)

enum { FED_NOT, FED_ON, FED_MORE };

int queue_check(const struct gpusvm_queue *queue)
{
	if (!queue)
		return -EINVAL;
	if (host_read_once(&queue->svm->in_child))
		return -ENODEV;
	return device_check(queue->svm, queue->device);
}

/* ---- Feeding ---- */

static void queue_feed(struct task *task);

void queue_work_done(struct gpusvm_queue *queue)
{
	if (host_add_return(&queue->running, (u32)-1) == RUNNING_PARKED)
		task_post(queue->svm, &queue->task, TASK_QUICK, queue_feed);
}

/* Nothing runs on the device; else the task will be posted when that is so. */
static bool queue_idle(struct gpusvm_queue *queue)
{
	if (host_load_seq(&queue->running) == 0)
		return true;
	if (host_fetch_or(&queue->running, RUNNING_PARKED) != 0)
		return false;
	host_fetch_and(&queue->running, ~RUNNING_PARKED);
	return true;
}

static void feed_job(struct gpusvm_queue *queue, struct gpusvm_event *event)
{
	event->job.done = &event->fence;
	event_arm(event);
	host_add_return(&queue->running, 1);
	gpusvm_driver_submit(queue->driver, &event->job);
}

/* Runs what the driver does, unless what was before ended the queue. */
static void feed_call(struct gpusvm_queue *queue, struct gpusvm_event *event)
{
	int err = queue_check(queue);

	if (!err && host_load_acquire(&queue->ended))
		err = -EIO;
	if (!err)
		err = event->call(event);
	event_arm(event);
	event_complete(event, err);
}

static void feed_destroy(struct gpusvm_queue *queue, struct gpusvm_event *event)
{
	/* Its memory is freed later: whoever posted this may not be done with it. */
	gpusvm_driver_queue_destroy(queue->driver);
	event_arm(event);
	event_complete(event, 0);
}

/* Feeds one; false when the task is to return, and not to touch the queue. */
static bool feed_one(struct gpusvm_queue *queue, struct gpusvm_event *event)
{
	if (event->kind == EVENT_JOB) {
		fifo_pop(&queue->pending);
		feed_job(queue, event);
		return true;
	}
	if (!queue_idle(queue))
		return false;
	if (queue->task.class != TASK_SLOW) {
		task_post(queue->svm, &queue->task, TASK_SLOW, queue_feed);
		return false;
	}
	fifo_pop(&queue->pending);
	if (event->kind == EVENT_DESTROY) {
		feed_destroy(queue, event);
		return false;
	}
	feed_call(queue, event);
	return true;
}

static void queue_feed(struct task *task)
{
	struct gpusvm_queue *queue = host_container_of(task, struct gpusvm_queue, task);
	struct task *next;
	u32 on;

	host_fetch_and(&queue->running, ~RUNNING_PARKED);
	for (;;) {
		/* Before the look: what is posted later leaves FED_MORE. */
		host_store_seq(&queue->fed, FED_ON);
		for (task = task_take_all(&queue->posted); task; task = next) {
			next = task->next;
			fifo_append(&queue->pending, task);
		}
		task = queue->pending.first;
		if (task) {
			if (!feed_one(queue, host_container_of(task, struct gpusvm_event, task)))
				return;
			continue;
		}
		on = FED_ON;
		if (host_cas(&queue->fed, &on, FED_NOT))
			return;
	}
}

void queue_post(struct gpusvm_queue *queue, struct gpusvm_event *event, enum event_kind kind)
{
	event->queue = queue;
	event->device = queue->device;
	event->kind = kind;
	gpusvm_fence_get(&event->fence);
	task_push(&queue->posted, &event->task);
	if (host_xchg(&queue->fed, FED_MORE) == FED_NOT)
		task_post(queue->svm, &queue->task, TASK_QUICK, queue_feed);
}

/* ---- Creation and destruction ---- */

void queues_free_dead(struct gpusvm *svm)
{
	struct gpusvm_queue *queue = host_xchg(&svm->dead, NULL), *next;

	for (; queue; queue = next) {
		next = queue->next;
		host_free(queue);
	}
}

static int create_call(struct gpusvm_event *event)
{
	struct gpusvm *svm = event->svm;
	struct gpusvm_queue *queue;
	int err;

	queues_free_dead(svm);
	queue = host_alloc_zeroed(sizeof(*queue));
	if (!queue)
		return -ENOMEM;
	queue->svm = svm;
	queue->device = event->device;
	err = gpusvm_driver_queue_create(svm->driver, queue->device, &queue->driver);
	if (err) {
		host_free(queue);
		return err;
	}
	event->u.queue = queue;
	return 0;
}

int gpusvm_queue_create(struct gpusvm *svm, int device, const struct gpusvm_queue_options *options,
			struct gpusvm_queue **ret)
{
	struct gpusvm_queue_options o = { .size = 0 };
	struct gpusvm_event *event;
	struct gpusvm_queue *queue;
	int err = svm_check(svm);

	if (err)
		return err;
	if (!ret || (options && (struct_in(&o, sizeof(o), options) || o.flags)))
		return -EINVAL;
	err = device_event(svm, device, false, &event);
	if (err)
		return err;
	err = call(event, create_call, TASK_QUICK);
	queue = event->u.queue;
	event_put(event);
	if (err)
		return err;
	host_mutex_lock(&svm->lock);
	queue->next = svm->queues;
	if (queue->next)
		queue->next->prev = queue;
	svm->queues = queue;
	host_mutex_unlock(&svm->lock);
	*ret = queue;
	return 0;
}

void gpusvm_queue_destroy(struct gpusvm_queue *queue)
{
	struct gpusvm_queue *top;
	struct gpusvm_event *event;
	struct gpusvm *svm;

	if (!queue || host_read_once(&queue->svm->in_child))
		return;
	svm = queue->svm;
	host_mutex_lock(&svm->lock);
	if (queue->prev)
		queue->prev->next = queue->next;
	else
		svm->queues = queue->next;
	if (queue->next)
		queue->next->prev = queue->prev;
	host_mutex_unlock(&svm->lock);

	event = event_new_wait(svm);
	queue_post(queue, event, EVENT_DESTROY);
	event_finish(event);
	/* Only now is this thread done with it; it does not free, which locks. */
	top = host_read_once(&svm->dead);
	do
		queue->next = top;
	while (!host_cas(&svm->dead, &top, queue));
}
