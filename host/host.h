/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * host.h: what an operating system gives to the core, the driver and the
 * software device. Together with mm.h it is their only door to the outside:
 * no libc, no OS header, nothing else is included above it.
 *
 * Three implementations: host/posix (a live process, and the tests),
 * host/model (fibers under a scheduler) and host/linux (a kernel module).
 * The door's list of symbols is everything declared here with the prefix
 * host_, and everything in mm.h with the prefix mm_; the build fails when an
 * object above the door needs any other.
 *
 * Rules that hold for every call
 *   - Errors are negative errno. Nothing here touches errno.
 *   - Sizes are bytes, times are nanoseconds of a monotonic clock.
 *   - "May sleep" is said where it is true; all other calls never do.
 *   - Allocation may fail at any call, and is never done while a lock is held
 *     that an invalidation takes (see lock_order.h).
 */
#ifndef GPUSVM_HOST_H
#define GPUSVM_HOST_H

#if defined(__KERNEL__)
#include "host/linux/host_types.h"
#elif defined(HOST_MODEL)
#include "host/model/host_types.h"
#else
#include "host/posix/host_types.h"
#endif
#include "host/lock_order.h"

/* ---- Words ------------------------------------------------------------- */

#define HOST_PAGE_SHIFT 12u
#define HOST_PAGE_SIZE ((u64)1 << HOST_PAGE_SHIFT)
#define HOST_PAGE_MASK (~(HOST_PAGE_SIZE - 1))
#define HOST_HUGE_ORDER 9u /* a 2M page is 1 << 9 small ones */
#define HOST_HUGE_SIZE (HOST_PAGE_SIZE << HOST_HUGE_ORDER)
#define HOST_HUGE_PAGES (1u << HOST_HUGE_ORDER)

#define host_align_down(x, a) ((x) & ~((u64)(a) - 1))
#define host_align_up(x, a) (((x) + ((u64)(a) - 1)) & ~((u64)(a) - 1))
#define host_is_aligned(x, a) (((x) & ((u64)(a) - 1)) == 0)
#define host_min(a, b) ((a) < (b) ? (a) : (b))
#define host_max(a, b) ((a) > (b) ? (a) : (b))
#define host_array_size(a) (sizeof(a) / sizeof((a)[0]))
#define host_container_of(p, type, member)                                     \
	((type *)((char *)(p) - __builtin_offsetof(type, member)))
#define host_likely(x) __builtin_expect(!!(x), 1)
#define host_unlikely(x) __builtin_expect(!!(x), 0)

/* ---- Memory words: no dependence on a string library ------------------- */

void host_memset(void *p, int byte, size_t n);
void host_memcpy(void *dst, const void *src, size_t n);
/* As host_memcpy, for large copies whose destination is not read soon. */
void host_memcpy_stream(void *dst, const void *src, size_t n);

/* ---- Atomics ------------------------------------------------------------
 * On naturally aligned 32 and 64 bit words. The name states the order; plain
 * read and write are relaxed, and only stop the compiler from tearing.
 *
 * host_point(p), host_point_load(p): before an ordered access of *p, and before one that
 * only reads. The scheduler of host/model may run another fiber there; nothing elsewhere.
 * host_once(p), host_once_load(p): the same of plain ones, where it only takes note.
 */
