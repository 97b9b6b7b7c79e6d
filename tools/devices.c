/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* devices.c: --devices, --vram and --links, and the devices that they ask for. One
 * thread; no locks. */
#include "tools/devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX ((size_t)1 << 20) /* of a file of links: all that there can be, and comments */

int tool_devices_option(struct tool_devices *devices, int c, const char *arg)
{
	uint64_t n;

	switch (c) {
	case 'd':
		if (!tool_parse_number(arg, &n) || !n || n > LINKS_DEVICES)
			return tool_error("--devices %s: not a number from 1 to %u", arg,
					  LINKS_DEVICES);
		devices->n = (unsigned)n;
		return 0;
	case 'v':
		if (!tool_parse_size(arg, &devices->vram) || devices->vram < 2u << 20)
			return tool_error("--vram %s: not a size of 2M or more", arg);
		return 0;
	default:
		devices->links_arg = arg;
		return 0;
	}
}

/* The text of a file, malloc'd. NULL after the error was told. */
static char *read_text(const char *path, size_t *length)
{
	FILE *file = fopen(path, "r");
	char *text = file ? malloc(TEXT_MAX) : NULL;

	if (!file) {
		tool_error("--links %s: %s", path, strerror(errno));
		return NULL;
	}
	if (!text) {
		tool_no_memory(path);
	} else {
		*length = fread(text, 1, TEXT_MAX, file);
		if (ferror(file) || *length == TEXT_MAX) {
			tool_error("--links %s: %s", path,
				   ferror(file) ? strerror(errno) : "too long for a file of links");
			free(text);
			text = NULL;
		}
	}
	fclose(file);
	return text;
}

static int read_links(struct tool_devices *devices, const char *path)
{
	struct links_error error;
	size_t length;
	char *text = read_text(path, &length);
	int err;

	if (!text)
		return TOOL_UNUSABLE;
	err = links_parse(text, length, devices->n, &devices->links, &error);
	free(text);
	if (err == -EINVAL)
		return tool_error("%s:%zu: %s", path, error.line, error.text);
	return err ? tool_no_memory("the links") : 0;
}

int tool_devices_links(struct tool_devices *devices)
{
	int err = links_named(devices->links_arg ? devices->links_arg : "none", devices->n,
			      &devices->links);

	if (err == -ENOENT)
		return read_links(devices, devices->links_arg);
	return err ? tool_no_memory("the links") : 0;
}

void tool_devices_free(struct tool_devices *devices)
{
	links_free(&devices->links);
}

int tool_devices_open(const struct tool_devices *devices, struct gpusvm_options *options,
		      struct gpusvm **ret)
{
	struct gpusvm_device_desc descs[LINKS_DEVICES] = {0};

	for (unsigned i = 0; i < devices->n; i++)
		descs[i] = (struct gpusvm_device_desc){
		    .size = sizeof(descs[i]),
		    .vram_bytes = devices->vram,
		};
	options->devices = descs;
	options->n_devices = devices->n;
	options->links = devices->links.list;
	options->n_links = devices->links.n;
	return gpusvm_open(options, ret);
}

static json_t *known(uint64_t value)
{
	return value ? json_integer((json_int_t)value) : json_null();
}

json_t *tool_devices_links_json(const struct tool_devices *devices)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < devices->links.n; i++) {
		const struct gpusvm_link_desc *desc = &devices->links.list[i];
		json_t *flags = json_array();

		if (desc->link.flags & GPUSVM_LINK_MAP)
			json_array_append_new(flags, json_string("map"));
		if (desc->link.flags & GPUSVM_LINK_COPY)
			json_array_append_new(flags, json_string("copy"));
		json_array_append_new(
		    list, json_pack("{s:i,s:i,s:o,s:o,s:o}", "from", desc->from, "to", desc->to,
				    "bandwidth_mbps", known(desc->link.bandwidth_mbps),
				    "latency_ns", known(desc->link.latency_ns), "flags", flags));
	}
	return list;
}
