/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * interval.h: an ordered index of intervals that do not overlap.
 *
 * A radix tree by the start, of 32 slots a node, without nodes that would have
 * one child only. A lookup among a million ranges loads one word for each of
 * four or five levels and then the entry; nothing is searched, nothing is ever
 * rebalanced. Entries are embedded in what they index; nodes are allocated ahead
 * (gpusvm_interval_prepare), so that an insertion under a lock that invalidations
 * take never allocates and never fails: it needs one node at most.
 * All locking is up to the caller; lookups change nothing.
 */
#ifndef GPUSVM_CORE_INTERVAL_H
#define GPUSVM_CORE_INTERVAL_H

#include "host/host.h"

#define GPUSVM_INTERVAL_LIMIT ((u64)1 << 59) /* no entry ends above */

struct gpusvm_interval {
	u64 start, end; /* half open, not empty; fixed while in a tree */
};

struct gpusvm_interval_node;
struct gpusvm_interval_tree {
	uintptr_t root; /* 0: empty; an entry, or a node with a tag (interval.c) */
	struct gpusvm_interval_node *spare; /* prepared nodes; under prepare's lock */
	u64 count;			    /* entries */
	u32 n_nodes;			    /* in use */
	u32 n_spare;
};

void gpusvm_interval_tree_init(struct gpusvm_interval_tree *tree);
/* Frees nodes and spares; entries are the caller's (the tree need not be empty). */
void gpusvm_interval_tree_fini(struct gpusvm_interval_tree *tree);
/* Makes sure that the next insertion cannot fail. 0 or -ENOMEM. May sleep.
 * prepare and the insertion it is for are in one critical section of writers. */
int gpusvm_interval_prepare(struct gpusvm_interval_tree *tree);
/* The other way to prepare, for who may not allocate where it inserts: a node made
 * outside of all locks (NULL: no memory; may sleep), and its adoption, which does
 * not allocate. A tree of n entries needs fewer than n nodes: one adopted node for
 * each entry that can ever be in it, and no insertion fails, in any order. */
struct gpusvm_interval_node *gpusvm_interval_node_alloc(void);
void gpusvm_interval_adopt(struct gpusvm_interval_tree *tree, struct gpusvm_interval_node *node);
/* Must be prepared, must not overlap an entry. */
void gpusvm_interval_insert(struct gpusvm_interval_tree *tree, struct gpusvm_interval *entry);
/* Must be in the tree. Does not allocate; emptied nodes become spares, kept to
 * a small bound, the rest freed by the next prepare or fini. */
void gpusvm_interval_remove(struct gpusvm_interval_tree *tree, struct gpusvm_interval *entry);
/* The first entry with end > start of the question and start < end of it. */
struct gpusvm_interval *gpusvm_interval_find(const struct gpusvm_interval_tree *tree, u64 start,
					     u64 end);
/* The entry after this one, or NULL. */
struct gpusvm_interval *gpusvm_interval_next(const struct gpusvm_interval_tree *tree,
					     const struct gpusvm_interval *entry);
/* Panics on the first broken invariant. */
void gpusvm_interval_tree_verify(const struct gpusvm_interval_tree *tree);

#endif
