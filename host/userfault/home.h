/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * home.h: the private structures of the live-process home.
 *
 *   sys.c      system calls, behind one table
 *   probe.c    what this kernel has, and what follows from it
 *   open.c     opening and closing the home
 *   block.c    blocks of 2M of addresses, each page's state
 *   gate.c     the event gate: system calls that respect unread events
 *   reader.c   the fault threads: one reads events and faults, in order
 *   event.c    what an event does to the state of pages
 *   fault.c    serving a CPU fault
 *   applier.c  telling notifiers of events, in order; mm_sync
 *   notifier.c interval notifiers
 *   region.c   page frames of devices
 *   staging.c  staging slots: where pages pass through, and wait for the way back
 *   collect.c  migration: begin, by address and by frame
 *   commit.c   migration: commit and end
 *   huge.c     several 2M at once to frames that are memory
 *   lookup.c   mm_range_fault, device addresses, page states
 *   exclusive.c  pages that one device has for itself
 *   vma.c      mappings: what they are, registration, protections
 *   bus.c      engines' access to memory that may vanish
 *   fork.c     a child that is whole
 *   alloc.c    memory of gpusvm_alloc
 *
 * What protects a page's state
 *   A page's entry changes, and is acted on, only
 *     - with its block's lock and the gate held for reading, or
 *     - with the gate held for writing (the reader, on an event; huge.c, for several
 *       blocks at once).
 *   In either section no event can be read and marked by anyone else; if one
 *   is pending unread, the kernel answers EAGAIN to the system call and the
 *   section starts anew. Frames and staging pages know the address they stand
 *   for (rmap), changed under the same rule: a transaction that returns from
 *   copying finds there where its page lives now, or that it is gone.
 */
#ifndef USERFAULT_HOME_H
#define USERFAULT_HOME_H

#include "host/userfault/sys.h"
#include "host/userfault/userfault.h"

/* ---- A page's state: one word ------------------------------------------- */

typedef u32 entry_t;
enum entry_kind {
	ENTRY_SYSTEM, /* in system memory, or not populated; id: ENTRY_MARKED or 0 */
	ENTRY_DEVICE, /* id: device frame */
	ENTRY_OUT,    /* leaving system memory; id: staging page */
	ENTRY_IN,     /* coming home; id: device frame, which still holds the data */
};
#define ENTRY_KIND_SHIFT 30
#define ENTRY_ID_MASK ((1u << ENTRY_KIND_SHIFT) - 1)
/* After a REMOVE event: the old contents may still be there and be zapped any
 * moment. Does not leave before it was refilled (or seen empty). */
#define ENTRY_MARKED 1u

static inline entry_t entry(enum entry_kind kind, u32 id)
{
	return (u32)kind << ENTRY_KIND_SHIFT | id;
}
static inline enum entry_kind entry_kind(entry_t e)
{
	return (enum entry_kind)(e >> ENTRY_KIND_SHIFT);
}
static inline u32 entry_id(entry_t e)
{
	return e & ENTRY_ID_MASK;
}

/* ---- Blocks: 2M of addresses -------------------------------------------- */

struct block {
	struct host_mutex lock; /* RANK_HOST_BLOCK; see above */
	u64 address;
	u32 number; /* in the home's table; never 0, never reused */
	/* All 512 pages are alike when pages is NULL: uniform is the first page's
	 * entry (ids count up from it). A compound frame has no other form. */
	entry_t uniform;
	entry_t *pages;
	/* Pages that are known to be registered for missing faults, first | last << 16; 0, none,
	 * after any event that changes mappings. Changed in a section, or with the gate held
	 * for writing; read by one load, anywhere. */
	u32 registered;
	bool small_backed; /* last went out as 4K pages */
	/* Of the last fill: the page behind it, and how wide it was (fault.c). Changed in a
	 * section. */
	u8 fill_shift;
	u16 fill_next;
	/* REMOVE events to come that are our own (no MOVE); changed in a section, or with the
	 * gate held for writing. */
	struct own_remove *own_removes;
};

