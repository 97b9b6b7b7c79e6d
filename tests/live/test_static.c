/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * test_static.c: a program that links libc statically. What libc's mutexes and copies
 * read lies among the program's own variables then, and must not move with them.
 */
#define _GNU_SOURCE
#include "tests/live/mini.h"

#include <stdio.h>
#include <unistd.h>

static char array[4 * HOST_HUGE_SIZE];
extern char _end[]; /* of .bss */

int main(void)
{
	u64 end = host_align_up((u64)_end, HOST_PAGE_SIZE);

	if (mini_open(0)) {
		printf("skipped: no userfaultfd\n");
		return 77;
	}
	memset(array, 7, sizeof(array));
	alarm(20); /* a fault thread waits for itself */
	for (u64 at = host_align_down((u64)array, HOST_PAGE_SIZE), next; at < end; at = next) {
		next = host_min(end, host_align_down(at, HOST_HUGE_SIZE) + HOST_HUGE_SIZE);
		(void)mini_out(at, next, NULL);
	}
	for (size_t i = 0; i < sizeof(array); i++)
		if (array[i] != 7)
			return 1;
	return mini_close() ? 2 : 0;
}
