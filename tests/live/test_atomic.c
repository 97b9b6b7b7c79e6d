/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_atomic.c: atomics on a live process: several devices and the CPU count in one
 * word, by each kind of advice, and the sum is exact; exclusive access. */
#include "tests/live/api.h"

#include <stdatomic.h>

#define DEVICES 4
#define ITEMS 20000u

static struct gpusvm_queue *queues[DEVICES];

static int setup_without(uint64_t without)
{
	struct gpusvm_device_desc devices[DEVICES];
	struct gpusvm_options options = {
	    .size = sizeof(options),
	    .devices = devices,
	    .n_devices = DEVICES,
	    .timeslice_ns = 20000,
	    .home_without = without,
	};
	int err;

	/* One of them has no memory of its own. */
	for (unsigned i = 0; i < DEVICES; i++)
		devices[i] = (struct gpusvm_device_desc){
			.size = sizeof(devices[i]),
			.vram_bytes = i == 2 ? 0 : 8 * MB,
			.flags = i == 2 ? GPUSVM_DEVICE_NO_VRAM : 0,
		};
	err = gpusvm_open(&options, &svm);
	for (unsigned i = 0; !err && i < DEVICES; i++)
		err = gpusvm_queue_create(svm, (int)i, NULL, &queues[i]);
	queue = queues[0];
	return err;
}

static int setup_devices(void **state)
{
	return setup_without(0);
}

static int setup_without_move(void **state)
{
	return setup_without(GPUSVM_WITHOUT_MOVE);
}

static void add_kernel(struct gpusvm_lane *lane, uint64_t item, const void *args)
{
	uint64_t *const *words = args;

	if (item % 2)
		gpusvm_atomic_add64(lane, *words, 1);
	else
		gpusvm_atomic_add32(lane, *words + 1, 1);
}

/* In four pages. */
static void count_sums(unsigned char *page, int64_t advice)
{
	struct gpusvm_kernel kernel = {.size = sizeof(kernel), .fn = add_kernel};
	_Atomic uint64_t *words = (_Atomic uint64_t *)(void *)(page + PAGE);
	void *args = (void *)words;
	struct gpusvm_event *events[DEVICES];

	assert_int_equal(gpusvm_advise(svm, page, 4 * PAGE, GPUSVM_ATOMIC, advice, gpusvm_none()),
			 0);
	for (unsigned i = 0; i < DEVICES; i++)
		assert_int_equal(
			gpusvm_launch(queues[i], &kernel, &args, sizeof(args), ITEMS, &events[i]),
			0);
	for (unsigned i = 0; i < ITEMS / 2; i++) {
		atomic_fetch_add(&words[0], 1);
		atomic_fetch_add((_Atomic uint32_t *)&words[1], 1);
	}
	for (unsigned i = 0; i < DEVICES; i++) {
		assert_int_equal(gpusvm_event_wait(events[i], -1), 0);
		gpusvm_event_put(events[i]);
	}
	assert_int_equal(words[0], (DEVICES + 1) * ITEMS / 2);
	assert_int_equal((uint32_t)words[1], (DEVICES + 1) * ITEMS / 2);
}

static void count_together(int64_t advice)
{
	unsigned char *page = map_pages(4, PROT_READ | PROT_WRITE);

	count_sums(page, advice);
	munmap(page, 4 * PAGE);
}

static void test_count_undefined(void **state)
{
	count_together(GPUSVM_ATOMIC_UNDEFINED);
}

static void test_count_device(void **state)
{
	count_together(GPUSVM_ATOMIC_DEVICE);
}

static void test_count_global(void **state)
{
	count_together(GPUSVM_ATOMIC_GLOBAL);
}

/* Nothing moves to a device: each takes the page where it is. */
static void test_count_in_place(void **state)
{
	unsigned char *page = map_pages(4, PROT_READ | PROT_WRITE);
	struct gpusvm_stats stats = {.size = sizeof(stats)};

	assert_int_equal(gpusvm_advise(svm, page, 4 * PAGE, GPUSVM_NO_MIGRATE, 1, gpusvm_none()),
			 0);
	count_sums(page, GPUSVM_ATOMIC_DEVICE);
	assert_int_equal(gpusvm_stats(svm, -1, &stats), 0);
	assert_int_equal(stats.pages_to_device, 0);
	munmap(page, 4 * PAGE);
}

