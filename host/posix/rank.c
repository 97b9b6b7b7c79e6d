/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * rank.c: the checker of host/lock_order.h. Each thread keeps a list of the
 * locks that it holds; no lock is needed. Only built to do something with
 * GPUSVM_DEBUG.
 */
#include "host/posix/internal.h"

#ifdef GPUSVM_DEBUG

#include <stdlib.h>

#define RANK_DEPTH 16u /* more locks at once than any path may hold */

struct rank_entry {
	const void *lock;
	u32 rank;
	u32 write;
};

static HOST_THREAD_LOCAL struct rank_entry held[RANK_DEPTH];
static HOST_THREAD_LOCAL u32 n_held;

static void rank_fail_default(const char *what, enum host_lock_rank had, enum host_lock_rank taken)
{
	report_ranks(what, had, taken);
	abort();
}

void (*host_rank_fail)(const char *what, enum host_lock_rank held,
		       enum host_lock_rank taken) = rank_fail_default;

static enum host_lock_rank rank_highest(void)
{
	u32 highest = RANK_NONE;
	u32 i;

	for (i = 0; i < n_held; i++)
		highest = host_max(highest, held[i].rank);
	return (enum host_lock_rank)highest;
}

void rank_check(const void *lock, enum host_lock_rank rank)
{
	enum host_lock_rank highest = rank_highest();
	u32 i;

	for (i = 0; i < n_held; i++) {
		if (held[i].lock == lock) {
			host_rank_fail("a lock is taken twice", (enum host_lock_rank)held[i].rank,
				       rank);
			return;
		}
	}
	if (rank != RANK_NONE && highest >= rank)
		host_rank_fail("a lock is taken out of order", highest, rank);
}

void rank_acquired(const void *lock, enum host_lock_rank rank, bool write)
{
	if (n_held == RANK_DEPTH) {
		host_rank_fail("too many locks are held", rank_highest(), rank);
		return;
	}
	held[n_held++] = (struct rank_entry){lock, rank, write};
}

void rank_release(const void *lock)
{
	u32 i = n_held;

	while (i-- > 0) {
		if (held[i].lock != lock)
			continue;
		for (n_held--; i < n_held; i++)
			held[i] = held[i + 1];
		return;
	}
	host_rank_fail("a lock is released that is not held", rank_highest(), RANK_NONE);
}

void rank_abandon(void)
{
	n_held = 0;
}

bool rank_held(const void *lock, bool write)
{
	u32 i;

	for (i = 0; i < n_held; i++)
		if (held[i].lock == lock)
			return !write || held[i].write;
	return false;
}

/* Under locks of the home alone it may: see lock_order.h. */
void rank_check_alloc(void)
{
	u32 i;

	for (i = 0; i < n_held; i++)
		if (held[i].rank >= RANK_NOTIFIER_LIST && held[i].rank < RANK_HOST_BLOCK)
			host_rank_fail(
			    "memory is allocated under a lock that an invalidation takes",
			    (enum host_lock_rank)held[i].rank, RANK_HOST);
}

#endif
