/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * stress.c: law 1, no lost write, on the real thing.
 *
 *	stress [--seconds N] [--seed N] [--devices N] [--links random|ring|full|none]
 *	       [--zero-copy]
 *
 * Every page of one field of memory has a sector for each writer; a writer
 * checks that its words are what it wrote last, and writes the next value:
 *	cpu 0, cpu 1   threads of this process
 *	gpu            a kernel on the device
 *	direct         the kernel, reading a file by O_DIRECT into the field
 *	fork           a thread that forks children, who check its words
 * while other threads move random parts of the field to the device and back,
 * and map, remap, drop and unmap memory of their own beside it, and the kernel is
 * asked to compact memory, which moves pages under us. Exit status 0
 * when every word was right, 1 when one was not, 77 with a reason when the
 * system lacks what is needed.
 *
 * With --zero-copy, the memory of the devices is ordinary memory: of a single one, or of
 * every other one. With --devices (up to 4) each has a writer, and pages move among them. With
 *--links they are linked, at random (of the seed) or as said; a thread takes links down and brings
 *them up all the time, and, until the indices are used up, another one binds a further device,
 *links it, has pages moved to it and read by it, and unbinds it; unbinds the device of a writer
 *under its work, and gives the writer a new one. What was cut off is done again, so that a word may
 *have the value of the round then, but no older one, and never an older one afterwards.
 */
#define _GNU_SOURCE
#include <gpusvm/gpusvm.h>

#include "tools/links.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#ifndef MADV_COLLAPSE /* of Linux 6.1 */
#define MADV_COLLAPSE 25
#endif
#define PAGES 2048u /* 8 MiB: four blocks of 2M */
#define SECTOR 512u
#define WORDS (SECTOR / 8)

#define DEVICES 4u
#define INDICES 64

enum writer { CPU_0, CPU_1, DIRECT, FORK, GPU, WRITERS = GPU + DEVICES };
static const char *const writer_names[] = {"cpu 0", "cpu 1", "direct", "fork",
					   "gpu 0", "gpu 1", "gpu 2",  "gpu 3"};
_Static_assert(WRITERS *SECTOR <= PAGE, "a sector for each");

static char *field;
static struct gpusvm *svm;
static bool stop;
static unsigned n_devices = 1;
static int writer_devices[DEVICES]; /* by writer: its device's index; atomic */
static int plugged = -1;	    /* a device that comes and goes, or -1; atomic */
static struct links topology;	    /* between writers; unless it is random */
static bool coming_and_going, random_links;
static uint64_t bad, done[WRITERS + 5];

/* Of the n-th writer; it may have been unbound meanwhile. */
static int device_of(unsigned n)
{
	return __atomic_load_n(&writer_devices[n], __ATOMIC_ACQUIRE);
}

/* -ENODEV is no error where devices go. */
static bool is_gone(int r)
{
	return r == -ENODEV && coming_and_going;
}

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static uint64_t *sector(enum writer w, unsigned page)
{
	return (uint64_t *)(void *)(field + (size_t)page * PAGE + w * SECTOR);
}

static uint64_t value(enum writer w, unsigned page, unsigned i, uint64_t round)
{
	return (uint64_t)w << 56 | (uint64_t)page << 40 | (uint64_t)i << 32 | round;
}

static void wrong(enum writer w, unsigned page, unsigned i, uint64_t has, uint64_t want)
{
	if (__atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED) < 10)
		fprintf(stderr, "stress: %s: page %u word %u is %lx, not %lx\n", writer_names[w],
			page, i, has, want);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
}

static void check_sector(enum writer w, unsigned page, uint64_t round)
{
	const uint64_t *words = sector(w, page);

	for (unsigned i = 0; i < WORDS; i++) {
		uint64_t has = __atomic_load_n(&words[i], __ATOMIC_RELAXED);

		if (has != value(w, page, i, round))
			wrong(w, page, i, has, value(w, page, i, round));
	}
}

static void write_sector(enum writer w, unsigned page, uint64_t round)
{
	for (unsigned i = 0; i < WORDS; i++)
		__atomic_store_n(&sector(w, page)[i], value(w, page, i, round), __ATOMIC_RELAXED);
}

/* ---- Writers --------------------------------------------------------------- */

