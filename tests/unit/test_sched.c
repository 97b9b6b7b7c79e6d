/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_sched.c: the deterministic scheduler: what it promises of host.h, and that it
 * finds what is wrong. Built with -DHOST_MODEL, all of it on fibers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "host/model/sched.h"
#include "host/posix/posix.h"

static struct sched_outcome outcome;

static void run(void (*fn)(void *), const struct sched_options *options)
{
	sched_run(options, fn, NULL, &outcome);
}

static void expect_ok(void (*fn)(void *), const struct sched_options *options)
{
	run(fn, options);
	if (outcome.result != SCHED_OK)
		fail_msg("%s: %s", sched_result_name(outcome.result), outcome.text);
}

/* The first seed of n that ends so; 0: none. */
static u64 find(void (*fn)(void *), struct sched_options options, enum sched_result wanted, u64 n)
{
	for (options.seed = 1; options.seed <= n; options.seed++) {
		run(fn, &options);
		if (outcome.result == wanted)
			return options.seed;
		if (outcome.result != SCHED_OK)
			fail_msg("%s: %s", sched_result_name(outcome.result), outcome.text);
	}
	return 0;
}

/* Starts n threads and joins them. */
static void together(u32 n, void (*fn)(void *), void *arg)
{
	struct host_thread threads[8];

	for (u32 i = 0; i < n; i++)
		HOST_CHECK(host_thread_start(&threads[i], "worker", fn, arg) == 0);
	for (u32 i = 0; i < n; i++)
		host_thread_join(&threads[i]);
}

/* ---- Mutual exclusion ------------------------------------------------------------ */

struct counter {
	struct host_mutex lock;
	u32 value, inside, atomic;
	bool locked;
};

static void count_up(void *arg)
{
	struct counter *c = arg;

	for (u32 i = 0; i < 5; i++) {
		u32 old;

		if (c->locked)
			host_mutex_lock(&c->lock);
		old = c->value;
		HOST_CHECK(!c->locked || !c->inside++);
		host_add_return(&c->atomic, 1); /* a point */
		c->value = old + 1;
		c->inside = 0;
		if (c->locked)
			host_mutex_unlock(&c->lock);
	}
}

static void count_with(bool locked)
{
	struct counter c = {.locked = locked};

	host_mutex_init(&c.lock, RANK_LEAF);
	together(3, count_up, &c);
	if (c.value != 15)
		sched_fail(SCHED_LAW, "%u, not 15", c.value);
	host_mutex_destroy(&c.lock);
}

static void count_locked(void *arg)
{
	count_with(true);
}

static void count_unlocked(void *arg)
{
	count_with(false);
}

static void test_mutual_exclusion(void **state)
{
	struct sched_options options = {.atomics = true};

	for (options.seed = 0; options.seed < 300; options.seed++) {
		options.kind = options.seed & 1 ? SCHED_PCT : SCHED_RANDOM;
		options.length = 60;
		expect_ok(count_locked, &options);
	}
	assert_true(find(count_unlocked, (struct sched_options){.atomics = true}, SCHED_LAW, 100));
	assert_true(find(count_unlocked,
			 (struct sched_options){.atomics = true, .kind = SCHED_PCT, .length = 60},
			 SCHED_LAW, 100));
}

/* ---- Writers go first -------------------------------------------------------------- */

static struct {
	struct host_rwlock lock;
	u32 step, order;
} rw;

static void late_writer(void *arg)
{
	host_write_lock(&rw.lock);
	rw.order = rw.order * 10 + 1;
	host_write_unlock(&rw.lock);
}

static void late_reader(void *arg)
{
	while (rw.lock.waiting_writers == 0) /* the writer is in line */
		host_relax();
	host_read_lock(&rw.lock);
	rw.order = rw.order * 10 + 2;
	host_read_unlock(&rw.lock);
}

static void writers_first(void *arg)
{
	struct host_thread writer, reader;

	rw.order = 0;
	host_rwlock_init(&rw.lock, RANK_LEAF);
	host_read_lock(&rw.lock);
	HOST_CHECK(host_thread_start(&writer, "writer", late_writer, NULL) == 0);
	HOST_CHECK(host_thread_start(&reader, "reader", late_reader, NULL) == 0);
	while (rw.lock.waiting_readers == 0)
		host_relax();
	HOST_CHECK(!host_write_trylock(&rw.lock));
	host_read_unlock(&rw.lock);
	host_thread_join(&writer);
	host_thread_join(&reader);
	if (rw.order != 12)
		sched_fail(SCHED_LAW, "a reader overtook a writer");
	host_rwlock_destroy(&rw.lock);
}

