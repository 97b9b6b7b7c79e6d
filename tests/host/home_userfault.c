/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* home_userfault.c: this very process as the home under test. */
#define _GNU_SOURCE
#include "tests/host/home.h"

#include "host/posix/posix.h"
#include "host/userfault/bus.h"
#include "host/userfault/userfault.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

const char *const home_name = "userfault";
static u64 warnings; /* when the home was opened */

struct mm *home_open(const char **why)
{
	static struct userfault_info info;
	struct mm *home;
	int err = userfault_probe(0, &info);

	warnings = host_posix_warnings();
	*why = info.error;
	if (err)
		return NULL;
	*why = "no memory";
	if (host_arena_open((u64)4 << 30))
		return NULL;
	if (host_work_start() || userfault_open(0, NULL, &home))
		return NULL;
	return home;
}

const char *home_close(struct mm *home)
{
	userfault_close(home);
	host_work_stop();
	return host_arena_close() ? "memory of the arena is left" : NULL;
}

const char *home_check(struct mm *home)
{
	(void)home;
	return host_posix_warnings() != warnings ? "the home has warned" : NULL;
}

void home_catch(void)
{
	bus_init();
}

static int protections(u32 flags)
{
	return (flags & HOME_READ ? PROT_READ : 0) | (flags & HOME_WRITE ? PROT_WRITE : 0);
}

static int map_file(u64 start, u64 end, u32 flags)
{
	char name[] = "/tmp/gpusvm-test-XXXXXX";
	int fd = mkstemp(name), err = 0;

	if (fd < 0)
		return -errno;
	unlink(name);
	if (ftruncate(fd, (off_t)(end - start)) ||
	    mmap((void *)start, end - start, protections(flags), MAP_PRIVATE | MAP_FIXED, fd, 0) ==
		MAP_FAILED)
		err = -errno;
	close(fd);
	return err;
}

int home_mmap(struct mm *home, u64 start, u64 end, u32 flags)
{
	int how = MAP_ANONYMOUS | MAP_FIXED | (flags & HOME_SHARED ? MAP_SHARED : MAP_PRIVATE);

	(void)home;
	if (flags & HOME_FILE)
		return map_file(start, end, flags);
	if (mmap((void *)start, end - start, protections(flags), how, -1, 0) == MAP_FAILED)
		return -errno;
	if (!(flags & HOME_SHARED))
		(void)madvise((void *)start, end - start,
			      flags & HOME_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return 0;
}

int home_munmap(struct mm *home, u64 start, u64 end)
{
	(void)home;
	return munmap((void *)start, end - start) ? -errno : 0;
}

int home_mremap(struct mm *home, u64 start, u64 end, u64 to, bool dontunmap)
{
	void *p =
	    mremap((void *)start, end - start, end - start,
		   MREMAP_MAYMOVE | MREMAP_FIXED | (dontunmap ? MREMAP_DONTUNMAP : 0), (void *)to);

	(void)home;
	return p == MAP_FAILED ? -errno : 0;
}

int home_mprotect(struct mm *home, u64 start, u64 end, u32 flags)
{
	(void)home;
	return mprotect((void *)start, end - start, protections(flags)) ? -errno : 0;
}

int home_dontneed(struct mm *home, u64 start, u64 end)
{
	(void)home;
	return madvise((void *)start, end - start, MADV_DONTNEED) ? -errno : 0;
}

int home_fork(struct mm *home, u64 address, void *buffer, u64 length)
{
	/* Shared with the child, and not watched by the home. */
	void *shared =
	    mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status, err = 0;
	pid_t pid;

	(void)home;
	if (shared == MAP_FAILED)
		return -errno;
	pid = fork();
	if (pid == 0) {
		memcpy(shared, (void *)address, length);
		memset((void *)address, 0xff, length);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		err = -EIO;
	memcpy(buffer, shared, length);
	munmap(shared, length);
	return err;
}

/* Through the guard, so that SIGSEGV and SIGBUS are results. */
struct access {
	void *to;
	const void *from;
	u64 address, length;
	bool write;
};

static void access_guarded(void *arg)
{
	struct access *a = arg;

	if (mm_bus_begin(a->address, a->length, a->write))
		memcpy(a->to, a->from, a->length);
	mm_bus_end();
}

int home_load(struct mm *home, u64 address, void *buffer, u64 length)
{
	struct access a = {buffer, (const void *)address, address, length, false};
	u64 where;

	(void)home;
	return mm_bus_guard(access_guarded, &a, &where);
}

int home_store(struct mm *home, u64 address, const void *buffer, u64 length)
{
	struct access a = {(void *)address, buffer, address, length, true};
	u64 where;

	(void)home;
	return mm_bus_guard(access_guarded, &a, &where);
}

int home_add(struct mm *home, u64 address, u64 operand)
{
	(void)home;
	__atomic_add_fetch((u64 *)address, operand, __ATOMIC_SEQ_CST);
	return 0;
}

int home_pin(struct mm *home, u64 address, void **pin)
{
	struct io_uring_params params = {0};
	struct iovec v = {(void *)host_align_down(address, HOST_PAGE_SIZE), HOST_PAGE_SIZE};
	long ring = syscall(SYS_io_uring_setup, 4, &params);

	(void)home;
	if (ring < 0)
		return -EOPNOTSUPP;
	if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &v, 1)) {
		close((int)ring);
		return -EOPNOTSUPP;
	}
	*pin = (void *)(ring + 1);
	return 0;
}

void home_unpin(void *pin)
{
	close((int)((long)pin - 1));
}

int home_reap(struct mm *home, u64 start, u64 end)
{
	(void)home;
	(void)start;
	(void)end;
	return -EOPNOTSUPP; /* the kernel's reaper ends this process */
}

int home_exit(struct mm *home)
{
	(void)home;
	return -EOPNOTSUPP; /* it ends with the process */
}
