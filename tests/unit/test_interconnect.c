/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_interconnect.c: the graph of links, against a table that is kept beside it;
 * every order in which devices and links may come; copies against links that go.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/interconnect/interconnect.c"
#include "host/posix/posix.h"

#define ALL (GPUSVM_LINK_MAP | GPUSVM_LINK_COPY)

static void set(struct gpusvm_interconnect *ic, unsigned from, unsigned to, u64 flags)
{
	struct gpusvm_interconnect_link link = {.flags = flags};

	assert_int_equal(gpusvm_interconnect_set(ic, from, to, &link), 0);
}

static void test_links_are_directed_and_not_transitive(void **state)
{
	struct gpusvm_interconnect_link link;
	struct gpusvm_interconnect ic;

	gpusvm_interconnect_init(&ic);
	set(&ic, 0, 1, ALL);
	set(&ic, 1, 2, ALL);
	assert_true(gpusvm_interconnect_may_map(&ic, 0, 1));
	assert_false(gpusvm_interconnect_may_map(&ic, 1, 0));
	assert_false(gpusvm_interconnect_may_map(&ic, 0, 2));
	assert_false(gpusvm_interconnect_copy_begin(&ic, 0, 2));
	assert_false(gpusvm_interconnect_copy_begin(&ic, 1, 0));
	assert_int_equal(gpusvm_interconnect_owners(&ic, 0), 3);
	assert_int_equal(gpusvm_interconnect_owners(&ic, 1), 6);
	assert_int_equal(gpusvm_interconnect_owners(&ic, 2), 4);
	assert_true(gpusvm_interconnect_get(&ic, 0, 1, &link));
	assert_false(gpusvm_interconnect_get(&ic, 1, 0, &link));
	gpusvm_interconnect_fini(&ic);
}

static void test_map_and_copy_are_apart(void **state)
{
	struct gpusvm_interconnect ic;

	gpusvm_interconnect_init(&ic);
	set(&ic, 3, 63, GPUSVM_LINK_MAP);
	set(&ic, 63, 3, GPUSVM_LINK_COPY);
	assert_true(gpusvm_interconnect_may_map(&ic, 3, 63));
	assert_false(gpusvm_interconnect_may_copy(&ic, 3, 63));
	assert_false(gpusvm_interconnect_may_map(&ic, 63, 3));
	assert_true(gpusvm_interconnect_may_copy(&ic, 63, 3));
	set(&ic, 3, 63, GPUSVM_LINK_COPY);
	assert_false(gpusvm_interconnect_may_map(&ic, 3, 63));
	assert_true(gpusvm_interconnect_may_copy(&ic, 3, 63));
	assert_int_equal(gpusvm_interconnect_set(&ic, 3, 63, NULL), 0);
	assert_false(gpusvm_interconnect_may_copy(&ic, 3, 63));
	gpusvm_interconnect_fini(&ic);
}

static void test_bad_arguments(void **state)
{
	struct gpusvm_interconnect_link bad = {.flags = 4}, good = {.flags = ALL};
	struct gpusvm_interconnect ic;

	gpusvm_interconnect_init(&ic);
	assert_int_equal(gpusvm_interconnect_set(&ic, 0, 0, &good), -EINVAL);
	assert_int_equal(gpusvm_interconnect_set(&ic, 0, 64, &good), -EINVAL);
	assert_int_equal(gpusvm_interconnect_set(&ic, 64, 0, &good), -EINVAL);
	assert_int_equal(gpusvm_interconnect_set(&ic, 0, 1, &bad), -EINVAL);
	assert_int_equal(gpusvm_interconnect_set(&ic, 0, 1, NULL), 0);
	assert_int_equal(gpusvm_interconnect_nearest(&ic, 64, ~(u64)0, 0, 1), -1);
	assert_false(gpusvm_interconnect_copy_begin(&ic, 0, 1));
	gpusvm_interconnect_fini(&ic);
}

