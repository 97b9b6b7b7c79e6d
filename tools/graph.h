/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* graph.h: a directed graph read from a file, as arrays. No locks. */
#ifndef GPUSVM_TOOL_GRAPH_H
#define GPUSVM_TOOL_GRAPH_H

#include <stddef.h>
#include <stdint.h>

struct graph_edge {
	uint32_t from, to;
};

struct graph {
	char **names; /* n_nodes of them */
	size_t n_nodes, n_edges;
	struct graph_edge *edges;
	/* The index of names, while the graph is being read. */
	uint32_t *slots; /* node + 1, or 0 */
	size_t n_slots, max_nodes, max_edges;
};

/* An edge list: lines 'from to', names without blanks; '#' starts a comment.
 * With a first line 'nodes N' the names are the numbers from 0 to N - 1.
 * 0, or TOOL_UNUSABLE after an error was told, with file and line. */
int graph_read(const char *path, struct graph *ret);
/* Debian packages that are installed, with an edge from each to what it depends
 * on, of a dpkg status file. The same result. */
int graph_read_packages(const char *path, struct graph *ret);
void graph_free(struct graph *graph);

/* For the readers. 0, or -1: no memory. */
int graph_node(struct graph *graph, const char *name, size_t length, uint32_t *ret);
int graph_edge(struct graph *graph, uint32_t from, uint32_t to);
/* -1: there is none. */
int64_t graph_find(const struct graph *graph, const char *name, size_t length);

#endif
