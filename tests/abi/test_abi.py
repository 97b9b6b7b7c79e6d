# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""The library as others meet it: what it exports, and how it installs."""

import ctypes
import os
import pathlib
import re
import subprocess

import pytest

README_EXAMPLE = re.compile(r"```c\n(.*?)```", re.S)


def run(*args, **more):
    done = subprocess.run([str(arg) for arg in args], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, **more)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def declared(root):
    text = (root / "include/gpusvm/gpusvm.h").read_text()
    return set(re.findall(r"GPUSVM_API[^;(]*?\b(gpusvm_\w+)\(", text))


@pytest.fixture(scope="module")
def installed(build, tmp_path_factory):
    """Installed below a folder; the environment in which pkg-config finds it there."""
    folder = tmp_path_factory.mktemp("installed")
    run("meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", folder)
    found = list(folder.rglob("gpusvm.pc"))
    assert len(found) == 1
    return {**os.environ, "PKG_CONFIG_PATH": str(found[0].parent),
            "PKG_CONFIG_SYSROOT_DIR": str(folder),
            "LD_LIBRARY_PATH": str(found[0].parent.parent)}


def flags(installed, name, *what):
    return run("pkg-config", *what, name, env=installed).split()


def test_exports_are_what_the_header_declares(build, declared):
    exported = {line.split()[-1].split("@")[0] for line in
                run("nm", "-D", "--defined-only", build / "libgpusvm.so").splitlines()
                if " A " not in line}
    assert declared and exported == declared


def test_map_is_what_the_header_declares(root, declared):
    text = re.sub(r"/\*.*?\*/|#[^\n]*", "", (root / "runtime/gpusvm.map").read_text(), flags=re.S)
    assert set(re.findall(r"\b(gpusvm_\w+);", text)) == declared


def test_can_be_loaded_late(build):
    """By dlopen: what libc keeps for thread-local storage of such libraries is little."""
    text = run("readelf", "-lW", build / "libgpusvm.so")
    size = re.search(r"^\s*TLS\s+(?:\S+\s+){4}(\S+)", text, re.M)
    assert int(size[1], 16) <= 256
    ctypes.CDLL(str(build / "libgpusvm.so"))


def test_needs_only_libc(build):
    text = run("readelf", "-d", build / "libgpusvm.so")
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", text))
    assert needed <= {"libc.so.6", "ld-linux-x86-64.so.2"}
    assert "[libgpusvm.so.0]" in text


def test_headers_stand_alone(root, installed, tmp_path):
    for name in sorted(p.name for p in (root / "include/gpusvm").glob("*.h")):
        source = tmp_path / f"{name}.c"
        source.write_text(f"#include <gpusvm/{name}>\n")
        module = "gpusvm" if name in ("gpusvm.h", "types.h") else "gpusvm-driver"
        run("cc", "-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror",
            "-fsyntax-only", source, *flags(installed, module, "--cflags"))


def test_header_is_cplusplus_too(installed, tmp_path):
    (tmp_path / "a.cc").write_text("#include <gpusvm/gpusvm.h>\nint main() { gpusvm_close(0); }\n")
    run("c++", "-Wall", "-Wextra", "-Werror", tmp_path / "a.cc", "-o", tmp_path / "a",
        *flags(installed, "gpusvm", "--cflags", "--libs"))
    run(tmp_path / "a", env=installed)


def test_the_example_of_the_readme(root, installed, tmp_path):
    example = README_EXAMPLE.search((root / "README.md").read_text())[1]
    (tmp_path / "a.c").write_text(example)
    run("cc", "-Wall", "-Wextra", tmp_path / "a.c", "-o", tmp_path / "a",
        *flags(installed, "gpusvm", "--cflags", "--libs"))
    done = subprocess.run([tmp_path / "a"], env=installed, stdout=subprocess.PIPE, text=True,
                          timeout=60)
    if done.returncode == 2:
        pytest.skip("no userfaultfd here: 'gpusvm info' says why")
    assert done.returncode == 0 and done.stdout == "6 nodes, sum 21\n"


def test_a_driver_links_the_static_library(installed, tmp_path):
    (tmp_path / "a.c").write_text(
        "#include <gpusvm/mirror.h>\n"
        "int main(void) { struct gpusvm_mirror m;\n"
        '  int result = gpusvm_mirror_init(&m, "a", 0, 0, 0, 0, 0, 0, 0);\n'
        "  if (!result) gpusvm_mirror_fini(&m);\n"
        "  return result; }\n")
    run("cc", tmp_path / "a.c", "-o", tmp_path / "a",
        *flags(installed, "gpusvm-driver", "--cflags", "--libs"))
    run(tmp_path / "a")


def test_static_library_leaves_names_to_the_program(installed, tmp_path):
    archive, = pathlib.Path(installed["PKG_CONFIG_SYSROOT_DIR"]).rglob("libgpusvm.a")
    names = [line.split()[2] for line in
             run("nm", "--defined-only", "--extern-only", archive).splitlines()
             if len(line.split()) == 3]
    assert names and all(re.match("gpusvm_|mm_|host_", name) for name in names)
    (tmp_path / "a.c").write_text(
        "#include <gpusvm/gpusvm.h>\n"
        "int call, notify, event_put, ring_init;\n"
        "int main(void) { return gpusvm_caps(NULL, NULL) == 0; }\n")
    run("cc", tmp_path / "a.c", "-o", tmp_path / "a",
        *flags(installed, "gpusvm", "--cflags"), archive, "-pthread")
    run(tmp_path / "a")
