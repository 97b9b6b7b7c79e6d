/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bench_fault.c: figures of faults, of the CPU and of the device.
 *
 * The CPU's are held against a userfaultfd of the bench's own: a thread that
 * polls, reads and copies, over memory that the library never sees. It ends
 * when the other end of a pipe is closed; no locks.
 */
#include "tools/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TOUCHES 128u
#define TOUCHES_LEAST 16u /* where much comes home with each */
#define RANGES 64u

/* ---- CPU faults ----------------------------------------------------------- */

struct bare {
	int fd, pipe[2];
	pthread_t thread;
	bool running;
	char *memory, *page;
};

static int open_userfaultfd(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), device;

	if (fd >= 0)
		return fd;
	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device >= 0) {
		fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		close(device);
	}
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd,
				  O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	return fd;
}

static void *serve(void *arg)
{
	struct bare *bare = arg;
	struct pollfd polled[2] = { { .fd = bare->fd, .events = POLLIN },
				    { .fd = bare->pipe[0] } };
	struct uffd_msg message;

	while (poll(polled, 2, -1) >= 0 && !polled[1].revents) {
		struct uffdio_copy copy = { .src = (uintptr_t)bare->page, .len = BENCH_PAGE };

		if (read(bare->fd, &message, sizeof(message)) != sizeof(message))
			continue;
		copy.dst = message.arg.pagefault.address & ~(uint64_t)(BENCH_PAGE - 1);
		ioctl(bare->fd, UFFDIO_COPY, &copy);
	}
	return NULL;
}

static int prepare_bare(struct bench *b)
{
	struct bare *bare = calloc(1, sizeof(*bare));
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	b->state = bare;
	if (!bare)
		return -ENOMEM;
	bare->pipe[0] = bare->pipe[1] = -1;
	bare->fd = open_userfaultfd();
	bare->memory = bench_map(BENCH_MEMORY, false);
	bare->page = bench_map(BENCH_HUGE, false);
	if (bare->fd < 0 || ioctl(bare->fd, UFFDIO_API, &api))
		return -errno;
	if (!bare->memory || !bare->page)
		return -ENOMEM;
	memset(bare->page, 3, BENCH_PAGE);
	area.range.start = (uintptr_t)bare->memory;
	area.range.len = BENCH_MEMORY;
	if (ioctl(bare->fd, UFFDIO_REGISTER, &area) || pipe(bare->pipe))
		return -errno;
	bare->running = !pthread_create(&bare->thread, NULL, serve, bare);
	return bare->running ? 0 : -EAGAIN;
}

static void clean_bare(struct bench *b)
{
	struct bare *bare = b->state;

	if (!bare)
		return;
	close(bare->pipe[1]); /* the thread sees it hang up */
	if (bare->running)
		pthread_join(bare->thread, NULL);
	close(bare->pipe[0]);
	close(bare->fd);
	bench_unmap(bare->memory, BENCH_MEMORY);
	bench_unmap(bare->page, BENCH_HUGE);
	free(bare);
}

/* Touches pages at random; the median time of those that are there to be
 * fetched, by pages (NULL: all are). */
static int touch(struct bench *b, char *memory, const struct gpusvm_page_info *pages, double *ret)
{
	double times[TOUCHES];
	unsigned n = 0;

	for (unsigned tries = 0; n < TOUCHES && tries < 8 * TOUCHES; tries++) {
		size_t page = tool_random(&b->seed) % (BENCH_MEMORY / BENCH_PAGE);
		volatile char *p = memory + page * BENCH_PAGE;
		uint64_t start;

		if (pages && pages[page].location.type != GPUSVM_LOCATION_DEVICE)
			continue;
		start = tool_now();
		(void)*p;
		times[n++] = (double)(tool_now() - start) / 1e3;
	}
	if (n < TOUCHES_LEAST)
		return -EIO;
	*ret = bench_median(times, n);
	return 0;
}

static int cpu_fault(struct bench *b, double *ret)
{
	size_t n = BENCH_MEMORY / BENCH_PAGE;
	struct gpusvm_page_info *pages = calloc(n, sizeof(*pages));
	int result = pages ? bench_to_device(b, b->src, BENCH_MEMORY) : -ENOMEM;

	/* Asked once: a call between two touches would be measured with them. */
	if (!result)
		result = gpusvm_residency(b->svm, b->src, BENCH_MEMORY, pages, n, sizeof(*pages));
	if (!result)
		result = touch(b, b->src, pages, ret);
	free(pages);
	return result;
}

static int bare_fault(struct bench *b, double *ret)
{
	struct bare *bare = b->state;

	/* Twice the same page is rare enough to leave the median alone. */
	if (madvise(bare->memory, BENCH_MEMORY, MADV_DONTNEED))
		return -errno;
	return touch(b, bare->memory, NULL, ret);
}

/* ---- Device faults -------------------------------------------------------- */

struct touch_args {
	const char *memory;
	double *each; /* microseconds for one, as the lane sees it */
};

static void touch_kernel(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	const struct touch_args *args = p;
	uint64_t start = tool_now();

	for (size_t i = 0; i < RANGES; i++)
		gpusvm_ld64(lane, args->memory + i * BENCH_HUGE);
	*args->each = (double)(tool_now() - start) / 1e3 / RANGES;
}

/* One launch that reads one word of each of so many ranges that are populated,
 * stay where they are, and were never seen by the device. */
static int device_fault(struct bench *b, double *ret)
{
	struct gpusvm_kernel kernel = { .size = sizeof(kernel), .fn = touch_kernel };
	struct touch_args args = { .memory = bench_map(RANGES * BENCH_HUGE, true), .each = ret };
	int result;

	if (!args.memory)
		return -ENOMEM;
	memset((void *)args.memory, 5, RANGES * BENCH_HUGE);
	result = gpusvm_launch(b->queue, &kernel, &args, sizeof(args), 1, NULL);
	bench_unmap((void *)args.memory, RANGES * BENCH_HUGE);
	return result;
}

static int kernel_fault(struct bench *b, double *ret)
{
	const size_t size = 16 * BENCH_HUGE;
	char *memory = bench_map(size, false);
	uint64_t start;

	if (!memory)
		return -ENOMEM;
	start = tool_now();
	for (size_t i = 0; i < size; i += BENCH_PAGE)
		((volatile char *)memory)[i] = 1;
	*ret = (double)(tool_now() - start) / 1e3 / (double)(size / BENCH_PAGE);
	bench_unmap(memory, size);
	return 0;
}

const struct bench_figure bench_fault_figures[] = {
	{ .name = "cpu_fault_4k", .unit = "us", .limit = "a bare userfaultfd COPY round trip",
	  .wanted = 0.80, .time = true, .small = true, .prepare = prepare_bare,
	  .clean = clean_bare, .value = cpu_fault, .held_against = bare_fault },
	{ .name = "gpu_fault_2m_present", .unit = "us", .limit = "a kernel 4K minor fault",
	  .wanted = 0.33, .time = true, .no_vram = true, .value = device_fault,
	  .held_against = kernel_fault },
	{ 0 },
};
