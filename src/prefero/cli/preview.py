"""``prefero preview``: rows of preference data as they are trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefero.cli.console import Json, complain, show, work
from prefero.cli.options import Columns, Format, MaxLength, SkipBadRows, Template, columns_of
from prefero.errors import PreferoError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from prefero.data.chat import Writing
    from prefero.data.examples import Examples
    from prefero.data.preview import Preview, PreviewedResponse


def preview(
    data: Annotated[
        str, typer.Argument(help="Preference data: a file, a folder or a hub name.", show_default=False)
    ],
    model: Annotated[
        str | None, typer.Option(help="The model whose tokens are shown.", show_default=False)
    ] = None,
    method: Annotated[str, typer.Option(help="The method that reads the rows.")] = "dpo",
    rows: Annotated[int, typer.Option(min=1, help="How many rows to show.")] = 10,
    row: Annotated[int, typer.Option(min=1, help="The first row to show, counted from 1 in the file.")] = 1,
    columns: Columns = None,
    template: Template = None,
    max_length: MaxLength = None,
    too_long: Annotated[
        str, typer.Option(help="Past max-length: cut_response, keep_recent_prompt, drop or error.")
    ] = "cut_response",
    split: Annotated[str, typer.Option(help="Which split, where the data have several.")] = "train",
    format: Format = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: Json = False,
) -> None:
    """Show the first rows of preference data as a model is trained on them.

    The text with its special tokens, what is scored, and the columns that are not read.
    """
    from prefero.data.chat import Writing
    from prefero.data.files import load_rows
    from prefero.data.formats import load_examples

    with work():
        examples = load_examples(
            load_rows(data, split=split, streaming=True),
            format=format or "auto",
            columns=columns_of(columns),
            skip_bad_rows=skip_bad_rows,
            limit=row + max(rows, FEWEST) - 1,
        )
        examples = from_row(examples, row, max(rows, FEWEST))
        writing = Writing(template or "auto")
        preview = preview_of(examples, model, method, writing, max_length, too_long, count=rows)
        preview = replace(preview, skipped=list(examples.skipped))
        for note in preview.notes:
            complain(note)
    show(preview.as_dict(), lambda: in_words(preview), as_json=as_json)


def convert(
    data: Annotated[str, typer.Argument(help="Preference data: a file, a folder or a hub name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write (.jsonl).")],
    columns: Columns = None,
    split: Annotated[str, typer.Option(help="Which split, where the data have several.")] = "train",
    format: Format = None,
    limit: Annotated[int | None, typer.Option(help="Largest number of rows.")] = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: Json = False,
) -> None:
    """Write the rows of preference data as they are read, in one layout.

    The result is read as the same examples.
    """
    from prefero.data.convert import row_of
    from prefero.data.formats import load_examples
    from prefero.doctor.commands import writable
    from prefero.storage import write_lines

    target = writable(output, data)
    with work():
        examples = load_examples(
            data,
            split=split,
            format=format or "auto",
            columns=columns_of(columns),
            skip_bad_rows=skip_bad_rows,
            limit=limit,
        )
        write_lines(target, [row_of(example) for example in examples])
    told = {"rows": len(examples), "layout": examples.format, "skipped": list(examples.skipped)}
    left = f", {len(examples.skipped)} rows left out" if examples.skipped else ""
    show(
        {**told, "output": str(target)},
        lambda: f"{len(examples)} rows, read as {examples.format}, written to {target}{left}",
        as_json=as_json,
    )


def from_row(examples: Examples, row: int, count: int) -> Examples:
    """At most ``count`` examples from a row of their file on, which may be one of several that were made one.
    Raises :class:`PreferoError` where there are none."""
    from prefero.data.preview import row_number

    ends = [max(row_number(each) or 0 for each in (one.origin, *one.joined)) for one in examples]
    kept = [example for example, end in zip(examples, ends, strict=True) if end >= row]
    if not kept and row > 1:
        raise PreferoError(f"{examples.name}: there is no row {row} or later, only {max(ends)} rows")
    return replace(examples, items=kept[:count] if row > 1 else examples.items[:count])


FEWEST = 2
"""Rows that are read at least: a method may set a row beside the next."""


def preview_of(
    examples: Examples,
    model: str | None,
    method: str,
    writing: Writing,
    max_length: int | None,
    too_long: Any,
    *,
    count: int,
) -> Preview:
    """The first ``count`` of the examples as a method reads them, and with a model as it is trained on them.

    Raises :class:`PreferoError` for a model whose rows are no tokens.
    """
    from prefero.data.arrange import arrange
    from prefero.data.preview import preview_rows
    from prefero.models.kind import Reading
    from prefero.models.loading import ModelSource, kind_of
    from prefero.objectives import dry_run, from_config

    needs = dry_run(from_config(method))
    if model is None:
        return preview_rows(
            arrange(examples, needs.roles, needs.columns, for_method=method), needs.roles, count
        )
    kind = kind_of("auto", ModelSource(model))
    data = kind.read(examples, needs, Reading("train", max_length, 0, method, too_long, writing))
    preview = kind.preview(data, count)
    if preview is None:
        raise PreferoError(f"a model of the kind {kind.name} reads no tokens: leave --model out")
    return preview


def in_words(preview: Preview) -> RenderableType:
    """The preview for people: what is scored is green, other tokens of responses are dim."""
    from rich.console import Group
    from rich.rule import Rule
    from rich.text import Text

    parts: list[Any] = [Text(f"{preview.name}: {preview.in_short()}")]
    for row in preview.rows:
        parts.append(Rule(row.origin, align="left"))
        parts.append(_text("prompt", row.prompt))
        for response in row.responses:
            *own, (name, text) = response.texts()
            parts += [_text(*prompt) for prompt in own]
            parts.append(_response(name, text, response))
        parts += [_text(*prompt) for prompt in row.prompts.items()]
        if row.columns:
            parts.append(Text(f"columns {row.columns}", style="dim"))
        if row.read:
            parts.append(Text(f"read: {', '.join(row.read)}", style="dim"))
        if row.unread:
            parts.append(Text(f"not read: {', '.join(row.unread)}", style="yellow"))
        parts += [Text(note, style="yellow") for note in row.notes]
    return Group(*parts)


def _text(name: str, text: str, style: str = "not bold") -> Text:
    from rich.text import Text

    return Text(f"{name}  ", style="bold").append(text, style=style)


def _response(name: str, text: str, response: PreviewedResponse) -> Text:
    scored = sum(response.scored)
    count = f"  ({scored} of {len(response.ids)} tokens scored)" if response.ids else ""
    return _text(name, text, "not bold green").append(count, style="dim")
