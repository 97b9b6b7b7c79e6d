/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * posix.h: what this implementation of host.h offers besides host.h itself, to
 * those that set a live process up (the runtime, host/userfault) and to tests.
 *
 * Concepts
 *   flavour   memory comes from the arena (memory_arena.c: a live process) or
 *             from malloc (memory_malloc.c: tests, where a sanitizer shall see
 *             each allocation). A program links one of the two.
 *   hook      what a thread must do before it sleeps; see below.
 */
#ifndef GPUSVM_HOST_POSIX_H
#define GPUSVM_HOST_POSIX_H

#include "host/host.h"

/*
 * Storage class of every thread-local of the library. It lies in the thread's
 * static block, which is on the thread's stack: any other model may call malloc
 * at first use, on a thread that must never touch the application's heap.
 */
#ifdef HOST_MODEL
/* Fibers of one thread: the scheduler keeps a copy of this section for each. */
#define HOST_THREAD_LOCAL __attribute__((section("fiber_local")))
#else
#define HOST_THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))
#endif

/*
 * Storage class of every other variable of the library that changes: in .data,
 * which is a file's mapping, and so never moves. .bss is anonymous memory, in a
 * program that links the library statically the program's own too, and its pages
 * may be on a device: touching one there needs the very threads that touch it.
 */
#define HOST_STATIC __attribute__((section(".data")))

/* ---- The hook before sleeping --------------------------------------------
 * Called by every primitive of host.h that is about to sleep (a contended lock,
 * a wait, a sleep, a join, a flush), before it does, on the thread that set
 * it. The hook clears itself before it does anything that may sleep. Fast
 * paths do not look at it. Set NULL when it is not wanted any more.
 * host/userfault: the thread that reads events hands that role over.
 */
extern HOST_THREAD_LOCAL void (*host_posix_before_block)(void);

/* For code that sleeps by other means than host.h (a system call). */
static inline void host_posix_may_block(void)
{
	void (*hook)(void) = host_posix_before_block;

	if (host_unlikely(hook != NULL))
		hook();
}

/* ---- Life of the parts with state ----------------------------------------- */

/* Starts the threads of the work pool. -EBUSY: they run already; -ENOMEM,
 * -EAGAIN: as host_thread_start. Not concurrent with stop. */
int host_work_start(void);
/* Ends them, after the work that runs. Work that is still queued is an error of
 * its owner: reported, and dropped. Without threads host_work_flush runs the
 * work on the caller's thread. May sleep. */
void host_work_stop(void);

/* In a child after a fork, first of all: the parent's other threads may have held
 * any lock of this folder, so that all state is made anew, as before
 * host_arena_open and host_work_start. The parent's arena stays as it was, for
 * reading only; its mapping is now the caller's to unmap (*size 0: there was
 * none). Parents need nothing: no lock is held over the fork (a page that has to
 * come home in between may need them). */
void host_posix_abandon(void **mapping, size_t *size);

/* To make a thread is to call malloc, which on a thread of the library would map memory
 * outside of the arena. With a starter set, host_thread_start has it call create(arg)
 * on a thread that may, and give its value. NULL: none. One thread at a time starts
 * threads while one is set. */
void host_posix_set_starter(int (*starter)(int (*create)(void *arg), void *arg));

/* ---- Memory pressure ------------------------------------------------------
 * host.h's shrinkers are asked when an allocation fails, and when the kernel says that
 * memory is short. By which files, "" where there is none.
 */
void host_posix_pressure_sources(const char **stall, const char **events);
/* For tests: by these instead; twice "": as it was. Nothing is registered meanwhile. */
void host_posix_pressure_use(const char *stall, const char *events);

/* ---- Arena ----------------------------------------------------------------
 * One reserve of addresses, from which all memory of host.h and all stacks are
 * taken. Never mirrored. Between open and close nothing is mapped or unmapped
 * outside of it. Before open and after close every allocation fails.
 */

/* Pointers of the arena fit in 32 bits, in units of 16 bytes. */
#define HOST_ARENA_MAX (((u64)1 << 32) * 16)

/* Reserves up to four times want (0: the most), no more than HOST_ARENA_MAX, and
 * less when the system refuses, down to want. -EBUSY: open already, -ENOMEM. */
int host_arena_open(u64 want);
/* Gives the reserve back. The value is the bytes that were still handed out. No
 * thread of the library may be left, nothing of it is used afterwards. */
u64 host_arena_close(void);
bool host_arena_contains(const void *p);
u64 host_arena_base(void); /* 0 when not open */
u64 host_arena_size(void);
u64 host_arena_used(void); /* bytes handed out, rounding included */

/* NULL is 0. p: in the arena, 16-byte aligned. Any context. */
u32 host_arena_compress(const void *p);
void *host_arena_expand(u32 compressed);

/* A stack above a guard page; *size is rounded up. NULL: no memory, or (in the
 * malloc flavour) the system's default stacks are used and *size is 0. */
void *host_posix_stack_alloc(size_t *size);
void host_posix_stack_free(void *stack, size_t size);

/* ---- Tests ---------------------------------------------------------------- */

/* Malloc flavour. The n-th allocation from now (1: the next) gives NULL, once;
 * 0: none. Counts all calls that allocate since the program began. */
void host_posix_fail_alloc_at(u64 n);
u64 host_posix_alloc_count(void);
u64 host_posix_alloc_live(void); /* allocations that were not freed */

/* Reports of host_warn so far. */
u64 host_posix_warnings(void);

/* Called when the order of locks is broken; the default panics. held is the
 * highest rank held, taken the one asked for. GPUSVM_DEBUG builds only. */
extern void (*host_rank_fail)(const char *what, enum host_lock_rank held,
			      enum host_lock_rank taken);

#endif
