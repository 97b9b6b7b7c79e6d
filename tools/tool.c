/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* tool.c: errors, numbers and output that the subcommands share. No locks. */
#include "tools/tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool progress_shown;

int tool_error(const char *format, ...)
{
	va_list args;

	tool_progress_end();
	fputs("gpusvm: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return TOOL_UNUSABLE;
}

int tool_no_memory(const char *for_what)
{
	return tool_error("too little memory for %s", for_what);
}

int tool_open_error(int error, uint64_t vram)
{
	switch (error) {
	case -EINVAL: /* of what can be asked for here, only a size can be too much */
	case -ENOMEM:
		return vram ? tool_error("too little memory for a device with %" PRIu64 " MiB",
					 vram >> 20) :
			      tool_no_memory("a device");
	case -EPERM:
	case -ENOSYS:
		return tool_error("there is no usable userfaultfd here; 'gpusvm info' says why");
	default:
		return tool_error("cannot open the devices: %s", strerror(-error));
	}
}

bool tool_parse_number(const char *text, uint64_t *ret)
{
	uint64_t value = 0;

	if (!*text)
		return false;
	for (; *text; text++)
		if (*text < '0' || *text > '9' ||
		    __builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
			return false;
	*ret = value;
	return true;
}

bool tool_parse_size(const char *text, uint64_t *ret)
{
	static const char units[] = "KMGT";
	size_t length = strlen(text);
	char digits[24];
	const char *unit = length ? strchr(units, text[length - 1]) : NULL;
	unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;

	length -= unit ? 1 : 0;
	if (length >= sizeof(digits))
		return false;
	memcpy(digits, text, length);
	digits[length] = 0;
	if (!tool_parse_number(digits, ret) || *ret > UINT64_MAX >> shift)
		return false;
	*ret <<= shift;
	return true;
}

uint64_t tool_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void tool_progress(const char *format, ...)
{
	va_list args;

	if (!isatty(STDERR_FILENO))
		return;
	progress_shown = true;
	fputs("\r\033[K", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fflush(stderr);
}

void tool_progress_end(void)
{
	if (progress_shown)
		fputs("\r\033[K", stderr);
	progress_shown = false;
}

json_t *tool_text(const char *text)
{
	json_t *whole = json_string(text);
	char *copy;

	if (whole)
		return whole;
	copy = strdup(text);
	for (char *at = copy; at && *at; at++)
		if ((unsigned char)*at >= 0x80)
			*at = '?';
	whole = json_string(copy ? copy : "");
	free(copy);
	return whole;
}

void tool_print_json(json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(json);
}

/* splitmix64: one addition, two multiplications, passes the usual batteries. */
uint64_t tool_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}
