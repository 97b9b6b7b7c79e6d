/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * <gpusvm/gpusvm.h>: GPU shared virtual memory for applications. Any pointer
 * that the process holds (malloc, stack, mmap, static data) works in kernels on
 * every device, and pages move to whoever uses them.
 *
 * Concepts
 *   handle    struct gpusvm: this process's address space and its devices; one
 *             at a time in a process, counted
 *   device    by index from 0, in the order in which they were given; an index is
 *             never used again
 *   queue     work in order for one device; queues have no order among them but
 *             by events
 *   event     the promise of some work, and its result
 *   location  system memory, or the memory of a device
 *
 * Rules that hold for every call
 *   - 0 or a negative errno unless said; errno itself is never touched. A
 *     result comes last and is named ret; it is written on success only, unless
 *     said otherwise.
 *   - Addresses and lengths are bytes and need no alignment. Hints (prefetch)
 *     and questions (residency) round outward to pages of 4K, never further.
 *   - A struct that begins with size_t size wants sizeof(it) there. A smaller
 *     size, from an older header, is legal: what is missing counts as zero, and no
 *     more than size is written. A larger one is legal where the part that this
 *     library does not know is zero; else -EINVAL. Arrays that the library
 *     fills take the distance of two elements, stride: -EINVAL if it is smaller
 *     than the element; what is larger is cleared.
 *   - Every call may be made by any thread, any number at a time. None is
 *     async-signal-safe. A handle, queue or event is not used after its close,
 *     destroy or put; an event not after its handle's last close.
 *   - In a forked child every call on the parent's handle, queues and events
 *     gives -ENODEV, all memory has its contents, gpusvm_open works; close,
 *     destroy and put are legal and free the child's copies only.
 *   - Errors that any call may give besides its own: -EINVAL (NULL where something is
 *     needed, an unknown flag, an interval that wraps around), -ENOMEM, -ENODEV
 *     (a forked child, or the device was unbound).
 *   - A device index that was never given is -EINVAL; of one unbound, -ENODEV.
 *   - Mapped means that the process has a mapping there; a hole is where it
 *     has none. An unpopulated anonymous page is no hole: it moves, as zeros.
 *   - Device access gives -EFAULT where nothing is mapped or readable, -EPERM
 *     for a write where only reading is allowed.
 *
 * C and C++. Nothing here needs another header of this library but types.h.
 */
#ifndef GPUSVM_GPUSVM_H
#define GPUSVM_GPUSVM_H

#include <gpusvm/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GPUSVM_API __attribute__((visibility("default")))
#else
#define GPUSVM_API
#endif

struct gpusvm;
struct gpusvm_queue;
struct gpusvm_event;
struct gpusvm_lane; /* in a kernel: the thread of execution that runs it */

/* ---- Locations ----------------------------------------------------------- */

enum gpusvm_location_type {
	GPUSVM_LOCATION_NONE,
	GPUSVM_LOCATION_SYSTEM,
	GPUSVM_LOCATION_DEVICE,
	GPUSVM_LOCATION_FD,
	GPUSVM_LOCATION_FAULTING,
	GPUSVM_LOCATION_PREFERRED,
	GPUSVM_LOCATION_MIXED,
};

struct gpusvm_location {
	enum gpusvm_location_type type;
	int device;	 /* LOCATION_DEVICE */
	unsigned region; /* LOCATION_DEVICE: which of its memories; 0 */
	int fd;
};

static inline struct gpusvm_location gpusvm_none(void)
{
	struct gpusvm_location where = { GPUSVM_LOCATION_NONE, -1, 0, -1 };

	return where;
}
static inline struct gpusvm_location gpusvm_system(void)
{
	struct gpusvm_location where = { GPUSVM_LOCATION_SYSTEM, -1, 0, -1 };

	return where;
}
static inline struct gpusvm_location gpusvm_device_region(int device, unsigned region)
{
	struct gpusvm_location where = { GPUSVM_LOCATION_DEVICE, device, region, -1 };

	return where;
}
static inline struct gpusvm_location gpusvm_device(int device)
{
	return gpusvm_device_region(device, 0);
}
static inline struct gpusvm_location gpusvm_fd(int fd)
{
	struct gpusvm_location where = {GPUSVM_LOCATION_FD, -1, 0, fd};

	return where;
}

