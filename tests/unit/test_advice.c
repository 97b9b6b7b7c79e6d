/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_advice.c: advice over the model: set, asked for, kept with its mapping, and
 * what devices and pages do by it. */
#include "tests/unit/driver_world.h"

#define PAGES(n) ((u64)(n)*HOST_PAGE_SIZE)

static int advise(struct world *w, u64 va, u64 length, enum gpusvm_advice advice, s64 value,
		  int location)
{
	return gpusvm_driver_advise(w->driver, va, va + length, advice, value, location);
}

static s64 advice_of(struct world *w, u64 va, u64 length, enum gpusvm_advice advice)
{
	int location = 0;
	s64 value = 77;

	assert_int_equal(
		gpusvm_driver_advice_get(w->driver, va, va + length, advice, &value, &location), 0);
	return value;
}

static int location_of(struct world *w, u64 va, u64 length, enum gpusvm_advice advice)
{
	int location = 0;
	s64 value = 77;

	assert_int_equal(
		gpusvm_driver_advice_get(w->driver, va, va + length, advice, &value, &location), 0);
	return location;
}

static u64 on_device(struct world *w, u64 va, u64 n, int device)
{
	u64 count = 0;

	for (u64 i = 0; i < n; i++)
		count += where(w, va + PAGES(i)).location == device;
	return count;
}

/* ---- Set and asked for ------------------------------------------------------------ */

static void test_set_get_mixed(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, MiB, MODEL_RW);
	assert_int_equal(advice_of(&w, BASE, MiB, GPUSVM_GRANULARITY), 0);
	assert_int_equal(location_of(&w, BASE, MiB, GPUSVM_PREFERRED_LOCATION), DRIVER_NONE);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_GRANULARITY, 16, DRIVER_NONE), 0);
	assert_int_equal(advice_of(&w, BASE, MiB, GPUSVM_GRANULARITY), 16);
	assert_int_equal(advise(&w, BASE + PAGES(8), PAGES(8), GPUSVM_GRANULARITY, 0, 0), 0);
	assert_int_equal(advice_of(&w, BASE, MiB, GPUSVM_GRANULARITY), DRIVER_VALUE_MIXED);
	assert_int_equal(advice_of(&w, BASE + PAGES(9), PAGES(1), GPUSVM_GRANULARITY), 0);
	assert_int_equal(advise(&w, BASE, PAGES(4), GPUSVM_PREFERRED_LOCATION, 1, 0), 0);
	assert_int_equal(location_of(&w, BASE, PAGES(4), GPUSVM_PREFERRED_LOCATION), 0);
	assert_int_equal(advice_of(&w, BASE, PAGES(4), GPUSVM_PREFERRED_LOCATION), 1);
	assert_int_equal(location_of(&w, BASE, PAGES(5), GPUSVM_PREFERRED_LOCATION), DRIVER_MIXED);
	assert_int_equal(advice_of(&w, BASE, PAGES(5), GPUSVM_PREFERRED_LOCATION),
			 DRIVER_VALUE_MIXED);
	/* Value 0 unsets, whatever the location. */
	assert_int_equal(advise(&w, BASE, PAGES(4), GPUSVM_PREFERRED_LOCATION, 0, 0), 0);
	assert_int_equal(location_of(&w, BASE, PAGES(4), GPUSVM_PREFERRED_LOCATION), DRIVER_NONE);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_RESET, 5, 0), 0);
	assert_int_equal(advice_of(&w, BASE, MiB, GPUSVM_GRANULARITY), 0);
	world_close(&w);
}

