/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fault.c: fault service: one fault from the device's queue to its replay.
 *
 * In reading order from the bottom of the file up to the top: a lane faults and
 * calls driver_fault() on its own thread (no thread hop), which takes the oldest
 * entry of the queue, serves it and answers. Lanes that fault at the same time
 * serve side by side; faults in one range meet at its lock, and the second finds
 * its page mapped. Each call serves one entry, and each entry comes with a
 * call, so that none is left. Calls beyond the device's lanes (a device with one
 * interrupt thread, say) go to worker threads, which empty the queue.
 *
 * To serve is, see serve():
 *	garbage    ranges whose mapping is gone are taken down first
 *	mm_sync    what the process did to its mappings before is applied
 *	stale?     another fault has mapped the page meanwhile: replay
 *	range      found, or made as large as its surroundings allow
 *	bind       migrate, get, commit (bind.c)
 * An attempt that meets a change of the address space is repeated, a bounded
 * number of times for each of three stages (law 6): whole ranges, then ranges of
 * 64K, then one page, both mapped where they are; then the fault is fatal and
 * tells its address. A fatal fault ends its own queue and nothing else.
 *
 * Locking: none held here; a lane that waits for its fault has no access open.
 */
#include "driver/private.h"

struct serve_stage {
	u64 max_chunk;
	u64 budget; /* ns for retries, and for each gpusvm_pages_get */
	u32 tries;
	bool migrate;
};

static const struct serve_stage serve_stages[] = {
	{ .max_chunk = HOST_HUGE_SIZE, .budget = 100 * HOST_MSEC, .tries = 8, .migrate = true },
	{ .max_chunk = HOST_PAGE_SIZE << 4, .budget = 100 * HOST_MSEC, .tries = 8 },
	{ .max_chunk = HOST_PAGE_SIZE, .budget = HOST_SEC, .tries = 64 },
};

/* What comes with a range that was bound: the rest of a granule that ranges cannot
 * have the size of; and the devices that are to have it, too. */
static void serve_around(struct driver_device *dd, u64 address, u64 start, u64 end,
			 const struct driver_want *want, const struct driver_advised *advised)
{
	struct driver_want rest = { .write = want->write, .cause = want->cause };
	u64 first, last;

	if (driver_granule(advised, address, &first, &last) && last - first > end - start) {
		start = host_max(first, advised->start);
		end = host_min(last, advised->end);
		(void)driver_map(dd, start, end, &rest);
	}
	if (advised->values.accessed_by & ~((u64)1 << dd->index))
		driver_map_accessed(dd, start, end, dd->driver);
}

/* One attempt. -EAGAIN: again; -E2BIG and -ENOMEM: with less; others are final. */
static int serve_once(struct driver_device *dd, const struct gpusvm_device_fault *fault,
		      const struct serve_stage *stage, u64 chunk)
{
	struct driver_want want = {
		.write = fault->access != GPUSVM_ACCESS_READ,
		.atomic = fault->access == GPUSVM_ACCESS_ATOMIC,
		.migrate = stage->migrate,
		.cause = DRIVER_CAUSE_DEVICE_FAULT,
		.budget = stage->budget,
		.max_chunk = stage->max_chunk,
	};
	struct driver_advised advised;
	struct driver_range *range;
	u64 start, end;
	int err;

	if (chunk)
		want.max_chunk = host_min(chunk, want.max_chunk);
	err = driver_range_at(dd, fault->address, &want, &advised, &range);
	if (err == -ENOENT || err == -EINVAL)
		return -EFAULT; /* nothing is mapped there */
	if (err)
		return err;
	start = gpusvm_range_start(&range->base);
	end = gpusvm_range_end(&range->base);
	err = driver_range_bind(dd, range, &want, &advised);
	/* The fault is in one page: what is wrong with another page of its range is
	 * not its concern. */
	if ((err == -EFAULT || err == -EPERM) && end - start > HOST_PAGE_SIZE)
		err = driver_place_allowed(&advised) ? -EFAULT : -E2BIG;
	gpusvm_range_put(&range->base);
	if (!err)
		serve_around(dd, fault->address, start, end, &want, &advised);
	return err;
}

static bool is_stale(struct driver_device *dd, const struct gpusvm_device_fault *fault)
{
	u64 page = host_align_down(fault->address, HOST_PAGE_SIZE);
	struct gpusvm_addr addr;

	if (!dd->ops->vm_query(dd->vm, page, &addr))
		return false;
	if (fault->access == GPUSVM_ACCESS_ATOMIC)
		return gpusvm_addr_atomics(addr);
	return fault->access == GPUSVM_ACCESS_READ || gpusvm_addr_write(addr);
}

static void count_retries(struct driver_device *dd, u64 n)
{
	if (!n)
		return;
	driver_count(&dd->stats.retries, n);
	driver_count_max(&dd->stats.retry_chain_max, n);
}

/* The largest range for the fault; 0: any. What is advised decides for itself what moves
 * with a page. */
static u64 wanted_chunk(struct driver_device *dd, u64 address)
{
	u64 page = host_align_down(address, HOST_PAGE_SIZE);
	struct driver_advised advised;

	driver_advised(dd->driver, page, page, page + HOST_PAGE_SIZE, &advised);
	if (advised.values.granularity || advised.values.preferred != ARBITER_NONE)
		return 0;
	return driver_far_chunk(dd, address);
}

