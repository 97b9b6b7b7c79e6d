/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * vm.c: VMs: a page table with its locks, and a generation for the TLBs.
 *
 * Locking: prepare_lock for the tables, lock for the leaves; the two may be at
 * work at once (tables are published with release). Lanes take neither.
 */
#include "devices/soft/internal.h"

int soft_vm_create(struct gpusvm_device *device, void *token, struct gpusvm_device_vm **ret)
{
	struct soft_device *dev = to_soft(device);
	struct gpusvm_device_vm *vm;
	u64 serial;

	if (soft_stopped(dev))
		return -ENODEV;
	vm = host_alloc_zeroed(sizeof(*vm));
	if (!vm)
		return -ENOMEM;
	serial = host_add_return(&dev->vm_ids, 1);
	vm->dev = dev;
	vm->token = token;
	vm->id = serial & (SOFT_MARKER_VMS - 1);
	/* Lanes keep their TLBs when they go from VM to VM: 2^32 VMs with 2^32
	 * flushes each have generations of their own. 0 is an empty entry's. */
	vm->generation = serial << 32;
	vm->pt.no_orders = ~dev->base.caps.leaf_orders;
	host_mutex_init(&vm->prepare_lock, RANK_DEVICE_MEMORY);
	host_mutex_init(&vm->lock, RANK_DEVICE_VM);
	host_add_relaxed(&dev->n_vms, 1);
	*ret = vm;
	return 0;
}

void soft_vm_destroy(struct gpusvm_device_vm *vm)
{
	HOST_CHECK(host_read_once(&vm->queues) == 0);
	soft_pt_fini(&vm->pt);
	host_mutex_destroy(&vm->prepare_lock);
	host_mutex_destroy(&vm->lock);
	host_add_relaxed(&vm->dev->n_vms, (u32)-1);
	host_free(vm);
}

void *soft_vm_token(struct gpusvm_device_vm *vm)
{
	return vm->token;
}

int soft_vm_prepare(struct gpusvm_device_vm *vm, u64 va, u64 length, bool small)
{
	int err;

	host_mutex_lock(&vm->prepare_lock);
	/* Without leaves of 2M all of it is small. */
	if (vm->pt.no_orders >> HOST_HUGE_ORDER & 1)
		small = true;
	err = soft_pt_prepare(&vm->pt, va, length, small);
	host_mutex_unlock(&vm->prepare_lock);
	return err;
}

/* What a lane may follow: memory that this device has or that a peer's window shows, or
 * system memory. */
static void check_run(struct gpusvm_device_vm *vm, struct gpusvm_addr run)
{
	u64 size = HOST_PAGE_SIZE << gpusvm_addr_order(run);
	u64 vram = vm->dev->base.caps.vram_bytes;

	switch (gpusvm_addr_proto(run)) {
	case GPUSVM_PROTO_NONE:
	case GPUSVM_PROTO_SYSTEM:
		return;
	case GPUSVM_PROTO_LOCAL:
		HOST_CHECK(size <= vram && gpusvm_addr_address(run) <= vram - size);
		return;
	case GPUSVM_PROTO_PEER:
		HOST_CHECK(soft_peer_memory(vm->dev, gpusvm_addr_address(run), size));
		return;
	default:
		HOST_CHECK(!"an address that this device has no way to");
	}
}

void soft_vm_map(struct gpusvm_device_vm *vm, u64 va, const struct gpusvm_addr *runs, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++)
		check_run(vm, runs[i]);
	host_mutex_lock(&vm->lock);
	soft_pt_map(&vm->pt, va, runs, n);
	host_mutex_unlock(&vm->lock);
}

bool soft_vm_unmap(struct gpusvm_device_vm *vm, u64 va, u64 length)
{
	bool any;

	host_mutex_lock(&vm->lock);
	any = soft_pt_unmap(&vm->pt, va, length);
	host_mutex_unlock(&vm->lock);
	return any;
}

u64 soft_vm_preempt(struct gpusvm_device_vm *vm)
{
	struct soft_device *dev = vm->dev;
	u64 ticket = host_add_return(&vm->preempted, 1);
	u32 i;

	for (i = 0; i < dev->base.caps.lanes; i++)
		soft_lane_attract(&dev->lanes[i], SOFT_ATTEND_PREEMPT);
	return ticket;
}

void soft_vm_resume(struct gpusvm_device_vm *vm, u64 ticket)
{
	u64 old = host_load_seq(&vm->resumed);

	while (old < ticket && !host_cas(&vm->resumed, &old, ticket))
		;
	host_wake_all(&vm->dev->pause_wq);
}

bool soft_vm_held(struct gpusvm_device_vm *vm)
{
	return host_read_once(&vm->held) != 0;
}

bool soft_vm_query(struct gpusvm_device_vm *vm, u64 va, struct gpusvm_addr *ret)
{
	u64 leaf = soft_pt_walk(&vm->pt, va);
	u64 offset = va & ((HOST_PAGE_SIZE << soft_leaf_order(leaf)) - 1) & HOST_PAGE_MASK;

	if (!leaf)
		return false;
	*ret = gpusvm_addr_encode(soft_leaf_base(leaf) + offset, soft_leaf_proto(leaf), 0,
				  soft_leaf_write(leaf));
	ret->word |= leaf & GPUSVM_ADDR_NO_ATOMICS;
	return true;
}
