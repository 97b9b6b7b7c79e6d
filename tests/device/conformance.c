/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * conformance.c: running the cases, and those of memory, translation, faults and
 * order. See conformance.h and world.h.
 */
#include "tests/device/world.h"

/* ---- Memory and copies ----------------------------------------------------------------- */

static int case_memory(struct world *w)
{
	u64 total, frame[16], n = 0, f, order;

	NEED_VRAM(w);
	total = w->ops->memory_free_bytes(w->dev);
	CHECK(total == w->dev->caps.vram_bytes && total % (2 * MB) == 0);
	for (order = 0; order <= 9; order++) {
		CHECK(w->ops->memory_alloc(w->dev, (unsigned)order, &frame[order]) == 0);
		CHECK(frame[order] % ((u64)1 << order) == 0);
		CHECK((frame[order] + ((u64)1 << order)) * 4096 <= total);
		for (f = 0; f < order; f++)
			CHECK(frame[f] + ((u64)1 << f) <= frame[order] ||
			      frame[order] + ((u64)1 << order) <= frame[f]);
		n += (u64)1 << order;
	}
	CHECK(w->ops->memory_free_bytes(w->dev) == total - n * 4096);
	for (f = 0; f < 512; f++) /* in parts */
		w->ops->memory_free(w->dev, frame[9] + f, 0);
	for (order = 0; order < 9; order++)
		w->ops->memory_free(w->dev, frame[order], (unsigned)order);
	CHECK(w->ops->memory_free_bytes(w->dev) == total);
	for (n = 0; w->ops->memory_alloc(w->dev, 9, &f) == 0; n++)
		CHECK(n < total / (2 * MB));
	CHECK(n == total / (2 * MB)); /* it came together again */
	CHECK(w->ops->memory_alloc(w->dev, 0, &f) == -ENOSPC);
	for (f = 0; f < n; f++)
		w->ops->memory_free(w->dev, f * 512, 9);
	CHECK(w->ops->memory_free_bytes(w->dev) == total);
	return PASSED;
}

static struct gpusvm_addr local(u64 frame)
{
	return gpusvm_addr_encode(frame << 12, GPUSVM_PROTO_LOCAL, 0, true);
}

static int case_copy(struct world *w)
{
	u8 *a = w->memory, *b = w->memory + 2 * MB;
	struct gpusvm_copy there, back, zero;
	u64 frame;

	NEED_VRAM(w);
	CHECK(w->ops->memory_alloc(w->dev, 9, &frame) == 0);
	fill(a, 2 * MB, 1);
	there = (struct gpusvm_copy){local(frame), sys(w, a), 2 * MB};
	back = (struct gpusvm_copy){sys(w, b), local(frame), 2 * MB};
	zero = (struct gpusvm_copy){local(frame + 1), {0}, 8192};
	CHECK(w->ops->copy(w->dev, &there, 1, NULL, NULL) == 0);
	CHECK(w->ops->copy(w->dev, &zero, 1, NULL, NULL) == 0);
	CHECK(w->ops->copy(w->dev, &back, 1, NULL, NULL) == 0);
	CHECK(memcmp(a, b, 4096) == 0);
	CHECK(all_are(b + 4096, 0, 8192));
	CHECK(memcmp(a + 12288, b + 12288, 2 * MB - 12288) == 0);
	w->ops->memory_free(w->dev, frame, 9);
	return PASSED;
}

