/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * internal.h: what the files of the mirror share. Locks: see <gpusvm/mirror.h>.
 */
#ifndef GPUSVM_CORE_MIRROR_INTERNAL_H
#define GPUSVM_CORE_MIRROR_INTERNAL_H

#include <gpusvm/mirror.h>

/* Both change the trees: the tree lock, and the notifier lock for writing. */
static inline void mirror_assert_writer(const struct gpusvm_mirror *mirror)
{
	HOST_ASSERT(host_mutex_held(&mirror->tree_lock));
	HOST_ASSERT(host_rwlock_held_write(&mirror->notifier_lock));
}

/* Either keeps the trees as they are. */
static inline void mirror_assert_reader(const struct gpusvm_mirror *mirror)
{
	HOST_ASSERT(host_mutex_held(&mirror->tree_lock) ||
		    host_rwlock_held(&mirror->notifier_lock));
}

/* The order of the longest aligned run that begins with page i of npages from
 * start and lies within that of its pfn: all of one kind, one after the other. */
static inline unsigned mirror_run_order(const mm_pfn_t *pfns, u64 start, u64 i, u64 npages)
{
	unsigned order = MM_PFN_ORDER(pfns[i]);
	u64 page = (start >> HOST_PAGE_SHIFT) + i;

	while (order && (!host_is_aligned(page, (u64)1 << order) || ((u64)1 << order) > npages - i))
		order--;
	return order;
}

/* ---- notifier.c ---- */

/* The notifier that covers address, made if there is none, in *ret; it stays until
 * mirror_notifier_unpin. -ENOMEM and others of mm_notifier_insert. Tree lock. */
int mirror_notifier_pin(struct gpusvm_mirror *mirror, u64 address, struct gpusvm_notifier **ret);
void mirror_notifier_unpin(struct gpusvm_notifier *notifier);
/* Takes the notifier down if it has neither ranges nor users. Tree lock; waits
 * for callbacks in flight, so no notifier lock. */
void mirror_notifier_trim(struct gpusvm_notifier *notifier);
/* At the end: all of them, ranges or not. Tree lock. */
void mirror_notifiers_remove_all(struct gpusvm_mirror *mirror);

/* ---- range.c ---- */

/* Out of the tree, once; false: it was out already. The notifier's count and the
 * tree's reference stay with the caller. Tree lock. */
bool mirror_range_unlink(struct gpusvm_range *range);

#endif
