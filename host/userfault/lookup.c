/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * lookup.c: where pages are: for devices that want to map them, and for whoever
 * asks.
 *
 * System memory has no frames here: a device reaches it at the process's own
 * address, and what is not populated is filled by whoever touches it first, CPU
 * or engine alike. So a lookup of system memory is a lookup of its mapping and
 * of the pages' states, and never populates anything.
 */
#include "host/userfault/home.h"

static void fill_run(mm_pfn_t *pfns, mm_pfn_t base, u64 step, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		pfns[k] = base + k * step;
}

/* The largest aligned order such that a run of n pages at address can be told as
 * runs of it. */
static unsigned run_order(u64 address, unsigned n)
{
	unsigned order = HOST_HUGE_ORDER;

	while (order && (!host_is_aligned(address, HOST_PAGE_SIZE << order) || n < 1u << order))
		order--;
	return order;
}

/* runs: MM_FAULT_RUNS. */
static void tell_system(mm_pfn_t *pfns, u64 address, unsigned n, bool write, bool runs)
{
	mm_pfn_t flags = MM_PFN_VALID | (write ? MM_PFN_WRITE : 0);

	while (n) {
		unsigned order = run_order(address, n), k = 1u << order;

		fill_run(pfns, flags | (mm_pfn_t)order << MM_PFN_ORDER_SHIFT | address,
			 HOST_PAGE_SIZE, runs ? 1 : k);
		pfns += k;
		address += (u64)k * HOST_PAGE_SIZE;
		n -= k;
	}
}

struct lookup {
	struct mm_range_fault *rf;
	struct userfault_vma vma;
	u64 home;	/* a device page that has to come home first, or 0 */
	bool exclusive; /* system memory is to be the asker's alone */
	bool take;	/* some is not yet */
};

static mm_pfn_t device_pfn(struct mm_page *page, unsigned order, bool write)
{
	return MM_PFN_VALID | MM_PFN_DEVICE | (write ? MM_PFN_WRITE : 0) |
	       (mm_pfn_t)order << MM_PFN_ORDER_SHIFT | (mm_pfn_t)(uintptr_t)page;
}

/* From one page's entry to the next one's, of frames side by side; 0: it tells no frame. */
static u64 pfn_step(mm_pfn_t pfn)
{
	if (pfn & MM_PFN_DEVICE)
		return sizeof(struct mm_page);
	return pfn & MM_PFN_EXCLUSIVE ? HOST_PAGE_SIZE : 0;
}

/* Where it is in its memory, in pages. */
static u64 pfn_index(mm_pfn_t pfn)
{
	if (pfn & MM_PFN_DEVICE)
		return mm_page_index((struct mm_page *)(uintptr_t)MM_PFN_PAYLOAD(pfn));
	return MM_PFN_PAYLOAD(pfn) >> HOST_PAGE_SHIFT;
}

/* Runs of frames side by side, as the device's memory sees them. */
static void tell_orders(struct mm_range_fault *rf, u64 start, u64 end)
{
	u64 at = start;

	while (at < end) {
		mm_pfn_t *p = &rf->pfns[(at - rf->start) >> HOST_PAGE_SHIFT];
		unsigned n = 1, max = (unsigned)((end - at) >> HOST_PAGE_SHIFT), order;

		if (!pfn_step(p[0]) || MM_PFN_ORDER(p[0])) {
			at += HOST_PAGE_SIZE;
			continue;
		}
		while (n < max && p[n] == p[0] + n * pfn_step(p[0]))
			n++;
		for (unsigned i = 0; i < n; i += 1u << order) {
			u64 index = pfn_index(p[i]);

			order = run_order(at + i * HOST_PAGE_SIZE, n - i);
			while (order && !host_is_aligned(index, 1u << order))
				order--;
			for (unsigned k = 0; order && k < 1u << order; k++)
				p[i + k] |= (mm_pfn_t)order << MM_PFN_ORDER_SHIFT;
		}
		at += (u64)n * HOST_PAGE_SIZE;
	}
}

static bool kept(const struct mm_range_fault *rf, struct mm_page *page)
{
	return rf->keep && rf->keep(rf->keep_arg, page);
}

/* The entry of page i of a frame, which is mapped at address; 0: it has to come home. */
static mm_pfn_t frame_pfn(struct mm *mm, struct lookup *l, struct mm_page *page, unsigned i,
			  u64 address)
{
	struct mm_range_fault *rf = l->rf;
	mm_pfn_t pfn = 0;

	if (exclusive_frame(mm, page)) {
		if (rf->owner)
			pfn = exclusive_pfn(mm, page, i, rf->owner);
		if (!l->vma.write)
			pfn &= ~MM_PFN_WRITE;
	} else if (kept(rf, page)) {
		pfn = device_pfn(page, 0, l->vma.write);
	}
	if (!pfn)
		l->home = address;
	return pfn;
}

