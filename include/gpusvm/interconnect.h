/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * <gpusvm/interconnect.h>: which device reaches whose memory, and how well.
 *
 * A graph of directed links between devices, which are numbers below
 * GPUSVM_INTERCONNECT_DEVICES. A link from a to b is a's way to the memory of b;
 * the way back is a link of its own, or there is none. Nothing is transitive:
 * where a reaches b and b reaches c, a reaches c by a link from a to c only.
 * Each link says what it is good for:
 *   GPUSVM_LINK_MAP   a may have pages of b in its page tables
 *   GPUSVM_LINK_COPY  a's copy engines may read from b
 * The owners of a device, those whose pages it may map where they are, follow from
 * the links; there are no groups to join, so that no order of coming matters.
 * Linux: drm_pagemap's owner lists, which are cliques.
 *
 * Two uses of a link have to end before it is down. What is mapped over it is its
 * user's to invalidate, with may_map asked under the lock that the invalidation
 * takes. Copies are counted here: copy_begin, copy_end, and drain waits for them.
 *
 * Locking: calls that change links exclude each other, by the caller. All
 * others may come at any time: the graph is words that are read by atomics.
 */
#ifndef GPUSVM_INTERCONNECT_H
#define GPUSVM_INTERCONNECT_H

#include "host/host.h"
#include <gpusvm/types.h>

#define GPUSVM_INTERCONNECT_DEVICES 64u
#define GPUSVM_INTERCONNECT_BANDWIDTH 16000u /* MB/s of a link that does not tell */

struct gpusvm_interconnect_link {
	u64 bandwidth_mbps; /* MB/s; 0: not known */
	u64 latency_ns;
	u64 flags; /* GPUSVM_LINK_* */
};

struct gpusvm_interconnect_row; /* the links from one device */
struct gpusvm_interconnect {
	u64 map[GPUSVM_INTERCONNECT_DEVICES];  /* by from: mask of whose pages it may map; atomic */
	u64 copy[GPUSVM_INTERCONNECT_DEVICES]; /* the same, whose it may copy */
	struct gpusvm_interconnect_row
	    *rows[GPUSVM_INTERCONNECT_DEVICES]; /* made with the first
						 * link, kept till fini */
	struct host_waitq idle;			/* for drain */
};

/* No links. */
void gpusvm_interconnect_init(struct gpusvm_interconnect *ic);
/* No copies are under way. */
void gpusvm_interconnect_fini(struct gpusvm_interconnect *ic);

/* The link from `from` to `to` becomes this one, or (NULL) goes. What it was good for
 * before and is not now is not begun any more when this returns. May sleep.
 *   -EINVAL  not two different devices, or unknown flags
 *   -ENOMEM  never when taking one down */
int gpusvm_interconnect_set(struct gpusvm_interconnect *ic, unsigned from, unsigned to,
			    const struct gpusvm_interconnect_link *link);
/* False: there is none. While links change: what was, or what will be. */
bool gpusvm_interconnect_get(struct gpusvm_interconnect *ic, unsigned from, unsigned to,
			     struct gpusvm_interconnect_link *ret);

/* May `from` map pages of `to` where they are, over a link? Of its own it always may,
 * which is not asked here. No sleep. */
static inline bool gpusvm_interconnect_may_map(struct gpusvm_interconnect *ic, unsigned from,
					       unsigned to)
{
	return host_load_seq(&ic->map[from]) >> to & 1;
}
/* The same for copies, as advice: copy_begin has the last word. */
static inline bool gpusvm_interconnect_may_copy(struct gpusvm_interconnect *ic, unsigned from,
						unsigned to)
{
	return host_load_seq(&ic->copy[from]) >> to & 1;
}
/* The owners of `from`: itself, and those whose pages it may map. */
static inline u64 gpusvm_interconnect_owners(struct gpusvm_interconnect *ic, unsigned from)
{
	return host_load_seq(&ic->map[from]) | (u64)1 << from;
}

/* `from` begins to copy out of `to`: false, it may not. Each true is owed an end. No
 * sleep. */
bool gpusvm_interconnect_copy_begin(struct gpusvm_interconnect *ic, unsigned from, unsigned to);
void gpusvm_interconnect_copy_end(struct gpusvm_interconnect *ic, unsigned from, unsigned to);
/* Waits for the copies that began before GPUSVM_LINK_COPY was taken away. May sleep. */
void gpusvm_interconnect_drain(struct gpusvm_interconnect *ic, unsigned from, unsigned to);

/* What it takes `from` to fetch so many bytes from `to`, in ns; HOST_FOREVER without a
 * link. No sleep. */
u64 gpusvm_interconnect_cost(struct gpusvm_interconnect *ic, unsigned from, unsigned to, u64 bytes);
/* Of the devices in mask, the one from which `from` has so many bytes first over a link
 * with all of flags; of equals the lowest. -1: none. No sleep. */
int gpusvm_interconnect_nearest(struct gpusvm_interconnect *ic, unsigned from, u64 mask, u64 flags,
				u64 bytes);

#endif
