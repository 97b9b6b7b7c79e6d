/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched.h: host.h on fibers, under a scheduler that one seed decides.
 *
 * Concepts
 *   run     one execution of a function and of all threads that it starts, each a
 *           fiber of the calling thread. Nothing of a run outlives it: memory comes
 *           from one arena, which the next run begins anew.
 *   point   where another fiber may go on: before each lock, after each unlock, at
 *           each ordered atomic, wait, wake, allocation, copy, sleep, busy wait, and
 *           where a model says so (sched_point).
 *   choice  a point at which the scheduler did not do what it does by default:
 *           "fiber f, at its n-th point, left to fiber g". By default a fiber goes on
 *           while it can, then the next one by number. So a list of choices is a
 *           run, and what is left when some are taken out of the list is a run too.
 *   time    is virtual: a few nanoseconds a point; when no one can go on, it jumps to
 *           the next deadline. No one and no deadline: deadlock.
 *
 * Everything of host.h works in a run, in code that is compiled with -DHOST_MODEL,
 * and so does what host/posix/posix.h adds for homes: the arena (compress, expand,
 * contains), host_posix_before_block, host_work_start. HOST_THREAD_LOCAL is
 * fiber-local. Same options and same code: same run, on any machine; no address, clock
 * or hash of the machine takes part in a decision.
 *
 * Context: one thread of the system, one run at a time.
 */
#ifndef GPUSVM_MODEL_SCHED_H
#define GPUSVM_MODEL_SCHED_H

#include "host/host.h"

#define SCHED_FIBERS 64u /* at most in one run */

enum sched_kind {
	SCHED_RANDOM, /* by seed; how often it switches is by seed too */
	SCHED_PCT,    /* priorities, with `depth` changes at random points (Burckhardt et al.,
		       * "A randomized scheduler with probabilistic guarantees", 2010) */
	SCHED_REPLAY, /* by a list of choices; an empty list: by default all along */
};

struct sched_choice {
	u32 fiber, point, next;
};

enum sched_result {
	SCHED_OK,
	SCHED_LAW,	  /* sched_fail(): what the code under test promised is not so */
	SCHED_PANIC,	  /* HOST_CHECK, HOST_ASSERT, HOST_WARN_ON */
	SCHED_LOCK_ORDER, /* host/lock_order.h, and misuse of locks */
	SCHED_DEADLOCK,	  /* no fiber can go on, ever */
	SCHED_LIVELOCK,	  /* they go on, but nothing is achieved (sched_progress) */
	SCHED_LEAK,	  /* memory or a thread is left at the end */
	SCHED_MEMORY,	  /* a write after free, freed twice, beyond the end */
	SCHED_CRASH,	  /* a signal: a wild pointer */
	SCHED_RESULTS,
};

struct sched_event;

struct sched_options {
	enum sched_kind kind;
	u64 seed;
	u32 depth;  /* SCHED_PCT: changes of priority; 0: 3 */
	u64 length; /* SCHED_PCT: points that a run is expected to have; 0: 2000 */
	/* SCHED_REPLAY */
	const struct sched_choice *choices;
	u32 n_choices;
	/* The n-th allocation or start of a thread fails; 0: none. */
	u64 fail_alloc;
	/* Limits: points in all (0: 20 million), points and virtual ns without
	 * sched_progress (0: 400,000; 100 s). */
	u64 max_points, max_idle_points, max_idle_time;
	/* Atomic operations are points, too. */
	bool atomics;
	/* AddressSanitizer, if there is one, is told what memory is no one's, and ends the
	 * process with a report of its own as soon as that is touched. Without, SCHED_MEMORY
	 * tells of what was written, once the run looks. */
	bool poison;
	/* Where they are none, the explorer knows of them all the same, and of plain ones
	 * (host_read_once, host_write_once). */
	bool atomics_ordered;
	/* Starts and stops the work pool around fn. */
	bool work;
	/* Called every check_period points (0: never), on the fiber that runs then, with
	 * points off; may call sched_fail. */
	void (*check)(void *check_arg);
	void *check_arg;
	u64 check_period;
	/* Each point is told; for charts. Not a point itself. */
	void (*watch)(void *watch_arg, const struct sched_event *event);
	void *watch_arg;
};

