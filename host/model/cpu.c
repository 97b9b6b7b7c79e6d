/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * cpu.c: page faults: of the CPU, of mm_range_fault, of pins.
 *
 * The bytes of an access are copied under mm->lock, where the page is seen to
 * be present in system memory; that stands for the atomicity of a translated
 * access. Everything else (allocating, telling notifiers, migrate_to_ram,
 * sleeping) is done without the lock, and then the page is looked at anew.
 */
#include "host/model/internal.h"

/* ---- Populating ---------------------------------------------------------- */

/* May the whole 2M at address be one page? Lock held. */
static bool huge_fits(struct mm *mm, u64 address)
{
	struct model_vma *vma = model_vma_at(mm, address);
	struct model_block *block = model_block(mm, address);

	if (!vma || !block || !(vma->flags & MODEL_THP) || vma->start > block->base ||
	    vma->end < block->base + HOST_HUGE_SIZE)
		return false;
	for (unsigned i = 0; i < HOST_HUGE_PAGES; i++)
		if (block->pages[i].state != MODEL_NONE || block->pages[i].txn)
			return false;
	return true;
}

static void map_huge(struct mm *mm, u64 address, struct model_backing *made)
{
	struct model_block *block = model_block(mm, address);

	block->huge = true;
	for (unsigned i = 0; i < HOST_HUGE_PAGES; i++) {
		model_frame_get(&made->frames[i]);
		block->pages[i].state = MODEL_SYSTEM;
		block->pages[i].what = &made->frames[i];
	}
}

/* Gives the page a frame of its own: fresh, or a copy of the one it shares or
 * of zeros, which devices may have mapped: they are told. No lock held. */
static int own_frame(struct mm *mm, u64 address)
{
	struct model_backing *made = NULL;
	struct model_page *p;
	struct model_inv inv;
	bool huge, tell;

	host_mutex_lock(&mm->lock);
	p = model_page(mm, address);
	tell = p->state != MODEL_NONE;
	huge = huge_fits(mm, address) && !model_site_fails(mm, MODEL_FAIL_HUGE_PAGE);
	if (!huge && model_site_fails(mm, MODEL_FAIL_SYSTEM_PAGE)) {
		host_mutex_unlock(&mm->lock);
		return -ENOMEM;
	}
	host_mutex_unlock(&mm->lock);
	made = model_backing_alloc(huge ? HOST_HUGE_ORDER : 0);
	if (!made)
		return -ENOMEM;
	if (tell)
		(void)model_inv_begin(mm, &inv, address, address + HOST_PAGE_SIZE, MM_EVENT_CLEAR,
				      NULL, true);
	host_mutex_lock(&mm->lock);
	if (huge && huge_fits(mm, address)) {
		map_huge(mm, address, made);
		made = NULL;
	} else if (!huge && model_vma_at(mm, address) && !p->txn &&
		   (tell || p->state == MODEL_NONE) && p->state != MODEL_DEVICE &&
		   p->state != MODEL_SWAP) {
		struct model_block *block = model_block(mm, address);
		struct model_frame *old = p->state == MODEL_SYSTEM ? p->what : NULL;

		model_block_split(mm, block);
		if (old)
			model_cpu_copy(made->bytes, model_frame_bytes(old), HOST_PAGE_SIZE);
		model_frame_get(&made->frames[0]);
		p->state = MODEL_SYSTEM;
		p->what = &made->frames[0];
		if (old)
			model_frame_put(mm, old);
		made = NULL;
	}
	host_mutex_unlock(&mm->lock);
	if (tell)
		model_inv_end(mm, &inv);
	if (made)
		model_backing_free(made);
	return 0;
}

/* ---- Swap ------------------------------------------------------------------ */

/* May the page go? Lock held. */
static bool may_swap(struct mm *mm, u64 address)
{
	struct model_page *p = model_page(mm, address);
	struct model_vma *vma = model_vma_at(mm, address);
	struct model_frame *frame;

	if (!p || !vma || vma->flags & (MODEL_SHARED | MODEL_FILE) || p->state != MODEL_SYSTEM ||
	    p->txn || p->busy)
		return false;
	frame = p->what;
	return !p->owner && host_load_acquire(&frame->refs) == 1 && !host_load_acquire(&frame->dma);
}

