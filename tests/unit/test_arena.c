/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_arena.c: the arena flavour of memory: sizes, alignment, clearing, no two
 * objects on one byte, runs that join again, stacks, limits, and a random load
 * on several threads (seed: GPUSVM_TEST_SEED, printed).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/posix/arena.c"
#include "host/posix/memory_arena.c"

#define MIB ((size_t)1 << 20)

static u64 seed;

static int arena_setup(void **unused)
{
	return host_arena_open(256 * MIB);
}

/* Everything was given back, to the byte. */
static int arena_teardown(void **unused)
{
	return host_arena_close() != 0;
}

static void test_closed(void **unused)
{
	size_t size = 4096;

	assert_null(host_alloc(1));
	assert_null(host_alloc(100000));
	assert_null(host_alloc_zeroed(1));
	assert_null(host_alloc_pages(4096));
	assert_null(host_posix_stack_alloc(&size));
	host_free(NULL);
	host_free_pages(NULL, 1);
	assert_int_equal(host_arena_base(), 0);
	assert_int_equal(host_arena_size(), 0);
	assert_int_equal(host_arena_close(), 0);
	assert_false(host_arena_contains(&size));
}

static void test_open_twice(void **unused)
{
	assert_int_equal(host_arena_open(0), -EBUSY);
	assert_true(host_arena_size() >= 256 * MIB);
	assert_true(host_arena_size() <= HOST_ARENA_MAX);
}

/* What was small in one life is nothing to the next. */
static void test_open_again(void **unused)
{
	void *p;
	u32 i;

	for (i = 0; i < 3; i++) {
		assert_int_equal(host_arena_open(0), 0);
		p = host_alloc(100);
		assert_true(host_arena_contains(p));
		assert_int_equal(host_arena_close(), 112);
	}
}

static void test_every_size(void **unused)
{
	size_t size;

	for (size = 0; size <= 70000; size += size < 300 ? 1 : 37) {
		unsigned char *p = host_alloc(size), *q = host_alloc_zeroed(size);
		size_t i;

		assert_non_null(p);
		assert_non_null(q);
		assert_true(host_arena_contains(p) && host_arena_contains(q));
		assert_true(host_is_aligned((uintptr_t)p, 16) && host_is_aligned((uintptr_t)q, 16));
		for (i = 0; i < size; i++)
			if (q[i])
				fail_msg("byte %zu of %zu is not cleared", i, size);
		memset(p, 0xaa, size);
		memset(q, 0xbb, size);
		for (i = 0; i < size; i++)
			if (p[i] != 0xaa)
				fail_msg("objects of %zu overlap", size);
		assert_ptr_equal(host_arena_expand(host_arena_compress(p)), p);
		assert_int_not_equal(host_arena_compress(p), 0);
		host_free(p);
		host_free(q);
	}
	assert_int_equal(host_arena_used(), 0);
	assert_int_equal(host_arena_compress(NULL), 0);
	assert_null(host_arena_expand(0));
}

/* At most a quarter of an object is rounding, and small ones are dense. */
static void test_rounding(void **unused)
{
	size_t size;

	for (size = 1; size <= SMALL_MAX; size++) {
		u32 class = class_of(size);

		assert_true(class < CLASSES && class_size(class) >= size);
		assert_true(class == 0 || class_size(class - 1) < size);
		assert_true(class_size(class) % 16 == 0);
		if (size > 64)
			assert_true(class_size(class) - size <= size / 4);
	}
}

static void test_pages(void **unused)
{
	static const size_t sizes[] = {1,	    4096,    5000,	  65536,
				       2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 9 * MIB};
	unsigned char *p[host_array_size(sizes)];
	u32 round, i;

	for (round = 0; round < 3; round++) {
		for (i = 0; i < host_array_size(sizes); i++) {
			p[i] = host_alloc_pages(sizes[i]);
			assert_non_null(p[i]);
			assert_true(host_is_aligned((uintptr_t)p[i], 4096));
			if (sizes[i] >= HOST_HUGE_SIZE)
				assert_true(host_is_aligned((uintptr_t)p[i], HOST_HUGE_SIZE));
			assert_int_equal(p[i][0] | p[i][sizes[i] / 2] | p[i][sizes[i] - 1], 0);
			memset(p[i], 0xff, sizes[i]);
		}
		for (i = 0; i < host_array_size(sizes); i++)
			host_free_pages(p[i], sizes[i]);
		assert_int_equal(host_arena_used(), 0);
	}
}

