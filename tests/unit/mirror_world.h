/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * mirror_world.h: what the tests of the mirror share. A world is an address
 * space of the model home with a mirror over it, and the least driver that keeps
 * the mirror's rules: ranges with a pages object for each of two devices, both
 * passes of an invalidation, a garbage collector. The mirror's sources are
 * included here; what they ask of mm passes through counters and hooks.
 */
#ifndef TESTS_MIRROR_WORLD_H
#define TESTS_MIRROR_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "host/posix/posix.h"
#include "host/model/model.h"
#include <gpusvm/mirror.h>

/* ---- What the mirror asks of mm ----------------------------------------- */

static s64 dma_pages;	 /* mapped and not unmapped; atomic */
static u64 range_faults; /* calls; atomic */
static u64 dma_maps;	 /* the same */
/* Run after each mm_range_fault or mm_vma_find until it is NULL: in the gap before
 * the mirror takes its lock. */
static void (*in_the_gap)(void);

static inline mm_dma_t counted_dma_map(struct mm *mm, void *dev, mm_pfn_t pfn, unsigned order,
				       bool write)
{
	mm_dma_t addr = mm_dma_map(mm, dev, pfn, order, write);

	host_add_return(&dma_maps, 1);
	if (addr != MM_DMA_ERROR)
		host_add_return(&dma_pages, (s64)1 << order);
	return addr;
}

static inline void counted_dma_unmap(struct mm *mm, void *dev, mm_dma_t addr, unsigned order,
				     bool write)
{
	HOST_CHECK(host_add_return(&dma_pages, -((s64)1 << order)) >= 0);
	mm_dma_unmap(mm, dev, addr, order, write);
}

/* A page that cannot be faulted in, though a look shows it; 0: none. */
static u64 unreadable;

static inline int counted_range_fault(struct mm_range_fault *rf)
{
	bool refused = rf->flags & MM_FAULT_IN && unreadable >= rf->start && unreadable < rf->end;
	int err = refused ? -EFAULT : mm_range_fault(rf);

	host_add_return(&range_faults, 1);
	if (in_the_gap)
		in_the_gap();
	return err;
}

static inline int gapped_vma_find(struct mm *mm, u64 start, u64 end, struct mm_vma *ret)
{
	int err = mm_vma_find(mm, start, end, ret);

	if (in_the_gap)
		in_the_gap();
	return err;
}

#define mm_dma_map(...) counted_dma_map(__VA_ARGS__)
#define mm_dma_unmap(...) counted_dma_unmap(__VA_ARGS__)
#define mm_range_fault(rf) counted_range_fault(rf) /* the struct keeps its name */
#define mm_vma_find(...) gapped_vma_find(__VA_ARGS__)
#include "core/mirror/mirror.c"
#include "core/mirror/notifier.c"
#include "core/mirror/pages.c"
#include "core/mirror/range.c"
#undef mm_dma_map
#undef mm_dma_unmap
#undef mm_range_fault
#undef mm_vma_find

/* ---- The world ---------------------------------------------------------- */

#define BASE 0x40000000ull
#define PAGE HOST_PAGE_SIZE
#define DEVICES 2u

struct world_range {
	struct gpusvm_range range;
	struct host_mutex lock; /* get, commit and removal exclude each other */
	struct gpusvm_pages pages[DEVICES];
	struct gpusvm_pages *all[DEVICES];
};

static struct world {
	struct mm *mm;
	struct gpusvm_mirror mirror;
	u64 live, warnings;
	u64 starts, finishes; /* callbacks; atomic */
	u64 freed;	      /* ranges; atomic */
} world;

static const u64 tiny_chunks[] = { 8 * PAGE, 4 * PAGE, 2 * PAGE, PAGE };
static const u64 real_chunks[] = { HOST_HUGE_SIZE, 16 * PAGE, PAGE };

static inline struct world_range *to_world(struct gpusvm_range *range)
{
	return host_container_of(range, struct world_range, range);
}

