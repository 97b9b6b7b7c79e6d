/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * memory.c: device memory: buffer objects, their frames, the order of their use,
 * and eviction.
 *
 * A buffer object is a devmem: at most 2M of frames, one block where the device
 * has one, else several. It lives as long as one of its frames backs an address.
 *
 * Locking
 *   lru_lock  the list by last use. Using an object only sets its `used` (an
 *             atomic), which gives it a second chance when it comes to the head.
 *   Nothing that a devmem op does takes a lock, since the mm may call it from
 *   anywhere (CPU faults, notifiers): frames that fall out of use are bits in
 *   dd->freed, released objects are on the stack dd->dead, both changed by
 *   atomics; a prefetch at its end, or whoever allocates next, drains them
 *   (driver_memory_drain).
 *   Eviction runs with no lock of its own: the victim is kept by a reference, and
 *   `evicting` keeps others off it.
 */
#include "driver/bo.h"

#define EVICT_TRIES 8u /* passes over all objects that are to go */
#define EVICT_BUDGET (5 * HOST_SEC)

/* ---- Frames --------------------------------------------------------------- */

static void used_add(struct driver_device *dd, u64 frames)
{
	u64 used = host_add_return(&dd->stats.vram_used, frames << HOST_PAGE_SHIFT);

	driver_count_max(&dd->stats.vram_peak, used);
}

static void used_sub(struct driver_device *dd, u64 frames)
{
	host_add_return(&dd->stats.vram_used, 0 - (frames << HOST_PAGE_SHIFT));
}

/* Frees [frame, frame + n), which was not counted, in aligned blocks. */
static void free_frames(struct driver_device *dd, u64 frame, u64 n)
{
	while (n) {
		unsigned order = 0;

		while (order < HOST_HUGE_ORDER && host_is_aligned(frame, (u64)2 << order) &&
		       (u64)2 << order <= n)
			order++;
		dd->ops->memory_free(dd->device, frame, order);
		frame += (u64)1 << order;
		n -= (u64)1 << order;
	}
}

/* The first n of 1 << order frames, aligned to that. What is more was never in use. */
static int take_frames(struct driver_device *dd, unsigned order, u64 n, u64 *frame)
{
	int err = dd->ops->memory_alloc(dd->device, order, frame);

	if (err)
		return err;
	free_frames(dd, *frame + n, ((u64)1 << order) - n);
	used_add(dd, n);
	return 0;
}

static void give_frames(struct driver_device *dd, u64 frame, u64 n)
{
	used_sub(dd, n);
	free_frames(dd, frame, n);
}

/* Notes that frames are free. The bit in freed comes before that in
 * freed_index, the drain clears them in the other order: none is lost. Context:
 * any. */
static void defer_frames(struct driver_device *dd, u64 frame, unsigned order)
{
	u64 n = (u64)1 << order, word = frame >> 6, words = (n + 63) >> 6;
	u64 mask = n < 64 ? (((u64)1 << n) - 1) << (frame & 63) : ~(u64)0;

	/* First: as soon as a bit is seen the frame may be taken anew, and counted. */
	used_sub(dd, n);
	for (; words; words--, word++) {
		host_fetch_or(&dd->freed[word], mask);
		if (!(host_load_seq(&dd->freed_index[word >> 6]) & (u64)1 << (word & 63)))
			host_fetch_or(&dd->freed_index[word >> 6], (u64)1 << (word & 63));
	}
	host_store_seq(&dd->freed_pending, 1);
}

/* Frees frames of a word of freed that were marked in it. */
static void free_word(struct driver_device *dd, u64 word, u64 bits)
{
	while (bits) {
		unsigned at = (unsigned)__builtin_ctzll(bits), order = 0;
		u64 mask = 1;

		while (order < 6 && !(at & ((2u << order) - 1))) {
			u64 wider = order == 5 ? ~(u64)0 : ((u64)1 << (2u << order)) - 1;

			if ((bits >> at & wider) != wider)
				break;
			mask = wider;
			order++;
		}
		dd->ops->memory_free(dd->device, (word << 6) + at, order);
		bits &= ~(mask << at);
	}
}

