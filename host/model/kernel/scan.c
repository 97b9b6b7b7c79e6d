/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* scan.c: what /proc tells: PROCMAP_QUERY and PAGEMAP_SCAN. */
#include "host/model/kernel/internal.h"

#define PAGE HOST_PAGE_SIZE

int scan_vma(u64 address, struct userfault_vma *ret)
{
	struct space *s = kernel_self();
	struct area *a;

	step();
	mmap_read_lock(s);
	a = area_next(s, address);
	if (a)
		*ret = (struct userfault_vma){.start = a->start,
					      .end = a->end,
					      .page_size = (u32)PAGE,
					      .read = a->protection & KERNEL_READ,
					      .write = a->protection & KERNEL_WRITE};
	mmap_read_unlock(s);
	step();
	return a ? 0 : -ENOENT;
}

static u64 categories(struct space *s, u64 at)
{
	struct table *t = table_find(s, at);
	const struct pte *p = pte_look(s, at);

	if (!area_find(s, at) || !p || pte_none(p))
		return 0;
	if (p->flags & (PTE_MIGRATING | PTE_POISON))
		return PAGE_IS_SWAPPED;
	return PAGE_IS_PRESENT | (p->flags & PTE_ZERO ? PAGE_IS_PFNZERO : 0) |
	       (t->huge ? PAGE_IS_HUGE : 0);
}

int scan_pages(u64 start, u64 end, u64 mask, struct page_region *ret, unsigned n)
{
	struct space *s = kernel_self();
	unsigned found = 0;

	step();
	mmap_read_lock(s);
	for (u64 at = start; at < end; at += PAGE) {
		u64 c = categories(s, at);

		if (!(c & mask))
			continue;
		if (found && ret[found - 1].end == at && ret[found - 1].categories == c) {
			ret[found - 1].end += PAGE;
			continue;
		}
		if (found == n)
			break;
		ret[found++] = (struct page_region){.start = at, .end = at + PAGE, .categories = c};
	}
	mmap_read_unlock(s);
	step();
	return (int)found;
}
