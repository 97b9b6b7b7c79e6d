/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * exclusive.c: pages of system memory that one device has for itself.
 *
 * They are taken by a migration to frames that are the home's own: a region over memory of
 * the arena, in U, to which UFFDIO_MOVE brings the very pages. So whatever touches one
 * finds a page that is on a device: faults, fork, mremap, munmap and MADV_DONTNEED need
 * nothing new, and the way back is a migration home, another MOVE. What differs is who
 * sees them: for everybody above mm.h they are system memory, so that no select, keep or
 * owner of a device is asked about them (exclusive_frame, in collect.c and lookup.c).
 * Without MOVE (see mm->info) the bytes are copied to the frames and back, and only what
 * gpusvm_alloc gave can be taken.
 *
 * Frames are given out by bits: those of one call are side by side, at the place in their
 * chunk of 2M that their pages have in theirs, so that runs of pages are runs of frames.
 *
 * Locking: bits are set under lock and cleared by atomics, wherever a frame falls out of
 * use. owners and until of a frame are written before it is committed, and good while it
 * is in use. What a page's entry says is under the rule of home.h.
 */
#include "host/userfault/home.h"
#include "host/posix/posix.h"

#include <sys/mman.h>

#ifdef HOST_MODEL
#define CHUNKS_MOST 4u
#else
#define CHUNKS_MOST 512u /* 1 GiB is taken at most, at one time */
#endif
#define CHUNKS_LEAST 2u
#define TAKE_TRIES 64u
#define TRIM_DELAY HOST_SEC

/* ---- Frames ------------------------------------------------------------------------ */

static u64 chunk_words(const struct exclusive *ex, u32 chunk, unsigned word)
{
	return host_load_acquire(&ex->used[chunk * EXCLUSIVE_WORDS + word]);
}

/* Bits [first, first + n) of a chunk that lie in one word of it. */
static u64 word_mask(unsigned word, unsigned first, unsigned n)
{
	unsigned from = host_max(first, word * 64), to = host_min(first + n, (word + 1) * 64);
	u64 below;

	if (from >= to)
		return 0;
	below = to - word * 64 == 64 ? ~(u64)0 : ((u64)1 << (to - word * 64)) - 1;
	return below & ~(((u64)1 << (from - word * 64)) - 1);
}

static bool chunk_fits(const struct exclusive *ex, u32 chunk, unsigned first, unsigned n)
{
	for (unsigned word = 0; word < EXCLUSIVE_WORDS; word++)
		if (chunk_words(ex, chunk, word) & word_mask(word, first, n))
			return false;
	return true;
}

/* n frames from place `first` of some chunk on; false: there are none. */
static bool frames_take(struct exclusive *ex, unsigned first, unsigned n, u64 *ret)
{
	u32 chunk;

	host_mutex_lock(&ex->lock);
	for (chunk = 0; chunk < ex->chunks && !chunk_fits(ex, chunk, first, n); chunk++)
		;
	for (unsigned word = 0; chunk < ex->chunks && word < EXCLUSIVE_WORDS; word++)
		host_fetch_or(&ex->used[chunk * EXCLUSIVE_WORDS + word], word_mask(word, first, n));
	host_mutex_unlock(&ex->lock);
	*ret = (u64)chunk * HOST_HUGE_PAGES + first;
	return chunk < ex->chunks;
}

static void frames_put(struct exclusive *ex, u64 index, unsigned n)
{
	u32 chunk = (u32)(index >> HOST_HUGE_ORDER);
	unsigned first = (unsigned)index & (HOST_HUGE_PAGES - 1);

	for (unsigned word = 0; word < EXCLUSIVE_WORDS; word++)
		host_fetch_and(&ex->used[chunk * EXCLUSIVE_WORDS + word],
			       ~word_mask(word, first, n));
}

static u64 frame_address(const struct exclusive *ex, u64 index)
{
	return ex->base + (index << HOST_PAGE_SHIFT);
}

/* Work: a frame whose page was unmapped still has it. Chunks that are free are emptied.
 * While that is done they are nobody's. */
