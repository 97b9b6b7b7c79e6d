/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * recall.c: bringing an interval of addresses home on request.
 *
 * One transaction for all devmems that have pages there; each pagemap copies its
 * own. Locking: none held, the transaction excludes others from the pages. The
 * devmems are held over the commit, which may free their last frame: they are
 * told afterwards.
 */
#include "core/pagemap/internal.h"

struct recall {
	struct pagemap_migration *w;
	struct gpusvm_devmem **owners; /* of each page that was collected; a reference each
					* time it differs from the one before, else NULL */
	bool (*spare)(void *arg, struct mm_page *page);
	void *arg;
};

static bool select_recalled(void *arg, struct mm_page *page)
{
	const struct recall *r = arg;

	return !r->spare || !r->spare(r->arg, page);
}

/* Notes whose pages go, and keeps them. */
static void hold_owners(struct recall *r)
{
	struct mm_migrate *m = &r->w->m;
	struct gpusvm_devmem *last = NULL;
	unsigned i = 0;

	while (i < m->npages) {
		unsigned n = pagemap_mpfn_pages(m->src[i]);

		if (m->src[i] & MM_MPFN_MIGRATE) {
			struct gpusvm_devmem *devmem = mm_page_data(mm_mpfn_page(m->src[i]));

			if (devmem != last) {
				host_ref_get(&devmem->ref); /* its page is in use: not 0 */
				r->owners[i] = devmem;
			}
			last = devmem;
		}
		i += n;
	}
}

/* Tells each owner what of it has moved, and lets it go. */
static void tell_owners(struct recall *r, u64 started)
{
	struct mm_migrate *m = &r->w->m;
	struct gpusvm_devmem *devmem = NULL;
	unsigned i, n, first = 0, moved = 0;

	for (i = 0; i <= m->npages; i += n) {
		n = i < m->npages ? pagemap_mpfn_pages(m->src[i]) : 1;
		if (i == m->npages || r->owners[i]) {
			if (devmem && moved && devmem->pagemap->ops->migrated)
				devmem->pagemap->ops->migrated(
				    devmem, m->mm, m->start + first * HOST_PAGE_SIZE, moved, false,
				    NULL, GPUSVM_MIGRATE_REQUEST, started);
			if (devmem)
				gpusvm_devmem_put(devmem);
			if (i == m->npages)
				return;
			devmem = r->owners[i];
			first = i;
			moved = 0;
		}
		if (m->src[i] & MM_MPFN_MIGRATE)
			moved += n;
	}
}

static int copy_all(struct recall *r)
{
	struct pagemap_copies *copies = &r->w->copies;
	struct mm_migrate *m = &r->w->m;
	unsigned i = 0;
	int err = 0;

	while (i < m->npages && !err) {
		unsigned n = pagemap_mpfn_pages(m->dst[i]), order;
		struct gpusvm_devmem *devmem;
		struct mm_page *page;

		if ((m->dst[i] & (MM_MPFN_SYSTEM | MM_MPFN_MOVE)) == MM_MPFN_SYSTEM) {
			page = mm_mpfn_page(m->src[i]);
			devmem = mm_page_data(page);
			/* The next device's turn. */
			if (copies->n && copies->devmem->pagemap != devmem->pagemap)
				err = pagemap_copies_finish(copies);
			if (!copies->n)
				copies->devmem = devmem;
			pagemap_copies_add(
			    copies, pagemap_dma_addr(mm_migrate_dma(m, i, &order), true),
			    pagemap_frame_addr(mm_page_index(page), false), n * HOST_PAGE_SIZE);
		}
		i += n;
	}
	return err ? err : pagemap_copies_finish(copies);
}

static int recall(struct recall *r, struct gpusvm_migrate_result *result)
{
	struct mm_migrate *m = &r->w->m;
	u64 started = host_now();
	int err;

	m->flags = MM_MIGRATE_DEVICE | MM_MIGRATE_COMPOUND;
	m->select = select_recalled;
	m->select_arg = r;
	err = mm_migrate_begin(m);
	if (err)
		return err;
	hold_owners(r);
	if (m->collected) {
		err = mm_migrate_alloc_system(m);
		if (!err)
			err = copy_all(r);
		if (!err)
			mm_migrate_commit(m);
	}
	mm_migrate_end(m);
	if (err) /* nothing was committed */
		host_memset(m->src, 0, m->npages * sizeof(m->src[0]));
	tell_owners(r, started);
	pagemap_count(m, NULL, result);
	return err;
}

int gpusvm_pagemap_recall(struct mm *mm, u64 start, u64 end,
			  bool (*spare)(void *arg, struct mm_page *page), void *arg,
			  struct gpusvm_migrate_result *result)
{
	unsigned npages = (unsigned)((end - start) >> HOST_PAGE_SHIFT);
	struct recall r = {.spare = spare, .arg = arg};
	int err = -ENOMEM;

	*result = (struct gpusvm_migrate_result){0};
	if (!host_is_aligned(start | end, HOST_PAGE_SIZE) || end <= start ||
	    host_align_down(start, HOST_HUGE_SIZE) != host_align_down(end - 1, HOST_HUGE_SIZE))
		return -EINVAL;
	r.w = pagemap_migration_alloc(NULL, npages, NULL, false);
	r.owners = host_alloc_zeroed(npages * sizeof(*r.owners));
	if (r.w && r.owners) {
		r.w->m.mm = mm;
		r.w->m.start = start;
		r.w->m.end = end;
		r.w->m.npages = npages;
		err = mm_use(mm) ? 0 : -EFAULT;
	}
	if (!err) {
		err = recall(&r, result);
		mm_unuse(mm);
	}
	host_free(r.w);
	host_free(r.owners);
	return err;
}
