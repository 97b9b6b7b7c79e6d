# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""Graphs, and what the right answers are, computed here once more."""

import collections
import json
import random

ONE = 1 << 32


def run_json(gpusvm, *args):
    done = gpusvm("run", *args, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["correct"] is True
    return report


def random_graph(nodes, edges, seed):
    chance = random.Random(seed)
    return [(chance.randrange(nodes), chance.randrange(nodes)) for _ in range(edges)]


def write_graph(path, nodes, edges):
    path.write_text(f"nodes {nodes}\n" + "".join(f"{a} {b}\n" for a, b in edges))
    return path


def pagerank(nodes, edges):
    rank, out, rounds = [ONE] * nodes, collections.Counter(a for a, _ in edges), 0
    while rounds < 100:
        total = [sum(rank[i] for i in range(nodes) if not out[i]) // nodes] * nodes
        for a, b in edges:
            total[b] += rank[a] // out[a]
        new = [ONE * 15 // 100 + t // 100 * 85 + t % 100 * 85 // 100 for t in total]
        change = sum(abs(a - b) for a, b in zip(rank, new))
        rank, rounds = new, rounds + 1
        if change // nodes < ONE // 1000000:
            break
    return rank, rounds


def distances(nodes, edges, start):
    out = collections.defaultdict(list)
    for a, b in edges:
        out[a].append(b)
    found, queue = {start: 0}, collections.deque([start])
    while queue:
        node = queue.popleft()
        for other in out[node]:
            if other not in found:
                found[other] = found[node] + 1
                queue.append(other)
    return found
