"""The progress of training: a bar on a terminal, one line for each log elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers.trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from prefero.training.series import EVAL, metric_names

SHOWN = {"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}


class RichProgress(TrainerCallback):
    """Shows the steps done, the time left and the latest loss, accuracy and margin, on the main process."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[latest]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task: TaskID | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.bar.start()
        self.task = self.bar.add_task(
            run_name(args), total=state.max_steps, completed=state.global_step, latest=""
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.task is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        latest = in_words(metric_names(logs or {}))
        if not latest:
            return
        if self.task is not None:
            self.bar.update(self.task, latest=latest)
        if not self.console.is_terminal:
            name = run_name(args)
            self.console.print(
                f"{name}, step {state.global_step} of {state.max_steps}: {latest}", soft_wrap=True
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        self.bar.stop()


def run_name(args: TrainingArguments) -> str:
    return Path(args.output_dir or ".").resolve().name


def in_words(metrics: Mapping[str, Any]) -> str:
    """The few numbers of a log that are shown while training runs."""
    prefix = EVAL if any(name.startswith(EVAL) for name in metrics) else ""
    told = [
        f"{word} {metrics[prefix + name]:.4g}"
        for name, word in SHOWN.items()
        if isinstance(metrics.get(prefix + name), int | float)
    ]
    return ("held out: " if prefix and told else "") + ", ".join(told)


@contextmanager
def training_progress(console: Console) -> Iterator[None]:
    """Show the progress of trainers on ``console`` instead of in the bars of transformers."""
    progress = RichProgress(console)
    before = transformers.trainer.DEFAULT_PROGRESS_CALLBACK
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    transformers.trainer.DEFAULT_PROGRESS_CALLBACK = progress  # type: ignore[assignment]
    try:
        yield
    finally:
        transformers.trainer.DEFAULT_PROGRESS_CALLBACK = before
        if bars:
            logging.enable_progress_bar()
        progress.close()
