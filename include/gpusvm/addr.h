/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * <gpusvm/addr.h>: the address of memory as one device sees it, and the way
 * to get there. Linux: struct drm_pagemap_addr.
 */
#ifndef GPUSVM_ADDR_H
#define GPUSVM_ADDR_H

#include "host/host.h"

enum gpusvm_proto {
	GPUSVM_PROTO_NONE = 0, /* nothing here: a sparse array's gap */
	GPUSVM_PROTO_SYSTEM,   /* dma address of system memory */
	GPUSVM_PROTO_LOCAL,    /* byte offset in the device's own memory */
	GPUSVM_PROTO_PEER,     /* a peer's memory: gpusvm_peer_address */
};

/* In a peer's memory: the window under which the device knows the peer (see peer_attach
 * of <gpusvm/device.h>), and the byte in that one's memory. */
#define GPUSVM_PEER_SHIFT 48u
#define GPUSVM_PEER_WINDOWS 64u
static inline u64 gpusvm_peer_address(unsigned window, u64 offset)
{
	return (u64)window << GPUSVM_PEER_SHIFT | offset;
}
static inline unsigned gpusvm_peer_window(u64 address)
{
	return (unsigned)(address >> GPUSVM_PEER_SHIFT) & (GPUSVM_PEER_WINDOWS - 1);
}
static inline u64 gpusvm_peer_offset(u64 address)
{
	return address & (((u64)1 << GPUSVM_PEER_SHIFT) - 1);
}

/* An aligned run of 1 << order pages of 4K. Packed in one word: an array of
 * these is the largest thing that the core keeps per page. Addresses are page
 * aligned, so that the low 12 bits are free. */
struct gpusvm_addr {
	u64 word; /* address 63:12, proto 11:8, write 7, no atomics 6, exclusive 5, order 4:0 */
};
#define GPUSVM_ADDR_NO_ATOMICS ((u64)1 << 6)
/* System memory that the device has for itself (mm_make_exclusive). */
#define GPUSVM_ADDR_EXCLUSIVE ((u64)1 << 5)

static inline struct gpusvm_addr gpusvm_addr_encode(u64 address, enum gpusvm_proto proto,
						    unsigned order, bool write)
{
	return (struct gpusvm_addr){ (address & HOST_PAGE_MASK) | (u64)proto << 8 |
				     (u64)write << 7 | order };
}
static inline u64 gpusvm_addr_address(struct gpusvm_addr a)
{
	return a.word & HOST_PAGE_MASK;
}
static inline enum gpusvm_proto gpusvm_addr_proto(struct gpusvm_addr a)
{
	return (enum gpusvm_proto)(a.word >> 8 & 15u);
}
static inline unsigned gpusvm_addr_order(struct gpusvm_addr a)
{
	return (unsigned)a.word & 31u;
}
static inline bool gpusvm_addr_write(struct gpusvm_addr a)
{
	return a.word >> 7 & 1u;
}
static inline bool gpusvm_addr_exclusive(struct gpusvm_addr a)
{
	return a.word & GPUSVM_ADDR_EXCLUSIVE;
}
/* What may be written may be the place of an atomic, unless it is said otherwise:
 * then the device faults, for GPUSVM_ACCESS_ATOMIC. */
static inline bool gpusvm_addr_atomics(struct gpusvm_addr a)
{
	return gpusvm_addr_write(a) && !(a.word & GPUSVM_ADDR_NO_ATOMICS);
}
static inline struct gpusvm_addr gpusvm_addr_set_atomics(struct gpusvm_addr a, bool atomics)
{
	a.word = atomics ? a.word & ~GPUSVM_ADDR_NO_ATOMICS : a.word | GPUSVM_ADDR_NO_ATOMICS;
	return a;
}

#endif
