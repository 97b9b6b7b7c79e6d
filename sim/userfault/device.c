/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* device.c: frames, and moves of pages between them and system memory. */
#include "sim/userfault/world.h"

/* ---- Frames -------------------------------------------------------------------- */

static struct device *device_of(const struct mm_page *page)
{
	return mm_region_priv(mm_page_region(page));
}

/* The explorer is told of the first frames one by one, and of 64 of the others at once. */
static const void *frame_object(const struct device *d, u64 i)
{
	return &d->used[i < 4 ? i : host_max(host_align_down(i, 64), (u64)4)];
}

static u64 frame_alloc(struct device *d, unsigned order)
{
	u64 n = (u64)1 << order;

	sched_access(&d->next_frame, true);
	/* One by one from where the last was found, not to look at all each time. */
	if (!order)
		for (u64 k = 0; k < FRAMES; k++) {
			u64 i = d->next_frame++ % FRAMES;

			sched_access(frame_object(d, i), true);
			if (!d->used[i]) {
				d->used[i] = 1;
				return i;
			}
		}
	for (u64 i = 0; i < FRAMES; i++)
		sched_access(frame_object(d, i), true);
	for (u64 i = 0; i + n <= FRAMES; i += n)
		if (!memchr(d->used + i, 1, n)) {
			memset(d->used + i, 1, n);
			return i;
		}
	return ~(u64)0;
}

/* Where the k-th page of a frame is for engines, who ask kernel_touch. */
static u8 *frame_address(struct mm_page *page, u64 k)
{
	struct device *d = device_of(page);
	u64 index = mm_page_index(page) + k;

	return d->memory ? (u8 *)(d->memory + index * PAGE) : d->vram[index];
}

static u8 *frame_touch(struct mm_page *page, u64 k, bool write)
{
	u8 *bytes = kernel_touch(frame_address(page, k), write);

	must(bytes);
	return bytes;
}

u8 *frame_bytes(struct mm_page *page, bool write)
{
	return frame_touch(page, 0, write);
}

static void frame_forget(struct device *d, u64 index)
{
	u64 *words = (u64 *)(void *)d->vram[index];

	for (u32 i = 0; i < KERNEL_BYTES / 8; i++)
		words[i] = KERNEL_NOTHING;
	sched_access(frame_object(d, index), true);
	d->used[index] = 0;
}

static void device_free(struct mm_page *page, unsigned order, void *data)
{
	struct device *d = device_of(page);

	(void)data;
	for (u64 i = 0; i < (u64)1 << order; i++) {
		if (!d->used[mm_page_index(page) + i])
			sched_fail(SCHED_LAW, "law 2, one home: a frame is given back twice");
		frame_forget(d, mm_page_index(page) + i);
	}
}

static void device_split(void *data, unsigned extra)
{
	(void)data;
	(void)extra;
}

static void device_hold(void *data)
{
	(void)data;
	world->holds++;
}

static void device_drop(void *data)
{
	(void)data;
	must(world->holds--);
}

static int device_read(struct mm_page *page, unsigned i, void *buffer)
{
	memcpy(buffer, frame_touch(page, i, false), KERNEL_BYTES);
	return 0;
}

/* ---- Moving ------------------------------------------------------------------------ */

/* One copy of the copy engine. from NULL: zeros. */
static void engine_copy(u8 *to, const u8 *from)
{
	u8 bytes[KERNEL_BYTES] __attribute__((aligned(8))) = {0};

	if (from) {
		from = kernel_touch(from, false);
		must(from);
		memcpy(bytes, from, sizeof(bytes));
	}
	to = kernel_touch(to, true);
	must(to);
	memcpy(to, bytes, sizeof(bytes));
}

/* Page i to where it goes. */
static void engine_copy_page(const struct mm_migrate *m, unsigned i, unsigned k)
{
	bool home = m->dst[i] & MM_MPFN_SYSTEM;
	unsigned order;
	u64 system =
	    home || !(m->src[i] & MM_MPFN_ZERO) ? mm_migrate_dma(m, i, &order) + k * PAGE : 0;

	if (home)
		engine_copy((u8 *)system, frame_address(mm_mpfn_page(m->src[i]), k));
	else
		engine_copy(frame_address(mm_mpfn_page(m->dst[i]), k), (const u8 *)system);
}

static void engine_copies(struct mm_migrate *m)
{
	for (unsigned i = 0; i < m->npages; i++) {
		unsigned n = m->src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_PAGES : 1;

		if (!(m->src[i] & MM_MPFN_MIGRATE) || !m->dst[i] ||
		    (m->src[i] | m->dst[i]) & MM_MPFN_MOVE)
			continue;
		for (unsigned k = 0; k < n; k++) {
			engine_copy_page(m, i, k);
			if (k % 128 == 0)
				sched_point(POINT_COPY, m);
		}
	}
}

