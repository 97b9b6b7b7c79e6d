/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Pages objects over system memory: runs, permissions, all or nothing, retries,
 * invalidation between the passes, simple mode, chance, threads. */
#ifndef GPUSVM_NO_PAGEMAP
#define GPUSVM_NO_PAGEMAP /* none is needed here; test_pages_device.c has them */
#endif
#include "mirror_world.h"

static int open_real(void **state)
{
	(void)state;
	world_open(1ull << 29, real_chunks, host_array_size(real_chunks));
	return 0;
}

static int open_tiny(void **state)
{
	(void)state;
	world_open(64 * PAGE, tiny_chunks, host_array_size(tiny_chunks));
	return 0;
}

static int close_it(void **state)
{
	(void)state;
	world_close();
	return 0;
}

/* ---- Objects that were never mapped ------------------------------------- */

static void test_fresh_object(void **state)
{
	struct gpusvm_pages pages;
	int dev;

	(void)state;
	memset(&pages, 0xee, sizeof(pages));
	gpusvm_pages_init(&pages, &dev);
	assert_ptr_equal(pages.dev, &dev); /* known from the start, before any notifier */
	for (unsigned i = 0; i < 2; i++) {
		host_write_lock(&world.mirror.notifier_lock);
		gpusvm_pages_invalidate(&world.mirror, &pages);
		assert_false(gpusvm_pages_valid(&world.mirror, &pages));
		gpusvm_pages_unmap(&world.mirror, &pages, true);
		host_write_unlock(&world.mirror.notifier_lock);
		gpusvm_pages_unmap(&world.mirror, &pages, false);
		gpusvm_pages_free(&world.mirror, &pages);
	}
}

/* ---- Runs --------------------------------------------------------------- */

static void test_huge_is_one(void **state)
{
	struct gpusvm_range *range;
	struct gpusvm_pages *pages;

	(void)state;
	assert_int_equal(model_mmap(world.mm, at(0), at(1024), MODEL_RW | MODEL_THP), 0);
	for (u64 i = 0; i < 512; i++)
		write_page(i, 1000 + i);
	range = range_at(77, &ctx_rw);
	assert_true(gpusvm_range_end(range) - gpusvm_range_start(range) == HOST_HUGE_SIZE);
	assert_int_equal(get_pages(range, &ctx_rw), 0);
	assert_int_equal(range_faults, 1); /* one CPU fault */
	assert_int_equal(dma_maps, 2);	   /* two devices, one run each */
	for (unsigned d = 0; d < DEVICES; d++) {
		pages = &to_world(range)->pages[d];
		check_runs(pages);
		assert_int_equal(pages->n_addrs, 1);
		assert_int_equal(pages->flags, GPUSVM_PAGES_VALID | GPUSVM_PAGES_MAPPED |
						       GPUSVM_PAGES_WRITE | GPUSVM_PAGES_SYSTEM);
		for (u64 i = 0; i < 512; i += 37)
			assert_int_equal(device_read(pages, i), 1000 + i);
	}
	/* Valid: nothing is done. */
	assert_int_equal(get_pages(range, &ctx_rw), 0);
	assert_int_equal(get_pages(range, &ctx_ro), 0);
	assert_int_equal(range_faults, 1);
	gpusvm_range_put(range);
}

/* A window into a 2M page that is not aligned to anything: orders grow and shrink. */
static void test_clipped(void **state)
{
	static const struct { u64 first, last; u32 runs;
	} cases[] = {
		{ 1, 512, 9 }, { 0, 511, 9 },	{ 1, 511, 16 },
		{ 3, 5, 2 },   { 128, 384, 2 }, { 8, 16, 1 },
	};
	struct gpusvm_range *range;

	(void)state;
	assert_int_equal(model_mmap(world.mm, at(0), at(512), MODEL_RW | MODEL_THP), 0);
	for (u64 i = 0; i < 512; i++)
		write_page(i, i);
	range = range_at(0, &ctx_rw);
	for (unsigned k = 0; k < host_array_size(cases); k++) {
		struct gpusvm_pages pages, *list = &pages;

		gpusvm_pages_init(&pages, &pages);
		assert_int_equal(gpusvm_pages_get(&world.mirror, &list, 1, world.mm,
						  &range->notifier->mm, at(cases[k].first),
						  at(cases[k].last), &ctx_rw),
				 0);
		check_runs(&pages);
		assert_int_equal(pages.n_addrs, cases[k].runs);
		for (u64 i = cases[k].first; i < cases[k].last; i++)
			assert_int_equal(device_read(&pages, i), i);
		gpusvm_pages_free(&world.mirror, &pages);
		assert_int_equal(dma_pages, 0);
	}
	gpusvm_range_put(range);
}

