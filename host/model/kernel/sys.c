/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sys.c: the table of system calls of host/userfault/sys.h over the model, in place of
 * host/userfault/sys.c.
 */
#define _GNU_SOURCE
#include "host/model/kernel/internal.h"

#include <poll.h>
#include <string.h>
#include <sys/mman.h>

/* Addresses of mappings that the library makes; only ever named, not touched. */
#define MAP_BASE (KERNEL_USER_BASE + ((u64)1 << 40))
#define MAP_LARGEST ((u64)2 << 30)

static int sys_open(unsigned flags, bool through)
{
	step();
	return through ? -ENOENT : context_open(flags);
}

static int sys_ioctl(int fd, unsigned long request, void *arg)
{
	struct context *c = context_of(fd);

	return c ? context_ioctl(c, request, arg) : -EBADF;
}

static u64 *eventfd_of(int fd)
{
	reads(&kernel.eventfd_used);
	if (fd < FD_EVENT || fd >= FD_EVENT + (int)EVENTFDS || !kernel.eventfd_used[fd - FD_EVENT])
		return NULL;
	return &kernel.eventfd[fd - FD_EVENT];
}

static int sys_event(void)
{
	writes(&kernel.eventfd_used);
	for (u32 i = 0; i < EVENTFDS; i++)
		if (!kernel.eventfd_used[i]) {
			kernel.eventfd_used[i] = true;
			kernel.eventfd[i] = 0;
			return FD_EVENT + (int)i;
		}
	return -EMFILE;
}

static s64 sys_read(int fd, void *buffer, size_t size)
{
	struct context *c = context_of(fd);
	u64 *count = eventfd_of(fd);

	if (c)
		return context_read(c, buffer, size);
	if (!count || size < sizeof(*count))
		return count ? -EINVAL : -EBADF;
	step();
	writes(count);
	if (!*count)
		return -EAGAIN;
	memcpy(buffer, count, sizeof(*count));
	*count = 0;
	return sizeof(*count);
}

static s64 sys_write(int fd, const void *buffer, size_t size)
{
	u64 *count = eventfd_of(fd), more;

	if (!count || size < sizeof(more))
		return count ? -EINVAL : -EBADF;
	step();
	memcpy(&more, buffer, sizeof(more));
	writes(count);
	*count += more;
	host_wake_all(&kernel.pollers);
	return sizeof(more);
}

static bool readable(int fd)
{
	const struct context *c = context_of(fd);
	const u64 *count = eventfd_of(fd);

	if (c)
		return context_readable(c);
	if (count)
		reads(count);
	return count && *count;
}

static unsigned poll_look(struct pollfd *fds, unsigned n)
{
	unsigned ready = 0;

	for (unsigned i = 0; i < n; i++) {
		fds[i].revents = fds[i].fd >= 0 && readable(fds[i].fd) ? POLLIN : 0;
		ready += fds[i].revents != 0;
	}
	return ready;
}

static int sys_poll(struct pollfd *fds, unsigned n, int timeout_ms)
{
	u64 deadline = timeout_ms < 0 ? HOST_FOREVER : host_now() + (u64)timeout_ms * HOST_MSEC;

	step();
	(void)kernel_wait_on(&kernel.pollers, poll_look(fds, n) != 0, deadline);
	return (int)poll_look(fds, n);
}

static void sys_close(int fd)
{
	struct context *c = context_of(fd);

	step();
	if (c)
		context_close(c);
	else if (eventfd_of(fd)) {
		writes(&kernel.eventfd_used);
		kernel.eventfd_used[fd - FD_EVENT] = false;
	}
}

static void sys_copy(u64 to, u64 from, u64 length)
{
	for (u64 at = 0; at < length; at += HOST_PAGE_SIZE) {
		u8 bytes[KERNEL_BYTES] = {0}, *p;

		step();
		if (from) {
			p = kernel_touch((const void *)(uintptr_t)(from + at), false);
			HOST_CHECK(p);
			memcpy(bytes, p, sizeof(bytes));
		}
		p = kernel_touch((const void *)(uintptr_t)(to + at), true);
		HOST_CHECK(p);
		memcpy(p, bytes, sizeof(bytes));
	}
}

static u64 sys_map(u64 at, u64 length)
{
	if (!at) {
		if (length > MAP_LARGEST)
			return 0;
		writes(&kernel.alloc_next);
		at = MAP_BASE + kernel.alloc_next;
		kernel.alloc_next += length;
	}
	return kernel_mmap(at, length, 0) ? 0 : at;
}

static void sys_unmap(u64 start, u64 length)
{
	if (length)
		(void)kernel_munmap(start, length);
}

static int sys_protect(u64 start, u64 length, int protection)
{
	return kernel_mprotect(start, length,
			       (protection & PROT_READ ? KERNEL_READ : 0) |
				   (protection & PROT_WRITE ? KERNEL_WRITE : 0));
}

static int sys_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	/* A child runs nothing of the library (kernel_fork); but see kernel_abandon. */
	kernel.child = child;
	kernel.prepare = prepare;
	kernel.parent = parent;
	return 0;
}

const struct userfault_sys userfault_sys_here = {
    .open = sys_open,
    .ioctl = sys_ioctl,
    .read = sys_read,
    .poll = sys_poll,
    .madvise = kernel_madvise,
    .vma = scan_vma,
    .scan = scan_pages,
    .close = sys_close,
    .copy = sys_copy,
    .event = sys_event,
    .write = sys_write,
    .map = sys_map,
    .unmap = sys_unmap,
    .protect = sys_protect,
    .atfork = sys_atfork,
};

int userfault_sys_init(void)
{
	return 0;
}

void userfault_sys_fini(void)
{
}

bool userfault_sys_has_query(void)
{
	return true;
}

bool userfault_sys_has_scan(void)
{
	return true;
}
