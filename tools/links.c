/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* links.c: see the header. No locks. */
#include "tools/links.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS 5u      /* of the longest line */
#define SHOWN_MAX 20u /* bytes of a wrong word that an error shows */

struct word {
	const char *at;
	size_t length;
};

/* Where the parser is. */
struct parse {
	const char *at, *end;
	unsigned n_devices;
	struct word words[WORDS];
	unsigned n_words;	      /* in this line; WORDS + 1: more than WORDS */
	uint64_t seen[LINKS_DEVICES]; /* by from: mask of to */
	struct links links;
	unsigned room; /* in links.list */
	struct links_error *error;
};

static int __attribute__((format(printf, 2, 3))) wrong(struct parse *p, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(p->error->text, sizeof(p->error->text), format, args);
	va_end(args);
	return -EINVAL;
}

/* For "%.*s". */
static int shown(const struct word *word)
{
	return (int)(word->length < SHOWN_MAX ? word->length : SHOWN_MAX);
}

static bool is(const char *at, size_t length, const char *word)
{
	return length == strlen(word) && !memcmp(at, word, length);
}

static int add(struct parse *p, int from, int to, const struct gpusvm_link *link)
{
	struct links *links = &p->links;

	if (links->n == p->room) {
		unsigned room = p->room ? p->room * 2 : 16;
		struct gpusvm_link_desc *list = realloc(links->list, room * sizeof(*list));

		if (!list)
			return -ENOMEM;
		links->list = list;
		p->room = room;
	}
	links->list[links->n++] = (struct gpusvm_link_desc){.from = from, .to = to, .link = *link};
	return 0;
}

/* ---- Words ----------------------------------------------------------------- */

/* The words of the next line, without comment. */
static int next_line(struct parse *p)
{
	const char *end = memchr(p->at, '\n', (size_t)(p->end - p->at)), *text, *c;

	end = end ? end : p->end;
	text = memchr(p->at, '#', (size_t)(end - p->at));
	text = text ? text : end;
	p->error->line++;
	p->n_words = 0;
	if (memchr(p->at, 0, (size_t)(end - p->at)))
		return wrong(p, "this is not text");
	for (c = p->at; c < text && p->n_words <= WORDS;) {
		const char *word = c;

		if (*c == ' ' || *c == '\t' || *c == '\r') {
			c++;
			continue;
		}
		while (c < text && *c != ' ' && *c != '\t' && *c != '\r')
			c++;
		if (p->n_words < WORDS)
			p->words[p->n_words] = (struct word){word, (size_t)(c - word)};
		p->n_words++;
	}
	p->at = end < p->end ? end + 1 : end;
	return 0;
}

static int number(struct parse *p, const struct word *word, const char *what, uint64_t *ret)
{
	*ret = 0;
	for (size_t i = 0; i < word->length; i++) {
		char c = word->at[i];

		if (c < '0' || c > '9')
			return wrong(p, "%s '%.*s': not a number", what, shown(word), word->at);
		if (__builtin_mul_overflow(*ret, (uint64_t)10, ret) ||
		    __builtin_add_overflow(*ret, (uint64_t)(c - '0'), ret) || *ret > INT64_MAX)
			return wrong(p, "%s '%.*s': too large", what, shown(word), word->at);
	}
	return 0;
}

static int device(struct parse *p, const struct word *word, const char *what, int *ret)
{
	uint64_t value;
	int err = number(p, word, what, &value);

	if (err)
		return err;
	if (value >= p->n_devices)
		return wrong(p, "%s '%.*s': there is no such device, only 0 to %u", what,
			     shown(word), word->at, p->n_devices - 1);
	*ret = (int)value;
	return 0;
}

static int flags(struct parse *p, const struct word *word, uint64_t *ret)
{
	const char *at = word->at, *end = at + word->length;

	for (*ret = 0;; at++) {
		const char *comma = memchr(at, ',', (size_t)(end - at));
		size_t length = (size_t)((comma ? comma : end) - at);

		if (is(at, length, "map"))
			*ret |= GPUSVM_LINK_MAP;
		else if (is(at, length, "copy"))
			*ret |= GPUSVM_LINK_COPY;
		else
			return wrong(p, "flags '%.*s': they are of map, copy, with a comma between",
				     shown(word), word->at);
		if (!comma)
			return 0;
		at = comma;
	}
}

/* ---- Links ----------------------------------------------------------------- */

static int parse_link(struct parse *p)
{
	struct gpusvm_link link = {
	    .size = sizeof(link),
	    .flags = GPUSVM_LINK_MAP | GPUSVM_LINK_COPY,
	};
	int err, from, to;

	if (p->n_words < 2 || p->n_words > WORDS)
		return wrong(p, "a link is 'FROM TO [BANDWIDTH [LATENCY [FLAGS]]]', here are %s",
			     p->n_words < 2 ? "less words" : "more words");
	err = device(p, &p->words[0], "from", &from);
	if (!err)
		err = device(p, &p->words[1], "to", &to);
	if (!err && p->n_words > 2)
		err = number(p, &p->words[2], "bandwidth", &link.bandwidth_mbps);
	if (!err && p->n_words > 3)
		err = number(p, &p->words[3], "latency", &link.latency_ns);
	if (!err && p->n_words > 4)
		err = flags(p, &p->words[4], &link.flags);
	if (err)
		return err;
	if (from == to)
		return wrong(p, "a link of device %d to itself", from);
	if (p->seen[from] >> to & 1)
		return wrong(p, "the link from %d to %d is there already", from, to);
	p->seen[from] |= (uint64_t)1 << to;
	return add(p, from, to, &link);
}

int links_parse(const char *text, size_t length, unsigned n_devices, struct links *ret,
		struct links_error *error)
{
	struct parse p = {.at = text, .end = text + length, .n_devices = n_devices, .error = error};
	int err = 0;

	*error = (struct links_error){0};
	while (!err && p.at < p.end) {
		err = next_line(&p);
		if (!err && p.n_words)
			err = parse_link(&p);
	}
	if (err)
		links_free(&p.links);
	else
		*ret = p.links;
	return err;
}

int links_named(const char *name, unsigned n_devices, struct links *ret)
{
	const struct gpusvm_link link = {
	    .size = sizeof(link),
	    .flags = GPUSVM_LINK_MAP | GPUSVM_LINK_COPY,
	};
	bool full = !strcmp(name, "full"), ring = !strcmp(name, "ring");
	struct parse p = {0};
	int n = (int)n_devices, err = 0;

	if (!full && !ring && strcmp(name, "none"))
		return -ENOENT;
	for (int from = 0; !err && from < n; from++)
		for (int to = 0; !err && to < n; to++) {
			bool beside = to == (from + 1) % n || from == (to + 1) % n;

			if (from != to && (full || (ring && beside)))
				err = add(&p, from, to, &link);
		}
	if (err)
		links_free(&p.links);
	else
		*ret = p.links;
	return err;
}

void links_free(struct links *links)
{
	free(links->list);
	*links = (struct links){0};
}
