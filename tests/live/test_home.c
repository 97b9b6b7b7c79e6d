/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_home.c: the live-process home alone (mini.h stands for everything above
 * it): each thing that can happen to memory, happening to pages that are on the
 * device. Each test leaves nothing on the device; the last one closes the home
 * and finds the arena empty.
 */
#include "tests/live/home_world.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

static void test_there_and_back(void **state)
{
	for (int huge = 0; huge < 2; huge++)
		for (int i = 0; i < 4; i++) {
			char *p = on_device(huge);

			check(p, 0, HUGE_SIZE);
			wait_used(0);
			out(p, HUGE_SIZE);
			((u64 *)p)[77] = value(77);
			check(p, 0, HUGE_SIZE);
			done(p);
		}
	(void)state;
}

static void test_part(void **state)
{
	char *p = map(HUGE_SIZE, true);

	fill(p, HUGE_SIZE);
	out(p + 5 * PAGE, 9 * PAGE);
	out(p + 100 * PAGE, 300 * PAGE);
	mini->window = 1;
	check(p, 0, HUGE_SIZE);
	mini->window = HOST_HUGE_PAGES;
	wait_used(0);
	done(p);
	(void)state;
}

static void test_unpopulated_moves_as_zeros(void **state)
{
	char *p = map(HUGE_SIZE, false);

	p[9 * PAGE] = 9;
	out(p, HUGE_SIZE);
	for (size_t i = 0; i < HUGE_SIZE; i += PAGE)
		assert_int_equal(p[i], i == 9 * PAGE ? 9 : 0);
	done(p);
	(void)state;
}

/* A fault near the end of a mapping that is no multiple of 64K was filled beyond
 * it, which does nothing, for ever. */
static void test_fill_at_the_end_of_a_mapping(void **state)
{
	char *p = map(HUGE_SIZE, false);

	munmap(p + 37 * PAGE, HUGE_SIZE - 37 * PAGE);
	p[0] = 1;
	out(p, PAGE);
	p[36 * PAGE] = 36;
	assert_int_equal(p[35 * PAGE], 0);
	assert_int_equal(p[36 * PAGE], 36);
	done(p);
	(void)state;
}

static unsigned resident(const char *p, size_t size)
{
	unsigned char in[HUGE_SIZE / PAGE];
	unsigned n = 0;

	assert_true(size <= HUGE_SIZE);
	assert_int_equal(mincore((void *)p, size, in), 0);
	for (size_t i = 0; i < size / PAGE; i++)
		n += in[i] & 1;
	return n;
}

/* Memory that is touched here and there does not grow by what is beside; in order, it takes
 * fewer faults than pages. */
static void test_fill_widens(void **state)
{
	char *p = map(3 * HUGE_SIZE, false);
	struct userfault_counters before, after;

	out(p, PAGE);
	for (size_t i = 0; i < HUGE_SIZE / PAGE; i += 16)
		p[HUGE_SIZE + i * PAGE] = 1;
	assert_int_equal(resident(p + HUGE_SIZE, HUGE_SIZE), HUGE_SIZE / PAGE / 16);
	userfault_counters_get(mini->mm, &before);
	for (size_t i = 0; i < HUGE_SIZE / PAGE; i++)
		p[2 * HUGE_SIZE + i * PAGE] = 1;
	userfault_counters_get(mini->mm, &after);
	assert_int_equal(resident(p + 2 * HUGE_SIZE, HUGE_SIZE), HUGE_SIZE / PAGE);
	assert_in_range(after.zero_fills - before.zero_fills, HUGE_SIZE / PAGE / 16,
			HUGE_SIZE / PAGE / 16 + 8);
	munmap(p, 3 * HUGE_SIZE);
	sync_all();
	wait_used(0);
	(void)state;
}

static void test_munmap(void **state)
{
	char *p = on_device(true);

	done(p);
	/* The same address again is new memory. */
	p = mmap(p, HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0);
	assert_int_equal(p[0], 0);
	done(p);
	(void)state;
}