#define HUGE_WORDS (HOST_HUGE_PAGES / 64)

/* The words of 2M from this one on. What was one block is so again at once. */
static void drain_words(struct driver_device *dd, u64 word)
{
	u64 bits[HUGE_WORDS], all = ~(u64)0;

	for (unsigned i = 0; i < HUGE_WORDS; i++) {
		bits[i] = host_read_once(&dd->freed[word + i]);
		if (bits[i])
			bits[i] = host_xchg(&dd->freed[word + i], 0);
		all &= bits[i];
	}
	if (!~all)
		dd->ops->memory_free(dd->device, word << 6, HOST_HUGE_ORDER);
	for (unsigned i = 0; ~all && i < HUGE_WORDS; i++)
		free_word(dd, word + i, bits[i]);
}

static void drain_frames(struct driver_device *dd)
{
	u64 words = (dd->npages + 63) >> 6, i;

	if (!host_load_seq(&dd->freed_pending) || !host_xchg(&dd->freed_pending, 0))
		return;
	for (i = 0; i < (words + 63) >> 6; i++) {
		u64 index = host_read_once(&dd->freed_index[i]);

		if (index)
			index = host_xchg(&dd->freed_index[i], 0);
		while (index) {
			unsigned at = (unsigned)__builtin_ctzll(index) & ~(HUGE_WORDS - 1);

			drain_words(dd, (i << 6) + at);
			index &= ~((((u64)1 << HUGE_WORDS) - 1) << at);
		}
	}
}

/* ---- Frames of one object ---------------------------------------------------- */

/* Blocks of 1 << order become twice as many of half the size. */
static void split_blocks(u32 *blocks, unsigned n, unsigned order)
{
	while (n--) {
		blocks[2 * n + 1] = blocks[n] + (1u << (order - 1));
		blocks[2 * n] = blocks[n];
	}
}

static void free_blocks(struct driver_device *dd, const u32 *blocks, unsigned n, unsigned order)
{
	while (n--)
		give_frames(dd, blocks[n], (u64)1 << order);
}

/* No single block is to be had: the largest there are, down to 4K. */
static int alloc_scattered(struct driver_device *dd, struct driver_bo *bo, unsigned npages,
			   unsigned order)
{
	u32 *blocks = host_alloc(((u64)npages + 1) * sizeof(*blocks));
	unsigned had = 0; /* pages */
	u64 frame;

	if (!blocks)
		return -ENOMEM;
	while (had < npages) {
		unsigned n = host_min(1u << order, npages - had);

		if (!take_frames(dd, order, n, &frame)) {
			blocks[had >> order] = (u32)frame;
			had += n;
			continue;
		}
		if (!order) {
			free_blocks(dd, blocks, had, 0);
			host_free(blocks);
			return -ENOSPC;
		}
		split_blocks(blocks, had >> order, order);
		order--;
	}
	bo->blocks = blocks;
	bo->block_order = (u8)order;
	return 0;
}

static unsigned order_for(unsigned npages)
{
	unsigned order = 0;

	while (1u << order < npages)
		order++;
	return order;
}

static int alloc_frames(struct driver_device *dd, struct driver_bo *bo, unsigned npages)
{
	unsigned order = order_for(npages);
	u64 frame;

	if (!take_frames(dd, order, npages, &frame)) {
		bo->frame = (u32)frame;
		return 0;
	}
	return order ? alloc_scattered(dd, bo, npages, order - 1) : -ENOSPC;
}

static u64 bo_frame(struct gpusvm_devmem *devmem, unsigned i)
{
	struct driver_bo *bo = driver_bo_of(devmem);

	if (!bo->blocks)
		return bo->frame + i;
	return bo->blocks[i >> bo->block_order] + (i & ((1u << bo->block_order) - 1));
}

