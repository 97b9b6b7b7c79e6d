/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * private.h: the runtime's own structures.
 *
 *   open.c    opening, closing, options
 *   call.c    running a call on a thread of the library
 *   futex.c   sleeping without a lock
 *   event.c   events: the memory of calls and work, and their completion
 *   queue.c   queues, and how work is fed to the driver
 *   work.c    what queues do
 *   device.c  devices: what they are, and their going
 *   plug.c    devices that come later, and links
 *   fd.c      descriptors that stand for a device's memory
 *   memory.c  allocation, prefetch, evict, residency
 *   advice.c  advice
 *   stats.c   counters, and the ring of event records
 *   kernel.c  memory access in kernels
 *   fork.c    around a fork
 *
 * Two worlds
 *   A thread of the application may fault at any instruction that touches its
 *   stack, its thread-local data or the caller's memory, and then waits for a
 *   thread of the library to bring the page home. So it
 *     - never runs the core, the driver, or a home, nor allocates: it fills in a
 *       struct gpusvm_event and posts it to a thread of the library;
 *     - takes no lock that any thread of the library ever takes. Its own locks
 *       (svm->lock, svm->pool.lock) are taken by the application's threads only;
 *       what the two worlds share are atomics, lists that are pushed and taken
 *       whole, and futexes.
 *   Opening and the last steps of closing are exceptions: there is no page on
 *   any device then.
 *   A thread of the library never touches the application's memory but through
 *   a device or a home: everything is copied to and from an event's memory by
 *   the application's thread.
 *
 * Lifetime: everything but the two global words in open.c is in the arena, and
 * goes with it at the last close.
 */
#ifndef GPUSVM_RUNTIME_PRIVATE_H
#define GPUSVM_RUNTIME_PRIVATE_H

#include <gpusvm/gpusvm.h>
#include "devices/soft/soft.h"
#include "driver/driver.h"
#include "host/mm.h"

#define EVENT_BYTES 256u      /* of arguments and small buffers in an event */
#define BUFFER_MAX (1u << 20) /* of a buffer of read and write */
#define CALL_THREADS 6u

/* ---- futex.c: what both worlds may sleep on ------------------------------- */

/* Sleeps while *word is value, until woken, or until the monotonic clock reaches
 * deadline (HOST_FOREVER: none): then -ETIME, else 0, for no reason too. */
int futex_wait(u32 *word, u32 value, u64 deadline);
void futex_wake(u32 *word, int n); /* the word may be gone already */

/* How many things are under way. One waiter at a time. */
struct counter {
	u32 word; /* the number; COUNTER_WAITED: wake at 0 */
};
#define COUNTER_WAITED (1u << 31)
void counter_inc(struct counter *c);
/* The last touch of c by this thread: the waiter may free it. */
void counter_dec(struct counter *c);
void counter_wait(struct counter *c); /* until 0 */

/* ---- call.c: tasks ---------------------------------------------------------- */

/* What a call thread shall run. A class leaves one thread more than the one before. */
enum task_class {
	TASK_URGENT, /* around a fork */
	TASK_QUICK,
	TASK_SLOW, /* may wait for devices, or move much */
	TASK_CLASSES,
};
struct task {
	struct task *next;
	void (*run)(struct task *task);
	enum task_class class;
};
struct task_fifo {
	struct task *first, *last;
};
/* Has run(task) called by a call thread. Any context. */
void task_post(struct gpusvm *svm, struct task *task, enum task_class class,
	       void (*run)(struct task *));
/* Lists that anyone pushes on, and that are taken whole, in the order of pushing. */
void task_push(struct task **list, struct task *task);
struct task *task_take_all(struct task **list);
/* Lists of one owner. */
void fifo_append(struct task_fifo *fifo, struct task *task);
struct task *fifo_pop(struct task_fifo *fifo);

/* ---- event.c --------------------------------------------------------------
 * An event is one call or one piece of work, from the application's thread
 * that fills it in to the last put. References are its fence's: one is the
 * application's, one the library's from posting to completion.
 */
enum event_state { EVENT_PENDING, EVENT_WAITED, EVENT_DONE };
enum event_kind {
	EVENT_CALL,    /* of gpusvm or of a queue: call(event) gives the result */
	EVENT_JOB,     /* of a queue: the device does it */
	EVENT_DESTROY, /* of a queue, the last */
};

