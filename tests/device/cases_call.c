/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * cases_call.c: CALL (kernels, their accesses against flushes and pauses), stopping,
 * and what devices do that cannot fault or have no atomics.
 */
#include "tests/device/world.h"

/* ---- CALL ---------------------------------------------------------------------------------------
 */

struct kernel_args {
	struct world *w;
	u64 n;
	u32 *go; /* endless kernels run while it is not 0 */
};

static void kernel_count(struct gpusvm_lane *lane, u64 item, const void *args)
{
	const struct kernel_args *a = args;
	u64 length = 4;
	u32 *p = a->w->ops->lane_access(lane, VA + item * 4, &length, GPUSVM_ACCESS_ATOMIC);

	__atomic_fetch_add(p, 1, __ATOMIC_RELAXED);
}

/* Copies [0, 2M) to [2M, 4M), span by span. */
static void kernel_spans(struct gpusvm_lane *lane, u64 item, const void *args)
{
	const struct kernel_args *a = args;
	u64 at = item * a->n, end = at + a->n;

	while (at < end) {
		u64 length = end - at;
		const void *src;
		void *dst;

		a->w->ops->lane_access2(lane, VA + 2 * MB + at, VA + at, &length, &dst, &src);
		memcpy(dst, src, length);
		at += length;
	}
	a->w->ops->lane_end(lane);
}

static int case_call(struct world *w)
{
	struct kernel_args args = {.w = w, .n = 3333};
	u64 items = WINDOW / 4, i;
	u32 *p = (u32 *)(void *)w->memory;

	NEED_CALL(w);
	w->small = true;
	memset(w->memory, 0, WINDOW);
	if (w->dev->caps.flags & GPUSVM_DEVICE_NO_FAULT)
		CHECK(map_window(w, true) == 0);
	CHECK(job_run(w, call_new(kernel_count, &args, items), NULL) == 0);
	for (i = 0; i < items; i++)
		CHECK(p[i] == 1);
	CHECK(job_run(w, call_new(kernel_count, &args, 0), NULL) == 0);
	fill(w->memory, 2 * MB, 6);
	CHECK(job_run(w, call_new(kernel_spans, &args, 2 * MB / 3333), NULL) == 0);
	CHECK(memcmp(w->memory, w->memory + 2 * MB, 2 * MB / 3333 * 3333) == 0);
	return PASSED;
}

static void kernel_fatal(struct gpusvm_lane *lane, u64 item, const void *args)
{
	const struct kernel_args *a = args;
	u64 length = 1;
	u64 va = item == a->n ? VA + WINDOW + 123 : VA + item % WINDOW;

	*(volatile u8 *)a->w->ops->lane_access(lane, va, &length, GPUSVM_ACCESS_WRITE) = 1;
	if (item == a->n)
		*a->go = 7; /* never reached */
}

static int case_call_fatal(struct world *w)
{
	u32 reached = 0;
	struct kernel_args args = {.w = w, .n = 1000, .go = &reached};
	struct gpusvm_command_fault fault;
	struct gpusvm_job *job;

	NEED_CALL(w);
	job = call_new(kernel_fatal, &args, (u64)1 << 40); /* never all */
	CHECK(map_window(w, true) == 0);
	job->contained = true;
	CHECK(job_run(w, job, &fault) == -EFAULT);
	CHECK(fault.address == VA + WINDOW + 123 && fault.access == GPUSVM_ACCESS_WRITE);
	CHECK(fault.error == -EFAULT && reached == 0);
	CHECK(do_touch(w, VA, 1, GPUSVM_ACCESS_READ) == 0);
	CHECK(job_run(w, call_new(kernel_fatal, &args, 2000), &fault) == -EFAULT);
	CHECK(do_touch(w, VA, 1, GPUSVM_ACCESS_READ) == -EIO);
	return PASSED;
}

/* Adds one to a word in each page, over and over; every second item through pairs. */
static void kernel_endless(struct gpusvm_lane *lane, u64 item, const void *args)
{
	const struct kernel_args *a = args;
	u64 n = 0;

	while (host_load_acquire(a->go)) {
		u64 va = VA + n++ % a->n * 4096 + item * 8, length = 8;
		const void *src;
		void *dst;

		if (item & 1) {
			a->w->ops->lane_access2(lane, va, va ^ 4096, &length, &dst, &src);
			host_write_once((u64 *)dst, host_read_once((const u64 *)src) + n);
		} else {
			dst = a->w->ops->lane_access(lane, va, &length, GPUSVM_ACCESS_WRITE);
			host_write_once((u64 *)dst, host_read_once((u64 *)dst) + 1);
		}
	}
}

