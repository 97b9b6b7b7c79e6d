/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * mm.h: what the core asks of a memory manager. The meanings are those of
 * Linux's interval notifiers, HMM and migrate_vma under own names, in shapes
 * that a live process (host/userfault), a model (host/model) and the kernel
 * (host/linux) can all honour. Each call names its Linux counterpart, what it
 * needs and takes, and its errors.
 *
 * There is no mmap lock in this contract: a live process cannot give one. The
 * Linux home takes it inside. Addresses are u64; intervals are half open.
 */
#ifndef GPUSVM_MM_H
#define GPUSVM_MM_H

#include "host/host.h"

/* ---- Address spaces -----------------------------------------------------
 * One for each process that is mirrored. Made by the home's own header, which
 * only the runtime (or a kernel driver) includes.
 */
struct mm;

/* A grab: keeps the object, not the mappings (mmgrab, mmdrop). */
void mm_get(struct mm *mm);
void mm_put(struct mm *mm);
/* False when the address space is being torn down: its mappings can no longer
 * be used, and data that is on a device has nowhere to go back to
 * (mmget_not_zero). Else the mappings stay until mm_unuse(). */
bool mm_use(struct mm *mm);
void mm_unuse(struct mm *mm);

enum {
	MM_VMA_READ = 1u << 0,
	MM_VMA_WRITE = 1u << 1,
	MM_VMA_ANON = 1u << 2, /* private anonymous memory */
	MM_VMA_SHARED = 1u << 3,
	MM_VMA_HUGETLB = 1u << 4,
	/* Pages here can move to a device now. Others are mapped in place. */
	MM_VMA_MIGRATABLE = 1u << 5,
};

struct mm_vma {
	u64 start, end;
	u32 flags;
};

/* The first mapping that overlaps [start, end). Advice only: it may change as
 * soon as this returns.
 *   -ENOENT  a hole all along
 *   -EFAULT  the address space is going away
 * Context: may sleep. Linux: find_vma_intersection under mmap read lock. */
int mm_vma_find(struct mm *mm, u64 start, u64 end, struct mm_vma *ret);

enum {
	MM_CAP_ANY_MEMORY = 1u << 0,	/* all private anonymous memory migrates */
	MM_CAP_KERNEL_ACCESS = 1u << 1, /* system calls may touch migrated memory */
	MM_CAP_FORK = 1u << 2,		/* a child is whole without preparation */
	MM_CAP_HUGE = 1u << 3,		/* 2M pages stay whole both ways */
	MM_CAP_EVENTS = 1u << 4,	/* every change but of protections is heard */
	MM_CAP_EXCLUSIVE = 1u << 5,	/* mm_make_exclusive works, on what can migrate */
	MM_CAP_REMAP = 1u << 6,		/* MM_EVENT_REMAP is told */
	MM_CAP_NO_DMA = 1u << 7, /* a device may put the process's own addresses on the bus */
};

struct mm_caps {
	u32 flags;
	u32 max_order; /* of a device page: 0 or HOST_HUGE_ORDER */
};
void mm_caps_get(struct mm *mm, struct mm_caps *ret);

/* Every change of [start, end) that happened before this call has been told
 * to the notifiers when it returns: unmapping and, where the home has no event
 * for it, protection. 0 to ~0 means everything. Called at submission, at a
 * device fault, by prefetch.
 *   -EFAULT  the address space is going away
 * Context: may sleep; no lock held of rank RANK_NOTIFIER_LIST or above. Must
 * not be called from a notifier. Linux: nothing to do. */
int mm_sync(struct mm *mm, u64 start, u64 end);

/* From now on the unmapping and remapping of what is mapped in [start, end) is told
 * to the notifiers, in order, also if no device ever looks there. For what is
 * remembered by address: advice.
 *   -ENOENT  a hole
 *   -EFAULT  the address space is going away        -ENOMEM
 * A home without MM_CAP_REMAP tells a remapping as an unmapping of the old place.
 * Context: as mm_sync. Linux: nothing to do, but there notifiers are not told where a
 * mapping went. */
