/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * commit.c: the end of a migration: destinations in place of sources.
 *
 * A page's place is looked up in its holder's rmap, in a section: an event may
 * have moved it or taken it away since it was collected. The usual case, that
 * nothing happened, is one section for the whole block.
 */
#include "host/userfault/home.h"

#include <sys/mman.h>

#define COPY_MAX 16u   /* pages in one section's COPY */
#define MOVE_LEAST 16u /* pages for which a MOVE is faster */

/* ---- Out: system memory to device frames ----------------------------------- */

/* Did it go out as 4K pages? */
static bool small_backed(const struct transaction *t)
{
	return t->straight ? !t->huge : t->slot->small;
}

/* The frame takes the place of staging page i, wherever that stands. */
static bool commit_page_out(struct mm *mm, struct transaction *t, unsigned i, struct mm_page *page)
{
	rmap_t *holder = &t->slot->rmaps[t->at + i];
	unsigned at;
	struct block *b = section_enter_rmap(mm, holder, &at);

	if (!b)
		return false;
	block_expand(mm, b, &t->spare);
	block_set(b, at, entry(ENTRY_DEVICE, frame_id(page)));
	host_write_once(&page->rmap, rmap(b, at));
	*holder = RMAP_NONE;
	b->small_backed = small_backed(t);
	wake_elsewhere(mm, t, i, b, at);
	section_leave(mm, b);
	return true;
}

/* All at once, if the block is as it was taken. */
static bool commit_whole_out(struct mm *mm, struct transaction *t, struct mm_page *head)
{
	struct block *b = t->block;
	bool same;

	section_enter(mm, b);
	same = out_whole(t);
	if (same) {
		b->uniform = entry(ENTRY_DEVICE, frame_id(head));
		host_write_once(&head->rmap, rmap(b, 0));
		b->small_backed = small_backed(t);
	}
	section_leave(mm, b);
	return same;
}

/* All pages that stand where they were taken, in one section. */
static void commit_in_place_out(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	struct block *b = t->block;

	section_enter(mm, b);
	if (t->first == 0 && t->npages == HOST_HUGE_PAGES)
		b->small_backed = small_backed(t);
	for (unsigned i = 0; b->pages && i < t->npages; i++) {
		rmap_t here = rmap(b, t->first + i);
		struct mm_page *page = mm_mpfn_page(m->dst[i]);

		if (!bit(t->taken, i) || !m->dst[i] || t->slot->rmaps[t->at + i] != here)
			continue;
		b->pages[t->first + i] = entry(ENTRY_DEVICE, frame_id(page));
		host_write_once(&page->rmap, here);
		t->slot->rmaps[t->at + i] = RMAP_NONE;
		bit_clear(t->taken, i);
	}
	section_leave(mm, b);
}

/* Does page i go, from where it was taken? Section of t->block. */
static bool source_goes(const struct mm_migrate *m, const struct transaction *t, unsigned i)
{
	return i < t->npages && bit(t->taken, i) && m->dst[t->compound ? 0 : i] &&
	       t->slot->rmaps[t->at + i] == rmap(t->block, t->first + i);
}

/* Drops the sources from i on that go, in one mapping; how many. Its event is ours by
 * its range: the application may drop pages beside them at the same time. */
static unsigned drop_run(struct mm *mm, struct mm_migrate *m, struct transaction *t, unsigned i)
{
	struct own_remove own = {.start = entry_address(t, i)};
	struct userfault_vma v;
	unsigned n = 0;

	if (!bit(t->taken, i) || mm->sys->vma(own.start, &v) || v.start > own.start)
		return 0;
	section_enter(mm, t->block);
	while (source_goes(m, t, i + n) && own.start + n * HOST_PAGE_SIZE < v.end)
		bit_clear(t->slot->leaving, t->at + i + n++);
	own.end = own.start + n * HOST_PAGE_SIZE;
	if (n) {
		own.next = t->block->own_removes;
		t->block->own_removes = &own;
	}
	section_leave(mm, t->block);
	if (!n)
		return 0;
	/* What stayed there would be read instead of what the device writes. */
	HOST_CHECK(drop_pages(mm, own.start, own.end - own.start) != -EINVAL);
	section_enter(mm, t->block);
	(void)block_own_remove(t->block, own.start, own.end); /* no event came */
	section_leave(mm, t->block);
	return n;
}

