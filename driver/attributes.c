/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* attributes.c: see the header. No locking here: the caller holds the map's lock. */
#include "driver/attributes.h"
#include "driver/driver.h"

const struct attributes attributes_none = {
	.preferred = DRIVER_NONE,
	.last_prefetch = DRIVER_NONE,
};

bool attributes_agree(const struct attributes *a, const struct attributes *b)
{
	return a->accessed_by == b->accessed_by && a->preferred == b->preferred &&
	       a->granularity == b->granularity && a->atomic == b->atomic &&
	       a->access_none == b->access_none && a->no_migrate == b->no_migrate;
}

bool attributes_equal(const struct attributes *a, const struct attributes *b)
{
	return attributes_agree(a, b) && a->last_prefetch == b->last_prefetch;
}

static struct attributes edited(const struct attributes *old, const struct attribute_edit *edit)
{
	struct attributes v = *old;

	switch (edit->type) {
	case ATTRIBUTE_PREFERRED:
		v.preferred = (int)edit->value;
		break;
	case ATTRIBUTE_LAST_PREFETCH:
		v.last_prefetch = (int)edit->value;
		break;
	case ATTRIBUTE_ACCESSED_BY:
		v.accessed_by =
			edit->value ? v.accessed_by | edit->mask : v.accessed_by & ~edit->mask;
		break;
	case ATTRIBUTE_GRANULARITY:
		v.granularity = (u32)edit->value;
		break;
	case ATTRIBUTE_ATOMIC:
		v.atomic = (u8)edit->value;
		break;
	case ATTRIBUTE_ACCESS_NONE:
		v.access_none = edit->value != 0;
		break;
	case ATTRIBUTE_NO_MIGRATE:
		v.no_migrate = edit->value != 0;
		break;
	case ATTRIBUTE_RESET:
		v = attributes_none;
		v.last_prefetch = old->last_prefetch;
		break;
	}
	return v;
}

/* ---- Nodes ------------------------------------------------------------------- */

void attribute_map_init(struct attribute_map *map)
{
	*map = (struct attribute_map){ .n_spare = 0 };
	gpusvm_interval_tree_init(&map->tree);
}

static struct attribute_node *node_of(struct gpusvm_interval *interval)
{
	return interval ? host_container_of(interval, struct attribute_node, interval) : NULL;
}

static struct attribute_node *find(const struct attribute_map *map, u64 start, u64 end)
{
	return node_of(gpusvm_interval_find(&map->tree, start, end));
}

static void put_spare(struct attribute_map *map, struct attribute_node *node)
{
	node->next = map->spare;
	map->spare = node;
	host_write_once(&map->n_spare, map->n_spare + 1);
}

static struct attribute_node *take_spare(struct attribute_map *map)
{
	struct attribute_node *node = map->spare;

	if (node) {
		map->spare = node->next;
		host_write_once(&map->n_spare, map->n_spare - 1);
	}
	return node;
}

void attribute_map_fini(struct attribute_map *map)
{
	struct attribute_node *node;

	while ((node = find(map, 0, ~(u64)0))) {
		gpusvm_interval_remove(&map->tree, &node->interval);
		host_free(node);
	}
	while ((node = take_spare(map)))
		host_free(node);
	gpusvm_interval_tree_fini(&map->tree);
}

/* What the index needs for each is in values' place until the map takes it over. */
struct node_with_index {
	struct attribute_node node;
	struct gpusvm_interval_node *index;
};

struct attribute_node *attribute_nodes_alloc(u32 n)
{
	struct attribute_node *list = NULL;

	while (n--) {
		struct node_with_index *new = host_alloc_zeroed(sizeof(*new));

		if (new)
			new->index = gpusvm_interval_node_alloc();
		if (!new || !new->index) {
			struct attribute_map unused;

			host_free(new);
			attribute_map_init(&unused);
			attribute_map_give(&unused, list);
			attribute_map_fini(&unused);
			return NULL;
		}
		new->node.next = list;
		list = &new->node;
	}
	return list;
}

