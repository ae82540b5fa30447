"""``prefero methods``: what there is, and what one of them is."""

from __future__ import annotations

from typing import Annotated

import typer

from prefero.cli.console import Json, console, show


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, by its key.", show_default=False)] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Only methods that such data suffice for: pairs, lists, unpaired, ties, scores, steps, "
            "spans, or the name of a column or field. Repeat it for data of several kinds.",
            show_default=False,
        ),
    ] = None,
    paper: Annotated[
        str, typer.Option(help="Only methods of this paper: author, year, arXiv number, title or key.")
    ] = "",
    no_reference: Annotated[
        bool, typer.Option("--no-reference", help="Only methods that need no reference model.")
    ] = False,
    no_generation: Annotated[
        bool, typer.Option("--no-generation", help="Only methods that sample nothing while they train.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the methods; with NAME its equation, paper, knobs, and the data it takes."""
    from prefero.cli.catalogue import describe, overview
    from prefero.cli.catalogue_page import page, table

    if name is None:
        entries = overview(
            data=data or (), paper=paper, reference=not no_reference, generation=not no_generation
        )
        show(entries, lambda: table(entries, console().width), as_json=as_json)
    else:
        entry = describe(name)
        show(entry, lambda: page(entry), as_json=as_json)
