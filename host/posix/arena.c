/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * arena.c: the reserve of addresses, and runs of whole pages from it.
 *
 *	| table | small zone -->            <-- large zone |
 *	base                                               base + size
 *
 * The small zone grows up and the large zone down, until they meet. Runs of 2M
 * and more are taken from the large zone, which asks for huge pages. What a
 * zone grows over is made accessible in steps, by mprotect.
 *
 * The table has an entry for each page of the reserve. The first and the last
 * page of every run, free or used, are up to date; entries in between are stale
 * and nobody looks at them (but in spans, where all say SPAN). Free neighbours
 * of one zone are always joined. Free runs are in bins by the logarithm of their
 * length; they hold no memory (MADV_DONTNEED), which also clears them.
 *
 * Locking: one raw mutex for zones, bins and the table; entries of a run that is
 * in use may be read by its owner without it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/posix/arena.h"

#include <string.h>
#include <sys/mman.h>

#define BINS 25u	  /* runs of up to 1 << 24 pages: all of the reserve */
#define SEARCH_MAX 64u	  /* candidates looked at in one bin */
#define STEP_MIN 256ull	  /* pages made accessible at a time: from 1M */
#define STEP_MAX 65536ull /* to 256M */
#define RESERVE_MIN ((u64)16 << 20)

enum { RUN_UNUSED, RUN_FREE, RUN_FREE_TAIL, RUN_USED, RUN_SPAN };

struct page_entry {
	u32 npages; /* of the run; at its first and last page */
	u32 state;
	u32 prev, next; /* free runs: neighbours in the bin; 0: none (page 0 is the table) */
};

struct zone {
	u64 start, end; /* pages that were handed out at least once, or gaps */
	u64 committed;	/* small: accessible below; large: accessible from here */
	u32 bins[BINS];
};

static struct {
	pthread_mutex_t lock;
	char *mapping; /* as mmap gave it */
	size_t mapping_size;
	u64 base, npages;
	struct page_entry *table;
	struct zone small, large;
	u64 used;
} arena HOST_STATIC = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *page_pointer(u64 page)
{
	return (void *)(uintptr_t)(arena.base + (page << HOST_PAGE_SHIFT));
}

static u64 page_of(const void *p)
{
	return ((u64)(uintptr_t)p - arena.base) >> HOST_PAGE_SHIFT;
}

static unsigned bin_of(u64 npages)
{
	return 63u - (unsigned)__builtin_clzll(npages);
}

/* ---- Bins; the lock is held ---- */

/* The head last: it is the one that counts in a run of one page. */
static void run_set(u64 page, u64 npages, u32 head_state, u32 tail_state)
{
	arena.table[page + npages - 1] = (struct page_entry){(u32)npages, tail_state, 0, 0};
	arena.table[page] = (struct page_entry){(u32)npages, head_state, 0, 0};
}

static void bin_insert(struct zone *zone, u64 page, u64 npages)
{
	u32 *head = &zone->bins[bin_of(npages)];

	run_set(page, npages, RUN_FREE, RUN_FREE_TAIL);
	arena.table[page].next = *head;
	if (*head)
		arena.table[*head].prev = (u32)page;
	*head = (u32)page;
}

static void bin_remove(struct zone *zone, u64 page)
{
	struct page_entry *e = &arena.table[page];

	if (e->prev)
		arena.table[e->prev].next = e->next;
	else
		zone->bins[bin_of(e->npages)] = e->next;
	if (e->next)
		arena.table[e->next].prev = e->prev;
}

/* A run in a bin that has room for npages at an aligned page; 0: none. */
static u64 bin_find(const struct zone *zone, unsigned bin, u64 npages, u64 align, u64 *at)
{
	u64 page = zone->bins[bin];
	u32 tries;

	for (tries = 0; page && tries < SEARCH_MAX; tries++) {
		*at = host_align_up(page, align);
		if (*at + npages <= page + arena.table[page].npages)
			return page;
		page = arena.table[page].next;
	}
	return 0;
}