static void test_partial_munmap(void **state)
{
	char *p = on_device(true);

	munmap(p + 100 * PAGE, 50 * PAGE);
	sync_all();
	wait_used(HOST_HUGE_PAGES - 50);
	check(p, 0, 100 * PAGE);
	check(p, 150 * PAGE, HUGE_SIZE);
	done(p);
	(void)state;
}

static void test_map_fixed_over(void **state)
{
	char *p = on_device(false);

	assert_ptr_equal(mmap(p + 8 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 p + 8 * PAGE);
	for (size_t i = 8 * PAGE; i < 16 * PAGE; i++)
		assert_int_equal(p[i], 0);
	check(p, 0, 8 * PAGE);
	check(p, 16 * PAGE, HUGE_SIZE);
	done(p);
	(void)state;
}

static void test_mremap_grow_and_shrink(void **state)
{
	char *p = map(HUGE_SIZE / 2, false);

	fill(p, HUGE_SIZE / 2);
	out(p, HUGE_SIZE / 2);
	assert_ptr_equal(mremap(p, HUGE_SIZE / 2, HUGE_SIZE, 0), p);
	assert_int_equal(p[HUGE_SIZE - 1], 0);
	check(p, 0, HUGE_SIZE / 2);
	fill(p, HUGE_SIZE);
	out(p, HUGE_SIZE);
	assert_ptr_equal(mremap(p, HUGE_SIZE, 16 * PAGE, 0), p);
	check(p, 0, 16 * PAGE);
	done(p);
	(void)state;
}

/* To the kernel a mapping is still one when a device has used a part of it. */
static void test_mremap_used_in_part(void **state)
{
	char *p = map(4 * HUGE_SIZE, false), *q;

	fill(p, 4 * HUGE_SIZE);
	out(p + HUGE_SIZE + 3 * PAGE, 16 * PAGE);
	q = mremap(p, 4 * HUGE_SIZE, 5 * HUGE_SIZE, MREMAP_MAYMOVE);
	assert_ptr_not_equal(q, MAP_FAILED);
	check(q, 0, 4 * HUGE_SIZE);
	assert_int_equal(q[5 * HUGE_SIZE - 1], 0);
	assert_ptr_equal(mremap(q, 5 * HUGE_SIZE, HUGE_SIZE, 0), q);
	munmap(q, HUGE_SIZE);
	(void)state;
}

static void remap_to(size_t offset, int flags, bool huge)
{
	char *p = on_device(huge), *q = map(2 * HUGE_SIZE, false);

	assert_ptr_equal(
	    mremap(p, HUGE_SIZE, HUGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED | flags, q + offset),
	    q + offset);
	if (flags)
		for (size_t i = 0; i < HUGE_SIZE; i += PAGE)
			assert_int_equal(p[i], 0);
	check(q + offset, 0, HUGE_SIZE);
	fill(q + offset, HUGE_SIZE);
	munmap(q, 2 * HUGE_SIZE);
	if (flags)
		munmap(p, HUGE_SIZE);
	sync_all();
	wait_used(0);
}

static void test_mremap_move(void **state)
{
	for (int huge = 0; huge < 2; huge++) {
		remap_to(0, 0, huge);
		remap_to(PAGE, 0, huge);
		remap_to(37 * PAGE, 0, huge);
	}
	(void)state;
}

static void test_mremap_dontunmap(void **state)
{
	remap_to(0, MREMAP_DONTUNMAP, true);
	remap_to(3 * PAGE, MREMAP_DONTUNMAP, false);
	(void)state;
}

static void dropped(int advice)
{
	char *p = on_device(true);

	assert_int_equal(madvise(p, 8 * PAGE, advice), 0);
	for (size_t i = 0; i < 8 * PAGE; i++)
		assert_int_equal(p[i], 0);
	check(p, 8 * PAGE, HUGE_SIZE);
	/* And the new contents live: they move and come back. */
	fill(p, 8 * PAGE);
	(void)mini_out((u64)p, (u64)p + HUGE_SIZE, NULL);
	check(p, 0, HUGE_SIZE);
	done(p);
}

static void test_madv_dontneed(void **state)
{
	dropped(MADV_DONTNEED);
	(void)state;
}

static void test_madv_free(void **state)
{
	char *p;

	dropped(MADV_FREE);
	p = on_device(true);
	/* In system memory: what is written afterwards stays. */
	check(p, 0, HUGE_SIZE);
	assert_int_equal(madvise(p, 8 * PAGE, MADV_FREE), 0);
	fill(p, 8 * PAGE);
	(void)mini_out((u64)p, (u64)p + HUGE_SIZE, NULL);
	check(p, 0, HUGE_SIZE);
	done(p);
	(void)state;
}

static void test_dontneed_never_rises_again(void **state)
{
	char *p = map(HUGE_SIZE, false);

	for (int round = 0; round < 2000; round++) {
		p[0] = 42;
		(void)mini_out((u64)p, (u64)p + 4 * PAGE, NULL);
		madvise(p, 4 * PAGE, MADV_DONTNEED);
		assert_int_equal(p[0], 0);
	}
	done(p);
	(void)state;
}

static void test_mprotect(void **state)
{
	char *p = on_device(true);

	assert_int_equal(mprotect(p, HUGE_SIZE, PROT_READ), 0);
	check(p, 0, HUGE_SIZE); /* comes home to memory that may not be written */
	assert_int_equal(mini_out((u64)p, (u64)p + HUGE_SIZE, NULL), 0);
	assert_int_equal(mprotect(p, HUGE_SIZE, PROT_READ | PROT_WRITE), 0);
	out(p, HUGE_SIZE);
	assert_int_equal(mprotect(p, HUGE_SIZE, PROT_NONE), 0);
	assert_int_equal(mprotect(p, HUGE_SIZE, PROT_READ | PROT_WRITE), 0);
	check(p, 0, HUGE_SIZE);
	done(p);
	(void)state;
}

static void test_read_and_write(void **state)
{
	char *p = on_device(true), name[] = "/tmp/gpusvm-test-XXXXXX";
	int fd = mkstemp(name);

	unlink(name);
	assert_int_equal(write(fd, p, HUGE_SIZE), HUGE_SIZE);
	out(p, HUGE_SIZE);
	memset(p, 0, PAGE);
	(void)mini_out((u64)p, (u64)p + HUGE_SIZE, NULL);
	assert_int_equal(pread(fd, p, HUGE_SIZE, 0), HUGE_SIZE);
	check(p, 0, HUGE_SIZE);
	close(fd);
	done(p);
	(void)state;
}

static void test_o_direct(void **state)
{
	char *p = on_device(false), name[] = "/var/tmp/gpusvm-test-XXXXXX";
	int fd = mkostemp(name, O_DIRECT);

	if (fd < 0 && errno == EINVAL)
		skip(); /* this file system has no O_DIRECT */
	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(write(fd, p, HUGE_SIZE), HUGE_SIZE);
	memset(p, 0, HUGE_SIZE);
	out(p, HUGE_SIZE);
	assert_int_equal(pread(fd, p, HUGE_SIZE, 0), HUGE_SIZE);
	check(p, 0, HUGE_SIZE);
	close(fd);
	done(p);
	(void)state;
}

static void test_process_vm(void **state)
{
	char *p = on_device(true), *q = map(HUGE_SIZE, false);
	struct iovec a = {q, HUGE_SIZE}, b = {p, HUGE_SIZE};

	assert_int_equal(process_vm_readv(getpid(), &a, 1, &b, 1, 0), HUGE_SIZE);
	check(q, 0, HUGE_SIZE);
	memset(p, 0, HUGE_SIZE);
	out(p, HUGE_SIZE);
	assert_int_equal(process_vm_writev(getpid(), &a, 1, &b, 1, 0), HUGE_SIZE);
	check(p, 0, HUGE_SIZE);
	munmap(q, HUGE_SIZE);
	done(p);
	(void)state;
}

static void *wait_on_futex(void *word)
{
	while (__atomic_load_n((u32 *)word, __ATOMIC_ACQUIRE) == 0)
		syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
	return NULL;
}

static void test_futex(void **state)
{
	char *p = map(HUGE_SIZE, true);
	pthread_t thread;

	for (int i = 0; i < 50; i++) {
		u32 *word = (u32 *)(p + 64 * i);

		*word = 0;
		pthread_create(&thread, NULL, wait_on_futex, word);
		(void)mini_out((u64)p, (u64)p + HUGE_SIZE, NULL);
		__atomic_store_n(word, 1, __ATOMIC_RELEASE);
		syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
		pthread_join(thread, NULL);
	}
	done(p);
	(void)state;
}

/* Buffers registered with io_uring are pinned. */
static void test_pinned(void **state)
{
	struct io_uring_params params = {0};
	int ring = (int)syscall(SYS_io_uring_setup, 4, &params);
	char *p = map(HUGE_SIZE, false);
	struct iovec v = {p, 4 * PAGE};
	u32 why = 0;

	if (ring < 0) {
		munmap(p, HUGE_SIZE);
		print_message("no io_uring here to pin pages with\n");
		skip();
	}
	fill(p, HUGE_SIZE);
	assert_int_equal(syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &v, 1), 0);
	assert_int_equal(mini_out((u64)p, (u64)p + 16 * PAGE, &why), 12);
	assert_true(why & MM_STAYED_PINNED);
	check(p, 0, HUGE_SIZE);
	close(ring);
	done(p);
	(void)state;
}

