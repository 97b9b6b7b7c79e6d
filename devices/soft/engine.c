/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * engine.c: queues of jobs, and the lanes that run them.
 *
 * A queue with jobs is ready, led by one lane, or parked on a fence (a WAIT: no lane
 * is held). The leader runs the job at the head; a CALL of several items is put on
 * the help list, where idle lanes join it. The last lane to leave a job ends it, and
 * leads the queue from there.
 *
 * Locking: engine->lock for the lists, who is inside a run, and idle lanes; what
 * belongs to "the lane that leads" needs none, since leading passes from lane to
 * lane under the lock. Fences are signalled with no lock held. A job is its
 * submitter's from the moment that done is signalled.
 */
#include "devices/soft/internal.h"

struct soft_queue_wait {
	struct soft_wait wait;
	struct gpusvm_device_queue *queue; /* good for who takes the wait */
};

void soft_engine_init(struct soft_engine *engine)
{
	host_mutex_init(&engine->lock, RANK_DEVICE_QUEUE);
	host_waitq_init(&engine->drained_wq);
}

void soft_engine_fini(struct soft_engine *engine)
{
	host_mutex_destroy(&engine->lock);
	host_waitq_destroy(&engine->drained_wq);
}

/* ---- Under engine->lock ---------------------------------------------------------- */

static void wake_lanes(struct soft_engine *engine, u64 n)
{
	while (n-- && engine->idle) {
		struct gpusvm_lane *lane = engine->idle;

		engine->idle = lane->next_idle;
		engine->n_idle--;
		host_store_release(&lane->awake, 1);
		host_wake_all(&lane->waitq);
	}
}

static void ready_push(struct soft_engine *engine, struct gpusvm_device_queue *queue)
{
	queue->next_ready = NULL;
	if (engine->ready_tail)
		engine->ready_tail->next_ready = queue;
	else
		engine->ready_head = queue;
	engine->ready_tail = queue;
	host_write_once(&engine->n_ready, engine->n_ready + 1);
	wake_lanes(engine, 1);
}

static struct gpusvm_device_queue *ready_pop(struct soft_engine *engine)
{
	struct gpusvm_device_queue *queue = engine->ready_head;

	if (!queue)
		return NULL;
	engine->ready_head = queue->next_ready;
	if (!engine->ready_head)
		engine->ready_tail = NULL;
	host_write_once(&engine->n_ready, engine->n_ready - 1);
	return queue;
}

static void help_remove(struct soft_engine *engine, struct gpusvm_device_queue *queue)
{
	struct gpusvm_device_queue **at = &engine->help;

	if (!queue->helped)
		return;
	while (*at != queue)
		at = &(*at)->next_help;
	*at = queue->next_help;
	queue->helped = false;
}

/* A run to join: the lane is inside when this gives one. */
static struct gpusvm_device_queue *help_join(struct soft_engine *engine, struct gpusvm_lane *lane)
{
	struct gpusvm_device_queue *queue;

	while ((queue = engine->help)) {
		if (!soft_run_exhausted(&queue->run)) {
			queue->run.inside++;
			lane->run = &queue->run;
			return queue;
		}
		help_remove(engine, queue);
	}
	return NULL;
}

/* ---- The end of a job ------------------------------------------------------------ */

/* Signals the job at the head and takes it off. True: there are more, and the
 * caller leads on. Context: the leader; no lock. */
static bool job_end(struct gpusvm_device_queue *queue, struct gpusvm_job *job, int result,
		    const struct gpusvm_command_fault *fault)
{
	struct soft_engine *engine = &queue->dev->engine;
	struct gpusvm_fence *done = job->done;
	struct gpusvm_fence *fence = job->command.fence;
	bool more = false;

	job->fault = result ? *fault : (struct gpusvm_command_fault){0};
	if (result && !job->contained)
		queue->error = -EIO;
	host_mutex_lock(&engine->lock);
	queue->head = job->next;
	if (!queue->head)
		queue->tail = NULL;
	host_mutex_unlock(&engine->lock);
	if (job->command.type == GPUSVM_COMMAND_SIGNAL)
		soft_fence_finish(fence, result);
	else if (job->command.type == GPUSVM_COMMAND_WAIT)
		gpusvm_fence_put(fence);
	soft_fence_finish(done, result);

	host_mutex_lock(&engine->lock);
	if (!queue->head) {
		host_store_release(&queue->busy, 0);
		host_wake_all(&engine->drained_wq);
	} else if (engine->ready_head) {
		ready_push(engine, queue);
	} else {
		more = true;
	}
	host_mutex_unlock(&engine->lock);
	return more;
}

/* ---- CALL ------------------------------------------------------------------------- */

