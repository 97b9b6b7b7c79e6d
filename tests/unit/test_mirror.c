/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The mirror: its modes, notifiers, the making and going of ranges, both passes of
 * an invalidation, failures, chance against a naive model, and threads. */
#ifndef GPUSVM_NO_PAGEMAP
#define GPUSVM_NO_PAGEMAP /* none is needed here; test_pages_device.c has them */
#endif
#include "mirror_world.h"

#define NOTIFIER_PAGES 16u

static int open_tiny(void **state)
{
	(void)state;
	world_open(NOTIFIER_PAGES * PAGE, tiny_chunks, host_array_size(tiny_chunks));
	return 0;
}

static int close_it(void **state)
{
	(void)state;
	world_close();
	return 0;
}

static void put_fault(u64 page, const struct gpusvm_ctx *ctx)
{
	struct gpusvm_range *range;

	assert_int_equal(fault(page, ctx, &range), 0);
	assert_true(gpusvm_range_start(range) <= at(page) && at(page) < gpusvm_range_end(range));
	gpusvm_range_put(range);
}

static struct gpusvm_range *find(u64 page)
{
	struct gpusvm_range *range;

	gpusvm_notifier_lock(&world.mirror);
	range = gpusvm_range_find(&world.mirror, at(page), at(page + 1));
	if (range)
		gpusvm_range_get(range);
	gpusvm_notifier_unlock(&world.mirror);
	return range;
}

static void remove_at(u64 page)
{
	struct gpusvm_range *range = find(page);

	assert_non_null(range);
	take_down(range);
	gpusvm_range_put(range);
}

/* ---- Modes -------------------------------------------------------------- */

static int try_init(struct mm *mm, u64 start, u64 end, u64 notifier_size,
		    const struct gpusvm_mirror_ops *ops, const u64 *chunks, unsigned n)
{
	struct gpusvm_mirror mirror;
	int err =
		gpusvm_mirror_init(&mirror, "test", mm, start, end, notifier_size, ops, chunks, n);

	if (!err)
		gpusvm_mirror_fini(&mirror);
	return err;
}

static void test_modes(void **state)
{
	static const u64 ascending[] = { PAGE, 2 * PAGE }, no_page[] = { 4 * PAGE, 2 * PAGE };
	static const u64 odd[] = { 3 * PAGE, PAGE };
	struct gpusvm_mirror_ops half = world_ops;
	struct mm *mm = world.mm;

	(void)state;
	half.invalidate_finish = NULL;
	assert_int_equal(try_init(mm, 0, 8 * PAGE, 8 * PAGE, &world_ops, tiny_chunks, 4), 0);
	assert_int_equal(try_init(NULL, 0, 0, 0, NULL, NULL, 0), 0);

	assert_int_equal(try_init(mm, 0, 8 * PAGE, 8 * PAGE, NULL, tiny_chunks, 4), -EINVAL);
	assert_int_equal(try_init(mm, 0, 8 * PAGE, 8 * PAGE, &half, tiny_chunks, 4), -EINVAL);
	assert_int_equal(try_init(mm, 0, 8 * PAGE, 8 * PAGE, &world_ops, NULL, 0), -EINVAL);
	assert_int_equal(try_init(mm, 0, 8 * PAGE, 8 * PAGE, &world_ops, ascending, 2), -EINVAL);
	assert_int_equal(try_init(mm, 0, 8 * PAGE, 8 * PAGE, &world_ops, no_page, 2), -EINVAL);
	assert_int_equal(try_init(mm, 0, 8 * PAGE, 8 * PAGE, &world_ops, odd, 2), -EINVAL);
	assert_int_equal(try_init(mm, 0, 8 * PAGE, 4 * PAGE, &world_ops, tiny_chunks, 4), -EINVAL);
	assert_int_equal(try_init(mm, 0, 8 * PAGE, 24 * PAGE, &world_ops, tiny_chunks, 4), -EINVAL);
	assert_int_equal(try_init(mm, 8 * PAGE, 8 * PAGE, 8 * PAGE, &world_ops, tiny_chunks, 4),
			 -EINVAL);
	assert_int_equal(try_init(mm, 12, 8 * PAGE, 8 * PAGE, &world_ops, tiny_chunks, 4), -EINVAL);
	assert_int_equal(try_init(mm, 0, ~(u64)0 << 12, 8 * PAGE, &world_ops, tiny_chunks, 4),
			 -EINVAL);
	assert_int_equal(try_init(NULL, 0, 0, 0, &world_ops, NULL, 0), -EINVAL);
	assert_int_equal(try_init(NULL, 0, 0, PAGE, NULL, NULL, 0), -EINVAL);
	assert_int_equal(try_init(NULL, 0, 0, 0, NULL, tiny_chunks, 4), -EINVAL);
}

