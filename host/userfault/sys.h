/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * sys.h: every system call of the protocol, behind one table, so that the
 * protocol itself can run over a model of the kernel. All return 0 (or a count)
 * or a negative errno.
 */
#ifndef USERFAULT_SYS_H
#define USERFAULT_SYS_H

#include "host/host.h"
#include "host/userfault/abi.h"

struct pollfd;

struct userfault_vma {
	u64 start, end;
	u64 offset, inode, device; /* identity of what is mapped */
	u32 page_size;
	bool read, write, shared;
};

struct userfault_sys {
	/* A new context; through: by /dev/userfaultfd. */
	int (*open)(unsigned flags, bool through);
	int (*ioctl)(int fd, unsigned long request, void *arg);
	s64 (*read)(int fd, void *buffer, size_t size);
	int (*poll)(struct pollfd *fds, unsigned n, int timeout_ms);
	int (*madvise)(u64 start, u64 length, int advice);
	/* The mapping that holds address, or the next one. -ENOENT: none. */
	int (*vma)(u64 address, struct userfault_vma *ret);
	/* Runs of pages in [start, end) with any of mask; count, or negative. */
	int (*scan)(u64 start, u64 end, u64 mask, struct page_region *ret, unsigned n);
	void (*close)(int fd);
	/* Bytes from pages to pages, of which faults may be served; from 0: zeros. */
	void (*copy)(u64 to, u64 from, u64 length);
	/* An eventfd that does not block; -EMFILE. */
	int (*event)(void);
	s64 (*write)(int fd, const void *buffer, size_t size);
	/* Anonymous private memory that may not be touched; at 0: anywhere, else in place
	 * of what is there. 0: none. */
	u64 (*map)(u64 at, u64 length);
	void (*unmap)(u64 start, u64 length);
	int (*protect)(u64 start, u64 length, int protection);
	/* As pthread_atfork; once and for all. */
	int (*atfork)(void (*prepare)(void), void (*parent)(void), void (*child)(void));
	/* Where libc has its variables: those of the i-th such part. False: no more. NULL:
	 * there is none to look out for. */
	bool (*libc)(unsigned i, u64 *start, u64 *end);
};

/* The kernel that this program runs on; sys.c, or host/model/kernel in its place. */
extern const struct userfault_sys userfault_sys_here;
/* Opens what vma and scan read; closed by fini. In a child: anew. */
int userfault_sys_init(void);
void userfault_sys_fini(void);
bool userfault_sys_has_query(void);
bool userfault_sys_has_scan(void);

#endif
