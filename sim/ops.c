/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * ops.c: what actors do. Each says what it does (sched_note), does it, and holds
 * its result against the oracle: data, and whether an error had a cause.
 *
 * The stores of mapping operations: munmap, mmap and MADV_DONTNEED store 0 in each
 * word, some time while they run.
 */
#include "sim/private.h"

#include <stdio.h>
#include <string.h>

#define HANG (60 * HOST_SEC) /* a job that takes longer never ends */

static u64 page_va(const struct sim *s, u32 page)
{
	return SIM_BASE + (u64)(s->watched + page) * HOST_PAGE_SIZE;
}

static u64 word_va(const struct sim *s, u32 page, u32 word)
{
	return page_va(s, page) + word * (HOST_PAGE_SIZE / SIM_WORDS) + 16;
}

static int real_device(const struct sim *s, int device)
{
	return device < 0 ? -1 : (int)((u32)device % s->n_devices);
}

/* What it has not bound it cannot reach: only binds are for it. */
static bool cannot_fault(const struct sim *s, int device)
{
	return device >= 0 && driver_no_fault(s->driver->devices[device]);
}

static const char *who(int device)
{
	static const char *const names[] = {"CPU", "gpu0", "gpu1", "gpu2", "gpu3"};

	return names[device + 1];
}

/* ---- What went wrong had a cause? ------------------------------------------------ */

/* May the page's mapping have been without this right, since load_begin? */
static bool may_lack(const struct sim *s, u32 reader, u32 page, u32 right)
{
	static const u32 possible[] = {0, MODEL_READ, MODEL_RW};

	for (u32 i = 0; i < host_array_size(possible); i++)
		if (!(possible[i] & right) &&
		    oracle_allows(&s->oracle, &s->mapping[page], reader, possible[i]))
			return true;
	return false;
}

/* An error of an access to [page, page + n), or of moving it. */
static void check_error(struct sim_actor *a, const char *what, int err, int device, u32 page, u32 n,
			bool write)
{
	struct sim *s = a->sim;

	if (!err)
		return;
	if (s->exiting && (err == -EFAULT || err == -ENODEV || err == -EIO))
		return;
	if (err == -ENODEV && device >= 0 && s->devices[device].removing)
		return;
	if (s->failures && (err == -ENOMEM || err == -EIO || err == -EFAULT || err == -EBUSY ||
			    err == -ENOSPC || err == -EPERM))
		return;
	if (err == -EFAULT || err == -EPERM)
		for (u32 i = page; i < page + n && i < SIM_WATCHED; i++)
			if (may_lack(s, a->index, i, write ? MODEL_WRITE : MODEL_READ))
				return;
	sched_fail(SCHED_LAW, "laws 6 and 9: %s of pages [%u, %u) by %s failed without a cause: %d",
		   what, page, page + n, who(device), err);
}

static void begin(struct sim_actor *a)
{
	oracle_load_begin(&a->sim->oracle, a->index);
}

static void end(struct sim_actor *a)
{
	oracle_load_end(&a->sim->oracle, a->index);
	sched_progress();
}

/* ---- Jobs ----------------------------------------------------------------------------- */

static int run_job(struct sim_actor *a, int device, struct gpusvm_command command)
{
	struct gpusvm_job job = {.command = command, .contained = true};
	struct gpusvm_fence done;
	int result = 1;

	gpusvm_fence_init(&done, NULL);
	job.done = &done;
	gpusvm_driver_submit(a->sim->devices[device].queue, &job);
	if (gpusvm_fence_wait(&done, host_now() + HANG, &result))
		sched_fail(SCHED_LIVELOCK, "law 6: a job on %s takes more than a virtual minute",
			   who(device));
	gpusvm_fence_fini(&done);
	return result;
}

