/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * <gpusvm/pagemap.h>: memory of a device that can back the addresses of a
 * process, and migration between it and system memory. Linux: drm_pagemap.
 *
 * Concepts
 *   pagemap  the memory itself, counted; made of frames of a mm_region
 *   devmem   one allocation in it of at most 2M, embedded in the driver's buffer
 *            object; lives as long as one of its frames backs an address
 *
 * A pagemap knows physical memory only: no range, no mirror, and addresses only
 * while a call that was given some runs (law 4). Who must hear of a migration
 * hears it from notifiers.
 *
 * Lifetime of a devmem: gpusvm_devmem_init gives one reference to the caller;
 * gpusvm_devmem_migrate consumes it on every return; each frame in use holds
 * one. With the last, ops->release runs. Frames go back one by one through
 * ops->free_frames as they fall out of use, so that part of an allocation that
 * has gone home is free for others at once.
 */
#ifndef GPUSVM_PAGEMAP_H
#define GPUSVM_PAGEMAP_H

#include <gpusvm/addr.h>
#include <gpusvm/device.h> /* struct gpusvm_copy */
#include <gpusvm/fence.h>
#include "host/mm.h"

struct gpusvm_pagemap;
struct gpusvm_devmem;

struct gpusvm_migrate_result {
	u64 moved, already, stayed, holes; /* pages of 4K */
	u32 stayed_reason;		   /* MM_STAYED_* */
};

struct gpusvm_pagemap_ops {
	/* The address of a run of this pagemap's frames (page is the first, order
	 * its aligned run) for device dev: LOCAL for its own, PEER over a link, NONE
	 * where it may not. Context: RANK_MIRROR held for reading; no sleep, no
	 * allocation. Linux: device_map. */
	struct gpusvm_addr (*device_map)(struct gpusvm_pagemap *pagemap, void *dev,
					 struct mm_page *page, unsigned order, bool write);
	/* Undoes it; may be NULL. Context: RANK_MIRROR held. */
	void (*device_unmap)(struct gpusvm_pagemap *pagemap, void *dev, struct gpusvm_addr addr);
	/* The same for a copy by dev out of this pagemap's memory, which may be allowed where
	 * mapping is not; the way stays open until copy_unmap, which is called for each that
	 * is not NONE. Both NULL: device_map and device_unmap say it. Context: no lock, no
	 * sleep. */
	struct gpusvm_addr (*copy_map)(struct gpusvm_pagemap *pagemap, void *dev,
				       struct mm_page *page, unsigned order);
	void (*copy_unmap)(struct gpusvm_pagemap *pagemap, void *dev, struct gpusvm_addr addr);
	/* Moves [start, end) of mm here, from wherever it is, as far as it goes; the
	 * pages stay timeslice ns at least. Best effort: 0 with what happened in
	 * *result (never NULL). -ENODEV once revoked; -ENOSPC when no memory could be
	 * had for the first page; -ENOMEM; -EFAULT mm gone. May sleep, may evict. */
	int (*populate_mm)(struct gpusvm_pagemap *pagemap, struct mm *mm, u64 start, u64 end,
			   u64 timeslice, struct gpusvm_migrate_result *result);
	/* Which pages around a CPU fault go home with it: page index `fault` of a
	 * window of n pages (those of one aligned 2M that share a devmem) gives
	 * [*first, *last). address: of the fault, for this call only. NULL: 64K around. Not
	 * asked for a compound devmem, which goes whole, unless that is `exact`.
	 * Pure, or on atomics of the device: called on the CPU fault path (law 5). */
	void (*fault_window)(struct gpusvm_devmem *devmem, u64 address, unsigned fault, unsigned n,
			     unsigned *first, unsigned *last);
	/* n pages went to system memory, or (to_device) came from there or straight from a
	 * peer. For statistics and events; on the CPU fault path: no locks but RANK_LEAF. May
	 * be NULL. peer: whose they were, NULL: system memory. cause: see enum
	 * gpusvm_migrate_cause. devmem: where there are several (gpusvm_devmem_migrate_huge),
	 * the first. */
	void (*migrated)(struct gpusvm_devmem *devmem, struct mm *mm, u64 address, u64 pages,
			 bool to_device, struct gpusvm_pagemap *peer, unsigned cause, u64 started);
	/* The last reference is gone. May run where nothing may sleep long: defer; with a
	 * cache: gpusvm_pagemap_cache_idle. */
	void (*destroy)(struct gpusvm_pagemap *pagemap);
};

enum gpusvm_migrate_cause {
	GPUSVM_MIGRATE_REQUEST, /* populate_mm's caller knows why */
	GPUSVM_MIGRATE_CPU_FAULT,
	GPUSVM_MIGRATE_EVICTION,
};

