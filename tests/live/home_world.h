/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * home_world.h: memory for tests of the live-process home alone: blocks that are
 * filled with known words, put on mini.h's device, and looked at.
 */
#ifndef TESTS_LIVE_HOME_WORLD_H
#define TESTS_LIVE_HOME_WORLD_H

#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "host/userfault/home.h"
#include "tests/live/mini.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE ((size_t)HOST_PAGE_SIZE)
#define HUGE_SIZE ((size_t)HOST_HUGE_SIZE)
#define WORDS(size) ((size) / sizeof(u64))

static u64 value(size_t i)
{
	return i * 0x9e3779b97f4a7c15u + 1;
}

static void fill(void *p, size_t size)
{
	for (size_t i = 0; i < WORDS(size); i++)
		((u64 *)p)[i] = value(i);
}

static void check(const void *p, size_t from, size_t to)
{
	for (size_t i = WORDS(from); i < WORDS(to); i++)
		if (((const u64 *)p)[i] != value(i))
			fail_msg("word %zu is %lx", i, ((const u64 *)p)[i]);
}

/* size bytes at a 2M boundary with a free 2M behind. */
static char *map(size_t size, bool huge)
{
	char *p = mmap(NULL, size + 2 * HUGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = (char *)host_align_up((u64)p, HUGE_SIZE);

	assert_ptr_not_equal(p, MAP_FAILED);
	munmap(p, size + 2 * HUGE_SIZE);
	at = mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	assert_int_equal(madvise(at, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE), 0);
	return at;
}

static void out(const void *p, size_t size)
{
	assert_int_equal(mini_out((u64)p, (u64)p + size, NULL), size / PAGE);
}

/* Frames are freed a moment after the pages came home. */
static void wait_used(u64 want)
{
	for (int i = 0; i < 2000 && mini_used() != want; i++)
		usleep(1000);
	assert_int_equal(mini_used(), want);
}

static void sync_all(void)
{
	assert_int_equal(mm_sync(mini->mm, 0, ~(u64)0), 0);
}

/* Filled memory of one block, all of it on the device. */
static char *on_device(bool huge)
{
	char *p = map(HUGE_SIZE, huge);

	fill(p, HUGE_SIZE);
	out(p, HUGE_SIZE);
	return p;
}

static void done(char *p)
{
	munmap(p, HUGE_SIZE);
	sync_all();
	wait_used(0);
}

static int group_open(void **state)
{
	(void)state;
	return mini_open(0);
}

static int group_close(void **state)
{
	(void)state;
	return mini_close() ? -1 : 0;
}

#endif
