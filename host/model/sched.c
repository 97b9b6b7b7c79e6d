/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched.c: a run: its fibers, their switching, virtual time, and the limits.
 *
 * One thread of the system; the state below is plain. Sets of fibers are words
 * of 64 bits. A fiber is in exactly one of: running or runnable, blocked (waits
 * for an object, maybe with a deadline), over.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/model/sched_order.h"
#include "host/posix/shrinker.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct sched sched;
struct sched_place sched_place;
void (*sched_touch)(const void *p, size_t n, bool write);

/* ---- Fiber-local variables ------------------------------------------------- */

/* The linker's names for what HOST_THREAD_LOCAL gathers. */
extern char __start_fiber_local[], __stop_fiber_local[];
static HOST_THREAD_LOCAL u64 at_least_one __attribute__((used));
static char pristine[FIBER_LOCAL];
static bool pristine_known;

static size_t local_size(void)
{
	return (size_t)(__stop_fiber_local - __start_fiber_local);
}

static void local_begin(void)
{
	if (!pristine_known) {
		HOST_CHECK(local_size() <= FIBER_LOCAL);
		memcpy(pristine, __start_fiber_local, local_size());
		pristine_known = true;
	}
	memcpy(__start_fiber_local, pristine, local_size());
}

/* ---- Switching --------------------------------------------------------------- */

static u64 bit(u32 fiber)
{
	return (u64)1 << fiber;
}

static void switch_to(u32 next)
{
	struct sched_fiber *from = sched.self, *to = &sched.fibers[next];

	if (from == to)
		return;
	memcpy(from->local, __start_fiber_local, local_size());
	memcpy(__start_fiber_local, to->local, local_size());
	from->place = sched_place;
	sched.current = next;
	sched.self = to;
	fiber_switch(&from->context, &to->context);
	sched_place = from->place;
}

/* Ends the run; the outcome is set. */
static void __attribute__((noreturn)) leave(void)
{
	sched.active = false;
	fiber_switch(NULL, &sched.root);
	__builtin_unreachable();
}

void sched_fail(enum sched_result result, const char *format, ...)
{
	struct sched_outcome *outcome = sched.outcome;
	va_list args;

	sched.active = false; /* no points from here on */
	outcome->result = result;
	outcome->fiber = sched.current;
	va_start(args, format);
	vsnprintf(outcome->text, sizeof(outcome->text), format, args);
	va_end(args);
	if (result == SCHED_DEADLOCK || result == SCHED_LIVELOCK || result == SCHED_LEAK)
		report_waits(outcome);
	else
		report_add(outcome, "\n  found by %s (#%u) at its point %u, in %s (%s)",
			   sched.self->name, sched.current, sched.self->points,
			   sched_place.function ? sched_place.function : "?",
			   sched_place.what ? sched_place.what : "");
	leave();
}

void sched_abandon(void)
{
	leave();
}

/* ---- Time and limits ----------------------------------------------------------- */

static void time_set_next(void)
{
	u64 left, deadline = HOST_FOREVER;

	for (left = sched.timed; left; left &= left - 1)
		deadline = host_min(deadline, sched.fibers[__builtin_ctzll(left)].deadline);
	sched.next_deadline = deadline;
}

static void time_expire(void)
{
	u64 left;

	for (left = sched.timed; left; left &= left - 1) {
		u32 i = (u32)__builtin_ctzll(left);

		if (sched.fibers[i].deadline > sched.now)
			continue;
		sched.fibers[i].late = true;
		sched.timed &= ~bit(i);
		sched.blocked &= ~bit(i);
		sched.runnable |= bit(i);
	}
	time_set_next();
}

static void set_stop(void)
{
	u64 stop = sched.progress_points + sched.options.max_idle_points;

	stop = host_min(stop, sched.options.max_points);
	sched.stop_at = host_min(stop, sched.next_check);
}

/* A limit is reached, or it is time for a check. */
static void at_stop(void)
{
	if (sched.points >= sched.next_check) {
		sched.next_check = sched.points + sched.options.check_period;
		sched_quiet(1);
		sched.options.check(sched.options.check_arg);
		sched_quiet(-1);
		memory_check();
	}
	if (sched.points - sched.progress_points >= sched.options.max_idle_points)
		sched_fail(SCHED_LIVELOCK, "nothing was achieved in %llu points",
			   (unsigned long long)sched.options.max_idle_points);
	if (sched.points >= sched.options.max_points)
		sched_fail(SCHED_LIVELOCK, "%llu points, and no end",
			   (unsigned long long)sched.points);
	set_stop();
}