/* Whoever faults: as a preferred location, and as the target of a queue's prefetch. */
static inline struct gpusvm_location gpusvm_faulting(void)
{
	struct gpusvm_location where = { GPUSVM_LOCATION_FAULTING, -1, 0, -1 };

	return where;
}
/* Where advice has it: as the target of a prefetch. */
static inline struct gpusvm_location gpusvm_preferred(void)
{
	struct gpusvm_location where = { GPUSVM_LOCATION_PREFERRED, -1, 0, -1 };

	return where;
}

/* ---- Opening and closing ------------------------------------------------- */

/* What a new device shall be. Zero is a sound default for each field. */
struct gpusvm_device_desc {
	size_t size;
	const char *kind;	/* "soft", the software GPU; NULL: the same */
	uint64_t vram_bytes;	/* its own memory, rounded up to 2M; 0: 256 MiB */
	unsigned lanes;		/* threads that run kernels; 0: the kind's default */
	unsigned copy_engines;	/* 0: the kind's default */
	uint64_t flags;		/* GPUSVM_DEVICE_*; COHERENT: -EOPNOTSUPP */
};

struct gpusvm_device_info {
	size_t size;
	char name[32];
	uint64_t vram_bytes;
	unsigned lanes, copy_engines;
	uint64_t flags; /* GPUSVM_DEVICE_* */
};

/* A way by which one device (from) reaches the memory of another (to). It has one
 * direction; the way back is a link of its own. Not transitive. */
struct gpusvm_link {
	size_t size;
	uint64_t bandwidth_mbps; /* MB/s; 0: not known */
	uint64_t latency_ns;
	uint64_t flags; /* GPUSVM_LINK_MAP: pages of `to` are mapped where they are;
			 * GPUSVM_LINK_COPY: they can be copied from there */
};
struct gpusvm_link_desc {
	int from, to;
	struct gpusvm_link link;
};

/* Do without a feature of the kernel, as if it did not have it. What is then
 * promised less shows in gpusvm_caps. */
#define GPUSVM_WITHOUT_MOVE 1u		/* moving pages: only gpusvm_alloc's migrate */
#define GPUSVM_WITHOUT_EVENT_FORK 2u	/* hearing of forks */
#define GPUSVM_WITHOUT_KERNEL_FAULTS 4u /* system calls on migrated memory */
#define GPUSVM_WITHOUT_SYSCALL 8u	/* userfaultfd(2): use /dev/userfaultfd only */

struct gpusvm_options {
	size_t size;
	/* The devices to begin with, the first is index 0. All elements have the
	 * same size. None: one "soft" device with 256 MiB. */
	const struct gpusvm_device_desc *devices;
	unsigned n_devices;
	/* The links between these devices to begin with; of one pair the last counts. All
	 * elements' links have the same size. */
	const struct gpusvm_link_desc *links;
	unsigned n_links;
	/* How the process's memory is managed. NULL: the best there is;
	 * "userfault". "kernel" and others that are known: -EOPNOTSUPP. */
	const char *home;
	uint64_t home_without; /* GPUSVM_WITHOUT_* */
	/* How long the bookkeeping of a device's memory is kept once nothing is there any
	 * more; 0: 5 s; 13 days at most, as the next. */
	uint64_t keepalive_ns;
	/* The least time that pages stay on a device before a CPU fault may pull
	 * them back; 0: 1 ms. */
	uint64_t timeslice_ns;
	size_t event_ring; /* records kept for gpusvm_events_read; 0: off */
};

/*
 * Opens the process's handle, starts the library's threads and brings up the
 * devices. With options NULL and a handle open already: that one, counted.
 *   -EBUSY       options were given and a handle is open
 *   -EINVAL      an option that cannot be: an unknown home, kind or flag; VRAM
 *                and NO_VRAM together; a link from or to no device, or to itself
 *   -EOPNOTSUPP  an option that is known and not there; or the kernel lacks what
 *                the home needs
 *   -ENOSYS      the kernel has no userfaultfd
 *   -EPERM       the process may not use it: see vm.unprivileged_userfaultfd,
 *                CAP_SYS_PTRACE and /dev/userfaultfd; "gpusvm info" tells
 *   -ENOSPC      more than 64 devices
 *   -EAGAIN      no thread to be had; try again
 *   -EMFILE, -ENFILE no descriptor to be had
 * CUDA: cuInit, cuCtxCreate. Linux: the DRM device file and its VM.
 */
