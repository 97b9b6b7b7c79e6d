/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * work.c: what queues do. Each call fills in an event on the application's
 * thread and posts it; the functions named ..._call run on a call thread.
 * Bytes of the caller (args, what is read and written) travel in the event's
 * own memory, and are copied by the caller's thread.
 */
#include "runtime/private.h"

/* Gives the caller the event, or waits for it. */
static int work_return(struct gpusvm_event *event, struct gpusvm_event **ret)
{
	if (!ret)
		return event_finish(event);
	*ret = event;
	return 0;
}

/* ---- Work of the device ---- */

static struct gpusvm_event *job_new(struct gpusvm_queue *queue, enum gpusvm_command_type type)
{
	struct gpusvm_event *event = event_new(queue->svm);

	if (event)
		event->job.command.type = type;
	return event;
}

static bool does_nothing(const struct gpusvm_command *command)
{
	switch (command->type) {
	case GPUSVM_COMMAND_CALL:
		return command->items == 0;
	case GPUSVM_COMMAND_WAIT:
		return false;
	default:
		return command->length == 0;
	}
}

static void job_post(struct gpusvm_queue *queue, struct gpusvm_event *event)
{
	if (does_nothing(&event->job.command)) {
		event->job.command.type = GPUSVM_COMMAND_WAIT;
		event->job.command.fence = &queue->svm->past;
	}
	queue_post(queue, event, EVENT_JOB);
}

static int buffer_call(struct gpusvm_event *event)
{
	event->buffer = host_alloc(event->u.size);
	return event->buffer ? 0 : -ENOMEM;
}

/* Memory of the library for size bytes, to go with an event that has none. */
static int event_buffer(struct gpusvm_event *event, size_t size)
{
	struct gpusvm_event *helper;
	int err;

	if (size <= EVENT_BYTES)
		return 0;
	helper = event_new(event->svm);
	if (!helper)
		return -ENOMEM;
	helper->u.size = size;
	err = call(helper, buffer_call, TASK_QUICK);
	event->buffer = helper->buffer;
	helper->buffer = NULL;
	event_put(helper);
	return err;
}

static void *event_bytes(struct gpusvm_event *event)
{
	return event->buffer ? event->buffer : event->u.bytes;
}

/* p + len is an address, or the end of all. */
static bool wraps(const void *p, size_t len)
{
	return len && (u64)(uintptr_t)p + (len - 1) < (u64)(uintptr_t)p;
}

int gpusvm_launch(struct gpusvm_queue *queue, const struct gpusvm_kernel *kernel, const void *args,
		  size_t args_size, uint64_t items, struct gpusvm_event **ret)
{
	struct gpusvm_kernel k;
	struct gpusvm_command *command;
	struct gpusvm_event *event;
	int err = queue_check(queue);

	if (err)
		return err;
	if (!kernel || struct_in(&k, sizeof(k), kernel) || !k.fn || (args_size && !args))
		return -EINVAL;
	event = job_new(queue, GPUSVM_COMMAND_CALL);
	if (!event)
		return -ENOMEM;
	err = event_buffer(event, args_size);
	if (err) {
		event_put(event);
		return err;
	}
	if (args_size)
		host_memcpy(event_bytes(event), args, args_size);
	command = &event->job.command;
	command->fn = k.fn;
	command->args = event_bytes(event);
	command->items = items;
	job_post(queue, event);
	return work_return(event, ret);
}

int gpusvm_memcpy(struct gpusvm_queue *queue, void *dst, const void *src, size_t len,
		  struct gpusvm_event **ret)
{
	struct gpusvm_event *event;
	int err = queue_check(queue);

	if (err)
		return err;
	if (wraps(dst, len) || wraps(src, len))
		return -EINVAL;
	event = job_new(queue, GPUSVM_COMMAND_COPY);
	if (!event)
		return -ENOMEM;
	event->job.command.va = (u64)(uintptr_t)dst;
	event->job.command.va2 = (u64)(uintptr_t)src;
	event->job.command.length = len;
	job_post(queue, event);
	return work_return(event, ret);
}

int gpusvm_memset(struct gpusvm_queue *queue, void *dst, int byte, size_t len,
		  struct gpusvm_event **ret)
{
	struct gpusvm_event *event;
	int err = queue_check(queue);

	if (err)
		return err;
	if (wraps(dst, len))
		return -EINVAL;
	event = job_new(queue, GPUSVM_COMMAND_SET);
	if (!event)
		return -ENOMEM;
	event->job.command.va = (u64)(uintptr_t)dst;
	event->job.command.length = len;
	event->job.command.byte = byte;
	job_post(queue, event);
	return work_return(event, ret);
}

int gpusvm_queue_wait(struct gpusvm_queue *queue, struct gpusvm_event *event)
{
	struct gpusvm_event *wait;
	int err = queue_check(queue);

	if (err)
		return err;
	if (!event)
		return -EINVAL;
	err = svm_check(event->svm); /* a child's queue, and its parent's event */
	if (err)
		return err;
	if (event->svm != queue->svm)
		return -EINVAL;
	if (host_load_acquire(&event->state) == EVENT_DONE)
		return 0;
	wait = job_new(queue, GPUSVM_COMMAND_WAIT);
	if (!wait)
		return -ENOMEM;
	gpusvm_fence_get(&event->fence);
	wait->wait_for = event;
	wait->job.command.fence = &event->fence;
	job_post(queue, wait);
	event_put(wait);
	return 0;
}

