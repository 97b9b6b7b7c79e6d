/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fork.c: a child that is whole.
 *
 * The child's page tables are copied while pages may be on a device: there they
 * are missing. The kernel tells us before the parent goes on, with a descriptor
 * for the child's memory: the reader copies the bytes of every such page to the
 * child, then closes the descriptor, and the child's memory is ordinary again.
 *
 * Bytes must not change between the copy of the page tables and ours: device
 * writes are paused by the hooks around fork(), and no page leaves system memory
 * meanwhile (out_lock). Pages that come home meanwhile keep their frame until
 * the transaction ends. A child that is made behind libc's back has a window in
 * which device writes may be torn.
 */
#define _GNU_SOURCE
#include "host/userfault/home.h"
#include "host/posix/posix.h"

static u8 page_buffer[HOST_PAGE_SIZE] HOST_STATIC __attribute__((aligned(4096)));

/* ---- The child ------------------------------------------------------------
 * It runs already. What it does to its memory while we copy has events of its own, and
 * while one is unread nothing can be copied: they are read here, and remembered, so
 * that a page goes where it belongs by now, or nowhere.
 */
#define NOWHERE (~(u64)0)
#define CHANGES 64u	  /* room at first */
#define COPY_TRIES 10000u /* ms, when there is no memory, or the child has not run yet */

struct child_change {
	u64 start, end, to; /* to: where what was there is now, or NOWHERE */
};

static void copy_pages(struct mm *mm, int child_fd);

/* Into one that says the same of its neighbours; not one of before its own fork. */
static bool change_join(struct mm *mm, u64 start, u64 end)
{
	for (u32 i = mm->child.n; i > mm->child.first; i--) {
		struct child_change *c = &mm->child.changes[i - 1];

		if (c->to != NOWHERE)
			break;
		if (start > c->end || end < c->start)
			continue;
		c->start = host_min(c->start, start);
		c->end = host_max(c->end, end);
		return true;
	}
	return false;
}

static void change_add(struct mm *mm, u64 start, u64 end, u64 to)
{
	u32 max = (mm->child.max + CHANGES) * 2;
	struct child_change *more;
	u32 tries = 0;

	if (to == NOWHERE && change_join(mm, start, end))
		return;
	if (mm->child.n == mm->child.max) {
		/* Without it the child gets again what it has dropped. */
		while (!(more = host_alloc(max * sizeof(*more))))
			memory_wait(&tries);
		if (mm->child.n)
			host_memcpy(more, mm->child.changes, mm->child.n * sizeof(*more));
		host_free(mm->child.changes);
		mm->child.changes = more;
		mm->child.max = max;
	}
	mm->child.changes[mm->child.n++] = (struct child_change){start, end, to};
}

/* Where the page that was at address when the child was made, is now. */
static u64 changed_address(const struct mm *mm, u64 address)
{
	for (u32 i = 0; i < mm->child.n && address != NOWHERE; i++) {
		const struct child_change *c = &mm->child.changes[i];

		if (address >= c->start && address < c->end)
			address = c->to == NOWHERE ? NOWHERE : address - c->start + c->to;
	}
	return address;
}

/* A child of the child: it lacks the same pages. What it does itself concerns no one
 * else. Leaves another page's bytes in page_buffer. */
static void copy_to_grandchild(struct mm *mm, int fd)
{
	u32 n = mm->child.n, first = mm->child.first;

	mm->child.first = n;
	copy_pages(mm, fd);
	mm->sys->close(fd);
	mm->child.first = first;
	mm->child.n = n;
}

/* False: there was nothing to read. */
static bool read_child(struct mm *mm, int child_fd)
{
	struct uffd_msg msg;

	if (reader_read(mm, child_fd, &msg) != sizeof(msg))
		return false;
	switch (msg.event) {
	case UFFD_EVENT_FORK:
		copy_to_grandchild(mm, (int)msg.arg.fork.ufd);
		break;
	case UFFD_EVENT_REMAP:
		change_add(mm, msg.arg.remap.from, msg.arg.remap.from + msg.arg.remap.len,
			   msg.arg.remap.to);
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		change_add(mm, msg.arg.remove.start, msg.arg.remove.end, NOWHERE);
		break;
	}
	/* Faults are repeated when the descriptor is closed. */
	return true;
}

