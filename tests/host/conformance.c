/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * conformance.c: all tests of host/mm.h, for the home that this program is linked
 * with. Each test opens the home anew; closing it finds nothing left.
 */
#include "tests/host/home.h"

#include <stdio.h>

static struct CMUnitTest all[128];
static unsigned n_all;

static void add(const struct CMUnitTest *tests, unsigned n)
{
	HOST_CHECK(n_all + n <= host_array_size(all));
	memcpy(all + n_all, tests, n * sizeof(*tests));
	n_all += n;
}

int main(void)
{
	const char *why = NULL;
	struct mm *home = home_open(&why);

	if (!home) {
		printf("no home %s here: %s\n", home_name, why);
		return 77; /* skipped */
	}
	home_close(home);
	add(space_tests, n_space_tests);
	add(notifier_tests, n_notifier_tests);
	add(fault_tests, n_fault_tests);
	add(frame_tests, n_frame_tests);
	add(migrate_tests, n_migrate_tests);
	add(straight_tests, n_straight_tests);
	add(change_tests, n_change_tests);
	add(exclusive_tests, n_exclusive_tests);
	/* What the macro cmocka_run_group_tests does, for an array that was put
	 * together. */
	return _cmocka_run_group_tests("conformance", all, n_all, NULL, NULL);
}
