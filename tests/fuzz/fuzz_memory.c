/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fuzz_memory.c: the core, the driver and software devices over the model memory
 * manager, against plain bytes. The input is a stream of operations, one after the
 * other: accesses of the CPU and of devices, prefetch, evict, bind, advice, everything
 * that changes mappings, fork, unbinding, and failures of the memory manager, of
 * allocation and of pages that are busy.
 *
 * Everything runs on fibers (host/model/sched.h): one thread, virtual time. The order of
 * steps is by a seed that the input's first byte holds, so that an input is one run, always
 * the same; where it is 0, a fiber goes on while it can.
 *
 * Without a failure armed each result is known. With one, an operation may fail; what
 * it wrote until then is read back, and each byte must be the old or the new one.
 */
#include "tests/unit/driver_world.h"

#include "host/model/sched.h"

#include "tests/fuzz/fuzz.h"

#define PAGE ((u64)4096)
#define PAGES 640u /* more than one 2M, less than two */
#define WINDOW (PAGES * PAGE)
#define OPERATIONS 300u
#define DEVICES 3

static struct {
	struct world w;
	struct input in;
	u8 bytes[WINDOW], buffer[WINDOW], old[WINDOW];
	u8 pattern[WINDOW + 256]; /* what is written: from anywhere in its first 256 bytes on */
	u8 prot[PAGES];		  /* MODEL_READ, MODEL_WRITE; 0: a hole */
	bool shared[PAGES];
	bool advised; /* devices may be kept out */
	bool failing; /* something may fail */
	bool was_busy;
	u32 gone; /* devices unbound */
	struct model_frame *pin;
} s;

struct span {
	u64 at, length; /* bytes in the window */
};

static struct span take_bytes(void)
{
	unsigned kind = input_byte(&s.in);
	struct span p = {.at = input_below(&s.in, PAGES) * PAGE + kind % 16 * 250};

	p.length = 1 + input_below(&s.in, kind & 16 ? 65536 : 256) * (kind & 32 ? 20 : 1);
	p.length = host_min(p.length, WINDOW - p.at);
	return p;
}

static struct span take_pages(unsigned max)
{
	struct span p = {.at = input_below(&s.in, PAGES) * PAGE};

	p.length = (1 + input_below(&s.in, max)) * PAGE;
	p.length = host_min(p.length, WINDOW - p.at);
	return p;
}

static u32 allowed(struct span p)
{
	u32 prot = MODEL_RW;

	for (u64 i = p.at / PAGE; i <= (p.at + p.length - 1) / PAGE; i++)
		prot &= s.prot[i];
	return prot;
}

/* The device of an operation: -1 is the CPU. An unbound one answers so. */
static int take_device(void)
{
	return (int)(input_byte(&s.in) % (DEVICES + 1)) - 1;
}

/* Is err a right answer where the access is allowed or not? True: it was done. */
static bool right(int err, int device, bool ok)
{
	if (device >= 0 && s.gone & 1u << device) {
		must(err == -ENODEV);
		return false;
	}
	if (s.failing)
		return err == 0;
	if (!ok || (s.advised && device >= 0 && err))
		must(err == -EFAULT || err == -EPERM);
	else
		must(err == 0);
	return err == 0;
}

static void stop_failing(void)
{
	for (unsigned site = 0; site < MODEL_SITES; site++)
		model_fail(s.w.mm, site, 0, 0);
	host_posix_fail_alloc_at(0);
	s.failing = false;
}

/* s.old was read where bytes were: each is as it was, or fresh. Most often all are one. */
static void take_back(u8 *bytes, const u8 *fresh, u64 n)
{
	if (!memcmp(s.old, bytes, n))
		return;
	if (memcmp(s.old, fresh, n))
		for (u64 k = 0; k < n; k++)
			must(s.old[k] == bytes[k] || s.old[k] == fresh[k]);
	memcpy(bytes, s.old, n);
}

