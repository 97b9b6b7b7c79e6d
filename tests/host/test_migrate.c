/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_migrate.c: transactions by address and by frame, that go well or do not. */
#include "tests/host/home.h"

static struct job j;

static void test_begin_checks(void **state)
{
	(void)state;
	map(0, 2 * HUGE_PAGES, HOME_RW);
	job_init(&j, HUGE_PAGES - 1, 2, MM_MIGRATE_SYSTEM);
	assert_int_equal(mm_migrate_begin(&j.m), -EINVAL);
	job_init(&j, 0, 1, MM_MIGRATE_SYSTEM);
	j.m.start += 8;
	assert_int_equal(mm_migrate_begin(&j.m), -EINVAL);
	job_init(&j, 0, 1, MM_MIGRATE_SYSTEM);
	j.m.end = j.m.start;
	assert_int_equal(mm_migrate_begin(&j.m), -EINVAL);
}

static void test_there_and_back(void **state)
{
	(void)state;
	map(0, 64, HOME_RW);
	for (u64 round = 0; round < 4; round++) {
		fill(0, 64, round);
		assert_int_equal(move_out(0, 0, 64, 0), 64);
		wait_frames(0, 64);
		assert_int_equal(move_home(0, 64, 0), 64);
		wait_frames(0, 0);
		expect(0, 64, round);
		assert_int_equal(devices[0].faults, 0);
	}
}

static void test_compound(void **state)
{
	u64 order;

	(void)state;
	for (u64 round = 0; round < 3; round++) {
		on_device(0, 0, HUGE_PAGES, round, true);
		order = state_of(7).order;
		assert_int_equal(devices[0].data->users, order ? 1 : HUGE_PAGES);
		assert_int_equal(move_home(0, HUGE_PAGES, MM_MIGRATE_COMPOUND), HUGE_PAGES);
		wait_frames(0, 0);
		expect(0, HUGE_PAGES, round);
	}
}

/* Where 2M pages are not asked for, they are split. */
static void test_compound_in_parts(void **state)
{
	(void)state;
	on_device(0, 0, HUGE_PAGES, 1, true);
	assert_int_equal(move_home(0, HUGE_PAGES, 0), HUGE_PAGES);
	wait_frames(0, 0);
	expect(0, HUGE_PAGES, 1);
	on_device(0, HUGE_PAGES, HUGE_PAGES, 2, true);
	assert_int_equal(move_home(HUGE_PAGES + 100, 10, MM_MIGRATE_COMPOUND), 10);
	wait_frames(0, HUGE_PAGES - 10);
	expect(HUGE_PAGES, HUGE_PAGES, 2);
}

/* An unpopulated page is no hole: it moves, as zeros. */
static void test_unpopulated(void **state)
{
	(void)state;
	map(0, 16, HOME_RW);
	put(3, 3);
	assert_int_equal(get(4), 0); /* the zero page */
	job_init(&j, 0, 16, MM_MIGRATE_SYSTEM);
	job_begin(&j);
	assert_int_equal(j.m.collected, 16);
	assert_int_equal(j.src[3] & MM_MPFN_ZERO, 0);
	job_to_device(&j, 0);
	assert_int_equal(job_finish(&j), 16);
	expect_zero(0, 3);
	assert_int_equal(get(3), 3);
	expect_zero(4, 12);
}

/* A run with holes, pages that may not move and pages that are there already. */
static void test_partial(void **state)
{
	void *pin;
	int pinned;

	(void)state;
	map(0, 4, HOME_RW);
	map(6, 4, HOME_RW);
	map(10, 2, HOME_RW | HOME_SHARED);
	map(12, 4, HOME_RW);
	fill(0, 4, 1);
	fill(6, 10, 1);
	assert_int_equal(home_mprotect(mm, at(14), at(15), HOME_READ), 0);
	pinned = home_pin(mm, at(0), &pin);
	assert_int_equal(move_out(0, 7, 2, 0), 2);
	job_init(&j, 0, 20, MM_MIGRATE_SYSTEM);
	job_begin(&j);
	job_to_device(&j, 1);
	assert_true(j.m.stayed_reason & MM_STAYED_HOLE);
	assert_true(j.m.stayed_reason & MM_STAYED_NOT_MIGRATABLE);
	assert_true(pinned || j.m.stayed_reason & MM_STAYED_PINNED);
	for (unsigned i = 0; i < 20; i++) {
		bool stays = (i == 0 && !pinned) || i == 4 || i == 5 || i == 7 || i == 8 ||
			     i == 10 || i == 11 || i == 14 || i > 15;

		assert_int_equal(!!(j.src[i] & MM_MPFN_MIGRATE), !stays);
	}
	assert_int_equal(job_finish(&j), pinned ? 9 : 8);
	if (!pinned)
		home_unpin(pin);
	wait_frames(0, 2);
	wait_frames(1, pinned ? 9 : 8);
	expect(0, 4, 1);
	expect(6, 10, 1);
	if (pinned) {
		print_message("the home %s cannot pin a page here\n", home_name);
		skip();
	}
}

