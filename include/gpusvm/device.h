/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * <gpusvm/device.h>: what a GPU gives to its driver. The driver in driver/
 * meets devices only through this file; whatever passes tests/device is one.
 *
 * Concepts
 *   memory    frames of 4K numbered from 0, given out in powers of two
 *   vm        a page table: process addresses to gpusvm_addr, leaves of 4K, 64K, 2M
 *   queue     commands in order, each reaching memory only through its vm
 *   fault     a lane met an address that its vm does not map (or not for
 *             writing); it waits, with no access open, until the driver answers
 *   copy      physical copies between memory, system memory and peers
 *
 * Life: the device's own constructor (e.g. gpusvm_soft_create) gives a struct
 * gpusvm_device; the driver sets listener and calls ops; destroy is last.
 */
#ifndef GPUSVM_DEVICE_H
#define GPUSVM_DEVICE_H

#include <gpusvm/addr.h>
#include <gpusvm/fence.h>
#include <gpusvm/types.h>

#define GPUSVM_DEVICE_VERSION 1u

struct gpusvm_device;
struct gpusvm_device_vm;
struct gpusvm_device_queue;
struct gpusvm_lane; /* one thread of execution of the compute engine */
/* How every device's struct gpusvm_lane begins: code that runs in a lane and
 * was given nothing else finds its device's ops by it. */
struct gpusvm_lane_head {
	struct gpusvm_device *device;
};

struct gpusvm_device_caps {
	char name[32];
	u64 vram_bytes; /* multiple of 2M; 0: none */
	u32 lanes, copy_engines;
	u64 flags;	 /* GPUSVM_DEVICE_* of <gpusvm/types.h> */
	bool system_atomics; /* its atomics in system memory are atomic for the CPU, too */
	u32 leaf_orders; /* bit n: leaves of 1 << n pages; bit 0 always */
	u32 fault_entries;
};

/* One missed access. */
struct gpusvm_device_fault {
	struct gpusvm_device_vm *vm;
	struct gpusvm_device_queue *queue;
	u64 address; /* the byte */
	u64 length;  /* bytes wanted from there, a hint */
	enum gpusvm_access access;
	u32 id;	     /* the device's */
	u64 time;    /* host_now() when it was raised */
};

/* What a driver is told. Called from the device's threads; may sleep and may
 * call every op. */
struct gpusvm_device_listener {
	/* The fault queue is not empty. Called on the thread of the lane that
	 * faulted, after the entry was queued: the driver may serve the queue right
	 * here, or hand it to its workers and return; the lane then waits. */
	void (*fault)(void *driver, struct gpusvm_device *device);
	void *driver;
};

struct gpusvm_copy {
	struct gpusvm_addr dst, src; /* src of GPUSVM_PROTO_NONE: fill with zeros */
	u64 length;		     /* bytes, multiple of 4K */
};

enum gpusvm_command_type {
	GPUSVM_COMMAND_READ,   /* va to buffer */
	GPUSVM_COMMAND_WRITE,  /* buffer to va */
	GPUSVM_COMMAND_COPY,   /* va2 to va, both translated */
	GPUSVM_COMMAND_SET,    /* byte to va */
	GPUSVM_COMMAND_ATOMIC, /* on va; see op */
	GPUSVM_COMMAND_CALL,   /* fn(lane, item, args) for each item; not in kernel builds */
	GPUSVM_COMMAND_TOUCH,  /* translate only: read or write access to every page of va */
	GPUSVM_COMMAND_WAIT,   /* until fence; its result is ignored, no lane is held */
	GPUSVM_COMMAND_SIGNAL, /* fence: what was queued before is done */
};

enum gpusvm_atomic_op { GPUSVM_OP_ADD, GPUSVM_OP_EXCHANGE, GPUSVM_OP_OR, GPUSVM_OP_CAS };

struct gpusvm_command {
	enum gpusvm_command_type type;
	u64 va, va2, length;
	/* READ, WRITE: untranslated memory of the caller, only touched while no
	 * access is open; good until done is signalled. */
	void *buffer;
	int byte;
	enum gpusvm_access access; /* TOUCH */
	struct {
		enum gpusvm_atomic_op op;
		unsigned width; /* 4 or 8; va aligned to it */
		u64 operand, expected;
		u64 *old; /* may be NULL */
	} atomic;
	struct gpusvm_fence *fence; /* WAIT, SIGNAL: a reference is taken */
	void (*fn)(struct gpusvm_lane *lane, u64 item, const void *args);
	const void *args; /* good until done is signalled */
	u64 items;
};

