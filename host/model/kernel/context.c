/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * context.c: userfaultfd: who waits, what is read, and in which order.
 *
 * A thread in a fault queues itself, looks whether its page came meanwhile, and
 * sleeps until it is woken, whether its message was read or not. A thread whose
 * event is queued sleeps until it is read, not longer; but until it has run again
 * itself (context.changing), every COPY, MOVE and so on answers EAGAIN. read() gives
 * faults before events.
 */
#include "host/model/kernel/internal.h"

#include <poll.h>
#include <string.h>

#define PAGE HOST_PAGE_SIZE
#define FEATURES                                                                                   \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |          \
	 UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON)

struct context *context_of(int fd)
{
	struct context *c;

	if (fd < FD_CONTEXT || fd >= FD_CONTEXT + (int)CONTEXTS)
		return NULL;
	c = &kernel.contexts[fd - FD_CONTEXT];
	reads(&kernel.contexts);
	return c->used ? c : NULL;
}

struct context *context_make(struct space *s)
{
	writes(&kernel.contexts);
	for (u32 i = 0; i < CONTEXTS; i++) {
		struct context *c = &kernel.contexts[i];

		if (c->used)
			continue;
		*c = (struct context){.used = true, .space = s};
		host_waitq_init(&c->waitq);
		return c;
	}
	return NULL;
}

int context_open(u32 flags)
{
	struct context *c = context_make(kernel_self());

	if (!c)
		return -EMFILE;
	c->user_only = flags & UFFD_USER_MODE_ONLY;
	return FD_CONTEXT + (int)(c - kernel.contexts);
}

void context_close(struct context *c)
{
	struct space *s = c->space;

	writes(&c->released);
	c->released = true;
	reads(&s->gone);
	if (!s->gone) {
		mmap_write_lock(s);
		for (u32 i = 0; i < s->n_areas; i++)
			if (s->areas[i].context == c) {
				areas_change(s, s->areas[i].start, s->areas[i].end);
				s->areas[i].context = NULL;
				s->areas[i].mode = 0;
			}
		areas_merge(s);
		mmap_write_unlock(s);
	}
	context_wake(c, 0, 0);
	/* Who waits for an event goes on, too. */
	writes(&c->events);
	for (struct event_wait *w = c->events; w; w = w->next) {
		writes(w);
		w->done = true;
	}
	c->events = NULL;
	host_wake_all(&c->waitq);
	kernel_wait((reads(&c->changing), !c->changing));
	writes(&kernel.contexts);
	c->used = false;
	kernel_wake();
}

/* ---- Faults ------------------------------------------------------------------ */

void context_wake(struct context *c, u64 start, u64 length)
{
	struct fault_wait **at = &c->faults;
	bool any = false;

	reads(&c->faults);
	while (*at) {
		struct fault_wait *w = *at;

		if (length && (w->address < start || w->address - start >= length)) {
			at = &w->next;
			continue;
		}
		writes(&c->faults);
		writes(w);
		*at = w->next;
		w->woken = any = true;
	}
	if (any)
		host_wake_all(&c->waitq);
}

/* Is the page still as it was when the fault was found? */
static bool must_wait(struct space *s, u64 address, u32 flags)
{
	const struct pte *p = pte_look(s, address);

	if (!p || pte_none(p))
		return true;
	return flags & UFFD_PAGEFAULT_FLAG_WP && p->flags & PTE_PROTECTED;
}

int context_fault(struct space *s, struct context *c, u64 address, u32 flags, bool by_kernel)
{
	struct fault_wait w = {.address = address, .flags = flags};
	struct fault_wait **at;

	if (!s->number && host_arena_contains((void *)(uintptr_t)address))
		sched_fail(SCHED_LAW, "the library touches staging where there is no page (0x%llx)",
			   (unsigned long long)address);
	if (by_kernel && c->user_only) {
		mmap_read_unlock(s);
		return -EFAULT;
	}
	reads(&c->released);
	if (c->released) {
		mmap_read_unlock(s);
		return 0;
	}
	writes(&c->faults);
	for (at = &c->faults; *at; at = &(*at)->next)
		;
	*at = &w;
	step();
	reads(&c->released);
	if (!must_wait(s, address, flags) || c->released) {
		writes(&c->faults);
		for (at = &c->faults; *at && *at != &w; at = &(*at)->next)
			;
		if (*at)
			*at = w.next;
		mmap_read_unlock(s);
		return 0;
	}
	mmap_read_unlock(s);
	host_wake_all(&kernel.pollers);
	kernel.waiting++;
	(void)kernel_wait_on(&c->waitq, sched_await(&w, w.woken), HOST_FOREVER);
	kernel.waiting--;
	return 0;
}

/* ---- Events -------------------------------------------------------------------- */

void context_event(struct context *c, struct event_wait *w)
{
	struct event_wait **at;

	kernel_counts.events++;
	w->next = NULL;
	reads(&c->released);
	w->done = c->released;
	if (!w->done) {
		writes(&c->events);
		for (at = &c->events; *at; at = &(*at)->next)
			;
		*at = w;
		host_wake_all(&kernel.pollers);
		kernel.waiting++;
		(void)kernel_wait_on(&c->waitq, sched_await(w, w->done), HOST_FOREVER);
		kernel.waiting--;
	}
	if (whim(kernel.whims.late))
		host_sleep(sched_random() % (2 * HOST_SEC));
	step();
	writes(&c->changing);
	c->changing--;
	kernel_wake();
}

