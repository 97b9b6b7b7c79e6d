/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Types of host.h outside the kernel: sizes only, so that nothing above the
 * door sees libc. host/posix and host/model check that theirs fit. */
#ifndef GPUSVM_POSIX_HOST_TYPES_H
#define GPUSVM_POSIX_HOST_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <asm/errno.h> /* numbers only */

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

struct host_mutex {
	u64 opaque[7];
};
struct host_rwlock {
	u64 opaque[9];
};
struct host_waitq {
	u32 waiters;
	u32 pad;
	u64 opaque[12];
};
struct host_thread {
	u64 opaque[6];
};
#include "host/posix/deferred_types.h"

#endif