static void *cpu_writer(void *arg)
{
	enum writer w = (enum writer)(uintptr_t)arg;

	for (uint64_t round = 1; !stopped(); round++)
		for (unsigned page = 0; page < PAGES; page++) {
			check_sector(w, page, round - 1);
			write_sector(w, page, round);
			done[w]++;
			if (stopped())
				break;
		}
	return NULL;
}

struct gpu_args {
	char *field;
	enum writer writer;
	uint64_t round;
	bool again; /* the round was begun by a device that is gone */
	uint64_t *errors;
};

static void gpu_kernel(struct gpusvm_lane *lane, uint64_t page, const void *p)
{
	const struct gpu_args *args = p;
	uint64_t *words = (uint64_t *)(void *)(args->field + page * PAGE + args->writer * SECTOR);

	for (unsigned i = 0; i < WORDS; i++) {
		uint64_t has = gpusvm_ld64(lane, &words[i]);
		uint64_t next = value(args->writer, (unsigned)page, i, args->round);

		if (has != next - 1 && !(args->again && has == next))
			gpusvm_atomic_add64(lane, args->errors, 1);
		gpusvm_st64(lane, &words[i], next);
	}
}

/* Rounds on one device, until it is gone. */
static int gpu_rounds(int device, struct gpu_args *args)
{
	static const struct gpusvm_kernel kernel = {sizeof(kernel), "stress", gpu_kernel};
	struct gpusvm_queue *queue;
	int r = gpusvm_queue_create(svm, device, NULL, &queue);

	if (r)
		return r;
	while (!stopped()) {
		r = gpusvm_launch(queue, &kernel, args, sizeof(*args), PAGES, NULL);
		if (*args->errors)
			wrong(args->writer, 0, 0, *args->errors, 0);
		args->again = r != 0;
		if (r)
			break;
		args->round++;
		done[args->writer] += PAGES;
	}
	gpusvm_queue_destroy(queue);
	return r;
}

static void *gpu_writer(void *arg)
{
	enum writer w = (enum writer)(uintptr_t)arg;
	struct gpu_args args = {
	    .field = field, .writer = w, .round = 1, .errors = calloc(1, sizeof(uint64_t))};
	int r = 0;

	while (!stopped() && (!r || is_gone(r))) {
		r = gpu_rounds(device_of(w - GPU), &args);
		if (is_gone(r))
			usleep(1000); /* the next one comes soon */
	}
	if (r && !is_gone(r)) {
		fprintf(stderr, "stress: %s: %s\n", writer_names[w], strerror(-r));
		wrong(w, 0, 0, (uint64_t)-r, 0);
	}
	free(args.errors);
	return NULL;
}

/* One sector after the other from a file that holds the round's values. */
static void *direct_reader(void *arg)
{
	int fd = *(int *)arg;
	static uint64_t block[WORDS] __attribute__((aligned(PAGE)));
	unsigned seed = 7;

	for (uint64_t round = 1; !stopped(); round++) {
		unsigned page = (unsigned)rand_r(&seed) % PAGES;

		for (unsigned i = 0; i < WORDS; i++)
			block[i] = value(DIRECT, page, i, round);
		if (pwrite(fd, block, SECTOR, 0) != SECTOR ||
		    pread(fd, sector(DIRECT, page), SECTOR, 0) != SECTOR) {
			fprintf(stderr, "stress: O_DIRECT: %s\n", strerror(errno));
			wrong(DIRECT, page, 0, (uint64_t)errno, 0);
		}
		check_sector(DIRECT, page, round);
		done[DIRECT]++;
	}
	return NULL;
}

static void *forker(void *arg)
{
	(void)arg;
	for (uint64_t round = 1; !stopped(); round++) {
		int status = 0;
		pid_t pid;

		for (unsigned page = 0; page < PAGES; page++)
			check_sector(FORK, page, round - 1);
		for (unsigned page = 0; page < PAGES; page++)
			write_sector(FORK, page, round);
		pid = fork();
		if (!pid) {
			for (unsigned page = 0; page < PAGES; page++)
				check_sector(FORK, page, round);
			_exit(bad ? 1 : 0);
		}
		if (pid > 0 && (waitpid(pid, &status, 0) != pid || status))
			wrong(FORK, 0, 0, (uint64_t)status, 0);
		done[FORK]++;
		usleep(20000);
	}
	return NULL;
}

/* ---- Movers ----------------------------------------------------------------- */

/* All of it, of which a half was huge pages and may be again: those go several at once where
 * they can. What is on a device comes home first: none is made of holes. */