static void test_writers_go_first(void **state)
{
	struct sched_options options = {0};

	for (options.seed = 0; options.seed < 100; options.seed++)
		expect_ok(writers_first, &options);
}

/* ---- Wakes ---------------------------------------------------------------------------- */

static struct {
	struct host_waitq wq;
	u32 ready;
	bool early; /* the mistake: wakes before the condition holds */
} wake;

static void waker(void *arg)
{
	if (wake.early)
		host_wake_all(&wake.wq);
	host_store_release(&wake.ready, 1);
	if (!wake.early)
		host_wake_all(&wake.wq);
}

static void wait_for_waker(void *arg)
{
	struct host_thread thread;

	host_waitq_init(&wake.wq);
	wake.ready = 0;
	HOST_CHECK(host_thread_start(&thread, "waker", waker, NULL) == 0);
	host_wait(&wake.wq, host_load_acquire(&wake.ready));
	host_thread_join(&thread);
	host_waitq_destroy(&wake.wq);
}

static void test_lost_wake_is_found(void **state)
{
	struct sched_options options = {.atomics = true};

	wake.early = false;
	for (options.seed = 0; options.seed < 300; options.seed++)
		expect_ok(wait_for_waker, &options);
	wake.early = true;
	assert_true(find(wait_for_waker, options, SCHED_DEADLOCK, 300));
	assert_non_null(strstr(outcome.text, "wake.ready"));
}

/* ---- Deadlock, livelock, order ------------------------------------------------------------ */

static struct host_mutex one, other;

static void other_way_round(void *arg)
{
	host_mutex_lock(&other);
	host_mutex_lock(&one);
	host_mutex_unlock(&one);
	host_mutex_unlock(&other);
}

static void abba(void *arg)
{
	struct host_thread thread;

	host_mutex_init(&one, RANK_NONE);
	host_mutex_init(&other, RANK_NONE);
	HOST_CHECK(host_thread_start(&thread, "backwards", other_way_round, NULL) == 0);
	host_mutex_lock(&one);
	host_mutex_lock(&other);
	host_mutex_unlock(&other);
	host_mutex_unlock(&one);
	host_thread_join(&thread);
}

static void test_deadlock_is_named(void **state)
{
	assert_true(find(abba, (struct sched_options){0}, SCHED_DEADLOCK, 300));
	assert_non_null(strstr(outcome.text, "backwards (#1) waits for the unranked lock #1, which "
					     "main (#0) holds, in other_way_round: &one"));
	assert_non_null(strstr(outcome.text, "main (#0) waits for the unranked lock #2"));
}

static void wrong_order(void *arg)
{
	host_mutex_init(&one, RANK_FENCE);
	host_mutex_init(&other, RANK_DEVMEM);
	host_mutex_lock(&one);
	host_mutex_lock(&other);
}

static void wrong_owner_thread(void *arg)
{
	host_mutex_unlock(&one);
}

static void wrong_owner(void *arg)
{
	host_mutex_init(&one, RANK_FENCE);
	host_mutex_lock(&one);
	together(1, wrong_owner_thread, NULL);
}

static void test_lock_order_is_each_fibers_own(void **state)
{
	run(wrong_order, &(struct sched_options){0});
	assert_int_equal(outcome.result, SCHED_LOCK_ORDER);
	assert_non_null(strstr(outcome.text, "out of order: devmem while fence is held"));
	run(wrong_owner, &(struct sched_options){0});
	assert_int_equal(outcome.result, SCHED_LOCK_ORDER);
}

static void spin_forever(void *arg)
{
	for (;;)
		host_relax();
}

static void sleep_forever(void *arg)
{
	for (;;)
		host_sleep(HOST_MSEC);
}

static void test_livelock_is_found(void **state)
{
	run(spin_forever, &(struct sched_options){.max_idle_points = 10000});
	assert_int_equal(outcome.result, SCHED_LIVELOCK);
	assert_non_null(strstr(outcome.text, "in spin_forever: busy"));
	run(sleep_forever, &(struct sched_options){.max_idle_time = HOST_SEC});
	assert_int_equal(outcome.result, SCHED_LIVELOCK);
	assert_true(outcome.points < 2000);
}

