/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * device.c: what stands for everything above mm.h: two devices of plain memory,
 * bare transactions, notifiers that keep a record, and the words of tests.
 *
 * Callbacks run on threads of the home: they use atomics and HOST_CHECK, never
 * cmocka's assertions.
 */
#include "tests/host/home.h"

#include "host/posix/posix.h"

#include <pthread.h>
#include <stdio.h>

struct mm *mm;
struct device devices[DEVICES];

/* ---- Frames ------------------------------------------------------------------- */

static void frame_mark(struct device *d, u64 first, unsigned order, bool used)
{
	for (u64 i = first; i < first + (1u << order); i++) {
		u64 bit = (u64)1 << (i % 64);

		if (used)
			HOST_CHECK(!(host_fetch_or(&d->used[i / 64], bit) & bit));
		else
			HOST_CHECK(host_fetch_and(&d->used[i / 64], ~bit) & bit);
	}
}

u64 frame_take(unsigned device, unsigned order)
{
	struct device *d = &devices[device];
	u64 n = (u64)1 << order;

	for (u64 first = 0; first < FRAMES; first += n) {
		bool free = true;

		for (u64 i = first; i < first + n && free; i++)
			free = !(host_load_acquire(&d->used[i / 64]) >> (i % 64) & 1);
		if (free) {
			frame_mark(d, first, order, true);
			return first;
		}
	}
	return ~(u64)0;
}

void frame_give(unsigned device, u64 frame)
{
	frame_mark(&devices[device], frame, 0, false);
}

u64 frames_used(unsigned device)
{
	u64 n = 0;

	for (unsigned i = 0; i < FRAMES / 64; i++)
		n += (u64)__builtin_popcountll(host_load_acquire(&devices[device].used[i]));
	return n;
}

void wait_frames(unsigned device, u64 want)
{
	for (int i = 0; i < 2000 && frames_used(device) != want; i++)
		host_sleep(HOST_MSEC);
	assert_int_equal(frames_used(device), want);
}

struct device *device_of(const struct mm_page *page)
{
	return mm_region_priv(mm_page_region(page));
}

u8 *frame_bytes(const struct mm_page *page)
{
	return device_of(page)->memory + mm_page_index(page) * PAGE;
}

/* ---- The ops of a region --------------------------------------------------------- */

static void op_free(struct mm_page *page, unsigned order, void *data)
{
	struct device *d = device_of(page);

	HOST_CHECK(data == d->data);
	host_add_return(&d->data->users, (u32)-1);
	if (order)
		host_add_return(&d->huge_frees, 1);
	frame_mark(d, mm_page_index(page), order, false);
}

static struct device *device_of_data(void *data)
{
	for (unsigned i = 0; i < DEVICES; i++)
		if (devices[i].data == data)
			return &devices[i];
	HOST_CHECK(!"data of no device");
	return NULL;
}

static void op_split(void *data, unsigned extra)
{
	struct device *d = device_of_data(data);

	HOST_CHECK(extra == HUGE_PAGES - 1);
	host_add_return(&d->splits, 1);
	host_add_return(&d->data->users, extra);
}

static void op_hold(void *data)
{
	host_add_return(&device_of_data(data)->data->holds, 1);
}

static void op_drop(void *data)
{
	HOST_CHECK(host_add_return(&device_of_data(data)->data->holds, (u32)-1) != ~0u);
}

static int op_read(struct mm_page *page, unsigned i, void *buffer)
{
	host_memcpy(buffer, frame_bytes(page) + i * PAGE, PAGE);
	return 0;
}

static s64 op_to_ram(struct mm_cpu_fault *fault)
{
	struct device *d = device_of_data(fault->data);
	u64 first = (host_align_down(fault->address, d->window * PAGE) - HOME_BASE) / PAGE;
	struct job *j;

	HOST_CHECK(fault->mm == mm && host_is_aligned(fault->address, PAGE));
	HOST_CHECK(host_load_acquire(&d->data->holds));
	host_add_return(&d->faults, 1);
	if (d->answer)
		return d->answer(fault);
	j = host_alloc(sizeof(*j));
	if (!j)
		return -ENOMEM;
	job_init(j, first, d->window, MM_MIGRATE_DEVICE | MM_MIGRATE_COMPOUND);
	j->m.fault_page = fault->page;
	if (mm_migrate_begin(&j->m) == 0) {
		if (job_to_system(j) == 0)
			mm_migrate_commit(&j->m);
		mm_migrate_end(&j->m);
	}
	host_free(j);
	return 0;
}

