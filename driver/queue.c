/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * queue.c: queues and jobs. A queue keeps its device alive, also one that was
 * removed: its jobs then end with -ENODEV. No locking of its own; the device
 * orders the jobs of one queue.
 */
#include "driver/private.h"

int gpusvm_driver_queue_create(struct gpusvm_driver *driver, int device,
			       struct gpusvm_driver_queue **ret)
{
	struct gpusvm_driver_queue *queue;
	struct driver_device *dd;
	int err = driver_device_get(driver, device, &dd);

	if (err)
		return err;
	queue = host_alloc_zeroed(sizeof(*queue));
	if (!queue) {
		driver_device_put(dd);
		return -ENOMEM;
	}
	queue->device = dd;
	err = dd->ops->queue_create(dd->vm, &queue->queue);
	if (err) {
		driver_device_put(dd);
		host_free(queue);
		return err;
	}
	host_add_return(&driver->n_queues, 1);
	host_wake_all(&driver->kick); /* workers begin to watch */
	*ret = queue;
	return 0;
}

void gpusvm_driver_queue_destroy(struct gpusvm_driver_queue *queue)
{
	queue->device->ops->queue_destroy(queue->queue);
	host_add_return(&queue->device->driver->n_queues, (u32)-1);
	driver_device_put(queue->device);
	host_free(queue);
}

void gpusvm_driver_submit(struct gpusvm_driver_queue *queue, struct gpusvm_job *job)
{
	struct driver_device *dd = queue->device;
	struct gpusvm_driver *driver = dd->driver;

	/* What fails here fails again where it is noticed: at the access. */
	mm_sync(driver->mm, 0, ~(u64)0);
	driver_garbage_collect(driver);
	driver_rebind(dd);
	dd->ops->queue_submit(queue->queue, job);
}

struct gpusvm_device *gpusvm_driver_queue_device(struct gpusvm_driver_queue *queue)
{
	return queue->device->device;
}
