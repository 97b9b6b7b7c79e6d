/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bind.c: making a range reachable from a device, for faults, prefetches and
 * explicit binds alike:
 *
 *	place     the arbiter says where the pages should be, and they move (place.c)
 *	get       their addresses as the device sees them (gpusvm_pages_get)
 *	commit    page table entries, under the notifier lock, if nothing was
 *		  invalidated since (law 7)
 *
 * Locking: range->lock all along, so that two who want the same do the work
 * once. Below it: whatever the core takes. The notifier lock is held for the
 * commit only. Who binds for a device that cannot fault holds driver->lock, too:
 * its commits are clipped to what is bound (bound.c).
 */
#include "driver/private.h"

#define BIND_TRIES 4u /* commits lost to invalidations before a range is looked up anew */
#define MAP_TRIES 16u /* looks at one address */
#define MAP_BUDGET (500 * HOST_MSEC)
/* Ranges to try where one cannot be mapped as a whole. */
static const u64 map_smaller[] = {HOST_PAGE_SIZE << 4, HOST_PAGE_SIZE};

/* ---- Commit -------------------------------------------------------------- */

/* Makes the tables that the commit needs. */
static int prepare(struct driver_device *dd, struct driver_range *range, struct driver_pages *dp)
{
	u64 start = gpusvm_range_start(&range->base), end = gpusvm_range_end(&range->base);
	bool small;

	gpusvm_notifier_lock(range->base.mirror);
	small = driver_no_fault(dd) || dp->pages.n_addrs != 1 ||
		gpusvm_addr_order(dp->pages.addrs[0]) != HOST_HUGE_ORDER;
	gpusvm_notifier_unlock(range->base.mirror);
	return dd->ops->vm_prepare(dd->vm, start, end - start, small);
}

/* Which of the addresses may be the place of an atomic. Only a commit writes addrs of
 * pages that are valid, and commits of one pages object exclude each other. */
static void allow_atomics(struct driver_pages *dp, enum arbiter_atomics atomics)
{
	host_write_once(&dp->atomics, atomics);
	for (u32 i = 0; i < dp->pages.n_addrs; i++) {
		struct gpusvm_addr *addr = &dp->pages.addrs[i];
		/* Not within the CPU's reach. */
		bool device =
		    gpusvm_addr_proto(*addr) != GPUSVM_PROTO_SYSTEM || gpusvm_addr_exclusive(*addr);

		*addr = gpusvm_addr_set_atomics(*addr,
						atomics == ARBITER_ATOMICS_ALL ||
						    (atomics == ARBITER_ATOMICS_DEVICE && device));
	}
}

/* 0, or -EAGAIN: an invalidation came in between, or advice. */
static int commit(struct driver_device *dd, struct driver_range *range, struct driver_pages *dp,
		  const struct driver_advised *advised, enum arbiter_atomics atomics)
{
	struct gpusvm_mirror *mirror = range->base.mirror;
	u64 start = gpusvm_range_start(&range->base);

	gpusvm_notifier_lock(mirror);
	if (!gpusvm_pages_valid(mirror, &dp->pages) ||
	    (host_read_once(&range->base.flags) & GPUSVM_RANGE_UNMAPPED) ||
	    driver_advised_stale(dd->driver, advised->generation)) {
		gpusvm_notifier_unlock(mirror);
		return -EAGAIN;
	}
	allow_atomics(dp, atomics);
	if (driver_no_fault(dd))
		driver_bound_commit(dd, range, dp);
	else
		dd->ops->vm_map(dd->vm, start, dp->pages.addrs, dp->pages.n_addrs);
	/* All flushes are over: the last invalidation was before the get. */
	host_write_once(&dp->flushing, 0);
	host_write_once(&dp->mapped, 1);
	gpusvm_notifier_unlock(mirror);
	return 0;
}

