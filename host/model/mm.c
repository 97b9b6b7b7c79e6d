/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * mm.c: an address space of the model: its life, its page table, what can be
 * asked about it, injected failures, and the checks of its invariants.
 *
 * Locking: mm->lock for all of it.
 */
#include "host/model/internal.h"

/* ---- Life ---------------------------------------------------------------- */

struct mm *model_mm_create(void)
{
	struct mm *mm = host_alloc_zeroed(sizeof(*mm));

	if (!mm)
		return NULL;
	host_ref_init(&mm->grabs);
	host_mutex_init(&mm->lock, RANK_HOST_BLOCK);
	host_waitq_init(&mm->waitq);
	return mm;
}

void mm_get(struct mm *mm)
{
	host_ref_get(&mm->grabs);
}

void mm_put(struct mm *mm)
{
	if (!host_ref_put(&mm->grabs))
		return;
	HOST_WARN_ON(mm->notifiers || mm->invs || !mm->exited);
	for (unsigned i = 0; i < MODEL_BUCKETS; i++) {
		while (mm->blocks[i]) {
			struct model_block *block = mm->blocks[i];

			mm->blocks[i] = block->next;
			host_free(block);
		}
	}
	host_waitq_destroy(&mm->waitq);
	host_mutex_destroy(&mm->lock);
	host_free(mm);
}

bool mm_use(struct mm *mm)
{
	bool usable;

	host_mutex_lock(&mm->lock);
	usable = !mm->exiting;
	mm->users += usable;
	host_mutex_unlock(&mm->lock);
	return usable;
}

void mm_unuse(struct mm *mm)
{
	host_mutex_lock(&mm->lock);
	HOST_CHECK(mm->users);
	if (!--mm->users)
		model_changed(mm);
	host_mutex_unlock(&mm->lock);
}

void model_mm_exit(struct mm *mm)
{
	struct model_vma *vmas;
	struct mm_page *free = NULL;
	struct model_inv inv;

	host_mutex_lock(&mm->lock);
	HOST_CHECK(!mm->exiting);
	mm->exiting = true;
	while (mm->users)
		model_wait(mm);
	host_mutex_unlock(&mm->lock);

	(void)model_inv_begin(mm, &inv, 0, ~(u64)0, MM_EVENT_RELEASE, NULL, true);
	host_mutex_lock(&mm->lock);
	model_zap(mm, 0, ~(u64)0, &free);
	vmas = mm->vmas;
	mm->vmas = NULL;
	mm->exited = true;
	host_mutex_unlock(&mm->lock);
	model_inv_end(mm, &inv);

	model_pages_free(free);
	while (vmas) {
		struct model_vma *vma = vmas;

		vmas = vma->next;
		host_free(vma);
	}
}

void model_mm_destroy(struct mm *mm)
{
	if (!mm->exiting)
		model_mm_exit(mm);
	mm_put(mm);
}

/* ---- Waiting, failures, violations --------------------------------------- */

void model_changed(struct mm *mm)
{
	host_add_return(&mm->changes, 1);
	host_wake_all(&mm->waitq);
}

void model_wait(struct mm *mm)
{
	u64 seen = host_load_acquire(&mm->changes);

	host_mutex_unlock(&mm->lock);
	host_wait(&mm->waitq, host_load_acquire(&mm->changes) != seen);
	host_mutex_lock(&mm->lock);
}

void model_violation(struct mm *mm, const char *what)
{
	mm->counters.violations++;
	if (!mm->violation)
		mm->violation = what;
}

bool model_site_fails(struct mm *mm, enum model_site site)
{
	struct model_site_state *s = &mm->sites[site];

	s->passes++;
	if (!s->count)
		return false;
	if (s->skip) {
		s->skip--;
		return false;
	}
	if (s->count != ~(u64)0)
		s->count--;
	return true;
}

bool model_site_fails_locked_out(struct mm *mm, enum model_site site)
{
	bool fails;

	host_mutex_lock(&mm->lock);
	fails = model_site_fails(mm, site);
	host_mutex_unlock(&mm->lock);
	return fails;
}

