/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* api.h: what the tests of <gpusvm/gpusvm.h> on a live process share. */
#ifndef GPUSVM_TESTS_LIVE_API_H
#define GPUSVM_TESTS_LIVE_API_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <gpusvm/gpusvm.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define MB ((size_t)1 << 20)

static struct gpusvm *svm;
static struct gpusvm_queue *queue;

/* One device; no errno is touched by any call between here and close. */
static inline int open_one(uint64_t vram, uint64_t flags, size_t event_ring)
{
	struct gpusvm_device_desc desc = {
	    .size = sizeof(desc),
	    .kind = "soft",
	    .vram_bytes = vram,
	    .flags = flags,
	};
	struct gpusvm_options options = {
	    .size = sizeof(options),
	    .devices = &desc,
	    .n_devices = 1,
	    .event_ring = event_ring,
	};
	int err = gpusvm_open(&options, &svm);

	return err ? err : gpusvm_queue_create(svm, 0, NULL, &queue);
}

static inline int setup(void **state)
{
	return open_one(64 * MB, 0, 0);
}

static inline int teardown(void **state)
{
	gpusvm_close(svm);
	svm = NULL;
	return 0;
}

#define DISTANCE (16 * PAGE)

/* With holes on both sides: libc's own memory (the thread's, say) may lie beside, would
 * be one mapping with ours and go with it, and is called home with what is near. */
static inline unsigned char *map_pages(size_t n, int prot)
{
	unsigned char *p =
	    mmap(NULL, n * PAGE + 2 * DISTANCE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	munmap(p, DISTANCE);
	munmap(p + DISTANCE + n * PAGE, DISTANCE);
	return p + DISTANCE;
}

static inline unsigned char *map_filled(size_t n, unsigned seed)
{
	unsigned char *p = map_pages(n, PROT_READ | PROT_WRITE);

	for (size_t i = 0; i < n * PAGE; i++)
		p[i] = (unsigned char)(i * 7 + (i >> 12) + seed);
	return p;
}

static inline void check_filled(const unsigned char *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n * PAGE; i++)
		if (p[i] != (unsigned char)(i * 7 + (i >> 12) + seed))
			fail_msg("byte %zu is %u", i, p[i]);
}

static inline struct gpusvm_page_info where_is(const void *p)
{
	struct gpusvm_page_info info;

	assert_int_equal(gpusvm_residency(svm, p, 1, &info, 1, sizeof(info)), 0);
	return info;
}

/* How many of n pages are in a kind of location. */
static inline size_t count_in(const void *p, size_t n, enum gpusvm_location_type type)
{
	struct gpusvm_page_info *info = calloc(n, sizeof(*info));
	size_t count = 0;

	assert_int_equal(gpusvm_residency(svm, p, n * PAGE, info, n, sizeof(*info)), 0);
	for (size_t i = 0; i < n; i++)
		count += info[i].location.type == type;
	free(info);
	return count;
}

static inline int move(const void *p, size_t n, struct gpusvm_location where, unsigned flags,
		       struct gpusvm_moved *moved)
{
	*moved = (struct gpusvm_moved){.size = sizeof(*moved)};
	return gpusvm_prefetch(svm, p, n * PAGE, where, flags, moved, NULL);
}

static inline void to_device(const void *p, size_t n)
{
	struct gpusvm_moved m;

	assert_int_equal(move(p, n, gpusvm_device(0), GPUSVM_STRICT, &m), 0);
	assert_int_equal(m.moved + m.already, n);
	assert_int_equal(count_in(p, n, GPUSVM_LOCATION_DEVICE), n);
}

static inline struct gpusvm_stats stats(int device)
{
	struct gpusvm_stats s = {.size = sizeof(s)};

	assert_int_equal(gpusvm_stats(svm, device, &s), 0);
	return s;
}

#endif
