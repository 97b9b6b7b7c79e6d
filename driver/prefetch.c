/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * prefetch.c: explicit moves, and where pages are.
 *
 * A prefetch to a device moves, piece by piece, and maps each piece at once, so that no
 * device fault follows. It has no locks of its own: what it meets (faults on
 * either side, evictions, unmapping) it meets as any of these meet each other.
 */
#include "driver/private.h"

int driver_count_stayed(struct mm *mm, u64 start, u64 end, u32 reason,
			struct gpusvm_migrate_result *result)
{
	while (start < end) {
		struct mm_vma vma;
		u64 stop;
		int err = mm_vma_find(mm, start, end, &vma);

		if (err && err != -ENOENT)
			return err;
		if (err) {
			result->holes += driver_npages(start, end);
			return 0;
		}
		vma.start = host_max(vma.start, start);
		stop = host_min(vma.end, end);
		result->holes += driver_npages(start, vma.start);
		result->stayed += driver_npages(vma.start, stop);
		result->stayed_reason |= reason;
		start = stop;
	}
	return 0;
}

/* ---- Prefetch ------------------------------------------------------------------ */

/* A device that cannot fault has only what is bound, and that under driver->lock;
 * moving it is all that is asked here. */
static int map_piece(struct driver_device *dd, u64 start, u64 end)
{
	struct driver_want want = { .cause = DRIVER_CAUSE_PREFETCH };
	int err;

	if (driver_no_fault(dd))
		return 0;
	err = driver_map(dd, start, end, &want);
	/* Best effort: what could not be mapped will fault. */
	return err == -ENODEV ? err : 0;
}

static int piece_to_device(struct driver_device *dd, u64 start, u64 stop,
			   struct gpusvm_migrate_result *result)
{
	int err = driver_populate(dd, dd->driver->mm, start, stop, dd->driver->options.timeslice,
				  DRIVER_CAUSE_PREFETCH, false, result);

	if (err == -ENOSPC) /* counted as stayed */
		err = 0;
	return err ? err : map_piece(dd, start, stop);
}

static int piece_home(struct gpusvm_driver *driver, u64 start, u64 stop,
		      struct gpusvm_migrate_result *result)
{
	struct gpusvm_migrate_result one;
	int err = gpusvm_pagemap_recall(driver->mm, start, stop, NULL, NULL, &one);

	driver_result_add(result, &one);
	return err;
}

/* Counts the pages of [start, stop) which stay where they are: as already
 * there, or as ones that may not move. where: where they were to go, or DRIVER_NONE:
 * nowhere. */
static int piece_stays(struct gpusvm_driver *driver, int where, u64 start, u64 stop,
		       struct gpusvm_migrate_result *result)
{
	u64 n = driver_npages(start, stop), on_devices = 0, on_where = 0, here;
	const void **owners = host_alloc(n * sizeof(*owners));
	struct gpusvm_migrate_result one = { 0 };
	int err = owners ? 0 : -ENOMEM;

	if (!err) {
		mm_page_owners(driver->mm, start, stop, owners);
		err = driver_count_stayed(driver->mm, start, stop, MM_STAYED_NOT_MIGRATABLE, &one);
	}
	for (u64 i = 0; !err && i < n; i++) {
		struct driver_device *dd = driver_owner_device(owners[i]);

		on_devices += owners[i] != NULL;
		on_where += dd && dd->index == where;
	}
	here = where == DRIVER_NONE   ? one.stayed :
	       where == DRIVER_SYSTEM ? one.stayed - host_min(one.stayed, on_devices) :
					host_min(one.stayed, on_where);
	one.already = here;
	one.stayed -= here;
	driver_result_add(result, &one);
	host_free(owners);
	return err;
}

/* A part of a piece that is advised alike. */
static int part(struct gpusvm_driver *driver, struct driver_device *dd, int where, u64 start,
		u64 stop, const struct attributes *values, struct gpusvm_migrate_result *result)
{
	struct driver_device *preferred = NULL;
	int err;

	if (where == DRIVER_PREFERRED) {
		where = values->preferred;
		/* A device that is gone is no advice, as in the arbiter. */
		if (where >= 0 && driver_device_get(driver, where, &preferred))
			where = DRIVER_NONE;
		dd = preferred;
	}
	if (values->no_migrate || where == DRIVER_NONE || where == DRIVER_FAULTING)
		err = piece_stays(driver, where == DRIVER_FAULTING ? DRIVER_NONE : where, start,
				  stop, result);
	else if (dd)
		err = piece_to_device(dd, start, stop, result);
	else
		err = piece_home(driver, start, stop, result);
	if (preferred)
		driver_device_put(preferred);
	return err;
}

