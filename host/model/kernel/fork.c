/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fork.c: a child's space. Pages are shared in name: the child has the bytes of the
 * moment, and the parent's entries are marked until they are written to. The
 * caller goes on when the FORK event of each context is read.
 */
#include "host/model/kernel/internal.h"

#include <string.h>

#define PAGE HOST_PAGE_SIZE

struct forked {
	struct context *parents[4], *children[4];
	u32 n;
};

/* The child's counterpart of a context; NULL: it has none. */
static struct context *fork_context(struct forked *f, struct context *c, struct space *child)
{
	if (!c || !(c->features & UFFD_FEATURE_EVENT_FORK))
		return NULL;
	for (u32 i = 0; i < f->n; i++)
		if (f->parents[i] == c)
			return f->children[i];
	HOST_CHECK(f->n < host_array_size(f->parents));
	f->parents[f->n] = c;
	f->children[f->n] = context_make(child);
	HOST_CHECK(f->children[f->n]);
	f->children[f->n]->features = c->features;
	f->children[f->n]->api_done = true;
	f->children[f->n]->user_only = c->user_only;
	writes(&c->changing);
	c->changing++;
	return f->children[f->n++];
}

static void fork_page(struct space *s, struct space *child, u64 at)
{
	struct pte *p = pte_find(s, at);

	if (!p || !(p->flags & PTE_PRESENT))
		return;
	/* A pinned page stays its owner's; the child has a copy. */
	if (!(p->flags & PTE_ZERO) && !p->pins)
		p->flags |= PTE_SHARED;
	pte_fill(child, at, pte_bytes(s, at), p->flags & (PTE_ZERO | PTE_SHARED));
}

static void fork_pages(struct space *s, struct space *child, const struct area *a)
{
	for (u64 at = a->start; at < a->end; at += PAGE) {
		struct table *t = table_find(s, at);

		if (!t) {
			at = host_align_down(at, HOST_HUGE_SIZE) + HOST_HUGE_SIZE - PAGE;
			continue;
		}
		fork_page(s, child, at);
		if (t->huge && host_is_aligned(at, HOST_HUGE_SIZE))
			table_changes(child, at), table_find(child, at)->huge = true;
		step_pages();
	}
}

static struct space *space_make(void)
{
	writes(&kernel.spaces);
	for (u32 i = 1; i < SPACES; i++) {
		struct space *s = &kernel.spaces[i];

		if (s->used)
			continue;
		memset(s, 0, sizeof(*s));
		s->used = true;
		s->number = i;
		host_rwlock_init(&s->mmap_lock, RANK_NONE);
		return s;
	}
	return NULL;
}

static void duplicate(struct space *s, struct space *child, struct forked *f)
{
	mmap_write_lock(s);
	for (u32 i = 0; i < s->n_areas; i++) {
		struct area copy = s->areas[i];

		if (copy.no_fork || host_arena_contains((void *)(uintptr_t)copy.start))
			continue;
		copy.context = fork_context(f, copy.context, child);
		if (!copy.context)
			copy.mode = 0;
		HOST_CHECK(area_add(child, &copy) == 0);
		step();
		fork_pages(s, child, &copy);
	}
	mmap_write_unlock(s);
}

struct space *kernel_fork(void)
{
	struct space *s = kernel_self(), *child;
	struct forked f = {.n = 0};

	if (!s->number && kernel.prepare)
		kernel.prepare();
	child = space_make();
	if (child) {
		duplicate(s, child, &f);
		step();
	}
	for (u32 i = 0; i < f.n; i++) {
		struct event_wait w = {.msg = {.event = UFFD_EVENT_FORK}, .child = f.children[i]};

		context_event(f.parents[i], &w);
	}
	if (!s->number && kernel.parent)
		kernel.parent();
	return child;
}

void kernel_exit(struct space *child)
{
	/* Whoever works on it by a descriptor finishes its call; then it is told. */
	writes(&child->gone);
	child->gone = true;
	mmap_write_lock(child);
	mmap_write_unlock(child);
	reads(&kernel.contexts);
	for (u32 i = 0; i < CONTEXTS; i++)
		if (kernel.contexts[i].used && kernel.contexts[i].space == child)
			kernel_wait((reads(&kernel.contexts), !kernel.contexts[i].used));
	space_free(child);
	kernel_wake();
}
