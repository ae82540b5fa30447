"""How programs are kept apart on this machine: namespaces by bubblewrap where a probe succeeds, else less.

A process of root gets a user id that nobody else has before it starts: the kernel counts root's processes
without limiting them, and lets root signal and read everybody's.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from prefero.errors import PreferoError
from prefero.sandbox.limits import Limits

Accept = Literal["namespaces", "limits"]

FOLDER = "/sandbox"
"""The program's folder inside bubblewrap's namespaces."""

SYSTEM = (
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
)
"""What programs read of the system besides /usr and the Python environment."""

PROBE = """
import os
read, write = os.pipe()
try:
    for _ in range(100):
        if os.fork() == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
except BlockingIOError:
    os._exit(0)
raise SystemExit("the number of processes cannot be limited")
"""
"""A program that ends well where Python runs and the limit of processes holds."""

ROOM = 2**30

COUNTS_APART = (5, 14)
"""Since this version Linux counts the processes of a user namespace apart from the user's others."""


@dataclass(frozen=True, slots=True)
class Protection:
    """The means in force, and what they hold."""

    means: Literal["bubblewrap", "unshare", "none"]
    user: Literal["own", "reader", "caller"]
    """Whose rights a program has: a user's who owns nothing, such a user's who reads what root does, which a
    Python in root's own folder needs, or the caller's."""
    missing: tuple[str, ...] = ()
    """Why there is no more: each stronger means with the reason."""

    @property
    def holds(self) -> tuple[str, ...]:
        """What a program cannot get around."""
        common = (
            "no variable of the caller's environment",
            "limits of time, memory, processes, file sizes and output",
        )
        if self.means == "none":
            return common
        apart = ("no network", "sees and signals its own processes only, all of which end with it")
        if self.means == "unshare":
            return *apart, *common
        files = ("reads the system and the Python environment only", "writes its own folder only, in memory")
        return *files, *apart, *common

    @property
    def lacks(self) -> tuple[str, ...]:
        """What it can do all the same."""
        if self.means == "bubblewrap":
            return ()
        files = {
            "own": "reads and writes what everybody may",
            "reader": "reads every file and writes what everybody may",
            "caller": "reads and writes the caller's files",
        }[self.user]
        if self.means == "unshare":
            return (files,)
        processes = ("signals and looks into the caller's processes",) if self.user == "caller" else ()
        return files, "has the network", *processes

    def __str__(self) -> str:
        name = {
            "bubblewrap": "namespaces (bubblewrap)",
            "unshare": "limits and namespaces, without files of its own (unshare)",
            "none": "limits alone",
        }[self.means]
        lacks = f". But it {'; '.join(self.lacks)}" if self.lacks else ""
        missing = f" ({'; '.join(self.missing)})" if self.missing else ""
        return f"{name}: {'; '.join(self.holds)}{lacks}{missing}"


def protection(accept: Accept = "namespaces") -> Protection:
    """The strongest protection that works here, tried once for each process.

    With ``accept="namespaces"`` a machine that has less is refused; ``"limits"`` takes what there is.
    """
    strongest = _strongest()
    if isinstance(strongest, str):
        raise PreferoError(f"the sandbox cannot run here: {strongest}")
    if accept == "namespaces" and strongest.means != "bubblewrap":
        raise PreferoError(
            f"the sandbox is refused: {'; '.join(strongest.missing)}. Install bubblewrap (Debian: apt "
            "install bubblewrap) and allow user namespaces, or accept less (accept='limits'): a program then "
            f"{'; '.join(strongest.lacks)}"
        )
    return strongest


@lru_cache(maxsize=1)
def _strongest() -> Protection | str:
    """The strongest protection; the reasons if there is none."""
    missing: list[str] = []
    for means in ("bubblewrap", "unshare", "none"):
        reasons = []
        for user in _users(means):
            candidate = Protection(means, user, tuple(missing))
            if not (reason := _probe(candidate)):
                return candidate
            reasons.append(reason)
        missing.append(f"{means}: {', '.join(dict.fromkeys(reasons))}")
    return "; ".join(missing)


def _users(means: str) -> tuple[Literal["own", "reader", "caller"], ...]:
    """Whose rights to try, the fewest first."""
    if os.getuid() or _free_user() is None:
        return ("caller",)
    return ("own",) if means == "bubblewrap" else ("own", "reader")


