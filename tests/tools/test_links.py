# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""--devices and --links: files of links that cannot be used are told with file and line, and
'gpusvm info' shows those that can."""

import json

import pytest

COMMANDS = [["info"], ["run", "bfs"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("text, said", [
    ("0 1\n0 4\n", ":2: to '4': there is no such device, only 0 to 3"),
    ("# ring\n\n9 1\n", ":3: from '9': there is no such device"),
    ("1 1\n", ":1: a link of device 1 to itself"),
    ("0 1\n1 0\n0 1 500\n", ":3: the link from 0 to 1 is there already"),
    ("0\n", ":1: a link is 'FROM TO"),
    ("0 1 2 3 map 4\n", ":1: a link is 'FROM TO"),
    ("0 1 fast\n", ":1: bandwidth 'fast': not a number"),
    ("0 1 99999999999999999999\n", ":1: bandwidth '99999999999999999999': too large"),
    ("0 1 1 9223372036854775808\n", ":1: latency '9223372036854775808': too large"),
    ("0 99999999999999999999\n", ":1: to '99999999999999999999': too large"),
    ("0 -1\n", ":1: to '-1': not a number"),
    ("0 1 1 1 both\n", ":1: flags 'both'"),
    ("0 1\n\0\0\n", ":2: this is not text"),
])
def test_malformed(gpusvm, tmp_path, command, text, said):
    path = tmp_path / "links.txt"
    path.write_text(text)
    done = gpusvm(*command, "--links", path, "--devices", 4)
    assert done.returncode == 2
    assert f"{path}{said}" in done.stderr and not done.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_files_that_are_none(gpusvm, tmp_path, command):
    for path, said in ((tmp_path / "no", "No such file"), (tmp_path, "Is a directory"),
                       ("/dev/zero", "too long")):
        done = gpusvm(*command, "--devices", 2, "--links", path)
        assert done.returncode == 2 and not done.stdout
        assert f"{path}: {said}" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("args, said", [
    (["--devices", "0"], "--devices 0"),
    (["--devices", "65"], "--devices 65"),
    (["--devices", "two"], "--devices two"),
    (["--vram", "1M"], "--vram 1M"),
    (["--links"], "--links"),
])
def test_unusable_arguments(gpusvm, args, said):
    done = gpusvm("info", *args)
    assert done.returncode == 2 and said in done.stderr and not done.stdout


def links_of(gpusvm, devices, links):
    done = gpusvm("info", "--json", "--devices", devices, "--links", links)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["devices"]) == devices
    return report["links"]


def test_info_shows_devices(gpusvm, usable):
    done = gpusvm("info", "--json", "--devices", 3, "--vram", "4M")
    report = json.loads(done.stdout)
    assert [(device["name"], device["vram_bytes"], device["flags"])
            for device in report["devices"]] == [("soft", 4 << 20, [])] * 3
    assert report["links"] == []
    assert "device 2" in gpusvm("info", "--devices", 3).stdout


def test_info_shows_links(gpusvm, usable, tmp_path):
    path = tmp_path / "links.txt"
    path.write_text("# a chain\n0 1 32000 700 map\n2 1 0 5 copy # slow\n1 2\n")
    assert links_of(gpusvm, 3, path) == [
        {"from": 0, "to": 1, "bandwidth_mbps": 32000, "latency_ns": 700, "flags": ["map"]},
        {"from": 2, "to": 1, "bandwidth_mbps": None, "latency_ns": 5, "flags": ["copy"]},
        {"from": 1, "to": 2, "bandwidth_mbps": None, "latency_ns": None,
         "flags": ["map", "copy"]}]
    text = gpusvm("info", "--devices", 3, "--links", path).stdout
    assert "0 to 1: map, 32000 MB/s, 700 ns" in text and "1 to 2: map,copy\n" in text


@pytest.mark.parametrize("devices", [1, 2, 5])
def test_names(gpusvm, usable, devices):
    def pairs(links):
        return {(link["from"], link["to"]) for link in links_of(gpusvm, devices, links)}
    everyone = {(a, b) for a in range(devices) for b in range(devices) if a != b}
    assert pairs("none") == set()
    assert pairs("full") == everyone
    assert pairs("ring") == {(a, b) for a, b in everyone if (a - b) % devices in (1, devices - 1)}
