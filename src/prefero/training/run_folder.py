"""The files of a run that reports, monitors and people read: ``run.json`` and ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefero.errors import PreferoError
from prefero.objectives.registry import methods
from prefero.storage import append_line, read_lines, write_json, write_lines
from prefero.training.checkpoints import complete_checkpoints
from prefero.training.lock import FolderLock
from prefero.training.monitors import Monitors
from prefero.training.preparation import Prepared
from prefero.training.series import metric_names

SHOWN_ROWS = 3
"""Rows that ``run.json`` shows as they are trained."""

OWN_FILES = ("run.json", "metrics.jsonl", "monitors.jsonl", "samples.jsonl", "evaluation.json", "report.html")


def record_of(folder: Path) -> dict[str, Any]:
    """The ``run.json`` in a folder; empty where there is none that can be read."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def evaluation_of(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``evaluation.json``; none where there is no such file."""
    file = run / "evaluation.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["rows"] if file.is_file() else []
    return rows


def model_of(run: Path) -> Path | None:
    """The folder of the model that a run has saved: ``model`` in its folder, as recipes do, or the folder
    itself, where the trainer's ``save_model()`` writes it; None where there is none."""
    if (run / "model").is_dir():
        return run / "model"
    return run if record_of(run).get("saved") else None


def need_model(run: Path) -> Path:
    """As :func:`model_of`; raises :class:`PreferoError` where the run has saved no model."""
    model = model_of(run)
    if model is None:
        whole = complete_checkpoints(run)
        checkpoint = f". The model of its last checkpoint is in {whole[-1]}" if whole else ""
        reason = "trainer.save_model() was not called after it" if ended(run) else "the run has not finished"
        raise PreferoError(f"{run} holds no model: {reason}{checkpoint}")
    return model


def ended(run: Path) -> bool:
    """Whether the training of a run came to its end, the last step or an earlier one where it was to stop."""
    return bool(record_of(run).get("finished"))


def refuse_other_run(folder: Path) -> None:
    """Raise :class:`PreferoError` if ``folder`` holds a run, or files that a run would replace."""
    refuse_files_of_others(folder)
    if (folder / "run.json").is_file():
        raise PreferoError(
            f"{folder} holds another run: name another output folder, resume that run with "
            "training.resume_from_checkpoint=true, or replace it with training.overwrite=true"
        )


def refuse_files_of_others(folder: Path) -> None:
    """Raise :class:`PreferoError` if ``folder`` holds a comparison, or files under the names that runs give
    theirs, but no run."""
    if (folder / "comparison.json").is_file():
        raise PreferoError(f"{folder} holds a comparison of runs: name another output folder")
    if "prefero" in record_of(folder):
        return
    there = [name for name in OWN_FILES if (folder / name).exists()]
    there += [
        inner.name for inner in (folder / "model", *sorted(folder.glob("checkpoint-*"))) if inner.is_dir()
    ]
    if there:
        raise PreferoError(
            f"{folder} holds {', '.join(there[:5])}, which a run would replace, and no run of prefero wrote: "
            "its run.json is missing. Name another output folder, or move these"
        )


def refuse_finished_run(folder: Path) -> None:
    """Raise :class:`PreferoError` if ``folder`` holds a run that is finished."""
    if record_of(folder).get("finished"):
        refuse_other_run(folder)


def clear(folder: Path) -> None:
    """Remove what runs write: their files, the model and all checkpoints, and the files of a model that was
    saved beside them. Nothing else in the folder is touched."""
    saved = [name for name in record_of(folder).get("saved", ()) if Path(name).name == name]
    for name in (*OWN_FILES, *saved):
        (folder / name).unlink(missing_ok=True)
    for inner in (folder / "model", *folder.glob("checkpoint-*")):
        if inner.is_dir():
            shutil.rmtree(inner)


def described(prepared: Prepared, config: Mapping[str, Any], sampling: str) -> dict[str, Any]:
    """The part of ``run.json`` that is known before training: method, settings, data, model and machine.
    ``sampling`` says how samples are drawn."""
    method = methods().get(prepared.objective.key or "")
    held_out = {name: data.summary.as_dict() for name, data in prepared.held_out.items()}
    preview = None if prepared.train is None else prepared.kind.preview(prepared.train, SHOWN_ROWS)
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "method": {
            "key": prepared.method,
            "title": method.title if method else "",
            "arguments": dict(prepared.objective.arguments),
            "paper": method.paper if method else "",
            "citation": method.citation if method else "",
            "equation": method.equation if method else "",
        },
        "learning_rate": prepared.args.learning_rate,
        "config": dict(config),
        "date": None if prepared.writing.date is None else prepared.writing.date.isoformat(),
        "data": {
            "train": prepared.train.summary.as_dict() if prepared.train is not None else None,
            "eval": held_out[""] if list(held_out) == [""] else held_out or None,
        },
        "first_rows": preview.in_texts() if preview is not None else [],
        "template": preview.template if preview is not None else None,
        "template_name": getattr(prepared.kind, "writing", prepared.writing).template,
        "template_saved": prepared.kind.saved_template is not None,
        "notes_on_prompts": prepared.kind.notes_on_prompts(),
        "model": {
            "name": prepared.kind.model_name,
            "kind": prepared.kind.name,
            "class": type(prepared.policy).__name__,
            "parameters": sum(weight.numel() for weight in prepared.policy.parameters()),
            "trained": sum(w.numel() for w in prepared.policy.parameters() if w.requires_grad),
            "adapters": prepared.adapters,
            "new_tokens": dict(getattr(getattr(prepared.kind, "source", None), "new_tokens", {})),
        },
        "references": dict(prepared.served),
        "sampling": sampling,
        "layout": prepared.packing,
        "machine": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "devices": gpus or ["cpu"],
            "threads": torch.get_num_threads(),
            "processes": prepared.args.world_size,
        },
    }


