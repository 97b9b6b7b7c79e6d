/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * interval.c: the index of intervals. See interval.h; no locking here.
 *
 * The key of an address is the address times 32. A node looks at a window of up
 * to five bits of the key, one of a fixed set of windows whose edges fall on the
 * chunk sizes in use (4K, 64K, 2M):
 *
 *	key bit    60   55   51   46   41   36   31   26   21   17 ...
 *	page size                                     2M  64K   4K
 *
 * Nodes exist only where keys differ: a node has two children at least, and its
 * children's windows are lower than its own, but not always the next lower. So a
 * node's prefix, the key bits above its window, may say more than the way down
 * to it did.
 *
 * A slot is 0, an entry, or a node with the lowest key bit of its window as tag
 * in the low six bits. Nodes are aligned to 64 for that. Entries are aligned to
 * 8, and no window begins at a multiple of 8: three bits tell the two apart. The
 * tag spares lookups the node's head: they load one slot a level. They do not
 * compare prefixes on the way either, but look at the entry where they end up;
 * when it holds the address, the way was right.
 *
 * Invariants (gpusvm_interval_tree_verify)
 *   - bit i of a node's bitmap is set if and only if slot i is not 0
 *   - two bits at least are set
 *   - a child agrees with its parent's prefix and slot; its window is lower
 *   - entries are in order and do not overlap
 */
#include "core/interval.h"

#define KEY_SHIFT 5u
#define SLOTS 32u
#define TAG_MASK ((uintptr_t)63)
#define NODE_ALIGN 64u
#define SPARES_MAX 16u /* more are freed by the next prepare */
#define LEVELS 13u

/* The lowest key bit of each window, and the end of the last. */
static const u8 windows[LEVELS + 1] = {2, 7, 12, 17, 21, 26, 31, 36, 41, 46, 51, 55, 60, 64};

struct gpusvm_interval_node {
	u64 prefix; /* key bits above the window, the others 0 */
	u32 bitmap;
	u32 level;			   /* index of the window */
	void *memory;			   /* as allocated */
	struct gpusvm_interval_node *next; /* among spares */
	u64 pad[4];			   /* so that slots begin with a cache line */
	uintptr_t slots[SLOTS];
};

static u64 key_of(u64 address)
{
	return address << KEY_SHIFT;
}

static bool is_node(uintptr_t slot)
{
	return slot & 7;
}

static struct gpusvm_interval_node *to_node(uintptr_t slot)
{
	return (struct gpusvm_interval_node *)(slot & ~TAG_MASK);
}

static struct gpusvm_interval *to_entry(uintptr_t slot)
{
	return (struct gpusvm_interval *)slot;
}

static uintptr_t from_node(const struct gpusvm_interval_node *node)
{
	return (uintptr_t)node | windows[node->level];
}

static unsigned slot_index(const struct gpusvm_interval_node *node, u64 key)
{
	return (unsigned)(key >> windows[node->level]) & (SLOTS - 1);
}

/* The bits of key above a window. */
static u64 key_prefix(u64 key, unsigned level)
{
	unsigned end = windows[level + 1];

	return end < 64 ? key >> end << end : 0;
}

static unsigned lowest(u32 bits)
{
	return (unsigned)__builtin_ctz(bits);
}

static unsigned highest(u32 bits)
{
	return 31u - (unsigned)__builtin_clz(bits);
}

static struct gpusvm_interval *first_of(uintptr_t slot)
{
	while (is_node(slot))
		slot = to_node(slot)->slots[lowest(to_node(slot)->bitmap)];
	return to_entry(slot);
}

static struct gpusvm_interval *last_of(uintptr_t slot)
{
	while (is_node(slot))
		slot = to_node(slot)->slots[highest(to_node(slot)->bitmap)];
	return to_entry(slot);
}

/* ---- Lookup ---- */

struct neighbours {
	uintptr_t lower;  /* what begins at or below the address, its last entry the nearest */
	uintptr_t higher; /* what begins above, its first entry the nearest */
};

static struct neighbours find_neighbours(uintptr_t slot, u64 address)
{
	struct neighbours found = {0, 0};
	u64 key = key_of(address);

	while (is_node(slot)) {
		const struct gpusvm_interval_node *node = to_node(slot);
		unsigned i = slot_index(node, key);
		u32 below = node->bitmap & (((u32)1 << i) - 1);
		u32 above = node->bitmap & ~(((u32)2 << i) - 1);

		if (key_prefix(key, node->level) != node->prefix) {
			*(key < node->prefix ? &found.higher : &found.lower) = slot;
			return found;
		}
		if (below)
			found.lower = node->slots[highest(below)];
		if (above)
			found.higher = node->slots[lowest(above)];
		slot = node->slots[i];
	}
	if (slot)
		*(to_entry(slot)->start > address ? &found.higher : &found.lower) = slot;
	return found;
}

