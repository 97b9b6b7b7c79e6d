/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* home_model.c: the model as the home under test. */
#include "tests/host/home.h"

#include "host/model/model.h"
#include "host/posix/posix.h"

const char *const home_name = "model";

struct mm *home_open(const char **why)
{
	*why = "no memory";
	return host_work_start() ? NULL : model_mm_create();
}

const char *home_close(struct mm *home)
{
	const char *wrong = model_check(home, true);

	model_mm_destroy(home);
	host_work_stop();
	if (!wrong && model_frames_live())
		wrong = "frames are left";
	return wrong;
}

const char *home_check(struct mm *home)
{
	return model_check(home, true);
}

void home_catch(void)
{
}

static u32 model_flags(u32 flags)
{
	return (flags & HOME_READ ? MODEL_READ : 0) | (flags & HOME_WRITE ? MODEL_WRITE : 0) |
	       (flags & HOME_SHARED ? MODEL_SHARED : 0) | (flags & HOME_FILE ? MODEL_FILE : 0) |
	       (flags & HOME_HUGE ? MODEL_THP : 0);
}

int home_mmap(struct mm *home, u64 start, u64 end, u32 flags)
{
	return model_mmap(home, start, end, model_flags(flags));
}

int home_munmap(struct mm *home, u64 start, u64 end)
{
	return model_munmap(home, start, end);
}

int home_mremap(struct mm *home, u64 start, u64 end, u64 to, bool dontunmap)
{
	return model_mremap(home, start, end, to, dontunmap);
}

int home_mprotect(struct mm *home, u64 start, u64 end, u32 flags)
{
	return model_mprotect(home, start, end, model_flags(flags));
}

int home_dontneed(struct mm *home, u64 start, u64 end)
{
	return model_dontneed(home, start, end);
}

int home_fork(struct mm *home, u64 address, void *buffer, u64 length)
{
	struct mm *child;
	u8 *junk;
	int err = model_fork(home, &child);

	if (err)
		return err;
	err = model_cpu_read(child, address, buffer, length);
	junk = test_malloc(length);
	memset(junk, 0xff, length);
	if (!err)
		err = model_cpu_write(child, address, junk, length);
	test_free(junk);
	if (model_check(child, true))
		err = -EIO;
	model_mm_destroy(child);
	return err;
}

int home_load(struct mm *home, u64 address, void *buffer, u64 length)
{
	return model_cpu_read(home, address, buffer, length);
}

int home_store(struct mm *home, u64 address, const void *buffer, u64 length)
{
	return model_cpu_write(home, address, buffer, length);
}

int home_add(struct mm *home, u64 address, u64 operand)
{
	return model_cpu_add(home, address, operand);
}

int home_pin(struct mm *home, u64 address, void **pin)
{
	return model_pin(home, address, (struct model_frame **)pin);
}

void home_unpin(void *pin)
{
	model_unpin(pin);
}

int home_reap(struct mm *home, u64 start, u64 end)
{
	return model_reap(home, start, end);
}

int home_exit(struct mm *home)
{
	model_mm_exit(home);
	return 0;
}