int model_swap_out(struct mm *mm, u64 address)
{
	struct model_backing *slot;
	struct model_page *p;
	struct model_inv inv;
	int err = -EBUSY;

	if (!host_is_aligned(address, HOST_PAGE_SIZE))
		return -EINVAL;
	slot = model_backing_alloc(0);
	if (!slot)
		return -EBUSY;
	(void)model_inv_begin(mm, &inv, address, address + HOST_PAGE_SIZE, MM_EVENT_CLEAR, NULL,
			      true);
	host_mutex_lock(&mm->lock);
	/* Devices have let go: only now is it seen who else uses it. */
	if (may_swap(mm, address)) {
		model_block_split(mm, model_block(mm, address));
		p = model_page(mm, address);
		model_cpu_copy(slot->bytes, model_frame_bytes(p->what), HOST_PAGE_SIZE);
		model_frame_put(mm, p->what);
		model_frame_get(&slot->frames[0]);
		p->state = MODEL_SWAP;
		p->what = &slot->frames[0];
		slot = NULL;
		err = 0;
	}
	host_mutex_unlock(&mm->lock);
	model_inv_end(mm, &inv);
	if (slot)
		model_backing_free(slot);
	return err;
}

/* No lock held. What is in swap no device has: nobody is told. */
static int swap_in(struct mm *mm, u64 address)
{
	struct model_backing *made = NULL;
	struct model_page *p;

	if (!model_site_fails_locked_out(mm, MODEL_FAIL_SYSTEM_PAGE))
		made = model_backing_alloc(0);
	if (!made)
		return -ENOMEM;
	host_mutex_lock(&mm->lock);
	p = model_page(mm, address);
	if (p->state == MODEL_SWAP && !p->txn) {
		struct model_frame *slot = p->what;

		model_cpu_copy(made->bytes, model_frame_bytes(slot), HOST_PAGE_SIZE);
		model_frame_get(&made->frames[0]);
		p->state = MODEL_SYSTEM;
		p->what = &made->frames[0];
		model_frame_put(mm, slot);
		made = NULL;
	}
	host_mutex_unlock(&mm->lock);
	if (made)
		model_backing_free(made);
	return 0;
}

/* ---- Faults ---------------------------------------------------------------- */

/* A CPU fault on a device page. Lock held, and held again afterwards.
 * 0: look again; > 0: after so many ns; negative: lost. */
static s64 cpu_fault(struct mm *mm, u64 address, struct mm_page *page)
{
	struct mm_page *head = model_page_head(page);
	const struct mm_region_ops *ops = head->region->ops;
	struct mm_cpu_fault fault = { .mm = mm, .address = address, .page = head };
	s64 ret;

	mm->counters.cpu_faults++;
	fault.data = head->data;
	ops->hold(fault.data);
	host_mutex_unlock(&mm->lock);
	ret = ops->migrate_to_ram(&fault);
	ops->drop(fault.data);
	host_mutex_lock(&mm->lock);
	return ret;
}

void model_wait_some(struct mm *mm, u64 ns)
{
	u64 seen = host_load_acquire(&mm->changes);

	host_mutex_unlock(&mm->lock);
	(void)host_wait_until(&mm->waitq, host_load_acquire(&mm->changes) != seen,
			      host_now() + ns);
	host_mutex_lock(&mm->lock);
}

int model_settle(struct mm *mm, u64 address, bool write, struct model_page *p)
{
	struct model_vma *vma = model_vma_at(mm, address);
	struct model_frame *frame = p->what;
	int err;

	if (mm->exiting || !vma || !(vma->flags & (write ? MODEL_WRITE : MODEL_READ)))
		return -EFAULT;
	if (p->txn) {
		mm->counters.cpu_waits++;
		model_wait(mm);
		return 0;
	}
	if (p->owner) {
		model_give_back(mm, address, true);
		return 0;
	}
	if (p->state == MODEL_DEVICE) {
		s64 ret = cpu_fault(mm, address, p->what);

		/* One that could not be taken just now is not asked for again at once. */
		if (!ret && p->state == MODEL_DEVICE && !p->txn)
			ret = HOST_MSEC / 4;
		if (ret > 0)
			model_wait_some(mm, (u64)ret);
		return ret < 0 ? -EIO : 0;
	}
	if (p->state == MODEL_SWAP) {
		host_mutex_unlock(&mm->lock);
		err = swap_in(mm, address);
		host_mutex_lock(&mm->lock);
		return err;
	}
	if (p->state == MODEL_SYSTEM &&
	    (!write || vma->flags & MODEL_SHARED || model_frame_exclusive(frame)))
		return 1;
	if (!write && !(vma->flags & (MODEL_SHARED | MODEL_FILE))) {
		if (p->state == MODEL_NONE)
			p->state = MODEL_ZERO;
		return 1;
	}
	host_mutex_unlock(&mm->lock);
	err = own_frame(mm, address);
	host_mutex_lock(&mm->lock);
	return err;
}

