"""The folder of a run or of a comparison, read tolerantly: a run may have been interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefero.errors import PreferoError
from prefero.report.numbers import LOGPS
from prefero.storage import read_lines
from prefero.training.series import EVAL, History


@dataclass(frozen=True, slots=True)
class Run:
    """A training run. ``record`` is its ``run.json``; files that the run did not write are empty."""

    folder: Path
    record: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    findings: tuple[Mapping[str, Any], ...]
    samples: tuple[Mapping[str, Any], ...]
    evaluation: tuple[Mapping[str, Any], ...]
    history: History = field(compare=False)

    @property
    def best(self) -> Mapping[str, Any]:
        """The step of the model that is kept, where that is not the last one, and what it is the best by."""
        return section(self.record, "best")

    @property
    def stopped(self) -> Mapping[str, Any]:
        """The step at which a run ended before its last one, how many it would have had, and the reason."""
        return section(self.record, "stopped")

    @property
    def kept(self) -> History:
        """The log up to the step of the model that is kept."""
        history, last = History(), self.best.get("step")
        for line in self.metrics:
            if not isinstance(last, int) or line["step"] <= last:
                history.record(line)
        return history

    @property
    def name(self) -> str:
        """The name of the run in a comparison."""
        return self.folder.name

    @property
    def method(self) -> str:
        return str(section(self.record, "method").get("key") or self.folder.name)

    @property
    def unit(self) -> str:
        """The unit of log-probabilities."""
        return LOGPS.get(str(section(self.record, "model").get("kind")), "nats per token")

    @property
    def finished(self) -> bool:
        return bool(self.record.get("finished"))

    @property
    def last_step(self) -> int:
        return max((line["step"] for line in self.metrics if isinstance(line.get("step"), int)), default=0)

    def series(self, name: str) -> list[tuple[int, float]]:
        return self.history.series.get(name, [])

    def metric_names(self) -> list[str]:
        """The names of the logged metrics in their order; held-out metrics under their name in training."""
        return list(dict.fromkeys(name.removeprefix(EVAL) for name in self.history.series))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs side by side, with the measurements of all of them. ``names`` are those of all its runs,
    ``runs`` those that have begun."""

    folder: Path
    names: tuple[str, ...]
    runs: tuple[Run, ...]
    evaluation: tuple[Mapping[str, Any], ...]
    record: Mapping[str, Any]

    @property
    def failed(self) -> Mapping[str, str]:
        """Why a run ended without a result, by its name."""
        return {str(row.get("method")): str(row["failed"]) for row in self.evaluation if "failed" in row}

    @property
    def finished(self) -> bool:
        return not self.not_started and all(run.finished or run.name in self.failed for run in self.runs)

    @property
    def not_started(self) -> tuple[str, ...]:
        """The runs that have no folder yet."""
        begun = {run.name for run in self.runs}
        return tuple(name for name in self.names if name not in begun)


def read(folder: str | Path) -> Run | Comparison:
    """The run or comparison in a folder. Raises :class:`PreferoError` if it holds neither."""
    folder = Path(folder)
    if not folder.is_dir():
        raise PreferoError(f"there is no folder {folder} to report on")
    if (folder / "comparison.json").is_file():
        return _comparison(folder)
    if (folder / "run.json").is_file():
        return _run(folder)
    inside = sorted(file.parent.name for file in folder.glob("*/run.json"))
    hint = (
        f"; did you mean {folder / inside[0]}?" if inside else "; give the output folder of `prefero train`"
    )
    raise PreferoError(f"{folder} holds no run (no run.json) and no comparison (no comparison.json){hint}")


def section(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of a record; empty where it is missing or not a mapping."""
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}


def _run(folder: Path) -> Run:
    metrics = tuple(_numbers(read_lines(folder / "metrics.jsonl")))
    history = History()
    for line in metrics:
        history.record(line)
    return Run(
        folder=folder,
        record=_object(folder / "run.json"),
        metrics=metrics,
        findings=tuple(read_lines(folder / "monitors.jsonl")),
        samples=tuple(read_lines(folder / "samples.jsonl")),
        evaluation=_rows(_object(folder / "evaluation.json")),
        history=history,
    )


def _comparison(folder: Path) -> Comparison:
    record = _object(folder / "comparison.json")
    listed = record.get("runs")
    names = tuple(map(str, listed)) if isinstance(listed, list) else ()
    runs = tuple(_run(folder / name) for name in names if (folder / name / "run.json").is_file())
    if not runs:
        raise PreferoError(f"{folder / 'comparison.json'} names no run whose folder holds a run.json")
    rows = _rows(section(record, "evaluation")) or _rows(_object(folder / "evaluation.json"))
    return Comparison(
        folder, names, runs, rows or tuple(row for run in runs for row in run.evaluation), record
    )


def _object(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PreferoError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise PreferoError(f"{file} holds no JSON object")
    return content


def _rows(evaluation: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    rows = evaluation.get("rows")
    return tuple(row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()


def _numbers(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The logged lines. A loss that is not a number is null in the file, and NaN in the history."""
    for line in lines:
        if isinstance(line.get("step"), int):
            yield {name: float("nan") if value is None else value for name, value in line.items()}
