/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * interconnect.c: the graph of links.
 *
 * Concurrency: the masks say what a link is good for, and are the truth. A copy
 * counts itself, then looks at its mask; who takes the link away clears the mask,
 * then looks at the count: both in sequential consistency, so that one of the two
 * sees the other. A row is published with release once it is whole, and freed in
 * the end. Bandwidth and latency are words of their own: advice.
 */
#include <gpusvm/interconnect.h>

#define LINK_FLAGS ((u64)(GPUSVM_LINK_MAP | GPUSVM_LINK_COPY))

struct gpusvm_interconnect_row {
	struct {
		u64 bandwidth, latency; /* bandwidth 0: there is no link */
		u64 told;		/* what the caller said it was */
		u64 flags;
		u32 copies; /* under way; atomic */
	} to[GPUSVM_INTERCONNECT_DEVICES];
};

void gpusvm_interconnect_init(struct gpusvm_interconnect *ic)
{
	host_memset(ic, 0, sizeof(*ic));
	host_waitq_init(&ic->idle);
}

void gpusvm_interconnect_fini(struct gpusvm_interconnect *ic)
{
	for (unsigned i = 0; i < GPUSVM_INTERCONNECT_DEVICES; i++)
		host_free(ic->rows[i]);
	host_waitq_destroy(&ic->idle);
}

static void put_bit(u64 *mask, unsigned bit, bool on)
{
	if (on)
		host_fetch_or(mask, (u64)1 << bit);
	else
		host_fetch_and(mask, ~((u64)1 << bit));
}

static int make_row(struct gpusvm_interconnect *ic, unsigned from)
{
	struct gpusvm_interconnect_row *row;

	if (ic->rows[from])
		return 0;
	row = host_alloc_zeroed(sizeof(*row));
	if (!row)
		return -ENOMEM;
	host_store_release(&ic->rows[from], row);
	return 0;
}

int gpusvm_interconnect_set(struct gpusvm_interconnect *ic, unsigned from, unsigned to,
			    const struct gpusvm_interconnect_link *link)
{
	u64 flags = link ? link->flags : 0, bandwidth = 0;
	struct gpusvm_interconnect_row *row;
	int err;

	if (from == to || from >= GPUSVM_INTERCONNECT_DEVICES ||
	    to >= GPUSVM_INTERCONNECT_DEVICES || flags & ~LINK_FLAGS)
		return -EINVAL;
	if (!link && !ic->rows[from])
		return 0;
	err = make_row(ic, from);
	if (err)
		return err;
	row = ic->rows[from];
	if (link)
		bandwidth =
		    link->bandwidth_mbps ? link->bandwidth_mbps : GPUSVM_INTERCONNECT_BANDWIDTH;
	/* The figures before what makes them count. */
	host_write_once(&row->to[to].latency, link ? link->latency_ns : 0);
	host_write_once(&row->to[to].told, link ? link->bandwidth_mbps : 0);
	host_write_once(&row->to[to].flags, flags);
	host_store_release(&row->to[to].bandwidth, bandwidth);
	put_bit(&ic->map[from], to, flags & GPUSVM_LINK_MAP);
	put_bit(&ic->copy[from], to, flags & GPUSVM_LINK_COPY);
	return 0;
}

static struct gpusvm_interconnect_row *row_of(struct gpusvm_interconnect *ic, unsigned from,
					      unsigned to)
{
	if (from >= GPUSVM_INTERCONNECT_DEVICES || to >= GPUSVM_INTERCONNECT_DEVICES)
		return NULL;
	return host_load_acquire(&ic->rows[from]);
}

bool gpusvm_interconnect_get(struct gpusvm_interconnect *ic, unsigned from, unsigned to,
			     struct gpusvm_interconnect_link *ret)
{
	struct gpusvm_interconnect_row *row = row_of(ic, from, to);

	if (!row || !host_load_acquire(&row->to[to].bandwidth))
		return false;
	ret->bandwidth_mbps = host_read_once(&row->to[to].told);
	ret->latency_ns = host_read_once(&row->to[to].latency);
	ret->flags = host_read_once(&row->to[to].flags);
	return true;
}

/* ---- Copies ------------------------------------------------------------------ */

bool gpusvm_interconnect_copy_begin(struct gpusvm_interconnect *ic, unsigned from, unsigned to)
{
	struct gpusvm_interconnect_row *row = row_of(ic, from, to);

	if (!row || !gpusvm_interconnect_may_copy(ic, from, to))
		return false;
	host_add_return(&row->to[to].copies, 1);
	if (gpusvm_interconnect_may_copy(ic, from, to))
		return true;
	gpusvm_interconnect_copy_end(ic, from, to);
	return false;
}

void gpusvm_interconnect_copy_end(struct gpusvm_interconnect *ic, unsigned from, unsigned to)
{
	if (host_add_return(&ic->rows[from]->to[to].copies, (u32)-1) == 0)
		host_wake_all(&ic->idle);
}

void gpusvm_interconnect_drain(struct gpusvm_interconnect *ic, unsigned from, unsigned to)
{
	struct gpusvm_interconnect_row *row = row_of(ic, from, to);

	if (row)
		host_wait(&ic->idle, !host_load_seq(&row->to[to].copies));
}

/* ---- Weights ----------------------------------------------------------------- */

u64 gpusvm_interconnect_cost(struct gpusvm_interconnect *ic, unsigned from, unsigned to, u64 bytes)
{
	struct gpusvm_interconnect_row *row = row_of(ic, from, to);
	u64 bandwidth = row ? host_load_acquire(&row->to[to].bandwidth) : 0, time, latency;

	if (!bandwidth)
		return HOST_FOREVER;
	/* bytes over 10^6 bytes a second, in ns; whole parts first, lest it overflow. */
	time = bytes / bandwidth;
	if (time > HOST_FOREVER / 2000)
		return HOST_FOREVER - 1;
	time = time * 1000 +
	       (bandwidth > HOST_FOREVER / 1000 ? 0 : bytes % bandwidth * 1000 / bandwidth);
	latency = host_read_once(&row->to[to].latency);
	return latency > HOST_FOREVER - 1 - time ? HOST_FOREVER - 1 : time + latency;
}

int gpusvm_interconnect_nearest(struct gpusvm_interconnect *ic, unsigned from, u64 mask, u64 flags,
				u64 bytes)
{
	u64 best = HOST_FOREVER;
	int ret = -1;

	if (from >= GPUSVM_INTERCONNECT_DEVICES)
		return -1;
	if (flags & GPUSVM_LINK_MAP)
		mask &= host_load_seq(&ic->map[from]);
	if (flags & GPUSVM_LINK_COPY)
		mask &= host_load_seq(&ic->copy[from]);
	for (; mask; mask &= mask - 1) {
		unsigned to = (unsigned)__builtin_ctzll(mask);
		u64 cost = gpusvm_interconnect_cost(ic, from, to, bytes);

		if (cost < best) {
			best = cost;
			ret = (int)to;
		}
	}
	return ret;
}
