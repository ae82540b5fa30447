"""One program run in the sandbox."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from prefero.errors import PreferoError
from prefero.sandbox import supervisor
from prefero.sandbox.confinement import FOLDER, Accept, Protection, confined, environment, protection
from prefero.sandbox.limits import Limits

Status = Literal["ok", "error", "timeout", "memory", "output", "killed"]

MOST_FILES = 500

REFUSED_MEMORY = ("MemoryError", "std::bad_alloc", "Cannot allocate memory", "out of memory")
LAST_WORDS = 500

GRACE = 60.0
"""Seconds that the supervisor has beyond the program's."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a program ended.

    ``ok`` is exit status 0, ``error`` another one; ``timeout`` (wall or processor time), ``memory`` and
    ``output`` name the limit that it passed, upon which it was killed; ``killed`` is any other signal. A
    program that is refused memory, a process or a file ends as it likes, mostly as ``error``; it is
    ``memory`` too if its last words on standard error are those of Python, C or C++ for that.
    """

    status: Status
    code: int
    """Exit status, or the negative number of the signal."""
    stdout: str
    """Standard output, cut at the limit; bytes that are no UTF-8 are replaced."""
    stderr: str
    cpu: float
    """Seconds of processor time of all processes. One that nobody waited for counts up to the last look."""
    memory: int
    """The most bytes of memory at a time, looked at twenty times a second."""
    wall: float
    """Seconds from start to end."""
    protection: Protection
    """What was in force."""

    def agrees(self, other: Run) -> bool:
        """Whether another run of the same program ended alike and printed the same."""
        return (self.status, self.code, self.stdout) == (other.status, other.code, other.stdout)


def run(
    argv: Sequence[str],
    files: Mapping[str, str | bytes] | None = None,
    limits: Limits | None = None,
    *,
    accept: Accept = "namespaces",
) -> Run:
    """Run a program that is not trusted, and end everything that it started.

    ``files`` (relative path to content) lie in a fresh folder, where the program starts and which is all that
    it may write; nothing of it is kept. It reads the system's programs and this Python environment, has no
    input, no network and none of the caller's environment.

    Raises ``PreferoError`` where the machine lacks namespaces, unless ``accept="limits"`` (``Run.protection``
    says what held then), and for paths of files that lead out of the folder.
    """
    limits = limits or Limits()
    force = protection(accept)
    contents = _checked(argv, files or {}, limits)
    with ExitStack() as held:
        if force.means == "bubblewrap":
            started = _in_memory(b"", held)
            inherited = {f"{FOLDER}/{name}": _in_memory(content, held) for name, content in contents.items()}
            arguments = ["--json-status-fd", str(started)]
            for place, descriptor in inherited.items():
                arguments += ["--perms", "0700", "--file", str(descriptor), place]
            command = confined(argv, limits, force, arguments)
            report = _supervised(command, limits, "", [started, *inherited.values()])
            if not report["status"] and b"exit-code" not in os.pread(started, 4096, 0):
                raise PreferoError(f"the sandbox failed: {_text(report['stderr']).strip()} ({force})")
        else:
            folder = _on_disk(contents, force.user != "caller")
            held.callback(shutil.rmtree, folder, ignore_errors=True)  # where no supervisor could do it
            report = _supervised(confined(argv, limits, force), limits, folder, [])
    stderr = _text(report["stderr"])
    code = _exit_code(report["code"], force)
    return Run(
        status=report["status"] or _status(code, report["cpu"] >= limits.cpu, stderr),
        code=code,
        stdout=_text(report["stdout"]),
        stderr=stderr,
        cpu=report["cpu"],
        memory=report["memory"],
        wall=report["wall"],
        protection=force,
    )


def run_twice(
    argv: Sequence[str],
    files: Mapping[str, str | bytes] | None = None,
    limits: Limits | None = None,
    *,
    accept: Accept = "namespaces",
) -> tuple[Run, Run]:
    """Two runs of a program. Unless they agree (``Run.agrees``), it is flaky, and no verdict on it holds."""
    first = run(argv, files, limits, accept=accept)
    return first, run(argv, files, limits, accept=accept)


def _supervised(command: list[str], limits: Limits, folder: str, descriptors: list[int]) -> dict[str, Any]:
    """The report of a supervisor; one that is not waited for to the end (Ctrl-C) ends its program first.
    Without a ``folder`` on the disk the program has bubblewrap's in memory."""
    request = {
        "command": command,
        "environment": environment(folder or FOLDER),
        "limits": asdict(limits),
        "folder": folder,
        "memory_folder": "" if folder else FOLDER,
        "parent": os.getpid(),
    }
    with subprocess.Popen(
        [sys.executable, "-I", "-S", supervisor.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=descriptors,
        start_new_session=True,
    ) as process:
        try:
            report, complaint = process.communicate(json.dumps(request).encode() + b"\n", limits.wall + GRACE)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        reason = complaint.decode(errors="replace").strip() or f"exit status {process.returncode}"
        raise PreferoError(f"the sandbox failed: {reason}")
    return dict(json.loads(report))


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")


def _checked(argv: Sequence[str], files: Mapping[str, str | bytes], limits: Limits) -> dict[str, bytes]:
    """The content of each file by its path; errors for what cannot be handed over."""
    if not argv or any("\0" in word for word in argv):
        raise PreferoError(f"sandbox: expected a command without zero bytes, got {list(argv)!r}")
    if len(files) > MOST_FILES:
        raise PreferoError(f"sandbox: {len(files)} files; at most {MOST_FILES} can be handed over")
    contents: dict[str, bytes] = {}
    for name, text in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise PreferoError(
                f"sandbox: file {name!r}: expected a relative path inside the folder, without '..'"
            )
        contents[str(path)] = text.encode() if isinstance(text, str) else text
    if len(contents) < len(files):
        raise PreferoError(f"sandbox: two files have the same path: {', '.join(map(repr, files))}")
    if folders := sorted(
        {str(parent) for name in contents for parent in PurePosixPath(name).parents} & set(contents)
    ):
        raise PreferoError(f"sandbox: {folders[0]!r} is a file and a folder of other files")
    if sum(map(len, contents.values())) > limits.folder:
        raise PreferoError(f"sandbox: the files have more bytes than limits.folder={limits.folder}")
    return contents


def _in_memory(content: bytes, held: ExitStack) -> int:
    """A descriptor of a file without a name, at its start; open as long as ``held``."""
    descriptor = os.memfd_create("sandbox")
    held.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _on_disk(files: Mapping[str, bytes], for_anybody: bool) -> str:
    """A fresh folder with the files, which another user id may write to."""
    folder = Path(tempfile.mkdtemp(prefix="prefero-sandbox-"))
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o700)
    if for_anybody:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777)
    return str(folder)


def _exit_code(code: int, force: Protection) -> int:
    """Bubblewrap tells a signal as shells do, by 128 and its number."""
    by_number = force.means == "bubblewrap" and code - 128 in set(signal.Signals)
    return 128 - code if by_number else code


def _status(code: int, used_up: bool, stderr: str) -> Status:
    if code == 0:
        return "ok"
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and used_up):
        return "timeout"
    if any(words in stderr[-LAST_WORDS:] for words in REFUSED_MEMORY):
        return "memory"
    return "error" if code > 0 else "killed"
