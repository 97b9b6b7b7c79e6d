/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bench.c: 'gpusvm bench': runs each figure in turns with its limit, and tells
 * the medians. The figures are in bench_*.c. One thread measures; no locks.
 */
#include "tools/bench.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define ROUNDS 11u
#define TIMESLICE_NS 1000000u /* the library's default */

static const char usage[] =
	"Usage: gpusvm bench [NAME] [OPTION]...\n"
	"Measures each figure (or those whose name begins with NAME) in turns with the\n"
	"limit that it is held against, and tells the medians. Ratio 1.0 is the limit.\n"
	"\n"
	"  --json          as JSON\n"
	"  --help          this text, and the names\n"
	"\n"
	"Status: 0 it was measured, 2 it cannot be, or unusable arguments.\n";

static const struct bench_figure *const parts[] = {
	bench_move_figures,
	bench_fault_figures,
	bench_device_figures,
	bench_devices_figures,
	bench_sim_figures,
};

void *bench_map(size_t size, bool huge)
{
	char *p = mmap(NULL, size + BENCH_HUGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t head;

	if (p == MAP_FAILED)
		return NULL;
	head = (BENCH_HUGE - (uintptr_t)p % BENCH_HUGE) % BENCH_HUGE;
	if (head)
		munmap(p, head);
	munmap(p + head + size, BENCH_HUGE - head);
	madvise(p + head, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return p + head;
}

void bench_unmap(void *p, size_t size)
{
	if (p)
		munmap(p, size);
}

static int move(struct bench *b, const void *p, size_t size, struct gpusvm_location where)
{
	struct gpusvm_moved moved = { .size = sizeof(moved) };
	int result = gpusvm_prefetch(b->svm, p, size, where, 0, &moved, NULL);

	if (!result && (moved.stayed || moved.holes))
		result = -EIO;
	return result;
}

int bench_to_device(struct bench *b, const void *p, size_t size)
{
	struct timespec nap = { .tv_nsec = 2 * TIMESLICE_NS };
	int result = move(b, p, size, gpusvm_device(0));

	nanosleep(&nap, NULL);
	return result;
}

int bench_to_system(struct bench *b, const void *p, size_t size)
{
	return move(b, p, size, gpusvm_system());
}

double bench_rate(size_t bytes, uint64_t ns)
{
	return (double)bytes / 1.073741824 / (double)ns;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

double bench_median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), by_value);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

int bench_memcpy(struct bench *b, double *ret)
{
	uint64_t start = tool_now();

	memcpy(b->dst, b->src, BENCH_MEMORY);
	*ret = bench_rate(BENCH_MEMORY, tool_now() - start);
	return 0;
}

uint64_t bench_read(const void *p, size_t size)
{
	const uint64_t *words = p;
	uint64_t sum = 0;

	for (size_t i = 0; i < size / sizeof(*words); i++)
		sum += words[i];
	return sum;
}

static int open_device(struct bench *b, const struct bench_figure *figure)
{
	struct gpusvm_device_desc device = {
		.size = sizeof(device),
		.flags = figure->no_vram   ? GPUSVM_DEVICE_NO_VRAM :
			 figure->zero_copy ? GPUSVM_DEVICE_ZERO_COPY :
					     0,
	};
	struct gpusvm_options options = {
		.size = sizeof(options),
		.devices = &device,
		.n_devices = 1,
	};
	int result = gpusvm_open(&options, &b->svm);

	if (!result)
		result = gpusvm_queue_create(b->svm, 0, NULL, &b->queue);
	return result;
}

/* In turns; the first round only warms up. */
static int rounds(struct bench *b, const struct bench_figure *figure, double *value, double *limit)
{
	double values[ROUNDS], limits[ROUNDS], warm;
	int result = 0;

	for (unsigned i = 0; !result && i <= ROUNDS; i++) {
		tool_progress("bench: %s, round %u of %u", figure->name, i, ROUNDS);
		result = figure->held_against(b, i ? &limits[i - 1] : &warm);
		if (!result)
			result = figure->value(b, i ? &values[i - 1] : &warm);
	}
	tool_progress_end();
	if (!result) {
		*value = bench_median(values, ROUNDS);
		*limit = bench_median(limits, ROUNDS);
	}
	return result;
}

static int measure(const struct bench_figure *figure, double *value, double *limit)
{
	struct bench b = { .seed = 1 };
	int result = -ENOMEM;

	b.src = bench_map(BENCH_MEMORY, !figure->small);
	b.dst = bench_map(BENCH_MEMORY, !figure->small);
	if (b.src && b.dst) {
		memset(b.src, 1, BENCH_MEMORY);
		memset(b.dst, 2, BENCH_MEMORY);
		result = figure->prepare ? figure->prepare(&b) : 0;
	}
	if (!result)
		result = open_device(&b, figure);
	if (!result && figure->opened)
		result = figure->opened(&b);
	if (!result)
		result = rounds(&b, figure, value, limit);
	if (b.state && figure->closing)
		figure->closing(&b);
	gpusvm_queue_destroy(b.queue);
	gpusvm_close(b.svm);
	if (figure->clean)
		figure->clean(&b);
	bench_unmap(b.src, BENCH_MEMORY);
	bench_unmap(b.dst, BENCH_MEMORY);
	return result;
}

static int tell(const struct bench_figure *figure, json_t *list)
{
	double value = 0, limit = 0, ratio;
	int result = measure(figure, &value, &limit);

	if (result == -EIO) /* what a figure says when less moved than it counts with */
		return tool_error("%s: memory did not move as it should; 'gpusvm info' says what "
				  "is promised here",
				  figure->name);
	if (result)
		return tool_error("%s: %s", figure->name, strerror(-result));
	/* Nothing added at all is within any limit; JSON has no infinity. */
	ratio = figure->time ? limit / (value > 0.001 ? value : 0.001) : value / limit;
	if (list)
		json_array_append_new(list, json_pack("{s:s,s:f,s:s,s:s,s:f,s:f}", "name",
						      figure->name, "value", value, "unit",
						      figure->unit, "limit", figure->limit,
						      "limit_value", limit, "ratio", ratio));
	else
		printf("%-27s %10.3f %10.3f %-14s %5.2f  %4.2f%s %s\n", figure->name, value, limit,
		       figure->unit, ratio, figure->wanted, ratio < figure->wanted ? "!" : " ",
		       figure->limit);
	fflush(stdout);
	return 0;
}

static const struct bench_figure *next_figure(const struct bench_figure *figure, size_t *part)
{
	if (!figure)
		return parts[*part = 0];
	figure++;
	if (figure->name)
		return figure;
	return ++*part < sizeof(parts) / sizeof(parts[0]) ? parts[*part] : NULL;
}

static int run(const char *prefix, bool json)
{
	json_t *list = json ? json_array() : NULL;
	const struct bench_figure *figure = NULL;
	int status = TOOL_RIGHT;
	bool found = false;
	size_t part;

	while ((figure = next_figure(figure, &part)) && status == TOOL_RIGHT) {
		if (strncmp(figure->name, prefix, strlen(prefix)))
			continue;
		if (!found && !json)
			printf("%-27s %10s %10s %-14s %5s  %4s  %s\n", "figure", "value", "limit",
			       "unit", "ratio", "want", "held against");
		found = true;
		status = tell(figure, list);
	}
	if (!found)
		status = tool_error("'%s' begins no figure's name; see 'gpusvm bench --help'",
				    prefix);
	if (json && status == TOOL_RIGHT)
		tool_print_json(list);
	else
		json_decref(list);
	return status;
}

static void print_usage(void)
{
	const struct bench_figure *figure = NULL;
	size_t part;

	fputs(usage, stdout);
	puts("\nNames:");
	while ((figure = next_figure(figure, &part)))
		printf("  %-27s held against %s\n", figure->name, figure->limit);
}

int tool_bench(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'h':
			print_usage();
			return TOOL_RIGHT;
		default:
			return TOOL_UNUSABLE; /* getopt has told why */
		}
	}
	if (optind < argc - 1)
		return tool_error("'%s': one name at a time", argv[optind + 1]);
	return run(optind < argc ? argv[optind] : "", json);
}
