/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The model home by itself: mappings, data, notifiers, raw transactions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "host/model/model.h"

#define BASE ((u64)0x10000000)
#define P(n) (BASE + (u64)(n) * HOST_PAGE_SIZE)
#define M2 HOST_HUGE_SIZE

/* ---- A device of 4 MiB, driven by hand ---------------------------------- */

#define DEV_PAGES 1024u
static u8 dev_memory[DEV_PAGES][HOST_PAGE_SIZE];
static struct mm_region *dev_region;
static u32 dev_free_calls, dev_users;

static s64 dev_to_ram(struct mm_cpu_fault *fault);
static void dev_free(struct mm_page *page, unsigned order, void *data)
{
	(void)page;
	(void)data;
	host_add_return(&dev_free_calls, 1u << order);
	host_add_return(&dev_users, (u32)-1);
}
static void dev_split(void *data, unsigned extra)
{
	(void)data;
	host_add_return(&dev_users, extra);
}
static void dev_hold(void *data)
{
	(void)data;
	host_add_return(&dev_users, 1);
}
static void dev_drop(void *data)
{
	(void)data;
	host_add_return(&dev_users, (u32)-1);
}
static int dev_read(struct mm_page *page, unsigned i, void *buffer)
{
	memcpy(buffer, dev_memory[mm_page_index(page) + i], HOST_PAGE_SIZE);
	return 0;
}
static const struct mm_region_ops dev_ops = { .migrate_to_ram = dev_to_ram,
					      .free = dev_free,
					      .split = dev_split,
					      .hold = dev_hold,
					      .drop = dev_drop,
					      .read = dev_read };

static int copy_pages(const struct mm_migrate *m, unsigned i, u64 frame, unsigned n, bool out)
{
	unsigned order;
	mm_dma_t at = mm_migrate_dma(m, i, &order);
	u8 *p = mm_bus_begin(at, n * HOST_PAGE_SIZE, !out);

	if (!p)
		return -EFAULT;
	if (out)
		memcpy(dev_memory[frame], p, n * HOST_PAGE_SIZE);
	else
		memcpy(p, dev_memory[frame], n * HOST_PAGE_SIZE);
	mm_bus_end();
	return 0;
}

struct job {
	struct mm_migrate m;
	mm_mpfn_t src[512], dst[512];
};

static void job_init(struct job *j, struct mm *mm, u64 start, unsigned n, u32 flags)
{
	memset(j, 0, sizeof(*j));
	j->m.mm = mm;
	j->m.start = start;
	j->m.end = start + n * HOST_PAGE_SIZE;
	j->m.npages = n;
	j->m.flags = flags;
	j->m.src = j->src;
	j->m.dst = j->dst;
	j->m.migrator = &dev_ops;
}

static unsigned moved(const struct job *j)
{
	unsigned n = 0;

	for (unsigned i = 0; i < j->m.npages; i++)
		if (j->src[i] & MM_MPFN_MIGRATE)
			n += j->src[i] & MM_MPFN_COMPOUND ? 512 : 1;
	return n;
}

/* Fills the destinations of what begin collected with frames from `frame` on. */
static void fill_out(struct job *j, u64 frame)
{
	for (unsigned i = 0; i < j->m.npages; i++) {
		unsigned order = j->src[i] & MM_MPFN_COMPOUND ? 9 : 0;

		if (!(j->src[i] & MM_MPFN_MIGRATE))
			continue;
		host_add_return(&dev_users, 1);
		j->dst[i] = mm_mpfn(mm_page_init(dev_region, frame + i, order, dev_memory)) |
			    MM_MPFN_MIGRATE | (order ? MM_MPFN_COMPOUND : 0);
		if (j->src[i] & MM_MPFN_ZERO)
			memset(dev_memory[frame + i], 0, HOST_PAGE_SIZE << order);
		else
			assert_int_equal(copy_pages(&j->m, i, frame + i, 1u << order, true), 0);
	}
}

