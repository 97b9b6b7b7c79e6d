# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""The command's arguments and input: what cannot be used is said, with exit 2."""

import json
import os
import re
import resource
import subprocess

import pytest


def test_help_everywhere(gpusvm):
    for args in (["--help"], ["info", "--help"], ["run", "--help"], ["bench", "--help"]):
        done = gpusvm(*args)
        assert done.returncode == 0
        assert done.stdout.startswith("Usage: gpusvm") and not done.stderr


def test_version(gpusvm):
    assert gpusvm("--version").stdout.split()[0] == "gpusvm"


@pytest.mark.parametrize("args, said", [
    ([], "Usage:"),
    (["fly"], "'fly' is no command"),
    (["info", "more"], "'more'"),
    (["info", "--without", "wings"], "'wings'"),
    (["run"], "no workload"),
    (["run", "fly"], "'fly' is no workload"),
    (["run", "bfs", "pagerank"], "one workload at a time"),
    (["run", "bfs", "--devices", "0"], "--devices 0"),
    (["run", "bfs", "--devices", "65"], "--devices 65"),
    (["run", "bfs", "--vram", "1M"], "--vram 1M"),
    (["run", "bfs", "--vram", "12Q"], "--vram 12Q"),
    (["run", "bfs", "--vram", "99999999999999999999"], "--vram"),
    (["run", "bfs", "--seed", "-1"], "--seed -1"),
    (["run", "bfs", "--input", "a", "--input", "b"], "one --input"),
    (["run", "bfs", "--bogus"], "--bogus"),
    (["run", "bfs", "--input"], "--input"),
    (["bench", "fly"], "'fly'"),
    (["bench", "a", "b"], "one name at a time"),
])
def test_unusable_arguments(gpusvm, args, said):
    done = gpusvm(*args)
    assert done.returncode == 2
    assert said in done.stderr and not done.stdout


@pytest.mark.parametrize("workload", ["pagerank", "bfs"])
@pytest.mark.parametrize("text, said", ids=lambda value: re.sub(r"[^\w']+", "-", value),
                         argvalues=[
    ("a b\nb c\nc\n", "graph.txt:3: an edge is two names"),
    ("a b c\n", "graph.txt:1: an edge is two names"),
    ("# one\nnodes 3\n0 1\n1 3\n", "graph.txt:4: an edge to '3', which is no node"),
    ("nodes 3\n\n9 1\n", "graph.txt:3: an edge from '9', which is no node"),
    ("nodes many\n", "graph.txt:1: 'nodes many'"),
    ("nodes 0\n", "graph.txt:1: 'nodes 0'"),
    ("nodes 4294967290\n", "graph.txt:1: too little memory"),
    ("a b\n\0\0\n", "graph.txt:2: this is not text"),
    ("# nothing\n\n", "graph.txt:2: the graph is empty"),
    ("", "the graph is empty"),
])
def test_malformed_graphs(gpusvm, tmp_path, workload, text, said):
    path = tmp_path / "graph.txt"
    path.write_text(text)
    done = gpusvm("run", workload, "--input", path)
    assert done.returncode == 2
    assert said in done.stderr and not done.stdout


@pytest.mark.parametrize("workload", ["pagerank", "bfs", "wordcount"])
def test_input_that_is_not_there(gpusvm, tmp_path, workload):
    missing = gpusvm("run", workload, "--input", tmp_path / "no")
    assert missing.returncode == 2 and f"{tmp_path}/no: No such file" in missing.stderr
    folder = gpusvm("run", workload, "--input", tmp_path)
    assert folder.returncode == 2 and str(tmp_path) in folder.stderr


def test_no_word_to_count(gpusvm, tmp_path):
    (tmp_path / "empty").write_text(" .,\n")
    done = gpusvm("run", "wordcount", "--input", tmp_path / "empty")
    assert done.returncode == 2 and "no word" in done.stderr


def test_too_little_memory(gpusvm, tmp_path, usable):
    (tmp_path / "graph.txt").write_text("a b\n")
    done = gpusvm("run", "bfs", "--input", tmp_path / "graph.txt", "--vram", "4096G")
    assert done.returncode == 2 and "too little memory" in done.stderr

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
    done = gpusvm("run", "bfs", "--input", tmp_path / "graph.txt", preexec_fn=limit)
    assert done.returncode == 2 and "too little memory" in done.stderr


def test_nothing_is_left_behind(gpusvm, tmp_path, usable):
    (tmp_path / "graph.txt").write_text("a b\nb\n")
    before = sorted(tmp_path.rglob("*"))
    gpusvm("run", "bfs", "--input", "graph.txt", cwd=tmp_path)
    (tmp_path / "graph.txt").write_text("a b\n")
    gpusvm("run", "bfs", "--input", "graph.txt", cwd=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_names_that_are_no_utf8(gpusvm, tmp_path):
    """Input is bytes; JSON is not: what it cannot have is a '?', and nothing is left out."""
    path = tmp_path / os.fsdecode(b"gr\xffph.txt")
    path.write_bytes(b"\xfe\xfd b\nb \xfe\xfd\n")
    for workload in ("bfs", "pagerank"):
        done = gpusvm("run", workload, "--input", path, "--seed", 2)
        assert done.returncode == 0 and f"{workload} of {tmp_path}/gr?ph.txt" in done.stdout
        report = json.loads(gpusvm("run", workload, "--input", path, "--json").stdout)
        assert report["input"] == f"{tmp_path}/gr?ph.txt"
        if workload == "pagerank":
            assert sorted(node["name"] for node in report["top"]) == ["??", "b"]
        else:
            assert report["from"] in ("??", "b")


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["info"], ["info", "--json"],
                                  ["sim", "--scenario", "one-page", "--runs", "2"]])
def test_unwritable_output(build, args):
    """A result that nobody could read is none."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([build / "tools/gpusvm", *args], stdout=full, timeout=60,
                              stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "No space left on device" in done.stderr
    closed = subprocess.run(["sh", "-c", 'exec "$0" "$@" >&-', build / "tools/gpusvm", *args],
                            timeout=60, stderr=subprocess.PIPE, text=True)
    assert closed.returncode == 2 and "cannot be written" in closed.stderr
