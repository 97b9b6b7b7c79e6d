/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_child.c: <gpusvm/gpusvm.h> in a forked child: the parent's handles, queues and events
 * answer -ENODEV, its memory is whole, and it can open its own. */
#include "tests/live/api.h"

static void nothing(struct gpusvm_lane *lane, uint64_t item, const void *args)
{
	(void)lane;
	(void)item;
	(void)args;
}

static void wait_for_flag(struct gpusvm_lane *lane, uint64_t item, const void *args)
{
	uint32_t *const *flag = args;

	(void)item;
	while (!gpusvm_ld32(lane, *flag))
		;
}

static const struct gpusvm_kernel kernel = {sizeof(kernel), "nothing", nothing};

/* The line of the first call that does not say so; 0: there is none. */
#define DEAD(call)                                                                                 \
	do {                                                                                       \
		if ((call) != -ENODEV)                                                             \
			return __LINE__;                                                           \
	} while (0)

static int handle_is_dead(unsigned char *p)
{
	const struct gpusvm_device_desc desc = {.size = sizeof(desc)};
	const struct gpusvm_link link = {.size = sizeof(link)};
	struct gpusvm_device_info info = {.size = sizeof(info)};
	struct gpusvm_stats stats = {.size = sizeof(stats)};
	struct gpusvm_location where = gpusvm_system();
	struct gpusvm_event_record record;
	struct gpusvm_page_info page;
	struct gpusvm_queue *other;
	uint64_t caps;
	int64_t value;

	DEAD(gpusvm_caps(svm, &caps));
	DEAD(gpusvm_device_count(svm));
	DEAD(gpusvm_device_info(svm, 0, &info));
	DEAD(gpusvm_device_unbind(svm, 0));
	DEAD(gpusvm_device_bind(svm, &desc));
	DEAD(gpusvm_link_set(svm, 0, 1, &link));
	DEAD(gpusvm_pagemap_fd(svm, 0, 0));
	if (gpusvm_alloc(svm, PAGE))
		return __LINE__;
	DEAD(gpusvm_prefetch(svm, p, 1, where, 0, NULL, NULL));
	DEAD(gpusvm_evict(svm, -1));
	DEAD(gpusvm_advise(svm, p, 1, GPUSVM_NO_MIGRATE, 1, where));
	DEAD(gpusvm_advice_get(svm, p, 1, GPUSVM_NO_MIGRATE, &value, &where));
	DEAD(gpusvm_discard(svm, p, PAGE));
	DEAD(gpusvm_residency(svm, p, 1, &page, 1, sizeof(page)));
	DEAD(gpusvm_stats(svm, -1, &stats));
	DEAD(gpusvm_events_read(svm, &record, 1, sizeof(record)));
	DEAD(gpusvm_queue_create(svm, 0, NULL, &other));
	return 0;
}

static int queue_is_dead(unsigned char *p)
{
	char byte = 0;

	DEAD(gpusvm_launch(queue, &kernel, NULL, 0, 1, NULL));
	DEAD(gpusvm_memcpy(queue, p, p + PAGE, 1, NULL));
	DEAD(gpusvm_memset(queue, p, 1, 1, NULL));
	DEAD(gpusvm_queue_prefetch(queue, p, 1, gpusvm_system(), 0, NULL));
	DEAD(gpusvm_read(queue, &byte, p, 1));
	DEAD(gpusvm_write(queue, p, &byte, 1));
	DEAD(gpusvm_bind(queue, p, 1, 0));
	DEAD(gpusvm_unbind(queue, p, 1));
	DEAD(gpusvm_make_exclusive(queue, p, 1));
	return 0;
}

static int event_is_dead(struct gpusvm_event *event)
{
	struct gpusvm_fault fault = {.size = sizeof(fault)};

	DEAD(gpusvm_queue_wait(queue, event));
	DEAD(gpusvm_event_wait(event, 0));
	DEAD(gpusvm_event_wait(event, -1));
	DEAD(gpusvm_event_fault(event, &fault));
	return 0;
}

