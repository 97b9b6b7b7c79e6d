/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * populate.c: moving pages to a device, and what its pagemap tells the core.
 *
 * An interval is cut at the bounds of its mappings and at 2M; each piece gets a
 * buffer object of just its size. Where a part of a piece is on the device
 * already (the CPU took some pages back), only what is missing moves.
 *
 * The pagemap ops are called from CPU faults and from under the notifier lock:
 * they take no lock, and touch atomics only (law 5).
 */
#include "driver/bo.h"
#include "policy/fault_around.h"

#define GRANULE_TRIES 8u
#define POPULATE_RUNS 16u /* more gaps than this are filled by one object */
#define FAR_CHUNK (16 * HOST_PAGE_SIZE)
#define FAR_STREAM 16u /* chunks in a row after which whole blocks are asked for */

/* ---- Pages and their device ------------------------------------------------- */

struct driver_device *driver_owner_device(const void *owner)
{
	const struct gpusvm_pagemap *pagemap = owner;

	if (!pagemap || pagemap->ops != &driver_pagemap_ops)
		return NULL;
	return host_container_of(pagemap, struct driver_device, pagemap);
}

struct driver_device *driver_page_device(struct mm_page *page)
{
	return driver_owner_device(gpusvm_page_pagemap(page));
}

bool driver_page_keep(void *arg, struct mm_page *page)
{
	struct driver_device *dd = arg, *owner = driver_page_device(page);
	struct driver_bo *bo;

	if (!owner || (owner != dd && !driver_may_map(dd, owner)))
		return false;
	bo = driver_bo_of(gpusvm_page_devmem(page));
	if (!host_read_once(&bo->used))
		host_write_once(&bo->used, 1);
	if (owner != dd)
		driver_exclusive_clear(owner, mm_page_index(page), (u64)1 << mm_page_order(page));
	return true;
}

bool driver_page_keep_any(void *arg, struct mm_page *page)
{
	(void)driver_page_keep(arg, page);
	return true;
}

bool driver_page_keep_own(void *arg, struct mm_page *page)
{
	return driver_page_device(page) == arg && driver_page_keep(arg, page);
}

static void bo_set_granule(struct driver_bo *bo, u32 granule)
{
	host_write_once(&bo->granule, granule);
	host_write_once(&bo->base.exact, granule && granule < HOST_HUGE_PAGES);
}

static bool set_granule(void *arg, struct mm_page *page)
{
	if (driver_page_device(page))
		bo_set_granule(driver_bo_of(gpusvm_page_devmem(page)), *(u32 *)arg);
	return true;
}

/* By a look that changes nothing: its `keep` is asked while the page is held, so that
 * the object is there. What moves meanwhile is left out in the end: where it goes, it
 * hears of the advice. */
void driver_granule_set(struct gpusvm_driver *driver, u64 start, u64 end, u32 granule)
{
	struct mm_range_fault rf = {
		.mm = driver->mm,
		.notifier = &driver->advice.notifier,
		.pfns = host_alloc(HOST_HUGE_PAGES * sizeof(mm_pfn_t)),
		.keep = set_granule,
		.keep_arg = &granule,
	};

	for (; rf.pfns && start < end; start = rf.end) {
		unsigned tries = 0;

		rf.start = start;
		rf.end = host_align_down(start, HOST_HUGE_SIZE) + HOST_HUGE_SIZE;
		rf.end = host_min(rf.end, end);
		do
			rf.seq = mm_notifier_read_begin(rf.notifier);
		while (mm_range_fault(&rf) == -EBUSY && ++tries < GRANULE_TRIES);
	}
	host_free(rf.pfns);
}

/* ---- One piece --------------------------------------------------------------- */

struct populate {
	struct driver_device *dd;
	struct mm *mm;
	u64 timeslice;
	enum gpusvm_driver_cause cause;
	struct gpusvm_migrate_result *result;
	bool leave; /* pages of peers that the device may map stay there */
	bool full;  /* no memory was to be had: do not ask again */
};

