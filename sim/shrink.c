/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * shrink.c: the least that still goes wrong: rounds of actors, adversaries and
 * choices are taken out as long as the run ends as it did (delta debugging: Zeller,
 * Hildebrandt 2002). Everything that is left out falls back to what is done by
 * default, so that each subset is a case.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim/private.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct shrink {
	struct sim_case *best;
	int result;
	char line[200]; /* the first of what went wrong, without numbers */
	u64 runs, end;
	void (*progress)(uint64_t runs, size_t rounds, size_t choices);
};

static u64 clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * HOST_SEC + (u64)ts.tv_nsec;
}

/* Numbers may differ and it is the same mistake. */
static void first_line(const char *text, char *line, size_t size)
{
	size_t n = 0;

	for (; *text && *text != '\n' && n + 1 < size; text++)
		if (*text < '0' || *text > '9')
			line[n++] = *text;
	line[n] = '\0';
	/* What was read, and what it should have been, are numbers. */
	if (!strncmp(line, "law ", 4) && strchr(line, ','))
		*strchr(line, ',') = '\0';
}

static bool still_wrong(struct shrink *s, const struct sim_case *c)
{
	struct sim_result result;
	char line[200];

	sim_run(c, &result);
	s->runs++;
	if (s->progress && s->runs % 64 == 0) {
		size_t rounds = 0;

		for (u32 i = 0; i < SIM_ACTORS; i++)
			rounds += (size_t)__builtin_popcountll(s->best->keep[i]);
		s->progress(s->runs, rounds, s->best->n_choices);
	}
	first_line(result.text, line, sizeof(line));
	return result.result == s->result && !strcmp(line, s->line);
}

static bool out_of_time(const struct shrink *s)
{
	return clock_now() >= s->end;
}

static void shrink_adversaries(struct shrink *s)
{
	for (u32 i = 0; i < SIM_ADVERSARIES; i++) {
		struct sim_case c = *s->best;

		if (!c.adversaries[i].kind)
			continue;
		c.adversaries[i] = (struct sim_adversary){0};
		if (still_wrong(s, &c))
			*s->best = c;
	}
}

/* Whole actors first, then round by round. */
static void shrink_rounds(struct shrink *s)
{
	for (u32 i = 0; i < SIM_ACTORS && !out_of_time(s); i++) {
		struct sim_case c = *s->best;

		c.keep[i] = 0;
		if (s->best->keep[i] && still_wrong(s, &c))
			*s->best = c;
	}
	for (u32 i = 0; i < SIM_ACTORS; i++) {
		for (u32 k = 64; k-- > 0 && !out_of_time(s);) {
			struct sim_case c = *s->best;

			c.keep[i] &= ~((u64)1 << k);
			if (c.keep[i] != s->best->keep[i] && still_wrong(s, &c))
				*s->best = c;
		}
	}
}

/* Tries the choices without [from, to). */
static bool without(struct shrink *s, size_t from, size_t to)
{
	struct sim_case c = *s->best;
	size_t left = c.n_choices - (to - from);
	bool wrong;

	c.choices = malloc((left + 1) * sizeof(*c.choices));
	HOST_CHECK(c.choices);
	memcpy(c.choices, s->best->choices, from * sizeof(*c.choices));
	memcpy(c.choices + from, s->best->choices + to,
	       (s->best->n_choices - to) * sizeof(*c.choices));
	c.n_choices = left;
	wrong = still_wrong(s, &c);
	free(wrong ? s->best->choices : c.choices);
	if (wrong)
		*s->best = c;
	return wrong;
}

static bool shrink_choices(struct shrink *s)
{
	size_t part = s->best->n_choices;
	bool any = false;

	while (part && !out_of_time(s)) {
		size_t at = 0;

		while (at < s->best->n_choices && !out_of_time(s)) {
			size_t to = host_min(at + part, s->best->n_choices);

			if (without(s, at, to))
				any = true;
			else
				at = to;
		}
		part = part == 1 ? 0 : (part + 1) / 2;
	}
	return any;
}

uint64_t sim_shrink(struct sim_case *c, struct sim_result *ret, uint64_t budget_ns,
		    void (*progress)(uint64_t runs, size_t rounds, size_t choices))
{
	struct shrink s = {.best = c, .end = clock_now() + budget_ns, .progress = progress};
	bool more = true;

	s.result = ret->result;
	first_line(ret->text, s.line, sizeof(s.line));
	for (u32 turn = 0; turn < 4 && more && !out_of_time(&s); turn++) {
		u64 keep[SIM_ACTORS];

		memcpy(keep, c->keep, sizeof(keep));
		shrink_adversaries(&s);
		shrink_rounds(&s);
		more = shrink_choices(&s) || memcmp(keep, c->keep, sizeof(keep));
	}
	sim_run(c, ret);
	return s.runs;
}
