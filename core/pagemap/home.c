/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * home.c: the way to system memory, and the CPU fault that asks for it.
 *
 * A CPU fault takes no lock of a driver (law 5): what it needs to know of the
 * devmem is in atomics. It always ends: one transaction for the window, and one
 * for the page alone if that failed. Sources are frozen by the transaction, which
 * is all the exclusion that there is.
 */
#include "core/pagemap/internal.h"

#define SMALL_WINDOW 16u /* pages that are brought home without an allocation */
#define SMALL_COPIES 8u

int pagemap_bring_home(struct mm_migrate *m, struct pagemap_copies *copies)
{
	unsigned i = 0;
	int err;

	while (i < m->npages) {
		unsigned n = pagemap_mpfn_pages(m->dst[i]), order;

		if ((m->dst[i] & (MM_MPFN_SYSTEM | MM_MPFN_MOVE)) == MM_MPFN_SYSTEM) {
			u64 frame = mm_page_index(mm_mpfn_page(m->src[i]));

			pagemap_copies_add(copies,
					   pagemap_dma_addr(mm_migrate_dma(m, i, &order), true),
					   pagemap_frame_addr(frame, false), n * HOST_PAGE_SIZE);
		}
		i += n;
	}
	/* Destinations of a failed copy are the home's to give up, in end. */
	err = pagemap_copies_finish(copies);
	if (!err)
		mm_migrate_commit(m);
	return err;
}

unsigned pagemap_moved(const struct mm_migrate *m)
{
	unsigned moved = 0, i = 0;

	while (i < m->npages) {
		unsigned n = pagemap_mpfn_pages(m->src[i]);

		if (m->src[i] & MM_MPFN_MIGRATE)
			moved += n;
		i += n;
	}
	return moved;
}

/* ---- CPU faults -------------------------------------------------------------- */

/* Brings [first, last) pages of base home, as far as they are in devmem. The
 * page `fault` among them decides: 0: home, or was not there to be taken. */
static int fault_pages(struct mm_cpu_fault *fault, u64 base, unsigned first, unsigned last,
		       struct mm_migrate *m, struct pagemap_copies *copies)
{
	struct gpusvm_devmem *devmem = fault->data;
	const struct gpusvm_pagemap_ops *ops = devmem->pagemap->ops;
	u64 started = ops->migrated ? host_now() : 0;
	unsigned at, moved = 0;
	bool ours, fed = false;
	int err;

	m->mm = fault->mm;
	m->start = base + first * HOST_PAGE_SIZE;
	m->end = base + last * HOST_PAGE_SIZE;
	m->npages = last - first;
	m->flags = MM_MIGRATE_DEVICE | MM_MIGRATE_COMPOUND;
	m->migrator = devmem->pagemap;
	m->select = pagemap_select_devmem;
	m->select_arg = devmem;
	m->fault_page = fault->page;
	err = mm_migrate_begin(m);
	if (err)
		return err;
	at = (unsigned)((fault->address - m->start) >> HOST_PAGE_SHIFT);
	ours = (m->src[at] | m->src[0]) & MM_MPFN_COMPOUND || m->src[at] & MM_MPFN_MIGRATE;
	if (m->collected) {
		err = mm_migrate_alloc_system(m);
		fed = (m->dst[0] & MM_MPFN_COMPOUND) || m->dst[at];
		if (!err)
			err = pagemap_bring_home(m, copies);
		moved = err ? 0 : pagemap_moved(m);
	}
	mm_migrate_end(m);
	if (moved && ops->migrated)
		ops->migrated(devmem, fault->mm, m->start, moved, false, NULL,
			      GPUSVM_MIGRATE_CPU_FAULT, started);
	if (!ours)
		return 0;
	if (!err && !fed)
		return -ENOMEM;
	return err;
}

