/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_fork.c: the live-process home, when a process with pages on a device forks: the
 * child and the parent are right, whoever else forks, opens or closes at the time.
 */
#include "tests/live/home_world.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

static bool right(const void *p, size_t from, size_t to)
{
	for (size_t i = WORDS(from); i < WORDS(to); i++)
		if (((const u64 *)p)[i] != value(i))
			return false;
	return true;
}

static void test_fork(void **state)
{
	for (int huge = 0; huge < 2; huge++) {
		char *p = on_device(huge);
		pid_t pid = fork();
		int status;

		assert_true(pid >= 0);
		if (!pid) {
			if (!right(p, 0, HUGE_SIZE))
				_exit(1);
			memset(p, 1, HUGE_SIZE);
			_exit(0);
		}
		assert_int_equal(mini_used(), HOST_HUGE_PAGES);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		check(p, 0, HUGE_SIZE);
		/* Shared with a child that has gone: moves all the same. */
		out(p, HUGE_SIZE);
		check(p, 0, HUGE_SIZE);
		done(p);
	}
	(void)state;
}

#define FORK_BLOCKS 8u

static char *blocks_on_device(void)
{
	char *p = map(FORK_BLOCKS * HUGE_SIZE, false);

	fill(p, FORK_BLOCKS * HUGE_SIZE);
	for (unsigned i = 0; i < FORK_BLOCKS; i++)
		out(p + i * HUGE_SIZE, HUGE_SIZE);
	return p;
}

static void fork_over(char *p, pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	check(p, 0, FORK_BLOCKS * HUGE_SIZE);
	munmap(p, FORK_BLOCKS * HUGE_SIZE);
	sync_all();
	wait_used(0);
}

/* A child that forks while pages are still being copied to it. */
static void test_fork_of_a_child(void **state)
{
	char *p = blocks_on_device();
	pid_t pid = fork(), pid2;
	int status;

	if (!pid) {
		pid2 = fork();
		if (!pid2)
			_exit(!right(p, 0, FORK_BLOCKS * HUGE_SIZE));
		if (waitpid(pid2, &status, 0) != pid2 || status)
			_exit(2);
		_exit(!right(p, 0, FORK_BLOCKS * HUGE_SIZE));
	}
	fork_over(p, pid);
	(void)state;
}

/* And one that changes its mappings many times meanwhile. */
static void test_fork_child_drops_pages(void **state)
{
	char *p = blocks_on_device();
	size_t last = (FORK_BLOCKS - 1) * HUGE_SIZE;
	pid_t pid = fork();

	if (!pid) {
		for (size_t i = 0; i < HUGE_SIZE; i += 2 * PAGE)
			madvise(p + last + i, PAGE, MADV_DONTNEED);
		for (size_t i = 0; i < HUGE_SIZE; i += 2 * PAGE)
			if (p[last + i] || !right(p, last + i + PAGE, last + i + 2 * PAGE))
				_exit(1);
		_exit(!right(p, 0, last));
	}
	fork_over(p, pid);
	(void)state;
}

/* The application has all the descriptors that it may have. */
static void test_fork_without_descriptors(void **state)
{
	char *p = blocks_on_device();
	int fds[256], n = 0;
	struct rlimit was, few;
	pid_t pid;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	few = was;
	few.rlim_cur = 128;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (n < 256 && (fds[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		n++;
	alarm(20);
	pid = fork();
	if (!pid)
		_exit(!right(p, 0, FORK_BLOCKS * HUGE_SIZE));
	alarm(0);
	fork_over(p, pid);
	while (n)
		close(fds[--n]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	(void)state;
}

static void test_fork_shared(void **state)
{
	char *p = map(HUGE_SIZE, false);
	int pipes[2], status;
	pid_t pid;
	char c;

	fill(p, HUGE_SIZE);
	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (!pid) {
		close(pipes[1]);
		c = (char)read(pipes[0], &c, 1);
		_exit(!right(p, 0, HUGE_SIZE));
	}
	close(pipes[0]);
	(void)mini_out((u64)p, (u64)p + HUGE_SIZE, NULL);
	for (size_t i = 0; i < WORDS(HUGE_SIZE); i++)
		((u64 *)p)[i]++;
	close(pipes[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	done(p);
	(void)state;
}

static u32 stop; /* atomic */

static void *fork_on(void *arg)
{
	while (!host_load_acquire(&stop)) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
	return arg;
}

/* A fork that began without a home may end with one, and the other way round. */
static void test_fork_beside_open_and_close(void **state)
{
	u64 until = host_now() + HOST_SEC;
	pthread_t thread;

	host_store_release(&stop, 0);
	pthread_create(&thread, NULL, fork_on, NULL);
	while (host_now() < until) {
		assert_int_equal(mini_close(), 0);
		assert_int_equal(mini_open(0), 0);
	}
	host_store_release(&stop, 1);
	pthread_join(thread, NULL);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_fork),
	    cmocka_unit_test(test_fork_of_a_child),
	    cmocka_unit_test(test_fork_child_drops_pages),
	    cmocka_unit_test(test_fork_without_descriptors),
	    cmocka_unit_test(test_fork_shared),
	    cmocka_unit_test(test_fork_beside_open_and_close),
	};

	return cmocka_run_group_tests(tests, group_open, group_close);
}
