/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_driver.c: the reference driver over the model and software devices: jobs
 * through queues against memory of the model. Concurrency and random operations
 * are in test_driver_stress.c.
 */
#include "tests/unit/driver_world.h"
#include "driver/memory.c" /* its frames and blocks are looked at from inside */

/* ---- Faults ------------------------------------------------------------------- */

static void test_first_touch_moves_2m(void **state)
{
	struct world w;
	struct gpusvm_driver_stats s;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	s = stats(&w, 0);
	assert_int_equal(s.device_faults, 1);
	assert_int_equal(s.device_faults_replayed, 1);
	assert_int_equal(s.pages_to_device, 512);
	assert_int_equal(s.vram_used, 2 * MiB);
	assert_int_equal(where(&w, BASE + MiB).location, 0);
	assert_int_equal(where(&w, BASE + MiB).mapped_by, 1);
	assert_int_equal(where(&w, BASE + 3 * MiB).location, DRIVER_SYSTEM);

	/* A read fault on writable memory maps it for writing, too. */
	device_fill(&w, 0, BASE, 2 * MiB, 2);
	assert_int_equal(stats(&w, 0).device_faults, 1);
	cpu_expect(&w, BASE, 2 * MiB, 2);
	cpu_expect(&w, BASE + 2 * MiB, 2 * MiB, 1);
	s = stats(&w, 0);
	assert_true(s.cpu_faults >= 1);
	assert_int_equal(s.pages_to_system, 512);
	assert_int_equal(s.vram_used, 0);
	assert_int_equal(s.vram_peak, 2 * MiB);
	assert_true(events[DRIVER_EVENT_DEVICE_FAULT] == 1 && events[DRIVER_EVENT_CPU_FAULT] >= 1 &&
		    events[DRIVER_EVENT_MIGRATE] >= 2);
	world_close(&w);
}

static void test_huge_pages_stay_whole(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 4 * MiB, MODEL_RW | MODEL_THP);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	device_expect(&w, 0, BASE, 4 * MiB, 1);
	assert_int_equal(where(&w, BASE).order, HOST_HUGE_ORDER);
	device_fill(&w, 0, BASE, 4 * MiB, 2);
	cpu_expect(&w, BASE, 8, 2);
	assert_int_equal(stats(&w, 0).cpu_faults, 1);
	assert_int_equal(stats(&w, 0).pages_to_system, 512);
	cpu_expect(&w, BASE, 4 * MiB, 2);
	world_close(&w);
}

static void test_device_without_memory_maps_in_place(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	device_expect(&w, 0, BASE, 4 * MiB, 1);
	device_fill(&w, 0, BASE, 4 * MiB, 2);
	cpu_expect(&w, BASE, 4 * MiB, 2);
	assert_int_equal(stats(&w, 0).pages_to_device, 0);
	assert_int_equal(stats(&w, 0).device_faults, 2);
	assert_int_equal(where(&w, BASE).location, DRIVER_SYSTEM);
	assert_int_equal(where(&w, BASE).mapped_by, 1);
	world_close(&w);
}

static void test_unmigratable_memory_is_mapped_in_place(void **state)
{
	const u32 kinds[] = { MODEL_SHARED, MODEL_FILE, MODEL_HUGETLB };
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	for (unsigned i = 0; i < host_array_size(kinds); i++) {
		u64 va = BASE + i * 16 * MiB;

		map(&w, va, 2 * MiB, MODEL_RW | kinds[i]);
		cpu_fill(&w, va, 2 * MiB, 1);
		device_expect(&w, 0, va, 2 * MiB, 1);
		device_fill(&w, 0, va, 2 * MiB, 2);
		cpu_expect(&w, va, 2 * MiB, 2);
		/* It is watched, too. */
		assert_int_equal(model_munmap(w.mm, va, va + 2 * MiB), 0);
		map(&w, va, 2 * MiB, MODEL_RW);
		cpu_fill(&w, va, 2 * MiB, 3);
		device_expect(&w, 0, va, 2 * MiB, 3);
	}
	world_close(&w);
}

static void test_untouched_memory_is_zeros(void **state)
{
	char got[4096], zero[4096] = { 0 };
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	assert_int_equal(device_read(&w, 0, BASE + 4096, got, 4096), 0);
	assert_memory_equal(got, zero, 4096);
	device_fill(&w, 0, BASE + 2 * MiB, 2 * MiB, 4);
	cpu_expect(&w, BASE + 2 * MiB, 2 * MiB, 4);
	cpu_read(&w, BASE, got, 4096);
	assert_memory_equal(got, zero, 4096);
	world_close(&w);
}