static void test_file_stays(void **state)
{
	(void)state;
	map(0, 2, HOME_RW | HOME_FILE);
	fill(0, 2, 1);
	job_init(&j, 0, 2, MM_MIGRATE_SYSTEM);
	job_begin(&j);
	assert_int_equal(j.m.collected, 0);
	assert_true(j.m.stayed_reason & MM_STAYED_NOT_MIGRATABLE);
	mm_migrate_end(&j.m);
	expect(0, 2, 1);
}

static void test_nothing_there(void **state)
{
	(void)state;
	job_init(&j, 0, 16, MM_MIGRATE_SYSTEM);
	job_begin(&j);
	assert_int_equal(j.m.collected, 0);
	assert_true(j.m.stayed_reason & MM_STAYED_HOLE);
	assert_int_equal(job_finish(&j), 0);
	job_init(&j, 0, 16, MM_MIGRATE_DEVICE);
	job_begin(&j);
	assert_int_equal(j.m.collected, 0);
	assert_int_equal(job_to_system(&j), 0);
	assert_int_equal(job_finish(&j), 0);
}

static bool select_odd(void *arg, struct mm_page *page)
{
	(void)arg;
	return mm_page_index(page) & 1;
}

static void test_select(void **state)
{
	unsigned n;

	(void)state;
	on_device(0, 0, 16, 1, false);
	job_init(&j, 0, 16, MM_MIGRATE_DEVICE);
	j.m.select = select_odd;
	job_begin(&j);
	assert_int_equal(job_to_system(&j), 0);
	n = job_finish(&j);
	assert_int_equal(n, 8);
	wait_frames(0, 8);
	expect(0, 16, 1);
}

/* Mappings side by side that are not one: moved there, from elsewhere. */
static void test_over_mappings(void **state)
{
	const unsigned n[] = {8, 100};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		u64 word;

		map(0, 2 * n[i] + 1, HOME_RW);
		fill(0, 2 * n[i] + 1, 1);
		map(1000, n[i], HOME_RW);
		for (u64 k = 0; k < n[i]; k++)
			assert_int_equal(
			    home_store(mm, at(1000 + k) + (n[i] + k) * 8, &(u64){k}, 8), 0);
		assert_int_equal(home_mremap(mm, at(1000), at(1000 + n[i]), at(n[i]), false), 0);
		sync_all();
		assert_int_equal(move_out(0, 0, 2 * n[i] + 1, 0), 2 * n[i] + 1);
		assert_int_equal(move_home(0, 2 * n[i] + 1, 0), 2 * n[i] + 1);
		wait_frames(0, 0);
		assert_int_equal(move_out(0, 0, 2 * n[i] + 1, 0), 2 * n[i] + 1);
		expect(0, n[i], 1);
		expect(2 * n[i], 1, 1);
		for (u64 k = 0; k < n[i]; k++) {
			assert_int_equal(home_load(mm, at(n[i] + k) + (n[i] + k) * 8, &word, 8), 0);
			assert_int_equal(word, k);
		}
		unmap(0, 2 * n[i] + 1);
	}
}

/* ---- Ends that are none --------------------------------------------------------- */

static void test_no_commit(void **state)
{
	(void)state;
	map(0, 32, HOME_RW);
	fill(0, 16, 1);
	job_init(&j, 0, 32, MM_MIGRATE_SYSTEM);
	job_begin(&j);
	mm_migrate_end(&j.m);
	expect(0, 16, 1);
	expect_zero(16, 16);
	assert_int_equal(move_out(0, 0, 32, 0), 32);
	job_init(&j, 0, 32, MM_MIGRATE_DEVICE);
	job_begin(&j);
	assert_int_equal(job_to_system(&j), 0);
	mm_migrate_end(&j.m);
	wait_frames(0, 32);
	expect(0, 16, 1);
	expect_zero(16, 16);
}

