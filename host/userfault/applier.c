/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * applier.c: what happened to the address space, told to the notifiers.
 *
 * The reader marks pages the moment it reads an event, and leaves here who has
 * to hear of it. One thread works the list off in order; it alone waits for
 * devices, so that the reader never does. Frames that an event orphaned are
 * freed after the notifiers have returned: until then a device may still write
 * to them, and they must not be given to anyone else.
 */
#include "host/userfault/home.h"

#define MANY_CHANGES 1024u
#define MEMORY_TRIES 10000u /* ms */

void memory_wait(u32 *tries)
{
	/* Losing an event would lose data; there is no one to tell. */
	HOST_CHECK(++*tries < MEMORY_TRIES);
	host_sleep(HOST_MSEC);
}

/* Can what waits last say this, too? To say more than was cleared is safe, and done where
 * events come faster than devices let go; what was unmapped is said exactly. changes_lock
 * held. */
static bool joins(const struct mm *mm, const struct change *last, const struct change *c)
{
	if (!last || last->event != c->event || c->event == MM_EVENT_REMAP)
		return false;
	if (c->start <= last->end && c->end >= last->start)
		return true;
	return c->event == MM_EVENT_CLEAR &&
	       mm->queued - host_read_once(&mm->applied) > MANY_CHANGES;
}

static void join(struct change *last, const struct change *c)
{
	struct frame_list *l = c->frames;

	last->start = host_min(last->start, c->start);
	last->end = host_max(last->end, c->end);
	while (l && l->next)
		l = l->next;
	if (l) {
		l->next = last->frames;
		last->frames = c->frames;
	}
}

static void append(struct mm *mm, const struct change *change)
{
	struct change *c;
	u32 tries = 0;

	host_mutex_lock(&mm->changes_lock);
	if (joins(mm, mm->changes_last, change)) {
		join(mm->changes_last, change);
		host_mutex_unlock(&mm->changes_lock);
		return;
	}
	host_mutex_unlock(&mm->changes_lock);
	while (!(c = host_alloc(sizeof(*c))))
		memory_wait(&tries);
	*c = *change;
	host_mutex_lock(&mm->changes_lock);
	*mm->changes_tail = c;
	mm->changes_tail = &c->next;
	mm->changes_last = c;
	host_add_return(&mm->queued, 1);
	host_mutex_unlock(&mm->changes_lock);
	host_wake_all(&mm->changes_waitq);
}

void change_queue(struct mm *mm, u64 start, u64 end, enum mm_event event, struct frame_list *frames)
{
	append(mm, &(struct change){.start = start, .end = end, .event = event, .frames = frames});
}

void change_queue_remap(struct mm *mm, u64 start, u64 end, u64 to)
{
	append(mm, &(struct change){.start = start, .end = end, .event = MM_EVENT_REMAP, .to = to});
}

static struct change *change_next(struct mm *mm)
{
	struct change *c;

	host_mutex_lock(&mm->changes_lock);
	c = mm->changes;
	if (c) {
		mm->changes = c->next;
		if (!mm->changes) {
			mm->changes_tail = &mm->changes;
			mm->changes_last = NULL;
		}
	}
	host_mutex_unlock(&mm->changes_lock);
	return c;
}

static void applier(void *arg)
{
	struct mm *mm = arg;
	struct change *c;

	for (;;) {
		host_wait(&mm->changes_waitq, host_load_seq(&mm->queued) != mm->applied ||
						  host_load_acquire(&mm->applier_stopping));
		c = change_next(mm);
		if (!c) {
			if (host_load_acquire(&mm->applier_stopping))
				return;
			continue;
		}
		notify_change(mm, c);
		frames_free(mm, c->frames);
		host_free(c);
		host_add_return(&mm->applied, 1);
		host_wake_all(&mm->applied_waitq);
	}
}

int applier_start(struct mm *mm)
{
	host_mutex_init(&mm->changes_lock, RANK_HOST);
	host_waitq_init(&mm->changes_waitq);
	host_waitq_init(&mm->applied_waitq);
	mm->changes_tail = &mm->changes;
	return host_thread_start(&mm->applier, "gpusvm-events", applier, mm);
}

/* The reader, which may still have left something, has ended. */
void applier_stop(struct mm *mm)
{
	host_store_release(&mm->applier_stopping, true);
	host_wake_all(&mm->changes_waitq);
	host_thread_join(&mm->applier);
}

int mm_sync(struct mm *mm, u64 start, u64 end)
{
	u64 until;

	if (host_read_once(&mm->dying))
		return -EFAULT;
	while (events_unread(mm))
		wait_for_reader(mm);
	/* What was read is queued in the same gate section: see the end of it. */
	host_read_lock(&mm->gate);
	host_read_unlock(&mm->gate);
	extents_recheck(mm, start, end);
	until = host_load_seq(&mm->queued);
	host_wait(&mm->applied_waitq, host_load_acquire(&mm->applied) >= until);
	return 0;
}
