/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * internal.h: the parts of the software GPU and what they share.
 *
 *   device.c     creation, stop, pause, memory; the table of ops
 *   buddy.c      which frames are free
 *   pagetable.c  a VM's translations
 *   vm.c         VMs
 *   tlb.c        flushes
 *   lane.c       how a lane reaches memory
 *   fault.c      the fault queue
 *   engine.c     queues, and the lanes that run them
 *   command.c    what each command does
 *   copy.c       the copy engines
 *   wait.c       waiting for fences without a thread
 *   peer.c       memory of other software GPUs
 *
 * Locks (ranks of host/lock_order.h; none of one rank is held with another)
 *   memory_lock         RANK_DEVICE_MEMORY  the buddy allocator
 *   vm->prepare_lock    RANK_DEVICE_MEMORY  making of page tables' nodes
 *   vm->lock            RANK_DEVICE_VM      leaves
 *   engine.lock         RANK_DEVICE_QUEUE   queues, idle lanes, who runs what
 *   faults.lock         RANK_DEVICE_QUEUE   the fault queue
 *   copier.lock         RANK_DEVICE_QUEUE   copies that wait
 *   pause_lock          RANK_DEVICE_QUEUE   the count of pauses
 * Without locks: windows to peers (peer.c), markers and generations (tlb.h), attention (below), a
 * lane's fault word (fault.c), a run's next item (command.c).
 */
#ifndef GPUSVM_SOFT_INTERNAL_H
#define GPUSVM_SOFT_INTERNAL_H

#include "host/mm.h"
#include "devices/soft/buddy.h"
#include "devices/soft/pagetable.h"
#include "devices/soft/soft.h"
#include "devices/soft/tlb.h"
#include "devices/soft/wait.h"

#define SOFT_LANES 256u	      /* at most; a fault's id has eight bits for the lane */
#define SOFT_COPY_ENGINES 16u /* at most */
#define SOFT_FAULT_ENTRIES 65536u
#define SOFT_BOUNCE (64u << 10) /* a lane's buffer for READ and WRITE */
#define SOFT_BUS_RETRIES 8u	/* times in a row that memory may vanish at one place */
#define SOFT_SPIN 64u		/* turns of host_relax() before sleeping */

/* ---- VMs -------------------------------------------------------------------- */

struct gpusvm_device_vm {
	struct soft_device *dev;
	void *token;
	u64 id;		/* below SOFT_MARKER_VMS */
	u64 generation; /* tlb.h; changed by atomics */
	struct host_mutex prepare_lock;
	struct host_mutex lock;
	u32 queues; /* atomic */
	/* Preemptions, and the last one that was resumed; atomics. See lane.c. */
	u64 preempted, resumed;
	u32 held; /* lanes that wait to go on; atomic */
	struct soft_pt pt;
};

/* ---- Queues ------------------------------------------------------------------ */

/* A CALL in progress: what its lanes share. */
struct soft_run {
	struct gpusvm_job *job;
	u64 next;   /* item; compare and exchange */
	u32 shift;  /* items are taken 1 << shift at a time */
	u32 failed; /* 1: the rest is dropped; set under engine.lock, read by all */
	u32 inside; /* lanes; engine.lock */
	int result; /* with fault: written once, before failed */
	struct gpusvm_command_fault fault;
};

struct gpusvm_device_queue {
	struct soft_device *dev;
	struct gpusvm_device_vm *vm;
	/* Under engine.lock. */
	struct gpusvm_job *head, *tail;
	struct gpusvm_device_queue *next_ready, *next_help;
	struct gpusvm_device_queue *prev, *next; /* of all queues */
	bool ready, helped;
	u32 busy; /* ready, with a lane, or parked; the last touch clears it */
	/* Of the lane that leads the queue. */
	int error;   /* for later jobs: 0 or -EIO */
	bool waited; /* the WAIT at the head is over */
	struct soft_queue_wait *wait;
	struct soft_run run;
};