/* ---- Chunks ------------------------------------------------------------- */

static void test_chunks_drawn(void **state)
{
	(void)state;
	draw("wwwwwwwwwwwwwwww");
	put_fault(3, &ctx_rw);
	expect_ranges("aaaaaaaa--------");
	put_fault(7, &ctx_rw);
	expect_ranges("aaaaaaaa--------");
	put_fault(15, &ctx_rw);
	expect_ranges("aaaaaaaabbbbbbbb");
	remove_at(0);
	expect_ranges("--------aaaaaaaa");

	/* A mapping's edges. */
	draw("................");
	collect();
	draw(".wwwwwwwwww.....");
	put_fault(1, &ctx_rw);
	put_fault(3, &ctx_rw);
	put_fault(4, &ctx_rw);
	put_fault(10, &ctx_rw);
	put_fault(8, &ctx_rw);
	expect_ranges("-abbccccdde-----");

	/* Neighbours: what is between two small ones is small. */
	draw("................");
	collect();
	draw("wwwwwwwwwwwwwwww");
	put_fault(3, &(struct gpusvm_ctx){ .max_chunk = PAGE });
	expect_ranges("---a------------");
	put_fault(0, &ctx_rw);
	put_fault(2, &ctx_rw);
	put_fault(6, &ctx_rw);
	expect_ranges("aabcdddd--------");

	/* Two mappings of different kinds do not share a range. */
	draw("................");
	collect();
	draw("rrwwwwww");
	put_fault(2, &ctx_rw);
	put_fault(0, &ctx_ro);
	put_fault(5, &ctx_rw);
	expect_ranges("aabbcccc");
}

static void test_limits(void **state)
{
	struct gpusvm_ctx ctx = { .min_chunk = 4 * PAGE };
	struct gpusvm_range *range;
	struct gpusvm_mirror *mirror = &world.mirror;

	(void)state;
	draw("wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww");
	/* The caller's window, here also narrower than a chunk. */
	assert_int_equal(gpusvm_range_find_or_insert(mirror, at(5), at(4), at(7), &ctx_rw, &range),
			 0);
	gpusvm_range_put(range);
	expect_ranges("----aa--");
	assert_int_equal(gpusvm_range_find_or_insert(mirror, at(7), at(4), at(7), &ctx_rw, &range),
			 -EINVAL);
	assert_int_equal(gpusvm_range_find_or_insert(mirror, at(3), at(4), at(7), &ctx_rw, &range),
			 -EINVAL);
	assert_int_equal(gpusvm_range_find_or_insert(mirror, 5, 0, ~(u64)0, &ctx_rw, &range),
			 -EINVAL);
	assert_int_equal(
		gpusvm_range_find_or_insert(mirror, 1ull << 47, 0, ~(u64)0, &ctx_rw, &range),
		-EINVAL);
	/* No chunk so large; then one that is. */
	assert_int_equal(fault(6, &ctx, &range), -EINVAL);
	assert_int_equal(fault(0, &ctx, &range), 0);
	gpusvm_range_put(range);
	expect_ranges("aaaabb--");
	ctx = (struct gpusvm_ctx){ .max_chunk = 2 * PAGE };
	put_fault(8, &ctx);
	expect_ranges("aaaabb--cc------");
}

