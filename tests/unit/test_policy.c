/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_policy.c: policy/: fault-around and placement, as pure functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "policy/fault_around.c"
#include "policy/placement.c"

/* ---- Fault-around ---------------------------------------------------------- */

static void test_window_holds_the_fault(void **state)
{
	unsigned seed = 20, word = 0, i;

	for (i = 0; i < 200000; i++) {
		unsigned n, fault, first, last;

		seed = seed * 1664525u + 1013904223u;
		n = 1 + (seed >> 8) % 512;
		seed = seed * 1664525u + 1013904223u;
		fault = (seed >> 8) % n;
		if (!(i % 7))
			word = 0;
		word = fault_around(word, fault, n, &first, &last);
		assert_true(first <= fault && fault < last && last <= n);
	}
}

static void test_first_fault_takes_one_page(void **state)
{
	unsigned first, last;

	fault_around(0, 0, 512, &first, &last);
	assert_int_equal(first, 0);
	assert_int_equal(last, 1);
	fault_around(0, 37, 512, &first, &last);
	assert_int_equal(first, 37);
	assert_int_equal(last, 38);
}

static void test_a_stream_goes_on_in_the_next_window(void **state)
{
	unsigned first, last, word = 0, page;

	for (page = 0; page < 512; page = last)
		word = fault_around(word, page, 512, &first, &last);
	fault_around(fault_around_continue(fault_around_shift(word), 0), 0, 512, &first, &last);
	assert_int_equal(first, 0);
	assert_int_equal(last, 512);
}

/* Touches what is not home yet in an order; the number of faults. */
static unsigned scan(int upward, unsigned n)
{
	unsigned char home[512] = { 0 };
	unsigned word = 0, faults = 0, k, i, first, last;

	for (k = 0; k < n; k++) {
		unsigned page = upward ? k : n - 1 - k;

		if (home[page])
			continue;
		faults++;
		word = fault_around(word, page, n, &first, &last);
		for (i = first; i < last; i++)
			home[i] = 1;
	}
	return faults;
}

static void test_sequential_faults_double(void **state)
{
	/* 1 + 2 + 4 + ... + 256 + the rest */
	assert_int_equal(scan(1, 512), 10);
	assert_int_equal(scan(0, 512), 10);
}

static void test_random_faults_stay_small(void **state)
{
	unsigned word = 0, first, last, i;

	for (i = 0; i < 100; i++) {
		word = fault_around(word, (i * 197u) % 512, 512, &first, &last);
		assert_int_equal(last - first, 1);
	}
}

/* ---- Placement --------------------------------------------------------------- */

#define MS 1000000ull

static void test_first_touch_migrates(void **state)
{
	struct placement_history h = { 0 };

	assert_int_equal(placement_fault(&h, 5 * MS, placement_lapse(MS)), PLACEMENT_MIGRATE);
}

/* One bounce: it comes, is taken 1 ms later, and wanted 0.1 ms after that. */
static enum placement bounce(struct placement_history *h, unsigned long long *now,
			     unsigned long long lapse)
{
	placement_result(h, *now, *now, lapse, 512, 0);
	*now += MS;
	h->left = *now;
	*now += MS / 10;
	return placement_fault(h, *now, lapse);
}

static void test_bounces_end_in_a_nap(void **state)
{
	struct placement_history h = { 0 };
	unsigned long long now = 100 * MS, lapse = placement_lapse(MS), first_nap, nap;

	assert_int_equal(bounce(&h, &now, lapse), PLACEMENT_MIGRATE);
	assert_int_equal(bounce(&h, &now, lapse), PLACEMENT_MIGRATE);
	assert_int_equal(bounce(&h, &now, lapse), PLACEMENT_THROTTLE);
	first_nap = h.stay_until - now;
	assert_true(first_nap >= lapse);
	assert_int_equal(placement_fault(&h, h.stay_until - 1, lapse), PLACEMENT_STAY);
	/* It wakes, and begins anew: naps get longer, up to a limit, and then count
	 * as pinned. */
	for (unsigned i = 1; i < 20; i++) {
		enum placement p;

		now = h.stay_until;
		assert_int_equal(placement_fault(&h, now, lapse), PLACEMENT_MIGRATE);
		assert_int_equal(bounce(&h, &now, lapse), PLACEMENT_MIGRATE);
		assert_int_equal(bounce(&h, &now, lapse), PLACEMENT_MIGRATE);
		p = bounce(&h, &now, lapse);
		assert_int_equal(p, i + 1 < PLACEMENT_PIN_NAPS ? PLACEMENT_THROTTLE :
								 PLACEMENT_PIN);
		nap = h.stay_until - now;
		assert_true(nap >= 2 * first_nap || nap == PLACEMENT_NAP_MAX * lapse);
		assert_true(nap <= PLACEMENT_NAP_MAX * lapse);
	}
}

