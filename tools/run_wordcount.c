/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * run_wordcount.c: how often each word occurs. The GPU counts in one hash table
 * in malloc'd memory: a slot points at the first occurrence of its word in the
 * text, and is taken by an atomic compare and swap; no locks. The CPU sorts all
 * words instead.
 *
 * A word is a run of letters, digits, '_' and bytes above 127, upper and lower
 * case alike; of a longer one the first WORD - 1 bytes count.
 */
#include "tools/run.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD 64u
#define WINDOW 256u
#define CHUNK 16384u
#define TEXTS "/usr/share/common-licenses"

struct text {
	char *bytes; /* followed by WORD zeros */
	size_t length;
};

struct chunk {
	const char *begin, *end;
	uint64_t first; /* of its text: no byte goes before it */
};

struct slot {
	const char *word; /* NULL: free */
	uint64_t count;
};

struct args {
	struct run_args head;
	const struct chunk *chunks;
	struct slot *slots;
	uint64_t mask;
};

struct word {
	const char *text;
	uint64_t count;
};

struct count {
	struct text *texts;
	size_t n_texts, n_chunks, n_slots;
	struct chunk *chunks;
	struct slot *slots;
	struct word *words; /* the CPU's answer, sorted */
	size_t n_words, total;
};

static bool in_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || (unsigned char)c > 127;
}