/* Where and why a command failed. */
struct gpusvm_command_fault {
	u64 address;
	enum gpusvm_access access;
	int error; /* 0: it did not fail on an access */
};

/* One command in a queue; the submitter's memory until done is signalled. */
struct gpusvm_job {
	struct gpusvm_command command;
	/* Signalled with 0; -EFAULT or -EPERM after a fatal fault; -EIO: an
	 * earlier job ended the queue; -ENODEV: the device was stopped. Not NULL. */
	struct gpusvm_fence *done;
	struct gpusvm_command_fault fault; /* good once done is signalled */
	/* A fatal fault fails this job only and leaves the queue usable. */
	bool contained;
	struct gpusvm_job *next; /* the device's */
	u64 device[8];		 /* the device's */
};

struct gpusvm_device_stats {
	u64 faults, faults_replayed;
	u64 faults_dropped_queue_full; /* found no room, and were raised again later */
	u64 tlb_flushes, bytes_copied;
};

struct gpusvm_device_ops {
	u32 version; /* GPUSVM_DEVICE_VERSION */

	/* All vms and queues must be gone. May sleep. */
	void (*destroy)(struct gpusvm_device *device);
	/* Ends work for good: jobs fail with -ENODEV, waiting lanes are released,
	 * copies fail with -ENODEV from now on unless rescue is true: then the copy
	 * engines go on, so that data can be brought home. Idempotent. May sleep. */
	void (*stop)(struct gpusvm_device *device, bool rescue);
	/* No lane begins an access between pause and resume, and none is open when
	 * pause returns (for fork). Counted. May sleep. */
	void (*pause)(struct gpusvm_device *device);
	void (*resume)(struct gpusvm_device *device);

	/* Memory: 1 << order frames, aligned to their size; the first frame's
	 * number. -ENOSPC. Any aligned part of an allocation may be freed by itself,
	 * and neighbours that were allocated apart may be freed as one.
	 * Context: takes RANK_DEVICE_MEMORY; free does not allocate. Contents are
	 * not cleared. */
	int (*memory_alloc)(struct gpusvm_device *device, unsigned order, u64 *ret);
	void (*memory_free)(struct gpusvm_device *device, u64 frame, unsigned order);
	/* Only of a device with GPUSVM_DEVICE_ZERO_COPY: where its memory is, as the
	 * processor sees it: frame n is HOST_PAGE_SIZE * n further on. It is aligned to
	 * 2M, of whole pages that nothing else is in, and may be mapped otherwise while
	 * the device is not told, but for what its frames hold. NULL: there is none. */
	void *(*memory_base)(struct gpusvm_device *device);
	u64 (*memory_free_bytes)(struct gpusvm_device *device);
	/* Reads 4K of memory through the processor's own window: no copy engine, no
	 * lock, no sleep. For a fork, where the home may hold locks of its own. */
	void (*memory_read)(struct gpusvm_device *device, u64 frame, void *buffer);

	/* Copies n entries, in any order among each other. done NULL: complete when
	 * it returns, on this thread if the engine is idle. Else asynchronous: list
	 * is copied, done is signalled once (a reference is taken). after (may be
	 * NULL): begin only when it is signalled; if it failed, so does the copy.
	 * Returns -ENODEV, -EIO, -ENOMEM; with done, those of running come through
	 * it. May sleep. Context: no lock of rank RANK_DEVICE_QUEUE or above. */
	int (*copy)(struct gpusvm_device *device, const struct gpusvm_copy *list, unsigned n,
		    struct gpusvm_fence *after, struct gpusvm_fence *done);

	/* Peers. attach makes all memory of another device reachable under a window
	 * (below GPUSVM_PEER_WINDOWS): from then on addresses of GPUSVM_PROTO_PEER that
	 * name it may be mapped in vms, and be sides of copies. The same peer may be
	 * attached again; the window must be free else (-EBUSY). -EOPNOTSUPP: no way
	 * to a device of its kind. After detach no such address is used: the caller has
	 * unmapped, flushed and waited for copies before. The peer outlives it. Both
	 * may be NULL: a device without peers. May sleep. */
	int (*peer_attach)(struct gpusvm_device *device, unsigned window,
			   struct gpusvm_device *peer);
	void (*peer_detach)(struct gpusvm_device *device, unsigned window);

