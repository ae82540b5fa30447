"""The inspection as an HTML page and on a terminal: findings to act on first."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from prefero.doctor.checks import FEW, LEVELS, Finding, Level, Measure, Remedy
from prefero.doctor.inspection import Inspection
from prefero.report.charts import histogram, whisker
from prefero.report.numbers import duration, number, percent
from prefero.report.page import environment, write_page
from prefero.report.summary import Tile, counted

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
"""The findings whose first number is shown at the top of the page."""


def write(inspection: Inspection, file: str | Path) -> Path:
    """Write the page, which loads nothing else and escapes all text of the data, and return its path."""
    text = (
        environment("doctor")
        .get_template("inspection.html")
        .render(
            name=inspection.name,
            headline=headline(inspection),
            tiles=list(_tiles(inspection)),
            found=[finding for finding in inspection.findings if finding.level != "fine"],
            fine=[finding for finding in inspection.findings if finding.level == "fine"],
            in_words=in_words,
            interval_in_words=interval_in_words,
            picture=_picture,
            clearing=inspection.clearing,
            tone=TONE,
            unasked=inspection.unasked,
            facts=inspection.facts,
            lengths=_lengths_chart(inspection),
            table=inspection.lengths,
            preview=inspection.preview,
            seconds=duration(inspection.seconds),
            number=number,
            prefero=version("prefero"),
        )
    )
    write_page(text, Path(file))
    return Path(file)


def _tiles(inspection: Inspection) -> Iterator[Tile]:
    note = "; the first ones (--limit)" if inspection.limited else ""
    pairs = f"{inspection.format}; {number(inspection.pairs)} pairs{note}"
    yield Tile("Rows", number(inspection.rows), pairs)
    for key in TILES:
        if key in inspection:
            measure = inspection[key].measures[0]
            name, ends = measure.name[:1].upper() + measure.name[1:], interval_in_words(measure)
            yield Tile(name, in_words(measure), ends and f"95 %: {ends}", TONE[inspection[key].level])


def _picture(measure: Measure) -> Markup | str:
    if measure.interval is None or measure.unit != "share":
        return ""
    return whisker(measure.value, (measure.low, measure.high), (0, 1), "plain")


def _lengths_chart(inspection: Inspection) -> Markup | None:
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


STYLE = {"act": "bold red", "look": "yellow", "fine": "green"}
MARK = {"act": "!", "look": "?", "fine": "·"}


def summary(
    inspection: Inspection, page: Path | None = None, *, saved: tuple[Path, int] | None = None
) -> RenderableType:
    """The findings with their first remedies, and a line for each check that found nothing."""
    lines: list[RenderableType] = [
        Text.assemble(
            (inspection.name, "bold"),
            f"  {inspection.extent}, {number(inspection.pairs)} pairs ({inspection.format}), "
            f"inspected in {duration(inspection.seconds)}",
        ),
        Text(headline(inspection)),
        Text(),
    ]
    for finding in inspection.findings:
        if finding.level != "fine":
            lines += _block(finding)
    if inspection.clearing:
        lines += _step(inspection.clearing)
        lines.append(Text())
    lines.append(_fine(inspection))
    if inspection.unasked:
        titles = "; ".join(f"{each.title.lower()} ({each.reason})" for each in inspection.unasked)
        lines.append(Text(f"not checked: {titles}", style="dim"))
    if saved:
        lines.append(Text(f"\n{number(saved[1])} rows saved: {saved[0]}"))
    if page:
        lines.append(Text(f"\nall details: {page}"))
    return Group(*lines)


def _block(finding: Finding) -> list[RenderableType]:
    measure = finding.measures[0]
    ends = interval_in_words(measure)
    title = f"{MARK[finding.level]} {finding.title}", STYLE[finding.level]
    number_in_words = f"  {in_words(measure)}" + (f" [{ends}]" if ends else "")
    lines: list[RenderableType] = [
        Text.assemble(title, number_in_words, overflow="fold"),
        Padding(Text(finding.message), (0, 0, 0, 2)),
    ]
    for remedy in finding.remedies[:1]:
        lines += _step(remedy)
    return [*lines, Text()]


def _step(remedy: Remedy) -> list[RenderableType]:
    lines: list[RenderableType] = [Padding(Text(remedy.what, style="dim"), (0, 0, 0, 2))]
    if remedy.command:
        lines.append(Padding(Text(remedy.command, style="cyan", overflow="fold"), (0, 0, 0, 4)))
    return lines


def _fine(inspection: Inspection) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for finding in inspection.findings:
        if finding.level == "fine":
            measure = finding.measures[0]
            table.add_row(
                Text("✓", style="green"),
                finding.title,
                in_words(measure),
                Text(interval_in_words(measure), style="dim"),
                Text(f"a finding from {finding.threshold}" if _asks(finding) else "", style="dim"),
            )
    return table


def _asks(finding: Finding) -> bool:
    """Whether a reader may ask why a number that is not 0 is no finding."""
    measure = finding.measures[0]
    return measure.unit == "share" and measure.value > 0 and bool(finding.threshold)


def in_words(measure: Measure) -> str:
    """The value with its unit."""
    if measure.unit == "share":
        return percent(measure.value)
    return f"{number(measure.value)} {measure.unit}".strip()


def interval_in_words(measure: Measure) -> str:
    """The ends of the interval; empty if there is none."""
    if measure.interval is None:
        return ""
    form = percent if measure.unit == "share" else number
    return f"{form(measure.interval.low)} to {form(measure.interval.high)}"


def headline(inspection: Inspection) -> str:
    """The numbers of findings, and their titles."""
    act, look, fine = (
        [each.title.lower() for each in inspection.findings if each.level == level] for level in LEVELS
    )
    sentences = [f"{inspection.extent} are too few for tendencies."] if inspection.rows < FEW else []
    if act:
        sentences.append(f"{counted(len(act), 'finding')} to act on before training: {', '.join(act)}.")
    if look:
        sentences.append(f"{counted(len(look), 'finding')} to look at: {', '.join(look)}.")
    if not act and not look:
        sentences.append(f"No problems found: {counted(len(fine), 'check').lower()} passed.")
    return " ".join(sentences)