void attribute_map_give(struct attribute_map *map, struct attribute_node *list)
{
	while (list) {
		struct attribute_node *node = list;

		list = node->next;
		gpusvm_interval_adopt(&map->tree,
				      host_container_of(node, struct node_with_index, node)->index);
		put_spare(map, node);
	}
}

static void insert(struct attribute_map *map, struct attribute_node *node, u64 start, u64 end)
{
	node->interval = (struct gpusvm_interval){ start, end };
	gpusvm_interval_insert(&map->tree, &node->interval);
}

static void drop(struct attribute_map *map, struct attribute_node *node)
{
	gpusvm_interval_remove(&map->tree, &node->interval);
	put_spare(map, node);
}

/* ---- Splitting and merging ------------------------------------------------------ */

/* No entry reaches over `at` afterwards. Without a node the smaller part of one that
 * does goes. */
static void split_at(struct attribute_map *map, u64 at)
{
	struct attribute_node *node = at ? find(map, at - 1, at) : NULL, *upper;
	u64 start, end;

	if (!node || node->interval.end <= at)
		return;
	start = node->interval.start;
	end = node->interval.end;
	gpusvm_interval_remove(&map->tree, &node->interval);
	upper = take_spare(map);
	if (upper) {
		upper->values = node->values;
		insert(map, upper, at, end);
		insert(map, node, start, at);
		return;
	}
	map->lost++;
	if (at - start >= end - at)
		insert(map, node, start, at);
	else
		insert(map, node, at, end);
}

/* Makes neighbours one that are alike, from the one that ends at or after start to
 * the one that begins at or before end. */
static void merge(struct attribute_map *map, u64 start, u64 end)
{
	struct attribute_node *node = find(map, start ? start - 1 : 0, ~(u64)0), *next;

	while (node && node->interval.start <= end) {
		next = node_of(gpusvm_interval_next(&map->tree, &node->interval));
		if (next && next->interval.start == node->interval.end &&
		    attributes_equal(&node->values, &next->values)) {
			u64 from = node->interval.start, to = next->interval.end;

			drop(map, next);
			gpusvm_interval_remove(&map->tree, &node->interval);
			insert(map, node, from, to);
			continue;
		}
		node = next;
	}
}

u64 attribute_map_at(const struct attribute_map *map, u64 at, u64 end, struct attributes *ret)
{
	struct attribute_node *node = find(map, at, end);

	if (!node || node->interval.start > at) {
		*ret = attributes_none;
		return node ? node->interval.start : end;
	}
	*ret = node->values;
	return host_min(node->interval.end, end);
}

/* ---- Editing -------------------------------------------------------------------- */

/* Nodes that the edit takes at most. */
static u32 nodes_needed(const struct attribute_map *map, u64 start, u64 end,
			const struct attribute_edit *edit)
{
	u32 needed = 0;
	u64 at, next;

	for (at = start; at < end; at = next) {
		struct attributes old, new;

		next = attribute_map_at(map, at, end, &old);
		new = edited(&old, edit);
		if (!attributes_equal(&old, &new))
			/* Of a gap a node; of an entry, two more at its ends. */
			needed += attributes_equal(&old, &attributes_none) ? 1 : 2;
	}
	return needed;
}

static void set_values(struct attribute_map *map, u64 start, u64 end,
		       const struct attributes *values)
{
	struct attribute_node *node;

	split_at(map, start);
	split_at(map, end);
	node = find(map, start, end);
	if (attributes_equal(values, &attributes_none)) {
		drop(map, node);
		return;
	}
	if (!node) {
		node = take_spare(map);
		HOST_CHECK(node); /* counted before */
		insert(map, node, start, end);
	}
	node->values = *values;
}

