/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_notifier.c: interval notifiers: who is told of what, when, and sequences. */
#include "tests/host/home.h"

static void populated(u64 first, u64 n)
{
	map(first, n, HOME_RW);
	fill(first, n, 1);
}

/* Devices were told of the pages, so that a home that watches only what it has
 * told of watches these. */
static void look_at(struct listener *l, u64 first, u64 n)
{
	mm_pfn_t pfns[64];

	assert_true(n <= host_array_size(pfns));
	assert_int_equal(range_fault(l, first, n, MM_FAULT_IN | MM_FAULT_WRITE, pfns), 0);
	listen_anew(l);
}

static void test_insert_checks(void **state)
{
	struct mm_notifier n = {0};
	static const struct mm_notifier_ops none;

	(void)state;
	assert_int_equal(mm_notifier_insert(&n, mm, at(1), at(1), &none), -EINVAL);
	assert_int_equal(mm_notifier_insert(&n, mm, at(2), at(1), &none), -EINVAL);
	assert_int_equal(mm_notifier_insert(&n, mm, at(1) + 8, at(2), &none), -EINVAL);
	assert_int_equal(mm_notifier_insert(&n, mm, at(1), at(2) - 1, &none), -EINVAL);
}

static void told(struct listener *l, enum mm_event event, u64 first, u64 n)
{
	sync_all();
	assert_true(l->events & 1u << event);
	assert_true(l->start <= at(first) && l->end >= at(first + n));
	assert_true(l->starts && l->starts == l->finishes);
	listen_anew(l);
}

static void told_remap(struct listener *l, u64 first, u64 n, u64 to)
{
	struct mm_caps caps;

	mm_caps_get(mm, &caps);
	sync_all();
	/* A home may add that the old place is unmapped. */
	if (l->last.event == MM_EVENT_REMAP)
		assert_int_equal(l->last.to - l->last.start, (to - first) * HOST_PAGE_SIZE);
	told(l, caps.flags & MM_CAP_REMAP ? MM_EVENT_REMAP : MM_EVENT_UNMAP, first, n);
}

static void test_events(void **state)
{
	struct listener l = {0};

	(void)state;
	populated(0, 32);
	listen(&l, 0, 64);
	look_at(&l, 0, 32);
	assert_int_equal(home_munmap(mm, at(0), at(4)), 0);
	told(&l, MM_EVENT_UNMAP, 0, 4);
	assert_int_equal(home_dontneed(mm, at(4), at(8)), 0);
	told(&l, MM_EVENT_CLEAR, 4, 4);
	assert_int_equal(home_mprotect(mm, at(8), at(12), HOME_READ), 0);
	told(&l, MM_EVENT_PROTECT, 8, 4);
	map(12, 4, HOME_RW);
	told(&l, MM_EVENT_UNMAP, 12, 4);
	assert_int_equal(home_mremap(mm, at(16), at(20), at(100), false), 0);
	told_remap(&l, 16, 4, 100);
	assert_int_equal(home_mremap(mm, at(20), at(24), at(104), true), 0);
	told_remap(&l, 20, 4, 104);
	unlisten(&l);
}

/* By address, by frame and by the CPU's fault. */
static void test_migrations_are_told(void **state)
{
	struct listener l = {0};
	struct job j;

	(void)state;
	populated(0, 32);
	listen(&l, 0, 64);
	assert_int_equal(move_out(0, 0, 8, 0), 8);
	assert_ptr_equal(l.last.migrator, devices);
	assert_true(l.last.blockable);
	told(&l, MM_EVENT_MIGRATE, 0, 8);
	assert_int_equal(move_home(0, 4, 0), 4);
	assert_ptr_equal(l.last.migrator, devices);
	told(&l, MM_EVENT_MIGRATE, 0, 4);
	assert_int_equal(get(4), get(4));
	told(&l, MM_EVENT_MIGRATE, 4, 1);
	job_init(&j, 0, 16, MM_MIGRATE_DEVICE);
	assert_int_equal(mm_migrate_begin_frames(&j.m, devices[0].region, 0), 0);
	assert_ptr_equal(l.last.migrator, devices);
	assert_int_equal(job_to_system(&j), 0);
	assert_int_equal(job_finish(&j), 3);
	told(&l, MM_EVENT_MIGRATE, 5, 3);
	unlisten(&l);
}

