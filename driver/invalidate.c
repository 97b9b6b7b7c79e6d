/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * invalidate.c: the CPU's mappings change, devices must let go first.
 *
 * Two passes, so that the flushes of N devices and M ranges overlap:
 *   start   (notifier lock held for writing) pages objects become invalid, page
 *           table entries are cleared, flushes begin
 *   finish  (no lock) waits for the flushes, then unmaps addresses
 * After finish no device can reach the interval (law 3). Between the two no
 * commit can come: the notifier's sequence is odd, gpusvm_pages_get waits and
 * gpusvm_pages_valid fails.
 *
 * A range is let go as a whole, also where only a part of it changes: its pages
 * object is valid or not as a whole, and page table entries must not outlive it.
 *
 * What finish needs is in the pages objects, so that nothing is allocated and
 * two invalidations of one range may overlap in time: whoever finishes first
 * waits for the other's flush too. The ticket stays until the next commit, when
 * all flushes are over.
 */
#include "driver/private.h"

static enum gpusvm_driver_cause invalidation_cause(const struct mm_invalidation *inv)
{
	switch (inv->event) {
	case MM_EVENT_UNMAP:
	case MM_EVENT_REMAP:
		return DRIVER_CAUSE_UNMAP;
	case MM_EVENT_CLEAR:
		return DRIVER_CAUSE_CLEAR;
	case MM_EVENT_PROTECT:
		return DRIVER_CAUSE_PROTECT;
	case MM_EVENT_RELEASE:
		return DRIVER_CAUSE_CLOSE;
	case MM_EVENT_MIGRATE:
	case MM_EVENT_EXCLUSIVE:
		break;
	}
	return DRIVER_CAUSE_NONE;
}

bool driver_pages_zap(struct driver_range *range, struct driver_pages *dp)
{
	struct gpusvm_mirror *mirror = range->base.mirror;
	u64 start = gpusvm_range_start(&range->base);
	u64 length = gpusvm_range_end(&range->base) - start;
	struct driver_device *dd = dp->device;

	gpusvm_pages_invalidate(mirror, &dp->pages);
	if (!host_read_once(&dp->mapped))
		return false;
	host_write_once(&dp->mapped, 0);
	if (driver_no_fault(dd))
		driver_preempt(dd);
	dd->ops->vm_unmap(dd->vm, start, length);
	dp->ticket = dd->ops->vm_flush_begin(dd->vm, start, length);
	host_write_once(&dp->flushing, 1);
	driver_count(&dd->stats.flushes, 1);
	if (driver_no_fault(dd)) {
		host_store_seq(&dd->rebind, 1);
		host_work_queue(&dd->rebind_work);
	}
	return true;
}

/* One range, first pass. */
static void range_start(struct driver_range *range, const struct mm_invalidation *inv)
{
	struct driver_pages *dp;
	bool any = false;

	/* The range itself first: a pages object may join the list meanwhile. */
	if (mm_event_unmaps(inv->event))
		gpusvm_range_set_unmapped(&range->base, NULL, 0, inv);
	driver_for_each_pages(dp, range) {
		/* Pages leave the device: policy wants to know when. */
		if (inv->event == MM_EVENT_MIGRATE && host_read_once(&dp->mapped) &&
		    (dp->pages.flags & GPUSVM_PAGES_DEVMEM))
			host_write_once(&range->left, host_now());
		if (driver_pages_zap(range, dp)) {
			driver_count(&dp->device->stats.invalidations, 1);
			any = true;
		}
		if (mm_event_unmaps(inv->event)) {
			struct gpusvm_pages *pages = &dp->pages;

			gpusvm_range_set_unmapped(&range->base, &pages, 1, inv);
		}
	}
	/* Whoever had it: with what a device had for itself, others are shut out no more. */
	if (any && host_read_once(&range->accessed_by))
		driver_remap_add(driver_of(range->base.mirror), range);
}

