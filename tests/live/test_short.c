/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* When memory is short: the linker has these calls come through here (meson.build). */
#include "tests/live/api.h"

#include <signal.h>
#include <stdbool.h>

struct mm_migrate;
struct mm_range_fault;
void *__real_host_alloc(size_t size);
void *__real_host_alloc_zeroed(size_t size);
int __real_mm_migrate_alloc_system(struct mm_migrate *m);
int __real_mm_make_exclusive(struct mm_range_fault *rf, uint64_t hold);

static bool is_short; /* atomic */
static bool all_taken; /* the same: as much as can be is taken already */

static bool none_left(void)
{
	return __atomic_load_n(&is_short, __ATOMIC_SEQ_CST);
}

void *__wrap_host_alloc(size_t size)
{
	return none_left() ? NULL : __real_host_alloc(size);
}

void *__wrap_host_alloc_zeroed(size_t size)
{
	return none_left() ? NULL : __real_host_alloc_zeroed(size);
}

int __wrap_mm_migrate_alloc_system(struct mm_migrate *m)
{
	return none_left() ? -ENOMEM : __real_mm_migrate_alloc_system(m);
}

static void set_short(bool on)
{
	__atomic_store_n(&is_short, on, __ATOMIC_SEQ_CST);
}

/* What could not go home with its device does so later. */
static void unbind_while_short(unsigned char *p)
{
	to_device(p, 16);
	set_short(true);
	assert_int_equal(gpusvm_device_unbind(svm, 0), -EBUSY);
	assert_int_equal(gpusvm_evict(svm, -1), -EBUSY);
	set_short(false);
	assert_int_equal(gpusvm_device_unbind(svm, 0), -ENODEV);
}

static void test_evict_after_unbind(void **state)
{
	unsigned char *p = map_filled(16, 5);

	unbind_while_short(p);
	assert_int_equal(gpusvm_evict(svm, -1), 0);
	assert_int_equal(count_in(p, 16, GPUSVM_LOCATION_DEVICE), 0);
	check_filled(p, 16, 5);
	munmap(p, 16 * PAGE);
}

static void test_close_after_unbind(void **state)
{
	unsigned char *p = map_filled(16, 6);

	unbind_while_short(p);
	gpusvm_close(svm);
	check_filled(p, 16, 6);
	munmap(p, 16 * PAGE);
	assert_int_equal(open_one(64 * MB, 0, 0), 0);
}

/* Where a child has only what is in system memory, and data could not come home. */
static int open_without_fork(void **state)
{
	struct gpusvm_device_desc desc = {
	    .size = sizeof(desc), .kind = "soft", .vram_bytes = 64 * MB};
	struct gpusvm_options options = {
	    .size = sizeof(options),
	    .devices = &desc,
	    .n_devices = 1,
	    .home_without = GPUSVM_WITHOUT_EVENT_FORK,
	};

	(void)state;
	return gpusvm_open(&options, &svm);
}

#define WORDS (16 * PAGE / sizeof(uint64_t))

/* How the child that looks at p's words ends. */
static int child_status(const uint64_t *p)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		for (size_t i = 0; i < WORDS; i++)
			if (p[i] != i + 1)
				_exit(1);
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_fork_while_short(void **state)
{
	uint64_t *p = gpusvm_alloc(svm, 16 * PAGE);
	int status;

	(void)state;
	assert_non_null(p);
	for (size_t i = 0; i < WORDS; i++)
		p[i] = i + 1;
	to_device(p, 16);
	set_short(true);
	status = child_status(p);
	set_short(false);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	to_device(p, 16);
	assert_int_equal(child_status(p), 0);
	for (size_t i = 0; i < WORDS; i++)
		assert_int_equal(p[i], i + 1);
	gpusvm_free(svm, p);
}

int __wrap_mm_make_exclusive(struct mm_range_fault *rf, uint64_t hold)
{
	if (__atomic_load_n(&all_taken, __ATOMIC_SEQ_CST))
		return -ENOMEM;
	return __real_mm_make_exclusive(rf, hold);
}

static void count_kernel(struct gpusvm_lane *lane, uint64_t item, const void *args)
{
	uint64_t *const *words = args;

	gpusvm_atomic_add64(lane, *words + item % 4 * PAGE / sizeof(uint64_t), 1);
}

/* No more can be taken: atomics are exact where the page is, all the same. */
static void test_atomics_while_short(void **state)
{
	const struct gpusvm_kernel kernel = {sizeof(kernel), "count", count_kernel};
	uint64_t *words = (void *)map_pages(4, PROT_READ | PROT_WRITE);

	assert_int_equal(gpusvm_advise(svm, words, 4 * PAGE, GPUSVM_NO_MIGRATE, 1, gpusvm_none()),
			 0);
	assert_int_equal(gpusvm_advise(svm, words, 4 * PAGE, GPUSVM_ATOMIC, GPUSVM_ATOMIC_DEVICE,
				       gpusvm_none()),
			 0);
	__atomic_store_n(&all_taken, true, __ATOMIC_SEQ_CST);
	assert_int_equal(gpusvm_make_exclusive(queue, words, PAGE), -ENOMEM);
	assert_int_equal(gpusvm_launch(queue, &kernel, &words, sizeof(words), 1000, NULL), 0);
	__atomic_store_n(&all_taken, false, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(words[i * PAGE / sizeof(uint64_t)], 250);
	munmap(words, 4 * PAGE);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_evict_after_unbind, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_close_after_unbind, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_atomics_while_short, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_fork_while_short, open_without_fork, teardown),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
	return cmocka_run_group_tests_name("short", tests, NULL, NULL);
}
