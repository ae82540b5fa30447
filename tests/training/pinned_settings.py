"""The default of every setting of a run, in ``settings.txt`` beside this file: those of a recipe by their
place, and those of the trainer that are prefero's own or differ from ``transformers``'.

``python -m tests.training.pinned_settings`` writes it; read the difference before it is committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from prefero.sections import fields_of, sections_in
from prefero.training.config import (
    ADAPTER_LEARNING_RATE,
    FULL_LEARNING_RATE,
    PreferenceArguments,
    TrainConfig,
)
from tests.pinned import Pinned

OWN = set(PreferenceArguments.__annotations__)
REQUIRED = object()
INHERITED = {field.name for field in fields(TrainingArguments)} - OWN


def lines() -> dict[str, str]:
    own = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(PreferenceArguments)
        if field.name in OWN
    }
    found = {
        **dict(of_section(TrainConfig, "recipe")),
        **{f"arguments.{name}": value for name, value in sorted(own.items())},
        "learning_rate.full": FULL_LEARNING_RATE,
        "learning_rate.adapters": ADAPTER_LEARNING_RATE,
    }
    return {name: text(value) for name, value in found.items()}


def of_section(section: type, place: str) -> Iterator[tuple[str, Any]]:
    """Every field of a section and its default; of a field that is a section, the section's fields."""
    inner = sections_in(section)
    for name, field in fields_of(section).items():
        if place == "recipe.training" and name in INHERITED:
            continue
        default = field.get_default(call_default_factory=True)
        if name not in inner or default is None or field.is_required():
            yield f"{place}.{name}", REQUIRED if field.is_required() else default
        if name in inner and default != {}:
            given = {} if field.is_required() or default is None else vars(default)
            for key, value in of_section(inner[name], f"{place}.{name}"):
                yield key, given.get(key.rpartition(".")[2], value)


def text(value: Any) -> str:
    return "to be given" if value is REQUIRED else repr(value.value if isinstance(value, Enum) else value)


SETTINGS = Pinned(Path(__file__).with_name("settings.txt"), lines, "tests.training.pinned_settings")

if __name__ == "__main__":
    SETTINGS.write()
