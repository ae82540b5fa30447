"""What a data set is to a model: lengths, what was cut off, and how much its responses share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from prefero.data.encode import Truncation
from prefero.data.examples import Examples, says_something
from prefero.data.trie import Cell, TokenExample

QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}

BINS = 30


@dataclass(frozen=True, slots=True)
class DataSummary:
    """Counts and lengths in tokens.

    ``lengths`` has, for ``prompt``, every role and ``all`` (prompt and response), the quantiles and the mean;
    ``histogram`` the counts of the same in the bins between ``edges``. ``tokens_padded`` is the sum of prompt
    and response over all responses, before any padding; ``tokens_unique`` counts once what the responses to a
    prompt share; ``sharing`` is their ratio, at least 1. ``longer_chosen`` is the share of pairs whose chosen
    response is longer than the rejected, ties counted half; None without pairs. ``empty_responses`` say
    nothing but their end token. ``notes`` are for the reader.
    """

    name: str
    format: str
    examples: int
    responses: int
    skipped: int
    dropped: Mapping[str, int]
    max_length: int | None
    truncated_prompts: int
    truncated_responses: int
    truncated_tokens: int
    empty_responses: int
    lengths: Mapping[str, Mapping[str, float]]
    longer_chosen: float | None
    tokens_padded: int
    tokens_unique: int
    sharing: float
    histogram: Mapping[str, Sequence[float]]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON holds it."""
        return {**asdict(self), "notes": list(self.notes)}


def summarise(
    arranged: Examples,
    tokenized: Sequence[TokenExample],
    roles: tuple[str, ...],
    max_length: int | None,
    dropped: Truncation,
    notes: tuple[str, ...] = (),
) -> DataSummary:
    """The summary of ``tokenized``, which ``arranged`` became."""
    lengths, histogram = length_tables(tokenized, roles)
    padded = sum(len(cell.context) + len(cell.response) for example in tokenized for cell in example.cells)
    unique = sum(unique_tokens(example.cells) for example in tokenized)
    return DataSummary(
        name=arranged.name,
        format=arranged.format,
        examples=len(tokenized),
        responses=sum(len(example.cells) for example in tokenized),
        skipped=len(arranged.skipped),
        dropped=arranged.dropped,
        max_length=max_length,
        truncated_prompts=len(dropped.prompts),
        truncated_responses=len(dropped.responses),
        truncated_tokens=dropped.tokens,
        empty_responses=sum(not says_something(r.content) for example in arranged for r in example.responses),
        lengths=lengths,
        longer_chosen=longer_chosen(tokenized, roles),
        tokens_padded=padded,
        tokens_unique=unique,
        sharing=padded / unique,
        histogram=histogram,
        notes=(*_left_out(arranged), *dropped.notes(max_length), *notes),
    )


def _left_out(examples: Examples) -> list[str]:
    notes = [f"{reason} left out: {count}." for reason, count in examples.dropped.items()]
    if examples.skipped:
        notes.append(f"rows that could not be read: {len(examples.skipped)}, first {examples.skipped[0]}.")
    return notes


def unique_tokens(cells: Sequence[Cell]) -> int:
    """How many tokens remain when common beginnings are counted once: the nodes of the cells' token tree."""
    paths = [np.concatenate([cell.context, cell.response]) for cell in cells]
    if len(paths) > 2:
        paths.sort(key=lambda path: path.astype(">i8").tobytes())
    return sum(map(len, paths)) - sum(common(one, next_one) for one, next_one in pairwise(paths))


def common(first: np.ndarray, second: np.ndarray) -> int:
    """Length of the common beginning."""
    length = min(len(first), len(second))
    differing = first[:length] != second[:length]
    at = int(differing.argmax()) if length else 0
    return at if length and differing[at] else length


def length_tables(
    examples: Sequence[TokenExample], roles: tuple[str, ...]
) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
    """Quantiles and histograms of the lengths, by prompt, role and all."""
    lengths: dict[str, list[int]] = {"prompt": [len(example.cells[0].context) for example in examples]}
    for position, role in enumerate(roles):
        lengths[role] = [len(example.cells[position].response) for example in examples]
    if not roles:
        lengths["response"] = [len(cell.response) for example in examples for cell in example.cells]
    lengths["all"] = [len(c.context) + len(c.response) for example in examples for c in example.cells]
    tables = {}
    for name, values in lengths.items():
        cuts = np.quantile(values, list(QUANTILES.values()))
        tables[name] = dict(zip(QUANTILES, cuts.tolist(), strict=True)) | {"mean": float(np.mean(values))}
    edges = np.linspace(0, max(lengths["all"]) + 1, BINS + 1)
    histogram = {"edges": edges.tolist()}
    for name, values in lengths.items():
        histogram[name] = np.histogram(values, edges)[0].tolist()
    return tables, histogram


def longer_chosen(examples: Sequence[TokenExample], roles: tuple[str, ...]) -> float | None:
    if not {"chosen", "rejected"} <= set(roles):
        return None
    chosen, rejected = roles.index("chosen"), roles.index("rejected")
    pairs = [(len(e.cells[chosen].response), len(e.cells[rejected].response)) for e in examples]
    return float(np.mean([0.5 if a == b else a > b for a, b in pairs]))
