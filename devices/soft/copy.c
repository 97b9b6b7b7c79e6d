/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * copy.c: the copy engines: physical copies, no translation.
 *
 * There are as many turns as engines. A synchronous copy that finds one free runs
 * on its caller's thread at once; else it waits in line, with the asynchronous
 * ones, which run on the engines' threads. Copies in line are served in order; a copy
 * that waits for a fence is in line from the moment the fence is signalled.
 *
 * Locking: copier->lock for the line, the turns and the list of those that wait for
 * a fence. Copying and signalling happen with no lock held. Who takes a job's wait
 * (wait.h) owns the job: the fence, or a stop.
 */
#include "devices/soft/internal.h"

#define CHUNK HOST_HUGE_SIZE /* between looks at whether the device was stopped */

struct soft_copy_job {
	struct soft_wait wait; /* asynchronous ones; its last reference frees */
	struct soft_device *dev;
	struct soft_copy_job *next;	    /* in line, or granted */
	struct soft_copy_job *prev, *after; /* neighbours among the armed */
	struct gpusvm_fence *fence;	    /* begin after it, or NULL */
	struct gpusvm_fence *done;	    /* NULL: synchronous */
	const struct gpusvm_copy *list;
	u32 n;
	u32 turn;   /* synchronous: may run */
	int result; /* of the copying under the guard */
	struct gpusvm_copy entries[];
};

/* ---- Copying ----------------------------------------------------------------------- */

/* The pointer to one side, or NULL. Context: under the guard. */
static u8 *side(struct soft_device *dev, struct gpusvm_addr addr, u64 offset, u64 length,
		bool write)
{
	u64 address = gpusvm_addr_address(addr) + offset;
	u64 vram = dev->base.caps.vram_bytes;

	switch (gpusvm_addr_proto(addr)) {
	case GPUSVM_PROTO_LOCAL:
		return length <= vram && address <= vram - length ? dev->vram + address : NULL;
	case GPUSVM_PROTO_PEER:
		return soft_peer_memory(dev, address, length);
	case GPUSVM_PROTO_SYSTEM:
		return mm_bus_begin(address, length, write);
	default:
		return NULL;
	}
}

static int copy_chunk(struct soft_device *dev, const struct gpusvm_copy *copy, u64 offset,
		      u64 length)
{
	bool zero = gpusvm_addr_proto(copy->src) == GPUSVM_PROTO_NONE;
	u8 *dst = side(dev, copy->dst, offset, length, true);
	u8 *src = zero ? NULL : side(dev, copy->src, offset, length, false);
	int err = 0;

	if (!dst || (!zero && !src))
		err = -EIO;
	else if (zero)
		host_memset(dst, 0, length);
	else
		host_memcpy_stream(dst, src, length);
	mm_bus_end();
	return err;
}

static void copy_list(void *arg)
{
	struct soft_copy_job *job = arg;
	struct soft_device *dev = job->dev;
	u64 bytes = 0;
	u32 i;

	for (i = 0; i < job->n && !job->result; i++) {
		const struct gpusvm_copy *copy = &job->list[i];
		u64 offset, n;

		for (offset = 0; offset < copy->length && !job->result; offset += n) {
			n = host_min(CHUNK, copy->length - offset);
			job->result = host_load_acquire(&dev->copier.off)
					  ? -ENODEV
					  : copy_chunk(dev, copy, offset, n);
			bytes += job->result ? 0 : n;
		}
	}
	host_add_relaxed(&dev->copier.bytes, bytes);
}

static int run(struct soft_copy_job *job)
{
	bool fail = soft_misbehaves(job->dev, GPUSVM_SOFT_FAIL_COPY);
	u64 address;

	job->result = 0;
	if (host_unlikely(fail))
		job->n = (job->n + 1) / 2;
	if (mm_bus_guard(copy_list, job, &address))
		return -EIO; /* memory vanished: its owner gave it away during the copy */
	return fail && !job->result ? -EIO : job->result;
}

/* ---- Turns (copier->lock held) ------------------------------------------------------ */

/* The job has a turn: its caller, or an engine's thread, goes on. */
static void grant(struct soft_copier *copier, struct soft_copy_job *job)
{
	if (!job->done) {
		host_store_release(&job->turn, 1);
		host_wake_all(&copier->turn_wq);
		return;
	}
	job->next = copier->granted;
	host_store_release(&copier->granted, job);
	host_wake_all(&copier->work_wq);
}

