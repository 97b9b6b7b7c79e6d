/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Pagemaps under load: random operations against a naive copy of the memory
 * (GPUSVM_TEST_SEED=n runs one seed), and threads that write while pages move.
 */
#include "pagemap_device.h"

/* ---- Random operations ---------------------------------------------------------------- */

#define PAGES 2048u
#define BOS 16u
#define PINS 4u
static struct {
	u64 rng;
	u8 mapped[PAGES]; /* 1: mapped, 2: and shared */
	u64 value[PAGES];
	struct bo *bo[BOS];
	struct model_frame *pin[PINS];
} r;

static u64 rnd(u64 n)
{
	r.rng ^= r.rng << 13;
	r.rng ^= r.rng >> 7;
	r.rng ^= r.rng << 17;
	return (r.rng >> 11) % n;
}

static void rnd_interval(unsigned *first, unsigned *n, unsigned max)
{
	*n = rnd(4) ? 1 + (unsigned)rnd(32) : 1 + (unsigned)rnd(max);
	*first = (unsigned)rnd(PAGES - *n);
	if (!rnd(3)) {
		*n = 512;
		*first = (unsigned)rnd(PAGES / 512) * 512;
	}
}

static void check_page_value(struct mm *of, unsigned i)
{
	u64 value = ~(u64)0;
	int err = model_cpu_read(of, P(i), &value, sizeof(value));

	if (!r.mapped[i])
		assert_int_equal(err, -EFAULT);
	else if (err || value != r.value[i])
		fail_msg("page %u: error %d, 0x%llx, not 0x%llx", i, err,
			 (unsigned long long)value, (unsigned long long)r.value[i]);
}

static void drop_bo(unsigned slot)
{
	if (!r.bo[slot])
		return;
	gpusvm_devmem_put(&r.bo[slot]->base);
	r.bo[slot] = NULL;
}

static void rnd_migrate(void)
{
	unsigned first, n, slot = (unsigned)rnd(BOS), was, expect = 0;
	struct device *d = rnd(4) ? &dev : &dev2;
	bool compound;
	int err;

	rnd_interval(&first, &n, 512);
	n = host_min(n, 512 - first % 512);
	compound = n == 512 && rnd(2);
	drop_bo(slot);
	if (d->n_used > FRAMES - 512)
		return;
	for (unsigned i = first; i < first + n; i++)
		expect += !r.mapped[i];
	was = on_device(d, P(first), n);
	err = migrate(d, P(first), n, compound, n < 100 && rnd(2), &r.bo[slot]);
	assert_int_equal(err, 0);
	assert_int_equal(result.holes, expect);
	assert_int_equal(on_device(d, P(first), n), was + result.moved);
}

static void rnd_map(void)
{
	unsigned first, n;
	u32 flags = MODEL_RW | (rnd(2) ? MODEL_THP : 0);

	rnd_interval(&first, &n, 600);
	if (!rnd(10) && n < 100)
		flags = MODEL_RW | MODEL_SHARED;
	assert_int_equal(model_mmap(mm, P(first), P(first + n), flags), 0);
	memset(&r.mapped[first], flags & MODEL_SHARED ? 2 : 1, n);
	memset(&r.value[first], 0, n * sizeof(r.value[0]));
}

static void rnd_unmap(void)
{
	unsigned first, n;

	rnd_interval(&first, &n, 100);
	if (rnd(2)) {
		assert_int_equal(model_munmap(mm, P(first), P(first + n)), 0);
		memset(&r.mapped[first], 0, n);
	} else {
		assert_int_equal(model_dontneed(mm, P(first), P(first + n)), 0);
	}
	memset(&r.value[first], 0, n * sizeof(r.value[0]));
}

static void rnd_mremap(void)
{
	unsigned first, n, to;
	bool all = true;

	rnd_interval(&first, &n, 600);
	to = n == 512 && rnd(2) ? (unsigned)rnd(PAGES / 512) * 512 : (unsigned)rnd(PAGES - n);
	if (to < first + n && first < to + n)
		return;
	for (unsigned i = first; i < first + n; i++)
		all &= r.mapped[i] != 0;
	assert_int_equal(model_mremap(mm, P(first), P(first + n), P(to), false), all ? 0 : -EFAULT);
	if (!all)
		return;
	memcpy(&r.mapped[to], &r.mapped[first], n);
	memcpy(&r.value[to], &r.value[first], n * sizeof(r.value[0]));
	memset(&r.mapped[first], 0, n);
	memset(&r.value[first], 0, n * sizeof(r.value[0]));
}

static void rnd_fork(void)
{
	unsigned first = (unsigned)rnd(PAGES);
	struct mm *child;

	assert_int_equal(model_fork(mm, &child), 0);
	for (unsigned i = 0; i < 64; i++) {
		unsigned page = (first + i * 31) % PAGES;
		u64 other = 42;

		check_page_value(child, page);
		if (r.mapped[page] == 1)
			assert_int_equal(model_cpu_write(child, P(page), &other, 8), 0);
		check_page_value(mm, page);
	}
	assert_null(model_check(child, true));
	model_mm_destroy(child);
}

static void rnd_pin(void)
{
	unsigned slot = (unsigned)rnd(PINS), page = (unsigned)rnd(PAGES);

	if (r.pin[slot]) {
		model_unpin(r.pin[slot]);
		r.pin[slot] = NULL;
	} else if (r.mapped[page]) {
		assert_int_equal(model_pin(mm, P(page), &r.pin[slot]), 0);
		r.value[page] = r.rng;
		*(u64 *)model_pin_bytes(r.pin[slot]) = r.rng;
	}
}

