/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * work.c: the pool that runs deferred work.
 *
 * One mutex guards everything: the two lists, each work's next, due and state,
 * and what each worker runs. A work is in one of these states:
 *
 *   IDLE      not queued (it may be running)
 *   READY     in the ready list; or, while a worker runs it, noted by that
 *             worker (again), which puts it in the ready list afterwards: a work
 *             never runs on two threads at once
 *   DELAYED   in the delayed list, which is in order of due
 *
 *	        queue                      taken by a worker
 *	IDLE ----------> READY ---------------------------------> IDLE
 *	  |                ^
 *	  | queue_after    | due, or flush
 *	  +----------> DELAYED
 *	READY, DELAYED --- cancel ---> IDLE
 *
 * That a work runs is known by the worker, not written in the work: its function
 * may free it, so a worker does not touch it once the function was called,
 * unless it was queued again since, which only the owner of a live one may do.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/posix/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define WORKERS 2u

enum { IDLE, READY, DELAYED };

struct worker {
	struct host_thread thread;
	struct host_work *running;
	bool again; /* running was queued while it ran */
	bool ready;
	pthread_t self;
};

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t todo; /* something for a worker to look at */
	pthread_cond_t done; /* a work has ended, or was cancelled: flushes look again */
	struct host_work *ready, **ready_tail;
	struct host_work *delayed;
	struct worker workers[WORKERS];
	u32 n_workers; /* threads there are */
	bool stopping;
};
#define POOL_INIT                                                                                  \
	{                                                                                          \
		.lock = PTHREAD_MUTEX_INITIALIZER, .todo = PTHREAD_COND_INITIALIZER,               \
		.done = PTHREAD_COND_INITIALIZER, .ready_tail = &pool.ready,                       \
	}
static struct pool pool HOST_STATIC = POOL_INIT;

/* Everything below that says "locked": pool.lock is held. */

static struct worker *locked_runner(const struct host_work *w)
{
	u32 i;

	for (i = 0; i < WORKERS; i++)
		if (pool.workers[i].running == w)
			return &pool.workers[i];
	return NULL;
}

static void locked_make_ready(struct host_work *w)
{
	struct worker *runner = locked_runner(w);

	w->state = READY;
	w->next = NULL;
	if (runner) {
		runner->again = true;
		return;
	}
	*pool.ready_tail = w;
	pool.ready_tail = &w->next;
	HOST_CHECK(pthread_cond_signal(&pool.todo) == 0);
}

static void locked_unlink(struct host_work **head, struct host_work *w)
{
	struct host_work **link = head;

	while (*link != w)
		link = &(*link)->next;
	*link = w->next;
	if (pool.ready_tail == &w->next)
		pool.ready_tail = link;
	w->next = NULL;
}

/* Out of whatever list it is in; IDLE. */
static void locked_dequeue(struct host_work *w)
{
	struct worker *runner;

	if (w->state == DELAYED) {
		locked_unlink(&pool.delayed, w);
	} else if (w->state == READY) {
		runner = locked_runner(w);
		if (runner)
			runner->again = false;
		else
			locked_unlink(&pool.ready, w);
	}
	w->state = IDLE;
}

static void locked_run(struct worker *worker, struct host_work *w)
{
	locked_dequeue(w);
	worker->running = w;
	worker->again = false;
	/* This worker may have been the one that slept until the first due time. */
	if (pool.delayed)
		HOST_CHECK(pthread_cond_signal(&pool.todo) == 0);
	raw_unlock(&pool.lock);

	w->fn(w);
	host_posix_may_block(); /* here, where no lock is held */

	raw_lock(&pool.lock);
	worker->running = NULL;
	if (worker->again)
		locked_make_ready(w);
	worker->again = false;
	HOST_CHECK(pthread_cond_broadcast(&pool.done) == 0);
}

/* Moves what is due to the ready list. The value is the next due time. */
static u64 locked_expire(u64 now)
{
	struct host_work *w;

	while ((w = pool.delayed) && w->due <= now) {
		locked_dequeue(w);
		locked_make_ready(w);
	}
	return w ? w->due : HOST_FOREVER;
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
		due = locked_expire(pool.delayed ? host_now() : 0);
		if (pool.ready) {
			locked_run(worker, pool.ready);
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
	for (i = 0; i < WORKERS && !err; i++) {
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
	while (pool.ready)
		locked_dequeue(pool.ready);
	while (pool.delayed)
		locked_dequeue(pool.delayed);
}

void host_work_stop(void)
{
	u32 i;

	if (!pool.n_workers)
		return;
	raw_lock(&pool.lock);
	HOST_WARN_ON(pool.ready || pool.delayed);
	pool.stopping = true;
	HOST_CHECK(pthread_cond_broadcast(&pool.todo) == 0);
	raw_unlock(&pool.lock);
	for (i = 0; i < WORKERS; i++) {
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
	*w = (struct host_work){.fn = fn, .state = IDLE};
}

void host_work_queue(struct host_work *w)
{
	rank_check(&pool, RANK_HOST);
	raw_lock(&pool.lock);
	if (w->state == IDLE)
		locked_make_ready(w);
	raw_unlock(&pool.lock);
}

void host_work_queue_after(struct host_work *w, u64 delay_ns)
{
	struct host_work **link = &pool.delayed;

	rank_check(&pool, RANK_HOST);
	raw_lock(&pool.lock);
	if (w->state == IDLE) {
		w->due = host_now() + delay_ns;
		while (*link && (*link)->due <= w->due)
			link = &(*link)->next;
		w->next = *link;
		*link = w;
		w->state = DELAYED;
		/* A worker may sleep past what is now the first due time. */
		if (pool.delayed == w)
			HOST_CHECK(pthread_cond_signal(&pool.todo) == 0);
	}
	raw_unlock(&pool.lock);
}

static void locked_wait_done(const struct host_work *w)
{
	struct worker *runner = locked_runner(w);

	HOST_CHECK(!runner || !pthread_equal(runner->self, pthread_self()));
	HOST_CHECK(pthread_cond_wait(&pool.done, &pool.lock) == 0);
}

void host_work_flush(struct host_work *w)
{
	host_posix_may_block();
	raw_lock(&pool.lock);
	if (w->state == DELAYED) {
		locked_dequeue(w);
		locked_make_ready(w);
	}
	while (w->state != IDLE || locked_runner(w)) {
		if (pool.n_workers) {
			locked_wait_done(w);
			continue;
		}
		locked_dequeue(w);
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
		if (w->state != IDLE) {
			locked_dequeue(w);
			HOST_CHECK(pthread_cond_broadcast(&pool.done) == 0); /* flushes */
		}
		if (!locked_runner(w))
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
