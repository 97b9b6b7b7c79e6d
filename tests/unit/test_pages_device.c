/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Pages objects over device memory: mixed runs in any order, several pagemaps,
 * what of them is held, all or nothing, scan and eviction, chance, threads with
 * migrations. The pagemaps here are the least that the mirror may know: counted,
 * with a device_map; memory moves by bare mm_migrate transactions.
 */
#include "mirror_world.h"
#include <gpusvm/pagemap.h>

#define GPUS 12u
#define FRAMES 512u

static struct gpu {
	struct gpusvm_pagemap pagemap;
	u8 *bytes;
	struct host_mutex lock; /* used */
	u8 used[FRAMES];
	s64 mapped;	/* device_map without device_unmap; atomic */
	u64 deny;	/* the n-th device_map from now says no; 0: none */
} gpus[GPUS];

static struct gpu *to_gpu(struct gpusvm_pagemap *pagemap)
{
	return host_container_of(pagemap, struct gpu, pagemap);
}

/* ---- The pagemap -------------------------------------------------------- */

struct gpusvm_pagemap *gpusvm_page_pagemap(const struct mm_page *page)
{
	return mm_region_priv(mm_page_region(page));
}

struct gpusvm_pagemap *gpusvm_pagemap_get(struct gpusvm_pagemap *pagemap)
{
	host_ref_get(&pagemap->ref);
	return pagemap;
}

void gpusvm_pagemap_put(struct gpusvm_pagemap *pagemap)
{
	HOST_CHECK(!host_ref_put(&pagemap->ref)); /* the test has one */
}

static struct gpusvm_addr gpu_map(struct gpusvm_pagemap *pagemap, void *dev, struct mm_page *page,
				  unsigned order, bool write)
{
	struct gpu *gpu = to_gpu(pagemap);

	(void)dev;
	HOST_CHECK(host_rwlock_held(&world.mirror.notifier_lock));
	HOST_CHECK(gpusvm_page_pagemap(page) == pagemap);
	if (gpu->deny && --gpu->deny == 0)
		return gpusvm_addr_encode(0, GPUSVM_PROTO_NONE, 0, false);
	host_add_return(&gpu->mapped, (s64)1 << order);
	return gpusvm_addr_encode((u64)(gpu - gpus) << 40 | mm_page_index(page) * PAGE,
				  GPUSVM_PROTO_LOCAL, order, write);
}

static void gpu_unmap(struct gpusvm_pagemap *pagemap, void *dev, struct gpusvm_addr addr)
{
	struct gpu *gpu = to_gpu(pagemap);

	(void)dev;
	HOST_CHECK(gpusvm_addr_address(addr) >> 40 == (u64)(gpu - gpus)); /* its own */
	HOST_CHECK(host_add_return(&gpu->mapped, -((s64)1 << gpusvm_addr_order(addr))) >= 0);
}

static const struct gpusvm_pagemap_ops gpu_ops = { .device_map = gpu_map,
						   .device_unmap = gpu_unmap };
static const struct gpusvm_pagemap_ops gpu_ops_no_unmap = { .device_map = gpu_map };

static u64 *gpu_word(u64 address)
{
	return (u64 *)(void *)(gpus[address >> 40].bytes + (address & ((1ull << 40) - 1)));
}

/* ---- Its memory --------------------------------------------------------- */

static u64 frame_alloc(struct gpu *gpu, u64 n)
{
	u64 i, k;

	host_mutex_lock(&gpu->lock);
	for (i = 0; i < FRAMES; i += n) {
		for (k = 0; k < n && !gpu->used[i + k]; k++)
			;
		if (k == n)
			break;
	}
	if (i < FRAMES)
		memset(gpu->used + i, 1, n);
	host_mutex_unlock(&gpu->lock);
	return i;
}

static void frame_free(struct mm_page *page, unsigned order, void *data)
{
	struct gpu *gpu = data;

	host_mutex_lock(&gpu->lock);
	memset(gpu->used + mm_page_index(page), 0, 1u << order);
	host_mutex_unlock(&gpu->lock);
}