/* The fallback: bytes are copied, of the library's memory alone. */
static void test_count_without_move(void **state)
{
	unsigned char *page = gpusvm_alloc(svm, 4 * PAGE);
	unsigned char *other = map_pages(1, PROT_READ | PROT_WRITE);

	assert_non_null(page);
	assert_int_equal(gpusvm_make_exclusive(queues[2], page, PAGE), 0);
	assert_true(where_is(page).flags & GPUSVM_PAGE_EXCLUSIVE);
	assert_int_equal(gpusvm_make_exclusive(queues[2], other, PAGE), -EOPNOTSUPP);
	assert_int_equal(gpusvm_advise(svm, page, 4 * PAGE, GPUSVM_NO_MIGRATE, 1, gpusvm_none()),
			 0);
	count_sums(page, GPUSVM_ATOMIC_DEVICE);
	gpusvm_free(svm, page);
	munmap(other, PAGE);
}

/* Memory that was dropped by MADV_FREE, and used again, stays where it is: atomics are exact
 * there, as the device's in system memory are. */
static void test_count_after_free(void **state)
{
	unsigned char *page = map_pages(4, PROT_READ | PROT_WRITE);

	memset(page, 1, 4 * PAGE);
	assert_int_equal(gpusvm_prefetch(svm, page, 4 * PAGE, gpusvm_device(0), GPUSVM_STRICT,
					 NULL, NULL),
			 0);
	assert_int_equal(gpusvm_prefetch(svm, page, 4 * PAGE, gpusvm_system(), 0, NULL, NULL), 0);
	assert_int_equal(madvise(page, 4 * PAGE, MADV_FREE), 0);
	memset(page, 0, 4 * PAGE);
	count_sums(page, GPUSVM_ATOMIC_DEVICE);
	munmap(page, 4 * PAGE);
}

static void test_atomic_of_the_cpu(void **state)
{
	struct gpusvm_kernel kernel = { .size = sizeof(kernel), .fn = add_kernel };
	unsigned char *page = map_filled(2, 0);
	struct gpusvm_fault fault = { .size = sizeof(fault) };
	struct gpusvm_event *event;
	void *args = page;

	assert_int_equal(
		gpusvm_advise(svm, page, PAGE, GPUSVM_ATOMIC, GPUSVM_ATOMIC_CPU, gpusvm_none()), 0);
	assert_int_equal(gpusvm_write(queue, page, "x", 1), 0);
	assert_int_equal(gpusvm_launch(queue, &kernel, &args, sizeof(args), 1, &event), 0);
	assert_int_equal(gpusvm_event_wait(event, -1), -EPERM);
	assert_int_equal(gpusvm_event_fault(event, &fault), 0);
	assert_int_equal(fault.access, GPUSVM_ACCESS_ATOMIC);
	assert_int_equal(fault.address, (uintptr_t)page + 8);
	gpusvm_event_put(event);
	munmap(page, 2 * PAGE);
}

static void test_exclusive(void **state)
{
	unsigned char *p = map_filled(64, 1);
	struct gpusvm_page_info info[64];

	assert_int_equal(gpusvm_make_exclusive(queue, p + 100, 8 * PAGE), 0);
	assert_int_equal(gpusvm_residency(svm, p, 64 * PAGE, info, 64, sizeof(info[0])), 0);
	for (unsigned i = 0; i < 64; i++) {
		assert_int_equal(!!(info[i].flags & GPUSVM_PAGE_EXCLUSIVE), i < 9);
		if (i < 9)
			assert_int_equal(info[i].mapped_by, 1);
	}
	/* The CPU touches one. */
	assert_int_equal(((volatile unsigned char *)p)[3 * PAGE],
			 (unsigned char)(3 * PAGE * 7 + 3 + 1));
	assert_false(where_is(p + 3 * PAGE).flags & GPUSVM_PAGE_EXCLUSIVE);
	/* Another device takes it. */
	assert_int_equal(gpusvm_make_exclusive(queues[1], p, PAGE), 0);
	assert_int_equal(where_is(p).mapped_by, 2);
	assert_true(where_is(p).flags & GPUSVM_PAGE_EXCLUSIVE);
	check_filled(p, 64, 1);
	assert_false(where_is(p).flags & GPUSVM_PAGE_EXCLUSIVE);
	munmap(p, 64 * PAGE);
}

