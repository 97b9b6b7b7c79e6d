/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fault.c: serving a CPU fault.
 *
 * A page in system memory that is merely missing is filled in a section of its
 * block: nothing is waited for, so that the reader can do it at any time. A
 * page that is moving is left to the transaction, which wakes whoever waits. A
 * page on a device is brought home by its region's owner; that may wait for
 * devices to let go.
 *
 * A fault whose service answers EAGAIN is put aside: the leader goes on reading, and
 * wakes the thread when no event is in the way any more. Woken at once it might fault
 * again before the next read; and since faults are read before events, a few such threads
 * would keep an event from being read for ever.
 */
#include "host/userfault/home.h"

#define FILL_SHIFT_MAX 4u /* 64K */
#define FILL_MAX (HOST_PAGE_SIZE << FILL_SHIFT_MAX)

static const char zeros[FILL_MAX] __attribute__((aligned(4096)));

/* How wide a fill at address is: memory that is touched in order is filled ever wider, up to
 * 64K, and what is touched here and there by single pages. Another block's stream is a hint,
 * read without its section. */
static unsigned fill_shift(struct mm *mm, const struct block *b, u64 address)
{
	unsigned page = page_in_block(address);
	const struct block *before;

	if (page == 0) {
		before = block_find(mm, address - HOST_HUGE_SIZE);
		if (before && host_read_once(&before->fill_next) == HOST_HUGE_PAGES)
			return host_read_once(&before->fill_shift);
	} else if (page == b->fill_next) {
		return host_min(b->fill_shift + 1u, FILL_SHIFT_MAX);
	}
	return 0;
}

/* How far from address on, up to the end of its block, pages are alike in system memory. */
static u64 fill_length(const struct block *b, u64 address, unsigned shift)
{
	u64 end = host_min(address + (HOST_PAGE_SIZE << shift), b->address + HOST_HUGE_SIZE);
	u64 at = address;

	while (at < end && entry_kind(block_get(b, page_in_block(at))) == ENTRY_SYSTEM)
		at += HOST_PAGE_SIZE;
	return at - address;
}

static void note_fill(struct block *b, u64 address, u64 done, unsigned shift)
{
	host_write_once(&b->fill_next, (u16)(page_in_block(address) + (done >> HOST_PAGE_SHIFT)));
	host_write_once(&b->fill_shift, (u8)shift);
}

static void unmark(struct mm *mm, struct block *b, u64 address, u64 length)
{
	(void)mm;
	if (!b->pages && b->uniform == entry(ENTRY_SYSTEM, 0))
		return;
	if (!b->pages) {
		entry_t *array = host_alloc(HOST_HUGE_PAGES * sizeof(*array));

		if (!array)
			return; /* stays marked: it does not leave, which is safe */
		block_expand(mm, b, &array);
	}
	for (u64 at = address; at < address + length; at += HOST_PAGE_SIZE)
		block_set(b, page_in_block(at), entry(ENTRY_SYSTEM, 0));
}

static int fill_with(struct mm *mm, u64 address, u64 length, bool write, u64 *done)
{
	if (write)
		return uffd_copy(mm, address, zeros, length, done);
	return uffd_zero(mm, address, length, done);
}

#define STALLED_SPINS 64u /* looks before the leader sleeps in between */

/* The leader's. One interval for all: who waits in it for something else, and is woken
 * with them, looks again. */
static void stall(struct mm *mm, u64 address)
{
	bool none = mm->stalled_start == mm->stalled_end;

	mm->stalled_start = none ? address : host_min(mm->stalled_start, address);
	mm->stalled_end = host_max(none ? 0 : mm->stalled_end, address + HOST_PAGE_SIZE);
}

int fault_stalled_due(struct mm *mm, int otherwise)
{
	int wait;

	if (mm->stalled_start == mm->stalled_end)
		return otherwise;
	if (!events_unread(mm)) {
		(void)uffd_wake(mm, mm->stalled_start, mm->stalled_end - mm->stalled_start);
		mm->stalled_start = mm->stalled_end = 0;
		mm->stalled_turns = 0;
		return otherwise;
	}
	/* It is to be read, or was, and its caller has not run yet. */
	wait = mm->stalled_turns++ < STALLED_SPINS ? 0 : 1;
	return otherwise < 0 ? wait : host_min(otherwise, wait);
}

