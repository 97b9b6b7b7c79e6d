/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * notifier.c: interval notifiers.
 *
 * The list is read-locked while its members are called, so that removal waits
 * for calls in flight. A notifier's count of invalidations in progress and its
 * sequence change under seq_lock; the sequence that readers compare is set by
 * the callee under its own lock (mm_notifier_set_seq), as mm.h says: a reader
 * that holds that lock and sees its old sequence, and no invalidation in
 * progress, will be heard by any later one, which has to wait for the lock.
 */
#include "host/userfault/home.h"

/* In mm_notifier.home. */
struct link {
	struct mm_notifier *next;
	u64 active; /* invalidations in progress; atomic */
};
_Static_assert(sizeof(struct link) <= sizeof(((struct mm_notifier *)0)->home), "home");

static struct link *link_of(struct mm_notifier *n)
{
	return (struct link *)n->home;
}

void notifiers_init(struct mm *mm)
{
	host_rwlock_init(&mm->notifiers_lock, RANK_NOTIFIER_LIST);
	host_mutex_init(&mm->seq_lock, RANK_LEAF);
	host_waitq_init(&mm->seq_waitq);
}

int mm_notifier_insert(struct mm_notifier *n, struct mm *mm, u64 start, u64 end,
		       const struct mm_notifier_ops *ops)
{
	if (start >= end || !host_is_aligned(start | end, HOST_PAGE_SIZE))
		return -EINVAL;
	*n = (struct mm_notifier){.ops = ops, .mm = mm, .start = start, .end = end};
	host_write_lock(&mm->notifiers_lock);
	link_of(n)->next = mm->notifiers;
	mm->notifiers = n;
	host_write_unlock(&mm->notifiers_lock);
	return 0;
}

void mm_notifier_remove(struct mm_notifier *n)
{
	struct mm *mm = n->mm;
	struct mm_notifier **at;

	host_write_lock(&mm->notifiers_lock);
	for (at = &mm->notifiers; *at != n; at = &link_of(*at)->next)
		HOST_CHECK(*at);
	*at = link_of(n)->next;
	host_write_unlock(&mm->notifiers_lock);
}

u64 mm_notifier_read_begin(struct mm_notifier *n)
{
	struct mm *mm = n->mm;
	u64 seq;

	for (;;) {
		host_wait(&mm->seq_waitq, !host_load_acquire(&link_of(n)->active));
		host_mutex_lock(&mm->seq_lock);
		seq = n->seq;
		if (!host_read_once(&link_of(n)->active)) {
			host_mutex_unlock(&mm->seq_lock);
			return seq;
		}
		host_mutex_unlock(&mm->seq_lock);
	}
}

bool mm_notifier_read_retry(struct mm_notifier *n, u64 seq)
{
	return host_load_acquire(&n->seq) != seq || host_load_acquire(&link_of(n)->active);
}

void mm_notifier_set_seq(struct mm_notifier *n, u64 seq)
{
	host_store_release(&n->seq, seq);
}

static bool overlaps(const struct mm_notifier *n, const struct mm_invalidation *inv)
{
	return n->start < inv->end && inv->start < n->end;
}

static struct mm_invalidation clip(const struct mm_notifier *n, const struct mm_invalidation *inv)
{
	struct mm_invalidation part = *inv;

	part.start = host_max(part.start, n->start);
	part.to += part.start - inv->start;
	part.end = host_min(part.end, n->end);
	return part;
}

static void start_one(struct mm *mm, struct mm_notifier *n, const struct mm_invalidation *inv)
{
	struct mm_invalidation part = clip(n, inv);
	u64 seq;

	host_mutex_lock(&mm->seq_lock);
	host_store_seq(&link_of(n)->active, link_of(n)->active + 1);
	mm->seq += 2;
	seq = mm->seq | 1;
	host_mutex_unlock(&mm->seq_lock);
	HOST_WARN_ON(n->ops->invalidate_start(n, &part, seq) != 0);
}

static void finish_one(struct mm *mm, struct mm_notifier *n, const struct mm_invalidation *inv)
{
	struct mm_invalidation part = clip(n, inv);

	n->ops->invalidate_finish(n, &part);
	host_mutex_lock(&mm->seq_lock);
	if (link_of(n)->active == 1) {
		mm->seq += 2;
		host_store_release(&n->seq, mm->seq & ~(u64)1);
	}
	host_store_seq(&link_of(n)->active, link_of(n)->active - 1);
	host_mutex_unlock(&mm->seq_lock);
}

static void notify_all(struct mm *mm, const struct mm_invalidation *inv)
{
	bool any = false;

	host_read_lock(&mm->notifiers_lock);
	for (struct mm_notifier *n = mm->notifiers; n; n = link_of(n)->next)
		if (overlaps(n, inv)) {
			any = true;
			start_one(mm, n, inv);
		}
	if (any)
		for (struct mm_notifier *n = mm->notifiers; n; n = link_of(n)->next)
			if (overlaps(n, inv))
				finish_one(mm, n, inv);
	host_read_unlock(&mm->notifiers_lock);
	if (any)
		host_wake_all(&mm->seq_waitq);
}

void notify(struct mm *mm, u64 start, u64 end, enum mm_event event, const void *migrator)
{
	notify_all(mm, &(struct mm_invalidation){.start = start,
						 .end = end,
						 .event = event,
						 .migrator = migrator,
						 .blockable = true});
}

void notify_change(struct mm *mm, const struct change *c)
{
	notify_all(mm, &(struct mm_invalidation){.start = c->start,
						 .end = c->end,
						 .event = c->event,
						 .to = c->to,
						 .blockable = true});
}
