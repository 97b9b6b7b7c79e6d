/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * pagemap.c: the life of a pagemap, and the way in for population.
 *
 * Locking: none. The reference count is atomic; revoked is written once, and
 * ordered against the accounting of a migration (see migrate.c).
 */
#include "core/pagemap/internal.h"

static const struct mm_region_ops region_ops = {
	.migrate_to_ram = pagemap_region_to_ram,
	.free = pagemap_region_free,
	.split = pagemap_region_split,
	.hold = pagemap_region_hold,
	.drop = pagemap_region_drop,
	.read = pagemap_region_read,
};

int pagemap_region_create(struct gpusvm_pagemap *pagemap, u64 npages, struct mm_region **ret)
{
	int err = mm_region_create(npages, &region_ops, pagemap, ret);

	if (!err && pagemap->memory)
		mm_region_set_memory(*ret, pagemap->memory);
	return err;
}

int gpusvm_pagemap_init(struct gpusvm_pagemap *pagemap, const struct gpusvm_pagemap_ops *ops,
			u64 npages)
{
	pagemap->ops = ops;
	host_ref_init(&pagemap->ref);
	pagemap->revoked = 0;
	pagemap->faults[0] = pagemap->faults[1] = 0;
	pagemap->scratch = NULL;
	pagemap->memory = NULL;
	pagemap->dev = NULL;
	return pagemap_region_create(pagemap, npages, &pagemap->region);
}

void gpusvm_pagemap_fini(struct gpusvm_pagemap *pagemap)
{
	host_free(pagemap->scratch);
	mm_region_destroy(pagemap->region);
}

struct gpusvm_pagemap *gpusvm_pagemap_get(struct gpusvm_pagemap *pagemap)
{
	if (pagemap)
		host_ref_get(&pagemap->ref);
	return pagemap;
}

void gpusvm_pagemap_put(struct gpusvm_pagemap *pagemap)
{
	if (pagemap && host_ref_put(&pagemap->ref))
		pagemap->ops->destroy(pagemap);
}

void gpusvm_pagemap_revoke(struct gpusvm_pagemap *pagemap)
{
	host_store_seq(&pagemap->revoked, 1);
}

struct gpusvm_pagemap *gpusvm_page_pagemap(const struct mm_page *page)
{
	return mm_region_priv(mm_page_region(page));
}

struct gpusvm_devmem *gpusvm_page_devmem(const struct mm_page *page)
{
	return mm_page_data(page);
}

int gpusvm_pagemap_populate(struct gpusvm_pagemap *pagemap, struct mm *mm, u64 start, u64 end,
			    u64 timeslice, struct gpusvm_migrate_result *result)
{
	int err;

	*result = (struct gpusvm_migrate_result){ 0 };
	if (host_load_acquire(&pagemap->revoked))
		return -ENODEV;
	if (!mm_use(mm))
		return -EFAULT;
	err = pagemap->ops->populate_mm(pagemap, mm, start, end, timeslice, result);
	mm_unuse(mm);
	return err;
}
