/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_exclusive.c: memory that one device has for itself, over the model; and atomics
 * of several devices and the CPU on one word, whatever is advised for it. */
#include "tests/unit/driver_world.h"

#define PAGES(n) ((u64)(n)*HOST_PAGE_SIZE)

static int make_exclusive(struct world *w, int device, u64 va, u64 length)
{
	return gpusvm_driver_make_exclusive(w->queue[device], va, va + length);
}

static u64 exclusive_pages(struct world *w, u64 va, u64 n, int device)
{
	u64 count = 0;

	for (u64 i = 0; i < n; i++) {
		struct gpusvm_driver_residency page = where(w, va + PAGES(i));

		if (!(page.flags & DRIVER_PAGE_EXCLUSIVE))
			continue;
		assert_int_equal(page.mapped_by, (u64)1 << device);
		count++;
	}
	return count;
}

static void test_taken_until_touched(void **state)
{
	struct world w;
	u64 word = 9;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 4 * MiB, MODEL_RW | MODEL_THP);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	device_expect(&w, 1, BASE, 4 * MiB, 1);
	/* From the CPU, and from the other; a part of 2M, and a whole one. */
	assert_int_equal(make_exclusive(&w, 0, BASE + PAGES(100), PAGES(8)), 0);
	assert_int_equal(exclusive_pages(&w, BASE, 1024, 0), 8);
	assert_int_equal(make_exclusive(&w, 0, BASE + 2 * MiB, 2 * MiB), 0);
	assert_int_equal(exclusive_pages(&w, BASE, 1024, 0), 520);
	/* Again changes nothing. */
	assert_int_equal(make_exclusive(&w, 0, BASE + 2 * MiB, 2 * MiB), 0);
	assert_int_equal(exclusive_pages(&w, BASE, 1024, 0), 520);
	/* The device's own access does not end it. */
	assert_int_equal(device_write(&w, 0, BASE + PAGES(100), &word, 8), 0);
	assert_int_equal(exclusive_pages(&w, BASE, 512, 0), 8);
	/* The CPU's does, for what comes home. */
	cpu_read(&w, BASE + PAGES(100), &word, 8);
	assert_int_equal(word, 9);
	assert_true(exclusive_pages(&w, BASE, 512, 0) < 8);
	assert_int_equal(where(&w, BASE + PAGES(100)).flags & DRIVER_PAGE_EXCLUSIVE, 0);
	/* The other device's, too. */
	device_expect(&w, 1, BASE + 2 * MiB, 2 * MiB, 1);
	assert_int_equal(exclusive_pages(&w, BASE + 2 * MiB, 512, 0), 0);
	/* And what is on the device again is not what was taken. */
	device_expect(&w, 0, BASE + 2 * MiB, 2 * MiB, 1);
	assert_int_equal(exclusive_pages(&w, BASE, 1024, 0) - exclusive_pages(&w, BASE, 512, 0), 0);
	world_close(&w);
}

static void test_follows_mremap_and_ends_with_it(void **state)
{
	struct world w;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	assert_int_equal(make_exclusive(&w, 0, BASE, PAGES(16)), 0);
	assert_int_equal(model_mremap(w.mm, BASE, BASE + PAGES(16), BASE + 8 * MiB, false), 0);
	assert_int_equal(device_touch(&w, 0, BASE + 8 * MiB, PAGES(16), GPUSVM_ACCESS_WRITE), 0);
	assert_int_equal(exclusive_pages(&w, BASE + 8 * MiB, 16, 0), 16);
	assert_int_equal(model_munmap(w.mm, BASE + 8 * MiB, BASE + 8 * MiB + PAGES(16)), 0);
	/* The frames are used again, and are nobody's alone. */
	device_fill(&w, 0, BASE + PAGES(16), 2 * MiB - PAGES(16), 2);
	assert_int_equal(exclusive_pages(&w, BASE + PAGES(16), 496, 0), 0);
	world_close(&w);
}

