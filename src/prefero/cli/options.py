"""Options by which rows are read and written as tokens: the same words in every command that reads data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from prefero.errors import PreferoError

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
        help="The chat template: auto, own (the tokenizer's), none, a training template's name, or a file.",
        show_default="auto",
        callback=_template,
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(help="Most tokens of a prompt with its response.", show_default="the model's context"),
]
Map = Annotated[
    str | None,
    typer.Option(help="A function that makes each row another one: module:function.", show_default=False),
]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read, and list them.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")]
TooLong = Annotated[
    str | None,
    typer.Option(
        help="Past max-length: cut_response, keep_recent_prompt, drop or error.", show_default="cut_response"
    ),
]


def need_model(options: Mapping[str, object]) -> None:
    """Raise :class:`PreferoError` for options that have been given although nothing is done with them without
    a model."""
    if given := [name for name, value in options.items() if value is not None]:
        verb, them = ("needs", "it") if len(given) == 1 else ("need", "them")
        raise PreferoError(
            f"{', '.join(given)} {verb} --model: without a model nothing is done with {them}. Name the "
            f"model, or leave {them} out"
        )


def refuse_replacing(file: Path) -> None:
    """Raise :class:`PreferoError` for a file that is there already."""
    if file.exists():
        raise PreferoError(f"{file} is there already: name another file, or replace it with --overwrite")


@contextmanager
def advising(remedy: str) -> Iterator[None]:
    """Around the reading of rows: an error about a bad row says how this command leaves such rows out."""
    from prefero.data.formats import BadRowError

    try:
        yield
    except BadRowError as error:
        raise BadRowError(error.problem, remedy) from error


def columns_of(text: str | None) -> Mapping[str, str]:
    """The columns of an option. Raises :class:`PreferoError` for another form."""
    from prefero.data.formats import parse_columns

    return parse_columns(text or "")
