"""Checkpoints that are whole or do not count, and what a run has to share with one to go on from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from prefero.data.cells import TokenExample
from prefero.data.tokenize import TokenDataset
from prefero.errors import PreferoError
from prefero.reference.providers import Moving
from prefero.training.plan import StepPlan

MARKER = "prefero.json"
"""Written last: a checkpoint without it was cut off."""

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
    data: TokenDataset, plan: StepPlan, objective: nn.Module, references: Mapping[str, str]
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
    }


def data_fingerprint(data: TokenDataset) -> str:
    """A hash of every token and annotation, in their order."""
    digest = hashlib.sha256(repr(data.roles).encode())
    for example in data:
        _digest_example(digest, example)
    return digest.hexdigest()[:32]


def _digest_example(digest: Any, example: TokenExample) -> None:
    for view, cells in {"": example.cells, **example.views}.items():
        digest.update(view.encode())
        for cell in cells:
            for array in (cell.context, cell.response, cell.scored):
                digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
                digest.update(b"|")
    for name in sorted(example.columns):
        values = example.columns[name]
        digest.update(f"{name}=".encode())
        for value in values if isinstance(values, tuple) else (values,):
            digest.update(np.asarray(value).tobytes() + b"|")


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


def save_moving(checkpoint: Path, moving: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    """The references that move, in full."""
    for name, weights in moving.items():
        save_file(
            {key: value.cpu().contiguous() for key, value in weights.items()}, _moving(checkpoint, name)
        )


def load_moving(checkpoint: Path, moving: Mapping[str, Moving]) -> None:
    """What :func:`save_moving` wrote."""
    for name, reference in moving.items():
        reference.restore(load_file(_moving(checkpoint, name)))


def _moving(checkpoint: Path, name: str) -> Path:
    return checkpoint / f"moving-{name}.safetensors"