/* Many runs of all sizes, then one as large as all of them. */
static void test_runs_join(void **unused)
{
	void *p[256], *all;
	u32 i;

	for (i = 0; i < 256; i++) {
		p[i] = host_alloc(17000 + i * 1000);
		assert_non_null(p[i]);
	}
	for (i = 0; i < 256; i += 2)
		host_free(p[i]);
	for (i = 255; i < 256; i -= 2)
		host_free(p[i]);
	assert_int_equal(arena.small.bins[bin_of(arena.small.end - arena.small.start)],
			 arena.small.start);
	all = host_alloc(1900 * 1000);
	assert_non_null(all);
	host_free(all);
}

static void test_empty_spans_go(void **unused)
{
	static void *p[20000];
	u32 i;

	for (i = 0; i < host_array_size(p); i++)
		p[i] = host_alloc(200);
	for (i = 0; i < host_array_size(p); i++)
		host_free(p[i]);
	/* But for the one that the class keeps, all is one free run. */
	assert_null(classes[class_of(200)].spans->next);
	assert_int_equal(classes[class_of(200)].spans->used, 0);
}

static void test_too_much(void **unused)
{
	void *p;
	u32 i;

	assert_null(host_alloc(~(size_t)0));
	assert_null(host_alloc(HOST_ARENA_MAX));
	assert_null(host_alloc_pages(host_arena_size()));
	/* Until nothing is left, and all again. */
	for (i = 0; i < 2; i++) {
		void *list = NULL;
		u32 n = 0;

		while ((p = host_alloc_pages(16 * MIB)) != NULL) {
			*(void **)p = list;
			list = p;
			n++;
		}
		assert_true(n >= 256 / 16);
		while ((p = list) != NULL) {
			list = *(void **)p;
			host_free_pages(p, 16 * MIB);
		}
		p = host_alloc(100 * 1000);
		assert_non_null(p);
		host_free(p);
	}
}

/* Pages that are locked refuse to be dropped, and are cleared all the same. */
static void test_locked_pages(void **unused)
{
	unsigned char *p = host_alloc_pages(8192);

	if (mlock(p, 8192) != 0) {
		host_free_pages(p, 8192);
		skip();
	}
	memset(p, 0xff, 8192);
	host_free_pages(p, 8192);
	p = host_alloc_pages(8192);
	assert_int_equal(p[0] | p[8191], 0);
	munlock(p, 8192);
	host_free_pages(p, 8192);
}

static void note_own_stack(void *arg)
{
	int here;

	*(bool *)arg = host_arena_contains(&here);
}

static void test_stacks(void **unused)
{
	struct host_thread threads[8];
	bool inside[8];
	u64 used = host_arena_used();
	u32 round, i;

	for (round = 0; round < 3; round++) {
		for (i = 0; i < 8; i++)
			assert_int_equal(
			    host_thread_start(&threads[i], "stack", note_own_stack, &inside[i]), 0);
		for (i = 0; i < 8; i++) {
			host_thread_join(&threads[i]);
			assert_true(inside[i]);
		}
		assert_int_equal(host_arena_used(), used);
	}
}

static void test_stack_guard(void **unused)
{
	size_t size = 10000;
	char *stack = host_posix_stack_alloc(&size);
	int status;
	pid_t child;

	assert_int_equal(size, 12288);
	memset(stack, 1, size);
	child = fork();
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		*(volatile char *)(stack - 1) = 1;
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
	host_posix_stack_free(stack, size);
	/* What was the guard is memory again. */
	stack = host_alloc_pages(16384);
	memset(stack, 1, 16384);
	host_free_pages(stack, 16384);
}

/* Leaves a gigabyte of addresses to take. */
static bool limit_addresses(void)
{
	FILE *statm = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;
	struct rlimit limit;
	bool known;

	if (!statm)
		return false;
	known = fscanf(statm, "%lu", &pages) == 1;
	fclose(statm);
	limit.rlim_cur = limit.rlim_max = ((rlim_t)pages << 12) + (1 << 30);
	return known && setrlimit(RLIMIT_AS, &limit) == 0;
}

/* The system refuses the first wishes. In a child, for its limits. */
static void test_small_address_space(void **unused)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		if (!limit_addresses())
			_exit(77);
		if (host_arena_open(32 * MIB) != 0 || !host_alloc_pages(32 * MIB))
			_exit(1);
		if (host_arena_size() > 1 << 30)
			_exit(2);
		host_arena_close();
		_exit(host_arena_open(2048 * MIB) == -ENOMEM ? 0 : 3);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	if (status == 77 << 8)
		skip();
	assert_int_equal(status, 0);
}

