/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The order in which locks are taken: a lock may be taken only while every
 * lock held has a lower rank. Two locks of one rank are never held together.
 * Debug and model builds check it at each lock call; RANK_NONE is exempt.
 *
 * What may be done under which
 *   - Allocation: only under ranks below RANK_NOTIFIER_LIST. From there on a
 *     lock may be taken by an invalidation, and an invalidation may be what
 *     the memory manager does to find memory. A home that is no such memory
 *     manager (a live process: its memory comes from a reserve of its own) may
 *     allocate under its own locks, RANK_HOST_*, with none of the others held.
 *   - Waiting for a device to drain: only inside an invalidation (which holds
 *     nothing but RANK_MIRROR) or under ranks below it. Never with a block
 *     (page) lock or the event gate held.
 *   - Touching memory of the application: with no lock at all.
 */
#ifndef GPUSVM_LOCK_ORDER_H
#define GPUSVM_LOCK_ORDER_H

enum host_lock_rank {
	RANK_NONE = 0,

	/* runtime: the handle, its tables of queues and devices. */
	RANK_RUNTIME,
	/* driver: links between devices, while they change. */
	RANK_DRIVER_LINKS,
	/* driver: one per VM; serialises binding, unbinding of devices and the
	 * garbage collector against each other. Not taken on the CPU fault path. */
	RANK_DRIVER_VM,
	/* driver: serialises what is done to one range (get_pages and bind), so
	 * that faults in different ranges run side by side. */
	RANK_DRIVER_RANGE,
	/* driver: list of buffer objects by last use, and their state. */
	RANK_DRIVER_LRU,
	/* core/mirror: insertion and removal of ranges and notifiers. */
	RANK_MIRROR_TREE,
	/* core/pagemap: one devmem's migration state. */
	RANK_DEVMEM,
	/* device: allocation of its memory and of page tables' nodes. */
	RANK_DEVICE_MEMORY,

	/* ---- from here on no allocation ---- */

	/* home: the list of interval notifiers; read while calling them. */
	RANK_NOTIFIER_LIST,
	/* core/mirror: the notifier lock. Write in an invalidation, read when
	 * committing page tables (law 7). */
	RANK_MIRROR,
	/* driver: lists that an invalidation appends to (garbage to collect). */
	RANK_DRIVER_GARBAGE,
	/* driver: what was advised, which an unmapping edits; read by faults. */
	RANK_DRIVER_ADVICE,
	/* device: a VM's page table while leaves are written or cleared. */
	RANK_DEVICE_VM,
	/* device: the fault queue, command queues, the copy engine's ring. */
	RANK_DEVICE_QUEUE,
	/* core/fence: one fence's callbacks. */
	RANK_FENCE,
	/* home: a 2M block's page lock. Held for one system call at most. */
	RANK_HOST_BLOCK,
	/* home: the event gate. Write: reading events and marking pages.
	 * Read: [look at a page's state + one system call]. */
	RANK_HOST_GATE,
	/* home: pools of staging pages, the applier's list. */
	RANK_HOST_POOL,
	/* host: work queues, the arena. */
	RANK_HOST,
	/* leaves: counters, event rings, nothing is taken below. */
	RANK_LEAF,
};

#endif