static void test_ksm(void **state)
{
	char *p = map(HUGE_SIZE, false);

	memset(p, 0x5a, HUGE_SIZE);
	if (madvise(p, HUGE_SIZE, MADV_MERGEABLE)) {
		munmap(p, HUGE_SIZE);
		print_message("this kernel has no KSM\n");
		skip();
	}
	usleep(100000);
	(void)mini_out((u64)p, (u64)p + HUGE_SIZE, NULL);
	for (size_t i = 0; i < HUGE_SIZE; i += 64)
		assert_int_equal(p[i], 0x5a);
	done(p);
	(void)state;
}

static void test_file_and_shared_stay(void **state)
{
	char name[] = "/tmp/gpusvm-test-XXXXXX";
	int fd = mkstemp(name), flags[] = {MAP_SHARED, MAP_PRIVATE};
	u32 why;

	unlink(name);
	assert_int_equal(ftruncate(fd, HUGE_SIZE), 0);
	for (int i = 0; i < 2; i++) {
		char *p = mmap(NULL, HUGE_SIZE, PROT_READ | PROT_WRITE, flags[i], fd, 0);

		fill(p, PAGE);
		assert_int_equal(mini_out((u64)p, (u64)p + PAGE, &why), 0);
		assert_true(why & MM_STAYED_NOT_MIGRATABLE);
		check(p, 0, PAGE);
		munmap(p, HUGE_SIZE);
	}
	close(fd);
	sync_all();
	(void)state;
}

