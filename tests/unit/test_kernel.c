/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_kernel.c: the model of the kernel answers as the kernel was measured to. One case
 * for each thing that host/userfault relies on. All of it on fibers.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "host/model/kernel/kernel.h"
#include "host/model/sched.h"
#include "host/posix/posix.h"
#include "host/userfault/sys.h"

#define PAGE HOST_PAGE_SIZE
#define HUGE_SIZE HOST_HUGE_SIZE
#define A KERNEL_USER_BASE
#define RW (KERNEL_READ | KERNEL_WRITE)
#define EVENTS                                                                                     \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |          \
	 UFFD_FEATURE_EVENT_UNMAP)

static const struct userfault_sys *sys = &userfault_sys_here;
static struct kernel_whims whims;
static int fd;
static struct sched_outcome outcome;

#define must(c)                                                                                    \
	do {                                                                                       \
		if (!(c))                                                                          \
			sched_fail(SCHED_LAW, "line %d: %s", __LINE__, #c);                        \
	} while (0)

static void open_context(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = EVENTS | UFFD_FEATURE_MOVE};

	kernel_boot(&whims);
	fd = sys->open(0, false);
	must(fd >= 0);
	must(sys->ioctl(fd, UFFDIO_API, &api) == 0);
}

static int watch(u64 start, u64 length)
{
	struct uffdio_register reg = {.range = {start, length},
				      .mode = UFFDIO_REGISTER_MODE_MISSING};

	return sys->ioctl(fd, UFFDIO_REGISTER, &reg);
}

static int move(u64 to, u64 from, u64 length, s64 *done)
{
	struct uffdio_move arg = {.dst = to, .src = from, .len = length};
	int r = sys->ioctl(fd, UFFDIO_MOVE, &arg);

	*done = arg.move;
	return r;
}

static int copy(u64 to, const void *from, u64 length, s64 *done)
{
	struct uffdio_copy arg = {.dst = to, .src = (u64)from, .len = length};
	int r = sys->ioctl(fd, UFFDIO_COPY, &arg);

	*done = arg.copy;
	return r;
}

static int zero(u64 to, u64 length)
{
	struct uffdio_zeropage arg = {.range = {to, length}};

	return sys->ioctl(fd, UFFDIO_ZEROPAGE, &arg);
}

static u64 load(u64 address)
{
	u64 value = 0;

	must(kernel_load(kernel_self(), address, &value) == 0);
	return value;
}

static void store(u64 address, u64 value)
{
	must(kernel_store(kernel_self(), address, value) == 0);
}

static u32 look(u64 address)
{
	return kernel_look(kernel_self(), address);
}

static bool there(u64 address)
{
	return look(address) & KERNEL_PRESENT;
}

/* Runs the case with several schedules. */
static void run(void (*fn)(void *))
{
	for (u64 seed = 0; seed < 20; seed++) {
		struct sched_options options = {.kind = seed ? SCHED_RANDOM : SCHED_REPLAY,
						.seed = seed};

		sched_run(&options, fn, NULL, &outcome);
		if (outcome.result != SCHED_OK)
			fail_msg("seed %lu: %s: %s", seed, sched_result_name(outcome.result),
				 outcome.text);
	}
}

/* ---- A reader ---------------------------------------------------------------- */

static struct uffd_msg messages[16];
static u32 n_messages;
static bool reading;

static void read_one(void)
{
	if (sys->read(fd, &messages[n_messages], sizeof(messages[0])) == sizeof(messages[0]))
		n_messages++;
}

static void reader(void *arg)
{
	(void)arg;
	while (host_load_acquire(&reading)) {
		read_one();
		host_relax();
	}
}

static struct host_thread reader_thread;

static void reader_begin(void)
{
	n_messages = 0;
	reading = true;
	must(host_thread_start(&reader_thread, "reader", reader, NULL) == 0);
}

static void reader_end(void)
{
	host_store_release(&reading, false);
	host_thread_join(&reader_thread);
}

/* ---- Plain memory ------------------------------------------------------------- */