	/* token: returned by vm_token, to tell VMs apart in faults. -ENOMEM, -ENODEV
	 * (stopped). */
	int (*vm_create)(struct gpusvm_device *device, void *token, struct gpusvm_device_vm **ret);
	/* No queue uses it, nothing is mapped that matters. May sleep. */
	void (*vm_destroy)(struct gpusvm_device_vm *vm);
	void *(*vm_token)(struct gpusvm_device_vm *vm);
	/* Makes the tables that a later vm_map in [va, va + length) needs, down to
	 * leaves of 4K if small, so that it cannot fail. They stay until vm_destroy
	 * (or until trimmed by unmapping). -ENOMEM. May sleep. */
	int (*vm_prepare)(struct gpusvm_device_vm *vm, u64 va, u64 length, bool small);
	/* Writes leaves for n runs, one after the other from va; a run's leaves are
	 * as large as its order, va and address allow. PROTO_NONE leaves a gap of
	 * its order: what is there stays. Replaces what was there: the caller flushes if
	 * that had been
	 * valid with other contents. Does not sleep on anything but
	 * RANK_DEVICE_VM, does not allocate. Context: RANK_MIRROR held for reading. */
	void (*vm_map)(struct gpusvm_device_vm *vm, u64 va, const struct gpusvm_addr *runs,
		       unsigned n);
	/* Clears leaves; true if any was valid. A leaf that reaches over an edge is
	 * cleared whole. Context: as vm_map; may be in an invalidation. */
	bool (*vm_unmap)(struct gpusvm_device_vm *vm, u64 va, u64 length);
	/* Begins to flush translations of the interval and gives a ticket; no new
	 * access uses the old ones. wait returns when the accesses in flight there
	 * are over too. begin does not sleep; wait may. */
	u64 (*vm_flush_begin)(struct gpusvm_device_vm *vm, u64 va, u64 length);
	void (*vm_flush_wait)(struct gpusvm_device_vm *vm, u64 va, u64 length, u64 ticket);
	/* Only for devices that cannot fault (GPUSVM_DEVICE_NO_FAULT). Preempts the work
	 * of the vm: no lane of it begins an access that is not mapped, or any other, and
	 * none fails for want of a mapping, until it is resumed; what is open is a flush's to
	 * wait for. Called before entries are cleared that work may need. Gives a
	 * ticket; resume undoes this and all earlier preemptions, but none that came
	 * after; entries that shall be found were written before. Neither sleeps.
	 * Context: as vm_unmap. */
	u64 (*vm_preempt)(struct gpusvm_device_vm *vm);
	void (*vm_resume)(struct gpusvm_device_vm *vm, u64 ticket);
	/* Does work of the vm wait to be resumed? A hint, by which invalidations that
	 * follow each other closely leave it time to run. NULL: they never do. Does not
	 * sleep. */
	bool (*vm_held)(struct gpusvm_device_vm *vm);
	/* Is [va, va + one page) mapped, and how? For faults, tests and residency. */
	bool (*vm_query)(struct gpusvm_device_vm *vm, u64 va, struct gpusvm_addr *ret);

	/* The oldest fault, if any. It must be answered by fault_done exactly once. */
	bool (*fault_pop)(struct gpusvm_device *device, struct gpusvm_device_fault *ret);
	/* 0: replay the access. -EFAULT, -EPERM and others: fatal, it ends the
	 * job (and, unless contained, the queue). */
	void (*fault_done)(struct gpusvm_device *device, const struct gpusvm_device_fault *fault,
			   int result);

	int (*queue_create)(struct gpusvm_device_vm *vm, struct gpusvm_device_queue **ret);
	/* Waits for its jobs. Legal after stop. */
	void (*queue_destroy)(struct gpusvm_device_queue *queue);
	/* Appends. Never fails: a job that cannot run is signalled with its error. */
	void (*queue_submit)(struct gpusvm_device_queue *queue, struct gpusvm_job *job);

	/* For code that runs in a lane (CALL). A pointer to at least one byte at va,
	 * good until the lane's next access; *length: in the wish, out what it
	 * gives. Faults and waits as needed. Does not return when the access is
	 * fatal: the job ends there. */
	void *(*lane_access)(struct gpusvm_lane *lane, u64 va, u64 *length,
			     enum gpusvm_access access);
	/* A pair at once, both good until the next access. */
	void (*lane_access2)(struct gpusvm_lane *lane, u64 dst, u64 src, u64 *length,
			     void **dst_ret,
			     const void **src_ret);
	/* Ends the open access, if any. */
	void (*lane_end)(struct gpusvm_lane *lane);
	/* Ends the job as a fatal access would. Does not return. */
	void (*lane_fail)(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access, int error);

	void (*stats)(struct gpusvm_device *device, struct gpusvm_device_stats *ret);
};

struct gpusvm_device {
	const struct gpusvm_device_ops *ops;
	struct gpusvm_device_caps caps;
	struct gpusvm_device_listener listener; /* set before the first queue */
};

#endif
