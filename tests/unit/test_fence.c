/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_fence.c: fences and the bounded retry. The races run with threads, a
 * bounded number of rounds each; sanitizers see a touch after the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "core/fence.c"
#include "core/retry.h"
#include "host/posix/posix.h"

#define ROUNDS 2000u

struct counting {
	struct gpusvm_fence_callback cb;
	u32 calls;
	u32 order;
	int result;
};

static u32 calls_so_far;

static void count_call(struct gpusvm_fence *fence, struct gpusvm_fence_callback *cb)
{
	struct counting *c = host_container_of(cb, struct counting, cb);

	assert_true(gpusvm_fence_signalled(fence));
	c->result = fence->result;
	c->order = calls_so_far++;
	host_add_return(&c->calls, 1);
}

static void test_signal_once(void **unused)
{
	struct gpusvm_fence *fence = gpusvm_fence_create();
	int result = 7;

	assert_false(gpusvm_fence_signalled(fence));
	assert_int_equal(gpusvm_fence_wait(fence, 0, &result), -ETIME);
	assert_int_equal(gpusvm_fence_wait(fence, host_now() + HOST_MSEC, &result), -ETIME);
	assert_int_equal(result, 7);
	gpusvm_fence_signal(fence, -EIO);
	gpusvm_fence_signal(fence, 0);
	assert_true(gpusvm_fence_signalled(fence));
	assert_int_equal(gpusvm_fence_wait(fence, HOST_FOREVER, &result), 0);
	assert_int_equal(result, -EIO);
	assert_int_equal(gpusvm_fence_wait(fence, 0, NULL), 0);
	gpusvm_fence_put(fence);
	assert_int_equal(host_posix_alloc_live(), 0);
}

static void test_null(void **unused)
{
	assert_null(gpusvm_fence_get(NULL));
	gpusvm_fence_put(NULL);
	host_posix_fail_alloc_at(1);
	assert_null(gpusvm_fence_create());
}

static void test_callbacks_in_order(void **unused)
{
	struct counting c[3] = {0};
	struct gpusvm_fence *fence = gpusvm_fence_create();
	u32 i;

	calls_so_far = 0;
	for (i = 0; i < 3; i++)
		assert_int_equal(gpusvm_fence_add_callback(fence, &c[i].cb, count_call), 0);
	assert_int_equal(c[0].calls, 0);
	gpusvm_fence_signal(fence, -ENODEV);
	for (i = 0; i < 3; i++) {
		assert_int_equal(c[i].calls, 1);
		assert_int_equal(c[i].order, i);
		assert_int_equal(c[i].result, -ENODEV);
	}
	assert_int_equal(gpusvm_fence_add_callback(fence, &c[0].cb, count_call), -ENOENT);
	assert_int_equal(c[0].calls, 1);
	gpusvm_fence_put(fence);
}

/* A callback may free itself and put the fence. */
static void free_and_put(struct gpusvm_fence *fence, struct gpusvm_fence_callback *cb)
{
	host_free(host_container_of(cb, struct counting, cb));
	gpusvm_fence_put(fence);
}

static void test_callback_frees_itself(void **unused)
{
	struct gpusvm_fence *fence = gpusvm_fence_create();
	u32 i;

	for (i = 0; i < 4; i++) {
		struct counting *c = host_alloc_zeroed(sizeof(*c));

		gpusvm_fence_get(fence);
		assert_int_equal(gpusvm_fence_add_callback(fence, &c->cb, free_and_put), 0);
	}
	gpusvm_fence_signal(fence, 0);
	gpusvm_fence_put(fence);
	assert_int_equal(host_posix_alloc_live(), 0);
}

static bool released;
static void mark_released(struct gpusvm_fence *fence)
{
	released = true;
}

static void test_release_is_last(void **unused)
{
	struct gpusvm_fence fence;

	released = false;
	gpusvm_fence_init(&fence, mark_released);
	gpusvm_fence_get(&fence);
	gpusvm_fence_put(&fence);
	assert_false(released);
	gpusvm_fence_put(&fence);
	assert_true(released);
}

