/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * move.c: UFFDIO_MOVE.
 *
 * Page by page, or a huge page whole where it is aligned, asked for as a whole, and
 * the destination has no table. Areas are looked up before unread events are looked
 * for again: memory that was just unmapped, or remapped, is ENOENT and not EAGAIN.
 */
#include "host/model/kernel/internal.h"

#include <string.h>

#define PAGE HOST_PAGE_SIZE

static void move_one(struct space *s, u64 to, u64 from)
{
	struct pte *p = pte_find(s, from);

	/* Protection by WRITEPROTECT gets lost, MADV_FREE is over. */
	pte_fill(s, to, pte_bytes(s, from), p->flags & PTE_ZERO);
	pte_clear(s, from);
}

static bool movable(const struct pte *p)
{
	return p->flags & PTE_PRESENT && !(p->flags & (PTE_MIGRATING | PTE_SHARED)) && !p->pins;
}

/* A whole huge page; 1: not to be had so, it was split. */
static int move_huge(struct space *s, u64 to, u64 from, u64 length)
{
	struct table *t = table_find(s, from), *into = table_find(s, to);
	const struct pte *p = pte_find(s, from);

	if (host_is_aligned(to | from, HOST_HUGE_SIZE) && length >= HOST_HUGE_SIZE &&
	    !into->populated) {
		for (u32 i = 0; i < HOST_HUGE_PAGES; i++)
			if (!movable(pte_look(s, from + i * PAGE)))
				return -EBUSY;
		if (whim(kernel.whims.busy))
			return -EBUSY;
		for (u32 i = 0; i < HOST_HUGE_PAGES; i++)
			move_one(s, to + i * PAGE, from + i * PAGE);
		table_changes(s, from);
		table_changes(s, to);
		t->huge = t->populated = false;
		into->huge = true;
		into->populated = false;
		return 0;
	}
	if (p->flags & PTE_SHARED)
		return -EBUSY;
	huge_split(s, from);
	return 1;
}

/* What is to be said of one small page; 0: it can be moved. 1: try again. */
static int move_look(struct space *s, u64 to, u64 from)
{
	struct pte *p = pte_find(s, from), *into = pte_find(s, to);

	if (!pte_none(into))
		return -EEXIST;
	if (pte_none(p))
		return -ENOENT;
	if (p->flags & PTE_POISON)
		return -EFAULT;
	if (p->flags & PTE_MIGRATING) {
		kernel_wait(!(pte_look(s, from)->flags & PTE_MIGRATING));
		return 1;
	}
	if (p->flags & PTE_ZERO)
		return 0;
	if (!movable(p) || whim(kernel.whims.busy))
		return -EBUSY;
	if (whim(kernel.whims.memory))
		return -ENOMEM;
	return 0;
}

/* Linux 6.18: a batch of small pages moves, but the first page's EAGAIN is what is
 * remembered; tried again, there is something at the destination. */
static void move_and_deny(struct space *s, u64 to, u64 from, u64 length)
{
	u64 n = 1 + sched_random() % 16, room = HOST_HUGE_PAGES - from / PAGE % HOST_HUGE_PAGES;

	n = host_min(n, host_min(room, HOST_HUGE_PAGES - to / PAGE % HOST_HUGE_PAGES));
	n = host_min(n, length / PAGE);
	for (u64 i = 0; i < n; i++) {
		const struct pte *p = pte_find(s, from + i * PAGE);

		if (!movable(p) || !pte_none(pte_find(s, to + i * PAGE)))
			break;
		move_one(s, to + i * PAGE, from + i * PAGE);
		kernel_counts.denied++;
	}
}

/* Moves what can be moved at once; bytes in *done. 1: try again. */
static int move_some(struct space *s, u64 to, u64 from, u64 length, bool again, u64 *done)
{
	struct table *t = table_find(s, from), *into;
	int r;

	if (!t || (!t->huge && !t->populated))
		return -ENOENT;
	into = table_make(s, to);
	if (into->huge)
		return -EEXIST;
	if (t->huge) {
		r = move_huge(s, to, from, length);
		*done = r ? 0 : HOST_HUGE_SIZE;
		return r;
	}
	if (!into->populated)
		table_changes(s, to);
	into->populated = true;
	if (!again && whim(kernel.whims.migrate)) {
		step();
		return 1;
	}
	r = move_look(s, to, from);
	if (r)
		return r;
	if (again && whim(kernel.whims.deny)) {
		move_and_deny(s, to, from, length);
		return 1;
	}
	/* The folio is locked; what was seen is compared under the table's lock. */
	step();
	if (table_find(s, from)->huge || !movable(pte_find(s, from)) ||
	    !pte_none(pte_find(s, to)) || into->huge)
		return 1;
	move_one(s, to, from);
	*done = PAGE;
	return 0;
}

static int move_allowed(struct context *c, const struct area *to, const struct area *from)
{
	if (!(from->protection & KERNEL_WRITE) || from->protection != to->protection)
		return -EINVAL;
	return to->context == c ? 0 : -EINVAL;
}

static s64 move_pages(struct context *c, u64 to, u64 from, u64 length)
{
	struct space *s = c->space;
	const struct area *a, *b;
	u64 moved = 0, done;
	bool again = false;
	int r;

	step();
	reads(&s->gone);
	if (s->gone)
		return -ESRCH;
	mmap_read_lock(s);
	a = area_find(s, to);
	b = area_find(s, from);
	r = a && b ? 0 : -ENOENT;
	reads(&c->changing);
	if (!r && c->changing)
		r = -EAGAIN;
	if (!r && (from + length > b->end || to + length > a->end))
		r = -EINVAL;
	if (!r)
		r = move_allowed(c, a, b);
	while (!r && moved < length) {
		done = 0;
		r = move_some(s, to + moved, from + moved, length - moved, again, &done);
		again = r == 1;
		if (again) {
			r = 0;
			step();
		}
		moved += done;
		if (done)
			step_pages();
	}
	mmap_read_unlock(s);
	return moved ? (s64)moved : r;
}

int move_ioctl(struct context *c, void *arg)
{
	struct uffdio_move *move = arg;
	s64 moved;

	step();
	reads(&c->changing);
	if (c->changing)
		return -EAGAIN;
	if (!move->len || (move->dst | move->src | move->len) % PAGE)
		return -EINVAL;
	kernel_counts.moves++;
	moved = move_pages(c, move->dst, move->src, move->len);
	told("MOVE %s %lld + %lld to %s %lld", moved, PLACE(move->src), PAGE_COUNT(move->len),
	     PLACE(move->dst));
	move->move = moved;
	if (moved < 0)
		return (int)moved;
	if (!(move->mode & UFFDIO_MOVE_MODE_DONTWAKE)) {
		step();
		context_wake(c, move->dst, (u64)moved);
	}
	return (u64)moved == move->len ? 0 : -EAGAIN;
}