/* A compound frame of which [start, end) is asked for, from its page i on. In a section. */
static int look_compound(struct mm *mm, struct lookup *l, struct mm_page *head, unsigned i,
			 u64 start, unsigned n)
{
	struct mm_range_fault *rf = l->rf;
	mm_pfn_t *pfns = &rf->pfns[(start - rf->start) >> HOST_PAGE_SHIFT];
	bool one = n == HOST_HUGE_PAGES && rf->flags & MM_FAULT_RUNS;

	fill_run(pfns, 0, 0, one ? 1 : n);
	if (exclusive_frame(mm, head)) {
		for (unsigned k = 0; k < n; k++)
			pfns[k] = frame_pfn(mm, l, head, i + k, start + k * HOST_PAGE_SIZE);
		return 1;
	}
	if (!frame_pfn(mm, l, head, 0, start))
		return 0;
	/* Each entry has its own page: the frames in the whole one. */
	if (!one)
		fill_run(pfns,
			 device_pfn(&mm_page_region(head)->pages[mm_page_index(head) + i],
				    n == HOST_HUGE_PAGES ? HOST_HUGE_ORDER : 0, l->vma.write),
			 sizeof(*head), n);
	if (n < HOST_HUGE_PAGES)
		return 1;
	pfns[0] = device_pfn(head, HOST_HUGE_ORDER, l->vma.write);
	return 0;
}

/* [start, end) of one block and one mapping. In a section. */
static int look_block(struct mm *mm, struct lookup *l, struct block *b, u64 start, u64 end)
{
	struct mm_range_fault *rf = l->rf;
	mm_pfn_t *pfns = &rf->pfns[(start - rf->start) >> HOST_PAGE_SHIFT];
	unsigned i = page_in_block(start), n = (unsigned)((end - start) >> HOST_PAGE_SHIFT);
	bool any = false;

	if (!b->pages) {
		switch (entry_kind(b->uniform)) {
		case ENTRY_SYSTEM:
			l->take |= l->exclusive;
			tell_system(pfns, start, n, l->vma.write, rf->flags & MM_FAULT_RUNS);
			return 0;
		case ENTRY_DEVICE:
			return look_compound(mm, l, frame_page(mm, entry_id(b->uniform), true), i,
					     start, n);
		default:
			return -EBUSY;
		}
	}
	for (unsigned k = 0; k < n; k++) {
		entry_t e = b->pages[i + k];

		switch (entry_kind(e)) {
		case ENTRY_SYSTEM: {
			unsigned run = 1;

			l->take |= l->exclusive;
			while (k + run < n && entry_kind(b->pages[i + k + run]) == ENTRY_SYSTEM)
				run++;
			tell_system(pfns + k, start + k * HOST_PAGE_SIZE, run, l->vma.write, false);
			k += run - 1;
			break;
		}
		case ENTRY_DEVICE:
			pfns[k] = frame_pfn(mm, l, frame_page(mm, entry_id(e), false), 0,
					    start + k * HOST_PAGE_SIZE);
			any = true;
			break;
		default:
			return -EBUSY;
		}
	}
	return any;
}

/* Waits, bounded, for a page that is moving. */
static void wait_while_moving(struct mm *mm, struct block *b, u64 start, u64 end)
{
	u64 deadline = host_now() + 100 * HOST_MSEC;
	bool moving = true;

	while (moving && host_now() < deadline) {
		section_enter(mm, b);
		moving = false;
		for (u64 at = start; at < end && !moving; at += HOST_PAGE_SIZE)
			moving = entry_kind(block_get(b, page_in_block(at))) >= ENTRY_OUT;
		section_leave(mm, b);
		if (moving)
			(void)host_wait_until(block_waitq(mm, b), false,
					      host_min(deadline, host_now() + HOST_MSEC / 4));
	}
}

