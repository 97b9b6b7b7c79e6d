/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * work.c: the pool that runs deferred work.
 *
 * One mutex guards everything: the lists (work_lists.h, which draws a work's states), and
 * what each worker runs.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/posix/internal.h"
#include "host/posix/work_lists.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

struct worker {
	struct host_thread thread;
	bool ready;
	pthread_t self;
};

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t todo; /* something for a worker to look at */
	pthread_cond_t done; /* a work has ended, or was cancelled: flushes look again */
	struct work_lists lists;
	struct worker workers[WORK_RUNNERS];
	u32 n_workers; /* threads there are */
	bool stopping;
};
#define POOL_INIT                                                                                  \
	{                                                                                          \
		.lock = PTHREAD_MUTEX_INITIALIZER, .todo = PTHREAD_COND_INITIALIZER,               \
		.done = PTHREAD_COND_INITIALIZER, .lists = WORK_LISTS_INIT(pool.lists),            \
	}
static struct pool pool HOST_STATIC = POOL_INIT;

/* Everything below that says "locked": pool.lock is held. */

static void locked_todo(void)
{
	HOST_CHECK(pthread_cond_signal(&pool.todo) == 0);
}

static void locked_make_ready(struct host_work *w)
{
	if (work_make_ready(&pool.lists, w))
		locked_todo();
}

static void locked_run(unsigned worker, struct host_work *w)
{
	work_begin_run(&pool.lists, worker, w);
	/* This worker may have been the one that slept until the first due time. */
	if (pool.lists.delayed)
		locked_todo();
	raw_unlock(&pool.lock);

	w->fn(w);
	host_posix_may_block(); /* here, where no lock is held */

	raw_lock(&pool.lock);
	if (work_end_run(&pool.lists, worker, w))
		locked_todo();
	HOST_CHECK(pthread_cond_broadcast(&pool.done) == 0);
}

/* Makes ready what is due. The value is the next due time. */
static u64 locked_expire(void)
{
	u64 due;

	if (work_expire(&pool.lists, pool.lists.delayed ? host_now() : 0, &due))
		HOST_CHECK(pthread_cond_broadcast(&pool.todo) == 0); /* it may be several */
	return due;
}

static void locked_wait_todo(u64 due)
{
	struct timespec ts;
	int err;

	if (due == HOST_FOREVER) {
		HOST_CHECK(pthread_cond_wait(&pool.todo, &pool.lock) == 0);
		return;
	}
	ts.tv_sec = (time_t)(due / HOST_SEC);
	ts.tv_nsec = (long)(due % HOST_SEC);
	err = pthread_cond_clockwait(&pool.todo, &pool.lock, CLOCK_MONOTONIC, &ts);
	HOST_CHECK(err == 0 || err == ETIMEDOUT);
}

/* To join a thread is to free what malloc gave for it; the first free of a thread has
 * malloc map a pool for it. So that nothing is mapped later on, it is done now. */
static void warm_malloc(void)
{
	void *volatile p = malloc(1);

	free(p);
}

static void worker_main(void *arg)
{
	struct worker *worker = arg;
	u64 due;

	warm_malloc();
	raw_lock(&pool.lock);
	worker->self = pthread_self();
	worker->ready = true;
	HOST_CHECK(pthread_cond_broadcast(&pool.done) == 0);
	while (!pool.stopping) {
		due = locked_expire();
		if (pool.lists.ready) {
			locked_run((unsigned)(worker - pool.workers), pool.lists.ready);
			continue;
		}
		locked_wait_todo(due);
	}
	raw_unlock(&pool.lock);
}

int host_work_start(void)
{
	int err = 0;
	u32 i;

	if (pool.n_workers)
		return -EBUSY;
	for (i = 0; i < WORK_RUNNERS && !err; i++) {
		err = host_thread_start(&pool.workers[i].thread, "gpusvm-work", worker_main,
					&pool.workers[i]);
		if (!err) {
			raw_lock(&pool.lock);
			pool.n_workers++;
			while (!pool.workers[i].ready)
				HOST_CHECK(pthread_cond_wait(&pool.done, &pool.lock) == 0);
			raw_unlock(&pool.lock);
		}
	}
	if (err)
		host_work_stop();
	return err;
}

/* What is left has lost its owner's flush: dropped, so that nothing runs later. */
static void locked_drop_all(void)
{
	while (pool.lists.ready)
		work_dequeue(&pool.lists, pool.lists.ready);
	while (pool.lists.delayed)
		work_dequeue(&pool.lists, pool.lists.delayed);
}

void host_work_stop(void)
{
	u32 i;

	if (!pool.n_workers)
		return;
	raw_lock(&pool.lock);
	HOST_WARN_ON(pool.lists.ready || pool.lists.delayed);
	pool.stopping = true;
	HOST_CHECK(pthread_cond_broadcast(&pool.todo) == 0);
	raw_unlock(&pool.lock);
	for (i = 0; i < WORK_RUNNERS; i++) {
		host_thread_join(&pool.workers[i].thread);
		pool.workers[i].ready = false;
	}

	raw_lock(&pool.lock);
	locked_drop_all();
	pool.n_workers = 0;
	pool.stopping = false;
	HOST_CHECK(pthread_cond_broadcast(&pool.done) == 0);
	raw_unlock(&pool.lock);
}

void host_work_init(struct host_work *w, void (*fn)(struct host_work *))
{
	*w = (struct host_work){.fn = fn, .state = WORK_IDLE};
}

void host_work_queue(struct host_work *w)
{
	rank_check(&pool, RANK_HOST);
	raw_lock(&pool.lock);
	if (w->state == WORK_IDLE)
		locked_make_ready(w);
	raw_unlock(&pool.lock);
}

void host_work_queue_after(struct host_work *w, u64 delay_ns)
{
	rank_check(&pool, RANK_HOST);
	raw_lock(&pool.lock);
	/* A worker may sleep past what is now the first due time. */
	if (w->state == WORK_IDLE && work_delay(&pool.lists, w, host_now() + delay_ns))
		locked_todo();
	raw_unlock(&pool.lock);
}

static void locked_wait_done(const struct host_work *w)
{
	int runner = work_runner(&pool.lists, w);

	HOST_CHECK(runner < 0 || !pthread_equal(pool.workers[runner].self, pthread_self()));
	HOST_CHECK(pthread_cond_wait(&pool.done, &pool.lock) == 0);
}

void host_work_flush(struct host_work *w)
{
	host_posix_may_block();
	raw_lock(&pool.lock);
	if (w->state == WORK_DELAYED) {
		work_dequeue(&pool.lists, w);
		locked_make_ready(w);
	}
	while (w->state != WORK_IDLE || work_runner(&pool.lists, w) >= 0) {
		if (pool.n_workers) {
			locked_wait_done(w);
			continue;
		}
		work_dequeue(&pool.lists, w);
		raw_unlock(&pool.lock);
		w->fn(w);
		raw_lock(&pool.lock);
	}
	raw_unlock(&pool.lock);
}

void host_work_cancel(struct host_work *w)
{
	host_posix_may_block();
	raw_lock(&pool.lock);
	/* It may queue itself again while it ends: taken out again. */
	for (;;) {
		if (w->state != WORK_IDLE) {
			work_dequeue(&pool.lists, w);
			HOST_CHECK(pthread_cond_broadcast(&pool.done) == 0); /* flushes */
		}
		if (work_runner(&pool.lists, w) < 0)
			break;
		locked_wait_done(w);
	}
	raw_unlock(&pool.lock);
}

/* The workers did not come along. */
void work_abandon(void)
{
	pool = (struct pool)POOL_INIT;
}
