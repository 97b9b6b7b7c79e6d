/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_exclusive.c: pages of system memory that one device has for itself. */
#include "tests/host/home.h"

static struct listener l;

/* Two who take pages. What they have mapped is unmapped when they are told to let go. */
static struct owner {
	mm_dma_t addr;
	bool mapped;
} owners[2];
static struct host_mutex commit; /* what invalidate_start takes */

static void stop_access(struct listener *who, const struct mm_invalidation *inv)
{
	(void)who;
	(void)inv;
	host_mutex_lock(&commit); /* no access is in the middle */
	host_mutex_unlock(&commit);
}

static void let_go(struct listener *who, const struct mm_invalidation *inv)
{
	(void)who;
	(void)inv;
	host_mutex_lock(&commit);
	for (unsigned i = 0; i < 2; i++) {
		if (owners[i].mapped)
			mm_dma_unmap(mm, &owners[i], owners[i].addr, 0, true);
		owners[i].mapped = false;
	}
	host_mutex_unlock(&commit);
}

static int open_listening(void **state)
{
	int err = test_open(state);

	if (err)
		return err;
	host_mutex_init(&commit, RANK_MIRROR);
	memset(owners, 0, sizeof(owners));
	l = (struct listener){.on_start = stop_access, .on_finish = let_go};
	listen(&l, 0, 4 * HUGE_PAGES);
	return 0;
}

static int close_listening(void **state)
{
	let_go(&l, NULL);
	unlisten(&l);
	host_mutex_destroy(&commit);
	return test_close(state);
}

/* rf is good until the sequence says otherwise. */
static int try_take(struct mm_range_fault *rf, unsigned who, u64 first, u64 n, u64 hold,
		    mm_pfn_t *pfns)
{
	*rf = (struct mm_range_fault){
	    .mm = mm,
	    .notifier = &l.n,
	    .seq = mm_notifier_read_begin(&l.n),
	    .start = at(first),
	    .end = at(first + n),
	    .pfns = pfns,
	    .owner = &owners[who],
	};
	return mm_make_exclusive(rf, hold);
}

static int take_for(unsigned who, u64 first, u64 n, u64 hold, mm_pfn_t *pfns)
{
	struct mm_range_fault rf;
	int err = -EBUSY;

	for (int tries = 0; err == -EBUSY && tries < 1000; tries++) {
		err = try_take(&rf, who, first, n, hold, pfns);
		if (err == -EBUSY)
			host_sleep(HOST_MSEC / 10);
	}
	return err;
}

static void taken(unsigned who, u64 first, u64 n)
{
	static mm_pfn_t pfns[HUGE_PAGES];

	need(take_for(who, first, n, 0, pfns), "mm_make_exclusive");
	for (u64 i = 0; i < n; i++) {
		assert_true(pfns[i] & MM_PFN_EXCLUSIVE);
		assert_true(pfns[i] & MM_PFN_WRITE);
		assert_true(state_of(first + i).flags & MM_STATE_EXCLUSIVE);
		assert_null(state_of(first + i).owner);
	}
}

static void not_taken(u64 first, u64 n)
{
	for (u64 i = 0; i < n; i++)
		assert_false(state_of(first + i).flags & MM_STATE_EXCLUSIVE);
}

/* A word of a page that is taken, by its owner. */
static void owner_word(unsigned who, u64 page, u64 *word, bool write)
{
	u64 offset = page * 8 % PAGE, where;
	mm_pfn_t pfn;

	assert_int_equal(take_for(who, page, 1, 0, &pfn), 0);
	owners[who].addr = mm_dma_map(mm, &owners[who], pfn, 0, true);
	assert_true(owners[who].addr != MM_DMA_ERROR);
	owners[who].mapped = true;
	assert_int_equal(bus_access(owners[who].addr + offset, word, 8, write, &where), 0);
	let_go(NULL, NULL);
}

static void test_taken_until_touched(void **state)
{
	u64 word, old;

	(void)state;
	map(0, 8, HOME_RW);
	fill(0, 8, 1);
	taken(0, 2, 4);
	assert_true(l.events & 1u << MM_EVENT_EXCLUSIVE);
	not_taken(0, 2);
	/* Again is nothing new. */
	listen_anew(&l);
	taken(0, 2, 4);
	assert_int_equal(l.starts, 0);
	owner_word(0, 3, &old, false);
	assert_int_equal(old, 4 * 0x9e3779b97f4a7c15ull ^ 1);
	word = 12345;
	owner_word(0, 3, &word, true);
	assert_true(state_of(3).flags & MM_STATE_EXCLUSIVE);
	/* A touch brings it back, and is told before. */
	listen_anew(&l);
	assert_int_equal(get(3), 12345);
	not_taken(3, 1);
	assert_true(l.events & 1u << MM_EVENT_EXCLUSIVE);
	put(3, 4 * 0x9e3779b97f4a7c15ull ^ 1);
	expect(0, 8, 1);
	not_taken(0, 8);
	/* What was never there is zeros. */
	map(8, 1, HOME_RW);
	taken(0, 8, 1);
	owner_word(0, 8, &word, false);
	assert_int_equal(word, 0);
}

