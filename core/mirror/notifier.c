/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * notifier.c: how the mirror hears of changes: its notifiers, which come with
 * the first range and go with the last, and the two passes of an invalidation.
 *
 * Locking: an invalidation takes the notifier lock for writing and sets the
 * sequence under it; who commits holds it for reading and has asked for the
 * sequence there: one of the two is first, and the other sees it. Insertion and
 * removal are under the tree lock, which no callback takes, so that removal
 * can wait for callbacks with it held.
 */
#include "core/mirror/internal.h"

static struct gpusvm_notifier *to_notifier(struct mm_notifier *n)
{
	return host_container_of(n, struct gpusvm_notifier, mm);
}

static int invalidate_start(struct mm_notifier *n, const struct mm_invalidation *inv, u64 seq)
{
	struct gpusvm_notifier *notifier = to_notifier(n);
	struct gpusvm_mirror *mirror = notifier->mirror;

	if (inv->blockable) {
		if (mirror->ops->invalidate_prepare)
			mirror->ops->invalidate_prepare(mirror, inv);
		host_write_lock(&mirror->notifier_lock);
	} else if (!host_write_trylock(&mirror->notifier_lock)) {
		return -EAGAIN;
	}
	/* Also with no range there: one may be on its way into the tree. */
	mm_notifier_set_seq(n, seq);
	if (gpusvm_range_find(mirror, inv->start, inv->end))
		mirror->ops->invalidate_start(mirror, notifier, inv);
	host_write_unlock(&mirror->notifier_lock);
	return 0;
}

/* Told even if no range overlaps by now: one that did in the first pass may have
 * left the tree meanwhile, and what was begun for it must be waited for. */
static void invalidate_finish(struct mm_notifier *n, const struct mm_invalidation *inv)
{
	struct gpusvm_notifier *notifier = to_notifier(n);
	struct gpusvm_mirror *mirror = notifier->mirror;

	mirror->ops->invalidate_finish(mirror, notifier, inv);
}

static const struct mm_notifier_ops notifier_ops = {
	.invalidate_start = invalidate_start,
	.invalidate_finish = invalidate_finish,
};

struct gpusvm_notifier *gpusvm_notifier_find(struct gpusvm_mirror *mirror, u64 start, u64 end)
{
	struct gpusvm_interval *found;

	mirror_assert_reader(mirror);
	found = gpusvm_interval_find(&mirror->notifiers, start, end);
	return found ? host_container_of(found, struct gpusvm_notifier, interval) : NULL;
}

struct gpusvm_notifier *gpusvm_notifier_next(struct gpusvm_notifier *notifier)
{
	struct gpusvm_interval *next;

	mirror_assert_reader(notifier->mirror);
	next = gpusvm_interval_next(&notifier->mirror->notifiers, &notifier->interval);
	return next ? host_container_of(next, struct gpusvm_notifier, interval) : NULL;
}

static void notifier_free(struct gpusvm_mirror *mirror, struct gpusvm_notifier *notifier)
{
	if (mirror->ops->notifier_free)
		mirror->ops->notifier_free(notifier);
	else
		host_free(notifier);
}

static int notifier_create(struct gpusvm_mirror *mirror, u64 address, struct gpusvm_notifier **ret)
{
	struct gpusvm_notifier *notifier;
	u64 start = host_align_down(address, mirror->notifier_size);
	u64 end = start + mirror->notifier_size;
	int err;

	end = host_min(end, mirror->end);
	start = host_max(start, mirror->start);
	err = gpusvm_interval_prepare(&mirror->notifiers);
	if (err)
		return err;
	notifier = mirror->ops->notifier_alloc ? mirror->ops->notifier_alloc(mirror) :
						 host_alloc(sizeof(*notifier));
	if (!notifier)
		return -ENOMEM;
	/* Whole before mm knows of it: callbacks may come at once. */
	notifier->interval = (struct gpusvm_interval){ start, end };
	notifier->mirror = mirror;
	notifier->mm = (struct mm_notifier){ 0 };
	notifier->n_ranges = 0;
	notifier->users = 0;
	err = mm_notifier_insert(&notifier->mm, mirror->mm, start, end, &notifier_ops);
	if (err) {
		notifier_free(mirror, notifier);
		return err;
	}
	host_write_lock(&mirror->notifier_lock);
	gpusvm_interval_insert(&mirror->notifiers, &notifier->interval);
	host_write_unlock(&mirror->notifier_lock);
	mirror->n_notifiers++;
	*ret = notifier;
	return 0;
}

static void notifier_destroy(struct gpusvm_notifier *notifier)
{
	struct gpusvm_mirror *mirror = notifier->mirror;

	host_write_lock(&mirror->notifier_lock);
	gpusvm_interval_remove(&mirror->notifiers, &notifier->interval);
	host_write_unlock(&mirror->notifier_lock);
	mirror->n_notifiers--;
	mm_notifier_remove(&notifier->mm);
	notifier_free(mirror, notifier);
}

int mirror_notifier_pin(struct gpusvm_mirror *mirror, u64 address, struct gpusvm_notifier **ret)
{
	struct gpusvm_notifier *notifier;
	int err;

	HOST_ASSERT(host_mutex_held(&mirror->tree_lock));
	notifier = gpusvm_notifier_find(mirror, address, address + HOST_PAGE_SIZE);
	if (!notifier) {
		err = notifier_create(mirror, address, &notifier);
		if (err)
			return err;
	}
	notifier->users++;
	*ret = notifier;
	return 0;
}

void mirror_notifier_unpin(struct gpusvm_notifier *notifier)
{
	HOST_ASSERT(host_mutex_held(&notifier->mirror->tree_lock));
	notifier->users--;
	mirror_notifier_trim(notifier);
}

void mirror_notifier_trim(struct gpusvm_notifier *notifier)
{
	HOST_ASSERT(host_mutex_held(&notifier->mirror->tree_lock));
	if (!notifier->n_ranges && !notifier->users)
		notifier_destroy(notifier);
}

void mirror_notifiers_remove_all(struct gpusvm_mirror *mirror)
{
	struct gpusvm_notifier *notifier;

	while ((notifier = gpusvm_notifier_find(mirror, 0, ~(u64)0)))
		notifier_destroy(notifier);
}
