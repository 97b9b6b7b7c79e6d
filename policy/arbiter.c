/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* arbiter.c: see the header. No locking: pure. */
#include "policy/arbiter.h"
#include "host/host.h"

static struct arbiter_answer refused(int error, int rule)
{
	return (struct arbiter_answer){ .error = error, .rule = rule };
}

static struct arbiter_answer stays(int rule)
{
	return (struct arbiter_answer){ .action = ARBITER_STAY, .rule = rule };
}

static struct arbiter_answer moves(int where, int rule)
{
	return (struct arbiter_answer){ .action = ARBITER_MOVE, .where = where, .rule = rule };
}

/* Do atomics of this device count among everyone's, in memory that the CPU has
 * mapped too? */
static bool shared_atomics(const struct arbiter_question *q)
{
	switch (q->atomic) {
	case GPUSVM_ATOMIC_DEVICE:
	case GPUSVM_ATOMIC_CPU:
		return false;
	case GPUSVM_ATOMIC_GLOBAL:
		return q->system_atomics;
	default:
		return true; /* exact within the device: that they are anywhere */
	}
}

static struct arbiter_answer exclusive(const struct arbiter_question *q,
				       const struct arbiter_links *links)
{
	struct arbiter_answer answer = stays(3);

	if (!q->no_migrate && links->has_memory(links->arg, q->device))
		answer = moves(q->device, 3);
	answer.exclusive = 1;
	return answer;
}

static struct arbiter_answer place(const struct arbiter_question *q,
				   const struct arbiter_links *links)
{
	bool own = links->has_memory(links->arg, q->device);
	int preferred = q->preferred;

	if (q->no_migrate)
		return stays(4);
	if (preferred == ARBITER_SYSTEM)
		return moves(ARBITER_SYSTEM, 5);
	if (preferred >= 0 && links->has_memory(links->arg, preferred)) {
		if (preferred == q->device || links->weight(links->arg, q->device, preferred))
			return moves(preferred, 6);
		return moves(own ? q->device : ARBITER_SYSTEM, 6);
	}
	if (q->accessed_by)
		return stays(7);
	if (own)
		return q->throttled ? stays(8) : moves(q->device, 8);
	return stays(9);
}

struct arbiter_answer arbiter(const struct arbiter_question *question,
			      const struct arbiter_links *links)
{
	struct arbiter_answer answer;

	if (question->access_none)
		return refused(-EFAULT, 1);
	if (question->access == GPUSVM_ACCESS_ATOMIC && question->atomic == GPUSVM_ATOMIC_CPU)
		return refused(-EPERM, 2);
	if (question->access == GPUSVM_ACCESS_ATOMIC && !shared_atomics(question))
		answer = exclusive(question, links);
	else
		answer = place(question, links);
	if (question->atomic == GPUSVM_ATOMIC_CPU)
		answer.atomics = ARBITER_ATOMICS_NONE;
	else if (answer.exclusive || shared_atomics(question))
		answer.atomics = ARBITER_ATOMICS_ALL;
	else
		answer.atomics = ARBITER_ATOMICS_DEVICE;
	return answer;
}
