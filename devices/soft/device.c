/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * device.c: the device as a whole: creation and end, stop and pause, memory.
 *
 * Locking: memory_lock for the allocator; pause_lock for the count of pauses. stop
 * sets one word, then wakes everyone who may wait: each wait of the device has
 * that word in its condition.
 */
#include "devices/soft/internal.h"

#define KNOWN_FLAGS                                                                                \
	((u64)(GPUSVM_DEVICE_NO_FAULT | GPUSVM_DEVICE_NO_VRAM | GPUSVM_DEVICE_ZERO_COPY |          \
	       GPUSVM_DEVICE_COHERENT))
#define WORKING_FLAGS                                                                              \
	((u64)(GPUSVM_DEVICE_NO_FAULT | GPUSVM_DEVICE_NO_VRAM | GPUSVM_DEVICE_ZERO_COPY))

/* ---- Memory ------------------------------------------------------------------------- */

static int memory_alloc(struct gpusvm_device *device, unsigned order, u64 *ret)
{
	struct soft_device *dev = to_soft(device);
	int err;

	if (!dev->vram || order > dev->buddy.max_order)
		return -ENOSPC;
	host_mutex_lock(&dev->memory_lock);
	err = soft_buddy_alloc(&dev->buddy, order, ret);
	host_mutex_unlock(&dev->memory_lock);
	return err;
}

static void memory_free(struct gpusvm_device *device, u64 frame, unsigned order)
{
	struct soft_device *dev = to_soft(device);

	host_mutex_lock(&dev->memory_lock);
	soft_buddy_free(&dev->buddy, frame, order);
	host_mutex_unlock(&dev->memory_lock);
}

static void *memory_base(struct gpusvm_device *device)
{
	return to_soft(device)->vram;
}

static u64 memory_free_bytes(struct gpusvm_device *device)
{
	struct soft_device *dev = to_soft(device);
	u64 frames;

	host_mutex_lock(&dev->memory_lock);
	frames = dev->buddy.free;
	host_mutex_unlock(&dev->memory_lock);
	return frames << HOST_PAGE_SHIFT;
}

static void memory_read(struct gpusvm_device *device, u64 frame, void *buffer)
{
	host_memcpy(buffer, gpusvm_soft_memory(device, frame), HOST_PAGE_SIZE);
}

void *gpusvm_soft_memory(struct gpusvm_device *device, u64 frame)
{
	return to_soft(device)->vram + (frame << HOST_PAGE_SHIFT);
}

/* ---- Stop and pause ------------------------------------------------------------------- */

/* None yet where creation failed early. */
static u32 n_lanes(const struct soft_device *dev)
{
	return dev->lanes ? dev->base.caps.lanes : 0;
}

static void attract_all(struct soft_device *dev, u32 attend)
{
	u32 i;

	for (i = 0; i < n_lanes(dev); i++)
		soft_lane_attract(&dev->lanes[i], attend);
}

static void soft_stop(struct gpusvm_device *device, bool rescue)
{
	struct soft_device *dev = to_soft(device);
	u32 i;

	host_store_seq(&dev->stopped, 1);
	attract_all(dev, SOFT_ATTEND_STOP);
	for (i = 0; i < n_lanes(dev); i++)
		host_wake_all(&dev->lanes[i].waitq);
	host_wake_all(&dev->faults.space_wq);
	host_wake_all(&dev->pause_wq);
	soft_engine_stop(dev);
	soft_copier_stop(dev, rescue);
}

static bool all_closed(struct soft_device *dev)
{
	u32 i;

	for (i = 0; i < dev->base.caps.lanes; i++)
		if (host_load_seq(&dev->lanes[i].marker[0]) ||
		    host_load_seq(&dev->lanes[i].marker[1]))
			return false;
	return true;
}

static void soft_pause(struct gpusvm_device *device)
{
	struct soft_device *dev = to_soft(device);

	host_mutex_lock(&dev->pause_lock);
	if (dev->paused++ == 0)
		attract_all(dev, SOFT_ATTEND_PAUSE);
	host_mutex_unlock(&dev->pause_lock);
	/* A lane that publishes an access looks at attention afterwards, and closes it
	 * again: once closed, they stay so. */
	host_wait(&dev->drain_wq, all_closed(dev));
}

static void soft_resume(struct gpusvm_device *device)
{
	struct soft_device *dev = to_soft(device);
	u32 i;

	host_mutex_lock(&dev->pause_lock);
	HOST_CHECK(dev->paused > 0);
	if (--dev->paused == 0)
		for (i = 0; i < dev->base.caps.lanes; i++)
			host_fetch_and(&dev->lanes[i].attention, ~(u32)SOFT_ATTEND_PAUSE);
	host_mutex_unlock(&dev->pause_lock);
	host_wake_all(&dev->pause_wq);
}

