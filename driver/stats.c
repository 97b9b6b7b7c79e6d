/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * stats.c: counters and events.
 *
 * Counters are atomics of their device, added to by whoever does the work;
 * they outlive the device's removal. Who reads them waits first for what is over
 * already for the application, and not yet counted: stats_lock, one at a time.
 */
#include "driver/private.h"

static void stats_add(struct gpusvm_driver_stats *sum, struct driver_device *dd)
{
	const struct driver_counters *c = &dd->stats;
	u64 out = host_read_once(&c->pages_to_device), in = host_read_once(&c->pages_to_system);
	u64 chain = host_read_once(&c->retry_chain_max);

	sum->cpu_faults += host_read_once(&c->cpu_faults);
	sum->device_faults += host_read_once(&c->device_faults);
	sum->device_faults_replayed += host_read_once(&c->device_faults_replayed);
	sum->device_faults_stale += host_read_once(&c->device_faults_stale);
	sum->device_faults_fatal += host_read_once(&c->device_faults_fatal);
	sum->pages_to_device += out;
	sum->pages_to_system += in;
	sum->pages_peer += host_read_once(&c->pages_peer);
	sum->bytes_peer += host_read_once(&c->pages_peer) << HOST_PAGE_SHIFT;
	sum->bytes_to_device += out << HOST_PAGE_SHIFT;
	sum->bytes_to_system += in << HOST_PAGE_SHIFT;
	sum->evictions += host_read_once(&c->evictions);
	sum->invalidations += host_read_once(&c->invalidations);
	sum->flushes += host_read_once(&c->flushes);
	sum->retries += host_read_once(&c->retries);
	sum->retry_chain_max = host_max(sum->retry_chain_max, chain);
	sum->throttles += host_read_once(&c->throttles);
	sum->pins += host_read_once(&c->pins);
	sum->vram_used += host_read_once(&c->vram_used);
	sum->vram_peak += host_read_once(&c->vram_peak);
}

int gpusvm_driver_stats_get(struct gpusvm_driver *driver, int device,
			    struct gpusvm_driver_stats *ret)
{
	int n = (int)host_load_acquire(&driver->n_devices), i;

	if (device < -1 || device >= n)
		return -EINVAL;
	if (device >= 0 && driver_removed(driver->devices[device]))
		return -ENODEV;
	host_memset(ret, 0, sizeof(*ret));
	/* What was unmapped is not on a device any more. */
	(void)mm_sync(driver->mm, 0, 0);
	host_mutex_lock(&driver->stats_lock);
	for (i = 0; i < n; i++)
		if (device < 0 || device == i) {
			gpusvm_pagemap_settle(&driver->devices[i]->pagemap);
			stats_add(ret, driver->devices[i]);
		}
	host_mutex_unlock(&driver->stats_lock);
	return 0;
}

void driver_count_max(u64 *max, u64 value)
{
	u64 old = host_read_once(max);

	while (old < value && !host_cas(max, &old, value))
		;
}

void driver_event(struct gpusvm_driver *driver, enum gpusvm_driver_event_type type,
		  enum gpusvm_driver_cause cause, int device, int result, u64 started, u64 address,
		  u64 length, int from, int to)
{
	struct gpusvm_driver_event event;

	if (!driver->options.event)
		return;
	event = (struct gpusvm_driver_event){
		.time = started,
		.duration = host_now() - started,
		.type = type,
		.cause = cause,
		.device = device,
		.result = result,
		.from = from,
		.to = to,
		.address = address,
		.length = length,
	};
	driver->options.event(driver->options.event_arg, &event);
}