enum sched_point_kind {
	POINT_START, /* a fiber begins */
	POINT_END,
	POINT_LOCK,
	POINT_TRYLOCK,
	POINT_UNLOCK,
	POINT_READ_LOCK, /* shared with other readers */
	POINT_READ_UNLOCK,
	POINT_WRITE_LOCK,
	POINT_WAIT,
	POINT_WAKE,
	POINT_ATOMIC,
	POINT_ALLOC,
	POINT_FREE,
	POINT_COPY,
	POINT_SLEEP,
	POINT_RELAX,
	POINT_JOIN,
	POINT_WORK,
	POINT_FAULT,
	POINT_NOTIFIER,
	POINT_FLUSH,
	POINT_MODEL, /* a step within a model's operation */
	POINT_NOTE,  /* sched_note(): no point, only told */
	POINT_KINDS,
};

struct sched_event {
	u32 fiber, point;
	enum sched_point_kind kind;
	const char *what, *function; /* what: of the object, in the source's words */
	const void *object;
	bool waits; /* it cannot go on until it is woken, or late */
	u64 now;
};

struct sched_outcome {
	enum sched_result result;
	char text[3072]; /* what is wrong: one line, then details. "" if nothing is */
	u32 fiber;	 /* where it was found */
	u64 points, allocations, fibers, time;
	/* What was not by default; good until the next run. */
	const struct sched_choice *choices;
	u32 n_choices;
};

/* Runs fn(arg) as fiber 0 until it and all it started are over, or something is
 * wrong: then all fibers are abandoned where they are. */
void sched_run(const struct sched_options *options, void (*fn)(void *), void *arg,
	       struct sched_outcome *ret);
const char *sched_result_name(enum sched_result result);
const char *sched_point_name(enum sched_point_kind kind);
/* The name of a fiber of the last run. */
const char *sched_fiber_name(u32 fiber);

/* ---- Within a run ---------------------------------------------------------- */

/* True within a run. */
bool sched_running(void);
/* Ends the run with this result. */
void sched_fail(enum sched_result result, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
/* Something was achieved: the limits of livelock count from here. */
void sched_progress(void);
/* A point of a model's own. object: what is about to be touched. */
void sched_point(enum sched_point_kind kind, const void *object);
/* What the running step reads or writes beside the object of its point: for what is
 * known only once it runs, or is many things. The point's object may then be NULL. */
void sched_access(const void *object, bool write);
/* A wait's look at what happens once, and without which the running fiber does not go on;
 * whoever does it writes object. The value: done. */
bool sched_await(const void *object, bool done);
/* Tells the watcher. Costs nothing without one. */
void sched_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Memory is short from the n-th time on that a shrinker has something to give back (0: it
 * never is, as a run begins). */
void sched_pressure(u64 n);
/* By the seed and the running fiber alone, not by the schedule. */
u64 sched_random(void);
u32 sched_self(void);
/* While > 0 for the running fiber there are no points: for checks. */
void sched_quiet(int by);
/* Bytes that host_memcpy and host_memset (not at libc's) are about to touch, and by
 * which fiber: a model checks them. NULL: none. Reset by each run's beginning. */
extern void (*sched_touch)(const void *p, size_t n, bool write);

/* ---- Exhaustive ------------------------------------------------------------- */

struct sched_explore_options {
	u32 preemptions; /* at most in one run */
	u64 max_runs;	 /* 0: no limit */
	u64 max_time;	 /* ns of processor time; 0: no limit */
	bool all;	 /* those that only differ in steps that commute, too: for tests */
};
struct sched_explored {
	u64 runs;      /* to the end */
	u64 cut;       /* begun, and left when they were known to repeat another */
	u64 points;    /* of all */
	bool complete; /* nothing is left within the bound */
};
/* While off (it is on at first), what comes is done by default in each run: setting up
 * and taking down. Nothing in other schedulers. */
void sched_explore_here(bool on);
/* Runs fn(arg) with every schedule that has no more than so many preemptions and
 * that may differ: two steps commute unless they touch one object and the pair could
 * have come in the other order (dynamic partial order reduction, with the points that
 * a bound needs: Coons, Musuvathi, McKinley 2013). Steps on memory that no point
 * tells of count as commuting. Ends with the first run that is not SCHED_OK: *ret.
 * A limit: that writers who wait keep readers out ends turns without a preemption; where
 * it does, few orders that need two preemptions more may be left out. */
void sched_explore(const struct sched_options *options, const struct sched_explore_options *bounds,
		   void (*fn)(void *), void *arg, struct sched_explored *explored,
		   struct sched_outcome *ret);

#endif
