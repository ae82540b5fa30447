"""Logistic regression on a few features, with an L1 penalty and probabilities as targets.

As far as AlpacaEval's length control needs it: no intercept of its own, exact to rounding, no dependency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefero.errors import PreferoError

Array = NDArray[np.float64]

STRENGTHS: tuple[float, ...] = tuple(np.logspace(-4, 4, 10).tolist())
"""The inverse penalties that cross-validation chooses among: scikit-learn's ten."""

MOST_STEPS = 200
TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Rows:
    """``features`` (row, feature), the probability that is to be met in each row, and what the row counts."""

    features: Array
    targets: Array
    weights: Array

    def __getitem__(self, rows: Any) -> Rows:
        return Rows(self.features[rows], self.targets[rows], self.weights[rows])

    def __len__(self) -> int:
        return len(self.targets)


def probabilities(features: Array, coefficients: Array) -> Array:
    """σ(features · coefficients), without overflow."""
    return np.exp(-np.logaddexp(0, -(features @ coefficients)))


def cross_entropies(rows: Rows, coefficients: Array) -> Array:
    """−t log p − (1 − t) log(1 − p) of each row, unweighted."""
    margins = rows.features @ coefficients
    return np.logaddexp(0, -margins) + (1 - rows.targets) * margins


def fit(rows: Rows, strength: float, start: Array | None = None) -> Array:
    """The coefficients that minimise ‖w‖₁ + strength · Σ weight · cross entropy.

    A proximal Newton method: the quadratic model with the L1 norm is solved by coordinate descent, and a
    step is halved until the objective falls. The minimum is unique where the features are independent.
    """
    coefficients = np.zeros(rows.features.shape[1]) if start is None else start.copy()
    # what rounding leaves of a sum of this size
    tolerance = TOLERANCE * (1 + strength * float((rows.weights @ np.abs(rows.features)).max(initial=0.0)))
    value = _objective(rows, strength, coefficients)
    for _ in range(MOST_STEPS):
        predicted = probabilities(rows.features, coefficients)
        gradient = strength * rows.features.T @ (rows.weights * (predicted - rows.targets))
        if _violation(gradient, coefficients) <= tolerance:
            break
        curvature = strength * rows.weights * predicted * (1 - predicted)
        hessian = rows.features.T @ (curvature[:, None] * rows.features)
        direction = _proximal_step(gradient, hessian, coefficients) - coefficients
        step = 1.0
        while step > 1e-12:
            proposed = coefficients + step * direction
            now = _objective(rows, strength, proposed)
            if now <= value:
                break
            step /= 2
        else:
            break  # rounding hides any further progress
        gain, coefficients, value = value - now, proposed, now
        if gain <= 1e-16 * abs(value):
            break
    return coefficients


def _objective(rows: Rows, strength: float, coefficients: Array) -> float:
    loss = float((rows.weights * cross_entropies(rows, coefficients)).sum())
    return float(np.abs(coefficients).sum()) + strength * loss


def _violation(gradient: Array, coefficients: Array) -> float:
    """How far zero is from the subdifferential, in the worst coordinate."""
    at_zero = np.maximum(np.abs(gradient) - 1, 0)
    elsewhere = np.abs(gradient + np.sign(coefficients))
    return float(np.where(coefficients == 0, at_zero, elsewhere).max(initial=0.0))


def _proximal_step(gradient: Array, hessian: Array, coefficients: Array) -> Array:
    """The minimum of gradient · d + ½ d · hessian · d + ‖w + d‖₁ over w + d."""
    found = coefficients.copy()
    damping = 1e-12 * max(float(np.trace(hessian)), 1e-12)
    slope = gradient.copy()
    for _ in range(1000):
        largest = 0.0
        for j in range(len(found)):
            curvature = hessian[j, j] + damping
            target = found[j] - slope[j] / curvature
            new = np.sign(target) * max(abs(target) - 1 / curvature, 0.0)
            change = new - found[j]
            if change:
                slope += change * hessian[:, j]
                found[j] = new
                largest = max(largest, abs(change))
        if largest <= 1e-13 * max(1.0, float(np.abs(found).max())):
            break
    return found


def cross_validated(
    rows: Rows, *, strengths: Sequence[float] = STRENGTHS, folds: int = 5
) -> tuple[Array, float]:
    """The coefficients on all rows at the strength that predicts held-out rows best, and that strength.

    What is compared is the mean over the folds of the weighted cross entropy per row; of equal strengths the
    smallest is taken. Rows go to the folds in turn, from the last row on.

    Raises:
        PreferoError: there are fewer rows than folds.
    """
    if len(rows) < folds:
        raise PreferoError(f"{folds}-fold cross-validation needs at least {folds} rows; got {len(rows)}.")
    fold = np.arange(len(rows))[::-1] % folds
    losses = np.zeros((folds, len(strengths)))
    for held_out in range(folds):
        train, test = rows[fold != held_out], rows[fold == held_out]
        coefficients = None
        for place, strength in enumerate(strengths):
            coefficients = fit(train, strength, coefficients)
            losses[held_out, place] = np.mean(test.weights * cross_entropies(test, coefficients))
    best = strengths[int(losses.mean(0).argmin())]
    return fit(rows, best), best