struct gpusvm_event {
	struct gpusvm_fence fence;
	struct gpusvm_fence_callback callback;
	struct gpusvm *svm;
	struct task task; /* in a list: pool, calls or queue */
	u32 state;	  /* enum event_state; a futex */
	int result;	  /* good when state is EVENT_DONE */
	enum event_kind kind;
	int (*call)(struct gpusvm_event *event);
	struct gpusvm_queue *queue; /* work; good until completion. Or NULL */
	int device;		    /* work: for gpusvm_event_fault */
	struct gpusvm_job job;
	struct gpusvm_event *wait_for; /* work: held until completion, or NULL */
	void *buffer;		       /* freed with it */
	union {
		unsigned char bytes[EVENT_BYTES] __attribute__((aligned(16)));
		struct {
			u64 start, end;
			int where;
			bool strict;
			struct gpusvm_migrate_result result;
		} prefetch;
		struct {
			u64 start, end;
			bool read_only;
		} bind;
		struct {
			u64 start, end;
		} discard;
		struct {
			u64 start, end;
			enum gpusvm_advice advice;
			int location; /* the driver's */
			s64 value;
		} advice;
		struct {
			u64 start, n; /* pages; the answer is in buffer */
		} residency;
		struct gpusvm_driver_stats stats;
		struct gpusvm_device_caps device_caps;
		struct gpusvm_soft_options device_add;
		struct {
			int from, to;
			bool down;
			struct gpusvm_interconnect_link link;
		} link;
		struct gpusvm_queue *queue;
		size_t size;
		void *p;
	} u;
};

struct event_slab;
struct event_pool {
	struct host_mutex lock;	  /* the application's world */
	struct task *free;	  /* by lock */
	struct task *returned;	  /* pushed by anyone, taken whole */
	struct task *trash;	  /* the same, with buffers to be freed */
	struct event_slab *slabs; /* by the call for more, one at a time */
};

int pool_init(struct gpusvm *svm); /* -ENOMEM */
void pool_fini(struct gpusvm *svm);
/* Frees the buffers of events that are not used any more. Library's world. */
void pool_clean(struct gpusvm *svm);

/* All zero but svm, with one reference; or NULL. Application's world. */
struct gpusvm_event *event_new(struct gpusvm *svm);
void event_put(struct gpusvm_event *event);
/* Waits for ever, then gives the result. */
int event_result(struct gpusvm_event *event);
/* For what must not fail: waits until there is one. */
struct gpusvm_event *event_new_wait(struct gpusvm *svm);
/* event_result, then the reference is put. */
int event_finish(struct gpusvm_event *event);
/* Prepares completion: from now on signalling the fence completes the event.
 * Library's world. */
void event_arm(struct gpusvm_event *event);
void event_complete(struct gpusvm_event *event, int result);

/* ---- call.c: calls ---------------------------------------------------------- */
struct calls {
	struct task *posted; /* by anyone */
	u32 seq;	     /* changes with each; a futex */
	u32 sleepers;	     /* threads; those that linger are none yet */
	u32 lingering;
	u32 stop;
	struct counter outstanding; /* calls, from posting to completion */
	/* The library's world only, by lock (RANK_RUNTIME). */
	struct host_mutex lock;
	struct task_fifo waiting[TASK_CLASSES];
	u32 busy[TASK_CLASSES]; /* threads */
	struct host_thread threads[CALL_THREADS];
};

int calls_start(struct gpusvm *svm); /* -ENOMEM, -EAGAIN */
void calls_stop(struct gpusvm *svm); /* after what was posted is done */
void calls_kick(struct gpusvm *svm); /* have a thread run pool_clean */
/* Has fn(event) run by a thread of the library; its value is the event's result.
 * Does not wait. */
void call_post(struct gpusvm_event *event, int (*fn)(struct gpusvm_event *), enum task_class class);
/* The same, and waits. The caller still holds the event. */
int call(struct gpusvm_event *event, int (*fn)(struct gpusvm_event *), enum task_class class);

/* ---- queue.c -------------------------------------------------------------- */
struct gpusvm_queue {
	struct gpusvm *svm;
	struct gpusvm_queue *next, *prev; /* svm->queues, by svm->lock */
	int device;
	struct gpusvm_driver_queue *driver;
	struct task *posted;
	u32 fed;     /* see queue.c */
	u32 ended;   /* a fatal access, or the work after it */
	u32 running; /* work given to the device */
	struct task task;
	struct task_fifo pending; /* the feeding task's */
};

/* 0, or why this queue takes no work any more: -EINVAL, -ENODEV. */
int queue_check(const struct gpusvm_queue *queue);
/* Posts work: event->job, or event->call for what the driver does. */
void queue_post(struct gpusvm_queue *queue, struct gpusvm_event *event, enum event_kind kind);
/* A job is complete. The last touch of the queue. Any context. */
void queue_work_done(struct gpusvm_queue *queue);

