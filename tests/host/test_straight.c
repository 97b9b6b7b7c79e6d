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

/* ---- Several 2M at once ----------------------------------------------------------- */

#define TOGETHER 4u

/* Where 2M of it are one page, and known to the home, they move; where not, not. */
static struct mm_move_huge together;

static int move_together(u64 block, unsigned n)
{
	struct device *d = &devices[0];
	int r;

	together = (struct mm_move_huge){.mm = mm, .start = at(block * HUGE_PAGES), .n = n};
	together.migrator = devices;
	for (unsigned i = 0; i < n; i++) {
		u64 frame = frame_take(0, HOST_HUGE_ORDER);

		host_add_return(&d->data->users, 1);
		together.pages[i] = mm_page_init(d->region, frame, HOST_HUGE_ORDER, d->data);
	}
	r = mm_move_huge(&together);
	assert_true(r == 0 || (r == -EOPNOTSUPP && !moves));
	assert_true(together.moved < (u64)1 << n);
	for (unsigned i = 0; i < n; i++)
		if (!(together.moved >> i & 1))
			mm_page_abandon(together.pages[i]);
	wait_frames(0, (u64)__builtin_popcountll(together.moved) * HUGE_PAGES);
	return r;
}

/* Huge pages that the home knows: once it does, it is who fills them, in small ones. */
static void known(u64 seed)
{
	map(0, TOGETHER * HUGE_PAGES, HOME_RW | HOME_HUGE);
	fill(0, TOGETHER * HUGE_PAGES, seed);
	assert_int_equal(mm_watch(mm, at(0), at(TOGETHER * HUGE_PAGES)), 0);
}

static bool all_huge(void)
{
	for (unsigned i = 0; i < TOGETHER; i++)
		if (state_of(i * HUGE_PAGES).order != HOST_HUGE_ORDER)
			return false;
	return true;
}

static void all_home(void)
{
	for (unsigned i = 0; i < TOGETHER; i++)
		(void)move_home(i * HUGE_PAGES, HUGE_PAGES, MM_MIGRATE_COMPOUND);
	wait_frames(0, 0);
}

static void test_together(void **state)
{
	struct listener l = {0};
	bool moved = false;

	(void)state;
	memory_begin();
	known(0);
	listen(&l, 0, TOGETHER * HUGE_PAGES);
	for (unsigned round = 0; round < 50 && !moved; round++) {
		bool huge = all_huge();

		listen_anew(&l);
		fill(0, TOGETHER * HUGE_PAGES, round);
		(void)move_together(0, TOGETHER);
		moved = together.moved == (1u << TOGETHER) - 1;
		if (moved) {
			assert_int_equal(l.starts, 1);
			assert_int_equal(l.start, at(0));
			assert_int_equal(l.end, at(TOGETHER * HUGE_PAGES));
			assert_int_equal(l.events, 1u << MM_EVENT_MIGRATE);
		}
		for (unsigned i = 0; i < TOGETHER; i++)
			if (together.moved >> i & 1)
				assert_ptr_equal(state_of(i * HUGE_PAGES).page, together.pages[i]);
			else
				assert_null(state_of(i * HUGE_PAGES).page);
		all_home();
		expect(0, TOGETHER * HUGE_PAGES, round);
		moved |= !moves || !huge;
	}
	assert_true(moved);
	unlisten(&l);
	memory_end();
}

/* With one that cannot go between others, and each time another way: what it has stays. */
static void test_together_but_one(void **state)
{
	const u64 odd = HUGE_PAGES + 7;

	(void)state;
	memory_begin();
	for (unsigned way = 0; way < 4; way++) {
		known(way);
		if (way == 0)
			assert_int_equal(home_dontneed(mm, at(odd), at(odd + 1)), 0);
		if (way == 1)
			assert_int_equal(home_mprotect(mm, at(odd), at(HUGE_PAGES * 2), HOME_READ),
					 0);
		if (way == 2)
			unmap(odd, 1);
		if (way == 3)
			assert_int_equal(move_out(1, odd, 1, 0), 1);
		(void)move_together(0, TOGETHER);
		assert_false(together.moved & 2);
		all_home();
		expect(HUGE_PAGES, odd - HUGE_PAGES, way);
		expect(odd + 1, 2 * HUGE_PAGES - odd - 1, way);
		if (way == 0)
			expect_zero(odd, 1);
		else if (way != 2)
			expect(odd, 1, way);
		expect(0, HUGE_PAGES, way);
		expect(2 * HUGE_PAGES, 2 * HUGE_PAGES, way);
		unmap(0, TOGETHER * HUGE_PAGES);
	}
	wait_frames(1, 0);
	memory_end();
}