/* Law 3: when a flush is over, nobody touches what was unmapped. */
static int flushes(struct world *w)
{
	u32 go = 1, turn;
	struct kernel_args args = {.w = w, .n = 16, .go = &go};
	u64 length = w->small ? 4096 : 2 * MB;
	struct gpusvm_job *job;
	u64 *seen;

	NEED_FAULTS(w);
	NEED_CALL(w);
	seen = malloc(length);
	job = call_new(kernel_endless, &args, w->dev->caps.lanes);
	memset(w->memory, 0, WINDOW);
	w->ops->queue_submit(w->queue, job);
	for (turn = 0; turn < 50; turn++) {
		u64 at = w->small ? turn % 16 * 4096 : 0;
		u64 start = host_now();
		u64 *word = (u64 *)(void *)(w->memory + at);
		u64 old = host_read_once(word);

		/* Until a lane has been here again. */
		while (host_read_once(word) == old && host_now() - start < PATIENCE)
			host_sleep(10 * HOST_USEC);
		CHECK(host_read_once(word) != old);
		host_mutex_lock(&w->lock);
		CHECK(w->ops->vm_unmap(w->vm, VA + at, length));
		w->ops->vm_flush_wait(w->vm, VA + at, length,
				      w->ops->vm_flush_begin(w->vm, VA + at, length));
		memcpy(seen, word, length);
		host_sleep(50 * HOST_USEC);
		CHECK(memcmp(seen, word, length) == 0);
		host_mutex_unlock(&w->lock);
	}
	host_store_release(&go, 0);
	CHECK(job_wait(job) == 0);
	job_free(job);
	free(seen);
	return PASSED;
}

static int case_flush_2m(struct world *w)
{
	return flushes(w);
}

static int case_flush_4k(struct world *w)
{
	w->small = true;
	return flushes(w);
}

static int case_pause(struct world *w)
{
	u32 go = 1, turn;
	struct kernel_args args = {.w = w, .n = 16, .go = &go};
	struct gpusvm_job *job;
	u8 *seen;

	NEED_CALL(w);
	seen = malloc(16 * 4096);
	job = call_new(kernel_endless, &args, w->dev->caps.lanes);
	CHECK(map_window(w, true) == 0);
	w->ops->queue_submit(w->queue, job);
	for (turn = 0; turn < 50; turn++) {
		host_sleep(20 * HOST_USEC);
		w->ops->pause(w->dev);
		if (turn & 1) {
			w->ops->pause(w->dev);
			w->ops->resume(w->dev);
		}
		memcpy(seen, w->memory, 16 * 4096);
		host_sleep(50 * HOST_USEC);
		CHECK(memcmp(seen, w->memory, 16 * 4096) == 0);
		w->ops->resume(w->dev);
	}
	host_store_release(&go, 0);
	CHECK(job_wait(job) == 0);
	job_free(job);
	free(seen);
	return PASSED;
}

/* ---- Stop
 * ------------------------------------------------------------------------------------------ */

static int case_stop(struct world *w)
{
	u32 go = 1;
	struct kernel_args args = {.w = w, .n = 16, .go = &go};
	struct gpusvm_copy copy = {sys(w, w->memory), {0}, 4096};
	struct gpusvm_job *wait, *later, *endless;
	struct gpusvm_fence *never;
	struct gpusvm_device_queue *parked;
	struct gpusvm_device_vm *vm;

	NEED_CALL(w);
	never = gpusvm_fence_create();
	wait = job_new(GPUSVM_COMMAND_WAIT, 0, 0);
	later = job_new(GPUSVM_COMMAND_SET, VA, 1);
	endless = call_new(kernel_endless, &args, 1);
	CHECK(map_window(w, true) == 0);
	CHECK(w->ops->queue_create(w->vm, &parked) == 0);
	wait->command.fence = never;
	w->ops->queue_submit(parked, wait);
	w->ops->queue_submit(parked, later);
	w->ops->queue_submit(w->queue, endless);
	host_sleep(2 * HOST_MSEC);
	w->ops->stop(w->dev, true);
	CHECK(job_wait(endless) == -ENODEV && job_wait(wait) == -ENODEV);
	CHECK(job_wait(later) == -ENODEV && later->fault.error == 0);
	CHECK(do_touch(w, VA, 1, GPUSVM_ACCESS_READ) == -ENODEV);
	CHECK(w->ops->vm_create(w->dev, w, &vm) == -ENODEV);
	CHECK(w->ops->copy(w->dev, &copy, 1, NULL, NULL) == 0); /* data comes home */
	w->ops->stop(w->dev, false);
	CHECK(w->ops->copy(w->dev, &copy, 1, NULL, NULL) == -ENODEV);
	w->ops->stop(w->dev, true);
	CHECK(w->ops->copy(w->dev, &copy, 1, NULL, NULL) == -ENODEV);
	w->ops->queue_destroy(parked);
	gpusvm_fence_signal(never, 0); /* nobody is there any more */
	gpusvm_fence_put(never);
	job_free(endless);
	job_free(wait);
	job_free(later);
	return PASSED;
}