/* One mapping's part of the question. 1: a page had to come home; look again. */
static int look_vma(struct mm *mm, struct lookup *l, u64 start, u64 end)
{
	struct mm_range_fault *rf = l->rf;
	bool migratable = vma_migratable(mm, &l->vma);
	bool watched = true;

	if (l->exclusive && !migratable)
		return -EOPNOTSUPP;
	for (u64 at = start, next; at < end; at = next) {
		struct block *b = migratable ? block_make(mm, at) : block_find(mm, at);
		int r = 0;

		next = host_min(end, host_align_down(at, HOST_HUGE_SIZE) + HOST_HUGE_SIZE);
		if (migratable && !b)
			return -ENOMEM;
		if (migratable)
			watched = vma_watch(mm, b, &l->vma, at, next) == 0;
		if (!b) {
			tell_system(&rf->pfns[(at - rf->start) >> HOST_PAGE_SHIFT], at,
				    (unsigned)((next - at) >> HOST_PAGE_SHIFT), l->vma.write,
				    rf->flags & MM_FAULT_RUNS);
			continue;
		}
		section_enter(mm, b);
		r = look_block(mm, l, b, at, next);
		section_leave(mm, b);
		if (r == -EBUSY) {
			if (rf->flags & MM_FAULT_IN)
				wait_while_moving(mm, b, at, next);
			return -EBUSY;
		}
		if (r == 1)
			tell_orders(rf, at, next);
	}
	if (!migratable)
		watched = vma_watch(mm, NULL, &l->vma, start, end) == 0;
	return extent_note(mm, &l->vma, start, end, watched);
}

/* Brings one page home, as a CPU's access would. */
static int bring_home(struct mm *mm, u64 address)
{
	struct mm_cpu_fault fault;
	s64 r;

	if (!fault_look(mm, address, &fault))
		return 0;
	r = fault_ask_home(&fault);
	if (r > 0)
		host_sleep((u64)r);
	return r < 0 && r != -EBUSY ? (int)r : 0;
}

static int look(struct mm *mm, struct lookup *l)
{
	struct mm_range_fault *rf = l->rf;
	bool in = rf->flags & MM_FAULT_IN;
	u64 at = rf->start;

	l->home = 0;
	l->take = false;
	while (at < rf->end) {
		u64 end;
		int r;

		/* Other protections since are told by the next mm_sync, as if they were
		 * changed after this look. */
		r = extent_seen(mm, at, &l->vma) ? 0 : mm->sys->vma(at, &l->vma);
		if (r || l->vma.start > at) {
			end = r ? rf->end : host_min(rf->end, l->vma.start);
			if (in)
				return -EFAULT;
			fill_run(&rf->pfns[(at - rf->start) >> HOST_PAGE_SHIFT], 0, 0,
				 (unsigned)((end - at) >> HOST_PAGE_SHIFT));
			at = end;
			continue;
		}
		if (in && !l->vma.read)
			return -EFAULT;
		if (in && rf->flags & MM_FAULT_WRITE && !l->vma.write)
			return -EPERM;
		end = host_min(rf->end, l->vma.end);
		r = look_vma(mm, l, at, end);
		if (r)
			return r;
		at = end;
	}
	return 0;
}

int mm_range_fault(struct mm_range_fault *rf)
{
	return lookup_range(rf, false);
}

int lookup_range(struct mm_range_fault *rf, bool take)
{
	struct mm *mm = rf->mm;
	struct lookup l = {.rf = rf, .exclusive = take};
	u64 events;
	int r;

	if (rf->start >= rf->end || !host_is_aligned(rf->start | rf->end, HOST_PAGE_SIZE))
		return -EINVAL;
	for (unsigned tries = 0; tries < 1024; tries++) {
		if (host_read_once(&mm->dying))
			return -EFAULT;
		if (mm_notifier_read_retry(rf->notifier, rf->seq))
			return -EBUSY;
		events = host_load_acquire(&mm->events);
		r = look(mm, &l);
		/* Memory may have been mapped anew behind our registration. */
		if (!r && events != events_now(mm))
			return -EBUSY;
		if (r || !(rf->flags & MM_FAULT_IN))
			return r;
		if (!l.home)
			return l.take;
		/* What comes home tells the notifiers, so that this sequence is over:
		 * finish all of it before saying so. */
		r = bring_home(mm, l.home);
		if (r)
			return r;
		rf->seq = mm_notifier_read_begin(rf->notifier);
	}
	return -EBUSY;
}

struct mm_page *mm_pfn_page(struct mm *mm, mm_pfn_t pfn)
{
	(void)mm;
	return (struct mm_page *)(uintptr_t)MM_PFN_PAYLOAD(pfn);
}

mm_dma_t mm_dma_map(struct mm *mm, void *dev, mm_pfn_t pfn, unsigned order, bool write)
{
	(void)mm;
	(void)dev;
	(void)order;
	(void)write;
	return MM_PFN_PAYLOAD(pfn);
}

void mm_dma_unmap(struct mm *mm, void *dev, mm_dma_t addr, unsigned order, bool write)
{
	/* A software device is behind no IOMMU. */
	(void)mm;
	(void)dev;
	(void)addr;
	(void)order;
	(void)write;
}

/* ---- States, for residency --------------------------------------------------- */

#define STATE_REGIONS 32u