/* ---- Lanes ------------------------------------------------------------------- */

/* What a lane shall look at before its next access. */
enum {
	SOFT_ATTEND_FLUSH = 1,	/* somebody waits for an access to end */
	SOFT_ATTEND_PAUSE = 2,	/* no access until resume */
	SOFT_ATTEND_STOP = 4,	/* no access any more */
	SOFT_ATTEND_CANCEL = 8, /* the run failed elsewhere: see run->failed */
	SOFT_ATTEND_PREEMPT = 16, /* of a VM; it may not be this lane's */
};

/* An access that is open: the extent of a leaf. */
struct soft_open {
	u64 start, size; /* size 0: none */
	u8 *ptr;	 /* of start */
	u32 allowed;	 /* bit 1 << enum gpusvm_access */
	bool bus;	 /* mm_bus_begin was called */
};

struct gpusvm_lane {
	struct gpusvm_lane_head head;
	/* The lane's thread only. */
	struct soft_device *dev;  /* first: struct gpusvm_lane_head */
	struct soft_open open[2]; /* the second: the source of a pair */
	struct gpusvm_device_vm *vm;
	struct gpusvm_device_queue *queue;
	u32 index;
	u32 fault_seq;
	u64 serial; /* accesses opened */
	u64 wanted; /* bytes that the command wants from here on; a hint for faults */
	struct gpusvm_command_fault failure; /* of the access that was fatal */
	u64 position;			     /* how far a command is, in bytes */
	int result;			     /* of a command */
	bool abandoned;			     /* by the lane itself: not because memory vanished */
	bool has_bus;			     /* holds dev->bus_lock */
	u64 preempted, resumed;		     /* of the vm, before the access was looked up */
	u64 walks;			     /* counters; read by others */
	u8 *bounce;
	struct soft_tlb tlb;

	u64 pad0[8]; /* what others read at each flush has lines of its own */
	u64 marker[2];
	u32 attention;
	u64 pad1[8];

	u64 fault_word;	      /* fault.c */
	struct soft_run *run; /* changed by this lane, read under engine.lock */
	u32 awake;
	struct gpusvm_lane *next_idle; /* engine.lock */
	struct host_waitq waitq;       /* for a fault's answer, or for work */
	struct host_thread thread;
};

struct soft_engine {
	struct host_mutex lock;
	struct gpusvm_device_queue *ready_head, *ready_tail;
	struct gpusvm_device_queue *help; /* runs with items left */
	struct gpusvm_device_queue *queues;
	struct gpusvm_lane *idle;
	u32 n_idle;
	u32 n_ready; /* read without the lock, as a hint */
	bool exiting;
	struct host_waitq drained_wq; /* queue_destroy */
};

/* ---- Faults ------------------------------------------------------------------ */

struct soft_faults {
	struct host_mutex lock;
	struct gpusvm_device_fault *ring;
	u32 mask;
	u32 head, tail; /* head is the oldest; under lock, read as hints */
	struct host_waitq space_wq;
	u64 raised, replayed, full;
};

/* ---- Copies ------------------------------------------------------------------ */

struct soft_copier {
	struct host_mutex lock;
	struct soft_copy_job *head, *tail; /* wait for an engine */
	struct soft_copy_job *granted;	   /* have one, wait for its thread */
	struct soft_copy_job *armed;	   /* wait for their fence */
	u32 idle;			   /* engines */
	u32 jobs;			   /* asynchronous, not finished; under lock */
	u32 off;			   /* stopped; under lock, read as a hint */
	u32 exiting;
	struct host_waitq turn_wq, work_wq;
	struct host_thread threads[SOFT_COPY_ENGINES];
	u64 bytes;
};

/* ---- The device --------------------------------------------------------------- */

struct soft_device {
	struct gpusvm_device base;
	u8 *vram;
	struct host_mutex memory_lock;
	struct soft_buddy buddy;

	struct gpusvm_lane *lanes;
	struct soft_engine engine;
	struct soft_faults faults;
	struct soft_copier copier;

