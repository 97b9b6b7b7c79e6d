/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Types of host.h for deferred work and shrinkers: the same on threads and on fibers. */
#ifndef GPUSVM_POSIX_DEFERRED_TYPES_H
#define GPUSVM_POSIX_DEFERRED_TYPES_H

/* See work_lists.h. */
struct host_work {
	void (*fn)(struct host_work *);
	struct host_work *next;
	u64 due;
	u32 state;
	u32 pad;
};
/* See shrinker.c. */
struct host_shrinker {
	const struct host_shrinker_ops *ops;
	struct host_shrinker *next;
	u64 id;	      /* in the order of registration */
	u32 users;    /* calls in progress */
	u32 failures; /* of allocations, when it was last asked */
	struct host_work work;
	u64 looked_at; /* when it was last seen how short memory is; 0: never */
	u64 stalled;   /* and the figures then */
	u64 limits;
};

#endif
