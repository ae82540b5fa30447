"""Runs on a terminal: their progress while they train, and their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers.trainer
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from prefero.report.evaluation import interval_of
from prefero.report.folder import Comparison, Run, read, section
from prefero.report.numbers import Format, duration, evaluated, number
from prefero.report.page import render
from prefero.report.summary import latest
from prefero.report.sweeps import Sweep
from prefero.training.best import short_keys
from prefero.training.run_folder import model_of
from prefero.training.series import EVAL, metric_names

SHOWN = {"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}


class RichProgress(TrainerCallback):
    """Shows the steps done, the time left and the latest loss, accuracy and margin, on the main process."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[latest]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task: TaskID | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.bar.start()
        self.task = self.bar.add_task(
            run_name(args), total=state.max_steps, completed=state.global_step, latest=""
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.task is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        numbers = latest_numbers(metric_names(logs or {}))
        if not numbers:
            return
        if self.task is not None:
            self.bar.update(self.task, latest=numbers)
        if not self.console.is_terminal:
            name = run_name(args)
            self.console.print(
                f"{name}, step {state.global_step} of {state.max_steps}: {numbers}", soft_wrap=True
            )

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.close()

    def close(self) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        self.bar.stop()


def run_name(args: TrainingArguments) -> str:
    return Path(args.output_dir or ".").resolve().name


def latest_numbers(metrics: Mapping[str, Any]) -> str:
    """The few numbers of a log that are shown while training runs."""
    prefix = EVAL if any(name.startswith(EVAL) for name in metrics) else ""
    told = [
        f"{word} {metrics[prefix + name]:.4g}"
        for name, word in SHOWN.items()
        if isinstance(metrics.get(prefix + name), int | float)
    ]
    numbers = ("held out: " if prefix and told else "") + ", ".join(told)
    rate = metrics.get(f"{EVAL}samples/win_rate")
    return f"samples: win rate {rate:.4g}" if isinstance(rate, int | float) else numbers


@contextmanager
def training_progress(console: Console) -> Iterator[None]:
    """Show the progress of trainers on ``console`` instead of in the bars of transformers."""
    progress = RichProgress(console)
    before = transformers.trainer.DEFAULT_PROGRESS_CALLBACK
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    transformers.trainer.DEFAULT_PROGRESS_CALLBACK = progress  # type: ignore[assignment]
    try:
        yield
    finally:
        transformers.trainer.DEFAULT_PROGRESS_CALLBACK = before
        if bars:
            logging.enable_progress_bar()
        progress.close()


WIN_RATES = ("win_rate", "win_rate_against_chosen")
HEADLINE = {"rewards/accuracies": "reward accuracy", "rewards/margins": "reward margin", "loss": "loss"}


def of_folder(folder: Path) -> dict[str, Any]:
    """The results of a run or a comparison; its report is written too."""
    report = render(folder)
    subject = read(folder)
    if isinstance(subject, Comparison):
        outcome = {
            "output": str(folder),
            "report": str(report),
            "runs": {run.name: of_run(run) for run in subject.runs},
            "failed": dict(subject.failed),
        }
        sweep = Sweep.of(subject)
        return outcome if sweep is None else {**outcome, "sweep": of_sweep(sweep)}
    return of_run(subject) | {"report": str(report)}


def of_sweep(sweep: Sweep) -> dict[str, Any]:
    """The settings that were varied, and the runs with their values, the best first."""
    record = section(sweep.comparison.record, "sweep")
    return {
        **{name: record.get(name) for name in ("over", "trials", "metric")},
        "best": sweep.best,
        "runs": [
            {"run": name, "values": dict(sweep.values[name]), **_measurements(sweep.rows[name])}
            for name in sweep.names
        ],
        "note": sweep.comparison.record.get("note"),
    }


def _measurements(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "method"}


def of_run(run: Run) -> dict[str, Any]:
    model = model_of(run.folder)
    return {
        "output": str(run.folder),
        "method": run.method,
        "finished": run.finished,
        "steps": run.last_step,
        "stopped": dict(run.stopped) or None,
        "best": dict(run.best) or None,
        "seconds": run.record.get("seconds"),
        "metrics": {name: values[-1][1] for name, values in run.kept.series.items() if name != "progress"},
        "monitors": [dict(finding) for finding in run.findings],
        "model": None if model is None else str(model),
        "notes": notes_on_prompts([run]),
    }


def in_words(outcome: dict[str, Any], folder: Path) -> RenderableType:
    """A table with one column for each run, and where its files are."""
    subject = read(folder)
    sweep = Sweep.of(subject) if isinstance(subject, Comparison) else None
    if sweep is not None:
        return sweep_in_words(sweep, outcome["report"])
    runs = subject.runs if isinstance(subject, Comparison) else (subject,)
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold cyan")
    grid.add_column("", style="dim", no_wrap=True)
    for run in runs:
        grid.add_column(Text(run.method if run is subject else run.name), overflow="fold")
    for name, word in HEADLINE.items():
        if any(latest(run, name) is not None for run in runs):
            grid.add_row(word, *(_measured(run, name) for run in runs))
    for name in WIN_RATES:
        if any(name in row for run in runs for row in run.evaluation):
            named = evaluated(name)
            title = f"{named.title.lower()} {named.unit}"
            grid.add_row(title, *(_won(run, name, named.form) for run in runs))
    grid.add_row("steps", *(_steps(run) for run in runs))
    if any(run.best for run in runs):
        grid.add_row("model of", *(_best(run) for run in runs))
    grid.add_row("time", *(_time(run) for run in runs))
    fired = (", ".join(str(finding.get("monitor")) for finding in run.findings) for run in runs)
    grid.add_row("monitors that fired", *(Text(names or "none") for names in fired))
    places = [("model", outcome.get("model")), ("report", outcome["report"])]
    lines = Text("\n").join(Text.assemble((f"{name:<8}", "dim"), place) for name, place in places if place)
    return Group(grid, Text(), lines, *map(Text, notes_on_prompts(runs)))


def sweep_in_words(sweep: Sweep, report: str) -> RenderableType:
    """A table with a row for each run, the best first, where that is, and what has to be said with the best
    of many. Runs that are named by their values are not named once more."""
    metric, named = evaluated(sweep.metric), bool(section(sweep.comparison.record, "sweep").get("trials"))
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold cyan")
    for title in (
        *(["run"] if named else []),
        *short_keys(sweep.keys),
        metric.title.lower(),
        "steps",
        "time",
    ):
        grid.add_column(Text(title), overflow="fold")
    for name in sweep.names:
        run = sweep.runs.get(name)
        ends = ("–", "–") if run is None else (_steps(run), _time(run))
        cells = (*([name] if named else []), *(sweep.shown(name, key) for key in sweep.keys))
        grid.add_row(
            *map(Text, (*cells, sweep.result(name), *ends)), style="bold" if name == sweep.best else None
        )
    told = [str(sweep.comparison.record.get("note") or "")]
    told += [f"{name} {reason}" for name, reason in sweep.comparison.failed.items()]
    places = [] if sweep.best is None else [("best", str(sweep.comparison.folder / sweep.best))]
    lines = Text("\n").join(
        Text.assemble((f"{name:<8}", "dim"), place) for name, place in [*places, ("report", report)]
    )
    return Group(grid, Text(), *(Text(line) for line in told if line), lines)


def notes_on_prompts(runs: Sequence[Run]) -> list[str]:
    """The notes on how to write the prompts of training for the trained models, each once."""
    return list(dict.fromkeys(note for run in runs for note in run.record.get("notes_on_prompts") or ()))


def _measured(run: Run, name: str) -> str:
    where = " held out" if run.history.has(EVAL + name) else ""
    return number(latest(run, name)) + where


def _won(run: Run, name: str, form: Format) -> str:
    row = next((row for row in run.evaluation if name in row), None)
    if row is None:
        return "–"
    interval = interval_of(row, name)
    ends = f", {' to '.join(map(form, interval))}" if interval else ""
    return f"{form(float(str(row[name])))}{ends} ({number(len(run.samples))} samples)"


def _steps(run: Run) -> str:
    if not run.stopped:
        return number(run.last_step)
    return f"{number(run.stopped['step'])} of {number(run.stopped['max_steps'])}, stopped early"


def _best(run: Run) -> str:
    return f"step {run.best['step']}, the best by {run.best['metric']}" if run.best else "the last step"


def _time(run: Run) -> str:
    seconds = run.record.get("seconds")
    return duration(seconds) if isinstance(seconds, int | float) else "–"
