"""The monitors as a callback of :class:`transformers.Trainer`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefero.diagnostics.monitors import Finding, Monitors
from prefero.diagnostics.records import line, read_lines
from prefero.diagnostics.series import EVAL


class MonitorCallback(TrainerCallback):
    """Watches what the trainer logs, writes ``monitors.jsonl``, and prints one line when a monitor fires.

    Each monitor fires at most once in a run, also across a resume: what an earlier part of the run logged and
    found is read back from ``output_dir``; lines past the checkpoint that is resumed from are dropped.
    Only the main process watches.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.folder = Path(output_dir)
        self.monitors = Monitors()

    @property
    def file(self) -> Path:
        return self.folder / "monitors.jsonl"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        from prefero.objectives import methods

        self.monitors = Monitors(methods=methods())
        if not state.is_world_process_zero:
            return
        before = state.global_step or -1  # a run that starts afresh has no past, whatever lies there
        for metrics in _until(self.folder / "metrics.jsonl", before):
            self.monitors.history.record(metrics)
        findings = list(_until(self.file, before))
        self.monitors.fired.update(str(finding["monitor"]) for finding in findings)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text("".join(line(finding) for finding in findings), encoding="utf-8")

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
            self._report(finding)

    def _report(self, finding: Finding) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(line(finding.as_dict()))
        helps = f" Methods that address it: {', '.join(finding.remedies)}." if finding.remedies else ""
        print(f"step {finding.step}: {finding.title}. {finding.message}{helps}", file=sys.stderr)


def metric_names(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's ``eval_x`` under the name that run folders use, ``eval/x``."""
    return {
        EVAL + name.removeprefix("eval_") if name.startswith("eval_") else name: logs[name] for name in logs
    }


def _until(file: Path, step: int) -> Iterator[dict[str, Any]]:
    """The lines that were written up to an optimizer step."""
    return (record for record in read_lines(file) if record.get("step", math.inf) <= step)
