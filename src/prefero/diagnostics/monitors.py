"""What to say early about a run, from the numbers it logs: each with its threshold, paper and remedies.

The papers name the phenomena and the numbers to watch; none gives a threshold. The thresholds here are ours,
stated with every finding, and a change counts only where it also stands out of the noise between batches.
Reads plain mappings (lines of ``metrics.jsonl``), so it runs without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from prefero.diagnostics import checks
from prefero.diagnostics.checks import BETTER, WORSE, Reading
from prefero.diagnostics.series import EVAL, History


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
        checks.not_finite,
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
        checks.displacement,
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
        checks.entropy_collapse,
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
        checks.mass_collapse,
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
        checks.length_reliance,
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
        checks.overfit,
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
        checks.saturated,
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
        checks.eval_loss_rise,
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
        checks.far_from_reference,
    ),
)