static void frame_split(void *data, unsigned extra)
{
	(void)data;
	(void)extra;
}

static void frame_hold(void *data)
{
	(void)data;
}

struct bus_copy {
	mm_dma_t addr;
	u8 *local;
	bool to_system;
};
static void bus_copy(void *arg)
{
	struct bus_copy *c = arg;
	u8 *p = mm_bus_begin(c->addr, PAGE, c->to_system);

	HOST_CHECK(p);
	memcpy(c->to_system ? p : c->local, c->to_system ? c->local : p, PAGE);
	mm_bus_end();
}

static void copy_page(const struct mm_migrate *m, unsigned i, u64 k, u8 *local, bool to_system)
{
	unsigned order;
	struct bus_copy c = { mm_migrate_dma(m, i, &order) + k * PAGE, local, to_system };
	u64 where;

	HOST_CHECK(mm_bus_guard(bus_copy, &c, &where) == 0);
}

static void fill_in(struct mm_migrate *m, struct gpu *gpu, unsigned i)
{
	u64 n = m->src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_PAGES : 1, frame;

	frame = frame_alloc(gpu, n);
	if (frame >= FRAMES)
		return;
	for (u64 k = 0; k < n; k++) {
		u8 *local = gpu->bytes + (frame + k) * PAGE;

		if (m->src[i] & MM_MPFN_ZERO)
			memset(local, 0, PAGE);
		else
			copy_page(m, i, k, local, false);
	}
	m->dst[i] = mm_mpfn(mm_page_init(gpu->pagemap.region, frame, n > 1 ? HOST_HUGE_ORDER : 0,
					 gpu)) |
		    MM_MPFN_MIGRATE | (n > 1 ? MM_MPFN_COMPOUND : 0);
}

/* Not host_alloc: these are no part of what may fail here. */
static int migrate(struct gpu *gpu, u64 start, u64 end, u32 flags, struct mm_page *fault_page,
		   bool (*select)(void *, struct mm_page *))
{
	unsigned n = (end - start) / PAGE;
	struct mm_migrate m = {
		.mm = world.mm, .start = start, .end = end, .flags = flags, .npages = n,
		.src = calloc(n, sizeof(mm_mpfn_t)), .dst = calloc(n, sizeof(mm_mpfn_t)),
		.select = select, .select_arg = gpu, .fault_page = fault_page,
	};
	int err = mm_migrate_begin(&m);

	if (!err && flags & MM_MIGRATE_DEVICE)
		err = mm_migrate_alloc_system(&m);
	else
		for (unsigned i = 0; !err && i < n; i++)
			if (m.src[i] & MM_MPFN_MIGRATE)
				fill_in(&m, gpu, i);
	if (!err && flags & MM_MIGRATE_DEVICE)
		for (unsigned i = 0; i < n; i++) {
			u64 pages = m.dst[i] & MM_MPFN_COMPOUND ? HOST_HUGE_PAGES : 1;

			for (u64 k = 0; m.dst[i] & MM_MPFN_SYSTEM && k < pages; k++)
				copy_page(&m, i, k,
					  gpu->bytes + (mm_page_index(mm_mpfn_page(m.src[i])) + k) *
							       PAGE,
					  true);
		}
	if (!err)
		mm_migrate_commit(&m);
	if (!err || flags & MM_MIGRATE_DEVICE)
		mm_migrate_end(&m);
	free(m.src);
	free(m.dst);
	return err;
}

static bool is_of(void *arg, struct mm_page *page)
{
	struct gpu *gpu = arg;

	return gpusvm_page_pagemap(page) == &gpu->pagemap;
}

/* A CPU fault: the page, and what is beside it, goes home. */
static s64 migrate_to_ram(struct mm_cpu_fault *fault)
{
	u64 start = host_align_down(fault->address, 4 * PAGE);

	return migrate(fault->data, start, start + 4 * PAGE, MM_MIGRATE_DEVICE, fault->page, is_of);
}