/* Mappings of odd sizes side by side: chunks of 64K and 4K. */
static void test_small_mappings(void **state)
{
	const u64 k = 1024;
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 12 * k, MODEL_RW);
	map(&w, BASE + 64 * k, 128 * k, MODEL_RW);
	map(&w, BASE + 192 * k, 20 * k, MODEL_READ);
	cpu_fill(&w, BASE, 12 * k, 1);
	cpu_fill(&w, BASE + 64 * k, 128 * k, 2);
	device_expect(&w, 0, BASE, 12 * k, 1);
	device_fill(&w, 0, BASE + 64 * k + 8, 128 * k - 8, 3);
	device_expect(&w, 0, BASE + 64 * k, 8, 2);
	cpu_expect(&w, BASE, 12 * k, 1);
	cpu_expect(&w, BASE + 64 * k + 8, 128 * k - 8, 3);
	world_close(&w);
}

static void test_fatal_faults_end_their_queue_only(void **state)
{
	struct gpusvm_driver_queue *other;
	u64 word = 1;
	struct world w;
	struct gpusvm_job job = { .command = { .type = GPUSVM_COMMAND_WRITE, .va = BASE + 2 * MiB,
					       .length = 8, .buffer = &word } };

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	assert_int_equal(gpusvm_driver_queue_create(w.driver, 0, &other), 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	map(&w, BASE + 4 * MiB, 2 * MiB, MODEL_READ);
	/* A hole. */
	assert_int_equal(run_job(other, &job), -EFAULT);
	assert_int_equal(job.fault.address, BASE + 2 * MiB);
	assert_int_equal(job.fault.error, -EFAULT);
	job.command.va = BASE;
	assert_int_equal(run_job(other, &job), -EIO);
	/* Contained ones leave theirs usable. */
	assert_int_equal(device_write(&w, 0, BASE + 4 * MiB + 24, &word, 8), -EPERM);
	assert_int_equal(device_read(&w, 0, BASE + 4 * MiB + 24, &word, 8), 0);
	assert_int_equal(device_write(&w, 0, 4096, &word, 8), -EFAULT);
	assert_int_equal(device_write(&w, 0, ~(u64)0 << 40, &word, 8), -EFAULT);
	assert_int_equal(device_write(&w, 0, BASE, &word, 8), 0);
	/* PROT_NONE. */
	assert_int_equal(model_mprotect(w.mm, BASE, BASE + 4096, 0), 0);
	assert_int_equal(device_read(&w, 0, BASE, &word, 8), -EFAULT);
	assert_int_equal(device_read(&w, 0, BASE + 4096, &word, 8), 0);
	assert_int_equal(stats(&w, 0).device_faults_fatal, 5);
	assert_int_equal(events[DRIVER_EVENT_FATAL_FAULT], 5);
	gpusvm_driver_queue_destroy(other);
	world_close(&w);
}

static void test_lost_and_repeated_notifications(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 8 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 8 * MiB, 1);
	gpusvm_soft_misbehave(w.device[0], GPUSVM_SOFT_DUPLICATE_FAULT, 1);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	device_expect(&w, 0, BASE + 2 * MiB, 2 * MiB, 1);
	gpusvm_soft_misbehave(w.device[0], GPUSVM_SOFT_DROP_FAULT, 1);
	device_expect(&w, 0, BASE + 4 * MiB, 4 * MiB, 1);
	world_close(&w);
}

/* Calls beyond the device's lanes are served by workers, at once. */
static void test_workers(void **state)
{
	u64 best = HOST_FOREVER;
	struct world w;

	world_open(&w);
	add_device(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, 16 * MiB, MODEL_RW);
	host_add_return(&w.driver->devices[0]->servers, 2);
	for (u64 i = 0; i < 8; i++) {
		u64 started = host_now();

		device_fill(&w, 0, BASE + i * 2 * MiB, 8, i);
		best = host_min(best, host_now() - started);
	}
	host_add_return(&w.driver->devices[0]->servers, (u32)-2);
	assert_true(best < 90 * HOST_MSEC); /* not by the watchdog */
	assert_int_equal(stats(&w, 0).device_faults, 8);
	world_close(&w);
}

/* A copy that fails leaves everything where it was. */
static void test_failed_copy_maps_in_place(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	gpusvm_soft_misbehave(w.device[0], GPUSVM_SOFT_FAIL_COPY, 1);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	assert_int_equal(where(&w, BASE).location, DRIVER_SYSTEM);
	driver_memory_drain(w.driver->devices[0]);
	assert_int_equal(stats(&w, 0).vram_used, 0);
	device_fill(&w, 0, BASE, 2 * MiB, 2);
	cpu_expect(&w, BASE, 2 * MiB, 2);
	world_close(&w);
}

/* ---- Memory pressure ------------------------------------------------------------ */

static void test_oversubscription(void **state)
{
	struct gpusvm_driver_stats s;
	struct world w;
	u64 at;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	map(&w, BASE, 16 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 16 * MiB, 1);
	for (unsigned round = 1; round < 3; round++)
		for (at = 0; at < 16 * MiB; at += 2 * MiB) {
			device_expect(&w, 0, BASE + at, 2 * MiB, round);
			device_fill(&w, 0, BASE + at, 2 * MiB, round + 1);
			assert_true(stats(&w, 0).vram_used <= 4 * MiB);
		}
	cpu_expect(&w, BASE, 16 * MiB, 3);
	s = stats(&w, 0);
	assert_true(s.evictions >= 8);
	assert_true(s.vram_peak <= 4 * MiB);
	world_close(&w);
}

