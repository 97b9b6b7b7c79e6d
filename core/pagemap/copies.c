/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * copies.c: the list of copies of one migration. No locking: one user.
 */
#include "core/pagemap/internal.h"

void pagemap_copies_init(struct pagemap_copies *copies, struct gpusvm_devmem *devmem,
			 struct gpusvm_fence *after, struct gpusvm_copy *list, unsigned max)
{
	copies->devmem = devmem;
	copies->after = after;
	copies->list = list;
	copies->n = 0;
	copies->max = max;
	copies->err = 0;
}

/* What a device may say is more than what callers are promised. */
static int told(int err)
{
	return err == -ENOMEM || err == -ENODEV ? err : -EFAULT;
}

static void carry_out(struct pagemap_copies *copies)
{
	struct gpusvm_devmem *devmem = copies->devmem;
	int err;

	if (!copies->n || copies->err)
		return;
	err = devmem->ops->copy(devmem, copies->list, copies->n, copies->after, NULL);
	if (err)
		copies->err = told(err);
	copies->n = 0;
}

static bool continues(struct gpusvm_addr a, u64 length, struct gpusvm_addr b)
{
	enum gpusvm_proto proto = gpusvm_addr_proto(a);

	if (proto != gpusvm_addr_proto(b))
		return false;
	return proto == GPUSVM_PROTO_NONE ||
	       gpusvm_addr_address(a) + length == gpusvm_addr_address(b);
}

void pagemap_copies_add(struct pagemap_copies *copies, struct gpusvm_addr dst,
			struct gpusvm_addr src, u64 length)
{
	struct gpusvm_copy *last = copies->n ? &copies->list[copies->n - 1] : NULL;

	if (last && continues(last->dst, last->length, dst) &&
	    continues(last->src, last->length, src)) {
		last->length += length;
		return;
	}
	if (copies->n == copies->max)
		carry_out(copies);
	if (copies->err)
		return;
	copies->list[copies->n++] = (struct gpusvm_copy){ dst, src, length };
}

int pagemap_copies_finish(struct pagemap_copies *copies)
{
	carry_out(copies);
	return copies->err;
}