struct own_remove {
	struct own_remove *next;
	u64 start, end;
};

#define BLOCK_NUMBERS (1u << 20) /* 2 TiB of mirrored memory */
#define BLOCK_L2_BITS 13
#define BLOCK_L1_SIZE (1u << 13) /* 47 - 21 - 13 */
#define BLOCK_L2_SIZE (1u << BLOCK_L2_BITS)
#define BLOCK_WAITQS 16u

/* Where a frame or staging page stands: block number and page index. */
typedef u32 rmap_t;
#define RMAP_NONE 0u
static inline rmap_t rmap(const struct block *b, unsigned i)
{
	return b->number << HOST_HUGE_ORDER | i;
}

/* ---- Device frames ------------------------------------------------------- */

/* Eight bytes a 4K page. data is a compressed pointer (all of the library's
 * memory lies in the arena), 0 when free. */
struct mm_page {
	rmap_t rmap;
	u32 data;
};

#define REGIONS 65u /* of 64 devices, and exclusive.c's */
struct mm_region {
	struct mm *mm;
	const struct mm_region_ops *ops;
	void *priv;
	u64 npages;
	u32 base;		    /* id of frame 0 */
	struct mm_page *pages;	    /* npages; touched only for small frames */
	struct mm_page *heads;	    /* npages / 512, for compound ones */
	u64 used_small, used_heads; /* frames in use; atomic */
	struct mm_region *gone;	    /* in mm->gone_regions */
	/* Where the frames are ordinary memory, registered with U; or 0. One in use is
	 * populated: nothing that looks at it faults. One that is not may be, too. */
	u64 memory;
	/* For each 2M of it, 1: small pages have been there, whose page table would take a
	 * huge page apart that is moved there. Whoever has frames of it writes; atomic. */
	u8 *small;
};

/* ---- Staging ------------------------------------------------------------- */

/* 2M of address space that pages pass through. A slot that has held 4K pages
 * keeps their page table, which would split a huge page: it stays small until
 * it is trimmed. */
struct slot {
	struct slot *next;
	u32 number;
	bool small;
	unsigned used;	/* places given out for pages on their way out, from 0 on */
	unsigned ready; /* populated pages, from 0 on, that wait for the way home */
	u64 present[HOST_HUGE_PAGES / 64]; /* populated pages */
	/* Places of pages in state OUT whose devices have not let go yet: what is there
	 * stays within everybody's reach, and holes are filled. */
	u64 leaving[HOST_HUGE_PAGES / 64];
	/* Without MOVE they stay there until they are dropped, but nobody writes to them:
	 * set while they are copied. */
	bool copying;
	u32 waited; /* a fault on one of them was left to the end of the transaction; atomic */
	/* Pages on their way out have their bytes in their new frames already: `present` is
	 * of these, and this transaction knows where they are. NULL: they have them here.
	 * Changed in a section. */
	const struct mm_migrate *straight;
	/* Of pages in state OUT. As long as all 2M stand where they were taken as one, in a
	 * block that is not expanded, only the first need be set (huge.c). */
	rmap_t rmaps[HOST_HUGE_PAGES];
};

#define SMALL_WINDOW 16u /* pages that are brought home by COPY */
#define BOUNCE_SIZE (SMALL_WINDOW * HOST_PAGE_SIZE)
#define SLOTS 256u
#define SLOTS_KEPT 40u	   /* full ones kept for the way back */
#define SLOTS_KEPT_IDLE 4u /* of them, after a second without use */