/* The pages behind a copy-out without MOVE are worthless now. */
static void drop_sources(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	for (unsigned i = 0; i < t->npages;)
		i += host_max(1u, drop_run(mm, m, t, i));
}

/* What was taken as one page has lost some meanwhile: it goes on as 512 small ones,
 * and is told as such. */
static void commit_split_out(struct mm *mm, struct mm_migrate *m, struct transaction *t,
			     struct mm_page *small)
{
	mm_mpfn_t src = m->src[0] & ~MM_MPFN_COMPOUND;

	for (unsigned i = 0; i < HOST_HUGE_PAGES; i++) {
		bit_clear(t->taken, i);
		if (commit_page_out(mm, t, i, &small[i])) {
			m->src[i] = src;
			m->dst[i] = mm_mpfn(&small[i]) | MM_MPFN_MIGRATE;
		} else {
			m->src[i] = src & ~MM_MPFN_MIGRATE;
			m->dst[i] = 0;
			frame_free(&small[i]);
		}
	}
}

/* Bytes of pages, from entry i on, that are not where they waited any more: in the slot,
 * or in their frames. */
static void bytes_left(struct transaction *t, unsigned i, u64 bytes)
{
	unsigned n = (unsigned)(bytes >> HOST_PAGE_SHIFT);

	if (t->memory)
		bits_set(t->left, i, n);
	else
		bits_clear(t->slot->present, t->at + i, n);
}

/* Makes [to, to + length) of frames read as zeros, and populated. */
static void zero_frames(struct mm *mm, u64 to, u64 length)
{
	u64 end = to + length, deadline = host_now() + 10 * HOST_SEC, done;
	int r;

	while (to < end) {
		r = uffd_zero(mm, to, end - to, &done);
		to += done;
		if (to == end)
			return;
		/* Events come and go, and memory is short for a moment only. */
		if ((r == -EAGAIN || r == -ENOMEM) && host_now() < deadline) {
			if (r == -EAGAIN)
				wait_for_reader(mm);
			else
				host_sleep(HOST_MSEC);
			continue;
		}
		/* A frame may still have what it had in an earlier use. */
		mm->sys->copy(to, 0, HOST_PAGE_SIZE);
		to += HOST_PAGE_SIZE;
	}
}

/* Pages that go straight to their frames, and were never populated: what the frames had in
 * an earlier use is not theirs. */
static void zero_bytes_out(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	for (unsigned i = 0, n; i < t->npages; i += n) {
		u64 to;

		n = 1;
		if (!bit(t->zero, i) || !bit(t->taken, i) || !m->dst[t->compound ? 0 : i])
			continue;
		while (i + n < t->npages && bit(t->zero, i + n) && bit(t->taken, i + n) &&
		       m->dst[t->compound ? 0 : i + n])
			n++;
		to = out_bytes(mm, m, i, &n);
		host_write_once(region_small(m->region, to), 1);
		zero_frames(mm, to, (u64)n * HOST_PAGE_SIZE);
	}
}

static void commit_out(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	if (t->by_copy)
		drop_sources(mm, m, t);
	if (t->straight && !t->all_present)
		zero_bytes_out(mm, m, t);
	if (t->compound && m->dst[0]) {
		struct mm_page *head = mm_mpfn_page(m->dst[0]);

		if (commit_whole_out(mm, t, head))
			host_memset(t->taken, 0, sizeof(t->taken));
		else
			commit_split_out(mm, m, t, frame_split(mm, head));
		return;
	}
	commit_in_place_out(mm, m, t);
	for (unsigned i = 0; i < t->npages; i++) {
		if (!bit(t->taken, i) || !m->dst[i])
			continue;
		bit_clear(t->taken, i);
		if (!commit_page_out(mm, t, i, mm_mpfn_page(m->dst[i]))) {
			frame_free(mm_mpfn_page(m->dst[i]));
			m->src[i] &= ~MM_MPFN_MIGRATE;
		}
	}
}

