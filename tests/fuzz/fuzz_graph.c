/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fuzz_graph.c: the readers of graphs: an edge list, or, with FUZZ_PACKAGES, a status
 * file of dpkg. Whatever is read must be a graph.
 */
#include "tests/fuzz/fuzz.h"
#include "tools/graph.h"
#include "tools/tool.h"

#include <string.h>

/* In place of tools/tool.c: what is wrong with the file is not told. */
int tool_error(const char *format, ...)
{
	must(format);
	return TOOL_UNUSABLE;
}

int tool_no_memory(const char *for_what)
{
	must(for_what);
	return TOOL_UNUSABLE;
}

bool tool_parse_number(const char *text, uint64_t *ret)
{
	*ret = 0;
	for (; *text >= '0' && *text <= '9' && *ret < 100000; text++)
		*ret = *ret * 10 + (uint64_t)(*text - '0');
	return !*text && *ret < 100000;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct graph graph;
	int result;

#ifdef FUZZ_PACKAGES
	result = graph_read_packages(fuzz_file(data, size), &graph);
#else
	result = graph_read(fuzz_file(data, size), &graph);
#endif
	if (result) {
		must(result == TOOL_UNUSABLE && !graph.names && !graph.edges && !graph.slots);
		return 0;
	}
	must(graph.n_nodes);
	for (size_t i = 0; i < graph.n_nodes; i++) {
		size_t length = strlen(graph.names[i]);

		must(length && graph_find(&graph, graph.names[i], length) == (int64_t)i);
	}
	for (size_t i = 0; i < graph.n_edges; i++)
		must(graph.edges[i].from < graph.n_nodes && graph.edges[i].to < graph.n_nodes);
	graph_free(&graph);
	return 0;
}