static const struct mm_region_ops region_ops = {
	.migrate_to_ram = migrate_to_ram,
	.free = frame_free,
	.split = frame_split,
	.hold = frame_hold,
	.drop = frame_hold,
};

/* Puts [first, last) on a device, as far as it goes, from system memory. */
static void put_on(unsigned gpu, u64 first, u64 last)
{
	assert_int_equal(migrate(&gpus[gpu], at(first), at(last),
				 MM_MIGRATE_SYSTEM | MM_MIGRATE_COMPOUND, NULL, NULL),
			 0);
}

/* One letter a page: s in system memory, a to l on that device, . as it is. */
static void place(const char *where)
{
	for (u64 i = 0; where[i]; i++) {
		u64 value;

		if (where[i] == '.')
			continue;
		assert_int_equal(model_cpu_read(world.mm, at(i), &value, sizeof(value)), 0);
		if (where[i] != 's')
			put_on(where[i] - 'a', i, i + 1);
	}
}

static u64 gpu_used(unsigned gpu)
{
	return model_region_used(gpus[gpu].pagemap.region);
}

/* ---- Setting up --------------------------------------------------------- */

static int open_with(u64 notifier_size, const u64 *chunks, unsigned n)
{
	world_open(notifier_size, chunks, n);
	local_word = gpu_word;
	for (unsigned i = 0; i < GPUS; i++) {
		struct gpu *gpu = &gpus[i];

		memset(gpu, 0, sizeof(*gpu));
		gpu->pagemap.ops = i % 3 == 2 ? &gpu_ops_no_unmap : &gpu_ops;
		host_ref_init(&gpu->pagemap.ref);
		host_mutex_init(&gpu->lock, RANK_LEAF);
		gpu->bytes = host_alloc_pages(FRAMES * PAGE);
		assert_non_null(gpu->bytes);
		assert_int_equal(mm_region_create(FRAMES, &region_ops, &gpu->pagemap,
						  &gpu->pagemap.region),
				 0);
	}
	return 0;
}

static int open_tiny(void **state)
{
	(void)state;
	return open_with(64 * PAGE, tiny_chunks, host_array_size(tiny_chunks));
}

static int open_real(void **state)
{
	(void)state;
	return open_with(1ull << 29, real_chunks, host_array_size(real_chunks));
}

/* No object maps anything and none holds a pagemap. */
static void check_nothing_held(void)
{
	assert_int_equal(dma_pages, 0);
	for (unsigned i = 0; i < GPUS; i++) {
		assert_int_equal(gpus[i].pagemap.ref.count, 1);
		if (gpus[i].pagemap.ops->device_unmap)
			assert_int_equal(gpus[i].mapped, 0);
	}
}

static int close_it(void **state)
{
	(void)state;
	/* What devices hold goes with the mappings. */
	draw("................................................................");
	assert_int_equal(model_munmap(world.mm, at(0), at(2048)), 0);
	check_nothing_held();
	for (unsigned i = 0; i < GPUS; i++) {
		assert_int_equal(gpu_used(i), 0);
		mm_region_destroy(gpus[i].pagemap.region);
		host_free_pages(gpus[i].bytes, FRAMES * PAGE);
		host_mutex_destroy(&gpus[i].lock);
	}
	world_close();
	return 0;
}

static const struct gpusvm_ctx ctx_keep = { .keep = keep_all, .budget = 200 * HOST_MSEC };

/* All the range's objects see what is written in its pages: 100 + number. */
static void check_views(struct gpusvm_range *range, u32 held, u32 flags)
{
	u64 first = (gpusvm_range_start(range) - BASE) / PAGE;
	u64 last = (gpusvm_range_end(range) - BASE) / PAGE;

	for (unsigned d = 0; d < DEVICES; d++) {
		struct gpusvm_pages *pages = &to_world(range)->pages[d];

		assert_true(is_valid(range, d));
		check_runs(pages);
		assert_int_equal(pages->n_held, held);
		assert_int_equal(pages->flags & (GPUSVM_PAGES_DEVMEM | GPUSVM_PAGES_SYSTEM), flags);
		for (u64 i = first; i < last; i++)
			assert_int_equal(device_read(pages, i), 100 + i);
	}
}

