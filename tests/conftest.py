# SPDX-License-Identifier: MIT OR GPL-2.0-only
"""What all Python suites share: the tree, the build, and TAP output (--tap)."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption("--tap", action="store_true", help="end with one TAP line a case")


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def build():
    """The configured and built folder: GPUSVM_BUILD, or build/."""
    folder = pathlib.Path(os.environ.get("GPUSVM_BUILD", ROOT / "build"))
    if not (folder / "build.ninja").exists():
        pytest.skip("there is no build: run 'make' first")
    return folder


class Tap:
    """One line a case as it ends, so that a run cut short still says what it saw."""

    def __init__(self, terminal):
        self.terminal, self.count = terminal, 0

    def line(self, verdict, report, more=""):
        self.count += 1
        name = report.nodeid.replace("#", "_")
        self.terminal.write_line(f"{verdict} {self.count} - {name}{more}")

    def pytest_report_teststatus(self, report):
        """No letter for progress; the categories are pytest's own."""
        if report.when != "call" and report.passed:
            return "", "", ""
        return "error" if report.failed and report.when != "call" else report.outcome, "", ""

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.line("not ok", report)
        elif report.skipped:
            reason = str(report.longrepr[2]).replace("\n", " ").removeprefix("Skipped: ")
            self.line("ok", report, f" # SKIP {reason}")
        elif report.when == "call":
            self.line("ok", report)

    def pytest_terminal_summary(self):
        self.terminal.write_line(f"1..{self.count}")


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if config.getoption("--tap"):
        config.pluginmanager.register(Tap(config.pluginmanager.get_plugin("terminalreporter")))
