"""``prefero report``: one HTML file about a run or a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prefero.cli.console import Json, show, work


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or of a comparison.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The HTML file to write.", show_default="RUN/report.html"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page about RUN: settings, data, curves, monitors, samples."""
    from prefero.report.page import render

    with work():
        page = render(run, output)
    show({"report": str(page)}, lambda: f"[bold]Report[/bold]  {page}", as_json=as_json)