/* What becomes of a page on a device. */
enum populate_way {
	POPULATE_HERE,	 /* it is where it shall be */
	POPULATE_LEAVE,	 /* it stays: it will be mapped over a link */
	POPULATE_PULL,	 /* straight over a link */
	POPULATE_BOUNCE, /* by way of system memory */
};

/* Links may change at any time: what was said to be pulled and cannot be, stays. */
static enum populate_way way_of(const struct populate *p, const struct driver_device *owner)
{
	if (owner == p->dd)
		return POPULATE_HERE;
	if (owner && p->leave && driver_may_map(p->dd, owner))
		return POPULATE_LEAVE;
	return owner && driver_may_copy(p->dd, owner) ? POPULATE_PULL : POPULATE_BOUNCE;
}

/* struct gpusvm_migrate_details's take. */
static bool is_pulled(void *populate, struct mm_page *page)
{
	return way_of(populate, driver_page_device(page)) == POPULATE_PULL;
}

/* gpusvm_pagemap_recall's spare. */
static bool is_spared(void *populate, struct mm_page *page)
{
	return way_of(populate, driver_page_device(page)) != POPULATE_BOUNCE;
}

/* [start, end) into one buffer object of its size. -ENOSPC: there is none. */
static int populate_bo(struct populate *p, u64 start, u64 end)
{
	struct gpusvm_migrate_details details = {
	    .timeslice = p->timeslice,
	    .take = is_pulled,
	    .take_arg = p,
	};
	struct gpusvm_migrate_result one = { 0 };
	struct driver_advised advised;
	struct driver_bo *bo;
	int err;

	err = driver_bo_create(p->dd, p->mm, start, end, p->cause, &bo);
	if (err)
		return err;
	driver_advised(p->dd->driver, start, start, end, &advised);
	bo_set_granule(bo, advised.values.granularity);
	details.compound = end - start == HOST_HUGE_SIZE && !bo->blocks &&
			   (!bo->granule || bo->granule >= HOST_HUGE_PAGES);
	/* The second reference is for the list: migrate uses up the first. */
	HOST_CHECK(gpusvm_devmem_get_unless_zero(&bo->base));
	err = gpusvm_devmem_migrate(&bo->base, start, end, &details, &one);
	if (!err && one.moved)
		driver_bo_ready(bo);
	gpusvm_devmem_put(&bo->base);
	driver_result_add(p->result, &one);
	return err;
}

/* At most 2M of one mapping, in objects as large as memory allows. */
static int populate_run(struct populate *p, u64 start, u64 end)
{
	u64 size = end - start;
	int err = 0;

	while (start < end && !p->full) {
		size = host_min(size, end - start);
		err = populate_bo(p, start, start + size);
		if (!err) {
			start += size;
		} else if (err != -ENOSPC) {
			return err;
		} else if (size > HOST_PAGE_SIZE) {
			size = host_align_up(size / 2, HOST_PAGE_SIZE);
		} else {
			p->full = true;
		}
	}
	if (start < end) {
		p->result->stayed += driver_npages(start, end);
		p->result->stayed_reason |= MM_STAYED_BUSY;
	}
	return 0;
}

#define FIXED_BATCH 64u /* pages looked at in one go that cannot move */

/* May some of this piece be on a device? A guess that costs nothing, before a
 * look at each page. */
static bool maybe_on_device(struct gpusvm_driver *driver, u64 start)
{
	u64 devices = driver_devices_get(driver), left;
	bool maybe = false;

	for (left = devices; left && !maybe; left &= left - 1) {
		struct driver_device *dd = driver->devices[__builtin_ctzll(left)];

		maybe = dd->has_memory && host_read_once(driver_placed(dd, start));
	}
	driver_devices_put(driver, devices);
	return maybe;
}

/* ---- Pages out of reach --------------------------------------------------------- */

/* Neither mapped nor pulled over a link: they reach dd by way of system memory. */
static bool is_far(struct driver_device *dd, const struct driver_device *owner)
{
	return owner && owner != dd && !driver_may_map(dd, owner) &&
	       !(dd->has_memory && driver_may_copy(dd, owner));
}