/* One of its own, and work on memory that was on the parent's device. */
static int opens_its_own(unsigned char *p, struct gpusvm_event *event)
{
	struct gpusvm_queue *own_queue;
	struct gpusvm *own;
	int status;
	pid_t pid;

	if (gpusvm_open(NULL, &own) || own == svm || gpusvm_queue_create(own, 0, NULL, &own_queue))
		return __LINE__;
	DEAD(gpusvm_queue_wait(own_queue, event));
	if (gpusvm_memset(own_queue, p, 3, 4 * PAGE, NULL) || p[PAGE] != 3)
		return __LINE__;
	pid = fork();
	if (!pid) {
		uint64_t caps;
		bool dead =
		    gpusvm_caps(own, &caps) == -ENODEV && gpusvm_caps(svm, &caps) == -ENODEV;

		gpusvm_close(own);
		gpusvm_close(svm);
		_exit(!dead || p[PAGE] != 3 || gpusvm_open(NULL, &own));
	}
	if (waitpid(pid, &status, 0) != pid || status)
		return __LINE__;
	/* The parent's first, then its own. */
	gpusvm_event_put(event);
	gpusvm_queue_destroy(queue);
	gpusvm_close(svm);
	gpusvm_queue_destroy(own_queue);
	gpusvm_close(own);
	return p[0] == 3 ? 0 : __LINE__;
}

static int child(unsigned char *p, unsigned char *of_alloc, struct gpusvm_event *event)
{
	int line = handle_is_dead(p);

	line = line ? line : queue_is_dead(p);
	line = line ? line : event_is_dead(event);
	gpusvm_free(svm, of_alloc); /* does nothing here */
	for (size_t i = 0; !line && i < 4 * PAGE; i++)
		if (p[i] != 1 || of_alloc[i] != 2)
			line = __LINE__;
	return line ? line : opens_its_own(p, event);
}

static void test_everything_is_dead(void **state)
{
	const struct gpusvm_kernel wait_kernel = {sizeof(wait_kernel), "wait", wait_for_flag};
	unsigned char *p = map_pages(4, PROT_READ | PROT_WRITE), *of_alloc;
	uint32_t *flag = (void *)map_pages(1, PROT_READ | PROT_WRITE);
	struct gpusvm_event *event;
	int status, result, ends[2], line = -1;
	pid_t pid;

	(void)state;
	of_alloc = gpusvm_alloc(svm, 4 * PAGE);
	assert_non_null(of_alloc);
	memset(p, 1, 4 * PAGE);
	memset(of_alloc, 2, 4 * PAGE);
	for (int i = 0; i < 2; i++)
		assert_int_equal(gpusvm_prefetch(svm, i ? of_alloc : p, 4 * PAGE, gpusvm_device(0),
						 GPUSVM_STRICT, NULL, NULL),
				 0);
	assert_int_equal(gpusvm_launch(queue, &wait_kernel, &flag, sizeof(flag), 1, &event), 0);
	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (!pid) {
		line = child(p, of_alloc, event);
		_exit(write(ends[1], &line, sizeof(line)) != sizeof(line));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	/* And the parent's work goes on. */
	result = gpusvm_event_wait(event, 0);
	*(volatile uint32_t *)flag = 1;
	assert_int_equal(status, 0);
	assert_int_equal(read(ends[0], &line, sizeof(line)), sizeof(line));
	assert_int_equal(line, 0);
	assert_int_equal(result, -ETIME);
	assert_int_equal(gpusvm_event_wait(event, -1), 0);
	gpusvm_event_put(event);
	assert_int_equal(p[0], 1);
	assert_int_equal(of_alloc[0], 2);
	close(ends[0]);
	close(ends[1]);
	gpusvm_free(svm, of_alloc);
	munmap(p, 4 * PAGE);
	munmap(flag, PAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_everything_is_dead, setup, teardown),
	};

	return cmocka_run_group_tests_name("child", tests, NULL, NULL);
}
