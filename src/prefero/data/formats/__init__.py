"""From rows to examples: the layouts of published data sets, recognised and read."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import chain, islice, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prefero.data.examples import Content, Example, Examples
from prefero.data.files import Row, Source, load_rows
from prefero.data.formats.annotations import annotate
from prefero.data.formats.candidates import CHOICES, rivals
from prefero.data.formats.comparisons import CHOSEN_OF_LIST, COMPARISONS
from prefero.data.formats.conversations import EMPTY_PROMPT
from prefero.data.formats.fields import (
    TOOLS,
    ContradictionError,
    Fields,
    Habits,
    Layout,
    is_blank,
    look,
    spelled,
)
from prefero.data.formats.images import LABELLED_PICTURES, PICKS, PICTURE_LISTS, PICTURE_PAIRS
from prefero.data.formats.lists import NUMBERED_LISTS, RATED_ROWS, SCORED_LISTS, SOLUTIONS
from prefero.data.formats.names import SINGLE, TEXTS, is_nothing, mostly, survey, without_nothing
from prefero.data.formats.pairs import LABELLED, OUTPUT_PAIRS, PAIRS, STEPS, TRANSCRIPTS
from prefero.data.formats.suggestions import OWN_FUNCTION, option, plain, suggested
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

ALSO_CALLED: Mapping[str, Sequence[str]] = {
    "unpaired": ("kto", "bco", "label", "labels", "labelled", "binary", "unpaired_preference"),
    "pairs": ("dpo", "ipo", "orpo", "simpo", "cpo", "pair", "paired", "preference"),
    "comparisons": ("arena", "pandalm", "shp", "votes"),
    "lists": ("ultrafeedback", "list", "ranked", "ranking", "candidates", "scores"),
    "ratings": ("helpsteer", "rating"),
    "transcripts": ("hh", "hh-rlhf", "hh_rlhf", "anthropic"),
    "steps": ("step-dpo", "step_dpo", "step"),
    "trees": ("oasst", "openassistant", "tree"),
}
"""Names of methods and of data for whose rows people look, by layout."""

LOOK_AT = 20
"""Rows of which a layout is recognised."""

USUAL = {*TEXTS, *TOOLS, *(name for spec in GIVEN.values() for name in spec.fields)} | {
    f"{side}_{name}" for side in ("chosen", "rejected") for spec in GIVEN.values() for name in spec.fields
}
"""The names of columns that rows of any layout may have."""


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
            (:class:`BadRowError`, naming file, row, field, and what was expected).
    """
    if limit is not None and limit < 1:
        raise PreferoError(f"limit is {limit}; expected at least 1 row, or none for all rows")
    rows = load_rows(source, split=split)
    iterator = iter(rows) if map is None else (_mapped(row, map) for row in rows)
    found = list(islice(iterator, LOOK_AT))
    columns = _as_found(rows.name, columns, found)
    first = [renamed(row, columns) for row in found]
    layout = _recognise(rows.name, found, columns) if format == "auto" else _named(format)
    habits = survey(first)
    examples: list[Example] = []
    skipped: list[str] = []
    for row in layout.gather(chain(first, (renamed(row, columns) for row in iterator))):
        try:
            examples.append(read_row(row, layout, habits))
        except ContradictionError:
            raise
        except PreferoError as error:
            if not skip_bad_rows:
                advice = "" if examples else _advice(found, columns, format)
                if advice:
                    raise PreferoError(f"{str(error).rstrip('.')}. {advice}") from error
                problem = str(error)
                if not examples and "data.map" not in problem and _read_with(columns, found, format) is None:
                    problem = f"{problem.rstrip('.')}. If all rows are like it, {OWN_FUNCTION}"
                raise BadRowError(problem, "load_examples(…, skip_bad_rows=True)") from error
            skipped.append(str(error))
        if len(examples) == limit:
            break
    if not examples:
        first_problem = f" The first: {skipped[0]} {_advice(found, columns, format)}" if skipped else ""
        raise PreferoError(f"{rows.name}: none of the rows could be read.{first_problem.rstrip()}")
    _refuse_idle(rows.name, columns, examples)
    examples = _with_hints(examples, found, columns, format)
    return Examples(examples, rows.name, layout.name, tuple(skipped), skips_bad_rows=skip_bad_rows)


