/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched_work.c: host.h's deferred work, for fibers: the same promises as
 * host/posix/work.c, whose header draws the states. Between two points nothing
 * else runs, so that the pool needs no lock. Each call that changes the pool is a
 * point; workers are fibers like any other.
 */
#include "host/model/sched_internal.h"

#define WORKERS 2u

enum { IDLE, READY, DELAYED };

struct worker {
	struct host_thread thread;
	struct host_work *running;
	bool again; /* queued while it ran */
	u32 fiber;
};

static struct pool {
	struct host_work *ready, **ready_tail;
	struct host_work *delayed; /* by due */
	struct worker workers[WORKERS];
	u32 n_workers;
	bool stopping;
	char todo, done; /* to wait for: something to look at; a work has ended */
} pool;

/* host/posix/rank.c */
void rank_check(const void *lock, enum host_lock_rank rank);

static struct worker *runner_of(const struct host_work *w)
{
	for (u32 i = 0; i < WORKERS; i++)
		if (pool.workers[i].running == w)
			return &pool.workers[i];
	return NULL;
}

static void make_ready(struct host_work *w)
{
	struct worker *runner = runner_of(w);

	w->state = READY;
	w->next = NULL;
	if (runner) {
		runner->again = true;
		return;
	}
	*pool.ready_tail = w;
	pool.ready_tail = &w->next;
	sched_wake(&pool.todo);
}

static void unlink_work(struct host_work **head, struct host_work *w)
{
	struct host_work **link = head;

	while (*link != w)
		link = &(*link)->next;
	*link = w->next;
	if (pool.ready_tail == &w->next)
		pool.ready_tail = link;
	w->next = NULL;
}

static void dequeue(struct host_work *w)
{
	struct worker *runner;

	if (w->state == DELAYED) {
		unlink_work(&pool.delayed, w);
	} else if (w->state == READY) {
		runner = runner_of(w);
		if (runner)
			runner->again = false;
		else
			unlink_work(&pool.ready, w);
	}
	w->state = IDLE;
}

static void run_work(struct worker *worker, struct host_work *w)
{
	dequeue(w);
	worker->running = w;
	worker->again = false;
	sched_point(POINT_WORK, &pool);
	w->fn(w); /* may free it */
	host_posix_may_block();
	worker->running = NULL;
	if (worker->again)
		make_ready(w);
	worker->again = false;
	sched_wake(&pool.done);
}

static u64 expire(void)
{
	struct host_work *w;

	while ((w = pool.delayed) && w->due <= sched.now) {
		dequeue(w);
		make_ready(w);
	}
	return w ? w->due : HOST_FOREVER;
}

static void worker_main(void *arg)
{
	struct worker *worker = arg;

	worker->fiber = sched.current;
	while (!pool.stopping) {
		u64 due = expire();

		if (pool.ready)
			run_work(worker, pool.ready);
		else
			sched_block(POINT_WORK, &pool.todo, due);
	}
}

void work_begin(void)
{
	pool = (struct pool){.ready_tail = &pool.ready};
}

int host_work_start(void)
{
	int err = 0;

	if (pool.n_workers)
		return -EBUSY;
	work_begin();
	while (!err && pool.n_workers < WORKERS) {
		err = host_thread_start(&pool.workers[pool.n_workers].thread, "work", worker_main,
					&pool.workers[pool.n_workers]);
		pool.n_workers += !err;
	}
	if (err)
		host_work_stop();
	return err;
}

void host_work_stop(void)
{
	if (pool.ready || pool.delayed)
		sched_fail(SCHED_LEAK, "work is queued at the end");
	pool.stopping = true;
	sched_wake(&pool.todo);
	for (u32 i = 0; i < WORKERS; i++)
		host_thread_join(&pool.workers[i].thread);
	pool.n_workers = 0;
}

void host_work_init(struct host_work *w, void (*fn)(struct host_work *))
{
	*w = (struct host_work){.fn = fn, .state = IDLE};
}

void host_work_queue(struct host_work *w)
{
	rank_check(&pool, RANK_HOST);
	sched_point(POINT_WORK, &pool);
	if (w->state == IDLE)
		make_ready(w);
}

void host_work_queue_after(struct host_work *w, u64 delay_ns)
{
	struct host_work **link = &pool.delayed;

	rank_check(&pool, RANK_HOST);
	sched_point(POINT_WORK, &pool);
	if (w->state != IDLE)
		return;
	w->due = sched.now + delay_ns;
	while (*link && (*link)->due <= w->due)
		link = &(*link)->next;
	w->next = *link;
	*link = w;
	w->state = DELAYED;
	sched_wake(&pool.todo);
}

static void wait_done(const struct host_work *w)
{
	struct worker *runner = runner_of(w);

	HOST_CHECK(!runner || runner->fiber != sched.current);
	sched_block(POINT_WORK, &pool.done, HOST_FOREVER);
}

void host_work_flush(struct host_work *w)
{
	host_posix_may_block();
	sched_point(POINT_WORK, &pool);
	if (w->state == DELAYED) {
		dequeue(w);
		make_ready(w);
	}
	while (w->state != IDLE || runner_of(w)) {
		if (pool.n_workers) {
			wait_done(w);
			continue;
		}
		dequeue(w);
		w->fn(w);
	}
}

void host_work_cancel(struct host_work *w)
{
	host_posix_may_block();
	sched_point(POINT_WORK, &pool);
	for (;;) {
		if (w->state != IDLE) {
			dequeue(w);
			sched_wake(&pool.done);
		}
		if (!runner_of(w))
			break;
		wait_done(w);
	}
}

void host_posix_abandon(void **mapping, size_t *size)
{
	/* A child of the model is another run: there is nothing to make anew. */
	*mapping = NULL;
	*size = 0;
}
