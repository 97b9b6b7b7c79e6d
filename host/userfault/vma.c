/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * vma.c: mappings: what they are, how they are watched, and what devices were
 * told of those whose changes have no event.
 */
#include "host/userfault/home.h"
#include "host/posix/posix.h"

#include <sys/mman.h>

bool vma_migratable(const struct mm *mm, const struct userfault_vma *v)
{
	if (!v->read || !v->write || v->shared || v->inode || v->page_size > HOST_PAGE_SIZE)
		return false;
	if (host_arena_contains((void *)v->start))
		return false;
	/* To lock a mutex, or to copy, is to read a variable of libc's .bss. */
	for (u32 i = 0; i < mm->n_libc; i++)
		if (v->start < mm->libc[i].end && v->end > mm->libc[i].start)
			return false;
	return !mm->restricted || alloc_contains(mm, v->start);
}

int mm_vma_find(struct mm *mm, u64 start, u64 end, struct mm_vma *ret)
{
	struct userfault_vma v;
	int r;

	if (host_read_once(&mm->dying))
		return -EFAULT;
	r = mm->sys->vma(start, &v);
	if (r)
		return r == -ENOENT ? -ENOENT : -EFAULT;
	if (v.start >= end)
		return -ENOENT;
	*ret = (struct mm_vma){.start = v.start, .end = v.end};
	if (v.read)
		ret->flags |= MM_VMA_READ;
	if (v.write)
		ret->flags |= MM_VMA_WRITE;
	if (v.shared)
		ret->flags |= MM_VMA_SHARED;
	if (!v.shared && !v.inode)
		ret->flags |= MM_VMA_ANON;
	if (v.page_size > HOST_PAGE_SIZE)
		ret->flags |= MM_VMA_HUGETLB;
	if (vma_migratable(mm, &v))
		ret->flags |= MM_VMA_MIGRATABLE;
	return 0;
}

static bool registered_with(struct mm *mm, u64 start, u64 end, u64 events)
{
	bool covered;

	host_mutex_lock(&mm->whole.lock);
	covered = mm->whole.events == events && start >= mm->whole.start && end <= mm->whole.end;
	host_mutex_unlock(&mm->whole.lock);
	return covered;
}

/* Notes [start, end) as registered. whole.lock held. */
static void note_ever(struct mm *mm, u64 start, u64 end)
{
	u32 best = 0;
	u64 least = ~(u64)0;

	for (u32 i = 0; i < mm->whole.n_ever; i++) {
		u64 s = mm->whole.ever[i].start, e = mm->whole.ever[i].end;
		u64 gap = start > e ? start - e : s > end ? s - end : 0;

		if (gap < least) {
			least = gap;
			best = i;
		}
	}
	if (least && mm->whole.n_ever < host_array_size(mm->whole.ever)) {
		mm->whole.ever[mm->whole.n_ever].start = start;
		mm->whole.ever[mm->whole.n_ever++].end = end;
		return;
	}
	mm->whole.ever[best].start = host_min(mm->whole.ever[best].start, start);
	mm->whole.ever[best].end = host_max(mm->whole.ever[best].end, end);
}

void registered_moved(struct mm *mm, u64 from, u64 to, u64 length)
{
	bool ever = false;

	host_mutex_lock(&mm->whole.lock);
	for (u32 i = 0; i < mm->whole.n_ever; i++)
		ever |= mm->whole.ever[i].start < from + length && mm->whole.ever[i].end > from;
	if (ever)
		note_ever(mm, to, to + length);
	host_mutex_unlock(&mm->whole.lock);
}

/* Registers; the note comes first, so that none is missed. */
static int register_noted(struct mm *mm, int fd, u64 start, u64 end, u64 mode)
{
	host_mutex_lock(&mm->whole.lock);
	note_ever(mm, start, end);
	host_mutex_unlock(&mm->whole.lock);
	return uffd_register(mm, fd, start, end - start, mode);
}

/* Is it registered with this one? The kernel does not say, but to register what is
 * another's fails; older ones take it away from whoever has it. */
static void unregister(struct mm *mm, int fd, const struct userfault_vma *v, u64 mode)
{
	if (fd >= 0 && uffd_register(mm, fd, v->start, v->end - v->start, mode) == 0)
		uffd_unregister(mm, fd, v->start, v->end - v->start);
}

/* Mapping by mapping: they have grown, and been cut. To close the descriptors would do,
 * but only when the last copy is gone (a child may have one), and until then whoever
 * touches or unmaps what is still registered, waits for a reader that is no more. */
