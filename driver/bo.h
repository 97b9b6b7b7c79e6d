/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* bo.h: the buffer object, shared by memory.c and populate.c. */
#ifndef GPUSVM_DRIVER_BO_H
#define GPUSVM_DRIVER_BO_H

#include "driver/private.h"

struct driver_bo {
	struct gpusvm_devmem base;
	struct driver_device *device;
	struct driver_bo *prev, *next; /* lru_lock; next NULL: not in the list */
	struct driver_bo *dead_next;
	u32 *blocks;	/* first frames of blocks of 1 << block_order, or NULL: one block */
	u32 frame;	/* its first one */
	u8 block_order;
	bool evicting;	/* lru_lock */
	u32 granule;	/* atomic: pages that come home together, exactly; 0: no advice */
	u32 used;	/* atomic: since it last came to the head of the list */
	u32 cause;	/* atomic: enum gpusvm_driver_cause of the next move */
	u32 *placed;	/* in dd->placed, of the 2M that it was made for */
};

static inline struct driver_bo *driver_bo_of(struct gpusvm_devmem *devmem)
{
	return host_container_of(devmem, struct driver_bo, base);
}

extern const struct gpusvm_pagemap_ops driver_pagemap_ops; /* populate.c */

/* ---- memory.c ---- */

/* A buffer object for [start, end) of mm, at most 2M, with one reference; the
 * least recently used ones make room. It is in no list yet.
 *   -ENOSPC  nothing can go      -ENOMEM
 * May sleep. Context: no lock above RANK_DRIVER_RANGE. */
int driver_bo_create(struct driver_device *dd, struct mm *mm, u64 start, u64 end,
		     enum gpusvm_driver_cause cause, struct driver_bo **ret);
/* May pages of this 2M of addresses be on the device? No sleep, no lock. */
static inline u32 *driver_placed(struct driver_device *dd, u64 address)
{
	return &dd->placed[address / HOST_HUGE_SIZE & dd->placed_mask];
}
/* From now on it may be evicted. The caller holds a reference. */
void driver_bo_ready(struct driver_bo *bo);
/* The least recently used object goes home. False: none could. */
bool driver_memory_evict_one(struct driver_device *dd);

#endif
