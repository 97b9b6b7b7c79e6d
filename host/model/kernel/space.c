/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* space.c: address spaces: areas, tables and the pages in them. */
#define _GNU_SOURCE
#include "host/model/kernel/internal.h"

#include <string.h>
#include <sys/mman.h>

#define POOL_TABLES 4096u
#define PAGE HOST_PAGE_SIZE

struct kernel kernel;
struct kernel_counts kernel_counts;

static void memory_reserve(void)
{
	if (kernel.pool)
		return;
	kernel.pool = mmap(NULL, POOL_TABLES * sizeof(struct table), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	HOST_CHECK(kernel.pool != MAP_FAILED);
}

void kernel_whims_set(const struct kernel_whims *whims)
{
	kernel.whims = *whims;
}

void kernel_boot(const struct kernel_whims *whims)
{
	static struct kernel was;

	memory_reserve();
	was = kernel;
	memset(&kernel, 0, sizeof(kernel));
	kernel.pool = was.pool;
	/* Handlers around a fork are given once in a program's life. */
	kernel.prepare = was.prepare;
	kernel.parent = was.parent;
	kernel.child = was.child;
	memset(&kernel_counts, 0, sizeof(kernel_counts));
	kernel_whims_set(whims);
	host_waitq_init(&kernel.waitq);
	host_waitq_init(&kernel.pollers);
	kernel.spaces[0].used = true;
	host_rwlock_init(&kernel.spaces[0].mmap_lock, RANK_NONE);
	/* The library's own memory. Entries are kept only for what a table was made for:
	 * what passes through userfaultfd. */
	HOST_CHECK(area_add(&kernel.spaces[0],
			    &(struct area){.start = host_arena_base(),
					   .end = host_arena_base() + host_arena_size(),
					   .protection = KERNEL_READ | KERNEL_WRITE}) == 0);
}

void kernel_abandon(void)
{
	if (kernel.child)
		kernel.child();
}

static HOST_THREAD_LOCAL struct space *self; /* NULL: the process's */

struct space *kernel_self(void)
{
	return self ? self : &kernel.spaces[0];
}

void kernel_become(struct space *s)
{
	self = s;
}

bool whim(u32 chance)
{
	return chance && sched_random() % 1024 < chance;
}

void step_pages(void)
{
	if (!kernel.whims.steps || whim(kernel.whims.steps))
		step();
}

/* ---- mmap_lock ----------------------------------------------------------------- */

#define without_hook(statement)                                                                    \
	do {                                                                                       \
		void (*hook_)(void) = host_posix_before_block;                                     \
		host_posix_before_block = NULL;                                                    \
		statement;                                                                         \
		host_posix_before_block = hook_;                                                   \
	} while (0)

void mmap_read_lock(struct space *s)
{
	without_hook(host_read_lock(&s->mmap_lock));
}

void mmap_read_unlock(struct space *s)
{
	host_read_unlock(&s->mmap_lock);
}

void mmap_write_lock(struct space *s)
{
	without_hook(host_write_lock(&s->mmap_lock));
}

void mmap_write_unlock(struct space *s)
{
	host_write_unlock(&s->mmap_lock);
}

/* ---- Areas ---------------------------------------------------------------------- */

/* One thing for what is at the addresses of 2M; where areas begin and end is seen under
 * mmap_lock only. */
static const void *area_object(const struct space *s, u64 address)
{
	return &s->areas[address / HOST_HUGE_SIZE % TABLE_HASH];
}

void areas_change(struct space *s, u64 start, u64 end)
{
	u64 first = host_align_down(start, HOST_HUGE_SIZE);

	end = host_min(end, first + TABLE_HASH * HOST_HUGE_SIZE);
	for (u64 at = first; at < end; at += HOST_HUGE_SIZE)
		writes(area_object(s, at));
}

struct area *area_next(struct space *s, u64 address)
{
	for (u32 i = 0; i < s->n_areas; i++)
		if (s->areas[i].end > address)
			return &s->areas[i];
	return NULL;
}

struct area *area_find(struct space *s, u64 address)
{
	struct area *a = area_next(s, address);

	reads(area_object(s, address));
	return a && a->start <= address ? a : NULL;
}

static int area_insert(struct space *s, const struct area *area)
{
	u32 i = s->n_areas;

	if (s->n_areas == AREAS)
		return -ENOMEM;
	while (i && s->areas[i - 1].start > area->start) {
		s->areas[i] = s->areas[i - 1];
		i--;
	}
	s->areas[i] = *area;
	s->n_areas++;
	return 0;
}

int area_add(struct space *s, const struct area *area)
{
	areas_change(s, area->start, area->end);
	return area_insert(s, area);
}

static int area_split(struct space *s, u64 at)
{
	struct area *a = area_find(s, at), tail;

	if (!a || a->start == at)
		return 0;
	tail = *a;
	tail.start = at;
	if (s->n_areas == AREAS)
		return -ENOMEM;
	a->end = at;
	return area_insert(s, &tail);
}

int areas_split(struct space *s, u64 start, u64 end)
{
	int r = area_split(s, start);

	return r ? r : area_split(s, end);
}

void areas_remove(struct space *s, u64 start, u64 end)
{
	u32 n = 0;

	areas_change(s, start, end);
	for (u32 i = 0; i < s->n_areas; i++)
		if (s->areas[i].start < start || s->areas[i].end > end)
			s->areas[n++] = s->areas[i];
	s->n_areas = n;
}

static bool alike(const struct area *a, const struct area *b)
{
	return a->end == b->start && a->protection == b->protection && a->no_fork == b->no_fork &&
	       a->huge == b->huge && a->mode == b->mode && a->context == b->context;
}

void areas_merge(struct space *s)
{
	u32 n = 0;

	for (u32 i = 0; i < s->n_areas; i++)
		if (n && alike(&s->areas[n - 1], &s->areas[i]))
			s->areas[n - 1].end = s->areas[i].end;
		else
			s->areas[n++] = s->areas[i];
	s->n_areas = n;
}

/* ---- Tables and pages -------------------------------------------------------------- */

/* One thing for what is told of a table itself. */
static const void *table_object(const struct space *s, u64 address)
{
	return &s->tables[address / HOST_HUGE_SIZE % TABLE_HASH];
}

/* The first pages of a table are one thing each, and so are 64 of the others: few for what
 * goes over all. */
static const void *page_object(const struct table *t, u64 address)
{
	u64 i = address / PAGE % HOST_HUGE_PAGES;

	return &t->ptes[i < 4 ? i : host_max(host_align_down(i, 64), (u64)4)];
}

void table_changes(struct space *s, u64 address)
{
	writes(table_object(s, address));
}

struct table *table_find(struct space *s, u64 address)
{
	u64 number = address / HOST_HUGE_SIZE;
	struct table *t = s->tables[number % TABLE_HASH];

	reads(table_object(s, address));

	while (t && t->number != number)
		t = t->next;
	return t;
}

struct table *table_make(struct space *s, u64 address)
{
	struct table *t = table_find(s, address);
	u64 number = address / HOST_HUGE_SIZE;

	if (t)
		return t;
	table_changes(s, address);
	t = kernel.pool_free;
	if (t)
		kernel.pool_free = t->next;
	else
		t = &kernel.pool[kernel.pool_used++];
	HOST_CHECK(kernel.pool_used <= POOL_TABLES);
	memset(t, 0, offsetof(struct table, bytes));
	t->number = number;
	t->next = s->tables[number % TABLE_HASH];
	s->tables[number % TABLE_HASH] = t;
	return t;
}

struct pte *pte_find(struct space *s, u64 address)
{
	struct table *t = table_find(s, address);

	if (!t)
		return NULL;
	writes(page_object(t, address));
	return &t->ptes[address / PAGE % HOST_HUGE_PAGES];
}

const struct pte *pte_look(struct space *s, u64 address)
{
	const struct table *t = table_find(s, address);

	if (!t)
		return NULL;
	reads(page_object(t, address));
	return &t->ptes[address / PAGE % HOST_HUGE_PAGES];
}

u8 *pte_bytes(struct space *s, u64 address)
{
	return table_find(s, address)->bytes[address / PAGE % HOST_HUGE_PAGES];
}

static void write_nothing(u8 *bytes)
{
	static const u64 nothing = KERNEL_NOTHING;

	for (u32 i = 0; i < KERNEL_BYTES; i += sizeof(nothing))
		memcpy(bytes + i, &nothing, sizeof(nothing));
}

void pte_fill(struct space *s, u64 address, const void *bytes, u32 flags)
{
	struct table *t = table_make(s, address);
	struct pte *p = &t->ptes[address / PAGE % HOST_HUGE_PAGES];
	u8 *to;

	HOST_CHECK(!(p->flags & PTE_PRESENT));
	writes(page_object(t, address));
	if (!t->populated)
		table_changes(s, address);
	t->populated = true;
	p->flags = (u16)(PTE_PRESENT | flags);
	p->pins = 0;
	to = pte_bytes(s, address);
	if (bytes)
		memcpy(to, bytes, KERNEL_BYTES);
	else
		memset(to, 0, KERNEL_BYTES);
}

void pins_moved(u64 from, u64 to)
{
	writes(&kernel.pins);
	for (struct pin *pin = kernel.pins; pin; pin = pin->next)
		if (pin->address && host_align_down(pin->address, PAGE) == from)
			pin->address = to ? to + pin->address % PAGE : 0;
}

void pte_clear(struct space *s, u64 address)
{
	struct pte *p = pte_find(s, address);

	if (!p || !p->flags)
		return;
	if (p->pins)
		pins_moved(address, 0);
	write_nothing(pte_bytes(s, address));
	*p = (struct pte){0};
}

void huge_split(struct space *s, u64 address)
{
	struct table *t = table_find(s, address);

	if (!t || !t->huge)
		return;
	table_changes(s, address);
	t->huge = false;
	t->populated = true;
	kernel_counts.splits++;
}

void zap(struct space *s, u64 start, u64 end)
{
	for (u64 at = start; at < end; at += PAGE) {
		struct table *t = table_find(s, at);

		if (!t) {
			at = host_align_down(at, HOST_HUGE_SIZE) + HOST_HUGE_SIZE - PAGE;
			continue;
		}
		if (host_is_aligned(at, HOST_HUGE_SIZE) && end - at >= HOST_HUGE_SIZE) {
			/* All of it at once, the table too. */
			for (u32 i = 0; i < HOST_HUGE_PAGES; i++)
				pte_clear(s, at + i * PAGE);
			table_changes(s, at);
			t->huge = t->populated = false;
			at += HOST_HUGE_SIZE - PAGE;
		} else {
			huge_split(s, at);
			pte_clear(s, at);
		}
		step_pages();
	}
}

void space_free(struct space *s)
{
	writes(&kernel.spaces);
	for (u32 i = 0; i < TABLE_HASH; i++)
		for (struct table *t = s->tables[i], *next; t; t = next) {
			next = t->next;
			for (u32 k = 0; k < HOST_HUGE_PAGES; k++)
				pte_clear(s, t->number * HOST_HUGE_SIZE + k * PAGE);
			t->next = kernel.pool_free;
			kernel.pool_free = t;
		}
	host_rwlock_destroy(&s->mmap_lock);
	memset(s, 0, sizeof(*s));
}

u32 kernel_look(struct space *s, u64 address)
{
	const struct table *t = table_find(s, address);
	const struct pte *p = pte_look(s, address);
	const struct area *a = area_find(s, address);
	u32 r = a && a->context ? KERNEL_REGISTERED : 0;

	if (!p || !(p->flags & PTE_PRESENT))
		return r;
	return r | KERNEL_PRESENT | (t->huge ? KERNEL_HUGE : 0) |
	       (p->flags & PTE_ZERO ? KERNEL_ZERO : 0) |
	       (p->flags & PTE_SHARED ? KERNEL_SHARED : 0) | (p->pins ? KERNEL_PINNED : 0);
}

bool kernel_changing(void)
{
	for (u32 i = 0; i < CONTEXTS; i++)
		if (kernel.contexts[i].used && kernel.contexts[i].changing)
			return true;
	return false;
}

u32 kernel_waiting(void)
{
	return kernel.waiting;
}