void unregister_all(struct mm *mm)
{
	struct userfault_vma v;

	for (u32 i = 0; i < mm->whole.n_ever; i++)
		for (u64 at = mm->whole.ever[i].start; at < mm->whole.ever[i].end; at = v.end) {
			if (mm->sys->vma(at, &v) || v.start >= mm->whole.ever[i].end)
				break;
			if (host_arena_contains((void *)v.start))
				continue;
			unregister(mm, mm->fd, &v, UFFDIO_REGISTER_MODE_MISSING);
			if (host_read_once(&mm->watching))
				unregister(mm, mm->watch_fd, &v, UFFDIO_REGISTER_MODE_WP);
		}
}

/* Registers [first, end), and makes sure of it. The mapping may have been changed
 * since it was looked at, and while it was not registered no event told of that.
 * What was a hole then, and is mapped now, is not registered; but then it is a
 * mapping apart from what is. So: one mapping all along, or nothing is promised. */
static int register_sure(struct mm *mm, u64 first, u64 end, u64 mode)
{
	struct userfault_vma now;
	int r = register_noted(mm, mm->fd, first, end, mode);

	if (r)
		return r;
	if (mm->sys->vma(first, &now) || now.start > first || now.end < end)
		return -EBUSY;
	return 0;
}

/* The whole mapping where that can be: one that is registered in part is several to the
 * kernel, and an application's mremap of it would fail. What is known of the rest of it
 * holds as long as no event is read. */
static int register_whole(struct mm *mm, const struct userfault_vma *v, u64 mode, u64 events)
{
	int r = register_sure(mm, v->start, v->end, mode);

	if (r)
		return r;
	host_mutex_lock(&mm->whole.lock);
	mm->whole.start = v->start;
	mm->whole.end = v->end;
	mm->whole.events = events;
	host_mutex_unlock(&mm->whole.lock);
	return 0;
}

static int register_missing(struct mm *mm, const struct userfault_vma *v, u64 first, u64 last,
			    u64 events)
{
	u64 mode = UFFDIO_REGISTER_MODE_MISSING | (mm->info.move ? 0 : UFFDIO_REGISTER_MODE_WP);
	int r = mm->restricted ? -EPERM : register_whole(mm, v, mode, events);

	/* It was read-only once, and watched where it was. */
	if (r == -EBUSY && host_read_once(&mm->watching)) {
		unregister(mm, mm->watch_fd, v, UFFDIO_REGISTER_MODE_WP);
		r = register_whole(mm, v, mode, events);
	}
	/* Some of it may be another's, or too large for the kernel's tables. */
	return r ? register_sure(mm, first, last, mode) : 0;
}

static void note_doubt(struct mm *mm, u64 start, u64 end)
{
	bool none;

	host_mutex_lock(&mm->whole.lock);
	none = mm->whole.doubt_start == mm->whole.doubt_end;
	mm->whole.doubt_start = none ? start : host_min(mm->whole.doubt_start, start);
	mm->whole.doubt_end = none ? end : host_max(mm->whole.doubt_end, end);
	host_mutex_unlock(&mm->whole.lock);
}

/* Waits until all that happened has been told, and holds the gate for reading: no event is
 * read from here on. */
static void quiet_enter(struct mm *mm)
{
	for (;;) {
		while (events_unread(mm))
			wait_for_reader(mm);
		if (host_read_once(&mm->moved_here)) {
			host_write_lock(&mm->gate);
			events_settle(mm);
			host_write_unlock(&mm->gate);
		}
		host_read_lock(&mm->gate);
		if (!host_read_once(&mm->moved_here) && !events_unread(mm))
			return;
		host_read_unlock(&mm->gate);
	}
}

/* Registers when no event is on its way, so that event.c knows what is older than one. */
static int register_quiet(struct mm *mm, const struct userfault_vma *v, u64 first, u64 last,
			  u64 *events)
{
	int r = 0;

	quiet_enter(mm);
	*events = host_load_acquire(&mm->events);
	if (!registered_with(mm, first, last, *events))
		r = register_missing(mm, v, first, last, *events);
	if (events_unread(mm))
		note_doubt(mm, v->start, v->end);
	host_read_unlock(&mm->gate);
	return r;
}

