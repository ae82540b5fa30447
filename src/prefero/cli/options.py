"""Options by which rows are read and written as tokens: the same words in every command that reads data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

Columns = Annotated[
    str | None,
    typer.Option(
        help="Where fields stand under other names: prompt=context,chosen=good,rejected=bad.",
        show_default=False,
    ),
]
Format = Annotated[
    str | None, typer.Option(help="The layout of the rows; auto recognises it.", show_default="auto")
]


def _template(text: str | None) -> str | None:
    """The name of a template, also as Python and YAML write names."""
    return text.lower() if text is not None and text.lower() in ("none", "auto") else text


Template = Annotated[
    str | None,
    typer.Option(
        help="The chat template: auto (the tokenizer's own), none, a training template's name, or a file.",
        show_default="auto",
        callback=_template,
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(help="Most tokens of a prompt with its response.", show_default="the model's context"),
]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read, and list them.")
]


def columns_of(text: str | None) -> Mapping[str, str]:
    """The columns of an option. Raises :class:`PreferoError` for another form."""
    from prefero.data.formats import parse_columns

    return parse_columns(text or "")
