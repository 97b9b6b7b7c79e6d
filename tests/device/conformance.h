/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * conformance.h: what passes this is a device. The suite meets it through
 * <gpusvm/device.h> only, and plays the driver itself: a fault handler that maps
 * what lies in a window. What a device says that it cannot do is skipped, with
 * the reason.
 */
#ifndef GPUSVM_TESTS_DEVICE_CONFORMANCE_H
#define GPUSVM_TESTS_DEVICE_CONFORMANCE_H

#include <gpusvm/device.h>

struct conformance_target {
	const char *name;
	/* A device of its own for each case; NULL fails the case. */
	struct gpusvm_device *(*create)(void *arg);
	void *arg;
	/* The address that the device puts on the bus for system memory. */
	u64 (*dma)(void *memory);
	/* False: CALL is not to be had (a kernel build). */
	bool call;
};

/* Runs every case; one line for each on standard output. The number that failed. */
unsigned conformance_run(const struct conformance_target *target);

#endif
