/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * kernel_world.h: host/userfault over the modelled kernel, and threads that use it.
 *
 * A field of memory whose watched pages have a word for each writer. A writer knows
 * what it wrote last and checks it before it writes again (law 1); a child checks that
 * it has what its parent had. Beside them pages are moved, mapped, forked and evicted.
 * The device is a table of frames, with one lane that reaches memory as a GPU does:
 * within an access that invalidations wait for.
 */
#ifndef TESTS_UNIT_KERNEL_WORLD_H
#define TESTS_UNIT_KERNEL_WORLD_H

#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "host/mm.h"
#include "host/model/kernel/kernel.h"
#include "host/model/sched.h"
#include "host/posix/posix.h"
#include "host/userfault/home.h"

#define PAGE HOST_PAGE_SIZE
#define HUGE_SIZE HOST_HUGE_SIZE
#define A KERNEL_USER_BASE
#define RW (KERNEL_READ | KERNEL_WRITE)
#define FRAMES (4 * HOST_HUGE_PAGES)
#define BLOCKS 7u /* 0, 1: the field; 2 to 5: the mapper's; 6: scrap */
#define FIELD_BLOCKS 2u
#define ACTORS 10u

#define must(c)                                                                                    \
	do {                                                                                       \
		if (!(c))                                                                          \
			sched_fail(SCHED_LAW, "line %d: %s", __LINE__, #c);                        \
	} while (0)

enum writer { CPU_0, CPU_1, GPU, DIRECT, FORK, WRITERS };
static const char *const writer_names[] = {"cpu 0", "cpu 1", "gpu", "direct", "fork"};

/* Pages that are watched: neighbours, borders of 64K and of 2M. */
static const u16 watched[] = {0,   1,	2,   3,	  14,  15,  16,	 17,  31,  32,
			      255, 256, 300, 510, 511, 512, 513, 528, 767, 1023};
#define WATCHED host_array_size(watched)

struct actor;
struct role {
	const char *name;
	void (*fn)(struct actor *a);
	u32 rounds;
};

struct scenario {
	const char *name, *about;
	u32 without; /* USERFAULT_WITHOUT_* */
	bool huge;   /* the field begins as huge pages */
	bool whole;  /* and movers take whole blocks only */
	u32 block;   /* movers take this one only; 0: any */
	bool fail;   /* one of the library's allocations fails */
	bool memory; /* frames are ordinary memory, and pages move there */
	struct kernel_whims whims;
	struct role roles[ACTORS];
};

struct actor {
	const struct role *role;
	u32 index;
	struct host_thread thread;
};

static struct world {
	const struct scenario *scenario;
	struct mm *mm;
	struct mm_region *region;
	struct space *space; /* the process */
	u64 field;	     /* its address */
	bool ending;	     /* from here on the laws are not checked in between */
	u8 vram[FRAMES][KERNEL_BYTES] __attribute__((aligned(8)));
	u8 used[FRAMES];
	u64 next_frame;
	u32 data; /* what frames carry points here */
	struct actor actors[ACTORS];
	u32 holds;		       /* CPU faults that are served: the region stays */
	u32 running;		       /* actors with rounds that are not over */
	u64 rounds[WRITERS][WATCHED];  /* what was written last */
	u64 writing[WRITERS][WATCHED]; /* what may have been: the store has begun */
	/* The lane. */
	struct mm_notifier notifier;
	struct host_mutex lane_lock; /* RANK_MIRROR */
	struct host_waitq lane_waitq;
	u64 open;		  /* page that is accessed, or 0; atomic */
	struct host_rwlock pause; /* RANK_RUNTIME: read by the lane, written around forks */
} * world;
static struct world the_world;

static u64 below(u64 n)
{
	return sched_random() % n;
}

/* ---- The device's frames -------------------------------------------------------- */

static u64 frame_alloc(unsigned order)
{
	u64 n = (u64)1 << order;

	/* One by one from where the last was found, not to look at all each time. */
	if (!order)
		for (u64 k = 0; k < FRAMES; k++) {
			u64 i = world->next_frame++ % FRAMES;

			if (!world->used[i]) {
				world->used[i] = 1;
				return i;
			}
		}
	for (u64 i = 0; i + n <= FRAMES; i += n)
		if (!memchr(world->used + i, 1, n)) {
			memset(world->used + i, 1, n);
			return i;
		}
	return ~(u64)0;
}

/* Frames that are ordinary memory lie here. */
#define MEMORY_BASE (A + 24 * HUGE_SIZE)

/* Where a frame is for engines, who ask kernel_touch. */
static u8 *frame_address(u64 index)
{
	return world->scenario->memory ? (u8 *)(MEMORY_BASE + index * PAGE) : world->vram[index];
}

/* Its bytes, good until the next point. */
static u8 *frame_bytes(u64 index, bool write)
{
	u8 *bytes = kernel_touch(frame_address(index), write);

	must(bytes);
	return bytes;
}

static void frame_forget(u64 index)
{
	u64 *words = (u64 *)(void *)world->vram[index];

	for (u32 i = 0; i < KERNEL_BYTES / 8; i++)
		words[i] = KERNEL_NOTHING;
	world->used[index] = 0;
}

static void device_free(struct mm_page *page, unsigned order, void *data)
{
	(void)data;
	for (u64 i = 0; i < (u64)1 << order; i++) {
		must(world->used[mm_page_index(page) + i]);
		frame_forget(mm_page_index(page) + i);
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
	memcpy(buffer, frame_bytes(mm_page_index(page) + i, false), KERNEL_BYTES);
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

static void engine_copies(struct mm_migrate *m)
{
	for (unsigned i = 0; i < m->npages; i++) {
		unsigned order, n = m->src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_PAGES : 1;

		if (!(m->src[i] & MM_MPFN_MIGRATE) || !m->dst[i] || m->dst[i] & MM_MPFN_MOVE)
			continue;
		for (unsigned k = 0; k < n; k++) {
			u64 system = m->dst[i] & MM_MPFN_SYSTEM || !(m->src[i] & MM_MPFN_ZERO)
					 ? mm_migrate_dma(m, i, &order) + k * PAGE
					 : 0;

			if (m->dst[i] & MM_MPFN_SYSTEM)
				engine_copy(
				    (u8 *)system,
				    frame_address(mm_page_index(mm_mpfn_page(m->src[i])) + k));
			else
				engine_copy(
				    frame_address(mm_page_index(mm_mpfn_page(m->dst[i])) + k),
				    (const u8 *)system);
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

static void move_home(struct mm_migrate *m)
{
	if (m->collected && mm_migrate_alloc_system(m) == 0) {
		engine_copies(m);
		mm_migrate_commit(m);
	}
	mm_migrate_end(m);
}

static void home(u64 start, u64 end)
{
	struct move *move = move_make(start, end, MM_MIGRATE_DEVICE);

	if (move && mm_migrate_begin(&move->m) == 0)
		move_home(&move->m);
	host_free(move);
}

static void evict(u64 first, unsigned n)
{
	struct move *move = move_make(0, 0, 0);

	if (!move)
		return;
	move->m.npages = n;
	if (mm_migrate_begin_frames(&move->m, world->region, first) == 0)
		move_home(&move->m);
	host_free(move);
}

/* From frame to frame, as between two devices. */
static void across(u64 start, u64 end)
{
	struct move *move = move_make(start, end, MM_MIGRATE_DEVICE);
	struct mm_migrate *m = move ? &move->m : NULL;

	if (!m)
		return;
	if (mm_migrate_begin(m) == 0) {
		for (unsigned i = 0; i < m->npages; i++) {
			unsigned order = m->src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_ORDER : 0;
			u64 frame, from;

			if (!(m->src[i] & MM_MPFN_MIGRATE))
				continue;
			frame = frame_alloc(order);
			if (frame == ~(u64)0)
				continue;
			from = mm_page_index(mm_mpfn_page(m->src[i]));
			m->dst[i] =
			    mm_mpfn(mm_page_init(world->region, frame, order, &world->data)) |
			    MM_MPFN_MIGRATE | (m->src[i] & MM_MPFN_COMPOUND);
			for (u64 k = 0; k < (u64)1 << order; k++)
				engine_copy(frame_address(frame + k), frame_address(from + k));
			sched_point(POINT_COPY, m);
		}
		mm_migrate_commit(m);
		mm_migrate_end(m);
	}
	host_free(move);
}

static void out(u64 start, u64 end)
{
	struct move *move = move_make(start, end, MM_MIGRATE_SYSTEM);
	struct mm_migrate *m = move ? &move->m : NULL;

	if (!m)
		return;
	if (mm_migrate_begin(m) == 0) {
		for (unsigned i = 0; i < m->npages; i++) {
			unsigned order = m->src[i] & MM_MPFN_COMPOUND ? HOST_HUGE_ORDER : 0;
			u64 frame;

			if (!(m->src[i] & MM_MPFN_MIGRATE) || !below(24))
				continue;
			frame = frame_alloc(order);
			if (frame != ~(u64)0)
				m->dst[i] =
				    mm_mpfn(
					mm_page_init(world->region, frame, order, &world->data)) |
				    MM_MPFN_MIGRATE | (m->src[i] & MM_MPFN_COMPOUND) |
				    (mm_migrate_moves(m, i, world->region) ? MM_MPFN_MOVE : 0);
		}
		engine_copies(m);
		mm_migrate_commit(m);
		mm_migrate_end(m);
	}
	host_free(move);
}

static s64 device_to_ram(struct mm_cpu_fault *fault)
{
	static const u64 windows[] = {1, 1, 16, 32, 512};
	u64 size = windows[below(5)] * PAGE, start = host_align_down(fault->address, size);

	home(start, start + size);
	return below(16) ? 0 : (s64)(below(100) * HOST_USEC);
}

static const struct mm_region_ops device_ops = {
    .migrate_to_ram = device_to_ram,
    .free = device_free,
    .split = device_split,
    .hold = device_hold,
    .drop = device_drop,
    .read = device_read,
};

/* ---- Words ---------------------------------------------------------------------------- */

static u64 value(enum writer w, u32 i, u64 round)
{
	return round ? (u64)(w + 1) << 56 | (u64)(watched[i] + 1) << 40 | round : 0;
}

static u64 word_address(enum writer w, u32 i)
{
	return world->field + watched[i] * PAGE + w * 8;
}

static void wrong(const char *who, enum writer w, u32 i, u64 has)
{
	struct block *b = block_find(world->mm, word_address(w, i));
	entry_t e = b ? block_get(b, page_in_block(word_address(w, i))) : 0;

	sched_fail(SCHED_LAW,
		   "%s: page %u, word of %s: 0x%llx, not 0x%llx (entry: kind %u id %u, kernel: %x)",
		   who, watched[i], writer_names[w], (unsigned long long)has,
		   (unsigned long long)value(w, i, world->rounds[w][i]), entry_kind(e), entry_id(e),
		   kernel_look(kernel_self(), word_address(w, i)));
}

static void word_check(enum writer w, u32 i, u64 has)
{
	if (has != value(w, i, world->rounds[w][i]))
		wrong(writer_names[w], w, i, has);
}

static u64 round_begin(enum writer w, u32 i)
{
	world->writing[w][i] = world->rounds[w][i] + 1;
	return value(w, i, world->writing[w][i]);
}

static void round_end(enum writer w, u32 i)
{
	world->rounds[w][i] = world->writing[w][i];
	sched_progress();
}

/* ---- Actors ---------------------------------------------------------------------------- */

static void write_word(enum writer w, u32 i)
{
	u64 has;

	must(kernel_load(kernel_self(), word_address(w, i), &has) == 0);
	word_check(w, i, has);
	must(kernel_store(kernel_self(), word_address(w, i), round_begin(w, i)) == 0);
	round_end(w, i);
}

static void actor_cpu(struct actor *a)
{
	write_word(a->index ? CPU_1 : CPU_0, (u32)below(WATCHED));
}

/* A word of anyone's is as it was at some time during the load. */
static void actor_read(struct actor *a)
{
	enum writer w = (enum writer)below(WRITERS);
	u32 i = (u32)below(WATCHED);
	u64 before = world->rounds[w][i], has, round;

	(void)a;
	must(kernel_load(kernel_self(), word_address(w, i), &has) == 0);
	round = has & 0xffffffffff;
	if (has != value(w, i, round) || round < before || round > world->writing[w][i])
		wrong("reader", w, i, has);
	sched_progress();
}

static void actor_direct(struct actor *a)
{
	u32 i = (u32)below(WATCHED);
	u64 has;

	(void)a;
	must(kernel_direct_write(word_address(DIRECT, i), round_begin(DIRECT, i)) == 0);
	round_end(DIRECT, i);
	must(kernel_load(kernel_self(), word_address(DIRECT, i), &has) == 0);
	word_check(DIRECT, i, has);
}

/* What a child does to its memory before it looks. */
struct child {
	struct space *space;
	u64 before[WRITERS][WATCHED], after[WRITERS][WATCHED];
	u32 op;
};
enum { CHILD_NOTHING, CHILD_MUNMAP, CHILD_DONTNEED, CHILD_MREMAP, CHILD_OPS };
#define CHILD_AT 15u /* pages that it does it to */
#define CHILD_N 18u
#define CHILD_TO (A + (BLOCKS * HOST_HUGE_PAGES + 64) * PAGE)

static void child_act(const struct child *c)
{
	u64 at = world->field + CHILD_AT * PAGE, length = CHILD_N * PAGE;

	if (c->op == CHILD_MUNMAP)
		must(kernel_munmap(at, length) == 0);
	else if (c->op == CHILD_DONTNEED)
		must(kernel_madvise(at, length, MADV_DONTNEED) == 0);
	else if (c->op == CHILD_MREMAP)
		must(kernel_mremap(at, CHILD_TO, length, false) == 0);
}

/* Each word is as it was at some time during the fork; the forker's own, and the
 * device's, which was paused, exactly. */
static void child_look(const struct child *c, enum writer w, u32 i)
{
	bool changed = watched[i] >= CHILD_AT && watched[i] < CHILD_AT + CHILD_N;
	u64 address = word_address(w, i), has, round;
	int r;

	if (changed && c->op == CHILD_MREMAP)
		address += CHILD_TO - (world->field + CHILD_AT * PAGE);
	r = kernel_load(c->space, address, &has);
	if (changed && c->op == CHILD_MUNMAP) {
		must(r == -EFAULT);
		return;
	}
	must(r == 0);
	round = has & 0xffffffffff;
	if (changed && c->op == CHILD_DONTNEED) {
		if (has)
			wrong("child, after MADV_DONTNEED", w, i, has);
	} else if (has != value(w, i, round) || round < c->before[w][i] || round > c->after[w][i]) {
		wrong("child", w, i, has);
	}
}

static void child_run(void *arg)
{
	const struct child *c = arg;

	kernel_become(c->space);
	child_act(c);
	for (enum writer w = 0; w < WRITERS; w++)
		for (u32 i = 0; i < WATCHED; i++)
			child_look(c, w, i);
	kernel_exit(c->space);
}

static void actor_fork(struct actor *a)
{
	struct child c = {.op = (u32)below(CHILD_OPS)};
	struct host_thread thread;

	(void)a;
	write_word(FORK, (u32)below(WATCHED));
	memcpy(c.before, world->rounds, sizeof(c.before));
	c.space = kernel_fork();
	if (!c.space)
		return;
	memcpy(c.after, world->writing, sizeof(c.after));
	must(host_thread_start(&thread, "child", child_run, &c) == 0);
	host_thread_join(&thread);
	sched_progress();
}

static void lane_access(u64 address, mm_pfn_t pfn, u32 i)
{
	u64 has, *word;

	if (pfn & MM_PFN_DEVICE) {
		struct mm_page *page = mm_pfn_page(world->mm, pfn);

		word = (u64 *)(void *)(frame_bytes(mm_page_index(page), false) + address % PAGE);
		word_check(GPU, i, *word);
		sched_point(POINT_COPY, word);
		word = (u64 *)(void *)(frame_bytes(mm_page_index(page), true) + address % PAGE);
		*word = round_begin(GPU, i);
		round_end(GPU, i);
		return;
	}
	must(kernel_load(kernel_self(), address, &has) == 0);
	word_check(GPU, i, has);
	must(kernel_store(kernel_self(), address, round_begin(GPU, i)) == 0);
	round_end(GPU, i);
}

static bool lane_keep(void *arg, struct mm_page *page)
{
	(void)arg;
	(void)page;
	return true;
}

static bool lane_try(u32 i)
{
	u64 address = word_address(GPU, i), start = host_align_down(address, PAGE);
	mm_pfn_t pfn = 0;
	struct mm_range_fault rf = {.mm = world->mm,
				    .notifier = &world->notifier,
				    .start = start,
				    .end = start + PAGE,
				    .pfns = &pfn,
				    .flags = MM_FAULT_IN | MM_FAULT_WRITE,
				    .keep = lane_keep};

	must(mm_sync(world->mm, start, start + PAGE) == 0);
	rf.seq = mm_notifier_read_begin(&world->notifier);
	if (mm_range_fault(&rf))
		return false;
	host_mutex_lock(&world->lane_lock);
	if (mm_notifier_read_retry(&world->notifier, rf.seq)) {
		host_mutex_unlock(&world->lane_lock);
		return false;
	}
	host_store_release(&world->open, start);
	host_mutex_unlock(&world->lane_lock);
	lane_access(address, pfn, i);
	host_store_release(&world->open, 0);
	host_wake_all(&world->lane_waitq);
	return true;
}

static void actor_gpu(struct actor *a)
{
	u32 i = (u32)below(WATCHED);
	bool done = false;

	(void)a;
	host_read_lock(&world->pause);
	for (u32 tries = 0; !done && tries < 30; tries++)
		done = lane_try(i);
	host_read_unlock(&world->pause);
}

static int lane_invalidate_start(struct mm_notifier *n, const struct mm_invalidation *inv, u64 seq)
{
	(void)inv;
	host_mutex_lock(&world->lane_lock);
	mm_notifier_set_seq(n, seq);
	host_mutex_unlock(&world->lane_lock);
	return 0;
}

static bool lane_clear_of(const struct mm_invalidation *inv)
{
	u64 open = host_load_acquire(&world->open);

	return !open || open < inv->start || open >= inv->end;
}

static void lane_invalidate_finish(struct mm_notifier *n, const struct mm_invalidation *inv)
{
	(void)n;
	host_wait(&world->lane_waitq, lane_clear_of(inv));
}

static const struct mm_notifier_ops lane_ops = {
    .invalidate_start = lane_invalidate_start,
    .invalidate_finish = lane_invalidate_finish,
};

static void fork_prepare(void *arg)
{
	(void)arg;
	host_write_lock(&world->pause);
}

static void fork_parent(void *arg)
{
	(void)arg;
	host_write_unlock(&world->pause);
}

/* Pages of the field or of the mapper's, to the device or back. */
static void actor_mover(struct actor *a)
{
	static const u16 lengths[] = {1, 2, 4, 15, 16, 17, 64, 512, 512};
	u64 block = world->scenario->block ? world->scenario->block : below(BLOCKS),
	    first = below(HOST_HUGE_PAGES);
	u64 n = lengths[below(host_array_size(lengths))];
	u64 start;

	(void)a;
	if (below(3) == 0)
		first = watched[below(WATCHED)] % HOST_HUGE_PAGES;
	if (world->scenario->whole || n == HOST_HUGE_PAGES)
		first = 0, n = HOST_HUGE_PAGES;
	n = host_min(n, HOST_HUGE_PAGES - first);
	start = (block < FIELD_BLOCKS ? world->field : A) + block * HUGE_SIZE + first * PAGE;
	if (below(3))
		out(start, start + n * PAGE);
	else if (below(3) == 0)
		across(start, start + n * PAGE);
	else
		home(start, start + n * PAGE);
	sched_progress();
}

static void actor_evict(struct actor *a)
{
	static const u16 lengths[] = {1, 16, 512};
	u64 n = lengths[below(3)];

	(void)a;
	evict(host_align_down(below(FRAMES), n), (unsigned)n);
	sched_progress();
}

/* ---- The mapper: memory of its own, whose addresses are used again --------------------- */

#define MAPPER_BASE (A + FIELD_BLOCKS * HUGE_SIZE)
#define MAPPER_PAGES (2 * HOST_HUGE_PAGES)

static void expect(u64 base, u64 page, u64 want)
{
	u64 has;

	must(kernel_load(kernel_self(), base + page * PAGE, &has) == 0);
	if (has != want)
		sched_fail(SCHED_LAW, "mapped memory at %llu, page %llu: 0x%llx, not 0x%llx",
			   (unsigned long long)(base - A) / PAGE, (unsigned long long)page,
			   (unsigned long long)has, (unsigned long long)want);
}

static void mapper_move(u64 base, u64 pages)
{
	for (u64 at = 0; at < pages; at += HOST_HUGE_PAGES)
		out(base + at * PAGE, base + host_min(pages, at + HOST_HUGE_PAGES) * PAGE);
}

static void actor_mapper(struct actor *a)
{
	static const u16 at[] = {0, 1, 15, 16, 40, 255, 511, 512, 600, 1023};
	u64 tag = (below(1 << 20) + 1) << 16, cut = below(2) ? 512 : below(1000) + 1;
	u64 base = MAPPER_BASE, other = MAPPER_BASE + MAPPER_PAGES * PAGE;
	u64 has, from = 0, to = MAPPER_PAGES;

	(void)a;
	must(kernel_mmap(base, MAPPER_PAGES * PAGE, RW) == 0);
	if (below(2))
		must(kernel_madvise(base, MAPPER_PAGES * PAGE, MADV_HUGEPAGE) == 0);
	for (u32 i = 0; i < host_array_size(at); i++) {
		expect(base, at[i], 0);
		must(kernel_store(kernel_self(), base + at[i] * PAGE, tag + at[i]) == 0);
	}
	if (below(2))
		mapper_move(base, MAPPER_PAGES);
	switch (below(6)) {
	case 0:
		must(kernel_munmap(base + cut * PAGE, (MAPPER_PAGES - cut) * PAGE) == 0);
		must(kernel_load(kernel_self(), base + 1023 * PAGE, &has) == -EFAULT);
		to = cut;
		break;
	case 1:
		must(kernel_madvise(base, cut * PAGE, MADV_DONTNEED) == 0);
		for (u32 i = 0; i < host_array_size(at) && at[i] < cut; i++)
			expect(base, at[i], 0);
		from = cut;
		break;
	case 2:
		/* Not over two areas, which it is when only a part is registered. */
		if (kernel_mremap(base, other, MAPPER_PAGES * PAGE, false) == 0)
			base = other;
		break;
	case 3:
		if (kernel_mremap(base, other + 16 * PAGE, 512 * PAGE, below(2)))
			break;
		for (u32 i = 0; i < host_array_size(at) && at[i] < 512; i++)
			expect(other + 16 * PAGE, at[i], tag + at[i]);
		from = 512;
		break;
	case 4:
		must(kernel_mprotect(base, cut * PAGE, KERNEL_READ) == 0);
		for (u32 i = 0; i < host_array_size(at); i++)
			expect(base, at[i], tag + at[i]);
		must(kernel_mprotect(base, cut * PAGE, RW) == 0);
		break;
	default:
		must(kernel_mmap(base + cut * PAGE, (MAPPER_PAGES - cut) * PAGE, RW) == 0);
		for (u32 i = 0; i < host_array_size(at); i++)
			if (at[i] >= cut)
				expect(base, at[i], 0);
		to = cut;
	}
	for (u32 i = 0; i < host_array_size(at); i++)
		if (at[i] >= from && at[i] < to)
			expect(base, at[i], tag + at[i]);
	must(kernel_munmap(other, 2 * MAPPER_PAGES * PAGE) == 0);
	sched_progress();
}

/* Memory that several threads write to and drop at the same time: what is there is what
 * one of them wrote, or nothing. */
#define SCRAP_BASE (A + 6 * HUGE_SIZE)
#define SCRAP 0x5c4a000000000000ull

static void actor_scrap(struct actor *a)
{
	static const u16 pages[] = {0, 1, 2, 15, 16, 40, 511};
	u64 page = pages[below(host_array_size(pages))], address = SCRAP_BASE + page * PAGE, has;
	u64 n = below(4) ? 1 + below(HOST_HUGE_PAGES - page) : HOST_HUGE_PAGES - page;

	(void)a;
	switch (below(5)) {
	case 0:
		must(kernel_madvise(address, n * PAGE, MADV_DONTNEED) == 0);
		break;
	case 1:
		must(kernel_madvise(address, n * PAGE, MADV_FREE) == 0);
		break;
	case 2:
		must(kernel_store(kernel_self(), address, SCRAP + page) == 0);
		break;
	case 3:
		must(kernel_madvise(SCRAP_BASE, HUGE_SIZE,
				    below(2) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0);
		break;
	default:
		must(kernel_load(kernel_self(), address, &has) == 0);
		must(!has || has == SCRAP + page);
	}
	sched_progress();
}

/* The same on few pages, and more often. */
static void actor_drop_scrap(struct actor *a)
{
	u64 page = below(4), address = SCRAP_BASE + page * PAGE;

	(void)a;
	if (below(2))
		must(kernel_madvise(SCRAP_BASE, 4 * PAGE, MADV_DONTNEED) == 0);
	else
		must(kernel_store(kernel_self(), address, SCRAP + page) == 0);
	sched_progress();
}

/* Drops pages of the field that nobody watches, beside those that are. */
static void actor_drop(struct actor *a)
{
	u64 first = 40 + below(100), n = 1 + below(100), address = world->field + first * PAGE;

	(void)a;
	must(kernel_store(kernel_self(), address, SCRAP + first) == 0);
	must(kernel_madvise(address, n * PAGE, MADV_DONTNEED) == 0);
	sched_progress();
}

/* Until the others are over. */
static void actor_daemon(struct actor *a)
{
	(void)a;
	if (below(2))
		kernel_daemon_step(A, A + BLOCKS * HUGE_SIZE);
	else
		kernel_daemon_step(world->field, world->field + FIELD_BLOCKS * HUGE_SIZE);
	/* Rarely while everybody waits for a clock. */
	host_sleep(below(8) ? below(3) * HOST_USEC : below(200) * HOST_MSEC);
}

/* ---- Law 2, now and then ------------------------------------------------------------------- */

/* A page on the device has one home: nothing is at its address, and its frame names it.
 * While a change is not told and applied yet, and within a section, this need not be so. */
static void check_page(const struct block *b, unsigned i)
{
	u64 address = b->address + i * PAGE;
	entry_t e = block_get(b, i);
	const struct mm_page *page;

	if (entry_kind(e) != ENTRY_DEVICE)
		return;
	if (kernel_look(world->space, address) & KERNEL_PRESENT)
		sched_fail(SCHED_LAW, "page %llu is on the device, and in system memory",
			   (unsigned long long)((address - A) / PAGE));
	page = frame_page(world->mm, entry_id(b->pages ? e : b->uniform), !b->pages);
	if (page->rmap != rmap(b, b->pages ? i : 0))
		sched_fail(SCHED_LAW, "page %llu is on the device, and its frame is another's",
			   (unsigned long long)((address - A) / PAGE));
}

static void world_check(void *arg)
{
	struct mm *mm = world ? world->mm : NULL;

	(void)arg;
	if (!mm || mm != the_mm || world->ending || kernel_changing() || mm->gate.writer)
		return;
	for (u32 k = 1; k < mm->n_blocks; k++)
		for (unsigned i = 0; i < HOST_HUGE_PAGES && !mm->by_number[k]->lock.owner; i++)
			check_page(mm->by_number[k], i);
}

/* ---- The run ------------------------------------------------------------------------------ */

static void actor_run(void *arg)
{
	struct actor *a = arg;

	if (!a->role->rounds) {
		while (host_load_acquire(&world->running))
			a->role->fn(a);
		return;
	}
	for (u32 i = 0; i < a->role->rounds; i++)
		a->role->fn(a);
	host_add_return(&world->running, (u32)-1);
}

/* Where not all memory can move, the library's own allocations can. */
static void field_map(void)
{
	u64 size = FIELD_BLOCKS * HUGE_SIZE;

	if (!world->scenario->without) {
		world->field = A;
		must(kernel_mmap(A, size, RW) == 0);
		return;
	}
	world->field = (u64)userfault_alloc(world->mm, size);
	must(world->field);
	if (!world->scenario->huge)
		must(kernel_madvise(world->field, size, MADV_NOHUGEPAGE) == 0);
}

static void world_begin(void)
{
	struct userfault_hooks hooks = {.fork_prepare = fork_prepare, .fork_parent = fork_parent};

	host_mutex_init(&world->lane_lock, RANK_MIRROR);
	host_waitq_init(&world->lane_waitq);
	host_rwlock_init(&world->pause, RANK_RUNTIME);
	must(host_arena_open(0) == 0);
	must(userfault_open(world->scenario->without, &hooks, &world->mm) == 0);
	must(mm_region_create(FRAMES, &device_ops, NULL, &world->region) == 0);
	if (world->scenario->memory) {
		must(kernel_mmap(MEMORY_BASE, FRAMES * PAGE, RW) == 0);
		must(mm_memory_add(world->mm, (void *)MEMORY_BASE, FRAMES * PAGE) == 0);
		mm_region_set_memory(world->region, (void *)MEMORY_BASE);
	}
	must(mm_notifier_insert(&world->notifier, world->mm, A, A + ((u64)2 << 40), &lane_ops) ==
	     0);
	field_map();
	must(kernel_mmap(SCRAP_BASE, HUGE_SIZE, RW) == 0);
	if (world->scenario->huge)
		must(kernel_madvise(world->field, FIELD_BLOCKS * HUGE_SIZE, MADV_HUGEPAGE) == 0);
	if (world->scenario->huge || below(2))
		for (u32 i = 0; i < WATCHED; i++)
			write_word(CPU_0, i);
}

static void world_end(void)
{
	static const struct kernel_whims none;
	u64 has;

	world->ending = true;
	kernel_whims_set(&none);
	for (u32 w = 0; w < WRITERS; w++)
		for (u32 i = 0; i < WATCHED; i++) {
			must(kernel_load(kernel_self(), word_address(w, i), &has) == 0);
			word_check(w, i, has);
		}
	if (world->field != A)
		must(userfault_free(world->mm, (void *)world->field) == 0);
	must(kernel_munmap(A, BLOCKS * HUGE_SIZE) == 0);
	must(mm_sync(world->mm, 0, ~(u64)0) == 0);
	mm_notifier_remove(&world->notifier);
	/* What came home with the last faults is given back a moment later. */
	for (u64 i = 0, tries = 0; i < FRAMES; i++)
		while ((world->used[i] || world->holds) && tries++ < 1000)
			host_sleep(HOST_MSEC);
	for (u64 i = 0; i < FRAMES; i++)
		if (world->used[i])
			sched_fail(SCHED_LEAK, "frame %llu is still in use", (unsigned long long)i);
	mm_region_destroy(world->region);
	if (world->scenario->memory)
		mm_memory_remove(world->mm, (void *)MEMORY_BASE, FRAMES * PAGE);
	userfault_close(world->mm);
	must(kernel_waiting() == 0);
	host_rwlock_destroy(&world->pause);
	host_mutex_destroy(&world->lane_lock);
	host_waitq_destroy(&world->lane_waitq);
	must(host_arena_close() == 0);
}

/* On fiber 0. */
static void world_run(void *arg)
{
	u32 n = 0;

	world = &the_world;
	memset(world, 0, sizeof(*world));
	world->scenario = arg;
	the_mm = NULL; /* of a run that failed */
	kernel_boot(&(struct kernel_whims){.steps = 64});
	world->space = kernel_self();
	world_begin();
	kernel_whims_set(&world->scenario->whims);
	for (const struct role *role = world->scenario->roles; role->fn; role++)
		world->running += role->rounds != 0;
	for (const struct role *role = world->scenario->roles; role->fn; role++, n++) {
		world->actors[n].role = role;
		world->actors[n].index = n && role[-1].fn == role->fn;
		must(host_thread_start(&world->actors[n].thread, role->name, actor_run,
				       &world->actors[n]) == 0);
	}
	if (world->scenario->fail)
		host_posix_fail_alloc_at(1 + below(80));
	for (u32 i = 0; i < n; i++)
		host_thread_join(&world->actors[i].thread);
	host_posix_fail_alloc_at(0);
	world_end();
}

#endif
