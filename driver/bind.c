/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bind.c: making a range reachable from a device, for faults, prefetches and
 * explicit binds alike:
 *
 *	migrate   where policy says that the pages should move to the device
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

#define BIND_TRIES 4u	/* commits lost to invalidations before a range is looked up anew */
#define MAP_TRIES 16u	/* looks at one address */
#define MAP_BUDGET (500 * HOST_MSEC)

/* ---- Migrate ------------------------------------------------------------- */

/* Best effort: what does not move is mapped where it is. */
static void bind_migrate(struct driver_device *dd, struct driver_range *range,
			 const struct driver_want *want)
{
	struct gpusvm_driver *driver = dd->driver;
	u64 start = gpusvm_range_start(&range->base), end = gpusvm_range_end(&range->base);
	u64 lapse = placement_lapse(driver->options.timeslice), now = host_now();
	struct gpusvm_migrate_result moved = { 0 };

	range->history.left = host_read_once(&range->left);
	switch (placement_fault(&range->history, now, lapse)) {
	case PLACEMENT_STAY:
		return;
	case PLACEMENT_THROTTLE:
		driver_count(&dd->stats.throttles, 1);
		driver_event(driver, DRIVER_EVENT_THROTTLE, want->cause, dd->index, 0, now, start,
			     end - start, -2, -2);
		return;
	case PLACEMENT_PIN:
		driver_count(&dd->stats.pins, 1);
		driver_event(driver, DRIVER_EVENT_PIN, want->cause, dd->index, 0, now, start,
			     end - start, -2, -2);
		return;
	case PLACEMENT_MIGRATE:
		break;
	}
	driver_populate(dd, driver->mm, start, end, driver->options.timeslice, want->cause,
			&moved);
	placement_result(&range->history, now, host_now(), lapse, moved.moved + moved.already,
			 moved.stayed);
	if (moved.stayed)
		driver_event(driver, DRIVER_EVENT_MAP_REMOTE, want->cause, dd->index, 0, now,
			     start, moved.stayed << HOST_PAGE_SHIFT, -2, -2);
}

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

/* 0, or -EAGAIN: an invalidation came in between. */
static int commit(struct driver_device *dd, struct driver_range *range, struct driver_pages *dp)
{
	struct gpusvm_mirror *mirror = range->base.mirror;
	u64 start = gpusvm_range_start(&range->base);

	gpusvm_notifier_lock(mirror);
	if (!gpusvm_pages_valid(mirror, &dp->pages) ||
	    (host_read_once(&range->base.flags) & GPUSVM_RANGE_UNMAPPED)) {
		gpusvm_notifier_unlock(mirror);
		return -EAGAIN;
	}
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
static int bind_pages(struct driver_device *dd, struct driver_range *range,
		      struct driver_pages *dp, const struct driver_want *want)
{
	struct gpusvm_ctx ctx = {
		.read_only = !want->write,
		.want_write = true,
		.keep = driver_page_keep,
		.keep_arg = dd,
		.budget = want->budget,
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
			err = commit(dd, range, dp);
	} while (err == -EAGAIN && ++tries < BIND_TRIES);
	return err;
}

/* Nothing to do? An invalidation at this moment is no matter: the device faults
 * again. */
static bool bound_already(const struct driver_pages *dp, bool write)
{
	u32 flags = host_read_once(&dp->pages.flags);

	return host_read_once(&dp->mapped) && (flags & GPUSVM_PAGES_VALID) &&
	       (!write || (flags & GPUSVM_PAGES_WRITE));
}

static int bind_locked(struct driver_device *dd, struct driver_range *range,
		       const struct driver_want *want)
{
	u32 flags = host_read_once(&range->base.flags);
	struct driver_pages *dp;

	if (driver_removed(dd))
		return -ENODEV;
	if (flags & (GPUSVM_RANGE_UNMAPPED | GPUSVM_RANGE_REMOVED))
		return -EAGAIN;
	dp = driver_range_pages(range, dd);
	if (!dp)
		return -ENOMEM;
	if (bound_already(dp, want->write) && !driver_no_fault(dd))
		return 0;
	/* Entries without write access go before their addresses are mapped anew. */
	if (host_read_once(&dp->mapped) && !bound_already(dp, want->write))
		driver_pages_drop(range, dp);
	if (want->migrate && dd->has_memory && range->base.migratable)
		bind_migrate(dd, range, want);
	return bind_pages(dd, range, dp, want);
}

int driver_range_bind(struct driver_device *dd, struct driver_range *range,
		      const struct driver_want *want)
{
	int err;

	host_mutex_lock(&range->lock);
	err = bind_locked(dd, range, want);
	host_mutex_unlock(&range->lock);
	return err;
}

/* ---- Intervals ------------------------------------------------------------ */

/* One attempt at the range at address; *next: where it ends. */
static int map_once(struct driver_device *dd, u64 address, const struct driver_want *want,
		    u64 *next)
{
	struct gpusvm_mirror *mirror = &dd->driver->mirror;
	struct gpusvm_ctx ctx = { .read_only = !want->write, .devmem_possible = true };
	struct gpusvm_range *range;
	int err;

	err = gpusvm_range_find_or_insert(mirror, address, mirror->start, mirror->end, &ctx,
					  &range);
	if (err)
		return err == -EBUSY ? -EAGAIN : err;
	if (host_read_once(&range->flags) & GPUSVM_RANGE_UNMAPPED) {
		driver_range_retire(driver_range_of(range));
		err = -EAGAIN;
	} else {
		*next = gpusvm_range_end(range);
		err = driver_range_bind(dd, driver_range_of(range), want);
	}
	gpusvm_range_put(range);
	return err;
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
	int result = 0, err;
	u64 at = start, next;

	while (at < end) {
		struct gpusvm_retry retry;

		next = 0;
		gpusvm_retry_init(&retry, MAP_BUDGET, MAP_TRIES);
		do
			err = map_once(dd, at, want, &next);
		while (err == -EAGAIN && gpusvm_retry_again(&retry));
		if (err == -ENODEV)
			return err;
		if (err && !result)
			result = err == -EAGAIN ? -EBUSY : err == -ENOENT ? -EFAULT : err;
		at = next > at ? next : behind(dd->driver->mm, at, end);
	}
	return result;
}