static void line_up(struct soft_copier *copier, struct soft_copy_job *job)
{
	if (copier->idle) {
		copier->idle--;
		grant(copier, job);
		return;
	}
	job->next = NULL;
	if (copier->tail)
		copier->tail->next = job;
	else
		copier->head = job;
	copier->tail = job;
}

static void turn_over(struct soft_copier *copier)
{
	struct soft_copy_job *job;

	host_mutex_lock(&copier->lock);
	job = copier->head;
	if (job) {
		copier->head = job->next;
		if (!copier->head)
			copier->tail = NULL;
		grant(copier, job);
	} else {
		copier->idle++;
	}
	host_mutex_unlock(&copier->lock);
}

/* ---- Asynchronous copies --------------------------------------------------------------- */

static void job_release(struct soft_wait *wait)
{
	host_free(host_container_of(wait, struct soft_copy_job, wait));
}

/* Context: the owner of the job; no lock. */
static void job_finish(struct soft_copy_job *job, int result)
{
	struct soft_copier *copier = &job->dev->copier;

	gpusvm_fence_put(job->fence);
	soft_fence_finish(job->done, result);
	soft_wait_put(&job->wait);
	host_mutex_lock(&copier->lock);
	host_store_release(&copier->jobs, copier->jobs - 1);
	host_wake_all(&copier->turn_wq);
	host_mutex_unlock(&copier->lock);
}

/* Its fence is signalled, or it has none. */
static void job_begin(struct soft_copy_job *job)
{
	struct soft_copier *copier = &job->dev->copier;
	int result = 0;

	if (job->fence)
		gpusvm_fence_wait(job->fence, 0, &result);
	if (result) {
		job_finish(job, result);
		return;
	}
	host_mutex_lock(&copier->lock);
	line_up(copier, job);
	host_mutex_unlock(&copier->lock);
}

static void disarm(struct soft_copier *copier, struct soft_copy_job *job)
{
	if (job->after)
		job->after->prev = job->prev;
	if (job->prev)
		job->prev->after = job->after;
	else
		copier->armed = job->after;
}

static void job_fire(struct soft_wait *wait)
{
	struct soft_copy_job *job = host_container_of(wait, struct soft_copy_job, wait);
	struct soft_copier *copier = &job->dev->copier;

	host_mutex_lock(&copier->lock);
	disarm(copier, job);
	host_mutex_unlock(&copier->lock);
	job_begin(job);
}

/* Waits for the fence without a thread. False: the device was stopped. */
static bool job_arm(struct soft_copy_job *job)
{
	struct soft_copier *copier = &job->dev->copier;
	struct soft_wait *wait = &job->wait;
	bool off;

	host_ref_get(&wait->ref); /* a stop may take the job as soon as it is armed */
	host_mutex_lock(&copier->lock);
	off = copier->off;
	if (!off) {
		job->prev = NULL;
		job->after = copier->armed;
		if (job->after)
			job->after->prev = job;
		copier->armed = job;
		soft_wait_arm(wait);
	}
	host_mutex_unlock(&copier->lock);
	if (!off && !soft_wait_on(wait, job->fence))
		job_fire(wait);
	soft_wait_put(wait);
	return !off;
}

static int copy_later(struct soft_device *dev, const struct gpusvm_copy *list, unsigned n,
		      struct gpusvm_fence *after, struct gpusvm_fence *done)
{
	struct soft_copy_job *job = host_alloc(sizeof(*job) + n * sizeof(*list));

	if (!job)
		return -ENOMEM;
	*job = (struct soft_copy_job){.dev = dev, .list = job->entries, .n = n, .done = done};
	host_memcpy(job->entries, list, n * sizeof(*list));
	soft_wait_init(&job->wait, job_fire, job_release);
	job->fence = gpusvm_fence_get(after);
	soft_fence_hold(done);
	host_mutex_lock(&dev->copier.lock);
	host_store_release(&dev->copier.jobs, dev->copier.jobs + 1);
	host_mutex_unlock(&dev->copier.lock);
	if (!after)
		job_begin(job);
	else if (!job_arm(job))
		job_finish(job, -ENODEV);
	return 0;
}