/* Two sides of a copy that do not fit at once. */
static void test_copy_larger_than_memory(void **state)
{
	struct world w;

	world_open_for(&w, HOST_MSEC);
	add_device(&w, 2 * MiB, 0);
	map(&w, BASE, 8 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	assert_int_equal(device_copy(&w, 0, BASE + 4 * MiB, BASE, 4 * MiB), 0);
	device_expect(&w, 0, BASE, 4 * MiB, 1);
	for (u64 i = 0; i < 4 * MiB; i += 65536) {
		u64 a, b;

		cpu_read(&w, BASE + i, &a, 8);
		cpu_read(&w, BASE + 4 * MiB + i, &b, 8);
		assert_int_equal(a, b);
	}
	world_close(&w);
}

static void test_eviction_spares_what_was_used(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 6 * MiB, 0);
	map(&w, BASE, 16 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 16 * MiB, 1);
	for (u64 i = 0; i < 3; i++)
		prefetch(&w, BASE + i * 2 * MiB, 2 * MiB, 0);
	/* All were mapped once; from here on the first is used again. */
	for (u64 i = 3; i < 6; i++) {
		/* An invalidation that leaves it on the device, then a fault. */
		assert_int_equal(model_mprotect(w.mm, BASE, BASE + 2 * MiB, MODEL_READ), 0);
		assert_int_equal(model_mprotect(w.mm, BASE, BASE + 2 * MiB, MODEL_RW), 0);
		device_expect(&w, 0, BASE, 2 * MiB, 1);
		device_expect(&w, 0, BASE + i * 2 * MiB, 2 * MiB, 1);
	}
	assert_int_equal(where(&w, BASE).location, 0);
	cpu_expect(&w, BASE, 16 * MiB, 1);
	world_close(&w);
}

static void test_scattered_frames(void **state)
{
	struct driver_device *dd;
	struct driver_bo bo = { 0 };
	u64 held[8], frame;
	struct world w;

	world_open(&w);
	add_device(&w, 2 * MiB, 0);
	dd = w.driver->devices[0];
	/* Every other 64K of the first half is taken. */
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(take_frames(dd, 4, 16, &held[i]), 0);
		assert_int_equal(take_frames(dd, 4, 16, &frame), 0);
		give_frames(dd, frame, 16);
	}
	for (unsigned n = 1; n <= 384; n += 37) {
		memset(&bo, 0, sizeof(bo));
		bo.device = dd;
		if (alloc_frames(dd, &bo, n))
			continue;
		for (unsigned i = 0; i < n; i++)
			for (unsigned k = 0; k < i; k++)
				assert_int_not_equal(bo_frame(&bo.base, i), bo_frame(&bo.base, k));
		assert_int_equal(stats(&w, 0).vram_used, (8 * 16 + n) * HOST_PAGE_SIZE);
		for (unsigned i = 0; i < n; i++)
			defer_frames(dd, bo_frame(&bo.base, i), 0);
		driver_memory_drain(dd);
		host_free(bo.blocks);
	}
	assert_int_equal(alloc_frames(dd, &bo, 500), -ENOSPC);
	for (unsigned i = 0; i < 8; i++)
		give_frames(dd, held[i], 16);
	assert_int_equal(stats(&w, 0).vram_used, 0);
	assert_int_equal(dd->ops->memory_free_bytes(dd->device), 2 * MiB);
	/* In real life: a fragmented device holds 2M in small blocks. */
	assert_int_equal(take_frames(dd, 0, 1, &frame), 0);
	map(&w, BASE, 2 * MiB, MODEL_RW | MODEL_THP);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	device_fill(&w, 0, BASE, 2 * MiB, 2);
	cpu_expect(&w, BASE, 2 * MiB, 2);
	driver_memory_drain(dd);
	give_frames(dd, frame, 1);
	assert_int_equal(dd->ops->memory_free_bytes(dd->device), 2 * MiB);
	world_close(&w);
}

/* Pages bounce between the CPU and the device: they are left in place for a while. */
static void test_thrashing_is_throttled(void **state)
{
	struct world w;
	u64 moved, i;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 65536, MODEL_RW);
	for (i = 0; i < 400 && !stats(&w, 0).throttles; i++) {
		cpu_fill(&w, BASE, 8, i);
		device_expect(&w, 0, BASE, 8, i);
	}
	assert_true(stats(&w, 0).throttles);
	assert_true(events[DRIVER_EVENT_THROTTLE]);
	moved = stats(&w, 0).pages_to_device;
	cpu_fill(&w, BASE, 8, 1);
	device_expect(&w, 0, BASE, 8, 1);
	assert_int_equal(stats(&w, 0).pages_to_device, moved);
	world_close(&w);
}

/* The CPU takes a few pages of a range: the rest stays, and only what is missing
 * moves back. */
