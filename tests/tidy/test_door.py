# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""The door's rule: what lies above host.h and mm.h needs nothing else, and the
same files compile in a Linux kernel module."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest

# What the compiler itself may call for in freestanding code.
COMPILER = {"memcpy", "memset", "memmove", "memcmp", "_GLOBAL_OFFSET_TABLE_"}


def declared(root):
    """The door's list of symbols: what host.h and mm.h declare."""
    text = (root / "host/host.h").read_text() + (root / "host/mm.h").read_text()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return set(re.findall(r"\b((?:host|mm)_\w+)\s*\(", text))


def outside(objects):
    """Symbols that the objects need and none of them defines."""
    need, have = {}, set()
    lines = subprocess.run(["nm", "-A", *objects], check=True, stdout=subprocess.PIPE,
                           text=True).stdout.splitlines()
    for line in lines:
        where, kind, symbol = re.match(r"(.*?):\s*(?:[0-9a-f]+)?\s+(\w) (\S+)$", line).groups()
        if kind in "Uw":
            need.setdefault(symbol, where)
        else:
            have.add(symbol)
    return {symbol: where for symbol, where in need.items() if symbol not in have}


def target_sources(build, name):
    targets = json.loads(subprocess.run(["meson", "introspect", "--targets", build], check=True,
                                        stdout=subprocess.PIPE, text=True).stdout)
    return [pathlib.Path(source) for target in targets if target["name"] == name
            for group in target["target_sources"] for source in group["sources"]]


def test_nothing_but_the_door_is_needed(root, build):
    allowed = declared(root) | COMPILER
    strange = {symbol: where for symbol, where in outside([build / "libgpusvm-door.a"]).items()
               if symbol not in allowed}
    assert not strange, f"neither in host.h nor in mm.h: {strange}"


def test_another_need_is_seen(root, tmp_path):
    source = tmp_path / "bad.c"
    source.write_text("int puts(const char *); void f(void); void f(void) { puts(\"\"); }\n")
    subprocess.run(["cc", "-ffreestanding", "-c", source, "-o", tmp_path / "bad.o"], check=True)
    assert set(outside([tmp_path / "bad.o"])) - declared(root) - COMPILER == {"puts"}


def kernel_headers():
    found = sorted(p for p in pathlib.Path("/usr/src").glob("linux-headers-*-amd64")
                   if (p / "Makefile").exists())
    if not found:
        pytest.skip("no Linux headers in /usr/src: the package linux-headers-amd64 is missing")
    return found[-1]


def test_it_compiles_in_a_kernel_module(root, build, tmp_path):
    """By the kernel's own build, as one module with host/linux. Its mm.h comes with
    the kernel home: until then mm_* may be undefined, and nothing else may."""
    headers = kernel_headers()
    sources = [source.relative_to(root) for source in target_sources(build, "gpusvm-door")]
    sources += [source.relative_to(root) for source in sorted((root / "host/linux").glob("*.c"))]
    for folder in ("core", "devices", "driver", "policy", "host", "include"):
        if (root / folder).exists():
            shutil.copytree(root / folder, tmp_path / folder)
    (tmp_path / "Kbuild").write_text(
        "obj-m := gpusvm.o\n"
        f"gpusvm-y := {' '.join(str(source.with_suffix('.o')) for source in sources)}\n"
        "ccflags-y := -I$(src) -I$(src)/include -Werror\n")
    done = subprocess.run(["make", "-k", "-j2", "-C", headers, f"M={tmp_path}",
                           "KBUILD_MODPOST_WARN=1",
                           "modules"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert done.returncode == 0, "\n".join(errors) or done.stdout
    undefined = set(re.findall(r'WARNING: modpost: "(\w+)"[^\n]* undefined!', done.stdout))
    strange = {symbol for symbol in undefined if symbol not in declared(root)
               or not symbol.startswith("mm_")}
    assert not strange, f"the kernel does not have: {strange}"
    info = subprocess.run(["modinfo", "-F", "license", tmp_path / "gpusvm.ko"],
                          stdout=subprocess.PIPE, text=True) if shutil.which("modinfo") else None
    assert info is None or info.stdout.strip() == "Dual MIT/GPL"