/* ---- Time ------------------------------------------------------------------------------------ */

static u64 order_of_sleepers;

static void sleeper(void *arg)
{
	u64 ms = 10 + 50 * (u64)(uintptr_t)arg;

	host_sleep(ms * HOST_MSEC);
	order_of_sleepers = order_of_sleepers * 10 + (u64)(uintptr_t)arg;
}

static void sleepers(void *arg)
{
	struct host_thread threads[3];
	struct host_waitq wq;
	u64 start = host_now();
	u32 never = 0;

	order_of_sleepers = 0;
	for (uintptr_t i = 0; i < 3; i++)
		HOST_CHECK(host_thread_start(&threads[i], "sleeper", sleeper, (void *)(3 - i)) ==
			   0);
	host_waitq_init(&wq);
	HOST_CHECK(!host_wait_until(&wq, host_load_acquire(&never), start + 3600 * HOST_SEC));
	HOST_CHECK(host_now() >= start + 3600 * HOST_SEC);
	for (u32 i = 0; i < 3; i++)
		host_thread_join(&threads[i]);
	HOST_CHECK(order_of_sleepers == 123);
	host_waitq_destroy(&wq);
}

static void test_time_is_virtual(void **state)
{
	struct sched_options options = {.max_idle_time = 4000 * HOST_SEC};

	for (options.seed = 0; options.seed < 50; options.seed++)
		expect_ok(sleepers, &options);
	assert_true(outcome.time >= 3600 * HOST_SEC);
}

/* ---- Work --------------------------------------------------------------------------------------
 */

static struct {
	struct host_work work;
	u32 ran;
} job;

static void job_run(struct host_work *w)
{
	job.ran++;
	host_sleep(HOST_USEC);
	if (job.ran == 1)
		host_work_queue(w); /* again */
}

static void jobs(void *arg)
{
	job.ran = 0;
	host_work_init(&job.work, job_run);
	host_work_queue(&job.work);
	host_work_queue(&job.work);
	host_work_flush(&job.work);
	HOST_CHECK(job.ran == 2 || job.ran == 3); /* the second may be another */
	job.ran = 10;
	host_work_queue_after(&job.work, HOST_SEC);
	host_work_cancel(&job.work);
	HOST_CHECK(job.ran == 10);
	host_work_queue_after(&job.work, HOST_SEC);
	host_sleep(2 * HOST_SEC);
	HOST_CHECK(job.ran == 11);
}

static void test_work(void **state)
{
	struct sched_options options = {.work = true};

	for (options.seed = 0; options.seed < 200; options.seed++)
		expect_ok(jobs, &options);
}

/* ---- Memory
 * ---------------------------------------------------------------------------------------- */

static void write_after_free(void *arg)
{
	char *p = host_alloc(100);

	host_free(p);
	p[50] = 1;
}

static void write_beyond(void *arg)
{
	char *p = host_alloc(100);

	p[104] = 1;
	host_free(p);
}

static void free_twice(void *arg)
{
	char *p = host_alloc(100);

	host_free(p);
	host_free(p);
}

static void read_freed_page(void *arg)
{
	char *p = host_alloc_pages(HOST_HUGE_SIZE), byte;

	host_free_pages(p, HOST_HUGE_SIZE);
	host_memcpy(&byte, p + 5000, 1);
}

static void follow_freed(void *arg)
{
	void ***p = host_alloc(64);

	host_free(p);
	**p = NULL;
}

static void leak(void *arg)
{
	(void)!host_alloc(10);
}

static void leak_thread(void *arg)
{
	static struct host_thread thread;

	(void)host_thread_start(&thread, "stray", sleep_forever, NULL);
}

static void use_ended_lock(void *arg)
{
	struct host_mutex *m = host_alloc(sizeof(*m));

	host_mutex_init(m, RANK_LEAF);
	host_free(m);
	host_mutex_lock(m);
}

