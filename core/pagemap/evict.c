/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * evict.c: bringing a devmem home by its frames (law 4: no address, no range,
 * no mirror; those who have it mapped hear of it from notifiers).
 *
 * Locking: none. Frames that are in a migration of someone else are passed over;
 * when that ends they are back, or gone, so trying again a few times is enough.
 */
#include "core/pagemap/internal.h"
#include "core/retry.h"

#define EVICT_TRIES 16u
#define EVICT_CHUNK 16u /* frames at a time when there is no memory for more */
#define EVICT_COPIES 8u

/* The frames from page i of the allocation on that follow each other. */
static unsigned run_length(struct gpusvm_devmem *devmem, unsigned i, unsigned max)
{
	u64 frame = devmem->ops->frame(devmem, i);
	unsigned n = 1;

	while (i + n < devmem->npages && n < max && devmem->ops->frame(devmem, i + n) == frame + n)
		n++;
	return n;
}

/* Frames that went back may be someone else's by now: select tells. */
static int evict_run(struct mm_migrate *m, struct pagemap_copies *copies, u64 frame, unsigned n)
{
	struct gpusvm_devmem *devmem = copies->devmem;
	const struct gpusvm_pagemap_ops *ops = devmem->pagemap->ops;
	u64 started = host_now();
	unsigned moved = 0;
	int err;

	host_memset(m->src, 0, n * sizeof(m->src[0]));
	host_memset(m->dst, 0, n * sizeof(m->dst[0]));
	m->mm = devmem->mm;
	m->npages = n;
	m->flags = MM_MIGRATE_DEVICE | MM_MIGRATE_COMPOUND;
	m->migrator = devmem->pagemap;
	m->select = pagemap_select_devmem;
	m->select_arg = devmem;
	err = mm_migrate_begin_frames(m, devmem->pagemap->region, frame);
	if (err)
		return err;
	if (m->collected) {
		err = mm_migrate_alloc_system(m);
		if (!err)
			err = pagemap_bring_home(m, copies);
		moved = err ? 0 : pagemap_moved(m);
	}
	mm_migrate_end(m);
	if (moved && ops->migrated)
		ops->migrated(devmem, devmem->mm, 0, moved, false, NULL, GPUSVM_MIGRATE_EVICTION,
			      started);
	return err;
}

/* One walk over all frames. Goes on after an error: what can go home shall. */
static int evict_pass(struct mm_migrate *m, struct pagemap_copies *copies, unsigned max)
{
	struct gpusvm_devmem *devmem = copies->devmem;
	unsigned i = 0, n;
	int err = 0, first_err = 0;

	while (i < devmem->npages && host_load_acquire(&devmem->resident)) {
		n = run_length(devmem, i, max);
		err = evict_run(m, copies, devmem->ops->frame(devmem, i), n);
		copies->err = 0;
		copies->n = 0;
		if (!first_err)
			first_err = err;
		i += n;
	}
	return first_err;
}

static __attribute__((__noinline__)) int evict_pass_small(struct gpusvm_devmem *devmem)
{
	mm_mpfn_t src[EVICT_CHUNK] = {0}, dst[EVICT_CHUNK] = {0};
	struct gpusvm_copy list[EVICT_COPIES];
	struct pagemap_copies copies;
	struct mm_migrate m = {.src = src, .dst = dst};

	pagemap_copies_init(&copies, devmem, NULL, list, EVICT_COPIES);
	return evict_pass(&m, &copies, EVICT_CHUNK);
}

static bool detached(struct gpusvm_devmem *devmem, u64 wait)
{
	return host_wait_until(&devmem->detached, host_load_acquire(&devmem->resident) == 0,
			       host_now() + wait);
}

static int evict_used(struct gpusvm_devmem *devmem)
{
	struct pagemap_migration *w;
	struct gpusvm_retry retry;
	int err;

	w = pagemap_migration_alloc(devmem, devmem->npages, NULL, false);
	gpusvm_retry_init(&retry, 0, EVICT_TRIES);
	do {
		err = w ? evict_pass(&w->m, &w->copies, devmem->npages) : evict_pass_small(devmem);
		if (host_load_acquire(&devmem->resident) == 0)
			err = 0;
		else if (!err && !detached(devmem, HOST_MSEC))
			err = -EBUSY;
	} while (err == -EBUSY && gpusvm_retry_again(&retry));
	host_free(w);
	return err;
}

int gpusvm_devmem_evict(struct gpusvm_devmem *devmem)
{
	int err;

	if (host_load_seq(&devmem->resident) == 0)
		return 0;
	if (!mm_use(devmem->mm)) /* its end drops every frame, if that is under way */
		return detached(devmem, GPUSVM_RETRY_BUDGET) ? 0 : -EFAULT;
	err = evict_used(devmem);
	mm_unuse(devmem->mm);
	return err;
}
