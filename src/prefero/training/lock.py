"""One run at a time in a folder: a lock file that says which process on which machine has it."""

from __future__ import annotations

import errno
import json
import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from prefero.errors import PreferoError
from prefero.storage import writing

try:
    import fcntl
except ImportError:  # Windows, where a file that is there counts as a lock
    fcntl = None  # type: ignore[assignment]

NAME = "_running.json"
"""The lock file; what begins with an underscore is not pushed to the hub."""

_FACTS = ("process", "host", "since")


class FolderLock:
    """Keeps a folder for this process.

    The operating system lifts the lock when the process ends, however it ends, so that the file of a dead
    process on the same machine is taken over. A file that another machine wrote is not: nothing tells from
    here whether its process lives.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / NAME
        self._held: IO[str] | None = None

    def take(self) -> None:
        """Lock the folder, which is made if there is none. Raises :class:`PreferoError` naming the process
        that has it."""
        with writing(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            handle = _locked(self.file, "a+")
            while not _is_there(self.file, handle):  # its owner has removed it while it was opened
                handle.close()
                handle = _locked(self.file, "a+")
            handle.truncate(0)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            handle.write(json.dumps({"process": os.getpid(), "host": platform.node(), "since": now}) + "\n")
            handle.flush()
        self._held = handle

    @property
    def lost(self) -> bool:
        """Whether the lock file is gone, by itself or with the folder."""
        return self._held is not None and not _is_there(self.file, self._held)

    def release(self) -> None:
        """Remove the lock file, unless another run has put its own in its place."""
        if self._held is not None:
            if not self.lost:
                self.file.unlink(missing_ok=True)
            self._held.close()
            self._held = None


def refuse_running(folder: Path) -> None:
    """Raise :class:`PreferoError` if another run is going in this folder."""
    with suppress(OSError):  # there is none, or the folder cannot be written to, which is found later
        _locked(folder / NAME, "r+").close()


def _locked(file: Path, mode: str) -> IO[str]:
    """The lock file, locked. Raises :class:`PreferoError` where another process has it."""
    handle = file.open(mode, encoding="utf-8")
    known = fcntl is not None
    try:
        if known:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            told = dict.fromkeys(_FACTS, "unknown") | _owner(handle)
            handle.close()
            raise PreferoError(
                f"{file.parent} is in use: another run writes to it (process {told['process']} on "
                f"{told['host']}, since {told['since']}). Name another output folder, or wait until it ends"
            ) from None
        known = False  # this file system has no locks
    told = _owner(handle)
    if told and (told["host"] != platform.node() or not known):
        handle.close()
        raise PreferoError(
            f"{file.parent} is in use: process {told['process']} on {told['host']} writes to it, since "
            f"{told['since']}, and cannot be seen from here. Name another output folder; or, if that run has "
            f"ended, delete {file}"
        )
    return handle


def _owner(handle: IO[str]) -> dict[str, str]:
    """Read who holds a lock file; empty where its process had not got so far."""
    handle.seek(0)
    try:
        content = json.loads(handle.read())
        return {name: str(content.get(name, "unknown")) for name in _FACTS}
    except (ValueError, AttributeError):
        return {}


def _is_there(file: Path, handle: IO[str]) -> bool:
    """Whether the file at a place is still the one that was opened."""
    try:
        return os.path.samestat(file.stat(), os.fstat(handle.fileno()))
    except OSError:
        return False
