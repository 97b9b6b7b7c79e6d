/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * memory_arena.c: memory of host.h on a live process, from the arena.
 *
 * Small objects (up to 16K) come from spans of 64K, each of one size class; its
 * header at the start counts the objects in use and lists the free ones. Larger
 * ones are runs of pages.
 *
 * Locking: one raw mutex for each class guards its spans. A class's lock is
 * never held with another's, nor while runs are allocated or freed.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/posix/arena.h"
#include "host/posix/shrinker.h"

#include <string.h>
#include <sys/mman.h>

#define SPAN_SIZE ((u64)64 << 10)
#define SPAN_PAGES (SPAN_SIZE >> HOST_PAGE_SHIFT)
#define SPAN_HEADER 64u
#define SMALL_MAX 16384u
#define CLASSES 36u /* 16 to 128 by 16, then four to each doubling */

struct span {
	u32 class;
	u32 used;  /* objects handed out */
	u32 fresh; /* objects from here on were never handed out */
	u32 total;
	void *free;		  /* a list through the objects' first words */
	struct span *prev, *next; /* among those of the class with a free object */
};
_Static_assert(sizeof(struct span) <= SPAN_HEADER, "span header does not fit");

struct size_class {
	pthread_mutex_t lock;
	struct span *spans; /* with at least one free object */
};

static struct size_class classes[CLASSES] HOST_STATIC = {
    [0 ... CLASSES - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER},
};

static u32 class_of(size_t size)
{
	unsigned shift;

	if (size <= 128)
		return size ? (u32)(size + 15) / 16 - 1 : 0;
	shift = 63u - (unsigned)__builtin_clzll(size - 1);
	return 8 + (shift - 7) * 4 + (u32)((size - 1) >> (shift - 2)) - 4;
}

static u32 class_size(u32 class)
{
	if (class < 8)
		return (class + 1) * 16;
	return (4 + (class & 3) + 1) << (5 + (class - 8) / 4);
}

static struct span *span_of(const void *p)
{
	u64 offset = (u64)(uintptr_t)p - host_arena_base();

	return (struct span *)(uintptr_t)(host_arena_base() + host_align_down(offset, SPAN_SIZE));
}

/* ---- Spans; the class's lock is held ---- */

static void span_link(struct size_class *c, struct span *span)
{
	span->prev = NULL;
	span->next = c->spans;
	if (c->spans)
		c->spans->prev = span;
	c->spans = span;
}

static void span_unlink(struct size_class *c, struct span *span)
{
	if (span->prev)
		span->prev->next = span->next;
	else
		c->spans = span->next;
	if (span->next)
		span->next->prev = span->prev;
}

static void *span_take(struct size_class *c, struct span *span)
{
	void *p = span->free;

	if (p)
		span->free = *(void **)p;
	else
		p = (char *)span + SPAN_HEADER + (u64)span->fresh++ * class_size(span->class);
	if (++span->used == span->total)
		span_unlink(c, span);
	return p;
}

/* ---- Small objects ---- */

static struct span *span_create(u32 class)
{
	struct span *span = arena_run_alloc(SPAN_PAGES, SPAN_PAGES, true);

	if (span) {
		span->class = class;
		span->total = (u32)(SPAN_SIZE - SPAN_HEADER) / class_size(class);
	}
	return span;
}

static void *small_alloc(u32 class)
{
	struct size_class *c = &classes[class];
	struct span *made;
	void *p = NULL;

	raw_lock(&c->lock);
	if (!c->spans) {
		raw_unlock(&c->lock);
		made = span_create(class);
		raw_lock(&c->lock);
		if (made)
			span_link(c, made);
	}
	if (c->spans)
		p = span_take(c, c->spans);
	raw_unlock(&c->lock);
	if (p)
		arena_account(class_size(class));
	else
		shrinkers_memory_failed();
	return p;
}

