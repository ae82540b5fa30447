"""A bandit that takes a moment: prompts with a few answers each, a tabular policy, exact expectations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch, TokenLogps
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import dry_run, materialise
from prefero_lab.discovery.fitness import Score, Unfit


class BanditFitness:
    """The gold reward that a tabular policy gains over its reference, exactly.

    Gold rewards are standard normal, the reference is a softmax of normal logits. Two answers of the
    reference to each of ``pairs`` prompts, drawn with repetition, are labelled by Bradley and Terry with the
    gold rewards, and the policy takes ``steps`` steps of Adam on all of them. The interval is over prompts.
    """

    def __init__(
        self,
        *,
        prompts: int = 64,
        answers: int = 6,
        pairs: int = 512,
        steps: int = 100,
        learning_rate: float = 0.05,
        seed: int = 0,
    ) -> None:
        self.settings: Mapping[str, Any] = {
            "world": "bandit",
            "prompts": prompts,
            "answers": answers,
            "pairs": pairs,
            "steps": steps,
            "learning_rate": learning_rate,
            "seed": seed,
        }

    def __call__(self, objective: Mapping[str, Any], draw: int = 0) -> Score:
        """Raises :class:`Unfit` if the policy diverges, or the objective asks for signals."""
        known = self.settings
        made = materialise(from_config(objective)).double().train()
        if any(signals for signals in dry_run(made).models.values()):
            raise Unfit("a bandit measures no signals of its policy")
        numbers = torch.Generator().manual_seed(1000 * draw + known["seed"])
        shape = (known["prompts"], known["answers"])
        gold, start = (torch.randn(shape, generator=numbers, dtype=torch.float64) for _ in range(2))
        prompt, answer = labelled(gold, start, known["pairs"], numbers)
        policy = self._trained(made, start, gold, prompt, answer, numbers)
        gains = ((policy.softmax(1) - start.softmax(1)) * gold).sum(1)
        if not gains.isfinite().all():
            raise Unfit("training left a policy that is not finite")
        gain, spread = float(gains.mean()), 1.96 * float(gains.std()) / len(gains) ** 0.5
        kl = (policy.softmax(1) * (policy.log_softmax(1) - start.log_softmax(1))).sum(1).mean()
        return Score(gain, gain - spread, gain + spread, {"kl": float(kl)})

    def _trained(
        self,
        objective: Objective,
        start: Float[Tensor, "prompt answer"],
        gold: Float[Tensor, "prompt answer"],
        prompt: Int[Tensor, " example"],
        answer: Int[Tensor, "example side"],
        numbers: torch.Generator,
    ) -> Float[Tensor, "prompt answer"]:
        logits = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=self.settings["learning_rate"])
        mask = torch.ones((*answer.shape, 1), dtype=torch.bool)
        steps = self.settings["steps"]
        for step in range(steps):
            scored = {
                name: TokenLogps(values.log_softmax(1)[prompt].gather(1, answer)[..., None], mask)
                for name, values in (("policy", logits), ("reference", start))
            }
            columns = {
                "score": gold[prompt].gather(1, answer),
                "pair_noise": torch.rand(len(prompt), generator=numbers, dtype=torch.float64).clamp(1e-6),
            }
            loss = objective.loss(PreferenceBatch(scored, columns, progress=step / steps))
            if not loss.isfinite():
                raise Unfit("the loss diverged in training")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return logits.detach()


def labelled(
    gold: Float[Tensor, "prompt answer"],
    start: Float[Tensor, "prompt answer"],
    pairs: int,
    numbers: torch.Generator,
) -> tuple[Int[Tensor, " example"], Int[Tensor, "example side"]]:
    """Prompts, and two different answers of the reference to each, the preferred one first."""
    prompt = torch.randint(len(gold), (pairs,), generator=numbers)
    answer = torch.multinomial(start.softmax(1)[prompt], 2, generator=numbers)
    first, second = gold[prompt].gather(1, answer).T
    swapped = torch.rand(pairs, generator=numbers, dtype=torch.float64) > torch.sigmoid(first - second)
    return prompt, torch.where(swapped[:, None], answer.flip(1), answer)