/* No one can go on now. */
static void jump(void)
{
	if (sched.next_deadline == HOST_FOREVER)
		sched_fail(SCHED_DEADLOCK, "deadlock: no one can go on");
	sched.now = host_max(sched.now, sched.next_deadline);
	if (sched.now - sched.progress_now > sched.options.max_idle_time)
		sched_fail(SCHED_LIVELOCK, "nothing was achieved in %llu virtual ms",
			   (unsigned long long)(sched.options.max_idle_time / HOST_MSEC));
	time_expire();
}

void sched_progress(void)
{
	sched.progress_points = sched.points;
	sched.progress_now = sched.now;
	set_stop();
}

/* ---- Points -------------------------------------------------------------------- */

static void tell(enum sched_point_kind kind, const void *object, bool waits)
{
	struct sched_event event = {
	    .fiber = sched.current,
	    .point = sched.self->points,
	    .kind = kind,
	    .what = sched_place.what,
	    .function = sched_place.function,
	    .object = object,
	    .waits = waits,
	    .now = sched.now,
	};

	sched.options.watch(sched.options.watch_arg, &event);
}

/* Counts the point and looks at clock and limits. */
static void count(enum sched_point_kind kind, const void *object, bool waits)
{
	sched.points++;
	sched.self->points++;
	sched.now += POINT_NS;
	if (host_unlikely(sched.options.watch != NULL))
		tell(kind, object, waits);
	if (host_unlikely(sched.now >= sched.next_deadline))
		time_expire();
	if (host_unlikely(sched.points >= sched.stop_at))
		at_stop();
}

/* Who goes on, of those that can. */
static void choose(enum sched_point_kind kind, const void *object)
{
	u64 set;
	u32 next;

	while (!sched.runnable)
		jump();
	set = sched.runnable;
	next = set & (set - 1) ? pick_next(set, kind, object) : (u32)__builtin_ctzll(set);
	sched.lazy &= ~bit(next);
	switch_to(next);
}

void sched_point(enum sched_point_kind kind, const void *object)
{
	if (!sched.active || sched.self->quiet)
		return;
	count(kind, object, false);
	if (sched.runnable != bit(sched.current))
		choose(kind, object);
}

void (*sched_accessed)(const void *object, bool write);
void (*sched_awaited)(const void *object);

void sched_access(const void *object, bool write)
{
	if (!sched_accessed || !sched.active || sched.self->quiet)
		return;
	sched.self->told = true;
	sched_accessed(object, write);
}

bool sched_await(const void *object, bool done)
{
	sched.self->told = true;
	if (done && sched_awaited && sched.active && !sched.self->quiet)
		sched_awaited(object);
	return done;
}

void sched_atomic(const volatile void *p, bool write)
{
	if (!sched.active)
		return;
	sched.self->told |= sched.options.atomics;
	if (sched.options.atomics)
		sched_point(POINT_ATOMIC, (const void *)p);
	else if (sched.options.atomics_ordered)
		sched_access((const void *)p, write);
}

void sched_once(const volatile void *p, bool write)
{
	if (sched.options.atomics_ordered)
		sched_access((const void *)p, write);
}

bool sched_block(enum sched_point_kind kind, const void *object, u64 deadline)
{
	struct sched_fiber *self = sched.self;

	HOST_CHECK(sched.active && !self->quiet);
	count(kind, object, true);
	self->kind = kind;
	self->object = object;
	self->deadline = deadline;
	self->late = false;
	sched.runnable &= ~bit(sched.current);
	sched.blocked |= bit(sched.current);
	if (deadline != HOST_FOREVER) {
		sched.timed |= bit(sched.current);
		sched.next_deadline = host_min(sched.next_deadline, deadline);
	}
	choose(kind, object);
	self->object = NULL;
	return self->late;
}

void sched_wake(const void *object)
{
	bool timed = false;
	u64 left;

	for (left = sched.blocked; left; left &= left - 1) {
		u32 i = (u32)__builtin_ctzll(left);

		if (sched.fibers[i].object != object)
			continue;
		timed |= sched.timed & bit(i);
		sched.timed &= ~bit(i);
		sched.blocked &= ~bit(i);
		sched.runnable |= bit(i);
	}
	if (timed)
		time_set_next();
}

void sched_yield_lazy(void)
{
	if (!sched.active || sched.self->quiet)
		return;
	count(POINT_RELAX, NULL, false);
	if (sched.runnable == bit(sched.current)) {
		sched.now += HOST_USEC / 10;
		return;
	}
	sched.lazy |= bit(sched.current);
	choose(POINT_RELAX, NULL);
}

/* ---- Fibers ---------------------------------------------------------------------- */

