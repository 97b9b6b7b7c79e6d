/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_explore.c: all schedules within a bound: a bug is found with as many preemptions as
 * it takes, and what is left out is the same as something that is not. Built with
 * -DHOST_MODEL.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "host/model/sched.h"

static struct sched_outcome outcome;

static struct {
	u32 a, b, c;
	bool right;
	struct host_mutex lock;
} pair;

/* Wrong only with three preemptions: the writer's after a = 1, the reader's after
 * c = 1, the writer's after b = c. */
static void pair_writer(void *arg)
{
	if (pair.right)
		host_mutex_lock(&pair.lock);
	host_store_release(&pair.a, 1);
	host_store_release(&pair.b, host_load_acquire(&pair.c));
	host_store_release(&pair.a, 2);
	if (pair.right)
		host_mutex_unlock(&pair.lock);
}

static void pair_reader(void *arg)
{
	bool wrong;

	if (pair.right)
		host_mutex_lock(&pair.lock);
	wrong = host_load_acquire(&pair.a) == 1;
	host_store_release(&pair.c, 1);
	wrong = wrong && host_load_acquire(&pair.b) == 1 && host_load_acquire(&pair.a) == 1;
	if (pair.right)
		host_mutex_unlock(&pair.lock);
	if (wrong)
		sched_fail(SCHED_LAW, "seen half done");
}

static void pair_run(void *arg)
{
	struct host_thread threads[2];

	pair.a = pair.b = pair.c = 0;
	host_mutex_init(&pair.lock, RANK_LEAF);
	HOST_CHECK(host_thread_start(&threads[0], "writer", pair_writer, NULL) == 0);
	HOST_CHECK(host_thread_start(&threads[1], "reader", pair_reader, NULL) == 0);
	host_thread_join(&threads[0]);
	host_thread_join(&threads[1]);
	host_mutex_destroy(&pair.lock);
}

static struct sched_explored explore(u32 preemptions)
{
	struct sched_options options = {.atomics = true};
	struct sched_explore_options bounds = {.preemptions = preemptions, .max_runs = 100000};
	struct sched_explored ret;

	sched_explore(&options, &bounds, pair_run, NULL, &ret, &outcome);
	return ret;
}

static void test_bound(void **state)
{
	struct sched_explored ret;

	pair.right = false;
	for (u32 bound = 0; bound < 3; bound++) {
		ret = explore(bound);
		assert_int_equal(outcome.result, SCHED_OK);
		assert_true(ret.complete);
	}
	ret = explore(3);
	assert_int_equal(outcome.result, SCHED_LAW);
	pair.right = true;
	ret = explore(3);
	assert_int_equal(outcome.result, SCHED_OK);
	assert_true(ret.complete && ret.runs > 2);
	printf("# %llu runs\n", (unsigned long long)ret.runs);
}

/* Programs of a few steps on a few locks and words, by chance: what is left out must be
 * the same as something that is not. */
u64 order_hash(void); /* host/model/sched_order.h */

#define PROGRAMS 60u
#define PROGRAM_FIBERS 3u
#define PROGRAM_STEPS 4u
#define ORDERS 100000u

static struct {
	u64 seed;
	struct host_mutex lock;
	struct host_rwlock rwlock;
	struct host_waitq waitq;
	u32 words[2];
	bool writers;  /* it may take the rwlock for writing */
	bool accesses; /* told of as it runs, in place of some atomics */
	u64 *orders;
	u32 n_orders;
} program;

static void program_step(u64 what)
{
	what %= 7;
	switch (what == 2 && !program.writers ? 0 : what) {
	case 0:
		host_mutex_lock(&program.lock);
		host_write_once(&program.words[0], 1);
		host_mutex_unlock(&program.lock);
		break;
	case 1:
		host_read_lock(&program.rwlock);
		host_load_acquire(&program.words[1]);
		host_read_unlock(&program.rwlock);
		break;
	case 2:
		host_write_lock(&program.rwlock);
		host_write_unlock(&program.rwlock);
		break;
	case 3:
		host_wake_all(&program.waitq);
		break;
	case 4:
		if (host_mutex_trylock(&program.lock))
			host_mutex_unlock(&program.lock);
		break;
	default:
		if (program.accesses) {
			/* Told while it runs: one thing read, and maybe another written. */
			sched_point(POINT_MODEL, NULL);
			sched_access(&program.words[what % 2], false);
			if (what == 5)
				sched_access(&program.words[1], true);
			break;
		}
		host_store_release(&program.words[what % 2], 1);
	}
}