static void test_run_order(void **state)
{
	mm_pfn_t pfns[512];
	u64 seed = seed_get();

	(void)state;
	/* Against the plain definition, for each start, length and order. */
	for (unsigned n = 0; n < 20000; n++) {
		u64 start = rnd(&seed, 1024), npages = 1 + rnd(&seed, 512), i = rnd(&seed, npages);
		unsigned order = rnd(&seed, 10), want = order;

		pfns[i] = (mm_pfn_t)order << MM_PFN_ORDER_SHIFT | MM_PFN_VALID;
		while ((start + i) % (1ull << want) || i + (1ull << want) > npages)
			want--;
		assert_int_equal(mirror_run_order(pfns, start * PAGE, i, npages), want);
	}
}

static void test_small_pages(void **state)
{
	struct gpusvm_range *range;

	(void)state;
	draw("wwwwwwww");
	for (u64 i = 0; i < 8; i++)
		write_page(i, 50 + i);
	range = range_at(0, &ctx_rw);
	assert_int_equal(get_pages(range, &ctx_rw), 0);
	for (unsigned d = 0; d < DEVICES; d++) {
		check_runs(&to_world(range)->pages[d]);
		for (u64 i = 0; i < 8; i++)
			assert_int_equal(device_read(&to_world(range)->pages[d], i), 50 + i);
	}
	gpusvm_range_put(range);
}

/* ---- Permissions -------------------------------------------------------- */

static void test_permissions(void **state)
{
	struct gpusvm_ctx wish = ctx_ro;
	struct gpusvm_range *range;
	struct gpusvm_pages *pages;

	(void)state;
	wish.want_write = true;
	draw("rrrrrrrrwwwwwwwwxxxxxxxx");
	range = range_at(0, &ctx_ro);
	pages = &to_world(range)->pages[0];
	assert_int_equal(get_pages(range, &ctx_rw), -EPERM);
	assert_int_equal(dma_pages, 0);
	assert_int_equal(get_pages(range, &wish), 0); /* a wish, not a demand */
	assert_false(pages->flags & GPUSVM_PAGES_WRITE);
	check_runs(pages);
	gpusvm_range_put(range);

	for (u64 i = 8; i < 16; i++)
		write_page(i, i); /* nothing will be invalidated to write there */
	range = range_at(8, &ctx_rw);
	pages = &to_world(range)->pages[0];
	assert_int_equal(get_pages(range, &ctx_ro), 0);
	assert_false(pages->flags & GPUSVM_PAGES_WRITE);
	check_runs(pages);
	/* More is asked than they have: mapped anew, valid all along. */
	assert_int_equal(get_pages(range, &ctx_rw), 0);
	assert_true(pages->flags & GPUSVM_PAGES_WRITE);
	check_runs(pages);
	assert_int_equal(dma_pages, 8 * 2 * DEVICES); /* both ranges of 8 pages */
	take_down(range);
	gpusvm_range_put(range);

	range = range_at(8, &ctx_rw);
	pages = &to_world(range)->pages[0];
	assert_int_equal(get_pages(range, &wish), 0);
	assert_true(pages->flags & GPUSVM_PAGES_WRITE);
	gpusvm_range_put(range);

	assert_int_equal(fault(16, &ctx_ro, &range), -EFAULT); /* no access at all */
}