struct move {
	struct mm_migrate m;
	mm_mpfn_t src[HOST_HUGE_PAGES], dst[HOST_HUGE_PAGES];
};

static struct move *move_make(u64 start, u64 end, u32 flags)
{
	struct move *move = host_alloc(sizeof(*move));

	if (move)
		move->m = (struct mm_migrate){.mm = world->mm,
					      .start = start,
					      .end = end,
					      .flags = flags | MM_MIGRATE_COMPOUND,
					      .src = move->src,
					      .dst = move->dst};
	return move;
}

static void commit_home(struct mm_migrate *m)
{
	if (m->collected && mm_migrate_alloc_system(m) == 0) {
		engine_copies(m);
		mm_migrate_commit(m);
	}
	mm_migrate_end(m);
}

void move_home(u64 start, u64 end)
{
	struct move *move = move_make(start, end, MM_MIGRATE_DEVICE);

	sched_note("pages [%u, %u) home", page_number(start), page_number(end));
	if (move && mm_migrate_begin(&move->m) == 0)
		commit_home(&move->m);
	host_free(move);
}

void move_evict(struct device *d, u64 first, unsigned n)
{
	struct move *move = move_make(0, 0, 0);

	if (!move)
		return;
	sched_note("frames [%u, %u) home", (unsigned)first, (unsigned)first + n);
	move->m.npages = n;
	if (mm_migrate_begin_frames(&move->m, d->region, first) == 0)
		commit_home(&move->m);
	host_free(move);
}

/* Frames for all that may leave, before it is known what will: where they are ordinary
 * memory it goes straight there. */
struct reserve {
	struct device *device;
	u64 frames[HOST_HUGE_PAGES];
	bool given[HOST_HUGE_PAGES]; /* it is a page's */
	unsigned n;
};

static u64 reserved(void *arg, unsigned i, unsigned *n)
{
	const struct reserve *r = arg;

	for (*n = 1; i + *n < r->n && r->frames[i + *n] == r->frames[i] + *n; ++*n)
		;
	return r->frames[i];
}

static void reserve_end(struct reserve *r)
{
	for (unsigned i = 0; r && i < r->n; i++)
		if (!r->given[i])
			frame_forget(r->device, r->frames[i]);
	host_free(r);
}

/* NULL: there are not so many. */
static struct reserve *reserve(struct mm_migrate *m, struct device *d)
{
	unsigned n = (unsigned)((m->end - m->start) / PAGE);
	struct reserve *r = host_alloc(sizeof(*r));
	u64 first;

	if (!r)
		return NULL;
	r->device = d;
	r->n = 0;
	memset(r->given, 0, sizeof(r->given));
	first = n == HOST_HUGE_PAGES ? frame_alloc(d, HOST_HUGE_ORDER) : ~(u64)0;
	if (first == ~(u64)0)
		m->flags &= ~(u32)MM_MIGRATE_COMPOUND;
	for (; r->n < n; r->n++) {
		r->frames[r->n] = first == ~(u64)0 ? frame_alloc(d, 0) : first + r->n;
		if (r->frames[r->n] == ~(u64)0) {
			reserve_end(r);
			return NULL;
		}
	}
	m->region = d->region;
	m->frame = reserved;
	m->frame_arg = r;
	return r;
}

/* A frame for page i, which is to move: the reserved one, or any; its neighbours are a
 * device's choice. */
static struct mm_page *frame_for(struct mm_migrate *m, unsigned i, struct device *d,
				 struct reserve *r)
{
	unsigned order = m->src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_ORDER : 0;
	u64 frame = r ? r->frames[i] : frame_alloc(d, order);
	struct mm_page *page;

	if (r)
		memset(&r->given[i], true, (size_t)1 << order);
	if (frame == ~(u64)0)
		return NULL;
	page = mm_page_init(d->region, frame, order, &world->data);
	m->dst[i] = mm_mpfn(page) | MM_MPFN_MIGRATE | (m->src[i] & MM_MPFN_COMPOUND);
	return page;
}

void move_across(struct sim_actor *a, u64 start, u64 end)
{
	struct move *move = move_make(start, end, MM_MIGRATE_DEVICE);
	struct device *d = &world->devices[sim_below(a, world->n_devices)];
	struct mm_migrate *m = move ? &move->m : NULL;

	if (!m)
		return;
	sched_note("pages [%u, %u) from frame to frame", page_number(start), page_number(end));
	if (mm_migrate_begin(m) == 0) {
		for (unsigned i = 0; i < m->npages; i++) {
			struct mm_page *from = mm_mpfn_page(m->src[i]), *to;

			if (!(m->src[i] & MM_MPFN_MIGRATE) || !(to = frame_for(m, i, d, NULL)))
				continue;
			for (u64 k = 0; k < (u64)1 << mm_page_order(to); k++)
				engine_copy(frame_address(to, k), frame_address(from, k));
			sched_point(POINT_COPY, m);
		}
		mm_migrate_commit(m);
		mm_migrate_end(m);
	}
	host_free(move);
}

