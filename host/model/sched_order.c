/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched_order.c: the order of steps, by vector clocks. An object's clock for writers is
 * what a reader comes after; a writer comes after its readers' as well.
 *
 * A waiter looks at its condition between entering the queue and the sleep, without a point
 * in between: that comes before what changes the condition, and the wake behind that ends
 * the sleep, or after it, and there is no sleep. So it is the looks, which are told of, that
 * matter, and a wake only to who sleeps without one (host_waitq_sleep). Wakes commute.
 *
 * Giving a lock back races with those alone who do something even if they do not get it;
 * others could not have come earlier. A lock that was asked for in vain, and is waited
 * for, was not accessed, but who asked depends on who had it, and on who gives it back.
 */
#include "host/model/sched_order.h"

#include <stdlib.h>
#include <string.h>

#define TABLE_BITS 12u
#define TABLE (1u << TABLE_BITS)
#define NOBODY SCHED_FIBERS
#define TOUCHED 64u

struct clock {
	u32 step[SCHED_FIBERS];
};

struct seen {
	u32 step, decision;
};

/* What is known of an object: its last write, and the reads since. */
struct object {
	const void *key;
	u32 run; /* else it is of an earlier one */
	u32 writer, giver;
	struct seen write, given; /* given: back, of a lock */
	u32 refused;		  /* when it was last asked for in vain */
	u64 readers;		  /* bits */
	struct seen read[SCHED_FIBERS];
	struct clock written, used;
	u64 history, reads; /* hashes: of its last write; of the reads since, summed */
};

static struct {
	struct object *table;
	u32 run, steps, used;
	struct clock fibers[SCHED_FIBERS];
	u64 histories[SCHED_FIBERS]; /* hashes: of each fiber's last step */
	u64 hash;
	/* The latest step of another fiber that made it wait for a lock, or that waited for
	 * what it then gave: both could have gone on in the other order. */
	u32 waits[SCHED_FIBERS];
	u32 awaited[SCHED_FIBERS]; /* when its end was last waited for */
	/* What each fiber does when it goes on. */
	struct {
		const void *object;
		enum sched_point_kind kind;
	} next[SCHED_FIBERS];
	bool overflow;
	/* What the running step is known to have accessed, by address: not told twice. */
	u64 points;
	struct touched {
		const void *object;
		u64 point;
		bool write;
	} touched[TOUCHED];
} order;

static void join(struct clock *to, const struct clock *from)
{
	for (u32 i = 0; i < sched.n_fibers; i++)
		to->step[i] = host_max(to->step[i], from->step[i]);
}

static struct object *find(const void *key)
{
	u32 slot = (u32)(((u64)(uintptr_t)key >> 2) * 0x9e3779b97f4a7c15ull >> (64 - TABLE_BITS));

	for (;; slot = (slot + 1) % TABLE) {
		struct object *o = &order.table[slot];

		if (o->run == order.run && o->key == key)
			return o;
		if (o->run == order.run)
			continue;
		if (order.used == TABLE / 2) {
			order.overflow = true;
			return NULL;
		}
		order.used++;
		o->key = key;
		o->run = order.run;
		o->writer = o->giver = NOBODY;
		o->readers = 0;
		o->history = o->reads = 0;
		o->refused = 0;
		memset(&o->written, 0, sizeof(o->written));
		memset(&o->used, 0, sizeof(o->used));
		return o;
	}
}

