/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched_explore.c: every schedule within a bound, depth first, without those that
 * differ from one already seen only in the order of steps that commute.
 *
 * A node is a decision: who could go on, who did, who is still to be tried there
 * (todo). A run follows the nodes that are known, then goes on by default and adds
 * new ones. While it runs, races are found (sched_order.h): pairs of steps that could
 * come in the other order. Had the second fiber's turn come earlier, they would have;
 * so it is to be tried at the node before the first step, and, since that may cost a
 * preemption that the bound does not allow, also where the first fiber's turn began.
 * What is not reached by such reversals commutes.
 *
 * Reversals alone come upon the same order of steps again and again, mostly as turns of
 * several fibers in each of their permutations. So a run is cut once it is known to
 * repeat one: at a node, fiber a was tried first, and all that can follow was seen; now
 * b is tried there, and when a's first turn since ends, nothing that it did depends on
 * anything that others did since the node. Then a's turn could as well have come first
 * (as sleep sets have it: Godefroid, "Partial-order methods", 1996), and with no more
 * preemptions: it ended where it ended, and what came before it goes on behind it.
 * Whoever else could go on in place of that turn is still to be tried, since what is
 * not run cannot ask for reversals.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/model/sched_order.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct node {
	u64 runnable, todo, done;
	u64 over; /* those of done that all was seen of */
	u32 fiber, chosen;
	u32 preemptions; /* before this one */
	u32 steps;	 /* before this one, of all fibers */
	bool forced;	 /* the fiber could not go on, or had rather not */
};

static struct explorer {
	struct node *nodes;
	u32 n, room, depth; /* depth: the next decision of this run */
	bool diverged;
	bool off; /* sched_explore_here */
	bool all; /* nothing is left out */
	bool cut; /* this run repeats another one */
	u32 last; /* whose turn it is */
	u32 turns;
	u32 turn; /* the node where that began, or the last before: by 1 + index */
	bool chosen_there;
	/* Nodes that this run passed where others were tried before, by index, and of these
	 * the ones whose first turn since is not over. */
	struct passed {
		u32 node, turns; /* turns: that had begun */
		u64 left;
	} * passed;
	u32 n_passed, passed_room;
} ex;

/* Fibers g, or if it cannot go on at the node, those that lead to its next step: it
 * comes after one that they make from there on. */
static u64 leads_to(const struct node *n, u32 g)
{
	u64 set = n->runnable & (u64)1 << g;

	if (set)
		return set;
	for (u64 left = n->runnable; left; left &= left - 1) {
		u32 q = (u32)__builtin_ctzll(left);

		if (order_last(g, q) > n->steps)
			set |= (u64)1 << q;
	}
	return set ? set : n->runnable;
}

/* node: 1 + index; 0: before the first. */
static void reverse(u32 node, u32 g)
{
	struct node *n;

	if (!node)
		return;
	n = &ex.nodes[node - 1];
	n->todo |= leads_to(n, g);
	/* Where that turn began, a switch costs nothing more. */
	while (node > 1 && ex.nodes[node - 1].chosen == ex.nodes[node - 1].fiber)
		node--;
	n = &ex.nodes[node - 1];
	n->todo |= leads_to(n, g);
}

/* This run repeats another, from the turn on that has just been: whoever could have had
 * it is tried, one by one. Else who had the turn before was tried first. */
static void __attribute__((noreturn)) cut(void)
{
	struct node *n = ex.turn ? &ex.nodes[ex.turn - 1] : NULL;

	if (n && ex.chosen_there && !(n->todo & ~n->done)) {
		u64 left = n->runnable & ~n->done;

		n->todo |= left & -left;
	}
	ex.cut = true;
	sched_abandon();
}

/* The fiber's turn has ended: may this run be another, with that turn first? */
static void look_for_repeated(u32 fiber)
{
	u64 bit = (u64)1 << fiber;
	bool repeated = false;

	for (u32 i = 0; i < ex.n_passed; i++) {
		struct passed *p = &ex.passed[i];

		if (!(p->left & bit) || p->turns == ex.turns)
			continue;
		p->left &= ~bit;
		repeated |= order_alone(fiber, ex.nodes[p->node].steps);
	}
	if (repeated)
		cut();
}

