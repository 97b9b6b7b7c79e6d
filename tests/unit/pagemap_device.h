/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * pagemap_device.h: core/pagemap with two devices under it and the model beside
 * it, for the tests that include this. What runs in callbacks and on threads
 * checks with HOST_CHECK: cmocka's assertions would leave with locks held.
 */
#ifndef GPUSVM_TESTS_PAGEMAP_DEVICE_H
#define GPUSVM_TESTS_PAGEMAP_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/fence.c"
#include "core/pagemap/copies.c"
#include "core/pagemap/count.c"
#include "core/pagemap/devmem.c"
#include "core/pagemap/evict.c"
#include "core/pagemap/home.c"
#include "core/pagemap/migrate.c"
#include "core/pagemap/pagemap.c"
#include "host/model/model.h"
#include "host/posix/posix.h"

#define BASE ((u64)0x40000000)
#define P(n) (BASE + (u64)(n) * HOST_PAGE_SIZE)
#define M2 HOST_HUGE_SIZE
#define FRAMES 4096u

/* ---- A device: bytes, an allocator of frames, a copy engine --------------- */

struct device {
	struct gpusvm_pagemap pagemap;
	struct host_mutex lock; /* RANK_LEAF: used */
	u8 used[FRAMES];
	u32 n_used;
	u8 *memory;
	u32 copies, copy_entries; /* atomic */
	u32 fail_copy_at;	  /* the n-th from now on fails; 0: none */
	u32 pages_in, pages_peer, pages_home, pages_evicted, pages_recalled;
	u32 bos, destroyed;
	u32 peer_maps; /* peers' mappings of our pages */
	bool no_peers, whole_window, revoke_at_copy;
};
static struct device dev, dev2;

struct bo {
	struct gpusvm_devmem base;
	struct device *dev;
	u64 frames[HOST_HUGE_PAGES];
};

static struct bo *bo_of(struct gpusvm_devmem *devmem)
{
	return host_container_of(devmem, struct bo, base);
}

/* n frames in a row. False: there are none. */
static bool take(struct device *d, unsigned n, u64 *ret)
{
	bool had;
	u64 f;

	host_mutex_lock(&d->lock);
	for (f = 0; f + n <= FRAMES; f += n) {
		unsigned k = 0;

		while (k < n && !d->used[f + k])
			k++;
		if (k == n)
			break;
	}
	had = f + n <= FRAMES;
	if (had) {
		memset(&d->used[f], 1, n);
		d->n_used += n;
	}
	host_mutex_unlock(&d->lock);
	if (had) /* what was there before is not to be seen */
		memset(d->memory + f * HOST_PAGE_SIZE, 0xee, n * HOST_PAGE_SIZE);
	*ret = f;
	return had;
}

static void op_free_frames(struct gpusvm_devmem *devmem, u64 frame, unsigned order)
{
	struct device *d = bo_of(devmem)->dev;

	host_mutex_lock(&d->lock);
	for (u64 f = frame; f < frame + (1u << order); f++) {
		HOST_CHECK(d->used[f]);
		d->used[f] = 0;
	}
	d->n_used -= 1u << order;
	host_mutex_unlock(&d->lock);
}

static u64 op_frame(struct gpusvm_devmem *devmem, unsigned i)
{
	return bo_of(devmem)->frames[i];
}

static void op_release(struct gpusvm_devmem *devmem)
{
	host_add_return(&bo_of(devmem)->dev->bos, (u32)-1);
	host_free(bo_of(devmem));
}

static u8 *reach_side(struct device *d, struct gpusvm_addr a, u64 length, bool write)
{
	u64 at = gpusvm_addr_address(a);

	switch (gpusvm_addr_proto(a)) {
	case GPUSVM_PROTO_LOCAL:
		HOST_CHECK(at + length <= FRAMES * HOST_PAGE_SIZE);
		return d->memory + at;
	case GPUSVM_PROTO_PEER:
		HOST_CHECK(d == &dev && dev2.peer_maps);
		return dev2.memory + at;
	default:
		return mm_bus_begin(at, length, write);
	}
}

static int op_copy(struct gpusvm_devmem *devmem, const struct gpusvm_copy *list, unsigned n,
		   struct gpusvm_fence *after, struct gpusvm_fence *done)
{
	struct device *d = bo_of(devmem)->dev;
	int result = 0;

