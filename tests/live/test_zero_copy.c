/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_zero_copy.c: a device whose memory is ordinary memory, on a live process: pages
 * move there and back without a copy, whole and in parts, and what they hold is right
 * whatever was in the frames before. */
#define _GNU_SOURCE
#include "tests/live/api.h"

#define N (4 * MB / PAGE)

static int setup_zero_copy(void **state)
{
	return open_one(8 * MB, GPUSVM_DEVICE_ZERO_COPY, 0);
}

static unsigned char *map_aligned(size_t size, int advice)
{
	unsigned char *p = mmap(NULL, size + 2 * MB, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t head = (2 * MB - (uintptr_t)p % (2 * MB)) % (2 * MB);

	assert_ptr_not_equal(p, MAP_FAILED);
	if (head)
		munmap(p, head);
	munmap(p + head + size, 2 * MB - head);
	madvise(p + head, size, advice);
	return p + head;
}

static void fill(unsigned char *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n * PAGE; i++)
		p[i] = (unsigned char)(i * 7 + (i >> 12) + seed);
}

static void to_system(const void *p, size_t n)
{
	struct gpusvm_moved m;

	assert_int_equal(move(p, n, gpusvm_system(), 0, &m), 0);
	assert_int_equal(m.moved + m.already, n);
}

static void there_and_back(int advice)
{
	unsigned char *p = map_aligned(N * PAGE, advice), *buffer = malloc(N * PAGE);

	for (unsigned round = 0; round < 4; round++) {
		fill(p, N, round);
		to_device(p, N);
		assert_int_equal(gpusvm_read(queue, buffer, p, N * PAGE), 0);
		check_filled(buffer, N, round);
		if (round % 2)
			to_system(p, N);
		check_filled(p, N, round);
		/* What the device writes there comes home, too. */
		fill(buffer, N, round + 10);
		to_device(p, N);
		assert_int_equal(gpusvm_write(queue, p, buffer, N * PAGE), 0);
		if (round / 2)
			assert_int_equal(gpusvm_evict(svm, -1), 0);
		check_filled(p, N, round + 10);
	}
	free(buffer);
	munmap(p, N * PAGE);
}

static void test_2m(void **state)
{
	there_and_back(MADV_HUGEPAGE);
}

static void test_4k(void **state)
{
	there_and_back(MADV_NOHUGEPAGE);
}

/* Frames that hold what was theirs before: of memory that was unmapped, of zeros. */
static void test_frames_are_used_again(void **state)
{
	for (unsigned round = 0; round < 12; round++) {
		unsigned char *p =
			map_aligned(N * PAGE, round % 2 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);

		if (round % 3)
			fill(p, N, round);
		to_device(p, N);
		if (round % 4 == 1) /* some of it comes home page by page */
			for (size_t i = 0; i < N; i += 3)
				(void)((volatile unsigned char *)p)[i * PAGE];
		if (round % 4 == 2)
			assert_int_equal(madvise(p + 5 * PAGE, 9 * PAGE, MADV_DONTNEED), 0);
		for (size_t i = 0; i < N * PAGE; i += 61) {
			bool dropped = round % 4 == 2 && i >= 5 * PAGE && i < 14 * PAGE;
			unsigned want = round % 3 && !dropped
						? (unsigned char)(i * 7 + (i >> 12) + round)
						: 0;

			if (round % 4 == 3)
				break; /* all of it goes from the device */
			if (p[i] != want)
				fail_msg("round %u: byte %zu is %u, not %u", round, i, p[i], want);
		}
		munmap(p, N * PAGE);
	}
}

static void test_zeros(void **state)
{
	unsigned char *p = map_aligned(N * PAGE, MADV_HUGEPAGE);
	unsigned char byte = 1;

	to_device(p, N);
	assert_int_equal(gpusvm_read(queue, &byte, p + N * PAGE - 1, 1), 0);
	assert_int_equal(byte, 0);
	byte = 9;
	assert_int_equal(gpusvm_write(queue, p + 77, &byte, 1), 0);
	assert_int_equal(gpusvm_evict(svm, -1), 0);
	for (size_t i = 0; i < N * PAGE; i++)
		if (p[i] != (i == 77 ? 9 : 0))
			fail_msg("byte %zu is %u", i, p[i]);
	munmap(p, N * PAGE);
}

