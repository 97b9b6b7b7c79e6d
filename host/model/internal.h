/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* internal.h: what the files of the model share. Locks: see model.h. */
#ifndef GPUSVM_MODEL_INTERNAL_H
#define GPUSVM_MODEL_INTERNAL_H

#include "host/model/model.h"

/* A 4K system page. Counts are atomic: address spaces share frames after fork. */
struct model_frame {
	struct model_backing *backing;
	/* One word of the two, for who has to see both as of one moment. */
	union {
		u64 uses;
		struct {
			u32 refs; /* page table entries and pins */
			u32 pins;
		};
	};
	u32 dma; /* device mappings and migrations that may reach it */
};

/* Memory of one frame, or of 512 in a row. */
struct model_backing {
	u8 *bytes;
	struct model_backing *hash_next;
	u32 order;
	struct model_backing *txn_next; /* among those that a migration made */
	u32 live; /* frames that have references, and a migration that made it */
	struct model_frame frames[];
};

/* SWAP: what is the slot, a frame that nothing maps. */
enum model_state { MODEL_NONE, MODEL_ZERO, MODEL_SYSTEM, MODEL_DEVICE, MODEL_SWAP };

struct model_page {
	u8 state;
	bool busy;	/* injected */
	bool committed; /* moving, and what is now the destination */
	/* SYSTEM: who has it for itself; then the CPU does not reach it. Set and cleared
	 * within an invalidation; see exclusive.c. */
	const void *owner;
	u64 owned_until; /* when the CPU may have it back */
	void *what;	/* struct model_frame (SYSTEM, SWAP) or struct mm_page, by state */
	const void *txn; /* moving: the migration it belongs to, which owns the frame
			  * until commit; an unmapping leaves the frame to it */
};

/* The page table of one aligned 2M. Never freed before its address space. */
struct model_block {
	u64 base;
	struct model_block *next; /* in the hash */
	bool huge;		  /* one 2M page, system or device, maps it all */
	struct model_page pages[HOST_HUGE_PAGES];
};

struct model_vma {
	u64 start, end;
	u32 flags;
	struct model_vma *next;
};

/* A change of mappings in progress, on its maker's stack. */
struct model_inv {
	u64 start, end;
	u64 gen;   /* order among invalidations and notifiers */
	u64 until; /* notifiers from this generation on were not called */
	struct mm_invalidation info;
	struct model_inv *next;
};

/* In struct mm_notifier.home. */
struct model_notifier {
	struct mm_notifier *next, *prev;
	u64 active; /* invalidations in progress that overlap */
	u64 count;  /* the last sequence given out */
	u64 gen, dying;
};
_Static_assert(sizeof(struct model_notifier) <= sizeof(((struct mm_notifier *)0)->home), "home");

struct model_site_state {
	u64 passes, skip, count;
};

#define MODEL_BUCKETS 1024u

struct mm {
	struct host_ref grabs;
	struct host_mutex lock; /* everything below, unless it says otherwise */
	struct host_waitq waitq; /* for `changes` */
	u64 changes; /* atomic; one more whenever a waiter may have cause to look */
	u64 users;   /* mm_use */
	bool exiting, exited;
	struct model_vma *vmas; /* by address */
	struct model_block *blocks[MODEL_BUCKETS];
	struct mm_notifier *notifiers, *last_notifier; /* in order of insertion */
	struct model_inv *invs;
	u64 gen;
	struct model_site_state sites[MODEL_SITES];
	struct model_counters counters;
	const char *violation; /* the first */
};

/* One frame of a device, or the head or a tail of a 2M one. */
struct mm_page {
	struct mm_region *region;
	void *data;
	struct mm *mm; /* where it is mapped, written under its lock; NULL: nowhere; atomic */
	u64 address;
	struct mm_page *next; /* in a list of pages to free */
	u32 order;
	bool used;
};

struct mm_region {
	u64 npages;
	const struct mm_region_ops *ops;
	void *priv;
	u64 used; /* frames; atomic */
	struct mm_page *pages;
};