static void test_bad_input(void **state)
{
	struct world w;
	s64 value;
	int location = 64;

	world_open(&w);
	map(&w, BASE, MiB, MODEL_RW);
	assert_int_equal(advise(&w, BASE, MiB, (enum gpusvm_advice)99, 1, 0), -EINVAL);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_LAST_PREFETCH, 1, 0), -EINVAL);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_READ_MOSTLY, 1, 0), -EOPNOTSUPP);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_GRANULARITY, 3, 0), -EINVAL);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_GRANULARITY, -1, 0), -EINVAL);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_GRANULARITY, INT64_MIN, 0), -EINVAL);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_GRANULARITY, (s64)1 << 28, 0), -EINVAL);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_ATOMIC, 4, 0), -EINVAL);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_ATOMIC, -1, 0), -EINVAL);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_ACCESSED_BY, 1, DRIVER_SYSTEM), -EINVAL);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_ACCESSED_BY, 1, 64), -EINVAL);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_PREFERRED_LOCATION, 1, DRIVER_MIXED),
			 -EINVAL);
	assert_int_equal(advise(&w, BASE + 1, MiB, GPUSVM_NO_MIGRATE, 1, 0), -EINVAL);
	assert_int_equal(gpusvm_driver_advice_get(w.driver, BASE, BASE + MiB, GPUSVM_RESET, &value,
						  &location),
			 -EINVAL);
	assert_int_equal(gpusvm_driver_advice_get(w.driver, BASE, BASE + MiB, GPUSVM_ACCESSED_BY,
						  &value, &location),
			 -EINVAL);
	/* A hole at each end, and in the middle: nothing is set. */
	assert_int_equal(model_munmap(w.mm, BASE + PAGES(10), BASE + PAGES(11)), 0);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_NO_MIGRATE, 1, 0), -ENOENT);
	assert_int_equal(advise(&w, BASE - PAGES(1), PAGES(2), GPUSVM_NO_MIGRATE, 1, 0), -ENOENT);
	assert_int_equal(advise(&w, BASE + PAGES(9), PAGES(2), GPUSVM_NO_MIGRATE, 1, 0), -ENOENT);
	assert_int_equal(advice_of(&w, BASE, PAGES(10), GPUSVM_NO_MIGRATE), 0);
	assert_int_equal(gpusvm_driver_advice_get(w.driver, BASE, BASE + MiB, GPUSVM_NO_MIGRATE,
						  &value, &location),
			 -ENOENT);
	world_close(&w);
}

/* ---- With its mapping --------------------------------------------------------------- */

static void test_dies_at_munmap_and_follows_mremap(void **state)
{
	struct world w;
	u64 other = BASE + 64 * MiB;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	map(&w, other, MiB, MODEL_RW);
	assert_int_equal(advise(&w, BASE, 4 * MiB, GPUSVM_ATOMIC, 2, 0), 0);
	assert_int_equal(advise(&w, other, MiB, GPUSVM_ATOMIC, 3, 0), 0);
	assert_int_equal(model_munmap(w.mm, BASE + MiB, BASE + 2 * MiB), 0);
	map(&w, BASE + MiB, MiB, MODEL_RW);
	assert_int_equal(advice_of(&w, BASE + MiB, MiB, GPUSVM_ATOMIC), 0);
	assert_int_equal(advice_of(&w, BASE, MiB, GPUSVM_ATOMIC), 2);
	assert_int_equal(advice_of(&w, BASE + 2 * MiB, 2 * MiB, GPUSVM_ATOMIC), 2);
	/* Over the other: what was there is gone. */
	assert_int_equal(model_mremap(w.mm, BASE + 2 * MiB, BASE + 3 * MiB, other, false), 0);
	assert_int_equal(advice_of(&w, other, MiB, GPUSVM_ATOMIC), 2);
	map(&w, BASE + 2 * MiB, MiB, MODEL_RW);
	assert_int_equal(advice_of(&w, BASE + 2 * MiB, MiB, GPUSVM_ATOMIC), 0);
	/* The old mapping stays, without. */
	assert_int_equal(model_mremap(w.mm, other, other + MiB, other + 8 * MiB, true), 0);
	assert_int_equal(advice_of(&w, other, MiB, GPUSVM_ATOMIC), 0);
	assert_int_equal(advice_of(&w, other + 8 * MiB, MiB, GPUSVM_ATOMIC), 2);
	/* One that fails moves nothing. */
	assert_int_equal(model_mremap(w.mm, other + 8 * MiB, other + 10 * MiB, BASE, false),
			 -EFAULT);
	assert_int_equal(advice_of(&w, other + 8 * MiB, MiB, GPUSVM_ATOMIC), 2);
	/* Protections and contents are no matter. */
	assert_int_equal(model_mprotect(w.mm, BASE, BASE + MiB, MODEL_READ), 0);
	assert_int_equal(model_dontneed(w.mm, BASE, BASE + MiB), 0);
	assert_int_equal(advice_of(&w, BASE, MiB, GPUSVM_ATOMIC), 2);
	world_close(&w);
}