static void test_mixed_range(void **state)
{
	struct gpusvm_driver_stats before, after;
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	cpu_fill(&w, BASE + MiB, 8, 2);
	before = stats(&w, 0);
	assert_true(before.pages_to_system < 512);
	assert_int_equal(where(&w, BASE).location, 0);
	assert_int_equal(where(&w, BASE).mapped_by, 0);
	assert_int_equal(where(&w, BASE + MiB).location, DRIVER_SYSTEM);
	device_expect(&w, 0, BASE, MiB, 1);
	device_expect(&w, 0, BASE + MiB, 8, 2);
	device_expect(&w, 0, BASE + MiB + 8, MiB - 8, 1);
	after = stats(&w, 0);
	assert_int_equal(after.device_faults, 2);
	assert_int_equal(after.pages_to_device - before.pages_to_device, before.pages_to_system);
	assert_int_equal(after.vram_peak, 2 * MiB);
	world_close(&w);
}

/* ---- Changes of mappings ----------------------------------------------------------- */

static void test_unmap(void **state)
{
	u64 word;
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	device_expect(&w, 0, BASE, 4 * MiB, 1);
	/* In part: the rest stays on the device. */
	assert_int_equal(model_munmap(w.mm, BASE, BASE + 64 * 4096), 0);
	assert_int_equal(device_read(&w, 0, BASE, &word, 8), -EFAULT);
	assert_int_equal(where(&w, BASE + MiB).location, 0);
	assert_int_equal(where(&w, BASE).flags, 0);
	device_expect(&w, 0, BASE + 64 * 4096, 2 * MiB - 64 * 4096, 1);
	assert_int_equal(stats(&w, 0).pages_to_system, 0);
	/* Whole, and mapped anew. */
	assert_int_equal(model_munmap(w.mm, BASE, BASE + 4 * MiB), 0);
	assert_int_equal(device_read(&w, 0, BASE + 3 * MiB, &word, 8), -EFAULT);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	word = 7;
	assert_int_equal(device_read(&w, 0, BASE + 3 * MiB, &word, 8), 0);
	assert_int_equal(word, 0);
	driver_garbage_collect(w.driver);
	driver_memory_drain(w.driver->devices[0]);
	assert_int_equal(stats(&w, 0).vram_used, 2 * MiB);
	world_close(&w);
}

static void test_mremap(void **state)
{
	u64 word;
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 4 * MiB, 0);
	device_expect(&w, 0, BASE, 4 * MiB, 0);
	device_fill(&w, 0, BASE, 8, 5);
	assert_int_equal(model_mremap(w.mm, BASE, BASE + 2 * MiB, BASE + 64 * MiB, false), 0);
	assert_int_equal(device_read(&w, 0, BASE, &word, 8), -EFAULT);
	assert_int_equal(where(&w, BASE + 64 * MiB).location, 0);
	assert_int_equal(device_read(&w, 0, BASE + 64 * MiB, &word, 8), 0);
	assert_int_equal(word, word_at(BASE, 5));
	cpu_read(&w, BASE + 64 * MiB + 8, &word, 8);
	assert_int_equal(word, word_at(BASE + 8, 0));
	/* DONTUNMAP: the old place is zeros. */
	assert_int_equal(model_mremap(w.mm, BASE + 2 * MiB, BASE + 4 * MiB, BASE + 32 * MiB, true),
			 0);
	assert_int_equal(device_read(&w, 0, BASE + 2 * MiB, &word, 8), 0);
	assert_int_equal(word, 0);
	assert_int_equal(device_read(&w, 0, BASE + 32 * MiB, &word, 8), 0);
	assert_int_equal(word, word_at(BASE + 2 * MiB, 0));
	world_close(&w);
}

static void test_protect_and_discard(void **state)
{
	u64 word = 3;
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	device_fill(&w, 0, BASE, 2 * MiB, 2);
	assert_int_equal(model_mprotect(w.mm, BASE, BASE + 2 * MiB, MODEL_READ), 0);
	assert_int_equal(device_write(&w, 0, BASE, &word, 8), -EPERM);
	device_expect(&w, 0, BASE, 2 * MiB, 2);
	assert_int_equal(model_mprotect(w.mm, BASE, BASE + 2 * MiB, MODEL_RW), 0);
	assert_int_equal(device_write(&w, 0, BASE, &word, 8), 0);
	assert_int_equal(model_dontneed(w.mm, BASE, BASE + MiB), 0);
	assert_int_equal(device_read(&w, 0, BASE, &word, 8), 0);
	assert_int_equal(word, 0);
	device_expect(&w, 0, BASE + MiB, MiB, 2);
	world_close(&w);
}

static void test_fork_is_a_snapshot(void **state)
{
	struct mm *child;
	u64 word;
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	device_fill(&w, 0, BASE, MiB, 2);
	gpusvm_driver_pause(w.driver);
	assert_int_equal(model_fork(w.mm, &child), 0);
	gpusvm_driver_resume(w.driver);
	device_fill(&w, 0, BASE, MiB, 3);
	assert_int_equal(model_cpu_read(child, BASE + 8, &word, 8), 0);
	assert_int_equal(word, word_at(BASE + 8, 2));
	assert_int_equal(model_cpu_read(child, BASE + MiB, &word, 8), 0);
	assert_int_equal(word, word_at(BASE + MiB, 1));
	cpu_expect(&w, BASE, MiB, 3);
	model_mm_destroy(child);
	world_close(&w);
}