static unsigned to_device(struct mm *mm, u64 start, unsigned n, u64 frame, u32 flags)
{
	struct job j;

	job_init(&j, mm, start, n, flags | MM_MIGRATE_SYSTEM);
	assert_int_equal(mm_migrate_begin(&j.m), 0);
	fill_out(&j, frame);
	mm_migrate_commit(&j.m);
	mm_migrate_end(&j.m);
	return moved(&j);
}

static int home(struct job *j)
{
	int err = mm_migrate_alloc_system(&j->m);

	for (unsigned i = 0; i < j->m.npages && !err; i++)
		if (j->dst[i])
			err = copy_pages(&j->m, i, mm_page_index(mm_mpfn_page(j->src[i])),
					 j->dst[i] & MM_MPFN_COMPOUND ? 512 : 1, false);
	if (!err)
		mm_migrate_commit(&j->m);
	mm_migrate_end(&j->m);
	return err;
}

static s64 dev_to_ram(struct mm_cpu_fault *fault)
{
	struct job j;
	int err;

	job_init(&j, fault->mm, fault->address, 1, MM_MIGRATE_DEVICE);
	err = mm_migrate_begin(&j.m);
	return err ? err : home(&j);
}

/* ---- Set-up --------------------------------------------------------------- */

static struct mm *mm;

static int setup(void **state)
{
	(void)state;
	dev_free_calls = dev_users = 0;
	mm = model_mm_create();
	return !mm || mm_region_create(DEV_PAGES, &dev_ops, NULL, &dev_region);
}

static int teardown(void **state)
{
	(void)state;
	assert_null(model_check(mm, true));
	assert_null(model_region_check(dev_region));
	model_mm_destroy(mm);
	assert_int_equal(model_region_used(dev_region), 0);
	assert_int_equal(dev_users, 0);
	mm_region_destroy(dev_region);
	assert_int_equal(model_frames_live(), 0);
	return 0;
}

static void put(struct mm *m, u64 address, u64 value)
{
	HOST_CHECK(model_cpu_write(m, address, &value, sizeof(value)) == 0);
}

static u64 get(struct mm *m, u64 address)
{
	u64 value = ~(u64)0;

	HOST_CHECK(model_cpu_read(m, address, &value, sizeof(value)) == 0);
	return value;
}

/* ---- Mappings and data ----------------------------------------------------- */

static void test_memory(void **state)
{
	u64 value = 1;

	(void)state;
	assert_int_equal(model_cpu_read(mm, P(0), &value, 8), -EFAULT);
	assert_int_equal(model_mmap(mm, P(0), P(8), MODEL_RW), 0);
	assert_int_equal(get(mm, P(1)), 0);
	put(mm, P(1), 11);
	put(mm, P(1) + 4092, 22); /* over a page's edge */
	assert_int_equal(get(mm, P(1)), 11);
	assert_int_equal(get(mm, P(1) + 4092), 22);
	assert_int_equal(model_mprotect(mm, P(1), P(2), MODEL_READ), 0);
	assert_int_equal(model_cpu_write(mm, P(1), &value, 8), -EFAULT);
	assert_int_equal(get(mm, P(1)), 11);
	assert_int_equal(model_mprotect(mm, P(1), P(2), MODEL_RW), 0);
	assert_int_equal(model_mremap(mm, P(1), P(3), P(100), false), 0);
	assert_int_equal(get(mm, P(100)), 11);
	assert_int_equal(get(mm, P(100) + 4092), 22);
	assert_int_equal(model_cpu_read(mm, P(1), &value, 8), -EFAULT);
	assert_int_equal(model_mremap(mm, P(100), P(102), P(1), true), 0);
	assert_int_equal(get(mm, P(100)), 0);
	assert_int_equal(get(mm, P(1)), 11);
	assert_int_equal(model_dontneed(mm, P(1), P(2)), 0);
	assert_int_equal(get(mm, P(1)), 0);
	assert_int_equal(model_munmap(mm, P(3), P(4)), 0);
	assert_int_equal(model_cpu_read(mm, P(3), &value, 8), -EFAULT);
	assert_int_equal(model_mremap(mm, P(0), P(8), P(200), false), -EFAULT);
}