static void plain(void *arg)
{
	u64 value;

	(void)arg;
	open_context();
	must(kernel_load(kernel_self(), A, &value) == -EFAULT);
	must(kernel_mmap(A, 4 * PAGE, RW) == 0);
	must(load(A) == 0 && look(A) == (KERNEL_PRESENT | KERNEL_ZERO));
	store(A, 5);
	must(load(A) == 5 && look(A) == KERNEL_PRESENT);
	must(kernel_mprotect(A, PAGE, KERNEL_READ) == 0);
	must(kernel_store(kernel_self(), A, 6) == -EFAULT && load(A) == 5);
	must(kernel_madvise(A, PAGE, MADV_DONTNEED) == 0 && load(A) == 0);
	store(A + PAGE, 7);
	must(kernel_munmap(A + PAGE, PAGE) == 0);
	must(kernel_load(kernel_self(), A + PAGE, &value) == -EFAULT);
	must(kernel_mmap(A + PAGE, PAGE, RW) == 0 && load(A + PAGE) == 0);
	store(A + 2 * PAGE, 8);
	must(kernel_mremap(A + 2 * PAGE, A + 64 * PAGE, 2 * PAGE, false) == 0);
	must(load(A + 64 * PAGE) == 8);
	must(kernel_load(kernel_self(), A + 2 * PAGE, &value) == -EFAULT);
	store(A + PAGE, 9);
	must(kernel_mremap(A + PAGE, A + 65 * PAGE, PAGE, true) == 0);
	must(load(A + 65 * PAGE) == 9 && load(A + PAGE) == 0);
}

static void huge(void *arg)
{
	struct page_region r[4];

	(void)arg;
	open_context();
	must(kernel_mmap(A, 2 * HUGE_SIZE, RW) == 0);
	must(kernel_madvise(A, HUGE_SIZE, MADV_HUGEPAGE) == 0);
	store(A + 5 * PAGE, 1);
	must(look(A) & KERNEL_HUGE);
	must(sys->scan(A, A + 2 * HUGE_SIZE, PAGE_IS_PRESENT, r, 4) == 1);
	must(r[0].start == A && r[0].end == A + HUGE_SIZE && r[0].categories & PAGE_IS_HUGE);
	must(kernel_madvise(A, PAGE, MADV_DONTNEED) == 0);
	must(!(look(A + PAGE) & KERNEL_HUGE) && !there(A) && load(A + 5 * PAGE) == 1);
	must(sys->scan(A, A + 2 * HUGE_SIZE, PAGE_IS_PRESENT, r, 4) == 1);
	must(r[0].start == A + PAGE);
	/* Holes of memory that nobody watches are filled. */
	must(kernel_collapse(A) && look(A) & KERNEL_HUGE && load(A) == 0);
	must(load(A + 5 * PAGE) == 1);
	/* Those of memory that is watched are not. */
	must(kernel_madvise(A, PAGE, MADV_DONTNEED) == 0 && watch(A, HUGE_SIZE) == 0);
	must(!kernel_collapse(A) && !there(A));
}

static void test_plain(void **state)
{
	run(plain);
	run(huge);
}

/* ---- COPY, ZEROPAGE, POISON ------------------------------------------------------ */

static void filling(void *arg)
{
	static const u64 bytes[2 * HOST_PAGE_SIZE / 8] = {11, [HOST_PAGE_SIZE / 8] = 12};
	struct uffdio_poison poison = {.range = {A + 3 * PAGE, PAGE}};
	u64 value;
	s64 done;

	(void)arg;
	open_context();
	must(kernel_mmap(A, 8 * PAGE, RW) == 0);
	must(copy(A, bytes, PAGE, &done) == -ENOENT); /* not registered */
	must(watch(A, 4 * PAGE) == 0);
	must(copy(A, bytes, 2 * PAGE, &done) == 0 && done == (s64)(2 * PAGE));
	must(load(A) == 11 && load(A + PAGE) == 12);
	must(copy(A, bytes, PAGE, &done) == -EEXIST && load(A) == 11);
	must(zero(A + 2 * PAGE, PAGE) == 0 && load(A + 2 * PAGE) == 0);
	must(zero(A + 2 * PAGE, PAGE) == -EEXIST);
	/* Over the end of what is registered: nothing at all. */
	must(zero(A + 3 * PAGE, 2 * PAGE) == -ENOENT && !there(A + 3 * PAGE));
	/* In part: a count, and EAGAIN. */
	must(kernel_madvise(A + 4 * PAGE, 0, MADV_DONTNEED) == 0);
	must(sys->ioctl(fd, UFFDIO_POISON, &poison) == 0);
	must(kernel_load(kernel_self(), A + 3 * PAGE, &value) == -EHWPOISON);
	must(zero(A, 0) == -EINVAL); /* no event waits */
}

