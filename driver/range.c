/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * range.c: the driver's range: a gpusvm_range, and for each device that ever
 * needed it a pages object.
 *
 * The list of pages objects only grows, under range->lock; an invalidation reads
 * it under the notifier lock. One that it does not see yet is not mapped yet:
 * gpusvm_pages_get and the commit, which come later, take the notifier lock and
 * find that an invalidation came in between.
 */
#include "driver/private.h"

static struct gpusvm_range *range_alloc(struct gpusvm_mirror *mirror)
{
	struct driver_range *range = host_alloc_zeroed(sizeof(*range));

	if (!range)
		return NULL;
	host_mutex_init(&range->lock, RANK_DRIVER_RANGE);
	return &range->base;
}

static void range_free(struct gpusvm_range *base)
{
	struct driver_range *range = driver_range_of(base);
	struct driver_pages *dp, *next;

	for (dp = range->pages; dp; dp = next) {
		next = dp->next;
		gpusvm_pages_free(base->mirror, &dp->pages);
		if (dp != &range->first)
			host_free(dp);
	}
	host_mutex_destroy(&range->lock);
	host_free(range);
}

const struct gpusvm_mirror_ops driver_mirror_ops = {
	.range_alloc = range_alloc,
	.range_free = range_free,
	.invalidate_prepare = driver_turn_wait,
	.invalidate_start = driver_invalidate_start,
	.invalidate_finish = driver_invalidate_finish,
};

struct driver_range *driver_range_walk(struct gpusvm_driver *driver, u64 *cursor, u64 end)
{
	struct gpusvm_mirror *mirror = &driver->mirror;
	struct gpusvm_range *range;

	gpusvm_notifier_lock(mirror);
	range = *cursor < end ? gpusvm_range_find(mirror, *cursor, end) : NULL;
	if (range)
		gpusvm_range_get(range); /* beside the tree's */
	gpusvm_notifier_unlock(mirror);
	if (!range)
		return NULL;
	*cursor = gpusvm_range_end(range);
	return driver_range_of(range);
}

struct driver_pages *driver_range_pages(struct driver_range *range, struct driver_device *dd)
{
	struct driver_pages *dp;

	driver_for_each_pages(dp, range)
		if (dp->device == dd)
			return dp;
	dp = range->pages ? host_alloc_zeroed(sizeof(*dp)) : &range->first;
	if (!dp)
		return NULL;
	gpusvm_pages_init(&dp->pages, dd);
	dp->device = dd;
	dp->next = range->pages;
	host_store_release(&range->pages, dp);
	return dp;
}

void driver_pages_drop(struct driver_range *range, struct driver_pages *dp)
{
	struct gpusvm_mirror *mirror = range->base.mirror;

	host_write_lock(&mirror->notifier_lock);
	driver_pages_zap(range, dp);
	host_write_unlock(&mirror->notifier_lock);
	/* Also that of an invalidation whose second pass is still to come. */
	driver_flush_wait(range, dp);
	gpusvm_pages_free(mirror, &dp->pages);
}

/* peer NULL: whatever it is. */
static bool is_mapped(struct driver_range *range, struct driver_pages *dp,
		      const struct driver_device *peer)
{
	struct gpusvm_mirror *mirror = range->base.mirror;
	bool held;

	if (!peer)
		return true;
	gpusvm_notifier_lock(mirror);
	held = gpusvm_pages_holds(mirror, &dp->pages, &peer->pagemap);
	gpusvm_notifier_unlock(mirror);
	return held;
}

static void drop(struct driver_device *dd, u64 start, u64 end, const struct driver_device *peer)
{
	struct driver_range *range;
	struct driver_pages *dp;

	while ((range = driver_range_walk(dd->driver, &start, end))) {
		host_mutex_lock(&range->lock);
		driver_for_each_pages(dp, range) if (dp->device == dd && is_mapped(range, dp, peer))
		    driver_pages_drop(range, dp);
		host_mutex_unlock(&range->lock);
		gpusvm_range_put(&range->base);
	}
}

void driver_device_drop(struct driver_device *dd, u64 start, u64 end)
{
	drop(dd, start, end, NULL);
}

void driver_peer_drop(struct driver_device *dd, const struct driver_device *peer)
{
	drop(dd, 0, ~(u64)0, peer);
}
