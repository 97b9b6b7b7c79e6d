/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* bench_sim.c: how fast the simulator (sim/) goes, with its laws checked. */
#include "tools/bench.h"
#include "sim/sim.h"

#include <errno.h>

#define SCENARIO "mixed"
#define NS UINT64_C(200000000)
#define WANTED 300000.0 /* what makes a million runs a matter of hours */

/* Runs of one scenario, seed after seed, for a while. */
static int simulate(struct bench *b, double *ret)
{
	int scenario = sim_scenario_find(SCENARIO);
	uint64_t start = tool_now(), now = start, points = 0;
	struct sim_result result;
	struct sim_case c;

	while (now - start < NS) {
		sim_case_make(&c, (size_t)scenario, b->seed++, 0, SIM_RANDOM);
		sim_run(&c, &result);
		if (result.result)
			return -EIO;
		points += result.points;
		now = tool_now();
	}
	*ret = (double)points * 1e9 / (double)(now - start);
	return 0;
}

static int wanted(struct bench *b, double *ret)
{
	(void)b;
	*ret = WANTED;
	return 0;
}

const struct bench_figure bench_sim_figures[] = {
	{ .name = "sim_steps_per_second", .unit = "points/s",
	  .limit = "what was asked for: 300,000 scheduling points a second on one core",
	  .wanted = 1.0, .value = simulate, .held_against = wanted },
	{ 0 },
};