class BadRowError(PreferoError):
    """Raised for a row that cannot be read, where such rows are not left out. ``problem`` says which row and
    why; ``remedy`` is how the caller leaves such rows out."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        super().__init__(
            f"{problem.rstrip('.')}. Correct the row, or leave such rows out and have them listed: {remedy}."
        )


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
    pairs = [part.partition("=") for part in re.split(r",(?=[^,=]*=)", text) if part.strip(", ")]
    if bad := next(("".join(pair) for pair in pairs if not (pair[0].strip() and pair[2].strip())), None):
        raise PreferoError(f"--columns has {bad!r}; expected name=column, such as prompt=context,chosen=good")
    return {name.strip(): column.strip() for name, _, column in pairs}


def _as_found(name: str, columns: Mapping[str, str], rows: Sequence[Row]) -> dict[str, str]:
    """The columns as the rows have them, blanks around their names included. Refuses those that no
    row has."""
    found = list(dict.fromkeys(str(field) for row in rows for field in row.fields))
    named = dict(columns)
    for field, column in columns.items():
        if column in found or any(look(row.fields, column) is not None for row in rows):
            continue
        same = [own for own in found if own.strip() == column.strip()]
        if len(same) != 1:
            raise PreferoError(
                f"{name}: columns.{field} is {column!r}, and no row has such a column"
                f"{nearest(column, found)}. Columns found: {', '.join(found) or 'none'}."
            )
        named[field] = same[0]
    return named


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
    _note_words(fields, example)
    _note_contradictions(fields, example)
    return replace(example, joined=row.joined, notes=tuple(fields.notes))


def _note_words(fields: Fields, example: Example) -> None:
    """Have it said where a prompt says nothing, and where a prompt or a response is a word for nothing."""
    if not has_prompt(example) and not any(note.startswith(EMPTY_PROMPT) for note in fields.notes):
        fields.note(EMPTY_PROMPT)
    told = [("the prompt", _last_text(example.prompt, "user"))]
    told += [
        (response.role or f"response {place}", _last_text(response.content, "assistant"))
        for place, response in enumerate(example.responses, start=1)
    ]
    for name, text in told:
        if is_nothing(text):
            field = next((field for field in fields.columns_read if fields.look(field) == text), name)
            fields.note(f"{field} is the word {text.strip()!r}")


def _note_contradictions(fields: Fields, example: Example) -> None:
    """Have it said where scores, ranks or a verdict say the opposite of the order of a pair, or ranks the
    opposite of scores."""
    by_role = {response.role: response.columns for response in example.responses}
    chosen, rejected = by_role.get("chosen", {}), by_role.get("rejected", {})
    tie = example.columns.get("tie") or example.columns.get("preference") == 0.5
    for column, better, sign in (("score", "the higher score", 1), ("rank", "the better rank", -1)):
        both = column in chosen and column in rejected and not tie
        if both and sign * chosen[column] < sign * rejected[column]:
            fields.note(f"the rejected response has {better}, and is rejected all the same")
    ranked = [r.columns for r in example.responses if "score" in r.columns and "rank" in r.columns]
    ranked.sort(key=lambda columns: (-columns["score"], columns["rank"]))
    if any(one["score"] > two["score"] and one["rank"] > two["rank"] for one, two in pairwise(ranked)):
        fields.note("the ranks of its responses contradict their scores, which count")
    for name in CHOICES if "rejected" in by_role else ():
        if name not in fields.read and str(fields.look(name)).strip().lower() == "rejected":
            fields.note(f"{name} is 'rejected', which the order of the pair contradicts: it is not read")


def _last_text(content: Content, role: str) -> str:
    """The text of the last turn of a speaker, empty where there is none or it has parts."""
    if isinstance(content, str):
        return content
    turns = content if isinstance(content, tuple) else ()
    said = next((turn["content"] for turn in reversed(turns) if turn["role"] == role), "")
    return said if isinstance(said, str) else ""


def has_prompt(example: Example) -> bool:
    """Whether the prompt of an example asks or shows anything."""
    prompt = example.prompt
    if isinstance(prompt, str):
        return bool(prompt.strip()) or bool(example.images)
    asked = [turn["content"] for turn in prompt if turn["role"] == "user"]
    others = [turn["content"] for turn in prompt if turn["role"] != "system"]
    return not all(map(is_blank, asked or others))


def _recognise(name: str, rows: Sequence[Row], columns: Mapping[str, str]) -> Layout:
    """The layout of the first rows. Raises :class:`PreferoError` with what can be done if it is not known."""
    if rows and all(row.problem for row in rows):
        raise PreferoError(f"{name}: none of the first {len(rows)} rows can be read. {rows[0].problem}")
    named = [renamed(row, columns) for row in rows]
    layout = _recognised(named)
    if layout is not None:
        return layout
    if advice := _advice(rows, columns, "auto"):
        raise PreferoError(f"{name}: the layout of the rows is not known. {advice}")
    _refuse_without_judgement(name, _specimen(named), survey(named))
    known = "\n".join(f"  {layout.name}: {layout.columns}" for layout in LAYOUTS)
    found = ", ".join(map(str, _specimen(named))) or "none"
    raise PreferoError(
        f"{name}: the layout of the rows is not known. Columns found: {found}. Layouts known:\n{known}\n"
        "Say which columns hold what: columns={'prompt': …, 'chosen': …, 'rejected': …} (--columns "
        f"prompt=…,chosen=…,rejected=…). Where other names are not enough, {OWN_FUNCTION}"
    )


def _refuse_without_judgement(name: str, specimen: Mapping[str, Any], habits: Habits) -> None:
    """Raises :class:`PreferoError` for rows with responses of which no column says how good they are."""
    family = next(iter(rivals(specimen, habits)), None)
    single = next((own for own in SINGLE if own in specimen), None)
    talk = next((own for own in ("messages", "conversations", "conversation") if own in specimen), None)
    if family is not None:
        marks = family.marks
        scores = ",".join(f"score_{mark}=…" for mark in marks)
        lacks = (
            f"{' and '.join(family.names)} are responses, and no column that is known says which is better"
        )
        expected = f"--columns winner=… names the column that does, --columns {scores} those of their scores"
    elif single is not None or talk is not None:
        one = f"{single} is one response" if single else f"{talk} is one conversation"
        lacks = (
            f"{one}, and no column that is known says how good it is: a preference is between two responses, "
            "or of one with a label or a score"
        )
        expected = "--columns label=… names the column of true and false, --columns score=… that of scores"
    else:
        return
    found = ", ".join(map(str, specimen))
    raise PreferoError(
        f"{name}: the layout of the rows is not known. {lacks}. {expected} (data.columns in a recipe). "
        f"Columns found: {found}. Where other names are not enough, {OWN_FUNCTION}"
    )


def _recognised(rows: Sequence[Row]) -> Layout | None:
    """The layout of most of the rows, the earlier one of as many, None if it is not known. What a row lacks
    is as in the others."""
    specimen = _specimen(rows)
    found = Counter(
        layout
        for row in rows
        if not row.problem
        if (layout := _layout_of({**specimen, **_specimen([row])})) is not None
    )
    return found.most_common(1)[0][0] if found else None


def _layout_of(specimen: Mapping[str, Any]) -> Layout | None:
    return next((layout for layout in LAYOUTS if layout.matches(specimen)), None)


def _specimen(rows: Sequence[Row]) -> dict[str, Any]:
    """Every field of the rows that can be read, with its first value that is not null."""
    specimen: dict[str, Any] = {}
    for row in rows:
        for field, value in row.fields.items():
            if value is not None and not row.problem:
                specimen.setdefault(field, value)
    return specimen


def _advice(rows: Sequence[Row], columns: Mapping[str, str], format: str) -> str:
    """A sentence with other names of columns under which these rows can be read, empty where none are
    known."""
    if _read_with(columns, rows, format) is not None:
        return ""
    own = {name: value for name, value in _specimen(rows).items() if name not in columns.values()}
    options = suggested(own, lambda others: _read_with({**columns, **others}, rows, format))
    return f"The rows can be read with {options} (data.columns in a recipe)." if options else ""


def _read_with(columns: Mapping[str, str], rows: Sequence[Row], format: str) -> dict[str, str] | None:
    """The columns of which something is made where rows are read with them; None where most of the rows
    cannot be read, or have no prompt."""
    named = [renamed(row, columns) for row in rows if not row.problem]
    layout = _recognised(named) if format == "auto" else _named(format)
    if layout is None:
        return None
    habits, examples, failed = survey(named), list[Example](), 0
    for row in layout.gather(iter(named)):
        try:
            examples.append(read_row(row, layout, habits))
        except PreferoError:
            failed += 1
    if not mostly([*(has_prompt(example) for example in examples), *[False] * failed]):
        return None
    used = {name: at for name, at in columns.items() if any(name in example.read for example in examples)}
    return used if len(used) == len(columns) else _read_with(used, rows, format)


def _with_hints(
    examples: list[Example], rows: Sequence[Row], columns: Mapping[str, str], format: str
) -> list[Example]:
    """The examples, with a note on columns that would be read if their names were written as usual."""
    taken = {name for row in rows for name in row.fields} | set(columns)
    unread = dict.fromkeys(name for example in examples[:LOOK_AT] for name in example.unread)
    usual = {own: name for name in unread if (own := plain(name)) in USUAL and own not in taken}
    used = _read_with({**columns, **usual}, rows, format) if usual else None
    hints = {name: own for own, name in usual.items() if used and own in used}
    if not hints:
        return examples
    hint = option({own: name for name, own in hints.items()})
    note = f"columns would be read under their usual names: {hint}"
    return [
        replace(example, notes=(*example.notes, note)) if hints.keys() & set(example.unread) else example
        for example in examples
    ]


def _named(format: str) -> Layout:
    by_name = {layout.name: layout for layout in LAYOUTS}
    if format not in by_name:
        known = ", ".join(by_name)
        also = (layout for layout, names in ALSO_CALLED.items() if format.lower() in names)
        meant = next(also, None)
        hint = f"; did you mean {meant!r}?" if meant else nearest(format.lower(), by_name)
        raise PreferoError(
            f"unknown format {format!r}{hint}. A format is the layout of the rows: auto, {known}."
        )
    return by_name[format]
