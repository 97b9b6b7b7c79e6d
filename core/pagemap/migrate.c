/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * migrate.c: migration to a device.
 *
 * One mm_migrate transaction. Frames are made pages and filled while the
 * sources are frozen; a failed copy commits nothing and gives every frame back, so
 * that all pages are as they were (law 9). Frames that CPUs can address are known
 * to the home from the beginning: it has moved the pages there instead.
 *
 * Locking: none held; the transaction excludes others from the pages. Against a
 * revocation: a migration counts its frames in devmem->resident, then looks at
 * revoked; a revocation sets revoked, then evicts, which waits for resident.
 * Both are sequentially consistent, so one of the two sees the other.
 */
#include "core/pagemap/internal.h"

#define COPY_LIST (PAGEMAP_COPIES * sizeof(struct gpusvm_copy))

/* Lays it out for npages. The arrays are as they are. */
static void lay_out(struct pagemap_migration *w, struct gpusvm_devmem *devmem, unsigned npages,
		    struct gpusvm_fence *after, bool peers)
{
	u64 arrays = (u64)npages * sizeof(mm_mpfn_t), list = COPY_LIST;
	u8 *more = (u8 *)(w + 1);

	*w = (struct pagemap_migration){.units = 0};
	pagemap_copies_init(&w->copies, devmem, after, (struct gpusvm_copy *)(void *)more,
			    PAGEMAP_COPIES);
	more += list;
	w->m.src = (mm_mpfn_t *)(void *)more;
	w->m.dst = (mm_mpfn_t *)(void *)(more + arrays);
	if (peers)
		w->peers = (struct gpusvm_addr *)(void *)(more + 2 * arrays);
}

struct pagemap_migration *pagemap_migration_alloc(struct gpusvm_devmem *devmem, unsigned npages,
						  struct gpusvm_fence *after, bool peers)
{
	u64 arrays = (u64)npages * sizeof(mm_mpfn_t);
	struct pagemap_migration *w = host_alloc(sizeof(*w) + COPY_LIST + (peers ? 3 : 2) * arrays);

	if (w)
		lay_out(w, devmem, npages, after, peers);
	if (w && peers)
		host_memset(w->peers, 0, npages * sizeof(*w->peers));
	return w;
}

/* The pagemap's own if no one has it, else a new one; each is large enough for any
 * migration. mm_migrate_begin clears src and dst, unmap_peers what it finds in peers. */
static struct pagemap_migration *scratch_take(struct gpusvm_devmem *devmem, bool peers)
{
	struct pagemap_migration *w = host_xchg(&devmem->pagemap->scratch, NULL);

	if (!w)
		return pagemap_migration_alloc(devmem, HOST_HUGE_PAGES, devmem->after, true);
	lay_out(w, devmem, HOST_HUGE_PAGES, devmem->after, peers);
	return w;
}

static void scratch_put(struct gpusvm_pagemap *pagemap, struct pagemap_migration *w)
{
	void *none = NULL;

	if (!host_cas(&pagemap->scratch, &none, (void *)w))
		host_free(w);
}

/* ---- Sources --------------------------------------------------------------- */

/* Whose pages come along. */
struct sources {
	const struct gpusvm_pagemap *own;
	const struct gpusvm_migrate_details *details;
};

static bool select_peer(void *arg, struct mm_page *page)
{
	const struct sources *s = arg;

	if (gpusvm_page_pagemap(page) == s->own)
		return false;
	return !s->details->take || s->details->take(s->details->take_arg, page);
}

/* Where our device finds entry i. NONE with *zero: nowhere, it is to be cleared;
 * NONE without: it cannot be reached. */
static struct gpusvm_addr source_addr(struct pagemap_migration *w, unsigned i, bool *zero)
{
	const struct gpusvm_addr none = {0};
	mm_mpfn_t src = w->m.src[i];
	struct gpusvm_pagemap *peer;
	struct mm_page *page;
	unsigned order;

	*zero = src & MM_MPFN_ZERO;
	if (*zero)
		return none;
	if (src & MM_MPFN_SYSTEM)
		return pagemap_dma_addr(mm_migrate_dma(&w->m, i, &order), false);
	page = mm_mpfn_page(src);
	peer = gpusvm_page_pagemap(page);
	order = src & MM_MPFN_COMPOUND ? HOST_HUGE_ORDER : 0;
	w->n_peers++;
	if (peer->ops->copy_map)
		w->peers[i] =
		    peer->ops->copy_map(peer, w->copies.devmem->pagemap->dev, page, order);
	else
		w->peers[i] =
		    peer->ops->device_map(peer, w->copies.devmem->pagemap->dev, page, order, false);
	return w->peers[i];
}

