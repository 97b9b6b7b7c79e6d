/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_advice.c: advice through <gpusvm/gpusvm.h>, on a live process: its arguments, its
 * life with real mappings, and what devices do by it. */
#define _GNU_SOURCE
#include "tests/live/api.h"

static int advise(const void *p, size_t len, enum gpusvm_advice advice, int64_t value,
		  struct gpusvm_location where)
{
	return gpusvm_advise(svm, p, len, advice, value, where);
}

static int64_t value_of(const void *p, size_t len, enum gpusvm_advice advice)
{
	int64_t value = 77;

	assert_int_equal(gpusvm_advice_get(svm, p, len, advice, &value, NULL), 0);
	return value;
}

static struct gpusvm_location where_of(const void *p, size_t len, enum gpusvm_advice advice)
{
	struct gpusvm_location where = gpusvm_none();

	assert_int_equal(gpusvm_advice_get(svm, p, len, advice, NULL, &where), 0);
	return where;
}

static void test_bad_input(void **state)
{
	unsigned char *p = map_pages(4, PROT_READ | PROT_WRITE);
	struct gpusvm_location where = gpusvm_device(0),
			       mixed = { GPUSVM_LOCATION_MIXED, -1, 0, -1 };
	int64_t value;

	assert_int_equal(advise(p, PAGE, (enum gpusvm_advice)55, 1, where), -EINVAL);
	assert_int_equal(advise(p, PAGE, GPUSVM_LAST_PREFETCH, 1, where), -EINVAL);
	assert_int_equal(advise(p, PAGE, GPUSVM_READ_MOSTLY, 1, gpusvm_none()), -EOPNOTSUPP);
	assert_int_equal(advise(p, PAGE, GPUSVM_GRANULARITY, 12, gpusvm_none()), -EINVAL);
	assert_int_equal(advise(p, PAGE, GPUSVM_ATOMIC, 4, gpusvm_none()), -EINVAL);
	assert_int_equal(advise(p, PAGE, GPUSVM_PREFERRED_LOCATION, 1, gpusvm_device(7)), -EINVAL);
	assert_int_equal(advise(p, PAGE, GPUSVM_PREFERRED_LOCATION, 1, gpusvm_device(-1)), -EINVAL);
	assert_int_equal(advise(p, PAGE, GPUSVM_PREFERRED_LOCATION, 1, gpusvm_device_region(0, 1)),
			 -EINVAL);
	assert_int_equal(advise(p, PAGE, GPUSVM_PREFERRED_LOCATION, 1, gpusvm_preferred()),
			 -EINVAL);
	assert_int_equal(advise(p, PAGE, GPUSVM_PREFERRED_LOCATION, 1, mixed), -EINVAL);
	assert_int_equal(advise(p, PAGE, GPUSVM_ACCESSED_BY, 1, gpusvm_system()), -EINVAL);
	assert_int_equal(advise(p, PAGE, GPUSVM_ACCESSED_BY, 1, gpusvm_none()), -EINVAL);
	assert_int_equal(advise((void *)UINTPTR_MAX, 2, GPUSVM_NO_MIGRATE, 1, where), -EINVAL);
	assert_int_equal(gpusvm_advise(NULL, p, PAGE, GPUSVM_NO_MIGRATE, 1, where), -EINVAL);
	assert_int_equal(gpusvm_advice_get(svm, p, PAGE, GPUSVM_RESET, &value, NULL), -EINVAL);
	assert_int_equal(gpusvm_advice_get(svm, p, PAGE, GPUSVM_ATOMIC, NULL, NULL), -EINVAL);
	assert_int_equal(gpusvm_advice_get(svm, p, PAGE, GPUSVM_ACCESSED_BY, &value, NULL),
			 -EINVAL);
	where = gpusvm_system();
	assert_int_equal(gpusvm_advice_get(svm, p, PAGE, GPUSVM_ACCESSED_BY, &value, &where),
			 -EINVAL);
	assert_int_equal(gpusvm_prefetch(svm, p, PAGE, gpusvm_faulting(), 0, NULL, NULL), -EINVAL);
	assert_int_equal(gpusvm_prefetch(svm, p, PAGE, mixed, 0, NULL, NULL), -EINVAL);
	/* A hole: nothing is set. */
	assert_int_equal(munmap(p + 2 * PAGE, PAGE), 0);
	assert_int_equal(advise(p, 4 * PAGE, GPUSVM_NO_MIGRATE, 1, gpusvm_none()), -ENOENT);
	assert_int_equal(value_of(p, 2 * PAGE, GPUSVM_NO_MIGRATE), 0);
	assert_int_equal(gpusvm_advice_get(svm, p, 4 * PAGE, GPUSVM_NO_MIGRATE, &value, NULL),
			 -ENOENT);
	/* Nothing at all is legal. */
	assert_int_equal(advise(p, 0, GPUSVM_NO_MIGRATE, 1, gpusvm_none()), 0);
	munmap(p, 4 * PAGE);
}