static inline struct gpusvm_range *world_range_alloc(struct gpusvm_mirror *mirror)
{
	struct world_range *wr = host_alloc(sizeof(*wr));

	(void)mirror;
	if (!wr)
		return NULL;
	memset(wr, 0xee, sizeof(*wr)); /* the mirror must set what it relies on */
	host_mutex_init(&wr->lock, RANK_DRIVER_RANGE);
	for (unsigned i = 0; i < DEVICES; i++) {
		wr->all[i] = &wr->pages[i];
		gpusvm_pages_init(&wr->pages[i], &wr->pages[i]);
	}
	return &wr->range;
}

static inline void world_range_free(struct gpusvm_range *range)
{
	struct world_range *wr = to_world(range);

	for (unsigned i = 0; i < DEVICES; i++)
		gpusvm_pages_free(range->mirror, &wr->pages[i]);
	host_mutex_destroy(&wr->lock);
	host_add_return(&world.freed, 1);
	host_free(wr);
}

static inline void world_start(struct gpusvm_mirror *mirror, struct gpusvm_notifier *notifier,
			const struct mm_invalidation *inv)
{
	struct gpusvm_range *range;

	HOST_CHECK(notifier->mirror == mirror);
	HOST_CHECK(inv->start >= notifier->interval.start && inv->end <= notifier->interval.end);
	host_add_return(&world.starts, 1);
	gpusvm_for_each_range (range, mirror, inv->start, inv->end) {
		struct world_range *wr = to_world(range);

		for (unsigned i = 0; i < DEVICES; i++)
			gpusvm_pages_invalidate(mirror, &wr->pages[i]);
		if (mm_event_unmaps(inv->event) || inv->event == MM_EVENT_RELEASE)
			gpusvm_range_set_unmapped(range, wr->all, DEVICES, inv);
	}
}

/* Nothing that the first pass invalidated may have become valid in between. */
static inline void world_finish(struct gpusvm_mirror *mirror, struct gpusvm_notifier *notifier,
			 const struct mm_invalidation *inv)
{
	struct gpusvm_range *range;

	(void)notifier;
	host_add_return(&world.finishes, 1);
	host_write_lock(&mirror->notifier_lock);
	gpusvm_for_each_range (range, mirror, inv->start, inv->end) {
		struct world_range *wr = to_world(range);

		for (unsigned i = 0; i < DEVICES; i++) {
			HOST_CHECK(!gpusvm_pages_valid(mirror, &wr->pages[i]));
			gpusvm_pages_unmap(mirror, &wr->pages[i], true);
		}
	}
	host_write_unlock(&mirror->notifier_lock);
}

static const struct gpusvm_mirror_ops world_ops = {
	.range_alloc = world_range_alloc,
	.range_free = world_range_free,
	.invalidate_start = world_start,
	.invalidate_finish = world_finish,
};

static inline void world_open(u64 notifier_size, const u64 *chunks, unsigned n)
{
	world = (struct world){ .live = host_posix_alloc_live(),
				.warnings = host_posix_warnings() };
	assert_int_equal(host_load_seq(&dma_pages), 0);
	in_the_gap = NULL;
	world.mm = model_mm_create();
	assert_non_null(world.mm);
	assert_int_equal(gpusvm_mirror_init(&world.mirror, "test", world.mm, PAGE, 1ull << 47,
					    notifier_size, &world_ops, chunks, n),
			 0);
}

/* Everything given back, nothing wrong in anyone's eyes. */
static inline void world_close(void)
{
	const char *wrong;

	gpusvm_mirror_verify(&world.mirror);
	gpusvm_mirror_fini(&world.mirror);
	assert_int_equal(host_load_seq(&dma_pages), 0);
	wrong = model_check(world.mm, true);
	if (wrong)
		fail_msg("the model says: %s", wrong);
	model_mm_destroy(world.mm);
	assert_int_equal(model_frames_live(), 0);
	assert_int_equal(host_posix_alloc_live(), world.live);
	assert_int_equal(host_posix_warnings(), world.warnings);
}

