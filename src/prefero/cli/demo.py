"""``prefero demo``: the whole path in minutes on two CPU cores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prefero.cli.console import Json, show, work


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything it makes.")] = Path(
        "demo"
    ),
    as_json: Json = False,
) -> None:
    """Make a small world, align a model in it with DPO, IPO and SimPO, and show what came of it."""
    from prefero.demo import run

    with work() as progress:
        outcome = run(output, console=progress)
    show(outcome.as_dict(), outcome.table, as_json=as_json)
