"""The catalogue of methods on a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

WIDE = 110
"""Columns of a terminal from which on the paper has room."""


def table(entries: list[dict[str, Any]], width: int) -> RenderableType:
    """One line a method on a terminal of that many columns; what it is gives way first."""
    rows = [
        (entry["key"], entry["title"], ", ".join([*entry["feedback"], *entry["annotations"]]),
         _authors(entry["citation"]))
        for entry in entries
    ]  # fmt: skip
    headings = ["method", "what it is", "data", "paper"][: 4 if width >= WIDE else 3]
    widths = [max([len(heading), *(len(row[at]) for row in rows)]) for at, heading in enumerate(headings)]
    widths[2:] = [min(wanted, width // 4) for wanted in widths[2:]]
    widths[1] = max(min(widths[1], width - widths[0] - sum(widths[2:]) - 2 * len(widths)), 10)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading, style, columns in zip(headings, ("cyan", "", "", "dim"), widths, strict=False):
        grid.add_column(heading, style=style, width=columns, no_wrap=True, overflow="ellipsis")
    for row in rows:
        grid.add_row(*row[: len(headings)])
    count = f"{len(entries)} method{'' if len(entries) == 1 else 's'}"
    footer = Text(f"\n{count}. prefero methods NAME shows equation, knobs and data of one.", style="dim")
    return Group(grid, footer)


def _authors(citation: str) -> str:
    """A citation up to its year."""
    match = re.match(r".*?\b\d{4}\b", citation)
    return match.group() if match else citation


def page(entry: Mapping[str, Any]) -> RenderableType:
    heading = Text.assemble((entry["key"], "bold cyan"), "  ", (entry["title"], "bold"))
    parts: list[RenderableType] = [heading]
    if entry["description"]:
        parts.append(Text(entry["description"]))
    parts.append(Padding(Text(entry["equation"], style="bold"), (1, 0, 1, 4)))
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    if entry["citation"]:
        facts.add_row("paper", Text(entry["citation"]))
    facts.add_row("data", Text("\n".join(entry["data"])))
    for label, content in _needs_rows(entry["needs"]):
        facts.add_row(label, Text(content))
    if entry["aliases"]:
        facts.add_row("also called", ", ".join(entry["aliases"]))
    if entry["equals"]:
        facts.add_row("equals", Text("\n".join(map(special_case, entry["equals"]))))
    if entry["special_cases_of"]:
        facts.add_row("special case of", Text("\n".join(map(special_case, entry["special_cases_of"]))))
    for name in ("relatives", "pitfalls"):
        if entry[name]:
            facts.add_row(name, Text(entry[name]))
    parts += [facts, _knobs(entry["parameters"])]
    if entry["settings"]:
        parts.append(_settings(entry["settings"]))
    return Group(*parts)


def special_case(equal: Mapping[str, Any]) -> str:
    """``dpo at alpha = 0.0``."""
    at, given = (
        ", ".join(f"{name} = {value}" for name, value in equal.get(which, {}).items())
        for which in ("at", "given")
    )
    return equal["method"] + (f" ({given})" if given else "") + (f" at {at}" if at else "")


def _needs_rows(needs: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("responses", ", ".join(needs["responses"])), ("models", ", ".join(needs["models"]))]
    if needs["signals"]:
        rows.append(("measured too", "\n".join(needs["signals"])))
    for name, column in needs["columns"].items():
        rows.append((f"column {name}", f"{column['meaning']} (fields: {', '.join(column['fields'])})"))
    if needs["views"]:
        rows.append(("also scored", ", ".join(f"{view} view of the examples" for view in needs["views"])))
    if needs["whole_step"]:
        rows.append(("step", "the loss is taken over the whole optimizer step at once"))
    return rows


def _knobs(parameters: list[dict[str, Any]]) -> RenderableType:
    if not parameters:
        return Text("\nno knobs", style="dim")
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", title_justify="left")
    for heading in ("knob", "default", "may be"):
        grid.add_column(heading, overflow="fold")
    for one in parameters:
        default = "must be given" if one["required"] else str(one["default"])
        allowed = " | ".join(map(str, one["choices"])) if one["choices"] else one["range"] or ""
        grid.add_row(Text(one["name"], style="cyan"), Text(default), Text(allowed))
    return Padding(grid, (1, 0, 0, 0))


def _settings(settings: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    grid.add_column("published for", no_wrap=True)
    grid.add_column("settings", overflow="fold")
    for name, values in settings.items():
        grid.add_row(Text(name), Text(", ".join(f"{key}={value}" for key, value in values.items())))
    return Padding(grid, (1, 0, 0, 0))