static struct {
	char *p;
	int stop;
} shared;

static void *count_up(void *arg)
{
	u64 *word = (u64 *)shared.p + 512 * (uintptr_t)arg, n = 0;

	while (!__atomic_load_n(&shared.stop, __ATOMIC_RELAXED))
		for (int k = 0; k < 300; k++) {
			if (word[k] != n)
				return (void *)1;
			word[k] = n + 1;
			if (k == 299)
				n++;
		}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[3];
	void *bad;
	u64 until = host_now() + 2 * HOST_SEC;

	shared.p = map(HUGE_SIZE, true);
	memset(shared.p, 0, HUGE_SIZE);
	shared.stop = 0;
	for (uintptr_t i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, count_up, (void *)(i * 3));
	for (unsigned round = 0; host_now() < until; round++) {
		u64 at = (u64)shared.p + (round % 3 ? round % 7 * PAGE : 0);

		mini->window = round & 8 ? 1 : HOST_HUGE_PAGES;
		(void)mini_out(at, round % 3 ? at + 3 * PAGE : at + HUGE_SIZE, NULL);
	}
	__atomic_store_n(&shared.stop, 1, __ATOMIC_RELAXED);
	mini->window = HOST_HUGE_PAGES;
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], &bad);
		assert_null(bad);
	}
	done(shared.p);
	(void)state;
}

