/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched_report.c: what goes wrong, in words: panics and warnings of host.h, broken
 * lock order, signals, and who waits for what. No locks.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/model/sched_internal.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Names ------------------------------------------------------------------- */

const char *sched_result_name(enum sched_result result)
{
	static const char *const names[SCHED_RESULTS] = {
	    [SCHED_OK] = "ok",
	    [SCHED_LAW] = "law broken",
	    [SCHED_PANIC] = "panic",
	    [SCHED_LOCK_ORDER] = "lock order",
	    [SCHED_DEADLOCK] = "deadlock",
	    [SCHED_LIVELOCK] = "livelock",
	    [SCHED_LEAK] = "leak",
	    [SCHED_MEMORY] = "memory",
	    [SCHED_CRASH] = "crash",
	};

	return result < SCHED_RESULTS ? names[result] : "?";
}

const char *sched_point_name(enum sched_point_kind kind)
{
	static const char *const names[POINT_KINDS] = {
	    [POINT_START] = "begins",
	    [POINT_END] = "ends",
	    [POINT_LOCK] = "lock",
	    [POINT_UNLOCK] = "unlock",
	    [POINT_WRITE_LOCK] = "write lock",
	    [POINT_TRYLOCK] = "trylock",
	    [POINT_READ_LOCK] = "read lock",
	    [POINT_READ_UNLOCK] = "read unlock",
	    [POINT_WAIT] = "wait",
	    [POINT_WAKE] = "wake",
	    [POINT_ATOMIC] = "atomic",
	    [POINT_ALLOC] = "alloc",
	    [POINT_FREE] = "free",
	    [POINT_COPY] = "copy",
	    [POINT_SLEEP] = "sleep",
	    [POINT_RELAX] = "busy",
	    [POINT_JOIN] = "join",
	    [POINT_WORK] = "work",
	    [POINT_FAULT] = "fault",
	    [POINT_NOTIFIER] = "notifier",
	    [POINT_FLUSH] = "flush",
	    [POINT_MODEL] = "step",
	    [POINT_NOTE] = "-",
	};

	return kind < POINT_KINDS ? names[kind] : "?";
}

const char *sched_fiber_name(u32 fiber)
{
	return fiber < sched.n_fibers ? sched.fibers[fiber].name : "?";
}

static const char *rank_name(u32 rank)
{
	static const char *const names[] = {
	    [RANK_NONE] = "unranked",
	    [RANK_RUNTIME] = "runtime",
	    [RANK_DRIVER_LINKS] = "driver links",
	    [RANK_DRIVER_VM] = "driver vm",
	    [RANK_DRIVER_RANGE] = "driver range",
	    [RANK_DRIVER_LRU] = "driver lru",
	    [RANK_MIRROR_TREE] = "mirror tree",
	    [RANK_DEVMEM] = "devmem",
	    [RANK_DEVICE_MEMORY] = "device memory",
	    [RANK_NOTIFIER_LIST] = "notifier list",
	    [RANK_MIRROR] = "notifier",
	    [RANK_DRIVER_GARBAGE] = "driver garbage",
	    [RANK_DRIVER_ADVICE] = "driver advice",
	    [RANK_DEVICE_VM] = "device vm",
	    [RANK_DEVICE_QUEUE] = "device queue",
	    [RANK_FENCE] = "fence",
	    [RANK_HOST_BLOCK] = "block",
	    [RANK_HOST_GATE] = "gate",
	    [RANK_HOST_POOL] = "pool",
	    [RANK_HOST] = "host",
	    [RANK_LEAF] = "leaf",
	};

	return rank < host_array_size(names) && names[rank] ? names[rank] : "?";
}

/* ---- Text --------------------------------------------------------------------- */

void report_add(struct sched_outcome *outcome, const char *format, ...)
{
	size_t n = strlen(outcome->text);
	va_list args;

	va_start(args, format);
	vsnprintf(outcome->text + n, sizeof(outcome->text) - n, format, args);
	va_end(args);
}

