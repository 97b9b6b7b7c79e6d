/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_pagetable.c: the page table against an array of pages, the sizes of leaves,
 * and walks beside a writer.
 */
#include "devices/soft/pagetable.c"

#include "host/posix/posix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MB ((u64)1 << 20)
#define VA (((u64)1 << 39) - 4 * MB) /* over an edge of every level */
#define PAGES 2048u		     /* 8M */

static u64 seed;

static u64 random_below(u64 n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % n;
}

static struct gpusvm_addr addr(u64 address, unsigned order, bool write)
{
	return gpusvm_addr_encode(address, GPUSVM_PROTO_SYSTEM, order, write);
}

static struct soft_pt *pt_new(void)
{
	struct soft_pt *pt = host_alloc_zeroed(sizeof(*pt));

	assert_non_null(pt);
	return pt;
}

static void pt_free(struct soft_pt *pt)
{
	soft_pt_fini(pt);
	host_free(pt);
}

/* What the leaf says of va's own page: address, proto and right; 0: nothing. */
static u64 page_at(struct soft_pt *pt, u64 va)
{
	u64 leaf = soft_pt_walk(pt, va);
	u64 size = HOST_PAGE_SIZE << soft_leaf_order(leaf);

	if (!leaf)
		return 0;
	return (soft_leaf_base(leaf) + (va & (size - 1) & HOST_PAGE_MASK)) | (leaf & 0xf80);
}

static unsigned order_at(struct soft_pt *pt, u64 va)
{
	u64 leaf = soft_pt_walk(pt, va);

	return leaf ? soft_leaf_order(leaf) : 99;
}

/* ---- Sizes of leaves ------------------------------------------------------------------ */

static void test_leaf_sizes(void **state)
{
	struct soft_pt *pt = pt_new();
	struct gpusvm_addr run;

	(void)state;
	assert_int_equal(soft_pt_prepare(pt, VA, 8 * MB, true), 0);
	run = addr(64 * MB, 10, true); /* 4M: two of 2M */
	soft_pt_map(pt, VA, &run, 1);
	assert_int_equal(order_at(pt, VA), 9);
	assert_int_equal(order_at(pt, VA + 4 * MB - 1), 9);
	assert_int_equal(order_at(pt, VA + 4 * MB), 99);
	run = addr(64 * MB, 9, true); /* va not aligned to it */
	soft_pt_map(pt, VA + 4 * MB + 0x10000, &run, 1);
	assert_int_equal(order_at(pt, VA + 4 * MB + 0x10000), 4);
	assert_int_equal(page_at(pt, VA + 6 * MB), (64 * MB + 2 * MB - 0x10000) | 0x180);
	run = addr(64 * MB + 0x1000, 4, true); /* memory not aligned to it */
	soft_pt_map(pt, VA + 4 * MB + 0x20000, &run, 1);
	assert_int_equal(order_at(pt, VA + 4 * MB + 0x20000), 0);
	assert_int_equal(order_at(pt, VA + 4 * MB + 0x10000), 4);
	pt_free(pt);
}

/* A 2M leaf, a page of which becomes another: the others stay mapped. */
static void test_split_and_back(void **state)
{
	struct soft_pt *pt = pt_new();
	struct gpusvm_addr huge = addr(64 * MB, 9, true), page = addr(MB, 0, false);

	(void)state;
	assert_int_equal(soft_pt_prepare(pt, VA, 2 * MB, true), 0);
	soft_pt_map(pt, VA, &huge, 1);
	soft_pt_map(pt, VA + 0x5000, &page, 1);
	assert_int_equal(page_at(pt, VA + 0x5000), MB | 0x100);
	assert_int_equal(page_at(pt, VA + 0x4000), (64 * MB + 0x4000) | 0x180);
	assert_int_equal(order_at(pt, VA + 0x4000), 0);
	assert_int_equal(order_at(pt, VA + 0x10000), 4);
	soft_pt_map(pt, VA, &huge, 1);
	assert_int_equal(order_at(pt, VA + 0x5000), 9);
	assert_true(soft_pt_unmap(pt, VA + MB, 4096)); /* whole */
	assert_int_equal(order_at(pt, VA), 99);	       /* and nothing rises from below */
	assert_false(soft_pt_unmap(pt, VA, 2 * MB));
	soft_pt_map(pt, VA + 0x5000, &page, 1);
	assert_true(soft_pt_unmap(pt, 0, SOFT_VA_END));
	assert_false(soft_pt_unmap(pt, 0, ~(u64)0));
	pt_free(pt);
}

