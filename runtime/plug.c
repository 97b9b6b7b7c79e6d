/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * plug.c: devices that come while the handle is open, and links.
 *
 * A device brings threads. To make one is to call malloc, which a thread of the library
 * must not (call.c): so the application's thread that asked for the device lends
 * itself. The thread of the library that adds the device asks it, for each thread, by
 * a word that both sleep on:
 *
 *	FREE, ANSWERED --library--> ASKED --application's--> ANSWERED
 *	FREE, ANSWERED --library--> OVER: the device is there, or is not
 *
 * The application's thread makes the thread with no lock of the library's held, but for
 * bind_lock, which only its like take.
 */
#include "runtime/private.h"
#include "host/posix/posix.h"

enum lender_state { LENDER_FREE, LENDER_ASKED, LENDER_ANSWERED, LENDER_OVER };

/* Whom to ask; the library's world, set while a device is added. */
static struct lender *lender HOST_STATIC;

static void lender_set(struct lender *l, u32 state)
{
	host_store_release(&l->state, state);
	futex_wake(&l->state, 1);
}

/* host_posix_set_starter's. */
static int start_on_lender(int (*create)(void *arg), void *arg)
{
	struct lender *l = lender;

	l->create = create;
	l->arg = arg;
	lender_set(l, LENDER_ASKED);
	while (host_load_acquire(&l->state) == LENDER_ASKED)
		futex_wait(&l->state, LENDER_ASKED, HOST_FOREVER);
	return l->result;
}

/* The application's thread, until the call is over. */
static void lend(struct lender *l)
{
	u32 state;

	while ((state = host_load_acquire(&l->state)) != LENDER_OVER) {
		if (state != LENDER_ASKED) {
			futex_wait(&l->state, state, HOST_FOREVER);
			continue;
		}
		l->result = l->create(l->arg);
		lender_set(l, LENDER_ANSWERED);
	}
}

static int plug_call(struct gpusvm_event *event)
{
	struct gpusvm *svm = event->svm;
	int index;

	lender = &svm->lender;
	host_posix_set_starter(start_on_lender);
	index = device_add(svm, &event->u.device_add);
	host_posix_set_starter(NULL);
	lender_set(&svm->lender, LENDER_OVER);
	return index;
}

int gpusvm_device_bind(struct gpusvm *svm, const struct gpusvm_device_desc *desc)
{
	struct gpusvm_soft_options options;
	struct gpusvm_event *event;
	int err = svm_check(svm);

	if (!err)
		err = desc ? device_desc_parse(desc, &options) : -EINVAL;
	if (err)
		return err;
	host_mutex_lock(&svm->bind_lock);
	event = event_new(svm);
	if (host_load_acquire(&svm->n_devices) == GPUSVM_DRIVER_DEVICES)
		err = -ENOSPC;
	else if (!event)
		err = -ENOMEM;
	if (!err) {
		event->u.device_add = options;
		host_write_once(&svm->lender.state, LENDER_FREE);
		call_post(event, plug_call, TASK_SLOW);
		lend(&svm->lender);
		err = event_result(event);
	}
	host_mutex_unlock(&svm->bind_lock);
	if (event)
		event_put(event);
	return err;
}

/* ---- Links ----------------------------------------------------------------- */

int link_parse(const struct gpusvm_link *link, struct gpusvm_interconnect_link *ret)
{
	struct gpusvm_link l;

	if (struct_in(&l, sizeof(l), link) || l.flags & ~(u64)(GPUSVM_LINK_MAP | GPUSVM_LINK_COPY))
		return -EINVAL;
	*ret = (struct gpusvm_interconnect_link){
	    .bandwidth_mbps = l.bandwidth_mbps,
	    .latency_ns = l.latency_ns,
	    .flags = l.flags,
	};
	return 0;
}

static int link_call(struct gpusvm_event *event)
{
	return gpusvm_driver_link_set(event->svm->driver, event->u.link.from, event->u.link.to,
				      event->u.link.down ? NULL : &event->u.link.link);
}

int gpusvm_link_set(struct gpusvm *svm, int from, int to, const struct gpusvm_link *link)
{
	struct gpusvm_interconnect_link parsed = {.flags = 0};
	struct gpusvm_event *event;
	int err = svm_check(svm);

	if (!err)
		err = device_check(svm, from);
	if (!err)
		err = device_check(svm, to);
	if (!err)
		err = from == to ? -EINVAL : link ? link_parse(link, &parsed) : 0;
	if (err)
		return err;
	event = event_new(svm);
	if (!event)
		return -ENOMEM;
	event->u.link.from = from;
	event->u.link.to = to;
	event->u.link.down = !link;
	event->u.link.link = parsed;
	call_post(event, link_call, TASK_SLOW);
	return event_finish(event);
}
