# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""Workloads on several devices, with links of all kinds between them; and on devices that are
too small."""

import collections
import json
import random

import pytest
from answers import distances, pagerank, random_graph, run_json, write_graph

COLUMNS, STEPS = 1024, 32


@pytest.fixture(params=["none", "ring", "full", "chain"])
def links(request, tmp_path):
    """What --links is given, for four devices."""
    if request.param != "chain":
        return request.param
    path = tmp_path / "links"
    path.write_text("# up by mapping, down by copies\n"
                    "0 1 32000 500 map\n1 2 32000 500 map\n2 3 32000 500 map\n"
                    "3 2 1000 500 copy\n2 1 1000 500 copy\n")
    return path


def test_pagerank(gpusvm, usable, tmp_path, links):
    graph = random_graph(3000, 9000, 5)
    rank, rounds = pagerank(3000, graph)
    report = run_json(gpusvm, "pagerank", "--devices", 4, "--links", links,
                      "--input", write_graph(tmp_path / "g", 3000, graph))
    assert report["device_count"] == 4 and report["rounds"] == rounds
    assert report["top"][0]["rank"] == pytest.approx(max(rank) / (1 << 32), rel=1e-4)


def test_bfs(gpusvm, usable, tmp_path, links):
    graph = random_graph(20000, 60000, 6)
    report = run_json(gpusvm, "bfs", "--devices", 4, "--links", links,
                      "--input", write_graph(tmp_path / "g", 20000, graph))
    counts = collections.Counter(distances(20000, graph, int(report["from"])).values())
    assert report["by_distance"] == [counts[d] for d in range(max(counts) + 1)]


def test_wordcount(gpusvm, usable, tmp_path, links):
    chance = random.Random(12)
    words = [f"w{chance.randrange(300)}" for _ in range(60000)]
    (tmp_path / "text").write_text(" ".join(words))
    report = run_json(gpusvm, "wordcount", "--devices", 4, "--links", links,
                      "--input", tmp_path / "text")
    assert report["words"] == len(words)
    assert report["top"][0]["count"] == max(collections.Counter(words).values())


# ---- Stencil ------------------------------------------------------------------------------------

def stencil(cells):
    """The sum of all cells in the end."""
    rows = len(cells) // COLUMNS
    grid = [[byte << 20 for byte in cells[r * COLUMNS:][:COLUMNS]] for r in range(rows)]
    for _ in range(STEPS):
        grid = [[(4 * own + up + down + left + right) // 8 for own, up, down, left, right in
                 zip(grid[r], grid[r - 1], grid[(r + 1) % rows],
                     grid[r][-1:] + grid[r][:-1], grid[r][1:] + grid[r][:1])]
                for r in range(rows)]
    return sum(map(sum, grid))


def test_halos_are_mapped_over_links(gpusvm, usable):
    """No page bounces: what moved was moved by placing the bands."""
    report = run_json(gpusvm, "stencil", "--devices", 4, "--links", "ring")
    assert report["during_steps"]["cpu_faults"] == 0
    assert report["during_steps"]["pages_to_system"] == 0
    assert report["during_steps"]["pages_to_device"] == 0
    assert report["during_steps"]["pages_peer"] == 0
    assert report["stats"]["cpu_faults"] == report["stats"]["pages_to_system"] == 0
    # The pages on the borders went from a band to the next, over the link.
    assert report["stats"]["pages_peer"] > 0
    # Each device has its band, and maps two rows of each plane next to it.
    assert all(pages >= 1000 for pages in report["pages"]["devices"])
    assert report["pages"]["system"] == 0
    assert report["pages"]["mapped_by_peers"] >= 16


def test_without_links_halos_go_by_system_memory(gpusvm, usable):
    report = run_json(gpusvm, "stencil", "--devices", 2)
    assert report["during_steps"]["pages_to_system"] > 0
    assert report["stats"]["pages_peer"] == report["pages"]["mapped_by_peers"] == 0


def check_stencil(gpusvm, path, devices, links):
    cells = random.Random(13).randbytes(10 * COLUMNS)
    path.write_bytes(cells)
    report = run_json(gpusvm, "stencil", "--devices", devices, "--links", links, "--input", path)
    assert (report["rows"], report["columns"], report["steps"]) == (10, COLUMNS, STEPS)
    assert report["sum"] == stencil(cells)


def test_stencil_of_a_file(gpusvm, usable, tmp_path, links):
    check_stencil(gpusvm, tmp_path / "cells", 4, links)


@pytest.mark.parametrize("devices, links", [(1, "none"), (2, "ring"), (3, "full"), (10, "ring")])
def test_stencil_on_so_many_devices(gpusvm, usable, tmp_path, devices, links):
    check_stencil(gpusvm, tmp_path / "cells", devices, links)


def test_a_row_for_each_device(gpusvm, usable, tmp_path):
    (tmp_path / "cells").write_bytes(b"x")
    report = run_json(gpusvm, "stencil", "--devices", 5, "--links", "ring",
                      "--input", tmp_path / "cells")
    assert report["rows"] == 5
    assert report["sum"] == stencil(b"x" + bytes(5 * COLUMNS - 1))


def test_stencil_text(gpusvm, usable):
    done = gpusvm("run", "stencil", "--devices", 2, "--links", "full")
    assert done.returncode == 0, done.stderr
    assert "during the steps: 0 pages to devices, 0 to system memory" in done.stdout
    assert "over links" in done.stdout and "equal to the CPU's" in done.stdout


@pytest.mark.parametrize("content, said", [
    (None, "No such file"), (b"", "the grid is empty"), ("folder", "not a regular file")])
def test_stencil_of_what_is_no_grid(gpusvm, tmp_path, content, said):
    path = tmp_path / "cells"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    done = gpusvm("run", "stencil", "--input", path)
    assert done.returncode == 2 and f"{path}: {said}" in done.stderr and not done.stdout


# ---- Too small devices --------------------------------------------------------------------------

@pytest.mark.parametrize("devices, links", [(1, "none"), (3, "ring")])
def test_oversubscribe(gpusvm, usable, devices, links):
    report = run_json(gpusvm, "oversubscribe", "--devices", devices, "--vram", "4M",
                      "--links", links)
    assert report["working_set_bytes"] == 4 * devices * (4 << 20)
    assert report["stats"]["vram_peak"] <= devices * (4 << 20)
    assert report["stats"]["evictions"] > 0
    assert report["pages"]["system"] > 0


def test_oversubscribe_has_a_size_of_its_own(gpusvm, usable):
    report = run_json(gpusvm, "oversubscribe", "--seed", 9)
    assert report["working_set_bytes"] >= 4 * report["vram_bytes"]


@pytest.mark.parametrize("args, said", [
    (["--input", "x"], "oversubscribe takes no --input"),
    (["--vram", "4096G"], "too little memory"),
    (["--vram", "16777215T"], "too little memory"),
])
def test_unusable(gpusvm, args, said):
    done = gpusvm("run", "oversubscribe", *args)
    assert done.returncode == 2 and said in done.stderr and not done.stdout


def test_a_stencil_on_devices_that_are_too_small(gpusvm, usable):
    report = run_json(gpusvm, "stencil", "--devices", 3, "--vram", "2M", "--links", "ring")
    assert report["stats"]["evictions"] > 0
    assert report["stats"]["vram_peak"] <= 3 * (2 << 20)


def test_json_tells_links(gpusvm, usable):
    done = gpusvm("run", "stencil", "--devices", 2, "--links", "ring", "--json")
    assert [(link["from"], link["to"]) for link in json.loads(done.stdout)["links"]] == [
        (0, 1), (1, 0)]
