/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * placement.h: should the pages of a range move to the device that faults on
 * them, or be mapped where they are? Pure functions on a small history that
 * its owner keeps for each range and serialises.
 *
 * The rule: the first touch by a device moves them there. Pages that were
 * taken from it soon after they came, and are wanted back soon after that, have
 * bounced; soon is a lapse, and longer where moving them takes long, since a stay
 * that is short against the move did not pay. A move that takes pages from a device,
 * another's or, for room, its own, is such a taking too. After PLACEMENT_BOUNCES in a row
 * they stay where they are for a nap, each twice as long as the one before, up
 * to PLACEMENT_NAP_MAX lapses.
 */
#ifndef GPUSVM_POLICY_PLACEMENT_H
#define GPUSVM_POLICY_PLACEMENT_H

#define PLACEMENT_BOUNCES 3u	/* in a row: thrashing */
#define PLACEMENT_PIN_NAPS 4u	/* from this nap on it counts as pinned */
#define PLACEMENT_NAP_MAX 256u	/* lapses */
#define PLACEMENT_LAPSE 500000ull /* ns; the shortest that is used */
#define PLACEMENT_COSTS 4u	/* a stay shorter than so many moves is short */

enum placement {
	PLACEMENT_MIGRATE,
	PLACEMENT_STAY,	    /* mapped where they are */
	PLACEMENT_THROTTLE, /* the same, and a nap has just begun */
	PLACEMENT_PIN,	    /* the same, and a long one */
};

/* All zero: nothing was seen. Times are ns of one clock. */
struct placement_history {
	unsigned long long arrived; /* when pages last came to a device */
	unsigned long long left;    /* when some were last taken from it */
	unsigned long long cost;    /* of moving them there the last time */
	unsigned long long stay;    /* how long the pages had been on a device that the last
				     * move took; ~0: it took none */
	unsigned long long stay_until;
	unsigned short bounces, naps;
};

/* The time within which a return is a bounce, for pages that stay timeslice ns
 * at least. */
unsigned long long placement_lapse(unsigned long long timeslice);
/* A device that has memory faults on a range whose pages could move. */
enum placement placement_fault(struct placement_history *history, unsigned long long now,
			       unsigned long long lapse);
/* What came of PLACEMENT_MIGRATE, which began at `began`: pages that are there
 * now, and that are not; history->left is as of now. */
void placement_result(struct placement_history *history, unsigned long long began,
		      unsigned long long now, unsigned long long lapse,
		      unsigned long long here, unsigned long long stayed);

#endif