static void small_free(void *p)
{
	struct span *span = span_of(p), *empty = NULL;
	struct size_class *c = &classes[span->class];

	arena_account(-(s64)class_size(span->class));
#ifdef GPUSVM_DEBUG
	memset(p, 0x6b, class_size(span->class));
#endif
	raw_lock(&c->lock);
	if (span->used == span->total)
		span_link(c, span);
	*(void **)p = span->free;
	span->free = p;
	/* The last span of a class is kept, so that one object that comes and goes
	 * costs no system call. */
	if (--span->used == 0 && (span->prev || span->next)) {
		span_unlink(c, span);
		empty = span;
	}
	raw_unlock(&c->lock);
	if (empty)
		arena_run_free(empty);
}

/* ---- Runs ---- */

static void *run_alloc(size_t size)
{
	u64 npages = host_align_up((u64)size, HOST_PAGE_SIZE) >> HOST_PAGE_SHIFT;
	void *p;

	if (size > HOST_ARENA_MAX)
		return NULL;
	npages = host_max(npages, (u64)1);
	p = arena_run_alloc(npages, npages >= HOST_HUGE_PAGES ? HOST_HUGE_PAGES : 1, false);
	if (p)
		arena_account((s64)(npages << HOST_PAGE_SHIFT));
	else
		shrinkers_memory_failed();
	return p;
}

static void run_free(void *p)
{
	arena_account(-(s64)(arena_run_pages(p) << HOST_PAGE_SHIFT));
	arena_run_free(p);
}

void *host_alloc(size_t size)
{
	void *p;

	rank_check_alloc();
	if (size > SMALL_MAX)
		return run_alloc(size);
	p = small_alloc(class_of(size));
#ifdef GPUSVM_DEBUG
	if (p)
		memset(p, 0xa5, size);
#endif
	return p;
}

void *host_alloc_zeroed(size_t size)
{
	void *p;

	rank_check_alloc();
	if (size > SMALL_MAX)
		return run_alloc(size); /* runs are cleared */
	p = small_alloc(class_of(size));
	if (p)
		memset(p, 0, size);
	return p;
}

void host_free(void *p)
{
	if (!p)
		return;
	rank_check(classes, RANK_HOST);
	if (arena_in_span(p))
		small_free(p);
	else
		run_free(p);
}

void *host_alloc_pages(size_t size)
{
	rank_check_alloc();
	return run_alloc(size);
}

void host_free_pages(void *p, size_t size)
{
	if (!p)
		return;
	rank_check(classes, RANK_HOST);
	HOST_CHECK(!arena_in_span(p));
	HOST_CHECK(arena_run_pages(p) ==
		   host_align_up((u64)size, HOST_PAGE_SIZE) >> HOST_PAGE_SHIFT);
	run_free(p);
}

/* ---- Stacks: a run whose first page cannot be touched ---- */

void *host_posix_stack_alloc(size_t *size)
{
	char *p;

	*size = host_align_up(*size, HOST_PAGE_SIZE);
	p = run_alloc(*size + HOST_PAGE_SIZE);
	if (!p)
		return NULL;
	if (mprotect(p, HOST_PAGE_SIZE, PROT_NONE) != 0) {
		run_free(p);
		return NULL;
	}
	return p + HOST_PAGE_SIZE;
}

void host_posix_stack_free(void *stack, size_t size)
{
	char *p = (char *)stack - HOST_PAGE_SIZE;

	(void)size;
	/* The page below becomes memory like any other. If it cannot, the run is
	 * left out of use rather than handed out with a hole. */
	if (mprotect(p, HOST_PAGE_SIZE, PROT_READ | PROT_WRITE) == 0)
		run_free(p);
	else
		host_warn("a stack could not be freed", __FILE__, __LINE__);
}

void memory_forget(void)
{
	for (u32 i = 0; i < CLASSES; i++)
		classes[i] = (struct size_class){.lock = PTHREAD_MUTEX_INITIALIZER};
}

void memory_abandon(void **mapping, size_t *size)
{
	memory_forget();
	arena_abandon(mapping, size);
}