void driver_invalidate_start(struct gpusvm_mirror *mirror, struct gpusvm_notifier *notifier,
			     const struct mm_invalidation *inv)
{
	struct gpusvm_driver *driver = driver_of(mirror);
	struct gpusvm_range *base;

	gpusvm_for_each_range(base, mirror, inv->start, inv->end) {
		range_start(driver_range_of(base), inv);
		/* Other protections may mean other bounds and permissions: the next
		 * fault looks at the mapping again. */
		if (mm_event_unmaps(inv->event) || inv->event == MM_EVENT_PROTECT)
			driver_garbage_add(driver, driver_range_of(base));
	}
}

/* A flush to wait for; holds the device's alive. */
struct flush {
	struct driver_device *dd;
	u64 start, length, ticket;
};

static bool flush_get(struct driver_range *range, struct driver_pages *dp, struct flush *ret)
{
	if (!host_read_once(&dp->flushing) || !host_ref_get_unless_zero(&dp->device->alive))
		return false;
	ret->dd = dp->device;
	ret->start = gpusvm_range_start(&range->base);
	ret->length = gpusvm_range_end(&range->base) - ret->start;
	ret->ticket = dp->ticket;
	return true;
}

static void flush_finish(struct flush *flush)
{
	struct driver_device *dd = flush->dd;

	dd->ops->vm_flush_wait(dd->vm, flush->start, flush->length, flush->ticket);
	driver_device_put(dd);
}

void driver_flush_wait(struct driver_range *range, struct driver_pages *dp)
{
	struct flush flush;
	bool found;

	gpusvm_notifier_lock(range->base.mirror);
	found = flush_get(range, dp, &flush);
	gpusvm_notifier_unlock(range->base.mirror);
	if (found)
		flush_finish(&flush);
}

/* Where finish has come to: the skip'th pages object of the range at address.
 * One that is put in the list meanwhile makes it look at another twice. */
struct flush_cursor {
	u64 address;
	unsigned skip;
};

static bool flush_next(struct gpusvm_mirror *mirror, struct flush_cursor *at, u64 end,
		       struct flush *ret)
{
	struct gpusvm_range *base;
	bool found = false;

	gpusvm_notifier_lock(mirror);
	gpusvm_for_each_range(base, mirror, at->address, end) {
		struct driver_range *range = driver_range_of(base);
		struct driver_pages *dp;
		unsigned i = 0;

		driver_for_each_pages(dp, range) {
			if (i++ < at->skip)
				continue;
			at->skip = i;
			found = flush_get(range, dp, ret);
			if (found)
				goto out;
		}
		at->address = gpusvm_range_end(base);
		at->skip = 0;
		if (at->address >= end)
			break;
	}
out:
	gpusvm_notifier_unlock(mirror);
	return found;
}

/* True when addresses were given back. Notifier lock held for writing. */
static bool range_finish(struct gpusvm_mirror *mirror, struct driver_range *range)
{
	struct driver_pages *dp;
	bool any = false;

	driver_for_each_pages(dp, range) {
		u32 flags = dp->pages.flags;

		if (!(flags & GPUSVM_PAGES_MAPPED) || (flags & GPUSVM_PAGES_VALID))
			continue;
		gpusvm_pages_unmap(mirror, &dp->pages, true);
		any = true;
	}
	return any;
}

void driver_invalidate_finish(struct gpusvm_mirror *mirror, struct gpusvm_notifier *notifier,
			      const struct mm_invalidation *inv)
{
	struct gpusvm_driver *driver = driver_of(mirror);
	struct flush_cursor at = { .address = inv->start };
	struct gpusvm_range *base;
	u64 started = host_now();
	bool any = false;
	struct flush flush;

	while (flush_next(mirror, &at, inv->end, &flush))
		flush_finish(&flush);

	host_write_lock(&mirror->notifier_lock);
	gpusvm_for_each_range(base, mirror, inv->start, inv->end)
		any |= range_finish(mirror, driver_range_of(base));
	host_write_unlock(&mirror->notifier_lock);
	if (any)
		driver_event(driver, DRIVER_EVENT_INVALIDATE, invalidation_cause(inv), -1, 0,
			     started, inv->start, inv->end - inv->start, -2, -2);
}
