/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * notifier.c: interval notifiers and their sequence protocol.
 *
 * An invalidation counts itself in each notifier that it overlaps, in one
 * critical section, before the first callback; read_begin waits for that count
 * to be 0, so from then on no one can begin to look at pages that are about to
 * change. The sequence itself is written in the callback, under the lock of the
 * callee, with an odd number; the end of the last invalidation makes it even
 * and new. A notifier that comes in the middle of an invalidation is counted
 * too, but not called: nothing can have been looked at through it.
 *
 * Who is counted is decided by generations, given out under the lock, so that
 * begin and end agree whatever was inserted or removed in between: notifiers
 * that were not dying when the invalidation began. One that is counted stays in
 * the list, which is what makes the walk with the lock dropped sound.
 *
 * Locking: mm->lock, never over a callback. n->seq: written by set_seq under
 * the callee's lock, or here when no callback can come; atomic.
 */
#include "host/model/internal.h"

void (*model_told)(struct mm *mm, const struct mm_invalidation *inv);

static struct model_notifier *own(struct mm_notifier *n)
{
	return (struct model_notifier *)(void *)n->home;
}

static bool counted(const struct model_inv *inv, struct mm_notifier *n)
{
	return inv->start < n->end && n->start < inv->end && inv->gen < own(n)->dying;
}

int mm_notifier_insert(struct mm_notifier *n, struct mm *mm, u64 start, u64 end,
		       const struct mm_notifier_ops *ops)
{
	struct model_notifier *o = own(n);

	if (start >= end || !host_is_aligned(start | end, HOST_PAGE_SIZE))
		return -EINVAL;
	n->ops = ops;
	n->mm = mm;
	n->start = start;
	n->end = end;
	o->next = NULL;
	o->active = 0;
	o->count = 0;
	o->dying = ~(u64)0;

	host_mutex_lock(&mm->lock);
	if (model_site_fails(mm, MODEL_FAIL_NOTIFIER)) {
		host_mutex_unlock(&mm->lock);
		return -ENOMEM;
	}
	o->gen = ++mm->gen;
	for (struct model_inv *inv = mm->invs; inv; inv = inv->next)
		o->active += counted(inv, n);
	host_write_once(&n->seq, o->count);
	o->prev = mm->last_notifier;
	if (o->prev)
		own(o->prev)->next = n;
	else
		mm->notifiers = n;
	mm->last_notifier = n;
	mm_get(mm);
	host_mutex_unlock(&mm->lock);
	return 0;
}

void mm_notifier_remove(struct mm_notifier *n)
{
	struct model_notifier *o = own(n);
	struct mm *mm = n->mm;

	host_mutex_lock(&mm->lock);
	o->dying = ++mm->gen;
	while (o->active)
		model_wait(mm);
	if (o->prev)
		own(o->prev)->next = o->next;
	else
		mm->notifiers = o->next;
	if (o->next)
		own(o->next)->prev = o->prev;
	else
		mm->last_notifier = o->prev;
	host_mutex_unlock(&mm->lock);
	mm_put(mm);
}

u64 mm_notifier_read_begin(struct mm_notifier *n)
{
	struct mm *mm = n->mm;
	u64 seq;

	host_mutex_lock(&mm->lock);
	while (own(n)->active)
		model_wait(mm);
	seq = host_load_acquire(&n->seq);
	host_mutex_unlock(&mm->lock);
	return seq;
}

bool mm_notifier_read_retry(struct mm_notifier *n, u64 seq)
{
	return host_load_acquire(&n->seq) != seq;
}

void mm_notifier_set_seq(struct mm_notifier *n, u64 seq)
{
	host_store_release(&n->seq, seq);
}

/* The next notifier after n (NULL: the first) that inv calls. Lock held. */
static struct mm_notifier *next_called(struct mm *mm, const struct model_inv *inv,
				       struct mm_notifier *n)
{
	for (n = n ? own(n)->next : mm->notifiers; n; n = own(n)->next) {
		if (own(n)->gen >= inv->until)
			return NULL;
		if (counted(inv, n))
			return n;
	}
	return NULL;
}

static void clip(struct mm_invalidation *info, const struct model_inv *inv,
		 const struct mm_notifier *n)
{
	*info = inv->info;
	info->start = host_max(inv->start, n->start);
	info->to += info->start - inv->start;
	info->end = host_min(inv->end, n->end);
}

/* First pass; -EAGAIN: a callee would have had to block, `until` says which. */
static int call_start(struct mm *mm, struct model_inv *inv)
{
	struct mm_invalidation info;
	struct mm_notifier *n = NULL;
	int err = 0;

	host_mutex_lock(&mm->lock);
	while (!err && (n = next_called(mm, inv, n)) != NULL) {
		struct model_notifier *o = own(n);
		u64 seq = o->count = (o->count + 1) | 1;

		mm->counters.callbacks++;
		host_mutex_unlock(&mm->lock);
		clip(&info, inv, n);
		err = n->ops->invalidate_start(n, &info, seq);
		host_mutex_lock(&mm->lock);
		if (err)
			inv->until = o->gen;
		if (err && inv->info.blockable)
			model_violation(mm, "a notifier failed though it may block");
	}
	host_mutex_unlock(&mm->lock);
	return err;
}

static void call_finish(struct mm *mm, struct model_inv *inv)
{
	struct mm_invalidation info;
	struct mm_notifier *n = NULL;

	host_mutex_lock(&mm->lock);
	while ((n = next_called(mm, inv, n)) != NULL) {
		host_mutex_unlock(&mm->lock);
		clip(&info, inv, n);
		n->ops->invalidate_finish(n, &info);
		host_mutex_lock(&mm->lock);
	}
	host_mutex_unlock(&mm->lock);
}

int model_inv_begin(struct mm *mm, struct model_inv *inv, u64 start, u64 end, enum mm_event event,
		    const void *migrator, bool blockable)
{
	return model_inv_begin_to(mm, inv, start, end, event, migrator, blockable, 0);
}

int model_inv_begin_to(struct mm *mm, struct model_inv *inv, u64 start, u64 end,
		       enum mm_event event, const void *migrator, bool blockable, u64 to)
{
	int err;

	inv->start = start;
	inv->end = end;
	inv->info.start = start;
	inv->info.end = end;
	inv->info.event = event;
	inv->info.migrator = migrator;
	inv->info.to = to;
	inv->info.blockable = blockable;

	host_mutex_lock(&mm->lock);
	inv->gen = ++mm->gen;
	inv->until = inv->gen;
	inv->next = mm->invs;
	mm->invs = inv;
	mm->counters.invalidations++;
	for (struct mm_notifier *n = mm->notifiers; n; n = own(n)->next)
		own(n)->active += counted(inv, n);
	host_mutex_unlock(&mm->lock);

	err = call_start(mm, inv);
	call_finish(mm, inv);
	if (!err && model_told)
		model_told(mm, &inv->info);
	if (err)
		model_inv_end(mm, inv);
	return err;
}

void model_inv_end(struct mm *mm, struct model_inv *inv)
{
	struct model_inv **p;

	host_mutex_lock(&mm->lock);
	for (struct mm_notifier *n = mm->notifiers; n; n = own(n)->next) {
		struct model_notifier *o = own(n);

		if (!counted(inv, n) || --o->active)
			continue;
		o->count = (o->count | 1) + 1;
		host_store_release(&n->seq, o->count);
	}
	for (p = &mm->invs; *p != inv; p = &(*p)->next)
		;
	*p = inv->next;
	model_changed(mm);
	host_mutex_unlock(&mm->lock);
}