static void test_no_memory_for_links(void **state)
{
	struct gpusvm_interconnect_link good = {.flags = ALL};
	struct gpusvm_interconnect ic;

	gpusvm_interconnect_init(&ic);
	host_posix_fail_alloc_at(1);
	assert_int_equal(gpusvm_interconnect_set(&ic, 0, 1, &good), -ENOMEM);
	host_posix_fail_alloc_at(0);
	assert_false(gpusvm_interconnect_may_map(&ic, 0, 1));
	set(&ic, 0, 1, ALL);
	host_posix_fail_alloc_at(1); /* taking one down needs none */
	assert_int_equal(gpusvm_interconnect_set(&ic, 0, 1, NULL), 0);
	host_posix_fail_alloc_at(0);
	gpusvm_interconnect_fini(&ic);
}

/* ---- Weights ----------------------------------------------------------------- */

static void weigh(struct gpusvm_interconnect *ic, unsigned from, unsigned to, u64 mbps, u64 ns)
{
	struct gpusvm_interconnect_link link = {mbps, ns, ALL};

	assert_int_equal(gpusvm_interconnect_set(ic, from, to, &link), 0);
}

static void test_cost_and_nearest(void **state)
{
	struct gpusvm_interconnect_link link;
	struct gpusvm_interconnect ic;

	gpusvm_interconnect_init(&ic);
	assert_true(gpusvm_interconnect_cost(&ic, 0, 1, 1) == HOST_FOREVER);
	weigh(&ic, 0, 1, 1000, 100);   /* a byte a ns */
	weigh(&ic, 0, 2, 4000, 10000); /* fast, and far */
	weigh(&ic, 0, 3, 4000, 10000);
	assert_int_equal(gpusvm_interconnect_cost(&ic, 0, 1, 4096), 4196);
	assert_int_equal(gpusvm_interconnect_cost(&ic, 0, 2, 4096), 11024);
	assert_int_equal(gpusvm_interconnect_nearest(&ic, 0, 0xe, GPUSVM_LINK_COPY, 4096), 1);
	assert_int_equal(gpusvm_interconnect_nearest(&ic, 0, 0xe, GPUSVM_LINK_COPY, 2 << 20), 2);
	assert_int_equal(gpusvm_interconnect_nearest(&ic, 0, 8, ALL, 1), 3);
	assert_int_equal(gpusvm_interconnect_nearest(&ic, 0, 1, ALL, 1), -1);
	assert_int_equal(gpusvm_interconnect_nearest(&ic, 1, 0xf, ALL, 1), -1);
	/* Nothing said of bandwidth, and figures as large as can be. */
	weigh(&ic, 4, 5, 0, 0);
	assert_true(gpusvm_interconnect_get(&ic, 4, 5, &link));
	assert_int_equal(link.bandwidth_mbps, 0);
	assert_int_equal(gpusvm_interconnect_cost(&ic, 4, 5, 16000), 1000);
	weigh(&ic, 4, 5, 1, ~(u64)0);
	assert_true(gpusvm_interconnect_cost(&ic, 4, 5, ~(u64)0) == HOST_FOREVER - 1);
	weigh(&ic, 4, 5, ~(u64)0, 7);
	assert_int_equal(gpusvm_interconnect_cost(&ic, 4, 5, 1 << 30), 7);
	gpusvm_interconnect_fini(&ic);
}

/* ---- Every order ------------------------------------------------------------- */

/* A chain, a ring, one way links, two that share a neighbour: none transitive. */
static const struct {
	unsigned n, links;
	u8 link[6][2];
} shapes[] = {
    {3, 4, {{0, 1}, {1, 0}, {1, 2}, {2, 1}}},
    {4, 6, {{0, 1}, {1, 0}, {1, 2}, {2, 1}, {2, 3}, {3, 2}}},
    {4, 4, {{0, 1}, {1, 2}, {2, 3}, {3, 0}}},
    {4, 5, {{0, 3}, {1, 3}, {2, 3}, {3, 0}, {0, 1}}},
    {5, 6, {{0, 1}, {0, 2}, {0, 3}, {4, 0}, {3, 4}, {2, 1}}},
};

/* The next order of n numbers, by their size; false: this was the last. */
static bool next_order(unsigned *order, unsigned n)
{
	unsigned i = n - 1, k = n - 1, t;

	while (i && order[i - 1] > order[i])
		i--;
	if (!i)
		return false;
	while (order[k] < order[i - 1])
		k--;
	t = order[k];
	order[k] = order[i - 1];
	order[i - 1] = t;
	for (k = n - 1; i < k; i++, k--) {
		t = order[i];
		order[i] = order[k];
		order[k] = t;
	}
	return true;
}

