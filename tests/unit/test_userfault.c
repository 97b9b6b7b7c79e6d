/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_userfault.c: host/userfault, as it is, over the modelled kernel, under schedules
 * that a seed decides.
 *
 *	test_userfault [--scenario NAME] [--seed N] [--runs N] [--chart]
 *
 * Without options: some runs of each scenario. A failure says its seed; --runs 1 and
 * --seed N repeat it, --chart tells each step.
 */
#include "tests/unit/kernel_world.h"

#include <getopt.h>
#include <stdlib.h>
#include <time.h>

#define RUNS 60u

#define MILD                                                                                       \
	{                                                                                          \
		.steps = 48, .late = 8, .busy = 4, .migrate = 8, .deny = 256                       \
	}
#define HARSH                                                                                      \
	{                                                                                          \
		.steps = 48, .late = 128, .busy = 16, .memory = 16, .migrate = 32, .deny = 512     \
	}

static const struct scenario scenarios[] = {
    {"small", "small pages, and everybody at them", .whims = MILD,
     .roles = {{"cpu 0", actor_cpu, 12},
	       {"cpu 1", actor_cpu, 12},
	       {"direct", actor_direct, 6},
	       {"mover", actor_mover, 5},
	       {"mover", actor_mover, 5},
	       {"gpu", actor_gpu, 8},
	       {"kernel", actor_daemon, 0}}},
    {"hole", "a device within an access to a hole, and the page is to move", .whims = {.steps = 48},
     .roles = {{"gpu", actor_gpu, 20}, {"mover", actor_mover, 8}, {"mover", actor_mover, 8}}},
    {"huge", "huge pages, and everybody at them", .huge = true, .whims = MILD,
     .roles = {{"cpu 0", actor_cpu, 12},
	       {"cpu 1", actor_cpu, 12},
	       {"direct", actor_direct, 6},
	       {"mover", actor_mover, 4},
	       {"mover", actor_mover, 4},
	       {"evictor", actor_evict, 4},
	       {"kernel", actor_daemon, 0}}},
    {"whole", "whole blocks to and fro", .huge = true, .whole = true, .whims = HARSH,
     .roles = {{"cpu 0", actor_cpu, 10},
	       {"mover", actor_mover, 5},
	       {"mover", actor_mover, 5},
	       {"evictor", actor_evict, 4},
	       {"kernel", actor_daemon, 0}}},
    {"fork", "children of a process whose pages are on the device", .whims = MILD,
     .roles = {{"cpu 0", actor_cpu, 10},
	       {"forker", actor_fork, 3},
	       {"direct", actor_direct, 4},
	       {"mover", actor_mover, 6},
	       {"mover", actor_mover, 6},
	       {"gpu", actor_gpu, 6},
	       {"kernel", actor_daemon, 0}}},
    {"map", "memory that is unmapped, dropped, moved and mapped anew", .whims = MILD,
     .roles = {{"mapper", actor_mapper, 4},
	       {"mover", actor_mover, 8},
	       {"mover", actor_mover, 8},
	       {"cpu 0", actor_cpu, 6},
	       {"kernel", actor_daemon, 0}}},
    {"all", "all of it, and a kernel full of whims", .whims = HARSH,
     .roles = {{"cpu 0", actor_cpu, 8},
	       {"cpu 1", actor_cpu, 8},
	       {"direct", actor_direct, 4},
	       {"forker", actor_fork, 2},
	       {"mapper", actor_mapper, 3},
	       {"mover", actor_mover, 6},
	       {"mover", actor_mover, 6},
	       {"evictor", actor_evict, 4},
	       {"kernel", actor_daemon, 0}}},
    {"scrap", "memory that several threads drop at once, and forks", .whims = MILD,
     .roles = {{"scrap", actor_scrap, 20},
	       {"scrap", actor_scrap, 20},
	       {"forker", actor_fork, 3},
	       {"mover", actor_mover, 8},
	       {"mover", actor_mover, 8},
	       {"kernel", actor_daemon, 0}}},
    {"memory", "an allocation of the library's fails", .fail = true, .whims = MILD,
     .roles = {{"cpu 0", actor_cpu, 12},
	       {"cpu 1", actor_cpu, 12},
	       {"mover", actor_mover, 8},
	       {"mover", actor_mover, 8},
	       {"evictor", actor_evict, 6},
	       {"gpu", actor_gpu, 8},
	       {"kernel", actor_daemon, 0}}},
    {"storm", "more faults at a time than there are threads to serve them",
     .whims = {.steps = 48, .deny = 256, .migrate = 8, .late = 16},
     .roles = {{"cpu 0", actor_cpu, 16},
	       {"cpu 1", actor_cpu, 16},
	       {"reader", actor_read, 20},
	       {"reader", actor_read, 20},
	       {"reader", actor_read, 20},
	       {"reader", actor_read, 20},
	       {"drop", actor_drop, 6},
	       {"mover", actor_mover, 10},
	       {"mover", actor_mover, 10}}},
    {"moved", "frames are ordinary memory, where pages are moved and not copied", .memory = true,
     .whims = MILD,
     .roles = {{"cpu 0", actor_cpu, 12},
	       {"cpu 1", actor_cpu, 12},
	       {"gpu", actor_gpu, 8},
	       {"forker", actor_fork, 2},
	       {"mapper", actor_mapper, 2},
	       {"mover", actor_mover, 8},
	       {"mover", actor_mover, 8},
	       {"evictor", actor_evict, 6},
	       {"kernel", actor_daemon, 0}}},
    {"shared", "pages that are shared with a child, and dropped twice while they are made private",
     .block = 6, .whims = {.steps = 128, .late = 300},
     .roles = {{"drop", actor_drop_scrap, 20},
	       {"drop", actor_drop_scrap, 20},
	       {"drop", actor_drop_scrap, 20},
	       {"forker", actor_fork, 4},
	       {"mover", actor_mover, 12},
	       {"mover", actor_mover, 12}}},
    {"copy", "without MOVE: protected and copied", .without = USERFAULT_WITHOUT_MOVE, .whims = MILD,
     .roles = {{"cpu 0", actor_cpu, 12},
	       {"cpu 1", actor_cpu, 12},
	       {"gpu", actor_gpu, 6},
	       {"drop", actor_drop, 8},
	       {"mover", actor_mover, 8},
	       {"mover", actor_mover, 8},
	       {"kernel", actor_daemon, 0}}},
};
#define SCENARIOS host_array_size(scenarios)

