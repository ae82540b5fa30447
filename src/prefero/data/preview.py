"""Rows of preference data as a model reads them in training: text with its special tokens, ids, what is
scored, the columns that are read and those that are not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from prefero.data.chat import Writing
from prefero.data.examples import Content, Example, Examples, Response
from prefero.data.pictures import Picture
from prefero.data.schema import OTHER_PROMPTS, SCHEMA
from prefero.data.summary import one_label, skipped_rows, unread_columns
from prefero.data.templates import NAMES as TRAINING_TEMPLATES
from prefero.data.tokenize import TokenDataset
from prefero.data.trie import Cell, IntArray
from prefero.errors import number_of

SHOWN = 300
"""Characters of a text in a block of the first row."""

LABELS = {1.0: "desirable", -1.0: "undesirable"}
"""Roles of responses that have a label alone."""


@dataclass(frozen=True, slots=True)
class PreviewedResponse:
    """A response: its text, its ids, and which of these are scored; both empty without a model. ``prompt``
    and ``prompt_ids`` are what stands before it where that is not the prompt of the row, and otherwise
    None."""

    role: str | None
    text: str
    ids: list[int] = field(default_factory=list)
    scored: list[bool] = field(default_factory=list)
    prompt: str | None = None
    prompt_ids: list[int] | None = None

    def texts(self) -> list[tuple[str, str]]:
        """The prompt, if it is one of its own, and the response, by name."""
        name = self.role or "response"
        own = [(f"prompt of {name}", self.prompt)] if self.prompt is not None else []
        return [*own, (name, self.text)]


@dataclass(frozen=True, slots=True)
class PreviewedRow:
    """A row, counted from 1 in its source, as it is trained.

    ``prompts`` are the other prompts under which the responses are read, by their fields. ``columns`` are
    the annotations by name, one number per response where they belong to responses;
    ``read`` are the columns of the row that are read, ``unread`` those that nothing is made of.
    """

    row: int | None
    origin: str
    prompt: str
    prompt_ids: list[int]
    responses: list[PreviewedResponse]
    prompts: dict[str, str]
    columns: dict[str, Any]
    notes: list[str]
    read: list[str]
    unread: list[str]

    def texts(self) -> list[tuple[str, str]]:
        """The prompt, the responses and the other prompts, by name."""
        responses = [named for response in self.responses for named in response.texts()]
        return [("prompt", self.prompt), *responses, *self.prompts.items()]

    def remarks(self) -> list[str]:
        """The notes, and the columns that are not read."""
        unread = [f"columns that are not read: {', '.join(self.unread)}"] if self.unread else []
        return [*self.notes, *unread]


@dataclass(frozen=True, slots=True)
class Preview:
    """The first rows of some data, what is to be said of all of them, and the rows that cannot be read."""

    name: str
    layout: str
    template: str
    max_length: int | None
    rows: list[PreviewedRow]
    notes: list[str]
    skipped: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def in_texts(self) -> list[dict[str, Any]]:
        """The rows without token ids, as ``run.json`` keeps them."""
        return [
            {
                "origin": row.origin,
                "texts": [{"name": name, "text": text} for name, text in row.texts()],
                "columns": row.columns,
                "notes": row.notes,
                "read": row.read,
                "unread": row.unread,
            }
            for row in self.rows
        ]

    def in_short(self) -> str:
        """Layout, template and length, in words."""
        length = "not known without a model" if self.max_length is None else str(self.max_length)
        return f"layout {self.layout}, template {self.template}, max_length {length}"

    def columns(self) -> tuple[list[str], list[str]] | None:
        """The columns that are read and those that are not, where they are the same in all rows."""
        first = (self.rows[0].read, self.rows[0].unread)
        return first if all((row.read, row.unread) == first for row in self.rows) else None

    def first_row(self) -> str:
        """The first row as a block of text."""
        row = self.rows[0]
        lines = [f"the first row as it is trained ({row.origin}; {self.in_short()}):"]
        lines += [f"  {name}: {shortened(text, SHOWN)}".replace("\n", "\\n") for name, text in row.texts()]
        lines += [f"  columns that are read: {', '.join(row.read)}"] if row.read else []
        lines += [f"  {remark}" for remark in row.remarks()]
        return "\n".join(lines)


def preview_rows(examples: Examples, roles: Sequence[str], count: int) -> Preview:
    """The first ``count`` rows as they are read, before any model; ``roles`` are those that the method
    reads."""
    rows = []
    for example in examples[:count]:
        responses = [
            PreviewedResponse(
                _role(response, roles),
                shown(response.content),
                prompt=None if response.prompt in (None, example.prompt) else shown(response.prompt),
            )
            for response in example.responses
        ]
        columns = _columns(example)
        rows.append(
            PreviewedRow(
                row_number(example.origin),
                example.origin,
                shown(example.prompt),
                [],
                responses,
                {OTHER_PROMPTS[view].field: shown(prompt) for view, prompt in example.prompts.items()},
                columns,
                list(example.notes),
                list(example.read),
                list(example.unread),
            )
        )
    notes = [f"{reason} left out: {count}." for reason, count in examples.dropped.items()]
    notes += filter(None, [one_label(examples)])
    return Preview(
        examples.name, examples.format, "none (no model is named)", None, rows, notes, list(examples.skipped)
    )


def preview_tokens(data: TokenDataset, tokenizer: Any, template: str, count: int) -> Preview:
    """The first ``count`` rows as they are trained. ``template`` says which chat template wrote them and
    where it came from (:func:`origin_of_template`)."""
    rows = []
    for example, tokens in zip(data.source[:count], data[:count], strict=True):
        context = tokens.cells[0].context
        responses = [
            _previewed(_role(response, data.roles), cell, context, tokenizer)
            for response, cell in zip(example.responses, tokens.cells, strict=True)
        ]
        others = {
            OTHER_PROMPTS[view].field: decoded(cells[0].context, tokenizer)
            for view, cells in tokens.views.items()
            if view in OTHER_PROMPTS
        }
        rows.append(
            PreviewedRow(
                row_number(example.origin),
                example.origin,
                decoded(context, tokenizer),
                context.tolist(),
                responses,
                others,
                _columns(example),
                list(tokens.notes),
                list(example.read),
                list(example.unread),
            )
        )
    summary = data.summary
    apart = (unread_columns(data.source), skipped_rows(data.source))  # the preview says these elsewhere
    notes = [note for note in summary.notes if note not in apart]
    return Preview(
        summary.name,
        summary.format,
        template,
        summary.max_length,
        rows,
        notes,
        list(data.source.skipped),
    )


def origin_of_template(writing: Writing, own: Any) -> str:
    """The template of ``writing`` and what it stands for, where ``own`` is the tokenizer's chat template."""
    template = writing.template
    if isinstance(own, Mapping) and template in own:
        return f"{template} (one of the tokenizer's own)"
    if template in TRAINING_TEMPLATES:
        return writing.shown if writing.reason else f"{template} (a training template of prefero)"
    if template == "none":
        return "none (turned off)"
    if template in ("auto", "own"):
        return f"{template} (the tokenizer's own)" if own else "none (the tokenizer has no chat template)"
    return f"{template} (a file)"


