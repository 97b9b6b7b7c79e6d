/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fault.c: the fault queue, and a lane's wait for its answer.
 *
 * The ring is under faults->lock. The answer is one word of the lane: the id of
 * the fault it waits for and, above it, PENDING or the result. fault_done()
 * changes it by compare and exchange from exactly "this id, PENDING": a late,
 * repeated or stale answer finds another word and does nothing, so that no lane
 * is ever released by an answer that was not for it.
 */
#include "devices/soft/internal.h"

#define PENDING 1u
#define DELAY (2 * HOST_MSEC)

static u64 fault_word(u32 id, u32 state)
{
	return (u64)state << 32 | id;
}

void soft_faults_init(struct soft_faults *faults)
{
	host_mutex_init(&faults->lock, RANK_DEVICE_QUEUE);
	host_waitq_init(&faults->space_wq);
}

int soft_faults_start(struct soft_faults *faults, u32 entries)
{
	faults->ring = host_alloc(entries * sizeof(*faults->ring));
	faults->mask = entries - 1;
	return faults->ring ? 0 : -ENOMEM;
}

void soft_faults_fini(struct soft_faults *faults)
{
	host_mutex_destroy(&faults->lock);
	host_waitq_destroy(&faults->space_wq);
	host_free(faults->ring);
}

static bool ring_full(struct soft_faults *faults)
{
	u32 tail = host_load_acquire(&faults->tail), head = host_load_acquire(&faults->head);

	return tail - head > faults->mask;
}

/* True unless it is full. */
static bool ring_push(struct soft_faults *faults, const struct gpusvm_device_fault *fault)
{
	bool pushed = false;

	host_mutex_lock(&faults->lock);
	if (!ring_full(faults)) {
		faults->ring[faults->tail & faults->mask] = *fault;
		host_store_release(&faults->tail, faults->tail + 1);
		pushed = true;
	}
	host_mutex_unlock(&faults->lock);
	return pushed;
}

bool soft_fault_pop(struct gpusvm_device *device, struct gpusvm_device_fault *ret)
{
	struct soft_faults *faults = &to_soft(device)->faults;
	bool any;

	host_mutex_lock(&faults->lock);
	any = faults->head != faults->tail;
	if (any) {
		*ret = faults->ring[faults->head & faults->mask];
		host_store_release(&faults->head, faults->head + 1);
	}
	host_mutex_unlock(&faults->lock);
	if (any)
		host_wake_all(&faults->space_wq);
	return any;
}

void soft_faults_forget(struct soft_faults *faults, const struct gpusvm_device_queue *queue)
{
	u32 from, to;

	host_mutex_lock(&faults->lock);
	for (from = to = faults->head; from != faults->tail; from++) {
		struct gpusvm_device_fault *fault = &faults->ring[from & faults->mask];

		if (fault->queue != queue)
			faults->ring[to++ & faults->mask] = *fault;
	}
	host_store_release(&faults->tail, to);
	host_mutex_unlock(&faults->lock);
	host_wake_all(&faults->space_wq);
}

void soft_fault_done(struct gpusvm_device *device, const struct gpusvm_device_fault *fault,
		     int result)
{
	struct soft_device *dev = to_soft(device);
	u64 expected = fault_word(fault->id, PENDING);
	struct gpusvm_lane *lane = &dev->lanes[fault->id % SOFT_LANES];

	HOST_CHECK(fault->id % SOFT_LANES < dev->base.caps.lanes && result <= 0);
	if (!host_cas(&lane->fault_word, &expected, fault_word(fault->id, (u32)result)))
		return;
	if (result == 0)
		host_add_relaxed(&dev->faults.replayed, 1);
	host_wake_all(&lane->waitq);
}

static bool answered(struct gpusvm_lane *lane)
{
	return host_load_seq(&lane->fault_word) >> 32 != PENDING || soft_stopped(lane->dev);
}

/* False: the device was stopped while the queue was full. */
static bool enqueue(struct soft_device *dev, const struct gpusvm_device_fault *fault)
{
	struct soft_faults *faults = &dev->faults;
	bool waited = false;

	while (!ring_push(faults, fault)) {
		if (!waited)
			host_add_relaxed(&faults->full, 1);
		waited = true;
		host_wait(&faults->space_wq, !ring_full(faults) || soft_stopped(dev));
		if (soft_stopped(dev))
			return false;
	}
	host_add_relaxed(&faults->raised, 1);
	if (host_unlikely(soft_misbehaves(dev, GPUSVM_SOFT_DUPLICATE_FAULT)))
		(void)ring_push(faults, fault); /* as good as none when it is full */
	return true;
}

static void notify(struct soft_device *dev)
{
	const struct gpusvm_device_listener *listener = &dev->base.listener;

	if (host_unlikely(soft_misbehaves(dev, GPUSVM_SOFT_DROP_FAULT)))
		return;
	if (host_unlikely(soft_misbehaves(dev, GPUSVM_SOFT_DELAY_FAULT)))
		host_sleep(DELAY);
	if (listener->fault)
		listener->fault(listener->driver, &dev->base);
}

int soft_fault_raise(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access)
{
	struct soft_device *dev = lane->dev;
	struct gpusvm_device_fault fault = {
	    .vm = lane->vm,
	    .queue = lane->queue,
	    .address = va,
	    .length = lane->wanted,
	    .access = access,
	    .id = ++lane->fault_seq * SOFT_LANES + lane->index,
	    .time = host_now(),
	};
	u64 word;
	u32 spin;

	host_store_seq(&lane->fault_word, fault_word(fault.id, PENDING));
	if (enqueue(dev, &fault)) {
		notify(dev);
		for (spin = 0; spin < SOFT_SPIN && !answered(lane); spin++)
			host_relax();
		host_wait(&lane->waitq, answered(lane));
	}
	word = host_xchg(&lane->fault_word, 0);
	return word >> 32 == PENDING ? -ENODEV : (int)(s32)(word >> 32);
}
