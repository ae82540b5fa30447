"""From rows to examples: the layouts of published data sets, recognised and read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prefero.data.examples import Example, Examples
from prefero.data.files import Row, Source, load_rows
from prefero.data.formats.annotations import annotate
from prefero.data.formats.comparisons import CHOSEN_OF_LIST, COMPARISONS
from prefero.data.formats.fields import Fields, Habits, Layout
from prefero.data.formats.images import LABELLED_PICTURES, PICKS, PICTURE_LISTS, PICTURE_PAIRS
from prefero.data.formats.lists import NUMBERED_LISTS, RATED_ROWS, SCORED_LISTS, SOLUTIONS
from prefero.data.formats.names import survey
from prefero.data.formats.pairs import LABELLED, OUTPUT_PAIRS, PAIRS, STEPS, TRANSCRIPTS
from prefero.errors import PreferoError, nearest

LAYOUTS: tuple[Layout, ...] = (
    STEPS,
    COMPARISONS,
    SOLUTIONS,
    PICKS,
    PICTURE_PAIRS,
    PICTURE_LISTS,
    LABELLED_PICTURES,
    TRANSCRIPTS,
    PAIRS,
    NUMBERED_LISTS,
    RATED_ROWS,
    CHOSEN_OF_LIST,
    SCORED_LISTS,
    OUTPUT_PAIRS,
    LABELLED,
)
"""The layouts in the order in which they are tried, the more particular ones first."""

LOOK_AT = 20
"""Rows of which a layout is recognised."""


def load_examples(
    source: Source,
    *,
    split: str = "train",
    format: str = "auto",
    columns: Mapping[str, str] = MappingProxyType({}),
    map: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    skip_bad_rows: bool = False,
    limit: int | None = None,
) -> Examples:
    """The examples in ``source``.

    Args:
        source: as :func:`prefero.data.files.load_rows` takes it.
        split: which split, where the source has several.
        format: the name of a layout in :data:`LAYOUTS`, or ``"auto"`` to recognise it from the first rows.
        columns: fields under other names in the source, such as ``{"prompt": "context"}``.
        map: makes a row of each row, before anything else is done with it.
        skip_bad_rows: leave out rows that cannot be read and list them in ``Examples.skipped``, instead of
            stopping at the first.
        limit: how many examples at most.

    Raises:
        PreferoError: the source cannot be read, its layout is not known, or a row is not as it should be
            (naming file, row, field, and what was expected).
    """
    rows = load_rows(source, split=split)
    iterator = iter(rows) if map is None else (_mapped(row, map) for row in rows)
    first = list(islice(iterator, LOOK_AT))
    _refuse_absent(rows.name, columns, first)
    first = [renamed(row, columns) for row in first]
    layout = _recognise(rows.name, first) if format == "auto" else _named(format)
    habits = survey(first)
    examples: list[Example] = []
    skipped: list[str] = []
    for row in layout.gather(chain(first, (renamed(row, columns) for row in iterator))):
        if limit is not None and len(examples) >= limit:
            break
        try:
            examples.append(read_row(row, layout, habits))
        except PreferoError as error:
            if not skip_bad_rows:
                raise PreferoError(
                    f"{str(error).rstrip('.')}. Correct the row, or leave such rows out and have them "
                    "listed: skip_bad_rows=True (data.skip_bad_rows=true in a recipe or behind a command)."
                ) from error
            skipped.append(str(error))
    if not examples:
        first_problem = f" The first: {skipped[0]}" if skipped else ""
        raise PreferoError(f"{rows.name}: none of the rows could be read.{first_problem}")
    return Examples(examples, rows.name, layout.name, tuple(skipped), skips_bad_rows=skip_bad_rows)


def row_function(name: str) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """The function that ``module:function`` names; the working directory is searched too.

    Raises :class:`PreferoError` where there is none.
    """
    module, _, function = name.partition(":")
    if not (module and function):
        raise PreferoError(f"map is {name!r}; expected module:function, such as my_rows:with_prompt")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise PreferoError(f"map is {name!r}, which cannot be imported: {error}") from error
    if not callable(found):
        raise PreferoError(f"map is {name!r}, which is a {type(found).__name__} and no function")
    return found


def _mapped(row: Row, function: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Row:
    if row.problem:
        return row
    name = getattr(function, "__name__", "map")
    try:
        fields = function(dict(row.fields))
    except Exception as error:
        return replace(row, fields={}, problem=f"{row.origin}: {name} fails: {type(error).__name__}: {error}")
    if not isinstance(fields, Mapping):
        found = type(fields).__name__
        return replace(row, fields={}, problem=f"{row.origin}: {name} returns {found}, expected a row")
    return replace(row, fields=fields)


def parse_columns(text: str) -> dict[str, str]:
    """Columns as a command takes them: ``prompt=context,chosen=good``.

    Raises :class:`PreferoError` for another form.
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if bad := next(("".join(pair) for pair in pairs if not (pair[0].strip() and pair[2].strip())), None):
        raise PreferoError(f"--columns has {bad!r}; expected name=column, such as prompt=context,chosen=good")
    return {name.strip(): column.strip() for name, _, column in pairs}


