/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * vm.c: the driver of one address space, and the devices that come and go.
 *
 * A device has one vm (page table) here, since all its queues work in one
 * address space. Life of a struct driver_device:
 *   added     the table holds `alive`, and the device's pagemap while it is active
 *   removed   no new work; its data went home, its mappings are gone; the table's
 *             `alive` is dropped
 *   torn down the last `alive` is gone (queues, calls, whoever held its pagemap):
 *             a work item destroys vm, pagemap and device
 *   freed     with the driver; an index is never given twice
 *
 * Locking: driver->lock guards the table while it grows. Readers need no lock:
 * n_devices is stored after the entry (release), and entries are never changed.
 */
#include "driver/private.h"

#define DRIVER_WINDOW_END ((u64)1 << 48)
#define DRIVER_NOTIFIER_SIZE ((u64)512 << 20)
#define DRIVER_WORKERS 2u

static const u64 driver_chunk_sizes[] = { HOST_HUGE_SIZE, HOST_PAGE_SIZE << 4, HOST_PAGE_SIZE };

int gpusvm_driver_create(struct mm *mm, const struct gpusvm_driver_options *options,
			 struct gpusvm_driver **ret)
{
	struct gpusvm_driver *driver = host_alloc_zeroed(sizeof(*driver));
	int err;

	if (!driver)
		return -ENOMEM;
	driver->mm = mm;
	driver->options = *options;
	if (!driver->options.workers)
		driver->options.workers = DRIVER_WORKERS;
	host_mutex_init(&driver->lock, RANK_DRIVER_VM);
	host_mutex_init(&driver->stats_lock, RANK_DRIVER_VM);
	host_mutex_init(&driver->links_lock, RANK_DRIVER_LINKS);
	gpusvm_interconnect_init(&driver->links);
	driver_garbage_init(driver);
	driver_advice_init(driver);
	driver_remap_init(driver);

	err = gpusvm_mirror_init(&driver->mirror, "driver", mm, 0, DRIVER_WINDOW_END,
				 DRIVER_NOTIFIER_SIZE, &driver_mirror_ops, driver_chunk_sizes,
				 host_array_size(driver_chunk_sizes));
	if (err)
		goto free;
	err = driver_fault_init(driver);
	if (err)
		goto mirror;
	*ret = driver;
	return 0;

mirror:
	gpusvm_mirror_fini(&driver->mirror);
free:
	driver_remap_fini(driver);
	driver_advice_fini(driver);
	driver_garbage_fini(driver);
	gpusvm_interconnect_fini(&driver->links);
	host_mutex_destroy(&driver->links_lock);
	host_mutex_destroy(&driver->stats_lock);
	host_mutex_destroy(&driver->lock);
	host_free(driver);
	return err;
}

/* The last user of a removed device is gone. */
static void device_teardown(struct host_work *work)
{
	struct driver_device *dd = host_container_of(work, struct driver_device, teardown);

	if (dd->vm)
		dd->ops->vm_destroy(dd->vm);
	driver_memory_fini(dd);
	dd->ops->destroy(dd->device);
	host_store_release(&dd->torn_down, 1);
}

int driver_device_get(struct gpusvm_driver *driver, int index, struct driver_device **ret)
{
	struct driver_device *dd;

	if (index < 0 || (u32)index >= host_load_acquire(&driver->n_devices))
		return -EINVAL;
	dd = driver->devices[index];
	if (driver_removed(dd) || !host_ref_get_unless_zero(&dd->alive))
		return -ENODEV;
	*ret = dd;
	return 0;
}

void driver_device_put(struct driver_device *dd)
{
	if (host_ref_put(&dd->alive))
		host_work_queue(&dd->teardown);
}

u64 driver_devices_get(struct gpusvm_driver *driver)
{
	int n = (int)gpusvm_driver_device_count(driver), i;
	struct driver_device *dd;
	u64 mask = 0;

	for (i = 0; i < n; i++)
		if (!driver_device_get(driver, i, &dd))
			mask |= (u64)1 << i;
	return mask;
}

