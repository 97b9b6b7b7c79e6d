/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_buddy.c: the allocator of device memory against a plain map of frames, and
 * what it promises about large blocks.
 */
#include "devices/soft/buddy.c"

#include "host/posix/posix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static u64 seed;

static u64 random_below(u64 n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % n;
}

/* ---- Against a map of frames ----------------------------------------------------- */

struct model {
	struct soft_buddy buddy;
	u8 *used; /* of each frame */
	struct {
		u64 frame;
		unsigned order;
	} block[4096];
	unsigned n;
};

static void model_alloc(struct model *m, unsigned order)
{
	u64 frame, i;

	if (soft_buddy_alloc(&m->buddy, order, &frame)) {
		/* Then there is no aligned free block. */
		for (frame = 0; frame + ((u64)1 << order) <= m->buddy.frames;
		     frame += (u64)1 << order)
			assert_non_null(memchr(m->used + frame, 1, (size_t)1 << order));
		return;
	}
	assert_int_equal(frame & (((u64)1 << order) - 1), 0);
	assert_true(frame + ((u64)1 << order) <= m->buddy.frames);
	for (i = 0; i < (u64)1 << order; i++) {
		assert_int_equal(m->used[frame + i], 0);
		m->used[frame + i] = 1;
	}
	m->block[m->n].frame = frame;
	m->block[m->n++].order = order;
}

/* Frees a block, whole or one aligned part of it; the other parts stay. */
static void model_free(struct model *m, bool part)
{
	unsigned at = (unsigned)random_below(m->n);
	u64 frame = m->block[at].frame;
	unsigned order = m->block[at].order;

	m->block[at] = m->block[--m->n];
	while (part && order && m->n + 2 < host_array_size(m->block)) {
		/* Keep one half as a block of its own. */
		u64 keep = random_below(2);

		order--;
		m->block[m->n].frame = frame + (keep << order);
		m->block[m->n++].order = order;
		frame += (1 - keep) << order;
		part = random_below(3) != 0;
	}
	soft_buddy_free(&m->buddy, frame, order);
	memset(m->used + frame, 0, (size_t)1 << order);
}

static void random_ops(u64 frames, unsigned turns)
{
	struct model *m = calloc(1, sizeof(*m));
	unsigned turn;
	u64 i, free_frames;

	m->used = calloc(frames, 1);
	assert_int_equal(soft_buddy_init(&m->buddy, frames), 0);
	for (turn = 0; turn < turns; turn++) {
		/* Long tides of filling and emptying. */
		bool fill = turn / 500 % 2 ? random_below(4) == 0 : random_below(4) != 0;

		if (fill && m->n < host_array_size(m->block) - 16)
			model_alloc(m, (unsigned)random_below(m->buddy.max_order + 1));
		else if (m->n)
			model_free(m, random_below(2));
		if (turn % 64 == 0) {
			soft_buddy_verify(&m->buddy);
			for (i = free_frames = 0; i < frames; i++)
				free_frames += !m->used[i];
			assert_int_equal(free_frames, m->buddy.free);
		}
	}
	while (m->n)
		model_free(m, false);
	soft_buddy_verify(&m->buddy);
	assert_int_equal(m->buddy.free, frames);
	/* All came together: the largest block is whole. */
	assert_true(soft_buddy_has(&m->buddy, m->buddy.max_order));
	soft_buddy_fini(&m->buddy);
	free(m->used);
	free(m);
}

static void test_random(void **state)
{
	static const u64 sizes[] = {1, 2, 63, 64, 65, 512, 1000, 4096, 4096 + 512, 70000};
	unsigned i;

	(void)state;
	seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : 20240607;
	printf("# seed %llu\n", (unsigned long long)seed);
	for (i = 0; i < host_array_size(sizes); i++)
		random_ops(sizes[i], 6000);
}

/* ---- Promises ---------------------------------------------------------------------- */

/* Small allocations are taken out of as few 2M blocks as they fit into. */
static void test_large_blocks_stay(void **state)
{
	enum { BLOCKS = 64, SMALL = 512 * 8 };
	struct soft_buddy buddy;
	u64 frame, small[SMALL], n;
	unsigned i;

	(void)state;
	assert_int_equal(soft_buddy_init(&buddy, BLOCKS * 512), 0);
	for (i = 0; i < SMALL; i++) /* of mixed sizes, half of them freed again */
		assert_int_equal(soft_buddy_alloc(&buddy, 0, &small[i]), 0);
	for (i = 1; i < SMALL; i += 2)
		soft_buddy_free(&buddy, small[i], 0);
	for (i = 1; i < SMALL; i += 2)
		assert_int_equal(soft_buddy_alloc(&buddy, 0, &small[i]), 0);
	for (n = 0; soft_buddy_alloc(&buddy, 9, &frame) == 0; n++)
		;
	assert_int_equal(n, BLOCKS - 8);
	assert_int_equal(buddy.free, 0);
	soft_buddy_fini(&buddy);
}

/* Every second frame in use: no larger block, and none once all is freed. */
static void test_fragmentation(void **state)
{
	struct soft_buddy buddy;
	u64 frame, i;

	(void)state;
	assert_int_equal(soft_buddy_init(&buddy, 2048), 0);
	for (i = 0; i < 2048; i++)
		assert_int_equal(soft_buddy_alloc(&buddy, 0, &frame), 0);
	for (i = 0; i < 2048; i += 2)
		soft_buddy_free(&buddy, i, 0);
	assert_int_equal(buddy.free, 1024);
	assert_false(soft_buddy_has(&buddy, 1));
	assert_int_equal(soft_buddy_alloc(&buddy, 1, &frame), -ENOSPC);
	soft_buddy_verify(&buddy);
	for (i = 1; i < 2048; i += 2)
		soft_buddy_free(&buddy, i, 0);
	assert_int_equal(soft_buddy_alloc(&buddy, 11, &frame), 0);
	assert_int_equal(frame, 0);
	soft_buddy_fini(&buddy);
}

static void test_metadata_is_small(void **state)
{
	struct soft_buddy buddy;
	u64 frames = 1u << 20, words = 0;

	(void)state;
	assert_int_equal(soft_buddy_init(&buddy, frames), 0);
	words = buddy_layout(&buddy, NULL);
	assert_true(words * 8 * 3 <= frames); /* a third of a byte a frame */
	buddy_layout(&buddy, buddy.words);
	soft_buddy_verify(&buddy);
	soft_buddy_fini(&buddy);
}

static void test_no_memory(void **state)
{
	struct soft_buddy buddy;

	(void)state;
	host_posix_fail_alloc_at(1);
	assert_int_equal(soft_buddy_init(&buddy, 512), -ENOMEM);
	host_posix_fail_alloc_at(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_random),	  cmocka_unit_test(test_large_blocks_stay),
	    cmocka_unit_test(test_fragmentation), cmocka_unit_test(test_metadata_is_small),
	    cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