static void test_huge(void **state)
{
	struct mm_page_state s;
	struct model_counters c;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + 2 * M2, MODEL_RW | MODEL_THP), 0);
	put(mm, P(3), 3);
	mm_page_states(mm, P(500), P(501), &s);
	assert_int_equal(s.order, 9);
	assert_int_equal(model_mremap(mm, BASE, BASE + M2, BASE + 8 * M2, false), 0);
	assert_int_equal(get(mm, BASE + 8 * M2 + 3 * HOST_PAGE_SIZE), 3);
	assert_int_equal(to_device(mm, BASE + 8 * M2, 512, 0, MM_MIGRATE_COMPOUND), 512);
	mm_page_states(mm, BASE + 8 * M2, BASE + 8 * M2 + 4096, &s);
	assert_int_equal(s.order, 9);
	assert_non_null(s.page);
	assert_int_equal(dev_users, 1);
	assert_int_equal(model_munmap(mm, BASE + 8 * M2, BASE + 8 * M2 + 4096), 0);
	assert_int_equal(dev_users, 511);
	assert_int_equal(get(mm, BASE + 8 * M2 + 3 * HOST_PAGE_SIZE), 3);
	model_counters(mm, &c);
	assert_int_equal(c.splits, 1);
	/* Nothing was ever there: a 2M page may come at once. */
	assert_int_equal(to_device(mm, BASE + M2, 512, 512, MM_MIGRATE_COMPOUND), 512);
	assert_int_equal(get(mm, BASE + M2 + 4096), 0);
}

static void test_fork(void **state)
{
	struct model_frame *pin;
	struct mm *child;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW | MODEL_THP), 0);
	assert_int_equal(model_mmap(mm, BASE + M2, BASE + 2 * M2, MODEL_RW), 0);
	assert_int_equal(model_mmap(mm, P(2000), P(2001), MODEL_RW | MODEL_SHARED), 0);
	put(mm, P(0), 1);
	put(mm, P(512), 2);
	put(mm, P(513), 3);
	put(mm, P(514), 4);
	assert_int_equal(to_device(mm, P(0), 512, 0, MM_MIGRATE_COMPOUND), 512);
	assert_int_equal(to_device(mm, P(512), 1, 512, 0), 1);
	assert_int_equal(model_pin(mm, P(513), &pin), 0);
	assert_int_equal(model_fork(mm, &child), 0);
	assert_int_equal(dev_users, 2);
	for (unsigned i = 0; i < 2; i++) {
		struct mm *m = i ? mm : child;

		assert_int_equal(get(m, P(0)), 1);
		assert_int_equal(get(m, P(512)), 2);
		assert_int_equal(get(m, P(513)), 3);
		assert_int_equal(get(m, P(514)), 4);
	}
	put(mm, P(514), 5);
	put(mm, P(513), 6);
	put(mm, P(2000), 7);
	assert_int_equal(*(u64 *)model_pin_bytes(pin), 6);
	assert_int_equal(get(child, P(514)), 4);
	assert_int_equal(get(child, P(513)), 3);
	assert_int_equal(get(child, P(2000)), 7);
	model_unpin(pin);
	assert_null(model_check(child, true));
	model_mm_destroy(child);
}

/* ---- Transactions ----------------------------------------------------------- */

