/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * stats.c: counters, and the ring of event records.
 *
 * The ring's writers are threads of the library, one at a time by ring->lock;
 * its readers threads of the application, one at a time by read_lock. Between
 * the two are head and tail, each written by one side with release after the
 * records, and lost: while the ring is full, head stands still and lost counts
 * up with head beside the count. Whoever comes to that place first, a writer
 * that finds room or a reader that has taken all before it, takes the count by
 * a compare and swap and gives the LOST record.
 */
#include "runtime/private.h"

/* ---- Counters ---- */

#define SAME(field)                                                                   \
	_Static_assert(offsetof(struct gpusvm_stats, field) ==                        \
			       offsetof(struct gpusvm_driver_stats, field) +          \
				       offsetof(struct gpusvm_stats, cpu_faults),     \
		       "statistics: " #field)
SAME(device_faults_fatal);
SAME(bytes_peer);
SAME(retry_chain_max);
SAME(pins);
SAME(vram_peak);
_Static_assert(sizeof(struct gpusvm_stats) == sizeof(struct gpusvm_driver_stats) +
						      offsetof(struct gpusvm_stats, cpu_faults),
	       "statistics");

static int stats_call(struct gpusvm_event *event)
{
	return gpusvm_driver_stats_get(event->svm->driver, event->device, &event->u.stats);
}

int gpusvm_stats(struct gpusvm *svm, int device, struct gpusvm_stats *ret)
{
	struct gpusvm_stats stats = { .size = 0 };
	struct gpusvm_event *event;
	int err = svm_check(svm);

	if (!err)
		err = ret ? struct_out_check(ret, sizeof(stats)) : -EINVAL;
	if (!err)
		err = device_event(svm, device, true, &event);
	if (err)
		return err;
	err = call(event, stats_call, TASK_QUICK);
	if (!err) {
		host_memcpy(&stats.cpu_faults, &event->u.stats, sizeof(event->u.stats));
		struct_out(ret, &stats, sizeof(stats));
	}
	event_put(event);
	return err;
}

/* ---- The ring ---- */

_Static_assert((int)GPUSVM_EVENT_CPU_FAULT == (int)DRIVER_EVENT_CPU_FAULT &&
		       (int)GPUSVM_EVENT_INVALIDATE == (int)DRIVER_EVENT_INVALIDATE &&
		       (int)GPUSVM_EVENT_UNBIND == (int)DRIVER_EVENT_UNBIND &&
		       (int)GPUSVM_EVENT_LOST == (int)DRIVER_EVENT_LOST,
	       "event types");
_Static_assert((int)GPUSVM_CAUSE_NONE == (int)DRIVER_CAUSE_NONE &&
		       (int)GPUSVM_CAUSE_EVICTION == (int)DRIVER_CAUSE_EVICTION &&
		       (int)GPUSVM_CAUSE_FORK == (int)DRIVER_CAUSE_FORK &&
		       (int)GPUSVM_CAUSE_BIND == (int)DRIVER_CAUSE_BIND,
	       "causes");

#define RING_MAX ((size_t)1 << 28)

int ring_init(struct event_ring *ring, size_t n)
{
	if (!n)
		return 0;
	if (n > RING_MAX)
		return -ENOMEM;
	ring->records = host_alloc(n * sizeof(*ring->records));
	if (!ring->records)
		return -ENOMEM;
	ring->n = n;
	host_mutex_init(&ring->lock, RANK_LEAF);
	host_mutex_init(&ring->read_lock, RANK_NONE);
	return 0;
}

void ring_fini(struct event_ring *ring)
{
	if (!ring->n)
		return;
	host_mutex_destroy(&ring->lock);
	host_mutex_destroy(&ring->read_lock);
	host_free(ring->records);
}

static struct gpusvm_event_record ring_lost(u64 time, u64 n)
{
	return (struct gpusvm_event_record){
		.time_ns = time,
		.type = GPUSVM_EVENT_LOST,
		.device = -1,
		.from = gpusvm_none(),
		.to = gpusvm_none(),
		.length = n,
	};
}

/* ring->lock held. The count of what was lost at this place, which is given up
 * if there is room for a record of it and one more; else one more is lost. */
static bool ring_room(struct event_ring *ring, u64 end)
{
	u64 lost = host_load_acquire(&ring->lost), more;
	u64 room;

	for (;;) {
		/* A reader that took the count has moved tail before. */
		room = ring->n - (ring->head - host_load_acquire(&ring->tail));
		if (!lost && room)
			return true;
		if (lost && room >= 2) {
			if (!host_cas(&ring->lost, &lost, 0))
				continue;
			ring->records[ring->head % ring->n] =
				ring_lost(ring->lost_time, lost >> 32);
			host_store_release(&ring->head, ring->head + 1);
			return true;
		}
		if (!lost)
			host_write_once(&ring->lost_time, end);
		more = ((lost >> 32) + 1) << 32 | (u32)ring->head;
		if (lost >> 32 == ~(u32)0 || host_cas(&ring->lost, &lost, more))
			return false;
	}
}

void ring_event(void *arg, const struct gpusvm_driver_event *event)
{
	struct event_ring *ring = arg;
	u64 end = event->time + event->duration;

	host_mutex_lock(&ring->lock);
	/* Two that end at the same time may come here the other way round: the
	 * order in the ring is the one that counts. */
	if (end < ring->last_end)
		end = ring->last_end;
	ring->last_end = end;
	if (ring_room(ring, end)) {
		ring->records[ring->head % ring->n] = (struct gpusvm_event_record){
			.time_ns = event->time,
			.duration_ns = end - event->time,
			.type = (u32)event->type,
			.cause = (u32)event->cause,
			.device = event->device,
			.result = event->result,
			.from = location_of(event->from),
			.to = location_of(event->to),
			.address = event->address,
			.length = event->length,
		};
		host_store_release(&ring->head, ring->head + 1);
	}
	host_mutex_unlock(&ring->lock);
}

/* read_lock held. */
static bool ring_take(struct event_ring *ring, struct gpusvm_event_record *ret)
{
	u64 lost = host_load_acquire(&ring->lost);
	u64 time = host_read_once(&ring->lost_time);

	if (lost && (u32)lost == (u32)ring->tail && host_cas(&ring->lost, &lost, 0)) {
		*ret = ring_lost(time, lost >> 32);
		return true;
	}
	if (host_load_acquire(&ring->head) == ring->tail)
		return false;
	*ret = ring->records[ring->tail % ring->n];
	host_store_release(&ring->tail, ring->tail + 1);
	return true;
}

int gpusvm_events_read(struct gpusvm *svm, struct gpusvm_event_record *ret, size_t n, size_t stride)
{
	struct gpusvm_event_record record;
	char *out = (char *)ret;
	int count = 0, err = svm_check(svm);

	if (err)
		return err;
	if (stride < sizeof(record) || (n && !ret))
		return -EINVAL;
	if (!svm->ring.n)
		return 0;
	host_mutex_lock(&svm->ring.read_lock);
	while ((size_t)count < n && count < INT32_MAX && ring_take(&svm->ring, &record)) {
		host_memset(out, 0, stride);
		host_memcpy(out, &record, sizeof(record));
		out += stride;
		count++;
	}
	host_mutex_unlock(&svm->ring.read_lock);
	return count;
}