/* Page i from where it waits to an address. Section. */
static int fill_back(struct mm *mm, const struct mm_migrate *m, unsigned i, u64 to)
{
	struct transaction *t = transaction_of(m);
	unsigned n = 1;
	u64 from, done;
	int r;

	if (t->by_copy)
		return uffd_protect(mm, to, HOST_PAGE_SIZE, false);
	if (!bit(t->slot->present, t->at + i))
		return 0; /* a hole it was, or it is back */
	from = out_bytes(mm, m, i, &n);
	r = uffd_move(mm, to, from, HOST_PAGE_SIZE, &done);
	if (!r)
		bit_clear(t->slot->present, t->at + i);
	if (r == -EINVAL) /* its mapping has other protections by now */
		r = uffd_copy(mm, to, (void *)from, HOST_PAGE_SIZE, &done);
	/* Something in its place that we were not told of: a guard (MADV_GUARD_INSTALL), for
	 * which what was there is dropped. */
	return r == -EEXIST ? 0 : r;
}

/* All 512 as they were taken, in one MOVE: then a huge page comes back as one. Where that
 * cannot be, or not to the end, they go page by page. */
static void put_back_whole(struct mm *mm, const struct mm_migrate *m, struct transaction *t)
{
	struct block *b = t->block;
	unsigned n = t->npages;
	u64 from, done = 0;

	if (t->npages != HOST_HUGE_PAGES || t->by_copy || !t->all_present || !bit(t->taken, 0))
		return;
	section_enter(mm, b);
	from = out_bytes(mm, m, 0, &n);
	if (n == HOST_HUGE_PAGES && out_whole(t)) {
		(void)uffd_move(mm, b->address, from, HOST_HUGE_SIZE, &done);
		bits_clear(t->slot->present, 0, (unsigned)(done >> HOST_PAGE_SHIFT));
	}
	if (done == HOST_HUGE_SIZE) {
		b->uniform = entry(ENTRY_SYSTEM, 0);
		host_memset(t->taken, 0, sizeof(t->taken));
	}
	section_leave(mm, b);
}

/* A page that was collected and did not go: back to where it stands now. This is
 * the only copy: it is tried until the page is back or its mapping is gone. */
static void put_back(struct mm *mm, const struct mm_migrate *m, struct transaction *t, unsigned i)
{
	rmap_t *holder = &t->slot->rmaps[t->at + i];
	u64 deadline = host_now() + 10 * HOST_SEC;
	unsigned at;
	struct block *b;
	int r;

	bit_clear(t->taken, i);
	while ((b = section_enter_rmap(mm, holder, &at))) {
		u64 to = b->address + (u64)at * HOST_PAGE_SIZE;

		r = fill_back(mm, m, i, to);
		if (!r) {
			block_expand(mm, b, &t->spare);
			block_set(b, at, entry(ENTRY_SYSTEM, 0));
			*holder = RMAP_NONE;
			(void)uffd_wake(mm, to, HOST_PAGE_SIZE);
		}
		section_leave(mm, b);
		if (!r)
			return;
		/* Events come and go; while there are some it takes its time. */
		HOST_CHECK(r == -EAGAIN || host_now() < deadline);
		if (r == -EAGAIN)
			wait_for_reader(mm);
		else
			host_sleep(HOST_MSEC);
	}
}

/* ---- In: device frames to system memory -------------------------------------- */

static const char *in_bytes(const struct mm *mm, const struct transaction *t, unsigned i)
{
	if (t->bounce)
		return t->bounce + (u64)i * HOST_PAGE_SIZE;
	return (const char *)slot_address(mm, t->slot) + (u64)(t->at + i) * HOST_PAGE_SIZE;
}

/* All of those that come home? Then they need no room on the way. */
static bool frames_are_memory(struct mm *mm, const struct mm_migrate *m)
{
	const struct transaction *t = transaction_of(m);

	for (unsigned i = 0; i < t->npages; i += mpfn_pages(m->src[i]))
		if (t->frames[i] && !frame_memory(mm, t->frames[i] - 1))
			return false;
	return !t->out;
}

