/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_change.c: what happens to mappings whose pages are on a device, or on the
 * way: unmapped, mapped over, moved, dropped, protected.
 */
#include "tests/host/home.h"

static struct job j;

/* ---- Pages on a device ----------------------------------------------------------- */

static void test_munmap(void **state)
{
	(void)state;
	on_device(0, 0, 16, 1, false);
	unmap(4, 4);
	wait_frames(0, 12);
	expect(0, 4, 1);
	expect(8, 8, 1);
	unmap(0, 16);
	wait_frames(0, 0);
	/* The same address again is new memory. */
	map(0, 16, HOME_RW);
	expect_zero(0, 16);
}

static void test_munmap_compound(void **state)
{
	bool huge;

	(void)state;
	on_device(0, 0, HUGE_PAGES, 1, true);
	huge = state_of(0).order;
	unmap(100, 50);
	wait_frames(0, HUGE_PAGES - 50);
	assert_int_equal(devices[0].splits, huge);
	expect(0, 100, 1);
	expect(150, HUGE_PAGES - 150, 1);
	on_device(0, HUGE_PAGES, HUGE_PAGES, 2, true);
	devices[0].huge_frees = 0;
	huge = state_of(HUGE_PAGES).order;
	unmap(HUGE_PAGES, HUGE_PAGES);
	assert_int_equal(devices[0].huge_frees, huge);
	wait_frames(0, 0);
}

static void test_map_over(void **state)
{
	(void)state;
	on_device(0, 0, 16, 1, false);
	map(4, 4, HOME_RW);
	sync_all();
	wait_frames(0, 12);
	expect(0, 4, 1);
	expect_zero(4, 4);
	expect(8, 8, 1);
	fill(4, 4, 2);
	assert_int_equal(move_out(0, 4, 4, 0), 4);
	expect(4, 4, 2);
}

static void test_dontneed(void **state)
{
	(void)state;
	on_device(0, 0, 16, 1, false);
	assert_int_equal(home_dontneed(mm, at(4), at(8)), 0);
	sync_all();
	wait_frames(0, 12);
	expect_zero(4, 4);
	expect(0, 4, 1);
	expect(8, 8, 1);
	fill(4, 4, 3);
	(void)move_out(0, 0, 16, 0);
	expect(4, 4, 3);
}

static void remap(bool dontunmap, u64 n, u64 to, bool huge)
{
	on_device(0, 0, n, 1, huge);
	assert_int_equal(home_mremap(mm, at(0), at(n), at(to), dontunmap), 0);
	sync_all();
	wait_frames(0, n);
	if (dontunmap)
		expect_zero(0, n);
	/* The words moved with their pages. */
	for (u64 i = 0; i < n; i++) {
		u64 word;

		assert_int_equal(home_load(mm, at(to + i) + i * 8 % PAGE, &word, 8), 0);
		assert_int_equal(word, (i + 1) * 0x9e3779b97f4a7c15ull ^ 1);
	}
	wait_frames(0, 0);
	unmap(0, to + n);
}

static void test_mremap(void **state)
{
	(void)state;
	remap(false, 16, 100, false);
	remap(false, 16, 2 * HUGE_PAGES - 8, false);
	remap(true, 16, 100, false);
	remap(false, HUGE_PAGES, 2 * HUGE_PAGES, true);
	remap(true, HUGE_PAGES, 2 * HUGE_PAGES, true);
	remap(false, HUGE_PAGES, 2 * HUGE_PAGES + 37, true);
}

static void test_mremap_part_of_compound(void **state)
{
	(void)state;
	on_device(0, 0, HUGE_PAGES, 1, true);
	assert_int_equal(home_mremap(mm, at(8), at(16), at(2 * HUGE_PAGES), false), 0);
	sync_all();
	wait_frames(0, HUGE_PAGES);
	expect(0, 8, 1);
	expect(16, HUGE_PAGES - 16, 1);
	wait_frames(0, 8);
	assert_int_equal(move_home(2 * HUGE_PAGES, 8, 0), 8);
	wait_frames(0, 0);
}

static void test_mprotect(void **state)
{
	u64 word = 5;

	(void)state;
	on_device(0, 0, 16, 1, false);
	assert_int_equal(home_mprotect(mm, at(0), at(16), HOME_READ), 0);
	sync_all();
	expect(0, 8, 1);
	assert_true(home_store(mm, at(9), &word, 8) < 0);
	assert_int_equal(home_mprotect(mm, at(0), at(16), 0), 0);
	assert_true(home_load(mm, at(10), &word, 8) < 0);
	assert_int_equal(home_mprotect(mm, at(0), at(16), HOME_RW), 0);
	sync_all();
	expect(0, 16, 1);
	assert_int_equal(move_out(0, 0, 16, 0), 16);
	expect(0, 16, 1);
}

/* ---- Pages on their way -------------------------------------------------------------
 * The change comes between begin and commit. Unmapping does not wait for the
 * transaction; moving may.
 */