#ifndef host_point
#define host_point(p) ((void)0)
#define host_point_load(p) ((void)0)
#define host_once(p) ((void)0)
#define host_once_load(p) ((void)0)
#endif
#define host_read_once(p) (host_once_load(p), __atomic_load_n((p), __ATOMIC_RELAXED))
#define host_write_once(p, v) (host_once(p), __atomic_store_n((p), (v), __ATOMIC_RELAXED))
#define host_load_acquire(p) (host_point_load(p), __atomic_load_n((p), __ATOMIC_ACQUIRE))
#define host_store_release(p, v) (host_point(p), __atomic_store_n((p), (v), __ATOMIC_RELEASE))
#define host_load_seq(p) (host_point_load(p), __atomic_load_n((p), __ATOMIC_SEQ_CST))
#define host_store_seq(p, v) (host_point(p), __atomic_store_n((p), (v), __ATOMIC_SEQ_CST))
#define host_add_return(p, v) (host_point(p), __atomic_add_fetch((p), (v), __ATOMIC_SEQ_CST))
#define host_add_relaxed(p, v) ((void)__atomic_add_fetch((p), (v), __ATOMIC_RELAXED))
#define host_fetch_or(p, v) (host_point(p), __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST))
#define host_fetch_and(p, v) (host_point(p), __atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST))
#define host_xchg(p, v) (host_point(p), __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST))
/* True when *p was *expected and is now v; else *expected holds what it was. */
#define host_cas(p, expected, v)                                               \
	(host_point(p), __atomic_compare_exchange_n((p), (expected), (v), false, \
						    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
#define host_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)

/* A reference count: starts at 1; get only while one is held. */
struct host_ref {
	u32 count;
};
static inline void host_ref_init(struct host_ref *ref)
{
	host_write_once(&ref->count, 1);
}
static inline void host_ref_get(struct host_ref *ref)
{
	host_add_relaxed(&ref->count, 1);
}
/* True when this was the last reference. */
static inline bool host_ref_put(struct host_ref *ref)
{
	return host_add_return(&ref->count, (u32)-1) == 0;
}
/* Takes a reference unless the last one is gone. */
static inline bool host_ref_get_unless_zero(struct host_ref *ref)
{
	u32 old = host_read_once(&ref->count);

	while (old)
		if (host_cas(&ref->count, &old, old + 1))
			return true;
	return false;
}

/* ---- Memory -------------------------------------------------------------
 * Context: may sleep. On a live process all of it lies in an arena that is
 * never mirrored, so that touching it never faults to the library.
 */
void *host_alloc(size_t size);	      /* 16-byte aligned, or NULL */
void *host_alloc_zeroed(size_t size); /* the same, cleared */
void host_free(void *p);	      /* NULL is legal */
/* Whole pages, aligned to 2M when size is 2M or more; cleared; or NULL.
 * Used for device memory: backing pages appear at first touch. */
void *host_alloc_pages(size_t size);
void host_free_pages(void *p, size_t size);

/* ---- Locks --------------------------------------------------------------
 * All may sleep. Each is initialised with its rank in lock_order.h; the
 * checker (GPUSVM_DEBUG builds) fails loudly on a wrong order.
 */
void host_mutex_init(struct host_mutex *m, enum host_lock_rank rank);
void host_mutex_destroy(struct host_mutex *m);
void host_mutex_lock(struct host_mutex *m);
bool host_mutex_trylock(struct host_mutex *m);
void host_mutex_unlock(struct host_mutex *m);

/* Writers go first, so that a stream of readers cannot hold one off.
 * Not recursive, for readers neither. */
void host_rwlock_init(struct host_rwlock *l, enum host_lock_rank rank);
void host_rwlock_destroy(struct host_rwlock *l);
void host_read_lock(struct host_rwlock *l);
void host_read_unlock(struct host_rwlock *l);
void host_write_lock(struct host_rwlock *l);
/* Does not sleep; its order is not checked. */
bool host_write_trylock(struct host_rwlock *l);
void host_write_unlock(struct host_rwlock *l);

/* For assertions in debug builds; true in others. */
bool host_mutex_held(const struct host_mutex *m);
bool host_rwlock_held(const struct host_rwlock *l);
bool host_rwlock_held_write(const struct host_rwlock *l);

/* ---- Waiting ------------------------------------------------------------
 * A wait queue goes with a condition that is made of atomics, or that the
 * waiter evaluates with host_load_acquire. The waker changes the condition
 * first (release or stronger), then wakes. Waking an empty queue costs one
 * fence and one load.
 */
void host_waitq_init(struct host_waitq *wq);
void host_waitq_destroy(struct host_waitq *wq);
void host_wake_all(struct host_waitq *wq);

#define HOST_FOREVER (~(u64)0)

/* Sleeps until cond holds or the monotonic clock reaches deadline
 * (HOST_FOREVER: no limit). The value is true when cond held. May sleep. */
#ifndef host_wait_until /* host/linux and host/model have their own */
/* Its pieces; not for direct use. */
void host_waitq_enter(struct host_waitq *wq);
/* Sleeps until woken or until deadline; true when the deadline passed. */
bool host_waitq_sleep(struct host_waitq *wq, u64 deadline);
void host_waitq_leave(struct host_waitq *wq);

#define host_wait_until(wq, cond, deadline)                                    \
	({                                                                     \
		bool host_ok_ = (cond);                                        \
		if (!host_ok_) {                                               \
			bool host_late_ = false;                               \
			host_waitq_enter(wq);                                  \
			while (!(host_ok_ = (cond)) && !host_late_)            \
				host_late_ = host_waitq_sleep((wq), (deadline)); \
			host_waitq_leave(wq);                                  \
		}                                                              \
		host_ok_;                                                      \
	})
#endif
#ifndef host_wait
#define host_wait(wq, cond) ((void)host_wait_until((wq), (cond), HOST_FOREVER))
#endif

/* ---- Time --------------------------------------------------------------- */

#define HOST_USEC 1000ull
#define HOST_MSEC 1000000ull
#define HOST_SEC 1000000000ull

u64 host_now(void);
void host_sleep(u64 ns); /* may sleep */
void host_relax(void);	 /* one turn of a short busy wait */

/* ---- Threads and work --------------------------------------------------- */

/* Starts fn(arg) on a thread of its own, its stack in the library's memory.
 * -ENOMEM, -EAGAIN (the system has no thread to give; retry later). */
int host_thread_start(struct host_thread *t, const char *name, void (*fn)(void *), void *arg);
/* Waits until fn has returned. Legal on a zeroed thread. May sleep. */
void host_thread_join(struct host_thread *t);

/* Work runs once per queueing on a shared pool of threads, where it may
 * sleep. Queueing work that is queued already does nothing. */
void host_work_init(struct host_work *w, void (*fn)(struct host_work *));
void host_work_queue(struct host_work *w);
void host_work_queue_after(struct host_work *w, u64 delay_ns);
/* Returns when w is neither queued nor running. A delayed w runs at once.
 * Must not be called from w itself. May sleep. */
void host_work_flush(struct host_work *w);
/* The same, but w does not run again if it had not begun. */
void host_work_cancel(struct host_work *w);

/* ---- Memory pressure -----------------------------------------------------
 * What is kept only because it may be of use again is given back when memory is short.
 * Linux: struct shrinker.
 */
struct host_shrinker_ops {
	/* Bytes that scan would give back now: an estimate. Any context: it takes no lock. */
	u64 (*count)(struct host_shrinker *s);
	/* Gives it back, at once or by work that it queues; bytes. Context: wherever somebody
	 * wants memory, on any thread. It may sleep on locks under which nobody allocates, and
	 * itself neither allocates nor waits for who does. Calls may overlap. */
	u64 (*scan)(struct host_shrinker *s);
};
/* scan may be called as soon as this is. -ENOMEM (Linux). May sleep. */
int host_shrinker_register(struct host_shrinker *s, const char *name,
			   const struct host_shrinker_ops *ops);
/* Waits for calls in progress; none comes afterwards. Context: no lock that scan takes. */
void host_shrinker_unregister(struct host_shrinker *s);
/* Something can be given back from now on: the host looks after how short memory is as
 * long as count() is not 0. Any context in which work may be queued. Linux: nothing to do,
 * reclaim asks count(). */
void host_shrinker_wake(struct host_shrinker *s);
/* Asks all of them now: for who cannot do without memory that was refused. Bytes given
 * back. Context: as mm_migrate_begin. Linux: 0; the allocation that failed has asked. */
u64 host_shrink(void);

/* ---- Assertions ---------------------------------------------------------
 * HOST_ASSERT: debug builds only. HOST_CHECK: always, for states from which
 * going on would lose data. HOST_WARN_ON: counted and reported, then goes on.
 */
void host_panic(const char *what, const char *file, int line) __attribute__((noreturn));
void host_warn(const char *what, const char *file, int line);
#define HOST_CHECK(c)                                                          \
	do {                                                                   \
		if (host_unlikely(!(c)))                                       \
			host_panic(#c, __FILE__, __LINE__);                    \
	} while (0)
#ifdef GPUSVM_DEBUG
#define HOST_ASSERT(c) HOST_CHECK(c)
#else
#define HOST_ASSERT(c) ((void)sizeof(c))
#endif
#define HOST_WARN_ON(c)                                                        \
	({                                                                     \
		bool host_bad_ = !!(c);                                        \
		if (host_unlikely(host_bad_))                                  \
			host_warn(#c, __FILE__, __LINE__);                     \
		host_bad_;                                                     \
	})

#ifdef HOST_MODEL
#include "host/model/places.h"
#endif

#endif
