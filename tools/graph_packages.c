/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * graph_packages.c: the graph of the Debian packages that are installed. The
 * status file is read twice: first the names, with what they provide, then the
 * dependencies. Versions and architectures are ignored; of alternatives each
 * that is installed counts; what is not installed does not. No locks.
 */
#include "tools/graph.h"
#include "tools/tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A virtual name and a package that provides it. */
struct provided {
	char *name;
	uint32_t node;
};

struct reader {
	const char *path;
	struct graph *graph;
	struct provided *provided;
	size_t n_provided, max_provided;
	bool names; /* first pass */
	/* Of the paragraph that is being read. */
	size_t line;
	char *package, *provides, *depends, *pre_depends;
	bool installed;
};

static int by_name(const void *a, const void *b)
{
	const struct provided *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int provide(struct reader *r, const char *name, size_t length, uint32_t node)
{
	if (r->n_provided == r->max_provided) {
		size_t max = r->max_provided ? r->max_provided * 2 : 256;
		struct provided *more = realloc(r->provided, max * sizeof(*more));

		if (!more)
			return -1;
		r->provided = more;
		r->max_provided = max;
	}
	r->provided[r->n_provided].name = strndup(name, length);
	r->provided[r->n_provided].node = node;
	return r->provided[r->n_provided++].name ? 0 : -1;
}

/* Edges to the package of this name, or to all that provide it. */
static int depend(struct reader *r, const char *name, size_t length, uint32_t node)
{
	struct graph *graph = r->graph;
	int64_t to = graph_find(graph, name, length);
	size_t low = 0, high = r->n_provided;

	if (to >= 0)
		return to == node ? 0 : graph_edge(graph, node, (uint32_t)to);
	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = strncmp(r->provided[middle].name, name, length);

		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < r->n_provided && !strncmp(r->provided[low].name, name, length); low++)
		if (!r->provided[low].name[length] && r->provided[low].node != node &&
		    graph_edge(graph, node, r->provided[low].node))
			return -1;
	return 0;
}

/* Calls fn for each name of 'a (>= 1) | b:any, c'. */
static int each_name(struct reader *r, const char *list, uint32_t node,
		     int (*fn)(struct reader *, const char *, size_t, uint32_t))
{
	while (list && *list) {
		size_t length;

		list += strspn(list, " \t\n,|");
		length = strcspn(list, " \t\n,|(:");
		if (length && fn(r, list, length, node))
			return -1;
		list += strcspn(list, ",|");
	}
	return 0;
}

static int end_of_paragraph(struct reader *r)
{
	uint32_t node;
	int result = 0;

	if (r->package && r->installed) {
		if (graph_node(r->graph, r->package, strlen(r->package), &node))
			result = -1;
		else if (r->names)
			result = each_name(r, r->provides, node, provide);
		else if (each_name(r, r->pre_depends, node, depend) ||
			 each_name(r, r->depends, node, depend))
			result = -1;
	}
	free(r->package);
	free(r->provides);
	free(r->depends);
	free(r->pre_depends);
	r->package = r->provides = r->depends = r->pre_depends = NULL;
	r->installed = false;
	return result ? tool_no_memory(r->path) : 0;
}

static int field(struct reader *r, const char *text)
{
	static const char status[] = "Status:";
	const struct {
		const char *name;
		char **value;
	} fields[] = {
		{ "Package:", &r->package },
		{ "Provides:", &r->provides },
		{ "Depends:", &r->depends },
		{ "Pre-Depends:", &r->pre_depends },
	};

	if (!strncmp(text, status, sizeof(status) - 1))
		r->installed = strstr(text, " installed") != NULL;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		size_t length = strlen(fields[i].name);

		if (strncmp(text, fields[i].name, length))
			continue;
		if (*fields[i].value)
			return tool_error("%s:%zu: a second %s in one paragraph", r->path, r->line,
					  fields[i].name);
		text += length + strspn(text + length, " \t");
		if (!strcspn(text, "\r\n") && fields[i].value == &r->package)
			return tool_error("%s:%zu: a package without a name", r->path, r->line);
		*fields[i].value = strndup(text, strcspn(text, "\r\n"));
		return *fields[i].value ? 0 : tool_no_memory(r->path);
	}
	return 0;
}

static int read_paragraphs(struct reader *r, FILE *file)
{
	char *text = NULL;
	size_t size = 0;
	ssize_t length;
	int result = 0, last;

	r->line = 0;
	while (!result && (length = getline(&text, &size, file)) >= 0) {
		r->line++;
		if (strlen(text) != (size_t)length)
			result = tool_error("%s:%zu: this is not text", r->path, r->line);
		else if (*text == '\n')
			result = end_of_paragraph(r);
		else if (*text != ' ' && *text != '\t' && !strchr(text, ':'))
			result = tool_error("%s:%zu: neither a field nor the rest of one", r->path,
					    r->line);
		else
			result = field(r, text);
	}
	if (!result && ferror(file))
		result = tool_error("%s: %s", r->path, strerror(errno));
	last = end_of_paragraph(r);
	free(text);
	return result ? result : last;
}

int graph_read_packages(const char *path, struct graph *ret)
{
	struct reader r = { .path = path, .graph = ret, .names = true };
	FILE *file = fopen(path, "r");
	int result;

	*ret = (struct graph){ 0 };
	if (!file)
		return tool_error("%s: %s; give a graph with --input", path, strerror(errno));
	result = read_paragraphs(&r, file);
	if (!result) {
		if (r.n_provided)
			qsort(r.provided, r.n_provided, sizeof(*r.provided), by_name);
		r.names = false;
		rewind(file);
		result = read_paragraphs(&r, file);
	}
	if (!result && !ret->n_nodes)
		result = tool_error("%s: no package is installed", path);
	fclose(file);
	for (size_t i = 0; i < r.n_provided; i++)
		free(r.provided[i].name);
	free(r.provided);
	if (result)
		graph_free(ret);
	return result;
}