static void test_bad_input(void **state)
{
	struct model_frame *pin;
	struct world w;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	add_device(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, PAGES(8), MODEL_RW);
	map(&w, BASE + PAGES(8), PAGES(8), MODEL_READ);
	map(&w, BASE + PAGES(16), PAGES(8), MODEL_RW | MODEL_SHARED);
	map(&w, BASE + PAGES(24), PAGES(8), 0);
	assert_int_equal(make_exclusive(&w, 0, BASE, 0), -EINVAL);
	assert_int_equal(make_exclusive(&w, 0, BASE + 1, PAGES(1)), -EINVAL);
	assert_int_equal(make_exclusive(&w, 0, BASE + PAGES(32), PAGES(1)), -EFAULT);
	assert_int_equal(make_exclusive(&w, 0, BASE - PAGES(1), PAGES(2)), -EFAULT);
	assert_int_equal(make_exclusive(&w, 0, BASE, PAGES(9)), -EPERM);
	assert_int_equal(make_exclusive(&w, 0, BASE + PAGES(16), PAGES(1)), -EOPNOTSUPP);
	assert_int_equal(make_exclusive(&w, 0, BASE + PAGES(24), PAGES(1)), -EFAULT);
	assert_int_equal(make_exclusive(&w, 1, BASE + PAGES(16), PAGES(1)), -EOPNOTSUPP);
	assert_int_equal(model_pin(w.mm, BASE, &pin), 0);
	assert_int_equal(make_exclusive(&w, 0, BASE, PAGES(4)), -EBUSY);
	model_unpin(pin);
	assert_int_equal(make_exclusive(&w, 0, BASE, PAGES(4)), 0);
	map(&w, BASE + 64 * MiB, 16 * MiB, MODEL_RW);
	assert_int_equal(make_exclusive(&w, 0, BASE + 64 * MiB, 16 * MiB), -ENOSPC);
	world_close(&w);
}

/* ---- In system memory ---------------------------------------------------------------- */

static int add_device_without_atomics(struct world *w, u64 vram, u64 flags)
{
	struct gpusvm_soft_options options = {
	    .vram_bytes = vram, .lanes = 2, .flags = flags, .no_system_atomics = true};
	int index;

	assert_int_equal(gpusvm_soft_create(&options, &w->device[w->n_devices]), 0);
	index = gpusvm_driver_device_add(w->driver, w->device[w->n_devices++]);
	assert_int_equal(gpusvm_driver_queue_create(w->driver, index, &w->queue[index]), 0);
	return index;
}

/* What was taken where it is: no more than was asked for, nobody else's, until touched. */
static void test_taken_in_place(void **state)
{
	struct world w;
	u64 word = 9;

	world_open(&w);
	add_device(&w, 8 * MiB, 0);
	add_device(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, 4 * MiB, MODEL_RW | MODEL_THP);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	device_expect(&w, 1, BASE, 4 * MiB, 1);
	device_expect(&w, 0, BASE + 2 * MiB, 2 * MiB, 1); /* comes home by it */
	assert_int_equal(make_exclusive(&w, 1, BASE + PAGES(100), PAGES(20)), 0);
	assert_int_equal(exclusive_pages(&w, BASE, 1024, 1), 20);
	assert_int_equal(where(&w, BASE + PAGES(100)).location, DRIVER_SYSTEM);
	assert_int_equal(make_exclusive(&w, 1, BASE + 2 * MiB, 2 * MiB), 0);
	assert_int_equal(exclusive_pages(&w, BASE, 1024, 1), 532);
	assert_int_equal(make_exclusive(&w, 1, BASE + 2 * MiB, 2 * MiB), 0);
	/* Its own access does not end it; the CPU's does, and finds what it wrote. */
	assert_int_equal(device_write(&w, 1, BASE + PAGES(100), &word, 8), 0);
	device_expect(&w, 1, BASE + 2 * MiB, 2 * MiB, 1);
	assert_int_equal(exclusive_pages(&w, BASE, 1024, 1), 532);
	cpu_read(&w, BASE + PAGES(100), &word, 8);
	assert_int_equal(word, 9);
	assert_int_equal(exclusive_pages(&w, BASE, 512, 1), 0 + 19);
	/* The other device's, too, which moves it to its own memory. */
	device_expect(&w, 0, BASE + 2 * MiB, 2 * MiB, 1);
	assert_int_equal(where(&w, BASE + 2 * MiB).location, 0);
	assert_int_equal(exclusive_pages(&w, BASE + 2 * MiB, 512, 1), 0);
	/* Everything home, for a core dump say. */
	assert_int_equal(gpusvm_driver_evict(w.driver, -1, DRIVER_CAUSE_EVICTION), 0);
	assert_int_equal(exclusive_pages(&w, BASE, 1024, 1), 0);
	assert_int_equal(make_exclusive(&w, 1, BASE, PAGES(1)), 0);
	assert_int_equal(gpusvm_driver_device_remove(w.driver, 1), 0);
	assert_int_equal(where(&w, BASE).flags & DRIVER_PAGE_EXCLUSIVE, 0);
	world_close(&w);
}

