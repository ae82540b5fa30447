"""Diversity of responses, of one prompt or of several, measured on their tokens: words, or a tokenizer's ids.

All n-gram shares except the adjusted one fall with the amount of text: compare models at equal amounts.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Hashable, Sequence
from statistics import fmean

from prefero.errors import PreferoError

Tokens = Sequence[Hashable]


def ngrams(text: Tokens, n: int) -> list[tuple[Hashable, ...]]:
    """The n-grams of a text, in their order; none if it is shorter than ``n``."""
    if n < 1:
        raise PreferoError(f"n is {n}; expected at least 1.")
    return [tuple(text[start : start + n]) for start in range(len(text) - n + 1)]


def distinct(texts: Sequence[Tokens], n: int) -> float:
    """Distinct n-grams over all n-grams of the texts together; 0 if there are none. Li et al., 2016, arXiv
    1510.03055."""
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def expectation_adjusted_distinct(texts: Sequence[Tokens], vocabulary: int, n: int = 1) -> float:
    """Distinct n-grams over the number expected of as many uniform draws from ``vocabulary`` n-grams (the
    tokenizer's vocabulary for n = 1), which does not fall with length. Liu et al., 2022, arXiv 2202.13587."""
    if vocabulary < 1:
        raise PreferoError(f"vocabulary is {vocabulary}; expected at least 1 possible n-gram.")
    grams = [gram for text in texts for gram in ngrams(text, n)]
    if not grams:
        return 0.0
    if vocabulary == 1:
        return 1.0
    expected = -vocabulary * math.expm1(len(grams) * math.log1p(-1 / vocabulary))
    return len(set(grams)) / expected


def ngram_entropy(texts: Sequence[Tokens], n: int) -> float:
    """The entropy of the n-grams' frequencies, in nats."""
    counts = Counter(gram for text in texts for gram in ngrams(text, n))
    total = sum(counts.values())
    return -math.fsum(count / total * math.log(count / total) for count in counts.values())


def bleu(hypothesis: Tokens, references: Sequence[Tokens], n: int = 4, *, smoothing: float = 0.1) -> float:
    """BLEU of one text against several: the geometric mean of the clipped precisions of 1- to n-grams times
    the brevity penalty. Papineni et al., 2002. No match counts ``smoothing`` matches (Chen and Cherry, 2014,
    method 1), except of single tokens, which gives 0."""
    if not hypothesis or not references:
        return 0.0
    logs = []
    for order in range(1, n + 1):
        counts = Counter(ngrams(hypothesis, order))
        most: Counter[tuple[Hashable, ...]] = Counter()
        for reference in references:
            most |= Counter(ngrams(reference, order))
        matches = (counts & most).total()
        if order == 1 and not matches:
            return 0.0
        logs.append(math.log((matches or smoothing) / max(1, counts.total())))
    length = len(hypothesis)
    closest = min(map(len, references), key=lambda other: (abs(other - length), other))
    penalty = min(0.0, 1 - closest / length)
    return math.exp(fmean(logs) + penalty)


def self_bleu(texts: Sequence[Tokens], n: int = 4) -> float:
    """The mean BLEU of each text against all others: 1 where all are the same, low where they differ. Zhu et
    al., 2018, arXiv 1802.01886.

    Raises:
        PreferoError: fewer than two texts.
    """
    if len(texts) < 2:
        raise PreferoError(f"self-BLEU needs at least two texts; got {len(texts)}.")
    return fmean(bleu(text, [*texts[:index], *texts[index + 1 :]], n) for index, text in enumerate(texts))


def compression_ratio(texts: Sequence[str]) -> float:
    """Bytes of the texts over bytes after compression: high where they repeat each other, or themselves.
    Shaib et al., 2024, arXiv 2403.00553. Comparable at equal amounts of text only."""
    raw = "\n".join(texts).encode()
    return len(raw) / len(zlib.compress(raw, 9))


def jaccard(first: Tokens, second: Tokens) -> float:
    """Shared tokens over all tokens of two texts, each counted once; 1 for two empty texts."""
    both, either = set(first) & set(second), set(first) | set(second)
    return len(both) / len(either) if either else 1.0


def mean_distance(texts: Sequence[Tokens]) -> float:
    """1 − Jaccard similarity, over all pairs of texts."""
    if len(texts) < 2:
        raise PreferoError(f"a mean distance needs at least two texts; got {len(texts)}.")
    return fmean(
        1 - jaccard(first, second) for index, first in enumerate(texts) for second in texts[index + 1 :]
    )