static struct gpusvm_interval *find_slow(const struct gpusvm_interval_tree *tree, u64 start,
					 u64 end)
{
	struct neighbours near;
	struct gpusvm_interval *entry;

	if (start >= GPUSVM_INTERVAL_LIMIT) /* its key would not be its own */
		return NULL;
	near = find_neighbours(tree->root, start);
	if (near.lower) {
		entry = last_of(near.lower);
		if (entry->end > start)
			return entry->start < end ? entry : NULL;
	}
	if (near.higher) {
		entry = first_of(near.higher);
		if (entry->start < end)
			return entry;
	}
	return NULL;
}

struct gpusvm_interval *gpusvm_interval_find(const struct gpusvm_interval_tree *tree, u64 start,
					     u64 end)
{
	u64 key = key_of(start);
	uintptr_t slot = tree->root;
	struct gpusvm_interval *entry;

	while (is_node(slot))
		slot = to_node(slot)->slots[(key >> (slot & TAG_MASK)) & (SLOTS - 1)];
	entry = to_entry(slot);
	if (host_likely(entry && entry->start <= start && start < entry->end))
		return entry->start < end ? entry : NULL;
	return find_slow(tree, start, end);
}

struct gpusvm_interval *gpusvm_interval_next(const struct gpusvm_interval_tree *tree,
					     const struct gpusvm_interval *entry)
{
	u64 key = key_of(entry->start);
	uintptr_t slot = tree->root, higher = 0;

	while (is_node(slot)) {
		const struct gpusvm_interval_node *node = to_node(slot);
		unsigned i = slot_index(node, key);
		u32 above = node->bitmap & ~(((u32)2 << i) - 1);

		if (above)
			higher = node->slots[lowest(above)];
		slot = node->slots[i];
	}
	HOST_ASSERT(to_entry(slot) == entry);
	return higher ? first_of(higher) : NULL;
}

/* ---- Change ---- */

static unsigned level_of(u64 difference)
{
	unsigned bit = 63u - (unsigned)__builtin_clzll(difference);
	unsigned level = LEVELS - 1;

	while (windows[level] > bit)
		level--;
	return level;
}

static void node_put(struct gpusvm_interval_node *node, u64 key, uintptr_t slot)
{
	unsigned i = slot_index(node, key);

	node->slots[i] = slot;
	node->bitmap |= (u32)1 << i;
}

/* The way down goes to the entry or node that key parts from: in its place comes
 * a node that has both. */
static void split(struct gpusvm_interval_tree *tree, uintptr_t *link, u64 key, uintptr_t slot)
{
	u64 other = is_node(*link) ? to_node(*link)->prefix : key_of(to_entry(*link)->start);
	struct gpusvm_interval_node *node = tree->spare;

	HOST_CHECK(node && key != other);
	tree->spare = node->next;
	tree->n_spare--;
	tree->n_nodes++;
	node->level = level_of(key ^ other);
	node->prefix = key_prefix(key, node->level);
	node_put(node, other, *link);
	node_put(node, key, slot);
	*link = from_node(node);
}

void gpusvm_interval_insert(struct gpusvm_interval_tree *tree, struct gpusvm_interval *entry)
{
	u64 key = key_of(entry->start);
	uintptr_t *link = &tree->root;

	HOST_CHECK(entry->start < entry->end && entry->end <= GPUSVM_INTERVAL_LIMIT);
	HOST_ASSERT(!gpusvm_interval_find(tree, entry->start, entry->end));
	tree->count++;
	while (is_node(*link)) {
		struct gpusvm_interval_node *node = to_node(*link);

		if (key_prefix(key, node->level) != node->prefix)
			break;
		link = &node->slots[slot_index(node, key)];
		if (!*link) {
			node_put(node, key, (uintptr_t)entry);
			return;
		}
	}
	if (*link)
		split(tree, link, key, (uintptr_t)entry);
	else
		*link = (uintptr_t)entry;
}

static void node_to_spare(struct gpusvm_interval_tree *tree, struct gpusvm_interval_node *node)
{
	node->next = tree->spare;
	tree->spare = node;
	tree->n_spare++;
}