int vma_watch(struct mm *mm, struct block *b, const struct userfault_vma *v, u64 start, u64 end)
{
	u64 first, last, events;
	int r;

	if (host_arena_contains((void *)v->start))
		return 0;
	if (!vma_migratable(mm, v)) {
		if (mm->watch_fd < 0)
			return -EOPNOTSUPP;
		if (!host_xchg(&mm->watching, 1))
			reader_kick(mm);
		return register_noted(mm, mm->watch_fd, v->start, v->end,
				      UFFDIO_REGISTER_MODE_WP);
	}
	if (block_registered(b, start, end))
		return 0;
	first = host_max(v->start, b->address);
	last = host_min(v->end, b->address + HOST_HUGE_SIZE);
	/* Events of what was here before must have been read, so that none of them
	 * is taken for one of this mapping; and none may come while we note it. */
	do {
		r = register_quiet(mm, v, first, last, &events);
		if (r)
			return r;
		section_enter(mm, b);
		if (events == host_load_acquire(&mm->events))
			block_register(b, first, last);
		section_leave(mm, b);
	} while (events_unread(mm));
	return 0;
}

int userfault_discard(struct mm *mm, u64 start, u64 end)
{
	struct userfault_vma v;

	for (u64 at = start; at < end; at = v.end)
		if (mm->sys->vma(at, &v) || v.start > at)
			return -ENOENT;
	/* Mapping by mapping: one that is locked does not keep the others. Its event is read
	 * by the leader, which waits for no work of ours. */
	for (u64 at = start, next; at < end; at = next) {
		if (mm->sys->vma(at, &v) || v.start > at)
			return -ENOENT;
		next = host_min(v.end, end);
		(void)mm->sys->madvise(at, next - at, MADV_DONTNEED);
	}
	return 0;
}

/* ---- Extents --------------------------------------------------------------
 * Sorted, apart from each other, under extents_lock.
 */

