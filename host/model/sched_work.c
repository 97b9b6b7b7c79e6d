/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched_work.c: host.h's deferred work, for fibers: the same promises as
 * host/posix/work.c, and the same lists. Between two points nothing else runs, so
 * that the pool needs no lock. Each call that changes the pool is a
 * point; workers are fibers like any other.
 */
#include "host/model/sched_internal.h"
#include "host/posix/work_lists.h"

struct worker {
	struct host_thread thread;
	u32 fiber;
};

static struct pool {
	struct work_lists lists;
	struct worker workers[WORK_RUNNERS];
	u32 n_workers;
	bool stopping;
	char todo, done; /* to wait for: something to look at; a work has ended */
} pool;

/* host/posix/rank.c */
void rank_check(const void *lock, enum host_lock_rank rank);

static void make_ready(struct host_work *w)
{
	if (work_make_ready(&pool.lists, w))
		sched_wake(&pool.todo);
}

static void run_work(unsigned worker, struct host_work *w)
{
	work_begin_run(&pool.lists, worker, w);
	sched_point(POINT_WORK, &pool);
	w->fn(w); /* may free it */
	host_posix_may_block();
	if (work_end_run(&pool.lists, worker, w))
		sched_wake(&pool.todo);
	sched_wake(&pool.done);
}

static void worker_main(void *arg)
{
	struct worker *worker = arg;

	worker->fiber = sched.current;
	while (!pool.stopping) {
		u64 due;

		if (work_expire(&pool.lists, sched.now, &due))
			sched_wake(&pool.todo);
		if (pool.lists.ready)
			run_work((unsigned)(worker - pool.workers), pool.lists.ready);
		else
			sched_block(POINT_WORK, &pool.todo, due);
	}
}

void work_begin(void)
{
	pool = (struct pool){.lists = WORK_LISTS_INIT(pool.lists)};
}

int host_work_start(void)
{
	int err = 0;

	if (pool.n_workers)
		return -EBUSY;
	work_begin();
	while (!err && pool.n_workers < WORK_RUNNERS) {
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
	if (pool.lists.ready || pool.lists.delayed)
		sched_fail(SCHED_LEAK, "work is queued at the end");
	pool.stopping = true;
	sched_wake(&pool.todo);
	for (u32 i = 0; i < WORK_RUNNERS; i++)
		host_thread_join(&pool.workers[i].thread);
	pool.n_workers = 0;
}

void host_work_init(struct host_work *w, void (*fn)(struct host_work *))
{
	*w = (struct host_work){.fn = fn, .state = WORK_IDLE};
}

void host_work_queue(struct host_work *w)
{
	rank_check(&pool, RANK_HOST);
	sched_point(POINT_WORK, &pool);
	if (w->state == WORK_IDLE)
		make_ready(w);
}

void host_work_queue_after(struct host_work *w, u64 delay_ns)
{
	rank_check(&pool, RANK_HOST);
	sched_point(POINT_WORK, &pool);
	if (w->state != WORK_IDLE)
		return;
	(void)work_delay(&pool.lists, w, sched.now + delay_ns);
	sched_wake(&pool.todo); /* needed only for the first that is due; may happen for each */
}

static void wait_done(const struct host_work *w)
{
	int runner = work_runner(&pool.lists, w);

	HOST_CHECK(runner < 0 || pool.workers[runner].fiber != sched.current);
	sched_block(POINT_WORK, &pool.done, HOST_FOREVER);
}

void host_work_flush(struct host_work *w)
{
	host_posix_may_block();
	sched_point(POINT_WORK, &pool);
	if (w->state == WORK_DELAYED) {
		work_dequeue(&pool.lists, w);
		make_ready(w);
	}
	while (w->state != WORK_IDLE || work_runner(&pool.lists, w) >= 0) {
		if (pool.n_workers) {
			wait_done(w);
			continue;
		}
		work_dequeue(&pool.lists, w);
		w->fn(w);
	}
}

void host_work_cancel(struct host_work *w)
{
	host_posix_may_block();
	sched_point(POINT_WORK, &pool);
	for (;;) {
		if (w->state != WORK_IDLE) {
			work_dequeue(&pool.lists, w);
			sched_wake(&pool.done);
		}
		if (work_runner(&pool.lists, w) < 0)
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