/* ---- mm.c ---- */
void model_violation(struct mm *mm, const char *what); /* lock held */
bool model_site_fails(struct mm *mm, enum model_site site); /* lock held */
bool model_site_fails_locked_out(struct mm *mm, enum model_site site); /* takes the lock */
void model_changed(struct mm *mm);
/* Drops the lock, sleeps until something changes, takes it again. */
void model_wait(struct mm *mm);
struct model_vma *model_vma_at(struct mm *mm, u64 address);    /* lock held */
struct model_block *model_block(struct mm *mm, u64 address);   /* lock held; may be NULL */
int model_block_ensure(struct mm *mm, u64 address);	       /* lock not held; allocates */
struct model_page *model_page(struct mm *mm, u64 address);     /* lock held; may be NULL */
bool model_vma_migratable(const struct model_vma *vma);
/* The one 2M mapping of the block becomes 512. Lock held. */
void model_block_split(struct mm *mm, struct model_block *block);
/* Empties [start, end); device pages to free are put on *free. Lock held. */
void model_zap(struct mm *mm, u64 start, u64 end, struct mm_page **free);

/* ---- frames.c: system memory ---- */
extern struct model_frame model_zero_frame;
/* References are 0: model_frame_get each that is used. NULL: no memory. */
struct model_backing *model_backing_alloc(unsigned order);
void model_backing_free(struct model_backing *backing); /* no frame has references */
void model_frame_get(struct model_frame *frame);
/* mm: whom to tell of a violation, its lock held; or NULL. */
void model_frame_put(struct mm *mm, struct model_frame *frame);
u8 *model_frame_bytes(struct model_frame *frame);
void model_frame_pin(struct model_frame *frame); /* which has references */
void model_frame_unpin(struct model_frame *frame);
/* Is one page table entry all that it has, besides pins? */
bool model_frame_exclusive(const struct model_frame *frame);
/* A copy by the processor, to or from a frame: not an access of a device. */
void model_cpu_copy(void *dst, const void *src, u64 n);

/* ---- region.c: device frames ---- */
struct mm_page *model_page_head(struct mm_page *page);
/* Where it is mapped now; mm NULL: nowhere. Lock of that mm, or of the old, held. */
void model_page_place(struct mm_page *head, struct mm *mm, u64 address);
void model_page_split(struct mm_page *head); /* lock of its mm held */
void model_page_free(struct mm_page *head); /* no lock held */
void model_pages_free(struct mm_page *list); /* no lock held */

/* ---- notifier.c ---- */
/* Tells the notifiers; afterwards no device reaches [start, end) until _end.
 * No lock held. -EAGAIN only if not blockable; then nothing is owed. */
int model_inv_begin(struct mm *mm, struct model_inv *inv, u64 start, u64 end, enum mm_event event,
		    const void *migrator, bool blockable);
/* The same for REMAP, which goes `to` some place. */
int model_inv_begin_to(struct mm *mm, struct model_inv *inv, u64 start, u64 end,
		       enum mm_event event, const void *migrator, bool blockable, u64 to);
void model_inv_end(struct mm *mm, struct model_inv *inv);

/* ---- migrate.c ---- */
/* Ends the ownership of txn over the 2M page at address that did not move:
 * head (device) or frame (system), the other NULL. Lock held. */
void model_put_back_huge(struct mm *mm, u64 address, const void *txn, struct mm_page *head,
			 struct model_frame *frame, struct mm_page **free);
/* The same for a small one. */
void model_put_back(struct mm *mm, u64 address, const void *txn, struct mm_page *page,
		    struct model_frame *frame, struct mm_page **free);

/* ---- exclusive.c ---- */
/* Gives the page at address back to the CPU: now, or (a touch) after its time. The lock
 * is held, dropped meanwhile, and held again: look at it anew. */
void model_give_back(struct mm *mm, u64 address, bool touch);

/* ---- cpu.c ---- */
/* Makes the page at address ready for an access, lock held: 1: it is; 0: look again,
 * the lock was dropped to do something about it; else an error. */
int model_settle(struct mm *mm, u64 address, bool write, struct model_page *p);
/* Sleeps for ns, or until something changes. Lock held, and afterwards. */
void model_wait_some(struct mm *mm, u64 ns);
/* What mm_range_fault says of a page that is there. Lock held. */
mm_pfn_t model_page_pfn(const struct model_vma *vma, const struct model_page *p);
/* Gives each entry the order of the aligned run that it lies in. */
void model_set_orders(struct mm_range_fault *rf);
/* Makes the page at address present in system memory, and exclusive for write;
 * waits, and calls migrate_to_ram, as it must. Called without the lock, returns
 * with it held when 0. Errors as model_cpu_read. */
int model_fault_in(struct mm *mm, u64 address, bool write, struct model_page **ret);

#endif
