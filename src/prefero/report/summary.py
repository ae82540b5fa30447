"""The top of the page: a headline, and tiles with the numbers that a reader looks for first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np

from prefero.evaluate.intervals import wilson
from prefero.report.curves import groups_of
from prefero.report.evaluation import interval_of
from prefero.report.folder import Comparison, Run, section
from prefero.report.numbers import THIN, duration, evaluated, number, percent, signed
from prefero.training.monitors import MONITORS
from prefero.training.series import EVAL, window


@dataclass(frozen=True, slots=True)
class Tile:
    """``tone`` is ``good``, ``warn``, ``bad`` or empty; ``colour`` is the CSS class of a swatch."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    colour: str = ""


def latest(run: Run, name: str) -> float | None:
    """The held-out value of the model that is kept, or the mean of the last few training values over the
    steps that they are of."""
    held_out, train = run.kept.values(EVAL + name), run.history.values(name)
    if held_out:
        return held_out[-1]
    steps = _steps(run.series(name))
    last = slice(-window(len(train)), None)
    return float(np.average(train[last], weights=steps[last])) if train else None


def _steps(series: Sequence[tuple[int, float]]) -> list[int]:
    """How many steps each logged value of training is the mean of: those since the last."""
    return [max(step - before, 1) for (before, _), (step, _) in pairwise([(0, 0.0), *series])]


def of_run(run: Run) -> tuple[str, list[Tile]]:
    """The headline and the tiles of one run."""
    tiles = [accuracy_tile(run), likelihood_tile(run), loss_tile(run), monitors_tile(run), time_tile(run)]
    sentences = [state_of(run)]
    if run.findings:
        names = ", ".join(str(finding.get("title") or finding.get("monitor")) for finding in run.findings)
        sentences.append(f"{counted(len(run.findings), 'monitor')} fired: {names.lower()}.")
    return " ".join(sentences), [tile for tile in tiles if tile]


def state_of(run: Run) -> str:
    """Whether the run finished, and how the held-out accuracy changed."""
    held_out = run.kept.values(f"{EVAL}rewards/accuracies")
    if run.stopped:
        step, last = (number(run.stopped[name]) for name in ("step", "max_steps"))
        state = f"Stopped early, at step {step} of {last}: {run.stopped['reason']}."
    elif run.finished:
        state = "Finished."
    elif run.metrics:
        state = f"Not finished: this page shows what the run had logged by step {number(run.last_step)}."
    else:
        state = "Not finished: nothing was logged yet."
    if len(held_out) > 1:
        state += f" Held-out reward accuracy went from {percent(held_out[0])} to {percent(held_out[-1])}."
    if run.best:
        state += (
            f" The model that is kept is that of step {run.best['step']}, the best by {run.best['metric']}."
        )
    return state


def accuracy_tile(run: Run) -> Tile | None:
    share = latest(run, "rewards/accuracies")
    if share is None or not math.isfinite(share):
        return None
    if not run.history.has(f"{EVAL}rewards/accuracies"):
        return Tile("Reward accuracy, training pairs", percent(share), "chance is 50 %; nothing was held out")
    count = section(section(run.record, "data"), "eval").get("examples")
    if not isinstance(count, int) or count < 1 or not 0 <= share <= 1:
        return Tile("Held-out reward accuracy", percent(share), "chance is 50 %")
    interval = wilson(share, count)
    tone = "good" if interval.low > 0.5 else "bad" if interval.high < 0.5 else "warn"
    note = f"95{THIN}% interval {percent(interval.low)} to {percent(interval.high)}, {number(count)} examples"
    return Tile("Held-out reward accuracy", percent(share), note, tone)


def likelihood_tile(run: Run) -> Tile | None:
    """The change of the likelihood of the better responses, per token."""
    better, _ = groups_of([run])
    for prefix in (EVAL, ""):
        history = run.kept if prefix else run.history
        ratios = history.quotient(f"{prefix}log_ratios/{better}", f"{prefix}lengths/{better}")
        if ratios:
            since = "than under the reference"
            change = ratios[-1] if prefix else fmean(ratios[-window(len(ratios)) :])
            break
        logps = history.quotient(f"{prefix}logps/{better}", f"{prefix}lengths/{better}")
        if len(logps) > 1:
            since = "than at the first log"
            change = logps[-1] - logps[0] if prefix else fmean(logps[-window(len(logps)) :]) - logps[0]
            break
    else:
        return None
    where = "held-out " if prefix else ""
    note = f"{run.unit} {'more' if change > 0 else 'less'} likely {since}" if change else "no change"
    return Tile(f"Likelihood of {where}{better} responses", signed(change), note)


