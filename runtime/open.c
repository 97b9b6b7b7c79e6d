/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * open.c: the process's one handle: opening, closing, options; and the rules for
 * structs that may grow.
 *
 * Locking: one.lock, taken by the application's threads only, guards the handle
 * and its count, and is held while a handle is opened or closed. A child that
 * was forked meanwhile finds it locked by no one: it sees by the process id that
 * the lock is not its own, and makes it anew.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/private.h"
#include "host/posix/posix.h"
#include "host/userfault/userfault.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEFAULT_KEEPALIVE (5 * HOST_SEC)
#define DEFAULT_TIMESLICE (1 * HOST_MSEC)
#define MAX_TIME ((u64)1 << 50) /* 13 days: no sum of these and the clock overflows */

static struct {
	pthread_mutex_t lock;
	u32 pid; /* whose the rest is; with ONE_BUSY: that one is making it anew */
	struct gpusvm *svm;
} one HOST_STATIC = { .lock = PTHREAD_MUTEX_INITIALIZER };
#define ONE_BUSY (1u << 31)

_Static_assert(GPUSVM_WITHOUT_MOVE == USERFAULT_WITHOUT_MOVE &&
		       GPUSVM_WITHOUT_EVENT_FORK == USERFAULT_WITHOUT_EVENT_FORK &&
		       GPUSVM_WITHOUT_KERNEL_FAULTS == USERFAULT_WITHOUT_KERNEL_FAULTS &&
		       GPUSVM_WITHOUT_SYSCALL == USERFAULT_WITHOUT_SYSCALL,
	       "fallbacks");
_Static_assert(GPUSVM_CAP_ANY_MEMORY == MM_CAP_ANY_MEMORY &&
		       GPUSVM_CAP_KERNEL_ACCESS == MM_CAP_KERNEL_ACCESS &&
		       GPUSVM_CAP_FORK == MM_CAP_FORK && GPUSVM_CAP_HUGE == MM_CAP_HUGE,
	       "capabilities");
#define WITHOUT_ALL                                                               \
	(GPUSVM_WITHOUT_MOVE | GPUSVM_WITHOUT_EVENT_FORK |                         \
	 GPUSVM_WITHOUT_KERNEL_FAULTS | GPUSVM_WITHOUT_SYSCALL)
#define CAPS_ALL \
	(GPUSVM_CAP_ANY_MEMORY | GPUSVM_CAP_KERNEL_ACCESS | GPUSVM_CAP_FORK | GPUSVM_CAP_HUGE)

static void one_lock(void)
{
	u32 pid = (u32)getpid(), old;
	void *mapping;
	size_t size;

	while ((old = host_load_acquire(&one.pid)) != pid) {
		/* Not where another process was at it, when it was forked: nobody ends it. */
		if (old == (pid | ONE_BUSY) || !host_cas(&one.pid, &old, pid | ONE_BUSY)) {
			host_relax();
			continue;
		}
		pthread_mutex_init(&one.lock, NULL);
		one.svm = NULL;
		/* Where the fork fell into an opening, fork_child did not come. */
		host_posix_abandon(&mapping, &size);
		host_store_release(&one.pid, pid);
	}
	pthread_mutex_lock(&one.lock);
}

static void one_unlock(void)
{
	pthread_mutex_unlock(&one.lock);
}

/* ---- Structs that may grow ---- */

static size_t struct_size(const void *p)
{
	size_t size;

	memcpy(&size, p, sizeof(size));
	return size;
}

int struct_out_check(const void *dst, size_t known)
{
	size_t size = struct_size(dst);
	const unsigned char *bytes = dst;

	if (size < sizeof(size))
		return -EINVAL;
	for (size_t i = known; i < size; i++)
		if (bytes[i])
			return -EINVAL;
	return 0;
}

int struct_in(void *dst, size_t known, const void *src)
{
	int err = struct_out_check(src, known);
	size_t size;

	if (err)
		return err;
	size = struct_size(src);
	memset(dst, 0, known);
	memcpy(dst, src, host_min(size, known));
	return 0;
}

void struct_out(void *dst, const void *src, size_t known)
{
	size_t size = struct_size(dst), n = host_min(size, known);

	memcpy((char *)dst + sizeof(size), (const char *)src + sizeof(size), n - sizeof(size));
}

/* ---- Options ---- */

struct plan {
	struct gpusvm_soft_options devices[GPUSVM_DRIVER_DEVICES];
	unsigned n_devices;
	const struct gpusvm_link_desc *links; /* the caller's, checked */
	unsigned n_links;
	u32 without;
	u64 keepalive, timeslice;
	size_t event_ring;
};