/* A child has what is on the device; afterwards pages still move. */
static void test_fork(void **state)
{
	unsigned char *p = map_filled(64, 5);

	for (unsigned round = 0; round < 3; round++) {
		pid_t child;
		int status;

		to_device(p, 64);
		child = fork();
		if (!child) {
			for (size_t i = 0; i < 64 * PAGE; i++)
				if (p[i] != (unsigned char)(i * 7 + (i >> 12) + 5))
					_exit(1);
			_exit(0);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
		check_filled(p, 64, 5);
	}
	munmap(p, 64 * PAGE);
}

static void test_mremap_and_protection(void **state)
{
	unsigned char *p = map_filled(64, 5), *q = map_pages(64, PROT_READ | PROT_WRITE);

	to_device(p, 64);
	assert_ptr_equal(mremap(p, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q), q);
	assert_int_equal(mprotect(q, 32 * PAGE, PROT_READ), 0);
	check_filled(q, 64, 5);
	assert_int_equal(mprotect(q, 32 * PAGE, PROT_READ | PROT_WRITE), 0);
	to_device(q, 64);
	check_filled(q, 64, 5);
	munmap(q, 64 * PAGE);
}

/* Does this kernel give huge pages, and the page table back of what was small ones? */
static bool tables_go(void)
{
	unsigned char *p = map_aligned(2 * MB, MADV_NOHUGEPAGE);
	bool huge;

	fill(p, 2 * MB / PAGE, 0);
	madvise(p, 2 * MB, MADV_DONTNEED);
	madvise(p, 2 * MB, MADV_HUGEPAGE);
	p[0] = 1;
	huge = where_is(p).order == 9;
	munmap(p, 2 * MB);
	return huge;
}

/* Huge pages stay whole on the way there and back, also in frames that small ones have had. */
static void test_huge_stays_huge(void **state)
{
	unsigned char *p = map_aligned(N * PAGE, MADV_HUGEPAGE), *small;

	fill(p, N, 1);
	if (!tables_go() || where_is(p).order < 9 || where_is(p + N * PAGE - 1).order < 9) {
		munmap(p, N * PAGE);
		skip();
	}
	for (unsigned round = 0; round < 3; round++) {
		/* All of the device's frames. */
		small = map_aligned(8 * MB, MADV_NOHUGEPAGE);
		fill(small, 8 * MB / PAGE, round);
		to_device(small, 8 * MB / PAGE);
		if (round % 2)
			to_system(small, 8 * MB / PAGE);
		munmap(small, 8 * MB);
		to_device(p, N);
		to_system(p, N);
		check_filled(p, N, 1);
		assert_int_equal(where_is(p).order, 9);
		assert_int_equal(where_is(p + N * PAGE - 1).order, 9);
	}
	munmap(p, N * PAGE);
}

/* What may not be written stays, beside what goes. */
static void test_read_only_part(void **state)
{
	unsigned char *p = map_aligned(N * PAGE, MADV_HUGEPAGE), *buffer = malloc(N * PAGE);
	struct gpusvm_moved m;

	fill(p, N, 3);
	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(mprotect(p + 100 * PAGE, 50 * PAGE, PROT_READ), 0);
		assert_int_equal(move(p, N, gpusvm_device(0), 0, &m), 0);
		assert_int_equal(m.moved + m.already, N - 50);
		assert_int_equal(m.stayed, 50);
		check_filled(p + 100 * PAGE, 50, 3 + 100); /* see fill */
		assert_int_equal(mprotect(p + 100 * PAGE, 50 * PAGE, PROT_READ | PROT_WRITE), 0);
		assert_int_equal(gpusvm_read(queue, buffer, p, N * PAGE), 0);
		check_filled(buffer, N, 3);
		check_filled(p, N, 3);
		to_system(p, N);
	}
	free(buffer);
	munmap(p, N * PAGE);
}

