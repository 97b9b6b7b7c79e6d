/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * pages.c: pages objects: one CPU fault for an interval, then a mapping of it
 * for each of several devices; and its undoing.
 *
 * A mapping is made in a fresh object beside the one that the caller knows and
 * takes its place when all of them are whole. So whatever fails, what has to be
 * undone is what the fresh objects say, and nothing of the caller's has changed.
 *
 * Locking: mappings are made under the notifier lock held for reading, after the
 * sequence was asked for: an invalidation comes before, and is noticed, or after,
 * and undoes them. Calls on one pages object exclude each other (the driver's
 * part), and an invalidation holds the lock for writing: so flags has one
 * writer at a time. An object that is not MAPPED has arrays that no one else
 * looks at: only gpusvm_pages_get makes it MAPPED.
 */
#include "core/mirror/internal.h"
#include "core/retry.h"
#ifndef GPUSVM_NO_PAGEMAP
#include <gpusvm/pagemap.h>
#endif

#define NO_SEQUENCE (~(u64)0)
#define MAX_HELD (1u << 15) /* pagemaps in one interval: an index is a u16 */

void gpusvm_pages_init(struct gpusvm_pages *pages, void *dev)
{
	*pages = (struct gpusvm_pages){ .dev = dev, .seq = NO_SEQUENCE };
}

/* ---- Device pages ------------------------------------------------------- */
#ifndef GPUSVM_NO_PAGEMAP

/* For each address, which of held it belongs to. With one there is no need. */
static u16 *held_indices(const struct gpusvm_pages *pages)
{
	return (u16 *)(pages->held + pages->max_held);
}

static struct gpusvm_pagemap **held_alloc(u32 max_held, u32 max_addrs)
{
	u64 size = max_held * sizeof(struct gpusvm_pagemap *);

	return host_alloc(size + (max_held > 1 ? max_addrs * sizeof(u16) : 0));
}

/* Keeps the pagemap while addresses in it are mapped. Its index, or -ENOSPC. */
static int hold(struct gpusvm_pages *pages, struct gpusvm_pagemap *pagemap)
{
	for (u32 i = pages->n_held; i-- > 0;) /* most often the last */
		if (pages->held[i] == pagemap)
			return (int)i;
	if (pages->n_held == pages->max_held)
		return -ENOSPC;
	pages->held[pages->n_held] = gpusvm_pagemap_get(pagemap);
	return (int)pages->n_held++;
}

/* -ENOSPC: more pagemaps than there is room for. -EAGAIN: the way there was lost since it
 * was said that the page may be kept. */
static int map_device(struct gpusvm_pages *pages, mm_pfn_t pfn, unsigned order, bool write,
		      const struct gpusvm_ctx *ctx)
{
	struct mm_page *page = mm_pfn_page(pages->mm, pfn);
	struct gpusvm_pagemap *pagemap = gpusvm_page_pagemap(page);
	int index = hold(pages, pagemap);
	struct gpusvm_addr addr;

	if (index < 0)
		return index;
	addr = pagemap->ops->device_map(pagemap, pages->dev, page, order, write);
	if (gpusvm_addr_proto(addr) == GPUSVM_PROTO_NONE)
		return ctx->keep && ctx->keep(ctx->keep_arg, page) ? -EFAULT : -EAGAIN;
	HOST_ASSERT(gpusvm_addr_proto(addr) != GPUSVM_PROTO_SYSTEM &&
		    gpusvm_addr_order(addr) == order);
	if (pages->max_held > 1)
		held_indices(pages)[pages->n_addrs] = (u16)index;
	pages->addrs[pages->n_addrs] = addr;
	pages->flags |= GPUSVM_PAGES_DEVMEM;
	return 0;
}

static void unmap_device(struct gpusvm_pages *pages, u32 i)
{
	u32 index = pages->max_held > 1 ? held_indices(pages)[i] : 0;
	struct gpusvm_pagemap *pagemap = pages->held[index];

	if (pagemap->ops->device_unmap)
		pagemap->ops->device_unmap(pagemap, pages->dev, pages->addrs[i]);
}

static void drop_held(struct gpusvm_pages *pages)
{
	while (pages->n_held)
		gpusvm_pagemap_put(pages->held[--pages->n_held]);
}

#else /* no device page ever occurs */

static struct gpusvm_pagemap **held_alloc(u32 max_held, u32 max_addrs)
{
	return NULL;
}
static int map_device(struct gpusvm_pages *pages, mm_pfn_t pfn, unsigned order, bool write,
		      const struct gpusvm_ctx *ctx)
{
	return -EFAULT;
}
static void unmap_device(struct gpusvm_pages *pages, u32 i)
{
}
static void drop_held(struct gpusvm_pages *pages)
{
}

#endif

/* ---- Undoing ------------------------------------------------------------ */

