/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_soft.c: the software device. First the conformance suite in several shapes of
 * the device, then what only this device has: vanishing memory, misbehaviour,
 * failing creation, its TLB.
 */
#include "devices/soft/buddy.c"
#include "devices/soft/command.c"
#include "devices/soft/copy.c"
#include "devices/soft/device.c"
#include "devices/soft/engine.c"
#include "devices/soft/fault.c"
#include "devices/soft/lane.c"
#include "devices/soft/pagetable.c"
#include "devices/soft/peer.c"
#include "devices/soft/tlb.c"
#include "devices/soft/vm.c"
#include "devices/soft/wait.c"

#include "host/posix/posix.h"
#include "tests/device/conformance.h"
#include "tests/unit/soft_bus.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#define VA ((u64)0x7f0000000000)
#define MB ((u64)1 << 20)

static struct gpusvm_device *create(void *arg)
{
	struct gpusvm_device *dev = NULL;

	return gpusvm_soft_create(arg, &dev) ? NULL : dev;
}

static u64 dma_of(void *memory)
{
	return (u64)(uintptr_t)memory;
}

static void conform(const char *name, struct gpusvm_soft_options options)
{
	struct conformance_target target = {name, create, &options, dma_of, true};

	assert_int_equal(conformance_run(&target), 0);
}

static void test_conformance(void **state)
{
	(void)state;
	conform("plain", (struct gpusvm_soft_options){.vram_bytes = 32 * MB});
	conform("one lane", (struct gpusvm_soft_options){.vram_bytes = 10 * MB - 1, .lanes = 1});
	conform("one fault entry",
		(struct gpusvm_soft_options){
		    .vram_bytes = 32 * MB, .lanes = 5, .fault_entries = 1, .copy_engines = 3});
	conform("no fault", (struct gpusvm_soft_options){.vram_bytes = 16 * MB,
							 .flags = GPUSVM_DEVICE_NO_FAULT});
	conform("leaves of 4K",
		(struct gpusvm_soft_options){.vram_bytes = 32 * MB, .leaf_orders = 1});
	conform("leaves of 4K and 2M", (struct gpusvm_soft_options){
					   .vram_bytes = 32 * MB, .leaf_orders = 1u | 1u << 9});
	conform("no memory", (struct gpusvm_soft_options){.flags = GPUSVM_DEVICE_NO_VRAM});
}

/* ---- A world of its own -------------------------------------------------------------- */

struct world {
	struct gpusvm_device *dev;
	struct gpusvm_device_vm *vm;
	struct gpusvm_device_queue *queue;
	u8 *memory; /* 4M behind VA */
	u64 asked;  /* faults that were popped */
	int answer;
	bool map;
};

static void world_fault(void *driver, struct gpusvm_device *device)
{
	struct world *w = driver;
	struct gpusvm_device_fault fault;

	while (device->ops->fault_pop(device, &fault)) {
		u64 page = host_align_down(fault.address - VA, 4096);
		struct gpusvm_addr run = gpusvm_addr_encode((u64)(uintptr_t)w->memory + page,
							    GPUSVM_PROTO_SYSTEM, 0, true);

		host_add_relaxed(&w->asked, 1);
		if (w->map && page < 4 * MB) {
			assert_int_equal(soft_vm_prepare(w->vm, VA + page, 4096, true), 0);
			soft_vm_map(w->vm, VA + page, &run, 1);
		}
		device->ops->fault_done(device, &fault, w->answer);
	}
}

