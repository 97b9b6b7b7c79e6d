/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Several devices on a live process: links, pages of several devices, moves between
 * them, devices that come and go.
 */
#include "tests/live/api.h"

#include <poll.h>
#include <stdbool.h>

#define ALL (GPUSVM_LINK_MAP | GPUSVM_LINK_COPY)
#define DEVICES 4

static struct gpusvm_queue *queues[DEVICES];

/* DEVICES of so much memory, with a link from each to each. */
static int open_linked(uint64_t vram, uint64_t flags)
{
	struct gpusvm_device_desc devices[DEVICES];
	struct gpusvm_link_desc links[DEVICES * DEVICES];
	struct gpusvm_options options = {
	    .size = sizeof(options), .devices = devices, .n_devices = DEVICES, .links = links};
	int err;

	for (int i = 0; i < DEVICES; i++) {
		devices[i] = (struct gpusvm_device_desc){.size = sizeof(devices[i]),
							 .vram_bytes = vram + (uint64_t)i * 2 * MB};
		for (int k = 0; flags && k < DEVICES; k++)
			if (i != k)
				links[options.n_links++] = (struct gpusvm_link_desc){
				    i, k, {sizeof(struct gpusvm_link), 0, 0, flags}};
	}
	err = gpusvm_open(&options, &svm);
	for (int i = 0; !err && i < DEVICES; i++)
		err = gpusvm_queue_create(svm, i, NULL, &queues[i]);
	return err;
}

static int setup_linked(void **state)
{
	return open_linked(16 * MB, ALL);
}

static int setup_apart(void **state)
{
	return open_linked(16 * MB, 0);
}

static void link_set(int from, int to, uint64_t flags)
{
	struct gpusvm_link link = {.size = sizeof(link), .flags = flags};

	assert_int_equal(gpusvm_link_set(svm, from, to, &link), 0);
}

static void move_to(void *p, size_t n, int device, uint64_t moved)
{
	struct gpusvm_moved m;

	assert_int_equal(move(p, n, gpusvm_device(device), 0, &m), 0);
	assert_int_equal(m.moved, moved);
	assert_int_equal(m.moved + m.already, n);
}

static void check_on(int device, unsigned char *p, size_t n, unsigned seed)
{
	unsigned char *copy = malloc(n * PAGE);

	assert_int_equal(gpusvm_read(queues[device], copy, p, n * PAGE), 0);
	check_filled(copy, n, seed);
	free(copy);
}

/* ---- Arguments ---------------------------------------------------------------- */

static int open_links(struct gpusvm_link_desc *links, unsigned n)
{
	struct gpusvm_device_desc devices[2] = {{.size = sizeof(devices[0])},
						{.size = sizeof(devices[0])}};
	struct gpusvm_options options = {.size = sizeof(options),
					 .devices = devices,
					 .n_devices = 2,
					 .links = links,
					 .n_links = n};
	int err = gpusvm_open(&options, &svm);

	if (!err)
		gpusvm_close(svm);
	return err;
}

static void test_link_arguments(void **state)
{
	struct gpusvm_link_desc bad[] = {{0, 0, {sizeof(bad[0].link), 0, 0, ALL}},
					 {0, 2, {sizeof(bad[0].link), 0, 0, ALL}},
					 {-1, 0, {sizeof(bad[0].link), 0, 0, ALL}},
					 {0, 1, {sizeof(bad[0].link), 0, 0, 4}},
					 {0, 1, {0, 0, 0, ALL}}};
	struct gpusvm_link_desc good[] = {{0, 1, {sizeof(good[0].link), 0, 0, ALL}},
					  {1, 0, {sizeof(good[0].link), 9, 9, 0}}};
	struct gpusvm_link link = {.size = sizeof(link), .flags = ALL};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(open_links(&bad[i], 1), -EINVAL);
	assert_int_equal(open_links(NULL, 1), -EINVAL);
	assert_int_equal(open_links(good, 2), 0);
	assert_int_equal(open_linked(4 * MB, 0), 0);
	assert_int_equal(gpusvm_link_set(svm, 0, 0, &link), -EINVAL);
	assert_int_equal(gpusvm_link_set(svm, 0, DEVICES, &link), -EINVAL);
	assert_int_equal(gpusvm_link_set(svm, -1, 0, NULL), -EINVAL);
	assert_int_equal(gpusvm_link_set(svm, 0, 1, NULL), 0);
	link.flags = 4;
	assert_int_equal(gpusvm_link_set(svm, 0, 1, &link), -EINVAL);
	link.size = 1;
	assert_int_equal(gpusvm_link_set(svm, 0, 1, &link), -EINVAL);
	assert_int_equal(gpusvm_device_unbind(svm, 1), 0);
	link = (struct gpusvm_link){.size = sizeof(link), .flags = ALL};
	assert_int_equal(gpusvm_link_set(svm, 0, 1, &link), -ENODEV);
	assert_int_equal(gpusvm_link_set(svm, 1, 0, &link), -ENODEV);
	teardown(NULL);
}

