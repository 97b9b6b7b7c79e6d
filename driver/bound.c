/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bound.c: what applications have bound to a device.
 *
 * For a device that faults, binding is mapping ahead. A device that cannot fault
 * reaches what is bound and nothing else: page table entries are clipped to it.
 * When an invalidation comes, its work is preempted before entries go; a work item
 * (or the next submission, whichever is first) maps all that is bound again, and
 * resumes it. What is not there any more stays unmapped, and the access fails.
 *
 * Each preemption has a ticket. Who rebinds takes note of the last one, and then
 * maps: whatever was cleared before is mapped again when it resumes up to there. A
 * preemption that comes meanwhile has a later ticket, stays, and has the work item
 * run again.
 *
 * So that invalidations without a pause cannot keep work from ever running (law 6), a
 * device whose work is held has its turn: for TURN_RUN after it was resumed, and, where a
 * preemption has overtaken a resumption, for as long as the next mapping takes (TURN_MAP at
 * most), who invalidates what it maps waits first, TURN_WAIT at most. Each wait is bounded,
 * since the mapping may need a lock that the waiter holds, or may be what invalidates.
 *
 * Locking: driver->lock, over the tree of bound intervals and over all mapping
 * for a device that cannot fault, so that entries and tree agree.
 */
#include "driver/private.h"

#define REBIND_AGAIN HOST_MSEC	/* after one that did not map it all */
#define REBIND_FAILURES 1000u	/* in a row; then work goes on, and fails (law 6) */
#define TURN_MAP (20 * HOST_MSEC)
#define TURN_RUN HOST_MSEC
#define TURN_WAIT (2 * HOST_MSEC)
#define TURN_LOOK (50 * HOST_USEC) /* between looks at whose turn it is */

/* ---- Page table entries ---------------------------------------------------- */

/* Maps the part of one run [va, ...) that lies in [start, end), in aligned pieces. */
static void commit_run(struct driver_device *dd, u64 va, struct gpusvm_addr run, u64 start, u64 end,
		       bool write)
{
	u64 base = gpusvm_addr_address(run), stop = va + (HOST_PAGE_SIZE << gpusvm_addr_order(run));
	u64 at = host_max(va, start);

	stop = host_min(stop, end);
	while (at < stop) {
		unsigned order = 0;
		struct gpusvm_addr piece;

		while (order < gpusvm_addr_order(run) &&
		       host_is_aligned(at | (base + (at - va)), HOST_PAGE_SIZE << (order + 1)) &&
		       at + (HOST_PAGE_SIZE << (order + 1)) <= stop)
			order++;
		piece = gpusvm_addr_encode(base + (at - va), gpusvm_addr_proto(run), order,
					   write && gpusvm_addr_write(run));
		piece.word |= run.word & (GPUSVM_ADDR_NO_ATOMICS | GPUSVM_ADDR_EXCLUSIVE);
		dd->ops->vm_map(dd->vm, at, &piece, 1);
		at += HOST_PAGE_SIZE << order;
	}
}

void driver_bound_commit(struct driver_device *dd, struct driver_range *range,
			 struct driver_pages *dp)
{
	u64 start = gpusvm_range_start(&range->base), end = gpusvm_range_end(&range->base);
	struct gpusvm_interval *iv;

	for (iv = gpusvm_interval_find(&dd->bound, start, end); iv && iv->start < end;
	     iv = gpusvm_interval_next(&dd->bound, iv)) {
		struct driver_bound *bound =
			host_container_of(iv, struct driver_bound, interval);
		u64 va = start;
		u32 i;

		for (i = 0; i < dp->pages.n_addrs; i++) {
			commit_run(dd, va, dp->pages.addrs[i], iv->start, iv->end,
				   !bound->read_only);
			va += HOST_PAGE_SIZE << gpusvm_addr_order(dp->pages.addrs[i]);
		}
	}
}

/* ---- The tree --------------------------------------------------------------- */

/* Puts an interval in. Context: driver->lock; nothing there overlaps. */
static int bound_insert(struct driver_device *dd, u64 start, u64 end, bool read_only)
{
	struct driver_bound *bound = host_alloc(sizeof(*bound));

	if (!bound || gpusvm_interval_prepare(&dd->bound)) {
		host_free(bound);
		return -ENOMEM;
	}
	*bound = (struct driver_bound){ .interval = { start, end }, .read_only = read_only };
	gpusvm_interval_insert(&dd->bound, &bound->interval);
	return 0;
}