/* 0: the page is mapped as the fault wanted it, or was (*stale). */
static int serve(struct driver_device *dd, const struct gpusvm_device_fault *fault, bool *stale)
{
	struct gpusvm_driver *driver = dd->driver;
	u64 block = host_align_down(fault->address, HOST_HUGE_SIZE);
	u64 attempts = 0, chunk;
	unsigned i;
	int err;

	driver_garbage_collect(driver);
	err = mm_sync(driver->mm, block, block + HOST_HUGE_SIZE);
	if (err)
		return err;
	*stale = is_stale(dd, fault);
	if (*stale)
		return 0;
	chunk = wanted_chunk(dd, fault->address);
	for (i = 0; i < host_array_size(serve_stages); i++) {
		const struct serve_stage *stage = &serve_stages[i];
		struct gpusvm_retry retry;

		gpusvm_retry_init(&retry, stage->budget, stage->tries);
		do {
			attempts++;
			err = serve_once(dd, fault, stage, chunk);
		} while (err == -EAGAIN && gpusvm_retry_again(&retry));
		if (err != -EAGAIN && err != -E2BIG && err != -ENOMEM)
			break;
	}
	count_retries(dd, attempts - 1);
	/* Out of tries: the access would never be answered, so it fails. */
	return err == -EAGAIN ? -EBUSY : err;
}

static void account(struct driver_device *dd, const struct gpusvm_device_fault *fault, int err,
		    bool stale)
{
	driver_count(stale ? &dd->stats.device_faults_stale : &dd->stats.device_faults, 1);
	driver_count(err ? &dd->stats.device_faults_fatal : &dd->stats.device_faults_replayed, 1);
	if (!stale)
		driver_event(dd->driver, err ? DRIVER_EVENT_FATAL_FAULT : DRIVER_EVENT_DEVICE_FAULT,
			     DRIVER_CAUSE_DEVICE_FAULT, dd->index, err, fault->time, fault->address,
			     fault->length, -2, -2);
}

/* Serves the queue up to one fault that is not stale: one that is costs little,
 * and a device may have raised it twice. False: the queue is empty. */
static bool serve_oldest(struct driver_device *dd)
{
	struct gpusvm_device_fault fault;
	bool stale;
	int err;

	do {
		if (!dd->ops->fault_pop(dd->device, &fault))
			return false;
		stale = false;
		err = serve(dd, &fault, &stale);
		/* Before the answer: who waits for the work may look at the figures. */
		account(dd, &fault, err, stale);
		dd->ops->fault_done(dd->device, &fault, err);
	} while (stale);
	return true;
}

/* ---- Workers --------------------------------------------------------------
 * They sleep until they are kicked. While there are queues they also look into
 * every fault queue now and then: a notification that a device lost would leave a
 * lane waiting for ever.
 */

#define WATCHDOG (100 * HOST_MSEC)

/* Until there is something to do; the devices to look at. */
static u64 worker_wait(struct gpusvm_driver *driver)
{
	u64 deadline;

	/* With the first queue the watch begins. */
	host_wait(&driver->kick, host_load_seq(&driver->kicked) ||
					 host_load_seq(&driver->n_queues) ||
					 host_load_seq(&driver->stopping));
	deadline = host_now() + WATCHDOG;
	if (host_wait_until(&driver->kick,
			    host_load_seq(&driver->kicked) || host_load_seq(&driver->stopping),
			    deadline))
		return host_xchg(&driver->kicked, 0);
	return ~(u64)0 >> (GPUSVM_DRIVER_DEVICES - gpusvm_driver_device_count(driver));
}

static void worker(void *arg)
{
	struct gpusvm_driver *driver = arg;
	struct driver_device *dd;
	u64 devices;

	while (!host_load_seq(&driver->stopping))
		for (devices = worker_wait(driver); devices; devices &= devices - 1) {
			if (driver_device_get(driver, __builtin_ctzll(devices), &dd))
				continue;
			while (serve_oldest(dd))
				;
			driver_device_put(dd);
		}
}

int driver_fault_init(struct gpusvm_driver *driver)
{
	unsigned n = driver->options.workers;
	int err = 0;

	host_waitq_init(&driver->kick);
	driver->workers = host_alloc_zeroed(n * sizeof(*driver->workers));
	if (!driver->workers)
		err = -ENOMEM;
	while (!err && driver->n_workers < n) {
		err = host_thread_start(&driver->workers[driver->n_workers], "gpusvm-fault", worker,
					driver);
		if (!err)
			driver->n_workers++;
	}
	if (err)
		driver_fault_fini(driver);
	return err;
}

void driver_fault_fini(struct gpusvm_driver *driver)
{
	unsigned i;

	host_store_seq(&driver->stopping, 1);
	host_wake_all(&driver->kick);
	for (i = 0; i < driver->n_workers; i++)
		host_thread_join(&driver->workers[i]);
	host_free(driver->workers);
	host_waitq_destroy(&driver->kick);
}

/* ---- Where it begins -------------------------------------------------------- */

void driver_fault(void *arg, struct gpusvm_device *device)
{
	struct driver_device *dd = arg;
	struct gpusvm_driver *driver = dd->driver;

	if (host_add_return(&dd->servers, 1) <= device->caps.lanes) {
		serve_oldest(dd);
	} else {
		host_fetch_or(&driver->kicked, (u64)1 << dd->index);
		host_wake_all(&driver->kick);
	}
	host_add_return(&dd->servers, (u32)-1);
}
