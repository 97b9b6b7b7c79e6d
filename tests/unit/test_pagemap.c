/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Pagemaps over the model home: migration both ways, CPU faults, eviction, and
 * each error path.
 */
#include "pagemap_device.h"

/* ---- Migration ------------------------------------------------------------------ */

static void test_small(void **state)
{
	struct bo *bo;

	(void)state;
	assert_int_equal(model_mmap(mm, P(0), P(64), MODEL_RW), 0);
	for (unsigned i = 0; i < 32; i++)
		put(P(i), i + 1);
	assert_int_equal(migrate(&dev, P(0), 64, false, false, &bo), 0);
	assert_int_equal(result.moved, 64);
	assert_int_equal(dev.pages_in, 64);
	assert_int_equal(on_device(&dev, P(0), 64), 64);
	assert_int_equal(bo->base.resident, 64);
	/* A fault takes 64K home, and their frames are free at once. */
	assert_int_equal(get(P(20)), 21);
	assert_int_equal(on_device(&dev, P(0), 64), 48);
	assert_int_equal(dev.n_used, 48);
	assert_int_equal(dev.pages_home, 16);
	/* Again: the others are counted, their new frames go back. */
	assert_int_equal(migrate(&dev, P(0), 64, false, true, NULL), 0);
	assert_int_equal(result.moved, 16);
	assert_int_equal(result.already, 48);
	assert_int_equal(dev.n_used, 64);
	assert_int_equal(gpusvm_devmem_evict(&bo->base), 0);
	assert_int_equal(bo->base.resident, 0);
	assert_int_equal(dev.pages_evicted, 48);
	gpusvm_devmem_put(&bo->base);
	assert_int_equal(on_device(&dev, P(0), 64), 16);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(get(P(i)), i < 32 ? i + 1 : 0);
}

static void test_compound(void **state)
{
	struct model_counters c;
	struct bo *bo;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + 3 * M2, MODEL_RW | MODEL_THP), 0);
	put(P(3), 3);
	put(P(500), 500);
	assert_int_equal(migrate(&dev, BASE, 512, true, false, &bo), 0);
	assert_int_equal(result.moved, 512);
	assert_int_equal(dev.copy_entries, 1);
	assert_int_equal(bo->base.ref.count, 2); /* ours, and one page's */
	assert_int_equal(bo->base.compound, 1);
	assert_int_equal(get(P(500)), 500);
	assert_int_equal(get(P(3)), 3);
	model_counters(mm, &c);
	assert_int_equal(c.cpu_faults, 1);
	assert_int_equal(c.splits, 0);
	assert_int_equal(dev.n_used, 0);
	gpusvm_devmem_put(&bo->base);
	/* Evicted whole; memory that was never touched; no 2M page at home. */
	assert_int_equal(migrate(&dev, BASE, 512, true, false, &bo), 0);
	assert_int_equal(gpusvm_devmem_evict(&bo->base), 0);
	gpusvm_devmem_put(&bo->base);
	model_counters(mm, &c);
	assert_int_equal(c.splits, 0);
	assert_int_equal(migrate(&dev, BASE + M2, 512, true, false, &bo), 0);
	assert_int_equal(bo->base.compound, 1);
	model_fail(mm, MODEL_FAIL_HUGE_PAGE, 0, ~(u64)0);
	assert_int_equal(get(BASE + M2 + 4096), 0);
	assert_int_equal(bo->base.resident, 0);
	gpusvm_devmem_put(&bo->base);
	/* Only a part is unmapped: the rest stays on the device, in small pages. */
	assert_int_equal(migrate(&dev, BASE + 2 * M2, 512, true, false, &bo), 0);
	assert_int_equal(model_munmap(mm, BASE + 2 * M2, BASE + 2 * M2 + 5 * 4096), 0);
	assert_int_equal(bo->base.resident, 507);
	assert_int_equal(bo->base.compound, 0);
	assert_int_equal(dev.n_used, 507);
	gpusvm_devmem_put(&bo->base);
	/* Frames that are scattered cannot be one page. */
	assert_int_equal(migrate(&dev, BASE, 512, true, true, &bo), 0);
	assert_int_equal(bo->base.compound, 0);
	assert_int_equal(get(P(3)), 3);
	gpusvm_devmem_put(&bo->base);
}