static void test_migrate(void **state)
{
	struct model_frame *pin;
	struct job j;

	(void)state;
	assert_int_equal(model_mmap(mm, P(0), P(16), MODEL_RW), 0);
	for (unsigned i = 0; i < 8; i++)
		put(mm, P(i), i + 1);
	assert_int_equal(model_munmap(mm, P(5), P(6)), 0);
	assert_int_equal(model_pin(mm, P(2), &pin), 0);
	model_set_busy(mm, P(3), P(4), true);
	job_init(&j, mm, P(0), 16, MM_MIGRATE_SYSTEM);
	assert_int_equal(mm_migrate_begin(&j.m), 0);
	assert_int_equal(j.m.collected, 13);
	assert_int_equal(j.m.stayed_reason,
			 MM_STAYED_PINNED | MM_STAYED_BUSY | MM_STAYED_HOLE);
	fill_out(&j, 0);
	/* One goes away on the way, one after the commit. */
	assert_int_equal(model_munmap(mm, P(6), P(7)), 0);
	mm_migrate_commit(&j.m);
	assert_int_equal(model_dontneed(mm, P(7), P(8)), 0);
	mm_migrate_end(&j.m);
	assert_int_equal(moved(&j), 12);
	assert_int_equal(dev_users, 11);
	model_unpin(pin);
	model_set_busy(mm, P(3), P(4), false);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(get(mm, P(i)), i + 1);
	assert_int_equal(get(mm, P(7)), 0);
	/* By frame: pages 8 to 15 are still on the device. */
	job_init(&j, mm, 0, 64, MM_MIGRATE_DEVICE);
	assert_int_equal(mm_migrate_begin_frames(&j.m, dev_region, 0), 0);
	assert_int_equal(j.m.collected, 8);
	assert_int_equal(home(&j), 0);
	assert_int_equal(dev_users, 0);
}

/* Swap: a page that is in use stays, one in swap does not migrate, and comes back. */
static void test_swap(void **state)
{
	struct model_frame *pin;
	struct mm_page_state page;
	struct mm *child;

	(void)state;
	assert_int_equal(model_mmap(mm, P(0), P(8), MODEL_RW), 0);
	for (unsigned i = 0; i < 4; i++)
		put(mm, P(i), i + 1);
	assert_int_equal(model_swap_out(mm, P(0)), 0);
	assert_int_equal(model_swap_out(mm, P(0)), -EBUSY);
	assert_int_equal(model_swap_out(mm, P(7)), -EBUSY); /* never touched */
	assert_int_equal(model_swap_out(mm, P(9)), -EBUSY); /* a hole */
	assert_int_equal(model_pin(mm, P(1), &pin), 0);
	assert_int_equal(model_swap_out(mm, P(1)), -EBUSY);
	model_unpin(pin);
	assert_int_equal(to_device(mm, P(0), 2, 0, 0), 1);
	assert_int_equal(model_swap_out(mm, P(1)), -EBUSY); /* on the device */
	mm_page_states(mm, P(0), P(1), &page);
	assert_int_equal(page.flags & MM_STATE_POPULATED, MM_STATE_POPULATED);
	/* Slots are shared with a child, dropped, and moved with their mapping. */
	assert_int_equal(model_swap_out(mm, P(2)), 0);
	assert_int_equal(model_swap_out(mm, P(3)), 0);
	assert_int_equal(model_fork(mm, &child), 0);
	assert_int_equal(model_mremap(mm, P(2), P(3), P(100), false), 0);
	assert_int_equal(model_dontneed(mm, P(3), P(4)), 0);
	assert_int_equal(get(mm, P(0)), 1);
	assert_int_equal(get(mm, P(1)), 2);
	assert_int_equal(get(mm, P(100)), 3);
	assert_int_equal(get(mm, P(3)), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(get(child, P(i)), i + 1);
	assert_null(model_check(child, true));
	model_mm_destroy(child);
}

static u32 remapped;
static void remap_thread(void *arg)
{
	(void)arg;
	HOST_CHECK(model_mremap(mm, P(0), P(2), P(8), false) == 0);
	host_store_release(&remapped, 1);
}

/* Pages that are moving hold the moving of their mapping up. */
static void test_mremap_waits(void **state)
{
	struct host_thread thread = { 0 };
	struct job j;

	(void)state;
	assert_int_equal(model_mmap(mm, P(0), P(4), MODEL_RW), 0);
	put(mm, P(1), 1);
	job_init(&j, mm, P(0), 4, MM_MIGRATE_SYSTEM);
	assert_int_equal(mm_migrate_begin(&j.m), 0);
	assert_int_equal(host_thread_start(&thread, "remap", remap_thread, NULL), 0);
	host_sleep(10 * HOST_MSEC);
	assert_int_equal(host_load_acquire(&remapped), 0);
	fill_out(&j, 0);
	mm_migrate_commit(&j.m);
	mm_migrate_end(&j.m);
	host_thread_join(&thread);
	assert_int_equal(get(mm, P(9)), 1);
}

static void test_huge_lost_in_part(void **state)
{
	struct job j;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW | MODEL_THP), 0);
	for (unsigned round = 0; round < 2; round++) {
		put(mm, P(7), 7);
		job_init(&j, mm, BASE, 512, MM_MIGRATE_SYSTEM | MM_MIGRATE_COMPOUND);
		assert_int_equal(mm_migrate_begin(&j.m), 0);
		assert_int_equal(j.m.collected, 512);
		fill_out(&j, 0);
		if (round == 0) /* a system page is cut on its way out */
			assert_int_equal(model_dontneed(mm, P(100), P(101)), 0);
		mm_migrate_commit(&j.m);
		mm_migrate_end(&j.m);
		assert_int_equal(moved(&j), round ? 512 : 0);
		assert_int_equal(get(mm, P(100)), 0);
		if (round == 0)
			assert_int_equal(model_dontneed(mm, BASE, BASE + M2), 0);
	}
	/* A device page is cut on its way home; page 7 of it stays where it is. */
	assert_int_equal(model_dontneed(mm, BASE, BASE + M2), 0);
	put(mm, P(7), 8);
	assert_int_equal(to_device(mm, BASE, 512, 512, MM_MIGRATE_COMPOUND), 512);
	job_init(&j, mm, BASE, 512, MM_MIGRATE_DEVICE | MM_MIGRATE_COMPOUND);
	assert_int_equal(mm_migrate_begin(&j.m), 0);
	assert_int_equal(model_munmap(mm, P(100), P(101)), 0);
	assert_int_equal(home(&j), 0);
	assert_int_equal(moved(&j), 0);
	assert_int_equal(dev_users, 511);
	assert_int_equal(get(mm, P(7)), 8);
}

