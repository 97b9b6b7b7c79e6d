/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fork.c: the home's hooks around a fork. Devices do not write from before the
 * address space is copied until the parent goes on; a child is told that what
 * it holds are copies.
 *
 * In the child the arena is left as it is and a new one will be made: its locks
 * may not be held over the fork, as a page that comes home meanwhile needs them.
 *
 * Locking: svm->lock is held from prepare to parent, so that the driver is not
 * destroyed in between, and no pipe is made that the child would keep. In the child it stays
 * locked; nothing takes it there. The hooks run on the application's thread: what the driver does
 * is run as calls, by threads of the library.
 */
#include "runtime/private.h"
#include "host/posix/posix.h"

static int pause_call(struct gpusvm_event *event)
{
	gpusvm_driver_pause(event->svm->driver);
	return 0;
}

static int evict_all_call(struct gpusvm_event *event)
{
	return gpusvm_driver_evict(event->svm->driver, -1, DRIVER_CAUSE_FORK);
}

static int resume_call(struct gpusvm_event *event)
{
	gpusvm_driver_resume(event->svm->driver);
	return 0;
}

static int fork_call(struct gpusvm *svm, int (*fn)(struct gpusvm_event *))
{
	struct gpusvm_event *event = event_new_wait(svm);

	call_post(event, fn, TASK_URGENT);
	return event_finish(event);
}

void fork_prepare(void *arg)
{
	struct gpusvm *svm = arg;

	host_mutex_lock(&svm->lock);
	svm->paused = svm->running;
	if (svm->paused)
		(void)fork_call(svm, pause_call);
}

#define EVICT_TRIES 100u
#define EVICT_PAUSE (10 * HOST_MSEC)

/* Where the home would not hear of the child, it gets what is in system memory:
 * so everything is, until the fork is over. A fork cannot be refused from here: where there
 * is no memory to come home to, the child ends before it reads zeros instead of data. */
void fork_frozen(void *arg)
{
	struct gpusvm *svm = arg;
	int err;

	if (!svm->paused || svm->caps & GPUSVM_CAP_FORK)
		return;
	for (unsigned i = 0; (err = fork_call(svm, evict_all_call)) && i < EVICT_TRIES; i++)
		host_sleep(EVICT_PAUSE);
	svm->left_behind = err != 0;
}

void fork_parent(void *arg)
{
	struct gpusvm *svm = arg;

	if (svm->paused)
		(void)fork_call(svm, resume_call);
	svm->paused = svm->left_behind = false;
	host_mutex_unlock(&svm->lock);
}

void fork_child(void *arg)
{
	struct gpusvm *svm = arg;

	if (svm->left_behind)
		host_panic("memory is on a device, and could not come home before the fork",
			   __FILE__, __LINE__);
	host_write_once(&svm->in_child, 1);
	fds_child(svm);
	/* The handle stays readable there, until it is closed. */
	host_posix_abandon(&svm->copy, &svm->copy_size);
}