/* As maybe_on_device, of those alone. */
static bool maybe_far(struct driver_device *dd, u64 start)
{
	u64 devices = driver_devices_get(dd->driver), left;
	bool maybe = false;

	for (left = devices; left && !maybe; left &= left - 1) {
		struct driver_device *owner = dd->driver->devices[__builtin_ctzll(left)];

		maybe = is_far(dd, owner) && owner->has_memory &&
			host_read_once(driver_placed(owner, start));
	}
	driver_devices_put(dd->driver, devices);
	return maybe;
}

static bool any_far(struct driver_device *dd, u64 start, u64 end)
{
	const void **owners;
	bool any = false;

	if (!maybe_far(dd, start))
		return false;
	owners = host_alloc(driver_npages(start, end) * sizeof(*owners));
	if (!owners)
		return false;
	mm_page_owners(dd->driver->mm, start, end, owners);
	for (u64 i = 0; i < driver_npages(start, end) && !any; i++)
		any = owners[i] && is_far(dd, driver_owner_device(owners[i]));
	host_free(owners);
	return any;
}

/* Two faults at once lose an update of the stream, which only costs smaller chunks. */
u64 driver_far_chunk(struct driver_device *dd, u64 address)
{
	u64 block = host_align_down(address, HOST_HUGE_SIZE);
	u64 chunk = host_align_down(address, FAR_CHUNK);
	bool goes_on;

	if (!any_far(dd, block, block + HOST_HUGE_SIZE))
		return 0;
	goes_on = chunk == host_read_once(&dd->far_next);
	host_write_once(&dd->far_run, goes_on ? host_read_once(&dd->far_run) + 1 : 0);
	if (goes_on && chunk == block && host_read_once(&dd->far_run) >= FAR_STREAM) {
		host_write_once(&dd->far_next, block + HOST_HUGE_SIZE);
		return 0;
	}
	host_write_once(&dd->far_next, chunk + FAR_CHUNK);
	return FAR_CHUNK;
}

/* ---- The missing part of a piece ------------------------------------------------ */

/* What of a piece is where. */
struct populate_scan {
	u64 here, left, bounced; /* pages, by way_of */
	u64 runs;		 /* of pages that are to come */
};

/* Afterwards owners[i] is NULL where page i is to come. */
static struct populate_scan scan(struct populate *p, u64 start, u64 end, const void **owners)
{
	struct populate_scan ret = { 0 };
	u64 n = driver_npages(start, end), i;

	mm_page_owners(p->mm, start, end, owners);
	for (i = 0; i < n; i++) {
		enum populate_way way = POPULATE_PULL;

		if (owners[i])
			way = way_of(p, driver_owner_device(owners[i]));
		ret.here += way == POPULATE_HERE;
		ret.left += way == POPULATE_LEAVE;
		ret.bounced += way == POPULATE_BOUNCE;
		if (way == POPULATE_HERE || way == POPULATE_LEAVE)
			continue;
		owners[i] = NULL;
		ret.runs += !i || owners[i - 1];
	}
	return ret;
}

/* The part of a piece that is missing, run by run; all of it at once where it is
 * in crumbs: what is there already is found by the migration. Pages of another
 * device to which there is no link come by way of system memory. */
static int populate_missing(struct populate *p, u64 start, u64 end)
{
	u64 n = driver_npages(start, end), i, first;
	const void **owners = host_alloc(n * sizeof(*owners));
	struct gpusvm_migrate_result ignored;
	struct populate_scan found;
	int err = 0;

	if (!owners)
		return -ENOMEM;
	found = scan(p, start, end, owners);
	if (found.bounced)
		err = gpusvm_pagemap_recall(p->mm, start, end, is_spared, p, &ignored);
	if (err || found.runs > POPULATE_RUNS || !(found.here || found.left)) {
		host_free(owners);
		return err ? err : populate_run(p, start, end);
	}
	p->result->already += found.here;
	p->result->stayed += found.left;
	for (i = 0; i < n && !err; i++) {
		if (owners[i])
			continue;
		for (first = i; i + 1 < n && !owners[i + 1]; i++)
			;
		err = populate_run(p, start + (first << HOST_PAGE_SHIFT),
				   start + ((i + 1) << HOST_PAGE_SHIFT));
	}
	host_free(owners);
	return err;
}

/* ---- Several 2M at once ---------------------------------------------------------- */

