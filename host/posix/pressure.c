/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * pressure.c: how short memory is, by what the kernel says of it. No trigger is set, which
 * would need rights and a thread that polls: the figures are read now and then, while
 * there is something to give back.
 *
 *	memory.pressure  of the control group (version 2), else /proc/pressure/memory:
 *			 microseconds in which some task has waited for memory
 *	memory.events    of the control group: how often its limits `high` and `max` were met
 *
 * Without either only allocations that fail tell. Locking: paths are written once, before
 * `known`; the rest is each shrinker's own.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/posix/shrinker.h"
#include "host/posix/posix.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHORT_PERCENT 10u /* of the time that somebody waits for memory */
#define PATH_BYTES 512u

static struct {
	u32 known;				    /* 0, 1: being found out, 2 */
	char stall[PATH_BYTES], events[PATH_BYTES]; /* "": there is none */
} paths HOST_STATIC;

/* The beginning of a file, as a string; false: it cannot be read. */
static bool read_file(const char *path, char *text, size_t size)
{
	int fd = *path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	if (n < 0)
		return false;
	text[n] = 0;
	return true;
}

static bool join(char *path, const char *group, size_t length, const char *name)
{
	static const char root[] = "/sys/fs/cgroup";
	size_t n = sizeof(root) - 1, m = strlen(name) + 1;

	*path = 0;
	if (n + length + m > PATH_BYTES)
		return false;
	memcpy(path, root, n);
	memcpy(path + n, group, length);
	memcpy(path + n + length, name, m);
	if (access(path, R_OK) == 0)
		return true;
	*path = 0;
	return false;
}

static void find_paths(void)
{
	const char *group = NULL;
	char text[2048];
	size_t length;

	/* Of version 2: "0::/path". The root has no events. */
	text[0] = '\n';
	if (read_file("/proc/self/cgroup", text + 1, sizeof(text) - 1))
		group = strstr(text, "\n0::");
	if (group) {
		group += 4;
		length = strcspn(group, "\n");
		length -= length == 1; /* "/" */
		(void)join(paths.events, group, length, "/memory.events");
		if (join(paths.stall, group, length, "/memory.pressure"))
			return;
	}
	if (read_file("/proc/pressure/memory", text, sizeof(text)))
		strcpy(paths.stall, "/proc/pressure/memory");
}

static void know_paths(void)
{
	u32 none = 0;

	if (host_load_acquire(&paths.known) == 2)
		return;
	if (host_cas(&paths.known, &none, 1)) {
		find_paths();
		host_store_release(&paths.known, 2);
	}
	while (host_load_acquire(&paths.known) != 2)
		host_relax();
}

void pressure_forget(void)
{
	if (paths.known == 1)
		paths.known = 0;
}

void host_posix_pressure_use(const char *stall, const char *events)
{
	strcpy(paths.stall, stall);
	strcpy(paths.events, events);
	host_store_release(&paths.known, stall[0] || events[0] ? 2 : 0);
}

void host_posix_pressure_sources(const char **stall, const char **events)
{
	know_paths();
	*stall = paths.stall;
	*events = paths.events;
}

/* The number behind a word that begins a line or follows a space; 0: there is none. */
static u64 number_behind(const char *text, const char *word)
{
	const char *at = text;
	size_t n = strlen(word);

	while ((at = strstr(at, word)) && at != text && at[-1] != '\n' && at[-1] != ' ')
		at += n;
	return at ? strtoull(at + n, NULL, 10) : 0;
}

bool pressure_look(struct host_shrinker *s)
{
	u64 now = host_now(), before = s->looked_at, stalled = s->stalled, limits = s->limits;
	char text[1024];

	know_paths();
	/* "some avg10=... total=N", then "full ...": the first total. */
	s->stalled = read_file(paths.stall, text, sizeof(text)) ? number_behind(text, "total=") : 0;
	s->limits = read_file(paths.events, text, sizeof(text))
			? number_behind(text, "high ") + number_behind(text, "max ")
			: 0;
	host_write_once(&s->looked_at, now);
	/* What was long ago says nothing of now. */
	if (!before || now - before > 10 * HOST_SEC)
		return false;
	return s->limits > limits ||
	       (s->stalled - stalled) * HOST_USEC * 100 > (now - before) * SHORT_PERCENT;
}

bool pressure_wakes(void)
{
	return true;
}
