"""Rows of preference data as a model reads them in training: text with its special tokens, ids, what is
scored, the columns that are read and those that are not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from prefero.data.examples import Content, Example, Examples, Response
from prefero.data.pictures import Picture
from prefero.data.render import Writing
from prefero.data.schema import SCHEMA
from prefero.data.templates import NAMES as TRAINING_TEMPLATES
from prefero.data.tokenize import TokenDataset
from prefero.data.trie import Cell, TokenExample

SHOWN = 300
"""Characters of a text in a block."""

LABELS = {1.0: "desirable", -1.0: "undesirable"}
"""Roles of responses that have a label alone."""


@dataclass(frozen=True, slots=True)
class PreviewedResponse:
    """A response: its text, its ids, and which of these are scored; both empty without a model."""

    role: str | None
    text: str
    ids: list[int] = field(default_factory=list)
    scored: list[bool] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PreviewedRow:
    """A row, counted from 1 in its source, as it is trained.

    ``columns`` are the annotations by name, one number per response where they belong to responses;
    ``read`` are the columns of the row that are read, ``unread`` those that nothing is made of.
    """

    row: int | None
    origin: str
    prompt: str
    prompt_ids: list[int]
    responses: list[PreviewedResponse]
    columns: dict[str, Any]
    notes: list[str]
    read: list[str]
    unread: list[str]

    def texts(self) -> list[tuple[str, str]]:
        """The prompt and the responses, by name."""
        return [("prompt", self.prompt), *((r.role or "response", r.text) for r in self.responses)]

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

    def first_row(self) -> str:
        """The first row as a block of text."""
        row = self.rows[0]
        lines = [f"the first row as it is trained ({row.origin}; {self.in_short()}):"]
        lines += [f"  {name}: {_shortened(text)}" for name, text in row.texts()]
        lines += [f"  columns that are read: {', '.join(row.read)}"] if row.read else []
        lines += [f"  {remark}" for remark in row.remarks()]
        return "\n".join(lines)


def preview_rows(examples: Examples, roles: Sequence[str], count: int) -> Preview:
    """The first ``count`` rows as they are read, before any model; ``roles`` are those that the method
    reads."""
    rows = []
    for example in examples[:count]:
        responses = [PreviewedResponse(_role(r, roles), shown(r.content)) for r in example.responses]
        columns = _columns(example)
        rows.append(
            PreviewedRow(
                row_number(example.origin),
                example.origin,
                shown(example.prompt),
                [],
                responses,
                columns,
                list(example.notes),
                list(example.read),
                list(example.unread),
            )
        )
    notes = [f"{reason} left out: {count}" for reason, count in examples.dropped.items()]
    notes += [f"left out: {problem}" for problem in examples.skipped]
    return Preview(examples.name, examples.format, "none (no model is named)", None, rows, notes)


def preview_tokens(data: TokenDataset, tokenizer: Any, template: str, count: int) -> Preview:
    """The first ``count`` rows as they are trained. ``template`` says which chat template wrote them and
    where it came from (:func:`origin_of_template`)."""
    rows = []
    for example, tokens in zip(data.source[:count], data[:count], strict=True):
        prompt, texts = decoded(tokens, tokenizer)
        responses = [
            PreviewedResponse(_role(response, data.roles), text, cell.response.tolist(), _scored(cell))
            for response, text, cell in zip(example.responses, texts, tokens.cells, strict=True)
        ]
        rows.append(
            PreviewedRow(
                row_number(example.origin),
                example.origin,
                prompt,
                tokens.cells[0].context.tolist(),
                responses,
                _columns(example),
                list(tokens.notes),
                list(example.read),
                list(example.unread),
            )
        )
    summary = data.summary
    return Preview(summary.name, summary.format, template, summary.max_length, rows, list(summary.notes))


def origin_of_template(writing: Writing, own: Any) -> str:
    """The template of ``writing`` and what it stands for, where ``own`` is the tokenizer's chat template."""
    template = writing.template
    if template in TRAINING_TEMPLATES:
        return writing.shown if writing.reason else f"{template} (a training template of prefero)"
    if template == "none":
        return "none (turned off)"
    if template == "auto":
        return "auto (the tokenizer's own)" if own else "none (the tokenizer has no chat template)"
    return f"{template} (a file)"


def decoded(tokens: TokenExample, tokenizer: Any) -> tuple[str, list[str]]:
    """The prompt of an example and its responses, decoded with special tokens; an image is one mark."""

    def decode(ids: np.ndarray) -> str:
        if not (ids < 0).any():
            return tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        edges = np.flatnonzero(np.diff((ids < 0).astype(int)))
        parts = np.split(ids, edges + 1)
        return "".join("[image]" if part[0] < 0 else decode(part) for part in parts)

    texts = []
    for cell in tokens.cells:
        prompt = decode(cell.context)
        whole = decode(np.concatenate([cell.context, cell.response]))
        texts.append(whole[len(prompt) :] if whole.startswith(prompt) else decode(cell.response))
    return decode(tokens.cells[0].context), texts


def _shortened(text: str) -> str:
    """A text on one line, the middle of a long one left out."""
    line = text.replace("\n", "\\n")
    return line if len(line) <= SHOWN else f"{line[: SHOWN // 2]} … {line[-SHOWN // 2 :]}"


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
