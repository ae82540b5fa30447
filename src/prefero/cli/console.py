"""Where the command line writes: results to stdout, the rest to stderr, and one process of many for all."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefero.storage import finite

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

INTERRUPTED = 130

Json = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout, the rest to stderr.")]


def is_main_process() -> bool:
    """Whether this process speaks for all those that ``torchrun`` started."""
    return os.environ.get("RANK", "0") == "0"


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, quiet=not is_main_process(), highlight=False)


@contextmanager
def work(*, resume: str = "") -> Iterator[Console]:
    """Around the part of a command that computes: yields the console for progress, and what libraries print
    goes to stderr. Ctrl-C ends the command with exit code 130; ``resume`` says how to resume."""
    try:
        with redirect_stdout(sys.stderr):
            yield console(stderr=True)
    except KeyboardInterrupt as interrupt:
        complain(str(interrupt) or " ".join(["interrupted;", resume] if resume else ["interrupted"]))
        raise typer.Exit(INTERRUPTED) from None


def show(payload: Any, human: Callable[[], RenderableType], *, as_json: bool) -> None:
    """Write the result of a command to stdout, as JSON or for people."""
    if not is_main_process():
        return
    if as_json:
        print(json.dumps(finite(payload), indent=2, ensure_ascii=False, default=str))
    else:
        console().print(human(), soft_wrap=False)


REMEDIES = {
    errno.ENAMETOOLONG: "the system takes names of 255 bytes: choose a shorter one",
    errno.EACCES: "check the permissions, or name another place",
    errno.EPERM: "check the permissions, or name another place",
    errno.EROFS: "name a place on a disk that can be written to",
    errno.ENOSPC: "free some space, or name a place on another disk",
    errno.EDQUOT: "free some space, or name a place on another disk",
    errno.EFBIG: "name a place on a disk that takes larger files",
    errno.EMFILE: "let a process open more files (ulimit -n)",
    errno.ENOENT: "check the name",
    errno.ENOTDIR: "check the name: a part of it is a file",
    errno.EISDIR: "name a file",
}
"""What to do about an error of the system, by its number."""


def in_one_line(error: Exception) -> str | None:
    """The message of an error that libraries raise for what is outside: files, the system, settings and texts
    that they do not take; None for any other error, which is a mistake of the program."""
    from pydantic import ValidationError
    from safetensors import SafetensorError

    if isinstance(error, OSError):
        where = ", ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None)
        remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
        return f"{where}{': ' if where else ''}{error.strerror or error}{remedy}"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, (error.title, *first["loc"])))
        return f"{place} is {first['input']!r:.100}: {first['msg']}"
    if isinstance(error, SafetensorError):
        return f"a file of weights cannot be read: {error}; copy it again"
    if isinstance(error, UnicodeEncodeError):
        around = error.object[max(error.start - 20, 0) : error.end]
        return f"{around!a} cannot be written as UTF-8: write the name or the text in UTF-8"
    if isinstance(error, RecursionError):
        return "values are nested too deeply, or contain themselves: write them flat"
    if isinstance(error, MemoryError):
        return f"there is not enough memory{f' ({error})' if str(error) else ''}: take less data at a time"
    return None


def complain(message: str) -> None:
    """One message on stderr. On several machines each has a say: its disk may lack what the others' have."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"prefero: {message}", file=sys.stderr)
