/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * region.c: page frames of devices.
 *
 * A frame costs eight bytes. A compound frame of 2M has one struct in a table
 * of its own, so that the big table is not even touched for it. rmap follows
 * the rule of home.h; data is set by whoever owns the frame: between
 * mm_page_init and commit the caller, later the page's state.
 *
 * Who looks for a page's region goes through all of them, with no lock. One that is
 * destroyed meanwhile cannot be the page's, whose own is in use: it must only stay
 * readable. So its tables go at once, and the struct with the home.
 */
#include "host/userfault/home.h"
#include "host/posix/posix.h"

#include <sys/mman.h>

/* The lowest numbers for npages frames that no region has. Those of a region that is gone
 * are free: none of its frames was in use. regions_lock held. */
static bool find_base(struct mm *mm, u64 npages, u32 *ret)
{
	u64 base = HOST_HUGE_PAGES; /* ids begin above 0 */
	unsigned i = 0;

	while (i < REGIONS) {
		const struct mm_region *r = mm->regions[i++];

		if (!r || base + npages <= r->base || base >= r->base + r->npages)
			continue;
		base = r->base + r->npages; /* behind it, and all over again */
		i = 0;
	}
	*ret = (u32)base;
	return base + npages <= ENTRY_ID_MASK;
}

int mm_region_create(u64 npages, const struct mm_region_ops *ops, void *priv,
		     struct mm_region **ret)
{
	struct mm *mm = the_mm;
	struct mm_region *r;
	unsigned slot;

	if (!npages || !host_is_aligned(npages, HOST_HUGE_PAGES))
		return -EINVAL;
	r = host_alloc_zeroed(sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->mm = mm;
	r->ops = ops;
	r->priv = priv;
	r->npages = npages;
	r->pages = host_alloc_pages(host_align_up(npages * sizeof(*r->pages), HOST_PAGE_SIZE));
	r->heads = host_alloc_pages(
	    host_align_up(npages / HOST_HUGE_PAGES * sizeof(*r->heads), HOST_PAGE_SIZE));
	r->small = host_alloc_zeroed(npages / HOST_HUGE_PAGES);
	if (!r->pages || !r->heads || !r->small)
		goto fail;
	host_mutex_lock(&mm->regions_lock);
	for (slot = 0; slot < REGIONS && mm->regions[slot]; slot++)
		;
	if (slot == REGIONS || !find_base(mm, npages, &r->base)) {
		host_mutex_unlock(&mm->regions_lock);
		goto fail;
	}
	host_store_release(&mm->regions[slot], r);
	host_mutex_unlock(&mm->regions_lock);
	*ret = r;
	return 0;
fail:
	host_free(r->small);
	if (r->pages)
		host_free_pages(r->pages,
				host_align_up(npages * sizeof(*r->pages), HOST_PAGE_SIZE));
	if (r->heads)
		host_free_pages(
		    r->heads,
		    host_align_up(npages / HOST_HUGE_PAGES * sizeof(*r->heads), HOST_PAGE_SIZE));
	host_free(r);
	return -ENOMEM;
}

int mm_memory_add(struct mm *mm, void *base, u64 bytes)
{
	u64 start = (u64)(uintptr_t)base;
	int err;

	/* Pages that go there must be seen to be populated: see move_run. */
	if (!base || !host_is_aligned(start | bytes, HOST_HUGE_SIZE) || !mm->info.move ||
	    !mm->info.pagemap_scan)
		return -EOPNOTSUPP;
	/* What a child shares cannot be moved. */
	err = mm->sys->madvise(start, bytes, MADV_DONTFORK);
	if (!err)
		err = uffd_register(mm, mm->fd, start, bytes, UFFDIO_REGISTER_MODE_MISSING);
	if (err) {
		(void)mm->sys->madvise(start, bytes, MADV_DOFORK);
		return -EOPNOTSUPP;
	}
	return 0;
}

/* It is as it was before. */
void mm_memory_remove(struct mm *mm, void *base, u64 bytes)
{
	u64 start = (u64)(uintptr_t)base;

	uffd_unregister(mm, mm->fd, start, bytes);
	(void)drop_pages(mm, start, bytes);
	(void)mm->sys->madvise(start, bytes, MADV_DOFORK);
}

void mm_region_set_memory(struct mm_region *r, void *base)
{
	host_store_release(&r->memory, (u64)(uintptr_t)base);
}

u64 frame_memory(struct mm *mm, u32 id)
{
	struct mm_region *r = mm_page_region(frame_page(mm, id, false));
	u64 memory = host_load_acquire(&r->memory);

	return memory ? memory + ((u64)(id - r->base) << HOST_PAGE_SHIFT) : 0;
}

bool regions_contain(struct mm *mm, u64 address)
{
	for (unsigned i = 0; i < REGIONS; i++) {
		struct mm_region *r = host_load_acquire(&mm->regions[i]);
		u64 memory = r ? host_load_acquire(&r->memory) : 0;

		if (memory && address - memory < r->npages << HOST_PAGE_SHIFT)
			return true;
	}
	return false;
}

void mm_region_destroy(struct mm_region *r)
{
	struct mm *mm = r->mm;

	if (HOST_WARN_ON(host_read_once(&r->used_small) || host_read_once(&r->used_heads)))
		return;
	host_mutex_lock(&mm->regions_lock);
	for (unsigned i = 0; i < REGIONS; i++)
		if (mm->regions[i] == r)
			host_store_release(&mm->regions[i], NULL);
	r->gone = mm->gone_regions;
	mm->gone_regions = r;
	host_mutex_unlock(&mm->regions_lock);
	host_free(r->small);
	host_free_pages(r->pages, host_align_up(r->npages * sizeof(*r->pages), HOST_PAGE_SIZE));
	host_free_pages(r->heads, host_align_up(r->npages / HOST_HUGE_PAGES * sizeof(*r->heads),
						HOST_PAGE_SIZE));
}

void regions_fini(struct mm *mm)
{
	while (mm->gone_regions) {
		struct mm_region *r = mm->gone_regions;

		mm->gone_regions = r->gone;
		host_free(r);
	}
}

void *mm_region_priv(struct mm_region *r)
{
	return r->priv;
}

static bool is_head(const struct mm_region *r, const struct mm_page *page)
{
	return page >= r->heads && page < r->heads + r->npages / HOST_HUGE_PAGES;
}

struct mm_region *mm_page_region(const struct mm_page *page)
{
	for (unsigned i = 0; i < REGIONS; i++) {
		struct mm_region *r = host_load_acquire(&the_mm->regions[i]);

		if (r && ((page >= r->pages && page < r->pages + r->npages) || is_head(r, page)))
			return r;
	}
	HOST_CHECK(!"a page of no region");
	return NULL;
}

unsigned mm_page_order(const struct mm_page *page)
{
	return is_head(mm_page_region(page), page) ? HOST_HUGE_ORDER : 0;
}

u64 mm_page_index(const struct mm_page *page)
{
	struct mm_region *r = mm_page_region(page);

	return is_head(r, page) ? (u64)(page - r->heads) << HOST_HUGE_ORDER
				: (u64)(page - r->pages);
}

void *mm_page_data(const struct mm_page *page)
{
	u32 data = host_load_acquire(&page->data);
	const struct mm_region *r;

	if (!data) {
		/* A compound one that an event split under its transaction: the small
		 * ones, filled before it was emptied, have what it had. */
		r = mm_page_region(page);
		if (is_head(r, page))
			data = host_read_once(&r->pages[mm_page_index(page)].data);
	}
	return host_arena_expand(data);
}

struct mm_page *mm_page_init(struct mm_region *r, u64 index, unsigned order, void *data)
{
	struct mm_page *page = order ? &r->heads[index >> HOST_HUGE_ORDER] : &r->pages[index];