static void test_partial(void **state)
{
	struct model_frame *pin;

	(void)state;
	assert_int_equal(model_mmap(mm, P(0), P(20), MODEL_RW), 0);
	assert_int_equal(model_mmap(mm, P(20), P(24), MODEL_RW | MODEL_SHARED), 0);
	assert_int_equal(model_munmap(mm, P(4), P(6)), 0);
	for (unsigned i = 8; i < 24; i++)
		put(P(i), i);
	assert_int_equal(model_pin(mm, P(9), &pin), 0);
	assert_int_equal(migrate(&dev, P(2), 30, false, false, NULL), 0);
	assert_int_equal(result.moved, 15);
	assert_int_equal(result.stayed, 5);
	assert_int_equal(result.holes, 10);
	assert_int_equal(result.stayed_reason,
			 MM_STAYED_PINNED | MM_STAYED_NOT_MIGRATABLE | MM_STAYED_HOLE);
	assert_int_equal(dev.n_used, 15);
	*(u64 *)model_pin_bytes(pin) = 99;
	assert_int_equal(get(P(9)), 99);
	model_unpin(pin);
	for (unsigned i = 10; i < 24; i++)
		assert_int_equal(get(P(i)), i);
}

static void test_peers(void **state)
{
	(void)state;
	dev.pagemap.dev = &dev;
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW | MODEL_THP), 0);
	put(P(7), 7);
	assert_int_equal(migrate(&dev2, BASE, 512, true, false, NULL), 0);
	dev2.no_peers = true;
	assert_int_equal(migrate(&dev, BASE, 512, true, false, NULL), 0);
	assert_int_equal(result.stayed, 512);
	assert_int_equal(dev.n_used, 0);
	dev2.no_peers = false;
	assert_int_equal(migrate(&dev, BASE, 512, true, false, NULL), 0);
	assert_int_equal(result.moved, 512);
	assert_int_equal(dev2.n_used, 0);
	assert_int_equal(dev.pages_peer, 512);
	assert_int_equal(dev.pages_in, 0);
	assert_int_equal(get(P(7)), 7);
	/* From three places at once. */
	assert_int_equal(migrate(&dev2, P(0), 16, false, true, NULL), 0);
	assert_int_equal(migrate(&dev, P(8), 16, false, true, NULL), 0);
	assert_int_equal(result.moved, 16);
	assert_int_equal(migrate(&dev, P(0), 32, false, false, NULL), 0);
	assert_int_equal(result.moved, 16);
	assert_int_equal(result.already, 16);
	assert_int_equal(get(P(7)), 7);
	/* No token: what peers hold is left alone. */
	dev.pagemap.dev = NULL;
	assert_int_equal(migrate(&dev2, P(100), 8, false, false, NULL), 0);
	assert_int_equal(migrate(&dev, P(100), 16, false, false, NULL), 0);
	assert_int_equal(result.moved, 8);
	assert_int_equal(result.stayed, 8);
}