	/* 1: a lane is between the two halves of an atomic in system memory, where the bus has
	 * none. Atomic; held for a few instructions, with an access open. */
	u32 bus_lock;
	u32 stopped;
	u32 paused; /* count; under pause_lock, read by lanes */
	struct host_mutex pause_lock;
	struct host_waitq pause_wq; /* lanes, until resume */
	struct host_waitq drain_wq; /* those who wait for accesses to end */

	struct soft_device *peers[GPUSVM_PEER_WINDOWS]; /* peer.c; atomic */

	u32 vm_ids, n_vms, n_queues;
	u64 flushes, flush_waits;
	u64 flush_latency; /* ns */
	u64 misbehave[GPUSVM_SOFT_MISBEHAVIOURS];
	u64 misbehaved[GPUSVM_SOFT_MISBEHAVIOURS];
};

static inline struct soft_device *to_soft(struct gpusvm_device *device)
{
	return host_container_of(device, struct soft_device, base);
}
static inline bool soft_stopped(struct soft_device *dev)
{
	return host_load_seq(&dev->stopped);
}
static inline void soft_lane_leave_bus(struct gpusvm_lane *lane)
{
	if (!lane->has_bus)
		return;
	lane->has_bus = false;
	host_store_release(&lane->dev->bus_lock, 0);
}
/* Counts a "the n-th from now" down; true for the n-th. (device.c) */
bool soft_misbehaves(struct soft_device *dev, enum gpusvm_soft_misbehaviour which);

/* vm.c: ops */
int soft_vm_create(struct gpusvm_device *device, void *token, struct gpusvm_device_vm **ret);
void soft_vm_destroy(struct gpusvm_device_vm *vm);
void *soft_vm_token(struct gpusvm_device_vm *vm);
int soft_vm_prepare(struct gpusvm_device_vm *vm, u64 va, u64 length, bool small);
void soft_vm_map(struct gpusvm_device_vm *vm, u64 va, const struct gpusvm_addr *runs, unsigned n);
bool soft_vm_unmap(struct gpusvm_device_vm *vm, u64 va, u64 length);
bool soft_vm_query(struct gpusvm_device_vm *vm, u64 va, struct gpusvm_addr *ret);
u64 soft_vm_preempt(struct gpusvm_device_vm *vm);
void soft_vm_resume(struct gpusvm_device_vm *vm, u64 ticket);
bool soft_vm_held(struct gpusvm_device_vm *vm);
static inline bool soft_vm_preempted(const struct gpusvm_device_vm *vm)
{
	/* resumed first: it never passes preempted. */
	u64 resumed = host_load_seq(&vm->resumed);

	return host_load_seq(&vm->preempted) != resumed;
}

/* tlb.c. Asks lanes to look up (any SOFT_ATTEND_*). */
void soft_lane_attract(struct gpusvm_lane *lane, u32 attend);

/* lane.c. Context: the lane's own thread.
 *
 * Opens the leaf of va in slot 0 (and, for a pair, that of src in slot 1) and keeps
 * it open. Serves faults. 0, or: fatal -EFAULT, -EPERM, -EIO and what the driver
 * said, with lane->failure filled; -ENODEV the device was stopped; -ECANCELED the
 * run failed elsewhere. After an error nothing is open. May sleep. */
int soft_lane_open(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access);
int soft_lane_open2(struct gpusvm_lane *lane, u64 dst, u64 src);
/* Makes sure that the page of va is mapped for this access; nothing is open. *end:
 * of its leaf. Errors as above. */
int soft_lane_touch(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access, u64 *end);
/* Ends what is open. */
void soft_lane_close(struct gpusvm_lane *lane);
/* Does what attention asks for, nothing is open afterwards. 0, -ENODEV, -ECANCELED. */
int soft_lane_attend(struct gpusvm_lane *lane);
/* After mm_bus_guard said that memory vanished at this address: the driver is asked,
 * as for any fault. *retries counts those at one place. 0: try again. -EFAULT with no
 * failure filled: it was not under an access, but the caller's buffer. */
