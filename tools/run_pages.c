/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * run_pages.c: the memory of a workload: which pages it has, what is advised for
 * them, and where they are in the end. What is listed here lies in pages of its own,
 * for which no device ever asks. One thread; no locks.
 */
#include "tools/run.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u

static void *map_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

struct run_memory *run_watch(struct run *run, size_t n)
{
	run->n_watched = n;
	run->watched = map_pages(n * sizeof(*run->watched));
	if (!run->watched)
		tool_no_memory("the list of nodes");
	return run->watched;
}

void run_unwatch(struct run *run)
{
	if (run->watched)
		munmap(run->watched, run->n_watched * sizeof(*run->watched));
	run->watched = NULL;
}

static int by_value(const void *a, const void *b)
{
	uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;

	return x < y ? -1 : x > y;
}

/* The distinct pages of what is watched, sorted, into room that is enough. */
static size_t list_pages(const struct run *run, uintptr_t *pages)
{
	size_t count = 0, distinct = 0;

	for (size_t i = 0; i < run->n_watched; i++) {
		uintptr_t p = (uintptr_t)run->watched[i].p;

		for (uintptr_t page = p / PAGE; page * PAGE < p + run->watched[i].length; page++)
			pages[count++] = page;
	}
	qsort(pages, count, sizeof(*pages), by_value);
	for (size_t i = 0; i < count; i++)
		if (!distinct || pages[distinct - 1] != pages[i])
			pages[distinct++] = pages[i];
	return distinct;
}

/* The pages of all that is watched, as list_pages, in pages of their own; their number
 * in *ret. NULL after the error was told; else *room bytes to munmap. */
static uintptr_t *watched_pages(const struct run *run, size_t *room, size_t *ret)
{
	uintptr_t *pages;

	*room = 0;
	for (size_t i = 0; i < run->n_watched; i++)
		*room += run->watched[i].length / PAGE + 2;
	*room *= sizeof(*pages);
	pages = map_pages(*room);
	if (pages)
		*ret = list_pages(run, pages);
	else
		tool_no_memory("the list of pages");
	return pages;
}

/* How many of them lie side by side from the first, of at most most. */
static size_t run_of(const uintptr_t *pages, size_t n, size_t most)
{
	size_t length = 1;

	while (length < n && length < most && pages[length] == *pages + length)
		length++;
	return length;
}

int run_share_atomics(struct run *run)
{
	size_t n = 0, room, length;
	uintptr_t *pages;
	int result = 0;

	if (run->devices.n == 1)
		return 0;
	pages = watched_pages(run, &room, &n);
	if (!pages)
		return TOOL_UNUSABLE;
	for (size_t i = 0; !result && i < n; i += length) {
		length = run_of(&pages[i], n - i, n);
		result = gpusvm_advise(run->svm, (void *)(pages[i] * PAGE), length * PAGE,
				       GPUSVM_ATOMIC, GPUSVM_ATOMIC_GLOBAL, gpusvm_none());
	}
	munmap(pages, room);
	return result ? tool_error("atomics of several devices cannot be had: %s",
				   strerror(-result)) :
			0;
}

struct page_counts {
	uint64_t unpopulated, system, devices[RUN_DEVICES];
	uint64_t by_peers; /* of those on a device, also mapped by another */
};

static void count_page(struct page_counts *counts, const struct gpusvm_page_info *info)
{
	if (info->location.type == GPUSVM_LOCATION_DEVICE) {
		counts->devices[info->location.device]++;
		counts->by_peers += (info->mapped_by & ~(1ull << info->location.device)) != 0;
	} else if (info->location.type == GPUSVM_LOCATION_SYSTEM) {
		counts->system++;
	} else {
		counts->unpopulated++;
	}
}

static int count_pages(struct run *run, const uintptr_t *pages, size_t n,
		       struct page_counts *counts)
{
	struct gpusvm_page_info infos[512];
	size_t length;

	for (size_t i = 0; i < n; i += length) {
		int result;

		length = run_of(&pages[i], n - i, 512);
		result = gpusvm_residency(run->svm, (void *)(pages[i] * PAGE), length * PAGE, infos,
					  512, sizeof(infos[0]));
		if (result)
			return tool_error("where pages are cannot be told: %s", strerror(-result));
		for (size_t k = 0; k < length; k++)
			count_page(counts, &infos[k]);
	}
	return 0;
}

int run_pages(struct run *run)
{
	struct page_counts counts = { 0 };
	size_t n = 0, room;
	uintptr_t *pages;
	json_t *devices;
	int result;

	run->stats = (struct gpusvm_stats){ .size = sizeof(run->stats) };
	result = gpusvm_stats(run->svm, -1, &run->stats);
	if (result)
		return tool_error("no statistics: %s", strerror(-result));
	pages = watched_pages(run, &room, &n);
	if (!pages)
		return TOOL_UNUSABLE;
	result = count_pages(run, pages, n, &counts);
	munmap(pages, room);
	devices = json_array();
	for (unsigned i = 0; i < run->devices.n; i++)
		json_array_append_new(devices, json_integer((json_int_t)counts.devices[i]));
	json_object_set_new(run->report, "pages",
			    json_pack("{s:I,s:I,s:o,s:I}", "unpopulated",
				      (json_int_t)counts.unpopulated, "system",
				      (json_int_t)counts.system, "devices", devices,
				      "mapped_by_peers", (json_int_t)counts.by_peers));
	return result;
}
