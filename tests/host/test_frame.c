/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_frame.c: regions, frames, and the CPU's faults on device pages. */
#include "tests/host/home.h"

static void test_region_checks(void **state)
{
	struct mm_region *region = NULL;
	static const struct mm_region_ops none;

	(void)state;
	assert_int_equal(mm_region_create(0, &none, NULL, &region), -EINVAL);
	assert_int_equal(mm_region_create(HUGE_PAGES + 1, &none, NULL, &region), -EINVAL);
	assert_int_equal(mm_region_create(HUGE_PAGES, &none, &region, &region), 0);
	assert_ptr_equal(mm_region_priv(region), &region);
	mm_region_destroy(region);
}

static void test_init_and_abandon(void **state)
{
	struct device *d = &devices[1];
	u64 frame = frame_take(1, 0), huge = frame_take(1, HOST_HUGE_ORDER);
	u64 before = mm_region_overhead(d->region);
	struct mm_page *page, *head;

	(void)state;
	d->data->users += 2;
	page = mm_page_init(d->region, frame, 0, d->data);
	head = mm_page_init(d->region, huge, HOST_HUGE_ORDER, d->data);
	assert_ptr_equal(mm_page_region(page), d->region);
	assert_ptr_equal(mm_page_region(head), d->region);
	assert_int_equal(mm_page_index(page), frame);
	assert_int_equal(mm_page_index(head), huge);
	assert_int_equal(mm_page_order(page), 0);
	assert_int_equal(mm_page_order(head), HOST_HUGE_ORDER);
	assert_ptr_equal(mm_page_data(page), d->data);
	assert_ptr_equal(mm_page_data(head), d->data);
	assert_ptr_equal(mm_mpfn_page(mm_mpfn(page)), page);
	assert_true(mm_region_overhead(d->region) > before);
	mm_page_abandon(page);
	mm_page_abandon(head);
	wait_frames(1, 0);
	assert_int_equal(d->huge_frees, 1);
	assert_int_equal(mm_region_overhead(d->region), before);
}

static void test_cpu_fault(void **state)
{
	(void)state;
	on_device(0, 0, 16, 1, false);
	put(3, 33);
	assert_int_equal(devices[0].faults, 1);
	assert_int_equal(get(3), 33);
	wait_frames(0, 15);
	expect(0, 3, 1);
	expect(4, 12, 1);
	assert_int_equal(devices[0].faults, 16);
	wait_frames(0, 0);
}

/* More than was asked for comes home at once. */
static void test_cpu_fault_window(void **state)
{
	(void)state;
	on_device(0, 0, 64, 1, false);
	devices[0].window = 16;
	expect(16, 16, 1);
	assert_int_equal(devices[0].faults, 1);
	wait_frames(0, 48);
	expect(0, 64, 1);
	wait_frames(0, 0);
}

static void test_cpu_fault_compound(void **state)
{
	(void)state;
	on_device(0, 0, HUGE_PAGES, 1, true);
	devices[0].window = HUGE_PAGES;
	expect(5, 1, 1);
	wait_frames(0, 0);
	expect(0, HUGE_PAGES, 1);
	assert_int_equal(devices[0].faults, 1);
}

/* One page of a compound one: it is split, the others stay. */
static void test_cpu_fault_splits(void **state)
{
	bool huge;

	(void)state;
	on_device(0, 0, HUGE_PAGES, 1, true);
	huge = state_of(0).order;
	expect(5, 1, 1);
	wait_frames(0, HUGE_PAGES - 1);
	assert_int_equal(devices[0].splits, huge);
	assert_int_equal(devices[0].data->users, HUGE_PAGES - 1);
	expect(0, HUGE_PAGES, 1);
	wait_frames(0, 0);
}

static u32 answers; /* atomic */

static s64 bring(struct mm_cpu_fault *fault)
{
	struct job *j = host_alloc(sizeof(*j));

	HOST_CHECK(j);
	job_init(j, (fault->address - HOME_BASE) / PAGE, 1, MM_MIGRATE_DEVICE);
	HOST_CHECK(mm_migrate_begin(&j->m) == 0);
	HOST_CHECK(job_to_system(j) == 0);
	mm_migrate_commit(&j->m);
	mm_migrate_end(&j->m);
	host_free(j);
	return 0;
}

