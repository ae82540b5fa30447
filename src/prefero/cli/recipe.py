"""A recipe is a YAML file; ``key=value`` arguments and the flags of the short form are laid over it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from prefero.errors import PreferoError, nearest
from prefero.training.vocabulary import current_names


class _Loader(yaml.SafeLoader):
    """Safe YAML in which ``1e-5`` is a number, as it is in YAML 1.2, JSON and Python."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def split_arguments(arguments: Iterable[str]) -> tuple[Path | None, list[str]]:
    """The recipe, at most one (:class:`PreferoError`), and the ``key=value`` among the positional
    arguments."""
    recipes: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        is_override = "=" in argument and not os.path.isfile(argument)  # False for a name that is too long
        (overrides if is_override else recipes).append(argument)
    if len(recipes) > 1:
        raise PreferoError(
            f"one recipe at a time, but {len(recipes)} were named: {', '.join(recipes)}; "
            "everything else on the command line is key=value"
        )
    return (Path(recipes[0]) if recipes else None), overrides


def read_recipe(path: Path) -> dict[str, Any]:
    """The mapping in a recipe file. Raises :class:`PreferoError` for a file that is missing or none."""
    if path.is_dir():
        raise PreferoError(f"{path} is a folder; a recipe is a YAML file")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        folder = path.parent
        others = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        hint = nearest(path.name, others) or "; settings are given as key=value"
        raise PreferoError(f"there is no recipe {path}{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PreferoError(f"the recipe {path} cannot be read: {error}") from None
    try:
        recipe = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "it does not parse"
        raise PreferoError(f"{where}: not valid YAML: {problem}") from None
    if not isinstance(recipe, dict) or not all(isinstance(key, str) for key in recipe):
        raise PreferoError(f"{path}: a recipe is a mapping of sections, such as 'model: …' and 'data: …'")
    return recipe


def parse_override(argument: str) -> tuple[str, Any]:
    """The dotted key and the value, read as YAML, of ``key=value``, or :class:`PreferoError`."""
    key, equals, text = argument.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise PreferoError(f"{argument!r} is not key=value, such as objective.beta=0.1")
    try:
        return key.strip(), load_yaml(text)
    except yaml.YAMLError:
        return key.strip(), text


SHORT_FORMS = {"model": "name", "data": "train", "objective": "method", "reference": "kind"}
"""Sections that a recipe may give as a name alone, and the key which that name is the value of."""


def current_overrides(
    settings: Iterable[tuple[str, Any]], tell: Callable[[str], object]
) -> list[tuple[str, Any]]:
    """Dotted keys and values, those of ``training`` under their current names; ``tell`` reports old ones."""
    others: list[tuple[str, Any]] = []
    training: dict[str, Any] = {}
    for key, value in settings:
        section, _, name = key.partition(".")
        if section != "training" or not name:
            others.append((key, value))
        elif name.startswith("arguments."):
            training.setdefault("arguments", {})[name.removeprefix("arguments.")] = value
        else:
            training[name] = value
    current = current_names(training, tell, "training.")
    return others + [(f"training.{name}", value) for name, value in current.items()]


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
        elif depth == 0 and isinstance(inner, str) and part in SHORT_FORMS:
            inner = here[part] = {SHORT_FORMS[part]: inner}
        if not isinstance(inner, dict):
            name = ".".join(path[: depth + 1])
            raise PreferoError(
                f"{'.'.join(path)} cannot be set: {name} is {inner!r} here, not a section with keys"
            )
        here = inner
    here[path[-1]] = value