static void test_unmap_64k_whole(void **state)
{
	struct soft_pt *pt = pt_new();
	struct gpusvm_addr runs[2] = {addr(MB, 4, true), addr(2 * MB, 4, true)};

	(void)state;
	assert_int_equal(soft_pt_prepare(pt, VA, 0x20000, false), 0); /* small at its edges */
	soft_pt_map(pt, VA, runs, 2);
	assert_true(soft_pt_unmap(pt, VA + 0xf000, 0x1000));
	assert_int_equal(order_at(pt, VA), 99);
	assert_int_equal(order_at(pt, VA + 0x10000), 4);
	assert_true(soft_pt_unmap(pt, VA + 0x4000, 0xd000));
	assert_int_equal(order_at(pt, VA + 0x1f000), 99);
	pt_free(pt);
}

static void test_bounds(void **state)
{
	struct soft_pt *pt = pt_new();

	(void)state;
	assert_int_equal(soft_pt_prepare(pt, SOFT_VA_END - 4096, 8192, true), -EINVAL);
	assert_int_equal(soft_pt_prepare(pt, ~(u64)4095, 8192, true), -EINVAL);
	assert_int_equal(soft_pt_prepare(pt, SOFT_VA_END - 4096, 4096, true), 0);
	assert_int_equal(soft_pt_walk(pt, SOFT_VA_END), 0);
	assert_int_equal(soft_pt_walk(pt, ~(u64)0), 0);
	assert_false(soft_pt_unmap(pt, SOFT_VA_END, 4096));
	assert_false(soft_pt_unmap(pt, 0, 0));
	pt_free(pt);
}

static void test_prepare_fails(void **state)
{
	u64 live = host_posix_alloc_live(), n, before;

	(void)state;
	for (n = 1;; n++) {
		struct soft_pt *pt = pt_new();
		int err;

		host_posix_fail_alloc_at(n);
		err = soft_pt_prepare(pt, VA, 8 * MB, true);
		host_posix_fail_alloc_at(0);
		/* Again, with what there is; a third time there is nothing to do. */
		assert_int_equal(soft_pt_prepare(pt, VA, 8 * MB, true), 0);
		before = host_posix_alloc_count();
		assert_int_equal(soft_pt_prepare(pt, VA, 8 * MB, true), 0);
		assert_int_equal(host_posix_alloc_count(), before);
		pt_free(pt);
		assert_int_equal(host_posix_alloc_live(), live);
		if (!err)
			break;
		assert_int_equal(err, -ENOMEM);
	}
	assert_int_equal(n, 2 + 2 + 4 + 1); /* two mid, two dir, four small */
}

/* ---- At random, against an array ---------------------------------------------------------- */

struct model {
	struct soft_pt *pt;
	u64 page[PAGES]; /* as page_at() */
};

static void model_map(struct model *m)
{
	static const unsigned orders[] = {0, 0, 1, 3, 4, 4, 5, 9, 9, 10};
	u64 first = random_below(PAGES);
	struct gpusvm_addr runs[8];
	unsigned n = 0, i;
	u64 at = first;

	while (n < 8 && at < PAGES) {
		unsigned order = orders[random_below(host_array_size(orders))];
		bool write = random_below(2), gap = random_below(5) == 0;
		u64 address = (random_below(1 << 20) << 12) & ~((HOST_PAGE_SIZE << order) - 1);

		/* Mostly as a driver does it: aligned in both. */
		if (random_below(4))
			order = host_min(order, at ? (unsigned)__builtin_ctzll(at) : 10u);
		if (at + (1u << order) > PAGES)
			break;
		runs[n++] = gap ? (struct gpusvm_addr){order} : addr(address, order, write);
		for (i = 0; !gap && i < 1u << order; i++)
			m->page[at + i] = (address + i * 4096ull) | (write ? 0x180 : 0x100);
		at += 1u << order;
	}
	soft_pt_map(m->pt, VA + first * 4096, runs, n);
}

