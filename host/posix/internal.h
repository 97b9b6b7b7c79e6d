/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * internal.h: what the files of host/posix share: the rank checker's calls, and
 * raw locks for their own state (which are outside of the ranks, taken last
 * and never while sleeping).
 */
#ifndef GPUSVM_HOST_POSIX_INTERNAL_H
#define GPUSVM_HOST_POSIX_INTERNAL_H

#include "host/posix/posix.h"

#include <pthread.h>

static inline void raw_lock(pthread_mutex_t *m)
{
	if (host_likely(pthread_mutex_trylock(m) == 0))
		return;
	host_posix_may_block();
	HOST_CHECK(pthread_mutex_lock(m) == 0);
}

static inline void raw_unlock(pthread_mutex_t *m)
{
	HOST_CHECK(pthread_mutex_unlock(m) == 0);
}

/* One line to standard error (report.c). */
void report_ranks(const char *what, enum host_lock_rank held, enum host_lock_rank taken);

/* ---- Lock ranks (rank.c): what this thread holds ---- */
#ifdef GPUSVM_DEBUG
/* Before a lock call that may sleep. */
void rank_check(const void *lock, enum host_lock_rank rank);
void rank_acquired(const void *lock, enum host_lock_rank rank, bool write);
void rank_release(const void *lock);
/* In a forked child: what the forking thread held is never released there. */
void rank_abandon(void);
bool rank_held(const void *lock, bool write);
/* Memory may be allocated now: no lock that an invalidation takes is held. */
void rank_check_alloc(void);
#else
static inline void rank_check(const void *lock, enum host_lock_rank rank)
{
	(void)lock;
	(void)rank;
}
static inline void rank_acquired(const void *lock, enum host_lock_rank rank, bool write)
{
	(void)lock;
	(void)rank;
	(void)write;
}
static inline void rank_release(const void *lock)
{
	(void)lock;
}
static inline void rank_abandon(void)
{
}
static inline bool rank_held(const void *lock, bool write)
{
	(void)lock;
	(void)write;
	return true;
}
static inline void rank_check_alloc(void)
{
}
#endif

/* ---- In a forked child (host_posix_abandon) ---- */
void work_abandon(void);
void memory_abandon(void **mapping, size_t *size);

#endif