static struct soft_copy_job *granted_pop(struct soft_copier *copier)
{
	struct soft_copy_job *job;

	host_mutex_lock(&copier->lock);
	job = copier->granted;
	if (job)
		host_store_release(&copier->granted, job->next);
	host_mutex_unlock(&copier->lock);
	return job;
}

static void engine_main(void *arg)
{
	struct soft_device *dev = arg;
	struct soft_copier *copier = &dev->copier;
	struct soft_copy_job *job;

	for (;;) {
		int result;

		host_wait(&copier->work_wq, host_load_acquire(&copier->granted) ||
						host_load_acquire(&copier->exiting));
		job = granted_pop(copier);
		if (!job) {
			if (host_load_acquire(&copier->exiting))
				return;
			continue;
		}
		result = run(job);
		turn_over(copier);
		job_finish(job, result);
	}
}

/* ---- The op ------------------------------------------------------------------------- */

static int copy_now(struct soft_device *dev, const struct gpusvm_copy *list, unsigned n,
		    struct gpusvm_fence *after)
{
	struct soft_copier *copier = &dev->copier;
	struct soft_copy_job job = {.dev = dev, .list = list, .n = n};
	int result = 0;

	if (after)
		gpusvm_fence_wait(after, HOST_FOREVER, &result);
	if (result)
		return result;
	host_mutex_lock(&copier->lock);
	if (copier->idle) {
		copier->idle--;
		job.turn = 1;
	} else {
		line_up(copier, &job);
	}
	host_mutex_unlock(&copier->lock);
	host_wait(&copier->turn_wq, host_load_acquire(&job.turn));
	result = run(&job);
	turn_over(copier);
	return result;
}

int soft_copy(struct gpusvm_device *device, const struct gpusvm_copy *list, unsigned n,
	      struct gpusvm_fence *after, struct gpusvm_fence *done)
{
	struct soft_device *dev = to_soft(device);

	if (host_load_acquire(&dev->copier.off))
		return -ENODEV;
	return done ? copy_later(dev, list, n, after, done) : copy_now(dev, list, n, after);
}

/* ---- Life ----------------------------------------------------------------------------- */

void soft_copier_stop(struct soft_device *dev, bool rescue)
{
	struct soft_copier *copier = &dev->copier;
	struct soft_copy_job *job, *next, *mine = NULL;

	if (rescue)
		return;
	host_mutex_lock(&copier->lock);
	host_store_release(&copier->off, 1);
	for (job = copier->armed; job; job = next) {
		next = job->after;
		if (!soft_wait_take(&job->wait))
			continue; /* its fence was quicker, and fails it in a moment */
		disarm(copier, job);
		job->next = mine;
		mine = job;
	}
	host_mutex_unlock(&copier->lock);
	for (job = mine; job; job = next) {
		next = job->next;
		job_finish(job, -ENODEV);
	}
}

void soft_copier_init(struct soft_device *dev)
{
	struct soft_copier *copier = &dev->copier;

	host_mutex_init(&copier->lock, RANK_DEVICE_QUEUE);
	host_waitq_init(&copier->turn_wq);
	host_waitq_init(&copier->work_wq);
}

int soft_copier_start(struct soft_device *dev, u32 engines)
{
	struct soft_copier *copier = &dev->copier;
	u32 i;
	int err;

	copier->idle = engines;
	for (i = 0; i < engines; i++) {
		err = host_thread_start(&copier->threads[i], "soft-copy", engine_main, dev);
		if (err)
			return err;
	}
	return 0;
}

void soft_copier_fini(struct soft_device *dev)
{
	struct soft_copier *copier = &dev->copier;
	u32 i;

	host_wait(&copier->turn_wq, !host_load_acquire(&copier->jobs));
	host_mutex_lock(&copier->lock); /* who finished the last one has left it */
	host_store_release(&copier->exiting, 1);
	host_wake_all(&copier->work_wq);
	host_mutex_unlock(&copier->lock);
	for (i = 0; i < SOFT_COPY_ENGINES; i++)
		host_thread_join(&copier->threads[i]);
	HOST_CHECK(!copier->head && !copier->granted && !copier->armed);
	host_waitq_destroy(&copier->turn_wq);
	host_waitq_destroy(&copier->work_wq);
	host_mutex_destroy(&copier->lock);
}
