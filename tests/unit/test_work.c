/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_work.c: the work pool: once for each queueing, never on two threads at
 * once, delays in order, flush and cancel against work that queues itself, work
 * that frees itself, and a child after a fork.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/posix/posix.h"

#define FOR_EVER (60 * HOST_SEC)

struct job {
	struct host_work work;
	u32 runs;
	u32 inside, overlaps;
	u32 again; /* times it queues itself */
	u64 delay; /* by this much later */
	u64 time;  /* that it takes */
	u32 *hold; /* it takes until this is 0 */
};

static void job_run(struct host_work *w)
{
	struct job *job = host_container_of(w, struct job, work);

	if (host_add_return(&job->inside, 1) != 1)
		host_add_return(&job->overlaps, 1);
	host_add_return(&job->runs, 1);
	if (job->time)
		host_sleep(job->time);
	while (job->hold && host_load_seq(job->hold))
		host_sleep(10 * HOST_USEC);
	if (job->again) {
		job->again--;
		if (job->delay)
			host_work_queue_after(w, job->delay);
		else
			host_work_queue(w);
	}
	host_add_return(&job->inside, (u32)-1);
}

static void job_init(struct job *job)
{
	memset(job, 0, sizeof(*job));
	host_work_init(&job->work, job_run);
}

static int pool_start(void **unused)
{
	return host_work_start();
}

static int pool_stop(void **unused)
{
	u64 warnings = host_posix_warnings();

	host_work_stop();
	return host_posix_warnings() != warnings;
}

static void test_once(void **unused)
{
	struct job job;

	job_init(&job);
	host_work_flush(&job.work); /* idle: nothing */
	host_work_cancel(&job.work);
	assert_int_equal(job.runs, 0);
	host_work_queue(&job.work);
	host_work_flush(&job.work);
	assert_int_equal(job.runs, 1);
	host_work_flush(&job.work);
	assert_int_equal(job.runs, 1);
}

static void test_never_on_two_threads(void **unused)
{
	struct job jobs[3];
	u32 i, k;

	for (i = 0; i < 3; i++) {
		job_init(&jobs[i]);
		jobs[i].time = 20 * HOST_USEC;
	}
	for (k = 0; k < 300; k++) {
		for (i = 0; i < 3; i++)
			host_work_queue(&jobs[i].work);
		if (k % 50 == 0)
			host_sleep(100 * HOST_USEC);
	}
	for (i = 0; i < 3; i++) {
		host_work_flush(&jobs[i].work);
		assert_true(jobs[i].runs >= 1 && jobs[i].runs <= 300);
		assert_int_equal(jobs[i].overlaps, 0);
	}
}

static void test_requeue_from_itself(void **unused)
{
	struct job job;

	job_init(&job);
	job.again = 50;
	host_work_queue(&job.work);
	host_work_flush(&job.work);
	assert_int_equal(job.runs, 51);
	assert_int_equal(job.overlaps, 0);
	job.again = 5;
	job.delay = 100 * HOST_USEC;
	host_work_queue(&job.work);
	host_work_flush(&job.work);
	assert_int_equal(job.runs, 57);
}

static void test_cancel_beats_requeue(void **unused)
{
	struct job job;
	u32 runs, i;

	for (i = 0; i < 50; i++) {
		job_init(&job);
		job.again = 1u << 30;
		job.delay = i % 2 ? 10 * HOST_USEC : 0;
		host_work_queue(&job.work);
		host_sleep(i * 5 * HOST_USEC);
		host_work_cancel(&job.work);
		runs = host_load_seq(&job.runs);
		host_sleep(50 * HOST_USEC);
		assert_int_equal(host_load_seq(&job.runs), runs);
		assert_int_equal(host_load_seq(&job.inside), 0);
	}
}

static void test_cancel_before_it_began(void **unused)
{
	struct job busy[2], job;
	u32 i, hold = 1;

	job_init(&job);
	for (i = 0; i < 2; i++) {
		job_init(&busy[i]);
		busy[i].hold = &hold;
		host_work_queue(&busy[i].work);
	}
	while (!host_load_seq(&busy[0].runs) || !host_load_seq(&busy[1].runs))
		host_sleep(10 * HOST_USEC);
	host_work_queue(&job.work);
	host_work_cancel(&job.work);
	host_store_seq(&hold, 0);
	for (i = 0; i < 2; i++)
		host_work_flush(&busy[i].work);
	assert_int_equal(job.runs, 0);
	/* It is as good as new. */
	host_work_queue(&job.work);
	host_work_flush(&job.work);
	assert_int_equal(job.runs, 1);
}

static void test_delayed(void **unused)
{
	struct job jobs[3];
	u64 begin = host_now();
	u32 i;

	for (i = 0; i < 3; i++)
		job_init(&jobs[i]);
	host_work_queue_after(&jobs[0].work, 30 * HOST_SEC);
	host_work_queue_after(&jobs[1].work, 4 * HOST_MSEC);
	host_work_queue_after(&jobs[2].work, 30 * HOST_SEC);
	host_work_queue(&jobs[1].work); /* queued already */
	while (!host_load_seq(&jobs[1].runs))
		host_sleep(100 * HOST_USEC);
	assert_true(host_now() - begin >= 4 * HOST_MSEC);
	assert_int_equal(jobs[0].runs + jobs[2].runs, 0);
	host_work_flush(&jobs[0].work); /* at once */
	assert_int_equal(jobs[0].runs, 1);
	host_work_cancel(&jobs[2].work);
	assert_int_equal(jobs[2].runs, 0);
	assert_int_equal(jobs[1].runs, 1);
	assert_true(host_now() - begin < 20 * HOST_SEC);
}