/* At most 2M, or a stride. */
static int piece(struct gpusvm_driver *driver, struct driver_device *dd, int where, u64 start,
		 u64 stop, struct gpusvm_migrate_result *result)
{
	struct driver_advised advised;
	u64 accessed_by = 0, first = start;
	int err = 0;

	for (; !err && start < stop; start = advised.end) {
		driver_advised(driver, start, start, stop, &advised);
		accessed_by |= advised.values.accessed_by;
		err = part(driver, dd, where, start, advised.end, &advised.values, result);
	}
	if (!err && accessed_by)
		driver_map_accessed(dd, first, stop, driver);
	return err;
}

/* Pieces, of 2M, have nothing to do with each other. Where there are enough of
 * them, work of the pool takes some: while one thread copies, the other has the
 * memory manager move pages. Pieces are given out by next; each thread counts in
 * a result of its own; the caller waits for the work. Where nothing is copied there is
 * nothing to overlap: two threads that move pages only interrupt each other; one goes on
 * in larger strides, and asks less often what is mapped there. */
#define PREFETCH_SHARED (4 * HOST_HUGE_SIZE)
#define PREFETCH_STRIDE (MM_MOVE_HUGE_MAX * HOST_HUGE_SIZE)

struct prefetch {
	struct gpusvm_driver *driver;
	int where;
	struct driver_device *dd; /* of where, or NULL */
	u64 next, end;		  /* next: atomic */
	u64 stride;		  /* a piece is so long, from the 2M on that it begins in */
	int err;		  /* the first; atomic */
	struct host_work work;
	struct gpusvm_migrate_result by_work;
};

static bool next_piece(struct prefetch *p, u64 *start, u64 *stop)
{
	u64 next = host_read_once(&p->next);

	do {
		if (next >= p->end || host_read_once(&p->err))
			return false;
		*start = next;
		*stop = host_min(p->end, host_align_down(next, HOST_HUGE_SIZE) + p->stride);
	} while (!host_cas(&p->next, &next, *stop));
	return true;
}

/* Passes over whole pieces of a hole, however large: what is asked for may be. */
static void skip_hole(struct prefetch *p, struct gpusvm_migrate_result *result)
{
	u64 next = host_read_once(&p->next), to;

	do {
		struct mm_vma vma;
		int err;

		if (next >= p->end)
			return;
		err = mm_vma_find(p->driver->mm, next, p->end, &vma);
		if (err && err != -ENOENT)
			return;
		to = err ? p->end : host_align_down(vma.start, HOST_HUGE_SIZE);
		if (to <= next)
			return;
	} while (!host_cas(&p->next, &next, to));
	result->holes += driver_npages(next, to);
}

static void prefetch_pieces(struct prefetch *p, struct gpusvm_migrate_result *result)
{
	u64 start, stop;

	while (next_piece(p, &start, &stop)) {
		u64 holes = result->holes;
		int none = 0, err = piece(p->driver, p->dd, p->where, start, stop, result);

		if (err)
			(void)host_cas(&p->err, &none, err);
		else if (result->holes - holes == driver_npages(start, stop))
			skip_hole(p, result);
	}
}

static void prefetch_work(struct host_work *work)
{
	struct prefetch *p = host_container_of(work, struct prefetch, work);

	prefetch_pieces(p, &p->by_work);
}

static int prefetch_all(struct gpusvm_driver *driver, struct driver_device *dd, int where,
			u64 start, u64 end, struct gpusvm_migrate_result *result)
{
	struct prefetch p = {
		.driver = driver,
		.where = where,
		.dd = dd,
		.next = start,
		.end = end,
	};
	bool copies = !(dd && dd->pagemap.memory);
	bool shared = end - start >= PREFETCH_SHARED && copies;

	p.stride = copies ? HOST_HUGE_SIZE : PREFETCH_STRIDE;
	host_work_init(&p.work, prefetch_work);
	if (shared)
		host_work_queue(&p.work);
	prefetch_pieces(&p, result);
	if (shared)
		host_work_cancel(&p.work);
	driver_result_add(result, &p.by_work);
	return p.err;
}

static int strict_result(const struct gpusvm_migrate_result *result)
{
	if (result->holes || (result->stayed && result->stayed_reason & MM_STAYED_NOT_MIGRATABLE))
		return -ENOENT;
	return result->stayed ? -EBUSY : 0;
}

/* What pages have left is given back by who moved them, not by who allocates next. */
static void drain(struct gpusvm_driver *driver)
{
	u64 devices = driver_devices_get(driver), left;

	for (left = devices; left; left &= left - 1) {
		struct driver_device *dd = driver->devices[__builtin_ctzll(left)];

		if (dd->has_memory)
			driver_memory_drain(dd);
	}
	driver_devices_put(driver, devices);
}

int gpusvm_driver_prefetch(struct gpusvm_driver *driver, u64 start, u64 end, int where, bool strict,
			   struct gpusvm_migrate_result *result)
{
	struct driver_device *dd = NULL;
	int err = 0;

