/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * count.c: what became of the pages that somebody wanted moved. Locking: none; where
 * those are that did not move is looked up, and is advice by now.
 */
#include "core/pagemap/internal.h"

/* The pages [first, last), which did not move. */
static void count_rest(const struct mm_migrate *m, unsigned first, unsigned last,
		       const struct gpusvm_pagemap *to, struct gpusvm_migrate_result *result)
{
	struct mm_page_state states[16];

	while (first < last) {
		unsigned n = host_min(last - first, (unsigned)host_array_size(states));
		u64 at = m->start + first * HOST_PAGE_SIZE;

		mm_page_states(m->mm, at, at + n * HOST_PAGE_SIZE, states);
		for (unsigned k = 0; k < n; k++) {
			if (!(states[k].flags & MM_STATE_MAPPED) && !states[k].owner)
				result->holes++;
			else if (states[k].owner == to)
				result->already++;
			else
				result->stayed++;
		}
		first += n;
	}
}

void pagemap_count(const struct mm_migrate *m, const struct gpusvm_pagemap *to,
		   struct gpusvm_migrate_result *result)
{
	unsigned i = 0, rest = 0; /* [rest, i) did not move */

	while (i < m->npages) {
		unsigned n = 1;

		if (m->src[i] & MM_MPFN_MIGRATE) {
			n = pagemap_mpfn_pages(m->src[i]);
			count_rest(m, rest, i, to, result);
			result->moved += n;
			rest = i + n;
		}
		i += n;
	}
	count_rest(m, rest, m->npages, to, result);
	result->stayed_reason |= m->stayed_reason;
}
