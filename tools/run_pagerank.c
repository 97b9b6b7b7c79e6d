/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * run_pagerank.c: PageRank over nodes that were malloc'd one by one and point
 * at each other. In fixed point, where no order of addition matters, so that
 * the GPU's answer must equal the CPU's to the last bit. No locks: a launch
 * writes only its own nodes, and sums by atomics.
 */
#include "tools/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ONE ((uint64_t)1 << 32) /* the mean rank */
#define ROUNDS 100u
#define BLOCK 64u /* nodes for each item of a launch */

struct node {
	uint64_t rank, share; /* share: what each that it points at gets of it */
	uint32_t n_in, n_out;
	struct node *in[]; /* those that point at it */
};

/* What the launches of a round add up, for each device its own, in a page of its
 * own: no device waits for another's. */
struct sums {
	uint64_t dangling; /* rank of the nodes that point at none */
	uint64_t change;
} __attribute__((aligned(4096)));

struct args {
	struct run_args head;
	struct node **nodes;
	uint64_t n_nodes;
	struct sums *sums; /* one for each device */
	uint64_t spread; /* of the dangling rank, for each node */
};

/* What a node has after a round in which the shares of those that point at it
 * add up to sum: 15 parts of 100 for being there, 85 from others. */
static uint64_t new_rank(uint64_t sum)
{
	return ONE * 15 / 100 + sum / 100 * 85 + sum % 100 * 85 / 100;
}

static uint64_t distance(uint64_t a, uint64_t b)
{
	return a < b ? b - a : a - b;
}

/* ---- On the GPU ---------------------------------------------------------- */

static struct node *node_at(struct gpusvm_lane *lane, const struct args *args, uint64_t i)
{
	return (struct node *)gpusvm_ld64(lane, &args->nodes[i]);
}

static void share_kernel(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	const struct args *args = p;
	uint64_t i = (args->head.first + item) * BLOCK, end = i + BLOCK, dangling = 0;

	for (; i < end && i < args->n_nodes; i++) {
		struct node *node = node_at(lane, args, i);
		uint64_t rank = gpusvm_ld64(lane, &node->rank);
		uint32_t n_out = gpusvm_ld32(lane, &node->n_out);

		if (n_out)
			gpusvm_st64(lane, &node->share, rank / n_out);
		else
			dangling += rank;
	}
	if (dangling)
		gpusvm_atomic_add64(lane, &args->sums[args->head.device].dangling, dangling);
}

static uint64_t sum_of_shares(struct gpusvm_lane *lane, struct node *node)
{
	uint32_t n_in = gpusvm_ld32(lane, &node->n_in), n;
	void *in[RUN_BATCH];
	uint64_t sum = 0;

	for (uint32_t done = 0; done < n_in; done += n) {
		n = run_load_pointers(lane, &node->in[done], n_in - done, in);
		for (uint32_t i = 0; i < n; i++)
			sum += gpusvm_ld64(lane, &((struct node *)in[i])->share);
	}
	return sum;
}

static void rank_kernel(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	const struct args *args = p;
	uint64_t i = (args->head.first + item) * BLOCK, end = i + BLOCK, change = 0;

	for (; i < end && i < args->n_nodes; i++) {
		struct node *node = node_at(lane, args, i);
		uint64_t rank = new_rank(sum_of_shares(lane, node) + args->spread);

		change += distance(rank, gpusvm_ld64(lane, &node->rank));
		gpusvm_st64(lane, &node->rank, rank);
	}
	gpusvm_atomic_add64(lane, &args->sums[args->head.device].change, change);
}

static bool settled(uint64_t change, size_t n_nodes)
{
	return change / n_nodes < ONE / 1000000;
}

/* Of all devices. */
static struct sums sum_up(const struct run *run, const struct sums *sums)
{
	struct sums all = { 0 };

	for (unsigned i = 0; i < run->devices.n; i++) {
		all.dangling += sums[i].dangling;
		all.change += sums[i].change;
	}
	return all;
}

static int on_gpu(struct run *run, struct node **nodes, size_t n_nodes, struct sums *sums,
		  unsigned *rounds)
{
	struct args args = { .nodes = nodes, .n_nodes = n_nodes, .sums = sums };
	uint64_t items = (n_nodes + BLOCK - 1) / BLOCK, change;
	int result = 0;

	for (*rounds = 0; !result && *rounds < ROUNDS;) {
		memset(sums, 0, run->devices.n * sizeof(*sums));
		result = run_launch(run, "share", share_kernel, &args, sizeof(args), items);
		if (result)
			break;
		args.spread = sum_up(run, sums).dangling / n_nodes;
		result = run_launch(run, "rank", rank_kernel, &args, sizeof(args), items);
		change = sum_up(run, sums).change;
		++*rounds;
		tool_progress("pagerank: round %u, change %.6f", *rounds,
			      (double)change / (double)ONE / (double)n_nodes);
		if (settled(change, n_nodes))
			break;
	}
	return result;
}

/* ---- On the CPU, over arrays --------------------------------------------- */

