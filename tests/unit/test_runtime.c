/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The runtime over a driver that is made here: one thread for each queue, no
 * memory manager. What is tested: calls and their threads, events, order in
 * queues, buffers, structs that grow, the ring of records, opening and closing
 * with an allocation failing anywhere.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/fence.c"
#include "runtime/call.c"
#include "runtime/device.c"
#include "runtime/event.c"
#include "runtime/fd.c"
#include "runtime/fork.c"
#include "runtime/futex.c"
#include "runtime/kernel.c"
#include "runtime/memory.c"
#include "runtime/open.c"
#include "runtime/plug.c"
#include "runtime/queue.c"
#include "runtime/stats.c"
#include "runtime/work.c"

/* ---- A home and a driver, as far as the runtime looks ---- */

struct mm {
	int unused;
};
struct gpusvm_driver {
	struct gpusvm_driver_options options;
	u32 devices, removed, pauses, links;
};
struct gpusvm_driver_queue {
	struct gpusvm_driver *driver;
	int device;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct gpusvm_job *head, **tail;
	bool stop;
};

static struct mm the_home;
static struct gpusvm_driver *the_driver;
static u32 arenas, homes;
static u64 prefetch_sleep;

int host_arena_open(u64 want)
{
	arenas++;
	return 0;
}

u64 host_arena_close(void)
{
	arenas--;
	return 0;
}

int userfault_open(u32 without, const struct userfault_hooks *hooks, struct mm **ret)
{
	homes++;
	*ret = &the_home;
	return 0;
}

void userfault_close(struct mm *mm)
{
	homes--;
}

void *userfault_alloc(struct mm *mm, size_t size)
{
	return malloc(size);
}

int userfault_free(struct mm *mm, void *p)
{
	free(p);
	return 0;
}

static u64 discarded_start, discarded_end;

int userfault_discard(struct mm *mm, u64 start, u64 end)
{
	discarded_start = start;
	discarded_end = end;
	return 0;
}

int mm_sync(struct mm *mm, u64 start, u64 end)
{
	return start == discarded_start && end == discarded_end ? 0 : -EFAULT;
}

void mm_caps_get(struct mm *mm, struct mm_caps *ret)
{
	*ret = (struct mm_caps){~0u, 9};
}

void mm_bus_abandon(u64 address)
{
	abort();
}