static void test_slow_returns_are_no_bounces(void **state)
{
	struct placement_history h = { 0 };
	unsigned long long now = 100 * MS, lapse = placement_lapse(MS);

	for (unsigned i = 0; i < 100; i++) {
		placement_result(&h, now, now, lapse, 512, 0);
		now += 20 * lapse; /* the device has it for long */
		h.left = now;
		now += 1000;
		assert_int_equal(placement_fault(&h, now, lapse), PLACEMENT_MIGRATE);
		placement_result(&h, now, now, lapse, 512, 0);
		now += 1000;
		h.left = now;
		now += 20 * lapse; /* the CPU has it for long */
		assert_int_equal(placement_fault(&h, now, lapse), PLACEMENT_MIGRATE);
	}
}

/* Where the move takes long, a stay that is a little longer is no gain either. */
static void test_dear_moves_have_longer_lapses(void **state)
{
	struct placement_history h = { 0 };
	unsigned long long now = 100 * MS, lapse = placement_lapse(0);

	for (unsigned i = 0; i < 3; i++) {
		placement_result(&h, now, now + 10 * MS, lapse, 512, 0);
		now += 30 * MS;
		h.left = now;
		now += 30 * MS;
		assert_int_equal(placement_fault(&h, now, lapse),
				 i < 2 ? PLACEMENT_MIGRATE : PLACEMENT_THROTTLE);
	}
}

static void test_calm_forgets_naps(void **state)
{
	struct placement_history h = { 0 };
	unsigned long long now = 100 * MS, lapse = placement_lapse(MS);

	bounce(&h, &now, lapse);
	bounce(&h, &now, lapse);
	assert_int_equal(bounce(&h, &now, lapse), PLACEMENT_THROTTLE);
	assert_int_equal(h.naps, 1);
	now = h.stay_until + (PLACEMENT_NAP_MAX + 1) * lapse;
	assert_int_equal(placement_fault(&h, now, lapse), PLACEMENT_MIGRATE);
	assert_int_equal(h.naps, 0);
}

static void test_what_will_not_move_is_left_alone(void **state)
{
	struct placement_history h = { 0 };
	unsigned long long now = 100 * MS, lapse = placement_lapse(0);

	placement_result(&h, now, now, lapse, 0, 512);
	assert_int_equal(placement_fault(&h, now + lapse / 2, lapse), PLACEMENT_STAY);
	assert_int_equal(placement_fault(&h, now + lapse, lapse), PLACEMENT_MIGRATE);
	/* Partly is good enough. */
	placement_result(&h, now, now, lapse, 1, 511);
	assert_int_equal(placement_fault(&h, now + lapse, lapse), PLACEMENT_MIGRATE);
}

/* Two devices that take the pages from each other, or one that makes room for some of
 * them by others of them: pages leave in the middle of the move that brings them. */
static void test_taking_by_a_move_is_a_bounce(void **state)
{
	unsigned long long now = 100 * MS, lapse = placement_lapse(0), i;
	struct placement_history h = {0};

	placement_result(&h, now, now, lapse, 16, 0);
	for (i = 0; i < PLACEMENT_BOUNCES; i++) {
		unsigned long long began = now + MS / 100;

		assert_int_equal(placement_fault(&h, began, lapse), PLACEMENT_MIGRATE);
		h.left = began + MS / 100;
		now = h.left + MS / 100;
		placement_result(&h, began, now, lapse, 16, 0);
	}
	assert_int_equal(placement_fault(&h, now + MS / 100, lapse), PLACEMENT_THROTTLE);
	/* Pages that nobody took in the last move are no sign of it. */
	now = h.stay_until + 2 * lapse;
	placement_result(&h, now, now + MS / 100, lapse, 16, 0);
	assert_int_equal(placement_fault(&h, now + 2 * (MS / 100), lapse), PLACEMENT_MIGRATE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_window_holds_the_fault),
		cmocka_unit_test(test_first_fault_takes_one_page),
		cmocka_unit_test(test_a_stream_goes_on_in_the_next_window),
		cmocka_unit_test(test_sequential_faults_double),
		cmocka_unit_test(test_random_faults_stay_small),
		cmocka_unit_test(test_first_touch_migrates),
		cmocka_unit_test(test_bounces_end_in_a_nap),
		cmocka_unit_test(test_slow_returns_are_no_bounces),
		cmocka_unit_test(test_dear_moves_have_longer_lapses),
		cmocka_unit_test(test_calm_forgets_naps),
		cmocka_unit_test(test_what_will_not_move_is_left_alone),
		cmocka_unit_test(test_taking_by_a_move_is_a_bounce),
	};

	return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