static void test_each_has_its_own_memory(void **state)
{
	struct gpusvm_device_info info = {.size = sizeof(info)};

	assert_int_equal(gpusvm_device_count(svm), DEVICES);
	for (int i = 0; i < DEVICES; i++) {
		assert_int_equal(gpusvm_device_info(svm, i, &info), 0);
		assert_int_equal(info.vram_bytes, 16 * MB + (uint64_t)i * 2 * MB);
	}
	assert_int_equal(gpusvm_device_info(svm, DEVICES, &info), -EINVAL);
}

/* ---- Pages of several devices --------------------------------------------------- */

static void test_peers_are_mapped(void **state)
{
	unsigned char *p = gpusvm_alloc(svm, 4 * MB);
	uint64_t word = 0;

	for (size_t i = 0; i < 4 * MB; i++)
		p[i] = (unsigned char)(i * 7 + (i >> 12) + 3);
	for (unsigned i = 0; i < 16; i++) /* a quarter of each 2M for each */
		move_to(p + i * 64 * PAGE, 64, (int)i % DEVICES, 64);
	for (int i = 0; i < DEVICES; i++)
		check_on(i, p, 1024, 3);
	for (unsigned i = 0; i < 16; i++) {
		struct gpusvm_page_info info = where_is(p + i * 64 * PAGE);

		assert_int_equal(info.location.device, i % DEVICES);
		assert_int_equal(info.mapped_by, (1 << DEVICES) - 1);
	}
	assert_int_equal(stats(-1).pages_to_system, 0);
	assert_int_equal(stats(-1).pages_peer, 0);
	/* Written by one into the memory of another, and read by all. */
	word = 0x1122334455667788;
	assert_int_equal(gpusvm_write(queues[3], p + 64 * PAGE, &word, sizeof(word)), 0);
	word = 0;
	assert_int_equal(gpusvm_read(queues[0], &word, p + 64 * PAGE, sizeof(word)), 0);
	assert_int_equal(word, 0x1122334455667788);
	assert_int_equal(*(uint64_t *)(void *)(p + 64 * PAGE), 0x1122334455667788);
	gpusvm_free(svm, p);
}

static void test_moves_between_devices(void **state)
{
	unsigned char *p = gpusvm_alloc(svm, 4 * MB);
	struct gpusvm_stats s;

	for (size_t i = 0; i < 4 * MB; i++)
		p[i] = (unsigned char)(i * 7 + (i >> 12) + 5);
	move_to(p, 1024, 0, 1024);
	for (int i = 1; i < 9; i++)
		move_to(p, 1024, i % DEVICES, 1024);
	s = stats(-1);
	assert_int_equal(s.pages_peer, 8 * 1024);
	assert_int_equal(s.bytes_peer, 8 * 4 * MB);
	assert_int_equal(s.pages_to_device, 1024);
	assert_int_equal(s.pages_to_system, 0);
	assert_int_equal(s.vram_used, 4 * MB);
	assert_int_equal(stats(1).pages_peer, 2 * 1024);
	check_filled(p, 1024, 5);
	/* Small pages, in part at home. */
	madvise(p, 4 * MB, MADV_NOHUGEPAGE);
	move_to(p, 700, 1, 700);
	move_to(p, 1024, 2, 1024);
	assert_int_equal(stats(2).pages_peer, 2 * 1024 + 700);
	check_on(2, p, 1024, 5);
	check_filled(p, 1024, 5);
	gpusvm_free(svm, p);
}

