/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * lane.c: how a lane reaches memory.
 *
 * An access is the extent of one leaf, published by a marker (tlb.h) and kept open
 * until the lane's next access elsewhere, so that a run of accesses to one leaf
 * costs a few compares each. Who wants it ended sets a bit in attention, which
 * every access looks at first.
 *
 * A device that cannot fault is preempted instead, before entries go that its work
 * may need. A lane notes the VM's two counts before it looks an access up. If it then
 * misses, while preempted or with another count: the entry may have gone for a while,
 * and it looks again once resumed. Else nobody has taken an entry away between the
 * notes and the look that is not back, and the miss is fatal.
 *
 * A lane that waits (for a fault, for resume) has nothing open and holds no lock.
 * All of lane->open and the TLB belong to the lane's thread; marker and attention
 * are atomics, see tlb.h and tlb.c.
 */
#include "devices/soft/internal.h"

/* Results of one try, besides 0 and errors. */
#define TRY_MISS 1     /* not mapped, or not for this access */
#define TRY_ATTEND 2   /* somebody wants something first */
#define TRY_VANISHED 3 /* mapped, but the bus finds nothing there */

static void clear_marker(struct gpusvm_lane *lane, unsigned slot)
{
	if (lane->marker[slot])
		host_xchg(&lane->marker[slot], 0);
}

/* Pointers are given up; markers stay until they are replaced or cleared. */
static void forget_open(struct gpusvm_lane *lane)
{
	if (lane->open[0].bus || lane->open[1].bus)
		mm_bus_end();
	lane->open[0].size = 0;
	lane->open[1].size = 0;
	lane->open[0].bus = false;
	lane->open[1].bus = false;
}

/* The marker is off first, then the bits are looked at; who waits sets a bit, then
 * looks at the marker. */
static void wake_waiters(struct gpusvm_lane *lane)
{
	u32 bits = host_load_seq(&lane->attention);

	if (!(bits & (SOFT_ATTEND_FLUSH | SOFT_ATTEND_PAUSE)))
		return;
	if (bits & SOFT_ATTEND_FLUSH)
		host_fetch_and(&lane->attention, ~(u32)SOFT_ATTEND_FLUSH);
	host_wake_all(&lane->dev->drain_wq);
}

void soft_lane_close(struct gpusvm_lane *lane)
{
	forget_open(lane);
	clear_marker(lane, 0);
	clear_marker(lane, 1);
	wake_waiters(lane);
}

/* Until nothing keeps the lane from beginning an access. */
static bool may_begin(struct gpusvm_lane *lane)
{
	return (!(host_load_seq(&lane->attention) & SOFT_ATTEND_PAUSE) &&
		!soft_vm_preempted(lane->vm)) ||
	       soft_stopped(lane->dev);
}

int soft_lane_attend(struct gpusvm_lane *lane)
{
	struct soft_device *dev = lane->dev;

	soft_lane_close(lane);
	/* The bit first, then the counts: who preempts counts first, then sets the bit. */
	if (host_load_seq(&lane->attention) & SOFT_ATTEND_PREEMPT)
		host_fetch_and(&lane->attention, ~(u32)SOFT_ATTEND_PREEMPT);
	host_add_relaxed(&lane->vm->held, 1);
	host_wait(&dev->pause_wq, may_begin(lane));
	host_add_relaxed(&lane->vm->held, -1);
	if (soft_stopped(dev))
		return -ENODEV;
	if (host_load_seq(&lane->attention) & SOFT_ATTEND_CANCEL) {
		/* It may be from a run that this lane has left. */
		host_fetch_and(&lane->attention, ~(u32)SOFT_ATTEND_CANCEL);
		if (lane->run && host_load_acquire(&lane->run->failed))
			return -ECANCELED;
	}
	return 0;
}

/* ---- Translation ------------------------------------------------------------ */

static u64 walk(struct gpusvm_lane *lane, u64 va)
{
	host_write_once(&lane->walks, lane->walks + 1);
	return soft_pt_walk(&lane->vm->pt, va);
}

static bool leaf_allows(u64 leaf, enum gpusvm_access access)
{
	if (access == GPUSVM_ACCESS_ATOMIC)
		return soft_leaf_atomics(leaf);
	return leaf && (access == GPUSVM_ACCESS_READ || soft_leaf_write(leaf));
}

/* Publishes the extent of va's leaf in a slot and gives the leaf, as it is when it
 * is published: 0, TRY_MISS or TRY_ATTEND. The order of the steps is tlb.h's. */