/* After an access that failed: which bytes of it were written? */
static void read_back(struct span p, const u8 *fresh)
{
	u64 first = p.at / PAGE;

	stop_failing();
	for (u64 i = first; i <= (p.at + p.length - 1) / PAGE; i++) {
		u64 from = host_max(p.at, i * PAGE), to = host_min(p.at + p.length, (i + 1) * PAGE);

		if (!(s.prot[i] & MODEL_READ))
			continue;
		must(model_cpu_read(s.w.mm, BASE + from, s.old, to - from) == 0);
		take_back(s.bytes + from, fresh + (from - p.at), to - from);
	}
}

/* ---- Accesses -------------------------------------------------------------------- */

static void op_write(void)
{
	int device = take_device(), err;
	struct span p = take_bytes();
	unsigned value = input_byte(&s.in);

	memcpy(s.buffer, s.pattern + value, p.length);
	err = device < 0 ? model_cpu_write(s.w.mm, BASE + p.at, s.buffer, p.length)
			 : device_write(&s.w, device, BASE + p.at, s.buffer, p.length);
	if (right(err, device, allowed(p) & MODEL_WRITE))
		memcpy(s.bytes + p.at, s.buffer, p.length);
	else
		read_back(p, s.buffer);
}

static void op_read(void)
{
	int device = take_device(), err;
	struct span p = take_bytes();

	err = device < 0 ? model_cpu_read(s.w.mm, BASE + p.at, s.buffer, p.length)
			 : device_read(&s.w, device, BASE + p.at, s.buffer, p.length);
	if (right(err, device, allowed(p) & MODEL_READ))
		must(!memcmp(s.buffer, s.bytes + p.at, p.length));
}

static void op_set(void)
{
	int device = (int)(input_byte(&s.in) % DEVICES);
	struct span p = take_bytes();
	unsigned value = input_byte(&s.in);

	memset(s.buffer, (int)value, p.length);
	if (right(device_set(&s.w, device, BASE + p.at, (int)value, p.length), device,
		  allowed(p) & MODEL_WRITE))
		memset(s.bytes + p.at, (int)value, p.length);
	else
		read_back(p, s.buffer);
}

static void op_add(void)
{
	int device = (int)(input_byte(&s.in) % DEVICES);
	struct span p = {input_below(&s.in, PAGES) * PAGE + input_byte(&s.in) * 8, 8};
	u64 value = 0, old = 0;
	int err;

	memcpy(&value, s.bytes + p.at, 8);
	err = device_add(&s.w, device, BASE + p.at, 0x0102030405060708ull, &old);
	value += 0x0102030405060708ull;
	if (right(err, device, allowed(p) & MODEL_WRITE)) {
		must(!memcmp(&old, s.bytes + p.at, 8));
		memcpy(s.bytes + p.at, &value, 8);
	} else {
		read_back(p, (u8 *)&value);
	}
}

static void op_copy(void)
{
	int device = (int)(input_byte(&s.in) % DEVICES);
	struct span to = take_bytes(), from = {input_below(&s.in, PAGES) * PAGE, 0};
	bool ok;

	from.length = to.length = host_min(to.length, WINDOW - from.at);
	if (to.at < from.at + from.length && from.at < to.at + to.length)
		return;
	ok = allowed(to) & MODEL_WRITE && allowed(from) & MODEL_READ;
	memcpy(s.buffer, s.bytes + from.at, from.length);
	if (right(device_copy(&s.w, device, BASE + to.at, BASE + from.at, to.length), device, ok))
		memcpy(s.bytes + to.at, s.buffer, to.length);
	else
		read_back(to, s.buffer);
}

static void op_touch(void)
{
	int device = (int)(input_byte(&s.in) % DEVICES);
	bool write = input_byte(&s.in) & 1;
	struct span p = take_pages(PAGES);

	(void)right(device_touch(&s.w, device, BASE + p.at, p.length,
				 write ? GPUSVM_ACCESS_WRITE : GPUSVM_ACCESS_READ),
		    device, allowed(p) & (write ? MODEL_WRITE : MODEL_READ));
}

