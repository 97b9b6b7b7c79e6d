/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * scenarios.c: small worlds for what is known to be hard. A new one is a few steps
 * and an entry of the table; a bug found elsewhere can be written as one.
 *
 * Pages count from the first one that is mapped at first.
 */
#include "sim/private.h"

/* ---- Steps that many share ------------------------------------------------------ */

static u32 any_page(struct sim *s, struct sim_actor *a)
{
	return (u32)sim_below(a, host_min(s->pages, SIM_WATCHED));
}

static u32 any_word(struct sim_actor *a)
{
	return (u32)sim_below(a, SIM_WORDS);
}

/* A few pages from one on, within what is watched. */
static u32 some_pages(struct sim *s, struct sim_actor *a, u32 page, u32 most)
{
	u32 left = host_min(s->pages, SIM_WATCHED) - page;

	return 1 + (u32)sim_below(a, host_min(left, most));
}

static void access_step(struct sim *s, struct sim_actor *a)
{
	u32 page = any_page(s, a), word = any_word(a);

	if (sim_below(a, 2))
		op_store(a, a->role->device, page, word);
	else
		op_load(a, a->role->device, page, word);
}

static void store_step(struct sim *s, struct sim_actor *a)
{
	op_store(a, a->role->device, any_page(s, a), any_word(a));
}

static void load_step(struct sim *s, struct sim_actor *a)
{
	op_load(a, a->role->device, any_page(s, a), any_word(a));
}

static void device_step(struct sim *s, struct sim_actor *a)
{
	u32 page = any_page(s, a);

	switch (sim_below(a, 6)) {
	case 0:
		op_set(a, a->role->device, page);
		break;
	case 1:
		op_touch(a, a->role->device, page, some_pages(s, a, page, 8), sim_below(a, 2));
		break;
	default:
		access_step(s, a);
	}
}

static void remap_step(struct sim *s, struct sim_actor *a)
{
	u32 page = any_page(s, a), n = some_pages(s, a, page, 8);

	op_munmap(a, page, n);
	if (sim_below(a, 4))
		op_mmap(a, page, n, s->scenario->flags);
}

static void clear_step(struct sim *s, struct sim_actor *a)
{
	u32 page = any_page(s, a);

	op_dontneed(a, page, some_pages(s, a, page, 8));
}

static void protect_step(struct sim *s, struct sim_actor *a)
{
	u32 page = any_page(s, a), n = some_pages(s, a, page, 8);

	op_mprotect(a, page, n, sim_below(a, 2) ? MODEL_RW : MODEL_READ);
}

static void move_step(struct sim *s, struct sim_actor *a)
{
	u32 page = any_page(s, a);

	op_prefetch(a, page, some_pages(s, a, page, 16), (int)sim_below(a, s->n_devices + 1) - 1);
}

static void populate_step(struct sim *s, struct sim_actor *a)
{
	u32 page = any_page(s, a);

	op_prefetch(a, page, some_pages(s, a, page, 16), a->role->device);
}

static void evict_step(struct sim *s, struct sim_actor *a)
{
	op_evict(a, (int)sim_below(a, s->n_devices));
}

static void fork_step(struct sim *s, struct sim_actor *a)
{
	op_fork(a);
}

static void unbind_step(struct sim *s, struct sim_actor *a)
{
	op_unbind(a, a->role->device);
}

static void pin_step(struct sim *s, struct sim_actor *a)
{
	op_pin(a, any_page(s, a), any_word(a));
}

static void shrink_step(struct sim *s, struct sim_actor *a)
{
	if (sim_below(a, 2))
		host_sleep(s->scenario->keepalive); /* longer than it is kept */
	op_shrink(a);
}

static void swap_step(struct sim *s, struct sim_actor *a)
{
	op_swap(a, any_page(s, a));
}

static void exit_step(struct sim *s, struct sim_actor *a)
{
	op_exit(a);
}

static void bind_step(struct sim *s, struct sim_actor *a)
{
	u32 page = any_page(s, a), n = some_pages(s, a, page, 4);

	op_bind(a, a->role->device, page, n);
	if (!sim_below(a, 3))
		op_unbind_interval(a, a->role->device, page, n);
}

