/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * file.c: a case as a file: a line for each thing, the first word says what.
 *
 *	gpusvm-sim 1
 *	scenario NAME
 *	seed N
 *	devices N
 *	pages N			if not as many as the scenario says
 *	atomics 0|1
 *	links 0|1
 *	adversary NAME N	none or more
 *	keep ACTOR MASK		rounds, in hexadecimal
 *	choice FIBER POINT NEXT	in the order of the run
 *	end
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim/private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CHOICES 10000000u

int sim_case_write(const struct sim_case *c, const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f)
		return -errno;
	fprintf(f, "gpusvm-sim 1\nscenario %s\nseed %llu\ndevices %u\natomics %d\nlinks %d\n",
		sim_scenario_name(c->scenario), (unsigned long long)c->seed, c->devices, c->atomics,
		c->links);
	if (c->pages)
		fprintf(f, "pages %u\n", c->pages);
	for (u32 i = 0; i < SIM_ADVERSARIES; i++)
		if (c->adversaries[i].kind)
			fprintf(f, "adversary %s %u\n", sim_adversary_name(c->adversaries[i].kind),
				c->adversaries[i].n);
	for (u32 i = 0; i < SIM_ACTORS; i++)
		fprintf(f, "keep %u %llx\n", i, (unsigned long long)c->keep[i]);
	for (size_t i = 0; i < c->n_choices; i++)
		fprintf(f, "choice %u %u %u\n", c->choices[i].fiber, c->choices[i].point,
			c->choices[i].next);
	fprintf(f, "end\n");
	return fclose(f) ? -errno : 0;
}

static bool add_choice(struct sim_case *c, size_t *room, struct sim_choice choice)
{
	if (c->n_choices == *room) {
		struct sim_choice *more;

		*room = *room ? 2 * *room : 256;
		if (*room > MAX_CHOICES)
			return false;
		more = realloc(c->choices, *room * sizeof(*more));
		if (!more)
			return false;
		c->choices = more;
	}
	c->choices[c->n_choices++] = choice;
	return true;
}

static bool add_adversary(struct sim_case *c, const char *name, u32 n)
{
	for (u32 i = 0; i < SIM_ADVERSARIES; i++) {
		if (c->adversaries[i].kind)
			continue;
		for (u32 kind = 1; kind < ADVERSARIES; kind++) {
			if (strcmp(name, sim_adversary_name(kind)))
				continue;
			c->adversaries[i] = (struct sim_adversary){kind, n};
			return true;
		}
		return false;
	}
	return false;
}

static bool read_line(struct sim_case *c, const char *line, size_t *room)
{
	unsigned long long seed, mask;
	struct sim_choice choice;
	unsigned a, b;
	char name[32];

	if (sscanf(line, "choice %u %u %u", &choice.fiber, &choice.point, &choice.next) == 3)
		return choice.fiber < SCHED_FIBERS && add_choice(c, room, choice);
	if (sscanf(line, "scenario %31s", name) == 1) {
		int found = sim_scenario_find(name);

		c->scenario = (u32)found;
		return found >= 0;
	}
	if (sscanf(line, "seed %llu", &seed) == 1) {
		c->seed = seed;
		return true;
	}
	if (sscanf(line, "devices %u", &a) == 1) {
		c->devices = a;
		return a >= 1 && a <= SIM_DEVICES;
	}
	if (sscanf(line, "pages %u", &a) == 1) {
		c->pages = a;
		return a >= 1 && a <= SIM_PAGES / 2;
	}
	if (sscanf(line, "atomics %u", &a) == 1) {
		c->atomics = a;
		return true;
	}
	if (sscanf(line, "links %u", &a) == 1) {
		c->links = a;
		return true;
	}
	if (sscanf(line, "adversary %31s %u", name, &b) == 2)
		return add_adversary(c, name, b);
	if (sscanf(line, "keep %u %llx", &a, &mask) == 2 && a < SIM_ACTORS) {
		c->keep[a] = mask;
		return true;
	}
	return false;
}

int sim_case_read(struct sim_case *c, const char *path, unsigned *line)
{
	char text[128];
	FILE *f = fopen(path, "r");
	bool good, ended = false;
	size_t room = 0;

	*line = 0;
	*c = (struct sim_case){.replay = true};
	if (!f)
		return -errno;
	good = fgets(text, sizeof(text), f) && !strcmp(text, "gpusvm-sim 1\n");
	*line = 1;
	while (good && !ended && fgets(text, sizeof(text), f)) {
		++*line;
		ended = !strcmp(text, "end\n");
		good = ended || read_line(c, text, &room);
	}
	fclose(f);
	if (good && ended && c->devices)
		return 0;
	sim_case_free(c);
	return -EINVAL;
}
