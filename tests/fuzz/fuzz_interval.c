/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fuzz_interval.c: the range index against an array. The input is a list of
 * operations: insert, remove, find; the first two bytes say in what kind of space,
 * dense or spread over all of it.
 */
#include "tests/fuzz/fuzz.h"

#include "core/interval.h"
#include "host/posix/posix.h"

#define MAX 200u

static struct gpusvm_interval entries[MAX];
static struct gpusvm_interval *sorted[MAX]; /* by start */
static bool in_use[MAX];
static unsigned n;

static struct gpusvm_interval *naive_find(u64 start, u64 end)
{
	for (unsigned i = 0; i < n; i++)
		if (sorted[i]->end > start)
			return sorted[i]->start < end ? sorted[i] : NULL;
	return NULL;
}

static void insert(struct gpusvm_interval_tree *tree, u64 start, u64 end, bool adopt)
{
	unsigned slot = 0, at = n;

	if (n == MAX || naive_find(start, end))
		return;
	while (in_use[slot])
		slot++;
	in_use[slot] = true;
	entries[slot] = (struct gpusvm_interval){.start = start, .end = end};
	for (; at && sorted[at - 1]->start > start; at--)
		sorted[at] = sorted[at - 1];
	sorted[at] = &entries[slot];
	n++;
	if (adopt)
		gpusvm_interval_adopt(tree, gpusvm_interval_node_alloc());
	else
		must(gpusvm_interval_prepare(tree) == 0);
	gpusvm_interval_insert(tree, &entries[slot]);
}

static void take_out(struct gpusvm_interval_tree *tree, unsigned at)
{
	gpusvm_interval_remove(tree, sorted[at]);
	in_use[sorted[at] - entries] = false;
	for (n--; at < n; at++)
		sorted[at] = sorted[at + 1];
}

static void compare(const struct gpusvm_interval_tree *tree)
{
	const struct gpusvm_interval *entry = gpusvm_interval_find(tree, 0, ~(u64)0);

	gpusvm_interval_tree_verify(tree);
	must(tree->count == n);
	for (unsigned i = 0; i < n; i++) {
		must(entry == sorted[i]);
		entry = gpusvm_interval_next(tree, entry);
	}
	must(!entry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	struct gpusvm_interval_tree tree;
	unsigned shift = input_byte(&in) % 43, spread = input_byte(&in) % 16;

	n = 0;
	for (unsigned i = 0; i < MAX; i++)
		in_use[i] = false;
	gpusvm_interval_tree_init(&tree);
	while (input_left(&in)) {
		unsigned what = input_byte(&in);
		u64 start = (u64)input_below(&in, 65536) << shift;
		u64 end = start + (((u64)input_byte(&in) + 1) << (what % 4 ? 0 : spread));

		if (end > GPUSVM_INTERVAL_LIMIT)
			continue;
		switch (what >> 2 & 3) {
		case 0:
		case 1:
			insert(&tree, start, end, what & 128);
			break;
		case 2:
			if (n)
				take_out(&tree, (unsigned)(start >> shift) % n);
			break;
		default:
			must(gpusvm_interval_find(&tree, start, end) == naive_find(start, end));
		}
		if (what & 64)
			compare(&tree);
	}
	compare(&tree);
	gpusvm_interval_tree_fini(&tree);
	must(host_posix_alloc_live() == 0);
	return 0;
}