static void test_clipping(void **state)
{
	struct listener a = {0}, b = {0}, c = {0};

	(void)state;
	populated(0, 48);
	listen(&a, 0, 16);
	listen(&b, 16, 16);
	listen(&c, 32, 16);
	assert_int_equal(move_out(0, 8, 16, 0), 16);
	assert_int_equal(a.start, at(8));
	assert_int_equal(a.end, at(16));
	assert_int_equal(b.start, at(16));
	assert_int_equal(b.end, at(24));
	assert_int_equal(c.starts, 0);
	listen_anew(&a);
	listen_anew(&b);
	assert_int_equal(home_munmap(mm, at(4), at(20)), 0);
	sync_all();
	assert_true(a.start >= at(0) && a.end == at(16));
	assert_true(b.start == at(16) && b.end <= at(32));
	unlisten(&a);
	unlisten(&b);
	unlisten(&c);
}

static struct listener pair[2];

static void all_started(struct listener *l, const struct mm_invalidation *inv)
{
	(void)l;
	(void)inv;
	HOST_CHECK(host_load_acquire(&pair[0].starts) == host_load_acquire(&pair[1].starts));
}

/* All flushes begin before the first is waited for. */
static void test_two_passes(void **state)
{
	(void)state;
	populated(0, 32);
	for (unsigned i = 0; i < 2; i++) {
		pair[i] = (struct listener){.on_finish = all_started};
		listen(&pair[i], 0, 32);
	}
	assert_int_equal(move_out(0, 0, 32, 0), 32);
	unmap(3, 4);
	assert_true(pair[0].starts >= 2 && pair[1].starts == pair[0].starts);
	for (unsigned i = 0; i < 2; i++)
		unlisten(&pair[i]);
}

static void in_progress(struct listener *l, const struct mm_invalidation *inv)
{
	u64 *seq = l->arg;

	(void)inv;
	HOST_CHECK(mm_notifier_read_retry(&l->n, *seq));
}

static void test_sequence(void **state)
{
	struct listener l = {.on_start = in_progress, .on_finish = in_progress};
	u64 seq, older;

	(void)state;
	populated(0, 32);
	l.arg = &seq;
	listen(&l, 0, 16);
	older = seq = mm_notifier_read_begin(&l.n);
	assert_false(mm_notifier_read_retry(&l.n, seq));
	assert_int_equal(mm_notifier_read_begin(&l.n), seq);
	/* Elsewhere. */
	assert_int_equal(move_out(0, 20, 4, 0), 4);
	assert_false(mm_notifier_read_retry(&l.n, seq));
	assert_int_equal(move_out(0, 0, 4, 0), 4);
	assert_true(l.starts > 0);
	assert_true(mm_notifier_read_retry(&l.n, seq));
	seq = mm_notifier_read_begin(&l.n);
	assert_int_not_equal(seq, older);
	assert_false(mm_notifier_read_retry(&l.n, seq));
	unmap(0, 1);
	assert_true(mm_notifier_read_retry(&l.n, seq));
	assert_true(mm_notifier_read_retry(&l.n, older));
	unlisten(&l);
}

/* ---- While an invalidation is in progress ------------------------------------ */

static struct listener held;	  /* its finish waits until it is let go */
static struct listener later;	  /* comes meanwhile */
static u32 entered, let_go, step; /* atomic */
static struct host_waitq waitq;

static void hold_on(struct listener *l, const struct mm_invalidation *inv)
{
	(void)l;
	(void)inv;
	host_store_release(&entered, 1);
	host_wake_all(&waitq);
	host_wait(&waitq, host_load_acquire(&let_go));
}

static void mover(void *arg)
{
	static struct job j;

	(void)arg;
	job_init(&j, 0, 4, MM_MIGRATE_SYSTEM);
	HOST_CHECK(mm_migrate_begin(&j.m) == 0);
	mm_migrate_end(&j.m);
}