static const struct mm_region_ops ops = {
    .migrate_to_ram = op_to_ram,
    .free = op_free,
    .split = op_split,
    .hold = op_hold,
    .drop = op_drop,
    .read = op_read,
};

int devices_open(void)
{
	for (unsigned i = 0; i < DEVICES; i++) {
		struct device *d = &devices[i];

		memset(d, 0, sizeof(*d));
		d->window = 1;
		d->data = host_alloc_zeroed(sizeof(*d->data));
		d->memory = host_alloc_pages(FRAMES * PAGE);
		if (!d->data || !d->memory || mm_region_create(FRAMES, &ops, d, &d->region))
			return -1;
	}
	return 0;
}

void devices_close(void)
{
	for (unsigned i = 0; i < DEVICES; i++) {
		struct device *d = &devices[i];

		wait_frames(i, 0);
		assert_int_equal(host_load_acquire(&d->data->users), 0);
		for (int k = 0; k < 1000 && host_load_acquire(&d->data->holds); k++)
			host_sleep(HOST_MSEC);
		assert_int_equal(d->data->holds, 0);
		mm_region_destroy(d->region);
		host_free_pages(d->memory, FRAMES * PAGE);
		host_free(d->data);
	}
}

/* ---- Transactions ------------------------------------------------------------------ */

void job_init(struct job *j, u64 first, unsigned n, u32 flags)
{
	memset(j, 0, sizeof(*j));
	j->m.mm = mm;
	j->m.start = at(first);
	j->m.end = at(first + n);
	j->m.npages = n;
	j->m.flags = flags;
	j->m.src = j->src;
	j->m.dst = j->dst;
	j->m.migrator = devices;
}

void job_begin(struct job *j)
{
	assert_int_equal(mm_migrate_begin(&j->m), 0);
}

static unsigned entry_pages(mm_mpfn_t mpfn)
{
	return mpfn & MM_MPFN_COMPOUND ? HUGE_PAGES : 1;
}

struct copy {
	void *to;
	const void *from;
	mm_dma_t system;
	u64 length;
	bool write, reached;
};

static void copy_guarded(void *arg)
{
	struct copy *c = arg;
	void *p = mm_bus_begin(c->system, c->length, c->write);

	c->reached = p != NULL;
	if (p)
		host_memcpy(c->write ? p : c->to, c->write ? c->from : p, c->length);
	mm_bus_end();
}

/* Between a frame and the system page of entry i. */
static void copy_entry(struct job *j, unsigned i, u8 *frame, u64 length, bool out)
{
	struct copy c = {.to = frame, .from = frame, .length = length, .write = !out};
	unsigned order;
	u64 where;

	c.system = mm_migrate_dma(&j->m, i, &order);
	HOST_CHECK(order <= HOST_HUGE_ORDER);
	HOST_CHECK(mm_bus_guard(copy_guarded, &c, &where) == 0 && c.reached);
}

void job_place(struct job *j, unsigned i, unsigned device)
{
	unsigned order = j->src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_ORDER : 0;

	job_place_in(j, i, device, frame_take(device, order));
}

void job_place_in(struct job *j, unsigned i, unsigned device, u64 frame)
{
	struct device *d = &devices[device];
	mm_mpfn_t src = j->src[i], compound = src & MM_MPFN_COMPOUND;
	unsigned order = compound ? HOST_HUGE_ORDER : 0;
	u64 length = PAGE << order;
	struct mm_page *page;

	HOST_CHECK(frame != ~(u64)0 && src & MM_MPFN_MIGRATE);
	host_add_return(&d->data->users, 1);
	page = mm_page_init(d->region, frame, order, d->data);
	j->dst[i] = mm_mpfn(page) | MM_MPFN_MIGRATE | compound;
	if (src & MM_MPFN_MOVE)
		return;
	if (!(src & MM_MPFN_SYSTEM))
		host_memcpy(frame_bytes(page), frame_bytes(mm_mpfn_page(src)), length);
	else if (src & MM_MPFN_ZERO)
		host_memset(frame_bytes(page), 0, length);
	else
		copy_entry(j, i, frame_bytes(page), length, true);
}

