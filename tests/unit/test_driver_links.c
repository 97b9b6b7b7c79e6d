/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_driver_links.c: the driver with several devices: pages of several pagemaps in
 * one range, moves from device to device, links that come and go, devices that go.
 */
#include "tests/unit/driver_world.h"

#define ALL (GPUSVM_LINK_MAP | GPUSVM_LINK_COPY)

static void link_set(struct world *w, int from, int to, u64 flags)
{
	struct gpusvm_interconnect_link link = {.flags = flags};

	assert_int_equal(gpusvm_driver_link_set(w->driver, from, to, &link), 0);
}

static void link_both(struct world *w, int a, int b, u64 flags)
{
	link_set(w, a, b, flags);
	link_set(w, b, a, flags);
}

static void open_devices(struct world *w, int n)
{
	world_open(w);
	for (int i = 0; i < n; i++)
		add_device(w, 16 * MiB, 0);
}

static struct gpusvm_addr mapped(struct world *w, int device, u64 va)
{
	struct driver_device *dd = w->driver->devices[device];
	struct gpusvm_addr addr = {0};

	(void)dd->ops->vm_query(dd->vm, va, &addr);
	return addr;
}

/* ---- Links -------------------------------------------------------------------- */

static void test_arguments(void **state)
{
	struct gpusvm_interconnect_link link = {.flags = ALL}, got;
	struct world w;

	open_devices(&w, 2);
	assert_int_equal(gpusvm_driver_link_set(w.driver, 0, 0, &link), -EINVAL);
	assert_int_equal(gpusvm_driver_link_set(w.driver, 0, 2, &link), -EINVAL);
	assert_int_equal(gpusvm_driver_link_set(w.driver, -1, 1, &link), -EINVAL);
	link.flags = 8;
	assert_int_equal(gpusvm_driver_link_set(w.driver, 0, 1, &link), -EINVAL);
	assert_int_equal(gpusvm_driver_link_get(w.driver, 0, 1, &got), -ENOENT);
	link = (struct gpusvm_interconnect_link){5000, 700, ALL};
	assert_int_equal(gpusvm_driver_link_set(w.driver, 0, 1, &link), 0);
	assert_int_equal(gpusvm_driver_link_get(w.driver, 0, 1, &got), 0);
	assert_memory_equal(&got, &link, sizeof(link));
	assert_int_equal(gpusvm_driver_link_get(w.driver, 1, 0, &got), -ENOENT);
	assert_int_equal(gpusvm_driver_link_set(w.driver, 0, 1, NULL), 0);
	assert_int_equal(gpusvm_driver_link_get(w.driver, 0, 1, &got), -ENOENT);
	assert_int_equal(gpusvm_driver_link_set(w.driver, 0, 1, NULL), 0);
	assert_int_equal(gpusvm_driver_device_remove(w.driver, 1), 0);
	assert_int_equal(gpusvm_driver_link_set(w.driver, 0, 1, &link), -ENODEV);
	assert_int_equal(gpusvm_driver_link_set(w.driver, 1, 0, NULL), -ENODEV);
	assert_int_equal(events[DRIVER_EVENT_LINK], 3);
	world_close(&w);
}

/* ---- One range, several pagemaps ------------------------------------------------ */

/* A range of 2M whose pages are on three devices and in system memory: one pass maps
 * them all, and each address tells the way. */