static int case_copy_fences(struct world *w)
{
	struct gpusvm_fence *first = gpusvm_fence_create(), *after = gpusvm_fence_create();
	struct gpusvm_fence *failed = gpusvm_fence_create(), *done = gpusvm_fence_create();
	struct gpusvm_copy copy[2];
	u8 *a = w->memory;
	int result = 1;

	fill(a, 4096, 2);
	memset(a + 4096, 0, 8192);
	copy[0] = (struct gpusvm_copy){sys(w, a + 4096), sys(w, a), 4096};
	copy[1] = (struct gpusvm_copy){sys(w, a + 8192), sys(w, a), 4096};
	CHECK(w->ops->copy(w->dev, copy, 2, first, done) == 0);
	memset(copy, 0, sizeof(copy)); /* it has its own */
	host_sleep(2 * HOST_MSEC);
	CHECK(!gpusvm_fence_signalled(done) && all_are(a + 4096, 0, 8192));
	gpusvm_fence_signal(first, 0);
	CHECK(gpusvm_fence_wait(done, host_now() + PATIENCE, &result) == 0 && result == 0);
	CHECK(memcmp(a, a + 4096, 4096) == 0 && memcmp(a, a + 8192, 4096) == 0);
	/* A fence that failed takes the copy with it. */
	memset(a + 4096, 0, 4096);
	copy[0] = (struct gpusvm_copy){sys(w, a + 4096), sys(w, a), 4096};
	CHECK(w->ops->copy(w->dev, copy, 1, after, failed) == 0);
	gpusvm_fence_signal(after, -EIO);
	CHECK(gpusvm_fence_wait(failed, host_now() + PATIENCE, &result) == 0 && result == -EIO);
	CHECK(all_are(a + 4096, 0, 4096));
	gpusvm_fence_put(first);
	gpusvm_fence_put(after);
	gpusvm_fence_put(failed);
	gpusvm_fence_put(done);
	return PASSED;
}

/* ---- Translation and commands ----------------------------------------------------------- */

static int case_map_query(struct world *w)
{
	struct gpusvm_addr runs[3], got;
	u64 m = w->target->dma(w->memory);

	runs[0] = gpusvm_addr_encode(m, GPUSVM_PROTO_SYSTEM, 9, true);
	runs[1] = (struct gpusvm_addr){1}; /* a gap of two pages */
	runs[2] = gpusvm_addr_encode(m + 2 * MB + 8192, GPUSVM_PROTO_SYSTEM, 1, false);
	CHECK(w->ops->vm_prepare(w->vm, VA, 2 * MB + 16384, true) == 0);
	CHECK(!w->ops->vm_query(w->vm, VA, &got));
	w->ops->vm_map(w->vm, VA, runs, 3);
	CHECK(w->ops->vm_query(w->vm, VA + 5 * 4096, &got));
	CHECK(gpusvm_addr_address(got) == m + 5 * 4096 && gpusvm_addr_write(got));
	CHECK(gpusvm_addr_proto(got) == GPUSVM_PROTO_SYSTEM);
	CHECK(!w->ops->vm_query(w->vm, VA + 2 * MB, &got));
	CHECK(w->ops->vm_query(w->vm, VA + 2 * MB + 8192, &got) && !gpusvm_addr_write(got));
	CHECK(w->ops->vm_unmap(w->vm, VA, 4096));
	/* That was all of it where it was one leaf. */
	CHECK(w->ops->vm_unmap(w->vm, VA, 2 * MB) == !(w->dev->caps.leaf_orders >> 9 & 1));
	CHECK(w->ops->vm_unmap(w->vm, VA + 2 * MB, 2 * MB));
	CHECK(!w->ops->vm_unmap(w->vm, VA, 4 * MB));
	CHECK(!w->ops->vm_query(w->vm, VA, &got));
	CHECK(w->ops->vm_token(w->vm) == w);
	return PASSED;
}

