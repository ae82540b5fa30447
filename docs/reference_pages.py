"""Pages that list what the code knows: commands, settings of a recipe, annotations of data, monitors.

``python -m docs.generate`` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic_core import PydanticUndefined
from transformers import TrainingArguments
from transformers.trainer_utils import SchedulerType

from docs import method_pages
from docs.method_pages import linked, table
from prefero.cli.main import app
from prefero.data.schema import GIVEN, OTHER_PROMPTS, OTHER_RESPONSES
from prefero.reference.providers import ReferenceSpec
from prefero.sections import fields_of, sections_in
from prefero.training.config import OWN, Settings, TrainConfig
from prefero.training.monitors import MONITORS
from prefero.training.vocabulary import RECIPE_PLACES, REFUSED, REPLACED


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


TRAINING_ARGUMENTS = (
    "https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments"
)


def settings() -> str:
    parts = [
        "# Settings of a recipe",
        "What `prefero train`, `prefero compare` and `prefero.TrainConfig` take: in a YAML file, or as "
        "`section.key=value` on the command line. `model`, `data`, `objective` and `reference` may be given "
        "as a name alone, and `samples` as a number. `objective` holds `method` and its arguments "
        "([methods](methods/index.md)), or `settings`, the name of values that its paper publishes, and "
        "what is put together with it ([concepts](concepts.md#composition)); `models` holds further models "
        "by name, each with the keys of `reference`. `PreferenceTrainer` takes the keys of `training` as "
        "keyword arguments, `samples`, and `output_dir`, `seed` and `max_length` for `output`, `seed` and "
        "`data.max_length`.",
    ]
    sections = {name: one for name, one in sections_in(TrainConfig).items() if name != "models"}
    top = [row(name, TrainConfig) for name in TrainConfig.model_fields if name not in sections]
    parts += ["## At the top", table(("key", "default", "may be"), top)]
    for name, section in sections.items():
        parts += [f"## {name}", summary_of(section)]
        parts += training() if name == "training" else [keys(name, section)]
    return roles("\n\n".join(parts)) + "\n"


def keys(name: str, section: type) -> str:
    """A table of the keys of a section, with what each is where the code says it of all."""
    told = [field.description or "" for field in fields_of(section).values()]
    if not all(told):
        return table(("key", "default", "may be"), rows(name, section))
    described = [(*one, what) for one, what in zip(rows(name, section), told, strict=True)]
    return table(("key", "default", "may be", "what"), described)


def training() -> list[str]:
    """The section ``training``: what is ours, and what becomes of each argument of transformers."""
    theirs = {field.name for field in fields(TrainingArguments)}
    known = Settings.model_fields
    own = [name for name in known if name not in theirs]
    other_default = [name for name in known if name in theirs and name in OWN]
    taken = ", ".join(f"`{name}`" for name in sorted(known.keys() - OWN - set(own)))
    elsewhere = [
        (f"`{name}`", f"`{place}`", "a recipe has it there")
        for name, place in RECIPE_PLACES.items()
        if name in theirs
    ]
    replaced = [(f"`{name}`", f"`{one.setting}`", one.reason) for name, one in REPLACED.items()]
    head = ("key", "default", "may be", "what")
    return [
        "### Settings of prefero",
        table(head, [(*row(name, Settings, "training"), known[name].description) for name in own]),
        "### Settings of transformers with another default",
        f"The names and meanings are those of [`transformers.TrainingArguments`]({TRAINING_ARGUMENTS}).",
        table(head, [(*row(name, Settings, "training"), known[name].description) for name in other_default]),
        "With `data.eval`, `eval_strategy` is `steps` and `eval_steps` `0.1`: held-out data are evaluated on "
        "ten times in a run.",
        "### Settings of transformers as they are",
        f"{taken}.",
        "### Settings of transformers that are another one here",
        table(("there", "here", "why"), [*elsewhere, *replaced]),
        "### Settings and arguments of transformers that cannot be set",
        table(("there", "why"), [(f"`{name}`", reason) for name, reason in REFUSED.items()]),
    ]


def summary_of(section: type) -> str:
    """Its docstring, without what Python raises."""
    paragraphs = (section.__doc__ or "").replace("``", "`").split("\n\n")
    return " ".join(" ".join(one.split()) for one in paragraphs if "PreferoError" not in one)


def roles(text: str) -> str:
    """References of docstrings as code."""
    return re.sub(r":\w+:`~?([^`<]+)`", lambda found: f"`{found[1]}`", text)


def rows(place: str, section: type) -> list[tuple[str, str, str]]:
    inner = sections_in(section)
    listed = []
    for name in fields_of(section):
        listed.append(row(name, section, place))
        if name in inner:
            listed += rows(f"{place}.{name}", inner[name])
    return listed


def row(name: str, section: type, place: str = "") -> tuple[str, str, str]:
    field = fields_of(section)[name]
    value = field.get_default(call_default_factory=True, validated_data={})
    shown = "must be given" if value is PydanticUndefined else f"`{in_yaml(value)}`"
    return f"`{place + '.' if place else ''}{name}`", shown, in_words(field.annotation, field.metadata)


def in_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {in_yaml(one)}" for key, one in value.items()) + "}"
    return str(value.value if isinstance(value, Enum) else value)


def in_words(kind: Any, marks: Sequence[Any] = ()) -> str:
    """A type in words, with its range."""
    if kind in NAMES:
        words = NAMES[kind]
    elif fields_of(kind):
        words = "keys below"
    elif get_origin(kind) is Annotated:
        return in_words(get_args(kind)[0], [*kind.__metadata__, *marks])
    elif get_origin(kind) is Literal:
        words = " or ".join(f"`{choice}`" for choice in get_args(kind))
    else:
        options = [in_words(one) for one in get_args(kind) if one is not type(None)]
        words = " or ".join(dict.fromkeys(filter(None, options)))
    marks = [inner for mark in marks for inner in getattr(mark, "metadata", [mark])]
    limits = [
        f"{sign} {value}"
        for mark in marks
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if (value := getattr(mark, attribute, None)) is not None
    ]
    return ", ".join([words, *limits])


NAMES: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    list[str]: "list of texts",
    dict[str, Any]: "keys and values",
    dict[str, ReferenceSpec]: "names and references",
    Path: "folder",
    SchedulerType: "a schedule of transformers",
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
    for name, column in GIVEN.items():
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
