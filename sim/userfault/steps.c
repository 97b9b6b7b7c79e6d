/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* steps.c: what actors do, on memory of the process; each says so (sched_note). */
#include "sim/userfault/world.h"

u32 any_page(const struct sim *s, struct sim_actor *a)
{
	return (u32)sim_below(a, s->n_watched);
}

void cpu_step(struct sim *s, struct sim_actor *a)
{
	/* Two of these stand side by side. */
	bool second = a->index && a->role[-1].step == cpu_step;

	word_write(second ? CPU_1 : CPU_0, any_page(s, a));
}

/* A word of anyone's is as it was at some time during the load. */
void read_step(struct sim *s, struct sim_actor *a)
{
	enum writer w = (enum writer)sim_below(a, WRITERS);
	u32 i = any_page(s, a);
	u64 before = s->rounds[w][i], has, round;

	sched_note("reads page %u, word of %s", watched[i], writer_names[w]);
	must(kernel_load(kernel_self(), word_address(w, i), &has) == 0);
	round = has & 0xffffffffff;
	if (has != word_value(w, i, round) || round < before || round > s->writing[w][i])
		word_wrong("reader", w, i, has);
	sched_progress();
}

void direct_step(struct sim *s, struct sim_actor *a)
{
	u32 i = any_page(s, a);
	u64 has;

	sched_note("O_DIRECT to page %u", watched[i]);
	must(kernel_direct_write(word_address(DIRECT, i), word_begin(DIRECT, i)) == 0);
	word_end(DIRECT, i);
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
	static const char *const ops[] = {"looks", "munmaps", "drops", "mremaps"};
	u64 at = world->field + CHILD_AT * PAGE, length = CHILD_N * PAGE;

	sched_note("the child %s pages [%u, %u)", ops[c->op], CHILD_AT, CHILD_AT + CHILD_N);
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
			word_wrong("child, after MADV_DONTNEED", w, i, has);
	} else if (has != word_value(w, i, round) || round < c->before[w][i] ||
		   round > c->after[w][i]) {
		word_wrong("child", w, i, has);
	}
}

static void child_run(void *arg)
{
	const struct child *c = arg;

	kernel_become(c->space);
	child_act(c);
	for (enum writer w = 0; w < WRITERS; w++)
		for (u32 i = 0; i < world->n_watched; i++)
			child_look(c, w, i);
	kernel_exit(c->space);
}

void fork_step(struct sim *s, struct sim_actor *a)
{
	struct child c = {.op = (u32)sim_below(a, CHILD_OPS)};
	struct host_thread thread;

	word_write(FORK, any_page(s, a));
	memcpy(c.before, s->rounds, sizeof(c.before));
	sched_note("forks");
	c.space = kernel_fork();
	sched_note("fork is over");
	if (!c.space)
		return;
	memcpy(c.after, s->writing, sizeof(c.after));
	/* The child is there, whether or not there is memory for a fiber. */
	while (host_thread_start(&thread, "child", child_run, &c))
		host_sleep(HOST_USEC);
	host_thread_join(&thread);
	sched_progress();
}

/* To a device, from one to another, or home. */
static void move_somewhere(struct sim_actor *a, u64 start, u64 end)
{
	if (sim_below(a, 3))
		move_out(a, start, end);
	else if (sim_below(a, 3) == 0)
		move_across(a, start, end);
	else
		move_home(start, end);
	sched_progress();
}

void out_step(struct sim *s, struct sim_actor *a)
{
	move_out(a, s->field, s->field + s->n_watched * PAGE);
	sched_progress();
}

void home_step(struct sim *s, struct sim_actor *a)
{
	move_home(s->field, s->field + s->n_watched * PAGE);
	sched_progress();
}

/* The first pages of what the other actor works on, when all schedules are explored. */
static u64 few_pages(const struct sim *s, const struct sim_actor *a, u64 *n)
{
	const struct sim_role *roles = s->scenario->roles;
	bool mapper = false;

	for (u32 i = 0; i < SIM_ACTORS; i++)
		mapper |= a->c->keep[i] && roles[i].step == mapper_step;
	*n = s->n_watched;
	return mapper ? MAPPER_BASE : s->field;
}

/* Pages of the field or of the mapper's. */
void mover_step(struct sim *s, struct sim_actor *a)
{
	static const u16 lengths[] = {1, 2, 4, 15, 16, 17, 64, 512, 512};
	u64 block = s->scenario->block ? s->scenario->block : sim_below(a, BLOCKS),
	    first = sim_below(a, HOST_HUGE_PAGES);
	u64 n = lengths[sim_below(a, host_array_size(lengths))];
	u64 start;

	if (sim_below(a, 3) == 0)
		first = watched[any_page(s, a)] % HOST_HUGE_PAGES;
	if (s->scenario->whole || n == HOST_HUGE_PAGES)
		first = 0, n = HOST_HUGE_PAGES;
	n = host_min(n, HOST_HUGE_PAGES - first);
	start = (block < FIELD_BLOCKS ? s->field : A) + block * HUGE_SIZE + first * PAGE;
	if (s->small && !s->scenario->whole)
		start = few_pages(s, a, &n);
	move_somewhere(a, start, start + n * PAGE);
}

