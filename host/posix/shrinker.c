/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * shrinker.c: who gives memory back when it is short: the list, and who asks them. Used by
 * host/model, too; how short memory is, is pressure.c's there and here.
 *
 * Each shrinker has a work of its own, which looks while there is something to give back,
 * and asks it when memory is short. An allocation that fails has all works look at once:
 * whoever allocates may hold locks, so that nothing is given back on its thread.
 *
 * Locking: a word that is held for a few instructions, for the list and the counts of
 * users. Whoever calls a shrinker is counted as its user meanwhile; unregistering takes it
 * off the list and waits for the count.
 */
#include "host/posix/shrinker.h"
#include "host/posix/posix.h"

#define LOOK_AGAIN (HOST_SEC / 10)
#define USED_STILL (50 * HOST_USEC)

static struct {
	u32 locked;
	u32 failures; /* allocations that did; atomic */
	u64 ids;
	struct host_shrinker *first; /* looked at without the lock, too */
} list HOST_STATIC;

static void list_lock(void)
{
	u32 free = 0;

	while (!host_cas(&list.locked, &free, 1)) {
		free = 0;
		host_relax();
	}
}

static void list_unlock(void)
{
	host_store_release(&list.locked, 0);
}

void shrinkers_forget(void)
{
	list.locked = list.failures = 0;
	list.first = NULL;
	pressure_forget();
}

/* The next one after *id, in use; NULL: that was the last. */
static struct host_shrinker *next_used(u64 *id)
{
	struct host_shrinker *found = NULL;

	list_lock();
	for (struct host_shrinker *s = list.first; s; s = s->next)
		if (s->id > *id && (!found || s->id < found->id))
			found = s;
	if (found) {
		host_add_return(&found->users, 1);
		*id = found->id;
	}
	list_unlock();
	return found;
}

static void put_used(struct host_shrinker *s)
{
	list_lock();
	host_add_return(&s->users, (u32)-1);
	list_unlock();
}

/* Work: is there something, and is memory short? */
static void look(struct host_work *work)
{
	struct host_shrinker *s = host_container_of(work, struct host_shrinker, work);
	u32 failures = host_load_acquire(&list.failures);
	bool is_short = failures != s->failures;

	s->failures = failures;
	if (!s->ops->count(s))
		return;
	is_short |= pressure_look(s);
	if (is_short)
		(void)s->ops->scan(s);
	if (PRESSURE_POLLED && s->ops->count(s))
		host_work_queue_after(&s->work, LOOK_AGAIN);
}

int host_shrinker_register(struct host_shrinker *s, const char *name,
			   const struct host_shrinker_ops *ops)
{
	(void)name;
	*s = (struct host_shrinker){.ops = ops, .failures = host_load_acquire(&list.failures)};
	host_work_init(&s->work, look);
	list_lock();
	s->id = ++list.ids;
	s->next = list.first;
	host_store_release(&list.first, s);
	list_unlock();
	return 0;
}

void host_shrinker_unregister(struct host_shrinker *s)
{
	struct host_shrinker **at;
	bool used;

	list_lock();
	for (at = &list.first; *at != s; at = &(*at)->next)
		HOST_CHECK(*at);
	host_store_release(at, s->next);
	list_unlock();
	do {
		list_lock();
		used = s->users;
		list_unlock();
		if (used)
			host_sleep(USED_STILL);
	} while (used);
	host_work_cancel(&s->work);
}

void host_shrinker_wake(struct host_shrinker *s)
{
	if (pressure_wakes())
		host_work_queue(&s->work);
}

u64 host_shrink(void)
{
	struct host_shrinker *s;
	u64 id = 0, bytes = 0;

	while ((s = next_used(&id))) {
		bytes += s->ops->scan(s);
		put_used(s);
	}
	return bytes;
}

void shrinkers_memory_failed(void)
{
	struct host_shrinker *s;
	u64 id = 0;

	if (!host_load_acquire(&list.first))
		return;
	host_add_return(&list.failures, 1);
	while ((s = next_used(&id))) {
		host_work_queue(&s->work);
		put_used(s);
	}
}
