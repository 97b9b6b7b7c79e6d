/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * huge.c: several huge pages at once to frames that are ordinary memory.
 *
 * What a transaction does for 2M costs several times as much as the MOVE itself. Here
 *   1. blocks that are huge pages in system memory are looked for, and set to OUT;
 *   2. notifiers are told, once for each run of them, and have devices let go;
 *   3. runs that are side by side on both sides are moved by one MOVE, and the blocks set
 *      to DEVICE.
 * 1 and 3 hold the gate for writing: no event is read and no section is entered anywhere, so
 * that all blocks are looked at and changed together. Both are short: a MOVE of a huge page is
 * the change of one entry. So between the two states there is no moment in which somebody
 * could look. In 2 the pages are where they were, and within everybody's reach.
 *
 * A block that is not as it should be, or that MOVE refuses, is set to SYSTEM again and left
 * to a transaction of its own, which knows what to do about it. One that was moved in part, or
 * that an event has changed since 1, is put back page by page as a transaction would that has
 * come so far and is given up (out_end).
 */
#include "host/userfault/home.h"

#define TAKE_TRIES 4u /* looks between which an event was read */
#define MOVE_TRIES 8u /* with an event in the way */
#define SEEN_MAX 4u   /* runs of huge pages that are looked for */

enum unit_state {
	UNIT_OFF,   /* nothing was done with it */
	UNIT_TAKEN, /* its block is in state OUT */
	UNIT_MOVED,
	UNIT_LEFT,   /* it was taken, and is where it was */
	UNIT_BROKEN, /* pages of it are to be put back one by one */
};

struct unit {
	enum unit_state state;
	struct block *block;
	struct slot *slot;
	struct mm_page *page;
	u64 to; /* where its frame is */
};

/* A broken one goes on as a transaction that is given up. */
struct broken {
	struct mm_migrate m;
	struct transaction t;
};

/* One at work; the last one is kept, with the spares. */
struct huge_move {
	struct mm *mm;
	const struct mm_region *region;
	unsigned n;
	struct unit units[MM_MOVE_HUGE_MAX];
	struct slot *slots[MM_MOVE_HUGE_MAX];
	unsigned n_slots;
	entry_t *spares[MM_MOVE_HUGE_MAX]; /* one for each: a broken unit cannot wait for memory */
	struct broken broken[MM_MOVE_HUGE_MAX];
};

/* ---- Beginning and end ---------------------------------------------------------- */

void huge_move_drop(struct huge_move *h)
{
	for (unsigned i = 0; h && i < MM_MOVE_HUGE_MAX; i++)
		host_free(h->spares[i]);
	host_free(h);
}

static bool spares_make(struct huge_move *h, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (!h->spares[i])
			h->spares[i] = host_alloc(HOST_HUGE_PAGES * sizeof(**h->spares));
		if (!h->spares[i])
			return false;
	}
	return true;
}

static struct huge_move *huge_move_take(const struct mm_move_huge *m)
{
	struct mm *mm = m->mm;
	struct huge_move *h = host_xchg(&mm->idle_huge_move, NULL);

	if (!h)
		h = host_alloc_zeroed(sizeof(*h));
	if (!h || !spares_make(h, m->n)) {
		huge_move_drop(h);
		return NULL;
	}
	h->mm = mm;
	h->region = mm_page_region(m->pages[0]);
	h->n = m->n;
	h->n_slots = staging_take_books(mm, h->slots, m->n);
	for (unsigned i = 0; i < m->n; i++)
		h->units[i] = (struct unit){
		    .block = block_find(mm, m->start + i * HOST_HUGE_SIZE),
		    .slot = i < h->n_slots ? h->slots[i] : NULL,
		    .page = m->pages[i],
		    .to = h->region->memory + (mm_page_index(m->pages[i]) << HOST_PAGE_SHIFT),
		};
	return h;
}

static void huge_move_put(struct huge_move *h)
{
	struct mm *mm = h->mm;

	staging_put_books(mm, h->slots, h->n_slots);
	huge_move_drop(host_xchg(&mm->idle_huge_move, h));
}

/* ---- 1. Taking ------------------------------------------------------------------- */

/* Which of them are huge pages, bit by bit. They are populated as long as no event is read. */
static u64 huge_seen(struct mm *mm, u64 start, unsigned n)
{
	struct page_region seen[SEEN_MAX];
	u64 end = start + n * HOST_HUGE_SIZE, mask = 0;
	int found = mm->sys->scan(start, end, PAGE_IS_HUGE, seen, SEEN_MAX);

	for (int k = 0; k < found; k++)
		for (u64 at = host_align_up(seen[k].start, HOST_HUGE_SIZE);
		     at + HOST_HUGE_SIZE <= seen[k].end; at += HOST_HUGE_SIZE)
			mask |= (u64)1 << ((at - start) / HOST_HUGE_SIZE);
	return mask;
}