static void add_lock(struct sched_outcome *outcome, const struct sched_fiber *f)
{
	/* Both kinds begin alike; the first word tells them apart. */
	const struct host_mutex *m = f->object;
	const struct host_rwlock *l = f->object;
	u32 holder = 0;

	if (m->magic == 0x6d757465u)
		holder = m->owner;
	else
		holder = l->writer;
	report_add(outcome, "the %s lock #%u", rank_name(m->rank), m->serial);
	if (holder)
		report_add(outcome, ", which %s (#%u) holds", sched.fibers[holder - 1].name,
			   holder - 1);
	else if (m->magic != 0x6d757465u && l->readers)
		report_add(outcome, ", which %u read under", l->readers);
}

static void add_wait(struct sched_outcome *outcome, u32 i)
{
	const struct sched_fiber *f = &sched.fibers[i];
	const struct sched_place *place = i == sched.current ? &sched_place : &f->place;

	report_add(outcome, "\n  %s (#%u) ", f->name, i);
	if (!(sched.blocked >> i & 1)) {
		report_add(outcome, "can go on");
	} else {
		switch (f->kind) {
		case POINT_LOCK:
		case POINT_READ_LOCK:
		case POINT_WRITE_LOCK:
			report_add(outcome, "waits for ");
			add_lock(outcome, f);
			break;
		case POINT_WAIT:
			report_add(outcome, "waits on queue #%u",
				   ((const struct host_waitq *)f->object)->serial);
			break;
		case POINT_SLEEP:
			report_add(outcome, "sleeps");
			break;
		case POINT_JOIN:
			report_add(outcome, "waits for the end of %s",
				   ((const struct sched_fiber *)f->object)->name);
			break;
		default:
			report_add(outcome, "waits for %s", sched_point_name(f->kind));
		}
		if (f->deadline != HOST_FOREVER)
			report_add(outcome, ", at most until %llu us",
				   (unsigned long long)((f->deadline - HOST_SEC) / HOST_USEC));
	}
	report_add(outcome, ", in %s: %s", place->function ? place->function : "?",
		   place->what ? place->what : "?");
}

void report_waits(struct sched_outcome *outcome)
{
	for (u32 i = 0; i < sched.n_fibers; i++)
		if (!sched.fibers[i].over)
			add_wait(outcome, i);
}

/* ---- host.h's panics, the checker of ranks ------------------------------------------ */

void host_panic(const char *what, const char *file, int line)
{
	if (sched.active)
		sched_fail(SCHED_PANIC, "%s (%s:%d)", what, file, line);
	fprintf(stderr, "gpusvm: panic: %s (%s:%d)\n", what, file, line);
	abort();
}

void host_warn(const char *what, const char *file, int line)
{
	host_panic(what, file, line);
}

u64 host_posix_warnings(void)
{
	return 0;
}

/* Called by host/posix/rank.c before it gives up. */
void report_ranks(const char *what, enum host_lock_rank held, enum host_lock_rank taken);
void report_ranks(const char *what, enum host_lock_rank held, enum host_lock_rank taken)
{
	if (sched.active)
		sched_fail(SCHED_LOCK_ORDER, "%s: %s while %s is held", what, rank_name(taken),
			   rank_name(held));
	fprintf(stderr, "gpusvm: lock order: %s\n", what);
}

/* ---- Signals --------------------------------------------------------------------------- */

static const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
static struct sigaction before[host_array_size(caught)];
static char signal_stack[64 << 10] __attribute__((aligned(16)));
static stack_t stack_before;

/* On a stack of its own, which is left by the switch to the root; SA_NODEFER keeps
 * the mask as it was. */
static void on_signal(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (!sched.active)
		abort();
	sched_fail(SCHED_CRASH, "signal %d at address %p%s", number, info->si_addr,
		   info->si_addr ? "" : " (or a pattern of freed memory)");
}

void report_signals_begin(void)
{
	struct sigaction action = {.sa_sigaction = on_signal,
				   .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof(signal_stack)};

	sigaltstack(&stack, &stack_before);
	for (size_t i = 0; i < host_array_size(caught); i++)
		sigaction(caught[i], &action, &before[i]);
}

void report_signals_end(void)
{
	for (size_t i = 0; i < host_array_size(caught); i++)
		sigaction(caught[i], &before[i], NULL);
	sigaltstack(&stack_before, NULL);
}