int gpusvm_soft_create(const struct gpusvm_soft_options *options, struct gpusvm_device **ret)
{
	*ret = host_alloc_zeroed(sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	(*ret)->caps.vram_bytes = options->vram_bytes;
	(*ret)->caps.flags = options->flags;
	return 0;
}

int gpusvm_driver_create(struct mm *mm, const struct gpusvm_driver_options *options,
			 struct gpusvm_driver **ret)
{
	*ret = the_driver = host_alloc_zeroed(sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	the_driver->options = *options;
	return 0;
}

void gpusvm_driver_destroy(struct gpusvm_driver *driver)
{
	host_free(driver);
}

int gpusvm_driver_device_add(struct gpusvm_driver *driver, struct gpusvm_device *device)
{
	host_free(device);
	return (int)driver->devices++;
}

int gpusvm_driver_device_remove(struct gpusvm_driver *driver, int device)
{
	driver->removed++;
	return 0;
}

int gpusvm_driver_pagemap_get(struct gpusvm_driver *driver, int device, struct gpusvm_pagemap **ret)
{
	*ret = NULL;
	return 0;
}

void gpusvm_pagemap_put(struct gpusvm_pagemap *pagemap)
{
}

int gpusvm_driver_link_set(struct gpusvm_driver *driver, int from, int to,
			   const struct gpusvm_interconnect_link *link)
{
	driver->links += link ? 1 : (u32)-1;
	return 0;
}

int gpusvm_driver_device_caps(struct gpusvm_driver *driver, int device,
			      struct gpusvm_device_caps *ret)
{
	*ret = (struct gpusvm_device_caps){.name = "made", .lanes = 3, .vram_bytes = 77};
	return 0;
}

int gpusvm_driver_stats_get(struct gpusvm_driver *driver, int device,
			    struct gpusvm_driver_stats *ret)
{
	*ret = (struct gpusvm_driver_stats){.cpu_faults = 1, .pins = 2, .vram_peak = 3};
	return 0;
}

void gpusvm_driver_pause(struct gpusvm_driver *driver)
{
	host_add_return(&driver->pauses, 1);
}

void gpusvm_driver_resume(struct gpusvm_driver *driver)
{
	host_add_return(&driver->pauses, (u32)-1);
}

int gpusvm_driver_prefetch(struct gpusvm_driver *driver, u64 start, u64 end, int where, bool strict,
			   struct gpusvm_migrate_result *result)
{
	if (prefetch_sleep)
		host_sleep(prefetch_sleep);
	result->moved = (end - start) >> HOST_PAGE_SHIFT;
	result->holes = 1;
	return strict ? -ENOENT : 0;
}

int gpusvm_driver_evict(struct gpusvm_driver *driver, int device, enum gpusvm_driver_cause cause)
{
	return 0;
}

int gpusvm_driver_residency(struct gpusvm_driver *driver, u64 start, u64 n,
			    struct gpusvm_driver_residency *ret)
{
	for (u64 i = 0; i < n; i++)
		ret[i] = (struct gpusvm_driver_residency){.flags = (u32)(start / 4096 + i),
							  .location = (int)(i % 3) - 2};
	return 0;
}

int gpusvm_driver_make_exclusive(struct gpusvm_driver_queue *queue, u64 start, u64 end)
{
	return gpusvm_driver_bind(queue, start, end, false);
}

int gpusvm_driver_bind(struct gpusvm_driver_queue *queue, u64 start, u64 end, bool read_only)
{
	return -EPERM;
}

int gpusvm_driver_unbind(struct gpusvm_driver_queue *queue, u64 start, u64 end)
{
	return -ENOENT;
}

/* ---- Its queues: addresses are pointers; 13 is one that fails ---- */

#define BAD 13u

static int command_run(const struct gpusvm_command *c, struct gpusvm_command_fault *fault)
{
	if (c->va == BAD) {
		*fault = (struct gpusvm_command_fault){BAD, GPUSVM_ACCESS_WRITE, -EFAULT};
		return -EFAULT;
	}
	switch (c->type) {
	case GPUSVM_COMMAND_READ:
		memcpy(c->buffer, (void *)(uintptr_t)c->va, c->length);
		return 0;
	case GPUSVM_COMMAND_WRITE:
		memcpy((void *)(uintptr_t)c->va, c->buffer, c->length);
		return 0;
	case GPUSVM_COMMAND_COPY:
		memcpy((void *)(uintptr_t)c->va, (void *)(uintptr_t)c->va2, c->length);
		return 0;
	case GPUSVM_COMMAND_SET:
		memset((void *)(uintptr_t)c->va, c->byte, c->length);
		return 0;
	case GPUSVM_COMMAND_CALL:
		for (u64 i = 0; i < c->items; i++)
			c->fn(NULL, i, c->args);
		return 0;
	case GPUSVM_COMMAND_WAIT:
		return gpusvm_fence_wait(c->fence, HOST_FOREVER, NULL);
	default:
		return -EINVAL;
	}
}

static void *queue_main(void *arg)
{
	struct gpusvm_driver_queue *queue = arg;
	struct gpusvm_job *job;
	int ended = 0, err;

	pthread_mutex_lock(&queue->lock);
	for (;;) {
		while (!queue->head && !queue->stop)
			pthread_cond_wait(&queue->cond, &queue->lock);
		job = queue->head;
		if (!job)
			break;
		queue->head = job->next;
		if (!queue->head)
			queue->tail = &queue->head;
		pthread_mutex_unlock(&queue->lock);
		err = ended ? -EIO : command_run(&job->command, &job->fault);
		if (err == -EFAULT && !job->contained)
			ended = 1;
		if (job->command.type == GPUSVM_COMMAND_WAIT)
			gpusvm_fence_put(job->command.fence);
		gpusvm_fence_signal(job->done, err);
		pthread_mutex_lock(&queue->lock);
	}
	pthread_mutex_unlock(&queue->lock);
	return NULL;
}

int gpusvm_driver_queue_create(struct gpusvm_driver *driver, int device,
			       struct gpusvm_driver_queue **ret)
{
	struct gpusvm_driver_queue *queue = host_alloc_zeroed(sizeof(*queue));

	if (!queue)
		return -ENOMEM;
	queue->driver = driver;
	queue->tail = &queue->head;
	pthread_mutex_init(&queue->lock, NULL);
	pthread_cond_init(&queue->cond, NULL);
	pthread_create(&queue->thread, NULL, queue_main, queue);
	*ret = queue;
	return 0;
}

void gpusvm_driver_queue_destroy(struct gpusvm_driver_queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	queue->stop = true;
	pthread_cond_signal(&queue->cond);
	pthread_mutex_unlock(&queue->lock);
	pthread_join(queue->thread, NULL);
	pthread_mutex_destroy(&queue->lock);
	pthread_cond_destroy(&queue->cond);
	host_free(queue);
}

void gpusvm_driver_submit(struct gpusvm_driver_queue *queue, struct gpusvm_job *job)
{
	if (job->command.type == GPUSVM_COMMAND_WAIT)
		gpusvm_fence_get(job->command.fence);
	pthread_mutex_lock(&queue->lock);
	job->next = NULL;
	*queue->tail = job;
	queue->tail = &job->next;
	pthread_cond_signal(&queue->cond);
	pthread_mutex_unlock(&queue->lock);
}

/* ---- Tests ---- */

static struct gpusvm *svm;
static struct gpusvm_queue *queue;

static int setup(void **state)
{
	struct gpusvm_options o = {.size = sizeof(o), .event_ring = 4};

	return gpusvm_open(&o, &svm) || gpusvm_queue_create(svm, 0, NULL, &queue);
}

static int teardown(void **state)
{
	gpusvm_close(svm); /* the queue goes with it */
	assert_int_equal(arenas, 0);
	assert_int_equal(homes, 0);
	assert_int_equal(host_posix_alloc_live(), 0);
	return 0;
}

static void test_open_counts(void **state)
{
	struct gpusvm_options o = {.size = sizeof(o)};
	struct gpusvm *again;

	assert_int_equal(gpusvm_open(&o, &again), -EBUSY);
	assert_int_equal(gpusvm_open(NULL, &again), 0);
	assert_ptr_equal(again, svm);
	gpusvm_close(again);
	assert_int_equal(gpusvm_device_count(svm), 1);
}

static void test_open_fails_whole(void **state)
{
	struct gpusvm *h;
	int err, n;

	for (n = 1;; n++) {
		host_posix_fail_alloc_at((u64)n);
		err = gpusvm_open(NULL, &h);
		host_posix_fail_alloc_at(0);
		if (!err)
			break;
		assert_int_equal(err, -ENOMEM);
		assert_int_equal(host_posix_alloc_live(), 0);
		assert_int_equal(arenas, 0);
		assert_int_equal(homes, 0);
	}
	assert_true(n > 3);
	gpusvm_close(h);
	assert_int_equal(host_posix_alloc_live(), 0);
}

static int open_with(struct gpusvm_options *o)
{
	struct gpusvm *h;
	int err = gpusvm_open(o, &h);

	if (!err)
		gpusvm_close(h);
	return err;
}

static void test_options(void **state)
{
	struct {
		struct gpusvm_options o;
		uint64_t later;
	} big = {.o = {.size = sizeof(big)}};
	struct gpusvm_options o = {.size = sizeof(o), .home = "userfault"};
	struct gpusvm_device_desc d[65] = {{.size = sizeof(d[0]), .kind = "soft"}};

	assert_int_equal(open_with(&o), 0);
	assert_int_equal(open_with(&big.o), 0);
	big.later = 1;
	assert_int_equal(open_with(&big.o), -EINVAL);
	o.size = 0;
	assert_int_equal(open_with(&o), -EINVAL);
	o.size = offsetof(struct gpusvm_options, home); /* an older one: home is not seen */
	o.home = "nonsense";
	assert_int_equal(open_with(&o), 0);
	o.size = sizeof(o);
	assert_int_equal(open_with(&o), -EINVAL);
	o.home = "kernel";
	assert_int_equal(open_with(&o), -EOPNOTSUPP);
	o.home = NULL;
	o.home_without = 16;
	assert_int_equal(open_with(&o), -EINVAL);
	o.home_without = 15;
	o.n_links = 1;
	assert_int_equal(open_with(&o), -EINVAL);
	o.n_links = 0;
	o.n_devices = 1;
	assert_int_equal(open_with(&o), -EINVAL);
	o.devices = d;
	assert_int_equal(open_with(&o), 0);
	d[0].flags = 16;
	assert_int_equal(open_with(&o), -EINVAL);
	d[0].flags = GPUSVM_DEVICE_COHERENT;
	assert_int_equal(open_with(&o), -EOPNOTSUPP);
	d[0].flags = GPUSVM_DEVICE_NO_VRAM;
	assert_int_equal(open_with(&o), 0);
	d[0].vram_bytes = 4096;
	assert_int_equal(open_with(&o), -EINVAL);
	d[0].flags = 0;
	d[0].kind = "nonsense";
	assert_int_equal(open_with(&o), -EINVAL);
	d[0].kind = NULL;
	o.n_devices = 2;
	assert_int_equal(open_with(&o), -EINVAL); /* the second has no size */
	for (int i = 0; i < 65; i++)
		d[i] = d[0];
	o.n_devices = 64;
	assert_int_equal(open_with(&o), 0);
	o.n_devices = 65;
	assert_int_equal(open_with(&o), -ENOSPC);
	assert_int_equal(gpusvm_open(NULL, NULL), -EINVAL);
	gpusvm_close(NULL);
}

static void test_structs_out(void **state)
{
	struct {
		struct gpusvm_stats s;
		uint64_t later;
	} big = {.s = {.size = sizeof(big)}};
	struct gpusvm_stats s = {.size = offsetof(struct gpusvm_stats, device_faults), .pins = 9};
	struct gpusvm_device_info info = {.size = sizeof(info)};

	assert_int_equal(gpusvm_stats(svm, 0, &s), 0);
	assert_int_equal(s.cpu_faults, 1);
	assert_int_equal(s.pins, 9);
	assert_int_equal(s.size, offsetof(struct gpusvm_stats, device_faults));
	assert_int_equal(gpusvm_stats(svm, -1, &big.s), 0);
	assert_int_equal(big.s.pins, 2);
	assert_int_equal(big.s.vram_peak, 3);
	big.later = 1;
	assert_int_equal(gpusvm_stats(svm, -1, &big.s), -EINVAL);
	assert_int_equal(gpusvm_stats(svm, 1, &s), -EINVAL);
	assert_int_equal(gpusvm_stats(svm, -2, &s), -EINVAL);
	assert_int_equal(gpusvm_stats(svm, 0, NULL), -EINVAL);
	assert_int_equal(gpusvm_device_info(svm, 0, &info), 0);
	assert_string_equal(info.name, "made");
	assert_int_equal(info.lanes, 3);
	assert_int_equal(info.vram_bytes, 77);
}

/* Items are told apart by their order: each appends its number. */
struct log {
	u32 n, values[1000];
};
struct append {
	struct log *log;
	u32 value;
	unsigned char rest[600]; /* larger than what an event holds by itself */
};

static void append(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	const struct append *a = p;

	assert_int_equal((uintptr_t)p % 16, 0);
	assert_int_equal(a->rest[599], a->value % 251);
	a->log->values[a->log->n++] = a->value;
}

static const struct gpusvm_kernel append_kernel = {sizeof(append_kernel), "append", append};

static void test_order(void **state)
{
	struct log log = {.n = 0};
	struct append a = {.log = &log};
	struct gpusvm_event *event;

	for (a.value = 0; a.value < 1000; a.value++) {
		memset(a.rest, (int)(a.value % 251), sizeof(a.rest));
		assert_int_equal(gpusvm_launch(queue, &append_kernel, &a,
					       a.value % 2 ? sizeof(a) : 16 + 600, 1, &event),
				 0);
		gpusvm_event_put(event);
		if (a.value % 100 == 50) {
			assert_int_equal(
			    gpusvm_queue_prefetch(queue, &log, 4096, gpusvm_system(), 0, &event),
			    0);
			gpusvm_event_put(event);
		}
	}
	assert_int_equal(gpusvm_launch(queue, &append_kernel, NULL, 0, 0, NULL), 0);
	assert_int_equal(log.n, 1000);
	for (u32 i = 0; i < 1000; i++)
		assert_int_equal(log.values[i], i);
}

static void test_transfers(void **state)
{
	size_t n = 3 * BUFFER_MAX + 5;
	unsigned char *from = malloc(n), *to = malloc(n), *back = malloc(n);
	struct gpusvm_event *event;

	for (size_t i = 0; i < n; i++)
		from[i] = (unsigned char)(i * 31 >> 3);
	assert_int_equal(gpusvm_write(queue, to, from, n), 0);
	assert_memory_equal(to, from, n);
	assert_int_equal(gpusvm_read(queue, back, to, n), 0);
	assert_memory_equal(back, from, n);
	assert_int_equal(gpusvm_read(queue, back, to + 1, 3), 0);
	assert_memory_equal(back, from + 1, 3);
	assert_int_equal(gpusvm_read(queue, NULL, NULL, 0), 0);
	assert_int_equal(gpusvm_read(queue, NULL, to, 1), -EINVAL);
	assert_int_equal(gpusvm_read(queue, back, (void *)UINTPTR_MAX, 2), -EINVAL);
	/* A failure that is contained leaves the queue usable. */
	assert_int_equal(gpusvm_read(queue, back, (void *)BAD, 1), -EFAULT);
	assert_int_equal(gpusvm_memset(queue, to, 7, 100, NULL), 0);
	assert_int_equal(to[99], 7);
	assert_int_equal(gpusvm_memcpy(queue, to, from, n, &event), 0);
	assert_int_equal(gpusvm_event_wait(event, -1), 0);
	assert_memory_equal(to, from, n);
	gpusvm_event_put(event);
	free(from);
	free(to);
	free(back);
}

static void test_fatal(void **state)
{
	struct gpusvm_fault fault = {.size = sizeof(fault)};
	struct gpusvm_event *bad, *good, *prefetch;
	char c;

	assert_int_equal(gpusvm_memset(queue, &c, 1, 1, &good), 0);
	assert_int_equal(gpusvm_memset(queue, (void *)BAD, 1, 1, &bad), 0);
	assert_int_equal(gpusvm_queue_prefetch(queue, &c, 1, gpusvm_system(), 0, &prefetch), 0);
	assert_int_equal(gpusvm_memset(queue, &c, 1, 1, NULL), -EIO);
	assert_int_equal(gpusvm_event_wait(good, -1), 0);
	assert_int_equal(gpusvm_event_wait(bad, -1), -EFAULT);
	assert_int_equal(gpusvm_event_wait(prefetch, -1), -EIO);
	assert_int_equal(gpusvm_event_fault(good, &fault), -ENOENT);
	assert_int_equal(gpusvm_event_fault(bad, &fault), 0);
	assert_int_equal(fault.address, BAD);
	assert_int_equal(fault.access, GPUSVM_ACCESS_WRITE);
	assert_int_equal(fault.device, 0);
	assert_int_equal(fault.error, -EFAULT);
	assert_int_equal(gpusvm_bind(queue, &c, 1, 0), -EIO);
	assert_int_equal(gpusvm_read(queue, &c, &c, 1), -EIO);
	gpusvm_event_put(good);
	gpusvm_event_put(bad);
	gpusvm_event_put(prefetch);
}

static void test_arguments(void **state)
{
	struct gpusvm_kernel kernel = {sizeof(kernel), NULL, NULL};
	struct gpusvm_moved moved = {.size = sizeof(moved)};
	struct gpusvm_queue_options options = {sizeof(options), 1};
	struct gpusvm_event *event;
	struct gpusvm_queue *other;
	char c;

	assert_int_equal(gpusvm_launch(queue, &kernel, NULL, 0, 1, NULL), -EINVAL);
	kernel.fn = append;
	assert_int_equal(gpusvm_launch(queue, &kernel, NULL, 8, 1, NULL), -EINVAL);
	assert_int_equal(gpusvm_launch(queue, NULL, NULL, 0, 1, NULL), -EINVAL);
	assert_int_equal(gpusvm_launch(NULL, &kernel, NULL, 0, 1, NULL), -EINVAL);
	assert_int_equal(gpusvm_queue_create(svm, 0, &options, &other), -EINVAL);
	assert_int_equal(gpusvm_queue_create(svm, 1, NULL, &other), -EINVAL);
	assert_int_equal(gpusvm_queue_create(svm, -1, NULL, &other), -EINVAL);
	assert_int_equal(gpusvm_queue_create(NULL, 0, NULL, &other), -EINVAL);
	assert_int_equal(gpusvm_bind(queue, &c, 1, 2), -EINVAL);
	assert_int_equal(gpusvm_bind(queue, &c, 1, 0), -EPERM);
	assert_int_equal(gpusvm_bind(queue, &c, 0, 0), 0);
	assert_int_equal(gpusvm_unbind(queue, &c, 1), -ENOENT);
	assert_int_equal(gpusvm_prefetch(svm, &c, 1, gpusvm_none(), 0, NULL, NULL), -EINVAL);
	assert_int_equal(gpusvm_prefetch(svm, &c, 1, gpusvm_device(1), 0, NULL, NULL), -EINVAL);
	assert_int_equal(gpusvm_prefetch(svm, &c, 1, gpusvm_device_region(0, 1), 0, NULL, NULL),
			 -EINVAL);
	assert_int_equal(gpusvm_prefetch(svm, &c, 1, gpusvm_device(0), 2, NULL, NULL), -EINVAL);
	assert_int_equal(gpusvm_prefetch(svm, &c, 1, gpusvm_device(0), 0, &moved, &event), -EINVAL);
	assert_int_equal(
	    gpusvm_prefetch(svm, (void *)UINTPTR_MAX, 2, gpusvm_device(0), 0, NULL, NULL), -EINVAL);
	assert_int_equal(gpusvm_prefetch(svm, &c, 0, gpusvm_device(0), 0, &moved, NULL), 0);
	assert_int_equal(moved.moved + moved.holes, 0);
	assert_int_equal(
	    gpusvm_prefetch(svm, (void *)4095, 2, gpusvm_device(0), GPUSVM_STRICT, &moved, NULL),
	    -ENOENT);
	assert_int_equal(moved.moved, 2);
	assert_int_equal(moved.holes, 1);
	assert_int_equal(gpusvm_discard(svm, (void *)0x10001, 0x2fff), 0);
	assert_true(discarded_start == 0x11000 && discarded_end == 0x13000);
	assert_int_equal(gpusvm_discard(svm, (void *)0x21001, 0x1ffe), 0); /* no whole page */
	assert_true(discarded_start == 0x11000);
	assert_int_equal(gpusvm_evict(svm, -1), 0);
	assert_int_equal(gpusvm_evict(svm, 3), -EINVAL);
	assert_int_equal(gpusvm_queue_wait(queue, NULL), -EINVAL);
	assert_int_equal(gpusvm_event_wait(NULL, 0), -EINVAL);
	gpusvm_event_put(NULL);
	gpusvm_queue_destroy(NULL);
	gpusvm_free(svm, NULL);
	assert_null(gpusvm_alloc(svm, 0));
}

static void test_unbind_device(void **state)
{
	struct gpusvm_stats s = {.size = sizeof(s)};
	struct gpusvm_queue *other;
	char c;

	assert_int_equal(gpusvm_device_unbind(svm, 1), -EINVAL);
	assert_int_equal(gpusvm_device_unbind(svm, 0), 0);
	assert_int_equal(the_driver->removed, 1);
	assert_int_equal(gpusvm_device_unbind(svm, 0), -ENODEV);
	assert_int_equal(gpusvm_device_count(svm), 1);
	assert_int_equal(gpusvm_memset(queue, &c, 1, 1, NULL), -ENODEV);
	assert_int_equal(gpusvm_stats(svm, 0, &s), -ENODEV);
	assert_int_equal(gpusvm_stats(svm, -1, &s), 0);
	assert_int_equal(gpusvm_queue_create(svm, 0, NULL, &other), -ENODEV);
	assert_int_equal(gpusvm_prefetch(svm, &c, 1, gpusvm_device(0), 0, NULL, NULL), -ENODEV);
	gpusvm_queue_destroy(queue);
}

static void test_residency(void **state)
{
	struct {
		struct gpusvm_page_info info;
		uint64_t later;
	} *pages = calloc(3000, sizeof(*pages));
	const size_t stride = sizeof(*pages);

	memset(pages, 0xff, 3000 * stride);
	assert_int_equal(
	    gpusvm_residency(svm, (void *)4095, 2999 * 4096, &pages->info, 3000, stride), 0);
	for (u32 i = 0; i < 3000; i++) {
		assert_int_equal(pages[i].info.flags, i);
		assert_int_equal(pages[i].later, 0);
	}
	assert_int_equal(pages[0].info.location.type, GPUSVM_LOCATION_NONE);
	assert_int_equal(pages[1].info.location.type, GPUSVM_LOCATION_SYSTEM);
	assert_int_equal(pages[2].info.location.type, GPUSVM_LOCATION_DEVICE);
	assert_int_equal(gpusvm_residency(svm, (void *)4095, 2, &pages->info, 1, stride), -ENOSPC);
	assert_int_equal(gpusvm_residency(svm, NULL, 1, &pages->info, 1, 8), -EINVAL);
	assert_int_equal(gpusvm_residency(svm, NULL, 0, NULL, 0, stride), 0);
	free(pages);
}

static void slow_item(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	u32 *const *flag = p;

	while (!host_load_acquire(*flag))
		host_sleep(HOST_MSEC / 10);
}

static void test_waiting(void **state)
{
	const struct gpusvm_kernel slow = {sizeof(slow), "slow", slow_item};
	struct gpusvm_event *a, *b;
	struct gpusvm_queue *other;
	u32 flag = 0, *p = &flag;
	char c = 0;

	assert_int_equal(gpusvm_queue_create(svm, 0, NULL, &other), 0);
	assert_int_equal(gpusvm_launch(queue, &slow, &p, sizeof(p), 1, &a), 0);
	assert_int_equal(gpusvm_event_wait(a, 0), -ETIME);
	assert_int_equal(gpusvm_event_wait(a, HOST_MSEC), -ETIME);
	assert_int_equal(gpusvm_queue_wait(other, a), 0);
	assert_int_equal(gpusvm_memset(other, &c, 1, 1, &b), 0);
	assert_int_equal(gpusvm_event_wait(b, 2 * HOST_MSEC), -ETIME);
	assert_int_equal(c, 0);
	gpusvm_event_put(a);
	host_store_release(&flag, 1);
	assert_int_equal(gpusvm_event_wait(b, -1), 0);
	assert_int_equal(c, 1);
	assert_int_equal(gpusvm_queue_wait(other, b), 0); /* done already */
	gpusvm_event_put(b);
	gpusvm_queue_destroy(other);
}

struct half_done {
	struct gpusvm_event *event;
	u32 looked; /* atomic */
	int result;
};

static void *look_at_half_done(void *arg)
{
	struct half_done *half = arg;

	half->result = gpusvm_event_wait(half->event, 0);
	host_store_release(&half->looked, 1);
	return NULL;
}

/* A fence is signalled, other queues have gone on from it, and its callback comes. */
static void test_done_for_queues_is_done(void **state)
{
	struct half_done half = {.event = event_new(svm)};
	pthread_t thread;

	assert_non_null(half.event);
	gpusvm_fence_get(&half.event->fence);
	counter_inc(&svm->calls.outstanding);
	event_arm(half.event);
	host_store_release(&half.event->fence.signalled, 1);
	assert_int_equal(pthread_create(&thread, NULL, look_at_half_done, &half), 0);
	while (host_load_acquire(&half.event->state) != EVENT_WAITED &&
	       !host_load_acquire(&half.looked))
		host_sleep(HOST_MSEC / 10);
	event_signalled(&half.event->fence, &half.event->callback);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(half.result, 0);
	gpusvm_event_put(half.event);
}

/* More events than the pool begins with, all held. */
static void test_many_events(void **state)
{
	enum { N = 1000 };
	struct gpusvm_event *events[N];
	char c[N] = {0};

	for (int i = 0; i < N; i++)
		assert_int_equal(gpusvm_memset(queue, &c[i], 1, 1, &events[i]), 0);
	for (int i = N; i-- > 0;) {
		assert_int_equal(gpusvm_event_wait(events[i], -1), 0);
		assert_int_equal(c[i], 1);
		if (i % 7) /* the rest goes at close */
			gpusvm_event_put(events[i]);
	}
}

static void test_slow_calls_leave_room(void **state)
{
	struct gpusvm_stats s = {.size = sizeof(s)};
	struct gpusvm_event *events[20];
	u64 start;
	char c;

	prefetch_sleep = 50 * HOST_MSEC;
	start = host_now();
	for (int i = 0; i < 20; i++)
		assert_int_equal(gpusvm_prefetch(svm, &c, 1, gpusvm_system(), 0, NULL, &events[i]),
				 0);
	assert_int_equal(gpusvm_stats(svm, 0, &s), 0);
	assert_int_equal(gpusvm_event_wait(events[19], 0), -ETIME);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(gpusvm_event_wait(events[i], -1), 0);
		gpusvm_event_put(events[i]);
	}
	prefetch_sleep = 0;
	assert_true(host_now() - start < 20 * 50 * HOST_MSEC); /* side by side */
}

static void *hammer(void *arg)
{
	u32 *sum = arg;
	struct gpusvm_stats s = {.size = sizeof(s)};
	struct gpusvm_event *event;
	struct gpusvm_queue *mine;
	unsigned char bytes[700], back[700];

	assert_int_equal(gpusvm_queue_create(svm, 0, NULL, &mine), 0);
	for (int i = 0; i < 200; i++) {
		memset(bytes, i, sizeof(bytes));
		assert_int_equal(gpusvm_memset(queue, back, 0, 1, &event), 0);
		assert_int_equal(gpusvm_queue_wait(mine, event), 0);
		gpusvm_event_put(event);
		assert_int_equal(gpusvm_write(mine, back, bytes, sizeof(bytes)), 0);
		assert_memory_equal(back, bytes, sizeof(bytes));
		assert_int_equal(gpusvm_stats(svm, 0, &s), 0);
		assert_int_equal(gpusvm_prefetch(svm, back, 9, gpusvm_device(0), 0, NULL, &event),
				 0);
		gpusvm_event_put(event);
		(*sum)++;
	}
	gpusvm_queue_destroy(mine);
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[4];
	u32 sums[4] = {0};

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, hammer, &sums[i]), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(sums[i], 200);
	}
}

