/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * migrate.c: migration transactions.
 *
 * begin tells the notifiers first and collects then, in one critical section
 * within the invalidation: a device that was stopped cannot come back before
 * the page is marked as moving, and the CPU waits from that mark on. A moving
 * page keeps its state, so that putting it back is taking the mark off; what
 * unmaps it meanwhile takes the mark off too and leaves the frame to the
 * migration, which notices by the missing mark.
 *
 * Locking: mm->lock; never held over a callback or an allocation. Between
 * begin and end the frames of marked pages are this migration's alone.
 */
#include "host/model/internal.h"

/* In mm_migrate.home. */
struct model_txn {
	bool by_frames, committed;
	/* System destinations, used or not. Each is kept until the end, so that the
	 * caller may forget those of pages that shall stay. */
	struct model_backing *made;
};
_Static_assert(sizeof(struct model_txn) <= sizeof(((struct mm_migrate *)0)->home), "home");

static struct model_txn *own(const struct mm_migrate *m)
{
	return (struct model_txn *)(void *)m->home;
}

static struct model_frame *mpfn_frame(mm_mpfn_t mpfn)
{
	return (struct model_frame *)(uintptr_t)(mpfn & MM_MPFN_PAYLOAD);
}

static bool is_system(mm_mpfn_t mpfn)
{
	return (mpfn & (MM_MPFN_SYSTEM | MM_MPFN_ZERO)) == MM_MPFN_SYSTEM;
}

static bool is_device(mm_mpfn_t mpfn)
{
	return (mpfn & MM_MPFN_PAYLOAD) && !(mpfn & MM_MPFN_SYSTEM);
}

static unsigned mpfn_pages(mm_mpfn_t mpfn)
{
	return mpfn & MM_MPFN_COMPOUND ? HOST_HUGE_PAGES : 1;
}

static u64 entry_address(const struct mm_migrate *m, unsigned i)
{
	if (own(m)->by_frames)
		return mm_mpfn_page(m->src[i])->address;
	return m->start + i * HOST_PAGE_SIZE;
}

/* Lets devices reach n frames for copies, or (by -1) stops that. */
static void reach(struct model_frame *frame, unsigned n, u32 by)
{
	for (unsigned k = 0; k < n; k++)
		host_add_return(&frame[k].dma, by);
}

/* ---- Collecting ---------------------------------------------------------- */

/* Why a page cannot be isolated: MM_STAYED_*, ~0 for "it was not asked for", or
 * 0: it can. Lock held. */
static u32 refusal(struct mm_migrate *m, const struct model_vma *vma, struct model_page *p)
{
	struct model_frame *frame = p->what;

	if (p->state == MODEL_DEVICE) {
		if (!(m->flags & MM_MIGRATE_DEVICE) ||
		    (m->select && !m->select(m->select_arg, p->what)))
			return ~0u;
		return p->txn || p->busy ? MM_STAYED_BUSY : 0;
	}
	if (!(m->flags & MM_MIGRATE_SYSTEM))
		return ~0u;
	if (!model_vma_migratable(vma))
		return MM_STAYED_NOT_MIGRATABLE;
	if (p->txn || p->busy)
		return MM_STAYED_BUSY;
	if (p->state == MODEL_SWAP)
		return MM_STAYED_BUSY;
	if (p->state != MODEL_SYSTEM)
		return 0;
	if (host_load_acquire(&frame->pins))
		return MM_STAYED_PINNED;
	if (host_load_acquire(&frame->refs) != 1)
		return MM_STAYED_NOT_MIGRATABLE;
	if (host_load_acquire(&frame->dma)) {
		model_violation(m->mm, "a device has memory mapped after its invalidation");
		return MM_STAYED_BUSY;
	}
	return 0;
}

