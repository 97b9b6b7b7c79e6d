/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* placement.c: see the header. No locking: pure. */
#include "policy/placement.h"

unsigned long long placement_lapse(unsigned long long timeslice)
{
	/* A bounce cannot be shorter than the timeslice that holds it. */
	return PLACEMENT_LAPSE + 2 * timeslice;
}

/* A nap of so many lapses, twice the last one. */
static enum placement nap(struct placement_history *history, unsigned long long now,
			  unsigned long long lapse)
{
	unsigned shift = history->naps < 8 ? history->naps : 8;
	unsigned long long lapses = 4ull << shift;

	if (lapses > PLACEMENT_NAP_MAX)
		lapses = PLACEMENT_NAP_MAX;
	history->stay_until = now + lapses * lapse;
	history->bounces = 0;
	if (history->naps < 255)
		history->naps++;
	return history->naps < PLACEMENT_PIN_NAPS ? PLACEMENT_THROTTLE : PLACEMENT_PIN;
}

/* Did pages leave a device soon after they came, and are wanted soon after that? */
static int bounced(const struct placement_history *history, unsigned long long now,
		   unsigned long long lapse)
{
	unsigned long long left = history->left, arrived = history->arrived;

	if (!left)
		return 0;
	if (left < arrived) /* taken by the move that was last */
		return history->stay <= lapse && now <= arrived + lapse;
	return left - arrived <= lapse && now <= left + lapse;
}

enum placement placement_fault(struct placement_history *history, unsigned long long now,
			       unsigned long long lapse)
{
	if (now < history->stay_until)
		return PLACEMENT_STAY;
	lapse += PLACEMENT_COSTS * history->cost;
	if (!bounced(history, now, lapse)) {
		/* No bounce. Calm for a long time: past naps are forgotten. */
		history->bounces = 0;
		if (now > history->stay_until + PLACEMENT_NAP_MAX * lapse)
			history->naps = 0;
		return PLACEMENT_MIGRATE;
	}
	if (++history->bounces < PLACEMENT_BOUNCES)
		return PLACEMENT_MIGRATE;
	return nap(history, now, lapse);
}

void placement_result(struct placement_history *history, unsigned long long began,
		      unsigned long long now, unsigned long long lapse,
		      unsigned long long here, unsigned long long stayed)
{
	if (here) {
		history->stay = ~0ull;
		if (history->arrived && history->left >= began && began >= history->arrived)
			history->stay = history->left - history->arrived;
		history->arrived = now;
		history->cost = now - began;
	} else if (stayed) {
		/* Nothing would move (pinned, no memory): asking at each fault
		 * would cost more than it brings. */
		history->stay_until = now + lapse;
	}
}