struct unbinding {
	unsigned char *p;
	int device, err;
};

static void *move_to_it(void *arg)
{
	struct unbinding *u = arg;
	struct gpusvm_moved m;

	/* Until it is gone. */
	do {
		u->err = move(u->p, N, gpusvm_device(u->device), 0, &m);
		if (!u->err)
			u->err = move(u->p, N, gpusvm_system(), 0, &m);
	} while (!u->err);
	return NULL;
}

/* The device goes while pages go straight to its frames: all of them come back. */
static void test_unbound_meanwhile(void **state)
{
	const struct gpusvm_device_desc desc = { .size = sizeof(desc),
						 .flags = GPUSVM_DEVICE_ZERO_COPY,
						 .vram_bytes = 8 * MB };
	struct unbinding u = { .p = map_aligned(N * PAGE, MADV_HUGEPAGE) };
	pthread_t thread;

	for (unsigned round = 0; round < 8; round++) {
		struct gpusvm_moved m;

		fill(u.p, N, round);
		u.device = gpusvm_device_bind(svm, &desc);
		assert_true(u.device > 0);
		assert_int_equal(move(u.p, N, gpusvm_device(u.device), 0, &m), 0);
		assert_int_equal(pthread_create(&thread, NULL, move_to_it, &u), 0);
		usleep(round * 500);
		assert_int_equal(gpusvm_device_unbind(svm, u.device), 0);
		assert_int_equal(pthread_join(thread, NULL), 0);
		assert_int_equal(u.err, -ENODEV);
		check_filled(u.p, N, round);
	}
	munmap(u.p, N * PAGE);
}

/* More than fits: objects are evicted, frames change hands all the time. */
static void test_oversubscribed(void **state)
{
	const size_t n = 24 * MB / PAGE;
	unsigned char *p = map_aligned(n * PAGE, MADV_HUGEPAGE);

	fill(p, n, 1);
	for (unsigned round = 0; round < 3; round++)
		for (size_t at = 0; at < n; at += 256)
			assert_int_equal(gpusvm_memcpy(queue, p + at * PAGE + PAGE, p + at * PAGE,
						       PAGE, NULL),
					 0);
	for (size_t i = 0; i < n * PAGE; i++) {
		size_t page = i / PAGE, from = page % 256 == 1 ? i - PAGE : i;

		if (p[i] != (unsigned char)(from * 7 + (from >> 12) + 1))
			fail_msg("byte %zu is %u", i, p[i]);
	}
	munmap(p, n * PAGE);
}

/* More than go at once, some of which cannot go so: each round another way. */
#define MANY (72 * MB / PAGE)
#define ODD 512u /* pages from one odd 2M to the next */

static uint64_t *word(unsigned char *p, size_t page)
{
	return (uint64_t *)(void *)(p + page * PAGE + page % 512 * 8);
}

/* 0 to 3, or 4: nothing is odd about it. */
static unsigned odd_way(size_t page, unsigned round)
{
	size_t first = ODD * round;

	return page < first || (page - first) % (ODD * (round + 3)) ? 4 : page / ODD % 4;
}

static uint64_t wanted(size_t page, unsigned round)
{
	return odd_way(page, round) ? page + round : 0;
}

static void make_odd(unsigned char *p, unsigned way)
{
	if (way == 0) /* a hole, which reads as zeros */
		assert_int_equal(madvise(p, PAGE, MADV_DONTNEED), 0);
	if (way == 1) /* another mapping */
		assert_int_equal(mprotect(p, PAGE, PROT_READ), 0);
	if (way == 2) /* one that is there already */
		to_device(p, 1);
	if (way == 3) /* small ones */
		assert_int_equal(madvise(p, 2 * MB, MADV_NOHUGEPAGE), 0);
}