struct gpusvm_pagemap {
	const struct gpusvm_pagemap_ops *ops;
	struct host_ref ref;
	struct mm_region *region;
	u32 revoked; /* no new population; atomic */
	/* CPU faults that are being served, those that began in an even turn and in an odd
	 * one; see gpusvm_pagemap_settle. Atomics. */
	u32 faults[2];
	u32 faults_turn;
	/* What a migration works on (core/pagemap), while none does; atomic. Making it anew
	 * each time costs more than moving 2M of pages that need no copy. */
	void *scratch;
	/* Its frames are this memory, which mm_memory_add knows; NULL: not. Set after init. */
	void *memory;
	/* The device whose memory it is, as other pagemaps' device_map knows it: pages
	 * of theirs are then copied over directly. Set after init; NULL: they stay. */
	void *dev;
};

/* First reference to the caller. npages: frames, multiple of 512. -ENOMEM. */
int gpusvm_pagemap_init(struct gpusvm_pagemap *pagemap, const struct gpusvm_pagemap_ops *ops,
			u64 npages);
/* In ops->destroy: every frame must be free. */
void gpusvm_pagemap_fini(struct gpusvm_pagemap *pagemap);
struct gpusvm_pagemap *gpusvm_pagemap_get(struct gpusvm_pagemap *pagemap); /* NULL-safe */
void gpusvm_pagemap_put(struct gpusvm_pagemap *pagemap);		   /* NULL-safe */
/* From now on migration to it answers -ENODEV (law 10). What is there is
 * brought home by evicting each devmem. */
void gpusvm_pagemap_revoke(struct gpusvm_pagemap *pagemap);
/* Whoever touched a page goes on as soon as it is home, before the fault is over: before
 * ops->migrated, and before frames are free. Waits for all of them that have begun: what
 * they did is counted when it returns. One caller at a time for a pagemap, which need not
 * be in use; may sleep. */
void gpusvm_pagemap_settle(struct gpusvm_pagemap *pagemap);
struct gpusvm_pagemap *gpusvm_page_pagemap(const struct mm_page *page);
/* The devmem that a device frame belongs to; good while the frame is. */
struct gpusvm_devmem *gpusvm_page_devmem(const struct mm_page *page);
/* Checks, takes mm in use, calls ops->populate_mm. Errors: those of the op. */
int gpusvm_pagemap_populate(struct gpusvm_pagemap *pagemap, struct mm *mm, u64 start, u64 end,
			    u64 timeslice, struct gpusvm_migrate_result *result);

/*
 * A pagemap that is made at first use, kept for a while after the last reference, revived
 * in between at no cost, and taken down at once when memory is short. See cache.c.
 * Linux: drm_pagemap_cache and its shrinker.
 */
struct gpusvm_pagemap_cache {
	struct gpusvm_pagemap *pagemap; /* the owner's */
	u64 npages, keepalive;
	struct host_mutex lock; /* RANK_LEAF */
	u64 idle_since;		/* host_now(); atomic */
	struct host_work shrink;
	struct host_shrinker shrinker; /* gives it up while it is idle */
};

/* Of these frames (a multiple of 512), kept for so many ns. The pagemap is initialised,
 * without a reference; its ops->destroy calls idle. -ENOMEM. */
int gpusvm_pagemap_cache_init(struct gpusvm_pagemap_cache *cache, struct gpusvm_pagemap *pagemap,
			      const struct gpusvm_pagemap_ops *ops, u64 npages, u64 keepalive);
/* No reference is left, and no call to idle under way. May sleep. */
void gpusvm_pagemap_cache_fini(struct gpusvm_pagemap_cache *cache);
/* A reference to the pagemap. 0: there were others; 1: this is the first one, which
 * one call of ops->destroy will answer. -ENODEV revoked, -ENOMEM. May sleep; no lock of
 * rank RANK_NOTIFIER_LIST or above. */
int gpusvm_pagemap_cache_get(struct gpusvm_pagemap_cache *cache);
/* For ops->destroy; context as its. */
void gpusvm_pagemap_cache_idle(struct gpusvm_pagemap_cache *cache);
/* Takes an idle pagemap down at once. False: it is in use. Context as get. */
bool gpusvm_pagemap_cache_shrink(struct gpusvm_pagemap_cache *cache);

struct gpusvm_devmem_ops {
	/* The last reference is gone and all frames were given to free_frames.
	 * Context: may be inside a notifier: short locks of RANK_LEAF only, or defer
	 * to work. May be NULL. */
	void (*release)(struct gpusvm_devmem *devmem);
	/* The frame that backs page i of the allocation. Repeatable. No sleep. */
	u64 (*frame)(struct gpusvm_devmem *devmem, unsigned i);
	/* 1 << order frames are not in use any more. Context as release. */
	void (*free_frames)(struct gpusvm_devmem *devmem, u64 frame, unsigned order);
	/* Reads 4K of a frame with no lock and no sleep, for a forked child. NULL: it
	 * is done by copy. */
	void (*read)(struct gpusvm_devmem *devmem, u64 frame, void *buffer);
	/* Copies, or clears, in either direction; as copy of device.h. done NULL:
	 * complete on return. */
	int (*copy)(struct gpusvm_devmem *devmem, const struct gpusvm_copy *list, unsigned n,
		    struct gpusvm_fence *after, struct gpusvm_fence *done);
};