static int access_word(struct sim_actor *a, int device, u64 va, u64 *word, bool write)
{
	struct gpusvm_command command = {
	    .type = write ? GPUSVM_COMMAND_WRITE : GPUSVM_COMMAND_READ,
	    .va = va,
	    .length = 8,
	    .buffer = word,
	};

	if (device >= 0)
		return run_job(a, device, command);
	return write ? model_cpu_write(a->sim->mm, va, word, 8)
		     : model_cpu_read(a->sim->mm, va, word, 8);
}

/* ---- Loads and stores --------------------------------------------------------------------- */

static void check_word(struct sim *s, const char *by, u32 reader, u32 page, u32 word, u64 value)
{
	char allowed[400];

	if (oracle_allows(&s->oracle, &s->words[page][word], reader, value))
		return;
	oracle_say(&s->oracle, &s->words[page][word], reader, allowed, sizeof(allowed));
	sched_fail(SCHED_LAW, "law 1, no lost write: page %u word %u read by %s is %#llx, not %s",
		   page, word, by, (unsigned long long)value, allowed);
}

void op_load(struct sim_actor *a, int device, u32 page, u32 word)
{
	struct sim *s = a->sim;
	u64 value = 0;
	int err;

	device = real_device(s, device);
	if (cannot_fault(s, device))
		return;
	begin(a);
	sched_note("%s loads page %u word %u", who(device), page, word);
	err = access_word(a, device, word_va(s, page, word), &value, false);
	sched_note("%s has loaded page %u word %u: %#llx (%d)", who(device), page, word,
		   (unsigned long long)value, err);
	if (err)
		check_error(a, "a load", err, device, page, 1, false);
	else
		check_word(s, who(device), a->index, page, word, value);
	end(a);
}

void op_store(struct sim_actor *a, int device, u32 page, u32 word)
{
	struct sim *s = a->sim;
	u64 value = ++s->values << 8 | (a->index + 1);
	u32 store;
	int err;

	device = real_device(s, device);
	if (cannot_fault(s, device))
		return;
	begin(a);
	store = oracle_store_begin(&s->oracle, &s->words[page][word], value);
	sched_note("%s stores page %u word %u = %#llx", who(device), page, word,
		   (unsigned long long)value);
	err = access_word(a, device, word_va(s, page, word), &value, true);
	sched_note("%s has stored page %u word %u (%d)", who(device), page, word, err);
	check_error(a, "a store", err, device, page, 1, true);
	oracle_store_end(&s->oracle, &s->words[page][word], store, !err);
	end(a);
}

/* Stores of one operation to all words of [page, page + n). */
struct stores {
	u32 page, n;
	u32 word[SIM_WATCHED][SIM_WORDS], mapping[SIM_WATCHED];
};

static void stores_begin(struct sim *s, struct stores *st, u32 page, u32 n, u64 value)
{
	st->page = page;
	st->n = page >= SIM_WATCHED ? 0 : host_min(n, SIM_WATCHED - page);
	for (u32 i = 0; i < st->n; i++)
		for (u32 k = 0; k < SIM_WORDS; k++)
			st->word[i][k] =
			    oracle_store_begin(&s->oracle, &s->words[page + i][k], value);
}

static void stores_end(struct sim *s, struct stores *st, bool sure)
{
	for (u32 i = 0; i < st->n; i++)
		for (u32 k = 0; k < SIM_WORDS; k++)
			oracle_store_end(&s->oracle, &s->words[st->page + i][k], st->word[i][k],
					 sure);
}

void op_set(struct sim_actor *a, int device, u32 page)
{
	struct sim *s = a->sim;
	u8 byte = (u8)(1 + ++s->values % 255);
	struct gpusvm_command command = {
	    .type = GPUSVM_COMMAND_SET,
	    .va = page_va(s, page),
	    .length = HOST_PAGE_SIZE,
	    .byte = byte,
	};
	struct stores st;
	int err;

	device = real_device(s, device);
	if (cannot_fault(s, device))
		return;
	begin(a);
	stores_begin(s, &st, page, 1, byte * 0x0101010101010101ull);
	sched_note("%s fills page %u with %#x", who(device), page, byte);
	err = run_job(a, device, command);
	sched_note("%s has filled page %u (%d)", who(device), page, err);
	check_error(a, "a fill", err, device, page, 1, true);
	stores_end(s, &st, !err);
	end(a);
}

