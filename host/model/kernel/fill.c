/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fill.c: COPY, ZEROPAGE, POISON and WRITEPROTECT.
 *
 * Unread events are looked for before the arguments are, and again with mmap_lock
 * held: a change that began in between is seen by one of the two. What was done before
 * an error is told as a count, with EAGAIN.
 */
#include "host/model/kernel/internal.h"

#include <string.h>

#define PAGE HOST_PAGE_SIZE

enum fill_kind { FILL_COPY, FILL_COPY_PROTECTED, FILL_ZERO, FILL_POISON };

static bool range_valid(u64 start, u64 length)
{
	return length && !((start | length) % PAGE) && start + length > start;
}

/* The bytes to be copied are in memory of the caller's that may be missing. 1: they
 * were, mmap_lock was released, and all has to be looked at again. */
static int source_ready(struct context *c, u64 source)
{
	struct space *self = kernel_self();
	struct area *a = area_find(self, source);
	const struct pte *p = pte_look(self, source);
	int r;

	/* What no table was made for is plain memory of the library. */
	if (!a || (!table_find(self, source) && !a->context) || (p && p->flags & PTE_PRESENT))
		return 0;
	mmap_read_unlock(c->space);
	r = fault_in(self, source, false, true);
	return r ? r : 1;
}

/* Where the bytes at an address of the caller's are. */
static const void *source_bytes(u64 source)
{
	struct space *self = kernel_self();

	return table_find(self, source) ? pte_bytes(self, source) : (const void *)(uintptr_t)source;
}

/* One page; mmap_lock is held. */
static int fill_one(struct context *c, u64 at, u64 source, enum fill_kind kind)
{
	struct space *s = c->space;
	struct table *t = table_make(s, at);
	struct pte *p = pte_find(s, at);

	if (t->huge)
		return -EEXIST;
	if (!t->populated)
		table_changes(s, at);
	t->populated = true;
	if (!pte_none(p))
		return -EEXIST;
	if (whim(kernel.whims.memory))
		return -ENOMEM;
	if (kind == FILL_POISON)
		p->flags = PTE_POISON;
	else
		pte_fill(s, at, kind <= FILL_COPY_PROTECTED ? source_bytes(source) : NULL,
			 kind == FILL_ZERO	       ? PTE_ZERO
			 : kind == FILL_COPY_PROTECTED ? PTE_PROTECTED
						       : 0);
	return 0;
}

static s64 fill_pages(struct context *c, u64 start, u64 source, u64 length, enum fill_kind kind)
{
	struct space *s = c->space;
	const struct area *a;
	u64 done = 0;
	int r;

again:
	step();
	reads(&s->gone);
	if (s->gone)
		return -ESRCH;
	mmap_read_lock(s);
	a = s->gone ? NULL : area_find(s, start);
	r = !a || start + length > a->end || !a->context ? -ENOENT : 0;
	reads(&c->changing);
	if (!r && c->changing)
		r = -EAGAIN;
	while (!r && done < length) {
		if (kind <= FILL_COPY_PROTECTED) {
			r = source_ready(c, source + done);
			if (r == 1)
				goto again;
			if (r)
				return done ? (s64)done : r;
		}
		r = fill_one(c, start + done, source + done, kind);
		if (!r) {
			done += PAGE;
			step_pages();
		}
	}
	mmap_read_unlock(s);
	return done ? (s64)done : r;
}

/* What a filling call answers; *ret is what the caller reads. */
static int fill_answer(struct context *c, u64 start, u64 length, bool wake, s64 done, __s64 *ret)
{
	*ret = done;
	told("fill %s %lld + %lld", done, PLACE(start), PAGE_COUNT(length));
	if (done < 0)
		return (int)done;
	if (wake) {
		step();
		context_wake(c, start, (u64)done);
	}
	return (u64)done == length ? 0 : -EAGAIN;
}

static int protect(struct context *c, const struct uffdio_writeprotect *arg)
{
	u64 start = arg->range.start, end = start + arg->range.len;
	struct space *s = c->space;
	const struct area *a;
	bool on = arg->mode & UFFDIO_WRITEPROTECT_MODE_WP;
	int r = 0;

	if (!range_valid(start, arg->range.len))
		return -EINVAL;
	mmap_read_lock(s);
	a = area_find(s, start);
	reads(&c->changing);
	if (!a || a->end < end || !(a->mode & UFFDIO_REGISTER_MODE_WP))
		r = -ENOENT;
	else if (c->changing)
		r = -EAGAIN;
	for (u64 at = start; !r && at < end; at += PAGE) {
		struct pte *p = pte_find(s, at);

		if (!p || !(p->flags & PTE_PRESENT))
			continue;
		huge_split(s, at);
		p->flags = (u16)(on ? p->flags | PTE_PROTECTED : p->flags & ~PTE_PROTECTED);
		step_pages();
	}
	mmap_read_unlock(s);
	if (!r && !on && !(arg->mode & UFFDIO_WRITEPROTECT_MODE_DONTWAKE))
		context_wake(c, start, arg->range.len);
	return r;
}

int fill_ioctl(struct context *c, unsigned long request, void *arg)
{
	struct uffdio_copy *copy = arg;
	struct uffdio_zeropage *zero = arg;
	struct uffdio_poison *poison = arg;

	step();
	reads(&c->changing);
	if (c->changing)
		return -EAGAIN;
	switch (request) {
	case UFFDIO_COPY:
		if (!range_valid(copy->dst, copy->len))
			return -EINVAL;
		kernel_counts.copies++;
		return fill_answer(
		    c, copy->dst, copy->len, !(copy->mode & UFFDIO_COPY_MODE_DONTWAKE),
		    fill_pages(c, copy->dst, copy->src, copy->len,
			       copy->mode & UFFDIO_COPY_MODE_WP ? FILL_COPY_PROTECTED : FILL_COPY),
		    &copy->copy);
	case UFFDIO_ZEROPAGE:
		if (!range_valid(zero->range.start, zero->range.len))
			return -EINVAL;
		return fill_answer(c, zero->range.start, zero->range.len, true,
				   fill_pages(c, zero->range.start, 0, zero->range.len, FILL_ZERO),
				   &zero->zeropage);
	case UFFDIO_POISON:
		if (!range_valid(poison->range.start, poison->range.len))
			return -EINVAL;
		return fill_answer(
		    c, poison->range.start, poison->range.len, true,
		    fill_pages(c, poison->range.start, 0, poison->range.len, FILL_POISON),
		    &poison->updated);
	case UFFDIO_WRITEPROTECT:
		return protect(c, arg);
	default:
		return -ENOTTY;
	}
}