static int plan_home(const char *home)
{
	if (!home || !strcmp(home, "userfault"))
		return 0;
	return !strcmp(home, "kernel") ? -EOPNOTSUPP : -EINVAL;
}

/* The elements lie as far apart as the caller's sizeof, which the first tells. */
static int plan_devices(struct plan *plan, const struct gpusvm_options *o)
{
	const char *desc = (const char *)o->devices;
	size_t size;
	int err;

	if (!o->n_devices)
		return 0;
	if (!desc)
		return -EINVAL;
	if (o->n_devices > GPUSVM_DRIVER_DEVICES)
		return -ENOSPC;
	size = struct_size(desc);
	for (unsigned i = 0; i < o->n_devices; i++, desc += size) {
		if (struct_size(desc) != size)
			return -EINVAL;
		err = device_desc_parse((const void *)desc, &plan->devices[i]);
		if (err)
			return err;
	}
	plan->n_devices = o->n_devices;
	return 0;
}

/* Elements lie as far apart as the first link's size tells. */
static const struct gpusvm_link_desc *link_at(const struct gpusvm_link_desc *links, unsigned i)
{
	size_t stride = offsetof(struct gpusvm_link_desc, link) + struct_size(&links->link);

	return (const void *)((const char *)links + i * stride);
}

static int plan_links(struct plan *plan, const struct gpusvm_options *o)
{
	struct gpusvm_interconnect_link parsed;

	if (o->n_links && !o->links)
		return -EINVAL;
	for (unsigned i = 0; i < o->n_links; i++) {
		const struct gpusvm_link_desc *desc = link_at(o->links, i);
		int last = (int)plan->n_devices - 1;

		if (struct_size(&desc->link) != struct_size(&o->links->link) || desc->from < 0 ||
		    desc->from > last || desc->to < 0 || desc->to > last ||
		    desc->from == desc->to || link_parse(&desc->link, &parsed))
			return -EINVAL;
	}
	plan->links = o->links;
	plan->n_links = o->n_links;
	return 0;
}

static int plan_make(struct plan *plan, const struct gpusvm_options *options)
{
	const struct gpusvm_device_desc desc = { .size = sizeof(desc) };
	struct gpusvm_options o = { .size = 0 };
	int err;

	memset(plan, 0, sizeof(*plan));
	if (options && struct_in(&o, sizeof(o), options))
		return -EINVAL;
	if (o.home_without & ~(u64)WITHOUT_ALL)
		return -EINVAL;
	err = plan_home(o.home);
	if (!err)
		err = plan_devices(plan, &o);
	if (err)
		return err;
	if (!plan->n_devices) {
		plan->n_devices = 1;
		err = device_desc_parse(&desc, &plan->devices[0]);
	}
	if (!err)
		err = plan_links(plan, &o);
	plan->without = (u32)o.home_without;
	plan->keepalive = o.keepalive_ns ? host_min(o.keepalive_ns, MAX_TIME) : DEFAULT_KEEPALIVE;
	plan->timeslice = o.timeslice_ns ? host_min(o.timeslice_ns, MAX_TIME) : DEFAULT_TIMESLICE;
	plan->event_ring = o.event_ring;
	return err;
}

/* ---- Opening and closing; one.lock held ---- */

static int driver_destroy_call(struct gpusvm_event *event)
{
	gpusvm_driver_destroy(event->svm->driver);
	return 0;
}

/* No queue is left. Also undoes what svm_open got to. */
static void svm_close(struct gpusvm *svm)
{
	struct gpusvm_event *event;

	if (svm->has_calls)
		counter_wait(&svm->calls.outstanding);
	if (svm->driver) {
		fds_forget(svm, -1);
		/* Brings home what this very thread may be running on. */
		event = event_new_wait(svm);
		call_post(event, driver_destroy_call, TASK_SLOW);
		event_finish(event);
		counter_wait(&svm->calls.outstanding);
	}
	/* From here on no page is on a device. */
	if (svm->has_calls)
		calls_stop(svm);
	if (svm->mm)
		userfault_close(svm->mm);
	if (svm->has_work)
		host_work_stop();
	if (svm->has_pool)
		pool_fini(svm);
	queues_free_dead(svm);
	ring_fini(&svm->ring);
	gpusvm_fence_put(&svm->past);
	host_mutex_destroy(&svm->lock);
	host_mutex_destroy(&svm->bind_lock);
	host_mutex_destroy(&svm->fd_lock);
	host_free(svm);
}

/* No page is on a device yet, so that the application's thread may do it. */
static int svm_link(struct gpusvm *svm, const struct plan *plan)
{
	int err = 0;

	for (unsigned i = 0; i < plan->n_links && !err; i++) {
		const struct gpusvm_link_desc *desc = link_at(plan->links, i);
		struct gpusvm_interconnect_link link;

		err = link_parse(&desc->link, &link);
		if (!err)
			err = gpusvm_driver_link_set(svm->driver, desc->from, desc->to, &link);
	}
	return err;
}

