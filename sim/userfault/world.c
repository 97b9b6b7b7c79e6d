/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * world.c: one run over the modelled kernel: its beginning, its end, and the laws:
 *   at each access   what is there is what was written last (law 1)
 *   now and then     one home (law 2)
 *   at the end       every word, frame, thread and byte (laws 1 and 8)
 */
#include "sim/userfault/world.h"

struct sim *world;
static struct sim the_world;

const char *const writer_names[WRITERS] = {"cpu 0", "cpu 1", "gpu", "direct", "fork"};

/* Pages that are watched: neighbours, borders of 64K and of 2M. */
const u16 watched[WATCHED] = {0,   1,	2,   3,	  14,  15,  16,	 17,  31,  32,
			      255, 256, 300, 510, 511, 512, 513, 528, 767, 1023};

u64 below(u64 n)
{
	return sched_random() % n;
}

/* ---- Words ---------------------------------------------------------------------------- */

u64 word_value(enum writer w, u32 i, u64 round)
{
	return round ? (u64)(w + 1) << 56 | (u64)(watched[i] + 1) << 40 | round : 0;
}

u64 word_address(enum writer w, u32 i)
{
	return world->field + watched[i] * PAGE + w * 8;
}

void word_wrong(const char *who, enum writer w, u32 i, u64 has)
{
	struct block *b = block_find(world->mm, word_address(w, i));
	entry_t e = b ? block_get(b, page_in_block(word_address(w, i))) : 0;

	sched_fail(SCHED_LAW,
		   "law 1, no lost write: %s: page %u, word of %s: 0x%llx, not 0x%llx (entry: kind "
		   "%u id %u, kernel: %x)",
		   who, watched[i], writer_names[w], (unsigned long long)has,
		   (unsigned long long)word_value(w, i, world->rounds[w][i]), entry_kind(e),
		   entry_id(e), kernel_look(kernel_self(), word_address(w, i)));
}

void word_check(enum writer w, u32 i, u64 has)
{
	if (has != word_value(w, i, world->rounds[w][i]))
		word_wrong(writer_names[w], w, i, has);
}

u64 word_begin(enum writer w, u32 i)
{
	world->writing[w][i] = world->rounds[w][i] + 1;
	return word_value(w, i, world->writing[w][i]);
}

void word_end(enum writer w, u32 i)
{
	world->rounds[w][i] = world->writing[w][i];
	sched_progress();
}

void word_write(enum writer w, u32 i)
{
	u64 has;

	sched_note("writes page %u, word of %s", watched[i], writer_names[w]);
	must(kernel_load(kernel_self(), word_address(w, i), &has) == 0);
	word_check(w, i, has);
	must(kernel_store(kernel_self(), word_address(w, i), word_begin(w, i)) == 0);
	word_end(w, i);
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
		sched_fail(SCHED_LAW,
			   "law 2, one home: page %llu is on the device, and in system memory",
			   (unsigned long long)((address - A) / PAGE));
	page = frame_page(world->mm, entry_id(b->pages ? e : b->uniform), !b->pages);
	if (page->rmap != rmap(b, b->pages ? i : 0))
		sched_fail(
		    SCHED_LAW,
		    "law 2, one home: page %llu is on the device, and its frame is another's",
		    (unsigned long long)((address - A) / PAGE));
}

static void check(void *arg)
{
	struct mm *mm = world ? world->mm : NULL;

	(void)arg;
	if (!mm || mm != the_mm || world->ending || kernel_changing() || mm->gate.writer)
		return;
	for (u32 k = 1; k < mm->n_blocks; k++)
		for (unsigned i = 0; i < HOST_HUGE_PAGES && !mm->by_number[k]->lock.owner; i++)
			check_page(mm->by_number[k], i);
}

static void forget(void)
{
	world = NULL;
	the_mm = NULL;
}

/* ---- Adversaries ------------------------------------------------------------------------ */

/* True: calls may fail. */
static bool arm(struct kernel_whims *whims, const struct sim_adversary *adversary)
{
	u32 n = adversary->n;

	switch (adversary->kind) {
	case ADVERSARY_ALLOC:
		host_posix_fail_alloc_at(n);
		return true;
	case ADVERSARY_LATE:
		whims->late = host_max(whims->late, n);
		break;
	case ADVERSARY_BUSY:
		whims->busy = host_max(whims->busy, n);
		break;
	case ADVERSARY_MEMORY:
		whims->memory = host_max(whims->memory, n);
		break;
	case ADVERSARY_MIGRATE:
		whims->migrate = host_max(whims->migrate, n);
		break;
	case ADVERSARY_DENY:
		whims->deny = host_max(whims->deny, n);
		break;
	default:
		break;
	}
	return false;
}