/* An upgrade that fails leaves what there was, valid. */
static void test_failed_upgrade(void **state)
{
	struct gpusvm_range *range;

	(void)state;
	draw("wwwwwwww");
	for (u64 i = 0; i < 8; i++)
		write_page(i, i);
	range = range_at(0, &ctx_rw);
	assert_int_equal(get_pages(range, &ctx_ro), 0);
	model_fail(world.mm, MODEL_FAIL_DMA_MAP, 9, 1);
	assert_int_equal(get_pages(range, &ctx_rw), -EFAULT);
	for (unsigned d = 0; d < DEVICES; d++) {
		assert_true(is_valid(range, d));
		check_runs(&to_world(range)->pages[d]);
		assert_int_equal(device_read(&to_world(range)->pages[d], 5), 5);
	}
	assert_int_equal(dma_pages, 16);
	gpusvm_range_put(range);
}

static void test_ctx(void **state)
{
	struct gpusvm_ctx no_dma = ctx_rw, devmem_only = ctx_rw;
	struct gpusvm_range *range;
	struct gpusvm_pages *pages, *list[1];
	u64 maps;

	(void)state;
	no_dma.no_dma = true;
	devmem_only.devmem_only = true;
	draw("wwwwwwwwwwwwwwww");
	range = range_at(0, &ctx_rw);
	pages = &to_world(range)->pages[0];
	assert_int_equal(get_pages(range, &devmem_only), -EFAULT);

	maps = dma_maps;
	assert_int_equal(get_pages(range, &no_dma), 0);
	assert_int_equal(dma_maps, maps);
	assert_true(pages->flags & GPUSVM_PAGES_NO_DMA);
	check_runs(pages);
	assert_true(gpusvm_addr_address(pages->addrs[0]) == at(0)); /* the CPU's address */
	assert_int_equal(get_pages(range, &ctx_rw), 0);
	assert_false(pages->flags & GPUSVM_PAGES_NO_DMA);
	assert_int_equal(dma_pages, 16);
	/* Valid system pages do not satisfy it either. */
	assert_int_equal(get_pages(range, &devmem_only), -EFAULT);
	assert_true(is_valid(range, 0));

	list[0] = NULL; /* skipped */
	assert_int_equal(gpusvm_pages_get(&world.mirror, list, 1, world.mm, &range->notifier->mm,
					  at(0), at(8), &ctx_rw),
			 0);
	assert_int_equal(gpusvm_pages_get(&world.mirror, list, 1, world.mm, &range->notifier->mm,
					  at(0), at(0), &ctx_rw),
			 -EINVAL);
	assert_int_equal(gpusvm_pages_get(&world.mirror, list, 1, world.mm, &range->notifier->mm,
					  at(0) + 1, at(1), &ctx_rw),
			 -EINVAL);
	gpusvm_range_put(range);
}

/* ---- All or nothing ----------------------------------------------------- */

/* A map that fails at entry i of device j: no mapping of any is left. */
static void test_map_fails(void **state)
{
	struct gpusvm_range *range;

	(void)state;
	draw("wwwwwwww");
	for (u64 i = 0; i < 8; i++)
		write_page(i, i);
	range = range_at(0, &ctx_rw);
	for (u64 skip = 0; skip < 8 * DEVICES; skip++) {
		model_fail(world.mm, MODEL_FAIL_DMA_MAP, skip, 1);
		assert_int_equal(get_pages(range, &ctx_rw), -EFAULT);
		assert_int_equal(dma_pages, 0);
		for (unsigned d = 0; d < DEVICES; d++) {
			assert_int_equal(to_world(range)->pages[d].flags, 0);
			assert_false(is_valid(range, d));
		}
	}
	model_fail(world.mm, MODEL_FAIL_DMA_MAP, 0, 0);
	assert_int_equal(get_pages(range, &ctx_rw), 0);
	assert_int_equal(dma_pages, 16);
	gpusvm_range_put(range);
}