void model_fail(struct mm *mm, enum model_site site, u64 skip, u64 count)
{
	host_mutex_lock(&mm->lock);
	mm->sites[site] = (struct model_site_state){ .skip = skip, .count = count };
	host_mutex_unlock(&mm->lock);
}

u64 model_passes(struct mm *mm, enum model_site site)
{
	u64 passes;

	host_mutex_lock(&mm->lock);
	passes = mm->sites[site].passes;
	host_mutex_unlock(&mm->lock);
	return passes;
}

/* ---- The page table ------------------------------------------------------ */

static unsigned block_slot(u64 address)
{
	return (unsigned)((address >> (HOST_PAGE_SHIFT + HOST_HUGE_ORDER)) % MODEL_BUCKETS);
}

struct model_block *model_block(struct mm *mm, u64 address)
{
	struct model_block *block = mm->blocks[block_slot(address)];
	u64 base = host_align_down(address, HOST_HUGE_SIZE);

	while (block && block->base != base)
		block = block->next;
	return block;
}

int model_block_ensure(struct mm *mm, u64 address)
{
	struct model_block **slot = &mm->blocks[block_slot(address)];
	struct model_block *made;
	bool there;

	host_mutex_lock(&mm->lock);
	there = model_block(mm, address) != NULL;
	host_mutex_unlock(&mm->lock);
	if (there)
		return 0;
	made = host_alloc_zeroed(sizeof(*made));
	if (!made)
		return -ENOMEM;
	made->base = host_align_down(address, HOST_HUGE_SIZE);
	host_mutex_lock(&mm->lock);
	if (!model_block(mm, address)) {
		made->next = *slot;
		*slot = made;
		made = NULL;
	}
	host_mutex_unlock(&mm->lock);
	host_free(made);
	return 0;
}

struct model_page *model_page(struct mm *mm, u64 address)
{
	struct model_block *block = model_block(mm, address);

	return block ? &block->pages[(address - block->base) >> HOST_PAGE_SHIFT] : NULL;
}

struct model_vma *model_vma_at(struct mm *mm, u64 address)
{
	struct model_vma *vma = mm->vmas;

	while (vma && vma->end <= address)
		vma = vma->next;
	return vma && vma->start <= address ? vma : NULL;
}

bool model_vma_migratable(const struct model_vma *vma)
{
	return (vma->flags & MODEL_RW) == MODEL_RW &&
	       !(vma->flags & (MODEL_SHARED | MODEL_FILE | MODEL_HUGETLB));
}

void model_block_split(struct mm *mm, struct model_block *block)
{
	struct model_page *first = &block->pages[0];

	if (!block->huge)
		return;
	block->huge = false;
	mm->counters.splits++;
	/* One that a migration owns is split when that ends. */
	if (first->state == MODEL_DEVICE && (!first->txn || first->committed))
		model_page_split(first->what);
}

/* Forgets what one page maps; the migration that owns it, if any, gives the
 * frame back. */
static void zap_page(struct mm *mm, struct model_page *p, struct mm_page **free)
{
	bool owned = p->txn && !p->committed;

	if ((p->state == MODEL_SYSTEM || p->state == MODEL_SWAP) && !owned) {
		model_frame_put(mm, p->what);
	} else if (p->state == MODEL_DEVICE && !owned) {
		struct mm_page *page = p->what;

		model_page_place(page, NULL, 0);
		page->next = *free;
		*free = page;
	}
	p->state = MODEL_NONE;
	p->what = NULL;
	p->txn = NULL;
	p->owner = NULL;
	p->committed = false;
}

static void zap_block(struct mm *mm, struct model_block *block, unsigned first, unsigned last,
		      struct mm_page **free)
{
	if (first == 0 && last == HOST_HUGE_PAGES && block->huge &&
	    block->pages[0].state == MODEL_DEVICE && !block->pages[0].txn) {
		zap_page(mm, &block->pages[0], free); /* frees all 512 at once */
		for (unsigned i = 1; i < HOST_HUGE_PAGES; i++) {
			block->pages[i].state = MODEL_NONE;
			block->pages[i].what = NULL;
		}
		block->huge = false;
		return;
	}
	model_block_split(mm, block);
	for (unsigned i = first; i < last; i++)
		zap_page(mm, &block->pages[i], free);
}

