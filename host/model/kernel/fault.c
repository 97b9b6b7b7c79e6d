/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fault.c: access to memory: by threads, by the kernel, by devices.
 *
 * A fault holds mmap_lock for reading while it looks and fills; whoever is left to a
 * userfaultfd sleeps without it, and looks again from the beginning.
 */
#include "host/model/kernel/internal.h"

#include <linux/userfaultfd.h>
#include <string.h>

#define PAGE HOST_PAGE_SIZE

/* A whole huge page, where there is nothing yet. */
static bool fill_huge(struct space *s, const struct area *a, u64 address)
{
	u64 start = host_align_down(address, HOST_HUGE_SIZE);
	struct table *t;

	if (!a->huge || a->context || start < a->start || start + HOST_HUGE_SIZE > a->end)
		return false;
	t = table_make(s, start);
	if (t->populated || t->huge)
		return false;
	for (u32 i = 0; i < HOST_HUGE_PAGES; i++)
		pte_fill(s, start + i * PAGE, NULL, 0);
	table_changes(s, start);
	t->huge = true;
	return true;
}

/* A page that is there: what a write to it does. False: it was left to somebody. */
static bool write_to(struct space *s, struct area *a, struct pte *p, u64 address, bool by_kernel,
		     int *r)
{
	*r = 0;
	if (p->flags & PTE_PROTECTED && a->context) {
		step(); /* the entry is let go of before the fault is queued */
		*r = context_fault(s, a->context, address,
				   UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP, by_kernel);
		return false;
	}
	if (p->flags & PTE_SHARED)
		huge_split(s, address);
	p->flags &= (u16) ~(PTE_ZERO | PTE_SHARED | PTE_LAZY | PTE_PROTECTED);
	return true;
}

/* One look. 1: again. mmap_lock is held for reading; released but on 0. */
static int fault_once(struct space *s, u64 address, bool write, bool by_kernel)
{
	struct area *a = area_find(s, address);
	struct pte *p;
	int r;

	if (!a || !(a->protection & (write ? KERNEL_WRITE : KERNEL_READ))) {
		mmap_read_unlock(s);
		return -EFAULT;
	}
	p = pte_find(s, address);
	if (p && p->flags & PTE_POISON) {
		mmap_read_unlock(s);
		return -EHWPOISON;
	}
	if (p && p->flags & PTE_MIGRATING) {
		mmap_read_unlock(s);
		kernel_wait(!(pte_look(s, address)->flags & PTE_MIGRATING));
		return 1;
	}
	if (p && p->flags & PTE_PRESENT) {
		if (write && !write_to(s, a, p, address, by_kernel, &r))
			return r ? r : 1;
		return 0;
	}
	/* Looked up; the entry is filled later, under its lock. */
	step();
	p = pte_find(s, address);
	if (p && !pte_none(p)) {
		mmap_read_unlock(s);
		return 1;
	}
	if (a->context && a->mode & UFFDIO_REGISTER_MODE_MISSING) {
		r = context_fault(s, a->context, host_align_down(address, PAGE),
				  write ? UFFD_PAGEFAULT_FLAG_WRITE : 0, by_kernel);
		return r ? r : 1;
	}
	if (!fill_huge(s, a, address))
		pte_fill(s, host_align_down(address, PAGE), NULL, write ? 0 : PTE_ZERO);
	return 0;
}

int fault_in(struct space *s, u64 address, bool write, bool by_kernel)
{
	int r;

	do {
		/* The processor looks first; it needs no lock for that. */
		const struct pte *p = pte_look(s, address);
		struct area *a = area_find(s, address);

		if (p && a && a->protection & (write ? KERNEL_WRITE : KERNEL_READ) &&
		    (p->flags & (PTE_PRESENT | PTE_MIGRATING)) == PTE_PRESENT &&
		    !(write && p->flags & (PTE_ZERO | PTE_SHARED | PTE_PROTECTED))) {
			if (write)
				pte_find(s, address)->flags &= (u16)~PTE_LAZY;
			return 0;
		}
		mmap_read_lock(s);
		r = fault_once(s, address, write, by_kernel);
		if (!r) {
			/* The access is repeated; someone may be quicker. */
			mmap_read_unlock(s);
			kernel_counts.faults++;
			r = 1;
		}
	} while (r == 1);
	return r;
}

int kernel_read(struct space *s, u64 address, void *buffer, u32 n)
{
	int r;

	HOST_CHECK(address % PAGE + n <= KERNEL_BYTES);
	step();
	r = fault_in(s, address, false, false);
	if (!r)
		memcpy(buffer, pte_bytes(s, address) + address % PAGE, n);
	return r;
}

int kernel_write(struct space *s, u64 address, const void *buffer, u32 n)
{
	int r;

	HOST_CHECK(address % PAGE + n <= KERNEL_BYTES);
	step();
	r = fault_in(s, address, true, false);
	if (!r)
		memcpy(pte_bytes(s, address) + address % PAGE, buffer, n);
	return r;
}

int kernel_load(struct space *s, u64 address, u64 *ret)
{
	return kernel_read(s, address, ret, sizeof(*ret));
}

int kernel_store(struct space *s, u64 address, u64 value)
{
	return kernel_write(s, address, &value, sizeof(value));
}

int kernel_direct_write(u64 address, u64 value)
{
	struct space *s = kernel_self();
	struct pin pin = {.address = address}, **at;
	struct pte *p;
	int r = fault_in(s, address, true, true);

	if (r)
		return r;
	pte_find(s, address)->pins++;
	writes(&kernel.pins);
	pin.next = kernel.pins;
	kernel.pins = &pin;
	for (u64 n = sched_random() % 4; n; n--)
		step();
	writes(&kernel.pins);
	if (pin.address) {
		p = pte_find(s, pin.address);
		memcpy(pte_bytes(s, pin.address) + pin.address % PAGE, &value, sizeof(value));
		p->pins--;
	}
	for (at = &kernel.pins; *at != &pin; at = &(*at)->next)
		;
	*at = pin.next;
	kernel_wake();
	return 0;
}

static u8 *at_address(struct space *s, u64 address)
{
	HOST_CHECK(address % PAGE < KERNEL_BYTES);
	return pte_bytes(s, address) + address % PAGE;
}

u8 *kernel_touch(const void *p, bool write)
{
	struct space *s = kernel_self();
	u64 address = (u64)(uintptr_t)p;
	struct area *a = area_find(s, address);
	struct table *t = table_find(s, address);
	const struct pte *e = pte_look(s, address);
	bool library = host_arena_contains(p);

	/* Plain memory of the library, or of the test. */
	if (!t && !(a && (a->context || !library)) &&
	    address - KERNEL_USER_BASE >= KERNEL_USER_SIZE) {
		sched_access((const void *)(uintptr_t)host_align_down(address, PAGE), write);
		return (u8 *)(uintptr_t)p;
	}
	if (library && a->context && (!e || !(e->flags & PTE_PRESENT)))
		sched_fail(SCHED_LAW,
			   "staging is touched where there is no page: slot %llu page %llu",
			   (unsigned long long)((address - a->start) / HOST_HUGE_SIZE),
			   (unsigned long long)(address / PAGE % HOST_HUGE_PAGES));
	return fault_in(s, address, write, false) ? NULL : at_address(s, address);
}