static void trim(struct host_work *work)
{
	struct exclusive *ex = host_container_of(work, struct exclusive, trim);
	struct mm *mm = host_container_of(ex, struct mm, exclusive);
	u64 index;

	for (u32 chunk = 0; chunk < ex->chunks; chunk++) {
		if (!host_xchg(&ex->stale[chunk], 0))
			continue;
		host_mutex_lock(&ex->lock);
		if (!chunk_fits(ex, chunk, 0, HOST_HUGE_PAGES)) {
			host_store_release(&ex->stale[chunk], 1); /* when it is free */
			host_mutex_unlock(&ex->lock);
			continue;
		}
		for (unsigned word = 0; word < EXCLUSIVE_WORDS; word++)
			host_store_release(&ex->used[chunk * EXCLUSIVE_WORDS + word], ~(u64)0);
		host_mutex_unlock(&ex->lock);
		index = (u64)chunk << HOST_HUGE_ORDER;
		(void)mm->sys->madvise(frame_address(ex, index), HOST_HUGE_SIZE, MADV_DONTNEED);
		frames_put(ex, index, HOST_HUGE_PAGES);
	}
}

/* ---- The region ----------------------------------------------------------------------- */

static s64 region_touched(struct mm_cpu_fault *fault);

static void region_free(struct mm_page *page, unsigned order, void *data)
{
	struct exclusive *ex = data;
	u64 index = mm_page_index(page);

	host_store_release(&ex->stale[index >> HOST_HUGE_ORDER], 1);
	frames_put(ex, index, 1u << order);
	host_add_return(&ex->taken, 0u - (1u << order));
	host_work_queue_after(&ex->trim, TRIM_DELAY);
}

/* One struct stands for all frames, and outlives them. */
static void region_split(void *data, unsigned extra)
{
	(void)data;
	(void)extra;
}

static void region_hold(void *data)
{
	(void)data;
}

static int region_read(struct mm_page *page, unsigned i, void *buffer)
{
	const struct exclusive *ex = mm_page_data(page);
	struct mm *mm = mm_page_region(page)->mm;

	mm->sys->copy((u64)(uintptr_t)buffer, frame_address(ex, mm_page_index(page) + i),
		      HOST_PAGE_SIZE);
	return 0;
}

static const struct mm_region_ops region_ops = {
    .migrate_to_ram = region_touched,
    .free = region_free,
    .split = region_split,
    .hold = region_hold,
    .drop = region_hold,
    .read = region_read,
};

static void region_give_up(struct mm *mm, struct exclusive *made)
{
	if (made->region)
		mm_region_destroy(made->region);
	if (made->moves)
		mm_memory_remove(mm, (void *)made->base, made->chunks * HOST_HUGE_SIZE);
	if (made->base)
		host_free_pages((void *)made->base, made->chunks * HOST_HUGE_SIZE);
	host_free(made->used);
	host_free(made->stale);
	host_free_pages(
	    made->pages,
	    host_align_up(made->chunks * HOST_HUGE_PAGES * sizeof(*made->pages), HOST_PAGE_SIZE));
}

static bool region_make(struct mm *mm, struct exclusive *made)
{
	u64 npages = (u64)made->chunks * HOST_HUGE_PAGES;

	made->base = (u64)host_alloc_pages(npages << HOST_PAGE_SHIFT);
	made->used = host_alloc_zeroed(made->chunks * EXCLUSIVE_WORDS * sizeof(u64));
	made->stale = host_alloc_zeroed(made->chunks * sizeof(u32));
	made->pages =
	    host_alloc_pages(host_align_up(npages * sizeof(*made->pages), HOST_PAGE_SIZE));
	if (!made->base || !made->used || !made->stale || !made->pages ||
	    mm_region_create(npages, &region_ops, NULL, &made->region)) {
		made->region = NULL;
		return false;
	}
	made->moves = !mm_memory_add(mm, (void *)made->base, npages << HOST_PAGE_SHIFT);
	if (made->moves)
		mm_region_set_memory(made->region, (void *)made->base);
	return true;
}

/* At first use; with less where the arena has not so much left. Of two that make one at
 * once, one gives its own up. */