static void test_without_links_it_bounces(void **state)
{
	unsigned char *p = map_filled(600, 7);

	move_to(p, 600, 0, 600);
	move_to(p, 600, 1, 600);
	assert_int_equal(stats(-1).pages_peer, 0);
	assert_int_equal(stats(0).pages_to_system, 600);
	assert_int_equal(stats(1).pages_to_device, 600);
	check_on(1, p, 600, 7);
	check_on(2, p, 600, 7);
	check_filled(p, 600, 7);
	munmap(p, 600 * PAGE);
}

static void test_link_down(void **state)
{
	unsigned char *p = map_filled(512, 1);

	move_to(p, 512, 1, 512);
	check_on(0, p, 512, 1);
	check_on(2, p, 512, 1);
	assert_int_equal(where_is(p).mapped_by, 7);
	assert_int_equal(gpusvm_link_set(svm, 0, 1, NULL), 0);
	assert_int_equal(where_is(p).mapped_by, 6);
	link_set(2, 1, GPUSVM_LINK_COPY);
	assert_int_equal(where_is(p).mapped_by, 2);
	/* Whether a fault would pull pages that have just moved, or map them at home, is
	 * for policy to say; that they can be pulled is not. */
	move_to(p, 512, 2, 512);
	assert_int_equal(stats(2).pages_peer, 512);
	check_on(2, p, 512, 1);
	assert_int_equal(where_is(p).location.device, 2);
	check_filled(p, 512, 1);
	munmap(p, 512 * PAGE);
}

/* Threads that touch a page that goes from one device to another find it. */
static void *toucher(void *arg)
{
	unsigned char **p = arg;
	unsigned sum = 0;

	for (unsigned i = 0; i < 20000; i++)
		sum += __atomic_load_n(&p[0][(i * 37 % 512) * PAGE], __ATOMIC_RELAXED);
	return (void *)(uintptr_t)sum;
}

static void test_touch_while_it_moves(void **state)
{
	unsigned char *p = map_filled(512, 2);
	struct gpusvm_moved m;
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, toucher, &p), 0);
	for (int i = 0; i < 300; i++)
		assert_int_equal(move(p, 512, gpusvm_device(i % DEVICES), 0, &m), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	check_filled(p, 512, 2);
	munmap(p, 512 * PAGE);
}

/* ---- Coming and going ------------------------------------------------------------- */

static void test_bind(void **state)
{
	struct gpusvm_device_desc desc = {.size = sizeof(desc), .vram_bytes = 8 * MB};
	struct gpusvm_device_info info = {.size = sizeof(info)};
	unsigned char *p = map_filled(512, 9);
	struct gpusvm_queue *q;
	struct gpusvm_moved m;

	assert_int_equal(gpusvm_device_bind(svm, NULL), -EINVAL);
	desc.kind = "nonsense";
	assert_int_equal(gpusvm_device_bind(svm, &desc), -EINVAL);
	desc.kind = NULL;
	move_to(p, 512, 0, 512);
	assert_int_equal(gpusvm_device_bind(svm, &desc), DEVICES);
	assert_int_equal(gpusvm_device_count(svm), DEVICES + 1);
	assert_int_equal(gpusvm_device_info(svm, DEVICES, &info), 0);
	assert_int_equal(info.vram_bytes, 8 * MB);
	assert_int_equal(gpusvm_queue_create(svm, DEVICES, NULL, &q), 0);
	move_to(p, 512, DEVICES, 512);
	assert_int_equal(stats(DEVICES).pages_to_device, 512); /* it has no links yet */
	link_set(0, DEVICES, ALL);
	link_set(DEVICES, 0, ALL);
	move_to(p, 512, 0, 512);
	move_to(p, 512, DEVICES, 512);
	assert_int_equal(stats(DEVICES).pages_peer, 512);
	check_on(0, p, 512, 9);
	assert_int_equal(where_is(p).location.device, DEVICES);
	assert_int_equal(gpusvm_device_unbind(svm, DEVICES), 0);
	assert_int_equal(where_is(p).location.type, GPUSVM_LOCATION_SYSTEM);
	assert_int_equal(gpusvm_memset(q, p, 0, 1, NULL), -ENODEV);
	gpusvm_queue_destroy(q);
	check_on(0, p, 512, 9);
	check_filled(p, 512, 9);
	/* Indices are not used again, and there are 64. */
	for (int i = DEVICES + 1; i < 64; i++) {
		assert_int_equal(gpusvm_device_bind(svm, &desc), i);
		assert_int_equal(gpusvm_device_unbind(svm, i), 0);
	}
	assert_int_equal(gpusvm_device_bind(svm, &desc), -ENOSPC);
	assert_int_equal(gpusvm_device_count(svm), 64);
	assert_int_equal(move(p, 1, gpusvm_device(63), 0, &m), -ENODEV);
	munmap(p, 512 * PAGE);
}