/* At most 2M, and of one mapping. */
static int populate_piece(struct populate *p, u64 start, u64 end)
{
	return maybe_on_device(p->dd->driver, start) ? populate_missing(p, start, end) :
						       populate_run(p, start, end);
}

/* Objects for up to max whole 2M from start on, of which none is on a device; with a second
 * reference each, for the list. How many. */
static unsigned whole_objects(struct populate *p, u64 start, unsigned max, u32 granule,
			      struct gpusvm_devmem **list)
{
	struct driver_bo *bo;
	unsigned n;

	for (n = 0; n < max; n++, start += HOST_HUGE_SIZE) {
		if (maybe_on_device(p->dd->driver, start) ||
		    driver_bo_create(p->dd, p->mm, start, start + HOST_HUGE_SIZE, p->cause, &bo))
			break;
		if (bo->blocks) { /* memory is short, and in pieces */
			gpusvm_devmem_put(&bo->base);
			break;
		}
		bo_set_granule(bo, granule);
		HOST_CHECK(gpusvm_devmem_get_unless_zero(&bo->base));
		list[n] = &bo->base;
	}
	return n;
}

/* Where the CPU can address the device's memory, what is one page of 2M needs no copy, and
 * what costs is all around: several go at once. What does not go so, goes as any other; one
 * alone does, too: it would stop all others for a moment, and gain nothing. *end: how far it
 * came, which may be nowhere. */
static int populate_whole(struct populate *p, u64 start, u64 *end, u32 granule)
{
	unsigned max = (unsigned)host_min((*end - start) >> (HOST_HUGE_ORDER + HOST_PAGE_SHIFT),
					  (u64)MM_MOVE_HUGE_MAX);
	struct gpusvm_devmem *list[MM_MOVE_HUGE_MAX];
	u64 moved = 0;
	unsigned n = 0;
	int err = 0;

	if (p->dd->pagemap.memory && max > 1 && host_is_aligned(start, HOST_HUGE_SIZE) &&
	    (!granule || granule >= HOST_HUGE_PAGES))
		n = whole_objects(p, start, max, granule, list);
	*end = start + n * HOST_HUGE_SIZE;
	if (n)
		err = gpusvm_devmem_migrate_huge(list, n, start, p->timeslice, &moved);
	for (unsigned i = 0; i < n; i++) {
		if (moved >> i & 1) {
			driver_bo_ready(driver_bo_of(list[i]));
			p->result->moved += HOST_HUGE_PAGES;
		}
		gpusvm_devmem_put(list[i]);
	}
	err = err == -EOPNOTSUPP || err == -ENOMEM ? 0 : err;
	for (unsigned i = 0; !err && i < n; i++)
		if (!(moved >> i & 1))
			err = populate_piece(p, start + i * HOST_HUGE_SIZE,
					     start + (i + 1) * HOST_HUGE_SIZE);
	return err;
}

/* ---- An interval --------------------------------------------------------------- */

/* A part of one mapping whose pages can move, piece by piece of 2M. */
static int populate_mapping(struct populate *p, u64 start, u64 end)
{
	int err = 0;

	while (start < end && !err) {
		struct driver_advised advised;
		u64 stop;

		/* One object for what is advised alike: it knows how its pages come home. */
		driver_advised(p->dd->driver, start, start, end, &advised);
		stop = advised.end;
		err = populate_whole(p, start, &stop, advised.values.granularity);
		if (stop == start && !err) {
			stop = host_align_down(start, HOST_HUGE_SIZE) + HOST_HUGE_SIZE;
			stop = host_min(stop, advised.end);
			err = populate_piece(p, start, stop);
		}
		start = stop;
	}
	return err;
}

/* A part of one mapping whose pages cannot move now: what was moved while they could,
 * e.g. before it was made read-only, is here already. */
static void count_fixed(struct populate *p, u64 start, u64 end)
{
	const void *owners[FIXED_BATCH];
	u64 stop, stayed = 0;

	for (; start < end; start = stop) {
		u64 here;

		stop = host_min(end, start + FIXED_BATCH * HOST_PAGE_SIZE);
		here = scan(p, start, stop, owners).here;
		p->result->already += here;
		stayed += driver_npages(start, stop) - here;
	}
	p->result->stayed += stayed;
	if (stayed)
		p->result->stayed_reason |= MM_STAYED_NOT_MIGRATABLE;
}

