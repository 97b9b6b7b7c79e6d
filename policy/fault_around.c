/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fault_around.c: see the header. The state word: bits 0 to 9 the first page
 * that went last time, 10 to 19 the one after the last, 20 to 23 the shift of
 * the width plus one (0: nothing was seen). No locking: pure.
 */
#include "policy/fault_around.h"

static unsigned state_first(unsigned state)
{
	return state & 1023u;
}

static unsigned state_last(unsigned state)
{
	return state >> 10 & 1023u;
}

static unsigned state_of(unsigned first, unsigned last, unsigned shift)
{
	return first | last << 10 | (shift + 1) << 20;
}

unsigned fault_around_shift(unsigned state)
{
	return state >> 20 ? (state >> 20 & 15u) - 1 : 0;
}

unsigned fault_around_continue(unsigned shift, unsigned fault)
{
	return state_of(fault, fault, shift);
}

unsigned fault_around(unsigned state, unsigned fault, unsigned n, unsigned *first, unsigned *last)
{
	unsigned shift = fault_around_shift(state), width;
	int upward = state && fault == state_last(state);
	int downward = state && fault + 1 == state_first(state);

	if (!upward && !downward)
		shift = 0;
	else if (shift < FAULT_AROUND_MAX_SHIFT)
		shift++;
	width = 1u << shift;

	*first = fault;
	*last = fault + 1;
	if (downward)
		*first = fault + 1 > width ? fault + 1 - width : 0;
	else
		*last = fault + width < n ? fault + width : n;
	return state_of(*first, *last, shift);
}