static struct gpusvm_range *numbered(const char *where)
{
	u64 n = strlen(where);

	assert_int_equal(model_mmap(world.mm, at(0), at(n), MODEL_RW), 0);
	for (u64 i = 0; i < n; i++)
		write_page(i, 100 + i);
	place(where);
	return range_at(0, &ctx_keep);
}

/* ---- Mixed -------------------------------------------------------------- */

static void test_mixed(void **state)
{
	static const struct {
		const char *where;
		u32 held;
		u32 flags;
	} cases[] = {
		{ "aaaaaaaa", 1, GPUSVM_PAGES_DEVMEM },
		{ "sssssssa", 1, GPUSVM_PAGES_DEVMEM | GPUSVM_PAGES_SYSTEM },
		{ "asssssss", 1, GPUSVM_PAGES_DEVMEM | GPUSVM_PAGES_SYSTEM },
		{ "ssssaaaa", 1, GPUSVM_PAGES_DEVMEM | GPUSVM_PAGES_SYSTEM },
		{ "aaaassss", 1, GPUSVM_PAGES_DEVMEM | GPUSVM_PAGES_SYSTEM },
		{ "asasasas", 1, GPUSVM_PAGES_DEVMEM | GPUSVM_PAGES_SYSTEM },
		{ "aabbccdd", 4, GPUSVM_PAGES_DEVMEM },
		{ "abababab", 2, GPUSVM_PAGES_DEVMEM },
		{ "sbcsbcsb", 2, GPUSVM_PAGES_DEVMEM | GPUSVM_PAGES_SYSTEM },
		{ "abcdefgh", 8, GPUSVM_PAGES_DEVMEM },
		{ "ssssssss", 0, GPUSVM_PAGES_SYSTEM },
	};

	(void)state;
	for (unsigned k = 0; k < host_array_size(cases); k++) {
		struct gpusvm_range *range = numbered(cases[k].where);

		assert_int_equal(get_pages(range, &ctx_keep), 0);
		check_views(range, cases[k].held, cases[k].flags);
		if (strchr(cases[k].where, 'a'))
			assert_int_equal(gpus[0].pagemap.ref.count, 1 + DEVICES);
		/* Held only while mapped. */
		assert_int_equal(model_mprotect(world.mm, at(0), at(8), MODEL_RW), 0);
		check_nothing_held();
		assert_int_equal(get_pages(range, &ctx_keep), 0);
		check_views(range, cases[k].held, cases[k].flags);
		take_down(range);
		check_nothing_held();
		gpusvm_range_put(range);
	}
}

/* More pagemaps than there was room for at first, twice over. */
static void test_many_pagemaps(void **state)
{
	struct gpusvm_range *range;

	(void)state;
	range = numbered("abcdefghijklabcd");
	assert_int_equal(gpusvm_range_end(range) - gpusvm_range_start(range), 16 * PAGE);
	assert_int_equal(get_pages(range, &ctx_keep), 0);
	check_views(range, 12, GPUSVM_PAGES_DEVMEM);
	gpusvm_range_put(range);
}