static inline u64 at(u64 page)
{
	return BASE + page * PAGE;
}

static const struct gpusvm_ctx ctx_rw = { .budget = 200 * HOST_MSEC };
static const struct gpusvm_ctx ctx_ro = { .read_only = true, .budget = 200 * HOST_MSEC };

static inline int fault(u64 page, const struct gpusvm_ctx *ctx, struct gpusvm_range **ret)
{
	return gpusvm_range_find_or_insert(&world.mirror, at(page) + 123, 0, ~(u64)0, ctx, ret);
}

/* Maps what is drawn from page 0 on, one letter a page: w writable, r read-only,
 * s shared, f a file, x no access, T writable with 2M pages, . nothing. */
static inline void draw(const char *space)
{
	u64 n = strlen(space), last;

	for (u64 first = 0; first < n; first = last) {
		u32 flags = MODEL_RW;

		for (last = first; last < n && space[last] == space[first]; last++)
			;
		switch (space[first]) {
		case 'r':
			flags = MODEL_READ;
			break;
		case 's':
			flags |= MODEL_SHARED;
			break;
		case 'f':
			flags |= MODEL_FILE;
			break;
		case 'x':
			flags = 0;
			break;
		case 'T':
			flags |= MODEL_THP;
			break;
		case '.':
			assert_int_equal(model_munmap(world.mm, at(first), at(last)), 0);
			continue;
		}
		assert_int_equal(model_mmap(world.mm, at(first), at(last), flags), 0);
	}
}

/* The ranges over the first pages, one letter each, a new one for each range; a
 * capital for one marked unmapped. */
static inline void expect_ranges(const char *drawn)
{
	u64 n = strlen(drawn);
	char seen[128], letter = 'a';
	struct gpusvm_range *range;

	assert_true(n < sizeof(seen));
	memset(seen, '-', n);
	seen[n] = 0;
	gpusvm_mirror_lock(&world.mirror);
	gpusvm_for_each_range (range, &world.mirror, at(0), at(n)) {
		u32 flags = host_read_once(&range->flags);
		u64 first = (gpusvm_range_start(range) - BASE) / PAGE;
		u64 last = (gpusvm_range_end(range) - BASE) / PAGE;

		for (u64 i = first; i < host_min(last, n); i++)
			seen[i] = letter - (flags & GPUSVM_RANGE_UNMAPPED ? 'a' - 'A' : 0);
		letter++;
	}
	gpusvm_mirror_unlock(&world.mirror);
	assert_string_equal(seen, drawn);
	gpusvm_mirror_verify(&world.mirror);
}

/* Takes a range down by the rules. The caller holds a reference. */
static inline void take_down(struct gpusvm_range *range)
{
	struct world_range *wr = to_world(range);
	struct mm_invalidation all = { .start = gpusvm_range_start(range),
				       .end = gpusvm_range_end(range) };

	host_mutex_lock(&wr->lock);
	host_write_lock(&world.mirror.notifier_lock);
	gpusvm_range_set_unmapped(range, wr->all, DEVICES, &all);
	for (unsigned i = 0; i < DEVICES; i++)
		gpusvm_pages_unmap(&world.mirror, &wr->pages[i], true);
	host_write_unlock(&world.mirror.notifier_lock);
	gpusvm_range_remove(range);
	host_mutex_unlock(&wr->lock);
}

static inline struct gpusvm_range *get_unmapped(void)
{
	struct gpusvm_range *range;

	gpusvm_mirror_lock(&world.mirror);
	gpusvm_for_each_range (range, &world.mirror, 0, ~(u64)0)
		if (host_read_once(&range->flags) & GPUSVM_RANGE_UNMAPPED) {
			gpusvm_range_get(range);
			break;
		}
	gpusvm_mirror_unlock(&world.mirror);
	return range;
}

