"""Outcomes of papers as JSON, and as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from prefero.report.numbers import duration, number, signed
from prefero_lab.papers.outcome import CheckOutcome, ClaimOutcome, Comparison, Outcome
from prefero_lab.papers.paper import Claim, Paper
from prefero_lab.papers.verdicts import FAILS, HOLDS, UNCLEAR, Summary, Verdict

STYLES: Mapping[Verdict, str] = {HOLDS: "green", FAILS: "red", UNCLEAR: "yellow"}


def listed(paper: Paper) -> dict[str, Any]:
    """A paper before it is measured."""
    return {
        "key": paper.key,
        "id": paper.id,
        "area": paper.area,
        "title": paper.title,
        "citation": paper.citation,
        "adds": paper.adds,
        "methods": list(paper.methods),
        "evidence": [
            {"kind": kind(one), "statement": one.statement, "refuted_by": one.refuted_by}
            for one in paper.evidence
        ],
        "seconds": paper.seconds,
        "first_seconds": paper.first_seconds,
    }


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Everything about a paper and what was measured, but the numbers prompt by prompt."""
    return {
        **listed(outcome.paper),
        "evidence": [_of_claim(o) if isinstance(o, ClaimOutcome) else _of_check(o) for o in outcome.evidence],
        "verdict": outcome.verdict,
        "seconds": round(outcome.seconds, 1),
        "outdated_results": outcome.outdated,
        "note": outcome.paper.note,
    }


def _of_claim(outcome: ClaimOutcome) -> dict[str, Any]:
    claim = outcome.claim
    chosen = {one.arm: one.chosen for one in outcome.tuned}
    return {
        "kind": "claim",
        "statement": claim.statement,
        "refuted_by": claim.refuted_by,
        "verdict": outcome.verdict,
        "seeds": list(outcome.seeds),
        "settings": dict(claim.experiment.settings),
        "comparisons": [
            {
                **asdict(one.expected),
                "difference": one.found.value,
                "interval": [one.found.low, one.found.high],
                "by_seed": list(one.found.seeds),
                "verdict": one.verdict,
            }
            for one in outcome.comparisons
        ],
        "arms": {
            arm.name: {
                "settings": chosen.get(arm.name, arm.settings),
                "metrics": {name: asdict(one) for name, one in outcome.arms[arm.name].items()},
            }
            for arm in claim.arms
        },
        "tuned": [asdict(one) for one in outcome.tuned],
    }


def _of_check(outcome: CheckOutcome) -> dict[str, Any]:
    return {
        "kind": "check",
        "statement": outcome.check.statement,
        "refuted_by": outcome.check.refuted_by,
        "verdict": outcome.verdict,
        "seeds": list(outcome.seeds),
        "numbers": [
            {"seed": seed, **asdict(one), "holds": one.holds}
            for seed, numbers in zip(outcome.seeds, outcome.numbers, strict=True)
            for one in numbers
        ],
    }


def kind(evidence: object) -> str:
    return "claim" if isinstance(evidence, Claim) else "check"


