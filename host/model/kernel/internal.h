/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * internal.h: what the files of the kernel's model share.
 *
 * Fibers of one thread: between two points everything is atomic. What the real
 * kernel does under a page table lock is code without a point in it. mmap_lock is a
 * lock of host.h, because real code sleeps under it.
 */
#ifndef GPUSVM_MODEL_KERNEL_INTERNAL_H
#define GPUSVM_MODEL_KERNEL_INTERNAL_H

#include "host/model/kernel/kernel.h"
#include "host/model/sched.h"
#include "host/posix/posix.h"
#include "host/userfault/sys.h"

/* ---- Pages ------------------------------------------------------------------ */

enum {
	PTE_PRESENT = 1u,
	PTE_ZERO = 2u,	     /* the zero page: written to after a copy */
	PTE_SHARED = 4u,     /* with a child or parent: the same */
	PTE_PROTECTED = 8u,  /* by WRITEPROTECT */
	PTE_POISON = 16u,    /* touching it is SIGBUS */
	PTE_MIGRATING = 32u, /* there, but nobody gets at it just now */
	PTE_LAZY = 64u,	     /* MADV_FREE: may be dropped until it is written */
};
struct pte {
	u16 flags;
	u16 pins;
};

/* 2M. huge: one page; all 512 entries are alike then. populated: there is a table of
 * small pages, maybe empty: no huge page can be put there. */
struct table {
	struct table *next;
	u64 number; /* address / 2M */
	bool huge, populated;
	struct pte ptes[HOST_HUGE_PAGES];
	u8 bytes[HOST_HUGE_PAGES][KERNEL_BYTES] __attribute__((aligned(8)));
};

struct area {
	u64 start, end;
	u32 protection;
	bool no_fork, huge;
	u32 mode; /* UFFDIO_REGISTER_MODE_*; with a context */
	struct context *context;
};

#define AREAS 192u
#define TABLE_HASH 64u
#define SPACES 8u
struct space {
	bool used;
	bool gone; /* its process has ended */
	u32 number;
	struct host_rwlock mmap_lock;
	struct area areas[AREAS]; /* by address, apart */
	u32 n_areas;
	struct table *tables[TABLE_HASH];
};

/* ---- userfaultfd ------------------------------------------------------------- */

/* A thread in a fault; on its stack. */
struct fault_wait {
	struct fault_wait *next;
	u64 address;
	u32 flags; /* UFFD_PAGEFAULT_FLAG_* */
	bool read, woken;
};

/* A thread that waits until its event is read. */
struct event_wait {
	struct event_wait *next;
	struct uffd_msg msg;
	struct context *child; /* FORK */
	bool done;
};

#define CONTEXTS 24u
struct context {
	bool used;     /* the descriptor is open, or a fork is on the way */
	bool api_done; /* UFFDIO_API works once */
	bool user_only;
	bool released;
	u64 features;
	struct space *space;
	struct host_waitq waitq;   /* who waits in a fault, or for an event to be read */
	u32 changing;		   /* mmap_changing: changes whose caller has not gone on yet */
	struct fault_wait *faults; /* oldest first */
	struct event_wait *events;
};

struct pin {
	struct pin *next;
	u64 address; /* where the page is mapped; 0: nowhere any more */
};

#define FD_EVENT 1000 /* eventfds are numbered from here on, contexts from FD_CONTEXT */
#define FD_CONTEXT 2000
#define EVENTFDS 8u

struct kernel {
	struct kernel_whims whims;
	struct host_waitq waitq; /* everything that sleeps in the kernel but: */
	struct host_waitq pollers;
	struct space spaces[SPACES];
	struct context contexts[CONTEXTS];
	bool eventfd_used[EVENTFDS];
	u64 eventfd[EVENTFDS];
	struct pin *pins;
	struct table *pool, *pool_free;
	u32 pool_used;
	u32 waiting;
	u64 alloc_next;
	void (*prepare)(void), (*parent)(void), (*child)(void);
};
extern struct kernel kernel;

/* The kernel's sleeping does not call the library's hook. It queues itself before it looks
 * at the condition at all. */
