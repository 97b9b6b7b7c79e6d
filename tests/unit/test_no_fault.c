/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_no_fault.c: a device that cannot fault, whose work runs while what is bound to
 * it is invalidated: it is preempted, bound again, and goes on. */
#include "tests/unit/driver_world.h"

#define LENGTH (2 * MiB)

struct storm {
	struct world *w;
	unsigned seed;
	u32 *stop;
};

/* Mapping again is many times slower with the thread sanitizer: it must come to an
 * end now and then. */
#ifdef __SANITIZE_THREAD__
#define BREATH (20 * HOST_MSEC)
#else
#define BREATH 0
#endif

/* Everything that takes entries away and leaves the memory there. */
static void *invalidate_all_the_time(void *arg)
{
	struct storm *s = arg;
	struct gpusvm_migrate_result moved;
	u64 at;

	while (!host_load_acquire(s->stop)) {
		at = BASE + LENGTH / 8 * (u64)(rand_r(&s->seed) % 8);
		switch (rand_r(&s->seed) % 5) {
		case 0:
			gpusvm_driver_prefetch(s->w->driver, at, at + LENGTH / 8, 1, false, &moved);
			break;
		case 1:
			gpusvm_driver_prefetch(s->w->driver, at, at + LENGTH / 8, DRIVER_SYSTEM,
					       false, &moved);
			break;
		case 2:
			gpusvm_driver_prefetch(s->w->driver, at, at + LENGTH / 8, 0, false, &moved);
			break;
		case 3:
			assert_int_equal(model_mprotect(s->w->mm, at, at + LENGTH / 8, MODEL_RW),
					 0);
			break;
		case 4:
			gpusvm_driver_advise(s->w->driver, at, at + LENGTH / 8, GPUSVM_GRANULARITY,
					     rand_r(&s->seed) % 2 ? 16 : 512, 0);
			break;
		}
		if (BREATH)
			host_sleep(BREATH);
	}
	return NULL;
}

static void storm(u64 vram, u64 flags)
{
	struct storm storms[2];
	pthread_t threads[2];
	struct world w;
	u32 stop = 0;

	world_open(&w);
	add_device(&w, vram, flags | GPUSVM_DEVICE_NO_FAULT);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, LENGTH, MODEL_RW);
	cpu_fill(&w, BASE, LENGTH, 0);
	assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE, BASE + LENGTH, false), 0);
	for (unsigned i = 0; i < 2; i++) {
		storms[i] = (struct storm){&w, i + 1, &stop};
		assert_int_equal(
		    pthread_create(&threads[i], NULL, invalidate_all_the_time, &storms[i]), 0);
	}
	for (unsigned round = 1; round <= 40 || !stats(&w, 0).invalidations; round++) {
		device_fill(&w, 0, BASE, LENGTH, round);
		device_expect(&w, 0, BASE, LENGTH, round);
		cpu_expect(&w, BASE, LENGTH, round);
	}
	host_store_release(&stop, 1);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(stats(&w, 0).device_faults, 0);
	world_close(&w);
}

static void test_storm_with_memory(void **state)
{
	storm(4 * MiB, 0);
}

static void test_storm_without_memory(void **state)
{
	storm(0, GPUSVM_DEVICE_NO_VRAM);
}

/* Atomics: each happens once, however often the lane was preempted. */
static void test_atomics_happen_once(void **state)
{
	struct storm s;
	pthread_t thread;
	struct world w;
	u32 stop = 0;
	u64 word = 0;

	world_open(&w);
	add_device(&w, 0, GPUSVM_DEVICE_NO_FAULT | GPUSVM_DEVICE_NO_VRAM);
	add_device(&w, 8 * MiB, 0);
	map(&w, BASE, LENGTH, MODEL_RW);
	assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE, BASE + LENGTH, false), 0);
	s = (struct storm){&w, 3, &stop};
	assert_int_equal(pthread_create(&thread, NULL, invalidate_all_the_time, &s), 0);
	for (unsigned i = 0; i < 2000; i++) {
		struct gpusvm_job job = {
		    .command = {.type = GPUSVM_COMMAND_ATOMIC,
				.va = BASE,
				.atomic = {.op = GPUSVM_OP_ADD, .width = 8, .operand = 1}},
		};

		assert_int_equal(run_job(w.queue[i % 2], &job), 0);
	}
	host_store_release(&stop, 1);
	assert_int_equal(pthread_join(thread, NULL), 0);
	cpu_read(&w, BASE, &word, 8);
	assert_int_equal(word, 2000);
	world_close(&w);
}

