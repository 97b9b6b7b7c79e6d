/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * command.c: what each command does, on a lane's thread.
 *
 * A command runs inside mm_bus_guard. It goes leaf by leaf, and what it has done is
 * in lane->position, so that it goes on from there when memory vanished under it
 * and the driver brought it back. Repeating a part is harmless: what was written
 * is written again, and an atomic that was interrupted has not happened.
 *
 * Locking: none. Memory of the caller (buffers, *old) is only touched while no
 * access is open: it may be what the driver is moving.
 */
#include "devices/soft/internal.h"

#define STREAM (1u << 20) /* copies from here on do not go through the cache */

/* What a command's body needs; lives on the stack below the guard. */
struct body {
	struct gpusvm_lane *lane;
	const struct gpusvm_command *command;
	int (*step)(struct gpusvm_lane *lane, const struct gpusvm_command *command, u64 left);
};

/* From va to the end of what is open, at most n. */
static u64 open_left(const struct soft_open *open, u64 va, u64 n)
{
	u64 left = open->start + open->size - va;

	return host_min(left, n);
}

static u8 *open_ptr(const struct soft_open *open, u64 va)
{
	return open->ptr + (va - open->start);
}

/* ---- One step of each: advances lane->position by what it did ----------------- */

static int step_read(struct gpusvm_lane *lane, const struct gpusvm_command *c, u64 left)
{
	u64 va = c->va + lane->position;
	u64 n;
	int err = soft_lane_open(lane, va, GPUSVM_ACCESS_READ);

	if (err)
		return err;
	n = open_left(&lane->open[0], va, host_min(left, SOFT_BOUNCE));
	host_memcpy(lane->bounce, open_ptr(&lane->open[0], va), n);
	soft_lane_close(lane);
	host_memcpy((u8 *)c->buffer + lane->position, lane->bounce, n);
	lane->position += n;
	return 0;
}

static int step_write(struct gpusvm_lane *lane, const struct gpusvm_command *c, u64 left)
{
	u64 va = c->va + lane->position;
	u64 n = host_min(left, SOFT_BOUNCE);
	int err;

	host_memcpy(lane->bounce, (u8 *)c->buffer + lane->position, n);
	while (n) {
		u64 part;

		err = soft_lane_open(lane, va, GPUSVM_ACCESS_WRITE);
		if (err)
			return err;
		part = open_left(&lane->open[0], va, n);
		host_memcpy(open_ptr(&lane->open[0], va),
			    lane->bounce + (va - c->va - lane->position), part);
		va += part;
		n -= part;
	}
	soft_lane_close(lane);
	lane->position = va - c->va;
	return 0;
}

static int step_set(struct gpusvm_lane *lane, const struct gpusvm_command *c, u64 left)
{
	u64 va = c->va + lane->position;
	u64 n;
	int err = soft_lane_open(lane, va, GPUSVM_ACCESS_WRITE);

	if (err)
		return err;
	n = open_left(&lane->open[0], va, left);
	host_memset(open_ptr(&lane->open[0], va), c->byte, n);
	lane->position += n;
	return 0;
}

static int step_copy(struct gpusvm_lane *lane, const struct gpusvm_command *c, u64 left)
{
	u64 dst = c->va + lane->position, src = c->va2 + lane->position;
	u64 n, apart, done, part;
	u8 *to, *from;
	int err = soft_lane_open2(lane, dst, src);

	if (err)
		return err;
	n = open_left(&lane->open[1], src, open_left(&lane->open[0], dst, left));
	to = open_ptr(&lane->open[0], dst);
	from = open_ptr(&lane->open[1], src);
	/* What overlaps is copied in parts that do not: any result will do. */
	apart = to > from ? (u64)(to - from) : (u64)(from - to);
	for (done = 0; apart && done < n; done += part) {
		part = host_min(apart, n - done);
		if (part >= STREAM)
			host_memcpy_stream(to + done, from + done, part);
		else
			host_memcpy(to + done, from + done, part);
	}
	lane->position += n;
	return 0;
}

static int step_touch(struct gpusvm_lane *lane, const struct gpusvm_command *c, u64 left)
{
	u64 va = c->va + lane->position;
	u64 end;
	int err = soft_lane_touch(lane, va, c->access, &end);

	if (err)
		return err;
	lane->position += host_min(left, end - va);
	return 0;
}

