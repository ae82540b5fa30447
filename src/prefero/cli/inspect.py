"""``prefero inspect``: what preference data will do, before a GPU is spent on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prefero.cli.console import Json, show, work


def inspect(
    data: Annotated[
        str, typer.Argument(help="Preference data: a file, a folder or a hub name.", show_default=False)
    ],
    split: Annotated[
        str, typer.Option("--split", help="Which split, where the data have several.")
    ] = "train",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="How many rows at most.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The HTML page to write.", show_default="NAME-inspection.html"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at preference data: repetitions, contradictions, length, noise, and what helps.

    Writes one HTML page, ordered by what matters.
    """
    from prefero.doctor.inspection import inspect as look
    from prefero.doctor.page import write
    from prefero.doctor.terminal import summary

    with work() as progress, progress.status("reading") as status:
        inspection = look(
            data, split=split, limit=limit, progress=lambda name: status.update(f"looking at {name}")
        )
        page = write(inspection, output or Path(f"{stem(data)}-inspection.html"))
    show({**inspection.as_dict(), "page": str(page)}, lambda: summary(inspection, page), as_json=as_json)


def stem(data: str) -> str:
    """The name of the data without its folders and endings."""
    return Path(data).name.split(".")[0] or "data"