static void partial(void *arg)
{
	static const u64 bytes[4 * HOST_PAGE_SIZE / 8];
	s64 done;

	(void)arg;
	open_context();
	must(kernel_mmap(A, 8 * PAGE, RW) == 0);
	store(A + 2 * PAGE, 1);
	must(watch(A, 8 * PAGE) == 0);
	must(copy(A, bytes, 4 * PAGE, &done) == -EAGAIN && done == (s64)(2 * PAGE));
	must(move(A + 4 * PAGE, A, 4 * PAGE, &done) == -EAGAIN && done == (s64)(3 * PAGE));
	must(load(A + 6 * PAGE) == 1 && !there(A + 2 * PAGE));
}

static void test_fill(void **state)
{
	run(filling);
	run(partial);
}

/* ---- MOVE ---------------------------------------------------------------------- */

static void moving(void *arg)
{
	s64 done;

	(void)arg;
	open_context();
	must(kernel_mmap(A, 16 * PAGE, RW) == 0);
	store(A, 1);
	must(move(A + 8 * PAGE, A, PAGE, &done) == -EINVAL); /* not registered */
	must(watch(A + 8 * PAGE, 8 * PAGE) == 0);
	must(move(A + 8 * PAGE, A, PAGE, &done) == 0 && done == (s64)PAGE);
	must(!there(A) && load(A + 8 * PAGE) == 1);
	must(move(A + 9 * PAGE, A, PAGE, &done) == -ENOENT);
	must(load(A) == 0); /* not registered itself: zeros */
	must(move(A + 8 * PAGE, A, PAGE, &done) == -EEXIST);
	must(move(A + 9 * PAGE, A, PAGE, &done) == 0); /* the zero page moves */
	must(look(A + 9 * PAGE) & KERNEL_ZERO);
	must(kernel_mprotect(A, PAGE, KERNEL_READ) == 0 && load(A) == 0);
	must(move(A + 10 * PAGE, A, PAGE, &done) == -EINVAL);	  /* other protections */
	must(move(A + 10 * PAGE, A, 2 * PAGE, &done) == -EINVAL); /* over two areas */
	must(kernel_munmap(A, PAGE) == 0);
	must(move(A + 10 * PAGE, A, PAGE, &done) == -ENOENT);
}

static void moving_huge(void *arg)
{
	s64 done;

	(void)arg;
	open_context();
	must(kernel_mmap(A, 4 * HUGE_SIZE, RW) == 0);
	must(kernel_madvise(A, HUGE_SIZE, MADV_HUGEPAGE) == 0);
	store(A + 3 * PAGE, 1);
	must(watch(A, 4 * HUGE_SIZE) == 0);
	must(move(A + HUGE_SIZE, A, HUGE_SIZE, &done) == 0 && done == (s64)HUGE_SIZE);
	must(look(A + HUGE_SIZE) & KERNEL_HUGE && load(A + HUGE_SIZE + 3 * PAGE) == 1);
	must(!there(A));
	/* In part it is split, and leaves a table behind that no huge page goes into. */
	must(move(A, A + HUGE_SIZE, PAGE, &done) == 0);
	must(!(look(A + HUGE_SIZE + PAGE) & KERNEL_HUGE));
	must(move(A + HUGE_SIZE, A, PAGE, &done) == 0);
	must(kernel_collapse(A + HUGE_SIZE));
	must(move(A, A + HUGE_SIZE, HUGE_SIZE, &done) == 0 && !(look(A) & KERNEL_HUGE));
	must(load(A + 3 * PAGE) == 1);
	/* Onto a huge page: EEXIST. */
	must(kernel_collapse(A));
	must(zero(A + HUGE_SIZE, PAGE) == 0);
	must(move(A, A + HUGE_SIZE, PAGE, &done) == -EEXIST);
}

static void moving_shared(void *arg)
{
	struct space *child;
	s64 done;
	u64 value;

	(void)arg;
	open_context();
	must(kernel_mmap(A, 16 * PAGE, RW) == 0);
	store(A, 1);
	child = kernel_fork();
	must(child && look(A) & KERNEL_SHARED);
	must(watch(A + 8 * PAGE, PAGE) == 0);
	must(move(A + 8 * PAGE, A, PAGE, &done) == -EBUSY);
	must(kernel_load(child, A, &value) == 0 && value == 1);
	must(kernel_store(child, A, 2) == 0 && load(A) == 1);
	kernel_exit(child);
	must(move(A + 8 * PAGE, A, PAGE, &done) == -EBUSY); /* still */
	must(kernel_madvise(A, PAGE, MADV_POPULATE_WRITE) == 0);
	must(move(A + 8 * PAGE, A, PAGE, &done) == 0 && load(A + 8 * PAGE) == 1);
}

