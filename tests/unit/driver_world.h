/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * driver_world.h: what the tests of the driver share: an address space of the
 * model, a driver over it, software devices, and jobs that are waited for.
 */
#ifndef TESTS_DRIVER_WORLD_H
#define TESTS_DRIVER_WORLD_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "devices/soft/soft.h"
#include "driver/private.h"
#include "host/model/model.h"
#include "host/posix/posix.h"

#define MiB ((u64)1 << 20)
#define BASE ((u64)0x100000000) /* 2M aligned */
#define HANG (60 * HOST_SEC)	/* a job that takes longer never ends */
#define MAX_DEVICES 4

struct world {
	struct mm *mm;
	struct gpusvm_driver *driver;
	struct gpusvm_driver_queue *queue[MAX_DEVICES];
	struct gpusvm_device *device[MAX_DEVICES];
	int n_devices;
};

/* Events seen, by type; atomics. */
static u64 events[32];
/* Called for each, if set. */
static void (*on_event)(const struct gpusvm_driver_event *event);

static void count_event(void *arg, const struct gpusvm_driver_event *event)
{
	host_add_relaxed(&events[event->type], 1);
	if (on_event)
		on_event(event);
}

/* Each device's ops with some replaced, for tests that need a certain moment: of its own,
 * since the driver's threads read those of the devices before it. */
static struct gpusvm_device_ops hooked_ops[MAX_DEVICES];
static const struct gpusvm_device_ops *real_ops;
static void (*hook_ops)(struct gpusvm_device_ops *ops);

static int add_device(struct world *w, u64 vram, u64 flags)
{
	struct gpusvm_soft_options options = { .vram_bytes = vram, .lanes = 2, .flags = flags };
	struct gpusvm_device *device;
	int index;

	assert_int_equal(gpusvm_soft_create(&options, &device), 0);
	if (hook_ops) {
		struct gpusvm_device_ops *ops = &hooked_ops[w->n_devices];

		assert_true(w->n_devices < MAX_DEVICES);
		if (!w->n_devices)
			real_ops = device->ops;
		*ops = *real_ops;
		hook_ops(ops);
		device->ops = ops;
	}
	index = gpusvm_driver_device_add(w->driver, device);
	assert_true(index >= 0 && index < MAX_DEVICES);
	w->device[index] = device;
	assert_int_equal(gpusvm_driver_queue_create(w->driver, index, &w->queue[index]), 0);
	w->n_devices++;
	return index;
}

static u64 world_keepalive;

static void world_open_for(struct world *w, u64 timeslice)
{
	struct gpusvm_driver_options options = {
	    .timeslice = timeslice, .keepalive = world_keepalive, .event = count_event};

	memset(w, 0, sizeof(*w));
	memset(events, 0, sizeof(events));
	w->mm = model_mm_create();
	assert_non_null(w->mm);
	assert_int_equal(gpusvm_driver_create(w->mm, &options, &w->driver), 0);
}

static void world_open(struct world *w)
{
	world_open_for(w, 0);
}

static void check_clean(struct world *w)
{
	struct model_counters counters;
	const char *wrong = model_check(w->mm, false);

	if (wrong)
		fail_msg("model: %s", wrong);
	model_counters(w->mm, &counters);
	assert_int_equal(counters.violations, 0);
}

static void world_close(struct world *w)
{
	const char *wrong;

	for (int i = 0; i < MAX_DEVICES; i++)
		if (w->queue[i])
			gpusvm_driver_queue_destroy(w->queue[i]);
	gpusvm_driver_destroy(w->driver);
	wrong = model_check(w->mm, true);
	if (wrong)
		fail_msg("model: %s", wrong);
	check_clean(w);
	model_mm_destroy(w->mm);
	assert_int_equal(model_frames_live(), 0);
}

static void map(struct world *w, u64 start, u64 length, u32 flags)
{
	assert_int_equal(model_mmap(w->mm, start, start + length, flags), 0);
}

/* ---- Jobs ------------------------------------------------------------------ */

static int run_job(struct gpusvm_driver_queue *queue, struct gpusvm_job *job)
{
	struct gpusvm_fence done;
	int result = 1;

	gpusvm_fence_init(&done, NULL);
	job->done = &done;
	gpusvm_driver_submit(queue, job);
	HOST_CHECK(!gpusvm_fence_wait(&done, host_now() + HANG, &result));
	gpusvm_fence_fini(&done);
	return result;
}

static int device_write(struct world *w, int device, u64 va, const void *buffer, u64 length)
{
	struct gpusvm_job job = { .command = { .type = GPUSVM_COMMAND_WRITE, .va = va,
					       .length = length, .buffer = (void *)buffer },
				  .contained = true };

	return run_job(w->queue[device], &job);
}