/* ---- Moves ------------------------------------------------------------------------- */

static void op_prefetch(void)
{
	struct gpusvm_migrate_result moved;
	int to = take_device(), err;
	struct span p = take_pages(PAGES);
	bool strict = input_byte(&s.in) & 1;
	u64 holes = 0;

	err = gpusvm_driver_prefetch(s.w.driver, BASE + p.at, BASE + p.at + p.length, to, strict,
				     &moved);
	if (to >= 0 && s.gone & 1u << to) {
		must(err == -ENODEV);
		return;
	}
	if (s.failing || err == -ENOSPC)
		return;
	for (u64 i = 0; i < p.length / PAGE; i++)
		holes += !s.prot[p.at / PAGE + i];
	must(moved.holes == holes);
	must(moved.moved + moved.already + moved.stayed + holes == p.length / PAGE);
	must(err == 0 || strict);
	must(!strict || (err == 0) == (!moved.stayed && !holes));
}

static void op_evict(void)
{
	int device = take_device(),
	    err = gpusvm_driver_evict(s.w.driver, device, DRIVER_CAUSE_EVICTION);

	if (device >= 0 && s.gone & 1u << device)
		must(err == -ENODEV);
	else
		must(!err || s.failing);
}

static void op_bind(void)
{
	int device = (int)(input_byte(&s.in) % DEVICES), err;
	struct span p = take_pages(PAGES);
	unsigned how = input_byte(&s.in);

	if (how & 2) {
		err = gpusvm_driver_unbind(s.w.queue[device], BASE + p.at, BASE + p.at + p.length);
		must(!err || err == -ENOENT || err == -ENODEV || s.failing);
		return;
	}
	err = gpusvm_driver_bind(s.w.queue[device], BASE + p.at, BASE + p.at + p.length, how & 1);
	(void)right(err, device, allowed(p) & (how & 1 ? MODEL_READ : MODEL_WRITE));
}

static void op_remove(void)
{
	int device = (int)(input_byte(&s.in) % DEVICES);
	bool gone = s.gone & 1u << device;
	int err;

	if (input_byte(&s.in) & 3)
		return; /* not often */
	err = gpusvm_driver_device_remove(s.w.driver, device);
	must(err == (gone ? -ENODEV : 0) || s.failing);
	if (!err)
		s.gone |= 1u << device;
}

static void op_advise(void)
{
	static const enum gpusvm_advice kinds[] = {
	    GPUSVM_PREFERRED_LOCATION, GPUSVM_ACCESSED_BY, GPUSVM_ACCESS_NONE, GPUSVM_ATOMIC,
	    GPUSVM_NO_MIGRATE,	       GPUSVM_GRANULARITY, GPUSVM_RESET,
	};
	enum gpusvm_advice kind = kinds[input_byte(&s.in) % host_array_size(kinds)];
	s64 value = kind == GPUSVM_GRANULARITY ? 1 << input_byte(&s.in) % 11
		    : kind == GPUSVM_ATOMIC    ? input_byte(&s.in) % 4
					       : input_byte(&s.in) & 1;
	int where = (int)(input_byte(&s.in) % (DEVICES + 1)) - 1, err;
	struct span p = take_pages(PAGES);
	bool holes = false;

	if (kind == GPUSVM_ACCESSED_BY && where < 0)
		where = 0;
	for (u64 i = 0; i < p.length / PAGE; i++)
		holes |= !s.prot[p.at / PAGE + i];
	err = gpusvm_driver_advise(s.w.driver, BASE + p.at, BASE + p.at + p.length, kind, value,
				   where);
	must(s.failing || err == (holes ? -ENOENT : 0));
	s.advised |= kind == GPUSVM_ACCESS_NONE || kind == GPUSVM_ATOMIC;
}

