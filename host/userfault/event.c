/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * event.c: what an event does to the state of pages.
 *
 * All of this runs on the reader, in the gate section in which the event was
 * read: no other section runs, and the thread that caused the event is only now
 * let go. Pages change state at once, so that nobody acts on what is no longer
 * true; notifiers hear of it from the applier. Pages that a transaction is
 * moving stay with it: it finds their new place, or that they are gone, in the
 * rmap of the frame or staging page that holds them.
 */
#include "host/userfault/home.h"

/* The frame in a page's entry: a compound block's is its head. */
static struct mm_page *entry_frame(struct mm *mm, const struct block *b, entry_t e)
{
	return frame_page(mm, entry_id(e), !b->pages);
}

static void staging_rmap_set(struct mm *mm, u32 id, rmap_t r)
{
	mm->staging.slots[id >> HOST_HUGE_ORDER].rmaps[id & (HOST_HUGE_PAGES - 1)] = r;
}

/* Where the holder of page i of b has its page from now on. */
static void holder_rmap_set(struct mm *mm, const struct block *b, unsigned i, rmap_t r)
{
	entry_t e = block_get(b, i);

	if (entry_kind(e) == ENTRY_OUT)
		staging_rmap_set(mm, entry_id(e), r);
	else if (entry_kind(e) != ENTRY_SYSTEM)
		host_write_once(&entry_frame(mm, b, e)->rmap, r);
}

static void expand_here(struct mm *mm, struct block *b)
{
	entry_t *array;
	u32 tries = 0;

	if (b->pages)
		return;
	/* Without it the event cannot be told apart from none: data would be lost. */
	while (!(array = host_alloc(HOST_HUGE_PAGES * sizeof(*array))))
		memory_wait(&tries);
	block_expand(mm, b, &array);
}

static void list_frame(struct frame_list **list, u32 id, bool head)
{
	struct frame_list *l = *list;
	u32 tries = 0;

	if (!l || l->n == host_array_size(l->frames)) {
		while (!(l = host_alloc(sizeof(*l))))
			memory_wait(&tries);
		l->next = *list;
		l->n = 0;
		*list = l;
	}
	l->frames[l->n++] = id << 1 | head;
}

/* Lets go of whatever holds page i (the whole block when it is not expanded);
 * frames that no transaction has are listed to be freed. */
static void page_detach(struct mm *mm, struct block *b, unsigned i, struct frame_list **list)
{
	entry_t e = b->pages ? b->pages[i] : b->uniform;

	switch (entry_kind(e)) {
	case ENTRY_SYSTEM:
		break;
	case ENTRY_DEVICE: {
		struct mm_page *page = entry_frame(mm, b, e);

		host_write_once(&page->rmap, RMAP_NONE);
		list_frame(list, entry_id(e), !b->pages);
		break;
	}
	case ENTRY_IN:
		host_write_once(&entry_frame(mm, b, e)->rmap, RMAP_NONE);
		break;
	case ENTRY_OUT:
		staging_rmap_set(mm, entry_id(e), RMAP_NONE);
		break;
	}
}

/* False: no page of it is, or was, anything but in system memory. */
static bool block_detach(struct mm *mm, struct block *b, unsigned first, unsigned last, u32 flags,
			 struct frame_list **list)
{
	bool whole = first == 0 && last == HOST_HUGE_PAGES;

	if (!b->pages && entry_kind(b->uniform) == ENTRY_SYSTEM && b->uniform == flags)
		return false;
	if (!whole)
		expand_here(mm, b);
	if (!b->pages && entry_kind(b->uniform) != ENTRY_OUT)
		page_detach(mm, b, 0, list);
	else
		for (unsigned i = first; i < last; i++) {
			if (!b->pages)
				staging_rmap_set(mm, entry_id(b->uniform) + i, RMAP_NONE);
			else
				page_detach(mm, b, i, list);
		}
	if (whole) {
		host_free(b->pages);
		b->pages = NULL;
		b->uniform = entry(ENTRY_SYSTEM, flags);
		return true;
	}
	for (unsigned i = first; i < last; i++)
		b->pages[i] = entry(ENTRY_SYSTEM, flags);
	return true;
}

/* The part of [start, end) in b, as page indices. */
static void clip(const struct block *b, u64 start, u64 end, unsigned *first, unsigned *last)
{
	u64 s = host_max(start, b->address), e = host_min(end, b->address + HOST_HUGE_SIZE);

	*first = (unsigned)((s - b->address) >> HOST_PAGE_SHIFT);
	*last = (unsigned)((e - b->address) >> HOST_PAGE_SHIFT);
}

