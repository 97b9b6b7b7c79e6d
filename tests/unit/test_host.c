/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_host.c: the host of live processes and tests: locks and the checker of
 * their order, wait queues, threads, work, the hook before sleeping, memory of
 * the malloc flavour. (The arena: test_arena.c.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/posix/posix.h"

#ifndef GPUSVM_DEBUG
#error "the checker of lock order is part of this test"
#endif

static void start(struct host_thread *t, void (*fn)(void *), void *arg)
{
	assert_int_equal(host_thread_start(t, "a name that is far too long", fn, arg), 0);
}

/* ---- Lock order ---- */

static struct {
	u32 n;
	enum host_lock_rank held, taken;
} failed;

static void note_failure(const char *what, enum host_lock_rank held, enum host_lock_rank taken)
{
	failed.n++;
	failed.held = held;
	failed.taken = taken;
}

static int checker_setup(void **unused)
{
	memset(&failed, 0, sizeof(failed));
	host_rank_fail = note_failure;
	return 0;
}

static void test_order_kept(void **unused)
{
	struct host_mutex low, none;
	struct host_rwlock high;

	host_mutex_init(&low, RANK_RUNTIME);
	host_mutex_init(&none, RANK_NONE);
	host_rwlock_init(&high, RANK_MIRROR);
	host_mutex_lock(&low);
	host_read_lock(&high);
	host_mutex_lock(&none);
	assert_true(host_mutex_held(&low) && host_mutex_held(&none));
	assert_true(host_rwlock_held(&high));
	assert_false(host_rwlock_held_write(&high));
	host_mutex_unlock(&low); /* in another order than taken */
	assert_false(host_mutex_held(&low));
	host_mutex_unlock(&none);
	host_read_unlock(&high);
	host_write_lock(&high);
	assert_true(host_rwlock_held_write(&high));
	host_write_unlock(&high);
	assert_int_equal(failed.n, 0);
	host_mutex_destroy(&low);
	host_mutex_destroy(&none);
	host_rwlock_destroy(&high);
}

static void test_order_broken(void **unused)
{
	struct host_mutex low, high, same;

	host_mutex_init(&low, RANK_RUNTIME);
	host_mutex_init(&high, RANK_FENCE);
	host_mutex_init(&same, RANK_FENCE);
	host_mutex_lock(&high);
	host_mutex_lock(&low);
	assert_int_equal(failed.n, 1);
	assert_int_equal(failed.held, RANK_FENCE);
	assert_int_equal(failed.taken, RANK_RUNTIME);
	host_mutex_unlock(&low);
	host_mutex_lock(&same);
	assert_int_equal(failed.n, 2);
	host_mutex_unlock(&same);
	/* A lock that is only tried cannot deadlock; what comes after it can. */
	assert_true(host_mutex_trylock(&low));
	assert_int_equal(failed.n, 2);
	host_mutex_lock(&same);
	assert_int_equal(failed.n, 3);
	host_mutex_unlock(&same);
	host_mutex_unlock(&low);
	host_mutex_unlock(&high);
	host_mutex_destroy(&low);
	host_mutex_destroy(&high);
	host_mutex_destroy(&same);
}

static void test_order_twice(void **unused)
{
	struct host_rwlock l;

	/* A second read lock of one thread hangs once a writer waits. */
	host_rwlock_init(&l, RANK_MIRROR);
	host_read_lock(&l);
	host_read_lock(&l);
	assert_int_equal(failed.n, 1);
	host_read_unlock(&l);
	host_read_unlock(&l);
	host_rwlock_destroy(&l);
}

static void test_order_alloc(void **unused)
{
	struct host_mutex low, high;

	host_mutex_init(&low, RANK_DEVICE_MEMORY);
	host_mutex_init(&high, RANK_NOTIFIER_LIST);
	host_mutex_lock(&low);
	host_free(host_alloc(1));
	assert_int_equal(failed.n, 0);
	host_mutex_lock(&high);
	host_free(host_alloc(1));
	assert_int_equal(failed.n, 1);
	host_mutex_unlock(&high);
	host_mutex_unlock(&low);
	host_mutex_destroy(&low);
	host_mutex_destroy(&high);
}

static void test_order_default_panics(void **unused)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct host_mutex m;

		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO);
		host_rank_fail =
		    *(void (**)(const char *, enum host_lock_rank, enum host_lock_rank)) * unused;
		host_mutex_init(&m, RANK_LEAF);
		host_mutex_lock(&m);
		host_mutex_lock(&m);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* ---- Locks under contention ---- */

struct counter {
	struct host_mutex mutex;
	struct host_rwlock rwlock;
	u64 a, b; /* equal whenever nobody writes */
	u32 bad;
};

static void count_up(void *arg)
{
	struct counter *c = arg;
	u32 i;

	for (i = 0; i < 5000; i++) {
		host_mutex_lock(&c->mutex);
		c->a++;
		host_mutex_unlock(&c->mutex);
	}
}

