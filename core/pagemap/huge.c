/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * huge.c: migration of several whole 2M at once to memory that CPUs can address.
 *
 * Nothing is copied, so that the home does all of it in one call (mm_move_huge), between
 * making pages of the frames and giving up those that no page came to.
 *
 * Locking: none held. Against a revocation as in migrate.c: frames are counted in
 * devmem->resident first, then revoked is looked at.
 */
#include "core/pagemap/internal.h"

static int check(struct gpusvm_devmem *const *list, unsigned n, u64 start)
{
	if (!n || n > MM_MOVE_HUGE_MAX || !host_is_aligned(start, HOST_HUGE_SIZE))
		return -EINVAL;
	for (unsigned i = 0; i < n; i++)
		if (list[i]->npages != HOST_HUGE_PAGES || list[i]->after ||
		    list[i]->pagemap != list[0]->pagemap || list[i]->mm != list[0]->mm ||
		    !host_is_aligned(list[i]->ops->frame(list[i], 0), HOST_HUGE_PAGES))
			return -EINVAL;
	if (!list[0]->pagemap->memory)
		return -EOPNOTSUPP;
	return host_load_acquire(&list[0]->pagemap->revoked) ? -ENODEV : 0;
}

/* A page of all of its frames, which holds a reference. */
static struct mm_page *place(struct gpusvm_devmem *devmem, u64 timeslice_end)
{
	host_ref_get(&devmem->ref);
	devmem->unplaced = 0;
	host_write_once(&devmem->compound, 1);
	/* Before the CPU goes on, or its first fault would not wait. */
	host_write_once(&devmem->timeslice_end, timeslice_end);
	host_add_return(&devmem->resident, HOST_HUGE_PAGES);
	return mm_page_init(devmem->pagemap->region, devmem->ops->frame(devmem, 0), HOST_HUGE_ORDER,
			    devmem);
}

/* n times 2M have come. */
static void tell(struct gpusvm_devmem *first, unsigned n, u64 start, u64 started)
{
	if (first->pagemap->ops->migrated)
		first->pagemap->ops->migrated(first, first->mm, start, (u64)n * HOST_HUGE_PAGES,
					      true, NULL, GPUSVM_MIGRATE_REQUEST, started);
}

/* Each run of those that moved at once, and the frames of the others back. */
static void finish(struct gpusvm_devmem *const *list, const struct mm_move_huge *m, u64 started)
{
	for (unsigned i = 0, n; i < m->n; i += n) {
		n = 1;
		if (!(m->moved >> i & 1)) {
			mm_page_abandon(m->pages[i]);
			continue;
		}
		while (i + n < m->n && m->moved >> (i + n) & 1)
			n++;
		tell(list[i], n, m->start + i * HOST_HUGE_SIZE, started);
	}
}

static int migrate_used(struct gpusvm_devmem *const *list, unsigned n, u64 start, u64 timeslice,
			u64 *moved)
{
	struct gpusvm_pagemap *pagemap = list[0]->pagemap;
	u64 started = host_now(), until = timeslice ? started + timeslice : 0;
	struct mm_move_huge m = {
	    .mm = list[0]->mm,
	    .start = start,
	    .n = n,
	    .migrator = pagemap,
	};
	int err;

	for (unsigned i = 0; i < n; i++)
		m.pages[i] = place(list[i], until);
	err = host_load_seq(&pagemap->revoked) ? -ENODEV : mm_move_huge(&m);
	finish(list, &m, started);
	*moved = m.moved;
	return err;
}

int gpusvm_devmem_migrate_huge(struct gpusvm_devmem *const *list, unsigned n, u64 start,
			       u64 timeslice, u64 *moved)
{
	int err = check(list, n, start);

	*moved = 0;
	if (!err && !mm_use(list[0]->mm))
		err = -EFAULT;
	if (!err) {
		err = migrate_used(list, n, start, timeslice, moved);
		mm_unuse(list[0]->mm);
	}
	for (unsigned i = 0; i < n; i++)
		gpusvm_devmem_put(list[i]);
	return err;
}
