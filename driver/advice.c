/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * advice.c: what was advised: given, asked for, kept true, and what follows.
 *
 * Advice is for addresses, not for ranges: it is kept in a map of its own
 * (attributes.h) and outlives whatever happens to ranges. It belongs to the
 * mapping, though: where that goes it goes too (munmap, mremap), which a
 * notifier of this file over the whole window hears, in order.
 *
 * Given and kept true
 *   Setting looks whether all of an interval is mapped, then changes the map, if
 *   no mapping went in between: the notifier's sequence, asked under the map's
 *   lock, says so, as for any use of what was looked up in mm. An unmapping
 *   edits the map in its first pass, under the same lock.
 *
 * What follows
 *   Whatever is decided by advice (may the device have the page, how large is a
 *   range, where does it go) is decided by a look at one generation of the map,
 *   and void if that is another when page table entries are committed. A change
 *   takes the map's lock, counts the generation up, and then takes down every
 *   range that it overlaps, each under its lock. A commit, which holds the lock of
 *   its range, is either before, and then its range is in the tree and is taken
 *   down; or it sees the new generation. Only a change of what is advised does so:
 *   advice that says what is known already takes nothing down.
 */
#include "driver/private.h"

#define ADVISE_BUDGET HOST_SEC

static struct gpusvm_driver *driver_of_notifier(struct mm_notifier *n)
{
	return host_container_of(n, struct gpusvm_driver, advice.notifier);
}

/* ---- Mappings that go --------------------------------------------------------- */

static int advice_invalidate_start(struct mm_notifier *n, const struct mm_invalidation *inv,
				   u64 seq)
{
	struct gpusvm_driver *driver = driver_of_notifier(n);
	struct driver_advice *advice = &driver->advice;
	bool changed = false, few;

	/* Nothing else touches a mapping. */
	if (!mm_event_unmaps(inv->event) && inv->event != MM_EVENT_RELEASE)
		return 0;
	if (inv->blockable)
		host_write_lock(&advice->lock);
	else if (!host_write_trylock(&advice->lock))
		return -EAGAIN;
	mm_notifier_set_seq(n, seq);
	if (inv->event == MM_EVENT_REMAP)
		changed = attribute_map_move(&advice->map, inv->start, inv->end, inv->to);
	else
		changed = attribute_map_forget(&advice->map, inv->start, inv->end);
	/* What a device has mapped there goes by the mirror's own notifiers. */
	if (changed)
		host_store_release(&advice->generation, advice->generation + 1);
	few = advice->map.n_spare < ATTRIBUTE_RESERVE / 2;
	host_write_unlock(&advice->lock);
	if (few)
		host_work_queue(&advice->refill);
	return 0;
}

static void advice_invalidate_finish(struct mm_notifier *n, const struct mm_invalidation *inv)
{
}

static const struct mm_notifier_ops advice_notifier_ops = {
	.invalidate_start = advice_invalidate_start,
	.invalidate_finish = advice_invalidate_finish,
};

/* Nodes to the map. Holds no lock. */
static int give_nodes(struct driver_advice *advice, u32 n)
{
	struct attribute_node *list = attribute_nodes_alloc(n);

	if (!list)
		return -ENOMEM;
	host_write_lock(&advice->lock);
	attribute_map_give(&advice->map, list);
	host_write_unlock(&advice->lock);
	return 0;
}

static void advice_refill(struct host_work *work)
{
	struct driver_advice *advice = host_container_of(work, struct driver_advice, refill);
	u32 n = host_read_once(&advice->map.n_spare);

	if (n < ATTRIBUTE_RESERVE)
		(void)give_nodes(advice, ATTRIBUTE_RESERVE - n);
}

void driver_advice_init(struct gpusvm_driver *driver)
{
	struct driver_advice *advice = &driver->advice;

	host_rwlock_init(&advice->lock, RANK_DRIVER_ADVICE);
	attribute_map_init(&advice->map);
	host_work_init(&advice->refill, advice_refill);
}

void driver_advice_fini(struct gpusvm_driver *driver)
{
	struct driver_advice *advice = &driver->advice;

	if (advice->watching)
		mm_notifier_remove(&advice->notifier);
	host_work_cancel(&advice->refill);
	attribute_map_fini(&advice->map);
	host_rwlock_destroy(&advice->lock);
}

/* From the first advice on. */
int driver_advice_watch(struct gpusvm_driver *driver)
{
	struct driver_advice *advice = &driver->advice;
	int err = 0;

	if (host_load_acquire(&advice->used))
		return 0;
	host_mutex_lock(&driver->lock);
	if (!advice->watching)
		err = mm_notifier_insert(&advice->notifier, driver->mm, driver->mirror.start,
					 driver->mirror.end, &advice_notifier_ops);
	if (!err) {
		advice->watching = true;
		host_store_release(&advice->used, 1);
	}
	host_mutex_unlock(&driver->lock);
	return err;
}

/* ---- Setting ------------------------------------------------------------------ */