GPUSVM_API int gpusvm_open(const struct gpusvm_options *options, struct gpusvm **ret);

/*
 * Drops one count. The last one waits for all work, destroys the queues that
 * are left, brings all data home to system memory, ends the library's threads
 * and gives everything back. NULL is legal. CUDA: cuCtxDestroy.
 */
GPUSVM_API void gpusvm_close(struct gpusvm *svm);

/* Without GPUSVM_CAP_FORK a fork waits until all data is home; where some cannot come, for
 * want of memory, the child is stopped (SIGABRT, with a line on standard error) before it
 * runs with zeros in their place. */
#define GPUSVM_CAP_ANY_MEMORY 1u    /* not only gpusvm_alloc's migrates */
#define GPUSVM_CAP_KERNEL_ACCESS 2u /* system calls may touch migrated memory */
#define GPUSVM_CAP_FORK 4u	    /* a child is whole without preparation */
#define GPUSVM_CAP_HUGE 8u	    /* 2M pages stay whole both ways */

/* What the home promises: GPUSVM_CAP_* in *ret. */
GPUSVM_API int gpusvm_caps(struct gpusvm *svm, uint64_t *ret);

/* ---- Devices ------------------------------------------------------------- */

/* The number of indices given so far, of unbound devices too; or negative.
 * CUDA: cudaGetDeviceCount. */
GPUSVM_API int gpusvm_device_count(struct gpusvm *svm);

/* What a device is. CUDA: cudaGetDeviceProperties. */
GPUSVM_API int gpusvm_device_info(struct gpusvm *svm, int device, struct gpusvm_device_info *ret);

/*
 * Hot unplug: work of its queues ends with -ENODEV, its data goes home, its
 * mappings go. From then on the index and its queues answer -ENODEV;
 * destroying them stays legal. Returns when all of this is done.
 *   -ENODEV  unbound already
 *   -EBUSY   it is unbound, but some of its data could not go home (memory is short): it
 *            does when the CPU touches it, with gpusvm_evict(svm, -1), or at the close
 * Linux: unbinding a driver from its device (drm_dev_unplug).
 */
GPUSVM_API int gpusvm_device_unbind(struct gpusvm *svm, int device);

/*
 * Hot plug: adds a device to those of the handle. Its index, which no other had or
 * will have; or negative:
 *   -ENOSPC  64 indices were given
 *   -EINVAL, -EOPNOTSUPP, -EAGAIN as gpusvm_open
 * It has no links yet. Linux: probing a device.
 */
GPUSVM_API int gpusvm_device_bind(struct gpusvm *svm, const struct gpusvm_device_desc *desc);

/*
 * From now on `from` reaches the memory of `to` by this link, and by nothing else; NULL:
 * not at all. What the link before was good for and this one is not has ended when
 * the call returns: nothing is mapped or copied over it, and pages are found another
 * way when they are next needed. Taking down what is not up is legal.
 *   -EINVAL      from and to are the same; an unknown flag
 *   -EOPNOTSUPP  the two kinds of device have no way to each other
 * CUDA: cudaDeviceEnablePeerAccess, which has no weights.
 */
GPUSVM_API int gpusvm_link_set(struct gpusvm *svm, int from, int to,
			       const struct gpusvm_link *link);

/*
 * A file descriptor that stands for a device's memory, for a location (gpusvm_fd) where
 * a device can be named. Close-on-exec; may be duplicated and handed on within the
 * process; nothing can be read from it. It keeps the memory known until the last
 * duplicate is closed. When the device is unbound, or the handle closed, it is dead: a
 * location that names it, or one that is no such descriptor at all, gives -ENODEV; a
 * poll shows a hangup. In a forked child a location that names it gives -ENODEV at once.
 *   -EINVAL          a region other than 0, or the device has no memory of its own
 *   -EMFILE, -ENFILE no descriptor to be had
 * Linux: a DRM device's file descriptor with a region instance.
 */
GPUSVM_API int gpusvm_pagemap_fd(struct gpusvm *svm, int device, unsigned region);

/* ---- Memory -------------------------------------------------------------- */

/*
 * Memory for data that devices use much: aligned to 2M, huge pages asked for,
 * zero, readable and writable. Optional: any memory works, but for a home
 * without GPUSVM_CAP_ANY_MEMORY, where only this migrates. NULL when there is
 * none, or size is 0. CUDA: cudaMallocManaged.
 */
