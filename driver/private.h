/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * private.h: what the files of the driver share. The public side is driver.h.
 *
 * Locks, in the order of host/lock_order.h, and what each protects
 *   driver->links_lock  (RANK_DRIVER_LINKS) links while they change; may_map and
 *                       copy_begin need no lock
 *   driver->lock        (RANK_DRIVER_VM) the table of devices while it grows, the
 *                       bound intervals of devices, the pause count
 *   range->lock         (RANK_DRIVER_RANGE) what is done to one range: its list of
 *                       pages objects while it grows, gpusvm_pages_get on them and
 *                       the commit, its history. Faults in different ranges run
 *                       side by side; two in one range have the same work to do,
 *                       so that the second finds it done
 *   dd->lru_lock        (RANK_DRIVER_LRU) order of use of buffer objects
 *   driver->garbage_lock(RANK_DRIVER_GARBAGE) lists of ranges to take down, and to
 *                       map anew for devices that ACCESSED_BY names
 *   driver->advice.lock (RANK_DRIVER_ADVICE) what was advised: written by advice and, in
 *                       notifiers, by unmapping; read by faults
 *   the notifier lock   (the mirror's) `mapped`, `flushing` of struct
 *                       driver_pages: an invalidation writes, a commit reads. A
 *                       commit also sets them, under range->lock on top: two
 *                       commits of one pages object exclude each other by that, a
 *                       commit and an invalidation by the notifier lock
 * A CPU fault (memory.c's pagemap and devmem ops) takes none of them (law 5):
 * frames and buffer objects that fall out of use are put on lists that are
 * changed by atomics only, and drained by whoever allocates next.
 */
#ifndef GPUSVM_DRIVER_PRIVATE_H
#define GPUSVM_DRIVER_PRIVATE_H

#include "driver/attributes.h"
#include "driver/driver.h"
#include "core/retry.h"
#include "policy/arbiter.h"
#include "policy/placement.h"

struct driver_bo;

/* Atomics, relaxed: exact once the work that they count has completed. */
struct driver_counters {
	u64 cpu_faults, device_faults, device_faults_replayed, device_faults_stale,
		device_faults_fatal;
	u64 pages_to_device, pages_to_system, pages_peer;
	u64 evictions, invalidations, flushes, retries, retry_chain_max;
	u64 throttles, pins;
	u64 vram_used, vram_peak; /* bytes */
};

struct driver_device {
	struct gpusvm_driver *driver;
	struct gpusvm_device *device;
	const struct gpusvm_device_ops *ops; /* device->ops */
	struct gpusvm_device_vm *vm;
	int index;
	bool has_memory; /* a pagemap */
	bool no_dma;	 /* it has none, and goes to the process's own addresses */
	u32 removed;	 /* atomic; 1: no new work, mapping or population */

	/* Who needs the device and its vm: the table, the active pagemap, queues, calls in
	 * progress. The last one queues teardown. */
	struct host_ref alive;
	struct host_work teardown;
	u32 torn_down; /* atomic */

	/* fault.c */
	u32 servers; /* lanes that serve a fault now; atomic */

	/* memory.c */
	struct gpusvm_pagemap pagemap;
	struct gpusvm_pagemap_cache cache; /* of pagemap; while it is active, alive is held */
	u64 npages;
	struct host_mutex lru_lock;
	struct driver_bo *lru; /* circular, the least recently used first; or NULL */
	u64 n_lru;
	struct driver_bo *dead; /* released, not freed: a stack by atomics */
	u64 *freed; /* a bit for each frame that waits for memory_free; atomics */
	u64 *freed_index; /* a bit for each word of freed that may not be 0; atomics */
	u32 freed_pending; /* atomic: freed_index may not be 0 */
	u64 *exclusive; /* a bit for each frame that is the device's alone, or NULL; atomics */
	u32 *placed;	/* frames by the 2M of addresses that they were taken for, folded;
			 * atomics. A hint: mremap moves pages elsewhere */
	u64 placed_mask;
	u32 populating; /* calls that move pages here; atomic */
	struct host_waitq populate_idle; /* woken when populating reaches 0 */

	/* populate.c: where the last CPU fault's window ended, and how wide it was;
	 * atomics */
	u64 stream_next;
	u32 stream_shift;
	/* The same of its own faults on pages out of its reach; see driver_far_chunk. */
	u64 far_next;
	u32 far_run;

	/* bound.c, under driver->lock */
	struct gpusvm_interval_tree bound;
	u32 rebind; /* atomic: something that is bound may not be mapped */
	/* Of the last preemption; changed under the notifier lock held for writing. */
	u64 preempt_ticket;
	u32 rebind_failures; /* in a row; driver->lock */
	bool overtaken; /* the last resumption was undone before it came; driver->lock */
	u64 turn; /* until then invalidations wait a little: see bound.c; atomic */
	struct host_work rebind_work;

	struct driver_counters stats;
};

/* One device's mapping of one range. Never leaves the range's list. */
struct driver_pages {
	struct gpusvm_pages pages;
	struct driver_device *device; /* set before it is in the list */
	struct driver_pages *next;    /* fixed once in the list */
	u32 mapped;		      /* page table entries were committed */
	u32 atomics;		      /* enum arbiter_atomics of them */
	u32 flushing;		      /* a flush of them began and may not be over */
	u64 ticket;		      /* of that flush */
};

struct driver_range {
	struct gpusvm_range base;
	struct host_mutex lock;
	struct driver_pages first;  /* most ranges have one device */
	struct driver_pages *pages; /* list; grows at its head: store release */
	struct placement_history history; /* lock */
	u64 left;   /* when pages were last taken from a device; atomic */
	u64 accessed_by; /* devices to be mapped anew when entries went; atomic */
	u32 in_remap; /* garbage_lock */
	u32 remap_tries; /* garbage_lock */
	struct driver_range *remap_next;
	u32 in_garbage; /* garbage_lock */
	struct driver_range *garbage_next;
};

struct driver_bound {
	struct gpusvm_interval interval;
	bool read_only;
};

/* advice.c: what was advised. */
struct driver_advice {
	struct host_rwlock lock; /* the map */
	struct attribute_map map;
	u32 used;	/* atomic: there was advice once; else no one looks */
	u64 generation; /* of what was advised; changed under lock, read by commits */
	/* Over the whole window, from the first advice on. driver->lock. */
	struct mm_notifier notifier;
	bool watching;
	struct host_work refill; /* nodes that unmappings have used */
};

struct gpusvm_driver {
	struct gpusvm_mirror mirror;
	struct mm *mm;
	struct gpusvm_driver_options options;
	struct host_mutex lock;
	struct driver_device *devices[GPUSVM_DRIVER_DEVICES];
	u32 n_devices; /* store release after the entry is whole */
	u32 paused;    /* lock */

	struct host_mutex stats_lock; /* RANK_DRIVER_VM: see stats.c */

	struct host_mutex links_lock;
	struct gpusvm_interconnect links;

	struct host_mutex garbage_lock;
	struct driver_range *garbage;
	u32 garbage_pending; /* atomic: garbage may not be empty */
	bool garbage_closed; /* garbage_lock: the mirror takes down what is left */
	struct host_work garbage_work;
	struct driver_range *remap; /* garbage_lock */
	struct host_work remap_work;

	struct driver_advice advice;
	u32 taken; /* atomic: some memory was taken exclusively once; else no one looks */

	/* fault.c: threads for faults that find too many lanes serving. */
	struct host_thread *workers;
	unsigned n_workers;
	u64 kicked; /* mask of devices whose queue is to be looked at; atomic */
	u32 stopping; /* atomic */
	u32 n_queues; /* atomic */
	struct host_waitq kick;
};

struct gpusvm_driver_queue {
	struct driver_device *device; /* alive is held */
	struct gpusvm_device_queue *queue;
};

static inline struct gpusvm_driver *driver_of(struct gpusvm_mirror *mirror)
{
	return host_container_of(mirror, struct gpusvm_driver, mirror);
}
static inline struct driver_range *driver_range_of(struct gpusvm_range *range)
{
	return host_container_of(range, struct driver_range, base);
}
static inline bool driver_removed(const struct driver_device *dd)
{
	return host_load_acquire(&dd->removed);
}
static inline u64 driver_npages(u64 start, u64 end)
{
	return (end - start) >> HOST_PAGE_SHIFT;
}
static inline void driver_result_add(struct gpusvm_migrate_result *sum,
				     const struct gpusvm_migrate_result *one)
{
	sum->moved += one->moved;
	sum->already += one->already;
	sum->stayed += one->stayed;
	sum->holes += one->holes;
	sum->stayed_reason |= one->stayed_reason;
}
static inline bool driver_no_fault(const struct driver_device *dd)
{
	return dd->device->caps.flags & GPUSVM_DEVICE_NO_FAULT;
}
#define driver_for_each_pages(dp, range)                                       \
	for ((dp) = host_load_acquire(&(range)->pages); (dp); (dp) = (dp)->next)

/* ---- vm.c ---- */

/* The device, with alive held. -EINVAL: never given. -ENODEV: removed. */
int driver_device_get(struct gpusvm_driver *driver, int index, struct driver_device **ret);
void driver_device_put(struct driver_device *dd);
/* All that are not removed, as a mask of indices. */
u64 driver_devices_get(struct gpusvm_driver *driver);
void driver_devices_put(struct gpusvm_driver *driver, u64 mask);

/* ---- range.c ---- */

extern const struct gpusvm_mirror_ops driver_mirror_ops;
/* The first range that overlaps [*cursor, end), with a reference, or NULL;
 * *cursor moves behind it. For walks that sleep. Takes the notifier lock. */
struct driver_range *driver_range_walk(struct gpusvm_driver *driver, u64 *cursor, u64 end);
/* The device's pages object of the range, or NULL: no memory. Context:
 * range->lock. */
struct driver_pages *driver_range_pages(struct driver_range *range, struct driver_device *dd);
/* Takes a pages object down: entries, flush, addresses, array. Idempotent. May
 * sleep. Context: range->lock. */
void driver_pages_drop(struct driver_range *range, struct driver_pages *dp);
/* The same for all that a device has in [start, end). */
void driver_device_drop(struct driver_device *dd, u64 start, u64 end);
/* The same for all that it has mapped of a peer's memory. */
void driver_peer_drop(struct driver_device *dd, const struct driver_device *peer);

/* ---- advice.c ---- */

void driver_advice_init(struct gpusvm_driver *driver);
/* No notifier comes afterwards. May sleep. */
void driver_advice_fini(struct gpusvm_driver *driver);
/* What holds at an address. */
struct driver_advised {
	struct attributes values;
	u64 start, end;	/* as far as they agree, within what was asked */
	u64 generation;
};
/* Within [start, end). Takes the lock of advice; does not sleep long. */
void driver_advised(struct gpusvm_driver *driver, u64 address, u64 start, u64 end,
		    struct driver_advised *ret);
/* Has what was advised changed since? Then what was decided by it is void. Any
 * context. Right before a commit, under the notifier lock: who changes it takes
 * every range's lock afterwards, which the committer holds. */
static inline bool driver_advised_stale(struct gpusvm_driver *driver, u64 generation)
{
	return host_load_acquire(&driver->advice.generation) != generation;
}
/* Makes sure that advice.notifier hears of the whole window. -ENOMEM. */
int driver_advice_watch(struct gpusvm_driver *driver);
/* Remembers where [start, end) was prefetched to, as far as it is mapped. */
void driver_advice_prefetched(struct gpusvm_driver *driver, u64 start, u64 end, int where);

/* ---- bind.c ---- */

/* How a range is to be made reachable. */
struct driver_want {
	bool write;   /* else reading is enough; writing is granted where allowed */
	bool atomic;  /* an atomic shall be possible; with write */
	bool migrate; /* move its pages to where the arbiter has them */
	/* Nothing is moved, not even home, or taken from who has it exclusively: -EFAULT
	 * where that would be needed. */
	bool in_place;
	bool exclusive; /* take what is in system memory for the device alone; with write */
	enum gpusvm_driver_cause cause;
	u64 budget; /* ns for gpusvm_pages_get; 0: its default */
	u64 max_chunk; /* of a range; 0: none */
	const struct mm_vma *seen; /* as in struct gpusvm_ctx */
};
/* The range at address, made if there is none, and what is advised for it: it
 * lies within one piece of advice, and is no larger than that and want allow. With
 * a reference. -EAGAIN: one that is there does not fit, and was taken down; and
 * the errors of gpusvm_range_find_or_insert, with -EAGAIN for -EBUSY. */
int driver_range_at(struct driver_device *dd, u64 address, const struct driver_want *want,
		    struct driver_advised *advised, struct driver_range **ret);
/* 0: mapped, by this call or another.
 *   -EAGAIN  it changed meanwhile: look it up anew
 *   -E2BIG   page by page it may be possible
 *   -EFAULT, -EPERM, -ENOMEM, -ENODEV
 * May sleep. Context: no lock above RANK_DRIVER_VM. */
int driver_range_bind(struct driver_device *dd, struct driver_range *range,
		      const struct driver_want *want, const struct driver_advised *advised);
/* Makes [start, end) reachable, range by range, with bounded retries; what cannot
 * be is passed over. The first error: as driver_range_bind, but -EBUSY for
 * -EAGAIN. Context as there, with driver->lock for a device that cannot fault. */
int driver_map(struct driver_device *dd, u64 start, u64 end, const struct driver_want *want);

/* ---- place.c ---- */

/* How a range is to be mapped where its pages are now. */
struct driver_place_result {
	enum arbiter_atomics atomics; /* what may be done there */
	bool take;		      /* what is in system memory has to be the device's alone */
};
/* Asks the arbiter about a range, and moves its pages to where they should be, as far
 * as want allows. 0; -EFAULT, -EPERM it may not be accessed so. Context: range->lock. May
 * sleep. */
int driver_place(struct driver_device *dd, struct driver_range *range,
		 const struct driver_want *want, const struct driver_advised *advised,
		 struct driver_place_result *ret);
/* Some of the range cannot be taken. -E2BIG: with less of it it may be possible; -EPERM: an
 * atomic there would not be exact; -EOPNOTSUPP: want->exclusive; 0: the device does
 * without. */
int driver_place_refused(struct driver_device *dd, struct driver_range *range,
			 const struct driver_want *want);
/* Advice alone forbids any access: -EFAULT. */
int driver_place_allowed(const struct driver_advised *advised);
/* How well `from` can map pages of `to`; 0: it cannot. */
unsigned driver_link_weight(const struct driver_device *from, const struct driver_device *to);
/* The pages around address that move and are mapped as one, within what is advised:
 * [*start, *end); false: GRANULARITY says nothing. */
bool driver_granule(const struct driver_advised *advised, u64 address, u64 *start, u64 *end);
/* Maps [start, end) for the devices that ACCESSED_BY names, wherever its pages are, but
 * for those that would have to move. Best effort. Context: no lock above
 * RANK_DRIVER_VM; may sleep. */
void driver_map_accessed(struct driver_device *except, u64 start, u64 end,
			 struct gpusvm_driver *driver);
/* The range lost entries of such a device: it will be mapped again. Context: the
 * notifier lock held for writing. */
void driver_remap_add(struct gpusvm_driver *driver, struct driver_range *range);
/* Somebody has some of it for himself: it is tried again for a while. What ends it later
 * comes by driver_remap_add. Context: as that. */
void driver_remap_again(struct gpusvm_driver *driver, struct driver_range *range);
void driver_remap_init(struct gpusvm_driver *driver);
/* As driver_garbage_fini. */
void driver_remap_fini(struct gpusvm_driver *driver);

/* ---- exclusive.c ---- */

void driver_exclusive_fini(struct driver_device *dd);
/* The frames are not in use any more, or another device maps them. Atomics only. */
void driver_exclusive_clear(struct driver_device *dd, u64 frame, u64 n);
/* Is the page, on the device, its alone? state: that of address; its pagemap is held. */
bool driver_exclusive_page(struct driver_device *dd, const struct mm_page_state *state,
			   u64 address);
/* Is some of [start, end), 2M at most, another device's alone, or anyone's in system
 * memory? As it is now: more of it may be taken right after. Also true where there is no
 * memory to look with. Context: no lock above RANK_DRIVER_RANGE. */
bool driver_exclusive_any(struct driver_device *dd, u64 start, u64 end);

/* ---- bound.c ---- */

/* Commits what of the range is bound. Context: driver->lock, range->lock, the
 * notifier lock for reading; the pages are valid. */
void driver_bound_commit(struct driver_device *dd, struct driver_range *range,
			 struct driver_pages *dp);
/* Maps again what is bound to a device that cannot fault, and resumes its work. */
void driver_rebind(struct driver_device *dd);
void driver_rebind_init(struct driver_device *dd);
/* Its mappings are gone for good. May sleep. */
void driver_rebind_fini(struct driver_device *dd);
/* Entries of a device that cannot fault are about to be cleared: its work is preempted
 * until they are back. Context: the notifier lock held for writing. */
void driver_preempt(struct driver_device *dd);
/* struct gpusvm_mirror_ops's invalidate_prepare: leaves devices their turn. Sleeps, and
 * takes the notifier lock for reading. */
void driver_turn_wait(struct gpusvm_mirror *mirror, const struct mm_invalidation *inv);
void driver_bound_free(struct driver_device *dd);

/* ---- fault.c ---- */

int driver_fault_init(struct gpusvm_driver *driver);
void driver_fault_fini(struct gpusvm_driver *driver);
/* struct gpusvm_device_listener's. */
void driver_fault(void *arg, struct gpusvm_device *device);

/* ---- invalidate.c ---- */

void driver_invalidate_start(struct gpusvm_mirror *mirror, struct gpusvm_notifier *notifier,
			     const struct mm_invalidation *inv);
void driver_invalidate_finish(struct gpusvm_mirror *mirror, struct gpusvm_notifier *notifier,
			      const struct mm_invalidation *inv);
/* The first pass for one pages object: not valid any more, entries cleared, a
 * flush begun; true if there were entries. Context: notifier lock held for
 * writing. */
bool driver_pages_zap(struct driver_range *range, struct driver_pages *dp);
/* Waits for the flush that the last zap began, if there was one. May sleep.
 * Context: no lock that an invalidation takes. */
void driver_flush_wait(struct driver_range *range, struct driver_pages *dp);

/* ---- garbage.c ---- */

void driver_garbage_init(struct gpusvm_driver *driver);
/* Nothing is queued afterwards. The work may be, by an invalidation that had begun: to be
 * called again when there are none any more. */
void driver_garbage_fini(struct gpusvm_driver *driver);
/* Context: the notifier lock held for writing. */
void driver_garbage_add(struct gpusvm_driver *driver, struct driver_range *range);
/* Takes down what is queued. Cheap when nothing is. May sleep. */
void driver_garbage_collect(struct gpusvm_driver *driver);
/* Takes one range down: its pages stay where they are, the next fault makes new
 * ranges. Idempotent. May sleep. Context: no lock above RANK_DRIVER_VM. */
void driver_range_retire(struct driver_range *range);

/* ---- memory.c, populate.c ---- */

/* The pagemap, where the device has memory. -ENOMEM, -EINVAL (too large). */
int driver_memory_init(struct driver_device *dd);
/* All its frames are free. */
void driver_memory_fini(struct driver_device *dd);
/* Nothing moves there any more, also by calls that had begun. May sleep. */
void driver_memory_revoke(struct driver_device *dd);
/* A reference to the pagemap, which is made or revived as needed. The caller has alive.
 * -ENODEV, -ENOMEM. May sleep. Context: no lock above RANK_DRIVER_RANGE. */
int driver_memory_get(struct driver_device *dd);
/* Of these devices, those whose pagemap is in use: it is held, and with it what pages of
 * theirs are. Of one that is not there is no page, but for those that come now. */
u64 driver_pagemaps_get(struct gpusvm_driver *driver, u64 devices);
void driver_pagemaps_put(struct gpusvm_driver *driver, u64 held);
/* Gives frames and objects back that fell out of use. May sleep. */
void driver_memory_drain(struct driver_device *dd);
/* Everything goes home. -EBUSY when some would not after bounded retries. */
int driver_memory_evict(struct driver_device *dd, enum gpusvm_driver_cause cause);
/* struct gpusvm_ctx's keep, of a device: its own pages, and those of peers over a
 * link, are mapped where they are. Marks their buffer object as used. */
bool driver_page_keep(void *dd, struct mm_page *page);
/* The same, but that all are mapped where they are, or cannot be (-EFAULT of
 * gpusvm_pages_get: there is no way). */
bool driver_page_keep_any(void *dd, struct mm_page *page);
/* The device's own alone. */
bool driver_page_keep_own(void *dd, struct mm_page *page);
/* Whose page it is, or NULL. */
struct driver_device *driver_page_device(struct mm_page *page);
/* The same of what mm.h calls the owner. No page is looked at. */
struct driver_device *driver_owner_device(const void *owner);

/* Moves [start, end) to the device, as far as it goes; see populate_mm. leave: pages of
 * peers that it can map over a link stay there, and count as stayed. May sleep.
 * Context: no lock above RANK_DRIVER_RANGE. */
int driver_populate(struct driver_device *dd, struct mm *mm, u64 start, u64 end, u64 timeslice,
		    enum gpusvm_driver_cause cause, bool leave,
		    struct gpusvm_migrate_result *result);
/* How large a range a fault of the device at address may ask for, 0: any. Where its 2M
 * has pages on devices that it can neither map nor copy from, 64K: a range is mapped
 * whole, so that all of its pages have to come home; the others are left where they are
 * until they are asked for. A stream of such faults goes on by 2M. May sleep. Context: no
 * lock above RANK_DRIVER_RANGE. */
u64 driver_far_chunk(struct driver_device *dd, u64 address);

/* Pages of [start, end) that are on devices come home in so many at a time, from now
 * on. Only once there is advice. Best effort; may sleep. */
void driver_granule_set(struct gpusvm_driver *driver, u64 start, u64 end, u32 granule);

/* ---- prefetch.c ---- */

/* Adds the pages of [start, end) to result as ones that stay for this reason
 * (where the process has a mapping) or holes. -EFAULT: mm gone. */
int driver_count_stayed(struct mm *mm, u64 start, u64 end, u32 reason,
			struct gpusvm_migrate_result *result);

/* ---- links.c ---- */

/* All links to and from the device go; it is removed, so that none comes again. May
 * sleep. Context: no lock. */
void driver_links_remove(struct driver_device *dd);
/* The peers whose pages it may map over a link, as a mask; and whether it may copy from
 * one. No lock, no sleep. */
static inline u64 driver_peers(struct driver_device *dd)
{
	return host_load_seq(&dd->driver->links.map[dd->index]);
}
static inline bool driver_may_map(struct driver_device *dd, const struct driver_device *owner)
{
	return gpusvm_interconnect_may_map(&dd->driver->links, (unsigned)dd->index,
					   (unsigned)owner->index);
}
static inline bool driver_may_copy(struct driver_device *dd, const struct driver_device *owner)
{
	return gpusvm_interconnect_may_copy(&dd->driver->links, (unsigned)dd->index,
					    (unsigned)owner->index);
}

/* ---- stats.c ---- */

void driver_count_max(u64 *max, u64 value);
/* Tells the owner, if it listens. started: host_now() then. */
void driver_event(struct gpusvm_driver *driver, enum gpusvm_driver_event_type type,
		  enum gpusvm_driver_cause cause, int device, int result, u64 started, u64 address,
		  u64 length, int from, int to);

static inline void driver_count(u64 *counter, u64 n)
{
	host_add_relaxed(counter, n);
}

#endif
