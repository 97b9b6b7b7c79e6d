/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * vma.c: what an application does to its mappings.
 *
 * Each operation is: tell the notifiers, change the mappings and the page table
 * in one critical section, end the invalidation, free. Everything that it may
 * need is allocated before, since nothing is allocated under mm->lock.
 *
 * Pages that are moving do not hold unmapping up: the migration notices at its
 * commit. Moving and copying mappings (mremap, fork) wait for them instead.
 */
#include "host/model/internal.h"

/* ---- The list of mappings ------------------------------------------------ */

static void vmas_free(struct model_vma *list)
{
	while (list) {
		struct model_vma *vma = list;

		list = vma->next;
		host_free(vma);
	}
}

static struct model_vma *vmas_alloc(unsigned n)
{
	struct model_vma *list = NULL;

	while (n--) {
		struct model_vma *vma = host_alloc_zeroed(sizeof(*vma));

		if (!vma) {
			vmas_free(list);
			return NULL;
		}
		vma->next = list;
		list = vma;
	}
	return list;
}

static struct model_vma *take(struct model_vma **list)
{
	struct model_vma *vma = *list;

	HOST_CHECK(vma);
	*list = vma->next;
	return vma;
}

static void give(struct model_vma **list, struct model_vma *vma)
{
	vma->next = *list;
	*list = vma;
}

static void split_at(struct mm *mm, u64 address, struct model_vma **spare)
{
	struct model_vma *vma = model_vma_at(mm, address), *upper;

	if (!vma || vma->start == address)
		return;
	upper = take(spare);
	*upper = *vma;
	upper->start = address;
	vma->end = address;
	vma->next = upper;
}

/* Takes the mappings of [start, end) out. Needs two spares. */
static struct model_vma *carve(struct mm *mm, u64 start, u64 end, struct model_vma **spare)
{
	struct model_vma **p = &mm->vmas, *out, **tail = &out;

	split_at(mm, start, spare);
	split_at(mm, end, spare);
	while (*p && (*p)->end <= start)
		p = &(*p)->next;
	while (*p && (*p)->start < end) {
		*tail = *p;
		tail = &(*p)->next;
		*p = *tail;
	}
	*tail = NULL;
	return out;
}

static void insert(struct mm *mm, struct model_vma *vma)
{
	struct model_vma **p = &mm->vmas;

	while (*p && (*p)->start < vma->start)
		p = &(*p)->next;
	vma->next = *p;
	*p = vma;
}

static void merge(struct mm *mm, struct model_vma **spare)
{
	struct model_vma *vma = mm->vmas;

	while (vma && vma->next) {
		struct model_vma *next = vma->next;

		if (vma->end == next->start && vma->flags == next->flags) {
			vma->end = next->end;
			vma->next = next->next;
			give(spare, next);
		} else {
			vma = next;
		}
	}
}

/* A 2M page whose edge is not the mapping's edge any more is split. */
static void split_blocks_at(struct mm *mm, u64 address)
{
	struct model_block *block = model_block(mm, address);

	if (block && block->base != address)
		model_block_split(mm, block);
}

static bool bad_interval(u64 start, u64 end)
{
	return start >= end || !host_is_aligned(start | end, HOST_PAGE_SIZE);
}

static bool any_mapped(struct mm *mm, u64 start, u64 end)
{
	struct mm_vma vma;

	return mm_vma_find(mm, start, end, &vma) == 0;
}

/* ---- Operations ---------------------------------------------------------- */

static int populate(struct mm *mm, u64 start, u64 end)
{
	for (u64 a = start; a < end; a += HOST_PAGE_SIZE) {
		struct model_page *p;
		int err = model_fault_in(mm, a, false, &p);

		if (err)
			return err;
		host_mutex_unlock(&mm->lock);
	}
	return 0;
}