static void test_compound(void **state)
{
	struct gpusvm_range *range;
	struct gpusvm_pages *pages;

	(void)state;
	assert_int_equal(model_mmap(world.mm, at(0), at(512), MODEL_RW | MODEL_THP), 0);
	for (u64 i = 0; i < 512; i++)
		write_page(i, 100 + i);
	put_on(0, 0, 512);
	assert_int_equal(gpu_used(0), 512);
	range = range_at(0, &ctx_keep);
	assert_int_equal(get_pages(range, &ctx_keep), 0);
	check_views(range, 1, GPUSVM_PAGES_DEVMEM);
	pages = &to_world(range)->pages[0];
	assert_int_equal(pages->n_addrs, 1);
	assert_int_equal(pages->max_held, 1);
	assert_int_equal(gpusvm_range_scan(range, &gpus[0].pagemap), GPUSVM_SCAN_EQUAL);
	/* One page in the middle goes home: still one pass, many runs. */
	write_page(100, 200);
	assert_int_equal(get_pages(range, &ctx_keep), 0);
	check_views(range, 1, GPUSVM_PAGES_DEVMEM | GPUSVM_PAGES_SYSTEM);
	assert_true(pages->n_addrs > 7 && pages->n_addrs < 20);
	gpusvm_range_put(range);
}

/* ---- Who may map what --------------------------------------------------- */

static void test_keep(void **state)
{
	struct gpusvm_ctx only_b = ctx_keep, devmem_only = ctx_keep;
	struct gpusvm_range *range = numbered("aabbssss");

	(void)state;
	devmem_only.devmem_only = true;
	only_b.keep = is_of;
	only_b.keep_arg = &gpus[1];
	assert_int_equal(get_pages(range, &devmem_only), -EFAULT);
	check_nothing_held();
	assert_int_equal(get_pages(range, &only_b), 0);
	check_views(range, 1, GPUSVM_PAGES_DEVMEM | GPUSVM_PAGES_SYSTEM);
	assert_int_equal(gpu_used(0), 0);
	assert_int_equal(gpu_used(1), 2);
	assert_int_equal(model_mprotect(world.mm, at(0), at(8), MODEL_RW), 0);
	assert_int_equal(get_pages(range, &ctx_rw), 0); /* no owner: all home */
	check_views(range, 0, GPUSVM_PAGES_SYSTEM);
	assert_int_equal(gpu_used(1), 0);
	place("cccccccc");
	assert_int_equal(get_pages(range, &devmem_only), 0);
	check_views(range, 1, GPUSVM_PAGES_DEVMEM);
	assert_int_equal(get_pages(range, &devmem_only), 0);
	gpusvm_range_put(range);
}

/* ---- All or nothing ----------------------------------------------------- */

/* The n-th run that a pagemap refuses, on either device. */
static void test_map_fails(void **state)
{
	struct gpusvm_range *range = numbered("sabsabsa");

	(void)state;
	for (unsigned gpu = 0; gpu < 2; gpu++) {
		for (u64 n = 1; n <= (gpu ? 2 : 3) * DEVICES; n++) {
			gpus[gpu].deny = n;
			/* Devices are mapped one after another; room for the second
			 * pagemap is found on the way, by one attempt more. */
			if (gpu == 0 && n == 1) {
				assert_int_equal(get_pages(range, &ctx_keep), -EFAULT);
				check_nothing_held();
				continue;
			}
			gpus[gpu].deny = n + (gpu == 0);
			assert_int_equal(get_pages(range, &ctx_keep), -EFAULT);
			assert_int_equal(gpus[gpu].deny, 0);
			check_nothing_held();
			for (unsigned d = 0; d < DEVICES; d++)
				assert_int_equal(to_world(range)->pages[d].flags, 0);
		}
	}
	model_fail(world.mm, MODEL_FAIL_DMA_MAP, 4, 1);
	assert_int_equal(get_pages(range, &ctx_keep), -EFAULT);
	check_nothing_held();
	assert_int_equal(get_pages(range, &ctx_keep), 0);
	check_views(range, 2, GPUSVM_PAGES_DEVMEM | GPUSVM_PAGES_SYSTEM);
	gpusvm_range_put(range);
}

static void test_allocation_fails(void **state)
{
	struct gpusvm_range *range = numbered("sabcsabc");
	int err = -ENOMEM;
	u64 n;

	(void)state;
	for (n = 1; err; n++) {
		host_posix_fail_alloc_at(n);
		err = get_pages(range, &ctx_keep);
		host_posix_fail_alloc_at(0);
		if (err) {
			assert_int_equal(err, -ENOMEM);
			check_nothing_held();
		}
	}
	assert_true(n > 9); /* two rounds of two arrays for two devices */
	check_views(range, 3, GPUSVM_PAGES_DEVMEM | GPUSVM_PAGES_SYSTEM);
	gpusvm_range_put(range);
}

