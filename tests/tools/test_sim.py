# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""'gpusvm sim': its arguments, what it prints, and that a seed is a run. What it
finds is in tests/sim."""

import json
import pathlib
import re

import pytest

OPTIONS = ["--scenario", "--seed", "--runs", "--devices", "--scheduler", "--replay", "--output",
           "--no-shrink", "--points", "--json", "--help"]

QUICK = ["one-page", "two-pull", "munmap-bind", "clear-fault", "protect", "unbind-populate",
         "last-reference", "cached", "timeslice", "vram-full", "pins", "swap", "shared", "exit",
         "advice", "first-page"]
# Of host/userfault, two actors that meet, each.
PAIRS = [("userfault-page", 2), ("userfault-page", 6), ("userfault-hole", 4), ("userfault-map", 3),
         ("userfault-handover", 3), ("userfault-copy", 3), ("userfault-exclusive", 1),
         ("userfault-exclusive-copy", 3)]


def scenarios(gpusvm):
    text = gpusvm("sim", "--help").stdout
    return re.findall(r"^  ([\w-]+) +\S", text[text.index("Scenarios:"):], re.M)


def test_help(gpusvm):
    done = gpusvm("sim", "--help")
    assert done.returncode == 0 and not done.stderr
    assert re.findall(r"^  (--[\w-]+)", done.stdout, re.M) == OPTIONS
    assert len(scenarios(gpusvm)) >= 14


@pytest.mark.parametrize("arguments", [
    ["--scenario", "nothing"], ["--seed", "x"], ["--runs", "0"], ["--devices", "9"],
    ["--scheduler", "fair"], ["--replay", "/nowhere"], ["--what"], ["more"]])
def test_unusable_arguments(gpusvm, arguments):
    done = gpusvm("sim", *arguments)
    assert done.returncode == 2
    assert done.stderr and not done.stdout
    assert arguments[0].lstrip("-") in done.stderr or arguments[-1] in done.stderr


def test_json(gpusvm):
    done = gpusvm("sim", "--runs", 3, "--json")
    assert done.returncode == 0, done.stdout
    figures = json.loads(done.stdout)
    names = scenarios(gpusvm)
    assert figures["runs"] == 3 * len(names)
    assert [s["name"] for s in figures["scenarios"]] == names
    assert figures["failures"] == 0 and figures["failure"] is None
    assert figures["points"] == sum(s["points"] for s in figures["scenarios"])


def test_scenarios_of_one_home(gpusvm):
    names = [name for name in scenarios(gpusvm) if name.startswith("userfault-")]
    assert len(names) >= 13
    done = gpusvm("sim", "--scenario", "userfault", "--runs", 2, "--devices", 2, "--json")
    assert done.returncode == 0, done.stdout
    assert [s["name"] for s in json.loads(done.stdout)["scenarios"]] == names


@pytest.mark.parametrize("scenario", ["mixed", "userfault-all"])
def test_a_seed_is_a_run(gpusvm, scenario):
    def points(seed):
        done = gpusvm("sim", "--scenario", scenario, "--seed", seed, "--runs", 5, "--json")
        return json.loads(done.stdout)["points"]
    assert points(7) == points(7)
    assert points(7) != points(8)


def test_a_file_that_is_no_run(gpusvm, tmp_path):
    bad = tmp_path / "bad.sim"
    bad.write_text("gpusvm-sim 1\nscenario mixed\nnonsense\n")
    done = gpusvm("sim", "--replay", bad)
    assert done.returncode == 2 and "line 3" in done.stderr


@pytest.mark.parametrize("line", ["keep 5 1", "pages 100", "adversary deny 1"])
def test_a_file_of_what_the_scenario_has_not(gpusvm, tmp_path, line):
    bad = tmp_path / "bad.sim"
    bad.write_text(f"gpusvm-sim 1\nscenario one-page\nseed 3\ndevices 1\n{line}\nend\n")
    done = gpusvm("sim", "--replay", bad)
    assert done.returncode == 2 and "scenario has not" in done.stderr


def test_a_run_from_a_file(gpusvm, tmp_path):
    run = tmp_path / "run.sim"
    run.write_text("gpusvm-sim 1\nscenario one-page\nseed 3\ndevices 1\natomics 1\n"
                   "adversary alloc 20\nkeep 0 1f\nkeep 1 1f\nkeep 2 f\nchoice 0 90 3\nend\n")
    done = gpusvm("sim", "--replay", run)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^1 runs, \d+ points, .*: all are right$", done.stdout, re.M)


def seeds():
    text = (pathlib.Path(__file__).parent / "seeds.txt").read_text()
    return [line.split(None, 4)[:4] for line in text.splitlines() if line and line[0] != "#"]


@pytest.mark.parametrize("scenario,scheduler,devices,seed", seeds())
def test_what_went_wrong_once(gpusvm, tmp_path, scenario, scheduler, devices, seed):
    devices = [] if devices == "0" else ["--devices", devices]
    done = gpusvm("sim", "--scenario", scenario, "--scheduler", scheduler, "--seed",
                  max(1, int(seed) - 10), "--runs", 20, *devices, "--output",
                  tmp_path / "failed.sim")
    assert done.returncode == 0, done.stdout


# Those that take less than a second each; docs/TESTING.md has the others.
@pytest.mark.parametrize("scenario,seed", [(name, 1) for name in QUICK] + PAIRS)
def test_all_schedules(gpusvm, tmp_path, scenario, seed):
    done = gpusvm("sim", "--scenario", scenario, "--seed", seed, "--scheduler", "exhaustive",
                  "--json", "--output", tmp_path / "failed.sim")
    assert done.returncode == 0, done.stdout
    figures = json.loads(done.stdout)
    assert figures["complete"] and figures["runs"] >= 1
