"""The experiment on text worlds with an output layer that is not the embeddings, to be moved on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from prefero.demo.start import StartModel


@dataclass(frozen=True)
class Untied(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` whose start model's output layer is a copy of its
    embeddings. Also measured, one number a training pair: ``chosen_rises``, and ``apart``, whether the chosen
    response has become more likely and the rejected one less."""

    def make(self, seed: int) -> Made:
        made = super().make(seed)
        return replace(made, start=untied(made.start))

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        found = super().measure(made, model, seed)
        sides = list(zip(found["chosen_log_ratio"], found["rejected_log_ratio"], strict=True))
        return {
            **found,
            "chosen_rises": [float(chosen > 0) for chosen, _ in sides],
            "apart": [float(chosen > 0 > rejected) for chosen, rejected in sides],
        }


def untied(start: StartModel) -> StartModel:
    """The same model with an output layer of its own, in a folder beside it."""
    import copy
    from typing import Any

    from torch.nn import Parameter
    from transformers import AutoModelForCausalLM

    from prefero.demo.start import StartModel, quiet, save_whole

    folder = start.folder.with_name(f"{start.folder.name}-untied")

    def write(draft: Path) -> None:
        model: Any = copy.deepcopy(start.model)
        model.config.tie_word_embeddings = False
        model.lm_head.weight = Parameter(model.lm_head.weight.detach().clone())
        model.save_pretrained(draft)
        start.tokenizer.save_pretrained(draft)

    if not folder.is_dir():
        save_whole(folder, write)
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return StartModel(model, start.tokenizer, folder)