static void test_refused(void **state)
{
	struct gpusvm_migrate_details details = { 0 };
	struct bo *bo;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + 2 * M2, MODEL_RW), 0);
	put(P(0), 1);
	/* Never migrated: the frames go back with the last reference. */
	bo = bo_create(&dev, mm, 37, false, NULL);
	gpusvm_devmem_put(&bo->base);
	assert_int_equal(dev.n_used, 0);
	/* Frames go back with the refusal, whoever else looks at the object still. */
	bo = bo_create(&dev, mm, 8, true, NULL);
	assert_true(gpusvm_devmem_get_unless_zero(&bo->base));
	assert_int_equal(gpusvm_devmem_migrate(&bo->base, P(0), P(7), &details, &result), -EINVAL);
	assert_int_equal(dev.n_used, 0);
	gpusvm_devmem_put(&bo->base);
	bo = bo_create(&dev, mm, 8, false, NULL);
	assert_int_equal(gpusvm_devmem_migrate(&bo->base, P(508), P(516), &details, &result),
			 -EINVAL);
	assert_int_equal(dev.n_used, 0);
	assert_int_equal(gpusvm_pagemap_populate(&dev.pagemap, mm, P(0), P(16), 0, &result), 0);
	assert_int_equal(result.moved, 16);
	gpusvm_pagemap_revoke(&dev.pagemap);
	assert_int_equal(gpusvm_pagemap_populate(&dev.pagemap, mm, P(16), P(32), 0, &result),
			 -ENODEV);
	assert_int_equal(migrate(&dev, P(16), 16, false, false, NULL), -ENODEV);
	assert_int_equal(dev.n_used, 16);
	assert_int_equal(get(P(0)), 1);
	assert_int_equal(dev.n_used, 0);
	/* One that is under way when the device goes does not come to rest there. */
	dev2.revoke_at_copy = true;
	assert_int_equal(migrate(&dev2, P(0), 16, false, false, NULL), -ENODEV);
	assert_int_equal(dev2.n_used, 0);
	assert_int_equal(get(P(0)), 1);
}

static void test_mm_gone(void **state)
{
	struct gpusvm_migrate_details details = { 0 };
	struct bo *bo, *late;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW | MODEL_THP), 0);
	put(P(0), 1);
	assert_int_equal(migrate(&dev, BASE, 512, true, false, &bo), 0);
	late = bo_create(&dev, mm, 16, false, NULL);
	model_mm_exit(mm);
	assert_int_equal(bo->base.resident, 0);
	assert_int_equal(gpusvm_devmem_evict(&bo->base), 0);
	gpusvm_devmem_put(&bo->base);
	assert_int_equal(gpusvm_devmem_migrate(&late->base, P(0), P(16), &details, &result),
			 -EFAULT);
	assert_int_equal(gpusvm_pagemap_populate(&dev.pagemap, mm, P(0), P(1), 0, &result),
			 -EFAULT);
}

static void exit_thread(void *arg)
{
	(void)arg;
	model_mm_exit(mm);
}

static void evict_thread(void *arg)
{
	struct bo *bo = arg;
	u64 began = host_now();

	HOST_CHECK(gpusvm_devmem_evict(&bo->base) == 0);
	HOST_CHECK(host_now() - began < HOST_SEC * 9 / 10);
}

/* An eviction that meets the end of the address space waits for that. */
static void test_mm_going(void **state)
{
	struct host_thread exiting = { 0 }, evicting = { 0 };
	struct bo *bo;

	(void)state;
	assert_int_equal(model_mmap(mm, P(0), P(16), MODEL_RW), 0);
	assert_int_equal(migrate(&dev, P(0), 16, false, false, &bo), 0);
	assert_true(mm_use(mm));
	assert_int_equal(host_thread_start(&exiting, "exit", exit_thread, NULL), 0);
	while (mm_use(mm)) {
		mm_unuse(mm);
		host_sleep(HOST_MSEC);
	}
	assert_int_equal(host_thread_start(&evicting, "evict", evict_thread, bo), 0);
	host_sleep(20 * HOST_MSEC);
	assert_int_equal(bo->base.resident, 16);
	mm_unuse(mm);
	host_thread_join(&evicting);
	host_thread_join(&exiting);
	gpusvm_devmem_put(&bo->base);
}

static bool is_of(void *pagemap, struct mm_page *page)
{
	return gpusvm_page_pagemap(page) == pagemap;
}