void move_out(struct sim_actor *a, u64 start, u64 end)
{
	struct move *move = move_make(start, end, MM_MIGRATE_SYSTEM);
	struct device *d = &world->devices[sim_below(a, world->n_devices)];
	struct mm_migrate *m = move ? &move->m : NULL;
	bool straight = world->scenario->together || below(4);
	struct reserve *r = m && d->memory && straight ? reserve(m, d) : NULL;

	sched_note("pages [%u, %u) to device %u", page_number(start), page_number(end),
		   (unsigned)(d - world->devices));
	if (m && mm_migrate_begin(m) == 0) {
		for (unsigned i = 0; i < m->npages; i++)
			if (m->src[i] & MM_MPFN_MIGRATE && below(24)) /* some stay */
				(void)frame_for(m, i, d, r);
		engine_copies(m);
		sched_point(POINT_COPY, m);
		if (below(12)) /* else it is given up */
			mm_migrate_commit(m);
		mm_migrate_end(m);
	}
	reserve_end(r);
	host_free(move);
}

void move_together(struct sim_actor *a, u64 start, unsigned n)
{
	struct device *d = &world->devices[sim_below(a, world->n_devices)];
	struct mm_move_huge m = {.mm = world->mm, .start = start};
	u64 frame;

	for (; m.n < n && (frame = frame_alloc(d, HOST_HUGE_ORDER)) != ~(u64)0; m.n++)
		m.pages[m.n] = mm_page_init(d->region, frame, HOST_HUGE_ORDER, &world->data);
	sched_note("pages [%u, %u) to device %u, together", page_number(start),
		   page_number(start + m.n * HUGE_SIZE), (unsigned)(d - world->devices));
	if (m.n)
		(void)mm_move_huge(&m);
	for (unsigned i = 0; i < m.n; i++)
		if (!(m.moved >> i & 1))
			mm_page_abandon(m.pages[i]);
	/* As who asked would: what is left goes by itself. But not as small pages, which it
	 * would be ever after. */
	for (unsigned i = 0; i < m.n; i++, start += HUGE_SIZE) {
		frame = m.moved >> i & 1 ? ~(u64)0 : frame_alloc(d, HOST_HUGE_ORDER);
		if (frame == ~(u64)0)
			continue;
		memset(d->used + frame, 0, HOST_HUGE_PAGES);
		move_out(a, start, start + HUGE_SIZE);
	}
}

static s64 device_to_ram(struct mm_cpu_fault *fault)
{
	static const u64 windows[] = {1, 1, 16, 32, 512};
	/* Where huge pages are moved together most of them stay whole. */
	bool whole = world->scenario->together && below(16);
	u64 size = whole ? HUGE_SIZE : windows[below(5)] * PAGE;
	u64 start = host_align_down(fault->address, size);

	move_home(start, start + size);
	return below(16) ? 0 : (s64)(below(100) * HOST_USEC);
}

/* ---- A device's life --------------------------------------------------------------- */

static const struct mm_region_ops device_ops = {
    .migrate_to_ram = device_to_ram,
    .free = device_free,
    .split = device_split,
    .hold = device_hold,
    .drop = device_drop,
    .read = device_read,
};

void device_create(struct device *d)
{
	u64 base = MEMORY_BASE + (u64)(d - world->devices) * FRAMES * PAGE;

	must(mm_region_create(FRAMES, &device_ops, d, &d->region) == 0);
	if (!world->scenario->memory)
		return;
	must(kernel_mmap(base, FRAMES * PAGE, RW) == 0);
	must(mm_memory_add(world->mm, (void *)base, FRAMES * PAGE) == 0);
	mm_region_set_memory(d->region, (void *)base);
	d->memory = base;
}

void device_destroy(struct device *d)
{
	/* What came home with the last faults is given back a moment later. */
	for (u64 i = 0, tries = 0; i < FRAMES; i++)
		while ((d->used[i] || world->holds) && tries++ < 1000)
			host_sleep(HOST_MSEC);
	for (u64 i = 0; i < FRAMES; i++)
		if (d->used[i])
			sched_fail(SCHED_LEAK, "law 8, nothing left: frame %llu is still in use",
				   (unsigned long long)i);
	mm_region_destroy(d->region);
	if (d->memory)
		mm_memory_remove(world->mm, (void *)d->memory, FRAMES * PAGE);
}