static int publish(struct gpusvm_lane *lane, unsigned slot, u64 va, enum gpusvm_access access,
		   u64 *ret)
{
	struct gpusvm_device_vm *vm = lane->vm;
	u64 known = host_read_once(&vm->generation);
	u64 leaf = soft_tlb_find(&lane->tlb, va, known);
	/* What a cached leaf does not allow, the page table may: rights that were added
	 * need no flush. */
	bool cached = leaf_allows(leaf, access);
	u64 generation;

	if (!cached)
		leaf = walk(lane, va);
	for (;;) {
		unsigned order = soft_leaf_order(leaf);

		if (!leaf_allows(leaf, access))
			return TRY_MISS;
		host_xchg(&lane->marker[slot], soft_marker(vm->id, ++lane->serial, va, order));
		generation = host_load_seq(&vm->generation);
		if (host_load_seq(&lane->attention))
			return TRY_ATTEND;
		if (cached && generation == known)
			break;
		cached = false;
		leaf = walk(lane, va);
		if (leaf && soft_leaf_order(leaf) <= order) {
			if (!leaf_allows(leaf, access))
				return TRY_MISS;
			soft_tlb_fill(&lane->tlb, va, generation, leaf);
			break;
		}
		/* It has grown or gone since it was published. Each turn needs one
		 * more change of the page table. */
	}
	*ret = leaf;
	return 0;
}

/* Opens one slot. Whatever it gives but 0, the caller closes. */
static int try_open(struct gpusvm_lane *lane, unsigned slot, u64 va, enum gpusvm_access access)
{
	struct soft_open *open = &lane->open[slot];
	bool write = access != GPUSVM_ACCESS_READ;
	u64 leaf, base, size;
	int err;

	err = publish(lane, slot, va, access, &leaf);
	if (err)
		return err;
	base = soft_leaf_base(leaf);
	size = HOST_PAGE_SIZE << soft_leaf_order(leaf);
	if (soft_leaf_proto(leaf) == GPUSVM_PROTO_LOCAL) {
		open->ptr = lane->dev->vram + base;
		write = soft_leaf_write(leaf);
	} else if (soft_leaf_proto(leaf) == GPUSVM_PROTO_PEER) {
		open->ptr = soft_peer_memory(lane->dev, base, size);
		if (!open->ptr)
			return TRY_VANISHED;
		write = soft_leaf_write(leaf);
	} else {
		open->ptr = mm_bus_begin(base, size, write);
		if (!open->ptr)
			return TRY_VANISHED;
		open->bus = true;
	}
	open->start = host_align_down(va, size);
	open->size = size;
	open->allowed = 1u << GPUSVM_ACCESS_READ;
	if (write)
		open->allowed |= 1u << GPUSVM_ACCESS_WRITE;
	if (write && soft_leaf_atomics(leaf))
		open->allowed |= 1u << GPUSVM_ACCESS_ATOMIC;
	return 0;
}

static int fatal(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access, int error)
{
	lane->failure = (struct gpusvm_command_fault){va, access, error};
	return error;
}

/* Before an access is looked up, by a device that cannot fault. */
static void note_preemptions(struct gpusvm_lane *lane)
{
	if (!(lane->dev->base.caps.flags & GPUSVM_DEVICE_NO_FAULT))
		return;
	lane->resumed = host_load_seq(&lane->vm->resumed);
	lane->preempted = host_load_seq(&lane->vm->preempted);
}

/* After a miss: may it be there when we look again? */
static bool was_preempted(const struct gpusvm_lane *lane)
{
	return lane->preempted != lane->resumed ||
	       host_load_seq(&lane->vm->preempted) != lane->preempted ||
	       host_load_seq(&lane->vm->resumed) != lane->resumed;
}

/* The driver's answer to a miss, or the device's own. Nothing is open. */
static int miss(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access, int kind,
		u32 *vanished)
{
	int err;

	if (lane->dev->base.caps.flags & GPUSVM_DEVICE_NO_FAULT && was_preempted(lane))
		return soft_lane_attend(lane);
	if (lane->dev->base.caps.flags & GPUSVM_DEVICE_NO_FAULT)
		return fatal(lane, va, access,
			     kind == TRY_MISS && soft_pt_walk(&lane->vm->pt, va) ? -EPERM
										 : -EFAULT);
	/* Where no translation can be, or the bus does not keep its promise, asking
	 * again must end some time. */
	if ((kind == TRY_VANISHED || va >= SOFT_VA_END) && ++*vanished > SOFT_BUS_RETRIES)
		return fatal(lane, va, access, -EFAULT);
	err = soft_fault_raise(lane, va, access);
	if (err && err != -ENODEV)
		fatal(lane, va, access, err);
	return err;
}

/* After a try that gave no access: 0 means try again. */
static int settle(struct gpusvm_lane *lane, int kind, u64 va, enum gpusvm_access access,
		  u32 *vanished)
{
	if (kind == TRY_ATTEND)
		return soft_lane_attend(lane);
	soft_lane_close(lane);
	return miss(lane, va, access, kind, vanished);
}

