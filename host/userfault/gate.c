/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * gate.c: system calls that move pages, and the gate that orders them with
 * events. See home.h for the rule. A section lasts for one system call of at
 * most 2M; nothing in it waits for a device or for another thread's fault.
 */
#include "host/userfault/home.h"

#include <sys/mman.h>

void section_enter(struct mm *mm, struct block *b)
{
	host_mutex_lock(&b->lock);
	host_read_lock(&mm->gate);
}

void section_leave(struct mm *mm, struct block *b)
{
	host_read_unlock(&mm->gate);
	host_mutex_unlock(&b->lock);
}

u64 events_now(struct mm *mm)
{
	u64 events;

	host_read_lock(&mm->gate);
	events = mm->events;
	host_read_unlock(&mm->gate);
	return events;
}

bool events_unread(struct mm *mm)
{
	/* A range of length 0 is checked after unread events are: EAGAIN while one
	 * waits, EINVAL otherwise. */
	return uffd_zero(mm, mm->staging.base, 0, NULL) == -EAGAIN;
}

void wait_for_reader(struct mm *mm)
{
	u64 seen = host_load_acquire(&mm->reads);

	count(mm, eagain);
	if (!events_unread(mm))
		return;
	(void)host_wait_until(&mm->reads_waitq, host_load_acquire(&mm->reads) != seen,
			      host_now() + 2 * HOST_MSEC);
}

static int copy(struct mm *mm, struct uffdio_copy *copy, u64 *done)
{
	int r = mm->sys->ioctl(mm->fd, UFFDIO_COPY, copy);

	count(mm, copies);
	if (done)
		*done = copy->copy > 0 ? (u64)copy->copy : 0;
	return r;
}

int uffd_copy(struct mm *mm, u64 dst, const void *src, u64 length, u64 *done)
{
	return copy(mm, &(struct uffdio_copy){.dst = dst, .src = (u64)src, .len = length}, done);
}

int uffd_copy_protected(struct mm *mm, u64 dst, const void *src, u64 length, u64 *done)
{
	return copy(mm,
		    &(struct uffdio_copy){
			.dst = dst, .src = (u64)src, .len = length, .mode = UFFDIO_COPY_MODE_WP},
		    done);
}

int uffd_zero(struct mm *mm, u64 dst, u64 length, u64 *done)
{
	struct uffdio_zeropage zero = {.range = {.start = dst, .len = length}};
	int r = mm->sys->ioctl(mm->fd, UFFDIO_ZEROPAGE, &zero);

	if (done)
		*done = zero.zeropage > 0 ? (u64)zero.zeropage : 0;
	return r;
}

/* Bytes of [start, end), from its beginning on, in which there are pages. */
static u64 run_there(struct mm *mm, u64 start, u64 end)
{
	struct page_region first;

	if (mm->sys->scan(start, end, PAGE_IS_PRESENT | PAGE_IS_SWAPPED, &first, 1) != 1 ||
	    first.start != start)
		return 0;
	return first.end - start;
}

/* The same, in which there are none. */
static u64 run_gone(struct mm *mm, u64 start, u64 end)
{
	struct page_region first;
	int n = mm->sys->scan(start, end, PAGE_IS_PRESENT | PAGE_IS_SWAPPED, &first, 1);

	return n < 0 ? 0 : n ? first.start - start : end - start;
}

/* Kernels since 6.18 move a batch of small pages and then forget it: if a page
 * before it made the call try again (it was being migrated, or its huge page
 * split), the old error outlives the success, the batch is tried a second time,
 * and the answer is EEXIST with nothing done. Who believes that keeps the page
 * that is not there any more, and the next to touch it gets zeros. Nobody else
 * fills the destination or empties the source of a move: what is at the one and
 * not at the other has moved. */
static u64 moved_uncounted(struct mm *mm, u64 dst, u64 src, u64 length)
{
	u64 there = run_there(mm, dst, dst + length);
	u64 gone = there ? run_gone(mm, src, src + there) : 0;

	if (gone) {
		count(mm, uncounted);
		(void)uffd_wake(mm, dst, gone);
	}
	return gone;
}

int uffd_move(struct mm *mm, u64 dst, u64 src, u64 length, u64 *done)
{
	struct uffdio_move move = {.dst = dst, .src = src, .len = length};
	int r = mm->sys->ioctl(mm->fd, UFFDIO_MOVE, &move);

	count(mm, moves);
	*done = move.move > 0 ? (u64)move.move : 0;
	/* Other errors are true, and looked at it might seem otherwise: mlockall fills the
	 * destination, to which what is not locked is not moved (EINVAL). */
	if (r && (*done || r == -EEXIST || r == -EAGAIN)) {
		*done += moved_uncounted(mm, dst + *done, src + *done, length - *done);
		if (*done)
			r = *done == length ? 0 : -EAGAIN;
	}
	return r;
}

int uffd_wake(struct mm *mm, u64 start, u64 length)
{
	struct uffdio_range range = {.start = start, .len = length};

	count(mm, wakes);
	return mm->sys->ioctl(mm->fd, UFFDIO_WAKE, &range);
}

int uffd_protect(struct mm *mm, u64 start, u64 length, bool protect)
{
	struct uffdio_writeprotect wp = {
	    .range = {.start = start, .len = length},
	    .mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return mm->sys->ioctl(mm->fd, UFFDIO_WRITEPROTECT, &wp);
}

int uffd_register(struct mm *mm, int fd, u64 start, u64 length, u64 mode)
{
	struct uffdio_register reg = {.range = {.start = start, .len = length}, .mode = mode};

	return mm->sys->ioctl(fd, UFFDIO_REGISTER, &reg);
}

void uffd_unregister(struct mm *mm, int fd, u64 start, u64 length)
{
	struct uffdio_range range = {.start = start, .len = length};

	(void)mm->sys->ioctl(fd, UFFDIO_UNREGISTER, &range);
	(void)mm->sys->ioctl(fd, UFFDIO_WAKE, &range);
}

int drop_pages(struct mm *mm, u64 start, u64 length)
{
	int r = mm->sys->madvise(start, length, MADV_DONTNEED);

	return r == -EINVAL ? mm->sys->madvise(start, length, MADV_DONTNEED_LOCKED) : r;
}

int uffd_poison(struct mm *mm, u64 start, u64 length)
{
	struct uffdio_poison poison = {.range = {.start = start, .len = length}};

	if (!mm->info.poison)
		return -EOPNOTSUPP;
	return mm->sys->ioctl(mm->fd, UFFDIO_POISON, &poison);
}