/* The next block at or after address, below end. Skips empty tables. */
static struct block *block_next(struct mm *mm, u64 address, u64 end)
{
	while (address < end) {
		u64 n = address / HOST_HUGE_SIZE;
		struct block *b;

		if (n >> BLOCK_L2_BITS >= BLOCK_L1_SIZE)
			return NULL;
		b = block_find(mm, address);
		if (b)
			return b;
		if (!mm->l1[n >> BLOCK_L2_BITS])
			address = ((n >> BLOCK_L2_BITS) + 1) * BLOCK_L2_SIZE * HOST_HUGE_SIZE;
		else
			address = (n + 1) * HOST_HUGE_SIZE;
	}
	return NULL;
}

static void event_drop(struct mm *mm, u64 start, u64 end, enum mm_event event, u32 flags)
{
	struct frame_list *list = NULL;
	bool any = false;

	for (struct block *b = block_next(mm, start, end); b;
	     b = block_next(mm, b->address + HOST_HUGE_SIZE, end)) {
		unsigned first, last;

		clip(b, start, end, &first, &last);
		any |= block_detach(mm, b, first, last, flags, &list);
		if (event == MM_EVENT_UNMAP)
			host_write_once(&b->registered, 0);
	}
	if (event == MM_EVENT_UNMAP)
		extents_forget(mm, start, end);
	change_queue(mm, start, end, event, list);
	/* Faults that were left to a transaction: it does not find these pages any more. */
	if (any)
		(void)uffd_wake(mm, start, end - start);
}

/* It is there when the event is over. */
static struct block *block_needed(struct mm *mm, u64 address)
{
	struct block *b;
	u32 tries = 0;

	while (!(b = block_make(mm, address)))
		memory_wait(&tries);
	return b;
}

/* Mappings are registered as a whole, and what no device has used and nobody touched since
 * has no block. One that is made later would not know that the page still there is on its
 * way out; so it is made now. */
static void blocks_needed(struct mm *mm, u64 start, u64 end)
{
	struct page_region first;

	for (u64 at = start; at < end; at = host_align_down(at, HOST_HUGE_SIZE) + HOST_HUGE_SIZE) {
		int found;

		if (block_find(mm, at))
			continue;
		found = mm->sys->scan(at, end, PAGE_IS_PRESENT | PAGE_IS_SWAPPED, &first, 1);
		if (found == 0 || host_load_acquire(&mm->n_blocks) == BLOCK_NUMBERS)
			return; /* nothing there; or nothing new can leave at all */
		if (found > 0)
			at = first.start;
		(void)block_needed(mm, at);
	}
}

/* MADV_DONTNEED comes before the pages go. Our own (without MOVE) says nothing
 * new. */
static void event_remove(struct mm *mm, u64 start, u64 end)
{
	struct block *b = block_find(mm, start);

	if (staging_contains(mm, start) || regions_contain(mm, start))
		return;
	if (b && block_own_remove(b, start, end))
		return;
	blocks_needed(mm, start, end);
	event_drop(mm, start, end, MM_EVENT_CLEAR, ENTRY_MARKED);
}

static void page_remap(struct mm *mm, u64 from, u64 to)
{
	struct block *a = block_find(mm, from), *b;
	unsigned i = page_in_block(from), j = page_in_block(to);
	entry_t e;

	if (!a || block_get(a, i) == entry(ENTRY_SYSTEM, 0))
		return;
	b = block_needed(mm, to);
	expand_here(mm, a);
	expand_here(mm, b);
	e = a->pages[i];
	holder_rmap_set(mm, a, i, rmap(b, j));
	b->pages[j] = e;
	a->pages[i] = entry(ENTRY_SYSTEM, 0);
}

static void block_remap(struct mm *mm, struct block *a, u64 to)
{
	struct block *b = block_needed(mm, to);

	host_free(b->pages);
	b->pages = a->pages;
	b->uniform = a->uniform;
	a->pages = NULL;
	a->uniform = entry(ENTRY_SYSTEM, 0);
	if (!b->pages && entry_kind(b->uniform) != ENTRY_OUT)
		holder_rmap_set(mm, b, 0, rmap(b, 0));
	else
		for (unsigned i = 0; i < HOST_HUGE_PAGES; i++)
			holder_rmap_set(mm, b, i, rmap(b, i));
	b->small_backed = a->small_backed;
}

/* ---- Events in another order than the changes ------------------------------------
 * The kernel queues an event after it has let go of the lock that the change was made
 * under. So a mapping may have moved to a place whose unmapping is told later than the
 * move. As long as an event may be on its way (none can be placed, events_unread) since a
 * move was read, an unmapping is believed only of what this home has not registered: what
 * is new there is not, since vma_watch registers nothing meanwhile. Where a change began
 * while it registered, nobody knows (mm->doubt), and the unmapping is believed.
 */