void op_touch(struct sim_actor *a, int device, u32 page, u32 n, bool write)
{
	struct sim *s = a->sim;
	struct gpusvm_command command = {
	    .type = GPUSVM_COMMAND_TOUCH,
	    .va = page_va(s, page),
	    .length = n * HOST_PAGE_SIZE,
	    .access = write ? GPUSVM_ACCESS_WRITE : GPUSVM_ACCESS_READ,
	};
	int err;

	device = real_device(s, device);
	if (cannot_fault(s, device))
		return;
	begin(a);
	sched_note("%s touches pages [%u, %u)", who(device), page, page + n);
	err = run_job(a, device, command);
	sched_note("%s has touched pages [%u, %u) (%d)", who(device), page, page + n, err);
	check_error(a, "a touch", err, device, page, n, write);
	end(a);
}

/* ---- Counters ------------------------------------------------------------------------------- */

static u64 counter_va(const struct sim *s, u32 page)
{
	return page_va(s, page) + HOST_PAGE_SIZE / 2 + 512; /* between words */
}

/* One that failed has not happened. */
void op_add(struct sim_actor *a, int device, u32 page)
{
	struct sim *s = a->sim;
	struct gpusvm_command command = {
	    .type = GPUSVM_COMMAND_ATOMIC,
	    .va = counter_va(s, page),
	    .atomic = {.op = GPUSVM_OP_ADD, .width = 8, .operand = 1},
	};
	int err;

	device = real_device(s, device);
	if (cannot_fault(s, device))
		return;
	begin(a);
	sched_note("%s adds to page %u", who(device), page);
	err = device >= 0 ? run_job(a, device, command)
			  : model_cpu_add(s->mm, counter_va(s, page), 1);
	sched_note("%s has added to page %u (%d)", who(device), page, err);
	/* A page that is pinned cannot be taken. */
	if (err != -EPERM)
		check_error(a, "an addition", err, device, page, 1, true);
	s->added[page] += !err;
	end(a);
}

void op_count_all(struct sim *s)
{
	for (u32 page = 0; page < host_min(s->pages, SIM_WATCHED); page++) {
		u64 value;

		if (!s->added[page] || model_cpu_read(s->mm, counter_va(s, page), &value, 8))
			continue;
		if (value != s->added[page])
			sched_fail(SCHED_LAW, "law 1, no lost write: page %u counts %llu, not %llu",
				   page, (unsigned long long)value,
				   (unsigned long long)s->added[page]);
	}
}

void op_make_exclusive(struct sim_actor *a, int device, u32 page, u32 n)
{
	struct sim *s = a->sim;
	int err;

	device = real_device(s, device);
	begin(a);
	sched_note("%s takes pages [%u, %u)", who(device), page, page + n);
	err = gpusvm_driver_make_exclusive(s->devices[device].queue, page_va(s, page),
					   page_va(s, page + n));
	sched_note("%s has taken pages [%u, %u) (%d)", who(device), page, page + n, err);
	if (err != -EBUSY) /* pinned, or others take it all the time */
		check_error(a, "taking", err, device, page, n, true);
	end(a);
}

/* ---- Mappings -------------------------------------------------------------------------------- */

/* protect: holes stay holes. No scenario has two that change mappings. */
static void mapping_begin(struct sim_actor *a, struct stores *st, u32 rights, bool protect)
{
	struct sim *s = a->sim;

	for (u32 i = 0; i < st->n; i++) {
		struct oracle_word *mapping = &s->mapping[st->page + i];
		bool hole = protect && oracle_allows(&s->oracle, mapping, a->index, 0);

		st->mapping[i] = oracle_store_begin(&s->oracle, mapping, hole ? 0 : rights);
	}
}

