/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched_order.h: which steps of a run come before which, whatever the schedule.
 *
 * A step is an access to an object, or several (order_access: each has a number of its
 * own), numbered in the order of the run. Two steps of
 * one fiber, or to one object if one of them writes, keep their order in every run
 * that commutes to this one; so does what lies between them. The rest is unordered.
 * Each fiber and each object has a clock: of each fiber, the latest step that comes
 * before whatever is next here (vector clocks: Mattern, "Virtual time and global
 * states of distributed systems", 1989).
 *
 * A race is a step and an earlier one of another fiber that it depends on directly
 * alone: they could come in the other order.
 *
 * Context: one thread; one run at a time.
 */
#ifndef GPUSVM_MODEL_SCHED_ORDER_H
#define GPUSVM_MODEL_SCHED_ORDER_H

#include "host/model/sched_internal.h"

/* A fiber races with a step of another; decision: the last one before that step. */
typedef void order_race(u32 decision, u32 fiber);

/* A run begins: no step was made. */
void order_begin(void);
/* The running fiber is at a point: what it announced at its last one is done. Races of
 * that, and of what it announces now, are told: with steps that were made, and of
 * others who are about to make one. decision: the last one. */
void order_point(const struct sched_event *event, u32 decision, order_race *race);
/* The running fiber's step reads or writes this, too. Races with steps that were made. */
void order_access(u32 fiber, const void *object, bool write, u32 decision, order_race *race);
/* It comes after the last write of this, in any order: no race. */
void order_await(u32 fiber, const void *object, u32 decision);
/* The same without looking for races: setting up and taking down. */
void order_skip(u32 fiber);
/* The running fiber starts another. */
void order_spawn(u32 child);
/* The running fiber has waited for the end of another. */
void order_join(u32 other);
/* How many steps there were. */
u32 order_steps(void);
/* The latest step of `of` that comes before the next one of fiber; 0: none. */
u32 order_last(u32 fiber, u32 of);
/* Nothing that another fiber did after step `since` had to come before what this one
 * did; nor would it have waited, or not, in another order. */
bool order_alone(u32 fiber, u32 since);
/* A hash that is the same for runs that differ only in the order of steps that commute. */
u64 order_hash(void);
/* There were more objects than there is room for: races may be missing. */
bool order_overflow(void);

#endif