static void advise_step(struct sim *s, struct sim_actor *a)
{
	static const enum gpusvm_advice advice[] = {
	    GPUSVM_PREFERRED_LOCATION, GPUSVM_NO_MIGRATE, GPUSVM_GRANULARITY,
	    GPUSVM_ACCESSED_BY,	       GPUSVM_ATOMIC,	  GPUSVM_RESET};
	u32 page = any_page(s, a), n = some_pages(s, a, page, 8);
	enum gpusvm_advice which = advice[sim_below(a, host_array_size(advice))];
	int where = (int)sim_below(a, s->n_devices);
	s64 value = (s64)sim_below(a, 2);

	if (which == GPUSVM_PREFERRED_LOCATION && !sim_below(a, 3))
		where = DRIVER_SYSTEM;
	if (which == GPUSVM_GRANULARITY)
		value = 1 << sim_below(a, 5);
	if (which == GPUSVM_ATOMIC)
		value = GPUSVM_ATOMIC_UNDEFINED;
	op_advise(a, page, n, which, value, where);
}

static void link_step(struct sim *s, struct sim_actor *a)
{
	int from = (int)sim_below(a, s->n_devices);

	if (s->n_devices > 1)
		op_link(a, from, (from + 1) % (int)s->n_devices, sim_below(a, 2));
}

/* Each linked to each, the pages spread over them. */
static void prepare_linked(struct sim *s)
{
	struct sim_actor main = {.sim = s, .index = SIM_ACTORS};

	for (u32 from = 0; from < s->n_devices; from++)
		for (u32 to = 0; to < s->n_devices; to++)
			if (from != to)
				op_link(&main, (int)from, (int)to, true);
	for (u32 page = 0; page < host_min(s->pages, SIM_WATCHED); page++) {
		op_store(&main, -1, page, page % SIM_WORDS);
		op_prefetch(&main, page, 1, (int)(page % s->n_devices));
	}
}

/* The last two thirds of the pages are the remapper's own. */
static u32 own_first(const struct sim *s)
{
	return s->pages / 3;
}

static void own_step(struct sim *s, struct sim_actor *a)
{
	u32 first = own_first(s), pages = s->pages - first;
	u32 page = first + (u32)sim_below(a, pages);
	u32 n = 1 + (u32)sim_below(a, 3), to = first + (u32)sim_below(a, pages - 3);
	int device = (int)sim_below(a, s->n_devices + 1) - 1;

	switch (sim_below(a, 4)) {
	case 0:
		n = host_min(n, s->pages - page);
		if (to + n <= page || page + n <= to)
			op_mremap(a, page, n, to);
		break;
	case 1:
		op_load(a, device, page, any_word(a));
		break;
	case 2:
		op_mmap(a, page, 1, s->scenario->flags);
		break;
	default:
		op_store(a, device, page, any_word(a));
	}
}

/* Next to them: the same ranges of devices, the same objects. */
static void beside_step(struct sim *s, struct sim_actor *a)
{
	u32 page = (u32)sim_below(a, own_first(s));

	if (sim_below(a, 2))
		op_store(a, a->role->device, page, any_word(a));
	else
		op_load(a, a->role->device, page, any_word(a));
}

/* ---- Steps of one scenario --------------------------------------------------------- */

/* All on the first device. */
static void prepare_on_device(struct sim *s)
{
	struct sim_actor main = {.sim = s, .index = SIM_ACTORS};

	op_prefetch(&main, 0, s->pages, 0);
}

/* Written by the CPU first, so that there is something to lose. */
static void prepare_written(struct sim *s)
{
	struct sim_actor main = {.sim = s, .index = SIM_ACTORS};

	for (u32 page = 0; page < host_min(s->pages, SIM_WATCHED); page++)
		op_store(&main, -1, page, page % SIM_WORDS);
}

static void prepare_written_on_device(struct sim *s)
{
	prepare_written(s);
	prepare_on_device(s);
}

/* The middle of the 2M, across the pages that are watched. */
static void cut_step(struct sim *s, struct sim_actor *a)
{
	u32 page = (u32)sim_below(a, SIM_WATCHED - 4);

	if (sim_below(a, 3))
		op_munmap(a, page, 1 + (u32)sim_below(a, 4));
	else
		op_dontneed(a, page, 1 + (u32)sim_below(a, 4));
}

static void first_page_load(struct sim *s, struct sim_actor *a)
{
	op_load(a, a->role->device, 0, 0);
}

