/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * device.c: devices. n_devices only grows, by one thread at a time, and bound only
 * loses bits; both are
 * atomics that any thread reads.
 */
#include "runtime/private.h"
#include "devices/soft/soft.h"

#define DEVICE_FLAGS (GPUSVM_DEVICE_NO_FAULT | GPUSVM_DEVICE_NO_VRAM | GPUSVM_DEVICE_ZERO_COPY)
/* A live process cannot have a page that the CPU and a device both map as theirs. */
#define DEVICE_FLAGS_ELSEWHERE GPUSVM_DEVICE_COHERENT
#define VRAM_DEFAULT ((u64)256 << 20)
#define VRAM_MAX ((u64)1 << 40)

int device_check(struct gpusvm *svm, int device)
{
	if (device < 0 || (u32)device >= host_load_acquire(&svm->n_devices))
		return -EINVAL;
	return host_load_acquire(&svm->bound) >> device & 1 ? 0 : -ENODEV;
}

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

int device_desc_parse(const struct gpusvm_device_desc *desc, struct gpusvm_soft_options *ret)
{
	struct gpusvm_device_desc d;

	if (struct_in(&d, sizeof(d), desc) || (d.kind && !same(d.kind, "soft")))
		return -EINVAL;
	if (d.flags & ~(u64)(DEVICE_FLAGS | DEVICE_FLAGS_ELSEWHERE))
		return -EINVAL;
	if (d.flags & DEVICE_FLAGS_ELSEWHERE)
		return -EOPNOTSUPP;
	if (d.flags & GPUSVM_DEVICE_NO_VRAM ? d.vram_bytes != 0 : d.vram_bytes > VRAM_MAX)
		return -EINVAL;
	*ret = (struct gpusvm_soft_options){
		.vram_bytes = d.vram_bytes,
		.lanes = d.lanes,
		.copy_engines = d.copy_engines,
		.flags = d.flags,
	};
	if (!d.vram_bytes && !(d.flags & GPUSVM_DEVICE_NO_VRAM))
		ret->vram_bytes = VRAM_DEFAULT;
	return 0;
}

int device_add(struct gpusvm *svm, const struct gpusvm_soft_options *options)
{
	struct gpusvm_device *device;
	int index, err;

	err = gpusvm_soft_create(options, &device);
	if (err)
		return err;
	index = gpusvm_driver_device_add(svm->driver, device);
	if (index < 0)
		return index;
	host_fetch_or(&svm->bound, (u64)1 << index);
	host_store_release(&svm->n_devices, (u32)index + 1);
	return index;
}

int gpusvm_device_count(struct gpusvm *svm)
{
	int err = svm_check(svm);

	return err ? err : (int)host_load_acquire(&svm->n_devices);
}

int device_event(struct gpusvm *svm, int device, bool all, struct gpusvm_event **ret)
{
	int err = svm_check(svm);

	if (!err && !(all && device == -1))
		err = device_check(svm, device);
	if (err)
		return err;
	*ret = event_new(svm);
	if (!*ret)
		return -ENOMEM;
	(*ret)->device = device;
	return 0;
}

static int info_call(struct gpusvm_event *event)
{
	return gpusvm_driver_device_caps(event->svm->driver, event->device, &event->u.device_caps);
}

int gpusvm_device_info(struct gpusvm *svm, int device, struct gpusvm_device_info *ret)
{
	struct gpusvm_device_info info = { .size = 0 };
	struct gpusvm_device_caps *caps;
	struct gpusvm_event *event;
	int err = svm_check(svm);

	if (!err)
		err = ret ? struct_out_check(ret, sizeof(info)) : -EINVAL;
	if (!err)
		err = device_event(svm, device, false, &event);
	if (err)
		return err;
	err = call(event, info_call, TASK_QUICK);
	if (!err) {
		caps = &event->u.device_caps;
		host_memcpy(info.name, caps->name, sizeof(info.name));
		info.name[sizeof(info.name) - 1] = 0;
		info.vram_bytes = caps->vram_bytes;
		info.lanes = caps->lanes;
		info.copy_engines = caps->copy_engines;
		info.flags = caps->flags;
		struct_out(ret, &info, sizeof(info));
	}
	event_put(event);
	return err;
}

static int remove_call(struct gpusvm_event *event)
{
	return gpusvm_driver_device_remove(event->svm->driver, event->device);
}

int gpusvm_device_unbind(struct gpusvm *svm, int device)
{
	struct gpusvm_event *event;
	u64 bit;
	int err = device_event(svm, device, false, &event);

	if (err)
		return err;
	bit = (u64)1 << device;
	if (!(host_fetch_and(&svm->bound, ~bit) & bit)) {
		event_put(event);
		return -ENODEV; /* another thread does it */
	}
	call_post(event, remove_call, TASK_SLOW);
	err = event_finish(event);
	fds_forget(svm, device);
	return err;
}
