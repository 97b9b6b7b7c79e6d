/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_driver_stress.c: the driver under random operations, against plain bytes;
 * under load from all sides at once; and with each allocation failing once.
 *
 *	GPUSVM_SEED   of the random operations (it is printed)
 *	GPUSVM_SECONDS of each load (2)
 */
#include "tests/unit/driver_world.h"

#define PAGE ((u64)4096)
#define DEVICES 3 /* in each world */

static u64 seed_of_run = 20261121;

static u64 next_random(u64 *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* Where failures have to be told apart from what they fail on. */
static void check(bool ok, const char *what, u64 i)
{
	if (!ok)
		fail_msg("%s at operation %llu, seed %llu", what, (unsigned long long)i,
			 (unsigned long long)seed_of_run);
}

/* ---- Random operations against plain bytes --------------------------------------- */

#define WINDOW (8 * MiB)
#define N_PAGES (WINDOW / PAGE)

struct naive {
	struct world w;
	u8 *bytes;
	u8 prot[N_PAGES]; /* MODEL_READ, MODEL_WRITE; 0: a hole */
	u8 *buffer;
	u64 rng, i;
};

static u64 below(struct naive *n, u64 limit)
{
	return (next_random(&n->rng) >> 11) % limit;
}

/* What all pages of [at, at + length) allow. */
static u32 allowed(struct naive *n, u64 at, u64 length)
{
	u32 prot = MODEL_RW;

	for (u64 p = at / PAGE; p <= (at + length - 1) / PAGE; p++)
		prot &= n->prot[p];
	return prot;
}

static void pick(struct naive *n, u64 *at, u64 *length)
{
	*at = below(n, WINDOW);
	*length = 1 + below(n, below(n, 4) ? 6000 : 200000);
	*length = host_min(*length, WINDOW - *at);
}

static void pick_pages(struct naive *n, u64 *at, u64 *length)
{
	*at = below(n, N_PAGES) * PAGE;
	*length = (1 + below(n, below(n, 3) ? 20 : N_PAGES / 2)) * PAGE;
	*length = host_min(*length, WINDOW - *at);
}

static void op_write(struct naive *n, int device, u64 at, u64 length)
{
	int err;

	if (!(allowed(n, at, length) & MODEL_WRITE))
		return;
	for (u64 k = 0; k < length; k++)
		n->bytes[at + k] = n->buffer[k] = (u8)(n->i * 31 + k * 7 + (k >> 8));
	err = device < 0 ? model_cpu_write(n->w.mm, BASE + at, n->buffer, length)
			 : device_write(&n->w, device, BASE + at, n->buffer, length);
	check(!err, "write failed", n->i);
}

static void op_read(struct naive *n, int device, u64 at, u64 length)
{
	bool ok = allowed(n, at, length) & MODEL_READ;
	int err;

	err = device < 0 ? model_cpu_read(n->w.mm, BASE + at, n->buffer, length)
			 : device_read(&n->w, device, BASE + at, n->buffer, length);
	check(ok ? !err : err == -EFAULT, "a read's result", n->i);
	check(!ok || !memcmp(n->buffer, n->bytes + at, length), "wrong bytes", n->i);
}

static void op_device(struct naive *n)
{
	int device = (int)below(n, DEVICES);
	u64 at, length, from, old;

	pick(n, &at, &length);
	from = below(n, WINDOW - length + 1);
	switch (below(n, 3)) {
	case 0:
		if (!(allowed(n, at, length) & MODEL_WRITE))
			break;
		check(!device_set(&n->w, device, BASE + at, (int)(n->i & 255), length), "set",
		      n->i);
		memset(n->bytes + at, (int)(n->i & 255), length);
		break;
	case 1:
		at &= ~(u64)7;
		if (!(allowed(n, at, 8) & MODEL_WRITE))
			break;
		check(!device_add(&n->w, device, BASE + at, n->i, &old), "add", n->i);
		check(!memcmp(&old, n->bytes + at, 8), "an atomic's old value", n->i);
		old += n->i;
		memcpy(n->bytes + at, &old, 8);
		break;
	default:
		if (!(allowed(n, at, length) & MODEL_WRITE) ||
		    !(allowed(n, from, length) & MODEL_READ) ||
		    (at < from + length && from < at + length))
			break;
		check(!device_copy(&n->w, device, BASE + at, BASE + from, length), "copy", n->i);
		memcpy(n->bytes + at, n->bytes + from, length);
	}
}

static void op_remap(struct naive *n)
{
	u64 at, length, to;
	bool stays = below(n, 2);

	pick_pages(n, &at, &length);
	length = host_min(length, 64 * PAGE);
	to = below(n, (WINDOW - length) / PAGE + 1) * PAGE;
	if (to < at + length && at < to + length)
		return;
	for (u64 p = at / PAGE; p < (at + length) / PAGE; p++)
		if (!n->prot[p] || n->prot[p] != n->prot[at / PAGE])
			return;
	check(!model_mremap(n->w.mm, BASE + at, BASE + at + length, BASE + to, stays), "mremap",
	      n->i);
	memcpy(n->bytes + to, n->bytes + at, length);
	memset(n->bytes + at, 0, length);
	for (u64 p = 0; p < length / PAGE; p++) {
		n->prot[to / PAGE + p] = n->prot[at / PAGE + p];
		if (!stays)
			n->prot[at / PAGE + p] = 0;
	}
}

static void op_mapping(struct naive *n)
{
	u64 at, length;
	u32 prot;

	pick_pages(n, &at, &length);
	switch (below(n, 6)) {
	case 0:
		length = host_min(length, 100 * PAGE);
		check(!model_munmap(n->w.mm, BASE + at, BASE + at + length), "munmap", n->i);
		memset(n->bytes + at, 0, length);
		memset(n->prot + at / PAGE, 0, length / PAGE);
		break;
	case 1:
	case 2: /* over whatever is there */
		prot = MODEL_RW | (below(n, 2) ? MODEL_THP : 0) | (below(n, 8) ? 0 : MODEL_SHARED);
		check(!model_mmap(n->w.mm, BASE + at, BASE + at + length, prot), "mmap", n->i);
		memset(n->bytes + at, 0, length);
		memset(n->prot + at / PAGE, MODEL_RW, length / PAGE);
		break;
	case 3:
		if (!(allowed(n, at, length) & MODEL_READ))
			break;
		prot = below(n, 3) ? MODEL_RW : MODEL_READ;
		check(!model_mprotect(n->w.mm, BASE + at, BASE + at + length, prot), "mprotect",
		      n->i);
		memset(n->prot + at / PAGE, (int)prot, length / PAGE);
		break;
	case 4:
		op_remap(n);
		break;
	default:
		break; /* shared memory keeps its bytes over DONTNEED: see op_discard */
	}
}

static void op_move(struct naive *n)
{
	struct gpusvm_migrate_result moved;
	u64 at, length;
	int to = (int)below(n, DEVICES + 1) - 1;

	pick_pages(n, &at, &length);
	if (!below(n, 10)) {
		gpusvm_driver_evict(n->w.driver, -1, DRIVER_CAUSE_EVICTION);
		return;
	}
	check(
	    !gpusvm_driver_prefetch(n->w.driver, BASE + at, BASE + at + length, to, false, &moved),
	    "prefetch", n->i);
	check(moved.moved + moved.already + moved.stayed + moved.holes == length / PAGE,
	      "what a prefetch counted", n->i);
}

static void test_random_operations(void **state)
{
	struct naive *n = calloc(1, sizeof(*n));
	u64 at, length;

	n->rng = seed_of_run;
	n->bytes = calloc(1, WINDOW);
	n->buffer = malloc(WINDOW);
	world_open(&n->w);
	add_device(&n->w, 2 * MiB, 0);
	add_device(&n->w, 4 * MiB, 0);
	add_device(&n->w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&n->w, BASE, WINDOW, MODEL_RW);
	memset(n->prot, MODEL_RW, N_PAGES);
	for (n->i = 0; n->i < 3000; n->i++) {
		pick(n, &at, &length);
		switch (below(n, 8)) {
		case 0:
		case 1:
			op_write(n, (int)below(n, DEVICES + 1) - 1, at, length);
			break;
		case 2:
		case 3:
		case 4:
			op_read(n, (int)below(n, DEVICES + 1) - 1, at, length);
			break;
		case 5:
			op_device(n);
			break;
		case 6:
			op_move(n);
			break;
		default:
			op_mapping(n);
		}
		if (!(n->i % 500))
			check_clean(&n->w);
	}
	for (u64 p = 0; p < N_PAGES; p++)
		op_read(n, (int)(p % (DEVICES + 1)) - 1, p * PAGE, PAGE);
	world_close(&n->w);
	free(n->buffer);
	free(n->bytes);
	free(n);
}

/* ---- Load from all sides ------------------------------------------------------------ */

/* Each actor owns every ACTORS-th word of the region, so that all share all pages
 * and each knows what its words hold. */
#define ACTORS 6u
#define REGION (6 * MiB)

struct load {
	struct world w;
	u32 stop; /* atomic */
	u32 failed;
	u64 operations;
};

struct actor {
	struct load *load;
	unsigned index;
	int device; /* -1: the CPU */
	u64 rng;
	u64 *values; /* what its words hold */
	pthread_t thread;
};

static int actor_access(struct actor *a, u64 va, u64 *word, bool write)
{
	struct world *w = &a->load->w;

	if (a->device < 0)
		return write ? model_cpu_write(w->mm, va, word, 8)
			     : model_cpu_read(w->mm, va, word, 8);
	return write ? device_write(w, a->device, va, word, 8)
		     : device_read(w, a->device, va, word, 8);
}

static void *actor_main(void *arg)
{
	struct actor *a = arg;
	u64 words = REGION / 8 / ACTORS, n = 0;

	while (!host_load_acquire(&a->load->stop)) {
		u64 k = (next_random(&a->rng) >> 9) % words;
		u64 va = BASE + 8 * (k * ACTORS + a->index), word = 0;
		int err;

		err = actor_access(a, va, &word, false);
		if (err || word != a->values[k]) {
			fprintf(stderr, "actor %u: word %llx is %llx, not %llx (%d)\n", a->index,
				(unsigned long long)va, (unsigned long long)word,
				(unsigned long long)a->values[k], err);
			host_store_release(&a->load->failed, 1);
			break;
		}
		word = a->values[k] = ++n << 8 | a->index;
		if (actor_access(a, va, &word, true)) {
			host_store_release(&a->load->failed, 1);
			break;
		}
		host_add_relaxed(&a->load->operations, 1);
	}
	return NULL;
}

static void *mover_main(void *arg)
{
	struct load *l = arg;
	u64 rng = seed_of_run ^ 77;

	while (!host_load_acquire(&l->stop)) {
		struct gpusvm_migrate_result moved;
		u64 at = BASE + (next_random(&rng) >> 9) % (REGION / PAGE) * PAGE;
		u64 end = host_min(at + (next_random(&rng) >> 9) % MiB / PAGE * PAGE + PAGE,
				   BASE + REGION);

		if ((next_random(&rng) >> 20) % 16)
			gpusvm_driver_prefetch(l->w.driver, at, end,
					       (int)((next_random(&rng) >> 20) % 3) - 1, false,
					       &moved);
		else
			gpusvm_driver_evict(l->w.driver, -1, DRIVER_CAUSE_EVICTION);
		host_sleep(200 * HOST_USEC);
	}
	return NULL;
}

/* Maps, unmaps, moves, and forks, beside the others' region and across it. */
static void *mapper_main(void *arg)
{
	struct load *l = arg;
	u64 va = BASE + 16 * MiB, i, word;
	struct mm *child;

	for (i = 1; !host_load_acquire(&l->stop); i++) {
		bool ok = !model_mmap(l->w.mm, va, va + 2 * MiB, MODEL_RW);

		ok &= !device_write(&l->w, i & 1, va + 64, &i, 8);
		if (i % 3 == 0) {
			ok &= !model_mremap(l->w.mm, va, va + MiB, va + 4 * MiB, false);
			ok &= !device_read(&l->w, 1, va + 4 * MiB + 64, &word, 8) && word == i;
			ok &= device_read(&l->w, 0, va + 64, &word, 8) == -EFAULT;
			ok &= !model_munmap(l->w.mm, va + 4 * MiB, va + 5 * MiB);
		} else if (i % 3 == 1) {
			ok &= !model_cpu_read(l->w.mm, va + 64, &word, 8) && word == i;
		} else {
			ok &= !model_dontneed(l->w.mm, va, va + 2 * MiB);
			ok &= !device_read(&l->w, 0, va + 64, &word, 8) && word == 0;
		}
		if (i % 5 == 0) {
			gpusvm_driver_pause(l->w.driver);
			ok &= !model_fork(l->w.mm, &child);
			gpusvm_driver_resume(l->w.driver);
			if (ok)
				model_mm_destroy(child);
		}
		ok &= !model_munmap(l->w.mm, va, va + 2 * MiB);
		if (!ok) {
			fprintf(stderr, "mapper: wrong at %llu\n", (unsigned long long)i);
			host_store_release(&l->failed, 1);
			break;
		}
		host_sleep(HOST_MSEC);
	}
	return NULL;
}

static u64 seconds(void)
{
	const char *s = getenv("GPUSVM_SECONDS");

	return s ? strtoull(s, NULL, 0) : 2;
}

static void load_run(u64 timeslice, u64 vram, u32 flags)
{
	struct load *l = calloc(1, sizeof(*l));
	struct actor actors[ACTORS];
	pthread_t mover, mapper;
	u64 end;

	world_open_for(&l->w, timeslice);
	add_device(&l->w, vram, 0);
	add_device(&l->w, 2 * vram, 0);
	map(&l->w, BASE, REGION, MODEL_RW | flags);
	for (unsigned i = 0; i < ACTORS; i++) {
		actors[i] = (struct actor){.load = l,
					   .index = i,
					   .device = (int)(i % 3) - 1,
					   .rng = seed_of_run + i,
					   .values = calloc(REGION / 8 / ACTORS, 8)};
		pthread_create(&actors[i].thread, NULL, actor_main, &actors[i]);
	}
	pthread_create(&mover, NULL, mover_main, l);
	pthread_create(&mapper, NULL, mapper_main, l);
	end = host_now() + seconds() * HOST_SEC;
	while (host_now() < end && !host_load_acquire(&l->failed))
		host_sleep(10 * HOST_MSEC);
	host_store_release(&l->stop, 1);
	for (unsigned i = 0; i < ACTORS; i++)
		pthread_join(actors[i].thread, NULL);
	pthread_join(mover, NULL);
	pthread_join(mapper, NULL);
	assert_int_equal(l->failed, 0);
	assert_true(l->operations > ACTORS);
	for (u64 i = 0; i < REGION / 8 / ACTORS * ACTORS; i += 97) {
		u64 word;

		cpu_read(&l->w, BASE + 8 * i, &word, 8);
		assert_int_equal(word, actors[i % ACTORS].values[i / ACTORS]);
	}
	for (unsigned i = 0; i < ACTORS; i++)
		free(actors[i].values);
	check_clean(&l->w);
	world_close(&l->w);
	free(l);
}

static void test_load(void **state)
{
	load_run(0, 4 * MiB, 0);
}

static void test_load_with_huge_pages_and_timeslices(void **state)
{
	load_run(HOST_MSEC, 4 * MiB, MODEL_THP);
}

static void test_load_oversubscribed(void **state)
{
	load_run(0, 2 * MiB, 0);
}

/* ---- Unbind under load ------------------------------------------------------------------ */

struct unbind {
	struct world w;
	struct gpusvm_driver_queue *queue;
	u64 va;
	u64 acknowledged; /* the last value whose write was answered with 0 */
	int result;
};

static void *unbind_writer(void *arg)
{
	struct unbind *u = arg;
	u64 value;

	for (value = 1;; value++) {
		struct gpusvm_job job = {.command = {.type = GPUSVM_COMMAND_WRITE,
						     .va = u->va + (value & 511) * PAGE,
						     .length = 8,
						     .buffer = &value}};

		u->result = run_job(u->queue, &job);
		if (u->result)
			return NULL;
		u->acknowledged = value;
	}
}

static void test_unbind_under_load(void **state)
{
	for (unsigned round = 0; round < 6; round++) {
		struct unbind *u = calloc(2, sizeof(*u));
		pthread_t threads[2];
		struct world w;

		world_open(&w);
		add_device(&w, round & 1 ? 2 * MiB : 8 * MiB, 0);
		map(&w, BASE, 8 * MiB, MODEL_RW);
		for (unsigned i = 0; i < 2; i++) {
			u[i].w = w;
			u[i].va = BASE + i * 2 * MiB;
			assert_int_equal(gpusvm_driver_queue_create(w.driver, 0, &u[i].queue), 0);
			pthread_create(&threads[i], NULL, unbind_writer, &u[i]);
		}
		host_sleep((5 + 7 * round) * HOST_MSEC);
		assert_int_equal(gpusvm_driver_device_remove(w.driver, 0), 0);
		for (unsigned i = 0; i < 2; i++) {
			u64 word, value = u[i].acknowledged;

			pthread_join(threads[i], NULL);
			value = u[i].acknowledged;
			assert_int_equal(u[i].result, -ENODEV);
			for (u64 k = value; k && k + 500 > value; k--) {
				cpu_read(&w, u[i].va + (k & 511) * PAGE, &word, 8);
				/* The one that failed may have been done. */
				assert_true(word == k || word == value + 1);
			}
			gpusvm_driver_queue_destroy(u[i].queue);
		}
		assert_int_equal(add_device(&w, 4 * MiB, 0), 1);
		device_fill(&w, 1, BASE, 8 * MiB, round);
		cpu_expect(&w, BASE, 8 * MiB, round);
		world_close(&w);
		free(u);
	}
}

/* ---- Each allocation fails once --------------------------------------------------------- */

#define SMALL (160 * PAGE)

static void test_no_memory(void **state)
{
	u64 before, n, used = ~(u64)0;

	for (n = 1; n < 250 && n <= used; n++) {
		struct gpusvm_migrate_result moved;
		struct world w;
		u64 word = 0;
		int err;

		world_open(&w);
		add_device(&w, 2 * MiB, 0);
		map(&w, BASE, SMALL, MODEL_RW);
		cpu_fill(&w, BASE, SMALL, 1);
		before = host_posix_alloc_count();
		host_posix_fail_alloc_at(n);
		err = device_read(&w, 0, BASE + 8, &word, 8);
		assert_true(err || word == word_at(BASE + 8, 1));
		gpusvm_driver_prefetch(w.driver, BASE + 32 * PAGE, BASE + 64 * PAGE, 0, false,
				       &moved);
		gpusvm_driver_prefetch(w.driver, BASE, BASE + 8 * PAGE, DRIVER_SYSTEM, false,
				       &moved);
		device_touch(&w, 0, BASE, 64 * PAGE, GPUSVM_ACCESS_READ);
		model_munmap(w.mm, BASE + 128 * PAGE, BASE + 140 * PAGE);
		gpusvm_driver_bind(w.queue[0], BASE, BASE + 64 * PAGE, false);
		gpusvm_driver_unbind(w.queue[0], BASE + 4 * PAGE, BASE + 8 * PAGE);
		used = host_posix_alloc_count() - before;
		host_posix_fail_alloc_at(0);
		device_expect(&w, 0, BASE, 128 * PAGE, 1);
		cpu_expect(&w, BASE, 128 * PAGE, 1);
		world_close(&w);
	}
	assert_true(n > 20);
}

static int setup(void **state)
{
	const char *seed = getenv("GPUSVM_SEED");

	if (seed)
		seed_of_run = strtoull(seed, NULL, 0);
	printf("# seed %llu\n", (unsigned long long)seed_of_run);
	return host_work_start();
}

static int teardown(void **state)
{
	host_work_stop();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_random_operations),
	    cmocka_unit_test(test_load),
	    cmocka_unit_test(test_load_with_huge_pages_and_timeslices),
	    cmocka_unit_test(test_load_oversubscribed),
	    cmocka_unit_test(test_unbind_under_load),
	    cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests_name("driver_stress", tests, setup, teardown);
}
