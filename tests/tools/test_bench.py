# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""'gpusvm bench': the names, and the form of what it prints. Not the figures:
those belong to the machine."""

import json
import re

import pytest

NAMES = ["to_device_64m_thp", "to_system_64m_thp", "zero_copy_to_device_64m_thp",
         "to_device_64m_4k", "to_system_64m_4k", "device_to_device_64m_thp", "cpu_scan_64m",
         "memory_4k_page", "memory_2m_page", "cpu_fault_4k", "gpu_fault_2m_present",
         "gpu_stream", "range_find_1m", "invalidate_4_devices", "get_pages_4_devices",
         "sim_steps_per_second"]


def test_names(gpusvm):
    text = gpusvm("bench", "--help").stdout
    assert re.findall(r"^  (\w+) +held against", text, re.M) == NAMES


def test_json(gpusvm, usable):
    done = gpusvm("bench", "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert [figure["name"] for figure in figures] == NAMES
    for figure in figures:
        assert set(figure) == {"name", "value", "unit", "limit", "limit_value", "ratio"}
        assert figure["ratio"] > 0 and figure["limit_value"] > 0


def test_table(gpusvm, usable):
    done = gpusvm("bench", "memory_4k")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^memory_4k_page +\d+\.\d+ +16\.000 bytes ", done.stdout, re.M)


def test_what_cannot_be_measured_is_said(gpusvm_as_nobody, usable):
    """Where only memory of gpusvm_alloc migrates, nothing moves that a figure could count."""
    promises = json.loads(gpusvm_as_nobody("info", "--json").stdout)["home"]["promises"]
    if promises["any_memory"]:
        pytest.skip("an ordinary user is promised all here")
    done = gpusvm_as_nobody("bench", "to_device_64m_thp")
    assert done.returncode == 2 and "'gpusvm info'" in done.stderr
