/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* tool.h: what the subcommands of gpusvm share. One thread; no locks. */
#ifndef GPUSVM_TOOL_H
#define GPUSVM_TOOL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gpusvm/gpusvm.h>

enum { TOOL_RIGHT = 0, TOOL_WRONG = 1, TOOL_UNUSABLE = 2 };

int tool_info(int argc, char **argv);
int tool_run(int argc, char **argv);
int tool_bench(int argc, char **argv);
int tool_sim(int argc, char **argv);

/* Says "gpusvm: ..." on stderr. The value is TOOL_UNUSABLE. */
int tool_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for memory that cannot be had. */
int tool_no_memory(const char *for_what);
/* What gpusvm_open's error means, in words for the user. */
int tool_open_error(int error, uint64_t vram);
/* "4096", "64K", "256M", "1G". False: not a size. */
bool tool_parse_size(const char *text, uint64_t *ret);
/* A plain decimal number, all of text. */
bool tool_parse_number(const char *text, uint64_t *ret);
uint64_t tool_now(void); /* monotonic, ns */
/* One line on stderr, overwritten by the next; only if that is a terminal. */
void tool_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tool_progress_end(void);
/* A string, also of text that is no UTF-8: '?' stands for what JSON cannot have. */
json_t *tool_text(const char *text);
/* Prints to stdout and drops the reference. */
void tool_print_json(json_t *json);
/* Deterministic: the same seed, the same numbers. */
uint64_t tool_random(uint64_t *state);

#endif
