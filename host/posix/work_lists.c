/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#include "host/posix/work_lists.h"

int work_runner(const struct work_lists *lists, const struct host_work *w)
{
	for (unsigned i = 0; i < WORK_RUNNERS; i++)
		if (lists->runners[i].running == w)
			return (int)i;
	return -1;
}

bool work_make_ready(struct work_lists *lists, struct host_work *w)
{
	int runner = work_runner(lists, w);

	w->state = WORK_READY;
	w->next = NULL;
	if (runner >= 0) {
		lists->runners[runner].again = true;
		return false;
	}
	*lists->ready_tail = w;
	lists->ready_tail = &w->next;
	return true;
}

bool work_delay(struct work_lists *lists, struct host_work *w, u64 due)
{
	struct host_work **link = &lists->delayed;

	w->due = due;
	while (*link && (*link)->due <= due)
		link = &(*link)->next;
	w->next = *link;
	*link = w;
	w->state = WORK_DELAYED;
	return lists->delayed == w;
}

static void unlink_work(struct work_lists *lists, struct host_work **head, struct host_work *w)
{
	struct host_work **link = head;

	while (*link != w)
		link = &(*link)->next;
	*link = w->next;
	if (lists->ready_tail == &w->next)
		lists->ready_tail = link;
	w->next = NULL;
}

void work_dequeue(struct work_lists *lists, struct host_work *w)
{
	int runner;

	if (w->state == WORK_DELAYED) {
		unlink_work(lists, &lists->delayed, w);
	} else if (w->state == WORK_READY) {
		runner = work_runner(lists, w);
		if (runner >= 0)
			lists->runners[runner].again = false;
		else
			unlink_work(lists, &lists->ready, w);
	}
	w->state = WORK_IDLE;
}

void work_begin_run(struct work_lists *lists, unsigned runner, struct host_work *w)
{
	work_dequeue(lists, w);
	lists->runners[runner] = (struct work_runner){.running = w};
}

bool work_end_run(struct work_lists *lists, unsigned runner, struct host_work *w)
{
	bool again = lists->runners[runner].again;

	lists->runners[runner] = (struct work_runner){.running = NULL};
	return again && work_make_ready(lists, w);
}

bool work_expire(struct work_lists *lists, u64 now, u64 *next)
{
	bool any = false;
	struct host_work *w;

	while ((w = lists->delayed) && w->due <= now) {
		work_dequeue(lists, w);
		any |= work_make_ready(lists, w);
	}
	*next = w ? w->due : HOST_FOREVER;
	return any;
}