static void *map_and_unmap(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&shared.stop, __ATOMIC_RELAXED)) {
		/* The address is reused at once, by memory that nobody registered. */
		memset(shared.p, 7, 64 * PAGE);
		usleep(20);
		mmap(shared.p, 64 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		for (size_t i = 0; i < 64 * PAGE; i += PAGE)
			if (shared.p[i])
				return (void *)1;
	}
	return NULL;
}

static void test_reused_address(void **state)
{
	pthread_t thread;
	void *bad;
	u64 until = host_now() + 2 * HOST_SEC;

	shared.p = map(HUGE_SIZE, false);
	shared.stop = 0;
	pthread_create(&thread, NULL, map_and_unmap, NULL);
	while (host_now() < until)
		(void)mini_out((u64)shared.p, (u64)shared.p + 64 * PAGE, NULL);
	__atomic_store_n(&shared.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, &bad);
	assert_null(bad);
	done(shared.p);
	(void)state;
}

static void *compact(void *arg)
{
	while (!__atomic_load_n(&shared.stop, __ATOMIC_RELAXED)) {
		(void)!pwrite(*(int *)arg, "1", 1, 0);
		usleep(1000);
	}
	return NULL;
}

/* The kernel itself moves pages about while they leave and come home: its MOVE then
 * fails in the middle, and may deny what it has done (gate.c). */
static void test_compaction(void **state)
{
	int fd = open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC);
	u64 until = host_now() + 3 * HOST_SEC;
	unsigned seed = 1;
	pthread_t thread;
	char *p;

	if (fd < 0) {
		print_message("skipped: compaction cannot be asked for: %s\n", strerror(errno));
		skip();
	}
	p = map(HUGE_SIZE, true);
	fill(p, HUGE_SIZE);
	shared.stop = 0;
	pthread_create(&thread, NULL, compact, &fd);
	while (host_now() < until) {
		unsigned n = 1 + (unsigned)rand_r(&seed) % HOST_HUGE_PAGES;
		unsigned at = (unsigned)rand_r(&seed) % (HOST_HUGE_PAGES - n + 1);

		(void)mini_out((u64)p + at * PAGE, (u64)p + (at + n) * PAGE, NULL);
		(void)mini_home((u64)p + at * PAGE, (u64)p + (at + n / 2) * PAGE);
		check(p, 0, HUGE_SIZE);
	}
	__atomic_store_n(&shared.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	close(fd);
	done(p);
	(void)state;
}

/* The stack of a running thread leaves and comes back under it. */
static void *deep(void *arg)
{
	volatile u64 words[4096];

	for (int round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 4096; i++)
			words[i] = value(i);
		usleep(200);
		for (unsigned i = 0; i < 4096; i++)
			if (words[i] != value(i))
				return (void *)1;
	}
	__atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void test_stack(void **state)
{
	char *stack = map(HUGE_SIZE, false);
	pthread_attr_t attr;
	pthread_t thread;
	int stop = 0;
	void *bad;

	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, stack, HUGE_SIZE);
	assert_int_equal(pthread_create(&thread, &attr, deep, &stop), 0);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		(void)mini_out((u64)stack, (u64)stack + HUGE_SIZE, NULL);
	pthread_join(thread, &bad);
	assert_null(bad);
	done(stack);
	(void)state;
}

static u64 told;

static int slow_start(struct mm_notifier *n, const struct mm_invalidation *inv, u64 seq)
{
	(void)inv;
	mm_notifier_set_seq(n, seq);
	return 0;
}

