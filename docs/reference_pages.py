"""Pages that list what the code knows: commands, settings of a recipe, annotations of data, monitors.

``python -m docs.generate`` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic_core import PydanticUndefined

from docs import method_pages
from docs.method_pages import linked, table
from prefero.cli.main import app
from prefero.data.schema import OTHER_PROMPTS, OTHER_RESPONSES, SCHEMA
from prefero.training.config import ReferenceSection, Section, TrainConfig
from prefero.training.monitors import MONITORS


def pages() -> dict[str, str]:
    return {
        "commands.md": commands(),
        "settings.md": settings(),
        "annotations.md": row_annotations(),
        "monitors.md": monitors(),
    }


def commands() -> str:
    parts = [
        "# Commands",
        "`prefero COMMAND --help` prints the same. Every command takes `--json`: one document on stdout, the "
        "rest on stderr. Exit codes: 0 done, 2 a mistake in what was given, 130 interrupted.",
    ]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        own = [one for one in command.params if one.name != "help"]
        parts += [f"## prefero {name}", *(" ".join(text.split()) for text in command.help.split("\n\n"))]
        parts.append(table(("argument", "default", "what"), [option(one) for one in own]))
    return "\n\n".join(parts) + "\n"


def option(one: Any) -> tuple[str, str, str]:
    if one.param_type_name == "argument":
        name, about = one.metavar or f"{one.name.upper()}", getattr(one, "help", "") or ""
    else:
        name, about = ", ".join(one.opts), one.help or ""
    shown = one.show_default if isinstance(one.show_default, str) else default(one)
    return f"`{name}`", shown, about


def default(one: Any) -> str:
    if one.show_default is False or one.required:
        return ""
    value = one.default
    if value is None or isinstance(value, bool) or value == "" or value == () or callable(value):
        return ""
    return f"`{value}`"


def settings() -> str:
    parts = [
        "# Settings of a recipe",
        "What `prefero train`, `prefero compare` and `prefero.TrainConfig` take: in a YAML file, or as "
        "`section.key=value` on the command line. `model`, `data`, `objective` and `reference` may be given "
        "as a name alone. `objective` holds `method` and its arguments ([methods](methods/index.md)), and "
        "what is put together with it ([concepts](concepts.md#composition)); `models` holds further models "
        "by name, each with the keys of `reference`.",
    ]
    sections = {name: one for name, one in described(TrainConfig) if name != "models"}
    top = [row(name, TrainConfig) for name in TrainConfig.model_fields if name not in sections]
    parts += ["## At the top", table(("key", "default", "may be"), top)]
    for name, section in sections.items():
        parts += [f"## {name}", " ".join((section.__doc__ or "").replace("``", "`").split())]
        parts.append(table(("key", "default", "may be"), rows(name, section)))
    return roles("\n\n".join(parts)) + "\n"


def roles(text: str) -> str:
    """References of docstrings as code."""
    return re.sub(r":\w+:`~?([^`<]+)`", lambda found: f"`{found[1]}`", text)


def described(section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """Sections in it, by key."""
    for name, field in section.model_fields.items():
        for one in (field.annotation, *get_args(field.annotation)):
            if isinstance(one, type) and issubclass(one, Section):
                yield name, one


def rows(place: str, section: type[Section]) -> list[tuple[str, str, str]]:
    inner = dict(described(section))
    found = []
    for name in section.model_fields:
        found.append(row(name, section, place))
        if name in inner:
            found += rows(f"{place}.{name}", inner[name])
    return found


def row(name: str, section: type[Section], place: str = "") -> tuple[str, str, str]:
    field = section.model_fields[name]
    value = field.get_default(call_default_factory=True)
    shown = "must be given" if value is PydanticUndefined else f"`{in_yaml(value)}`"
    if isinstance(value, Section):
        shown = ""
    return f"`{place + '.' if place else ''}{name}`", shown, kind_of(field)


def in_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {in_yaml(one)}" for key, one in value.items()) + "}"
    return str(value)


def kind_of(field: Any) -> str:
    """The type in words, with its range."""
    whole = field.annotation in NAMES
    options = (field.annotation,) if whole else get_args(field.annotation) or (field.annotation,)
    words = []
    for one in options:
        if get_args(one) and all(isinstance(choice, str) for choice in get_args(one)):
            words += [f"`{choice}`" for choice in get_args(one)]
        elif isinstance(one, str):
            words.append(f"`{one}`")
        elif one in NAMES:
            words.append(NAMES[one])
        elif isinstance(one, type) and issubclass(one, Section):
            words.append("keys below")
    limits = [
        f"{sign} {value:g}"
        for mark in field.metadata
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if (value := getattr(mark, attribute, None)) is not None
    ]
    return " or ".join(dict.fromkeys(filter(None, words))) + (f", {', '.join(limits)}" if limits else "")


NAMES: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    list[str]: "list of texts",
    dict[str, Any]: "keys and values",
    dict[str, ReferenceSection]: "names and references",
    Path: "folder",
}


def row_annotations() -> str:
    """Columns, further responses and other prompts of rows, and which methods read them."""
    readers: dict[str, list[str]] = {}
    for key, entry in method_pages.described().items():
        needs = entry["needs"]
        for name in {*needs["columns"], *needs["views"], *needs["responses"]}:
            readers.setdefault(name, []).append(key)
    parts = [
        "# What rows may carry",
        "Besides prompt and responses ([layouts](data.md)), rows may carry annotations. A method says what "
        "it reads (`prefero methods NAME`), and where a column is missing the error names the field that "
        "would fill it. These are all that there are, with a row that has them and the methods that read "
        "them by default.",
        "## Columns",
    ]
    for name, column in SCHEMA.items():
        if column.given:
            fields = ", ".join(f"`{one}`" for one in column.fields)
            said = f"{capital(column.meaning)}. One for each {AXES[column.axes]}; fields: {fields}."
            parts += [f"### {name}", said, f"```text\n{column.sample}\n```", read_by(readers.get(name, []))]
    for heading, known in (("Further responses", OTHER_RESPONSES), ("Other prompts", OTHER_PROMPTS)):
        parts.append(f"## {heading}")
        for name, part in known.items():
            said = f"{capital(part.meaning)}. Field: `{part.field}`."
            parts += [f"### {name}", said, f"```text\n{part.sample}\n```", read_by(readers.get(name, []))]
    return "\n\n".join(parts) + "\n"


AXES = {
    "example": "row",
    "example response": "response",
    "example response token": "part of a response",
    "example hidden": "row, a list of numbers",
}


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def read_by(keys: list[str]) -> str:
    if not keys:
        return "No method reads it by default."
    return "Read by " + ", ".join(f"[`{key}`](methods/{key}.md)" for key in keys) + "."


def monitors() -> str:
    parts = [
        "# Monitors",
        "Every run is watched. What fires is printed, written to `monitors.jsonl` of the run's folder and "
        "shown in its [report](reports.md), with the number, the threshold and what helps. The papers name "
        "what to look at; the thresholds are this library's.",
    ]
    for one in MONITORS:
        remedies = ", ".join(f"[`{key}`](methods/{key}.md)" for key in one.remedies)
        facts = [
            f"- **Looks at**: {one.measures}",
            f"- **Fires**: past {one.threshold:g}"
            if one.threshold != float("inf")
            else "- **Fires**: at once",
            f"- **Paper**: {linked(one.paper)}" if one.paper else "",
            f"- **Methods that address it**: {remedies}" if remedies else "",
            f"- **What helps besides**: {one.advice}",
        ]
        parts += [f"## {one.title}", "\n".join(filter(None, facts))]
    return "\n\n".join(parts) + "\n"
