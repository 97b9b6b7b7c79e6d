/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sched_pick.c: which fiber goes on: by chance, by priorities, from a recorded list.
 * Whatever decides, what differs from the default is recorded as a choice.
 */
#include "host/model/sched_internal.h"

#include <stdlib.h>
#include <string.h>

#define LAZY_CHANCE 16u /* one in so many: a busy waiter goes on though others could */

static struct {
	u64 random;
	u64 often; /* of 65536: how likely a switch is */
	/* SCHED_PCT: points at which the running fiber falls behind all others. */
	u64 change[16];
	u32 n_changes;
	u64 lowest;		    /* the next priority below all others */
	struct sched_choice *taken; /* grows, never shrinks */
	u32 n_taken, room;
	u32 *chain; /* SCHED_REPLAY: 1 + index of the same fiber's next choice */
	u32 chain_room;
	u32 first[SCHED_FIBERS]; /* the same for each fiber's first one */
} pick;

u32 (*sched_decide)(u64 set, enum sched_point_kind kind, const void *object);

static u64 next_random(void)
{
	u64 x = pick.random += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* The first of the set after the running fiber, in a circle. */
static u32 after_current(u64 set)
{
	u64 later = sched.current == 63 ? 0 : set >> (sched.current + 1) << (sched.current + 1);

	return (u32)__builtin_ctzll(later ? later : set);
}

u32 pick_default(u64 set)
{
	u64 eager = set & ~sched.lazy;

	if (eager >> sched.current & 1)
		return sched.current;
	return after_current(eager ? eager : set);
}

static u32 nth(u64 set, u64 n)
{
	while (n--)
		set &= set - 1;
	return (u32)__builtin_ctzll(set);
}

static u32 pick_random(u64 set)
{
	u64 eager = set & ~sched.lazy, r = next_random();

	if (eager && (r >> 48) % LAZY_CHANCE)
		set = eager;
	if ((set >> sched.current & 1) && (r & 0xffff) >= pick.often)
		return sched.current;
	return nth(set, (r >> 16 & 0xffffffff) % (u64)__builtin_popcountll(set));
}

static u32 pick_pct(u64 set)
{
	u64 eager = set & ~sched.lazy;
	u32 best;

	for (u32 i = 0; i < pick.n_changes; i++) {
		if (sched.points >= pick.change[i]) {
			sched.self->priority = pick.lowest--;
			pick.change[i] = ~(u64)0;
		}
	}
	/* Who waits busily falls behind, or it would wait for ever. */
	if (sched.lazy >> sched.current & 1)
		sched.self->priority = pick.lowest--;
	set = eager ? eager : set;
	best = (u32)__builtin_ctzll(set);
	for (; set; set &= set - 1) {
		u32 i = (u32)__builtin_ctzll(set);

		if (sched.fibers[i].priority > sched.fibers[best].priority)
			best = i;
	}
	return best;
}

static u32 pick_replay(u64 set)
{
	struct sched_fiber *self = sched.self;

	while (self->next_choice) {
		const struct sched_choice *c = &sched.options.choices[self->next_choice - 1];

		if (c->point > self->points)
			break;
		self->next_choice = pick.chain[self->next_choice - 1];
		if (c->point == self->points && c->next < SCHED_FIBERS && set >> c->next & 1)
			return c->next;
	}
	return pick_default(set);
}

static void record(u32 next)
{
	if (pick.n_taken == pick.room) {
		pick.room = pick.room ? 2 * pick.room : 1024;
		pick.taken = realloc(pick.taken, pick.room * sizeof(*pick.taken));
		HOST_CHECK(pick.taken);
	}
	pick.taken[pick.n_taken++] = (struct sched_choice){sched.current, sched.self->points, next};
}

static u32 pick_one(u64 set)
{
	switch (sched.options.kind) {
	case SCHED_PCT:
		return pick_pct(set);
	case SCHED_REPLAY:
		return pick_replay(set);
	default:
		return pick_random(set);
	}
}

u32 pick_next(u64 set, enum sched_point_kind kind, const void *object)
{
	u32 usual = pick_default(set);
	u32 next = sched_decide ? sched_decide(set, kind, object) : pick_one(set);

	if (next != usual)
		record(next);
	return next;
}

/* Choices are in the order of the run; each fiber goes through its own. */
static void chain_choices(void)
{
	const struct sched_options *options = &sched.options;
	u32 last[SCHED_FIBERS] = {0};

	if (options->n_choices > pick.chain_room) {
		free(pick.chain);
		pick.chain = malloc(options->n_choices * sizeof(*pick.chain));
		HOST_CHECK(pick.chain);
		pick.chain_room = options->n_choices;
	}
	for (u32 i = options->n_choices; i-- > 0;) {
		u32 fiber = options->choices[i].fiber % SCHED_FIBERS;

		pick.chain[i] = last[fiber];
		last[fiber] = i + 1;
	}
	memcpy(pick.first, last, sizeof(last));
}

void pick_init(void)
{
	const struct sched_options *options = &sched.options;
	u64 length = options->length ? options->length : 2000;

	pick.random = options->seed * 0xd1342543de82ef95ull + 0x2545f4914f6cdd1dull;
	pick.n_taken = 0;
	/* From a switch at every second point to one in 512. */
	pick.often = 65536u >> (1 + next_random() % 9);
	pick.lowest = (u64)1 << 32;
	pick.n_changes =
	    host_min(options->depth ? options->depth : 3u, (u32)host_array_size(pick.change));
	for (u32 i = 0; i < pick.n_changes; i++)
		pick.change[i] = 1 + next_random() % length;
	memset(pick.first, 0, sizeof(pick.first));
	if (options->kind == SCHED_REPLAY)
		chain_choices();
}

void pick_spawned(u32 fiber)
{
	/* Above `lowest`, no two alike. */
	sched.fibers[fiber].priority = ((next_random() >> 32 | (u64)1 << 32) << 8) + fiber;
	sched.fibers[fiber].next_choice = pick.first[fiber];
}

void pick_results(struct sched_outcome *ret)
{
	ret->choices = pick.taken;
	ret->n_choices = pick.n_taken;
}