/* ---- Races -------------------------------------------------------------- */

/* In the gap the pages go home and their frames are given back: what the look saw
 * must not be asked any more. */
static void home_once(void)
{
	in_the_gap = NULL;
	for (u64 i = 0; i < 8; i++) {
		u64 value = 100 + i;

		HOST_CHECK(model_cpu_write(world.mm, at(i), &value, sizeof(value)) == 0);
	}
}

static void away_once(void)
{
	in_the_gap = NULL;
	put_on(3, 0, 8);
}

static void test_races(void **state)
{
	struct gpusvm_range *range = numbered("aaaabbbb");

	(void)state;
	in_the_gap = home_once;
	assert_int_equal(get_pages(range, &ctx_keep), 0);
	check_views(range, 0, GPUSVM_PAGES_SYSTEM);
	assert_int_equal(model_mprotect(world.mm, at(0), at(8), MODEL_RW), 0);
	in_the_gap = away_once;
	assert_int_equal(get_pages(range, &ctx_keep), 0);
	check_views(range, 1, GPUSVM_PAGES_DEVMEM);
	in_the_gap = home_once;
	assert_int_equal(gpusvm_range_scan(range, &gpus[3].pagemap), GPUSVM_SCAN_SYSTEM);
	gpusvm_range_put(range);
}

/* ---- Scan --------------------------------------------------------------- */

static void test_scan(void **state)
{
	static const struct {
		const char *where;
		int result;
	} cases[] = {
		{ "aaaaaaaa", GPUSVM_SCAN_EQUAL },	{ "bbbbbbbb", GPUSVM_SCAN_OTHER },
		{ "ssssssss", GPUSVM_SCAN_SYSTEM },	{ "aaaabbbb", GPUSVM_SCAN_MIXED_DEVICE },
		{ "bbbcccbb", GPUSVM_SCAN_MIXED_DEVICE }, { "aaaassss", GPUSVM_SCAN_MIXED },
		{ "sabsabsa", GPUSVM_SCAN_MIXED },	{ "saaaaaaa", GPUSVM_SCAN_MIXED },
	};
	struct gpusvm_range *range;

	(void)state;
	for (unsigned k = 0; k < host_array_size(cases); k++) {
		range = numbered(cases[k].where);
		assert_int_equal(gpusvm_range_scan(range, &gpus[0].pagemap), cases[k].result);
		take_down(range);
		gpusvm_range_put(range);
	}
	range = numbered("aaaaaaaa");
	assert_int_equal(model_dontneed(world.mm, at(3), at(4)), 0);
	assert_int_equal(gpusvm_range_scan(range, &gpus[0].pagemap), GPUSVM_SCAN_UNPOPULATED);
	gpusvm_range_put(range);
}

/* ---- Eviction ----------------------------------------------------------- */

static void test_evict(void **state)
{
	struct gpusvm_range *range = numbered("aabbsscc");

	(void)state;
	assert_int_equal(get_pages(range, &ctx_keep), 0);
	assert_int_equal(gpusvm_range_evict(range, 0), 0);
	assert_int_equal(gpusvm_range_scan(range, NULL), GPUSVM_SCAN_SYSTEM);
	assert_int_equal(gpu_used(0) + gpu_used(1) + gpu_used(2), 0);
	check_nothing_held();
	assert_int_equal(get_pages(range, &ctx_keep), 0);
	check_views(range, 0, GPUSVM_PAGES_SYSTEM);

	/* With a hole, and pages that were never there: neither is in the way. */
	place("aaaaaaaa");
	assert_int_equal(model_munmap(world.mm, at(2), at(4)), 0);
	assert_int_equal(model_dontneed(world.mm, at(6), at(7)), 0);
	assert_true(range->flags & GPUSVM_RANGE_PARTIAL_UNMAP);
	assert_int_equal(gpusvm_range_evict(range, 0), 0);
	assert_int_equal(gpu_used(0), 0);
	assert_int_equal(gpusvm_range_scan(range, NULL), GPUSVM_SCAN_UNPOPULATED);
	for (u64 i = 0; i < 8; i++) {
		u64 value;

		if (i == 2 || i == 3)
			continue;
		assert_int_equal(model_cpu_read(world.mm, at(i), &value, sizeof(value)), 0);
		assert_int_equal(value, i == 6 ? 0 : 100 + i);
	}
	gpusvm_range_put(range);
}