static int commands(struct world *w)
{
	u64 n = 2 * MB + 12345, at = 4000, old = 0;
	u8 *buffer = malloc(n);
	struct gpusvm_job *job;

	CHECK(map_window(w, true) == 0);
	fill(w->memory, WINDOW, 3);
	CHECK(do_read(w, VA + at, buffer, n) == 0);
	CHECK(memcmp(buffer, w->memory + at, n) == 0);
	fill(buffer, n, 4);
	CHECK(do_write(w, VA + at, buffer, n) == 0);
	CHECK(memcmp(buffer, w->memory + at, n) == 0);
	job = job_new(GPUSVM_COMMAND_SET, VA + 2 * MB - 100, 200);
	job->command.byte = 0x5a;
	CHECK(job_run(w, job, NULL) == 0);
	CHECK(all_are(w->memory + 2 * MB - 100, 0x5a, 200));
	CHECK(w->memory[2 * MB - 101] == buffer[2 * MB - 101 - at]);
	fill(w->memory, WINDOW, 5);
	job = job_new(GPUSVM_COMMAND_COPY, VA + MB + 7, 2 * MB);
	job->command.va2 = VA + 3 * MB + 4096;
	job->command.length = MB - 8192;
	memcpy(buffer, w->memory + 3 * MB + 4096, MB - 8192);
	CHECK(job_run(w, job, NULL) == 0);
	CHECK(memcmp(buffer, w->memory + MB + 7, MB - 8192) == 0);
	*(u64 *)(void *)(w->memory + 64) = 40;
	job = job_new(GPUSVM_COMMAND_ATOMIC, VA + 64, 0);
	job->command.atomic.op = GPUSVM_OP_ADD;
	job->command.atomic.width = 8;
	job->command.atomic.operand = 2;
	job->command.atomic.old = &old;
	CHECK(job_run(w, job, NULL) == 0);
	CHECK(old == 40 && *(u64 *)(void *)(w->memory + 64) == 42);
	job = job_new(GPUSVM_COMMAND_ATOMIC, VA + 64, 0);
	job->command.atomic.op = GPUSVM_OP_CAS;
	job->command.atomic.width = 4;
	job->command.atomic.operand = 7;
	job->command.atomic.expected = 42;
	CHECK(job_run(w, job, NULL) == 0);
	CHECK(*(u32 *)(void *)(w->memory + 64) == 7);
	free(buffer);
	return PASSED;
}

static int case_commands_2m(struct world *w)
{
	return commands(w);
}

static int case_commands_4k(struct world *w)
{
	w->small = true;
	return commands(w);
}

static int case_local(struct world *w)
{
	struct gpusvm_addr run;
	u8 page[4096], got[4096];
	u64 frame;
	u64 n;

	NEED_VRAM(w);
	CHECK(w->ops->memory_alloc(w->dev, 9, &frame) == 0);
	CHECK(w->ops->vm_prepare(w->vm, VA, 2 * MB, true) == 0);
	for (n = 0; n < 512; n++) { /* backwards: each page its own */
		run = local(frame + 511 - n);
		w->ops->vm_map(w->vm, VA + n * 4096, &run, 1);
	}
	for (n = 0; n < 512; n += 37) {
		fill(page, 4096, n);
		CHECK(do_write(w, VA + n * 4096, page, 4096) == 0);
	}
	run = gpusvm_addr_encode(frame << 12, GPUSVM_PROTO_LOCAL, 9, true);
	w->ops->vm_map(w->vm, VA, &run, 1);
	w->ops->vm_flush_wait(w->vm, VA, 2 * MB, w->ops->vm_flush_begin(w->vm, VA, 2 * MB));
	for (n = 0; n < 512; n += 37) {
		fill(page, 4096, n);
		CHECK(do_read(w, VA + (511 - n) * 4096, got, 4096) == 0);
		CHECK(memcmp(page, got, 4096) == 0);
	}
	w->ops->memory_free(w->dev, frame, 9);
	return PASSED;
}

/* The memory of another one, through a window: copies, reading, writing, and not after
 * its leaves are gone. */
