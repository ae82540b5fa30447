"""Summary of a tokenised data set: lengths, truncation, and how much its responses share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prefero.data.encode import Truncation
from prefero.data.examples import Examples, says_something
from prefero.data.trie import TokenExample, unique_tokens

QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}

BINS = 30


@dataclass(frozen=True, slots=True)
class DataSummary:
    """Counts and lengths in tokens.

    ``lengths`` has the quantiles and the mean for ``prompt``, every role and ``all`` (prompt and response);
    ``histogram`` their counts in the bins between ``edges``. ``tokens_padded`` is the sum of prompt and
    response over all responses, before padding; ``tokens_unique`` counts once what the responses to a prompt
    share; ``sharing`` is their ratio, at least 1. ``longer_chosen`` is the share of pairs whose chosen
    response is the longer, ties counted half; None without pairs. ``empty_responses`` say nothing.
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
    truncation: Truncation,
    notes: tuple[str, ...] = (),
) -> DataSummary:
    """The summary of ``tokenized``, the token ids of ``arranged``."""
    lengths: dict[str, list[int]] = {"prompt": [len(example.cells[0].context) for example in tokenized]}
    for position, role in enumerate(roles):
        lengths[role] = [len(example.cells[position].response) for example in tokenized]
    if not roles:
        lengths["response"] = [len(cell.response) for example in tokenized for cell in example.cells]
    lengths["all"] = [len(c.context) + len(c.response) for example in tokenized for c in example.cells]
    tables, histogram = _distributions(lengths)
    longer_chosen = None
    if {"chosen", "rejected"} <= set(roles):
        difference = np.subtract(lengths["chosen"], lengths["rejected"])
        longer_chosen = float(np.mean((np.sign(difference) + 1) / 2))
    unique = sum(unique_tokens(example.cells) for example in tokenized)
    left_out = [f"{reason} left out: {count}." for reason, count in arranged.dropped.items()]
    if bad := arranged.skipped:
        left_out.append(f"rows that could not be read: {len(bad)}, first {bad[0]}.")
    return DataSummary(
        name=arranged.name,
        format=arranged.format,
        examples=len(tokenized),
        responses=sum(len(example.cells) for example in tokenized),
        skipped=len(arranged.skipped),
        dropped=arranged.dropped,
        max_length=max_length,
        truncated_prompts=len(truncation.prompts),
        truncated_responses=len(truncation.responses),
        truncated_tokens=truncation.tokens,
        empty_responses=sum(not says_something(r.content) for example in arranged for r in example.responses),
        lengths=tables,
        longer_chosen=longer_chosen,
        tokens_padded=sum(lengths["all"]),
        tokens_unique=unique,
        sharing=sum(lengths["all"]) / unique,
        histogram=histogram,
        notes=(*left_out, *truncation.notes(max_length), *notes),
    )


def _distributions(
    lengths: Mapping[str, Sequence[int]],
) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
    """Quantiles with the mean, and histograms over common bins."""
    tables = {}
    for name, values in lengths.items():
        cuts = np.quantile(values, list(QUANTILES.values()))
        tables[name] = dict(zip(QUANTILES, cuts.tolist(), strict=True)) | {"mean": float(np.mean(values))}
    edges = np.linspace(0, max(lengths["all"]) + 1, BINS + 1)
    histogram = {"edges": edges.tolist()}
    for name, values in lengths.items():
        histogram[name] = np.histogram(values, edges)[0].tolist()
    return tables, histogram