/* One attempt. -EAGAIN: a mapping went meanwhile, or nodes had to be made. */
static int edit_once(struct gpusvm_driver *driver, u64 start, u64 end,
		     const struct attribute_edit *edit, u64 *from, u64 *to)
{
	struct driver_advice *advice = &driver->advice;
	u64 seq = mm_notifier_read_begin(&advice->notifier);
	int err = mm_watch(driver->mm, start, end);
	u32 needed = 0;

	if (err)
		return err;
	host_write_lock(&advice->lock);
	if (mm_notifier_read_retry(&advice->notifier, seq)) {
		err = -EAGAIN;
	} else {
		needed = attribute_map_edit(&advice->map, start, end, edit, from, to);
		if (!needed && *from < *to)
			host_store_release(&advice->generation, advice->generation + 1);
	}
	host_write_unlock(&advice->lock);
	if (needed) {
		err = give_nodes(advice, needed);
		return err ? err : -EAGAIN;
	}
	return err;
}

static int edit(struct gpusvm_driver *driver, u64 start, u64 end, const struct attribute_edit *what,
		u64 *from, u64 *to)
{
	struct gpusvm_retry retry;
	int err = driver_advice_watch(driver);

	if (err)
		return err;
	gpusvm_retry_init(&retry, ADVISE_BUDGET, 0);
	do {
		err = edit_once(driver, start, end, what, from, to);
	} while (err == -EAGAIN && gpusvm_retry_again(&retry));
	return err == -EAGAIN ? -EBUSY : err;
}

/* Ranges that were made by other advice go; the next fault makes new ones. */
static void take_down(struct gpusvm_driver *driver, u64 start, u64 end)
{
	u64 started = host_now(), cursor = start;
	struct driver_range *range;
	struct driver_pages *dp;
	bool any = false;

	while ((range = driver_range_walk(driver, &cursor, end))) {
		driver_for_each_pages(dp, range)
			if (host_read_once(&dp->mapped)) {
				driver_count(&dp->device->stats.invalidations, 1);
				any = true;
			}
		driver_range_retire(range);
		gpusvm_range_put(&range->base);
	}
	if (any)
		driver_event(driver, DRIVER_EVENT_INVALIDATE, DRIVER_CAUSE_ADVICE, -1, 0, started,
			     start, end - start, DRIVER_NONE, DRIVER_NONE);
}

static const enum attribute_edit_type edit_types[] = {
	[GPUSVM_PREFERRED_LOCATION] = ATTRIBUTE_PREFERRED,
	[GPUSVM_ACCESSED_BY] = ATTRIBUTE_ACCESSED_BY,
	[GPUSVM_ACCESS_NONE] = ATTRIBUTE_ACCESS_NONE,
	[GPUSVM_ATOMIC] = ATTRIBUTE_ATOMIC,
	[GPUSVM_NO_MIGRATE] = ATTRIBUTE_NO_MIGRATE,
	[GPUSVM_GRANULARITY] = ATTRIBUTE_GRANULARITY,
	[GPUSVM_RESET] = ATTRIBUTE_RESET,
};

/* -EINVAL, -EOPNOTSUPP. */
static int advice_check(enum gpusvm_advice advice, s64 value, int location)
{
	switch (advice) {
	case GPUSVM_PREFERRED_LOCATION:
		return location >= DRIVER_FAULTING && location < (int)GPUSVM_DRIVER_DEVICES
			       ? 0
			       : -EINVAL;
	case GPUSVM_ACCESSED_BY:
		return location >= 0 && location < (int)GPUSVM_DRIVER_DEVICES ? 0 : -EINVAL;
	case GPUSVM_ATOMIC:
		return value >= GPUSVM_ATOMIC_UNDEFINED && value <= GPUSVM_ATOMIC_CPU ? 0 : -EINVAL;
	case GPUSVM_GRANULARITY:
		return value >= 0 && value <= DRIVER_GRANULARITY_MAX && !(value & (value - 1))
			       ? 0
			       : -EINVAL;
	case GPUSVM_ACCESS_NONE:
	case GPUSVM_NO_MIGRATE:
	case GPUSVM_RESET:
		return 0;
	case GPUSVM_READ_MOSTLY:
		return -EOPNOTSUPP;
	case GPUSVM_LAST_PREFETCH:
		break;
	}
	return -EINVAL;
}

int gpusvm_driver_advise(struct gpusvm_driver *driver, u64 start, u64 end,
			 enum gpusvm_advice advice, s64 value, int location)
{
	struct attribute_edit what = { .value = value };
	u64 from, to;
	int err;

	err = advice_check(advice, value, location);
	if (err)
		return err;
	if (start > end || !host_is_aligned(start | end, HOST_PAGE_SIZE))
		return -EINVAL;
	what.type = edit_types[advice];
	if (advice == GPUSVM_PREFERRED_LOCATION)
		what.value = value ? location : DRIVER_NONE;
	else if (advice == GPUSVM_ACCESSED_BY)
		what.mask = (u64)1 << location;
	if (start == end)
		return 0;
	driver_garbage_collect(driver);
	err = mm_sync(driver->mm, start, end);
	if (!err)
		err = edit(driver, start, end, &what, &from, &to);
	if (err || from == to)
		return err;
	take_down(driver, from, to);
	if (advice == GPUSVM_GRANULARITY || advice == GPUSVM_RESET)
		driver_granule_set(driver, from, to, advice == GPUSVM_RESET ? 0 : (u32)value);
	if (advice == GPUSVM_ACCESSED_BY && value)
		driver_map_accessed(NULL, from, to, driver);
	return 0;
}

