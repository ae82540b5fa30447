"""The files of a run that reports, monitors and people read: ``run.json`` and ``metrics.jsonl``."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefero import storage as records
from prefero.errors import PreferoError
from prefero.models.kind import Dataset
from prefero.objectives.registry import methods
from prefero.training.ingredients import HeldOut, Ingredients
from prefero.training.monitors import metric_names

OWN_FILES = ("run.json", "metrics.jsonl", "monitors.jsonl", "samples.jsonl", "evaluation.json", "report.html")


def refuse_other_run(folder: Path) -> None:
    """Raise :class:`PreferoError` if ``folder`` holds a run."""
    if (folder / "run.json").is_file():
        raise PreferoError(
            f"{folder} holds another run: name another output folder, continue that run with "
            "training.resume=true, or replace it with training.overwrite=true"
        )


def refuse_finished_run(folder: Path) -> None:
    """Raise :class:`PreferoError` if ``folder`` holds a run that came to its end."""
    try:
        finished = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("finished")
    except (OSError, ValueError):
        return
    if finished:
        refuse_other_run(folder)


def clear(folder: Path) -> None:
    """Remove what runs write: their files, the model and all checkpoints. Nothing else in the folder is
    touched."""
    for name in OWN_FILES:
        (folder / name).unlink(missing_ok=True)
    for inner in (folder / "model", *folder.glob("checkpoint-*")):
        if inner.is_dir():
            shutil.rmtree(inner)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Written whole or not at all."""
    _write(file, json.dumps(records.finite(content), indent=2, ensure_ascii=False) + "\n")


def write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object a line; written whole or not at all."""
    _write(file, "".join(map(records.line, rows)))


def _write(file: Path, text: str) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, file)


def machine() -> dict[str, Any]:
    """Where a run was made, as far as its numbers and times depend on it."""
    cuda = torch.cuda.is_available()
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if cuda
        else ["cpu"],
        "threads": torch.get_num_threads(),
    }


def described(made: Ingredients, config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``run.json`` says of a run before it begins."""
    method = methods().get(made.objective.key or "")
    held_out = {name: data.summary.as_dict() for name, data in _named(made.eval).items()}
    return {
        "method": {
            "key": made.method,
            "title": method.title if method else "",
            "arguments": dict(made.objective.arguments),
            "paper": method.paper if method else "",
            "citation": method.citation if method else "",
            "equation": method.equation if method else "",
        },
        "config": dict(config),
        "data": {
            "train": made.train.summary.as_dict() if made.train is not None else None,
            "eval": held_out if isinstance(made.eval, dict) else held_out.get(""),
        },
        "model": {
            "name": made.kind.model_name,
            "kind": made.kind.name,
            "class": type(made.policy).__name__,
            "parameters": sum(weight.numel() for weight in made.policy.parameters()),
        },
        "layout": made.layout,
        "machine": {**machine(), "processes": made.args.world_size},
    }


def _named(held_out: HeldOut) -> dict[str, Dataset]:
    if held_out is None:
        return {}
    return held_out if isinstance(held_out, dict) else {"": held_out}


class RunFolder(TrainerCallback):
    """Keeps ``run.json`` and ``metrics.jsonl`` while a run goes on; the main process writes.

    ``description`` is what ``run.json`` says besides ``created``, ``finished`` and ``seconds``. A run that is
    resumed loses the lines behind its checkpoint, and its seconds add up.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder, self.description = folder, description
        self._content: dict[str, Any] = {}
        self._began = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        earlier = self._earlier() if state.global_step else {}
        self._content = {
            "prefero": version("prefero"),
            "created": earlier.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
            **self.description,
            "finished": False,
            "seconds": earlier.get("seconds", 0.0),
        }
        self._began = time.monotonic()
        self._keep_lines_until(state.global_step)
        write_json(self.folder / "run.json", self._content)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs or not self._content:
            return
        if "train_runtime" in logs:
            return
        progress = state.global_step / max(state.max_steps, 1)
        line = {"step": state.global_step, "epoch": state.epoch, "progress": progress, **metric_names(logs)}
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(records.line(line))

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._update(state, finished=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._update(state, finished=state.global_step >= state.max_steps)

    def _update(self, state: TrainerState, *, finished: bool) -> None:
        if state.is_world_process_zero and self._content:
            now = time.monotonic()
            self._content["seconds"] = round(self._content["seconds"] + now - self._began, 3)
            self._began = now
            self._content["finished"] = finished
            write_json(self.folder / "run.json", self._content)

    def _earlier(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _keep_lines_until(self, step: int) -> None:
        file = self.folder / "metrics.jsonl"
        kept = []
        for line in file.read_text(encoding="utf-8").splitlines() if step and file.is_file() else ():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                continue  # cut off when the run was killed
        draft = file.with_name(".metrics.jsonl")
        draft.write_text("".join(kept), encoding="utf-8")
        os.replace(draft, file)