GPUSVM_API void *gpusvm_alloc(struct gpusvm *svm, size_t size);

/* Gives memory of gpusvm_alloc back, wherever its pages are. NULL is legal;
 * a pointer that is not from gpusvm_alloc is ignored. In a forked child it does
 * nothing: the memory stays the child's. CUDA: cudaFree. */
GPUSVM_API void gpusvm_free(struct gpusvm *svm, void *p);

#define GPUSVM_STRICT 1u /* prefetch: say so when not all of it moved */

/* What happened to the pages (4K each) of a prefetch. */
struct gpusvm_moved {
	size_t size;
	uint64_t moved;	  /* are there now, and were not */
	uint64_t already; /* were there */
	/* did not go: pinned, locked, shared, file-backed, read-only, executable, dropped by
	 * MADV_FREE; no room */
	uint64_t stayed;
	uint64_t holes;
};

/*
 * Moves [p, p + len), rounded outward to pages, to system memory or to a
 * device, as far as it goes. To a device it also maps there what it can, so
 * that no device fault follows until something changes. It does not wait for
 * work of queues; see gpusvm_queue_prefetch.
 *
 * where: LOCATION_SYSTEM; LOCATION_DEVICE with region 0; LOCATION_PREFERRED, each
 *        part to where advice prefers it, and what has no such advice stays; or, for
 *        gpusvm_queue_prefetch, LOCATION_FAULTING, the queue's device; else -EINVAL.
 *        It overrides what GPUSVM_PREFERRED_LOCATION says, and is remembered as
 *        GPUSVM_LAST_PREFETCH. What is advised GPUSVM_NO_MIGRATE stays.
 * moved: filled also when STRICT gives an error; NULL is legal.
 * ret:   NULL: the call waits and gives the result. Else it returns at once,
 *        *ret is an event with the result, and moved must be NULL (-EINVAL).
 *
 * Best effort: 0 whatever moved. With GPUSVM_STRICT, which changes the result
 * only (pages that moved stay moved):
 *   -ENOSPC  it can never fit on the device; nothing was moved
 *   -ENOENT  a hole, or a page that can never move
 *   -EBUSY   another page did not move
 * CUDA: cudaMemPrefetchAsync. Linux: DRM_XE_VM_BIND_OP_PREFETCH.
 */
GPUSVM_API int gpusvm_prefetch(struct gpusvm *svm, const void *p, size_t len,
			       struct gpusvm_location where, unsigned flags,
			       struct gpusvm_moved *moved, struct gpusvm_event **ret);

/* A value, as LOCATION_MIXED is a location: not the same everywhere. */
#define GPUSVM_MIXED INT64_MIN

/*
 * Says how [p, p + len), rounded outward to pages, will be used. It moves nothing; it
 * belongs to the mapping: it goes with munmap, and follows mremap. Setting what is
 * set already does nothing at all. Value 0 unsets, whatever where is. Advice about
 * the same memory does not replace other advice; what they come to together is one
 * rule for all devices, in ARCHITECTURE.md.
 *
 *   GPUSVM_PREFERRED_LOCATION  where: SYSTEM, DEVICE (region 0), or FAULTING; NONE
 *        unsets. Pages go there when a device touches them first. A device that has
 *        a link maps them there, one that has none uses its own memory.
 *   GPUSVM_ACCESSED_BY  where: a DEVICE. It keeps them mapped wherever they go, and
 *        does not draw them to it.
 *   GPUSVM_ACCESS_NONE  device access is -EFAULT
 *   GPUSVM_ATOMIC       value: GPUSVM_ATOMIC_*
 *   GPUSVM_NO_MIGRATE   neither a device's fault nor a prefetch moves them
 *   GPUSVM_GRANULARITY  value: pages, a power of two up to 2^27. So many, aligned, move
 *        at a fault, of a device or the CPU; no more, no fewer.
 *   GPUSVM_RESET        unsets all of these; value and where are ignored
 *
 *   -EINVAL      unknown advice, GPUSVM_LAST_PREFETCH, a value or location that does
 *                not fit
 *   -EOPNOTSUPP  GPUSVM_READ_MOSTLY
 *   -ENOENT      a hole anywhere: nothing is set
 *   -EBUSY       mappings there changed all the time
 * First touches by the CPU of memory that was advised cost more: it is watched from
 * then on. CUDA: cudaMemAdvise. Linux: DRM_IOCTL_XE_MADVISE.
 */