/* Of the n pages that went as one transaction, [cut, cut + 50) were unmapped
 * meanwhile; of a compound page all or the others of it have moved. */
static void after_cut(unsigned moved, u64 n, u64 cut, unsigned device, bool out)
{
	u64 rest = n - 50, used;

	sync_all();
	assert_true(moved == 0 || moved == rest);
	used = moved == (out ? rest : 0) ? rest : 0;
	wait_frames(device, used);
	expect(0, cut, 1);
	expect(cut + 50, n - cut - 50, 1);
	map(cut, 50, HOME_RW);
	expect_zero(cut, 50);
}

static void cut_out(u64 n, bool huge, bool dontneed)
{
	u32 flags = huge ? MM_MIGRATE_COMPOUND : 0;

	map(0, n, HOME_RW | (huge ? HOME_HUGE : 0));
	fill(0, n, 1);
	job_init(&j, 0, (unsigned)n, MM_MIGRATE_SYSTEM | flags);
	job_begin(&j);
	assert_int_equal(j.m.collected, n);
	job_to_device(&j, 0);
	if (dontneed)
		assert_int_equal(home_dontneed(mm, at(100), at(150)), 0);
	else
		assert_int_equal(home_munmap(mm, at(100), at(150)), 0);
	after_cut(job_finish(&j), n, 100, 0, true);
	unmap(0, n);
	wait_frames(0, 0);
}

static void test_cut_on_the_way_out(void **state)
{
	(void)state;
	for (int dontneed = 0; dontneed < 2; dontneed++) {
		cut_out(200, false, dontneed);
		cut_out(HUGE_PAGES, false, dontneed);
		cut_out(HUGE_PAGES, true, dontneed);
	}
}

static void cut_home(u64 n, bool huge, bool dontneed)
{
	on_device(0, 0, n, 1, huge);
	job_init(&j, 0, (unsigned)n, MM_MIGRATE_DEVICE | (huge ? MM_MIGRATE_COMPOUND : 0));
	job_begin(&j);
	assert_int_equal(j.m.collected, n);
	if (dontneed)
		assert_int_equal(home_dontneed(mm, at(100), at(150)), 0);
	else
		assert_int_equal(home_munmap(mm, at(100), at(150)), 0);
	assert_int_equal(job_to_system(&j), 0);
	after_cut(job_finish(&j), n, 100, 0, false);
	unmap(0, n);
	wait_frames(0, 0);
}

static void test_cut_on_the_way_home(void **state)
{
	(void)state;
	for (int dontneed = 0; dontneed < 2; dontneed++) {
		cut_home(200, false, dontneed);
		cut_home(HUGE_PAGES, false, dontneed);
		cut_home(HUGE_PAGES, true, dontneed);
	}
}

static void cut_across(u64 n, bool huge)
{
	unsigned moved;

	on_device(0, 0, n, 1, huge);
	job_init(&j, 0, (unsigned)n, MM_MIGRATE_DEVICE | (huge ? MM_MIGRATE_COMPOUND : 0));
	job_begin(&j);
	job_to_device(&j, 1);
	assert_int_equal(home_munmap(mm, at(100), at(150)), 0);
	moved = job_finish(&j);
	sync_all();
	assert_true(moved == 0 || moved == n - 50);
	wait_frames(0, moved ? 0 : n - 50);
	wait_frames(1, moved);
	expect(0, 100, 1);
	expect(150, n - 150, 1);
	unmap(0, n);
	wait_frames(0, 0);
	wait_frames(1, 0);
}

static void test_cut_on_the_way_across(void **state)
{
	(void)state;
	cut_across(200, false);
	cut_across(HUGE_PAGES, false);
	cut_across(HUGE_PAGES, true);
}

static void test_gone_on_the_way(void **state)
{
	(void)state;
	for (int huge = 0; huge < 2; huge++) {
		u32 flags = huge ? MM_MIGRATE_COMPOUND : 0;

		map(0, HUGE_PAGES, HOME_RW | (huge ? HOME_HUGE : 0));
		fill(0, HUGE_PAGES, 1);
		job_init(&j, 0, HUGE_PAGES, MM_MIGRATE_SYSTEM | flags);
		job_begin(&j);
		job_to_device(&j, 0);
		assert_int_equal(home_munmap(mm, at(0), at(HUGE_PAGES)), 0);
		assert_int_equal(job_finish(&j), 0);
		sync_all();
		wait_frames(0, 0);
		on_device(0, 0, HUGE_PAGES, 2, huge);
		job_init(&j, 0, HUGE_PAGES, MM_MIGRATE_DEVICE | flags);
		job_begin(&j);
		assert_int_equal(job_to_system(&j), 0);
		map(0, HUGE_PAGES, HOME_RW);
		(void)job_finish(&j);
		sync_all();
		wait_frames(0, 0);
		expect_zero(0, HUGE_PAGES);
	}
}

