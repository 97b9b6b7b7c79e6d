/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_fallback.c: the home without each thing that a kernel may lack. Memory
 * of gpusvm_alloc migrates in all of them, other memory is mapped where it is;
 * what cannot be promised is not promised.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <gpusvm/gpusvm.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE ((size_t)4 << 20)
#define WORDS (SIZE / sizeof(uint64_t))

static struct gpusvm *svm;
static struct gpusvm_queue *queue;

static int open_without(uint64_t without)
{
	struct gpusvm_options options = {.size = sizeof(options), .home_without = without};
	int r = gpusvm_open(&options, &svm);

	return r ? r : gpusvm_queue_create(svm, 0, NULL, &queue);
}

static int shut(void **state)
{
	(void)state;
	gpusvm_queue_destroy(queue);
	gpusvm_close(svm);
	return 0;
}

static int without_move(void **state)
{
	(void)state;
	return open_without(GPUSVM_WITHOUT_MOVE);
}

static int without_event_fork(void **state)
{
	(void)state;
	return open_without(GPUSVM_WITHOUT_EVENT_FORK);
}

static int without_kernel_faults(void **state)
{
	(void)state;
	return open_without(GPUSVM_WITHOUT_KERNEL_FAULTS);
}

static int without_syscall(void **state)
{
	(void)state;
	return open_without(GPUSVM_WITHOUT_SYSCALL);
}

static void fill(uint64_t *p, uint64_t salt)
{
	for (size_t i = 0; i < WORDS; i++)
		p[i] = i * 7 + salt;
}

static void check(const uint64_t *p, uint64_t salt)
{
	for (size_t i = 0; i < WORDS; i++)
		if (p[i] != i * 7 + salt)
			fail_msg("word %zu is %lx", i, p[i]);
}

static uint64_t to_device(void *p)
{
	struct gpusvm_moved moved = {.size = sizeof(moved)};

	assert_int_equal(gpusvm_prefetch(svm, p, SIZE, gpusvm_device(0), 0, &moved, NULL), 0);
	return moved.moved;
}

static void expect_caps(uint64_t want)
{
	uint64_t caps;

	assert_int_equal(gpusvm_caps(svm, &caps), 0);
	assert_int_equal(caps & (GPUSVM_CAP_ANY_MEMORY | GPUSVM_CAP_KERNEL_ACCESS |
				 GPUSVM_CAP_FORK | GPUSVM_CAP_HUGE),
			 want);
}

/* Memory of gpusvm_alloc goes there and back, malloc's stays and works. */
static void migrates_what_it_may(bool any)
{
	uint64_t *own = gpusvm_alloc(svm, SIZE), *other = malloc(SIZE), word;

	assert_non_null(own);
	fill(own, 1);
	fill(other, 2);
	for (int round = 0; round < 5; round++) {
		assert_int_equal(to_device(own), SIZE / 4096);
		if (any)
			assert_true(to_device(other) > 0);
		else
			assert_int_equal(to_device(other), 0);
		assert_int_equal(gpusvm_read(queue, &word, &own[1000], sizeof(word)), 0);
		assert_int_equal(word, 1000 * 7 + 1);
		assert_int_equal(gpusvm_memset(queue, &other[8], 3, 8, NULL), 0);
		assert_int_equal(other[8], 0x0303030303030303);
		other[8] = 8 * 7 + 2;
		check(own, 1);
		check(other, 2);
	}
	gpusvm_free(svm, own);
	free(other);
}

static void child_is_whole(void)
{
	uint64_t *own = gpusvm_alloc(svm, SIZE);
	int status;
	pid_t pid;

	fill(own, 9);
	assert_int_equal(to_device(own), SIZE / 4096);
	pid = fork();
	if (!pid) {
		for (size_t i = 0; i < WORDS; i++)
			if (own[i] != i * 7 + 9)
				_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	check(own, 9);
	gpusvm_free(svm, own);
}

static struct {
	uint64_t *words;
	int stop;
} shared;

static void *writer(void *arg)
{
	(void)arg;
	for (uint64_t n = 1; !__atomic_load_n(&shared.stop, __ATOMIC_RELAXED); n++)
		for (size_t i = 0; i < WORDS; i += 256) {
			if (shared.words[i] != n - 1)
				return (void *)1;
			shared.words[i] = n;
		}
	return NULL;
}

/* Law 1 holds for CPU writers, by write protection as by MOVE. */
static void loses_no_write(void)
{
	pthread_t thread;
	void *bad;

	shared.words = gpusvm_alloc(svm, SIZE);
	memset(shared.words, 0, SIZE);
	shared.stop = 0;
	pthread_create(&thread, NULL, writer, NULL);
	for (int round = 0; round < 100; round++)
		(void)to_device(shared.words);
	__atomic_store_n(&shared.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, &bad);
	assert_null(bad);
	gpusvm_free(svm, shared.words);
}

static void test_without_move(void **state)
{
	(void)state;
	expect_caps(GPUSVM_CAP_FORK);
	migrates_what_it_may(false);
	child_is_whole();
	loses_no_write();
}

static void test_without_event_fork(void **state)
{
	(void)state;
	expect_caps(GPUSVM_CAP_KERNEL_ACCESS | GPUSVM_CAP_HUGE);
	migrates_what_it_may(false);
	child_is_whole();
	loses_no_write();
}

static void test_without_kernel_faults(void **state)
{
	(void)state;
	expect_caps(GPUSVM_CAP_FORK | GPUSVM_CAP_HUGE);
	migrates_what_it_may(false);
	child_is_whole();
	loses_no_write();
}

static void test_without_syscall(void **state)
{
	(void)state;
	expect_caps(GPUSVM_CAP_ANY_MEMORY | GPUSVM_CAP_KERNEL_ACCESS | GPUSVM_CAP_FORK |
		    GPUSVM_CAP_HUGE);
	migrates_what_it_may(true);
	child_is_whole();
	loses_no_write();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_without_move, without_move, shut),
	    cmocka_unit_test_setup_teardown(test_without_event_fork, without_event_fork, shut),
	    cmocka_unit_test_setup_teardown(test_without_kernel_faults, without_kernel_faults,
					    shut),
	    cmocka_unit_test_setup_teardown(test_without_syscall, without_syscall, shut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
