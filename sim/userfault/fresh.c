/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fresh.c: memory that is registered since a device has had some of it, while the library
 * knows nothing of the rest. The rest is dropped, and somebody moves it to a device. The
 * addresses are new each time, for what was known of them is not forgotten.
 */
#include "sim/userfault/world.h"

#define FRESH (A + (BLOCKS + 8) * HUGE_SIZE)
#define REST HUGE_SIZE /* from where on it is dropped, in the mapping */

static const u16 words[] = {0, 1, 40, 511};

static void expect(u64 address, u64 want)
{
	u64 has;

	must(kernel_load(kernel_self(), address, &has) == 0);
	if (has != want)
		sched_fail(SCHED_LAW,
			   "law 1, no lost write: page %u of what was mapped: 0x%llx, not 0x%llx",
			   page_number(address), (unsigned long long)has, (unsigned long long)want);
}

void fresh_step(struct sim *s, struct sim_actor *a)
{
	u64 base = FRESH + s->n_fresh++ * 2 * HUGE_SIZE, tag = (sim_below(a, 1 << 20) + 1) << 16;

	sched_note("maps pages [%u, %u), and a device has the first", page_number(base),
		   page_number(base + 2 * HUGE_SIZE));
	must(kernel_mmap(base, 2 * HUGE_SIZE, RW) == 0);
	for (u32 i = 0; i < host_array_size(words); i++)
		must(kernel_store(kernel_self(), base + REST + words[i] * PAGE, tag + i) == 0);
	must(kernel_store(kernel_self(), base, tag) == 0);
	move_out(a, base, base + PAGE);
	s->fresh = base;
	must(kernel_madvise(base + REST, HUGE_SIZE, MADV_DONTNEED) == 0);
	for (u32 i = 0; i < host_array_size(words); i++)
		expect(base + REST + words[i] * PAGE, 0);
	expect(base, tag);
	s->fresh = 0;
	must(kernel_munmap(base, 2 * HUGE_SIZE) == 0);
	sched_progress();
}

void fresh_mover_step(struct sim *s, struct sim_actor *a)
{
	u64 page = words[sim_below(a, host_array_size(words))];

	for (u32 tries = 0; tries < 40 && !s->fresh; tries++)
		host_sleep(HOST_USEC);
	if (s->fresh) {
		u64 start = s->fresh + REST + page * PAGE;

		move_out(a, start, start + PAGE);
	}
}