void job_to_device(struct job *j, unsigned device)
{
	for (unsigned i = 0; i < j->m.npages; i += entry_pages(j->src[i]))
		if (j->src[i] & MM_MPFN_MIGRATE)
			job_place(j, i, device);
}

void job_fill_system(struct job *j)
{
	for (unsigned i = 0; i < j->m.npages; i += entry_pages(j->dst[i]))
		if (j->dst[i] && !(j->dst[i] & MM_MPFN_MOVE))
			copy_entry(j, i, frame_bytes(mm_mpfn_page(j->src[i])),
				   entry_pages(j->dst[i]) * PAGE, false);
}

int job_to_system(struct job *j)
{
	int err = mm_migrate_alloc_system(&j->m);

	if (!err)
		job_fill_system(j);
	return err;
}

unsigned job_moved(const struct job *j)
{
	unsigned n = 0;

	for (unsigned i = 0; i < j->m.npages; i += entry_pages(j->src[i]))
		if (j->src[i] & MM_MPFN_MIGRATE)
			n += entry_pages(j->src[i]);
	return n;
}

unsigned job_finish(struct job *j)
{
	mm_migrate_commit(&j->m);
	mm_migrate_end(&j->m);
	return job_moved(j);
}

unsigned move_out(unsigned device, u64 first, unsigned n, u32 flags)
{
	static struct job j;

	job_init(&j, first, n, flags | MM_MIGRATE_SYSTEM);
	job_begin(&j);
	job_to_device(&j, device);
	return job_finish(&j);
}

unsigned move_home(u64 first, unsigned n, u32 flags)
{
	static struct job j;

	job_init(&j, first, n, flags | MM_MIGRATE_DEVICE);
	job_begin(&j);
	assert_int_equal(job_to_system(&j), 0);
	return job_finish(&j);
}

void on_device(unsigned device, u64 first, u64 n, u64 seed, bool huge)
{
	map(first, n, HOME_RW | (huge ? HOME_HUGE : 0));
	fill(first, n, seed);
	for (u64 i = 0; i < n; i += HUGE_PAGES) {
		unsigned k = (unsigned)host_min(n - i, (u64)HUGE_PAGES);

		assert_int_equal(move_out(device, first + i, k, huge ? MM_MIGRATE_COMPOUND : 0), k);
	}
}

/* ---- Notifiers ------------------------------------------------------------------------ */

/* What is told of at once is recorded one by one. */
static pthread_mutex_t record_lock = PTHREAD_MUTEX_INITIALIZER;

static int on_start(struct mm_notifier *n, const struct mm_invalidation *inv, u64 seq)
{
	struct listener *l = host_container_of(n, struct listener, n);

	if (l->refuses && !inv->blockable)
		return -EAGAIN;
	HOST_CHECK(seq & 1);
	mm_notifier_set_seq(n, seq);
	pthread_mutex_lock(&record_lock);
	l->last = *inv;
	l->events |= 1u << inv->event;
	l->start = host_min(l->start, inv->start);
	l->end = host_max(l->end, inv->end);
	pthread_mutex_unlock(&record_lock);
	if (l->on_start)
		l->on_start(l, inv);
	host_add_return(&l->starts, 1);
	return 0;
}

static void on_finish(struct mm_notifier *n, const struct mm_invalidation *inv)
{
	struct listener *l = host_container_of(n, struct listener, n);

	if (l->on_finish)
		l->on_finish(l, inv);
	HOST_CHECK(host_add_return(&l->finishes, 1) <= host_load_acquire(&l->starts));
}

static const struct mm_notifier_ops listener_ops = {on_start, on_finish};

void listen_anew(struct listener *l)
{
	host_store_release(&l->starts, 0);
	host_store_release(&l->finishes, 0);
	l->events = 0;
	l->start = ~(u64)0;
	l->end = 0;
}

void listen(struct listener *l, u64 first, u64 n)
{
	listen_anew(l);
	assert_int_equal(mm_notifier_insert(&l->n, mm, at(first), at(first + n), &listener_ops), 0);
}

void unlisten(struct listener *l)
{
	mm_notifier_remove(&l->n);
	assert_int_equal(l->starts, l->finishes);
}

/* ---- Lookups and accesses ---------------------------------------------------------------- */

static bool keep_device(void *d, struct mm_page *page)
{
	return device_of(page) == d;
}