int mm_migrate_alloc_system(struct mm_migrate *m)
{
	struct mm *mm = m->mm;
	struct transaction *t = transaction_of(m);
	mm_mpfn_t move = 0;

	if (!t || !t->in)
		return 0;
	t->memory = frames_are_memory(mm, m);
	if (t->memory)
		move = MM_MPFN_MOVE;
	else if (t->npages <= SMALL_WINDOW && !t->compound)
		t->bounce = bounce_take(mm);
	else if (!t->slot)
		t->slot = staging_take_ready(
		    mm, t->npages, !t->compound || (t->block && t->block->small_backed), &t->at);
	if (!t->memory && !t->bounce && (!t->slot || t->out))
		return -ENOMEM;
	for (unsigned i = 0; i < t->npages; i += mpfn_pages(m->src[i]))
		if (t->frames[i])
			m->dst[i] = MM_MPFN_SYSTEM | MM_MPFN_MIGRATE | move |
				    (m->src[i] & MM_MPFN_COMPOUND);
	return 0;
}

mm_dma_t mm_migrate_dma(const struct mm_migrate *m, unsigned i, unsigned *order)
{
	struct transaction *t = transaction_of(m);
	unsigned n = 1;

	*order = 0;
	if (t->in && t->frames[i]) {
		if (m->dst[i] & MM_MPFN_COMPOUND)
			*order = HOST_HUGE_ORDER;
		return (mm_dma_t)in_bytes(m->mm, t, i);
	}
	if (t->compound)
		*order = HOST_HUGE_ORDER;
	if (t->by_copy)
		return entry_address(t, i);
	return out_bytes(m->mm, m, i, &n);
}

/* The frame of entry i, and whether it is still compound: an event may have
 * split it. */
static struct mm_page *in_frame(struct mm *mm, const struct mm_migrate *m, unsigned i, bool *head)
{
	u32 id = transaction_of(m)->frames[i] - 1;
	struct mm_page *page;

	if (m->src[i] & MM_MPFN_COMPOUND) {
		page = frame_page(mm, id, true);
		if (host_read_once(&page->data)) {
			*head = true;
			return page;
		}
	}
	*head = false;
	return frame_page(mm, id, false);
}

/* Moves a whole slot to a block that is as it was taken. */
static bool commit_whole_in(struct mm *mm, struct transaction *t, unsigned i)
{
	u32 id = t->frames[i] - 1;
	struct mm_page *head = frame_page(mm, id, true);
	unsigned at, tries = 0;
	struct block *b;
	u64 done = 0, moved = 0, from;
	int r;

	if (t->bounce || t->npages != HOST_HUGE_PAGES || t->by_copy)
		return false;
	from = t->memory ? frame_memory(mm, id) : slot_address(mm, t->slot);
	while ((b = section_enter_rmap(mm, &head->rmap, &at))) {
		if (!block_compound(mm, b) || b->uniform != entry(ENTRY_IN, id)) {
			section_leave(mm, b);
			return false;
		}
		r = uffd_move(mm, b->address + moved, from + moved, HOST_HUGE_SIZE - moved, &done);
		bytes_left(t, (unsigned)(moved >> HOST_PAGE_SHIFT), done);
		moved += done;
		if (moved == HOST_HUGE_SIZE) {
			b->uniform = entry(ENTRY_SYSTEM, 0);
			host_write_once(&head->rmap, RMAP_NONE);
			section_leave(mm, b);
			host_wake_all(block_waitq(mm, b));
			return true;
		}
		section_leave(mm, b);
		if (r != -EAGAIN || ++tries > 200)
			break;
		if (!done)
			wait_for_reader(mm);
	}
	/* The rest goes page by page; fill_home knows what has moved. */
	return false;
}

/* A run of pages on the way home: entries from i on, whose frames are those
 * from id on (of a compound one that was split), or as collected. */
struct home_run {
	const struct mm_migrate *m;
	struct transaction *t;
	unsigned i;
	u32 id;
	bool counting;
};

static u32 run_frame(const struct home_run *run, unsigned k)
{
	return run->counting ? run->id + k : run->t->frames[run->i + k] - 1;
}