def loss_tile(run: Run) -> Tile | None:
    last = latest(run, "loss")
    if last is None:
        return None
    held_out, train = run.kept.values(f"{EVAL}loss"), run.history.values("loss")
    if held_out:
        note = f"{number(held_out[0])} when first measured" if len(held_out) > 1 else "measured once"
        return Tile("Loss, held out", number(last), note)
    return Tile("Loss, training", number(last), f"{number(train[0])} at the first log")


def monitors_tile(run: Run) -> Tile:
    watching = [monitor for monitor in MONITORS if monitor.watches(run.history)]
    if run.findings:
        return Tile("Monitors", f"{len(run.findings)} fired", "see the findings and remedies below", "warn")
    if not watching:
        return Tile("Monitors", "none watching", "the metrics that they need were not logged")
    return Tile("Monitors", "all quiet", f"{counted(len(watching), 'monitor')} watching", "good")


def time_tile(run: Run) -> Tile | None:
    seconds = run.record.get("seconds")
    if not isinstance(seconds, int | float) or not seconds:
        return None
    rate = _tokens_per_second(run)
    told = f"{number(run.last_step)} steps" if rate is None else f"{number(round(rate))} tokens per second"
    return Tile("Training time", duration(seconds), told)


def _tokens_per_second(run: Run) -> float | None:
    """The mean over the time of all steps: a log's is that of its steps at its rate of examples."""
    rates, examples = run.series("tokens_per_second"), run.history.values("examples_per_second")
    if not rates or len(rates) != len(examples) or not all(examples):
        return None
    seconds = [steps / rate for steps, rate in zip(_steps(rates), examples, strict=True)]
    return float(np.average([rate for _, rate in rates], weights=seconds))


def of_comparison(
    comparison: Comparison, shown: Sequence[Run], noun: str, metric: str | None = None
) -> tuple[str, list[Tile]]:
    """The headline, and one tile for each run that is shown, with the ``metric`` that the runs are chosen by,
    if there is one; ``noun`` is what the runs are called."""
    runs, rows, failed = comparison.runs, comparison.evaluation, comparison.failed
    unfinished = [run.name for run in runs if not run.finished and run.name not in failed]
    fired = sum(len(run.findings) for run in runs)
    sentences = [f"{counted(len(runs), noun)} on the same data."]
    if len(shown) < len(runs):
        sentences.append(
            f"The {counted(len(shown), noun).lower()} with the best results are shown in detail."
        )
    for state, names in (
        ("Not finished", unfinished),
        ("Stopped, because a loss or gradient was not finite", failed),
        ("Not started", comparison.not_started),
    ):
        if names:
            sentences.append(f"{state}: {', '.join(names)}.")
    sentences.append(f"{counted(fired, 'monitor')} fired." if fired else "No monitor fired.")
    by_method = {str(row.get("method")): row for row in rows}
    return " ".join(sentences), [
        _method_tile(run, by_method.get(run.name, {}), f"method-{index % 8}", metric)
        for index, run in enumerate(shown)
    ]


def _method_tile(run: Run, row: Mapping[str, object], colour: str, metric: str | None) -> Tile:
    for name in (*([metric] if metric else []), "win_rate", "gold_reward", "reward", "accuracy"):
        value = row.get(name)
        if isinstance(value, int | float):
            named, interval = evaluated(name), interval_of(row, name)
            what = f"{named.title.lower()} {named.unit}".strip()
            ends = f", {' to '.join(map(named.form, interval))}" if interval else ""
            return Tile(run.name, named.form(value), what + ends, colour=colour)
    share = latest(run, "rewards/accuracies")
    where = "held-out" if run.history.has(f"{EVAL}rewards/accuracies") else "training"
    if share is None:
        return Tile(run.name, "–", "nothing logged", colour=colour)
    return Tile(run.name, percent(share), f"reward accuracy, {where} pairs", colour=colour)


def counted(count: int, noun: str) -> str:
    """``Two monitors``: the number in words up to nine, and the noun in its number."""
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
    return f"{words[count] if count < len(words) else count} {noun}{'' if count == 1 else 's'}"
