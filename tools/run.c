/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * run.c: 'gpusvm run WORKLOAD': options, devices, launches and the report at
 * the end. Each workload has a file of its own. One thread; no locks.
 */
#include "tools/run.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PACKAGES "/var/lib/dpkg/status"

static const char usage[] =
	"Usage: gpusvm run WORKLOAD [OPTION]...\n"
	"Runs a workload on a GPU, through pointers into plain malloc'd memory, and checks\n"
	"it against the answer of the CPU alone.\n"
	"\n"
	"  pagerank        ranks of the nodes of a graph\n"
	"  bfs             distances from one node of a graph\n"
	"  wordcount       how often each word occurs in text files\n"
	"  stencil         heat spreading over a grid of rows; each GPU has a band of them,\n"
	"                  and reads the borders of the bands beside it\n"
	"  oversubscribe   blocks of memory, four times as many as all GPUs have room for\n"
	"\n"
	"  --input FILE    the input; for wordcount may be given more than once. A graph\n"
	"                  has a line 'from to' for each edge; after a first line 'nodes N'\n"
	"                  the names are 0 to N - 1; '#' begins a comment. Of a stencil the\n"
	"                  bytes are what its cells begin with, row by row. Without it: the\n"
	"                  Debian packages installed here; the texts of their licences; a\n"
	"                  random grid. oversubscribe takes none\n"
	TOOL_DEVICES_USAGE
	"  --seed N        for the order of nodes or blocks in memory, where bfs begins, and\n"
	"                  all that is random (1)\n"
	"  --json          the report as JSON\n"
	"  --help          this text\n"
	"\n"
	"Status: 0 equal to the CPU's answer, 1 not so, 2 unusable arguments or input.\n";

int run_open(struct run *run)
{
	struct gpusvm_options options = { .size = sizeof(options) };
	int result;

	result = tool_devices_open(&run->devices, &options, &run->svm);
	if (result)
		return tool_open_error(result, run->devices.vram);
	for (unsigned i = 0; i < run->devices.n; i++) {
		result = gpusvm_queue_create(run->svm, (int)i, NULL, &run->queues[i]);
		if (result)
			return tool_error("no queue for device %u: %s", i, strerror(-result));
	}
	return 0;
}

void run_tell_fault(const char *name, struct gpusvm_event *event, int result)
{
	struct gpusvm_fault fault = { .size = sizeof(fault) };

	if (gpusvm_event_fault(event, &fault))
		tool_error("%s: %s", name, strerror(-result));
	else
		tool_error("%s: %s at 0x%" PRIx64, name, strerror(-result), fault.address);
}

int run_launch(struct run *run, const char *name,
	       void (*fn)(struct gpusvm_lane *, uint64_t, const void *), const void *args,
	       size_t args_size, uint64_t items)
{
	struct gpusvm_kernel kernel = { .size = sizeof(kernel), .name = name, .fn = fn };
	struct gpusvm_event *events[RUN_DEVICES] = { NULL };
	union {
		struct run_args head;
		char bytes[256];
	} own;
	uint64_t start = tool_now(), end, first = 0;
	int failed = 0;

	memcpy(own.bytes, args, args_size);
	for (unsigned i = 0; i < run->devices.n && !failed; i++, first = end) {
		end = items * (i + 1) / run->devices.n;
		own.head.first = first;
		own.head.device = i;
		failed = gpusvm_launch(run->queues[i], &kernel, &own, args_size, end - first,
				       &events[i]);
		if (failed)
			tool_error("%s: %s", name, strerror(-failed));
	}
	for (unsigned i = 0; i < run->devices.n && events[i]; i++) {
		int result = gpusvm_event_wait(events[i], -1);

		if (result && !failed)
			run_tell_fault(name, events[i], result);
		failed = failed ? failed : result;
		gpusvm_event_put(events[i]);
	}
	run->device_ns += tool_now() - start;
	return failed ? TOOL_WRONG : 0;
}

unsigned run_load_pointers(struct gpusvm_lane *lane, const void *p, uint64_t n, void **ret)
{
	size_t length = sizeof(*ret) * (n < RUN_BATCH ? n : RUN_BATCH);
	const void *span = gpusvm_span(lane, p, &length, false);

	if (length < sizeof(*ret)) { /* the first one lies across two spans */
		ret[0] = (void *)gpusvm_ld64(lane, p);
		return 1;
	}
	memcpy(ret, span, length / sizeof(*ret) * sizeof(*ret));
	return (unsigned)(length / sizeof(*ret));
}

