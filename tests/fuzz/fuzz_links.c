/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fuzz_links.c: the reader of links. The first byte says how many devices there are. What
 * is read must be links between those devices, each once, and the same when it is written
 * and read again; what is not must be told by a line that the text has.
 */
#include "tests/fuzz/fuzz.h"
#include "tools/links.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE 80u /* bytes that a link takes, written, at most */

static void check_links(const struct links *links, unsigned n_devices)
{
	static bool seen[LINKS_DEVICES][LINKS_DEVICES];

	memset(seen, 0, sizeof(seen));
	for (unsigned i = 0; i < links->n; i++) {
		const struct gpusvm_link_desc *d = &links->list[i];

		must(d->from >= 0 && d->to >= 0 && d->from != d->to);
		must((unsigned)d->from < n_devices && (unsigned)d->to < n_devices);
		must(!seen[d->from][d->to]);
		seen[d->from][d->to] = true;
		must(d->link.flags && !(d->link.flags & ~(GPUSVM_LINK_MAP | GPUSVM_LINK_COPY)));
	}
}

static void check_again(const struct links *links, unsigned n_devices)
{
	char *text = malloc(links->n * LINE + 1), *at = text;
	struct links again = {0};
	struct links_error error;

	must(text);
	for (unsigned i = 0; i < links->n; i++) {
		const struct gpusvm_link_desc *d = &links->list[i];
		bool map = d->link.flags & GPUSVM_LINK_MAP, copy = d->link.flags & GPUSVM_LINK_COPY;

		at += snprintf(at, LINE, "%d %d %" PRIu64 " %" PRIu64 " %s%s%s\n", d->from, d->to,
			       d->link.bandwidth_mbps, d->link.latency_ns, map ? "map" : "",
			       map && copy ? "," : "", copy ? "copy" : "");
	}
	must(links_parse(text, (size_t)(at - text), n_devices, &again, &error) == 0);
	must(again.n == links->n);
	for (unsigned i = 0; i < links->n; i++)
		must(!memcmp(&again.list[i], &links->list[i], sizeof(again.list[i])));
	links_free(&again);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned n_devices = size ? data[0] % (LINKS_DEVICES + 1) : 0;
	const char *text = (const char *)data + !!size;
	struct links links = {0};
	struct links_error error = {0};
	size_t length = size - !!size, lines = 1;
	int err = links_parse(text, length, n_devices, &links, &error);

	if (err) {
		for (size_t i = 0; i < length; i++)
			lines += text[i] == '\n';
		must(err == -EINVAL && error.line >= 1 && error.line <= lines);
		must(error.text[0] && memchr(error.text, 0, sizeof(error.text)));
		must(!links.n && !links.list);
		return 0;
	}
	check_links(&links, n_devices);
	check_again(&links, n_devices);
	links_free(&links);
	return 0;
}