static void reader(void *arg)
{
	u64 seq;

	(void)arg;
	seq = mm_notifier_read_begin(&held.n);
	HOST_CHECK(host_load_acquire(&let_go));
	HOST_CHECK(!mm_notifier_read_retry(&held.n, seq));
	host_store_release(&step, 1);
}

static void remover(void *arg)
{
	(void)arg;
	mm_notifier_remove(&held.n);
	HOST_CHECK(host_load_acquire(&held.finishes) == 1);
	host_store_release(&step, 1);
}

static void inserter(void *arg)
{
	u64 seq;

	(void)arg;
	HOST_CHECK(mm_notifier_insert(&later.n, mm, at(0), at(16), held.n.ops) == 0);
	seq = mm_notifier_read_begin(&later.n);
	/* Whatever was in progress is over: what is seen now, is after it. */
	HOST_CHECK(host_load_acquire(&let_go));
	HOST_CHECK(!mm_notifier_read_retry(&later.n, seq));
	mm_notifier_remove(&later.n);
	host_store_release(&step, 1);
}

/* Runs fn beside an invalidation that is held up in its second pass; fn must not
 * get to its end before that does. */
static void beside(void (*fn)(void *))
{
	struct host_thread threads[2] = {0};

	populated(0, 16);
	entered = let_go = step = 0;
	host_waitq_init(&waitq);
	held = (struct listener){.on_finish = hold_on};
	later = (struct listener){0};
	listen(&held, 0, 16);
	assert_int_equal(host_thread_start(&threads[0], "mover", mover, NULL), 0);
	host_wait(&waitq, host_load_acquire(&entered));
	assert_int_equal(host_thread_start(&threads[1], "beside", fn, NULL), 0);
	host_sleep(20 * HOST_MSEC);
	assert_int_equal(host_load_acquire(&step), 0);
	host_store_release(&let_go, 1);
	host_wake_all(&waitq);
	host_thread_join(&threads[0]);
	host_thread_join(&threads[1]);
	assert_int_equal(step, 1);
	host_waitq_destroy(&waitq);
}

static void test_read_begin_waits(void **state)
{
	(void)state;
	beside(reader);
	unlisten(&held);
}

static void test_remove_waits(void **state)
{
	(void)state;
	beside(remover);
}

static void test_insert_in_between(void **state)
{
	(void)state;
	beside(inserter);
	unlisten(&held);
}

static void test_none_after_removal(void **state)
{
	struct listener l = {0};

	(void)state;
	populated(0, 16);
	listen(&l, 0, 16);
	unlisten(&l);
	assert_int_equal(move_out(0, 0, 8, 0), 8);
	unmap(0, 16);
	assert_int_equal(l.starts, 0);
}

static void test_may_not_block(void **state)
{
	struct listener yes = {0}, no = {.refuses = true};
	u64 seq;

	(void)state;
	populated(0, 16);
	listen(&yes, 0, 16);
	need(home_reap(mm, at(0), at(4)), "reaper");
	assert_false(yes.last.blockable);
	assert_int_equal(yes.last.event, MM_EVENT_CLEAR);
	expect_zero(0, 4);
	listen(&no, 8, 8);
	listen_anew(&yes);
	assert_int_equal(home_reap(mm, at(4), at(12)), -EAGAIN);
	assert_int_equal(no.starts, 0);
	assert_int_equal(yes.starts, yes.finishes);
	expect(4, 8, 1);
	/* Nothing is owed: neither is in an invalidation. */
	seq = mm_notifier_read_begin(&no.n);
	assert_false(mm_notifier_read_retry(&no.n, seq));
	seq = mm_notifier_read_begin(&yes.n);
	assert_false(mm_notifier_read_retry(&yes.n, seq));
	unlisten(&yes);
	unlisten(&no);
}

const struct CMUnitTest notifier_tests[] = {
    host_test(test_insert_checks),	 host_test(test_events),
    host_test(test_migrations_are_told), host_test(test_clipping),
    host_test(test_two_passes),		 host_test(test_sequence),
    host_test(test_read_begin_waits),	 host_test(test_remove_waits),
    host_test(test_insert_in_between),	 host_test(test_none_after_removal),
    host_test(test_may_not_block),
};
const unsigned n_notifier_tests = host_array_size(notifier_tests);
