"""The reward that a run learned, as a judge of other responses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from prefero.data.examples import Content, Example, Response, Text
from prefero.errors import PreferoError
from prefero.inference.rewards import rewards
from prefero.models.loading import ModelSource
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import dry_run, model_names
from prefero.training.checkpoints import load_objective


@dataclass(frozen=True, slots=True)
class LearnedReward:
    """The reward of an objective: a head's, or a multiple of log π − log π_ref."""

    objective: Objective
    policy: nn.Module
    tokenizer: Any
    models: Mapping[str, nn.Module]

    def __call__(self, prompts: Sequence[Text], responses: Sequence[str]) -> list[float]:
        examples = [
            Example(prompt, (Response(_said(prompt, text)),), origin=f"response {place + 1}")
            for place, (prompt, text) in enumerate(zip(prompts, responses, strict=True))
        ]
        found = rewards(self.objective, self.policy, examples, self.tokenizer, models=self.models)
        return [float(one[0]) for one in found]


def learned_reward(folder: Path) -> LearnedReward:
    """The reward that the run in ``folder`` learned, with the run's own reference.

    Raises:
        PreferoError: the run left no model, its reference was no fixed model, or its method has no reward.
    """
    model = folder / "model"
    if not model.is_dir():
        raise PreferoError(f"{folder} holds no model: the run has not come to its end")
    config = json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"]
    objective = from_config(config["objective"])
    if any(True for _ in objective.parameters()):
        objective = load_objective(model)
    others = {
        name: ModelSource(_reference(config, name)).load() for name in sorted(model_names(dry_run(objective)))
    }
    source = ModelSource(str(model))
    return LearnedReward(objective, source.load(), source.processor(), others)


def _reference(config: Mapping[str, Any], name: str) -> str:
    section = config.get("reference", {}) if name == "reference" else config.get("models", {}).get(name, {})
    return (section or {}).get("model") or config["model"]["name"]


def _said(prompt: Text, text: str) -> Content:
    return text if isinstance(prompt, str) else ({"role": "assistant", "content": text},)
