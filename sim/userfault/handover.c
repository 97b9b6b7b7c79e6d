/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * handover.c: addresses that one thread unmaps, and that another moves a mapping to before
 * the first one's event is queued: the kernel lets go of its lock in between. So the events
 * come in the order that they did not happen in.
 */
#include "sim/userfault/world.h"

#define PLACE (A + (BLOCKS + 1) * HUGE_SIZE)
#define ORIGIN (A + (BLOCKS + 2) * HUGE_SIZE)

/* The first alone, when all schedules are explored. */
static const u16 words[] = {0, 1, 40, 511};

static u32 n_words(void)
{
	return world->small ? 1 : host_array_size(words);
}

/* Of what is handed over. */
static u64 size(void)
{
	return world->small ? 2 * PAGE : HUGE_SIZE;
}

static void fill(u64 base, u64 tag)
{
	for (u32 i = 0; i < n_words(); i++)
		must(kernel_store(kernel_self(), base + words[i] * PAGE, tag + words[i]) == 0);
}

static void expect(u64 base, u64 tag)
{
	for (u32 i = 0; i < n_words(); i++) {
		u64 has;

		must(kernel_load(kernel_self(), base + words[i] * PAGE, &has) == 0);
		if (has != tag + words[i])
			sched_fail(SCHED_LAW,
				   "law 1, no lost write: page %u of what was moved: 0x%llx, not "
				   "0x%llx",
				   words[i], (unsigned long long)has,
				   (unsigned long long)(tag + words[i]));
	}
}

static u64 any_tag(struct sim_actor *a)
{
	return (sim_below(a, 1 << 20) + 1) << 16;
}

static bool is_hole(u64 address)
{
	struct userfault_vma v;

	return world->mm->sys->vma(address, &v) || v.start > address;
}

/* Whose turn it is to map there: the taker's from before the unmapping on. */
void give_step(struct sim *s, struct sim_actor *a)
{
	u64 tag = any_tag(a);

	if (s->handed)
		return;
	sched_note("maps the place, and gives it away");
	must(kernel_mmap(PLACE, size(), RW) == 0);
	fill(PLACE, tag);
	move_out(a, PLACE, PLACE + size());
	if (sim_below(a, 2))
		expect(PLACE, tag);
	s->handed = true;
	must(kernel_munmap(PLACE, size()) == 0);
	sched_progress();
}

void take_place_step(struct sim *s, struct sim_actor *a)
{
	u64 tag = any_tag(a);
	u32 tries, most = s->small ? 2 : 40;

	must(kernel_mmap(ORIGIN, size(), RW) == 0);
	fill(ORIGIN, tag);
	move_out(a, ORIGIN, ORIGIN + size());
	for (tries = 0; tries < most && !(s->handed && is_hole(PLACE)); tries++)
		host_sleep(HOST_USEC);
	if (tries == most) {
		expect(ORIGIN, tag);
		must(kernel_munmap(ORIGIN, size()) == 0);
		return;
	}
	sched_note("moves a mapping to the place");
	must(kernel_mremap(ORIGIN, PLACE, size(), false) == 0);
	if (sim_below(a, 2))
		expect(PLACE, tag);
	if (sim_below(a, 2))
		move_out(a, PLACE, PLACE + size());
	expect(PLACE, tag);
	must(kernel_munmap(PLACE, size()) == 0);
	s->handed = false;
	sched_progress();
}