static void test_no_commit_compound(void **state)
{
	(void)state;
	map(0, HUGE_PAGES, HOME_RW | HOME_HUGE);
	fill(0, HUGE_PAGES, 1);
	job_init(&j, 0, HUGE_PAGES, MM_MIGRATE_SYSTEM | MM_MIGRATE_COMPOUND);
	job_begin(&j);
	mm_migrate_end(&j.m);
	expect(0, HUGE_PAGES, 1);
	assert_int_equal(move_out(0, 0, HUGE_PAGES, MM_MIGRATE_COMPOUND), HUGE_PAGES);
	job_init(&j, 0, HUGE_PAGES, MM_MIGRATE_DEVICE | MM_MIGRATE_COMPOUND);
	job_begin(&j);
	assert_int_equal(job_to_system(&j), 0);
	mm_migrate_end(&j.m);
	wait_frames(0, HUGE_PAGES);
	expect(0, HUGE_PAGES, 1);
}

/* Frames that were prepared and never committed are given back. */
static void test_no_commit_of_frames(void **state)
{
	(void)state;
	map(0, 16, HOME_RW);
	fill(0, 16, 1);
	job_init(&j, 0, 16, MM_MIGRATE_SYSTEM);
	job_begin(&j);
	job_to_device(&j, 0);
	for (unsigned i = 0; i < 16; i++) {
		mm_page_abandon(mm_mpfn_page(j.dst[i]));
		j.dst[i] = 0;
	}
	mm_migrate_end(&j.m);
	wait_frames(0, 0);
	expect(0, 16, 1);
	job_init(&j, 0, 16, MM_MIGRATE_SYSTEM);
	job_begin(&j);
	job_to_device(&j, 0);
	mm_migrate_end(&j.m); /* those in dst are left to the home */
	wait_frames(0, 0);
	expect(0, 16, 1);
}

/* dst 0: the page stays, both ways. */
static void test_some_stay(void **state)
{
	(void)state;
	map(0, 16, HOME_RW);
	fill(0, 16, 1);
	job_init(&j, 0, 16, MM_MIGRATE_SYSTEM);
	job_begin(&j);
	for (unsigned i = 0; i < 16; i += 3)
		job_place(&j, i, 0);
	mm_migrate_commit(&j.m);
	mm_migrate_end(&j.m);
	wait_frames(0, 6);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(state_of(i).page != NULL, i % 3 == 0);
		if (i % 3 == 0)
			assert_true(j.src[i] & MM_MPFN_MIGRATE);
		else
			assert_false(j.src[i] & MM_MPFN_MIGRATE);
	}
	expect(0, 16, 1);
	assert_int_equal(move_out(0, 0, 16, 0), 16);
	job_init(&j, 0, 16, MM_MIGRATE_DEVICE);
	job_begin(&j);
	assert_int_equal(mm_migrate_alloc_system(&j.m), 0);
	for (unsigned i = 0; i < 16; i += 2)
		j.dst[i] = 0;
	job_fill_system(&j);
	assert_int_equal(job_finish(&j), 8);
	wait_frames(0, 8);
	expect(0, 16, 1);
}

/* ---- By frame -------------------------------------------------------------------- */

static unsigned frames_home(unsigned device, u64 first, unsigned n, u32 flags)
{
	job_init(&j, 0, n, flags | MM_MIGRATE_DEVICE);
	assert_int_equal(mm_migrate_begin_frames(&j.m, devices[device].region, first), 0);
	assert_int_equal(job_to_system(&j), 0);
	return job_finish(&j);
}

static void test_frames(void **state)
{
	(void)state;
	/* At three places, in an order that is not the frames'. */
	on_device(0, 900, 8, 1, false);
	on_device(0, 0, 8, 2, false);
	on_device(0, 3 * HUGE_PAGES, 8, 3, false);
	assert_int_equal(frames_home(0, 4, 4, 0), 4);
	wait_frames(0, 20);
	assert_int_equal(frames_home(0, 0, 64, 0), 20);
	wait_frames(0, 0);
	assert_int_equal(frames_home(0, 0, 64, 0), 0);
	expect(900, 8, 1);
	expect(0, 8, 2);
	expect(3 * HUGE_PAGES, 8, 3);
	assert_int_equal(devices[0].faults, 0);
}

static void test_frames_compound(void **state)
{
	u64 first;

	(void)state;
	on_device(0, 0, HUGE_PAGES, 1, true);
	first = mm_page_index(state_of(0).page);
	assert_int_equal(frames_home(0, first, HUGE_PAGES, MM_MIGRATE_COMPOUND), HUGE_PAGES);
	wait_frames(0, 0);
	expect(0, HUGE_PAGES, 1);
}

