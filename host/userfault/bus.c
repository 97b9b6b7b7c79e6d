/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bus.c: engines' access to system memory, which may vanish under them.
 *
 * An engine reaches memory at the process's own address. Between begin and end,
 * inside a guard, SIGSEGV and SIGBUS of that thread abandon the guarded call;
 * the thread holds no lock there. Any other signal of these kinds goes to
 * whoever had a handler before us, as if we were not there.
 */
#define _GNU_SOURCE
#include "host/userfault/home.h"
#include "host/userfault/bus.h"
#include "host/posix/posix.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>

/* A fault served on the lane's own thread may copy, which guards in a guard. */
struct guard {
	struct guard *outer;
	sigjmp_buf back;
	volatile u64 address;
	volatile bool open; /* an access is */
};

static HOST_THREAD_LOCAL struct guard *guard;
static struct sigaction old_segv HOST_STATIC, old_bus HOST_STATIC;
static bool installed HOST_STATIC;

void *mm_bus_begin(mm_dma_t addr, u64 length, bool write)
{
	(void)length;
	(void)write;
	if (guard)
		guard->open = true;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	return (void *)addr;
}

void mm_bus_end(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (guard)
		guard->open = false;
}

int mm_bus_guard(void (*fn)(void *), void *arg, u64 *fault_address)
{
	struct guard g;

	g.outer = guard;
	g.open = false;
	/* The mask need not be saved: the handler runs with SA_NODEFER. */
	if (sigsetjmp(g.back, 0)) {
		guard = g.outer;
		*fault_address = g.address;
		return -EFAULT;
	}
	guard = &g;
	fn(arg);
	guard = g.outer;
	return 0;
}

void mm_bus_abandon(u64 address)
{
	HOST_CHECK(guard);
	guard->address = address;
	siglongjmp(guard->back, 1);
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
	struct sigaction *old = sig == SIGSEGV ? &old_segv : &old_bus;

	if (old->sa_flags & SA_SIGINFO) {
		old->sa_sigaction(sig, info, context);
	} else if (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN) {
		/* Returning repeats the access, now with the default action. */
		struct sigaction dfl = {.sa_handler = SIG_DFL};

		sigaction(sig, &dfl, NULL);
		if (info->si_code <= 0)
			raise(sig);
	} else {
		old->sa_handler(sig);
	}
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	if (guard && guard->open && info->si_code > 0)
		mm_bus_abandon((u64)info->si_addr);
	pass_on(sig, info, context);
}

void bus_init(void)
{
	struct sigaction sa = {.sa_sigaction = on_signal,
			       .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};

	sigemptyset(&sa.sa_mask);
	sigaction(SIGSEGV, &sa, &old_segv);
	sigaction(SIGBUS, &sa, &old_bus);
	installed = true;
}

void bus_fini(void)
{
	struct sigaction now;

	if (!installed)
		return;
	/* Not if someone put theirs over ours: they may chain to us. */
	if (sigaction(SIGSEGV, NULL, &now) == 0 && now.sa_sigaction == on_signal)
		sigaction(SIGSEGV, &old_segv, NULL);
	if (sigaction(SIGBUS, NULL, &now) == 0 && now.sa_sigaction == on_signal)
		sigaction(SIGBUS, &old_bus, NULL);
	installed = false;
}