static void first_page_store(struct sim *s, struct sim_actor *a)
{
	op_store(a, a->role->device, 0, (u32)a->role->device & 1);
}

static void mixed_step(struct sim *s, struct sim_actor *a)
{
	static void (*const steps[])(struct sim *, struct sim_actor *) = {
	    remap_step, clear_step, protect_step, move_step, evict_step, fork_step, pin_step,
	};

	steps[sim_below(a, host_array_size(steps))](s, a);
}

static void add_step(struct sim *s, struct sim_actor *a)
{
	u32 page = any_page(s, a);

	if (sim_below(a, 4))
		op_add(a, a->role->device, page);
	else
		access_step(s, a);
}

static void take_step(struct sim *s, struct sim_actor *a)
{
	u32 page = any_page(s, a);

	op_make_exclusive(a, (int)sim_below(a, s->n_devices), page, some_pages(s, a, page, 3));
}

/* Whatever takes a page from who has it for itself, but for changes of mappings. */
static void disturb_step(struct sim *s, struct sim_actor *a)
{
	static void (*const steps[])(struct sim *, struct sim_actor *) = {
	    move_step, evict_step, fork_step, swap_step, pin_step,
	};
	u32 page = any_page(s, a), which = (u32)sim_below(a, host_array_size(steps) + 1);

	if (which < host_array_size(steps))
		steps[which](s, a);
	else
		op_advise(a, page, some_pages(s, a, page, 3), GPUSVM_NO_MIGRATE,
			  (s64)sim_below(a, 2), 0);
}

static void prepare_atomic(struct sim *s)
{
	struct sim_actor main = {.sim = s, .index = SIM_ACTORS};

	prepare_written(s);
	op_advise(&main, 0, s->pages, GPUSVM_ATOMIC, GPUSVM_ATOMIC_GLOBAL, 0);
}

/* ---- The table --------------------------------------------------------------------------- */

