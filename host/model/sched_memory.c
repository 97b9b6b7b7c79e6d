/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched_memory.c: memory of host.h in a run: one reserve of addresses, which each
 * run fills from its beginning, so that where things lie, and how far apart, is the
 * same in each. What was freed is filled with a pattern, kept aside for a while and
 * looked at when it is used again or the run ends: a write after free is seen.
 *
 * Small objects (up to 2K) have a header in front and come from free lists by
 * size. Larger ones, and host_alloc_pages, are runs of whole pages, known by a table
 * with an entry for each page.
 *
 * If the options say so (poison), AddressSanitizer is told which bytes are anyone's: those
 * of what is allocated, up to the size that was asked for. Headers, what is left of an
 * object or of a last page, a page after each run, and everything that was freed are
 * poisoned, but while they are looked at here.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/model/sched_internal.h"
#include "host/posix/shrinker.h"

#include <string.h>
#include <sys/mman.h>
#ifdef SCHED_ASAN
#include <sanitizer/asan_interface.h>
#endif

#define ARENA_SIZE ((u64)4 << 30)
#define ARENA_PAGES (ARENA_SIZE >> HOST_PAGE_SHIFT)
#define SMALL_MAX 2048u
#define CLASSES 36u /* 16 to 256 by 16, then four to each doubling */
#define SLAB ((u64)64 << 10)
#define POISON 0x6b
#define FRESH 0xa5
#define KEPT_SMALL 512u /* freed objects kept aside */
#define KEPT_RUNS 16u
#ifdef SCHED_ASAN
#define GUARD 1u /* pages between runs */
#else
#define GUARD 0u
#endif
#define LARGE_RUN 256u /* pages: from here on not filled, but given back to the system */

#define ALIVE 0x616c697665212121ull
#define FREED 0x6672656564212121ull

/* 16 bytes in front of each small object. */
struct header {
	u64 state;
	u32 size;
	u32 class;
};
_Static_assert(sizeof(struct header) == 16, "objects are aligned to 16");

enum page_kind { PAGE_NONE, PAGE_SMALL, PAGE_RUN, PAGE_RUN_TAIL, PAGE_KEPT };

static struct {
	char *base;
	u64 top;	/* pages handed out from the beginning on */
	u64 dirty;	/* pages that may not be zero, of earlier runs */
	u64 bytes;	/* in use */
	bool open;	/* host_arena_open */
	bool poisoned;	/* AddressSanitizer was told of it, maybe in an earlier run */
	u8 *kind;	/* of each page, enum page_kind */
	u32 *run_pages; /* of the first page of a run */
	char *slab, *slab_end;
	struct header *free[CLASSES];
	struct header *kept[KEPT_SMALL];
	u32 n_kept;
	char *kept_runs[KEPT_RUNS];
	u32 n_kept_runs;
	char *free_runs[HOST_HUGE_PAGES + 1]; /* by pages; the next in run_next */
	char *free_large;
	u32 *run_next; /* 1 + first page of the next free run */
} arena;

#ifdef SCHED_ASAN
static void poison(const void *p, u64 n)
{
	if (sched.options.poison)
		__asan_poison_memory_region(p, n);
}

static void unpoison(const void *p, u64 n)
{
	if (arena.poisoned)
		__asan_unpoison_memory_region(p, n);
}
#else
static void poison(const void *p, u64 n)
{
	(void)p;
	(void)n;
}

static void unpoison(const void *p, u64 n)
{
	(void)p;
	(void)n;
}
#endif

static void *reserve(u64 size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	HOST_CHECK(p != MAP_FAILED);
	return p;
}

static void arena_reserve(void)
{
	char *p = reserve(ARENA_SIZE + HOST_HUGE_SIZE);

	madvise(p, ARENA_SIZE + HOST_HUGE_SIZE, MADV_NOHUGEPAGE);
	arena.base = (char *)(uintptr_t)host_align_up((u64)(uintptr_t)p, HOST_HUGE_SIZE);
	arena.kind = reserve(ARENA_PAGES);
	arena.run_pages = reserve(ARENA_PAGES * sizeof(u32));
	arena.run_next = reserve(ARENA_PAGES * sizeof(u32));
}

void memory_begin(void)
{
	if (!arena.base)
		arena_reserve();
	memset(arena.kind, PAGE_NONE, arena.top);
	arena.dirty = host_max(arena.dirty, arena.top);
	if (!sched.options.poison)
		unpoison(arena.base, arena.dirty << HOST_PAGE_SHIFT);
	arena.poisoned = sched.options.poison;
	/* Page 0 is never handed out: compressed, it would be NULL. */
	arena.top = 1;
	arena.bytes = 0;
	arena.open = false;
	arena.slab = arena.slab_end = NULL;
	memset(arena.free, 0, sizeof(arena.free));
	arena.n_kept = 0;
	arena.n_kept_runs = 0;
	memset(arena.free_runs, 0, sizeof(arena.free_runs));
	arena.free_large = NULL;
}

