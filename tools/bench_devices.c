/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bench_devices.c: what several devices cost together, against one of them alone. The
 * devices are added to the open handle's driver, and pages are got from the mirror,
 * as a driver would: no application sees either.
 */
#include <gpusvm/mirror.h>

#include "devices/soft/soft.h"
#include "runtime/private.h"
#include "tools/bench.h"

#include <errno.h>
#include <sys/mman.h>

#define DEVICES 4u

/* ---- Invalidation ----------------------------------------------------------------- */

#define FLUSH_NS 100000u

struct devices {
	int index[DEVICES];
};

static void close_devices(struct bench *b)
{
	struct devices *devices = b->state;

	for (unsigned i = 0; i < DEVICES; i++)
		if (devices->index[i] > 0)
			gpusvm_driver_device_remove(b->svm->driver, devices->index[i]);
	bench_unmap(devices, sizeof(*devices));
}

static int open_devices(struct bench *b)
{
	struct gpusvm_soft_options options = {
		.lanes = 1,
		.copy_engines = 1,
		.flags = GPUSVM_DEVICE_NO_VRAM,
		.flush_latency = FLUSH_NS,
	};
	struct devices *devices = b->state = bench_map(sizeof(*devices), false);

	if (!devices)
		return -ENOMEM;
	for (unsigned i = 0; i < DEVICES; i++) {
		struct gpusvm_device *device;
		int result = gpusvm_soft_create(&options, &device);

		if (!result)
			result = gpusvm_driver_device_add(b->svm->driver, device);
		if (result < 0)
			return result;
		devices->index[i] = result;
	}
	return 0;
}

/* n devices have 2M mapped, which then lose their contents: until nobody reaches them. */
static int invalidate(struct bench *b, unsigned n, double *ret)
{
	struct devices *devices = b->state;
	u64 start = (u64)(uintptr_t)b->src, at;
	struct gpusvm_migrate_result moved;
	int result = 0;

	for (unsigned i = 0; !result && i < n; i++)
		result = gpusvm_driver_prefetch(b->svm->driver, start, start + BENCH_HUGE,
						devices->index[i], false, &moved);
	if (result)
		return result;
	at = tool_now();
	if (madvise(b->src, BENCH_HUGE, MADV_DONTNEED))
		return -errno;
	result = mm_sync(b->svm->mm, start, start + BENCH_HUGE);
	*ret = (double)(tool_now() - at) / 1000;
	return result;
}

static int invalidate_all(struct bench *b, double *ret)
{
	return invalidate(b, DEVICES, ret);
}

static int invalidate_one(struct bench *b, double *ret)
{
	return invalidate(b, 1, ret);
}

/* ---- Getting pages ------------------------------------------------------------------ */

#define GETS 500u

struct getter {
	struct gpusvm_mirror mirror;
	struct mm_notifier notifier;
	struct gpusvm_pages pages[DEVICES];
	bool made, watching;
};

/* Nothing happens to the memory meanwhile; what did happen would be noticed. */
static int getter_start(struct mm_notifier *n, const struct mm_invalidation *inv, u64 seq)
{
	struct getter *getter = host_container_of(n, struct getter, notifier);

	host_write_lock(&getter->mirror.notifier_lock);
	mm_notifier_set_seq(n, seq);
	host_write_unlock(&getter->mirror.notifier_lock);
	return 0;
}

static void getter_finish(struct mm_notifier *n, const struct mm_invalidation *inv)
{
}

static const struct mm_notifier_ops getter_ops = {
	.invalidate_start = getter_start,
	.invalidate_finish = getter_finish,
};

static void close_getter(struct bench *b)
{
	struct getter *getter = b->state;

	for (unsigned i = 0; getter->made && i < DEVICES; i++)
		gpusvm_pages_free(&getter->mirror, &getter->pages[i]);
	if (getter->watching)
		mm_notifier_remove(&getter->notifier);
	if (getter->made)
		gpusvm_mirror_fini(&getter->mirror);
	bench_unmap(getter, sizeof(*getter));
}

static int open_getter(struct bench *b)
{
	struct getter *getter = b->state = bench_map(sizeof(*getter), false);
	u64 start = (u64)(uintptr_t)b->src;
	int result;

	if (!getter)
		return -ENOMEM;
	result = gpusvm_mirror_init(&getter->mirror, "bench", NULL, 0, 0, 0, NULL, NULL, 0);
	if (result)
		return result;
	getter->made = true;
	for (unsigned i = 0; i < DEVICES; i++)
		gpusvm_pages_init(&getter->pages[i], &getter->pages[i]);
	result = mm_notifier_insert(&getter->notifier, b->svm->mm, start, start + BENCH_HUGE,
				    &getter_ops);
	getter->watching = !result;
	return result;
}

static int get(struct bench *b, unsigned n)
{
	static const struct gpusvm_ctx ctx = { .read_only = false };
	struct getter *getter = b->state;
	u64 start = (u64)(uintptr_t)b->src;
	struct gpusvm_pages *pages[DEVICES];

	for (unsigned i = 0; i < n; i++)
		pages[i] = &getter->pages[i];
	return gpusvm_pages_get(&getter->mirror, pages, n, b->svm->mm, &getter->notifier, start,
				start + BENCH_HUGE, &ctx);
}

static void unget(struct bench *b)
{
	struct getter *getter = b->state;

	for (unsigned i = 0; i < DEVICES; i++)
		gpusvm_pages_unmap(&getter->mirror, &getter->pages[i], false);
}

/* Microseconds for the pages of n devices, in one call. */
static int get_pages(struct bench *b, unsigned n, double *ret)
{
	uint64_t start, sum = 0;
	int result = 0;

	for (unsigned i = 0; !result && i < GETS; i++) {
		unget(b);
		start = tool_now();
		result = get(b, n);
		sum += tool_now() - start;
	}
	*ret = (double)sum / GETS / 1000;
	return result;
}

static int get_together(struct bench *b, double *ret)
{
	return get_pages(b, DEVICES, ret);
}

static int get_one_by_one(struct bench *b, double *ret)
{
	int result = get_pages(b, 1, ret);

	*ret *= DEVICES;
	return result;
}

const struct bench_figure bench_devices_figures[] = {
	{ .name = "invalidate_4_devices", .unit = "us",
	  .limit = "invalidate_1_device, each with a flush of 100 us", .wanted = 0.80,
	  .time = true, .opened = open_devices, .closing = close_devices,
	  .value = invalidate_all, .held_against = invalidate_one },
	{ .name = "get_pages_4_devices", .unit = "us",
	  .limit = "4 x get_pages_1_device, of 2 MiB present", .wanted = 2.0, .time = true,
	  .opened = open_getter, .closing = close_getter, .value = get_together,
	  .held_against = get_one_by_one },
	{ 0 },
};