/* More holes than there are nodes in reserve, before anybody could give more: advice is
 * lost at most. */
static void test_many_holes(void **state)
{
	struct world w;

	world_open(&w);
	map(&w, BASE, MiB, MODEL_RW);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_NO_MIGRATE, 1, 0), 0);
	for (u64 i = 1; i < 256; i += 2)
		assert_int_equal(model_munmap(w.mm, BASE + PAGES(i), BASE + PAGES(i + 1)), 0);
	for (u64 i = 0; i < 256; i += 2) {
		s64 value = advice_of(&w, BASE + PAGES(i), PAGES(1), GPUSVM_NO_MIGRATE);

		assert_true(value == 1 || w.driver->advice.map.lost);
	}
	host_read_lock(&w.driver->advice.lock);
	attribute_map_verify(&w.driver->advice.map);
	host_read_unlock(&w.driver->advice.lock);
	world_close(&w);
}

static void test_survives_ranges(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	assert_int_equal(advise(&w, BASE, PAGES(32), GPUSVM_NO_MIGRATE, 1, 0), 0);
	device_fill(&w, 0, BASE, 2 * MiB, 1);
	assert_int_equal(on_device(&w, BASE, 32, 0), 0);
	assert_int_equal(on_device(&w, BASE + PAGES(32), 480, 0), 480);
	/* All ranges go, by a change of protections that changes nothing else. */
	assert_int_equal(model_mprotect(w.mm, BASE, BASE + 2 * MiB, MODEL_RW), 0);
	driver_garbage_collect(w.driver);
	assert_int_equal(advice_of(&w, BASE, PAGES(32), GPUSVM_NO_MIGRATE), 1);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	assert_int_equal(on_device(&w, BASE, 32, 0), 0);
	world_close(&w);
}

static void test_what_changes_nothing_invalidates_nothing(void **state)
{
	struct gpusvm_driver_stats before, after;
	struct world w;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_ATOMIC, 2, 0), 0);
	device_fill(&w, 0, BASE, 2 * MiB, 1);
	before = stats(&w, 0);
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_ATOMIC, 2, 0), 0);
	assert_int_equal(advise(&w, BASE + MiB, MiB, GPUSVM_ATOMIC, 2, 0), 0);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_NO_MIGRATE, 0, 0), 0);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_PREFERRED_LOCATION, 1, DRIVER_NONE), 0);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_ACCESSED_BY, 0, 0), 0);
	(void)advice_of(&w, BASE, 2 * MiB, GPUSVM_ATOMIC);
	after = stats(&w, 0);
	assert_int_equal(after.invalidations, before.invalidations);
	assert_int_equal(after.flushes, before.flushes);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	assert_int_equal(stats(&w, 0).device_faults, before.device_faults);
	/* And what changes something does. */
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_ATOMIC, 1, 0), 0);
	assert_true(stats(&w, 0).invalidations > before.invalidations);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	world_close(&w);
}

/* ---- What devices may have ------------------------------------------------------------ */

