/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * pagetable.h: a tree of tables from process addresses of 48 bits to
 * gpusvm_addr, nine bits a level, with leaves of 2M, 64K and 4K.
 *
 * Concepts
 *   leaf    one word: the gpusvm_addr of the leaf's page, its order that of the
 *           leaf (0, 4 or 9), 0 when nothing is there. A leaf of 64K is sixteen
 *           slots of 4K that follow each other and all say order 4.
 *   small   the table below a 2M slot. It stays when a 2M leaf takes its place,
 *           with no leaf in it, and until the page table goes.
 *
 * Locking: prepare, and likewise map and unmap, are serialised by the caller.
 * Walks take no lock: tables are published with release and freed with the page
 * table only, a leaf is one word.
 */
#ifndef GPUSVM_SOFT_PAGETABLE_H
#define GPUSVM_SOFT_PAGETABLE_H

#include <gpusvm/addr.h>

#define SOFT_VA_BITS 48u
#define SOFT_VA_END ((u64)1 << SOFT_VA_BITS)
#define SOFT_PT_ENTRIES 512u
#define SOFT_ORDER_64K 4u

struct soft_pt_small { /* of 2M; one page of memory */
	u64 leaf[SOFT_PT_ENTRIES];
};

struct soft_pt_dir {		   /* of 1G */
	u64 leaf[SOFT_PT_ENTRIES]; /* of 2M; where it is not 0 the small one is empty */
	struct soft_pt_small *small[SOFT_PT_ENTRIES];
	u16 live[SOFT_PT_ENTRIES]; /* leaves in the small one that are not 0 */
};

struct soft_pt_mid { /* of 512G */
	struct soft_pt_dir *dir[SOFT_PT_ENTRIES];
};

struct soft_pt {
	struct soft_pt_mid *mid[SOFT_PT_ENTRIES];
	u32 no_orders; /* bit n: no leaves of 1 << n pages; never bit 0 */
};

/* For a zeroed page table. Nobody walks. May sleep. */
void soft_pt_fini(struct soft_pt *pt);
/* Makes the tables that a map in [va, va + length) needs: small ones for all of
 * it if small, else for the 2M blocks that it covers in part. -ENOMEM (what was
 * made stays), -EINVAL (beyond 48 bits). May sleep. */
int soft_pt_prepare(struct soft_pt *pt, u64 va, u64 length, bool small);
/* Writes leaves for n runs, one after the other from va. Gaps (PROTO_NONE) are
 * passed over and keep what they have. Never allocates: panics where prepare did
 * not make the table. */
void soft_pt_map(struct soft_pt *pt, u64 va, const struct gpusvm_addr *runs, unsigned n);
/* Clears leaves, whole ones at the edges. True if any was there. */
bool soft_pt_unmap(struct soft_pt *pt, u64 va, u64 length);
/* The leaf for va, or 0. */
u64 soft_pt_walk(const struct soft_pt *pt, u64 va);

static inline unsigned soft_leaf_order(u64 leaf)
{
	return (unsigned)leaf & 31u;
}
static inline bool soft_leaf_write(u64 leaf)
{
	return leaf >> 7 & 1u;
}
static inline bool soft_leaf_atomics(u64 leaf)
{
	return gpusvm_addr_atomics((struct gpusvm_addr){ leaf });
}
static inline enum gpusvm_proto soft_leaf_proto(u64 leaf)
{
	return (enum gpusvm_proto)(leaf >> 8 & 15u);
}
/* Where the leaf's memory begins. */
static inline u64 soft_leaf_base(u64 leaf)
{
	return host_align_down(leaf, HOST_PAGE_SIZE << soft_leaf_order(leaf));
}

#endif
