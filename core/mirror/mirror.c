/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * mirror.c: the mirror itself: its beginning and end, its two locks, and the
 * walk over every invariant.
 *
 * Locking: the trees change under both locks, so that either is enough to look.
 * The tree lock alone covers what only writers look at: spare tree nodes,
 * counts, a notifier's users.
 */
#include "core/mirror/internal.h"

static bool power_of_two(u64 x)
{
	return x && !(x & (x - 1));
}

static bool chunks_valid(const u64 *sizes, unsigned n)
{
	if (!sizes || !n || sizes[n - 1] != HOST_PAGE_SIZE)
		return false;
	for (unsigned i = 0; i < n; i++)
		if (!power_of_two(sizes[i]) || (i && sizes[i] >= sizes[i - 1]))
			return false;
	return true;
}

static bool full_mode_valid(u64 start, u64 end, u64 notifier_size,
			    const struct gpusvm_mirror_ops *ops, const u64 *chunk_sizes,
			    unsigned n_chunks)
{
	return ops && ops->invalidate_start && ops->invalidate_finish && start < end &&
	       end <= GPUSVM_INTERVAL_LIMIT && host_is_aligned(start | end, HOST_PAGE_SIZE) &&
	       chunks_valid(chunk_sizes, n_chunks) && power_of_two(notifier_size) &&
	       notifier_size >= chunk_sizes[0];
}

int gpusvm_mirror_init(struct gpusvm_mirror *mirror, const char *name, struct mm *mm, u64 start,
		       u64 end, u64 notifier_size, const struct gpusvm_mirror_ops *ops,
		       const u64 *chunk_sizes, unsigned n_chunks)
{
	if (mm && !full_mode_valid(start, end, notifier_size, ops, chunk_sizes, n_chunks))
		return -EINVAL;
	if (!mm && (ops || notifier_size || chunk_sizes || n_chunks))
		return -EINVAL;
	*mirror = (struct gpusvm_mirror){
		.name = name,
		.ops = ops,
		.mm = mm,
		.start = start,
		.end = end,
		.notifier_size = notifier_size,
		.chunk_sizes = chunk_sizes,
		.n_chunks = n_chunks,
	};
	host_mutex_init(&mirror->tree_lock, RANK_MIRROR_TREE);
	host_rwlock_init(&mirror->notifier_lock, RANK_MIRROR);
	gpusvm_interval_tree_init(&mirror->notifiers);
	gpusvm_interval_tree_init(&mirror->ranges);
	if (mm)
		mm_get(mm);
	return 0;
}

void gpusvm_mirror_fini(struct gpusvm_mirror *mirror)
{
	struct gpusvm_range *range;

	/* First nothing calls any more, so that no callback meets a range that is
	 * half gone. */
	host_mutex_lock(&mirror->tree_lock);
	mirror_notifiers_remove_all(mirror);
	host_mutex_unlock(&mirror->tree_lock);
	for (;;) {
		host_mutex_lock(&mirror->tree_lock);
		range = gpusvm_range_find(mirror, 0, ~(u64)0);
		if (range)
			mirror_range_unlink(range);
		host_mutex_unlock(&mirror->tree_lock);
		if (!range)
			break;
		gpusvm_range_put(range);
	}
	gpusvm_interval_tree_fini(&mirror->ranges);
	gpusvm_interval_tree_fini(&mirror->notifiers);
	host_rwlock_destroy(&mirror->notifier_lock);
	host_mutex_destroy(&mirror->tree_lock);
	if (mirror->mm)
		mm_put(mirror->mm);
}

void gpusvm_mirror_lock(struct gpusvm_mirror *mirror)
{
	host_mutex_lock(&mirror->tree_lock);
}

void gpusvm_mirror_unlock(struct gpusvm_mirror *mirror)
{
	host_mutex_unlock(&mirror->tree_lock);
}

void gpusvm_notifier_lock(struct gpusvm_mirror *mirror)
{
	host_read_lock(&mirror->notifier_lock);
}

void gpusvm_notifier_unlock(struct gpusvm_mirror *mirror)
{
	host_read_unlock(&mirror->notifier_lock);
}

static void verify_range(const struct gpusvm_mirror *mirror, const struct gpusvm_notifier *notifier,
			 const struct gpusvm_range *range)
{
	u64 start = range->interval.start, size = range->interval.end - start;
	u32 flags = host_read_once(&range->flags);
	unsigned i = 0;

	while (i < mirror->n_chunks && mirror->chunk_sizes[i] != size)
		i++;
	HOST_CHECK(i < mirror->n_chunks);
	HOST_CHECK(host_is_aligned(start, size));
	HOST_CHECK(start >= mirror->start && range->interval.end <= mirror->end);
	HOST_CHECK(start >= notifier->interval.start &&
		   range->interval.end <= notifier->interval.end);
	HOST_CHECK(range->mirror == mirror && range->notifier == notifier);
	HOST_CHECK(host_read_once(&range->ref.count) > 0);
	HOST_CHECK(!(flags & GPUSVM_RANGE_REMOVED));
	HOST_CHECK(!(flags & GPUSVM_RANGE_PARTIAL_UNMAP) || flags & GPUSVM_RANGE_UNMAPPED);
}

void gpusvm_mirror_verify(struct gpusvm_mirror *mirror)
{
	struct gpusvm_notifier *notifier;
	struct gpusvm_range *range;
	u64 notifiers = 0, ranges = 0, before;

	host_mutex_lock(&mirror->tree_lock);
	gpusvm_interval_tree_verify(&mirror->notifiers);
	gpusvm_interval_tree_verify(&mirror->ranges);
	range = gpusvm_range_find(mirror, 0, ~(u64)0);
	for (notifier = gpusvm_notifier_find(mirror, 0, ~(u64)0); notifier;
	     notifier = gpusvm_notifier_next(notifier)) {
		HOST_CHECK(notifier->mirror == mirror && notifier->mm.mm == mirror->mm);
		HOST_CHECK(notifier->mm.start == notifier->interval.start &&
			   notifier->mm.end == notifier->interval.end);
		HOST_CHECK(notifier->n_ranges || notifier->users);
		before = ranges;
		for (; range && range->interval.start < notifier->interval.end;
		     range = gpusvm_range_next(range), ranges++)
			verify_range(mirror, notifier, range);
		HOST_CHECK(notifier->n_ranges == ranges - before);
		notifiers++;
	}
	HOST_CHECK(!range); /* none without a notifier */
	HOST_CHECK(notifiers == mirror->n_notifiers && notifiers == mirror->notifiers.count);
	HOST_CHECK(ranges == mirror->n_ranges && ranges == mirror->ranges.count);
	host_mutex_unlock(&mirror->tree_lock);
}