void model_zap(struct mm *mm, u64 start, u64 end, struct mm_page **free)
{
	for (unsigned k = 0; k < MODEL_BUCKETS; k++) {
		for (struct model_block *block = mm->blocks[k]; block; block = block->next) {
			u64 from = host_max(start, block->base);
			u64 to = host_min(end, block->base + HOST_HUGE_SIZE);

			if (from < to)
				zap_block(mm, block, (from - block->base) >> HOST_PAGE_SHIFT,
					  (to - block->base) >> HOST_PAGE_SHIFT, free);
		}
	}
	model_changed(mm);
}

/* ---- Questions ----------------------------------------------------------- */

int mm_vma_find(struct mm *mm, u64 start, u64 end, struct mm_vma *ret)
{
	struct model_vma *vma;
	int err = 0;

	host_mutex_lock(&mm->lock);
	for (vma = mm->vmas; vma && vma->end <= start; vma = vma->next)
		;
	if (mm->exiting) {
		err = -EFAULT;
	} else if (!vma || vma->start >= end) {
		err = -ENOENT;
	} else {
		ret->start = vma->start;
		ret->end = vma->end;
		ret->flags = (vma->flags & MODEL_READ ? MM_VMA_READ : 0) |
			     (vma->flags & MODEL_WRITE ? MM_VMA_WRITE : 0) |
			     (vma->flags & MODEL_SHARED ? MM_VMA_SHARED : 0) |
			     (vma->flags & MODEL_HUGETLB ? MM_VMA_HUGETLB : 0) |
			     (vma->flags & (MODEL_SHARED | MODEL_FILE) ? 0 : MM_VMA_ANON) |
			     (model_vma_migratable(vma) ? MM_VMA_MIGRATABLE : 0);
	}
	host_mutex_unlock(&mm->lock);
	return err;
}

void mm_caps_get(struct mm *mm, struct mm_caps *ret)
{
	(void)mm;
	ret->flags = MM_CAP_ANY_MEMORY | MM_CAP_KERNEL_ACCESS | MM_CAP_FORK | MM_CAP_HUGE |
		     MM_CAP_EVENTS | MM_CAP_REMAP | MM_CAP_EXCLUSIVE;
	ret->max_order = HOST_HUGE_ORDER;
}

int mm_sync(struct mm *mm, u64 start, u64 end)
{
	bool gone;

	(void)start;
	(void)end;
	host_mutex_lock(&mm->lock);
	gone = mm->exiting;
	host_mutex_unlock(&mm->lock);
	return gone ? -EFAULT : 0;
}

int mm_watch(struct mm *mm, u64 start, u64 end)
{
	struct model_vma *vma;
	int err = 0;

	host_mutex_lock(&mm->lock);
	if (mm->exiting)
		err = -EFAULT;
	for (; !err && start < end; start = vma->end) {
		vma = model_vma_at(mm, start);
		if (!vma) {
			err = -ENOENT;
			break;
		}
	}
	host_mutex_unlock(&mm->lock);
	return err;
}

void mm_page_states(struct mm *mm, u64 start, u64 end, struct mm_page_state *ret)
{
	host_mutex_lock(&mm->lock);
	for (u64 a = start; a < end; a += HOST_PAGE_SIZE, ret++) {
		struct model_vma *vma = model_vma_at(mm, a);
		struct model_block *block = model_block(mm, a);
		struct model_page *p = model_page(mm, a);

		ret->flags = 0;
		ret->order = block && block->huge ? HOST_HUGE_ORDER : 0;
		ret->owner = NULL;
		ret->page = NULL;
		if (!vma)
			continue;
		ret->flags = MM_STATE_MAPPED | (vma->flags & MODEL_READ ? MM_STATE_READABLE : 0) |
			     (vma->flags & MODEL_WRITE ? MM_STATE_WRITABLE : 0);
		if (p && p->state != MODEL_NONE)
			ret->flags |= MM_STATE_POPULATED;
		if (p && p->state == MODEL_ZERO)
			ret->flags |= MM_STATE_ZERO;
		if (p && p->owner)
			ret->flags |= MM_STATE_EXCLUSIVE;
		if (p && p->state == MODEL_DEVICE) {
			ret->page = model_page_head(p->what);
			ret->owner = mm_region_priv(mm_page_region(p->what));
		}
	}
	host_mutex_unlock(&mm->lock);
}