/* ---- Mappings ------------------------------------------------------------------------ */

static void set_mapping(struct span p, u32 prot, bool shared)
{
	memset(s.bytes + p.at, 0, p.length);
	memset(s.prot + p.at / PAGE, (int)prot, p.length / PAGE);
	memset(s.shared + p.at / PAGE, shared, p.length / PAGE);
}

static void op_map(void)
{
	struct span p = take_pages(PAGES);
	unsigned how = input_byte(&s.in);
	u32 flags = MODEL_RW | (how & 1 ? MODEL_THP : 0) | (how % 8 == 6 ? MODEL_SHARED : 0);

	if (!model_mmap(s.w.mm, BASE + p.at, BASE + p.at + p.length, flags))
		set_mapping(p, MODEL_RW, flags & MODEL_SHARED);
	else
		must(s.failing);
}

static void op_unmap(void)
{
	struct span p = take_pages(100);

	if (!model_munmap(s.w.mm, BASE + p.at, BASE + p.at + p.length))
		set_mapping(p, 0, false);
	else
		must(s.failing);
}

static void op_protect(void)
{
	struct span p = take_pages(PAGES);
	u32 prot = input_byte(&s.in) & 1 ? MODEL_READ : MODEL_RW;

	if (!(allowed(p) & MODEL_READ))
		return;
	if (!model_mprotect(s.w.mm, BASE + p.at, BASE + p.at + p.length, prot))
		memset(s.prot + p.at / PAGE, (int)prot, p.length / PAGE);
	else
		must(s.failing);
}

static void op_discard(void)
{
	bool reap = input_byte(&s.in) & 1;
	struct span p = take_pages(PAGES);
	int err;

	for (u64 i = p.at / PAGE; i < (p.at + p.length) / PAGE; i++)
		if (s.shared[i])
			return; /* its bytes would stay */
	err = reap ? model_reap(s.w.mm, BASE + p.at, BASE + p.at + p.length)
		   : model_dontneed(s.w.mm, BASE + p.at, BASE + p.at + p.length);
	must(!err || err == -EAGAIN || s.failing);
	if (!err)
		memset(s.bytes + p.at, 0, p.length);
}

static void op_remap(void)
{
	bool stays = input_byte(&s.in) & 1;
	struct span p = take_pages(PAGES), to = {input_below(&s.in, PAGES) * PAGE, 0};
	u64 first = p.at / PAGE, there;
	int err;

	to.length = p.length = host_min(p.length, WINDOW - to.at);
	there = to.at / PAGE;
	if (to.at < p.at + p.length && p.at < to.at + to.length)
		return;
	for (u64 i = 0; i < p.length / PAGE; i++)
		if (!s.prot[first + i])
			return;
	err = model_mremap(s.w.mm, BASE + p.at, BASE + p.at + p.length, BASE + to.at, stays);
	if (err) {
		must(s.failing);
		return;
	}
	for (u64 i = 0; i < p.length / PAGE; i++) {
		/* The bytes of shared memory are the mapping's that moved. */
		memcpy(s.bytes + to.at + i * PAGE, s.bytes + p.at + i * PAGE, PAGE);
		memset(s.bytes + p.at + i * PAGE, 0, PAGE);
		s.prot[there + i] = s.prot[first + i];
		s.shared[there + i] = s.shared[first + i];
		if (!stays) {
			s.prot[first + i] = 0;
			s.shared[first + i] = false;
		}
	}
}

static void check_all(struct mm *mm)
{
	for (u64 i = 0; i < PAGES; i++) {
		u8 page[PAGE];

		if (!(s.prot[i] & MODEL_READ))
			continue;
		must(model_cpu_read(mm, BASE + i * PAGE, page, PAGE) == 0);
		must(!memcmp(page, s.bytes + i * PAGE, PAGE));
	}
}