/* Rather a signal than zeros. */
static void poison_page(struct mm *mm, int child_fd, u64 address)
{
	struct uffdio_poison poison = {.range = {.start = address, .len = HOST_PAGE_SIZE}};

	host_warn("a page could not be copied to a forked child", __FILE__, __LINE__);
	if (mm->info.poison)
		(void)mm->sys->ioctl(child_fd, UFFDIO_POISON, &poison);
}

/* Has everything that the child did to its memory been read? A range of length 0 is
 * looked at after that. */
static bool child_settled(struct mm *mm, int child_fd)
{
	struct uffdio_zeropage zero = {.range = {.len = 0}};

	return mm->sys->ioctl(child_fd, UFFDIO_ZEROPAGE, &zero) != -EAGAIN;
}

/* One try; -EAGAIN: again. */
static int try_copy(struct mm *mm, int child_fd, u64 address, struct uffdio_copy *copy)
{
	int r;

	copy->dst = changed_address(mm, address);
	if (copy->dst == NOWHERE)
		return 0;
	r = mm->sys->ioctl(child_fd, UFFDIO_COPY, copy);
	if (r != -EAGAIN && r != -ENOENT && r != -ENOMEM)
		return r;
	if (r != -ENOMEM && read_child(mm, child_fd))
		return -EAGAIN;
	/* A mapping that is not there has gone, or its move is not known yet. */
	if (r == -ENOENT && child_settled(mm, child_fd) &&
	    changed_address(mm, address) == copy->dst)
		return 0;
	host_sleep(HOST_MSEC);
	return -EAGAIN;
}

/* bytes: where they are, or NULL: page i of a frame is read, and again for each try, as a
 * grandchild may have been served in between. */
static void copy_page(struct mm *mm, int child_fd, u64 address, const void *bytes,
		      struct mm_page *page, unsigned i)
{
	struct uffdio_copy copy = {.src = (u64)(bytes ? bytes : page_buffer),
				   .len = HOST_PAGE_SIZE};
	int r = -EAGAIN;

	for (u32 tries = 0; r == -EAGAIN && tries < COPY_TRIES; tries++) {
		if (!bytes && mm_page_region(page)->ops->read(page, i, page_buffer)) {
			copy.dst = changed_address(mm, address);
			r = copy.dst == NOWHERE ? 0 : -EIO;
			break;
		}
		r = try_copy(mm, child_fd, address, &copy);
	}
	/* There already, or the child has gone: nothing is lost. */
	if (r && r != -EEXIST && r != -ESRCH && r != -ENOSPC)
		poison_page(mm, child_fd, copy.dst);
}

/* Where a page on its way out, in place `at` of a slot, has its bytes. */
static u64 slot_bytes(struct mm *mm, const struct slot *s, unsigned at)
{
	unsigned n = 1;

	if (s->straight)
		return out_bytes(mm, s->straight, at - transaction_of(s->straight)->at, &n);
	return slot_address(mm, s) + (u64)at * HOST_PAGE_SIZE;
}

/* A MOVE home of a whole block that this fork cut short has brought some pages home
 * before it (it holds mmap_lock, as fork does): the child has them. Where frames are
 * memory, theirs have nothing any more, and who reads one would wait for himself. */
static bool came_before(struct mm *mm, u32 id)
{
	u64 at = frame_memory(mm, id);
	struct page_region there;

	return at && mm->sys->scan(at, at + HOST_PAGE_SIZE, PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
				   &there, 1) == 0;
}

