/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * world.c: one run of a scenario: the world's beginning, its actors, its end; and
 * the laws that are checked in between:
 *   at each copy      devices touch nothing that was taken from them (law 3)
 *   at each end of an invalidation's second pass  page tables have let go (law 3)
 *   now and then      the model's invariants: one home (law 2)
 *   at the end        data, counts, memory (laws 1, 2, 8)
 */
#include "sim/private.h"

#include <stdio.h>
#include <string.h>

/* More faults than this many small accesses can have. */
#define SIM_CPU_FAULTS 1000u

/* The world that runs: for hooks, which have no argument. */
static struct sim *world;

/* ---- Laws at each step ------------------------------------------------------------ */

/* Bytes of system or device memory are about to be touched. */
static void on_touch(const void *p, size_t n, bool write)
{
	struct model_frame *frame;

	if (!world || world->over || model_on_cpu())
		return;
	for (u32 i = 0; i < world->n_devices; i++) {
		struct sim_device *d = &world->devices[i];
		u64 at = (u64)((const u8 *)p - d->vram);

		if (d->removed || at >= d->vram_bytes)
			continue;
		for (u64 k = at >> HOST_PAGE_SHIFT; k << HOST_PAGE_SHIFT < at + n; k++)
			if (!d->pagemap->region || !model_page_used(d->pagemap->region, k))
				sched_fail(SCHED_LAW,
					   "law 3, nothing after invalidate: frame %llu of gpu%u, "
					   "which is free, is %s",
					   (unsigned long long)k, i, write ? "written" : "read");
		return;
	}
	sched_quiet(1);
	frame = model_frame_at(p);
	sched_quiet(-1);
	if (frame && !model_frame_reached(frame))
		sched_fail(SCHED_LAW,
			   "law 3, nothing after invalidate: a page of system memory that no "
			   "device has mapped is %s by one",
			   write ? "written" : "read");
}

/* Every notifier has let [start, end) go. */
static void on_told(struct mm *mm, const struct mm_invalidation *inv)
{
	struct sim *s = world;
	struct gpusvm_addr addr;
	u64 start, end;

	if (!s || s->over || mm != s->mm)
		return;
	start = host_max(inv->start, SIM_BASE + s->scenario->first * HOST_PAGE_SIZE);
	end = host_min(inv->end, SIM_BASE + (s->scenario->first + s->pages) * HOST_PAGE_SIZE);
	sched_quiet(1);
	for (u32 i = 0; i < s->n_devices; i++) {
		struct driver_device *dd = s->driver->devices[i];

		if (s->devices[i].removing || driver_removed(dd))
			continue;
		for (u64 va = start; va < end; va += HOST_PAGE_SIZE)
			if (dd->ops->vm_query(dd->vm, va, &addr))
				sched_fail(
				    SCHED_LAW,
				    "law 3, nothing after invalidate: gpu%u still has page "
				    "%llu in its page table",
				    i,
				    (unsigned long long)((va - SIM_BASE) >> HOST_PAGE_SHIFT) -
					s->watched);
	}
	sched_quiet(-1);
}

static void check(void *arg)
{
	const char *wrong = NULL;

	(void)arg;
	if (!world || world->over || model_is_locked(world->mm))
		return;
	wrong = model_check_frozen(world->mm, false);
	if (wrong)
		sched_fail(SCHED_LAW, "law 2, one home: %s", wrong);
}

static void forget(void)
{
	world = NULL;
	model_begin();
}

/* ---- Adversaries -------------------------------------------------------------------- */

static void arm_device(struct sim *s, enum gpusvm_soft_misbehaviour which, u32 n)
{
	for (u32 i = 0; i < s->n_devices; i++)
		gpusvm_soft_misbehave(s->devices[i].device, which, n);
}