/* A fill that did nothing: is it worth another fault, and when? */
static void fill_failed(struct mm *mm, u64 address, int r)
{
	if (r == -EAGAIN)
		stall(mm, address);
	else
		(void)uffd_wake(mm, address, HOST_PAGE_SIZE);
}

static void fill(struct mm *mm, struct block *b, u64 address, bool write)
{
	unsigned shift = fill_shift(mm, b, address);
	u64 length = fill_length(b, address, shift), done;
	int r = fill_with(mm, address, length, write, &done);

	count(mm, zero_fills);
	/* The mapping, or what of it is registered, may end before: then nothing at all
	 * was done. */
	if (r && !done && r != -EAGAIN && length > HOST_PAGE_SIZE) {
		shift = 0;
		r = fill_with(mm, address, HOST_PAGE_SIZE, write, &done);
	}
	if (done) {
		unmark(mm, b, address, done);
		note_fill(b, address, done, shift);
	}
	if (r && !done)
		fill_failed(mm, address, r);
}

/* The page's frame, if it has one, held. Section of b. */
static bool hold_frame(struct mm *mm, const struct block *b, u64 address,
		       struct mm_cpu_fault *fault)
{
	entry_t e = block_get(b, page_in_block(address));
	bool head = block_compound(mm, b);

	if (entry_kind(e) != ENTRY_DEVICE)
		return false;
	fault->mm = mm;
	fault->address = address;
	fault->page = frame_page(mm, entry_id(head ? b->uniform : e), head);
	fault->data = mm_page_data(fault->page);
	mm_page_region(fault->page)->ops->hold(fault->data);
	return true;
}

bool fault_look(struct mm *mm, u64 address, struct mm_cpu_fault *fault)
{
	struct block *b = block_find(mm, address);
	bool held;

	section_enter(mm, b);
	held = hold_frame(mm, b, address, fault);
	section_leave(mm, b);
	return held;
}

void fault_drop(const struct mm_cpu_fault *fault)
{
	mm_page_region(fault->page)->ops->drop(fault->data);
}

/* A hole in a page that is about to leave, and whose devices have not let go yet: one
 * of them may be what faults. Or, without MOVE, one that an application's MADV_DONTNEED
 * has emptied while it is copied. */
static void fill_leaving(struct mm *mm, entry_t e, u64 address, bool write)
{
	struct slot *slot = &mm->staging.slots[entry_id(e) >> HOST_HUGE_ORDER];
	u64 done;
	int r;

	if (!bit(slot->leaving, entry_id(e) & (HOST_HUGE_PAGES - 1))) {
		host_write_once(&slot->waited, 1); /* the end wakes */
		return;
	}
	if (slot->copying) /* an engine reads it, and no write may get between */
		r = uffd_copy_protected(mm, address, zeros, HOST_PAGE_SIZE, &done);
	else
		r = fill_with(mm, address, HOST_PAGE_SIZE, write, &done);
	if (r)
		fill_failed(mm, address, r);
}

static void unprotect(struct mm *mm, u64 address)
{
	int r = uffd_protect(mm, address, HOST_PAGE_SIZE, false); /* wakes */

	if (r)
		fill_failed(mm, address, r);
}

/* Pages are protected only while they leave without MOVE, and the end of that wakes. A
 * fault may be read after it: of a page that stayed and whose protection was still to go,
 * of one that left between the access and the fault, of one that mremap took along. */
void fault_serve_protected(struct mm *mm, u64 address)
{
	struct block *b = block_find(mm, address);
	enum entry_kind kind;

	if (!b) {
		unprotect(mm, address);
		return;
	}
	section_enter(mm, b);
	kind = entry_kind(block_get(b, page_in_block(address)));
	if (kind == ENTRY_SYSTEM)
		unprotect(mm, address);
	else if (kind != ENTRY_OUT)
		(void)uffd_wake(mm, address, HOST_PAGE_SIZE);
	section_leave(mm, b);
}

