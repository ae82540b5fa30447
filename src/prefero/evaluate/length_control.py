"""Length-controlled win rates: what a judge would say if both responses were equally long.

Dubois et al., 2024, "Length-controlled AlpacaEval", arXiv 2404.04475. The judge's preference is modelled as

    logit P(model ≻ baseline) = θ + φ · tanh(ΔL / s) + ψ · difficulty,

ΔL being the baseline's length less the model's and s its standard deviation over the prompts (n − 1 in the
denominator; ΔL is not centred). The win rate is the mean over prompts of the fitted probability with the
length term left out. The fit is that of the leaderboard: an L1 penalty on all three coefficients, its
strength among ten by five-fold cross-validation, judged probabilities as targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefero.errors import PreferoError
from prefero.evaluate.intervals import Interval, bootstrap
from prefero.evaluate.logistic import STRENGTHS, Array, Rows, cross_validated, fit
from prefero.evaluate.win_rate import win_rate_of

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Coefficients:
    """θ (``model``), φ (``length``) and ψ (``difficulty``, 0 without difficulties), in logits.

    A judge who likes long responses has a negative ``length``: the longer the baseline, the less the model
    is preferred.
    """

    model: float
    length: float
    difficulty: float = 0.0

    def predictions(self, difficulty: Sequence[float] | Array) -> Array:
        """P(model ≻ baseline) on each prompt at equal lengths."""
        return np.exp(-np.logaddexp(0, -(self.model + self.difficulty * np.asarray(difficulty, np.float64))))

    def against(self, other: Coefficients, difficulty: Sequence[float]) -> float:
        """The predicted length-controlled win rate against another model measured with the same baseline, on
        prompts of these difficulties (zeros where none were used)."""
        between = Coefficients(self.model - other.model, 0.0, self.difficulty - other.difficulty)
        return float(between.predictions(difficulty).mean())


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """``rate`` is the win rate at equal lengths, ``raw`` the plain one, ``strength`` the inverse penalty that
    was chosen. ``interval`` is a bootstrap over prompts with everything fitted again but the strength."""

    rate: float
    interval: Interval
    raw: float
    coefficients: Coefficients
    strength: float
    comparisons: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Anchors:
    """Comparisons of the baseline with itself, told to be short or long, that keep φ from being fitted to one
    model's habits: θ is 0 in them.

    AlpacaEval's are those of its two gamed baselines, in ``df_gamed.csv`` of its data set. ``length`` is
    already ΔL / s. All of them together count ``weight / 2`` each (λ = 0.2 over two baselines).
    """

    preferences: Sequence[float]
    length: Sequence[float]
    difficulty: Sequence[float]
    weight: float = 0.2


def length_controlled_win_rate(
    preferences: Sequence[float],
    lengths: Sequence[float],
    baseline_lengths: Sequence[float],
    *,
    difficulty: Sequence[float] | None = None,
    anchors: Anchors | None = None,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    confidence: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> LengthControlled:
    """The length-controlled win rate of one model against a baseline, one comparison a prompt.

    With AlpacaEval's ``difficulty`` and ``anchors``, its judge and its baseline, the number is that of its
    leaderboard (``length_controlled_v1``); without anchors it is its ``length_controlled_noreg``, without
    both its ``length_controlled_minimal``. The rate of a model against itself is ½, and that of the baseline
    against the model is one minus the rate (exactly so without anchors).

    Args:
        preferences: how probably the model's response is preferred, 0 to 1, ½ for a tie.
        lengths: of the model's responses, in any one unit; AlpacaEval counts characters.
        baseline_lengths: of the baseline's.
        difficulty: of each prompt, in logits: AlpacaEval's are fitted over its whole leaderboard.
        anchors: what the length term is tied to.
        strengths: the inverse penalties to choose among.
        folds: of the cross-validation.
        resamples: of the bootstrap.

    Raises:
        PreferoError: numbers of different lengths, a preference that is no probability, or fewer than two
            comparisons a fold.
    """
    raw = win_rate_of(preferences, confidence=confidence).rate
    _check(len(preferences), folds, lengths=lengths, baseline_lengths=baseline_lengths, difficulty=difficulty)
    hardness = np.zeros(len(preferences)) if difficulty is None else np.asarray(difficulty, np.float64)
    gap = np.asarray(baseline_lengths, np.float64) - np.asarray(lengths, np.float64)
    target = np.asarray(preferences, np.float64)
    anchored = _anchor_rows(anchors)

    def rows(chosen: Places) -> Rows:
        return _joined(anchored, _rows(target[chosen], gap[chosen], hardness[chosen]))

    everything = np.arange(len(target))
    used = slice(None) if difficulty is not None or anchors is not None else slice(0, 2)
    coefficients, strength = cross_validated(_only(rows(everything), used), strengths=strengths, folds=folds)
    start = coefficients

    def rate(chosen: Places) -> float:
        again = _named(fit(_only(rows(chosen), used), strength, start))
        return float(again.predictions(hardness[chosen]).mean())

    found = _named(coefficients)
    return LengthControlled(
        float(found.predictions(hardness).mean()),
        bootstrap(rate, len(target), confidence=confidence, resamples=resamples, seed=seed),
        raw,
        found,
        strength,
        len(target),
    )


def _check(count: int, folds: int, **columns: Sequence[float] | None) -> None:
    for name, values in columns.items():
        if values is None:
            continue
        if len(values) != count:
            raise PreferoError(f"there are {count} preferences and {len(values)} {name}; give one for each.")
        if not np.isfinite(np.asarray(values, np.float64)).all():
            place = int(np.flatnonzero(~np.isfinite(np.asarray(values, np.float64)))[0]) + 1
            raise PreferoError(f"{name}, number {place}, is not a number.")
    if count < 2 * folds:
        raise PreferoError(
            f"a length-controlled win rate with {folds} folds needs at least {2 * folds} comparisons; got "
            f"{count}."
        )


def _rows(target: Array, gap: Array, difficulty: Array) -> Rows:
    """Rows with the columns length, model, difficulty."""
    deviation = gap.std(ddof=1)
    length = np.tanh(gap / deviation) if deviation > 0 else np.zeros_like(gap)
    return Rows(np.stack([length, np.ones_like(gap), difficulty], axis=1), target, np.ones_like(gap))


def _anchor_rows(anchors: Anchors | None) -> Rows | None:
    if anchors is None or not anchors.weight:
        return None
    length = np.tanh(np.asarray(anchors.length, np.float64))
    difficulty = np.asarray(anchors.difficulty, np.float64)
    features = np.stack([length, np.zeros_like(length), difficulty], axis=1)
    weights = np.full_like(length, anchors.weight / 2)
    return Rows(features, np.asarray(anchors.preferences, np.float64), weights)


def _joined(first: Rows | None, second: Rows) -> Rows:
    if first is None:
        return second
    return Rows(
        np.concatenate([first.features, second.features]),
        np.concatenate([first.targets, second.targets]),
        np.concatenate([first.weights, second.weights]),
    )


def _only(rows: Rows, columns: slice) -> Rows:
    return Rows(rows.features[:, columns], rows.targets, rows.weights)


def _named(coefficients: Array) -> Coefficients:
    length, model, *rest = coefficients.tolist()
    return Coefficients(model, length, rest[0] if rest else 0.0)