/* How many of them stand side by side in b from page `at` on. Section of b. */
static unsigned run_in_place(struct mm *mm, const struct block *b, unsigned at,
			     const struct home_run *run, unsigned max)
{
	u32 first = run_frame(run, 0), id;
	const struct mm_region *r = mm_page_region(frame_page(mm, first, false));
	const struct transaction *t = run->t;
	unsigned n = 1;

	while (n < max && at + n < HOST_HUGE_PAGES && run->i + n < t->npages) {
		/* Most often the same region's: not to be looked for again. */
		bool same;
		const struct mm_page *page;

		if (!run->counting && !(t->frames[run->i + n] && run->m->dst[run->i + n]))
			break;
		id = run_frame(run, n);
		same = id >= r->base && id - r->base < r->npages;
		if (b->pages[at + n] != entry(ENTRY_IN, id))
			break;
		page = same ? &r->pages[id - r->base] : frame_page(mm, id, false);
		if (page->rmap != rmap(b, at + n) || (t->memory && !(same && id == first + n)))
			break;
		n++;
	}
	return n;
}

/* How many of n pages, from entry i on, a MOVE of the whole slot that was not
 * completed has brought home already. */
static unsigned run_left(const struct transaction *t, unsigned i, unsigned n)
{
	unsigned k = 0;

	if (t->memory)
		while (k < n && bit(t->left, i + k))
			k++;
	else
		while (k < n && !bit(t->slot->present, t->at + i + k))
			k++;
	return k;
}

/* Fills n pages of b from `at` on: with the slot's own pages where they are
 * enough to be worth it, else by copying. Pages done; the error in *r. */
static unsigned fill_home(struct mm *mm, struct block *b, unsigned at, const struct home_run *run,
			  unsigned n, int *r)
{
	struct transaction *t = run->t;
	u64 to = b->address + (u64)at * HOST_PAGE_SIZE, done = 0;
	const char *from =
	    t->memory ? (const char *)frame_memory(mm, run_frame(run, 0)) : in_bytes(mm, t, run->i);

	if (!t->bounce) {
		unsigned home = run_left(t, run->i, n);

		*r = 0;
		if (home)
			return home;
	}
	if (t->memory || (!t->bounce && !t->by_copy && n >= MOVE_LEAST)) {
		*r = uffd_move(mm, to, (u64)from, (u64)n * HOST_PAGE_SIZE, &done);
		bytes_left(t, run->i, done);
		if (done || *r == -EAGAIN)
			return (unsigned)(done >> HOST_PAGE_SHIFT);
	}
	/* One section's copy is 64K at most. Read-only memory takes copies only. */
	*r = uffd_copy(mm, to, from, (u64)host_min(n, COPY_MAX) * HOST_PAGE_SIZE, &done);
	/* Nothing is done where another mapping begins before the end. */
	if (*r == -ENOENT && !done && n > 1)
		*r = uffd_copy(mm, to, from, HOST_PAGE_SIZE, &done);
	return (unsigned)(done >> HOST_PAGE_SHIFT);
}

/* Brings one run home. n: how many pages were dealt with; true: they are home;
 * false: they are gone, or could not be had there. */
static bool commit_run_in(struct mm *mm, const struct home_run *run, unsigned *n)
{
	struct transaction *t = run->t;
	u32 id = run_frame(run, 0);
	struct mm_page *page = frame_page(mm, id, false);
	unsigned at, tries = 0;
	struct block *b;
	int r;

	*n = 1;
	while ((b = section_enter_rmap(mm, &page->rmap, &at))) {
		unsigned done;

		block_expand(mm, b, &t->spare);
		if (b->pages[at] != entry(ENTRY_IN, id)) {
			section_leave(mm, b);
			return false;
		}
		done = fill_home(
		    mm, b, at, run,
		    run_in_place(mm, b, at, run, t->bounce ? COPY_MAX : HOST_HUGE_PAGES), &r);
		if (!done && r == -EEXIST) {
			/* There already, by the part of a MOVE that was done. */
			(void)uffd_wake(mm, b->address + (u64)at * HOST_PAGE_SIZE, HOST_PAGE_SIZE);
			done = 1;
		}
		for (unsigned k = 0; k < done; k++) {
			b->pages[at + k] = entry(ENTRY_SYSTEM, 0);
			host_write_once(&frame_page(mm, run_frame(run, k), false)->rmap, RMAP_NONE);
		}
		if (done)
			block_collapse(b);
		section_leave(mm, b);
		if (done) {
			host_wake_all(block_waitq(mm, b));
			*n = done;
			return true;
		}
		if (++tries > 200)
			return false;
		if (r == -EAGAIN)
			wait_for_reader(mm);
		else
			host_sleep(HOST_MSEC); /* no memory now, or its unmapping is on the way */
	}
	return false; /* gone: nothing to bring home */
}

