/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * <gpusvm/mirror.h>: the device side's view of one CPU address space. Linux:
 * drm_gpusvm, after the split of pages from ranges.
 *
 * Concepts
 *   mirror    knows memory management only, no device
 *   notifier  a wide interval in which the mirror hears of changes
 *   range     an interval handled as one on a device fault: the largest aligned
 *             chunk that fits mapping, notifier and window
 *   pages     one device's mapping of an interval; the driver's, and no part of
 *             the range: a range may have one for each device, or none
 *
 * Locking
 *   tree lock      (mirror->tree_lock, a mutex) insertion and removal of ranges
 *                  and notifiers. Taken inside; lookups need it, the notifier
 *                  lock, or gpusvm_mirror_lock().
 *   notifier lock  (mirror->notifier_lock, a rwlock) written by invalidations,
 *                  read by whoever commits. Range flags and pages change under it.
 *   A driver serialises calls on one pages object itself.
 *
 * How a device fault is served (see driver/fault.c):
 *   again: range = gpusvm_range_find_or_insert()
 *          migrate, if policy says so (gpusvm_pagemap_populate)
 *          gpusvm_pages_get(array of pages objects)     -EFAULT: is it unmapped?
 *          prepare page tables (may allocate)
 *          gpusvm_notifier_lock()
 *          if (!gpusvm_pages_valid()) { unlock; again }
 *          write page table entries
 *          gpusvm_notifier_unlock()
 */
#ifndef GPUSVM_MIRROR_H
#define GPUSVM_MIRROR_H

#include <gpusvm/addr.h>
#include "host/mm.h"
#include "core/interval.h"

struct gpusvm_mirror;
struct gpusvm_notifier;
struct gpusvm_range;
struct gpusvm_pages;
struct gpusvm_pagemap;

struct gpusvm_mirror_ops {
	/* Containing objects; NULL ops: plain ones. alloc may sleep; NULL: -ENOMEM.
	 * range_free runs at the last put; every pages object of it must have been
	 * freed (gpusvm_pages_free is idempotent) before the memory goes. */
	struct gpusvm_notifier *(*notifier_alloc)(struct gpusvm_mirror *mirror);
	void (*notifier_free)(struct gpusvm_notifier *notifier);
	struct gpusvm_range *(*range_alloc)(struct gpusvm_mirror *mirror);
	void (*range_free)(struct gpusvm_range *range);
	/* Before the first pass, where the caller may sleep; no lock of the mirror is
	 * held, nothing has been invalidated yet. May wait, for a bounded time. NULL:
	 * nothing to wait for. */
	void (*invalidate_prepare)(struct gpusvm_mirror *mirror,
				   const struct mm_invalidation *inv);
	/* First pass. The notifier lock is held for writing, the sequence is set.
	 * Must call gpusvm_pages_invalidate() on each pages object of each range that
	 * overlaps, clear page table entries and begin flushes; on UNMAP also
	 * gpusvm_range_set_unmapped(). Must not allocate or wait for a device. */
	void (*invalidate_start)(struct gpusvm_mirror *mirror, struct gpusvm_notifier *notifier,
				 const struct mm_invalidation *inv);
	/* Second pass; no lock held. Must wait for the flushes of the first, then
	 * take the notifier lock for writing and gpusvm_pages_unmap() the same
	 * pages: afterwards no device reaches the interval (law 3). Also called
	 * where no range overlapped, and the first pass was not. Neither pass takes
	 * the tree lock: who removes a notifier holds it and waits for them. */
	void (*invalidate_finish)(struct gpusvm_mirror *mirror, struct gpusvm_notifier *notifier,
				  const struct mm_invalidation *inv);
};

struct gpusvm_mirror {
	const char *name;
	const struct gpusvm_mirror_ops *ops;
	struct mm *mm; /* NULL: simple mode, pages only */
	u64 start, end; /* the window */
	u64 notifier_size;
	const u64 *chunk_sizes; /* descending powers of two, the last 4K */
	unsigned n_chunks;
	struct host_mutex tree_lock;	  /* RANK_MIRROR_TREE */
	struct host_rwlock notifier_lock; /* RANK_MIRROR */
	struct gpusvm_interval_tree notifiers; /* by both locks: changed under both */
	struct gpusvm_interval_tree ranges;    /* the same; all notifiers' */
	u64 n_notifiers, n_ranges;
};