static void test_allocation_fails(void **state)
{
	struct gpusvm_range *range;
	int err = -ENOMEM;
	u64 n, live;

	(void)state;
	draw("wwwwwwww");
	range = range_at(0, &ctx_rw);
	for (n = 1; err == -ENOMEM; n++) {
		live = host_posix_alloc_live();
		assert_int_equal(model_dontneed(world.mm, at(0), at(8)), 0);
		host_posix_fail_alloc_at(n);
		err = get_pages(range, &ctx_rw);
		host_posix_fail_alloc_at(0);
		if (err) {
			assert_int_equal(err, -ENOMEM);
			assert_int_equal(dma_pages, 0);
		}
		assert_true(host_posix_alloc_live() < live + 32);
	}
	assert_int_equal(err, 0);
	assert_true(n > 4); /* the work area, two arrays, and the model's own */
	gpusvm_range_put(range);
}

/* ---- Invalidations ------------------------------------------------------ */

static struct gpusvm_range *racing;
static unsigned gaps;

static void protect_once(void)
{
	in_the_gap = NULL;
	assert_int_equal(model_mprotect(world.mm, at(3), at(4), MODEL_RW), 0);
}

static void protect_always(void)
{
	gaps++;
	assert_int_equal(model_mprotect(world.mm, at(3), at(4), MODEL_RW), 0);
}

static void unmap_once(void)
{
	in_the_gap = NULL;
	assert_int_equal(model_munmap(world.mm, at(3), at(4)), 0);
}

/* Marked with nothing changed for the sequence: the flag itself is looked at. */
static void mark_once(void)
{
	struct world_range *wr = to_world(racing);
	struct mm_invalidation all = { .start = at(0), .end = at(8) };

	in_the_gap = NULL;
	host_write_lock(&world.mirror.notifier_lock);
	gpusvm_range_set_unmapped(racing, &wr->all[1], 1, &all);
	host_write_unlock(&world.mirror.notifier_lock);
}

static void test_races(void **state)
{
	struct gpusvm_ctx hasty = { .budget = 3 * HOST_MSEC };
	u64 before;

	(void)state;
	draw("wwwwwwww");
	racing = range_at(0, &ctx_rw);
	/* A change between the look and the lock is noticed. */
	assert_int_equal(get_pages(racing, &ctx_rw), 0);
	assert_int_equal(model_dontneed(world.mm, at(0), at(1)), 0);
	before = range_faults;
	in_the_gap = protect_once;
	assert_int_equal(get_pages(racing, &ctx_rw), 0);
	assert_true(range_faults >= before + 2);
	assert_true(is_valid(racing, 0) && is_valid(racing, 1));
	/* One after another: the budget ends it. */
	assert_int_equal(model_dontneed(world.mm, at(0), at(1)), 0);
	in_the_gap = protect_always;
	gaps = 0;
	assert_int_equal(get_pages(racing, &hasty), -EBUSY);
	assert_true(gaps > 3);
	in_the_gap = NULL;
	assert_int_equal(dma_pages, 0);
	model_fail(world.mm, MODEL_FAIL_RANGE_BUSY, 0, ~(u64)0);
	assert_int_equal(get_pages(racing, &hasty), -EBUSY);
	model_fail(world.mm, MODEL_FAIL_RANGE_BUSY, 0, 2);
	assert_int_equal(get_pages(racing, &hasty), 0);
	/* The mark of one device's object stops all. */
	assert_int_equal(model_dontneed(world.mm, at(0), at(1)), 0);
	in_the_gap = mark_once;
	assert_int_equal(get_pages(racing, &ctx_rw), -EFAULT);
	assert_int_equal(dma_pages, 0);
	gpusvm_range_put(racing);
}

/* A part is unmapped: the objects are lost for ever, the range waits for the
 * collector; what is left is served by a new one. */
static void test_unmapped(void **state)
{
	struct gpusvm_range *range;
	u64 faults;

	(void)state;
	draw("wwwwwwww");
	range = range_at(0, &ctx_rw);
	in_the_gap = unmap_once;
	assert_int_equal(get_pages(range, &ctx_rw), -EFAULT);
	assert_int_equal(range->flags, GPUSVM_RANGE_UNMAPPED | GPUSVM_RANGE_PARTIAL_UNMAP);
	draw("wwwwwwww"); /* what is mapped there now is another matter */
	faults = range_faults;
	assert_int_equal(get_pages(range, &ctx_rw), -EFAULT);
	assert_int_equal(range_faults, faults); /* known at once */
	assert_false(is_valid(range, 0));
	assert_int_equal(dma_pages, 0);
	collect();
	assert_int_equal(get_pages(range, &ctx_rw), -ENOENT);
	gpusvm_range_put(range);
	range = range_at(3, &ctx_rw);
	assert_int_equal(get_pages(range, &ctx_rw), 0);
	gpusvm_range_put(range);
}

