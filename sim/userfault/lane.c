/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * lane.c: the lane of a device: it finds a page, and reaches it within an access that
 * invalidations wait for, as the driver's lanes do.
 */
#include "sim/userfault/world.h"

static void lane_access(u64 address, mm_pfn_t pfn, u32 i)
{
	u64 has, *word;

	if (pfn & MM_PFN_DEVICE) {
		struct mm_page *page = mm_pfn_page(world->mm, pfn);

		word = (u64 *)(void *)(frame_bytes(page, false) + address % PAGE);
		word_check(GPU, i, *word);
		sched_point(POINT_COPY, word);
		word = (u64 *)(void *)(frame_bytes(page, true) + address % PAGE);
		*word = word_begin(GPU, i);
		word_end(GPU, i);
		return;
	}
	must(kernel_load(kernel_self(), address, &has) == 0);
	word_check(GPU, i, has);
	must(kernel_store(kernel_self(), address, word_begin(GPU, i)) == 0);
	word_end(GPU, i);
}

static bool lane_keep(void *arg, struct mm_page *page)
{
	(void)arg;
	(void)page;
	return true;
}

static bool lane_try(u32 i)
{
	u64 address = word_address(GPU, i), start = host_align_down(address, PAGE);
	mm_pfn_t pfn = 0;
	struct mm_range_fault rf = {.mm = world->mm,
				    .notifier = &world->notifier,
				    .start = start,
				    .end = start + PAGE,
				    .pfns = &pfn,
				    .flags = MM_FAULT_IN | MM_FAULT_WRITE,
				    .keep = lane_keep};

	must(mm_sync(world->mm, start, start + PAGE) == 0);
	rf.seq = mm_notifier_read_begin(&world->notifier);
	if (mm_range_fault(&rf))
		return false;
	host_mutex_lock(&world->lane_lock);
	if (mm_notifier_read_retry(&world->notifier, rf.seq)) {
		host_mutex_unlock(&world->lane_lock);
		return false;
	}
	host_store_release(&world->open, start);
	host_mutex_unlock(&world->lane_lock);
	lane_access(address, pfn, i);
	host_store_release(&world->open, 0);
	host_wake_all(&world->lane_waitq);
	return true;
}

void lane_step(struct sim *s, struct sim_actor *a)
{
	u32 i = any_page(s, a);
	bool done = false;

	sched_note("the lane writes page %u", watched[i]);
	host_read_lock(&s->pause);
	for (u32 tries = 0; !done && tries < 30; tries++)
		done = lane_try(i);
	host_read_unlock(&s->pause);
}

/* ---- Its notifier -------------------------------------------------------------- */

static int lane_invalidate_start(struct mm_notifier *n, const struct mm_invalidation *inv, u64 seq)
{
	(void)inv;
	host_mutex_lock(&world->lane_lock);
	mm_notifier_set_seq(n, seq);
	host_mutex_unlock(&world->lane_lock);
	return 0;
}

static bool lane_clear_of(const struct mm_invalidation *inv)
{
	u64 open = host_load_acquire(&world->open);

	return !open || open < inv->start || open >= inv->end;
}

static void lane_invalidate_finish(struct mm_notifier *n, const struct mm_invalidation *inv)
{
	(void)n;
	host_wait(&world->lane_waitq, lane_clear_of(inv));
}

static const struct mm_notifier_ops lane_ops = {
    .invalidate_start = lane_invalidate_start,
    .invalidate_finish = lane_invalidate_finish,
};

static void fork_prepare(void *arg)
{
	(void)arg;
	host_write_lock(&world->pause);
}

static void fork_parent(void *arg)
{
	(void)arg;
	host_write_unlock(&world->pause);
}

const struct userfault_hooks lane_hooks = {.fork_prepare = fork_prepare,
					   .fork_parent = fork_parent};

void lane_create(void)
{
	host_mutex_init(&world->lane_lock, RANK_MIRROR);
	host_waitq_init(&world->lane_waitq);
	host_rwlock_init(&world->pause, RANK_RUNTIME);
	must(mm_notifier_insert(&world->notifier, world->mm, A, A + ((u64)2 << 40), &lane_ops) ==
	     0);
}

void lane_destroy(void)
{
	host_rwlock_destroy(&world->pause);
	host_mutex_destroy(&world->lane_lock);
	host_waitq_destroy(&world->lane_waitq);
}