static mm_mpfn_t source_of(const struct model_vma *vma, const struct model_page *p)
{
	mm_mpfn_t flags = MM_MPFN_MIGRATE | (vma->flags & MODEL_WRITE ? MM_MPFN_WRITE : 0);

	if (p->state == MODEL_DEVICE)
		return flags | mm_mpfn(p->what);
	if (p->state == MODEL_SYSTEM)
		return flags | MM_MPFN_SYSTEM | (mm_mpfn_t)(uintptr_t)p->what;
	return flags | MM_MPFN_SYSTEM | MM_MPFN_ZERO;
}

static void collect_small(struct mm_migrate *m, unsigned i, u64 address)
{
	struct mm *mm = m->mm;
	struct model_vma *vma = model_vma_at(mm, address);
	struct model_page *p = model_page(mm, address);
	u32 why;

	m->src[i] = 0;
	if (!vma) {
		m->stayed_reason |= MM_STAYED_HOLE;
		return;
	}
	why = refusal(m, vma, p);
	if (!why && model_site_fails(mm, MODEL_FAIL_ISOLATE))
		why = MM_STAYED_BUSY;
	if (why) {
		m->stayed_reason |= why == ~0u ? 0 : why;
		return;
	}
	model_block_split(mm, model_block(mm, address));
	m->src[i] = source_of(vma, p);
	p->txn = m;
	p->owner = NULL; /* who had it for itself was told */
	m->collected++;
	if (p->state == MODEL_SYSTEM)
		reach(p->what, 1, 1);
}

/* Collects the 2M page at address whole, if there is one that can go, or if
 * nothing was ever there and a 2M page may come. */
static bool collect_huge(struct mm_migrate *m, unsigned i, u64 address)
{
	struct mm *mm = m->mm;
	struct model_vma *vma = model_vma_at(mm, address);
	struct model_block *block = model_block(mm, address);

	if (!(m->flags & MM_MIGRATE_COMPOUND) || !vma || !block || block->base != address ||
	    i + HOST_HUGE_PAGES > m->npages || vma->end < address + HOST_HUGE_SIZE)
		return false;
	if (!block->huge && !(vma->flags & MODEL_THP))
		return false;
	for (unsigned k = 0; k < HOST_HUGE_PAGES; k++) {
		struct model_page *p = &block->pages[k];

		if (!block->huge && (p->state == MODEL_SYSTEM || p->state == MODEL_DEVICE))
			return false;
		if (refusal(m, vma, p))
			return false;
	}
	if (model_site_fails(mm, MODEL_FAIL_ISOLATE))
		return false;
	m->src[i] = source_of(vma, &block->pages[0]) | MM_MPFN_COMPOUND;
	for (unsigned k = 0; k < HOST_HUGE_PAGES; k++) {
		block->pages[k].txn = m;
		if (k)
			m->src[i + k] = 0;
	}
	if (is_system(m->src[i]))
		reach(mpfn_frame(m->src[i]), HOST_HUGE_PAGES, 1);
	m->collected += HOST_HUGE_PAGES;
	return true;
}

static int begin_checks(struct mm_migrate *m, bool by_frames)
{
	struct mm *mm = m->mm;
	int err = 0;

	m->collected = 0;
	m->stayed_reason = 0;
	*own(m) = (struct model_txn){ .by_frames = by_frames };
	host_mutex_lock(&mm->lock);
	if (mm->exited)
		err = -EFAULT;
	else if (model_site_fails(mm, MODEL_FAIL_BEGIN))
		err = -ENOMEM;
	else
		mm_get(mm);
	host_mutex_unlock(&mm->lock);
	return err;
}

/* Is there anything to stop devices for? */
static bool any_candidate(struct mm_migrate *m)
{
	bool any = false;

	host_mutex_lock(&m->mm->lock);
	for (u64 a = m->start; a < m->end && !any; a += HOST_PAGE_SIZE) {
		struct model_vma *vma = model_vma_at(m->mm, a);
		struct model_page *p = model_page(m->mm, a);

		any = vma && (p->state == MODEL_DEVICE ? !refusal(m, vma, p) :
							 (m->flags & MM_MIGRATE_SYSTEM) &&
								 model_vma_migratable(vma));
		if (!vma)
			m->stayed_reason |= MM_STAYED_HOLE;
		else if (!any && p->state != MODEL_DEVICE && !model_vma_migratable(vma))
			m->stayed_reason |= MM_STAYED_NOT_MIGRATABLE;
	}
	host_mutex_unlock(&m->mm->lock);
	return any;
}