static u64 mix(u64 x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* A step is what its fiber did before and what it found at the object; which object
 * that is follows from the first. The sum does not know in which order they came. */
static void add_to_hash(u32 fiber, struct object *o, bool write)
{
	u64 found = write ? o->history + mix(o->reads) : o->history;
	u64 step = mix(order.histories[fiber] * 2 + write + mix(found + fiber + 1));

	order.histories[fiber] = step;
	order.hash += mix(step);
	o->reads = write ? 0 : o->reads + step;
	if (write)
		o->history = step;
}

enum access { NO_ACCESS, READ, WRITE };

static enum access access_of(enum sched_point_kind kind)
{
	switch (kind) {
	case POINT_LOCK:
	case POINT_TRYLOCK:
	case POINT_WRITE_LOCK:
	case POINT_ATOMIC:
	case POINT_COPY:
	case POINT_WORK:
	case POINT_FAULT:
	case POINT_NOTIFIER:
	case POINT_FLUSH:
	case POINT_MODEL:
		return WRITE;
	case POINT_READ_LOCK:
	case POINT_WAKE: /* they commute */
		return READ;
	default:
		return NO_ACCESS;
	}
}

/* Is it another thing before a lock is given back and after? A writer that waits keeps
 * new readers out. */
static bool sees_release(enum sched_point_kind kind)
{
	return kind == POINT_TRYLOCK || kind == POINT_WRITE_LOCK;
}

/* Races of what the fiber is about to do with what others did. */
static void look_back(u32 fiber, const struct object *o, enum access access, bool release,
		      order_race *race)
{
	const struct clock *clock = &order.fibers[fiber];

	if (o->writer != NOBODY && o->write.step > clock->step[o->writer])
		race(o->write.decision, fiber);
	if (release && o->giver != NOBODY && o->given.step > clock->step[o->giver])
		race(o->given.decision, fiber);
	for (u64 left = access == WRITE ? o->readers : 0; left; left &= left - 1) {
		u32 reader = (u32)__builtin_ctzll(left);

		if (o->read[reader].step > clock->step[reader])
			race(o->read[reader].decision, fiber);
	}
}

/* Races of what the fiber has just done with what others, who can go on, are about to
 * do. */
static void look_ahead(u32 fiber, const void *key, enum access access, u32 decision,
		       order_race *race)
{
	for (u64 left = sched.runnable & ~((u64)1 << fiber); left; left &= left - 1) {
		u32 i = (u32)__builtin_ctzll(left);
		enum access other = access_of(order.next[i].kind);

		if (order.next[i].object == key && other && (access == WRITE || other == WRITE))
			race(decision, i);
	}
}

/* The step is made. */
static void made(u32 fiber, struct object *o, enum access access, u32 decision)
{
	struct clock *clock = &order.fibers[fiber];
	struct seen seen = {++order.steps, decision};

	join(clock, access == WRITE ? &o->used : &o->written);
	clock->step[fiber] = seen.step;
	add_to_hash(fiber, o, access == WRITE);
	join(&o->used, clock);
	if (access == WRITE) {
		o->writer = fiber;
		o->write = seen;
		o->readers = 0;
		o->written = o->used;
	} else {
		o->readers |= (u64)1 << fiber;
		o->read[fiber] = seen;
	}
}

static void access(u32 fiber, const void *key, enum access access, u32 decision, order_race *race)
{
	struct object *o = find(key);

	if (!o)
		return;
	look_back(fiber, o, access, sees_release(order.next[fiber].kind), race);
	look_ahead(fiber, key, access, decision, race);
	made(fiber, o, access, decision);
}

/* Nobody announces these: who makes one later finds the race then. */
void order_access(u32 fiber, const void *object, bool write, u32 decision, order_race *race)
{
	enum access access = write ? WRITE : READ;
	struct touched *t = &order.touched[(uintptr_t)object >> 2 & (TOUCHED - 1)];
	struct object *o;

	if (t->point == order.points && t->object == object && t->write >= write)
		return;
	*t = (struct touched){object, order.points, write};
	o = find(object);
	if (!o)
		return;
	look_back(fiber, o, access, false, race);
	made(fiber, o, access, decision);
}

void order_await(u32 fiber, const void *object, u32 decision)
{
	struct object *o = find(object);

	if (o)
		made(fiber, o, READ, decision);
}

/* All that the fiber did comes before whoever takes the lock next. */
static void give_back(u32 fiber, const void *key, bool write, u32 decision, order_race *race)
{
	struct clock *clock = &order.fibers[fiber];
	struct object *o = find(key);

	if (!o)
		return;
	order.waits[fiber] = host_max(order.waits[fiber], o->refused);
	for (u64 left = sched.runnable & ~((u64)1 << fiber); left; left &= left - 1) {
		u32 i = (u32)__builtin_ctzll(left);

		if (order.next[i].object == key && sees_release(order.next[i].kind))
			race(decision, i);
	}
	o->giver = fiber;
	o->given = (struct seen){++order.steps, decision};
	join(clock, write ? &o->used : &o->written);
	clock->step[fiber] = order.steps;
	add_to_hash(fiber, o, write);
	join(&o->used, clock);
	if (write)
		o->written = o->used;
}

/* The fiber has asked for a lock in vain: it was not accessed. */
static void refuse(u32 fiber, const void *key)
{
	struct object *o = find(key);

	if (!o)
		return;
	order.waits[fiber] = host_max(order.waits[fiber], o->refused);
	if (o->writer != NOBODY)
		order.waits[fiber] = host_max(order.waits[fiber], o->write.step);
	for (u64 left = o->readers; left; left &= left - 1)
		order.waits[fiber] =
		    host_max(order.waits[fiber], o->read[__builtin_ctzll(left)].step);
	o->refused = ++order.steps;
}

static void end(u32 fiber)
{
	order.fibers[fiber].step[fiber] = ++order.steps;
}

static bool is_lock(enum sched_point_kind kind)
{
	return kind == POINT_LOCK || kind == POINT_READ_LOCK;
}

void order_point(const struct sched_event *event, u32 decision, order_race *race)
{
	u32 fiber = event->fiber;
	const void *done = order.next[fiber].object;
	enum sched_point_kind kind = order.next[fiber].kind;
	bool refused = event->waits && event->object == done && is_lock(kind);
	struct object *o;

	order.points++;
	if (refused)
		refuse(fiber, done);
	else if (done && access_of(kind))
		access(fiber, done, access_of(kind), decision, race);
	if (event->kind == POINT_END)
		end(fiber);
	if (event->kind == POINT_JOIN)
		order.awaited[(const struct sched_fiber *)event->object - sched.fibers] =
		    ++order.steps;
	if (event->kind == POINT_UNLOCK || event->kind == POINT_READ_UNLOCK)
		give_back(fiber, event->object, event->kind == POINT_UNLOCK, decision, race);
	order.next[fiber].object = event->object;
	order.next[fiber].kind = event->kind;
	o = event->object && access_of(event->kind) ? find(event->object) : NULL;
	if (o)
		look_back(fiber, o, access_of(event->kind), sees_release(event->kind), race);
}

void order_skip(u32 fiber)
{
	order.next[fiber].object = NULL;
	order.points++;
}

void order_spawn(u32 child)
{
	order.fibers[child] = order.fibers[sched.current];
}

void order_join(u32 other)
{
	join(&order.fibers[sched.current], &order.fibers[other]);
}

void order_begin(void)
{
	if (!order.table)
		order.table = calloc(TABLE, sizeof(*order.table));
	HOST_CHECK(order.table);
	order.run++;
	order.used = order.steps = 0;
	order.overflow = false;
	order.hash = 0;
	memset(order.waits, 0, sizeof(order.waits));
	memset(order.awaited, 0, sizeof(order.awaited));
	memset(order.histories, 0, sizeof(order.histories));
	memset(order.fibers, 0, sizeof(order.fibers));
	memset(order.next, 0, sizeof(order.next));
}

u32 order_steps(void)
{
	return order.steps;
}

u64 order_hash(void)
{
	return order.hash;
}

bool order_alone(u32 fiber, u32 since)
{
	const struct clock *clock = &order.fibers[fiber];

	if (order.waits[fiber] > since ||
	    (sched.fibers[fiber].over && order.awaited[fiber] > since))
		return false;
	for (u32 i = 0; i < sched.n_fibers; i++)
		if (i != fiber && clock->step[i] > since)
			return false;
	return true;
}

u32 order_last(u32 fiber, u32 of)
{
	return order.fibers[fiber].step[of];
}

bool order_overflow(void)
{
	return order.overflow;
}
