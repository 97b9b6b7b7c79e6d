/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* oracle.c: see oracle.h. */
#include "sim/oracle.h"

#include <stdio.h>
#include <string.h>

void oracle_init(struct oracle *o)
{
	memset(o, 0, sizeof(*o));
	o->now = 1;
}

void oracle_word_init(struct oracle_word *w, u64 value)
{
	memset(w, 0, sizeof(*w));
	w->stores[0] = (struct oracle_store){value, 1, 1, true};
}

/* Did another store follow this one as a whole, and was over by then? */
static bool overwritten(const struct oracle_word *w, const struct oracle_store *s, u64 by)
{
	for (u32 i = 0; i < ORACLE_STORES; i++) {
		const struct oracle_store *t = &w->stores[i];

		if (t->begin && t->sure && s->end < t->begin && t->end < by)
			return true;
	}
	return false;
}

static void forget(const struct oracle *o, struct oracle_word *w)
{
	u64 oldest = o->now + 1;

	for (u32 i = 0; i < ORACLE_READERS; i++)
		if (o->reading[i])
			oldest = host_min(oldest, o->reading[i]);
	for (u32 i = 0; i < ORACLE_STORES; i++)
		if (w->stores[i].begin && overwritten(w, &w->stores[i], oldest))
			w->stores[i].begin = 0;
}

u32 oracle_store_begin(struct oracle *o, struct oracle_word *w, u64 value)
{
	u32 i;

	for (i = 0; i < ORACLE_STORES && w->stores[i].begin; i++)
		;
	HOST_CHECK(i < ORACLE_STORES);
	w->stores[i] = (struct oracle_store){value, ++o->now, ~(u64)0, false};
	return i;
}

void oracle_store_end(struct oracle *o, struct oracle_word *w, u32 store, bool sure)
{
	w->stores[store].end = ++o->now;
	w->stores[store].sure = sure;
	forget(o, w);
}

void oracle_load_begin(struct oracle *o, u32 reader)
{
	o->reading[reader] = ++o->now;
}

bool oracle_allows(const struct oracle *o, const struct oracle_word *w, u32 reader, u64 value)
{
	for (u32 i = 0; i < ORACLE_STORES; i++) {
		const struct oracle_store *s = &w->stores[i];

		if (s->begin && s->value == value && !overwritten(w, s, o->reading[reader]))
			return true;
	}
	return false;
}

void oracle_load_end(struct oracle *o, u32 reader)
{
	o->reading[reader] = 0;
	o->now++;
}

void oracle_say(const struct oracle *o, const struct oracle_word *w, u32 reader, char *text,
		size_t size)
{
	size_t n = 0;

	text[0] = '\0';
	for (u32 i = 0; i < ORACLE_STORES && n < size; i++) {
		const struct oracle_store *s = &w->stores[i];

		if (s->begin && !overwritten(w, s, o->reading[reader]))
			n += (size_t)snprintf(text + n, size - n, "%s%#llx", n ? " or " : "",
					      (unsigned long long)s->value);
	}
}