static void test_pages_of_several_pagemaps(void **state)
{
	static const int home[4] = {0, 1, 2, DRIVER_SYSTEM};
	u64 before, after, counted = 0;
	struct world w;

	open_devices(&w, 3);
	link_both(&w, 0, 1, ALL);
	link_both(&w, 0, 2, ALL);
	link_both(&w, 1, 2, ALL);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	for (unsigned i = 0; i < 32; i++)
		if (home[i % 4] >= 0)
			assert_int_equal(
			    prefetch(&w, BASE + i * 0x10000, 0x10000, home[i % 4]).moved, 16);
	/* A device without memory of its own would do the same; this one must not pull. */
	before = stats(&w, 0).pages_peer;
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	after = stats(&w, 0).pages_peer;
	assert_int_equal(after, before);
	for (unsigned i = 0; i < 512; i++) {
		u64 va = BASE + i * HOST_PAGE_SIZE;
		struct gpusvm_addr addr = mapped(&w, 0, va);
		enum gpusvm_proto proto = gpusvm_addr_proto(addr);
		int at = where(&w, va).location;

		if (at == 0)
			assert_int_equal(proto, GPUSVM_PROTO_LOCAL);
		else if (at == DRIVER_SYSTEM)
			assert_int_equal(proto, GPUSVM_PROTO_SYSTEM);
		else
			assert_int_equal(proto, GPUSVM_PROTO_PEER);
		if (proto == GPUSVM_PROTO_PEER)
			assert_int_equal(gpusvm_peer_window(gpusvm_addr_address(addr)), at);
		counted += proto == GPUSVM_PROTO_PEER;
	}
	assert_int_equal(counted, 256);
	/* Written over the links, and seen by those who hold the pages. */
	device_fill(&w, 0, BASE, 2 * MiB, 2);
	device_expect(&w, 1, BASE + 0x10000, 0x10000, 2);
	cpu_expect(&w, BASE, 2 * MiB, 2);
	world_close(&w);
}

/* Without a link to the holder its pages come over by way of system memory. */
static void test_no_link_no_peer_mapping(void **state)
{
	struct world w;

	open_devices(&w, 2);
	link_set(&w, 1, 0, ALL); /* the wrong direction */
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	assert_int_equal(prefetch(&w, BASE, 2 * MiB, 1).moved, 512);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	assert_int_equal(where(&w, BASE).location, 0);
	assert_int_equal(stats(&w, 0).pages_peer, 0);
	assert_int_equal(stats(&w, 1).pages_to_system, 512);
	assert_int_equal(stats(&w, 0).pages_to_device, 512);
	/* In this direction it stays, and is mapped. */
	device_expect(&w, 1, BASE, 2 * MiB, 1);
	assert_int_equal(where(&w, BASE).location, 0);
	assert_int_equal(where(&w, BASE).mapped_by, 3);
	world_close(&w);
}

/* A fault on a page out of reach brings home what it asks for, with what lies around it,
 * and nothing else of its 2M; a stream of them goes on by 2M. */
static void test_out_of_reach_page_by_need(void **state)
{
	struct gpusvm_driver_stats before;
	u64 word;
	struct world w;

	open_devices(&w, 2);
	add_device(&w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&w, BASE, 12 * MiB, MODEL_RW | MODEL_THP);
	cpu_fill(&w, BASE, 12 * MiB, 1);
	assert_int_equal(prefetch(&w, BASE, 12 * MiB, 1).moved, 3072);
	/* One page. */
	device_expect(&w, 0, BASE + 100 * HOST_PAGE_SIZE, 8, 1);
	assert_int_equal(where(&w, BASE + 100 * HOST_PAGE_SIZE).location, 0);
	assert_int_equal(stats(&w, 1).pages_to_system, 16);
	assert_int_equal(stats(&w, 0).pages_to_device, 16);
	assert_int_equal(where(&w, BASE).location, 1);
	assert_int_equal(where(&w, BASE + 112 * HOST_PAGE_SIZE).location, 1);
	/* The holder goes on with the rest. */
	device_expect(&w, 1, BASE, 8, 1);
	assert_int_equal(where(&w, BASE).location, 1);
	/* A device without memory has it in system memory. */
	device_expect(&w, 2, BASE + 200 * HOST_PAGE_SIZE, 8, 1);
	assert_int_equal(where(&w, BASE + 200 * HOST_PAGE_SIZE).location, DRIVER_SYSTEM);
	assert_in_range(stats(&w, 1).pages_to_system, 32, 48); /* as the CPU's, they widen */
	/* The rest comes on demand, and whole once it is a stream: 30 pieces of the first
	 * 2M, and one for each of the others. */
	before = stats(&w, 0);
	device_expect(&w, 0, BASE, 6 * MiB, 1);
	assert_int_equal(where(&w, BASE + 6 * MiB - HOST_PAGE_SIZE).location, 0);
	assert_int_equal(stats(&w, 1).pages_to_system, 1536);
	assert_in_range(stats(&w, 0).device_faults - before.device_faults, 32, 40);
	/* Not where it is not. */
	before = stats(&w, 1);
	for (u64 va = BASE + 12 * MiB; va > BASE + 10 * MiB; va -= 0x20000)
		assert_int_equal(device_read(&w, 0, va - 8, &word, 8), 0);
	assert_int_equal(stats(&w, 1).pages_to_system - before.pages_to_system, 256);
	cpu_expect(&w, BASE, 12 * MiB, 1);
	world_close(&w);
}

