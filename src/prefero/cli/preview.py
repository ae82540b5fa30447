"""``prefero preview``: rows of preference data as they are trained. ``prefero convert``: the same rows as a
file in one layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefero.cli.console import Json, complain, show, work
from prefero.cli.options import (
    Columns,
    Format,
    Map,
    MaxLength,
    Overwrite,
    SkipBadRows,
    Template,
    TooLong,
    advising,
    columns_of,
    need_model,
    refuse_replacing,
)
from prefero.errors import PreferoError, number_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from prefero.data.examples import Examples
    from prefero.data.preview import Preview, PreviewedResponse

    Reader = Callable[[Examples], Preview]

Split = Annotated[str, typer.Option(help="Which split, where the data have several.")]

MOST = 1000
"""Rows that are read at most in search of those that are not left out."""

SHOWN = 600
"""Characters of a text that are shown, unless all are wanted."""

LISTED = 10
"""Rows left out that are named; the others are counted."""


def preview(
    data: Annotated[
        str, typer.Argument(help="Preference data: a file, a folder or a hub name.", show_default=False)
    ],
    model: Annotated[
        str | None, typer.Option(help="The model whose tokens are shown.", show_default=False)
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="The method that reads the rows.", show_default="dpo, or kto for single labelled responses"
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows to show.")] = 10,
    row: Annotated[int, typer.Option(min=1, help="The first row to show, counted from 1 in the file.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="Show long texts whole.")] = False,
    columns: Columns = None,
    map: Map = None,
    template: Template = None,
    max_length: MaxLength = None,
    too_long: TooLong = None,
    split: Split = "train",
    format: Format = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: Json = False,
) -> None:
    """Show the first rows of preference data as a model is trained on them.

    The text with its special tokens, what is scored, and the columns that are not read.
    """
    if model is None:
        need_model({"--template": template, "--max-length": max_length, "--too-long": too_long})
    from prefero.data.chat import Writing
    from prefero.data.files import load_rows
    from prefero.data.formats import load_examples, row_function

    with work(), advising("--skip-bad-rows"):
        source = load_rows(data, split=split, streaming=True)

        load = partial(
            load_examples,
            source,
            format=format or "auto",
            columns=columns_of(columns),
            map=None if map is None else row_function(map),
        )

        if model is None:
            read = reader(method, rows)
        else:
            writing, ahead = Writing(template or "auto"), partial(load, limit=MOST, skip_bad_rows=True)
            read = token_reader(model, method, rows, writing, ahead, max_length, too_long or "cut_response")
        shown = partial(load, skip_bad_rows=skip_bad_rows)
        preview = remaining_rows(lambda limit: shown(limit=limit), read, row, rows)
        for note in (*preview.notes, *listed(preview.skipped)):
            complain(note)
    show(preview.as_dict(), lambda: in_words(preview, full=full), as_json=as_json)


def convert(
    data: Annotated[str, typer.Argument(help="Preference data: a file, a folder or a hub name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write (.jsonl).")],
    overwrite: Overwrite = False,
    columns: Columns = None,
    map: Map = None,
    split: Split = "train",
    format: Format = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Largest number of rows.")] = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: Json = False,
) -> None:
    """Write the rows of preference data as they are read, in one layout.

    The result is read as the same examples. Columns that are not read are not written, and listed.
    """
    from prefero.data.convert import row_of
    from prefero.data.formats import load_examples, row_function
    from prefero.doctor.commands import writable
    from prefero.storage import write_lines

    target = writable(output, data)
    if not overwrite:
        refuse_replacing(target)
    with work(), advising("--skip-bad-rows"):
        examples = load_examples(
            data,
            split=split,
            format=format or "auto",
            columns=columns_of(columns),
            map=None if map is None else row_function(map),
            skip_bad_rows=skip_bad_rows,
            limit=limit,
        )
        try:
            write_lines(target, [row_of(example) for example in examples])
        except OSError as error:
            raise PreferoError(f"{target} cannot be written: {error}") from error
        unread = list(dict.fromkeys(name for example in examples for name in example.unread))
        if unread:
            complain(f"columns that are not read, so that they are not written: {', '.join(unread)}")
        for note in listed(examples.skipped):
            complain(note)
    left = f", {number_of(len(examples.skipped), 'row')} left out" if examples.skipped else ""
    show(
        {
            "rows": len(examples),
            "layout": examples.format,
            "skipped": list(examples.skipped),
            "unread": unread,
            "output": str(target),
        },
        lambda: f"{number_of(len(examples), 'row')}, read as {examples.format}, written to {target}{left}",
        as_json=as_json,
    )


def listed(problems: Sequence[str]) -> Iterator[str]:
    """The rows that are left out because they cannot be read: their number, and the first ones by name."""
    if problems:
        yield f"{number_of(len(problems), 'row')} left out that cannot be read:"
    for problem in problems[:LISTED]:
        yield f"left out: {problem}"
    if len(problems) > LISTED:
        yield f"left out: {number_of(len(problems) - LISTED, 'more row')} (--json has all)"


# From data to a preview


def from_row(examples: Examples, row: int) -> Examples:
    """The examples from a row of their file on, which may be one of several that were made one. Raises
    :class:`PreferoError` where there are none."""
    from prefero.data.preview import row_number

    if row == 1:
        return examples
    ends = [max(row_number(each) or 0 for each in (one.origin, *one.joined)) for one in examples]
    kept = [example for example, end in zip(examples, ends, strict=True) if end >= row]
    if not kept:
        raise PreferoError(
            f"{examples.name}: there is no row {row} or later, only {number_of(max(ends), 'row')}"
        )
    skipped = tuple(problem for problem in examples.skipped if (row_number(problem) or row) >= row)
    return replace(examples, items=kept, skipped=skipped)


def remaining_rows(load: Callable[[int], Examples], read: Reader, row: int, rows: int) -> Preview:
    """So many rows, from a row on, of those that are not left out, and what is to be said of these and of the
    rows between them. ``load`` gives at most so many examples from the first on.

    Where many rows are left out, up to :data:`MOST` are read. Raises :class:`NoneLeftError` where none of
    them remains.
    """
    from prefero.data.arrange import NoneLeftError

    limit, most = row - 1 + rows, row - 1 + max(rows, MOST)
    while True:
        examples = load(limit)
        all_read = len(examples) < limit
        try:
            preview = read(from_row(examples, row))
        except NoneLeftError:
            if all_read or limit == most:
                raise
        else:
            if all_read or limit == most or len(preview.rows) == rows:
                break
        limit = min(4 * limit, most)
    if len(preview.rows) < rows:
        short = f"no more rows are shown: {number_of(limit, 'row')} have been read"
        return preview if all_read else replace(preview, notes=[*preview.notes, short])
    last = [example.origin for example in examples].index(preview.rows[-1].origin) + 1
    return preview if last == len(examples) else read(from_row(load(last), row))


def natural_method(examples: Examples) -> str:
    """The method by whose form rows are shown where none is named: that of pairs, or of labels for single
    responses; none for single responses without a label."""
    if any(len(example.responses) > 1 for example in examples):
        return "dpo"
    return "kto" if all("label" in example.responses[0].columns for example in examples) else ""


def reader(method: str | None, count: int) -> Reader:
    """The first ``count`` of some examples as a method reads them."""
    from prefero.data.arrange import arrange
    from prefero.data.preview import preview_rows

    def read(examples: Examples) -> Preview:
        name, needs = needs_of(method, examples)
        arranged = arrange(examples, needs.roles, needs.columns, for_method=name)
        return preview_rows(arranged, needs.roles, count)

    return read


def token_reader(
    model: str,
    method: str | None,
    count: int,
    writing: Any,
    ahead: Callable[[], Examples],
    max_length: int | None,
    too_long: Any,
) -> Reader:
    """The first ``count`` of some examples as the model is trained on them, with the chat template that those
    ``ahead`` need too. Raises :class:`PreferoError` for a model whose rows are no tokens."""
    from prefero.data.arrange import VIEWS
    from prefero.data.render import Renderers
    from prefero.models.kind import Reading
    from prefero.models.loading import ModelSource, kind_of
    from prefero.models.text import TextKind

    kind = kind_of("auto", ModelSource(model))
    if writing.template == "auto" and isinstance(kind, TextKind):
        with suppress(PreferoError):  # what is wrong with rows that are not shown is not told here
            writing = Renderers(kind.tokenizer, kind.images, writing, ahead()).writing

    def read(examples: Examples) -> Preview:
        name, needs = needs_of(method, examples)
        # views that are made of the tokens are not shown; one of them is of all rows
        needs = replace(needs, views={view: need for view, need in needs.views.items() if view not in VIEWS})
        data = kind.read(examples, needs, Reading("train", max_length, 0, name, too_long, writing))
        preview = kind.preview(data, count)
        if preview is None:
            raise PreferoError(f"a model of the kind {kind.name} reads no tokens: leave --model out")
        return preview

    return read


def needs_of(method: str | None, examples: Examples) -> tuple[str, Any]:
    """The name of the method that reads some examples, and what it needs of them."""
    from prefero.objectives import Needs, dry_run, from_config

    name = natural_method(examples) if method is None else method
    return name, dry_run(from_config(name)) if name else Needs()


# A preview for people


def in_words(preview: Preview, *, full: bool = False) -> RenderableType:
    """The preview for people, long texts shortened unless they are wanted in ``full``: what is scored is
    green, other tokens of responses are dim."""
    from rich.console import Group
    from rich.rule import Rule
    from rich.text import Text

    from prefero.data.preview import shortened

    def cut(text: str) -> str:
        return text if full else shortened(text, SHOWN)

    parts: list[Any] = [Text(f"{preview.name}: {preview.in_short()}")]
    common = preview.columns()
    if common is not None:
        parts += _columns(*common)
    for row in preview.rows:
        tokens = bool(row.prompt_ids)
        parts.append(Rule(row.origin, align="left"))
        parts.append(_text("prompt", cut(row.prompt), tokens))
        for response in row.responses:
            *own, (name, text) = response.texts()
            parts += [_text(name, cut(text), tokens) for name, text in own]
            parts.append(_response(name, cut(text), response))
        parts += [_text(name, cut(text), tokens) for name, text in row.prompts.items()]
        if row.columns:
            parts.append(Text(f"columns {row.columns}", style="dim"))
        if common is None:
            parts += _columns(row.read, row.unread)
        parts += [Text(note, style="yellow") for note in row.notes]
    return Group(*parts)


def _columns(read: Sequence[str], unread: Sequence[str]) -> Iterator[Text]:
    from rich.text import Text

    if read:
        yield Text(f"read: {', '.join(read)}", style="dim")
    if unread:
        yield Text(f"not read: {', '.join(unread)}", style="yellow")


SPEAKER = re.compile(r"^(system|developer|user|assistant|tool): ", re.MULTILINE)
"""The beginning of a turn as :func:`~prefero.data.preview.shown` writes it."""


def _text(name: str, text: str, tokens: bool, style: str = "not bold") -> Text:
    """A text behind its name; the turns of a conversation that is not yet tokens below it, each with its
    speaker on a line of its own."""
    from rich.text import Text

    told = Text(name, style="bold")
    if tokens or not SPEAKER.match(text):
        return told.append(f"  {text}", style=style)
    _, *turns = SPEAKER.split(text)
    for speaker, said in zip(turns[::2], turns[1::2], strict=True):
        told.append(f"\n  {speaker}:", style="not bold cyan")
        told.append("".join(f"\n    {line}" for line in said.removesuffix("\n").split("\n")), style=style)
    return told


def _response(name: str, text: str, response: PreviewedResponse) -> Text:
    scored = sum(response.scored)
    count = f"  ({scored} of {number_of(len(response.ids), 'token')} scored)" if response.ids else ""
    return _text(name, text, bool(response.ids), "not bold green").append(count, style="dim")