/* An access that was open when its page moved: the move waits until it is over. */
struct slow {
	struct gpusvm_device *device;
	u32 open; /* atomic */
	u64 va;
};

static void slow_write(struct gpusvm_lane *lane, u64 item, const void *args)
{
	struct slow *slow = *(struct slow *const *)args;
	u64 length = 8, *p;

	p = slow->device->ops->lane_access(lane, slow->va, &length, GPUSVM_ACCESS_WRITE);
	host_store_release(&slow->open, 1);
	host_sleep(50 * HOST_MSEC);
	*p = 4242;
}

static void test_open_access_holds_a_move_off(void **state)
{
	struct world w;
	struct slow slow = { .va = BASE + 8 }, *args = &slow;
	struct gpusvm_job job = { .command = { .type = GPUSVM_COMMAND_CALL, .fn = slow_write,
					       .args = &args, .items = 1 } };
	struct gpusvm_fence done;
	u64 word;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	slow.device = w.device[0];
	map(&w, BASE, 2 * MiB, MODEL_RW);
	for (unsigned round = 0; round < 2; round++) {
		slow.open = 0;
		gpusvm_fence_init(&done, NULL);
		job.done = &done;
		gpusvm_driver_submit(w.queue[0], &job);
		while (!host_load_acquire(&slow.open))
			host_sleep(HOST_MSEC);
		if (round)
			prefetch(&w, BASE, 2 * MiB, DRIVER_SYSTEM);
		else
			assert_int_equal(gpusvm_driver_evict(w.driver, 0, DRIVER_CAUSE_EVICTION),
					 0);
		cpu_read(&w, BASE + 8, &word, 8);
		assert_int_equal(word, 4242);
		assert_int_equal(gpusvm_fence_wait(&done, host_now() + HANG, NULL), 0);
		gpusvm_fence_fini(&done);
		word = 0;
		cpu_write(&w, BASE + 8, &word, 8);
	}
	world_close(&w);
}

/* An invalidation begins between the look at a range and its commit, and is slow
 * to end since another device's flush is: what was looked up is gone by then. */
static struct {
	struct world *w;
	pthread_t thread;
	u32 armed, flushing; /* atomics */
	bool unmap;
} between;

static void *between_main(void *arg)
{
	struct mm *mm = between.w->mm;

	if (between.unmap)
		assert_int_equal(model_munmap(mm, BASE, BASE + 2 * MiB), 0);
	else
		assert_int_equal(model_dontneed(mm, BASE, BASE + 2 * MiB), 0);
	return NULL;
}

static int between_prepare(struct gpusvm_device_vm *vm, u64 va, u64 length, bool small)
{
	if (host_xchg(&between.armed, 0)) {
		pthread_create(&between.thread, NULL, between_main, NULL);
		while (!host_load_acquire(&between.flushing))
			host_sleep(100 * HOST_USEC);
	}
	return real_ops->vm_prepare(vm, va, length, small);
}

static void between_flush_wait(struct gpusvm_device_vm *vm, u64 va, u64 length, u64 ticket)
{
	host_store_release(&between.flushing, 1);
	host_sleep(50 * HOST_MSEC);
	real_ops->vm_flush_wait(vm, va, length, ticket);
}

static void hook_between(struct gpusvm_device_ops *ops)
{
	ops->vm_prepare = between_prepare;
	ops->vm_flush_wait = between_flush_wait;
}

static void test_nothing_stale_is_committed(void **state)
{
	struct gpusvm_addr addr;
	struct world w;
	u64 word, got;

	hook_ops = hook_between;
	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	add_device(&w, 8 * MiB, 0);
	hook_ops = NULL;
	between.w = &w;
	for (word = 1; word < 3; word++) {
		int err;

		map(&w, BASE, 2 * MiB, MODEL_RW | MODEL_SHARED);
		device_fill(&w, 1, BASE, 2 * MiB, 1);
		between.unmap = word == 2;
		between.flushing = 0;
		host_store_release(&between.armed, 1);
		err = device_write(&w, 0, BASE, &word, 8);
		assert_int_equal(between.armed, 0);
		pthread_join(between.thread, NULL);
		if (between.unmap) {
			assert_int_equal(err, -EFAULT);
			assert_false(real_ops->vm_query(w.driver->devices[0]->vm, BASE, &addr));
			continue;
		}
		assert_int_equal(err, 0);
		cpu_read(&w, BASE, &got, 8);
		assert_int_equal(got, word);
	}
	world_close(&w);
}

/* ---- Prefetch, residency, eviction on request ----------------------------------------- */