static void test_misuse_of_memory_is_found(void **state)
{
	static const struct {
		void (*fn)(void *);
		enum sched_result result;
	} cases[] = {
	    {write_after_free, SCHED_MEMORY}, {write_beyond, SCHED_MEMORY},
	    {free_twice, SCHED_MEMORY},	      {read_freed_page, SCHED_MEMORY},
	    {follow_freed, SCHED_CRASH},      {leak, SCHED_LEAK},
	    {leak_thread, SCHED_LEAK},	      {use_ended_lock, SCHED_LOCK_ORDER},
	};

	for (u32 i = 0; i < host_array_size(cases); i++) {
#ifdef __SANITIZE_ADDRESS__
		if (cases[i].result == SCHED_CRASH)
			continue; /* the sanitizer's to tell */
#endif
		run(cases[i].fn, &(struct sched_options){0});
		assert_int_equal(outcome.result, cases[i].result);
	}
}

static void read_after_free(void *arg)
{
	volatile char *p = host_alloc(100);

	host_free((char *)p);
	(void)p[50];
}

static void read_beyond(void *arg)
{
	volatile char *p = host_alloc(100);

	(void)p[100];
}

static void read_before(void *arg)
{
	volatile char *p = host_alloc(128);

	(void)p[-1];
}

static void read_beyond_run(void *arg)
{
	volatile char *p = host_alloc(5000);

	(void)p[5000];
}

static void read_next_page(void *arg)
{
	volatile char *p = host_alloc_pages(HOST_PAGE_SIZE);

	(void)p[HOST_PAGE_SIZE];
}

static void read_freed_run(void *arg)
{
	volatile char *p = host_alloc_pages(HOST_HUGE_SIZE);

	host_free_pages((char *)p, HOST_HUGE_SIZE);
	(void)p[5000];
}

/* Does a process that runs it end by the sanitizer's hand? */
static bool sanitizer_ends(void (*fn)(void *))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 2);
		run(fn, &(struct sched_options){.poison = true});
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status != 0;
}

static void test_sanitizer_finds_misuse_of_memory(void **state)
{
#if defined(__SANITIZE_ADDRESS__)
	void (*const cases[])(void *) = {
	    write_after_free, write_beyond,   read_after_free, read_beyond,    read_before,
	    read_beyond_run,  read_next_page, read_freed_run,  use_ended_lock,
	};

	for (u32 i = 0; i < host_array_size(cases); i++)
		assert_true(sanitizer_ends(cases[i]));
	assert_false(sanitizer_ends(leak)); /* it is the run that tells */
#else
	print_message("no AddressSanitizer\n");
	skip();
#endif
}

static void allocate_some(void *arg)
{
	struct host_thread thread = {0};
	void *p[4] = {0};
	void *other_one;
	int err = host_thread_start(&thread, "spinner", sleeper, NULL);

	for (u32 i = 0; i < 4; i++) {
		p[i] = i & 1 ? host_alloc(5000) : host_alloc_zeroed(100 + i);
		if (p[i] && !(i & 1))
			for (u32 k = 0; k < 100 + i; k++)
				HOST_CHECK(!((char *)p[i])[k]);
	}
	other_one = host_alloc_pages(HOST_HUGE_SIZE);
	HOST_CHECK(host_is_aligned((u64)(uintptr_t)other_one, HOST_HUGE_SIZE));
	HOST_CHECK(host_arena_expand(host_arena_compress(p[2])) == p[2]);
	*(u32 *)arg =
	    !p[0] + 2 * !p[1] + 4 * !p[2] + 8 * !p[3] + 16 * !other_one + 32 * (err == -ENOMEM);
	for (u32 i = 0; i < 4; i++)
		host_free(p[i]);
	host_free_pages(other_one, HOST_HUGE_SIZE);
	host_thread_join(&thread);
}

static void test_each_allocation_fails(void **state)
{
	static const u32 missing[] = {0, 32, 1, 2, 4, 8, 16, 0};
	u32 got;

	for (u32 n = 0; n < host_array_size(missing); n++) {
		sched_run(&(struct sched_options){.fail_alloc = n, .seed = n, .poison = n & 1},
			  allocate_some, &got, &outcome);
		assert_int_equal(outcome.result, SCHED_OK);
		assert_int_equal(got, missing[n]);
		assert_int_equal(outcome.allocations, 6);
	}
}

/* ---- Fiber-local variables, the hook ------------------------------------------------------------
 */

static HOST_THREAD_LOCAL u32 mine;
static u32 hooked;

static void hook(void)
{
	host_posix_before_block = NULL;
	hooked++;
}