/* The garbage collector. */
static inline void collect(void)
{
	struct gpusvm_range *range;

	while ((range = get_unmapped())) {
		take_down(range);
		gpusvm_range_put(range);
	}
}

/* pages_get for the range's devices, by its rules. -ENOENT: it left the tree. */
static inline int get_pages(struct gpusvm_range *range, const struct gpusvm_ctx *ctx)
{
	struct world_range *wr = to_world(range);
	int err = -ENOENT;

	host_mutex_lock(&wr->lock);
	if (!(host_read_once(&range->flags) & GPUSVM_RANGE_REMOVED))
		err = gpusvm_pages_get(&world.mirror, wr->all, DEVICES, world.mm,
				       &range->notifier->mm, gpusvm_range_start(range),
				       gpusvm_range_end(range), ctx);
	host_mutex_unlock(&wr->lock);
	return err;
}

static inline bool is_valid(struct gpusvm_range *range, unsigned device)
{
	bool valid;

	gpusvm_notifier_lock(&world.mirror);
	valid = gpusvm_pages_valid(&world.mirror, &to_world(range)->pages[device]);
	gpusvm_notifier_unlock(&world.mirror);
	return valid;
}

/* ---- What devices see --------------------------------------------------- */

/* A device's own memory, by its address; for tests that have such. */
static u64 *(*local_word)(u64 address);

static inline void write_page(u64 page, u64 value)
{
	assert_int_equal(model_cpu_write(world.mm, at(page), &value, sizeof(value)), 0);
}

struct bus_read {
	mm_dma_t addr;
	u64 value;
};
static inline void bus_read(void *arg)
{
	struct bus_read *b = arg;
	u64 *p = mm_bus_begin(b->addr, sizeof(*p), false);

	HOST_CHECK(p);
	b->value = *p;
	mm_bus_end();
}

/* What a device sees at the first word of a page. */
static inline u64 device_read(const struct gpusvm_pages *pages, u64 page)
{
	u64 first = (pages->start - BASE) / PAGE, where;

	for (u32 i = 0; i < pages->n_addrs; i++) {
		u64 n = 1ull << gpusvm_addr_order(pages->addrs[i]);

		if (page < first + n) {
			struct bus_read b;

			b.addr = gpusvm_addr_address(pages->addrs[i]) + (page - first) * PAGE;
			if (gpusvm_addr_proto(pages->addrs[i]) == GPUSVM_PROTO_LOCAL)
				return *local_word(b.addr);
			assert_int_equal(mm_bus_guard(bus_read, &b, &where), 0);
			return b.value;
		}
		first += n;
	}
	fail_msg("page %llu is not mapped", (unsigned long long)page);
	return 0;
}

/* The runs cover the interval, aligned, one after the other. */
static inline void check_runs(const struct gpusvm_pages *pages)
{
	u64 at = pages->start;

	for (u32 i = 0; i < pages->n_addrs; i++) {
		u64 size = PAGE << gpusvm_addr_order(pages->addrs[i]);

		assert_true(host_is_aligned(at, size));
		assert_int_equal(gpusvm_addr_write(pages->addrs[i]),
				 !!(pages->flags & GPUSVM_PAGES_WRITE));
		at += size;
	}
	assert_true(at == pages->end);
	assert_true(pages->n_addrs <= pages->max_addrs);
}

static inline struct gpusvm_range *range_at(u64 page, const struct gpusvm_ctx *ctx)
{
	struct gpusvm_range *range;

	assert_int_equal(fault(page, ctx, &range), 0);
	return range;
}

/* ---- Chance ------------------------------------------------------------- */

/* TEST_SEED repeats a run that failed. */
static inline u64 seed_get(void)
{
	const char *text = getenv("TEST_SEED");
	u64 seed = text ? strtoull(text, NULL, 0) : 20250707;

	print_message("TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed * 2654435761u + 1;
}

static inline u64 rnd(u64 *state, u64 below)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 11) % below;
}