static void test_owners(void **state)
{
	mm_pfn_t pfns[8];
	u64 word;

	(void)state;
	map(0, 8, HOME_RW);
	fill(0, 8, 1);
	taken(0, 0, 8);
	/* Another takes it over; a look by nobody brings it home, one that only looks not. */
	taken(1, 0, 4);
	word = 7;
	owner_word(1, 2, &word, true);
	assert_int_equal(range_fault(&l, 0, 4, 0, pfns), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pfns[i], 0);
	assert_int_equal(range_fault(&l, 0, 8, MM_FAULT_IN, pfns), 0);
	not_taken(0, 8);
	for (int i = 0; i < 8; i++)
		assert_true(pfns[i] & MM_PFN_VALID && !(pfns[i] & MM_PFN_EXCLUSIVE));
	assert_int_equal(get(2), 7);
	taken(0, 0, 2);
	taken(1, 2, 2);
	mm_exclusive_end(mm, &owners[0]);
	not_taken(0, 2);
	assert_true(state_of(2).flags & MM_STATE_EXCLUSIVE);
	mm_exclusive_end(mm, NULL);
	not_taken(0, 8);
}

static void test_errors(void **state)
{
	struct mm_range_fault rf;
	mm_pfn_t pfns[8];
	void *pin;
	int err;

	(void)state;
	map(0, 4, HOME_RW);
	map(4, 2, HOME_READ);
	map(6, 1, 0);
	map(8, 4, HOME_RW | HOME_SHARED);
	need(take_for(0, 0, 1, 0, pfns), "mm_make_exclusive");
	assert_int_equal(take_for(0, 4, 1, 0, pfns), -EPERM);
	assert_int_equal(take_for(0, 6, 1, 0, pfns), -EFAULT);
	assert_int_equal(take_for(0, 7, 1, 0, pfns), -EFAULT);
	assert_int_equal(take_for(0, 8, 1, 0, pfns), -EOPNOTSUPP);
	assert_int_equal(try_take(&rf, 0, 0, 0, 0, pfns), -EINVAL);
	rf.end = rf.start + PAGE;
	rf.owner = NULL;
	assert_int_equal(mm_make_exclusive(&rf, 0), -EINVAL);
	rf.owner = &owners[0];
	rf.start = at(HUGE_PAGES - 1);
	rf.end = at(HUGE_PAGES + 1);
	assert_int_equal(mm_make_exclusive(&rf, 0), -EINVAL);
	put(1, 5);
	err = home_pin(mm, at(1), &pin);
	if (!err) {
		assert_int_equal(take_for(0, 0, 4, 0, pfns), -EOPNOTSUPP);
		home_unpin(pin);
	}
}

/* A device's own pages are kept, all others come to be taken. */
static void test_beside_devices(void **state)
{
	static struct job j;
	u64 word = 3;

	(void)state;
	on_device(0, 0, 8, 1, false);
	taken(0, 0, 8);
	wait_frames(0, 0);
	owner_word(0, 5, &word, true);
	/* They go where they are wanted. */
	assert_int_equal(move_out(1, 0, 8, 0), 8);
	not_taken(0, 8);
	assert_int_equal(get(5), 3);
	taken(1, 0, 8);
	/* And are nothing that a device has. */
	job_init(&j, 0, 8, MM_MIGRATE_DEVICE);
	job_begin(&j);
	assert_int_equal(j.m.collected, 0);
	(void)job_finish(&j);
	assert_true(state_of(7).flags & MM_STATE_EXCLUSIVE);
}