static void direct(void *arg)
{
	must(kernel_direct_write(A, (u64)arg) == 0);
}

/* A pinned page does not move; so no write gets lost. */
static void moving_pinned(void *arg)
{
	struct host_thread thread;
	s64 done;
	int r;

	(void)arg;
	open_context();
	must(kernel_mmap(A, 16 * PAGE, RW) == 0 && watch(A + 8 * PAGE, PAGE) == 0);
	store(A, 1);
	must(host_thread_start(&thread, "direct", direct, (void *)7) == 0);
	r = move(A + 8 * PAGE, A, PAGE, &done);
	host_thread_join(&thread);
	must(!r || (r == -EBUSY && load(A) == 7));
	/* Before the move, the write went with the page; after it, it got a page of its own. */
	must(r || load(A + 8 * PAGE) == 7 || (load(A + 8 * PAGE) == 1 && load(A) == 7));
}

static void test_move(void **state)
{
	run(moving);
	run(moving_huge);
	run(moving_shared);
	run(moving_pinned);
}

/* ---- Faults ----------------------------------------------------------------------- */

static void toucher(void *arg)
{
	must(load((u64)arg) == 77);
}

static void faults(void *arg)
{
	static const u64 bytes[HOST_PAGE_SIZE / 8] = {77};
	struct host_thread threads[2];
	s64 done;

	(void)arg;
	open_context();
	must(kernel_mmap(A, 8 * PAGE, RW) == 0 && watch(A, 8 * PAGE) == 0);
	for (u32 i = 0; i < 2; i++)
		must(host_thread_start(&threads[i], "toucher", toucher, (void *)A) == 0);
	while (kernel_waiting() < 2)
		host_relax();
	/* Two threads, one page: two messages. */
	n_messages = 0;
	read_one();
	read_one();
	read_one();
	must(n_messages == 2 && messages[0].event == UFFD_EVENT_PAGEFAULT);
	must(messages[1].arg.pagefault.address == A);
	must(copy(A, bytes, PAGE, &done) == 0);
	host_thread_join(&threads[0]);
	host_thread_join(&threads[1]);
	/* A wake alone: it faults again. */
	must(host_thread_start(&threads[0], "toucher", toucher, (void *)(A + PAGE)) == 0);
	while (kernel_waiting() < 1)
		host_relax();
	read_one();
	must(sys->ioctl(fd, UFFDIO_WAKE, &(struct uffdio_range){A + PAGE, PAGE}) == 0);
	while (n_messages < 4) {
		read_one();
		host_relax();
	}
	must(copy(A + PAGE, bytes, PAGE, &done) == 0);
	host_thread_join(&threads[0]);
}

static void gone_silently(void *arg)
{
	(void)arg;
	must(load(A) == 0);
}

/* Closing with a fault pending fills with zeros. */
static void closing(void *arg)
{
	struct host_thread thread;

	(void)arg;
	open_context();
	must(kernel_mmap(A, PAGE, RW) == 0 && watch(A, PAGE) == 0);
	must(host_thread_start(&thread, "toucher", gone_silently, NULL) == 0);
	while (kernel_waiting() < 1)
		host_relax();
	sys->close(fd);
	host_thread_join(&thread);
}

static void test_faults(void **state)
{
	run(faults);
	run(closing);
}

/* ---- Events -------------------------------------------------------------------------- */

static u32 done_calls;

static void call_munmap(void *arg)
{
	must(kernel_munmap(A, PAGE) == 0);
	host_add_return(&done_calls, 1);
	(void)arg;
}

/* The caller waits until it is read; until it has gone on, all calls say EAGAIN; the
 * change is done before, and the address may be somebody else's. */
