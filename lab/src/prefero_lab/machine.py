"""The commit and the machine of a measurement."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import prefero


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def processor() -> str:
    """The processor's name, as its maker gives it where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def commit() -> str:
    """The commit of the checkout that library and laboratory run from, with "+" if either has uncommitted
    changes; the version of the library where it was installed from a package."""
    sources = [str(Path(prefero.__file__).parent), str(Path(__file__).parent)]

    def git(*arguments: str) -> str:
        command = ["git", "-C", sources[0], *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "--", prefero.__file__):
            return version("prefero")
        changed = "+" if git("status", "--short", "--", *sources) else ""
        return git("rev-parse", "--short=10", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return version("prefero")
