"""The survey as one page: a row a paper, sortable, each opening to its numbers and curves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import ChoiceLoader, PackageLoader

from prefero.report.charts import Line, line_chart, span, whisker
from prefero.report.numbers import duration, evaluated, metric, number, signed
from prefero.report.page import environment
from prefero.storage import write_text
from prefero_lab.papers.outcome import CheckOutcome, ClaimOutcome, Comparison, Outcome
from prefero_lab.papers.survey import find
from prefero_lab.papers.table import interval, kind, mean_and_spread, outdated
from prefero_lab.papers.verdicts import FAILS, HOLDS, UNCLEAR

NOT_MEASURED = "not measured"
TONES = {HOLDS: "holds", FAILS: "fails", UNCLEAR: "unclear", NOT_MEASURED: "unclear"}
ORDER = (HOLDS, UNCLEAR, FAILS, NOT_MEASURED)
TILES = {HOLDS: "good", FAILS: "bad", UNCLEAR: "warn", NOT_MEASURED: "warn"}


def render(found: Sequence[Outcome], failed: Mapping[str, str], output: str | Path) -> Path:
    """Write the page, and say where. It loads nothing from anywhere, and without JavaScript only its rows
    cannot be sorted. ``failed`` maps keys of papers that could not be measured to the reason."""
    rows = [_row(one) for one in found] + [_missing(key, why) for key, why in failed.items()]
    verdicts = [row["verdict"] for row in rows]
    counts = [
        (one, verdicts.count(one), TILES[one] if verdicts.count(one) else "")
        for one in ORDER
        if one != NOT_MEASURED or failed
    ]
    made = environment()
    assert made.loader is not None
    made.loader = ChoiceLoader([PackageLoader("prefero_lab", "papers"), made.loader])
    text = made.get_template("survey.html").render(
        rows=sorted(rows, key=lambda row: (row["area"], row["key"])),
        counts=counts,
        tone=TONES,
        prefero=version("prefero"),
    )
    target = Path(output)
    write_text(target, text)
    return target


def _row(outcome: Outcome) -> dict[str, Any]:
    paper = outcome.paper
    return {
        **_head(paper, outcome.verdict),
        "seconds": round(outcome.seconds),
        "time": duration(outcome.seconds),
        "evidence": [
            _claim(one) if isinstance(one, ClaimOutcome) else _check(one) for one in outcome.evidence
        ],
        "notes": [note for note in (paper.note, outdated(outcome)) if note],
    }


def _missing(key: str, why: str) -> dict[str, Any]:
    row = {**_head(find(key), NOT_MEASURED), "seconds": 0, "time": "", "evidence": [], "notes": []}
    return {**row, "error": why}


def _head(paper: Any, verdict: str) -> dict[str, Any]:
    return {
        "key": paper.key,
        "area": paper.area,
        "title": paper.title,
        "citation": paper.citation,
        "adds": paper.adds,
        "what": " ".join(one.statement for one in paper.evidence),
        "verdict": verdict,
        "rank": ORDER.index(verdict),
        "error": "",
    }


def _claim(outcome: ClaimOutcome) -> dict[str, Any]:
    claim = outcome.claim
    colours = {arm.name: f"method-{i % 8}" for i, arm in enumerate(claim.arms)}
    metrics = dict.fromkeys(name for arm in outcome.arms.values() for name in arm)
    chosen = {one.arm: one.chosen for one in outcome.tuned}
    settings = [(name.replace("_", " "), str(value)) for name, value in claim.experiment.settings.items()]
    for arm in claim.arms:
        settings.append((arm.name, _in_words(chosen.get(arm.name, arm.settings))))
        if arm.grid:
            settings.append((f"{arm.name}, tried on other seeds", _in_words(arm.grid)))
    return {
        "kind": kind(claim),
        "statement": claim.statement,
        "refuted_by": claim.refuted_by,
        "verdict": outcome.verdict,
        "seeds": outcome.seeds,
        "comparisons": [_comparison(one) for one in outcome.comparisons],
        "arms": list(colours.items()),
        "metrics": [
            (evaluated(name).title, [_cell(arm.get(name)) for arm in outcome.arms.values()])
            for name in metrics
        ],
        "figures": _figures(outcome, colours),
        "settings": settings,
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    ends = (one.found.low, one.found.high)
    known = ends if all(map(math.isfinite, ends)) else None
    scale = span([one.found.value, *(known or ())], include=[0.0, one.expected.by])
    return {
        "expected": str(one.expected).replace("_", " "),
        "counts": one.expected.counts,
        "value": signed(one.found.value),
        "interval": interval(one),
        "picture": whisker(one.found.value, known, scale, "plain"),
        "seeds": "  ".join(signed(seed, 2) for seed in one.found.seeds),
        "verdict": one.verdict,
    }


def _cell(one: Any) -> dict[str, str]:
    seeds = "  ".join(number(seed) for seed in one.seeds) if one else ""
    return {"text": mean_and_spread(one), "seeds": seeds}


def _figures(outcome: ClaimOutcome, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """A chart a logged metric, a line an arm."""
    logged: dict[str, dict[str, dict[float, list[float]]]] = defaultdict(lambda: defaultdict(dict))
    for result in outcome.results:
        for name, points in result.curves.items():
            for step, value in points:
                logged[name][result.name].setdefault(step, []).append(value)
    figures = []
    for name, arms in logged.items():
        named = metric(name)
        lines = [
            Line(arm, colours[arm], [(step, fmean(values)) for step, values in sorted(points.items())])
            for arm, points in arms.items()
        ]
        chart = line_chart(lines, describe=f"{named.title} of {', '.join(arms)}", form=named.form)
        figures.append({"title": named.title, "unit": named.unit, "chart": chart})
    return figures


def _check(outcome: CheckOutcome) -> dict[str, Any]:
    return {
        "kind": kind(outcome.check),
        "statement": outcome.check.statement,
        "refuted_by": outcome.check.refuted_by,
        "verdict": outcome.verdict,
        "seeds": outcome.seeds,
        "numbers": [
            {
                "what": one.what,
                "seed": seed,
                "value": number(one.value, 6),
                "where": f"{number(one.low, 6)} to {number(one.high, 6)}",
                "verdict": HOLDS if one.holds else FAILS,
            }
            for seed, numbers in zip(outcome.seeds, outcome.numbers, strict=True)
            for one in numbers
        ],
    }


def _in_words(settings: Mapping[str, Any] | None) -> str:
    if settings is None:
        return "not trained"
    parts = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            value = " ".join(f"{key}={inner}" for key, inner in value.items())
        elif isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        parts.append(f"{name.replace('_', ' ')}: {value}")
    return "; ".join(parts)
