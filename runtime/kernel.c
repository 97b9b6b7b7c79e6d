/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * kernel.c: memory access in kernels, on the device's lanes. Each access opens
 * one with the device, does it, and ends it at once: a lane that holds one
 * keeps invalidations waiting, and what it computes next may be long. Spans
 * stay open until the lane's next access. No locks.
 *
 * An access that cannot be does not return (device.h): nothing here may hold
 * anything over one.
 */
#include "runtime/private.h"

static inline const struct gpusvm_device_ops *lane_ops(struct gpusvm_lane *lane)
{
	return ((const struct gpusvm_lane_head *)(const void *)lane)->device->ops;
}

/* What is unaligned, or lies in two pages. */
static __attribute__((noinline)) void access_bytes(struct gpusvm_lane *lane, const void *p,
						   void *value, u64 n, bool write)
{
	const struct gpusvm_device_ops *ops = lane_ops(lane);
	u64 va = (u64)(uintptr_t)p, length;
	char *bytes = value;
	void *at;

	while (n) {
		length = n;
		at = ops->lane_access(lane, va, &length,
				      write ? GPUSVM_ACCESS_WRITE : GPUSVM_ACCESS_READ);
		length = host_min(length, n);
		if (write)
			host_memcpy(at, bytes, length);
		else
			host_memcpy(bytes, at, length);
		ops->lane_end(lane);
		va += length;
		bytes += length;
		n -= length;
	}
}

/* The place of an aligned word, which never lies in two pages. */
static inline void *word_at(struct gpusvm_lane *lane, const void *p, u64 width,
			    enum gpusvm_access access)
{
	u64 length = width;

	return lane_ops(lane)->lane_access(lane, (u64)(uintptr_t)p, &length, access);
}

/* The place of an atomic; one that is unaligned ends the work. */
static inline void *atomic_at(struct gpusvm_lane *lane, void *p, u64 width)
{
	if (host_unlikely(!host_is_aligned((u64)(uintptr_t)p, width)))
		lane_ops(lane)->lane_fail(lane, (u64)(uintptr_t)p, GPUSVM_ACCESS_ATOMIC, -EFAULT);
	return word_at(lane, p, width, GPUSVM_ACCESS_ATOMIC);
}

#define WORD_CALLS(bits)                                                                           \
	uint##bits##_t gpusvm_ld##bits(struct gpusvm_lane *lane, const void *p)                    \
	{                                                                                          \
		uint##bits##_t v;                                                                  \
                                                                                                   \
		if (host_unlikely(!host_is_aligned((u64)(uintptr_t)p, sizeof(v)))) {               \
			access_bytes(lane, p, &v, sizeof(v), false);                               \
			return v;                                                                  \
		}                                                                                  \
		v = host_read_once(                                                                \
			(uint##bits##_t *)word_at(lane, p, sizeof(v), GPUSVM_ACCESS_READ));        \
		lane_ops(lane)->lane_end(lane);                                                    \
		return v;                                                                          \
	}                                                                                          \
	void gpusvm_st##bits(struct gpusvm_lane *lane, void *p, uint##bits##_t v)                  \
	{                                                                                          \
		if (host_unlikely(!host_is_aligned((u64)(uintptr_t)p, sizeof(v)))) {               \
			access_bytes(lane, p, &v, sizeof(v), true);                                \
			return;                                                                    \
		}                                                                                  \
		host_write_once(                                                                   \
			(uint##bits##_t *)word_at(lane, p, sizeof(v), GPUSVM_ACCESS_WRITE), v);    \
		lane_ops(lane)->lane_end(lane);                                                    \
	}                                                                                          \
	uint##bits##_t gpusvm_atomic_cas##bits(struct gpusvm_lane *lane, void *p,                  \
					       uint##bits##_t expected, uint##bits##_t desired)    \
	{                                                                                          \
		uint##bits##_t *at = atomic_at(lane, p, sizeof(*at));                              \
                                                                                                   \
		host_cas(at, &expected, desired); /* expected is now the old value */              \
		lane_ops(lane)->lane_end(lane);                                                    \
		return expected;                                                                   \
	}

#define ATOMIC_CALL(bits, name, builtin)                                                           \
	uint##bits##_t gpusvm_atomic_##name##bits(struct gpusvm_lane *lane, void *p,               \
						  uint##bits##_t v)                                \
	{                                                                                          \
		uint##bits##_t *at = atomic_at(lane, p, sizeof(*at));                              \
                                                                                                   \
		v = builtin(at, v, __ATOMIC_SEQ_CST);                                              \
		lane_ops(lane)->lane_end(lane);                                                    \
		return v;                                                                          \
	}

WORD_CALLS(32)
WORD_CALLS(64)
ATOMIC_CALL(32, add, __atomic_fetch_add)
ATOMIC_CALL(64, add, __atomic_fetch_add)
ATOMIC_CALL(32, or, __atomic_fetch_or)
ATOMIC_CALL(64, or, __atomic_fetch_or)
ATOMIC_CALL(32, exchange, __atomic_exchange_n)
ATOMIC_CALL(64, exchange, __atomic_exchange_n)

void *gpusvm_span(struct gpusvm_lane *lane, const void *p, size_t *len, bool write)
{
	u64 length = *len;
	void *at;

	if (!length)
		return NULL;
	at = lane_ops(lane)->lane_access(lane, (u64)(uintptr_t)p, &length,
					 write ? GPUSVM_ACCESS_WRITE : GPUSVM_ACCESS_READ);
	*len = host_min(length, (u64)*len);
	return at;
}

int gpusvm_span2(struct gpusvm_lane *lane, void *dst, const void *src, size_t *len, void **dst_ret,
		 const void **src_ret)
{
	u64 length = *len;

	if (!length) {
		*dst_ret = NULL;
		*src_ret = NULL;
		return 0;
	}
	lane_ops(lane)->lane_access2(lane, (u64)(uintptr_t)dst, (u64)(uintptr_t)src, &length,
				     dst_ret, src_ret);
	*len = host_min(length, (u64)*len);
	return 0;
}
