/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * fuzz.h: what the targets share: an input read as numbers, and as a file.
 *
 * A target is one source file with LLVMFuzzerTestOneInput. What it finds wrong it
 * says with must(), which aborts: the fuzzer then keeps the input.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(c)                                                                                    \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #c);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct input {
	const uint8_t *at, *end;
};

static inline bool input_left(const struct input *in)
{
	return in->at < in->end;
}

/* The next byte; 0 at the end. */
static inline unsigned input_byte(struct input *in)
{
	return input_left(in) ? *in->at++ : 0;
}

/* A number below limit (at most 65536), of two bytes. */
static inline unsigned input_below(struct input *in, unsigned limit)
{
	unsigned low = input_byte(in);

	return (low | input_byte(in) << 8) % limit;
}

/* The path of a file with these contents, until the next call. */
const char *fuzz_file(const uint8_t *data, size_t size);

#endif
