/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * collect.c: the beginning of a migration: which pages go, and taking them.
 *
 * 1. Entries are set to OUT or IN in a section. From then on nobody else fills,
 *    maps or moves these pages; CPU faults on them wait.
 * 2. Notifiers are told, outside any section, and have devices let go.
 * 3. Pages that leave are moved to a staging slot, or straight to the frames that they
 *    go to, where these are ordinary memory. From then on nothing but the
 *    transaction reaches their bytes: a store before the move is in them, a
 *    later one faults and waits. Nothing reads them there before the move returned.
 * A page that cannot be moved goes back to SYSTEM and stays where it is.
 */
#include "host/userfault/home.h"

#include <sys/mman.h>

struct block *section_enter_rmap(struct mm *mm, const rmap_t *holder, unsigned *i)
{
	for (;;) {
		rmap_t r = host_read_once(holder);
		struct block *b;

		if (r == RMAP_NONE)
			return NULL;
		b = block_of_rmap(mm, r);
		section_enter(mm, b);
		if (host_read_once(holder) == r) {
			*i = r & (HOST_HUGE_PAGES - 1);
			return b;
		}
		section_leave(mm, b);
	}
}

/* The last one that was freed is kept, with its spare array: CPU faults come one
 * after the other. */
static struct transaction *transaction_reuse(struct mm *mm)
{
	struct transaction *t = host_xchg(&mm->idle_transaction, NULL);
	entry_t *spare;

	if (!t)
		return host_alloc_zeroed(sizeof(*t));
	spare = t->spare;
	host_memset(t, 0, sizeof(*t));
	t->spare = spare;
	return t;
}

static struct transaction *transaction_make(struct mm_migrate *m, struct block *b)
{
	struct transaction *t = transaction_reuse(m->mm);

	if (!t)
		return NULL;
	t->block = b;
	t->npages = m->npages;
	t->first = b ? page_in_block(m->start) : 0;
	t->frames = t->few_frames;
	if (m->npages > SMALL_WINDOW && m->flags & MM_MIGRATE_DEVICE)
		t->frames = host_alloc_zeroed(m->npages * sizeof(*t->frames));
	if (!t->spare)
		t->spare = host_alloc(HOST_HUGE_PAGES * sizeof(*t->spare));
	if (t->frames && t->spare)
		return t;
	transaction_free(m->mm, t);
	return NULL;
}

void slot_forget(struct mm *mm, struct transaction *t)
{
	section_enter(mm, t->block);
	bits_clear(t->slot->present, t->at, t->npages);
	t->slot->straight = NULL;
	section_leave(mm, t->block);
}

void transaction_free(struct mm *mm, struct transaction *t)
{
	if (t->slot && t->straight)
		slot_forget(mm, t);
	if (t->slot)
		staging_put(mm, t->slot);
	if (t->frames != t->few_frames)
		host_free(t->frames);
	bounce_put(mm, t->bounce);
	t = host_xchg(&mm->idle_transaction, t);
	transaction_drop(t);
}

void transaction_drop(struct transaction *t)
{
	if (t)
		host_free(t->spare);
	host_free(t);
}

u64 out_bytes(struct mm *mm, const struct mm_migrate *m, unsigned i, unsigned *n)
{
	const struct transaction *t = transaction_of(m);
	unsigned run = *n;
	u64 frame;

	if (!t->straight)
		return slot_address(mm, t->slot) + (u64)(t->at + i) * HOST_PAGE_SIZE;
	frame = m->frame(m->frame_arg, i, &run);
	*n = host_min(*n, run);
	return t->straight + (frame << HOST_PAGE_SHIFT);
}

/* ---- 1. Which pages -------------------------------------------------------- */

/* Which pages of the window a mapping lets go, and registers them. Where all are known to
 * be registered they could go then, and no event has told of another mapping since; of
 * other protections there is none, but MOVE refuses those. */
