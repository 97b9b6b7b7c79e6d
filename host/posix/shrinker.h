/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * shrinker.h: between shrinker.c, which knows who gives memory back, and what knows that
 * it is short: pressure.c of host/posix and of host/model, and allocations that fail.
 */
#ifndef GPUSVM_HOST_POSIX_SHRINKER_H
#define GPUSVM_HOST_POSIX_SHRINKER_H

#include "host/host.h"

/* An allocation has failed: shrinkers are asked soon, on other threads. Context: any in
 * which one may allocate. */
void shrinkers_memory_failed(void);
/* As if none had been registered: in a forked child, and before a run of the model. */
void shrinkers_forget(void);

/* ---- pressure.c ---- */

/* In a forked child: another thread may have been in the middle. */
void pressure_forget(void);

/* Is memory short, by what has happened since this shrinker was last looked at? By its
 * work alone. */
bool pressure_look(struct host_shrinker *s);
/* Is it worth a look that something can be given back? */
bool pressure_wakes(void);
#ifdef HOST_MODEL
#define PRESSURE_POLLED 0 /* the scheduler says when */
#else
#define PRESSURE_POLLED 1
#endif

#endif
