/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * frames.c: the model's system memory, and how devices reach it.
 *
 * A dma address is the address of the bytes. A table of all frames by address
 * finds the frame again, so that each access of a device is checked: a frame
 * that is not mapped for devices cannot be reached.
 *
 * Locking: table_lock (a byte, held for a few instructions) for the table. The
 * counts of a frame are atomic.
 */
#include "host/model/internal.h"
#include "host/posix/posix.h"

#define FRAME_BUCKETS 4096u

static struct model_backing *table[FRAME_BUCKETS];
static u32 table_lock_word;
static u64 frames_live;

static u8 zero_bytes[HOST_PAGE_SIZE] __attribute__((aligned(4096)));
static struct model_backing zero_backing = { .bytes = zero_bytes, .live = 1 };
struct model_frame model_zero_frame = { .backing = &zero_backing, .refs = 1 };

/* There is no moment to initialise a static mutex in, and no one sleeps here. */
static void table_lock(void)
{
	u32 free = 0;

	while (!host_cas(&table_lock_word, &free, 1)) {
		free = 0;
		host_relax();
	}
}

static void table_unlock(void)
{
	host_store_release(&table_lock_word, 0);
}

static unsigned table_slot(u64 address, unsigned order)
{
	u64 n = address >> (HOST_PAGE_SHIFT + order);

	return (unsigned)((n ^ n >> 13) % FRAME_BUCKETS);
}

static u64 backing_size(const struct model_backing *backing)
{
	return HOST_PAGE_SIZE << backing->order;
}

struct model_backing *model_backing_alloc(unsigned order)
{
	unsigned n = 1u << order;
	struct model_backing *b = host_alloc_zeroed(sizeof(*b) + n * sizeof(b->frames[0]));
	unsigned slot;

	if (!b)
		return NULL;
	b->order = order;
	b->bytes = host_alloc_pages(backing_size(b));
	if (!b->bytes) {
		host_free(b);
		return NULL;
	}
	for (unsigned i = 0; i < n; i++)
		b->frames[i].backing = b;
	slot = table_slot((u64)(uintptr_t)b->bytes, order);
	table_lock();
	b->hash_next = table[slot];
	table[slot] = b;
	table_unlock();
	host_add_relaxed(&frames_live, n);
	return b;
}

void model_backing_free(struct model_backing *b)
{
	struct model_backing **p;

	table_lock();
	p = &table[table_slot((u64)(uintptr_t)b->bytes, b->order)];
	while (*p != b)
		p = &(*p)->hash_next;
	*p = b->hash_next;
	table_unlock();
	host_add_relaxed(&frames_live, -(u64)(1u << b->order));
	host_free_pages(b->bytes, backing_size(b));
	host_free(b);
}

void model_begin(void)
{
	for (unsigned i = 0; i < FRAME_BUCKETS; i++)
		table[i] = NULL;
	table_lock_word = 0;
	frames_live = 0;
	zero_backing.live = 1;
	model_zero_frame = (struct model_frame){ .backing = &zero_backing, .refs = 1 };
	model_told = NULL;
}

u64 model_frames_live(void)
{
	return host_read_once(&frames_live);
}

void model_frame_get(struct model_frame *frame)
{
	if (host_add_return(&frame->refs, 1) == 1)
		host_add_return(&frame->backing->live, 1);
}

static void frame_unused(struct mm *mm, struct model_frame *frame)
{
	struct model_backing *b = frame->backing;

	if (host_load_acquire(&frame->dma) && mm)
		model_violation(mm, "memory is freed that a device has mapped");
	if (host_add_return(&b->live, (u32)-1) == 0)
		model_backing_free(b);
}

void model_frame_put(struct mm *mm, struct model_frame *frame)
{
	if (host_add_return(&frame->refs, (u32)-1) == 0)
		frame_unused(mm, frame);
}

static const struct model_frame one_pin = { .refs = 1, .pins = 1 };

void model_frame_pin(struct model_frame *frame)
{
	host_add_return(&frame->uses, one_pin.uses);
}

void model_frame_unpin(struct model_frame *frame)
{
	struct model_frame left = { .uses = host_add_return(&frame->uses, -one_pin.uses) };

	if (!left.refs)
		frame_unused(NULL, frame);
}

bool model_frame_exclusive(const struct model_frame *frame)
{
	struct model_frame seen = { .uses = host_load_acquire(&frame->uses) };

	return seen.refs == 1 + seen.pins;
}

