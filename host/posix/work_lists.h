/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * work_lists.h: what is queued of deferred work, and who runs what. Lists only: the pools
 * on threads (work.c) and on fibers (host/model/sched_work.c) wait, wake and lock.
 *
 * A work is in one of these states:
 *
 *   IDLE      not queued (it may be running)
 *   READY     in the ready list; or, while a worker runs it, noted by that
 *             worker (again), which puts it in the ready list afterwards: a work
 *             never runs twice at once
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
 *
 * All of it is the pool's, each work's next, due and state too: the caller holds its lock.
 */
#ifndef GPUSVM_POSIX_WORK_LISTS_H
#define GPUSVM_POSIX_WORK_LISTS_H

#include "host/host.h"

#define WORK_RUNNERS 2u

enum work_state { WORK_IDLE, WORK_READY, WORK_DELAYED };

/* A worker's part. */
struct work_runner {
	struct host_work *running;
	bool again; /* running was queued while it ran */
};

struct work_lists {
	struct host_work *ready, **ready_tail;
	struct host_work *delayed;
	struct work_runner runners[WORK_RUNNERS];
};
#define WORK_LISTS_INIT(lists)                                                                     \
	{                                                                                          \
		.ready_tail = &(lists).ready                                                       \
	}

/* Which worker runs it; negative: none. */
int work_runner(const struct work_lists *lists, const struct host_work *w);
/* True: it is in the ready list now, for whoever comes first. */
bool work_make_ready(struct work_lists *lists, struct host_work *w);
/* True: it is the first that will be due. */
bool work_delay(struct work_lists *lists, struct host_work *w, u64 due);
/* Out of whatever list it is in. */
void work_dequeue(struct work_lists *lists, struct host_work *w);
/* Before and after its function; true: it was queued meanwhile, and is ready again. */
void work_begin_run(struct work_lists *lists, unsigned runner, struct host_work *w);
bool work_end_run(struct work_lists *lists, unsigned runner, struct host_work *w);
/* Makes ready what is due: *next is when something will be, else HOST_FOREVER. True: the
 * ready list has grown. */
bool work_expire(struct work_lists *lists, u64 now, u64 *next);

#endif