int mm_watch(struct mm *mm, u64 start, u64 end);

/* ---- Interval notifiers -------------------------------------------------
 * Linux: struct mmu_interval_notifier, with its sequence count protocol:
 *
 *	seq = mm_notifier_read_begin(n);
 *	... mm_range_fault() ...
 *	take the lock that invalidate_start takes
 *	if (mm_notifier_read_retry(n, seq)) { drop it; start anew }
 *	... use the result; a later invalidation has to wait for the lock ...
 */
enum mm_event {
	MM_EVENT_UNMAP,	    /* the mapping is gone (munmap, MAP_FIXED) */
	MM_EVENT_REMAP,	    /* it is at `to` now (mremap); else as UNMAP, also where the old
			     * mapping stays, empty */
	MM_EVENT_CLEAR,	    /* contents dropped, mapping stays (MADV_DONTNEED) */
	MM_EVENT_PROTECT,   /* protections changed */
	MM_EVENT_MIGRATE,   /* pages are about to move; migrator says by whom */
	MM_EVENT_EXCLUSIVE, /* a device takes pages for itself; migrator: its token; or they
			     * are given back: NULL */
	MM_EVENT_RELEASE,   /* the address space goes away */
};

struct mm_invalidation {
	u64 start, end;
	enum mm_event event;
	/* For MIGRATE and EXCLUSIVE: the token given to mm_migrate_begin or
	 * mm_make_exclusive, so that a mirror can ignore what it does itself. NULL
	 * otherwise. */
	const void *migrator;
	/* For REMAP: where [start, end) is now. What was mapped there before has
	 * been told as unmapped by then. */
	u64 to;
	/* False: the callee must not sleep on a lock and returns -EAGAIN
	 * instead (Linux: the OOM reaper). */
	bool blockable;
};

/* Does this event take the mapping away from where it was? */
static inline bool mm_event_unmaps(enum mm_event event)
{
	return event == MM_EVENT_UNMAP || event == MM_EVENT_REMAP;
}

struct mm_notifier;
struct mm_notifier_ops {
	/* Begins to stop all device access to the interval: takes the lock that
	 * readers take, calls mm_notifier_set_seq(n, seq), clears page table
	 * entries, begins flushes. -EAGAIN only when !blockable. May not allocate.
	 * The interval is clipped to the notifier's. */
	int (*invalidate_start)(struct mm_notifier *n, const struct mm_invalidation *inv, u64 seq);
	/* Waits for the flushes that start began and unmaps: when it returns no
	 * device touches the interval (law 3). Called once for each start that
	 * returned 0; for all notifiers start comes before the first finish where
	 * the home can. */
	void (*invalidate_finish)(struct mm_notifier *n, const struct mm_invalidation *inv);
};

struct mm_notifier {
	const struct mm_notifier_ops *ops;
	struct mm *mm;
	u64 start, end;
	/* Sequence: odd while an invalidation that overlaps is in progress. Written
	 * by the home and set_seq only. */
	u64 seq;
	u64 home[8]; /* the home's: links, counts */
};

/* Callbacks may come as soon as this is called. -ENOMEM; -EINVAL: not page
 * aligned or empty. Context: may sleep; RANK_MIRROR_TREE may be held. */
int mm_notifier_insert(struct mm_notifier *n, struct mm *mm, u64 start, u64 end,
		       const struct mm_notifier_ops *ops);
/* Waits for callbacks in flight; none comes afterwards. May sleep; the lock
 * that callbacks take must not be held. */
void mm_notifier_remove(struct mm_notifier *n);
/* Waits while an invalidation is in progress, then gives the sequence. May
 * sleep. Context: no lock that a callback takes. */
u64 mm_notifier_read_begin(struct mm_notifier *n);
/* True when an invalidation began since. Context: the lock that
 * invalidate_start takes is held, for reading at least. */
bool mm_notifier_read_retry(struct mm_notifier *n, u64 seq);
/* Context: invalidate_start only, that lock held for writing. */
void mm_notifier_set_seq(struct mm_notifier *n, u64 seq);