static void find_eligible(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	struct userfault_vma v;
	u64 at = m->start;

	if (!t->by_copy && block_registered(t->block, m->start, m->end)) {
		bits_set(t->eligible, 0, t->npages);
		bit_set(t->begins, 0);
		return;
	}
	while (at < m->end) {
		u64 end;

		if (mm->sys->vma(at, &v) || v.start >= m->end) {
			m->stayed_reason |= MM_STAYED_HOLE;
			break;
		}
		if (v.start > at)
			m->stayed_reason |= MM_STAYED_HOLE;
		at = host_max(at, v.start);
		end = host_min(v.end, m->end);
		bit_set(t->begins, page_in_block(at) - t->first);
		if (!vma_migratable(mm, &v) || vma_watch(mm, t->block, &v, at, end))
			m->stayed_reason |= MM_STAYED_NOT_MIGRATABLE;
		else
			bits_set(t->eligible, page_in_block(at) - t->first,
				 (unsigned)((end - at) >> HOST_PAGE_SHIFT));
		at = end;
	}
}

static bool all_eligible(const struct transaction *t)
{
	for (unsigned i = 0; i < HOST_HUGE_PAGES / 64; i++)
		if (~t->eligible[i])
			return false;
	return true;
}

/* Does a mapping begin after the first page? */
static bool several(const struct transaction *t)
{
	u64 begins = t->begins[0] & ~(u64)1;

	for (unsigned i = 1; i < HOST_HUGE_PAGES / 64; i++)
		begins |= t->begins[i];
	return begins;
}

/* After a REMOVE event the old page may still be there. If the place can be
 * filled it was empty: the zap is over. */
static bool clear_mark(struct mm *mm, struct transaction *t, unsigned i)
{
	u64 done;

	return uffd_zero(mm, entry_address(t, i), HOST_PAGE_SIZE, &done) == 0;
}

static bool selected(struct mm_migrate *m, struct mm_page *page)
{
	if (exclusive_frame(m->mm, page) != !!(m->flags & MIGRATE_GIVE_BACK))
		return false;
	return m->flags & MM_MIGRATE_DEVICE && (!m->select || m->select(m->select_arg, page));
}

static void take_out(struct transaction *t, unsigned i, entry_t *e)
{
	*e = entry(ENTRY_OUT, slot_page(t->slot, t->at + i));
	t->slot->rmaps[t->at + i] = rmap(t->block, t->first + i);
	bit_set(t->slot->leaving, t->at + i);
	bit_set(t->taken, i);
	t->out = true;
}

static void take_page(struct mm *mm, struct mm_migrate *m, struct transaction *t, unsigned i)
{
	entry_t *e = &t->block->pages[t->first + i];

	switch (entry_kind(*e)) {
	case ENTRY_SYSTEM:
		if (!bit(t->eligible, i))
			break;
		if (*e & ENTRY_MARKED && !clear_mark(mm, t, i)) {
			m->stayed_reason |= MM_STAYED_BUSY;
			break;
		}
		take_out(t, i, e);
		break;
	case ENTRY_DEVICE: {
		struct mm_page *page = frame_page(mm, entry_id(*e), false);

		if (!selected(m, page)) {
			if (m->flags & MM_MIGRATE_SYSTEM && exclusive_frame(mm, page))
				m->stayed_reason |= MM_STAYED_BUSY; /* taken again just now */
			break;
		}
		t->frames[i] = entry_id(*e) + 1;
		*e = entry(ENTRY_IN, entry_id(*e));
		m->src[i] = mm_mpfn(page) | MM_MPFN_MIGRATE | MM_MPFN_WRITE;
		m->collected++;
		t->in = true;
		break;
	}
	case ENTRY_OUT:
	case ENTRY_IN:
		m->stayed_reason |= MM_STAYED_BUSY;
		break;
	}
}

/* The whole block at once, without an entry for each page; false: not so. */
static bool take_whole(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	struct block *b = t->block;
	struct mm_page *head;

	if (t->npages != HOST_HUGE_PAGES || b->pages || !(m->flags & MM_MIGRATE_COMPOUND))
		return false;
	switch (entry_kind(b->uniform)) {
	case ENTRY_SYSTEM:
		if (b->uniform || !t->slot || !t->huge || !all_eligible(t) || several(t))
			return false;
		b->uniform = entry(ENTRY_OUT, slot_page(t->slot, 0));
		for (unsigned i = 0; i < HOST_HUGE_PAGES; i++)
			t->slot->rmaps[i] = rmap(b, i);
		host_memset(t->slot->leaving, 0xff, sizeof(t->slot->leaving));
		host_memset(t->taken, 0xff, sizeof(t->taken));
		t->out = t->compound = true;
		return true;
	case ENTRY_DEVICE:
		head = frame_page(mm, entry_id(b->uniform), true);
		if (!selected(m, head))
			return true;
		t->frames[0] = entry_id(b->uniform) + 1;
		b->uniform = entry(ENTRY_IN, entry_id(b->uniform));
		m->src[0] = mm_mpfn(head) | MM_MPFN_MIGRATE | MM_MPFN_WRITE | MM_MPFN_COMPOUND;
		m->collected = HOST_HUGE_PAGES;
		t->in = t->compound = true;
		return true;
	default:
		m->stayed_reason |= MM_STAYED_BUSY;
		return true;
	}
}

