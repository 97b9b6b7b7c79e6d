/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* bench_move.c: figures of moving memory, and of what it costs to keep track
 * of it. No locks. */
#include "host/posix/posix.h"
#include "tools/bench.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

static int to_device(struct bench *b, double *ret)
{
	struct gpusvm_moved moved = { .size = sizeof(moved) };
	int result = bench_to_system(b, b->src, BENCH_MEMORY);
	uint64_t start = tool_now();

	if (!result)
		result = gpusvm_prefetch(b->svm, b->src, BENCH_MEMORY, gpusvm_device(0), 0, &moved,
					 NULL);
	*ret = bench_rate(BENCH_MEMORY, tool_now() - start);
	return result || moved.moved == BENCH_MEMORY / BENCH_PAGE ? result : -EIO;
}

static int to_system(struct bench *b, double *ret)
{
	struct gpusvm_moved moved = { .size = sizeof(moved) };
	int result = bench_to_device(b, b->src, BENCH_MEMORY);
	uint64_t start = tool_now();

	if (!result)
		result = gpusvm_prefetch(b->svm, b->src, BENCH_MEMORY, gpusvm_system(), 0, &moved,
					 NULL);
	*ret = bench_rate(BENCH_MEMORY, tool_now() - start);
	return result || moved.moved == BENCH_MEMORY / BENCH_PAGE ? result : -EIO;
}

/* The same where nothing is copied: as little as there is to do, as much it is a matter of what
 * is in the caches. memcpy has just had its source read; this has just been done once. */
static int to_device_warm(struct bench *b, double *ret)
{
	int result = bench_to_device(b, b->src, BENCH_MEMORY);

	return result ? result : to_device(b, ret);
}

/* A second device, and links both ways. */
static int add_peer(struct bench *b)
{
	const struct gpusvm_device_desc desc = { .size = sizeof(desc) };
	const struct gpusvm_link link = {
		.size = sizeof(link),
		.flags = GPUSVM_LINK_MAP | GPUSVM_LINK_COPY,
	};
	int peer = gpusvm_device_bind(b->svm, &desc), result = peer < 0 ? peer : 0;

	result = result ? result : gpusvm_link_set(b->svm, 0, peer, &link);
	return result ? result : gpusvm_link_set(b->svm, peer, 0, &link);
}

/* It counts only if all of it went straight over the link. */
static int device_to_device(struct bench *b, double *ret)
{
	struct gpusvm_stats before = { .size = sizeof(before) }, after = { .size = sizeof(after) };
	int result = bench_to_device(b, b->src, BENCH_MEMORY);
	uint64_t start;

	result = result ? result : gpusvm_stats(b->svm, 1, &before);
	start = tool_now();
	if (!result)
		result = gpusvm_prefetch(b->svm, b->src, BENCH_MEMORY, gpusvm_device(1), 0, NULL,
					 NULL);
	*ret = bench_rate(BENCH_MEMORY, tool_now() - start);
	result = result ? result : gpusvm_stats(b->svm, 1, &after);
	return result || after.bytes_peer - before.bytes_peer == BENCH_MEMORY ? result : -EIO;
}

/* memcpy reads src: it must be at home, and warm. */
static int warm_memcpy(struct bench *b, double *ret)
{
	int result = bench_to_system(b, b->src, BENCH_MEMORY);

	if (!result)
		bench_read(b->src, BENCH_MEMORY);
	return result ? result : bench_memcpy(b, ret);
}

/* ---- The CPU reads everything back --------------------------------------- */

static volatile uint64_t sink;

static int cpu_scan(struct bench *b, double *ret)
{
	int result = bench_to_device(b, b->src, BENCH_MEMORY);
	uint64_t start = tool_now();

	sink = bench_read(b->src, BENCH_MEMORY);
	*ret = bench_rate(BENCH_MEMORY, tool_now() - start);
	return result;
}

struct scan {
	char *to;
	const char *from;
};

static void *copy_thread(void *arg)
{
	struct scan *scan = arg;

	memcpy(scan->to, scan->from, BENCH_MEMORY);
	return NULL;
}