/* The kernel says to another that it is taken, not by whom. */
static bool is_registered(struct mm *mm, u64 start, u64 end)
{
	u64 length = end - start;

	if (uffd_register(mm, mm->probe_fd, start, length, UFFDIO_REGISTER_MODE_MISSING) !=
	    -EBUSY) {
		uffd_unregister(mm, mm->probe_fd, start, length);
		return false;
	}
	return mm->watch_fd < 0 ||
	       uffd_register(mm, mm->watch_fd, start, length, UFFDIO_REGISTER_MODE_WP) == -EBUSY;
}

static bool in_doubt(struct mm *mm, u64 start, u64 end)
{
	bool doubt;

	host_mutex_lock(&mm->whole.lock);
	doubt = start < mm->whole.doubt_end && end > mm->whole.doubt_start;
	host_mutex_unlock(&mm->whole.lock);
	return doubt;
}

/* Nothing that happened before is still to be told. The gate held for writing. */
static void all_told(struct mm *mm)
{
	host_write_once(&mm->moved_here, false);
	host_mutex_lock(&mm->whole.lock);
	mm->whole.doubt_start = mm->whole.doubt_end = 0;
	host_mutex_unlock(&mm->whole.lock);
}

void events_settle(struct mm *mm)
{
	if (host_read_once(&mm->moved_here) && !events_unread(mm))
		all_told(mm);
}

static void event_unmap(struct mm *mm, u64 start, u64 end)
{
	struct userfault_vma v;

	for (u64 at = start, stop; at < end; at = stop) {
		stop = end;
		if (mm->moved_here && mm->sys->vma(at, &v) == 0 && v.start < end) {
			stop = v.start > at ? v.start : host_min(end, v.end);
			if (v.start <= at && !in_doubt(mm, at, stop) &&
			    is_registered(mm, at, stop)) {
				/* Devices may have mapped what was here before. */
				change_queue(mm, at, stop, MM_EVENT_CLEAR, NULL);
				continue;
			}
		}
		event_drop(mm, at, stop, MM_EVENT_UNMAP, 0);
	}
}

static bool any_held(struct mm *mm, u64 start, u64 end)
{
	for (struct block *b = block_next(mm, start, end); b;
	     b = block_next(mm, b->address + HOST_HUGE_SIZE, end))
		if (b->pages || b->uniform != entry(ENTRY_SYSTEM, 0))
			return true;
	return false;
}

/* What was at the new place is gone, told or not. */
static void make_room(struct mm *mm, u64 start, u64 end)
{
	if (any_held(mm, start, end))
		event_drop(mm, start, end, MM_EVENT_UNMAP, 0);
	for (struct block *b = block_next(mm, start, end); b;
	     b = block_next(mm, b->address + HOST_HUGE_SIZE, end))
		host_write_once(&b->registered, 0);
	host_write_once(&mm->moved_here, true);
}

static void event_remap(struct mm *mm, u64 from, u64 to, u64 length)
{
	u64 end = from + length;

	make_room(mm, to, to + length);
	for (struct block *a = block_next(mm, from, end); a;
	     a = block_next(mm, a->address + HOST_HUGE_SIZE, end)) {
		unsigned first, last;

		host_write_once(&a->registered, 0);
		clip(a, from, end, &first, &last);
		if (first == 0 && last == HOST_HUGE_PAGES &&
		    host_is_aligned(to - from, HOST_HUGE_SIZE)) {
			block_remap(mm, a, a->address - from + to);
			continue;
		}
		for (unsigned i = first; i < last; i++) {
			u64 address = a->address + (u64)i * HOST_PAGE_SIZE;

			page_remap(mm, address, address - from + to);
		}
		block_collapse(a);
	}
	registered_moved(mm, from, to, length);
	extents_forget(mm, from, end);
	change_queue_remap(mm, from, end, to);
	/* Whoever faulted at the new place before we knew of it, or at the old one while
	 * the pages were moving, tries again. */
	(void)uffd_wake(mm, from, length);
	(void)uffd_wake(mm, to, length);
}

void event_apply(struct mm *mm, const struct uffd_msg *msg)
{
	switch (msg->event) {
	case UFFD_EVENT_FORK:
		fork_copy_to_child(mm, (int)msg->arg.fork.ufd);
		break;
	case UFFD_EVENT_REMAP:
		event_remap(mm, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len);
		break;
	case UFFD_EVENT_REMOVE:
		event_remove(mm, msg->arg.remove.start, msg->arg.remove.end);
		break;
	case UFFD_EVENT_UNMAP:
		if (!staging_contains(mm, msg->arg.remove.start))
			event_unmap(mm, msg->arg.remove.start, msg->arg.remove.end);
		break;
	}
}