static void unmap_peers(struct pagemap_migration *w)
{
	const struct gpusvm_addr none = {0};

	for (unsigned i = 0; w->n_peers && i < w->m.npages; i++) {
		struct gpusvm_pagemap *peer;

		if (gpusvm_addr_proto(w->peers[i]) == GPUSVM_PROTO_NONE)
			continue;
		peer = gpusvm_page_pagemap(mm_mpfn_page(w->m.src[i]));
		if (peer->ops->copy_map)
			peer->ops->copy_unmap(peer, w->copies.devmem->pagemap->dev, w->peers[i]);
		else if (peer->ops->device_unmap)
			peer->ops->device_unmap(peer, w->copies.devmem->pagemap->dev, w->peers[i]);
		w->peers[i] = none;
	}
}

/* ---- Destinations ---------------------------------------------------------- */

/* Makes a page of the frame for entry i and has it filled. False: the source
 * cannot be reached, so it stays. */
static bool place(struct pagemap_migration *w, unsigned i)
{
	struct gpusvm_devmem *devmem = w->copies.devmem;
	mm_mpfn_t compound = w->m.src[i] & MM_MPFN_COMPOUND;
	bool moved = w->m.src[i] & MM_MPFN_MOVE, zero = false;
	unsigned n = pagemap_mpfn_pages(w->m.src[i]);
	u64 frame = devmem->ops->frame(devmem, i);
	struct gpusvm_addr src = {0};
	struct mm_page *page;

	if (!moved)
		src = source_addr(w, i, &zero);
	if (!moved && !zero && gpusvm_addr_proto(src) == GPUSVM_PROTO_NONE)
		return false;
	page = mm_page_init(devmem->pagemap->region, frame, compound ? HOST_HUGE_ORDER : 0, devmem);
	w->m.dst[i] = mm_mpfn(page) | MM_MPFN_MIGRATE | compound;
	w->units++;
	w->frames += n;
	if (!moved)
		pagemap_copies_add(&w->copies, pagemap_frame_addr(frame, true), src,
				   n * HOST_PAGE_SIZE);
	return true;
}

/* Places everything that was collected, gives the other frames back, and counts
 * those that are in use from now on. */
static void place_all(struct pagemap_migration *w)
{
	struct gpusvm_devmem *devmem = w->copies.devmem;
	unsigned i = 0, unused = 0; /* [unused, i): frames that are not needed */

	if (w->m.collected)
		while (i < w->m.npages) {
			bool take = w->m.src[i] & MM_MPFN_MIGRATE;
			unsigned n = take ? pagemap_mpfn_pages(w->m.src[i]) : 1;

			if (take && place(w, i)) {
				pagemap_free_frames(devmem, unused, i);
				unused = i + n;
			}
			i += n;
		}
	pagemap_free_frames(devmem, unused, w->m.npages);
	host_add_relaxed(&devmem->ref.count, w->units);
	host_add_return(&devmem->resident, w->frames);
	host_write_once(&devmem->compound, w->frames != w->units);
}

/* Tells what came straight from peers, each run of one peer's at once; pages. After
 * the commit, before the end frees their frames there. */
static u64 tell_peers(struct pagemap_migration *w, u64 started)
{
	struct gpusvm_devmem *devmem = w->copies.devmem;
	struct gpusvm_pagemap *peer = NULL, *next;
	u64 all = 0, pages = 0;
	unsigned i, n, first = 0;

	for (i = 0; i <= w->m.npages; i += n) {
		mm_mpfn_t src = i < w->m.npages ? w->m.src[i] : 0;

		n = pagemap_mpfn_pages(src);
		next = NULL;
		if (src & MM_MPFN_MIGRATE && !(src & MM_MPFN_SYSTEM))
			next = gpusvm_page_pagemap(mm_mpfn_page(src));
		if (next != peer) {
			if (peer && devmem->pagemap->ops->migrated)
				devmem->pagemap->ops->migrated(
				    devmem, devmem->mm, w->m.start + first * HOST_PAGE_SIZE, pages,
				    true, peer, GPUSVM_MIGRATE_REQUEST, started);
			peer = next;
			first = i;
			pages = 0;
		}
		if (next) {
			pages += n;
			all += n;
		}
	}
	return all;
}

/* Between begin and end. What fails leaves the frames in dst: end gives them up when the
 * pages are back, which may have been moved there. */