/* Of the frames, the second has a page of an earlier use. */
static void test_together_full_frames(void **state)
{
	(void)state;
	memory_begin();
	for (u64 round = 0; round < 3; round++) {
		memset(devices[0].memory + HUGE_PAGES * PAGE, 0x55, (round + 1) * PAGE);
		known(round);
		(void)move_together(0, TOGETHER);
		assert_false(together.moved & 2);
		all_home();
		expect(0, TOGETHER * HUGE_PAGES, round);
		unmap(0, TOGETHER * HUGE_PAGES);
	}
	memory_end();
}

/* What devices are told of, changes while they are told. */
static bool changed;

static void change_on_the_way(struct listener *l, const struct mm_invalidation *inv)
{
	unsigned way = *(unsigned *)l->arg;
	u64 page = HUGE_PAGES + 9, n = 100;

	if (inv->event != MM_EVENT_MIGRATE || changed)
		return;
	changed = true;
	if (way == 0)
		HOST_CHECK(home_munmap(mm, at(page), at(page + n)) == 0);
	if (way == 1)
		HOST_CHECK(home_dontneed(mm, at(page), at(page + n)) == 0);
	if (way == 2)
		HOST_CHECK(home_munmap(mm, at(HUGE_PAGES), at(2 * HUGE_PAGES)) == 0);
	if (way == 3)
		HOST_CHECK(home_mremap(mm, at(HUGE_PAGES), at(2 * HUGE_PAGES),
				       at(2 * TOGETHER * HUGE_PAGES), false) == 0);
	if (way == 4)
		HOST_CHECK(home_mremap(mm, at(page), at(page + n),
				       at(2 * TOGETHER * HUGE_PAGES + 9), false) == 0);
}

static void test_together_changed(void **state)
{
	(void)state;
	memory_begin();
	for (unsigned way = 0; way < 5; way++) {
		struct listener l = {.on_start = change_on_the_way, .arg = &way};
		u64 page = HUGE_PAGES + 9, n = 100, to = 2 * TOGETHER * HUGE_PAGES;

		known(way);
		listen(&l, 0, TOGETHER * HUGE_PAGES);
		changed = false;
		(void)move_together(0, TOGETHER);
		if (changed)
			assert_false(together.moved & 2);
		else /* nothing was one page, or the home cannot */
			change_on_the_way(&l, &(struct mm_invalidation){.event = MM_EVENT_MIGRATE});
		all_home();
		expect(0, HUGE_PAGES, way);
		expect(2 * HUGE_PAGES, (TOGETHER - 2) * HUGE_PAGES, way);
		if (way < 2 || way == 4) {
			expect(HUGE_PAGES, 9, way);
			expect(page + n, HUGE_PAGES - 9 - n, way);
		}
		if (way == 1)
			expect_zero(page, n);
		if (way == 3)
			expect_at(to, HUGE_PAGES, HUGE_PAGES, way);
		if (way == 4)
			expect_at(to + 9, page, n, way);
		unlisten(&l);
		unmap(0, TOGETHER * HUGE_PAGES);
		unmap(to, HUGE_PAGES);
		wait_frames(0, 0);
	}
	memory_end();
}

const struct CMUnitTest straight_tests[] = {
    host_test(test_there_and_back),
    host_test(test_compound),
    host_test(test_given_up),
    host_test(test_some_stay),
    host_test(test_unmapped),
    host_test(test_frames_are_full),
    host_test(test_together),
    host_test(test_together_but_one),
    host_test(test_together_full_frames),
    host_test(test_together_changed),
};
const unsigned n_straight_tests = host_array_size(straight_tests);
