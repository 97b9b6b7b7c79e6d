/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * exclusive.c: pages of system memory that one device has for itself.
 *
 * The frame stays; what the page table has in its place is a mark with the owner. Whoever
 * looks at a page for an access of the CPU (model_settle) or for another device finds the
 * mark, and has to have the page given back.
 *
 * Locking: mm->lock. A mark comes and goes within an invalidation over its page, after
 * every device has let go: so nobody who has the page mapped has missed it.
 */
#include "host/model/internal.h"

#define TAKE_TRIES 64u

void model_give_back(struct mm *mm, u64 address, bool touch)
{
	struct model_page *p = model_page(mm, address);
	u64 now = host_now(), until = p->owned_until;
	struct model_inv inv;

	if (touch && now < until) {
		model_wait_some(mm, until - now);
		return;
	}
	host_mutex_unlock(&mm->lock);
	(void)model_inv_begin(mm, &inv, address, address + HOST_PAGE_SIZE, MM_EVENT_EXCLUSIVE, NULL,
			      true);
	host_mutex_lock(&mm->lock);
	/* It may have been unmapped, or mapped anew, meanwhile: all the same. */
	p->owner = NULL;
	host_mutex_unlock(&mm->lock);
	model_inv_end(mm, &inv);
	host_mutex_lock(&mm->lock);
}

/* One page for mm_make_exclusive, lock held: 1: the owner has it, *pfn is set; 2: it can
 * be taken; 0: the lock was dropped, look again; else the error. */
static int look(struct mm_range_fault *rf, u64 address, mm_pfn_t *pfn)
{
	struct mm *mm = rf->mm;
	struct model_vma *vma = model_vma_at(mm, address);
	struct model_page *p = model_page(mm, address);
	int ret;

	*pfn = 0;
	if (mm_notifier_read_retry(rf->notifier, rf->seq))
		return -EBUSY;
	if (mm->exiting || !vma || !(vma->flags & MODEL_READ))
		return -EFAULT;
	if (!(vma->flags & MODEL_WRITE))
		return -EPERM;
	if (!model_vma_migratable(vma))
		return -EOPNOTSUPP;
	if (p->txn) {
		model_wait(mm);
		return -EBUSY;
	}
	if (!(p->state == MODEL_DEVICE ? rf->keep && rf->keep(rf->keep_arg, p->what)
				       : p->owner && p->owner == rf->owner)) {
		ret = model_settle(mm, address, true, p);
		if (!ret && p->state == MODEL_DEVICE)
			return -EBUSY;
		if (ret == 1)
			return 2;
		return ret == -EIO ? -EFAULT : ret;
	}
	*pfn = model_page_pfn(vma, p);
	return 1;
}

/* Marks what can be; within the invalidation. -EOPNOTSUPP: a page is pinned. Others that
 * cannot be now are left, and looked at again. Lock held. */
static int mark(struct mm_range_fault *rf, u64 until)
{
	struct mm *mm = rf->mm;
	int err = 0;

	model_block_split(mm, model_block(mm, rf->start));
	for (u64 a = rf->start; a < rf->end; a += HOST_PAGE_SIZE) {
		struct model_vma *vma = model_vma_at(mm, a);
		struct model_page *p = model_page(mm, a);
		struct model_frame *frame = p->what;

		if (!vma || !model_vma_migratable(vma) || p->state != MODEL_SYSTEM || p->txn ||
		    p->busy || p->owner || model_site_fails(mm, MODEL_FAIL_ISOLATE))
			continue;
		if (host_load_acquire(&frame->pins))
			err = -EOPNOTSUPP;
		else if (host_load_acquire(&frame->dma))
			model_violation(mm, "a device has memory mapped after its invalidation");
		else if (model_frame_exclusive(frame)) {
			p->owner = rf->owner;
			p->owned_until = until;
		}
	}
	return err;
}

static int take(struct mm_range_fault *rf, u64 hold)
{
	struct mm *mm = rf->mm;
	struct model_inv inv;
	int err;

	(void)model_inv_begin(mm, &inv, rf->start, rf->end, MM_EVENT_EXCLUSIVE, rf->owner, true);
	host_mutex_lock(&mm->lock);
	err = mark(rf, host_now() + hold);
	host_mutex_unlock(&mm->lock);
	model_inv_end(mm, &inv);
	rf->seq = mm_notifier_read_begin(rf->notifier);
	return err;
}

/* 1: all of it is the owner's; 2: some of it is to be taken; else the error. */
static int look_all(struct mm_range_fault *rf)
{
	u64 n = (rf->end - rf->start) >> HOST_PAGE_SHIFT;
	struct mm *mm = rf->mm;
	bool more = false;
	int ret = 1;

	host_mutex_lock(&mm->lock);
	if (model_site_fails(mm, MODEL_FAIL_RANGE_FAULT))
		ret = -ENOMEM;
	else if (model_site_fails(mm, MODEL_FAIL_RANGE_BUSY))
		ret = -EBUSY;
	for (u64 i = 0; i < n && ret > 0; i++) {
		do {
			ret = look(rf, rf->start + i * HOST_PAGE_SIZE, &rf->pfns[i]);
		} while (!ret);
		more |= ret == 2;
	}
	if (ret > 0 && !more)
		model_set_orders(rf);
	host_mutex_unlock(&mm->lock);
	return ret > 0 && more ? 2 : ret;
}

int mm_make_exclusive(struct mm_range_fault *rf, u64 hold)
{
	int ret;

	if (rf->start >= rf->end || !host_is_aligned(rf->start | rf->end, HOST_PAGE_SIZE) ||
	    host_align_down(rf->start, HOST_HUGE_SIZE) !=
		host_align_down(rf->end - 1, HOST_HUGE_SIZE) ||
	    !rf->owner)
		return -EINVAL;
	ret = model_block_ensure(rf->mm, rf->start);
	for (unsigned tries = 0; !ret && tries < TAKE_TRIES; tries++) {
		ret = look_all(rf);
		if (ret == 2)
			ret = take(rf, hold);
		else if (ret == 1)
			return 0;
	}
	return ret ? ret : -EBUSY;
}

/* The first page at or after *address that the owner has; false: none. Lock held. */
static bool next_owned(struct mm *mm, const void *owner, u64 *address)
{
	u64 found = ~(u64)0;

	for (unsigned k = 0; k < MODEL_BUCKETS; k++)
		for (struct model_block *b = mm->blocks[k]; b; b = b->next)
			for (unsigned i = 0; i < HOST_HUGE_PAGES; i++) {
				u64 a = b->base + i * HOST_PAGE_SIZE;
				const void *of = b->pages[i].owner;

				if (of && (!owner || of == owner) && a >= *address)
					found = host_min(found, a);
			}
	*address = found;
	return found != ~(u64)0;
}

void mm_exclusive_end(struct mm *mm, const void *owner)
{
	host_mutex_lock(&mm->lock);
	for (u64 at = 0; next_owned(mm, owner, &at); at += HOST_PAGE_SIZE)
		model_give_back(mm, at, false);
	host_mutex_unlock(&mm->lock);
}