/* ---- Reading and writing: in pieces, through the library's memory ---- */

static int transfer_piece(struct gpusvm_queue *queue, struct gpusvm_event *event, u64 va,
			  void *buffer, size_t n, bool write)
{
	struct gpusvm_command *command = &event->job.command;
	void *bytes = event_bytes(event);
	int err;

	command->type = write ? GPUSVM_COMMAND_WRITE : GPUSVM_COMMAND_READ;
	command->va = va;
	command->length = n;
	command->buffer = bytes;
	event->job.contained = true;
	if (write && n)
		host_memcpy(bytes, buffer, n);
	job_post(queue, event);
	err = event_result(event);
	if (!err && !write && n)
		host_memcpy(buffer, bytes, n);
	return err;
}

static int transfer(struct gpusvm_queue *queue, u64 va, void *buffer, size_t len, bool write)
{
	struct gpusvm_event *event = NULL, *last;
	size_t done = 0, n;
	int err;

	do {
		n = host_min(len - done, (size_t)BUFFER_MAX);
		last = event;
		event = event_new(queue->svm);
		err = event ? 0 : -ENOMEM;
		if (last && event) {
			event->buffer = last->buffer;
			last->buffer = NULL;
		}
		if (last)
			event_put(last);
		if (!err && !event->buffer)
			err = event_buffer(event, n);
		if (!err)
			err = transfer_piece(queue, event, va + done, (char *)buffer + done, n,
					     write);
		done += n;
	} while (!err && done < len);
	if (event)
		event_put(event);
	return err;
}

static int transfer_check(struct gpusvm_queue *queue, const void *p, const void *buffer, size_t len)
{
	int err = queue_check(queue);

	if (err)
		return err;
	return (len && !buffer) || wraps(p, len) ? -EINVAL : 0;
}

int gpusvm_read(struct gpusvm_queue *queue, void *buffer, const void *p, size_t len)
{
	int err = transfer_check(queue, p, buffer, len);

	return err ? err : transfer(queue, (u64)(uintptr_t)p, buffer, len, false);
}

int gpusvm_write(struct gpusvm_queue *queue, void *p, const void *buffer, size_t len)
{
	int err = transfer_check(queue, p, buffer, len);

	return err ? err : transfer(queue, (u64)(uintptr_t)p, (void *)(uintptr_t)buffer, len, true);
}

/* ---- Work of the driver, between that of the device ---- */

int gpusvm_queue_prefetch(struct gpusvm_queue *queue, const void *p, size_t len,
			  struct gpusvm_location where, unsigned flags, struct gpusvm_event **ret)
{
	struct gpusvm_event *event;
	int err = queue_check(queue);

	if (err)
		return err;
	event = event_new(queue->svm);
	if (!event)
		return -ENOMEM;
	err = prefetch_prepare(event, queue, p, len, where, flags);
	if (err) {
		event_put(event);
		return err;
	}
	event->call = prefetch_call;
	queue_post(queue, event, EVENT_CALL);
	return work_return(event, ret);
}

static int bind_call(struct gpusvm_event *event)
{
	if (event->u.bind.start == event->u.bind.end)
		return 0;
	return gpusvm_driver_bind(event->queue->driver, event->u.bind.start, event->u.bind.end,
				  event->u.bind.read_only);
}

static int unbind_call(struct gpusvm_event *event)
{
	if (event->u.bind.start == event->u.bind.end)
		return 0;
	return gpusvm_driver_unbind(event->queue->driver, event->u.bind.start, event->u.bind.end);
}

static int bind_post(struct gpusvm_queue *queue, const void *p, size_t len, bool read_only,
		     int (*fn)(struct gpusvm_event *))
{
	struct gpusvm_event *event;
	u64 start, end;
	int err = interval_outward(p, len, &start, &end);

	if (err)
		return err;
	event = event_new(queue->svm);
	if (!event)
		return -ENOMEM;
	event->u.bind.start = start;
	event->u.bind.end = end;
	event->u.bind.read_only = read_only;
	event->call = fn;
	queue_post(queue, event, EVENT_CALL);
	return event_finish(event);
}

int gpusvm_bind(struct gpusvm_queue *queue, const void *p, size_t len, unsigned flags)
{
	int err = queue_check(queue);

	if (err)
		return err;
	if (flags & ~GPUSVM_READ_ONLY)
		return -EINVAL;
	return bind_post(queue, p, len, flags & GPUSVM_READ_ONLY, bind_call);
}

int gpusvm_unbind(struct gpusvm_queue *queue, const void *p, size_t len)
{
	int err = queue_check(queue);

	return err ? err : bind_post(queue, p, len, false, unbind_call);
}

static int exclusive_call(struct gpusvm_event *event)
{
	if (event->u.bind.start == event->u.bind.end)
		return 0;
	return gpusvm_driver_make_exclusive(event->queue->driver, event->u.bind.start,
					    event->u.bind.end);
}

int gpusvm_make_exclusive(struct gpusvm_queue *queue, void *p, size_t len)
{
	int err = queue_check(queue);

	return err ? err : bind_post(queue, p, len, false, exclusive_call);
}
