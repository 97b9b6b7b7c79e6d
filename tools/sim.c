/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sim.c: 'gpusvm sim': runs scenarios of the simulator (sim/) by seeds, and shrinks
 * and tells what goes wrong. One thread; no locks.
 */
#include "tools/tool.h"
#include "sim/sim.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS 1000u
#define PREEMPTIONS 2u
#define EXPLORE_NS UINT64_C(60000000000)
#define SHRINK_NS UINT64_C(60000000000)
#define PROGRESS_NS UINT64_C(200000000)

static const char usage[] =
    "Usage: gpusvm sim [OPTION]...\n"
    "Runs the library's own code over a model of memory management and software GPUs,\n"
    "on a scheduler that one seed decides: each race can be found, and had again; and its\n"
    "live process home over a model of the kernel (userfault-...). A run that goes wrong\n"
    "is shrunk, written to a file for --replay and told step by step.\n"
    "\n"
    "  --scenario NAME       one of those below, userfault: all of these (all)\n"
    "  --seed N              of the first run; each further one adds 1 (1)\n"
    "  --runs N              of each scenario (1000; exhaustive: at most, no limit)\n"
    "  --devices N           1 to 4 (what the scenario says)\n"
    "  --scheduler KIND      random, pct (priorities, few changes) or exhaustive (every\n"
    "                        schedule with at most 2 preemptions of two actors that the\n"
    "                        seed chooses, one round each; 60 s of\n"
    "                        processor time) (random)\n"
    "  --replay FILE         a run that was written, as it was\n"
    "  --output FILE         where to write one that goes wrong (SCENARIO-SEED.sim)\n"
    "  --no-shrink           leave what goes wrong as it is\n"
    "  --points              tell it point by point, not turn by turn\n"
    "  --json                figures as JSON\n"
    "  --help                this text\n"
    "\n"
    "Status: 0 all runs are right, 1 one is not, 2 unusable arguments.\n";

struct sim_arguments {
	size_t first, last; /* scenarios */
	uint64_t seed, runs, devices;
	enum sim_scheduler scheduler;
	const char *replay, *output;
	bool json, no_shrink, points;
};

struct totals {
	uint64_t runs, points, start, told;
	bool complete;
	json_t *scenarios;
};

static double rate(const struct totals *t)
{
	uint64_t ns = tool_now() - t->start;

	return ns ? (double)t->points * 1e9 / (double)ns : 0;
}

static void print_usage(void)
{
	fputs(usage, stdout);
	puts("\nScenarios:");
	for (size_t i = 0; i < sim_scenarios(); i++)
		printf("  %-16s %s\n", sim_scenario_name(i), sim_scenario_about(i));
}

/* ---- A run that goes wrong --------------------------------------------------------- */

static void shrink_progress(uint64_t runs, size_t rounds, size_t choices)
{
	tool_progress("sim: shrinking: %" PRIu64 " runs, %zu rounds and %zu choices left", runs,
		      rounds, choices);
}

static json_t *failure_json(const struct sim_case *c, const struct sim_result *result,
			    const char *file)
{
	json_int_t rounds = 0;

	for (int i = 0; i < SIM_ACTORS; i++)
		rounds += __builtin_popcountll(c->keep[i]);
	return json_pack("{s:s,s:I,s:I,s:s,s:s,s:s,s:I,s:I}", "scenario",
			 sim_scenario_name(c->scenario), "seed", (json_int_t)c->seed, "devices",
			 (json_int_t)c->devices, "kind", result->kind, "text", result->text, "file",
			 file, "rounds", rounds, "choices", (json_int_t)c->n_choices);
}

/* Shrinks, writes and tells it. */
static json_t *tell_failure(const struct sim_arguments *args, struct sim_case *c,
			    struct sim_result *result)
{
	char file[96];
	uint64_t runs = 0;
	json_t *json;
	int err;