static void test_access_none(void **state)
{
	struct world w;
	u64 word = 5;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	device_fill(&w, 0, BASE, 2 * MiB, 1);
	assert_int_equal(advise(&w, BASE + PAGES(5), PAGES(2), GPUSVM_ACCESS_NONE, 1, 0), 0);
	assert_int_equal(where(&w, BASE + PAGES(5)).mapped_by, 0);
	assert_int_equal(device_read(&w, 0, BASE + PAGES(5), &word, 8), -EFAULT);
	assert_int_equal(device_write(&w, 0, BASE + PAGES(6), &word, 8), -EFAULT);
	device_expect(&w, 0, BASE, PAGES(5), 1);
	device_expect(&w, 0, BASE + PAGES(7), PAGES(100), 1);
	/* A prefetch maps what it may. */
	prefetch(&w, BASE, 2 * MiB, 0);
	assert_int_equal(where(&w, BASE + PAGES(5)).mapped_by, 0);
	assert_int_equal(where(&w, BASE + PAGES(7)).mapped_by, 1);
	cpu_expect(&w, BASE, 2 * MiB, 1);
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_ACCESS_NONE, 0, 0), 0);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	world_close(&w);
}

static void test_no_migrate(void **state)
{
	struct gpusvm_migrate_result moved;
	struct world w;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_NO_MIGRATE, 1, 0), 0);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	assert_int_equal(on_device(&w, BASE, 256, 0), 0);
	assert_int_equal(on_device(&w, BASE + MiB, 256, 0), 256);
	moved = prefetch(&w, BASE, 2 * MiB, 0);
	assert_int_equal(moved.stayed, 256);
	assert_int_equal(moved.already, 256);
	assert_int_equal(gpusvm_driver_prefetch(w.driver, BASE, BASE + 2 * MiB, 0, true, &moved),
			 -ENOENT);
	moved = prefetch(&w, BASE, MiB, DRIVER_SYSTEM);
	assert_int_equal(moved.already, 256);
	/* What is on the device already stays there, until the CPU wants it. */
	assert_int_equal(advise(&w, BASE + MiB, MiB, GPUSVM_NO_MIGRATE, 1, 0), 0);
	moved = prefetch(&w, BASE + MiB, MiB, DRIVER_SYSTEM);
	assert_int_equal(moved.stayed, 256);
	assert_int_equal(on_device(&w, BASE + MiB, 256, 0), 256);
	cpu_expect(&w, BASE, 2 * MiB, 1);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	assert_int_equal(on_device(&w, BASE, 512, 0), 0);
	world_close(&w);
}

static void test_preferred_location(void **state)
{
	struct gpusvm_migrate_result moved;
	struct world w;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, 6 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 6 * MiB, 1);
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_PREFERRED_LOCATION, 1, DRIVER_SYSTEM), 0);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	assert_int_equal(on_device(&w, BASE, 512, DRIVER_SYSTEM), 512);
	/* Another device, to which there is no link: its own memory. */
	assert_int_equal(advise(&w, BASE + 2 * MiB, 2 * MiB, GPUSVM_PREFERRED_LOCATION, 1, 1), 0);
	device_expect(&w, 0, BASE + 2 * MiB, 2 * MiB, 1);
	assert_int_equal(on_device(&w, BASE + 2 * MiB, 512, 0), 512);
	device_expect(&w, 1, BASE + 2 * MiB, 2 * MiB, 1);
	assert_int_equal(on_device(&w, BASE + 2 * MiB, 512, 1), 512);
	/* A prefetch overrides it, and one to where it is preferred follows it. */
	prefetch(&w, BASE, 2 * MiB, 0);
	assert_int_equal(on_device(&w, BASE, 512, 0), 512);
	moved = prefetch(&w, BASE, 6 * MiB, DRIVER_PREFERRED);
	assert_int_equal(moved.moved, 512);
	assert_int_equal(moved.already, 1024); /* there, and nowhere in particular */
	assert_int_equal(on_device(&w, BASE, 512, DRIVER_SYSTEM), 512);
	assert_int_equal(on_device(&w, BASE + 2 * MiB, 512, 1), 512);
	/* One that is gone is no advice. */
	gpusvm_driver_queue_destroy(w.queue[1]);
	w.queue[1] = NULL;
	assert_int_equal(gpusvm_driver_device_remove(w.driver, 1), 0);
	device_expect(&w, 0, BASE + 2 * MiB, 2 * MiB, 1);
	assert_int_equal(on_device(&w, BASE + 2 * MiB, 512, 0), 512);
	assert_int_equal(location_of(&w, BASE + 2 * MiB, 2 * MiB, GPUSVM_PREFERRED_LOCATION), 1);
	cpu_expect(&w, BASE, 6 * MiB, 1);
	world_close(&w);
}