GPUSVM_API int gpusvm_advise(struct gpusvm *svm, const void *p, size_t len,
			     enum gpusvm_advice advice, int64_t value,
			     struct gpusvm_location where);

/*
 * What is advised for [p, p + len), rounded outward. *value: what was set, 0 where
 * nothing is, GPUSVM_MIXED where parts differ; 1 for advice that is a location or
 * has no value. *where: the location of GPUSVM_PREFERRED_LOCATION and of
 * GPUSVM_LAST_PREFETCH, to which the last prefetch was; LOCATION_NONE where none is,
 * LOCATION_MIXED; NONE for other advice. For GPUSVM_ACCESSED_BY it is read and says
 * for which device; else either may be NULL.
 *   -EINVAL  unknown advice, GPUSVM_RESET    -ENOENT  a hole anywhere
 * CUDA: cudaMemRangeGetAttribute.
 */
GPUSVM_API int gpusvm_advice_get(struct gpusvm *svm, const void *p, size_t len,
				 enum gpusvm_advice advice, int64_t *value,
				 struct gpusvm_location *where);

/*
 * The contents of [p, p + len) are needed no more: its whole pages (rounded inward) are
 * given back wherever they are, with nothing copied. What is read there next is zeros in
 * private anonymous memory; file-backed and shared memory is only unmapped, and memory
 * that is locked (mlock) stays as it is. 0 also when there is no whole page.
 *   -ENOENT  a hole: nothing is discarded
 *   -EINVAL  the range wraps around
 * CUDA: cudaMemDiscardBatchAsync. Linux: MADV_DONTNEED.
 */
GPUSVM_API int gpusvm_discard(struct gpusvm *svm, void *p, size_t len);

/*
 * Brings everything on the device (-1: on all devices, unbound ones too) home to system memory,
 * e.g. before a core dump or a debugger looks, which cannot see device pages.
 *   -EBUSY  some of it was in use all the time, and stayed
 * Linux: ttm_resource_manager_evict_all.
 */
GPUSVM_API int gpusvm_evict(struct gpusvm *svm, int device);

#define GPUSVM_PAGE_MAPPED 1u	 /* the process has a mapping here */
#define GPUSVM_PAGE_POPULATED 2u /* contents exist, wherever they are */
#define GPUSVM_PAGE_ZERO 4u	 /* the shared zero page */
#define GPUSVM_PAGE_READABLE 8u	 /* by the mapping's protection */
#define GPUSVM_PAGE_WRITABLE 16u /* by the mapping's protection */
#define GPUSVM_PAGE_EXCLUSIVE 32u /* taken by the one device in mapped_by */

struct gpusvm_page_info {
	uint32_t flags; /* GPUSVM_PAGE_*; 0: a hole */
	uint32_t order; /* of the frame that holds it: 0, or 9 for 2M */
	/* NONE where nothing is populated; SYSTEM; DEVICE */
	struct gpusvm_location location;
	uint64_t mapped_by;  /* mask of the devices whose page tables hold it */
	uint64_t duplicates; /* mask of the devices with a read copy */
};

/*
 * Where each page of [p, p + len), rounded outward, is now: one element of
 * stride bytes for each page of 4K, in order. A snapshot: it may have changed
 * when the call returns. Moves and populates nothing.
 *   -ENOSPC  n is smaller than the number of pages; nothing is written
 * Linux: /proc/PID/pagemap, move_pages(2) without nodes.
 */
GPUSVM_API int gpusvm_residency(struct gpusvm *svm, const void *p, size_t len,
				struct gpusvm_page_info *ret, size_t n, size_t stride);

/* ---- What happened ------------------------------------------------------- */

/* Counts since the handle was opened; exact for work, accesses of the CPU and unmappings
 * that have completed. */
struct gpusvm_stats {
	size_t size;
	uint64_t cpu_faults;	/* at the device that the page left */
	uint64_t device_faults; /* pages first missed, permission faults too; not
				 * replays, prefetch or bind */
	uint64_t device_faults_replayed, device_faults_stale, device_faults_fatal;
	uint64_t pages_to_device, pages_to_system, pages_peer;
	uint64_t bytes_to_device, bytes_to_system, bytes_peer;
	uint64_t evictions, invalidations, flushes, retries, retry_chain_max;
	uint64_t duplicates, throttles, pins;
	uint64_t vram_used, vram_peak; /* bytes */
};

