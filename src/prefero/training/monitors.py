"""The questions that monitors ask of a run's history: pure functions, each to one number and a sentence."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefero.storage import line, read_lines
from prefero.training.series import (
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


@dataclass(frozen=True, slots=True)
class Monitor:
    """One thing to watch.

    ``check`` gives a :class:`Reading` when the history is past the ``threshold``. ``reads`` are alternatives,
    best first: the monitor can watch a run that logs every metric of one of them. ``remedies`` are methods
    that address it; ``advice`` is what helps besides.
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

    def watches(self, history: History) -> bool:
        return any(history.has(*names) for names in self.reads)


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
        """What fires upon one more line of ``metrics.jsonl``."""
        self.history.record(metrics)
        step = metrics.get("step")
        findings = []
        for monitor in MONITORS:
            if monitor.name in self.fired or not monitor.watches(self.history):
                continue
            reading = monitor.check(self.history, monitor.threshold)
            if reading is not None and isinstance(step, int):
                self.fired.add(monitor.name)
                findings.append(self._finding(step, monitor, reading))
        return findings

    def _finding(self, step: int, monitor: Monitor, reading: Reading) -> Finding:
        return Finding(
            step=step,
            monitor=monitor.name,
            title=monitor.title,
            value=reading.value,
            threshold=monitor.threshold,
            message=reading.message,
            paper=monitor.paper,
            remedies=tuple(key for key in monitor.remedies if self.methods is None or key in self.methods),
            advice=monitor.advice,
        )


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
    ),
    Monitor(
        "length_reliance",
        "Reward follows length",
        "correlation of the reward margin with the length difference of the pair, over the last 30 logs",
        (("rewards/margins", "lengths/chosen", "lengths/rejected"),),
        0.7,
        "Liu et al. 2024, arXiv 2409.06411; Meng et al. 2024, arXiv 2405.14734",
        ("ld_dpo", "r_dpo", "simpo"),
        "Compare lengths of samples before and after, and report length-controlled win rates.",
        length_reliance,
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
    ),
)


class MonitorCallback(TrainerCallback):
    """Watches what the trainer logs, writes ``monitors.jsonl``, and prints one line when a monitor fires.

    Each monitor fires at most once in a run, also across a resume: what an earlier part of the run logged and
    found is read back from ``output_dir``; lines past the checkpoint that is resumed from are dropped.
    Only the main process watches.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.folder = Path(output_dir)
        self.monitors = Monitors()

    @property
    def file(self) -> Path:
        return self.folder / "monitors.jsonl"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        from prefero.objectives import methods

        self.monitors = Monitors(methods=methods())
        if not state.is_world_process_zero:
            return
        before = state.global_step or -1  # a run that starts afresh has no past, whatever lies there
        for metrics in _until(self.folder / "metrics.jsonl", before):
            self.monitors.history.record(metrics)
        findings = list(_until(self.file, before))
        self.monitors.fired.update(str(finding["monitor"]) for finding in findings)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text("".join(line(finding) for finding in findings), encoding="utf-8")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        for finding in self.monitors.observe({"step": state.global_step, **metric_names(logs)}):
            self._report(finding)

    def _report(self, finding: Finding) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(line(finding.as_dict()))
        helps = f" Methods that address it: {', '.join(finding.remedies)}." if finding.remedies else ""
        print(f"step {finding.step}: {finding.title}. {finding.message}{helps}", file=sys.stderr)


def metric_names(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's ``eval_x`` under the name that run folders use, ``eval/x``."""
    return {
        EVAL + name.removeprefix("eval_") if name.startswith("eval_") else name: logs[name] for name in logs
    }


def _until(file: Path, step: int) -> Iterator[dict[str, Any]]:
    """The lines that were written up to an optimizer step."""
    return (record for record in read_lines(file) if record.get("step", math.inf) <= step)
