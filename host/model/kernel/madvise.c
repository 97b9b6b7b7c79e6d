/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * madvise.c: advice, and khugepaged, kcompactd and reclaim.
 *
 * DONTNEED and FREE tell of themselves before they do anything: without mmap_lock,
 * and what is found afterwards at the addresses is what goes.
 */
#define _GNU_SOURCE
#include "host/model/kernel/internal.h"

#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define PAGE HOST_PAGE_SIZE

static void free_lazily(struct space *s, u64 start, u64 end)
{
	for (u64 at = start; at < end; at += PAGE) {
		struct pte *p = pte_find(s, at);

		if (!p || !(p->flags & PTE_PRESENT) || p->flags & (PTE_SHARED | PTE_ZERO))
			continue;
		huge_split(s, at);
		p->flags |= PTE_LAZY;
		step_pages();
	}
}

/* One area's part. mmap_lock held for reading, on return too. The end in *end. */
static int drop_area(struct space *s, struct area *a, u64 start, u64 *end, bool lazily)
{
	struct context *c = a->context;

	if (c && c->features & UFFD_FEATURE_EVENT_REMOVE) {
		struct event_wait w = {.msg = {.event = UFFD_EVENT_REMOVE}};

		w.msg.arg.remove.start = start;
		w.msg.arg.remove.end = *end;
		writes(&c->changing);
		c->changing++;
		mmap_read_unlock(s);
		step();
		context_event(c, &w);
		if (whim(kernel.whims.late))
			host_sleep(sched_random() % (20 * HOST_USEC));
		step();
		mmap_read_lock(s);
		a = area_find(s, start);
		if (!a)
			return -ENOMEM;
		*end = host_min(*end, a->end);
	}
	if (lazily)
		free_lazily(s, start, *end);
	else
		zap(s, start, *end);
	return 0;
}

static int drop(struct space *s, u64 start, u64 end, bool lazily)
{
	int r = 0, hole = 0;

	mmap_read_lock(s);
	for (u64 at = start, next; !r && at < end; at = next) {
		struct area *a = area_next(s, at);

		if (!a || a->start >= end) {
			hole = -ENOMEM;
			break;
		}
		if (a->start > at)
			hole = -ENOMEM;
		at = host_max(at, a->start);
		next = host_min(end, a->end);
		r = drop_area(s, a, at, &next, lazily);
	}
	mmap_read_unlock(s);
	told("drop %s %lld + %lld", r, PLACE(start), PAGE_COUNT(end - start));
	return r ? r : hole;
}

static int mark(struct space *s, u64 start, u64 end, int advice)
{
	int r;

	mmap_write_lock(s);
	r = areas_split(s, start, end);
	areas_change(s, start, end);
	for (struct area *a = area_next(s, start);
	     !r && a && a < s->areas + s->n_areas && a->start < end; a++) {
		if (advice == MADV_DONTFORK || advice == MADV_DOFORK)
			a->no_fork = advice == MADV_DONTFORK;
		else
			a->huge = advice == MADV_HUGEPAGE;
	}
	areas_merge(s);
	mmap_write_unlock(s);
	return r;
}

int kernel_madvise(u64 start, u64 length, int advice)
{
	struct space *s = kernel_self();
	int r = 0;

	if ((start | length) % PAGE)
		return -EINVAL;
	step();
	switch (advice) {
	case MADV_DONTNEED:
	case MADV_FREE:
		return drop(s, start, start + length, advice == MADV_FREE);
	case MADV_DONTFORK:
	case MADV_DOFORK:
	case MADV_HUGEPAGE:
	case MADV_NOHUGEPAGE:
		return mark(s, start, start + length, advice);
	case MADV_POPULATE_WRITE:
		for (u64 at = start; !r && at < start + length; at += PAGE)
			r = fault_in(s, at, true, true);
		return r;
	default:
		return -EINVAL;
	}
}

/* ---- The kernel's own threads ------------------------------------------------- */

bool kernel_collapse(u64 address)
{
	struct space *s = kernel_self();
	u64 start = host_align_down(address, HOST_HUGE_SIZE);
	struct area *a;
	struct table *t;
	bool can;

	mmap_write_lock(s);
	a = area_find(s, start);
	t = table_find(s, start);
	can = a && t && !t->huge && a->end >= start + HOST_HUGE_SIZE;
	for (u32 i = 0; can && i < HOST_HUGE_PAGES; i++) {
		const struct pte *p = pte_find(s, start + i * PAGE);

		/* Holes of a registered area stay holes. */
		can = !(p->flags & (PTE_SHARED | PTE_MIGRATING | PTE_POISON | PTE_PROTECTED)) &&
		      !p->pins && (p->flags & PTE_PRESENT || !a->context) &&
		      !(p->flags & PTE_ZERO && a->context);
	}
	for (u32 i = 0; can && i < HOST_HUGE_PAGES; i++) {
		if (!(t->ptes[i].flags & PTE_PRESENT))
			pte_fill(s, start + i * PAGE, NULL, 0);
		t->ptes[i].flags = PTE_PRESENT;
	}
	if (can) {
		table_changes(s, start);
		t->huge = true;
		t->populated = false;
		kernel_counts.collapses++;
	}
	mmap_write_unlock(s);
	return can;
}

static void migrate(struct space *s, u64 at)
{
	struct pte *p = pte_find(s, at);

	if (!p || !(p->flags & PTE_PRESENT) || p->pins || p->flags & (PTE_ZERO | PTE_MIGRATING) ||
	    table_find(s, at)->huge)
		return;
	p->flags |= PTE_MIGRATING;
	/* Entries of this table are never freed in a run: p stays good. */
	for (u64 n = 1 + sched_random() % 4; n; n--)
		step();
	pte_find(s, at)->flags &= (u16)~PTE_MIGRATING;
	kernel_wake();
}

void kernel_daemon_step(u64 start, u64 end)
{
	struct space *s = kernel_self();
	u64 at = start + sched_random() % ((end - start) / PAGE) * PAGE;
	struct pte *p;

	switch (sched_random() % 8) {
	case 0:
		(void)kernel_collapse(at);
		break;
	case 1:
		huge_split(s, at);
		break;
	case 2:
	case 3:
		p = pte_find(s, at);
		if (p && p->flags & PTE_LAZY && !p->pins)
			pte_clear(s, at);
		break;
	default:
		migrate(s, at);
	}
	step();
}
