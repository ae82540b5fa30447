"""The published methods, as ``prefero methods`` and the generated pages show them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from prefero.data.schema import GIVEN, OTHER_PROMPTS, OTHER_RESPONSES, SCHEMA
from prefero.errors import PreferoError, nearest
from prefero.objectives import Method, Needs, Parameter, dry_run, find, methods
from prefero.objectives.signals import STATES

FEEDBACK = {
    "pairs": "a chosen and a rejected response to each prompt",
    "lists": "several responses to each prompt, ranked or scored",
    "unpaired": "single responses, each marked desirable or undesirable",
    "ties": "comparisons in which annotators may call a tie",
    "scores": "scores of the responses",
    "steps": "responses in reasoning steps",
    "spans": "annotated spans of the responses",
    "samples": "responses drawn in rounds from the policy while it trains",
}

IMPLIED = {
    "pairs": {"unpaired"},
    "lists": {"pairs", "unpaired"},
    "scores": {"pairs", "lists", "unpaired"},
    "ties": {"pairs", "unpaired"},
    "steps": {"pairs", "unpaired"},
    "spans": {"pairs", "unpaired"},
}
"""Further readings of a kind of data: a ranking has a best and a worst response, a pair two labels."""

FEEDBACK_COLUMNS = frozenset(
    {
        "score",
        "label",
        "rank",
        "tie",
        "preference",
        "step",
        "error_step",
        "segment",
        "token_weight",
        "token_score",
    }
)
"""The columns in which those kinds arrive."""

PARTS = frozenset([*SCHEMA, *(part.field for part in [*OTHER_RESPONSES.values(), *OTHER_PROMPTS.values()])])
"""Further parts of a row, by name."""


def overview(
    *,
    data: Collection[str] = (),
    paper: str = "",
    reference: bool = True,
    generation: bool = True,
) -> list[dict[str, Any]]:
    """One entry per method, by key; those made for the ``data`` first.

    ``data`` keeps the methods that such data suffice for (kinds of :data:`FEEDBACK`, further :data:`PARTS` of
    rows); ``paper`` those whose key, citation or title has the text; ``reference=False`` those that read no
    model but the policy; ``generation=False`` those that sample nothing while they train.

    Raises :class:`PreferoError` for an unknown kind of data.
    """
    for kind in data:
        if kind not in FEEDBACK and kind not in PARTS:
            raise PreferoError(
                f"no kind of data is called {kind!r}{nearest(kind, [*FEEDBACK, *PARTS])} (known: "
                f"{', '.join(FEEDBACK)}; and parts of rows such as group or gold)"
            )
    entries = []
    for _, method in sorted(methods().items()):
        needs = needs_of(method)
        parts = extra_parts(method, needs)
        if (
            paper.lower() in f"{method.paper} {method.citation} {method.title}".lower()
            and (not data or suffices(data, method.feedback | parts))
            and (generation or "samples" not in method.feedback)
            and (reference or models_of(needs) == {"policy"})
        ):
            entry = {name: getattr(method, name) for name in ("key", "title", "citation", "paper")}
            entries.append(entry | {"feedback": sorted(method.feedback), "annotations": sorted(parts)})
    return sorted(entries, key=lambda entry: not set(data) <= {*entry["feedback"], *entry["annotations"]})


def why_none(given: Mapping[str, tuple[str, Any]]) -> str:
    """How many methods each option leaves out where all together leave none. ``given`` are the arguments of
    :func:`overview` that differ from their defaults, each with the option that stands for it and its value.
    """
    arguments = {name: value for name, (_, value) in given.items()}
    told = []
    for name, (option, _) in given.items():
        others = overview(**{other: value for other, value in arguments.items() if other != name})
        if others:
            keys = ", ".join(entry["key"] for entry in others[:3]) + (", …" if len(others) > 3 else "")
            told.append(f"{len(others)} without {option} ({keys})")
    options = " ".join(option for option, _ in given.values())
    return f"no method fits {options}; there are {', '.join(told) or 'none without either'}"


def extra_parts(method: Method, needs: Needs) -> frozenset[str]:
    """The parts of rows besides the feedback itself: columns, further responses, other prompts."""
    every = (needs, *needs.views.values())
    columns = {name for one in every for name in one.columns if name in GIVEN} - FEEDBACK_COLUMNS
    prompts = {OTHER_PROMPTS[view].field for view in needs.views if view in OTHER_PROMPTS}
    responses = {OTHER_RESPONSES[role].field for role in needs.roles if role in OTHER_RESPONSES}
    if "samples" in method.feedback:
        responses.discard("sample")
    return frozenset(columns | prompts | responses)


def models_of(needs: Needs) -> set[str]:
    """Every model that is read, in the examples themselves or in a view."""
    return {name for one in (needs, *needs.views.values()) for name in one.models}


def suffices(data: Iterable[str], carried: Collection[str]) -> bool:
    """Whether a method that wants ``carried`` can be trained on ``data``; samples are there only where they
    are among the data: rows of a file do not draw any."""
    there = set(data).union(*(IMPLIED.get(kind, set()) for kind in data))
    return set(carried) <= there


def describe(name: str) -> dict[str, Any]:
    """A method in full. Raises :class:`PreferoError` for an unknown name."""
    method = find(name)
    needs = needs_of(method)
    return {
        "key": method.key,
        "title": method.title,
        "description": unwrapped(method.description.replace("``", "")),
        "equation": method.equation,
        "citation": method.citation,
        "paper": method.paper,
        "aliases": list(method.aliases),
        "feedback": sorted(method.feedback),
        "data": [FEEDBACK[kind] for kind in sorted(method.feedback)],
        "parameters": [parameter(one) for one in method.parameters.values()],
        "needs": needs_in_words(needs),
        "states": STATES[method.states] if method.states else None,
        "settings": {name: dict(values) for name, values in method.settings.items()},
        "equals": [
            {"method": one.method, "at": dict(one.at), "given": dict(one.given)} for one in method.equals
        ],
        "special_cases_of": [
            {"method": other.key, "at": dict(one.at)}
            for other in methods().values()
            for one in other.equals
            if one.method == method.key and other.key != method.key
        ],
        "relatives": method.relatives,
        "pitfalls": method.pitfalls,
    }


def unwrapped(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def parameter(one: Parameter) -> dict[str, Any]:
    choices = get_args(one.kind) if get_origin(one.kind) is Literal else ()
    return {
        "name": one.name,
        "required": one.required,
        "default": None if one.required else one.default,
        "range": str(one.range) if one.range is not None else None,
        "choices": list(choices) or None,
    }


def needs_of(method: Method) -> Needs:
    """The needs that a dry run records with the default arguments."""
    return dry_run(method.build())


def needs_in_words(needs: Needs) -> dict[str, Any]:
    return {
        "responses": list(needs.roles) or ["unnamed candidates"],
        "models": sorted(needs.models, key=lambda model: (model != "policy", model)),
        "signals": sorted(
            f"{signal.name} of the {model}" + (f" against the {signal.against}" if signal.against else "")
            for model, signals in needs.models.items()
            for signal in signals
        ),
        "columns": {
            name: {"meaning": GIVEN[name].meaning, "fields": list(GIVEN[name].fields)}
            for name in sorted(needs.columns)
            if name in GIVEN
        },
        "views": {name: needs_in_words(view) for name, view in needs.views.items()},
        "whole_step": not needs.exact,
    }


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
    footer = Text(
        f"\n{count}. prefero methods NAME shows the equation, arguments and data of one.", style="dim"
    )
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
    if entry["states"]:
        facts.add_row("made for", Text(entry["states"]))
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
    parts += [facts, _arguments(entry["parameters"])]
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


def _arguments(parameters: list[dict[str, Any]]) -> RenderableType:
    if not parameters:
        return Text("\nno arguments", style="dim")
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", title_justify="left")
    for heading in ("argument", "default", "may be"):
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