static void choose_all(unsigned *at, unsigned *n)
{
	(void)gpusvm_prefetch(svm, field, (size_t)PAGES * PAGE, gpusvm_system(), 0, NULL, NULL);
	for (unsigned page = 0; page < PAGES / 2; page += 512)
		madvise(field + (size_t)page * PAGE, 512 * PAGE, MADV_COLLAPSE);
	*at = 0;
	*n = PAGES;
}

static void *mover(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!stopped()) {
		unsigned n = 1u << rand_r(&seed) % 11, at = (unsigned)rand_r(&seed) % PAGES;
		bool home = rand_r(&seed) % 4 == 0;
		int device = device_of((unsigned)rand_r(&seed) % n_devices), r;
		int extra = __atomic_load_n(&plugged, __ATOMIC_ACQUIRE);

		if (extra >= 0 && rand_r(&seed) % 4 == 0)
			device = extra;
		if (rand_r(&seed) % 32 == 0)
			choose_all(&at, &n);
		n = n < PAGES - at ? n : PAGES - at;
		r = gpusvm_prefetch(svm, field + (size_t)at * PAGE, (size_t)n * PAGE,
				    home ? gpusvm_system() : gpusvm_device(device), 0, NULL, NULL);
		if (r && !is_gone(r)) {
			fprintf(stderr, "stress: prefetch: %s\n", strerror(-r));
			wrong(CPU_0, at, 0, (uint64_t)-r, 0);
		}
		done[WRITERS]++;
	}
	return NULL;
}

/* ---- Links and devices that come and go --------------------------------------- */

static void check_call(const char *what, int r)
{
	if (r) {
		fprintf(stderr, "stress: %s: %s\n", what, strerror(-r));
		wrong(CPU_0, 0, 0, (uint64_t)-r, 0);
	}
}

static int link_random(int from, int to, unsigned r)
{
	struct gpusvm_link link = {.size = sizeof(link),
				   .bandwidth_mbps = r % 7 * 1000,
				   .latency_ns = r % 11 * 100,
				   .flags = r >> 8 & 3};

	return from == to ? 0 : gpusvm_link_set(svm, from, to, r >> 12 & 3 ? &link : NULL);
}

static bool linked(unsigned from, unsigned to)
{
	for (unsigned i = 0; i < topology.n; i++)
		if (topology.list[i].from == (int)from && topology.list[i].to == (int)to)
			return true;
	return false;
}

/* Between the devices of two writers, as the topology is. */
static void link_writers(unsigned from, unsigned to, bool up, unsigned r)
{
	const struct gpusvm_link link = {.size = sizeof(link),
					 .flags = GPUSVM_LINK_MAP | GPUSVM_LINK_COPY};
	int err = 0;

	if (random_links)
		err = link_random(device_of(from), device_of(to), r);
	else if (linked(from, to))
		err = gpusvm_link_set(svm, device_of(from), device_of(to), up ? &link : NULL);
	check_call("link", is_gone(err) ? 0 : err);
	done[WRITERS + 2]++;
}

static void *linker(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!stopped()) {
		unsigned r = (unsigned)rand_r(&seed);

		link_writers((r >> 16) % n_devices, (r >> 20) % n_devices, r % 2, r);
		usleep(r % 3000);
	}
	return NULL;
}

/* One device from its coming to its going. */
static void plug(int index, unsigned *seed, char *buffer)
{
	struct gpusvm_queue *queue;
	int r = 0;

	for (unsigned i = 0; i < n_devices; i++) {
		check_call("link", link_random(device_of(i), index, (unsigned)rand_r(seed)));
		check_call("link", link_random(index, device_of(i), (unsigned)rand_r(seed)));
	}
	check_call("queue", gpusvm_queue_create(svm, index, NULL, &queue));
	__atomic_store_n(&plugged, index, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < 20 && !r && !stopped(); i++)
		r = gpusvm_read(queue, buffer, field + (size_t)(i % 8) * 256 * PAGE, 256 * PAGE);
	check_call("a further device", r);
	/* Work of its own is under way as it goes. */
	for (unsigned i = 0; i < 8; i++)
		(void)gpusvm_memset(queue, buffer, 0, 256 * PAGE, NULL);
	check_call("unbind", gpusvm_device_unbind(svm, index));
	__atomic_store_n(&plugged, -1, __ATOMIC_RELEASE);
	gpusvm_queue_destroy(queue);
	done[WRITERS + 3]++;
}

