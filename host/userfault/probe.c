/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * probe.c: what this kernel has, never which version it is. UFFDIO_API works
 * once for each descriptor: a throwaway one is asked for everything there is,
 * a second one is opened with what will be used.
 */
#define _GNU_SOURCE
#include "host/userfault/probe.h"

#include <stdio.h>
#include <string.h>

#define EVENTS (UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)
#define WANTED (EVENTS | UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON)

static int api(const struct userfault_sys *sys, int fd, u64 features, struct uffdio_api *ret)
{
	*ret = (struct uffdio_api){.api = UFFD_API, .features = features};
	return sys->ioctl(fd, UFFDIO_API, ret);
}

/* No lack of a right or of a feature, but of something that may be had another time. */
static bool is_short(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM;
}

/* The system call, or else the device node. What either is short of is said rather than
 * what the other lacks; and that there is no such call, rather than that there is no node. */
static int open_either(const struct userfault_sys *sys, u32 without, unsigned flags,
		       struct userfault_info *info)
{
	int call = -EPERM, node;

	info->through_device = false;
	if (!(without & USERFAULT_WITHOUT_SYSCALL))
		call = sys->open(flags, false);
	if (call >= 0 || is_short(call))
		return call;
	info->through_device = true;
	node = sys->open(flags, true);
	return node == -ENOENT && call == -ENOSYS ? call : node;
}

/* With kernel faults or without. */
static int open_any(const struct userfault_sys *sys, u32 without, struct userfault_info *info)
{
	int fd;

	if (!(without & USERFAULT_WITHOUT_KERNEL_FAULTS)) {
		info->kernel_faults = true;
		fd = open_either(sys, without, 0, info);
		if (fd >= 0 || is_short(fd))
			return fd;
	}
	info->kernel_faults = false;
	return open_either(sys, without, UFFD_USER_MODE_ONLY, info);
}

static int explain(struct userfault_info *info, int error)
{
	if (is_short(error)) {
		snprintf(info->error, sizeof(info->error), "userfaultfd is not to be had now: %s",
			 strerror(-error));
		return error;
	}
	snprintf(info->error, sizeof(info->error),
		 "userfaultfd is not to be had (error %d): set the sysctl "
		 "vm.unprivileged_userfaultfd=1, or run with the capability CAP_SYS_PTRACE, or "
		 "make the device node /dev/userfaultfd readable and writable for this user",
		 -error);
	return error == -ENOSYS ? -ENOSYS : -EPERM;
}

static void tell_features(u64 features, u32 without, struct userfault_info *info)
{
	info->features = features;
	/* What a MOVE that failed has done can only be seen by PAGEMAP_SCAN. */
	info->move = features & UFFD_FEATURE_MOVE && !(without & USERFAULT_WITHOUT_MOVE) &&
		     info->pagemap_scan;
	info->event_fork =
	    features & UFFD_FEATURE_EVENT_FORK && !(without & USERFAULT_WITHOUT_EVENT_FORK);
	info->event_remap = features & UFFD_FEATURE_EVENT_REMAP;
	info->event_remove = features & UFFD_FEATURE_EVENT_REMOVE;
	info->event_unmap = features & UFFD_FEATURE_EVENT_UNMAP;
	info->poison = features & UFFD_FEATURE_POISON;
	info->wp_async = features & UFFD_FEATURE_WP_ASYNC;
}

static void tell_caps(struct userfault_info *info)
{
	bool all = info->move && info->event_fork && info->kernel_faults;

	info->caps = MM_CAP_EVENTS | MM_CAP_REMAP | MM_CAP_NO_DMA | MM_CAP_EXCLUSIVE |
		     (all ? MM_CAP_ANY_MEMORY : 0) |
		     (info->kernel_faults && info->move ? MM_CAP_KERNEL_ACCESS : 0) |
		     (info->event_fork ? MM_CAP_FORK : 0) | (info->move ? MM_CAP_HUGE : 0);
}

/* EVENT_FORK needs a capability of its own: asking for it may be refused where
 * everything else is given. */
static u64 features_of(u64 offered, u32 without)
{
	u64 features = offered & WANTED;

	if (without & USERFAULT_WITHOUT_MOVE)
		features &= ~(u64)UFFD_FEATURE_MOVE;
	if (without & USERFAULT_WITHOUT_EVENT_FORK)
		features &= ~(u64)UFFD_FEATURE_EVENT_FORK;
	return features;
}

int userfault_open_context(const struct userfault_sys *sys, u32 without,
			   struct userfault_info *info)
{
	struct uffdio_api offered, got;
	u64 features;
	int fd, r;

	host_memset(info, 0, sizeof(*info));
	fd = open_any(sys, without, info);
	if (fd < 0)
		return explain(info, fd);
	r = api(sys, fd, 0, &offered);
	sys->close(fd);
	if (r)
		return explain(info, r);
	if ((offered.features & EVENTS) != EVENTS) {
		snprintf(info->error, sizeof(info->error),
			 "this kernel's userfaultfd does not tell of unmapped memory "
			 "(UFFD_FEATURE_EVENT_UNMAP, REMAP and REMOVE are needed)");
		return -EOPNOTSUPP;
	}
	features = features_of(offered.features, without);
	for (;;) {
		fd = open_any(sys, without, info);
		if (fd < 0)
			return explain(info, fd);
		r = api(sys, fd, features, &got);
		if (!r)
			break;
		sys->close(fd);
		if (r != -EPERM || !(features & UFFD_FEATURE_EVENT_FORK))
			return explain(info, r);
		features &= ~(u64)UFFD_FEATURE_EVENT_FORK;
		without |= USERFAULT_WITHOUT_EVENT_FORK;
	}
	info->ioctls = got.ioctls;
	info->pagemap_scan = userfault_sys_has_scan();
	tell_features(offered.features, without, info);
	info->procmap_query = userfault_sys_has_query();
	tell_caps(info);
	return fd;
}

int userfault_open_watch(const struct userfault_sys *sys, const struct userfault_info *info)
{
	struct uffdio_api got;
	int fd;

	if (!info->wp_async)
		return -EOPNOTSUPP;
	fd = sys->open(info->kernel_faults ? 0 : UFFD_USER_MODE_ONLY, info->through_device);
	if (fd < 0)
		return fd;
	if (api(sys, fd, EVENTS | UFFD_FEATURE_WP_ASYNC, &got)) {
		sys->close(fd);
		return -EOPNOTSUPP;
	}
	return fd;
}

int userfault_open_probe(const struct userfault_sys *sys, const struct userfault_info *info)
{
	struct uffdio_api got;
	int fd = sys->open(info->kernel_faults ? 0 : UFFD_USER_MODE_ONLY, info->through_device);

	if (fd >= 0 && api(sys, fd, 0, &got)) {
		sys->close(fd);
		return -EOPNOTSUPP;
	}
	return fd;
}

int userfault_probe(u32 without, struct userfault_info *ret)
{
	int fd;

	if (the_mm) {
		userfault_info_get(the_mm, ret);
		if (the_mm->without == without)
			return 0;
	} else {
		(void)userfault_sys_init();
	}
	fd = userfault_open_context(&userfault_sys_here, without, ret);
	if (fd >= 0)
		userfault_sys_here.close(fd);
	if (!the_mm)
		userfault_sys_fini();
	return fd < 0 ? fd : 0;
}