u8 *model_frame_bytes(struct model_frame *frame)
{
	struct model_backing *b = frame->backing;

	if (frame == &model_zero_frame)
		return zero_bytes;
	return b->bytes + (u64)(frame - b->frames) * HOST_PAGE_SIZE;
}

/* The frame at a dma address. Table lock held. */
static struct model_frame *frame_find(u64 address)
{
	static const unsigned orders[] = { 0, HOST_HUGE_ORDER };

	if (address - (u64)(uintptr_t)zero_bytes < HOST_PAGE_SIZE)
		return &model_zero_frame;
	for (unsigned k = 0; k < host_array_size(orders); k++) {
		struct model_backing *b = table[table_slot(address, orders[k])];

		for (; b; b = b->hash_next) {
			u64 offset = address - (u64)(uintptr_t)b->bytes;

			if (b->order == orders[k] && offset < backing_size(b))
				return &b->frames[offset >> HOST_PAGE_SHIFT];
		}
	}
	return NULL;
}

struct model_frame *model_frame_at(const void *p)
{
	return frame_find((u64)(uintptr_t)p);
}

bool model_frame_reached(const struct model_frame *frame)
{
	return host_read_once(&frame->dma) != 0;
}

/* Set while the model itself stands for the processor. */
static HOST_THREAD_LOCAL u32 on_cpu;

bool model_on_cpu(void)
{
	return on_cpu;
}

void model_cpu_copy(void *dst, const void *src, u64 n)
{
	on_cpu++;
	host_memcpy(dst, src, n);
	on_cpu--;
}

mm_dma_t mm_dma_map(struct mm *mm, void *dev, mm_pfn_t pfn, unsigned order, bool write)
{
	struct model_frame *frame = (struct model_frame *)(uintptr_t)MM_PFN_PAYLOAD(pfn);

	(void)dev;
	if (!(pfn & MM_PFN_VALID) || (pfn & MM_PFN_DEVICE) || (write && !(pfn & MM_PFN_WRITE)))
		return MM_DMA_ERROR;
	if (model_site_fails_locked_out(mm, MODEL_FAIL_DMA_MAP))
		return MM_DMA_ERROR;
	for (unsigned i = 0; i < 1u << order; i++)
		host_add_return(&frame[i].dma, 1);
	return (u64)(uintptr_t)model_frame_bytes(frame);
}

void mm_dma_unmap(struct mm *mm, void *dev, mm_dma_t addr, unsigned order, bool write)
{
	bool bad = false;

	(void)dev;
	(void)write;
	table_lock();
	for (unsigned i = 0; i < 1u << order; i++) {
		struct model_frame *frame = frame_find(addr + i * HOST_PAGE_SIZE);

		if (frame && host_load_acquire(&frame->dma))
			host_add_return(&frame->dma, (u32)-1);
		else
			bad = true;
	}
	table_unlock();
	if (bad) {
		host_mutex_lock(&mm->lock);
		model_violation(mm, "a device address is unmapped that is not mapped");
		host_mutex_unlock(&mm->lock);
	}
}

void *mm_bus_begin(mm_dma_t addr, u64 length, bool write)
{
	bool reached = length != 0;

	table_lock();
	for (u64 a = addr & HOST_PAGE_MASK; a < addr + length && reached; a += HOST_PAGE_SIZE) {
		struct model_frame *frame = frame_find(a);

		reached = frame && host_load_acquire(&frame->dma) &&
			  !(write && frame == &model_zero_frame);
	}
	table_unlock();
	return reached ? (void *)(uintptr_t)addr : NULL;
}

void mm_bus_end(void)
{
}

/* The innermost mm_bus_guard of this thread. */
static HOST_THREAD_LOCAL void **bus_guard;
static HOST_THREAD_LOCAL u64 bus_fault_address;

int mm_bus_guard(void (*fn)(void *), void *arg, u64 *fault_address)
{
	void **volatile outer = bus_guard;
	void *here[5];

	if (__builtin_setjmp(here)) {
		*fault_address = bus_fault_address;
		bus_guard = outer;
		return -EFAULT;
	}
	bus_guard = here;
	fn(arg);
	bus_guard = outer;
	return 0;
}

void mm_bus_abandon(u64 address)
{
	bus_fault_address = address;
	HOST_CHECK(bus_guard);
	__builtin_longjmp(bus_guard, 1);
}