int mm_migrate_begin(struct mm_migrate *m)
{
	struct mm *mm = m->mm;
	struct model_inv inv;
	int err;

	if (m->start >= m->end || !host_is_aligned(m->start | m->end, HOST_PAGE_SIZE) ||
	    host_align_down(m->start, HOST_HUGE_SIZE) !=
		    host_align_down(m->end - 1, HOST_HUGE_SIZE) ||
	    m->npages != (m->end - m->start) >> HOST_PAGE_SHIFT)
		return -EINVAL;
	err = model_block_ensure(mm, m->start);
	if (!err)
		err = begin_checks(m, false);
	if (err)
		return err;
	host_memset(m->src, 0, m->npages * sizeof(m->src[0]));
	host_memset(m->dst, 0, m->npages * sizeof(m->dst[0]));
	if (!any_candidate(m))
		return 0;
	(void)model_inv_begin(mm, &inv, m->start, m->end, MM_EVENT_MIGRATE, m->migrator, true);
	host_mutex_lock(&mm->lock);
	for (unsigned i = 0; i < m->npages; i++) {
		u64 a = m->start + i * HOST_PAGE_SIZE;

		if (collect_huge(m, i, a))
			i += HOST_HUGE_PAGES - 1;
		else
			collect_small(m, i, a);
	}
	mm->counters.migrations += m->collected != 0;
	host_mutex_unlock(&mm->lock);
	model_inv_end(mm, &inv);
	return 0;
}

/* ---- By frame ------------------------------------------------------------ */

/* Where a frame is mapped in m's address space, by that one's word. Lock held. */
static bool frame_address(struct mm_migrate *m, struct mm_page *page, u64 *address)
{
	struct model_page *p;

	if (host_load_acquire(&page->mm) != m->mm)
		return false;
	p = model_page(m->mm, page->address);
	if (!p || p->state != MODEL_DEVICE || p->what != page)
		return false;
	*address = page->address;
	return true;
}

/* The intervals that hold the frames, one for each run within a 2M; count only
 * if inv is NULL. Lock held. */
static unsigned frame_intervals(struct mm_migrate *m, struct mm_page *page,
				struct model_inv *inv, unsigned max)
{
	u64 block = ~(u64)0, a;
	unsigned n = 0;

	for (unsigned i = 0; i < m->npages; i++) {
		if (!frame_address(m, &page[i], &a))
			continue;
		if (host_align_down(a, HOST_HUGE_SIZE) != block) {
			block = host_align_down(a, HOST_HUGE_SIZE);
			if (inv && n == max)
				break;
			if (inv)
				inv[n].start = inv[n].end = a;
			n++;
		}
		if (!inv)
			continue;
		inv[n - 1].start = host_min(inv[n - 1].start, a);
		inv[n - 1].end = host_max(inv[n - 1].end, a + HOST_PAGE_SIZE);
	}
	return n;
}

static bool told(const struct model_inv *inv, unsigned n, u64 address)
{
	while (n--)
		if (inv[n].start <= address && address < inv[n].end)
			return true;
	return false;
}

static void collect_frames(struct mm_migrate *m, struct mm_page *page,
			   const struct model_inv *inv, unsigned n)
{
	u64 a;

	for (unsigned i = 0; i < m->npages; i++) {
		if (!frame_address(m, &page[i], &a))
			continue;
		if (!told(inv, n, a))
			m->stayed_reason |= MM_STAYED_BUSY;
		else if (collect_huge(m, i, a))
			i += HOST_HUGE_PAGES - 1;
		else
			collect_small(m, i, a);
	}
}