/* A device whose memory is full, or that is advised not to move the page. */
static void test_in_place_where_it_cannot_move(void **state)
{
	struct world w;
	u64 got;

	world_open(&w);
	add_device_without_atomics(&w, 2 * MiB, 0);
	map(&w, BASE, 8 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 8 * MiB, 1);
	assert_int_equal(gpusvm_driver_advise(w.driver, BASE, BASE + MiB, GPUSVM_NO_MIGRATE, 1, 0),
			 0);
	assert_int_equal(make_exclusive(&w, 0, BASE + PAGES(3), PAGES(2)), 0);
	assert_int_equal(where(&w, BASE + PAGES(3)).location, DRIVER_SYSTEM);
	assert_int_equal(exclusive_pages(&w, BASE, 256, 0), 2);
	assert_int_equal(gpusvm_driver_advise(w.driver, BASE, BASE + MiB, GPUSVM_ATOMIC,
					      GPUSVM_ATOMIC_GLOBAL, 0),
			 0);
	assert_int_equal(device_add(&w, 0, BASE + PAGES(9), 1, &got), 0);
	assert_int_equal(got, word_at(BASE + PAGES(9), 1));
	assert_int_equal(where(&w, BASE + PAGES(9)).location, DRIVER_SYSTEM);
	assert_true(where(&w, BASE + PAGES(9)).flags & DRIVER_PAGE_EXCLUSIVE);
	cpu_read(&w, BASE + PAGES(9), &got, 8);
	assert_int_equal(got, word_at(BASE + PAGES(9), 1) + 1);
	world_close(&w);
}

static void wait_mapped(struct world *w, u64 va, u64 mask)
{
	for (unsigned i = 0; i < 5000 && (where(w, va).mapped_by & mask) != mask; i++)
		host_sleep(HOST_MSEC);
	assert_int_equal(where(w, va).mapped_by & mask, mask);
}

/* ACCESSED_BY keeps others mapped, but does not end what one has for itself: that is for
 * who touches it, after which they are mapped again. */