/* ---- Page frames of devices ---------------------------------------------
 * A region is memory of a device that can back addresses of a process (Linux:
 * dev_pagemap of device-private pages). The home keeps frame -> (mm, address);
 * no one above does. A struct mm_page exists for device frames only.
 */
struct mm_page; /* a frame, or the head of a compound 2M one */
struct mm_region;

struct mm_cpu_fault {
	struct mm *mm;
	u64 address;	      /* page aligned */
	struct mm_page *page; /* what backed it; may be freed or split by now: only its
			       * index (mm_page_index) may be asked for */
	void *data;	      /* its data, held (ops->hold) for the call */
};

struct mm_region_ops {
	/* A CPU touched a page that is on the device: bring it home by an
	 * mm_migrate transaction, and more around it if that is wise. 0: the
	 * page is home, or has gone elsewhere meanwhile, or will be tried again:
	 * the access is repeated. A time (> 0): not yet; the home repeats it after
	 * so many nanoseconds, with no CPU spinning. Negative: the page is lost
	 * (SIGBUS). Context: may sleep; no lock held. The home calls it on a
	 * thread of its own, where the application's memory must not be touched.
	 * Linux: dev_pagemap_ops.migrate_to_ram. */
	s64 (*migrate_to_ram)(struct mm_cpu_fault *fault);
	/* The last use of a frame is gone: data as set, order as allocated or
	 * split. Context: may be inside a notifier or with RANK_HOST_* held in
	 * spirit: must not sleep on anything but short locks of RANK_LEAF, must not
	 * allocate; defer the rest to work. Linux: folio_free. */
	void (*free)(struct mm_page *page, unsigned order, void *data);
	/* A compound frame becomes 512 small ones, which take over its data: count
	 * one more user of data for each but the first. Same context as free.
	 * Linux: folio_split. */
	void (*split)(void *data, unsigned extra);
	/* Keeps data alive while a CPU fault is served: hold is called while the
	 * frame is known to be in use, drop when done. Context as free. */
	void (*hold)(void *data);
	void (*drop)(void *data);
	/* Reads 4K of a frame for a forked child: the i-th of a compound one. The
	 * caller makes sure that no one writes. May sleep on the copy engine only. 0
	 * or negative. */
	int (*read)(struct mm_page *page, unsigned i, void *buffer);
};

/* npages frames, numbered from 0. priv is kept for the caller.
 *   -ENOMEM, -EINVAL (npages 0 or not a multiple of 512) */
int mm_region_create(u64 npages, const struct mm_region_ops *ops, void *priv,
		     struct mm_region **ret);
/* All frames must be free (warned and leaked otherwise). May sleep. */
void mm_region_destroy(struct mm_region *region);
void *mm_region_priv(struct mm_region *region);
/* Memory of a device that is ordinary memory of this process: pages can go there and come
 * back without a copy, see MM_MPFN_MOVE. From base on, aligned to 2M, mapped private
 * and writable; nobody else maps it otherwise until mm_memory_remove, when no frame of
 * it is in use. -EOPNOTSUPP: the home cannot, and pages are copied. May sleep. Linux:
 * device-coherent memory, roughly. */
int mm_memory_add(struct mm *mm, void *base, u64 bytes);
void mm_memory_remove(struct mm *mm, void *base, u64 bytes);
/* The frames of the region are such memory, from base on. Before the first is used. */
void mm_region_set_memory(struct mm_region *region, void *base);

/* A free frame of the given order (0, or HOST_HUGE_ORDER and index aligned),
 * made usable: data is kept until it is freed. The frame starts with one
 * reference, the caller's, which mm_migrate_commit takes over or
 * mm_page_abandon drops. Never fails: the region's table was made at creation.
 * Linux: zone_device_page_init. */
struct mm_page *mm_page_init(struct mm_region *region, u64 index, unsigned order, void *data);
/* Gives up a frame that no commit took: ops->free is called. */
void mm_page_abandon(struct mm_page *page);
struct mm_region *mm_page_region(const struct mm_page *page);
u64 mm_page_index(const struct mm_page *page);
unsigned mm_page_order(const struct mm_page *page);
void *mm_page_data(const struct mm_page *page);
/* Bytes of bookkeeping that the home holds for this region's used frames and
 * the addresses they back; for statistics. */