static void test_last_prefetch(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	assert_int_equal(location_of(&w, BASE, 2 * MiB, GPUSVM_LAST_PREFETCH), DRIVER_NONE);
	prefetch(&w, BASE, MiB, 0);
	assert_int_equal(location_of(&w, BASE, MiB, GPUSVM_LAST_PREFETCH), 0);
	assert_int_equal(location_of(&w, BASE, 2 * MiB, GPUSVM_LAST_PREFETCH), DRIVER_MIXED);
	/* What is prefetched over a hole is remembered around it. */
	assert_int_equal(model_munmap(w.mm, BASE + PAGES(300), BASE + PAGES(400)), 0);
	prefetch(&w, BASE, 2 * MiB, DRIVER_SYSTEM);
	assert_int_equal(location_of(&w, BASE, PAGES(300), GPUSVM_LAST_PREFETCH), DRIVER_SYSTEM);
	map(&w, BASE + PAGES(300), PAGES(100), MODEL_RW);
	assert_int_equal(location_of(&w, BASE + PAGES(300), PAGES(100), GPUSVM_LAST_PREFETCH),
			 DRIVER_NONE);
	/* No advice, so no reset of it. */
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_RESET, 0, 0), 0);
	assert_int_equal(location_of(&w, BASE, PAGES(300), GPUSVM_LAST_PREFETCH), DRIVER_SYSTEM);
	world_close(&w);
}

static void test_granularity(void **state)
{
	struct world w;
	u64 word;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 8 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 8 * MiB, 1);
	for (unsigned shift = 0; shift <= 10; shift++) {
		u64 n = (u64)1 << shift;

		assert_int_equal(advise(&w, BASE, 8 * MiB, GPUSVM_GRANULARITY, (s64)n, 0), 0);
		assert_int_equal(device_read(&w, 0, BASE + 2 * MiB + PAGES(37), &word, 8), 0);
		assert_int_equal(on_device(&w, BASE, 2048, 0), n);
		assert_int_equal(
			on_device(&w, host_align_down(BASE + 2 * MiB + PAGES(37), PAGES(n)), n, 0),
			n);
		prefetch(&w, BASE, 8 * MiB, DRIVER_SYSTEM);
	}
	/* The way home, of what was there before the advice, too. */
	prefetch(&w, BASE, 4 * MiB, 0);
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_GRANULARITY, 4, 0), 0);
	for (unsigned i = 0; i < 4; i++) {
		cpu_read(&w, BASE + PAGES(16 * i + 5), &word, 8);
		assert_int_equal(on_device(&w, BASE, 512, DRIVER_SYSTEM), 4 * (i + 1));
	}
	prefetch(&w, BASE, 2 * MiB, 0);
	for (unsigned i = 0; i < 16; i++) { /* a stream is no reason for more */
		cpu_read(&w, BASE + PAGES(4 * i), &word, 8);
		assert_int_equal(on_device(&w, BASE, 512, DRIVER_SYSTEM), 4 * (i + 1));
	}
	cpu_expect(&w, BASE, 8 * MiB, 1);
	world_close(&w);
}

static void test_granularity_of_a_whole_2m(void **state)
{
	struct world w;
	u64 word;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW | MODEL_THP);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	prefetch(&w, BASE, 2 * MiB, 0);
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_GRANULARITY, 8, 0), 0);
	cpu_read(&w, BASE + PAGES(100), &word, 8);
	assert_int_equal(on_device(&w, BASE, 512, DRIVER_SYSTEM), 8);
	cpu_expect(&w, BASE, 2 * MiB, 1);
	world_close(&w);
}