/* Replaces what is in [start, end) by vma, which may be NULL. */
static int replace(struct mm *mm, u64 start, u64 end, struct model_vma *vma)
{
	struct model_vma *spare = vmas_alloc(2), *old = NULL;
	struct mm_page *free = NULL;
	struct model_inv inv;
	bool tell = any_mapped(mm, start, end);
	int err = 0;

	if (!spare)
		return -ENOMEM;
	if (tell)
		(void)model_inv_begin(mm, &inv, start, end, MM_EVENT_UNMAP, NULL, true);
	host_mutex_lock(&mm->lock);
	if (mm->exiting) {
		err = -EFAULT;
	} else {
		old = carve(mm, start, end, &spare);
		model_zap(mm, start, end, &free);
		if (vma) {
			insert(mm, vma);
			merge(mm, &spare);
		}
	}
	host_mutex_unlock(&mm->lock);
	if (tell)
		model_inv_end(mm, &inv);
	model_pages_free(free);
	vmas_free(old);
	vmas_free(spare);
	return err;
}

int model_mmap(struct mm *mm, u64 start, u64 end, u32 flags)
{
	struct model_vma *vma;
	int err;

	if (bad_interval(start, end))
		return -EINVAL;
	vma = vmas_alloc(1);
	if (!vma)
		return -ENOMEM;
	vma->start = start;
	vma->end = end;
	vma->flags = flags;
	err = replace(mm, start, end, vma);
	if (err) {
		vmas_free(vma);
		return err;
	}
	if (flags & (MODEL_SHARED | MODEL_FILE))
		return populate(mm, start, end);
	return 0;
}

int model_munmap(struct mm *mm, u64 start, u64 end)
{
	return bad_interval(start, end) ? -EINVAL : replace(mm, start, end, NULL);
}

int model_mprotect(struct mm *mm, u64 start, u64 end, u32 flags)
{
	struct model_vma *spare;
	struct model_inv inv;

	if (bad_interval(start, end))
		return -EINVAL;
	spare = vmas_alloc(2);
	if (!spare)
		return -ENOMEM;
	(void)model_inv_begin(mm, &inv, start, end, MM_EVENT_PROTECT, NULL, true);
	host_mutex_lock(&mm->lock);
	split_at(mm, start, &spare);
	split_at(mm, end, &spare);
	split_blocks_at(mm, start);
	split_blocks_at(mm, end);
	for (struct model_vma *vma = mm->vmas; vma; vma = vma->next)
		if (start <= vma->start && vma->end <= end)
			vma->flags = (vma->flags & ~(u32)MODEL_RW) | (flags & MODEL_RW);
	merge(mm, &spare);
	host_mutex_unlock(&mm->lock);
	model_inv_end(mm, &inv);
	vmas_free(spare);
	return 0;
}

static int drop(struct mm *mm, u64 start, u64 end, bool blockable)
{
	struct mm_page *free = NULL;
	struct model_inv inv;
	int err;

	if (bad_interval(start, end))
		return -EINVAL;
	err = model_inv_begin(mm, &inv, start, end, MM_EVENT_CLEAR, NULL, blockable);
	if (err)
		return err;
	host_mutex_lock(&mm->lock);
	model_zap(mm, start, end, &free);
	host_mutex_unlock(&mm->lock);
	model_inv_end(mm, &inv);
	model_pages_free(free);
	return 0;
}

int model_dontneed(struct mm *mm, u64 start, u64 end)
{
	return drop(mm, start, end, true);
}

int model_reap(struct mm *mm, u64 start, u64 end)
{
	return drop(mm, start, end, false);
}

/* ---- mremap -------------------------------------------------------------- */

static bool any_moving(struct mm *mm, u64 start, u64 end)
{
	for (u64 a = start; a < end; a += HOST_PAGE_SIZE) {
		struct model_page *p = model_page(mm, a);

		if (p && p->txn)
			return true;
	}
	return false;
}

static bool all_mapped(struct mm *mm, u64 start, u64 end)
{
	struct model_vma *vma = model_vma_at(mm, start);

	while (vma && vma->end < end && vma->next && vma->next->start == vma->end)
		vma = vma->next;
	return vma && vma->end >= end;
}

static unsigned count_vmas(struct mm *mm, u64 start, u64 end)
{
	unsigned n = 0;

	for (struct model_vma *vma = mm->vmas; vma; vma = vma->next)
		n += vma->start < end && vma->end > start;
	return n;
}

static void move_page(struct mm *mm, struct model_page *p, struct model_page *q, u64 to)
{
	q->state = p->state;
	q->what = p->what;
	q->owner = p->owner;
	q->owned_until = p->owned_until;
	if (p->state == MODEL_DEVICE)
		model_page_place(p->what, mm, to);
	p->state = MODEL_NONE;
	p->what = NULL;
	p->owner = NULL;
}

