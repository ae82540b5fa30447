"""How near length-controlled win rates come to AlpacaEval's published ones, with difficulties of prompts that
are fitted from so many other models, and without.

    python -m benchmarks length-control CHECKOUT

``CHECKOUT`` is a folder of https://github.com/tatsu-lab/alpaca_eval with its annotations of the judge
``weighted_alpaca_eval_gpt4_turbo``, or as many of them as there are, and its leaderboard. The model that is
judged is left out of the fit. The leaderboard's anchors (``df_gamed.csv``) are not in the repository, and are
not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

import numpy as np
from scipy.stats import spearmanr

from benchmarks.measure import machine
from benchmarks.tables import machine_note, publish, table
from prefero.data.files import load_rows
from prefero.errors import PreferoError
from prefero.evaluate import (
    Difficulties,
    Judgement,
    fit_difficulties,
    length_controlled_win_rate,
    read_judgements,
)
from prefero.evaluate.difficulties import difficulties_by_others

JUDGE = "weighted_alpaca_eval_gpt4_turbo"
BASELINE = "gpt4_1106_preview"
LEADERBOARD = f"src/alpaca_eval/leaderboards/data_AlpacaEval_2/{JUDGE}_leaderboard.csv"
COUNTS = (1, 2, 3, 5, 10, 20)
"""Other models that difficulties are fitted from, besides all."""

DRAWS = 3
"""Random choices of so many other models, for each model that is judged."""

Models = Mapping[str, Sequence[Judgement]]
Rates = Mapping[str, Sequence[float]]
"""Win rates in percent by model, one for each choice of other models."""


def measure(checkout: Path, *, seed: int, save: bool) -> None:
    """Compute the win rates of all models whose annotations are there, and compare."""
    began = time.perf_counter()
    models, published, unread = read(checkout)
    generator = np.random.default_rng(seed)
    known = [name for name in models if name in published]

    def by_some(count: int) -> Rates:
        """By random other models."""

        def once(name: str) -> float:
            others = [other for other in models if other != name]
            chosen = generator.choice(others, count, replace=False)
            return rate(models[name], fit_difficulties({other: models[other] for other in chosen}))

        return {name: [once(name) for _ in range(DRAWS)] for name in known}

    by_others, by_all = difficulties_by_others(models), fit_difficulties(models)
    settings: list[tuple[str, Callable[[], Rates]]] = [
        ("the plain win rate", lambda: {n: [100 * fmean(j.preference for j in models[n])] for n in known}),
        ("none", lambda: {name: [rate(models[name])] for name in known}),
        *((str(count), lambda count=count: by_some(count)) for count in COUNTS if count < len(models)),
        (f"{len(models) - 1}, all others", lambda: {n: [rate(models[n], by_others[n])] for n in known}),
        (f"{len(models)}, itself too", lambda: {name: [rate(models[name], by_all)] for name in known}),
    ]
    found = {label: distances(compute(), published) for label, compute in settings}
    here = machine()
    left_out = found[f"{len(models) - 1}, all others"]
    text = "\n\n".join(
        [
            "## Length-controlled win rates beside the published ones",
            f"{len(known)} models of AlpacaEval 2 with a published rate, of {len(models)} with annotations "
            f"that can be read ({unread} cannot); percentage points. Where difficulties are fitted from some "
            f"others, {DRAWS} random choices for each model.",
            table(
                ["difficulties from", "Spearman", "mean distance", "median", "largest", "the largest is of"],
                [each.cells(label) for label, each in found.items()],
            ),
            "Farthest with all others: "
            + "; ".join(
                f"{name} {ours:.1f} for {theirs:.1f}" for name, ours, theirs in left_out.farthest[:6]
            ),
            machine_note(here),
        ]
    )
    results = {label: each.as_dict() for label, each in found.items()}
    seconds = time.perf_counter() - began
    publish("length_control", text, {"results": results, "seconds": seconds, "machine": here}, save=save)


def read(checkout: Path) -> tuple[dict[str, list[Judgement]], dict[str, float], int]:
    """The judgements by the name of the model on the leaderboard, the published rates by the same names, and
    the number of models whose annotations are not there."""
    models = {}
    for file in sorted(checkout.glob(f"results/*/{JUDGE}/annotations.json")):
        name = file.parent.parent.name
        if name != BASELINE and file.stat().st_size:
            models[name] = [replace(each, model=name) for each in read_judgements(file)]
    if len(models) < 2:
        raise PreferoError(f"{checkout} has no annotations: expected results/NAME/{JUDGE}/annotations.json")
    published = {}
    for row in load_rows(checkout / LEADERBOARD):
        name, value = next(iter(row.fields.values())), row.fields["length_controlled_winrate"]
        if value not in (None, ""):
            published[str(name)] = float(value)
    return models, published, sum(name not in models for name in published if name != BASELINE)


def rate(judged: Sequence[Judgement], difficulties: Difficulties | None = None) -> float:
    """The length-controlled win rate, in percent."""
    hardness = None if difficulties is None else [each or 0.0 for each in difficulties.of(judged)]
    controlled = length_controlled_win_rate(
        [each.preference for each in judged],
        [each.length or 0.0 for each in judged],
        [each.baseline_length or 0.0 for each in judged],
        difficulty=hardness,
        resamples=2,
    )
    return 100 * controlled.rate


@dataclass(frozen=True)
class Distances:
    """How far rates are from the published ones; ``farthest`` begins with the farthest, with both."""

    spearman: float
    mean: float
    median: float
    farthest: Sequence[tuple[str, float, float]]

    def cells(self, label: str) -> list[str]:
        name, ours, theirs = self.farthest[0]
        numbers = [f"{self.spearman:.3f}", *(f"{value:.2f}" for value in (self.mean, self.median))]
        return [label, *numbers, f"{abs(ours - theirs):.1f}", name]

    def as_dict(self) -> dict[str, object]:
        return {"spearman": self.spearman, "mean": self.mean, "median": self.median,
                "farthest": [list(each) for each in self.farthest]}  # fmt: skip


def distances(rates: Rates, published: Mapping[str, float]) -> Distances:
    """Spearman's correlation is the mean over choices; distances are over all of them."""
    pairs = [(name, ours, published[name]) for name, every in rates.items() for ours in every]
    apart = [abs(ours - theirs) for _, ours, theirs in pairs]
    theirs = [published[name] for name in rates]
    choices = zip(*rates.values(), strict=True)
    return Distances(
        fmean(float(spearmanr(choice, theirs).statistic) for choice in choices),
        fmean(apart),
        median(apart),
        sorted(pairs, key=lambda pair: -abs(pair[1] - pair[2])),
    )