/* ---- Kept mapped ------------------------------------------------------------------------ */

static bool becomes_mapped(struct world *w, u64 va, u64 mask)
{
	u64 deadline = host_now() + 10 * HOST_SEC;

	while ((where(w, va).mapped_by & mask) != mask && host_now() < deadline)
		host_sleep(HOST_MSEC);
	return (where(w, va).mapped_by & mask) == mask;
}

static void test_accessed_by(void **state)
{
	struct world w;
	int location = 1;
	s64 value;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	add_device(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_ACCESSED_BY, 1, 1), 0);
	assert_int_equal(gpusvm_driver_advice_get(w.driver, BASE, BASE + MiB, GPUSVM_ACCESSED_BY,
						  &value, &location),
			 0);
	assert_int_equal(value, 1);
	location = 0;
	assert_int_equal(gpusvm_driver_advice_get(w.driver, BASE, BASE + MiB, GPUSVM_ACCESSED_BY,
						  &value, &location),
			 0);
	assert_int_equal(value, 0);
	/* At once, without a move or a fault. */
	assert_int_equal(where(&w, BASE).mapped_by, 2);
	device_expect(&w, 1, BASE, 2 * MiB, 1);
	assert_int_equal(stats(&w, 1).device_faults, 0);
	/* The pages go where it cannot reach them, and are not pulled back; they come
	 * home, and it has them again. */
	prefetch(&w, BASE, 2 * MiB, 0);
	assert_int_equal(on_device(&w, BASE, 512, 0), 512);
	host_sleep(20 * HOST_MSEC);
	assert_int_equal(on_device(&w, BASE, 512, 0), 512);
	prefetch(&w, BASE, 2 * MiB, DRIVER_SYSTEM);
	assert_true(becomes_mapped(&w, BASE, 2));
	assert_int_equal(stats(&w, 1).device_faults, 0);
	/* A change that leaves them in place, too. */
	assert_int_equal(model_dontneed(w.mm, BASE, BASE + PAGES(1)), 0);
	assert_true(becomes_mapped(&w, BASE, 2));
	assert_true(becomes_mapped(&w, BASE + MiB, 2));
	world_close(&w);
}

static void test_accessed_by_does_not_draw(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_ACCESSED_BY, 1, 0), 0);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	assert_int_equal(on_device(&w, BASE, 512, DRIVER_SYSTEM), 512);
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_ACCESSED_BY, 0, 0), 0);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	assert_int_equal(on_device(&w, BASE, 512, 0), 512);
	world_close(&w);
}

/* ---- Atomics ---------------------------------------------------------------------------- */

static int add_one(struct world *w, int device, u64 va)
{
	struct gpusvm_job job = {
		.command = { .type = GPUSVM_COMMAND_ATOMIC,
			     .va = va,
			     .atomic = { .op = GPUSVM_OP_ADD, .width = 8, .operand = 1 } },
		.contained = true,
	};

	return run_job(w->queue[device], &job);
}

static int add_device_without_atomics(struct world *w, u64 vram, u64 flags)
{
	struct gpusvm_soft_options options = {
		.vram_bytes = vram, .lanes = 2, .flags = flags, .no_system_atomics = true
	};
	struct gpusvm_device *device;
	int index;

	assert_int_equal(gpusvm_soft_create(&options, &device), 0);
	index = gpusvm_driver_device_add(w->driver, device);
	assert_int_equal(gpusvm_driver_queue_create(w->driver, index, &w->queue[index]), 0);
	return index;
}