/* A compound one whose whole move did not work out, page by page: from now on it is
 * 512 small ones for the caller too. */
static void commit_split_in(struct mm *mm, struct mm_migrate *m, struct transaction *t, unsigned i)
{
	mm_mpfn_t src = m->src[i] & ~(MM_MPFN_COMPOUND | MM_MPFN_PAYLOAD);
	u32 id = t->frames[i] - 1;
	bool head;
	struct mm_page *page = in_frame(mm, m, i, &head);

	if (head) {
		unsigned at;
		struct block *b = section_enter_rmap(mm, &page->rmap, &at);

		if (b) {
			block_expand(mm, b, &t->spare);
			section_leave(mm, b);
		} else {
			/* All of it is gone: the frame is freed whole in the end. */
			m->src[i] &= ~MM_MPFN_MIGRATE;
			return;
		}
	}
	for (unsigned k = 0, n; k < HOST_HUGE_PAGES; k += n) {
		struct home_run run = {.m = m, .t = t, .i = i + k, .id = id + k, .counting = true};
		bool home = commit_run_in(mm, &run, &n);

		for (unsigned at = k; at < k + n; at++) {
			page = frame_page(mm, id + at, false);
			m->src[i + at] = (src & ~(home ? 0 : MM_MPFN_MIGRATE)) | mm_mpfn(page);
			m->dst[i + at] = home ? MM_MPFN_SYSTEM | MM_MPFN_MIGRATE : 0;
			t->frames[i + at] = id + at + 1;
		}
	}
}

/* From one device's frame to another's. */
static bool commit_across(struct mm *mm, struct mm_migrate *m, struct transaction *t, unsigned i)
{
	struct mm_page *to = mm_mpfn_page(m->dst[i]), *from;
	bool head;
	unsigned at;
	struct block *b;

	from = in_frame(mm, m, i, &head);
	b = section_enter_rmap(mm, &from->rmap, &at);
	if (!b || head != (mm_page_order(to) != 0)) {
		/* Gone, or split under us: it stays as it is. */
		if (b)
			section_leave(mm, b);
		frame_free(to);
		return false;
	}
	if (head)
		b->uniform = entry(ENTRY_DEVICE, frame_id(to));
	else
		block_set(b, at, entry(ENTRY_DEVICE, frame_id(to)));
	host_write_once(&to->rmap, rmap(b, at));
	host_write_once(&from->rmap, RMAP_NONE);
	/* Who waits faults again, and finds it on its new device. */
	(void)uffd_wake(mm, b->address + (u64)at * HOST_PAGE_SIZE,
			head ? HOST_HUGE_SIZE : HOST_PAGE_SIZE);
	section_leave(mm, b);
	host_wake_all(block_waitq(mm, b));
	(void)t;
	return true;
}

static void commit_in(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	for (unsigned i = 0, n; i < t->npages; i += n) {
		bool home;

		n = mpfn_pages(m->src[i]);
		if (!t->frames[i] || !m->dst[i])
			continue;
		if (!(m->dst[i] & MM_MPFN_SYSTEM)) {
			if (!commit_across(mm, m, t, i))
				m->src[i] &= ~MM_MPFN_MIGRATE;
			continue;
		}
		if (m->src[i] & MM_MPFN_COMPOUND) {
			if (!commit_whole_in(mm, t, i))
				commit_split_in(mm, m, t, i);
			continue;
		}
		home = commit_run_in(mm, &(struct home_run){.m = m, .t = t, .i = i}, &n);
		for (unsigned k = 0; k < n && !home; k++)
			m->src[i + k] &= ~MM_MPFN_MIGRATE;
	}
}