/* Is there anything to take? Keeps blocks from being expanded for nothing. */
static bool worth_expanding(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	struct block *b = t->block;

	if (b->pages)
		return true;
	if (entry_kind(b->uniform) == ENTRY_DEVICE)
		return selected(m, frame_page(mm, entry_id(b->uniform), true));
	return entry_kind(b->uniform) == ENTRY_SYSTEM && t->slot;
}

/* events: as counted before the mappings were looked at. If one was read since,
 * memory may have been mapped anew, and what is there now is not registered: it
 * must not be taken. */
static bool take_pages(struct mm *mm, struct mm_migrate *m, struct transaction *t, u64 events)
{
	section_enter(mm, t->block);
	if (mm->events != events) {
		section_leave(mm, t->block);
		return false;
	}
	if (t->slot)
		host_write_once(&t->slot->waited, 0);
	if (t->straight)
		t->slot->straight = m;
	if (!take_whole(mm, m, t) && worth_expanding(mm, m, t)) {
		block_expand(mm, t->block, &t->spare);
		for (unsigned i = 0; i < t->npages; i++)
			take_page(mm, m, t, i);
	}
	section_leave(mm, t->block);
	return true;
}

/* Is all of the window one huge page? Who goes through memory in order has some that follow
 * looked at in the same call. What was seen is populated as long as no event is read. */
#define HUGE_AHEAD (16 * HOST_HUGE_SIZE)

static bool is_huge(struct mm *mm, const struct mm_migrate *m)
{
	u64 events = host_load_acquire(&mm->events), end = m->start + HOST_PAGE_SIZE;
	struct page_region r;
	bool seen;

	if (m->npages != HOST_HUGE_PAGES)
		return false;
	host_mutex_lock(&mm->huge.lock);
	seen = mm->huge.events == events && m->start >= mm->huge.start && m->end <= mm->huge.end;
	if (seen)
		mm->huge.start = m->end; /* the next look is a fresh one */
	else if (mm->huge.events == events && m->start == mm->huge.end)
		end = m->start + HUGE_AHEAD;
	host_mutex_unlock(&mm->huge.lock);
	if (seen)
		return true;
	if (mm->sys->scan(m->start, end, PAGE_IS_HUGE, &r, 1) != 1 || r.start != m->start)
		return false;
	host_mutex_lock(&mm->huge.lock);
	mm->huge.start = m->end;
	mm->huge.end = host_max(m->end, host_align_down(r.end, HOST_HUGE_SIZE));
	mm->huge.events = events;
	host_mutex_unlock(&mm->huge.lock);
	return true;
}

/* Looks and takes, until nothing happened in between; after many events it gives
 * up, and nothing is taken. */
static void look_and_take(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	for (unsigned tries = 0; tries < 100; tries++) {
		u64 events = host_load_acquire(&mm->events);

		if (m->flags & MM_MIGRATE_SYSTEM) {
			host_memset(t->eligible, 0, sizeof(t->eligible));
			host_memset(t->begins, 0, sizeof(t->begins));
			if (t->slot)
				find_eligible(mm, m, t);
			if (t->straight)
				t->huge = is_huge(mm, m);
		}
		if (take_pages(mm, m, t, events))
			return;
		m->stayed_reason = 0;
	}
	m->stayed_reason |= MM_STAYED_BUSY;
}

/* ---- 3. Moving out --------------------------------------------------------- */

void wake_elsewhere(struct mm *mm, const struct transaction *t, unsigned i, const struct block *b,
		    unsigned at)
{
	if (b != t->block || at != t->first + i)
		(void)uffd_wake(mm, b->address + (u64)at * HOST_PAGE_SIZE, HOST_PAGE_SIZE);
}