/* A mapped object's range is removed by the rules: then a munmap finds no page
 * mapped (the model would tell), and the object cannot come back. */
static void test_removed(void **state)
{
	struct gpusvm_range *range;

	(void)state;
	draw("wwwwwwww");
	range = range_at(0, &ctx_rw);
	assert_int_equal(get_pages(range, &ctx_rw), 0);
	take_down(range);
	assert_int_equal(dma_pages, 0);
	assert_false(is_valid(range, 0));
	assert_int_equal(get_pages(range, &ctx_rw), -ENOENT);
	draw("........");
	assert_null(model_check(world.mm, true));
	gpusvm_range_put(range);
}

static void test_mm_gone(void **state)
{
	struct gpusvm_range *range;

	(void)state;
	draw("wwwwwwww");
	range = range_at(0, &ctx_rw);
	assert_int_equal(get_pages(range, &ctx_rw), 0);
	model_mm_exit(world.mm);
	assert_int_equal(dma_pages, 0); /* heard */
	assert_int_equal(get_pages(range, &ctx_rw), -EFAULT);
	assert_int_equal(gpusvm_range_evict(range, HOST_MSEC), -EFAULT);
	assert_int_equal(gpusvm_range_scan(range, NULL), -EFAULT);
	gpusvm_range_put(range);
}

/* ---- Scan and evict without devices ------------------------------------- */

/* The lock is free again: no path unlocks what it did not lock, or keeps it. */
static void check_lock_free(void)
{
	assert_true(host_write_trylock(&world.mirror.notifier_lock));
	host_write_unlock(&world.mirror.notifier_lock);
}

static void test_scan_system(void **state)
{
	struct gpusvm_range *range;

	(void)state;
	draw("wwwwwwww");
	range = range_at(0, &ctx_rw);
	for (u64 i = 0; i < 8; i++) {
		assert_int_equal(gpusvm_range_scan(range, NULL), GPUSVM_SCAN_UNPOPULATED);
		write_page(i, i);
	}
	assert_int_equal(gpusvm_range_scan(range, NULL), GPUSVM_SCAN_SYSTEM);
	model_fail(world.mm, MODEL_FAIL_RANGE_FAULT, 0, 1);
	assert_int_equal(gpusvm_range_scan(range, NULL), -ENOMEM);
	check_lock_free();
	model_fail(world.mm, MODEL_FAIL_RANGE_BUSY, 0, 3);
	assert_int_equal(gpusvm_range_scan(range, NULL), GPUSVM_SCAN_SYSTEM);
	in_the_gap = protect_once;
	assert_int_equal(gpusvm_range_scan(range, NULL), GPUSVM_SCAN_SYSTEM);
	check_lock_free();
	host_posix_fail_alloc_at(1);
	assert_int_equal(gpusvm_range_scan(range, NULL), -ENOMEM);
	host_posix_fail_alloc_at(1);
	assert_int_equal(gpusvm_range_evict(range, 0), -ENOMEM);
	model_fail(world.mm, MODEL_FAIL_RANGE_FAULT, 0, 1);
	assert_int_equal(gpusvm_range_evict(range, 0), -ENOMEM);
	model_fail(world.mm, MODEL_FAIL_RANGE_BUSY, 0, ~(u64)0);
	assert_int_equal(gpusvm_range_evict(range, 2 * HOST_MSEC), -EBUSY);
	model_fail(world.mm, MODEL_FAIL_RANGE_BUSY, 0, 0);
	assert_int_equal(gpusvm_range_evict(range, 0), 0);
	gpusvm_range_put(range);
}