static void test_atomics_by_advice(void **state)
{
	u64 word = 0, none, global = BASE + 2 * MiB;
	struct world w;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	add_device_without_atomics(&w, 4 * MiB, 0);
	none = (u64)add_device_without_atomics(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	cpu_write(&w, BASE, &word, 8);
	/* The CPU's only; other accesses go on. */
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_ATOMIC, GPUSVM_ATOMIC_CPU, 0), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(add_one(&w, i, BASE), -EPERM);
		assert_int_equal(device_write(&w, i, BASE, &word, 8), 0);
		assert_int_equal(add_one(&w, i, BASE), -EPERM);
	}
	assert_int_equal(advise(&w, BASE, MiB, GPUSVM_ATOMIC, GPUSVM_ATOMIC_UNDEFINED, 0), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(add_one(&w, i, BASE), 0);
	cpu_read(&w, BASE, &word, 8);
	assert_int_equal(word, 3);

	/* Among all: in place by who can; who cannot takes the page: to its own memory, or
	 * out of the CPU's mapping where it has none. */
	cpu_write(&w, global, &word, 8);
	assert_int_equal(advise(&w, global, MiB, GPUSVM_ATOMIC, GPUSVM_ATOMIC_GLOBAL, 0), 0);
	assert_int_equal(advise(&w, global, MiB, GPUSVM_PREFERRED_LOCATION, 1, DRIVER_SYSTEM), 0);
	assert_int_equal(add_one(&w, 0, global), 0);
	assert_int_equal(where(&w, global).location, DRIVER_SYSTEM);
	assert_int_equal(add_one(&w, (int)none, global), 0);
	assert_int_equal(where(&w, global).location, DRIVER_SYSTEM);
	assert_int_equal(where(&w, global).mapped_by, 1u << none);
	assert_true(where(&w, global).flags & DRIVER_PAGE_EXCLUSIVE);
	assert_int_equal(device_touch(&w, 1, global, 8, GPUSVM_ACCESS_WRITE), 0);
	assert_int_equal(where(&w, global).location, DRIVER_SYSTEM);
	assert_int_equal(add_one(&w, 1, global), 0);
	assert_int_equal(where(&w, global).location, 1);
	cpu_read(&w, global, &word, 8);
	assert_int_equal(word, 6);
	world_close(&w);
}

static void test_atomic_of_the_device(void **state)
{
	struct world w;
	u64 word = 7;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_write(&w, BASE, &word, 8);
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_ATOMIC, GPUSVM_ATOMIC_DEVICE, 0), 0);
	assert_int_equal(advise(&w, BASE, 2 * MiB, GPUSVM_PREFERRED_LOCATION, 1, DRIVER_SYSTEM), 0);
	assert_int_equal(device_touch(&w, 0, BASE, 8, GPUSVM_ACCESS_WRITE), 0);
	assert_int_equal(where(&w, BASE).location, DRIVER_SYSTEM);
	assert_int_equal(add_one(&w, 0, BASE), 0);
	assert_int_equal(where(&w, BASE).location, 0);
	cpu_read(&w, BASE, &word, 8);
	assert_int_equal(word, 8);
	world_close(&w);
}

/* ---- All at once ---------------------------------------------------------------------------- */

struct storm {
	struct world *w;
	unsigned seed;
	u32 *stop;
};

static void *advise_all_the_time(void *arg)
{
	struct storm *s = arg;

	while (!host_load_acquire(s->stop)) {
		u64 start = (u64)rand_r(&s->seed) % 1024, n = 1 + (u64)rand_r(&s->seed) % 64;
		unsigned what = (unsigned)rand_r(&s->seed) % 6;
		static const enum gpusvm_advice advice[] = {
			GPUSVM_PREFERRED_LOCATION, GPUSVM_ACCESSED_BY, GPUSVM_ATOMIC,
			GPUSVM_NO_MIGRATE,	   GPUSVM_GRANULARITY, GPUSVM_RESET,
		};
		int err = advise(s->w, BASE + PAGES(start), PAGES(n), advice[what],
				 rand_r(&s->seed) % 2, rand_r(&s->seed) % 2);

		assert_true(!err || err == -ENOENT || err == -EBUSY);
	}
	return NULL;
}