static void many(size_t vram)
{
	unsigned char *p = map_aligned(MANY * PAGE, MADV_HUGEPAGE);
	struct gpusvm_moved m;
	uint64_t has;

	assert_int_equal(open_one(vram, GPUSVM_DEVICE_ZERO_COPY, 0), 0);
	for (unsigned round = 0; round < 6; round++) {
		for (size_t i = 0; i < MANY; i++)
			*word(p, i) = i + round;
		for (size_t i = 0; i < MANY; i += ODD)
			make_odd(p + i * PAGE, odd_way(i, round));
		assert_int_equal(move(p, MANY, gpusvm_device(0), 0, &m), 0);
		assert_int_equal(m.moved + m.already + m.stayed + m.holes, MANY);
		if (vram > MANY * PAGE)
			assert_in_range(m.stayed, 0, MANY / ODD);
		for (size_t i = 0; i < MANY; i += 128) {
			assert_int_equal(gpusvm_read(queue, &has, word(p, i), sizeof(has)), 0);
			if (has != wanted(i, round))
				fail_msg("round %u: the device has %llu in page %zu", round,
					 (unsigned long long)has, i);
		}
		assert_int_equal(mprotect(p, MANY * PAGE, PROT_READ | PROT_WRITE), 0);
		madvise(p, MANY * PAGE, MADV_HUGEPAGE);
		if (round % 2)
			to_system(p, MANY);
		for (size_t i = 0; i < MANY; i++)
			if (*word(p, i) != wanted(i, round))
				fail_msg("round %u: page %zu", round, i);
		if (round % 3 == 0) /* whole again */
			assert_int_equal(madvise(p, MANY * PAGE, MADV_DONTNEED), 0);
	}
	munmap(p, MANY * PAGE);
}

static void test_many(void **state)
{
	many(96 * MB);
}

static void test_many_and_too_many(void **state)
{
	many(20 * MB);
}

static void test_kinds(void **state)
{
	struct gpusvm_device_desc desc = { .size = sizeof(desc), .flags = GPUSVM_DEVICE_COHERENT };
	struct gpusvm_options options = { .size = sizeof(options),
					  .devices = &desc,
					  .n_devices = 1 };
	struct gpusvm_device_info info = { .size = sizeof(info) };

	assert_int_equal(gpusvm_open(&options, &svm), -EOPNOTSUPP);
	desc.flags = GPUSVM_DEVICE_COHERENT | GPUSVM_DEVICE_ZERO_COPY;
	assert_int_equal(gpusvm_open(&options, &svm), -EOPNOTSUPP);
	desc.flags = 1u << 30;
	assert_int_equal(gpusvm_open(&options, &svm), -EINVAL);
	assert_int_equal(open_one(8 * MB, GPUSVM_DEVICE_ZERO_COPY | GPUSVM_DEVICE_NO_FAULT, 0), 0);
	assert_int_equal(gpusvm_device_info(svm, 0, &info), 0);
	assert_int_equal(info.flags, GPUSVM_DEVICE_ZERO_COPY | GPUSVM_DEVICE_NO_FAULT);
}

int main(void)
{
#define WITH(f) cmocka_unit_test_setup_teardown(f, setup_zero_copy, teardown)
	const struct CMUnitTest tests[] = {
		WITH(test_2m),
		WITH(test_4k),
		WITH(test_frames_are_used_again),
		WITH(test_zeros),
		WITH(test_fork),
		WITH(test_mremap_and_protection),
		WITH(test_huge_stays_huge),
		WITH(test_read_only_part),
		WITH(test_unbound_meanwhile),
		WITH(test_oversubscribed),
		cmocka_unit_test_teardown(test_many, teardown),
		cmocka_unit_test_teardown(test_many_and_too_many, teardown),
		cmocka_unit_test_teardown(test_kinds, teardown),
	};

	return cmocka_run_group_tests_name("zero_copy", tests, NULL, NULL);
}
