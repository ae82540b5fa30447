"""Settings laid over a recipe, each under its dotted key: ``objective.beta``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from prefero.errors import PreferoError

SHORT_FORMS = {
    "model": "name",
    "data": "train",
    "objective": "method",
    "reference": "kind",
    "samples": "prompts",
}
"""Sections that a recipe may give as one value alone, and the key which that is the value of."""


def override(recipe: Mapping[str, Any], settings: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """``recipe`` with every dotted key set; :class:`PreferoError` for a key that reaches into a plain
    value."""
    result = deepcopy(dict(recipe))
    for key, value in settings:
        _set(result, key.split("."), value)
    return result


def _set(recipe: dict[str, Any], path: list[str], value: Any) -> None:
    here = recipe
    for depth, part in enumerate(path[:-1]):
        inner = here.get(part)
        if inner is None:
            inner = here[part] = {}
        elif depth == 0 and isinstance(inner, str | int) and part in SHORT_FORMS:
            inner = here[part] = {SHORT_FORMS[part]: inner}
        if not isinstance(inner, dict):
            name = ".".join(path[: depth + 1])
            raise PreferoError(
                f"{'.'.join(path)} cannot be set: {name} is {inner!r} here, not a section with keys"
            )
        here = inner
    here[path[-1]] = value
