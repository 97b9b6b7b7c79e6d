/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * staging.c: slots of 2M of address space that pages pass through.
 *
 * On the way out pages are moved from the application into a slot; when their
 * bytes are on the device, the slot keeps the (now worthless) pages: making and
 * freeing pages is what costs, and the way back needs pages. A full slot goes
 * to a pool, from which the way back takes it, fills it, and moves its pages to
 * the application. Slots that no one wants are emptied by work, later.
 *
 * Slots belong to U, as a destination of UFFDIO_MOVE must; pages made here for
 * the way back lie in a second area outside U, which may be touched freely.
 */
#include "host/userfault/home.h"
#include "host/posix/posix.h"

#include <sys/mman.h>

#define AREA ((u64)SLOTS * HOST_HUGE_SIZE)
#define FILL_SLOTS 8u
#define FILL_AREA ((u64)FILL_SLOTS * HOST_HUGE_SIZE)

static void push(struct slot **list, struct slot *s)
{
	s->next = *list;
	*list = s;
}

static struct slot *pop(struct slot **list)
{
	struct slot *s = *list;

	if (s)
		*list = s->next;
	return s;
}

bool staging_contains(const struct mm *mm, u64 address)
{
	return address >= mm->staging.base && address < mm->staging.base + AREA;
}

static bool is_fill(const struct slot *s)
{
	return s->number >= SLOTS;
}

u64 slot_address(const struct mm *mm, const struct slot *s)
{
	if (is_fill(s))
		return mm->staging.fill_base + (u64)(s->number - SLOTS) * HOST_HUGE_SIZE;
	return mm->staging.base + (u64)s->number * HOST_HUGE_SIZE;
}

static unsigned bits_count(const struct slot *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < HOST_HUGE_PAGES / 64; i++)
		n += (unsigned)__builtin_popcountll(s->present[i]);
	return n;
}

/* Gives the pages of a slot back to the system. No lock held: the REMOVE event
 * has to be read. */
static void slot_drop_pages(struct mm *mm, struct slot *s)
{
	(void)drop_pages(mm, slot_address(mm, s), HOST_HUGE_SIZE);
	host_memset(s->present, 0, sizeof(s->present));
	s->small = false;
	s->used = s->ready = 0;
}

static void full_count(struct mm *mm, int change)
{
	mm->staging.n_full += (u32)change;
	host_add_relaxed(&mm->counters.staging_bytes, (u64)(s64)change * HOST_HUGE_SIZE);
}

/* Work: empties spent slots, and full ones beyond what is kept. */
static void trim(struct host_work *work)
{
	struct staging *st = host_container_of(work, struct staging, trim);
	struct mm *mm = host_container_of(st, struct mm, staging);
	bool all = host_xchg(&st->all, 0);
	bool idle = all || host_now() - host_read_once(&st->last_use) > HOST_SEC;
	u32 keep = all ? 0 : idle ? SLOTS_KEPT_IDLE : SLOTS_KEPT;

	for (;;) {
		struct slot *s;

		host_mutex_lock(&st->lock);
		s = pop(&st->spent);
		if (!s && idle)
			s = pop(st->open ? &st->open : &st->ready);
		if (!s && st->n_full > keep) {
			s = pop(st->full_small ? &st->full_small : &st->full_huge);
			full_count(mm, -1);
		}
		host_mutex_unlock(&st->lock);
		if (!s)
			break;
		slot_drop_pages(mm, s);
		host_mutex_lock(&st->lock);
		push(&st->empty, s);
		host_mutex_unlock(&st->lock);
	}
	if (!idle && !host_read_once(&mm->stopping))
		host_work_queue_after(&st->trim, HOST_SEC);
}

/* ---- Memory pressure -------------------------------------------------------- */

static struct staging *of_shrinker(struct host_shrinker *s)
{
	return host_container_of(s, struct staging, shrinker);
}

static u64 kept_bytes(struct host_shrinker *s)
{
	return host_read_once(&of_shrinker(s)->n_full) * HOST_HUGE_SIZE;
}

