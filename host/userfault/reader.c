/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * reader.c: the threads that serve CPU faults.
 *
 * They are alike. One leads: it alone reads messages, in order. It serves a
 * fault itself, so that a fault costs one wake-up and not two; but a leader
 * never waits: the moment it would block (host_posix_before_block), it hands
 * the lead to an idle thread, and finishes as a follower. When no thread is
 * idle, a fault that might wait for a device is put aside instead, and whoever
 * finishes first takes it. So there is always a thread to read events and to
 * fill pages that need no device, which is what engines inside their own
 * faults wait for.
 */
#define _GNU_SOURCE
#include "host/userfault/home.h"
#include "host/posix/posix.h"

#include <poll.h>

static HOST_THREAD_LOCAL struct mm *leading; /* the home this thread leads, or NULL */

static void lead_give_up(void)
{
	struct mm *mm = leading;

	host_posix_before_block = NULL;
	leading = NULL;
	host_mutex_lock(&mm->leader_lock);
	host_store_release(&mm->has_leader, false);
	host_mutex_unlock(&mm->leader_lock);
	host_wake_all(&mm->leader_waitq);
}

/* Waits for the lead, or for a fault that was put aside. False: stop. */
static bool lead_or_defer(struct mm *mm, u64 *deferred)
{
	bool got = false;

	*deferred = 0;
	while (!got) {
		host_mutex_lock(&mm->leader_lock);
		mm->idle++;
		host_mutex_unlock(&mm->leader_lock);
		host_wait(&mm->leader_waitq, !host_load_acquire(&mm->has_leader) ||
						 host_load_acquire(&mm->n_deferred) ||
						 host_load_acquire(&mm->stopping));
		host_mutex_lock(&mm->leader_lock);
		mm->idle--;
		if (mm->stopping && mm->has_leader) {
			host_mutex_unlock(&mm->leader_lock);
			return false;
		}
		if (!mm->has_leader) {
			host_store_release(&mm->has_leader, true);
			leading = mm;
			got = true;
		} else if (mm->n_deferred) {
			*deferred = mm->deferred[mm->n_deferred - 1];
			host_store_release(&mm->n_deferred, mm->n_deferred - 1);
			got = true;
		}
		host_mutex_unlock(&mm->leader_lock);
	}
	return true;
}

/* A thread is idle that no fault put aside will take: it would take the lead. Only
 * the leader puts aside, and who takes a fault is idle no more before the fault is
 * gone from the list: a look without the lock errs to the safe side. */
static bool somebody_idle(const struct mm *mm)
{
	u32 deferred = host_load_acquire(&mm->n_deferred);

	return host_read_once(&mm->idle) > deferred;
}

/* True when the fault may be served on this thread. The leader's. */
static bool may_block(struct mm *mm, u64 address)
{
	bool may;

	if (somebody_idle(mm))
		return true;
	host_mutex_lock(&mm->leader_lock);
	may = somebody_idle(mm);
	if (!may && mm->n_deferred < host_array_size(mm->deferred)) {
		mm->deferred[mm->n_deferred] = address;
		host_store_release(&mm->n_deferred, mm->n_deferred + 1);
	} else if (!may) {
		/* No room to remember it: let it fault again. */
		(void)uffd_wake(mm, address, HOST_PAGE_SIZE);
	}
	host_mutex_unlock(&mm->leader_lock);
	return may;
}

static void serve_pagefault(struct mm *mm, const struct uffd_msg *msg)
{
	u64 address = host_align_down(msg->arg.pagefault.address, HOST_PAGE_SIZE);
	bool write = msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE;
	u64 events = mm->events; /* nobody but us reads any */
	struct mm_cpu_fault fault;

	if (msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
		fault_serve_protected(mm, address);
		return;
	}
	if (fault_serve_system(mm, address, write, &fault))
		return;
	if (!may_block(mm, address)) {
		fault_drop(&fault);
		return;
	}
	host_posix_before_block = lead_give_up;
	fault_serve_device(mm, &fault, events);
	host_posix_before_block = NULL;
}

/* ---- Descriptors in reserve -------------------------------------------------
 * The message of a fork brings a descriptor. Where the application has used up all that
 * it may have, the message cannot be read, nor any event behind it, and nothing moves.
 */
static void spare_fds_open(struct mm *mm)
{
	for (unsigned i = 0; i < SPARE_FDS; i++)
		if (mm->spare_fds[i] < 0)
			mm->spare_fds[i] = mm->sys->event();
}

static bool spare_fds_use(struct mm *mm)
{
	for (unsigned i = 0; i < SPARE_FDS; i++)
		if (mm->spare_fds[i] >= 0) {
			mm->sys->close(mm->spare_fds[i]);
			mm->spare_fds[i] = -1;
			return true;
		}
	return false;
}

void spare_fds_close(struct mm *mm)
{
	while (spare_fds_use(mm))
		;
}