static void arm(struct sim *s, const struct sim_adversary *adversary)
{
	static const enum model_site sites[ADVERSARIES] = {
	    [ADVERSARY_BEGIN] = MODEL_FAIL_BEGIN,
	    [ADVERSARY_ISOLATE] = MODEL_FAIL_ISOLATE,
	    [ADVERSARY_SYSTEM_PAGE] = MODEL_FAIL_SYSTEM_PAGE,
	    [ADVERSARY_HUGE_PAGE] = MODEL_FAIL_HUGE_PAGE,
	    [ADVERSARY_COMMIT] = MODEL_FAIL_COMMIT,
	    [ADVERSARY_DMA_MAP] = MODEL_FAIL_DMA_MAP,
	    [ADVERSARY_NOTIFIER] = MODEL_FAIL_NOTIFIER,
	    [ADVERSARY_RANGE_FAULT] = MODEL_FAIL_RANGE_FAULT,
	    [ADVERSARY_RANGE_BUSY] = MODEL_FAIL_RANGE_BUSY,
	};
	u32 n = adversary->n;

	switch (adversary->kind) {
	case ADVERSARY_NONE:
		return;
	case ADVERSARY_ALLOC:
		host_posix_fail_alloc_at(n);
		s->failures++;
		return;
	case ADVERSARY_FAIL_COPY:
		arm_device(s, GPUSVM_SOFT_FAIL_COPY, n);
		s->failures++;
		return;
	case ADVERSARY_DROP_FAULT:
		arm_device(s, GPUSVM_SOFT_DROP_FAULT, n);
		return;
	case ADVERSARY_DUPLICATE_FAULT:
		arm_device(s, GPUSVM_SOFT_DUPLICATE_FAULT, n);
		return;
	case ADVERSARY_DELAY_FAULT:
		arm_device(s, GPUSVM_SOFT_DELAY_FAULT, n);
		return;
	case ADVERSARY_DELAY_FLUSH:
		arm_device(s, GPUSVM_SOFT_DELAY_FLUSH, n * 1000);
		return;
	case ADVERSARY_ISOLATE:
	case ADVERSARY_HUGE_PAGE:
	case ADVERSARY_COMMIT:
	case ADVERSARY_RANGE_BUSY:
		break; /* no call may fail because of these */
	default:
		s->failures++;
	}
	model_fail(s->mm, sites[adversary->kind], n, 1 + n % 3);
}

/* ---- Beginning ------------------------------------------------------------------------- */

/* Leaves so many frames: what is taken here stays so until the device's end. */
static void take_frames(struct gpusvm_device *device, u32 leave)
{
	u32 frames = HOST_HUGE_PAGES - leave;
	u64 frame;

	for (unsigned order = HOST_HUGE_ORDER; frames; order--)
		if (frames >> order & 1) {
			HOST_CHECK(device->ops->memory_alloc(device, order, &frame) == 0);
			frames &= ~(1u << order);
		}
}

static void add_device(struct sim *s)
{
	const struct sim_scenario *sc = s->scenario;
	struct sim_device *d = &s->devices[s->n_devices];
	struct gpusvm_soft_options options = {
	    .vram_bytes = HOST_HUGE_SIZE,
	    .lanes = 1,
	    .copy_engines = 1,
	    .fault_entries = 4,
	    .flags = s->n_devices ? 0 : sc->device_flags,
	    .no_system_atomics = sc->split_atomics,
	};
	bool memory = !(sc->no_memory >> s->n_devices & 1);
	int index;

	if (!memory)
		options.flags |= GPUSVM_DEVICE_NO_VRAM;
	HOST_CHECK(gpusvm_soft_create(&options, &d->device) == 0);
	if (sc->frames && memory)
		take_frames(d->device, sc->frames);
	index = gpusvm_driver_device_add(s->driver, d->device);
	HOST_CHECK(index == (int)s->n_devices);
	HOST_CHECK(gpusvm_driver_queue_create(s->driver, index, &d->queue) == 0);
	if (memory) {
		d->frames = d->device->ops->memory_free_bytes(d->device);
		d->vram = gpusvm_soft_memory(d->device, 0);
		d->vram_bytes = d->device->caps.vram_bytes;
	}
	d->pagemap = &s->driver->devices[index]->pagemap;
	s->n_devices++;
}

static void link_all(struct sim *s)
{
	struct gpusvm_interconnect_link link = {.flags = GPUSVM_LINK_MAP | GPUSVM_LINK_COPY};

	for (u32 i = 0; i < s->n_devices; i++)
		for (u32 k = 0; k < s->n_devices; k++)
			if (i != k)
				HOST_CHECK(
				    gpusvm_driver_link_set(s->driver, (int)i, (int)k, &link) == 0);
}

static void begin(struct sim *s, const struct sim_case *c)
{
	const struct sim_scenario *sc = &sim_scenario_table[c->scenario];
	struct gpusvm_driver_options options = {
	    .timeslice = sc->timeslice, .keepalive = sc->keepalive, .workers = 1};
	u64 start = SIM_BASE + sc->first * HOST_PAGE_SIZE;

	s->c = c;
	s->scenario = sc;
	s->watched = sc->first;
	s->pages = c->pages ? c->pages : sc->pages;
	oracle_init(&s->oracle);
	for (u32 page = 0; page < SIM_WATCHED; page++) {
		for (u32 k = 0; k < SIM_WORDS; k++)
			oracle_word_init(&s->words[page][k], 0);
		oracle_word_init(&s->mapping[page], page < s->pages ? MODEL_RW : 0);
	}
	s->mm = model_mm_create();
	HOST_CHECK(s->mm);
	HOST_CHECK(gpusvm_driver_create(s->mm, &options, &s->driver) == 0);
	HOST_CHECK(model_mmap(s->mm, start, start + s->pages * HOST_PAGE_SIZE, sc->flags) == 0);
	while (s->n_devices < c->devices)
		add_device(s);
	if (c->links)
		link_all(s);
	/* Every other run of what keeps memory idle is short of it, from some time on. */
	if (sc->keepalive && c->seed % 2)
		sched_pressure(1 + c->seed / 2 % 8);
	world = s;
	sched_touch = on_touch;
	model_told = on_told;
	if (sc->prepare)
		sc->prepare(s);
	for (u32 i = 0; i < SIM_ADVERSARIES; i++)
		arm(s, &c->adversaries[i]);
}