static void test_no_huge_at_home(void **state)
{
	struct job j;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW | MODEL_THP), 0);
	put(mm, P(7), 7);
	assert_int_equal(to_device(mm, BASE, 512, 0, MM_MIGRATE_COMPOUND), 512);
	model_fail(mm, MODEL_FAIL_HUGE_PAGE, 0, ~(u64)0);
	model_fail(mm, MODEL_FAIL_SYSTEM_PAGE, 500, ~(u64)0);
	job_init(&j, mm, 0, 512, MM_MIGRATE_DEVICE | MM_MIGRATE_COMPOUND);
	assert_int_equal(mm_migrate_begin_frames(&j.m, dev_region, 0), 0);
	assert_int_equal(home(&j), 0);
	assert_int_equal(moved(&j), 500);
	assert_int_equal(dev_users, 12);
	model_fail(mm, MODEL_FAIL_SYSTEM_PAGE, 0, 0);
	assert_int_equal(get(mm, P(7)), 7);
	assert_int_equal(get(mm, P(511)), 0);
}

/* ---- Notifiers --------------------------------------------------------------- */

struct listener {
	struct mm_notifier n;
	u32 starts, finishes;
	u64 start, end;
	bool refuse;
	void (*during)(struct listener *l);
};

static int on_start(struct mm_notifier *n, const struct mm_invalidation *inv, u64 seq)
{
	struct listener *l = host_container_of(n, struct listener, n);

	if (l->refuse && !inv->blockable)
		return -EAGAIN;
	l->starts++;
	l->start = inv->start;
	l->end = inv->end;
	HOST_CHECK(seq & 1);
	mm_notifier_set_seq(n, seq);
	if (l->during)
		l->during(l);
	return 0;
}

