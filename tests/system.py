"""Tests that need programs of the system, by Debian's packages; none of them is needed to use the library.

Where one is missing they are skipped by name and counted. ``make test-system`` runs them alone with this
module as a plugin, and ``STRICT=1`` makes a skip a failure, for machines that have installed everything.
"""

from __future__ import annotations

import os
import shutil

import pytest

PACKAGES = {"bwrap": "bubblewrap", "chromium": "chromium"}
"""Debian's package of each program."""

SKIPPED: list[str] = []


def needs(program: str) -> list[pytest.MarkDecorator]:
    """The marks of tests that need a program."""
    reason = f"{program} is not installed (Debian: {PACKAGES[program]})"
    return [pytest.mark.system, pytest.mark.skipif(not shutil.which(program), reason=reason)]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        SKIPPED.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        SKIPPED.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if SKIPPED and os.environ.get("STRICT") == "1":
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    strict = " (STRICT=1: a failure)" if os.environ.get("STRICT") == "1" else ""
    if SKIPPED:
        terminalreporter.write_line(f"skipped for want of a program: {len(SKIPPED)}{strict}")
