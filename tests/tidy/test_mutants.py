# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""Each mutant can be made of the tree as it is: a patch that no longer applies looks for
nothing (tests/mutants)."""

import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PATCHES = sorted((ROOT / "tests/mutants").rglob("*.patch"))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_applies(patch):
    done = subprocess.run(["patch", "-p1", "--dry-run", "-d", ROOT, "-i", patch],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