static void rnd_step(void)
{
	unsigned page = (unsigned)rnd(PAGES), slot = (unsigned)rnd(BOS);

	switch (rnd(16)) {
	case 0:
		rnd_map();
		break;
	case 1:
		rnd_unmap();
		break;
	case 2:
		rnd_mremap();
		break;
	case 3:
		if (!rnd(8))
			rnd_fork();
		break;
	case 4:
		rnd_pin();
		break;
	case 5:
		if (r.bo[slot])
			assert_int_equal(gpusvm_devmem_evict(&r.bo[slot]->base), 0);
		drop_bo(slot);
		break;
	case 6:
	case 7:
	case 8:
		rnd_migrate();
		break;
	default:
		for (unsigned i = 0; i < 8; i++, page = (page + 1) % PAGES) {
			check_page_value(mm, page);
			if (!r.mapped[page] || !rnd(2))
				continue;
			r.value[page] = r.rng;
			put(P(page), r.value[page]);
		}
	}
}

static void random_run(u64 seed, unsigned steps)
{
	memset(&r, 0, sizeof(r));
	r.rng = seed * 0x9e3779b97f4a7c15u + 1;
	dev.whole_window = rnd(2);
	dev.pagemap.dev = rnd(2) ? &dev : NULL;
	assert_int_equal(model_munmap(mm, P(0), P(PAGES)), 0);
	for (unsigned step = 0; step < steps; step++) {
		rnd_step();
		if (step % 64)
			continue;
		assert_null(model_check(mm, true));
		assert_null(model_region_check(dev.pagemap.region));
		assert_int_equal(model_region_used(dev.pagemap.region), dev.n_used);
	}
	for (unsigned i = 0; i < PINS; i++)
		if (r.pin[i])
			model_unpin(r.pin[i]);
	for (unsigned i = 0; i < BOS; i++)
		drop_bo(i);
	for (unsigned i = 0; i < PAGES; i++)
		check_page_value(mm, i);
}

static void test_random(void **state)
{
	const char *given = getenv("GPUSVM_TEST_SEED");
	u64 seed = given ? strtoull(given, NULL, 0) : 1;

	(void)state;
	for (unsigned i = 0; i < (given ? 1u : 6u); i++, seed++) {
		print_message("seed %llu\n", (unsigned long long)seed);
		random_run(seed, 1500);
	}
}

/* ---- Threads ------------------------------------------------------------------------------ */

static u32 stop;
struct writer {
	struct host_thread thread;
	u64 address[8], count;
};

static void write_loop(void *arg)
{
	struct writer *w = arg;

	/* Some rounds at least, however busy the machine. */
	while (!host_load_acquire(&stop) || w->count < 5) {
		w->count++;
		for (unsigned i = 0; i < 8; i++) {
			HOST_CHECK(get(w->address[i]) == w->count - 1);
			put(w->address[i], w->count);
		}
	}
}

static void migrate_loop(void *arg)
{
	bool huge = arg != NULL;

	while (!host_load_acquire(&stop)) {
		struct gpusvm_migrate_details details = { .compound = huge };
		struct gpusvm_migrate_result res;
		u64 start = huge ? BASE + M2 : P(0);
		unsigned n = huge ? 512 : 64;
		struct bo *bo = bo_create(&dev, mm, n, false, NULL);
		int err;

		HOST_CHECK(gpusvm_devmem_get_unless_zero(&bo->base));
		err = gpusvm_devmem_migrate(&bo->base, start, start + n * HOST_PAGE_SIZE, &details,
					    &res);
		HOST_CHECK(!err);
		HOST_CHECK(res.moved + res.already + res.stayed + res.holes == n);
		/* Someone else may be at the same frames, time and again. */
		err = gpusvm_devmem_evict(&bo->base);
		HOST_CHECK(!err || err == -EBUSY);
		gpusvm_devmem_put(&bo->base);
	}
}

static void test_threads(void **state)
{
	static struct writer w[2];
	struct host_thread movers[3] = { 0 };
	u64 until;

	(void)state;
	memset(w, 0, sizeof(w));
	host_store_release(&stop, 0);
	assert_int_equal(model_mmap(mm, P(0), P(64), MODEL_RW), 0);
	assert_int_equal(model_mmap(mm, BASE + M2, BASE + 2 * M2, MODEL_RW | MODEL_THP), 0);
	/* Both write to the same pages, each its own words. */
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 0; k < 8; k++)
			w[i].address[k] = (k < 4 ? P(16 * k) : BASE + M2 + k * 64 * 4096) + i * 8;
		assert_int_equal(host_thread_start(&w[i].thread, "writer", write_loop, &w[i]), 0);
	}
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(host_thread_start(&movers[i], "mover", migrate_loop,
						   i ? NULL : &dev),
				 0);
	until = host_now() + 700 * HOST_MSEC;
	while (host_now() < until || !host_read_once(&dev.pages_home) ||
	       !host_read_once(&dev.pages_evicted)) {
		/* Another change of the same mappings in between. */
		assert_int_equal(model_mprotect(mm, P(0), P(64), MODEL_RW), 0);
		host_sleep(HOST_MSEC);
	}
	host_store_release(&stop, 1);
	for (unsigned i = 0; i < 3; i++)
		host_thread_join(&movers[i]);
	for (unsigned i = 0; i < 2; i++) {
		host_thread_join(&w[i].thread);
		for (unsigned k = 0; k < 8; k++)
			assert_int_equal(get(w[i].address[k]), w[i].count);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_random),
		TEST(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
