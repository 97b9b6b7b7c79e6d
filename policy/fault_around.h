/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fault_around.h: how much comes home when the CPU touches one page that is on
 * a device. A pure function: what was seen is in one word, which its owner may
 * keep in an atomic; a lost update costs a smaller window, never correctness.
 */
#ifndef GPUSVM_POLICY_FAULT_AROUND_H
#define GPUSVM_POLICY_FAULT_AROUND_H

#define FAULT_AROUND_MAX_SHIFT 9u /* 512 pages: 2M */

/* Page `fault` of a window of n pages (at most 512) is wanted; [*first, *last)
 * shall go: that page alone, as long as faults are scattered; twice as many as
 * last time, up to 512, where the fault continues the last window upward or
 * downward. state: 0 at first, then what the last call returned. */
unsigned fault_around(unsigned state, unsigned fault, unsigned n, unsigned *first, unsigned *last);

/* How far a stream has grown; and the state of one that has grown so far
 * elsewhere and goes on at page `fault` of this window, upward. */
unsigned fault_around_shift(unsigned state);
unsigned fault_around_continue(unsigned shift, unsigned fault);

#endif
