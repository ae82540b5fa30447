"""What a run came to: held-out numbers with their intervals, and samples before and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefero.data.examples import Example
from prefero.evaluate.ranking import ranking_accuracy
from prefero.kinds.kind import Kind
from prefero.training.evaluation import Evaluated
from prefero.training.run_folder import write_lines


def held_out_row(method: str, found: Evaluated) -> dict[str, Any]:
    """A row of ``evaluation.json``: the share of held-out pairs that the reward orders as the data do, with
    Wilson's 95 % interval over pairs, where the objective compares pairs; and the objective's loss."""
    row: dict[str, Any] = {"method": method, "loss": found.loss, "interval": {}}
    margins = found.values.get("rewards/margins")
    if margins is not None:
        there = found.weights["rewards/margins"] > 0
        ranking = ranking_accuracy(margins[there].tolist())
        row["accuracy"] = ranking.accuracy
        row["interval"]["accuracy"] = [ranking.interval.low, ranking.interval.high]
    return row


class Samples(TrainerCallback):
    """Responses to a few prompts by the policy as it was and as it became, with the same noise.

    What came before is written to ``samples.jsonl`` before training, so that a resumed run still has it.
    Prompts that leave too little of ``max_length`` tokens are passed over. Several processes write none.
    """

    def __init__(
        self,
        kind: Kind,
        examples: Sequence[Example],
        count: int,
        *,
        max_length: int | None,
        seed: int,
    ) -> None:
        self.kind, self.max_length, self.seed = kind, max_length, seed
        self.prompts = kind.prompts(examples, count, max_length)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        if self.prompts and args.world_size == 1 and state.global_step == 0:
            drawn = zip(self.prompts, self._drawn(model), strict=True)
            write_lines(_file(args), [{"prompt": _shown(prompt), "before": text} for prompt, text in drawn])

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        if state.global_step == state.max_steps and _file(args).is_file():
            lines = [json.loads(line) for line in _file(args).read_text(encoding="utf-8").splitlines()]
            if len(lines) == len(self.prompts):
                drawn = zip(lines, self._drawn(model), strict=True)
                write_lines(_file(args), [line | {"after": text} for line, text in drawn])

    def _drawn(self, model: nn.Module | None) -> list[Any]:
        assert model is not None
        return self.kind.sample(model, self.prompts, self.seed, self.max_length)


def _file(args: TrainingArguments) -> Path:
    return Path(str(args.output_dir)) / "samples.jsonl"


def _shown(prompt: Any) -> str:
    if not isinstance(prompt, tuple):
        return str(prompt)
    return "\n\n".join(f"{message.get('role')}: {message.get('content')}" for message in prompt)