/* Get, then commit, with the range as it is. */
static int bind_pages(struct driver_device *dd, struct driver_range *range, struct driver_pages *dp,
		      const struct driver_want *want, const struct driver_advised *advised,
		      const struct driver_place_result *placed)
{
	struct gpusvm_ctx ctx = {
	    .read_only = !want->write,
	    .want_write = true,
	    .keep = placed->take     ? driver_page_keep_own
		    : want->in_place ? driver_page_keep_any
				     : driver_page_keep,
	    .keep_arg = dd,
	    .budget = want->budget,
	    .no_dma = dd->no_dma,
	    .owner = dd,
	    .exclusive = placed->take,
	    .hold = dd->driver->options.timeslice,
	};
	struct gpusvm_pages *pages = &dp->pages;
	unsigned tries = 0;
	int err;

	do {
		err = gpusvm_pages_get(range->base.mirror, &pages, 1, dd->driver->mm,
				       &range->base.notifier->mm, gpusvm_range_start(&range->base),
				       gpusvm_range_end(&range->base), &ctx);
		if (err)
			return err == -EBUSY ? -EAGAIN : err;
		err = prepare(dd, range, dp);
		if (!err)
			err = commit(dd, range, dp, advised, placed->atomics);
	} while (err == -EAGAIN && ++tries < BIND_TRIES &&
		 !driver_advised_stale(dd->driver, advised->generation));
	return err;
}

/* Nothing to do? An invalidation at this moment is no matter: the device faults
 * again. */
static bool bound_already(const struct driver_pages *dp, const struct driver_want *want)
{
	u32 flags = host_read_once(&dp->pages.flags);

	return host_read_once(&dp->mapped) && (flags & GPUSVM_PAGES_VALID) &&
	       (!want->write || (flags & GPUSVM_PAGES_WRITE)) &&
	       (!want->exclusive || (flags & GPUSVM_PAGES_EXCLUSIVE)) &&
	       (!want->atomic || host_read_once(&dp->atomics) == ARBITER_ATOMICS_ALL);
}

static int bind_locked(struct driver_device *dd, struct driver_range *range,
		       const struct driver_want *want, const struct driver_advised *advised)
{
	u32 flags = host_read_once(&range->base.flags);
	struct driver_place_result placed;
	struct driver_pages *dp;
	int err;

	if (driver_removed(dd))
		return -ENODEV;
	if (flags & (GPUSVM_RANGE_UNMAPPED | GPUSVM_RANGE_REMOVED))
		return -EAGAIN;
	dp = driver_range_pages(range, dd);
	if (!dp)
		return -ENOMEM;
	if (bound_already(dp, want) && !driver_no_fault(dd))
		return 0;
	if (want->in_place && driver_exclusive_any(dd, gpusvm_range_start(&range->base),
						   gpusvm_range_end(&range->base))) {
		/* It may be about to end, and who ends it has told of it before. */
		driver_remap_again(dd->driver, range);
		return -EFAULT;
	}
	/* Entries without write access go before their addresses are mapped anew. */
	if (host_read_once(&dp->mapped) && !bound_already(dp, want))
		driver_pages_drop(range, dp);
	err = driver_place(dd, range, want, advised, &placed);
	if (err)
		return err;
	host_write_once(&range->accessed_by, advised->values.accessed_by);
	err = bind_pages(dd, range, dp, want, advised, &placed);
	/* Of what may be taken at one time (1 GiB in a live process), all may be. */
	if (err == -ENOMEM && placed.take && !want->exclusive)
		err = -EOPNOTSUPP;
	if (err != -EOPNOTSUPP)
		return err;
	/* Some of it cannot be the device's alone. */
	err = driver_place_refused(dd, range, want);
	placed.take = false;
	return err ? err : bind_pages(dd, range, dp, want, advised, &placed);
}

int driver_range_bind(struct driver_device *dd, struct driver_range *range,
		      const struct driver_want *want, const struct driver_advised *advised)
{
	int err;

	host_mutex_lock(&range->lock);
	err = bind_locked(dd, range, want, advised);
	host_mutex_unlock(&range->lock);
	return err;
}

/* ---- Intervals ------------------------------------------------------------ */

