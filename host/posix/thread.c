/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * thread.c: threads, time, and what is done around a fork. No locks.
 *
 * A thread's stack, and with it its static thread-local block and descriptor,
 * is the library's memory: nothing that it touches by merely running can be a
 * page that moves. All signals but those of its own mistakes are blocked, so
 * that no handler of the application runs on it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/posix/internal.h"
#include "host/posix/shrinker.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define STACK_SIZE ((size_t)256 << 10)
#define STACK_MAX ((size_t)64 << 20)

struct posix_thread {
	pthread_t thread;
	void (*fn)(void *);
	void *arg;
	void *stack;
	u32 stack_pages;
	u32 started;
};
_Static_assert(sizeof(struct posix_thread) <= sizeof(struct host_thread), "thread does not fit");

static struct posix_thread *to_thread(struct host_thread *t)
{
	return (struct posix_thread *)(void *)t->opaque;
}

static void *thread_main(void *arg)
{
	struct posix_thread *pt = arg;

	pt->fn(pt->arg);
	return NULL;
}

/* A name that is too long is cut: the system allows 15 bytes. */
static void thread_name(pthread_t thread, const char *name)
{
	char cut[16];
	size_t n = strnlen(name, sizeof(cut) - 1);

	memcpy(cut, name, n);
	cut[n] = '\0';
	pthread_setname_np(thread, cut);
}

static int (*starter)(int (*create)(void *arg), void *arg) HOST_STATIC;

void host_posix_set_starter(int (*fn)(int (*create)(void *arg), void *arg))
{
	host_store_release(&starter, fn);
}

/* In the arena, for whichever thread does it. */
struct creation {
	struct posix_thread *pt;
	size_t stack_size;
};

static int thread_create(void *arg)
{
	const struct creation *creation = arg;
	struct posix_thread *pt = creation->pt;
	pthread_attr_t attr;
	sigset_t blocked;
	int err;

	sigfillset(&blocked);
	sigdelset(&blocked, SIGSEGV);
	sigdelset(&blocked, SIGBUS);
	sigdelset(&blocked, SIGFPE);
	sigdelset(&blocked, SIGILL);

	HOST_CHECK(pthread_attr_init(&attr) == 0);
	HOST_CHECK(pthread_attr_setsigmask_np(&attr, &blocked) == 0);
	if (pt->stack)
		HOST_CHECK(pthread_attr_setstack(&attr, pt->stack, creation->stack_size) == 0);
	err = pthread_create(&pt->thread, &attr, thread_main, pt);
	HOST_CHECK(pthread_attr_destroy(&attr) == 0);
	return -err;
}

/* This thread's stack is the library's while a starter is set: so is creation. */
static int thread_make(struct posix_thread *pt, size_t stack_size)
{
	struct creation creation = {pt, stack_size};
	int (*start)(int (*create)(void *arg), void *arg) = host_load_acquire(&starter);

	return start ? start(thread_create, &creation) : thread_create(&creation);
}

int host_thread_start(struct host_thread *t, const char *name, void (*fn)(void *), void *arg)
{
	struct posix_thread *pt = to_thread(t);
	size_t size, want;
	int err;

	host_memset(t, 0, sizeof(*t));
	pt->fn = fn;
	pt->arg = arg;
	/* The process's static thread-local data lies on the stack too, and there
	 * may be much of it: EINVAL says that the stack was too small. */
	for (want = STACK_SIZE; want <= STACK_MAX; want *= 4) {
		size = want;
		pt->stack = host_posix_stack_alloc(&size);
		if (!pt->stack && size)
			return -ENOMEM;
		err = thread_make(pt, size);
		if (!err) {
			pt->stack_pages = (u32)(size >> HOST_PAGE_SHIFT);
			pt->started = 1;
			thread_name(pt->thread, name);
			return 0;
		}
		if (pt->stack)
			host_posix_stack_free(pt->stack, size);
		pt->stack = NULL;
		if (err != -EINVAL)
			break;
	}
	return err == -ENOMEM ? -ENOMEM : -EAGAIN;
}

void host_thread_join(struct host_thread *t)
{
	struct posix_thread *pt = to_thread(t);

	if (!pt->started)
		return;
	host_posix_may_block();
	HOST_CHECK(pthread_join(pt->thread, NULL) == 0);
	if (pt->stack)
		host_posix_stack_free(pt->stack, (size_t)pt->stack_pages << HOST_PAGE_SHIFT);
	host_memset(t, 0, sizeof(*t));
}

u64 host_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * HOST_SEC + (u64)ts.tv_nsec;
}

void host_sleep(u64 ns)
{
	u64 end = host_now() + ns;
	struct timespec ts = {(time_t)(end / HOST_SEC), (long)(end % HOST_SEC)};

	host_posix_may_block();
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

void host_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

void host_posix_abandon(void **mapping, size_t *size)
{
	starter = NULL;
	rank_abandon();
	work_abandon();
	shrinkers_forget();
	memory_abandon(mapping, size);
}
