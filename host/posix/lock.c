/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * lock.c: mutexes and reader-writer locks on pthread's, in the opaque storage
 * of host_types.h. A contended lock calls the hook before sleeping (posix.h);
 * that is why each lock is tried first.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/posix/internal.h"

struct posix_mutex {
	pthread_mutex_t mutex;
	u32 rank;
};
struct posix_rwlock {
	pthread_rwlock_t lock;
	u32 rank;
};
_Static_assert(sizeof(struct posix_mutex) <= sizeof(struct host_mutex), "mutex does not fit");
_Static_assert(sizeof(struct posix_rwlock) <= sizeof(struct host_rwlock), "rwlock does not fit");
_Static_assert(_Alignof(struct posix_mutex) <= _Alignof(struct host_mutex), "mutex alignment");
_Static_assert(_Alignof(struct posix_rwlock) <= _Alignof(struct host_rwlock), "rwlock alignment");

HOST_THREAD_LOCAL void (*host_posix_before_block)(void);

static struct posix_mutex *to_mutex(struct host_mutex *m)
{
	return (struct posix_mutex *)(void *)m->opaque;
}

static struct posix_rwlock *to_rwlock(struct host_rwlock *l)
{
	return (struct posix_rwlock *)(void *)l->opaque;
}

void host_mutex_init(struct host_mutex *m, enum host_lock_rank rank)
{
	struct posix_mutex *pm = to_mutex(m);

	HOST_CHECK(pthread_mutex_init(&pm->mutex, NULL) == 0);
	pm->rank = rank;
}

void host_mutex_destroy(struct host_mutex *m)
{
	HOST_CHECK(pthread_mutex_destroy(&to_mutex(m)->mutex) == 0);
}

void host_mutex_lock(struct host_mutex *m)
{
	struct posix_mutex *pm = to_mutex(m);

	rank_check(m, (enum host_lock_rank)pm->rank);
	raw_lock(&pm->mutex);
	rank_acquired(m, (enum host_lock_rank)pm->rank, true);
}

/* Cannot deadlock, so its order is not checked. */
bool host_mutex_trylock(struct host_mutex *m)
{
	struct posix_mutex *pm = to_mutex(m);

	if (pthread_mutex_trylock(&pm->mutex) != 0)
		return false;
	rank_acquired(m, (enum host_lock_rank)pm->rank, true);
	return true;
}

void host_mutex_unlock(struct host_mutex *m)
{
	rank_release(m);
	raw_unlock(&to_mutex(m)->mutex);
}

void host_rwlock_init(struct host_rwlock *l, enum host_lock_rank rank)
{
	struct posix_rwlock *pl = to_rwlock(l);
	pthread_rwlockattr_t attr;

	HOST_CHECK(pthread_rwlockattr_init(&attr) == 0);
	HOST_CHECK(pthread_rwlockattr_setkind_np(
		       &attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
	HOST_CHECK(pthread_rwlock_init(&pl->lock, &attr) == 0);
	HOST_CHECK(pthread_rwlockattr_destroy(&attr) == 0);
	pl->rank = rank;
}

void host_rwlock_destroy(struct host_rwlock *l)
{
	HOST_CHECK(pthread_rwlock_destroy(&to_rwlock(l)->lock) == 0);
}

void host_read_lock(struct host_rwlock *l)
{
	struct posix_rwlock *pl = to_rwlock(l);

	rank_check(l, (enum host_lock_rank)pl->rank);
	if (host_unlikely(pthread_rwlock_tryrdlock(&pl->lock) != 0)) {
		host_posix_may_block();
		HOST_CHECK(pthread_rwlock_rdlock(&pl->lock) == 0);
	}
	rank_acquired(l, (enum host_lock_rank)pl->rank, false);
}

void host_read_unlock(struct host_rwlock *l)
{
	rank_release(l);
	HOST_CHECK(pthread_rwlock_unlock(&to_rwlock(l)->lock) == 0);
}

void host_write_lock(struct host_rwlock *l)
{
	struct posix_rwlock *pl = to_rwlock(l);

	rank_check(l, (enum host_lock_rank)pl->rank);
	if (host_unlikely(pthread_rwlock_trywrlock(&pl->lock) != 0)) {
		host_posix_may_block();
		HOST_CHECK(pthread_rwlock_wrlock(&pl->lock) == 0);
	}
	rank_acquired(l, (enum host_lock_rank)pl->rank, true);
}

bool host_write_trylock(struct host_rwlock *l)
{
	struct posix_rwlock *pl = to_rwlock(l);

	if (pthread_rwlock_trywrlock(&pl->lock) != 0)
		return false;
	rank_acquired(l, (enum host_lock_rank)pl->rank, true);
	return true;
}

void host_write_unlock(struct host_rwlock *l)
{
	rank_release(l);
	HOST_CHECK(pthread_rwlock_unlock(&to_rwlock(l)->lock) == 0);
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