struct staging {
	struct host_mutex lock; /* RANK_HOST_POOL */
	u64 base;		/* SLOTS * 2M of address space, in U */
	u64 fill_base;		/* the same outside U: pages made there for the way back */
	struct slot *slots;
	struct slot *empty;		     /* nothing populated */
	struct slot *open;		     /* used in part, by transactions of less than 2M */
	struct slot *spent;		     /* used up, not all populated: to be emptied */
	struct slot *full_huge, *full_small; /* all populated: for the way back */
	struct slot *ready;		     /* small, populated in part: the same */
	u32 n_full;
	u64 last_use;
	struct slot *fill; /* slots of fill_base, free ones */
	struct slot *fill_slots;
	struct host_work trim;
	struct host_shrinker shrinker; /* gives up what waits for the way back */
	u32 all;		       /* atomic: the next trim keeps nothing */
	char *bounces[8]; /* spare ones, BOUNCE_SIZE each */
	u32 n_bounces;
};

/* ---- Exclusive access -------------------------------------------------------- */

#define EXCLUSIVE_WORDS (HOST_HUGE_PAGES / 64)

/* See exclusive.c. */
struct exclusive {
	struct host_mutex lock;	  /* RANK_HOST_POOL: bits that are set, and region */
	struct mm_region *region; /* made at first use; then the rest is as it was made */
	u64 base;		  /* the frames' bytes, `chunks` times 2M */
	u32 chunks;
	bool moves; /* they are memory of U's */
	u64 *used;  /* EXCLUSIVE_WORDS for each chunk: frames given out; atomics */
	u32 *stale; /* for each chunk: a free frame may hold a page; atomics */
	struct exclusive_page {
		const void *owner;
		u64 until; /* the owner keeps it so long */
	} * pages;	   /* for each frame */
	u32 taken;	   /* frames of region in use; atomic */
	struct host_work trim;
};

/* ---- Events --------------------------------------------------------------- */

/* Frames that an event orphaned; of each its id, and in the low bit whether it is
 * compound. */
struct frame_list {
	struct frame_list *next;
	u32 n;
	u32 frames[61];
};

/* What the reader leaves for the applier: who must hear, and the frames that
 * fell out of use, to be freed when devices have let go. */
struct change {
	struct change *next;
	u64 start, end;
	u64 to; /* REMAP: where it is now */
	enum mm_event event;
	struct frame_list *frames;
};

/* ---- Mappings that devices were told of ---------------------------------- */

/* For what has no event: protections, and mappings that no context watches. */
struct extent {
	struct userfault_vma vma; /* as last seen; start and end as told */
	bool watched;
};

#define FAULT_THREADS 4u
#define SPARE_FDS 4u

struct mm {
	struct host_ref ref;
	bool dying; /* no more mm_use */
	u32 without;
	struct userfault_info info;
	struct userfault_hooks hooks;
	const struct userfault_sys *sys;
	int fd;		 /* U: user memory and staging */
	int watch_fd;	 /* W: memory that stays in place (WP_ASYNC); -1: none */
	int probe_fd;	 /* has nothing: asks what U has registered, see event.c */
	u32 moved_here; /* a move was read, and events older than it may follow; written with
			 * the gate held for writing */
	u32 watching;	 /* atomic: something was registered with it */
	int kick_fd;	 /* eventfd that ends the reader's poll */
	int spare_fds[SPARE_FDS]; /* places for a child's descriptor; -1: none */
	bool restricted; /* only memory of gpusvm_alloc migrates */
	struct {
		u64 start, end;
	} libc[4]; /* its variables, which threads of the library use: they stay */
	u32 n_libc;

	struct host_rwlock gate; /* RANK_HOST_GATE */
	u64 reads;		 /* messages read; atomic; for waiting on the reader */
	u64 events;		 /* events among them that are applied; gate for writing */
	struct host_waitq reads_waitq;

	struct block **l1[BLOCK_L1_SIZE];
	struct host_mutex blocks_lock; /* RANK_HOST_POOL: creation */
	struct block **by_number;      /* grows in the arena's address space */
	u32 n_blocks;
	struct host_waitq waitqs[BLOCK_WAITQS]; /* for MOVING pages, by block number */

	struct mm_region *regions[REGIONS];
	struct mm_region *gone_regions; /* see region.c */
	struct host_mutex regions_lock;

