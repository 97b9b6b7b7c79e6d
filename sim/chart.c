/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * chart.c: a run in words, a line for each turn of a fiber: which, from where to
 * where in the source; and what actors say that they do. Each fiber that does something
 * has a column, so that turns are seen to go to and fro.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sim/private.h"

#include <stdio.h>
#include <string.h>

#define LINES 1000u /* the last ones are what matters */
#define WIDTH 150   /* what is longer is cut */

struct chart {
	struct {
		u64 now;
		u32 fiber;
		char text[WIDTH];
	} lines[LINES];
	u32 n;
	/* The turn that runs. */
	u32 fiber;
	u32 points;
	bool open;
	char from[80], last[80];
	u64 began;
	bool each; /* a line for each point */
};

static void add_line(struct chart *ch, u64 now, u32 fiber, const char *text)
{
	u32 i = ch->n++ % LINES;

	ch->lines[i].now = now;
	ch->lines[i].fiber = fiber;
	snprintf(ch->lines[i].text, WIDTH, "%.120s", text);
}

static void close_turn(struct chart *ch)
{
	char text[WIDTH * 2];

	if (!ch->open)
		return;
	ch->open = false;
	if (ch->points == 1)
		snprintf(text, sizeof(text), "  %s", ch->from);
	else
		snprintf(text, sizeof(text), "  %s ... %s (%u points)", ch->from, ch->last,
			 ch->points);
	add_line(ch, ch->began, ch->fiber, text);
}

static void describe(const struct sched_event *event, char *text, size_t size)
{
	/* Where the one before was says nothing of who begins. */
	if (event->kind == POINT_START || event->kind == POINT_END)
		snprintf(text, size, "%s", sched_point_name(event->kind));
	else
		snprintf(text, size, "%s %s in %s", sched_point_name(event->kind),
			 event->what ? event->what : "", event->function ? event->function : "?");
}

static void watch(void *arg, const struct sched_event *event)
{
	struct chart *ch = arg;
	u64 now = event->now - HOST_SEC; /* since the beginning */

	if (event->kind == POINT_NOTE) {
		char text[WIDTH];

		close_turn(ch);
		snprintf(text, sizeof(text), "* %s", event->what);
		add_line(ch, now, event->fiber, text);
		return;
	}
	if (ch->open && ch->fiber != event->fiber)
		close_turn(ch);
	if (!ch->open) {
		ch->open = true;
		ch->fiber = event->fiber;
		ch->points = 0;
		ch->began = now;
		describe(event, ch->from, sizeof(ch->from));
	}
	ch->points++;
	describe(event, ch->last, sizeof(ch->last));
	if (ch->each)
		close_turn(ch);
}

static void print_line(const struct chart *ch, u32 i, u64 fibers, FILE *out)
{
	u32 fiber = ch->lines[i].fiber;

	fprintf(out, "%9llu  ", (unsigned long long)ch->lines[i].now);
	for (u64 left = fibers; left; left &= left - 1)
		fputc((u32)__builtin_ctzll(left) == fiber ? '#' : '.', out);
	fprintf(out, "  %-12s %s\n", sched_fiber_name(fiber), ch->lines[i].text);
}

void sim_chart(const struct sim_case *c, bool each, FILE *out)
{
	static struct chart ch;
	struct sim_result result;
	u64 fibers = 0;
	u32 first;

	memset(&ch, 0, sizeof(ch));
	ch.each = each;
	sim_run_watched(c, &result, watch, &ch);
	close_turn(&ch);
	first = ch.n > LINES ? ch.n - LINES : 0;
	for (u32 i = first; i < ch.n; i++)
		fibers |= (u64)1 << ch.lines[i % LINES].fiber;
	fprintf(out, "%9s  %-*s  %-12s %s\n", "time/ns", __builtin_popcountll(fibers), "", "fiber",
		"what (* an actor's; else from the first point of the turn to its last)");
	if (first)
		fprintf(out, "%9s  (%u lines before)\n", "...", first);
	for (u32 i = first; i < ch.n; i++)
		print_line(&ch, i % LINES, fibers, out);
	fprintf(out, "%9s  %s: %s\n", "", result.kind, result.text);
}