/* Exact among the lanes of this device, and with the CPU where both reach the
 * memory at once: it is the processor's own atomic. */
#define ATOMIC_ON(type, p, c)                                                                      \
	({                                                                                         \
		type *p_ = (type *)(void *)(p);                                                    \
		type operand_ = (type)(c)->atomic.operand;                                         \
		type old_ = (type)(c)->atomic.expected;                                            \
		switch ((c)->atomic.op) {                                                          \
		case GPUSVM_OP_ADD:                                                                \
			old_ = __atomic_fetch_add(p_, operand_, __ATOMIC_SEQ_CST);                 \
			break;                                                                     \
		case GPUSVM_OP_EXCHANGE:                                                           \
			old_ = __atomic_exchange_n(p_, operand_, __ATOMIC_SEQ_CST);                \
			break;                                                                     \
		case GPUSVM_OP_OR:                                                                 \
			old_ = __atomic_fetch_or(p_, operand_, __ATOMIC_SEQ_CST);                  \
			break;                                                                     \
		case GPUSVM_OP_CAS:                                                                \
			(void)__atomic_compare_exchange_n(p_, &old_, operand_, false,              \
							  __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);     \
			break;                                                                     \
		}                                                                                  \
		(u64) old_;                                                                        \
	})

/* Behind a bus that has no atomics: a read and a write, between which the CPU may come;
 * exact among the lanes of this device alone, by bus_lock. */
#define SPLIT_ON(type, p, c)                                                                       \
	({                                                                                         \
		type *p_ = (type *)(void *)(p);                                                    \
		type operand_ = (type)(c)->atomic.operand, old_ = host_load_acquire(p_);           \
		type new_ = (c)->atomic.op == GPUSVM_OP_ADD	   ? old_ + operand_               \
			    : (c)->atomic.op == GPUSVM_OP_OR	   ? old_ | operand_               \
			    : (c)->atomic.op == GPUSVM_OP_EXCHANGE ? operand_                      \
			    : old_ == (type)(c)->atomic.expected   ? operand_                      \
								   : old_;                         \
		host_relax(); /* the way to memory and back */                                     \
		host_store_release(p_, new_);                                                      \
		(u64) old_;                                                                        \
	})

/* False: another lane is at it. If the memory vanishes in between, run_guarded() unlocks. */
static bool split_atomic(struct gpusvm_lane *lane, u8 *p, const struct gpusvm_command *c, u64 *old)
{
	u32 unlocked = 0;

	if (!host_cas(&lane->dev->bus_lock, &unlocked, 1))
		return false;
	lane->has_bus = true;
	*old = c->atomic.width == 8 ? SPLIT_ON(u64, p, c) : SPLIT_ON(u32, p, c);
	soft_lane_leave_bus(lane);
	return true;
}

static int step_atomic(struct gpusvm_lane *lane, const struct gpusvm_command *c, u64 left)
{
	u64 old;
	u8 *p;
	int err;

	err = soft_lane_open(lane, c->va, GPUSVM_ACCESS_ATOMIC);
	if (err)
		return err;
	p = open_ptr(&lane->open[0], c->va);
	if (!lane->open[0].bus || lane->dev->base.caps.system_atomics) {
		old = c->atomic.width == 8 ? ATOMIC_ON(u64, p, c) : ATOMIC_ON(u32, p, c);
	} else if (!split_atomic(lane, p, c, &old)) {
		soft_lane_close(lane);
		host_relax();
		return 0;
	}
	/* It has happened: nothing from here on may repeat it. */
	lane->position = left;
	soft_lane_close(lane);
	if (c->atomic.old)
		*c->atomic.old = old;
	return 0;
}

/* ---- The guard around them ------------------------------------------------------- */

static void run_body(void *arg)
{
	struct body *body = arg;
	struct gpusvm_lane *lane = body->lane;
	u64 length = body->command->length;
	int err = 0;

	while (!err && lane->position < length) {
		if (soft_lane_attracted(lane))
			err = soft_lane_attend(lane);
		if (!err) {
			lane->wanted = length - lane->position;
			err = body->step(lane, body->command, length - lane->position);
		}
	}
	soft_lane_close(lane);
	lane->result = err;
}