static void test_notifier_edges(void **state)
{
	static const u64 chunks[] = { 8 * PAGE, PAGE };
	struct gpusvm_mirror mirror;
	struct gpusvm_range *range;
	struct gpusvm_notifier *notifier;

	(void)state;
	draw("wwwwwwwwwwwwwwwwwwwwwwww");
	/* A window that cuts the notifiers: 3 .. 21 of 8 each. */
	assert_int_equal(gpusvm_mirror_init(&mirror, "cut", world.mm, at(3), at(21), 8 * PAGE,
					    &world_ops, chunks, 2),
			 0);
	for (u64 page = 3; page < 21; page++) {
		assert_int_equal(gpusvm_range_find_or_insert(&mirror, at(page), 0, ~(u64)0, &ctx_rw,
							     &range),
				 0);
		assert_true(gpusvm_range_start(range) == (page / 8 == 1 ? at(8) : at(page)));
		gpusvm_range_put(range);
	}
	gpusvm_mirror_verify(&mirror);
	assert_int_equal(mirror.n_notifiers, 3);
	gpusvm_mirror_lock(&mirror);
	notifier = gpusvm_notifier_find(&mirror, 0, ~(u64)0);
	assert_true(notifier->interval.start == at(3) && notifier->interval.end == at(8));
	notifier = gpusvm_notifier_next(gpusvm_notifier_next(notifier));
	assert_true(notifier->interval.start == at(16) && notifier->interval.end == at(21));
	assert_null(gpusvm_notifier_next(notifier));
	gpusvm_mirror_unlock(&mirror);
	gpusvm_mirror_fini(&mirror);
}

static void test_notifier_life(void **state)
{
	(void)state;
	draw("wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww");
	put_fault(0, &ctx_rw);
	put_fault(8, &ctx_rw);
	put_fault(16, &ctx_rw);
	assert_int_equal(world.mirror.n_notifiers, 2);
	remove_at(0);
	assert_int_equal(world.mirror.n_notifiers, 2);
	remove_at(8);
	assert_int_equal(world.mirror.n_notifiers, 1);
	remove_at(16);
	assert_int_equal(world.mirror.n_notifiers, 0);
	assert_int_equal(world.freed, 3);
	put_fault(0, &ctx_rw);
	assert_int_equal(world.mirror.n_notifiers, 1);
}

/* ---- Errors and permissions --------------------------------------------- */

static void test_permission(void **state)
{
	struct gpusvm_range *range;

	(void)state;
	draw("wwwwwwwwrrrr....");
	assert_int_equal(fault(12, &ctx_rw, &range), -ENOENT);
	assert_int_equal(fault(8, &ctx_rw, &range), -EPERM);
	assert_int_equal(world.mirror.n_notifiers, 0); /* none was made for these */
	put_fault(8, &ctx_ro);
	range = find(8);
	assert_false(range->writable);
	gpusvm_range_put(range);
	/* Told before the range that is there. */
	assert_int_equal(fault(8, &ctx_rw, &range), -EPERM);

	/* The mapping's word counts, not that of when the range was made. */
	put_fault(0, &ctx_rw);
	assert_int_equal(model_mprotect(world.mm, at(0), at(8), MODEL_READ), 0);
	assert_int_equal(fault(0, &ctx_rw, &range), -EPERM);
	put_fault(0, &ctx_ro);
	assert_int_equal(model_mprotect(world.mm, at(0), at(8), MODEL_RW), 0);
	put_fault(0, &ctx_rw);

	/* A range that waits for the collector does not hide that nothing is mapped. */
	assert_int_equal(model_munmap(world.mm, at(0), at(8)), 0);
	assert_int_equal(fault(0, &ctx_rw, &range), -ENOENT);
	model_mm_exit(world.mm);
	assert_int_equal(fault(8, &ctx_ro, &range), -EFAULT);
	assert_int_equal(fault(12, &ctx_ro, &range), -EFAULT);
}

static void test_migratable(void **state)
{
	static const struct gpusvm_ctx possible = { .devmem_possible = true };
	struct gpusvm_range *range;

	(void)state;
	draw("wwwwwwwwsssssssswwwwwwww");
	assert_int_equal(fault(0, &possible, &range), 0);
	assert_true(range->migratable && range->writable);
	gpusvm_range_put(range);
	assert_int_equal(fault(8, &possible, &range), 0);
	assert_false(range->migratable);
	gpusvm_range_put(range);
	assert_int_equal(fault(16, &ctx_rw, &range), 0);
	assert_false(range->migratable);
	gpusvm_range_put(range);
}

/* ---- Invalidations ------------------------------------------------------ */