bool fault_serve_system(struct mm *mm, u64 address, bool write, struct mm_cpu_fault *fault)
{
	struct block *b = block_make(mm, address);
	entry_t e;
	bool held;

	if (!b) {
		int r = uffd_zero(mm, address, HOST_PAGE_SIZE, NULL);

		if (r)
			fill_failed(mm, address, r);
		return true;
	}
	section_enter(mm, b);
	held = hold_frame(mm, b, address, fault);
	e = block_get(b, page_in_block(address));
	if (entry_kind(e) == ENTRY_SYSTEM)
		fill(mm, b, address, write);
	else if (entry_kind(e) == ENTRY_OUT)
		fill_leaving(mm, e, address, write);
	section_leave(mm, b);
	return !held;
}

/* Later, on the leader's clock. */
static void repeat_after(struct mm *mm, u64 address, u64 ns)
{
	host_mutex_lock(&mm->leader_lock);
	if (mm->n_delayed < host_array_size(mm->delayed)) {
		mm->delayed[mm->n_delayed].due = host_now() + ns;
		mm->delayed[mm->n_delayed].address = address;
		mm->n_delayed++;
		host_mutex_unlock(&mm->leader_lock);
		/* The leader may be asleep with an older time-out. */
		reader_kick(mm);
		return;
	}
	host_mutex_unlock(&mm->leader_lock);
	host_sleep(ns);
	(void)uffd_wake(mm, address, HOST_PAGE_SIZE);
}

int fault_repeat_due(struct mm *mm)
{
	u64 now, next = HOST_FOREVER;

	if (!host_read_once(&mm->n_delayed))
		return -1;
	now = host_now();
	host_mutex_lock(&mm->leader_lock);
	for (u32 i = 0; i < mm->n_delayed;) {
		u64 due = mm->delayed[i].due, address = mm->delayed[i].address;

		if (due <= now) {
			mm->delayed[i] = mm->delayed[--mm->n_delayed];
			(void)uffd_wake(mm, address, HOST_PAGE_SIZE);
			continue;
		}
		next = host_min(next, due);
		i++;
	}
	host_mutex_unlock(&mm->leader_lock);
	return next == HOST_FOREVER ? -1 : (int)((next - now + HOST_MSEC - 1) / HOST_MSEC);
}

/* Not to be had: SIGBUS, never zeros. */
static void lose(struct mm *mm, struct block *b, u64 address)
{
	host_warn("a page could not be brought home from its device", __FILE__, __LINE__);
	section_enter(mm, b);
	if (entry_kind(block_get(b, page_in_block(address))) == ENTRY_DEVICE &&
	    uffd_poison(mm, address, HOST_PAGE_SIZE) == 0) {
		section_leave(mm, b);
		return;
	}
	section_leave(mm, b);
	repeat_after(mm, address, 100 * HOST_MSEC);
}

static bool still_on_device(struct mm *mm, struct block *b, u64 address)
{
	bool still;

	section_enter(mm, b);
	still = entry_kind(block_get(b, page_in_block(address))) == ENTRY_DEVICE;
	section_leave(mm, b);
	return still;
}

s64 fault_ask_home(struct mm_cpu_fault *fault)
{
	s64 r = mm_page_region(fault->page)->ops->migrate_to_ram(fault);

	fault_drop(fault);
	return r;
}

void fault_serve_device(struct mm *mm, struct mm_cpu_fault *fault, u64 events)
{
	u64 address = fault->address;
	struct block *b = block_find(mm, address);
	s64 r = fault_ask_home(fault);

	count(mm, cpu_faults);
	/* Coming home wakes those who wait for it, and so does the end of a move that
	 * has it now; an event may have taken it away instead. One that could not be
	 * taken just now is not asked for again at once. */
	if (r == 0 && still_on_device(mm, b, address))
		repeat_after(mm, address, HOST_MSEC / 4);
	else if (r == 0 && host_load_acquire(&mm->events) != events)
		(void)uffd_wake(mm, address, HOST_PAGE_SIZE);
	else if (r > 0)
		repeat_after(mm, address, (u64)r);
	else if (r == -EBUSY || r == -EAGAIN || r == -ENOMEM)
		repeat_after(mm, address, r == -ENOMEM ? 10 * HOST_MSEC : HOST_MSEC);
	else if (r < 0)
		lose(mm, b, address);
}
