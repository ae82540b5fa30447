"""Checkpoints that are whole or do not count, and the identity that a run shares with one it resumes from."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from prefero.errors import PreferoError
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config
from prefero.storage import finite, write_json, write_text
from prefero.training.config import PreferenceArguments
from prefero.training.identity import UNRECORDED, differences, must_stay, settings_of

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


def last_whole(folder: Path, then: str) -> str:
    """The last whole checkpoint in words, and what to do with it."""
    complete = complete_checkpoints(folder)
    if not complete:
        return f"{folder} has no whole checkpoint"
    return f"The last whole checkpoint is {complete[-1]}: {then.format(checkpoint=complete[-1])}"


def mark_complete(
    checkpoint: Path, step: int, identity: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Write the marker, once everything else of the checkpoint is on the disk: what a run that resumes from
    it has to share, and the SHA-256 of every file, which are hashed side by side."""
    with ThreadPoolExecutor() as pool:
        files = dict(pool.map(partial(_on_disk, checkpoint), _files(checkpoint)))
    marker = {"step": step, "identity": identity, "settings": settings, "files": files}
    write_json(checkpoint / MARKER, marker, sync=True)


def _files(checkpoint: Path) -> list[str]:
    found = (file.relative_to(checkpoint).as_posix() for file in checkpoint.rglob("*") if file.is_file())
    return sorted(name for name in found if name != MARKER)


def _on_disk(checkpoint: Path, name: str) -> tuple[str, str]:
    """A file's name and its SHA-256, after it is on the disk."""
    with (checkpoint / name).open("rb") as handle:
        os.fsync(handle.fileno())
        return name, hashlib.file_digest(handle, "sha256").hexdigest()


def read_marker(checkpoint: Path) -> dict[str, Any]:
    """Read what a checkpoint says of itself. Raises :class:`PreferoError` for a damaged marker."""
    try:
        marker: dict[str, Any] = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        return {"step": int(marker["step"]), "identity": dict(marker["identity"]), **marker}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreferoError(_damaged(checkpoint, f"{MARKER} cannot be read ({error})")) from None


def undamaged(checkpoint: Path, *, or_earlier: bool) -> Path:
    """This checkpoint, once every file of it is found as it was written. ``or_earlier`` takes the latest one
    before it that is undamaged, and says so.

    Raises :class:`PreferoError` naming the files that are missing or changed.
    """
    earlier = [each for each in complete_checkpoints(checkpoint.parent) if each != checkpoint]
    step = int(checkpoint.name.rpartition("-")[2]) if _FOLDER.fullmatch(checkpoint.name) else 0
    damage = _damage(checkpoint)
    if damage and or_earlier:
        for each in reversed(earlier):
            if int(each.name.rpartition("-")[2]) < step and not _damage(each):
                print(f"{_damaged(checkpoint, damage)}; {each.name} is taken instead", file=sys.stderr)
                return each
    if damage:
        raise PreferoError(
            f"{_damaged(checkpoint, damage)}. training.resume_from_checkpoint=auto takes the last checkpoint "
            "that is not"
        )
    return checkpoint


def _damage(checkpoint: Path) -> str:
    """The files of a checkpoint that are not as they were written, in words; nothing if all are."""
    files = read_marker(checkpoint).get("files")
    if files is None:
        print(f"{checkpoint} is of an earlier version: its files cannot be verified", file=sys.stderr)
        return ""
    there = [name for name in files if (checkpoint / name).is_file()]
    with ThreadPoolExecutor() as pool:
        now = dict(pool.map(partial(_on_disk, checkpoint), there))
    told = [f"{name} is missing" for name in files if name not in now]
    told += [f"{name} has changed since it was written" for name in there if now[name] != files[name]]
    return ", ".join(told)


def _damaged(checkpoint: Path, damage: str) -> str:
    return f"the checkpoint {checkpoint} is damaged: {damage}"