static void test_recall(void **state)
{
	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW), 0);
	put(P(3), 3);
	put(P(40), 40);
	assert_int_equal(migrate(&dev, P(0), 16, false, false, NULL), 0);
	assert_int_equal(migrate(&dev2, P(32), 16, false, true, NULL), 0);
	assert_int_equal(gpusvm_pagemap_recall(mm, P(0), P(512), is_of, &dev2.pagemap, &result), 0);
	assert_int_equal(result.moved, 16);
	assert_int_equal(result.stayed, 16);
	assert_int_equal(result.already, 480);
	assert_int_equal(dev.pages_recalled, 16);
	assert_int_equal(migrate(&dev, P(0), 8, false, false, NULL), 0);
	dev2.fail_copy_at = 1;
	assert_int_equal(gpusvm_pagemap_recall(mm, P(0), P(512), NULL, NULL, &result), -EFAULT);
	assert_int_equal(dev.n_used + dev2.n_used, 24);
	assert_int_equal(gpusvm_pagemap_recall(mm, P(0), P(512), NULL, NULL, &result), 0);
	assert_int_equal(result.moved, 24);
	assert_int_equal(dev.n_used + dev2.n_used, 0);
	assert_int_equal(get(P(3)), 3);
	assert_int_equal(get(P(40)), 40);
}

static void signal_later(void *fence)
{
	host_sleep(5 * HOST_MSEC);
	gpusvm_fence_signal(fence, 0);
}

static void test_fence(void **state)
{
	struct gpusvm_fence *fence = gpusvm_fence_create();
	struct gpusvm_migrate_details details = { 0 };
	struct host_thread thread = { 0 };
	u64 began = host_now();
	struct bo *bo;

	(void)state;
	assert_int_equal(model_mmap(mm, P(0), P(16), MODEL_RW), 0);
	put(P(0), 1);
	bo = bo_create(&dev, mm, 16, false, fence);
	assert_int_equal(host_thread_start(&thread, "signal", signal_later, fence), 0);
	assert_int_equal(gpusvm_devmem_migrate(&bo->base, P(0), P(16), &details, &result), 0);
	assert_true(host_now() - began >= 5 * HOST_MSEC);
	host_thread_join(&thread);
	gpusvm_fence_put(fence);
	assert_int_equal(get(P(0)), 1);
	/* One that failed fails what comes after it, and nothing has moved. */
	fence = gpusvm_fence_create();
	gpusvm_fence_signal(fence, -EIO);
	bo = bo_create(&dev, mm, 16, false, fence);
	gpusvm_fence_put(fence);
	assert_int_equal(gpusvm_devmem_migrate(&bo->base, P(0), P(16), &details, &result),
			 -EFAULT);
	assert_int_equal(dev.n_used, 0);
	assert_int_equal(get(P(0)), 1);
}

/* ---- CPU faults ------------------------------------------------------------------- */

static void test_timeslice(void **state)
{
	struct model_counters c;
	u64 began;

	(void)state;
	assert_int_equal(model_mmap(mm, P(0), P(16), MODEL_RW), 0);
	put(P(0), 1);
	began = host_now();
	assert_int_equal(gpusvm_pagemap_populate(&dev.pagemap, mm, P(0), P(16), 20 * HOST_MSEC,
						 &result),
			 0);
	assert_int_equal(get(P(0)), 1);
	assert_true(host_now() - began >= 20 * HOST_MSEC);
	model_counters(mm, &c);
	assert_in_range(c.cpu_faults, 2, 20); /* it slept */
}

static u64 told_start, told_end;
static int on_start(struct mm_notifier *n, const struct mm_invalidation *inv, u64 seq)
{
	told_start = inv->start;
	told_end = inv->end;
	HOST_CHECK(inv->event == MM_EVENT_MIGRATE && inv->migrator == &dev.pagemap);
	mm_notifier_set_seq(n, seq);
	return 0;
}

static void on_finish(struct mm_notifier *n, const struct mm_invalidation *inv)
{
	(void)n;
	(void)inv;
}

/* Devices are not stopped further around than the object reaches. */
static void test_window_is_narrow(void **state)
{
	static const struct mm_notifier_ops ops = { on_start, on_finish };
	struct mm_notifier n;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW), 0);
	assert_int_equal(mm_notifier_insert(&n, mm, BASE, BASE + M2, &ops), 0);
	assert_int_equal(migrate(&dev, P(19), 3, false, false, NULL), 0);
	assert_int_equal(told_start, P(19));
	assert_int_equal(told_end, P(22));
	assert_int_equal(get(P(20)), 0);
	assert_int_equal(told_start, P(18));
	assert_int_equal(told_end, P(23));
	assert_int_equal(dev.n_used, 0);
	mm_notifier_remove(&n);
}

