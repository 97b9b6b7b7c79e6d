/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * call.c: the threads that run what the application's threads ask for. There
 * are as many from opening to closing: to make a thread is to call malloc,
 * which on a thread of the library would map memory outside the arena.
 *
 * Concurrency: posted is pushed by anyone and taken whole by a thread that
 * holds calls->lock, which only these threads take. A poster changes seq, then
 * looks at sleepers; a thread counts itself a sleeper, then sleeps only if seq
 * is what it was before it looked at the lists: with full fences on both
 * sides one sees the other. While one lingers nobody is woken: it sees seq change,
 * or, where it has just ceased to look, does not fall asleep; and who takes one task
 * of several wakes another thread.
 *
 * Progress: no task waits for another one of its class or a later one. Slow
 * tasks leave threads for quick ones, these one for the urgent.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/private.h"

#include <sched.h>

#define LINGER (50 * HOST_USEC)

void task_push(struct task **list, struct task *task)
{
	struct task *first = host_read_once(list);

	do
		task->next = first;
	while (!host_cas(list, &first, task));
}

struct task *task_take_all(struct task **list)
{
	struct task *task, *next, *ordered = NULL;

	for (task = host_xchg(list, NULL); task; task = next) {
		next = task->next;
		task->next = ordered;
		ordered = task;
	}
	return ordered;
}

void fifo_append(struct task_fifo *fifo, struct task *task)
{
	task->next = NULL;
	*(fifo->first ? &fifo->last->next : &fifo->first) = task;
	fifo->last = task;
}

struct task *fifo_pop(struct task_fifo *fifo)
{
	struct task *task = fifo->first;

	if (task)
		fifo->first = task->next;
	return task;
}

static void calls_wake(struct calls *calls)
{
	host_add_return(&calls->seq, 1);
	if (!host_load_seq(&calls->lingering) && host_load_seq(&calls->sleepers))
		futex_wake(&calls->seq, 1);
}

/* Who calls often finds the thread awake: to wake one, on a processor that is idle, costs
 * several times as much as the call may. False: nothing was posted for as long. */
static bool calls_linger(struct calls *calls, u32 seq)
{
	u64 until = host_now() + LINGER;
	bool posted;

	host_add_return(&calls->lingering, 1);
	while (!(posted = host_load_seq(&calls->seq) != seq) && host_now() < until)
		sched_yield();
	host_add_return(&calls->lingering, (u32)-1);
	return posted;
}

void calls_kick(struct gpusvm *svm)
{
	calls_wake(&svm->calls);
}

void task_post(struct gpusvm *svm, struct task *task, enum task_class class,
	       void (*run)(struct task *))
{
	task->run = run;
	task->class = class;
	task_push(&svm->calls.posted, task);
	calls_wake(&svm->calls);
}

/* ---- The threads ---- */

/* calls->lock held. */
static bool calls_allow(const struct calls *calls, unsigned class)
{
	u32 busy = 0;

	for (unsigned c = class; c < TASK_CLASSES; c++)
		busy += calls->busy[c];
	return busy + class < CALL_THREADS;
}

/* The same. The next task that may run now. */
static struct task *calls_next(struct calls *calls)
{
	struct task *task;

	for (unsigned class = 0; class < TASK_CLASSES; class ++) {
		if (!calls->waiting[class].first || !calls_allow(calls, class))
			continue;
		task = fifo_pop(&calls->waiting[class]);
		calls->busy[class]++;
		return task;
	}
	return NULL;
}

/* done: the class of the task that this thread has finished, or TASK_CLASSES. */
static struct task *calls_take(struct calls *calls, unsigned done)
{
	struct task *task, *next;
	bool more;

	host_mutex_lock(&calls->lock);
	if (done < TASK_CLASSES)
		calls->busy[done]--;
	for (task = task_take_all(&calls->posted); task; task = next) {
		next = task->next;
		fifo_append(&calls->waiting[task->class], task);
	}
	task = calls_next(calls);
	more = false;
	for (unsigned class = 0; class < TASK_CLASSES; class ++)
		more |= calls->waiting[class].first && calls_allow(calls, class);
	host_mutex_unlock(&calls->lock);
	if (more)
		calls_wake(calls);
	return task;
}

static void calls_main(void *arg)
{
	struct gpusvm *svm = arg;
	struct calls *calls = &svm->calls;
	unsigned class = TASK_CLASSES;
	struct task *task;
	u32 seq;

	for (;;) {
		seq = host_load_seq(&calls->seq);
		pool_clean(svm);
		task = calls_take(calls, class);
		if (task) {
			class = task->class;
			task->run(task); /* may be gone */
			continue;
		}
		class = TASK_CLASSES;
		if (host_load_acquire(&calls->stop))
			return;
		if (calls_linger(calls, seq))
			continue;
		host_add_return(&calls->sleepers, 1);
		futex_wait(&calls->seq, seq, HOST_FOREVER);
		host_add_return(&calls->sleepers, (u32)-1);
	}
}

int calls_start(struct gpusvm *svm)
{
	struct calls *calls = &svm->calls;
	int err = 0;

	host_mutex_init(&calls->lock, RANK_RUNTIME);
	for (unsigned i = 0; i < CALL_THREADS && !err; i++)
		err = host_thread_start(&calls->threads[i], "gpusvm-call", calls_main, svm);
	if (err)
		calls_stop(svm);
	return err;
}

void calls_stop(struct gpusvm *svm)
{
	struct calls *calls = &svm->calls;

	host_store_seq(&calls->stop, 1);
	host_add_return(&calls->seq, 1);
	futex_wake(&calls->seq, CALL_THREADS);
	for (unsigned i = 0; i < CALL_THREADS; i++)
		host_thread_join(&calls->threads[i]);
	host_mutex_destroy(&calls->lock);
}

/* ---- Calls ---- */

static void call_run(struct task *task)
{
	struct gpusvm_event *event = host_container_of(task, struct gpusvm_event, task);
	int err = event->call(event);

	event_arm(event);
	event_complete(event, err);
}

void call_post(struct gpusvm_event *event, int (*fn)(struct gpusvm_event *), enum task_class class)
{
	event->call = fn;
	gpusvm_fence_get(&event->fence);
	counter_inc(&event->svm->calls.outstanding);
	task_post(event->svm, &event->task, class, call_run);
}

int call(struct gpusvm_event *event, int (*fn)(struct gpusvm_event *), enum task_class class)
{
	call_post(event, fn, class);
	return event_result(event);
}
