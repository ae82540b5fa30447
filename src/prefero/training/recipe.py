"""The recipe that a trainer made in Python stands for, as far as what it was given has names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from prefero.models.loading import ModelSource
from prefero.objectives.compare import Objective
from prefero.sections import Spec
from prefero.storage import finite
from prefero.training.preparation import Prepared, Reference
from prefero.training.vocabulary import RECIPE_PLACES


def recipe_of(
    prepared: Prepared, model: Any, train: Any, held_out: Any, others: Mapping[str, Reference]
) -> dict[str, Any]:
    """The sections of a recipe by which a run is found and read again. What was given as an object is left
    out: the model, data, or one of the ``others``, the models beside the policy."""
    specs = {
        name: None if isinstance(others.get(name), nn.Module) else _plain(spec)
        for name, spec in prepared.specs.items()
    }
    sections = {
        "model": _plain(ModelSource(model) if isinstance(model, str) else model),
        "data": _names(train, held_out),
        "objective": _configuration(prepared.objective),
        "reference": specs.pop("reference", None),
        "models": specs,
    }
    recipe = {name: section for name, section in sections.items() if section is not None}
    for name, value in prepared.args.to_dict().items():
        section, _, key = RECIPE_PLACES.get(name, f"training.{name}").rpartition(".")
        if section:
            recipe[section] = {**recipe.get(section, {}), key: value}
        else:
            recipe[key] = value
    return recipe


def _plain(source: Any) -> dict[str, Any] | None:
    """A section of a recipe that is a dataclass, as JSON has it; None for anything else."""
    return finite(asdict(source)) if isinstance(source, Spec) else None  # type: ignore[call-overload]


def _names(train: Any, held_out: Any) -> dict[str, Any] | None:
    """The names of files, folders and hub data sets among the data that were given."""
    given = {"train": train, "eval": held_out}
    return {name: str(data) for name, data in given.items() if isinstance(data, str | Path)} or None


def _configuration(objective: Objective) -> dict[str, Any] | None:
    """The configuration that gives an objective back; None for one of the user's own making."""
    configured = {"method": objective.key, **objective.arguments}
    try:
        return None if objective.key is None else json.loads(json.dumps(configured))
    except (TypeError, ValueError):  # an argument that is an object
        return None