bool context_readable(const struct context *c)
{
	reads(&c->faults);
	for (const struct fault_wait *w = c->faults; w; w = w->next)
		if (!w->read)
			return true;
	reads(&c->events);
	return c->events != NULL;
}

static s64 give(void *buffer, const struct uffd_msg *msg)
{
	static const char *const names[] = {
	    [UFFD_EVENT_PAGEFAULT - UFFD_EVENT_PAGEFAULT] = "fault",
	    [UFFD_EVENT_FORK - UFFD_EVENT_PAGEFAULT] = "FORK",
	    [UFFD_EVENT_REMAP - UFFD_EVENT_PAGEFAULT] = "REMAP",
	    [UFFD_EVENT_REMOVE - UFFD_EVENT_PAGEFAULT] = "REMOVE",
	    [UFFD_EVENT_UNMAP - UFFD_EVENT_PAGEFAULT] = "UNMAP",
	};
	u64 address = msg->event == UFFD_EVENT_FORK	   ? KERNEL_USER_BASE
		      : msg->event == UFFD_EVENT_PAGEFAULT ? msg->arg.pagefault.address
							   : msg->arg.remove.start;

	sched_note("reads %s of %s %lld", names[msg->event - UFFD_EVENT_PAGEFAULT], PLACE(address));
	memcpy(buffer, msg, sizeof(*msg));
	return sizeof(*msg);
}

s64 context_read(struct context *c, void *buffer, size_t size)
{
	struct event_wait *e;
	struct uffd_msg msg;

	if (!c->api_done || size < sizeof(msg))
		return -EINVAL;
	step();
	reads(&c->faults);
	for (struct fault_wait *w = c->faults; w; w = w->next) {
		if (w->read)
			continue;
		writes(&c->faults);
		w->read = true;
		memset(&msg, 0, sizeof(msg));
		msg.event = UFFD_EVENT_PAGEFAULT;
		msg.arg.pagefault.address = w->address;
		msg.arg.pagefault.flags = w->flags;
		return give(buffer, &msg);
	}
	reads(&c->events);
	e = c->events;
	if (!e)
		return -EAGAIN;
	writes(&c->events);
	writes(e);
	c->events = e->next;
	msg = e->msg;
	if (e->child)
		msg.arg.fork.ufd = (u32)(FD_CONTEXT + (e->child - kernel.contexts));
	e->done = true;
	host_wake_all(&c->waitq);
	return give(buffer, &msg);
}

/* ---- ioctl ---------------------------------------------------------------------- */

static int ioctl_api(struct context *c, struct uffdio_api *api)
{
	u64 asked = api->features;

	if (c->api_done)
		return -EINVAL;
	if (api->api != UFFD_API || asked & ~(u64)FEATURES)
		return -EINVAL;
	api->features = FEATURES;
	api->ioctls =
	    (u64)1 << _UFFDIO_REGISTER | (u64)1 << _UFFDIO_UNREGISTER | (u64)1 << _UFFDIO_API;
	c->features = asked;
	c->api_done = true;
	return 0;
}

static bool range_valid(u64 start, u64 length)
{
	return length && !((start | length) % PAGE) && start + length > start;
}

static int register_locked(struct context *c, u64 start, u64 end, u32 mode)
{
	struct space *s = c->space;
	struct area *a = area_next(s, start);
	int r;

	if (!a || a->start >= end)
		return -EINVAL;
	for (a = area_next(s, start); a && a < s->areas + s->n_areas && a->start < end; a++)
		if (mode && a->context && a->context != c)
			return -EBUSY;
	r = areas_split(s, start, end);
	if (r)
		return r;
	areas_change(s, start, end);
	for (u32 i = 0; i < s->n_areas; i++) {
		a = &s->areas[i];
		if (a->start < start || a->end > end || (!mode && a->context != c))
			continue;
		a->context = mode ? c : NULL;
		a->mode = mode;
	}
	areas_merge(s);
	return 0;
}

/* mode 0: unregister */
static int ioctl_register(struct context *c, u64 start, u64 length, u32 mode)
{
	struct space *s = c->space;
	int r;

	if (!range_valid(start, length))
		return -EINVAL;
	step();
	reads(&s->gone);
	if (s->gone)
		return -ESRCH;
	mmap_write_lock(s);
	r = register_locked(c, start, start + length, mode);
	mmap_write_unlock(s);
	told("REGISTER %s %lld + %lld, mode %d", r, PLACE(start), PAGE_COUNT(length), (int)mode);
	/* Who waits for a page there looks again, and is not stopped any more. */
	if (!mode && !r)
		context_wake(c, start, length);
	return r;
}

int context_ioctl(struct context *c, unsigned long request, void *arg)
{
	struct uffdio_register *reg = arg;
	struct uffdio_range *range = arg;

	if (request == UFFDIO_API)
		return ioctl_api(c, arg);
	if (!c->api_done)
		return -EINVAL;
	switch (request) {
	case UFFDIO_REGISTER:
		reg->ioctls = ~(u64)0;
		if (!reg->mode)
			return -EINVAL;
		return ioctl_register(c, reg->range.start, reg->range.len, (u32)reg->mode);
	case UFFDIO_UNREGISTER:
		return ioctl_register(c, range->start, range->len, 0);
	case UFFDIO_WAKE:
		if (!range_valid(range->start, range->len))
			return -EINVAL;
		step();
		context_wake(c, range->start, range->len);
		return 0;
	case UFFDIO_MOVE:
		return move_ioctl(c, arg);
	default:
		return fill_ioctl(c, request, arg);
	}
}
