/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * retry.h: the one way in which this project tries again. Every loop that meets
 * -EAGAIN or -EBUSY asks gpusvm_retry_again(), which says no after a number of
 * tries or a time, so that none spins for ever (law 6):
 *
 *	struct gpusvm_retry retry;
 *
 *	gpusvm_retry_init(&retry, budget, 16);
 *	do
 *		err = attempt();
 *	while (err == -EAGAIN && gpusvm_retry_again(&retry));
 *
 * On the stack of its user; no locking.
 */
#ifndef GPUSVM_CORE_RETRY_H
#define GPUSVM_CORE_RETRY_H

#include "host/host.h"

#define GPUSVM_RETRY_BUDGET HOST_SEC /* where the caller names none */
#define GPUSVM_RETRY_SPINS 4u	     /* tries that only make a short turn */
#define GPUSVM_RETRY_SLEEP_MAX HOST_MSEC

struct gpusvm_retry {
	u64 deadline; /* until the first failure: the budget */
	u32 tries;    /* failures so far */
	u32 max;
};

/* budget_ns: from the first failure on, so that success costs no look at the
 * clock; 0: GPUSVM_RETRY_BUDGET. max_tries: retries allowed, 0: as many as the
 * time allows. */
static inline void gpusvm_retry_init(struct gpusvm_retry *retry, u64 budget_ns, u32 max_tries)
{
	retry->deadline = budget_ns ? budget_ns : GPUSVM_RETRY_BUDGET;
	retry->tries = 0;
	retry->max = max_tries;
}

/* After a failure: true to try again, after a pause that grows from a few turns
 * of the processor to a sleep of a millisecond. False: give up, or fall back.
 * May sleep; no lock that whoever is in the way may need. */
static inline bool gpusvm_retry_again(struct gpusvm_retry *retry)
{
	u64 now = host_now(), pause;
	u32 turns;

	if (retry->tries == 0)
		retry->deadline =
		    retry->deadline < HOST_FOREVER - now ? now + retry->deadline : HOST_FOREVER;
	if (now >= retry->deadline || (retry->max && retry->tries >= retry->max))
		return false;
	retry->tries++;
	if (retry->tries <= GPUSVM_RETRY_SPINS) {
		for (turns = 8u << retry->tries; turns; turns--)
			host_relax();
		return true;
	}
	pause = HOST_USEC << host_min(retry->tries - GPUSVM_RETRY_SPINS, 16u);
	pause = host_min(pause, (u64)GPUSVM_RETRY_SLEEP_MAX);
	host_sleep(host_min(pause, retry->deadline - now));
	return true;
}

#endif
