/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * place.c: where pages should be: asks the arbiter (policy/arbiter.h), and does what
 * it says; and keeps devices mapped that ACCESSED_BY names.
 *
 * Moving is best effort: what does not go is mapped where it is. What must be exclusive
 * and stays in system memory is taken there (mm_make_exclusive), and an atomic that would
 * not be exact is refused.
 */
#include "driver/private.h"

#define REMAP_DELAY (HOST_MSEC / 5) /* after entries went, for what moves to have moved */
#define REMAP_TRIES 16u		    /* in half a second or so */

/* ---- What the arbiter asks ------------------------------------------------------ */

/* Megabytes a second at which 2M would come over the link, latency included. */
unsigned driver_link_weight(const struct driver_device *from, const struct driver_device *to)
{
	struct gpusvm_interconnect *links = &from->driver->links;
	unsigned a = (unsigned)from->index, b = (unsigned)to->index;
	u64 cost;

	if (from == to)
		return ~0u;
	if (!gpusvm_interconnect_may_map(links, a, b))
		return 0;
	cost = gpusvm_interconnect_cost(links, a, b, HOST_HUGE_SIZE);
	if (cost == HOST_FOREVER) /* it went since it was asked for */
		return 0;
	return (unsigned)host_min(HOST_HUGE_SIZE * 1000 / (cost + 1) + 1, (u64)~0u - 1);
}

struct links {
	struct gpusvm_driver *driver;
	u64 devices; /* whose alive is held */
};

static struct driver_device *linked_device(const struct links *links, int device)
{
	bool there =
	    device >= 0 && device < (int)GPUSVM_DRIVER_DEVICES && links->devices >> device & 1;

	return there ? links->driver->devices[device] : NULL;
}

static unsigned links_weight(const void *arg, int from, int to)
{
	struct driver_device *a = linked_device(arg, from), *b = linked_device(arg, to);

	return a && b ? driver_link_weight(a, b) : 0;
}

static int links_has_memory(const void *arg, int device)
{
	struct driver_device *dd = linked_device(arg, device);

	return dd && dd->has_memory && !driver_removed(dd);
}

static struct arbiter_answer ask(struct driver_device *dd, const struct driver_want *want,
				 const struct attributes *values, bool throttled)
{
	struct arbiter_question question = {
	    .preferred = values->preferred,
	    .access_none = values->access_none,
	    .no_migrate = values->no_migrate,
	    .accessed_by = values->accessed_by >> dd->index & 1,
	    .atomic = values->atomic,
	    .device = dd->index,
	    .access = want->atomic  ? GPUSVM_ACCESS_ATOMIC
		      : want->write ? GPUSVM_ACCESS_WRITE
				    : GPUSVM_ACCESS_READ,
	    .system_atomics = dd->device->caps.system_atomics,
	    .throttled = throttled,
	};
	struct links of = {dd->driver, driver_devices_get(dd->driver)};
	struct arbiter_links links = {
	    .weight = links_weight,
	    .has_memory = links_has_memory,
	    .arg = &of,
	};
	struct arbiter_answer answer = arbiter(&question, &links);

	driver_devices_put(dd->driver, of.devices);
	return answer;
}

int driver_place_allowed(const struct driver_advised *advised)
{
	return advised->values.access_none ? -EFAULT : 0;
}

/* ---- Bouncing ------------------------------------------------------------------- */

/* Pages that were taken away soon after they came, again and again, stay where they
 * are for a while. */
static bool throttled(struct driver_device *dd, struct driver_range *range,
		      const struct driver_want *want, u64 now)
{
	struct gpusvm_driver *driver = dd->driver;
	u64 start = gpusvm_range_start(&range->base), end = gpusvm_range_end(&range->base);
	enum gpusvm_driver_event_type type = DRIVER_EVENT_THROTTLE;
	u64 *counter = &dd->stats.throttles;

	range->history.left = host_read_once(&range->left);
	switch (placement_fault(&range->history, now, placement_lapse(driver->options.timeslice))) {
	case PLACEMENT_MIGRATE:
		return false;
	case PLACEMENT_STAY:
		return true;
	case PLACEMENT_PIN:
		counter = &dd->stats.pins;
		type = DRIVER_EVENT_PIN;
		break;
	case PLACEMENT_THROTTLE:
		break;
	}
	driver_count(counter, 1);
	driver_event(driver, type, want->cause, dd->index, 0, now, start, end - start, DRIVER_NONE,
		     DRIVER_NONE);
	return true;
}