static void test_prefetch(void **state)
{
	struct gpusvm_migrate_result moved;
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 3 * MiB, MODEL_RW);
	map(&w, BASE + 3 * MiB, MiB, MODEL_RW | MODEL_SHARED);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	moved = prefetch(&w, BASE, 5 * MiB, 0);
	assert_int_equal(moved.moved, 768);
	assert_int_equal(moved.stayed, 256);
	assert_int_equal(moved.holes, 256);
	/* It is mapped, the part in system memory too. */
	device_expect(&w, 0, BASE, 4 * MiB, 1);
	assert_int_equal(stats(&w, 0).device_faults, 0);
	moved = prefetch(&w, BASE, 3 * MiB, 0);
	assert_int_equal(moved.already, 768);
	device_fill(&w, 0, BASE, 3 * MiB, 2);
	/* Part by part. */
	moved = prefetch(&w, BASE + 4096, 4096, DRIVER_SYSTEM);
	assert_int_equal(moved.moved, 1);
	moved = prefetch(&w, BASE, 2 * MiB, 0);
	assert_true(moved.moved == 1 && moved.already == 511);
	moved = prefetch(&w, BASE, 5 * MiB, DRIVER_SYSTEM);
	assert_true(moved.moved == 768 && moved.already == 256 && moved.holes == 256);
	cpu_expect(&w, BASE, 3 * MiB, 2);
	assert_int_equal(stats(&w, 0).cpu_faults, 0);
	world_close(&w);
}

static void test_prefetch_strict(void **state)
{
	struct gpusvm_migrate_result moved;
	struct gpusvm_driver *d;
	struct world w;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	d = w.driver;
	map(&w, BASE, 8 * MiB, MODEL_RW);
	map(&w, BASE + 8 * MiB, 2 * MiB, MODEL_RW | MODEL_SHARED);
	cpu_fill(&w, BASE, 10 * MiB, 1);
	assert_int_equal(gpusvm_driver_prefetch(d, BASE, BASE + 2 * MiB, 0, true, &moved), 0);
	assert_int_equal(gpusvm_driver_prefetch(d, BASE, BASE + 6 * MiB, 0, true, &moved), -ENOSPC);
	assert_int_equal(gpusvm_driver_prefetch(d, BASE + 8 * MiB, BASE + 10 * MiB, 0, true,
						&moved),
			 -ENOENT);
	assert_int_equal(moved.stayed, 512);
	assert_int_equal(gpusvm_driver_prefetch(d, BASE + 10 * MiB, BASE + 12 * MiB, 0, true,
						&moved),
			 -ENOENT);
	assert_int_equal(moved.holes, 512);
	model_set_busy(w.mm, BASE + 2 * MiB, BASE + 2 * MiB + 4096, true);
	assert_int_equal(gpusvm_driver_prefetch(d, BASE + 2 * MiB, BASE + 4 * MiB, 0, true, &moved),
			 -EBUSY);
	assert_true(moved.moved == 511 && moved.stayed == 1);
	model_set_busy(w.mm, BASE + 2 * MiB, BASE + 2 * MiB + 4096, false);
	/* What has been made read-only since is where it was. */
	assert_int_equal(model_mprotect(w.mm, BASE, BASE + MiB, MODEL_READ), 0);
	assert_int_equal(gpusvm_driver_prefetch(d, BASE, BASE + 2 * MiB, 0, true, &moved), 0);
	assert_int_equal(moved.already, 512);
	assert_int_equal(gpusvm_driver_prefetch(d, BASE, BASE + 1, 0, true, &moved), -EINVAL);
	assert_int_equal(gpusvm_driver_prefetch(d, BASE, BASE + 4096, 1, true, &moved), -EINVAL);
	cpu_expect(&w, BASE, 8 * MiB, 1);
	world_close(&w);
}

static void test_evict_all(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 6 * MiB, MODEL_RW);
	device_fill(&w, 0, BASE, 6 * MiB, 1);
	assert_int_equal(gpusvm_driver_evict(w.driver, -1, DRIVER_CAUSE_EVICTION), 0);
	assert_int_equal(stats(&w, -1).vram_used, 0);
	assert_int_equal(where(&w, BASE).location, DRIVER_SYSTEM);
	assert_int_equal(where(&w, BASE).mapped_by, 0);
	cpu_expect(&w, BASE, 6 * MiB, 1);
	assert_int_equal(stats(&w, 0).cpu_faults, 0);
	assert_int_equal(gpusvm_driver_evict(w.driver, 3, DRIVER_CAUSE_EVICTION), -EINVAL);
	world_close(&w);
}

/* ---- Several devices, coming and going --------------------------------------------------- */

static void test_two_devices(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	device_fill(&w, 0, BASE, MiB, 2);
	device_expect(&w, 1, BASE, MiB, 2);
	device_expect(&w, 1, BASE + MiB, MiB, 1);
	assert_int_equal(where(&w, BASE).location, 1);
	device_fill(&w, 1, BASE, 2 * MiB, 3);
	device_expect(&w, 0, BASE, 2 * MiB, 3);
	cpu_expect(&w, BASE, 2 * MiB, 3);
	world_close(&w);
}

