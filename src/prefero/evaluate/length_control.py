"""Length-controlled win rates: how often a judge would prefer the model if both responses were equally long.

Dubois et al., 2024, "Length-controlled AlpacaEval", arXiv 2404.04475. The judge's preference is modelled as

    logit P(model ≻ baseline) = θ + φ · tanh(ΔL / s) + ψ · difficulty,

where ΔL is the baseline's length minus the model's and s its standard deviation over the prompts (n − 1 in
the denominator; ΔL is not centred). The win rate is the mean over prompts of the fitted probability without
the length term. The fit is that of the leaderboard: an L1-penalised logistic regression, its strength chosen
among ten by five-fold cross-validation, judged probabilities as targets.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from prefero.errors import PreferoError
from prefero.evaluate.intervals import Interval, bootstrap
from prefero.evaluate.win_rate import win_rate_of

Array = NDArray[np.float64]

STRENGTHS: tuple[float, ...] = tuple(np.logspace(-4, 4, 10).tolist())
"""The inverse penalties that cross-validation chooses among: scikit-learn's ten."""


LARGEST = 1e9
"""The largest length or difficulty that is fitted: sums of larger numbers are none."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """θ (``model``), φ (``length``) and ψ (``difficulty``, 0 without difficulties), in logits. A judge who
    likes long responses has a negative ``length``."""

    model: float
    length: float
    difficulty: float = 0.0

    def predictions(self, difficulty: Sequence[float] | Array) -> Array:
        """P(model ≻ baseline) on each prompt at equal lengths."""
        return expit(self.model + self.difficulty * np.asarray(difficulty, np.float64))

    def against(self, other: Coefficients, difficulty: Sequence[float]) -> float:
        """The predicted rate against another model with the same baseline, on prompts of these
        difficulties."""
        between = Coefficients(self.model - other.model, 0.0, self.difficulty - other.difficulty)
        return float(between.predictions(difficulty).mean())


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """``rate`` is the win rate at equal lengths, ``raw`` the plain one, ``strength`` the inverse penalty that
    was chosen. ``interval`` is a bootstrap over prompts that refits everything except the strength."""

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
    """Comparisons of the baseline with short and long versions of itself (θ is 0), which keep φ from being
    fitted to the habits of one model, such as AlpacaEval's ``df_gamed.csv``. ``length`` is already ΔL / s.
    Each counts ``weight / 2`` of a comparison (λ = 0.2 over two baselines)."""

    preferences: Sequence[float]
    length: Sequence[float]
    difficulty: Sequence[float]
    weight: float = 0.2


@dataclass(frozen=True, slots=True)
class Rows:
    """``features`` (row, feature), the probability to be predicted in each row, and the row's weight."""

    features: Array
    targets: Array
    weights: Array

    def __getitem__(self, rows: Any) -> Rows:
        return Rows(self.features[rows], self.targets[rows], self.weights[rows])

    def __len__(self) -> int:
        return len(self.targets)


