/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_interval.c: the interval index against a sorted array. Random worlds in
 * several densities (seed: GPUSVM_TEST_SEED, printed), every order of insertion
 * and removal in small worlds, the edges, and failing allocations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/interval.c"
#include "host/posix/posix.h"

#define MODEL_MAX 512u

static u64 seed, state;

static u64 next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static u64 below(u64 n)
{
	return next_random() % n;
}

/* ---- The plain bookkeeping ---- */

struct model {
	struct gpusvm_interval_tree tree;
	struct gpusvm_interval *entries[MODEL_MAX]; /* in order */
	unsigned n;
};

static struct gpusvm_interval *model_find(const struct model *m, u64 start, u64 end)
{
	unsigned i;

	for (i = 0; i < m->n; i++)
		if (m->entries[i]->end > start)
			return m->entries[i]->start < end ? m->entries[i] : NULL;
	return NULL;
}

static struct gpusvm_interval *model_insert(struct model *m, u64 start, u64 end)
{
	struct gpusvm_interval *entry;
	unsigned at = 0;

	if (m->n == MODEL_MAX || model_find(m, start, end))
		return NULL;
	entry = malloc(sizeof(*entry));
	entry->start = start;
	entry->end = end;
	while (at < m->n && m->entries[at]->start < start)
		at++;
	memmove(&m->entries[at + 1], &m->entries[at], (m->n - at) * sizeof(entry));
	m->entries[at] = entry;
	m->n++;
	assert_int_equal(gpusvm_interval_prepare(&m->tree), 0);
	gpusvm_interval_insert(&m->tree, entry);
	return entry;
}

static void model_remove(struct model *m, unsigned at)
{
	struct gpusvm_interval *entry = m->entries[at];

	gpusvm_interval_remove(&m->tree, entry);
	m->n--;
	memmove(&m->entries[at], &m->entries[at + 1], (m->n - at) * sizeof(entry));
	free(entry);
}

static void model_check(const struct model *m)
{
	const struct gpusvm_interval *entry = gpusvm_interval_find(&m->tree, 0, ~(u64)0);
	unsigned i;

	gpusvm_interval_tree_verify(&m->tree);
	assert_int_equal(m->tree.count, m->n);
	for (i = 0; i < m->n; i++) {
		assert_ptr_equal(entry, m->entries[i]);
		entry = gpusvm_interval_next(&m->tree, entry);
	}
	assert_null(entry);
}

static void model_question(const struct model *m, u64 start, u64 end)
{
	assert_ptr_equal(gpusvm_interval_find(&m->tree, start, end), model_find(m, start, end));
}

static void model_free(struct model *m)
{
	unsigned i;

	gpusvm_interval_tree_fini(&m->tree);
	for (i = 0; i < m->n; i++)
		free(m->entries[i]);
	assert_int_equal(host_posix_alloc_live(), 0);
}

/* ---- Random worlds ---- */

struct world {
	u64 base, units, unit; /* starts are base + [0, units) * unit */
	u64 length;	       /* up to so many units */
};

static const struct world worlds[] = {
    {0, 64, 4096, 1},			    /* full, all the same */
    {0, 4096, 4096, 16},		    /* many sizes, near each other */
    {0x7f0000000000ull, 1024, 2u << 20, 1}, /* 2M, far up */
    {0x5500000ff000ull, 1 << 20, 4096, 700},
    {0, (u64)1 << 35, 4096, (u64)1 << 28}, /* all of the address space */
    {0, 100, 1, 7},			   /* bytes */
    {GPUSVM_INTERVAL_LIMIT - 200, 200, 1, 3},
    {0, GPUSVM_INTERVAL_LIMIT, 1, (u64)1 << 50},
};

static u64 world_address(const struct world *w)
{
	return w->base + below(w->units) * w->unit;
}

static void random_step(struct model *m, const struct world *w, bool growing)
{
	u64 start = world_address(w), end = start + (1 + below(w->length)) * w->unit;

	if (below(3) < (growing ? 2 : 1)) {
		if (end <= GPUSVM_INTERVAL_LIMIT)
			model_insert(m, start, end);
	} else if (m->n) {
		model_remove(m, (unsigned)below(m->n));
	}
}

static void random_questions(const struct model *m, const struct world *w)
{
	const struct gpusvm_interval *entry;
	unsigned i;

	for (i = 0; i < 8; i++) {
		u64 start = world_address(w) + below(w->unit);

		model_question(m, start, start + 1);
		model_question(m, start, start + below(w->length * w->unit) + 1);
		model_question(m, start, ~(u64)0);
		model_question(m, next_random(), ~(u64)0);
	}
	if (!m->n)
		return;
	entry = m->entries[below(m->n)];
	model_question(m, entry->start, entry->start + 1);
	model_question(m, entry->start, entry->start);
	model_question(m, entry->end - 1, entry->end);
	model_question(m, entry->end, entry->end + w->unit);
	model_question(m, entry->start - 1, entry->start);
	model_question(m, entry->start - 1, entry->start + 1);
}

static void test_random(void **unused)
{
	unsigned i, step;

	print_message("seed %llu\n", (unsigned long long)seed);
	for (i = 0; i < host_array_size(worlds); i++) {
		struct model m = {.n = 0};

		gpusvm_interval_tree_init(&m.tree);
		for (step = 0; step < 6000; step++) {
			/* Up to full, down to empty, and again. */
			random_step(&m, &worlds[i], step / 1000 % 2 == 0);
			random_questions(&m, &worlds[i]);
			if (step % 8 == 0 || m.n < 20)
				model_check(&m);
		}
		model_free(&m);
	}
}

/* ---- Every order of a few ---- */