static void test_rounds_outward(void **state)
{
	unsigned char *p = map_pages(4, PROT_READ | PROT_WRITE);

	assert_int_equal(advise(p + PAGE + 100, PAGE, GPUSVM_GRANULARITY, 2, gpusvm_none()), 0);
	assert_int_equal(value_of(p + PAGE, 2 * PAGE, GPUSVM_GRANULARITY), 2);
	assert_int_equal(value_of(p, PAGE, GPUSVM_GRANULARITY), 0);
	assert_int_equal(value_of(p + 3 * PAGE, 1, GPUSVM_GRANULARITY), 0);
	assert_true(value_of(p + 3 * PAGE - 1, 2, GPUSVM_GRANULARITY) == GPUSVM_MIXED);
	munmap(p, 4 * PAGE);
}

static void test_locations(void **state)
{
	unsigned char *p = map_filled(8, 3);
	struct gpusvm_location where = gpusvm_device(0);
	int64_t value;

	assert_int_equal(where_of(p, PAGE, GPUSVM_PREFERRED_LOCATION).type, GPUSVM_LOCATION_NONE);
	assert_int_equal(advise(p, 4 * PAGE, GPUSVM_PREFERRED_LOCATION, 1, gpusvm_device(0)), 0);
	assert_int_equal(where_of(p, 4 * PAGE, GPUSVM_PREFERRED_LOCATION).type,
			 GPUSVM_LOCATION_DEVICE);
	assert_int_equal(where_of(p, 4 * PAGE, GPUSVM_PREFERRED_LOCATION).device, 0);
	assert_int_equal(where_of(p, 8 * PAGE, GPUSVM_PREFERRED_LOCATION).type,
			 GPUSVM_LOCATION_MIXED);
	assert_int_equal(advise(p, PAGE, GPUSVM_PREFERRED_LOCATION, 1, gpusvm_faulting()), 0);
	assert_int_equal(where_of(p, PAGE, GPUSVM_PREFERRED_LOCATION).type,
			 GPUSVM_LOCATION_FAULTING);
	assert_int_equal(advise(p, 8 * PAGE, GPUSVM_PREFERRED_LOCATION, 0, gpusvm_none()), 0);
	assert_int_equal(where_of(p, 8 * PAGE, GPUSVM_PREFERRED_LOCATION).type,
			 GPUSVM_LOCATION_NONE);
	assert_int_equal(advise(p, PAGE, GPUSVM_ACCESSED_BY, 1, where), 0);
	assert_int_equal(gpusvm_advice_get(svm, p, PAGE, GPUSVM_ACCESSED_BY, &value, &where), 0);
	assert_int_equal(value, 1);
	assert_int_equal(gpusvm_advice_get(svm, p, 8 * PAGE, GPUSVM_ACCESSED_BY, &value, &where),
			 0);
	assert_true(value == GPUSVM_MIXED);
	to_device(p, 8);
	assert_int_equal(where_of(p, 8 * PAGE, GPUSVM_LAST_PREFETCH).type, GPUSVM_LOCATION_DEVICE);
	check_filled(p, 8, 3);
	munmap(p, 8 * PAGE);
}

