/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * places.h: at the end of host.h under the scheduler: each call that is a
 * scheduling point first says where it is and on what, in the source's words.
 * The files that define these calls set SCHED_NO_PLACES.
 */
#ifndef GPUSVM_MODEL_PLACES_H
#define GPUSVM_MODEL_PLACES_H

#ifndef SCHED_NO_PLACES
#define host_alloc(size) (sched_at(#size), host_alloc(size))
#define host_alloc_zeroed(size) (sched_at(#size), host_alloc_zeroed(size))
#define host_alloc_pages(size) (sched_at(#size), host_alloc_pages(size))
#define host_free(p) (sched_at(#p), host_free(p))
#define host_mutex_lock(m) (sched_at(#m), host_mutex_lock(m))
#define host_mutex_trylock(m) (sched_at(#m), host_mutex_trylock(m))
#define host_mutex_unlock(m) (sched_at(#m), host_mutex_unlock(m))
#define host_read_lock(l) (sched_at(#l), host_read_lock(l))
#define host_read_unlock(l) (sched_at(#l), host_read_unlock(l))
#define host_write_lock(l) (sched_at(#l), host_write_lock(l))
#define host_write_trylock(l) (sched_at(#l), host_write_trylock(l))
#define host_write_unlock(l) (sched_at(#l), host_write_unlock(l))
#define host_wake_all(wq) (sched_at(#wq), host_wake_all(wq))
#define host_sleep(ns) (sched_at(#ns), host_sleep(ns))
#define host_relax() (sched_at("busy"), host_relax())
#define host_thread_join(t) (sched_at(#t), host_thread_join(t))
#define host_work_queue(w) (sched_at(#w), host_work_queue(w))
#define host_work_flush(w) (sched_at(#w), host_work_flush(w))
#define host_work_cancel(w) (sched_at(#w), host_work_cancel(w))
#define host_memcpy(dst, src, n) (sched_at(#dst), host_memcpy(dst, src, n))
#define host_memcpy_stream(dst, src, n) (sched_at(#dst), host_memcpy_stream(dst, src, n))
#define host_memset(p, byte, n) (sched_at(#p), host_memset(p, byte, n))
#endif

#endif