static s64 answer_later(struct mm_cpu_fault *fault)
{
	return host_add_return(&answers, 1) < 4 ? (s64)HOST_MSEC : bring(fault);
}

static s64 answer_nothing(struct mm_cpu_fault *fault)
{
	return host_add_return(&answers, 1) < 4 ? 0 : bring(fault);
}

static s64 answer_lost(struct mm_cpu_fault *fault)
{
	(void)fault;
	return host_add_return(&answers, 1) < 2 ? 0 : -EIO;
}

/* Not yet: the access is repeated, and ends in the right word. */
static void test_fault_again(void **state)
{
	s64 (*const how[])(struct mm_cpu_fault *) = {answer_later, answer_nothing};

	(void)state;
	on_device(0, 0, 2, 1, false);
	for (unsigned i = 0; i < 2; i++) {
		answers = 0;
		devices[0].answer = how[i];
		expect(i, 1, 1);
		assert_int_equal(answers, 4);
	}
	wait_frames(0, 0);
}

/* A page that cannot be had is an error, never zeros; the others live. */
static void test_lost_page(void **state)
{
	u64 word = 77;

	(void)state;
	on_device(0, 0, 3, 1, false);
	may_warn = true;
	answers = 0;
	devices[0].answer = answer_lost;
	assert_true(home_load(mm, at(1), &word, 8) < 0);
	assert_int_equal(word, 77);
	devices[0].answer = NULL;
	expect(0, 1, 1);
	expect(2, 1, 1);
}

static u64 children;

static s64 fault_seen(struct mm_cpu_fault *fault)
{
	struct device *d = device_of(fault->page);

	/* Whatever becomes of the page, its index is known and its data held. */
	HOST_CHECK(mm_page_index(fault->page) < FRAMES);
	HOST_CHECK(fault->data == d->data);
	children++;
	return bring(fault);
}

static void test_fault_tells_page(void **state)
{
	(void)state;
	children = 0;
	on_device(1, 0, 4, 1, false);
	devices[1].answer = fault_seen;
	expect(0, 4, 1);
	assert_int_equal(children, 4);
}

static void test_fork(void **state)
{
	static u64 copy[16 * PAGE / 8];

	(void)state;
	map(0, 16, HOME_RW);
	fill(0, 16, 1);
	assert_int_equal(move_out(0, 0, 4, 0), 4);
	assert_int_equal(move_out(1, 8, 4, 0), 4);
	need(home_fork(mm, at(0), copy, sizeof(copy)), "fork");
	for (u64 i = 0; i < 16; i++)
		assert_int_equal(copy[i * PAGE / 8 + i], (i + 1) * 0x9e3779b97f4a7c15ull ^ 1);
	/* The parent's pages are where they were. */
	wait_frames(0, 4);
	wait_frames(1, 4);
	expect(0, 16, 1);
}

static void test_fork_compound(void **state)
{
	static u64 copy[HUGE_PAGES * PAGE / 8];

	(void)state;
	on_device(0, 0, HUGE_PAGES, 1, true);
	need(home_fork(mm, at(0), copy, sizeof(copy)), "fork");
	for (u64 i = 0; i < HUGE_PAGES; i++)
		assert_int_equal(copy[i * PAGE / 8 + i * 8 % PAGE / 8],
				 (i + 1) * 0x9e3779b97f4a7c15ull ^ 1);
	wait_frames(0, HUGE_PAGES);
	expect(0, HUGE_PAGES, 1);
	/* What was shared with the child goes again. */
	assert_int_equal(move_out(0, 0, HUGE_PAGES, MM_MIGRATE_COMPOUND), HUGE_PAGES);
	expect(0, HUGE_PAGES, 1);
}

const struct CMUnitTest frame_tests[] = {
    host_test(test_region_checks),	host_test(test_init_and_abandon),
    host_test(test_cpu_fault),		host_test(test_cpu_fault_window),
    host_test(test_cpu_fault_compound), host_test(test_cpu_fault_splits),
    host_test(test_fault_again),	host_test(test_lost_page),
    host_test(test_fault_tells_page),	host_test(test_fork),
    host_test(test_fork_compound),
};
const unsigned n_frame_tests = host_array_size(frame_tests);
