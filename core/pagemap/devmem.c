/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * devmem.c: a devmem's references and frames.
 *
 * Each page of the home that is made of its frames (4K, or one of 2M) holds one
 * reference, which the home gives back through free: from a notifier, from the
 * end of a migration, from wherever the last use of a page ends. So everything
 * here is atomics and the driver's short ops.
 *
 * Locking: none. resident is changed with full order: gpusvm_devmem_evict
 * sleeps on it, and a revocation is ordered against it (see migrate.c).
 */
#include "core/pagemap/internal.h"

void gpusvm_devmem_init(struct gpusvm_devmem *devmem, const struct gpusvm_devmem_ops *ops,
			struct gpusvm_pagemap *pagemap, struct mm *mm, unsigned npages,
			struct gpusvm_fence *after)
{
	HOST_ASSERT(npages && npages <= HOST_HUGE_PAGES);
	devmem->ops = ops;
	devmem->pagemap = gpusvm_pagemap_get(pagemap);
	mm_get(mm);
	devmem->mm = mm;
	host_ref_init(&devmem->ref);
	devmem->npages = npages;
	devmem->resident = 0;
	devmem->unplaced = npages;
	devmem->compound = 0;
	devmem->timeslice_end = 0;
	devmem->after = gpusvm_fence_get(after);
	devmem->exact = 0;
	devmem->window = 0;
	host_waitq_init(&devmem->detached);
}

bool gpusvm_devmem_get_unless_zero(struct gpusvm_devmem *devmem)
{
	return host_ref_get_unless_zero(&devmem->ref);
}

void gpusvm_devmem_put(struct gpusvm_devmem *devmem)
{
	struct gpusvm_pagemap *pagemap = devmem->pagemap;
	struct gpusvm_fence *after = devmem->after;
	struct mm *mm = devmem->mm;

	if (!host_ref_put(&devmem->ref))
		return;
	if (devmem->unplaced)
		pagemap_free_frames(devmem, 0, devmem->npages);
	host_waitq_destroy(&devmem->detached);
	if (devmem->ops->release)
		devmem->ops->release(devmem);
	gpusvm_fence_put(after);
	mm_put(mm);
	gpusvm_pagemap_put(pagemap);
}

/* The order of the largest aligned piece of consecutive frames at page i. */
static unsigned piece(struct gpusvm_devmem *devmem, unsigned i, unsigned last, u64 frame)
{
	unsigned order = 0, n = 1;

	while (order < HOST_HUGE_ORDER && host_is_aligned(frame, 2ull << order) &&
	       i + (2u << order) <= last) {
		for (; n < 2u << order; n++)
			if (devmem->ops->frame(devmem, i + n) != frame + n)
				return order;
		order++;
	}
	return order;
}

void pagemap_free_frames(struct gpusvm_devmem *devmem, unsigned first, unsigned last)
{
	while (first < last) {
		u64 frame = devmem->ops->frame(devmem, first);
		unsigned order = piece(devmem, first, last, frame);

		devmem->ops->free_frames(devmem, frame, order);
		first += 1u << order;
	}
}

void pagemap_region_free(struct mm_page *page, unsigned order, void *data)
{
	struct gpusvm_devmem *devmem = data;

	devmem->ops->free_frames(devmem, mm_page_index(page), order);
	/* The reference of this page outlives the wake. */
	if (host_add_return(&devmem->resident, -(1u << order)) == 0)
		host_wake_all(&devmem->detached);
	gpusvm_devmem_put(devmem);
}

void pagemap_region_split(void *data, unsigned extra)
{
	struct gpusvm_devmem *devmem = data;

	host_add_relaxed(&devmem->ref.count, extra);
	host_write_once(&devmem->compound, 0);
}

void pagemap_region_hold(void *data)
{
	struct gpusvm_devmem *devmem = data;

	host_ref_get(&devmem->ref);
}

void pagemap_region_drop(void *data)
{
	gpusvm_devmem_put(data);
}

int pagemap_region_read(struct mm_page *page, unsigned i, void *buffer)
{
	struct gpusvm_devmem *devmem = mm_page_data(page);
	struct gpusvm_copy copy = {
		.dst = pagemap_dma_addr((mm_dma_t)(uintptr_t)buffer, true),
		.src = pagemap_frame_addr(mm_page_index(page) + i, false),
		.length = HOST_PAGE_SIZE,
	};

	if (devmem->ops->read) {
		devmem->ops->read(devmem, mm_page_index(page) + i, buffer);
		return 0;
	}
	if (!host_is_aligned((u64)(uintptr_t)buffer, HOST_PAGE_SIZE))
		return -EINVAL;
	return devmem->ops->copy(devmem, &copy, 1, NULL, NULL);
}

bool pagemap_select_devmem(void *devmem, struct mm_page *page)
{
	return mm_page_data(page) == devmem;
}