/* ---- Threads ------------------------------------------------------------ */

#define STEADY 16u /* pages that keep their contents */
static u64 stop_at;
static u64 tally[STEADY];
static const struct gpusvm_ctx *thread_ctx;

struct bus_add {
	mm_dma_t addr;
};
static inline void bus_add(void *arg)
{
	struct bus_add *b = arg;
	u64 *p = mm_bus_begin(b->addr, sizeof(*p), true);

	HOST_CHECK(p);
	host_add_return(p, 1);
	mm_bus_end();
}

/* A device's write at a moment when its mapping is valid, as a lane does it. */
static inline void commit(struct gpusvm_range *range, unsigned device, u64 page)
{
	struct gpusvm_pages *pages = &to_world(range)->pages[device];
	u64 first = (pages->start - BASE) / PAGE, where;
	struct bus_add add;

	for (u32 i = 0; i < pages->n_addrs; i++) {
		u64 n = 1ull << gpusvm_addr_order(pages->addrs[i]);

		if (page >= first && page < first + n) {
			add.addr =
				gpusvm_addr_address(pages->addrs[i]) + (page - first) * PAGE + 64;
			if (gpusvm_addr_proto(pages->addrs[i]) == GPUSVM_PROTO_LOCAL)
				host_add_return(local_word(add.addr), 1);
			else
				HOST_CHECK(mm_bus_guard(bus_add, &add, &where) == 0);
			if (page < STEADY)
				host_add_return(&tally[page], 1);
			return;
		}
		first += n;
	}
	HOST_CHECK(false);
}

static inline void device_thread(void *arg)
{
	u64 seed = (u64)(uintptr_t)arg * 77777 + 5;
	unsigned device = (uintptr_t)arg % DEVICES;
	struct gpusvm_range *range;

	while (host_now() < stop_at) {
		u64 page = rnd(&seed, 40);
		int err = fault(page, thread_ctx, &range);

		HOST_CHECK(!err || err == -ENOENT || err == -EBUSY || err == -EPERM);
		if (err)
			continue;
		err = get_pages(range, thread_ctx);
		HOST_CHECK(!err || err == -ENOENT || err == -EBUSY || err == -EPERM ||
			   err == -EFAULT);
		host_mutex_lock(&to_world(range)->lock);
		gpusvm_notifier_lock(&world.mirror);
		if (gpusvm_pages_valid(&world.mirror, &to_world(range)->pages[device]))
			commit(range, device, page);
		gpusvm_notifier_unlock(&world.mirror);
		host_mutex_unlock(&to_world(range)->lock);
		if (rnd(&seed, 20) == 0)
			take_down(range);
		(void)(host_read_once(&range->flags) & GPUSVM_RANGE_REMOVED); /* by anyone */
		gpusvm_range_put(range);
		if (rnd(&seed, 8) == 0)
			collect();
	}
}

/* Three device threads and one that changes the address space, until stop_at. No
 * write of a device is lost, whatever happened to its mappings. */
static inline void run_threads(const struct gpusvm_ctx *ctx, void (*change)(void *))
{
	struct host_thread threads[4];
	u64 seen, sum = 0;

	thread_ctx = ctx;
	draw("wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww");
	memset(tally, 0, sizeof(tally));
	stop_at = host_now() + 3 * HOST_SEC / 2;
	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(host_thread_start(&threads[i], "device",
						   i < 3 ? device_thread : change, (void *)i),
				 0);
	for (unsigned i = 0; i < 4; i++)
		host_thread_join(&threads[i]);
	for (u64 i = 0; i < STEADY; i++) {
		assert_int_equal(model_cpu_read(world.mm, at(i) + 64, &seen, sizeof(seen)), 0);
		assert_int_equal(seen, tally[i]);
		sum += seen;
	}
	assert_true(sum > 10);
}

#endif