	*result = (struct gpusvm_migrate_result){ 0 };
	if (start > end || !host_is_aligned(start | end, HOST_PAGE_SIZE))
		return -EINVAL;
	if (where >= 0)
		err = driver_device_get(driver, where, &dd);
	if (err)
		return err;
	driver_garbage_collect(driver);
	if (dd && strict && end - start > dd->device->caps.vram_bytes)
		err = -ENOSPC;
	if (!err)
		err = mm_sync(driver->mm, start, end);
	if (!err)
		err = prefetch_all(driver, dd, where, start, end, result);
	if (!err && where != DRIVER_PREFERRED && start < end)
		driver_advice_prefetched(driver, start, end, where);
	drain(driver);
	if (dd)
		driver_device_put(dd);
	return err ? err : strict ? strict_result(result) : 0;
}

int gpusvm_driver_evict(struct gpusvm_driver *driver, int device, enum gpusvm_driver_cause cause)
{
	int n = (int)gpusvm_driver_device_count(driver), i, err, result = 0;
	struct driver_device *dd;

	if (device != -1) {
		err = driver_device_get(driver, device, &dd);
		if (err)
			return err;
		err = driver_memory_evict(dd, cause);
		mm_exclusive_end(driver->mm, dd);
		driver_device_put(dd);
		return err;
	}
	for (i = 0; i < n; i++) {
		/* Of one that was removed: what did not go home then. */
		dd = driver->devices[i];
		if (!host_ref_get_unless_zero(&dd->alive))
			continue;
		err = driver_memory_evict(dd, cause);
		mm_exclusive_end(driver->mm, dd);
		driver_device_put(dd);
		if (err)
			result = err;
	}
	return result;
}

/* ---- Residency ------------------------------------------------------------------ */

#define RESIDENCY_BATCH 64u

static u64 mapped_by(struct gpusvm_driver *driver, u64 devices, u64 address)
{
	struct gpusvm_addr addr;
	u64 mask = 0;

	for (; devices; devices &= devices - 1) {
		struct driver_device *dd = driver->devices[__builtin_ctzll(devices)];

		if (dd->ops->vm_query(dd->vm, address, &addr))
			mask |= (u64)1 << dd->index;
	}
	return mask;
}

static int location(const struct mm_page_state *state)
{
	struct driver_device *dd = driver_owner_device(state->owner);

	if (dd)
		return dd->index;
	return state->flags & (MM_STATE_POPULATED | MM_STATE_ZERO) ? DRIVER_SYSTEM : DRIVER_NONE;
}

/* held: whose frames stay known, so that a page of theirs may be looked at. */
static void tell(struct gpusvm_driver *driver, u64 devices, u64 held, u64 address,
		 const struct mm_page_state *state, struct gpusvm_driver_residency *ret)
{
	int where = location(state);

	*ret = (struct gpusvm_driver_residency){
		.flags = state->flags,
		.order = state->order,
		.location = where,
		.mapped_by = mapped_by(driver, devices, address),
	};
	/* In system memory: who took it may have lost its entries, to a change beside it. */
	if (!ret->mapped_by || ret->mapped_by & (ret->mapped_by - 1))
		ret->flags &= ~DRIVER_PAGE_EXCLUSIVE;
	if (where < 0 || ret->mapped_by != (u64)1 << where || !(held >> where & 1))
		return;
	if (driver_exclusive_page(driver->devices[where], state, address))
		ret->flags |= DRIVER_PAGE_EXCLUSIVE;
}

int gpusvm_driver_residency(struct gpusvm_driver *driver, u64 start, u64 n,
			    struct gpusvm_driver_residency *ret)
{
	struct mm_page_state *states = host_alloc(RESIDENCY_BATCH * sizeof(*states));
	u64 devices, held, done, batch, i;

	if (!states)
		return -ENOMEM;
	start = host_align_down(start, HOST_PAGE_SIZE);
	driver_garbage_collect(driver);
	mm_sync(driver->mm, start, start + (n << HOST_PAGE_SHIFT));
	/* Keeps their vms, and the pages that states point to. */
	devices = driver_devices_get(driver);
	held = driver_pagemaps_get(driver, devices);
	for (done = 0; done < n; done += batch) {
		u64 at = start + (done << HOST_PAGE_SHIFT);

		batch = host_min(n - done, (u64)RESIDENCY_BATCH);
		mm_page_states(driver->mm, at, at + (batch << HOST_PAGE_SHIFT), states);
		for (i = 0; i < batch; i++)
			tell(driver, devices, held, at + (i << HOST_PAGE_SHIFT), &states[i],
			     &ret[done + i]);
	}
	driver_pagemaps_put(driver, held);
	driver_devices_put(driver, devices);
	host_free(states);
	return 0;
}
