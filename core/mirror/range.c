/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * range.c: ranges: finding, making and removing them, and where their pages are.
 *
 * Locking: a range goes into the tree under both locks, and only if nothing was
 * invalidated since its mapping was looked up (the notifier's sequence): so
 * a range never begins its life over a hole. Its flags change under the
 * notifier lock held for writing. The tree lock is not held over calls that look
 * at the address space; what keeps the notifier then is notifier->users.
 */
#include "core/mirror/internal.h"
#include "core/retry.h"
#ifndef GPUSVM_NO_PAGEMAP
#include <gpusvm/pagemap.h>
#endif

struct gpusvm_range *gpusvm_range_find(struct gpusvm_mirror *mirror, u64 start, u64 end)
{
	struct gpusvm_interval *found;

	mirror_assert_reader(mirror);
	found = gpusvm_interval_find(&mirror->ranges, start, end);
	return found ? host_container_of(found, struct gpusvm_range, interval) : NULL;
}

struct gpusvm_range *gpusvm_range_next(struct gpusvm_range *range)
{
	struct gpusvm_interval *next;

	mirror_assert_reader(range->mirror);
	next = gpusvm_interval_next(&range->mirror->ranges, &range->interval);
	return next ? host_container_of(next, struct gpusvm_range, interval) : NULL;
}

bool gpusvm_mirror_has_mapping(struct gpusvm_mirror *mirror, u64 start, u64 end)
{
	bool found;

	host_read_lock(&mirror->notifier_lock);
	found = gpusvm_range_find(mirror, start, end) != NULL;
	host_read_unlock(&mirror->notifier_lock);
	return found;
}

struct gpusvm_range *gpusvm_range_get(struct gpusvm_range *range)
{
	host_ref_get(&range->ref);
	return range;
}

bool gpusvm_range_get_unless_zero(struct gpusvm_range *range)
{
	return host_ref_get_unless_zero(&range->ref);
}

static void range_free(struct gpusvm_mirror *mirror, struct gpusvm_range *range)
{
	if (mirror->ops->range_free)
		mirror->ops->range_free(range);
	else
		host_free(range);
}

void gpusvm_range_put(struct gpusvm_range *range)
{
	if (host_ref_put(&range->ref))
		range_free(range->mirror, range);
}

/* ---- Finding and making ------------------------------------------------- */

/* What one find_or_insert is about. */
struct insertion {
	struct gpusvm_mirror *mirror;
	u64 address, start, end; /* page aligned; the window, within the mirror's */
	const struct gpusvm_ctx *ctx;
	struct gpusvm_notifier *notifier; /* pinned, or NULL */
	struct gpusvm_range *range;	  /* to put in; NULL once it is */
	struct mm_vma vma;
	u64 seq; /* of the notifier before vma was looked up */
};

/* As it is in in->vma. */
static int check_vma(const struct insertion *in)
{
	if (!(in->vma.flags & MM_VMA_READ))
		return -EFAULT; /* no access at all: for writing neither */
	return in->ctx->read_only || in->vma.flags & MM_VMA_WRITE ? 0 : -EPERM;
}

static int look_up_vma(struct insertion *in)
{
	int err = mm_vma_find(in->mirror->mm, in->address, in->address + HOST_PAGE_SIZE, &in->vma);

	return err ? err : check_vma(in);
}

/* For a range that is there: also by what the caller has seen. */
static int recall_vma(struct insertion *in)
{
	const struct mm_vma *seen = in->ctx->seen;

	if (!seen || in->address < seen->start || in->address >= seen->end)
		return look_up_vma(in);
	in->vma = *seen;
	return check_vma(in);
}

/* One that is there, with a reference for the caller. */
static struct gpusvm_range *look_up_range(struct gpusvm_mirror *mirror, u64 address)
{
	struct gpusvm_range *range;

	host_read_lock(&mirror->notifier_lock);
	range = gpusvm_range_find(mirror, address, address + HOST_PAGE_SIZE);
	if (range)
		gpusvm_range_get(range); /* not the last: the tree has one */
	host_read_unlock(&mirror->notifier_lock);
	return range;
}

/* The notifier needs no look: aligned, no smaller than any chunk, and cut by the
 * window only. */
static bool chunk_fits(struct insertion *in, u64 start, u64 end)
{
	return start >= in->start && end <= in->end && start >= in->vma.start &&
	       end <= in->vma.end && !gpusvm_range_find(in->mirror, start, end);
}

/* The largest chunk; -EINVAL if none fits. Tree lock. */
static int choose_chunk(struct insertion *in, struct gpusvm_interval *ret)
{
	const struct gpusvm_ctx *ctx = in->ctx;
	u64 size, start;

	for (unsigned i = 0; i < in->mirror->n_chunks; i++) {
		size = in->mirror->chunk_sizes[i];
		if ((ctx->max_chunk && size > ctx->max_chunk) || size < ctx->min_chunk)
			continue;
		start = host_align_down(in->address, size);
		if (chunk_fits(in, start, start + size)) {
			*ret = (struct gpusvm_interval){ start, start + size };
			return 0;
		}
	}
	return -EINVAL;
}

/* Puts in->range in, if the address space has not changed since vma was looked
 * up; else -EAGAIN. Tree lock. */
static int insert(struct insertion *in, struct gpusvm_range **ret)
{
	struct gpusvm_mirror *mirror = in->mirror;
	struct gpusvm_range *range = in->range;
	int err = choose_chunk(in, &range->interval);

	if (!err)
		err = gpusvm_interval_prepare(&mirror->ranges);
	if (err)
		return err;
	range->mirror = mirror;
	range->notifier = in->notifier;
	range->migratable = in->vma.flags & MM_VMA_MIGRATABLE && in->ctx->devmem_possible;
	range->writable = in->vma.flags & MM_VMA_WRITE;
	range->flags = 0;
	host_ref_init(&range->ref);

	host_write_lock(&mirror->notifier_lock);
	if (mm_notifier_read_retry(&in->notifier->mm, in->seq)) {
		host_write_unlock(&mirror->notifier_lock);
		return -EAGAIN;
	}
	gpusvm_interval_insert(&mirror->ranges, &range->interval);
	gpusvm_range_get(range); /* the caller's, beside the tree's */
	host_write_unlock(&mirror->notifier_lock);
	mirror->n_ranges++;
	in->notifier->n_ranges++;
	in->range = NULL;
	*ret = range;
	return 0;
}

/* One attempt: with the sequence from before the look at the address space. */
static int find_or_insert(struct insertion *in, struct gpusvm_range **ret)
{
	struct gpusvm_mirror *mirror = in->mirror;
	int err;

	in->seq = mm_notifier_read_begin(&in->notifier->mm);
	err = look_up_vma(in);
	if (err)
		return err;
	host_mutex_lock(&mirror->tree_lock);
	*ret = gpusvm_range_find(mirror, in->address, in->address + HOST_PAGE_SIZE);
	if (*ret)
		gpusvm_range_get(*ret); /* another thread was first */
	else
		err = insert(in, ret);
	host_mutex_unlock(&mirror->tree_lock);
	return err;
}

/* The notifier for in->address, pinned. It is not made for an address that has no
 * mapping. */
static int pin_notifier(struct insertion *in)
{
	struct gpusvm_mirror *mirror = in->mirror;
	bool known;
	int err;

	host_read_lock(&mirror->notifier_lock);
	known = gpusvm_notifier_find(mirror, in->address, in->address + HOST_PAGE_SIZE) != NULL;
	host_read_unlock(&mirror->notifier_lock);
	err = known ? 0 : look_up_vma(in);
	if (err)
		return err;
	host_mutex_lock(&mirror->tree_lock);
	err = mirror_notifier_pin(mirror, in->address, &in->notifier);
	host_mutex_unlock(&mirror->tree_lock);
	return err;
}

static int make_range(struct insertion *in, struct gpusvm_range **ret)
{
	struct gpusvm_mirror *mirror = in->mirror;
	struct gpusvm_retry retry;
	int err;

	in->range = mirror->ops->range_alloc ? mirror->ops->range_alloc(mirror) :
					       host_alloc(sizeof(*in->range));
	if (!in->range)
		return -ENOMEM;
	in->range->mirror = mirror; /* for range_free of one that never went in */
	err = pin_notifier(in);
	if (err)
		goto out;
	gpusvm_retry_init(&retry, in->ctx->budget, 0);
	do {
		err = find_or_insert(in, ret);
	} while (err == -EAGAIN && gpusvm_retry_again(&retry));
	if (err == -EAGAIN)
		err = -EBUSY;
	host_mutex_lock(&mirror->tree_lock);
	mirror_notifier_unpin(in->notifier);
	host_mutex_unlock(&mirror->tree_lock);
out:
	if (in->range)
		range_free(mirror, in->range);
	return err;
}

int gpusvm_range_find_or_insert(struct gpusvm_mirror *mirror, u64 address, u64 start, u64 end,
				const struct gpusvm_ctx *ctx, struct gpusvm_range **ret)
{
	struct insertion in = {
		.mirror = mirror,
		.address = host_align_down(address, HOST_PAGE_SIZE),
		.start = host_max(start, mirror->start),
		.end = host_min(end, mirror->end),
		.ctx = ctx,
	};
	struct gpusvm_range *range;
	int err;

	if (!mirror->mm || address < in.start || address >= in.end)
		return -EINVAL;
	range = look_up_range(mirror, in.address);
	if (!range)
		return make_range(&in, ret);
	/* What may be done is the mapping's to say, also where a range was made
	 * when it said otherwise. */
	err = recall_vma(&in);
	if (err)
		gpusvm_range_put(range);
	else
		*ret = range;
	return err;
}

/* ---- Going -------------------------------------------------------------- */

bool mirror_range_unlink(struct gpusvm_range *range)
{
	struct gpusvm_mirror *mirror = range->mirror;
	bool linked;

	HOST_ASSERT(host_mutex_held(&mirror->tree_lock));
	host_write_lock(&mirror->notifier_lock);
	linked = !(range->flags & GPUSVM_RANGE_REMOVED);
	if (linked) {
		gpusvm_interval_remove(&mirror->ranges, &range->interval);
		host_write_once(&range->flags, range->flags | GPUSVM_RANGE_REMOVED);
	}
	host_write_unlock(&mirror->notifier_lock);
	if (linked)
		mirror->n_ranges--;
	return linked;
}

void gpusvm_range_remove(struct gpusvm_range *range)
{
	struct gpusvm_mirror *mirror = range->mirror;
	bool linked;

	host_mutex_lock(&mirror->tree_lock);
	linked = mirror_range_unlink(range);
	if (linked) {
		range->notifier->n_ranges--;
		mirror_notifier_trim(range->notifier);
	}
	host_mutex_unlock(&mirror->tree_lock);
	if (linked)
		gpusvm_range_put(range);
}

void gpusvm_range_set_unmapped(struct gpusvm_range *range, struct gpusvm_pages **pages, unsigned n,
			       const struct mm_invalidation *inv)
{
	u32 flags = range->flags | GPUSVM_RANGE_UNMAPPED;

	HOST_ASSERT(host_rwlock_held_write(&range->mirror->notifier_lock));
	if (inv->start > range->interval.start || inv->end < range->interval.end)
		flags |= GPUSVM_RANGE_PARTIAL_UNMAP;
	host_write_once(&range->flags, flags);
	for (unsigned i = 0; i < n; i++)
		if (pages[i])
			host_write_once(&pages[i]->flags,
					(pages[i]->flags & ~GPUSVM_PAGES_VALID) |
						GPUSVM_PAGES_UNMAPPED);
}

/* ---- Where the pages are ------------------------------------------------ */

static bool keep_all(void *arg, struct mm_page *page)
{
	return true;
}

static u64 range_pages(const struct gpusvm_range *range)
{
	return (range->interval.end - range->interval.start) >> HOST_PAGE_SHIFT;
}

/* What is there, device pages included, without a change. -EAGAIN: look again. */
static int look(struct gpusvm_range *range, mm_pfn_t *pfns, u64 *seq)
{
	struct mm_range_fault rf = {
		.mm = range->mirror->mm,
		.notifier = &range->notifier->mm,
		.seq = mm_notifier_read_begin(&range->notifier->mm),
		.start = range->interval.start,
		.end = range->interval.end,
		.pfns = pfns,
		.keep = keep_all,
	};
	int err = mm_range_fault(&rf);

	*seq = rf.seq;
	return err == -EBUSY ? -EAGAIN : err;
}

static int bring_home(struct gpusvm_range *range, mm_pfn_t *pfns, u64 first, u64 last)
{
	struct mm_range_fault rf = {
		.mm = range->mirror->mm,
		.notifier = &range->notifier->mm,
		.seq = mm_notifier_read_begin(&range->notifier->mm),
		.start = range->interval.start + (first << HOST_PAGE_SHIFT),
		.end = range->interval.start + (last << HOST_PAGE_SHIFT),
		.pfns = pfns + first,
		.flags = MM_FAULT_IN,
	};
	int err = mm_range_fault(&rf);

	return err == -EBUSY ? -EAGAIN : err;
}

/* Each run of device pages once. -EAGAIN: some were in motion, or could not be
 * faulted in; then the next pass is careful: run by run, and what cannot is left. */
static int evict_pass(struct gpusvm_range *range, mm_pfn_t *pfns, bool *careful)
{
	u64 n = range_pages(range), first, last, seq;
	bool was_careful = *careful;
	int err = look(range, pfns, &seq), result = 0;

	for (first = 0; !err && first < n; first = last) {
		last = first + ((u64)1 << mirror_run_order(pfns, range->interval.start, first, n));
		if (!(pfns[first] & MM_PFN_DEVICE))
			continue;
		while (!was_careful && last < n && pfns[last] & MM_PFN_DEVICE)
			last++;
		err = bring_home(range, pfns, first, last);
		if (err == -EAGAIN || (err == -EFAULT && !was_careful))
			result = -EAGAIN;
		if (err == -EFAULT)
			*careful = true;
		if (err == -EAGAIN || err == -EFAULT)
			err = 0; /* the others need not wait for it */
	}
	return err ? err : result;
}

int gpusvm_range_evict(struct gpusvm_range *range, u64 budget)
{
	mm_pfn_t *pfns = host_alloc(range_pages(range) * sizeof(*pfns));
	struct gpusvm_retry retry;
	bool careful = false;
	int err;

	if (!pfns)
		return -ENOMEM;
	gpusvm_retry_init(&retry, budget, 0);
	do {
		err = evict_pass(range, pfns, &careful);
	} while (err == -EAGAIN && gpusvm_retry_again(&retry));
	host_free(pfns);
	return err == -EAGAIN ? -EBUSY : err;
}

/* Whose a device page is. */
static const struct gpusvm_pagemap *owner(struct mm *mm, mm_pfn_t pfn)
{
#ifdef GPUSVM_NO_PAGEMAP
	return NULL; /* there are none */
#else
	return gpusvm_page_pagemap(mm_pfn_page(mm, pfn));
#endif
}

/* What the pfns of a look say. Notifier lock, and the sequence holds: only then
 * may a frame be asked whose it is. */
static int classify(struct gpusvm_range *range, const mm_pfn_t *pfns,
		    const struct gpusvm_pagemap *wanted)
{
	u64 n = range_pages(range);
	const struct gpusvm_pagemap *pagemap, *first = NULL;
	bool system = false, device = false, several = false;

	for (u64 i = 0; i < n; i += (u64)1 << mirror_run_order(pfns, range->interval.start, i, n)) {
		if (!(pfns[i] & MM_PFN_VALID))
			return GPUSVM_SCAN_UNPOPULATED;
		if (!(pfns[i] & MM_PFN_DEVICE)) {
			system = true;
			continue;
		}
		pagemap = owner(range->mirror->mm, pfns[i]);
		several |= device && pagemap != first;
		first = pagemap;
		device = true;
	}
	if (system)
		return device ? GPUSVM_SCAN_MIXED : GPUSVM_SCAN_SYSTEM;
	if (several)
		return GPUSVM_SCAN_MIXED_DEVICE;
	return first == wanted ? GPUSVM_SCAN_EQUAL : GPUSVM_SCAN_OTHER;
}

static int scan_once(struct gpusvm_range *range, mm_pfn_t *pfns,
		     const struct gpusvm_pagemap *wanted)
{
	struct gpusvm_mirror *mirror = range->mirror;
	u64 seq;
	int result = look(range, pfns, &seq);

	if (result)
		return result;
	host_read_lock(&mirror->notifier_lock);
	if (mm_notifier_read_retry(&range->notifier->mm, seq))
		result = -EAGAIN;
	else
		result = classify(range, pfns, wanted);
	host_read_unlock(&mirror->notifier_lock);
	return result;
}

int gpusvm_range_scan(struct gpusvm_range *range, struct gpusvm_pagemap *pagemap)
{
	mm_pfn_t *pfns = host_alloc(range_pages(range) * sizeof(*pfns));
	struct gpusvm_retry retry;
	int result;

	if (!pfns)
		return -ENOMEM;
	gpusvm_retry_init(&retry, 0, 0);
	do {
		result = scan_once(range, pfns, pagemap);
	} while (result == -EAGAIN && gpusvm_retry_again(&retry));
	host_free(pfns);
	return result == -EAGAIN ? -EBUSY : result;
}