/* ---- From device to device ------------------------------------------------------- */

static void test_moves_go_straight(void **state)
{
	struct gpusvm_migrate_result r;
	struct world w;

	open_devices(&w, 3);
	link_set(&w, 0, 1, GPUSVM_LINK_MAP);
	link_both(&w, 0, 2, GPUSVM_LINK_MAP);
	link_set(&w, 2, 1, GPUSVM_LINK_MAP);
	link_set(&w, 1, 0, ALL);
	link_set(&w, 1, 2, ALL);
	map(&w, BASE, 4 * MiB, MODEL_RW | MODEL_THP);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	assert_int_equal(prefetch(&w, BASE, 4 * MiB, 0).moved, 1024);
	assert_int_equal(where(&w, BASE).order, HOST_HUGE_ORDER);
	r = prefetch(&w, BASE, 4 * MiB, 1);
	assert_int_equal(r.moved, 1024);
	assert_int_equal(where(&w, BASE).location, 1);
	assert_int_equal(where(&w, BASE).order, HOST_HUGE_ORDER); /* whole */
	assert_int_equal(stats(&w, 1).pages_peer, 1024);
	assert_int_equal(stats(&w, 1).bytes_peer, 4 * MiB);
	assert_int_equal(stats(&w, 1).pages_to_device, 0);
	assert_int_equal(stats(&w, -1).pages_to_system, 0);
	assert_int_equal(stats(&w, 0).vram_used, 0);
	device_expect(&w, 1, BASE, 4 * MiB, 1);
	/* No way back: it bounces. */
	assert_int_equal(prefetch(&w, BASE, 2 * MiB, 0).moved, 512);
	assert_int_equal(stats(&w, 0).pages_peer, 0);
	assert_int_equal(stats(&w, 1).pages_to_system, 512);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	/* From system memory, from itself and from two peers at once. */
	assert_int_equal(prefetch(&w, BASE + 0x40000, 0x40000, 2).moved, 64);
	assert_int_equal(prefetch(&w, BASE + 0x80000, 0x40000, DRIVER_SYSTEM).moved, 64);
	assert_int_equal(prefetch(&w, BASE + 0xc0000, 0x40000, 1).moved, 64);
	r = prefetch(&w, BASE, 2 * MiB, 1);
	assert_int_equal(r.moved, 448);
	assert_int_equal(r.already, 64);
	assert_int_equal(stats(&w, 1).pages_peer, 1024 + 64 + 384);
	assert_int_equal(stats(&w, 1).pages_to_device, 64);
	cpu_expect(&w, BASE, 4 * MiB, 1);
	world_close(&w);
}

struct puller {
	struct world *w;
	int device;
	u32 *stop;
};

static void *pull(void *arg)
{
	struct puller *p = arg;
	struct gpusvm_migrate_result r;

	while (!host_load_acquire(p->stop))
		HOST_CHECK(!gpusvm_driver_prefetch(p->w->driver, BASE, BASE + 4 * MiB, p->device,
						   false, &r));
	return NULL;
}

/* Three that pull the same pages at once, over links that come and go: each page is in
 * one place, and keeps its contents. */
static void test_pull_against_pull(void **state)
{
	struct puller p[3];
	pthread_t threads[3];
	struct world w;
	u32 stop = 0;
	u64 seed = 1, homes = 0;

	open_devices(&w, 3);
	link_both(&w, 0, 1, ALL);
	link_both(&w, 1, 2, GPUSVM_LINK_COPY);
	map(&w, BASE, 4 * MiB, MODEL_RW | MODEL_THP);
	cpu_fill(&w, BASE, 4 * MiB, seed);
	for (int i = 0; i < 3; i++) {
		p[i] = (struct puller){&w, i, &stop};
		assert_int_equal(pthread_create(&threads[i], NULL, pull, &p[i]), 0);
	}
	for (int i = 0; i < 60; i++) {
		device_expect(&w, i % 3, BASE, 4 * MiB, seed);
		device_fill(&w, (i + 1) % 3, BASE, 4 * MiB, ++seed);
		if (i % 4 == 1)
			assert_int_equal(gpusvm_driver_link_set(w.driver, i % 3, (i + 1) % 3, NULL),
					 0);
		if (i % 4 == 3)
			link_both(&w, i % 3, (i + 1) % 3, ALL);
	}
	host_store_release(&stop, 1);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	for (u64 va = BASE; va < BASE + 4 * MiB; va += HOST_PAGE_SIZE)
		homes += where(&w, va).location >= 0;
	assert_int_equal(stats(&w, -1).vram_used, homes << HOST_PAGE_SHIFT);
	cpu_expect(&w, BASE, 4 * MiB, seed);
	world_close(&w);
}

