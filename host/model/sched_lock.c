/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched_lock.c: host.h's locks, wait queues, threads and time, for fibers.
 *
 * A lock that is taken makes who wants it block; giving it back makes all of
 * these runnable, and the scheduler says who is first: every order that a real lock
 * allows. Misuse (a lock that is no lock any more, given back by another) ends
 * the run. The order of locks is host/posix/rank.c's to check.
 */
#include "host/model/sched_order.h"

#include <string.h>

#define MUTEX_MAGIC 0x6d757465u
#define RWLOCK_MAGIC 0x72776c6bu
#define WAITQ_MAGIC 0x77616974u

#ifdef GPUSVM_DEBUG
/* host/posix/rank.c */
void rank_check(const void *lock, enum host_lock_rank rank);
void rank_acquired(const void *lock, enum host_lock_rank rank, bool write);
void rank_release(const void *lock);
bool rank_held(const void *lock, bool write);
#else
#error "the scheduler is built with GPUSVM_DEBUG"
#endif

HOST_THREAD_LOCAL void (*host_posix_before_block)(void);

static void check_magic(u32 magic, u32 wanted, const char *kind)
{
	if (host_likely(magic == wanted))
		return;
	if (!sched.active)
		host_panic("a lock that is none", __FILE__, __LINE__);
	sched_fail(SCHED_LOCK_ORDER, "a %s is used that is not initialised, or ended: %s in %s",
		   kind, sched_place.what ? sched_place.what : "",
		   sched_place.function ? sched_place.function : "?");
}

static u32 self_mark(void)
{
	return sched.current + 1;
}

/* ---- Mutexes ----------------------------------------------------------------- */

void host_mutex_init(struct host_mutex *m, enum host_lock_rank rank)
{
	*m = (struct host_mutex){.magic = MUTEX_MAGIC, .rank = rank, .serial = ++sched.serials[0]};
}

void host_mutex_destroy(struct host_mutex *m)
{
	check_magic(m->magic, MUTEX_MAGIC, "mutex");
	if (m->owner || m->waiters)
		sched_fail(SCHED_LOCK_ORDER, "a mutex is destroyed that is held");
	m->magic = 0;
}

void host_mutex_lock(struct host_mutex *m)
{
	check_magic(m->magic, MUTEX_MAGIC, "mutex");
	rank_check(m, (enum host_lock_rank)m->rank);
	sched_point(POINT_LOCK, m);
	if (host_unlikely(m->owner))
		host_posix_may_block();
	while (m->owner) {
		m->waiters++;
		sched_block(POINT_LOCK, m, HOST_FOREVER);
		check_magic(m->magic, MUTEX_MAGIC, "mutex");
		m->waiters--;
	}
	m->owner = self_mark();
	rank_acquired(m, (enum host_lock_rank)m->rank, true);
}

bool host_mutex_trylock(struct host_mutex *m)
{
	check_magic(m->magic, MUTEX_MAGIC, "mutex");
	sched_point(POINT_TRYLOCK, m);
	if (m->owner)
		return false;
	m->owner = self_mark();
	rank_acquired(m, (enum host_lock_rank)m->rank, true);
	return true;
}

void host_mutex_unlock(struct host_mutex *m)
{
	check_magic(m->magic, MUTEX_MAGIC, "mutex");
	rank_release(m);
	if (m->owner != self_mark())
		sched_fail(SCHED_LOCK_ORDER, "a mutex is given back by one that does not hold it");
	m->owner = 0;
	if (m->waiters)
		sched_wake(m);
	sched_point(POINT_UNLOCK, m);
}

/* ---- Readers and writers -------------------------------------------------------- */

void host_rwlock_init(struct host_rwlock *l, enum host_lock_rank rank)
{
	*l =
	    (struct host_rwlock){.magic = RWLOCK_MAGIC, .rank = rank, .serial = ++sched.serials[1]};
}

void host_rwlock_destroy(struct host_rwlock *l)
{
	check_magic(l->magic, RWLOCK_MAGIC, "rwlock");
	if (l->writer || l->readers || l->waiting_readers || l->waiting_writers)
		sched_fail(SCHED_LOCK_ORDER, "a rwlock is destroyed that is held");
	l->magic = 0;
}

void host_read_lock(struct host_rwlock *l)
{
	check_magic(l->magic, RWLOCK_MAGIC, "rwlock");
	rank_check(l, (enum host_lock_rank)l->rank);
	sched_point(POINT_READ_LOCK, l);
	if (l->writer || l->waiting_writers)
		host_posix_may_block();
	while (l->writer || l->waiting_writers) {
		l->waiting_readers++;
		sched_block(POINT_READ_LOCK, l, HOST_FOREVER);
		check_magic(l->magic, RWLOCK_MAGIC, "rwlock");
		l->waiting_readers--;
	}
	l->readers++;
	rank_acquired(l, (enum host_lock_rank)l->rank, false);
}

static void rwlock_released(struct host_rwlock *l, enum sched_point_kind kind)
{
	if (l->waiting_readers || l->waiting_writers)
		sched_wake(l);
	sched_point(kind, l);
}

void host_read_unlock(struct host_rwlock *l)
{
	check_magic(l->magic, RWLOCK_MAGIC, "rwlock");
	rank_release(l);
	if (!l->readers)
		sched_fail(SCHED_LOCK_ORDER, "a rwlock is given back that no one reads under");
	l->readers--;
	rwlock_released(l, POINT_READ_UNLOCK);
}