void soft_run_fail(struct soft_device *dev, struct soft_run *run, int result,
		   const struct gpusvm_command_fault *fault)
{
	u32 i;

	host_mutex_lock(&dev->engine.lock);
	if (!run->failed) {
		run->result = result;
		run->fault = *fault;
		host_store_release(&run->failed, 1);
		for (i = 0; i < dev->base.caps.lanes; i++)
			if (dev->lanes[i].run == run)
				soft_lane_attract(&dev->lanes[i], SOFT_ATTEND_CANCEL);
	}
	host_mutex_unlock(&dev->engine.lock);
}

/* Runs items and leaves. True: this lane was the last inside, and leads. */
static bool run_inside(struct gpusvm_lane *lane, struct gpusvm_device_queue *queue, bool helper)
{
	struct soft_engine *engine = &queue->dev->engine;
	bool last;

	soft_command_items(lane, helper);
	host_mutex_lock(&engine->lock);
	lane->run = NULL;
	last = --queue->run.inside == 0;
	if (soft_run_exhausted(&queue->run))
		help_remove(engine, queue);
	host_mutex_unlock(&engine->lock);
	return last;
}

/* The leader's part of a CALL. As run_inside. */
static bool run_lead(struct gpusvm_lane *lane, struct gpusvm_device_queue *queue,
		     struct gpusvm_job *job)
{
	struct soft_engine *engine = &queue->dev->engine;
	struct soft_run *run = &queue->run;
	u64 items = job->command.items;
	u32 shift = 0;

	/* Some sixteen turns a lane, so that they end together; not so many items at a
	 * turn that a helper could not be had back. */
	while (shift < 8 && items >> (shift + 5) > queue->dev->base.caps.lanes)
		shift++;
	host_mutex_lock(&engine->lock);
	*run = (struct soft_run){.job = job, .shift = shift, .inside = 1};
	lane->run = run;
	if (items > 1) {
		queue->next_help = engine->help;
		engine->help = queue;
		queue->helped = true;
		wake_lanes(engine, (items - 1) >> shift);
	}
	host_mutex_unlock(&engine->lock);
	return run_inside(lane, queue, false);
}

/* ---- WAIT -------------------------------------------------------------------------- */

static void queue_wait_fire(struct soft_wait *wait)
{
	struct gpusvm_device_queue *queue =
	    host_container_of(wait, struct soft_queue_wait, wait)->queue;
	struct soft_engine *engine = &queue->dev->engine;

	host_mutex_lock(&engine->lock);
	queue->waited = true;
	ready_push(engine, queue);
	host_mutex_unlock(&engine->lock);
}

static void queue_wait_release(struct soft_wait *wait)
{
	host_free(host_container_of(wait, struct soft_queue_wait, wait));
}

/* True: the queue is parked, and not this lane's any more. */
static bool queue_park(struct gpusvm_device_queue *queue, struct gpusvm_fence *fence)
{
	struct soft_engine *engine = &queue->dev->engine;
	struct soft_wait *wait = &queue->wait->wait;
	bool stopped;

	if (gpusvm_fence_signalled(fence))
		return false;
	/* From here a stop may take the wait, and with it the queue, whose lives then
	 * go on without us: the wait has one reference more. */
	host_ref_get(&wait->ref);
	host_mutex_lock(&engine->lock);
	stopped = soft_stopped(queue->dev);
	if (!stopped)
		soft_wait_arm(wait);
	host_mutex_unlock(&engine->lock);
	stopped = stopped || !soft_wait_on(wait, fence);
	soft_wait_put(wait);
	return !stopped;
}

void soft_engine_stop(struct soft_device *dev)
{
	struct soft_engine *engine = &dev->engine;
	struct gpusvm_device_queue *queue;

	host_mutex_lock(&engine->lock);
	for (queue = engine->queues; queue; queue = queue->next)
		if (soft_wait_take(&queue->wait->wait))
			ready_push(engine, queue);
	host_mutex_unlock(&engine->lock);
}

/* ---- Lanes --------------------------------------------------------------------------- */

/* Runs the job at the head. False: the queue is parked, or others are still
 * inside; it is not this lane's any more. */
static bool job_run(struct gpusvm_lane *lane, struct gpusvm_device_queue *queue,
		    struct gpusvm_job *job, int *result, struct gpusvm_command_fault *fault)
{
	*result = soft_stopped(queue->dev) ? -ENODEV : queue->error;
	*fault = (struct gpusvm_command_fault){0};
	if (*result)
		return true;
	switch (job->command.type) {
	case GPUSVM_COMMAND_WAIT:
		if (!queue->waited && queue_park(queue, job->command.fence))
			return false;
		queue->waited = false;
		if (soft_stopped(queue->dev))
			*result = -ENODEV;
		return true;
	case GPUSVM_COMMAND_SIGNAL:
		return true;
	case GPUSVM_COMMAND_CALL:
		if (!job->command.items)
			return true;
		if (!run_lead(lane, queue, job))
			return false;
		*result = queue->run.result;
		*fault = queue->run.fault;
		return true;
	default:
		*result = soft_command_run(lane, &job->command);
		*fault = lane->failure;
		return true;
	}
}

