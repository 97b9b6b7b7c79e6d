/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_pagemap_cache.c: the life of a pagemap: made at first use, kept, revived, shrunk,
 * revoked; each against each.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "core/pagemap/cache.c"
#include "host/model/model.h"
#include "host/posix/posix.h"

/* ---- pagemap.c, but for devmems: frames have none here ------------------------------ */

static void frame_free(struct mm_page *page, unsigned order, void *data)
{
}

int pagemap_region_create(struct gpusvm_pagemap *pagemap, u64 npages, struct mm_region **ret)
{
	static const struct mm_region_ops region_ops = {.free = frame_free};

	return mm_region_create(npages, &region_ops, pagemap, ret);
}

struct gpusvm_pagemap *gpusvm_pagemap_get(struct gpusvm_pagemap *pagemap)
{
	host_ref_get(&pagemap->ref);
	return pagemap;
}

void gpusvm_pagemap_put(struct gpusvm_pagemap *pagemap)
{
	if (host_ref_put(&pagemap->ref))
		pagemap->ops->destroy(pagemap);
}

void gpusvm_pagemap_revoke(struct gpusvm_pagemap *pagemap)
{
	host_store_seq(&pagemap->revoked, 1);
}

#define FRAMES 1024u

struct owner {
	struct gpusvm_pagemap pagemap;
	struct gpusvm_pagemap_cache cache;
	u32 active; /* activations that no destroy has answered */
	u32 destroys;
	bool slow; /* destroy comes late */
};

static void op_destroy(struct gpusvm_pagemap *pagemap)
{
	struct owner *o = host_container_of(pagemap, struct owner, pagemap);

	if (o->slow)
		host_relax();
	gpusvm_pagemap_cache_idle(&o->cache);
	host_add_return(&o->destroys, 1);
	HOST_CHECK(host_add_return(&o->active, (u32)-1) != (u32)-1);
}

static const struct gpusvm_pagemap_ops ops = {.destroy = op_destroy};

static void owner_init(struct owner *o, u64 keepalive)
{
	*o = (struct owner){.slow = false};
	assert_int_equal(gpusvm_pagemap_cache_init(&o->cache, &o->pagemap, &ops, FRAMES, keepalive),
			 0);
}

static void owner_fini(struct owner *o)
{
	gpusvm_pagemap_cache_fini(&o->cache);
	assert_null(o->pagemap.region);
	assert_int_equal(o->active, 0);
}

/* As an owner does: the activation is counted before it can be over. */
static int get(struct owner *o)
{
	int r;

	host_add_return(&o->active, 1);
	r = gpusvm_pagemap_cache_get(&o->cache);
	if (r != 1)
		host_add_return(&o->active, (u32)-1);
	return r;
}

static void test_made_at_first_use(void **state)
{
	struct owner o;

	owner_init(&o, HOST_SEC);
	assert_null(o.pagemap.region);
	assert_int_equal(get(&o), 1);
	assert_non_null(o.pagemap.region);
	assert_ptr_equal(mm_region_priv(o.pagemap.region), &o.pagemap);
	assert_int_equal(get(&o), 0);
	gpusvm_pagemap_put(&o.pagemap);
	assert_int_equal(o.destroys, 0);
	assert_false(gpusvm_pagemap_cache_shrink(&o.cache));
	gpusvm_pagemap_put(&o.pagemap);
	assert_int_equal(o.destroys, 1);
	owner_fini(&o);
}

/* Idle, it goes when memory is short; in use it stays. */
static void test_goes_when_memory_is_short(void **state)
{
	struct owner o;

	owner_init(&o, 60 * HOST_SEC);
	assert_int_equal(o.cache.shrinker.ops->count(&o.cache.shrinker), 0);
	assert_int_equal(get(&o), 1);
	assert_int_equal(o.cache.shrinker.ops->count(&o.cache.shrinker), 0);
	assert_int_equal(host_shrink(), 0);
	assert_non_null(o.pagemap.region);
	gpusvm_pagemap_put(&o.pagemap);
	assert_int_equal(host_shrink(), FRAMES * sizeof(u64));
	assert_null(o.pagemap.region);
	assert_int_equal(host_shrink(), 0);
	assert_int_equal(get(&o), 1);
	gpusvm_pagemap_put(&o.pagemap);
	owner_fini(&o);
}

static void test_revived_at_no_cost(void **state)
{
	struct mm_region *region;
	struct owner o;
	u64 allocated;

	owner_init(&o, HOST_SEC);
	assert_int_equal(get(&o), 1);
	region = o.pagemap.region;
	gpusvm_pagemap_put(&o.pagemap);
	allocated = host_posix_alloc_count();
	assert_int_equal(get(&o), 1);
	assert_int_equal(host_posix_alloc_count(), allocated);
	assert_ptr_equal(o.pagemap.region, region);
	gpusvm_pagemap_put(&o.pagemap);
	/* Under pressure it goes, with what was kept for migrations, and comes again. */
	o.pagemap.scratch = host_alloc(64);
	assert_true(gpusvm_pagemap_cache_shrink(&o.cache));
	assert_null(o.pagemap.region);
	assert_null(o.pagemap.scratch);
	assert_true(gpusvm_pagemap_cache_shrink(&o.cache));
	assert_int_equal(get(&o), 1);
	assert_non_null(o.pagemap.region);
	gpusvm_pagemap_put(&o.pagemap);
	owner_fini(&o);
}