void page_stays(struct mm *mm, struct transaction *t, unsigned i)
{
	rmap_t *holder = &t->slot->rmaps[t->at + i];
	unsigned at;
	struct block *b = section_enter_rmap(mm, holder, &at);

	bit_clear(t->taken, i);
	if (!b)
		return;
	block_expand(mm, b, &t->spare);
	block_set(b, at, entry(ENTRY_SYSTEM, 0));
	*holder = RMAP_NONE;
	wake_elsewhere(mm, t, i, b, at);
	section_leave(mm, b);
}

/* From here on nobody fills the pages any more. Until here an engine may have been
 * within an access to one, in a fault of its own, and devices were waited for. */
static void close_holes(struct mm *mm, struct transaction *t)
{
	section_enter(mm, t->block);
	t->slot->copying = t->by_copy;
	if (!t->by_copy)
		bits_clear(t->slot->leaving, t->at, t->npages);
	section_leave(mm, t->block);
}

/* Does page i still stand where it was taken? Section of t->block. */
static bool in_place(const struct transaction *t, unsigned i)
{
	return t->slot->rmaps[t->at + i] == rmap(t->block, t->first + i);
}

/* The pages from i on that are to be moved in one call: of one mapping, or the kernel
 * moves none of them. */
static unsigned run_length(const struct transaction *t, unsigned i)
{
	unsigned n = 0;

	if (!i && t->compound && out_whole(t)) /* of one mapping: see take_whole */
		return HOST_HUGE_PAGES;
	while (i + n < t->npages && bit(t->taken, i + n) && in_place(t, i + n) &&
	       !(n && bit(t->begins, i + n)))
		n++;
	return n;
}

/* The kernel found no page at i. Page i is a hole, and so may be those after it:
 * they go as zeros; how many. 0: there is one after all, so it has to be asked
 * again. Nobody fills them meanwhile: they are in state OUT. */
static unsigned note_holes(struct mm *mm, struct transaction *t, unsigned i, unsigned n)
{
	struct page_region next;
	unsigned holes = 1;
	int found = mm->sys->scan(entry_address(t, i), entry_address(t, i + n),
				  PAGE_IS_PRESENT | PAGE_IS_SWAPPED, &next, 1);

	if (found == 0)
		holes = n;
	else if (found < 0 && t->straight) /* it may not have been asked */
		return 0;
	else if (found > 0)
		holes = (unsigned)((next.start - entry_address(t, i)) >> HOST_PAGE_SHIFT);
	/* The mapping may just have gone elsewhere, and its pages with it: who looks for
	 * a mapping finds that out before EAGAIN is thought of. Nobody reads the event
	 * while we are in the section. */
	if (events_unread(mm))
		return 0;
	for (unsigned k = 0; k < holes; k++)
		bit_set(t->zero, i + k);
	return holes;
}

/* Those of the n pages from i on that are populated, from i on; negative: not known. */
static int run_populated(struct mm *mm, struct transaction *t, unsigned i, unsigned n)
{
	struct page_region first;
	int found = mm->sys->scan(entry_address(t, i), entry_address(t, i + n),
				  PAGE_IS_PRESENT | PAGE_IS_SWAPPED, &first, 1);

	if (found < 0)
		return found;
	if (!found || first.start != entry_address(t, i))
		return 0;
	return (int)((first.end - first.start) >> HOST_PAGE_SHIFT);
}

enum move_result { MOVE_ON, MOVE_RETRY, MOVE_POPULATE, MOVE_FULL, MOVE_STAYS };

/* Moves n pages from i on; bytes in *done. Section of t->block. Frames may have had other
 * pages before, or be filled beside a neighbour that an engine touches: pages that go
 * straight there must be known to be populated (those of a huge page are: it was seen,
 * and no event was read before all of it was taken). */