/* Intervals of 1 or 2 units at places where windows begin and end. */
static const u64 places[] = {0, 1, 15, 16, 31, 512, 513, 0x3ffff, 0x40000};
#define PLACES host_array_size(places)

static void small_world(unsigned mask, unsigned order)
{
	struct model m = {.n = 0};
	unsigned chosen[PLACES], n = 0, i;

	for (i = 0; i < PLACES; i++)
		if (mask >> i & 1)
			chosen[n++] = i;
	gpusvm_interval_tree_init(&m.tree);
	/* order numbers a permutation; insertion by it, removal by its mirror. */
	for (i = n; i > 0; i--) {
		unsigned pick = order % i;

		order /= i;
		model_insert(&m, places[chosen[pick]] << 12, (places[chosen[pick]] + 1) << 12);
		chosen[pick] = chosen[i - 1];
		model_check(&m);
	}
	assert_int_equal(m.n, n);
	for (i = 0; i < PLACES; i++) {
		model_question(&m, places[i] << 12, (places[i] + 1) << 12);
		model_question(&m, (places[i] << 12) + 4096, ~(u64)0);
	}
	while (m.n) {
		model_remove(&m, mask % m.n);
		model_check(&m);
	}
	model_free(&m);
}

static void test_small_worlds(void **unused)
{
	unsigned mask, order, orders, i;

	for (mask = 1; mask < 1u << PLACES; mask++) {
		unsigned n = (unsigned)__builtin_popcount(mask);

		if (n > 5)
			continue;
		for (orders = 1, i = 2; i <= n; i++)
			orders *= i;
		for (order = 0; order < orders; order++)
			small_world(mask, order);
	}
}

/* ---- Edges ---- */

static void test_empty(void **unused)
{
	struct gpusvm_interval_tree tree;

	gpusvm_interval_tree_init(&tree);
	assert_null(gpusvm_interval_find(&tree, 0, ~(u64)0));
	gpusvm_interval_tree_verify(&tree);
	gpusvm_interval_tree_fini(&tree);
}

static void test_whole_space(void **unused)
{
	struct model m = {.n = 0};

	gpusvm_interval_tree_init(&m.tree);
	assert_non_null(model_insert(&m, 0, GPUSVM_INTERVAL_LIMIT));
	model_question(&m, 0, 1);
	model_question(&m, GPUSVM_INTERVAL_LIMIT - 1, GPUSVM_INTERVAL_LIMIT);
	model_question(&m, GPUSVM_INTERVAL_LIMIT, ~(u64)0);
	/* An address whose key would be that of a lower one. */
	model_question(&m, GPUSVM_INTERVAL_LIMIT * 2 + 4096, ~(u64)0);
	model_check(&m);
	model_free(&m);
}

/* Without memory prepare fails and changes nothing; prepared, an insertion takes
 * none. */
static void test_no_memory(void **unused)
{
	struct gpusvm_interval_tree tree;
	struct gpusvm_interval a = {0, 4096}, b = {8192, 12288};
	u64 before;

	gpusvm_interval_tree_init(&tree);
	host_posix_fail_alloc_at(1);
	assert_int_equal(gpusvm_interval_prepare(&tree), -ENOMEM);
	assert_int_equal(gpusvm_interval_prepare(&tree), 0);
	before = host_posix_alloc_count();
	gpusvm_interval_insert(&tree, &a);
	assert_int_equal(gpusvm_interval_prepare(&tree), 0);
	gpusvm_interval_insert(&tree, &b);
	assert_int_equal(host_posix_alloc_count(), before);
	gpusvm_interval_tree_verify(&tree);
	gpusvm_interval_tree_fini(&tree);
	assert_int_equal(host_posix_alloc_live(), 0);
}

static void test_spares_are_bounded(void **unused)
{
	static struct gpusvm_interval entries[4096];
	struct gpusvm_interval_tree tree;
	unsigned i;

	gpusvm_interval_tree_init(&tree);
	for (i = 0; i < host_array_size(entries); i++) {
		entries[i].start = (u64)i << 12;
		entries[i].end = entries[i].start + 4096;
		assert_int_equal(gpusvm_interval_prepare(&tree), 0);
		gpusvm_interval_insert(&tree, &entries[i]);
	}
	assert_true(tree.n_nodes < host_array_size(entries) / 8);
	for (i = 0; i < host_array_size(entries); i++)
		gpusvm_interval_remove(&tree, &entries[i]);
	assert_int_equal(tree.n_nodes, 0);
	assert_int_equal(gpusvm_interval_prepare(&tree), 0);
	assert_int_equal(tree.n_spare, SPARES_MAX);
	assert_int_equal(host_posix_alloc_live(), SPARES_MAX);
	gpusvm_interval_tree_fini(&tree);
	assert_int_equal(host_posix_alloc_live(), 0);
}

/* fini of a tree with entries at every depth. */
static void test_fini_full(void **unused)
{
	struct model m = {.n = 0};
	unsigned i;

	gpusvm_interval_tree_init(&m.tree);
	for (i = 0; i < MODEL_MAX; i++)
		model_insert(&m, below((u64)1 << 40) << 12, GPUSVM_INTERVAL_LIMIT);
	for (i = 0; i < 400; i++) {
		u64 start = below((u64)1 << (12 + i % 30)) << 12;

		model_insert(&m, start, start + 4096);
	}
	model_check(&m);
	model_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_empty),	 cmocka_unit_test(test_whole_space),
	    cmocka_unit_test(test_small_worlds), cmocka_unit_test(test_random),
	    cmocka_unit_test(test_no_memory),	 cmocka_unit_test(test_spares_are_bounded),
	    cmocka_unit_test(test_fini_full),
	};
	const char *given = getenv("GPUSVM_TEST_SEED");

	seed = given ? strtoull(given, NULL, 0) : 20250501;
	state = seed * 2654435761u + 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
