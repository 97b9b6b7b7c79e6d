/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* <gpusvm/types.h>: constants that applications, drivers and devices share.
 * Included by the headers that need them; needs nothing itself. */
#ifndef GPUSVM_TYPES_H
#define GPUSVM_TYPES_H

#define GPUSVM_DEVICE_NO_FAULT 1u  /* work runs only on what is bound */
#define GPUSVM_DEVICE_NO_VRAM 2u   /* system memory only, no DMA mapping */
#define GPUSVM_DEVICE_ZERO_COPY 4u /* its memory is ordinary memory: migration moves pages */
#define GPUSVM_DEVICE_COHERENT 8u  /* the CPU maps its memory in place, where the home can */

/* What may be advised for memory; see gpusvm_advise. */
enum gpusvm_advice {
	GPUSVM_PREFERRED_LOCATION,
	GPUSVM_READ_MOSTLY,
	GPUSVM_ACCESSED_BY,
	GPUSVM_ACCESS_NONE,
	GPUSVM_ATOMIC,
	GPUSVM_NO_MIGRATE,
	GPUSVM_GRANULARITY,
	GPUSVM_LAST_PREFETCH,
	GPUSVM_RESET,
};
/* Values of GPUSVM_ATOMIC. */
enum {
	GPUSVM_ATOMIC_UNDEFINED, /* exact within one device */
	GPUSVM_ATOMIC_DEVICE,	 /* memory is taken exclusively by the device that does one */
	GPUSVM_ATOMIC_GLOBAL,	 /* exact among the CPU and all devices */
	GPUSVM_ATOMIC_CPU,	 /* the CPU's only: -EPERM on a device */
};

/* What a link from one device to another is good for. */
#define GPUSVM_LINK_MAP 1u  /* mapping the other's pages where they are */
#define GPUSVM_LINK_COPY 2u /* copying from them */

/* How memory was accessed, in a fault. */
enum gpusvm_access {
	GPUSVM_ACCESS_READ = 1,
	GPUSVM_ACCESS_WRITE = 2,
	GPUSVM_ACCESS_ATOMIC = 3,
};

#endif
