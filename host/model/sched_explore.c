/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched_explore.c: every schedule within a bound, depth first, without those that
 * differ from one already seen only in the order of steps that commute.
 *
 * A node is a decision: who could go on, who did, who is still to be tried there
 * (todo). A run follows the nodes that are known, then goes on by default and adds
 * new ones. While it runs, each access is compared with the last one of another
 * fiber to the same object: had that fiber's turn come later, the two would have
 * come in the other order; so the second fiber is to be tried at the node before
 * the first access, and, since that may cost a preemption that the bound does not
 * allow, also where the first fiber's turn began. What is not reached by such
 * reversals commutes.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/model/sched_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct node {
	u64 runnable, todo, done;
	u32 fiber, chosen;
	u32 preemptions; /* before this one */
	bool forced;	 /* the fiber could not go on, or had rather not */
};

/* The last accesses to an object: the latest, and the latest of another fiber. */
struct access {
	const void *object;
	u32 fiber[2], node[2]; /* node: 1 + index of the last decision before it */
};

#define TABLE 8192u

static struct explorer {
	struct node *nodes;
	u32 n, room, depth; /* depth: the next decision of this run */
	struct access *table;
	u32 used;
	/* What each fiber does when it goes on. */
	const void *pending[SCHED_FIBERS];
	bool diverged;
	bool off; /* sched_explore_here */
} ex;

static bool is_access(enum sched_point_kind kind)
{
	switch (kind) {
	case POINT_LOCK:
	case POINT_WAIT:
	case POINT_WAKE:
	case POINT_ATOMIC:
	case POINT_COPY:
	case POINT_WORK:
	case POINT_FAULT:
	case POINT_NOTIFIER:
	case POINT_FLUSH:
	case POINT_MODEL:
		return true;
	default:
		return false;
	}
}

static struct access *find_access(const void *object)
{
	u64 slot = ((u64)(uintptr_t)object >> 2) * 0x9e3779b97f4a7c15ull >> 51;
	u32 tries;

	for (tries = 0; tries < TABLE; tries++) {
		struct access *a = &ex.table[(slot + tries) % TABLE];

		if (a->object == object)
			return a;
		if (!a->object) {
			a->object = object;
			a->fiber[0] = a->fiber[1] = ~0u;
			ex.used++;
			return a;
		}
	}
	return NULL;
}

/* g is to be tried at the node (by 1 + index), or whoever could lead to it. */
static void try_at(u32 node, u32 g)
{
	struct node *n = &ex.nodes[node - 1];
	u64 g_bit = (u64)1 << g;

	n->todo |= n->runnable & g_bit ? g_bit : n->runnable;
}

static void reverse(u32 node, u32 g)
{
	if (!node)
		return;
	try_at(node, g);
	/* Where that turn began, a switch costs nothing more. */
	while (node > 1 && ex.nodes[node - 1].chosen == ex.nodes[node - 1].fiber)
		node--;
	try_at(node, g);
}

static void note_access(u32 fiber, const void *object)
{
	struct access *a = find_access(object);
	u32 other;

	if (!a) {
		ex.diverged = true;
		return;
	}
	other = a->fiber[0] == fiber ? 1 : 0;
	if (a->fiber[other] != ~0u)
		reverse(a->node[other], fiber);
	if (a->fiber[0] != fiber) {
		a->fiber[1] = a->fiber[0];
		a->node[1] = a->node[0];
		a->fiber[0] = fiber;
	}
	a->node[0] = ex.depth;
}

/* The fiber that is at a point has just done what it announced at its last one. */
static void watch(void *arg, const struct sched_event *event)
{
	(void)arg;
	if (event->kind == POINT_NOTE)
		return;
	if (ex.off) {
		ex.pending[event->fiber] = NULL;
		return;
	}
	if (ex.pending[event->fiber])
		note_access(event->fiber, ex.pending[event->fiber]);
	ex.pending[event->fiber] = is_access(event->kind) ? event->object : NULL;
}

void sched_explore_here(bool on)
{
	ex.off = !on;
}

static bool is_preemption(const struct node *n, u32 chosen)
{
	return !n->forced && chosen != n->fiber;
}

static u32 decide(u64 set, enum sched_point_kind kind, const void *object)
{
	struct node *n;

	(void)kind;
	(void)object;
	if (ex.off)
		return pick_default(set);
	if (ex.depth < ex.n) {
		n = &ex.nodes[ex.depth++];
		if (n->fiber != sched.current || n->runnable != set)
			ex.diverged = true;
		return n->runnable == set ? n->chosen : pick_default(set);
	}
	if (ex.n == ex.room) {
		ex.room = ex.room ? 2 * ex.room : 4096;
		ex.nodes = realloc(ex.nodes, ex.room * sizeof(*ex.nodes));
		HOST_CHECK(ex.nodes);
	}
	n = &ex.nodes[ex.n++];
	*n = (struct node){.runnable = set, .fiber = sched.current};
	n->forced = !(set & ~sched.lazy & (u64)1 << sched.current);
	n->chosen = pick_default(set);
	n->done = (u64)1 << n->chosen;
	if (ex.depth)
		n->preemptions = n[-1].preemptions + is_preemption(&n[-1], n[-1].chosen);
	ex.depth++;
	return n->chosen;
}

/* Goes on to the next schedule. False: there is none. */
static bool backtrack(u32 bound)
{
	while (ex.n) {
		struct node *n = &ex.nodes[ex.n - 1];
		u64 left = n->todo & ~n->done;

		for (; left; left &= left - 1) {
			u32 g = (u32)__builtin_ctzll(left);

			n->done |= (u64)1 << g;
			if (n->preemptions + is_preemption(n, g) > bound)
				continue;
			n->chosen = g;
			return true;
		}
		ex.n--;
	}
	return false;
}

static u64 clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * HOST_SEC + (u64)ts.tv_nsec;
}

void sched_explore(const struct sched_options *options, const struct sched_explore_options *bounds,
		   void (*fn)(void *), void *arg, struct sched_explored *explored,
		   struct sched_outcome *ret)
{
	struct sched_options run = *options;
	u64 end = bounds->max_time ? clock_now() + bounds->max_time : ~(u64)0;

	*explored = (struct sched_explored){0};
	ex.n = 0;
	if (!ex.table)
		ex.table = malloc(TABLE * sizeof(*ex.table));
	HOST_CHECK(ex.table);
	run.watch = watch;
	sched_decide = decide;
	do {
		ex.depth = 0;
		ex.diverged = false;
		ex.off = false;
		memset(ex.table, 0, TABLE * sizeof(*ex.table));
		memset(ex.pending, 0, sizeof(ex.pending));
		sched_run(&run, fn, arg, ret);
		explored->runs++;
		explored->points += ret->points;
		if (ex.diverged && ret->result == SCHED_OK) {
			ret->result = SCHED_PANIC;
			strcpy(ret->text, "the same choices gave another run");
		}
		if (ret->result != SCHED_OK)
			break;
		explored->complete = !backtrack(bounds->preemptions);
	} while (!explored->complete && (!bounds->max_runs || explored->runs < bounds->max_runs) &&
		 clock_now() < end);
	sched_decide = NULL;
}