static u32 flags_of(const struct gpusvm_pages *pages)
{
	/* Pairs with undo(): who sees it not MAPPED may have the arrays. */
	return host_load_acquire(&pages->flags);
}

/* Unmaps what addrs has, which may be less than the interval. Notifier lock, or
 * the object is not known to anyone else. */
static void undo(struct gpusvm_pages *pages)
{
	u32 flags = pages->flags;
	bool write = flags & GPUSVM_PAGES_WRITE;
	struct gpusvm_addr addr;

	if (!(flags & GPUSVM_PAGES_MAPPED))
		return;
	for (u32 i = 0; i < pages->n_addrs; i++) {
		addr = pages->addrs[i];
		if (gpusvm_addr_proto(addr) != GPUSVM_PROTO_SYSTEM)
			unmap_device(pages, i);
		else if (!(flags & GPUSVM_PAGES_NO_DMA) || gpusvm_addr_exclusive(addr))
			mm_dma_unmap(pages->mm, pages->dev, gpusvm_addr_address(addr),
				     gpusvm_addr_order(addr), write);
	}
	pages->n_addrs = 0;
	drop_held(pages);
	host_store_release(&pages->flags, flags & GPUSVM_PAGES_UNMAPPED);
}

bool gpusvm_pages_valid(struct gpusvm_mirror *mirror, const struct gpusvm_pages *pages)
{
	HOST_ASSERT(host_rwlock_held(&mirror->notifier_lock));
	return flags_of(pages) & GPUSVM_PAGES_VALID;
}

bool gpusvm_pages_holds(struct gpusvm_mirror *mirror, const struct gpusvm_pages *pages,
			const struct gpusvm_pagemap *pagemap)
{
	HOST_ASSERT(host_rwlock_held(&mirror->notifier_lock));
	for (u32 i = 0; i < pages->n_held; i++)
		if (pages->held[i] == pagemap)
			return true;
	return false;
}

void gpusvm_pages_invalidate(struct gpusvm_mirror *mirror, struct gpusvm_pages *pages)
{
	HOST_ASSERT(host_rwlock_held_write(&mirror->notifier_lock));
	host_write_once(&pages->flags, pages->flags & ~GPUSVM_PAGES_VALID);
}

void gpusvm_pages_unmap(struct gpusvm_mirror *mirror, struct gpusvm_pages *pages, bool in_notifier)
{
	if (in_notifier) {
		HOST_ASSERT(host_rwlock_held_write(&mirror->notifier_lock));
		undo(pages);
	} else if (flags_of(pages) & GPUSVM_PAGES_MAPPED) {
		host_read_lock(&mirror->notifier_lock);
		undo(pages);
		host_read_unlock(&mirror->notifier_lock);
	}
}

void gpusvm_pages_free(struct gpusvm_mirror *mirror, struct gpusvm_pages *pages)
{
	gpusvm_pages_unmap(mirror, pages, false);
	host_free(pages->addrs);
	host_free(pages->held);
	pages->addrs = NULL;
	pages->held = NULL;
	pages->max_addrs = 0;
	pages->max_held = 0;
}

/* ---- Getting ------------------------------------------------------------ */

struct get {
	struct gpusvm_mirror *mirror;
	struct gpusvm_pages **pages;
	unsigned n;
	struct mm *mm;
	struct mm_notifier *notifier;
	u64 start, end, npages;
	const struct gpusvm_ctx *ctx;
	bool write;	/* asked for */
	bool device;	/* some pfn is a device page */
	u32 n_runs;	/* addresses that each object needs */
	u32 max_held;	/* room for so many pagemaps */
	mm_pfn_t *pfns; /* npages */
	/* One for each of pages; addrs NULL: that one needs nothing. */
	struct gpusvm_pages *fresh;
};

/* Nothing has to be done for it. An invalidation at this moment is no matter: the
 * caller asks again under the notifier lock before it commits. */
static bool is_good(const struct get *get, const struct gpusvm_pages *pages)
{
	const struct gpusvm_ctx *ctx = get->ctx;
	u32 flags = flags_of(pages);
	bool no_dma = flags & GPUSVM_PAGES_NO_DMA;

	return flags & GPUSVM_PAGES_VALID && pages->start == get->start && pages->end == get->end &&
	       no_dma == ctx->no_dma && (ctx->read_only || flags & GPUSVM_PAGES_WRITE) &&
	       (!ctx->exclusive || flags & GPUSVM_PAGES_EXCLUSIVE) &&
	       !(ctx->devmem_only && flags & GPUSVM_PAGES_SYSTEM);
}