/* On the stack: the common case of a few pages allocates nothing. */
static __attribute__((__noinline__)) int fault_small(struct mm_cpu_fault *fault, u64 base,
						     unsigned first, unsigned last)
{
	mm_mpfn_t src[SMALL_WINDOW] = { 0 }, dst[SMALL_WINDOW] = { 0 };
	struct gpusvm_copy list[SMALL_COPIES];
	struct pagemap_copies copies;
	struct mm_migrate m = { .src = src, .dst = dst };

	pagemap_copies_init(&copies, fault->data, NULL, list, SMALL_COPIES);
	return fault_pages(fault, base, first, last, &m, &copies);
}

static int fault_large(struct mm_cpu_fault *fault, u64 base, unsigned first, unsigned last)
{
	struct pagemap_migration *w;
	int err;

	w = pagemap_migration_alloc(fault->data, last - first, NULL, false);
	if (!w)
		return -ENOMEM;
	err = fault_pages(fault, base, first, last, &w->m, &w->copies);
	host_free(w);
	return err;
}

/* Which pages of the aligned 2M go home with page `at`. None that is further off
 * than the devmem is large: it cannot be in it. */
static void choose(struct gpusvm_devmem *devmem, u64 address, unsigned at, unsigned *first,
		   unsigned *last)
{
	const struct gpusvm_pagemap_ops *ops = devmem->pagemap->ops;
	unsigned reach = devmem->npages;

	*first = host_align_down(at, SMALL_WINDOW);
	*last = *first + SMALL_WINDOW;
	if (ops->fault_window)
		ops->fault_window(devmem, address, at, HOST_HUGE_PAGES, first, last);
	if (*first > at || *last <= at || *last > HOST_HUGE_PAGES) {
		*first = at;
		*last = at + 1;
	}
	if (at - *first >= reach)
		*first = at - reach + 1;
	*last = host_min(*last, at + reach);
}

static int bring_home(struct mm_cpu_fault *fault)
{
	struct gpusvm_devmem *devmem = fault->data;
	u64 base = host_align_down(fault->address, HOST_HUGE_SIZE);
	unsigned at = (unsigned)((fault->address - base) >> HOST_PAGE_SHIFT);
	unsigned first = 0, last = HOST_HUGE_PAGES;
	int err;

	if (!host_read_once(&devmem->compound) || host_read_once(&devmem->exact))
		choose(devmem, fault->address, at, &first, &last);
	if (last - first > SMALL_WINDOW)
		err = fault_large(fault, base, first, last);
	else
		err = fault_small(fault, base, first, last);
	if (err && err != -ENODEV && last - first > 1)
		err = fault_small(fault, base, at, at + 1);
	return err;
}

s64 pagemap_region_to_ram(struct mm_cpu_fault *fault)
{
	struct gpusvm_devmem *devmem = fault->data;
	struct gpusvm_pagemap *pagemap = devmem->pagemap;
	u64 until = host_read_once(&devmem->timeslice_end), now;
	u32 *begun;
	int err;

	if (until) {
		now = host_now();
		if (now < until)
			return (s64)(until - now);
	}
	/* Before the page is home. The devmem, which is held, keeps its pagemap. */
	begun = &pagemap->faults[host_read_once(&pagemap->faults_turn) & 1];
	host_add_relaxed(begun, 1);
	err = bring_home(fault);
	host_add_return(begun, (u32)-1); /* after all that it counted */
	return err;
}

#define SETTLE_LOOK (20 * HOST_USEC)

/* Those that begin meanwhile are of another turn than those that are waited for, but for
 * one that has looked at the turn and not counted itself yet; the second turn has those
 * that did so in the one before. */
void gpusvm_pagemap_settle(struct gpusvm_pagemap *pagemap)
{
	for (unsigned i = 0; i < 2; i++) {
		u32 turn = host_add_return(&pagemap->faults_turn, 1);
		u32 *begun = &pagemap->faults[(turn - 1) & 1];

		while (host_load_acquire(begun))
			host_sleep(SETTLE_LOOK);
	}
}
