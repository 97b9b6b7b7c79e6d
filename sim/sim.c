/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* sim.c: cases, and running them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim/private.h"

#include <stdlib.h>
#include <string.h>

static const struct sim_level *const levels[] = {&sim_memory_level, &sim_userfault_level};

static size_t scenarios_of(const struct sim_level *level)
{
	size_t n = 0;

	while (level->scenarios[n].name)
		n++;
	return n;
}

/* Scenarios are numbered through all levels. */
static const struct sim_level *level_of(size_t scenario, const struct sim_scenario **ret)
{
	for (size_t i = 0; i < host_array_size(levels); i++) {
		size_t n = scenarios_of(levels[i]);

		*ret = &levels[i]->scenarios[scenario];
		if (scenario < n)
			return levels[i];
		scenario -= n;
	}
	HOST_CHECK(!"such a scenario");
	return NULL;
}

size_t sim_scenarios(void)
{
	size_t n = 0;

	for (size_t i = 0; i < host_array_size(levels); i++)
		n += scenarios_of(levels[i]);
	return n;
}

const struct sim_scenario *sim_scenario_at(size_t i)
{
	const struct sim_scenario *sc;

	(void)level_of(i, &sc);
	return sc;
}

const char *sim_scenario_name(size_t i)
{
	return sim_scenario_at(i)->name;
}

const char *sim_scenario_about(size_t i)
{
	return sim_scenario_at(i)->about;
}

int sim_scenario_find(const char *name)
{
	for (size_t i = 0; i < sim_scenarios(); i++)
		if (!strcmp(sim_scenario_name(i), name))
			return (int)i;
	return -1;
}