def _probe(candidate: Protection) -> str:
    """Why Python does not run under a protection; empty if it does."""
    command = {"bubblewrap": "bwrap", "unshare": "unshare", "none": "prlimit"}[candidate.means]
    if not shutil.which(command):
        return f"the command {command} is not installed"
    try:
        done = subprocess.run(
            confined([sys.executable, "-I", "-S", "-c", PROBE], Limits(processes=8), candidate),
            env=environment(FOLDER),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"


def confined(
    argv: Sequence[str], limits: Limits, protection: Protection, inside: Sequence[str] = ()
) -> list[str]:
    """The command that runs ``argv`` under a protection; ``inside`` are bubblewrap's arguments for the
    program's folder."""
    resources = _resources(limits, _outside(protection))
    user = ["setpriv", *_user(protection), "--no-new-privs", "--pdeathsig=KILL", "--"]
    if protection.means == "bubblewrap":
        view, arranged = _view(), list[str]()
        if protection.user == "own":  # root arranges the files, which the other user may not reach
            # All end with its process namespace: its own signal, from root without powers, reaches no user.
            apart = ["--unshare-pid", "--die-with-parent", "--bind", "/proc", "/proc"]
            arranged = ["bwrap", *view, *apart, "--", *user]
            view = ["--bind", "/", "/"]
        return [*arranged, "bwrap", *view, *_namespaces(limits, inside), "--", *resources, *argv]
    if protection.means == "unshare":
        unprivileged = [] if protection.user != "caller" else ["--user", "--map-current-user"]
        apart = ["--net", "--pid", "--ipc", "--mount", "--mount-proc", "--fork", "--kill-child"]
        tied = ["setpriv", "--pdeathsig=KILL", "--"]
        return [*tied, "unshare", *unprivileged, *apart, "--", *user, *resources, *argv]
    return [*user, *resources, *argv]


def environment(folder: str) -> dict[str, str]:
    """The variables of a program: none of the caller's."""
    path = [f"{sys.prefix}/bin", "/usr/local/bin", "/usr/bin", "/bin"]
    return {"PATH": ":".join(path), "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}


def _view() -> list[str]:
    """Arguments for the part of the file system that programs see."""
    paths = [path for path in SYSTEM if os.path.exists(path)]
    interpreter = Path(sys.executable).resolve().parent.parent
    for prefix in sorted({sys.base_prefix, sys.prefix, str(interpreter)} - {"/"}):
        if not Path(prefix).is_relative_to("/usr"):
            paths.append(prefix)
    view = ["--ro-bind", "/usr", "/usr"]
    for path in paths:
        for parent in reversed(Path(path).parents[:-1]):
            view += ["--perms", "0755", "--dir", str(parent)]
        view += ["--ro-bind", path, path]
    return [*view, "--dir", FOLDER, "--dir", "/tmp", "--dev", "/dev"]


def _namespaces(limits: Limits, inside: Sequence[str]) -> list[str]:
    """Arguments for everything else: no further namespace can be made inside, where a program could mount
    memory that nobody counts."""
    arguments = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    arguments += ["--dev", "/dev", "--proc", "/proc", "--size", str(limits.folder), "--tmpfs", FOLDER]
    return [*arguments, *inside, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", FOLDER]


def _resources(limits: Limits, outside: int) -> list[str]:
    """The command that sets the kernel's limits of each process and becomes the program behind it.

    Addresses have room above the memory, for libraries and for what is reserved and never used.
    """
    seconds = math.ceil(limits.cpu)
    return [
        "prlimit",
        f"--cpu={seconds}:{seconds + 1}",
        f"--data={limits.memory}",
        f"--as={limits.memory + ROOM}",
        f"--nproc={limits.processes + outside}",
        f"--fsize={limits.file}",
        "--nofile=128",
        "--core=0",
        "--",
    ]


def _user(protection: Protection) -> list[str]:
    """Arguments that take root's name and powers away."""
    if protection.user == "caller":
        return ["--inh-caps=-all", "--bounding-set=-all"] if os.getuid() == 0 else []
    user, reads = _free_user(), protection.user == "reader"
    powers = "-all,+dac_read_search" if reads else "-all"
    ambient = ["--ambient-caps=+dac_read_search"] if reads else []
    return [
        f"--reuid={user}",
        f"--regid={user}",
        "--clear-groups",
        f"--inh-caps={powers}",
        f"--bounding-set={powers}",
        *ambient,
    ]


def _free_user() -> int | None:
    """A user id that this process may take and, most likely, nobody has; None where there are few."""
    first, _, count = map(int, Path("/proc/self/uid_map").read_text().splitlines()[-1].split())
    count = min(count, 2**31 - 2 - first)
    return first + count - 2 - secrets.randbelow(count // 2) if count >= 1000 else None


def _outside(protection: Protection) -> int:
    """How many processes that are none of the program's count towards its limit."""
    if protection.user != "caller":
        return 1
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if protection.means != "none" and version and tuple(map(int, version.groups())) >= COUNTS_APART:
        return 1
    tasks = 1
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == os.getuid():
                tasks += len(os.listdir(process / "task"))
        except OSError:  # it has ended
            continue
    return tasks