/* From free runs; what is over on both sides stays free. 0: none. */
static u64 zone_take(struct zone *zone, u64 npages, u64 align)
{
	u64 page = 0, at = 0, end;
	unsigned bin;

	for (bin = bin_of(npages); bin < BINS && !page; bin++)
		page = bin_find(zone, bin, npages, align, &at);
	if (!page)
		return 0;
	end = page + arena.table[page].npages;
	bin_remove(zone, page);
	if (at > page)
		bin_insert(zone, page, at - page);
	if (at + npages < end)
		bin_insert(zone, at + npages, end - at - npages);
	return at;
}

/* ---- Growing; the lock is held ---- */

static u64 step(u64 have, u64 need)
{
	return host_max(need, host_min(host_max(have, STEP_MIN), STEP_MAX));
}

static bool commit(u64 from, u64 to)
{
	return mprotect(page_pointer(from), (size_t)((to - from) << HOST_PAGE_SHIFT),
			PROT_READ | PROT_WRITE) == 0;
}

static u64 small_grow(u64 npages, u64 align)
{
	struct zone *zone = &arena.small;
	u64 at = host_align_up(zone->end, align);
	u64 end = at + npages, to;

	if (end > arena.large.committed)
		return 0;
	if (end > zone->committed) {
		to = zone->committed + step(zone->committed - zone->start, end - zone->committed);
		to = host_min(to, arena.large.committed);
		if (!commit(zone->committed, to))
			return 0;
		zone->committed = to;
	}
	if (at > zone->end)
		bin_insert(zone, zone->end, at - zone->end);
	zone->end = end;
	return at;
}

static u64 large_grow(u64 npages, u64 align)
{
	struct zone *zone = &arena.large;
	u64 at, to, grow;

	if (npages > zone->start)
		return 0;
	at = host_align_down(zone->start - npages, align);
	if (at < arena.small.committed)
		return 0;
	if (at < zone->committed) {
		grow = step(zone->end - zone->committed, zone->committed - at);
		to = zone->committed - host_min(grow, zone->committed - arena.small.committed);
		to = host_min(at, host_align_up(to, HOST_HUGE_PAGES));
		if (!commit(to, zone->committed))
			return 0;
		/* Advice: small pages do as well. */
		(void)madvise(page_pointer(to), (size_t)((zone->committed - to) << HOST_PAGE_SHIFT),
			      MADV_HUGEPAGE);
		zone->committed = to;
	}
	if (at + npages < zone->start)
		bin_insert(zone, at + npages, zone->start - at - npages);
	zone->start = at;
	return at;
}

void *arena_run_alloc(u64 npages, u64 align, bool span)
{
	bool large = npages >= HOST_HUGE_PAGES;
	struct zone *first = large ? &arena.large : &arena.small;
	struct zone *other = large ? &arena.small : &arena.large;
	u64 page, i;

	if (!arena.base || npages > arena.npages)
		return NULL;
	raw_lock(&arena.lock);
	page = zone_take(first, npages, align);
	if (!page)
		page = large ? large_grow(npages, align) : small_grow(npages, align);
	if (!page)
		page = zone_take(other, npages, align);
	if (page) {
		run_set(page, npages, RUN_USED, RUN_UNUSED);
		for (i = 0; span && i < npages; i++)
			arena.table[page + i].state = RUN_SPAN;
	}
	raw_unlock(&arena.lock);
	return page ? page_pointer(page) : NULL;
}

void arena_run_free(void *p)
{
	u64 page = page_of(p), npages = arena.table[page].npages, neighbour;
	size_t bytes = (size_t)(npages << HOST_PAGE_SHIFT);
	struct zone *zone;

	/* While it is still ours. Locked memory refuses. */
	if (madvise(p, bytes, MADV_DONTNEED) != 0)
		memset(p, 0, bytes);

	raw_lock(&arena.lock);
	zone = page < arena.small.end ? &arena.small : &arena.large;
	neighbour = page + npages;
	if (neighbour < zone->end && arena.table[neighbour].state == RUN_FREE) {
		bin_remove(zone, neighbour);
		npages += arena.table[neighbour].npages;
	}
	if (page > zone->start && (arena.table[page - 1].state == RUN_FREE_TAIL ||
				   arena.table[page - 1].state == RUN_FREE)) {
		neighbour = page - arena.table[page - 1].npages;
		bin_remove(zone, neighbour);
		npages += page - neighbour;
		page = neighbour;
	}
	bin_insert(zone, page, npages);
	raw_unlock(&arena.lock);
}

