# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""The built command, and whether a live process can be mirrored here."""

import os
import shutil
import subprocess
import tempfile

import pytest


@pytest.fixture(scope="session")
def gpusvm(build):
    def run(*args, timeout=60, **more):
        return subprocess.run([build / "tools/gpusvm", *map(str, args)], timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    return run


@pytest.fixture
def gpusvm_as_nobody(build):
    """As an ordinary user, from a place where everybody may run it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        command = shutil.copy(build / "tools/gpusvm", folder)

        def run(*args, **more):
            return subprocess.run([command, *args], user=65534, group=65534, extra_groups=[],
                                  timeout=60, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, **more)
        if os.getuid():
            pytest.skip("only root can become another user")
        yield run


@pytest.fixture(scope="session")
def usable(gpusvm):
    done = gpusvm("info")
    if done.returncode:
        pytest.skip(f"no userfaultfd here: {done.stderr.strip()}")