/* Another thread copies to fresh memory, then the same read. */
static int copied_scan(struct bench *b, double *ret)
{
	struct scan scan = { .to = bench_map(BENCH_MEMORY, true), .from = b->dst };
	uint64_t start = tool_now();
	pthread_t thread;
	int result;

	if (!scan.to)
		return -ENOMEM;
	result = -pthread_create(&thread, NULL, copy_thread, &scan);
	if (!result) {
		pthread_join(thread, NULL);
		sink = bench_read(scan.to, BENCH_MEMORY);
		*ret = bench_rate(BENCH_MEMORY, tool_now() - start);
	}
	bench_unmap(scan.to, BENCH_MEMORY);
	return result;
}

/* ---- Memory that the library adds ---------------------------------------- */

/* What the second half adds when the first is on the device already: what there
 * is once only, however much is moved, is no part of it. */
static int move_half(struct bench *b)
{
	int result = bench_to_device(b, b->src, BENCH_MEMORY / 2);

	b->base = host_arena_used();
	return result;
}

static int added(struct bench *b, size_t pages, double *ret)
{
	int result = bench_to_device(b, b->src, BENCH_MEMORY);
	u64 used = host_arena_used();

	*ret = used > b->base ? (double)(used - b->base) / ((double)pages / 2) : 0;
	return result;
}

static int added_4k(struct bench *b, double *ret)
{
	return added(b, BENCH_MEMORY / BENCH_PAGE, ret);
}

static int added_2m(struct bench *b, double *ret)
{
	return added(b, BENCH_MEMORY / BENCH_HUGE, ret);
}

static int limit_4k(struct bench *b, double *ret)
{
	*ret = 16;
	return 0;
}

static int limit_2m(struct bench *b, double *ret)
{
	*ret = 1024;
	return 0;
}

const struct bench_figure bench_move_figures[] = {
	{ .name = "to_device_64m_thp", .unit = "GiB/s", .limit = "memcpy of 64 MiB, warm",
	  .wanted = 0.95, .value = to_device, .held_against = warm_memcpy },
	{ .name = "to_system_64m_thp", .unit = "GiB/s", .limit = "memcpy of 64 MiB, warm",
	  .wanted = 0.95, .value = to_system, .held_against = warm_memcpy },
	{ .name = "zero_copy_to_device_64m_thp", .unit = "GiB/s",
	  .limit = "memcpy of 64 MiB, warm", .wanted = 50, .zero_copy = true,
	  .value = to_device_warm, .held_against = warm_memcpy },
	{ .name = "to_device_64m_4k", .unit = "GiB/s", .limit = "memcpy of 64 MiB, warm",
	  .wanted = 0.90, .small = true, .value = to_device, .held_against = warm_memcpy },
	{ .name = "to_system_64m_4k", .unit = "GiB/s", .limit = "memcpy of 64 MiB, warm",
	  .wanted = 0.70, .small = true, .value = to_system, .held_against = warm_memcpy },
	{ .name = "device_to_device_64m_thp", .unit = "GiB/s", .limit = "memcpy of 64 MiB, warm",
	  .wanted = 0.90, .opened = add_peer, .value = device_to_device,
	  .held_against = warm_memcpy },
	{ .name = "cpu_scan_64m", .unit = "GiB/s",
	  .limit = "another thread copies 64 MiB to fresh memory, then the same read",
	  .wanted = 0.85, .value = cpu_scan, .held_against = copied_scan },
	{ .name = "memory_4k_page", .unit = "bytes", .limit = "16 bytes for a 4K device page",
	  .wanted = 1, .time = true, .small = true, .opened = move_half,
	  .value = added_4k, .held_against = limit_4k },
	{ .name = "memory_2m_page", .unit = "bytes", .limit = "2 bytes for each 4K of it",
	  .wanted = 1, .time = true, .opened = move_half, .value = added_2m,
	  .held_against = limit_2m },
	{ 0 },
};
