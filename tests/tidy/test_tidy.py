# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""The rules of the house that a script can check."""

import re
import subprocess

import pytest

MAX_FILE_LINES = 1000
MAX_FUNCTION_LINES = 80
MAX_COLUMNS = 100
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(wo" r"rk|ro" r"ot|ho" r"me|Users)/\w")

# Folders above the door, and what their files may include besides their own.
ABOVE = {
    "core": ["host/host.h", "host/mm.h", "gpusvm/"],
    "devices/soft": ["host/host.h", "host/mm.h", "gpusvm/", "core/interval.h"],
    "driver": ["host/host.h", "host/mm.h", "gpusvm/", "core/", "policy/"],
    "policy": ["host/host.h", "gpusvm/types.h"],
}
BANNED = re.compile(
    r"(?<![\w.>])((?:malloc|calloc|realloc|free|printf|fprintf|snprintf|abort|assert|memcpy|memset|"
    r"memmove|strlen|strcmp|alloca|setjmp|longjmp|pthread_\w+)(?=\s*\()|errno\b|float\b|double\b)")


def files_of(root, *suffixes):
    """Tracked files and new ones, without what git ignores; all files where git has no say."""
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-co", "--exclude-standard"], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True)
    if listed.returncode == 0:
        names = listed.stdout.splitlines()
    else:
        names = [str(p.relative_to(root)) for p in root.rglob("*")
                 if not p.relative_to(root).parts[0].startswith(("build", ".git"))]
    files = sorted({n for n in names if (root / n).is_file()})
    return [n for n in files if not suffixes or n.endswith(suffixes)]


def code_of(text):
    """C without comments and strings; lines stay where they are."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match[0])
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def long_functions(text):
    """In this style a function's braces stand in the first column."""
    start = None
    for number, line in enumerate(text.splitlines(), 1):
        if line == "{":
            start = number
        elif line.startswith("}") and start is not None:
            if number - start + 1 > MAX_FUNCTION_LINES:
                yield start, number - start + 1
            start = None


def report(findings):
    assert not findings, "\n" + "\n".join(findings)


def test_every_file_states_its_licence(root):
    report([name for name in files_of(root)
            if not name.startswith("LICENSES/")
            and "SPDX-License-Identifier: MIT OR GPL-2.0-only"
            not in "\n".join((root / name).read_text().splitlines()[:3])])


def test_files_are_short(root):
    report([f"{name}: {lines} lines" for name in files_of(root, ".c", ".h", ".py", ".md")
            if (lines := len((root / name).read_text().splitlines())) >= MAX_FILE_LINES])


def test_functions_are_short(root):
    report([f"{name}:{line}: a function of {length} lines" for name in files_of(root, ".c", ".h")
            for line, length in long_functions((root / name).read_text())])


def test_a_long_function_is_seen():
    text = "int f(void)\n{\n" + "\tg();\n" * MAX_FUNCTION_LINES + "}\n"
    assert list(long_functions(text)) == [(2, MAX_FUNCTION_LINES + 2)]
    assert not list(long_functions("int f(void)\n{\n\tg();\n}\n"))


def test_lines_are_short(root):
    report([f"{name}:{number}: {len(line.expandtabs(8))} columns"
            for name in files_of(root, ".c", ".h", ".py", ".build")
            for number, line in enumerate((root / name).read_text().splitlines(), 1)
            if len(line.expandtabs(8)) > MAX_COLUMNS])


def test_nothing_is_left_unfinished(root):
    report([f"{name}:{number}: {match[0]}"
            for name in files_of(root) if not name.startswith("LICENSES/")
            for number, line in enumerate((root / name).read_text().splitlines(), 1)
            if (match := UNFINISHED.search(line))])


def test_no_path_of_one_machine(root):
    report([f"{name}:{number}: {line.strip()}"
            for name in files_of(root) if not name.startswith("LICENSES/")
            for number, line in enumerate((root / name).read_text().splitlines(), 1)
            if MACHINE_PATH.search(line)])


@pytest.mark.parametrize("folder", ABOVE)
def test_includes_go_down_only(root, folder):
    findings = []
    for name in files_of(root, ".c", ".h"):
        if not name.startswith(folder + "/"):
            continue
        for number, line in enumerate((root / name).read_text().splitlines(), 1):
            include = re.match(r'\s*#\s*include\s*[<"](.+)[>"]', line)
            if not include:
                continue
            allowed = [*ABOVE[folder], folder + "/"]
            own = (root / name).parent / include[1]
            if not include[1].startswith(tuple(allowed)) and not own.exists():
                findings.append(f"{name}:{number}: {include[1]}")
            if include[1] == "gpusvm/gpusvm.h":
                findings.append(f"{name}:{number}: the application's header")
            if name.startswith("core/pagemap/") and "mirror" in include[1]:
                findings.append(f"{name}:{number}: pagemap knows no mirror")
    report(findings)


def test_no_libc_above_the_door(root):
    report([f"{name}:{number}: {match[1]}"
            for name in files_of(root, ".c", ".h") if name.startswith(tuple(f + "/" for f in ABOVE))
            for number, line in enumerate(code_of((root / name).read_text()).splitlines(), 1)
            if (match := BANNED.search(line))])


def test_banned_calls_are_seen():
    assert BANNED.search(code_of("p = malloc(4);"))
    assert BANNED.search(code_of("double x;"))
    assert not BANNED.search(code_of("ops->free(p); /* malloc */ s.free(p); host_free(p);"))
    assert not BANNED.search(code_of('host_warn("printf");'))