	struct staging staging;
	/* Its frames' data: aligned as what host_alloc gives, see host_arena_compress. */
	struct exclusive exclusive __attribute__((aligned(16)));

	/* Fault threads: leader and followers. */
	struct host_thread threads[FAULT_THREADS];
	struct host_mutex leader_lock; /* RANK_HOST: the three below */
	bool has_leader;
	u32 idle; /* threads waiting to lead */
	struct host_waitq leader_waitq;
	bool stopping;
	u64 deferred[64]; /* faults that no thread was free for: addresses */
	u32 n_deferred;
	struct { /* faults to be repeated at a time: see fault.c */
		u64 due, address;
	} delayed[64];
	u32 n_delayed;
	/* The leader's alone: faults that an event was in the way of lie in [stalled_start,
	 * stalled_end), see fault.c. */
	u64 stalled_start, stalled_end;
	u32 stalled_turns;

	struct host_thread applier;
	bool applier_stopping; /* after the reader */
	struct host_mutex changes_lock; /* RANK_HOST */
	struct change *changes, **changes_tail, *changes_last;
	u64 queued, applied; /* atomic */
	struct host_waitq changes_waitq, applied_waitq;

	struct host_rwlock notifiers_lock; /* RANK_NOTIFIER_LIST */
	struct mm_notifier *notifiers;
	struct host_mutex seq_lock; /* RANK_LEAF: sequences and counts */
	u64 seq;
	struct host_waitq seq_waitq;

	struct host_mutex extents_lock; /* RANK_HOST_POOL */
	struct extent *extents;		/* by address, apart */
	u32 n_extents, max_extents;

	struct { /* registered as a whole, while events is what it is; see vma.c */
		struct host_mutex lock; /* RANK_LEAF */
		u64 start, end, events;
		/* Where a change began while it was registered; see event.c. The same lock. */
		u64 doubt_start, doubt_end;
		/* What was ever registered, and where it went; more than that where
		 * there are too many of them. The same lock. */
		struct {
			u64 start, end;
		} ever[64];
		u32 n_ever;
	} whole;

	struct { /* what a child did while pages are copied to it; the reader's: see fork.c */
		struct child_change *changes;
		u32 n, max, first; /* from first on: its own, not its parent's */
	} child;

	struct { /* seen to be huge pages while events was what it is; see collect.c */
		struct host_mutex lock; /* RANK_LEAF */
		u64 start, end, events;
	} huge;

	struct transaction *idle_transaction; /* for the next one; by exchange only */
	struct huge_move *idle_huge_move;     /* the same; see huge.c */
	struct host_rwlock out_lock;	      /* RANK_DEVMEM: read by transactions that take
					       * pages out; written around a fork */

	struct userfault_counters counters; /* atomic */
	u64 alloc_base, alloc_size;
	struct host_mutex alloc_lock;
	u32 *alloc_runs; /* per 2M: length of the run that begins here, in 2M */
};

#define count(mm, what) host_add_relaxed(&(mm)->counters.what, 1)

/* ---- gate.c --------------------------------------------------------------
 * A section: block lock, then the gate for reading. -EAGAIN from a system call
 * inside means: leave it, wait for the reader, enter anew.
 */
void section_enter(struct mm *mm, struct block *b);
void section_leave(struct mm *mm, struct block *b);
/* Until the reader has read something more; bounded. No section, no lock. */
void wait_for_reader(struct mm *mm);
/* mm->events, when what was read is applied. Who saw it before it looked at something
 * that events change, and compares later (so, or in a section), knows that no event was
 * read in between. No section. */
u64 events_now(struct mm *mm);
/* True when an event waits to be read. */
bool events_unread(struct mm *mm);

/* System calls on U. Bytes done in *done where given. */
int uffd_copy(struct mm *mm, u64 dst, const void *src, u64 length, u64 *done);
/* The same, write-protected from the first. */
int uffd_copy_protected(struct mm *mm, u64 dst, const void *src, u64 length, u64 *done);
int uffd_zero(struct mm *mm, u64 dst, u64 length, u64 *done);
/* Nothing but this call may fill the destination; or, where something may, the source is
 * populated all along, as far as it has not moved: -EEXIST then means what it says. */