/* A lane that waits for an answer is released. */
static int case_stop_in_fault(struct world *w)
{
	struct gpusvm_device_fault fault;
	struct gpusvm_job *job;

	NEED_FAULTS(w);
	job = job_new(GPUSVM_COMMAND_SET, VA, 1);
	w->dev->listener.fault = NULL;
	w->ops->queue_submit(w->queue, job);
	while (!w->ops->fault_pop(w->dev, &fault))
		host_sleep(100 * HOST_USEC);
	CHECK(fault.address == VA && fault.access == GPUSVM_ACCESS_WRITE && fault.vm == w->vm);
	CHECK(!gpusvm_fence_signalled(job->done));
	w->ops->stop(w->dev, false);
	CHECK(job_wait(job) == -ENODEV);
	w->ops->fault_done(w->dev, &fault, 0); /* too late, and harmless */
	job_free(job);
	return PASSED;
}

static int case_no_fault(struct world *w)
{
	u8 byte = 0;

	if (!(w->dev->caps.flags & GPUSVM_DEVICE_NO_FAULT))
		SKIP(w, "the device can fault");
	CHECK(do_write(w, VA, &byte, 1) == -EFAULT);
	CHECK(map_window(w, false) == 0);
	CHECK(do_write(w, VA, &byte, 1) == -EPERM);
	CHECK(do_read(w, VA, &byte, 1) == 0);
	CHECK(host_read_once(&w->faults) + host_read_once(&w->refused) == 0);
	return PASSED;
}

/* While preempted nothing fails for want of a mapping; a later preemption is not undone
 * with an earlier one. */
static int case_preempt(struct world *w)
{
	struct gpusvm_job *job;
	u64 first, second;

	if (!(w->dev->caps.flags & GPUSVM_DEVICE_NO_FAULT))
		SKIP(w, "the device faults");
	job = job_new(GPUSVM_COMMAND_SET, VA, 4 * 4096);
	CHECK(w->ops->vm_preempt && w->ops->vm_resume);
	w->small = true;
	CHECK(map_window(w, true) == 0);
	first = w->ops->vm_preempt(w->vm);
	w->ops->vm_unmap(w->vm, VA + 4096, 4096);
	w->ops->vm_flush_wait(w->vm, VA + 4096, 4096,
			      w->ops->vm_flush_begin(w->vm, VA + 4096, 4096));
	job->command.byte = 0x77;
	w->ops->queue_submit(w->queue, job);
	CHECK(gpusvm_fence_wait(job->done, host_now() + 20 * HOST_MSEC, NULL) == -ETIME);
	second = w->ops->vm_preempt(w->vm);
	w->ops->vm_resume(w->vm, first);
	CHECK(gpusvm_fence_wait(job->done, host_now() + 20 * HOST_MSEC, NULL) == -ETIME);
	map_system(w, 4096, 0, true);
	w->ops->vm_resume(w->vm, second);
	CHECK(job_wait(job) == 0);
	CHECK(all_are(w->memory, 0x77, 4 * 4096));
	/* One that is resumed without it fails; so does one that nobody preempts. */
	second = w->ops->vm_preempt(w->vm);
	w->ops->vm_unmap(w->vm, VA, 4096);
	w->ops->vm_flush_wait(w->vm, VA, 4096, w->ops->vm_flush_begin(w->vm, VA, 4096));
	w->ops->vm_resume(w->vm, second);
	CHECK(do_touch(w, VA, 1, GPUSVM_ACCESS_READ) == -EFAULT);
	job_free(job);
	return PASSED;
}

/* What may be written may not be the place of an atomic, where it is said. */
static int case_no_atomics(struct world *w)
{
	struct gpusvm_addr run = gpusvm_addr_encode(w->target->dma(w->memory), GPUSVM_PROTO_SYSTEM,
						    HOST_HUGE_ORDER, true);
	struct gpusvm_addr got;

	CHECK(w->ops->vm_prepare(w->vm, VA, WINDOW, true) == 0);
	run = gpusvm_addr_set_atomics(run, false);
	w->ops->vm_map(w->vm, VA, &run, 1);
	CHECK(w->ops->vm_query(w->vm, VA + 4096, &got) && gpusvm_addr_write(got) &&
	      !gpusvm_addr_atomics(got));
	CHECK(do_touch(w, VA, 8, GPUSVM_ACCESS_WRITE) == 0);
	if (w->dev->caps.flags & GPUSVM_DEVICE_NO_FAULT) {
		CHECK(do_touch(w, VA, 8, GPUSVM_ACCESS_ATOMIC) == -EPERM);
		return PASSED;
	}
	CHECK(w->faults == 0);
	CHECK(do_touch(w, VA, 8, GPUSVM_ACCESS_ATOMIC) == 0); /* the handler allows it */
	CHECK(w->faults == 1 && w->last_access == GPUSVM_ACCESS_ATOMIC);
	return PASSED;
}

const struct device_case call_cases[] = {
    {"call", case_call},
    {"call_fatal", case_call_fatal},
    {"flush_2m", case_flush_2m},
    {"flush_4k", case_flush_4k},
    {"pause", case_pause},
    {"stop", case_stop},
    {"stop_in_fault", case_stop_in_fault},
    {"no_fault", case_no_fault},
    {"preempt", case_preempt},
    {"no_atomics", case_no_atomics},
    {0},
};