static void tell_populated(u64 at, u64 start, u64 end, const struct page_region *r,
			   struct mm_page_state *ret)
{
	for (u64 a = host_max(start, r->start); a < host_min(end, r->end); a += HOST_PAGE_SIZE) {
		struct mm_page_state *state = &ret[(a - at) >> HOST_PAGE_SHIFT];

		state->flags |= MM_STATE_POPULATED;
		if (r->categories & PAGE_IS_PFNZERO)
			state->flags |= MM_STATE_ZERO;
		if (r->categories & PAGE_IS_HUGE)
			state->order = HOST_HUGE_ORDER;
	}
}

/* What the kernel says of [start, end); ret begins at `at`. */
static void states_of_system(struct mm *mm, u64 at, u64 start, u64 end, struct mm_page_state *ret)
{
	struct page_region regions[STATE_REGIONS];
	int n;

	do {
		n = mm->sys->scan(start, end, PAGE_IS_PRESENT | PAGE_IS_SWAPPED, regions,
				  STATE_REGIONS);
		for (int k = 0; k < n; k++)
			tell_populated(at, start, end, &regions[k], ret);
		if (n > 0)
			start = regions[n - 1].end;
	} while (n == (int)STATE_REGIONS && start < end);
}

/* Context: in a section, or the frame's region may go. */
static const void *frame_owner(struct mm *mm, u32 id)
{
	return mm_region_priv(mm_page_region(frame_page(mm, id, false)));
}

/* What the kernel has of [start, end), within one block, and what our own tables have. In
 * one section: a page that goes from one to the other meanwhile would be in neither. */
static void states_of_block(struct mm *mm, struct block *b, u64 start, u64 end,
			    struct mm_page_state *ret)
{
	bool head;

	section_enter(mm, b);
	states_of_system(mm, start, start, end, ret);
	head = block_compound(mm, b);
	for (u64 at = start; at < end; at += HOST_PAGE_SIZE, ret++) {
		entry_t e = head ? b->uniform : block_get(b, page_in_block(at));

		if (entry_kind(e) == ENTRY_SYSTEM)
			continue;
		/* Whatever the kernel has seen there is on its way. */
		ret->flags = (ret->flags & ~(u32)MM_STATE_ZERO) | MM_STATE_POPULATED;
		ret->order = head ? HOST_HUGE_ORDER : 0;
		if (entry_kind(e) == ENTRY_OUT)
			continue;
		ret->page = frame_page(mm, entry_id(e), head);
		ret->owner = frame_owner(mm, entry_id(e));
		if (exclusive_frame(mm, ret->page)) {
			ret->page = NULL;
			ret->flags |= MM_STATE_EXCLUSIVE;
		}
	}
	section_leave(mm, b);
}

void mm_page_states(struct mm *mm, u64 start, u64 end, struct mm_page_state *ret)
{
	struct userfault_vma v;

	host_memset(ret, 0, ((end - start) >> HOST_PAGE_SHIFT) * sizeof(*ret));
	for (u64 at = start, next; at < end; at = next) {
		struct mm_page_state *here;
		struct block *b;

		if (mm->sys->vma(at, &v) || v.start >= end)
			return;
		at = host_max(at, v.start);
		next = host_align_down(at, HOST_HUGE_SIZE) + HOST_HUGE_SIZE;
		next = host_min(next, host_min(v.end, end));
		here = &ret[(at - start) >> HOST_PAGE_SHIFT];
		for (u64 k = 0; k < (next - at) >> HOST_PAGE_SHIFT; k++)
			here[k].flags = MM_STATE_MAPPED | (v.read ? MM_STATE_READABLE : 0) |
					(v.write ? MM_STATE_WRITABLE : 0);
		b = block_find(mm, at);
		if (!b) {
			states_of_system(mm, at, at, next, here);
			b = block_find(mm, at); /* made meanwhile, and a page has left? */
		}
		if (b)
			states_of_block(mm, b, at, next, here);
	}
}

void mm_page_owners(struct mm *mm, u64 start, u64 end, const void **ret)
{
	host_memset(ret, 0, ((end - start) >> HOST_PAGE_SHIFT) * sizeof(*ret));
	for (u64 at = start, next; at < end; at = next) {
		struct block *b = block_find(mm, at);
		bool head;

		next = host_min(end, host_align_down(at, HOST_HUGE_SIZE) + HOST_HUGE_SIZE);
		if (!b)
			continue;
		section_enter(mm, b);
		head = block_compound(mm, b);
		for (u64 a = at; a < next; a += HOST_PAGE_SIZE) {
			entry_t e = head ? b->uniform : block_get(b, page_in_block(a));

			if (entry_kind(e) == ENTRY_DEVICE || entry_kind(e) == ENTRY_IN)
				ret[(a - start) >> HOST_PAGE_SHIFT] = frame_owner(mm, entry_id(e));
		}
		section_leave(mm, b);
	}
}
