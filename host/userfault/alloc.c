/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * alloc.c: memory of gpusvm_alloc: whole blocks of 2M from a reserve made at
 * open, so that the library never fills a hole that the application made.
 * Where the kernel lacks something, this is the only memory that migrates.
 */
#define _GNU_SOURCE
#include "host/userfault/home.h"

#include <sys/mman.h>

#define ALLOC_RESERVE ((u64)64 << 30)
#define ALLOC_LEAST ((u64)1 << 30)

int alloc_init(struct mm *mm)
{
	host_mutex_init(&mm->alloc_lock, RANK_HOST_POOL);
	for (u64 size = ALLOC_RESERVE; size >= ALLOC_LEAST; size /= 2) {
		u64 base = mm->sys->map(0, size + HOST_HUGE_SIZE);

		if (!base)
			continue;
		mm->alloc_base = host_align_up(base, HOST_HUGE_SIZE);
		mm->alloc_size = size;
		if (mm->alloc_base > base)
			mm->sys->unmap(base, mm->alloc_base - base);
		mm->sys->unmap(mm->alloc_base + size, base + HOST_HUGE_SIZE - mm->alloc_base);
		mm->alloc_runs = host_alloc_zeroed(size / HOST_HUGE_SIZE * sizeof(*mm->alloc_runs));
		return mm->alloc_runs ? 0 : -ENOMEM;
	}
	return -ENOMEM;
}

void alloc_fini(struct mm *mm)
{
	if (mm->alloc_size)
		mm->sys->unmap(mm->alloc_base, mm->alloc_size);
	host_free(mm->alloc_runs);
	host_mutex_destroy(&mm->alloc_lock);
}

bool alloc_contains(const struct mm *mm, u64 address)
{
	return address >= mm->alloc_base && address < mm->alloc_base + mm->alloc_size;
}

/* The first run of n free blocks; alloc_lock held. */
static bool find_free(const struct mm *mm, u64 n, u64 *ret)
{
	u64 total = mm->alloc_size / HOST_HUGE_SIZE, at = 0, length = 0;

	while (at < total && length < n) {
		if (mm->alloc_runs[at]) {
			at += mm->alloc_runs[at];
			length = 0;
		} else {
			at++;
			length++;
		}
	}
	*ret = at - length;
	return length == n;
}

void *userfault_alloc(struct mm *mm, size_t size)
{
	u64 n = (size + HOST_HUGE_SIZE - 1) / HOST_HUGE_SIZE, at, base;
	bool found;

	if (!size || size > mm->alloc_size)
		return NULL;
	host_mutex_lock(&mm->alloc_lock);
	found = find_free(mm, n, &at);
	if (found)
		mm->alloc_runs[at] = (u32)n;
	host_mutex_unlock(&mm->alloc_lock);
	if (!found)
		return NULL;
	base = mm->alloc_base + at * HOST_HUGE_SIZE;
	if (mm->sys->protect(base, n * HOST_HUGE_SIZE, PROT_READ | PROT_WRITE)) {
		host_write_once(&mm->alloc_runs[at], 0);
		return NULL;
	}
	(void)mm->sys->madvise(base, n * HOST_HUGE_SIZE, MADV_HUGEPAGE);
	return (void *)base;
}

int userfault_free(struct mm *mm, void *p)
{
	u64 at, n;

	if (!alloc_contains(mm, (u64)p) || !host_is_aligned((u64)p, HOST_HUGE_SIZE))
		return -EINVAL;
	at = ((u64)p - mm->alloc_base) / HOST_HUGE_SIZE;
	n = host_read_once(&mm->alloc_runs[at]);
	if (!n)
		return -EINVAL;
	/* A fresh mapping over it: an UNMAP event for what was there. */
	if (!mm->sys->map((u64)p, n * HOST_HUGE_SIZE))
		return -ENOMEM;
	host_mutex_lock(&mm->alloc_lock);
	mm->alloc_runs[at] = 0;
	host_mutex_unlock(&mm->alloc_lock);
	return 0;
}