static void test_unbind(void **state)
{
	struct gpusvm_device_caps caps;
	struct gpusvm_migrate_result moved;
	struct gpusvm_driver_queue *q;
	u64 word;
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	device_fill(&w, 0, BASE, 4 * MiB, 1);
	assert_int_equal(gpusvm_driver_device_remove(w.driver, 0), 0);
	assert_int_equal(gpusvm_driver_device_remove(w.driver, 0), -ENODEV);
	assert_int_equal(gpusvm_driver_device_caps(w.driver, 0, &caps), -ENODEV);
	assert_int_equal(gpusvm_driver_device_caps(w.driver, 2, &caps), -EINVAL);
	assert_int_equal(gpusvm_driver_queue_create(w.driver, 0, &q), -ENODEV);
	assert_int_equal(gpusvm_driver_prefetch(w.driver, BASE, BASE + 4096, 0, false, &moved),
			 -ENODEV);
	assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE, BASE + 4096, false), -ENODEV);
	assert_int_equal(device_read(&w, 0, BASE, &word, 8), -ENODEV);
	assert_int_equal(where(&w, BASE).location, DRIVER_SYSTEM);
	assert_int_equal(gpusvm_driver_device_count(w.driver), 2);
	cpu_expect(&w, BASE, 2 * MiB, 1);
	device_expect(&w, 1, BASE, 4 * MiB, 1);
	assert_int_equal(add_device(&w, 8 * MiB, 0), 2);
	device_expect(&w, 2, BASE, 4 * MiB, 1);
	world_close(&w);
}

/* A population that had begun when the device was removed. */
static u32 populating;

static void dwell(const struct gpusvm_driver_event *event)
{
	if (event->type != DRIVER_EVENT_MIGRATE || event->to != 0)
		return;
	host_store_release(&populating, 1);
	host_sleep(50 * HOST_MSEC);
}

static void *populate_main(void *arg)
{
	struct gpusvm_migrate_result moved;
	struct world *w = arg;

	gpusvm_driver_prefetch(w->driver, BASE, BASE + 2 * MiB, 0, false, &moved);
	return NULL;
}

static void test_unbind_waits_for_population(void **state)
{
	pthread_t thread;
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	populating = 0;
	on_event = dwell;
	pthread_create(&thread, NULL, populate_main, &w);
	while (!host_load_acquire(&populating))
		host_sleep(HOST_MSEC);
	assert_int_equal(gpusvm_driver_device_remove(w.driver, 0), 0);
	on_event = NULL;
	assert_int_equal(where(&w, BASE).location, DRIVER_SYSTEM);
	assert_int_equal(where(&w, BASE).mapped_by, 0);
	pthread_join(thread, NULL);
	cpu_expect(&w, BASE, 2 * MiB, 1);
	world_close(&w);
}

/* The process is gone before the driver: its data has nowhere to go. */
static void test_exit_of_the_address_space(void **state)
{
	struct world w;
	u64 word = 1;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	device_fill(&w, 0, BASE, 4 * MiB, 1);
	model_mm_exit(w.mm);
	assert_int_equal(device_write(&w, 0, BASE, &word, 8), -EFAULT);
	assert_int_equal(gpusvm_driver_evict(w.driver, 0, DRIVER_CAUSE_EVICTION), 0);
	assert_int_equal(stats(&w, 0).vram_used, 0);
	world_close(&w);
}

/* ---- Bind ------------------------------------------------------------------------------ */

static void test_bind_for_a_device_that_faults(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	map(&w, BASE + 4 * MiB, 2 * MiB, MODEL_READ);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE, BASE + 4 * MiB, false), 0);
	device_expect(&w, 0, BASE, 4 * MiB, 1);
	assert_int_equal(stats(&w, 0).device_faults, 0);
	assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE + 4 * MiB, BASE + 6 * MiB, false),
			 -EPERM);
	assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE + 4 * MiB, BASE + 6 * MiB, true), 0);
	assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE, BASE + 8 * MiB, true), -EFAULT);
	assert_int_equal(gpusvm_driver_unbind(w.queue[0], BASE, BASE + MiB), 0);
	assert_int_equal(gpusvm_driver_unbind(w.queue[0], BASE, BASE + MiB), -ENOENT);
	assert_int_equal(gpusvm_driver_unbind(w.queue[0], BASE, BASE + 4 * MiB), 0);
	assert_int_equal(gpusvm_driver_unbind(w.queue[0], BASE + 4 * MiB, BASE + 6 * MiB), 0);
	assert_int_equal(gpusvm_driver_unbind(w.queue[0], BASE + 4 * MiB, BASE + 6 * MiB), -ENOENT);
	world_close(&w);
}