/* The device of a writer goes under its work; `index` takes its place. */
static void replace(int index, unsigned *seed)
{
	unsigned n = (unsigned)rand_r(seed) % n_devices;
	int old = device_of(n);

	if (rand_r(seed) % 2) { /* the writer has nothing meanwhile */
		check_call("unbind", gpusvm_device_unbind(svm, old));
		old = -1;
	}
	__atomic_store_n(&writer_devices[n], index, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < n_devices; i++)
		if (i != n) {
			link_writers(n, i, true, (unsigned)rand_r(seed));
			link_writers(i, n, true, (unsigned)rand_r(seed));
		}
	if (old >= 0)
		check_call("unbind", gpusvm_device_unbind(svm, old));
	done[WRITERS + 4]++;
}

static void *plugger(void *arg)
{
	const struct gpusvm_device_desc desc = {.size = sizeof(desc), .vram_bytes = 4 << 20};
	unsigned seed = (unsigned)(uintptr_t)arg;
	char *buffer = malloc((size_t)256 * PAGE);

	while (!stopped() && gpusvm_device_count(svm) < INDICES) {
		int index = gpusvm_device_bind(svm, &desc);

		check_call("bind", index < 0 ? index : 0);
		if (index >= 0 && rand_r(&seed) % 2)
			plug(index, &seed, buffer);
		else if (index >= 0)
			replace(index, &seed);
		usleep((useconds_t)rand_r(&seed) % 300000);
	}
	free(buffer);
	return NULL;
}

static void expect(const char *p, size_t from, size_t to, int byte)
{
	for (size_t i = from; i < to; i += 64)
		if (p[i] != byte) {
			fprintf(stderr, "stress: mapped memory: byte %zu is %d, not %d\n", i, p[i],
				byte);
			wrong(CPU_0, 0, 0, (uint64_t)p[i], (uint64_t)byte);
			return;
		}
}