static u32 extent_at(const struct mm *mm, u64 address)
{
	u32 lo = 0, hi = mm->n_extents;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (mm->extents[mid].vma.end <= address)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool same_mapping(const struct userfault_vma *a, const struct userfault_vma *b)
{
	return a->read == b->read && a->write == b->write && a->shared == b->shared &&
	       a->inode == b->inode && a->device == b->device &&
	       (!a->inode || a->offset - a->start == b->offset - b->start);
}

static int extents_grow(struct mm *mm, u32 want)
{
	u32 max = host_max(64u, mm->max_extents);
	struct extent *more;

	if (want <= mm->max_extents)
		return 0;
	while (max < want)
		max *= 2;
	more = host_alloc(max * sizeof(*more));
	if (!more)
		return -ENOMEM;
	if (mm->n_extents)
		host_memcpy(more, mm->extents, mm->n_extents * sizeof(*more));
	host_free(mm->extents);
	mm->extents = more;
	mm->max_extents = max;
	return 0;
}

/* Replaces n extents at i by those of with. Room was made before. */
static void extents_splice(struct mm *mm, u32 i, u32 n, const struct extent *with, u32 n_with)
{
	u32 tail = mm->n_extents - i - n;
	struct extent *e = mm->extents;

	if (n_with > n)
		for (u32 k = tail; k-- > 0;)
			e[i + n_with + k] = e[i + n + k];
	else
		for (u32 k = 0; k < tail; k++)
			e[i + n_with + k] = e[i + n + k];
	for (u32 k = 0; k < n_with; k++)
		e[i + k] = with[k];
	mm->n_extents += n_with - n;
}

static void extents_cut(struct mm *mm, u64 start, u64 end)
{
	u32 i = extent_at(mm, start), n = 0, left = 0;
	struct extent rest[2];

	while (i + n < mm->n_extents && mm->extents[i + n].vma.start < end)
		n++;
	if (!n)
		return;
	if (mm->extents[i].vma.start < start) {
		rest[left] = mm->extents[i];
		rest[left++].vma.end = start;
	}
	if (mm->extents[i + n - 1].vma.end > end) {
		struct userfault_vma *v = &rest[left].vma;

		rest[left] = mm->extents[i + n - 1];
		v->offset += end - v->start;
		v->start = end;
		left++;
	}
	extents_splice(mm, i, n, rest, left);
}

int extent_note(struct mm *mm, const struct userfault_vma *v, u64 start, u64 end, bool watched)
{
	struct extent e = {.vma = *v, .watched = watched};
	u32 i, n = 0;
	int r;

	e.vma.start = host_max(start, v->start);
	e.vma.end = host_min(end, v->end);
	e.vma.offset = v->offset + (e.vma.start - v->start);
	host_mutex_lock(&mm->extents_lock);
	i = extent_at(mm, start);
	if (i < mm->n_extents && mm->extents[i].vma.start <= e.vma.start &&
	    mm->extents[i].vma.end >= e.vma.end && same_mapping(&mm->extents[i].vma, &e.vma)) {
		host_mutex_unlock(&mm->extents_lock);
		return 0;
	}
	r = extents_grow(mm, mm->n_extents + 3);
	if (!r) {
		extents_cut(mm, e.vma.start, e.vma.end);
		i = extent_at(mm, e.vma.start);
		if (i && mm->extents[i - 1].vma.end == e.vma.start &&
		    same_mapping(&mm->extents[i - 1].vma, &e.vma)) {
			e.vma.offset = mm->extents[i - 1].vma.offset;
			e.vma.start = mm->extents[i - 1].vma.start;
			i--;
			n++;
		}
		if (i + n < mm->n_extents && mm->extents[i + n].vma.start == e.vma.end &&
		    same_mapping(&mm->extents[i + n].vma, &e.vma)) {
			e.vma.end = mm->extents[i + n].vma.end;
			n++;
		}
		extents_splice(mm, i, n, &e, 1);
	}
	host_mutex_unlock(&mm->extents_lock);
	return r;
}

bool extent_seen(struct mm *mm, u64 address, struct userfault_vma *ret)
{
	bool seen;
	u32 i;

	host_mutex_lock(&mm->extents_lock);
	i = extent_at(mm, address);
	seen = i < mm->n_extents && mm->extents[i].vma.start <= address &&
	       mm->extents[i].watched && vma_migratable(mm, &mm->extents[i].vma);
	if (seen)
		*ret = mm->extents[i].vma;
	host_mutex_unlock(&mm->extents_lock);
	return seen;
}

/* The same as a device's look at it, without the look. */
int mm_watch(struct mm *mm, u64 start, u64 end)
{
	struct userfault_vma v;
	u64 next;
	int r;

	for (u64 at = start; at < end; at = next) {
		bool watched = true;

		if (host_read_once(&mm->dying))
			return -EFAULT;
		if (mm->sys->vma(at, &v) || v.start > at)
			return -ENOENT;
		next = host_min(end, v.end);
		if (vma_migratable(mm, &v)) {
			for (u64 a = at, stop; a < next; a = stop) {
				struct block *b = block_make(mm, a);

				stop = host_align_down(a, HOST_HUGE_SIZE) + HOST_HUGE_SIZE;
				stop = host_min(stop, next);
				if (!b)
					return -ENOMEM;
				watched &= vma_watch(mm, b, &v, a, stop) == 0;
			}
		} else {
			watched = vma_watch(mm, NULL, &v, at, next) == 0;
		}
		r = extent_note(mm, &v, at, next, watched);
		if (r)
			return r;
	}
	return 0;
}

void extents_forget(struct mm *mm, u64 start, u64 end)
{
	host_mutex_lock(&mm->extents_lock);
	if (extents_grow(mm, mm->n_extents + 2) == 0)
		extents_cut(mm, start, end);
	host_mutex_unlock(&mm->extents_lock);
}

/* The first noted part at or after *at that is not as noted any more. */
static bool next_changed(struct mm *mm, u64 *at, u64 end, struct userfault_vma *was,
			 struct userfault_vma *now)
{
	for (u32 i = extent_at(mm, *at); i < mm->n_extents; i = extent_at(mm, *at)) {
		*was = mm->extents[i].vma;
		if (was->start >= end)
			return false;
		*at = host_max(*at, was->start);
		if (mm->sys->vma(*at, now) || now->start >= was->end) {
			now->start = now->end = was->end; /* a hole to its end */
			return true;
		}
		if (now->start > *at || !same_mapping(was, now))
			return true;
		*at = host_min(now->end, was->end);
	}
	return false;
}

void extents_recheck(struct mm *mm, u64 start, u64 end)
{
	struct userfault_vma was, now;
	u64 at = start;

	if (!host_read_once(&mm->n_extents))
		return;
	host_mutex_lock(&mm->extents_lock);
	while (at < end && next_changed(mm, &at, end, &was, &now)) {
		bool hole = now.start > at;
		u64 last = host_min(hole ? now.start : now.end, was.end);

		if (extents_grow(mm, mm->n_extents + 2))
			break;
		extents_cut(mm, at, last);
		/* Protections alone keep what is on the device. */
		change_queue(mm, at, last,
			     hole || now.inode != was.inode ? MM_EVENT_UNMAP : MM_EVENT_PROTECT,
			     NULL);
		at = last;
	}
	host_mutex_unlock(&mm->extents_lock);
}

void extents_fini(struct mm *mm)
{
	host_free(mm->extents);
	host_mutex_destroy(&mm->extents_lock);
}