void mm_migrate_commit(struct mm_migrate *m)
{
	struct transaction *t = transaction_of(m);

	if (!t)
		return;
	t->committed = true;
	if (t->out)
		commit_out(m->mm, m, t);
	if (t->in)
		commit_in(m->mm, m, t);
	for (unsigned i = 0; i < m->npages; i += mpfn_pages(m->src[i]))
		if (!m->dst[i])
			m->src[i] &= ~MM_MPFN_MIGRATE;
}

/* ---- End ----------------------------------------------------------------------- */

/* One frame that was collected: free if its page is home or gone, else its page
 * is on the device as before. */
static void frame_done(struct mm *mm, struct transaction *t, struct mm_page *page, u32 id)
{
	unsigned at;
	struct block *b = section_enter_rmap(mm, &page->rmap, &at);
	bool head = mm_page_order(page) != 0;

	(void)t;
	if (!b) {
		frame_free(page);
		return;
	}
	if (head)
		b->uniform = entry(ENTRY_DEVICE, id);
	else
		block_set(b, at, entry(ENTRY_DEVICE, id));
	(void)uffd_wake(mm, b->address + (u64)at * HOST_PAGE_SIZE,
			head ? HOST_HUGE_SIZE : HOST_PAGE_SIZE);
	section_leave(mm, b);
	host_wake_all(block_waitq(mm, b));
}

static void end_in(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	for (unsigned i = 0; i < t->npages; i += mpfn_pages(m->src[i])) {
		bool head;
		struct mm_page *page;
		u32 id = t->frames[i] - 1;

		if (!t->frames[i])
			continue;
		page = in_frame(mm, m, i, &head);
		if (!head && m->src[i] & MM_MPFN_COMPOUND) {
			for (unsigned k = 0; k < HOST_HUGE_PAGES; k++)
				frame_done(mm, t, &page[k], id + k);
			continue;
		}
		frame_done(mm, t, page, id);
	}
}

/* Frames that were prepared and not committed. */
static void drop_destinations(struct mm_migrate *m)
{
	for (unsigned i = 0; i < m->npages; i++) {
		if (m->dst[i] && !(m->dst[i] & MM_MPFN_SYSTEM))
			frame_free(mm_mpfn_page(m->dst[i]));
		m->dst[i] = 0;
	}
}

/* All pages are where they belong. Has a fault been left to us? One that is read from here
 * on finds them. Without MOVE those on protected pages are none that were read. */
static bool has_waited(struct mm *mm, struct transaction *t)
{
	bool waited;

	section_enter(mm, t->block);
	if (t->by_copy)
		bits_clear(t->slot->leaving, t->at, t->npages);
	t->slot->copying = false;
	waited = host_read_once(&t->slot->waited) || t->by_copy;
	section_leave(mm, t->block);
	return waited;
}

void out_end(struct mm *mm, struct mm_migrate *m, struct transaction *t)
{
	put_back_whole(mm, m, t);
	for (unsigned i = 0; i < t->npages; i++) {
		if (!t->taken[i / 64])
			i |= 63;
		else if (bit(t->taken, i))
			put_back(mm, m, t, i);
	}
	if (has_waited(mm, t))
		(void)uffd_wake(mm, m->start, m->end - m->start);
	host_wake_all(block_waitq(mm, t->block));
}

void mm_migrate_end(struct mm_migrate *m)
{
	struct transaction *t = transaction_of(m);
	struct mm *mm = m->mm;

	if (!t)
		return;
	if (t->out)
		out_end(mm, m, t);
	/* Not before: pages that stayed may have waited in them. */
	if (!t->committed)
		drop_destinations(m);
	if (t->in)
		end_in(mm, m, t);
	if (m->flags & MM_MIGRATE_SYSTEM)
		host_read_unlock(&mm->out_lock);
	transaction_free(mm, t);
	m->home[0] = 0;
}
