/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * peer.c: windows to the memory of other software GPUs, which is in the same process:
 * a window is that device's address.
 *
 * Locking: none; a window is one word. Who reads it does so under an address that
 * was mapped or is being copied, and the driver takes those away before it detaches
 * the peer, and before the peer goes.
 */
#include "devices/soft/internal.h"

int soft_peer_attach(struct gpusvm_device *device, unsigned window, struct gpusvm_device *peer)
{
	struct soft_device *dev = to_soft(device), *none = NULL;

	if (window >= GPUSVM_PEER_WINDOWS || peer == device)
		return -EINVAL;
	/* Another kind's memory is not a software GPU's to reach. */
	if (peer->ops->memory_read != device->ops->memory_read)
		return -EOPNOTSUPP;
	if (host_cas(&dev->peers[window], &none, to_soft(peer)) || none == to_soft(peer))
		return 0;
	return -EBUSY;
}

void soft_peer_detach(struct gpusvm_device *device, unsigned window)
{
	host_store_release(&to_soft(device)->peers[window], NULL);
}

u8 *soft_peer_memory(struct soft_device *dev, u64 address, u64 length)
{
	struct soft_device *peer = host_load_acquire(&dev->peers[gpusvm_peer_window(address)]);
	u64 offset = gpusvm_peer_offset(address);
	u64 vram = peer ? peer->base.caps.vram_bytes : 0;

	return length <= vram && offset <= vram - length ? peer->vram + offset : NULL;
}
