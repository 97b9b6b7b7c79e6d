/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Queues on a live process: kernels and their memory access, copies, reads and
 * writes, order, failures, bind, and forked children.
 */
#include "tests/live/api.h"

static int launch(void (*fn)(struct gpusvm_lane *, uint64_t, const void *), const void *args,
		  size_t size, uint64_t items, struct gpusvm_event **ret)
{
	const struct gpusvm_kernel kernel = {sizeof(kernel), "test", fn};

	return gpusvm_launch(queue, &kernel, args, size, items, ret);
}

/* ---- Kernels: any memory of the process ---- */

struct sum_args {
	const uint32_t *in;
	uint32_t *out;
	uint32_t add;
};

static void add_kernel(struct gpusvm_lane *lane, uint64_t i, const void *p)
{
	const struct sum_args *a = p;

	gpusvm_st32(lane, &a->out[i], gpusvm_ld32(lane, &a->in[i]) + a->add);
}

static uint32_t static_in[3000] = {1}, static_out[3000];

static void run_add(const uint32_t *in, uint32_t *out, size_t n)
{
	struct sum_args args = {in, out, 7};

	assert_int_equal(launch(add_kernel, &args, sizeof(args), n, NULL), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(out[i], in[i] + 7);
}

static void test_any_memory(void **state)
{
	uint32_t stack_in[3000], stack_out[3000];
	uint32_t *heap_in = malloc(12000), *heap_out = malloc(12000);
	uint32_t *map_in = (void *)map_pages(3, PROT_READ | PROT_WRITE);
	uint32_t *map_out = (void *)map_pages(3, PROT_READ | PROT_WRITE);

	for (uint32_t i = 0; i < 3000; i++)
		static_in[i] = stack_in[i] = heap_in[i] = map_in[i] = i * i;
	run_add(static_in, static_out, 3000);
	run_add(stack_in, stack_out, 3000);
	run_add(heap_in, heap_out, 3000);
	run_add(map_in, map_out, 3000);
	free(heap_in);
	free(heap_out);
	munmap(map_in, 3 * PAGE);
	munmap(map_out, 3 * PAGE);
}

/* A list of malloc'd nodes: pointers mean the same on the device. */
struct node {
	struct node *next;
	uint64_t value;
};

static void walk_kernel(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	struct node *const *args = p;
	const struct node *n = args[0];
	uint64_t sum = 0;

	while (n) {
		sum += gpusvm_ld64(lane, &n->value);
		n = (const void *)(uintptr_t)gpusvm_ld64(lane, &n->next);
	}
	gpusvm_st64(lane, args[1], sum);
}

static void test_pointers(void **state)
{
	struct node *first = NULL, *n;
	uint64_t sum = 0;
	void *args[2];

	for (uint64_t i = 0; i < 20000; i++) {
		n = malloc(sizeof(*n) + i % 50);
		*n = (struct node){first, i};
		first = n;
	}
	args[0] = first;
	args[1] = &sum;
	assert_int_equal(launch(walk_kernel, args, sizeof(args), 1, NULL), 0);
	assert_int_equal(sum, 20000ull * 19999 / 2);
	for (; first; first = n) {
		n = first->next;
		free(first);
	}
}

/* ---- Loads and stores of each width, over a page's edge too ---- */

static void unaligned_kernel(struct gpusvm_lane *lane, uint64_t i, const void *p)
{
	unsigned char *const *args = p;

	gpusvm_st32(lane, args[1] + 4 * i, gpusvm_ld32(lane, args[0] + 4 * i));
	gpusvm_st64(lane, args[3] + 8 * i, gpusvm_ld64(lane, args[2] + 8 * i));
}

static void test_unaligned(void **state)
{
	unsigned char *p = map_filled(6, 3), *q = map_pages(6, PROT_READ | PROT_WRITE);
	unsigned char *args[4] = {p + 1, q + 3, p + 3 * PAGE + 5, q + 3 * PAGE + 2};

	assert_int_equal(launch(unaligned_kernel, args, sizeof(args), 1100, NULL), 0);
	assert_memory_equal(p + 1, q + 3, 4400);
	assert_memory_equal(p + 3 * PAGE + 5, q + 3 * PAGE + 2, 8800);
	munmap(p, 6 * PAGE);
	munmap(q, 6 * PAGE);
}

/* ---- Atomics ---- */

struct words {
	uint32_t add32, or32, cas32, last32;
	uint64_t add64, or64, cas64, last64;
	uint32_t seen[2048];
};

static void atomic_kernel(struct gpusvm_lane *lane, uint64_t i, const void *p)
{
	struct words *w = *(struct words *const *)p;
	uint32_t old = gpusvm_atomic_add32(lane, &w->add32, 1), now;
	uint64_t v;

	gpusvm_atomic_add32(lane, &w->seen[old], 1); /* each old value once */
	gpusvm_atomic_add64(lane, &w->add64, 1ull << 32);
	gpusvm_atomic_or32(lane, &w->or32, 1u << i % 32);
	gpusvm_atomic_or64(lane, &w->or64, 1ull << i % 64);
	do
		now = gpusvm_ld32(lane, &w->cas32);
	while (gpusvm_atomic_cas32(lane, &w->cas32, now, now + 3) != now);
	do
		v = gpusvm_ld64(lane, &w->cas64);
	while (gpusvm_atomic_cas64(lane, &w->cas64, v, v + 5) != v);
	gpusvm_atomic_exchange32(lane, &w->last32, (uint32_t)i + 1);
	gpusvm_atomic_exchange64(lane, &w->last64, i + 1);
}

static void test_atomics(void **state)
{
	struct words *w = calloc(1, sizeof(*w));

	assert_int_equal(launch(atomic_kernel, &w, sizeof(w), 2048, NULL), 0);
	assert_int_equal(w->add32, 2048);
	assert_int_equal(w->add64, 2048ull << 32);
	assert_int_equal(w->or32, ~0u);
	assert_int_equal(w->or64, ~0ull);
	assert_int_equal(w->cas32, 3 * 2048);
	assert_int_equal(w->cas64, 5 * 2048);
	assert_in_range(w->last32, 1, 2048);
	assert_in_range(w->last64, 1, 2048);
	for (int i = 0; i < 2048; i++)
		assert_int_equal(w->seen[i], 1);
	free(w);
}

static void returns_kernel(struct gpusvm_lane *lane, uint64_t i, const void *p)
{
	uint64_t *w = *(uint64_t *const *)p;

	w = (void *)((char *)w + 64 * i);
	gpusvm_st64(lane, &w[1], gpusvm_atomic_exchange64(lane, &w[0], 10));
	gpusvm_st64(lane, &w[2], gpusvm_atomic_add64(lane, &w[0], 5));
	gpusvm_st64(lane, &w[3], gpusvm_atomic_or64(lane, &w[0], 16));
	gpusvm_st64(lane, &w[4], gpusvm_atomic_cas64(lane, &w[0], 1, 99)); /* not expected */
	gpusvm_st64(lane, &w[5], gpusvm_atomic_cas64(lane, &w[0], 31, 7));
}

static void test_atomics_return_the_old(void **state)
{
	uint64_t w[8] __attribute__((aligned(64))) = {3}, *p = w;

	assert_int_equal(launch(returns_kernel, &p, sizeof(p), 1, NULL), 0);
	assert_int_equal(w[0], 7);
	assert_int_equal(w[1], 3);
	assert_int_equal(w[2], 10);
	assert_int_equal(w[3], 15);
	assert_int_equal(w[4], 31);
	assert_int_equal(w[5], 31);
}

static void bad_atomic_kernel(struct gpusvm_lane *lane, uint64_t i, const void *p)
{
	gpusvm_atomic_add32(lane, (char *)*(uint32_t *const *)p + 2, 1);
}

static void expect_fault(struct gpusvm_event *event, int error, const void *address,
			 uint32_t access)
{
	struct gpusvm_fault fault = {.size = sizeof(fault)};

	assert_int_equal(gpusvm_event_wait(event, -1), error);
	assert_int_equal(gpusvm_event_fault(event, &fault), 0);
	assert_ptr_equal((void *)(uintptr_t)fault.address, address);
	assert_int_equal(fault.access, access);
	assert_int_equal(fault.device, 0);
	assert_int_equal(fault.error, error);
	gpusvm_event_put(event);
}

static void test_unaligned_atomic(void **state)
{
	uint32_t w[2] = {0}, *p = w;
	struct gpusvm_event *event;

	assert_int_equal(launch(bad_atomic_kernel, &p, sizeof(p), 1, &event), 0);
	expect_fault(event, -EFAULT, (char *)w + 2, GPUSVM_ACCESS_ATOMIC);
	assert_int_equal(w[0] + w[1], 0);
}

/* ---- Spans ---- */

static void span_kernel(struct gpusvm_lane *lane, uint64_t i, const void *p)
{
	unsigned char *const *args = p;
	unsigned char *at = args[0];
	size_t left = 5 * PAGE - 11, len;
	uint64_t sum = 0;
	const void *src;
	void *dst;

	while (left) {
		len = left;
		src = gpusvm_span(lane, at, &len, false);
		for (size_t k = 0; k < len; k++)
			sum += ((const unsigned char *)src)[k];
		at += len;
		left -= len;
	}
	gpusvm_st64(lane, args[2], sum);
	for (size_t done = 0; done < 5 * PAGE - 11; done += len) {
		len = 5 * PAGE - 11 - done;
		if (gpusvm_span2(lane, args[1] + done, args[0] + done, &len, &dst, &src))
			break;
		memcpy(dst, src, len);
	}
	len = 0;
	if (!gpusvm_span(lane, args[0], &len, true) && len == 0)
		gpusvm_st64(lane, args[2] + 8, 1);
}

static void test_spans(void **state)
{
	unsigned char *p = map_filled(5, 1), *q = map_pages(6, PROT_READ | PROT_WRITE);
	uint64_t sums[2] = {0}, sum = 0;
	unsigned char *args[3] = {p + 5, q + 77, (void *)sums};

	for (size_t i = 0; i < 5 * PAGE - 11; i++)
		sum += p[5 + i];
	assert_int_equal(launch(span_kernel, args, sizeof(args), 1, NULL), 0);
	assert_int_equal(sums[0], sum);
	assert_int_equal(sums[1], 1);
	assert_memory_equal(q + 77, p + 5, 5 * PAGE - 11);
	munmap(p, 5 * PAGE);
	munmap(q, 6 * PAGE);
}

/* ---- Copies ---- */

static void test_memcpy_memset(void **state)
{
	unsigned char *p = map_filled(1000, 9), *q = map_pages(1001, PROT_READ | PROT_WRITE);
	struct gpusvm_event *event;

	assert_int_equal(gpusvm_memcpy(queue, q + 123, p, 1000 * PAGE, NULL), 0);
	assert_memory_equal(q + 123, p, 1000 * PAGE);
	to_device(p, 300);
	assert_int_equal(gpusvm_memset(queue, p + 1, 0x1ff, 299 * PAGE, &event), 0);
	assert_int_equal(gpusvm_event_wait(event, -1), 0);
	gpusvm_event_put(event);
	assert_int_equal(p[0], 9);
	for (size_t i = 1; i <= 299 * PAGE; i++)
		assert_int_equal(p[i], 0xff);
	assert_memory_equal(p + 299 * PAGE + 1, q + 123 + 299 * PAGE + 1, 701 * PAGE - 1);
	assert_int_equal(gpusvm_memcpy(queue, NULL, NULL, 0, NULL), 0);
	assert_int_equal(gpusvm_memset(queue, NULL, 0, 0, &event), 0);
	assert_int_equal(gpusvm_event_wait(event, -1), 0);
	gpusvm_event_put(event);
	munmap(p, 1000 * PAGE);
	munmap(q, 1001 * PAGE);
}

static void test_read_write(void **state)
{
	size_t n = 700;
	unsigned char *p = map_filled(n, 2), *q = malloc(n * PAGE);

	to_device(p, n);
	assert_int_equal(gpusvm_read(queue, q, p, n * PAGE), 0);
	check_filled(q, n, 2);
	assert_int_equal(count_in(p, n, GPUSVM_LOCATION_DEVICE), n); /* they did not move */
	memset(q, 5, n * PAGE);
	assert_int_equal(gpusvm_write(queue, p + 3, q, n * PAGE - 5), 0);
	assert_int_equal(p[2], 2 + 14);
	assert_int_equal(p[3], 5);
	assert_int_equal(p[n * PAGE - 3], 5);
	assert_int_equal(p[n * PAGE - 1], (unsigned char)((n * PAGE - 1) * 7 + n - 1 + 2));
	/* A buffer that is itself on the device. */
	to_device(p, n);
	assert_int_equal(gpusvm_read(queue, p, p + 10 * PAGE, 5 * PAGE), 0);
	assert_memory_equal(p, q, 5 * PAGE);
	munmap(p, n * PAGE);
	free(q);
}

static void test_read_write_errors(void **state)
{
	unsigned char *p = map_filled(4, 1), b[64];

	munmap(p + PAGE, PAGE);
	mprotect(p + 2 * PAGE, PAGE, PROT_READ);
	mprotect(p + 3 * PAGE, PAGE, PROT_NONE);
	assert_int_equal(gpusvm_read(queue, b, p + PAGE, 8), -EFAULT);
	assert_int_equal(gpusvm_read(queue, b, p + PAGE - 8, 16), -EFAULT);
	assert_int_equal(gpusvm_write(queue, p + PAGE, b, 8), -EFAULT);
	assert_int_equal(gpusvm_write(queue, p + 2 * PAGE, b, 8), -EPERM);
	assert_int_equal(gpusvm_read(queue, b, p + 2 * PAGE, 8), 0);
	assert_int_equal(gpusvm_read(queue, b, p + 3 * PAGE, 8), -EFAULT);
	assert_int_equal(gpusvm_write(queue, p + 3 * PAGE, b, 8), -EFAULT);
	assert_int_equal(gpusvm_read(queue, b, NULL, 8), -EFAULT);
	assert_int_equal(gpusvm_read(queue, b, (void *)(uintptr_t)0xffff800000000000, 8), -EFAULT);
	assert_int_equal(gpusvm_read(queue, NULL, p, 8), -EINVAL);
	assert_int_equal(gpusvm_read(queue, NULL, NULL, 0), 0);
	assert_int_equal(gpusvm_read(NULL, b, p, 8), -EINVAL);
	/* The queue is as usable as before. */
	assert_int_equal(gpusvm_memset(queue, p, 1, PAGE, NULL), 0);
	munmap(p, 4 * PAGE);
}

/* ---- Fatal faults ---- */

static void touch_kernel(struct gpusvm_lane *lane, uint64_t i, const void *p)
{
	gpusvm_st32(lane, *(char *const *)p + i * PAGE + 12, 1);
}

static void test_fatal(void **state)
{
	struct gpusvm_fault fault = {.size = sizeof(fault)};
	unsigned char *p = map_filled(3, 1);
	struct gpusvm_event *good, *bad, *later;
	struct gpusvm_queue *other;
	char b[8];

	munmap(p + 2 * PAGE, PAGE);
	assert_int_equal(gpusvm_queue_create(svm, 0, NULL, &other), 0);
	assert_int_equal(launch(touch_kernel, &p, sizeof(p), 2, &good), 0);
	assert_int_equal(launch(touch_kernel, &p, sizeof(p), 3, &bad), 0);
	assert_int_equal(launch(touch_kernel, &p, sizeof(p), 1, &later), 0);
	assert_int_equal(gpusvm_event_wait(good, -1), 0);
	assert_int_equal(gpusvm_event_fault(good, &fault), -ENOENT);
	expect_fault(bad, -EFAULT, p + 2 * PAGE + 12, GPUSVM_ACCESS_WRITE);
	assert_int_equal(gpusvm_event_wait(later, -1), -EIO);
	assert_int_equal(gpusvm_event_fault(later, &fault), -ENOENT);
	assert_int_equal(gpusvm_read(queue, b, p, 8), -EIO);
	assert_int_equal(gpusvm_bind(queue, p, 8, 0), -EIO);
	assert_int_equal(gpusvm_queue_prefetch(queue, p, 1, gpusvm_system(), 0, NULL), -EIO);
	assert_int_equal(gpusvm_memset(other, p, 1, PAGE, NULL), 0); /* only its own queue */
	gpusvm_event_put(good);
	gpusvm_event_put(later);
	assert_true(stats(0).device_faults_fatal >= 1);
	gpusvm_queue_destroy(queue);
	gpusvm_queue_destroy(other);
	munmap(p, 2 * PAGE);
}

static void test_fatal_read_only(void **state)
{
	unsigned char *p = map_filled(2, 1);
	struct gpusvm_event *event;

	mprotect(p, 2 * PAGE, PROT_READ);
	assert_int_equal(launch(touch_kernel, &p, sizeof(p), 1, &event), 0);
	expect_fault(event, -EPERM, p + 12, GPUSVM_ACCESS_WRITE);
	check_filled(p, 2, 1);
	munmap(p, 2 * PAGE);
}

/* ---- Order ---- */

static void wait_kernel(struct gpusvm_lane *lane, uint64_t i, const void *p)
{
	while (!gpusvm_ld32(lane, *(uint32_t *const *)p))
		;
}

static void test_order_of_queues(void **state)
{
	uint32_t *flag = (void *)map_pages(1, PROT_READ | PROT_WRITE);
	unsigned char *p = map_pages(64, PROT_READ | PROT_WRITE);
	struct gpusvm_event *first, *prefetched, *last;
	struct gpusvm_queue *other;

	assert_int_equal(gpusvm_queue_create(svm, 0, NULL, &other), 0);
	assert_int_equal(launch(wait_kernel, &flag, sizeof(flag), 1, &first), 0);
	assert_int_equal(gpusvm_memset(queue, p, 1, 64 * PAGE, &last), 0);
	assert_int_equal(gpusvm_queue_wait(other, last), 0);
	gpusvm_event_put(last);
	assert_int_equal(gpusvm_queue_prefetch(other, p, 64 * PAGE, gpusvm_device(0), GPUSVM_STRICT,
					       &prefetched),
			 0);
	assert_int_equal(gpusvm_memset(other, p, 2, 32 * PAGE, &last), 0);
	assert_int_equal(gpusvm_event_wait(first, 0), -ETIME);
	assert_int_equal(gpusvm_event_wait(prefetched, 30000000), -ETIME);
	assert_int_equal(gpusvm_event_wait(last, 0), -ETIME);
	assert_int_equal(count_in(p, 64, GPUSVM_LOCATION_DEVICE), 0);
	__atomic_store_n(flag, 1, __ATOMIC_SEQ_CST); /* while the device spins on it */
	assert_int_equal(gpusvm_event_wait(last, -1), 0);
	assert_int_equal(gpusvm_event_wait(first, 0), 0);
	assert_int_equal(gpusvm_event_wait(prefetched, 0), 0);
	assert_int_equal(count_in(p, 64, GPUSVM_LOCATION_DEVICE), 64);
	assert_int_equal(p[31 * PAGE], 2);
	assert_int_equal(p[32 * PAGE], 1);
	gpusvm_event_put(first);
	gpusvm_event_put(prefetched);
	gpusvm_event_put(last);
	gpusvm_queue_destroy(other);
	munmap(flag, PAGE);
	munmap(p, 64 * PAGE);
}

/* A queue waits for a prefetch that belongs to none. */
static void test_wait_for_prefetch(void **state)
{
	unsigned char *p = map_filled(2000, 1);
	struct gpusvm_event *event;
	struct gpusvm_stats s;

	assert_int_equal(gpusvm_prefetch(svm, p, 2000 * PAGE, gpusvm_device(0), 0, NULL, &event),
			 0);
	assert_int_equal(gpusvm_queue_wait(queue, event), 0);
	gpusvm_event_put(event);
	assert_int_equal(gpusvm_memset(queue, p, 7, 2000 * PAGE, NULL), 0);
	s = stats(0);
	assert_int_equal(s.device_faults, 0);
	assert_int_equal(p[2000 * PAGE - 1], 7);
	munmap(p, 2000 * PAGE);
}

static void test_destroy_waits(void **state)
{
	unsigned char *p = map_pages(64, PROT_READ | PROT_WRITE);

	for (int i = 1; i <= 50; i++) {
		struct gpusvm_event *event;

		assert_int_equal(gpusvm_memset(queue, p, i, 64 * PAGE, &event), 0);
		gpusvm_event_put(event);
	}
	gpusvm_queue_destroy(queue);
	assert_int_equal(p[0], 50);
	assert_int_equal(p[64 * PAGE - 1], 50);
	munmap(p, 64 * PAGE);
}

/* ---- Bind, on a device that cannot fault ---- */

static int setup_no_fault(void **state)
{
	return open_one(64 * MB, GPUSVM_DEVICE_NO_FAULT, 0);
}

static void test_bind(void **state)
{
	unsigned char *p = map_filled(20, 4);
	struct gpusvm_event *event;
	unsigned char b[16];

	assert_int_equal(gpusvm_read(queue, b, p, 16), -EFAULT);
	assert_int_equal(gpusvm_bind(queue, p + 5, 10 * PAGE - 5, 0), 0);
	assert_int_equal(gpusvm_read(queue, b, p, 16), 0);
	assert_memory_equal(b, p, 16);
	assert_int_equal(gpusvm_read(queue, b, p + 10 * PAGE, 16), -EFAULT);
	assert_int_equal(gpusvm_bind(queue, p + 10 * PAGE, PAGE, GPUSVM_READ_ONLY), 0);
	assert_int_equal(gpusvm_read(queue, b, p + 10 * PAGE, 16), 0);
	assert_int_equal(gpusvm_write(queue, p + 10 * PAGE, b, 16), -EPERM);
	/* After any invalidation it is there again at the next work. */
	to_device(p, 5);
	assert_int_equal(gpusvm_memset(queue, p, 1, 10 * PAGE, NULL), 0);
	for (size_t i = 0; i < 10; i++)
		assert_int_equal(p[i * PAGE + 1], 1); /* these come home */
	assert_int_equal(gpusvm_memset(queue, p, 2, 10 * PAGE, NULL), 0);
	madvise(p, PAGE, MADV_DONTNEED);
	assert_int_equal(gpusvm_read(queue, b, p, 1), 0);
	assert_int_equal(b[0], 0);
	assert_int_equal(stats(0).device_faults, 0);
	assert_int_equal(gpusvm_unbind(queue, p, 10 * PAGE), 0);
	assert_int_equal(gpusvm_unbind(queue, p, 10 * PAGE), -ENOENT);
	assert_int_equal(gpusvm_memset(queue, p, 3, 1, &event), 0);
	expect_fault(event, -EFAULT, p, GPUSVM_ACCESS_WRITE);
	munmap(p, 20 * PAGE);
}

static void spin_until(struct gpusvm_lane *lane, uint64_t item, const void *args)
{
	uint32_t *const *p = args;

	while (!gpusvm_ld32(lane, *p))
		;
}

/* What becomes of pages beside, which are not bound, is no concern of the work. */
static void test_bind_beside_what_goes(void **state)
{
	const struct gpusvm_kernel kernel = {sizeof(kernel), "spin", spin_until};
	unsigned char *all = map_pages(1024, PROT_READ | PROT_WRITE), *p;
	struct gpusvm_event *event;

	p = (unsigned char *)(((uintptr_t)all + 2 * MB - 1) & ~(uintptr_t)(2 * MB - 1));
	memset(p, 0, 512 * PAGE);
	assert_int_equal(gpusvm_bind(queue, p, PAGE, 0), 0);
	assert_int_equal(gpusvm_launch(queue, &kernel, &p, sizeof(p), 1, &event), 0);
	assert_int_equal(gpusvm_event_wait(event, 50000000), -ETIME);
	assert_int_equal(mprotect(p + 256 * PAGE, PAGE, PROT_NONE), 0);
	assert_int_equal(madvise(p + 300 * PAGE, PAGE, MADV_DONTNEED), 0); /* is heard of */
	assert_int_equal(gpusvm_event_wait(event, 100000000), -ETIME);
	p[0] = 1;
	assert_int_equal(gpusvm_event_wait(event, -1), 0);
	gpusvm_event_put(event);
	munmap(all, 1024 * PAGE);
}

/* What was bound for writing, and is bound for reading now, is not written any more. */
static void test_bind_read_only_after(void **state)
{
	unsigned char *p = map_pages(4, PROT_READ | PROT_WRITE);

	assert_int_equal(gpusvm_bind(queue, p, 4 * PAGE, 0), 0);
	assert_int_equal(gpusvm_memset(queue, p, 1, 4 * PAGE, NULL), 0);
	assert_int_equal(gpusvm_bind(queue, p, PAGE, GPUSVM_READ_ONLY), 0);
	assert_int_equal(gpusvm_memset(queue, p + PAGE, 2, 3 * PAGE, NULL), 0);
	assert_int_equal(gpusvm_memset(queue, p, 3, 8, NULL), -EPERM);
	assert_int_equal(p[0], 1);
	munmap(p, 4 * PAGE);
}

static void test_bind_errors(void **state)
{
	unsigned char *p = map_filled(4, 4), b[4];

	munmap(p + PAGE, PAGE);
	mprotect(p + 2 * PAGE, PAGE, PROT_READ);
	assert_int_equal(gpusvm_bind(queue, p, 4 * PAGE, 0), -EFAULT);
	assert_int_equal(gpusvm_bind(queue, p + 2 * PAGE, 2 * PAGE, 0), -EPERM);
	assert_int_equal(gpusvm_bind(queue, p + 2 * PAGE, 2 * PAGE, GPUSVM_READ_ONLY), 0);
	assert_int_equal(gpusvm_read(queue, b, p + 2 * PAGE, 4), 0);
	assert_int_equal(gpusvm_bind(queue, p, PAGE, 2), -EINVAL);
	assert_int_equal(gpusvm_bind(queue, p, 0, 0), 0);
	assert_int_equal(gpusvm_unbind(queue, p, PAGE), -ENOENT);
	munmap(p, 4 * PAGE);
}

/* ---- A forked child ---- */

static int in_child(unsigned char *p)
{
	struct gpusvm_moved m = {.size = sizeof(m)};
	struct gpusvm *again;
	struct gpusvm_queue *q;

	for (size_t i = 0; i < 600 * PAGE; i++)
		if (p[i] != (unsigned char)(i * 7 + (i >> 12) + 6))
			return 1;
	if (gpusvm_device_count(svm) != -ENODEV || gpusvm_memset(queue, p, 1, 1, NULL) != -ENODEV ||
	    gpusvm_prefetch(svm, p, 1, gpusvm_system(), 0, &m, NULL) != -ENODEV)
		return 2;
	if (gpusvm_open(NULL, &again) || again == svm)
		return 3;
	if (gpusvm_prefetch(again, p, 600 * PAGE, gpusvm_device(0), GPUSVM_STRICT, &m, NULL) ||
	    m.moved != 600)
		return 4;
	if (gpusvm_queue_create(again, 0, NULL, &q) || gpusvm_memset(q, p, 8, PAGE, NULL))
		return 5;
	gpusvm_queue_destroy(queue); /* the parent's */
	gpusvm_close(svm);
	if (p[0] != 8 || p[599 * PAGE] != (unsigned char)(599 * PAGE * 7 + 599 + 6))
		return 6;
	gpusvm_close(again);
	return p[1] == 8 ? 0 : 7;
}

static void test_fork(void **state)
{
	unsigned char *p = map_filled(600, 6);
	int status;
	pid_t pid;

	to_device(p, 512);
	pid = fork();
	if (pid == 0)
		_exit(in_child(p));
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(gpusvm_memset(queue, p, 9, 1, NULL), 0);
	assert_int_equal(p[0], 9);
	p[0] = 6;
	check_filled(p, 600, 6);
	munmap(p, 600 * PAGE);
}

/* The device writes all the while: each word that a child sees is whole. */
static void count_kernel(struct gpusvm_lane *lane, uint64_t i, const void *p)
{
	uint32_t *const *args = p;

	while (!gpusvm_ld32(lane, args[1])) {
		uint32_t v = gpusvm_ld32(lane, args[0]) + 1;

		gpusvm_st32(lane, args[0], v);
		gpusvm_st32(lane, args[0] + 1, v);
	}
}

static void test_fork_under_work(void **state)
{
	uint32_t *w = (void *)map_pages(1, PROT_READ | PROT_WRITE);
	uint32_t *stop = (void *)map_pages(1, PROT_READ | PROT_WRITE);
	uint32_t *args[2] = {w, stop};
	struct gpusvm_event *event;
	int status;
	pid_t pid;

	to_device(w, 1);
	assert_int_equal(launch(count_kernel, args, sizeof(args), 1, &event), 0);
	for (int i = 0; i < 20; i++) {
		pid = fork();
		if (pid == 0)
			_exit(w[0] - w[1] > 1);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	__atomic_store_n(stop, 1, __ATOMIC_SEQ_CST);
	assert_int_equal(gpusvm_event_wait(event, -1), 0);
	gpusvm_event_put(event);
	assert_int_equal(w[0], w[1]);
	munmap(w, PAGE);
	munmap(stop, PAGE);
}

/* ---- Threads: the application's stacks are memory as any other ---- */

static void *stack_thread(void *arg)
{
	volatile uint32_t words[2000];
	struct gpusvm_moved m;

	for (uint32_t round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < 2000; i++)
			words[i] = i + round;
		m = (struct gpusvm_moved){.size = sizeof(m)};
		/* All of this frame, while it is in use. */
		if (gpusvm_prefetch(svm, (void *)(uintptr_t)words, sizeof(words), gpusvm_device(0),
				    0, &m, NULL))
			return "prefetch";
		for (uint32_t i = 0; i < 2000; i++)
			if (words[i] != i + round)
				return "words";
	}
	return NULL;
}

static bool span_held, span_release; /* atomics */

static void hold_span(struct gpusvm_lane *lane, uint64_t item, const void *args)
{
	uint32_t *const *p = args;
	size_t n = PAGE;
	volatile uint32_t *span = gpusvm_span(lane, *p, &n, true);

	__atomic_store_n(&span_held, true, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&span_release, __ATOMIC_SEQ_CST))
		(*span)++;
}

