"""The inspection on a terminal: what to do first, in as many lines as fit a screen."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from prefero.doctor.findings import Finding, Remedy
from prefero.doctor.inspection import Inspection
from prefero.doctor.words import headline, told, told_interval
from prefero.report.numbers import duration, number

STYLE = {"act": "bold red", "look": "yellow", "fine": "green"}
MARK = {"act": "!", "look": "?", "fine": "·"}


def summary(
    inspection: Inspection, page: Path | None = None, *, saved: tuple[Path, int] | None = None
) -> RenderableType:
    """What to act on and to look at with its first remedy, and a line for each check that found nothing."""
    parts: list[RenderableType] = [
        Text.assemble(
            (inspection.name, "bold"),
            f"  {number(inspection.rows)} rows, {number(inspection.pairs)} pairs ({inspection.format}), "
            f"looked at in {duration(inspection.seconds)}",
        ),
        Text(headline(inspection)),
        Text(),
    ]
    for finding in inspection.findings:
        if finding.level != "fine":
            parts += block(finding)
    if inspection.clearing:
        parts += step(inspection.clearing)
        parts.append(Text())
    parts.append(fine(inspection))
    if inspection.unasked:
        titles = "; ".join(f"{one.title.lower()} ({one.reason})" for one in inspection.unasked)
        parts.append(Text(f"not looked at: {titles}", style="dim"))
    if saved:
        parts.append(Text(f"\n{number(saved[1])} rows saved: {saved[0]}"))
    if page:
        parts.append(Text(f"\nall of it: {page}"))
    return Group(*parts)


def block(finding: Finding) -> list[RenderableType]:
    measure = finding.measures[0]
    ends = told_interval(measure)
    interval = f" [{ends}]" if ends else ""
    style = STYLE[finding.level]
    lines: list[RenderableType] = [
        Text.assemble(
            (f"{MARK[finding.level]} {finding.title}", style), f"  {told(measure)}{interval}", overflow="fold"
        ),
        Padding(Text(finding.message), (0, 0, 0, 2)),
    ]
    for remedy in finding.remedies[:1]:
        lines += step(remedy)
    return [*lines, Text()]


def step(remedy: Remedy) -> list[RenderableType]:
    lines: list[RenderableType] = [Padding(Text(remedy.what, style="dim"), (0, 0, 0, 2))]
    if remedy.command:
        lines.append(Padding(Text(remedy.command, style="cyan", overflow="fold"), (0, 0, 0, 4)))
    return lines


def fine(inspection: Inspection) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for finding in inspection.findings:
        if finding.level == "fine":
            measure = finding.measures[0]
            table.add_row(
                Text("✓", style="green"),
                finding.title,
                told(measure),
                Text(told_interval(measure), style="dim"),
            )
    return table