static char fold(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

/* As strcmp, up to the end of both words. */
static int compare_words(const char *a, const char *b)
{
	for (unsigned i = 0; i < WORD - 1; i++) {
		char x = in_word(a[i]) ? fold(a[i]) : 0, y = in_word(b[i]) ? fold(b[i]) : 0;

		if (x != y || !x)
			return (unsigned char)x - (unsigned char)y;
	}
	return 0;
}

/* ---- On the GPU ---------------------------------------------------------- */

/* own: the word's bytes, ended by a zero. at: where it is in the text. */
static void count_word(struct gpusvm_lane *lane, const struct args *args, const char *own,
		       const char *at)
{
	uint64_t hash = 0xcbf29ce484222325u;
	char other[WORD];

	for (const char *c = own; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
	hash ^= hash >> 29;
	for (uint64_t i = hash & args->mask;; i = (i + 1) & args->mask) {
		struct slot *slot = &args->slots[i];
		uint64_t word = gpusvm_ld64(lane, &slot->word);

		if (!word)
			word = gpusvm_atomic_cas64(lane, &slot->word, 0, (uintptr_t)at);
		if (word) {
			run_load(lane, (const char *)word, other, WORD);
			if (compare_words(own, other))
				continue;
		}
		gpusvm_atomic_add64(lane, &slot->count, 1);
		return;
	}
}

/* Words that begin in the chunk are counted, also where they end after it. */
static void count_kernel(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	const struct args *args = p;
	const struct chunk *chunk = &args->chunks[args->head.first + item];
	const char *at = (const char *)gpusvm_ld64(lane, &chunk->begin);
	const char *end = (const char *)gpusvm_ld64(lane, &chunk->end), *start = NULL;
	bool skip = false; /* a word that began before the chunk */
	char window[WINDOW], own[WORD];
	unsigned length = 0, have = 0, next = 0;

	if (!gpusvm_ld64(lane, &chunk->first)) {
		run_load(lane, at - 1, window, 1);
		skip = in_word(window[0]);
	}
	for (; at < end || start; at++) {
		char c;

		if (next == have) {
			/* Behind the text are WORD zeros: no window reaches farther. */
			size_t left = at < end ? (size_t)(end - at) : WORD / 2;

			have = left < WINDOW ? (unsigned)left : WINDOW;
			next = 0;
			run_load(lane, at, window, have);
		}
		c = window[next++];
		if (in_word(c)) {
			start = start ? start : at;
			if (length < WORD - 1)
				own[length++] = fold(c);
			continue;
		}
		if (start && !skip) {
			own[length] = 0;
			count_word(lane, args, own, start);
		}
		start = NULL;
		skip = false;
		length = 0;
	}
}

/* ---- On the CPU ---------------------------------------------------------- */

static int by_word(const void *a, const void *b)
{
	return compare_words(((const struct word *)a)->text, ((const struct word *)b)->text);
}

static int on_cpu(struct count *count)
{
	size_t max = 0, n = 0, distinct = 0;

	for (size_t i = 0; i < count->n_texts; i++)
		max += count->texts[i].length / 2 + 1;
	count->words = malloc((max ? max : 1) * sizeof(*count->words));
	if (!count->words)
		return -1;
	for (size_t i = 0; i < count->n_texts; i++) {
		const char *c = count->texts[i].bytes;
		bool inside = false;

		for (const char *end = c + count->texts[i].length; c < end; c++) {
			if (in_word(*c) && !inside)
				count->words[n++] = (struct word){ c, 1 };
			inside = in_word(*c);
		}
	}
	qsort(count->words, n, sizeof(*count->words), by_word);
	for (size_t i = 0; i < n; i++) {
		if (distinct && !by_word(&count->words[distinct - 1], &count->words[i]))
			count->words[distinct - 1].count++;
		else
			count->words[distinct++] = count->words[i];
	}
	count->total = n;
	count->n_words = distinct;
	return 0;
}

/* ---- Input --------------------------------------------------------------- */

static int read_file(const char *path, struct text *ret)
{
	return run_read_file(path, WORD, &ret->bytes, &ret->length);
}

static int is_text(const struct dirent *entry)
{
	return entry->d_type == DT_REG;
}

/* The licences that every Debian machine has. */
static int read_default(struct count *count)
{
	struct dirent **entries = NULL;
	int n = scandir(TEXTS, &entries, is_text, alphasort), result = 0;
	char path[512];

	if (n <= 0) {
		free(entries);
		return tool_error("%s: no texts there; give some with --input", TEXTS);
	}
	count->texts = calloc((size_t)n, sizeof(*count->texts));
	if (!count->texts)
		result = tool_no_memory("the texts");
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", TEXTS, entries[i]->d_name);
		if (!result)
			result = read_file(path, &count->texts[count->n_texts++]);
		free(entries[i]);
	}
	free(entries);
	return result;
}

static int read_inputs(struct run *run, struct count *count)
{
	int result = 0;

	if (!run->n_inputs) {
		json_object_set_new(run->report, "input", json_string(TEXTS));
		return read_default(count);
	}
	json_object_set_new(run->report, "input",
			    run->n_inputs == 1 ? tool_text(run->inputs[0]) :
						 json_sprintf("%u files", run->n_inputs));
	count->texts = calloc(run->n_inputs, sizeof(*count->texts));
	if (!count->texts)
		return tool_no_memory("the texts");
	for (unsigned i = 0; !result && i < run->n_inputs; i++)
		result = read_file(run->inputs[i], &count->texts[count->n_texts++]);
	return result;
}

/* ---- Building, comparing ------------------------------------------------- */

static int build(struct run *run, struct count *count)
{
	struct run_memory *watch = run_watch(run, count->n_texts + 1);
	size_t k = 0;

	for (size_t i = 0; i < count->n_texts; i++)
		count->n_chunks += (count->texts[i].length + CHUNK - 1) / CHUNK;
	for (count->n_slots = 64; count->n_slots < count->n_words * 2;)
		count->n_slots *= 2;
	count->chunks = malloc((count->n_chunks + 1) * sizeof(*count->chunks));
	count->slots = calloc(count->n_slots, sizeof(*count->slots));
	if (!count->chunks || !count->slots || !watch)
		return tool_no_memory("the table of words");
	for (size_t i = 0; i < count->n_texts; i++) {
		const struct text *text = &count->texts[i];

		for (size_t begin = 0; begin < text->length; begin += CHUNK) {
			size_t left = text->length - begin;

			count->chunks[k++] = (struct chunk){
				.begin = text->bytes + begin,
				.end = text->bytes + begin + (left < CHUNK ? left : CHUNK),
				.first = !begin,
			};
		}
		watch[i] = (struct run_memory){ text->bytes, text->length };
	}
	watch[count->n_texts] =
		(struct run_memory){ count->slots, count->n_slots * sizeof(*count->slots) };
	return 0;
}

static int by_count(const void *a, const void *b)
{
	const struct word *x = a, *y = b;

	if (x->count != y->count)
		return x->count < y->count ? 1 : -1;
	return by_word(a, b);
}

/* The table's words, in the order of the CPU's answer, next to it. */
static int compare(struct run *run, struct count *count)
{
	struct word *words = malloc((count->n_slots + 1) * sizeof(*words));
	size_t n = 0, wrong = 0;

	if (!words)
		return tool_no_memory("the words");
	for (size_t i = 0; i < count->n_slots; i++)
		if (count->slots[i].word)
			words[n++] = (struct word){ count->slots[i].word, count->slots[i].count };
	qsort(words, n, sizeof(*words), by_word);
	if (n != count->n_words) {
		tool_error("%zu different words, the CPU has %zu", n, count->n_words);
		wrong = 1;
	}
	for (size_t i = 0; !wrong && i < n; i++) {
		if (!by_word(&words[i], &count->words[i]) &&
		    words[i].count == count->words[i].count)
			continue;
		wrong = 1;
		tool_error("'%.20s' occurs %" PRIu64 " times, on the CPU %" PRIu64 " times",
			   words[i].text, words[i].count, count->words[i].count);
	}
	free(words);
	json_object_set_new(run->report, "correct", json_boolean(!wrong));
	return wrong ? TOOL_WRONG : TOOL_RIGHT;
}

static void tell_words(struct run *run, struct count *count)
{
	json_t *text = json_object_get(run->report, "text"), *top = json_array();

	json_array_append_new(text, json_sprintf("%zu words, %zu different", count->total,
						 count->n_words));
	qsort(count->words, count->n_words, sizeof(*count->words), by_count);
	for (size_t i = 0; i < 10 && i < count->n_words; i++) {
		const struct word *word = &count->words[i];
		char own[WORD] = { 0 };

		for (unsigned k = 0; k < WORD - 1 && in_word(word->text[k]); k++)
			own[k] = fold(word->text[k]);
		json_array_append_new(text, json_sprintf("%10" PRIu64 "  %s", word->count, own));
		json_array_append_new(top, json_pack("{s:s%,s:I}", "word", own, strlen(own),
						     "count", (json_int_t)word->count));
	}
	json_object_set_new(run->report, "words", json_integer((json_int_t)count->total));
	json_object_set_new(run->report, "different", json_integer((json_int_t)count->n_words));
	json_object_set_new(run->report, "top", top);
}

static int on_both(struct run *run, struct count *count)
{
	struct args args = { 0 };
	int result;

	if (on_cpu(count))
		return tool_no_memory("the words");
	if (!count->n_words)
		return tool_error("there is no word in the input");
	result = build(run, count);
	result = result ? result : run_open(run);
	result = result ? result : run_share_atomics(run);
	if (result)
		return result;
	args.chunks = count->chunks;
	args.slots = count->slots;
	args.mask = count->n_slots - 1;
	tool_progress("wordcount: %zu bytes of text", count->n_chunks * CHUNK);
	result = run_launch(run, "count", count_kernel, &args, sizeof(args), count->n_chunks);
	result = result ? result : run_pages(run);
	result = result ? result : compare(run, count);
	if (json_object_get(run->report, "correct"))
		tell_words(run, count);
	return result;
}

int run_wordcount(struct run *run)
{
	struct count count = { 0 };
	int result = read_inputs(run, &count);

	if (!result)
		result = on_both(run, &count);
	for (size_t i = 0; i < count.n_texts; i++)
		free(count.texts[i].bytes);
	free(count.texts);
	free(count.chunks);
	free(count.slots);
	free(count.words);
	return result;
}