/* The counts of one device, or of all (device -1). */
GPUSVM_API int gpusvm_stats(struct gpusvm *svm, int device, struct gpusvm_stats *ret);

enum gpusvm_event_type {
	GPUSVM_EVENT_CPU_FAULT = 1,
	GPUSVM_EVENT_DEVICE_FAULT,
	GPUSVM_EVENT_FATAL_FAULT,
	GPUSVM_EVENT_MIGRATE,
	GPUSVM_EVENT_EVICT,
	GPUSVM_EVENT_INVALIDATE,
	GPUSVM_EVENT_THROTTLE,
	GPUSVM_EVENT_PIN,
	GPUSVM_EVENT_MAP_REMOTE,
	GPUSVM_EVENT_DUPLICATE,
	GPUSVM_EVENT_DISCARD,
	GPUSVM_EVENT_UNBIND,
	GPUSVM_EVENT_LINK,
	GPUSVM_EVENT_LOST, /* length records were lost here */
};

enum gpusvm_cause {
	GPUSVM_CAUSE_NONE,
	GPUSVM_CAUSE_PREFETCH,
	GPUSVM_CAUSE_CPU_FAULT,
	GPUSVM_CAUSE_DEVICE_FAULT,
	GPUSVM_CAUSE_EVICTION,
	GPUSVM_CAUSE_UNBIND,
	GPUSVM_CAUSE_ADVICE,
	GPUSVM_CAUSE_FORK,
	GPUSVM_CAUSE_CLOSE,
	GPUSVM_CAUSE_UNMAP,
	GPUSVM_CAUSE_PROTECT,
	GPUSVM_CAUSE_CLEAR,
	GPUSVM_CAUSE_BIND,
};

/* One may cover several pages. */
struct gpusvm_event_record {
	uint64_t time_ns; /* CLOCK_MONOTONIC at the start */
	uint64_t duration_ns;
	uint32_t type;	/* GPUSVM_EVENT_* */
	uint32_t cause; /* GPUSVM_CAUSE_* */
	int device;	/* -1: none */
	int result;	/* 0 or a negative errno */
	struct gpusvm_location from, to; /* of a move; else NONE */
	uint64_t address, length;	 /* bytes */
};

/*
 * Takes up to n of the oldest records out of the ring of
 * gpusvm_options.event_ring, and returns how many. Records come in the order of
 * their ends. While the ring is full what happens is not recorded; one LOST
 * record stands in its place, with the number in length. Never blocks; readers
 * at a time share the records among them.
 */
GPUSVM_API int gpusvm_events_read(struct gpusvm *svm, struct gpusvm_event_record *ret, size_t n,
				  size_t stride);

/* ---- Queues and their work -------------------------------------------------
 * Work is begun in the order in which one thread gave it, and is done in
 * order. Where a call has ret: NULL makes it wait and give the work's result;
 * else it returns at once, and *ret is an event, to be put.
 *
 * Results of work: 0; -EFAULT or -EPERM after a fatal access, which ends the
 * queue; -EIO when earlier work ended the queue; -ENODEV when the device was
 * unbound. On a device without faults (GPUSVM_DEVICE_NO_FAULT) all memory that is not
 * bound is -EFAULT. A length or a number of items of 0 is work that does
 * nothing.
 */

struct gpusvm_queue_options {
	size_t size;
	uint64_t flags; /* 0 */
};

/* Makes a queue for a device. options may be NULL. -EAGAIN: no thread to be had.
 * CUDA: cudaStreamCreate. Linux: an exec queue. */
GPUSVM_API int gpusvm_queue_create(struct gpusvm *svm, int device,
				   const struct gpusvm_queue_options *options,
				   struct gpusvm_queue **ret);

/* Waits for the queue's work, then destroys it. No other call may use the queue
 * any more. NULL is legal. CUDA: cudaStreamDestroy, but that one waits. */
GPUSVM_API void gpusvm_queue_destroy(struct gpusvm_queue *queue);

/* A kernel: a function that runs once for each item, on the device's lanes. It
 * reaches the process's memory by the calls below (gpusvm_ld32 and others), with
 * the process's own addresses, and has its args to itself. It must not wait
 * for the CPU but by memory that it reads again and again, nor call this
 * library's other functions. */