static void test_window(void **state)
{
	struct bo *bo;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW), 0);
	/* Pages of two objects in one window: only the fault's go. */
	assert_int_equal(migrate(&dev, P(0), 8, false, false, NULL), 0);
	assert_int_equal(migrate(&dev, P(8), 8, false, false, &bo), 0);
	assert_int_equal(get(P(3)), 0);
	assert_int_equal(on_device(&dev, P(0), 16), 8);
	assert_int_equal(bo->base.resident, 8);
	gpusvm_devmem_put(&bo->base);
	/* A window that wants everything. */
	dev.whole_window = true;
	assert_int_equal(migrate(&dev, P(16), 100, false, false, NULL), 0);
	assert_int_equal(get(P(40)), 0);
	assert_int_equal(on_device(&dev, P(0), 512), 8);
}

static void test_fault_without_memory(void **state)
{
	u64 value;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW | MODEL_THP), 0);
	put(P(77), 77);
	assert_int_equal(migrate(&dev, BASE, 512, true, false, NULL), 0);
	model_fail(mm, MODEL_FAIL_HUGE_PAGE, 0, ~(u64)0);
	model_fail(mm, MODEL_FAIL_SYSTEM_PAGE, 0, ~(u64)0);
	assert_int_equal(model_cpu_read(mm, P(77), &value, 8), -EIO);
	/* Memory for 20 pages, and not where the fault is: it gets its page. */
	dev.whole_window = true;
	model_fail(mm, MODEL_FAIL_SYSTEM_PAGE, 20, ~(u64)0);
	assert_int_equal(model_cpu_read(mm, P(77), &value, 8), -EIO);
	assert_int_equal(on_device(&dev, BASE, 512), 492);
	model_fail(mm, MODEL_FAIL_SYSTEM_PAGE, 20, 472);
	assert_int_equal(get(P(77)), 77);
	assert_int_equal(on_device(&dev, BASE, 512), 471);
	model_fail(mm, MODEL_FAIL_SYSTEM_PAGE, 0, 0);
	assert_int_equal(get(P(300)), 0);
}

/* ---- Everything fails once ---------------------------------------------------------- */

/* A bit of everything, with the outcome of nothing certain but the data. */
static void scenario(void)
{
	struct bo *bo[3];

	(void)migrate(&dev, P(0), 64, false, true, &bo[0]);
	(void)migrate(&dev, BASE + M2, 512, true, false, &bo[1]);
	(void)migrate(&dev2, P(32), 64, false, false, &bo[2]);
	for (unsigned i = 0; i < 96; i += 24) {
		u64 value = 0;
		int err = model_cpu_read(mm, P(i), &value, sizeof(value));

		if (!err)
			assert_int_equal(value, i + 1);
	}
	for (unsigned i = 0; i < 3; i++) {
		if (!bo[i])
			continue;
		(void)gpusvm_devmem_evict(&bo[i]->base);
		gpusvm_devmem_put(&bo[i]->base);
	}
}

static void scenario_check(void)
{
	host_posix_fail_alloc_at(0);
	dev.fail_copy_at = 0;
	assert_null(model_check(mm, true));
	for (unsigned i = 0; i < 96; i++)
		assert_int_equal(get(P(i)), i + 1);
	for (unsigned i = 0; i < 512; i += 37)
		assert_int_equal(get(BASE + M2 + i * HOST_PAGE_SIZE), 1000 + i);
	assert_int_equal(model_region_used(dev.pagemap.region), dev.n_used);
	assert_int_equal(model_region_used(dev2.pagemap.region), dev2.n_used);
}

static void scenario_start(void)
{
	dev.pagemap.dev = &dev;
	assert_int_equal(model_mmap(mm, P(0), P(96), MODEL_RW), 0);
	assert_int_equal(model_mmap(mm, BASE + M2, BASE + 2 * M2, MODEL_RW | MODEL_THP), 0);
	for (unsigned i = 0; i < 96; i++)
		put(P(i), i + 1);
	for (unsigned i = 0; i < 512; i += 37)
		put(BASE + M2 + i * HOST_PAGE_SIZE, 1000 + i);
}

