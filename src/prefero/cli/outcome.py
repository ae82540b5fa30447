"""The results of a command's runs: the last numbers, what the monitors found, and where the files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prefero.report.folder import Comparison, Run, read
from prefero.report.numbers import duration, number
from prefero.report.page import render
from prefero.report.summary import latest
from prefero.training.series import EVAL

HEADLINE = {
    "rewards/accuracies": "reward accuracy",
    "rewards/margins": "reward margin",
    "loss": "loss",
}


def of_folder(folder: Path) -> dict[str, Any]:
    """The results of a run or a comparison; its report is written too."""
    report = render(folder)
    subject = read(folder)
    if isinstance(subject, Comparison):
        return {
            "output": str(folder),
            "report": str(report),
            "runs": {str(run.folder.relative_to(folder)): of_run(run) for run in subject.runs},
        }
    return of_run(subject) | {"report": str(report)}


def of_run(run: Run) -> dict[str, Any]:
    model = run.folder / "model"
    return {
        "output": str(run.folder),
        "method": run.method,
        "finished": run.finished,
        "steps": run.last_step,
        "seconds": run.record.get("seconds"),
        "metrics": {name: values[-1][1] for name, values in run.history.series.items() if name != "progress"},
        "monitors": [dict(finding) for finding in run.findings],
        "model": str(model) if model.is_dir() else None,
    }


def in_words(outcome: dict[str, Any], folder: Path) -> RenderableType:
    """A table with one column for each run, and where its files are."""
    subject = read(folder)
    runs = subject.runs if isinstance(subject, Comparison) else (subject,)
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold cyan")
    grid.add_column("", style="dim", no_wrap=True)
    for run in runs:
        grid.add_column(Text(run.method), overflow="fold")
    for name, word in HEADLINE.items():
        if any(latest(run, name) is not None for run in runs):
            grid.add_row(word, *(_measured(run, name) for run in runs))
    grid.add_row("steps", *(number(run.last_step) for run in runs))
    grid.add_row("time", *(_time(run) for run in runs))
    fired = (", ".join(str(finding.get("monitor")) for finding in run.findings) for run in runs)
    grid.add_row("monitors that fired", *(Text(names or "none") for names in fired))
    places = [("model", outcome.get("model")), ("report", outcome["report"])]
    lines = Text("\n").join(Text.assemble((f"{name:<8}", "dim"), place) for name, place in places if place)
    return Group(grid, Text(), lines)


def _measured(run: Run, name: str) -> str:
    where = " held out" if run.history.has(EVAL + name) else ""
    return number(latest(run, name)) + where


def _time(run: Run) -> str:
    seconds = run.record.get("seconds")
    return duration(seconds) if isinstance(seconds, int | float) else "–"