int model_fault_in(struct mm *mm, u64 address, bool write, struct model_page **ret)
{
	int err = model_block_ensure(mm, address);

	if (err)
		return err;
	host_mutex_lock(&mm->lock);
	*ret = model_page(mm, address);
	do {
		err = model_settle(mm, address, write, *ret);
	} while (!err);
	if (err > 0)
		return 0;
	host_mutex_unlock(&mm->lock);
	return err;
}

/* ---- Accesses ------------------------------------------------------------ */

static u64 within_page(u64 address, u64 length)
{
	return host_min(length, HOST_PAGE_SIZE - (address & ~HOST_PAGE_MASK));
}

static u8 *page_bytes(struct model_page *p)
{
	return model_frame_bytes(p->state == MODEL_SYSTEM ? p->what : &model_zero_frame);
}

int model_cpu_read(struct mm *mm, u64 address, void *buffer, u64 length)
{
	while (length) {
		u64 n = within_page(address, length);
		struct model_page *p;
		int err = model_fault_in(mm, host_align_down(address, HOST_PAGE_SIZE), false, &p);

		if (err)
			return err;
		model_cpu_copy(buffer, page_bytes(p) + (address & ~HOST_PAGE_MASK), n);
		host_mutex_unlock(&mm->lock);
		address += n;
		length -= n;
		buffer = (u8 *)buffer + n;
	}
	return 0;
}

int model_cpu_write(struct mm *mm, u64 address, const void *buffer, u64 length)
{
	while (length) {
		u64 n = within_page(address, length);
		struct model_page *p;
		int err = model_fault_in(mm, host_align_down(address, HOST_PAGE_SIZE), true, &p);

		if (err)
			return err;
		model_cpu_copy(page_bytes(p) + (address & ~HOST_PAGE_MASK), buffer, n);
		host_mutex_unlock(&mm->lock);
		address += n;
		length -= n;
		buffer = (const u8 *)buffer + n;
	}
	return 0;
}

int model_cpu_add(struct mm *mm, u64 address, u64 operand)
{
	struct model_page *p;
	int err = model_fault_in(mm, host_align_down(address, HOST_PAGE_SIZE), true, &p);

	if (err)
		return err;
	/* A device may be at the same word, where both have the page. */
	(void)host_add_return((u64 *)(page_bytes(p) + (address & ~HOST_PAGE_MASK)), operand);
	host_mutex_unlock(&mm->lock);
	return 0;
}

int model_pin(struct mm *mm, u64 address, struct model_frame **ret)
{
	struct model_page *p;
	int err = model_fault_in(mm, host_align_down(address, HOST_PAGE_SIZE), true, &p);

	if (err)
		return err;
	*ret = p->what;
	model_frame_pin(*ret);
	host_mutex_unlock(&mm->lock);
	return 0;
}

void model_unpin(struct model_frame *pin)
{
	model_frame_unpin(pin);
}

void *model_pin_bytes(struct model_frame *pin)
{
	return model_frame_bytes(pin);
}

/* ---- mm_range_fault ------------------------------------------------------ */

mm_pfn_t model_page_pfn(const struct model_vma *vma, const struct model_page *p)
{
	bool writable = vma->flags & MODEL_WRITE;
	struct model_frame *frame = p->what;

	if (p->state == MODEL_DEVICE)
		return MM_PFN_VALID | MM_PFN_DEVICE | (writable ? MM_PFN_WRITE : 0) |
		       (mm_pfn_t)(uintptr_t)p->what;
	if (p->state == MODEL_ZERO)
		return MM_PFN_VALID | (mm_pfn_t)(uintptr_t)&model_zero_frame;
	if (!model_frame_exclusive(frame) && !(vma->flags & MODEL_SHARED))
		writable = false;
	return MM_PFN_VALID | (writable ? MM_PFN_WRITE : 0) | (p->owner ? MM_PFN_EXCLUSIVE : 0) |
	       (mm_pfn_t)(uintptr_t)frame;
}

/* Looks at one page, lock held: 1: *pfn is set; 0: the lock was dropped to do
 * something about it, look again; else the error. */
