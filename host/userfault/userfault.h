/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* userfault.h: the live process as a home. Only the runtime, the command and
 * tests include this; everything else goes through mm.h. */
#ifndef GPUSVM_USERFAULT_H
#define GPUSVM_USERFAULT_H

#include "host/mm.h"

/* What to do without, as if the kernel did not have it. */
#define USERFAULT_WITHOUT_MOVE 1u
#define USERFAULT_WITHOUT_EVENT_FORK 2u
#define USERFAULT_WITHOUT_KERNEL_FAULTS 4u /* USER_MODE_ONLY */
#define USERFAULT_WITHOUT_SYSCALL 8u	   /* only /dev/userfaultfd */

struct userfault_info {
	u64 features; /* as the kernel said (UFFD_FEATURE_*) */
	u64 ioctls;
	bool move, event_fork, event_remap, event_remove, event_unmap;
	bool kernel_faults, wp_async, pagemap_scan, procmap_query, poison;
	bool through_device; /* opened by /dev/userfaultfd */
	u32 caps;	     /* MM_CAP_* that follow */
	char error[256];     /* why there is no home, in words; empty: there is one */
};
/* What a home opened with this would have; opens and closes a throwaway context.
 * 0, or -ENOSYS, -EPERM, -EOPNOTSUPP with error filled. */
int userfault_probe(u32 without, struct userfault_info *ret);

struct userfault_hooks {
	/* Around a fork of this process, in its atfork handlers: stop and resume
	 * device writes. Run on the application's thread. */
	void (*fork_prepare)(void *arg);
	void (*fork_frozen)(void *arg); /* from here on no page leaves system memory */
	void (*fork_parent)(void *arg);
	void (*fork_child)(void *arg);
	void *arg;
};

/* One at a time in a process (-EBUSY). Same errors as probe, -ENOMEM. */
int userfault_open(u32 without, const struct userfault_hooks *hooks, struct mm **ret);
/* No device page, notifier or region may be left. Ends all threads. */
void userfault_close(struct mm *mm);
/* In a forked child the home is closed from the beginning: its memory there is a
 * copy that goes with the arena's, and nothing may be called on mm. */
void userfault_info_get(struct mm *mm, struct userfault_info *ret);

/* Memory of gpusvm_alloc: 2M aligned, THP asked for; migrates in fallbacks too. */
void *userfault_alloc(struct mm *mm, size_t size);
int userfault_free(struct mm *mm, void *p); /* -EINVAL: not from userfault_alloc */

/* Drops the contents of [start, end), page aligned, where they can be dropped.
 * -ENOENT: a hole, and nothing is dropped. May sleep; not on a fault thread. */
int userfault_discard(struct mm *mm, u64 start, u64 end);

struct userfault_counters {
	u64 cpu_faults, zero_fills, moves, copies, ebusy, eagain, events, wakes;
	u64 uncounted;	   /* moves that the kernel made and denied; see gate.c */
	u64 staging_bytes; /* pages kept for the way back */
};
void userfault_counters_get(struct mm *mm, struct userfault_counters *ret);

#endif