static void program_fiber(void *arg)
{
	u64 x = program.seed * 0x9e3779b97f4a7c15ull + (u64)(uintptr_t)arg;

	for (u32 i = 0; i < PROGRAM_STEPS; i++) {
		x = x * 0xd1342543de82ef95ull + 0x2545f4914f6cdd1dull;
		program_step(x >> 33);
	}
}

static void note_order(u64 hash)
{
	for (u32 i = 0; i < program.n_orders; i++)
		if (program.orders[i] == hash)
			return;
	HOST_CHECK(program.n_orders < ORDERS);
	program.orders[program.n_orders++] = hash;
}

static void program_run(void *arg)
{
	struct host_thread threads[PROGRAM_FIBERS];

	host_mutex_init(&program.lock, RANK_LEAF);
	host_rwlock_init(&program.rwlock, RANK_LEAF);
	host_waitq_init(&program.waitq);
	for (u32 i = 0; i < PROGRAM_FIBERS; i++)
		HOST_CHECK(host_thread_start(&threads[i], "program", program_fiber,
					     (void *)(uintptr_t)(i + 1)) == 0);
	for (u32 i = 0; i < PROGRAM_FIBERS; i++)
		host_thread_join(&threads[i]);
	note_order(order_hash());
	host_mutex_destroy(&program.lock);
	host_rwlock_destroy(&program.rwlock);
	host_waitq_destroy(&program.waitq);
}

static int compare_orders(const void *a, const void *b)
{
	return *(const u64 *)a < *(const u64 *)b ? -1 : *(const u64 *)a > *(const u64 *)b;
}

/* The orders of steps that runs of the program have, sorted, malloc'd. */
static u64 *orders_of(u64 seed, bool all, u32 preemptions, struct sched_explored *ret, u32 *n)
{
	struct sched_options options = {.atomics = true};
	struct sched_explore_options bounds = {.preemptions = preemptions, .all = all};

	program.seed = seed;
	program.writers = preemptions < 2;
	program.n_orders = 0;
	program.orders = malloc(ORDERS * sizeof(u64));
	sched_explore(&options, &bounds, program_run, NULL, ret, &outcome);
	assert_int_equal(outcome.result, SCHED_OK);
	assert_true(ret->complete);
	qsort(program.orders, program.n_orders, sizeof(u64), compare_orders);
	*n = program.n_orders;
	return program.orders;
}

static void leaves_nothing_out(bool accesses)
{
	program.accesses = accesses;
	u64 runs[2] = {0}, cut = 0, orders = 0;

	for (u64 seed = 1; seed <= PROGRAMS; seed++) {
		struct sched_explored few, all;
		u32 bound = seed % 3, n_few, n_all;
		u64 *some = orders_of(seed, false, bound, &few, &n_few);
		u64 *every = orders_of(seed, true, bound, &all, &n_all);

		if (n_few != n_all)
			fail_msg("program %llu has %u orders, %u were found",
				 (unsigned long long)seed, n_all, n_few);
		assert_memory_equal(some, every, n_all * sizeof(u64));
		runs[0] += few.runs;
		runs[1] += all.runs;
		cut += few.cut;
		orders += n_all;
		free(some);
		free(every);
	}
	printf("# %llu orders in %llu runs, and %llu cut, of %llu\n", (unsigned long long)orders,
	       (unsigned long long)runs[0], (unsigned long long)cut, (unsigned long long)runs[1]);
}

static void test_leaves_nothing_out(void **state)
{
	leaves_nothing_out(false);
}

/* Nor where what a step accesses is known only once it runs. */
static void test_accesses(void **state)
{
	leaves_nothing_out(true);
}

/* The same of what fibers see, where they wait for each other: each has a deadline of its
 * own, which comes when nobody else can go on. */
#define WAITERS 3u
#define WAITER_STEPS 3u

static struct {
	u64 begin;
	struct host_mutex lock;
	struct host_waitq waitq[2];
	u32 words[2]; /* told of; the lock's */
	u32 locked;
	u64 seen[WAITERS];
} waiters;

static void saw(u32 fiber, u64 what)
{
	waiters.seen[fiber] = (waiters.seen[fiber] + what + 1) * 0x9e3779b97f4a7c15ull;
}

