/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * lane.c: the lane of a device: it finds a page, and reaches it within an access that
 * invalidations wait for, as the driver's lanes do.
 */
#include "sim/userfault/world.h"

/* What only devices reach: a frame, or what the lane has for itself. */
static u64 *lane_word(mm_pfn_t pfn, u64 offset, bool write)
{
	u8 *bytes;

	if (pfn & MM_PFN_DEVICE)
		bytes = frame_bytes(mm_pfn_page(world->mm, pfn), write);
	else
		bytes = kernel_touch((void *)mm_dma_map(world->mm, world, pfn, 0, true), write);
	must(bytes);
	return (u64 *)(void *)(bytes + offset);
}

static void lane_access(u64 address, mm_pfn_t pfn, u32 i)
{
	u64 has, *word;

	if (pfn & (MM_PFN_DEVICE | MM_PFN_EXCLUSIVE)) {
		word = lane_word(pfn, address % PAGE, false);
		word_check(GPU, i, *word);
		sched_point(POINT_COPY, word);
		word = lane_word(pfn, address % PAGE, true);
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

static bool lane_keep_none(void *arg, struct mm_page *page)
{
	(void)arg;
	(void)page;
	return false;
}

/* take: for the lane alone. */
static bool lane_try(u32 i, bool take)
{
	u64 address = word_address(GPU, i), start = host_align_down(address, PAGE);
	mm_pfn_t pfn = 0;
	struct mm_range_fault rf = {.mm = world->mm,
				    .notifier = &world->notifier,
				    .start = start,
				    .end = start + PAGE,
				    .pfns = &pfn,
				    .flags = MM_FAULT_IN | MM_FAULT_WRITE,
				    .keep = take ? lane_keep_none : lane_keep,
				    .owner = world};

	must(mm_sync(world->mm, start, start + PAGE) == 0);
	rf.seq = mm_notifier_read_begin(&world->notifier);
	if (take ? mm_make_exclusive(&rf, 0) : mm_range_fault(&rf))
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

static void lane_write(struct sim *s, u32 i, bool take)
{
	bool done = false;

	sched_note("the lane %s page %u", take ? "takes" : "writes", watched[i]);
	host_read_lock(&s->pause);
	for (u32 tries = 0; !done && tries < 30; tries++)
		done = lane_try(i, take);
	host_read_unlock(&s->pause);
}

void lane_step(struct sim *s, struct sim_actor *a)
{
	lane_write(s, any_page(s, a), false);
}

void take_step(struct sim *s, struct sim_actor *a)
{
	u32 i = any_page(s, a);

	lane_write(s, i, sim_below(a, 4) != 0);
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