const struct sim_scenario sim_scenario_table[] = {
    {
	.name = "one-page",
	.about = "CPU fault, eviction and device fault on one page",
	.devices = 1,
	.pages = 1,
	.flags = MODEL_RW,
	.roles = {{"cpu", access_step, 5, -1},
		  {"gpu", access_step, 5, 0},
		  {"evict", evict_step, 4, -1}},
    },
    {
	.name = "two-pull",
	.about = "two devices and the CPU pull one page",
	.devices = 2,
	.pages = 1,
	.flags = MODEL_RW,
	.roles = {{"gpu0", access_step, 5, 0},
		  {"gpu1", access_step, 5, 1},
		  {"cpu", access_step, 3, -1}},
    },
    {
	.name = "munmap-bind",
	.about = "munmap against range removal and get_pages on N devices",
	.devices = 2,
	.first = 8,
	.pages = 20,
	.flags = MODEL_RW,
	.roles = {{"map", remap_step, 5, -1},
		  {"gpu0", device_step, 5, 0},
		  {"gpu1", device_step, 5, 1},
		  {"cpu", access_step, 4, -1}},
    },
    {
	.name = "clear-fault",
	.about = "MADV_DONTNEED against faults of CPU and device",
	.devices = 1,
	.pages = 6,
	.flags = MODEL_RW,
	.prepare = prepare_written_on_device,
	.roles = {{"clear", clear_step, 5, -1},
		  {"gpu", access_step, 5, 0},
		  {"cpu", access_step, 5, -1}},
    },
    {
	.name = "protect",
	.about = "mprotect to and fro under devices that write",
	.devices = 2,
	.first = 3,
	.pages = 18,
	.flags = MODEL_RW,
	.roles = {{"protect", protect_step, 6, -1},
		  {"gpu0", device_step, 5, 0},
		  {"gpu1", device_step, 5, 1},
		  {"move", move_step, 3, -1}},
    },
    {
	.name = "fork",
	.about = "fork while data is on devices and both sides write",
	.devices = 2,
	.pages = 8,
	.flags = MODEL_RW,
	.prepare = prepare_written_on_device,
	.roles = {{"fork", fork_step, 3, -1},
		  {"gpu0", device_step, 4, 0},
		  {"gpu1", access_step, 4, 1},
		  {"cpu", access_step, 4, -1}},
    },
    {
	.name = "unbind-populate",
	.about = "a device is unbound while pages move to it",
	.devices = 2,
	.pages = 16,
	.flags = MODEL_RW,
	.prepare = prepare_written,
	.roles = {{"unbind", unbind_step, 1, 0},
		  {"move", populate_step, 4, 0},
		  {"gpu0", access_step, 4, 0},
		  {"gpu1", access_step, 3, 1},
		  {"cpu", access_step, 4, -1}},
    },
    {
	.name = "idle-cache",
	.about = "memory that was just given up is used again, shrunk and unbound",
	.devices = 2,
	.pages = 4,
	.flags = MODEL_RW,
	.keepalive = HOST_MSEC,
	.roles = {{"unbind", unbind_step, 1, 0},
		  {"move", move_step, 6, -1},
		  {"shrink", shrink_step, 4, -1},
		  {"evict", evict_step, 4, -1},
		  {"cpu", access_step, 4, -1},
		  {"gpu0", access_step, 4, 0}},
    },
    {
	.name = "last-reference",
	.about = "the last frames go while their device is unbound",
	.devices = 1,
	.pages = 4,
	.flags = MODEL_RW,
	.prepare = prepare_written_on_device,
	.roles = {{"unbind", unbind_step, 1, 0},
		  {"map", remap_step, 2, -1},
		  {"cpu", load_step, 3, -1},
		  {"evict", evict_step, 2, -1}},
    },
    {
	.name = "cached",
	.about = "a device that has a translation cached, against invalidations",
	.devices = 1,
	.pages = 1,
	.flags = MODEL_RW,
	.roles = {{"gpu", store_step, 20, 0}, {"clear", clear_step, 8, -1}},
    },
    {
	.name = "timeslice",
	.about = "many readers while a timeslice keeps the page on the device",
	.devices = 1,
	.pages = 2,
	.flags = MODEL_RW,
	.timeslice = HOST_MSEC,
	.roles = {{"gpu", store_step, 4, 0},
		  {"cpu0", load_step, 4, -1},
		  {"cpu1", load_step, 4, -1},
		  {"cpu2", load_step, 4, -1},
		  {"cpu3", store_step, 3, -1}},
    },
    {
	.name = "vram-full",
	.about = "more pages than memory: victims that are on their way",
	.devices = 2,
	.pages = 24,
	.flags = MODEL_RW,
	.frames = 6,
	.roles = {{"gpu0", device_step, 6, 0},
		  {"gpu1", device_step, 6, 1},
		  {"cpu", access_step, 4, -1},
		  {"move", move_step, 4, -1}},
    },
    {
	.name = "pins",
	.about = "pinned pages stay, and are mapped where they are",
	.devices = 1,
	.pages = 4,
	.flags = MODEL_RW,
	.roles = {{"pin", pin_step, 5, -1}, {"gpu", device_step, 5, 0}, {"move", move_step, 4, -1}},
    },
    {
	.name = "pins-64k",
	.about = "ranges of 64K, some of whose pages cannot move",
	.devices = 1,
	.pages = 16,
	.small = 16,
	.flags = MODEL_RW,
	.prepare = prepare_written,
	.roles = {{"pin", pin_step, 5, -1},
		  {"gpu", device_step, 5, 0},
		  {"move", move_step, 4, -1},
		  {"cpu", access_step, 3, -1}},
    },
    {
	.name = "exclusive",
	.about = "the CPU and devices without atomics on the bus count: pages are taken",
	.devices = 3,
	.pages = 2,
	.flags = MODEL_RW,
	.frames = 1,
	.no_memory = 6, /* all but the first */
	.split_atomics = true,
	.timeslice = 20 * HOST_USEC,
	.prepare = prepare_atomic,
	.roles = {{"gpu0", add_step, 5, 0},
		  {"gpu1", add_step, 5, 1},
		  {"gpu2", add_step, 4, 2},
		  {"cpu", add_step, 12, -1},
		  {"take", take_step, 4, -1},
		  {"disturb", disturb_step, 3, -1}},
    },
    {
	.name = "swap",
	.about = "pages go to swap and come back under devices and migrations",
	.devices = 1,
	.pages = 5,
	.flags = MODEL_RW,
	.prepare = prepare_written,
	.roles = {{"swap", swap_step, 8, -1},
		  {"gpu", device_step, 5, 0},
		  {"cpu", access_step, 5, -1},
		  {"move", move_step, 4, -1},
		  {"fork", fork_step, 1, -1}},
    },
    {
	.name = "shared",
	.about = "shared memory stays, and devices use it where it is",
	.devices = 2,
	.pages = 6,
	.flags = MODEL_RW | MODEL_SHARED,
	.roles = {{"map", remap_step, 4, -1},
		  {"gpu0", device_step, 4, 0},
		  {"gpu1", access_step, 4, 1},
		  {"cpu", access_step, 4, -1}},
    },
    {
	.name = "exit",
	.about = "the process ends while devices work and pages move",
	.devices = 2,
	.pages = 12,
	.flags = MODEL_RW,
	.prepare = prepare_written_on_device,
	.roles = {{"exit", exit_step, 1, -1},
		  {"gpu0", device_step, 3, 0},
		  {"gpu1", access_step, 3, 1},
		  {"move", move_step, 2, -1},
		  {"cpu", access_step, 2, -1}},
    },
    {
	.name = "no-fault",
	.about = "binds of devices that cannot fault, against invalidations",
	.devices = 2,
	.pages = 8,
	.flags = MODEL_RW,
	.device_flags = GPUSVM_DEVICE_NO_FAULT,
	.prepare = prepare_written,
	.roles = {{"bind", bind_step, 4, 0},
		  {"map", remap_step, 3, -1},
		  {"gpu1", access_step, 3, 1},
		  {"cpu", access_step, 3, -1}},
    },
    {
	.name = "advice",
	.about = "advice against munmap against faults",
	.devices = 2,
	.first = 4,
	.pages = 16,
	.flags = MODEL_RW,
	.prepare = prepare_written,
	.roles = {{"advise", advise_step, 6, -1},
		  {"map", remap_step, 4, -1},
		  {"gpu0", device_step, 5, 0},
		  {"gpu1", access_step, 4, 1}},
    },
    {
	.name = "mremap",
	.about = "pages and their data move to other addresses, on devices too",
	.devices = 2,
	.pages = 24,
	.small = 6,
	.flags = MODEL_RW,
	.prepare = prepare_written_on_device,
	.roles = {{"own", own_step, 12, -1},
		  {"gpu0", beside_step, 5, 0},
		  {"gpu1", beside_step, 4, 1},
		  {"evict", evict_step, 3, -1}},
    },
    {
	.name = "unbind-peer",
	.about = "a device is unbound while others have its pages mapped, or pull them",
	.devices = 3,
	.pages = 6,
	.flags = MODEL_RW,
	.prepare = prepare_linked,
	.roles = {{"unbind", unbind_step, 1, 0},
		  {"gpu1", access_step, 4, 1},
		  {"gpu2", access_step, 4, 2},
		  {"link", link_step, 3, -1},
		  {"move", move_step, 4, -1}},
    },
    {
	.name = "links",
	.about = "links come and go under devices that use each other's memory",
	.devices = 2,
	.pages = 10,
	.flags = MODEL_RW,
	.prepare = prepare_written_on_device,
	.roles = {{"link", link_step, 8, -1},
		  {"gpu0", device_step, 5, 0},
		  {"gpu1", device_step, 6, 1},
		  {"move", move_step, 4, -1},
		  {"cpu", access_step, 3, -1}},
    },
    {
	.name = "first-page",
	.about = "two fibers on one page: small enough for all schedules",
	.devices = 1,
	.pages = 1,
	.flags = MODEL_RW,
	.roles = {{"cpu", first_page_load, 1, -1}, {"gpu", first_page_store, 1, 0}},
    },
    {
	.name = "huge-cut",
	.about = "munmap in the middle of a 2M page that is on the device",
	.devices = 1,
	.pages = 512,
	.small = 512,
	.flags = MODEL_RW | MODEL_THP,
	.prepare = prepare_written_on_device,
	.roles = {{"cut", cut_step, 2, -1},
		  {"gpu", access_step, 3, 0},
		  {"cpu", access_step, 2, -1},
		  {"evict", evict_step, 1, -1}},
    },
    {
	.name = "mixed",
	.about = "everything at once",
	.devices = 3,
	.first = 5,
	.pages = 22,
	.flags = MODEL_RW,
	.frames = 16,
	.roles = {{"gpu0", device_step, 5, 0},
		  {"gpu1", device_step, 5, 1},
		  {"gpu2", access_step, 5, 2},
		  {"cpu", access_step, 5, -1},
		  {"mixed", mixed_step, 8, -1}},
    },
    {0},
};