int uffd_move(struct mm *mm, u64 dst, u64 src, u64 length, u64 *done);
int uffd_wake(struct mm *mm, u64 start, u64 length);
int uffd_protect(struct mm *mm, u64 start, u64 length, bool protect);
int uffd_register(struct mm *mm, int fd, u64 start, u64 length, u64 mode);
/* Who waits there looks again. The kernel wakes them itself, but before it has taken the
 * mapping's own lock: one that began to wait in between would wait for ever. */
void uffd_unregister(struct mm *mm, int fd, u64 start, u64 length);
/* Drops pages of ours, or behind a copy, also locked ones (mlockall). */
int drop_pages(struct mm *mm, u64 start, u64 length);
int uffd_poison(struct mm *mm, u64 start, u64 length);

/* ---- block.c ------------------------------------------------------------- */
int blocks_init(struct mm *mm);
void blocks_fini(struct mm *mm);
struct block *block_find(struct mm *mm, u64 address);
struct block *block_make(struct mm *mm, u64 address); /* NULL: no memory */
struct block *block_of_rmap(struct mm *mm, rmap_t r);
static inline unsigned page_in_block(u64 address)
{
	return (unsigned)(address >> HOST_PAGE_SHIFT) & (HOST_HUGE_PAGES - 1);
}
/* State of one page. In a section, or the gate for writing. */
entry_t block_get(const struct block *b, unsigned i);
bool block_compound(const struct mm *mm, const struct block *b);
/* Gives the block its own entry for each page. array: 512 entries made before,
 * consumed (set to NULL) if used. A compound frame is split. */
void block_expand(struct mm *mm, struct block *b, entry_t **array);
void block_set(struct block *b, unsigned i, entry_t e); /* expanded blocks */
/* The block is on its way out as one: sets all rmaps of its slot. */
void slot_spread(struct mm *mm, const struct block *b);
/* Is all of [start, end), in b, known to be registered for missing faults? */
bool block_registered(const struct block *b, u64 start, u64 end);
/* It is, from now on; what is neither in nor beside what was known before is not noted.
 * Section of b. */
void block_register(struct block *b, u64 start, u64 end);
/* Takes the one of exactly [start, end) off the list; false: there is none. */
bool block_own_remove(struct block *b, u64 start, u64 end);
/* Back to one word where all pages are in system memory. */
void block_collapse(struct block *b);
struct host_waitq *block_waitq(struct mm *mm, const struct block *b);

/* ---- region.c ------------------------------------------------------------ */
struct mm_page *frame_page(struct mm *mm, u32 id, bool head);
u32 frame_id(const struct mm_page *page);
void frame_free(struct mm_page *page);				  /* calls ops->free */
struct mm_page *frame_split(struct mm *mm, struct mm_page *head); /* first small one */
void regions_fini(struct mm *mm);
/* Where the frame is ordinary memory; 0: it is not. */
u64 frame_memory(struct mm *mm, u32 id);
/* The region's word on small pages in the 2M of its memory that address is in. */
static inline u8 *region_small(const struct mm_region *region, u64 address)
{
	return &region->small[(address - region->memory) / HOST_HUGE_SIZE];
}
/* Is it memory of such frames? */
bool regions_contain(struct mm *mm, u64 address);
/* Frees the frames, and the list. */
void frames_free(struct mm *mm, struct frame_list *list);

/* ---- staging.c ----------------------------------------------------------- */
int staging_init(struct mm *mm);
void staging_fini(struct mm *mm);
/* A slot with n empty places from *at on; NULL: none. huge: for a huge page. */
struct slot *staging_take(struct mm *mm, unsigned n, bool huge, unsigned *at);
/* A slot with n populated pages from *at on: from the pool, or made anew. All 512
 * of a slot with small false may be one huge page. NULL: none. */