static int svm_open_driver(struct gpusvm *svm, const struct plan *plan)
{
	const struct gpusvm_driver_options options = {
		.timeslice = plan->timeslice,
		.keepalive = plan->keepalive,
		.event = plan->event_ring ? ring_event : NULL,
		.event_arg = &svm->ring,
	};
	int err = gpusvm_driver_create(svm->mm, &options, &svm->driver);

	if (err) {
		svm->driver = NULL;
		return err;
	}
	for (unsigned i = 0; i < plan->n_devices; i++) {
		err = device_add(svm, &plan->devices[i]);
		if (err < 0)
			return err;
	}
	return svm_link(svm, plan);
}

static int svm_open(struct gpusvm *svm, const struct plan *plan)
{
	const struct userfault_hooks hooks = {
		.fork_prepare = fork_prepare,
		.fork_frozen = fork_frozen,
		.fork_parent = fork_parent,
		.fork_child = fork_child,
		.arg = svm,
	};
	struct mm_caps caps;
	int err;

	err = pool_init(svm);
	if (err)
		return err;
	svm->has_pool = true;
	err = ring_init(&svm->ring, plan->event_ring);
	if (err)
		return err;
	err = host_work_start();
	if (err)
		return err;
	svm->has_work = true;
	err = calls_start(svm);
	if (err)
		return err;
	svm->has_calls = true;
	err = userfault_open(plan->without, &hooks, &svm->mm);
	if (err) {
		svm->mm = NULL;
		return err;
	}
	mm_caps_get(svm->mm, &caps);
	svm->caps = caps.flags & CAPS_ALL;
	err = svm_open_driver(svm, plan);
	if (err)
		return err;
	host_mutex_lock(&svm->lock);
	svm->running = true;
	host_mutex_unlock(&svm->lock);
	return 0;
}

static int open_new(const struct gpusvm_options *options)
{
	struct gpusvm *svm;
	struct plan plan;
	int err = plan_make(&plan, options);

	if (!err)
		err = host_arena_open(0);
	if (err)
		return err;
	svm = host_alloc_zeroed(sizeof(*svm));
	if (!svm) {
		host_arena_close();
		return -ENOMEM;
	}
	host_mutex_init(&svm->lock, RANK_NONE);
	host_mutex_init(&svm->bind_lock, RANK_NONE);
	host_mutex_init(&svm->fd_lock, RANK_NONE);
	gpusvm_fence_init(&svm->past, NULL);
	gpusvm_fence_signal(&svm->past, 0);
	err = svm_open(svm, &plan);
	if (err) {
		svm_close(svm);
		host_arena_close();
		return err;
	}
	one.svm = svm;
	return 0;
}

int gpusvm_open(const struct gpusvm_options *options, struct gpusvm **ret)
{
	int saved = errno, err = 0;

	if (!ret)
		return -EINVAL;
	one_lock();
	if (!one.svm)
		err = open_new(options);
	else if (options)
		err = -EBUSY;
	if (!err) {
		one.svm->count++;
		*ret = one.svm;
	}
	one_unlock();
	errno = saved;
	return err;
}

static void close_last(struct gpusvm *svm)
{
	struct gpusvm_queue *queue;

	do {
		host_mutex_lock(&svm->lock);
		queue = svm->queues;
		svm->running = queue != NULL;
		host_mutex_unlock(&svm->lock);
		gpusvm_queue_destroy(queue);
	} while (queue);
	svm_close(svm);
	HOST_WARN_ON(host_arena_close()); /* law 8 */
	one.svm = NULL;
}

/* A forked child's copies; the home closed its descriptors at the fork. */
static void close_copy(struct gpusvm *svm)
{
	void *mapping = svm->copy;
	size_t size = svm->copy_size;

	if (size)
		munmap(mapping, size);
}

void gpusvm_close(struct gpusvm *svm)
{
	int saved = errno;

	if (!svm)
		return;
	one_lock();
	if (--svm->count == 0) {
		if (svm->in_child)
			close_copy(svm);
		else
			close_last(svm);
	}
	one_unlock();
	errno = saved;
}

/* ---- Questions ---- */

int svm_check(const struct gpusvm *svm)
{
	if (!svm)
		return -EINVAL;
	return host_read_once(&svm->in_child) ? -ENODEV : 0;
}

int gpusvm_caps(struct gpusvm *svm, uint64_t *ret)
{
	int err = svm_check(svm);

	if (err)
		return err;
	if (!ret)
		return -EINVAL;
	*ret = svm->caps;
	return 0;
}
