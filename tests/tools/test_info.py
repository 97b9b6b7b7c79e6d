# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""'gpusvm info': what it says is there, and what a fallback cannot promise."""

import ctypes
import errno
import json
import pathlib
import platform
import resource
import struct

import pytest


def info(gpusvm, *args):
    done = gpusvm("info", "--json", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_names_home_and_devices(gpusvm, usable):
    report = info(gpusvm)
    assert report["home"]["name"] == "userfault"
    assert report["error"] is None
    assert report["devices"][0]["vram_bytes"] == 256 << 20
    text = gpusvm("info").stdout
    assert "promises" in text and "device 0" in text


def test_it_says_how_it_knows_that_memory_is_short(gpusvm, usable):
    sources = info(gpusvm)["memory_pressure"]
    assert all(pathlib.Path(source).is_file() for source in sources)
    if pathlib.Path("/proc/pressure/memory").is_file():
        assert sources[0].endswith(("memory.pressure", "/proc/pressure/memory"))
    assert (sources[0] if sources else "allocations that fail") in gpusvm("info").stdout


@pytest.mark.parametrize("without, promise", [
    ("move", "any_memory"),
    ("event-fork", "fork"),
    ("kernel-faults", "kernel_access"),
])
def test_a_fallback_says_what_it_cannot_promise(gpusvm, usable, without, promise):
    if not info(gpusvm)["home"]["promises"][promise]:
        pytest.skip(f"this kernel does not promise {promise} in the first place")
    assert not info(gpusvm, "--without", without)["home"]["promises"][promise]
    assert "NO" in gpusvm("info", "--without", without).stdout


def test_an_ordinary_user_is_promised_less(gpusvm, gpusvm_as_nobody, usable):
    """Only faults of user mode are theirs, unless the sysctl or the node gives more."""
    settings = info(gpusvm)["settings"]
    if settings["vm.unprivileged_userfaultfd"] != "0":
        pytest.skip("vm.unprivileged_userfaultfd is not 0: nobody is refused anything")
    done = gpusvm_as_nobody("info", "--json")
    report = json.loads(done.stdout)
    if report["settings"]["/dev/userfaultfd"]:
        pytest.skip("/dev/userfaultfd is open to everybody here")
    assert done.returncode == 2 or not report["home"]["promises"]["kernel_access"]


def deny_userfaultfd():
    """A seccomp filter in the child: userfaultfd(2) gives EPERM."""
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    load, equal, answer, system_call = 0x20, 0x15, 0x06, 323
    code = b"".join(struct.pack("HBBI", *line) for line in (
        (load, 0, 0, 0), (equal, 0, 1, system_call), (answer, 0, 0, 0x00050000 | errno.EPERM),
        (answer, 0, 0, 0x7fff0000)))
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.byref(Program(len(code) // 8, code)), 0, 0) == 0


@pytest.mark.parametrize("args", [["info"], ["run", "pagerank"]])
def test_no_userfaultfd_is_one_clear_error(gpusvm_as_nobody, usable, args):
    if platform.machine() != "x86_64":
        pytest.skip("the filter is written for x86-64")
    done = gpusvm_as_nobody(*args, preexec_fn=deny_userfaultfd)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    if args == ["info"]:
        for word in ("vm.unprivileged_userfaultfd", "CAP_SYS_PTRACE", "/dev/userfaultfd"):
            assert word in done.stderr


def test_no_descriptor_is_no_missing_right(gpusvm, usable):
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))

    for command in (["info"], ["run", "bfs"]):
        done = gpusvm(*command, preexec_fn=few)
        assert done.returncode == 2 and "Too many open files" in done.stderr
