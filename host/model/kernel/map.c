/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * map.c: mappings that come, go and move. Their events are queued after the change,
 * without mmap_lock; the change is counted (context.changing) before it begins, so that
 * from then on nothing is filled or moved.
 */
#include "host/model/kernel/internal.h"

#define PAGE HOST_PAGE_SIZE

static void remember(struct unmap_events *events, struct context *c)
{
	for (u32 i = 0; i < events->n; i++)
		if (events->contexts[i] == c)
			return;
	HOST_CHECK(events->n < host_array_size(events->contexts));
	events->contexts[events->n++] = c;
	writes(&c->changing);
	c->changing++;
}

int unmap_locked(struct space *s, u64 start, u64 end, struct unmap_events *events)
{
	int r = areas_split(s, start, end);

	*events = (struct unmap_events){.start = start, .end = end};
	if (r)
		return r;
	for (struct area *a = area_next(s, start); a && a < s->areas + s->n_areas && a->start < end;
	     a++)
		if (a->context && a->context->features & UFFD_FEATURE_EVENT_UNMAP)
			remember(events, a->context);
	areas_remove(s, start, end);
	zap(s, start, end);
	return 0;
}

void unmap_complete(struct unmap_events *events)
{
	for (u32 i = 0; i < events->n; i++) {
		struct event_wait w = {.msg = {.event = UFFD_EVENT_UNMAP}};

		w.msg.arg.remove.start = events->start;
		w.msg.arg.remove.end = events->end;
		context_event(events->contexts[i], &w);
	}
}

static bool valid(u64 start, u64 length)
{
	return length && !((start | length) % PAGE);
}

int kernel_mmap(u64 start, u64 length, u32 protection)
{
	struct space *s = kernel_self();
	struct unmap_events events;
	int r;

	if (!valid(start, length))
		return -EINVAL;
	step();
	mmap_write_lock(s);
	r = unmap_locked(s, start, start + length, &events);
	if (!r)
		r = area_add(s, &(struct area){.start = start,
					       .end = start + length,
					       .protection = protection});
	areas_merge(s);
	mmap_write_unlock(s);
	told("mmap %s %lld + %lld", r, PLACE(start), PAGE_COUNT(length));
	step();
	unmap_complete(&events);
	return r;
}

int kernel_munmap(u64 start, u64 length)
{
	struct space *s = kernel_self();
	struct unmap_events events;
	int r;

	if (!valid(start, length))
		return -EINVAL;
	step();
	mmap_write_lock(s);
	r = unmap_locked(s, start, start + length, &events);
	mmap_write_unlock(s);
	told("munmap %s %lld + %lld", r, PLACE(start), PAGE_COUNT(length));
	step();
	unmap_complete(&events);
	return r;
}

int kernel_mprotect(u64 start, u64 length, u32 protection)
{
	struct space *s = kernel_self();
	int r;

	if (!valid(start, length))
		return -EINVAL;
	step();
	mmap_write_lock(s);
	r = areas_split(s, start, start + length);
	areas_change(s, start, start + length);
	for (struct area *a = area_next(s, start);
	     !r && a && a < s->areas + s->n_areas && a->start < start + length; a++)
		a->protection = protection;
	areas_merge(s);
	mmap_write_unlock(s);
	told("mprotect %s %lld + %lld", r, PLACE(start), PAGE_COUNT(length));
	return r;
}

/* One page, with who has it pinned. */
static void remap_page(struct space *s, u64 from, u64 to)
{
	struct pte *p = pte_find(s, from), had;

	if (!p || !p->flags)
		return;
	had = *p;
	if (had.flags & PTE_PRESENT) {
		pte_fill(s, to, pte_bytes(s, from),
			 had.flags & ~(PTE_PROTECTED | PTE_PRESENT | PTE_MIGRATING));
		pte_find(s, to)->pins = had.pins;
		if (had.pins)
			pins_moved(from, to);
		p->pins = 0;
	} else {
		table_changes(s, to);
		table_make(s, to)->populated = true;
		pte_find(s, to)->flags = had.flags;
	}
	pte_clear(s, from);
}

static void remap_pages(struct space *s, u64 from, u64 to, u64 length)
{
	for (u64 at = 0; at < length; at += PAGE) {
		struct table *t = table_find(s, from + at);
		bool whole = t && t->huge &&
			     host_is_aligned((from + at) | (to + at), HOST_HUGE_SIZE) &&
			     length - at >= HOST_HUGE_SIZE;

		if (!t)
			continue;
		if (!whole) {
			huge_split(s, from + at);
			remap_page(s, from + at, to + at);
			continue;
		}
		for (u64 i = 0; i < HOST_HUGE_PAGES; i++)
			remap_page(s, from + at + i * PAGE, to + at + i * PAGE);
		table_changes(s, from + at);
		table_changes(s, to + at);
		t->huge = t->populated = false;
		table_make(s, to + at)->huge = true;
		table_make(s, to + at)->populated = false;
		at += HOST_HUGE_SIZE - PAGE;
	}
}

static void remap_complete(struct context *c, u64 from, u64 to, u64 length)
{
	struct event_wait w = {.msg = {.event = UFFD_EVENT_REMAP}};

	if (!c)
		return;
	w.msg.arg.remap.from = from;
	w.msg.arg.remap.to = to;
	w.msg.arg.remap.len = length;
	context_event(c, &w);
}

int kernel_mremap(u64 from, u64 to, u64 length, bool keep)
{
	struct space *s = kernel_self();
	struct unmap_events early = {0}, late = {0};
	struct context *c = NULL;
	struct area *a, moved;
	int r = 0;

	if (!valid(from, length) || !valid(to, length) ||
	    (from < to + length && to < from + length))
		return -EINVAL;
	step();
	mmap_write_lock(s);
	a = area_find(s, from);
	if (!a || a->end < from + length)
		r = -EFAULT;
	if (!r)
		r = unmap_locked(s, to, to + length, &early);
	if (!r) {
		moved = *area_find(s, from);
		moved.start = to;
		moved.end = to + length;
		c = moved.context;
		if (c && c->features & UFFD_FEATURE_EVENT_REMAP) {
			writes(&c->changing);
			c->changing++;
		} else {
			c = moved.context = NULL;
			moved.mode = 0;
		}
		r = area_add(s, &moved);
		HOST_CHECK(!r);
		remap_pages(s, from, to, length);
		if (!keep)
			r = unmap_locked(s, from, from + length, &late);
	}
	areas_merge(s);
	mmap_write_unlock(s);
	told("mremap %s %lld + %lld to %s %lld", r, PLACE(from), PAGE_COUNT(length), PLACE(to));
	step();
	unmap_complete(&early);
	remap_complete(c, from, to, length);
	unmap_complete(&late);
	return r;
}