static u64 page_of(const void *p)
{
	return (u64)((const char *)p - arena.base) >> HOST_PAGE_SHIFT;
}

/* The first word is right, and each one is as the one before. */
static bool is_filled(const void *p, size_t n)
{
	const u64 *words = p;

	return n < 8 || (words[0] == POISON * 0x0101010101010101ull &&
			 !memcmp(words, words + 1, (n & ~(size_t)7) - 8));
}

static void fail_written(const void *p, size_t n)
{
	const u8 *bytes = p;
	size_t i = 0;

	while (i < n && bytes[i] == POISON)
		i++;
	sched_fail(SCHED_MEMORY, "freed memory was written: %zu bytes, at byte %zu", n, i);
}

/* ---- Runs of pages --------------------------------------------------------------- */

static char *run_bump(u64 npages, u64 align)
{
	u64 first = host_align_up(arena.top, align);

	char *p = arena.base + (first << HOST_PAGE_SHIFT);

	if (first + npages + GUARD > ARENA_PAGES)
		return NULL;
	arena.top = first + npages + GUARD;
	poison(p, (npages + GUARD) << HOST_PAGE_SHIFT);
	return p;
}

static char **free_list(u64 npages)
{
	return npages <= HOST_HUGE_PAGES ? &arena.free_runs[npages] : &arena.free_large;
}

/* One of exactly this size: sizes recur. */
static char *run_reuse(u64 npages)
{
	char **link = free_list(npages);
	char *p = *link;
	u32 next;

	if (!p || arena.run_pages[page_of(p)] != npages)
		return NULL;
	next = arena.run_next[page_of(p)];
	*link = next ? arena.base + ((u64)(next - 1) << HOST_PAGE_SHIFT) : NULL;
	return p;
}

static void clear_run(char *p, u64 npages)
{
	u64 size = npages << HOST_PAGE_SHIFT;

	if (npages >= LARGE_RUN)
		HOST_CHECK(madvise(p, size, MADV_DONTNEED) == 0);
	else
		memset(p, 0, size);
}

static void *run_alloc(u64 size)
{
	u64 npages = host_align_up(size, HOST_PAGE_SIZE) >> HOST_PAGE_SHIFT, first;
	bool fresh = false;
	char *p;

	npages = host_max(npages, (u64)1);
	p = run_reuse(npages);
	if (!p) {
		p = run_bump(npages, npages >= HOST_HUGE_PAGES ? HOST_HUGE_PAGES : 1);
		fresh = true;
	}
	if (!p)
		return NULL;
	first = page_of(p);
	unpoison(p, npages << HOST_PAGE_SHIFT);
	if (!fresh || first < arena.dirty)
		clear_run(p, npages);
	poison(p + size, (npages << HOST_PAGE_SHIFT) - size);
	arena.kind[first] = PAGE_RUN;
	memset(arena.kind + first + 1, PAGE_RUN_TAIL, npages - 1);
	arena.run_pages[first] = (u32)npages;
	arena.bytes += npages << HOST_PAGE_SHIFT;
	return p;
}

static void run_check(char *p, u64 npages)
{
	u64 size = npages << HOST_PAGE_SHIFT;

	if (npages >= LARGE_RUN)
		return;
	unpoison(p, size);
	if (!is_filled(p, size))
		fail_written(p, size);
	poison(p, size);
}

/* The oldest of those that are kept may be used again. */
static void run_release(void)
{
	char *p = arena.kept_runs[0];
	u64 first = page_of(p), npages = arena.run_pages[first];
	char **link = free_list(npages);

	arena.n_kept_runs--;
	memmove(arena.kept_runs, arena.kept_runs + 1,
		arena.n_kept_runs * sizeof(arena.kept_runs[0]));
	run_check(p, npages);
	arena.run_next[first] = *link ? (u32)page_of(*link) + 1 : 0;
	*link = p;
}

static void run_free(char *p)
{
	u64 first = page_of(p), npages = arena.run_pages[first];

	if (arena.kind[first] != PAGE_RUN)
		sched_fail(SCHED_MEMORY, "what is freed is no allocation, or freed already");
	arena.bytes -= npages << HOST_PAGE_SHIFT;
	memset(arena.kind + first, PAGE_KEPT, npages);
	unpoison(p, npages << HOST_PAGE_SHIFT);
	if (npages < LARGE_RUN)
		memset(p, POISON, npages << HOST_PAGE_SHIFT);
	poison(p, npages << HOST_PAGE_SHIFT);
	if (arena.n_kept_runs == KEPT_RUNS)
		run_release();
	arena.kept_runs[arena.n_kept_runs++] = p;
}