static int fault_with(struct listener *l, u64 first, u64 n, u32 flags,
		      bool (*keep)(void *, struct mm_page *), void *arg, mm_pfn_t *pfns)
{
	for (int tries = 0; tries < 1000; tries++) {
		struct mm_range_fault rf = {
		    .mm = mm,
		    .notifier = &l->n,
		    .seq = mm_notifier_read_begin(&l->n),
		    .start = at(first),
		    .end = at(first + n),
		    .pfns = pfns,
		    .flags = flags,
		    .keep = keep,
		    .keep_arg = arg,
		};
		int err = mm_range_fault(&rf);

		if (err != -EBUSY)
			return err;
		host_sleep(HOST_MSEC / 10);
	}
	return -EBUSY;
}

int range_fault(struct listener *l, u64 first, u64 n, u32 flags, mm_pfn_t *pfns)
{
	return fault_with(l, first, n, flags, NULL, NULL, pfns);
}

int range_fault_keep(struct listener *l, u64 first, u64 n, u32 flags, unsigned device,
		     mm_pfn_t *pfns)
{
	return fault_with(l, first, n, flags, keep_device, &devices[device], pfns);
}

int bus_access(mm_dma_t addr, void *buffer, u64 length, bool write, u64 *where)
{
	struct copy c = {buffer, buffer, addr, length, write, true};
	int err;

	*where = 0;
	err = mm_bus_guard(copy_guarded, &c, where);
	return err || c.reached ? err : -EFAULT;
}

/* ---- Words of tests ------------------------------------------------------------------------ */

void need(int result, const char *what)
{
	if (result == -EOPNOTSUPP) {
		print_message("the home %s has no %s\n", home_name, what);
		skip();
	}
	assert_int_equal(result, 0);
}

void map(u64 start, u64 n, u32 flags)
{
	assert_int_equal(home_mmap(mm, at(start), at(start + n), flags), 0);
}

void unmap(u64 start, u64 n)
{
	assert_int_equal(home_munmap(mm, at(start), at(start + n)), 0);
	sync_all();
}

static u64 word_of(u64 page)
{
	return at(page) + page * 8 % PAGE;
}

void put(u64 page, u64 value)
{
	assert_int_equal(home_store(mm, word_of(page), &value, sizeof(value)), 0);
}

u64 get(u64 page)
{
	u64 value = ~(u64)0;

	assert_int_equal(home_load(mm, word_of(page), &value, sizeof(value)), 0);
	return value;
}

static u64 value_of(u64 page, u64 seed)
{
	return (page + 1) * 0x9e3779b97f4a7c15ull ^ seed;
}

void fill(u64 first, u64 n, u64 seed)
{
	for (u64 i = first; i < first + n; i++)
		put(i, value_of(i, seed));
}

void expect(u64 first, u64 n, u64 seed)
{
	expect_at(first, first, n, seed);
}

void expect_at(u64 to, u64 from, u64 n, u64 seed)
{
	assert_int_equal(to % HUGE_PAGES, from % HUGE_PAGES);
	for (u64 i = 0; i < n; i++)
		if (get(to + i) != value_of(from + i, seed))
			fail_msg("page %llu has lost its word", (unsigned long long)(to + i));
}

void expect_zero(u64 first, u64 n)
{
	for (u64 i = first; i < first + n; i++)
		if (get(i))
			fail_msg("page %llu is not zero", (unsigned long long)i);
}

void sync_all(void)
{
	assert_int_equal(mm_sync(mm, 0, ~(u64)0), 0);
}

struct mm_page_state state_of(u64 page)
{
	struct mm_page_state s;

	mm_page_states(mm, at(page), at(page + 1), &s);
	return s;
}

bool may_warn;

void test_run(void **state)
{
	void (*test)(void **) = (void (*)(void **)) * state;

	home_catch();
	test(state);
}

int test_open(void **state)
{
	const char *why = NULL;

	(void)state;
	may_warn = false;
	mm = home_open(&why);
	if (!mm) {
		print_message("no home here: %s\n", why);
		return -1;
	}
	return devices_open();
}

int test_close(void **state)
{
	const char *wrong, *left;

	(void)state;
	(void)home_munmap(mm, HOME_BASE, HOME_BASE + HOME_SIZE);
	(void)mm_sync(mm, 0, ~(u64)0);
	devices_close();
	wrong = may_warn ? NULL : home_check(mm);
	left = home_close(mm);
	if (wrong || left)
		print_message("%s\n", wrong ? wrong : left);
	return wrong || left ? -1 : 0;
}