static void mapping_end(struct sim *s, struct stores *st, bool sure)
{
	for (u32 i = 0; i < st->n; i++)
		oracle_store_end(&s->oracle, &s->mapping[st->page + i], st->mapping[i], sure);
}

static void check_mapping_error(struct sim_actor *a, const char *what, int err)
{
	struct sim *s = a->sim;

	if (!err || (s->exiting && err == -EFAULT) || (s->failures && err == -ENOMEM))
		return;
	sched_fail(SCHED_LAW, "%s failed: %d", what, err);
}

enum change { CHANGE_UNMAP, CHANGE_MAP, CHANGE_CLEAR, CHANGE_PROTECT };

static const char *const change_names[] = {"munmap", "mmap", "madvise(DONTNEED)", "mprotect"};

static void change(struct sim_actor *a, enum change which, u32 page, u32 n, u32 flags)
{
	struct sim *s = a->sim;
	u64 from = page_va(s, page), to = page_va(s, page + n);
	struct stores st = {.page = page};
	int err;

	begin(a);
	if (which != CHANGE_PROTECT)
		stores_begin(s, &st, page, n, 0);
	else
		st.n = page >= SIM_WATCHED ? 0 : host_min(n, SIM_WATCHED - page);
	if (which != CHANGE_CLEAR)
		mapping_begin(a, &st, which == CHANGE_UNMAP ? 0 : flags & MODEL_RW,
			      which == CHANGE_PROTECT);
	sched_note("%s of pages [%u, %u)", change_names[which], page, page + n);
	switch (which) {
	case CHANGE_UNMAP:
		err = model_munmap(s->mm, from, to);
		break;
	case CHANGE_MAP:
		err = model_mmap(s->mm, from, to, flags);
		break;
	case CHANGE_CLEAR:
		err = model_dontneed(s->mm, from, to);
		break;
	default:
		err = model_mprotect(s->mm, from, to, flags);
	}
	sched_note("%s of pages [%u, %u) is over (%d)", change_names[which], page, page + n, err);
	check_mapping_error(a, change_names[which], err);
	if (which != CHANGE_CLEAR)
		mapping_end(s, &st, !err);
	if (which != CHANGE_PROTECT)
		stores_end(s, &st, !err);
	end(a);
}

void op_munmap(struct sim_actor *a, u32 page, u32 n)
{
	change(a, CHANGE_UNMAP, page, n, 0);
}

void op_mmap(struct sim_actor *a, u32 page, u32 n, u32 flags)
{
	change(a, CHANGE_MAP, page, n, flags);
}

void op_dontneed(struct sim_actor *a, u32 page, u32 n)
{
	change(a, CHANGE_CLEAR, page, n, 0);
}

void op_mprotect(struct sim_actor *a, u32 page, u32 n, u32 flags)
{
	change(a, CHANGE_PROTECT, page, n, flags);
}

/* As the runtime does it: no device writes while the child is made. */
void op_fork(struct sim_actor *a)
{
	struct sim *s = a->sim;
	struct mm *child;
	int err;

	begin(a);
	sched_note("fork");
	gpusvm_driver_pause(s->driver);
	err = model_fork(s->mm, &child);
	gpusvm_driver_resume(s->driver);
	sched_note("fork is over (%d)", err);
	check_mapping_error(a, "fork", err == -EIO && s->failures ? -ENOMEM : err);
	for (u32 page = 0; !err && page < SIM_WATCHED; page++) {
		for (u32 k = 0; k < SIM_WORDS; k++) {
			u64 value;

			if (!model_cpu_read(child, word_va(s, page, k), &value, 8))
				check_word(s, "a child", a->index, page, k, value);
		}
	}
	if (!err)
		model_mm_destroy(child);
	end(a);
}