struct gpusvm_devmem {
	const struct gpusvm_devmem_ops *ops;
	struct gpusvm_pagemap *pagemap; /* a reference is held */
	struct mm *mm;			/* whose pages it holds; a grab is held */
	struct host_ref ref;
	u32 npages;
	u32 resident;		/* frames in use; atomic */
	u32 unplaced;		/* frames that no migration has disposed of yet: all or 0 */
	u32 compound;		/* one 2M frame backs it all; atomic */
	u64 timeslice_end;	/* host_now() before which a CPU fault waits; atomic */
	struct gpusvm_fence *after; /* copies into it begin when this is signalled, or NULL */
	u32 exact;		/* fault_window is asked also if it is compound; atomic */
	u32 window;		/* for fault_window: state of the fault-around; atomic */
	struct host_waitq detached; /* woken when resident reaches 0 */
};

/* npages: 1 to 512. after: a reference is taken, may be NULL. Does not fail. */
void gpusvm_devmem_init(struct gpusvm_devmem *devmem, const struct gpusvm_devmem_ops *ops,
			struct gpusvm_pagemap *pagemap, struct mm *mm, unsigned npages,
			struct gpusvm_fence *after);
bool gpusvm_devmem_get_unless_zero(struct gpusvm_devmem *devmem);
void gpusvm_devmem_put(struct gpusvm_devmem *devmem);

struct gpusvm_migrate_details {
	u64 timeslice; /* ns from the end of the migration */
	bool compound; /* keep 2M pages whole (frames aligned and contiguous) */
	/* Which pages of other devices come along; asked while they are in use. NULL: all
	 * that can be copied from there. Context: as mm_migrate.select. */
	bool (*take)(void *arg, struct mm_page *page);
	void *take_arg;
};

/* Moves [start, end), at most 2M and not over a 2M boundary, into devmem: page
 * i of the interval into frame i. Hole-tolerant and partial: pages that cannot
 * go stay, pages that are there already are counted, frames that were not
 * needed go to free_frames. Consumes the caller's reference on EVERY return.
 *   0        see *result; moved may be 0
 *   -ENODEV  revoked          -EFAULT  mm gone, or a copy failed on the device
 *   -ENOMEM  -EINVAL interval and npages disagree
 * Whatever failed is unwound whole (law 9). May sleep, waits for devices. */
int gpusvm_devmem_migrate(struct gpusvm_devmem *devmem, u64 start, u64 end,
			  const struct gpusvm_migrate_details *details,
			  struct gpusvm_migrate_result *result);

/* The same for several whole 2M of system memory at once, from start on, where the pagemap has
 * memory: each into a devmem of n of 512 frames side by side, aligned, with no `after`. What
 * can be moved by the home in one go moves (mm_move_huge): bit i of *moved says that the i-th
 * did, as one compound page. The rest is left as it was, for migrations of its own; there the
 * frames are given back. Consumes the caller's reference of each on EVERY return.
 *   0        see *moved; may be 0
 *   -ENODEV  revoked          -EFAULT  mm gone
 *   -ENOMEM  -EINVAL          -EOPNOTSUPP  the home cannot
 * n: 1 to MM_MOVE_HUGE_MAX; all of one mm and one pagemap. May sleep, waits for devices. */
int gpusvm_devmem_migrate_huge(struct gpusvm_devmem *const *list, unsigned n, u64 start,
			       u64 timeslice, u64 *moved);

/* Brings everything in devmem to system memory, by its frames: no address, no
 * range, no mirror. The caller holds a reference. Bounded retries.
 *   0       nothing of it is in use any more
 *   -EBUSY  pages remain (pinned by a migration in flight)
 *   -ENOMEM no system memory      -EFAULT mm gone, or the copy failed
 * May sleep; no lock of rank RANK_DEVMEM or above. */
int gpusvm_devmem_evict(struct gpusvm_devmem *devmem);

/* Brings what of [start, end), at most 2M and not over a 2M boundary, is on any
 * device to system memory, but for pages that spare says to leave (NULL: none), by
 * address: on request, so that no timeslice is waited for. One attempt; result
 * counts every page, those in system memory as already.
 *   0, -EINVAL, -EFAULT mm gone or a copy failed, -ENOMEM
 * May sleep; no lock of rank RANK_NOTIFIER_LIST or above. */
int gpusvm_pagemap_recall(struct mm *mm, u64 start, u64 end,
			  bool (*spare)(void *arg, struct mm_page *page), void *arg,
			  struct gpusvm_migrate_result *result);

#endif