/* Leads a queue for as long as it has jobs and no other one waits for a lane. */
static void lead(struct gpusvm_lane *lane, struct gpusvm_device_queue *queue)
{
	struct gpusvm_command_fault fault;
	struct gpusvm_job *job;
	int result;

	lane->queue = queue;
	lane->vm = queue->vm;
	do {
		/* Submitters change the tail only, once there is a head. */
		job = queue->head;
		if (!job_run(lane, queue, job, &result, &fault))
			return;
	} while (job_end(queue, job, result, &fault));
}

static void help(struct gpusvm_lane *lane, struct gpusvm_device_queue *queue)
{
	struct soft_run *run = &queue->run;

	lane->queue = queue;
	lane->vm = queue->vm;
	if (run_inside(lane, queue, true) && job_end(queue, run->job, run->result, &run->fault))
		lead(lane, queue);
}

void soft_lane_main(void *arg)
{
	struct gpusvm_lane *lane = arg;
	struct soft_engine *engine = &lane->dev->engine;
	struct gpusvm_device_queue *queue;

	for (;;) {
		bool helping = false;

		host_mutex_lock(&engine->lock);
		queue = ready_pop(engine);
		if (!queue) {
			queue = help_join(engine, lane);
			helping = queue != NULL;
		}
		if (!queue) {
			if (engine->exiting)
				break;
			lane->next_idle = engine->idle;
			engine->idle = lane;
			engine->n_idle++;
			host_store_release(&lane->awake, 0);
		}
		host_mutex_unlock(&engine->lock);
		if (helping)
			help(lane, queue);
		else if (queue)
			lead(lane, queue);
		else
			host_wait(&lane->waitq, host_load_acquire(&lane->awake));
	}
	host_mutex_unlock(&engine->lock);
}

void soft_engine_exit(struct soft_device *dev)
{
	host_mutex_lock(&dev->engine.lock);
	dev->engine.exiting = true;
	wake_lanes(&dev->engine, SOFT_LANES);
	host_mutex_unlock(&dev->engine.lock);
}

/* ---- Ops ----------------------------------------------------------------------------- */

int soft_queue_create(struct gpusvm_device_vm *vm, struct gpusvm_device_queue **ret)
{
	struct soft_device *dev = vm->dev;
	struct gpusvm_device_queue *queue;

	if (soft_stopped(dev))
		return -ENODEV;
	queue = host_alloc_zeroed(sizeof(*queue));
	if (!queue)
		return -ENOMEM;
	queue->wait = host_alloc_zeroed(sizeof(*queue->wait));
	if (!queue->wait) {
		host_free(queue);
		return -ENOMEM;
	}
	queue->dev = dev;
	queue->vm = vm;
	queue->wait->queue = queue;
	soft_wait_init(&queue->wait->wait, queue_wait_fire, queue_wait_release);
	host_add_relaxed(&vm->queues, 1);
	host_add_relaxed(&dev->n_queues, 1);
	host_mutex_lock(&dev->engine.lock);
	queue->next = dev->engine.queues;
	if (queue->next)
		queue->next->prev = queue;
	dev->engine.queues = queue;
	host_mutex_unlock(&dev->engine.lock);
	*ret = queue;
	return 0;
}

void soft_queue_destroy(struct gpusvm_device_queue *queue)
{
	struct soft_device *dev = queue->dev;
	struct soft_engine *engine = &dev->engine;

	host_wait(&engine->drained_wq, !host_load_acquire(&queue->busy));
	host_mutex_lock(&engine->lock); /* the lane that cleared busy has left it */
	if (queue->next)
		queue->next->prev = queue->prev;
	if (queue->prev)
		queue->prev->next = queue->next;
	else
		engine->queues = queue->next;
	host_mutex_unlock(&engine->lock);
	soft_faults_forget(&dev->faults, queue);
	host_add_relaxed(&queue->vm->queues, (u32)-1);
	host_add_relaxed(&dev->n_queues, (u32)-1);
	soft_wait_put(&queue->wait->wait);
	host_free(queue);
}

void soft_queue_submit(struct gpusvm_device_queue *queue, struct gpusvm_job *job)
{
	struct soft_engine *engine = &queue->dev->engine;

	HOST_CHECK(job->done != NULL);
	job->next = NULL;
	soft_fence_hold(job->done);
	if (job->command.type == GPUSVM_COMMAND_SIGNAL)
		soft_fence_hold(job->command.fence);
	else if (job->command.type == GPUSVM_COMMAND_WAIT)
		gpusvm_fence_get(job->command.fence);
	host_mutex_lock(&engine->lock);
	if (queue->tail)
		queue->tail->next = job;
	else
		queue->head = job;
	queue->tail = job;
	if (!queue->busy) {
		host_store_release(&queue->busy, 1);
		ready_push(engine, queue);
	}
	host_mutex_unlock(&engine->lock);
}
