/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * driver.h: the reference SVM driver. One struct gpusvm_driver for each address
 * space: a mirror, and the devices that share it. Read vm.c first, then fault.c.
 *
 *   vm.c          the driver object, devices coming and going, VMs
 *   range.c       the driver's range: a gpusvm_range and one pages object a device
 *   fault.c       fault service: workers, one fault from queue to replay
 *   bind.c        making a range reachable from a device: migrate, get, commit
 *   exclusive.c   memory that one device has for itself
 *   bound.c       what applications bind; devices that cannot fault
 *   advice.c      what was advised, and what follows from it
 *   attributes.c  the map that it is kept in
 *   invalidate.c  the two passes of an invalidation
 *   garbage.c     ranges whose mapping is gone, taken down outside notifiers
 *   memory.c      device memory: buffer objects (devmem), LRU, eviction
 *   populate.c    moving pages to a device; the pagemap's ops
 *   prefetch.c    explicit moves, residency
 *   links.c       links between devices, and what is lost with them
 *   queue.c       queues and jobs
 *   stats.c       counters and events
 *   private.h     what these share, and which lock protects what
 *
 * Contexts: every call here runs on a thread of the library (never on one of
 * the application's: its stack may be what moves), with no lock held, and may
 * sleep, unless it says otherwise. Memory passed in is the library's own.
 * Errors that any call may give besides its own: -ENODEV (the device is
 * unbound), -EINVAL (an index never given), -ENOMEM.
 */
#ifndef GPUSVM_DRIVER_H
#define GPUSVM_DRIVER_H

#include <gpusvm/device.h>
#include <gpusvm/interconnect.h>
#include <gpusvm/mirror.h>
#include <gpusvm/pagemap.h>

#define GPUSVM_DRIVER_DEVICES 64u

struct gpusvm_driver;
struct gpusvm_driver_queue;

/* What happened, as told to the owner of the driver: one call an event, in the
 * order of their ends. Numbers are those of <gpusvm/gpusvm.h>'s
 * GPUSVM_EVENT_* and GPUSVM_CAUSE_*; the runtime checks that they are. */
enum gpusvm_driver_event_type {
	DRIVER_EVENT_CPU_FAULT = 1,
	DRIVER_EVENT_DEVICE_FAULT,
	DRIVER_EVENT_FATAL_FAULT,
	DRIVER_EVENT_MIGRATE,
	DRIVER_EVENT_EVICT,
	DRIVER_EVENT_INVALIDATE,
	DRIVER_EVENT_THROTTLE,
	DRIVER_EVENT_PIN,
	DRIVER_EVENT_MAP_REMOTE,
	DRIVER_EVENT_DUPLICATE,
	DRIVER_EVENT_DISCARD,
	DRIVER_EVENT_UNBIND,
	DRIVER_EVENT_LINK,
	DRIVER_EVENT_LOST,
};
enum gpusvm_driver_cause {
	DRIVER_CAUSE_NONE,
	DRIVER_CAUSE_PREFETCH,
	DRIVER_CAUSE_CPU_FAULT,
	DRIVER_CAUSE_DEVICE_FAULT,
	DRIVER_CAUSE_EVICTION,
	DRIVER_CAUSE_UNBIND,
	DRIVER_CAUSE_ADVICE,
	DRIVER_CAUSE_FORK,
	DRIVER_CAUSE_CLOSE,
	DRIVER_CAUSE_UNMAP,
	DRIVER_CAUSE_PROTECT,
	DRIVER_CAUSE_CLEAR,
	DRIVER_CAUSE_BIND,
};
/* Locations: devices from 0, and these. */
#define DRIVER_SYSTEM (-1)
#define DRIVER_NONE (-2)
#define DRIVER_FAULTING (-3)  /* the memory of whoever faults */
#define DRIVER_PREFERRED (-4) /* prefetch: where advice has it */
#define DRIVER_MIXED (-5)     /* an answer: not the same everywhere */

struct gpusvm_driver_event {
	u64 time, duration; /* host_now() at the start, ns */
	enum gpusvm_driver_event_type type;
	enum gpusvm_driver_cause cause;
	int device, result;
	int from, to; /* device index, DRIVER_SYSTEM, or -2 for none */
	u64 address, length;
};

struct gpusvm_driver_options {
	u64 timeslice;	/* ns */
	u64 keepalive;	/* ns that an idle pagemap is kept */
	unsigned workers; /* fault service threads; 0: 2 */
	/* May be NULL. Context: any, RANK_LEAF locks only, no sleep. */
	void (*event)(void *arg, const struct gpusvm_driver_event *event);
	void *event_arg;
};

struct gpusvm_driver_stats {
	u64 cpu_faults, device_faults, device_faults_replayed, device_faults_stale,
		device_faults_fatal;
	u64 pages_to_device, pages_to_system, pages_peer;
	u64 bytes_to_device, bytes_to_system, bytes_peer;
	u64 evictions, invalidations, flushes, retries, retry_chain_max;
	u64 duplicates, throttles, pins;
	u64 vram_used, vram_peak;
};

int gpusvm_driver_create(struct mm *mm, const struct gpusvm_driver_options *options,
			 struct gpusvm_driver **ret);
/* All queues must be gone. Brings all data home, destroys the devices. */
void gpusvm_driver_destroy(struct gpusvm_driver *driver);

/* Takes the device over (destroys it in the end, on failure too) and gives its
 * index: -ENOSPC after 64. */
int gpusvm_driver_device_add(struct gpusvm_driver *driver, struct gpusvm_device *device);
/* Unbind: work fails with -ENODEV, data goes home, mappings go. Idempotent in
 * effect: a second one is -ENODEV. What still holds the pagemap stays safe. */
int gpusvm_driver_device_remove(struct gpusvm_driver *driver, int device);
unsigned gpusvm_driver_device_count(struct gpusvm_driver *driver);
int gpusvm_driver_device_caps(struct gpusvm_driver *driver, int device,
			      struct gpusvm_device_caps *ret);
/* Links: `from` reaches the memory of `to`, as flags say. What was there before is
 * replaced; NULL takes it down. What is lost is not used any more on return: all that
 * was mapped over it is invalidated, and copies are over.
 *   -EINVAL  the same device twice, unknown flags; -EOPNOTSUPP no way between the two */
int gpusvm_driver_link_set(struct gpusvm_driver *driver, int from, int to,
			   const struct gpusvm_interconnect_link *link);
/* -ENOENT: there is none. */
int gpusvm_driver_link_get(struct gpusvm_driver *driver, int from, int to,
			   struct gpusvm_interconnect_link *ret);
/* A reference to the device's memory. -EINVAL: it has none. */
int gpusvm_driver_pagemap_get(struct gpusvm_driver *driver, int device,
			      struct gpusvm_pagemap **ret);
/* device -1: the sum. Of what was over when it was called, all is counted. May sleep. */
int gpusvm_driver_stats_get(struct gpusvm_driver *driver, int device,
			    struct gpusvm_driver_stats *ret);

/* No device writes memory from pause to resume (fork). Counted. */
void gpusvm_driver_pause(struct gpusvm_driver *driver);
void gpusvm_driver_resume(struct gpusvm_driver *driver);

/* Moves [start, end) (page aligned) to a device, DRIVER_SYSTEM, or, each part by its
 * advice, DRIVER_PREFERRED, as far as it goes, and maps what is in a device's reach
 * there for it. result counts every page. 0 best effort; -ENOSPC before anything moves,
 * only if strict, where it can never fit; strict: -ENOENT a hole or a page that can
 * never move, else -EBUSY one that did not. */
int gpusvm_driver_prefetch(struct gpusvm_driver *driver, u64 start, u64 end, int where, bool strict,
			   struct gpusvm_migrate_result *result);
#define DRIVER_GRANULARITY_MAX ((s64)1 << 27) /* pages */
/* Advises for [start, end) (page aligned): location is PREFERRED_LOCATION's, the device of
 * ACCESSED_BY, else unused. Values were checked by the caller. Moves nothing; what
 * devices have mapped there goes, if that changed anything.
 *   -EINVAL  a value or location that cannot be; what can only be asked for
 *   -EOPNOTSUPP  GPUSVM_READ_MOSTLY
 *   -ENOENT  a hole anywhere: nothing is set
 *   -EBUSY   mappings changed there all the time
 *   -EFAULT  the address space is going away */
int gpusvm_driver_advise(struct gpusvm_driver *driver, u64 start, u64 end,
			 enum gpusvm_advice advice, s64 value, int location);
/* What is advised for [start, end): *value is GPUSVM_MIXED's number, and
 * *location DRIVER_MIXED, where it is not the same everywhere. For ACCESSED_BY
 * *location says which device. Errors as gpusvm_driver_advise. */
#define DRIVER_VALUE_MIXED ((s64)-0x7fffffffffffffff - 1)
int gpusvm_driver_advice_get(struct gpusvm_driver *driver, u64 start, u64 end,
			     enum gpusvm_advice advice, s64 *value, int *location);

/* Everything on the device (-1: on all, removed ones too) goes home. -EBUSY when some of it would
 * not after bounded retries. */
int gpusvm_driver_evict(struct gpusvm_driver *driver, int device, enum gpusvm_driver_cause cause);

/* Where pages are. One entry for each page from start. */
#define DRIVER_PAGE_EXCLUSIVE 32u
struct gpusvm_driver_residency {
	u32 flags; /* GPUSVM_PAGE_* of <gpusvm/gpusvm.h> */
	u32 order;
	int location; /* device index, DRIVER_SYSTEM, -2: none */
	u64 mapped_by; /* mask of devices */
};
int gpusvm_driver_residency(struct gpusvm_driver *driver, u64 start, u64 n,
			    struct gpusvm_driver_residency *ret);

/* In order; see struct gpusvm_job. */
int gpusvm_driver_queue_create(struct gpusvm_driver *driver, int device,
			       struct gpusvm_driver_queue **ret);
/* Waits for its work. */
void gpusvm_driver_queue_destroy(struct gpusvm_driver_queue *queue);
/* Applies what happened to the address space (mm_sync), maps what is bound anew
 * for devices that cannot fault, and appends. Never fails: the job's fence does. */
void gpusvm_driver_submit(struct gpusvm_driver_queue *queue, struct gpusvm_job *job);
/* The device of the queue, for lane accessors. */
struct gpusvm_device *gpusvm_driver_queue_device(struct gpusvm_driver_queue *queue);
/* Makes [start, end) reachable by the queue's device without faults, now and for
 * devices that cannot fault again after each invalidation, until unbind. Rounded
 * outward to pages. -EFAULT a hole, -EPERM not writable and not read_only. */
int gpusvm_driver_bind(struct gpusvm_driver_queue *queue, u64 start, u64 end, bool read_only);
/* Takes [start, end) (page aligned) out of every mapping but the queue's device's,
 * until the CPU or another device next touches it.
 *   -EFAULT  a hole, or not readable     -EPERM  not writable
 *   -EBUSY   some of it could not be taken (pinned)
 *   -ENOSPC  it can never fit on the device, which has memory
 *   -EOPNOTSUPP  it can never be: shared, file-backed; or the device has no memory, and the
 *            home cannot take it in system memory
 * To the device's own memory; in system memory where it has none, has none left, or
 * NO_MIGRATE is advised. */
int gpusvm_driver_make_exclusive(struct gpusvm_driver_queue *queue, u64 start, u64 end);
/* -ENOENT: nothing there is bound. */
int gpusvm_driver_unbind(struct gpusvm_driver_queue *queue, u64 start, u64 end);

#endif
