/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * private.h: what the files of the simulator share. What scenarios of each level have
 * in common is scenario.h's.
 *
 *   sim.c         cases and runs; exploring
 *   actors.c      those who act
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
#include "sim/scenario.h"

#define SIM_BASE ((u64)0x100000000) /* 2M aligned */
#define SIM_PAGES 1024u		    /* at most in a world, from SIM_BASE on */
#define SIM_WATCHED 32u		    /* pages with words that the oracle knows */
#define SIM_WORDS 4u		    /* in each of them */
#define SIM_DEVICES 4u

extern const struct sim_scenario sim_scenario_table[];

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
	u32 watched;		/* the first watched page */
	u32 pages;		/* mapped at first */
	u64 values;		/* the last one given out */
	u64 added[SIM_WATCHED]; /* by op_add, for certain */
};

/* ---- ops.c: what actors do. Pages count from `watched`. ---- */

/* One word. device < 0: the CPU. */
void op_load(struct sim_actor *a, int device, u32 page, u32 word);
void op_store(struct sim_actor *a, int device, u32 page, u32 word);
/* All of the page's words by one command. */
void op_set(struct sim_actor *a, int device, u32 page);
void op_touch(struct sim_actor *a, int device, u32 page, u32 n, bool write);
/* One more in the page's counter; nothing else may store there. In a scenario that keeps
 * its mappings. */
void op_add(struct sim_actor *a, int device, u32 page);
void op_make_exclusive(struct sim_actor *a, int device, u32 page, u32 n);
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
/* Every counter, by the CPU: law 1. */
void op_count_all(struct sim *s);

/* ---- sim.c ---- */

/* As sim_run, with a watcher of points. */
void sim_run_watched(const struct sim_case *c, struct sim_result *ret,
		     void (*watch)(void *arg, const struct sched_event *event), void *arg);

#endif
