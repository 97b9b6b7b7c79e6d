/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * world.h: host/userfault over the modelled kernel, and threads that use it.
 *
 * A field of memory whose watched pages have a word for each writer. A writer knows
 * what it wrote last and checks it before it writes again (law 1); a child checks that
 * it has what its parent had. Beside them pages are moved, mapped, forked and evicted.
 * A device is a table of frames; one lane reaches memory as a GPU does: within an
 * access that invalidations wait for.
 *
 *   world.c       beginning and end, laws, words
 *   device.c      frames, and moves of pages between them and system memory
 *   lane.c        the lane, and its notifier
 *   steps.c       what actors do
 *   mapper.c      memory whose addresses are used again
 *   handover.c    addresses that go from one thread to another
 *   scenarios.c   who does it
 *
 * All of it is compiled with -DHOST_MODEL and linked with host/userfault and
 * host/model/kernel into one object, of which the simulator sees nothing but
 * sim_userfault_level: two homes have calls of the same names. Fibers of one thread.
 */
#ifndef GPUSVM_SIM_USERFAULT_WORLD_H
#define GPUSVM_SIM_USERFAULT_WORLD_H

#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "host/mm.h"
#include "host/model/kernel/kernel.h"
#include "host/model/sched.h"
#include "host/posix/posix.h"
#include "host/userfault/home.h"
#include "sim/scenario.h"

#define PAGE HOST_PAGE_SIZE
#define HUGE_SIZE HOST_HUGE_SIZE
#define A KERNEL_USER_BASE
#define RW (KERNEL_READ | KERNEL_WRITE)
#define FRAMES (4 * HOST_HUGE_PAGES) /* of a device */
#define DEVICES 4u
#define BLOCKS 7u /* 0, 1: the field; 2 to 5: the mapper's; 6: scrap */
#define FIELD_BLOCKS 2u
#define MAPPER_BASE (A + FIELD_BLOCKS * HUGE_SIZE)
#define SCRAP_BASE (A + 6 * HUGE_SIZE)
/* Frames that are ordinary memory lie here. */
#define MEMORY_BASE (A + 24 * HUGE_SIZE)

#define must(c)                                                                                    \
	do {                                                                                       \
		if (!(c))                                                                          \
			sched_fail(SCHED_LAW, "%s: %s", __func__, #c);                             \
	} while (0)

enum writer { CPU_0, CPU_1, GPU, DIRECT, FORK, WRITERS };
extern const char *const writer_names[WRITERS];

#define WATCHED 20u
extern const u16 watched[WATCHED];

struct device {
	struct mm_region *region;
	u64 memory; /* where its frames are, if they are ordinary memory */
	u8 vram[FRAMES][KERNEL_BYTES] __attribute__((aligned(8)));
	u8 used[FRAMES];
	u64 next_frame;
};

struct sim {
	const struct sim_scenario *scenario;
	u32 n_devices;
	u32 n_watched; /* pages that are used, of those that are watched */
	bool small;    /* steps are: all schedules are explored */
	struct mm *mm;
	struct space *space;	       /* the process */
	u64 field;		       /* its address */
	bool ending;		       /* from here on the laws are not checked in between */
	u32 data;		       /* what frames carry points here */
	u32 holds;		       /* CPU faults that are served: the regions stay */
	u64 rounds[WRITERS][WATCHED];  /* what was written last */
	u64 writing[WRITERS][WATCHED]; /* what may have been: the store has begun */
	/* The lane. */
	struct mm_notifier notifier;
	struct host_mutex lane_lock; /* RANK_MIRROR */
	struct host_waitq lane_waitq;
	u64 open;		  /* page that is accessed, or 0; atomic */
	struct host_rwlock pause; /* RANK_RUNTIME: read by the lane, written around forks */
	bool handed;		  /* see handover.c */
	u64 fresh, n_fresh;	  /* see fresh.c: the mapping that is in use, or 0 */
	struct device devices[DEVICES];
};
/* The one that runs: for callbacks that have no argument of ours. */
extern struct sim *world;

/* Of pages, for the chart: counted from the first that the process has. */
static inline unsigned page_number(u64 address)
{
	return (unsigned)((address - A) / PAGE);
}

/* ---- world.c ---- */

/* By the seed and the running fiber: for callbacks. */
u64 below(u64 n);
u64 word_value(enum writer w, u32 i, u64 round);
u64 word_address(enum writer w, u32 i);
/* Ends the run: `has` is not what should be there. */
void word_wrong(const char *who, enum writer w, u32 i, u64 has) __attribute__((noreturn));
/* It is what w wrote last. */
void word_check(enum writer w, u32 i, u64 has);
/* A store of the next round's value, which is given. */
u64 word_begin(enum writer w, u32 i);
void word_end(enum writer w, u32 i);
/* Checks it, and writes it anew, as a CPU thread of the process. */
void word_write(enum writer w, u32 i);

/* ---- device.c ---- */

void device_create(struct device *d);
void device_destroy(struct device *d);
/* The frame's bytes, good until the next point. */
u8 *frame_bytes(struct mm_page *page, bool write);
/* Moves of pages in [start, end), within 2M: to a device, home, and from frame to
 * frame, as between two devices; or of so many frames home. Pages may stay. */
void move_out(struct sim_actor *a, u64 start, u64 end);
void move_home(u64 start, u64 end);
void move_across(struct sim_actor *a, u64 start, u64 end);
void move_evict(struct device *d, u64 first, unsigned n);
/* n times 2M at once to a device whose frames are ordinary memory. */
void move_together(struct sim_actor *a, u64 start, unsigned n);

/* ---- lane.c ---- */

void lane_create(void);
void lane_destroy(void);
/* Given to userfault_open: no device writes around a fork. */
extern const struct userfault_hooks lane_hooks;
void lane_step(struct sim *s, struct sim_actor *a);
/* The same, and most often the page is taken for the lane alone first. */
void take_step(struct sim *s, struct sim_actor *a);

/* ---- steps.c, mapper.c, handover.c ---- */

/* Its index in watched. */
u32 any_page(const struct sim *s, struct sim_actor *a);
void cpu_step(struct sim *s, struct sim_actor *a);
void read_step(struct sim *s, struct sim_actor *a);
void direct_step(struct sim *s, struct sim_actor *a);
void fork_step(struct sim *s, struct sim_actor *a);
/* The first pages of the field, as many as are used. */
void out_step(struct sim *s, struct sim_actor *a);
void home_step(struct sim *s, struct sim_actor *a);
void mover_step(struct sim *s, struct sim_actor *a);
/* Several blocks at once to frames that are ordinary memory, or home one by one. */
void together_step(struct sim *s, struct sim_actor *a);
void evict_step(struct sim *s, struct sim_actor *a);
void scrap_step(struct sim *s, struct sim_actor *a);
void drop_scrap_step(struct sim *s, struct sim_actor *a);
void drop_step(struct sim *s, struct sim_actor *a);
void daemon_step(struct sim *s, struct sim_actor *a);
void mapper_step(struct sim *s, struct sim_actor *a);
void give_step(struct sim *s, struct sim_actor *a);
void take_place_step(struct sim *s, struct sim_actor *a);
void fresh_step(struct sim *s, struct sim_actor *a);
void fresh_mover_step(struct sim *s, struct sim_actor *a);

extern const struct sim_scenario userfault_scenarios[];

#endif