u64 mm_region_overhead(const struct mm_region *region);

/* ---- Looking up and faulting in pages -----------------------------------
 * An mm_pfn_t is opaque, and good until read_retry fails. System frames have
 * no identity; only their device address (mm_dma_map) may be asked for.
 */
typedef u64 mm_pfn_t;
#define MM_PFN_VALID ((mm_pfn_t)1 << 63)
#define MM_PFN_WRITE ((mm_pfn_t)1 << 62)
#define MM_PFN_DEVICE ((mm_pfn_t)1 << 61)
/* System memory that the asker has for itself, see mm_make_exclusive. The process's own
 * address does not lead there: mm_dma_map is needed, with MM_CAP_NO_DMA too. */
#define MM_PFN_EXCLUSIVE ((mm_pfn_t)1 << 60)
#define MM_PFN_ORDER_SHIFT 56
#define MM_PFN_ORDER_MASK ((mm_pfn_t)15 << MM_PFN_ORDER_SHIFT)
#define MM_PFN_ORDER(pfn) ((unsigned)((pfn) >> MM_PFN_ORDER_SHIFT) & 15u)
#define MM_PFN_PAYLOAD(pfn) ((pfn) & (((mm_pfn_t)1 << MM_PFN_ORDER_SHIFT) - 1))

enum {
	MM_FAULT_IN = 1u << 0,	  /* populate what is not there; else only look */
	MM_FAULT_WRITE = 1u << 1, /* write access is needed (with FAULT_IN) */
	/* Of an aligned run that lies in the interval as a whole, the first entry is enough:
	 * the others may be left as they were. */
	MM_FAULT_RUNS = 1u << 2,
};

struct mm_range_fault {
	struct mm *mm;
	struct mm_notifier *notifier; /* covers the interval */
	u64 seq;		      /* from read_begin */
	u64 start, end;		      /* page aligned */
	mm_pfn_t *pfns;		      /* one per 4K page, filled: each entry says its own
				       * page, and the order of the aligned run of contiguous
				       * memory of one kind that it lies in (0 to 9) */
	u32 flags;
	/* Device pages for which this is true are returned in place, others come
	 * back to system memory first (FAULT_IN) or read as invalid. NULL: none. */
	bool (*keep)(void *keep_arg, struct mm_page *page);
	void *keep_arg;
	/* Pages that this one has exclusively are returned in place; those that others have
	 * are given back first (FAULT_IN), or read as invalid. NULL: nobody. */
	const void *owner;
};

/* Linux: hmm_range_fault.
 *   -EBUSY   an invalidation or a migration is in the way: read_begin again
 *   -EFAULT  a hole, or not readable, or the address space is going away
 *   -EPERM   write asked for where only reading is allowed
 *   -ENOMEM
 * Without FAULT_IN it does not fail on holes: entries are 0.
 * Context: may sleep; no lock of rank RANK_NOTIFIER_LIST or above. */
int mm_range_fault(struct mm_range_fault *rf);

struct mm_page *mm_pfn_page(struct mm *mm, mm_pfn_t pfn); /* of a DEVICE pfn */