/* ---- Moving --------------------------------------------------------------------- */

bool driver_granule(const struct driver_advised *advised, u64 address, u64 *start, u64 *end)
{
	u64 size = (u64)advised->values.granularity << HOST_PAGE_SHIFT;

	if (!size)
		return false;
	*start = host_align_down(address, size);
	*end = *start + size;
	return true;
}

static int recall(struct gpusvm_driver *driver, u64 start, u64 end,
		  struct gpusvm_migrate_result *sum)
{
	struct gpusvm_migrate_result one;
	int err = 0;

	for (u64 stop; !err && start < end; start = stop) {
		stop = host_min(end, host_align_down(start, HOST_HUGE_SIZE) + HOST_HUGE_SIZE);
		err = gpusvm_pagemap_recall(driver->mm, start, stop, NULL, NULL, &one);
		if (!err)
			driver_result_add(sum, &one);
	}
	return err;
}

/* What moves with a range: all of its granule that is advised alike. What is advised
 * was looked up for 2M: of a larger granule, what is beyond is asked for here. */
static void extent(struct driver_device *dd, struct driver_range *range,
		   const struct driver_advised *advised, u64 *start, u64 *end)
{
	struct driver_advised all;

	*start = gpusvm_range_start(&range->base);
	*end = gpusvm_range_end(&range->base);
	if (advised->values.granularity <= driver_npages(*start, *end))
		return;
	(void)driver_granule(advised, *start, start, end);
	driver_advised(dd->driver, gpusvm_range_start(&range->base), *start, *end, &all);
	*start = all.start;
	*end = all.end;
}

static void move_to(struct driver_device *dd, struct driver_range *range,
		    const struct driver_want *want, const struct driver_advised *advised,
		    const struct arbiter_answer *answer, struct gpusvm_migrate_result *moved)
{
	struct gpusvm_driver *driver = dd->driver;
	u64 start, end, now = host_now();
	struct driver_device *to;

	extent(dd, range, advised, &start, &end);
	if (answer->where == ARBITER_SYSTEM) {
		(void)recall(driver, start, end, moved);
		return;
	}
	if (driver_device_get(driver, answer->where, &to))
		return;
	/* Without advice the first to touch a page keeps it, where others can map it. */
	(void)driver_populate(to, driver->mm, start, end, driver->options.timeslice, want->cause,
			      answer->rule == 8 && !answer->exclusive, moved);
	driver_device_put(to);
	if (moved->stayed)
		driver_event(driver, DRIVER_EVENT_MAP_REMOTE, want->cause, dd->index, 0, now, start,
			     moved->stayed << HOST_PAGE_SHIFT, DRIVER_NONE, DRIVER_NONE);
}

int driver_place_refused(struct driver_device *dd, struct driver_range *range,
			 const struct driver_want *want)
{
	if (want->exclusive)
		return -EOPNOTSUPP;
	if (gpusvm_range_end(&range->base) - gpusvm_range_start(&range->base) > HOST_PAGE_SIZE)
		return -E2BIG;
	/* Exact all the same, if the device does them in system memory as the CPU does. */
	return dd->device->caps.system_atomics ? 0 : -EPERM;
}

int driver_place(struct driver_device *dd, struct driver_range *range,
		 const struct driver_want *want, const struct driver_advised *advised,
		 struct driver_place_result *ret)
{
	struct arbiter_answer answer = ask(dd, want, &advised->values, false);
	u64 now = host_now(), lapse = placement_lapse(dd->driver->options.timeslice);
	struct gpusvm_migrate_result moved = {0};
	bool movable = range->base.migratable && (want->migrate || answer.exclusive);