struct gpusvm_notifier {
	struct gpusvm_interval interval; /* in mirror->notifiers */
	struct gpusvm_mirror *mirror;
	struct mm_notifier mm;
	u64 n_ranges; /* tree lock; the last range takes the notifier with it */
	u32 users;    /* tree lock; insertions under way, which keep it too */
};

/* One word, changed under the notifier lock held for writing, read by anyone. */
enum {
	GPUSVM_RANGE_UNMAPPED = 1u << 0,	 /* its mapping is gone, whole or in part */
	GPUSVM_RANGE_PARTIAL_UNMAP = 1u << 1, /* only in part */
	GPUSVM_RANGE_REMOVED = 1u << 2,	 /* not in the tree any more */
};

struct gpusvm_range {
	struct gpusvm_interval interval; /* in mirror->ranges */
	struct gpusvm_mirror *mirror;
	struct gpusvm_notifier *notifier; /* good until removed */
	struct host_ref ref;
	u32 flags;
	bool migratable; /* at creation: the mapping's pages can move */
	bool writable;	 /* at creation: by the mapping's protection */
};

enum {
	GPUSVM_PAGES_VALID = 1u << 0,	  /* mapped, and nothing was invalidated since */
	GPUSVM_PAGES_MAPPED = 1u << 1,	  /* addresses are mapped and owed an unmap */
	GPUSVM_PAGES_UNMAPPED = 1u << 2,  /* the interval's mapping is gone: -EFAULT for ever */
	GPUSVM_PAGES_DEVMEM = 1u << 3,	  /* some are device pages */
	GPUSVM_PAGES_WRITE = 1u << 4,	  /* mapped for writing */
	GPUSVM_PAGES_NO_DMA = 1u << 5,	  /* recorded without DMA mapping */
	GPUSVM_PAGES_SYSTEM = 1u << 6,	  /* some are in system memory */
	GPUSVM_PAGES_EXCLUSIVE = 1u << 7, /* all that are there, are the device's alone */
};

/* Sparse by order: addrs[0..n) are consecutive runs from start on, so that a
 * whole 2M is one entry. */
struct gpusvm_pages {
	void *dev;	     /* whose mapping it is; a token for mm_dma_map and device_map */
	struct mm *mm;	     /* whose memory is mapped; the mirror's, or (simple mode) the caller's,
			      * who keeps it until the pages are freed */
	u64 start, end;	     /* of what is mapped */
	u64 seq;	     /* of the notifier when mapped */
	u32 flags;	     /* GPUSVM_PAGES_*; one word, written under the notifier lock */
	u32 n_addrs;
	struct gpusvm_addr *addrs;
	struct gpusvm_pagemap **held; /* distinct pagemaps of its device pages; counted */
	u32 n_held;
	u32 max_addrs;
	u32 max_held; /* above 1: after held lies, for each address, a u16 index into it */
};

/* How one call is to behave. Zero is a sound default. */
struct gpusvm_ctx {
	bool read_only;	      /* no write access is needed */
	bool want_write;      /* ask for it where the mapping allows, without failing */
	bool devmem_only;     /* any system page: -EFAULT (then migrate and retry) */
	bool no_dma;	      /* no DMA mapping: system runs carry the CPU's address */
	bool devmem_possible; /* ranges may be marked migratable */
	u64 min_chunk, max_chunk; /* limits on a new range's size; 0: none */
	u64 budget;	      /* ns before giving up with -EBUSY; 0: 1 second */
	/* What the caller saw of the mapping at the address since its last mm_sync: enough for
	 * a range that is there. NULL, or of another place: it is looked at. */
	const struct mm_vma *seen;
	/* Device pages for which this is true are mapped where they are; others
	 * come home first. NULL: none. */
	bool (*keep)(void *arg, struct mm_page *page);
	void *keep_arg;
	/* Pages in system memory that this one has for itself stay so, and are told as
	 * GPUSVM_ADDR_EXCLUSIVE. NULL: nobody. */
	const void *owner;
	/* All that is in system memory is to be owner's, for `hold` ns at least (see
	 * mm_make_exclusive): -EOPNOTSUPP where it cannot be. Implies writing. */
	bool exclusive;
	u64 hold;
};

