"""A simple classifier that tells chosen from rejected responses by their words, tested on other prompts.

Wang et al., 2025, arXiv 2504.02193, probe the representations of responses for what tells the two sides
apart; here the representation is which words, word pairs, marks and line breaks a response has, and how long
it is. Pairs are compared, so that what the prompt asks for drops out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prefero.evaluate.intervals import Interval, wilson

FOLDS = 5
MOST = 10_000
"""Pairs that the probe is made of."""

TOKEN = r"\w+|[^\w\s]|\n"
SHORTEST = 40
"""Pairs below which there is nothing to test a classifier on."""


@dataclass(frozen=True, slots=True)
class Probe:
    """``leads`` are by how much the classifier puts each chosen response before its rejected one, made of the
    pairs with other prompts. ``accuracy`` is the share of pairs put right, ties half; its interval is over
    the distinct ``prompts``. ``telling`` are the features with most to say for the chosen and for the
    rejected side.
    """

    leads: NDArray[np.float64]
    accuracy: float
    interval: Interval
    telling: tuple[tuple[str, ...], tuple[str, ...]]
    prompts: int


def probe(
    prompts: Sequence[object], chosen: Sequence[str], rejected: Sequence[str], *, seed: int = 0
) -> Probe:
    """Pairs with equal ``prompts`` are on the same side of every split."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    vectors = CountVectorizer(
        token_pattern=TOKEN, ngram_range=(1, 2), min_df=3, max_features=50_000, binary=True, dtype=np.float32
    )
    count = len(chosen)
    try:
        counted = normalize(vectors.fit_transform([*chosen, *rejected]))
        names = [*vectors.get_feature_names_out(), LENGTH]
    except ValueError:  # no word stands in three responses
        counted, names = csr_matrix((2 * count, 0), dtype=np.float32), [LENGTH]
    lengths = np.log1p([[len(text)] for text in (*chosen, *rejected)]).astype(np.float32)
    both = hstack([counted, csr_matrix(lengths)]).tocsr()
    difference = both[:count] - both[count:]
    # Half of the pairs stand the other way round, as a classifier wants two classes.
    way = np.where(np.arange(count) % 2, -1, 1)
    turned = difference.multiply(way[:, None]).tocsr()

    def fitted(rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        model = LogisticRegression(solver="liblinear", fit_intercept=False, C=3.0, random_state=seed)
        return model.fit(turned[rows], way[rows]).coef_.ravel()

    folds = _folds(prompts, seed)
    leads = np.zeros(count)
    for fold in range(FOLDS):
        tested = folds == fold
        if tested.any() and not tested.all():
            leads[tested] = difference[tested] @ fitted(~tested)
    accuracy = float(((leads > 0) + 0.5 * (leads == 0)).mean())
    weights = fitted(np.ones(count, bool))
    spread = np.sqrt(np.asarray(difference.multiply(difference).mean(0))).ravel()
    order = np.argsort(weights * spread)
    telling = (
        tuple(names[i] for i in order[::-1][:8] if weights[i] > 0),
        tuple(names[i] for i in order[:8] if weights[i] < 0),
    )
    distinct = len(set(prompts))
    return Probe(leads, accuracy, wilson(accuracy, distinct), telling, distinct)


LENGTH = "(length)"


def _folds(prompts: Sequence[object], seed: int) -> NDArray[np.int64]:
    numbers: dict[object, int] = {}
    places = [numbers.setdefault(prompt, len(numbers)) for prompt in prompts]
    return np.random.default_rng(seed).permutation(len(numbers))[places] % FOLDS
