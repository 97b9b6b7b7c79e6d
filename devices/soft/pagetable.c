/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * pagetable.c: the page table of a VM. See pagetable.h.
 *
 * A writer keeps two things true for walkers without a lock: a page that is
 * mapped before and after with the same contents never looks unmapped in
 * between longer than one fault takes, and no walk ever reads a freed table. A
 * walker looks at the 2M leaf first; so a writer that replaces small leaves by a
 * large one writes the large one first, and one that splits a large leaf fills
 * the small table first.
 */
#include "devices/soft/pagetable.h"

#define MID_SHIFT 39u
#define DIR_SHIFT 30u
#define HUGE_SHIFT 21u
#define PAGES_64K (1u << SOFT_ORDER_64K)

static unsigned slot_of(u64 va, unsigned shift)
{
	return (unsigned)(va >> shift) & (SOFT_PT_ENTRIES - 1);
}

static void leaf_set(u64 *slot, u64 leaf)
{
	host_store_release(slot, leaf);
}

/* The directory for va, or NULL. Context: any; what is there stays. */
static struct soft_pt_dir *dir_of(const struct soft_pt *pt, u64 va)
{
	struct soft_pt_mid *mid = host_load_acquire(&pt->mid[slot_of(va, MID_SHIFT)]);

	return mid ? host_load_acquire(&mid->dir[slot_of(va, DIR_SHIFT)]) : NULL;
}

u64 soft_pt_walk(const struct soft_pt *pt, u64 va)
{
	const struct soft_pt_dir *dir;
	const struct soft_pt_small *small;
	u64 leaf;

	if (va >= SOFT_VA_END)
		return 0;
	dir = dir_of(pt, va);
	if (!dir)
		return 0;
	leaf = host_load_acquire(&dir->leaf[slot_of(va, HUGE_SHIFT)]);
	if (leaf)
		return leaf;
	small = host_load_acquire(&dir->small[slot_of(va, HUGE_SHIFT)]);
	return small ? host_load_acquire(&small->leaf[slot_of(va, HOST_PAGE_SHIFT)]) : 0;
}

/* ---- Tables --------------------------------------------------------------- */

static void dir_free(struct soft_pt_dir *dir)
{
	unsigned i;

	for (i = 0; i < SOFT_PT_ENTRIES; i++)
		host_free(dir->small[i]);
	host_free(dir);
}

void soft_pt_fini(struct soft_pt *pt)
{
	unsigned i, k;

	for (i = 0; i < SOFT_PT_ENTRIES; i++) {
		struct soft_pt_mid *mid = pt->mid[i];

		if (!mid)
			continue;
		for (k = 0; k < SOFT_PT_ENTRIES; k++)
			if (mid->dir[k])
				dir_free(mid->dir[k]);
		host_free(mid);
		pt->mid[i] = NULL;
	}
}

/* Makes the table behind a pointer of type *slot unless it is there. */
#define TABLE_MAKE(slot)                                                                           \
	({                                                                                         \
		if (!*(slot)) {                                                                    \
			void *new_ = host_alloc_zeroed(sizeof(**(slot)));                          \
			if (new_)                                                                  \
				host_store_release((slot), new_);                                  \
		}                                                                                  \
		*(slot);                                                                           \
	})

int soft_pt_prepare(struct soft_pt *pt, u64 va, u64 length, bool small)
{
	u64 end = va + length;
	u64 at;

	if (end < va || end > SOFT_VA_END)
		return -EINVAL;
	for (at = host_align_down(va, HOST_HUGE_SIZE); at < end; at += HOST_HUGE_SIZE) {
		struct soft_pt_mid *mid = TABLE_MAKE(&pt->mid[slot_of(at, MID_SHIFT)]);
		struct soft_pt_dir *dir =
		    mid ? TABLE_MAKE(&mid->dir[slot_of(at, DIR_SHIFT)]) : NULL;

		if (!dir)
			return -ENOMEM;
		if (!small && at >= va && at + HOST_HUGE_SIZE <= end)
			continue;
		if (!TABLE_MAKE(&dir->small[slot_of(at, HUGE_SHIFT)]))
			return -ENOMEM;
	}
	return 0;
}

/* ---- Leaves ---------------------------------------------------------------- */

static struct soft_pt_small *small_of(const struct soft_pt_dir *dir, unsigned slot)
{
	return host_load_acquire(&dir->small[slot]); /* prepare may run beside us */
}

static void small_clear_all(struct soft_pt_dir *dir, unsigned slot)
{
	struct soft_pt_small *small = small_of(dir, slot);
	unsigned i;

	if (!dir->live[slot])
		return;
	for (i = 0; i < SOFT_PT_ENTRIES; i++)
		if (small->leaf[i])
			leaf_set(&small->leaf[i], 0);
	dir->live[slot] = 0;
}

/* The small table for a slot that is about to get a small leaf. What a 2M leaf
 * maps there goes on being mapped, page by page. */
static struct soft_pt_small *small_for_map(struct soft_pt_dir *dir, unsigned slot)
{
	struct soft_pt_small *small = small_of(dir, slot);
	u64 leaf = dir->leaf[slot];
	unsigned i;

	HOST_CHECK(small != NULL); /* was not prepared */
	if (!leaf)
		return small;
	leaf -= HOST_HUGE_ORDER - SOFT_ORDER_64K;
	for (i = 0; i < SOFT_PT_ENTRIES; i++)
		leaf_set(&small->leaf[i], leaf + i * HOST_PAGE_SIZE);
	dir->live[slot] = SOFT_PT_ENTRIES;
	leaf_set(&dir->leaf[slot], 0);
	return small;
}