/* Whole leaves go: read off which they are before. */
static void model_unmap(struct model *m)
{
	u64 first = random_below(PAGES), end = first + 1 + random_below(PAGES - first), i, k;
	bool any = false;

	for (i = first; i < end; i++) {
		u64 leaf = soft_pt_walk(m->pt, VA + i * 4096);
		u64 n = (u64)1 << soft_leaf_order(leaf);

		if (!leaf)
			continue;
		any = true;
		for (k = i & ~(n - 1); k < (i & ~(n - 1)) + n; k++)
			m->page[k] = 0;
	}
	assert_int_equal(soft_pt_unmap(m->pt, VA + first * 4096, (end - first) * 4096), any);
}

static void check(struct model *m)
{
	struct soft_pt_dir *dir;
	unsigned slot, i, live;
	u64 at;

	for (i = 0; i < PAGES; i++)
		assert_int_equal(page_at(m->pt, VA + i * 4096ull + 5), m->page[i]);
	for (at = VA; at < VA + PAGES * 4096ull; at += 2 * MB) {
		dir = dir_of(m->pt, at);
		slot = slot_of(at, HUGE_SHIFT);
		for (i = live = 0; i < SOFT_PT_ENTRIES; i++)
			live += dir->small[slot]->leaf[i] != 0;
		assert_int_equal(live, dir->live[slot]);
		assert_true(!dir->leaf[slot] || !live);
	}
}

static void test_random(void **state)
{
	struct model *m = calloc(1, sizeof(*m));
	unsigned turn;

	(void)state;
	seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : 20240608;
	printf("# seed %llu\n", (unsigned long long)seed);
	m->pt = pt_new();
	assert_int_equal(soft_pt_prepare(m->pt, VA, PAGES * 4096ull, true), 0);
	for (turn = 0; turn < 3000; turn++) {
		if (random_below(3))
			model_map(m);
		else
			model_unmap(m);
		check(m);
	}
	pt_free(m->pt);
	free(m);
}

/* ---- Walks beside a writer ------------------------------------------------------------------- */

struct walker {
	struct soft_pt *pt;
	u32 stop, seen;
	u64 bad;
};

/* Every page always maps to its own number, by leaves of any size, or not at all. */
static void walker_main(void *arg)
{
	struct walker *w = arg;
	u64 at = 0;

	while (!host_load_acquire(&w->stop)) {
		u64 got = page_at(w->pt, VA + at);

		if (got && got != ((64 * MB + at) | 0x180))
			w->bad++;
		if (got)
			host_write_once(&w->seen, 1);
		at = (at + 0x7000) & (2 * MB - 1);
	}
}

static void test_walk_beside_writer(void **state)
{
	struct walker w = {.pt = pt_new()};
	struct host_thread thread = {0};
	struct gpusvm_addr run;
	unsigned turn, i;

	(void)state;
	assert_int_equal(soft_pt_prepare(w.pt, VA, 2 * MB, true), 0);
	assert_int_equal(host_thread_start(&thread, "walker", walker_main, &w), 0);
	for (turn = 0; turn < 300 || !host_read_once(&w.seen); turn++) {
		run = addr(64 * MB, 9, true);
		soft_pt_map(w.pt, VA, &run, 1);
		for (i = 0; i < 32; i += 1 + turn % 3) {
			run = addr(64 * MB + i * 0x10000ull, turn % 2 ? 4 : 0, true);
			soft_pt_map(w.pt, VA + i * 0x10000ull, &run, 1);
		}
		if (turn % 7 == 0)
			soft_pt_unmap(w.pt, VA + turn % 512 * 4096ull, 4096);
		else if (turn % 50 == 0)
			host_sleep(HOST_USEC);
	}
	host_sleep(2 * HOST_MSEC);
	host_store_release(&w.stop, 1);
	host_thread_join(&thread);
	assert_int_equal(w.bad, 0);
	pt_free(w.pt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_leaf_sizes),	       cmocka_unit_test(test_split_and_back),
	    cmocka_unit_test(test_unmap_64k_whole),    cmocka_unit_test(test_bounds),
	    cmocka_unit_test(test_prepare_fails),      cmocka_unit_test(test_random),
	    cmocka_unit_test(test_walk_beside_writer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