int mm_migrate_begin_frames(struct mm_migrate *m, struct mm_region *region, u64 first)
{
	struct mm_page *page = &region->pages[first];
	struct mm *mm = m->mm;
	struct model_inv *inv;
	unsigned n;
	int err = begin_checks(m, true);

	if (err)
		return err;
	HOST_CHECK(first + m->npages <= region->npages);
	host_memset(m->src, 0, m->npages * sizeof(m->src[0]));
	host_memset(m->dst, 0, m->npages * sizeof(m->dst[0]));
	host_mutex_lock(&mm->lock);
	n = frame_intervals(m, page, NULL, 0);
	host_mutex_unlock(&mm->lock);
	if (!n)
		return 0;
	inv = host_alloc(n * sizeof(*inv));
	if (!inv) {
		mm_put(mm);
		return -ENOMEM;
	}
	host_mutex_lock(&mm->lock);
	n = frame_intervals(m, page, inv, n);
	host_mutex_unlock(&mm->lock);
	for (unsigned k = 0; k < n; k++)
		(void)model_inv_begin(mm, &inv[k], inv[k].start, inv[k].end, MM_EVENT_MIGRATE,
				      m->migrator, true);
	host_mutex_lock(&mm->lock);
	collect_frames(m, page, inv, n);
	mm->counters.migrations += m->collected != 0;
	host_mutex_unlock(&mm->lock);
	for (unsigned k = 0; k < n; k++)
		model_inv_end(mm, &inv[k]);
	host_free(inv);
	return 0;
}

/* ---- Destinations -------------------------------------------------------- */

static struct model_backing *alloc_backing(struct mm_migrate *m, unsigned order)
{
	struct model_backing *b;

	if (model_site_fails_locked_out(m->mm,
					order ? MODEL_FAIL_HUGE_PAGE : MODEL_FAIL_SYSTEM_PAGE))
		return NULL;
	b = model_backing_alloc(order);
	if (b) {
		reach(b->frames, 1u << order, 1);
		host_add_return(&b->live, 1);
		b->txn_next = own(m)->made;
		own(m)->made = b;
	}
	return b;
}

/* The collected 2M device page of entry i becomes 512 collected small ones. */
static void split_source(struct mm_migrate *m, unsigned i)
{
	struct mm *mm = m->mm;
	struct mm_page *head = mm_mpfn_page(m->src[i]);
	mm_mpfn_t flags = m->src[i] & (MM_MPFN_MIGRATE | MM_MPFN_WRITE);
	struct model_block *block;

	host_mutex_lock(&mm->lock);
	block = model_block(mm, head->address);
	if (block->pages[0].txn == m && !block->pages[0].committed)
		block->huge = false;
	mm->counters.splits++;
	model_page_split(head);
	host_mutex_unlock(&mm->lock);
	for (unsigned k = 0; k < HOST_HUGE_PAGES; k++)
		m->src[i + k] = flags | mm_mpfn(head + k);
}

/* No frames of this home are ordinary memory. */
int mm_move_huge(struct mm_move_huge *m)
{
	m->moved = 0;
	return -EOPNOTSUPP;
}

int mm_migrate_alloc_system(struct mm_migrate *m)
{
	unsigned had = 0, wanted = 0;

	for (unsigned i = 0; i < m->npages; i++) {
		unsigned order = m->src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_ORDER : 0;
		struct model_backing *b;

		m->dst[i] = 0;
		if (!(m->src[i] & MM_MPFN_MIGRATE) || !is_device(m->src[i]))
			continue;
		wanted++;
		b = alloc_backing(m, order);
		if (!b && order) {
			split_source(m, i);
			b = alloc_backing(m, 0);
			order = 0;
		}
		if (!b)
			continue;
		had++;
		m->dst[i] = (mm_mpfn_t)(uintptr_t)&b->frames[0] | MM_MPFN_SYSTEM |
			    MM_MPFN_MIGRATE | (order ? MM_MPFN_COMPOUND : 0);
		for (unsigned k = 1; k < 1u << order; k++)
			m->dst[i + k] = 0;
		i += (1u << order) - 1;
	}
	return wanted && !had ? -ENOMEM : 0;
}