/* ---- Races ---- */

/* One turn of a short wait that leaves the processor to the other side. */
static void turn(u32 *turns)
{
	host_relax();
	if (++*turns % 64 == 0)
		host_sleep(HOST_USEC);
}

/* A thread that signals one fence after the other as soon as it is given one, so
 * that it meets the other side where that hurts. */
struct signaller {
	struct host_thread thread;
	struct gpusvm_fence *fence; /* its next; it takes it by writing NULL */
	bool put;
	u32 stop;
};

static void signaller_main(void *arg)
{
	struct signaller *s = arg;
	struct gpusvm_fence *fence;
	u32 turns = 0;

	while (!host_load_acquire(&s->stop)) {
		fence = host_load_acquire(&s->fence);
		if (!fence) {
			turn(&turns);
			continue;
		}
		host_store_release(&s->fence, NULL);
		gpusvm_fence_signal(fence, 0);
		if (s->put)
			gpusvm_fence_put(fence);
	}
}

static void signaller_start(struct signaller *s, bool put)
{
	*s = (struct signaller){.put = put};
	assert_int_equal(host_thread_start(&s->thread, "signaller", signaller_main, s), 0);
}

static void signaller_give(struct signaller *s, struct gpusvm_fence *fence)
{
	u32 turns = 0;

	while (host_load_acquire(&s->fence))
		turn(&turns);
	host_store_release(&s->fence, fence);
}

static void signaller_stop(struct signaller *s)
{
	u32 turns = 0;

	while (host_load_acquire(&s->fence))
		turn(&turns);
	host_store_release(&s->stop, 1);
	host_thread_join(&s->thread);
}

/* Waits like gpusvm_fence_wait, half of the time after a look without sleeping. */
static void wait_either_way(struct gpusvm_fence *fence, u32 round)
{
	u32 turns = 0;

	if (round % 2)
		while (!gpusvm_fence_signalled(fence))
			turn(&turns);
	assert_int_equal(gpusvm_fence_wait(fence, HOST_FOREVER, NULL), 0);
}

/* The waiter's put and the signaller's may each be the last. */
static void test_race_put(void **unused)
{
	struct signaller s;
	u32 i;

	signaller_start(&s, true);
	for (i = 0; i < ROUNDS; i++) {
		struct gpusvm_fence *fence = gpusvm_fence_create();

		signaller_give(&s, gpusvm_fence_get(fence));
		wait_either_way(fence, i);
		gpusvm_fence_put(fence);
	}
	signaller_stop(&s);
	assert_int_equal(host_posix_alloc_live(), 0);
}

/* Memory without release may be used anew as soon as wait has returned; where
 * the signaller holds a reference, as soon as fini has. */
static void race_stack(bool with_reference)
{
	struct signaller s;
	u32 i;

	signaller_start(&s, with_reference);
	for (i = 0; i < ROUNDS; i++) {
		struct gpusvm_fence *fence = host_alloc(sizeof(*fence));

		gpusvm_fence_init(fence, NULL);
		if (with_reference)
			gpusvm_fence_get(fence);
		signaller_give(&s, fence);
		wait_either_way(fence, i);
		if (with_reference)
			gpusvm_fence_fini(fence);
		memset(fence, 0xff, sizeof(*fence));
		host_free(fence);
	}
	signaller_stop(&s);
}

static void test_race_stack_wait(void **unused)
{
	race_stack(false);
}

static void test_race_stack_fini(void **unused)
{
	race_stack(true);
}