/* If slot i is part of a 64K leaf, it and its neighbours become leaves of 4K. */
static void small_break_run(struct soft_pt_small *small, unsigned i)
{
	unsigned first = i & ~(PAGES_64K - 1);
	unsigned k;

	if (soft_leaf_order(small->leaf[i]) != SOFT_ORDER_64K)
		return;
	for (k = first; k < first + PAGES_64K; k++)
		leaf_set(&small->leaf[k], small->leaf[k] - SOFT_ORDER_64K);
}

static void small_write(struct soft_pt_dir *dir, u64 va, u64 leaf)
{
	unsigned slot = slot_of(va, HUGE_SHIFT);
	struct soft_pt_small *small = small_for_map(dir, slot);
	unsigned i = slot_of(va, HOST_PAGE_SHIFT);
	unsigned n = 1u << soft_leaf_order(leaf);
	unsigned k;

	if (n == 1)
		small_break_run(small, i);
	for (k = 0; k < n; k++) {
		if (!small->leaf[i + k])
			dir->live[slot]++;
		leaf_set(&small->leaf[i + k], leaf + k * HOST_PAGE_SIZE);
	}
}

/* The largest leaf that begins at va, in a run that has so many pages left. */
static unsigned leaf_order_for(const struct soft_pt *pt, u64 va, u64 address, u64 pages)
{
	bool medium = !(pt->no_orders >> SOFT_ORDER_64K & 1);
	bool huge = !(pt->no_orders >> HOST_HUGE_ORDER & 1);

	if (huge && pages >= HOST_HUGE_PAGES && host_is_aligned(va | address, HOST_HUGE_SIZE))
		return HOST_HUGE_ORDER;
	if (medium && pages >= PAGES_64K &&
	    host_is_aligned(va | address, HOST_PAGE_SIZE * PAGES_64K))
		return SOFT_ORDER_64K;
	return 0;
}

static void map_run(struct soft_pt *pt, u64 va, struct gpusvm_addr run)
{
	u64 address = gpusvm_addr_address(run);
	u64 pages = (u64)1 << gpusvm_addr_order(run);

	while (pages) {
		unsigned order = leaf_order_for(pt, va, address, pages);
		struct gpusvm_addr leaf = gpusvm_addr_encode(address, gpusvm_addr_proto(run), order,
							     gpusvm_addr_write(run));
		struct soft_pt_dir *dir = dir_of(pt, va);

		leaf.word |= run.word & GPUSVM_ADDR_NO_ATOMICS;
		HOST_CHECK(dir != NULL); /* was not prepared */
		if (order == HOST_HUGE_ORDER) {
			leaf_set(&dir->leaf[slot_of(va, HUGE_SHIFT)], leaf.word);
			small_clear_all(dir, slot_of(va, HUGE_SHIFT));
		} else {
			small_write(dir, va, leaf.word);
		}
		va += HOST_PAGE_SIZE << order;
		address += HOST_PAGE_SIZE << order;
		pages -= (u64)1 << order;
	}
}

void soft_pt_map(struct soft_pt *pt, u64 va, const struct gpusvm_addr *runs, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		u64 size = HOST_PAGE_SIZE << gpusvm_addr_order(runs[i]);

		HOST_CHECK(host_is_aligned(va, HOST_PAGE_SIZE) && va < SOFT_VA_END &&
			   size <= SOFT_VA_END - va);
		if (gpusvm_addr_proto(runs[i]) != GPUSVM_PROTO_NONE)
			map_run(pt, va, runs[i]);
		va += size;
	}
}

static bool small_unmap(struct soft_pt_dir *dir, unsigned slot, unsigned first, unsigned end)
{
	struct soft_pt_small *small = small_of(dir, slot);
	bool any = false;
	unsigned i;

	if (!dir->live[slot])
		return false;
	if (soft_leaf_order(small->leaf[first]) == SOFT_ORDER_64K)
		first &= ~(PAGES_64K - 1);
	if (soft_leaf_order(small->leaf[end - 1]) == SOFT_ORDER_64K)
		end = (end + PAGES_64K - 1) & ~(PAGES_64K - 1);
	for (i = first; i < end; i++) {
		if (!small->leaf[i])
			continue;
		leaf_set(&small->leaf[i], 0);
		dir->live[slot]--;
		any = true;
	}
	return any;
}

/* [va, end) lies within 2M. */
static bool block_unmap(struct soft_pt_dir *dir, u64 va, u64 end)
{
	unsigned slot = slot_of(va, HUGE_SHIFT);

	if (dir->leaf[slot]) {
		leaf_set(&dir->leaf[slot], 0);
		return true;
	}
	return small_unmap(dir, slot, slot_of(va, HOST_PAGE_SHIFT),
			   slot_of(end - 1, HOST_PAGE_SHIFT) + 1);
}

bool soft_pt_unmap(struct soft_pt *pt, u64 va, u64 length)
{
	u64 end = va < SOFT_VA_END && length < SOFT_VA_END - va ? va + length : SOFT_VA_END;
	bool any = false;

	while (va < end) {
		struct soft_pt_mid *mid = host_load_acquire(&pt->mid[slot_of(va, MID_SHIFT)]);
		struct soft_pt_dir *dir = mid ? dir_of(pt, va) : NULL;
		unsigned shift = !mid ? MID_SHIFT : !dir ? DIR_SHIFT : HUGE_SHIFT;
		u64 next = host_min(end, ((va >> shift) + 1) << shift);

		if (dir && block_unmap(dir, va, next))
			any = true;
		va = next;
	}
	return any;
}
