/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * run_bfs.c: breadth-first search over nodes that were malloc'd one by one and
 * point at each other. One launch for each distance; a node is entered by
 * whoever sets its distance first, by an atomic compare and swap; no locks.
 */
#include "tools/run.h"

#include <stdio.h>
#include <stdlib.h>

#define UNSEEN UINT32_MAX
#define BLOCK 16u /* nodes for each item of a launch */

struct node {
	uint32_t distance, n_out;
	struct node *out[]; /* those that it points at */
};

/* The nodes of one distance. */
struct front {
	uint64_t n;
	struct node *nodes[];
};

struct args {
	struct run_args head;
	struct front *now;
	struct front *next;
	uint64_t n;
	uint32_t distance; /* of next */
};

struct search {
	struct node **nodes;
	struct front *fronts[2];
	uint32_t from;
};

/* ---- On the GPU ---------------------------------------------------------- */

static void enter(struct gpusvm_lane *lane, const struct args *args, struct node *node)
{
	if (gpusvm_ld32(lane, &node->distance) == UNSEEN &&
	    gpusvm_atomic_cas32(lane, &node->distance, UNSEEN, args->distance) == UNSEEN) {
		uint64_t k = gpusvm_atomic_add64(lane, &args->next->n, 1);

		gpusvm_st64(lane, &args->next->nodes[k], (uintptr_t)node);
	}
}

static void step_kernel(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	const struct args *args = p;
	uint64_t i = (args->head.first + item) * BLOCK, end = i + BLOCK;
	void *out[RUN_BATCH];

	for (; i < end && i < args->n; i++) {
		struct node *node = (struct node *)gpusvm_ld64(lane, &args->now->nodes[i]);
		uint32_t n_out = gpusvm_ld32(lane, &node->n_out), n;

		for (uint32_t done = 0; done < n_out; done += n) {
			n = run_load_pointers(lane, &node->out[done], n_out - done, out);
			for (uint32_t k = 0; k < n; k++)
				enter(lane, args, out[k]);
		}
	}
}

static int on_gpu(struct run *run, struct search *search)
{
	struct args args = { .now = search->fronts[0], .next = search->fronts[1], .distance = 1 };
	struct node *from = search->nodes[search->from];
	int result = 0;

	from->distance = 0;
	search->fronts[0]->n = 1;
	search->fronts[0]->nodes[0] = from;
	while (!result && (args.n = args.now->n)) {
		struct front *next = args.now;

		args.next->n = 0;
		tool_progress("bfs: distance %u, %llu nodes", args.distance,
			      (unsigned long long)args.n);
		result = run_launch(run, "step", step_kernel, &args, sizeof(args),
				    (args.n + BLOCK - 1) / BLOCK);
		args.now = args.next;
		args.next = next;
		args.distance++;
	}
	return result;
}

/* ---- On the CPU, over arrays --------------------------------------------- */

static uint32_t *on_cpu(const struct graph *graph, uint32_t from)
{
	size_t n = graph->n_nodes, head = 0, tail = 0;
	uint32_t *distance = malloc(n * sizeof(*distance)), *queue = malloc(n * sizeof(*queue));
	size_t *first = calloc(n + 2, sizeof(*first));
	uint32_t *to = malloc((graph->n_edges + 1) * sizeof(*to));

	if (!distance || !queue || !first || !to) {
		free(distance);
		distance = NULL;
		goto out;
	}
	for (size_t i = 0; i < graph->n_edges; i++)
		first[graph->edges[i].from + 2]++;
	for (size_t i = 2; i <= n; i++)
		first[i] += first[i - 1];
	for (size_t i = 0; i < graph->n_edges; i++) /* first[k + 1] moves to k's end */
		to[first[graph->edges[i].from + 1]++] = graph->edges[i].to;
	for (size_t i = 0; i < n; i++)
		distance[i] = UNSEEN;
	distance[from] = 0;
	queue[tail++] = from;
	while (head < tail) {
		uint32_t node = queue[head++];

		for (size_t i = first[node]; i < first[node + 1]; i++)
			if (distance[to[i]] == UNSEEN) {
				distance[to[i]] = distance[node] + 1;
				queue[tail++] = to[i];
			}
	}
out:
	free(queue);
	free(first);
	free(to);
	return distance;
}

/* ---- Building, comparing ------------------------------------------------- */

static void free_search(struct search *search, size_t n)
{
	for (size_t i = 0; search->nodes && i < n; i++)
		free(search->nodes[i]);
	free(search->nodes);
	free(search->fronts[0]);
	free(search->fronts[1]);
}