	if (!c->replay)
		sim_case_record(c, result);
	if (!args->replay && !args->no_shrink)
		runs = sim_shrink(c, result, SHRINK_NS, shrink_progress);
	tool_progress_end();
	snprintf(file, sizeof(file), "%s-%" PRIu64 ".sim", sim_scenario_name(c->scenario), c->seed);
	if (args->replay)
		snprintf(file, sizeof(file), "%s", args->replay);
	else if (args->output)
		snprintf(file, sizeof(file), "%s", args->output);
	err = args->replay ? 0 : sim_case_write(c, file);
	json = failure_json(c, result, file);
	if (!args->json) {
		sim_chart(c, args->points, stdout);
		printf("\n%s: seed %" PRIu64 ", %u devices: %s\n", sim_scenario_name(c->scenario),
		       c->seed, c->devices, result->kind);
		for (int i = 0; i < SIM_ADVERSARIES; i++)
			if (c->adversaries[i].kind)
				printf("adversary: %s %u\n",
				       sim_adversary_name(c->adversaries[i].kind),
				       c->adversaries[i].n);
		if (runs)
			printf("shrunk in %" PRIu64 " runs; again: gpusvm sim --replay %s\n", runs,
			       file);
	}
	if (err)
		tool_error("%s: %s", file, strerror(-err));
	return json;
}

/* ---- Runs ------------------------------------------------------------------------------ */

static void progress(struct totals *t, const char *scenario, uint64_t run)
{
	uint64_t now = tool_now();

	if (now - t->told < PROGRESS_NS)
		return;
	t->told = now;
	tool_progress("sim: %s, run %" PRIu64 ", %" PRIu64 " in all, %.0f points/s", scenario, run,
		      t->runs, rate(t));
}

/* The first run that is wrong, or NULL. */
static json_t *run_seeds(const struct sim_arguments *args, size_t scenario, struct totals *t)
{
	struct sim_result result;
	struct sim_case c;

	for (uint64_t i = 0; i < args->runs; i++) {
		sim_case_make(&c, scenario, args->seed + i, (uint32_t)args->devices,
			      args->scheduler);
		sim_run(&c, &result);
		t->runs++;
		t->points += result.points;
		if (result.result) {
			json_t *failure = tell_failure(args, &c, &result);

			sim_case_free(&c);
			return failure;
		}
		progress(t, sim_scenario_name(scenario), i + 1);
	}
	return NULL;
}

static json_t *run_all_schedules(const struct sim_arguments *args, size_t scenario,
				 struct totals *t)
{
	struct sim_explored explored;
	struct sim_result result;
	json_t *failure = NULL;
	struct sim_case c;

	tool_progress("sim: %s, all schedules with %u preemptions", sim_scenario_name(scenario),
		      PREEMPTIONS);
	sim_case_make(&c, scenario, args->seed, (uint32_t)args->devices, SIM_EXHAUSTIVE);
	sim_explore(&c, PREEMPTIONS, args->runs, EXPLORE_NS, &explored, &result);
	tool_progress_end();
	t->runs += explored.runs;
	t->points += explored.points;
	t->complete &= explored.complete;
	if (result.result)
		failure = tell_failure(args, &c, &result);
	else if (!args->json)
		printf("%-16s %10" PRIu64 " runs%s\n", sim_scenario_name(scenario), explored.runs,
		       explored.complete ? ": all there are" : ", and there are more");
	sim_case_free(&c);
	return failure;
}

static json_t *run_scenarios(const struct sim_arguments *args, struct totals *t)
{
	json_t *failure = NULL;

	for (size_t i = args->first; i <= args->last && !failure; i++) {
		uint64_t runs = t->runs, points = t->points, start = tool_now();

		failure = args->scheduler == SIM_EXHAUSTIVE ? run_all_schedules(args, i, t)
							    : run_seeds(args, i, t);
		json_array_append_new(t->scenarios,
				      json_pack("{s:s,s:I,s:I,s:f}", "name", sim_scenario_name(i),
						"runs", (json_int_t)(t->runs - runs), "points",
						(json_int_t)(t->points - points), "seconds",
						(double)(tool_now() - start) / 1e9));
	}
	return failure;
}

static json_t *replay(const struct sim_arguments *args, struct totals *t, int *status)
{
	struct sim_result result;
	json_t *failure = NULL;
	struct sim_case c;
	unsigned line;
	int err = sim_case_read(&c, args->replay, &line);

	if (err) {
		*status = line ? tool_error("%s: line %u is no line of a run", args->replay, line)
			       : tool_error("%s: %s", args->replay, strerror(-err));
		return NULL;
	}
	if (!sim_case_fits(&c)) {
		*status = tool_error("%s: it has actors, pages or adversaries that its scenario "
				     "has not",
				     args->replay);
		sim_case_free(&c);
		return NULL;
	}
	sim_run(&c, &result);
	t->runs++;
	t->points += result.points;
	if (result.result)
		failure = tell_failure(args, &c, &result);
	sim_case_free(&c);
	return failure;
}

