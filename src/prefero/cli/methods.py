"""``prefero methods``: what there is, and what one of them is."""

from __future__ import annotations

from typing import Annotated

import typer

from prefero.cli.console import Json, show


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, by its key.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the methods; with NAME its equation, paper, knobs, and the data it takes."""
    from prefero.cli.catalogue import describe, overview, page, table

    if name is None:
        entries = overview()
        show(entries, lambda: table(entries), as_json=as_json)
    else:
        entry = describe(name)
        show(entry, lambda: page(entry), as_json=as_json)