	HOST_CHECK(!done);
	if (after)
		HOST_CHECK(gpusvm_fence_wait(after, HOST_FOREVER, &result) == 0);
	if (result)
		return result;
	if (d->revoke_at_copy)
		gpusvm_pagemap_revoke(&d->pagemap);
	host_add_return(&d->copies, 1);
	host_add_return(&d->copy_entries, n);
	if (d->fail_copy_at && --d->fail_copy_at == 0)
		return -EIO;
	for (unsigned i = 0; i < n; i++) {
		u8 *to = reach_side(d, list[i].dst, list[i].length, true), *from;

		HOST_CHECK(to);
		if (gpusvm_addr_proto(list[i].src) == GPUSVM_PROTO_NONE) {
			memset(to, 0, list[i].length);
		} else {
			from = reach_side(d, list[i].src, list[i].length, false);
			HOST_CHECK(from);
			memcpy(to, from, list[i].length);
		}
		mm_bus_end();
	}
	return 0;
}

static const struct gpusvm_devmem_ops bo_ops = { .release = op_release,
						 .frame = op_frame,
						 .free_frames = op_free_frames,
						 .copy = op_copy };

/* scattered: no two frames follow each other. NULL: no memory. */
static struct bo *bo_create(struct device *d, struct mm *mm, unsigned n, bool scattered,
			    struct gpusvm_fence *after)
{
	struct bo *bo = host_alloc(sizeof(*bo));
	unsigned size = 1;

	if (!bo)
		return NULL;
	bo->dev = d;
	while (size < n)
		size *= 2;
	if (scattered || !take(d, size, &bo->frames[0])) {
		for (unsigned i = 0; i < n; i++)
			assert_true(take(d, 1, &bo->frames[i]));
		for (unsigned i = 0; i < n / 2; i++) {
			u64 f = bo->frames[i];

			bo->frames[i] = bo->frames[n - 1 - i];
			bo->frames[n - 1 - i] = f;
		}
	} else {
		for (unsigned i = 1; i < n; i++)
			bo->frames[i] = bo->frames[0] + i;
		host_mutex_lock(&d->lock);
		memset(&d->used[bo->frames[0] + n], 0, size - n);
		d->n_used -= size - n;
		host_mutex_unlock(&d->lock);
	}
	host_add_return(&d->bos, 1);
	gpusvm_devmem_init(&bo->base, &bo_ops, &d->pagemap, mm, n, after);
	return bo;
}

static struct gpusvm_addr op_device_map(struct gpusvm_pagemap *pagemap, void *to,
					struct mm_page *page, unsigned order, bool write)
{
	struct device *d = host_container_of(pagemap, struct device, pagemap);

	HOST_CHECK(to == &dev);
	if (d->no_peers)
		return (struct gpusvm_addr){ 0 };
	d->peer_maps++;
	return gpusvm_addr_encode(mm_page_index(page) * HOST_PAGE_SIZE, GPUSVM_PROTO_PEER, order,
				  write);
}

static void op_device_unmap(struct gpusvm_pagemap *pagemap, void *to, struct gpusvm_addr addr)
{
	(void)to;
	(void)addr;
	host_container_of(pagemap, struct device, pagemap)->peer_maps--;
}

static int op_populate(struct gpusvm_pagemap *pagemap, struct mm *mm, u64 start, u64 end,
		       u64 timeslice, struct gpusvm_migrate_result *result)
{
	struct device *d = host_container_of(pagemap, struct device, pagemap);
	struct gpusvm_migrate_details details = { .timeslice = timeslice, .compound = true };
	struct bo *bo = bo_create(d, mm, (end - start) >> HOST_PAGE_SHIFT, false, NULL);

	return bo ? gpusvm_devmem_migrate(&bo->base, start, end, &details, result) : -ENOMEM;
}

static void op_fault_window(struct gpusvm_devmem *devmem, u64 address, unsigned fault, unsigned n,
			    unsigned *first, unsigned *last)
{
	HOST_CHECK((address & (HOST_HUGE_SIZE - 1)) >> HOST_PAGE_SHIFT == fault);
	HOST_CHECK(n == HOST_HUGE_PAGES);
	HOST_CHECK(fault < n);
	if (bo_of(devmem)->dev->whole_window) {
		*first = 0;
		*last = n;
	}
}

