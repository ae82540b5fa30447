"""``prefero merge``: adapters merged into the model that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import prefero
from prefero.cli.console import Json, complain, show, work

if TYPE_CHECKING:
    from rich.console import RenderableType

    from prefero.training.merging import Merged


def merge(
    adapters: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_ADAPTERS", help="The folder of a run, or a folder or hub name of PEFT adapters."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A new folder for the merged model.", show_default=False)
    ],
    base: Annotated[
        str | None,
        typer.Option(
            help="The model that the adapters belong to, if it has moved.",
            show_default="what adapter_config.json names",
        ),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Data type of the merged weights; auto is that of the base."),
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Merge adapters into the weights of their model, and save it as a whole model.

    The result has a tokenizer, a chat template, generation settings and a card, and loads without PEFT.
    """
    with work():
        merged = prefero.merge(adapters, output, base=base, dtype=dtype)
    for note in merged.notes:
        complain(note)
    show(merged.as_dict(), lambda: _in_words(merged), as_json=as_json)


def _in_words(merged: Merged) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    same = f"log-probabilities within {merged.difference:.2g} nats of those of the base with its adapters"
    facts = {
        "model": f"{merged.folder} ({merged.dtype})",
        "base": merged.base,
        "adapters": merged.adapters,
        "verified": same,
    }
    for name, fact in facts.items():
        grid.add_row(name, Text(fact))
    return grid
