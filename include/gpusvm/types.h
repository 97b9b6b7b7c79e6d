/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* <gpusvm/types.h>: constants that applications, drivers and devices share.
 * Included by the headers that need them; needs nothing itself. */
#ifndef GPUSVM_TYPES_H
#define GPUSVM_TYPES_H

#define GPUSVM_DEVICE_NO_FAULT 1u  /* work runs only on what is bound */
#define GPUSVM_DEVICE_NO_VRAM 2u   /* system memory only, no DMA mapping */
#define GPUSVM_DEVICE_ZERO_COPY 4u /* its memory is ordinary memory: migration moves pages */
#define GPUSVM_DEVICE_COHERENT 8u  /* the CPU maps its memory in place, where the home can */

/* How memory was accessed, in a fault. */
enum gpusvm_access {
	GPUSVM_ACCESS_READ = 1,
	GPUSVM_ACCESS_WRITE = 2,
	GPUSVM_ACCESS_ATOMIC = 3,
};

#endif