/* Bytes that are mapped, by whatever. */
static size_t mapped_bytes(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long long start, end;
	char line[512];
	size_t sum = 0;

	assert_non_null(maps);
	setvbuf(maps, line + 256, _IOFBF, 256); /* no buffer of malloc's */
	while (fscanf(maps, "%llx-%llx%*[^\n]", &start, &end) == 2)
		sum += end - start;
	fclose(maps);
	return sum;
}

/* A device comes and goes without a mapping outside of the library's reserve. */
static void test_bind_maps_nothing(void **state)
{
	struct gpusvm_device_desc desc = {.size = sizeof(desc), .vram_bytes = 8 * MB};
	unsigned char *p = map_filled(64, 1);
	struct gpusvm_moved m;
	size_t before;
	int index;

#ifdef __SANITIZE_ADDRESS__
	print_message("skipped: the address sanitizer maps memory of its own\n");
	skip();
#endif
	(void)mapped_bytes();
	before = mapped_bytes();
	for (int i = 0; i < 5; i++) {
		index = gpusvm_device_bind(svm, &desc);
		assert_true(index > 0);
		assert_int_equal(move(p, 64, gpusvm_device(index), 0, &m), 0);
		assert_int_equal(mapped_bytes(), before);
		assert_int_equal(gpusvm_device_unbind(svm, index), 0);
		usleep(20000); /* its threads are joined by now, most likely */
		assert_int_equal(mapped_bytes(), before);
	}
	munmap(p, 64 * PAGE);
}

struct busy {
	int device;
	unsigned char *p;
	int result;
};

static void *keep_busy(void *arg)
{
	struct busy *b = arg;
	struct gpusvm_moved m;

	do
		b->result = move(b->p, 512, gpusvm_device(b->device), 0, &m);
	while (!b->result);
	return NULL;
}

static void count_up(struct gpusvm_lane *lane, uint64_t item, const void *args)
{
	uint64_t *const *p = args;

	gpusvm_atomic_add64(lane, *p + item % 512 * 512, 1);
}

/* Unplugged while it populates, evicts and works, and while peers have its pages. */
static void test_unbind_under_load(void **state)
{
	const struct gpusvm_kernel kernel = {sizeof(kernel), "count", count_up};
	unsigned char *p = map_filled(512, 9), *words = map_pages(512, PROT_READ | PROT_WRITE);
	struct busy b[2] = {{1, p, 0}, {2, p, 0}};
	struct gpusvm_event *event;
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, keep_busy, &b[i]), 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(
		    gpusvm_launch(queues[1], &kernel, &words, sizeof(words), 4096, NULL), 0);
		check_on(0, p, 512, 9);
		assert_int_equal(gpusvm_evict(svm, i % 2), 0);
	}
	assert_int_equal(gpusvm_launch(queues[1], &kernel, &words, sizeof(words), 1 << 20, &event),
			 0);
	assert_int_equal(gpusvm_device_unbind(svm, 1), 0);
	assert_true(gpusvm_event_wait(event, -1) == -ENODEV || !gpusvm_event_wait(event, -1));
	gpusvm_event_put(event);
	pthread_join(threads[0], NULL);
	assert_int_equal(b[0].result, -ENODEV);
	check_on(0, p, 512, 9);
	assert_int_equal(gpusvm_device_unbind(svm, 2), 0);
	pthread_join(threads[1], NULL);
	assert_int_equal(b[1].result, -ENODEV);
	check_filled(p, 512, 9);
	munmap(p, 512 * PAGE);
	munmap(words, 512 * PAGE);
}

