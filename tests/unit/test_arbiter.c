/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_arbiter.c: the rule of policy/arbiter.h as a table, conflicting advice in it;
 * and for every question there is, what holds for every answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "policy/arbiter.c"

/* Four devices: 0, 1 and 2 have memory, 3 has none. 0 can map 1's, 3 can map 0's; nothing
 * else, and not the other way. 9 is gone. */
static unsigned weight(const void *arg, int from, int to)
{
	assert_ptr_equal(arg, &weight);
	assert_int_not_equal(from, to);
	return (from == 0 && to == 1) ? 10 : (from == 3 && to == 0) ? 1 : 0;
}

static int has_memory(const void *arg, int device)
{
	assert_ptr_equal(arg, &weight);
	return device >= 0 && device < 3;
}

static const struct arbiter_links links = {
	.weight = weight,
	.has_memory = has_memory,
	.arg = &weight,
};

#define NONE ARBITER_NONE
#define SYSTEM ARBITER_SYSTEM
#define READ GPUSVM_ACCESS_READ
#define WRITE GPUSVM_ACCESS_WRITE
#define ATOMIC GPUSVM_ACCESS_ATOMIC
#define STAYS(r, a) { .action = ARBITER_STAY, .rule = (r), .atomics = ARBITER_ATOMICS_##a }
#define MOVES(to, r, a) \
	{ .action = ARBITER_MOVE, .where = (to), .rule = (r), .atomics = ARBITER_ATOMICS_##a }

static const struct {
	const char *what;
	struct arbiter_question q;
	struct arbiter_answer want;
} table[] = {
	{ "no advice: to who asks",
	  { .preferred = NONE, .device = 0, .access = READ }, MOVES(0, 8, ALL) },
	{ "no advice, bounced",
	  { .preferred = NONE, .device = 0, .access = READ, .throttled = 1 }, STAYS(8, ALL) },
	{ "no advice, no memory",
	  { .preferred = NONE, .device = 3, .access = READ }, STAYS(9, ALL) },
	{ "the memory of who asks",
	  { .preferred = ARBITER_FAULTING, .device = 2, .access = WRITE }, MOVES(2, 8, ALL) },
	{ "preferred: itself",
	  { .preferred = 1, .device = 1, .access = WRITE }, MOVES(1, 6, ALL) },
	{ "preferred: itself, bounced: advice goes before history",
	  { .preferred = 1, .device = 1, .access = WRITE, .throttled = 1 }, MOVES(1, 6, ALL) },
	{ "preferred over a link",
	  { .preferred = 1, .device = 0, .access = WRITE }, MOVES(1, 6, ALL) },
	{ "preferred without a link: its own memory",
	  { .preferred = 0, .device = 1, .access = WRITE }, MOVES(1, 6, ALL) },
	{ "preferred over a link, by one without memory",
	  { .preferred = 0, .device = 3, .access = READ }, MOVES(0, 6, ALL) },
	{ "preferred without a link, by one without memory",
	  { .preferred = 2, .device = 3, .access = READ }, MOVES(SYSTEM, 6, ALL) },
	{ "preferred: one that has no memory is no advice",
	  { .preferred = 3, .device = 1, .access = READ }, MOVES(1, 8, ALL) },
	{ "preferred: one that is gone is no advice",
	  { .preferred = 9, .device = 1, .access = READ }, MOVES(1, 8, ALL) },
	{ "preferred: system memory",
	  { .preferred = SYSTEM, .device = 1, .access = WRITE }, MOVES(SYSTEM, 5, ALL) },
	{ "accessed by who asks",
	  { .preferred = NONE, .accessed_by = 1, .device = 1, .access = READ }, STAYS(7, ALL) },
	{ "accessed by who asks, and preferred there: the preference",
	  { .preferred = 1, .accessed_by = 1, .device = 1, .access = READ }, MOVES(1, 6, ALL) },
	{ "accessed by, and preferred one that is gone",
	  { .preferred = 9, .accessed_by = 1, .device = 1, .access = READ }, STAYS(7, ALL) },
	{ "no migration",
	  { .preferred = NONE, .no_migrate = 1, .device = 1, .access = WRITE }, STAYS(4, ALL) },
	{ "no migration against a preference",
	  { .preferred = 1, .no_migrate = 1, .device = 1, .access = WRITE }, STAYS(4, ALL) },
	{ "no migration against a preference for system memory",
	  { .preferred = SYSTEM, .no_migrate = 1, .device = 1, .access = WRITE },
	  STAYS(4, ALL) },
	{ "no access", { .preferred = 1, .access_none = 1, .device = 1, .access = READ },
	  { .error = -EFAULT, .rule = 1 } },
	{ "no access against an atomic of the CPU's",
	  { .access_none = 1, .atomic = GPUSVM_ATOMIC_CPU, .device = 1, .access = ATOMIC },
	  { .error = -EFAULT, .rule = 1 } },
	{ "atomics are the CPU's",
	  { .preferred = 1, .atomic = GPUSVM_ATOMIC_CPU, .device = 1, .access = ATOMIC },
	  { .error = -EPERM, .rule = 2 } },
	{ "atomics are the CPU's, and this is none",
	  { .preferred = 1, .atomic = GPUSVM_ATOMIC_CPU, .device = 1, .access = WRITE },
	  MOVES(1, 6, NONE) },
	{ "an atomic anywhere",
	  { .preferred = SYSTEM, .device = 1, .access = ATOMIC }, MOVES(SYSTEM, 5, ALL) },
	{ "an atomic of the device's own",
	  { .preferred = NONE, .atomic = GPUSVM_ATOMIC_DEVICE, .device = 1, .access = ATOMIC },
	  { .action = ARBITER_MOVE, .where = 1, .exclusive = 1, .atomics = ARBITER_ATOMICS_ALL,
	    .rule = 3 } },
	{ "the same against a preference: exact results go first",
	  { .preferred = SYSTEM, .atomic = GPUSVM_ATOMIC_DEVICE, .device = 1, .access = ATOMIC },
	  { .action = ARBITER_MOVE, .where = 1, .exclusive = 1, .atomics = ARBITER_ATOMICS_ALL,
	    .rule = 3 } },
	{ "the same against no migration: where it is",
	  { .preferred = NONE, .no_migrate = 1, .atomic = GPUSVM_ATOMIC_DEVICE, .device = 1,
	    .access = ATOMIC },
	  { .action = ARBITER_STAY, .exclusive = 1, .atomics = ARBITER_ATOMICS_ALL, .rule = 3 } },
	{ "the same without memory: where it is",
	  { .preferred = NONE, .atomic = GPUSVM_ATOMIC_DEVICE, .device = 3, .access = ATOMIC },
	  { .action = ARBITER_STAY, .exclusive = 1, .atomics = ARBITER_ATOMICS_ALL, .rule = 3 } },
	{ "a write under it takes nothing, and allows no atomic beside the CPU",
	  { .preferred = SYSTEM, .atomic = GPUSVM_ATOMIC_DEVICE, .device = 1, .access = WRITE },
	  MOVES(SYSTEM, 5, DEVICE) },
	{ "an atomic among all, by a device that can",
	  { .preferred = SYSTEM, .atomic = GPUSVM_ATOMIC_GLOBAL, .device = 1, .access = ATOMIC,
	    .system_atomics = 1 },
	  MOVES(SYSTEM, 5, ALL) },
	{ "an atomic among all, by a device that cannot",
	  { .preferred = SYSTEM, .atomic = GPUSVM_ATOMIC_GLOBAL, .device = 1, .access = ATOMIC },
	  { .action = ARBITER_MOVE, .where = 1, .exclusive = 1, .atomics = ARBITER_ATOMICS_ALL,
	    .rule = 3 } },
};

static void test_table(void **state)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct arbiter_answer want = table[i].want, got = arbiter(&table[i].q, &links);

		if (got.error != want.error || got.rule != want.rule)
			fail_msg("%s: rule %d, error %d", table[i].what, got.rule, got.error);
		if (want.error)
			continue;
		if (got.action != want.action || got.exclusive != want.exclusive ||
		    got.atomics != want.atomics ||
		    (got.action == ARBITER_MOVE && got.where != want.where))
			fail_msg("%s: action %d to %d, exclusive %d, atomics %d", table[i].what,
				 got.action, got.where, got.exclusive, got.atomics);
	}
}