bool arena_in_span(const void *p)
{
	u32 state;

	HOST_CHECK(host_arena_contains(p));
	state = arena.table[page_of(p)].state;
	if (state == RUN_SPAN)
		return true;
	HOST_CHECK(state == RUN_USED && host_is_aligned((u64)(uintptr_t)p, HOST_PAGE_SIZE));
	return false;
}

u64 arena_run_pages(const void *p)
{
	return arena.table[page_of(p)].npages;
}

void arena_account(s64 bytes)
{
	host_add_relaxed(&arena.used, (u64)bytes);
}

/* ---- Life ---- */

static bool reserve(u64 size)
{
	/* With a page at least on both sides that nobody can use: the kernel must not take
	 * the arena and an application's mapping for one. */
	size_t mapping_size = (size_t)(size + 2 * HOST_HUGE_SIZE);
	u64 npages = size >> HOST_PAGE_SHIFT, table_pages;
	void *mapping =
	    mmap(NULL, mapping_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mapping == MAP_FAILED)
		return false;
	arena.base = host_align_up((u64)(uintptr_t)mapping + 1, HOST_HUGE_SIZE);
	table_pages =
	    host_align_up(npages * sizeof(struct page_entry), HOST_PAGE_SIZE) >> HOST_PAGE_SHIFT;
	if (!commit(0, table_pages)) {
		munmap(mapping, mapping_size);
		arena.base = 0;
		return false;
	}
	arena.mapping = mapping;
	arena.mapping_size = mapping_size;
	arena.npages = npages;
	arena.table = page_pointer(0);
	arena.small = (struct zone){table_pages, table_pages, table_pages, {0}};
	arena.large = (struct zone){npages, npages, npages, {0}};
	arena.used = 0;
	return true;
}

int host_arena_open(u64 want)
{
	u64 least = host_max(host_align_up(want, HOST_HUGE_SIZE), RESERVE_MIN);
	u64 size = HOST_ARENA_MAX;

	if (arena.base)
		return -EBUSY;
	if (want && want < HOST_ARENA_MAX / 4)
		size = host_align_up(want * 4, HOST_HUGE_SIZE);
	for (size = host_max(size, RESERVE_MIN); size >= least;
	     size = host_align_down(size / 2, HOST_HUGE_SIZE))
		if (reserve(size))
			return 0;
	return -ENOMEM;
}

u64 host_arena_close(void)
{
	u64 left = arena.used;

	if (!arena.base)
		return 0;
	memory_forget();
	arena.base = 0;
	munmap(arena.mapping, arena.mapping_size);
	return left;
}

void arena_abandon(void **mapping, size_t *size)
{
	*mapping = arena.base ? arena.mapping : NULL;
	*size = arena.base ? arena.mapping_size : 0;
	arena.base = 0;
	arena.used = 0;
	arena.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

bool host_arena_contains(const void *p)
{
	return arena.base && (u64)(uintptr_t)p - arena.base < arena.npages << HOST_PAGE_SHIFT;
}

u64 host_arena_base(void)
{
	return arena.base;
}

u64 host_arena_size(void)
{
	return arena.base ? arena.npages << HOST_PAGE_SHIFT : 0;
}

u64 host_arena_used(void)
{
	return host_read_once(&arena.used);
}

u32 host_arena_compress(const void *p)
{
	HOST_ASSERT(((uintptr_t)p & 15) == 0);
	return p ? (u32)(((u64)(uintptr_t)p - arena.base) >> 4) : 0;
}

void *host_arena_expand(u32 compressed)
{
	return compressed ? (void *)(uintptr_t)(arena.base + ((u64)compressed << 4)) : NULL;
}