static void unmap_once(void)
{
	in_the_gap = NULL;
	assert_int_equal(model_munmap(world.mm, at(2), at(3)), 0);
}

static void test_evict_errors(void **state)
{
	struct gpusvm_range *range = numbered("aaaassss");
	u64 n, live;
	int err = -ENOMEM;

	(void)state;
	assert_int_equal(model_mprotect(world.mm, at(0), at(8), 0), 0);
	assert_int_equal(gpusvm_range_evict(range, HOST_SEC), 0);
	assert_int_equal(gpu_used(0), 4); /* may not be read: passed over */
	assert_int_equal(model_mprotect(world.mm, at(0), at(8), MODEL_RW), 0);
	in_the_gap = unmap_once;
	assert_int_equal(gpusvm_range_evict(range, 0), 0);
	assert_int_equal(gpu_used(0), 0);
	place("aa.assss");
	model_fail(world.mm, MODEL_FAIL_RANGE_FAULT, 1, 1);
	assert_int_equal(gpusvm_range_evict(range, 0), -ENOMEM);
	live = host_posix_alloc_live();
	for (n = 1; err; n++) { /* a leak of the address space itself shows at the end */
		host_posix_fail_alloc_at(n);
		err = gpusvm_range_evict(range, 0);
		host_posix_fail_alloc_at(0);
		assert_true(err == 0 || err == -ENOMEM || err == -EFAULT);
		assert_true(host_posix_alloc_live() <= live + 16);
	}
	assert_int_equal(gpu_used(0), 0);
	/* What is beside a page that cannot come, comes. */
	place("ss.sssac");
	unreadable = at(7);
	assert_int_equal(gpusvm_range_evict(range, 0), 0);
	unreadable = 0;
	assert_int_equal(gpu_used(0), 0);
	assert_int_equal(gpu_used(2), 1);
	/* Pages in motion are come back to, until time is up. */
	place("aa.a....");
	model_fail(world.mm, MODEL_FAIL_RANGE_BUSY, 1, 3);
	assert_int_equal(gpusvm_range_evict(range, 0), 0);
	assert_int_equal(gpu_used(0), 0);
	gpusvm_range_put(range);
}

/* ---- Chance against a naive array of pages ------------------------------ */

#define PAGES 48u

static struct {
	bool mapped;
	u64 value;
} naive[PAGES];

static void check_all(void)
{
	struct gpusvm_range *range;

	gpusvm_mirror_lock(&world.mirror);
	gpusvm_for_each_range (range, &world.mirror, at(0), at(PAGES)) {
		for (unsigned d = 0; d < DEVICES; d++) {
			struct gpusvm_pages *pages = &to_world(range)->pages[d];

			if (!(pages->flags & GPUSVM_PAGES_VALID)) {
				assert_false(pages->flags & GPUSVM_PAGES_MAPPED);
				assert_int_equal(pages->n_held, 0);
				continue;
			}
			check_runs(pages);
			for (u64 a = pages->start; a < pages->end; a += PAGE) {
				u64 i = (a - BASE) / PAGE;

				assert_true(naive[i].mapped);
				assert_int_equal(device_read(pages, i), naive[i].value);
			}
		}
	}
	gpusvm_mirror_unlock(&world.mirror);
}