static void test_fork_hooks(void **state)
{
	struct gpusvm_event *event;
	char c;

	assert_int_equal(gpusvm_memset(queue, &c, 1, 1, &event), 0);
	fork_prepare(svm);
	assert_int_equal(the_driver->pauses, 1);
	fork_parent(svm);
	assert_int_equal(the_driver->pauses, 0);
	svm->in_child = 1; /* as a child sees it */
	assert_int_equal(gpusvm_memset(queue, &c, 1, 1, NULL), -ENODEV);
	assert_int_equal(gpusvm_event_wait(event, -1), -ENODEV);
	assert_int_equal(gpusvm_device_count(svm), -ENODEV);
	gpusvm_event_put(event);
	gpusvm_queue_destroy(queue);
	svm->in_child = 0;
	assert_int_equal(gpusvm_event_wait(event, -1), 0); /* c is on this stack */
	assert_int_equal(c, 1);
	gpusvm_event_put(event);
}

/* ---- The ring: 4 records ---- */

static void happen(u64 time, u64 duration)
{
	const struct gpusvm_driver_event event = {
	    .time = time,
	    .duration = duration,
	    .type = DRIVER_EVENT_MIGRATE,
	    .cause = DRIVER_CAUSE_PREFETCH,
	    .device = 0,
	    .from = -1,
	    .to = 0,
	    .length = time,
	};

	the_driver->options.event(the_driver->options.event_arg, &event);
}

