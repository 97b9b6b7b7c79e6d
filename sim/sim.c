/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* sim.c: cases, and running them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim/private.h"

#include <stdlib.h>
#include <string.h>

#define CHECK_PERIOD 1000u
#define PCT_LENGTH 1500u

size_t sim_scenarios(void)
{
	size_t n = 0;

	while (sim_scenario_table[n].name)
		n++;
	return n;
}

const char *sim_scenario_name(size_t i)
{
	return sim_scenario_table[i].name;
}

const char *sim_scenario_about(size_t i)
{
	return sim_scenario_table[i].about;
}

int sim_scenario_find(const char *name)
{
	for (size_t i = 0; sim_scenario_table[i].name; i++)
		if (!strcmp(sim_scenario_table[i].name, name))
			return (int)i;
	return -1;
}

const char *sim_adversary_name(uint32_t kind)
{
	static const char *const names[ADVERSARIES] = {
	    [ADVERSARY_NONE] = "none",
	    [ADVERSARY_ALLOC] = "alloc",
	    [ADVERSARY_FAIL_COPY] = "fail-copy",
	    [ADVERSARY_DROP_FAULT] = "drop-fault",
	    [ADVERSARY_DUPLICATE_FAULT] = "duplicate-fault",
	    [ADVERSARY_DELAY_FAULT] = "delay-fault",
	    [ADVERSARY_DELAY_FLUSH] = "delay-flush",
	    [ADVERSARY_BEGIN] = "begin",
	    [ADVERSARY_ISOLATE] = "isolate",
	    [ADVERSARY_SYSTEM_PAGE] = "system-page",
	    [ADVERSARY_HUGE_PAGE] = "huge-page",
	    [ADVERSARY_COMMIT] = "commit",
	    [ADVERSARY_DMA_MAP] = "dma-map",
	    [ADVERSARY_NOTIFIER] = "notifier",
	    [ADVERSARY_RANGE_FAULT] = "range-fault",
	    [ADVERSARY_RANGE_BUSY] = "range-busy",
	};

	return kind < ADVERSARIES ? names[kind] : NULL;
}

/* ---- Cases -------------------------------------------------------------------------- */