static void *unmap_all_the_time(void *arg)
{
	struct storm *s = arg;

	/* Beside what is checked. */
	while (!host_load_acquire(s->stop)) {
		u64 start = BASE + PAGES(512 + (u64)rand_r(&s->seed) % 500);

		assert_int_equal(model_munmap(s->w->mm, start, start + PAGES(3)), 0);
		assert_int_equal(model_mmap(s->w->mm, start, start + PAGES(3), MODEL_RW), 0);
		if (rand_r(&s->seed) % 4 == 0) {
			assert_int_equal(model_mremap(s->w->mm, start, start + PAGES(3),
						      BASE + 64 * MiB, false),
					 0);
			assert_int_equal(model_mremap(s->w->mm, BASE + 64 * MiB,
						      BASE + 64 * MiB + PAGES(3), start, false),
					 0);
		}
	}
	return NULL;
}

/* Devices and the CPU write and read while advice changes and mappings come and go:
 * whatever is advised, no write is lost. */
static void test_storm(void **state)
{
	struct storm storms[3];
	pthread_t threads[3];
	struct world w;
	u32 stop = 0;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	for (unsigned i = 0; i < 3; i++) {
		storms[i] = (struct storm){ &w, i + 1, &stop };
		assert_int_equal(pthread_create(&threads[i], NULL,
						i ? advise_all_the_time : unmap_all_the_time,
						&storms[i]),
				 0);
	}
	for (unsigned round = 0; round < 60; round++) {
		device_fill(&w, (int)(round % 2), BASE, 2 * MiB, round);
		device_expect(&w, (int)(1 - round % 2), BASE, 2 * MiB, round);
		cpu_expect(&w, BASE, 2 * MiB, round);
	}
	host_store_release(&stop, 1);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	host_read_lock(&w.driver->advice.lock);
	attribute_map_verify(&w.driver->advice.map);
	host_read_unlock(&w.driver->advice.lock);
	world_close(&w);
}

/* What moved beside it, since a granule moves as one, does not make a page exclusive. */
static void test_atomic_in_a_granule(void **state)
{
	struct model_frame *pin;
	u64 word = 0;
	struct world w;
	int device;

	world_open(&w);
	device = add_device_without_atomics(&w, 4 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	for (u64 i = 0; i < 8; i++)
		cpu_write(&w, BASE + i * HOST_PAGE_SIZE, &word, 8);
	assert_int_equal(model_pin(w.mm, BASE, &pin), 0);
	assert_int_equal(advise(&w, BASE, 8 * HOST_PAGE_SIZE, GPUSVM_GRANULARITY, 8, 0), 0);
	assert_int_equal(
		advise(&w, BASE, 8 * HOST_PAGE_SIZE, GPUSVM_ATOMIC, GPUSVM_ATOMIC_GLOBAL, 0), 0);
	assert_int_equal(add_one(&w, device, BASE), -EPERM);
	model_unpin(pin);
	assert_int_equal(add_one(&w, device, BASE), 0);
	cpu_read(&w, BASE, &word, 8);
	assert_int_equal(word, 1);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_get_mixed),
		cmocka_unit_test(test_bad_input),
		cmocka_unit_test(test_dies_at_munmap_and_follows_mremap),
		cmocka_unit_test(test_many_holes),
		cmocka_unit_test(test_survives_ranges),
		cmocka_unit_test(test_what_changes_nothing_invalidates_nothing),
		cmocka_unit_test(test_access_none),
		cmocka_unit_test(test_no_migrate),
		cmocka_unit_test(test_preferred_location),
		cmocka_unit_test(test_last_prefetch),
		cmocka_unit_test(test_granularity),
		cmocka_unit_test(test_granularity_of_a_whole_2m),
		cmocka_unit_test(test_accessed_by),
		cmocka_unit_test(test_accessed_by_does_not_draw),
		cmocka_unit_test(test_atomics_by_advice),
		cmocka_unit_test(test_atomic_of_the_device),
		cmocka_unit_test(test_atomic_in_a_granule),
		cmocka_unit_test(test_storm),
	};

	return cmocka_run_group_tests_name("advice", tests, work_setup, work_teardown);
}