static void on_finish(struct mm_notifier *n, const struct mm_invalidation *inv)
{
	struct listener *l = host_container_of(n, struct listener, n);

	(void)inv;
	l->finishes++;
	HOST_CHECK(l->starts == l->finishes);
}

static const struct mm_notifier_ops listener_ops = { on_start, on_finish };

static void test_notifier(void **state)
{
	struct listener a = { 0 }, b = { 0 };
	u64 seq, seq_b;

	(void)state;
	assert_int_equal(mm_notifier_insert(&a.n, mm, P(0), P(0), &listener_ops), -EINVAL);
	assert_int_equal(mm_notifier_insert(&a.n, mm, P(0), P(16), &listener_ops), 0);
	assert_int_equal(mm_notifier_insert(&b.n, mm, P(8), P(32), &listener_ops), 0);
	assert_int_equal(model_mmap(mm, P(0), P(32), MODEL_RW), 0);
	assert_int_equal(a.starts, 0);
	seq = mm_notifier_read_begin(&a.n);
	seq_b = mm_notifier_read_begin(&b.n);
	assert_int_equal(seq & 1, 0);
	assert_false(mm_notifier_read_retry(&a.n, seq));
	assert_int_equal(model_munmap(mm, P(4), P(12)), 0);
	assert_int_equal(a.start, P(4));
	assert_int_equal(a.end, P(12));
	assert_int_equal(b.start, P(8));
	assert_true(mm_notifier_read_retry(&a.n, seq));
	assert_true(mm_notifier_read_retry(&b.n, seq_b));
	seq_b = mm_notifier_read_begin(&b.n);
	assert_int_equal(model_dontneed(mm, P(0), P(1)), 0);
	assert_false(mm_notifier_read_retry(&b.n, seq_b));
	/* a has been called when b refuses. */
	b.refuse = true;
	assert_int_equal(model_reap(mm, P(0), P(32)), -EAGAIN);
	assert_int_equal(a.starts, 3);
	assert_int_equal(a.finishes, 3);
	assert_int_equal(b.starts, 1);
	assert_int_equal(mm_notifier_read_begin(&a.n) & 1, 0);
	mm_notifier_remove(&a.n);
	mm_notifier_remove(&b.n);
	assert_int_equal(model_munmap(mm, P(0), P(32)), 0);
	assert_int_equal(a.starts, 3);
}

static u32 reader_done;
static void reader(void *arg)
{
	struct listener *l = arg;
	u64 seq = mm_notifier_read_begin(&l->n);

	HOST_CHECK(!(seq & 1));
	host_store_release(&reader_done, 1);
}

static struct host_thread reader_thread;
static struct listener late;
static void during(struct listener *l)
{
	/* A reader has to wait, and one of a notifier that comes just now too. */
	HOST_CHECK(host_thread_start(&reader_thread, "reader", reader, l) == 0);
	HOST_CHECK(mm_notifier_insert(&late.n, mm, P(0), P(1), &listener_ops) == 0);
	host_sleep(5 * HOST_MSEC);
	HOST_CHECK(host_load_acquire(&reader_done) == 0);
}

static void test_notifier_waits(void **state)
{
	struct listener a = { .during = during };
	u64 seq;

	(void)state;
	memset(&late, 0, sizeof(late));
	host_store_release(&reader_done, 0);
	assert_int_equal(model_mmap(mm, P(0), P(4), MODEL_RW), 0);
	assert_int_equal(mm_notifier_insert(&a.n, mm, P(0), P(4), &listener_ops), 0);
	assert_int_equal(model_munmap(mm, P(0), P(4)), 0);
	host_thread_join(&reader_thread);
	assert_int_equal(reader_done, 1);
	assert_int_equal(late.starts, 0);
	seq = mm_notifier_read_begin(&late.n);
	assert_int_equal(seq & 1, 0);
	mm_notifier_remove(&late.n);
	mm_notifier_remove(&a.n);
}