/* Every question: the same answer twice, and none that cannot be carried out. */
static void test_every_question(void **state)
{
	static const int places[] = { NONE, SYSTEM, ARBITER_FAULTING, 0, 1, 2, 3, 9 };

	for (unsigned n = 0; n < 8u * 4 * 4 * 3 * 32; n++) {
		struct arbiter_question q = {
			.preferred = places[n % 8],
			.atomic = n / 8 % 4,
			.device = (int)(n / 32 % 4),
			.access = (enum gpusvm_access)(1 + n / 128 % 3),
			.access_none = n / 384 % 2,
			.no_migrate = n / 768 % 2,
			.accessed_by = n / 1536 % 2,
			.system_atomics = n / 3072 % 2,
			.throttled = n / 6144 % 2,
		};
		struct arbiter_answer a = arbiter(&q, &links), b = arbiter(&q, &links);

		assert_memory_equal(&a, &b, sizeof(a));
		assert_true(a.rule >= 1 && a.rule <= 9);
		if (a.error)
			continue;
		if (a.action == ARBITER_MOVE) {
			assert_false(q.no_migrate);
			assert_true(a.where == SYSTEM || has_memory(&weight, a.where));
			/* Where it goes, who asks can reach it. */
			assert_true(a.where == SYSTEM || a.where == q.device ||
				    weight(&weight, q.device, a.where));
		}
		if (q.access == ATOMIC)
			assert_int_not_equal(a.atomics, ARBITER_ATOMICS_NONE);
		if (a.exclusive)
			assert_int_equal(q.access, ATOMIC);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_every_question),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