void together_step(struct sim *s, struct sim_actor *a)
{
	u64 first = sim_below(a, 3) ? 0 : sim_below(a, BLOCKS - 1), n = 2 + sim_below(a, 3);
	u64 start = A + first * HUGE_SIZE;

	n = host_min(n, BLOCKS - first);
	if (sim_below(a, 3))
		move_together(a, start, (unsigned)n);
	else
		for (; n; n--, start += HUGE_SIZE)
			move_home(start, start + HUGE_SIZE);
	sched_progress();
}

void evict_step(struct sim *s, struct sim_actor *a)
{
	static const u16 lengths[] = {1, 16, 512};
	u64 n = s->scenario->together ? HOST_HUGE_PAGES : lengths[sim_below(a, 3)];
	struct device *d = &s->devices[sim_below(a, s->n_devices)];

	move_evict(d, host_align_down(sim_below(a, FRAMES), n), (unsigned)n);
	sched_progress();
}

/* Memory that several threads write to and drop at the same time: what is there is what
 * one of them wrote, or nothing. */
#define SCRAP 0x5c4a000000000000ull

void scrap_step(struct sim *s, struct sim_actor *a)
{
	static const u16 pages[] = {0, 1, 2, 15, 16, 40, 511};
	u64 page = pages[sim_below(a, host_array_size(pages))], address = SCRAP_BASE + page * PAGE,
	    has;
	u64 n = sim_below(a, 4) ? 1 + sim_below(a, HOST_HUGE_PAGES - page) : HOST_HUGE_PAGES - page;

	switch (sim_below(a, 5)) {
	case 0:
		sched_note("drops scrap [%u, %u)", (unsigned)page, (unsigned)(page + n));
		must(kernel_madvise(address, n * PAGE, MADV_DONTNEED) == 0);
		break;
	case 1:
		sched_note("frees scrap [%u, %u)", (unsigned)page, (unsigned)(page + n));
		must(kernel_madvise(address, n * PAGE, MADV_FREE) == 0);
		break;
	case 2:
		sched_note("writes scrap %u", (unsigned)page);
		must(kernel_store(kernel_self(), address, SCRAP + page) == 0);
		break;
	case 3:
		must(kernel_madvise(SCRAP_BASE, HUGE_SIZE,
				    sim_below(a, 2) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) == 0);
		break;
	default:
		must(kernel_load(kernel_self(), address, &has) == 0);
		if (has && has != SCRAP + page)
			sched_fail(SCHED_LAW, "law 1, no lost write: scrap %u has 0x%llx",
				   (unsigned)page, (unsigned long long)has);
	}
	sched_progress();
}

/* The same on few pages, and more often. */
void drop_scrap_step(struct sim *s, struct sim_actor *a)
{
	u64 page = sim_below(a, 4), address = SCRAP_BASE + page * PAGE;

	sched_note("writes or drops scrap %u", (unsigned)page);
	if (sim_below(a, 2))
		must(kernel_madvise(SCRAP_BASE, 4 * PAGE, MADV_DONTNEED) == 0);
	else
		must(kernel_store(kernel_self(), address, SCRAP + page) == 0);
	sched_progress();
}

/* Drops pages of the field that nobody watches, beside those that are. */
void drop_step(struct sim *s, struct sim_actor *a)
{
	u64 first = 40 + sim_below(a, 100), n = 1 + sim_below(a, 100),
	    address = s->field + first * PAGE;

	sched_note("drops pages [%u, %u)", (unsigned)first, (unsigned)(first + n));
	must(kernel_store(kernel_self(), address, SCRAP + first) == 0);
	must(kernel_madvise(address, n * PAGE, MADV_DONTNEED) == 0);
	sched_progress();
}

/* Until the others are over. */
void daemon_step(struct sim *s, struct sim_actor *a)
{
	if (sim_below(a, 2))
		kernel_daemon_step(A, A + BLOCKS * HUGE_SIZE);
	else
		kernel_daemon_step(s->field, s->field + FIELD_BLOCKS * HUGE_SIZE);
	/* Rarely while everybody waits for a clock. */
	host_sleep(sim_below(a, 8) ? sim_below(a, 3) * HOST_USEC : sim_below(a, 200) * HOST_MSEC);
}
