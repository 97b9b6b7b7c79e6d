/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fd.c: descriptors that stand for a device's memory.
 *
 * One is the reading end of a pipe of its own. The library keeps the writing end, by
 * which it tells three things that a number alone would not:
 *   - what a descriptor stands for: both ends are one inode, whose number is not given
 *     to another as long as the writing end is open. So duplicates, and those that a
 *     socket brought, are known, and whatever else the process has open is not.
 *   - when the last one was closed: the writing end then polls as an error, also where a
 *     child had one. Looked at before one is made, and when a device goes.
 *   - to those who hold one, that it is dead: they poll a hangup, once the library has
 *     closed its end, at unbinding or closing.
 * Each keeps its pagemap.
 *
 * Locking: fd_lock, taken by threads of the application only, over the list; outside of
 * it, from a pipe's making until it is in the list, svm->lock, which a fork holds too: a
 * forked child finds its copies of all writing ends there, to close them. Nothing else is
 * used there. Entries are made and freed by threads of the library, as all memory.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

struct fd_entry {
	struct fd_entry *next;
	struct gpusvm_pagemap *pagemap; /* a reference is held */
	u64 dev, ino;
	int keep; /* the writing end */
	int device;
};

/* ---- The library's world ------------------------------------------------------- */

static int hold_call(struct gpusvm_event *event)
{
	struct fd_entry *entry = host_alloc_zeroed(sizeof(*entry));
	int err;

	if (!entry)
		return -ENOMEM;
	err = gpusvm_driver_pagemap_get(event->svm->driver, event->device, &entry->pagemap);
	if (err) {
		host_free(entry);
		return err;
	}
	entry->device = event->device;
	event->u.p = entry;
	return 0;
}

static int drop_call(struct gpusvm_event *event)
{
	struct fd_entry *entry = event->u.p, *next;

	for (; entry; entry = next) {
		next = entry->next;
		gpusvm_pagemap_put(entry->pagemap);
		host_free(entry);
	}
	return 0;
}

/* Application's world, with no lock. */
static void drop(struct gpusvm *svm, struct fd_entry *list)
{
	struct gpusvm_event *event;

	if (!list)
		return;
	event = event_new_wait(svm);
	event->u.p = list;
	call_post(event, drop_call, TASK_QUICK);
	event_finish(event);
}

/* ---- The application's world ------------------------------------------------------ */

static bool is_file(int fd, u64 dev, u64 ino)
{
	struct stat st;

	return !fstat(fd, &st) && (u64)st.st_dev == dev && (u64)st.st_ino == ino;
}

/* Has anyone the other end? False, too, if the process has closed ours. */
static bool is_open(const struct fd_entry *entry)
{
	struct pollfd ours = {.fd = entry->keep};

	if (!is_file(entry->keep, entry->dev, entry->ino))
		return false;
	return poll(&ours, 1, 0) == 0 || !(ours.revents & POLLERR);
}

static void close_ours(const struct fd_entry *entry)
{
	if (is_file(entry->keep, entry->dev, entry->ino))
		close(entry->keep);
}

/* Takes those out that nobody has any more, and all of a device's (-1: of all devices'),
 * and closes our ends. fd_lock held. */
static struct fd_entry *take(struct gpusvm *svm, bool all, int device)
{
	struct fd_entry **link = &svm->fds, *entry, *taken = NULL;

	while ((entry = *link)) {
		bool goes = all && (device == -1 || device == entry->device);

		if (!goes && is_open(entry)) {
			link = &entry->next;
			continue;
		}
		*link = entry->next;
		close_ours(entry);
		entry->next = taken;
		taken = entry;
	}
	return taken;
}

static void forget(struct gpusvm *svm, bool all, int device)
{
	struct fd_entry *taken = NULL;
	int saved = errno;

	host_mutex_lock(&svm->fd_lock);
	if (svm->fds)
		taken = take(svm, all, device);
	host_mutex_unlock(&svm->fd_lock);
	drop(svm, taken);
	errno = saved;
}

void fds_forget(struct gpusvm *svm, int device)
{
	forget(svm, true, device);
}

void fds_child(struct gpusvm *svm)
{
	int saved = errno;

	for (struct fd_entry *entry = svm->fds; entry; entry = entry->next)
		close_ours(entry);
	errno = saved;
}

int fd_device(struct gpusvm *svm, int fd, int *ret)
{
	int saved = errno, err = -ENODEV;
	struct fd_entry *entry;
	struct stat st;

	if (fstat(fd, &st) || !S_ISFIFO(st.st_mode)) {
		errno = saved;
		return -ENODEV;
	}
	host_mutex_lock(&svm->fd_lock);
	for (entry = svm->fds; entry && err; entry = entry->next)
		if (entry->ino == (u64)st.st_ino && entry->dev == (u64)st.st_dev) {
			*ret = entry->device;
			err = 0;
		}
	host_mutex_unlock(&svm->fd_lock);
	errno = saved;
	return err ? err : device_check(svm, *ret);
}

/* A pipe for an entry: the end to be given away, or negative. svm->lock held. */
static int make_pipe(struct fd_entry *entry)
{
	struct stat st;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	if (fstat(ends[0], &st)) {
		int err = -errno;

		close(ends[0]);
		close(ends[1]);
		return err;
	}
	entry->dev = (u64)st.st_dev;
	entry->ino = (u64)st.st_ino;
	entry->keep = ends[1];
	return ends[0];
}

int gpusvm_pagemap_fd(struct gpusvm *svm, int device, unsigned region)
{
	struct gpusvm_event *event;
	struct fd_entry *entry;
	int saved = errno, fd, err = svm_check(svm);

	if (!err)
		err = device_check(svm, device);
	if (!err && region)
		err = -EINVAL;
	if (err)
		return err;
	forget(svm, false, 0);
	event = event_new(svm);
	if (!event)
		return -ENOMEM;
	event->device = device;
	err = call(event, hold_call, TASK_QUICK);
	entry = event->u.p;
	event_put(event);
	if (err)
		return err;
	host_mutex_lock(&svm->lock);
	fd = make_pipe(entry);
	errno = saved;
	if (fd >= 0) {
		host_mutex_lock(&svm->fd_lock);
		entry->next = svm->fds;
		svm->fds = entry;
		host_mutex_unlock(&svm->fd_lock);
	}
	host_mutex_unlock(&svm->lock);
	if (fd < 0) {
		drop(svm, entry);
		return fd;
	}
	/* It may have been unbound meanwhile, and missed this one. */
	if (device_check(svm, device))
		forget(svm, true, device);
	return fd;
}
