/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * memory.c: allocation, prefetch, evict and residency: each checks its
 * arguments on the application's thread and has the rest done by the library's.
 * No locks.
 */
#include "runtime/private.h"
#include "host/userfault/userfault.h"

#define RESIDENCY_PIECE 1024u /* pages asked for at a time */

_Static_assert(GPUSVM_PAGE_MAPPED == MM_STATE_MAPPED &&
		       GPUSVM_PAGE_POPULATED == MM_STATE_POPULATED &&
		       GPUSVM_PAGE_ZERO == MM_STATE_ZERO &&
		       GPUSVM_PAGE_READABLE == MM_STATE_READABLE &&
		       GPUSVM_PAGE_WRITABLE == MM_STATE_WRITABLE &&
		       GPUSVM_PAGE_EXCLUSIVE == DRIVER_PAGE_EXCLUSIVE,
	       "page flags");

int interval_outward(const void *p, size_t len, u64 *start, u64 *end)
{
	u64 address = (u64)(uintptr_t)p;

	*start = *end = host_align_down(address, HOST_PAGE_SIZE);
	if (!len)
		return 0;
	if (address + len < address || address + len > ~(u64)0 - HOST_PAGE_SIZE)
		return -EINVAL;
	*end = host_align_up(address + len, HOST_PAGE_SIZE);
	return 0;
}

int location_check(struct gpusvm *svm, struct gpusvm_location where, int *ret)
{
	switch (where.type) {
	case GPUSVM_LOCATION_SYSTEM:
		*ret = DRIVER_SYSTEM;
		return 0;
	case GPUSVM_LOCATION_DEVICE:
		if (where.region)
			return -EINVAL;
		*ret = where.device;
		return device_check(svm, where.device);
	case GPUSVM_LOCATION_FD:
		return fd_device(svm, where.fd, ret);
	default:
		return -EINVAL;
	}
}

/* ---- gpusvm_alloc ---- */

static int alloc_call(struct gpusvm_event *event)
{
	event->u.p = userfault_alloc(event->svm->mm, event->u.size);
	return event->u.p ? 0 : -ENOMEM;
}

void *gpusvm_alloc(struct gpusvm *svm, size_t size)
{
	struct gpusvm_event *event;
	void *p = NULL;

	if (svm_check(svm) || !size || !(event = event_new(svm)))
		return NULL;
	event->u.size = size;
	if (!call(event, alloc_call, TASK_QUICK))
		p = event->u.p;
	event_put(event);
	return p;
}

static int free_call(struct gpusvm_event *event)
{
	return userfault_free(event->svm->mm, event->u.p);
}

void gpusvm_free(struct gpusvm *svm, void *p)
{
	struct gpusvm_event *event;

	if (svm_check(svm) || !p)
		return;
	event = event_new_wait(svm);
	event->u.p = p;
	call(event, free_call, TASK_SLOW);
	event_put(event);
}

/* ---- Prefetch ---- */

int prefetch_prepare(struct gpusvm_event *event, const struct gpusvm_queue *queue, const void *p,
		     size_t len, struct gpusvm_location where, unsigned flags)
{
	int err;

	if (flags & ~GPUSVM_STRICT)
		return -EINVAL;
	if (where.type == GPUSVM_LOCATION_FAULTING && queue)
		where = gpusvm_device(queue->device);
	if (where.type == GPUSVM_LOCATION_PREFERRED) {
		event->u.prefetch.where = DRIVER_PREFERRED;
	} else {
		err = location_check(event->svm, where, &event->u.prefetch.where);
		if (err)
			return err;
	}
	event->u.prefetch.strict = flags & GPUSVM_STRICT;
	return interval_outward(p, len, &event->u.prefetch.start, &event->u.prefetch.end);
}

int prefetch_call(struct gpusvm_event *event)
{
	if (event->u.prefetch.start == event->u.prefetch.end)
		return 0;
	return gpusvm_driver_prefetch(event->svm->driver, event->u.prefetch.start,
				      event->u.prefetch.end, event->u.prefetch.where,
				      event->u.prefetch.strict, &event->u.prefetch.result);
}

static void moved_out(struct gpusvm_moved *moved, const struct gpusvm_migrate_result *result)
{
	struct gpusvm_moved m = {
		.moved = result->moved,
		.already = result->already,
		.stayed = result->stayed,
		.holes = result->holes,
	};

	struct_out(moved, &m, sizeof(m));
}