static void *unbind_thread(void *unused)
{
	return gpusvm_device_unbind(svm, 0) ? "unbind" : NULL;
}

static void *fork_thread(void *done)
{
	pid_t pid = fork();
	int status = 1;

	if (!pid)
		_exit(0);
	__atomic_store_n((bool *)done, true, __ATOMIC_SEQ_CST);
	return waitpid(pid, &status, 0) != pid || status ? "fork" : NULL;
}

/* A fork waits for what is being written, also by a device that is on its way out. */
static void test_fork_while_unbinding(void **state)
{
	const struct gpusvm_kernel kernel = {sizeof(kernel), "hold", hold_span};
	unsigned char *p = map_filled(1, 0);
	struct gpusvm_event *event;
	bool done = false, early;
	pthread_t threads[2];
	void *err;

	assert_int_equal(gpusvm_launch(queue, &kernel, &p, sizeof(p), 1, &event), 0);
	while (!__atomic_load_n(&span_held, __ATOMIC_SEQ_CST))
		usleep(1000);
	assert_int_equal(pthread_create(&threads[0], NULL, unbind_thread, NULL), 0);
	while (gpusvm_device_info(svm, 0, &(struct gpusvm_device_info){
					.size = sizeof(struct gpusvm_device_info)}) != -ENODEV)
		usleep(1000);
	usleep(20000);
	assert_int_equal(pthread_create(&threads[1], NULL, fork_thread, &done), 0);
	usleep(100000);
	early = __atomic_load_n(&done, __ATOMIC_SEQ_CST);
	__atomic_store_n(&span_release, true, __ATOMIC_SEQ_CST);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], &err);
		assert_null(err);
	}
	assert_false(early);
	gpusvm_event_put(event);
	munmap(p, PAGE);
}