int soft_lane_vanished(struct gpusvm_lane *lane, u64 fault_address, u32 *retries);
static inline bool soft_lane_attracted(struct gpusvm_lane *lane)
{
	return host_unlikely(host_load_acquire(&lane->attention) != 0);
}
#ifndef __KERNEL__
/* device.h's lane_fail: noreturn. */
void soft_lane_fail(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access, int error);
void *soft_lane_access(struct gpusvm_lane *lane, u64 va, u64 *length, enum gpusvm_access access);
void soft_lane_access2(struct gpusvm_lane *lane, u64 dst, u64 src, u64 *length, void **dst_ret,
		       const void **src_ret);
#endif

/* fault.c */
void soft_faults_init(struct soft_faults *faults);
int soft_faults_start(struct soft_faults *faults, u32 entries); /* a power of two; -ENOMEM */
void soft_faults_fini(struct soft_faults *faults);
/* Queues a fault, tells the driver and waits for the answer: 0 replay, negative
 * fatal, -ENODEV stopped. Context: a lane's thread, nothing open. May sleep. */
int soft_fault_raise(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access);
/* Drops entries of a queue that goes (stale ones: no lane waits for them). */
void soft_faults_forget(struct soft_faults *faults, const struct gpusvm_device_queue *queue);
bool soft_fault_pop(struct gpusvm_device *device, struct gpusvm_device_fault *ret);
void soft_fault_done(struct gpusvm_device *device, const struct gpusvm_device_fault *fault,
		     int result);

/* engine.c */
void soft_engine_init(struct soft_engine *engine);
void soft_engine_fini(struct soft_engine *engine);
int soft_queue_create(struct gpusvm_device_vm *vm, struct gpusvm_device_queue **ret);
void soft_queue_destroy(struct gpusvm_device_queue *queue);
void soft_queue_submit(struct gpusvm_device_queue *queue, struct gpusvm_job *job);
/* A lane's thread: runs until the engine exits. arg: the lane. */
void soft_lane_main(void *arg);
/* The device was stopped: queues that wait for a fence wait no longer. */
void soft_engine_stop(struct soft_device *dev);
/* Lets the lanes' threads end when there is nothing left to do. */
void soft_engine_exit(struct soft_device *dev);
/* The run ends with this result, unless it had failed before. Context: no lock. */
void soft_run_fail(struct soft_device *dev, struct soft_run *run, int result,
		   const struct gpusvm_command_fault *fault);

/* command.c. Context: a lane's thread, vm and queue set. May sleep.
 * A command that one lane runs; 0 or what the job ends with (lane->failure). */
int soft_command_run(struct gpusvm_lane *lane, const struct gpusvm_command *command);
/* Items of lane->run, until none is left or other work waits (helper). */
void soft_command_items(struct gpusvm_lane *lane, bool helper);
bool soft_run_exhausted(const struct soft_run *run);

/* peer.c: ops; and the memory behind a peer's address, or NULL where there is none. */
int soft_peer_attach(struct gpusvm_device *device, unsigned window, struct gpusvm_device *peer);
void soft_peer_detach(struct gpusvm_device *device, unsigned window);
u8 *soft_peer_memory(struct soft_device *dev, u64 address, u64 length);

/* copy.c */
void soft_copier_init(struct soft_device *dev);
int soft_copier_start(struct soft_device *dev, u32 engines); /* -ENOMEM, -EAGAIN */
/* Without rescue, all that waits fails. */
void soft_copier_stop(struct soft_device *dev, bool rescue);
/* Stopped. Waits for what still fails. */
void soft_copier_fini(struct soft_device *dev);
int soft_copy(struct gpusvm_device *device, const struct gpusvm_copy *list, unsigned n,
	      struct gpusvm_fence *after, struct gpusvm_fence *done);

#endif
