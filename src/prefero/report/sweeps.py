"""A sweep on the page: its runs in the order of their results, and the metric against each varied setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from prefero.report.charts import Dot, scatter
from prefero.report.contents import plain
from prefero.report.curves import Figure
from prefero.report.evaluation import Cell, Table, interval_of, table
from prefero.report.folder import Comparison, Run, section
from prefero.report.numbers import Named, duration, evaluated, number
from prefero.training.best import measured, ranked

SHOWN = 8
"""Runs whose curves, samples and settings are shown, the best ones."""

MARKS = 8
"""Most values of a setting that each have a mark on the axis."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The runs of a sweep, the best first, then those without a result. ``values`` are what was varied, by
    run and key."""

    comparison: Comparison
    names: tuple[str, ...]
    keys: tuple[str, ...]
    values: Mapping[str, Mapping[str, Any]]
    metric: str
    best: str | None

    @classmethod
    def of(cls, comparison: Comparison) -> Sweep | None:
        """The sweep that a comparison is; None for a comparison of methods."""
        record = section(comparison.record, "sweep")
        if not record:
            return None
        whole = {"sweep": record, "evaluation": {"rows": comparison.evaluation}}
        order = ranked(whole)
        names = (*order, *(name for name in comparison.names if name not in order))
        values = {name: section(section(record, "values"), name) for name in names}
        return cls(
            comparison,
            names,
            tuple(section(record, "over")),
            values,
            str(record.get("metric")),
            next(iter(order), None),
        )

    @property
    def rows(self) -> dict[str, Mapping[str, Any]]:
        """The measurements of each run."""
        found = {str(row.get("method")): row for row in self.comparison.evaluation}
        return {name: found.get(name, {"method": name}) for name in self.names}

    @property
    def runs(self) -> dict[str, Run]:
        """The runs that have begun, the best first."""
        found = {run.name: run for run in self.comparison.runs}
        return {name: found[name] for name in self.names if name in found}

    def shown(self, name: str, key: str) -> str:
        """A value as the table and the axes have it."""
        return plain(self.values[name].get(key))

    def state(self, name: str) -> str:
        """Whether a run has a result, and why not; nothing if it has."""
        if name in self.comparison.failed:
            return "loss not finite"
        run = self.runs.get(name)
        return "not started" if run is None else "" if run.finished else "not finished"

    def result(self, name: str) -> str:
        """The metric of a run with its interval, or why there is none."""
        row, form = self.rows[name], evaluated(self.metric).form
        value, ends = row.get(self.metric), interval_of(row, self.metric)
        if not _is_number(value):
            return self.state(name) or "–"
        return form(value) + (f" ({form(ends[0])} to {form(ends[1])})" if ends else "")

    def table(self, colours: Mapping[str, str]) -> Table:
        """The values of each run, all that was measured of it, its steps and its time."""
        numbers = table(list(self.rows.values()), colours)
        columns = [Named(key) for key in self.keys]
        columns += [*(numbers.columns if numbers else ()), Named("Steps"), Named("Time")]
        rows = []
        for index, name in enumerate(self.names):
            run, cells = self.runs.get(name), [Cell(self.shown(name, key)) for key in self.keys]
            cells += numbers.rows[index][2] if numbers else ()
            seconds = run.record.get("seconds") if run else None
            cells.append(Cell(number(run.last_step) if run else "–"))
            cells.append(Cell(duration(seconds) if isinstance(seconds, int | float) else "–"))
            rows.append((name, colours.get(name, "start"), tuple(cells)))
        return Table(tuple(columns), tuple(rows))

    def figures(self, colours: Mapping[str, str]) -> list[Figure]:
        """The metric against each varied setting, one dot a run."""
        whole = {"sweep": {"metric": self.metric}, "evaluation": {"rows": self.comparison.evaluation}}
        results = measured(whole)
        return [self._figure(key, results, colours) for key in self.keys if len(results) > 1]

    def _figure(self, key: str, results: Mapping[str, float], colours: Mapping[str, str]) -> Figure:
        named = evaluated(self.metric)
        places, marks, log = _axis([self.values[name].get(key) for name in results])
        dots = [
            Dot(
                name,
                colours.get(name, "start"),
                place,
                results[name],
                y_interval=interval_of(self.rows[name], self.metric),
                named=name == self.best,
            )
            for name, place in zip(results, places, strict=True)
        ]
        points = "; ".join(f"{named.form(results[name])} at {self.shown(name, key)}" for name in results)
        chart = scatter(
            dots,
            describe=f"{named.title} against {key}: {points}",
            x_label=f"{key}, logarithmic" if log else key,
            form=named.form,
            x_marks=marks,
        )
        bars = "; bars are 95 % intervals" if any(dot.y_interval for dot in dots) else ""
        note = "Dots above one another differ in the other settings." if len(self.keys) > 1 else ""
        return Figure(f"{named.title} against {key}", f"held out{bars}", chart, note)


def _axis(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]] | None, bool]:
    """Places of values on an axis, its marks, and whether it is logarithmic: numbers as they are, or by their
    logarithm where they span a factor of ten or more; anything else side by side."""
    if not all(map(_is_number, values)):
        written = list(map(plain, values))
        options = list(dict.fromkeys(written))
        marks = [(float(place), text) for place, text in enumerate(options)]
        return [float(options.index(text)) for text in written], marks, False
    numbers = [float(value) for value in values]
    if min(numbers) <= 0 or max(numbers) < 10 * min(numbers):
        different = sorted(set(numbers))
        return numbers, [(one, plain(one)) for one in different] if len(different) <= MARKS else None, False
    places = [math.log10(one) for one in numbers]
    powers = [10.0**power for power in range(math.ceil(min(places)), math.floor(max(places)) + 1)]
    if len(set(numbers)) <= MARKS:
        shown = sorted(set(numbers))
    else:
        shown = powers if len(powers) > 1 else [min(numbers), max(numbers)]
    return places, [(math.log10(one), plain(one)) for one in shown], True


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