static int device_read(struct world *w, int device, u64 va, void *buffer, u64 length)
{
	struct gpusvm_job job = { .command = { .type = GPUSVM_COMMAND_READ, .va = va,
					       .length = length, .buffer = buffer },
				  .contained = true };

	return run_job(w->queue[device], &job);
}

static int device_copy(struct world *w, int device, u64 to, u64 from, u64 length)
{
	struct gpusvm_job job = { .command = { .type = GPUSVM_COMMAND_COPY, .va = to, .va2 = from,
					       .length = length },
				  .contained = true };

	return run_job(w->queue[device], &job);
}

static int device_set(struct world *w, int device, u64 va, int byte, u64 length)
{
	struct gpusvm_job job = { .command = { .type = GPUSVM_COMMAND_SET, .va = va,
					       .byte = byte, .length = length },
				  .contained = true };

	return run_job(w->queue[device], &job);
}

static int device_add(struct world *w, int device, u64 va, u64 operand, u64 *old)
{
	struct gpusvm_job job = {
		.command = { .type = GPUSVM_COMMAND_ATOMIC, .va = va,
			     .atomic = { .op = GPUSVM_OP_ADD, .width = 8, .operand = operand,
					 .old = old } },
		.contained = true,
	};

	return run_job(w->queue[device], &job);
}

static int device_touch(struct world *w, int device, u64 va, u64 length, enum gpusvm_access access)
{
	struct gpusvm_job job = { .command = { .type = GPUSVM_COMMAND_TOUCH, .va = va,
					       .length = length, .access = access },
				  .contained = true };

	return run_job(w->queue[device], &job);
}

/* ---- The CPU, and patterns ---------------------------------------------------- */

static void cpu_write(struct world *w, u64 va, const void *buffer, u64 length)
{
	assert_int_equal(model_cpu_write(w->mm, va, buffer, length), 0);
}

static void cpu_read(struct world *w, u64 va, void *buffer, u64 length)
{
	assert_int_equal(model_cpu_read(w->mm, va, buffer, length), 0);
}

static u64 word_at(u64 va, u64 seed)
{
	u64 x = va * 0x9e3779b97f4a7c15ull + seed;

	return x ^ x >> 29;
}

static void *pattern(u64 va, u64 length, u64 seed)
{
	u64 *p = malloc(length);

	for (u64 i = 0; i < length / 8; i++)
		p[i] = word_at(va + 8 * i, seed);
	return p;
}

static void cpu_fill(struct world *w, u64 va, u64 length, u64 seed)
{
	void *p = pattern(va, length, seed);

	cpu_write(w, va, p, length);
	free(p);
}

static void cpu_expect(struct world *w, u64 va, u64 length, u64 seed)
{
	void *want = pattern(va, length, seed), *got = malloc(length);

	cpu_read(w, va, got, length);
	assert_memory_equal(got, want, length);
	free(want);
	free(got);
}

static void device_fill(struct world *w, int device, u64 va, u64 length, u64 seed)
{
	void *p = pattern(va, length, seed);

	assert_int_equal(device_write(w, device, va, p, length), 0);
	free(p);
}

static void device_expect(struct world *w, int device, u64 va, u64 length, u64 seed)
{
	void *want = pattern(va, length, seed), *got = malloc(length);

	assert_int_equal(device_read(w, device, va, got, length), 0);
	assert_memory_equal(got, want, length);
	free(want);
	free(got);
}

static struct gpusvm_driver_stats stats(struct world *w, int device)
{
	struct gpusvm_driver_stats ret;

	assert_int_equal(gpusvm_driver_stats_get(w->driver, device, &ret), 0);
	return ret;
}

static struct gpusvm_driver_residency where(struct world *w, u64 va)
{
	struct gpusvm_driver_residency ret;

	assert_int_equal(gpusvm_driver_residency(w->driver, va, 1, &ret), 0);
	return ret;
}

static struct gpusvm_migrate_result prefetch(struct world *w, u64 va, u64 length, int to)
{
	struct gpusvm_migrate_result ret;

	assert_int_equal(gpusvm_driver_prefetch(w->driver, va, va + length, to, false, &ret), 0);
	assert_int_equal(ret.moved + ret.already + ret.stayed + ret.holes,
			 length >> HOST_PAGE_SHIFT);
	return ret;
}

/* Of a group of tests: deferred work runs. */
static int __attribute__((unused)) work_setup(void **state)
{
	return host_work_start();
}

static int __attribute__((unused)) work_teardown(void **state)
{
	host_work_stop();
	return 0;
}

#endif