static int transfer(struct pagemap_migration *w)
{
	struct gpusvm_devmem *devmem = w->copies.devmem;
	int err;

	place_all(w);
	err = pagemap_copies_finish(&w->copies);
	unmap_peers(w);
	if (!err && host_load_seq(&devmem->pagemap->revoked))
		err = -ENODEV;
	if (!err && w->m.collected)
		mm_migrate_commit(&w->m);
	return err;
}

/* ---- The migration ---------------------------------------------------------- */

static int check(const struct gpusvm_devmem *devmem, u64 start, u64 end)
{
	if (host_load_acquire(&devmem->pagemap->revoked))
		return -ENODEV;
	if (!host_is_aligned(start | end, HOST_PAGE_SIZE) || end <= start ||
	    (end - start) >> HOST_PAGE_SHIFT != devmem->npages ||
	    host_align_down(start, HOST_HUGE_SIZE) != host_align_down(end - 1, HOST_HUGE_SIZE))
		return -EINVAL;
	return 0;
}

/* May 2M pages stay whole? The caller says that its frames allow it. */
static bool compound_fits(struct gpusvm_devmem *devmem,
			  const struct gpusvm_migrate_details *details)
{
	u64 frame;

	if (!details->compound || devmem->npages != HOST_HUGE_PAGES)
		return false;
	frame = devmem->ops->frame(devmem, 0);
	return host_is_aligned(frame, HOST_HUGE_PAGES) &&
	       devmem->ops->frame(devmem, HOST_HUGE_PAGES - 1) == frame + HOST_HUGE_PAGES - 1;
}

/* For mm_migrate.frame. */
static u64 frame_run(void *arg, unsigned i, unsigned *n)
{
	const struct pagemap_migration *w = arg;
	struct gpusvm_devmem *devmem = w->copies.devmem;
	u64 first = devmem->ops->frame(devmem, i);

	if (w->m.flags & MM_MIGRATE_COMPOUND) {
		*n = devmem->npages - i;
		return first;
	}
	for (*n = 1; i + *n < devmem->npages; ++*n)
		if (devmem->ops->frame(devmem, i + *n) != first + *n)
			break;
	return first;
}

static int migrate_used(struct gpusvm_devmem *devmem, u64 start, u64 end,
			const struct gpusvm_migrate_details *details,
			struct gpusvm_migrate_result *result)
{
	struct sources sources = {.own = devmem->pagemap, .details = details};
	bool peers = devmem->pagemap->dev != NULL;
	u64 started = host_now(), from_peers = 0;
	struct pagemap_migration *w;
	int err;

	w = scratch_take(devmem, peers);
	if (!w)
		return -ENOMEM;
	w->m.mm = devmem->mm;
	w->m.start = start;
	w->m.end = end;
	w->m.npages = devmem->npages;
	w->m.flags = MM_MIGRATE_SYSTEM | (peers ? MM_MIGRATE_DEVICE : 0) |
		     (compound_fits(devmem, details) ? MM_MIGRATE_COMPOUND : 0);
	w->m.migrator = devmem->pagemap;
	w->m.select = select_peer;
	w->m.select_arg = &sources;
	w->m.region = devmem->pagemap->region;
	w->m.frame = frame_run;
	w->m.frame_arg = w;
	err = mm_migrate_begin(&w->m);
	if (!err) {
		devmem->unplaced = 0;
		err = transfer(w);
		/* Before the CPU goes on, or its first fault would not wait. */
		if (!err && details->timeslice)
			host_write_once(&devmem->timeslice_end, host_now() + details->timeslice);
		if (!err && peers)
			from_peers = tell_peers(w, started);
		mm_migrate_end(&w->m);
	}
	if (!err)
		pagemap_count(&w->m, devmem->pagemap, result);
	scratch_put(devmem->pagemap, w);
	if (!err && result->moved > from_peers && devmem->pagemap->ops->migrated)
		devmem->pagemap->ops->migrated(devmem, devmem->mm, start,
					       result->moved - from_peers, true, NULL,
					       GPUSVM_MIGRATE_REQUEST, started);
	return err;
}

int gpusvm_devmem_migrate(struct gpusvm_devmem *devmem, u64 start, u64 end,
			  const struct gpusvm_migrate_details *details,
			  struct gpusvm_migrate_result *result)
{
	struct mm *mm = devmem->mm;
	int err = check(devmem, start, end);

	*result = (struct gpusvm_migrate_result){0};
	if (!err && !mm_use(mm))
		err = -EFAULT;
	if (!err) {
		err = migrate_used(devmem, start, end, details, result);
		mm_unuse(mm);
	}
	if (devmem->unplaced) {
		pagemap_free_frames(devmem, 0, devmem->npages);
		devmem->unplaced = 0;
	}
	gpusvm_devmem_put(devmem);
	return err;
}