/* A part of a compound frame's pages, from its head or from its middle. */
static void test_frames_of_compound(void **state)
{
	const u64 offsets[] = {0, 32, HUGE_PAGES - 16};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		u64 first;

		on_device(0, 0, HUGE_PAGES, i, true);
		first = mm_page_index(state_of(0).page);
		assert_int_equal(frames_home(0, first + offsets[i], 16, 0), 16);
		wait_frames(0, HUGE_PAGES - 16);
		assert_null(state_of(offsets[i]).page);
		expect(0, HUGE_PAGES, i);
		wait_frames(0, 0);
	}
}

static void test_frames_no_commit(void **state)
{
	(void)state;
	on_device(0, 0, 16, 1, false);
	job_init(&j, 0, 16, MM_MIGRATE_DEVICE);
	assert_int_equal(mm_migrate_begin_frames(&j.m, devices[0].region, 0), 0);
	assert_int_equal(j.m.collected, 16);
	mm_migrate_end(&j.m);
	wait_frames(0, 16);
	expect(0, 16, 1);
}

/* ---- Across ----------------------------------------------------------------------- */

static bool select_device(void *arg, struct mm_page *page)
{
	return device_of(page) == arg;
}

static unsigned across(unsigned from, unsigned to, u64 first, unsigned n, u32 flags)
{
	job_init(&j, first, n, flags | MM_MIGRATE_DEVICE);
	j.m.select = select_device;
	j.m.select_arg = &devices[from];
	job_begin(&j);
	job_to_device(&j, to);
	return job_finish(&j);
}

static void test_across(void **state)
{
	(void)state;
	on_device(0, 0, 16, 1, false);
	on_device(1, 16, 4, 1, false);
	assert_int_equal(across(0, 1, 0, 20, 0), 16);
	wait_frames(0, 0);
	wait_frames(1, 20);
	assert_int_equal(across(1, 0, 4, 4, 0), 4);
	wait_frames(0, 4);
	assert_int_equal(devices[0].faults + devices[1].faults, 0);
	expect(0, 20, 1);
}

static void test_across_compound(void **state)
{
	(void)state;
	on_device(0, 0, HUGE_PAGES, 1, true);
	assert_int_equal(across(0, 1, 0, HUGE_PAGES, MM_MIGRATE_COMPOUND), HUGE_PAGES);
	wait_frames(0, 0);
	assert_int_equal(across(1, 0, 32, 16, MM_MIGRATE_COMPOUND), 16);
	wait_frames(0, 16);
	wait_frames(1, HUGE_PAGES - 16);
	expect(0, HUGE_PAGES, 1);
}

/* System memory and another device's pages at once. */
static void test_from_both(void **state)
{
	(void)state;
	map(0, 16, HOME_RW);
	fill(0, 16, 1);
	assert_int_equal(move_out(0, 4, 4, 0), 4);
	assert_int_equal(across(0, 1, 0, 16, MM_MIGRATE_SYSTEM), 16);
	wait_frames(0, 0);
	wait_frames(1, 16);
	expect(0, 16, 1);
}

static void test_across_no_commit(void **state)
{
	(void)state;
	on_device(0, 0, 8, 1, false);
	job_init(&j, 0, 8, MM_MIGRATE_DEVICE);
	job_begin(&j);
	job_to_device(&j, 1);
	mm_migrate_end(&j.m);
	wait_frames(0, 8);
	wait_frames(1, 0);
	expect(0, 8, 1);
}

const struct CMUnitTest migrate_tests[] = {
    host_test(test_begin_checks),
    host_test(test_there_and_back),
    host_test(test_compound),
    host_test(test_compound_in_parts),
    host_test(test_unpopulated),
    host_test(test_partial),
    host_test(test_file_stays),
    host_test(test_nothing_there),
    host_test(test_select),
    host_test(test_over_mappings),
    host_test(test_no_commit),
    host_test(test_no_commit_compound),
    host_test(test_no_commit_of_frames),
    host_test(test_some_stay),
    host_test(test_frames),
    host_test(test_frames_compound),
    host_test(test_frames_of_compound),
    host_test(test_frames_no_commit),
    host_test(test_across),
    host_test(test_across_compound),
    host_test(test_from_both),
    host_test(test_across_no_commit),
};
const unsigned n_migrate_tests = host_array_size(migrate_tests);
