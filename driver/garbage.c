/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * garbage.c: ranges whose mapping is gone or has changed. A notifier may not
 * take a range down (that sleeps and takes locks of lower rank), so it queues
 * it; each fault, prefetch and submission takes down what is queued first, and a
 * work item does so when none of these comes.
 *
 * What of a range is still mapped by the CPU keeps its pages, on a device too:
 * only the range goes, the next fault makes smaller ones around what is left.
 *
 * Locking: the list is under driver->garbage_lock, taken with the notifier lock
 * held; each entry holds a reference to its range.
 */
#include "driver/private.h"

static void garbage_work(struct host_work *work)
{
	driver_garbage_collect(host_container_of(work, struct gpusvm_driver, garbage_work));
}

void driver_garbage_init(struct gpusvm_driver *driver)
{
	host_mutex_init(&driver->garbage_lock, RANK_DRIVER_GARBAGE);
	host_work_init(&driver->garbage_work, garbage_work);
}

void driver_garbage_fini(struct gpusvm_driver *driver)
{
	host_mutex_lock(&driver->garbage_lock);
	driver->garbage_closed = true;
	host_mutex_unlock(&driver->garbage_lock);
	host_work_cancel(&driver->garbage_work);
	driver_garbage_collect(driver);
}

void driver_garbage_add(struct gpusvm_driver *driver, struct driver_range *range)
{
	bool first = false;

	host_mutex_lock(&driver->garbage_lock);
	if (!range->in_garbage && !driver->garbage_closed) {
		gpusvm_range_get(&range->base); /* beside the tree's */
		first = !driver->garbage;
		range->in_garbage = 1;
		range->garbage_next = driver->garbage;
		driver->garbage = range;
		host_store_release(&driver->garbage_pending, 1);
	}
	host_mutex_unlock(&driver->garbage_lock);
	if (first)
		host_work_queue(&driver->garbage_work);
}

static struct driver_range *garbage_pop(struct gpusvm_driver *driver)
{
	struct driver_range *range;

	host_mutex_lock(&driver->garbage_lock);
	range = driver->garbage;
	if (range) {
		driver->garbage = range->garbage_next;
		range->in_garbage = 0;
	}
	if (!driver->garbage)
		host_store_release(&driver->garbage_pending, 0);
	host_mutex_unlock(&driver->garbage_lock);
	return range;
}

void driver_garbage_collect(struct gpusvm_driver *driver)
{
	struct driver_range *range;

	while (host_load_acquire(&driver->garbage_pending) && (range = garbage_pop(driver))) {
		driver_range_retire(range);
		gpusvm_range_put(&range->base);
	}
}

void driver_range_retire(struct driver_range *range)
{
	struct driver_pages *dp;

	/* Who waits for the lock finds GPUSVM_RANGE_REMOVED. */
	host_mutex_lock(&range->lock);
	/* All flushes are begun before the first is waited for: they overlap. */
	host_write_lock(&range->base.mirror->notifier_lock);
	driver_for_each_pages(dp, range)
		driver_pages_zap(range, dp);
	host_write_unlock(&range->base.mirror->notifier_lock);
	driver_for_each_pages(dp, range)
		driver_pages_drop(range, dp);
	gpusvm_range_remove(&range->base);
	host_mutex_unlock(&range->lock);
}