static void print_totals(const struct sim_arguments *args, struct totals *t, json_t *failure)
{
	double points_per_second = rate(t);

	if (!args->json) {
		printf("%" PRIu64 " runs, %" PRIu64 " points, %.0f points/s: %s\n", t->runs,
		       t->points, points_per_second, failure ? "one is wrong" : "all are right");
		json_decref(t->scenarios);
		json_decref(failure);
		return;
	}
	tool_print_json(json_pack("{s:I,s:I,s:f,s:I,s:b,s:o,s:o}", "runs", (json_int_t)t->runs,
				  "points", (json_int_t)t->points, "points_per_second",
				  points_per_second, "failures", (json_int_t)(failure ? 1 : 0),
				  "complete", t->complete, "scenarios", t->scenarios, "failure",
				  failure ? failure : json_null()));
}

/* ---- Arguments ---------------------------------------------------------------------------- */

static bool parse_scheduler(struct sim_arguments *args, const char *name)
{
	static const char *const names[] = {"random", "pct", "exhaustive"};

	for (size_t i = 0; i < 3; i++) {
		if (strcmp(name, names[i]))
			continue;
		args->scheduler = (enum sim_scheduler)i;
		return true;
	}
	return false;
}

/* TOOL_RIGHT: go on. */
static int parse(int argc, char **argv, struct sim_arguments *args, bool *done)
{
	static const struct option options[] = {
	    {"scenario", required_argument, NULL, 's'},
	    {"seed", required_argument, NULL, 'e'},
	    {"runs", required_argument, NULL, 'r'},
	    {"devices", required_argument, NULL, 'd'},
	    {"scheduler", required_argument, NULL, 'c'},
	    {"replay", required_argument, NULL, 'p'},
	    {"output", required_argument, NULL, 'o'},
	    {"no-shrink", no_argument, NULL, 'n'},
	    {"points", no_argument, NULL, 'P'},
	    {"json", no_argument, NULL, 'j'},
	    {"help", no_argument, NULL, 'h'},
	    {0},
	};
	bool good = true;
	int c, which = 0;

	while (good && (c = getopt_long(argc, argv, "h", options, &which)) != -1) {
		switch (c) {
		case 's':
			good = sim_scenarios_find(optarg, &args->first, &args->last);
			break;
		case 'e':
			good = tool_parse_number(optarg, &args->seed);
			break;
		case 'r':
			good = tool_parse_number(optarg, &args->runs) && args->runs;
			break;
		case 'd':
			good = tool_parse_number(optarg, &args->devices) && args->devices >= 1 &&
			       args->devices <= 4;
			break;
		case 'c':
			good = parse_scheduler(args, optarg);
			break;
		case 'p':
			args->replay = optarg;
			break;
		case 'o':
			args->output = optarg;
			break;
		case 'n':
			args->no_shrink = true;
			break;
		case 'P':
			args->points = true;
			break;
		case 'j':
			args->json = true;
			break;
		case 'h':
			print_usage();
			*done = true;
			return TOOL_RIGHT;
		default:
			return TOOL_UNUSABLE; /* getopt has told why */
		}
		if (!good)
			return tool_error("--%s '%s': no such value; see 'gpusvm sim --help'",
					  options[which].name, optarg);
	}
	if (optind < argc)
		return tool_error("'%s' is one too many", argv[optind]);
	return TOOL_RIGHT;
}

int tool_sim(int argc, char **argv)
{
	struct sim_arguments args = {.last = sim_scenarios() - 1, .seed = 1};
	struct totals t = {.complete = true};
	json_t *failure;
	bool done = false;
	int status = parse(argc, argv, &args, &done);

	if (status != TOOL_RIGHT || done)
		return status;
	if (!args.runs && args.scheduler != SIM_EXHAUSTIVE)
		args.runs = RUNS;
	t.scenarios = json_array();
	t.start = tool_now();
	failure = args.replay ? replay(&args, &t, &status) : run_scenarios(&args, &t);
	tool_progress_end();
	if (status != TOOL_RIGHT) {
		json_decref(t.scenarios);
		return status;
	}
	status = failure ? TOOL_WRONG : TOOL_RIGHT;
	print_totals(&args, &t, failure);
	return status;
}
