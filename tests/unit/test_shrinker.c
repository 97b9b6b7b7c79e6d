/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_shrinker.c: who gives memory back when it is short, and how that is known. */
#include "host/posix/pressure.c"
#include "host/posix/shrinker.c"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define HANG (60 * HOST_SEC)

struct kept {
	struct host_shrinker shrinker;
	u64 bytes;	  /* atomic */
	u32 asked;	  /* atomic */
	u32 inside, hold; /* atomic: a call is in progress; it shall stay so */
	u32 entered;	  /* atomic: calls that began */
};

static u64 count(struct host_shrinker *s)
{
	return host_load_acquire(&host_container_of(s, struct kept, shrinker)->bytes);
}

static u64 scan(struct host_shrinker *s)
{
	struct kept *k = host_container_of(s, struct kept, shrinker);
	u64 bytes;

	host_add_return(&k->inside, 1);
	host_add_return(&k->entered, 1);
	while (host_load_acquire(&k->hold))
		host_sleep(HOST_MSEC);
	bytes = host_xchg(&k->bytes, 0);
	host_add_return(&k->asked, 1);
	host_add_return(&k->inside, (u32)-1);
	return bytes;
}

static const struct host_shrinker_ops ops = {.count = count, .scan = scan};

static void keep(struct kept *k, u64 bytes)
{
	*k = (struct kept){.bytes = bytes};
	assert_int_equal(host_shrinker_register(&k->shrinker, "test", &ops), 0);
}

static void wait_for(u32 *word, u32 least)
{
	u64 deadline = host_now() + HANG;

	while (host_load_acquire(word) < least) {
		HOST_CHECK(host_now() < deadline);
		host_sleep(HOST_MSEC);
	}
}

static void test_all_are_asked(void **state)
{
	struct kept a, b;

	assert_int_equal(host_shrink(), 0);
	keep(&a, 10);
	keep(&b, 7);
	assert_int_equal(host_shrink(), 17);
	assert_int_equal(host_shrink(), 0);
	host_shrinker_unregister(&a.shrinker);
	a.bytes = 3;
	b.bytes = 4;
	assert_int_equal(host_shrink(), 4);
	host_shrinker_unregister(&b.shrinker);
	assert_int_equal(host_shrink(), 0);
}

static void test_a_failed_allocation(void **state)
{
	struct kept a, none;

	shrinkers_memory_failed(); /* nobody is there */
	keep(&a, 10);
	keep(&none, 0);
	shrinkers_memory_failed();
	wait_for(&a.asked, 1);
	host_work_flush(&none.shrinker.work);
	assert_int_equal(host_load_acquire(&none.asked), 0);
	host_shrinker_unregister(&a.shrinker);
	host_shrinker_unregister(&none.shrinker);
}

/* ---- What the kernel says --------------------------------------------------------- */

static char stall_path[64], events_path[64];

