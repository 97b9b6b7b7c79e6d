/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * links.c: links between devices as they come and go.
 *
 * Taking one down, in this order:
 *	may_map and may_copy are false: nothing new begins
 *	what is mapped over it goes, range by range. Who maps holds the range's lock, and
 *		asks may_map (in the pagemap's device_map) under it: either the walk
 *		finds the mapping, or the mapping finds the link gone
 *	copies that had begun end (drain)
 *	the device forgets the peer (peer_detach): no address names it any more
 *
 * Locking: links_lock, over all of it. A device that goes sets `removed` before it takes
 * the lock, so that no link comes after it was the last to change them.
 */
#include "driver/private.h"

static u64 flags_of(struct gpusvm_driver *driver, const struct driver_device *from,
		    const struct driver_device *to)
{
	struct gpusvm_interconnect_link link = {.flags = 0};

	gpusvm_interconnect_get(&driver->links, (unsigned)from->index, (unsigned)to->index, &link);
	return link.flags;
}

/* The link has `flags` no more. Context: links_lock. */
static void lose(struct driver_device *from, struct driver_device *to, u64 flags)
{
	struct gpusvm_driver *driver = from->driver;

	if (flags & GPUSVM_LINK_MAP)
		driver_peer_drop(from, to);
	if (flags & GPUSVM_LINK_COPY)
		gpusvm_interconnect_drain(&driver->links, (unsigned)from->index,
					  (unsigned)to->index);
}

static void tell(struct driver_device *from, const struct driver_device *to, u64 started)
{
	driver_event(from->driver, DRIVER_EVENT_LINK, DRIVER_CAUSE_NONE, from->index, 0, started, 0,
		     0, from->index, to->index);
}

/* Context: links_lock. */
static int link_set(struct driver_device *from, struct driver_device *to,
		    const struct gpusvm_interconnect_link *link)
{
	struct gpusvm_driver *driver = from->driver;
	u64 old = flags_of(driver, from, to), new = link ? link->flags : 0, started = host_now();
	int err = 0;

	if (driver_removed(from) || driver_removed(to))
		return -ENODEV;
	if (new & ~(u64)(GPUSVM_LINK_MAP | GPUSVM_LINK_COPY))
		return -EINVAL;
	if (new && !old)
		err = from->ops->peer_attach
			  ? from->ops->peer_attach(from->device, (unsigned)to->index, to->device)
			  : -EOPNOTSUPP;
	if (err)
		return err;
	err = gpusvm_interconnect_set(&driver->links, (unsigned)from->index, (unsigned)to->index,
				      link);
	if (!err)
		lose(from, to, old & ~new);
	if (err ? new && !old : old && !new)
		from->ops->peer_detach(from->device, (unsigned)to->index);
	if (!err)
		tell(from, to, started);
	return err;
}

int gpusvm_driver_link_set(struct gpusvm_driver *driver, int from, int to,
			   const struct gpusvm_interconnect_link *link)
{
	struct driver_device *a, *b;
	int err = driver_device_get(driver, from, &a);

	if (err)
		return err;
	err = driver_device_get(driver, to, &b);
	if (!err) {
		host_mutex_lock(&driver->links_lock);
		err = a == b ? -EINVAL : link_set(a, b, link);
		host_mutex_unlock(&driver->links_lock);
		driver_device_put(b);
	}
	driver_device_put(a);
	return err;
}

int gpusvm_driver_link_get(struct gpusvm_driver *driver, int from, int to,
			   struct gpusvm_interconnect_link *ret)
{
	struct driver_device *a, *b;
	int err = driver_device_get(driver, from, &a);

	if (err)
		return err;
	err = driver_device_get(driver, to, &b);
	if (!err) {
		if (!gpusvm_interconnect_get(&driver->links, (unsigned)from, (unsigned)to, ret))
			err = -ENOENT;
		driver_device_put(b);
	}
	driver_device_put(a);
	return err;
}

static void unlink(struct driver_device *from, struct driver_device *to)
{
	u64 old = flags_of(from->driver, from, to), started = host_now();

	/* Never fails: it goes. */
	gpusvm_interconnect_set(&from->driver->links, (unsigned)from->index, (unsigned)to->index,
				NULL);
	if (!old)
		return;
	lose(from, to, old);
	from->ops->peer_detach(from->device, (unsigned)to->index);
	tell(from, to, started);
}

void driver_links_remove(struct driver_device *dd)
{
	struct gpusvm_driver *driver = dd->driver;
	int n = (int)gpusvm_driver_device_count(driver), i;

	host_mutex_lock(&driver->links_lock);
	for (i = 0; i < n; i++) {
		struct driver_device *other = driver->devices[i];

		/* One that was removed itself has taken its links along. */
		if (other == dd || !host_ref_get_unless_zero(&other->alive))
			continue;
		unlink(dd, other);
		unlink(other, dd);
		driver_device_put(other);
	}
	host_mutex_unlock(&driver->links_lock);
}
