/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_attributes.c: the map of attributes: by hand, at its edges, and random
 * operations against one set of values for each page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/interval.c"
#include "driver/attributes.c"

#define PAGE HOST_PAGE_SIZE

static struct attribute_map map;

static int setup(void **state)
{
	attribute_map_init(&map);
	return 0;
}

static int teardown(void **state)
{
	attribute_map_verify(&map);
	attribute_map_fini(&map);
	return 0;
}

/* With as many nodes as it asks for; the interval that changed. */
static void edit(u64 first, u64 last, enum attribute_edit_type type, s64 value, u64 *from, u64 *to)
{
	struct attribute_edit e = {.type = type, .value = value, .mask = 1u << 3};
	u32 needed;

	while ((needed = attribute_map_edit(&map, first * PAGE, last * PAGE, &e, from, to)))
		attribute_map_give(&map, attribute_nodes_alloc(needed));
	*from /= PAGE;
	*to /= PAGE;
	attribute_map_verify(&map);
}

static bool change(u64 first, u64 last, enum attribute_edit_type type, s64 value)
{
	u64 from, to;

	edit(first, last, type, value, &from, &to);
	return from != to;
}

static struct attributes at(u64 page)
{
	struct attributes ret;

	attribute_map_at(&map, page * PAGE, (page + 1) * PAGE, &ret);
	return ret;
}

static void spend_spares(void)
{
	struct attribute_node *node;

	while ((node = take_spare(&map))) {
		/* With what the index has for it. */
		struct gpusvm_interval_node *index = map.tree.spare;

		if (index) {
			map.tree.spare = index->next;
			map.tree.n_spare--;
			host_free(index->memory);
		}
		host_free(node);
	}
}

/* ---- By hand ------------------------------------------------------------------- */

static void test_splits_and_merges(void **state)
{
	assert_true(change(10, 20, ATTRIBUTE_PREFERRED, 0));
	assert_true(change(20, 30, ATTRIBUTE_PREFERRED, 0));
	assert_int_equal(map.tree.count, 1); /* one form for equal advice */
	assert_true(change(14, 16, ATTRIBUTE_NO_MIGRATE, 1));
	assert_int_equal(map.tree.count, 3);
	assert_int_equal(at(15).preferred, 0);
	assert_true(at(15).no_migrate);
	assert_false(at(16).no_migrate);
	assert_true(change(14, 16, ATTRIBUTE_NO_MIGRATE, 0));
	assert_int_equal(map.tree.count, 1);
	assert_true(change(0, 100, ATTRIBUTE_PREFERRED, DRIVER_NONE));
	assert_int_equal(map.tree.count, 0);
}

static void test_what_changes_nothing_says_so(void **state)
{
	u64 from, to;

	assert_false(change(10, 20, ATTRIBUTE_ATOMIC, 0));
	assert_int_equal(map.tree.count, 0);
	assert_true(change(10, 20, ATTRIBUTE_ATOMIC, 2));
	assert_false(change(10, 20, ATTRIBUTE_ATOMIC, 2));
	assert_false(change(12, 13, ATTRIBUTE_ATOMIC, 2));
	edit(5, 15, ATTRIBUTE_ATOMIC, 2, &from, &to);
	assert_int_equal(from, 5);
	assert_int_equal(to, 10);
	/* What was prefetched is remembered, but no advice. */
	assert_false(change(0, 100, ATTRIBUTE_LAST_PREFETCH, 1));
	assert_int_equal(at(50).last_prefetch, 1);
	assert_true(change(0, 100, ATTRIBUTE_RESET, 0));
	assert_int_equal(at(12).atomic, 0);
	assert_int_equal(at(12).last_prefetch, 1);
}

static void test_accessed_by_is_a_set(void **state)
{
	assert_true(change(1, 3, ATTRIBUTE_ACCESSED_BY, 1));
	assert_int_equal(at(2).accessed_by, 1u << 3);
	assert_false(change(1, 3, ATTRIBUTE_ACCESSED_BY, 1));
	assert_true(change(1, 2, ATTRIBUTE_ACCESSED_BY, 0));
	assert_int_equal(at(1).accessed_by, 0);
	assert_int_equal(at(2).accessed_by, 1u << 3);
}

static void test_segment_is_what_agrees(void **state)
{
	struct attributes v;
	u64 start = 0, end = 512 * PAGE;

	change(100, 200, ATTRIBUTE_GRANULARITY, 16);
	change(120, 130, ATTRIBUTE_LAST_PREFETCH, 0);
	attribute_map_segment(&map, 125 * PAGE, &start, &end, &v);
	assert_int_equal(start, 100 * PAGE);
	assert_int_equal(end, 200 * PAGE);
	assert_int_equal(v.granularity, 16);
	start = 0;
	end = 512 * PAGE;
	attribute_map_segment(&map, 300 * PAGE, &start, &end, &v);
	assert_int_equal(start, 200 * PAGE);
	assert_int_equal(end, 512 * PAGE);
	assert_int_equal(v.granularity, 0);
	start = 150 * PAGE;
	end = 160 * PAGE;
	attribute_map_segment(&map, 150 * PAGE, &start, &end, &v);
	assert_int_equal(start, 150 * PAGE);
	assert_int_equal(end, 160 * PAGE);
	assert_int_equal(v.granularity, 16);
}

