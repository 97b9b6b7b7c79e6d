/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_fault.c: mm_range_fault, device addresses, and the bus. */
#include "tests/host/home.h"

static struct listener l;

/* The owner of device addresses, as mm.h wants it: whatever it has mapped is
 * unmapped when it is told to let go. */
static struct {
	mm_dma_t addr;
	unsigned order;
	bool write, mapped;
} seen;

static void let_go(struct listener *who, const struct mm_invalidation *inv)
{
	(void)who;
	(void)inv;
	if (seen.mapped)
		mm_dma_unmap(mm, &seen, seen.addr, seen.order, seen.write);
	seen.mapped = false;
}

static void dma_map(mm_pfn_t pfn, unsigned order, bool write)
{
	seen.addr = mm_dma_map(mm, &seen, pfn, order, write);
	assert_true(seen.addr != MM_DMA_ERROR);
	seen.order = order;
	seen.write = write;
	seen.mapped = true;
}

static int open_listening(void **state)
{
	int err = test_open(state);

	if (err)
		return err;
	seen.mapped = false;
	l = (struct listener){.on_finish = let_go};
	listen(&l, 0, 4 * HUGE_PAGES);
	return 0;
}

static int close_listening(void **state)
{
	let_go(&l, NULL);
	unlisten(&l);
	return test_close(state);
}

static void test_errors(void **state)
{
	mm_pfn_t pfns[8];

	(void)state;
	map(0, 4, HOME_RW);
	map(4, 2, HOME_READ);
	map(6, 1, 0);
	assert_int_equal(range_fault(&l, 0, 4, MM_FAULT_IN | MM_FAULT_WRITE, pfns), 0);
	assert_int_equal(range_fault(&l, 4, 2, MM_FAULT_IN, pfns), 0);
	assert_int_equal(range_fault(&l, 4, 1, MM_FAULT_IN | MM_FAULT_WRITE, pfns), -EPERM);
	assert_int_equal(range_fault(&l, 0, 6, MM_FAULT_IN | MM_FAULT_WRITE, pfns), -EPERM);
	assert_int_equal(range_fault(&l, 6, 1, MM_FAULT_IN, pfns), -EFAULT);
	assert_int_equal(range_fault(&l, 7, 1, MM_FAULT_IN, pfns), -EFAULT);
	assert_int_equal(range_fault(&l, 0, 8, MM_FAULT_IN, pfns), -EFAULT);
	/* Holes are no error where nothing is to be faulted in. */
	assert_int_equal(range_fault(&l, 6, 2, 0, pfns), 0);
	assert_int_equal(pfns[1], 0);
}

/* The sequence is over: nothing that it could give would be of use. */
static void test_stale_sequence(void **state)
{
	mm_pfn_t pfns[4];
	struct mm_range_fault rf = {.mm = mm,
				    .notifier = &l.n,
				    .start = at(0),
				    .end = at(4),
				    .pfns = pfns,
				    .flags = MM_FAULT_IN};

	(void)state;
	map(0, 4, HOME_RW);
	fill(0, 4, 1);
	rf.seq = mm_notifier_read_begin(&l.n);
	assert_int_equal(mm_range_fault(&rf), 0);
	assert_int_equal(move_out(0, 0, 1, 0), 1);
	assert_int_equal(mm_range_fault(&rf), -EBUSY);
}

static void test_system_pages(void **state)
{
	mm_pfn_t pfns[16];

	(void)state;
	map(0, 16, HOME_RW);
	fill(0, 8, 1);
	assert_int_equal(range_fault(&l, 0, 16, MM_FAULT_IN | MM_FAULT_WRITE, pfns), 0);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(pfns[i] & (MM_PFN_VALID | MM_PFN_WRITE | MM_PFN_DEVICE),
				 MM_PFN_VALID | MM_PFN_WRITE);
		assert_true(MM_PFN_ORDER(pfns[i]) <= 4);
	}
	assert_int_equal(home_mprotect(mm, at(0), at(4), HOME_READ), 0);
	sync_all();
	assert_int_equal(range_fault(&l, 0, 8, MM_FAULT_IN, pfns), 0);
	assert_int_equal(pfns[0] & MM_PFN_WRITE, 0);
	assert_int_equal(pfns[3] & MM_PFN_VALID, MM_PFN_VALID);
	assert_int_equal(pfns[7] & MM_PFN_WRITE, MM_PFN_WRITE);
	expect(0, 8, 1);
	expect_zero(8, 8);
}

/* A run's entries agree on its order, and lie in one aligned run. */
static void check_orders(const mm_pfn_t *pfns, u64 first, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		unsigned order = MM_PFN_ORDER(pfns[i]), k = 1u << order;
		u64 base = host_align_down(first + i, k);

		assert_true(order <= HOST_HUGE_ORDER);
		assert_true(base >= first && base + k <= first + n);
		assert_int_equal(MM_PFN_ORDER(pfns[base - first]), order);
	}
}