static void slow_finish(struct mm_notifier *n, const struct mm_invalidation *inv)
{
	(void)n;
	(void)inv;
	host_add_return(&told, 1);
	host_sleep(HOST_MSEC);
}

/* Events that come faster than a device lets go do not heap up. */
static void test_many_events(void **state)
{
	static const struct mm_notifier_ops ops = {.invalidate_start = slow_start,
						   .invalidate_finish = slow_finish};
	struct mm_notifier *n = host_alloc(sizeof(*n));
	char *p = map(HUGE_SIZE, false);

	fill(p, HUGE_SIZE);
	out(p, PAGE);
	assert_int_equal(mm_notifier_insert(n, mini->mm, (u64)p, (u64)p + HUGE_SIZE, &ops), 0);
	told = 0;
	for (size_t i = 0; i < 20000; i++)
		madvise(p + i * 7 % 512 * PAGE, PAGE, MADV_DONTNEED);
	sync_all();
	assert_in_range(told, 1, 10000);
	for (size_t i = 0; i < HUGE_SIZE; i += PAGE)
		assert_int_equal(p[i], 0);
	done(p);
	mm_notifier_remove(n);
	host_free(n);
	(void)state;
}

/* A guard is put where a page was that is on its way, and stays after all. */
static void test_guard(void **state)
{
	char *p = map(HUGE_SIZE, false);
	mm_mpfn_t *src = host_alloc(16 * sizeof(*src)), *dst = host_alloc(16 * sizeof(*dst));
	struct mm_migrate m = {.mm = mini->mm,
			       .start = (u64)p,
			       .end = (u64)p + 16 * PAGE,
			       .flags = MM_MIGRATE_SYSTEM,
			       .src = src,
			       .dst = dst};
	bool guarded;

	fill(p, HUGE_SIZE);
	assert_int_equal(mm_migrate_begin(&m), 0);
	assert_int_equal(m.collected, 16);
	guarded = madvise(p, PAGE, MADV_GUARD_INSTALL) == 0;
	mm_migrate_end(&m);
	host_free(src);
	host_free(dst);
	check(p, PAGE, HUGE_SIZE);
	if (guarded)
		assert_int_equal(madvise(p, PAGE, MADV_GUARD_REMOVE), 0);
	done(p);
	if (!guarded) {
		print_message("skipped: this kernel has no guards\n");
		skip();
	}
	(void)state;
}

/* Sanitizers make libc's calls do nothing. */
static void lock_memory(void *p, size_t size, bool lock)
{
	assert_int_equal(syscall(lock ? SYS_mlock : SYS_munlock, p, size), 0);
}

/* mlockall locks what pages pass through, so that nothing is moved there; nor may it seem
 * so where a page was never touched. */
static void test_locked_staging(void **state)
{
	char *p = map(HUGE_SIZE, false), *from = map(HUGE_SIZE, false);
	u64 slot, moved;

	fill(p, PAGE);
	fill(from, 2 * PAGE);
	out(p, PAGE);
	while (!mini->mm->staging.empty)
		usleep(1000);
	slot = slot_address(mini->mm, mini->mm->staging.empty);
	assert_int_equal(uffd_copy(mini->mm, slot, from + PAGE, PAGE, &moved), 0);
	lock_memory((void *)slot, PAGE, true);
	assert_int_equal(uffd_move(mini->mm, slot, (u64)p + 2 * PAGE, PAGE, &moved), -EINVAL);
	assert_int_equal(moved, 0);
	assert_int_equal(drop_pages(mini->mm, slot, PAGE), 0);
	lock_memory((void *)slot, PAGE, false);
	munmap(from, HUGE_SIZE);
	done(p);
	(void)state;
}