/* ---- Descriptors ------------------------------------------------------------------- */

static int fd_works(int fd, unsigned char *p, int device)
{
	struct gpusvm_moved m;
	int err = move(p, 64, gpusvm_system(), 0, &m);

	assert_int_equal(err, 0);
	err = move(p, 64, gpusvm_fd(fd), 0, &m);
	if (!err)
		assert_int_equal(where_is(p).location.device, device);
	return err;
}

static bool hung_up(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
}

static void test_fd(void **state)
{
	unsigned char *p = map_filled(64, 1);
	int ends[2], fd = gpusvm_pagemap_fd(svm, 2, 0), more, twin;

	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(gpusvm_pagemap_fd(svm, 2, 1), -EINVAL);
	assert_int_equal(gpusvm_pagemap_fd(svm, DEVICES, 0), -EINVAL);
	assert_int_equal(gpusvm_pagemap_fd(svm, -1, 0), -EINVAL);
	assert_int_equal(fd_works(fd, p, 2), 0);
	more = gpusvm_pagemap_fd(svm, 3, 0);
	assert_int_equal(fd_works(more, p, 3), 0);
	twin = dup(fd);
	close(fd);
	assert_int_equal(fd_works(twin, p, 2), 0);
	assert_int_equal(
	    gpusvm_advise(svm, p, 64 * PAGE, GPUSVM_PREFERRED_LOCATION, 1, gpusvm_fd(twin)), 0);
	/* Foreign ones, and none. */
	assert_int_equal(fd_works(fd, p, 2), -ENODEV);
	assert_int_equal(fd_works(-1, p, 2), -ENODEV);
	assert_int_equal(fd_works(1 << 20, p, 2), -ENODEV);
	assert_int_equal(fd_works(0, p, 2), -ENODEV);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(fd_works(ends[0], p, 2), -ENODEV);
	assert_int_equal(fd_works(ends[1], p, 2), -ENODEV);
	assert_false(hung_up(twin));
	assert_int_equal(gpusvm_device_unbind(svm, 2), 0);
	assert_true(hung_up(twin));
	assert_false(hung_up(more));
	assert_int_equal(fd_works(twin, p, 2), -ENODEV);
	assert_int_equal(fd_works(more, p, 3), 0);
	assert_int_equal(gpusvm_pagemap_fd(svm, 2, 0), -ENODEV);
	gpusvm_close(svm);
	assert_true(hung_up(more));
	assert_int_equal(open_linked(8 * MB, 0), 0);
	assert_int_equal(fd_works(more, p, 3), -ENODEV);
	assert_int_equal(fd_works(twin, p, 2), -ENODEV);
	check_filled(p, 64, 1);
	close(twin);
	close(more);
	close(ends[0]);
	close(ends[1]);
	munmap(p, 64 * PAGE);
}

