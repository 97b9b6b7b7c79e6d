# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""The workloads, against answers that are computed here once more."""

import collections
import random
import re

import pytest
from answers import ONE, distances, pagerank, random_graph, run_json, write_graph


@pytest.mark.parametrize("nodes, edges", [(1, 0), (5, 4), (300, 2000), (20000, 60000)])
def test_pagerank(gpusvm, usable, tmp_path, nodes, edges):
    graph = random_graph(nodes, edges, nodes)
    rank, rounds = pagerank(nodes, graph)
    report = run_json(gpusvm, "pagerank", "--input", write_graph(tmp_path / "g", nodes, graph))
    assert (report["nodes"], report["edges"], report["rounds"]) == (nodes, edges, rounds)
    for entry in report["top"]:
        assert entry["rank"] == pytest.approx(rank[int(entry["name"])] / ONE, rel=1e-4)
    assert report["top"][0]["rank"] == pytest.approx(max(rank) / ONE, rel=1e-4)


@pytest.mark.parametrize("nodes, edges", [(1, 0), (300, 500), (20000, 60000)])
def test_bfs(gpusvm, usable, tmp_path, nodes, edges):
    graph = random_graph(nodes, edges, nodes + 1)
    report = run_json(gpusvm, "bfs", "--input", write_graph(tmp_path / "g", nodes, graph))
    found = distances(nodes, graph, int(report["from"]))
    counts = collections.Counter(found.values())
    assert report["reached"] == len(found)
    assert report["by_distance"] == [counts[d] for d in range(max(counts) + 1)]


def test_names_are_free(gpusvm, usable, tmp_path):
    (tmp_path / "g").write_text("# ring\nlibc6 näme\n\tnäme  C++ # here\nC++ libc6\n")
    report = run_json(gpusvm, "bfs", "--input", tmp_path / "g", "--seed", 3)
    assert report["reached"] == 3 and report["farthest"] == 2


def test_seed_gives_the_same_run(gpusvm, usable, tmp_path):
    graph = write_graph(tmp_path / "g", 50, random_graph(50, 100, 7))
    starts = [run_json(gpusvm, "bfs", "--input", graph, "--seed", seed)["from"]
              for seed in (5, 5, 6, 7, 8)]
    assert starts[0] == starts[1] and len(set(starts)) > 1


def test_wordcount(gpusvm, usable, tmp_path):
    chance = random.Random(11)
    texts = []
    for name in ("one", "two"):
        words = ["w" * chance.randrange(1, 90) + str(chance.randrange(400)) for _ in range(20000)]
        texts.append(" ".join(chance.choice((w, w.upper(), f"({w})")) for w in words))
        (tmp_path / name).write_text(texts[-1])
    expected = collections.Counter(
        word[:63] for text in texts for word in re.findall(r"[a-z0-9_]+", text.lower()))
    report = run_json(gpusvm, "wordcount", "--input", tmp_path / "one", "--input",
                      tmp_path / "two")
    assert report["words"] == sum(expected.values()) and report["different"] == len(expected)
    for entry in report["top"]:
        assert entry["count"] == expected[entry["word"]]
    assert report["top"][0]["count"] == max(expected.values())


def test_packages_of_this_machine(gpusvm, usable):
    done = gpusvm("run", "pagerank")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^result +: equal to the CPU's$", done.stdout, re.M)


def test_pages_went_to_the_device(gpusvm, usable, tmp_path):
    """A graph of some MiB, which the GPU was the last to touch, is on the device."""
    graph = write_graph(tmp_path / "g", 20000, random_graph(20000, 60000, 3))
    report = run_json(gpusvm, "pagerank", "--input", graph)
    assert report["pages"]["devices"][0] > report["pages"]["system"]
    stats = report["stats"]
    assert stats["pages_to_device"] >= report["pages"]["devices"][0]
    assert stats["device_faults"] > 0 and stats["device_faults_fatal"] == 0


def test_more_than_the_device_holds(gpusvm, usable, tmp_path):
    """Twice the smallest device's memory, and still the same answer."""
    graph = write_graph(tmp_path / "g", 40000, random_graph(40000, 80000, 4))
    report = run_json(gpusvm, "bfs", "--input", graph, "--vram", "2M")
    assert report["vram_bytes"] == 2 << 20
    assert report["stats"]["vram_peak"] <= 2 << 20