static int case_peer(struct world *w)
{
	struct gpusvm_device *peer = NULL;
	struct gpusvm_copy in, out;
	struct gpusvm_addr run, got;
	u64 frame, mine, at;
	u8 page[4096];

	NEED_VRAM(w);
	if (!w->ops->peer_attach)
		SKIP(w, "the device has no peers");
	peer = w->target->create(w->target->arg);
	CHECK(peer && w->ops->peer_attach(w->dev, GPUSVM_PEER_WINDOWS, peer) == -EINVAL);
	CHECK(w->ops->peer_attach(w->dev, 5, peer) == 0);
	CHECK(w->ops->peer_attach(w->dev, 5, peer) == 0);
	CHECK(peer->ops->memory_alloc(peer, 9, &frame) == 0);
	CHECK(w->ops->memory_alloc(w->dev, 9, &mine) == 0);
	/* The destination pulls: system to peer, peer to device, device to system. */
	fill(w->memory, 2 * MB, 5);
	in = (struct gpusvm_copy){local(frame), sys(w, w->memory), 2 * MB};
	CHECK(peer->ops->copy(peer, &in, 1, NULL, NULL) == 0);
	at = gpusvm_peer_address(5, frame << 12);
	in.src = gpusvm_addr_encode(at, GPUSVM_PROTO_PEER, 9, false);
	in.dst = local(mine);
	out = (struct gpusvm_copy){sys(w, w->memory + 2 * MB), local(mine), 2 * MB};
	CHECK(w->ops->copy(w->dev, &in, 1, NULL, NULL) == 0);
	CHECK(w->ops->copy(w->dev, &out, 1, NULL, NULL) == 0);
	CHECK(memcmp(w->memory, w->memory + 2 * MB, 2 * MB) == 0);
	/* Mapped: the second page for reading only. */
	CHECK(w->ops->vm_prepare(w->vm, VA + 16 * MB, 2 * MB, true) == 0);
	run = gpusvm_addr_encode(at, GPUSVM_PROTO_PEER, 0, true);
	w->ops->vm_map(w->vm, VA + 16 * MB, &run, 1);
	run = gpusvm_addr_encode(at + 4096, GPUSVM_PROTO_PEER, 0, false);
	w->ops->vm_map(w->vm, VA + 16 * MB + 4096, &run, 1);
	CHECK(w->ops->vm_query(w->vm, VA + 16 * MB + 4096, &got) && got.word == run.word);
	fill(page, 4096, 6);
	CHECK(do_write(w, VA + 16 * MB, page, 4096) == 0);
	CHECK(do_write(w, VA + 16 * MB + 4096, page, 1) < 0);
	CHECK(do_read(w, VA + 16 * MB + 4096, page, 4096) == 0);
	CHECK(memcmp(page, w->memory + 4096, 4096) == 0);
	fill(page, 4096, 6);
	peer->ops->memory_read(peer, frame, w->memory);
	CHECK(memcmp(page, w->memory, 4096) == 0);
	/* Down again. */
	CHECK(w->ops->vm_unmap(w->vm, VA + 16 * MB, 2 * MB));
	at = w->ops->vm_flush_begin(w->vm, VA + 16 * MB, 2 * MB);
	w->ops->vm_flush_wait(w->vm, VA + 16 * MB, 2 * MB, at);
	w->ops->peer_detach(w->dev, 5);
	CHECK(w->ops->copy(w->dev, &in, 1, NULL, NULL) != 0);
	CHECK(do_touch(w, VA + 16 * MB, 4096, GPUSVM_ACCESS_READ) == -EFAULT);
	w->ops->memory_free(w->dev, mine, 9);
	peer->ops->memory_free(peer, frame, 9);
	peer->ops->destroy(peer);
	return PASSED;
}

/* ---- Faults -------------------------------------------------------------------------------- */

static int case_faults(struct world *w)
{
	struct gpusvm_device_stats stats;
	u8 byte = 9;

	NEED_FAULTS(w);
	w->small = true;
	CHECK(do_touch(w, VA, WINDOW, GPUSVM_ACCESS_READ) == 0);
	CHECK(host_read_once(&w->faults) == WINDOW / 4096);
	w->ops->stats(w->dev, &stats);
	CHECK(stats.faults == WINDOW / 4096 && stats.faults_replayed == stats.faults);
	CHECK(do_write(w, VA + 5, &byte, 1) == 0 && w->memory[5] == 9);
	CHECK(host_read_once(&w->faults) == WINDOW / 4096);
	return PASSED;
}

