/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* internal.h: what the files of core/pagemap share. */
#ifndef GPUSVM_CORE_PAGEMAP_INTERNAL_H
#define GPUSVM_CORE_PAGEMAP_INTERNAL_H

#include <gpusvm/pagemap.h>

/* ---- copies.c: a list of copies that grows page by page ------------------
 * Neighbours in both memories become one entry; a full list is carried out and
 * begun anew. On the user's stack or heap; no locking.
 */
struct pagemap_copies {
	struct gpusvm_devmem *devmem; /* whose copy op */
	struct gpusvm_fence *after;
	struct gpusvm_copy *list;
	unsigned n, max;
	int err; /* the first; nothing is copied after it */
};

void pagemap_copies_init(struct pagemap_copies *copies, struct gpusvm_devmem *devmem,
			 struct gpusvm_fence *after, struct gpusvm_copy *list, unsigned max);
/* May sleep. */
void pagemap_copies_add(struct pagemap_copies *copies, struct gpusvm_addr dst,
			struct gpusvm_addr src, u64 length);
/* Carries out what is left; the first error of all, -ENOMEM, -ENODEV or -EFAULT.
 * May sleep. */
int pagemap_copies_finish(struct pagemap_copies *copies);

static inline struct gpusvm_addr pagemap_frame_addr(u64 frame, bool write)
{
	return gpusvm_addr_encode(frame << HOST_PAGE_SHIFT, GPUSVM_PROTO_LOCAL, 0, write);
}
static inline struct gpusvm_addr pagemap_dma_addr(mm_dma_t dma, bool write)
{
	return gpusvm_addr_encode(dma, GPUSVM_PROTO_SYSTEM, 0, write);
}

/* ---- A migration and its memory ------------------------------------------ */

#define PAGEMAP_COPIES 64u

struct pagemap_migration {
	struct mm_migrate m;
	struct pagemap_copies copies;
	struct gpusvm_addr *peers; /* to device: where each page of a peer was mapped */
	unsigned n_peers;	   /* sources that were looked for there */
	unsigned units, frames;	   /* to device: pages made, and what they amount to */
};

/* One allocation for up to npages; peers (if asked for) is cleared, m.src and m.dst by
 * begin, and copies is ready. NULL: no memory. host_free() it. May sleep. */
struct pagemap_migration *pagemap_migration_alloc(struct gpusvm_devmem *devmem, unsigned npages,
						  struct gpusvm_fence *after, bool peers);
static inline unsigned pagemap_mpfn_pages(mm_mpfn_t mpfn)
{
	return mpfn & MM_MPFN_COMPOUND ? HOST_HUGE_PAGES : 1;
}

/* ---- count.c -------------------------------------------------------------- */

/* After mm_migrate_end, for a transaction by address: adds each of its pages as one
 * thing to result: moved, already at `to` (NULL: in system memory), stayed, a hole. */
void pagemap_count(const struct mm_migrate *m, const struct gpusvm_pagemap *to,
		   struct gpusvm_migrate_result *result);

/* ---- devmem.c ------------------------------------------------------------- */

/* Gives the frames of pages [first, last) back, in the largest pieces. */
void pagemap_free_frames(struct gpusvm_devmem *devmem, unsigned first, unsigned last);
/* The ops of every pagemap's region that are about use: context as theirs. */
void pagemap_region_free(struct mm_page *page, unsigned order, void *data);
void pagemap_region_split(void *data, unsigned extra);
void pagemap_region_hold(void *data);
void pagemap_region_drop(void *data);
int pagemap_region_read(struct mm_page *page, unsigned i, void *buffer);
/* For mm_migrate.select: is it a frame of this devmem? */
bool pagemap_select_devmem(void *devmem, struct mm_page *page);

/* ---- pagemap.c ------------------------------------------------------------ */

/* -ENOMEM, -EINVAL. May sleep. */
int pagemap_region_create(struct gpusvm_pagemap *pagemap, u64 npages, struct mm_region **ret);

/* ---- home.c: to system memory ---------------------------------------------- */

/* After mm_migrate_alloc_system: copies what has a destination, and commits. The
 * caller owes mm_migrate_end.
 *   -EFAULT, -ENODEV, -ENOMEM  the copy failed: nothing is committed
 * May sleep. */
int pagemap_bring_home(struct mm_migrate *m, struct pagemap_copies *copies);
/* The pages that have moved, after a commit. */
unsigned pagemap_moved(const struct mm_migrate *m);
s64 pagemap_region_to_ram(struct mm_cpu_fault *fault);

#endif