void run_load(struct gpusvm_lane *lane, const void *p, void *ret, size_t n)
{
	const char *from = p;
	char *to = ret;
	size_t length;

	for (; n; from += length, to += length, n -= length) {
		const void *span;

		length = n;
		span = gpusvm_span(lane, from, &length, false); /* shortens length */
		memcpy(to, span, length);
	}
}

void run_store(struct gpusvm_lane *lane, void *p, const void *from, size_t n)
{
	const char *own = from;
	char *to = p;
	size_t length;

	for (; n; own += length, to += length, n -= length) {
		void *span;

		length = n;
		span = gpusvm_span(lane, to, &length, true);
		memcpy(span, own, length);
	}
}

/* ---- Input ------------------------------------------------------------------- */

int run_graph(struct run *run, struct graph *ret)
{
	const char *path = run->n_inputs ? run->inputs[0] : PACKAGES;
	int result = run->n_inputs ? graph_read(path, ret) : graph_read_packages(path, ret);

	if (result)
		return result;
	json_object_set_new(run->report, "input", tool_text(path));
	json_object_set_new(run->report, "nodes", json_integer((json_int_t)ret->n_nodes));
	json_object_set_new(run->report, "edges", json_integer((json_int_t)ret->n_edges));
	return 0;
}

int run_read_file(const char *path, size_t zeros, char **ret, size_t *length)
{
	FILE *file = fopen(path, "r");
	struct stat stat;
	int result = 0;

	if (!file || fstat(fileno(file), &stat)) {
		result = tool_error("%s: %s", path, strerror(errno));
	} else if (!S_ISREG(stat.st_mode)) {
		result = tool_error("%s: not a regular file", path);
	} else {
		*length = (size_t)stat.st_size;
		*ret = calloc(*length + zeros, 1);
		if (!*ret)
			result = tool_no_memory(path);
		else if (fread(*ret, 1, *length, file) != *length)
			result = tool_error("%s: %s", path, ferror(file) ? strerror(errno) :
									   "it became shorter");
	}
	if (file)
		fclose(file);
	return result;
}

uint32_t *run_order(struct run *run, size_t n, uint64_t turn)
{
	uint32_t *order = malloc((n ? n : 1) * sizeof(*order));
	uint64_t state = run->seed ^ turn << 32;

	for (size_t i = 0; order && i < n; i++) {
		size_t k = tool_random(&state) % (i + 1);

		order[i] = order[k];
		order[k] = (uint32_t)i;
	}
	return order;
}

/* ---- The report ------------------------------------------------------------- */

static const struct {
	const char *name;
	size_t offset;
} counters[] = {
#define COUNTER(name) { #name, offsetof(struct gpusvm_stats, name) }
	COUNTER(cpu_faults), COUNTER(device_faults), COUNTER(device_faults_replayed),
	COUNTER(device_faults_stale), COUNTER(device_faults_fatal), COUNTER(pages_to_device),
	COUNTER(pages_to_system), COUNTER(bytes_to_device), COUNTER(bytes_to_system),
	COUNTER(pages_peer), COUNTER(bytes_peer), COUNTER(evictions), COUNTER(invalidations),
	COUNTER(flushes), COUNTER(retries), COUNTER(retry_chain_max), COUNTER(throttles),
	COUNTER(pins), COUNTER(vram_used), COUNTER(vram_peak),
#undef COUNTER
};

static void print_text(struct run *run)
{
	const struct gpusvm_stats *stats = &run->stats;
	json_t *pages = json_object_get(run->report, "pages"), *devices, *lines, *line;
	size_t i;

	printf("%s of %s\n", json_string_value(json_object_get(run->report, "workload")),
	       json_string_value(json_object_get(run->report, "input")));
	lines = json_object_get(run->report, "text");
	json_array_foreach(lines, i, line)
		printf("  %s\n", json_string_value(line));
	devices = json_object_get(pages, "devices");
	printf("pages at the end");
	json_array_foreach(devices, i, line)
		printf("%s %" JSON_INTEGER_FORMAT " on device %zu", i ? "," : ":",
		       json_integer_value(line), i);
	printf(", %" JSON_INTEGER_FORMAT " in system memory\n",
	       json_integer_value(json_object_get(pages, "system")));
	if (run->devices.links.n)
		printf("over links      : %" JSON_INTEGER_FORMAT " pages of one device mapped by "
		       "another\n", json_integer_value(json_object_get(pages, "mapped_by_peers")));
	printf("moved           : %" PRIu64 " pages to devices, %" PRIu64 " to system memory, "
	       "%" PRIu64 " between devices, %" PRIu64 " evictions\n", stats->pages_to_device,
	       stats->pages_to_system, stats->pages_peer, stats->evictions);
	printf("faults          : %" PRIu64 " of devices, %" PRIu64 " of the CPU\n",
	       stats->device_faults, stats->cpu_faults);
	printf("on the GPU      : %.1f ms\n", (double)run->device_ns / 1e6);
	printf("result          : %s\n",
	       json_is_true(json_object_get(run->report, "correct")) ? "equal to the CPU's" :
								       "WRONG");
}