def rotate(folder: Path, step: int, keep: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints up to ``step``, so that ``keep`` are left; that of ``step`` and the best
    one stay. Their order is that of their steps: clocks may be set back."""
    numbered = {
        int(inner.name.rpartition("-")[2]): inner
        for inner in folder.glob("checkpoint-*")
        if _FOLDER.fullmatch(inner.name)
    }
    held = [numbered[number] for number in sorted(numbered) if number <= step]
    kept = {numbered.get(step), None if best is None else Path(best)}
    spare = [checkpoint for checkpoint in held if checkpoint not in kept]
    surplus = 0 if keep is None else len(held) - max(keep, len(held) - len(spare))
    for checkpoint in spare[: max(surplus, 0)]:
        shutil.rmtree(checkpoint, ignore_errors=True)


WORDS = {
    "data": "data: the rows, or how they become tokens, are other ones",
    "model": "model: the weights that the run started from are other ones",
    "references": "reference: it has other weights",
}
"""Differences in parts of an identity that are hashes."""

_TOLD_WITH = {"data": ("data.",), "model": ("model.",), "references": ("reference.", "models.")}
"""The settings that are told with these."""


def refuse_other_run(checkpoint: Path, settings: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise :class:`PreferoError` for everything in which a run differs from that of the checkpoint, and may
    not: its ``settings`` by name (:func:`~prefero.training.identity.must_stay`), and ``identity``, those
    parts of what it is made of that are known."""
    marker = read_marker(checkpoint)
    differ = differences(marker.get("settings", {}), settings)
    told = [_was(name, *values) for name, values in differ.items() if must_stay(name)]
    saved, now = marker["identity"], json.loads(json.dumps(finite(identity), default=str))
    for name in now:
        if name not in saved or saved[name] == now[name]:  # a part that earlier versions did not keep
            continue
        if name in WORDS:
            near = [
                _was(one, *values)
                for one, values in differ.items()
                if one.startswith(_TOLD_WITH[name]) and not must_stay(one)
            ]
            told.append(WORDS[name] + (f" ({'; '.join(near)})" if near else ""))
        elif saved[name] and now[name] and isinstance(now[name], dict):
            keys = [key for key in {**saved[name], **now[name]} if saved[name].get(key) != now[name].get(key)]
            told += [_was(f"{name}.{key}", saved[name].get(key), now[name].get(key)) for key in keys]
        else:
            told.append(_was(name, saved[name], now[name]))
    if told:
        raise PreferoError(
            f"{checkpoint} cannot be resumed, because this is another run: {'; '.join(told)}. What decides "
            "the result, and how samples are drawn, stays when a run is resumed: restore it, or start a new "
            f"run in another folder from model.name={checkpoint}. The length may change "
            "(training.max_steps, training.num_train_epochs), and what is logged, evaluated and saved"
        )


def comparison(
    args: PreferenceArguments, recipe: Mapping[str, Any] | None
) -> Callable[[Mapping[str, Any]], None] | None:
    """A function that takes parts of the identity as soon as they are known, and raises as
    :func:`refuse_other_run` does; None if no checkpoint is to be resumed from. Settings are compared now."""
    checkpoint = to_resume_from(Path(args.output_dir or "."), args.resume_from_checkpoint)
    if checkpoint is None:
        return None
    if args.max_steps > 0:
        refuse_shorter_run(checkpoint, read_marker(checkpoint)["step"], args.max_steps)
    compare = partial(refuse_other_run, checkpoint, settings_of(args, recipe))
    compare({})
    return compare


def refuse_shorter_run(checkpoint: Path, step: int, last: int) -> None:
    """Raise :class:`PreferoError` for a checkpoint of a ``step`` past the ``last`` one of the run."""
    if step > last:
        raise PreferoError(
            f"{checkpoint} is of step {step}, and this run ends at step {last}: raise training.max_steps (or "
            "training.num_train_epochs), or resume from an earlier checkpoint"
        )


def changes(checkpoint: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings that are other ones from this checkpoint on, and rightly so: what each was, and is."""
    differ = differences(read_marker(checkpoint).get("settings", {}), settings)
    return {
        name: {"was": was, "is": now}
        for name, (was, now) in differ.items()
        if name not in UNRECORDED and not must_stay(name)
    }


def _was(name: str, before: Any, now: Any) -> str:
    return f"{name} was {shown(before)}, and is {shown(now)}"


def shown(value: Any) -> str:
    """A value as a recipe has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


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


_UNLOGGED = "unlogged.json"
"""The sums of each process over the steps since the last log."""


def save_unlogged(checkpoint: Path, states: Sequence[Mapping[str, Any]]) -> None:
    """Write what each process has counted since the last log, so that the next one covers it."""
    write_text(checkpoint / _UNLOGGED, json.dumps(states) + "\n")  # NaN and infinities, too


def unlogged(checkpoint: Path, process: int) -> Mapping[str, Any]:
    """Read what a process had counted since the last log; empty in checkpoints of earlier versions."""
    file = checkpoint / _UNLOGGED
    state: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))[process] if file.is_file() else {}
    return state


STATE = "objective.safetensors"
CONFIG = "objective.json"
"""The files of an objective that learns, beside its policy."""


def save_objective(objective: Objective, folder: str | Path) -> None:
    """Write the method with its arguments, and its weights and buffers; nothing if it has none of these."""
    # a head that two terms share has two names, and safetensors writes no memory twice
    state = {
        name: value.detach().cpu().clone().contiguous() for name, value in objective.state_dict().items()
    }
    if state:
        save_file(state, Path(folder) / STATE)
        config = None if objective.key is None else {"method": objective.key, **objective.arguments}
        (Path(folder) / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")


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
    if not (folder / CONFIG).is_file():
        raise PreferoError(
            f"{folder} holds no objective: a run leaves {CONFIG} beside its policy if its objective learns"
        )
    if objective is None:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
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
