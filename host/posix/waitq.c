/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * waitq.c: wait queues, on a mutex and a condition variable.
 *
 * A waiter holds the mutex from enter to leave, but while it sleeps. It counts
 * itself, then looks at the condition; a waker changes the condition, then
 * looks at the count: with a full fence between the two on both sides, at
 * least one sees the other. A waker that sees a waiter takes the mutex, so its
 * broadcast cannot fall between the waiter's look and its sleep.
 *
 * The hook before sleeping runs before the mutex is taken: it may take locks
 * whose holders wake this very queue.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/posix/internal.h"

#include <errno.h>
#include <time.h>

struct posix_waitq {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
};
_Static_assert(sizeof(struct posix_waitq) <= sizeof(((struct host_waitq *)0)->opaque),
	       "waitq does not fit");
_Static_assert(_Alignof(struct posix_waitq) <= _Alignof(struct host_waitq), "waitq alignment");

static struct posix_waitq *to_waitq(struct host_waitq *wq)
{
	return (struct posix_waitq *)(void *)wq->opaque;
}

void host_waitq_init(struct host_waitq *wq)
{
	struct posix_waitq *pw = to_waitq(wq);

	wq->waiters = 0;
	HOST_CHECK(pthread_mutex_init(&pw->mutex, NULL) == 0);
	HOST_CHECK(pthread_cond_init(&pw->cond, NULL) == 0);
}

void host_waitq_destroy(struct host_waitq *wq)
{
	struct posix_waitq *pw = to_waitq(wq);

	HOST_CHECK(host_read_once(&wq->waiters) == 0);
	HOST_CHECK(pthread_cond_destroy(&pw->cond) == 0);
	HOST_CHECK(pthread_mutex_destroy(&pw->mutex) == 0);
}

void host_wake_all(struct host_waitq *wq)
{
	struct posix_waitq *pw = to_waitq(wq);

	host_fence();
	if (host_likely(host_read_once(&wq->waiters) == 0))
		return;
	raw_lock(&pw->mutex);
	HOST_CHECK(pthread_cond_broadcast(&pw->cond) == 0);
	raw_unlock(&pw->mutex);
}

void host_waitq_enter(struct host_waitq *wq)
{
	host_posix_may_block();
	raw_lock(&to_waitq(wq)->mutex);
	host_add_return(&wq->waiters, 1);
	host_fence();
}

bool host_waitq_sleep(struct host_waitq *wq, u64 deadline)
{
	struct posix_waitq *pw = to_waitq(wq);
	struct timespec ts;
	int err;

	if (deadline == HOST_FOREVER) {
		HOST_CHECK(pthread_cond_wait(&pw->cond, &pw->mutex) == 0);
		return false;
	}
	ts.tv_sec = (time_t)(deadline / HOST_SEC);
	ts.tv_nsec = (long)(deadline % HOST_SEC);
	err = pthread_cond_clockwait(&pw->cond, &pw->mutex, CLOCK_MONOTONIC, &ts);
	HOST_CHECK(err == 0 || err == ETIMEDOUT);
	return err == ETIMEDOUT;
}

void host_waitq_leave(struct host_waitq *wq)
{
	host_add_return(&wq->waiters, (u32)-1);
	raw_unlock(&to_waitq(wq)->mutex);
}