/* Those that were removed, too, as long as they are there: a lane may be on its way out. */
static u64 devices_get_all(struct gpusvm_driver *driver)
{
	int n = (int)gpusvm_driver_device_count(driver), i;
	u64 mask = 0;

	for (i = 0; i < n; i++)
		if (host_ref_get_unless_zero(&driver->devices[i]->alive))
			mask |= (u64)1 << i;
	return mask;
}

void driver_devices_put(struct gpusvm_driver *driver, u64 mask)
{
	for (; mask; mask &= mask - 1)
		driver_device_put(driver->devices[__builtin_ctzll(mask)]);
}

/* The end of a device that no one should use any more: frees dd. The last user
 * may still be on its way out: a CPU fault that was served, say, lets go of the
 * page's devmem only after the page is home. */
static bool device_free(struct driver_device *dd)
{
	u64 deadline = host_now() + 10 * HOST_SEC;

	while (!host_load_acquire(&dd->torn_down) && host_now() < deadline)
		host_sleep(HOST_MSEC / 10);
	/* Something still holds its pagemap, that is frames: leaked, not freed
	 * under its user. */
	if (HOST_WARN_ON(!host_load_acquire(&dd->torn_down)))
		return false;
	host_work_flush(&dd->teardown); /* it may be in its last lines */
	gpusvm_interval_tree_fini(&dd->bound);
	host_free(dd);
	return true;
}

/* Makes the table take it; index and pause state come with it. */
static int device_publish(struct gpusvm_driver *driver, struct driver_device *dd)
{
	u32 i;

	host_mutex_lock(&driver->lock);
	if (driver->n_devices == GPUSVM_DRIVER_DEVICES) {
		host_mutex_unlock(&driver->lock);
		return -ENOSPC;
	}
	for (i = 0; i < driver->paused; i++)
		dd->ops->pause(dd->device);
	dd->index = (int)driver->n_devices;
	driver->devices[driver->n_devices] = dd;
	host_store_release(&driver->n_devices, driver->n_devices + 1);
	host_mutex_unlock(&driver->lock);
	return dd->index;
}

int gpusvm_driver_device_add(struct gpusvm_driver *driver, struct gpusvm_device *device)
{
	struct driver_device *dd = host_alloc_zeroed(sizeof(*dd));
	struct mm_caps caps;
	int err;

	if (!dd) {
		device->ops->destroy(device);
		return -ENOMEM;
	}
	dd->driver = driver;
	dd->device = device;
	dd->ops = device->ops;
	mm_caps_get(driver->mm, &caps);
	dd->no_dma = device->caps.flags & GPUSVM_DEVICE_NO_VRAM && caps.flags & MM_CAP_NO_DMA;
	host_ref_init(&dd->alive);
	host_work_init(&dd->teardown, device_teardown);
	gpusvm_interval_tree_init(&dd->bound);
	driver_rebind_init(dd);
	device->listener.fault = driver_fault;
	device->listener.driver = dd;

	if (dd->ops->version != GPUSVM_DEVICE_VERSION ||
	    (driver_no_fault(dd) && (!dd->ops->vm_preempt || !dd->ops->vm_resume)))
		err = -EINVAL;
	else
		err = dd->ops->vm_create(device, dd, &dd->vm);
	if (!err)
		err = driver_memory_init(dd);
	if (!err)
		err = device_publish(driver, dd);
	if (err >= 0)
		return err;

	host_store_release(&dd->removed, 1);
	driver_device_put(dd);
	device_free(dd);
	return err;
}

/* Everything that a removed device held goes back. 0, or why data stayed. */
static int device_close(struct driver_device *dd, enum gpusvm_driver_cause cause)
{
	u64 started = host_now();
	u32 zero = 0;
	int err;

	/* From here on bind, populate and driver_device_get refuse. */
	if (!host_cas(&dd->removed, &zero, 1))
		return -ENODEV;
	dd->ops->stop(dd->device, true);
	driver_memory_revoke(dd);
	/* Peers let go first, so that what goes home is mapped by no one. */
	driver_links_remove(dd);
	err = driver_memory_evict(dd, cause);
	/* Ranges that come later, or behind this walk, meet dd->removed under their
	 * lock before anything is mapped. */
	driver_device_drop(dd, 0, DRIVER_WINDOW_END);
	mm_exclusive_end(dd->driver->mm, dd);
	driver_bound_free(dd);
	driver_rebind_fini(dd);

	driver_event(dd->driver, DRIVER_EVENT_UNBIND, cause, dd->index, err, started, 0, 0,
		     dd->index, DRIVER_SYSTEM);
	driver_device_put(dd);
	return err;
}