static void test_accessed_by_does_not_end_it(void **state)
{
	const struct gpusvm_interconnect_link link = {
		.flags = GPUSVM_LINK_MAP | GPUSVM_LINK_COPY,
	};
	struct gpusvm_driver *driver;
	struct world w;
	u64 word;

	world_open(&w);
	driver = w.driver;
	add_device(&w, 8 * MiB, 0);
	add_device(&w, 8 * MiB, 0);
	add_device_without_atomics(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	assert_int_equal(gpusvm_driver_link_set(driver, 1, 0, &link), 0);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	for (unsigned i = 0; i < 2; i++) { /* 0: in system memory; 1: on device 0 */
		int taker = i ? 0 : 2;
		u64 va = BASE + i * 2 * MiB;

		assert_int_equal(
			gpusvm_driver_advise(driver, va, va + MiB, GPUSVM_ACCESSED_BY, 1, 1), 0);
		wait_mapped(&w, va, 2);
		assert_int_equal(make_exclusive(&w, taker, va, PAGES(1)), 0);
		assert_int_equal(exclusive_pages(&w, va, 512, taker), 1);
		driver_map_accessed(NULL, va, va + 2 * MiB, driver);
		assert_int_equal(exclusive_pages(&w, va, 512, taker), 1);
		cpu_read(&w, va, &word, 8);
		assert_int_equal(word, word_at(va, 1));
		wait_mapped(&w, va, 2);
	}
	/* The fault of an atomic maps it for them, too: not at the cost of what it took. */
	assert_int_equal(gpusvm_driver_advise(driver, BASE, BASE + MiB, GPUSVM_ATOMIC,
					      GPUSVM_ATOMIC_GLOBAL, 0),
			 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(device_add(&w, 2, BASE + PAGES(9), 1, &word), 0);
	cpu_read(&w, BASE + PAGES(9), &word, 8);
	assert_int_equal(word, word_at(BASE + PAGES(9), 1) + 20);
	world_close(&w);
}

/* Every change of the mapping ends it, or brings it along. */
static void test_in_place_under_changes(void **state)
{
	struct model_frame *pin;
	struct mm *child;
	struct world w;
	u64 word = 77;

	world_open(&w);
	add_device_without_atomics(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, MiB, MODEL_RW);
	cpu_fill(&w, BASE, MiB, 1);
	assert_int_equal(make_exclusive(&w, 0, BASE, PAGES(16)), 0);
	assert_int_equal(device_write(&w, 0, BASE, &word, 8), 0);
	/* A child has it all, and what is written afterwards is not the child's. */
	assert_int_equal(model_fork(w.mm, &child), 0);
	assert_int_equal(exclusive_pages(&w, BASE, 16, 0), 0);
	assert_int_equal(make_exclusive(&w, 0, BASE, PAGES(16)), 0);
	word = 78;
	assert_int_equal(device_write(&w, 0, BASE, &word, 8), 0);
	assert_int_equal(model_cpu_read(child, BASE, &word, 8), 0);
	assert_int_equal(word, 77);
	model_mm_destroy(child);
	/* Moved with its mapping; nobody has it mapped there. */
	assert_int_equal(model_mremap(w.mm, BASE, BASE + PAGES(16), BASE + 8 * MiB, false), 0);
	assert_int_equal(where(&w, BASE + 8 * MiB).mapped_by, 0);
	assert_int_equal(device_add(&w, 0, BASE + 8 * MiB, 1, &word), 0);
	assert_int_equal(word, 78);
	cpu_read(&w, BASE + 8 * MiB, &word, 8);
	assert_int_equal(word, 79);
	/* Read only, dropped, unmapped. */
	assert_int_equal(make_exclusive(&w, 0, BASE + 8 * MiB, PAGES(16)), 0);
	assert_int_equal(
	    model_mprotect(w.mm, BASE + 8 * MiB, BASE + 8 * MiB + PAGES(4), MODEL_READ), 0);
	assert_int_equal(device_write(&w, 0, BASE + 8 * MiB, &word, 8), -EPERM);
	assert_int_equal(device_read(&w, 0, BASE + 8 * MiB, &word, 8), 0);
	assert_int_equal(word, 79);
	assert_int_equal(model_dontneed(w.mm, BASE + 8 * MiB + PAGES(4), BASE + 8 * MiB + PAGES(8)),
			 0);
	assert_int_equal(device_read(&w, 0, BASE + 8 * MiB + PAGES(4), &word, 8), 0);
	assert_int_equal(word, 0);
	assert_int_equal(model_munmap(w.mm, BASE + 8 * MiB, BASE + 8 * MiB + PAGES(16)), 0);
	assert_int_equal(device_read(&w, 0, BASE + 8 * MiB + PAGES(9), &word, 8), -EFAULT);
	/* What others hold cannot be taken, and what is taken is not swapped. */
	map(&w, BASE, PAGES(4), MODEL_RW);
	assert_int_equal(model_pin(w.mm, BASE + PAGES(1), &pin), 0);
	assert_int_equal(make_exclusive(&w, 0, BASE, PAGES(4)), -EBUSY);
	model_unpin(pin);
	assert_int_equal(make_exclusive(&w, 0, BASE, PAGES(4)), 0);
	assert_int_equal(model_swap_out(w.mm, BASE), -EBUSY);
	assert_int_equal(model_pin(w.mm, BASE + PAGES(1), &pin), 0);
	assert_true(exclusive_pages(&w, BASE, 4, 0) < 4);
	model_unpin(pin);
	world_close(&w);
}

/* ---- One word ---------------------------------------------------------------------- */

#define ADDS 1500u

struct adder {
	struct world *w;
	int device; /* -1: takes it for a device now and then */
	int failed;
	u32 *stop;
};

static void *add_on_device(void *arg)
{
	struct adder *a = arg;

	for (unsigned i = 0; i < ADDS; i++) {
		struct gpusvm_job job = {
			.command = { .type = GPUSVM_COMMAND_ATOMIC,
				     .va = BASE + 8,
				     .atomic = { .op = GPUSVM_OP_ADD, .width = 8, .operand = 1 } },
		};

		a->failed |= run_job(a->w->queue[a->device], &job);
	}
	return NULL;
}

static void *add_on_cpu(void *arg)
{
	struct adder *a = arg;

	for (unsigned i = 0; i < ADDS; i++)
		a->failed |= model_cpu_add(a->w->mm, BASE + 8, 1);
	return NULL;
}

static void *take_now_and_then(void *arg)
{
	struct adder *a = arg;
	unsigned i = 0;
	u64 word;

	while (!host_load_acquire(a->stop)) {
		int err = make_exclusive(a->w, (int)(i++ % 2), BASE, PAGES(1));

		a->failed |= err && err != -EBUSY;
		/* Another word of the page: the CPU takes it back. */
		a->failed |= model_cpu_read(a->w->mm, BASE + 64, &word, 8);
		a->failed |= model_cpu_write(a->w->mm, BASE + 64, &word, 8);
	}
	return NULL;
}

static void count(s64 atomic, unsigned rounds_of_advice)
{
	struct adder adders[4];
	pthread_t threads[4];
	struct world w;
	u32 stop = 0;
	u64 word;

	world_open(&w);
	add_device(&w, 4 * MiB, 0);
	add_device(&w, 4 * MiB, 0);
	add_device(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, MiB, MODEL_RW);
	assert_int_equal(gpusvm_driver_advise(w.driver, BASE, BASE + MiB, GPUSVM_ATOMIC, atomic, 0),
			 0);
	for (int i = 0; i < 4; i++) {
		adders[i] = (struct adder){ .w = &w, .device = i < 3 ? i : -1, .stop = &stop };
		assert_int_equal(pthread_create(&threads[i], NULL,
						i < 3 ? add_on_device : take_now_and_then,
						&adders[i]),
				 0);
	}
	for (unsigned i = 0; i < rounds_of_advice; i++)
		assert_int_equal(gpusvm_driver_advise(w.driver, BASE, BASE + PAGES(1),
						      GPUSVM_NO_MIGRATE, i % 2, 0),
				 0);
	for (int i = 0; i < 4; i++) {
		if (i == 3)
			host_store_release(&stop, 1);
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(adders[i].failed, 0);
	}
	cpu_read(&w, BASE + 8, &word, 8);
	assert_int_equal(word, 3 * ADDS);
	world_close(&w);
}

/* The CPU and devices whose atomics in system memory it does not see; with memory, with
 * one page of it, and without. */
static void test_exact_without_atomics_of_the_bus(void **state)
{
	struct adder adders[4];
	pthread_t threads[4];
	struct world w;
	u64 word;

	world_open_for(&w, HOST_MSEC / 10);
	add_device_without_atomics(&w, 4 * MiB, 0);
	add_device_without_atomics(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	add_device_without_atomics(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, MiB, MODEL_RW);
	assert_int_equal(gpusvm_driver_advise(w.driver, BASE, BASE + MiB, GPUSVM_ATOMIC,
					      GPUSVM_ATOMIC_GLOBAL, 0),
			 0);
	for (int i = 0; i < 4; i++) {
		adders[i] = (struct adder){.w = &w, .device = i};
		assert_int_equal(pthread_create(&threads[i], NULL,
						i < 3 ? add_on_device : add_on_cpu, &adders[i]),
				 0);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(adders[i].failed, 0);
	}
	cpu_read(&w, BASE + 8, &word, 8);
	assert_int_equal(word, 4 * ADDS);
	world_close(&w);
}

static void test_exact_undefined(void **state)
{
	count(GPUSVM_ATOMIC_UNDEFINED, 0);
}

static void test_exact_device(void **state)
{
	count(GPUSVM_ATOMIC_DEVICE, 0);
}

static void test_exact_global(void **state)
{
	count(GPUSVM_ATOMIC_GLOBAL, 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_taken_until_touched),
	    cmocka_unit_test(test_follows_mremap_and_ends_with_it),
	    cmocka_unit_test(test_bad_input),
	    cmocka_unit_test(test_taken_in_place),
	    cmocka_unit_test(test_in_place_where_it_cannot_move),
	    cmocka_unit_test(test_accessed_by_does_not_end_it),
	    cmocka_unit_test(test_in_place_under_changes),
	    cmocka_unit_test(test_exact_without_atomics_of_the_bus),
	    cmocka_unit_test(test_exact_undefined),
	    cmocka_unit_test(test_exact_device),
	    cmocka_unit_test(test_exact_global),
	};

	return cmocka_run_group_tests_name("exclusive", tests, work_setup, work_teardown);
}
