"""What an objective has learned, on disk beside the policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from prefero.errors import PreferoError
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config

STATE = "objective.safetensors"
_CONFIG = "objective.json"


def save_objective(objective: Objective, folder: str | Path) -> None:
    """Write the method with its arguments, and what it has learned or counted; nothing if it has neither."""
    folder = Path(folder)
    if save_state(objective, folder):
        config = None if objective.key is None else {"method": objective.key, **objective.arguments}
        (folder / _CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")


def load_objective(folder: str | Path, objective: Objective | None = None) -> Objective:
    """The objective that a run left beside its policy, in evaluation mode, with everything that it learned.

    With its policy it scores responses: :func:`prefero.inference.rewards.rewards`. ``objective`` is needed
    where the run was given an objective of one's own instead of a method's name; it takes the weights and is
    returned.

    Raises:
        PreferoError: the folder holds none, or one that no configuration describes, or another one than
            ``objective``.
    """
    folder = Path(folder)
    if not (folder / _CONFIG).is_file():
        raise PreferoError(
            f"{folder} holds no objective: a run leaves {_CONFIG} beside its policy if its objective learns"
        )
    if objective is None:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        if config is None:
            raise PreferoError(
                f"the objective in {folder} was not built by a method's name: give the one that takes its "
                f"weights, load_objective({str(folder)!r}, objective)"
            )
        objective = from_config(config)
    try:
        load_state(objective, folder)
    except AttributeError as error:
        raise PreferoError(
            f"the objective in {folder} is made of other parts than the one given: {error}"
        ) from None
    return objective.eval()


def save_state(objective: nn.Module, folder: Path) -> bool:
    """Write weights and buffers; returns whether there are any."""
    # a head that two terms share has two names, and safetensors writes no memory twice
    state = {
        name: value.detach().cpu().clone().contiguous() for name, value in objective.state_dict().items()
    }
    if state:
        save_file(state, folder / STATE)
    return bool(state)


def load_state(objective: nn.Module, folder: Path) -> None:
    """What :func:`save_state` wrote. Buffers that grow and weights that are yet to be made have the shape
    that was saved."""
    if (folder / STATE).is_file():
        _load(objective, load_file(folder / STATE))


def _load(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    for name, value in state.items():
        owner_name, _, attribute = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        current = getattr(owner, attribute)
        if current is None:
            setattr(owner, attribute, nn.Parameter(value))
        elif isinstance(current, nn.Parameter):
            current.data.copy_(value)
        else:
            setattr(owner, attribute, value.to(current.device, current.dtype))
