/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sim.h: races found before hardware does: the core, the driver and software
 * devices, unchanged, over the model memory manager, and host/userfault, unchanged,
 * over a model of the kernel, under a scheduler that one seed decides.
 *
 * Concepts
 *   scenario  a small world (devices, mappings) and actors that act in it
 *   actor     a fiber of the application; it takes so many rounds, each by random
 *             numbers of its own, so that leaving one out does not change others
 *   case      what decides a run: scenario, seed, devices, adversaries, which rounds
 *             are kept, and the scheduler's choices. A case is a file, too
 *   adversary something that goes wrong: an allocation fails, a copy engine, a fault
 *             is lost, ...; by the seed, two at most in a run
 *   law       one of the design's; a run ends where one is broken
 *
 * This is all that the command sees; the rest of the simulator is private.h's.
 * Context: one thread.
 */
#ifndef GPUSVM_SIM_H
#define GPUSVM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum sim_scheduler { SIM_RANDOM, SIM_PCT, SIM_EXHAUSTIVE };

struct sim_choice {
	uint32_t fiber, point, next;
};

#define SIM_ACTORS 10
#define SIM_ADVERSARIES 2

struct sim_adversary {
	uint32_t kind; /* 0: none */
	uint32_t n;    /* the n-th time, or how much */
};

struct sim_case {
	uint32_t scenario; /* index */
	uint64_t seed;
	uint32_t devices;
	uint32_t pages; /* that are mapped at first; 0: as the scenario says */
	enum sim_scheduler scheduler;
	bool replay;  /* by choices, else by the scheduler */
	bool atomics; /* points at atomics, too */
	bool links;   /* each device reaches the others' memory */
	struct sim_adversary adversaries[SIM_ADVERSARIES];
	uint64_t keep[SIM_ACTORS];  /* bit n: the actor's round n */
	struct sim_choice *choices; /* malloc'd, or NULL */
	size_t n_choices;
};

/* How a run ended. result 0 is right; text "" then. */
struct sim_result {
	int result;
	const char *kind; /* "ok", "law broken", "deadlock", ... */
	char text[3072];
	uint64_t points, allocations, fibers;
};

size_t sim_scenarios(void);
const char *sim_scenario_name(size_t i);
const char *sim_scenario_about(size_t i);
/* -1: none has that name. */
int sim_scenario_find(const char *name);
/* Those that a name stands for: one, all of a level ("memory", "userfault"; see
 * sim/scenario.h), or "all". False: none. */
bool sim_scenarios_find(const char *name, size_t *first, size_t *last);
const char *sim_adversary_name(uint32_t kind);

/* The case of this seed. devices 0: the scenario's own. choices: none. */
void sim_case_make(struct sim_case *c, size_t scenario, uint64_t seed, uint32_t devices,
		   enum sim_scheduler scheduler);
void sim_case_free(struct sim_case *c);
void sim_run(const struct sim_case *c, struct sim_result *ret);
/* Runs it again and keeps what the scheduler chose: a replay. */
void sim_case_record(struct sim_case *c, struct sim_result *ret);
/* Takes out rounds, adversaries and choices while it goes wrong in the same way.
 * budget_ns: of the machine's clock. The value: runs made. progress may be NULL. */
uint64_t sim_shrink(struct sim_case *c, struct sim_result *ret, uint64_t budget_ns,
		    void (*progress)(uint64_t runs, size_t rounds, size_t choices));
/* Runs it with what happens written down, a line for each turn of a fiber, or for each
 * point. */
void sim_chart(const struct sim_case *c, bool each, FILE *out);

/* 0, or a negative errno. */
int sim_case_write(const struct sim_case *c, const char *path);
/* Has its scenario the actors, pages and adversaries that it names? */
bool sim_case_fits(const struct sim_case *c);
/* -EINVAL: not such a file; *line: where. */
int sim_case_read(struct sim_case *c, const char *path, unsigned *line);

/* Every schedule with at most so many preemptions; cut: begun, but they repeat others. */
struct sim_explored {
	uint64_t runs, cut, points;
	bool complete;
};
void sim_explore(struct sim_case *c, uint32_t preemptions, uint64_t max_runs, uint64_t max_ns,
		 struct sim_explored *explored, struct sim_result *ret);

#endif
