/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * run_oversubscribe.c: blocks of malloc'd memory, four times as many as all devices
 * have room for, so that devices evict all the time. In each pass every block
 * is changed once, in another random order. No locks: a block is one item's.
 *
 * The CPU does not keep an answer of that size: what a block begins with follows from
 * the seed and its number, so that each is computed anew when it is compared.
 */
#include "tools/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMES 4u			  /* the memory of all devices */
#define VRAM_DEFAULT ((uint64_t)32 << 20) /* of each, when none was asked for */
#define PASSES 3u
#define WORDS 131072u /* of a block: 1 MiB */
#define CHUNK 256u    /* words that a kernel has in its own memory */

typedef uint64_t block[WORDS];

struct args {
	struct run_args head;
	block *const *blocks; /* in this pass's order */
	uint64_t pass;
};

/* The order within a block matters, and so does that of passes. */
static void change(uint64_t *words, uint64_t n, uint64_t first, uint64_t pass)
{
	for (uint64_t i = 0; i < n; i++)
		words[i] = (words[i] ^ pass) * 0x9e3779b97f4a7c15u + first + i;
}

static void change_kernel(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	const struct args *args = p;
	uint64_t *words =
	    (uint64_t *)(uintptr_t)gpusvm_ld64(lane, &args->blocks[args->head.first + item]);
	uint64_t own[CHUNK];

	for (uint64_t i = 0; i < WORDS; i += CHUNK) {
		run_load(lane, &words[i], own, sizeof(own));
		change(own, CHUNK, i, args->pass);
		run_store(lane, &words[i], own, sizeof(own));
	}
}

/* What block k begins with. */
static void fill(const struct run *run, uint64_t k, uint64_t *words)
{
	uint64_t state = run->seed ^ (k + 1) << 32;

	for (unsigned i = 0; i < WORDS; i++)
		words[i] = tool_random(&state);
}

static int on_gpu(struct run *run, block *const *blocks, block **ordered, uint64_t n)
{
	int result = 0;

	for (uint64_t pass = 1; !result && pass <= PASSES; pass++) {
		struct args args = {.blocks = ordered, .pass = pass};
		uint32_t *order = run_order(run, n, pass);

		if (!order)
			return tool_no_memory("the order of blocks");
		for (uint64_t i = 0; i < n; i++)
			ordered[i] = blocks[order[i]];
		free(order);
		tool_progress("oversubscribe: pass %" PRIu64 " of %u", pass, PASSES);
		result = run_launch(run, "change", change_kernel, &args, sizeof(args), n);
	}
	return result;
}

static int compare(struct run *run, block *const *blocks, uint64_t n)
{
	uint64_t *want = malloc(sizeof(block)), wrong = 0;

	if (!want)
		return tool_no_memory("a block");
	for (uint64_t k = 0; k < n; k++) {
		fill(run, k, want);
		for (uint64_t pass = 1; pass <= PASSES; pass++)
			change(want, WORDS, 0, pass);
		if (memcmp(want, *blocks[k], sizeof(block)) && !wrong++)
			tool_error("block %" PRIu64 " is not what the CPU has", k);
	}
	free(want);
	if (wrong)
		tool_error("%" PRIu64 " of %" PRIu64 " blocks are wrong", wrong, n);
	json_object_set_new(run->report, "correct", json_boolean(!wrong));
	return wrong ? TOOL_WRONG : TOOL_RIGHT;
}

static int build(struct run *run, block **blocks, uint64_t n)
{
	struct run_memory *watch = run_watch(run, n);

	for (uint64_t k = 0; watch && k < n; k++) {
		blocks[k] = malloc(sizeof(block));
		if (!blocks[k])
			return tool_no_memory("the blocks");
		fill(run, k, *blocks[k]);
		watch[k] = (struct run_memory){*blocks[k], sizeof(block)};
	}
	return watch ? 0 : TOOL_UNUSABLE;
}

static int on_both(struct run *run, block **blocks, block **ordered, uint64_t n)
{
	int result = build(run, blocks, n);

	result = result ? result : run_open(run);
	result = result ? result : on_gpu(run, blocks, ordered, n);
	result = result ? result : run_pages(run);
	return result ? result : compare(run, blocks, n);
}

static void tell_size(struct run *run, uint64_t n)
{
	uint64_t size = n * sizeof(block), vram = run->devices.vram * run->devices.n;

	json_object_set_new(run->report, "input", json_string("random blocks"));
	json_object_set_new(run->report, "working_set_bytes", json_integer((json_int_t)size));
	json_object_set_new(run->report, "passes", json_integer(PASSES));
	json_array_append_new(json_object_get(run->report, "text"),
			      json_sprintf("%" PRIu64 " MiB in %" PRIu64
					   " blocks, %u times the %" PRIu64
					   " MiB of all devices, %u passes",
					   size >> 20, n, TIMES, vram >> 20, PASSES));
}

int run_oversubscribe(struct run *run)
{
	uint64_t pages = (uint64_t)sysconf(_SC_PHYS_PAGES), n;
	block **blocks, **ordered;
	int result;

	if (run->n_inputs)
		return tool_error("oversubscribe takes no --input");
	if (!run->devices.vram)
		run->devices.vram = VRAM_DEFAULT;
	/* Said before the system, which promises more than it has, ends the program. The
	 * devices' own memory is the system's too. */
	if (run->devices.vram / 4096 * run->devices.n > pages / (TIMES + 1))
		return tool_error("too little memory for %u times what %u devices with %" PRIu64
				  " MiB have",
				  TIMES, run->devices.n, run->devices.vram >> 20);
	n = run->devices.vram * run->devices.n * TIMES / sizeof(block);
	tell_size(run, n);
	blocks = calloc(n, sizeof(*blocks));
	ordered = calloc(n, sizeof(*ordered));
	result =
	    blocks && ordered ? on_both(run, blocks, ordered, n) : tool_no_memory("the blocks");
	for (uint64_t k = 0; blocks && k < n; k++)
		free(blocks[k]);
	free(blocks);
	free(ordered);
	return result;
}
