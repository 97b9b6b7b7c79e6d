/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* run.h: what the workloads of 'gpusvm run' share. One thread; no locks. */
#ifndef GPUSVM_TOOL_RUN_H
#define GPUSVM_TOOL_RUN_H

#include "tools/devices.h"
#include "tools/graph.h"
#include "tools/tool.h"

#define RUN_DEVICES LINKS_DEVICES

struct run_memory {
	const void *p;
	size_t length;
};

struct run {
	/* As asked for. */
	struct tool_devices devices;
	uint64_t seed;
	char **inputs;
	unsigned n_inputs;
	bool json;
	/* While it runs. */
	struct gpusvm *svm;
	struct gpusvm_queue *queues[RUN_DEVICES];
	uint64_t device_ns; /* spent in run_launch */
	struct run_memory *watched;
	size_t n_watched;
	struct gpusvm_stats stats; /* of run_pages */
	json_t *report; /* what is said in the end, but for stats and pages */
};

/* The first member of every kernel's args: whose part it is, and where that begins. */
struct run_args {
	uint64_t first;
	unsigned device;
};

int run_pagerank(struct run *run);
int run_bfs(struct run *run);
int run_wordcount(struct run *run);
int run_stencil(struct run *run);
int run_oversubscribe(struct run *run);

/* Opens the devices and a queue for each. 0, or TOOL_UNUSABLE after the error
 * was told. */
int run_open(struct run *run);
/* Runs items 0 to items - 1, shared out among the devices, and waits. args
 * begins with a struct run_args. 0, or TOOL_WRONG after the error was told. */
int run_launch(struct run *run, const char *name,
	       void (*fn)(struct gpusvm_lane *, uint64_t, const void *), const void *args,
	       size_t args_size, uint64_t items);
/* Names n pieces of memory whose pages the report shall tell of: a list to fill
 * before the devices run. It lies in pages of its own, so that reading it brings
 * nothing home. NULL after the error was told. */
struct run_memory *run_watch(struct run *run, size_t n);
void run_unwatch(struct run *run);
/* When devices are open: atomics on what is watched are exact among all of them, if
 * there are several. 0, or TOOL_UNUSABLE. */
int run_share_atomics(struct run *run);
/* Where the pages of what is watched are, and what moved until now, into the
 * report. Before the CPU looks at the result, which brings pages home. 0, or
 * TOOL_UNUSABLE. */
int run_pages(struct run *run);

/* All bytes of a regular file, malloc'd, with so many zeros behind. 0, or TOOL_UNUSABLE
 * after the error was told. */
int run_read_file(const char *path, size_t zeros, char **ret, size_t *length);
/* The error of the launch called name, with the address where it has one. */
void run_tell_fault(const char *name, struct gpusvm_event *event, int result);

/* In a kernel: n bytes at p into the kernel's own memory, and back. */
void run_load(struct gpusvm_lane *lane, const void *p, void *ret, size_t n);
void run_store(struct gpusvm_lane *lane, void *p, const void *from, size_t n);
/* In a kernel: up to RUN_BATCH of the n pointers at p, into its own memory, for
 * a span is good until the next access only. How many, at least 1. */
#define RUN_BATCH 32u
unsigned run_load_pointers(struct gpusvm_lane *lane, const void *p, uint64_t n, void **ret);

/* The graph that was asked for, into the report too. 0, or TOOL_UNUSABLE. */
int run_graph(struct run *run, struct graph *ret);
/* A random order of n numbers, the same for each seed and turn. NULL: no memory. */
uint32_t *run_order(struct run *run, size_t n, uint64_t turn);

#endif