struct gpusvm_kernel {
	size_t size;
	const char *name; /* may be NULL */
	void (*fn)(struct gpusvm_lane *lane, uint64_t item, const void *args);
};

/* Runs kernel for the items 0 to items - 1, in any order and at the same time.
 * args_size bytes of args are copied before the call returns, and aligned to 16.
 * CUDA: cudaLaunchKernel. */
GPUSVM_API int gpusvm_launch(struct gpusvm_queue *queue, const struct gpusvm_kernel *kernel,
			     const void *args, size_t args_size, uint64_t items,
			     struct gpusvm_event **ret);

/* The device copies len bytes; both sides are the process's addresses, and are
 * translated and faulted as in a kernel. They must not overlap. CUDA:
 * cudaMemcpyAsync. */
GPUSVM_API int gpusvm_memcpy(struct gpusvm_queue *queue, void *dst, const void *src, size_t len,
			     struct gpusvm_event **ret);

/* The device sets len bytes to (unsigned char)byte. CUDA: cudaMemsetAsync. */
GPUSVM_API int gpusvm_memset(struct gpusvm_queue *queue, void *dst, int byte, size_t len,
			     struct gpusvm_event **ret);

/* gpusvm_prefetch after the queue's earlier work and before its later work.
 * Its own failure does not end the queue. CUDA: cudaMemPrefetchAsync. */
GPUSVM_API int gpusvm_queue_prefetch(struct gpusvm_queue *queue, const void *p, size_t len,
				     struct gpusvm_location where, unsigned flags,
				     struct gpusvm_event **ret);

/* Work given to the queue from now on waits for the event, of any queue or
 * prefetch; how that one ended does not matter. Returns at once. The event may
 * be put right after. CUDA: cudaStreamWaitEvent. */
GPUSVM_API int gpusvm_queue_wait(struct gpusvm_queue *queue, struct gpusvm_event *event);

/* After the queue's earlier work, copies len bytes from p, which is translated
 * and faulted by the device, to buffer, which is not: it needs no page of the
 * device. Waits. A failure (-EFAULT, -EPERM) leaves the queue usable, and the
 * buffer undefined. CUDA: cudaMemcpy to the host. */
GPUSVM_API int gpusvm_read(struct gpusvm_queue *queue, void *buffer, const void *p, size_t len);

/* The same from buffer to p; on failure what is at p is undefined. */
GPUSVM_API int gpusvm_write(struct gpusvm_queue *queue, void *p, const void *buffer, size_t len);

#define GPUSVM_READ_ONLY 1u /* bind: the device only reads */

/*
 * Makes [p, p + len), rounded outward to pages, reachable by the queue's
 * device without faults, in order with the queue's work. A device that cannot
 * fault has it until unbind: after anything that changes the mapping it is
 * bound anew before the queue's next work; work that runs then is preempted, and goes
 * on when it is bound again. Waits. A failure leaves the queue usable.
 *   -EFAULT  a hole, or not readable
 *   -EPERM   not writable, and flags has no GPUSVM_READ_ONLY
 * CUDA: cudaHostRegister. Linux: userptr, DRM_XE_VM_BIND_OP_MAP_USERPTR.
 */
GPUSVM_API int gpusvm_bind(struct gpusvm_queue *queue, const void *p, size_t len, unsigned flags);

/* Undoes it after the queue's earlier work. Waits. -ENOENT: nothing there is
 * bound. */
GPUSVM_API int gpusvm_unbind(struct gpusvm_queue *queue, const void *p, size_t len);

/*
 * Takes [p, p + len), rounded outward to pages, for the queue's device alone, after
 * the queue's earlier work: out of the CPU's mapping and every other device's, until one
 * of them next touches it. Until then the device's atomics there are exact whatever it
 * can do. Waits. A failure leaves the queue usable; part of it may have been taken.
 *   -EFAULT  a hole, or not readable      -EPERM  not writable
 *   -EBUSY   some of it is pinned, by direct I/O for example
 *   -ENOSPC  it can never fit on the device, which has memory
 *   -EOPNOTSUPP  it cannot be taken (shared, file-backed)
 * It goes to the device's own memory; where that has none, or none left, or NO_MIGRATE is
 * advised, it is taken in system memory.
 * Linux: make_device_exclusive.
 */
