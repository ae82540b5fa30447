"""The data as the checks see them: texts of prompts and responses, labels, votes, and an overview."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from prefero.data.arrange import PAIR, worth
from prefero.data.examples import Example, Examples, Response, Text, spoken
from prefero.data.files import Rows, Source, load_rows
from prefero.data.formats import load_examples
from prefero.data.pictures import Picture

QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}
"""Quantiles of lengths by name, those of :mod:`prefero.data.summary`, which would import torch."""

OTHER_LABEL = "\0"
"""Stands for the second text where a single response is labelled."""

BINS = 30
"""Bins of the histogram of lengths."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt. ``row`` is the position of the example; ``scores`` (by a judge) and
    ``writers`` are of the chosen and the rejected response, if both are known."""

    row: int
    prompt: str
    chosen: str
    rejected: str
    scores: tuple[float, float] | None = None
    writers: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A single response that is labelled good or bad."""

    row: int
    prompt: str
    response: str
    good: bool


@dataclass(frozen=True, slots=True)
class Corpus:
    """The examples of one source as pairs (a list as its best against its worst response) or labelled
    responses. ``ties`` are rows that prefer neither side, ``bare`` are rows without any preference."""

    examples: Examples
    pairs: tuple[Pair, ...]
    labelled: tuple[Labelled, ...]
    ties: tuple[int, ...]
    bare: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def drawn(self) -> bool:
        """Whether responses are images."""
        return any(isinstance(r.content, Picture) for example in self.examples for r in example.responses)

    def origin(self, row: int) -> str:
        return self.examples[row].origin

    @property
    def votes(self) -> dict[int, tuple[float, ...]]:
        """By row, its annotators' votes: 1 for the first response in the file, 0 for the second, ½ for a
        tie."""
        return {
            row: tuple(1 - vote if example.chosen_second else vote for vote in example.votes.values())
            for row, example in enumerate(self.examples)
            if example.votes
        }

    @property
    def prompts(self) -> Iterator[str]:
        """The prompt of every row."""
        return (prompt_text(example.prompt) for example in self.examples)

    @property
    def judgements(self) -> Iterator[tuple[int, str, str, str]]:
        """Every judgement: its row, its prompt, the better and the worse text, or :data:`OTHER_LABEL`."""
        for pair in self.pairs:
            yield pair.row, pair.prompt, pair.chosen, pair.rejected
        for item in self.labelled:
            sides = (item.response, OTHER_LABEL) if item.good else (OTHER_LABEL, item.response)
            yield item.row, item.prompt, *sides

    @property
    def responses(self) -> Iterator[tuple[int, str]]:
        """Every response of a pair or with a label: its row and its text."""
        for pair in self.pairs:
            yield pair.row, pair.chosen
            yield pair.row, pair.rejected
        for labelled in self.labelled:
            yield labelled.row, labelled.response


def read(
    source: Source,
    *,
    split: str = "train",
    format: str = "auto",
    columns: Mapping[str, str] = MappingProxyType({}),
    map: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    limit: int | None = None,
) -> tuple[Corpus, Source]:
    """The corpus of a source (rows that cannot be read are in ``examples.skipped``), and the source in a form
    that can be read again. Raises :class:`PreferoError` where nothing can be read."""
    if not isinstance(source, str | Path | list | tuple | Rows) and not hasattr(source, "column_names"):
        source = source if hasattr(source, "keys") else list(source)
    rows = load_rows(source, split=split, streaming=limit is not None)
    examples = load_examples(rows, format=format, columns=columns, map=map, skip_bad_rows=True, limit=limit)
    return of_examples(examples), source


def of_examples(examples: Examples) -> Corpus:
    """The corpus of some examples."""
    pairs, labelled, ties, bare = [], [], [], []
    for row, example in enumerate(examples):
        sides = _sides(example)
        only = example.responses[0] if len(example.responses) == 1 else None
        if example.columns.get("tie") or (sides and sides[0] is sides[1]):
            ties.append(row)
        elif sides:
            pairs.append(_pair(row, example, *sides))
        elif only and "label" in only.columns:
            good = only.columns["label"] > 0
            labelled.append(Labelled(row, prompt_text(example.prompt), response_text(only), good))
        else:
            bare.append(row)
    return Corpus(examples, tuple(pairs), tuple(labelled), tuple(ties), tuple(bare))