/* ---- Small objects ----------------------------------------------------------------- */

static u32 class_of(size_t size)
{
	unsigned shift;

	if (size <= 256)
		return size ? (u32)(size + 15) / 16 - 1 : 0;
	shift = 63u - (unsigned)__builtin_clzll(size - 1);
	return 16 + (shift - 8) * 4 + (u32)((size - 1) >> (shift - 2)) - 4;
}

static u32 class_size(u32 class)
{
	if (class < 16)
		return (class + 1) * 16;
	return (4 + (class & 3) + 1) << (6 + (class - 16) / 4);
}

/* Header and object are looked at. */
static void object_show(struct header *h)
{
	unpoison(h, sizeof(*h));
	unpoison(h + 1, class_size(h->class));
}

/* Only its first bytes are anyone's from here on. */
static void object_hide(struct header *h, size_t size)
{
	poison((char *)(h + 1) + size, class_size(h->class) - size);
	poison(h, sizeof(*h));
}

static struct header *object_fresh(u32 class)
{
	u64 size = sizeof(struct header) + class_size(class);
	struct header *h;

	if ((u64)(arena.slab_end - arena.slab) < size) {
		char *slab = run_bump(SLAB >> HOST_PAGE_SHIFT, 1);

		if (!slab)
			return NULL;
		memset(arena.kind + page_of(slab), PAGE_SMALL, SLAB >> HOST_PAGE_SHIFT);
		arena.slab = slab;
		arena.slab_end = slab + SLAB;
	}
	h = (struct header *)(void *)arena.slab;
	arena.slab += size;
	unpoison(h, sizeof(*h));
	h->class = class;
	return h;
}

/* The bytes between what was asked for and the end of the object stay as filled. */
static void check_end_of(struct header *h)
{
	const u8 *p = (const u8 *)(h + 1);

	for (u32 i = h->size; i < class_size(h->class); i++)
		if (p[i] != FRESH)
			sched_fail(SCHED_MEMORY, "an object of %u bytes was written at byte %u",
				   h->size, i);
}

static void *small_alloc(size_t size)
{
	u32 class = class_of(size);
	struct header *h = arena.free[class];

	if (!h)
		h = object_fresh(class);
	if (!h)
		return NULL;
	object_show(h);
	if (h == arena.free[class])
		memcpy(&arena.free[class], h + 1, sizeof(void *));
	h->state = ALIVE;
	h->size = (u32)size;
	memset(h + 1, FRESH, class_size(class));
	arena.bytes += class_size(class);
	object_hide(h, size);
	return h + 1;
}

static void object_check(struct header *h)
{
	object_show(h);
	if (h->state != FREED || !is_filled(h + 1, class_size(h->class)))
		fail_written(h + 1, class_size(h->class));
	object_hide(h, 0);
}

static void small_free(void *p)
{
	struct header *h = (struct header *)p - 1, *old;
	u32 slot = arena.n_kept % KEPT_SMALL;

	unpoison(h, sizeof(*h));
	if (h->state != ALIVE)
		sched_fail(SCHED_MEMORY,
			   h->state == FREED ? "freed twice" : "what is freed is no allocation");
	object_show(h);
	check_end_of(h);
	h->state = FREED;
	memset(p, POISON, class_size(h->class));
	arena.bytes -= class_size(h->class);
	object_hide(h, 0);
	if (arena.n_kept++ >= KEPT_SMALL) {
		old = arena.kept[slot];
		object_check(old);
		object_show(old);
		memcpy(old + 1, &arena.free[old->class], sizeof(void *));
		arena.free[old->class] = old;
		object_hide(old, 0);
	}
	arena.kept[slot] = h;
}

void memory_check(void)
{
	u32 n = host_min(arena.n_kept, KEPT_SMALL);

	for (u32 i = 0; i < n; i++)
		object_check(arena.kept[i]);
	for (u32 i = 0; i < arena.n_kept_runs; i++)
		run_check(arena.kept_runs[i], arena.run_pages[page_of(arena.kept_runs[i])]);
}

/* ---- host.h --------------------------------------------------------------------------- */

/* host/posix/rank.c */
void rank_check_alloc(void);

static void *allocate(size_t size, bool pages)
{
	void *p;

	rank_check_alloc();
	sched_point(POINT_ALLOC, &arena);
	if (!sched.active || size > ARENA_SIZE / 2)
		return NULL;
	if (sched_alloc_fails()) {
		shrinkers_memory_failed();
		return NULL;
	}
	p = pages || size > SMALL_MAX ? run_alloc(size) : small_alloc(size);
	if (p)
		sched.live++;
	return p;
}