static void expect(uint32_t type, u64 length)
{
	struct gpusvm_event_record r;

	assert_int_equal(gpusvm_events_read(svm, &r, 1, sizeof(r)), 1);
	assert_int_equal(r.type, type);
	assert_int_equal(r.length, length);
}

static void test_ring(void **state)
{
	struct gpusvm_event_record r[8];

	assert_int_equal(gpusvm_events_read(svm, r, 8, sizeof(r[0])), 0);
	assert_int_equal(gpusvm_events_read(svm, r, 8, sizeof(r[0]) - 1), -EINVAL);
	happen(1, 9);
	happen(5, 1); /* ends before the first did: told as if with it */
	assert_int_equal(gpusvm_events_read(svm, r, 8, sizeof(r[0])), 2);
	assert_int_equal(r[0].time_ns + r[0].duration_ns, 10);
	assert_int_equal(r[1].time_ns + r[1].duration_ns, 10);
	assert_int_equal(r[0].from.type, GPUSVM_LOCATION_SYSTEM);
	assert_int_equal(r[0].to.type, GPUSVM_LOCATION_DEVICE);
	assert_int_equal(r[0].type, GPUSVM_EVENT_MIGRATE);
	/* Lost at the end, seen by a reader that comes to it. */
	for (u64 i = 20; i < 27; i++)
		happen(i, 0);
	for (u64 i = 20; i < 24; i++)
		expect(GPUSVM_EVENT_MIGRATE, i);
	expect(GPUSVM_EVENT_LOST, 3);
	assert_int_equal(gpusvm_events_read(svm, r, 8, sizeof(r[0])), 0);
	/* Lost in the middle: told by the writer that finds room. */
	for (u64 i = 30; i < 36; i++)
		happen(i, 0);
	expect(GPUSVM_EVENT_MIGRATE, 30);
	happen(36, 0); /* there is room for one only: lost too */
	expect(GPUSVM_EVENT_MIGRATE, 31);
	happen(37, 0);
	expect(GPUSVM_EVENT_MIGRATE, 32);
	expect(GPUSVM_EVENT_MIGRATE, 33);
	expect(GPUSVM_EVENT_LOST, 3);
	expect(GPUSVM_EVENT_MIGRATE, 37);
	assert_int_equal(gpusvm_events_read(svm, r, 8, sizeof(r[0])), 0);
}