static mm_mpfn_t system_entry(const struct mm_migrate *m, unsigned i)
{
	return is_system(m->src[i]) ? m->src[i] : m->dst[i];
}

mm_dma_t mm_migrate_dma(const struct mm_migrate *m, unsigned i, unsigned *order)
{
	mm_mpfn_t first = system_entry(m, i);
	struct model_frame *frame = mpfn_frame(first);
	u64 at = (u64)(uintptr_t)model_frame_bytes(frame);

	*order = 0;
	if (first & MM_MPFN_COMPOUND) {
		*order = HOST_HUGE_ORDER;
		return at;
	}
	while (*order < HOST_HUGE_ORDER && host_is_aligned(at, HOST_HUGE_SIZE >> (8 - *order)) &&
	       i + (2u << *order) <= m->npages) {
		unsigned n = 1u << *order;

		for (unsigned k = n; k < 2 * n; k++) {
			mm_mpfn_t e = system_entry(m, i + k);

			if (!is_system(e) || mpfn_frame(e) != frame + k ||
			    mpfn_frame(e)->backing != frame->backing)
				return at;
		}
		++*order;
	}
	return at;
}

/* ---- Commit and end ------------------------------------------------------ */

/* Is every page of entry i still this migration's? Lock held. */
static bool still_ours(const struct mm_migrate *m, unsigned i, u64 address)
{
	struct model_block *block = model_block(m->mm, address);
	unsigned n = mpfn_pages(m->src[i]), k = (address - block->base) >> HOST_PAGE_SHIFT;
	struct model_vma *vma = model_vma_at(m->mm, address);

	if (n > 1 && (!vma || vma->end < address + HOST_HUGE_SIZE ||
		      (!block->huge && !(m->src[i] & MM_MPFN_ZERO))))
		return false;
	while (n--)
		if (block->pages[k + n].txn != m)
			return false;
	return true;
}

static void install(struct mm_migrate *m, unsigned i, u64 address)
{
	struct mm *mm = m->mm;
	struct model_block *block = model_block(mm, address);
	struct model_page *p = model_page(mm, address);
	mm_mpfn_t dst = m->dst[i];
	unsigned n = mpfn_pages(dst);

	HOST_CHECK(n == mpfn_pages(m->src[i]));
	if (n > 1)
		block->huge = true;
	for (unsigned k = 0; k < n; k++) {
		p[k].committed = true;
		if (is_system(dst)) {
			p[k].state = MODEL_SYSTEM;
			p[k].what = mpfn_frame(dst) + k;
			model_frame_get(p[k].what);
		} else {
			p[k].state = MODEL_DEVICE;
			p[k].what = mm_mpfn_page(dst) + k;
		}
	}
	if (is_system(dst)) {
		mm->counters.to_system += n;
		reach(mpfn_frame(dst), n, (u32)-1);
	} else {
		mm->counters.to_device += n;
		model_page_place(mm_mpfn_page(dst), mm, address);
	}
}

/* A destination that was not taken. Lock held. */
static void drop_destination(struct mm_migrate *m, unsigned i, struct mm_page **free)
{
	mm_mpfn_t dst = m->dst[i];

	m->dst[i] = 0;
	if (is_device(dst)) {
		struct mm_page *page = mm_mpfn_page(dst);

		page->next = *free;
		*free = page;
	}
}

/* System destinations that were taken live on without the migration. */
static void let_go_of_made(struct mm_migrate *m)
{
	struct model_backing *b;

	while ((b = own(m)->made) != NULL) {
		own(m)->made = b->txn_next;
		if (host_add_return(&b->live, (u32)-1) == 0)
			model_backing_free(b);
	}
}