static int move_run(struct mm *mm, struct mm_migrate *m, struct transaction *t, unsigned i,
		    unsigned n, u64 *done)
{
	u64 to = out_bytes(mm, m, i, &n);
	int r;

	*done = 0;
	if (t->straight && !t->huge) {
		r = run_populated(mm, t, i, n);
		if (r <= 0)
			return r ? -EAGAIN : -ENOENT;
		n = (unsigned)r;
	}
	r = uffd_move(mm, to, entry_address(t, i), (u64)n * HOST_PAGE_SIZE, done);
	if (r == -EINVAL && n > 1) /* the mapping was split since it was looked at */
		r = uffd_move(mm, to, entry_address(t, i), HOST_PAGE_SIZE, done);
	bits_set(t->slot->present, t->at + i, (unsigned)(*done >> HOST_PAGE_SHIFT));
	if (*done && t->straight && *done < HOST_HUGE_SIZE)
		host_write_once(region_small(m->region, to), 1);
	t->slot->small |= *done && !t->huge && !t->straight;
	return r;
}

/* Moves some of [i, i + n) in one section; *moved pages went or are known zero. */
static enum move_result move_some(struct mm *mm, struct mm_migrate *m, struct transaction *t,
				  unsigned i, unsigned *moved)
{
	u64 done;
	unsigned n;
	int r;

	*moved = 0;
	section_enter(mm, t->block);
	n = run_length(t, i);
	if (!n) {
		section_leave(mm, t->block);
		return MOVE_STAYS; /* unmapped or moved away under us */
	}
	r = move_run(mm, m, t, i, n, &done);
	*moved = (unsigned)(done >> HOST_PAGE_SHIFT);
	if (r == -ENOENT && !done) {
		*moved = note_holes(mm, t, i, n);
		r = *moved ? 0 : -EAGAIN;
	}
	section_leave(mm, t->block);
	if (!r || done)
		return MOVE_ON;
	if (r == -EAGAIN)
		return MOVE_RETRY;
	if (r == -EBUSY)
		return MOVE_POPULATE;
	if (r == -EEXIST && t->straight)
		return MOVE_FULL;
	m->stayed_reason |= MM_STAYED_NOT_MIGRATABLE;
	return MOVE_STAYS;
}

/* Drops what frames of entries from i on had in an earlier use. No section: the event has
 * to be read. */
static void empty_frames(struct mm *mm, const struct mm_migrate *m, unsigned i)
{
	unsigned n = m->npages - i;
	u64 at = out_bytes(mm, m, i, &n);

	(void)drop_pages(mm, at, (u64)n * HOST_PAGE_SIZE);
}

/* Page i gets a copy of its own. An MADV_DONTNEED whose event was read before the page
 * was taken may have dropped it since it was looked at: then this is a fault on a page
 * that is ours, and it has to be filled as one that has not left yet. */
static void make_private(struct mm *mm, struct transaction *t, unsigned i)
{
	section_enter(mm, t->block);
	bit_set(t->slot->leaving, t->at + i);
	section_leave(mm, t->block);
	(void)mm->sys->madvise(entry_address(t, i), HOST_PAGE_SIZE, MADV_POPULATE_WRITE);
	section_enter(mm, t->block);
	bit_clear(t->slot->leaving, t->at + i);
	section_leave(mm, t->block);
}

/* A huge page goes as one only to where no small ones have been: their page table goes
 * with what is dropped there. */
static void make_room(struct mm *mm, const struct mm_migrate *m, const struct transaction *t)
{
	unsigned n = HOST_HUGE_PAGES;
	u8 *small;
	u64 at;

	if (!t->straight || !t->huge || !t->compound)
		return;
	at = out_bytes(mm, m, 0, &n);
	small = region_small(m->region, at);
	if (n < HOST_HUGE_PAGES || !host_read_once(small))
		return;
	host_write_once(small, 0);
	empty_frames(mm, m, 0);
}

static void move_out(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	unsigned i = 0, tries = 0, moved;
	enum move_result result;
	bool populated = false;

	make_room(mm, m, t);
	while (i < t->npages) {
		if (!bit(t->taken, i)) {
			i++;
			continue;
		}
		result = move_some(mm, m, t, i, &moved);
		switch (result) {
		case MOVE_ON:
			i += moved;
			tries = 0;
			populated = false;
			break;
		case MOVE_FULL:
		case MOVE_RETRY:
			if (result == MOVE_FULL)
				empty_frames(mm, m, i);
			else
				wait_for_reader(mm);
			if (++tries < 200)
				break;
			m->stayed_reason |= MM_STAYED_BUSY;
			page_stays(mm, t, i++);
			break;
		case MOVE_POPULATE:
			/* Shared with a child that may be gone: a copy of our own cures
			 * it. Truly pinned pages stay. Not the first page alone: what
			 * follows is likely the same. */
			if (!populated) {
				populated = true;
				count(mm, ebusy);
				make_private(mm, t, i);
				break;
			}
			m->stayed_reason |= MM_STAYED_PINNED;
			populated = false;
			page_stays(mm, t, i++);
			break;
		case MOVE_STAYS:
			page_stays(mm, t, i++);
			break;
		}
	}
}

