/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* soft.h: the software GPU's constructor. All else goes through device.h. */
#ifndef GPUSVM_SOFT_H
#define GPUSVM_SOFT_H

#include <gpusvm/device.h>

struct gpusvm_soft_options {
	const char *name;  /* NULL: "soft" */
	u64 vram_bytes;	   /* rounded up to 2M; 0: none */
	unsigned lanes;	   /* 0: 2 */
	unsigned copy_engines; /* 0: 1 */
	unsigned fault_entries; /* 0: 64; rounded up to a power of two */
	u64 flags;	   /* GPUSVM_DEVICE_* */
};

/* -ENOMEM, -EINVAL (unknown flags), -EAGAIN (no thread to be had). */
int gpusvm_soft_create(const struct gpusvm_soft_options *options, struct gpusvm_device **ret);
/* The bytes of a frame, for the home's reading at fork and for tests. */
void *gpusvm_soft_memory(struct gpusvm_device *device, u64 frame);

#endif