def _sides(example: Example) -> tuple[Response, Response] | None:
    """The two sides, or the best and the worst of a list (equal if all are); None where any is unknown."""
    by_role = {response.role: response for response in example.responses}
    if set(PAIR) <= set(by_role):
        return by_role["chosen"], by_role["rejected"]
    worths = [worth(response) for response in example.responses]
    known = [value for value in worths if value is not None]
    if len(known) < 2 or len(known) < len(worths):
        return None
    return example.responses[known.index(max(known))], example.responses[known.index(min(known))]


def _pair(row: int, example: Example, chosen: Response, rejected: Response) -> Pair:
    scores = chosen.columns.get("score"), rejected.columns.get("score")
    return Pair(
        row,
        prompt_text(example.prompt),
        response_text(chosen),
        response_text(rejected),
        None if scores[0] is None or scores[1] is None else (scores[0], scores[1]),
        (chosen.writer, rejected.writer) if chosen.writer and rejected.writer else None,
    )


def response_text(response: Response) -> str:
    """A response as one text; an image as a name that equal images share."""
    if isinstance(response.content, Picture):
        return f"[image {response.content.identity}]"
    return "\n\n".join(spoken(response.content))


def prompt_text(content: Text) -> str:
    """A prompt as one text; the turns of a conversation with their roles."""
    if isinstance(content, str):
        return content
    if len(content) == 1:
        return _message_text(content[0].get("content"))
    return "\n\n".join(f"{turn['role']}: {_message_text(turn.get('content'))}" for turn in content)


def _message_text(content: Any) -> str:
    if isinstance(content, list | tuple):
        return "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return content or ""


def fingerprint(text: str) -> int:
    """A number that is the same for texts that differ only in white space and case."""
    return hash(" ".join(text.split()).casefold())


def facts(corpus: Corpus) -> Iterator[tuple[str, int]]:
    """Counts of rows by kind."""
    yield "rows that could be read", len(corpus)
    yield "pairs", len(corpus.pairs)
    if corpus.labelled:
        yield "labelled responses", len(corpus.labelled)
    if corpus.ties:
        yield "ties", len(corpus.ties)
    lists = sum(len(example.responses) > 2 for example in corpus.examples)
    if lists:
        yield "lists, read as best against worst", lists
    own = sum(any(r.prompt is not None for r in example.responses) for example in corpus.examples)
    if own:
        yield "pairs whose sides have different prompts", own
    yield "distinct prompts", len(set(corpus.prompts))


def lengths(corpus: Corpus) -> dict[str, list[int]]:
    """Lengths in characters of the prompts and of the responses by label."""
    if corpus.drawn:
        return {"prompt": [len(prompt) for prompt in corpus.prompts]}
    by_name = {
        "prompt": [len(prompt) for prompt in corpus.prompts],
        "chosen": [len(pair.chosen) for pair in corpus.pairs],
        "rejected": [len(pair.rejected) for pair in corpus.pairs],
        "good": [len(labelled.response) for labelled in corpus.labelled if labelled.good],
        "bad": [len(labelled.response) for labelled in corpus.labelled if not labelled.good],
    }
    return {name: values for name, values in by_name.items() if values}


def quantiles(lengths: Mapping[str, Sequence[int]]) -> dict[str, dict[str, float]]:
    """The quantiles of each list of lengths."""
    cuts = {name: np.quantile(values, list(QUANTILES.values())).tolist() for name, values in lengths.items()}
    return {name: dict(zip(QUANTILES, values, strict=True)) for name, values in cuts.items()}


def histogram(lengths: Mapping[str, Sequence[int]]) -> tuple[list[float], dict[str, list[float]]]:
    """The responses' lengths up to their 99th percentile, in bins: edges, and counts by label."""
    sides = {name: values for name, values in lengths.items() if name != "prompt"}
    if not sides:
        return [], {}
    highest = float(np.quantile(np.concatenate([np.asarray(values) for values in sides.values()]), 0.99))
    edges = np.linspace(0, highest + 1, BINS + 1)
    return edges.tolist(), {name: np.histogram(v, edges)[0].tolist() for name, v in sides.items()}