static int region_need(struct mm *mm)
{
	struct exclusive *ex = &mm->exclusive, made;
	bool used = false;

	if (exclusive_region(mm))
		return 0;
	for (u32 chunks = CHUNKS_MOST; chunks >= CHUNKS_LEAST; chunks /= 2) {
		made = (struct exclusive){.chunks = chunks};
		if (region_make(mm, &made))
			break;
		region_give_up(mm, &made);
		made.region = NULL;
	}
	if (!made.region)
		return -ENOMEM;
	host_mutex_lock(&ex->lock);
	if (!ex->region) {
		used = true;
		ex->base = made.base;
		ex->chunks = made.chunks;
		ex->moves = made.moves;
		ex->used = made.used;
		ex->stale = made.stale;
		ex->pages = made.pages;
		host_store_release(&ex->region, made.region);
	}
	host_mutex_unlock(&ex->lock);
	if (!used)
		region_give_up(mm, &made);
	return 0;
}

void exclusive_init(struct mm *mm)
{
	host_mutex_init(&mm->exclusive.lock, RANK_HOST_POOL);
	host_work_init(&mm->exclusive.trim, trim);
}

bool exclusive_frame(struct mm *mm, const struct mm_page *page)
{
	struct mm_region *region = exclusive_region(mm);

	return region && mm_page_region(page) == region;
}

mm_pfn_t exclusive_pfn(struct mm *mm, const struct mm_page *page, unsigned i, const void *owner)
{
	const struct exclusive *ex = &mm->exclusive;
	u64 index = mm_page_index(page) + i;

	if (host_read_once(&ex->pages[index].owner) != owner)
		return 0;
	return MM_PFN_VALID | MM_PFN_WRITE | MM_PFN_EXCLUSIVE | frame_address(ex, index);
}

/* ---- Moving ------------------------------------------------------------------------------ */

struct move {
	struct mm_migrate m;
	mm_mpfn_t *src;
	u64 first; /* frame of entry 0, on the way there */
};

static int move_init(struct move *move, struct mm *mm, u64 start, u64 end, u32 flags)
{
	unsigned n = (unsigned)((end - start) >> HOST_PAGE_SHIFT);

	move->src = host_alloc(2 * n * sizeof(*move->src));
	move->m = (struct mm_migrate){
	    .mm = mm,
	    .start = start,
	    .end = end,
	    .flags = flags | MM_MIGRATE_COMPOUND,
	    .npages = n,
	    .src = move->src,
	    .dst = move->src + n,
	};
	return move->src ? 0 : -ENOMEM;
}

static unsigned entry_pages(mm_mpfn_t mpfn)
{
	return mpfn & MM_MPFN_COMPOUND ? HOST_HUGE_PAGES : 1;
}

struct copy {
	struct mm *mm;
	u64 to, from, length;
};

static void copy_guarded(void *arg)
{
	const struct copy *c = arg;

	if (mm_bus_begin(c->from, c->length, false))
		c->mm->sys->copy(c->to, c->from, c->length);
	mm_bus_end();
}

/* Without MOVE: the page stays where the process may unmap it under us. */
static bool copy_entry(struct move *move, unsigned i, u64 frame, bool home)
{
	u64 length = entry_pages(move->m.src[i]) * HOST_PAGE_SIZE, where;
	struct copy copy = {move->m.mm, frame, 0, length};
	unsigned order;
	u64 at = 0;

	if (!(move->m.src[i] & MM_MPFN_ZERO) || home)
		at = mm_migrate_dma(&move->m, i, &order);
	copy.to = home ? at : frame;
	copy.from = home ? frame : at;
	if (!copy.from) {
		copy.mm->sys->copy(copy.to, 0, length);
		return true;
	}
	return mm_bus_guard(copy_guarded, &copy, &where) == 0;
}

/* For mm_migrate.frame: side by side. */
static u64 frame_of_entry(void *arg, unsigned i, unsigned *n)
{
	const struct move *move = arg;

	*n = move->m.npages - i;
	return move->first + i;
}

/* ---- Taking --------------------------------------------------------------------------------- */

