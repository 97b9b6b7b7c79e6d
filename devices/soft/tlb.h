/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * tlb.h: a lane's cache of translations, and how it is flushed.
 *
 * Concepts
 *   generation  a VM's count of flushes. It begins at a number of the VM's own, so
 *               that no two VMs ever have the same one. An entry is good while its
 *               generation is that of the VM: a flush changes one word, no entry.
 *   marker      one word for each open access of a lane: which VM, the extent of the
 *               leaf that it goes through, and a number so that the next access's
 *               is another word. 0: none is open.
 *
 * Why a flush that sees no marker need not wait. Four steps, all sequentially
 * consistent, so that there is one order of them:
 *
 *	lane	(1) marker = leaf's extent	flusher	(3) generation += 1
 *		(2) look at the generation		(4) look at the marker
 *
 * Either (1) comes before (4), and the flusher sees the marker (or a later one:
 * the access is over) and waits. Or (4) comes before (1): then (3) comes before
 * (2), the lane sees the new generation, leaves its TLB aside and walks the page
 * table; and since the leaf was cleared before (3), the walk does not see it. The
 * walk always comes after (2), for the same reason. (Dekker's argument: each
 * side writes, then looks at what the other wrote.) For the same reason a flusher
 * that saw a marker waits until that word has changed, no longer: whatever comes
 * after it was published after (4), so its look came after (3). A busy lane does not
 * hold a flush up.
 */
#ifndef GPUSVM_SOFT_TLB_H
#define GPUSVM_SOFT_TLB_H

#include "devices/soft/pagetable.h"

#define SOFT_TLB_HUGE 64u
#define SOFT_TLB_SMALL 256u

struct soft_tlb_entry {
	u64 page; /* va >> 21 or va >> 12 */
	u64 generation;
	u64 leaf;
};

/* Direct mapped: an entry lies where its page number says. */
struct soft_tlb {
	struct soft_tlb_entry huge[SOFT_TLB_HUGE];
	struct soft_tlb_entry small[SOFT_TLB_SMALL]; /* 64K leaves too, page by page */
};

/* The leaf for va as of that generation, or 0. Context: the lane's thread. */
static inline u64 soft_tlb_find(const struct soft_tlb *tlb, u64 va, u64 generation)
{
	const struct soft_tlb_entry *e = &tlb->huge[(va >> 21) & (SOFT_TLB_HUGE - 1)];

	if (e->page == va >> 21 && e->generation == generation)
		return e->leaf;
	e = &tlb->small[(va >> 12) & (SOFT_TLB_SMALL - 1)];
	if (e->page == va >> 12 && e->generation == generation)
		return e->leaf;
	return 0;
}

static inline void soft_tlb_fill(struct soft_tlb *tlb, u64 va, u64 generation, u64 leaf)
{
	bool huge = soft_leaf_order(leaf) == HOST_HUGE_ORDER;
	unsigned shift = huge ? 21 : 12;
	struct soft_tlb_entry *e = huge ? &tlb->huge[(va >> 21) & (SOFT_TLB_HUGE - 1)]
					: &tlb->small[(va >> 12) & (SOFT_TLB_SMALL - 1)];

	*e = (struct soft_tlb_entry){va >> shift, generation, leaf};
}

/* ---- Markers: VM 63:55, number 54:39, first page 38:3, size 2:1, open 0 -------- */

/* VMs and accesses whose numbers come round again only make a flush wait more. */
#define SOFT_MARKER_VMS 512u
#define SOFT_MARKER_SERIALS 65536u

static inline u64 soft_marker(u64 vm_id, u64 serial, u64 va, unsigned order)
{
	u64 size = order == 0 ? 0 : order == SOFT_ORDER_64K ? 1 : 2;

	return vm_id << 55 | (serial & (SOFT_MARKER_SERIALS - 1)) << 39 |
	       host_align_down(va, HOST_PAGE_SIZE << order) >> HOST_PAGE_SHIFT << 3 | size << 1 | 1;
}

/* Is it an open access of the VM to any of [start, end)? */
static inline bool soft_marker_overlaps(u64 marker, u64 vm_id, u64 start, u64 end)
{
	static const u8 order[4] = {0, SOFT_ORDER_64K, HOST_HUGE_ORDER, 0};
	u64 first = (marker >> 3 & (((u64)1 << 36) - 1)) << HOST_PAGE_SHIFT;

	return (marker & 1) && marker >> 55 == vm_id && first < end &&
	       start < first + (HOST_PAGE_SIZE << order[marker >> 1 & 3]);
}

struct gpusvm_device_vm;

/* As device.h's vm_flush_begin and vm_flush_wait (tlb.c). */
u64 soft_vm_flush_begin(struct gpusvm_device_vm *vm, u64 va, u64 length);
void soft_vm_flush_wait(struct gpusvm_device_vm *vm, u64 va, u64 length, u64 ticket);

#endif