/* ---- A link goes -------------------------------------------------------------------- */

static void test_link_loss_invalidates(void **state)
{
	struct world w;

	open_devices(&w, 3);
	link_both(&w, 0, 1, ALL);
	link_both(&w, 2, 1, ALL);
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	assert_int_equal(prefetch(&w, BASE, 2 * MiB, 1).moved, 512);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	device_expect(&w, 2, BASE, 2 * MiB, 1);
	assert_int_equal(where(&w, BASE).mapped_by, 7);
	/* What it is still good for, stays. */
	link_set(&w, 0, 1, GPUSVM_LINK_MAP);
	assert_int_equal(where(&w, BASE).mapped_by, 7);
	assert_int_equal(gpusvm_driver_link_set(w.driver, 0, 1, NULL), 0);
	assert_int_equal(where(&w, BASE).mapped_by, 6);
	assert_int_equal(where(&w, BASE).location, 1);
	link_set(&w, 2, 1, GPUSVM_LINK_COPY);
	assert_int_equal(where(&w, BASE).mapped_by, 2);
	/* The next access finds another way. */
	device_fill(&w, 2, BASE, 2 * MiB, 2);
	assert_int_equal(where(&w, BASE).location, 2);
	assert_int_equal(stats(&w, 2).pages_peer, 512);
	device_expect(&w, 0, BASE, 2 * MiB, 2);
	assert_int_equal(where(&w, BASE).location, 0);
	world_close(&w);
}

struct toggler {
	struct world *w;
	u32 stop;
};

static void *toggle(void *arg)
{
	struct toggler *t = arg;
	unsigned seed = 1;

	while (!host_load_acquire(&t->stop)) {
		unsigned r = (unsigned)rand_r(&seed);
		int from = (int)(r >> 4) % 4, to = (int)(r >> 8) % 4;
		struct gpusvm_interconnect_link link = {.flags = r % 4};

		if (from != to)
			HOST_CHECK(!gpusvm_driver_link_set(t->w->driver, from, to,
							   r >> 12 & 1 ? &link : NULL));
	}
	return NULL;
}

struct worker {
	struct world *w;
	int device;
	u32 *stop;
	u64 rounds, wrong;
};

/* Its own words of each page, through whatever way there is. */
static void *work(void *arg)
{
	struct worker *k = arg;
	u64 at = BASE + 512 * (u64)k->device, old;

	/* One round at least, however busy the machine. */
	do {
		for (u64 va = at; va < BASE + 4 * MiB; va += HOST_PAGE_SIZE) {
			if (device_add(k->w, k->device, va, 1, &old) || old != k->rounds)
				k->wrong++;
		}
		k->rounds++;
	} while (!host_load_acquire(k->stop));
	return NULL;
}

static void test_link_loss_under_load(void **state)
{
	struct worker k[4];
	struct toggler t;
	pthread_t threads[6];
	struct puller p;
	struct world w;
	u32 stop = 0;

	open_devices(&w, 4);
	t = (struct toggler){.w = &w};
	p = (struct puller){&w, 3, &stop};
	map(&w, BASE, 4 * MiB, MODEL_RW | MODEL_THP);
	for (int i = 0; i < 4; i++) {
		k[i] = (struct worker){.w = &w, .device = i, .stop = &stop};
		assert_int_equal(pthread_create(&threads[i], NULL, work, &k[i]), 0);
	}
	assert_int_equal(pthread_create(&threads[4], NULL, toggle, &t), 0);
	assert_int_equal(pthread_create(&threads[5], NULL, pull, &p), 0);
	host_sleep(3 * HOST_SEC);
	host_store_release(&stop, 1);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	pthread_join(threads[5], NULL);
	host_store_release(&t.stop, 1);
	pthread_join(threads[4], NULL);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(k[i].wrong, 0);
		for (u64 va = BASE + 512 * (u64)i; va < BASE + 4 * MiB; va += HOST_PAGE_SIZE) {
			u64 word;

			cpu_read(&w, va, &word, sizeof(word));
			assert_int_equal(word, k[i].rounds);
		}
	}
	world_close(&w);
}