static void fiber_main(void)
{
	struct sched_fiber *self = sched.self;

	fiber_entered();
	if (host_unlikely(sched.options.watch != NULL))
		tell(POINT_START, NULL, false);
	self->fn(self->arg);
	HOST_CHECK(!self->quiet);
	sched_point(POINT_END, self);
	self->over = true;
	sched.runnable &= ~bit(sched.current);
	if (sched.current == 0)
		leave();
	sched_wake(self);
	self->points++; /* a decision of its own */
	choose(POINT_END, self);
	__builtin_unreachable();
}

bool sched_over(u32 fiber)
{
	return sched.fibers[fiber].over;
}

int sched_spawn(const char *name, void (*fn)(void *), void *arg, u32 *ret)
{
	struct sched_fiber *fiber;
	struct fiber_stack *stack;

	if (sched.n_fibers == SCHED_FIBERS)
		return -EAGAIN;
	stack = fiber_stack_get();
	if (!stack)
		return -ENOMEM;
	*ret = sched.n_fibers++;
	fiber = &sched.fibers[*ret];
	memset(fiber, 0, offsetof(struct sched_fiber, local));
	memcpy(fiber->local, pristine, local_size());
	fiber->fn = fn;
	fiber->arg = arg;
	snprintf(fiber->name, sizeof(fiber->name), "%s", name);
	fiber->random =
	    (sched.options.seed + 1) * 0x9e3779b97f4a7c15ull + *ret * 0x632be59bd9b4e019ull;
	fiber_make(&fiber->context, stack, fiber_main);
	pick_spawned(*ret);
	order_spawn(*ret);
	sched.runnable |= bit(*ret);
	return 0;
}

u64 sched_random(void)
{
	u64 *s = &sched.self->random, x;

	/* splitmix64 */
	x = *s += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

u32 sched_self(void)
{
	return sched.current;
}

bool sched_running(void)
{
	return sched.active;
}

void sched_quiet(int by)
{
	sched.self->quiet += by;
}

void sched_note(const char *format, ...)
{
	char text[200];
	struct sched_place place = sched_place;
	va_list args;

	if (!sched.active || !sched.options.watch)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	sched_place.what = text;
	tell(POINT_NOTE, NULL, false);
	sched_place = place;
}

bool sched_alloc_fails(void)
{
	return ++sched.allocations == sched.options.fail_alloc;
}

/* ---- A run ------------------------------------------------------------------------ */

struct entry {
	void (*fn)(void *);
	void *arg;
	bool work;
};

static void check_end(void)
{
	u64 live = sched.live;
	u32 i;

	for (i = 1; i < sched.n_fibers; i++)
		if (!sched.fibers[i].over)
			sched_fail(SCHED_LEAK, "%s (#%u) was never joined", sched.fibers[i].name,
				   i);
	memory_check();
	if (live)
		sched_fail(SCHED_LEAK, "%llu allocations were not freed", (unsigned long long)live);
}

static void enter(void *arg)
{
	struct entry *entry = arg;

	if (entry->work)
		HOST_CHECK(host_work_start() == 0);
	entry->fn(entry->arg);
	if (entry->work)
		host_work_stop();
	check_end();
}

static void defaults(struct sched_options *options)
{
	if (!options->max_points)
		options->max_points = 20000000;
	if (!options->max_idle_points)
		options->max_idle_points = 400000;
	if (!options->max_idle_time)
		options->max_idle_time = 100 * HOST_SEC;
}

void sched_run(const struct sched_options *options, void (*fn)(void *), void *arg,
	       struct sched_outcome *ret)
{
	struct entry entry = {fn, arg, options->work};
	u32 first;

	HOST_CHECK(!sched.active);
	memset(&sched, 0, offsetof(struct sched, fibers));
	sched.options = *options;
	defaults(&sched.options);
	sched.outcome = ret;
	ret->result = SCHED_OK;
	ret->text[0] = '\0';
	sched.now = HOST_SEC;
	sched.next_deadline = HOST_FOREVER;
	sched.next_check =
	    options->check && options->check_period ? options->check_period : ~(u64)0;
	sched.progress_now = sched.now;
	set_stop();
	sched_touch = NULL;
	local_begin();
	memory_begin();
	work_begin();
	shrinkers_forget();
	pick_init();
	HOST_CHECK(sched_spawn("main", enter, &entry, &first) == 0);

	report_signals_begin();
	sched.self = &sched.fibers[0];
	sched.active = true;
	fiber_switch(&sched.root, &sched.fibers[0].context);
	report_signals_end();

	for (u32 i = 0; i < sched.n_fibers; i++)
		fiber_stack_put(sched.fibers[i].context.stack);
	local_begin();
	ret->points = sched.points;
	ret->allocations = sched.allocations;
	ret->fibers = sched.n_fibers;
	ret->time = sched.now - HOST_SEC;
	pick_results(ret);
}