/* ---- Moving -------------------------------------------------------------------------------------
 */

void op_prefetch(struct sim_actor *a, u32 page, u32 n, int to)
{
	struct sim *s = a->sim;
	struct gpusvm_migrate_result moved;
	int err;

	to = real_device(s, to);
	begin(a);
	sched_note("prefetch of pages [%u, %u) to %s", page, page + n, to < 0 ? "system" : who(to));
	err = gpusvm_driver_prefetch(s->driver, page_va(s, page), page_va(s, page + n),
				     to < 0 ? DRIVER_SYSTEM : to, false, &moved);
	sched_note("prefetch of pages [%u, %u) is over: %llu moved (%d)", page, page + n,
		   (unsigned long long)moved.moved, err);
	check_error(a, "a prefetch", err, to, page, n, false);
	if (!err && moved.moved + moved.already + moved.stayed + moved.holes != n)
		sched_fail(
		    SCHED_LAW, "a prefetch of %u pages counts %llu", n,
		    (unsigned long long)(moved.moved + moved.already + moved.stayed + moved.holes));
	end(a);
}

void op_evict(struct sim_actor *a, int device)
{
	struct sim *s = a->sim;
	int err;

	device = real_device(s, device);
	begin(a);
	sched_note("eviction of %s", who(device));
	err = gpusvm_driver_evict(s->driver, device, DRIVER_CAUSE_EVICTION);
	sched_note("eviction of %s is over (%d)", who(device), err);
	if (err != -EBUSY) /* others keep filling it */
		check_error(a, "an eviction", err, device, 0, 0, false);
	end(a);
}

/* No page may be on the device: also where no range knows of it any more (law 4). */
static void check_left(struct sim *s, int device, const char *what)
{
	const void *owners[SIM_WATCHED];
	u64 from = page_va(s, 0);

	if (s->exiting)
		return;
	sched_quiet(1);
	if (!model_is_locked(s->mm)) {
		mm_page_owners(s->mm, from, from + SIM_WATCHED * HOST_PAGE_SIZE, owners);
		for (u32 i = 0; i < SIM_WATCHED; i++)
			if (owners[i] && owners[i] == s->devices[device].pagemap) {
				char text[80];

				snprintf(text, sizeof(text), what, device);
				sched_fail(SCHED_LAW, "%s page %u", text, i);
			}
	}
	sched_quiet(-1);
}

/* No range may have addresses mapped for the device. */
static void check_unmapped(struct sim *s, int device)
{
	struct gpusvm_mirror *mirror = &s->driver->mirror;
	struct gpusvm_range *base;
	struct driver_pages *dp;

	gpusvm_notifier_lock(mirror);
	gpusvm_for_each_range(base, mirror, 0, (u64)1 << 48) driver_for_each_pages(
	    dp, driver_range_of(base)) if (dp->device->index == device &&
					   (host_read_once(&dp->pages.flags) & GPUSVM_PAGES_MAPPED))
	    sched_fail(SCHED_LAW,
		       "law 10, revocable: gpu%d is unbound, and addresses "
		       "are mapped for it",
		       device);
	gpusvm_notifier_unlock(mirror);
}

void op_unbind(struct sim_actor *a, int device)
{
	struct sim *s = a->sim;
	int err;

	device = real_device(s, device);
	if (s->devices[device].removing)
		return;
	begin(a);
	s->devices[device].removing = true;
	sched_note("unbinding of %s", who(device));
	err = gpusvm_driver_device_remove(s->driver, device);
	s->devices[device].removed = true;
	sched_note("unbinding of %s is over (%d)", who(device), err);
	if (err && !s->exiting && !s->failures)
		sched_fail(SCHED_LAW, "law 10, revocable: unbinding failed: %d", err);
	if (!err)
		check_left(s, device, "law 10, revocable: gpu%d is unbound, and has");
	check_unmapped(s, device);
	end(a);
}

