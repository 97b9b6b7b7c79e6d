/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * scenario.h: what scenarios have in common, over whichever memory they are played.
 *
 *   level     what is under test, and what lies below it:
 *             memory     core, driver and soft devices over the model memory manager
 *                        (world.c, ops.c, scenarios.c)
 *             userfault  host/userfault over the modelled kernel (userfault/)
 *   scenario  a world at first, and roles
 *   role      what one actor does, again and again
 *
 * Context: fibers of one thread.
 */
#ifndef GPUSVM_SIM_SCENARIO_H
#define GPUSVM_SIM_SCENARIO_H

#include "host/host.h"
#include "host/model/kernel/kernel.h"
#include "host/model/sched.h"
#include "sim/sim.h"

enum sim_adversary_kind {
	ADVERSARY_NONE,
	ADVERSARY_ALLOC,	   /* an allocation fails */
	ADVERSARY_FAIL_COPY,	   /* a copy fails, half done */
	ADVERSARY_DROP_FAULT,	   /* the driver is not told of a fault */
	ADVERSARY_DUPLICATE_FAULT, /* it is told twice */
	ADVERSARY_DELAY_FAULT,	   /* it is told late */
	ADVERSARY_DELAY_FLUSH,	   /* flushes take long */
	ADVERSARY_BEGIN,	   /* the sites of host/model/model.h: */
	ADVERSARY_ISOLATE,
	ADVERSARY_SYSTEM_PAGE,
	ADVERSARY_HUGE_PAGE,
	ADVERSARY_COMMIT,
	ADVERSARY_DMA_MAP,
	ADVERSARY_NOTIFIER,
	ADVERSARY_RANGE_FAULT,
	ADVERSARY_RANGE_BUSY,
	ADVERSARY_LATE, /* the chances of struct kernel_whims: */
	ADVERSARY_BUSY,
	ADVERSARY_MEMORY,
	ADVERSARY_MIGRATE,
	ADVERSARY_DENY,
	ADVERSARIES,
};

struct sim; /* the world: each level's own */
struct sim_actor;

struct sim_role {
	const char *name;
	void (*step)(struct sim *s, struct sim_actor *a);
	u32 rounds; /* at most 64; 0: until all that have rounds are over */
	int device; /* which it uses; -1: none; with few devices they share */
};

struct sim_scenario {
	const char *name, *about;
	u32 devices; /* if the command does not say */
	struct sim_role roles[SIM_ACTORS];

	/* Level memory. */
	u32 first, pages;   /* mapped at first: from the first page of SIM_BASE's 2M on */
	u32 small;	    /* pages when all schedules are explored; 0: 2 at most */
	u32 flags;	    /* MODEL_*, of that mapping */
	u32 frames;	    /* of each device's memory that are to be had; 0: 512 */
	u64 device_flags;   /* GPUSVM_DEVICE_*, of the first device */
	u32 no_memory;	    /* mask of devices that have none */
	bool split_atomics; /* devices' atomics in system memory are a read and a write */
	u64 timeslice;
	u64 keepalive;			/* of device memory that nothing uses */
	void (*prepare)(struct sim *s); /* before the actors; may be NULL */

	/* Level userfault. pages: of those that are watched, from the first on; 0: all. */
	u32 without; /* USERFAULT_WITHOUT_* */
	bool huge;   /* the field begins as huge pages */
	bool whole;  /* and movers take whole blocks only */
	bool together; /* and stay so, most often: they move several at a time */
	bool memory; /* frames are ordinary memory, and pages move there */
	u32 block;   /* movers take this one only; 0: any */
	struct kernel_whims whims;
};

struct sim_level {
	const char *name;
	const struct sim_scenario *scenarios; /* the last one has no name */
	/* The whole run, on fiber 0. arg: the case. */
	void (*run)(void *arg);
	/* Called every check_period points: the invariants of everything. arg: unused. */
	void (*check)(void *arg);
	u64 check_period;
	/* Before each run: forgets what one that was abandoned has left. */
	void (*begin)(void);
	/* What may go wrong besides allocations, and for which n it makes sense. */
	const u32 *adversaries;
	u32 n_adversaries;
	u32 reach[ADVERSARIES]; /* 0: 12 */
	/* See struct sched_options. pct_depths: 3 and so many different ones. */
	u64 pct_length, pct_depths, max_idle_points, max_idle_time;
	bool atomics_ordered; /* the same */
	u32 small;	      /* as a scenario's, where that says nothing */
};
extern const struct sim_level sim_memory_level, sim_userfault_level;

const struct sim_scenario *sim_scenario_at(size_t i);

/* ---- actors.c ---- */

struct sim_actor {
	struct sim *sim;
	const struct sim_case *c;
	const struct sim_role *role;
	u32 index, round;
	u64 random;
	struct host_thread thread;
};

/* Starts those of the roles, and waits until they are over. may_fail: a thread may not
 * start. */
void sim_act(struct sim *s, const struct sim_case *c, bool may_fail);
/* By the seed, the actor and its round alone: leaving out others changes nothing. */
u64 sim_below(struct sim_actor *a, u64 n);

#endif
