"""The experiment on decoding: one policy, and several ways to read a text from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import nn

    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Aligned(Made):
    """Start, data and policy that all arms share."""

    policy: nn.Module


@dataclass(frozen=True)
class Decoding(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` whose policy, DPO's, is part of what is made. Models
    are texts, one a held-out prompt.

    An arm has ``beams``: how many; 1 takes the likeliest token each time, 0 samples. Beams that have ended
    are compared by their log-probability over their length to the power of ``length_penalty``, by default 1.
    With ``of`` ``start`` texts are the start model's. Measured: ``gold_reward``, ``valid``, and ``length`` in
    words and marks.
    """

    beta: float = 0.1
    learning_rate: float = 1e-3

    def make(self, seed: int) -> Aligned:
        made = super().make(seed)
        objective = {"method": "dpo", "beta": self.beta}
        settings = {"objective": objective, "learning_rate": self.learning_rate}
        policy = super().train(made, settings, seed).model
        return Aligned(made.start, made.rows, made.held_out, policy)

    def start(self, made: Aligned) -> list[str]:  # type: ignore[override]
        return [one.text for one in made.held_out.before]

    def train(self, made: Aligned, settings: Mapping[str, Any], seed: int) -> Trained[list[str]]:  # type: ignore[override]
        from prefero.demo.start import one_thread
        from prefero_lab.papers.paper import Trained

        model = made.start.model if settings.get("of") == "start" else made.policy
        with one_thread():
            if not settings["beams"]:
                return Trained([one.text for one in made.held_out.measure(model).samples])
            search = {"num_beams": settings["beams"], "max_new_tokens": self.text_world.max_new_tokens}
            if settings["beams"] > 1:
                search["length_penalty"] = settings.get("length_penalty", 1.0)
            return Trained(searched(model, made.start.tokenizer, made.held_out.prompts, search))

    def measure(self, made: Aligned, model: list[str], seed: int) -> Mapping[str, Sequence[float]]:  # type: ignore[override]
        world, tokenizer = made.held_out.world, made.start.tokenizer
        texts = list(zip(made.held_out.prompts, model, strict=True))
        return {
            "gold_reward": [world.gold(prompt, text) for prompt, text in texts],
            "length": [float(len(tokenizer(text, add_special_tokens=False).input_ids)) for text in model],
            **{name: [of(prompt, text) for prompt, text in texts] for name, of in world.measures.items()},
        }


def searched(model: Any, tokenizer: Any, prompts: Sequence[str], search: Mapping[str, Any]) -> list[str]:
    """The text that a search finds to each prompt. Prompts have as many tokens each."""
    import torch

    contexts = torch.tensor([tokenizer(prompt).input_ids for prompt in prompts])
    with torch.no_grad():
        found = model.generate(
            input_ids=contexts,
            attention_mask=torch.ones_like(contexts),
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **search,
        )
    responses = found[:, contexts.shape[1] :]
    return [tokenizer.decode(one, skip_special_tokens=True) for one in responses]