static void test_mutex_excludes(void **unused)
{
	struct counter c = {.a = 0};
	struct host_thread threads[3];
	u32 i;

	host_mutex_init(&c.mutex, RANK_LEAF);
	for (i = 0; i < 3; i++)
		start(&threads[i], count_up, &c);
	for (i = 0; i < 3; i++)
		host_thread_join(&threads[i]);
	assert_int_equal(c.a, 15000);
	host_mutex_destroy(&c.mutex);
}

static void write_both(void *arg)
{
	struct counter *c = arg;
	u32 i;

	for (i = 0; i < 2000; i++) {
		host_write_lock(&c->rwlock);
		c->a++;
		c->b++;
		host_write_unlock(&c->rwlock);
	}
}

static void read_both(void *arg)
{
	struct counter *c = arg;
	u32 i;

	for (i = 0; i < 5000; i++) {
		host_read_lock(&c->rwlock);
		if (c->a != c->b)
			host_add_return(&c->bad, 1);
		host_read_unlock(&c->rwlock);
	}
}

static void test_rwlock_excludes(void **unused)
{
	struct counter c = {.a = 0};
	struct host_thread threads[4];
	u32 i;

	host_rwlock_init(&c.rwlock, RANK_LEAF);
	for (i = 0; i < 4; i++)
		start(&threads[i], i % 2 ? read_both : write_both, &c);
	for (i = 0; i < 4; i++)
		host_thread_join(&threads[i]);
	assert_int_equal(c.a, 4000);
	assert_int_equal(c.bad, 0);
	host_rwlock_destroy(&c.rwlock);
}

/* A writer gets in although readers overlap all the time. */
static struct {
	struct host_rwlock lock;
	u32 stop;
} stream;

static void read_always(void *arg)
{
	while (!host_load_acquire(&stream.stop)) {
		host_read_lock(&stream.lock);
		host_sleep(200 * HOST_USEC);
		host_read_unlock(&stream.lock);
	}
}

static void test_writer_goes_first(void **unused)
{
	struct host_thread threads[3];
	u32 i;

	host_rwlock_init(&stream.lock, RANK_LEAF);
	stream.stop = 0;
	for (i = 0; i < 3; i++)
		start(&threads[i], read_always, NULL);
	for (i = 0; i < 20; i++) {
		host_write_lock(&stream.lock);
		host_write_unlock(&stream.lock);
		host_sleep(300 * HOST_USEC);
	}
	host_store_release(&stream.stop, 1);
	for (i = 0; i < 3; i++)
		host_thread_join(&threads[i]);
	host_rwlock_destroy(&stream.lock);
}

/* ---- Wait queues ---- */

struct ball {
	struct host_waitq waitq;
	u32 side;
	u32 rounds;
};

static void play(struct ball *ball, u32 side)
{
	u32 i;

	for (i = 0; i < ball->rounds; i++) {
		host_wait(&ball->waitq, host_load_acquire(&ball->side) == side);
		host_store_release(&ball->side, !side);
		host_wake_all(&ball->waitq);
	}
}

static void play_one(void *arg)
{
	play(arg, 1);
}

/* A wake-up that is lost hangs this. */
static void test_wait_ping_pong(void **unused)
{
	struct ball ball = {.side = 0, .rounds = 3000};
	struct host_thread thread;

	host_waitq_init(&ball.waitq);
	start(&thread, play_one, &ball);
	play(&ball, 0);
	host_thread_join(&thread);
	assert_int_equal(ball.waitq.waiters, 0);
	host_waitq_destroy(&ball.waitq);
}

static void test_wait_deadline(void **unused)
{
	struct host_waitq wq;
	u64 begin = host_now();
	u32 never = 0;

	host_waitq_init(&wq);
	assert_false(host_wait_until(&wq, host_load_acquire(&never), begin + 3 * HOST_MSEC));
	assert_true(host_now() - begin >= 3 * HOST_MSEC);
	assert_false(host_wait_until(&wq, host_load_acquire(&never), 0));
	assert_true(host_wait_until(&wq, !host_load_acquire(&never), 0));
	host_waitq_destroy(&wq);
}

/* ---- The hook before sleeping ---- */

static u32 hooked;

static void hook(void)
{
	host_posix_before_block = NULL;
	hooked++;
}

static void hold_a_while(void *arg)
{
	struct counter *c = arg;

	host_mutex_lock(&c->mutex);
	host_store_release(&c->bad, 1);
	host_sleep(5 * HOST_MSEC);
	host_mutex_unlock(&c->mutex);
}