static void test_changes(void **state)
{
	u64 word, seen;

	(void)state;
	map(0, 32, HOME_RW);
	fill(0, 32, 1);
	taken(0, 0, 32);
	/* Moved: still taken, and told. */
	assert_int_equal(home_mremap(mm, at(0), at(8), at(100), false), 0);
	sync_all();
	assert_true(state_of(100).flags & MM_STATE_EXCLUSIVE);
	assert_int_equal(home_load(mm, at(101) + 8, &word, 8), 0);
	assert_int_equal(word, 2 * 0x9e3779b97f4a7c15ull ^ 1);
	/* Unmapped, dropped, protected. */
	unmap(8, 8);
	map(8, 8, HOME_RW);
	expect_zero(8, 8);
	assert_int_equal(home_dontneed(mm, at(16), at(20)), 0);
	sync_all();
	expect_zero(16, 4);
	listen_anew(&l);
	assert_int_equal(home_mprotect(mm, at(20), at(24), HOME_READ), 0);
	sync_all();
	assert_true(l.starts);
	expect(20, 4, 1);
	/* A child has what was there. */
	word = 99;
	owner_word(0, 25, &word, true);
	assert_int_equal(home_fork(mm, at(25) + 25 * 8, &seen, 8), 0);
	assert_int_equal(seen, 99);
	assert_int_equal(get(25), 99);
	expect(26, 6, 1);
}

static void test_whole_2m(void **state)
{
	(void)state;
	map(0, HUGE_PAGES, HOME_RW | HOME_HUGE);
	fill(0, HUGE_PAGES, 1);
	taken(0, 0, HUGE_PAGES);
	expect(100, 1, 1);
	taken(0, 0, HUGE_PAGES);
	unmap(200, 50);
	expect(0, 200, 1);
	expect(250, HUGE_PAGES - 250, 1);
	not_taken(0, 200);
}

/* The CPU waits, asleep, until the owner had it for so long. */
static void test_hold(void **state)
{
	mm_pfn_t pfn;
	u64 taken_at;

	(void)state;
	map(0, 1, HOME_RW);
	put(0, 1);
	taken_at = host_now();
	need(take_for(0, 0, 1, 20 * HOST_MSEC, &pfn), "mm_make_exclusive");
	assert_int_equal(get(0), 1);
	assert_true(host_now() - taken_at >= 20 * HOST_MSEC);
	not_taken(0, 1);
}

/* ---- One word ----------------------------------------------------------------------- */

#define ADDS 300u
static u32 failed; /* atomic */

/* A read and a write, as a device does it behind a bus without atomics. */
static bool add_once(struct owner *owner)
{
	unsigned who = (unsigned)(owner - owners);
	struct mm_range_fault rf;
	bool done = false;
	u64 word, where;
	mm_pfn_t pfn;
	int err = try_take(&rf, who, 0, 1, HOST_MSEC / 10, &pfn);

	if (err && err != -EBUSY)
		host_store_release(&failed, 1);
	if (err)
		return false;
	host_mutex_lock(&commit);
	if (!mm_notifier_read_retry(&l.n, rf.seq)) {
		mm_dma_t addr = mm_dma_map(mm, owner, pfn, 0, true);

		done = !bus_access(addr, &word, 8, false, &where);
		word++;
		done = done && !bus_access(addr, &word, 8, true, &where);
		mm_dma_unmap(mm, owner, addr, 0, true);
		if (!done)
			host_store_release(&failed, 1);
	}
	host_mutex_unlock(&commit);
	return done;
}

static void add_by_owner(void *arg)
{
	for (u32 n = 0; n < ADDS && !host_load_acquire(&failed);)
		n += add_once(arg);
}

static void add_by_cpu(void *arg)
{
	(void)arg;
	for (u32 n = 0; n < ADDS; n++)
		if (home_add(mm, at(0), 1))
			host_store_release(&failed, 1);
}

static void test_exact_sum(void **state)
{
	struct host_thread threads[3];
	mm_pfn_t pfn;

	(void)state;
	failed = 0;
	memset(threads, 0, sizeof(threads));
	map(0, 1, HOME_RW);
	put(0, 0);
	need(take_for(0, 0, 1, 0, &pfn), "mm_make_exclusive");
	for (int i = 0; i < 3; i++)
		assert_int_equal(host_thread_start(&threads[i], "adder",
						   i < 2 ? add_by_owner : add_by_cpu,
						   &owners[i % 2]),
				 0);
	for (int i = 0; i < 3; i++)
		host_thread_join(&threads[i]);
	assert_int_equal(failed, 0);
	assert_int_equal(get(0), 3 * ADDS);
}

#define exclusive_test(f) host_test_with(f, open_listening, close_listening)
const struct CMUnitTest exclusive_tests[] = {
    exclusive_test(test_taken_until_touched),
    exclusive_test(test_owners),
    exclusive_test(test_errors),
    exclusive_test(test_beside_devices),
    exclusive_test(test_changes),
    exclusive_test(test_whole_2m),
    exclusive_test(test_hold),
    exclusive_test(test_exact_sum),
};
const unsigned n_exclusive_tests = host_array_size(exclusive_tests);