static void random_device(u64 *seed, u64 first)
{
	struct gpusvm_ctx ctx = ctx_keep;
	struct gpusvm_range *range;
	int err, marked;

	if (rnd(seed, 2))
		ctx.keep = is_of;
	ctx.keep_arg = &gpus[rnd(seed, 4)];
	err = fault(first, &ctx, &range);
	assert_int_equal(err, naive[first].mapped ? 0 : -ENOENT);
	if (err)
		return;
	marked = range->flags & GPUSVM_RANGE_UNMAPPED;
	switch (rnd(seed, 8)) {
	case 0:
		err = gpusvm_range_evict(range, 0);
		assert_int_equal(err, 0);
		break;
	case 1:
		err = gpusvm_range_scan(range, ctx.keep_arg);
		assert_in_range(err, GPUSVM_SCAN_UNPOPULATED, GPUSVM_SCAN_MIXED);
		break;
	default:
		err = get_pages(range, &ctx);
		assert_int_equal(err, marked ? -EFAULT : 0);
	}
	gpusvm_range_put(range);
}

static void random_step(u64 *seed)
{
	u64 first = rnd(seed, PAGES), last = first + 1 + rnd(seed, host_min(PAGES - first, 9));

	switch (rnd(seed, 12)) {
	case 0:
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
	case 1:
		assert_int_equal(model_dontneed(world.mm, at(first), at(last)), 0);
		for (u64 i = first; i < last; i++)
			naive[i].value = 0;
		break;
	case 2:
		collect();
		break;
	case 3:
	case 4:
	case 5:
		put_on(rnd(seed, 4), first, last);
		break;
	case 6:
	case 7:
		if (!naive[first].mapped)
			break;
		naive[first].value = rnd(seed, ~(u64)0 >> 12);
		write_page(first, naive[first].value);
		break;
	default:
		random_device(seed, first);
	}
}

static void test_random(void **state)
{
	u64 seed = seed_get();

	(void)state;
	memset(naive, 0, sizeof(naive));
	for (unsigned i = 0; i < 4000; i++) {
		random_step(&seed);
		check_all();
	}
}

/* ---- Threads ------------------------------------------------------------ */

static void change(void *arg)
{
	u64 seed = (u64)(uintptr_t)arg * 99991 + 7;

	while (host_now() < stop_at) {
		u64 first = rnd(&seed, 40), last = first + 1 + rnd(&seed, 40 - first), value;
		int err = 0;

		switch (rnd(&seed, 6)) {
		case 0: /* the CPU pulls a page home; a word that devices leave alone */
			err = model_cpu_read(world.mm, at(rnd(&seed, STEADY)), &value,
					     sizeof(value));
			break;
		case 1:
			err = model_mprotect(world.mm, at(first), at(last), MODEL_RW);
			break;
		case 2:
			if (first >= STEADY)
				err = rnd(&seed, 2) ?
					      model_munmap(world.mm, at(first), at(last)) :
					      model_mmap(world.mm, at(first), at(last), MODEL_RW);
			break;
		default:
			err = migrate(&gpus[rnd(&seed, 4)], at(first), at(last), MM_MIGRATE_SYSTEM,
				      NULL, NULL);
		}
		HOST_CHECK(!err);
		host_sleep(30 * HOST_USEC);
	}
}

static void test_threads(void **state)
{
	(void)state;
	run_threads(&ctx_keep, change);
}

#define REAL(test) cmocka_unit_test_setup_teardown(test, open_real, close_it)
#define TINY(test) cmocka_unit_test_setup_teardown(test, open_tiny, close_it)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TINY(test_mixed),
		REAL(test_many_pagemaps),
		REAL(test_compound),
		TINY(test_keep),
		TINY(test_map_fails),
		TINY(test_allocation_fails),
		TINY(test_races),
		TINY(test_scan),
		TINY(test_evict),
		TINY(test_evict_errors),
		TINY(test_random),
		TINY(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
