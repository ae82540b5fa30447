"""Where the command line writes: results to stdout, the rest to stderr, and one process of many for all."""

from __future__ import annotations

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


def complain(message: str) -> None:
    """One message on stderr. On several machines each has a say: its disk may lack what the others' have."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"prefero: {message}", file=sys.stderr)
