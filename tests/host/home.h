/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * home.h: what the conformance suite of host/mm.h needs besides mm.h itself.
 *
 * The suite's tests (test_*.c here) are compiled once for each home, and linked
 * with an adapter, home_NAME.c, that does to an address space what a process does
 * to its own. A call that a home cannot serve gives -EOPNOTSUPP; the test is then
 * skipped, and says what was missing.
 *
 * device.c stands for everything above mm.h: two devices whose frames are plain
 * memory, moved by bare transactions. Its counts show what a home forgets.
 */
#ifndef TESTS_HOST_HOME_H
#define TESTS_HOST_HOME_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "host/mm.h"

/* ---- The adapter ------------------------------------------------------------ */

enum {
	HOME_READ = 1u << 0,
	HOME_WRITE = 1u << 1,
	HOME_SHARED = 1u << 2,
	HOME_FILE = 1u << 3, /* private, of a file */
	HOME_HUGE = 1u << 4, /* 2M pages are welcome */
};
#define HOME_RW (HOME_READ | HOME_WRITE)

extern const char *const home_name;

/* An address space in which nothing is mapped from HOME_BASE on for HOME_SIZE.
 * NULL: there is none here, *why says it. */
struct mm *home_open(const char **why);
/* All of it is given back: NULL, or what is left or wrong. */
const char *home_close(struct mm *mm);
/* What of its invariants is broken, or NULL. Nothing may be in progress. */
const char *home_check(struct mm *mm);
/* Called as a test begins: cmocka's signal handlers are in place by then, and a
 * home that has some of its own needs them in front. */
void home_catch(void);

/* [start, end) is page aligned; 0 or negative. */
int home_mmap(struct mm *mm, u64 start, u64 end, u32 flags); /* over what is there */
int home_munmap(struct mm *mm, u64 start, u64 end);
int home_mremap(struct mm *mm, u64 start, u64 end, u64 to, bool dontunmap);
int home_mprotect(struct mm *mm, u64 start, u64 end, u32 flags);
int home_dontneed(struct mm *mm, u64 start, u64 end);
/* A child is made, reads [address, address + length) into buffer, overwrites what
 * it has there, and ends. */
int home_fork(struct mm *mm, u64 address, void *buffer, u64 length);
/* Accesses of the CPU. Negative: no such access, or the page was lost. */
int home_load(struct mm *mm, u64 address, void *buffer, u64 length);
int home_store(struct mm *mm, u64 address, const void *buffer, u64 length);
/* Adds to the word at address, atomically. */
int home_add(struct mm *mm, u64 address, u64 operand);
/* Keeps the page at address where it is, as O_DIRECT would, until unpin(). */
int home_pin(struct mm *mm, u64 address, void **pin);
void home_unpin(void *pin);
/* MADV_DONTNEED that must not block. -EAGAIN: a notifier would have had to. */
int home_reap(struct mm *mm, u64 start, u64 end);
/* The mappings end; the object stays. */
int home_exit(struct mm *mm);

#define HOME_BASE ((u64)0x200000000000) /* 2M aligned */
#define HOME_SIZE ((u64)1 << 30)

/* ---- What tests are made of -------------------------------------------------- */

extern struct mm *mm; /* of the running test */

#define PAGE HOST_PAGE_SIZE
#define HUGE_PAGES HOST_HUGE_PAGES
/* Page n of the test's addresses. */
static inline u64 at(u64 n)
{
	return HOME_BASE + n * PAGE;
}

int test_open(void **state);
int test_close(void **state);
void test_run(void **state); /* the test is its initial state */
/* Set by a test that makes the home warn. */
extern bool may_warn;
/* Ends the test as skipped where what is -EOPNOTSUPP, else checks that it is 0. */
void need(int result, const char *what);

void map(u64 start, u64 n, u32 flags); /* pages from `start` on */
void unmap(u64 start, u64 n);	       /* and waits until all have heard of it */
/* One word a page, at an offset of its own; others are as they were. */
void put(u64 page, u64 value);
u64 get(u64 page);
void fill(u64 first, u64 n, u64 seed); /* put() at n pages, each its own value */
void expect(u64 first, u64 n, u64 seed);
/* Of pages that were filled at `from`, and are at `to` now, a multiple of 2M from there. */
void expect_at(u64 to, u64 from, u64 n, u64 seed);
void expect_zero(u64 first, u64 n);
void sync_all(void);
struct mm_page_state state_of(u64 page);

