/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The application's interface on a live process: opening, devices, memory,
 * counters and records. Work of queues is in test_work.c.
 */
#include "tests/live/api.h"
#include "host/posix/posix.h"

/* ---- Opening and closing ---- */

static void test_open(void **state)
{
	struct gpusvm_options options = {.size = sizeof(options)};
	struct gpusvm_device_info info = {.size = sizeof(info)};
	struct gpusvm *a, *b;
	uint64_t caps = 0;

	assert_int_equal(gpusvm_open(NULL, &a), 0);
	assert_int_equal(gpusvm_open(NULL, &b), 0);
	assert_ptr_equal(a, b);
	assert_int_equal(gpusvm_open(&options, &b), -EBUSY);
	gpusvm_close(b);
	assert_int_equal(gpusvm_caps(a, &caps), 0);
	assert_int_equal(caps & ~(uint64_t)15, 0);
	assert_int_equal(gpusvm_caps(a, NULL), -EINVAL);
	assert_int_equal(gpusvm_caps(NULL, &caps), -EINVAL);
	assert_int_equal(gpusvm_device_count(a), 1);
	assert_int_equal(gpusvm_device_info(a, 0, &info), 0);
	assert_int_equal(info.vram_bytes, 256 * MB);
	assert_int_equal(info.flags, 0);
	assert_true(info.lanes > 0 && info.copy_engines > 0);
	assert_true(strlen(info.name) > 0);
	assert_int_equal(gpusvm_device_info(a, 1, &info), -EINVAL);
	assert_int_equal(gpusvm_device_info(a, -1, &info), -EINVAL);
	gpusvm_close(a);
	/* And again, with options. */
	options.home = "userfault";
	assert_int_equal(gpusvm_open(&options, &a), 0);
	gpusvm_close(a);
}

static size_t lines_of(const char *path)
{
	FILE *f = fopen(path, "r");
	size_t n = 0;
	int c;

	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

static size_t threads_now(void)
{
	char line[200];
	size_t n = 0;
	FILE *f = fopen("/proc/self/status", "r");

	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "Threads:", 8))
			n = (size_t)atoi(line + 8);
	fclose(f);
	return n;
}

static void test_nothing_is_left(void **state)
{
	size_t maps = 0, now;
	int fd;

	for (int i = 0; i < 4; i++) {
		assert_int_equal(setup(state), 0);
		unsigned char *p = map_filled(64, 1);
		to_device(p, 64);
		gpusvm_close(svm);
		check_filled(p, 64, 1);
		munmap(p, 64 * PAGE);
		now = lines_of("/proc/self/maps");
#ifdef __SANITIZE_ADDRESS__
		(void)now; /* the sanitizer's own mappings come and go */
		(void)maps;
#else
		if (i == 1)
			maps = now;
		else if (i > 1)
			assert_int_equal(now, maps);
#endif
		assert_int_equal(threads_now(), 1);
	}
	fd = open("/dev/null", O_RDONLY);
	assert_true(fd >= 0 && fd < 10); /* no descriptors */
	close(fd);
}

/* errno is the application's. */
static void test_errno(void **state)
{
	struct gpusvm_event_record record;
	struct gpusvm_event *event;
	unsigned char *p;

	errno = 4711;
	assert_int_equal(open_one(16 * MB, 0, 16), 0);
	assert_int_equal(errno, 4711);
	p = map_filled(8, 0);
	errno = 4711;
	to_device(p, 8);
	assert_int_equal(gpusvm_memset(queue, p, 1, PAGE, &event), 0);
	gpusvm_event_wait(event, 1);
	gpusvm_event_wait(event, -1);
	gpusvm_event_put(event);
	gpusvm_events_read(svm, &record, 1, sizeof(record));
	assert_int_equal(gpusvm_read(queue, &record, (void *)PAGE, 8), -EFAULT);
	gpusvm_queue_destroy(queue);
	gpusvm_free(svm, gpusvm_alloc(svm, 5000));
	assert_int_equal(errno, 4711);
	gpusvm_close(svm);
	assert_int_equal(errno, 4711);
	munmap(p, 8 * PAGE);
}