/* By work: dropping pages waits for the reader. */
static u64 drop_kept(struct host_shrinker *s)
{
	struct staging *st = of_shrinker(s);

	host_store_release(&st->all, 1);
	host_work_queue(&st->trim);
	return kept_bytes(s);
}

static const struct host_shrinker_ops shrinker_ops = {.count = kept_bytes, .scan = drop_kept};

/* ---- Bounce buffers: for the few pages of a small window on the way home ---- */

char *bounce_take(struct mm *mm)
{
	struct staging *st = &mm->staging;
	char *bounce = NULL;

	host_mutex_lock(&st->lock);
	if (st->n_bounces)
		bounce = st->bounces[--st->n_bounces];
	host_mutex_unlock(&st->lock);
	return bounce ? bounce : host_alloc_pages(BOUNCE_SIZE);
}

void bounce_put(struct mm *mm, char *bounce)
{
	struct staging *st = &mm->staging;
	bool kept;

	if (!bounce)
		return;
	host_mutex_lock(&st->lock);
	kept = st->n_bounces < host_array_size(st->bounces);
	if (kept)
		st->bounces[st->n_bounces++] = bounce;
	host_mutex_unlock(&st->lock);
	if (!kept)
		host_free_pages(bounce, BOUNCE_SIZE);
}

/* ---- Slots ------------------------------------------------------------------ */

int staging_init(struct mm *mm)
{
	struct staging *st = &mm->staging;
	int r;

	host_mutex_init(&st->lock, RANK_HOST_POOL);
	host_work_init(&st->trim, trim);
	st->base = (u64)host_alloc_pages(AREA);
	st->fill_base = (u64)host_alloc_pages(FILL_AREA);
	st->slots = host_alloc_zeroed((SLOTS + FILL_SLOTS) * sizeof(*st->slots));
	if (!st->base || !st->fill_base || !st->slots)
		return -ENOMEM;
	for (unsigned i = SLOTS + FILL_SLOTS; i-- > 0;) {
		st->slots[i].number = i;
		push(i < SLOTS ? &st->empty : &st->fill, &st->slots[i]);
	}
	(void)mm->sys->madvise(st->base, AREA, MADV_DONTFORK);
	(void)mm->sys->madvise(st->fill_base, FILL_AREA, MADV_DONTFORK);
	(void)mm->sys->madvise(st->fill_base, FILL_AREA, MADV_HUGEPAGE);
	r = uffd_register(mm, mm->fd, st->base, AREA, UFFDIO_REGISTER_MODE_MISSING);
	if (!r)
		r = host_shrinker_register(&st->shrinker, "gpusvm-staging", &shrinker_ops);
	return r;
}

void staging_fini(struct mm *mm)
{
	struct staging *st = &mm->staging;

	host_shrinker_unregister(&st->shrinker);
	host_work_cancel(&st->trim);
	uffd_unregister(mm, mm->fd, st->base, AREA);
	if (st->base)
		host_free_pages((void *)st->base, AREA);
	if (st->fill_base)
		host_free_pages((void *)st->fill_base, FILL_AREA);
	while (st->n_bounces)
		host_free_pages(st->bounces[--st->n_bounces], BOUNCE_SIZE);
	host_free(st->slots);
	host_mutex_destroy(&st->lock);
}

struct slot *staging_take(struct mm *mm, unsigned n, bool huge, unsigned *at)
{
	struct staging *st = &mm->staging;
	struct slot *s = NULL;
	bool drop = false, full = false;

	host_mutex_lock(&st->lock);
	/* One that does not fit any more is spent when it is put back. */
	if (n < HOST_HUGE_PAGES && st->open && st->open->used + n <= HOST_HUGE_PAGES)
		s = pop(&st->open);
	if (!s)
		s = pop(&st->empty);
	if (!s && (st->spent || st->open || st->ready || st->full_small || st->full_huge)) {
		/* Every slot waits for the trimmer, or a way back that nobody takes. */
		full = !st->spent && !st->open && !st->ready;
		s = pop(st->spent	 ? &st->spent
			: st->open	 ? &st->open
			: st->ready	 ? &st->ready
			: st->full_small ? &st->full_small
					 : &st->full_huge);
		if (full)
			full_count(mm, -1);
		drop = true;
	}
	host_write_once(&st->last_use, host_now());
	host_mutex_unlock(&st->lock);
	if (!s)
		return NULL;
	if (drop || (huge && s->small))
		slot_drop_pages(mm, s);
	*at = s->used;
	s->used += n;
	return s;
}

