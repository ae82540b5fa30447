"""``prefero demo``: the whole path in minutes on two CPU cores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prefero.cli.console import Json, show, work


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for models, data and the report.")
    ] = Path("demo"),
    as_json: Json = False,
) -> None:
    """Align a small model with DPO, IPO and SimPO on written reviews, and compare the results."""
    from prefero.demo.demonstration import run

    with work() as progress:
        demonstration = run(output, console=progress)
    show(demonstration.as_dict(), demonstration.table, as_json=as_json)