static void op_fork(void)
{
	struct mm *child;
	int err;

	gpusvm_driver_pause(s.w.driver);
	err = model_fork(s.w.mm, &child);
	gpusvm_driver_resume(s.w.driver);
	if (err) {
		must(s.failing);
		return;
	}
	if (!s.failing)
		check_all(child);
	must(!model_check(child, true));
	model_mm_destroy(child);
}

/* ---- What goes wrong -------------------------------------------------------------------- */

static void op_fail(void)
{
	unsigned site = input_byte(&s.in) % (MODEL_SITES + 1), skip = input_byte(&s.in);

	s.failing = true;
	if (site < MODEL_SITES)
		model_fail(s.w.mm, site, skip % 32, 1 + skip / 32);
	else
		host_posix_fail_alloc_at(1 + skip);
}

static void op_pin(void)
{
	u64 at = input_below(&s.in, PAGES);

	if (s.pin) {
		model_unpin(s.pin);
		s.pin = NULL;
	} else if (s.prot[at] & MODEL_WRITE) {
		must(!model_pin(s.w.mm, BASE + at * PAGE, &s.pin) || s.failing);
	}
}

/* Pages that are busy all the time, for one prefetch; once, since everyone tries long. */
static void op_busy(void)
{
	struct gpusvm_migrate_result moved;
	struct span p = take_pages(8);
	int to = (int)(input_byte(&s.in) % 2);

	if (s.was_busy)
		return;
	s.was_busy = true;
	model_set_busy(s.w.mm, BASE + p.at, BASE + p.at + p.length, true);
	(void)gpusvm_driver_prefetch(s.w.driver, BASE, BASE + WINDOW, to, false, &moved);
	model_set_busy(s.w.mm, BASE + p.at, BASE + p.at + p.length, false);
}

static void (*const operations[])(void) = {
    op_write,	 op_read,     op_write, op_read, op_set,    op_add,	  op_copy, op_touch,
    op_prefetch, op_prefetch, op_evict, op_bind, op_remove, op_advise,	  op_map,  op_unmap,
    op_protect,	 op_discard,  op_remap, op_fork, op_fail,   stop_failing, op_pin,  op_busy,
};

static void open_world(void)
{
	unsigned how = input_byte(&s.in);

	s.failing = s.advised = s.was_busy = false;
	s.gone = 0;
	s.pin = NULL;
	world_open(&s.w);
	add_device(&s.w, how & 1 ? 4 * MiB : 2 * MiB, 0);
	add_device(&s.w, 4 * MiB, 0);
	add_device(&s.w, 0, GPUSVM_DEVICE_NO_VRAM);
	map(&s.w, BASE, WINDOW, MODEL_RW | (how & 2 ? MODEL_THP : 0));
	set_mapping((struct span){0, WINDOW}, MODEL_RW, false);
}

static void run_input(void *unused)
{
	open_world();
	for (unsigned i = 0; i < OPERATIONS && input_left(&s.in); i++) {
		operations[input_byte(&s.in) % host_array_size(operations)]();
		sched_progress();
	}
	stop_failing();
	if (s.pin)
		model_unpin(s.pin);
	must(!model_check(s.w.mm, false));
	check_all(s.w.mm);
	world_close(&s.w); /* fails where anything is left */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sched_outcome outcome;
	struct sched_options options = {
	    .seed = size ? data[0] >> 2 : 0,
	    .max_points = ~(u64)0,
	    .poison = true,
	    .work = true,
	};

	if (!s.pattern[1])
		for (u64 k = 0; k < sizeof(s.pattern); k++)
			s.pattern[k] = (u8)(k * 7 + (k >> 8));
	options.kind = options.seed ? SCHED_RANDOM : SCHED_REPLAY;
	s.in = (struct input){data, data + size};
	sched_run(&options, run_input, NULL, &outcome);
	if (outcome.result != SCHED_OK)
		fprintf(stderr, "%s: %s\n", sched_result_name(outcome.result), outcome.text);
	must(outcome.result == SCHED_OK);
	return 0;
}