static const u32 adversaries[] = {ADVERSARY_LATE, ADVERSARY_BUSY, ADVERSARY_MEMORY,
				  ADVERSARY_MIGRATE, ADVERSARY_DENY};

/* ---- The run ---- */

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

static void begin(const struct sim_case *c)
{
	const struct sim_scenario *sc = world->scenario;

	must(host_arena_open(0) == 0);
	must(userfault_open(sc->without, &lane_hooks, &world->mm) == 0);
	for (u32 i = 0; i < world->n_devices; i++)
		device_create(&world->devices[i]);
	lane_create();
	field_map();
	must(kernel_mmap(SCRAP_BASE, HUGE_SIZE, RW) == 0);
	if (sc->huge)
		must(kernel_madvise(world->field, FIELD_BLOCKS * HUGE_SIZE, MADV_HUGEPAGE) == 0);
	if (sc->huge || c->seed % 2)
		for (u32 i = 0; i < world->n_watched; i++)
			word_write(CPU_0, i);
	if (sc->together) /* not one by one first */
		must(mm_watch(world->mm, world->field,
			      world->field + FIELD_BLOCKS * HUGE_SIZE) == 0);
}

static void end(void)
{
	static const struct kernel_whims none;
	u64 has;

	world->ending = true;
	host_posix_fail_alloc_at(0);
	kernel_whims_set(&none);
	for (u32 w = 0; w < WRITERS; w++)
		for (u32 i = 0; i < world->n_watched; i++) {
			must(kernel_load(kernel_self(), word_address(w, i), &has) == 0);
			word_check(w, i, has);
		}
	if (world->field != A)
		must(userfault_free(world->mm, (void *)world->field) == 0);
	must(kernel_munmap(A, BLOCKS * HUGE_SIZE) == 0);
	must(mm_sync(world->mm, 0, ~(u64)0) == 0);
	mm_notifier_remove(&world->notifier);
	for (u32 i = 0; i < world->n_devices; i++)
		device_destroy(&world->devices[i]);
	userfault_close(world->mm);
	must(kernel_waiting() == 0);
	lane_destroy();
	must(host_arena_close() == 0);
}

static void run(void *arg)
{
	const struct sim_case *c = arg;
	struct kernel_whims whims;
	bool failing = false;

	world = &the_world;
	memset(world, 0, offsetof(struct sim, devices) + c->devices * sizeof(struct device));
	world->scenario = sim_scenario_at(c->scenario);
	world->n_devices = c->devices;
	world->n_watched = c->pages		    ? c->pages
			   : world->scenario->pages ? world->scenario->pages
						    : WATCHED;
	world->small = c->pages != 0;
	sched_explore_here(false);
	the_mm = NULL;
	kernel_abandon();
	kernel_boot(&(struct kernel_whims){.steps = 64});
	world->space = kernel_self();
	begin(c);
	whims = world->scenario->whims;
	for (u32 i = 0; i < SIM_ADVERSARIES; i++)
		failing |= arm(&whims, &c->adversaries[i]);
	kernel_whims_set(&whims);
	/* The home's threads come to rest, or all schedules of their beginning were seen. */
	if (world->small)
		host_sleep(HOST_MSEC);
	sched_explore_here(true);
	sim_act(world, c, failing);
	sched_explore_here(false);
	end();
}

const struct sim_level sim_userfault_level = {
    .name = "userfault",
    .scenarios = userfault_scenarios,
    .run = run,
    .check = check,
    .check_period = 499,
    .begin = forget,
    .adversaries = adversaries,
    .n_adversaries = host_array_size(adversaries),
    .reach = {[ADVERSARY_ALLOC] = 100,
	      [ADVERSARY_LATE] = 300,
	      [ADVERSARY_BUSY] = 64,
	      [ADVERSARY_MEMORY] = 64,
	      [ADVERSARY_MIGRATE] = 64,
	      [ADVERSARY_DENY] = 512},
    .pct_length = 20000,
    .pct_depths = 13,
    /* Some stay off the processor for long. */
    .max_idle_points = 4000000,
    .max_idle_time = 1000 * HOST_SEC,
    .atomics_ordered = true,
    .small = 2,
};