/* 0, or -1: no memory. What was built is the caller's to free in both cases. */
static int build(struct run *run, const struct graph *graph, struct search *search)
{
	size_t n = graph->n_nodes, front = sizeof(struct front) + n * sizeof(struct node *);
	uint32_t *n_out = calloc(n, sizeof(*n_out)), *order = run_order(run, n, 0);
	struct run_memory *watch = run_watch(run, n + 2);
	bool good = n_out && order && watch, chosen = false;

	search->nodes = calloc(n, sizeof(*search->nodes));
	good = good && search->nodes;
	for (unsigned i = 0; good && i < 2; i++) {
		search->fronts[i] = malloc(front);
		good = search->fronts[i] != NULL;
		watch[n + i] = (struct run_memory){ search->fronts[i], front };
	}
	for (size_t i = 0; good && i < graph->n_edges; i++)
		n_out[graph->edges[i].from]++;
	for (size_t i = 0; good && i < n; i++) {
		uint32_t k = order[i];
		size_t size = sizeof(struct node) + n_out[k] * sizeof(struct node *);

		/* Begin where there is somewhere to go, if there is such a node. */
		if (!chosen || (n_out[k] && !n_out[search->from]))
			search->from = k;
		chosen = true;
		search->nodes[k] = malloc(size);
		good = search->nodes[k] != NULL;
		if (good)
			*search->nodes[k] = (struct node){ .distance = UNSEEN };
		watch[i] = (struct run_memory){ search->nodes[k], size };
	}
	for (size_t i = 0; good && i < graph->n_edges; i++) {
		struct node *from = search->nodes[graph->edges[i].from];

		from->out[from->n_out++] = search->nodes[graph->edges[i].to];
	}
	free(n_out);
	free(order);
	return good ? 0 : -1;
}

static void tell_distances(struct run *run, const struct graph *graph, const uint32_t *distance,
			   uint32_t from)
{
	json_t *text = json_object_get(run->report, "text"), *counts = json_array();
	json_t *name = tool_text(graph->names[from]);
	uint32_t farthest = 0;
	size_t reached = 0;

	for (size_t i = 0; i < graph->n_nodes; i++) {
		if (distance[i] == UNSEEN)
			continue;
		reached++;
		farthest = distance[i] > farthest ? distance[i] : farthest;
	}
	json_array_append_new(text, json_sprintf("from '%s': %zu of %zu nodes, the farthest %u "
						 "edges away", json_string_value(name), reached,
						 graph->n_nodes, farthest));
	for (uint32_t d = 0; d <= farthest && d < 1000; d++) {
		json_int_t n = 0;

		for (size_t i = 0; i < graph->n_nodes; i++)
			n += distance[i] == d;
		json_array_append_new(counts, json_integer(n));
	}
	json_object_set_new(run->report, "from", name);
	json_object_set_new(run->report, "reached", json_integer((json_int_t)reached));
	json_object_set_new(run->report, "farthest", json_integer(farthest));
	json_object_set_new(run->report, "by_distance", counts);
}

static int compare(struct run *run, const struct graph *graph, struct node **nodes,
		   const uint32_t *distance)
{
	size_t wrong = 0;

	for (size_t i = 0; i < graph->n_nodes; i++) {
		if (nodes[i]->distance == distance[i])
			continue;
		if (!wrong++)
			tool_error("the distance of '%s' is %u, the CPU's is %u", graph->names[i],
				   nodes[i]->distance, distance[i]);
	}
	if (wrong)
		tool_error("%zu of %zu distances are wrong", wrong, graph->n_nodes);
	json_object_set_new(run->report, "correct", json_boolean(!wrong));
	return wrong ? TOOL_WRONG : TOOL_RIGHT;
}

static int on_both(struct run *run, const struct graph *graph, struct search *search)
{
	uint32_t *distance = on_cpu(graph, search->from);
	int result = distance ? run_open(run) : tool_no_memory("the distances");

	if (!result)
		result = run_share_atomics(run);
	if (!result)
		result = on_gpu(run, search);
	if (!result)
		result = run_pages(run);
	if (!result) {
		tell_distances(run, graph, distance, search->from);
		result = compare(run, graph, search->nodes, distance);
	}
	free(distance);
	return result;
}

int run_bfs(struct run *run)
{
	struct search search = { 0 };
	struct graph graph;
	int result = run_graph(run, &graph);

	if (result)
		return result;
	if (build(run, &graph, &search))
		result = tool_no_memory("the nodes");
	else
		result = on_both(run, &graph, &search);
	free_search(&search, graph.n_nodes);
	graph_free(&graph);
	return result;
}