static void bo_free_frames(struct gpusvm_devmem *devmem, u64 frame, unsigned order)
{
	struct driver_bo *bo = driver_bo_of(devmem);

	host_add_relaxed(bo->placed, 0u - (1u << order));
	driver_exclusive_clear(bo->device, frame, (u64)1 << order);
	defer_frames(bo->device, frame, order);
}

/* ---- Objects ------------------------------------------------------------------ */

static void bo_release(struct gpusvm_devmem *devmem)
{
	struct driver_bo *bo = driver_bo_of(devmem);
	struct driver_device *dd = bo->device;
	struct driver_bo *top = host_read_once(&dd->dead);

	do
		bo->dead_next = top;
	while (!host_cas(&dd->dead, &top, bo));
}

static int bo_copy(struct gpusvm_devmem *devmem, const struct gpusvm_copy *list, unsigned n,
		   struct gpusvm_fence *after, struct gpusvm_fence *done)
{
	struct driver_device *dd = driver_bo_of(devmem)->device;

	return dd->ops->copy(dd->device, list, n, after, done);
}

static void bo_read(struct gpusvm_devmem *devmem, u64 frame, void *buffer)
{
	struct driver_device *dd = driver_bo_of(devmem)->device;

	dd->ops->memory_read(dd->device, frame, buffer);
}

static const struct gpusvm_devmem_ops bo_ops = {
	.release = bo_release,
	.frame = bo_frame,
	.free_frames = bo_free_frames,
	.read = bo_read,
	.copy = bo_copy,
};

/* Context: lru_lock. */
static void lru_remove(struct driver_device *dd, struct driver_bo *bo)
{
	if (!bo->next)
		return;
	if (dd->lru == bo)
		dd->lru = bo->next != bo ? bo->next : NULL;
	bo->prev->next = bo->next;
	bo->next->prev = bo->prev;
	bo->next = NULL;
	dd->n_lru--;
}

void driver_bo_ready(struct driver_bo *bo)
{
	struct driver_device *dd = bo->device;

	host_mutex_lock(&dd->lru_lock);
	if (!dd->lru) {
		bo->prev = bo->next = bo;
		dd->lru = bo;
	} else { /* behind the last, which is before the first */
		bo->next = dd->lru;
		bo->prev = dd->lru->prev;
		bo->prev->next = bo;
		bo->next->prev = bo;
	}
	dd->n_lru++;
	host_mutex_unlock(&dd->lru_lock);
}

static void drain_dead(struct driver_device *dd)
{
	struct driver_bo *dead, *bo, *next;

	if (!host_read_once(&dd->dead))
		return;
	dead = host_xchg(&dd->dead, NULL);
	host_mutex_lock(&dd->lru_lock);
	for (bo = dead; bo; bo = bo->dead_next)
		lru_remove(dd, bo);
	host_mutex_unlock(&dd->lru_lock);
	for (bo = dead; bo; bo = next) {
		next = bo->dead_next;
		host_free(bo->blocks);
		host_free(bo);
	}
}

void driver_memory_drain(struct driver_device *dd)
{
	drain_frames(dd);
	drain_dead(dd);
}

int driver_bo_create(struct driver_device *dd, struct mm *mm, u64 start, u64 end,
		     enum gpusvm_driver_cause cause, struct driver_bo **ret)
{
	unsigned npages = (unsigned)driver_npages(start, end), tries = 0;
	struct driver_bo *bo = host_alloc_zeroed(sizeof(*bo));
	int err;

	if (!bo)
		return -ENOMEM;
	bo->device = dd;
	bo->cause = (u32)cause;
	for (;;) {
		driver_memory_drain(dd);
		err = alloc_frames(dd, bo, npages);
		/* An object may be as small as a page. */
		if (err != -ENOSPC || tries++ > npages || !driver_memory_evict_one(dd))
			break;
	}
	if (err) {
		host_free(bo);
		return err;
	}
	bo->placed = driver_placed(dd, start);
	host_add_relaxed(bo->placed, npages);
	gpusvm_devmem_init(&bo->base, &bo_ops, &dd->pagemap, mm, npages, NULL);
	*ret = bo;
	return 0;
}

