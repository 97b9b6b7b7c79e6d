/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_straight.c: transactions that say beforehand which frames pages go to. Where the
 * frames are ordinary memory, and the home can, the pages are moved there at once;
 * everywhere else this changes nothing. */
#include "tests/host/home.h"

#include <string.h>

static struct job j;

/* Of the transaction under test, for all of its entries. */
static struct {
	u64 frames[HUGE_PAGES];
	bool given[HUGE_PAGES];
	unsigned n;
} to;
static bool moves; /* the home can */

static u64 frame_of(void *arg, unsigned i, unsigned *n)
{
	(void)arg;
	for (*n = 1; i + *n < to.n && to.frames[i + *n] == to.frames[i] + *n; ++*n)
		;
	return to.frames[i];
}

static void memory_begin(void)
{
	int r = mm_memory_add(mm, devices[0].memory, FRAMES * PAGE);

	assert_true(r == 0 || r == -EOPNOTSUPP);
	moves = r == 0;
	if (moves)
		mm_region_set_memory(devices[0].region, devices[0].memory);
}

static void memory_end(void)
{
	wait_frames(0, 0);
	if (moves)
		mm_memory_remove(mm, devices[0].memory, FRAMES * PAGE);
}

static void take_frames(unsigned n, bool whole, bool scattered)
{
	u64 first = whole ? frame_take(0, HOST_HUGE_ORDER) : 0;

	memset(&to, 0, sizeof(to));
	to.n = n;
	for (unsigned i = 0; i < n; i++)
		to.frames[i] = whole ? first + i : frame_take(0, 0);
	for (unsigned i = 0; scattered && i < n / 2; i++) {
		u64 frame = to.frames[i];

		to.frames[i] = to.frames[n - 1 - i];
		to.frames[n - 1 - i] = frame;
	}
}

static void begin(u64 first, unsigned n, u32 flags)
{
	job_init(&j, first, n, MM_MIGRATE_SYSTEM | flags);
	j.m.region = devices[0].region;
	j.m.frame = frame_of;
	job_begin(&j);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(!!(j.src[i] & MM_MPFN_MOVE), moves && j.src[i] & MM_MPFN_MIGRATE);
}

static void place(unsigned i)
{
	unsigned n = j.src[i] & MM_MPFN_COMPOUND ? HUGE_PAGES : 1;

	job_place_in(&j, i, 0, to.frames[i]);
	memset(&to.given[i], true, n);
}

static void place_all(void)
{
	for (unsigned i = 0; i < j.m.npages; i++)
		if (j.src[i] & MM_MPFN_MIGRATE)
			place(i);
}

/* Pages that moved. */
static unsigned end(bool commit)
{
	if (commit)
		mm_migrate_commit(&j.m);
	mm_migrate_end(&j.m);
	for (unsigned i = 0; i < to.n; i++)
		if (!to.given[i])
			frame_give(0, to.frames[i]);
	return commit ? job_moved(&j) : 0;
}

static unsigned out(u64 first, unsigned n, u32 flags, bool scattered)
{
	take_frames(n, flags & MM_MIGRATE_COMPOUND, scattered);
	begin(first, n, flags);
	place_all();
	return end(true);
}

static void test_there_and_back(void **state)
{
	(void)state;
	memory_begin();
	map(0, 64, HOME_RW);
	for (u64 round = 0; round < 6; round++) {
		fill(0, 64, round);
		assert_int_equal(out(0, 64, 0, round % 2), 64);
		wait_frames(0, 64);
		if (round % 3)
			assert_int_equal(move_home(0, 64, 0), 64);
		else
			expect(0, 64, round);
		wait_frames(0, 0);
		expect(0, 64, round);
	}
	memory_end();
}

static void test_compound(void **state)
{
	(void)state;
	memory_begin();
	map(0, HUGE_PAGES, HOME_RW | HOME_HUGE);
	for (u64 round = 0; round < 4; round++) {
		fill(0, HUGE_PAGES, round);
		assert_int_equal(out(0, HUGE_PAGES, MM_MIGRATE_COMPOUND, false), HUGE_PAGES);
		assert_int_equal(move_home(0, HUGE_PAGES, round % 2 ? MM_MIGRATE_COMPOUND : 0),
				 HUGE_PAGES);
		wait_frames(0, 0);
		expect(0, HUGE_PAGES, round);
	}
	memory_end();
}

