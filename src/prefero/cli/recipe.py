"""A recipe is a YAML file; ``key=value`` arguments and the flags of the short form are laid over it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from prefero.bounded_json import HALF
from prefero.errors import PreferoError, nearest
from prefero.training.vocabulary import OLD_PLACES, current_names

DEEPEST = 30
"""Lists and mappings inside one another that a recipe may have."""

MOST = 100_000
"""Values that a recipe may have, those that aliases repeat counted each time."""


class RefusedYamlError(yaml.MarkedYAMLError):
    """Valid YAML that says two things at once, or has no end."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which ``1e-5`` is a number, as it is in YAML 1.2, JSON and Python, and that refuses keys
    that stand twice, values that contain themselves, and values without bounds."""

    def get_single_node(self) -> yaml.Node | None:
        try:
            node = super().get_single_node()
        except RecursionError:
            raise RefusedYamlError(problem=f"values are nested more than {DEEPEST} deep") from None
        except (ValueError, OverflowError) as error:  # an escape that is no character
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=self.get_mark()) from None
        if node is not None:
            _size(node, {}, [])
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError, AttributeError, TypeError) as error:
            problem = f"{node.value!r:.60} is not what its form says ({error})"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


def _size(node: yaml.Node, sizes: dict[int, int], above: list[yaml.Node]) -> int:
    """The number of values in a node, with those behind aliases. ``sizes`` are of nodes that are known, by
    identity; ``above`` the nodes that this one is in. Raises :class:`RefusedYamlError`."""
    if any(node is outer for outer in above):
        raise RefusedYamlError(
            problem="an alias refers to a value that it is in", problem_mark=node.start_mark
        )
    if len(above) > DEEPEST:
        problem = f"values are nested more than {DEEPEST} deep"
        raise RefusedYamlError(problem=problem, problem_mark=node.start_mark)
    if id(node) not in sizes:
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, ".".join(_keys(above, node)))
            inside = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.ScalarNode) and HALF.search(node.value):
            problem = f"a text holds half a character, {node.value!a}"
            raise RefusedYamlError(problem=problem, problem_mark=node.start_mark)
        sizes[id(node)] = 1 + sum(_size(inner, sizes, [*above, node]) for inner in inside)
    if sizes[id(node)] > MOST:
        problem = f"aliases make more than {MOST:,} values of a few"
        raise RefusedYamlError(problem=problem, problem_mark=node.start_mark)
    return sizes[id(node)]


def _keys(above: list[yaml.Node], last: yaml.Node) -> Iterator[str]:
    """The keys that lead to a node."""
    for outer, inner in pairwise([*above, last]):
        if isinstance(outer, yaml.MappingNode):
            yield next((str(key.value) for key, value in outer.value if value is inner), "?")


def _check_keys(mapping: yaml.MappingNode, place: str) -> None:
    """Raise :class:`RefusedYamlError` for a key that is no text, and for one that stands twice; those that
    ``<<`` brings may."""
    seen: set[str] = set()
    for key, _ in mapping.value:
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        name = key.value if isinstance(key, yaml.ScalarNode) else "…"
        where = f"{place}.{name}" if place else name
        if key.tag != "tag:yaml.org,2002:str":
            problem = f"the key {where} is no text; put it in quotes"
            raise RefusedYamlError(problem=problem, problem_mark=key.start_mark)
        if name in seen:
            problem = f"the key {where} stands twice; leave one of the two out"
            raise RefusedYamlError(problem=problem, problem_mark=key.start_mark)
        seen.add(name)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_yaml(text: str) -> Any:
    """The value that YAML spells. Raises :class:`yaml.YAMLError`."""
    return yaml.load(text, Loader=_Loader)


def _reason(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or "it does not parse")


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
    except UnicodeDecodeError as error:
        place = f"byte 0x{error.object[error.start]:02x} at position {error.start}"
        raise PreferoError(f"the recipe {path} is not UTF-8 ({place}); save it as UTF-8") from None
    except OSError as error:
        raise PreferoError(f"the recipe {path} cannot be read: {error.strerror}") from None
    try:
        recipe = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        kind = "" if isinstance(error, RefusedYamlError) else "not valid YAML: "
        raise PreferoError(f"{where}: {kind}{_reason(error)}") from None
    if not isinstance(recipe, dict):
        raise PreferoError(f"{path}: a recipe is a mapping of sections, such as 'model: …' and 'data: …'")
    return recipe


def parse_override(argument: str) -> tuple[str, Any]:
    """The dotted key and the value, read as YAML, of ``key=value``, or :class:`PreferoError`."""
    key, equals, text = argument.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise PreferoError(f"{argument!r} is not key=value, such as objective.beta=0.1")
    try:
        return key.strip(), load_yaml(text)
    except RefusedYamlError as error:
        raise PreferoError(f"{key.strip()}: {_reason(error)}") from None
    except yaml.YAMLError:
        return key.strip(), text


def current_overrides(
    settings: Iterable[tuple[str, Any]], tell: Callable[[str], object]
) -> list[tuple[str, Any]]:
    """Dotted keys and values, those of ``training`` under their current names; ``tell`` reports old ones."""
    others: list[tuple[str, Any]] = []
    training: dict[str, Any] = {}
    for old, value in settings:
        key = OLD_PLACES.get(old, old)
        if key != old:
            tell(f"a setting has another place now, and is read at the old one until 0.3: {old} is {key}")
        section, _, name = key.partition(".")
        if section != "training" or not name:
            others.append((key, value))
        elif name.startswith("arguments."):
            training.setdefault("arguments", {})[name.removeprefix("arguments.")] = value
        else:
            training[name] = value
    current = current_names(training, tell, "training.")
    return others + [(f"training.{name}", value) for name, value in current.items()]
