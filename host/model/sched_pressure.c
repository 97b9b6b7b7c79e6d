/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched_pressure.c: how short memory is, in a run: short from the n-th moment on at which
 * something can be given back, if the run says so. Then whoever gives it back races with
 * who uses it again.
 */
#include "host/model/sched_internal.h"
#include "host/posix/shrinker.h"

static u64 until_short; /* wakes; 0: it never is */

void sched_pressure(u64 n)
{
	until_short = n;
}

void pressure_forget(void)
{
	until_short = 0;
}

bool pressure_look(struct host_shrinker *s)
{
	(void)s;
	return until_short == 1;
}

bool pressure_wakes(void)
{
	until_short -= until_short > 1;
	return until_short == 1;
}
