"""Numbers, units and names of metrics, with few digits, thin spaces and a real minus sign."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

MINUS, THIN = "−", "\u2009"

Format = Callable[[float], str]


def number(value: object, digits: int = 3) -> str:
    """``value`` with about ``digits`` significant digits; whole numbers in full."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else f"{MINUS if value < 0 else ''}∞"
    if isinstance(value, int) or (abs(value) >= 10**digits and abs(value) < 1e9):
        text = f"{round(value):,}".replace(",", THIN)
    elif value == 0:
        text = "0"
    elif abs(value) >= 1e9 or abs(value) < 1e-3:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    else:
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:.{places}f}"
    return text.replace("-", MINUS)


def alike(values: Sequence[float], digits: int = 3) -> Format:
    """The format with the same number of decimals for all, ``digits`` digits for the largest."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0)
    if largest == 0 or not 1e-3 <= largest < 1e4:
        return number
    places = max(0, digits - 1 - math.floor(math.log10(largest)))
    return lambda value: (
        f"{value + 0.0:.{places}f}".replace("-", MINUS) if math.isfinite(value) else number(value)
    )


def percent(value: float) -> str:
    return f"{100 * value:.1f}{THIN}%".replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    return ("+" if value > 0 else "") + number(value, digits)


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def date(iso: object) -> str:
    """An ISO 8601 time in words; any other text unchanged."""
    try:
        moment = datetime.fromisoformat(str(iso))
    except ValueError:
        return str(iso)
    zone = f" {moment.tzname()}" if moment.tzinfo else ""
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``: 1, 2, 2.5 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_labels(marks: Sequence[float], form: Format = number) -> list[str]:
    """The ticks of an axis with the same number of decimals, no more than are needed to tell them apart."""
    factor, sign = (100, THIN + "%") if form is percent else (1, "")
    largest = max((abs(mark) * factor for mark in marks), default=0)
    if largest and not 1e-3 <= largest < 1e6:
        return [form(mark) for mark in marks]
    places = next((n for n in range(6) if all(_whole(mark * factor * 10**n) for mark in marks)), 6)
    return [f"{mark * factor:,.{places}f}{sign}".replace(",", THIN).replace("-", MINUS) for mark in marks]


def _whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6


GROUPS: tuple[tuple[str, str], ...] = (
    ("chosen", "rejected"),
    ("desirable", "undesirable"),
    ("best", "worst"),
)
"""The names of the better and the worse responses in pairs, labelled responses and lists."""


@dataclass(frozen=True, slots=True)
class Named:
    """A metric. ``better`` is whether a higher value is better (None: neither)."""

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
    "samples/win_rate": Named("Win rate of samples", "share of prompts", percent, True),
    "samples/score": Named("Score of samples", "the judge's, mean per prompt", better=True),
}

LOGPS: dict[str, str] = {"diffusion": "units of error per time step"}
"""The unit of log-probabilities by kind of model; nats per token for all others."""

SKIPPED = {
    "epoch", "progress", "step", "total_flos", "num_input_tokens_seen",
    "samples/win_rate_low", "samples/win_rate_high", "samples/score_low", "samples/score_high",
}  # fmt: skip
"""Logged numbers that are not drawn for themselves."""

EVALUATION: dict[str, Named] = {
    "gold_reward": Named("Gold reward", better=True),
    "gain": Named("Gain", "gold reward over the start model", better=True),
    "reward": Named("Reward", better=True),
    "win_rate": Named("Win rate", "against the start model", percent, True),
    "win_rate_against_chosen": Named("Win rate", "against the chosen responses", percent, True),
    "length_controlled_win_rate": Named("Length-controlled win rate", "at equal lengths", percent, True),
    "kl": Named("KL to the start model", "nats per response"),
    "length": Named("Length", "tokens per response"),
    "valid": Named("Valid", "texts in the requested form", percent, True),
    "accuracy": Named("Reward accuracy", "held-out pairs", percent, True),
    "seconds": Named("Training time", form=duration),
}


def metric(name: str) -> Named:
    """The title, unit and format of a logged metric."""
    return METRICS.get(name) or Named(name.replace("_", " ").replace("/", ", "))


def evaluated(name: str) -> Named:
    """The title, unit and format of a measurement in ``evaluation.json``."""
    return EVALUATION.get(name) or Named(name.replace("_", " ").capitalize())