/* Nothing is populated by eviction. */
static void test_evict_empty(void **state)
{
	struct gpusvm_range *range;
	u64 frames = model_frames_live();

	(void)state;
	draw("wwwwwwww");
	range = range_at(0, &ctx_rw);
	assert_int_equal(gpusvm_range_evict(range, 0), 0);
	assert_int_equal(model_frames_live(), frames);
	assert_int_equal(gpusvm_range_scan(range, NULL), GPUSVM_SCAN_UNPOPULATED);
	gpusvm_range_put(range);
}

/* ---- Simple mode -------------------------------------------------------- */

static struct gpusvm_mirror simple;
static struct gpusvm_pages simple_pages;

static int simple_start(struct mm_notifier *n, const struct mm_invalidation *inv, u64 seq)
{
	host_write_lock(&simple.notifier_lock);
	mm_notifier_set_seq(n, seq);
	gpusvm_pages_invalidate(&simple, &simple_pages);
	host_write_unlock(&simple.notifier_lock);
	(void)inv;
	return 0;
}

static void simple_finish(struct mm_notifier *n, const struct mm_invalidation *inv)
{
	(void)n;
	(void)inv;
	host_write_lock(&simple.notifier_lock);
	gpusvm_pages_unmap(&simple, &simple_pages, true);
	host_write_unlock(&simple.notifier_lock);
}

static void test_simple_mode(void **state)
{
	static const struct mm_notifier_ops ops = { simple_start, simple_finish };
	struct gpusvm_pages *list = &simple_pages;
	struct mm_notifier notifier = { 0 };
	struct gpusvm_range *range;

	(void)state;
	draw("wwwwwwwwwwww");
	for (u64 i = 0; i < 12; i++)
		write_page(i, 7 * i);
	assert_int_equal(gpusvm_mirror_init(&simple, "userptr", NULL, 0, 0, 0, NULL, NULL, 0), 0);
	assert_int_equal(gpusvm_range_find_or_insert(&simple, at(0), 0, ~(u64)0, &ctx_rw, &range),
			 -EINVAL);
	gpusvm_pages_init(&simple_pages, &simple);
	assert_int_equal(mm_notifier_insert(&notifier, world.mm, at(2), at(11), &ops), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(gpusvm_pages_get(&simple, &list, 1, world.mm, &notifier, at(2),
						  at(11), &ctx_rw),
				 0);
		gpusvm_notifier_lock(&simple);
		assert_true(gpusvm_pages_valid(&simple, &simple_pages));
		gpusvm_notifier_unlock(&simple);
		check_runs(&simple_pages);
		assert_int_equal(device_read(&simple_pages, 10), 70);
		assert_int_equal(model_dontneed(world.mm, at(11), at(12)), 0); /* not ours */
		assert_true(simple_pages.flags & GPUSVM_PAGES_VALID);
		assert_int_equal(model_mprotect(world.mm, at(5), at(6), MODEL_RW), 0);
		assert_int_equal(dma_pages, 0);
	}
	gpusvm_pages_free(&simple, &simple_pages);
	mm_notifier_remove(&notifier);
	gpusvm_mirror_verify(&simple);
	gpusvm_mirror_fini(&simple);
}

/* ---- Chance against a naive array of pages ------------------------------ */

#define PAGES 64u

static struct {
	bool mapped;
	u64 value; /* the first word */
} naive[PAGES];

/* What each device sees is what the array says, wherever it is mapped. */
static void check_views(void)
{
	struct gpusvm_range *range;
	s64 expected = 0;

	gpusvm_mirror_lock(&world.mirror);
	gpusvm_for_each_range (range, &world.mirror, at(0), at(PAGES)) {
		for (unsigned d = 0; d < DEVICES; d++) {
			struct gpusvm_pages *pages = &to_world(range)->pages[d];

			if (!(pages->flags & GPUSVM_PAGES_VALID)) {
				assert_false(pages->flags & GPUSVM_PAGES_MAPPED);
				continue;
			}
			check_runs(pages);
			for (u64 a = pages->start; a < pages->end; a += PAGE) {
				u64 i = (a - BASE) / PAGE;

				assert_true(naive[i].mapped);
				assert_int_equal(device_read(pages, i), naive[i].value);
			}
			expected += (pages->end - pages->start) / PAGE;
		}
	}
	gpusvm_mirror_unlock(&world.mirror);
	assert_int_equal(dma_pages, expected);
}