int driver_range_at(struct driver_device *dd, u64 address, const struct driver_want *want,
		    struct driver_advised *advised, struct driver_range **ret)
{
	struct gpusvm_mirror *mirror = &dd->driver->mirror;
	struct gpusvm_ctx ctx = {
	    .read_only = !want->write,
	    .devmem_possible = true,
	    .max_chunk = want->max_chunk,
	    .budget = want->budget,
	    .seen = want->seen,
	};
	u64 block = host_align_down(address, HOST_HUGE_SIZE), granule;
	struct gpusvm_range *range;
	int err;

	driver_advised(dd->driver, address, block, block + HOST_HUGE_SIZE, advised);
	granule = (u64)advised->values.granularity << HOST_PAGE_SHIFT;
	if (granule && (!ctx.max_chunk || granule < ctx.max_chunk))
		ctx.max_chunk = granule;
	err = gpusvm_range_find_or_insert(mirror, address, advised->start, advised->end, &ctx,
					  &range);
	if (err)
		return err == -EBUSY ? -EAGAIN : err;
	*ret = driver_range_of(range);
	if (!(host_read_once(&range->flags) & GPUSVM_RANGE_UNMAPPED) &&
	    gpusvm_range_start(range) >= advised->start &&
	    gpusvm_range_end(range) <= advised->end &&
	    (!ctx.max_chunk ||
	     gpusvm_range_end(range) - gpusvm_range_start(range) <= ctx.max_chunk))
		return 0;
	driver_range_retire(*ret);
	gpusvm_range_put(range);
	return -EAGAIN;
}

/* One attempt at the range at address; *next: where it ends. -E2BIG: a smaller one may do. */
static int map_once(struct driver_device *dd, u64 address, const struct driver_want *want,
		    u64 *next)
{
	struct driver_advised advised;
	struct driver_range *range;
	int err = driver_range_at(dd, address, want, &advised, &range);
	u64 size;

	if (err)
		return err;
	size = gpusvm_range_end(&range->base) - gpusvm_range_start(&range->base);
	*next = gpusvm_range_end(&range->base);
	err = driver_range_bind(dd, range, want, &advised);
	gpusvm_range_put(&range->base);
	/* What is wrong with another page of its range is not this one's concern. */
	if ((err == -EFAULT || err == -EPERM) && size > HOST_PAGE_SIZE && !want->in_place &&
	    !driver_place_allowed(&advised))
		err = -E2BIG;
	return err;
}

/* With bounded retries, and smaller ranges where one cannot be mapped as a whole. */
static int map_at(struct driver_device *dd, u64 address, const struct driver_want *want, u64 *next)
{
	struct driver_want smaller = *want;
	unsigned i = 0;
	int err;

	*next = 0;
	for (;;) {
		struct gpusvm_retry retry;

		gpusvm_retry_init(&retry, MAP_BUDGET, MAP_TRIES);
		do {
			err = map_once(dd, address, &smaller, next);
			smaller.seen = NULL; /* it may have changed */
		} while (err == -EAGAIN && gpusvm_retry_again(&retry));
		if (err != -E2BIG || i == host_array_size(map_smaller))
			break;
		smaller.max_chunk = map_smaller[i++];
	}
	return err == -E2BIG ? -EPERM : err;
}

/* Behind an address that cannot be mapped: the end of its mapping or of the hole. */
static u64 behind(struct mm *mm, u64 address, u64 end)
{
	struct mm_vma vma;

	if (mm_vma_find(mm, address, end, &vma))
		return end;
	return vma.start > address ? vma.start : host_max(vma.end, address + HOST_PAGE_SIZE);
}

int driver_map(struct driver_device *dd, u64 start, u64 end, const struct driver_want *want)
{
	struct mm_vma seen = {0};
	struct driver_want one = *want;
	int result = 0, err;
	u64 at = start, next;

	while (at < end) {
		if (end - start > HOST_HUGE_SIZE && at >= seen.end &&
		    mm_vma_find(dd->driver->mm, at, end, &seen))
			seen.end = 0;
		one.seen = &seen;
		err = map_at(dd, at, &one, &next);
		if (err == -ENODEV)
			return err;
		if (err && !result)
			result = err == -EAGAIN ? -EBUSY : err == -ENOENT ? -EFAULT : err;
		at = next > at ? next : behind(dd->driver->mm, at, end);
	}
	return result;
}