static int range_page(struct mm_range_fault *rf, u64 address, mm_pfn_t *pfn)
{
	struct mm *mm = rf->mm;
	struct model_vma *vma = model_vma_at(mm, address);
	struct model_page *p = model_page(mm, address);
	bool fault_in = rf->flags & MM_FAULT_IN, write = rf->flags & MM_FAULT_WRITE;
	bool keep;
	int ret;

	*pfn = 0;
	if (mm->exiting)
		return -EFAULT;
	if (mm_notifier_read_retry(rf->notifier, rf->seq))
		return -EBUSY;
	if (!vma || !(vma->flags & MODEL_READ))
		return fault_in ? -EFAULT : 1;
	if (fault_in && write && !(vma->flags & MODEL_WRITE))
		return -EPERM;
	if (!p && fault_in) {
		host_mutex_unlock(&mm->lock);
		ret = model_block_ensure(mm, address);
		host_mutex_lock(&mm->lock);
		return ret;
	}
	if (!p || (!fault_in &&
		   (p->txn || p->state == MODEL_NONE || p->state == MODEL_SWAP)))
		return 1;
	if (p->txn) {
		model_wait(mm);
		return -EBUSY;
	}
	keep = p->state == MODEL_DEVICE ? rf->keep && rf->keep(rf->keep_arg, p->what)
					: p->owner && p->owner == rf->owner;
	if (!fault_in && (p->state == MODEL_DEVICE || p->owner) && !keep)
		return 1;
	if (fault_in && !keep) {
		ret = model_settle(mm, address, write, p);
		if (!ret && p->state == MODEL_DEVICE)
			return -EBUSY; /* how often it is tried is up to the caller */
		if (ret != 1)
			return ret == -EIO ? -EFAULT : ret;
	}
	*pfn = model_page_pfn(vma, p);
	return 1;
}

/* Is pfns[b] what follows pfns[a] in memory, n pages on, and of its kind? */
static bool follows(mm_pfn_t a, mm_pfn_t b, unsigned n)
{
	mm_pfn_t kind = MM_PFN_VALID | MM_PFN_WRITE | MM_PFN_DEVICE | MM_PFN_EXCLUSIVE;

	if (!(a & MM_PFN_VALID) || ((a ^ b) & kind))
		return false;
	if (a & MM_PFN_DEVICE) {
		struct mm_page *p = (struct mm_page *)(uintptr_t)MM_PFN_PAYLOAD(a);
		struct mm_page *q = (struct mm_page *)(uintptr_t)MM_PFN_PAYLOAD(b);

		return p->region == q->region && p->data == q->data && q == p + n &&
		       !(mm_page_index(p) & (2 * (u64)n - 1));
	} else {
		struct model_frame *p = (struct model_frame *)(uintptr_t)MM_PFN_PAYLOAD(a);
		struct model_frame *q = (struct model_frame *)(uintptr_t)MM_PFN_PAYLOAD(b);

		return p->backing == q->backing && q == p + n &&
		       !((u64)(p - p->backing->frames) & (2 * (u64)n - 1));
	}
}

void model_set_orders(struct mm_range_fault *rf)
{
	u64 n = (rf->end - rf->start) >> HOST_PAGE_SHIFT, first = rf->start >> HOST_PAGE_SHIFT;

	for (unsigned order = 0; order < HOST_HUGE_ORDER; order++) {
		u64 run = (u64)1 << order, i = host_align_up(first, 2 * run) - first;

		for (; i + 2 * run <= n; i += 2 * run) {
			mm_pfn_t *a = &rf->pfns[i], *b = &rf->pfns[i + run];

			if (MM_PFN_ORDER(*a) != order || MM_PFN_ORDER(*b) != order ||
			    !follows(*a & ~MM_PFN_ORDER_MASK, *b & ~MM_PFN_ORDER_MASK,
				     (unsigned)run))
				continue;
			for (u64 k = i; k < i + 2 * run; k++)
				rf->pfns[k] += (mm_pfn_t)1 << MM_PFN_ORDER_SHIFT;
		}
	}
}

int mm_range_fault(struct mm_range_fault *rf)
{
	struct mm *mm = rf->mm;
	u64 n = (rf->end - rf->start) >> HOST_PAGE_SHIFT;
	int ret = 1;

	host_mutex_lock(&mm->lock);
	if (model_site_fails(mm, MODEL_FAIL_RANGE_FAULT))
		ret = -ENOMEM;
	else if (model_site_fails(mm, MODEL_FAIL_RANGE_BUSY))
		ret = -EBUSY;
	for (u64 i = 0; i < n && ret > 0; i++) {
		do {
			ret = range_page(rf, rf->start + i * HOST_PAGE_SIZE, &rf->pfns[i]);
		} while (!ret);
	}
	if (ret > 0)
		model_set_orders(rf);
	host_mutex_unlock(&mm->lock);
	return ret > 0 ? 0 : ret;
}

struct mm_page *mm_pfn_page(struct mm *mm, mm_pfn_t pfn)
{
	(void)mm;
	return (struct mm_page *)(uintptr_t)MM_PFN_PAYLOAD(pfn);
}
