// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * host.c: host.h in a kernel module, as far as it is more than one call: lock
 * classes, allocation, threads and work. No locks of its own.
 */
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/log2.h>
#include <linux/vmalloc.h>

#include "host/host.h"
#include "host/linux/host_linux.h"

/* Lockdep then checks the order of ranks, and that two of one rank are never
 * held together, without being told more. */
static struct lock_class_key mutex_classes[RANK_LEAF + 1];
static struct lock_class_key rwlock_classes[RANK_LEAF + 1];

static struct workqueue_struct *pool;

int host_linux_init(void)
{
	pool = alloc_workqueue("gpusvm", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return pool ? 0 : -ENOMEM;
}

void host_linux_exit(void)
{
	destroy_workqueue(pool);
}

/* ---- Locks -------------------------------------------------------------- */

void host_mutex_init(struct host_mutex *m, enum host_lock_rank rank)
{
	__mutex_init(&m->mutex, "gpusvm mutex", &mutex_classes[rank]);
	if (rank == RANK_NONE)
		lockdep_set_novalidate_class(&m->mutex);
}

void host_rwlock_init(struct host_rwlock *l, enum host_lock_rank rank)
{
	__init_rwsem(&l->sem, "gpusvm rwlock", &rwlock_classes[rank]);
	if (rank == RANK_NONE)
		lockdep_set_novalidate_class(&l->sem);
}

/* ---- Memory ------------------------------------------------------------- */

/* Small sizes are rounded up to a power of two: only those the slab promises
 * to align. */
static size_t slab_size(size_t size)
{
	if (size < 16)
		return 16;
	return size <= 256 ? roundup_pow_of_two(size) : size;
}

void *host_alloc(size_t size)
{
	return kvmalloc(slab_size(size), GFP_KERNEL);
}

void *host_alloc_zeroed(size_t size)
{
	return kvzalloc(slab_size(size), GFP_KERNEL);
}

/* vmalloc aligns to pages only. Where 2M is promised, one allocation is larger
 * by 2M, and the word before the aligned part says where it began. Unlike on a
 * live process the pages are there at once. */
void *host_alloc_pages(size_t size)
{
	char *base, *p;

	if (size < HOST_HUGE_SIZE)
		return vzalloc(size);
	base = vzalloc(size + HOST_HUGE_SIZE + HOST_PAGE_SIZE);
	if (!base)
		return NULL;
	p = (char *)host_align_up((uintptr_t)base + HOST_PAGE_SIZE, HOST_HUGE_SIZE);
	((void **)p)[-1] = base;
	return p;
}

void host_free_pages(void *p, size_t size)
{
	vfree(p && size >= HOST_HUGE_SIZE ? ((void **)p)[-1] : p);
}

/* ---- Time --------------------------------------------------------------- */

void host_sleep(u64 ns)
{
	fsleep(host_min(ns / HOST_USEC + 1, (u64)UINT_MAX));
}

/* ---- Threads ------------------------------------------------------------ */

static int thread_main(void *arg)
{
	struct host_thread *t = arg;

	t->fn(t->arg);
	/* t may be gone as soon as this is complete. */
	kthread_complete_and_exit(&t->exited, 0);
}

int host_thread_start(struct host_thread *t, const char *name, void (*fn)(void *), void *arg)
{
	struct task_struct *task;

	t->fn = fn;
	t->arg = arg;
	init_completion(&t->exited);
	task = kthread_run(thread_main, t, "%s", name);
	if (IS_ERR(task)) {
		t->task = NULL;
		return PTR_ERR(task) == -ENOMEM ? -ENOMEM : -EAGAIN;
	}
	t->task = task;
	return 0;
}

void host_thread_join(struct host_thread *t)
{
	if (!t->task)
		return;
	wait_for_completion(&t->exited);
	t->task = NULL;
}

/* ---- Work --------------------------------------------------------------- */

static void work_main(struct work_struct *work)
{
	struct host_work *w = container_of(to_delayed_work(work), struct host_work, work);

	w->fn(w);
}

void host_work_init(struct host_work *w, void (*fn)(struct host_work *))
{
	w->fn = fn;
	INIT_DELAYED_WORK(&w->work, work_main);
}

void host_work_queue(struct host_work *w)
{
	queue_delayed_work(pool, &w->work, 0);
}

void host_work_queue_after(struct host_work *w, u64 delay_ns)
{
	queue_delayed_work(pool, &w->work, nsecs_to_jiffies(delay_ns) + 1);
}

void host_work_flush(struct host_work *w)
{
	flush_delayed_work(&w->work);
}

void host_work_cancel(struct host_work *w)
{
	cancel_delayed_work_sync(&w->work);
}

/* ---- Memory pressure ---------------------------------------------------- */

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
static struct host_shrinker *of_kernel(struct shrinker *shrinker)
{
	return shrinker->private_data;
}
#else
static struct host_shrinker *of_kernel(struct shrinker *shrinker)
{
	return container_of(shrinker, struct host_shrinker, shrinker);
}
#endif

static unsigned long count_objects(struct shrinker *shrinker, struct shrink_control *sc)
{
	struct host_shrinker *s = of_kernel(shrinker);

	return DIV_ROUND_UP(s->ops->count(s), PAGE_SIZE) ?: SHRINK_EMPTY;
}

static unsigned long scan_objects(struct shrinker *shrinker, struct shrink_control *sc)
{
	struct host_shrinker *s = of_kernel(shrinker);

	return DIV_ROUND_UP(s->ops->scan(s), PAGE_SIZE) ?: SHRINK_STOP;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
int host_shrinker_register(struct host_shrinker *s, const char *name,
			   const struct host_shrinker_ops *ops)
{
	s->ops = ops;
	s->shrinker = shrinker_alloc(0, "%s", name);
	if (!s->shrinker)
		return -ENOMEM;
	s->shrinker->count_objects = count_objects;
	s->shrinker->scan_objects = scan_objects;
	s->shrinker->private_data = s;
	shrinker_register(s->shrinker);
	return 0;
}

void host_shrinker_unregister(struct host_shrinker *s)
{
	shrinker_free(s->shrinker);
}
#else
int host_shrinker_register(struct host_shrinker *s, const char *name,
			   const struct host_shrinker_ops *ops)
{
	s->ops = ops;
	s->shrinker = (struct shrinker){
	    .count_objects = count_objects,
	    .scan_objects = scan_objects,
	    .seeks = DEFAULT_SEEKS,
	};
	return register_shrinker(&s->shrinker, "%s", name);
}

void host_shrinker_unregister(struct host_shrinker *s)
{
	unregister_shrinker(&s->shrinker);
}
#endif

void host_shrinker_wake(struct host_shrinker *s)
{
}

u64 host_shrink(void)
{
	return 0;
}

/* ---- Assertions --------------------------------------------------------- */

void host_warn(const char *what, const char *file, int line)
{
	WARN(1, "gpusvm: %s at %s:%d\n", what, file, line);
}