def _refuse_absent(name: str, columns: Mapping[str, str], rows: Sequence[Row]) -> None:
    found = list(dict.fromkeys(str(field) for row in rows for field in row.fields))
    for field, column in columns.items():
        if column not in found:
            raise PreferoError(
                f"{name}: columns.{field} is {column!r}, and no row has such a column"
                f"{nearest(column, found)}. Columns found: {', '.join(found) or 'none'}."
            )


def renamed(row: Row, columns: Mapping[str, str]) -> Row:
    """The row with its fields under the names that layouts know; what had such a name before is not read, and
    is called ``prompt (not the one of columns)``."""
    if not columns or row.problem:
        return row
    moved = set(columns.values())
    kept = {
        f"{name} (not the one of columns)" if name in columns else name: value
        for name, value in row.fields.items()
        if name not in moved
    }
    return replace(row, fields=kept | {name: row.fields.get(column) for name, column in columns.items()})


def read_row(row: Row, layout: Layout, habits: Habits | None = None) -> Example:
    """One row as an example, with the known annotations that it carries.

    ``habits`` are those of the row's source; by default what the row itself shows.
    """
    fields = Fields(row, survey([row]) if habits is None else habits)
    return replace(annotate(layout.read(fields), fields), joined=row.joined)


def _recognise(name: str, rows: Sequence[Row]) -> Layout:
    if rows and all(row.problem for row in rows):
        raise PreferoError(f"{name}: none of the first {len(rows)} rows can be read. {rows[0].problem}")
    specimen: dict[str, Any] = {}
    for row in rows:
        if row.problem:
            continue
        for field, value in row.fields.items():
            if value is not None:
                specimen.setdefault(field, value)
    for layout in LAYOUTS:
        if layout.matches(specimen):
            return layout
    small = {str(field).strip().lower(): (str(field), value) for field, value in specimen.items()}
    if any(layout.matches({name: value for name, (_, value) in small.items()}) for layout in LAYOUTS):
        renamed = ",".join(f"{name}={field}" for name, (field, _) in small.items() if name != field)
        raise PreferoError(
            f"{name}: the layout of the rows is not known, but would be with other names of columns: "
            f"--columns {renamed} (data.columns in a recipe)."
        )
    known = "\n".join(f"  {layout.name}: {layout.columns}" for layout in LAYOUTS)
    found = ", ".join(map(str, specimen)) or "none"
    raise PreferoError(
        f"{name}: the layout of the rows is not known. Columns found: {found}. Layouts known:\n{known}\n"
        "Say which columns hold what: columns={'prompt': …, 'chosen': …, 'rejected': …} (--columns "
        "prompt=…,chosen=…,rejected=…), or rename them."
    )


def _named(format: str) -> Layout:
    by_name = {layout.name: layout for layout in LAYOUTS}
    if format not in by_name:
        known = ", ".join(by_name)
        raise PreferoError(f"unknown format {format!r}{nearest(format, by_name)}. Formats: auto, {known}.")
    return by_name[format]