static int populate_interval(struct populate *p, u64 start, u64 end)
{
	struct gpusvm_migrate_result *result = p->result;
	int err = 0;

	while (start < end && !err) {
		struct mm_vma vma;
		u64 stop;

		err = mm_vma_find(p->mm, start, end, &vma);
		if (err == -ENOENT) {
			result->holes += driver_npages(start, end);
			return 0;
		}
		if (err)
			return err;
		if (vma.start > start) {
			result->holes += driver_npages(start, vma.start);
			start = vma.start;
		}
		stop = host_min(end, vma.end);
		if (vma.flags & MM_VMA_MIGRATABLE)
			err = populate_mapping(p, start, stop);
		else
			count_fixed(p, start, stop);
		start = stop;
	}
	return err;
}

int driver_populate(struct driver_device *dd, struct mm *mm, u64 start, u64 end, u64 timeslice,
		    enum gpusvm_driver_cause cause, bool leave,
		    struct gpusvm_migrate_result *result)
{
	struct populate p = {
	    .dd = dd,
	    .mm = mm,
	    .timeslice = timeslice,
	    .cause = cause,
	    .result = result,
	    .leave = leave,
	};
	int err;

	if (!dd->has_memory)
		return driver_count_stayed(mm, start, end, MM_STAYED_NOT_MIGRATABLE, result);
	/* device_close sets removed, then waits for populating to reach 0: one of
	 * the two sees the other. */
	host_add_return(&dd->populating, 1);
	err = driver_removed(dd) ? -ENODEV : driver_memory_get(dd);
	if (!err) {
		err = populate_interval(&p, start, end);
		gpusvm_pagemap_put(&dd->pagemap);
	}
	if (!host_add_return(&dd->populating, (u32)-1))
		host_wake_all(&dd->populate_idle);
	if (!err && p.full && !result->moved && !result->already)
		err = -ENOSPC;
	return err;
}

/* ---- The pagemap's ops ----------------------------------------------------------- */

static struct driver_device *device_of(struct gpusvm_pagemap *pagemap)
{
	return host_container_of(pagemap, struct driver_device, pagemap);
}

/* Where a frame is for another device. */
static struct gpusvm_addr peer_addr(const struct driver_device *owner, const struct mm_page *page,
				    unsigned order, bool write)
{
	u64 offset = mm_page_index(page) << HOST_PAGE_SHIFT;

	return gpusvm_addr_encode(gpusvm_peer_address((unsigned)owner->index, offset),
				  GPUSVM_PROTO_PEER, order, write);
}

static struct gpusvm_addr pagemap_device_map(struct gpusvm_pagemap *pagemap, void *dev,
					     struct mm_page *page, unsigned order, bool write)
{
	struct driver_device *owner = device_of(pagemap);

	if (dev == owner)
		return gpusvm_addr_encode(mm_page_index(page) << HOST_PAGE_SHIFT,
					  GPUSVM_PROTO_LOCAL, order, write);
	/* The last word: see links.c. */
	if (!driver_may_map(dev, owner))
		return gpusvm_addr_encode(0, GPUSVM_PROTO_NONE, order, false);
	return peer_addr(owner, page, order, write);
}

static struct gpusvm_addr pagemap_copy_map(struct gpusvm_pagemap *pagemap, void *dev,
					   struct mm_page *page, unsigned order)
{
	struct driver_device *owner = device_of(pagemap), *user = dev;

	if (!gpusvm_interconnect_copy_begin(&user->driver->links, (unsigned)user->index,
					    (unsigned)owner->index))
		return gpusvm_addr_encode(0, GPUSVM_PROTO_NONE, order, false);
	return peer_addr(owner, page, order, false);
}

static void pagemap_copy_unmap(struct gpusvm_pagemap *pagemap, void *dev, struct gpusvm_addr addr)
{
	struct driver_device *owner = device_of(pagemap), *user = dev;

	(void)addr;
	gpusvm_interconnect_copy_end(&user->driver->links, (unsigned)user->index,
				     (unsigned)owner->index);
}