static void begin_turn(u32 fiber)
{
	const struct node *n = ex.depth ? &ex.nodes[ex.depth - 1] : NULL;

	ex.last = fiber;
	ex.turns++;
	ex.turn = ex.depth;
	/* Else there was no one else. */
	ex.chosen_there = n && n->chosen == fiber && n->fiber != fiber;
}

static void watch(void *arg, const struct sched_event *event)
{
	(void)arg;
	if (event->kind == POINT_NOTE)
		return;
	if (ex.off) {
		order_skip(event->fiber);
		return;
	}
	if (event->fiber != ex.last) {
		if (ex.last != SCHED_FIBERS)
			look_for_repeated(ex.last);
		begin_turn(event->fiber);
	}
	order_point(event, ex.depth, reverse);
}

static void accessed(const void *object, bool write)
{
	if (!ex.off)
		order_access(sched.current, object, write, ex.depth, reverse);
}

static void awaited(const void *object)
{
	if (!ex.off)
		order_await(sched.current, object, ex.depth);
}

void sched_explore_here(bool on)
{
	ex.off = !on;
}

static bool is_preemption(const struct node *n, u32 chosen)
{
	return !n->forced && chosen != n->fiber;
}

/* A node that this run passes. */
static void pass(u32 index)
{
	const struct node *n = &ex.nodes[index];

	if (!n->over || ex.all)
		return;
	if (ex.n_passed == ex.passed_room) {
		ex.passed_room = ex.passed_room ? 2 * ex.passed_room : 256;
		ex.passed = realloc(ex.passed, ex.passed_room * sizeof(*ex.passed));
		HOST_CHECK(ex.passed);
	}
	ex.passed[ex.n_passed++] = (struct passed){index, ex.turns, n->over};
}

static struct node *add_node(u64 set)
{
	struct node *n;

	if (ex.n == ex.room) {
		ex.room = ex.room ? 2 * ex.room : 4096;
		ex.nodes = realloc(ex.nodes, ex.room * sizeof(*ex.nodes));
		HOST_CHECK(ex.nodes);
	}
	n = &ex.nodes[ex.n++];
	*n = (struct node){.runnable = set, .fiber = sched.current};
	n->steps = order_steps();
	n->forced = !(set & ~sched.lazy & (u64)1 << sched.current);
	n->chosen = pick_default(set);
	n->done = (u64)1 << n->chosen;
	n->todo = ex.all ? set : 0;
	if (ex.depth)
		n->preemptions = n[-1].preemptions + is_preemption(&n[-1], n[-1].chosen);
	return n;
}

static u32 decide(u64 set, enum sched_point_kind kind, const void *object)
{
	struct node *n;

	(void)kind;
	(void)object;
	if (ex.off)
		return pick_default(set);
	if (ex.depth == ex.n)
		add_node(set);
	n = &ex.nodes[ex.depth];
	if (n->fiber != sched.current || n->runnable != set) {
		ex.diverged = true;
		return pick_default(set);
	}
	pass(ex.depth++);
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
			n->over |= (u64)1 << n->chosen;
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

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts); /* others make no difference */
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
	ex.all = bounds->all;
	run.watch = watch;
	sched_decide = decide;
	sched_accessed = accessed;
	sched_awaited = awaited;
	do {
		ex.depth = 0;
		ex.diverged = false;
		ex.off = ex.cut = false;
		ex.last = SCHED_FIBERS;
		ex.turns = ex.turn = ex.n_passed = 0;
		order_begin();
		sched_run(&run, fn, arg, ret);
		explored->runs += !ex.cut;
		explored->cut += ex.cut;
		explored->points += ret->points;
		if ((ex.diverged || order_overflow()) && ret->result == SCHED_OK) {
			ret->result = SCHED_PANIC;
			strcpy(ret->text, ex.diverged ? "the same choices gave another run"
						      : "more objects than can be told apart");
		}
		if (ret->result != SCHED_OK)
			break;
		explored->complete = !backtrack(bounds->preemptions);
	} while (!explored->complete && (!bounds->max_runs || explored->runs < bounds->max_runs) &&
		 clock_now() < end);
	sched_decide = NULL;
	sched_accessed = NULL;
	sched_awaited = NULL;
}
