/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fuzz_replay.c: the reader of recorded runs of the simulator. What it takes for one
 * is within bounds, and comes back as it was when it is written and read again.
 */
#include "tests/fuzz/fuzz.h"
#include "sim/private.h"

#include <string.h>
#include <unistd.h>

static const char *const names[] = {"one", "munmap-populate", "evict"};

/* In place of sim/scenarios.c and sim/world.c. */
const char *sim_scenario_name(size_t i)
{
	return names[i];
}

int sim_scenario_find(const char *name)
{
	for (int i = 0; i < 3; i++)
		if (!strcmp(names[i], name))
			return i;
	return -1;
}

const char *sim_adversary_name(u32 kind)
{
	static const char *const kinds[] = {"none", "alloc", "copy"};

	return kinds[kind % 3];
}

void sim_case_free(struct sim_case *c)
{
	free(c->choices);
	c->choices = NULL;
	c->n_choices = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char path[64];
	struct sim_case c, again;
	unsigned line;

	if (sim_case_read(&c, fuzz_file(data, size), &line)) {
		must(!c.choices);
		return 0;
	}
	must(c.scenario < 3 && c.devices >= 1 && c.devices <= SIM_DEVICES && c.replay);
	for (size_t i = 0; i < c.n_choices; i++)
		must(c.choices[i].fiber < SCHED_FIBERS);
	snprintf(path, sizeof(path), "/tmp/gpusvm-fuzz-%d", (int)getpid());
	must(sim_case_write(&c, path) == 0 && sim_case_read(&again, path, &line) == 0);
	must(again.scenario == c.scenario && again.seed == c.seed && again.devices == c.devices &&
	     again.atomics == c.atomics && again.n_choices == c.n_choices);
	must(!memcmp(again.keep, c.keep, sizeof(c.keep)));
	must(!c.n_choices || !memcmp(again.choices, c.choices, c.n_choices * sizeof(*c.choices)));
	unlink(path);
	sim_case_free(&c);
	sim_case_free(&again);
	return 0;
}