/* 1: there is something to do, 0: there is not; -EFAULT. */
static int is_needed(const struct get *get)
{
	int needed = 0;

	for (unsigned i = 0; i < get->n; i++) {
		const struct gpusvm_pages *pages = get->pages[i];

		if (!pages)
			continue;
		if (flags_of(pages) & GPUSVM_PAGES_UNMAPPED)
			return -EFAULT;
		if (!is_good(get, pages))
			needed = 1;
	}
	return needed;
}

/* How many runs the pfns make, and of what. No frame is looked at: it may be
 * gone by now. */
static int count_runs(struct get *get)
{
	get->n_runs = 0;
	get->device = false;
	for (u64 i = 0; i < get->npages; get->n_runs++) {
		mm_pfn_t pfn = get->pfns[i];

		if (!(pfn & MM_PFN_VALID))
			return -EFAULT;
		if (pfn & MM_PFN_DEVICE)
			get->device = true;
		else if (get->ctx->devmem_only)
			return -EFAULT;
		i += (u64)1 << mirror_run_order(get->pfns, get->start, i, get->npages);
	}
	return 0;
}

/* Arrays for a fresh object: those of the one it replaces if they are free and of
 * a fitting size. */
static int fresh_alloc(const struct get *get, const struct gpusvm_pages *pages,
		       struct gpusvm_pages *fresh)
{
	if (!(flags_of(pages) & GPUSVM_PAGES_MAPPED) && pages->max_addrs >= get->n_runs &&
	    pages->max_addrs / 4 <= get->n_runs) {
		fresh->max_addrs = pages->max_addrs;
		fresh->addrs = pages->addrs;
	} else {
		fresh->max_addrs = get->n_runs;
		fresh->addrs = host_alloc(get->n_runs * sizeof(*fresh->addrs));
	}
	if (!fresh->addrs)
		return -ENOMEM;
	if (get->device) {
		fresh->max_held = get->max_held;
		fresh->held = held_alloc(get->max_held, fresh->max_addrs);
		if (!fresh->held)
			return -ENOMEM;
	}
	return 0;
}

/* A fresh object for each that needs one; free_fresh also after a failure. */
static int alloc_fresh(struct get *get)
{
	int err = 0;

	for (unsigned i = 0; i < get->n; i++) {
		const struct gpusvm_pages *pages = get->pages[i];
		struct gpusvm_pages *fresh = &get->fresh[i];

		*fresh = (struct gpusvm_pages){ .mm = get->mm, .seq = NO_SEQUENCE };
		if (err || !pages || is_good(get, pages))
			continue;
		fresh->dev = pages->dev;
		fresh->start = get->start;
		fresh->end = get->end;
		err = fresh_alloc(get, pages, fresh);
	}
	return err;
}

/* What is left in them: arrays that were not used, or were replaced. */
static void free_fresh(struct get *get)
{
	for (unsigned i = 0; i < get->n; i++) {
		struct gpusvm_pages *fresh = &get->fresh[i];

		if (fresh->addrs && fresh->addrs != get->pages[i]->addrs)
			host_free(fresh->addrs);
		host_free(fresh->held);
	}
}

static int map_system(const struct get *get, struct gpusvm_pages *fresh, u64 i, unsigned order)
{
	u64 address = get->start + (i << HOST_PAGE_SHIFT);
	bool exclusive = get->pfns[i] & MM_PFN_EXCLUSIVE;
	struct gpusvm_addr *addr = &fresh->addrs[fresh->n_addrs];

	/* What it has for itself is not at the process's own address. */
	if (!get->ctx->no_dma || exclusive) {
		address = mm_dma_map(get->mm, fresh->dev, get->pfns[i], order, get->write);
		if (address == MM_DMA_ERROR)
			return -EFAULT;
	}
	*addr = gpusvm_addr_encode(address, GPUSVM_PROTO_SYSTEM, order, get->write);
	if (exclusive)
		addr->word |= GPUSVM_ADDR_EXCLUSIVE;
	fresh->flags |= GPUSVM_PAGES_SYSTEM;
	return 0;
}

/* Maps it all for one device. On failure, what fresh says is mapped. */
static int map_fresh(struct get *get, struct gpusvm_pages *fresh)
{
	unsigned order;
	int err;

	fresh->flags = GPUSVM_PAGES_MAPPED | (get->write ? GPUSVM_PAGES_WRITE : 0) |
		       (get->ctx->no_dma ? GPUSVM_PAGES_NO_DMA : 0) |
		       (get->ctx->exclusive ? GPUSVM_PAGES_EXCLUSIVE : 0);
	for (u64 i = 0; i < get->npages; i += (u64)1 << order) {
		order = mirror_run_order(get->pfns, get->start, i, get->npages);
		if (get->pfns[i] & MM_PFN_DEVICE)
			err = map_device(fresh, get->pfns[i], order, get->write, get->ctx);
		else
			err = map_system(get, fresh, i, order);
		if (err)
			return err;
		fresh->n_addrs++;
	}
	return 0;
}

