/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * futex.c: sleeping and waking without a lock, so that no thread of the library
 * can be kept by one of the application's that faults in between. errno is
 * kept: application threads come through here.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/private.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int futex_wait(u32 *word, u32 value, u64 deadline)
{
	struct timespec ts = { (time_t)(deadline / HOST_SEC), (long)(deadline % HOST_SEC) };
	int saved = errno, err = 0;

	if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value,
		    deadline == HOST_FOREVER ? NULL : &ts, NULL, FUTEX_BITSET_MATCH_ANY) < 0)
		err = errno;
	errno = saved;
	return err == ETIMEDOUT ? -ETIME : 0;
}

void futex_wake(u32 *word, int n)
{
	int saved = errno;

	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
	errno = saved;
}

void counter_inc(struct counter *c)
{
	host_add_return(&c->word, 1);
}

void counter_dec(struct counter *c)
{
	u32 *word = &c->word;

	if (host_add_return(word, (u32)-1) == COUNTER_WAITED)
		futex_wake(word, INT_MAX);
}

void counter_wait(struct counter *c)
{
	u32 v;

	while ((v = host_load_seq(&c->word)) & ~COUNTER_WAITED) {
		if (!(v & COUNTER_WAITED) && !host_cas(&c->word, &v, v | COUNTER_WAITED))
			continue;
		futex_wait(&c->word, v | COUNTER_WAITED, HOST_FOREVER);
	}
	host_fetch_and(&c->word, ~COUNTER_WAITED);
}