static int case_permission(struct world *w)
{
	u8 byte = 1;

	w->memory[0] = 3;
	CHECK(map_window(w, false) == 0);
	host_store_release(&w->readonly, 1);
	CHECK(do_read(w, VA, &byte, 1) == 0 && byte == 3);
	CHECK(do_write(w, VA + 17, &byte, 1) == -EPERM);
	CHECK(do_touch(w, VA, 1, GPUSVM_ACCESS_ATOMIC) == -EPERM);
	if (!(w->dev->caps.flags & GPUSVM_DEVICE_NO_FAULT)) {
		CHECK(w->last_address == VA && w->last_access == GPUSVM_ACCESS_ATOMIC);
		/* Allowed later on: the write goes through by itself. */
		host_store_release(&w->readonly, 0);
		byte = 77;
		CHECK(do_write(w, VA + 17, &byte, 1) == 0 && w->memory[17] == 77);
	}
	return PASSED;
}

static int case_fatal(struct world *w)
{
	struct gpusvm_job *bad = job_new(GPUSVM_COMMAND_SET, VA + WINDOW - 10, 20);
	struct gpusvm_job *next = job_new(GPUSVM_COMMAND_TOUCH, VA, 1);
	struct gpusvm_device_queue *other;
	struct gpusvm_job *fine = job_new(GPUSVM_COMMAND_TOUCH, VA, 1);

	CHECK(map_window(w, true) == 0);
	bad->contained = true;
	w->ops->queue_submit(w->queue, bad);
	CHECK(job_wait(bad) == -EFAULT);
	CHECK(bad->fault.address == VA + WINDOW && bad->fault.error == -EFAULT);
	CHECK(bad->fault.access == GPUSVM_ACCESS_WRITE);
	CHECK(do_touch(w, VA, WINDOW, GPUSVM_ACCESS_WRITE) == 0); /* contained */
	job_free(bad);
	bad = job_new(GPUSVM_COMMAND_READ, 0x1000, 1);
	bad->command.buffer = w->memory;
	next->command.access = fine->command.access = GPUSVM_ACCESS_READ;
	w->ops->queue_submit(w->queue, bad);
	w->ops->queue_submit(w->queue, next);
	CHECK(job_wait(bad) == -EFAULT && bad->fault.address == 0x1000);
	CHECK(job_wait(next) == -EIO && next->fault.error == 0);
	CHECK(w->ops->queue_create(w->vm, &other) == 0);
	w->ops->queue_submit(other, fine); /* of its own queue only */
	CHECK(job_wait(fine) == 0);
	w->ops->queue_destroy(other);
	job_free(bad);
	job_free(next);
	job_free(fine);
	return PASSED;
}

static int case_beyond(struct world *w)
{
	struct gpusvm_command_fault fault;
	u64 far = ~(u64)0 - 4095;

	CHECK(job_run(w, job_new(GPUSVM_COMMAND_SET, far, 8192), &fault) == -EFAULT);
	CHECK(fault.address == far);
	return PASSED;
}

/* ---- Order ------------------------------------------------------------------------------------
 */

static int case_order(struct world *w)
{
	enum { N = 100 };
	struct gpusvm_job *job[N];
	u64 old[N];
	int i;

	CHECK(map_window(w, true) == 0);
	memset(w->memory, 0, 8);
	for (i = 0; i < N; i++) {
		job[i] = job_new(GPUSVM_COMMAND_ATOMIC, VA, 0);
		job[i]->command.atomic.op = GPUSVM_OP_EXCHANGE;
		job[i]->command.atomic.width = 8;
		job[i]->command.atomic.operand = (u64)i + 1;
		job[i]->command.atomic.old = &old[i];
		w->ops->queue_submit(w->queue, job[i]);
	}
	for (i = 0; i < N; i++) {
		CHECK(job_wait(job[i]) == 0 && old[i] == (u64)i);
		job_free(job[i]);
	}
	return PASSED;
}

