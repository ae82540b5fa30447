"""From rows to examples: the layouts of published data sets, recognised and read."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from prefero.data.formats.fields import ContradictionError, Fields, Habits, Layout, look, spelled
from prefero.data.formats.images import LABELLED_PICTURES, PICKS, PICTURE_LISTS, PICTURE_PAIRS
from prefero.data.formats.lists import NUMBERED_LISTS, RATED_ROWS, SCORED_LISTS, SOLUTIONS
from prefero.data.formats.names import survey, without_nothing
from prefero.data.formats.pairs import LABELLED, OUTPUT_PAIRS, PAIRS, STEPS, TRANSCRIPTS
from prefero.data.formats.trees import TREES
from prefero.data.schema import GIVEN
from prefero.errors import PreferoError, nearest

LAYOUTS: tuple[Layout, ...] = (
    STEPS,
    TREES,
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
        columns: fields under other names in the source, such as ``{"prompt": "context"}``, or in an object
            there, ``{"chosen": "text.chosen"}``.
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
        except ContradictionError:
            raise
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
    _refuse_idle(rows.name, columns, examples)
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
        if column not in found and all(look(row.fields, column) is None for row in rows):
            raise PreferoError(
                f"{name}: columns.{field} is {column!r}, and no row has such a column"
                f"{nearest(column, found)}. Columns found: {', '.join(found) or 'none'}."
            )


def _refuse_idle(name: str, columns: Mapping[str, str], examples: Sequence[Example]) -> None:
    """Refuse columns under names of which no row makes anything."""
    for field, column in columns.items():
        if all(field in example.unread for example in examples):
            known = {name for example in examples for name in example.read}
            names = {name for spec in GIVEN.values() for name in spec.fields}
            known |= names | {f"{side}_{name}" for side in ("chosen", "rejected") for name in names}
            raise PreferoError(
                f"{name}: columns.{field} names {column!r}, but nothing is made of a field {field!r} in rows "
                f"of this layout{nearest(field, known)}. Give it the name of a field that is read."
            )


def renamed(row: Row, columns: Mapping[str, str]) -> Row:
    """The row with its fields under the names that layouts know; what had such a name before is not read, and
    is called ``prompt (not the one of columns)``. A number that is none, in the place of a text, is null."""
    if row.problem:
        return row
    fields = without_nothing(row.fields)
    moved = set(columns.values())
    kept = {
        f"{name} (not the one of columns)" if name in columns else name: _without_parts(name, value, moved)
        for name, value in fields.items()
        if name not in moved
    }
    return replace(row, fields=kept | {name: look(fields, column) for name, column in columns.items()})


def _without_parts(name: str, value: Any, moved: Collection[str]) -> Any:
    """An object without the parts that have got names of their own; any other value as it is."""
    parts = {part for outer, _, part in (column.partition(".") for column in moved) if outer == name}
    held = spelled(value) if parts and isinstance(value, str) else value
    if not parts or not isinstance(held, Mapping):
        return value
    return {key: item for key, item in held.items() if key not in parts}


def read_row(row: Row, layout: Layout, habits: Habits | None = None) -> Example:
    """One row as an example, with the known annotations that it carries.

    ``habits`` are those of the row's source; by default what the row itself shows.
    """
    fields = Fields(row, survey([row]) if habits is None else habits)
    example = annotate(layout.read(fields), fields)
    return replace(example, joined=row.joined, notes=tuple(fields.notes))


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
    for other_names in _other_names(specimen):
        if any(layout.matches({n: look(specimen, c) for n, c in other_names.items()}) for layout in LAYOUTS):
            changed = ",".join(f"{new}={column}" for new, column in other_names.items() if new != column)
            raise PreferoError(
                f"{name}: the layout of the rows is not known, but would be with other names of columns: "
                f"--columns {changed} (data.columns in a recipe)."
            )
    known = "\n".join(f"  {layout.name}: {layout.columns}" for layout in LAYOUTS)
    found = ", ".join(map(str, specimen)) or "none"
    raise PreferoError(
        f"{name}: the layout of the rows is not known. Columns found: {found}. Layouts known:\n{known}\n"
        "Say which columns hold what: columns={'prompt': …, 'chosen': …, 'rejected': …} (--columns "
        "prompt=…,chosen=…,rejected=…), or rename them."
    )


def _other_names(specimen: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Columns by other names that they may have been meant to have: in small letters, or those that they have
    within an object."""
    yield {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(n).strip()).lower(): str(n) for n in specimen}
    for outer, value in specimen.items():
        held = spelled(value) if isinstance(value, str) else value
        if isinstance(held, Mapping):
            yield {str(inner): f"{outer}.{inner}" for inner in held}


def _named(format: str) -> Layout:
    by_name = {layout.name: layout for layout in LAYOUTS}
    if format not in by_name:
        known = ", ".join(by_name)
        raise PreferoError(f"unknown format {format!r}{nearest(format, by_name)}. Formats: auto, {known}.")
    return by_name[format]
