"""What the logged metrics are called on the page, and in what unit they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prefero.report.numbers import duration, number, percent

GROUPS: tuple[tuple[str, str], ...] = (
    ("chosen", "rejected"),
    ("desirable", "undesirable"),
    ("best", "worst"),
)
"""What the better and the worse responses are called in pairs, labelled responses and lists."""


@dataclass(frozen=True, slots=True)
class Named:
    """``better``: whether more of it is better (None: neither)."""

    title: str
    unit: str = ""
    form: Callable[[float], str] = number
    better: bool | None = None


METRICS: dict[str, Named] = {
    "loss": Named("Loss", better=False),
    "rewards/accuracies": Named("Reward accuracy", "share of pairs ordered as the data do", percent, True),
    "rewards/margins": Named("Reward margin", "better minus worse response", better=True),
    "entropy": Named("Next-token entropy", "nats, whole vocabulary, mean over response tokens"),
    "top_k_mass": Named("Mass of the likeliest tokens", "mean over response tokens", percent),
    "kl": Named(
        "Log-ratio of all responses", "nats per response; KL only where responses are the policy's own"
    ),
    "grad_norm": Named("Gradient norm", "before clipping"),
    "learning_rate": Named("Learning rate"),
    "tokens_per_second": Named("Throughput", "tokens per second"),
}

LOGPS: dict[str, str] = {"diffusion": "units of error per time step"}
"""What log-probabilities are measured in, by the kind of model; nats per token if not said otherwise."""

SKIPPED = {"epoch", "progress", "step", "total_flos", "num_input_tokens_seen"}

EVALUATION: dict[str, Named] = {
    "gold_reward": Named("Gold reward", better=True),
    "gain": Named("Gain", "gold reward over the start model", better=True),
    "reward": Named("Reward", better=True),
    "win_rate": Named("Win rate", "against the start model", percent, True),
    "length_controlled_win_rate": Named("Length-controlled win rate", "at equal lengths", percent, True),
    "kl": Named("KL to the start model", "nats per response"),
    "length": Named("Length", "tokens per response"),
    "valid": Named("Valid", "texts of the form asked for", percent, True),
    "accuracy": Named("Reward accuracy", "held-out pairs", percent, True),
    "seconds": Named("Training time", form=duration),
}


def metric(name: str) -> Named:
    return METRICS.get(name) or Named(name.replace("_", " ").replace("/", ", "))


def evaluated(name: str) -> Named:
    return EVALUATION.get(name) or Named(name.replace("_", " ").capitalize())