static void test_move_takes_the_place_of_what_was_there(void **state)
{
	change(10, 20, ATTRIBUTE_ATOMIC, 1);
	change(100, 200, ATTRIBUTE_ATOMIC, 2);
	assert_true(attribute_map_move(&map, 15 * PAGE, 25 * PAGE, 150 * PAGE));
	assert_int_equal(at(14).atomic, 1);
	assert_int_equal(at(15).atomic, 0);
	assert_int_equal(at(149).atomic, 2);
	assert_int_equal(at(150).atomic, 1);
	assert_int_equal(at(154).atomic, 1);
	assert_int_equal(at(155).atomic, 0); /* came from where there was none */
	assert_int_equal(at(159).atomic, 0);
	assert_int_equal(at(160).atomic, 2);
	assert_false(attribute_map_move(&map, 300 * PAGE, 310 * PAGE, 400 * PAGE));
}

static void test_without_a_node_the_smaller_part_is_forgotten(void **state)
{
	change(0, 100, ATTRIBUTE_ATOMIC, 1);
	change(200, 300, ATTRIBUTE_ATOMIC, 1);
	spend_spares();
	assert_true(attribute_map_forget(&map, 10 * PAGE, 20 * PAGE));
	assert_int_equal(map.lost, 1);
	assert_int_equal(at(5).atomic, 0);
	assert_int_equal(at(15).atomic, 0);
	assert_int_equal(at(20).atomic, 1);
	assert_true(attribute_map_forget(&map, 280 * PAGE, 290 * PAGE));
	assert_int_equal(at(279).atomic, 1);
	assert_int_equal(at(295).atomic, 0);
	/* What is cut at an edge needs none. */
	assert_true(attribute_map_forget(&map, 90 * PAGE, 100 * PAGE));
	assert_int_equal(map.lost, 2);
	assert_int_equal(at(89).atomic, 1);
	attribute_map_verify(&map);
}

static void test_an_edit_asks_before_it_begins(void **state)
{
	struct attribute_edit e = {.type = ATTRIBUTE_ATOMIC, .value = 1};
	u64 from, to;
	u32 needed = attribute_map_edit(&map, 0, PAGE, &e, &from, &to);

	assert_int_equal(needed, ATTRIBUTE_RESERVE + 1);
	assert_int_equal(map.tree.count, 0);
	attribute_map_give(&map, attribute_nodes_alloc(needed));
	assert_int_equal(attribute_map_edit(&map, 0, PAGE, &e, &from, &to), 0);
	assert_int_equal(map.n_spare, ATTRIBUTE_RESERVE);
}

/* ---- Against one set of values a page ---------------------------------------------- */

#define PAGES 256u
#define STEPS 30000u

static struct attributes naive[PAGES];
static uint64_t seed;

static unsigned below(unsigned n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(seed >> 33) % n;
}

static void compare(void)
{
	for (unsigned i = 0; i < PAGES; i++) {
		struct attributes v = at(i);

		assert_true(attributes_equal(&v, &naive[i]));
	}
}

static void random_edit(unsigned first, unsigned last)
{
	static const s64 values[] = {
	    [ATTRIBUTE_PREFERRED] = 3,	 [ATTRIBUTE_LAST_PREFETCH] = 2, [ATTRIBUTE_ACCESSED_BY] = 2,
	    [ATTRIBUTE_GRANULARITY] = 2, [ATTRIBUTE_ATOMIC] = 4,	[ATTRIBUTE_ACCESS_NONE] = 2,
	    [ATTRIBUTE_NO_MIGRATE] = 2,	 [ATTRIBUTE_RESET] = 1};
	struct attribute_edit e = {.type = below(ATTRIBUTE_RESET + 1), .mask = 1u << 3};
	u64 from, to, want_from = ~(u64)0, want_to = 0;

	e.value = below((unsigned)values[e.type]);
	if (e.type == ATTRIBUTE_PREFERRED && !e.value)
		e.value = DRIVER_NONE;
	edit(first, last, e.type, e.value, &from, &to);
	for (unsigned i = first; i < last; i++) {
		struct attributes new = edited(&naive[i], &e);

		if (!attributes_agree(&new, &naive[i])) {
			want_from = host_min(want_from, (u64)i);
			want_to = i + 1;
		}
		naive[i] = new;
	}
	if (want_to) {
		assert_int_equal(from, want_from);
		assert_int_equal(to, want_to);
	} else {
		assert_int_equal(from, to);
	}
}

static void random_move(unsigned first, unsigned last)
{
	struct attributes moved[PAGES];
	unsigned n = last - first, to = below(PAGES - n + 1);

	if (to < last && first < to + n)
		return;
	attribute_map_move(&map, first * PAGE, last * PAGE, to * PAGE);
	memcpy(moved, naive + first, n * sizeof(*moved));
	for (unsigned i = first; i < last; i++)
		naive[i] = attributes_none;
	memcpy(naive + to, moved, n * sizeof(*moved));
}

static void test_random(void **state)
{
	for (unsigned i = 0; i < PAGES; i++)
		naive[i] = attributes_none;
	seed = 12;
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned first = below(PAGES), last = first + 1 + below(PAGES - first);

		if (below(3))
			last = host_min(last, first + 8);
		switch (below(6)) {
		case 0:
			attribute_map_forget(&map, first * PAGE, last * PAGE);
			for (unsigned i = first; i < last; i++)
				naive[i] = attributes_none;
			break;
		case 1:
			random_move(first, last);
			break;
		default:
			random_edit(first, last);
			break;
		}
		attribute_map_verify(&map);
		assert_int_equal(map.lost, 0);
		if (step % 16 == 0)
			compare();
		while (map.n_spare < ATTRIBUTE_RESERVE)
			attribute_map_give(&map, attribute_nodes_alloc(1));
	}
	compare();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_splits_and_merges, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_what_changes_nothing_says_so, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_accessed_by_is_a_set, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_segment_is_what_agrees, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_move_takes_the_place_of_what_was_there, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(test_without_a_node_the_smaller_part_is_forgotten,
					    setup, teardown),
	    cmocka_unit_test_setup_teardown(test_an_edit_asks_before_it_begins, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_random, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
