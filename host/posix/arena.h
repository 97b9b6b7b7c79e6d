/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * arena.h: runs of whole pages from the arena's reserve, for memory_arena.c.
 *
 * Every run is handed out cleared. A run is known by its first page; a run may
 * be marked as a span, which marks each of its pages, so that any pointer into
 * it tells what it is.
 */
#ifndef GPUSVM_HOST_POSIX_ARENA_H
#define GPUSVM_HOST_POSIX_ARENA_H

#include "host/posix/internal.h"

/* npages, the first aligned to align pages (a power of two). NULL: none left, or
 * the arena is not open. span: see above. May sleep. */
void *arena_run_alloc(u64 npages, u64 align, bool span);
/* All of it, as allocated. May sleep on the memory manager, takes no lock of
 * host.h. */
void arena_run_free(void *p);
/* p is in a run marked as a span; else it must be the first byte of a run. */
bool arena_in_span(const void *p);
u64 arena_run_pages(const void *p);
/* Bytes handed out by memory_arena.c: added, or taken away. */
void arena_account(s64 bytes);

/* memory_arena.c: every small object is gone; locks are made anew. */
void memory_forget(void);
/* Gives the mapping up, without unmapping it; the lock is made anew. */
void arena_abandon(void **mapping, size_t *size);

#endif