static void world_open(struct world *w, unsigned lanes)
{
	struct gpusvm_soft_options options = {.vram_bytes = 4 * MB, .lanes = lanes};

	bus_install(); /* over the one that cmocka sets for each test */
	*w = (struct world){.map = true};
	assert_int_equal(gpusvm_soft_create(&options, &w->dev), 0);
	w->dev->listener = (struct gpusvm_device_listener){world_fault, w};
	w->memory = mmap(NULL, 6 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(w->memory != MAP_FAILED);
	assert_int_equal(soft_vm_create(w->dev, w, &w->vm), 0);
	assert_int_equal(soft_queue_create(w->vm, &w->queue), 0);
}

static void world_close(struct world *w)
{
	soft_queue_destroy(w->queue);
	soft_vm_destroy(w->vm);
	w->dev->ops->destroy(w->dev);
	munmap(w->memory, 6 * MB);
}

static int run_job(struct world *w, struct gpusvm_job *job)
{
	int result = 1;

	job->done = gpusvm_fence_create();
	job->contained = true;
	soft_queue_submit(w->queue, job);
	assert_int_equal(gpusvm_fence_wait(job->done, host_now() + 60 * HOST_SEC, &result), 0);
	gpusvm_fence_put(job->done);
	return result;
}

static int set(struct world *w, u64 va, u64 length, struct gpusvm_command_fault *fault)
{
	struct gpusvm_job job = {
	    .command = {.type = GPUSVM_COMMAND_SET, .va = va, .length = length, .byte = 0x77}};
	int result = run_job(w, &job);

	if (fault)
		*fault = job.fault;
	return result;
}

/* ---- Memory that vanishes ------------------------------------------------------------- */

static void test_bus_finds_nothing(void **state)
{
	struct gpusvm_command_fault fault;
	struct world w;

	(void)state;
	world_open(&w, 1);
	host_store_release(&bus_gone, (u64)(uintptr_t)w.memory + 8192 + 5);
	assert_int_equal(set(&w, VA, 16384, &fault), -EFAULT);
	assert_int_equal(fault.address, VA + 8192);
	assert_int_equal(fault.error, -EFAULT);
	/* Three pages missed, and the last was asked about eight times more. */
	assert_int_equal(w.asked, 3 + SOFT_BUS_RETRIES);
	w.answer = -EPERM; /* the driver decides */
	assert_int_equal(set(&w, VA + 8192, 1, &fault), -EPERM);
	host_store_release(&bus_gone, 0);
	assert_int_equal(set(&w, VA + 8192, 1, &fault), 0);
	assert_int_equal(w.memory[8192], 0x77);
	world_close(&w);
}

static void heal(void *driver, struct gpusvm_device *device)
{
	struct world *w = driver;

	mprotect(w->memory, 4 * MB, PROT_READ | PROT_WRITE);
	world_fault(driver, device);
}

static void touch_two(struct gpusvm_lane *lane, u64 item, const void *args)
{
	u64 length = 8192;
	volatile u8 *p = soft_lane_access(lane, VA, &length, GPUSVM_ACCESS_WRITE);

	(void)item;
	mprotect(*(u8 *const *)args, 4096, PROT_NONE);
	p[17] = 1;
	abort(); /* not reached */
}

static void test_memory_vanishes(void **state)
{
	struct gpusvm_job call = {
	    .command = {.type = GPUSVM_COMMAND_CALL, .fn = touch_two, .items = 1}};
	struct gpusvm_command_fault fault;
	struct world w;

	(void)state;
	world_open(&w, 1);
	assert_int_equal(set(&w, VA, 64 << 10, NULL), 0);
	assert_int_equal(w.asked, 16);
	/* Under a command: the driver brings it back, and the command goes on. */
	w.dev->listener.fault = heal;
	mprotect(w.memory + 20480, 4096, PROT_NONE);
	assert_int_equal(set(&w, VA, 64 << 10, NULL), 0);
	assert_int_equal(w.asked, 17);
	/* It does not: bounded. */
	w.dev->listener.fault = world_fault;
	mprotect(w.memory + 20480, 4096, PROT_NONE);
	assert_int_equal(set(&w, VA + 100, 64 << 10, &fault), -EFAULT);
	assert_int_equal(fault.address, VA + 20480);
	assert_int_equal(fault.access, GPUSVM_ACCESS_WRITE);
	assert_int_equal(w.asked, 17 + SOFT_BUS_RETRIES);
	/* Under a function there is no going on; the address is known. */
	call.command.args = &w.memory;
	assert_int_equal(run_job(&w, &call), -EFAULT);
	assert_int_equal(call.fault.address, VA + 17);
	assert_int_equal(call.fault.error, -EFAULT);
	assert_int_equal(w.asked, 18 + SOFT_BUS_RETRIES);
	mprotect(w.memory, 4 * MB, PROT_READ | PROT_WRITE);
	assert_int_equal(set(&w, VA, 64 << 10, NULL), 0);
	world_close(&w);
}

static void test_bad_buffer(void **state)
{
	struct gpusvm_job job = {
	    .command = {.type = GPUSVM_COMMAND_WRITE, .va = VA, .length = 100}};
	struct world w;
	u8 *bad;

	(void)state;
	world_open(&w, 1);
	bad = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	job.command.buffer = bad;
	assert_int_equal(run_job(&w, &job), -EFAULT);
	assert_int_equal(job.fault.error, 0);
	job.command.type = GPUSVM_COMMAND_READ;
	assert_int_equal(run_job(&w, &job), -EFAULT);
	assert_int_equal(set(&w, VA, 1, NULL), 0);
	munmap(bad, 4096);
	world_close(&w);
}

/* A copy runs on the thread of a lane that serves its own fault. */
static void copy_in_fault(void *driver, struct gpusvm_device *device)
{
	struct world *w = driver;
	struct gpusvm_copy copy = {
	    gpusvm_addr_encode((u64)(uintptr_t)w->memory, GPUSVM_PROTO_SYSTEM, 0, true),
	    {0},
	    4096,
	};

	memset(w->memory, 1, 4096);
	assert_int_equal(device->ops->copy(device, &copy, 1, NULL, NULL), 0);
	assert_int_equal(w->memory[4095], 0);
	world_fault(driver, device);
}

static void touch_one(struct gpusvm_lane *lane, u64 item, const void *args)
{
	u64 length = 1;

	(void)args;
	*(volatile u8 *)soft_lane_access(lane, VA + item * 4096, &length, GPUSVM_ACCESS_WRITE) = 5;
}

static void test_copy_inside_a_fault(void **state)
{
	struct gpusvm_job call = {
	    .command = {.type = GPUSVM_COMMAND_CALL, .fn = touch_one, .items = 1}};
	struct world w;

	(void)state;
	world_open(&w, 1);
	w.dev->listener.fault = copy_in_fault;
	assert_int_equal(run_job(&w, &call), 0);
	assert_int_equal(w.memory[0], 5);
	/* The guard around the function is still there after the one of the copy. */
	w.map = false;
	w.answer = -EFAULT;
	call.command.items = 2;
	assert_int_equal(run_job(&w, &call), -EFAULT);
	assert_int_equal(call.fault.address, VA + 4096);
	world_close(&w);
}

static void test_overlapping_copy(void **state)
{
	struct gpusvm_job job = {.command = {.type = GPUSVM_COMMAND_COPY, .length = 9000}};
	struct world w;
	u64 apart;

	(void)state;
	world_open(&w, 1);
	for (apart = 0; apart < 5000; apart = apart * 3 + 1) {
		job.command.va = VA + apart;
		job.command.va2 = VA;
		assert_int_equal(run_job(&w, &job), 0);
		job.command.va = VA;
		job.command.va2 = VA + apart;
		assert_int_equal(run_job(&w, &job), 0);
	}
	world_close(&w);
}

static void test_bad_commands(void **state)
{
	struct gpusvm_job job = {.command = {.type = GPUSVM_COMMAND_ATOMIC, .va = VA + 2}};
	struct world w;

	(void)state;
	world_open(&w, 1);
	job.command.atomic.width = 4;
	assert_int_equal(run_job(&w, &job), -EINVAL);
	job.command.va = VA;
	job.command.atomic.width = 2;
	assert_int_equal(run_job(&w, &job), -EINVAL);
	job.command.type = (enum gpusvm_command_type)99;
	assert_int_equal(run_job(&w, &job), -EINVAL);
	assert_int_equal(w.asked, 0);
	world_close(&w);
}

/* ---- The TLB, and who waits for whom ---------------------------------------------------- */

static u64 walks(struct world *w)
{
	struct gpusvm_soft_counters counters;

	gpusvm_soft_counters(w->dev, &counters);
	return counters.walks;
}

static void test_tlb_serves(void **state)
{
	struct world w;
	u64 before;

	(void)state;
	world_open(&w, 1);
	assert_int_equal(set(&w, VA, 64 * 4096, NULL), 0);
	before = walks(&w);
	assert_int_equal(set(&w, VA, 64 * 4096, NULL), 0);
	assert_int_equal(walks(&w), before);
	soft_vm_flush_wait(w.vm, VA, 1, soft_vm_flush_begin(w.vm, VA, 1));
	assert_int_equal(set(&w, VA, 64 * 4096, NULL), 0);
	assert_true(walks(&w) > before);
	world_close(&w);
}

struct hold {
	u32 held, go;
	u64 va;
};

static void hold_open(struct gpusvm_lane *lane, u64 item, const void *args)
{
	struct hold *hold = *(struct hold *const *)args;
	u64 length = 1;

	(void)item;
	soft_lane_access(lane, hold->va, &length, GPUSVM_ACCESS_READ);
	host_store_release(&hold->held, 1);
	while (!host_load_acquire(&hold->go))
		host_sleep(50 * HOST_USEC);
}

struct flusher {
	struct world *w;
	u64 va, length;
	u32 done;
};

static void flusher_main(void *arg)
{
	struct flusher *f = arg;

	soft_vm_flush_wait(f->w->vm, f->va, f->length,
			   soft_vm_flush_begin(f->w->vm, f->va, f->length));
	host_store_release(&f->done, 1);
}

static void test_flush_waits_for_overlap_only(void **state)
{
	struct hold hold = {.va = VA + 5 * 4096}, *args = &hold;
	struct gpusvm_job job = {
	    .command = {.type = GPUSVM_COMMAND_CALL, .fn = hold_open, .args = &args, .items = 1}};
	struct flusher f;
	struct host_thread thread = {0};
	struct gpusvm_device_vm *other;
	struct world w;
	int result;

	(void)state;
	world_open(&w, 2);
	f = (struct flusher){.w = &w, .va = VA + 5 * 4096, .length = 1};
	job.done = gpusvm_fence_create();
	soft_queue_submit(w.queue, &job);
	while (!host_load_acquire(&hold.held))
		host_sleep(100 * HOST_USEC);
	/* None of these concerns the access. */
	soft_vm_flush_wait(w.vm, VA, 5 * 4096, soft_vm_flush_begin(w.vm, VA, 5 * 4096));
	soft_vm_flush_wait(w.vm, VA + 6 * 4096, 1 << 30,
			   soft_vm_flush_begin(w.vm, VA + 6 * 4096, 1));
	assert_int_equal(soft_vm_create(w.dev, NULL, &other), 0);
	soft_vm_flush_wait(other, 0, ~(u64)0, soft_vm_flush_begin(other, 0, ~(u64)0));
	soft_vm_destroy(other);
	/* This does. */
	assert_int_equal(host_thread_start(&thread, "flusher", flusher_main, &f), 0);
	host_sleep(5 * HOST_MSEC);
	assert_false(host_load_acquire(&f.done));
	host_store_release(&hold.go, 1);
	host_thread_join(&thread);
	assert_true(host_load_acquire(&f.done));
	assert_int_equal(gpusvm_fence_wait(job.done, HOST_FOREVER, &result), 0);
	assert_int_equal(result, 0);
	gpusvm_fence_put(job.done);
	world_close(&w);
}

/* ---- Misbehaviour --------------------------------------------------------------------------- */

static void test_misbehaviour(void **state)
{
	struct gpusvm_soft_counters counters;
	struct gpusvm_copy copy;
	struct gpusvm_job job = {
	    .command = {.type = GPUSVM_COMMAND_SET, .va = VA + MB, .length = 1}};
	struct world w;
	u64 start;
	int result;

	(void)state;
	world_open(&w, 2);
	copy = (struct gpusvm_copy){
	    gpusvm_addr_encode((u64)(uintptr_t)w.memory, GPUSVM_PROTO_SYSTEM, 0, true), {0}, 4096};
	gpusvm_soft_misbehave(w.dev, GPUSVM_SOFT_FAIL_COPY, 2);
	assert_int_equal(soft_copy(w.dev, &copy, 1, NULL, NULL), 0);
	assert_int_equal(soft_copy(w.dev, &copy, 1, NULL, NULL), -EIO);
	assert_int_equal(soft_copy(w.dev, &copy, 1, NULL, NULL), 0);
	copy.src = gpusvm_addr_encode(4 * MB - 4096, GPUSVM_PROTO_LOCAL, 0, true);
	copy.length = 8192; /* over the end */
	assert_int_equal(soft_copy(w.dev, &copy, 1, NULL, NULL), -EIO);

	gpusvm_soft_misbehave(w.dev, GPUSVM_SOFT_DUPLICATE_FAULT, 1);
	assert_int_equal(set(&w, VA, 1, NULL), 0);
	assert_int_equal(set(&w, VA + 8192, 1, NULL), 0);
	assert_int_equal(host_read_once(&w.asked), 3);
	gpusvm_soft_misbehave(w.dev, GPUSVM_SOFT_DELAY_FAULT, 1);
	start = host_now();
	assert_int_equal(set(&w, VA + 16384, 1, NULL), 0);
	assert_true(host_now() - start >= 2 * HOST_MSEC);
	gpusvm_soft_misbehave(w.dev, GPUSVM_SOFT_DELAY_FLUSH, HOST_MSEC);
	start = host_now();
	soft_vm_flush_wait(w.vm, VA, 1, soft_vm_flush_begin(w.vm, VA, 1));
	assert_true(host_now() - start >= HOST_MSEC);
	gpusvm_soft_misbehave(w.dev, GPUSVM_SOFT_DELAY_FLUSH, 0);
	/* Not told of, and found by who looks. */
	gpusvm_soft_misbehave(w.dev, GPUSVM_SOFT_DROP_FAULT, 1);
	job.done = gpusvm_fence_create();
	soft_queue_submit(w.queue, &job);
	host_sleep(3 * HOST_MSEC);
	assert_false(gpusvm_fence_signalled(job.done));
	while (!gpusvm_fence_signalled(job.done)) {
		world_fault(&w, w.dev);
		host_sleep(100 * HOST_USEC);
	}
	assert_int_equal(gpusvm_fence_wait(job.done, 0, &result), 0);
	assert_int_equal(result, 0);
	gpusvm_fence_put(job.done);
	gpusvm_soft_counters(w.dev, &counters);
	assert_int_equal(counters.misbehaved[GPUSVM_SOFT_FAIL_COPY], 1);
	assert_int_equal(counters.misbehaved[GPUSVM_SOFT_DROP_FAULT], 1);
	assert_int_equal(counters.misbehaved[GPUSVM_SOFT_DUPLICATE_FAULT], 1);
	assert_int_equal(counters.misbehaved[GPUSVM_SOFT_DELAY_FAULT], 1);
	assert_int_equal(counters.misbehaved[GPUSVM_SOFT_DELAY_FLUSH], 1);
	world_close(&w);
}

/* ---- The fault queue when it is full ----------------------------------------------------------
 */

static void test_fault_queue_full(void **state)
{
	struct gpusvm_soft_options options = {.lanes = 6, .fault_entries = 2};
	struct gpusvm_job job[6];
	struct gpusvm_device_queue *queue[6];
	struct gpusvm_device_stats stats;
	struct world w = {.map = true};
	int i, result;

	(void)state;
	assert_int_equal(gpusvm_soft_create(&options, &w.dev), 0);
	w.memory = mmap(NULL, 6 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(soft_vm_create(w.dev, &w, &w.vm), 0);
	for (i = 0; i < 6; i++) { /* nobody is told of the faults */
		job[i] = (struct gpusvm_job){
		    .command = {.type = GPUSVM_COMMAND_SET, .va = VA + (u64)i * 4096, .length = 1}};
		job[i].done = gpusvm_fence_create();
		assert_int_equal(soft_queue_create(w.vm, &queue[i]), 0);
		soft_queue_submit(queue[i], &job[i]);
	}
	do {
		host_sleep(100 * HOST_USEC);
		w.dev->ops->stats(w.dev, &stats);
	} while (stats.faults_dropped_queue_full < 4);
	assert_int_equal(stats.faults, 2);
	for (i = 0; i < 6; i++)
		while (!gpusvm_fence_signalled(job[i].done)) {
			world_fault(&w, w.dev);
			host_sleep(100 * HOST_USEC);
		}
	assert_int_equal(w.asked, 6); /* none was lost */
	for (i = 0; i < 6; i++) {
		assert_int_equal(gpusvm_fence_wait(job[i].done, HOST_FOREVER, &result), 0);
		assert_int_equal(result, 0);
		gpusvm_fence_put(job[i].done);
		soft_queue_destroy(queue[i]);
	}
	soft_vm_destroy(w.vm);
	w.dev->ops->destroy(w.dev);
	munmap(w.memory, 6 * MB);
}

/* ---- Copies in line
 * ------------------------------------------------------------------------------- */

struct copier {
	struct world *w;
	u64 n;
};

static void copier_main(void *arg)
{
	struct copier *c = arg;
	struct gpusvm_copy copy = {
	    gpusvm_addr_encode((u64)(uintptr_t)c->w->memory + c->n * 65536, GPUSVM_PROTO_SYSTEM, 0,
			       true),
	    gpusvm_addr_encode(c->n * 65536, GPUSVM_PROTO_LOCAL, 0, true),
	    65536,
	};
	struct gpusvm_fence *done[20];
	int i, result;

	for (i = 0; i < 20; i++) {
		done[i] = gpusvm_fence_create();
		assert_int_equal(soft_copy(c->w->dev, &copy, 1, NULL, done[i]), 0);
		assert_int_equal(soft_copy(c->w->dev, &copy, 1, NULL, NULL), 0);
	}
	for (i = 0; i < 20; i++) {
		assert_int_equal(gpusvm_fence_wait(done[i], HOST_FOREVER, &result), 0);
		assert_int_equal(result, 0);
		gpusvm_fence_put(done[i]);
	}
}

static void test_copies_in_line(void **state)
{
	struct host_thread threads[4] = {0};
	struct gpusvm_device_stats stats;
	struct copier c[4];
	struct world w;
	u64 i;

	(void)state;
	world_open(&w, 1);
	for (i = 0; i < 4; i++) {
		memset((u8 *)gpusvm_soft_memory(w.dev, i * 16), (int)i + 1, 65536);
		c[i] = (struct copier){&w, i};
		assert_int_equal(host_thread_start(&threads[i], "copier", copier_main, &c[i]), 0);
	}
	for (i = 0; i < 4; i++)
		host_thread_join(&threads[i]);
	for (i = 0; i < 4; i++)
		assert_int_equal(w.memory[i * 65536 + 65535], (int)i + 1);
	w.dev->ops->stats(w.dev, &stats);
	assert_int_equal(stats.bytes_copied, 4 * 40 * 65536);
	world_close(&w);
}

/* A stop fails copies whose fence never comes. */
static void test_stop_copies(void **state)
{
	struct gpusvm_fence *never = gpusvm_fence_create(), *done = gpusvm_fence_create();
	struct gpusvm_copy copy;
	struct world w;
	int result;

	(void)state;
	world_open(&w, 1);
	copy = (struct gpusvm_copy){
	    gpusvm_addr_encode((u64)(uintptr_t)w.memory, GPUSVM_PROTO_SYSTEM, 0, true), {0}, 4096};
	assert_int_equal(soft_copy(w.dev, &copy, 1, never, done), 0);
	w.dev->ops->stop(w.dev, true);
	host_sleep(HOST_MSEC);
	assert_false(gpusvm_fence_signalled(done)); /* rescue: it goes on */
	w.dev->ops->stop(w.dev, false);
	assert_int_equal(gpusvm_fence_wait(done, HOST_FOREVER, &result), 0);
	assert_int_equal(result, -ENODEV);
	world_close(&w);
	gpusvm_fence_signal(never, 0);
	gpusvm_fence_put(never);
	gpusvm_fence_put(done);
}

/* ---- Creation
 * ------------------------------------------------------------------------------------- */

static void test_create(void **state)
{
	struct gpusvm_soft_options options = {.flags = 1u << 20};
	struct gpusvm_device *dev;
	u64 live = host_posix_alloc_live();
	u64 n;
	int err;

	(void)state;
	assert_int_equal(gpusvm_soft_create(&options, &dev), -EINVAL);
	options.flags = GPUSVM_DEVICE_COHERENT;
	assert_int_equal(gpusvm_soft_create(&options, &dev), -EOPNOTSUPP);
	options = (struct gpusvm_soft_options){.lanes = 257};
	assert_int_equal(gpusvm_soft_create(&options, &dev), -EINVAL);
	options = (struct gpusvm_soft_options){
	    .name = "a name that is longer than the field for it", .vram_bytes = 1};
	for (n = 1;; n++) { /* each allocation fails once */
		host_posix_fail_alloc_at(n);
		err = gpusvm_soft_create(&options, &dev);
		host_posix_fail_alloc_at(0);
		if (!err)
			break;
		assert_int_equal(err, -ENOMEM);
		assert_int_equal(host_posix_alloc_live(), live);
	}
	assert_true(n > 5);
	assert_int_equal(dev->caps.vram_bytes, 2 * MB);
	assert_int_equal(dev->caps.lanes, 2);
	assert_int_equal(dev->caps.copy_engines, 2);
	assert_int_equal(dev->caps.fault_entries, 64);
	assert_string_equal(dev->caps.name, "a name that is longer than the ");
	dev->ops->destroy(dev);
	assert_int_equal(host_posix_alloc_live(), live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_conformance),
	    cmocka_unit_test(test_bus_finds_nothing),
	    cmocka_unit_test(test_memory_vanishes),
	    cmocka_unit_test(test_bad_buffer),
	    cmocka_unit_test(test_copy_inside_a_fault),
	    cmocka_unit_test(test_overlapping_copy),
	    cmocka_unit_test(test_bad_commands),
	    cmocka_unit_test(test_tlb_serves),
	    cmocka_unit_test(test_flush_waits_for_overlap_only),
	    cmocka_unit_test(test_misbehaviour),
	    cmocka_unit_test(test_fault_queue_full),
	    cmocka_unit_test(test_copies_in_line),
	    cmocka_unit_test(test_stop_copies),
	    cmocka_unit_test(test_create),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