static void test_hook(void **unused)
{
	struct counter c = {.bad = 0};
	struct host_thread thread = {{0}};
	struct host_waitq wq;

	host_mutex_init(&c.mutex, RANK_NONE);
	host_waitq_init(&wq);
	hooked = 0;

	/* Not where nothing sleeps. */
	host_posix_before_block = hook;
	host_mutex_lock(&c.mutex);
	host_mutex_unlock(&c.mutex);
	assert_true(host_wait_until(&wq, true, 0));
	host_wake_all(&wq);
	host_free(host_alloc(100));
	host_thread_join(&thread);
	assert_int_equal(hooked, 0);

	/* Once where it does. */
	start(&thread, hold_a_while, &c);
	while (!host_load_acquire(&c.bad))
		host_relax();
	host_mutex_lock(&c.mutex);
	host_mutex_unlock(&c.mutex);
	assert_int_equal(hooked, 1);
	host_posix_before_block = hook;
	host_thread_join(&thread);
	assert_int_equal(hooked, 2);
	host_sleep(1);
	assert_int_equal(hooked, 2);
	host_posix_before_block = hook;
	host_sleep(1);
	assert_int_equal(hooked, 3);
	host_posix_before_block = hook;
	host_wait_until(&wq, false, host_now() + 1);
	assert_int_equal(hooked, 4);
	host_waitq_destroy(&wq);
	host_mutex_destroy(&c.mutex);
}

/* ---- Threads ---- */

static void look_at_signals(void *arg)
{
	sigset_t *set = arg;

	pthread_sigmask(SIG_BLOCK, NULL, set);
}

static void test_thread_blocks_signals(void **unused)
{
	struct host_thread thread;
	sigset_t set, own;

	start(&thread, look_at_signals, &set);
	host_thread_join(&thread);
	assert_true(sigismember(&set, SIGUSR1) && sigismember(&set, SIGALRM));
	assert_false(sigismember(&set, SIGSEGV) || sigismember(&set, SIGBUS));
	pthread_sigmask(SIG_BLOCK, NULL, &own);
	assert_false(sigismember(&own, SIGUSR1));
	host_thread_join(&thread); /* zeroed: nothing */
}

/* ---- Memory ---- */

static void test_memory(void **unused)
{
	char *p = host_alloc_zeroed(100), *pages = host_alloc_pages(HOST_HUGE_SIZE);
	u32 i;

	assert_true(host_is_aligned((uintptr_t)pages, HOST_HUGE_SIZE));
	for (i = 0; i < 100; i++)
		assert_int_equal(p[i], 0);
	assert_int_equal(pages[HOST_HUGE_SIZE - 1], 0);
	assert_int_equal(host_posix_alloc_live(), 2);
	host_free(p);
	host_free(NULL);
	host_free_pages(pages, HOST_HUGE_SIZE);
	assert_int_equal(host_posix_alloc_live(), 0);

	host_posix_fail_alloc_at(2);
	p = host_alloc(1);
	assert_non_null(p);
	assert_null(host_alloc(1));
	host_free(p);
	p = host_alloc(0);
	assert_non_null(p);
	host_free(p);
	assert_null(host_alloc(~(size_t)0));
}

static void test_copy(void **unused)
{
	static const size_t sizes[] = {0, 1, 127, 16384, 16385, 70000, 1 << 20};
	size_t room = (1 << 20) + 256, i, at, k;
	unsigned char *src = malloc(room), *dst = malloc(room);

	for (i = 0; i < room; i++)
		src[i] = (unsigned char)(i * 31 + i / 251);
	for (i = 0; i < host_array_size(sizes); i++) {
		for (at = 0; at < 66; at += 13) {
			size_t n = sizes[i];

			host_memset(dst, 0xee, room);
			host_memcpy_stream(dst + at, src + 7, n);
			assert_memory_equal(dst + at, src + 7, n);
			for (k = 0; k < at; k++)
				assert_int_equal(dst[k], 0xee);
			assert_int_equal(dst[at + n], 0xee);
		}
	}
	free(src);
	free(dst);
}

static void test_warn_counts(void **unused)
{
	u64 before = host_posix_warnings();
	int kept = dup(STDERR_FILENO);

	close(STDERR_FILENO);
	assert_true(HOST_WARN_ON(1 + 1 == 2));
	assert_false(HOST_WARN_ON(1 + 1 == 3));
	dup2(kept, STDERR_FILENO);
	close(kept);
	assert_int_equal(host_posix_warnings(), before + 1);
}

int main(void)
{
	void (*fail_default)(const char *, enum host_lock_rank, enum host_lock_rank) =
	    host_rank_fail;
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(test_order_kept, checker_setup),
	    cmocka_unit_test_setup(test_order_broken, checker_setup),
	    cmocka_unit_test_setup(test_order_twice, checker_setup),
	    cmocka_unit_test_setup(test_order_alloc, checker_setup),
	    cmocka_unit_test_prestate(test_order_default_panics, &fail_default),
	    cmocka_unit_test(test_mutex_excludes),
	    cmocka_unit_test(test_rwlock_excludes),
	    cmocka_unit_test(test_writer_goes_first),
	    cmocka_unit_test(test_wait_ping_pong),
	    cmocka_unit_test(test_wait_deadline),
	    cmocka_unit_test(test_hook),
	    cmocka_unit_test(test_thread_blocks_signals),
	    cmocka_unit_test(test_memory),
	    cmocka_unit_test(test_copy),
	    cmocka_unit_test(test_warn_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
