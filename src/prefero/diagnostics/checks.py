"""The questions that monitors ask of a run's history: pure functions, each to one number and a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from prefero.diagnostics.series import (
    CERTAIN,
    EVAL,
    SHORTEST,
    Drift,
    History,
    correlation,
    drift,
    rolling,
    window,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A number past its threshold, and the sentence that says so."""

    value: float
    message: str


def not_finite(history: History, threshold: float) -> Reading | None:
    for name in ("loss", "grad_norm", "eval/loss"):
        values = history.values(name)
        if values and not math.isfinite(values[-1]):
            return Reading(
                values[-1], f"{name} is {values[-1]}: the weights or the data hold no usable numbers."
            )
    return None


BETTER = ("chosen", "desirable", "best")
"""What metrics call the better responses of pairs, of labelled responses and of lists."""

WORSE = ("rejected", "undesirable", "worst")


def displacement(history: History, threshold: float) -> Reading | None:
    """Fall of the mean log-probability per token of the better responses, in nats.

    Since the reference where one is scored, which compares the same responses; else since the first logs.
    """
    for group in BETTER:
        for prefix, where in ((EVAL, "held-out "), ("", "")):
            fall = _fallen(history, prefix, group)
            if fall is None:
                continue
            if fall <= threshold:
                return None
            return Reading(
                fall,
                f"The log-probability of the {where}{group} responses fell by {fall:.3g} nats per token: the "
                "policy makes even the preferred answers less likely.",
            )
    return None


def _fallen(history: History, prefix: str, group: str) -> float | None:
    lengths = f"{prefix}lengths/{group}"
    ratios = history.quotient(f"{prefix}log_ratios/{group}", lengths)
    if ratios:
        enough = 1 if prefix else window(len(ratios))
        return -fmean(ratios[-enough:]) if len(ratios) >= enough else None
    change = drift(history.quotient(f"{prefix}logps/{group}", lengths), exact=bool(prefix))
    if change is None:
        return None
    return -change.change if change.certain else 0.0


def _fall(values: list[float]) -> tuple[float, float, Drift] | None:
    """Share lost since the highest smoothed value, that value, and the drift of the series."""
    change = drift(values)
    if change is None:
        return None
    smooth = rolling(values, window(len(values)))
    peak = max(smooth)
    return (1 - smooth[-1] / peak, peak, change) if peak > 0 else None


def entropy_collapse(history: History, threshold: float) -> Reading | None:
    """Share of the next-token entropy lost since its highest smoothed value."""
    fall = _fall(history.values("entropy"))
    if fall is None:
        return None
    lost, peak, change = fall
    if lost <= threshold or peak - change.now <= CERTAIN * change.error:
        return None
    return Reading(
        lost,
        f"The next-token entropy fell by {lost:.0%} from its highest value ({peak:.3g} to {change.now:.3g} "
        "nats): the policy is losing its diversity.",
    )


def mass_collapse(history: History, threshold: float) -> Reading | None:
    """Share of the probability mass of the most likely tokens lost since the start."""
    change = drift(history.values("top_k_mass"))
    if change is None or change.start <= 0 or change.change > 0:
        return None
    lost = -change.change / change.start
    if lost <= threshold or not change.certain:
        return None
    return Reading(
        lost,
        f"The probability mass of the most likely tokens fell by {lost:.0%} ({change.start:.3g} to "
        f"{change.now:.3g}): mass is leaking to tokens that no response of the data holds.",
    )


def length_reliance(history: History, threshold: float) -> Reading | None:
    """Correlation, over the latest logs, of the reward margin with how much longer the chosen responses are.

    From one log to the next, so that what both do over the whole run does not count. The logged numbers are
    means over the pairs between two logs; the correlation of such means estimates that of single pairs.
    """
    margins = dict(history.series.get("rewards/margins", ()))
    chosen = dict(history.series.get("lengths/chosen", ()))
    rejected = dict(history.series.get("lengths/rejected", ()))
    steps = sorted(set(margins) & set(chosen) & set(rejected))[-(_LENGTH_LOGS + 1) :]
    if len(steps) <= _LENGTH_LOGS:
        return None
    gap = [chosen[step] - rejected[step] for step in steps]
    margin = [margins[step] for step in steps]
    r = correlation(_differences(margin), _differences(gap))
    if abs(r) <= threshold:
        return None
    way = "longer" if r > 0 else "shorter"
    return Reading(
        abs(r),
        f"Over the last {_LENGTH_LOGS} logs the reward margin goes with the chosen responses being {way} "
        f"than the rejected ones (r = {r:.2f}): the policy may be learning length.",
    )


_LENGTH_LOGS = 30


def _differences(values: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(values)]


def overfit(history: History, threshold: float) -> Reading | None:
    """Reward accuracy on the training pairs, seen before, minus the one on held-out pairs."""
    train, held_out = history.values("rewards/accuracies"), history.values(f"{EVAL}rewards/accuracies")
    if history.epochs <= 1 or len(train) < SHORTEST or len(held_out) < 2:
        return None
    seen = fmean(train[-window(len(train)) :])
    gap = seen - held_out[-1]
    if seen < 0.98 or gap <= threshold or held_out[-1] > max(held_out[:-1]):
        return None
    return Reading(
        gap,
        f"Reward accuracy is {seen:.1%} on the training pairs and {held_out[-1]:.1%} on held-out ones, where "
        "it no longer grows: the policy is fitting the pairs, not the preference.",
    )


def saturated(history: History, threshold: float) -> Reading | None:
    """Reward accuracy on training pairs that were seen before, where nothing is held out."""
    train = history.values("rewards/accuracies")
    if history.epochs <= 1 or len(train) < SHORTEST or history.has(f"{EVAL}rewards/accuracies"):
        return None
    seen = fmean(train[-window(len(train)) :])
    if seen <= threshold:
        return None
    return Reading(
        seen,
        f"Reward accuracy on the training pairs is {seen:.1%} in epoch {history.epochs:.1f}: these pairs "
        "have nothing left to teach, and without held-out data nobody sees whether it generalises.",
    )


def eval_loss_rise(history: History, threshold: float) -> Reading | None:
    """How far the held-out loss stands above its lowest value, as a share of that value."""
    losses = history.values(f"{EVAL}loss")
    if len(losses) < 3 or min(losses) <= 0 or not all(map(math.isfinite, losses)):
        return None
    rise = losses[-1] / min(losses) - 1
    if rise <= threshold or losses[-2] <= min(losses):
        return None
    return Reading(
        rise,
        f"The held-out loss rose twice and is {rise:.0%} above its lowest value "
        f"({min(losses):.4g} to {losses[-1]:.4g}): later checkpoints are worse than earlier ones.",
    )


def far_from_reference(history: History, threshold: float) -> Reading | None:
    """Largest mean log-ratio to the reference of a group of responses, up or down, in nats per token."""
    distances = []
    for group in (*BETTER, *WORSE):
        ratios = history.quotient(f"log_ratios/{group}", f"lengths/{group}")
        if len(ratios) >= 2:
            distances.append((fmean(ratios[-2:]), group))
    ratio, group = max(distances, key=lambda pair: abs(pair[0]), default=(0.0, ""))
    if abs(ratio) <= threshold:
        return None
    times, way = math.exp(min(abs(ratio), 20.0)), "more" if ratio > 0 else "less"
    return Reading(
        abs(ratio),
        f"The {group} responses are {times:.3g} times {way} likely per token than under the reference "
        f"(log-ratio {ratio:.3g} nats): the policy has left the region that the preferences come from.",
    )
