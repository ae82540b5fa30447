"""Monitors: what can go wrong in a run, asked of its logged numbers after every log.

Each monitor is an entry of :data:`MONITORS`: a pure function from the history of a run to a number and a
sentence, with its threshold, its paper and the methods that address it. Plain Python, for the report too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import StatisticsError, correlation, fmean
from typing import Any

from prefero.training.series import CERTAIN, EVAL, SHORTEST, Drift, History, rolling, window

BETTER = ("chosen", "desirable", "best")
"""The names in metrics of the better responses of pairs, of labelled responses and of lists."""

WORSE = ("rejected", "undesirable", "worst")

LENGTH_LOGS = 30
"""How many logs the correlation with length is taken over."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A number past its threshold, and the sentence that says so."""

    value: float
    message: str


@dataclass(frozen=True, slots=True)
class Monitor:
    """One thing to watch.

    ``reads`` are alternatives, best first: the monitor can watch a run that logs every metric of one of them.
    ``check`` is asked once each of these was logged ``least`` times, and gives a :class:`Reading` when the
    history is past the ``threshold``. ``remedies`` are methods that address it; ``advice`` is what helps
    besides.
    """

    name: str
    title: str
    measures: str
    reads: tuple[tuple[str, ...], ...]
    threshold: float
    paper: str
    remedies: tuple[str, ...]
    advice: str
    check: Callable[[History, float], Reading | None]
    least: int = 1

    def watches(self, history: History, least: int = 1) -> bool:
        """Whether a run has logged what this reads, each metric at least so often."""
        return any(all(len(history.values(name)) >= least for name in names) for names in self.reads)


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of ``monitors.jsonl``: what fired at which optimizer step."""

    step: int
    monitor: str
    title: str
    value: float
    threshold: float
    message: str
    paper: str
    remedies: tuple[str, ...]
    advice: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"remedies": list(self.remedies)}


@dataclass(slots=True)
class Monitors:
    """The monitors of one run: feed every logged line to :meth:`observe`; each fires at most once.

    ``methods`` are the keys of the methods there are; remedies that are not among them are left out.
    """

    methods: Container[str] | None = None
    history: History = field(default_factory=History)
    fired: set[str] = field(default_factory=set)

    def observe(self, metrics: Mapping[str, object]) -> list[Finding]:
        """Read one more line of ``metrics.jsonl``; returns what fires."""
        self.history.record(metrics)
        step = metrics.get("step")
        findings = []
        for monitor in MONITORS:
            if monitor.name in self.fired or not monitor.watches(self.history, monitor.least):
                continue
            reading = monitor.check(self.history, monitor.threshold)
            if reading is None or not isinstance(step, int):
                continue
            self.fired.add(monitor.name)
            remedies = tuple(key for key in monitor.remedies if self.methods is None or key in self.methods)
            finding = Finding(
                step=step,
                monitor=monitor.name,
                title=monitor.title,
                value=reading.value,
                threshold=monitor.threshold,
                message=reading.message,
                paper=monitor.paper,
                remedies=remedies,
                advice=monitor.advice,
            )
            findings.append(finding)
        return findings


# The checks


def not_finite(history: History, threshold: float) -> Reading | None:
    """Loss or gradient norm that is no number."""
    for name in ("loss", "grad_norm", "eval/loss"):
        values = history.values(name)
        if values and not math.isfinite(values[-1]):
            return Reading(
                values[-1], f"{name} is {values[-1]}: the weights or the data hold no usable numbers."
            )
    return None


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
    """Held-out numbers are of the same examples each time: the last one counts, and no noise is in it."""
    lengths = f"{prefix}lengths/{group}"
    ratios = history.quotient(f"{prefix}log_ratios/{group}", lengths)
    if ratios:
        enough = 1 if prefix else window(len(ratios))
        return -fmean(ratios[-enough:]) if len(ratios) >= enough else None
    logps = history.quotient(f"{prefix}logps/{group}", lengths)
    if len(logps) < (2 if prefix else SHORTEST):
        return None
    change = Drift(logps[0], logps[-1], 0.0) if prefix else Drift.of(logps)
    return -change.change if change.certain else 0.0


def entropy_collapse(history: History, threshold: float) -> Reading | None:
    """Share of the next-token entropy lost since its highest smoothed value."""
    values = history.values("entropy")
    smooth, change = rolling(values, window(len(values))), Drift.of(values)
    peak = max(smooth)
    if peak <= 0 or peak - change.now <= CERTAIN * change.error:
        return None
    lost = 1 - smooth[-1] / peak
    if lost <= threshold:
        return None
    return Reading(
        lost,
        f"The next-token entropy fell by {lost:.0%} from its highest value ({peak:.3g} to {change.now:.3g} "
        "nats): the policy is losing its diversity.",
    )


def mass_collapse(history: History, threshold: float) -> Reading | None:
    """Share of the probability mass of the most likely tokens lost since the start."""
    change = Drift.of(history.values("top_k_mass"))
    if change.start <= 0 or change.change > 0 or not change.certain:
        return None
    lost = -change.change / change.start
    if lost <= threshold:
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
    margins, chosen, rejected = (
        dict(history.series[name]) for name in ("rewards/margins", "lengths/chosen", "lengths/rejected")
    )
    steps = sorted(set(margins) & set(chosen) & set(rejected))[-(LENGTH_LOGS + 1) :]
    if len(steps) <= LENGTH_LOGS:
        return None
    margin_changes = [margins[after] - margins[before] for before, after in pairwise(steps)]
    gaps = [chosen[step] - rejected[step] for step in steps]
    try:
        r = correlation(margin_changes, [after - before for before, after in pairwise(gaps)])
    except StatisticsError:
        return None  # one of the two does not vary
    if abs(r) <= threshold:
        return None
    way = "longer" if r > 0 else "shorter"
    return Reading(
        abs(r),
        f"Over the last {LENGTH_LOGS} logs the reward margin goes with the chosen responses being {way} "
        f"than the rejected ones (r = {r:.2f}): the policy may be learning length.",
    )


def overfit(history: History, threshold: float) -> Reading | None:
    """Reward accuracy on the training pairs, seen before, minus the one on held-out pairs."""
    train, held_out = history.values("rewards/accuracies"), history.values(f"{EVAL}rewards/accuracies")
    if history.epochs <= 1 or len(train) < SHORTEST:
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
    if history.epochs <= 1 or history.has(f"{EVAL}rewards/accuracies"):
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
    if min(losses) <= 0 or not all(map(math.isfinite, losses)):
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


# The table

_OVEROPTIMISATION = "Shi et al. 2024, arXiv 2410.11677"

MONITORS: tuple[Monitor, ...] = (
    Monitor(
        "not_finite",
        "Loss is not a number",
        "loss and gradient norm, as logged",
        (("loss",),),
        math.inf,
        "",
        (),
        "Lower the learning rate, turn on gradient clipping, or train in float32; resume from a checkpoint "
        "before this step.",
        not_finite,
    ),
    Monitor(
        "displacement",
        "Likelihood displacement",
        "log-probability per token of the better responses (held-out where there are), fall in nats since "
        "the reference, or since the start where no reference is scored",
        tuple(
            (f"{prefix}{metric}/{group}", f"{prefix}lengths/{group}")
            for group in BETTER
            for prefix in (EVAL, "")
            for metric in ("log_ratios", "logps")
        ),
        0.1,
        "Razin et al. 2024, arXiv 2410.08847; Pal et al. 2024, arXiv 2402.13228; Yan et al. 2024, arXiv "
        "2406.07327",
        ("dpop", "dpo_shift", "flex_dpo"),
        "Add a likelihood term (objective.plus.nll=0.2), or leave out pairs whose two responses are nearly "
        "the same. A small fall is expected of a policy that started from the chosen responses.",
        displacement,
    ),
    Monitor(
        "entropy_collapse",
        "Entropy collapse",
        "next-token entropy (whole vocabulary) on the responses of the data, share lost since its highest "
        "smoothed value",
        (("entropy",),),
        0.3,
        _OVEROPTIMISATION,
        ("h_dpo", "f_dpo"),
        "Stop earlier, raise beta, or lower the learning rate.",
        entropy_collapse,
        least=SHORTEST,
    ),
    Monitor(
        "mass_collapse",
        "Top-k mass collapse",
        "probability mass of the most likely tokens on the responses of the data, share lost since the start",
        (("top_k_mass",),),
        0.1,
        _OVEROPTIMISATION,
        ("ipo", "tdpo2"),
        "Stop earlier, raise beta, or add a likelihood term (objective.plus.nll=0.2).",
        mass_collapse,
        least=SHORTEST,
    ),
    Monitor(
        "length_reliance",
        "Reward follows length",
        "correlation of the reward margin with the length difference of the pair, over the last 30 logs",
        (("rewards/margins", "lengths/chosen", "lengths/rejected"),),
        0.7,
        "Liu et al. 2024, arXiv 2409.06411; Meng et al. 2024, arXiv 2405.14734",
        ("r_dpo", "simpo"),
        "Compare lengths of samples before and after, and report length-controlled win rates.",
        length_reliance,
        least=LENGTH_LOGS + 1,
    ),
    Monitor(
        "overfit",
        "Fitting the pairs",
        "reward accuracy on training pairs seen before minus that on held-out pairs",
        (("rewards/accuracies", f"{EVAL}rewards/accuracies"),),
        0.1,
        "Azar et al. 2023, arXiv 2310.12036",
        ("ipo", "cdpo", "rdpo"),
        "Train fewer epochs, or take the checkpoint with the best held-out accuracy.",
        overfit,
        least=2,
    ),
    Monitor(
        "saturated",
        "Training pairs are learnt by heart",
        "reward accuracy on training pairs seen before",
        (("rewards/accuracies",),),
        0.99,
        "Azar et al. 2023, arXiv 2310.12036",
        ("ipo", "cdpo"),
        "Hold out data (data.eval) and train fewer epochs.",
        saturated,
        least=SHORTEST,
    ),
    Monitor(
        "eval_loss_rise",
        "Held-out loss rises",
        "held-out loss above its lowest value, as a share of that value",
        ((f"{EVAL}loss",),),
        0.05,
        _OVEROPTIMISATION,
        ("ipo", "cdpo"),
        "Take the checkpoint with the lowest held-out loss; train fewer epochs.",
        eval_loss_rise,
        least=3,
    ),
    Monitor(
        "far_from_reference",
        "Far from the reference",
        "largest mean log-ratio to the reference of the better or the worse responses, nats per token; on "
        "the data's own responses, so it is no KL divergence",
        tuple((f"log_ratios/{group}", f"lengths/{group}") for group in (*BETTER, *WORSE)),
        1.0,
        "Liu et al. 2024, arXiv 2405.16436; Zeng et al. 2024, arXiv 2404.11999",
        ("tdpo2", "ipo"),
        "Raise beta, lower the learning rate, or add a likelihood term (objective.plus.nll=0.2).",
        far_from_reference,
        least=2,
    ),
)