@dataclass(eq=False)
class RunFolder(TrainerCallback):
    """Keeps ``run.json`` and ``metrics.jsonl`` during a run; the main process writes.

    ``description`` is what ``run.json`` says besides ``created``, ``finished`` and ``seconds``: those from
    the first step on, held-out evaluations included, without samples before and after. A run that is resumed
    loses the lines after its checkpoint, its seconds add up, and ``changes`` lists the settings that are
    other ones from a step on. ``reason`` says why training ends before its last step; it is None where a
    signal interrupts it, which leaves the run unfinished.
    """

    folder: Path
    description: Mapping[str, Any]
    reason: Callable[[], str | None] = lambda: None
    content: dict[str, Any] = field(default_factory=dict)
    began: float = 0.0
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings that are other ones than before the checkpoint that is resumed from."""
    lock: FolderLock = field(init=False)

    def __post_init__(self) -> None:
        self.lock = FolderLock(self.folder)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        earlier = record_of(self.folder) if state.global_step else {}
        self.content = {
            "prefero": version("prefero"),
            "created": earlier.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
            **self.description,
            "finished": False,
            "seconds": earlier.get("seconds", 0.0),
        }
        past = [each for each in earlier.get("changes", []) if each["step"] < state.global_step]
        now = [{"step": state.global_step, "settings": dict(self.changes)}] if self.changes else []
        if past or now:
            self.content["changes"] = past + now
        if earlier.get("saved"):
            self.content["saved"] = earlier["saved"]
        metrics = self.folder / "metrics.jsonl"
        lines = read_lines(metrics) if state.global_step else ()
        write_lines(metrics, [one for one in lines if one.get("step", math.inf) <= state.global_step])
        write_json(self.folder / "run.json", self.content)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.began = self.began or time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.lock.lost:
            gone = self.lock.file if self.folder.is_dir() else self.folder
            raise PreferoError(
                f"stopped at step {state.global_step} of {state.max_steps}: {gone} was removed while the run "
                "was going, and what it writes would be lost. Start it again"
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs or not self.content or "train_runtime" in logs:
            return
        progress = state.global_step / max(state.max_steps, 1)
        record = {"step": state.global_step, "epoch": state.epoch, "progress": progress, **metric_names(logs)}
        append_line(self.folder / "metrics.jsonl", record)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero and self.content:
            now = time.monotonic()
            self.content["seconds"] = round(self.content["seconds"] + now - (self.began or now), 3)
            self.content["finished"] = state.global_step >= state.max_steps
            self.began = now
            write_json(self.folder / "run.json", self.content)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            named = str(args.metric_for_best_model).removeprefix("eval_")
            self.content["best"] = {
                "step": state.best_global_step, "metric": named, "value": state.best_metric,
            }  # fmt: skip
        self.on_save(args, state, control)
        reason = self.reason() if state.global_step < state.max_steps else None
        if reason is not None and state.is_world_process_zero and self.content:
            note = {"step": state.global_step, "max_steps": state.max_steps, "reason": reason}
            self.content |= {"finished": True, "stopped": note}
            write_json(self.folder / "run.json", self.content)

    def note_saved(self, names: Iterable[str]) -> None:
        """Note the files of a model that was saved in the folder itself, so that it is found there, and goes
        with the run."""
        if self.content:
            self.content["saved"] = sorted({*self.content.get("saved", ()), *names})
            write_json(self.folder / "run.json", self.content)


@dataclass(eq=False)
class MonitorCallback(TrainerCallback):
    """Watches what the trainer logs, writes ``monitors.jsonl``, and prints one line when a monitor fires.

    Each monitor fires at most once in a run, also across a resume: what an earlier part of the run logged and
    found is read back from ``folder``; lines past the checkpoint that is resumed from are dropped. Only the
    main process watches.
    """

    folder: Path
    monitors: Monitors = field(default_factory=Monitors)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.monitors = Monitors(methods=methods())
        if not state.is_world_process_zero:
            return
        before = state.global_step or -1  # a run that starts at 0 has no past, whatever lies there
        metrics, findings = (
            [one for one in read_lines(self.folder / name) if one.get("step", math.inf) <= before]
            for name in ("metrics.jsonl", "monitors.jsonl")
        )
        for record in metrics:
            self.monitors.history.record(record)
        self.monitors.fired.update(str(finding["monitor"]) for finding in findings)
        write_lines(self.folder / "monitors.jsonl", findings)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        for finding in self.monitors.observe({"step": state.global_step, **metric_names(logs)}):
            append_line(self.folder / "monitors.jsonl", finding.as_dict())
            helps = f" Methods that address it: {', '.join(finding.remedies)}." if finding.remedies else ""
            print(f"step {finding.step}: {finding.title}. {finding.message}{helps}", file=sys.stderr)