static void random_step(u64 *seed)
{
	u64 first = rnd(seed, PAGES), last = first + 1 + rnd(seed, host_min(PAGES - first, 9));
	struct gpusvm_range *range;
	int err;

	switch (rnd(seed, 12)) {
	case 0:
	case 1:
		if (rnd(seed, 2))
			assert_int_equal(model_munmap(world.mm, at(first), at(last)), 0);
		else
			assert_int_equal(model_mmap(world.mm, at(first), at(last), MODEL_RW), 0);
		for (u64 i = first; i < last; i++) {
			struct mm_vma vma;

			naive[i].mapped = !mm_vma_find(world.mm, at(i), at(i + 1), &vma);
			naive[i].value = 0;
		}
		break;
	case 2:
		assert_int_equal(model_dontneed(world.mm, at(first), at(last)), 0);
		for (u64 i = first; i < last; i++)
			naive[i].value = 0;
		break;
	case 3:
		assert_int_equal(model_mprotect(world.mm, at(first), at(last), MODEL_RW), 0);
		break;
	case 4:
	case 5:
	case 6:
		if (!naive[first].mapped)
			break;
		naive[first].value = rnd(seed, ~(u64)0 >> 12);
		write_page(first, naive[first].value);
		break;
	case 7:
		collect();
		break;
	default:
		err = fault(first, &ctx_rw, &range);
		assert_int_equal(err, naive[first].mapped ? 0 : -ENOENT);
		if (err)
			break;
		err = get_pages(range, &ctx_rw);
		assert_int_equal(err, range->flags & GPUSVM_RANGE_UNMAPPED ? -EFAULT : 0);
		gpusvm_range_put(range);
	}
}

static void test_random(void **state)
{
	u64 seed = seed_get();

	(void)state;
	memset(naive, 0, sizeof(naive));
	for (unsigned i = 0; i < 3000; i++) {
		random_step(&seed);
		check_views();
	}
}

/* ---- Threads ------------------------------------------------------------ */

static void change(void *arg)
{
	u64 seed = (u64)(uintptr_t)arg * 99991 + 7;

	while (host_now() < stop_at) {
		u64 first = rnd(&seed, 40), last = first + 1 + rnd(&seed, 40 - first);
		int err;

		if (rnd(&seed, 2)) { /* contents stay */
			err = model_mprotect(world.mm, at(first), at(last),
					     rnd(&seed, 2) ? MODEL_RW : MODEL_READ);
		} else if (first < STEADY) {
			err = model_mprotect(world.mm, at(0), at(STEADY), MODEL_RW);
		} else if (rnd(&seed, 3) == 0) {
			err = model_reap(world.mm, at(first), at(last));
		} else if (rnd(&seed, 2)) {
			err = model_munmap(world.mm, at(first), at(last));
		} else {
			err = model_mmap(world.mm, at(first), at(last), MODEL_RW);
		}
		HOST_CHECK(!err || err == -EAGAIN);
		host_sleep(50 * HOST_USEC);
	}
}

static void test_threads(void **state)
{
	(void)state;
	run_threads(&ctx_rw, change);
}

static int reset(void **state)
{
	range_faults = 0;
	dma_maps = 0;
	return open_real(state);
}

#define REAL(test) cmocka_unit_test_setup_teardown(test, reset, close_it)
#define TINY(test) cmocka_unit_test_setup_teardown(test, open_tiny, close_it)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TINY(test_fresh_object),
		REAL(test_huge_is_one),
		REAL(test_clipped),
		TINY(test_run_order),
		TINY(test_small_pages),
		TINY(test_permissions),
		TINY(test_ctx),
		TINY(test_failed_upgrade),
		TINY(test_map_fails),
		TINY(test_races),
		TINY(test_allocation_fails),
		TINY(test_unmapped),
		TINY(test_removed),
		TINY(test_mm_gone),
		TINY(test_scan_system),
		TINY(test_evict_empty),
		TINY(test_simple_mode),
		TINY(test_random),
		TINY(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
