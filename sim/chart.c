/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * chart.c: a run in words, a line for each turn of a fiber: which, from where to
 * where in the source; and what actors say that they do.
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
	char lines[LINES][WIDTH];
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
	snprintf(ch->lines[ch->n++ % LINES], WIDTH, "%9llu  %-12s %.120s", (unsigned long long)now,
		 sched_fiber_name(fiber), text);
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

void sim_chart(const struct sim_case *c, bool each, FILE *out)
{
	static struct chart ch;
	struct sim_result result;

	memset(&ch, 0, sizeof(ch));
	ch.each = each;
	sim_run_watched(c, &result, watch, &ch);
	close_turn(&ch);
	fprintf(out, "%9s  %-12s %s\n", "time/ns", "fiber", "what");
	if (ch.n > LINES)
		fprintf(out, "%9s  (%u lines before)\n", "...", ch.n - LINES);
	for (u32 i = ch.n > LINES ? ch.n - LINES : 0; i < ch.n; i++)
		fprintf(out, "%s\n", ch.lines[i % LINES]);
	fprintf(out, "%9s  %s: %s\n", "", result.kind, result.text);
}