static void test_stacks_move(void **state)
{
	pthread_t threads[4];
	void *result;

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, stack_thread, NULL), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_null(result);
	}
	assert_null(stack_thread(NULL)); /* the first thread's too */
}

int main(int argc, char **argv)
{
#define WITH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    WITH(test_any_memory),
	    WITH(test_pointers),
	    WITH(test_unaligned),
	    WITH(test_atomics),
	    WITH(test_atomics_return_the_old),
	    WITH(test_unaligned_atomic),
	    WITH(test_spans),
	    WITH(test_memcpy_memset),
	    WITH(test_read_write),
	    WITH(test_read_write_errors),
	    WITH(test_fatal),
	    WITH(test_fatal_read_only),
	    WITH(test_order_of_queues),
	    WITH(test_wait_for_prefetch),
	    WITH(test_destroy_waits),
	    cmocka_unit_test_setup_teardown(test_bind, setup_no_fault, teardown),
	    cmocka_unit_test_setup_teardown(test_bind_beside_what_goes, setup_no_fault, teardown),
	    cmocka_unit_test_setup_teardown(test_bind_read_only_after, setup_no_fault, teardown),
	    cmocka_unit_test_setup_teardown(test_bind_errors, setup_no_fault, teardown),
	    WITH(test_fork),
	    WITH(test_fork_under_work),
	    WITH(test_fork_while_unbinding),
	    WITH(test_stacks_move),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
	return cmocka_run_group_tests_name("work", tests, NULL, NULL);
}