static void local_worker(void *arg)
{
	HOST_CHECK(mine == 0 && !host_posix_before_block);
	mine = sched_self();
	host_sleep(HOST_USEC);
	HOST_CHECK(mine == sched_self());
}

static void locals(void *arg)
{
	HOST_CHECK(mine == 0);
	mine = 77;
	host_posix_before_block = hook;
	hooked = 0;
	together(4, local_worker, NULL);
	HOST_CHECK(mine == 77 && hooked == 1);
}

static void test_fiber_local_variables(void **state)
{
	struct sched_options options = {0};

	for (options.seed = 0; options.seed < 20; options.seed++)
		expect_ok(locals, &options);
}

/* ---- The same again
 * ---------------------------------------------------------------------------------- */

static u64 trace_hash;

static void hash_event(void *arg, const struct sched_event *event)
{
	trace_hash = (trace_hash ^ (event->fiber * 100 + event->kind)) * 0x100000001b3ull;
}

static void test_same_seed_same_run(void **state)
{
	struct sched_options options = {
	    .seed = 5, .watch = hash_event, .atomics = true, .work = true};
	struct sched_choice *choices;
	u64 hash[3], points;

	for (u32 i = 0; i < 3; i++) {
		trace_hash = 0;
		options.seed = i < 2 ? 5 : 6;
		expect_ok(jobs, &options);
		hash[i] = trace_hash;
	}
	assert_int_equal(hash[0], hash[1]);
	assert_int_not_equal(hash[0], hash[2]);

	/* Replayed from its choices it is the same again. */
	options.seed = 5;
	trace_hash = 0;
	assert_true(find(count_unlocked, options, SCHED_LAW, 100));
	options.seed = find(count_unlocked, options, SCHED_LAW, 100);
	trace_hash = 0;
	run(count_unlocked, &options);
	hash[0] = trace_hash;
	points = outcome.points;
	choices = malloc(outcome.n_choices * sizeof(*choices));
	memcpy(choices, outcome.choices, outcome.n_choices * sizeof(*choices));
	options.kind = SCHED_REPLAY;
	options.choices = choices;
	options.n_choices = outcome.n_choices;
	trace_hash = 0;
	run(count_unlocked, &options);
	assert_int_equal(outcome.result, SCHED_LAW);
	assert_int_equal(outcome.points, points);
	assert_int_equal(trace_hash, hash[0]);
	/* Without any it is a run too. */
	options.n_choices = 0;
	expect_ok(count_unlocked, &options);
	free(choices);
}

/* ---- Speed: told, not asserted
 * ---------------------------------------------------------------------------- */

static void busy_worker(void *arg)
{
	struct counter *c = arg;

	for (u32 i = 0; i < 50000; i++) {
		host_mutex_lock(&c->lock);
		c->value++;
		host_mutex_unlock(&c->lock);
	}
}

static void busy(void *arg)
{
	struct counter c = {0};

	host_mutex_init(&c.lock, RANK_LEAF);
	together(6, busy_worker, &c);
	HOST_CHECK(c.value == 300000);
	host_mutex_destroy(&c.lock);
}

static void test_speed(void **state)
{
	struct timespec from, to;
	double seconds;

	clock_gettime(CLOCK_MONOTONIC, &from);
	expect_ok(busy, &(struct sched_options){.seed = 3, .max_idle_points = ~(u64)0 >> 1});
	clock_gettime(CLOCK_MONOTONIC, &to);
	seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
	printf("# %.0f points a second\n", (double)outcome.points / seconds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_mutual_exclusion),
	    cmocka_unit_test(test_writers_go_first),
	    cmocka_unit_test(test_lost_wake_is_found),
	    cmocka_unit_test(test_deadlock_is_named),
	    cmocka_unit_test(test_lock_order_is_each_fibers_own),
	    cmocka_unit_test(test_livelock_is_found),
	    cmocka_unit_test(test_time_is_virtual),
	    cmocka_unit_test(test_work),
	    cmocka_unit_test(test_misuse_of_memory_is_found),
	    cmocka_unit_test(test_sanitizer_finds_misuse_of_memory),
	    cmocka_unit_test(test_each_allocation_fails),
	    cmocka_unit_test(test_fiber_local_variables),
	    cmocka_unit_test(test_same_seed_same_run),
	    cmocka_unit_test(test_speed),
	};

	return cmocka_run_group_tests_name("sched", tests, NULL, NULL);
}