static void test_keep(void **state)
{
	mm_pfn_t pfns[16];

	(void)state;
	map(0, 16, HOME_RW);
	fill(0, 16, 1);
	assert_int_equal(move_out(0, 0, 8, 0), 8);
	assert_int_equal(move_out(1, 8, 4, 0), 4);
	/* Looking moves nothing: what is not kept reads as invalid. */
	assert_int_equal(range_fault_keep(&l, 0, 16, 0, 0, pfns), 0);
	check_orders(pfns, 0, 16);
	for (unsigned i = 0; i < 8; i++) {
		struct mm_page *page = mm_pfn_page(mm, pfns[i]);

		assert_int_equal(pfns[i] & (MM_PFN_VALID | MM_PFN_DEVICE | MM_PFN_WRITE),
				 MM_PFN_VALID | MM_PFN_DEVICE | MM_PFN_WRITE);
		assert_ptr_equal(mm_page_region(page), devices[0].region);
		assert_int_equal(*(u64 *)(frame_bytes(page) + i * 8),
				 (i + 1) * 0x9e3779b97f4a7c15ull ^ 1);
	}
	for (unsigned i = 8; i < 12; i++)
		assert_int_equal(pfns[i] & MM_PFN_VALID, 0);
	assert_int_equal(frames_used(1), 4);
	/* Faulting in brings home what is not kept, and only that. */
	assert_int_equal(range_fault_keep(&l, 0, 16, MM_FAULT_IN, 0, pfns), 0);
	check_orders(pfns, 0, 16);
	for (unsigned i = 0; i < 16; i++) {
		assert_true(pfns[i] & MM_PFN_VALID);
		assert_int_equal(!!(pfns[i] & MM_PFN_DEVICE), i < 8);
	}
	wait_frames(1, 0);
	assert_int_equal(frames_used(0), 8);
	assert_int_equal(range_fault(&l, 0, 16, MM_FAULT_IN, pfns), 0);
	wait_frames(0, 0);
	expect(0, 16, 1);
}

/* Each entry names the page at its own address, in a whole 2M page too. */
static void test_keep_compound(void **state)
{
	static mm_pfn_t pfns[HUGE_PAGES];
	u64 first;

	(void)state;
	on_device(0, 0, HUGE_PAGES, 1, true);
	assert_int_equal(range_fault_keep(&l, 0, HUGE_PAGES, MM_FAULT_IN, 0, pfns), 0);
	check_orders(pfns, 0, HUGE_PAGES);
	first = mm_page_index(mm_pfn_page(mm, pfns[0]));
	for (unsigned i = 0; i < HUGE_PAGES; i++) {
		assert_true(pfns[i] & MM_PFN_DEVICE);
		if (mm_page_order(mm_pfn_page(mm, pfns[0])))
			assert_int_equal(mm_page_index(mm_pfn_page(mm, pfns[i])), first + i);
	}
	/* And in a part of one, which does not begin at its head. */
	assert_int_equal(range_fault_keep(&l, 32, 16, MM_FAULT_IN, 0, pfns), 0);
	check_orders(pfns, 32, 16);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(mm_page_index(mm_pfn_page(mm, pfns[i])), first + 32 + i);
	expect(0, HUGE_PAGES, 1);
}

/* The first entry of each run that lies in the interval as a whole is enough for who says
 * so. */
static void check_runs(u64 first, unsigned n)
{
	static mm_pfn_t all[HUGE_PAGES], few[HUGE_PAGES];

	memset(few, 0xff, sizeof(few));
	assert_int_equal(range_fault_keep(&l, first, n, MM_FAULT_IN, 0, all), 0);
	assert_int_equal(range_fault_keep(&l, first, n, MM_FAULT_IN | MM_FAULT_RUNS, 0, few), 0);
	for (unsigned i = 0; i < n; i += 1u << MM_PFN_ORDER(all[i]))
		assert_int_equal(few[i], all[i]);
}

static void test_runs(void **state)
{
	(void)state;
	map(0, 2 * HUGE_PAGES, HOME_RW | HOME_HUGE);
	fill(0, HUGE_PAGES, 1);
	for (unsigned moved = 0; moved < 3; moved++) {
		check_runs(0, HUGE_PAGES);
		check_runs(HUGE_PAGES, HUGE_PAGES);
		check_runs(3, 200);
		check_runs(HUGE_PAGES + 16, 128);
		if (moved)
			assert_int_equal(move_home(moved * 32, 16, 0), 16); /* mixed */
		else
			(void)move_out(0, 0, HUGE_PAGES, MM_MIGRATE_COMPOUND);
	}
	expect(0, HUGE_PAGES, 1);
}