static void event_unmap(void *arg)
{
	struct host_thread thread;
	s64 done;

	(void)arg;
	open_context();
	must(kernel_mmap(A, 16 * PAGE, RW) == 0 && watch(A, 16 * PAGE) == 0);
	must(zero(A, 2 * PAGE) == 0);
	done_calls = n_messages = 0;
	must(host_thread_start(&thread, "munmap", call_munmap, NULL) == 0);
	while (kernel_waiting() < 1)
		host_relax();
	must(!there(A) && !(look(A) & KERNEL_REGISTERED));
	must(zero(A + 2 * PAGE, PAGE) == -EAGAIN && zero(0, 0) == -EAGAIN);
	must(move(A + 3 * PAGE, A + PAGE, PAGE, &done) == -EAGAIN);
	must(kernel_mmap(A, PAGE, RW) == 0 && load(A) == 0); /* another's, not watched */
	must(!done_calls);
	read_one();
	must(n_messages == 1 && messages[0].event == UFFD_EVENT_UNMAP);
	must(messages[0].arg.remove.start == A && messages[0].arg.remove.end == A + PAGE);
	host_thread_join(&thread);
	must(zero(A + 2 * PAGE, PAGE) == 0);
}

static void call_dontneed(void *arg)
{
	must(kernel_madvise(A, PAGE, MADV_DONTNEED) == 0);
	(void)arg;
}

/* REMOVE comes first, the pages go when it was read: in between they move, still. */
static bool moved_before_zap;

static void event_remove(void *arg)
{
	struct host_thread thread;
	s64 done;
	int r;

	(void)arg;
	open_context();
	must(kernel_mmap(A, 16 * PAGE, RW) == 0 && watch(A, 16 * PAGE) == 0);
	must(zero(A, PAGE) == 0);
	store(A, 5);
	n_messages = 0;
	must(host_thread_start(&thread, "dontneed", call_dontneed, NULL) == 0);
	while (kernel_waiting() < 1)
		host_relax();
	must(there(A));
	read_one();
	must(n_messages == 1 && messages[0].event == UFFD_EVENT_REMOVE);
	while ((r = move(A + PAGE, A, PAGE, &done)) == -EAGAIN)
		host_relax();
	must(r == 0 || r == -ENOENT);
	moved_before_zap |= !r;
	host_thread_join(&thread);
	must(!there(A));
}

static void remap(void *arg)
{
	static const u16 wanted[] = {UFFD_EVENT_UNMAP, UFFD_EVENT_REMAP, UFFD_EVENT_UNMAP};

	(void)arg;
	open_context();
	must(kernel_mmap(A, 64 * PAGE, RW) == 0 && watch(A, 64 * PAGE) == 0);
	must(zero(A, PAGE) == 0);
	store(A, 5);
	reader_begin();
	/* What was at the new place goes, the pages come, the old place goes. */
	must(kernel_mremap(A, A + 32 * PAGE, 4 * PAGE, false) == 0);
	must(n_messages == 3);
	for (u32 i = 0; i < 3; i++)
		must(messages[i].event == wanted[i]);
	must(messages[1].arg.remap.from == A && messages[1].arg.remap.to == A + 32 * PAGE);
	must(look(A + 32 * PAGE) & KERNEL_REGISTERED && load(A + 32 * PAGE) == 5);
	n_messages = 0;
	must(kernel_mremap(A + 32 * PAGE, A + 128 * PAGE, 4 * PAGE, true) == 0);
	must(n_messages == 1 && messages[0].event == UFFD_EVENT_REMAP);
	must(look(A + 32 * PAGE) == KERNEL_REGISTERED);
	/* No event: protections. */
	n_messages = 0;
	must(kernel_mprotect(A + 40 * PAGE, PAGE, KERNEL_READ) == 0 && !n_messages);
	must(look(A + 40 * PAGE) & KERNEL_REGISTERED);
	reader_end();
}

static void forking(void *arg)
{
	static const u64 bytes[HOST_PAGE_SIZE / 8] = {77};
	struct uffdio_copy c = {.dst = A + PAGE, .src = (u64)bytes, .len = PAGE};
	struct space *child;
	u64 value;

	(void)arg;
	open_context();
	must(kernel_mmap(A, 4 * PAGE, RW) == 0 && watch(A, 4 * PAGE) == 0);
	must(zero(A, PAGE) == 0);
	store(A, 5);
	reader_begin();
	child = kernel_fork();
	must(child && n_messages == 1 && messages[0].event == UFFD_EVENT_FORK);
	/* The child's memory is watched by a descriptor of its own. */
	must(kernel_look(child, A + PAGE) == KERNEL_REGISTERED);
	must(sys->ioctl((int)messages[0].arg.fork.ufd, UFFDIO_COPY, &c) == 0);
	sys->close((int)messages[0].arg.fork.ufd);
	must(kernel_load(child, A + PAGE, &value) == 0 && value == 77);
	must(kernel_load(child, A + 2 * PAGE, &value) == 0 && value == 0);
	must(!there(A + PAGE));
	kernel_exit(child);
	reader_end();
}

