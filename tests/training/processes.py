"""Runs in processes of their own, to be killed and resumed, one process or several.

``python -m tests.training.processes`` imports everything once and forks for every job that it reads from
stdin.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare
from prefero.objectives.quantities import Quantity, log_ratio
from prefero.reference.providers import ReferenceSpec
from prefero.training.trainer import PreferenceTrainer
from tests.forks import Forks, serve
from tests.training.tiny import pairs, tiny_experts, tiny_model, tiny_tokenizer


class SendSignal(TrainerCallback):
    """The process gets a signal after an optimizer step, before anything is saved at it."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step and state.is_local_process_zero:
            os.kill(os.getpid(), self.number)


class Learned(Quantity):
    """A factor that the objective learns, and a number that it counts with."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("unit", torch.tensor(1.0))

    def forward(self, batch: PreferenceBatch) -> torch.Tensor:
        return self.factor * self.unit


def train(folder: str, options: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    names = ("kill", "resume", "lora", "tied", "experts")
    kill, resume, lora, tied, experts = (options.pop(name, None) for name in names)
    if options.get("objective") == "learned":
        options["objective"] = Compare(Learned() * log_ratio().sum())
    number = options.pop("signal", signal.SIGKILL)
    if isinstance(options.get("reference"), dict):
        options["reference"] = ReferenceSpec(**options["reference"])
    if "models" in options:
        options["models"] = {name: ReferenceSpec(**one) for name, one in options["models"].items()}
    defaults: dict[str, Any] = {
        "output_dir": folder,
        "disable_tqdm": True,
        "learning_rate": 1e-2,
        "num_train_epochs": 2,
        "examples_per_step": 6,
        "tokens_per_row": 64,
        "logging_steps": 1,
        "save_steps": 2,
        "save_total_limit": None,
        "max_length": 32,
    }
    trainer = PreferenceTrainer(
        tiny_experts() if experts else tiny_model(tied=bool(tied)),
        pairs(26),
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear") if lora else None,
        callbacks=[SendSignal(kill, number)] if kill else [],
        **{**defaults, **options},
    )
    trainer.train(resume)
    trainer.save_model(f"{folder}/model")
    if trainer.is_world_process_zero():
        save_file(
            {name: value.clone() for name, value in trainer.objective.state_dict().items()},
            f"{folder}/objective.safetensors",
        )


@dataclass(frozen=True)
class Trainings:
    """Runs trainings outside of this process."""

    forks: Forks

    def __call__(self, folder: Path, *, processes: int = 1, expect: int = 0, **options: Any) -> str:
        ended = self.forks(
            folder.name,
            {"folder": str(folder), "options": options},
            processes=processes,
            environment={"PREFERO_CACHE": str(folder.parent / "references")},
        )
        # Of several processes, the first to fail may take the others down before they fail themselves.
        failed = expect == 1 and processes > 1 and ended.status != 0
        assert ended.status == expect or failed, ended.text[-4000:]
        return ended.text


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1], json.loads(sys.argv[2]))
    else:
        serve(lambda job: train(job["folder"], job["options"]))
