/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* soft.h: the software GPU's constructor, and what tests may ask of it. All else
 * goes through device.h. */
#ifndef GPUSVM_SOFT_H
#define GPUSVM_SOFT_H

#include <gpusvm/device.h>

struct gpusvm_soft_options {
	const char *name;	/* NULL: "soft" */
	u64 vram_bytes;		/* rounded up to 2M; 0: none */
	unsigned lanes;		/* 0: 2 */
	unsigned copy_engines;	/* 0: 2 */
	unsigned fault_entries; /* 0: 64; rounded up to a power of two */
	u64 flags;		/* GPUSVM_DEVICE_* */
	u32 leaf_orders; /* 0: leaves of 4K, 64K and 2M; else of 4K and where a bit is set */
	u64 flush_latency;	/* ns from the beginning of a flush to its end, at least */
	bool no_system_atomics; /* as a device behind a bus that has none: there a read and a write
				 */
};

/* -ENOMEM, -EINVAL (unknown flags; more than 256 lanes, 16 copy engines or 65536
 * fault entries), -EOPNOTSUPP (GPUSVM_DEVICE_COHERENT), -EAGAIN (no
 * thread to be had). */
int gpusvm_soft_create(const struct gpusvm_soft_options *options, struct gpusvm_device **ret);
/* The bytes of a frame, for the home's reading at fork and for tests. */
void *gpusvm_soft_memory(struct gpusvm_device *device, u64 frame);

/* ---- For tests: a device that misbehaves -------------------------------------- */

enum gpusvm_soft_misbehaviour {
	GPUSVM_SOFT_FAIL_COPY,	     /* the n-th copy call from now fails, half done (-EIO) */
	GPUSVM_SOFT_DROP_FAULT,	     /* the n-th fault is queued, but the driver not told */
	GPUSVM_SOFT_DUPLICATE_FAULT, /* the n-th fault is queued twice */
	GPUSVM_SOFT_DELAY_FAULT,     /* the driver is told of the n-th fault 2 ms late */
	GPUSVM_SOFT_DELAY_FLUSH,     /* n: each flush takes so many ns more, until unset */
	GPUSVM_SOFT_MISBEHAVIOURS,
};

/* n 0: behave. Context: any. */
void gpusvm_soft_misbehave(struct gpusvm_device *device, enum gpusvm_soft_misbehaviour which,
			   u64 n);

struct gpusvm_soft_counters {
	u64 walks;	 /* of page tables, by lanes: TLB misses and re-checks */
	u64 flush_waits; /* flushes that found an access open */
	u64 misbehaved[GPUSVM_SOFT_MISBEHAVIOURS];
};
void gpusvm_soft_counters(struct gpusvm_device *device, struct gpusvm_soft_counters *ret);

#endif