static struct sched_outcome outcome;

static void tell(void *arg, const struct sched_event *e)
{
	(void)arg;
	if (e->kind == POINT_ATOMIC)
		return;
	printf("%8llu us %-12s %-8s %-40s %s\n", (unsigned long long)(e->now / 1000),
	       sched_fiber_name(e->fiber), sched_point_name(e->kind), e->what ? e->what : "",
	       e->function ? e->function : "");
}

static bool run(const struct scenario *s, u64 seed, bool chart)
{
	struct sched_options options = {
	    .kind = seed % 3 == 2 ? SCHED_PCT : SCHED_RANDOM,
	    .seed = seed,
	    .length = 20000,
	    .depth = 1 + (u32)(seed % 16),
	    .work = true,
	    .atomics = seed % 4 == 3,
	    .watch = chart ? tell : NULL,
	    .check = world_check,
	    .check_period = 499,
	    .max_idle_points = 4000000, /* some stay off the processor for long */
	    .max_idle_time = 1000 * HOST_SEC,
	};

	sched_run(&options, world_run, (void *)(uintptr_t)s, &outcome);
	if (outcome.result == SCHED_OK)
		return true;
	printf("userfault: scenario %s, seed %llu: %s: %s\n", s->name, (unsigned long long)seed,
	       sched_result_name(outcome.result), outcome.text);
	return false;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static const struct scenario *find(const char *name)
{
	for (u32 i = 0; i < SCENARIOS; i++)
		if (!strcmp(scenarios[i].name, name))
			return &scenarios[i];
	return NULL;
}

static u32 run_many(const struct scenario *s, u64 seed, u64 runs, bool chart)
{
	double begin = now();
	u64 points = 0;
	u32 bad = 0;

	for (u64 i = 0; i < runs && bad < 5; i++) {
		bad += !run(s, seed + i, chart);
		points += outcome.points;
		fflush(stdout);
	}
	printf("userfault: %-6s seeds %llu to %llu, %u wrong, %.0f runs/s, %.1f million points/s\n",
	       s->name, (unsigned long long)seed, (unsigned long long)(seed + runs - 1), bad,
	       (double)runs / (now() - begin), (double)points / (now() - begin) / 1e6);
	return bad;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"scenario", required_argument, NULL, 's'},
					      {"seed", required_argument, NULL, 'S'},
					      {"runs", required_argument, NULL, 'r'},
					      {"chart", no_argument, NULL, 'c'},
					      {0}};
	const struct scenario *only = NULL;
	u64 seed = 1, runs = RUNS;
	bool chart = false;
	u32 bad = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 's')
			only = find(optarg);
		if (c == 'S')
			seed = strtoull(optarg, NULL, 0);
		if (c == 'r')
			runs = strtoull(optarg, NULL, 0);
		if (c == 'c')
			chart = true;
		if (c == '?' || (c == 's' && !only))
			return 2;
	}
	for (u32 i = 0; i < SCENARIOS; i++)
		if (!only || only == &scenarios[i])
			bad += run_many(&scenarios[i], seed, runs, chart);
	return bad != 0;
}
