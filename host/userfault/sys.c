/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* sys.c: the table of system calls, for the kernel we run on. Calls happen on
 * threads of the library; the descriptors of /proc are set once at open. */
#define _GNU_SOURCE
#include "host/userfault/sys.h"
#include "host/posix/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int maps_fd HOST_STATIC = -1, pagemap_fd HOST_STATIC = -1;
static bool has_query HOST_STATIC, has_scan HOST_STATIC;

static int sys_open(unsigned flags, bool through)
{
	int fd, dev;

	if (!through) {
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
		return fd < 0 ? -errno : fd;
	}
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -errno;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK | flags);
	if (fd < 0)
		fd = -errno;
	close(dev);
	return fd;
}

static int sys_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

static s64 sys_read(int fd, void *buffer, size_t size)
{
	ssize_t n = read(fd, buffer, size);

	return n < 0 ? -errno : n;
}

static int sys_poll(struct pollfd *fds, unsigned n, int timeout_ms)
{
	int r = poll(fds, n, timeout_ms);

	return r < 0 ? -errno : r;
}

static int sys_madvise(u64 start, u64 length, int advice)
{
	return madvise((void *)start, length, advice) < 0 ? -errno : 0;
}

static void sys_close(int fd)
{
	close(fd);
}

static u64 parse_hex(const char **p)
{
	u64 v = 0;

	for (;; (*p)++) {
		char c = **p;

		if (c >= '0' && c <= '9')
			v = v << 4 | (u64)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (u64)(c - 'a' + 10);
		else
			return v;
	}
}

/* One line of /proc/self/maps: start-end rwxp offset major:minor inode ... */
static void parse_maps_line(const char *line, struct userfault_vma *ret)
{
	const char *p = line;
	u64 major, minor;

	*ret = (struct userfault_vma){.page_size = (u32)HOST_PAGE_SIZE};
	ret->start = parse_hex(&p);
	p++;
	ret->end = parse_hex(&p);
	p++;
	ret->read = p[0] == 'r';
	ret->write = p[1] == 'w';
	ret->shared = p[3] == 's';
	p += 5;
	ret->offset = parse_hex(&p);
	p++;
	major = parse_hex(&p);
	p++;
	minor = parse_hex(&p);
	ret->device = major << 32 | minor;
	for (p++; *p >= '0' && *p <= '9'; p++)
		ret->inode = ret->inode * 10 + (u64)(*p - '0');
}

/* Kernels without PROCMAP_QUERY. A read of the file gives whole lines; the
 * mapping wanted is the first that ends behind address. */
static int vma_from_maps(u64 address, struct userfault_vma *ret)
{
	char buffer[4096 + 1];
	size_t have = 0;
	off_t at = 0;

	for (;;) {
		ssize_t n = pread(maps_fd, buffer + have, 4096 - have, at);
		char *line = buffer, *end;

		if (n <= 0)
			return n < 0 ? -errno : -ENOENT;
		at += n;
		have += (size_t)n;
		buffer[have] = 0;
		for (;;) {
			for (end = line; *end && *end != '\n'; end++)
				;
			if (!*end)
				break;
			parse_maps_line(line, ret);
			if (ret->end > address)
				return 0;
			line = end + 1;
		}
		have = (size_t)(buffer + have - line);
		for (size_t i = 0; i < have; i++)
			buffer[i] = line[i];
	}
}

static int sys_vma(u64 address, struct userfault_vma *ret)
{
	struct procmap_query q = {
	    .size = sizeof(q),
	    .query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
	    .query_addr = address,
	};

	if (!has_query)
		return vma_from_maps(address, ret);
	if (ioctl(maps_fd, PROCMAP_QUERY, &q) < 0)
		return -errno;
	*ret = (struct userfault_vma){
	    .start = q.vma_start,
	    .end = q.vma_end,
	    .offset = q.vma_offset,
	    .inode = q.inode,
	    .device = (u64)q.dev_major << 32 | q.dev_minor,
	    .page_size = (u32)q.vma_page_size,
	    .read = q.vma_flags & PROCMAP_QUERY_VMA_READABLE,
	    .write = q.vma_flags & PROCMAP_QUERY_VMA_WRITABLE,
	    .shared = q.vma_flags & PROCMAP_QUERY_VMA_SHARED,
	};
	return 0;
}