/* Takes [start, end) out; what reaches over stays. *any: something was there.
 * -ENOMEM: what reached over may have gone, too. Context: driver->lock. */
static int bound_cut(struct driver_device *dd, u64 start, u64 end, bool *any)
{
	struct gpusvm_interval *iv;
	int err = 0;

	while ((iv = gpusvm_interval_find(&dd->bound, start, end))) {
		struct driver_bound *bound = host_container_of(iv, struct driver_bound, interval);
		struct driver_bound old = *bound;

		*any = true;
		gpusvm_interval_remove(&dd->bound, iv);
		host_free(bound);
		if (old.interval.start < start &&
		    bound_insert(dd, old.interval.start, start, old.read_only))
			err = -ENOMEM;
		if (old.interval.end > end &&
		    bound_insert(dd, end, old.interval.end, old.read_only))
			err = -ENOMEM;
	}
	return err;
}

/* Maps all that is bound. 0: it is. -EAGAIN: some of it may be soon. -EFAULT: some is
 * not there. Context: driver->lock. */
static int map_bound(struct driver_device *dd)
{
	struct gpusvm_interval *iv;
	int err, result = 0;

	for (iv = gpusvm_interval_find(&dd->bound, 0, ~(u64)0); iv;
	     iv = gpusvm_interval_next(&dd->bound, iv)) {
		struct driver_want want = {
			.write = !host_container_of(iv, struct driver_bound, interval)->read_only,
			.cause = DRIVER_CAUSE_BIND,
		};

		err = driver_map(dd, iv->start, iv->end, &want);
		if (err == -EBUSY || err == -ENOMEM)
			result = -EAGAIN;
		else if (err && !result)
			result = -EFAULT;
	}
	return result;
}

/* ---- Turns ------------------------------------------------------------------- */

static bool turn_is_on(struct driver_device *dd)
{
	u64 turn = host_read_once(&dd->turn);

	return turn && turn > host_now(); /* most devices never had one */
}

static void turn_begin(struct driver_device *dd, u64 ns)
{
	bool held = dd->ops->vm_held && dd->ops->vm_held(dd->vm);

	host_write_once(&dd->turn, held ? host_now() + ns : 0);
}

/* Is it the turn of a device that maps some of [start, end)? */
static bool turn_of_any(struct gpusvm_mirror *mirror, u64 start, u64 end)
{
	struct gpusvm_range *range;
	struct driver_pages *dp;
	bool found = false;

	gpusvm_notifier_lock(mirror);
	gpusvm_for_each_range(range, mirror, start, end) {
		driver_for_each_pages(dp, driver_range_of(range)) {
			found = found || turn_is_on(dp->device);
		}
	}
	gpusvm_notifier_unlock(mirror);
	return found;
}

static bool turn_of_none(struct gpusvm_driver *driver)
{
	u32 i, n = host_load_acquire(&driver->n_devices);

	for (i = 0; i < n; i++)
		if (turn_is_on(driver->devices[i]))
			return false;
	return true;
}

void driver_turn_wait(struct gpusvm_mirror *mirror, const struct mm_invalidation *inv)
{
	u64 deadline;

	if (turn_of_none(driver_of(mirror)))
		return;
	deadline = host_now() + TURN_WAIT;
	while (turn_of_any(mirror, inv->start, inv->end) && host_now() < deadline)
		host_sleep(TURN_LOOK);
}

/* ---- Mapping again ------------------------------------------------------------ */

static void rebind_locked(struct driver_device *dd)
{
	u64 ticket = host_load_acquire(&dd->preempt_ticket);
	int err;

	if (!host_xchg(&dd->rebind, 0))
		return;
	if (dd->overtaken)
		turn_begin(dd, TURN_MAP);
	err = map_bound(dd);
	dd->overtaken = err == -EAGAIN || host_load_acquire(&dd->preempt_ticket) != ticket;
	if (err == -EAGAIN && ++dd->rebind_failures < REBIND_FAILURES) {
		host_store_seq(&dd->rebind, 1);
		host_work_queue_after(&dd->rebind_work, REBIND_AGAIN);
		return;
	}
	dd->rebind_failures = 0;
	/* Access to what is not there fails. It may be there for the next work. */
	if (err)
		host_store_seq(&dd->rebind, 1);
	turn_begin(dd, dd->overtaken ? 0 : TURN_RUN);
	if (ticket)
		dd->ops->vm_resume(dd->vm, ticket);
}

