/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* devices.h: the options that say which devices there shall be, of all subcommands
 * that open some. One thread; no locks. */
#ifndef GPUSVM_TOOL_DEVICES_H
#define GPUSVM_TOOL_DEVICES_H

#include "tools/links.h"
#include "tools/tool.h"

struct tool_devices {
	/* As asked for. */
	unsigned n;
	uint64_t vram;	       /* of each; 0: the library's default */
	const char *links_arg; /* NULL: none */
	/* Of tool_devices_links. */
	struct links links;
};

/* What --help says of them. */
#define TOOL_DEVICES_USAGE                                                                         \
	"  --devices N     that many GPUs (1)\n"                                                   \
	"  --vram SIZE     memory of each, as 64M or 1G (256M)\n"                                  \
	"  --links WHICH   which GPUs reach the memory of which: 'full', each of each;\n"          \
	"                  'ring', of the next and the one before; 'none' (this); or a\n"          \
	"                  file with a line 'FROM TO [BANDWIDTH [LATENCY [FLAGS]]]' for\n"         \
	"                  each link in one direction: MB/s; ns; 'map' (FROM maps pages of\n"      \
	"                  TO where they are), 'copy' (it copies from them) or 'map,copy'.\n"      \
	"                  What is left out is not known, of FLAGS both. '#' begins a\n"           \
	"                  comment\n"

/* Takes the option c ('d', 'v' or 'l') of getopt_long. 0, or TOOL_UNUSABLE after the
 * error was told. */
int tool_devices_option(struct tool_devices *devices, int c, const char *arg);
/* When all options are known: reads the links. 0, or TOOL_UNUSABLE after the error was
 * told. tool_devices_free afterwards, in both cases. */
int tool_devices_links(struct tool_devices *devices);
void tool_devices_free(struct tool_devices *devices);
/* Opens them, with what more options says (devices and links are set here). The
 * library's result; nothing is told. */
int tool_devices_open(const struct tool_devices *devices, struct gpusvm_options *options,
		      struct gpusvm **ret);
/* The links as JSON: from, to, bandwidth_mbps and latency_ns (null: not known), flags. */
json_t *tool_devices_links_json(const struct tool_devices *devices);

#endif
