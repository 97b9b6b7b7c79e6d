/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * exclusive.c: memory that one device has for itself: out of the CPU's mapping, and
 * of every other device's, until someone else touches it.
 *
 * A device with memory of its own has it there: the page is moved, so that neither the
 * CPU nor anyone else can reach it but by taking it back, which is a migration and
 * tells the device. That it was taken is remembered with the frame, in a bitmap of the
 * device, so that it follows the page through mremap, and ends when the page leaves or
 * another device maps it.
 *
 * Where there is no such memory, or it is full, or NO_MIGRATE forbids the move, the page is
 * taken in system memory (mm_make_exclusive), which the memory manager remembers.
 *
 * Locking: bits are atomics. They are set while the memory manager holds the page
 * (mm_range_fault's keep) and cleared when its frame falls out of use, on whatever
 * path that is: no lock is taken there.
 */
#include "driver/private.h"

#define EXCLUSIVE_TRIES 8u
#define EXCLUSIVE_BUDGET HOST_SEC

/* ---- The bitmap ----------------------------------------------------------------- */

/* Made with the first that is taken; goes with the device. */
static int make_bitmap(struct driver_device *dd)
{
	u64 *bits, *none = NULL;

	host_store_release(&dd->driver->taken, 1);
	if (host_load_acquire(&dd->exclusive))
		return 0;
	bits = host_alloc_zeroed(((dd->npages + 63) >> 6) * sizeof(u64));
	if (!bits)
		return -ENOMEM;
	if (!host_cas(&dd->exclusive, &none, bits))
		host_free(bits); /* another thread's */
	return 0;
}

void driver_exclusive_fini(struct driver_device *dd)
{
	host_free(dd->exclusive);
}

void driver_exclusive_clear(struct driver_device *dd, u64 frame, u64 n)
{
	u64 *bits = host_load_acquire(&dd->exclusive);

	if (!bits)
		return;
	for (u64 at = frame; at < frame + n;) {
		u64 in_word = host_min(64 - (at & 63), frame + n - at);
		u64 mask = (in_word == 64 ? ~(u64)0 : ((u64)1 << in_word) - 1) << (at & 63);

		if (host_read_once(&bits[at >> 6]) & mask)
			host_fetch_and(&bits[at >> 6], ~mask);
		at += in_word;
	}
}

bool driver_exclusive_page(struct driver_device *dd, const struct mm_page_state *state, u64 address)
{
	u64 *bits = host_load_acquire(&dd->exclusive), frame;

	if (!bits)
		return false;
	/* Of a compound frame the state may tell its head. */
	frame = host_align_down(mm_page_index(state->page), (u64)1 << state->order);
	frame += (address >> HOST_PAGE_SHIFT) & (((u64)1 << state->order) - 1);
	return host_read_once(&bits[frame >> 6]) >> (frame & 63) & 1;
}

bool driver_exclusive_any(struct driver_device *dd, u64 start, u64 end)
{
	struct gpusvm_driver *driver = dd->driver;
	u64 n = driver_npages(start, end), devices, held;
	struct mm_page_state *states;
	bool any = false;

	if (!host_load_acquire(&driver->taken))
		return false;
	states = host_alloc(n * sizeof(*states));
	if (!states)
		return true;
	devices = driver_devices_get(driver);
	held = driver_pagemaps_get(driver, devices);
	mm_page_states(driver->mm, start, end, states);
	for (u64 i = 0; !any && i < n; i++) {
		struct driver_device *owner = driver_owner_device(states[i].owner);

		any = states[i].flags & MM_STATE_EXCLUSIVE;
		if (owner && owner != dd && held >> owner->index & 1)
			any = driver_exclusive_page(owner, &states[i],
						    start + (i << HOST_PAGE_SHIFT));
	}
	driver_pagemaps_put(driver, held);
	driver_devices_put(driver, devices);
	host_free(states);
	return any;
}

/* struct mm_range_fault's keep: the page is held. Of a compound one it is asked once. */
static bool mark(void *arg, struct mm_page *page)
{
	struct driver_device *dd = arg;
	u64 frame = mm_page_index(page), end = frame + ((u64)1 << mm_page_order(page));

	if (driver_page_device(page) == dd)
		for (; frame < end; frame++)
			host_fetch_or(&dd->exclusive[frame >> 6], (u64)1 << (frame & 63));
	return true;
}

static int mark_all(struct driver_device *dd, u64 start, u64 end)
{
	struct gpusvm_driver *driver = dd->driver;
	struct mm_range_fault rf = {
		.mm = driver->mm,
		.notifier = &driver->advice.notifier,
		.pfns = host_alloc(HOST_HUGE_PAGES * sizeof(mm_pfn_t)),
		.keep = mark,
		.keep_arg = dd,
	};
	int err = rf.pfns ? 0 : -ENOMEM;

	for (rf.end = start; !err && rf.end < end;) {
		unsigned tries = 0;

		rf.start = rf.end;
		rf.end = host_align_down(rf.start, HOST_HUGE_SIZE) + HOST_HUGE_SIZE;
		rf.end = host_min(rf.end, end);
		do {
			rf.seq = mm_notifier_read_begin(rf.notifier);
			err = mm_range_fault(&rf);
		} while (err == -EBUSY && ++tries < EXCLUSIVE_TRIES);
		/* What moves all the time is not anyone's for long. */
		if (err == -EBUSY)
			err = 0;
	}
	host_free(rf.pfns);
	return err;
}

/* ---- Taking ----------------------------------------------------------------------- */

/* Can all of it be written, and taken? */
static int check(struct mm *mm, u64 start, u64 end)
{
	while (start < end) {
		struct mm_vma vma;
		int err = mm_vma_find(mm, start, end, &vma);

		if (err == -ENOENT || (!err && vma.start > start))
			return -EFAULT;
		if (err)
			return err;
		if (!(vma.flags & MM_VMA_WRITE))
			return vma.flags & MM_VMA_READ ? -EPERM : -EFAULT;
		if (!(vma.flags & MM_VMA_MIGRATABLE))
			return -EOPNOTSUPP;
		start = vma.end;
	}
	return 0;
}

/* -EAGAIN: some of it stayed. */
static int take_once(struct driver_device *dd, u64 start, u64 end)
{
	struct gpusvm_migrate_result result = { 0 };
	int err = driver_populate(dd, dd->driver->mm, start, end, dd->driver->options.timeslice,
				  DRIVER_CAUSE_PREFETCH, false, &result);

	if (err)
		return err == -ENOSPC ? -ENOMEM : err;
	if (result.holes)
		return -EFAULT;
	return result.stayed ? -EAGAIN : 0;
}

/* Nobody but dd has it mapped afterwards: what was there already was not taken out of
 * anyone's mapping by a move. */
static void drop_others(struct driver_device *dd, u64 start, u64 end)
{
	u64 devices = driver_devices_get(dd->driver), left;

	for (left = devices & ~((u64)1 << dd->index); left; left &= left - 1)
		driver_device_drop(dd->driver->devices[__builtin_ctzll(left)], start, end);
	driver_devices_put(dd->driver, devices);
}

/* Where a range has pages besides that the device cannot reach, smaller ones have not. Of
 * a device that cannot fault only what is bound is mapped. */
static void map_taken(struct driver_device *dd, u64 start, u64 end)
{
	for (u64 stop; !driver_no_fault(dd) && start < end; start = stop) {
		struct driver_want want = {
			.write = true,
			.in_place = true,
			.cause = DRIVER_CAUSE_BIND,
		};

		stop = host_min(end, host_align_down(start, HOST_HUGE_SIZE) + HOST_HUGE_SIZE);
		if (driver_map(dd, start, stop, &want)) {
			want.max_chunk = HOST_PAGE_SIZE;
			(void)driver_map(dd, start, stop, &want);
		}
	}
}

/* In the device's own memory. -ENOMEM: there is none left. -EBUSY: some of it stayed. */
static int take_by_move(struct driver_device *dd, u64 start, u64 end)
{
	struct gpusvm_retry retry;
	int err = make_bitmap(dd);

	if (!err)
		err = driver_advice_watch(dd->driver);
	if (err)
		return err;
	gpusvm_retry_init(&retry, EXCLUSIVE_BUDGET, EXCLUSIVE_TRIES);
	do {
		err = take_once(dd, start, end);
	} while (err == -EAGAIN && gpusvm_retry_again(&retry));
	if (err)
		return err == -EAGAIN ? -EBUSY : err;
	drop_others(dd, start, end);
	err = mark_all(dd, start, end);
	if (!err)
		map_taken(dd, start, end);
	return err;
}

/* The largest chunk that begins at `at` and ends within end: no range is to take more than
 * was asked for. */
static u64 chunk_at(u64 at, u64 end)
{
	static const u64 sizes[] = {HOST_HUGE_SIZE, HOST_PAGE_SIZE << 4};

	for (unsigned i = 0; i < host_array_size(sizes); i++)
		if (host_is_aligned(at, sizes[i]) && end - at >= sizes[i])
			return sizes[i];
	return HOST_PAGE_SIZE;
}

/* Where it is, but for what is in the device's own memory: that others let go. A device
 * that cannot fault has what is bound of it mapped. */
static int take_in_place(struct driver_device *dd, u64 start, u64 end)
{
	struct driver_want want = {
	    .write = true,
	    .exclusive = true,
	    .cause = DRIVER_CAUSE_BIND,
	};
	int err = 0;

	drop_others(dd, start, end);
	if (driver_no_fault(dd))
		host_mutex_lock(&dd->driver->lock);
	for (u64 at = start; !err && at < end; at += want.max_chunk) {
		want.max_chunk = chunk_at(at, end);
		err = driver_map(dd, at, at + want.max_chunk, &want);
	}
	if (driver_no_fault(dd))
		host_mutex_unlock(&dd->driver->lock);
	/* It could be taken, by its mapping: so it is pinned. */
	return err == -EOPNOTSUPP ? -EBUSY : err;
}

/* Is any of it to stay where it is? */
static bool may_not_move(struct gpusvm_driver *driver, u64 start, u64 end)
{
	struct driver_advised advised = {.end = start};

	while (advised.end < end) {
		start = advised.end;
		driver_advised(driver, start, start, end, &advised);
		if (advised.values.no_migrate)
			return true;
	}
	return false;
}

int gpusvm_driver_make_exclusive(struct gpusvm_driver_queue *queue, u64 start, u64 end)
{
	struct driver_device *dd = queue->device;
	struct gpusvm_driver *driver = dd->driver;
	struct mm_caps caps;
	bool in_place;
	int err;

	if (start >= end || !host_is_aligned(start | end, HOST_PAGE_SIZE))
		return -EINVAL;
	if (driver_removed(dd))
		return -ENODEV;
	mm_caps_get(driver->mm, &caps);
	in_place = caps.flags & MM_CAP_EXCLUSIVE;
	if (!dd->has_memory && !in_place)
		return -EOPNOTSUPP;
	if (dd->has_memory && end - start > dd->device->caps.vram_bytes)
		return -ENOSPC;
	driver_garbage_collect(driver);
	err = mm_sync(driver->mm, start, end);
	if (!err)
		err = check(driver->mm, start, end);
	if (err)
		return err;
	if (!dd->has_memory || (in_place && may_not_move(driver, start, end)))
		return take_in_place(dd, start, end);
	err = take_by_move(dd, start, end);
	return err == -ENOMEM && in_place ? take_in_place(dd, start, end) : err;
}