/* Lock held, nothing is moving, [to, ...) is empty. */
static void move_pages(struct mm *mm, u64 start, u64 end, u64 to)
{
	u64 delta = to - start;

	for (u64 a = start; a < end; a += HOST_PAGE_SIZE) {
		struct model_block *block = model_block(mm, a);
		bool whole = block && block->huge && a == block->base &&
			     a + HOST_HUGE_SIZE <= end && host_is_aligned(delta, HOST_HUGE_SIZE);

		if (!block)
			continue;
		if (!whole && block->huge && a == host_max(start, block->base))
			model_block_split(mm, block);
		if (whole) {
			struct model_block *target = model_block(mm, a + delta);

			for (unsigned i = 0; i < HOST_HUGE_PAGES; i++) {
				target->pages[i].state = block->pages[i].state;
				target->pages[i].what = block->pages[i].what;
				block->pages[i].state = MODEL_NONE;
				block->pages[i].what = NULL;
			}
			if (target->pages[0].state == MODEL_DEVICE)
				model_page_place(target->pages[0].what, mm, a + delta);
			target->huge = true;
			block->huge = false;
			a += HOST_HUGE_SIZE - HOST_PAGE_SIZE;
			continue;
		}
		move_page(mm, model_page(mm, a), model_page(mm, a + delta), a + delta);
	}
}

/* The change itself; lock held. spare: four, and one for each mapping moved. */
static struct model_vma *move_locked(struct mm *mm, u64 start, u64 end, u64 to, bool dontunmap,
				     struct model_vma **spare, struct mm_page **free)
{
	u64 length = end - start;
	struct model_vma *gone = carve(mm, to, to + length, spare), *moved;

	model_zap(mm, to, to + length, free);
	moved = carve(mm, start, end, spare);
	while (moved) {
		struct model_vma *vma = take(&moved);

		if (dontunmap) {
			struct model_vma *old = take(spare);

			*old = *vma;
			insert(mm, old);
		}
		vma->start += to - start;
		vma->end += to - start;
		insert(mm, vma);
	}
	move_pages(mm, start, end, to);
	merge(mm, spare);
	return gone;
}

int model_mremap(struct mm *mm, u64 start, u64 end, u64 to, bool dontunmap)
{
	u64 length = end - start;
	struct model_vma *spare, *gone = NULL;
	struct mm_page *free = NULL;
	struct model_inv from_inv, to_inv;
	unsigned n;
	int err = 0;

	if (bad_interval(start, end) || (to < end && start < to + length))
		return -EINVAL;
	for (u64 a = to; a < to + length + HOST_HUGE_SIZE; a += HOST_HUGE_SIZE)
		if (model_block_ensure(mm, host_min(a, to + length - 1)))
			return -ENOMEM;
	host_mutex_lock(&mm->lock);
	n = count_vmas(mm, start, end);
	/* Nobody is told of what will not be done. It may still fail, if the mappings
	 * change meanwhile: then the new place is told, too. */
	if (mm->exiting || !all_mapped(mm, start, end))
		err = -EFAULT;
	host_mutex_unlock(&mm->lock);
	if (err)
		return err;
	spare = vmas_alloc(n + 16);
	if (!spare)
		return -ENOMEM;
	(void)model_inv_begin(mm, &to_inv, to, to + length, MM_EVENT_UNMAP, NULL, true);
	(void)model_inv_begin_to(mm, &from_inv, start, end, MM_EVENT_REMAP, NULL, true, to);
	host_mutex_lock(&mm->lock);
	while (any_moving(mm, start, end))
		model_wait(mm);
	if (mm->exiting || !all_mapped(mm, start, end))
		err = -EFAULT;
	else if (count_vmas(mm, start, end) > n + 8)
		err = -ENOMEM;
	else
		gone = move_locked(mm, start, end, to, dontunmap, &spare, &free);
	model_changed(mm);
	host_mutex_unlock(&mm->lock);
	model_inv_end(mm, &to_inv);
	model_inv_end(mm, &from_inv);
	model_pages_free(free);
	vmas_free(gone);
	vmas_free(spare);
	return err;
}