static int run_guarded(struct body *body)
{
	struct gpusvm_lane *lane = body->lane;
	u64 last = ~(u64)0, address = 0;
	u32 retries = 0;
	int err = 0;

	lane->position = 0;
	while (!err) {
		if (mm_bus_guard(run_body, body, &address) == 0)
			return lane->result;
		soft_lane_leave_bus(lane);
		if (lane->position != last)
			retries = 0;
		last = lane->position;
		err = soft_lane_vanished(lane, address, &retries);
	}
	return err;
}

int soft_command_run(struct gpusvm_lane *lane, const struct gpusvm_command *command)
{
	struct gpusvm_command atomic;
	struct body body = {.lane = lane, .command = command};

	lane->failure = (struct gpusvm_command_fault){0};
	switch (command->type) {
	case GPUSVM_COMMAND_READ:
		body.step = step_read;
		break;
	case GPUSVM_COMMAND_WRITE:
		body.step = step_write;
		break;
	case GPUSVM_COMMAND_COPY:
		body.step = step_copy;
		break;
	case GPUSVM_COMMAND_SET:
		body.step = step_set;
		break;
	case GPUSVM_COMMAND_TOUCH:
		body.step = step_touch;
		break;
	case GPUSVM_COMMAND_ATOMIC:
		if ((command->atomic.width != 4 && command->atomic.width != 8) ||
		    command->va & (command->atomic.width - 1) || command->atomic.op > GPUSVM_OP_CAS)
			return -EINVAL;
		atomic = *command;
		atomic.length = command->atomic.width;
		body.command = &atomic;
		body.step = step_atomic;
		break;
	default:
		return -EINVAL;
	}
	return run_guarded(&body);
}

/* ---- CALL --------------------------------------------------------------------------- */

bool soft_run_exhausted(const struct soft_run *run)
{
	return host_load_acquire(&run->failed) ||
	       host_load_acquire(&run->next) >= run->job->command.items;
}

#ifndef __KERNEL__

/* The next items of a run: [*first, *end). */
static bool take_items(struct soft_run *run, u64 *first, u64 *end)
{
	u64 items = run->job->command.items;
	u64 next = host_read_once(&run->next);

	do {
		if (next >= items || host_load_acquire(&run->failed))
			return false;
		*first = next;
		*end = next + host_min((u64)1 << run->shift, items - next);
	} while (!host_cas(&run->next, &next, *end));
	return true;
}

struct items {
	struct gpusvm_lane *lane;
	bool helper;
};

static void run_items(void *arg)
{
	const struct items *items = arg;
	struct gpusvm_lane *lane = items->lane;
	const struct gpusvm_command *c = &lane->run->job->command;
	u64 item, end;
	int err = 0;

	while (!err && take_items(lane->run, &item, &end)) {
		for (; !err && item < end; item++) {
			if (soft_lane_attracted(lane))
				err = soft_lane_attend(lane);
			if (!err)
				c->fn(lane, item, c->args);
		}
		/* The other queue's work first; the leader stays with this one. */
		if (items->helper && host_read_once(&lane->dev->engine.n_ready))
			break;
	}
	soft_lane_close(lane);
	lane->result = err;
}

void soft_command_items(struct gpusvm_lane *lane, bool helper)
{
	struct items items = {.lane = lane, .helper = helper};
	u32 retries = 0;
	u64 address = 0;
	int err;

	lane->failure = (struct gpusvm_command_fault){0};
	lane->abandoned = false;
	lane->wanted = 0;
	if (mm_bus_guard(run_items, &items, &address) == 0 || lane->abandoned) {
		err = lane->result;
	} else {
		/* A function cannot go on where memory vanished under it, whatever the
		 * driver says; but it is asked, so that it hears of the fault and the
		 * error is its own. */
		err = soft_lane_vanished(lane, address, &retries);
		if (!err)
			err = -EFAULT;
		if (lane->failure.access)
			lane->failure.error = err;
	}
	if (err && err != -ECANCELED)
		soft_run_fail(lane->dev, lane->run, err, &lane->failure);
}

#else

void soft_command_items(struct gpusvm_lane *lane, bool helper)
{
	static const struct gpusvm_command_fault none;

	(void)helper;
	soft_run_fail(lane->dev, lane->run, -EOPNOTSUPP, &none);
}

#endif
