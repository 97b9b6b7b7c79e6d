/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * buddy.c: the allocator of device memory. See buddy.h; the caller locks
 * (the device: memory_lock, RANK_DEVICE_MEMORY).
 */
#include "devices/soft/buddy.h"

/* ---- Bitmaps with summaries --------------------------------------------- */

static u64 bits_words(u64 bits)
{
	return (bits + 63) >> 6;
}

/* Lays the levels out from words (when not NULL); the number of words needed. */
static u64 bits_layout(struct soft_bitmap *map, u64 bits, u64 *words)
{
	u64 used = 0;

	map->levels = 0;
	do {
		u64 n = bits_words(bits);

		HOST_CHECK(map->levels < SOFT_BITMAP_LEVELS);
		map->level[map->levels++] = words ? words + used : NULL;
		used += n;
		bits = n;
	} while (bits > 1);
	return used;
}

static bool bits_test(const struct soft_bitmap *map, u64 n)
{
	return map->level[0][n >> 6] >> (n & 63) & 1;
}

static void bits_set(struct soft_bitmap *map, u64 n)
{
	unsigned i;

	for (i = 0; i < map->levels; i++) {
		u64 *word = &map->level[i][n >> 6];
		bool was_empty = *word == 0;

		*word |= (u64)1 << (n & 63);
		if (!was_empty)
			return;
		n >>= 6;
	}
}

static void bits_clear(struct soft_bitmap *map, u64 n)
{
	unsigned i;

	for (i = 0; i < map->levels; i++) {
		u64 *word = &map->level[i][n >> 6];

		*word &= ~((u64)1 << (n & 63));
		if (*word)
			return;
		n >>= 6;
	}
}

static bool bits_empty(const struct soft_bitmap *map)
{
	return map->level[map->levels - 1][0] == 0;
}

/* Must not be empty. */
static u64 bits_first(const struct soft_bitmap *map)
{
	unsigned i = map->levels;
	u64 n = 0;

	while (i--)
		n = n << 6 | (unsigned)__builtin_ctzll(map->level[i][n]);
	return n;
}

/* ---- Blocks -------------------------------------------------------------- */

static void block_add(struct soft_buddy *buddy, unsigned order, u64 block)
{
	bits_set(&buddy->blocks[order], block);
	buddy->orders |= 1u << order;
}

static void block_remove(struct soft_buddy *buddy, unsigned order, u64 block)
{
	bits_clear(&buddy->blocks[order], block);
	if (bits_empty(&buddy->blocks[order]))
		buddy->orders &= ~(1u << order);
}

static u64 buddy_layout(struct soft_buddy *buddy, u64 *words)
{
	u64 used = 0;
	unsigned order;

	for (order = 0; order <= buddy->max_order; order++)
		used += bits_layout(&buddy->blocks[order], (buddy->frames >> order) + 1,
				    words ? words + used : NULL);
	return used;
}

int soft_buddy_init(struct soft_buddy *buddy, u64 frames)
{
	u64 at = 0;
	u64 words;

	HOST_ASSERT(frames > 0);
	buddy->frames = frames;
	buddy->free = frames;
	buddy->orders = 0;
	buddy->max_order = host_min(63u - (unsigned)__builtin_clzll(frames), SOFT_BUDDY_ORDERS - 1);
	words = buddy_layout(buddy, NULL);
	buddy->words = host_alloc_zeroed(words * sizeof(u64));
	if (!buddy->words)
		return -ENOMEM;
	buddy_layout(buddy, buddy->words);
	while (at < frames) {
		unsigned order = at ? (unsigned)__builtin_ctzll(at) : buddy->max_order;

		order = host_min(order, buddy->max_order);
		while (at + ((u64)1 << order) > frames)
			order--;
		block_add(buddy, order, at >> order);
		at += (u64)1 << order;
	}
	return 0;
}

void soft_buddy_fini(struct soft_buddy *buddy)
{
	host_free(buddy->words);
	buddy->words = NULL;
}

bool soft_buddy_has(const struct soft_buddy *buddy, unsigned order)
{
	return order <= buddy->max_order && buddy->orders >> order;
}

int soft_buddy_alloc(struct soft_buddy *buddy, unsigned order, u64 *ret)
{
	unsigned have;
	u64 block;

	if (!soft_buddy_has(buddy, order))
		return -ENOSPC;
	have = order + (unsigned)__builtin_ctz(buddy->orders >> order);
	block = bits_first(&buddy->blocks[have]);
	block_remove(buddy, have, block);
	while (have > order) { /* keep the lower half, give the upper one back */
		have--;
		block <<= 1;
		block_add(buddy, have, block + 1);
	}
	buddy->free -= (u64)1 << order;
	*ret = block << order;
	return 0;
}

/* Is any part of the block free, alone or within a larger one? */
static bool buddy_overlaps_free(const struct soft_buddy *buddy, u64 frame, unsigned order)
{
	unsigned i;

	for (i = order; i <= buddy->max_order; i++)
		if (bits_test(&buddy->blocks[i], frame >> i))
			return true;
	for (i = 0; i < order; i++) {
		u64 first = frame >> i;
		u64 n = (u64)1 << (order - i);
		u64 k;

		if (n < 64) {
			if (buddy->blocks[i].level[0][first >> 6] >> (first & 63) &
			    (((u64)1 << n) - 1))
				return true;
			continue;
		}
		for (k = 0; k < n >> 6; k++)
			if (buddy->blocks[i].level[0][(first >> 6) + k])
				return true;
	}
	return false;
}

void soft_buddy_free(struct soft_buddy *buddy, u64 frame, unsigned order)
{
	u64 n = (u64)1 << order;
	u64 block;

	HOST_CHECK(order <= buddy->max_order && host_is_aligned(frame, n) &&
		   frame < buddy->frames && n <= buddy->frames - frame);
	/* Freed twice, it would be given to two owners. */
	HOST_CHECK(!buddy_overlaps_free(buddy, frame, order));
	buddy->free += n;
	block = frame >> order;
	/* The bit of a buddy that reaches over the end is never set. */
	while (order < buddy->max_order && bits_test(&buddy->blocks[order], block ^ 1)) {
		block_remove(buddy, order, block ^ 1);
		block >>= 1;
		order++;
	}
	block_add(buddy, order, block);
}

void soft_buddy_verify(const struct soft_buddy *buddy)
{
	u64 free = 0;
	unsigned order;

	for (order = 0; order <= buddy->max_order; order++) {
		const struct soft_bitmap *map = &buddy->blocks[order];
		u64 n = buddy->frames >> order;
		u64 words = bits_words(n + 1); /* one more bit than blocks */
		u64 k;
		unsigned i;

		HOST_CHECK(!bits_test(map, n));
		HOST_CHECK(bits_empty(map) == !(buddy->orders >> order & 1));
		for (k = 0; k < n; k++) {
			if (!bits_test(map, k))
				continue;
			free += (u64)1 << order;
			HOST_CHECK(order == buddy->max_order || !bits_test(map, k ^ 1));
			for (i = order + 1; i <= buddy->max_order; i++)
				HOST_CHECK(!bits_test(&buddy->blocks[i], k >> (i - order)));
		}
		for (i = 1; i < map->levels; i++, words = bits_words(words))
			for (k = 0; k < words; k++)
				HOST_CHECK((map->level[i - 1][k] != 0) ==
					   (map->level[i][k >> 6] >> (k & 63) & 1));
	}
	HOST_CHECK(free == buddy->free);
}