/* ---- Several threads ---- */

#define OBJECTS 200u

struct load {
	struct host_thread thread;
	u64 state;
	u32 steps, bad;
	struct {
		unsigned char *p;
		size_t size;
		unsigned char fill;
	} objects[OBJECTS];
};

static u64 load_random(struct load *l)
{
	l->state ^= l->state << 13;
	l->state ^= l->state >> 7;
	l->state ^= l->state << 17;
	return l->state;
}

static size_t load_size(struct load *l)
{
	switch (load_random(l) % 16) {
	case 0:
		return load_random(l) % (4 * MIB);
	case 1:
	case 2:
		return load_random(l) % 100000;
	default:
		return load_random(l) % 600;
	}
}

static bool filled(const unsigned char *p, size_t size, unsigned char with)
{
	return size == 0 || (p[0] == with && p[size / 2] == with && p[size - 1] == with);
}

static void load_step(struct load *l, u32 i)
{
	unsigned char *p = l->objects[i].p;
	size_t size = l->objects[i].size;

	if (p) {
		if (!filled(p, size, l->objects[i].fill))
			l->bad++;
		host_free(p);
		l->objects[i].p = NULL;
		return;
	}
	size = load_size(l);
	p = load_random(l) % 2 ? host_alloc(size) : host_alloc_zeroed(size);
	if (!p) {
		l->bad++;
		return;
	}
	l->objects[i].p = p;
	l->objects[i].size = size;
	l->objects[i].fill = (unsigned char)load_random(l);
	if (size < 100000) {
		memset(p, l->objects[i].fill, size);
	} else {
		p[0] = p[size / 2] = p[size - 1] = l->objects[i].fill;
	}
}

static void load_main(void *arg)
{
	struct load *l = arg;
	u32 i;

	for (i = 0; i < l->steps; i++)
		load_step(l, (u32)(load_random(l) % OBJECTS));
	for (i = 0; i < OBJECTS; i++)
		if (l->objects[i].p)
			load_step(l, i);
}

/* No two neighbours are both free, and the zones are tiled by runs. */
static void check_tiling(const struct zone *zone)
{
	bool free_before = false;
	u64 page;

	for (page = zone->start; page < zone->end; page += arena.table[page].npages) {
		const struct page_entry *e = &arena.table[page];
		bool is_free = e->state == RUN_FREE;

		assert_true(e->npages > 0);
		assert_true(e->state == RUN_FREE || e->state == RUN_USED || e->state == RUN_SPAN);
		assert_int_equal(arena.table[page + e->npages - 1].npages, e->npages);
		assert_false(is_free && free_before);
		free_before = is_free;
	}
	assert_int_equal(page, zone->end);
}

static void test_load(void **unused)
{
	static struct load loads[3];
	u32 i;

	print_message("seed %llu\n", (unsigned long long)seed);
	for (i = 0; i < host_array_size(loads); i++) {
		loads[i] = (struct load){.state = (seed + i) * 2654435761u + 1, .steps = 20000};
		assert_int_equal(host_thread_start(&loads[i].thread, "load", load_main, &loads[i]),
				 0);
	}
	for (i = 0; i < host_array_size(loads); i++) {
		host_thread_join(&loads[i].thread);
		assert_int_equal(loads[i].bad, 0);
	}
	assert_int_equal(host_arena_used(), 0);
	check_tiling(&arena.small);
	check_tiling(&arena.large);
}

#define arena_test(t) cmocka_unit_test_setup_teardown(t, arena_setup, arena_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_closed),
	    cmocka_unit_test(test_small_address_space),
	    cmocka_unit_test(test_open_again),
	    cmocka_unit_test(test_rounding),
	    arena_test(test_open_twice),
	    arena_test(test_every_size),
	    arena_test(test_pages),
	    arena_test(test_runs_join),
	    arena_test(test_empty_spans_go),
	    arena_test(test_too_much),
	    arena_test(test_locked_pages),
	    arena_test(test_stacks),
	    arena_test(test_stack_guard),
	    arena_test(test_load),
	};
	const char *given = getenv("GPUSVM_TEST_SEED");

	seed = given ? strtoull(given, NULL, 0) : 20250502;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