/* Full mode: mm, a window of whole pages (below GPUSVM_INTERVAL_LIMIT), ops with
 * both invalidate passes, notifier_size a power of two not below the largest
 * chunk, chunks. Simple mode: all of these 0, the window does not matter.
 *   -EINVAL  neither of the two
 * Takes a grab on mm. */
int gpusvm_mirror_init(struct gpusvm_mirror *mirror, const char *name, struct mm *mm, u64 start,
		       u64 end, u64 notifier_size, const struct gpusvm_mirror_ops *ops,
		       const u64 *chunk_sizes, unsigned n_chunks);
/* Removes each notifier from mm first, then its ranges. No concurrent users. */
void gpusvm_mirror_fini(struct gpusvm_mirror *mirror);
/* Walks every invariant; debug builds panic on the first broken one. */
void gpusvm_mirror_verify(struct gpusvm_mirror *mirror);

/* Tree lock, for walks that allocate or sleep. */
void gpusvm_mirror_lock(struct gpusvm_mirror *mirror);
void gpusvm_mirror_unlock(struct gpusvm_mirror *mirror);
/* Notifier lock for reading: nothing is invalidated in between. */
void gpusvm_notifier_lock(struct gpusvm_mirror *mirror);
void gpusvm_notifier_unlock(struct gpusvm_mirror *mirror);

/* The first that overlaps [start, end), or NULL. Either lock held. */
struct gpusvm_notifier *gpusvm_notifier_find(struct gpusvm_mirror *mirror, u64 start, u64 end);
struct gpusvm_range *gpusvm_range_find(struct gpusvm_mirror *mirror, u64 start, u64 end);
/* The next by address, or NULL. Either lock held. */
struct gpusvm_notifier *gpusvm_notifier_next(struct gpusvm_notifier *notifier);
struct gpusvm_range *gpusvm_range_next(struct gpusvm_range *range);
static inline u64 gpusvm_range_start(const struct gpusvm_range *range)
{
	return range->interval.start;
}
static inline u64 gpusvm_range_end(const struct gpusvm_range *range)
{
	return range->interval.end;
}
#define gpusvm_for_each_range(range, mirror, s, e)                             \
	for ((range) = gpusvm_range_find((mirror), (s), (e));                  \
	     (range) && gpusvm_range_start(range) < (e);                       \
	     (range) = gpusvm_range_next(range))

/* The range at address, or a new one: the largest chunk that holds address and
 * fits mapping, notifier, window [start, end) and its neighbours. With one
 * reference for the caller in *ret. A new range fits the mapping as it was when
 * the range went into the tree: any change since was heard. One that was there
 * may be marked unmapped: remove it and ask again.
 *   -EINVAL  outside the window, or no chunk fits
 *   -EFAULT  mm gone, or not readable         -ENOENT  nothing is mapped there
 *   -EPERM   not writable, and !ctx->read_only (told before an existing range is)
 *   -EBUSY   the address space changed all along ctx->budget
 *   -ENOMEM
 * Takes both locks; may sleep; no lock of rank RANK_MIRROR_TREE or above. */
int gpusvm_range_find_or_insert(struct gpusvm_mirror *mirror, u64 address, u64 start, u64 end,
				const struct gpusvm_ctx *ctx, struct gpusvm_range **ret);
/* Out of the tree; the tree's reference is put, an empty notifier goes. Pages
 * objects must have been unmapped and marked unmapped before, or a change of the
 * mapping would miss them; and no gpusvm_pages_get on its notifier is under way.
 * Idempotent: the caller holds a reference. Takes both locks, may sleep; no lock
 * of rank RANK_MIRROR_TREE or above. */
