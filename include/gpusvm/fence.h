/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * <gpusvm/fence.h>: a promise that some work will be done, with its result.
 *
 * A fence is signalled once. Devices signal them, drivers wait for them or
 * hang callbacks on them, queues order themselves by them. Counted; whoever
 * will signal one holds a reference. Linux: struct dma_fence.
 */
#ifndef GPUSVM_FENCE_H
#define GPUSVM_FENCE_H

#include "host/host.h"

struct gpusvm_fence;
struct gpusvm_fence_callback {
	/* Context: on the signaller's thread, no lock held but the signaller's of
	 * ranks below RANK_DEVICE_QUEUE (a callback may take that: a queue that waited
	 * goes on); must not sleep. */
	void (*fn)(struct gpusvm_fence *fence, struct gpusvm_fence_callback *cb);
	struct gpusvm_fence_callback *next;
};

struct gpusvm_fence {
	struct host_ref ref;
	u32 signalled; /* 0, then 1 for ever; release store after result */
	int result;    /* 0 or negative errno; good once signalled */
	struct host_mutex lock; /* RANK_FENCE: callbacks */
	struct gpusvm_fence_callback *callbacks;
	struct host_waitq waitq;
	void (*release)(struct gpusvm_fence *fence); /* last put: frees the container */
};

/* Embeds: release frees the containing object. NULL: a fence on a stack, or in
 * what has a life of its own; its owner ends it by gpusvm_fence_fini, before the
 * memory is used for anything else. If nobody takes a reference to it, a
 * gpusvm_fence_wait that returned 0 is enough. */
void gpusvm_fence_init(struct gpusvm_fence *fence, void (*release)(struct gpusvm_fence *));
/* Stand-alone, one reference. NULL: no memory. */
struct gpusvm_fence *gpusvm_fence_create(void);
struct gpusvm_fence *gpusvm_fence_get(struct gpusvm_fence *fence); /* NULL-safe */
void gpusvm_fence_put(struct gpusvm_fence *fence);		    /* NULL-safe */
/* Only without release: waits until every reference but the owner's is put, and
 * ends the fence. The owner does not put its own. May sleep. */
void gpusvm_fence_fini(struct gpusvm_fence *fence);
/* Result is 0 or negative errno. A second signal is ignored. Wakes waiters,
 * then runs the callbacks. Does not sleep. */
void gpusvm_fence_signal(struct gpusvm_fence *fence, int result);
bool gpusvm_fence_signalled(const struct gpusvm_fence *fence);
/* 0: signalled, and *result (may be NULL) is set. -ETIME at deadline (host
 * clock; HOST_FOREVER: none). May sleep. */
int gpusvm_fence_wait(struct gpusvm_fence *fence, u64 deadline, int *result);
/* 0: cb->fn will be called once. -ENOENT: already signalled, it will not. */
int gpusvm_fence_add_callback(struct gpusvm_fence *fence, struct gpusvm_fence_callback *cb,
			      void (*fn)(struct gpusvm_fence *, struct gpusvm_fence_callback *));

#endif