static void test_unmap_marks(void **state)
{
	struct gpusvm_range *a, *b;

	(void)state;
	draw("wwwwwwwwwwwwwwww");
	assert_int_equal(fault(0, &ctx_rw, &a), 0);
	assert_int_equal(fault(8, &ctx_rw, &b), 0);
	assert_int_equal(model_mprotect(world.mm, at(0), at(4), MODEL_READ), 0);
	assert_int_equal(a->flags, 0); /* a change, not the end */
	assert_int_equal(model_munmap(world.mm, at(6), at(16)), 0);
	assert_int_equal(a->flags, GPUSVM_RANGE_UNMAPPED | GPUSVM_RANGE_PARTIAL_UNMAP);
	assert_int_equal(b->flags, GPUSVM_RANGE_UNMAPPED);
	expect_ranges("AAAAAAAABBBBBBBB");
	collect();
	expect_ranges("----------------");
	assert_true(a->flags & GPUSVM_RANGE_REMOVED && b->flags & GPUSVM_RANGE_REMOVED);
	assert_int_equal(world.freed, 0); /* they are held */
	/* Once is enough, however often it is asked. */
	gpusvm_range_remove(a);
	gpusvm_range_remove(a);
	assert_int_equal(a->ref.count, 1);
	gpusvm_range_put(a);
	gpusvm_range_put(b);
	assert_int_equal(world.freed, 2);
	put_fault(5, &ctx_ro);
	expect_ranges("----aa----------");
}

static void test_passes(void **state)
{
	u64 starts, finishes;

	(void)state;
	draw("wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww");
	put_fault(0, &ctx_rw);
	starts = world.starts;
	finishes = world.finishes;
	/* No range there: nothing to begin. */
	assert_int_equal(model_dontneed(world.mm, at(8), at(9)), 0);
	assert_int_equal(world.starts, starts);
	assert_int_equal(model_dontneed(world.mm, at(7), at(9)), 0);
	assert_int_equal(world.starts, starts + 1);
	assert_true(world.finishes > finishes);
	/* Not heard at all: another notifier's. */
	finishes = world.finishes;
	assert_int_equal(model_dontneed(world.mm, at(16), at(32)), 0);
	assert_int_equal(world.finishes, finishes);
	assert_true(gpusvm_mirror_has_mapping(&world.mirror, at(7), at(20)));
	assert_false(gpusvm_mirror_has_mapping(&world.mirror, at(8), at(20)));
}

static void reap_thread(void *ret)
{
	*(int *)ret = model_reap(world.mm, at(0), at(8));
}

static void test_not_blockable(void **state)
{
	struct host_thread thread;
	int err = 1;

	(void)state;
	draw("wwwwwwww");
	put_fault(0, &ctx_rw);
	gpusvm_notifier_lock(&world.mirror);
	assert_int_equal(host_thread_start(&thread, "reaper", reap_thread, &err), 0);
	host_thread_join(&thread);
	gpusvm_notifier_unlock(&world.mirror);
	assert_int_equal(err, -EAGAIN);
	reap_thread(&err);
	assert_int_equal(err, 0);
}

/* The mapping goes between the look at it and the insertion: the range that would
 * have lain over the hole is not made. */
static void unmap_once(void)
{
	in_the_gap = NULL;
	assert_int_equal(model_munmap(world.mm, at(4), at(8)), 0);
}

static unsigned gaps;
static void protect_always(void)
{
	gaps++;
	assert_int_equal(model_mprotect(world.mm, at(15), at(16), MODEL_RW), 0);
}

static void test_insert_races(void **state)
{
	struct gpusvm_ctx hasty = { .budget = 3 * HOST_MSEC };
	struct gpusvm_range *range;

	(void)state;
	draw("wwwwwwwwwwwwwwww");
	put_fault(8, &ctx_rw); /* so that the notifier is there */
	in_the_gap = unmap_once;
	put_fault(0, &ctx_rw);
	expect_ranges("aaaa----bbbbbbbb");

	draw("wwwwwwwwwwwwwwww");
	collect();
	put_fault(8, &ctx_rw);
	in_the_gap = protect_always;
	gaps = 0;
	assert_int_equal(fault(0, &hasty, &range), -EBUSY);
	assert_true(gaps > 3);
	in_the_gap = NULL;
	expect_ranges("--------aaaaaaaa");
	put_fault(0, &ctx_rw);
}

