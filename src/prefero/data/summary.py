"""Summary of a tokenised data set: lengths, truncation, and how much its responses share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from prefero.data.arrange import NoneLeftError
from prefero.data.examples import Example, Examples, says_something
from prefero.data.trie import TokenExample, unique_tokens
from prefero.errors import number_of

QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}

BINS = 30


@dataclass(slots=True)
class Treatment:
    """How examples are made to fit ``max_length``, and what became of them: the origins of the prompts and
    responses that were shortened, the number of tokens lost, the origins of examples left out by reason, the
    bad rows that were skipped, and the origins of rows by what their notes say."""

    max_length: int | None = None
    too_long: str = "cut_response"
    prompts: list[str] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)
    tokens: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)

    def cut(self, origin: str, of_prompt: int, of_responses: int) -> list[str]:
        """Count what an example lost, and say so."""
        notes = []
        self.tokens += of_prompt + of_responses
        if of_prompt:
            self.prompts.append(origin)
            notes.append(
                f"the prompt was cut: it lost {number_of(of_prompt, 'token')} to fit "
                f"max_length = {self.max_length}"
            )
        if of_responses:
            self.responses.append(origin)
            notes.append(
                f"ends of responses were cut: {number_of(of_responses, 'token')} lost to fit "
                f"max_length = {self.max_length}"
            )
        return notes

    def noted(self, notes: Sequence[str], origin: str) -> tuple[str, ...]:
        """The notes on a row, remembered."""
        for note in notes:
            if "max_length" not in note:  # counted as cuts
                self.remarks.setdefault(note, []).append(origin)
        return tuple(notes)

    def applied(self, examples: Examples, kept: Sequence[Example]) -> Examples:
        """The examples that are left.

        Raises :class:`NoneLeftError` where there are none.
        """
        dropped = {**examples.dropped, **{reason: len(origins) for reason, origins in self.left_out.items()}}
        if not kept:
            reasons = [f"{reason}: {count}" for reason, count in dropped.items()]
            reasons += (
                [f"{number_of(len(self.skipped), 'bad row')}, the first: {self.skipped[0]}"]
                if self.skipped
                else []
            )
            origins = [origin for some in self.left_out.values() for origin in some]
            where = f", first {origins[0]}" if origins else ""
            raise NoneLeftError(
                f"{examples.name or 'the data'}: no example is left: {', '.join(reasons)}{where}."
            )
        return replace(
            examples, items=list(kept), dropped=dropped, skipped=(*examples.skipped, *self.skipped)
        )

    def notes(self) -> list[str]:
        """Messages to the user, with the remedy."""
        notes = [
            f"{reason} left out: {len(origins)}, first {origins[0]}."
            for reason, origins in self.left_out.items()
        ]
        if self.prompts:
            lose = "oldest turns" if self.too_long == "cut_response" else "oldest turns or tokens"
            notes.append(
                f"prompts that lost their {lose} to fit max_length = {self.max_length}: {len(self.prompts)}, "
                f"first {self.prompts[0]}. Raise max_length to keep them whole."
            )
        if self.responses:
            notes.append(
                f"responses that lost their ends to fit max_length = {self.max_length}: "
                f"{len(self.responses)}, first {self.responses[0]}. Raise max_length, or choose too_long."
            )
        notes += [
            f"{note}: {number_of(len(origins), 'row')}, first {origins[0]}."
            for note, origins in self.remarks.items()
        ]
        return notes


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
    treatment: Treatment,
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
    left_out = [
        f"{reason} left out: {count}."
        for reason, count in arranged.dropped.items()
        if reason not in treatment.left_out
    ]
    left_out += [
        note for note in (one_label(arranged), unread_columns(arranged), skipped_rows(arranged)) if note
    ]
    return DataSummary(
        name=arranged.name,
        format=arranged.format,
        examples=len(tokenized),
        responses=sum(len(example.cells) for example in tokenized),
        skipped=len(arranged.skipped),
        dropped=arranged.dropped,
        max_length=treatment.max_length,
        truncated_prompts=len(treatment.prompts),
        truncated_responses=len(treatment.responses),
        truncated_tokens=treatment.tokens,
        empty_responses=sum(not says_something(r.content) for example in arranged for r in example.responses),
        lengths=tables,
        longer_chosen=longer_chosen,
        tokens_padded=sum(lengths["all"]),
        tokens_unique=unique,
        sharing=sum(lengths["all"]) / unique,
        histogram=histogram,
        notes=(*left_out, *treatment.notes()),
    )


def one_label(examples: Sequence[Example]) -> str:
    """A note that all responses have the same label where each stands alone; empty where they do not, and for
    one row."""
    alone = len(examples) > 1 and all(len(example.responses) == 1 for example in examples)
    labels = {example.responses[0].columns.get("label") for example in examples} if alone else set()
    if labels not in ({1.0}, {-1.0}):
        return ""
    label, other = ("desirable", "undesirable") if labels == {1.0} else ("undesirable", "desirable")
    return (
        f"all labels are {label} ({number_of(len(examples), 'row')}): a method that learns from labels needs "
        f"{other} responses too."
    )


def unread_columns(examples: Sequence[Example]) -> str:
    """A note on the columns of which nothing is made; empty where there are none."""
    unread = dict.fromkeys(name for example in examples for name in example.unread)
    if not unread:
        return ""
    return f"columns that are not read: {', '.join(unread)} (data.columns says what a column holds)."


def skipped_rows(examples: Examples) -> str:
    """A note on the rows that could not be read and are left out; empty where there are none."""
    bad = examples.skipped
    return f"rows that could not be read left out: {len(bad)}, first {bad[0]}." if bad else ""


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
