/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * region.c: frames of devices.
 *
 * A frame knows where it is mapped (mm, address); both change under the lock of
 * that address space. A 2M one is kept as its head; the 511 after it carry the
 * same data and order, so that each can be asked about.
 */
#include "host/model/internal.h"

int mm_region_create(u64 npages, const struct mm_region_ops *ops, void *priv,
		     struct mm_region **ret)
{
	struct mm_region *region;

	if (!npages || npages % HOST_HUGE_PAGES)
		return -EINVAL;
	region = host_alloc_zeroed(sizeof(*region));
	if (!region)
		return -ENOMEM;
	region->pages = host_alloc_zeroed(npages * sizeof(region->pages[0]));
	if (!region->pages) {
		host_free(region);
		return -ENOMEM;
	}
	for (u64 i = 0; i < npages; i++)
		region->pages[i].region = region;
	region->npages = npages;
	region->ops = ops;
	region->priv = priv;
	*ret = region;
	return 0;
}

void mm_region_destroy(struct mm_region *region)
{
	if (HOST_WARN_ON(host_load_acquire(&region->used)))
		return;
	host_free(region->pages);
	host_free(region);
}

int mm_memory_add(struct mm *mm, void *base, u64 bytes)
{
	(void)mm;
	(void)base;
	(void)bytes;
	return -EOPNOTSUPP;
}

void mm_memory_remove(struct mm *mm, void *base, u64 bytes)
{
	(void)mm;
	(void)base;
	(void)bytes;
}

void mm_region_set_memory(struct mm_region *region, void *base)
{
	(void)region;
	(void)base;
}

void *mm_region_priv(struct mm_region *region)
{
	return region->priv;
}

u64 mm_region_overhead(const struct mm_region *region)
{
	return host_read_once(&region->used) * sizeof(struct mm_page);
}

u64 model_region_used(struct mm_region *region)
{
	return host_load_acquire(&region->used);
}

struct mm_page *mm_page_init(struct mm_region *region, u64 index, unsigned order, void *data)
{
	struct mm_page *head = &region->pages[index];
	u64 n = (u64)1 << order;

	HOST_CHECK(index + n <= region->npages && !(index & (n - 1)));
	for (u64 i = 0; i < n; i++) {
		HOST_CHECK(!head[i].used);
		head[i].used = true;
		head[i].order = order;
		head[i].data = data;
	}
	host_add_return(&region->used, n);
	return head;
}

bool model_page_used(struct mm_region *region, u64 index)
{
	return region->pages[index].used;
}

void mm_page_abandon(struct mm_page *page)
{
	HOST_CHECK(page->used && !host_load_acquire(&page->mm));
	model_page_free(page);
}

struct mm_region *mm_page_region(const struct mm_page *page)
{
	return page->region;
}

u64 mm_page_index(const struct mm_page *page)
{
	return (u64)(page - page->region->pages);
}

unsigned mm_page_order(const struct mm_page *page)
{
	return host_read_once(&page->order);
}

void *mm_page_data(const struct mm_page *page)
{
	return page->data;
}

struct mm_page *model_page_head(struct mm_page *page)
{
	u64 n = (u64)1 << mm_page_order(page);

	return page - (mm_page_index(page) & (n - 1));
}

void model_page_place(struct mm_page *head, struct mm *mm, u64 address)
{
	unsigned n = 1u << mm_page_order(head);

	for (unsigned i = 0; i < n; i++) {
		head[i].address = address + i * HOST_PAGE_SIZE;
		host_store_release(&head[i].mm, mm);
	}
}

void model_page_split(struct mm_page *head)
{
	unsigned n = 1u << mm_page_order(head);

	if (n == 1)
		return;
	head->region->ops->split(head->data, n - 1);
	for (unsigned i = 0; i < n; i++)
		host_write_once(&head[i].order, 0);
}

void model_page_free(struct mm_page *head)
{
	struct mm_region *region = head->region;
	void *data = head->data;
	unsigned order = mm_page_order(head);
	u64 n = (u64)1 << order;

	for (u64 i = 0; i < n; i++)
		head[i].used = false;
	host_add_return(&region->used, -n);
	region->ops->free(head, order, data);
}

void model_pages_free(struct mm_page *list)
{
	while (list) {
		struct mm_page *page = list;

		list = page->next;
		model_page_free(page);
	}
}

const char *model_region_check(struct mm_region *region)
{
	u64 used = 0;

	for (u64 i = 0; i < region->npages; i++) {
		struct mm_page *page = &region->pages[i];

		if (!page->used)
			continue;
		used++;
		if (!page->mm)
			return "a device frame is used but mapped nowhere";
	}
	return used == model_region_used(region) ? NULL : "device frames are miscounted";
}
