/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * attributes.h: what was advised, by address: a map from intervals to values,
 * apart from ranges. It splits and merges as advice is given, and survives
 * whatever happens to ranges. A data structure only: who asks and what follows
 * from it is advice.c's.
 *
 * Entries do not overlap; none of them is without any value, and two neighbours
 * that touch differ: so equal advice has one form.
 *
 * Nothing here allocates under the lock that callers hold, since an unmapping,
 * which comes in a notifier, edits the map too. Nodes are made outside and given
 * to the map; each brings along what the index will need for it, so that an
 * insertion never fails. An unmapping out of the middle of an entry takes one
 * node, a move two at most: ATTRIBUTE_RESERVE are kept for them. When they are
 * spent before anybody could give more, the smaller of the two parts is
 * forgotten: advice is lost, and counted, never wrong.
 *
 * Locking: the caller's, over all of a map.
 */
#ifndef GPUSVM_DRIVER_ATTRIBUTES_H
#define GPUSVM_DRIVER_ATTRIBUTES_H

#include "core/interval.h"
#include "host/host.h"

#define ATTRIBUTE_RESERVE 64u

/* Locations are the driver's: device indices, DRIVER_SYSTEM, DRIVER_NONE, ... */
struct attributes {
	u64 accessed_by; /* mask of devices */
	int preferred;
	int last_prefetch;
	u32 granularity; /* pages; 0: unset */
	u8 atomic;	 /* GPUSVM_ATOMIC_* */
	bool access_none, no_migrate;
};

/* One change of some of the values. */
enum attribute_edit_type {
	ATTRIBUTE_PREFERRED, /* value */
	ATTRIBUTE_LAST_PREFETCH,
	ATTRIBUTE_ACCESSED_BY, /* mask; value 0: cleared */
	ATTRIBUTE_GRANULARITY,
	ATTRIBUTE_ATOMIC,
	ATTRIBUTE_ACCESS_NONE,
	ATTRIBUTE_NO_MIGRATE,
	ATTRIBUTE_RESET, /* all but what was last prefetched, which is no advice */
};
struct attribute_edit {
	enum attribute_edit_type type;
	s64 value;
	u64 mask;
};

struct attribute_node {
	struct gpusvm_interval interval;
	struct attributes values;
	struct attribute_node *next; /* among spares */
};

struct attribute_map {
	struct gpusvm_interval_tree tree;
	struct attribute_node *spare;
	u32 n_spare;
	u64 lost; /* parts forgotten for want of a node */
};

extern const struct attributes attributes_none;

bool attributes_equal(const struct attributes *a, const struct attributes *b);
/* But for what says nothing about what shall be: what was last prefetched. */
bool attributes_agree(const struct attributes *a, const struct attributes *b);

void attribute_map_init(struct attribute_map *map);
void attribute_map_fini(struct attribute_map *map);
/* n nodes in a list, or NULL: no memory. May sleep; no lock is held. */
struct attribute_node *attribute_nodes_alloc(u32 n);
/* Takes over a list of nodes. Does not allocate. */
void attribute_map_give(struct attribute_map *map, struct attribute_node *list);

/* Edits [start, end). Returns 0, or how many nodes have to be given first, and
 * then nothing was done. *from, *to: the interval that holds all that changed, but
 * for what was last prefetched; empty: nothing did. */
u32 attribute_map_edit(struct attribute_map *map, u64 start, u64 end,
		       const struct attribute_edit *edit, u64 *from, u64 *to);
/* The mapping of [start, end) is gone. True if anything was forgotten. */
bool attribute_map_forget(struct attribute_map *map, u64 start, u64 end);
/* The mapping of [start, end) is at `to` now, in place of whatever was there. True
 * if anything changed. */
bool attribute_map_move(struct attribute_map *map, u64 start, u64 end, u64 to);

/* The values at `at`, and how far they go, up to end. */
u64 attribute_map_at(const struct attribute_map *map, u64 at, u64 end, struct attributes *ret);
/* The largest interval in [*start, *end), which holds address, whose values agree
 * with those there. */
void attribute_map_segment(const struct attribute_map *map, u64 address, u64 *start, u64 *end,
			   struct attributes *ret);
/* Panics on the first broken invariant. */
void attribute_map_verify(const struct attribute_map *map);

#endif