/* Without MOVE: everything is made present, then protected against writes; the
 * bytes are copied from where they are. */
static void protect_out(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	for (unsigned i = 0; i < t->npages; i++) {
		int r = -EAGAIN;

		for (unsigned tries = 0; bit(t->taken, i) && r == -EAGAIN && tries < 200; tries++) {
			u64 done;

			section_enter(mm, t->block);
			r = in_place(t, i)
				? uffd_zero(mm, entry_address(t, i), HOST_PAGE_SIZE, &done)
				: -ENOENT;
			if (!r || r == -EEXIST)
				r = uffd_protect(mm, entry_address(t, i), HOST_PAGE_SIZE, true);
			section_leave(mm, t->block);
			if (r == -EAGAIN)
				wait_for_reader(mm);
		}
		if (bit(t->taken, i) && r) {
			m->stayed_reason |= MM_STAYED_BUSY;
			page_stays(mm, t, i);
		}
	}
}

/* What was taken, as the caller sees it. */
static void report_out(struct mm_migrate *m, struct transaction *t)
{
	mm_mpfn_t src =
	    MM_MPFN_MIGRATE | MM_MPFN_WRITE | MM_MPFN_SYSTEM | (t->straight ? MM_MPFN_MOVE : 0);
	unsigned taken = 0, zero = 0;

	for (unsigned i = 0; i < HOST_HUGE_PAGES / 64; i++) {
		taken += (unsigned)__builtin_popcountll(t->taken[i]);
		zero += (unsigned)__builtin_popcountll(t->zero[i]);
	}
	m->collected += taken;
	t->all_present = taken == t->npages && !zero;
	if (t->compound && (t->all_present || (taken == t->npages && zero == taken))) {
		m->src[0] = src | MM_MPFN_COMPOUND | (zero ? MM_MPFN_ZERO : 0);
		return;
	}
	t->compound = false;
	for (unsigned i = 0; i < t->npages; i++)
		if (bit(t->taken, i))
			m->src[i] = src | (bit(t->zero, i) ? MM_MPFN_ZERO : 0);
}

int mm_migrate_begin(struct mm_migrate *m)
{
	struct mm *mm = m->mm;
	bool out = m->flags & MM_MIGRATE_SYSTEM;
	struct transaction *t;
	struct block *b;

	if (m->start >= m->end || !host_is_aligned(m->start | m->end, HOST_PAGE_SIZE) ||
	    m->start / HOST_HUGE_SIZE != (m->end - 1) / HOST_HUGE_SIZE)
		return -EINVAL;
	if (host_read_once(&mm->dying))
		return -EFAULT;
	/* For who migrates these are pages of system memory. */
	if (out && !(m->flags & MIGRATE_TAKE))
		exclusive_make_way(mm, m->start, m->end);
	b = out ? block_make(mm, m->start) : block_find(mm, m->start);
	m->npages = (unsigned)((m->end - m->start) >> HOST_PAGE_SHIFT);
	m->collected = m->stayed_reason = 0;
	host_memset(m->src, 0, m->npages * sizeof(*m->src));
	host_memset(m->dst, 0, m->npages * sizeof(*m->dst));
	m->home[0] = 0;
	if (!b)
		return out ? -ENOMEM : 0;
	t = transaction_make(m, b);
	if (!t)
		return -ENOMEM;
	m->home[0] = (u64)t;
	t->by_copy = !mm->info.move;
	if (out) {
		host_read_lock(&mm->out_lock);
		if (m->region && !t->by_copy)
			t->straight = host_load_acquire(&m->region->memory);
		t->huge = !t->straight && is_huge(mm, m);
		t->slot = staging_take(mm, t->npages, t->huge, &t->at);
		if (!t->slot)
			t->straight = 0;
	}
	look_and_take(mm, m, t);
	if (t->out || t->in)
		notify(mm, m->start, m->end,
		       m->flags & (MIGRATE_TAKE | MIGRATE_GIVE_BACK) ? MM_EVENT_EXCLUSIVE
								     : MM_EVENT_MIGRATE,
		       m->migrator);
	if (t->out) {
		close_holes(mm, t);
		if (t->by_copy)
			protect_out(mm, m, t);
		else
			move_out(mm, m, t);
		report_out(m, t);
	}
	return 0;
}

