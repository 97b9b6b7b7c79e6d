/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * arbiter.h: where a page should be, when a device wants it: one answer for an
 * address space, whoever asks. A pure function of what was advised, who faults,
 * and how devices are linked; so devices that disagree, and advice that
 * conflicts, have a defined result.
 *
 * The rule, in this order. What comes first decides.
 *   May it have the page at all?
 *     1. ACCESS_NONE: no (-EFAULT).
 *     2. An atomic under ATOMIC_CPU: no (-EPERM).
 *   Must it have it for itself? (Only what is asked for an atomic.)
 *     3. ATOMIC_DEVICE; or ATOMIC_GLOBAL, by a device that cannot do atomics in
 *        system memory that the CPU sees: the page is taken exclusively: to the
 *        device's own memory, else out of the CPU's mapping where it is. What
 *        forbids the move (NO_MIGRATE) leaves the second. Correct results go before
 *        preferences.
 *   Where does it go? The most specific advice first,
 *     4. NO_MIGRATE: nowhere. It is mapped where it is.
 *     5. PREFERRED_LOCATION system memory: there.
 *     6. PREFERRED_LOCATION a device that is there and has memory: to it, if it is
 *        who asks, or if who asks can map it there over a link; a device that has
 *        no link takes it to its own memory. One that is gone is no advice.
 *     7. ACCESSED_BY who asks: nowhere; it is mapped wherever it is.
 *   then the faulting device,
 *     8. one that has memory: to it, unless its pages have bounced too often
 *        lately (placement.h): then nowhere. What a peer has that it can map stays
 *        there: who touched it first keeps it; and of its pages those stay that are on a
 *        device to which it has a link: who touched them first keeps them;
 *   then link weights,
 *     9. one that has none: nowhere, if the page is on a device that it has a link
 *        to; of several that would do, the page is where it was put, so there is
 *        nothing to choose. Else to system memory.
 * "Nowhere" is no promise that a page is reached where it is: one on a device
 * without a link to who asks comes home to system memory.
 */
#ifndef GPUSVM_POLICY_ARBITER_H
#define GPUSVM_POLICY_ARBITER_H

#include <gpusvm/types.h>

/* Locations: device indices, and these, which are the driver's. */
#define ARBITER_SYSTEM (-1)
#define ARBITER_NONE (-2)
#define ARBITER_FAULTING (-3)

/* What the arbiter is told of devices and links. */
struct arbiter_links {
	/* Can `from` map pages in the memory of `to`, and how well: 0 it cannot, more is
	 * better. Not asked for from == to. */
	unsigned (*weight)(const void *arg, int from, int to);
	/* Is the device there, with memory that pages can go to? */
	int (*has_memory)(const void *arg, int device);
	const void *arg;
};

struct arbiter_question {
	/* Advice. */
	int preferred;
	int access_none, no_migrate, accessed_by; /* accessed_by: who asks is among them */
	unsigned atomic;			  /* GPUSVM_ATOMIC_* */
	/* Who asks, for what. */
	int device;
	enum gpusvm_access access;
	int system_atomics; /* its atomics in system memory are the CPU's, too */
	int throttled;	    /* its pages have bounced */
};

enum arbiter_action {
	ARBITER_STAY, /* map what can be mapped where it is */
	ARBITER_MOVE, /* to `where` first */
};

enum arbiter_atomics {
	ARBITER_ATOMICS_NONE,
	ARBITER_ATOMICS_DEVICE, /* in the memory of devices only, which the CPU has not mapped */
	ARBITER_ATOMICS_ALL,
};

struct arbiter_answer {
	int error; /* 0, or -EFAULT, -EPERM: it may not; the rest means nothing */
	enum arbiter_action action;
	int where;
	int exclusive;		      /* no one else, the CPU either, has it mapped meanwhile */
	enum arbiter_atomics atomics; /* allowed on what is mapped by this answer */
	int rule;		      /* the one that decided, as numbered above */
};

struct arbiter_answer arbiter(const struct arbiter_question *question,
			      const struct arbiter_links *links);

#endif