/* A callback is called once or refused, however it meets the signal. */
static void test_race_add_callback(void **unused)
{
	struct signaller s;
	u32 i, refused = 0;

	signaller_start(&s, true);
	for (i = 0; i < ROUNDS; i++) {
		struct gpusvm_fence *fence = gpusvm_fence_create();
		struct counting c = {.calls = 0};
		u32 spin, turns = 0;
		int err;

		signaller_give(&s, gpusvm_fence_get(fence));
		for (spin = 0; spin < i % 64; spin++)
			host_relax();
		err = gpusvm_fence_add_callback(fence, &c.cb, count_call);
		/* Its reference goes after the callbacks. */
		while (host_load_acquire(&fence->ref.count) > 1)
			turn(&turns);
		assert_int_equal(host_load_acquire(&c.calls), err ? 0 : 1);
		refused += err == -ENOENT;
		gpusvm_fence_put(fence);
	}
	signaller_stop(&s);
	print_message("%u of %u callbacks came too late\n", refused, ROUNDS);
	assert_int_equal(host_posix_alloc_live(), 0);
}

struct crowd {
	struct gpusvm_fence *fence;
	struct host_thread threads[4];
	u32 woken; /* with the right result */
};

static void crowd_wait(void *arg)
{
	struct crowd *crowd = arg;
	int result = 1;

	if (gpusvm_fence_wait(crowd->fence, HOST_FOREVER, &result) == 0 && result == -EIO)
		host_add_return(&crowd->woken, 1);
	gpusvm_fence_put(crowd->fence);
}

static void test_many_waiters(void **unused)
{
	u32 i, round;

	for (round = 0; round < ROUNDS / 20; round++) {
		struct crowd crowd = {.fence = gpusvm_fence_create()};

		for (i = 0; i < host_array_size(crowd.threads); i++) {
			gpusvm_fence_get(crowd.fence);
			assert_int_equal(
			    host_thread_start(&crowd.threads[i], "crowd", crowd_wait, &crowd), 0);
		}
		gpusvm_fence_signal(crowd.fence, -EIO);
		gpusvm_fence_put(crowd.fence);
		for (i = 0; i < host_array_size(crowd.threads); i++)
			host_thread_join(&crowd.threads[i]);
		assert_int_equal(crowd.woken, host_array_size(crowd.threads));
	}
	assert_int_equal(host_posix_alloc_live(), 0);
}

/* ---- Retry ---- */

static void test_retry_by_count(void **unused)
{
	struct gpusvm_retry retry;
	u32 n = 0;

	gpusvm_retry_init(&retry, 0, 6);
	while (gpusvm_retry_again(&retry))
		n++;
	assert_int_equal(n, 6);
	assert_int_equal(retry.tries, 6);
	assert_false(gpusvm_retry_again(&retry));
}

static void test_retry_by_time(void **unused)
{
	struct gpusvm_retry retry;
	u64 begin = host_now();
	u32 n = 0;

	gpusvm_retry_init(&retry, 5 * HOST_MSEC, 0);
	while (gpusvm_retry_again(&retry))
		n++;
	assert_true(host_now() - begin >= 5 * HOST_MSEC);
	/* Pauses grow: a loop that spins would come to thousands. */
	assert_true(n > GPUSVM_RETRY_SPINS && n < 40);
}

static void test_retry_for_ever_is_a_time(void **unused)
{
	struct gpusvm_retry retry;

	gpusvm_retry_init(&retry, HOST_FOREVER, 2);
	assert_true(gpusvm_retry_again(&retry));
	assert_true(gpusvm_retry_again(&retry));
	assert_false(gpusvm_retry_again(&retry));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_signal_once),
	    cmocka_unit_test(test_null),
	    cmocka_unit_test(test_callbacks_in_order),
	    cmocka_unit_test(test_callback_frees_itself),
	    cmocka_unit_test(test_release_is_last),
	    cmocka_unit_test(test_race_put),
	    cmocka_unit_test(test_race_stack_wait),
	    cmocka_unit_test(test_race_stack_fini),
	    cmocka_unit_test(test_race_add_callback),
	    cmocka_unit_test(test_many_waiters),
	    cmocka_unit_test(test_retry_by_count),
	    cmocka_unit_test(test_retry_by_time),
	    cmocka_unit_test(test_retry_for_ever_is_a_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