void host_write_lock(struct host_rwlock *l)
{
	check_magic(l->magic, RWLOCK_MAGIC, "rwlock");
	rank_check(l, (enum host_lock_rank)l->rank);
	sched_point(POINT_WRITE_LOCK, l);
	if (l->writer || l->readers)
		host_posix_may_block();
	while (l->writer || l->readers) {
		l->waiting_writers++;
		sched_block(POINT_WRITE_LOCK, l, HOST_FOREVER);
		check_magic(l->magic, RWLOCK_MAGIC, "rwlock");
		l->waiting_writers--;
	}
	l->writer = self_mark();
	rank_acquired(l, (enum host_lock_rank)l->rank, true);
}

bool host_write_trylock(struct host_rwlock *l)
{
	check_magic(l->magic, RWLOCK_MAGIC, "rwlock");
	sched_point(POINT_TRYLOCK, l);
	if (l->writer || l->readers)
		return false;
	l->writer = self_mark();
	rank_acquired(l, (enum host_lock_rank)l->rank, true);
	return true;
}

void host_write_unlock(struct host_rwlock *l)
{
	check_magic(l->magic, RWLOCK_MAGIC, "rwlock");
	rank_release(l);
	if (l->writer != self_mark())
		sched_fail(SCHED_LOCK_ORDER, "a rwlock is given back by one that does not hold it");
	l->writer = 0;
	rwlock_released(l, POINT_UNLOCK);
}

bool host_mutex_held(const struct host_mutex *m)
{
	return rank_held(m, true);
}

bool host_rwlock_held(const struct host_rwlock *l)
{
	return rank_held(l, false);
}

bool host_rwlock_held_write(const struct host_rwlock *l)
{
	return rank_held(l, true);
}

/* ---- Wait queues ------------------------------------------------------------------
 * In host/posix a waiter holds the queue's mutex from enter to leave but while it
 * sleeps, so that no wake falls between its look at the condition and its sleep. Here
 * the count of wakes says the same: a sleep after a wake that the waiter's look did
 * not follow returns at once.
 */

void host_waitq_init(struct host_waitq *wq)
{
	*wq = (struct host_waitq){.magic = WAITQ_MAGIC, .serial = ++sched.serials[2]};
}

void host_waitq_destroy(struct host_waitq *wq)
{
	check_magic(wq->magic, WAITQ_MAGIC, "wait queue");
	if (wq->waiters)
		sched_fail(SCHED_LOCK_ORDER, "a wait queue is destroyed that has waiters");
	wq->magic = 0;
}

void host_wake_all(struct host_waitq *wq)
{
	check_magic(wq->magic, WAITQ_MAGIC, "wait queue");
	sched_point(POINT_WAKE, wq);
	check_magic(wq->magic, WAITQ_MAGIC, "wait queue");
	if (!wq->waiters)
		return;
	wq->wakes++;
	sched_wake(wq);
}

void host_waitq_enter(struct host_waitq *wq)
{
	struct sched_fiber *self = sched.self;

	check_magic(wq->magic, WAITQ_MAGIC, "wait queue");
	host_posix_may_block();
	HOST_CHECK(!self->queue);
	sched_point(POINT_WAIT, wq);
	check_magic(wq->magic, WAITQ_MAGIC, "wait queue");
	wq->waiters++;
	self->queue = wq;
	self->wakes = wq->wakes;
	self->told = false;
}

bool host_waitq_sleep(struct host_waitq *wq, u64 deadline)
{
	struct sched_fiber *self = sched.self;
	bool late = false, blind = !self->told;

	HOST_CHECK(self->queue == wq);
	if (blind)
		sched_access(wq, true);
	if (deadline <= sched.now)
		late = true;
	else if (self->wakes == wq->wakes)
		late = sched_block(POINT_WAIT, wq, deadline);
	check_magic(wq->magic, WAITQ_MAGIC, "wait queue");
	if (blind)
		sched_access(wq, true); /* after what woke it */
	self->wakes = wq->wakes;
	self->told = false;
	return late;
}

void host_waitq_leave(struct host_waitq *wq)
{
	check_magic(wq->magic, WAITQ_MAGIC, "wait queue");
	wq->waiters--;
	sched.self->queue = NULL;
}

/* ---- Time --------------------------------------------------------------------------- */

u64 host_now(void)
{
	/* A loop that looks at nothing but the clock ends some time. */
	return sched.active ? sched.now++ : 0;
}

void host_sleep(u64 ns)
{
	u64 deadline = ns < HOST_FOREVER - 1 - sched.now ? sched.now + ns : HOST_FOREVER - 1;

	host_posix_may_block();
	while (sched.now < deadline)
		sched_block(POINT_SLEEP, sched.self, deadline);
}

void host_relax(void)
{
	sched_yield_lazy();
}

/* ---- Threads -------------------------------------------------------------------------- */

int host_thread_start(struct host_thread *t, const char *name, void (*fn)(void *), void *arg)
{
	int err;

	*t = (struct host_thread){0};
	sched_point(POINT_ALLOC, NULL);
	if (sched_alloc_fails())
		return -ENOMEM;
	err = sched_spawn(name, fn, arg, &t->fiber);
	t->started = !err;
	return err;
}

void host_thread_join(struct host_thread *t)
{
	if (!t->started)
		return;
	host_posix_may_block();
	while (!sched_over(t->fiber))
		sched_block(POINT_JOIN, &sched.fibers[t->fiber], HOST_FOREVER);
	order_join(t->fiber);
	*t = (struct host_thread){0};
}
