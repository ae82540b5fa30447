"""The papers of the survey: every module in the folder of an area."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import prefero_lab.papers
from prefero.errors import PreferoError, nearest
from prefero_lab.papers.paper import Paper

EXPERIMENTS = "experiments"
"""The folder that is no area."""


@functools.cache
def papers() -> Mapping[str, Paper]:
    """All papers by key: area by area, in alphabetical order.

    Raises:
        PreferoError: two modules have one name.
    """
    found: dict[str, Paper] = {}
    for area in pkgutil.iter_modules(prefero_lab.papers.__path__):
        if not area.ispkg or area.name == EXPERIMENTS:
            continue
        package = importlib.import_module(f"prefero_lab.papers.{area.name}")
        for module in pkgutil.iter_modules(package.__path__):
            if module.name in found:
                other = found[module.name].area
                raise PreferoError(f"two papers are called {module.name}: in {other} and in {area.name}")
            paper = importlib.import_module(f"{package.__name__}.{module.name}").PAPER
            found[module.name] = replace(paper, key=module.name, area=area.name)
    return MappingProxyType(found)


def areas() -> list[str]:
    """The areas that have papers."""
    return list(dict.fromkeys(paper.area for paper in papers().values()))


def find(key: str) -> Paper:
    """The paper of that key, or of that number in the survey if it has one module.

    Raises:
        PreferoError: there is none; the message names the nearest.
    """
    if key in papers():
        return papers()[key]
    modules = numbered(key)
    if len(modules) == 1:
        return modules[0]
    if modules:
        raise PreferoError(f"{key} has several modules: {', '.join(paper.key for paper in modules)}")
    raise PreferoError(
        f"no paper is called {key!r}{nearest(key, papers())} (`prefero reproduce` lists all of them)"
    )


def numbered(number: str) -> list[Paper]:
    """The modules of one paper of the survey: more than one where its evidence comes from several worlds."""
    return [paper for paper in papers().values() if paper.id == number]


def chosen(keys: Sequence[str] = (), area: str | None = None, everything: bool = False) -> list[Paper]:
    """The papers that are asked for, each once. A number stands for all modules of that paper.

    Raises:
        PreferoError: a key or area that there is not.
    """
    if area is not None and area not in areas():
        raise PreferoError(
            f"no area is called {area!r}{nearest(area, areas())} (known: {', '.join(areas())})"
        )
    wanted = [one for key in keys for one in (numbered(key) or [find(key)])]
    wanted += [one for one in papers().values() if everything or one.area == area]
    return list({paper.key: paper for paper in wanted}.values())