int gpusvm_prefetch(struct gpusvm *svm, const void *p, size_t len, struct gpusvm_location where,
		    unsigned flags, struct gpusvm_moved *moved, struct gpusvm_event **ret)
{
	struct gpusvm_event *event;
	int err = svm_check(svm);

	if (err)
		return err;
	if (moved && (ret || struct_out_check(moved, sizeof(*moved))))
		return -EINVAL;
	event = event_new(svm);
	if (!event)
		return -ENOMEM;
	err = prefetch_prepare(event, NULL, p, len, where, flags);
	if (err) {
		event_put(event);
		return err;
	}
	call_post(event, prefetch_call, TASK_SLOW);
	if (ret) {
		*ret = event;
		return 0;
	}
	err = event_result(event);
	if (moved)
		moved_out(moved, &event->u.prefetch.result);
	event_put(event);
	return err;
}

/* ---- Discard ---- */

static int discard_call(struct gpusvm_event *event)
{
	struct gpusvm *svm = event->svm;
	u64 start = event->u.discard.start, end = event->u.discard.end, began = host_now();
	int err = userfault_discard(svm->mm, start, end);

	if (!err)
		err = mm_sync(svm->mm, start, end);
	if (!err && svm->ring.n)
		ring_event(&svm->ring, &(struct gpusvm_driver_event){
					.time = began,
					.duration = host_now() - began,
					.type = DRIVER_EVENT_DISCARD,
					.device = -1,
					.from = -2,
					.to = -2,
					.address = start,
					.length = end - start,
				});
	return err;
}

int gpusvm_discard(struct gpusvm *svm, void *p, size_t len)
{
	struct gpusvm_event *event;
	u64 address = (u64)(uintptr_t)p, start, end;
	int err = svm_check(svm);

	if (err)
		return err;
	if (__builtin_add_overflow(address, len, &end))
		return -EINVAL;
	start = host_align_up(address, HOST_PAGE_SIZE);
	end = host_align_down(end, HOST_PAGE_SIZE);
	if (start < address || start >= end) /* in the last page of all, it wraps around */
		return 0;
	event = event_new(svm);
	if (!event)
		return -ENOMEM;
	event->u.discard.start = start;
	event->u.discard.end = end;
	call_post(event, discard_call, TASK_SLOW);
	return event_finish(event);
}

/* ---- Evict ---- */

static int evict_call(struct gpusvm_event *event)
{
	return gpusvm_driver_evict(event->svm->driver, event->device, DRIVER_CAUSE_EVICTION);
}

int gpusvm_evict(struct gpusvm *svm, int device)
{
	struct gpusvm_event *event;
	int err = device_event(svm, device, true, &event);

	if (err)
		return err;
	call_post(event, evict_call, TASK_SLOW);
	return event_finish(event);
}

/* ---- Residency ---- */

static int residency_call(struct gpusvm_event *event)
{
	u64 n = event->u.residency.n;

	if (!event->buffer)
		event->buffer = host_alloc(RESIDENCY_PIECE *
					   sizeof(struct gpusvm_driver_residency));
	if (!event->buffer)
		return -ENOMEM;
	return gpusvm_driver_residency(event->svm->driver, event->u.residency.start, n,
				       event->buffer);
}

struct gpusvm_location location_of(int where)
{
	if (where == DRIVER_SYSTEM)
		return gpusvm_system();
	return where >= 0 ? gpusvm_device(where) : gpusvm_none();
}

static void residency_out(char *ret, size_t stride, const struct gpusvm_driver_residency *from,
			  u64 n)
{
	for (u64 i = 0; i < n; i++, ret += stride) {
		struct gpusvm_page_info *info = (struct gpusvm_page_info *)(void *)ret;

		host_memset(ret, 0, stride);
		info->flags = from[i].flags;
		info->order = from[i].order;
		info->location = location_of(from[i].location);
		info->mapped_by = from[i].mapped_by;
	}
}

int gpusvm_residency(struct gpusvm *svm, const void *p, size_t len, struct gpusvm_page_info *ret,
		     size_t n, size_t stride)
{
	struct gpusvm_event *event;
	char *out = (char *)ret;
	u64 start, end, piece;
	int err = svm_check(svm);

	if (err)
		return err;
	if (stride < sizeof(*ret) || interval_outward(p, len, &start, &end))
		return -EINVAL;
	if ((end - start) >> HOST_PAGE_SHIFT > n)
		return -ENOSPC;
	if (!ret && start < end)
		return -EINVAL;
	while (!err && start < end) {
		event = event_new(svm);
		if (!event)
			return -ENOMEM;
		piece = host_min((end - start) >> HOST_PAGE_SHIFT, (u64)RESIDENCY_PIECE);
		event->u.residency.start = start;
		event->u.residency.n = piece;
		err = call(event, residency_call, TASK_QUICK);
		if (!err)
			residency_out(out, stride, event->buffer, piece);
		event_put(event);
		out += piece * stride;
		start += piece << HOST_PAGE_SHIFT;
	}
	return err;
}
