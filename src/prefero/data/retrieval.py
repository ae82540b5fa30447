"""Documents for a query: by words (BM25), and words mixed with a dense retriever's scores.

Kim et al., 2025, "Optimizing retrieval strategies for financial question answering", and its released code.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

Tokens = Sequence[Hashable]


def bm25(
    documents: Sequence[Tokens], query: Tokens, *, k1: float = 1.5, b: float = 0.75, epsilon: float = 0.25
) -> list[float]:
    """BM25 in Okapi's form: the score of each document. A term in more than half of the documents, whose
    weight ln(N − n + ½) − ln(n + ½) would be negative, counts ``epsilon`` times the mean weight."""
    counts = [Counter(document) for document in documents]
    containing = Counter(term for count in counts for term in count)
    weight = {term: math.log(len(documents) - n + 0.5) - math.log(n + 0.5) for term, n in containing.items()}
    floor = epsilon * math.fsum(weight.values()) / max(len(weight), 1)
    mean = sum(map(len, documents)) / max(len(documents), 1) or 1.0
    scores = []
    for document, count in zip(documents, counts, strict=True):
        length = k1 * (1 - b + b * len(document) / mean)
        scores.append(
            math.fsum(
                (weight[term] if weight[term] >= 0 else floor)
                * count[term]
                * (k1 + 1)
                / (count[term] + length)
                for term in query
                if term in weight
            )
        )
    return scores


def softmax(scores: Sequence[float]) -> list[float]:
    """Shares that add up to 1."""
    most = max(scores)
    parts = [math.exp(score - most) for score in scores]
    total = math.fsum(parts)
    return [part / total for part in parts]


def mixed(words: Sequence[float], dense: Mapping[int, float], alpha: float) -> dict[int, float]:
    """α · softmax(dense) + (1 − α) · softmax(words), of the documents that the dense retriever returned.

    ``words`` are the scores of all documents, over all of which their softmax is taken.
    """
    by_words, by_sense = softmax(words), softmax(list(dense.values()))
    return {
        document: alpha * sense + (1 - alpha) * by_words[document]
        for document, sense in zip(dense, by_sense, strict=True)
    }


def in_order(scores: Mapping[int, float]) -> list[int]:
    """The documents in the order of their scores; of equal ones the earlier in ``scores``."""
    return sorted(scores, key=lambda document: -scores[document])