void mm_page_owners(struct mm *mm, u64 start, u64 end, const void **ret)
{
	host_mutex_lock(&mm->lock);
	for (u64 a = start; a < end; a += HOST_PAGE_SIZE) {
		struct model_page *p = model_vma_at(mm, a) ? model_page(mm, a) : NULL;

		*ret++ =
		    p && p->state == MODEL_DEVICE ? mm_region_priv(mm_page_region(p->what)) : NULL;
	}
	host_mutex_unlock(&mm->lock);
}

void model_set_busy(struct mm *mm, u64 start, u64 end, bool busy)
{
	for (u64 a = start; a < end; a += HOST_PAGE_SIZE) {
		struct model_page *p;

		HOST_CHECK(model_block_ensure(mm, a) == 0);
		host_mutex_lock(&mm->lock);
		p = model_page(mm, a);
		p->busy = busy;
		host_mutex_unlock(&mm->lock);
	}
}

void model_counters(struct mm *mm, struct model_counters *ret)
{
	host_mutex_lock(&mm->lock);
	*ret = mm->counters;
	host_mutex_unlock(&mm->lock);
}

/* ---- Checks -------------------------------------------------------------- */

static const char *check_page(struct mm *mm, struct model_block *block, unsigned i, bool idle)
{
	struct model_page *p = &block->pages[i];
	u64 address = block->base + i * HOST_PAGE_SIZE;

	if (p->txn && idle)
		return "a page is moving though nothing is in progress";
	if (p->state != MODEL_NONE && !model_vma_at(mm, address))
		return "a page where nothing is mapped";
	if (p->state == MODEL_SYSTEM && !((struct model_frame *)p->what)->refs)
		return "a mapped frame has no reference";
	if (p->owner && (p->state != MODEL_SYSTEM || p->txn || !model_frame_exclusive(p->what)))
		return "a page that a device has for itself is in another's reach";
	if (p->state == MODEL_DEVICE) {
		struct mm_page *page = p->what;

		if (!page->used || page->mm != mm || page->address != address)
			return "a device frame does not know where it is mapped";
		/* One that moves may have been cut: it is split when that ends. */
		if (!p->txn && (mm_page_order(page) != 0) != block->huge)
			return "a 2M device page is not mapped as one";
	}
	return NULL;
}

const char *model_check_frozen(struct mm *mm, bool idle)
{
	const char *wrong = mm->violation;

	if (idle && (mm->invs || (mm->users && mm->exited)))
		wrong = "an invalidation or a user is left";
	for (unsigned k = 0; k < MODEL_BUCKETS && !wrong; k++)
		for (struct model_block *b = mm->blocks[k]; b && !wrong; b = b->next)
			for (unsigned i = 0; i < HOST_HUGE_PAGES && !wrong; i++)
				wrong = check_page(mm, b, i, idle);
	for (struct model_vma *vma = mm->vmas; vma && !wrong; vma = vma->next)
		if (vma->start >= vma->end || (vma->next && vma->end > vma->next->start))
			wrong = "mappings overlap";
	return wrong;
}

const char *model_check(struct mm *mm, bool idle)
{
	const char *wrong;

	host_mutex_lock(&mm->lock);
	wrong = model_check_frozen(mm, idle);
	host_mutex_unlock(&mm->lock);
	return wrong;
}

bool model_is_locked(struct mm *mm)
{
	bool locked = !host_mutex_trylock(&mm->lock);

	if (!locked)
		host_mutex_unlock(&mm->lock);
	return locked;
}