/* Exclusive access: as mm_range_fault with FAULT_IN and FAULT_WRITE (flags mean nothing),
 * but that the pages in system memory are taken for rf->owner alone, a token that is not
 * NULL: out of every mapping of the CPU and of each other device. So the owner's atomics
 * there are exact, whatever it can do. Linux: make_device_exclusive.
 *
 * Before: the interval lies in one aligned 2M. Notifiers are told EXCLUSIVE, with the
 * owner, of what is taken anew: also the owner's own mappings of it go.
 * After 0: each entry is WRITE, and either EXCLUSIVE or a device page for which keep is
 * true, good until read_retry fails with rf->seq, which is the new one. After an error
 * pages may have been taken: they are given back as any others are.
 *
 * A page is given back by the next that wants it otherwise: the CPU's touch, also by the
 * kernel on the process's behalf, mm_range_fault by another owner or none,
 * mm_make_exclusive by another, a migration that would collect it, fork, the home's end.
 * Notifiers hear EXCLUSIVE (or MIGRATE, PROTECT, of what does it) and the owner has let
 * go before anyone else sees a byte; pages around it may come along. A touch of the CPU waits,
 * asleep, until the owner had the page for `hold` ns, so that both get on (law 6). mremap brings an
 * exclusive page to its new place, where no one has it mapped; what unmaps or drops the mapping,
 * drops it. For all others it is system memory: no owner's frame, MM_STATE_EXCLUSIVE.
 *
 *   -EOPNOTSUPP  a page is nothing that a process has alone (shared, file-backed), or is
 *                pinned, as direct I/O does, or may be dropped at any moment (MADV_FREE in a
 *                live process); or the home cannot
 *   -EBUSY, -EFAULT, -EPERM, -ENOMEM  as mm_range_fault
 *   -EINVAL      not page aligned, crosses a 2M boundary, or no owner
 * Context: may sleep, waits for devices; no lock of rank RANK_NOTIFIER_LIST or above. Not
 * on a thread of the application. */
int mm_make_exclusive(struct mm_range_fault *rf, u64 hold);
/* Gives everything back that the owner has (NULL: that anybody has), at once. Best effort
 * where others take meanwhile, or memory is short. May sleep. Context: as
 * mm_make_exclusive. */
void mm_exclusive_end(struct mm *mm, const void *owner);

/* What is at each 4K page of [start, end), for residency; never faults, fails or
 * moves anything. Advice only. */
struct mm_page_state {
	u32 flags; /* MM_STATE_* */
	u32 order; /* of the frame that holds it */
	const void *owner;    /* of a device frame: its region's priv; else NULL */
	struct mm_page *page; /* the frame, or NULL; good while the caller keeps its region */
};
enum { /* the same numbers as GPUSVM_PAGE_* of <gpusvm/gpusvm.h> */
       MM_STATE_MAPPED = 1u,
       MM_STATE_POPULATED = 2u,
       MM_STATE_ZERO = 4u,
       MM_STATE_READABLE = 8u,
       MM_STATE_WRITABLE = 16u,
       MM_STATE_EXCLUSIVE = 32u, /* in system memory, taken by mm_make_exclusive */
};
void mm_page_states(struct mm *mm, u64 start, u64 end, struct mm_page_state *ret);
/* The same for owners alone, which costs little. */
void mm_page_owners(struct mm *mm, u64 start, u64 end, const void **ret);

/* ---- Device addresses ---------------------------------------------------
 * A dma address is what a device puts on the bus for system memory.
 */
typedef u64 mm_dma_t;
#define MM_DMA_ERROR (~(mm_dma_t)0)

/* Maps the run of 1 << order pages that starts at pfn for a device (dev: an
 * opaque token of the device, for an IOMMU). MM_DMA_ERROR on failure.
 * Context: does not sleep, may be called with RANK_MIRROR held for reading. */
mm_dma_t mm_dma_map(struct mm *mm, void *dev, mm_pfn_t pfn, unsigned order, bool write);
void mm_dma_unmap(struct mm *mm, void *dev, mm_dma_t addr, unsigned order, bool write);

/* A software device's way to system memory: a pointer, good until end. NULL:
 * nothing is there (-EFAULT to the device). Between the two the calling thread
 * takes no lock, and only inside mm_bus_guard. Two accesses at most at a time per
 * thread (a copy has two sides); end ends both, and is legal when none is open. */
void *mm_bus_begin(mm_dma_t addr, u64 length, bool write);
void mm_bus_end(void);
/* Runs fn(arg). If memory vanishes under an access between begin and end, fn is
 * abandoned at that point and this returns -EFAULT with the address in
 * *fault_address, the accesses ended; else 0. Nests while the outer one has no
 * access open: a lane that serves its own fault runs copies. Linux: the access
 * goes through kmap and cannot vanish; just calls fn. */