void mm_migrate_commit(struct mm_migrate *m)
{
	struct mm_page *free = NULL;

	own(m)->committed = true;
	host_mutex_lock(&m->mm->lock);
	for (unsigned i = 0; i < m->npages; i++) {
		if (!(m->src[i] & MM_MPFN_MIGRATE)) {
			drop_destination(m, i, &free);
			continue;
		}
		if (!m->dst[i] || !still_ours(m, i, entry_address(m, i)) ||
		    model_site_fails(m->mm, MODEL_FAIL_COMMIT)) {
			drop_destination(m, i, &free);
			m->src[i] &= ~MM_MPFN_MIGRATE;
			continue;
		}
		install(m, i, entry_address(m, i));
	}
	host_mutex_unlock(&m->mm->lock);
	model_pages_free(free);
}

void model_put_back(struct mm *mm, u64 address, const void *txn, struct mm_page *page,
		    struct model_frame *frame, struct mm_page **free)
{
	struct model_page *p = model_page(mm, address);

	if (p->txn == txn) {
		p->txn = NULL;
	} else if (page) {
		model_page_place(page, NULL, 0);
		page->next = *free;
		*free = page;
	} else if (frame) {
		model_frame_put(mm, frame);
	}
}

void model_put_back_huge(struct mm *mm, u64 address, const void *txn, struct mm_page *head,
			 struct model_frame *frame, struct mm_page **free)
{
	struct model_block *block = model_block(mm, address);

	/* Not so: some was unmapped, or its mapping was cut, while it was away. */
	if (head && !(block->huge && block->pages[0].txn == txn))
		model_page_split(head);
	for (unsigned k = 0; k < HOST_HUGE_PAGES; k++)
		model_put_back(mm, address + k * HOST_PAGE_SIZE, txn, head ? head + k : NULL,
			       frame ? frame + k : NULL, free);
}

static void end_moved(struct mm_migrate *m, unsigned i, struct mm_page **free)
{
	struct mm *mm = m->mm;
	struct model_page *p = model_page(mm, entry_address(m, i));
	unsigned n = mpfn_pages(m->src[i]);

	for (unsigned k = 0; k < n; k++) {
		if (p[k].txn == m) {
			p[k].txn = NULL;
			p[k].committed = false;
		}
		if (is_system(m->src[i])) {
			reach(mpfn_frame(m->src[i]) + k, 1, (u32)-1);
			model_frame_put(mm, mpfn_frame(m->src[i]) + k);
		}
	}
	if (is_device(m->src[i])) {
		struct mm_page *page = mm_mpfn_page(m->src[i]);

		model_page_place(page, NULL, 0);
		page->next = *free;
		*free = page;
	}
}

static void end_stayed(struct mm_migrate *m, unsigned i, struct mm_page **free)
{
	u64 address = entry_address(m, i);
	unsigned n = mpfn_pages(m->src[i]);
	struct model_frame *frame = is_system(m->src[i]) ? mpfn_frame(m->src[i]) : NULL;
	struct mm_page *page = is_device(m->src[i]) ? mm_mpfn_page(m->src[i]) : NULL;

	if (frame)
		reach(frame, n, (u32)-1);
	if (n > 1)
		model_put_back_huge(m->mm, address, m, page, frame, free);
	else
		model_put_back(m->mm, address, m, page, frame, free);
}

void mm_migrate_end(struct mm_migrate *m)
{
	struct mm_page *free = NULL;

	host_mutex_lock(&m->mm->lock);
	for (unsigned i = 0; i < m->npages; i++) {
		unsigned n = mpfn_pages(m->src[i]);

		if (!own(m)->committed)
			drop_destination(m, i, &free);
		if (!m->src[i])
			continue;
		if (own(m)->committed && (m->src[i] & MM_MPFN_MIGRATE))
			end_moved(m, i, &free);
		else
			end_stayed(m, i, &free);
		i += n - 1;
	}
	model_changed(m->mm);
	host_mutex_unlock(&m->mm->lock);
	let_go_of_made(m);
	model_pages_free(free);
	mm_put(m->mm);
}