int gpusvm_driver_device_remove(struct gpusvm_driver *driver, int device)
{
	struct driver_device *dd;
	int err = driver_device_get(driver, device, &dd);

	if (err)
		return err;
	err = device_close(dd, DRIVER_CAUSE_UNBIND);
	driver_device_put(dd);
	return err;
}

void gpusvm_driver_destroy(struct gpusvm_driver *driver)
{
	bool leaked = false;
	u32 i;

	for (i = 0; i < driver->n_devices; i++)
		device_close(driver->devices[i], DRIVER_CAUSE_CLOSE);
	/* What did not go home when its device was removed: memory was short, say. */
	(void)gpusvm_driver_evict(driver, -1, DRIVER_CAUSE_CLOSE);
	driver_fault_fini(driver);
	/* It looks at advice. No device has entries any more that could be lost. */
	driver_remap_fini(driver);
	driver_advice_fini(driver);
	driver_garbage_fini(driver);
	gpusvm_mirror_fini(&driver->mirror);
	driver_garbage_fini(driver); /* the work, by an invalidation that had begun */
	driver_remap_fini(driver);
	for (i = 0; i < driver->n_devices; i++) {
		if (!device_free(driver->devices[i]))
			leaked = true;
	}
	if (leaked)
		return; /* its ops still reach the driver */
	host_mutex_destroy(&driver->garbage_lock);
	gpusvm_interconnect_fini(&driver->links);
	host_mutex_destroy(&driver->links_lock);
	host_mutex_destroy(&driver->stats_lock);
	host_mutex_destroy(&driver->lock);
	host_free(driver);
}

unsigned gpusvm_driver_device_count(struct gpusvm_driver *driver)
{
	return host_load_acquire(&driver->n_devices);
}

int gpusvm_driver_device_caps(struct gpusvm_driver *driver, int device,
			      struct gpusvm_device_caps *ret)
{
	struct driver_device *dd;
	int err = driver_device_get(driver, device, &dd);

	if (err)
		return err;
	*ret = dd->device->caps;
	driver_device_put(dd);
	return 0;
}

int gpusvm_driver_pagemap_get(struct gpusvm_driver *driver, int device, struct gpusvm_pagemap **ret)
{
	struct driver_device *dd;
	int err = driver_device_get(driver, device, &dd);

	if (err)
		return err;
	err = dd->has_memory ? driver_memory_get(dd) : -EINVAL;
	if (!err)
		*ret = &dd->pagemap;
	driver_device_put(dd);
	return err;
}

void gpusvm_driver_pause(struct gpusvm_driver *driver)
{
	u64 devices, left;

	host_mutex_lock(&driver->lock);
	driver->paused++;
	devices = devices_get_all(driver);
	for (left = devices; left; left &= left - 1) {
		struct driver_device *dd = driver->devices[__builtin_ctzll(left)];

		dd->ops->pause(dd->device);
	}
	driver_devices_put(driver, devices);
	host_mutex_unlock(&driver->lock);
}

void gpusvm_driver_resume(struct gpusvm_driver *driver)
{
	u64 devices, left;

	host_mutex_lock(&driver->lock);
	driver->paused--;
	/* One that is there now was there when they were paused, or was paused as it came. */
	devices = devices_get_all(driver);
	for (left = devices; left; left &= left - 1) {
		struct driver_device *dd = driver->devices[__builtin_ctzll(left)];

		dd->ops->resume(dd->device);
	}
	driver_devices_put(driver, devices);
	host_mutex_unlock(&driver->lock);
}