int soft_lane_open(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access)
{
	u32 vanished = 0;
	int err;

	do {
		forget_open(lane);
		clear_marker(lane, 1);
		note_preemptions(lane);
		err = try_open(lane, 0, va, access);
		if (!err)
			return 0;
		err = settle(lane, err, va, access, &vanished);
	} while (!err);
	return err;
}

int soft_lane_open2(struct gpusvm_lane *lane, u64 dst, u64 src)
{
	u32 vanished = 0;
	int err;

	do {
		forget_open(lane);
		note_preemptions(lane);
		err = try_open(lane, 0, dst, GPUSVM_ACCESS_WRITE);
		if (err) {
			err = settle(lane, err, dst, GPUSVM_ACCESS_WRITE, &vanished);
			continue;
		}
		err = try_open(lane, 1, src, GPUSVM_ACCESS_READ);
		if (!err)
			return 0;
		err = settle(lane, err, src, GPUSVM_ACCESS_READ, &vanished);
	} while (!err);
	return err;
}

int soft_lane_touch(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access, u64 *end)
{
	u32 vanished = 0;
	int err = 0;

	do {
		u64 leaf, size;

		note_preemptions(lane);
		leaf = walk(lane, va);
		size = HOST_PAGE_SIZE << soft_leaf_order(leaf);
		if (soft_lane_attracted(lane)) {
			err = soft_lane_attend(lane);
		} else if (leaf_allows(leaf, access)) {
			*end = host_align_down(va, size) + size;
			return 0;
		} else {
			err = miss(lane, va, access, TRY_MISS, &vanished);
		}
	} while (!err);
	return err;
}

/* ---- Memory that vanished under an access ------------------------------------ */

int soft_lane_vanished(struct gpusvm_lane *lane, u64 fault_address, u32 *retries)
{
	const struct soft_open *hit = NULL;
	enum gpusvm_access access;
	unsigned i;
	u64 va;

	for (i = 0; i < 2; i++) {
		const struct soft_open *open = &lane->open[i];

		if (open->size && open->bus &&
		    fault_address - (u64)(uintptr_t)open->ptr < open->size)
			hit = open;
	}
	if (!hit) { /* not under an access: the caller's buffer */
		soft_lane_close(lane);
		return -EFAULT;
	}
	va = hit->start + (fault_address - (u64)(uintptr_t)hit->ptr);
	access = hit->allowed >> GPUSVM_ACCESS_WRITE & 1 ? GPUSVM_ACCESS_WRITE : GPUSVM_ACCESS_READ;
	soft_lane_close(lane);
	lane->failure = (struct gpusvm_command_fault){va, access, 0};
	return miss(lane, va, access, TRY_VANISHED, retries);
}

/* ---- For code that runs in a lane ---------------------------------------------- */

#ifndef __KERNEL__

static void __attribute__((noreturn)) lane_die(struct gpusvm_lane *lane, u64 va, int error)
{
	lane->result = error;
	lane->abandoned = true;
	mm_bus_abandon(va);
}

void soft_lane_fail(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access, int error)
{
	soft_lane_close(lane);
	lane_die(lane, va, fatal(lane, va, access, error));
}

static bool open_covers(const struct soft_open *open, u64 va, enum gpusvm_access access)
{
	return va - open->start < open->size && (open->allowed >> access & 1);
}

static u64 give(const struct soft_open *open, u64 va, u64 wish)
{
	u64 left = open->size - (va - open->start);

	wish += wish == 0;
	return host_min(wish, left);
}

static void __attribute__((noinline))
access_slow(struct gpusvm_lane *lane, u64 va, enum gpusvm_access access)
{
	int err = soft_lane_open(lane, va, access);

	if (err)
		lane_die(lane, va, err);
}

void *soft_lane_access(struct gpusvm_lane *lane, u64 va, u64 *length, enum gpusvm_access access)
{
	const struct soft_open *open = &lane->open[0];

	if (host_unlikely(!open_covers(open, va, access) || soft_lane_attracted(lane)))
		access_slow(lane, va, access);
	*length = give(open, va, *length);
	return open->ptr + (va - open->start);
}

void soft_lane_access2(struct gpusvm_lane *lane, u64 dst, u64 src, u64 *length, void **dst_ret,
		       const void **src_ret)
{
	const struct soft_open *d = &lane->open[0], *s = &lane->open[1];
	int err;

	if (!open_covers(d, dst, GPUSVM_ACCESS_WRITE) || !open_covers(s, src, GPUSVM_ACCESS_READ) ||
	    soft_lane_attracted(lane)) {
		err = soft_lane_open2(lane, dst, src);
		if (err)
			lane_die(lane, dst, err);
	}
	*length = give(s, src, give(d, dst, *length));
	*dst_ret = d->ptr + (dst - d->start);
	*src_ret = s->ptr + (src - s->start);
}

#endif