static void expect_shape(struct gpusvm_interconnect *ic, unsigned s, const unsigned *name,
			 u64 joined)
{
	u64 want[8] = {0};

	for (unsigned i = 0; i < shapes[s].n; i++)
		want[name[i]] = (u64)1 << name[i];
	for (unsigned l = 0; l < shapes[s].links; l++)
		if (joined >> l & 1)
			want[name[shapes[s].link[l][0]]] |= (u64)1 << name[shapes[s].link[l][1]];
	for (unsigned i = 0; i < shapes[s].n; i++)
		assert_int_equal(gpusvm_interconnect_owners(ic, name[i]), want[name[i]]);
}

/* Whatever the order in which links come, and in which they go: who may map whose
 * pages is what the links that are up say, at each step. */
static void test_every_order_of_links(void **state)
{
	for (unsigned s = 0; s < host_array_size(shapes); s++) {
		unsigned order[6] = {0, 1, 2, 3, 4, 5}, name[8] = {0, 1, 2, 3, 4, 5, 6, 7};

		do {
			struct gpusvm_interconnect ic;
			u64 joined = 0;

			gpusvm_interconnect_init(&ic);
			for (unsigned i = 0; i < shapes[s].links; i++) {
				const u8 *link = shapes[s].link[order[i]];

				set(&ic, link[0], link[1], GPUSVM_LINK_MAP);
				joined |= (u64)1 << order[i];
				expect_shape(&ic, s, name, joined);
			}
			for (unsigned i = 0; i < shapes[s].links; i++) {
				const u8 *link = shapes[s].link[order[i]];

				gpusvm_interconnect_set(&ic, link[0], link[1], NULL);
				joined &= ~((u64)1 << order[i]);
				expect_shape(&ic, s, name, joined);
			}
			gpusvm_interconnect_fini(&ic);
		} while (next_order(order, shapes[s].links));
	}
}

/* Devices get their numbers in the order in which they join: the groups that follow
 * are the same, whoever came first. */
static void test_every_order_of_devices(void **state)
{
	for (unsigned s = 0; s < host_array_size(shapes); s++) {
		unsigned name[8] = {0, 1, 2, 3, 4, 5, 6, 7};

		do {
			struct gpusvm_interconnect ic;

			gpusvm_interconnect_init(&ic);
			for (unsigned joined = 1; joined <= shapes[s].n; joined++)
				for (unsigned l = 0; l < shapes[s].links; l++) {
					unsigned a = name[shapes[s].link[l][0]];
					unsigned b = name[shapes[s].link[l][1]];

					/* With the later one of the two. */
					if (a < joined && b < joined &&
					    (a == joined - 1 || b == joined - 1))
						set(&ic, a, b, ALL);
				}
			expect_shape(&ic, s, name, ~(u64)0);
			gpusvm_interconnect_fini(&ic);
		} while (next_order(name, shapes[s].n));
	}
}

/* ---- At random ---------------------------------------------------------------- */

struct plain_link {
	bool up;
	struct gpusvm_interconnect_link link;
};
static struct plain_link plain[GPUSVM_INTERCONNECT_DEVICES][GPUSVM_INTERCONNECT_DEVICES];

static u64 plain_cost(unsigned from, unsigned to, u64 bytes)
{
	const struct plain_link *p = &plain[from][to];
	u64 mbps = p->link.bandwidth_mbps ? p->link.bandwidth_mbps : GPUSVM_INTERCONNECT_BANDWIDTH;

	return p->up ? p->link.latency_ns + bytes * 1000 / mbps : HOST_FOREVER;
}

static int plain_nearest(unsigned from, u64 mask, u64 flags, u64 bytes)
{
	u64 best = HOST_FOREVER;
	int ret = -1;

	for (unsigned to = 0; to < GPUSVM_INTERCONNECT_DEVICES; to++) {
		const struct plain_link *p = &plain[from][to];

		if (!(mask >> to & 1) || !p->up || (p->link.flags & flags) != flags)
			continue;
		if (plain_cost(from, to, bytes) < best) {
			best = plain_cost(from, to, bytes);
			ret = (int)to;
		}
	}
	return ret;
}