/* ---- Two devices -------------------------------------------------------------- */

#define DEVICES 2u
#define FRAMES (8 * HUGE_PAGES)

/* What a frame carries: a count of its users. */
struct device_data {
	u32 users, holds; /* atomic */
};

struct device {
	struct mm_region *region;
	struct device_data *data;
	u8 *memory;
	u64 used[FRAMES / 64]; /* bit by bit; atomic */
	u32 faults;	       /* migrate_to_ram calls; atomic */
	u32 splits, huge_frees;
	/* How migrate_to_ram answers: NULL, or instead of bringing one page home. */
	s64 (*answer)(struct mm_cpu_fault *fault);
	unsigned window; /* pages, a power of two, that come home with a fault */
};
extern struct device devices[DEVICES];

int devices_open(void);
void devices_close(void);
u64 frames_used(unsigned device);
/* Frames are freed a moment after their pages came home. */
void wait_frames(unsigned device, u64 want);
struct device *device_of(const struct mm_page *page);
u8 *frame_bytes(const struct mm_page *page);
/* A frame of the order, or ~0. */
u64 frame_take(unsigned device, unsigned order);
void frame_give(unsigned device, u64 frame); /* one that is no page */

struct job {
	struct mm_migrate m;
	mm_mpfn_t src[HUGE_PAGES], dst[HUGE_PAGES];
};
/* n pages from `first` on. */
void job_init(struct job *j, u64 first, unsigned n, u32 flags);
void job_begin(struct job *j);
/* Device frames for everything that was collected, filled. */
void job_to_device(struct job *j, unsigned device);
/* The same for entry i alone. */
void job_place(struct job *j, unsigned i, unsigned device);
/* In a frame that was taken before. */
void job_place_in(struct job *j, unsigned i, unsigned device, u64 frame);
/* System pages for everything that was collected, filled; alloc_system's result. */
int job_to_system(struct job *j);
void job_fill_system(struct job *j); /* its second half */
unsigned job_finish(struct job *j);  /* commit and end; pages moved */
unsigned job_moved(const struct job *j);
/* All in one; pages that moved. */
unsigned move_out(unsigned device, u64 first, unsigned n, u32 flags);
unsigned move_home(u64 first, unsigned n, u32 flags);
/* n pages from `first` on, filled, and on the device; huge: as a 2M page, if the
 * home has one to give. */
void on_device(unsigned device, u64 first, u64 n, u64 seed, bool huge);

/* ---- A notifier that keeps a record ---------------------------------------------- */

struct listener {
	struct mm_notifier n;
	u32 starts, finishes;	     /* atomic */
	struct mm_invalidation last; /* of the last start */
	u32 events;		     /* mask of 1 << enum mm_event */
	u64 start, end;		     /* the hull of all that was told */
	bool refuses;		     /* where it must not block */
	void (*on_start)(struct listener *l, const struct mm_invalidation *inv);
	void (*on_finish)(struct listener *l, const struct mm_invalidation *inv);
	void *arg;
};
void listen(struct listener *l, u64 first, u64 n);
void listen_anew(struct listener *l); /* forgets the record */
void unlisten(struct listener *l);

/* A look at n pages through a notifier, repeated as its caller must. */
int range_fault(struct listener *l, u64 first, u64 n, u32 flags, mm_pfn_t *pfns);
/* The same, keeping the pages of a device in place (device: its number). */
int range_fault_keep(struct listener *l, u64 first, u64 n, u32 flags, unsigned device,
		     mm_pfn_t *pfns);
/* A guarded access of a device: 0 or -EFAULT, with the address. */
int bus_access(mm_dma_t addr, void *buffer, u64 length, bool write, u64 *where);

/* Each file's tests. */
extern const struct CMUnitTest space_tests[], notifier_tests[], fault_tests[], frame_tests[],
    migrate_tests[], straight_tests[], change_tests[], exclusive_tests[];
extern const unsigned n_space_tests, n_notifier_tests, n_fault_tests, n_frame_tests,
    n_migrate_tests, n_straight_tests, n_change_tests, n_exclusive_tests;
#define host_test_with(f, open, close)                                                             \
	{                                                                                          \
#f, test_run, open, close, (void *)(f)                                             \
	}
#define host_test(f) host_test_with(f, test_open, test_close)

#endif