/* ---- By frame --------------------------------------------------------------- */

struct run {
	u64 start, end;
};

/* Adds an address to a run, or tells of the run and begins anew. */
static void run_add(struct mm *mm, struct mm_migrate *m, struct run *run, u64 address, u64 length)
{
	if (run->end == address && address) {
		run->end += length;
		return;
	}
	if (run->end)
		notify(mm, run->start, run->end, MM_EVENT_MIGRATE, m->migrator);
	run->start = address;
	run->end = address + length;
}

/* Takes one frame, where it is mapped; the pages that it covers. */
static unsigned take_frame(struct mm *mm, struct mm_migrate *m, struct transaction *t,
			   struct mm_page *page, unsigned i, struct run *run)
{
	bool head = mm_page_order(page) != 0;
	u32 id = frame_id(page);
	unsigned at, n = head ? HOST_HUGE_PAGES : 1;
	struct block *b = section_enter_rmap(mm, &page->rmap, &at);
	u64 address;

	if (!b)
		return n;
	if (block_get(b, at) != entry(ENTRY_DEVICE, id) || block_compound(mm, b) != head ||
	    !selected(m, page)) {
		section_leave(mm, b);
		return n;
	}
	if (head)
		b->uniform = entry(ENTRY_IN, id);
	else
		block_set(b, at, entry(ENTRY_IN, id));
	address = b->address + (u64)at * HOST_PAGE_SIZE;
	section_leave(mm, b);
	t->frames[i] = id + 1;
	t->in = true;
	t->compound |= head;
	m->src[i] = mm_mpfn(page) | MM_MPFN_MIGRATE | MM_MPFN_WRITE | (head ? MM_MPFN_COMPOUND : 0);
	m->collected += n;
	run_add(mm, m, run, address, (u64)n * HOST_PAGE_SIZE);
	return n;
}

/* A compound frame that is not to be taken whole, is split where it is mapped. */
static void split_in_place(struct mm *mm, struct transaction *t, struct mm_page *head)
{
	unsigned at;
	struct block *b = section_enter_rmap(mm, &head->rmap, &at);

	if (!b)
		return;
	if (t->spare && block_get(b, 0) == entry(ENTRY_DEVICE, frame_id(head)) &&
	    block_compound(mm, b))
		block_expand(mm, b, &t->spare);
	section_leave(mm, b);
}

int mm_migrate_begin_frames(struct mm_migrate *m, struct mm_region *region, u64 first)
{
	struct mm *mm = m->mm;
	struct run run = {0};
	struct transaction *t;

	if (!m->npages || m->npages > HOST_HUGE_PAGES || first + m->npages > region->npages)
		return -EINVAL;
	if (host_read_once(&mm->dying))
		return -EFAULT;
	m->flags |= MM_MIGRATE_DEVICE;
	m->collected = m->stayed_reason = 0;
	host_memset(m->src, 0, m->npages * sizeof(*m->src));
	host_memset(m->dst, 0, m->npages * sizeof(*m->dst));
	t = transaction_make(m, NULL);
	if (!t)
		return -ENOMEM;
	m->home[0] = (u64)t;
	for (unsigned i = 0; i < m->npages;) {
		struct mm_page *head = &region->heads[(first + i) >> HOST_HUGE_ORDER];

		if (host_read_once(&head->data)) {
			if (host_is_aligned(first + i, HOST_HUGE_PAGES) &&
			    m->flags & MM_MIGRATE_COMPOUND && m->npages - i >= HOST_HUGE_PAGES) {
				i += take_frame(mm, m, t, head, i, &run);
				continue;
			}
			split_in_place(mm, t, head);
		}
		if (host_read_once(&region->pages[first + i].data))
			(void)take_frame(mm, m, t, &region->pages[first + i], i, &run);
		i++;
	}
	if (run.end)
		notify(mm, run.start, run.end, MM_EVENT_MIGRATE, m->migrator);
	return 0;
}
