/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * open.c: opening and closing the home of this process.
 *
 * The order of the steps is that of their dependence; close takes them back in
 * reverse. The caller has opened the arena and the work pool (host/posix).
 */
#define _GNU_SOURCE
#include "host/userfault/probe.h"
#include "host/userfault/bus.h"
#include "host/posix/posix.h"

struct mm *the_mm HOST_STATIC;

static int open_contexts(struct mm *mm)
{
	mm->fd = userfault_open_context(mm->sys, mm->without, &mm->info);
	if (mm->fd < 0)
		return mm->fd;
	mm->watch_fd = userfault_open_watch(mm->sys, &mm->info);
	mm->probe_fd = userfault_open_probe(mm->sys, &mm->info);
	if (mm->probe_fd < 0)
		return mm->probe_fd;
	mm->restricted = !(mm->info.caps & MM_CAP_ANY_MEMORY);
	while (mm->sys->libc && mm->n_libc < host_array_size(mm->libc) &&
	       mm->sys->libc(mm->n_libc, &mm->libc[mm->n_libc].start,
			     &mm->libc[mm->n_libc].end))
		mm->n_libc++;
	return 0;
}

static void locks_init(struct mm *mm)
{
	host_ref_init(&mm->ref);
	host_rwlock_init(&mm->gate, RANK_HOST_GATE);
	host_mutex_init(&mm->regions_lock, RANK_HOST_POOL);
	host_mutex_init(&mm->extents_lock, RANK_HOST_POOL);
	host_mutex_init(&mm->whole.lock, RANK_LEAF);
	exclusive_init(mm);
	host_mutex_init(&mm->huge.lock, RANK_LEAF);
	notifiers_init(mm);
}

static void close_contexts(struct mm *mm)
{
	if (mm->fd >= 0)
		mm->sys->close(mm->fd);
	if (mm->watch_fd >= 0)
		mm->sys->close(mm->watch_fd);
	if (mm->probe_fd >= 0)
		mm->sys->close(mm->probe_fd);
	userfault_sys_fini();
}

int userfault_open(u32 without, const struct userfault_hooks *hooks, struct mm **ret)
{
	struct mm *mm;
	int r;

	if (the_mm)
		return -EBUSY;
	mm = host_alloc_zeroed(sizeof(*mm));
	if (!mm)
		return -ENOMEM;
	mm->sys = &userfault_sys_here;
	mm->without = without;
	mm->fd = mm->watch_fd = mm->probe_fd = -1;
	if (hooks)
		mm->hooks = *hooks;
	r = userfault_sys_init();
	if (r)
		goto fail;
	locks_init(mm);
	r = open_contexts(mm);
	if (r)
		goto fail_sys;
	r = fork_init(mm);
	if (r)
		goto fail_sys;
	r = blocks_init(mm);
	if (r)
		goto fail_sys;
	r = alloc_init(mm);
	if (r)
		goto fail_blocks;
	r = reader_start(mm);
	if (!r)
		r = applier_start(mm);
	if (!r)
		r = staging_init(mm);
	if (r)
		goto fail_threads;
	bus_init();
	the_mm = mm;
	fork_begin(mm);
	*ret = mm;
	return 0;
fail_threads:
	reader_stop(mm);
	applier_stop(mm);
	alloc_fini(mm);
fail_blocks:
	blocks_fini(mm);
fail_sys:
	close_contexts(mm);
fail:
	host_free(mm);
	return r;
}

void userfault_close(struct mm *mm)
{
	exclusive_fini(mm);
	fork_end();
	host_store_release(&mm->dying, true);
	bus_fini();
	unregister_all(mm);
	staging_fini(mm);
	reader_stop(mm);
	applier_stop(mm);
	alloc_fini(mm);
	transaction_drop(mm->idle_transaction);
	huge_move_drop(mm->idle_huge_move);
	blocks_fini(mm);
	extents_fini(mm);
	fork_fini(mm);
	close_contexts(mm);
	host_rwlock_destroy(&mm->gate);
	host_rwlock_destroy(&mm->notifiers_lock);
	host_mutex_destroy(&mm->seq_lock);
	host_waitq_destroy(&mm->seq_waitq);
	regions_fini(mm);
	host_mutex_destroy(&mm->regions_lock);
	host_mutex_destroy(&mm->whole.lock);
	host_mutex_destroy(&mm->huge.lock);
	the_mm = NULL;
	mm_put(mm);
}

void userfault_info_get(struct mm *mm, struct userfault_info *ret)
{
	*ret = mm->info;
}

void userfault_counters_get(struct mm *mm, struct userfault_counters *ret)
{
	const u64 *from = (const u64 *)&mm->counters;
	u64 *to = (u64 *)ret;

	for (unsigned i = 0; i < sizeof(*ret) / sizeof(u64); i++)
		to[i] = host_read_once(&from[i]);
}

void mm_get(struct mm *mm)
{
	host_ref_get(&mm->ref);
}

void mm_put(struct mm *mm)
{
	if (host_ref_put(&mm->ref))
		host_free(mm);
}

bool mm_use(struct mm *mm)
{
	return !host_load_acquire(&mm->dying);
}

void mm_unuse(struct mm *mm)
{
	/* The process is alive as long as its threads run; nothing to let go. */
	(void)mm;
}

void mm_caps_get(struct mm *mm, struct mm_caps *ret)
{
	ret->flags = mm->info.caps;
	ret->max_order = HOST_HUGE_ORDER;
}