/* The caller's object becomes what fresh is; fresh gets the old arrays. */
static void replace(struct gpusvm_pages *pages, struct gpusvm_pages *fresh, u64 seq)
{
	struct gpusvm_addr *addrs = pages->addrs;
	struct gpusvm_pagemap **held = pages->held;

	undo(pages); /* what it had before, if it had more than an invalidation leaves */
	pages->mm = fresh->mm;
	pages->start = fresh->start;
	pages->end = fresh->end;
	pages->seq = seq;
	pages->addrs = fresh->addrs;
	pages->n_addrs = fresh->n_addrs;
	pages->max_addrs = fresh->max_addrs;
	pages->held = fresh->held;
	pages->n_held = fresh->n_held;
	pages->max_held = fresh->max_held;
	host_store_release(&pages->flags, fresh->flags | GPUSVM_PAGES_VALID);
	fresh->addrs = addrs;
	fresh->held = held;
}

/* All or none. Notifier lock, and the sequence holds. */
static int map_all(struct get *get, u64 seq)
{
	unsigned i;
	int err = 0;

	for (i = 0; !err && i < get->n; i++)
		if (get->fresh[i].addrs) {
			if (get->pages[i]->flags & GPUSVM_PAGES_UNMAPPED)
				err = -EFAULT;
			else
				err = map_fresh(get, &get->fresh[i]);
		}
	for (i = 0; i < get->n; i++)
		if (err)
			undo(&get->fresh[i]);
		else if (get->fresh[i].addrs)
			replace(get->pages[i], &get->fresh[i], seq);
	return err;
}

static int fault_in(struct get *get, u64 *seq)
{
	struct mm_range_fault rf = {
	    .mm = get->mm,
	    .notifier = get->notifier,
	    .seq = mm_notifier_read_begin(get->notifier),
	    .start = get->start,
	    .end = get->end,
	    .pfns = get->pfns,
	    .flags = MM_FAULT_IN | MM_FAULT_RUNS | (get->write ? MM_FAULT_WRITE : 0),
	    .keep = get->ctx->keep,
	    .keep_arg = get->ctx->keep_arg,
	    .owner = get->ctx->owner,
	};
	int err =
	    get->ctx->exclusive ? mm_make_exclusive(&rf, get->ctx->hold) : mm_range_fault(&rf);

	*seq = rf.seq;
	if (err == -EPERM && get->write && get->ctx->read_only && !get->ctx->exclusive) {
		get->write = false; /* it was a wish */
		return -EAGAIN;
	}
	return err == -EBUSY ? -EAGAIN : err;
}

/* -EAGAIN: something changed meanwhile. */
static int get_once(struct get *get)
{
	u64 seq;
	int err = fault_in(get, &seq);

	if (!err)
		err = count_runs(get);
	if (err)
		return err;
	err = alloc_fresh(get);
	if (!err) {
		host_read_lock(&get->mirror->notifier_lock);
		err = mm_notifier_read_retry(get->notifier, seq) ? -EAGAIN : map_all(get, seq);
		host_read_unlock(&get->mirror->notifier_lock);
	}
	free_fresh(get);
	if (err == -ENOSPC) { /* several pagemaps: rare, so it is found out */
		get->max_held *= 8;
		err = get->max_held > MAX_HELD ? -ENOMEM : -EAGAIN;
	}
	return err;
}

int gpusvm_pages_get(struct gpusvm_mirror *mirror, struct gpusvm_pages **pages, unsigned n,
		     struct mm *mm, struct mm_notifier *notifier, u64 start, u64 end,
		     const struct gpusvm_ctx *ctx)
{
	struct get get = {
	    .mirror = mirror,
	    .pages = pages,
	    .n = n,
	    .mm = mm,
	    .notifier = notifier,
	    .start = start,
	    .end = end,
	    .npages = (end - start) >> HOST_PAGE_SHIFT,
	    .ctx = ctx,
	    .write = !ctx->read_only || ctx->want_write || ctx->exclusive,
	    .max_held = 1,
	};
	struct gpusvm_retry retry;
	int err;

	if (start >= end || !host_is_aligned(start | end, HOST_PAGE_SIZE) || get.npages > ~(u32)0)
		return -EINVAL;
	err = is_needed(&get);
	if (err <= 0)
		return err;
	get.fresh = host_alloc(n * sizeof(*get.fresh) + get.npages * sizeof(*get.pfns));
	if (!get.fresh)
		return -ENOMEM;
	get.pfns = (mm_pfn_t *)(get.fresh + n);
	gpusvm_retry_init(&retry, ctx->budget, 0);
	do {
		err = get_once(&get);
	} while (err == -EAGAIN && gpusvm_retry_again(&retry));
	host_free(get.fresh);
	return err == -EAGAIN ? -EBUSY : err;
}
