/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bus.c: engines' access to memory over the model, in place of host/userfault/bus.c:
 * the page is faulted in by the modelled kernel, as the processor would when the engine
 * touches it; a mapping that is gone abandons the guarded call.
 */
#include "host/model/kernel/internal.h"
#include "host/mm.h"
#include "host/userfault/bus.h"

#include <setjmp.h>

struct guard {
	struct guard *outer;
	jmp_buf back;
	u64 address;
};

static HOST_THREAD_LOCAL struct guard *guard;

void *mm_bus_begin(mm_dma_t addr, u64 length, bool write)
{
	/* One page: what an engine touches at once. */
	HOST_CHECK(addr % HOST_PAGE_SIZE + length <= HOST_PAGE_SIZE);
	return kernel_touch((void *)(uintptr_t)addr, write);
}

void mm_bus_end(void)
{
}

int mm_bus_guard(void (*fn)(void *), void *arg, u64 *fault_address)
{
	struct guard g;

	g.outer = guard;
	if (_setjmp(g.back)) {
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
	_longjmp(guard->back, 1);
}

void bus_init(void)
{
}

void bus_fini(void)
{
}
