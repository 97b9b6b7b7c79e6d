/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * stress.c: law 1, no lost write, on the real thing.
 *
 *	stress [--seconds N] [--seed N]
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
 */
#define _GNU_SOURCE
#include <gpusvm/gpusvm.h>

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
#define PAGES 2048u /* 8 MiB: four blocks of 2M */
#define SECTOR 512u
#define WORDS (SECTOR / 8)

enum writer { CPU_0, CPU_1, GPU, DIRECT, FORK, WRITERS };
static const char *const writer_names[] = {"cpu 0", "cpu 1", "gpu", "direct", "fork"};

static char *field;
static struct gpusvm *svm;
static bool stop;
static uint64_t bad, done[WRITERS + 2];

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
	uint64_t round;
	uint64_t *errors;
};

static void gpu_kernel(struct gpusvm_lane *lane, uint64_t page, const void *p)
{
	const struct gpu_args *args = p;
	uint64_t *words = (uint64_t *)(void *)(args->field + page * PAGE + GPU * SECTOR);

	for (unsigned i = 0; i < WORDS; i++) {
		if (gpusvm_ld64(lane, &words[i]) != value(GPU, (unsigned)page, i, args->round - 1))
			gpusvm_atomic_add64(lane, args->errors, 1);
		gpusvm_st64(lane, &words[i], value(GPU, (unsigned)page, i, args->round));
	}
}

static void *gpu_writer(void *arg)
{
	static const struct gpusvm_kernel kernel = {sizeof(kernel), "stress", gpu_kernel};
	struct gpu_args args = {.field = field, .errors = calloc(1, sizeof(uint64_t))};
	struct gpusvm_queue *queue;
	int r = gpusvm_queue_create(svm, 0, NULL, &queue);

	for (args.round = 1; !r && !stopped(); args.round++) {
		r = gpusvm_launch(queue, &kernel, &args, sizeof(args), PAGES, NULL);
		if (*args.errors)
			wrong(GPU, 0, 0, *args.errors, 0);
		done[GPU] += PAGES;
	}
	if (r) {
		fprintf(stderr, "stress: the device: %s\n", strerror(-r));
		wrong(GPU, 0, 0, (uint64_t)-r, 0);
	}
	gpusvm_queue_destroy(queue);
	free(args.errors);
	(void)arg;
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

static void *mover(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!stopped()) {
		unsigned n = 1u << rand_r(&seed) % 11, at = (unsigned)rand_r(&seed) % PAGES;
		bool home = rand_r(&seed) % 4 == 0;
		int r;

		n = n < PAGES - at ? n : PAGES - at;
		r = gpusvm_prefetch(svm, field + (size_t)at * PAGE, (size_t)n * PAGE,
				    home ? gpusvm_system() : gpusvm_device(0), 0, NULL, NULL);
		if (r) {
			fprintf(stderr, "stress: prefetch: %s\n", strerror(-r));
			wrong(CPU_0, at, 0, (uint64_t)-r, 0);
		}
		done[WRITERS]++;
	}
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
		size_t cut = (size_t)(1 + rand_r(&seed) % 1000) * PAGE;
		int byte = 1 + rand_r(&seed) % 100;
		char *q;

		mmap(p, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		     0);
		if (rand_r(&seed) % 2)
			madvise(p, size, MADV_HUGEPAGE);
		expect(p, 0, size, 0);
		memset(p, byte, size);
		gpusvm_prefetch(svm, p, size, gpusvm_device(0), 0, NULL, NULL);
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

int main(int argc, char **argv)
{
	static const struct option longs[] = {
	    {"seconds", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'S'}, {0}};
	unsigned seconds = 20, seed = (unsigned)time(NULL), n = 0;
	/* A device smaller than what is moved, so that it evicts as well. */
	struct gpusvm_device_desc desc = {
	    .size = sizeof(desc), .kind = "soft", .vram_bytes = 10 << 20};
	struct gpusvm_options options = {.size = sizeof(options), .devices = &desc, .n_devices = 1};
	pthread_t threads[9];
	int c, r, fd, compact;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 's')
			seconds = (unsigned)atoi(optarg);
		else if (c == 'S')
			seed = (unsigned)atoi(optarg);
		else
			return 2;
	}
	printf("stress: %u s, seed %u\n", seconds, seed);
	r = gpusvm_open(&options, &svm);
	if (r) {
		printf("stress: skipped: gpusvm_open: %s\n", strerror(-r));
		return 77;
	}
	fd = open_direct();
	field_make();
	pthread_create(&threads[n++], NULL, cpu_writer, (void *)CPU_0);
	pthread_create(&threads[n++], NULL, cpu_writer, (void *)CPU_1);
	pthread_create(&threads[n++], NULL, gpu_writer, NULL);
	pthread_create(&threads[n++], NULL, mover, (void *)(uintptr_t)seed);
	pthread_create(&threads[n++], NULL, mapper, (void *)(uintptr_t)(seed + 1));
	pthread_create(&threads[n++], NULL, forker, NULL);
	if (fd >= 0)
		pthread_create(&threads[n++], NULL, direct_reader, &fd);
	else
		printf("stress: /var/tmp has no O_DIRECT: that writer is left out\n");
	compact = open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC);
	if (compact >= 0)
		pthread_create(&threads[n++], NULL, compacter, &compact);
	else
		printf("stress: compaction is root's to ask for: it is left out\n");
	for (unsigned i = 0; i < seconds * 10 && !stopped(); i++)
		usleep(100000);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	gpusvm_close(svm);
	for (unsigned w = 0; w < WRITERS; w++)
		printf("stress: %-6s %lu sectors\n", writer_names[w], done[w]);
	printf("stress: %lu moves, %lu mappings, %lu wrong\n", done[WRITERS], done[WRITERS + 1],
	       bad);
	return bad ? 1 : 0;
}