int mm_bus_guard(void (*fn)(void *), void *arg, u64 *fault_address);
/* Abandons the fn of the innermost mm_bus_guard, which returns -EFAULT with
 * this address. No lock may be held. Not in kernel builds. */
void mm_bus_abandon(u64 address) __attribute__((noreturn));

/* ---- Migration ----------------------------------------------------------
 * A transaction over at most 2M of pages (Linux: migrate_vma_*, and
 * migrate_device_* for frames):
 *
 *	begin   collect and isolate pages; tells the notifiers (MIGRATE) and waits
 *		until devices have let go; sources are frozen
 *	        the caller fills dst and copies each collected page
 *	commit  put the destinations in place of the sources
 *	end     release, put back what did not go; CPU accesses go on
 *
 * Outcome per page: after begin, src[i] has MM_MPFN_MIGRATE where the page was
 * collected; the caller clears dst[i] (or never sets it) for pages that shall
 * stay; after commit, src[i] keeps MIGRATE only where the page has moved. One that
 * was unmapped on the way has not. A COMPOUND one of which a part was unmapped
 * stays whole, or goes on as small ones: then its 512 entries are those.
 * Partial success is normal.
 */
typedef u64 mm_mpfn_t; /* flags above bit 56, a frame's pointer below */
#define MM_MPFN_MIGRATE ((mm_mpfn_t)1 << 56)
#define MM_MPFN_WRITE ((mm_mpfn_t)1 << 57)
#define MM_MPFN_ZERO ((mm_mpfn_t)1 << 58)     /* source: never written; no bytes to copy */
#define MM_MPFN_COMPOUND ((mm_mpfn_t)1 << 59) /* head of a whole 2M page; the 511 after it are 0 */
#define MM_MPFN_SYSTEM ((mm_mpfn_t)1 << 60)   /* system memory: no struct mm_page */
/* No bytes to copy: the home moves them. In src, of what goes to memory that CPUs can
 * address: begin has moved them to its frame (see frame below; a ZERO one reads as zeros
 * after commit). In dst, of what comes home from there: commit will. */
#define MM_MPFN_MOVE ((mm_mpfn_t)1 << 61)
#define MM_MPFN_PAYLOAD (((mm_mpfn_t)1 << 56) - 1)
static inline mm_mpfn_t mm_mpfn(struct mm_page *page)
{
	return (mm_mpfn_t)(uintptr_t)page & MM_MPFN_PAYLOAD;
}
static inline struct mm_page *mm_mpfn_page(mm_mpfn_t mpfn)
{
	return (struct mm_page *)(uintptr_t)((s64)(mpfn << 8) >> 8);
}

enum {
	MM_MIGRATE_SYSTEM = 1u << 0,   /* collect pages in system memory */
	MM_MIGRATE_DEVICE = 1u << 1,   /* collect device pages for which select is true */
	MM_MIGRATE_COMPOUND = 1u << 2, /* collect 2M pages whole; else they are split */
};

struct mm_migrate {
	/* Set by the caller. */
	struct mm *mm;
	u64 start, end; /* page aligned, not over a 2M boundary; unused for frames */
	u32 flags;
	unsigned npages; /* entries in src and dst; (end - start) / 4K, or the frames */
	mm_mpfn_t *src, *dst;
	const void *migrator;
	bool (*select)(void *select_arg, struct mm_page *page);
	void *select_arg;
	struct mm_page *fault_page; /* from a CPU fault, else NULL */
	/* Where what leaves system memory will go, if that is settled already, else NULL: for
	 * entry i a frame of region, and in *n how many entries from i on have theirs side by
	 * side. Where these frames are ordinary memory (mm_memory_add), pages go straight
	 * there, with MM_MPFN_MOVE in src. Such a frame is the transaction's until end has
	 * returned, also if nothing becomes of it. Any context; the same answer each time. */
	const struct mm_region *region;
	u64 (*frame)(void *frame_arg, unsigned i, unsigned *n);
	void *frame_arg;
	/* Set by begin. */
	unsigned collected; /* pages, 512 for a compound one */
	u32 stayed_reason;  /* MM_STAYED_*: why others were not, for statistics */
	/* The home's. */
	u64 home[16];
};