static void test_allocations_fail(void **state)
{
	u64 n, made;

	(void)state;
	scenario_start();
	/* Each of the first, then (the model's pages, one like the other) some. */
	for (n = 1;; n += n < 100 ? 1 : 13) {
		made = host_posix_alloc_count();
		host_posix_fail_alloc_at(n);
		scenario();
		made = host_posix_alloc_count() - made;
		scenario_check();
		if (n > made)
			break;
	}
	assert_true(n > 20);
}

static void test_copies_fail(void **state)
{
	unsigned n;

	(void)state;
	scenario_start();
	for (n = 1;; n++) {
		dev.fail_copy_at = n;
		scenario();
		if (dev.fail_copy_at) /* there were fewer */
			break;
		scenario_check();
	}
	scenario_check();
	assert_true(n > 5);
}

static void test_home_fails(void **state)
{
	static const enum model_site sites[] = { MODEL_FAIL_BEGIN, MODEL_FAIL_ISOLATE,
						 MODEL_FAIL_SYSTEM_PAGE, MODEL_FAIL_HUGE_PAGE,
						 MODEL_FAIL_COMMIT };

	(void)state;
	scenario_start();
	for (unsigned s = 0; s < host_array_size(sites); s++) {
		u64 step = s == 0 || s == 3 ? 1 : 29;

		for (u64 skip = 0;; skip += step) {
			model_fail(mm, sites[s], skip, 3);
			scenario();
			if (model_passes(mm, sites[s]) <= skip)
				break;
			model_fail(mm, sites[s], 0, 0);
			scenario_check();
		}
		model_fail(mm, sites[s], 0, 0);
		scenario_check();
	}
}

/* Without memory for its arrays an eviction goes in small steps. */
static void test_evict_without_memory(void **state)
{
	struct bo *bo;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW), 0);
	put(P(9), 9);
	assert_int_equal(migrate(&dev, BASE, 512, false, false, &bo), 0);
	host_posix_fail_alloc_at(1);
	assert_int_equal(gpusvm_devmem_evict(&bo->base), 0);
	assert_true(dev.copies > 30);
	gpusvm_devmem_put(&bo->base);
	assert_int_equal(get(P(9)), 9);
	/* Nowhere to go to; some that cannot move. */
	assert_int_equal(migrate(&dev, BASE, 64, false, false, &bo), 0);
	model_fail(mm, MODEL_FAIL_SYSTEM_PAGE, 0, ~(u64)0);
	assert_int_equal(gpusvm_devmem_evict(&bo->base), -ENOMEM);
	assert_int_equal(bo->base.resident, 64);
	model_fail(mm, MODEL_FAIL_SYSTEM_PAGE, 0, 0);
	model_set_busy(mm, P(5), P(6), true);
	assert_int_equal(gpusvm_devmem_evict(&bo->base), -EBUSY);
	assert_int_equal(bo->base.resident, 1);
	model_set_busy(mm, P(5), P(6), false);
	assert_int_equal(gpusvm_devmem_evict(&bo->base), 0);
	gpusvm_devmem_put(&bo->base);
	/* One copy fails: all the others go home nevertheless. */
	assert_int_equal(migrate(&dev, BASE, 64, false, true, &bo), 0);
	dev.fail_copy_at = 7;
	assert_int_equal(gpusvm_devmem_evict(&bo->base), -EFAULT);
	assert_int_equal(bo->base.resident, 1);
	gpusvm_devmem_put(&bo->base);
	assert_int_equal(get(P(9)), 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_small),
		TEST(test_compound),
		TEST(test_partial),
		TEST(test_peers),
		TEST(test_refused),
		TEST(test_mm_gone),
		TEST(test_mm_going),
		TEST(test_recall),
		TEST(test_fence),
		TEST(test_timeslice),
		TEST(test_window),
		TEST(test_window_is_narrow),
		TEST(test_fault_without_memory),
		TEST(test_allocations_fail),
		TEST(test_copies_fail),
		TEST(test_home_fails),
		TEST(test_evict_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