s64 reader_read(struct mm *mm, int fd, struct uffd_msg *msg)
{
	s64 n;

	do
		n = mm->sys->read(fd, msg, sizeof(*msg));
	while ((n == -EMFILE || n == -ENFILE) && spare_fds_use(mm));
	return n;
}

/* Reads one message of fd, and marks pages if it is an event. */
static bool read_message(struct mm *mm, int fd, struct uffd_msg *msg)
{
	s64 n;

	host_write_lock(&mm->gate);
	events_settle(mm);
	n = reader_read(mm, fd, msg);
	if (n == sizeof(*msg) && msg->event != UFFD_EVENT_PAGEFAULT) {
		count(mm, events);
		event_apply(mm, msg);
		if (msg->event == UFFD_EVENT_FORK)
			spare_fds_open(mm);
		/* Only now: who sees the new count, sees what the event has changed. */
		host_store_release(&mm->events, mm->events + 1);
	}
	host_write_unlock(&mm->gate);
	if (n == -EMFILE || n == -ENFILE)
		host_sleep(HOST_MSEC); /* until somebody closes something */
	if (n != sizeof(*msg))
		return false;
	host_add_return(&mm->reads, 1);
	if (msg->event != UFFD_EVENT_PAGEFAULT)
		host_wake_all(&mm->reads_waitq);
	return true;
}

static void lead(struct mm *mm)
{
	struct pollfd fds[3] = {
	    {.fd = mm->fd, .events = POLLIN},
	    {.fd = mm->kick_fd, .events = POLLIN},
	    {.fd = mm->watch_fd, .events = POLLIN},
	};
	struct uffd_msg msg;

	while (leading) {
		/* Each descriptor costs a tenth of a microsecond. */
		unsigned n = host_load_acquire(&mm->watching) ? 3 : 2;

		fds[2].revents = 0;
		if (mm->sys->poll(fds, n, fault_stalled_due(mm, fault_repeat_due(mm))) <= 0)
			continue;
		/* Closed by the application: what is on a device reads as zeros now. */
		HOST_CHECK(!((fds[0].revents | fds[1].revents | fds[2].revents) & POLLNVAL));
		if (fds[0].revents & POLLIN && read_message(mm, mm->fd, &msg) &&
		    msg.event == UFFD_EVENT_PAGEFAULT)
			serve_pagefault(mm, &msg);
		if (leading && fds[2].revents & POLLIN)
			(void)read_message(mm, mm->watch_fd, &msg);
		if (leading && fds[1].revents & POLLIN) {
			u64 kicks;

			/* Read first: it may take the kick of reader_stop with it. */
			(void)mm->sys->read(mm->kick_fd, &kicks, sizeof(kicks));
			if (host_load_acquire(&mm->stopping))
				return;
		}
	}
}

static void serve_deferred(struct mm *mm, u64 address)
{
	u64 events = host_load_acquire(&mm->events);
	struct mm_cpu_fault fault;

	if (fault_look(mm, address, &fault))
		fault_serve_device(mm, &fault, events);
	else /* it has moved since: whoever waits looks again */
		(void)uffd_wake(mm, address, HOST_PAGE_SIZE);
}

static void fault_thread(void *arg)
{
	struct mm *mm = arg;
	u64 deferred;

	while (lead_or_defer(mm, &deferred)) {
		if (deferred)
			serve_deferred(mm, deferred);
		else
			lead(mm);
		if (leading) /* stopping: the others leave while this one leads */
			return;
	}
}

int reader_start(struct mm *mm)
{
	int r = 0;

	host_memset(mm->spare_fds, 0xff, sizeof(mm->spare_fds)); /* none */
	host_mutex_init(&mm->leader_lock, RANK_HOST);
	host_waitq_init(&mm->leader_waitq);
	host_waitq_init(&mm->reads_waitq);
	mm->kick_fd = mm->sys->event();
	if (mm->kick_fd < 0)
		return mm->kick_fd;
	spare_fds_open(mm);
	for (unsigned i = 0; !r && i < FAULT_THREADS; i++)
		r = host_thread_start(&mm->threads[i], "gpusvm-fault", fault_thread, mm);
	return r;
}

void reader_kick(struct mm *mm)
{
	u64 one = 1;

	if (mm->sys->write(mm->kick_fd, &one, sizeof(one)) != sizeof(one))
		host_warn("eventfd", __FILE__, __LINE__);
}

void reader_stop(struct mm *mm)
{
	host_store_release(&mm->stopping, true);
	reader_kick(mm);
	host_wake_all(&mm->leader_waitq);
	for (unsigned i = 0; i < FAULT_THREADS; i++)
		host_thread_join(&mm->threads[i]);
	spare_fds_close(mm);
	mm->sys->close(mm->kick_fd);
	host_waitq_destroy(&mm->leader_waitq);
	host_waitq_destroy(&mm->reads_waitq);
	host_mutex_destroy(&mm->leader_lock);
}
