/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * soft_bus.h: the bus of mm.h for tests of the software device alone: an address
 * is a pointer. Memory "vanishes" by mprotect: the signal abandons the guard, as
 * in a live process; or by bus_gone, an address where begin finds nothing.
 */
#ifndef GPUSVM_TESTS_SOFT_BUS_H
#define GPUSVM_TESTS_SOFT_BUS_H

#include "host/mm.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>

struct test_guard {
	sigjmp_buf back;
	struct test_guard *outer;
	u64 address;
	unsigned open;
};
static __thread struct test_guard *test_guard;
static u64 bus_gone; /* atomic; 0: none */
static u64 bus_begins;

void *mm_bus_begin(mm_dma_t addr, u64 length, bool write)
{
	u64 gone = host_load_acquire(&bus_gone);

	(void)write;
	HOST_CHECK(test_guard && test_guard->open < 2);
	host_add_relaxed(&bus_begins, 1);
	if (gone && gone - addr < length)
		return NULL;
	test_guard->open++;
	return (void *)(uintptr_t)addr;
}

void mm_bus_end(void)
{
	if (test_guard)
		test_guard->open = 0;
}

int mm_bus_guard(void (*fn)(void *), void *arg, u64 *fault_address)
{
	struct test_guard g = {.outer = test_guard};

	HOST_CHECK(!test_guard || !test_guard->open);
	if (sigsetjmp(g.back, 1)) { /* with the mask: a sanitizer's handler blocks the signal */
		test_guard = g.outer;
		*fault_address = g.address;
		return -EFAULT;
	}
	test_guard = &g;
	fn(arg);
	HOST_CHECK(!g.open);
	test_guard = g.outer;
	return 0;
}

void mm_bus_abandon(u64 address)
{
	test_guard->address = address;
	siglongjmp(test_guard->back, 1);
}

static void bus_on_signal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (test_guard)
		mm_bus_abandon((u64)(uintptr_t)info->si_addr);
	signal(SIGSEGV, SIG_DFL);
}

static void bus_install(void)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_sigaction = bus_on_signal;
	sa.sa_flags = SA_SIGINFO | SA_NODEFER;
	sigaction(SIGSEGV, &sa, NULL);
}

#endif