static void copy_entry(struct mm *mm, int child_fd, const struct block *b, unsigned i)
{
	entry_t e = block_get(b, i);
	u64 address = b->address + (u64)i * HOST_PAGE_SIZE;
	struct mm_page *page;

	switch (entry_kind(e)) {
	case ENTRY_SYSTEM:
		return;
	case ENTRY_OUT: {
		struct slot *s = &mm->staging.slots[entry_id(e) >> HOST_HUGE_ORDER];
		unsigned at = entry_id(e) & (HOST_HUGE_PAGES - 1);

		if (bit(s->present, at))
			copy_page(mm, child_fd, address, (void *)slot_bytes(mm, s, at), NULL, 0);
		return;
	}
	default:
		if (entry_kind(e) == ENTRY_IN &&
		    came_before(mm, b->pages ? entry_id(e) : entry_id(b->uniform) + i))
			return;
		page = frame_page(mm, b->pages ? entry_id(e) : entry_id(b->uniform), !b->pages);
		copy_page(mm, child_fd, address, NULL, page, b->pages ? 0 : i);
	}
}

static void copy_pages(struct mm *mm, int child_fd)
{
	u32 n = host_load_acquire(&mm->n_blocks);

	for (u32 k = 1; k < n; k++) {
		struct block *b = mm->by_number[k];

		if (!b->pages && entry_kind(b->uniform) == ENTRY_SYSTEM)
			continue;
		for (unsigned i = 0; i < HOST_HUGE_PAGES; i++)
			copy_entry(mm, child_fd, b, i);
	}
}

void fork_copy_to_child(struct mm *mm, int child_fd)
{
	copy_pages(mm, child_fd);
	mm->sys->close(child_fd);
	host_free(mm->child.changes);
	host_memset(&mm->child, 0, sizeof(mm->child));
}

/* ---- Around fork() ----------------------------------------------------------
 * libc has no way to take handlers back: they look at fork_mm. Other threads may open and
 * close homes meanwhile: whom a thread has begun to fork with, it ends with, and a home is
 * not closed before.
 */
static struct mm *fork_mm HOST_STATIC;	  /* atomic */
static u32 forking HOST_STATIC;		  /* atomic: threads that look at it */
static HOST_THREAD_LOCAL struct mm *mine; /* whom this thread forks with */

static void prepare(void)
{
	struct mm *mm;

	host_add_return(&forking, 1);
	mine = mm = host_load_seq(&fork_mm);
	if (!mm) {
		host_add_return(&forking, (u32)-1);
		return;
	}
	if (mm->hooks.fork_prepare)
		mm->hooks.fork_prepare(mm->hooks.arg);
	/* Nothing leaves from here on. The home holds no other lock over the fork:
	 * whatever libc and the caller touch in between may have to come home. */
	host_write_lock(&mm->out_lock);
	if (mm->hooks.fork_frozen)
		mm->hooks.fork_frozen(mm->hooks.arg);
}

static void parent(void)
{
	struct mm *mm = mine;

	if (!mm)
		return;
	mine = NULL;
	host_write_unlock(&mm->out_lock);
	if (mm->hooks.fork_parent)
		mm->hooks.fork_parent(mm->hooks.arg);
	host_add_return(&forking, (u32)-1);
}

static void child(void)
{
	struct mm *mm = the_mm;

	fork_mm = mine = NULL;
	forking = 0;
	if (!mm)
		return;
	the_mm = NULL;
	mm->dying = true;
	mm->sys->close(mm->fd);
	if (mm->watch_fd >= 0)
		mm->sys->close(mm->watch_fd);
	mm->sys->close(mm->probe_fd);
	mm->sys->close(mm->kick_fd);
	spare_fds_close(mm);
	userfault_sys_fini();
	if (mm->hooks.fork_child)
		mm->hooks.fork_child(mm->hooks.arg);
}

int fork_init(struct mm *mm)
{
	static bool once HOST_STATIC;

	host_rwlock_init(&mm->out_lock, RANK_DEVMEM);
	if (once)
		return 0;
	if (mm->sys->atfork(prepare, parent, child))
		return -ENOMEM;
	once = true;
	return 0;
}

void fork_begin(struct mm *mm)
{
	host_store_seq(&fork_mm, mm);
}

void fork_end(void)
{
	host_store_seq(&fork_mm, NULL);
	while (host_load_seq(&forking))
		host_sleep(HOST_MSEC / 4);
}

void fork_fini(struct mm *mm)
{
	host_rwlock_destroy(&mm->out_lock);
}
