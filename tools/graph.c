/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* graph.c: graphs in memory, and the reader of edge lists. No locks. */
#include "tools/graph.h"
#include "tools/tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NODE_BYTES 128u /* about what a node takes, in all */
#define BLANKS " \t\r\n"

static uint64_t hash_of(const char *name, size_t length)
{
	uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (unsigned char)name[i]) * 0x100000001b3u;
	return hash ^ hash >> 32;
}

/* The slot of a name, or the free one where it belongs. */
static size_t slot_of(const struct graph *graph, const char *name, size_t length)
{
	size_t slot = hash_of(name, length) & (graph->n_slots - 1);

	while (graph->slots[slot]) {
		const char *other = graph->names[graph->slots[slot] - 1];

		if (!strncmp(other, name, length) && !other[length])
			break;
		slot = (slot + 1) & (graph->n_slots - 1);
	}
	return slot;
}

/* At most half of the slots are in use. */
static int grow_slots(struct graph *graph)
{
	size_t n = graph->n_slots ? graph->n_slots * 2 : 1024;
	uint32_t *slots = calloc(n, sizeof(*slots));

	if (!slots)
		return -1;
	free(graph->slots);
	graph->slots = slots;
	graph->n_slots = n;
	for (size_t i = 0; i < graph->n_nodes; i++)
		slots[slot_of(graph, graph->names[i], strlen(graph->names[i]))] = (uint32_t)i + 1;
	return 0;
}

int64_t graph_find(const struct graph *graph, const char *name, size_t length)
{
	return graph->n_slots ? (int64_t)graph->slots[slot_of(graph, name, length)] - 1 : -1;
}

int graph_node(struct graph *graph, const char *name, size_t length, uint32_t *ret)
{
	int64_t found = graph_find(graph, name, length);

	if (found >= 0) {
		*ret = (uint32_t)found;
		return 0;
	}
	if (graph->n_nodes == UINT32_MAX - 1)
		return -1;
	if (graph->n_nodes == graph->max_nodes) {
		size_t max = graph->max_nodes ? graph->max_nodes * 2 : 256;
		char **names = realloc(graph->names, max * sizeof(*names));

		if (!names)
			return -1;
		graph->names = names;
		graph->max_nodes = max;
	}
	if (graph->n_nodes * 2 >= graph->n_slots && grow_slots(graph))
		return -1;
	graph->names[graph->n_nodes] = strndup(name, length);
	if (!graph->names[graph->n_nodes])
		return -1;
	*ret = (uint32_t)graph->n_nodes++;
	graph->slots[slot_of(graph, name, length)] = *ret + 1;
	return 0;
}

int graph_edge(struct graph *graph, uint32_t from, uint32_t to)
{
	if (graph->n_edges == graph->max_edges) {
		size_t max = graph->max_edges ? graph->max_edges * 2 : 1024;
		struct graph_edge *edges = realloc(graph->edges, max * sizeof(*edges));

		if (!edges)
			return -1;
		graph->edges = edges;
		graph->max_edges = max;
	}
	graph->edges[graph->n_edges++] = (struct graph_edge){ from, to };
	return 0;
}

void graph_free(struct graph *graph)
{
	for (size_t i = 0; i < graph->n_nodes; i++)
		free(graph->names[i]);
	free(graph->names);
	free(graph->edges);
	free(graph->slots);
	*graph = (struct graph){ 0 };
}

struct line {
	const char *path;
	size_t number;
	char *words[3];
	unsigned n; /* 3: three or more */
};

static int numbered_nodes(struct graph *graph, const struct line *line)
{
	uint64_t n;
	char name[24];
	uint32_t node;

	if (!tool_parse_number(line->words[1], &n) || !n || n >= UINT32_MAX)
		return tool_error("%s:%zu: 'nodes %s': not a count of nodes", line->path,
				  line->number, line->words[1]);
	/* Said before the system, which promises more than it has, ends the program. */
	if (n * NODE_BYTES / (uint64_t)sysconf(_SC_PAGESIZE) > (uint64_t)sysconf(_SC_PHYS_PAGES))
		return tool_error("%s:%zu: too little memory for %" PRIu64 " nodes", line->path,
				  line->number, n);
	for (uint64_t i = 0; i < n; i++) {
		int length = snprintf(name, sizeof(name), "%" PRIu64, i);

		if (graph_node(graph, name, (size_t)length, &node))
			return tool_no_memory(line->path);
	}
	return 0;
}

static int add_edge(struct graph *graph, const struct line *line, bool numbered)
{
	uint32_t ends[2];

	if (line->n != 2)
		return tool_error("%s:%zu: an edge is two names, 'from to'; here %s", line->path,
				  line->number, line->n == 1 ? "is one" : "are more");
	for (unsigned i = 0; i < 2; i++) {
		size_t length = strlen(line->words[i]);

		if (numbered && graph_find(graph, line->words[i], length) < 0)
			return tool_error("%s:%zu: an edge %s '%s', which is no node: there are "
					  "0 to %zu", line->path, line->number,
					  i ? "to" : "from", line->words[i], graph->n_nodes - 1);
		if (graph_node(graph, line->words[i], length, &ends[i]))
			return tool_no_memory(line->path);
	}
	return graph_edge(graph, ends[0], ends[1]) ? tool_no_memory(line->path) : 0;
}

static void split(char *text, struct line *line)
{
	char *save = NULL;

	text[strcspn(text, "#")] = 0;
	line->n = 0;
	for (char *word = strtok_r(text, BLANKS, &save); word && line->n < 3;
	     word = strtok_r(NULL, BLANKS, &save))
		line->words[line->n++] = word;
}

static int read_lines(FILE *file, const char *path, struct graph *graph)
{
	struct line line = { .path = path };
	char *text = NULL;
	size_t size = 0, used = 0;
	ssize_t length;
	bool numbered = false;
	int result = 0;

	while (!result && (length = getline(&text, &size, file)) >= 0) {
		line.number++;
		if (strlen(text) != (size_t)length) {
			result = tool_error("%s:%zu: this is not text", path, line.number);
			break;
		}
		split(text, &line);
		if (!line.n)
			continue;
		if (!used++ && line.n == 2 && !strcmp(line.words[0], "nodes")) {
			numbered = true;
			result = numbered_nodes(graph, &line);
		} else {
			result = add_edge(graph, &line, numbered);
		}
	}
	if (!result && ferror(file))
		result = tool_error("%s: %s", path, strerror(errno));
	if (!result && !graph->n_nodes)
		result = tool_error("%s:%zu: the graph is empty", path, line.number);
	free(text);
	return result;
}

int graph_read(const char *path, struct graph *ret)
{
	FILE *file = fopen(path, "r");
	int result;

	*ret = (struct graph){ 0 };
	if (!file)
		return tool_error("%s: %s", path, strerror(errno));
	result = read_lines(file, path, ret);
	fclose(file);
	if (result)
		graph_free(ret);
	return result;
}