/* It cannot ask for memory of its own: what is exact in system memory is done there. */
static void test_atomics_by_advice(void **state)
{
	static const s64 kinds[] = {GPUSVM_ATOMIC_UNDEFINED, GPUSVM_ATOMIC_DEVICE,
				    GPUSVM_ATOMIC_GLOBAL, GPUSVM_ATOMIC_CPU};

	for (unsigned i = 0; i < 8; i++) {
		struct gpusvm_soft_options options = {
		    .lanes = 2,
		    .flags = GPUSVM_DEVICE_NO_FAULT | GPUSVM_DEVICE_NO_VRAM,
		    .no_system_atomics = i / 4,
		};
		struct gpusvm_job job = {
		    .command = {.type = GPUSVM_COMMAND_ATOMIC,
				.va = BASE + 8,
				.atomic = {.op = GPUSVM_OP_ADD, .width = 8, .operand = 1}},
		    .contained = true,
		};
		bool exact = options.no_system_atomics ? kinds[i % 4] == GPUSVM_ATOMIC_UNDEFINED
						       : kinds[i % 4] != GPUSVM_ATOMIC_CPU;
		struct world w;

		world_open(&w);
		assert_int_equal(gpusvm_soft_create(&options, &w.device[w.n_devices]), 0);
		assert_int_equal(gpusvm_driver_device_add(w.driver, w.device[w.n_devices++]), 0);
		assert_int_equal(gpusvm_driver_queue_create(w.driver, 0, &w.queue[0]), 0);
		map(&w, BASE, LENGTH, MODEL_RW);
		assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE, BASE + LENGTH, false), 0);
		assert_int_equal(gpusvm_driver_advise(w.driver, BASE, BASE + LENGTH, GPUSVM_ATOMIC,
						      kinds[i % 4], 0),
				 0);
		assert_int_equal(run_job(w.queue[0], &job), exact ? 0 : -EPERM);
		world_close(&w);
	}
}

static struct gpusvm_job *submit_set(struct world *w, struct gpusvm_fence *done, u64 va, u64 length)
{
	static struct gpusvm_job job;

	gpusvm_fence_init(done, NULL);
	job = (struct gpusvm_job){
	    .command = {.type = GPUSVM_COMMAND_SET, .va = va, .byte = 3, .length = length},
	    .done = done,
	    .contained = true,
	};
	gpusvm_driver_submit(w->queue[0], &job);
	return &job;
}

/* What is unmapped, or unbound, while work runs on it fails that work; it does not hang,
 * and the queue goes on. */