/* Without a feature of the kernel: gpusvm_alloc's memory migrates, all else works. */
static void without(uint64_t what)
{
	struct gpusvm_options options = {.size = sizeof(options), .home_without = what};
	unsigned char *p, *q = map_filled(8, 3);
	struct gpusvm_moved m;
	uint64_t caps;
	int err = gpusvm_open(&options, &svm);

	if (err) {
		print_message("without %u: %s\n", (unsigned)what, strerror(-err));
		assert_true(err == -EPERM || err == -EOPNOTSUPP || err == -ENOSYS);
		munmap(q, 8 * PAGE);
		return;
	}
	assert_int_equal(gpusvm_caps(svm, &caps), 0);
	assert_int_equal(gpusvm_queue_create(svm, 0, NULL, &queue), 0);
	p = gpusvm_alloc(svm, 8 * PAGE);
	assert_non_null(p);
	memset(p, 1, 8 * PAGE);
	assert_int_equal(move(p, 8, gpusvm_device(0), GPUSVM_STRICT, &m), 0);
	assert_int_equal(m.moved, 8);
	assert_int_equal(move(q, 8, gpusvm_device(0), 0, &m), 0);
	assert_int_equal(m.moved, caps & GPUSVM_CAP_ANY_MEMORY ? 8 : 0);
	assert_int_equal(gpusvm_memcpy(queue, p, q, 4 * PAGE, NULL), 0);
	assert_int_equal(gpusvm_memcpy(queue, q + 4 * PAGE, p, 4 * PAGE, NULL), 0);
	assert_memory_equal(q, q + 4 * PAGE, 4 * PAGE);
	assert_int_equal(p[7 * PAGE], 1);
	check_filled(q, 4, 3);
	gpusvm_free(svm, p);
	gpusvm_close(svm);
	munmap(q, 8 * PAGE);
}

static void test_fallbacks(void **state)
{
	without(GPUSVM_WITHOUT_MOVE);
	without(GPUSVM_WITHOUT_EVENT_FORK);
	without(GPUSVM_WITHOUT_KERNEL_FAULTS);
	without(GPUSVM_WITHOUT_SYSCALL);
	without(GPUSVM_WITHOUT_MOVE | GPUSVM_WITHOUT_EVENT_FORK | GPUSVM_WITHOUT_KERNEL_FAULTS);
}

/* Several devices, and one without memory. */
static void test_devices(void **state)
{
	struct gpusvm_device_desc desc[3] = {
	    {.size = sizeof(desc[0]), .vram_bytes = 16 * MB},
	    {.size = sizeof(desc[0]), .vram_bytes = 5 * MB + 1, .lanes = 3},
	    {.size = sizeof(desc[0]), .flags = GPUSVM_DEVICE_NO_VRAM},
	};
	struct gpusvm_options options = {
	    .size = sizeof(options),
	    .devices = desc,
	    .n_devices = 3,
	};
	struct gpusvm_device_info info = {.size = sizeof(info)};
	unsigned char *p = map_filled(16, 1);
	struct gpusvm_queue *queues[3];

	assert_int_equal(gpusvm_open(&options, &svm), 0);
	assert_int_equal(gpusvm_device_count(svm), 3);
	assert_int_equal(gpusvm_device_info(svm, 1, &info), 0);
	assert_int_equal(info.vram_bytes, 6 * MB);
	assert_int_equal(info.lanes, 3);
	assert_int_equal(gpusvm_device_info(svm, 2, &info), 0);
	assert_int_equal(info.vram_bytes, 0);
	assert_int_equal(info.flags, GPUSVM_DEVICE_NO_VRAM);
	for (int i = 0; i < 3; i++)
		assert_int_equal(gpusvm_queue_create(svm, i, NULL, &queues[i]), 0);
	for (int i = 0; i < 30; i++)
		assert_int_equal(gpusvm_memset(queues[i % 3], p + i, i, 16 * PAGE - 30, NULL), 0);
	for (int i = 0; i < 29; i++)
		assert_int_equal(p[i], i);
	assert_int_equal(p[16 * PAGE - 30], 29);
	gpusvm_close(svm);
	munmap(p, 16 * PAGE);
}

/* ---- Memory ---- */

static void test_alloc(void **state)
{
	uint64_t *p = gpusvm_alloc(svm, 3 * MB), *q = gpusvm_alloc(svm, 10);
	struct gpusvm_moved m;

	assert_non_null(p);
	assert_non_null(q);
	assert_int_equal((uintptr_t)p % (2 * MB), 0);
	assert_int_equal((uintptr_t)q % (2 * MB), 0);
	for (size_t i = 0; i < 3 * MB / 8; i++)
		assert_int_equal(p[i], 0);
	p[0] = 5;
	p[3 * MB / 8 - 1] = 6;
	assert_int_equal(move(p, 768, gpusvm_device(0), GPUSVM_STRICT, &m), 0);
	assert_int_equal(m.moved, 768);
	assert_int_equal(p[0] + p[3 * MB / 8 - 1], 11);
	assert_int_equal(move(p, 768, gpusvm_device(0), 0, &m), 0);
	gpusvm_free(svm, p); /* wherever it is */
	gpusvm_free(svm, q);
	assert_int_equal(stats(0).vram_used, 0);
	assert_null(gpusvm_alloc(svm, 0));
	assert_null(gpusvm_alloc(svm, SIZE_MAX));
	assert_null(gpusvm_alloc(NULL, 1));
}