	/* A frame given out twice would lose somebody's page: not to be gone on from. */
	HOST_CHECK(index < r->npages && !page->data);
	HOST_CHECK(order ? !r->pages[index].data : !r->heads[index >> HOST_HUGE_ORDER].data);
	if (!order)
		host_write_once(&r->small[index >> HOST_HUGE_ORDER], 1);
	host_write_once(&page->rmap, RMAP_NONE);
	host_write_once(&page->data, host_arena_compress(data));
	host_add_relaxed(order ? &r->used_heads : &r->used_small, 1);
	return page;
}

void mm_page_abandon(struct mm_page *page)
{
	frame_free(page);
}

u64 mm_region_overhead(const struct mm_region *r)
{
	u64 small = host_read_once(&r->used_small), heads = host_read_once(&r->used_heads);

	/* A frame and the word of the address that it backs; a compound one and its
	 * block, which has no words of its own. */
	return small * (sizeof(struct mm_page) + sizeof(entry_t)) +
	       heads * (sizeof(struct mm_page) + sizeof(struct block));
}

struct mm_page *frame_page(struct mm *mm, u32 id, bool head)
{
	for (unsigned i = 0; i < REGIONS; i++) {
		struct mm_region *r = host_load_acquire(&mm->regions[i]);

		if (r && id >= r->base && id - r->base < r->npages)
			return head ? &r->heads[(id - r->base) >> HOST_HUGE_ORDER]
				    : &r->pages[id - r->base];
	}
	HOST_CHECK(!"a frame of no region");
	return NULL;
}

u32 frame_id(const struct mm_page *page)
{
	return mm_page_region(page)->base + (u32)mm_page_index(page);
}

void frame_free(struct mm_page *page)
{
	struct mm_region *r = mm_page_region(page);
	bool head = is_head(r, page);
	void *data = mm_page_data(page);

	host_write_once(&page->rmap, RMAP_NONE);
	host_write_once(&page->data, 0);
	host_add_relaxed(head ? &r->used_heads : &r->used_small, (u64)-1);
	r->ops->free(page, head ? HOST_HUGE_ORDER : 0, data);
}

struct mm_page *frame_split(struct mm *mm, struct mm_page *head)
{
	struct mm_region *r = mm_page_region(head);
	struct mm_page *small = &r->pages[mm_page_index(head)];
	u32 data = head->data;
	rmap_t at = head->rmap;

	(void)mm;
	r->ops->split(host_arena_expand(data), HOST_HUGE_PAGES - 1);
	host_write_once(&r->small[mm_page_index(head) >> HOST_HUGE_ORDER], 1);
	for (unsigned i = 0; i < HOST_HUGE_PAGES; i++) {
		host_write_once(&small[i].rmap, at ? at + i : RMAP_NONE);
		host_write_once(&small[i].data, data);
	}
	host_write_once(&head->rmap, RMAP_NONE);
	host_store_release(&head->data, 0);
	host_add_relaxed(&r->used_heads, (u64)-1);
	host_add_relaxed(&r->used_small, HOST_HUGE_PAGES);
	return small;
}

void frames_free(struct mm *mm, struct frame_list *list)
{
	while (list) {
		struct frame_list *next = list->next;

		for (u32 i = 0; i < list->n; i++)
			frame_free(frame_page(mm, list->frames[i] >> 1, list->frames[i] & 1));
		host_free(list);
		list = next;
	}
}