static void test_bind_for_a_device_that_cannot_fault(void **state)
{
	const u64 page = 4096;
	u64 word = 1;
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, GPUSVM_DEVICE_NO_FAULT);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	assert_int_equal(device_read(&w, 0, BASE, &word, 8), -EFAULT);
	assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE + page, BASE + 5 * page, false), 0);
	device_expect(&w, 0, BASE + page, 4 * page, 1);
	/* That and nothing else. */
	assert_int_equal(device_read(&w, 0, BASE, &word, 8), -EFAULT);
	assert_int_equal(device_read(&w, 0, BASE + 5 * page, &word, 8), -EFAULT);
	assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE + MiB, BASE + 4 * MiB, true), 0);
	device_expect(&w, 0, BASE + MiB, 3 * MiB, 1);
	assert_int_not_equal(device_write(&w, 0, BASE + MiB, &word, 8), 0);
	device_fill(&w, 0, BASE + page, 4 * page, 2);
	/* After any invalidation. */
	prefetch(&w, BASE, 4 * MiB, 0);
	device_expect(&w, 0, BASE + page, 4 * page, 2);
	assert_int_equal(where(&w, BASE + page).location, 0);
	cpu_fill(&w, BASE + 2 * page, page, 3);
	device_expect(&w, 0, BASE + 2 * page, page, 3);
	device_expect(&w, 0, BASE + MiB, 3 * MiB, 1);
	/* A part goes. */
	assert_int_equal(gpusvm_driver_unbind(w.queue[0], BASE + 2 * page, BASE + 3 * page), 0);
	assert_int_equal(device_read(&w, 0, BASE + 2 * page, &word, 8), -EFAULT);
	device_expect(&w, 0, BASE + page, page, 2);
	device_expect(&w, 0, BASE + 3 * page, 2 * page, 2);
	assert_int_equal(gpusvm_driver_unbind(w.queue[0], BASE + 2 * page, BASE + 3 * page),
			 -ENOENT);
	assert_int_equal(model_munmap(w.mm, BASE, BASE + 4 * MiB), 0);
	assert_int_equal(device_read(&w, 0, BASE + page, &word, 8), -EFAULT);
	world_close(&w);
}

/* ---- Things that fail ---------------------------------------------------------------------- */

static void test_failures_of_the_home(void **state)
{
	for (unsigned site = 0; site < MODEL_SITES; site++)
		for (u64 skip = 0; skip < 4; skip++) {
			struct world w;
			u64 word = 0;
			int err;

			world_open(&w);
			add_device(&w, 8 * MiB, 0);
			map(&w, BASE, 4 * MiB, MODEL_RW | (skip & 1 ? MODEL_THP : 0));
			cpu_fill(&w, BASE, 4 * MiB, 1);
			model_fail(w.mm, (enum model_site)site, skip, 2);
			err = device_read(&w, 0, BASE, &word, 8);
			assert_true(err || word == word_at(BASE, 1));
			device_expect(&w, 0, BASE, 2 * MiB, 1);
			device_fill(&w, 0, BASE, 2 * MiB, 2);
			model_fail(w.mm, (enum model_site)site, skip, 2);
			gpusvm_driver_evict(w.driver, 0, DRIVER_CAUSE_EVICTION);
			model_fail(w.mm, (enum model_site)site, 0, 0);
			cpu_expect(&w, BASE, 2 * MiB, 2);
			device_expect(&w, 0, BASE + 2 * MiB, 2 * MiB, 1);
			world_close(&w);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_touch_moves_2m),
		cmocka_unit_test(test_huge_pages_stay_whole),
		cmocka_unit_test(test_device_without_memory_maps_in_place),
		cmocka_unit_test(test_unmigratable_memory_is_mapped_in_place),
		cmocka_unit_test(test_untouched_memory_is_zeros),
		cmocka_unit_test(test_small_mappings),
		cmocka_unit_test(test_fatal_faults_end_their_queue_only),
		cmocka_unit_test(test_lost_and_repeated_notifications),
		cmocka_unit_test(test_workers),
		cmocka_unit_test(test_failed_copy_maps_in_place),
		cmocka_unit_test(test_oversubscription),
		cmocka_unit_test(test_copy_larger_than_memory),
		cmocka_unit_test(test_eviction_spares_what_was_used),
		cmocka_unit_test(test_scattered_frames),
		cmocka_unit_test(test_thrashing_is_throttled),
		cmocka_unit_test(test_mixed_range),
		cmocka_unit_test(test_unmap),
		cmocka_unit_test(test_mremap),
		cmocka_unit_test(test_protect_and_discard),
		cmocka_unit_test(test_fork_is_a_snapshot),
		cmocka_unit_test(test_open_access_holds_a_move_off),
		cmocka_unit_test(test_nothing_stale_is_committed),
		cmocka_unit_test(test_prefetch),
		cmocka_unit_test(test_prefetch_strict),
		cmocka_unit_test(test_evict_all),
		cmocka_unit_test(test_two_devices),
		cmocka_unit_test(test_unbind),
		cmocka_unit_test(test_unbind_waits_for_population),
		cmocka_unit_test(test_exit_of_the_address_space),
		cmocka_unit_test(test_bind_for_a_device_that_faults),
		cmocka_unit_test(test_bind_for_a_device_that_cannot_fault),
		cmocka_unit_test(test_failures_of_the_home),
	};

	return cmocka_run_group_tests_name("driver", tests, work_setup, work_teardown);
}
