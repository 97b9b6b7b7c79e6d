/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * kernel.h: a model of Linux's memory manager as userfaultfd shows it, so that
 * host/userfault itself, unchanged, runs under the deterministic scheduler
 * (host/model/sched.h) instead of on a live kernel.
 *
 * Concepts
 *   space    an address space: areas (VMAs) and tables of 2M with an entry for each
 *            page. Space 0 is the process of the run; forks make more.
 *   page     carries its first KERNEL_BYTES, in the model's tables: no address of the
 *            space is ever touched for real; every access asks (kernel_touch). What a
 *            page leaves behind is overwritten with KERNEL_NOTHING.
 *   step     between the steps that the real kernel takes under one lock another fiber
 *            may run: between the pages of a MOVE, between looking up and locking, ...
 *   context  a userfaultfd.
 *   whims    what a kernel may do or not, as chances: see struct kernel_whims.
 *
 * It implements the table of system calls of host/userfault/sys.h in place of
 * host/userfault/sys.c, and the engines' accesses of host/userfault/bus.c.
 *
 * What is modelled: mmap, munmap, MAP_FIXED, mremap (moving, shrinking, FIXED,
 * DONTUNMAP), mprotect, madvise (DONTNEED, FREE, POPULATE_WRITE, DONTFORK, HUGEPAGE),
 * fork with shared pages, pinned pages, huge pages and their splits, page tables that
 * small pages leave behind, khugepaged, migration of pages; of userfaultfd API,
 * REGISTER, UNREGISTER, COPY, ZEROPAGE, MOVE, WAKE, WRITEPROTECT, POISON, all events,
 * read and poll; PAGEMAP_SCAN, PROCMAP_QUERY, eventfd. What is not: files, shared
 * memory, swap, WP_ASYNC. Where behaviour was measured it is as measured.
 *
 * Context of all calls: on a fiber of a run.
 */
#ifndef GPUSVM_MODEL_KERNEL_H
#define GPUSVM_MODEL_KERNEL_H

#include "host/host.h"

/* Addresses of the process that is modelled; fixed, so that runs are alike. */
#define KERNEL_USER_BASE 0x200000000000ull
#define KERNEL_USER_SIZE ((u64)96 << 20)
#define KERNEL_BYTES 64u
/* What is read where there is nothing. */
#define KERNEL_NOTHING 0xdeadbeefdeadbeefull

/* Chances of 1024 that the kernel does so where it may. All 0: it never does. */
struct kernel_whims {
	u32 late;    /* whose event was read stays off the processor for up to 2 s: EAGAIN */
	u32 busy;    /* MOVE meets a page that someone has a reference to: EBUSY */
	u32 memory;  /* COPY, ZEROPAGE, MOVE: ENOMEM */
	u32 migrate; /* MOVE meets a page that is being migrated: it tries again inside */
	u32 deny;    /* and then moves pages that it says it did not (Linux 6.18) */
	u32 steps;   /* another fiber may run between two pages; 0: between all */
};

struct space;

/* Makes the kernel anew; everything of the run before is forgotten. */
void kernel_boot(const struct kernel_whims *whims);
/* The run before was left in the middle, and nobody of it is there any more: to the
 * handlers around a fork it is as in a child. */
void kernel_abandon(void);
struct space *kernel_self(void); /* of the running fiber: the process, or what it became */
/* The running fiber is a thread of that space from now on. */
void kernel_become(struct space *s);
/* Changes the chances from now on. */
void kernel_whims_set(const struct kernel_whims *whims);

/* ---- System calls of the application: on any fiber, as mmap(2) and so on say. ---- */

enum { KERNEL_READ = 1u, KERNEL_WRITE = 2u };

/* Anonymous private memory, in place of what is there. 0, -EINVAL, -ENOMEM. */
int kernel_mmap(u64 start, u64 length, u32 protection);
int kernel_munmap(u64 start, u64 length);
int kernel_mprotect(u64 start, u64 length, u32 protection);
/* Moves [from, from + length) to `to`, where what is there is unmapped. keep:
 * MREMAP_DONTUNMAP. */
int kernel_mremap(u64 from, u64 to, u64 length, bool keep);
int kernel_madvise(u64 start, u64 length, int advice);
/* The child; it runs when whoever calls makes a fiber for it. NULL: no room. The
 * handlers that were given to the table's atfork run around it, but not a child's. */
struct space *kernel_fork(void);
void kernel_exit(struct space *child);

/* ---- Access ---------------------------------------------------------------
 * By a thread of the space: faults as the processor would. n bytes within the first
 * KERNEL_BYTES of a page. -EFAULT: SIGSEGV, -EHWPOISON: SIGBUS.
 */
int kernel_load(struct space *s, u64 address, u64 *ret);
int kernel_store(struct space *s, u64 address, u64 value);
int kernel_read(struct space *s, u64 address, void *buffer, u32 n);
int kernel_write(struct space *s, u64 address, const void *buffer, u32 n);
/* A device of the kernel's writes there, as O_DIRECT does: the page is pinned, some
 * time passes, then the bytes come, wherever the page is mapped by then. */
int kernel_direct_write(u64 address, u64 value);
/* Access by an engine to memory of the library (staging) or of the application: where
 * the bytes at that address are; good until the next point. Fails the run where a page
 * of staging is not there. NULL: SIGSEGV or SIGBUS. */
u8 *kernel_touch(const void *p, bool write);

/* ---- The kernel's own threads ------------------------------------------------ */

/* One step of khugepaged, kcompactd or reclaim, by chance, somewhere in [start, end). */
void kernel_daemon_step(u64 start, u64 end);
/* Makes a huge page of [address, 2M), populated. False: it cannot be. */
bool kernel_collapse(u64 address);

/* ---- Looking, for tests ------------------------------------------------------- */

enum {
	KERNEL_PRESENT = 1u,
	KERNEL_HUGE = 2u,
	KERNEL_ZERO = 4u,
	KERNEL_SHARED = 8u,
	KERNEL_PINNED = 16u,
	KERNEL_REGISTERED = 32u,
};
u32 kernel_look(struct space *s, u64 address);
/* Is a change under way whose caller has not gone on yet? */
bool kernel_changing(void);
u32 kernel_waiting(void); /* threads that wait in a fault or for an event */
struct kernel_counts {
	u64 moves, copies, faults, events, splits, collapses, denied;
};
extern struct kernel_counts kernel_counts;

#endif