void driver_rebind(struct driver_device *dd)
{
	if (!driver_no_fault(dd) || !host_load_acquire(&dd->rebind))
		return;
	host_mutex_lock(&dd->driver->lock);
	rebind_locked(dd);
	host_mutex_unlock(&dd->driver->lock);
}

void driver_preempt(struct driver_device *dd)
{
	host_store_release(&dd->preempt_ticket, dd->ops->vm_preempt(dd->vm));
}

static void rebind_work(struct host_work *work)
{
	struct driver_device *dd = host_container_of(work, struct driver_device, rebind_work);

	/* One that was removed has been stopped: nobody waits. */
	if (!driver_removed(dd))
		driver_rebind(dd);
}

void driver_rebind_init(struct driver_device *dd)
{
	host_work_init(&dd->rebind_work, rebind_work);
}

void driver_rebind_fini(struct driver_device *dd)
{
	host_work_cancel(&dd->rebind_work);
}

/* What is told without touching anything. */
static int bind_check(struct mm *mm, u64 start, u64 end, bool read_only)
{
	while (start < end) {
		struct mm_vma vma;
		int err = mm_vma_find(mm, start, end, &vma);

		if (err == -ENOENT || (!err && vma.start > start))
			return -EFAULT; /* a hole */
		if (err)
			return err;
		if (!(vma.flags & (read_only ? MM_VMA_READ : MM_VMA_WRITE)))
			return vma.flags & MM_VMA_READ ? -EPERM : -EFAULT;
		start = vma.end;
	}
	return 0;
}

/* What both calls begin with. */
static int round_outward(struct driver_device *dd, u64 *start, u64 *end)
{
	*start = host_align_down(*start, HOST_PAGE_SIZE);
	*end = host_align_up(*end, HOST_PAGE_SIZE);
	if (*start >= *end)
		return -EINVAL;
	return driver_removed(dd) ? -ENODEV : 0;
}

int gpusvm_driver_bind(struct gpusvm_driver_queue *queue, u64 start, u64 end, bool read_only)
{
	struct driver_device *dd = queue->device;
	struct gpusvm_driver *driver = dd->driver;
	struct driver_want want = {
		.write = !read_only,
		.migrate = !driver_no_fault(dd),
		.cause = DRIVER_CAUSE_BIND,
	};
	bool any = false;
	int err;

	err = round_outward(dd, &start, &end);
	if (err)
		return err;
	driver_garbage_collect(driver);
	err = mm_sync(driver->mm, start, end);
	if (!err)
		err = bind_check(driver->mm, start, end, read_only);
	if (err)
		return err;

	host_mutex_lock(&driver->lock);
	err = bound_cut(dd, start, end, &any);
	if (!err)
		err = bound_insert(dd, start, end, read_only);
	/* What could be written before may be known to the device as such. Neighbours come
	 * back by the work item, or with the next work. */
	if (!err && any && read_only && driver_no_fault(dd))
		driver_device_drop(dd, start, end);
	if (!err)
		err = driver_map(dd, start, end, &want);
	if (err) { /* it changed meanwhile, or no memory: none of it is bound */
		bound_cut(dd, start, end, &any);
		if (driver_no_fault(dd)) {
			driver_device_drop(dd, start, end);
			host_store_seq(&dd->rebind, 1);
		}
	}
	host_mutex_unlock(&driver->lock);
	return err;
}

int gpusvm_driver_unbind(struct gpusvm_driver_queue *queue, u64 start, u64 end)
{
	struct driver_device *dd = queue->device;
	bool any = false;
	int err;

	err = round_outward(dd, &start, &end);
	if (err)
		return err;
	host_mutex_lock(&dd->driver->lock);
	err = bound_cut(dd, start, end, &any);
	/* A device that can fault may go on; another must not. Neighbours in the
	 * same ranges, which are still bound, come back. */
	if (any && driver_no_fault(dd)) {
		driver_device_drop(dd, start, end);
		host_store_seq(&dd->rebind, 1);
		rebind_locked(dd);
	}
	host_mutex_unlock(&dd->driver->lock);
	return err ? err : any ? 0 : -ENOENT;
}

void driver_bound_free(struct driver_device *dd)
{
	struct gpusvm_interval *iv;

	host_mutex_lock(&dd->driver->lock);
	while ((iv = gpusvm_interval_find(&dd->bound, 0, ~(u64)0))) {
		gpusvm_interval_remove(&dd->bound, iv);
		host_free(host_container_of(iv, struct driver_bound, interval));
	}
	host_mutex_unlock(&dd->driver->lock);
}