/* ---- End ---------------------------------------------------------------------------- */

static void check_end(struct sim *s)
{
	const char *wrong = model_check(s->mm, true);
	struct model_counters counters;

	if (wrong)
		sched_fail(SCHED_LAW, "law 2, one home: %s", wrong);
	model_counters(s->mm, &counters);
	/* Waiting for a timeslice or a transaction is no spinning. */
	if (counters.cpu_faults > SIM_CPU_FAULTS)
		sched_fail(SCHED_LAW, "law 6, forward progress: %llu faults of the CPU",
			   (unsigned long long)counters.cpu_faults);
	if (counters.violations)
		sched_fail(SCHED_LAW, "%llu violations", (unsigned long long)counters.violations);
}

/* Bytes of the device's memory that are missing. */
static u64 missing(struct sim *s, u32 i)
{
	struct driver_device *dd = s->driver->devices[i];

	if (s->devices[i].removing || !dd->has_memory)
		return 0;
	driver_memory_drain(dd);
	return s->devices[i].frames - dd->ops->memory_free_bytes(dd->device) +
	       host_read_once(&dd->stats.vram_used);
}

/* Everything goes home, and every frame is given back. A fault that was told twice may
 * still be served, so that it takes a while. */
static void check_memory(struct sim *s)
{
	u64 left = 0;
	int err = 0;

	for (u32 tries = 0; tries < 20; tries++) {
		err = gpusvm_driver_evict(s->driver, -1, DRIVER_CAUSE_EVICTION);
		left = 0;
		for (u32 i = 0; i < s->n_devices; i++)
			left += missing(s, i);
		if (!err && !left)
			return;
		host_sleep(10 * HOST_MSEC);
	}
	if (err && !s->failures && !s->exiting)
		sched_fail(SCHED_LAW, "laws 6 and 9: an eviction at the end fails: %d", err);
	if (!err)
		sched_fail(SCHED_LAW, "law 8, nothing left: devices have %llu bytes fewer",
			   (unsigned long long)left);
}

static void end(struct sim *s)
{
	sched_note("the actors are over; what is left is looked at");
	if (!s->exited)
		op_load_all(s);
	check_memory(s);
	for (u32 i = 0; i < s->n_devices; i++)
		gpusvm_driver_queue_destroy(s->devices[i].queue);
	gpusvm_mirror_verify(&s->driver->mirror);
	for (u32 i = 0; i < s->n_devices; i++)
		s->devices[i].removed = true; /* its memory goes */
	gpusvm_driver_destroy(s->driver);
	s->n_devices = 0;
	check_end(s);
	if (!s->exited) {
		op_load_all(s);
		op_count_all(s);
	}
	s->over = true;
	world = NULL;
	model_mm_destroy(s->mm);
	if (model_frames_live())
		sched_fail(SCHED_LEAK, "law 8, nothing left: %llu pages of system memory are",
			   (unsigned long long)model_frames_live());
}

static void run(void *arg)
{
	static struct sim s;

	memset(&s, 0, sizeof(s));
	sched_explore_here(false);
	begin(&s, arg);
	host_sleep(HOST_USEC); /* all threads wait for work */
	sched_explore_here(true);
	sim_act(&s, arg, s.failures);
	sched_explore_here(false);
	end(&s);
}

static const u32 adversaries[] = {
    ADVERSARY_ALLOC,	   ADVERSARY_FAIL_COPY,	  ADVERSARY_DROP_FAULT, ADVERSARY_DUPLICATE_FAULT,
    ADVERSARY_DELAY_FAULT, ADVERSARY_DELAY_FLUSH, ADVERSARY_BEGIN,	ADVERSARY_ISOLATE,
    ADVERSARY_SYSTEM_PAGE, ADVERSARY_HUGE_PAGE,	  ADVERSARY_COMMIT,	ADVERSARY_DMA_MAP,
    ADVERSARY_NOTIFIER,	   ADVERSARY_RANGE_FAULT, ADVERSARY_RANGE_BUSY,
};

const struct sim_level sim_memory_level = {
    .name = "memory",
    .scenarios = sim_scenario_table,
    .run = run,
    .check = check,
    .check_period = 1000,
    .begin = forget,
    .adversaries = adversaries,
    .n_adversaries = host_array_size(adversaries),
    .reach = {[ADVERSARY_ALLOC] = 300, [ADVERSARY_DELAY_FLUSH] = 5000},
    .pct_length = 1500,
    .pct_depths = 3,
    .max_idle_points = 200000,
    .max_idle_time = 100 * HOST_SEC,
};