/* A frame for each page that was collected. */
static void take_frames(struct move *move, const void *owner, u64 until, u64 *given)
{
	struct exclusive *ex = &move->m.mm->exclusive;
	struct mm_migrate *m = &move->m;
	u64 first = move->first;

	for (unsigned i = 0, n; i < m->npages; i += n) {
		struct mm_page *page;

		n = entry_pages(m->src[i]);
		if (!(m->src[i] & MM_MPFN_MIGRATE))
			continue;
		bits_set(given, i, n);
		for (unsigned k = 0; k < n; k++) {
			host_write_once(&ex->pages[first + i + k].owner, owner);
			host_write_once(&ex->pages[first + i + k].until, until);
		}
		host_add_return(&ex->taken, n);
		page = mm_page_init(ex->region, first + i, n > 1 ? HOST_HUGE_ORDER : 0, ex);
		if (!(m->src[i] & MM_MPFN_MOVE) &&
		    !copy_entry(move, i, frame_address(ex, first + i), false)) {
			mm_page_abandon(page);
			continue;
		}
		m->dst[i] = mm_mpfn(page) | MM_MPFN_MIGRATE | (m->src[i] & MM_MPFN_COMPOUND);
	}
}

/* [start, end), of one block: whatever of it is in system memory, as far as it goes. Why
 * some did not, in *stayed. */
static int take(struct mm *mm, u64 start, u64 end, const void *owner, u64 hold, u32 *stayed)
{
	struct exclusive *ex = &mm->exclusive;
	u64 given[HOST_HUGE_PAGES / 64] = {0};
	struct move move;
	int err = region_need(mm);

	if (err)
		return err;
	err = move_init(&move, mm, start, end, MM_MIGRATE_SYSTEM | MIGRATE_TAKE);
	if (err)
		return err;
	move.m.migrator = owner;
	move.m.region = ex->region;
	move.m.frame = frame_of_entry;
	move.m.frame_arg = &move;
	if (!frames_take(ex, page_in_block(start), move.m.npages, &move.first)) {
		host_free(move.src);
		return -ENOMEM;
	}
	err = mm_migrate_begin(&move.m);
	if (!err) {
		take_frames(&move, owner, host_now() + hold, given);
		mm_migrate_commit(&move.m);
		mm_migrate_end(&move.m);
		*stayed |= move.m.stayed_reason;
	}
	/* Those that were given belong to their pages, or are given back already. */
	for (unsigned i = 0; i < move.m.npages; i++)
		if (!bit(given, i))
			frames_put(ex, move.first + i, 1);
	host_free(move.src);
	return err;
}

/* Was some of it dropped, and is there all the same? It may go at any moment, and does not
 * leave before. Of what MADV_FREE has dropped, and somebody wrote since, nobody ever hears. */
static bool any_marked(struct mm *mm, u64 start, u64 end)
{
	struct block *b = block_find(mm, start);
	bool any = false;

	if (!b)
		return false;
	section_enter(mm, b);
	for (u64 at = start; !any && at < end; at += HOST_PAGE_SIZE)
		any = block_get(b, page_in_block(at)) == entry(ENTRY_SYSTEM, ENTRY_MARKED);
	section_leave(mm, b);
	return any;
}

int mm_make_exclusive(struct mm_range_fault *rf, u64 hold)
{
	struct mm *mm = rf->mm;
	u32 stayed = 0;
	int r;

	if (rf->start >= rf->end || !host_is_aligned(rf->start | rf->end, HOST_PAGE_SIZE) ||
	    rf->start / HOST_HUGE_SIZE != (rf->end - 1) / HOST_HUGE_SIZE || !rf->owner)
		return -EINVAL;
	rf->flags = MM_FAULT_IN | MM_FAULT_WRITE;
	for (unsigned tries = 0; tries < TAKE_TRIES; tries++) {
		r = lookup_range(rf, true);
		if (r != 1)
			return r;
		stayed = 0;
		r = take(mm, rf->start, rf->end, rf->owner, hold, &stayed);
		if (r)
			return r;
		if (stayed & (MM_STAYED_PINNED | MM_STAYED_NOT_MIGRATABLE))
			return -EOPNOTSUPP;
		rf->seq = mm_notifier_read_begin(rf->notifier);
	}
	return stayed & MM_STAYED_BUSY && any_marked(mm, rf->start, rf->end) ? -EOPNOTSUPP : -EBUSY;
}

/* ---- Giving back ------------------------------------------------------------------------------
 */

/* Which pages go: of this owner (NULL: any), whose time is over by `now`. */
struct going {
	struct exclusive *ex;
	const void *owner;
	u64 now;
};

/* Context: a section. */
static bool goes(void *arg, struct mm_page *page)
{
	const struct going *going = arg;
	u64 index = mm_page_index(page);
	const struct exclusive_page *p = &going->ex->pages[index];

	return (!going->owner || host_read_once(&p->owner) == going->owner) &&
	       host_read_once(&p->until) <= going->now;
}