GPUSVM_API int gpusvm_make_exclusive(struct gpusvm_queue *queue, void *p, size_t len);

/* ---- Events -------------------------------------------------------------- */

/* Why work failed. */
struct gpusvm_fault {
	size_t size;
	uint64_t address; /* the byte */
	uint32_t access;  /* GPUSVM_ACCESS_READ, _WRITE, _ATOMIC */
	int device;
	int error; /* that of gpusvm_event_wait */
};

/* Waits up to timeout_ns (0: just looks; negative: for ever) and gives the work's
 * result, or -ETIME. The event stays until it is put. Work that the device could not do:
 *   -EFAULT  nothing is mapped there, or it is not readable, or no access is advised
 *   -EPERM   it is not writable, or an atomic there would not be exact
 *   -EBUSY   a page was changed or moved so often that it could not be had in time
 *   -ENOMEM  there was no memory to serve a fault with
 *   -ENODEV  the device was unbound     -EIO  earlier work of the queue had failed
 * CUDA: cudaEventSynchronize, cudaEventQuery. */
GPUSVM_API int gpusvm_event_wait(struct gpusvm_event *event, int64_t timeout_ns);

/* Where the work failed. -ENOENT: it has not failed on an access (so far).
 * CUDA has none; Linux: the devcoredump's fault address. */
GPUSVM_API int gpusvm_event_fault(struct gpusvm_event *event, struct gpusvm_fault *ret);

/* The caller does not need it any more; the work goes on. NULL is legal. */
GPUSVM_API void gpusvm_event_put(struct gpusvm_event *event);

/* ---- In kernels ------------------------------------------------------------
 * Addresses are the process's own. What is not in the device's page table is
 * faulted in while the lane waits. An access that can never succeed does not
 * return: it ends the work (see above), and runs nothing of the kernel any more.
 *
 * ld and st may be unaligned, then they are not atomic. Atomics are, among the
 * lanes of a device and, where the page is in system memory, with the CPU; all are
 * sequentially consistent; an unaligned one ends the work with -EFAULT.
 */
GPUSVM_API uint32_t gpusvm_ld32(struct gpusvm_lane *lane, const void *p);
GPUSVM_API uint64_t gpusvm_ld64(struct gpusvm_lane *lane, const void *p);
GPUSVM_API void gpusvm_st32(struct gpusvm_lane *lane, void *p, uint32_t v);
GPUSVM_API void gpusvm_st64(struct gpusvm_lane *lane, void *p, uint64_t v);

/* Each returns the old value. cas stores desired where the old one is expected. */
GPUSVM_API uint32_t gpusvm_atomic_add32(struct gpusvm_lane *lane, void *p, uint32_t v);
GPUSVM_API uint64_t gpusvm_atomic_add64(struct gpusvm_lane *lane, void *p, uint64_t v);
GPUSVM_API uint32_t gpusvm_atomic_exchange32(struct gpusvm_lane *lane, void *p, uint32_t v);
GPUSVM_API uint64_t gpusvm_atomic_exchange64(struct gpusvm_lane *lane, void *p, uint64_t v);
GPUSVM_API uint32_t gpusvm_atomic_or32(struct gpusvm_lane *lane, void *p, uint32_t v);
GPUSVM_API uint64_t gpusvm_atomic_or64(struct gpusvm_lane *lane, void *p, uint64_t v);
GPUSVM_API uint32_t gpusvm_atomic_cas32(struct gpusvm_lane *lane, void *p, uint32_t expected,
					uint32_t desired);
GPUSVM_API uint64_t gpusvm_atomic_cas64(struct gpusvm_lane *lane, void *p, uint64_t expected,
					uint64_t desired);

/* A pointer through which the kernel itself reads (and writes, with write)
 * what is at p: good until the lane's next access, of any kind. *len: in, the
 * bytes wished for; out, how many there are, at least 1. With 0 it gives NULL.
 * While a kernel holds one, changes of that memory wait: do not keep it long. */
GPUSVM_API void *gpusvm_span(struct gpusvm_lane *lane, const void *p, size_t *len, bool write);

/* A pair, for copies: dst for writing, src for reading, *len bytes of both.
 * Always 0. */
GPUSVM_API int gpusvm_span2(struct gpusvm_lane *lane, void *dst, const void *src, size_t *len,
			    void **dst_ret, const void **src_ret);

#ifdef __cplusplus
}
#endif

#endif