static int pagemap_populate_mm(struct gpusvm_pagemap *pagemap, struct mm *mm, u64 start, u64 end,
			       u64 timeslice, struct gpusvm_migrate_result *result)
{
	return driver_populate(device_of(pagemap), mm, start, end, timeslice, DRIVER_CAUSE_NONE,
			       false, result);
}

/* Each devmem keeps the window of its own faults; a fault that goes on where the
 * device's last one ended, in the next devmem, goes on as wide. Atomics without
 * order: two faults at once lose an update, which only costs a smaller window. */
static void pagemap_fault_window(struct gpusvm_devmem *devmem, u64 address, unsigned fault,
				 unsigned n, unsigned *first, unsigned *last)
{
	struct driver_device *dd = driver_bo_of(devmem)->device;
	u64 page = address >> HOST_PAGE_SHIFT;
	unsigned state = host_read_once(&devmem->window);
	u32 granule = host_read_once(&driver_bo_of(devmem)->granule);

	if (granule && granule < n) {
		*first = (unsigned)host_align_down(fault, granule);
		*last = *first + granule;
		return;
	}
	if (granule) {
		*first = 0;
		*last = n;
		return;
	}
	if (!state && page == host_read_once(&dd->stream_next))
		state = fault_around_continue(host_read_once(&dd->stream_shift), fault);
	state = fault_around(state, fault, n, first, last);
	host_write_once(&devmem->window, state);
	host_write_once(&dd->stream_next, page - fault + *last);
	host_write_once(&dd->stream_shift, fault_around_shift(state));
}

static enum gpusvm_driver_cause cause_of(struct driver_bo *bo, bool to_device, unsigned cause)
{
	switch (cause) {
	case GPUSVM_MIGRATE_CPU_FAULT:
		return DRIVER_CAUSE_CPU_FAULT;
	case GPUSVM_MIGRATE_EVICTION:
		return (enum gpusvm_driver_cause)host_read_once(&bo->cause);
	default:
		return to_device ? (enum gpusvm_driver_cause)host_read_once(&bo->cause) :
				   DRIVER_CAUSE_PREFETCH;
	}
}

static void pagemap_migrated(struct gpusvm_devmem *devmem, struct mm *mm, u64 address, u64 pages,
			     bool to_device, struct gpusvm_pagemap *peer, unsigned cause,
			     u64 started)
{
	struct driver_bo *bo = driver_bo_of(devmem);
	struct driver_device *dd = bo->device;
	u64 length = pages << HOST_PAGE_SHIFT, *counter = &dd->stats.pages_to_system;
	int from = dd->index, to = DRIVER_SYSTEM;

	if (to_device) {
		counter = peer ? &dd->stats.pages_peer : &dd->stats.pages_to_device;
		from = peer ? device_of(peer)->index : DRIVER_SYSTEM;
		to = dd->index;
	}
	driver_count(counter, pages);
	if (cause == GPUSVM_MIGRATE_CPU_FAULT) {
		driver_count(&dd->stats.cpu_faults, 1);
		driver_event(dd->driver, DRIVER_EVENT_CPU_FAULT, DRIVER_CAUSE_CPU_FAULT, dd->index,
			     0, started, address, length, from, to);
	}
	driver_event(dd->driver, DRIVER_EVENT_MIGRATE, cause_of(bo, to_device, cause), dd->index, 0,
		     started, address, length, from, to);
}

static void pagemap_destroy(struct gpusvm_pagemap *pagemap)
{
	struct driver_device *dd = device_of(pagemap);

	gpusvm_pagemap_cache_idle(&dd->cache);
	driver_device_put(dd);
}

const struct gpusvm_pagemap_ops driver_pagemap_ops = {
    .device_map = pagemap_device_map,
    .copy_map = pagemap_copy_map,
    .copy_unmap = pagemap_copy_unmap,
    .populate_mm = pagemap_populate_mm,
    .fault_window = pagemap_fault_window,
    .migrated = pagemap_migrated,
    .destroy = pagemap_destroy,
};