/* The worker that slept for the delay may be busy when it is over. */
static void test_delayed_while_one_is_busy(void **unused)
{
	struct job job, busy;
	u32 i, hold;
	u64 begin;

	for (i = 0; i < 5; i++) {
		job_init(&job);
		job_init(&busy);
		busy.hold = &hold;
		hold = 1;
		begin = host_now();
		host_work_queue_after(&job.work, 2 * HOST_MSEC);
		host_sleep(i * 100 * HOST_USEC);
		host_work_queue(&busy.work);
		while (!host_load_seq(&job.runs) && host_now() - begin < FOR_EVER)
			host_sleep(100 * HOST_USEC);
		assert_int_equal(host_load_seq(&job.runs), 1);
		host_store_seq(&hold, 0);
		host_work_cancel(&busy.work);
	}
}

static void free_itself(struct host_work *w)
{
	host_free(host_container_of(w, struct job, work));
}

static void test_frees_itself(void **unused)
{
	u64 begin = host_now();
	u32 i;

	for (i = 0; i < 200; i++) {
		struct job *job = host_alloc(sizeof(*job));

		job_init(job);
		host_work_init(&job->work, free_itself);
		if (i % 2)
			host_work_queue(&job->work);
		else
			host_work_queue_after(&job->work, 10 * HOST_USEC);
	}
	while (host_posix_alloc_live() && host_now() - begin < FOR_EVER)
		host_sleep(100 * HOST_USEC);
	assert_int_equal(host_posix_alloc_live(), 0);
}

static void flush_and_cancel(void *arg)
{
	struct job *job = arg;
	u32 i;

	for (i = 0; i < 300; i++) {
		host_work_queue(&job->work);
		host_work_flush(&job->work);
		host_work_queue_after(&job->work, 20 * HOST_USEC);
		host_work_cancel(&job->work);
	}
}

static void test_many_at_once(void **unused)
{
	struct host_thread threads[3];
	struct job job;
	u32 i;

	job_init(&job);
	for (i = 0; i < 3; i++)
		assert_int_equal(host_thread_start(&threads[i], "many", flush_and_cancel, &job), 0);
	for (i = 0; i < 3; i++)
		host_thread_join(&threads[i]);
	host_work_cancel(&job.work);
	assert_int_equal(job.overlaps, 0);
	assert_true(job.runs > 0 && job.runs <= 1800);
}

/* Without threads a flush runs the work here. */
static void test_without_threads(void **unused)
{
	struct job job;

	job_init(&job);
	host_work_queue(&job.work);
	host_work_flush(&job.work);
	assert_int_equal(job.runs, 1);
	host_work_queue_after(&job.work, HOST_SEC);
	host_work_cancel(&job.work);
	assert_int_equal(job.runs, 1);
}

static void test_start_twice(void **unused)
{
	assert_int_equal(host_work_start(), -EBUSY);
}

static void test_stop_reports_what_is_left(void **unused)
{
	struct job job;
	u64 warnings = host_posix_warnings();

	job_init(&job);
	assert_int_equal(host_work_start(), 0);
	host_work_queue_after(&job.work, 60 * HOST_SEC);
	host_work_stop();
	assert_int_equal(host_posix_warnings(), warnings + 1);
	host_work_flush(&job.work);
	assert_int_equal(job.runs, 0);
}

/* In the child no thread works, nothing is queued, and locks that another thread
 * held are free. */
static void test_fork(void **unused)
{
	struct job busy, job;
	void *mapping;
	size_t size;
	pid_t child;
	int status;

	job_init(&busy);
	job_init(&job);
	busy.again = 1u << 30;
	host_work_queue(&busy.work);
	host_work_queue_after(&job.work, 30 * HOST_SEC);
	child = fork();
	if (child == 0) {
		host_posix_abandon(&mapping, &size);
		job_init(&job);
		host_work_queue(&job.work);
		host_work_flush(&job.work);
		_exit(job.runs == 1 && size == 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	host_work_cancel(&busy.work);
	host_work_flush(&job.work);
	assert_int_equal(job.runs, 1);
}

#define pool_test(t) cmocka_unit_test_setup_teardown(t, pool_start, pool_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_without_threads),
	    pool_test(test_once),
	    pool_test(test_never_on_two_threads),
	    pool_test(test_requeue_from_itself),
	    pool_test(test_cancel_beats_requeue),
	    pool_test(test_cancel_before_it_began),
	    pool_test(test_delayed),
	    pool_test(test_delayed_while_one_is_busy),
	    pool_test(test_frees_itself),
	    pool_test(test_many_at_once),
	    pool_test(test_start_twice),
	    pool_test(test_fork),
	    cmocka_unit_test(test_stop_reports_what_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
