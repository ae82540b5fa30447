"""The inspection as one HTML file that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, PackageLoader
from markupsafe import Markup

from prefero.doctor.findings import Finding, Level, Measure
from prefero.doctor.inspection import Inspection
from prefero.doctor.words import headline, told, told_interval
from prefero.errors import PreferoError
from prefero.report.charts import histogram, whisker
from prefero.report.numbers import duration, number
from prefero.report.page import environment
from prefero.report.summary import Tile

TONE: dict[Level, str] = {"act": "bad", "look": "warn", "fine": "good"}

TILES = (
    "length_bias",
    "noise",
    "separability",
    "duplicates",
    "overlap",
    "agreement",
    "on_policy",
    "reference",
)
"""The findings whose first number a reader looks for first."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A measure as the page has it."""

    name: str
    value: str
    interval: str
    picture: Markup | str


def write(inspection: Inspection, file: str | Path) -> Path:
    """Write the page, and say where. It loads nothing from anywhere and escapes what comes from data.

    Raises :class:`PreferoError` if the file cannot be written.
    """
    target = Path(file)
    base = environment()
    loaders = [PackageLoader("prefero", "doctor"), base.loader]
    pages = base.overlay(loader=ChoiceLoader([loader for loader in loaders if loader]))
    text = pages.get_template("inspection.html").render(contents(inspection), prefero=version("prefero"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, target)
    except OSError as error:
        raise PreferoError(f"{target}: the page cannot be written: {error}") from error
    return target


def contents(inspection: Inspection) -> dict[str, Any]:
    found = [one for one in inspection.findings if one.level != "fine"]
    return {
        "name": inspection.name,
        "headline": headline(inspection),
        "tiles": list(tiles(inspection)),
        "found": [(one, [shown(measure) for measure in one.measures]) for one in found],
        "fine": [(one, shown(one.measures[0])) for one in inspection.findings if one.level == "fine"],
        "clearing": inspection.clearing,
        "tone": TONE,
        "unasked": inspection.unasked,
        "facts": inspection.facts,
        "lengths": lengths_chart(inspection),
        "table": inspection.lengths,
        "seconds": duration(inspection.seconds),
        "number": number,
    }


def tiles(inspection: Inspection) -> Iterator[Tile]:
    yield Tile("Rows", number(inspection.rows), f"{inspection.format}; {number(inspection.pairs)} pairs")
    by_key = {finding.key: finding for finding in inspection.findings}
    for key in TILES:
        if key in by_key:
            yield tile(by_key[key])


def tile(finding: Finding) -> Tile:
    measure = finding.measures[0]
    ends = told_interval(measure)
    return Tile(
        measure.name[:1].upper() + measure.name[1:],
        told(measure),
        ends and f"95 %: {ends}",
        TONE[finding.level],
    )


def shown(measure: Measure) -> Shown:
    interval = measure.interval
    on_scale = measure.unit == "share" and interval is not None
    picture = (
        whisker(measure.value, (interval.low, interval.high), (0, 1), "plain")
        if interval and on_scale
        else ""
    )
    return Shown(measure.name, told(measure), told_interval(measure), picture)


def lengths_chart(inspection: Inspection) -> Markup | None:
    edges, counts = inspection.histogram
    if not counts:
        return None
    names = ", ".join(counts)
    colours = {"chosen": "better", "good": "better", "rejected": "worse", "bad": "worse"}
    return histogram(
        edges,
        {colours[name]: values for name, values in counts.items()},
        describe=f"Histogram of the lengths in characters: {names}",
        x_label="characters",
    )