/* read() gives faults before events, whichever came first. */
static void order(void *arg)
{
	struct host_thread threads[2];

	(void)arg;
	open_context();
	must(kernel_mmap(A, 16 * PAGE, RW) == 0 && watch(A, 16 * PAGE) == 0);
	must(host_thread_start(&threads[0], "dontneed", call_dontneed, NULL) == 0);
	while (kernel_waiting() < 1)
		host_relax();
	must(host_thread_start(&threads[1], "toucher", gone_silently, NULL) == 0);
	while (kernel_waiting() < 2)
		host_relax();
	n_messages = 0;
	read_one();
	must(n_messages == 1 && messages[0].event == UFFD_EVENT_PAGEFAULT);
	must(zero(A, PAGE) == -EAGAIN);
	read_one();
	must(n_messages == 2 && messages[1].event == UFFD_EVENT_REMOVE);
	host_thread_join(&threads[0]);
	must(zero(A, PAGE) == 0);
	host_thread_join(&threads[1]);
}

static void test_events(void **state)
{
	run(event_unmap);
	moved_before_zap = false;
	run(event_remove);
	assert_true(moved_before_zap);
	run(remap);
	run(forking);
	run(order);
}

/* ---- Registration ---------------------------------------------------------------------- */

static void registration(void *arg)
{
	struct userfault_vma vma;
	int first = 0;

	(void)arg;
	open_context();
	must(watch(A, PAGE) == -EINVAL);
	must(kernel_mmap(A, 16 * PAGE, RW) == 0 && watch(A + 4 * PAGE, 4 * PAGE) == 0);
	must(sys->vma(A, &vma) == 0 && vma.end == A + 4 * PAGE);
	/* It survives that protections change and change back. */
	must(kernel_mprotect(A + 5 * PAGE, PAGE, KERNEL_READ) == 0);
	must(look(A + 5 * PAGE) & KERNEL_REGISTERED);
	must(kernel_mprotect(A + 5 * PAGE, PAGE, RW) == 0);
	must(sys->vma(A + 4 * PAGE, &vma) == 0 && vma.end == A + 8 * PAGE);
	/* Another's: EBUSY. */
	first = fd;
	fd = sys->open(0, false);
	must(sys->ioctl(fd, UFFDIO_API, &(struct uffdio_api){.api = UFFD_API}) == 0);
	must(sys->ioctl(fd, UFFDIO_API, &(struct uffdio_api){.api = UFFD_API}) == -EINVAL);
	must(watch(A, 16 * PAGE) == -EBUSY);
	fd = first;
	must(watch(A, 16 * PAGE) == 0);
	must(sys->ioctl(fd, UFFDIO_UNREGISTER, &(struct uffdio_range){A, 16 * PAGE}) == 0);
	must(sys->vma(A, &vma) == 0 && vma.end == A + 16 * PAGE && load(A) == 0);
}

static void test_registration(void **state)
{
	run(registration);
}

/* ---- Whims ------------------------------------------------------------------------------- */

static u64 denied;

static void denying(void *arg)
{
	u64 moved = 0;
	s64 done;

	(void)arg;
	open_context();
	must(kernel_mmap(A, 64 * PAGE, RW) == 0);
	for (u32 i = 0; i < 32; i++)
		store(A + i * PAGE, i + 1);
	must(watch(A, 64 * PAGE) == 0);
	(void)move(A + 32 * PAGE, A, 32 * PAGE, &done);
	/* Wherever they are, none is lost, whatever was said. */
	for (u32 i = 0; i < 32; i++) {
		must(there(A + i * PAGE) != there(A + (32 + i) * PAGE));
		moved += there(A + (32 + i) * PAGE);
		must(load(A + (i + (there(A + i * PAGE) ? 0 : 32)) * PAGE) == i + 1);
	}
	must(moved >= (done > 0 ? (u64)done / PAGE : 0));
	denied += kernel_counts.denied;
}

static void test_whims(void **state)
{
	whims = (struct kernel_whims){.migrate = 200, .deny = 512, .busy = 30};
	denied = 0;
	run(denying);
	assert_true(denied);
	whims = (struct kernel_whims){0};
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_plain),  cmocka_unit_test(test_fill),
	    cmocka_unit_test(test_move),   cmocka_unit_test(test_faults),
	    cmocka_unit_test(test_events), cmocka_unit_test(test_registration),
	    cmocka_unit_test(test_whims),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