/* ---- Eviction ------------------------------------------------------------------ */

/* The head of the list, which goes to its end; a reference is held and it is
 * marked as evicting. NULL: it is busy, gone, or (spare_used) was used lately.
 * Context: lru_lock, the list is not empty. */
static struct driver_bo *lru_next(struct driver_device *dd, bool spare_used)
{
	struct driver_bo *bo = dd->lru;

	dd->lru = bo->next; /* a circle: the head is the last one now */
	if (bo->evicting || (spare_used && host_xchg(&bo->used, 0)) ||
	    !gpusvm_devmem_get_unless_zero(&bo->base))
		return NULL;
	bo->evicting = true;
	return bo;
}

/* Evicts what lru_next gave. 0: nothing of it is on the device any more. */
static int evict_bo(struct driver_bo *bo, enum gpusvm_driver_cause cause)
{
	struct driver_device *dd = bo->device;
	u64 started = host_now(), pages = host_read_once(&bo->base.resident);
	int err;

	host_write_once(&bo->cause, (u32)cause);
	err = gpusvm_devmem_evict(&bo->base);
	if (!err)
		driver_count(&dd->stats.evictions, 1);
	driver_event(dd->driver, DRIVER_EVENT_EVICT, cause, dd->index, err, started, 0,
		     pages << HOST_PAGE_SHIFT, dd->index, DRIVER_SYSTEM);
	host_mutex_lock(&dd->lru_lock);
	bo->evicting = false;
	host_mutex_unlock(&dd->lru_lock);
	gpusvm_devmem_put(&bo->base);
	return err;
}

bool driver_memory_evict_one(struct driver_device *dd)
{
	struct driver_bo *bo;
	unsigned failures = 0;
	u64 i = 0, n;

	do {
		bo = NULL;
		host_mutex_lock(&dd->lru_lock);
		/* Once around spares what was used, twice does not. */
		for (n = 2 * dd->n_lru; dd->lru && !bo && i < n; i++)
			bo = lru_next(dd, true);
		host_mutex_unlock(&dd->lru_lock);
		if (bo && !evict_bo(bo, DRIVER_CAUSE_EVICTION))
			return true;
	} while (bo && ++failures < EVICT_TRIES);
	return false;
}

/* Once through the list. 0: nothing is left; -EBUSY: only what others are at; else why
 * some of it would not go. */
static int evict_pass(struct driver_device *dd, enum gpusvm_driver_cause cause)
{
	int ret = 0, err;
	u64 i, n;

	driver_memory_drain(dd);
	host_mutex_lock(&dd->lru_lock);
	n = dd->n_lru;
	host_mutex_unlock(&dd->lru_lock);
	for (i = 0; i < n; i++) {
		struct driver_bo *bo = NULL;

		err = 0;
		host_mutex_lock(&dd->lru_lock);
		if (dd->lru) {
			err = dd->lru->evicting ? -EBUSY : 0;
			bo = lru_next(dd, false);
		}
		host_mutex_unlock(&dd->lru_lock);
		if (bo)
			err = evict_bo(bo, cause);
		if (err && (!ret || ret == -EBUSY))
			ret = err;
	}
	return ret;
}

int driver_memory_evict(struct driver_device *dd, enum gpusvm_driver_cause cause)
{
	struct gpusvm_retry retry;
	unsigned failures = 0;
	int err;

	if (!dd->has_memory)
		return 0;
	/* What others are at is waited for by the clock: a slow device may take them
	 * long. What fails by itself is tried a few times. */
	gpusvm_retry_init(&retry, EVICT_BUDGET, 0);
	do {
		err = evict_pass(dd, cause);
		failures += err && err != -EBUSY;
	} while (err && failures < EVICT_TRIES && gpusvm_retry_again(&retry));
	driver_memory_drain(dd);
	return err ? -EBUSY : 0;
}

/* ---- Beginning and end ----------------------------------------------------------- */