bool sim_scenarios_find(const char *name, size_t *first, size_t *last)
{
	int one = sim_scenario_find(name);
	bool all = !strcmp(name, "all");
	size_t n = 0;

	*first = *last = (size_t)one;
	if (one >= 0)
		return true;
	*last = sim_scenarios() - 1;
	*first = all ? 0 : *last + 1;
	for (size_t i = 0; i < host_array_size(levels); i++) {
		size_t next = n + scenarios_of(levels[i]);

		if (!strcmp(name, levels[i]->name)) {
			*first = n;
			*last = next - 1;
		}
		n = next;
	}
	return *first <= *last;
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
	    [ADVERSARY_LATE] = "late",
	    [ADVERSARY_BUSY] = "busy",
	    [ADVERSARY_MEMORY] = "memory",
	    [ADVERSARY_MIGRATE] = "migrate",
	    [ADVERSARY_DENY] = "deny",
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
static void choose_adversaries(struct sim_case *c, const struct sim_level *level, u64 *random)
{
	u32 n = (u32)(next_random(random) % 8);

	n = n < 4 ? 0 : n < 7 ? 1 : 2;
	for (u32 i = 0; i < n; i++) {
		struct sim_adversary *a = &c->adversaries[i];

		/* Every other one is an allocation: there are the most of these. */
		a->kind = next_random(random) % 2
			      ? ADVERSARY_ALLOC
			      : level->adversaries[next_random(random) % level->n_adversaries];
		a->n = 1 + (u32)(next_random(random) %
				 (level->reach[a->kind] ? level->reach[a->kind] : 12));
	}
	if (n == 2 && c->adversaries[0].kind == c->adversaries[1].kind)
		c->adversaries[1] = (struct sim_adversary){0};
}

/* Two of the actors, by the seed, one round each. */
static void keep_two(struct sim_case *c, const struct sim_scenario *sc)
{
	u64 pair = c->seed;
	u32 n = 0, first = 0;

	/* Those without rounds are the last. */
	while (n < SIM_ACTORS && sc->roles[n].rounds)
		n++;
	for (pair %= n * (n - 1) / 2; pair >= n - 1 - first; first++)
		pair -= n - 1 - first;
	for (u32 i = 0; i < SIM_ACTORS; i++)
		c->keep[i] = i == first || i == first + 1 + pair;
}

void sim_case_make(struct sim_case *c, size_t scenario, uint64_t seed, uint32_t devices,
		   enum sim_scheduler scheduler)
{
	const struct sim_scenario *sc;
	const struct sim_level *level = level_of(scenario, &sc);
	u64 random = seed ^ 0x73696d;

	*c = (struct sim_case){.scenario = (u32)scenario,
			       .seed = seed,
			       .devices = devices ? devices : sc->devices,
			       .scheduler = scheduler};
	c->devices = host_min(c->devices, SIM_DEVICES);
	for (u32 i = 0; i < SIM_ACTORS; i++)
		c->keep[i] = sc->roles[i].rounds ? ~(u64)0 >> (64 - sc->roles[i].rounds)
						 : sc->roles[i].step != NULL;
	if (scheduler == SIM_EXHAUSTIVE) {
		keep_two(c, sc);
		c->pages = sc->small   ? sc->small
			   : sc->pages ? host_min(sc->pages, 2u)
				       : level->small;
		return;
	}
	c->atomics = next_random(&random) % 2;
	c->links = c->devices > 1 && next_random(&random) % 2;
	choose_adversaries(c, level, &random);
}

static bool adversary_fits(const struct sim_level *level, u32 kind)
{
	bool fits = !kind || kind == ADVERSARY_ALLOC;

	for (u32 i = 0; i < level->n_adversaries; i++)
		fits = fits || level->adversaries[i] == kind;
	return fits;
}

bool sim_case_fits(const struct sim_case *c)
{
	const struct sim_scenario *sc;
	const struct sim_level *level = level_of(c->scenario, &sc);
	u32 most = host_max(host_max(sc->pages, sc->small), level->small);
	bool fits = !c->pages || (c->pages >= sc->small && c->pages <= most);

	for (u32 i = 0; i < SIM_ACTORS; i++)
		fits = fits && (!c->keep[i] || sc->roles[i].step);
	for (u32 i = 0; i < SIM_ADVERSARIES; i++)
		fits = fits && adversary_fits(level, c->adversaries[i].kind);
	return fits;
}

void sim_case_free(struct sim_case *c)
{
	free(c->choices);
	c->choices = NULL;
	c->n_choices = 0;
}

/* ---- Runs ------------------------------------------------------------------------------ */

_Static_assert(sizeof(struct sim_choice) == sizeof(struct sched_choice), "one is the other");

static const struct sim_level *options_of(const struct sim_case *c, struct sched_options *options)
{
	const struct sim_scenario *sc;
	const struct sim_level *level = level_of(c->scenario, &sc);

	*options = (struct sched_options){
	    .kind = c->replay		      ? SCHED_REPLAY
		    : c->scheduler == SIM_PCT ? SCHED_PCT
					      : SCHED_RANDOM,
	    .seed = c->seed,
	    .length = level->pct_length,
	    .depth = (u32)(3 + c->seed % level->pct_depths),
	    .choices = (const struct sched_choice *)(const void *)c->choices,
	    .n_choices = (u32)c->n_choices,
	    .atomics = c->atomics,
	    .atomics_ordered = level->atomics_ordered,
	    .work = true,
	    .check = level->check,
	    .check_period = level->check_period,
	    .max_idle_points = level->max_idle_points,
	    .max_idle_time = level->max_idle_time,
	};
	level->begin();
	return level;
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
	const struct sim_level *level = options_of(c, &options);

	options.watch = watch;
	options.watch_arg = arg;
	sched_run(&options, level->run, (void *)(uintptr_t)c, &outcome);
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

struct explored_case {
	struct sim_case *c;
	const struct sim_level *level;
};

/* The last run may have been left in the middle. */
static void run_explored(void *arg)
{
	struct explored_case *e = arg;

	e->level->begin();
	e->level->run(e->c);
}

void sim_explore(struct sim_case *c, uint32_t preemptions, uint64_t max_runs, uint64_t max_ns,
		 struct sim_explored *explored, struct sim_result *ret)
{
	struct sched_explore_options bounds = {
	    .preemptions = preemptions, .max_runs = max_runs, .max_time = max_ns};
	struct sched_options options;
	struct sched_explored done;
	const struct sim_level *level = options_of(c, &options);
	struct explored_case e = {c, level};

	sched_explore(&options, &bounds, run_explored, &e, &done, &outcome);
	result_of(&outcome, ret);
	*explored = (struct sim_explored){done.runs, done.cut, done.points, done.complete};
	if (outcome.result == SCHED_OK)
		return;
	free(c->choices);
	c->choices = malloc((outcome.n_choices + 1) * sizeof(*c->choices));
	HOST_CHECK(c->choices);
	memcpy(c->choices, outcome.choices, outcome.n_choices * sizeof(*c->choices));
	c->n_choices = outcome.n_choices;
	c->replay = true;
}