	if (answer.error)
		return answer.error;
	if (answer.rule == 8 && answer.action == ARBITER_MOVE && movable &&
	    throttled(dd, range, want, now))
		answer = ask(dd, want, &advised->values, true);
	ret->atomics = answer.atomics;
	/* A device that cannot fault cannot ask for what it is to have for itself. What it does
	 * in system memory is exact all the same, if it does that as the CPU does. */
	if (answer.atomics == ARBITER_ATOMICS_DEVICE && driver_no_fault(dd) &&
	    dd->device->caps.system_atomics)
		ret->atomics = ARBITER_ATOMICS_ALL;
	if (answer.action == ARBITER_MOVE && movable) {
		move_to(dd, range, want, advised, &answer, &moved);
		range->history.left = host_read_once(&range->left);
		if (answer.rule == 8)
			placement_result(&range->history, now, host_now(), lapse,
					 moved.moved + moved.already, moved.stayed);
	}
	/* What did not become the device's own by a move, is taken where it is. */
	ret->take = want->exclusive || answer.exclusive;
	if (ret->take)
		host_store_release(&dd->driver->taken, 1);
	return 0;
}

/* ---- Kept mapped ------------------------------------------------------------------ */

static void map_accessed_piece(struct gpusvm_driver *driver, struct driver_device *except,
			       u64 start, u64 end)
{
	struct driver_want want = {.in_place = true, .cause = DRIVER_CAUSE_ADVICE};
	u64 devices = driver_devices_get(driver), left;
	struct driver_advised advised;

	for (u64 stop; start < end; start = stop) {
		driver_advised(driver, start, start, end, &advised);
		stop = advised.end;
		for (left = advised.values.accessed_by & devices; left; left &= left - 1) {
			struct driver_device *dd = driver->devices[__builtin_ctzll(left)];

			if (dd != except && !driver_no_fault(dd))
				(void)driver_map(dd, start, stop, &want);
		}
	}
	driver_devices_put(driver, devices);
}

void driver_map_accessed(struct driver_device *except, u64 start, u64 end,
			 struct gpusvm_driver *driver)
{
	for (u64 stop; start < end; start = stop) {
		stop = host_min(end, host_align_down(start, HOST_HUGE_SIZE) + HOST_HUGE_SIZE);
		map_accessed_piece(driver, except, start, stop);
	}
}

/* For the list, which is like driver_garbage_add's. again: it was tried, and is to be so after
 * ever longer pauses, REMAP_TRIES times at most. */
static void remap_push(struct gpusvm_driver *driver, struct driver_range *range, bool again)
{
	bool first = false;
	u32 tries;

	host_mutex_lock(&driver->garbage_lock);
	range->remap_tries = again ? range->remap_tries + 1 : 0;
	tries = range->remap_tries;
	if (!range->in_remap && tries <= REMAP_TRIES) {
		gpusvm_range_get(&range->base); /* beside the tree's */
		first = !driver->remap;
		range->in_remap = 1;
		range->remap_next = driver->remap;
		driver->remap = range;
	}
	host_mutex_unlock(&driver->garbage_lock);
	if (first)
		host_work_queue_after(&driver->remap_work, REMAP_DELAY << host_min(tries, 8u));
}

void driver_remap_add(struct gpusvm_driver *driver, struct driver_range *range)
{
	remap_push(driver, range, false);
}

void driver_remap_again(struct gpusvm_driver *driver, struct driver_range *range)
{
	remap_push(driver, range, true);
}

/* The first of *list, which is the whole list where it is NULL; the range may be added anew. */
static struct driver_range *remap_pop(struct gpusvm_driver *driver, struct driver_range **list)
{
	struct driver_range *range;

	host_mutex_lock(&driver->garbage_lock);
	if (!*list) {
		*list = driver->remap;
		driver->remap = NULL;
	}
	range = *list;
	if (range) {
		*list = range->remap_next;
		range->in_remap = 0;
	}
	host_mutex_unlock(&driver->garbage_lock);
	return range;
}

/* What is added meanwhile queues it again. */
static void remap_work(struct host_work *work)
{
	struct gpusvm_driver *driver = host_container_of(work, struct gpusvm_driver, remap_work);
	struct driver_range *list = NULL, *range;

	do {
		range = remap_pop(driver, &list);
		if (!range)
			break;
		driver_map_accessed(NULL, gpusvm_range_start(&range->base),
				    gpusvm_range_end(&range->base), driver);
		gpusvm_range_put(&range->base);
	} while (list);
}

void driver_remap_init(struct gpusvm_driver *driver)
{
	host_work_init(&driver->remap_work, remap_work);
}

void driver_remap_fini(struct gpusvm_driver *driver)
{
	struct driver_range *list = NULL, *range;

	host_work_cancel(&driver->remap_work);
	while ((range = remap_pop(driver, &list)))
		gpusvm_range_put(&range->base);
}