/* Until it is woken, whatever for: it looks at nothing that is told of. */
static bool woken(struct host_waitq *wq, u64 deadline)
{
	bool late;

	host_waitq_enter(wq);
	late = host_waitq_sleep(wq, deadline);
	host_waitq_leave(wq);
	return !late;
}

static void waiter_step(u32 fiber, u64 what)
{
	u64 deadline = waiters.begin + (fiber + 1) * HOST_MSEC;
	u32 *word = &waiters.words[what / 8 % 2];

	switch (what % 8) {
	case 0:
	case 1:
		saw(fiber, host_wait_until(&waiters.waitq[0], host_load_acquire(word), deadline));
		break;
	case 2:
	case 3:
		sched_point(POINT_MODEL, NULL);
		host_store_release(word, 1);
		host_wake_all(&waiters.waitq[0]);
		break;
	case 4:
		host_wake_all(&waiters.waitq[0]);
		sched_point(POINT_MODEL, NULL);
		saw(fiber, host_xchg(word, 0));
		break;
	case 5:
		saw(fiber, woken(&waiters.waitq[1], deadline));
		break;
	case 6:
		host_mutex_lock(&waiters.lock);
		saw(fiber, waiters.locked++);
		host_mutex_unlock(&waiters.lock);
		host_wake_all(&waiters.waitq[1]);
		break;
	default:
		sched_point(POINT_MODEL, NULL);
		saw(fiber, host_load_acquire(word));
	}
}

static void waiter(void *arg)
{
	u32 fiber = (u32)(uintptr_t)arg;
	u64 x = program.seed * 0x9e3779b97f4a7c15ull + fiber + 1;

	for (u32 i = 0; i < WAITER_STEPS; i++) {
		x = x * 0xd1342543de82ef95ull + 0x2545f4914f6cdd1dull;
		waiter_step(fiber, x >> 33);
	}
}

static void waiters_run(void *arg)
{
	struct host_thread threads[WAITERS];
	u64 all;

	memset(&waiters, 0, sizeof(waiters));
	host_mutex_init(&waiters.lock, RANK_LEAF);
	host_waitq_init(&waiters.waitq[0]);
	host_waitq_init(&waiters.waitq[1]);
	waiters.begin = host_now();
	for (u32 i = 0; i < WAITERS; i++)
		HOST_CHECK(host_thread_start(&threads[i], "waiter", waiter, (void *)(uintptr_t)i) ==
			   0);
	for (u32 i = 0; i < WAITERS; i++)
		host_thread_join(&threads[i]);
	all = waiters.words[0] + 2 * waiters.words[1];
	for (u32 i = 0; i < WAITERS; i++)
		all = (all + waiters.seen[i]) * 0xd1342543de82ef95ull;
	note_order(all);
}

/* The ways in which runs of the program end, sorted, malloc'd. */
static u64 *ends_of(bool all, u64 *runs, u32 *n)
{
	struct sched_options options = {.atomics_ordered = true};
	struct sched_explore_options bounds = {.preemptions = (u32)program.seed % 3, .all = all};
	struct sched_explored ret;

	program.n_orders = 0;
	program.orders = malloc(ORDERS * sizeof(u64));
	sched_explore(&options, &bounds, waiters_run, NULL, &ret, &outcome);
	assert_int_equal(outcome.result, SCHED_OK);
	assert_true(ret.complete);
	qsort(program.orders, program.n_orders, sizeof(u64), compare_orders);
	*runs += ret.runs;
	*n = program.n_orders;
	return program.orders;
}

static void test_waits(void **state)
{
	u64 runs[2] = {0}, ends = 0;

	for (program.seed = 1; program.seed <= 3 * PROGRAMS; program.seed++) {
		u32 n_few, n_all;
		u64 *few = ends_of(false, &runs[0], &n_few),
		    *every = ends_of(true, &runs[1], &n_all);

		if (n_few != n_all)
			fail_msg("program %llu ends in %u ways, %u were found",
				 (unsigned long long)program.seed, n_all, n_few);
		assert_memory_equal(few, every, n_all * sizeof(u64));
		ends += n_all;
		free(few);
		free(every);
	}
	printf("# %llu ends in %llu runs of %llu\n", (unsigned long long)ends,
	       (unsigned long long)runs[0], (unsigned long long)runs[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_bound),
	    cmocka_unit_test(test_leaves_nothing_out),
	    cmocka_unit_test(test_accesses),
	    cmocka_unit_test(test_waits),
	};

	return cmocka_run_group_tests_name("explore", tests, NULL, NULL);
}
