/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * report.c: the last words of a panic, and warnings. One line to standard
 * error with write(2): no buffer of the application's libc is touched.
 */
#include "host/posix/internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 512u

struct line {
	char text[LINE_MAX_BYTES];
	size_t n;
};

static u64 warnings HOST_STATIC;

static void line_text(struct line *l, const char *s)
{
	size_t n = strlen(s);

	n = host_min(n, sizeof(l->text) - l->n - 1);
	memcpy(l->text + l->n, s, n);
	l->n += n;
}

static void line_number(struct line *l, unsigned v)
{
	char digits[12];
	size_t i = sizeof(digits) - 1;

	digits[i] = '\0';
	do
		digits[--i] = (char)('0' + v % 10);
	while (v /= 10);
	line_text(l, digits + i);
}

static void line_write(struct line *l)
{
	ssize_t written;

	l->text[l->n++] = '\n';
	written = write(STDERR_FILENO, l->text, l->n);
	(void)written; /* there is nowhere else to say it */
}

static void report(const char *kind, const char *what, const char *file, int line)
{
	struct line l = {.n = 0};

	line_text(&l, "gpusvm: ");
	line_text(&l, kind);
	line_text(&l, what);
	line_text(&l, " (");
	line_text(&l, file);
	line_text(&l, ":");
	line_number(&l, (unsigned)line);
	line_text(&l, ")");
	line_write(&l);
}

void report_ranks(const char *what, enum host_lock_rank held, enum host_lock_rank taken)
{
	struct line l = {.n = 0};

	line_text(&l, "gpusvm: lock order: ");
	line_text(&l, what);
	line_text(&l, " (rank held ");
	line_number(&l, held);
	line_text(&l, ", taken ");
	line_number(&l, taken);
	line_text(&l, ")");
	line_write(&l);
}

void host_panic(const char *what, const char *file, int line)
{
	report("panic: ", what, file, line);
	abort();
}

void host_warn(const char *what, const char *file, int line)
{
	host_add_relaxed(&warnings, 1);
	report("warning: ", what, file, line);
}

u64 host_posix_warnings(void)
{
	return host_read_once(&warnings);
}
