/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fork.c: a child with a copy of everything. System pages are shared until one
 * side writes, pinned and device pages are copied at once. All devices are
 * stopped by an invalidation over everything, so that no one writes a device
 * page while it is read.
 *
 * Locking: the parent's lock; the child is not known to anyone yet, and its
 * lock is not taken together with the parent's.
 */
#include "host/model/internal.h"

static int copy_vmas(struct mm *mm, struct mm *child)
{
	struct model_vma **tail = &child->vmas, *vma;
	u64 at = 0;

	for (;;) {
		struct model_vma *copy = host_alloc_zeroed(sizeof(*copy));

		if (!copy)
			return -ENOMEM;
		host_mutex_lock(&mm->lock);
		for (vma = mm->vmas; vma && vma->end <= at; vma = vma->next)
			;
		if (vma)
			*copy = *vma;
		host_mutex_unlock(&mm->lock);
		if (!vma) {
			host_free(copy);
			return 0;
		}
		copy->next = NULL;
		copy->start = host_max(copy->start, at);
		at = copy->end;
		*tail = copy;
		tail = &copy->next;
	}
}

/* Reads the device page, or all 512 of the 2M one, that p (block) maps into
 * `into`. The lock is held, dropped meanwhile, and held again. */
static int read_device(struct mm *mm, struct model_block *block, struct model_page *p,
		       struct model_backing *into)
{
	struct mm_page *head = model_page_head(p->what), *free = NULL;
	const struct mm_region_ops *ops = head->region->ops;
	unsigned n = block->huge ? HOST_HUGE_PAGES : 1;
	u64 address = head->address;
	int err = 0;

	for (unsigned k = 0; k < n; k++)
		p[k].txn = &free; /* as a migration would own it */
	host_mutex_unlock(&mm->lock);
	for (unsigned k = 0; k < n && !err; k++) {
		host_add_return(&into->frames[k].dma, 1);
		err = ops->read(head, k, model_frame_bytes(&into->frames[k]));
		host_add_return(&into->frames[k].dma, (u32)-1);
	}
	host_mutex_lock(&mm->lock);
	if (n > 1)
		model_put_back_huge(mm, address, &free, head, NULL, &free);
	else
		model_put_back(mm, address, &free, head, NULL, &free);
	model_changed(mm);
	if (free) {
		host_mutex_unlock(&mm->lock);
		model_pages_free(free);
		host_mutex_lock(&mm->lock);
	}
	return err;
}

static void give_copy(struct model_page *q, struct model_backing *made, unsigned n)
{
	for (unsigned k = 0; k < n; k++) {
		model_frame_get(&made->frames[k]);
		q[k].state = MODEL_SYSTEM;
		q[k].what = &made->frames[k];
	}
}

/* Does page p need its bytes copied, rather than shared? Lock held. */
static bool wants_copy(const struct model_vma *vma, const struct model_page *p)
{
	if (p->state == MODEL_DEVICE)
		return true;
	return p->state == MODEL_SYSTEM && !(vma->flags & MODEL_SHARED) &&
	       host_load_acquire(&((struct model_frame *)p->what)->pins);
}

/* Copies what page i (or, for a 2M device page, all) maps. The parent's lock is
 * held. Gives the number of pages done, or negative. */
static int fork_page(struct mm *mm, struct model_block *block, unsigned i,
		     struct model_block *child_block)
{
	struct model_page *p = &block->pages[i], *q = &child_block->pages[i];
	struct model_backing *made = NULL;
	unsigned n, order = 0;
	struct model_vma *vma;
	int err = 0;

	for (;;) {
		while (p->txn)
			model_wait(mm);
		vma = model_vma_at(mm, block->base + i * HOST_PAGE_SIZE);
		if (i)
			model_block_split(mm, block); /* it came while we slept */
		n = block->huge && p->state == MODEL_DEVICE ? HOST_HUGE_PAGES : 1;
		if (!vma || !wants_copy(vma, p) || (made && n == 1u << order))
			break;
		host_mutex_unlock(&mm->lock);
		if (made)
			model_backing_free(made);
		order = n > 1 ? HOST_HUGE_ORDER : 0;
		made = model_backing_alloc(order);
		host_mutex_lock(&mm->lock);
		if (!made)
			return -ENOMEM;
	}
	if (vma && wants_copy(vma, p)) {
		if (p->state == MODEL_DEVICE)
			err = read_device(mm, block, p, made);
		else
			model_cpu_copy(made->bytes, model_frame_bytes(p->what), HOST_PAGE_SIZE);
		if (!err) {
			give_copy(q, made, n);
			made = NULL;
		}
	} else if (vma && p->state != MODEL_NONE) {
		p->owner = NULL; /* it was told, and asks anew */
		q->state = p->state;
		q->what = p->what;
		if (p->state == MODEL_SYSTEM || p->state == MODEL_SWAP)
			model_frame_get(p->what);
	}
	if (made) {
		host_mutex_unlock(&mm->lock);
		model_backing_free(made);
		host_mutex_lock(&mm->lock);
	}
	return err ? err : (int)n;
}

static int copy_pages(struct mm *mm, struct mm *child)
{
	int ret = 0;

	host_mutex_lock(&mm->lock);
	for (unsigned k = 0; k < MODEL_BUCKETS && ret >= 0; k++) {
		for (struct model_block *b = mm->blocks[k]; b && ret >= 0; b = b->next) {
			struct model_block *q;

			host_mutex_unlock(&mm->lock);
			ret = model_block_ensure(child, b->base);
			q = model_block(child, b->base);
			host_mutex_lock(&mm->lock);
			for (unsigned i = 0; i < HOST_HUGE_PAGES && ret >= 0; i += (unsigned)ret)
				ret = fork_page(mm, b, i, q);
		}
	}
	host_mutex_unlock(&mm->lock);
	return ret < 0 ? ret : 0;
}

int model_fork(struct mm *mm, struct mm **ret)
{
	struct mm *child = model_mm_create();
	struct model_inv inv;
	int err;

	if (!child)
		return -ENOMEM;
	(void)model_inv_begin(mm, &inv, 0, ~(u64)0, MM_EVENT_PROTECT, NULL, true);
	err = copy_vmas(mm, child);
	if (!err)
		err = copy_pages(mm, child);
	model_inv_end(mm, &inv);
	if (err) {
		model_mm_destroy(child);
		return err;
	}
	*ret = child;
	return 0;
}