struct slot *staging_take_ready(struct mm *mm, unsigned n, bool small, unsigned *at);
void staging_put(struct mm *mm, struct slot *slot);
/* Up to n slots that have nothing in them and stay so, for 2M each of pages that go
 * straight; how many. And back again. */
unsigned staging_take_books(struct mm *mm, struct slot **slots, unsigned n);
void staging_put_books(struct mm *mm, struct slot *const *slots, unsigned n);
u64 slot_address(const struct mm *mm, const struct slot *slot);
/* Page aligned, BOUNCE_SIZE bytes. NULL: no memory. */
char *bounce_take(struct mm *mm);
void bounce_put(struct mm *mm, char *bounce); /* NULL is legal */
bool staging_contains(const struct mm *mm, u64 address);
static inline u32 slot_page(const struct slot *slot, unsigned i)
{
	return slot->number << HOST_HUGE_ORDER | i;
}

/* ---- exclusive.c --------------------------------------------------------- */
void exclusive_init(struct mm *mm);
/* Gives everything back. The reader runs. */
void exclusive_fini(struct mm *mm);
static inline struct mm_region *exclusive_region(struct mm *mm)
{
	return host_load_acquire(&mm->exclusive.region);
}
/* Is it a frame of ours, which nobody above mm.h knows? The frame is in use. */
bool exclusive_frame(struct mm *mm, const struct mm_page *page);
/* Of page i of such a frame; 0: it is not owner's. */
mm_pfn_t exclusive_pfn(struct mm *mm, const struct mm_page *page, unsigned i, const void *owner);
/* Gives back what anyone has of [start, end), of one block, at once. No section. */
void exclusive_make_way(struct mm *mm, u64 start, u64 end);
/* lookup.c: mm_range_fault. take: 1 where pages of system memory have yet to be taken for
 * rf->owner. */
int lookup_range(struct mm_range_fault *rf, bool take);

/* ---- applier.c ----------------------------------------------------------- */
int applier_start(struct mm *mm);
void applier_stop(struct mm *mm);
/* Queues; does not sleep on anything but short locks. frames as in change. */
void change_queue(struct mm *mm, u64 start, u64 end, enum mm_event event,
		  struct frame_list *frames);
/* REMAP. */
void change_queue_remap(struct mm *mm, u64 start, u64 end, u64 to);

/* ---- notifier.c ---------------------------------------------------------- */
void notifiers_init(struct mm *mm);
/* Both passes over all that overlap; returns when devices have let go. */
void notify(struct mm *mm, u64 start, u64 end, enum mm_event event, const void *migrator);
void notify_change(struct mm *mm, const struct change *change);

/* ---- reader.c, event.c, fault.c --------------------------------------------------- */
int reader_start(struct mm *mm);
void reader_stop(struct mm *mm);
/* Reads one message of fd; as sys->read. The gate for writing. */
s64 reader_read(struct mm *mm, int fd, struct uffd_msg *msg);
void spare_fds_close(struct mm *mm);
/* Makes the leader look up from its poll. Any context. */
void reader_kick(struct mm *mm);
/* What a CPU fault is about: true, and the frame held in fault, when the page is on
 * a device. */
bool fault_look(struct mm *mm, u64 address, struct mm_cpu_fault *fault);
void fault_drop(const struct mm_cpu_fault *fault);
/* Serves a write to a page that is protected while it leaves. The leader's. */
void fault_serve_protected(struct mm *mm, u64 address);
/* Serves what needs no device: true when done, else as fault_look. */
bool fault_serve_system(struct mm *mm, u64 address, bool write, struct mm_cpu_fault *fault);
/* Both drop what is held. No section; may wait for devices. events: mm->events as it
 * was before the page was looked at. */