static uint64_t *on_cpu(const struct graph *graph, unsigned *rounds)
{
	size_t n = graph->n_nodes;
	uint64_t *rank = malloc(n * sizeof(*rank)), *sum = malloc(n * sizeof(*sum));
	uint32_t *n_out = calloc(n, sizeof(*n_out));
	uint64_t change = UINT64_MAX;

	for (*rounds = 0; rank && sum && n_out && *rounds < ROUNDS; ++*rounds) {
		uint64_t dangling = 0;

		if (settled(change, n))
			break;
		change = 0;
		memset(sum, 0, n * sizeof(*sum));
		if (!*rounds)
			for (size_t i = 0; i < n; i++)
				rank[i] = ONE;
		if (!*rounds)
			for (size_t i = 0; i < graph->n_edges; i++)
				n_out[graph->edges[i].from]++;
		for (size_t i = 0; i < graph->n_edges; i++)
			sum[graph->edges[i].to] +=
				rank[graph->edges[i].from] / n_out[graph->edges[i].from];
		for (size_t i = 0; i < n; i++)
			dangling += n_out[i] ? 0 : rank[i];
		for (size_t i = 0; i < n; i++) {
			uint64_t next = new_rank(sum[i] + dangling / n);

			change += distance(next, rank[i]);
			rank[i] = next;
		}
	}
	if (!sum || !n_out) {
		free(rank);
		rank = NULL;
	}
	free(sum);
	free(n_out);
	return rank;
}

/* ---- Building, comparing ------------------------------------------------- */

static void free_nodes(struct node **nodes, size_t n)
{
	for (size_t i = 0; nodes && i < n; i++)
		free(nodes[i]);
	free(nodes);
}

static struct node **build(struct run *run, const struct graph *graph)
{
	struct node **nodes = calloc(graph->n_nodes, sizeof(*nodes));
	uint32_t *n_in = calloc(graph->n_nodes, sizeof(*n_in));
	uint32_t *order = run_order(run, graph->n_nodes, 0);
	struct run_memory *watch = run_watch(run, graph->n_nodes + 1);
	bool good = nodes && n_in && order && watch;

	for (size_t i = 0; good && i < graph->n_edges; i++)
		n_in[graph->edges[i].to]++;
	for (size_t i = 0; good && i < graph->n_nodes; i++) {
		uint32_t k = order[i];
		size_t size = sizeof(struct node) + n_in[k] * sizeof(struct node *);

		nodes[k] = malloc(size);
		good = nodes[k] != NULL;
		if (good)
			*nodes[k] = (struct node){ .rank = ONE };
		watch[i] = (struct run_memory){ nodes[k], size };
	}
	if (good)
		watch[graph->n_nodes] =
			(struct run_memory){ nodes, graph->n_nodes * sizeof(*nodes) };
	for (size_t i = 0; good && i < graph->n_edges; i++) {
		struct node *from = nodes[graph->edges[i].from], *to = nodes[graph->edges[i].to];

		from->n_out++;
		to->in[to->n_in++] = from;
	}
	if (!good) {
		free_nodes(nodes, graph->n_nodes);
		nodes = NULL;
	}
	free(n_in);
	free(order);
	return nodes;
}

static void tell_ranks(struct run *run, const struct graph *graph, const uint64_t *rank,
		       unsigned rounds)
{
	json_t *text = json_object_get(run->report, "text"), *top = json_array();
	char *taken = calloc(graph->n_nodes, 1);

	json_array_append_new(text, json_sprintf("%zu nodes, %zu edges, %u rounds", graph->n_nodes,
						 graph->n_edges, rounds));
	for (unsigned i = 0; taken && i < 10 && i < graph->n_nodes; i++) {
		size_t best = graph->n_nodes;
		json_t *name;

		for (size_t k = 0; k < graph->n_nodes; k++)
			if (!taken[k] && (best == graph->n_nodes || rank[k] > rank[best]))
				best = k;
		taken[best] = 1;
		name = tool_text(graph->names[best]);
		json_array_append_new(text, json_sprintf("%10.4f  %s",
							 (double)rank[best] / (double)ONE,
							 json_string_value(name)));
		json_array_append_new(top, json_pack("{s:o,s:f}", "name", name, "rank",
						     (double)rank[best] / (double)ONE));
	}
	free(taken);
	json_object_set_new(run->report, "rounds", json_integer(rounds));
	json_object_set_new(run->report, "top", top);
}

static int compare(struct run *run, const struct graph *graph, struct node **nodes,
		   const uint64_t *rank)
{
	size_t wrong = 0;

	for (size_t i = 0; i < graph->n_nodes; i++) {
		if (nodes[i]->rank == rank[i])
			continue;
		if (!wrong++)
			tool_error("the rank of '%s' is %" PRIu64 ", the CPU's is %" PRIu64,
				   graph->names[i], nodes[i]->rank, rank[i]);
	}
	if (wrong)
		tool_error("%zu of %zu ranks are wrong", wrong, graph->n_nodes);
	json_object_set_new(run->report, "correct", json_boolean(!wrong));
	return wrong ? TOOL_WRONG : TOOL_RIGHT;
}

static int on_both(struct run *run, const struct graph *graph, struct node **nodes,
		   struct sums *sums)
{
	unsigned cpu_rounds, rounds;
	uint64_t *rank = on_cpu(graph, &cpu_rounds);
	int result = rank ? run_open(run) : tool_no_memory("the ranks");

	if (!result)
		result = on_gpu(run, nodes, graph->n_nodes, sums, &rounds);
	if (!result)
		result = run_pages(run);
	if (!result) {
		tell_ranks(run, graph, rank, rounds);
		result = compare(run, graph, nodes, rank);
	}
	free(rank);
	return result;
}

int run_pagerank(struct run *run)
{
	struct sums *sums = aligned_alloc(sizeof(*sums), run->devices.n * sizeof(*sums));
	struct node **nodes = NULL;
	struct graph graph;
	int result = run_graph(run, &graph);

	if (!result) {
		nodes = build(run, &graph);
		if (nodes && sums)
			result = on_both(run, &graph, nodes, sums);
		else
			result = tool_no_memory("the nodes");
		free_nodes(nodes, graph.n_nodes);
		graph_free(&graph);
	}
	free(sums);
	return result;
}