def length_controlled_win_rate(
    preferences: Sequence[float],
    lengths: Sequence[float],
    baseline_lengths: Sequence[float],
    *,
    difficulty: Sequence[float] | None = None,
    anchors: Anchors | None = None,
    prompts: Sequence[Hashable] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    confidence: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> LengthControlled:
    """The length-controlled win rate of one model against a baseline, from a comparison for each prompt, or
    several.

    With AlpacaEval's ``difficulty`` and ``anchors``, its judge and its baseline, the number is that of its
    leaderboard (``length_controlled_v1``); without anchors it is its ``length_controlled_noreg``, without
    both its ``length_controlled_minimal``. The rate of a model against itself is ½, and that of the baseline
    against the model is one minus the rate (exactly so without anchors).

    Args:
        preferences: how probably the model's response is preferred, 0 to 1, ½ for a tie.
        lengths: of the model's responses, in any one unit; AlpacaEval counts characters.
        baseline_lengths: of the baseline's.
        difficulty: of each prompt, in logits, as :func:`~prefero.evaluate.fit_difficulties` fits them from
            several models; AlpacaEval's are fitted over its whole leaderboard. Without them the rate can be
            far off.
        anchors: comparisons that the length term is tied to.
        prompts: of the comparisons, where some share one: the bootstrap draws prompts with all of theirs.
        strengths: the inverse penalties to choose among.
        folds: of the cross-validation.
        resamples: of the bootstrap.

    Raises:
        PreferoError: numbers of different lengths, a preference that is not a probability, lengths or
            difficulties that are no numbers or above 10⁹, or fewer than two comparisons per fold.
    """
    raw = win_rate_of(preferences, confidence=confidence).rate
    _check(len(preferences), folds, lengths=lengths, baseline_lengths=baseline_lengths, difficulty=difficulty)
    if prompts is not None and len(prompts) != len(preferences):
        raise PreferoError(f"there are {len(preferences)} preferences and {len(prompts)} prompts")
    hardness = np.zeros(len(preferences)) if difficulty is None else np.asarray(difficulty, np.float64)
    gap = np.asarray(baseline_lengths, np.float64) - np.asarray(lengths, np.float64)
    target = np.asarray(preferences, np.float64)
    columns = 2 if difficulty is None and anchors is None else 3

    of_prompt: dict[Hashable, list[int]] = {}
    for place, prompt in enumerate(range(len(target)) if prompts is None else prompts):
        of_prompt.setdefault(prompt, []).append(place)
    members = [np.array(places) for places in of_prompt.values()]

    def rate(drawn: NDArray[np.int64]) -> float:
        some = np.concatenate([members[index] for index in drawn])
        resampled = _rows(target[some], gap[some], hardness[some], anchors, columns)
        return float(_named(fit(resampled, strength)).predictions(hardness[some]).mean())

    rows = _rows(target, gap, hardness, anchors, columns)
    fitted, strength = cross_validated(rows, strengths=strengths, folds=folds)
    coefficients = _named(fitted)
    return LengthControlled(
        float(coefficients.predictions(hardness).mean()),
        bootstrap(rate, len(members), confidence=confidence, resamples=resamples, seed=seed),
        raw,
        coefficients,
        strength,
        len(target),
    )


def length_feature(gap: Array) -> Array:
    """tanh(ΔL / s) of a model's comparisons, from ΔL; 0 where all are equally much longer."""
    deviation = gap.std(ddof=1) if len(gap) > 1 else 0.0
    return np.tanh(gap / deviation) if deviation > 0 else np.zeros_like(gap)


def _rows(target: Array, gap: Array, difficulty: Array, anchors: Anchors | None, columns: int) -> Rows:
    """The rows of the regression, anchors first; the columns are length, model, difficulty."""
    length = length_feature(gap)
    features, weights = np.stack([length, np.ones_like(gap), difficulty], axis=1), np.ones_like(gap)
    if anchors is not None and anchors.weight:
        length = np.tanh(np.asarray(anchors.length, np.float64))
        anchored = np.stack([length, np.zeros_like(length), np.asarray(anchors.difficulty)], axis=1)
        features = np.concatenate([anchored, features])
        target = np.concatenate([np.asarray(anchors.preferences, np.float64), target])
        weights = np.concatenate([np.full_like(length, anchors.weight / 2), weights])
    return Rows(features[:, :columns], target, weights)


def _check(count: int, folds: int, **columns: Sequence[float] | None) -> None:
    for name, values in columns.items():
        if values is None:
            continue
        if len(values) != count:
            raise PreferoError(f"there are {count} preferences and {len(values)} {name}; give one for each.")
        wrong = np.flatnonzero(~(np.abs(np.asarray(values, np.float64)) <= LARGEST))
        if len(wrong):
            value = values[wrong[0]]
            reason = f"is {value:g}; at most {LARGEST:g} is read" if np.isfinite(value) else "is not a number"
            raise PreferoError(f"{name}, number {wrong[0] + 1}, {reason}.")
    if count < 2 * folds:
        raise PreferoError(
            f"a length-controlled win rate with {folds} folds needs at least {2 * folds} comparisons; got "
            f"{count}."
        )


def _named(coefficients: Array) -> Coefficients:
    length, model, *rest = coefficients.tolist()
    return Coefficients(model, length, rest[0] if rest else 0.0)


def fit(rows: Rows, strength: float) -> Array:
    """The coefficients that minimise ‖w‖₁ + strength · Σ weight · cross entropy, without an intercept."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(
        C=strength, l1_ratio=1, solver="liblinear", fit_intercept=False, tol=1e-10, max_iter=1000,
        random_state=0,
    )  # fmt: skip
    features = np.concatenate([rows.features, rows.features])
    labels = np.repeat([1, 0], len(rows))
    # liblinear leaves out rows of weight 0, and fits nothing where that leaves one label.
    targets = np.clip(rows.targets, 1e-12, 1 - 1e-12)
    weights = np.concatenate([targets * rows.weights, (1 - targets) * rows.weights])
    with warnings.catch_warnings():
        # The tolerance is below what sums of separable rows can be told apart by.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return regression.fit(features, labels, sample_weight=weights).coef_[0]


def cross_entropies(rows: Rows, coefficients: Array) -> Array:
    """−t log p − (1 − t) log(1 − p) of each row, unweighted."""
    margins = rows.features @ coefficients
    return np.logaddexp(0, -margins) + (1 - rows.targets) * margins


def cross_validated(
    rows: Rows, *, strengths: Sequence[float] = STRENGTHS, folds: int = 5
) -> tuple[Array, float]:
    """The coefficients on all rows at the strength with the lowest mean cross entropy on held-out rows (of
    equal ones the smallest), and that strength. Folds are those of scikit-learn's ``GroupKFold``.

    Raises:
        PreferoError: there are fewer rows than folds.
    """
    if len(rows) < folds:
        raise PreferoError(f"{folds}-fold cross-validation needs at least {folds} rows; got {len(rows)}.")
    fold = np.arange(len(rows))[::-1] % folds
    losses = np.zeros((folds, len(strengths)))
    for held_out in range(folds):
        train, test = rows[fold != held_out], rows[fold == held_out]
        for place, strength in enumerate(strengths):
            losses[held_out, place] = np.mean(test.weights * cross_entropies(test, fit(train, strength)))
    best = strengths[int(losses.mean(0).argmin())]
    return fit(rows, best), best
