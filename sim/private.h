/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * private.h: what the files of the simulator share.
 *
 *   sim.c         cases and runs; exploring
 *   world.c       a world's beginning and end, and the laws that are checked in it
 *   ops.c         what actors do, each checked by the oracle
 *   scenarios.c   the worlds and their actors
 *   shrink.c      the least that still goes wrong
 *   chart.c       a run in words
 *   file.c        cases as files
 *   oracle.c      what a word may hold
 *
 * All of it is compiled with -DHOST_MODEL and runs on fibers; one thread, no locks.
 */
#ifndef GPUSVM_SIM_PRIVATE_H
#define GPUSVM_SIM_PRIVATE_H

#include "devices/soft/soft.h"
#include "driver/private.h"
#include <gpusvm/interconnect.h>
#include "host/model/model.h"
#include "host/model/sched.h"
#include "host/posix/posix.h"
#include "sim/oracle.h"
#include "sim/sim.h"

#define SIM_BASE ((u64)0x100000000) /* 2M aligned */
#define SIM_PAGES 1024u		    /* at most in a world, from SIM_BASE on */
#define SIM_WATCHED 32u		    /* pages with words that the oracle knows */
#define SIM_WORDS 4u		    /* in each of them */
#define SIM_DEVICES 4u

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
	ADVERSARIES,
};

struct sim;
struct sim_actor;

struct sim_role {
	const char *name;
	void (*step)(struct sim *s, struct sim_actor *a);
	u32 rounds; /* at most 64 */
	int device; /* which it uses; -1: none; with few devices they share */
};

struct sim_scenario {
	const char *name, *about;
	u32 devices;	  /* if the command does not say */
	u32 first, pages; /* mapped at first: from the first page of SIM_BASE's 2M on */
	u32 flags;	  /* MODEL_*, of that mapping */
	u32 frames;	  /* of each device's memory that are to be had; 0: 512 */
	u64 device_flags; /* GPUSVM_DEVICE_*, of the first device */
	u64 timeslice;
	u64 keepalive; /* of device memory that nothing uses */
	void (*prepare)(struct sim *s); /* before the actors; may be NULL */
	struct sim_role roles[SIM_ACTORS];
};
extern const struct sim_scenario sim_scenario_table[];

struct sim_actor {
	struct sim *sim;
	const struct sim_role *role;
	u32 index, round;
	u64 random;
	struct host_thread thread;
};

struct sim_device {
	struct gpusvm_device *device;
	struct gpusvm_driver_queue *queue;
	const u8 *vram;
	u64 vram_bytes;
	struct gpusvm_pagemap *pagemap;
	u64 frames;    /* bytes of memory that were free at first */
	bool removing; /* unbinding has begun */
	bool removed;
};

struct sim {
	const struct sim_case *c;
	const struct sim_scenario *scenario;
	struct mm *mm;
	struct gpusvm_driver *driver;
	struct sim_device devices[SIM_DEVICES];
	u32 n_devices;
	bool exiting; /* the process's end has begun */
	bool exited;
	bool over;    /* teardown: what is checked in between is not */
	u32 failures; /* adversaries that let calls fail with memory or I/O errors */
	struct oracle oracle;
	/* By page from SIM_BASE + watched on: its words, and its mapping (what may be
	 * done there: MODEL_READ | MODEL_WRITE, or 0). */
	struct oracle_word words[SIM_WATCHED][SIM_WORDS];
	struct oracle_word mapping[SIM_WATCHED];
	u32 watched; /* the first watched page */
	u64 values;  /* the last one given out */
	struct sim_actor actors[SIM_ACTORS];
};

/* ---- world.c ---- */

/* The whole run, on fiber 0. arg: the case. */
void sim_world(void *arg);
/* Called now and then: the invariants of everything. arg: unused. */
void sim_check(void *arg);
void sim_check_begin(void);

/* ---- ops.c: what actors do. Pages count from `watched`. ---- */

u64 sim_below(struct sim_actor *a, u64 n);
/* One word. device < 0: the CPU. */
void op_load(struct sim_actor *a, int device, u32 page, u32 word);
void op_store(struct sim_actor *a, int device, u32 page, u32 word);
/* All of the page's words by one command. */
void op_set(struct sim_actor *a, int device, u32 page);
void op_touch(struct sim_actor *a, int device, u32 page, u32 n, bool write);
void op_munmap(struct sim_actor *a, u32 page, u32 n);
void op_mmap(struct sim_actor *a, u32 page, u32 n, u32 flags);
void op_dontneed(struct sim_actor *a, u32 page, u32 n);
void op_mprotect(struct sim_actor *a, u32 page, u32 n, u32 flags);
/* A child, whose memory is looked at, and which ends. */
void op_fork(struct sim_actor *a);
/* to < 0: system memory. */
void op_prefetch(struct sim_actor *a, u32 page, u32 n, int to);
void op_evict(struct sim_actor *a, int device);
void op_unbind(struct sim_actor *a, int device);
/* What nothing uses is given back. */
void op_shrink(struct sim_actor *a);
void op_pin(struct sim_actor *a, u32 page, u32 word);
/* If it can go. */
void op_swap(struct sim_actor *a, u32 page);
void op_exit(struct sim_actor *a);
void op_bind(struct sim_actor *a, int device, u32 page, u32 n);
void op_unbind_interval(struct sim_actor *a, int device, u32 page, u32 n);
/* advice: enum gpusvm_advice's. */
void op_advise(struct sim_actor *a, u32 page, u32 n, int advice, s64 value, int where);
void op_link(struct sim_actor *a, int from, int to, bool on);
/* Of pages that no other actor uses. */
void op_mremap(struct sim_actor *a, u32 page, u32 n, u32 to);
/* Every watched word, by the CPU. */
void op_load_all(struct sim *s);

/* ---- sim.c ---- */

/* As sim_run, with a watcher of points. */
void sim_run_watched(const struct sim_case *c, struct sim_result *ret,
		     void (*watch)(void *arg, const struct sched_event *event), void *arg);

#endif
