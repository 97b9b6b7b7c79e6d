/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * model.h: a memory manager in a box, as a home for tests and the simulator.
 * Only they include this; everything above the door goes through mm.h.
 *
 * Concepts
 *   mm      an address space: mappings, and 4K pages with real bytes, so that
 *           tests compare data; "CPU accesses" are calls here
 *   frame   a 4K system page; 2M pages are 512 frames of one backing
 *   page    a device frame (struct mm_page of a region)
 *   moving  a page belongs to a migration; CPU accesses wait for its end
 *
 * What is wrong in the code under test and can be seen from here (device
 * addresses left mapped when memory goes away, accesses by addresses that are
 * not mapped, ...) is counted as a violation; model_check() tells the first.
 *
 * Locking: one mutex per address space (RANK_HOST_BLOCK) for all its state,
 * never held over a callback, an allocation or a wait.
 */
#ifndef GPUSVM_MODEL_H
#define GPUSVM_MODEL_H

#include "host/mm.h"

/* ---- Address spaces ----------------------------------------------------- */

struct mm *model_mm_create(void); /* NULL: no memory */
/* Ends the mappings (RELEASE; mm_use fails from now on, users are waited for)
 * but not the object, which others may still hold. */
void model_mm_exit(struct mm *mm);
/* model_mm_exit if that was not done, and gives up the creator's grab. */
void model_mm_destroy(struct mm *mm);

enum {
	MODEL_READ = 1u << 0,
	MODEL_WRITE = 1u << 1,
	MODEL_SHARED = 1u << 2,	 /* shared memory: never migrates; populated at once */
	MODEL_FILE = 1u << 3,	 /* a private file mapping: the same */
	MODEL_HUGETLB = 1u << 4, /* looks like hugetlb; never migrates */
	MODEL_THP = 1u << 5,	 /* 2M pages where they fit */
};
#define MODEL_RW (MODEL_READ | MODEL_WRITE)

/* Maps [start, end) over whatever is there. -ENOMEM, -EINVAL, -EFAULT (exited). */
int model_mmap(struct mm *mm, u64 start, u64 end, u32 flags);
int model_munmap(struct mm *mm, u64 start, u64 end);
/* Moves the pages and mappings of [start, end) to `to`, over whatever is there;
 * dontunmap: the old mapping stays, empty. -EFAULT: not all of it is mapped;
 * -EINVAL: the two overlap. */
int model_mremap(struct mm *mm, u64 start, u64 end, u64 to, bool dontunmap);
/* flags: MODEL_READ and MODEL_WRITE. */
int model_mprotect(struct mm *mm, u64 start, u64 end, u32 flags);
int model_dontneed(struct mm *mm, u64 start, u64 end);
/* Writes the page at address to swap, if it is in system memory, this process's alone,
 * and not in use; the next access brings it back. -EBUSY: it is not so. -EINVAL: not
 * page aligned. */
int model_swap_out(struct mm *mm, u64 address);
/* A child with a copy (private) of everything. */
int model_fork(struct mm *mm, struct mm **child);
/* What an OOM reaper does: MADV_DONTNEED that must not block. -EAGAIN. */
int model_reap(struct mm *mm, u64 start, u64 end);

/* ---- The CPU ------------------------------------------------------------
 * Accesses of any length, page by page; device pages come home through
 * migrate_to_ram.
 *   -EFAULT  SIGSEGV: not mapped, or not for this
 *   -EIO     SIGBUS: migrate_to_ram failed
 *   -ENOMEM
 */
int model_cpu_read(struct mm *mm, u64 address, void *buffer, u64 length);
int model_cpu_write(struct mm *mm, u64 address, const void *buffer, u64 length);
/* Atomically, the word at address, which is aligned. */
int model_cpu_add(struct mm *mm, u64 address, u64 operand);

/* A pin, as O_DIRECT holds one: one page that cannot move, used by its frame
 * whatever happens to the mapping. */
struct model_frame;
int model_pin(struct mm *mm, u64 address, struct model_frame **ret);
void model_unpin(struct model_frame *pin);
void *model_pin_bytes(struct model_frame *pin);

/* ---- Making things fail ------------------------------------------------- */

enum model_site {
	MODEL_FAIL_BEGIN,	  /* mm_migrate_begin: -ENOMEM */
	MODEL_FAIL_ISOLATE,	  /* a page is passed over as busy */
	MODEL_FAIL_SYSTEM_PAGE,	  /* no small page, in migration or fault */
	MODEL_FAIL_HUGE_PAGE,	  /* no 2M page, the same */
	MODEL_FAIL_COMMIT,	  /* a page stays at commit */
	MODEL_FAIL_DMA_MAP,	  /* MM_DMA_ERROR */
	MODEL_FAIL_NOTIFIER,	  /* mm_notifier_insert: -ENOMEM */
	MODEL_FAIL_RANGE_FAULT,	  /* mm_range_fault: -ENOMEM */
	MODEL_FAIL_RANGE_BUSY,	  /* mm_range_fault: -EBUSY */
	MODEL_SITES,
};
/* After `skip` more passes of the site the next `count` fail (~0: all). */
void model_fail(struct mm *mm, enum model_site site, u64 skip, u64 count);
/* How often the site was passed since model_fail or creation. */
u64 model_passes(struct mm *mm, enum model_site site);
/* Pages of [start, end) cannot be isolated while busy. */
void model_set_busy(struct mm *mm, u64 start, u64 end, bool busy);

/* ---- Looking ------------------------------------------------------------ */

struct model_counters {
	u64 cpu_faults;	   /* migrate_to_ram calls */
	u64 cpu_waits;	   /* accesses that met a moving page */
	u64 invalidations; /* intervals told */
	u64 callbacks;	   /* invalidate_start calls */
	u64 to_device, to_system; /* pages committed */
	u64 migrations;	   /* begins that collected something */
	u64 splits;	   /* 2M pages that became small */
	u64 violations;
};
void model_counters(struct mm *mm, struct model_counters *ret);
/* Walks every invariant. idle: no migration or invalidation may be in
 * progress. NULL, or what is wrong. */
const char *model_check(struct mm *mm, bool idle);
/* The same without the lock: no one else may run meanwhile. */
const char *model_check_frozen(struct mm *mm, bool idle);
/* Is the state between two steps that belong together? */
bool model_is_locked(struct mm *mm);
/* The same for a region: every used frame is where an address space says so. */
const char *model_region_check(struct mm_region *region);
u64 model_region_used(struct mm_region *region); /* frames */
u64 model_frames_live(void); /* system pages of all address spaces */

/* Forgets what a run that was abandoned has left. */
void model_begin(void);
/* Called within each invalidation when all notifiers have let go: nothing may reach
 * the interval now. NULL: none. Context: no lock. */
extern void (*model_told)(struct mm *mm, const struct mm_invalidation *inv);
/* The system page at this address in the model's memory, or NULL. No one else may run
 * meanwhile. */
struct model_frame *model_frame_at(const void *p);
/* Is it mapped for a device, or part of a migration? */
bool model_frame_reached(const struct model_frame *frame);
/* Is what copies now the model, in place of the processor? */
bool model_on_cpu(void);
/* What would make `page` an error: it is used by no one. */
bool model_page_used(struct mm_region *region, u64 index);

#endif
