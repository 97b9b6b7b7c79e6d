/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_no_memory.c: a life of the driver with its n-th allocation failing, for every
 * n: opening, devices, queues, work, prefetch, advice, fork, eviction, unbinding,
 * closing. Any step may say -ENOMEM, and is then left out; nothing may be lost, and
 * nothing is left in the end.
 */
#include "tests/unit/driver_world.h"

#define PAGE ((u64)4096)
static u64 length_of_life; /* bytes that are used */

static int add_device_or_not(struct world *w, u64 vram)
{
	struct gpusvm_soft_options options = {.vram_bytes = vram, .lanes = 2};
	struct gpusvm_device *device;
	int index, err = gpusvm_soft_create(&options, &device);

	if (err)
		return err;
	index = gpusvm_driver_device_add(w->driver, device);
	if (index < 0)
		return index;
	w->device[index] = device;
	w->n_devices++;
	return gpusvm_driver_queue_create(w->driver, index, &w->queue[index]);
}

/* What an operation says under a failure. */
static void allowed(int err)
{
	if (err && err != -ENOMEM && err != -EBUSY && err != -ENOSPC && err != -EAGAIN)
		fail_msg("%d", err);
}

/* A write that failed may be done in part: what is there is read by the CPU. */
static void write_some(struct world *w, u8 *bytes, u64 at, u64 length, u8 value)
{
	u8 *fresh = malloc(length), *now = malloc(length);

	memset(fresh, value, length);
	allowed(device_write(w, 0, BASE + at, fresh, length));
	while (model_cpu_read(w->mm, BASE + at, now, length))
		; /* the one failure may hit here */
	for (u64 i = 0; i < length; i++) {
		assert_true(now[i] == bytes[at + i] || now[i] == value);
		bytes[at + i] = now[i];
	}
	free(fresh);
	free(now);
}

static void work(struct world *w, u8 *bytes)
{
	struct gpusvm_migrate_result moved;
	u8 byte;

	if (!w->queue[0])
		return;
	write_some(w, bytes, 100, 3 * PAGE, 7);
	allowed(device_read(w, 0, BASE + length_of_life / 3, &byte, 1));
	allowed(gpusvm_driver_prefetch(w->driver, BASE, BASE + length_of_life, 0, false, &moved));
	write_some(w, bytes, length_of_life - 17 * PAGE, 2 * PAGE, 9);
	allowed(gpusvm_driver_bind(w->queue[0], BASE + 8 * PAGE, BASE + 16 * PAGE, false));
	(void)gpusvm_driver_unbind(w->queue[0], BASE + 8 * PAGE, BASE + 16 * PAGE);
	allowed(gpusvm_driver_advise(w->driver, BASE, BASE + 8 * PAGE, GPUSVM_NO_MIGRATE, 1, 0));
	if (w->queue[1])
		allowed(gpusvm_driver_prefetch(w->driver, BASE + PAGE, BASE + 8 * PAGE, 1, false,
					       &moved));
	if (!model_dontneed(w->mm, BASE + 5 * PAGE, BASE + 7 * PAGE))
		memset(bytes + 5 * PAGE, 0, 2 * PAGE);
	allowed(gpusvm_driver_evict(w->driver, 0, DRIVER_CAUSE_EVICTION));
	allowed(gpusvm_driver_prefetch(w->driver, BASE, BASE + length_of_life, 0, false, &moved));
	allowed(gpusvm_driver_device_remove(w->driver, 0));
}

/* One life; the allocations that it made. */
static u64 live(u64 n, u8 *bytes)
{
	u64 first, used, left = host_posix_alloc_live();
	struct gpusvm_driver_options options = {.event = count_event};
	struct world w = {0};
	u8 *now = malloc(length_of_life);

	for (u64 i = 0; i < length_of_life; i++)
		bytes[i] = (u8)(i * 7 + (i >> 12));
	w.mm = model_mm_create();
	map(&w, BASE, length_of_life, MODEL_RW | MODEL_THP);
	cpu_write(&w, BASE, bytes, length_of_life);
	first = host_posix_alloc_count();
	host_posix_fail_alloc_at(n);
	if (gpusvm_driver_create(w.mm, &options, &w.driver) == 0) {
		allowed(add_device_or_not(&w, 4 * MiB));
		allowed(add_device_or_not(&w, 2 * MiB));
		work(&w, bytes);
		for (int i = 0; i < MAX_DEVICES; i++)
			if (w.queue[i])
				gpusvm_driver_queue_destroy(w.queue[i]);
		gpusvm_driver_destroy(w.driver);
	}
	used = host_posix_alloc_count() - first;
	host_posix_fail_alloc_at(0);
	cpu_read(&w, BASE, now, length_of_life);
	assert_memory_equal(now, bytes, length_of_life);
	assert_null(model_check(w.mm, true));
	model_mm_destroy(w.mm);
	assert_int_equal(model_frames_live(), 0);
	assert_int_equal(host_posix_alloc_live(), left);
	free(now);
	return used;
}

/* Threads make the number of allocations differ a little from life to life. */
static void test_each_allocation_fails(void **state)
{
	u8 *bytes = malloc(2 * MiB);
	u64 total;

	(void)state;
	length_of_life = 128 * 1024;
	total = live(0, bytes);
	assert_true(total > 100);
	for (u64 n = 1; n <= total + 10; n++)
		(void)live(n, bytes);
	free(bytes);
}

/* With a page of 2M; most allocations are of the pages that come home one by one. */
static void test_some_allocations_fail(void **state)
{
	u8 *bytes = malloc(3 * MiB);
	u64 total;

	(void)state;
	length_of_life = 2 * MiB + 16 * PAGE;
	total = live(0, bytes);
	for (u64 n = 1; n <= total; n += 1 + n / 20)
		(void)live(n, bytes);
	free(bytes);
}

static int setup(void **state)
{
	(void)state;
	return host_work_start();
}

static int teardown(void **state)
{
	(void)state;
	host_work_stop();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_each_allocation_fails),
	    cmocka_unit_test(test_some_allocations_fail),
	};

	return cmocka_run_group_tests_name("no_memory", tests, setup, teardown);
}