void gpusvm_range_remove(struct gpusvm_range *range);
struct gpusvm_range *gpusvm_range_get(struct gpusvm_range *range);
bool gpusvm_range_get_unless_zero(struct gpusvm_range *range);
void gpusvm_range_put(struct gpusvm_range *range); /* may free; no lock above RANK_MIRROR_TREE */
/* Brings all device pages of the range, which is in the tree, home by faulting
 * them in for no owner. Holes, and pages that may not be read (PROT_NONE), are
 * passed over; nothing else is populated.
 *   -EFAULT mm gone
 *   -ENOMEM, -EBUSY budget spent (0: 1 second). May sleep. */
int gpusvm_range_evict(struct gpusvm_range *range, u64 budget);
/* Marks the range and n pages objects; partial unless inv covers the range.
 * Notifier lock held for writing. */
void gpusvm_range_set_unmapped(struct gpusvm_range *range, struct gpusvm_pages **pages, unsigned n,
			       const struct mm_invalidation *inv);
/* Does any range overlap? Takes the notifier lock for reading. */
bool gpusvm_mirror_has_mapping(struct gpusvm_mirror *mirror, u64 start, u64 end);

enum gpusvm_scan {
	GPUSVM_SCAN_UNPOPULATED, /* any hole */
	GPUSVM_SCAN_EQUAL,	 /* all in the pagemap asked for */
	GPUSVM_SCAN_OTHER,	 /* all in one other */
	GPUSVM_SCAN_SYSTEM,
	GPUSVM_SCAN_MIXED_DEVICE, /* two pagemaps or more, no system memory */
	GPUSVM_SCAN_MIXED,
};
/* Where the pages of a range in the tree are, advice only. Negative errno when it
 * cannot be told: -EBUSY, -EFAULT, -ENOMEM. May sleep. */
int gpusvm_range_scan(struct gpusvm_range *range, struct gpusvm_pagemap *pagemap);

/* Before first use, and before a notifier that covers it is inserted. */
void gpusvm_pages_init(struct gpusvm_pages *pages, void *dev);
/* One CPU fault for [start, end), then a map for each of n pages objects: all,
 * or none (what was mapped is unwound). Those that are valid are left alone,
 * unless they lack what ctx asks (writing; DMA mapping or its absence): they are
 * mapped anew, and where a device sits behind an IOMMU its page table entries
 * are taken down before. pages[i] NULL is skipped. notifier: the range's (full
 * mode) or the caller's own (userptr); it stays inserted all along.
 *   -EAGAIN  never; retries are inside, bounded by ctx->budget
 *   -EINVAL  not page aligned, or empty
 *   -EBUSY   budget spent
 *   -EFAULT  unmapped, mm gone, devmem_only met a system page, or a map failed
 *   -EPERM   write wanted where only reading is allowed
 *   -EOPNOTSUPP  it was to be exclusive, and cannot be
 *   -ENOMEM
 * May sleep; no lock above RANK_DRIVER_LRU. Concurrent calls on one pages
 * object are the driver's to exclude. */
int gpusvm_pages_get(struct gpusvm_mirror *mirror, struct gpusvm_pages **pages, unsigned n,
		     struct mm *mm, struct mm_notifier *notifier, u64 start, u64 end,
		     const struct gpusvm_ctx *ctx);
/* The last word before a commit. Notifier lock held. */
bool gpusvm_pages_valid(struct gpusvm_mirror *mirror, const struct gpusvm_pages *pages);
/* Are addresses in this pagemap's memory mapped? Notifier lock held. */
bool gpusvm_pages_holds(struct gpusvm_mirror *mirror, const struct gpusvm_pages *pages,
			const struct gpusvm_pagemap *pagemap);
/* Not valid any more; addresses stay mapped until unmap. Notifier lock held for
 * writing: first pass of an invalidation. */
void gpusvm_pages_invalidate(struct gpusvm_mirror *mirror, struct gpusvm_pages *pages);
/* Undoes the mappings; idempotent. in_notifier: the notifier lock is held for
 * writing; else it is taken. Does not free the array. */
void gpusvm_pages_unmap(struct gpusvm_mirror *mirror, struct gpusvm_pages *pages, bool in_notifier);
/* Unmaps and frees the array; idempotent, may sleep. */
void gpusvm_pages_free(struct gpusvm_mirror *mirror, struct gpusvm_pages *pages);

#endif