static u64 next_random(u64 *s)
{
	u64 x = *s += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* Half of the runs have none, so that errors have no excuse; an eighth two. */
static void choose_adversaries(struct sim_case *c, u64 *random)
{
	static const u32 reach[ADVERSARIES] = {
	    [ADVERSARY_ALLOC] = 300,
	    [ADVERSARY_DELAY_FLUSH] = 5000,
	};
	u32 n = (u32)(next_random(random) % 8);

	n = n < 4 ? 0 : n < 7 ? 1 : 2;
	for (u32 i = 0; i < n; i++) {
		struct sim_adversary *a = &c->adversaries[i];

		/* Every other one is an allocation: there are the most of these. */
		a->kind = next_random(random) % 2
			      ? ADVERSARY_ALLOC
			      : 1 + (u32)(next_random(random) % (ADVERSARIES - 1));
		a->n = 1 + (u32)(next_random(random) % (reach[a->kind] ? reach[a->kind] : 12));
	}
	if (n == 2 && c->adversaries[0].kind == c->adversaries[1].kind)
		c->adversaries[1] = (struct sim_adversary){0};
}

/* Two of the actors, by the seed, one round each. */
static void keep_two(struct sim_case *c, const struct sim_scenario *sc)
{
	u64 pair = c->seed;
	u32 n = 0, first = 0;

	while (n < SIM_ACTORS && sc->roles[n].step)
		n++;
	for (pair %= n * (n - 1) / 2; pair >= n - 1 - first; first++)
		pair -= n - 1 - first;
	for (u32 i = 0; i < SIM_ACTORS; i++)
		c->keep[i] = i == first || i == first + 1 + pair;
}

void sim_case_make(struct sim_case *c, size_t scenario, uint64_t seed, uint32_t devices,
		   enum sim_scheduler scheduler)
{
	const struct sim_scenario *sc = &sim_scenario_table[scenario];
	u64 random = seed ^ 0x73696d;

	*c = (struct sim_case){.scenario = (u32)scenario,
			       .seed = seed,
			       .devices = devices ? devices : sc->devices,
			       .scheduler = scheduler};
	c->devices = host_min(c->devices, SIM_DEVICES);
	for (u32 i = 0; i < SIM_ACTORS; i++)
		c->keep[i] = sc->roles[i].rounds ? ~(u64)0 >> (64 - sc->roles[i].rounds) : 0;
	if (scheduler == SIM_EXHAUSTIVE) {
		keep_two(c, sc);
		return;
	}
	c->atomics = next_random(&random) % 2;
	c->links = c->devices > 1 && next_random(&random) % 2;
	choose_adversaries(c, &random);
}

void sim_case_free(struct sim_case *c)
{
	free(c->choices);
	c->choices = NULL;
	c->n_choices = 0;
}

/* ---- Runs ------------------------------------------------------------------------------ */

_Static_assert(sizeof(struct sim_choice) == sizeof(struct sched_choice), "one is the other");

static void options_of(const struct sim_case *c, struct sched_options *options)
{
	*options = (struct sched_options){
	    .kind = c->replay		      ? SCHED_REPLAY
		    : c->scheduler == SIM_PCT ? SCHED_PCT
					      : SCHED_RANDOM,
	    .seed = c->seed,
	    .length = PCT_LENGTH,
	    .depth = 3 + c->seed % 3,
	    .choices = (const struct sched_choice *)(const void *)c->choices,
	    .n_choices = (u32)c->n_choices,
	    .atomics = c->atomics,
	    .work = true,
	    .check = sim_check,
	    .check_period = CHECK_PERIOD,
	    .max_idle_points = 200000,
	    .max_idle_time = 100 * HOST_SEC,
	};
	model_begin();
	sim_check_begin();
}

static void result_of(const struct sched_outcome *outcome, struct sim_result *ret)
{
	ret->result = (int)outcome->result;
	ret->kind = sched_result_name(outcome->result);
	memcpy(ret->text, outcome->text, sizeof(ret->text));
	ret->points = outcome->points;
	ret->allocations = outcome->allocations;
	ret->fibers = outcome->fibers;
}

static struct sched_outcome outcome;

void sim_run_watched(const struct sim_case *c, struct sim_result *ret,
		     void (*watch)(void *arg, const struct sched_event *event), void *arg)
{
	struct sched_options options;

	options_of(c, &options);
	options.watch = watch;
	options.watch_arg = arg;
	sched_run(&options, sim_world, (void *)(uintptr_t)c, &outcome);
	result_of(&outcome, ret);
}

void sim_run(const struct sim_case *c, struct sim_result *ret)
{
	sim_run_watched(c, ret, NULL, NULL);
}

void sim_case_record(struct sim_case *c, struct sim_result *ret)
{
	struct sim_choice *choices;

	sim_run(c, ret);
	choices = malloc((outcome.n_choices + 1) * sizeof(*choices));
	HOST_CHECK(choices);
	memcpy(choices, outcome.choices, outcome.n_choices * sizeof(*choices));
	free(c->choices);
	c->choices = choices;
	c->n_choices = outcome.n_choices;
	c->replay = true;
}

void sim_explore(struct sim_case *c, uint32_t preemptions, uint64_t max_runs, uint64_t max_ns,
		 struct sim_explored *explored, struct sim_result *ret)
{
	struct sched_explore_options bounds = {preemptions, max_runs, max_ns};
	struct sched_options options;
	struct sched_explored done;

	options_of(c, &options);
	sched_explore(&options, &bounds, sim_world, c, &done, &outcome);
	result_of(&outcome, ret);
	*explored = (struct sim_explored){done.runs, done.points, done.complete};
	if (outcome.result == SCHED_OK)
		return;
	free(c->choices);
	c->choices = malloc((outcome.n_choices + 1) * sizeof(*c->choices));
	HOST_CHECK(c->choices);
	memcpy(c->choices, outcome.choices, outcome.n_choices * sizeof(*c->choices));
	c->n_choices = outcome.n_choices;
	c->replay = true;
}