static int sys_scan(u64 start, u64 end, u64 mask, struct page_region *ret, unsigned n)
{
	struct pm_scan_arg arg = {
	    .size = sizeof(arg),
	    .start = start,
	    .end = end,
	    .vec = (u64)ret,
	    .vec_len = n,
	    .category_anyof_mask = mask,
	    .return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_PFNZERO | PAGE_IS_HUGE,
	};
	int r;

	if (!has_scan)
		return -EOPNOTSUPP;
	r = ioctl(pagemap_fd, PAGEMAP_SCAN, &arg);
	return r < 0 ? -errno : r;
}

static void sys_copy(u64 to, u64 from, u64 length)
{
	if (from)
		host_memcpy((void *)to, (const void *)from, length);
	else
		host_memset((void *)to, 0, length);
}

static int sys_event(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

static s64 sys_write(int fd, const void *buffer, size_t size)
{
	ssize_t n = write(fd, buffer, size);

	return n < 0 ? -errno : n;
}

static u64 sys_map(u64 at, u64 length)
{
	void *p = mmap((void *)at, length, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0), -1, 0);

	return p == MAP_FAILED ? 0 : (u64)p;
}

static void sys_unmap(u64 start, u64 length)
{
	munmap((void *)start, length);
}

static int sys_protect(u64 start, u64 length, int protection)
{
	return mprotect((void *)start, length, protection) < 0 ? -errno : 0;
}

static int sys_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return -pthread_atfork(prepare, parent, child);
}

struct libc_search {
	unsigned i;
	u64 start, end;
};

/* libc itself, the dynamic linker, or a program that has them linked in. */
static bool is_libc(const struct dl_phdr_info *info)
{
	if (info->dlpi_name && *info->dlpi_name)
		return strstr(info->dlpi_name, "/libc.") || strstr(info->dlpi_name, "/libc-") ||
		       strstr(info->dlpi_name, "/ld-");
	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_INTERP)
			return false;
	return true;
}

static int libc_segment(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct libc_search *search = arg;

	(void)size;
	if (!is_libc(info))
		return 0;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &info->dlpi_phdr[i];

		if (h->p_type != PT_LOAD || !(h->p_flags & PF_W) || search->i--)
			continue;
		search->start = info->dlpi_addr + h->p_vaddr;
		search->end = search->start + h->p_memsz;
		return 1;
	}
	return 0;
}

static bool sys_libc(unsigned i, u64 *start, u64 *end)
{
	struct libc_search search = {.i = i};

	if (dl_iterate_phdr(libc_segment, &search) != 1)
		return false;
	*start = host_align_down(search.start, HOST_PAGE_SIZE);
	*end = host_align_up(search.end, HOST_PAGE_SIZE);
	return true;
}

const struct userfault_sys userfault_sys_here = {
    .open = sys_open,
    .ioctl = sys_ioctl,
    .read = sys_read,
    .poll = sys_poll,
    .madvise = sys_madvise,
    .vma = sys_vma,
    .scan = sys_scan,
    .close = sys_close,
    .copy = sys_copy,
    .event = sys_event,
    .write = sys_write,
    .map = sys_map,
    .unmap = sys_unmap,
    .protect = sys_protect,
    .atfork = sys_atfork,
    .libc = sys_libc,
};

int userfault_sys_init(void)
{
	struct userfault_vma vma;
	struct page_region region;

	userfault_sys_fini();
	maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (maps_fd < 0)
		return -errno;
	pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	has_query = true;
	has_query = sys_vma((u64)&maps_fd, &vma) == 0;
	has_scan = pagemap_fd >= 0;
	has_scan =
	    has_scan && sys_scan(host_align_down((u64)&maps_fd, HOST_PAGE_SIZE),
				 host_align_down((u64)&maps_fd, HOST_PAGE_SIZE) + HOST_PAGE_SIZE,
				 PAGE_IS_PRESENT, &region, 1) >= 0;
	return 0;
}

void userfault_sys_fini(void)
{
	if (maps_fd >= 0)
		close(maps_fd);
	if (pagemap_fd >= 0)
		close(pagemap_fd);
	maps_fd = pagemap_fd = -1;
}

bool userfault_sys_has_query(void)
{
	return has_query;
}

bool userfault_sys_has_scan(void)
{
	return has_scan;
}