void fault_serve_device(struct mm *mm, struct mm_cpu_fault *fault, u64 events);
/* Asks the owner of the frame to bring the page home; the value: migrate_to_ram's. */
s64 fault_ask_home(struct mm_cpu_fault *fault);
/* Repeats the faults that are due; ms until the next is, or -1. The leader's. */
int fault_repeat_due(struct mm *mm);
/* The same for those that an event was in the way of; ms, or `otherwise`. */
int fault_stalled_due(struct mm *mm, int otherwise);
/* Marks pages for an event; the gate is held for writing. */
void event_apply(struct mm *mm, const struct uffd_msg *msg);
/* If all that happened has been told by now, notes it. The gate held for writing. */
void events_settle(struct mm *mm);
/* There is no memory for what an event that was read has changed: a moment's wait for
 * some, and after ten seconds the process is given up. The gate may be held. */
void memory_wait(u32 *tries);

/* ---- fork.c -------------------------------------------------------------- */
int fork_init(struct mm *mm);
void fork_fini(struct mm *mm);
/* The handlers of a fork are for this home; they are over, and for none. */
void fork_begin(struct mm *mm);
void fork_end(void);
/* The gate is held for writing; child_fd is consumed. */
void fork_copy_to_child(struct mm *mm, int child_fd);

/* ---- vma.c --------------------------------------------------------------- */
/* Can the pages of this mapping move? */
bool vma_migratable(const struct mm *mm, const struct userfault_vma *vma);
/* Registers [start, end) of a mapping for missing faults (migratable) or for
 * events only. 0, or why not. */
int vma_watch(struct mm *mm, struct block *b, const struct userfault_vma *vma, u64 start, u64 end);
/* At [to, to + length) is now what was at from. Context: the gate for writing. */
void registered_moved(struct mm *mm, u64 from, u64 to, u64 length);
/* Takes back all of it. No page is on a device, none will be. */
void unregister_all(struct mm *mm);
/* Remembers what devices were told of [start, end) of vma. */
int extent_note(struct mm *mm, const struct userfault_vma *vma, u64 start, u64 end, bool watched);
/* What devices were told of the mapping at address, if an event tells when it goes: then it
 * is there, with the protections that it had at the last mm_sync of it at least. */
bool extent_seen(struct mm *mm, u64 address, struct userfault_vma *ret);
void extents_forget(struct mm *mm, u64 start, u64 end);
/* Queues a change for each noted mapping in [start, end) that is not what it was. */
void extents_recheck(struct mm *mm, u64 start, u64 end);
void extents_fini(struct mm *mm);

/* ---- alloc.c ------------------------------------------------------------- */
int alloc_init(struct mm *mm);
void alloc_fini(struct mm *mm);
bool alloc_contains(const struct mm *mm, u64 address);

/* ---- migration: collect.c, commit.c -------------------------------------- */

/* In mm_migrate.flags, exclusive.c's: pages go to frames of ours, or come back from
 * there. No others see these frames. */
#define MIGRATE_TAKE (1u << 30)
#define MIGRATE_GIVE_BACK (1u << 31)

/* Behind struct mm_migrate.home[0]. Entry i stands for page first + i of block,
 * or, by frames, for frame i of the question, wherever it lives. */
struct transaction {
	struct block *block; /* NULL: by frames */
	unsigned npages, first;
	/* Pages on their way out lie here at `at` + i; for the way home it gives
	 * populated pages there. */
	struct slot *slot;
	unsigned at;	/* place in the slot of entry 0 */
	char *bounce;	/* for a few pages home, instead of a slot */
	entry_t *spare; /* for block_expand */
	bool out, in;	/* pages of the kind were collected */
	bool compound;	/* all 512 as one */
	bool all_present;
	bool memory;  /* home: the frames are ordinary memory, and are moved */
	bool by_copy; /* no MOVE: sources stay in place, write-protected */
	/* Pages go straight to their frames, which are ordinary memory, from here on; 0: to
	 * the slot, which for these others only keeps the books. */
	u64 straight;
	bool huge; /* the memory is a huge page */
	bool committed;
	u32 *frames; /* id + 1 of collected device frames, 0: none */
	u32 few_frames[SMALL_WINDOW];
	u64 eligible[HOST_HUGE_PAGES / 64]; /* by i: may leave system memory */
	u64 begins[HOST_HUGE_PAGES / 64];   /* by i: a mapping does, when last seen */
	u64 taken[HOST_HUGE_PAGES / 64];    /* by i: state OUT, ours */
	u64 zero[HOST_HUGE_PAGES / 64];	    /* by i: never populated */
	u64 left[HOST_HUGE_PAGES / 64];	    /* by i: home, moved out of such a frame */
};

