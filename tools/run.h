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

/* The first member of every kernel's args: where this device's items begin. */
struct run_args {
	uint64_t first;
};

int run_pagerank(struct run *run);
int run_bfs(struct run *run);
int run_wordcount(struct run *run);

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
/* Where the pages of what is watched are, and what moved until now, into the
 * report. Before the CPU looks at the result, which brings pages home. 0, or
 * TOOL_UNUSABLE. */
int run_pages(struct run *run);

/* In a kernel: up to RUN_BATCH of the n pointers at p, into its own memory, for
 * a span is good until the next access only. How many, at least 1. */
#define RUN_BATCH 32u
unsigned run_load_pointers(struct gpusvm_lane *lane, const void *p, uint64_t n, void **ret);

/* The graph that was asked for, into the report too. 0, or TOOL_UNUSABLE. */
int run_graph(struct run *run, struct graph *ret);
/* A random order of n numbers, the same for each seed. NULL: no memory. */
uint32_t *run_order(struct run *run, size_t n);

#endif