static void free_tables(struct driver_device *dd)
{
	driver_exclusive_fini(dd);
	host_free(dd->placed);
	host_free(dd->freed);
	host_free(dd->freed_index);
}

int driver_memory_init(struct driver_device *dd)
{
	u64 npages = dd->device->caps.vram_bytes >> HOST_PAGE_SHIFT, words = (npages + 63) >> 6;
	u64 folds;
	int err;

	if (!npages)
		return 0;
	if (npages >> 32) /* frame numbers of scattered objects have 32 bits */
		return -EINVAL;
	dd->npages = npages;
	for (folds = 64; folds < 4 * (npages >> HOST_HUGE_ORDER); folds *= 2)
		;
	dd->placed_mask = folds - 1;
	dd->placed = host_alloc_zeroed(folds * sizeof(u32));
	dd->freed = host_alloc_zeroed(words * sizeof(u64));
	dd->freed_index = host_alloc_zeroed(((words + 63) >> 6) * sizeof(u64));
	err = dd->placed && dd->freed && dd->freed_index ? 0 : -ENOMEM;
	if (err) {
		free_tables(dd);
		return err;
	}
	err = gpusvm_pagemap_cache_init(&dd->cache, &dd->pagemap, &driver_pagemap_ops, npages,
					dd->driver->options.keepalive);
	if (err) {
		free_tables(dd);
		return err;
	}
	dd->pagemap.dev = dd;
	/* What cannot be moved there is copied. */
	if (dd->device->caps.flags & GPUSVM_DEVICE_ZERO_COPY && dd->ops->memory_base &&
	    !mm_memory_add(dd->driver->mm, dd->ops->memory_base(dd->device),
			   dd->device->caps.vram_bytes))
		dd->pagemap.memory = dd->ops->memory_base(dd->device);
	host_mutex_init(&dd->lru_lock, RANK_DRIVER_LRU);
	host_waitq_init(&dd->populate_idle);
	dd->has_memory = true;
	return 0;
}

void driver_memory_fini(struct driver_device *dd)
{
	if (!dd->has_memory)
		return;
	driver_memory_drain(dd);
	HOST_WARN_ON(dd->lru);
	gpusvm_pagemap_cache_fini(&dd->cache);
	if (dd->pagemap.memory)
		mm_memory_remove(dd->driver->mm, dd->pagemap.memory, dd->device->caps.vram_bytes);
	host_waitq_destroy(&dd->populate_idle);
	host_mutex_destroy(&dd->lru_lock);
	free_tables(dd);
}

void driver_memory_revoke(struct driver_device *dd)
{
	if (!dd->has_memory)
		return;
	gpusvm_pagemap_revoke(&dd->pagemap);
	/* Who came before dd->removed was set may still be moving pages. */
	host_wait(&dd->populate_idle, !host_load_seq(&dd->populating));
}

int driver_memory_get(struct driver_device *dd)
{
	int r;

	if (host_ref_get_unless_zero(&dd->pagemap.ref))
		return 0;
	/* An active pagemap holds its device: from before it is, to its destroy. */
	host_ref_get(&dd->alive);
	r = gpusvm_pagemap_cache_get(&dd->cache);
	if (r == -ENOMEM) {
		(void)host_shrink();
		r = gpusvm_pagemap_cache_get(&dd->cache);
	}
	if (r == 1)
		return 0;
	driver_device_put(dd);
	return r;
}

u64 driver_pagemaps_get(struct gpusvm_driver *driver, u64 devices)
{
	u64 held = 0;

	for (; devices; devices &= devices - 1) {
		struct driver_device *dd = driver->devices[__builtin_ctzll(devices)];

		if (dd->has_memory && host_ref_get_unless_zero(&dd->pagemap.ref))
			held |= (u64)1 << dd->index;
	}
	return held;
}

void driver_pagemaps_put(struct gpusvm_driver *driver, u64 held)
{
	for (; held; held &= held - 1)
		gpusvm_pagemap_put(&driver->devices[__builtin_ctzll(held)]->pagemap);
}
