/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* actors.c: those who act in a scenario. Fibers of one thread; no locks. */
#include "sim/scenario.h"

#define IDLE_ROUNDS 50u

static struct {
	struct sim_actor actors[SIM_ACTORS];
	u32 running; /* those with rounds that are not over */
	u32 turns;   /* rounds that were taken */
	bool daemons;
	struct host_waitq waitq; /* daemons, until turns has changed or no one is running */
} all;

u64 sim_below(struct sim_actor *a, u64 n)
{
	u64 x = a->random += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return (x ^ x >> 31) % n;
}

static void take_round(struct sim_actor *a)
{
	a->random = a->c->seed * 0x9e3779b97f4a7c15ull + a->index * 0x632be59bd9b4e019ull +
		    a->round * 0xd1342543de82ef95ull;
	a->role->step(a->sim, a);
}

static void actor_main(void *arg)
{
	struct sim_actor *a = arg;
	u64 keep = a->c->keep[a->index];

	for (; a->round < a->role->rounds; a->round++) {
		if (!(keep >> a->round & 1))
			continue;
		take_round(a);
		all.turns++;
		if (all.daemons)
			host_wake_all(&all.waitq);
	}
	all.running--;
	if (all.daemons)
		host_wake_all(&all.waitq);
}

/* Who does not end by itself rests when no one else gets on: else a deadlock would look
 * like work. */
static void daemon_main(void *arg)
{
	struct sim_actor *a = arg;
	u32 seen = all.turns, idle = 0;

	for (; all.running; a->round++) {
		take_round(a);
		if (seen != all.turns)
			idle = 0;
		seen = all.turns;
		if (idle++ == IDLE_ROUNDS)
			host_wait(&all.waitq, seen != all.turns || !all.running);
	}
}

void sim_act(struct sim *s, const struct sim_case *c, bool may_fail)
{
	const struct sim_role *roles = sim_scenario_at(c->scenario)->roles;
	int err;

	all.running = all.turns = 0;
	all.daemons = false;
	host_waitq_init(&all.waitq);
	for (u32 i = 0; i < SIM_ACTORS; i++) {
		all.actors[i] = (struct sim_actor){.sim = s, .c = c, .role = &roles[i], .index = i};
		all.running += c->keep[i] && roles[i].rounds;
		all.daemons |= c->keep[i] && !roles[i].rounds;
	}
	for (u32 i = 0; i < SIM_ACTORS; i++) {
		if (!c->keep[i])
			continue;
		err = host_thread_start(&all.actors[i].thread, roles[i].name,
					roles[i].rounds ? actor_main : daemon_main, &all.actors[i]);
		if (err && !may_fail)
			sched_fail(SCHED_PANIC, "an actor cannot be started: %d", err);
		if (err && roles[i].rounds)
			all.running--;
	}
	for (u32 i = 0; i < SIM_ACTORS; i++)
		host_thread_join(&all.actors[i].thread);
	host_waitq_destroy(&all.waitq);
}