def listing(papers: Sequence[Paper]) -> RenderableType:
    """All papers, with what they take."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("key", no_wrap=True, style="bold")
    table.add_column("area", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("first", justify="right", no_wrap=True)
    table.add_column("what is measured")
    for paper in papers:
        first = f"+{duration(paper.first_seconds)}" if paper.first_seconds else ""
        kinds = "/".join(dict.fromkeys(kind(one) for one in paper.evidence))
        shown = " ".join(one.statement for one in paper.evidence)
        what = Text.assemble((paper.citation, "dim"), "\n", shown)
        table.add_row(paper.key, paper.area, kinds, duration(paper.seconds), first, what)
    total, making = sum(one.seconds for one in papers), sum(one.first_seconds for one in papers)
    note = (
        f"{len(papers)} papers, {duration(total)} in all on one quiet core. 'first' is added when start "
        f"models have to be made (at most {duration(making)} in all): then they are on disk, for all papers. "
        "prefero reproduce KEY measures one, --all every one."
    )
    return Group(table, Padding(Text(note, style="dim"), (1, 0, 0, 0)))


def outcomes(
    found: Sequence[Outcome], failed: Mapping[str, str], *, report: str | None = None
) -> RenderableType:
    """Verdicts, and the numbers they come from."""
    parts: list[RenderableType] = [_paper(one) for one in found]
    if len(found) + len(failed) > 1:
        parts.append(_verdicts(found, failed))
    if report:
        parts.append(Text.assemble(("Report", "bold"), f"  {report}"))
    return Group(*parts)


def _verdicts(found: Sequence[Outcome], failed: Mapping[str, str]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("paper", no_wrap=True, style="bold")
    table.add_column("verdict")
    table.add_column("measured in", justify="right", no_wrap=True)
    for one in found:
        table.add_row(one.paper.key, _coloured(one.verdict), duration(one.seconds))
    for key, why in failed.items():
        table.add_row(key, Text(f"not measured: {why}", style="magenta"), "")
    return table


def _paper(outcome: Outcome) -> RenderableType:
    paper = outcome.paper
    head = Text.assemble((paper.key, "bold"), "  ", _coloured(outcome.verdict), "\n", (paper.citation, "dim"))
    parts: list[RenderableType] = [head]
    for one in outcome.evidence:
        parts += [
            Text(f"\n{_subject(one).statement}"),
            Text(f"Refuted by: {_subject(one).refuted_by}.\n", "dim"),
        ]
        parts += [_comparisons(one), Text(), _arms(one)] if isinstance(one, ClaimOutcome) else [_numbers(one)]
        parts += [_tuning(tuned) for tuned in one.tuned] if isinstance(one, ClaimOutcome) else []
    for note in (paper.note, outdated(outcome)):
        if note:
            parts.append(Text(note, style="dim"))
    return Padding(Group(*parts), (0, 0, 1, 0))


def _subject(outcome: ClaimOutcome | CheckOutcome) -> Any:
    return outcome.claim if isinstance(outcome, ClaimOutcome) else outcome.check


def outdated(outcome: Outcome) -> str:
    """A note if the library or the worlds have changed since the results were measured."""
    if not outcome.outdated:
        return ""
    return (
        f"{outcome.outdated} of the results were measured with other code of the library or the worlds; "
        "--fresh measures them again."
    )


def _comparisons(outcome: ClaimOutcome) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("expected")
    table.add_column("better by", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in outcome.comparisons:
        verdict = _coloured(one.verdict)
        table.add_row(
            str(one.expected) if one.expected.counts else f"(beside) {one.expected}",
            signed(one.found.value),
            interval(one),
            verdict,
        )
    return table


def interval(one: Comparison) -> str:
    if not math.isfinite(one.found.high):
        return "one seed: none"
    return f"{signed(one.found.low)} to {signed(one.found.high)}"


def _arms(outcome: ClaimOutcome) -> Table:
    """Arms beside each other; one below the other where there are more of them than metrics."""
    arms, metrics = outcome.arms, list(dict.fromkeys(name for arm in outcome.arms.values() for name in arm))
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("mean ± spread over seeds")
    down = len(arms) > len(metrics)
    for name in metrics if down else arms:
        table.add_column(name, justify="right")
    if down:
        for arm, found in arms.items():
            table.add_row(arm, *(mean_and_spread(found.get(metric)) for metric in metrics))
    else:
        for metric in metrics:
            table.add_row(metric, *(mean_and_spread(arm.get(metric)) for arm in arms.values()))
    return table


def mean_and_spread(one: Summary | None) -> str:
    if one is None:
        return ""
    return number(one.mean) + (f" ± {number(one.spread, 2)}" if math.isfinite(one.spread) else "")


def _numbers(outcome: CheckOutcome) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("number", "seed", "value", "has to lie in", "verdict"):
        table.add_column(column)
    for seed, numbers in zip(outcome.seeds, outcome.numbers, strict=True):
        for one in numbers:
            where = f"{number(one.low, 6)} to {number(one.high, 6)}"
            table.add_row(
                one.what, str(seed), number(one.value, 6), where, _coloured(HOLDS if one.holds else FAILS)
            )
    return table


def _tuning(tuned: Any) -> Text:
    tried = "; ".join(f"{_short(settings)}: {number(mean)}" for settings, mean in tuned.candidates)
    return Text(
        f"{tuned.arm}, {tuned.metric} on the tuning seeds: {tried}. Chosen: {_short(tuned.chosen)}.", "dim"
    )


def _short(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if name != "objective")


def _coloured(verdict: Verdict) -> Text:
    return Text(verdict, style=STYLES[verdict])