/* Memory of its own, at addresses that are used again and again. */
static void *mapper(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	size_t size = 1024 * PAGE;
	char *p = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	while (!stopped()) {
		size_t cut = (size_t)(1 + rand_r(&seed) % 1000) * PAGE, from;
		int byte = 1 + rand_r(&seed) % 100;
		char *q;

		mmap(p, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		     0);
		if (rand_r(&seed) % 2)
			madvise(p, size, MADV_HUGEPAGE);
		expect(p, 0, size, 0);
		memset(p, byte, size);
		from = (size_t)(rand_r(&seed) % 2 ? rand_r(&seed) % 1000 : 0) * PAGE;
		while (is_gone(gpusvm_prefetch(svm, p + from, size - from,
					       gpusvm_device(device_of(0)), 0, NULL, NULL)))
			usleep(1000);
		switch (rand_r(&seed) % 4) {
		case 0:
			munmap(p + cut, size - cut);
			expect(p, 0, cut, byte);
			break;
		case 1:
			madvise(p, cut, MADV_DONTNEED);
			expect(p, 0, cut, 0);
			expect(p, cut, size, byte);
			break;
		case 2:
			q = mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, p + size);
			if (q == MAP_FAILED) {
				check_call("mremap", -errno);
				break;
			}
			expect(q, 0, size, byte);
			mmap(q, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			break;
		default:
			mmap(p + cut, size - cut, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			expect(p, 0, cut, byte);
			expect(p, cut, size, 0);
		}
		done[WRITERS + 1]++;
	}
	munmap(p, 2 * size);
	return NULL;
}

/* Another program that needs huge pages would do the same to us. */
static void *compacter(void *arg)
{
	while (!stopped()) {
		(void)!pwrite(*(int *)arg, "1", 1, 0);
		usleep(100000);
	}
	return NULL;
}

/* ---- Main -------------------------------------------------------------------- */

static int open_direct(void)
{
	char name[] = "/var/tmp/gpusvm-stress-XXXXXX";
	int fd = mkostemp(name, O_DIRECT);

	if (fd >= 0)
		unlink(name);
	return fd;
}

static void field_make(void)
{
	char *p = mmap(NULL, (PAGES + 512) * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	field = (char *)(((uintptr_t)p + 512 * PAGE - 1) & ~(uintptr_t)(512 * PAGE - 1));
	madvise(field, (size_t)PAGES * PAGE / 2, MADV_HUGEPAGE);
	for (unsigned w = 0; w < WRITERS; w++)
		for (unsigned page = 0; page < PAGES; page++)
			write_sector((enum writer)w, page, 0);
}

struct options {
	unsigned seconds, seed;
	const char *links;
	bool zero_copy;
};

static bool parse(int argc, char **argv, struct options *ret)
{
	static const struct option longs[] = {
	    {"seconds", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'S'},
	    {"devices", required_argument, NULL, 'd'}, {"links", required_argument, NULL, 'l'},
	    {"zero-copy", no_argument, NULL, 'z'},     {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 's')
			ret->seconds = (unsigned)atoi(optarg);
		else if (c == 'S')
			ret->seed = (unsigned)atoi(optarg);
		else if (c == 'd')
			n_devices = (unsigned)atoi(optarg);
		else if (c == 'l')
			ret->links = optarg;
		else if (c == 'z')
			ret->zero_copy = true;
		else
			return false;
	}
	random_links = !strcmp(ret->links, "random");
	coming_and_going = strcmp(ret->links, "none");
	return n_devices >= 1 && n_devices <= DEVICES && optind == argc &&
	       (random_links || !links_named(ret->links, n_devices, &topology));
}

static int open_devices(unsigned seed, bool zero_copy)
{
	struct gpusvm_device_desc descs[DEVICES];
	struct gpusvm_options options = {
	    .size = sizeof(options),
	    .devices = descs,
	    .n_devices = n_devices,
	    .links = topology.list,
	    .n_links = topology.n,
	};
	int r;

	/* All of them smaller than what is moved, so that they evict as well. */
	for (unsigned i = 0; i < n_devices; i++) {
		descs[i] = (struct gpusvm_device_desc){
		    .size = sizeof(descs[i]),
		    .kind = "soft",
		    .vram_bytes = n_devices > 1 ? 4 << 20 : 10 << 20,
		    .flags = zero_copy && i % 2 == 0 ? GPUSVM_DEVICE_ZERO_COPY : 0,
		};
		writer_devices[i] = (int)i;
	}
	r = gpusvm_open(&options, &svm);
	for (unsigned i = 0; !r && random_links && i < n_devices * n_devices; i++)
		link_writers(i / n_devices, i % n_devices, true, (unsigned)rand_r(&seed));
	return r;
}

static pthread_t threads[8 + DEVICES + 2];
static unsigned n_threads;

static void start(void *(*fn)(void *), uintptr_t arg)
{
	if (pthread_create(&threads[n_threads], NULL, fn, (void *)arg) == 0)
		n_threads++;
}

int main(int argc, char **argv)
{
	struct options o = {.seconds = 20, .seed = (unsigned)time(NULL), .links = "none"};
	int r, fd, compact;

	if (!parse(argc, argv, &o))
		return 2;
	printf("stress: %u s, seed %u, %u devices, links %s\n", o.seconds, o.seed, n_devices,
	       o.links);
	r = open_devices(o.seed, o.zero_copy);
	if (r) {
		printf("stress: skipped: gpusvm_open: %s\n", strerror(-r));
		return 77;
	}
	fd = open_direct();
	field_make();
	start(cpu_writer, CPU_0);
	start(cpu_writer, CPU_1);
	for (unsigned i = 0; i < n_devices; i++)
		start(gpu_writer, GPU + i);
	start(mover, o.seed);
	start(mapper, o.seed + 1);
	start(forker, 0);
	if (coming_and_going) {
		start(linker, o.seed + 2);
		start(plugger, o.seed + 3);
	}
	if (fd >= 0)
		start(direct_reader, (uintptr_t)&fd);
	else
		printf("stress: /var/tmp has no O_DIRECT: that writer is left out\n");
	compact = open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC);
	if (compact >= 0)
		start(compacter, (uintptr_t)&compact);
	else
		printf("stress: compaction is root's to ask for: it is left out\n");
	for (unsigned i = 0; i < o.seconds * 10 && !stopped(); i++)
		usleep(100000);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	gpusvm_close(svm);
	for (unsigned w = 0; w < GPU + n_devices; w++)
		printf("stress: %-6s %lu sectors\n", writer_names[w], done[w]);
	links_free(&topology);
	printf(
	    "stress: %lu moves, %lu mappings, %lu links, %lu devices came and went, %lu replaced, "
	    "%lu wrong\n",
	    done[WRITERS], done[WRITERS + 1], done[WRITERS + 2], done[WRITERS + 3],
	    done[WRITERS + 4], bad);
	return bad ? 1 : 0;
}