static void test_read_only_stays_read_only(void **state)
{
	mm_pfn_t pfns[4];

	(void)state;
	on_device(0, 0, 4, 1, false);
	assert_int_equal(home_mprotect(mm, at(0), at(4), HOME_READ), 0);
	sync_all();
	assert_int_equal(range_fault_keep(&l, 0, 4, MM_FAULT_IN, 0, pfns), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pfns[i] & MM_PFN_WRITE, 0);
	assert_int_equal(range_fault_keep(&l, 0, 4, MM_FAULT_IN | MM_FAULT_WRITE, 0, pfns), -EPERM);
	expect(0, 4, 1);
}

static void test_device_addresses(void **state)
{
	mm_pfn_t pfns[2];
	u64 word, where;

	(void)state;
	map(0, 2, HOME_RW);
	put(0, 11);
	assert_int_equal(range_fault(&l, 0, 2, MM_FAULT_IN | MM_FAULT_WRITE, pfns), 0);
	dma_map(pfns[0], 0, true);
	assert_int_equal(bus_access(seen.addr, &word, 8, false, &where), 0);
	assert_int_equal(word, 11);
	word = 12;
	assert_int_equal(bus_access(seen.addr, &word, 8, true, &where), 0);
	assert_int_equal(get(0), 12);
}

/* Memory that went away under a device is a fault of the device. */
static void test_vanishing_memory(void **state)
{
	mm_pfn_t pfn;
	mm_dma_t was;
	u64 word = 0, where;

	(void)state;
	map(0, 1, HOME_RW);
	put(0, 11);
	assert_int_equal(range_fault(&l, 0, 1, MM_FAULT_IN, &pfn), 0);
	dma_map(pfn, 0, false);
	was = seen.addr;
	unmap(0, 1);
	assert_false(seen.mapped);
	assert_int_equal(bus_access(was, &word, 8, false, &where), -EFAULT);
	assert_int_equal(word, 0);
}

static u64 nested_fault;

static void abandons(void *arg)
{
	mm_bus_abandon((u64)(uintptr_t)arg);
}

static void nests(void *arg)
{
	u64 where;

	mm_bus_end(); /* none is open: legal */
	HOST_CHECK(mm_bus_guard(abandons, (void *)5, &where) == -EFAULT);
	nested_fault = where;
	mm_bus_abandon((u64)(uintptr_t)arg);
}

static void returns(void *arg)
{
	*(u32 *)arg += 1;
}

static void test_guards(void **state)
{
	u32 calls = 0;
	u64 where = 0;

	(void)state;
	assert_int_equal(mm_bus_guard(returns, &calls, &where), 0);
	assert_int_equal(calls, 1);
	assert_int_equal(mm_bus_guard(nests, (void *)7, &where), -EFAULT);
	assert_int_equal(where, 7);
	assert_int_equal(nested_fault, 5);
	assert_int_equal(mm_bus_guard(returns, &calls, &where), 0);
	assert_int_equal(calls, 2);
}

struct pair {
	mm_dma_t a, b;
	bool done;
};

static void copies(void *arg)
{
	struct pair *p = arg;
	u64 *a = mm_bus_begin(p->a, 8, false), *b = mm_bus_begin(p->b, 8, true);

	if (a && b) {
		*b = *a;
		p->done = true;
	}
	mm_bus_end();
}

static void test_two_accesses(void **state)
{
	struct pair p = {0};
	mm_pfn_t pfns[2];
	u64 where;

	(void)state;
	map(0, 2, HOME_RW);
	put(0, 11);
	assert_int_equal(home_store(mm, at(1), &(u64){1}, 8), 0);
	assert_int_equal(range_fault(&l, 0, 2, MM_FAULT_IN | MM_FAULT_WRITE, pfns), 0);
	p.a = mm_dma_map(mm, &l, pfns[0], 0, false);
	p.b = mm_dma_map(mm, &l, pfns[1], 0, true);
	assert_int_equal(mm_bus_guard(copies, &p, &where), 0);
	mm_dma_unmap(mm, &l, p.a, 0, false);
	mm_dma_unmap(mm, &l, p.b, 0, true);
	assert_true(p.done);
	assert_int_equal(home_load(mm, at(1), &where, 8), 0);
	assert_int_equal(where, 11);
}

#define fault_test(f) host_test_with(f, open_listening, close_listening)
const struct CMUnitTest fault_tests[] = {
    fault_test(test_errors),
    fault_test(test_stale_sequence),
    fault_test(test_system_pages),
    fault_test(test_keep),
    fault_test(test_keep_compound),
    fault_test(test_read_only_stays_read_only),
    fault_test(test_device_addresses),
    fault_test(test_vanishing_memory),
    fault_test(test_guards),
    fault_test(test_two_accesses),
    fault_test(test_runs),
};
const unsigned n_fault_tests = host_array_size(fault_tests);
