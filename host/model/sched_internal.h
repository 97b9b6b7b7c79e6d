/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* sched_internal.h: what the files of the scheduler share. One thread; no locks. */
#ifndef GPUSVM_MODEL_SCHED_INTERNAL_H
#define GPUSVM_MODEL_SCHED_INTERNAL_H

#define SCHED_NO_PLACES
#include "host/model/sched.h"
#include "host/posix/posix.h"

/* Built with AddressSanitizer, which gcc and clang tell in different ways. */
#ifdef __SANITIZE_ADDRESS__
#define SCHED_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SCHED_ASAN
#endif
#endif
#define POINT_NS 20u	  /* virtual time of a point */
#define FIBER_LOCAL 4096u /* bytes of HOST_THREAD_LOCAL that there may be */

/* ---- fiber.c: contexts and stacks ---- */

struct fiber_stack {
	struct fiber_stack *next; /* free ones */
	char *low;
	size_t size;
};

struct fiber_context {
	void *sp;
	struct fiber_stack *stack; /* NULL: the system's thread */
	void *fake;		   /* AddressSanitizer's */
};

struct fiber_stack *fiber_stack_get(void); /* NULL: no memory */
void fiber_stack_put(struct fiber_stack *stack);
/* Prepares a context that begins in fn(), which never returns. */
void fiber_make(struct fiber_context *context, struct fiber_stack *stack, void (*fn)(void));
/* from NULL: the running context is given up for good. */
void fiber_switch(struct fiber_context *from, struct fiber_context *to);
/* First in each fn of fiber_make. */
void fiber_entered(void);

/* ---- sched.c ---- */

struct sched_fiber {
	struct fiber_context context;
	void (*fn)(void *);
	void *arg;
	char name[24];
	u32 points;
	bool over;
	/* While it does not run: what it waits for, in words. */
	struct sched_place place;
	const void *object;
	enum sched_point_kind kind;
	u64 deadline;
	bool late;	 /* the deadline passed */
	u64 priority;	 /* SCHED_PCT */
	u64 random;	 /* sched_random */
	u32 next_choice; /* SCHED_REPLAY: 1 + index of its next choice; 0: none */
	u32 wakes;	 /* of the queue that it is in, when it last looked */
	const void *queue;
	bool told; /* of something that it looked at since it entered that, or woke */
	int quiet;
	char local[FIBER_LOCAL];
};

struct sched {
	bool active;
	u64 runnable; /* bits, the running fiber's included */
	u64 lazy;     /* runnable, but busy waiting for others */
	u64 blocked;
	u64 timed; /* blocked, with a deadline */
	u64 next_deadline;
	struct sched_fiber *self;
	u32 current, n_fibers;
	u64 now;
	u64 points, stop_at; /* stop_at: when to look at limits and checks */
	u64 progress_points, progress_now;
	u64 next_check;
	u64 allocations, live;
	u32 serials[3];
	struct sched_options options;
	struct sched_outcome *outcome;
	struct fiber_context root;
	struct sched_fiber fibers[SCHED_FIBERS];
};
extern struct sched sched;

/* Makes a fiber; -ENOMEM, -EAGAIN (too many). */
int sched_spawn(const char *name, void (*fn)(void *), void *arg, u32 *ret);
/* Sleeps until sched_wake(object) or deadline; true when that passed. */
bool sched_block(enum sched_point_kind kind, const void *object, u64 deadline);
void sched_wake(const void *object);
/* A busy wait's turn: the others first. */
void sched_yield_lazy(void);
bool sched_over(u32 fiber);
/* Ends the run here, with nothing wrong. */
void sched_abandon(void) __attribute__((noreturn));
/* The n-th allocation fails: is this it? */
bool sched_alloc_fails(void);

/* ---- sched_pick.c: who goes on ---- */

void pick_init(void);
void pick_spawned(u32 fiber);
/* One of the set, which is not empty; the running fiber is in it if it can go on.
 * kind, object: what that one is about to do. */
u32 pick_next(u64 set, enum sched_point_kind kind, const void *object);
u32 pick_default(u64 set);
void pick_results(struct sched_outcome *ret);

/* Are told of sched_access and sched_await if set (sched_explore.c). */
extern void (*sched_accessed)(const void *object, bool write);
extern void (*sched_awaited)(const void *object);

/* Decides in place of options.kind if set (sched_explore.c). */
extern u32 (*sched_decide)(u64 set, enum sched_point_kind kind, const void *object);

/* ---- sched_memory.c ---- */

void memory_begin(void);
/* Looks at freed memory; fails the run if it was written to. */
void memory_check(void);

/* ---- sched_work.c ---- */

void work_begin(void);

/* ---- sched_report.c ---- */

/* Who waits for what, into outcome->text, after what is there. */
void report_waits(struct sched_outcome *outcome);
void report_add(struct sched_outcome *outcome, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void report_signals_begin(void);
void report_signals_end(void);

#endif