#define RING_EVENTS 20000u

static void *ring_writer(void *arg)
{
	for (u64 i = 0; i < RING_EVENTS; i++)
		happen(100, 0);
	return NULL;
}

/* Every event is read, or counted as lost. */
static void test_ring_threads(void **state)
{
	struct gpusvm_event_record r[3];
	pthread_t threads[2];
	u64 seen = 0, idle = 0;
	int n;

	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ring_writer, NULL), 0);
	while (seen < 2 * RING_EVENTS && idle < 1000000) {
		n = gpusvm_events_read(svm, r, 3, sizeof(r[0]));
		assert_true(n >= 0);
		idle = n ? 0 : idle + 1;
		for (int i = 0; i < n; i++)
			seen += r[i].type == GPUSVM_EVENT_LOST ? r[i].length : 1;
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	while ((n = gpusvm_events_read(svm, r, 1, sizeof(r[0]))) > 0)
		seen += r[0].type == GPUSVM_EVENT_LOST ? r[0].length : 1;
	assert_int_equal(seen, 2 * RING_EVENTS);
}

int main(void)
{
#define WITH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_open_fails_whole),
	    cmocka_unit_test(test_options),
	    WITH(test_open_counts),
	    WITH(test_structs_out),
	    WITH(test_order),
	    WITH(test_transfers),
	    WITH(test_fatal),
	    WITH(test_arguments),
	    WITH(test_unbind_device),
	    WITH(test_residency),
	    WITH(test_waiting),
	    WITH(test_done_for_queues_is_done),
	    WITH(test_many_events),
	    WITH(test_slow_calls_leave_room),
	    WITH(test_threads),
	    WITH(test_fork_hooks),
	    WITH(test_ring),
	    WITH(test_ring_threads),
	};

	return cmocka_run_group_tests_name("runtime", tests, NULL, NULL);
}
