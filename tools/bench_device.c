/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* bench_device.c: figures of a device at work, and of the mirror's index. The
 * index is the mirror's own, looked up as its users do, under its notifier
 * lock. */
#include <gpusvm/mirror.h>

#include "tools/bench.h"

#include <errno.h>
#include <string.h>

/* ---- A device that streams ------------------------------------------------ */

#define PIECE ((size_t)1 << 20)

struct stream_args {
	char *dst;
	const char *src;
};

static void stream_kernel(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	const struct stream_args *args = p;
	size_t at = item * PIECE, end = at + PIECE, length;

	for (; at < end; at += length) {
		const void *src;
		void *dst;

		length = end - at;
		gpusvm_span2(lane, args->dst + at, args->src + at, &length, &dst, &src);
		memcpy(dst, src, length);
	}
}

static int stream(struct bench *b, double *ret)
{
	struct gpusvm_kernel kernel = { .size = sizeof(kernel), .fn = stream_kernel };
	struct stream_args args = { .dst = b->dst, .src = b->src };
	int result = bench_to_device(b, b->src, BENCH_MEMORY);
	uint64_t start;

	result = result ? result : bench_to_device(b, b->dst, BENCH_MEMORY);
	start = tool_now();
	result = result ? result : gpusvm_launch(b->queue, &kernel, &args, sizeof(args),
						 BENCH_MEMORY / PIECE, NULL);
	*ret = bench_rate(BENCH_MEMORY, tool_now() - start);
	return result;
}

static int home_memcpy(struct bench *b, double *ret)
{
	int result = bench_to_system(b, b->src, BENCH_MEMORY);

	result = result ? result : bench_to_system(b, b->dst, BENCH_MEMORY);
	if (!result) {
		bench_read(b->src, BENCH_MEMORY);
		bench_read(b->dst, BENCH_MEMORY);
		result = bench_memcpy(b, ret);
	}
	return result;
}

/* ---- Lookups -------------------------------------------------------------- */

#define INDEXED 1000000u
#define LOOKUPS 1000000u
#define STRIDE ((u64)2 << 20)

struct index {
	struct gpusvm_mirror mirror;
	struct gpusvm_range **ranges;
	struct gpusvm_range *all;
	bool made;
};

static void free_index(struct bench *b)
{
	struct index *index = b->state;

	if (index->made) {
		/* The ranges were not made by the mirror, which would free them. */
		gpusvm_interval_tree_fini(&index->mirror.ranges);
		gpusvm_interval_tree_init(&index->mirror.ranges);
		gpusvm_mirror_fini(&index->mirror);
	}
	bench_unmap(index->ranges, INDEXED * sizeof(*index->ranges));
	bench_unmap(index->all, INDEXED * sizeof(*index->all));
	bench_unmap(index, sizeof(*index));
}

static int fill_index(struct index *index)
{
	for (u64 i = 0; i < INDEXED; i++) {
		struct gpusvm_range *range = &index->all[i];
		int result = gpusvm_interval_prepare(&index->mirror.ranges);

		if (result)
			return result;
		range->interval.start = i * STRIDE;
		range->interval.end = (i + 1) * STRIDE;
		gpusvm_interval_insert(&index->mirror.ranges, &range->interval);
		index->ranges[i] = range;
	}
	return 0;
}

static int make_index(struct bench *b)
{
	struct index *index = b->state = bench_map(sizeof(*index), false);
	int result;

	if (!index)
		return -ENOMEM;
	index->ranges = bench_map(INDEXED * sizeof(*index->ranges), true);
	index->all = bench_map(INDEXED * sizeof(*index->all), true);
	if (!index->ranges || !index->all)
		return -ENOMEM;
	result = gpusvm_mirror_init(&index->mirror, "bench", NULL, 0, 0, 0, NULL, NULL, 0);
	index->made = !result;
	return result ? result : fill_index(index);
}

static volatile u64 sink;

/* A lookup is for an address that what was found before led to, as in a fault
 * handler: the processor cannot begin the next one early, on neither side. */
static u64 next_address(uint64_t *state, u64 found)
{
	return (tool_random(state) + found) % (INDEXED * STRIDE);
}

/* The same lookups each time. */
static int find_ranges(struct bench *b, double *ret)
{
	struct index *index = b->state;
	uint64_t state = b->seed, start = tool_now();
	u64 sum = 0;

	gpusvm_notifier_lock(&index->mirror);
	for (unsigned i = 0; i < LOOKUPS; i++) {
		u64 address = next_address(&state, sum);

		sum += gpusvm_range_find(&index->mirror, address, address + 1)->interval.start;
	}
	gpusvm_notifier_unlock(&index->mirror);
	sink = sum;
	*ret = (double)(tool_now() - start) / LOOKUPS;
	return 0;
}

static int find_in_array(struct bench *b, double *ret)
{
	struct index *index = b->state;
	uint64_t state = b->seed, start = tool_now();
	u64 sum = 0;

	for (unsigned i = 0; i < LOOKUPS; i++) {
		u64 address = next_address(&state, sum);

		sum += index->ranges[address / STRIDE]->interval.start;
	}
	sink = sum;
	*ret = (double)(tool_now() - start) / LOOKUPS;
	return 0;
}

const struct bench_figure bench_device_figures[] = {
	{ .name = "gpu_stream", .unit = "GiB/s", .limit = "memcpy of 64 MiB", .wanted = 0.50,
	  .value = stream, .held_against = home_memcpy },
	{ .name = "range_find_1m", .unit = "ns",
	  .limit = "the same lookups in a perfect array of pointers to as many objects",
	  .wanted = 0.50, .time = true, .opened = make_index, .closing = free_index,
	  .value = find_ranges, .held_against = find_in_array },
	{ 0 },
};