/* The mapping, and that it is registered, are known of a block that was on a device before.
 * The frame must not have the page table of small pages: it would take the page apart. The gate
 * held for writing. */
static bool may_go(const struct huge_move *h, const struct unit *u)
{
	const struct block *b = u->block;

	return b && u->slot && !b->pages && b->uniform == entry(ENTRY_SYSTEM, 0) &&
	       block_registered(b, b->address, b->address + HOST_HUGE_SIZE) &&
	       !host_read_once(region_small(h->region, u->to));
}

static void unit_take(struct unit *u)
{
	struct slot *slot = u->slot;

	u->block->uniform = entry(ENTRY_OUT, slot_page(slot, 0));
	slot->rmaps[0] = rmap(u->block, 0);
	host_memset(slot->leaving, 0xff, sizeof(slot->leaving));
	host_write_once(&slot->waited, 0);
	u->state = UNIT_TAKEN;
}

/* Those that were seen and may go. -EAGAIN: an event was read since. */
static int take_seen(struct huge_move *h, u64 seen, u64 events)
{
	struct mm *mm = h->mm;
	int r = 0;

	host_write_lock(&mm->gate);
	if (mm->events != events)
		r = -EAGAIN;
	for (unsigned i = 0; !r && i < h->n; i++)
		if (seen >> i & 1 && may_go(h, &h->units[i]))
			unit_take(&h->units[i]);
	host_write_unlock(&mm->gate);
	return r;
}

static void take(struct huge_move *h, u64 start)
{
	unsigned tries = 0;
	u64 events, seen;

	do {
		events = events_now(h->mm);
		seen = huge_seen(h->mm, start, h->n);
	} while (seen && take_seen(h, seen, events) && ++tries < TAKE_TRIES);
}

/* ---- 2. Devices let go ------------------------------------------------------------- */

/* False: there is nothing to tell. */
static bool tell(struct huge_move *h, const struct mm_move_huge *m)
{
	bool any = false;

	for (unsigned i = 0, n; i < h->n; i += n) {
		u64 start = m->start + i * HOST_HUGE_SIZE;

		n = 1;
		if (h->units[i].state != UNIT_TAKEN)
			continue;
		while (i + n < h->n && h->units[i + n].state == UNIT_TAKEN)
			n++;
		notify(h->mm, start, start + n * HOST_HUGE_SIZE, MM_EVENT_MIGRATE, m->migrator);
		any = true;
	}
	return any;
}

/* ---- 3. Moving: the gate held for writing --------------------------------------------- */

static bool in_place(const struct unit *u)
{
	const struct block *b = u->block;

	return !b->pages && b->uniform == entry(ENTRY_OUT, slot_page(u->slot, 0)) &&
	       u->slot->rmaps[0] == rmap(b, 0);
}

static void slot_clear(struct slot *slot)
{
	slot->rmaps[0] = RMAP_NONE;
	host_memset(slot->leaving, 0, sizeof(slot->leaving));
}

static void unit_commit(struct unit *u)
{
	u->block->uniform = entry(ENTRY_DEVICE, frame_id(u->page));
	u->block->small_backed = false;
	host_write_once(&u->page->rmap, rmap(u->block, 0));
	slot_clear(u->slot);
	u->state = UNIT_MOVED;
}

static void unit_leave(struct unit *u)
{
	u->block->uniform = entry(ENTRY_SYSTEM, 0);
	slot_clear(u->slot);
	u->state = UNIT_LEFT;
}

/* For mm_migrate.frame. */
static u64 broken_frame(void *arg, unsigned i, unsigned *n)
{
	const struct unit *u = arg;

	*n = HOST_HUGE_PAGES - i;
	return mm_page_index(u->page) + i;
}

/* done: bytes of it are in its frame. From here on nobody fills what is missing. */
static void unit_break(struct huge_move *h, struct unit *u, u64 done)
{
	struct broken *broken = &h->broken[u - h->units];
	struct slot *slot = u->slot;

	broken->t = (struct transaction){
	    .block = u->block,
	    .npages = HOST_HUGE_PAGES,
	    .slot = slot,
	    .spare = h->spares[u - h->units],
	    .out = true,
	    .straight = h->region->memory,
	    .huge = true,
	};
	host_memset(broken->t.taken, 0xff, sizeof(broken->t.taken));
	broken->m = (struct mm_migrate){
	    .mm = h->mm,
	    .start = u->block->address,
	    .end = u->block->address + HOST_HUGE_SIZE,
	    .npages = HOST_HUGE_PAGES,
	    .region = h->region,
	    .frame = broken_frame,
	    .frame_arg = u,
	    .home = {(u64)&broken->t},
	};
	if (in_place(u))
		slot_spread(h->mm, u->block);
	host_memset(slot->leaving, 0, sizeof(slot->leaving));
	bits_set(slot->present, 0, (unsigned)(done >> HOST_PAGE_SHIFT));
	slot->straight = &broken->m;
	if (done)
		host_write_once(region_small(h->region, u->to), 1);
	u->state = UNIT_BROKEN;
}