/* ---- Failures ----------------------------------------------------------- */

static void test_allocation_fails(void **state)
{
	struct gpusvm_range *range;
	u64 n, live;
	int err = -ENOMEM;

	(void)state;
	draw("wwwwwwwwwwwwwwww");
	for (n = 1; err == -ENOMEM; n++) {
		live = host_posix_alloc_live();
		host_posix_fail_alloc_at(n);
		err = fault(0, &ctx_rw, &range);
		host_posix_fail_alloc_at(0);
		if (err) {
			assert_int_equal(err, -ENOMEM);
			assert_int_equal(world.mirror.n_notifiers, 0);
			expect_ranges("--------");
			/* But for spare nodes, nothing is left. */
			assert_true(host_posix_alloc_live() <= live + 4);
		}
	}
	assert_int_equal(err, 0);
	assert_true(n > 3); /* range, notifier, at least */
	gpusvm_range_put(range);
	remove_at(0);

	model_fail(world.mm, MODEL_FAIL_NOTIFIER, 0, 1);
	assert_int_equal(fault(0, &ctx_rw, &range), -ENOMEM);
	assert_int_equal(world.mirror.n_notifiers, 0);
	put_fault(0, &ctx_rw);
}

/* At the end ranges are still there, and one is still held by someone. */
static void test_fini(void **state)
{
	struct gpusvm_range *held;

	(void)state;
	draw("wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww");
	for (u64 i = 0; i < 32; i += 4)
		put_fault(i, &ctx_rw);
	held = find(0);
	assert_int_equal(get_pages(held, &ctx_rw), 0);
	gpusvm_range_put(held);
	assert_int_equal(world.mirror.n_ranges, 4);
	/* world_close() ends it, and finds anything that is left. */
}

/* ---- Chance against a naive model --------------------------------------- */

#define PAGES 64u

static struct {
	char map[PAGES];   /* as in draw() */
	int owner[PAGES];  /* the range, 0: none */
	bool gone[PAGES];  /* that range is marked */
	int next;
} naive;

static void naive_unmap(u64 first, u64 last)
{
	for (u64 i = first; i < last; i++)
		for (u64 k = 0; k < PAGES && naive.owner[i] && naive.map[i] != '.'; k++)
			if (naive.owner[k] == naive.owner[i])
				naive.gone[k] = true;
}

static bool naive_fits(u64 page, u64 first, u64 size)
{
	if (first / NOTIFIER_PAGES != (first + size - 1) / NOTIFIER_PAGES)
		return false;
	for (u64 i = first; i < first + size; i++)
		if (i >= PAGES || naive.map[i] != naive.map[page] || naive.owner[i])
			return false;
	return true;
}

static int naive_fault(u64 page, bool read_only)
{
	if (naive.map[page] == '.')
		return -ENOENT;
	if (naive.map[page] == 'r' && !read_only)
		return -EPERM;
	if (naive.owner[page])
		return 0;
	for (u64 size = 8; size; size /= 2) {
		u64 first = page & ~(size - 1);

		if (!naive_fits(page, first, size))
			continue;
		naive.next++;
		for (u64 i = first; i < first + size; i++) {
			naive.owner[i] = naive.next;
			naive.gone[i] = false;
		}
		break;
	}
	return 0;
}

static void naive_remove(int owner)
{
	for (u64 i = 0; i < PAGES; i++)
		if (naive.owner[i] == owner)
			naive.owner[i] = 0;
}

static void naive_compare(void)
{
	char drawn[PAGES + 1], letter = 'a' - 1;

	for (u64 i = 0; i < PAGES; i++) {
		if (naive.owner[i] && (!i || naive.owner[i] != naive.owner[i - 1]))
			letter++;
		drawn[i] = !naive.owner[i] ? '-' : letter - (naive.gone[i] ? 'a' - 'A' : 0);
	}
	drawn[PAGES] = 0;
	expect_ranges(drawn);
}

