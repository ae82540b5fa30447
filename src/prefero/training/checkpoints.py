"""Checkpoints that are whole or do not count, and the identity that a run shares with one it resumes from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from prefero.errors import PreferoError
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config
from prefero.storage import finite, write_json

MARKER = "prefero.json"
"""Written last: a checkpoint without it was cut off."""


class Kept(Protocol):
    """A thing that changes during a run besides the policy, its optimizer and the objective."""

    def moved(self) -> Mapping[str, torch.Tensor]: ...

    def restore(self, kept: Mapping[str, torch.Tensor], /) -> None: ...


_FOLDER = re.compile(r"checkpoint-(\d+)")


def complete_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, the latest last."""
    whole = [
        inner
        for inner in folder.glob("checkpoint-*")
        if _FOLDER.fullmatch(inner.name) and (inner / MARKER).is_file()
    ]
    return sorted(whole, key=lambda inner: int(inner.name.removeprefix("checkpoint-")))


def to_resume_from(folder: Path, resume: bool | str | Path | None) -> Path | None:
    """The checkpoint to resume from; None is the start.

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
            f"{folder} has no whole checkpoint to resume from; training.resume_from_checkpoint=auto starts "
            "again where there is none"
        )
    checkpoint = Path(resume)
    if not checkpoint.is_dir():
        raise PreferoError(f"there is no checkpoint {checkpoint}")
    if not (checkpoint / MARKER).is_file():
        raise PreferoError(
            f"{checkpoint} is no whole checkpoint of prefero: it lacks {MARKER}, which is written last. "
            "training.resume_from_checkpoint=true takes the latest that is whole"
        )
    return checkpoint


def mark_complete(checkpoint: Path, step: int, identity: Mapping[str, Any]) -> None:
    """Write the marker, once everything else of the checkpoint is on the disk."""
    for file in checkpoint.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    write_json(checkpoint / MARKER, {"step": step, "identity": identity}, sync=True)


HASHED = {"data": "the rows, or how they become tokens", "references": "the weights of a reference"}
"""Parts of an identity that are hashes, and what they are of."""


def refuse_other_identity(checkpoint: Path, identity: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise :class:`PreferoError` naming what differs between the checkpoint's run and this one, and which of
    this one's ``settings`` are other ones than the run folder has."""
    saved = finite(json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))["identity"])
    now = json.loads(json.dumps(finite(identity)))
    differing = [name for name in now if saved.get(name) != now[name]]
    if differing:
        told = [
            f"{name}: {HASHED[name]}"
            if name in HASHED
            else f"{name}: {saved.get(name)} then, {now[name]} now"
            for name in differing
        ]
        told += _changed(checkpoint.parent / "run.json", settings)
        raise PreferoError(
            f"{checkpoint} cannot be resumed: this run differs from its in {', '.join(differing)} "
            f"({'; '.join(told)}). Restore the settings, or start a new run with the checkpoint as its model"
        )


MAY_CHANGE = ("output", "training.resume_from_checkpoint", "training.overwrite", "output_dir")
"""Settings that may be other ones when a run is resumed."""


def _changed(record: Path, settings: Mapping[str, Any]) -> list[str]:
    """The settings that are other ones than those of the run in ``record``, in words."""
    try:
        before = dict(_leaves(json.loads(record.read_text(encoding="utf-8"))["config"]))
    except (OSError, ValueError, KeyError):
        return []
    now = dict(_leaves(json.loads(json.dumps(finite(settings), default=str))))
    return [
        f"{name} was {before.get(name)}, and is {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and name not in MAY_CHANGE
    ]


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested settings under dotted names."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def load_kept(checkpoint: Path, kept: Mapping[str, Kept]) -> None:
    """Restore the things that change besides the policy, each from a file of its name.

    Raises :class:`PreferoError` where the checkpoint's run had no such thing.
    """
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
    """Write the method with its arguments, and its weights and buffers; nothing if it has none of these."""
    # a head that two terms share has two names, and safetensors writes no memory twice
    state = {
        name: value.detach().cpu().clone().contiguous() for name, value in objective.state_dict().items()
    }
    if state:
        save_file(state, Path(folder) / STATE)
        config = None if objective.key is None else {"method": objective.key, **objective.arguments}
        (Path(folder) / _CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")


def load_objective(folder: str | Path, objective: Objective | None = None) -> Objective:
    """The objective that a run left beside its policy, in evaluation mode, with everything that it learned.

    With its policy it scores responses: :func:`prefero.evaluate.judges.rewards`. ``objective`` is needed
    where the run was given an objective instead of a method's name; it takes the weights and is
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


def load_state(objective: nn.Module, folder: Path) -> None:
    """Load the weights and buffers that :func:`save_objective` wrote. Buffers that grow and weights that are
    yet to be made take the shape that was saved."""
    state = load_file(folder / STATE) if (folder / STATE).is_file() else {}
    for name, value in state.items():
        owner_name, _, attribute = name.rpartition(".")
        owner = objective.get_submodule(owner_name)
        current = getattr(owner, attribute)
        if current is None:
            setattr(owner, attribute, nn.Parameter(value))
        elif isinstance(current, nn.Parameter):
            current.data.copy_(value)
        else:
            setattr(owner, attribute, value.to(current.device, current.dtype))