static void test_random_against_a_table(void **state)
{
	struct gpusvm_interconnect ic;

	memset(plain, 0, sizeof(plain));
	srand(1);
	gpusvm_interconnect_init(&ic);
	for (unsigned step = 0; step < 200000; step++) {
		unsigned n = step % 2 ? 5 : 64, from = (unsigned)rand() % n;
		unsigned to = (unsigned)rand() % n;
		u64 mask = (u64)rand() << 40 ^ (u64)rand(), flags = (u64)rand() % 4;
		struct gpusvm_interconnect_link link = {(u64)rand() % 5 * 1000, (u64)rand() % 5000,
							(u64)rand() % 4};
		struct plain_link *p = &plain[from][to];
		bool up = rand() % 3;

		if (from == to)
			continue;
		assert_int_equal(gpusvm_interconnect_set(&ic, from, to, up ? &link : NULL), 0);
		*p = (struct plain_link){.up = up};
		if (up)
			p->link = link;
		from = (unsigned)rand() % n;
		to = (unsigned)rand() % n;
		p = &plain[from][to];
		assert_int_equal(gpusvm_interconnect_get(&ic, from, to, &link), p->up);
		if (p->up)
			assert_memory_equal(&link, &p->link, sizeof(link));
		assert_int_equal(gpusvm_interconnect_may_map(&ic, from, to),
				 !!(p->link.flags & GPUSVM_LINK_MAP));
		assert_int_equal(gpusvm_interconnect_may_copy(&ic, from, to),
				 !!(p->link.flags & GPUSVM_LINK_COPY));
		assert_true(gpusvm_interconnect_cost(&ic, from, to, 12345) ==
			    plain_cost(from, to, 12345));
		assert_int_equal(gpusvm_interconnect_nearest(&ic, from, mask, flags, 54321),
				 plain_nearest(from, mask, flags, 54321));
	}
	gpusvm_interconnect_fini(&ic);
}

/* ---- Copies against a link that goes ------------------------------------------- */

struct race {
	struct gpusvm_interconnect ic;
	u32 down; /* nobody may copy now */
	u32 stop;
	u64 copied, refused, wrong;
};

static void *copier(void *arg)
{
	struct race *r = arg;

	while (!host_load_acquire(&r->stop)) {
		if (!gpusvm_interconnect_copy_begin(&r->ic, 0, 1)) {
			host_add_relaxed(&r->refused, 1);
			continue;
		}
		if (host_load_seq(&r->down))
			host_add_relaxed(&r->wrong, 1);
		host_add_relaxed(&r->copied, 1);
		gpusvm_interconnect_copy_end(&r->ic, 0, 1);
	}
	return NULL;
}

static void test_no_copy_after_drain(void **state)
{
	struct race r = {.stop = 0};
	pthread_t threads[3];

	gpusvm_interconnect_init(&r.ic);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, copier, &r), 0);
	for (unsigned i = 0; i < 20000 || !host_read_once(&r.refused); i++) {
		set(&r.ic, 0, 1, ALL);
		gpusvm_interconnect_set(&r.ic, 0, 1, NULL);
		gpusvm_interconnect_drain(&r.ic, 0, 1);
		host_store_seq(&r.down, 1);
		host_relax();
		host_store_seq(&r.down, 0);
	}
	host_store_release(&r.stop, 1);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(r.wrong, 0);
	assert_true(r.refused > 0);
	gpusvm_interconnect_fini(&r.ic);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_links_are_directed_and_not_transitive),
	    cmocka_unit_test(test_map_and_copy_are_apart),
	    cmocka_unit_test(test_bad_arguments),
	    cmocka_unit_test(test_no_memory_for_links),
	    cmocka_unit_test(test_cost_and_nearest),
	    cmocka_unit_test(test_every_order_of_links),
	    cmocka_unit_test(test_every_order_of_devices),
	    cmocka_unit_test(test_random_against_a_table),
	    cmocka_unit_test(test_no_copy_after_drain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
