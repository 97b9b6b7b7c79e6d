/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * mini.h: the smallest user of a home: a region whose frames are plain memory,
 * moved in and out by bare mm.h transactions. For tests of host/userfault that
 * need nothing above it.
 */
#ifndef TESTS_LIVE_MINI_H
#define TESTS_LIVE_MINI_H

#include "host/mm.h"
#include "host/posix/posix.h"
#include "host/userfault/userfault.h"

#include <pthread.h>
#include <string.h>

#define MINI_FRAMES (16 * HOST_HUGE_PAGES)

struct mini {
	struct mm *mm;
	struct mm_region *region;
	char *vram;
	pthread_mutex_t lock; /* used */
	unsigned char used[MINI_FRAMES];
	int data; /* what frames carry; its address is in the arena */
	u64 refs;
	unsigned window; /* pages that come home with a fault, aligned */
};

static struct mini *mini HOST_STATIC; /* the threads that serve faults read it */

static void mini_mark(u64 first, unsigned order, bool used)
{
	pthread_mutex_lock(&mini->lock);
	memset(mini->used + first, used, (size_t)1 << order);
	pthread_mutex_unlock(&mini->lock);
}

static u64 mini_alloc(unsigned order)
{
	u64 n = (u64)1 << order;

	pthread_mutex_lock(&mini->lock);
	for (u64 i = 0; i + n <= MINI_FRAMES; i += n)
		if (!memchr(mini->used + i, 1, n)) {
			memset(mini->used + i, 1, n);
			pthread_mutex_unlock(&mini->lock);
			return i;
		}
	pthread_mutex_unlock(&mini->lock);
	return ~(u64)0;
}

static u64 mini_used(void)
{
	u64 n = 0;

	pthread_mutex_lock(&mini->lock);
	for (unsigned i = 0; i < MINI_FRAMES; i++)
		n += mini->used[i];
	pthread_mutex_unlock(&mini->lock);
	return n;
}

static char *mini_frame(struct mm_page *page)
{
	return mini->vram + mm_page_index(page) * HOST_PAGE_SIZE;
}

static void mini_free(struct mm_page *page, unsigned order, void *data)
{
	(void)data;
	mini_mark(mm_page_index(page), order, false);
}

static void mini_split(void *data, unsigned extra)
{
	(void)data;
	(void)extra;
}

static void mini_hold(void *data)
{
	(void)data;
}

static int mini_read(struct mm_page *page, unsigned i, void *buffer)
{
	memcpy(buffer, mini_frame(page) + i * HOST_PAGE_SIZE, HOST_PAGE_SIZE);
	return 0;
}

/* Copies what a transaction collected; dst was chosen before. */
static void mini_copy(struct mm_migrate *m)
{
	for (unsigned i = 0; i < m->npages; i++) {
		size_t size = m->src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_SIZE : HOST_PAGE_SIZE;
		unsigned order;

		if (!(m->src[i] & MM_MPFN_MIGRATE) || !m->dst[i])
			continue;
		if (m->dst[i] & MM_MPFN_SYSTEM)
			memcpy((void *)mm_migrate_dma(m, i, &order),
			       mini_frame(mm_mpfn_page(m->src[i])), size);
		else if (m->src[i] & MM_MPFN_ZERO)
			memset(mini_frame(mm_mpfn_page(m->dst[i])), 0, size);
		else
			memcpy(mini_frame(mm_mpfn_page(m->dst[i])),
			       (void *)mm_migrate_dma(m, i, &order), size);
	}
}

static u64 mini_home(u64 start, u64 end)
{
	mm_mpfn_t *src = host_alloc(HOST_HUGE_PAGES * 8), *dst = host_alloc(HOST_HUGE_PAGES * 8);
	struct mm_migrate m = {.mm = mini->mm,
			       .start = start,
			       .end = end,
			       .flags = MM_MIGRATE_DEVICE | MM_MIGRATE_COMPOUND,
			       .src = src,
			       .dst = dst};
	u64 moved = 0;

	if (mm_migrate_begin(&m) == 0) {
		if (m.collected && mm_migrate_alloc_system(&m) == 0) {
			mini_copy(&m);
			mm_migrate_commit(&m);
		}
		for (unsigned i = 0; i < m.npages; i++)
			if (src[i] & MM_MPFN_MIGRATE && dst[i])
				moved += src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_PAGES : 1;
		mm_migrate_end(&m);
	}
	host_free(src);
	host_free(dst);
	return moved;
}

static s64 mini_to_ram(struct mm_cpu_fault *fault)
{
	u64 size = mini->window * HOST_PAGE_SIZE;
	u64 start = host_align_down(fault->address, size);

	mini_home(start, start + size);
	return 0;
}

static const struct mm_region_ops mini_ops = {
    .migrate_to_ram = mini_to_ram,
    .free = mini_free,
    .split = mini_split,
    .hold = mini_hold,
    .drop = mini_hold,
    .read = mini_read,
};

/* Moves [start, end), within 2M, to the device; pages moved. */
static u64 mini_out(u64 start, u64 end, u32 *reason)
{
	mm_mpfn_t *src = host_alloc(HOST_HUGE_PAGES * 8), *dst = host_alloc(HOST_HUGE_PAGES * 8);
	struct mm_migrate m = {.mm = mini->mm,
			       .start = start,
			       .end = end,
			       .flags = MM_MIGRATE_SYSTEM | MM_MIGRATE_COMPOUND,
			       .src = src,
			       .dst = dst};
	u64 moved = 0;

	if (mm_migrate_begin(&m) == 0) {
		for (unsigned i = 0; i < m.npages; i++) {
			unsigned order = src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_ORDER : 0;
			u64 frame;

			if (!(src[i] & MM_MPFN_MIGRATE))
				continue;
			frame = mini_alloc(order);
			if (frame == ~(u64)0)
				continue;
			dst[i] = mm_mpfn(mm_page_init(mini->region, frame, order, &mini->data)) |
				 MM_MPFN_MIGRATE | (src[i] & MM_MPFN_COMPOUND);
		}
		mini_copy(&m);
		mm_migrate_commit(&m);
		for (unsigned i = 0; i < m.npages; i++)
			if (src[i] & MM_MPFN_MIGRATE && dst[i])
				moved += src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_PAGES : 1;
		if (reason)
			*reason = m.stayed_reason;
		mm_migrate_end(&m);
	}
	host_free(src);
	host_free(dst);
	return moved;
}

static inline int mini_open(u32 without)
{
	int r;

	if (host_arena_open((u64)4 << 30))
		return -ENOMEM;
	host_work_start();
	mini = host_alloc_zeroed(sizeof(*mini));
	pthread_mutex_init(&mini->lock, NULL);
	mini->window = HOST_HUGE_PAGES;
	r = userfault_open(without, NULL, &mini->mm);
	if (r)
		return r;
	mini->vram = host_alloc_pages(MINI_FRAMES * HOST_PAGE_SIZE);
	return mm_region_create(MINI_FRAMES, &mini_ops, NULL, &mini->region);
}

static inline u64 mini_close(void)
{
	u64 left;

	mm_region_destroy(mini->region);
	host_free_pages(mini->vram, MINI_FRAMES * HOST_PAGE_SIZE);
	userfault_close(mini->mm);
	host_free(mini);
	host_work_stop();
	left = host_arena_used();
	host_arena_close();
	return left;
}

#endif
