/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* mapper.c: memory of one actor's own, whose addresses are used again. */
#include "sim/userfault/world.h"

#define MAPPER_PAGES (2 * HOST_HUGE_PAGES)
#define SMALL_PAGES 2u

static void expect(u64 base, u64 page, u64 want)
{
	u64 has;

	must(kernel_load(kernel_self(), base + page * PAGE, &has) == 0);
	if (has != want)
		sched_fail(SCHED_LAW,
			   "law 1, no lost write: mapped at %llu, page %llu: 0x%llx, not 0x%llx",
			   (unsigned long long)(base - A) / PAGE, (unsigned long long)page,
			   (unsigned long long)has, (unsigned long long)want);
}

static void mapper_move(struct sim_actor *a, u64 base, u64 pages)
{
	for (u64 at = 0; at < pages; at += HOST_HUGE_PAGES)
		move_out(a, base + at * PAGE, base + host_min(pages, at + HOST_HUGE_PAGES) * PAGE);
}

void mapper_step(struct sim *s, struct sim_actor *a)
{
	static const u16 all[] = {0, 1, 15, 16, 40, 255, 511, 512, 600, 1023};
	static const u16 few[] = {0, 1};
	const u16 *at = s->small ? few : all;
	u32 n = s->small ? host_array_size(few) : host_array_size(all);
	u64 pages = s->small ? SMALL_PAGES : MAPPER_PAGES, half = pages / 2;
	u64 tag = (sim_below(a, 1 << 20) + 1) << 16,
	    cut = sim_below(a, 2) ? half : sim_below(a, s->small ? pages - 1 : 1000) + 1;
	u64 base = MAPPER_BASE, other = MAPPER_BASE + MAPPER_PAGES * PAGE;
	u64 has, from = 0, to = pages;

	sched_note("maps pages [%u, %u)", page_number(base), page_number(base + pages * PAGE));
	must(kernel_mmap(base, pages * PAGE, RW) == 0);
	if (sim_below(a, 2))
		must(kernel_madvise(base, pages * PAGE, MADV_HUGEPAGE) == 0);
	for (u32 i = 0; i < n; i++) {
		expect(base, at[i], 0);
		must(kernel_store(kernel_self(), base + at[i] * PAGE, tag + at[i]) == 0);
	}
	if (sim_below(a, 2))
		mapper_move(a, base, pages);
	switch (sim_below(a, 6)) {
	case 0:
		must(kernel_munmap(base + cut * PAGE, (pages - cut) * PAGE) == 0);
		must(kernel_load(kernel_self(), base + (pages - 1) * PAGE, &has) == -EFAULT);
		to = cut;
		break;
	case 1:
		must(kernel_madvise(base, cut * PAGE, MADV_DONTNEED) == 0);
		for (u32 i = 0; i < n && at[i] < cut; i++)
			expect(base, at[i], 0);
		from = cut;
		break;
	case 2:
		/* Not over two areas, which it is when only a part is registered. */
		if (kernel_mremap(base, other, pages * PAGE, false) == 0)
			base = other;
		break;
	case 3:
		if (kernel_mremap(base, other + 16 * PAGE, half * PAGE, sim_below(a, 2)))
			break;
		for (u32 i = 0; i < n && at[i] < half; i++)
			expect(other + 16 * PAGE, at[i], tag + at[i]);
		from = half;
		break;
	case 4:
		must(kernel_mprotect(base, cut * PAGE, KERNEL_READ) == 0);
		for (u32 i = 0; i < n; i++)
			expect(base, at[i], tag + at[i]);
		must(kernel_mprotect(base, cut * PAGE, RW) == 0);
		break;
	default:
		must(kernel_mmap(base + cut * PAGE, (pages - cut) * PAGE, RW) == 0);
		for (u32 i = 0; i < n; i++)
			if (at[i] >= cut)
				expect(base, at[i], 0);
		to = cut;
	}
	for (u32 i = 0; i < n; i++)
		if (at[i] >= from && at[i] < to)
			expect(base, at[i], tag + at[i]);
	must(kernel_munmap(other, 2 * MAPPER_PAGES * PAGE) == 0);
	sched_progress();
}
