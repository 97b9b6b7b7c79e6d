/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * block.c: blocks of 2M of addresses and the state of each page in them.
 *
 * Blocks are made when memory is first registered and live as long as the home:
 * a lookup needs no lock (tables are published with release stores). Entries
 * follow the rule of home.h.
 */
#include "host/userfault/home.h"
#include "host/posix/posix.h"

int blocks_init(struct mm *mm)
{
	host_mutex_init(&mm->blocks_lock, RANK_HOST_POOL);
	for (unsigned i = 0; i < BLOCK_WAITQS; i++)
		host_waitq_init(&mm->waitqs[i]);
	mm->n_blocks = 1; /* 0 means none in an rmap */
	mm->by_number = host_alloc_pages(BLOCK_NUMBERS * sizeof(struct block *));
	return mm->by_number ? 0 : -ENOMEM;
}

void blocks_fini(struct mm *mm)
{
	for (u32 i = 1; i < mm->n_blocks; i++) {
		struct block *b = mm->by_number[i];

		host_free(b->pages);
		host_mutex_destroy(&b->lock);
		host_free(b);
	}
	for (unsigned i = 0; i < BLOCK_L1_SIZE; i++)
		host_free(mm->l1[i]);
	if (mm->by_number)
		host_free_pages(mm->by_number, BLOCK_NUMBERS * sizeof(struct block *));
	for (unsigned i = 0; i < BLOCK_WAITQS; i++)
		host_waitq_destroy(&mm->waitqs[i]);
	host_mutex_destroy(&mm->blocks_lock);
}

struct block *block_find(struct mm *mm, u64 address)
{
	u64 n = address / HOST_HUGE_SIZE;
	struct block **l2;

	if (n >> BLOCK_L2_BITS >= BLOCK_L1_SIZE)
		return NULL;
	l2 = host_load_acquire(&mm->l1[n >> BLOCK_L2_BITS]);
	return l2 ? host_load_acquire(&l2[n & (BLOCK_L2_SIZE - 1)]) : NULL;
}

static struct block *block_make_locked(struct mm *mm, u64 n)
{
	struct block ***l1 = &mm->l1[n >> BLOCK_L2_BITS], *b;

	if (!*l1) {
		struct block **l2 = host_alloc_zeroed(BLOCK_L2_SIZE * sizeof(*l2));

		if (!l2)
			return NULL;
		host_store_release(l1, l2);
	}
	b = host_alloc_zeroed(sizeof(*b));
	if (!b)
		return NULL;
	host_mutex_init(&b->lock, RANK_HOST_BLOCK);
	b->address = n * HOST_HUGE_SIZE;
	b->number = mm->n_blocks;
	mm->by_number[b->number] = b;
	host_store_release(&mm->n_blocks, b->number + 1);
	host_store_release(&(*l1)[n & (BLOCK_L2_SIZE - 1)], b);
	return b;
}

struct block *block_make(struct mm *mm, u64 address)
{
	u64 n = address / HOST_HUGE_SIZE;
	struct block *b = block_find(mm, address);

	if (b || n >> BLOCK_L2_BITS >= BLOCK_L1_SIZE)
		return b;
	host_mutex_lock(&mm->blocks_lock);
	b = block_find(mm, address);
	if (!b && mm->n_blocks < BLOCK_NUMBERS)
		b = block_make_locked(mm, n);
	host_mutex_unlock(&mm->blocks_lock);
	return b;
}

struct block *block_of_rmap(struct mm *mm, rmap_t r)
{
	return mm->by_number[r >> HOST_HUGE_ORDER];
}

struct host_waitq *block_waitq(struct mm *mm, const struct block *b)
{
	return &mm->waitqs[b->number % BLOCK_WAITQS];
}

entry_t block_get(const struct block *b, unsigned i)
{
	if (b->pages)
		return b->pages[i];
	/* Marks are not counted up, ids are. */
	return entry_kind(b->uniform) == ENTRY_SYSTEM ? b->uniform : b->uniform + i;
}

bool block_compound(const struct mm *mm, const struct block *b)
{
	(void)mm;
	return !b->pages && entry_kind(b->uniform) != ENTRY_SYSTEM;
}

void block_set(struct block *b, unsigned i, entry_t e)
{
	HOST_ASSERT(b->pages);
	b->pages[i] = e;
}

bool block_registered(const struct block *b, u64 start, u64 end)
{
	u32 known = host_read_once(&b->registered);

	return ((start - b->address) >> HOST_PAGE_SHIFT) >= (known & 0xffff) &&
	       ((end - b->address) >> HOST_PAGE_SHIFT) <= known >> 16;
}

void block_register(struct block *b, u64 start, u64 end)
{
	u32 first = (u32)((start - b->address) >> HOST_PAGE_SHIFT);
	u32 last = (u32)((end - b->address) >> HOST_PAGE_SHIFT);
	u32 known = b->registered;

	if (known && (first > known >> 16 || last < (known & 0xffff)))
		return;
	if (known) {
		first = host_min(first, known & 0xffff);
		last = host_max(last, known >> 16);
	}
	host_write_once(&b->registered, first | last << 16);
}

void slot_spread(struct mm *mm, const struct block *b)
{
	struct slot *slot = &mm->staging.slots[entry_id(b->uniform) >> HOST_HUGE_ORDER];

	for (unsigned i = 0; i < HOST_HUGE_PAGES; i++)
		slot->rmaps[i] = rmap(b, i);
}

void block_expand(struct mm *mm, struct block *b, entry_t **array)
{
	entry_t *pages = *array;
	enum entry_kind kind = entry_kind(b->uniform);

	if (b->pages)
		return;
	HOST_CHECK(pages);
	/* The frame of a compound page is split with it; a staging slot has one
	 * rmap for each page anyhow, of which the first may be the only one that is set. */
	if (kind == ENTRY_DEVICE || kind == ENTRY_IN)
		(void)frame_split(mm, frame_page(mm, entry_id(b->uniform), true));
	if (kind == ENTRY_OUT)
		slot_spread(mm, b);
	for (unsigned i = 0; i < HOST_HUGE_PAGES; i++)
		pages[i] = block_get(b, i);
	b->pages = pages;
	*array = NULL;
}

bool block_own_remove(struct block *b, u64 start, u64 end)
{
	struct own_remove **at = &b->own_removes;

	while (*at && ((*at)->start != start || (*at)->end != end))
		at = &(*at)->next;
	if (!*at)
		return false;
	*at = (*at)->next;
	return true;
}

void block_collapse(struct block *b)
{
	if (!b->pages)
		return;
	for (unsigned i = 0; i < HOST_HUGE_PAGES; i++)
		if (b->pages[i] != entry(ENTRY_SYSTEM, 0))
			return;
	host_free(b->pages);
	b->pages = NULL;
	b->uniform = entry(ENTRY_SYSTEM, 0);
}
