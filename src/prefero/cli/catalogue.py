"""The published methods as ``prefero methods`` shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from prefero.data.schema import SCHEMA
from prefero.errors import PreferoError
from prefero.objectives import Method, Needs, Parameter, dry_run, find, methods

FEEDBACK = {
    "pairs": "a chosen and a rejected response to each prompt",
    "lists": "several responses to each prompt, ranked or scored",
    "unpaired": "single responses, each marked desirable or undesirable",
    "ties": "comparisons in which annotators may call a tie",
    "scores": "scores of the responses",
}


def overview() -> list[dict[str, Any]]:
    """One entry a method, by key."""
    return [
        {
            "key": method.key,
            "title": method.title,
            "citation": method.citation,
            "paper": method.paper,
            "feedback": sorted(method.feedback),
        }
        for method in sorted(methods().values(), key=lambda method: method.key)
    ]


def describe(name: str) -> dict[str, Any]:
    """Everything there is to say about one method.

    Raises :class:`PreferoError` for an unknown name.
    """
    method = find(name)
    needs = needs_of(method)
    return {
        "key": method.key,
        "title": method.title,
        "description": method.description.replace("``", ""),
        "equation": method.equation,
        "citation": method.citation,
        "paper": method.paper,
        "aliases": list(method.aliases),
        "feedback": sorted(method.feedback),
        "data": [FEEDBACK[kind] for kind in sorted(method.feedback)],
        "parameters": [parameter(one) for one in method.parameters.values()],
        "needs": None if needs is None else needs_in_words(needs),
        "settings": {name: dict(values) for name, values in method.settings.items()},
        "notes": method.relatives,
    }


def parameter(one: Parameter) -> dict[str, Any]:
    choices = get_args(one.kind) if get_origin(one.kind) is Literal else ()
    return {
        "name": one.name,
        "required": one.required,
        "default": None if one.required else one.default,
        "range": str(one.range) if one.range is not None else None,
        "choices": list(choices) or None,
    }


def needs_of(method: Method) -> Needs | None:
    """What the dry run finds with the default arguments; None if the method cannot be built for it."""
    arguments = {one.name: _stand_in(one) for one in method.parameters.values() if one.required}
    try:
        return dry_run(method.build(**arguments))
    except PreferoError:
        return None


def _stand_in(one: Parameter) -> Any:
    return [1.0, 1.0] if get_origin(one.kind) is list else 1.0


def needs_in_words(needs: Needs) -> dict[str, Any]:
    return {
        "responses": list(needs.roles) or ["unnamed candidates"],
        "models": sorted(needs.models),
        "signals": sorted(
            f"{signal.name} of the {model}" + (f" against the {signal.against}" if signal.against else "")
            for model, signals in needs.models.items()
            for signal in signals
        ),
        "columns": {
            name: {"meaning": SCHEMA[name].meaning, "fields": list(SCHEMA[name].fields)}
            for name in sorted(needs.columns)
            if not SCHEMA[name].drawn
        },
        "views": {name: needs_in_words(view) for name, view in needs.views.items()},
        "whole_step": not needs.exact,
    }


def table(entries: list[dict[str, Any]]) -> RenderableType:
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    grid.add_column("method", style="cyan", no_wrap=True)
    grid.add_column("what it is")
    grid.add_column("data", no_wrap=True)
    grid.add_column("paper", style="dim")
    for entry in entries:
        grid.add_row(entry["key"], entry["title"], ", ".join(entry["feedback"]), _authors(entry["citation"]))
    footer = Text("\nprefero methods NAME shows the equation, the knobs and the data of one.", style="dim")
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
    if entry["notes"]:
        facts.add_row("note", Text(entry["notes"]))
    parts += [facts, _knobs(entry["parameters"])]
    if entry["settings"]:
        parts.append(_settings(entry["settings"]))
    return Group(*parts)


def _needs_rows(needs: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if needs is None:
        return []
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