#define kernel_wait_on(waitq, cond, deadline)                                                      \
	({                                                                                         \
		void (*hook_)(void) = host_posix_before_block;                                     \
		bool in_time_, late_ = false;                                                      \
		host_posix_before_block = NULL;                                                    \
		host_waitq_enter(waitq);                                                           \
		while (!(in_time_ = (cond)) && !late_) {                                           \
			sched_at(#cond);                                                           \
			late_ = host_waitq_sleep((waitq), (deadline));                             \
		}                                                                                  \
		host_waitq_leave(waitq);                                                           \
		host_posix_before_block = hook_;                                                   \
		in_time_;                                                                          \
	})
#define kernel_wait(cond) ((void)kernel_wait_on(&kernel.waitq, cond, HOST_FOREVER))
static inline void kernel_wake(void)
{
	host_wake_all(&kernel.waitq);
}
/* Another may run here. What the step then does is told where it is done, so that steps
 * that have nothing to do with each other commute (sched_access): what is one thing there,
 * reads() and writes() say of pages. */
static inline void step(void)
{
	sched_point(POINT_MODEL, NULL);
}
#define reads(object) sched_access((object), false)
#define writes(object) sched_access((object), true)
/* Tells the chart, and the result: pages that were done, or an error. */
#define told(what, r, ...)                                                                         \
	sched_note(what ": %d", __VA_ARGS__, (int)((r) > 0 ? (r) / (s64)HOST_PAGE_SIZE : (r)))
/* For "%s %lld": a page of the process, or of the library's own memory. */
#define PLACE(address) place_kind(address), place_page(address)
static inline const char *place_kind(u64 address)
{
	return host_arena_contains((const void *)(uintptr_t)address) ? "staging" : "page";
}
static inline long long place_page(u64 address)
{
	bool own = host_arena_contains((const void *)(uintptr_t)address);

	return (long long)((address - (own ? host_arena_base() : KERNEL_USER_BASE)) /
			   HOST_PAGE_SIZE);
}
#define PAGE_COUNT(length) ((long long)((length) / HOST_PAGE_SIZE))
/* Between two pages of many. */
void step_pages(void);
bool whim(u32 chance);

/* ---- space.c ---- */
void mmap_read_lock(struct space *s);
void mmap_read_unlock(struct space *s);
void mmap_write_lock(struct space *s);
void mmap_write_unlock(struct space *s);
/* Those that change them: mmap_lock held for writing. The area that holds address, or NULL:
 * mmap_lock held, or the processor's own look, good until the next point. */
struct area *area_find(struct space *s, u64 address);
/* Or the first behind it. mmap_lock held. */
struct area *area_next(struct space *s, u64 address);
/* What area_find finds in [start, end) is about to change. */
void areas_change(struct space *s, u64 start, u64 end);
/* Makes [start, end) begin and end at areas' borders. -ENOMEM. */
int areas_split(struct space *s, u64 start, u64 end);
int area_add(struct space *s, const struct area *area);
void areas_remove(struct space *s, u64 start, u64 end); /* split before */
void areas_merge(struct space *s);
struct table *table_find(struct space *s, u64 address);
struct table *table_make(struct space *s, u64 address);
/* Does 2M begin or end to be a huge page, or to have a table? To be told before. */
void table_changes(struct space *s, u64 address);
/* To be read and written until the next point; pte_look: read only. NULL: no table. */
struct pte *pte_find(struct space *s, u64 address);
const struct pte *pte_look(struct space *s, u64 address);
u8 *pte_bytes(struct space *s, u64 address);
static inline bool pte_none(const struct pte *p)
{
	return !(p->flags & (PTE_PRESENT | PTE_POISON));
}
/* One page appears (bytes NULL: zeros), or goes. */
void pte_fill(struct space *s, u64 address, const void *bytes, u32 flags);
void pte_clear(struct space *s, u64 address);
void huge_split(struct space *s, u64 address);
/* Drops the pages of [start, end), step by step. */
void zap(struct space *s, u64 start, u64 end);
void space_free(struct space *s);

/* ---- fault.c ---- */
/* Makes the page be there and, if write, be written to. No point after the last look.
 * kernel: by the kernel for the process. */
int fault_in(struct space *s, u64 address, bool write, bool by_kernel);
void pins_moved(u64 from, u64 to);

/* ---- context.c ---- */
struct context *context_of(int fd);
struct context *context_make(struct space *s);
int context_open(u32 flags);
void context_close(struct context *c);
int context_ioctl(struct context *c, unsigned long request, void *arg);
s64 context_read(struct context *c, void *buffer, size_t size);
bool context_readable(const struct context *c);
void context_wake(struct context *c, u64 start, u64 length); /* length 0: all */
/* Waits until it is read. changing was counted before. */
void context_event(struct context *c, struct event_wait *w);
/* The missing page, or the write, is left to the context's owner. mmap_lock held for
 * reading; released. */
int context_fault(struct space *s, struct context *c, u64 address, u32 flags, bool by_kernel);

/* ---- fill.c, move.c ---- */
int fill_ioctl(struct context *c, unsigned long request, void *arg);
int move_ioctl(struct context *c, void *arg);

/* ---- map.c ---- */
struct unmap_events {
	struct context *contexts[4];
	u32 n;
	u64 start, end;
};
/* Under mmap_lock for writing: everything in [start, end) goes; who must hear. */
int unmap_locked(struct space *s, u64 start, u64 end, struct unmap_events *ret);
void unmap_complete(struct unmap_events *events);

/* ---- scan.c ---- */
int scan_vma(u64 address, struct userfault_vma *ret);
int scan_pages(u64 start, u64 end, u64 mask, struct page_region *ret, unsigned n);

#endif