/* Of memory that no device ever looked at. */
static void test_goes_with_its_mapping(void **state)
{
	const size_t n = 2 * MB / PAGE;
	unsigned char *p = map_pages(n, PROT_READ | PROT_WRITE), *q;

	assert_int_equal(advise(p, n * PAGE, GPUSVM_ATOMIC, GPUSVM_ATOMIC_GLOBAL, gpusvm_none()),
			 0);
	assert_int_equal(munmap(p + 8 * PAGE, 8 * PAGE), 0);
	assert_ptr_equal(mmap(p + 8 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 p + 8 * PAGE);
	assert_int_equal(value_of(p, 8 * PAGE, GPUSVM_ATOMIC), GPUSVM_ATOMIC_GLOBAL);
	assert_int_equal(value_of(p + 8 * PAGE, 8 * PAGE, GPUSVM_ATOMIC), 0);
	assert_int_equal(value_of(p + 16 * PAGE, (n - 16) * PAGE, GPUSVM_ATOMIC),
			 GPUSVM_ATOMIC_GLOBAL);
	/* Mapped over. */
	assert_ptr_equal(mmap(p + 32 * PAGE, PAGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 p + 32 * PAGE);
	assert_int_equal(value_of(p + 32 * PAGE, PAGE, GPUSVM_ATOMIC), 0);
	/* Moved, onto other advice. */
	q = map_pages(64, PROT_READ | PROT_WRITE);
	assert_int_equal(advise(q, 64 * PAGE, GPUSVM_ATOMIC, GPUSVM_ATOMIC_CPU, gpusvm_none()), 0);
	assert_ptr_equal(mremap(p + 40 * PAGE, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
				q + 8 * PAGE),
			 q + 8 * PAGE);
	assert_int_equal(value_of(q, 8 * PAGE, GPUSVM_ATOMIC), GPUSVM_ATOMIC_CPU);
	assert_int_equal(value_of(q + 8 * PAGE, 8 * PAGE, GPUSVM_ATOMIC), GPUSVM_ATOMIC_GLOBAL);
	assert_int_equal(value_of(q + 16 * PAGE, 48 * PAGE, GPUSVM_ATOMIC), GPUSVM_ATOMIC_CPU);
	/* And once more: what was moved is watched at its new place. */
	assert_int_equal(munmap(q + 8 * PAGE, 4 * PAGE), 0);
	assert_ptr_equal(mmap(q + 8 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 q + 8 * PAGE);
	assert_int_equal(value_of(q + 8 * PAGE, 4 * PAGE, GPUSVM_ATOMIC), 0);
	assert_int_equal(value_of(q + 12 * PAGE, 4 * PAGE, GPUSVM_ATOMIC), GPUSVM_ATOMIC_GLOBAL);
	munmap(p, n * PAGE);
	munmap(q, 64 * PAGE);
}

static void test_changes_nothing(void **state)
{
	unsigned char *p = map_filled(64, 9);
	uint64_t before;

	assert_int_equal(advise(p, 64 * PAGE, GPUSVM_GRANULARITY, 8, gpusvm_none()), 0);
	to_device(p, 64);
	before = stats(0).flushes;
	assert_int_equal(advise(p, 64 * PAGE, GPUSVM_GRANULARITY, 8, gpusvm_none()), 0);
	assert_int_equal(advise(p, 64 * PAGE, GPUSVM_ATOMIC, 0, gpusvm_none()), 0);
	assert_int_equal(stats(0).flushes, before);
	assert_int_equal(where_is(p).mapped_by, 1);
	assert_int_equal(advise(p, 64 * PAGE, GPUSVM_ACCESS_NONE, 1, gpusvm_none()), 0);
	assert_true(stats(0).flushes > before);
	assert_int_equal(where_is(p).mapped_by, 0);
	check_filled(p, 64, 9);
	munmap(p, 64 * PAGE);
}

static void test_access(void **state)
{
	unsigned char *p = map_filled(64, 1), buffer[PAGE];

	assert_int_equal(advise(p + 5 * PAGE, 2 * PAGE, GPUSVM_ACCESS_NONE, 1, gpusvm_none()), 0);
	assert_int_equal(gpusvm_read(queue, buffer, p + 5 * PAGE, PAGE), -EFAULT);
	assert_int_equal(gpusvm_write(queue, p + 6 * PAGE, buffer, PAGE), -EFAULT);
	assert_int_equal(gpusvm_read(queue, buffer, p + 4 * PAGE, PAGE), 0);
	assert_int_equal(gpusvm_read(queue, buffer, p + 7 * PAGE, PAGE), 0);
	assert_int_equal(advise(p, 64 * PAGE, GPUSVM_RESET, 0, gpusvm_none()), 0);
	assert_int_equal(gpusvm_read(queue, buffer, p + 5 * PAGE, PAGE), 0);
	assert_memory_equal(buffer, p + 5 * PAGE, PAGE);
	/* Kept where it is. */
	assert_int_equal(gpusvm_evict(svm, -1), 0);
	assert_int_equal(advise(p, 64 * PAGE, GPUSVM_NO_MIGRATE, 1, gpusvm_none()), 0);
	assert_int_equal(gpusvm_memset(queue, p, 5, 64 * PAGE, NULL), 0);
	assert_int_equal(count_in(p, 64, GPUSVM_LOCATION_SYSTEM), 64);
	assert_int_equal(p[63 * PAGE], 5);
	munmap(p, 64 * PAGE);
}

static void test_granularity(void **state)
{
	const size_t n = 4 * MB / PAGE;
	unsigned char *p = map_filled(n, 2);
	unsigned char byte;

	for (size_t g = 1; g <= 64; g *= 4) {
		assert_int_equal(advise(p, n * PAGE, GPUSVM_GRANULARITY, (int64_t)g, gpusvm_none()),
				 0);
		assert_int_equal(gpusvm_read(queue, &byte, p + n / 2 * PAGE, 1), 0);
		assert_true(count_in(p, n, GPUSVM_LOCATION_DEVICE) == g);
		assert_int_equal(gpusvm_evict(svm, -1), 0);
	}
	to_device(p, n);
	assert_int_equal(((volatile unsigned char *)p)[n / 2 * PAGE], byte);
	/* Those that are aligned, wherever the mapping begins. */
	assert_int_equal(count_in(p, n, GPUSVM_LOCATION_SYSTEM), 64);
	check_filled(p, n, 2);
	munmap(p, n * PAGE);
}

static void test_prefetch_to_where_it_is_preferred(void **state)
{
	unsigned char *p = map_filled(32, 4);
	struct gpusvm_moved m;

	assert_int_equal(advise(p, 16 * PAGE, GPUSVM_PREFERRED_LOCATION, 1, gpusvm_device(0)), 0);
	assert_int_equal(move(p, 32, gpusvm_preferred(), 0, &m), 0);
	assert_int_equal(m.moved, 16);
	assert_int_equal(m.already, 16);
	assert_int_equal(count_in(p, 32, GPUSVM_LOCATION_DEVICE), 16);
	assert_int_equal(gpusvm_queue_prefetch(queue, p, 32 * PAGE, gpusvm_faulting(), 0, NULL), 0);
	assert_int_equal(count_in(p, 32, GPUSVM_LOCATION_DEVICE), 32);
	check_filled(p, 32, 4);
	munmap(p, 32 * PAGE);
}

/* A descriptor names a device; advice remembers the device, and needs it no more. */
static void test_by_descriptor(void **state)
{
	unsigned char *p = map_filled(8, 4);
	struct gpusvm_location where;
	int64_t value;
	int fd = gpusvm_pagemap_fd(svm, 0, 0), foreign = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0 && foreign >= 0);
	where = gpusvm_fd(fd);
	assert_int_equal(advise(p, 4 * PAGE, GPUSVM_PREFERRED_LOCATION, 1, where), 0);
	assert_int_equal(advise(p, 4 * PAGE, GPUSVM_ACCESSED_BY, 1, where), 0);
	assert_int_equal(advise(p, PAGE, GPUSVM_PREFERRED_LOCATION, 1, gpusvm_fd(foreign)),
			 -ENODEV);
	assert_int_equal(advise(p, PAGE, GPUSVM_ACCESSED_BY, 1, gpusvm_fd(-1)), -ENODEV);
	assert_int_equal(gpusvm_advice_get(svm, p, PAGE, GPUSVM_ACCESSED_BY, &value, &where), 0);
	assert_int_equal(value, 1);
	close(fd);
	close(foreign);
	assert_int_equal(where_of(p, 4 * PAGE, GPUSVM_PREFERRED_LOCATION).type,
			 GPUSVM_LOCATION_DEVICE);
	assert_int_equal(where_of(p, 4 * PAGE, GPUSVM_PREFERRED_LOCATION).device, 0);
	munmap(p, 8 * PAGE);
}

static void test_of_an_unbound_device(void **state)
{
	unsigned char *p = map_filled(8, 4);
	struct gpusvm_location where = gpusvm_device(0);
	int64_t value;

	assert_int_equal(advise(p, 8 * PAGE, GPUSVM_PREFERRED_LOCATION, 1, where), 0);
	assert_int_equal(gpusvm_device_unbind(svm, 0), 0);
	assert_int_equal(advise(p, 8 * PAGE, GPUSVM_PREFERRED_LOCATION, 1, where), -ENODEV);
	assert_int_equal(advise(p, 8 * PAGE, GPUSVM_ACCESSED_BY, 1, where), -ENODEV);
	assert_int_equal(gpusvm_advice_get(svm, p, PAGE, GPUSVM_ACCESSED_BY, &value, &where),
			 -ENODEV);
	assert_int_equal(where_of(p, 8 * PAGE, GPUSVM_PREFERRED_LOCATION).device, 0);
	/* Value 0 unsets, whatever where is. */
	assert_int_equal(advise(p, PAGE, GPUSVM_PREFERRED_LOCATION, 0, gpusvm_device(9)), 0);
	assert_int_equal(advise(p, 8 * PAGE, GPUSVM_PREFERRED_LOCATION, 0, gpusvm_device(0)), 0);
	assert_int_equal(where_of(p, 8 * PAGE, GPUSVM_PREFERRED_LOCATION).type,
			 GPUSVM_LOCATION_NONE);
	assert_int_equal(advise(p, 8 * PAGE, GPUSVM_RESET, 0, gpusvm_none()), 0);
	check_filled(p, 8, 4);
	munmap(p, 8 * PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bad_input, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rounds_outward, setup, teardown),
		cmocka_unit_test_setup_teardown(test_locations, setup, teardown),
		cmocka_unit_test_setup_teardown(test_goes_with_its_mapping, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changes_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_access, setup, teardown),
		cmocka_unit_test_setup_teardown(test_granularity, setup, teardown),
		cmocka_unit_test_setup_teardown(test_prefetch_to_where_it_is_preferred, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_by_descriptor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_of_an_unbound_device, setup, teardown),
	};

	return cmocka_run_group_tests_name("advice", tests, NULL, NULL);
}