/* ---- Figures and misbehaviour ----------------------------------------------------------- */

static void soft_stats(struct gpusvm_device *device, struct gpusvm_device_stats *ret)
{
	struct soft_device *dev = to_soft(device);

	*ret = (struct gpusvm_device_stats){
	    .faults = host_read_once(&dev->faults.raised),
	    .faults_replayed = host_read_once(&dev->faults.replayed),
	    .faults_dropped_queue_full = host_read_once(&dev->faults.full),
	    .tlb_flushes = host_read_once(&dev->flushes),
	    .bytes_copied = host_read_once(&dev->copier.bytes),
	};
}

void gpusvm_soft_counters(struct gpusvm_device *device, struct gpusvm_soft_counters *ret)
{
	struct soft_device *dev = to_soft(device);
	u32 i;

	*ret = (struct gpusvm_soft_counters){.flush_waits = host_read_once(&dev->flush_waits)};
	for (i = 0; i < dev->base.caps.lanes; i++)
		ret->walks += host_read_once(&dev->lanes[i].walks);
	for (i = 0; i < GPUSVM_SOFT_MISBEHAVIOURS; i++)
		ret->misbehaved[i] = host_read_once(&dev->misbehaved[i]);
}

void gpusvm_soft_misbehave(struct gpusvm_device *device, enum gpusvm_soft_misbehaviour which, u64 n)
{
	host_store_seq(&to_soft(device)->misbehave[which], n);
}

bool soft_misbehaves(struct soft_device *dev, enum gpusvm_soft_misbehaviour which)
{
	u64 n = host_read_once(&dev->misbehave[which]);

	while (n) {
		if (!host_cas(&dev->misbehave[which], &n, n - 1))
			continue;
		if (n == 1)
			host_add_relaxed(&dev->misbehaved[which], 1);
		return n == 1;
	}
	return false;
}

/* ---- Life --------------------------------------------------------------------------------- */

static void free_lanes(struct soft_device *dev)
{
	u32 i;

	for (i = 0; i < n_lanes(dev); i++) {
		host_thread_join(&dev->lanes[i].thread);
		host_waitq_destroy(&dev->lanes[i].waitq);
		host_free(dev->lanes[i].bounce);
	}
	host_free(dev->lanes);
}

/* Undoes as much as was done: what was not is zero. */
static void soft_destroy(struct gpusvm_device *device)
{
	struct soft_device *dev = to_soft(device);

	HOST_CHECK(dev->n_queues == 0 && dev->n_vms == 0);
	soft_stop(device, false);
	soft_engine_exit(dev);
	free_lanes(dev);
	soft_copier_fini(dev);
	soft_engine_fini(&dev->engine);
	soft_faults_fini(&dev->faults);
	host_waitq_destroy(&dev->pause_wq);
	host_waitq_destroy(&dev->drain_wq);
	host_mutex_destroy(&dev->pause_lock);
	host_mutex_destroy(&dev->memory_lock);
	if (dev->vram) {
		soft_buddy_fini(&dev->buddy);
		host_free_pages(dev->vram, dev->base.caps.vram_bytes);
	}
	host_free(dev);
}

static const struct gpusvm_device_ops soft_ops = {
    .version = GPUSVM_DEVICE_VERSION,
    .destroy = soft_destroy,
    .stop = soft_stop,
    .pause = soft_pause,
    .resume = soft_resume,
    .memory_alloc = memory_alloc,
    .memory_free = memory_free,
    .memory_base = memory_base,
    .memory_free_bytes = memory_free_bytes,
    .memory_read = memory_read,
    .copy = soft_copy,
    .peer_attach = soft_peer_attach,
    .peer_detach = soft_peer_detach,
    .vm_create = soft_vm_create,
    .vm_destroy = soft_vm_destroy,
    .vm_token = soft_vm_token,
    .vm_prepare = soft_vm_prepare,
    .vm_map = soft_vm_map,
    .vm_unmap = soft_vm_unmap,
    .vm_flush_begin = soft_vm_flush_begin,
    .vm_flush_wait = soft_vm_flush_wait,
    .vm_query = soft_vm_query,
    .vm_preempt = soft_vm_preempt,
    .vm_resume = soft_vm_resume,
    .vm_held = soft_vm_held,
    .fault_pop = soft_fault_pop,
    .fault_done = soft_fault_done,
    .queue_create = soft_queue_create,
    .queue_destroy = soft_queue_destroy,
    .queue_submit = soft_queue_submit,
#ifndef __KERNEL__
    .lane_access = soft_lane_access,
    .lane_access2 = soft_lane_access2,
    .lane_fail = soft_lane_fail,
#endif
    .lane_end = soft_lane_close,
    .stats = soft_stats,
};

