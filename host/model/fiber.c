/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fiber.c: contexts of execution within one thread: a stack each, and a switch
 * that saves what the calling convention says a function preserves. Own assembly
 * for x86-64 and AArch64: swapcontext() makes two system calls a switch.
 *
 * Stacks lie above a guard page and are used again. One thread; no locks.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host/model/sched_internal.h"

#include <sys/mman.h>

#ifdef SCHED_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_SIZE ((size_t)512 << 10)
#else
#define STACK_SIZE ((size_t)128 << 10)
#endif

static struct fiber_stack *free_stacks;

struct fiber_stack *fiber_stack_get(void)
{
	struct fiber_stack *stack = free_stacks;
	char *p;

	if (stack) {
		free_stacks = stack->next;
#ifdef SCHED_ASAN
		/* Of frames that were abandoned. */
		__asan_unpoison_memory_region(stack->low, stack->size);
#endif
		return stack;
	}
	p = mmap(NULL, STACK_SIZE + HOST_PAGE_SIZE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (mprotect(p, HOST_PAGE_SIZE, PROT_NONE)) {
		munmap(p, STACK_SIZE + HOST_PAGE_SIZE);
		return NULL;
	}
	/* Its description lies at the far end of the stack itself. */
	stack = (struct fiber_stack *)(void *)(p + STACK_SIZE + HOST_PAGE_SIZE - 64);
	stack->low = p + HOST_PAGE_SIZE;
	stack->size = STACK_SIZE - 64;
	return stack;
}

void fiber_stack_put(struct fiber_stack *stack)
{
	stack->next = free_stacks;
	free_stacks = stack;
}

/* Saves the registers and the stack pointer at *save, goes on with load. */
void fiber_jump(void **save, void *load) __attribute__((visibility("hidden")));

#if defined(__x86_64__)
__asm__(".text\n"
	".hidden fiber_jump\n"
	".globl fiber_jump\n"
	".type fiber_jump, @function\n"
	"fiber_jump:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size fiber_jump, . - fiber_jump\n");
#define RETURN_TO 6u
#define FRAME 8u /* words: the stack is as after a call */
#elif defined(__aarch64__)
__asm__(".text\n"
	".hidden fiber_jump\n"
	".globl fiber_jump\n"
	".type fiber_jump, %function\n"
	"fiber_jump:\n"
	"	sub sp, sp, #160\n"
	"	stp x19, x20, [sp]\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n"
	"	ldp x19, x20, [sp]\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #160\n"
	"	ret\n"
	".size fiber_jump, . - fiber_jump\n");
#define RETURN_TO 11u
#define FRAME 20u
#else
#error "no switch of contexts for this processor"
#endif

void fiber_make(struct fiber_context *context, struct fiber_stack *stack, void (*fn)(void))
{
	u64 *frame = (u64 *)(void *)(stack->low + stack->size) - FRAME;

	for (unsigned i = 0; i < FRAME; i++)
		frame[i] = 0;
	frame[RETURN_TO] = (u64)(uintptr_t)fn;
	context->sp = frame;
	context->stack = stack;
	context->fake = NULL;
}

#ifdef SCHED_ASAN
/* The thread's own stack: the first fiber ever is entered from there. */
static const void *root_low;
static size_t root_size;

static void switch_begins(struct fiber_context *from, const struct fiber_context *to)
{
	__sanitizer_start_switch_fiber(from ? &from->fake : NULL,
				       to->stack ? to->stack->low : root_low,
				       to->stack ? to->stack->size : root_size);
}

static void switch_ends(struct fiber_context *to)
{
	__sanitizer_finish_switch_fiber(to ? to->fake : NULL, NULL, NULL);
}

void fiber_entered(void)
{
	__sanitizer_finish_switch_fiber(NULL, root_low ? NULL : &root_low,
					root_size ? NULL : &root_size);
}
#else
static void switch_begins(struct fiber_context *from, const struct fiber_context *to)
{
	(void)from;
	(void)to;
}

static void switch_ends(struct fiber_context *to)
{
	(void)to;
}

void fiber_entered(void)
{
}
#endif

void fiber_switch(struct fiber_context *from, struct fiber_context *to)
{
	void *nowhere;

	switch_begins(from, to);
	fiber_jump(from ? &from->sp : &nowhere, to->sp);
	switch_ends(from);
}