/* Moves what it can of n units from u on, whose pages and frames are side by side; how many
 * are dealt with. -EAGAIN: an event is in the way of the next one. */
static unsigned move_run(struct huge_move *h, struct unit *u, unsigned n, int *r)
{
	u64 from = u->block->address, done;
	unsigned moved;

	*r = uffd_move(h->mm, u->to, from, n * HOST_HUGE_SIZE, &done);
	if (*r == -EINVAL && !done && n > 1) /* of several mappings */
		*r = uffd_move(h->mm, u->to, from, HOST_HUGE_SIZE, &done);
	moved = (unsigned)(done / HOST_HUGE_SIZE);
	for (unsigned i = 0; i < moved; i++)
		unit_commit(&u[i]);
	if (!*r)
		return moved;
	if (done % HOST_HUGE_SIZE)
		unit_break(h, &u[moved], done % HOST_HUGE_SIZE);
	else if (*r == -EAGAIN)
		return moved;
	else
		unit_leave(&u[moved]);
	*r = 0;
	return moved + 1;
}

static unsigned run_length(const struct huge_move *h, unsigned i)
{
	const struct unit *u = &h->units[i];
	unsigned n = 1;

	while (i + n < h->n && u[n].state == UNIT_TAKEN && in_place(&u[n]) &&
	       u[n].to == u->to + n * HOST_HUGE_SIZE)
		n++;
	return n;
}

/* -EAGAIN: some are still to be moved. */
static int move_taken(struct huge_move *h)
{
	int r = 0;

	for (unsigned i = 0; !r && i < h->n;) {
		struct unit *u = &h->units[i];

		if (u->state != UNIT_TAKEN)
			i++;
		else if (!in_place(u))
			unit_break(h, u, 0);
		else
			i += move_run(h, u, run_length(h, i), &r);
	}
	return r;
}

static void leave_taken(struct huge_move *h)
{
	for (unsigned i = 0; i < h->n; i++) {
		struct unit *u = &h->units[i];

		if (u->state == UNIT_TAKEN && in_place(u))
			unit_leave(u);
		else if (u->state == UNIT_TAKEN)
			unit_break(h, u, 0);
	}
}

static void move_all(struct huge_move *h)
{
	struct mm *mm = h->mm;
	unsigned tries = 0;
	int r;

	do {
		if (tries)
			wait_for_reader(mm);
		host_write_lock(&mm->gate);
		r = move_taken(h);
		if (r && ++tries == MOVE_TRIES)
			leave_taken(h);
		host_write_unlock(&mm->gate);
	} while (r && tries < MOVE_TRIES);
}

/* ---- The whole of it --------------------------------------------------------------- */

static void unit_end(struct huge_move *h, struct unit *u)
{
	struct broken *broken = &h->broken[u - h->units];
	struct mm *mm = h->mm;

	if (u->state == UNIT_BROKEN) {
		out_end(mm, &broken->m, &broken->t);
		h->spares[u - h->units] = broken->t.spare; /* NULL: it was needed */
		slot_forget(mm, &broken->t);
	} else if (u->state != UNIT_OFF) {
		host_wake_all(block_waitq(mm, u->block));
	}
}

int mm_move_huge(struct mm_move_huge *m)
{
	struct mm *mm = m->mm;
	struct huge_move *h;

	m->moved = 0;
	if (host_read_once(&mm->dying))
		return -EFAULT;
	if (!m->n || m->n > MM_MOVE_HUGE_MAX || !host_is_aligned(m->start, HOST_HUGE_SIZE))
		return -EINVAL;
	h = huge_move_take(m);
	if (!h)
		return -ENOMEM;
	for (unsigned i = 0; i < m->n; i++)
		exclusive_make_way(mm, m->start + i * HOST_HUGE_SIZE,
				   m->start + (i + 1) * HOST_HUGE_SIZE);
	host_read_lock(&mm->out_lock);
	take(h, m->start);
	if (tell(h, m))
		move_all(h);
	for (unsigned i = 0; i < m->n; i++) {
		unit_end(h, &h->units[i]);
		m->moved |= (u64)(h->units[i].state == UNIT_MOVED) << i;
	}
	host_read_unlock(&mm->out_lock);
	huge_move_put(h);
	return 0;
}
