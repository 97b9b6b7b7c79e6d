/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* bench.h: what the figures of 'gpusvm bench' share. */
#ifndef GPUSVM_TOOL_BENCH_H
#define GPUSVM_TOOL_BENCH_H

#include "tools/tool.h"

#define BENCH_MEMORY ((size_t)64 << 20)
#define BENCH_HUGE ((size_t)2 << 20)
#define BENCH_PAGE ((size_t)4096)

/* One figure while it is measured. */
struct bench {
	struct gpusvm *svm;
	struct gpusvm_queue *queue;
	/* src and dst: BENCH_MEMORY each, populated, pages of the kind asked for. */
	char *src, *dst;
	uint64_t seed, base; /* base: memory in use before, where that is measured */
	void *state; /* the figure's own; NULL at first */
};

/* A figure, and the limit that it is held against: both are measured in turns,
 * and the medians are told. */
struct bench_figure {
	const char *name, *unit, *limit;
	double wanted; /* the least ratio that the project accepts */
	bool time;     /* less is better */
	bool small;    /* src and dst in 4K pages; else in 2M pages */
	bool no_vram;  /* on a device without memory of its own */
	bool zero_copy; /* on one whose memory is ordinary memory */
	/* Before the handle is opened; and after it was closed. May be NULL. */
	int (*prepare)(struct bench *b);
	void (*clean)(struct bench *b);
	/* After it was opened; and before it is closed. May be NULL. */
	int (*opened)(struct bench *b);
	void (*closing)(struct bench *b);
	/* One measurement. 0, or a negative errno. */
	int (*value)(struct bench *b, double *ret);
	int (*held_against)(struct bench *b, double *ret);
};

/* The parts; each ends with an entry without name. */
extern const struct bench_figure bench_move_figures[];
extern const struct bench_figure bench_fault_figures[];
extern const struct bench_figure bench_device_figures[];
extern const struct bench_figure bench_devices_figures[];
extern const struct bench_figure bench_sim_figures[];

/* Maps size bytes, aligned to 2M; huge: 2M pages asked for, else refused. NULL:
 * no memory. */
void *bench_map(size_t size, bool huge);
void bench_unmap(void *p, size_t size);
/* Moves src to the device, and waits until its timeslice is surely over. 0, or a
 * negative errno; -EIO when not all of it went. */
int bench_to_device(struct bench *b, const void *p, size_t size);
int bench_to_system(struct bench *b, const void *p, size_t size);
double bench_rate(size_t bytes, uint64_t ns); /* GiB/s */
double bench_median(double *values, size_t n); /* sorts them */
/* Copies src to dst, both warm. */
int bench_memcpy(struct bench *b, double *ret);
/* Reads every word; the sum keeps the compiler from leaving it out. */
uint64_t bench_read(const void *p, size_t size);

#endif