void *host_alloc(size_t size)
{
	void *p = allocate(size, false);

	if (p && size > SMALL_MAX)
		memset(p, FRESH, host_min(size, (size_t)HOST_PAGE_SIZE));
	return p;
}

void *host_alloc_zeroed(size_t size)
{
	void *p = allocate(size, false);

	if (p && size <= SMALL_MAX)
		memset(p, 0, size);
	return p;
}

void *host_alloc_pages(size_t size)
{
	return allocate(size, true);
}

void host_free(void *p)
{
	if (!p)
		return;
	sched_point(POINT_FREE, &arena);
	if (!host_arena_contains(p))
		sched_fail(SCHED_MEMORY, "what is freed is no allocation");
	sched.live--;
	if (arena.kind[page_of(p)] == PAGE_SMALL)
		small_free(p);
	else
		run_free(p);
}

void host_free_pages(void *p, size_t size)
{
	u64 npages = host_align_up((u64)size, HOST_PAGE_SIZE) >> HOST_PAGE_SHIFT;

	if (p && (arena.kind[page_of(p)] != PAGE_RUN || arena.run_pages[page_of(p)] != npages))
		sched_fail(SCHED_MEMORY, "pages are freed that were not allocated so");
	host_free(p);
}

/* ---- The arena, as homes see it -------------------------------------------------------- */

int host_arena_open(u64 want)
{
	if (arena.open)
		return -EBUSY;
	arena.open = want <= ARENA_SIZE;
	return arena.open ? 0 : -ENOMEM;
}

u64 host_arena_close(void)
{
	arena.open = false;
	return arena.bytes;
}

bool host_arena_contains(const void *p)
{
	return (u64)((uintptr_t)p - (uintptr_t)arena.base) < ARENA_SIZE;
}

u64 host_arena_base(void)
{
	return (u64)(uintptr_t)arena.base;
}

u64 host_arena_size(void)
{
	return ARENA_SIZE;
}

u64 host_arena_used(void)
{
	return arena.bytes;
}

u32 host_arena_compress(const void *p)
{
	return p ? (u32)((u64)((const char *)p - arena.base) / 16) : 0;
}

void *host_arena_expand(u32 compressed)
{
	return compressed ? arena.base + (u64)compressed * 16 : NULL;
}

void *host_posix_stack_alloc(size_t *size)
{
	*size = host_align_up(*size, HOST_PAGE_SIZE);
	return host_alloc_pages(*size);
}

void host_posix_stack_free(void *stack, size_t size)
{
	host_free_pages(stack, size);
}

void host_posix_fail_alloc_at(u64 n)
{
	sched.options.fail_alloc = n ? sched.allocations + n : 0;
}

u64 host_posix_alloc_count(void)
{
	return sched.allocations;
}

u64 host_posix_alloc_live(void)
{
	return sched.live;
}

/* ---- Words -------------------------------------------------------------------------------
 * A copy is a point before, and, where it is long enough that others may see it half
 * done, in the middle.
 */

#define HALVES 64u

static void touch(const void *p, size_t n, bool write)
{
	u64 first;

	if (!sched.active || !n || !host_arena_contains(p))
		return;
	first = page_of(p);
	if (arena.kind[first] == PAGE_KEPT || arena.kind[first] == PAGE_NONE)
		sched_fail(SCHED_MEMORY, "freed memory is %s: %s in %s", write ? "written" : "read",
			   sched_place.what ? sched_place.what : "",
			   sched_place.function ? sched_place.function : "?");
	if (sched_touch)
		sched_touch(p, n, write);
}

void host_memset(void *p, int byte, size_t n)
{
	size_t half = n >= HALVES ? host_align_down(n / 2, 16) : 0;

	sched_point(POINT_COPY, p);
	touch(p, n, true);
	if (half) {
		memset(p, byte, half);
		sched_point(POINT_COPY, p);
		touch(p, n, true);
	}
	memset((char *)p + half, byte, n - half);
}

void host_memcpy(void *dst, const void *src, size_t n)
{
	size_t half = n >= HALVES ? host_align_down(n / 2, 16) : 0;

	sched_point(POINT_COPY, dst);
	touch(src, n, false);
	touch(dst, n, true);
	if (half) {
		memcpy(dst, src, half);
		sched_point(POINT_COPY, dst);
		touch(src, n, false);
		touch(dst, n, true);
	}
	memcpy((char *)dst + half, (const char *)src + half, n - half);
}

void host_memcpy_stream(void *dst, const void *src, size_t n)
{
	host_memcpy(dst, src, n);
}