/* ---- A device goes ------------------------------------------------------------------- */

static void test_unbind_of_a_peer(void **state)
{
	struct gpusvm_interconnect_link got;
	struct world w;

	open_devices(&w, 3);
	link_both(&w, 0, 1, ALL);
	link_both(&w, 1, 2, ALL);
	map(&w, BASE, 4 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 4 * MiB, 1);
	assert_int_equal(prefetch(&w, BASE, 2 * MiB, 1).moved, 512);
	assert_int_equal(prefetch(&w, BASE + 2 * MiB, 2 * MiB, 0).moved, 512);
	device_expect(&w, 0, BASE, 4 * MiB, 1);
	device_expect(&w, 2, BASE, 2 * MiB, 1);
	device_expect(&w, 1, BASE, 4 * MiB, 1);
	assert_int_equal(gpusvm_driver_device_remove(w.driver, 1), 0);
	assert_int_equal(where(&w, BASE).location, DRIVER_SYSTEM);
	assert_int_equal(where(&w, BASE).mapped_by, 0);
	assert_int_equal(where(&w, BASE + 2 * MiB).mapped_by, 1);
	assert_int_equal(gpusvm_driver_link_get(w.driver, 0, 1, &got), -ENODEV);
	device_expect(&w, 0, BASE, 4 * MiB, 1);
	device_expect(&w, 2, BASE, 2 * MiB, 1);
	/* A new one is another: the links of the old are not its. */
	assert_int_equal(add_device(&w, 16 * MiB, 0), 3);
	assert_int_equal(gpusvm_driver_link_get(w.driver, 0, 3, &got), -ENOENT);
	world_close(&w);
}

/* ---- The life of pagemaps ---------------------------------------------------------------- */

static void test_pagemap_life(void **state)
{
	struct gpusvm_pagemap *pagemap, *other;
	struct gpusvm_migrate_result r;
	struct mm_region *region;
	struct world w;

	world_keepalive = 3600 * HOST_SEC;
	open_devices(&w, 3);
	pagemap = &w.driver->devices[0]->pagemap;
	map(&w, BASE, 2 * MiB, MODEL_RW);
	cpu_fill(&w, BASE, 2 * MiB, 1);
	assert_null(pagemap->region); /* nobody has used it */
	assert_int_equal(prefetch(&w, BASE, 2 * MiB, 0).moved, 512);
	region = pagemap->region;
	assert_non_null(region);
	(void)host_shrink();
	assert_ptr_equal(pagemap->region, region); /* in use */
	assert_int_equal(gpusvm_driver_evict(w.driver, 0, DRIVER_CAUSE_EVICTION), 0);
	assert_int_equal(host_read_once(&pagemap->ref.count), 0);
	assert_int_equal(prefetch(&w, BASE, 2 * MiB, 0).moved, 512);
	assert_ptr_equal(pagemap->region, region); /* revived */
	assert_int_equal(gpusvm_driver_evict(w.driver, 0, DRIVER_CAUSE_EVICTION), 0);
	(void)host_shrink();
	assert_null(pagemap->region);
	device_expect(&w, 0, BASE, 2 * MiB, 1);
	assert_non_null(pagemap->region);
	/* Unbound while it is active, held beyond that; and another that is idle. */
	assert_int_equal(gpusvm_driver_pagemap_get(w.driver, 0, &other), 0);
	assert_ptr_equal(other, pagemap);
	assert_int_equal(gpusvm_driver_device_remove(w.driver, 0), 0);
	assert_int_equal(gpusvm_driver_pagemap_get(w.driver, 0, &other), -ENODEV);
	assert_int_equal(gpusvm_pagemap_populate(pagemap, w.mm, BASE, BASE + 2 * MiB, 0, &r),
			 -ENODEV);
	assert_int_equal(mm_region_overhead(pagemap->region), 0);
	assert_false(host_load_acquire(&w.driver->devices[0]->torn_down));
	gpusvm_pagemap_put(pagemap);
	assert_int_equal(prefetch(&w, BASE, 2 * MiB, 1).moved, 512);
	assert_int_equal(gpusvm_driver_evict(w.driver, 1, DRIVER_CAUSE_EVICTION), 0);
	assert_int_equal(gpusvm_driver_device_remove(w.driver, 1), 0);
	/* One that never was. */
	assert_int_equal(gpusvm_driver_device_remove(w.driver, 2), 0);
	cpu_expect(&w, BASE, 2 * MiB, 1);
	world_close(&w);
	world_keepalive = 0;
}

