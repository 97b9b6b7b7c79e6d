/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * memory_malloc.c: memory for tests. Each allocation is one of malloc's, so
 * that a sanitizer sees its bounds, its uses after the end and its leaks; any
 * one of them can be made to fail. Counters are atomics; there are no locks.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/posix/arena.h"

#include <stdlib.h>
#include <string.h>

static u64 calls, live;
static u64 fail_at; /* the value of calls that fails; 0: none */

void host_posix_fail_alloc_at(u64 n)
{
	host_store_seq(&fail_at, n ? host_load_seq(&calls) + n : 0);
}

u64 host_posix_alloc_count(void)
{
	return host_load_seq(&calls);
}

u64 host_posix_alloc_live(void)
{
	return host_load_seq(&live);
}

static void *allocate(size_t size, size_t align, bool clear)
{
	u64 call = host_add_return(&calls, 1);
	void *p;

	rank_check_alloc();
	if (call == host_load_seq(&fail_at) || size > SIZE_MAX / 2)
		return NULL;
	if (align <= 16)
		p = clear ? calloc(1, size) : malloc(size ? size : 1);
	else
		p = aligned_alloc(align, host_align_up(size, align));
	if (!p)
		return NULL;
	if (align > 16 && clear)
		memset(p, 0, size);
	host_add_return(&live, 1);
	return p;
}

void *host_alloc(size_t size)
{
	return allocate(size, 16, false);
}

void *host_alloc_zeroed(size_t size)
{
	return allocate(size ? size : 1, 16, true);
}

void host_free(void *p)
{
	if (!p)
		return;
	host_add_return(&live, (u64)-1);
	free(p);
}

void *host_alloc_pages(size_t size)
{
	return allocate(size, size >= HOST_HUGE_SIZE ? HOST_HUGE_SIZE : HOST_PAGE_SIZE, true);
}

void host_free_pages(void *p, size_t size)
{
	(void)size;
	host_free(p);
}

void *host_posix_stack_alloc(size_t *size)
{
	*size = 0;
	return NULL;
}

void host_posix_stack_free(void *stack, size_t size)
{
	(void)stack;
	(void)size;
}

/* Objects of malloc do not go with the arena. */
void memory_forget(void)
{
}

void memory_abandon(void **mapping, size_t *size)
{
	*mapping = NULL;
	*size = 0;
}
