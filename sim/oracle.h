/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * oracle.h: what a word may hold (law 1): the stores to it that began before a load
 * ended, without those that another store followed as a whole, and which was over
 * before the load began. Loads and stores may overlap as they like.
 *
 * Time is a count of beginnings and ends. One thread; no locks.
 */
#ifndef GPUSVM_SIM_ORACLE_H
#define GPUSVM_SIM_ORACLE_H

#include "host/host.h"

#define ORACLE_STORES 24u /* that may matter at one time */
#define ORACLE_READERS 12u

struct oracle_store {
	u64 value, begin, end; /* begin 0: no store; end ~0: not over */
	bool sure;	       /* it has happened for certain by its end */
};

struct oracle_word {
	struct oracle_store stores[ORACLE_STORES];
};

/* The clock, and the loads under way: what they may see is not forgotten. */
struct oracle {
	u64 now;
	u64 reading[ORACLE_READERS]; /* when each reader's load began; 0: none */
};

void oracle_init(struct oracle *o);
void oracle_word_init(struct oracle_word *w, u64 value);
/* The value identifies the store until it ends. False: too many at once. */
u32 oracle_store_begin(struct oracle *o, struct oracle_word *w, u64 value);
/* sure: it has happened. Else it may have, or not. */
void oracle_store_end(struct oracle *o, struct oracle_word *w, u32 store, bool sure);
void oracle_load_begin(struct oracle *o, u32 reader);
/* May a load since load_begin have seen this? */
bool oracle_allows(const struct oracle *o, const struct oracle_word *w, u32 reader, u64 value);
void oracle_load_end(struct oracle *o, u32 reader);
/* "a, b or c": what is allowed, into text. */
void oracle_say(const struct oracle *o, const struct oracle_word *w, u32 reader, char *text,
		size_t size);

#endif