void gpusvm_interval_remove(struct gpusvm_interval_tree *tree, struct gpusvm_interval *entry)
{
	u64 key = key_of(entry->start);
	uintptr_t *link = &tree->root, *to_parent = NULL;
	struct gpusvm_interval_node *node = NULL;

	while (is_node(*link)) {
		to_parent = link;
		node = to_node(*link);
		link = &node->slots[slot_index(node, key)];
	}
	HOST_CHECK(to_entry(*link) == entry);
	*link = 0;
	tree->count--;
	if (!node)
		return;
	node->bitmap &= ~((u32)1 << slot_index(node, key));
	if (node->bitmap & (node->bitmap - 1))
		return;
	/* One child is left: it takes the node's place. */
	link = &node->slots[lowest(node->bitmap)];
	*to_parent = *link;
	*link = 0;
	node->bitmap = 0;
	tree->n_nodes--;
	node_to_spare(tree, node);
}

/* ---- Life ---- */

static void spare_free(struct gpusvm_interval_tree *tree)
{
	struct gpusvm_interval_node *node = tree->spare;

	tree->spare = node->next;
	tree->n_spare--;
	host_free(node->memory);
}

struct gpusvm_interval_node *gpusvm_interval_node_alloc(void)
{
	struct gpusvm_interval_node *node;
	char *memory = host_alloc_zeroed(sizeof(*node) + NODE_ALIGN - 16);

	if (!memory)
		return NULL;
	node = (void *)host_align_up((uintptr_t)memory, NODE_ALIGN);
	node->memory = memory;
	return node;
}

void gpusvm_interval_adopt(struct gpusvm_interval_tree *tree, struct gpusvm_interval_node *node)
{
	node_to_spare(tree, node);
}

int gpusvm_interval_prepare(struct gpusvm_interval_tree *tree)
{
	struct gpusvm_interval_node *node;

	while (tree->n_spare > SPARES_MAX)
		spare_free(tree);
	if (tree->n_spare)
		return 0;
	node = gpusvm_interval_node_alloc();
	if (!node)
		return -ENOMEM;
	node_to_spare(tree, node);
	return 0;
}

void gpusvm_interval_tree_init(struct gpusvm_interval_tree *tree)
{
	*tree = (struct gpusvm_interval_tree){0};
}

/* Takes nodes out from below, without recursion: goes to a node that has entries
 * only, and cuts it off. */
void gpusvm_interval_tree_fini(struct gpusvm_interval_tree *tree)
{
	uintptr_t *link;
	unsigned i;

	while (is_node(tree->root)) {
		struct gpusvm_interval_node *node = to_node(tree->root);

		link = &tree->root;
		for (i = 0; i < SLOTS; i++) {
			if (!is_node(node->slots[i]))
				continue;
			link = &node->slots[i];
			node = to_node(*link);
			i = (unsigned)-1;
		}
		*link = 0;
		node_to_spare(tree, node);
	}
	while (tree->spare)
		spare_free(tree);
	gpusvm_interval_tree_init(tree);
}

/* ---- Check ---- */

struct verify {
	u64 end; /* of the entry before */
	u64 count, nodes;
};

static void verify_entry(struct verify *v, const struct gpusvm_interval *entry)
{
	HOST_CHECK(entry->start < entry->end && entry->end <= GPUSVM_INTERVAL_LIMIT);
	HOST_CHECK(entry->start >= v->end);
	v->end = entry->end;
	v->count++;
}

/* Recursion is as deep as there are windows. */
static void verify_node(struct verify *v, const struct gpusvm_interval_node *node)
{
	unsigned i;

	v->nodes++;
	HOST_CHECK(node->level < LEVELS && (node->bitmap & (node->bitmap - 1)));
	HOST_CHECK(node->prefix == key_prefix(node->prefix, node->level));
	for (i = 0; i < SLOTS; i++) {
		uintptr_t slot = node->slots[i];
		u64 key;

		HOST_CHECK((slot != 0) == (node->bitmap >> i & 1));
		if (!slot)
			continue;
		key = is_node(slot) ? to_node(slot)->prefix : key_of(to_entry(slot)->start);
		HOST_CHECK(key_prefix(key, node->level) == node->prefix);
		HOST_CHECK(slot_index(node, key) == i);
		if (!is_node(slot)) {
			verify_entry(v, to_entry(slot));
			continue;
		}
		HOST_CHECK(to_node(slot)->level < node->level && slot == from_node(to_node(slot)));
		verify_node(v, to_node(slot));
	}
}

void gpusvm_interval_tree_verify(const struct gpusvm_interval_tree *tree)
{
	const struct gpusvm_interval_node *spare;
	struct verify v = {0, 0, 0};
	u32 spares = 0;

	if (is_node(tree->root))
		verify_node(&v, to_node(tree->root));
	else if (tree->root)
		verify_entry(&v, to_entry(tree->root));
	HOST_CHECK(v.count == tree->count && v.nodes == tree->n_nodes);
	for (spare = tree->spare; spare; spare = spare->next) {
		HOST_CHECK(spare->bitmap == 0);
		spares++;
	}
	HOST_CHECK(spares == tree->n_spare);
}