/* Without MOVE pages are dropped behind a copy, also locked ones. */
static void test_locked_without_move(void **state)
{
	char *p;

	assert_int_equal(mini_close(), 0);
	assert_int_equal(mini_open(USERFAULT_WITHOUT_MOVE), 0);
	p = userfault_alloc(mini->mm, HUGE_SIZE);
	memset(p, 7, HUGE_SIZE);
	lock_memory(p, HUGE_SIZE, true);
	out(p, HUGE_SIZE);
	memset(mini->vram, 9, HUGE_SIZE); /* the device's stores */
	alarm(20);
	for (size_t i = 0; i < HUGE_SIZE; i += PAGE)
		assert_int_equal(p[i]++, 9);
	alarm(0);
	assert_int_equal(userfault_free(mini->mm, p), 0);
	sync_all();
	wait_used(0);
	assert_int_equal(mini_close(), 0);
	assert_int_equal(mini_open(0), 0);
	(void)state;
}

/* A mapping is registered as a whole, also where no page of it was ever asked for. */
static void test_close_with_memory_left(void **state)
{
	char *p = map(4 * HUGE_SIZE, false), *q = userfault_alloc(mini->mm, 4 * HUGE_SIZE);

	fill(p, HUGE_SIZE);
	fill(q, 4 * HUGE_SIZE);
	out(p, PAGE);
	out(q, PAGE);
	check(p, 0, PAGE);
	check(q, 0, PAGE);
	wait_used(0);
	alarm(20); /* nobody serves what stays registered */
	assert_int_equal(mini_close(), 0);
	p[3 * HUGE_SIZE] = 1;
	munmap(p, 4 * HUGE_SIZE);
	alarm(0);
	assert_int_equal(mini_open(0), 0);
	(void)state;
}

/* Without its descriptors the home cannot keep what is on a device: that is said. The
 * child opens a home of its own. */
static void test_descriptors_closed(void **state)
{
	volatile char *p;
	void *mapping;
	size_t size;
	int status;
	pid_t pid = fork();

	if (!pid) {
		host_posix_abandon(&mapping, &size);
		if (mini_open(0))
			_exit(1);
		p = on_device(false);
		alarm(10);
		dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
		syscall(SYS_close_range, 3, ~0u, 0);
		while (p[0] != 2) /* whoever polled had them open: now it looks up */
			usleep(1000);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	(void)state;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_there_and_back),
	    cmocka_unit_test(test_part),
	    cmocka_unit_test(test_unpopulated_moves_as_zeros),
	    cmocka_unit_test(test_fill_at_the_end_of_a_mapping),
	    cmocka_unit_test(test_fill_widens),
	    cmocka_unit_test(test_munmap),
	    cmocka_unit_test(test_partial_munmap),
	    cmocka_unit_test(test_map_fixed_over),
	    cmocka_unit_test(test_mremap_grow_and_shrink),
	    cmocka_unit_test(test_mremap_used_in_part),
	    cmocka_unit_test(test_mremap_move),
	    cmocka_unit_test(test_mremap_dontunmap),
	    cmocka_unit_test(test_madv_dontneed),
	    cmocka_unit_test(test_madv_free),
	    cmocka_unit_test(test_dontneed_never_rises_again),
	    cmocka_unit_test(test_mprotect),
	    cmocka_unit_test(test_read_and_write),
	    cmocka_unit_test(test_o_direct),
	    cmocka_unit_test(test_process_vm),
	    cmocka_unit_test(test_futex),
	    cmocka_unit_test(test_pinned),
	    cmocka_unit_test(test_ksm),
	    cmocka_unit_test(test_file_and_shared_stay),
	    cmocka_unit_test(test_threads),
	    cmocka_unit_test(test_reused_address),
	    cmocka_unit_test(test_compaction),
	    cmocka_unit_test(test_stack),
	    cmocka_unit_test(test_descriptors_closed),
	    cmocka_unit_test(test_many_events),
	    cmocka_unit_test(test_guard),
	    cmocka_unit_test(test_locked_staging),
	    cmocka_unit_test(test_locked_without_move),
	    cmocka_unit_test(test_close_with_memory_left),
	};

	return cmocka_run_group_tests(tests, group_open, group_close);
}