static void op_migrated(struct gpusvm_devmem *devmem, struct mm *mm, u64 address, u64 pages,
			bool to_device, struct gpusvm_pagemap *peer, unsigned cause, u64 started)
{
	struct device *d = bo_of(devmem)->dev;

	HOST_CHECK(mm == devmem->mm);
	HOST_CHECK(started && pages);
	HOST_CHECK(!to_device || cause == GPUSVM_MIGRATE_REQUEST);
	HOST_CHECK((address == 0) == (cause == GPUSVM_MIGRATE_EVICTION));
	HOST_CHECK(!peer || (to_device && peer != devmem->pagemap));
	if (peer)
		host_add_return(&d->pages_peer, (u32)pages);
	else if (to_device)
		host_add_return(&d->pages_in, (u32)pages);
	else if (cause == GPUSVM_MIGRATE_CPU_FAULT)
		host_add_return(&d->pages_home, (u32)pages);
	else if (cause == GPUSVM_MIGRATE_EVICTION)
		host_add_return(&d->pages_evicted, (u32)pages);
	else
		host_add_return(&d->pages_recalled, (u32)pages);
}

static void op_destroy(struct gpusvm_pagemap *pagemap)
{
	host_container_of(pagemap, struct device, pagemap)->destroyed++;
}

static const struct gpusvm_pagemap_ops pagemap_ops = { .device_map = op_device_map,
						       .device_unmap = op_device_unmap,
						       .populate_mm = op_populate,
						       .fault_window = op_fault_window,
						       .migrated = op_migrated,
						       .destroy = op_destroy };

/* ---- Set-up ------------------------------------------------------------------ */

static struct mm *mm;

static void device_up(struct device *d)
{
	memset(d, 0, sizeof(*d));
	host_mutex_init(&d->lock, RANK_LEAF);
	d->memory = host_alloc_pages(FRAMES * HOST_PAGE_SIZE);
	assert_non_null(d->memory);
	assert_int_equal(gpusvm_pagemap_init(&d->pagemap, &pagemap_ops, FRAMES), 0);
}

/* Law 8: every count is back where it was. */
static void device_down(struct device *d)
{
	assert_int_equal(d->n_used, 0);
	assert_int_equal(d->bos, 0);
	assert_int_equal(d->peer_maps, 0);
	assert_int_equal(model_region_used(d->pagemap.region), 0);
	gpusvm_pagemap_put(&d->pagemap);
	assert_int_equal(d->destroyed, 1);
	gpusvm_pagemap_fini(&d->pagemap);
	host_free_pages(d->memory, FRAMES * HOST_PAGE_SIZE);
	host_mutex_destroy(&d->lock);
}

static int setup(void **state)
{
	(void)state;
	device_up(&dev);
	device_up(&dev2);
	mm = model_mm_create();
	return !mm;
}

static int teardown(void **state)
{
	(void)state;
	if (mm) {
		assert_null(model_check(mm, true));
		assert_null(model_region_check(dev.pagemap.region));
		model_mm_destroy(mm);
	}
	device_down(&dev);
	device_down(&dev2);
	assert_int_equal(model_frames_live(), 0);
	return 0;
}

static void put(u64 address, u64 value)
{
	HOST_CHECK(model_cpu_write(mm, address, &value, sizeof(value)) == 0);
}

static u64 get(u64 address)
{
	u64 value = ~(u64)0;

	HOST_CHECK(model_cpu_read(mm, address, &value, sizeof(value)) == 0);
	return value;
}

static struct gpusvm_migrate_result result;

/* Migrates and, where keep is given, keeps one more reference there. */
static int migrate(struct device *d, u64 start, unsigned n, bool compound, bool scattered,
		   struct bo **keep)
{
	struct gpusvm_migrate_details details = { .compound = compound };
	struct bo *bo = bo_create(d, mm, n, scattered, NULL);
	int err;

	if (keep)
		*keep = NULL;
	if (!bo)
		return -ENOMEM;
	if (keep) {
		assert_true(gpusvm_devmem_get_unless_zero(&bo->base));
		*keep = bo;
	}
	err = gpusvm_devmem_migrate(&bo->base, start, start + n * HOST_PAGE_SIZE, &details,
				    &result);
	if (!err)
		assert_int_equal(result.moved + result.already + result.stayed + result.holes, n);
	else
		assert_int_equal(result.moved + result.already + result.stayed + result.holes, 0);
	return err;
}

static unsigned on_device(struct device *d, u64 start, unsigned n)
{
	struct mm_page_state s[HOST_HUGE_PAGES];
	unsigned found = 0;

	mm_page_states(mm, start, start + n * HOST_PAGE_SIZE, s);
	for (unsigned i = 0; i < n; i++)
		found += s[i].owner == &d->pagemap;
	return found;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