static inline bool bit(const u64 *bits, unsigned i)
{
	return bits[i / 64] >> (i % 64) & 1;
}
static inline void bit_set(u64 *bits, unsigned i)
{
	bits[i / 64] |= (u64)1 << (i % 64);
}
static inline void bit_clear(u64 *bits, unsigned i)
{
	bits[i / 64] &= ~((u64)1 << (i % 64));
}
static inline void bits_set(u64 *bits, unsigned first, unsigned n)
{
	for (; n && first % 64; n--)
		bit_set(bits, first++);
	for (; n >= 64; n -= 64, first += 64)
		bits[first / 64] = ~(u64)0;
	while (n--)
		bit_set(bits, first++);
}
static inline void bits_clear(u64 *bits, unsigned first, unsigned n)
{
	for (; n && first % 64; n--)
		bit_clear(bits, first++);
	for (; n >= 64; n -= 64, first += 64)
		bits[first / 64] = 0;
	while (n--)
		bit_clear(bits, first++);
}
/* Entries that one of src or dst stands for. */
static inline unsigned mpfn_pages(mm_mpfn_t mpfn)
{
	return mpfn & MM_MPFN_COMPOUND ? HOST_HUGE_PAGES : 1;
}
static inline struct transaction *transaction_of(const struct mm_migrate *m)
{
	return (struct transaction *)m->home[0];
}
static inline u64 entry_address(const struct transaction *t, unsigned i)
{
	return t->block->address + (u64)(t->first + i) * HOST_PAGE_SIZE;
}
/* Is the block as it was taken, whole, on its way out? Section of it. */
static inline bool out_whole(const struct transaction *t)
{
	const struct block *b = t->block;

	return !b->pages && b->uniform == entry(ENTRY_OUT, slot_page(t->slot, 0)) &&
	       t->slot->rmaps[0] == rmap(b, 0);
}
/* Enters the section of the block where a holder's page lives now, and gives it
 * and the index; NULL: it is gone, and no section was entered. */
struct block *section_enter_rmap(struct mm *mm, const rmap_t *holder, unsigned *i);
/* The end of a transaction wakes who waits for its pages where they were. For page i,
 * which an event has brought elsewhere, that is done here. Section of b. */
void wake_elsewhere(struct mm *mm, const struct transaction *t, unsigned i, const struct block *b,
		    unsigned at);
/* Where entry i of what leaves has its bytes from the MOVE on, and how many of the *n from
 * there on have theirs side by side. Any context. */
u64 out_bytes(struct mm *mm, const struct mm_migrate *m, unsigned i, unsigned *n);
/* The end of what was taken out: what has not been committed goes back, and who waits goes
 * on. No section. */
void out_end(struct mm *mm, struct mm_migrate *m, struct transaction *t);
/* The slot has kept the books for pages that never were in it. No page is in state OUT. */
void slot_forget(struct mm *mm, struct transaction *t);
/* Back to system memory for page i that did not leave its place. */
void page_stays(struct mm *mm, struct transaction *t, unsigned i);
/* Gives back what begin made. */
void transaction_free(struct mm *mm, struct transaction *t);
/* Frees the struct itself; NULL is legal. */
void transaction_drop(struct transaction *t);

/* ---- huge.c --------------------------------------------------------------- */
void huge_move_drop(struct huge_move *h); /* NULL is legal */

extern struct mm *the_mm; /* the open home of this process, or NULL */

#endif
