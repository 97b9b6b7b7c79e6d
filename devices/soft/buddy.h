/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * buddy.h: which frames of the device's memory are free.
 *
 * Blocks of 1 << order frames, aligned to their size, orders 0 to max_order.
 * All that is known of a block is one bit, "free and not part of a larger free
 * block", so that what was allocated as one may be freed in any aligned parts.
 * Two bits a frame and their summaries, made at creation: nothing allocates
 * later. All locking is up to the caller.
 */
#ifndef GPUSVM_SOFT_BUDDY_H
#define GPUSVM_SOFT_BUDDY_H

#include "host/host.h"

#define SOFT_BUDDY_ORDERS 25u /* blocks of 64 GiB at most */
#define SOFT_BITMAP_LEVELS 6u

/* A set of numbers that finds its lowest in a few steps: level 0 has a bit each,
 * every further level a bit for each word of the one below that is not zero. */
struct soft_bitmap {
	u64 *level[SOFT_BITMAP_LEVELS];
	u32 levels;
};

struct soft_buddy {
	u64 frames;
	u64 free; /* frames */
	u32 max_order;
	u32 orders; /* bit n: there is a free block of order n */
	u64 *words; /* of all bitmaps */
	struct soft_bitmap blocks[SOFT_BUDDY_ORDERS];
};

/* All free. frames: at least 1. -ENOMEM. May sleep. */
int soft_buddy_init(struct soft_buddy *buddy, u64 frames);
void soft_buddy_fini(struct soft_buddy *buddy);
/* The smallest block that will do, the lowest of its size: large blocks stay whole
 * for as long as small ones are left. -ENOSPC. */
int soft_buddy_alloc(struct soft_buddy *buddy, unsigned order, u64 *ret);
/* Panics when any of it is free already. */
void soft_buddy_free(struct soft_buddy *buddy, u64 frame, unsigned order);
/* Is a block of this order to be had? */
bool soft_buddy_has(const struct soft_buddy *buddy, unsigned order);
/* Panics on the first broken invariant. Slow. */
void soft_buddy_verify(const struct soft_buddy *buddy);

#endif