static void test_what_goes_for_good_fails(void **state)
{
	struct gpusvm_fence done;
	struct gpusvm_job *job;
	struct world w;
	int result;

	world_open(&w);
	add_device(&w, 0, GPUSVM_DEVICE_NO_FAULT | GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, LENGTH, MODEL_RW);
	assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE, BASE + LENGTH, false), 0);
	for (unsigned i = 0; i < 20; i++) {
		job = submit_set(&w, &done, BASE, LENGTH);
		if (i % 2)
			assert_int_equal(model_munmap(w.mm, BASE + MiB, BASE + MiB + 4096), 0);
		else
			assert_int_equal(
			    gpusvm_driver_unbind(w.queue[0], BASE + MiB, BASE + MiB + 4096), 0);
		HOST_CHECK(!gpusvm_fence_wait(&done, host_now() + HANG, &result));
		gpusvm_fence_fini(&done);
		assert_true(result == 0 || (result == -EFAULT && job->fault.address == BASE + MiB));
		assert_int_equal(device_set(&w, 0, BASE, 5, MiB), 0);
		assert_int_equal(device_set(&w, 0, BASE + MiB, 5, 8), -EFAULT);
		if (i % 2)
			assert_int_equal(model_mmap(w.mm, BASE + MiB, BASE + MiB + 4096, MODEL_RW),
					 0);
		else
			assert_int_equal(
			    gpusvm_driver_bind(w.queue[0], BASE + MiB, BASE + MiB + 4096, false),
			    0);
		assert_int_equal(device_set(&w, 0, BASE, 5, LENGTH), 0);
	}
	world_close(&w);
}

static void test_unbound_while_preempted(void **state)
{
	struct gpusvm_fence done;
	struct world w;
	u64 ticket;
	int result;

	world_open(&w);
	add_device(&w, 0, GPUSVM_DEVICE_NO_FAULT | GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, LENGTH, MODEL_RW);
	assert_int_equal(gpusvm_driver_bind(w.queue[0], BASE, BASE + LENGTH, false), 0);
	ticket = w.device[0]->ops->vm_preempt(w.driver->devices[0]->vm);
	assert_true(ticket > 0);
	submit_set(&w, &done, BASE, LENGTH);
	assert_int_equal(gpusvm_fence_wait(&done, host_now() + 20 * HOST_MSEC, NULL), -ETIME);
	assert_int_equal(gpusvm_driver_device_remove(w.driver, 0), 0);
	HOST_CHECK(!gpusvm_fence_wait(&done, host_now() + HANG, &result));
	gpusvm_fence_fini(&done);
	assert_int_equal(result, -ENODEV);
	world_close(&w);
}

/* Devices with other page sizes, under one mirror. */
static void test_unlike_page_sizes(void **state)
{
	static const u32 leaves[] = {1u, 1u | 1u << 4, 1u | 1u << 9};
	struct world w;

	world_open(&w);
	for (int i = 0; i < 3; i++) {
		struct gpusvm_soft_options options = {.vram_bytes = i < 2 ? 4 * MiB : 0,
						      .flags = i < 2 ? 0 : GPUSVM_DEVICE_NO_VRAM,
						      .leaf_orders = leaves[i]};
		struct gpusvm_device *device;

		assert_int_equal(gpusvm_soft_create(&options, &device), 0);
		assert_int_equal(device->caps.leaf_orders, leaves[i]);
		assert_int_equal(gpusvm_driver_device_add(w.driver, device), i);
		assert_int_equal(gpusvm_driver_queue_create(w.driver, i, &w.queue[i]), 0);
	}
	map(&w, BASE, LENGTH, MODEL_RW | MODEL_THP);
	for (unsigned round = 0; round < 9; round++) {
		device_fill(&w, (int)(round % 3), BASE, LENGTH, round);
		device_expect(&w, (int)((round + 1) % 3), BASE, LENGTH, round);
		assert_int_equal(model_dontneed(w.mm, BASE + MiB, BASE + MiB + 4096), 0);
		device_expect(&w, (int)((round + 2) % 3), BASE, MiB, round);
		cpu_expect(&w, BASE, MiB, round);
	}
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_storm_with_memory),
	    cmocka_unit_test(test_storm_without_memory),
	    cmocka_unit_test(test_atomics_happen_once),
	    cmocka_unit_test(test_atomics_by_advice),
	    cmocka_unit_test(test_what_goes_for_good_fails),
	    cmocka_unit_test(test_unbound_while_preempted),
	    cmocka_unit_test(test_unlike_page_sizes),
	};

	return cmocka_run_group_tests_name("no_fault", tests, work_setup, work_teardown);
}
