/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * tlb.c: flushes. Why they are right without a lock: tlb.h.
 *
 * A lane keeps its access open until its next one. So whoever waits sets a bit in
 * the lane's attention, which the lane looks at before each access; it then ends
 * what is open and wakes drain_wq. Setting the bit and looking at the marker,
 * and ending the access and looking at the bit, are again Dekker's pair: no wake
 * is lost, and a lane to which nobody attends wakes no one.
 */
#include "devices/soft/internal.h"

void soft_lane_attract(struct gpusvm_lane *lane, u32 attend)
{
	if ((host_load_seq(&lane->attention) & attend) != attend)
		host_fetch_or(&lane->attention, attend);
}

static u64 interval_end(u64 va, u64 length)
{
	return va + length < va ? ~(u64)0 : va + length;
}

u64 soft_vm_flush_begin(struct gpusvm_device_vm *vm, u64 va, u64 length)
{
	struct soft_device *dev = vm->dev;
	u64 ticket = host_add_return(&vm->generation, 1);
	u64 end = interval_end(va, length);
	u32 i;

	host_add_relaxed(&dev->flushes, 1);
	/* So that the lanes drain while the caller begins other flushes. */
	for (i = 0; i < dev->base.caps.lanes; i++) {
		struct gpusvm_lane *lane = &dev->lanes[i];

		if (soft_marker_overlaps(host_load_seq(&lane->marker[0]), vm->id, va, end) ||
		    soft_marker_overlaps(host_load_seq(&lane->marker[1]), vm->id, va, end))
			soft_lane_attract(lane, SOFT_ATTEND_FLUSH);
	}
	/* With a latency the ticket is when it is over. It runs from here on, so that
	 * flushes of several devices that were begun together are over together. */
	return dev->flush_latency ? host_now() + dev->flush_latency : ticket;
}

/* Is the access over that had this marker? */
static bool access_over(struct gpusvm_lane *lane, unsigned slot, u64 marker)
{
	if (host_load_seq(&lane->marker[slot]) != marker)
		return true;
	soft_lane_attract(lane, SOFT_ATTEND_FLUSH);
	return host_load_seq(&lane->marker[slot]) != marker;
}

static void wait_for_access(struct soft_device *dev, struct gpusvm_lane *lane, unsigned slot,
			    u64 marker)
{
	u32 spin;

	host_add_relaxed(&dev->flush_waits, 1);
	for (spin = 0; spin < SOFT_SPIN; spin++) {
		if (access_over(lane, slot, marker))
			return;
		host_relax();
	}
	host_wait(&dev->drain_wq, access_over(lane, slot, marker));
}

void soft_vm_flush_wait(struct gpusvm_device_vm *vm, u64 va, u64 length, u64 ticket)
{
	struct soft_device *dev = vm->dev;
	u64 delay = host_read_once(&dev->misbehave[GPUSVM_SOFT_DELAY_FLUSH]);
	u64 end = interval_end(va, length);
	u32 i, slot;

	/* Without a latency the markers say it all. */
	for (i = 0; i < dev->base.caps.lanes; i++) {
		struct gpusvm_lane *lane = &dev->lanes[i];

		for (slot = 0; slot < 2; slot++) {
			u64 marker = host_load_seq(&lane->marker[slot]);

			if (soft_marker_overlaps(marker, vm->id, va, end))
				wait_for_access(dev, lane, slot, marker);
		}
	}
	if (host_unlikely(dev->flush_latency)) {
		u64 now = host_now();

		if (now < ticket)
			host_sleep(ticket - now);
	}
	if (host_unlikely(delay)) {
		host_add_relaxed(&dev->misbehaved[GPUSVM_SOFT_DELAY_FLUSH], 1);
		host_sleep(delay);
	}
}
