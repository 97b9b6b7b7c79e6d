/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * cache.c: a pagemap that is made when it is first needed, and kept for a while when
 * nobody needs it any more.
 *
 *	dormant  no region, no reference
 *	active   references; the region is there
 *	idle     no reference; the region is still there, and will be taken down when it
 *		 has been idle for long enough, or at once when memory is short
 *
 *	dormant --get: makes the region--> active --last put--> idle --get--> active
 *	idle --keepalive is over, or memory is short (a host_shrinker)--> dormant
 *
 * Concurrency: the count is atomic, and only reaches 0 by a put, which calls idle and
 * changes nothing else. From 0 to 1, and the region's coming and going, are under
 * lock: who revives finds the region or makes one; who shrinks takes it out where the
 * count is 0, and destroys it after. An idle that is late, because it was revived and
 * put again meanwhile, only sets the clock back: the owner counts one activation for each
 * (see gpusvm_pagemap_cache_get), so that the cache outlives it.
 * A region is made and destroyed with no lock held; of two that make one at once, one is
 * destroyed again.
 */
#include "core/pagemap/internal.h"

static void shrink_work(struct host_work *work);

/* What its region's tables take, roughly. */
static u64 idle_bytes(struct host_shrinker *shrinker)
{
	struct gpusvm_pagemap_cache *cache =
	    host_container_of(shrinker, struct gpusvm_pagemap_cache, shrinker);
	bool idle = !host_load_seq(&cache->pagemap->ref.count) &&
		    host_load_acquire(&cache->pagemap->region);

	return idle ? cache->npages * sizeof(u64) : 0;
}

static u64 shrink_now(struct host_shrinker *shrinker)
{
	struct gpusvm_pagemap_cache *cache =
	    host_container_of(shrinker, struct gpusvm_pagemap_cache, shrinker);
	u64 bytes = idle_bytes(shrinker);

	return gpusvm_pagemap_cache_shrink(cache) ? bytes : 0;
}

static const struct host_shrinker_ops shrinker_ops = {.count = idle_bytes, .scan = shrink_now};

int gpusvm_pagemap_cache_init(struct gpusvm_pagemap_cache *cache, struct gpusvm_pagemap *pagemap,
			      const struct gpusvm_pagemap_ops *ops, u64 npages, u64 keepalive)
{
	*pagemap = (struct gpusvm_pagemap){.ops = ops};
	*cache = (struct gpusvm_pagemap_cache){
	    .pagemap = pagemap,
	    .npages = npages,
	    .keepalive = keepalive,
	};
	host_mutex_init(&cache->lock, RANK_LEAF);
	host_work_init(&cache->shrink, shrink_work);
	return host_shrinker_register(&cache->shrinker, "gpusvm-pagemap", &shrinker_ops);
}

void gpusvm_pagemap_cache_fini(struct gpusvm_pagemap_cache *cache)
{
	host_shrinker_unregister(&cache->shrinker);
	host_work_cancel(&cache->shrink);
	HOST_WARN_ON(!gpusvm_pagemap_cache_shrink(cache));
	host_free(cache->pagemap->scratch);
	host_mutex_destroy(&cache->lock);
}

/* From 0 to 1, if there is a region, or with this one. Lock. */
static bool activate(struct gpusvm_pagemap *pagemap, struct mm_region *made)
{
	if (!pagemap->region && !made)
		return false;
	if (!pagemap->region)
		host_store_release(&pagemap->region, made); /* idle_bytes() looks */
	/* An exchange, not a store: what users before did comes before what is done when
	 * this use is over, too. */
	(void)host_xchg(&pagemap->ref.count, 1);
	return true;
}

int gpusvm_pagemap_cache_get(struct gpusvm_pagemap_cache *cache)
{
	struct gpusvm_pagemap *pagemap = cache->pagemap;
	struct mm_region *made = NULL;
	bool had, active, used;

	if (host_load_acquire(&pagemap->revoked))
		return -ENODEV;
	for (;;) {
		host_mutex_lock(&cache->lock);
		had = host_ref_get_unless_zero(&pagemap->ref);
		active = had || activate(pagemap, made);
		used = active && pagemap->region == made;
		host_mutex_unlock(&cache->lock);
		if (active)
			break;
		if (pagemap_region_create(pagemap, cache->npages, &made))
			return -ENOMEM;
	}
	if (made && !used)
		mm_region_destroy(made);
	return !had;
}

void gpusvm_pagemap_cache_idle(struct gpusvm_pagemap_cache *cache)
{
	host_write_once(&cache->idle_since, host_now());
	host_work_queue_after(&cache->shrink, cache->keepalive);
	host_shrinker_wake(&cache->shrinker);
}

bool gpusvm_pagemap_cache_shrink(struct gpusvm_pagemap_cache *cache)
{
	struct gpusvm_pagemap *pagemap = cache->pagemap;
	struct mm_region *region = NULL;
	void *scratch = NULL;
	bool idle;

	host_mutex_lock(&cache->lock);
	idle = !host_load_seq(&pagemap->ref.count);
	if (idle) {
		region = pagemap->region;
		host_store_release(&pagemap->region, NULL);
		scratch = host_xchg(&pagemap->scratch, NULL);
	}
	host_mutex_unlock(&cache->lock);
	host_free(scratch);
	if (region)
		mm_region_destroy(region);
	return idle;
}

/* Queued by each idle, so that one that finds it active need not come again. */
static void shrink_work(struct host_work *work)
{
	struct gpusvm_pagemap_cache *cache =
	    host_container_of(work, struct gpusvm_pagemap_cache, shrink);
	u64 until = host_read_once(&cache->idle_since) + cache->keepalive, now = host_now();

	if (now < until)
		host_work_queue_after(&cache->shrink, until - now);
	else
		(void)gpusvm_pagemap_cache_shrink(cache);
}
