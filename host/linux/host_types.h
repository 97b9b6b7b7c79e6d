/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Types of host.h in a kernel module, and those of its calls that are one call
 * of the kernel; the rest is in host/linux/host.c. A static definition here
 * comes before the declaration in host.h, which then means the same function.
 *
 * Locks: a host_mutex is a mutex, a host_rwlock a rw_semaphore (which lets
 * writers go first). Ranks become lockdep classes, one each.
 */
#ifndef GPUSVM_LINUX_HOST_TYPES_H
#define GPUSVM_LINUX_HOST_TYPES_H

#include <linux/bug.h>
#include <linux/completion.h>
#include <linux/errno.h>
#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/version.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "host/lock_order.h"

/* What lies above the door spells attributes out: __attribute__((noinline)). */
#undef noinline

struct host_mutex {
	struct mutex mutex;
};
struct host_rwlock {
	struct rw_semaphore sem;
};
struct host_waitq {
	wait_queue_head_t head;
};
struct host_thread {
	struct task_struct *task; /* NULL: never started, or joined */
	void (*fn)(void *);
	void *arg;
	struct completion exited;
};
struct host_work {
	struct delayed_work work;
	void (*fn)(struct host_work *);
};
struct host_shrinker_ops;
struct host_shrinker {
	const struct host_shrinker_ops *ops;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	struct shrinker *shrinker;
#else
	struct shrinker shrinker;
#endif
};

/* ---- Memory words ------------------------------------------------------- */

static inline void host_memset(void *p, int byte, size_t n)
{
	memset(p, byte, n);
}
static inline void host_memcpy(void *dst, const void *src, size_t n)
{
	memcpy(dst, src, n);
}
static inline void host_memcpy_stream(void *dst, const void *src, size_t n)
{
	memcpy(dst, src, n);
}

/* ---- Memory ------------------------------------------------------------- */

static inline void host_free(void *p)
{
	kvfree(p);
}

/* ---- Locks -------------------------------------------------------------- */

static inline void host_mutex_destroy(struct host_mutex *m)
{
	mutex_destroy(&m->mutex);
}
static inline void host_mutex_lock(struct host_mutex *m)
{
	mutex_lock(&m->mutex);
}
static inline bool host_mutex_trylock(struct host_mutex *m)
{
	return mutex_trylock(&m->mutex);
}
static inline void host_mutex_unlock(struct host_mutex *m)
{
	mutex_unlock(&m->mutex);
}

static inline void host_rwlock_destroy(struct host_rwlock *l)
{
}
static inline void host_read_lock(struct host_rwlock *l)
{
	down_read(&l->sem);
}
static inline void host_read_unlock(struct host_rwlock *l)
{
	up_read(&l->sem);
}
static inline void host_write_lock(struct host_rwlock *l)
{
	down_write(&l->sem);
}
static inline bool host_write_trylock(struct host_rwlock *l)
{
	return down_write_trylock(&l->sem);
}
static inline void host_write_unlock(struct host_rwlock *l)
{
	up_write(&l->sem);
}

/* Without lockdep nobody knows who holds a lock: then true, as host.h says. */
static inline bool host_mutex_held(const struct host_mutex *m)
{
#ifdef CONFIG_LOCKDEP
	return lockdep_is_held(&m->mutex) != LOCK_STATE_NOT_HELD;
#else
	return true;
#endif
}
static inline bool host_rwlock_held(const struct host_rwlock *l)
{
#ifdef CONFIG_LOCKDEP
	return lockdep_is_held(&l->sem) != LOCK_STATE_NOT_HELD;
#else
	return true;
#endif
}
static inline bool host_rwlock_held_write(const struct host_rwlock *l)
{
#ifdef CONFIG_LOCKDEP
	return lockdep_is_held_type(&l->sem, 0) != LOCK_STATE_NOT_HELD;
#else
	return true;
#endif
}

/* ---- Waiting -------------------------------------------------------------
 * A waiter's place in the queue is on its stack, so the whole of
 * host_wait_until() is the kernel's own form of it. The condition is evaluated
 * after the task's state is set: a wake in between only makes it look again.
 */
static inline void host_waitq_init(struct host_waitq *wq)
{
	init_waitqueue_head(&wq->head);
}
static inline void host_waitq_destroy(struct host_waitq *wq)
{
}
static inline void host_wake_all(struct host_waitq *wq)
{
	if (wq_has_sleeper(&wq->head)) /* with its fence */
		wake_up_all(&wq->head);
}
/* True when the deadline (CLOCK_MONOTONIC) passed. */
static inline bool host_schedule_until(u64 deadline)
{
	ktime_t until = ns_to_ktime(deadline);

	if (deadline > (u64)KTIME_MAX) {
		schedule();
		return false;
	}
	return schedule_hrtimeout(&until, HRTIMER_MODE_ABS) == 0;
}
#define host_wait_until(wq, cond, deadline)                                             \
	({                                                                              \
		bool host_ok_ = (cond);                                                 \
		if (!host_ok_) {                                                        \
			bool host_late_ = false;                                        \
			DEFINE_WAIT(host_entry_);                                       \
			for (;;) {                                                      \
				prepare_to_wait(&(wq)->head, &host_entry_,              \
						TASK_UNINTERRUPTIBLE);                  \
				host_ok_ = (cond);                                      \
				if (host_ok_ || host_late_)                             \
					break;                                          \
				host_late_ = host_schedule_until(deadline);             \
			}                                                               \
			finish_wait(&(wq)->head, &host_entry_);                         \
		}                                                                       \
		host_ok_;                                                               \
	})

/* ---- Time --------------------------------------------------------------- */

static inline u64 host_now(void)
{
	return ktime_get_ns();
}
static inline void host_relax(void)
{
	cpu_relax();
}

/* ---- Assertions --------------------------------------------------------- */

static inline void __noreturn host_panic(const char *what, const char *file, int line)
{
	pr_emerg("gpusvm: %s does not hold at %s:%d\n", what, file, line);
	BUG();
}

#endif