def decoded(ids: IntArray, tokenizer: Any) -> str:
    """The text of tokens, special ones included; an image is one mark."""
    if not (ids < 0).any():
        return tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    edges = np.flatnonzero(np.diff((ids < 0).astype(int)))
    parts = np.split(ids, edges + 1)
    return "".join("[image]" if part[0] < 0 else decoded(part, tokenizer) for part in parts)


def _previewed(role: str | None, cell: Cell, context: IntArray, tokenizer: Any) -> PreviewedResponse:
    """A response in a row whose prompt is ``context``."""
    prompt = decoded(cell.context, tokenizer)
    whole = decoded(np.concatenate([cell.context, cell.response]), tokenizer)
    text = whole[len(prompt) :] if whole.startswith(prompt) else decoded(cell.response, tokenizer)
    ids, scored = cell.response.tolist(), _scored(cell)
    if np.array_equal(cell.context, context):
        return PreviewedResponse(role, text, ids, scored)
    return PreviewedResponse(role, text, ids, scored, prompt, cell.context.tolist())


def shortened(text: str, most: int) -> str:
    """A text of at most ``most`` characters, or its two ends and how many characters stand between them."""
    if len(text) <= most:
        return text
    end = most // 2
    return f"{text[:end]} [… {number_of(len(text) - 2 * end, 'character')} …] {text[-end:]}"


def _scored(cell: Cell) -> list[bool]:
    return [True] * len(cell.response) if cell.scored is None else cell.scored.tolist()


def _role(response: Response, roles: Sequence[str]) -> str | None:
    """The role that a method reads, or else the label, as which it reads the sides of pairs too."""
    label = LABELS.get(response.columns.get("label", 0.0))
    return response.role or label if roles else label or response.role


def _columns(example: Example) -> dict[str, Any]:
    columns: dict[str, Any] = {name: value for name, value in example.columns.items() if name in SCHEMA}
    for name in sorted({name for response in example.responses for name in response.columns}):
        columns[name] = [response.columns.get(name) for response in example.responses]
    return columns


def row_number(origin: str) -> int | None:
    """The row that an origin such as ``train.jsonl, row 12`` names."""
    found = re.search(r"row (\d+)", origin)
    return int(found[1]) if found else None


def shown(content: Content) -> str:
    """Text as it is, a conversation as its turns, an image as its place."""
    if isinstance(content, str):
        return content
    if isinstance(content, Picture):
        return f"[image: {content.origin}]"
    return "\n".join(f"{turn['role']}: {_turn(turn)}" for turn in content)


def _turn(turn: Mapping[str, Any]) -> str:
    content = turn["content"]
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(part.get("text", f"[{part.get('type')}]") for part in content)
    calls = [f"[call {call.get('function', call)}]" for call in turn.get("tool_calls") or ()]
    return " ".join(filter(None, [content or "", *calls]))