struct holder {
	struct world *w;
	u32 stop;
	u32 held;
};

static void *hold(void *arg)
{
	struct holder *h = arg;
	struct gpusvm_pagemap *pagemap;
	int r;

	while (!host_load_acquire(&h->stop)) {
		r = gpusvm_driver_pagemap_get(h->w->driver, 1, &pagemap);
		HOST_CHECK(!r || r == -ENODEV);
		if (!r) {
			host_store_release(&h->held, h->held + 1);
			HOST_CHECK(pagemap->region != NULL);
			gpusvm_pagemap_put(pagemap);
		}
		(void)host_shrink();
	}
	return NULL;
}

/* Revival, shrinking, the last put, populations and evictions while it is unbound. */
static void test_pagemap_life_against_unbind(void **state)
{
	for (unsigned i = 0; i < 12; i++) {
		struct puller p[2];
		struct holder h;
		pthread_t threads[3];
		struct world w;
		u32 stop = 0;

		world_keepalive = i % 3 ? 0 : 100 * HOST_USEC;
		open_devices(&w, 2);
		link_both(&w, 0, 1, i % 2 ? ALL : GPUSVM_LINK_MAP);
		map(&w, BASE, 4 * MiB, MODEL_RW);
		cpu_fill(&w, BASE, 4 * MiB, i);
		h = (struct holder){.w = &w};
		p[0] = (struct puller){&w, 0, &stop};
		p[1] = (struct puller){&w, DRIVER_SYSTEM, &stop};
		assert_int_equal(pthread_create(&threads[0], NULL, hold, &h), 0);
		assert_int_equal(pthread_create(&threads[1], NULL, pull, &p[0]), 0);
		assert_int_equal(pthread_create(&threads[2], NULL, pull, &p[1]), 0);
		/* On a busy machine the unbind could be over before it has begun. */
		while (!host_load_acquire(&h.held))
			sched_yield();
		for (unsigned k = 0; k < 5; k++) {
			struct gpusvm_migrate_result r;

			assert_int_equal(
			    gpusvm_driver_prefetch(w.driver, BASE, BASE + 4 * MiB, 1, false, &r),
			    0);
			(void)gpusvm_driver_evict(w.driver, 1, DRIVER_CAUSE_EVICTION);
		}
		assert_int_equal(gpusvm_driver_device_remove(w.driver, 1), 0);
		host_store_release(&stop, 1);
		host_store_release(&h.stop, 1);
		for (unsigned k = 0; k < 3; k++)
			pthread_join(threads[k], NULL);
		cpu_expect(&w, BASE, 4 * MiB, i);
		world_close(&w);
	}
	world_keepalive = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_arguments),
	    cmocka_unit_test(test_pages_of_several_pagemaps),
	    cmocka_unit_test(test_no_link_no_peer_mapping),
	    cmocka_unit_test(test_out_of_reach_page_by_need),
	    cmocka_unit_test(test_moves_go_straight),
	    cmocka_unit_test(test_pull_against_pull),
	    cmocka_unit_test(test_link_loss_invalidates),
	    cmocka_unit_test(test_link_loss_under_load),
	    cmocka_unit_test(test_unbind_of_a_peer),
	    cmocka_unit_test(test_pagemap_life),
	    cmocka_unit_test(test_pagemap_life_against_unbind),
	};

	HOST_CHECK(!host_work_start());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