/* ---- Looking up -------------------------------------------------------------- */

static bool keep_all(void *arg, struct mm_page *page)
{
	(void)arg;
	(void)page;
	return true;
}

static int look(struct listener *l, u64 start, u64 end, u32 flags, mm_pfn_t *pfns, bool keep)
{
	struct mm_range_fault rf = { .mm = mm, .notifier = &l->n, .start = start, .end = end,
				     .pfns = pfns, .flags = flags,
				     .keep = keep ? keep_all : NULL };

	rf.seq = mm_notifier_read_begin(&l->n);
	return mm_range_fault(&rf);
}

static void test_range_fault(void **state)
{
	struct listener l = { 0 };
	mm_pfn_t pfns[512];
	mm_dma_t dma;

	(void)state;
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW | MODEL_THP), 0);
	assert_int_equal(model_mmap(mm, BASE + M2, BASE + 2 * M2, MODEL_READ), 0);
	assert_int_equal(mm_notifier_insert(&l.n, mm, BASE, BASE + 4 * M2, &listener_ops), 0);
	assert_int_equal(look(&l, P(0), P(512), 0, pfns, false), 0);
	assert_int_equal(pfns[0], 0);
	assert_int_equal(look(&l, P(0), P(512), MM_FAULT_IN | MM_FAULT_WRITE, pfns, false), 0);
	assert_int_equal(MM_PFN_ORDER(pfns[0]), 9);
	assert_int_equal(MM_PFN_ORDER(pfns[511]), 9);
	assert_int_equal(look(&l, P(4), P(14), MM_FAULT_IN, pfns, false), 0);
	assert_int_equal(MM_PFN_ORDER(pfns[0]), 2);
	assert_int_equal(MM_PFN_ORDER(pfns[4]), 2);
	assert_int_equal(MM_PFN_ORDER(pfns[8]), 1);
	dma = mm_dma_map(mm, NULL, pfns[0], 2, true);
	assert_non_null(mm_bus_begin(dma, 4 * 4096, true));
	mm_dma_unmap(mm, NULL, dma, 2, true);
	assert_null(mm_bus_begin(dma, 4096, false));
	assert_int_equal(look(&l, P(512), P(513), MM_FAULT_IN | MM_FAULT_WRITE, pfns, false),
			 -EPERM);
	assert_int_equal(look(&l, P(512), P(513), MM_FAULT_IN, pfns, false), 0);
	assert_int_equal(pfns[0] & MM_PFN_WRITE, 0);
	assert_int_equal(look(&l, P(1024), P(1025), MM_FAULT_IN, pfns, false), -EFAULT);
	/* Device pages: kept, or brought home (a new sequence, so -EBUSY once). */
	assert_int_equal(to_device(mm, P(0), 16, 16, 0), 16);
	assert_int_equal(look(&l, P(0), P(16), MM_FAULT_IN, pfns, true), 0);
	assert_int_equal(MM_PFN_ORDER(pfns[0]), 4);
	assert_int_equal(mm_page_index(mm_pfn_page(mm, pfns[3])), 19);
	while (look(&l, P(0), P(16), MM_FAULT_IN, pfns, false) == -EBUSY)
		;
	assert_int_equal(pfns[3] & MM_PFN_DEVICE, 0);
	assert_int_equal(dev_users, 0);
	mm_notifier_remove(&l.n);
}

