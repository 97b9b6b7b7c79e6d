/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * links.h: which devices are linked, as 'full', 'ring', 'none' or a text says.
 * Works on memory only: reads no file and prints nothing. No locks.
 *
 * The text, line by line:
 *	FROM TO [BANDWIDTH [LATENCY [FLAGS]]]
 * The way of device FROM to the memory of device TO; the way back is a line of its
 * own. BANDWIDTH in MB/s and LATENCY in ns are decimal numbers below 2^63, 0 where they
 * are not known, which is what they are when left out. FLAGS is 'map' (FROM may map pages
 * of TO where they are), 'copy' (it may copy from them), or both with a comma
 * between, which is what it is when left out. Blanks or tabs stand between; '#'
 * begins a comment; empty lines count for nothing.
 */
#ifndef GPUSVM_TOOL_LINKS_H
#define GPUSVM_TOOL_LINKS_H

#include <stddef.h>
#include <stdint.h>

#include <gpusvm/gpusvm.h>

#define LINKS_DEVICES 64u /* more than that one handle never has */

struct links {
	struct gpusvm_link_desc *list; /* n of them, in the text's order; malloc'd */
	unsigned n;
};

struct links_error {
	size_t line; /* from 1 */
	char text[128];
};

/* Reads length bytes of text, which need not end with a zero. At most LINKS_DEVICES
 * devices, numbered from 0.
 *   -EINVAL  *error says where and why: too few or too many words, not a number, a
 *            number that is too large, a device that there is not, a link of a device
 *            to itself, the same link twice, an unknown flag, a byte 0
 *   -ENOMEM
 * *ret is written on success, and links_free's to free. */
int links_parse(const char *text, size_t length, unsigned n_devices, struct links *ret,
		struct links_error *error);
/* 'full': each device to each other; 'ring': each to the next and the one before,
 * the last one's next is the first; 'none'. Bandwidth and latency are not known.
 *   -ENOENT  another name
 *   -ENOMEM */
int links_named(const char *name, unsigned n_devices, struct links *ret);
void links_free(struct links *links);

#endif