void op_shrink(struct sim_actor *a)
{
	begin(a);
	sched_note("what is idle is given back");
	(void)host_shrink();
	sched_note("giving back is over");
	end(a);
}

void op_pin(struct sim_actor *a, u32 page, u32 word)
{
	struct sim *s = a->sim;
	struct model_frame *pin;
	u64 value;
	int err;

	begin(a);
	sched_note("a pin of page %u", page);
	err = model_pin(s->mm, page_va(s, page), &pin);
	check_error(a, "a pin", err, -1, page, 1, true);
	if (!err) {
		/* What the kernel does with it comes from the mapping's bytes. */
		host_sleep(HOST_USEC);
		memcpy(&value, (u8 *)model_pin_bytes(pin) + word_va(s, page, word) % HOST_PAGE_SIZE,
		       8);
		if (!may_lack(s, a->index, page, MODEL_READ) &&
		    oracle_allows(&s->oracle, &s->mapping[page], a->index, MODEL_RW))
			check_word(s, "a pin", a->index, page, word, value);
		model_unpin(pin);
	}
	sched_note("the pin of page %u is over (%d)", page, err);
	end(a);
}

void op_swap(struct sim_actor *a, u32 page)
{
	struct sim *s = a->sim;
	int err;

	begin(a);
	sched_note("page %u is swapped out", page);
	err = model_swap_out(s->mm, page_va(s, page));
	sched_note("page %u is in swap (%d)", page, err);
	end(a);
}

void op_exit(struct sim_actor *a)
{
	struct sim *s = a->sim;

	if (s->exiting)
		return;
	begin(a);
	s->exiting = true;
	sched_note("the process exits");
	model_mm_exit(s->mm);
	s->exited = true;
	sched_note("the process has exited");
	end(a);
}

void op_bind(struct sim_actor *a, int device, u32 page, u32 n)
{
	struct sim *s = a->sim;
	int err;

	device = real_device(s, device);
	begin(a);
	sched_note("%s binds pages [%u, %u)", who(device), page, page + n);
	err = gpusvm_driver_bind(s->devices[device].queue, page_va(s, page), page_va(s, page + n),
				 false);
	sched_note("%s has bound pages [%u, %u) (%d)", who(device), page, page + n, err);
	check_error(a, "a bind", err, device, page, n, true);
	end(a);
}

void op_unbind_interval(struct sim_actor *a, int device, u32 page, u32 n)
{
	struct sim *s = a->sim;
	int err;

	device = real_device(s, device);
	begin(a);
	sched_note("%s lets pages [%u, %u) go", who(device), page, page + n);
	err =
	    gpusvm_driver_unbind(s->devices[device].queue, page_va(s, page), page_va(s, page + n));
	if (err != -ENOENT)
		check_error(a, "letting go", err, device, page, n, false);
	end(a);
}

void op_advise(struct sim_actor *a, u32 page, u32 n, int advice, s64 value, int where)
{
	struct sim *s = a->sim;
	int err;

	begin(a);
	sched_note("advice %d = %lld, %d for pages [%u, %u)", advice, (long long)value, where, page,
		   page + n);
	err = gpusvm_driver_advise(s->driver, page_va(s, page), page_va(s, page + n),
				   (enum gpusvm_advice)advice, value, where);
	sched_note("advice for pages [%u, %u) is over (%d)", page, page + n, err);
	if (err == -ENOENT) /* a hole */
		err = -EFAULT;
	check_error(a, "advice", err, -1, page, n, false);
	end(a);
}

