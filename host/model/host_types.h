/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Types of host.h under the deterministic scheduler (sched.h), for everything
 * that is compiled with -DHOST_MODEL. One thread of the system runs all fibers,
 * so that the fields below are plain; only the scheduler changes them.
 */
#ifndef GPUSVM_MODEL_HOST_TYPES_H
#define GPUSVM_MODEL_HOST_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <asm/errno.h> /* numbers only */

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

/* magic: alive, or what is wrong with a use (sched_lock.c). serial: the n-th of
 * its kind in this run, which is what reports call it. */
struct host_mutex {
	u32 magic, serial;
	u32 rank;
	u32 owner; /* 1 + the fiber, 0: free */
	u32 waiters;
};
struct host_rwlock {
	u32 magic, serial;
	u32 rank;
	u32 writer; /* 1 + the fiber, 0: none */
	u32 readers;
	u32 waiting_readers, waiting_writers;
};
struct host_waitq {
	u32 magic, serial;
	u32 waiters;
	u32 wakes; /* how often it was woken with somebody there */
};
struct host_thread {
	u32 started;
	u32 fiber;
};
#include "host/posix/deferred_types.h"

/* Where the running fiber is in the source, for reports: two stores. */
struct sched_place {
	const char *what, *function;
};
extern struct sched_place sched_place;
#define sched_at(text) ((void)(sched_place = (struct sched_place){(text), __func__}))

/* host.h's scheduling point at an atomic operation. */
void sched_atomic(const volatile void *p, bool write);
#define host_point(p) (sched_at(#p), sched_atomic(p, true))
#define host_point_load(p) (sched_at(#p), sched_atomic(p, false))

void sched_once(const volatile void *p, bool write);
#define host_once(p) sched_once(p, true)
#define host_once_load(p) sched_once(p, false)

/* As host.h's, and the condition's text is known to reports. */
void host_waitq_enter(struct host_waitq *wq);
bool host_waitq_sleep(struct host_waitq *wq, u64 deadline);
void host_waitq_leave(struct host_waitq *wq);
#define sched_wait(wq, cond, text, deadline)                                                       \
	({                                                                                         \
		bool host_ok_ = (cond);                                                            \
		if (!host_ok_) {                                                                   \
			bool host_late_ = false;                                                   \
			host_waitq_enter(wq);                                                      \
			while (!(host_ok_ = (cond)) && !host_late_) {                              \
				sched_at(text);                                                    \
				host_late_ = host_waitq_sleep((wq), (deadline));                   \
			}                                                                          \
			host_waitq_leave(wq);                                                      \
		}                                                                                  \
		host_ok_;                                                                          \
	})
#define host_wait_until(wq, cond, deadline) sched_wait(wq, cond, #cond, deadline)
#define host_wait(wq, cond) ((void)sched_wait(wq, cond, #cond, ~(u64)0))

#endif