static int give_back(struct mm *mm, u64 start, u64 end, struct going *going)
{
	struct move move;
	int err = move_init(&move, mm, start, end, MM_MIGRATE_DEVICE | MIGRATE_GIVE_BACK);

	going->ex = &mm->exclusive;
	if (err)
		return err;
	move.m.select = goes;
	move.m.select_arg = going;
	err = mm_migrate_begin(&move.m);
	if (!err) {
		err = mm_migrate_alloc_system(&move.m);
		for (unsigned i = 0; i < move.m.npages; i += entry_pages(move.m.src[i]))
			if (move.m.dst[i] && !(move.m.dst[i] & MM_MPFN_MOVE)) {
				struct mm_page *page = mm_mpfn_page(move.m.src[i]);
				u64 frame = frame_address(&mm->exclusive, mm_page_index(page));

				if (!copy_entry(&move, i, frame, true))
					move.m.dst[i] = 0;
			}
		mm_migrate_commit(&move.m);
		mm_migrate_end(&move.m);
	}
	host_free(move.src);
	return err;
}

/* The CPU touches one: it comes back, with what lies around it. */
static s64 region_touched(struct mm_cpu_fault *fault)
{
	struct mm *mm = fault->mm;
	u64 index = mm_page_index(fault->page), window = SMALL_WINDOW * HOST_PAGE_SIZE, start;
	struct going going = {.now = host_now()};
	const struct exclusive *ex = &mm->exclusive;
	u64 until;

	if (mm_page_order(fault->page)) {
		window = HOST_HUGE_SIZE;
		index += page_in_block(fault->address);
	}
	until = host_read_once(&ex->pages[index].until);
	if (going.now < until)
		return (s64)(until - going.now);
	start = host_align_down(fault->address, window);
	return give_back(mm, start, start + window, &going);
}

static bool any_exclusive(struct mm *mm, struct block *b, const void *owner)
{
	struct going going = {&mm->exclusive, owner, ~(u64)0};
	bool any = false;

	section_enter(mm, b);
	for (unsigned i = 0; i < HOST_HUGE_PAGES && !any; i++) {
		entry_t e = block_get(b, i);
		struct mm_page *page;

		if (entry_kind(e) != ENTRY_DEVICE)
			continue;
		page = frame_page(mm, b->pages ? entry_id(e) : entry_id(b->uniform), !b->pages);
		any = exclusive_frame(mm, page) && goes(&going, page);
	}
	section_leave(mm, b);
	return any;
}

void exclusive_make_way(struct mm *mm, u64 start, u64 end)
{
	struct going going = {.now = ~(u64)0};
	struct block *b;

	if (!host_load_acquire(&mm->exclusive.taken))
		return;
	b = block_find(mm, start);
	if (b && any_exclusive(mm, b, NULL))
		(void)give_back(mm, start, end, &going);
}

void mm_exclusive_end(struct mm *mm, const void *owner)
{
	u32 n = host_load_acquire(&mm->n_blocks);

	for (u32 k = 1; k < n && host_load_acquire(&mm->exclusive.taken); k++) {
		struct going going = {.owner = owner, .now = ~(u64)0};
		struct block *b = mm->by_number[k];

		for (unsigned tries = 0; tries < TAKE_TRIES && any_exclusive(mm, b, owner); tries++)
			if (give_back(mm, b->address, b->address + HOST_HUGE_SIZE, &going))
				host_sleep(HOST_MSEC);
	}
}

void exclusive_fini(struct mm *mm)
{
	struct exclusive *ex = &mm->exclusive;
	u64 deadline = host_now() + 10 * HOST_SEC;

	/* Whatever is not back now is lost. */
	while (host_load_acquire(&ex->taken) && host_now() < deadline) {
		mm_exclusive_end(mm, NULL);
		if (host_load_acquire(&ex->taken)) /* moving, or memory is short */
			host_sleep(HOST_MSEC);
	}
	HOST_WARN_ON(host_load_acquire(&ex->taken));
	host_work_cancel(&ex->trim);
	if (ex->region)
		region_give_up(mm, ex);
	host_mutex_destroy(&ex->lock);
}
