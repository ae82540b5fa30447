"""Checkpoints that are whole or do not count, and what a run has to share with one to go on from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from prefero.errors import PreferoError
from prefero.models.kind import Dataset
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config
from prefero.training.batches import StepPlan

MARKER = "prefero.json"
"""Written last: a checkpoint without it was cut off."""


class Kept(Protocol):
    """What changes during a run besides the policy, its optimizer and the objective."""

    def moved(self) -> Mapping[str, torch.Tensor]: ...

    def restore(self, kept: Mapping[str, torch.Tensor], /) -> None: ...


_FOLDER = re.compile(r"checkpoint-(\d+)")


def complete_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, the latest last."""
    found = [inner for inner in folder.glob("checkpoint-*") if _FOLDER.fullmatch(inner.name)]
    return sorted(
        (inner for inner in found if (inner / MARKER).is_file()),
        key=lambda inner: int(inner.name.removeprefix("checkpoint-")),
    )


def to_resume_from(folder: Path, resume: bool | str | Path) -> Path | None:
    """The checkpoint to go on from; None is the start.

    ``resume`` is True for the latest whole checkpoint, ``"auto"`` for that or the start if there is none, or
    the checkpoint's folder. Raises :class:`PreferoError` where there is none.
    """
    if resume is False or resume is None:
        return None
    if resume is True or resume == "auto":
        complete = complete_checkpoints(folder)
        if complete or resume == "auto":
            return complete[-1] if complete else None
        raise PreferoError(
            f"{folder} has no whole checkpoint to resume from; training.resume=auto starts anew where there "
            "is none"
        )
    checkpoint = Path(resume)
    if not checkpoint.is_dir():
        raise PreferoError(f"there is no checkpoint {checkpoint}")
    if not (checkpoint / MARKER).is_file():
        raise PreferoError(
            f"{checkpoint} is no whole checkpoint of prefero: it lacks {MARKER}, which is written last. "
            "training.resume=true takes the latest that is whole"
        )
    return checkpoint


def identity(
    data: Dataset,
    plan: StepPlan,
    objective: nn.Module,
    references: Mapping[str, str],
    rounds: list[float | None] | None = None,
) -> dict[str, Any]:
    """What two runs share exactly if one can go on where the other stopped."""
    return {
        "data": data_fingerprint(data),
        "seed": plan.seed,
        "examples per step": plan.examples_per_step,
        "rows": plan.rows,
        "processes": plan.world,
        "objective": {"method": getattr(objective, "key", None), **getattr(objective, "arguments", {})},
        "references": dict(references),
        "extrapolation": rounds,
    }


def data_fingerprint(data: Dataset) -> str:
    """A hash of everything that is scored and all annotations, in their order."""
    digest = hashlib.sha256(repr(data.roles).encode())
    for item in data:
        digest.update(item.fingerprint())
    return digest.hexdigest()[:32]


def mark_complete(checkpoint: Path, step: int, same: Mapping[str, Any]) -> None:
    """Everything of the checkpoint reaches the disk, and then the marker does."""
    for file in checkpoint.rglob("*"):
        if file.is_file():
            _sync(file)
    draft = checkpoint / f".{MARKER}"
    draft.write_text(json.dumps({"step": step, "identity": same}, indent=2, default=str), encoding="utf-8")
    _sync(draft)
    os.replace(draft, checkpoint / MARKER)


def _sync(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def refuse_other_identity(checkpoint: Path, same: Mapping[str, Any]) -> None:
    """Raise :class:`PreferoError` naming what differs between the checkpoint's run and this one."""
    saved = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))["identity"]
    now = json.loads(json.dumps(same, default=str))
    differing = [name for name in now if saved.get(name) != now[name]]
    if differing:
        told = "; ".join(f"{name}: {saved.get(name)} then, {now[name]} now" for name in differing)
        raise PreferoError(
            f"{checkpoint} cannot be resumed: this run differs from its in {', '.join(differing)} ({told}). "
            "Restore the settings, or start a new run with the checkpoint as its model"
        )


def save_kept(checkpoint: Path, kept: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    """What :class:`Kept` things are, in whole tensors, each in a file of its name."""
    for name, tensors in kept.items():
        whole = {key: value.cpu().contiguous() for key, value in tensors.items()}
        save_file(whole, checkpoint / f"{name}.safetensors")


def load_kept(checkpoint: Path, kept: Mapping[str, Kept]) -> None:
    """What :func:`save_kept` wrote. Raises :class:`PreferoError` where the checkpoint's run kept no such
    thing."""
    for name, one in kept.items():
        file = checkpoint / f"{name}.safetensors"
        if not file.is_file():
            raise PreferoError(
                f"{checkpoint} cannot be resumed: it has no {file.name}, so its run was without it. Restore "
                "the settings, or start a new run with the checkpoint as its model"
            )
        one.restore(load_file(file))


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