static void test_kept_for_a_while(void **state)
{
	struct owner o;

	/* The work, whenever it comes, takes down what has been idle long enough only. */
	owner_init(&o, 3600 * HOST_SEC);
	assert_int_equal(get(&o), 1);
	gpusvm_pagemap_put(&o.pagemap);
	host_work_cancel(&o.cache.shrink);
	shrink_work(&o.cache.shrink);
	assert_non_null(o.pagemap.region);
	o.cache.keepalive = 0;
	host_work_cancel(&o.cache.shrink);
	shrink_work(&o.cache.shrink);
	assert_null(o.pagemap.region);
	/* And by itself. */
	assert_int_equal(get(&o), 1);
	gpusvm_pagemap_put(&o.pagemap);
	host_work_flush(&o.cache.shrink);
	assert_null(o.pagemap.region);
	owner_fini(&o);
}

static void test_revoked(void **state)
{
	struct owner o;

	owner_init(&o, HOST_SEC);
	assert_int_equal(get(&o), 1);
	gpusvm_pagemap_revoke(&o.pagemap);
	assert_int_equal(get(&o), -ENODEV);
	gpusvm_pagemap_get(&o.pagemap); /* who has one may have more */
	gpusvm_pagemap_put(&o.pagemap);
	gpusvm_pagemap_put(&o.pagemap);
	assert_int_equal(get(&o), -ENODEV);
	owner_fini(&o);
}

static void test_no_memory(void **state)
{
	struct owner o;
	unsigned n = 0;
	int r;

	owner_init(&o, HOST_SEC);
	do {
		host_posix_fail_alloc_at(++n);
		r = get(&o);
	} while (r == -ENOMEM);
	host_posix_fail_alloc_at(0);
	assert_true(n > 1);
	assert_int_equal(r, 1);
	gpusvm_pagemap_put(&o.pagemap);
	owner_fini(&o);
}

/* ---- All against all --------------------------------------------------------------- */

struct race {
	struct owner o;
	u32 stop;
	u64 rounds[4];
};

/* Takes, uses, puts: while it has a reference, the region is there, and stays. */
static void user(struct race *r, unsigned i)
{
	while (!host_load_acquire(&r->stop)) {
		struct mm_page *page;
		int got = get(&r->o);

		HOST_CHECK(got == 0 || got == 1);
		page = mm_page_init(r->o.pagemap.region, i, 0, &r->rounds[i]);
		HOST_CHECK(mm_page_region(page) == r->o.pagemap.region);
		HOST_CHECK(mm_page_index(page) == i);
		mm_page_abandon(page);
		HOST_CHECK(r->o.pagemap.region != NULL);
		gpusvm_pagemap_put(&r->o.pagemap);
		host_add_relaxed(&r->rounds[i], 1);
	}
}

static void *user_0(void *arg)
{
	user(arg, 0);
	return NULL;
}

static void *user_1(void *arg)
{
	user(arg, 1);
	return NULL;
}

static void *shrinker(void *arg)
{
	struct race *r = arg;

	while (!host_load_acquire(&r->stop))
		if (gpusvm_pagemap_cache_shrink(&r->o.cache))
			host_add_relaxed(&r->rounds[2], 1);
	return NULL;
}

static void test_revive_against_shrink_against_put(void **state)
{
	static const u64 keepalives[] = {0, HOST_USEC, HOST_SEC};

	for (unsigned k = 0; k < host_array_size(keepalives); k++) {
		struct race *r = calloc(1, sizeof(*r));
		pthread_t threads[3];

		owner_init(&r->o, keepalives[k]);
		r->o.slow = k == 1;
		assert_int_equal(pthread_create(&threads[0], NULL, user_0, r), 0);
		assert_int_equal(pthread_create(&threads[1], NULL, user_1, r), 0);
		assert_int_equal(pthread_create(&threads[2], NULL, shrinker, r), 0);
		host_sleep(500 * HOST_MSEC);
		for (unsigned i = 0; i < 3; i++)
			while (!host_read_once(&r->rounds[i]))
				host_sleep(HOST_MSEC);
		host_store_release(&r->stop, 1);
		for (unsigned i = 0; i < 3; i++)
			pthread_join(threads[i], NULL);
		owner_fini(&r->o);
		free(r);
	}
}

static int setup(void **state)
{
	*state = model_mm_create();
	return !*state || host_work_start();
}

static int teardown(void **state)
{
	host_work_stop();
	model_mm_destroy(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_made_at_first_use),
	    cmocka_unit_test(test_goes_when_memory_is_short),
	    cmocka_unit_test(test_revived_at_no_cost),
	    cmocka_unit_test(test_kept_for_a_while),
	    cmocka_unit_test(test_revoked),
	    cmocka_unit_test(test_no_memory),
	    cmocka_unit_test(test_revive_against_shrink_against_put),
	};

	return cmocka_run_group_tests_name("pagemap_cache", tests, setup, teardown);
}
