"""The default of every argument of every method and of what fills a slot, in ``defaults.txt`` beside this
file.

``python -m tests.objectives.pinned_defaults`` writes it; read the difference before it is committed. A
default is a published setting, and who names none gets another method when it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prefero.objectives.registry import Parameter, methods, parameters_of
from prefero.objectives.slots import SLOTS
from tests.pinned import Pinned


def lines() -> dict[str, str]:
    """``dpo.beta = 0.1``, ``weight: wpo.alignment = 'none'``; a method without arguments has a line too."""
    found: dict[str, str] = {}
    for key, method in sorted(methods().items()):
        found |= defaults(key, method.parameters)
    for slot, choices in SLOTS.items():
        for name, function in sorted(choices.items()):
            found |= defaults(f"{slot}: {name}", parameters_of(function))
    return found


def defaults(place: str, parameters: Mapping[str, Parameter]) -> dict[str, str]:
    if not parameters:
        return {place: "no arguments"}
    return {
        f"{place}.{name}": "to be given" if one.required else repr(one.default)
        for name, one in parameters.items()
    }


DEFAULTS = Pinned(Path(__file__).with_name("defaults.txt"), lines, "tests.objectives.pinned_defaults")

if __name__ == "__main__":
    DEFAULTS.write()
