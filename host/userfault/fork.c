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

static void copy_page(struct mm *mm, int child_fd, u64 address, const void *bytes)
{
	struct uffdio_copy copy = {.dst = address, .src = (u64)bytes, .len = HOST_PAGE_SIZE};
	int r;

	do
		r = mm->sys->ioctl(child_fd, UFFDIO_COPY, &copy);
	while (r == -EAGAIN);
	/* There already, or the child has gone: nothing is lost. */
	if (r && r != -EEXIST && r != -ESRCH && r != -ENOENT && r != -ENOSPC)
		host_warn("a page could not be copied to a forked child", __FILE__, __LINE__);
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
			copy_page(mm, child_fd, address,
				  (void *)(slot_address(mm, s) + (u64)at * HOST_PAGE_SIZE));
		return;
	}
	default:
		page = frame_page(mm, b->pages ? entry_id(e) : entry_id(b->uniform), !b->pages);
		if (mm_page_region(page)->ops->read(page, b->pages ? 0 : i, page_buffer)) {
			host_warn("a device page could not be read for a child", __FILE__,
				  __LINE__);
			return;
		}
		copy_page(mm, child_fd, address, page_buffer);
	}
}

void fork_copy_to_child(struct mm *mm, int child_fd)
{
	u32 n = host_load_acquire(&mm->n_blocks);

	for (u32 k = 1; k < n; k++) {
		struct block *b = mm->by_number[k];

		if (!b->pages && entry_kind(b->uniform) == ENTRY_SYSTEM)
			continue;
		for (unsigned i = 0; i < HOST_HUGE_PAGES; i++)
			copy_entry(mm, child_fd, b, i);
	}
	mm->sys->close(child_fd);
}

/* ---- Around fork() ----------------------------------------------------------
 * libc has no way to take handlers back: they look at the_mm.
 */
static void prepare(void)
{
	struct mm *mm = the_mm;

	if (!mm)
		return;
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
	struct mm *mm = the_mm;

	if (!mm)
		return;
	host_write_unlock(&mm->out_lock);
	if (mm->hooks.fork_parent)
		mm->hooks.fork_parent(mm->hooks.arg);
}

static void child(void)
{
	struct mm *mm = the_mm;

	if (!mm)
		return;
	the_mm = NULL;
	mm->dying = true;
	mm->sys->close(mm->fd);
	if (mm->watch_fd >= 0)
		mm->sys->close(mm->watch_fd);
	mm->sys->close(mm->kick_fd);
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

void fork_fini(struct mm *mm)
{
	host_rwlock_destroy(&mm->out_lock);
}
