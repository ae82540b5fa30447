"""What the data are, before anything is made of it: counts, and lengths in characters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from prefero.data.summary import QUANTILES
from prefero.doctor.corpus import Corpus

BINS = 30


def facts(corpus: Corpus) -> Iterator[tuple[str, int]]:
    """What there is of what."""
    yield "rows that could be read", len(corpus)
    yield "pairs", len(corpus.pairs)
    if corpus.labelled:
        yield "labelled responses", len(corpus.labelled)
    if corpus.ties:
        yield "ties", len(corpus.ties)
    if any(len(example.responses) > 2 for example in corpus.examples):
        yield "lists, read as best against worst", sum(len(e.responses) > 2 for e in corpus.examples)
    own = sum(any(r.prompt is not None for r in example.responses) for example in corpus.examples)
    if own:
        yield "pairs whose sides have different prompts", own
    yield "distinct prompts", len({prompt for _, prompt in corpus.prompts})


def lengths(corpus: Corpus) -> dict[str, list[int]]:
    """Characters of prompts and of the two sides."""
    found = {
        "prompt": [len(prompt) for _, prompt in corpus.prompts],
        "chosen": [len(pair.chosen) for pair in corpus.pairs],
        "rejected": [len(pair.rejected) for pair in corpus.pairs],
        "good": [len(one.response) for one in corpus.labelled if one.good],
        "bad": [len(one.response) for one in corpus.labelled if not one.good],
    }
    return {name: values for name, values in found.items() if values}


def quantiles(lengths: Mapping[str, Sequence[int]]) -> dict[str, dict[str, float]]:
    tables = {}
    for name, values in lengths.items():
        cuts = np.quantile(values, list(QUANTILES.values())).tolist()
        tables[name] = dict(zip(QUANTILES, cuts, strict=True))
    return tables


def histogram(lengths: Mapping[str, Sequence[int]]) -> tuple[list[float], dict[str, list[float]]]:
    """The responses' lengths up to their 99th percentile, in bins: edges, and counts by side."""
    sides = {name: values for name, values in lengths.items() if name != "prompt"}
    if not sides:
        return [], {}
    highest = float(np.quantile(np.concatenate([np.asarray(v) for v in sides.values()]), 0.99))
    edges = np.linspace(0, highest + 1, BINS + 1)
    return edges.tolist(), {name: np.histogram(v, edges)[0].tolist() for name, v in sides.items()}