static void test_prefetch(void **state)
{
	unsigned char *p = map_filled(100, 3);
	struct gpusvm_event *event;
	struct gpusvm_page_info info;
	struct gpusvm_moved m;

	assert_int_equal(move(p, 100, gpusvm_device(0), 0, &m), 0);
	assert_int_equal(m.moved, 100);
	assert_int_equal(m.already + m.stayed + m.holes, 0);
	info = where_is(p + 17);
	assert_int_equal(info.location.type, GPUSVM_LOCATION_DEVICE);
	assert_int_equal(info.location.device, 0);
	assert_int_equal(info.location.region, 0);
	assert_int_equal(info.mapped_by, 1); /* it is mapped there too */
	assert_int_equal(info.duplicates, 0);
	assert_int_equal(info.flags & 27, GPUSVM_PAGE_MAPPED | GPUSVM_PAGE_POPULATED |
					      GPUSVM_PAGE_READABLE | GPUSVM_PAGE_WRITABLE);
	assert_int_equal(move(p, 100, gpusvm_device(0), GPUSVM_STRICT, &m), 0);
	assert_int_equal(m.already, 100);
	assert_int_equal(m.moved, 0);
	/* One byte is one page; two may be two. */
	assert_int_equal(gpusvm_prefetch(svm, p + 5 * PAGE + 9, 1, gpusvm_system(), 0, &m, NULL),
			 0);
	assert_int_equal(m.moved, 1);
	assert_int_equal(gpusvm_prefetch(svm, p + 8 * PAGE - 1, 2, gpusvm_system(), 0, &m, NULL),
			 0);
	assert_int_equal(m.moved, 2);
	assert_int_equal(count_in(p, 100, GPUSVM_LOCATION_SYSTEM), 3);
	assert_int_equal(gpusvm_prefetch(svm, p, 0, gpusvm_system(), GPUSVM_STRICT, &m, NULL), 0);
	assert_int_equal(m.moved + m.already + m.stayed + m.holes, 0);
	/* With an event. */
	assert_int_equal(gpusvm_prefetch(svm, p, 100 * PAGE, gpusvm_system(), 0, NULL, &event), 0);
	assert_int_equal(gpusvm_event_wait(event, -1), 0);
	gpusvm_event_put(event);
	assert_int_equal(count_in(p, 100, GPUSVM_LOCATION_SYSTEM), 100);
	assert_int_equal(gpusvm_prefetch(svm, p, 1, gpusvm_system(), 0, &m, &event), -EINVAL);
	check_filled(p, 100, 3);
	munmap(p, 100 * PAGE);
}

static void test_prefetch_holes(void **state)
{
	unsigned char *p = map_filled(64, 5);
	struct gpusvm_moved m;

	munmap(p + 10 * PAGE, 4 * PAGE);
	assert_int_equal(move(p, 64, gpusvm_device(0), GPUSVM_STRICT, &m), -ENOENT);
	assert_int_equal(m.holes, 4);
	assert_int_equal(m.moved, 60); /* what could go went, and is told */
	assert_int_equal(move(p, 64, gpusvm_device(0), 0, &m), 0);
	assert_int_equal(m.holes, 4);
	assert_int_equal(m.already, 60);
	assert_int_equal(move(p + 10 * PAGE, 4, gpusvm_device(0), 0, &m), 0);
	assert_int_equal(m.holes, 4);
	check_filled(p, 10, 5);
	assert_int_equal(
	    gpusvm_prefetch(svm, NULL, PAGE, gpusvm_device(0), GPUSVM_STRICT, NULL, NULL), -ENOENT);
	munmap(p, 64 * PAGE);
}

/* What was never touched is no hole: it moves, as zeros. */
/* What is asked for may be a large part of the address space. */
static void test_prefetch_a_large_hole(void **state)
{
	const struct gpusvm_location where[] = {gpusvm_device(0), gpusvm_system(),
						gpusvm_preferred()};
	const size_t n = (size_t)1 << 32;
	unsigned char *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct gpusvm_moved m;

	assert_ptr_not_equal(p, MAP_FAILED);
	assert_int_equal(munmap(p, (n - 1) * PAGE), 0);
	p[(n - 1) * PAGE] = 5;
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(move(p, n, where[i], 0, &m), 0);
		assert_int_equal(m.holes, n - 1);
		assert_int_equal(i < 2 ? m.moved : m.already, 1);
		assert_int_equal(move(p, n, where[i], GPUSVM_STRICT, &m), i ? -ENOENT : -ENOSPC);
	}
	assert_int_equal(p[(n - 1) * PAGE], 5);
	munmap(p + (n - 1) * PAGE, PAGE);
}