void op_link(struct sim_actor *a, int from, int to, bool on)
{
	struct gpusvm_interconnect_link link = {.flags = GPUSVM_LINK_MAP | GPUSVM_LINK_COPY};
	struct sim *s = a->sim;
	int err;

	begin(a);
	sched_note("the link from %s to %s is %s", who(from), who(to), on ? "made" : "lost");
	err = gpusvm_driver_link_set(s->driver, from, to, on ? &link : NULL);
	sched_note("the link from %s to %s: (%d)", who(from), who(to), err);
	if (err && !(s->failures && err == -ENOMEM) &&
	    !(err == -ENODEV && (s->devices[from].removing || s->devices[to].removing)))
		sched_fail(SCHED_LAW, "a link cannot be %s: %d", on ? "made" : "lost", err);
	end(a);
}

/* What the word holds for certain, or 0 and false. */
static bool certain(const struct sim *s, u32 reader, const struct oracle_word *w, u64 *value)
{
	u32 found = 0;

	for (u32 i = 0; i < ORACLE_STORES; i++) {
		if (!w->stores[i].begin ||
		    !oracle_allows(&s->oracle, w, reader, w->stores[i].value))
			continue;
		found += !found || *value != w->stores[i].value;
		*value = w->stores[i].value;
	}
	return found == 1;
}

/* Are they mapped, and is every word known? Not so after an operation that failed. */
static bool certain_pages(struct sim_actor *a, u32 page, u32 n)
{
	struct sim *s = a->sim;
	u64 value;

	for (u32 i = page; i < page + n; i++) {
		if (!certain(s, a->index, &s->mapping[i], &value) || value != MODEL_RW)
			return false;
		for (u32 k = 0; k < SIM_WORDS; k++)
			if (!certain(s, a->index, &s->words[i][k], &value))
				return false;
	}
	return true;
}

/* Both intervals are the actor's alone: no one else stores or changes mappings. */
void op_mremap(struct sim_actor *a, u32 page, u32 n, u32 to)
{
	struct sim *s = a->sim;
	struct stores from_st = {.page = page, .n = n}, to_st = {.page = to, .n = n};
	u64 value;
	int err;

	begin(a);
	if (!certain_pages(a, page, n)) {
		end(a);
		return;
	}
	for (u32 i = 0; i < n; i++) {
		for (u32 k = 0; k < SIM_WORDS; k++) {
			(void)certain(s, a->index, &s->words[page + i][k], &value);
			to_st.word[i][k] =
			    oracle_store_begin(&s->oracle, &s->words[to + i][k], value);
			from_st.word[i][k] =
			    oracle_store_begin(&s->oracle, &s->words[page + i][k], 0);
		}
	}
	mapping_begin(a, &from_st, 0, false);
	mapping_begin(a, &to_st, MODEL_RW, false);
	sched_note("mremap of pages [%u, %u) to %u", page, page + n, to);
	err = model_mremap(s->mm, page_va(s, page), page_va(s, page + n), page_va(s, to), false);
	sched_note("mremap of pages [%u, %u) is over (%d)", page, page + n, err);
	check_mapping_error(a, "mremap", err);
	mapping_end(s, &from_st, !err);
	mapping_end(s, &to_st, !err);
	stores_end(s, &from_st, !err);
	stores_end(s, &to_st, !err);
	end(a);
}

void op_load_all(struct sim *s)
{
	u32 reader = ORACLE_READERS - 1;

	oracle_load_begin(&s->oracle, reader);
	for (u32 page = 0; page < SIM_WATCHED; page++) {
		if (!oracle_allows(&s->oracle, &s->mapping[page], reader, MODEL_RW) &&
		    !oracle_allows(&s->oracle, &s->mapping[page], reader, MODEL_READ))
			continue;
		for (u32 k = 0; k < SIM_WORDS; k++) {
			u64 value;
			int err = model_cpu_read(s->mm, word_va(s, page, k), &value, 8);

			if (!err)
				check_word(s, "the last look", reader, page, k, value);
			else if (!s->exited && !s->failures &&
				 !may_lack(s, reader, page, MODEL_READ))
				sched_fail(SCHED_LAW, "page %u cannot be read at the end: %d", page,
					   err);
		}
	}
	oracle_load_end(&s->oracle, reader);
}