/* Is it so everywhere already? Most prefetches repeat earlier ones. */
static bool known_prefetched(struct gpusvm_driver *driver, u64 start, u64 end, int where)
{
	struct driver_advice *advice = &driver->advice;
	struct attributes values;
	bool known = true;

	if (!host_load_acquire(&advice->used))
		return false;
	host_read_lock(&advice->lock);
	while (known && start < end) {
		start = attribute_map_at(&advice->map, start, end, &values);
		known = values.last_prefetch == where;
	}
	host_read_unlock(&advice->lock);
	return known;
}

void driver_advice_prefetched(struct gpusvm_driver *driver, u64 start, u64 end, int where)
{
	struct attribute_edit what = { .type = ATTRIBUTE_LAST_PREFETCH, .value = where };
	u64 from, to;

	if (known_prefetched(driver, start, end, where))
		return;
	while (start < end) {
		struct mm_vma vma;

		if (mm_vma_find(driver->mm, start, end, &vma))
			return;
		start = host_max(start, vma.start);
		vma.end = host_min(vma.end, end);
		/* What was unmapped meanwhile has nothing to remember. */
		(void)edit(driver, start, vma.end, &what, &from, &to);
		start = vma.end;
	}
}

/* ---- Asking ------------------------------------------------------------------- */

void driver_advised(struct gpusvm_driver *driver, u64 address, u64 start, u64 end,
		    struct driver_advised *ret)
{
	struct driver_advice *advice = &driver->advice;

	*ret = (struct driver_advised){ .values = attributes_none, .start = start, .end = end };
	/* Read before used: a change in between makes it stale. */
	ret->generation = host_load_acquire(&advice->generation);
	if (!host_load_acquire(&advice->used))
		return;
	host_read_lock(&advice->lock);
	ret->generation = advice->generation;
	attribute_map_segment(&advice->map, address, &ret->start, &ret->end, &ret->values);
	host_read_unlock(&advice->lock);
}

static s64 value_of(const struct attributes *values, enum gpusvm_advice advice, int location)
{
	switch (advice) {
	case GPUSVM_PREFERRED_LOCATION:
		return values->preferred;
	case GPUSVM_LAST_PREFETCH:
		return values->last_prefetch;
	case GPUSVM_ACCESSED_BY:
		return values->accessed_by >> location & 1;
	case GPUSVM_ACCESS_NONE:
		return values->access_none;
	case GPUSVM_ATOMIC:
		return values->atomic;
	case GPUSVM_NO_MIGRATE:
		return values->no_migrate;
	case GPUSVM_GRANULARITY:
		return values->granularity;
	case GPUSVM_READ_MOSTLY:
	case GPUSVM_RESET:
		break;
	}
	return 0;
}

static s64 fold(struct driver_advice *advice, u64 start, u64 end, enum gpusvm_advice what,
		int location)
{
	struct attributes values;
	bool first = true;
	s64 ret = 0, here;

	host_read_lock(&advice->lock);
	while (start < end) {
		start = attribute_map_at(&advice->map, start, end, &values);
		here = value_of(&values, what, location);
		if (!first && here != ret) {
			ret = DRIVER_VALUE_MIXED;
			break;
		}
		ret = here;
		first = false;
	}
	host_read_unlock(&advice->lock);
	return ret;
}

static int hole_check(struct mm *mm, u64 start, u64 end)
{
	struct mm_vma vma;

	for (; start < end; start = vma.end) {
		int err = mm_vma_find(mm, start, end, &vma);

		if (err || vma.start > start)
			return err ? err : -ENOENT;
	}
	return 0;
}

int gpusvm_driver_advice_get(struct gpusvm_driver *driver, u64 start, u64 end,
			     enum gpusvm_advice advice, s64 *value, int *location)
{
	bool located = advice == GPUSVM_PREFERRED_LOCATION || advice == GPUSVM_LAST_PREFETCH;
	int err;

	if ((unsigned)advice >= GPUSVM_RESET ||
	    (advice == GPUSVM_ACCESSED_BY &&
	     (*location < 0 || *location >= (int)GPUSVM_DRIVER_DEVICES)))
		return -EINVAL;
	err = mm_sync(driver->mm, start, end);
	if (!err)
		err = hole_check(driver->mm, start, end);
	if (err)
		return err;
	*value = located ? DRIVER_NONE : 0;
	if (start < end)
		*value = fold(&driver->advice, start, end, advice, *location);
	if (located) {
		bool mixed = *value == DRIVER_VALUE_MIXED;

		*location = mixed ? DRIVER_MIXED : (int)*value;
		if (!mixed)
			*value = *location != DRIVER_NONE;
	}
	return 0;
}