/* ---- memory.c ------------------------------------------------------------- */
/* [p, p + len) rounded outward to pages; -EINVAL when it wraps around. */
int interval_outward(const void *p, size_t len, u64 *start, u64 *end);
struct gpusvm_location location_of(int where); /* the driver's */
/* The other way: -EINVAL, -ENODEV. */
int location_check(struct gpusvm *svm, struct gpusvm_location where, int *ret);
/* Checks, and fills in event->u.prefetch. queue: NULL, or where LOCATION_FAULTING is. */
int prefetch_prepare(struct gpusvm_event *event, const struct gpusvm_queue *queue, const void *p,
		     size_t len, struct gpusvm_location where, unsigned flags);
int prefetch_call(struct gpusvm_event *event); /* library's world */

/* ---- stats.c -------------------------------------------------------------- */
struct event_ring {
	struct gpusvm_event_record *records;
	u64 n;
	u64 head;		     /* records written; by lock, read by readers */
	u64 tail;		     /* records taken; by read_lock, read by writers */
	u64 lost;		     /* number << 32 | (u32)head where they are missing; 0: none */
	u64 lost_time;		     /* end of the first of them */
	u64 last_end;		     /* by lock */
	struct host_mutex lock;	     /* RANK_LEAF: writers, the library's world */
	struct host_mutex read_lock; /* the application's world */
};
int ring_init(struct event_ring *ring, size_t n); /* -ENOMEM; n 0: off */
void ring_fini(struct event_ring *ring);
void ring_event(void *arg, const struct gpusvm_driver_event *event);

/* ---- open.c --------------------------------------------------------------- */
struct gpusvm {
	u32 count;    /* opens; by the lock of open.c */
	u32 in_child; /* a forked copy, in this mapping of the parent's arena */
	void *copy;
	size_t copy_size;
	struct mm *mm;
	struct gpusvm_driver *driver;
	u32 n_devices; /* indices given; atomic */
	u64 bound;     /* mask of those not unbound; atomic */
	struct calls calls;
	struct event_pool pool;
	struct event_ring ring;
	struct gpusvm_fence past;	    /* signalled */
	u64 caps;			    /* GPUSVM_CAP_* */
	bool has_pool, has_work, has_calls; /* for closing */

	/* One device is added at a time, by a thread of the application that lends itself:
	 * see plug.c. */
	struct host_mutex bind_lock;
	struct lender {
		u32 state; /* a futex */
		int (*create)(void *arg);
		void *arg;
		int result;
	} lender;

	struct host_mutex fd_lock; /* the application's world */
	struct fd_entry *fds;

	/* The application's world: the queues, and whether a fork may pause the
	 * driver; held from a fork's beginning to its end. */
	struct host_mutex lock;
	struct gpusvm_queue *queues;
	struct gpusvm_queue *dead; /* destroyed, not freed: a stack by atomics */
	bool running;		   /* between opening and closing */
	bool paused;
	bool left_behind; /* a child would lack what is on devices */
};

/* 0, -EINVAL for NULL, -ENODEV in a child. */
int svm_check(const struct gpusvm *svm);
/* 0, -EINVAL for an index never given, -ENODEV for one unbound. */
int device_check(struct gpusvm *svm, int device);
/* Both checks, and an event for a call about the device, to be put. all: -1 stands for
 * all devices. -ENOMEM. */
int device_event(struct gpusvm *svm, int device, bool all, struct gpusvm_event **ret);
/* Copies a caller's struct with its size first: what it lacks is zero. -EINVAL:
 * size is none, or there is something in the part that is not known. */
int struct_in(void *dst, size_t known, const void *src);
/* For a struct to be filled: the same checks; then the fill. */
int struct_out_check(const void *dst, size_t known);
void struct_out(void *dst, const void *src, size_t known);

/* ---- queue.c: frees destroyed queues. Not on a thread of the application while
 * pages are on devices. */
void queues_free_dead(struct gpusvm *svm);

/* ---- device.c, plug.c, fork.c --------------------------------------------- */
/* One device of the options. 0 or what gpusvm_open gives. */
int device_desc_parse(const struct gpusvm_device_desc *desc, struct gpusvm_soft_options *ret);
int device_add(struct gpusvm *svm, const struct gpusvm_soft_options *options);
/* -EINVAL. */
int link_parse(const struct gpusvm_link *link, struct gpusvm_interconnect_link *ret);

/* ---- fd.c: the application's world ---------------------------------------- */
/* What a descriptor stands for. -ENODEV: nothing, or its device is unbound. */
int fd_device(struct gpusvm *svm, int fd, int *ret);
/* A device (-1: all) is gone: its descriptors are dead. */
void fds_forget(struct gpusvm *svm, int device);
void fds_child(struct gpusvm *svm); /* in a forked child: no locks */

/* Hooks of the home; arg is the handle. */
void fork_prepare(void *arg);
void fork_frozen(void *arg);
void fork_parent(void *arg);
void fork_child(void *arg);

#endif