static void test_fd_many(void **state)
{
	unsigned char *p = map_filled(64, 1);
	int first = gpusvm_pagemap_fd(svm, 0, 0), fd;

	for (int i = 0; i < 3000; i++) { /* more than there are descriptors */
		fd = gpusvm_pagemap_fd(svm, i % DEVICES, 0);
		assert_true(fd >= 0 && fd < 100);
		if (i % 100 == 0)
			assert_int_equal(fd_works(fd, p, i % DEVICES), 0);
		close(fd);
	}
	assert_int_equal(fd_works(first, p, 0), 0);
	/* A process that closes all that it does not know: dead, and no crash. */
	for (fd = 3; fd < 100; fd++)
		if (fd != first && fcntl(fd, F_GETFL) >= 0 &&
		    (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY)
			close(fd);
	assert_true(fd_works(first, p, 0) == -ENODEV || !fd_works(first, p, 0));
	fd = gpusvm_pagemap_fd(svm, 1, 0);
	assert_int_equal(fd_works(fd, p, 1), 0);
	assert_int_equal(fd_works(first, p, 0), -ENODEV);
	close(first);
	close(fd);
	munmap(p, 64 * PAGE);
}

static int in_child(int fd, unsigned char *p)
{
	struct gpusvm_moved m = {.size = sizeof(m)};
	struct gpusvm *own;

	if (gpusvm_prefetch(svm, p, PAGE, gpusvm_fd(fd), 0, &m, NULL) != -ENODEV ||
	    gpusvm_pagemap_fd(svm, 0, 0) != -ENODEV || gpusvm_open(NULL, &own))
		return 1;
	if (gpusvm_prefetch(own, p, PAGE, gpusvm_fd(fd), 0, &m, NULL) != -ENODEV)
		return 2;
	gpusvm_close(own);
	return hung_up(fd) ? 3 : 0;
}

static void test_fd_and_fork(void **state)
{
	unsigned char *p = map_filled(64, 1);
	int fd = gpusvm_pagemap_fd(svm, 1, 0), status;
	pid_t pid = fork();

	if (!pid)
		_exit(in_child(fd, p));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(fd_works(fd, p, 1), 0);
	assert_int_equal(gpusvm_device_unbind(svm, 1), 0);
	assert_true(hung_up(fd));
	close(fd);
	check_filled(p, 64, 1);
	munmap(p, 64 * PAGE);
}

static void *toggle_link(void *stop)
{
	struct gpusvm_link link = {.size = sizeof(link),
				   .flags = GPUSVM_LINK_MAP | GPUSVM_LINK_COPY};
	int err = 0;

	while (!err && !__atomic_load_n((int *)stop, __ATOMIC_RELAXED)) {
		err = gpusvm_link_set(svm, 1, 0, NULL);
		err = err ? err : gpusvm_link_set(svm, 1, 0, &link);
	}
	return err ? "link_set" : NULL;
}

static void touch_each(struct gpusvm_lane *lane, uint64_t item, const void *args)
{
	const char *const *p = args;

	(void)gpusvm_ld32(lane, *p + item * 16 * PAGE);
}

/* Who faults asks how good a link is that goes at this moment. */
static void test_link_down_under_faults(void **state)
{
	const struct gpusvm_kernel kernel = {sizeof(kernel), "touch", touch_each};
	struct gpusvm_queue *q;
	pthread_t thread;
	int stop = 0;
	void *err;

	assert_int_equal(open_linked(64 * MB, 0), 0);
	assert_int_equal(gpusvm_queue_create(svm, 1, NULL, &q), 0);
	assert_int_equal(pthread_create(&thread, NULL, toggle_link, &stop), 0);
	for (int i = 0; i < 1500; i++) {
		unsigned char *p = map_pages(1024, PROT_READ | PROT_WRITE);

		assert_int_equal(gpusvm_advise(svm, p, 1024 * PAGE, GPUSVM_PREFERRED_LOCATION, 1,
					       gpusvm_device(0)),
				 0);
		assert_int_equal(gpusvm_advise(svm, p, 1024 * PAGE, GPUSVM_GRANULARITY, 16,
					       gpusvm_none()),
				 0);
		assert_int_equal(gpusvm_launch(q, &kernel, &p, sizeof(p), 64, NULL), 0);
		munmap(p, 1024 * PAGE);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, &err);
	assert_null(err);
	gpusvm_close(svm);
}

int main(int argc, char **argv)
{
#define LINKED(f) cmocka_unit_test_setup_teardown(f, setup_linked, teardown)
#define APART(f) cmocka_unit_test_setup_teardown(f, setup_apart, teardown)
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_link_arguments),
	    APART(test_each_has_its_own_memory),
	    LINKED(test_peers_are_mapped),
	    LINKED(test_moves_between_devices),
	    APART(test_without_links_it_bounces),
	    LINKED(test_link_down),
	    cmocka_unit_test(test_link_down_under_faults),
	    LINKED(test_touch_while_it_moves),
	    LINKED(test_bind),
	    LINKED(test_bind_maps_nothing),
	    LINKED(test_unbind_under_load),
	    LINKED(test_fd),
	    LINKED(test_fd_many),
	    LINKED(test_fd_and_fork),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
	return cmocka_run_group_tests_name("devices", tests, NULL, NULL);
}
