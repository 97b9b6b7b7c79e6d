/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_space.c: address spaces: mappings, promises, states, the end. */
#include "tests/host/home.h"

static struct mm_vma find(u64 first, u64 n)
{
	struct mm_vma vma = {0};

	assert_int_equal(mm_vma_find(mm, at(first), at(first + n), &vma), 0);
	return vma;
}

static void test_vma_find(void **state)
{
	struct mm_vma vma;

	(void)state;
	assert_int_equal(mm_vma_find(mm, at(0), at(100), &vma), -ENOENT);
	map(10, 10, HOME_RW);
	assert_int_equal(mm_vma_find(mm, at(0), at(10), &vma), -ENOENT);
	assert_int_equal(mm_vma_find(mm, at(20), at(30), &vma), -ENOENT);
	/* The first that overlaps, whole. */
	vma = find(0, 30);
	assert_int_equal(vma.start, at(10));
	assert_int_equal(vma.end, at(20));
	vma = find(19, 1);
	assert_int_equal(vma.start, at(10));
	map(40, 2, HOME_READ);
	assert_int_equal(find(20, 100).start, at(40));
	assert_int_equal(find(0, 100).start, at(10));
}

static void test_vma_flags(void **state)
{
	const u32 rw = MM_VMA_READ | MM_VMA_WRITE;

	(void)state;
	map(0, 1, HOME_RW);
	map(2, 1, HOME_READ);
	map(4, 1, 0);
	map(6, 1, HOME_RW | HOME_SHARED);
	map(8, 1, HOME_RW | HOME_FILE);
	assert_int_equal(find(0, 1).flags, rw | MM_VMA_ANON | MM_VMA_MIGRATABLE);
	assert_int_equal(find(2, 1).flags, MM_VMA_READ | MM_VMA_ANON);
	assert_int_equal(find(4, 1).flags, MM_VMA_ANON);
	assert_int_equal(find(6, 1).flags, rw | MM_VMA_SHARED);
	assert_int_equal(find(8, 1).flags, rw);
	assert_int_equal(home_mprotect(mm, at(0), at(1), HOME_READ), 0);
	assert_int_equal(find(0, 1).flags, MM_VMA_READ | MM_VMA_ANON);
}

static void test_caps(void **state)
{
	struct mm_caps caps = {~0u, ~0u};

	(void)state;
	mm_caps_get(mm, &caps);
	assert_true(caps.max_order == 0 || caps.max_order == HOST_HUGE_ORDER);
	assert_true(!(caps.flags & MM_CAP_HUGE) || caps.max_order);
}

static void test_grab_and_use(void **state)
{
	(void)state;
	mm_get(mm);
	assert_true(mm_use(mm));
	assert_true(mm_use(mm));
	mm_unuse(mm);
	mm_unuse(mm);
	mm_put(mm);
	map(0, 1, HOME_RW);
	put(0, 1);
	assert_int_equal(get(0), 1);
}

static void test_states(void **state)
{
	struct mm_page_state s[8];

	(void)state;
	map(1, 1, HOME_RW);
	map(2, 1, HOME_READ);
	map(3, 1, 0);
	map(4, 3, HOME_RW);
	put(1, 7);
	assert_int_equal(get(4), 0);
	put(5, 5);
	assert_int_equal(move_out(0, 5, 1, 0), 1);
	mm_page_states(mm, at(0), at(8), s);
	assert_int_equal(s[0].flags, 0);
	assert_int_equal(s[7].flags, 0);
	assert_int_equal(s[1].flags, MM_STATE_MAPPED | MM_STATE_POPULATED | MM_STATE_READABLE |
					 MM_STATE_WRITABLE);
	assert_int_equal(s[2].flags, MM_STATE_MAPPED | MM_STATE_READABLE);
	assert_int_equal(s[3].flags, MM_STATE_MAPPED);
	assert_int_equal(s[4].flags, MM_STATE_MAPPED | MM_STATE_POPULATED | MM_STATE_ZERO |
					 MM_STATE_READABLE | MM_STATE_WRITABLE);
	assert_int_equal(s[5].flags, MM_STATE_MAPPED | MM_STATE_POPULATED | MM_STATE_READABLE |
					 MM_STATE_WRITABLE);
	assert_int_equal(s[6].flags, MM_STATE_MAPPED | MM_STATE_READABLE | MM_STATE_WRITABLE);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(s[i].order, 0);
		assert_true((s[i].page != NULL) == (i == 5));
	}
	assert_ptr_equal(device_of(s[5].page), &devices[0]);
	/* Nothing moved or was populated by looking. */
	assert_int_equal(devices[0].faults, 0);
	assert_false(state_of(6).flags & MM_STATE_POPULATED);
	assert_int_equal(get(5), 5);
}

