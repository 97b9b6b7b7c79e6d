/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * world.h: what the cases of the suite share. Process addresses are made up (VA and
 * above): only the page table gives them a meaning. Each case has a world: a device,
 * a VM, a queue, and system memory behind a window of addresses. The fault handler
 * maps what is in the window, page by page or in whole blocks, and refuses the rest.
 */
#ifndef GPUSVM_TESTS_DEVICE_WORLD_H
#define GPUSVM_TESTS_DEVICE_WORLD_H

#include "tests/device/conformance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VA ((u64)0x7f0000000000)
#define MB ((u64)1 << 20)
#define WINDOW (4 * MB)
#define PATIENCE (60 * HOST_SEC)

enum { FAILED, PASSED, SKIPPED };

struct world {
	const struct conformance_target *target;
	struct gpusvm_device *dev;
	const struct gpusvm_device_ops *ops;
	struct gpusvm_device_vm *vm;
	struct gpusvm_device_queue *queue;
	const char *reason;	/* of a skip */
	u8 *memory;		/* WINDOW bytes behind VA */
	bool small;		/* the handler maps pages of 4K */
	u32 readonly;		/* atomic: it maps for reading only */
	struct host_mutex lock; /* it maps under this, and nothing while a case holds it */
	u64 faults, refused;	/* atomic */
	u64 last_address;
	u32 last_access;
};

#define CHECK(c)                                                                                   \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			printf("# %s:%d: %s\n", __FILE__, __LINE__, #c);                           \
			return FAILED;                                                             \
		}                                                                                  \
	} while (0)
#define SKIP(w, why)                                                                               \
	do {                                                                                       \
		(w)->reason = (why);                                                               \
		return SKIPPED;                                                                    \
	} while (0)
#define NEED_FAULTS(w)                                                                             \
	do {                                                                                       \
		if ((w)->dev->caps.flags & GPUSVM_DEVICE_NO_FAULT)                                 \
			SKIP(w, "the device cannot fault");                                        \
	} while (0)
#define NEED_VRAM(w)                                                                               \
	do {                                                                                       \
		if ((w)->dev->caps.vram_bytes < 8 * MB)                                            \
			SKIP(w, "the device has no memory of its own");                            \
	} while (0)
#define NEED_CALL(w)                                                                               \
	do {                                                                                       \
		if (!(w)->target->call)                                                            \
			SKIP(w, "the device runs no C functions");                                 \
	} while (0)

/* ---- The driver ------------------------------------------------------------------- */

static void map_system(struct world *w, u64 offset, unsigned order, bool write)
{
	struct gpusvm_addr run = gpusvm_addr_encode(w->target->dma(w->memory + offset),
						    GPUSVM_PROTO_SYSTEM, order, write);

	w->ops->vm_map(w->vm, VA + offset, &run, 1);
}

static int serve(struct world *w, const struct gpusvm_device_fault *fault)
{
	bool write = !host_load_acquire(&w->readonly);
	u64 offset = host_align_down(fault->address - VA, w->small ? 4096 : 2 * MB);

	host_write_once(&w->last_address, fault->address);
	host_write_once(&w->last_access, fault->access);
	if (fault->address - VA >= WINDOW)
		return -EFAULT;
	if (!write && fault->access != GPUSVM_ACCESS_READ)
		return -EPERM;
	if (w->ops->vm_prepare(fault->vm, VA + offset, w->small ? 4096 : 2 * MB, w->small))
		return -ENOMEM;
	map_system(w, offset, w->small ? 0 : 9, write);
	return 0;
}

static void on_fault(void *driver, struct gpusvm_device *device)
{
	struct world *w = driver;
	struct gpusvm_device_fault fault;

	while (device->ops->fault_pop(device, &fault)) {
		int err;

		host_mutex_lock(&w->lock);
		err = serve(w, &fault);
		host_mutex_unlock(&w->lock);
		host_add_relaxed(err ? &w->refused : &w->faults, 1);
		device->ops->fault_done(device, &fault, err);
	}
}

/* ---- Jobs --------------------------------------------------------------------------- */

static struct gpusvm_job *job_new(enum gpusvm_command_type type, u64 va, u64 length)
{
	struct gpusvm_job *job = calloc(1, sizeof(*job));

	job->done = gpusvm_fence_create();
	job->command.type = type;
	job->command.va = va;
	job->command.length = length;
	return job;
}

/* 1: it did not end in time. */
static int job_wait(struct gpusvm_job *job)
{
	int result;

	if (gpusvm_fence_wait(job->done, host_now() + PATIENCE, &result))
		return 1;
	return result;
}

static void job_free(struct gpusvm_job *job)
{
	gpusvm_fence_put(job->done);
	free(job);
}

/* Submits, waits, frees; *fault may be NULL. */
static int job_run(struct world *w, struct gpusvm_job *job, struct gpusvm_command_fault *fault)
{
	int result;

	w->ops->queue_submit(w->queue, job);
	result = job_wait(job);
	if (result == 1)
		return 1; /* and leave it: it may be in use */
	if (fault)
		*fault = job->fault;
	job_free(job);
	return result;
}

static int do_read(struct world *w, u64 va, void *buffer, u64 length)
{
	struct gpusvm_job *job = job_new(GPUSVM_COMMAND_READ, va, length);

	job->command.buffer = buffer;
	return job_run(w, job, NULL);
}

static int do_write(struct world *w, u64 va, void *buffer, u64 length)
{
	struct gpusvm_job *job = job_new(GPUSVM_COMMAND_WRITE, va, length);

	job->command.buffer = buffer;
	job->contained = true;
	return job_run(w, job, NULL);
}

static int do_touch(struct world *w, u64 va, u64 length, enum gpusvm_access access)
{
	struct gpusvm_job *job = job_new(GPUSVM_COMMAND_TOUCH, va, length);

	job->command.access = access;
	job->contained = true;
	return job_run(w, job, NULL);
}

typedef void call_fn(struct gpusvm_lane *lane, u64 item, const void *args);

static struct gpusvm_job *call_new(call_fn *fn, const void *args, u64 items)
{
	struct gpusvm_job *job = job_new(GPUSVM_COMMAND_CALL, 0, 0);

	job->command.fn = fn;
	job->command.args = args;
	job->command.items = items;
	return job;
}

/* Maps the whole window, for devices and cases that shall not fault. */
static int map_window(struct world *w, bool write)
{
	u64 at;

	if (w->ops->vm_prepare(w->vm, VA, WINDOW, w->small))
		return -ENOMEM;
	for (at = 0; at < WINDOW; at += w->small ? 4096 : 2 * MB)
		map_system(w, at, w->small ? 0 : 9, write);
	return 0;
}

static void fill(u8 *p, u64 n, u64 seed)
{
	while (n--) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		*p++ = (u8)(seed >> 56);
	}
}

static bool all_are(const u8 *p, u8 byte, u64 n)
{
	while (n--)
		if (*p++ != byte)
			return false;
	return true;
}

static struct gpusvm_addr sys(struct world *w, void *p)
{
	return gpusvm_addr_encode(w->target->dma(p), GPUSVM_PROTO_SYSTEM, 0, true);
}

struct device_case {
	const char *name;
	int (*run)(struct world *w);
};
/* cases_call.c; ends with an entry without a name. */
extern const struct device_case call_cases[];

#endif