static void test_prefetch_unpopulated(void **state)
{
	unsigned char *p = map_pages(600, PROT_READ | PROT_WRITE);
	struct gpusvm_moved m;

	assert_int_equal(move(p, 600, gpusvm_device(0), GPUSVM_STRICT, &m), 0);
	assert_int_equal(m.moved, 600);
	assert_int_equal(count_in(p, 600, GPUSVM_LOCATION_DEVICE), 600);
	for (size_t i = 0; i < 600 * PAGE; i += 512)
		assert_int_equal(p[i], 0);
	munmap(p, 600 * PAGE);
}

static void test_prefetch_that_stays(void **state)
{
	char name[] = "/tmp/gpusvm-test-XXXXXX";
	struct gpusvm_moved m;
	unsigned char *p, *q;
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(ftruncate(fd, 4 * (off_t)PAGE), 0);
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	memset(p, 9, 4 * PAGE);
	assert_int_equal(move(p, 4, gpusvm_device(0), 0, &m), 0);
	assert_int_equal(m.stayed, 4);
	assert_int_equal(move(p, 4, gpusvm_device(0), GPUSVM_STRICT, &m), -ENOENT);
	assert_int_equal(count_in(p, 4, GPUSVM_LOCATION_SYSTEM), 4);
	assert_int_equal(gpusvm_memset(queue, p, 4, 4 * PAGE, NULL), 0); /* where it is */
	assert_int_equal(p[4 * PAGE - 1], 4);
	q = map_filled(4, 1);
	mprotect(q, 4 * PAGE, PROT_READ);
	assert_int_equal(move(q, 4, gpusvm_device(0), 0, &m), 0);
	assert_int_equal(m.stayed, 4);
	munmap(p, 4 * PAGE);
	munmap(q, 4 * PAGE);
	close(fd);
}

