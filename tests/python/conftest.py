# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""The shared library of the build, and the modules beside this file."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import gpusvm_ctypes  # noqa: E402


@pytest.fixture(scope="session")
def library(build):
    found = gpusvm_ctypes.Library(build / "libgpusvm.so.0")
    error, handle = found.open_with([])
    if error:
        pytest.skip(f"no userfaultfd here: gpusvm_open gives {error}")
    found.close(handle)
    return found