/* Mapped anew at once, by memory of which the home knows nothing. */
static void test_replaced_on_the_way(void **state)
{
	(void)state;
	map(0, 16, HOME_RW);
	fill(0, 16, 1);
	job_init(&j, 0, 16, MM_MIGRATE_SYSTEM);
	job_begin(&j);
	job_to_device(&j, 0);
	map(0, 16, HOME_RW);
	fill(0, 8, 2);
	assert_int_equal(job_finish(&j), 0);
	sync_all();
	wait_frames(0, 0);
	expect(0, 8, 2);
	expect_zero(8, 8);
}

static void test_protected_on_the_way(void **state)
{
	(void)state;
	map(0, 16, HOME_RW);
	fill(0, 16, 1);
	for (int commit = 0; commit < 2; commit++) {
		job_init(&j, 0, 16, MM_MIGRATE_SYSTEM);
		job_begin(&j);
		job_to_device(&j, 0);
		assert_int_equal(home_mprotect(mm, at(0), at(16), HOME_READ), 0);
		if (commit)
			mm_migrate_commit(&j.m);
		mm_migrate_end(&j.m);
		expect(0, 16, 1);
		assert_int_equal(home_mprotect(mm, at(0), at(16), HOME_RW), 0);
		sync_all();
	}
	expect(0, 16, 1);
}

static u64 moved_to;
static u32 moved_result; /* atomic: 1 + whether it failed */

static void remapper(void *arg)
{
	int r = home_mremap(mm, at(0), at(16), at(moved_to), false);

	(void)arg;
	host_store_release(&moved_result, r ? 2 : 1);
}

/* The mapping moves while its pages do. A home may hold that up until they are
 * through. */
static void remap_on_the_way(bool out, bool commit)
{
	struct host_thread thread = {0};

	map(0, 16, HOME_RW);
	fill(0, 16, 1);
	if (!out)
		assert_int_equal(move_out(0, 0, 16, 0), 16);
	job_init(&j, 0, 16, out ? MM_MIGRATE_SYSTEM : MM_MIGRATE_DEVICE);
	job_begin(&j);
	if (out)
		job_to_device(&j, 0);
	else
		assert_int_equal(job_to_system(&j), 0);
	moved_result = 0;
	moved_to = 2 * HUGE_PAGES + 3;
	assert_int_equal(host_thread_start(&thread, "remapper", remapper, NULL), 0);
	host_sleep(5 * HOST_MSEC);
	if (commit)
		mm_migrate_commit(&j.m);
	mm_migrate_end(&j.m);
	host_thread_join(&thread);
	assert_int_equal(moved_result, 1);
	sync_all();
	wait_frames(0, out == commit ? 16 : 0);
	for (u64 i = 0; i < 16; i++) {
		u64 word;

		assert_int_equal(home_load(mm, at(moved_to + i) + i * 8, &word, 8), 0);
		assert_int_equal(word, (i + 1) * 0x9e3779b97f4a7c15ull ^ 1);
	}
	unmap(0, moved_to + 16);
}

static void test_remapped_on_the_way(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++)
		remap_on_the_way(i & 1, i & 2);
}

static u64 seen;

static void toucher(void *arg)
{
	u64 word;

	(void)arg;
	HOST_CHECK(home_load(mm, at(3) + 24, &word, 8) == 0);
	HOST_CHECK(host_load_acquire(&moved_result));
	host_store_release(&seen, word);
}

/* An access waits while its page is on the way, and finds its word. */
static void test_access_waits(void **state)
{
	(void)state;
	for (int out = 0; out < 2; out++) {
		struct host_thread thread = {0};

		map(0, 16, HOME_RW);
		fill(0, 16, 1);
		if (!out)
			assert_int_equal(move_out(0, 0, 16, 0), 16);
		moved_result = 0;
		seen = 0;
		job_init(&j, 0, 16, out ? MM_MIGRATE_SYSTEM : MM_MIGRATE_DEVICE);
		job_begin(&j);
		if (out)
			job_to_device(&j, 0);
		else
			assert_int_equal(job_to_system(&j), 0);
		assert_int_equal(host_thread_start(&thread, "toucher", toucher, NULL), 0);
		host_sleep(5 * HOST_MSEC);
		host_store_release(&moved_result, 1);
		assert_int_equal(job_finish(&j), 16);
		host_thread_join(&thread);
		assert_int_equal(seen, 4 * 0x9e3779b97f4a7c15ull ^ 1);
		expect(0, 16, 1);
		unmap(0, 16);
	}
}

const struct CMUnitTest change_tests[] = {
    host_test(test_munmap),
    host_test(test_munmap_compound),
    host_test(test_map_over),
    host_test(test_dontneed),
    host_test(test_mremap),
    host_test(test_mremap_part_of_compound),
    host_test(test_mprotect),
    host_test(test_cut_on_the_way_out),
    host_test(test_cut_on_the_way_home),
    host_test(test_cut_on_the_way_across),
    host_test(test_gone_on_the_way),
    host_test(test_replaced_on_the_way),
    host_test(test_protected_on_the_way),
    host_test(test_remapped_on_the_way),
    host_test(test_access_waits),
};
const unsigned n_change_tests = host_array_size(change_tests);
