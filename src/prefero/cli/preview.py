"""``prefero preview``: rows of preference data as they are trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefero.cli.console import Json, show, work
from prefero.errors import PreferoError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from prefero.data.examples import Examples
    from prefero.data.preview import Preview, PreviewedResponse

Columns = Annotated[
    str,
    typer.Option(
        help="Where fields stand under other names: prompt=context,chosen=good,rejected=bad.",
        show_default=False,
    ),
]
Template = Annotated[
    str, typer.Option(help="The chat template: auto is the tokenizer's own, none turns it off, or a file.")
]


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
    columns: Columns = "",
    template: Template = "auto",
    max_length: Annotated[
        int | None,
        typer.Option(help="Most tokens of prompt and response; by default the model's.", show_default=False),
    ] = None,
    too_long: Annotated[
        str, typer.Option(help="Past max-length: cut_response, keep_recent_prompt, drop or error.")
    ] = "cut_response",
    split: Annotated[str, typer.Option(help="Which split, where the data have several.")] = "train",
    format: Annotated[str, typer.Option(help="The layout of the rows; auto recognises it.")] = "auto",
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read, and list them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the first rows of preference data as a model is trained on them.

    The text with its special tokens, what is scored, and the columns that are not read.
    """
    from prefero.data.formats import load_examples, parse_columns

    with work():
        examples = load_examples(
            data,
            split=split,
            format=format,
            columns=parse_columns(columns),
            skip_bad_rows=skip_bad_rows,
            limit=row + rows - 1,
        )
        if row > 1:
            examples = from_row(examples, row)
        preview = _preview(examples, model, method, template, max_length, too_long)
        preview = replace(preview, skipped=list(examples.skipped))
        from prefero.cli.console import complain

        for note in preview.notes:
            complain(note)
    show(preview.as_dict(), lambda: in_words(preview), as_json=as_json)


def convert(
    data: Annotated[str, typer.Argument(help="Preference data: a file, a folder or a hub name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write (.jsonl).")],
    columns: Columns = "",
    split: Annotated[str, typer.Option(help="Which split, where the data have several.")] = "train",
    format: Annotated[str, typer.Option(help="The layout of the rows; auto recognises it.")] = "auto",
    limit: Annotated[int | None, typer.Option(help="Largest number of rows.")] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read, and list them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the rows of preference data as they are read, in one layout.

    The result is read as the same examples.
    """
    from prefero.data.convert import row_of
    from prefero.data.formats import load_examples, parse_columns
    from prefero.doctor.commands import writable
    from prefero.storage import write_lines

    target = writable(output, data)
    with work():
        examples = load_examples(
            data,
            split=split,
            format=format,
            columns=parse_columns(columns),
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


def from_row(examples: Examples, row: int) -> Examples:
    """The examples from a row of their file on. Raises :class:`PreferoError` where there are none."""
    from prefero.data.preview import row_number

    kept = [example for example in examples if (row_number(example.origin) or 0) >= row]
    if not kept:
        raise PreferoError(f"{examples.name}: there is no row {row} or later, only {len(examples)} rows")
    return replace(examples, items=kept)


def _preview(
    examples: Examples, model: str | None, method: str, template: str, max_length: int | None, too_long: Any
) -> Preview:
    from prefero.data.arrange import arrange
    from prefero.data.preview import preview_rows
    from prefero.data.render import Writing
    from prefero.models.kind import Reading
    from prefero.models.loading import ModelSource, kind_of
    from prefero.objectives import dry_run, from_config

    needs = dry_run(from_config(method))
    if model is None:
        return preview_rows(arrange(examples, needs.roles, needs.columns, for_method=method))
    kind = kind_of("auto", ModelSource(model))
    data = kind.read(examples, needs, Reading("train", max_length, 0, method, too_long, Writing(template)))
    preview = kind.preview(data, len(data))
    if preview is None:
        raise PreferoError(f"a model of the kind {kind.name} reads no tokens: leave --model out")
    return preview


def in_words(preview: Preview) -> RenderableType:
    """The preview for people: what is scored is green, other tokens of responses are dim."""
    from rich.console import Group
    from rich.rule import Rule
    from rich.text import Text

    parts: list[Any] = [
        Text(
            f"{preview.name}: layout {preview.layout}, template {preview.template}, "
            f"max_length {preview.max_length or 'not known without a model'}"
        )
    ]
    for row in preview.rows:
        parts.append(Rule(row.origin, align="left"))
        parts.append(Text("prompt  ", style="bold").append(row.prompt, style="not bold"))
        parts += [_response(response) for response in row.responses]
        if row.columns:
            parts.append(Text(f"columns {row.columns}", style="dim"))
        if row.unread:
            parts.append(Text(f"not read: {', '.join(row.unread)}", style="yellow"))
        parts += [Text(note, style="yellow") for note in row.notes]
    return Group(*parts)


def _response(response: PreviewedResponse) -> Any:
    from rich.text import Text

    label = Text(f"{response.role or 'response'}  ", style="bold")
    scored = sum(response.scored)
    count = f"  ({scored} of {len(response.ids)} tokens scored)" if response.ids else ""
    return label.append(response.text, style="not bold green").append(count, style="dim")