static int case_wait_signal(struct world *w)
{
	struct gpusvm_fence *go = gpusvm_fence_create(), *passed = gpusvm_fence_create();
	struct gpusvm_job *wait = job_new(GPUSVM_COMMAND_WAIT, 0, 0);
	struct gpusvm_job *set = job_new(GPUSVM_COMMAND_SET, VA, 1);
	struct gpusvm_job *signal = job_new(GPUSVM_COMMAND_SIGNAL, 0, 0);
	struct gpusvm_device_queue *parked[8];
	struct gpusvm_job *more[8];
	int i, result;

	CHECK(map_window(w, true) == 0);
	w->memory[0] = 0;
	set->command.byte = 1;
	wait->command.fence = go;
	signal->command.fence = passed;
	for (i = 0; i < 8; i++) { /* more than there are lanes: they hold none */
		CHECK(w->ops->queue_create(w->vm, &parked[i]) == 0);
		more[i] = job_new(GPUSVM_COMMAND_WAIT, 0, 0);
		more[i]->command.fence = passed;
		w->ops->queue_submit(parked[i], more[i]);
	}
	w->ops->queue_submit(w->queue, wait);
	w->ops->queue_submit(w->queue, set);
	w->ops->queue_submit(w->queue, signal);
	host_sleep(2 * HOST_MSEC);
	CHECK(!gpusvm_fence_signalled(set->done) && !gpusvm_fence_signalled(more[0]->done));
	gpusvm_fence_signal(go, -EIO); /* its result is ignored */
	CHECK(job_wait(signal) == 0 && job_wait(set) == 0 && w->memory[0] == 1);
	CHECK(gpusvm_fence_wait(passed, 0, &result) == 0 && result == 0);
	for (i = 0; i < 8; i++) {
		CHECK(job_wait(more[i]) == 0);
		w->ops->queue_destroy(parked[i]);
		job_free(more[i]);
	}
	job_free(wait);
	job_free(set);
	job_free(signal);
	gpusvm_fence_put(go);
	gpusvm_fence_put(passed);
	return PASSED;
}

/* ---- Running them
 * ------------------------------------------------------------------------------------ */

static const struct device_case cases[] = {
    {"memory", case_memory},
    {"copy", case_copy},
    {"copy_fences", case_copy_fences},
    {"map_query", case_map_query},
    {"commands_2m", case_commands_2m},
    {"commands_4k", case_commands_4k},
    {"local", case_local},
    {"peer", case_peer},
    {"faults", case_faults},
    {"permission", case_permission},
    {"fatal", case_fatal},
    {"beyond", case_beyond},
    {"order", case_order},
    {"wait_signal", case_wait_signal},
    {0},
};

static int run_case(const struct conformance_target *target, int (*run)(struct world *),
		    const char **reason)
{
	struct world w = {.target = target, .dev = target->create(target->arg)};
	int result;

	CHECK(w.dev != NULL);
	w.ops = w.dev->ops;
	CHECK(w.ops->version == GPUSVM_DEVICE_VERSION && (w.dev->caps.leaf_orders & 1));
	w.dev->listener = (struct gpusvm_device_listener){on_fault, &w};
	w.memory = aligned_alloc(2 * MB, WINDOW);
	memset(w.memory, 0, WINDOW);
	host_mutex_init(&w.lock, RANK_DRIVER_VM);
	CHECK(w.ops->vm_create(w.dev, &w, &w.vm) == 0);
	CHECK(w.ops->queue_create(w.vm, &w.queue) == 0);
	result = run(&w);
	if (result == FAILED)
		return FAILED; /* what may still be at work is left alone */
	w.ops->queue_destroy(w.queue);
	w.ops->vm_destroy(w.vm);
	w.ops->destroy(w.dev);
	host_mutex_destroy(&w.lock);
	free(w.memory);
	*reason = w.reason;
	return result;
}

static unsigned run_cases(const struct conformance_target *target, const struct device_case *c)
{
	unsigned failed = 0;

	for (; c->name; c++) {
		const char *reason = NULL;
		int result = run_case(target, c->run, &reason);

		printf("# %s: %s: %s%s%s\n", target->name, c->name,
		       result == PASSED	   ? "passed"
		       : result == SKIPPED ? "skipped"
					   : "FAILED",
		       reason ? ": " : "", reason ? reason : "");
		failed += result == FAILED;
	}
	return failed;
}

unsigned conformance_run(const struct conformance_target *target)
{
	return run_cases(target, cases) + run_cases(target, call_cases);
}