static void write_file(const char *path, const char *text)
{
	char next[80];
	FILE *file;

	snprintf(next, sizeof(next), "%s.next", path);
	file = fopen(next, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	assert_int_equal(rename(next, path), 0);
}

static void say(u64 stalled, u64 high)
{
	char text[300];

	snprintf(text, sizeof(text),
		 "some avg10=0.00 avg60=0.00 avg300=0.00 total=%llu\n"
		 "full avg10=0.00 avg60=0.00 avg300=0.00 total=99999999\n",
		 (unsigned long long)stalled);
	write_file(stall_path, text);
	snprintf(text, sizeof(text), "low 5\nhigh %llu\nmax 0\noom 0\n", (unsigned long long)high);
	write_file(events_path, text);
}

static void open_files(void)
{
	snprintf(stall_path, sizeof(stall_path), "/tmp/gpusvm-stall-%d", (int)getpid());
	snprintf(events_path, sizeof(events_path), "/tmp/gpusvm-events-%d", (int)getpid());
	say(1000, 1);
	host_posix_pressure_use(stall_path, events_path);
}

static void close_files(void)
{
	host_posix_pressure_use("", "");
	unlink(stall_path);
	unlink(events_path);
}

/* A long time in which it waited, or a limit that was met. */
static void test_the_kernel_says_so(void **state)
{
	struct kept a;

	open_files();
	for (unsigned i = 0; i < 2; i++) {
		keep(&a, 10);
		host_shrinker_wake(&a.shrinker);
		/* Nothing has happened since the first look. */
		for (u64 seen = 0, now, looks = 0; looks < 3; looks += now != seen, seen = now) {
			host_sleep(HOST_MSEC);
			now = host_read_once(&a.shrinker.looked_at);
		}
		assert_int_equal(host_load_acquire(&a.asked), 0);
		say(1000 + (i ? 0 : 3600 * 1000000ull), 1 + i);
		wait_for(&a.asked, 1);
		/* It has nothing more, and is left alone; until it wakes again. */
		host_work_flush(&a.shrinker.work);
		assert_int_equal(a.shrinker.work.state, 0);
		host_shrinker_unregister(&a.shrinker);
		say(1000, 1);
	}
	close_files();
}

static void test_without_files(void **state)
{
	struct kept a;

	host_posix_pressure_use("/nowhere/at/all", "/nowhere/else");
	keep(&a, 10);
	assert_false(pressure_look(&a.shrinker));
	assert_false(pressure_look(&a.shrinker));
	host_shrinker_unregister(&a.shrinker);
	host_posix_pressure_use("", "");
}

static void test_numbers(void **state)
{
	assert_int_equal(number_behind("high 3\nmax 7\n", "max "), 7);
	assert_int_equal(number_behind("swap.high 3\nhigh 4\n", "high "), 4);
	assert_int_equal(number_behind("some total=5\n", "total="), 5);
	assert_int_equal(number_behind("subtotal=5\n", "total="), 0);
	assert_int_equal(number_behind("", "total="), 0);
}

/* ---- Unregistering -------------------------------------------------------------------- */

static void *shrink_all(void *arg)
{
	(void)host_shrink();
	return NULL;
}

static void *let_go(void *arg)
{
	struct kept *k = arg;

	wait_for(&k->entered, 1);
	host_sleep(5 * HOST_MSEC);
	host_store_release(&k->hold, 0);
	return NULL;
}

static void test_unregister_waits(void **state)
{
	pthread_t shrinks, lets;
	struct kept a;

	keep(&a, 10);
	a.hold = 1;
	assert_int_equal(pthread_create(&shrinks, NULL, shrink_all, NULL), 0);
	assert_int_equal(pthread_create(&lets, NULL, let_go, &a), 0);
	wait_for(&a.entered, 1);
	host_shrinker_unregister(&a.shrinker);
	assert_int_equal(host_load_acquire(&a.inside), 0);
	assert_int_equal(host_load_acquire(&a.asked), 1);
	pthread_join(shrinks, NULL);
	pthread_join(lets, NULL);
}

static void *fail_again_and_again(void *arg)
{
	u32 *stop = arg;

	while (!host_load_acquire(stop)) {
		shrinkers_memory_failed();
		(void)host_shrink();
	}
	return NULL;
}

static void test_coming_and_going(void **state)
{
	pthread_t threads[2];
	struct kept a;
	u32 stop = 0;

	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, fail_again_and_again, &stop), 0);
	for (unsigned i = 0; i < 300; i++) {
		keep(&a, 10);
		if (i % 3 == 0)
			wait_for(&a.asked, 1);
		host_shrinker_unregister(&a.shrinker);
		memset(&a, 0x5a, sizeof(a));
	}
	host_store_release(&stop, 1);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

static int setup(void **state)
{
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
	    cmocka_unit_test(test_all_are_asked),
	    cmocka_unit_test(test_a_failed_allocation),
	    cmocka_unit_test(test_the_kernel_says_so),
	    cmocka_unit_test(test_without_files),
	    cmocka_unit_test(test_numbers),
	    cmocka_unit_test(test_unregister_waits),
	    cmocka_unit_test(test_coming_and_going),
	};

	return cmocka_run_group_tests_name("shrinker", tests, setup, teardown);
}