u32 attribute_map_edit(struct attribute_map *map, u64 start, u64 end,
		       const struct attribute_edit *edit, u64 *from, u64 *to)
{
	u32 needed = nodes_needed(map, start, end, edit);
	u64 at, next;

	*from = *to = start;
	/* The reserve is for those who cannot ask for more. */
	if (needed && map->n_spare < needed + ATTRIBUTE_RESERVE)
		return needed + ATTRIBUTE_RESERVE - map->n_spare;
	for (at = start; at < end; at = next) {
		struct attributes old, new;

		next = attribute_map_at(map, at, end, &old);
		new = edited(&old, edit);
		if (attributes_equal(&old, &new))
			continue;
		set_values(map, at, next, &new);
		if (attributes_agree(&old, &new))
			continue;
		if (*from == *to)
			*from = at;
		*to = next;
	}
	merge(map, start, end);
	return 0;
}

/* Takes [start, end), which overlaps, out of one entry. */
static void cut(struct attribute_map *map, struct attribute_node *node, u64 start, u64 end)
{
	u64 from, to;

	if (node->interval.start < start && node->interval.end > end) {
		split_at(map, start);
		node = find(map, start, end);
		if (!node) /* without a node: it was the smaller part */
			return;
	}
	from = node->interval.start;
	to = node->interval.end;
	gpusvm_interval_remove(&map->tree, &node->interval);
	if (from < start)
		insert(map, node, from, start);
	else if (to > end)
		insert(map, node, end, to);
	else
		put_spare(map, node);
}

bool attribute_map_forget(struct attribute_map *map, u64 start, u64 end)
{
	struct attribute_node *node;
	bool any = false;

	while ((node = find(map, start, end))) {
		any = true;
		cut(map, node, start, end);
	}
	return any;
}

bool attribute_map_move(struct attribute_map *map, u64 start, u64 end, u64 to)
{
	u64 delta = to - start, at = start;
	bool any = attribute_map_forget(map, to, to + (end - start));
	struct attribute_node *node;

	split_at(map, start);
	split_at(map, end);
	/* The two do not overlap: what was moved is not found again. */
	while ((node = find(map, at, end))) {
		u64 from = node->interval.start, last = node->interval.end;

		any = true;
		gpusvm_interval_remove(&map->tree, &node->interval);
		insert(map, node, from + delta, last + delta);
		at = last;
	}
	if (any)
		merge(map, to, to + (end - start));
	return any;
}

/* ---- Looking --------------------------------------------------------------------- */

void attribute_map_segment(const struct attribute_map *map, u64 address, u64 *start, u64 *end,
			   struct attributes *ret)
{
	u64 at = *start, first = *start, next;
	struct attributes here, first_values = attributes_none;
	bool any = false;

	for (; at < *end; at = next) {
		next = attribute_map_at(map, at, *end, &here);
		if (!any || !attributes_agree(&here, &first_values)) {
			if (at > address)
				break;
			first = at;
			first_values = here;
			any = true;
		}
		if (at <= address && address < next)
			*ret = here;
	}
	*start = first;
	*end = at;
}

void attribute_map_verify(const struct attribute_map *map)
{
	struct attribute_node *node = find(map, 0, ~(u64)0), *next;
	u32 spare = 0;

	gpusvm_interval_tree_verify(&map->tree);
	/* Every entry can be taken out and put in again, whatever the others do. */
	HOST_CHECK((u64)map->tree.n_nodes + map->tree.n_spare == map->tree.count + map->n_spare);
	for (; node; node = next) {
		HOST_CHECK(!attributes_equal(&node->values, &attributes_none));
		next = node_of(gpusvm_interval_next(&map->tree, &node->interval));
		HOST_CHECK(!next || next->interval.start > node->interval.end ||
			   !attributes_equal(&node->values, &next->values));
	}
	for (node = map->spare; node; node = node->next)
		spare++;
	HOST_CHECK(spare == map->n_spare);
}