/* What a device read while nobody might write it moves, once that is over. */
static void test_prefetch_after_read_only(void **state)
{
	unsigned char *edge = map_pages(10, PROT_NONE), *p = edge + PAGE, byte;
	struct gpusvm_moved m;

	assert_int_equal(mprotect(p, 8 * PAGE, PROT_READ | PROT_WRITE), 0);
	memset(p, 5, 8 * PAGE);
	assert_int_equal(mprotect(p, 8 * PAGE, PROT_READ), 0);
	assert_int_equal(gpusvm_read(queue, &byte, p + PAGE, 1), 0);
	assert_int_equal(byte, 5);
	assert_int_equal(mprotect(p, 8 * PAGE, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(move(p, 8, gpusvm_device(0), 0, &m), 0);
	assert_int_equal(m.moved, 8);
	p[3] = 6;
	assert_int_equal(gpusvm_read(queue, &byte, p + 3, 1), 0);
	assert_int_equal(byte, 6);
	munmap(edge, 10 * PAGE);
}

static void test_prefetch_too_much(void **state)
{
	size_t n = 80 * MB / PAGE; /* of 64M */
	unsigned char *p = map_pages(n, PROT_READ | PROT_WRITE);
	struct gpusvm_moved m;

	memset(p, 1, n * PAGE);
	assert_int_equal(move(p, n, gpusvm_device(0), GPUSVM_STRICT, &m), -ENOSPC);
	assert_int_equal(m.moved, 0);
	assert_int_equal(count_in(p, n, GPUSVM_LOCATION_DEVICE), 0);
	assert_int_equal(move(p, n, gpusvm_device(0), 0, &m), 0);
	assert_int_equal(m.moved + m.already + m.stayed + m.holes, n);
	for (size_t i = 0; i < n * PAGE; i += PAGE)
		assert_int_equal(p[i], 1);
	munmap(p, n * PAGE);
}

/* Whole pages only, rounded inward; on the device and at home. */
static void test_discard(void **state)
{
	unsigned char *p = map_filled(64, 3);
	uint64_t used;

	to_device(p, 32);
	used = stats(0).vram_used;
	assert_int_equal(gpusvm_discard(svm, p + 10, PAGE), 0); /* no whole page */
	assert_int_equal(gpusvm_discard(svm, p, 0), 0);
	assert_int_equal(gpusvm_discard(svm, MAP_FAILED, 0), 0);
	assert_int_equal(gpusvm_discard(svm, MAP_FAILED, 2), -EINVAL);
	check_filled(p, 1, 3);
	to_device(p, 32);
	assert_int_equal(gpusvm_discard(svm, p + 8 * PAGE + 1, 48 * PAGE - 2), 0);
	assert_int_equal(count_in(p, 64, GPUSVM_LOCATION_DEVICE), 8 + 1);
	assert_true(stats(0).vram_used < used);
	for (size_t i = 0; i < 64 * PAGE; i++) {
		bool dropped = i >= 9 * PAGE && i < 55 * PAGE;

		if (p[i] != (dropped ? 0 : (unsigned char)(i * 7 + (i >> 12) + 3)))
			fail_msg("byte %zu is %u", i, p[i]);
	}
	/* What the device sees there is zeros, too; and it can be used again. */
	assert_int_equal(gpusvm_memset(queue, p, 9, 64 * PAGE, NULL), 0);
	assert_int_equal(gpusvm_discard(svm, p, 64 * PAGE), 0);
	assert_int_equal(gpusvm_memcpy(queue, p, p + 32 * PAGE, 32 * PAGE, NULL), 0);
	for (size_t i = 0; i < 64 * PAGE; i++)
		assert_int_equal(p[i], 0);
	munmap(p + 10 * PAGE, PAGE);
	memset(p, 1, 10 * PAGE);
	assert_int_equal(gpusvm_discard(svm, p, 64 * PAGE), -ENOENT);
	assert_int_equal(p[0], 1);
	assert_int_equal(gpusvm_discard(svm, (void *)~(uintptr_t)0, 2), -EINVAL);
	assert_int_equal(gpusvm_discard(NULL, p, PAGE), -EINVAL);
	munmap(p, 64 * PAGE);
	(void)state;
}

static void test_evict(void **state)
{
	unsigned char *p = map_filled(700, 8);

	to_device(p, 700);
	assert_int_equal(stats(0).vram_used % PAGE, 0);
	assert_true(stats(0).vram_used >= 700 * PAGE);
	assert_int_equal(gpusvm_evict(svm, 0), 0);
	assert_int_equal(count_in(p, 700, GPUSVM_LOCATION_SYSTEM), 700);
	assert_int_equal(stats(0).vram_used, 0);
	to_device(p, 700);
	assert_int_equal(gpusvm_evict(svm, -1), 0);
	assert_int_equal(count_in(p, 700, GPUSVM_LOCATION_SYSTEM), 700);
	assert_int_equal(gpusvm_evict(svm, 1), -EINVAL);
	assert_int_equal(gpusvm_evict(svm, -2), -EINVAL);
	check_filled(p, 700, 8);
	munmap(p, 700 * PAGE);
}

static void test_residency(void **state)
{
	unsigned char *p = map_pages(6, PROT_READ | PROT_WRITE);
	struct {
		struct gpusvm_page_info info;
		uint64_t mark;
	} far[6];
	struct gpusvm_page_info i[6];

	p[0] = 1;
	mprotect(p + 2 * PAGE, PAGE, PROT_NONE);
	p[3 * PAGE] = 1;
	mprotect(p + 3 * PAGE, PAGE, PROT_READ);
	munmap(p + 4 * PAGE, PAGE);
	memset(far, 0xff, sizeof(far));
	assert_int_equal(gpusvm_residency(svm, p, 6 * PAGE, i, 5, sizeof(i[0])), -ENOSPC);
	assert_int_equal(gpusvm_residency(svm, p + 1, 5 * PAGE, &far[0].info, 6, sizeof(far[0])),
			 0);
	for (int k = 0; k < 6; k++) {
		i[k] = far[k].info;
		assert_int_equal(far[k].mark, 0);
	}
	assert_int_equal(i[0].flags, GPUSVM_PAGE_MAPPED | GPUSVM_PAGE_POPULATED |
					 GPUSVM_PAGE_READABLE | GPUSVM_PAGE_WRITABLE);
	assert_int_equal(i[0].location.type, GPUSVM_LOCATION_SYSTEM);
	assert_int_equal(i[0].mapped_by, 0);
	assert_int_equal(i[1].flags,
			 GPUSVM_PAGE_MAPPED | GPUSVM_PAGE_READABLE | GPUSVM_PAGE_WRITABLE);
	assert_int_equal(i[1].location.type, GPUSVM_LOCATION_NONE);
	assert_int_equal(i[2].flags & ~GPUSVM_PAGE_POPULATED, GPUSVM_PAGE_MAPPED);
	assert_int_equal(i[3].flags,
			 GPUSVM_PAGE_MAPPED | GPUSVM_PAGE_POPULATED | GPUSVM_PAGE_READABLE);
	assert_int_equal(i[4].flags, 0);
	assert_int_equal(i[4].location.type, GPUSVM_LOCATION_NONE);
	assert_int_equal(gpusvm_residency(svm, p, 1, i, 1, sizeof(i[0]) - 1), -EINVAL);
	assert_int_equal(gpusvm_residency(svm, p, 1, NULL, 1, sizeof(i[0])), -EINVAL);
	assert_int_equal(gpusvm_residency(svm, p, 0, NULL, 0, sizeof(i[0])), 0);
	munmap(p, 6 * PAGE);
}

static void *to_and_fro(void *arg)
{
	unsigned char *volatile *p = arg;
	struct gpusvm_moved m;

	while (*p) {
		unsigned char *page = *p;

		if (page && move(page, 1, gpusvm_device(0), 0, &m))
			return "prefetch";
		if (page)
			page[1]++;
	}
	return NULL;
}

/* A device's frames are forgotten as soon as there is no page on it; and a page is somewhere,
 * also when it leaves one place for another meanwhile. */
static void test_residency_of_what_moves(void **state)
{
	struct gpusvm_options options = {
	    .size = sizeof(options), .timeslice_ns = 1, .keepalive_ns = 1};
	const unsigned there = GPUSVM_PAGE_MAPPED | GPUSVM_PAGE_POPULATED;
	unsigned char *page, *p;
	pthread_t thread;
	void *err;

	assert_int_equal(gpusvm_open(&options, &svm), 0);
	page = p = map_filled(1, 1);
	assert_int_equal(pthread_create(&thread, NULL, to_and_fro, &p), 0);
	for (int i = 0; i < 40000; i++)
		assert_int_equal(where_is(page).flags & there, there);
	*(unsigned char *volatile *)&p = NULL;
	pthread_join(thread, &err);
	assert_null(err);
	gpusvm_close(svm);
	munmap(page, PAGE);
}

static void test_residency_order(void **state)
{
	unsigned char *p = gpusvm_alloc(svm, 2 * MB);
	uint64_t caps = 0;

	assert_non_null(p);
	memset(p, 1, 2 * MB);
	to_device(p, 512);
	assert_int_equal(gpusvm_caps(svm, &caps), 0);
	if (!(caps & GPUSVM_CAP_HUGE) || where_is(p).order != 9)
		print_message("no huge page was had here\n");
	assert_int_equal(where_is(p).order, where_is(p + 2 * MB - 1).order);
	gpusvm_free(svm, p);
}

/* ---- Counters and records ---- */

static void test_stats(void **state)
{
	/* A mapping of its own, so that no neighbour moves with it. */
	unsigned char *edge = map_pages(34, PROT_NONE), *p = edge + PAGE;
	struct gpusvm_stats s = stats(0), t;
	unsigned sum = 0;

	assert_int_equal(mprotect(p, 32 * PAGE, PROT_READ | PROT_WRITE), 0);
	memset(p, 7, 32 * PAGE);
	assert_int_equal(s.pages_to_device, 0);
	assert_int_equal(gpusvm_memset(queue, p, 1, 32 * PAGE, NULL), 0);
	s = stats(0);
	assert_int_equal(s.device_faults > 0, 1);
	assert_int_equal(s.device_faults <= 32, 1);
	to_device(p, 32);
	t = stats(0);
	assert_int_equal(t.device_faults, s.device_faults); /* prefetch is none */
	assert_true(t.pages_to_device >= 32);
	assert_int_equal(t.bytes_to_device, t.pages_to_device * PAGE);
	assert_true(t.vram_used >= 32 * PAGE && t.vram_peak >= t.vram_used);
	for (size_t i = 0; i < 32; i++)
		sum += p[i * PAGE];
	assert_int_equal(sum, 32);
	/* An access goes on before its fault is over: who asks waits for that. */
	s = stats(-1);
	assert_true(s.cpu_faults > 0 && s.cpu_faults <= 32);
	assert_int_equal(s.pages_to_system, 32);
	assert_int_equal(s.bytes_to_system, 32 * PAGE);
	assert_int_equal(stats(0).vram_used, 0);
	assert_int_equal(gpusvm_advise(svm, p, 32 * PAGE, GPUSVM_GRANULARITY, 1, gpusvm_none()), 0);
	for (int round = 0; round < 20; round++) {
		to_device(p, 32);
		s = stats(0);
		for (size_t i = 0; i < 32; i++)
			assert_int_equal(p[i * PAGE], 1);
		t = stats(0);
		assert_int_equal(t.cpu_faults - s.cpu_faults, 32);
		assert_int_equal(t.pages_to_system - s.pages_to_system, 32);
		assert_int_equal(t.vram_used, 0);
	}
	to_device(p, 32);
	munmap(edge, 34 * PAGE);
	assert_int_equal(stats(0).vram_used, 0);
}

static void test_vram_peak(void **state)
{
	unsigned char *p = map_filled(3, 1);

	to_device(p, 3);
	assert_int_equal(stats(0).vram_used, 3 * PAGE);
	assert_int_equal(stats(0).vram_peak, 3 * PAGE);
	munmap(p, 3 * PAGE);
}

static void test_events(void **state)
{
	struct gpusvm_event_record r[100];
	unsigned char *p;
	uint64_t end = 0;
	bool migrate = false, cpu = false;
	int n;

	assert_int_equal(open_one(16 * MB, 0, 100), 0);
	p = map_filled(16, 2);
	to_device(p, 16);
	assert_int_equal(p[0], 2);
	assert_int_equal(stats(0).cpu_faults, 1); /* and what is counted is recorded */
	n = gpusvm_events_read(svm, r, 100, sizeof(r[0]));
	assert_true(n >= 2);
	for (int i = 0; i < n; i++) {
		assert_true(r[i].time_ns + r[i].duration_ns >= end);
		end = r[i].time_ns + r[i].duration_ns;
		if (r[i].type == GPUSVM_EVENT_MIGRATE && r[i].cause == GPUSVM_CAUSE_PREFETCH) {
			migrate = true;
			assert_int_equal(r[i].to.type, GPUSVM_LOCATION_DEVICE);
			assert_int_equal(r[i].from.type, GPUSVM_LOCATION_SYSTEM);
			assert_true(r[i].address >= (uintptr_t)p &&
				    r[i].address + r[i].length <= (uintptr_t)p + 16 * PAGE);
		}
		cpu |= r[i].type == GPUSVM_EVENT_CPU_FAULT;
	}
	assert_true(migrate && cpu);
	assert_int_equal(gpusvm_events_read(svm, r, 100, sizeof(r[0])), 0);
	gpusvm_close(svm);
	/* A ring of two loses most. */
	assert_int_equal(open_one(16 * MB, 0, 2), 0);
	for (int i = 0; i < 10; i++) {
		to_device(p, 16);
		assert_int_equal(p[0], 2);
		assert_int_equal(move(p, 16, gpusvm_system(), 0, &(struct gpusvm_moved){.size = 0}),
				 0);
	}
	n = gpusvm_events_read(svm, r, 100, sizeof(r[0]));
	assert_int_equal(n, 3);
	assert_int_equal(r[2].type, GPUSVM_EVENT_LOST);
	assert_true(r[2].length >= 8);
	gpusvm_close(svm);
	munmap(p, 16 * PAGE);
}

/* ---- Unplugging ---- */

static void test_device_unbind(void **state)
{
	struct gpusvm_device_info info = {.size = sizeof(info)};
	struct gpusvm_stats s = {.size = sizeof(s)};
	unsigned char *p = map_filled(600, 4);
	struct gpusvm_queue *other;
	struct gpusvm_moved m;

	to_device(p, 600);
	assert_int_equal(gpusvm_device_unbind(svm, 1), -EINVAL);
	assert_int_equal(gpusvm_device_unbind(svm, 0), 0);
	assert_int_equal(count_in(p, 600, GPUSVM_LOCATION_SYSTEM), 600);
	check_filled(p, 600, 4);
	assert_int_equal(gpusvm_device_unbind(svm, 0), -ENODEV);
	assert_int_equal(gpusvm_device_count(svm), 1);
	assert_int_equal(gpusvm_device_info(svm, 0, &info), -ENODEV);
	assert_int_equal(gpusvm_stats(svm, 0, &s), -ENODEV);
	assert_int_equal(move(p, 1, gpusvm_device(0), 0, &m), -ENODEV);
	assert_int_equal(gpusvm_evict(svm, 0), -ENODEV);
	assert_int_equal(gpusvm_queue_create(svm, 0, NULL, &other), -ENODEV);
	assert_int_equal(gpusvm_memset(queue, p, 1, 1, NULL), -ENODEV);
	assert_int_equal(gpusvm_read(queue, p, p, 1), -ENODEV);
	assert_int_equal(gpusvm_bind(queue, p, 1, 0), -ENODEV);
	gpusvm_queue_destroy(queue);
	munmap(p, 600 * PAGE);
}

static void *read_byte(void *p)
{
	return (void *)(uintptr_t)*(volatile unsigned char *)p;
}

/* A time without end is a long one: the CPU waits, nothing is lost. */
static void test_timeslice_without_end(void **state)
{
	const uint64_t times[] = {(uint64_t)3 << 62, UINT64_MAX};

	for (size_t i = 0; i < 2; i++) {
		struct gpusvm_options options = {.size = sizeof(options),
						 .timeslice_ns = times[i],
						 .keepalive_ns = times[i]};
		unsigned char *p;
		struct gpusvm_moved m;
		pthread_t thread;
		void *value;

		assert_int_equal(gpusvm_open(&options, &svm), 0);
		p = map_filled(16, 3);
		to_device(p, 16);
		assert_int_equal(pthread_create(&thread, NULL, read_byte, p + PAGE), 0);
		usleep(50000);
		assert_int_equal(count_in(p, 16, GPUSVM_LOCATION_DEVICE), 16);
		assert_int_equal(move(p, 16, gpusvm_system(), GPUSVM_STRICT, &m), 0);
		assert_int_equal(pthread_join(thread, &value), 0);
		assert_int_equal((uintptr_t)value, p[PAGE]);
		check_filled(p, 16, 3);
		munmap(p, 16 * PAGE);
		gpusvm_close(svm);
	}
}

#define WINDOWS 100 /* of 512M: notifiers */

static void *unmap_all(void *arg)
{
	unsigned char **pages = arg;

	usleep((unsigned)(uintptr_t)pages[WINDOWS]);
	for (int i = 0; i < WINDOWS; i++)
		munmap(pages[i], PAGE);
	return NULL;
}

/* Ranges lose their mapping while the handle that has them is closed. */
static void test_close_while_unmapping(void **state)
{
	unsigned char *pages[WINDOWS + 1];
	uint64_t warnings = host_posix_warnings();

	for (unsigned round = 0; round < 150; round++) {
		pthread_t thread;

		assert_int_equal(gpusvm_open(NULL, &svm), 0);
		for (size_t i = 0; i < WINDOWS; i++) {
			pages[i] = mmap((void *)(((uintptr_t)1 << 45) + i * 512 * MB), PAGE,
					PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
			assert_ptr_not_equal(pages[i], MAP_FAILED);
			to_device(pages[i], 1);
		}
		pages[WINDOWS] = (unsigned char *)(uintptr_t)(round * 20 + 1);
		assert_int_equal(pthread_create(&thread, NULL, unmap_all, pages), 0);
		gpusvm_close(svm);
		pthread_join(thread, NULL);
		assert_int_equal(host_posix_warnings(), warnings); /* nothing is left */
	}
}

static void spin(struct gpusvm_lane *lane, uint64_t item, const void *args)
{
	uint32_t *const *p = args;

	while (!gpusvm_ld32(lane, *p))
		;
}

static void test_device_unbind_under_work(void **state)
{
	const struct gpusvm_kernel kernel = {sizeof(kernel), "spin", spin};
	unsigned char *p = map_pages(1, PROT_READ | PROT_WRITE);
	struct gpusvm_fault fault = {.size = sizeof(fault)};
	struct gpusvm_event *event, *later;

	assert_int_equal(gpusvm_launch(queue, &kernel, &p, sizeof(p), 1, &event), 0);
	assert_int_equal(gpusvm_memset(queue, p + 8, 1, 1, &later), 0);
	assert_int_equal(gpusvm_event_wait(event, 20000000), -ETIME);
	assert_int_equal(gpusvm_device_unbind(svm, 0), 0);
	assert_int_equal(gpusvm_event_wait(event, -1), -ENODEV);
	assert_int_equal(gpusvm_event_wait(later, -1), -ENODEV);
	assert_int_equal(gpusvm_event_fault(event, &fault), -ENOENT);
	gpusvm_event_put(event);
	gpusvm_event_put(later);
	assert_int_equal(p[8], 0);
	munmap(p, PAGE);
}

int main(int argc, char **argv)
{
#define WITH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_open),
	    cmocka_unit_test(test_nothing_is_left),
	    cmocka_unit_test(test_errno),
	    cmocka_unit_test(test_fallbacks),
	    cmocka_unit_test(test_devices),
	    cmocka_unit_test(test_timeslice_without_end),
	    cmocka_unit_test(test_close_while_unmapping),
	    WITH(test_alloc),
	    WITH(test_prefetch),
	    WITH(test_prefetch_holes),
	    WITH(test_prefetch_a_large_hole),
	    WITH(test_prefetch_unpopulated),
	    WITH(test_prefetch_that_stays),
	    WITH(test_prefetch_after_read_only),
	    WITH(test_prefetch_too_much),
	    WITH(test_discard),
	    WITH(test_evict),
	    WITH(test_residency),
	    cmocka_unit_test(test_residency_of_what_moves),
	    WITH(test_residency_order),
	    WITH(test_stats),
	    WITH(test_vram_peak),
	    cmocka_unit_test(test_events),
	    WITH(test_device_unbind),
	    WITH(test_device_unbind_under_work),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
	return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}