static void random_step(u64 *seed)
{
	u64 first = rnd(seed, PAGES), last = first + 1 + rnd(seed, PAGES - first);
	struct gpusvm_range *range;
	bool read_only = rnd(seed, 2);
	int err;

	switch (rnd(seed, 16)) {
	case 0:
		assert_int_equal(model_munmap(world.mm, at(first), at(last)), 0);
		naive_unmap(first, last);
		memset(naive.map + first, '.', last - first);
		break;
	case 1:
	case 2:
		assert_int_equal(model_mmap(world.mm, at(first), at(last),
					    read_only ? MODEL_READ : MODEL_RW),
				 0);
		naive_unmap(first, last);
		memset(naive.map + first, read_only ? 'r' : 'w', last - first);
		break;
	case 3:
		assert_int_equal(model_mprotect(world.mm, at(first), at(last),
						read_only ? MODEL_READ : MODEL_RW),
				 0);
		for (u64 i = first; i < last; i++)
			if (naive.map[i] != '.')
				naive.map[i] = read_only ? 'r' : 'w';
		break;
	case 4:
		collect();
		for (u64 i = 0; i < PAGES; i++)
			if (naive.owner[i] && naive.gone[i])
				naive_remove(naive.owner[i]);
		break;
	case 5:
	case 6:
		range = find(first);
		assert_int_equal(!!range, !!naive.owner[first]);
		if (range) {
			take_down(range);
			gpusvm_range_put(range);
			naive_remove(naive.owner[first]);
		}
		break;
	default:
		err = fault(first, read_only ? &ctx_ro : &ctx_rw, &range);
		assert_int_equal(err, naive_fault(first, read_only));
		if (!err)
			gpusvm_range_put(range);
	}
}

static void test_random(void **state)
{
	u64 seed = seed_get();

	(void)state;
	memset(&naive, 0, sizeof(naive));
	memset(naive.map, '.', sizeof(naive.map));
	for (unsigned i = 0; i < 4000; i++) {
		random_step(&seed);
		naive_compare();
	}
}

/* ---- Threads ------------------------------------------------------------ */

static void churn(void *arg)
{
	u64 seed = (u64)(uintptr_t)arg * 77777 + 5;
	struct gpusvm_range *range;

	while (host_now() < stop_at) {
		int err = fault(rnd(&seed, 40), &ctx_rw, &range);

		HOST_CHECK(!err || err == -ENOENT || err == -EBUSY);
		if (!err && rnd(&seed, 3) == 0)
			take_down(range);
		if (!err)
			gpusvm_range_put(range);
		if (rnd(&seed, 16) == 0)
			collect();
		if (rnd(&seed, 64) == 0)
			gpusvm_mirror_verify(&world.mirror);
		(void)gpusvm_mirror_has_mapping(&world.mirror, at(rnd(&seed, 40)), at(41));
	}
}

static void change(void *arg)
{
	u64 seed = (u64)(uintptr_t)arg * 99991 + 7;

	while (host_now() < stop_at) {
		u64 first = rnd(&seed, 40), last = first + 1 + rnd(&seed, 40 - first);
		int err;

		switch (rnd(&seed, 4)) {
		case 0:
			err = model_munmap(world.mm, at(first), at(last));
			break;
		case 1:
			err = model_reap(world.mm, at(first), at(last));
			break;
		default:
			err = model_mmap(world.mm, at(first), at(last), MODEL_RW);
		}
		HOST_CHECK(!err || err == -EAGAIN);
		host_sleep(20 * HOST_USEC);
	}
}

static void test_threads(void **state)
{
	struct host_thread threads[4];

	(void)state;
	draw("wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww");
	stop_at = host_now() + HOST_SEC;
	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(host_thread_start(&threads[i], "churn", i < 3 ? churn : change,
						   (void *)i),
				 0);
	for (unsigned i = 0; i < 4; i++)
		host_thread_join(&threads[i]);
	gpusvm_mirror_verify(&world.mirror);
	assert_true(world.freed > 10);
}

#define TINY(test) cmocka_unit_test_setup_teardown(test, open_tiny, close_it)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TINY(test_modes),
		TINY(test_chunks_drawn),
		TINY(test_limits),
		TINY(test_notifier_edges),
		TINY(test_notifier_life),
		TINY(test_permission),
		TINY(test_migratable),
		TINY(test_unmap_marks),
		TINY(test_passes),
		TINY(test_not_blockable),
		TINY(test_insert_races),
		TINY(test_allocation_fails),
		TINY(test_fini),
		TINY(test_random),
		TINY(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