unsigned staging_take_books(struct mm *mm, struct slot **slots, unsigned n)
{
	struct staging *st = &mm->staging;
	unsigned i = 0;

	host_mutex_lock(&st->lock);
	while (i < n && (slots[i] = pop(&st->empty)))
		i++;
	host_mutex_unlock(&st->lock);
	return i;
}

void staging_put_books(struct mm *mm, struct slot *const *slots, unsigned n)
{
	struct staging *st = &mm->staging;

	host_mutex_lock(&st->lock);
	while (n--) /* the first is the next to be taken */
		push(&st->empty, slots[n]);
	host_mutex_unlock(&st->lock);
}

/* Makes all pages of [start, start + 2M) present. 0, or -ENOMEM. */
static int populate(struct mm *mm, u64 start)
{
	int r = mm->sys->madvise(start, HOST_HUGE_SIZE, MADV_POPULATE_WRITE);

	if (r != -EINVAL)
		return r;
	/* Kernels before 5.14 do not know it. */
	for (u64 at = start; at < start + HOST_HUGE_SIZE; at += HOST_PAGE_SIZE)
		host_write_once((u8 *)at, 0);
	return 0;
}

/* Pages made anew, outside U, where that needs no one. NULL: no slot, or no memory. */
static struct slot *fill_make(struct mm *mm)
{
	struct staging *st = &mm->staging;
	struct slot *s;

	host_mutex_lock(&st->lock);
	s = pop(&st->fill);
	host_mutex_unlock(&st->lock);
	if (!s)
		return NULL;
	if (populate(mm, slot_address(mm, s))) {
		staging_put(mm, s);
		return NULL;
	}
	host_memset(s->present, 0xff, sizeof(s->present));
	s->ready = HOST_HUGE_PAGES;
	return s;
}

struct slot *staging_take_ready(struct mm *mm, unsigned n, bool small, unsigned *at)
{
	struct staging *st = &mm->staging;
	struct slot *s = NULL;

	host_mutex_lock(&st->lock);
	if (n < HOST_HUGE_PAGES && st->ready && st->ready->ready >= n)
		s = pop(&st->ready);
	if (!s && (st->full_small || st->full_huge)) {
		s = pop((small && st->full_small) || !st->full_huge ? &st->full_small
								    : &st->full_huge);
		s->ready = HOST_HUGE_PAGES;
		full_count(mm, -1);
	}
	host_write_once(&st->last_use, host_now());
	host_mutex_unlock(&st->lock);
	if (!s)
		s = fill_make(mm);
	if (!s)
		return NULL;
	/* Part of a huge page takes it apart. */
	s->small |= n < HOST_HUGE_PAGES;
	s->ready -= n;
	*at = s->ready;
	return s;
}

void staging_put(struct mm *mm, struct slot *s)
{
	struct staging *st = &mm->staging;
	unsigned n = bits_count(s);
	bool work, full = false;

	host_mutex_lock(&st->lock);
	if (is_fill(s)) {
		push(&st->fill, s);
	} else if (s->ready) {
		push(&st->ready, s);
	} else if (n == HOST_HUGE_PAGES) {
		s->ready = 0;
		push(s->small ? &st->full_small : &st->full_huge, s);
		full_count(mm, 1);
		full = true;
	} else if (!n) {
		s->used = s->ready = 0;
		push(&st->empty, s);
	} else if (s->used < HOST_HUGE_PAGES - SMALL_WINDOW) {
		push(&st->open, s);
	} else {
		push(&st->spent, s);
	}
	work = st->n_full || st->open || st->spent || st->ready;
	host_mutex_unlock(&st->lock);
	if (work)
		host_work_queue_after(&st->trim, HOST_SEC / 10);
	if (full)
		host_shrinker_wake(&st->shrinker);
}