/* A device without memory has it in system memory; so has one whose memory is full. */
static void test_exclusive_in_place(void **state)
{
	unsigned char *p = map_filled(64, 1), *big = map_filled(3072, 2);
	struct gpusvm_page_info info[64];
	uint64_t word = 77;
	int status;
	pid_t pid;

	assert_int_equal(gpusvm_make_exclusive(queues[2], p, 32 * PAGE), 0);
	assert_int_equal(gpusvm_residency(svm, p, 64 * PAGE, info, 64, sizeof(info[0])), 0);
	for (unsigned i = 0; i < 64; i++) {
		assert_int_equal(!!(info[i].flags & GPUSVM_PAGE_EXCLUSIVE), i < 32);
		assert_int_equal(info[i].location.type, GPUSVM_LOCATION_SYSTEM);
		if (i < 32)
			assert_int_equal(info[i].mapped_by, 4);
	}
	/* What it writes is there for the CPU, the kernel and a child. */
	assert_int_equal(gpusvm_write(queues[2], p + 5 * PAGE, &word, 8), 0);
	pid = fork();
	if (!pid)
		_exit(*(volatile uint64_t *)(void *)(p + 5 * PAGE) != 77);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(gpusvm_make_exclusive(queues[2], p, 32 * PAGE), 0);
	word = 78;
	assert_int_equal(gpusvm_write(queues[2], p + 5 * PAGE, &word, 8), 0);
	assert_int_equal(*(volatile uint64_t *)(void *)(p + 5 * PAGE), 78);
	assert_false(where_is(p + 5 * PAGE).flags & GPUSVM_PAGE_EXCLUSIVE);
	assert_int_equal(gpusvm_evict(svm, -1), 0);
	assert_false(where_is(p).flags & GPUSVM_PAGE_EXCLUSIVE);
	/* Whole 2M, and its end while taken. */
	assert_int_equal(gpusvm_make_exclusive(queues[2], big, 3072 * PAGE), 0);
	check_filled(big, 1024, 2);
	munmap(big, 3072 * PAGE);
	/* And at close. */
	assert_int_equal(gpusvm_make_exclusive(queues[2], p + 32 * PAGE, 32 * PAGE), 0);
	gpusvm_close(svm);
	check_filled(p + 32 * PAGE, 32, 1 + 32);
	munmap(p, 64 * PAGE);
	assert_int_equal(setup_devices(state), 0);
}

static void test_exclusive_bad_input(void **state)
{
	unsigned char *p = map_pages(4, PROT_READ | PROT_WRITE), byte;
	unsigned char *shared =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_int_equal(gpusvm_make_exclusive(NULL, p, PAGE), -EINVAL);
	assert_int_equal(gpusvm_make_exclusive(queue, (void *)UINTPTR_MAX, 2), -EINVAL);
	assert_int_equal(gpusvm_make_exclusive(queue, p, 0), 0);
	assert_int_equal(mprotect(p + PAGE, PAGE, PROT_READ), 0);
	assert_int_equal(gpusvm_make_exclusive(queue, p + PAGE, PAGE), -EPERM);
	assert_int_equal(munmap(p + 2 * PAGE, PAGE), 0);
	assert_int_equal(gpusvm_make_exclusive(queue, p + 2 * PAGE, PAGE), -EFAULT);
	assert_int_equal(gpusvm_make_exclusive(queue, shared, PAGE), -EOPNOTSUPP);
	assert_int_equal(gpusvm_make_exclusive(queues[2], shared, PAGE), -EOPNOTSUPP);
	/* The queue is usable. */
	assert_int_equal(gpusvm_read(queue, &byte, p, 1), 0);
	munmap(shared, PAGE);
	munmap(p, 4 * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_count_undefined, setup_devices, teardown),
	    cmocka_unit_test_setup_teardown(test_count_device, setup_devices, teardown),
	    cmocka_unit_test_setup_teardown(test_count_global, setup_devices, teardown),
	    cmocka_unit_test_setup_teardown(test_count_in_place, setup_devices, teardown),
	    cmocka_unit_test_setup_teardown(test_count_after_free, setup_devices, teardown),
	    cmocka_unit_test_setup_teardown(test_count_without_move, setup_without_move, teardown),
	    cmocka_unit_test_setup_teardown(test_exclusive_in_place, setup_devices, teardown),
	    cmocka_unit_test_setup_teardown(test_atomic_of_the_cpu, setup_devices, teardown),
	    cmocka_unit_test_setup_teardown(test_exclusive, setup_devices, teardown),
	    cmocka_unit_test_setup_teardown(test_exclusive_bad_input, setup_devices, teardown),
	};

	return cmocka_run_group_tests_name("atomic", tests, NULL, NULL);
}