/* Nothing becomes of it: all is as it was, and only then the frames are freed. */
static void given_up(u64 n, u32 flags, bool placed)
{
	map(0, n, HOME_RW | (flags & MM_MIGRATE_COMPOUND ? HOME_HUGE : 0));
	for (u64 round = 0; round < 3; round++) {
		fill(0, n, round);
		take_frames((unsigned)n, flags & MM_MIGRATE_COMPOUND, false);
		begin(0, (unsigned)n, flags);
		assert_int_equal(j.m.collected, n);
		if (placed)
			place_all();
		end(false);
		wait_frames(0, 0);
		expect(0, n, round);
	}
}

static void test_given_up(void **state)
{
	(void)state;
	memory_begin();
	given_up(32, 0, true);
	unmap(0, 32);
	given_up(32, 0, false);
	unmap(0, 32);
	given_up(HUGE_PAGES, MM_MIGRATE_COMPOUND, true);
	unmap(0, HUGE_PAGES);
	given_up(HUGE_PAGES, MM_MIGRATE_COMPOUND, false);
	memory_end();
}

static void test_some_stay(void **state)
{
	(void)state;
	memory_begin();
	map(0, 32, HOME_RW);
	fill(0, 32, 1);
	take_frames(32, false, false);
	begin(0, 32, 0);
	for (unsigned i = 0; i < 32; i += 3)
		place(i);
	assert_int_equal(end(true), 11);
	wait_frames(0, 11);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(state_of(i).page != NULL, i % 3 == 0);
	expect(0, 32, 1);
	unmap(0, 32);
	memory_end();
}

/* A part, or all, is unmapped while it is on its way. */
static void unmapped(unsigned n, u32 flags, unsigned first, unsigned last, bool commit)
{
	map(0, n, HOME_RW | (flags & MM_MIGRATE_COMPOUND ? HOME_HUGE : 0));
	fill(0, n, 7);
	take_frames(n, flags & MM_MIGRATE_COMPOUND, false);
	begin(0, n, flags);
	place_all();
	unmap(first, last - first);
	(void)end(commit);
	if (first)
		expect(0, first, 7);
	if (last < n)
		expect(last, n - last, 7);
	unmap(0, n);
	wait_frames(0, 0);
}

static void test_unmapped(void **state)
{
	(void)state;
	memory_begin();
	for (unsigned commit = 0; commit < 2; commit++) {
		unmapped(32, 0, 8, 24, commit);
		unmapped(32, 0, 0, 32, commit);
		unmapped(HUGE_PAGES, MM_MIGRATE_COMPOUND, 100, 200, commit);
		unmapped(HUGE_PAGES, MM_MIGRATE_COMPOUND, 0, HUGE_PAGES, commit);
	}
	memory_end();
}

/* What was never populated is zeros, and what was is itself, whatever the frames have had
 * in them. */
static void test_frames_are_full(void **state)
{
	(void)state;
	memory_begin();
	for (u64 round = 0; round < 2; round++) {
		memset(devices[0].memory, 0x55, 4 * HUGE_PAGES * PAGE);
		map(0, 96, HOME_RW);
		for (u64 i = 0; i < 96; i += 3)
			put(i, i + 1);
		assert_int_equal(out(0, 96, 0, round), 96);
		for (u64 i = 0; i < 96; i++)
			assert_int_equal(get(i), i % 3 ? 0 : i + 1);
		unmap(0, 96);
		wait_frames(0, 0);
		memset(devices[0].memory, 0x55, 4 * HUGE_PAGES * PAGE);
		map(0, HUGE_PAGES, HOME_RW | HOME_HUGE);
		if (round)
			fill(0, HUGE_PAGES, 3);
		assert_int_equal(out(0, HUGE_PAGES, MM_MIGRATE_COMPOUND, false), HUGE_PAGES);
		if (round)
			expect(0, HUGE_PAGES, 3);
		else
			expect_zero(0, HUGE_PAGES);
		unmap(0, HUGE_PAGES);
		wait_frames(0, 0);
	}
	memory_end();
}

const struct CMUnitTest straight_tests[] = {
    host_test(test_there_and_back), host_test(test_compound), host_test(test_given_up),
    host_test(test_some_stay),	    host_test(test_unmapped), host_test(test_frames_are_full),
};
const unsigned n_straight_tests = host_array_size(straight_tests);