/* Frames alone, and of a compound one the head at each page. */
static void test_frames(void **state)
{
	const void *owners[HUGE_PAGES + 2];
	struct mm_page *head, *page;
	struct mm_page_state s;

	(void)state;
	on_device(1, 0, HUGE_PAGES, 3, true);
	map(HUGE_PAGES, 1, HOME_RW);
	put(HUGE_PAGES, 1);
	mm_page_owners(mm, at(0), at(HUGE_PAGES + 2), owners);
	head = state_of(0).page;
	assert_non_null(head);
	assert_ptr_equal(device_of(head), &devices[1]);
	for (unsigned i = 0; i < HUGE_PAGES; i++) {
		page = state_of(i).page;
		if (mm_page_order(head))
			assert_ptr_equal(page, head);
		else
			assert_int_equal(mm_page_order(page), 0);
		assert_ptr_equal(owners[i], mm_region_priv(mm_page_region(page)));
		assert_ptr_equal(state_of(i).owner, owners[i]);
	}
	assert_null(owners[HUGE_PAGES]);
	assert_null(owners[HUGE_PAGES + 1]);
	s = state_of(100);
	assert_int_equal(s.order, mm_page_order(head));
	expect(0, HUGE_PAGES, 3);
}

static void test_sync_tells_what_happened(void **state)
{
	struct listener l = {0};

	(void)state;
	map(0, 16, HOME_RW);
	fill(0, 16, 1);
	listen(&l, 0, 16);
	assert_int_equal(move_out(0, 0, 16, 0), 16);
	listen_anew(&l);
	assert_int_equal(home_munmap(mm, at(4), at(6)), 0);
	assert_int_equal(mm_sync(mm, at(0), at(16)), 0);
	assert_true(l.events & 1u << MM_EVENT_UNMAP);
	assert_true(l.start <= at(4) && l.end >= at(6));
	assert_int_equal(l.starts, l.finishes);
	assert_int_equal(frames_used(0), 14);
	unlisten(&l);
}

static void test_exit(void **state)
{
	struct listener l = {0};
	struct mm_vma vma;
	struct job j;
	mm_pfn_t pfn;

	(void)state;
	map(0, 16, HOME_RW);
	fill(0, 16, 1);
	assert_int_equal(move_out(0, 0, 16, 0), 16);
	listen(&l, 0, 16);
	need(home_exit(mm), "end apart from the process's");
	assert_true(l.events & 1u << MM_EVENT_RELEASE);
	assert_int_equal(frames_used(0), 0);
	assert_false(mm_use(mm));
	assert_int_equal(mm_sync(mm, 0, ~(u64)0), -EFAULT);
	assert_int_equal(mm_vma_find(mm, at(0), at(16), &vma), -EFAULT);
	assert_int_equal(range_fault(&l, 0, 1, MM_FAULT_IN, &pfn), -EFAULT);
	job_init(&j, 0, 16, MM_MIGRATE_SYSTEM);
	assert_int_equal(mm_migrate_begin(&j.m), -EFAULT);
	job_init(&j, 0, 16, MM_MIGRATE_DEVICE);
	assert_int_equal(mm_migrate_begin_frames(&j.m, devices[0].region, 0), -EFAULT);
	unlisten(&l);
}

const struct CMUnitTest space_tests[] = {
    host_test(test_vma_find),
    host_test(test_vma_flags),
    host_test(test_caps),
    host_test(test_grab_and_use),
    host_test(test_states),
    host_test(test_frames),
    host_test(test_sync_tells_what_happened),
    host_test(test_exit),
};
const unsigned n_space_tests = host_array_size(space_tests);