static int print_report(struct run *run)
{
	struct gpusvm_device_info info = { .size = sizeof(info) };
	int result = gpusvm_device_info(run->svm, 0, &info);
	json_t *counts;

	if (result)
		return tool_error("device 0: %s", strerror(-result));
	tool_progress_end();
	if (!run->json) {
		print_text(run);
		return 0;
	}
	counts = json_object();
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		uint64_t value = *(uint64_t *)((char *)&run->stats + counters[i].offset);

		json_object_set_new(counts, counters[i].name, json_integer((json_int_t)value));
	}
	json_object_set_new(run->report, "vram_bytes", json_integer((json_int_t)info.vram_bytes));
	json_object_set_new(run->report, "device_seconds", json_real((double)run->device_ns / 1e9));
	json_object_set_new(run->report, "stats", counts);
	json_object_del(run->report, "text");
	tool_print_json(json_incref(run->report));
	return 0;
}

/* ---- The command ------------------------------------------------------------- */

static const struct {
	const char *name;
	int (*run)(struct run *run);
} workloads[] = {
	{ "pagerank", run_pagerank },
	{ "bfs", run_bfs },
	{ "wordcount", run_wordcount },
	{ "stencil", run_stencil },
	{ "oversubscribe", run_oversubscribe },
};

/* 0, or TOOL_UNUSABLE after the error was told; -1: --help was served. */
static int parse(struct run *run, int argc, char **argv)
{
	static const struct option options[] = {
		{ "input", required_argument, NULL, 'i' },
		{ "devices", required_argument, NULL, 'd' },
		{ "vram", required_argument, NULL, 'v' },
		{ "links", required_argument, NULL, 'l' },
		{ "seed", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 'i':
			run->inputs[run->n_inputs++] = optarg;
			break;
		case 'd':
		case 'v':
		case 'l':
			if (tool_devices_option(&run->devices, c, optarg))
				return TOOL_UNUSABLE;
			break;
		case 's':
			if (!tool_parse_number(optarg, &run->seed))
				return tool_error("--seed %s: not a number", optarg);
			break;
		case 'j':
			run->json = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return -1;
		default:
			return TOOL_UNUSABLE; /* getopt has told why */
		}
	}
	if (optind != argc - 1)
		return optind == argc ?
			       tool_error("no workload was named; see 'gpusvm run --help'") :
			       tool_error("'%s': one workload at a time", argv[optind + 1]);
	return tool_devices_links(&run->devices);
}

int tool_run(int argc, char **argv)
{
	struct run run = { .devices = { .n = 1 }, .seed = 1 };
	const char *name;
	int result;

	run.inputs = calloc((size_t)argc, sizeof(*run.inputs));
	run.report = json_object();
	if (!run.inputs || !run.report)
		return tool_no_memory("the arguments");
	result = parse(&run, argc, argv);
	if (result) {
		tool_devices_free(&run.devices);
		free(run.inputs);
		json_decref(run.report);
		return result < 0 ? TOOL_RIGHT : result;
	}
	name = argv[optind];
	result = -1;
	for (size_t i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++) {
		if (strcmp(workloads[i].name, name))
			continue;
		if (run.n_inputs > 1 && workloads[i].run != run_wordcount) {
			result = tool_error("%s takes one --input", name);
			break;
		}
		json_object_set_new(run.report, "workload", json_string(name));
		json_object_set_new(run.report, "seed", json_integer((json_int_t)run.seed));
		json_object_set_new(run.report, "device_count", json_integer(run.devices.n));
		json_object_set_new(run.report, "links", tool_devices_links_json(&run.devices));
		json_object_set_new(run.report, "text", json_array());
		result = workloads[i].run(&run);
	}
	if (result < 0)
		result = tool_error("'%s' is no workload; see 'gpusvm run --help'", name);
	if (run.svm && json_object_get(run.report, "correct") && print_report(&run))
		result = TOOL_UNUSABLE;
	for (unsigned i = 0; i < run.devices.n; i++)
		gpusvm_queue_destroy(run.queues[i]);
	gpusvm_close(run.svm);
	run_unwatch(&run);
	tool_devices_free(&run.devices);
	free(run.inputs);
	json_decref(run.report);
	return result;
}
