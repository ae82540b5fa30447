"""The measurements of the models: a table with intervals, and reward against divergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefero.report.charts import Dot, scatter, span, whisker
from prefero.report.curves import Figure
from prefero.report.numbers import EVALUATION, Named, alike, evaluated, number

Row = Mapping[str, object]

REWARDS = ("gold_reward", "reward", "score", "win_rate")
"""The measurements that the frontier's vertical axis can show, in order of preference."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A number as shown, with a picture of its interval; ``best`` among its column."""

    text: str
    picture: str = ""
    interval: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table of measurements. ``rows`` are a name, a CSS class for its swatch, and the cells."""

    columns: tuple[Named, ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]


def table(rows: Sequence[Row], colours: Mapping[str, str]) -> Table | None:
    """All numbers of the rows, each with its interval where it has one."""
    measured = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if any(_number(row, name) is not None for row in rows)
    ]
    names = sorted(
        measured, key=lambda name: list(EVALUATION).index(name) if name in EVALUATION else len(EVALUATION)
    )
    if not names:
        return None
    columns = [[_cell(row, name, rows) for row in rows] for name in names]
    return Table(
        tuple(evaluated(name) for name in names),
        tuple(
            (str(row.get("method", "")), _colour(row, colours), tuple(column[index] for column in columns))
            for index, row in enumerate(rows)
        ),
    )


def _cell(row: Row, name: str, rows: Sequence[Row]) -> Cell:
    value, named = _number(row, name), evaluated(name)
    if value is None:
        return Cell("–")
    interval = interval_of(row, name)
    others = [other for each in rows if (other := _number(each, name)) is not None]
    ends = [end for each in rows for end in interval_of(each, name) or ()]
    form = alike([*others, *ends]) if named.form is number else named.form
    best = named.better is not None and len(others) > 1 and value == (max if named.better else min)(others)
    if interval is None:
        return Cell(form(value), best=best)
    scale = span([*others, *ends])
    text = f"{form(interval[0])} to {form(interval[1])}"
    return Cell(form(value), whisker(value, interval, scale, "plain"), text, best)


def frontier(rows: Sequence[Row], colours: Mapping[str, str]) -> Figure | None:
    """Reward against the divergence from the start model, with intervals; None where either is missing."""
    reward = next((name for name in REWARDS if sum(_number(row, name) is not None for row in rows) > 1), None)
    if reward is None:
        return None
    named, dots = evaluated(reward), []
    for row in rows:
        x, y = _number(row, "kl"), _number(row, reward)
        if x is not None and y is not None:
            label, colour = str(row.get("method", "")), _colour(row, colours)
            dots.append(Dot(label, colour, x, y, interval_of(row, "kl"), interval_of(row, reward)))
    if len(dots) < 2:
        return None
    points = "; ".join(f"{dot.label}: {named.form(dot.y)} at KL {dot.x:.3g}" for dot in dots)
    distance = evaluated("kl")
    chart = scatter(
        dots,
        describe=f"{named.title} against {distance.title}: {points}",
        x_label=f"{distance.title}, {distance.unit}",
        form=named.form,
    )
    unit = f"{named.unit + ', ' if named.unit else ''}bars are 95 % intervals"
    return Figure(
        f"{named.title} against distance", unit, chart, "Further up is better, further left is closer."
    )


def interval_of(row: Row, name: str) -> tuple[float, float] | None:
    intervals = row.get("interval")
    ends = intervals.get(name) if isinstance(intervals, Mapping) else None
    if isinstance(ends, Mapping):
        ends = [ends.get("low"), ends.get("high")]
    if isinstance(ends, Sequence) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends):
        return float(ends[0]), float(ends[1])
    return None


def _number(row: Row, name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _colour(row: Row, colours: Mapping[str, str]) -> str:
    return colours.get(str(row.get("method", "")), "start")