enum {
	MM_STAYED_PINNED = 1u,
	MM_STAYED_NOT_MIGRATABLE = 2u,
	MM_STAYED_HOLE = 4u,
	MM_STAYED_BUSY = 8u,
};

/* By address. 0 also when nothing was collected (then end is still owed).
 *   -EFAULT  the address space is going away
 *   -EINVAL  the interval is not page aligned or crosses a 2M boundary
 *   -ENOMEM
 * Whatever it returns negative, nothing is held. Pages in system memory that
 * cannot be isolated (pinned, shared, file-backed, read-only) are passed over.
 * Context: may sleep, waits for devices; no lock of rank RANK_NOTIFIER_LIST or
 * above. Not on a thread of the application (its stack may be what moves). */
int mm_migrate_begin(struct mm_migrate *m);
/* By frame, for eviction: [first, first + npages) of a region, wherever they
 * are mapped; no address is known to the caller. Frames that are free or being
 * moved are passed over. A compound frame counts 512 and is collected whole
 * with MM_MIGRATE_COMPOUND, else split. Linux: migrate_device_range. */
int mm_migrate_begin_frames(struct mm_migrate *m, struct mm_region *region, u64 first);

/* Gives each collected page a system page as destination: dst[i] gets
 * MM_MPFN_SYSTEM (and COMPOUND at the head where a whole 2M page was had; a
 * compound source without one gets 512 small destinations, and src is split
 * accordingly: MIGRATE on all 512). Pages for which there is no memory get
 * dst 0 and stay. 0, or -ENOMEM when none was had. May sleep. */
int mm_migrate_alloc_system(struct mm_migrate *m);
/* The dma address of entry i's system page: of the source where src[i] is
 * SYSTEM (between begin and commit), of the destination where dst[i] is.
 * *order: of the aligned contiguous run that it begins (0 to 9). Copies may go
 * there until commit. */
mm_dma_t mm_migrate_dma(const struct mm_migrate *m, unsigned i, unsigned *order);

/* Device destinations: dst[i] = mm_mpfn(page) | MM_MPFN_MIGRATE (COMPOUND
 * for a 2M frame whose src is COMPOUND), each from mm_page_init. A page that
 * was taken loses the caller's reference; one that was not (src[i] lost
 * MIGRATE) is abandoned here, so that its free runs. May sleep. */
void mm_migrate_commit(struct mm_migrate *m);
/* Always, once, after a begin that returned 0. Puts back system pages that stayed;
 * then frees device frames that were left (ops->free): sources whose page has moved
 * or gone, and without a commit what stands in dst. */
void mm_migrate_end(struct mm_migrate *m);

/* Several 2M of system memory at once to frames that are ordinary memory (mm_memory_add):
 * what begin, commit and end do for each of them, without a copy, done for all together.
 * Only what is simple goes: what is one 2M page, in system memory, has been on a device
 * before, and meets no hindrance. The rest is left as it was, for transactions of its own.
 * Linux: none. */
#define MM_MOVE_HUGE_MAX 32u
struct mm_move_huge {
	/* Set by the caller. */
	struct mm *mm;
	u64 start;  /* aligned to 2M */
	unsigned n; /* 2M, MM_MOVE_HUGE_MAX at most */
	/* For each a frame of 2M, from mm_page_init; of one region, which has memory. */
	struct mm_page *pages[MM_MOVE_HUGE_MAX];
	const void *migrator;
	/* Set by the call: bit i: the i-th has moved, and its frame the caller's reference no
	 * more. The other frames are the caller's as before (mm_page_abandon). */
	u64 moved;
};
/* 0, also where nothing moved; -EFAULT the address space is going away; -EOPNOTSUPP,
 * -ENOMEM. Context: as mm_migrate_begin. */
int mm_move_huge(struct mm_move_huge *m);

#endif