static void test_violation(void **state)
{
	struct mm *bad = model_mm_create();
	struct listener l = { 0 };
	struct mm_range_fault rf = { .mm = bad, .notifier = &l.n, .start = P(0), .end = P(1),
				     .flags = MM_FAULT_IN | MM_FAULT_WRITE };
	mm_pfn_t pfn;
	mm_dma_t dma;

	(void)state;
	assert_int_equal(model_mmap(bad, P(0), P(1), MODEL_RW), 0);
	assert_int_equal(mm_notifier_insert(&l.n, bad, P(0), P(1), &listener_ops), 0);
	rf.seq = mm_notifier_read_begin(&l.n);
	rf.pfns = &pfn;
	assert_int_equal(mm_range_fault(&rf), 0);
	dma = mm_dma_map(bad, NULL, pfn, 0, true);
	assert_int_not_equal(dma, MM_DMA_ERROR);
	assert_int_equal(model_munmap(bad, P(0), P(1)), 0);
	assert_non_null(model_check(bad, true));
	assert_null(mm_bus_begin(dma, 8, false));
	mm_notifier_remove(&l.n);
	model_mm_destroy(bad);
}

/* ---- Threads ------------------------------------------------------------------ */

static u32 stop_writers;
struct writer {
	struct host_thread thread;
	u64 address, count;
};

static void write_loop(void *arg)
{
	struct writer *w = arg;

	/* Some writes at least, however busy the machine. */
	while (!host_load_acquire(&stop_writers) || w->count < 10) {
		HOST_CHECK(get(mm, w->address) == w->count);
		put(mm, w->address, ++w->count);
	}
}

static void test_threads(void **state)
{
	struct writer w[2] = { { .address = P(3) }, { .address = P(3) + 512 } };
	u64 until = host_now() + 300 * HOST_MSEC;

	(void)state;
	host_store_release(&stop_writers, 0);
	assert_int_equal(model_mmap(mm, BASE, BASE + M2, MODEL_RW), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(host_thread_start(&w[i].thread, "writer", write_loop, &w[i]), 0);
	while (host_now() < until) {
		struct job j;

		/* A writer that faulted frees its frame a moment after it goes on. */
		while (model_region_used(dev_region) && host_now() < until + 10 * HOST_SEC)
			host_sleep(HOST_USEC);
		to_device(mm, P(0), 8, 0, 0);
		job_init(&j, mm, 0, 8, MM_MIGRATE_DEVICE);
		assert_int_equal(mm_migrate_begin_frames(&j.m, dev_region, 0), 0);
		assert_int_equal(home(&j), 0);
	}
	host_store_release(&stop_writers, 1);
	for (unsigned i = 0; i < 2; i++) {
		host_thread_join(&w[i].thread);
		assert_int_equal(get(mm, w[i].address), w[i].count);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
/* A page that cannot leave its device is no reason to wait for ever. */
static void test_busy_page(void **state)
{
	struct listener l = { 0 };
	mm_pfn_t pfn;
	struct mm_range_fault rf = { .mm = mm, .notifier = &l.n, .start = P(0), .end = P(1),
				     .pfns = &pfn, .flags = MM_FAULT_IN };

	(void)state;
	assert_int_equal(model_mmap(mm, P(0), P(1), MODEL_RW), 0);
	put(mm, P(0), 7);
	assert_int_equal(to_device(mm, P(0), 1, 0, 0), 1);
	assert_int_equal(mm_notifier_insert(&l.n, mm, P(0), P(1), &listener_ops), 0);
	model_set_busy(mm, P(0), P(1), true);
	rf.seq = mm_notifier_read_begin(&l.n);
	assert_int_equal(mm_range_fault(&rf), -EBUSY);
	model_set_busy(mm, P(0), P(1), false);
	mm_notifier_remove(&l.n);
	assert_int_equal(get(mm, P(0)), 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_memory),	   TEST(test_huge),
		TEST(test_fork),	   TEST(test_migrate),
		TEST(test_mremap_waits),	   TEST(test_swap),
		TEST(test_huge_lost_in_part), TEST(test_no_huge_at_home),
		TEST(test_notifier),	   TEST(test_notifier_waits),
		TEST(test_range_fault),	   TEST(test_violation),
		TEST(test_threads),	   TEST(test_busy_page),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