static void fill_caps(struct gpusvm_device_caps *caps, const struct gpusvm_soft_options *options)
{
	const char *name = options->name ? options->name : "soft";
	u32 entries = options->fault_entries ? options->fault_entries : 64;
	unsigned i;

	for (i = 0; i < sizeof(caps->name) - 1 && name[i]; i++)
		caps->name[i] = name[i];
	if (!(options->flags & GPUSVM_DEVICE_NO_VRAM))
		caps->vram_bytes = host_align_up(options->vram_bytes, HOST_HUGE_SIZE);
	caps->lanes = options->lanes ? options->lanes : 2;
	caps->copy_engines = options->copy_engines ? options->copy_engines : 2;
	caps->flags = options->flags;
	caps->system_atomics = !options->no_system_atomics;
	caps->leaf_orders = 1u | 1u << SOFT_ORDER_64K | 1u << HOST_HUGE_ORDER;
	if (options->leaf_orders)
		caps->leaf_orders &= options->leaf_orders | 1u;
	for (caps->fault_entries = 1; caps->fault_entries < entries;)
		caps->fault_entries *= 2;
}

/* What cannot fail. */
static void init_parts(struct soft_device *dev)
{
	host_mutex_init(&dev->memory_lock, RANK_DEVICE_MEMORY);
	host_mutex_init(&dev->pause_lock, RANK_DEVICE_QUEUE);
	host_waitq_init(&dev->pause_wq);
	host_waitq_init(&dev->drain_wq);
	soft_engine_init(&dev->engine);
	soft_faults_init(&dev->faults);
	soft_copier_init(dev);
}

static int create_memory(struct soft_device *dev)
{
	u64 bytes = dev->base.caps.vram_bytes;
	u8 *vram;
	int err;

	if (!bytes)
		return 0;
	vram = host_alloc_pages(bytes);
	if (!vram)
		return -ENOMEM;
	err = soft_buddy_init(&dev->buddy, bytes >> HOST_PAGE_SHIFT);
	if (err)
		host_free_pages(vram, bytes);
	else
		dev->vram = vram;
	return err;
}

static int create_lanes(struct soft_device *dev)
{
	u32 n = dev->base.caps.lanes;
	u32 i;
	int err;

	dev->lanes = host_alloc_zeroed(n * sizeof(*dev->lanes));
	if (!dev->lanes)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		dev->lanes[i].head.device = &dev->base;
		dev->lanes[i].dev = dev;
		dev->lanes[i].index = i;
		host_waitq_init(&dev->lanes[i].waitq);
	}
	for (i = 0; i < n; i++) {
		dev->lanes[i].bounce = host_alloc(SOFT_BOUNCE);
		if (!dev->lanes[i].bounce)
			return -ENOMEM;
	}
	for (i = 0; i < n; i++) {
		err = host_thread_start(&dev->lanes[i].thread, "soft-lane", soft_lane_main,
					&dev->lanes[i]);
		if (err)
			return err;
	}
	return 0;
}

int gpusvm_soft_create(const struct gpusvm_soft_options *options, struct gpusvm_device **ret)
{
	struct soft_device *dev;
	int err;

	if (options->flags & ~KNOWN_FLAGS || options->lanes > SOFT_LANES ||
	    options->copy_engines > SOFT_COPY_ENGINES ||
	    options->fault_entries > SOFT_FAULT_ENTRIES)
		return -EINVAL;
	if (options->flags & ~WORKING_FLAGS)
		return -EOPNOTSUPP;
	dev = host_alloc_zeroed(sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->base.ops = &soft_ops;
	dev->flush_latency = options->flush_latency;
	fill_caps(&dev->base.caps, options);
	init_parts(dev);
	err = create_memory(dev);
	if (!err)
		err = soft_faults_start(&dev->faults, dev->base.caps.fault_entries);
	if (!err)
		err = create_lanes(dev);
	if (!err)
		err = soft_copier_start(dev, dev->base.caps.copy_engines);
	if (err) {
		soft_destroy(&dev->base);
		return err;
	}
	*ret = &dev->base;
	return 0;
}
