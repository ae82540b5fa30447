"""World ``bandit``: a table of prompts and responses, where everything is known and nothing has to be drawn.

Who beats whom is a matrix: of a gold reward (Bradley and Terry), or of a game that no reward explains. Its
preferences come as sampled comparisons, or as all pairs with the weights that make a loss its exact
expectation; policies are tables (:mod:`prefero.models.tabular.policy`), and what a method should reach is a
closed form (:mod:`prefero.theory`).

``prefero world bandit FOLDER`` writes a start model and rows, for recipes/tabular.yaml.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.demo.text import stream
from prefero.errors import PreferoError
from prefero.models.tabular.policy import TabularPolicy
from prefero.models.tabular.table import Table
from prefero.theory.optima import kl, psi_optimum, reward_optimum
from prefero_lab.worlds import WorldParser

Probabilities = Float[Tensor, "prompt response"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Bandit:
    """``preference[x, i, j]`` is how likely response i to prompt x beats j, ½ on the diagonal;
    ``preference + preference.mT = 1``. ``reward`` is there where it explains the preferences."""

    reference: Probabilities
    preference: Float[Tensor, "prompt response response"]
    reward: Float[Tensor, "prompt response"] | None = None

    @classmethod
    def bradley_terry(
        cls, prompts: int = 4, responses: int = 5, *, scale: float = 1.0, seed: int = 0
    ) -> Bandit:
        """Rewards from N(0, ``scale``²), references that are the softmax of N(0, 1)."""
        numbers = stream("bandit", "rewards", seed)
        logits, reward = torch.randn(2, prompts, responses, generator=numbers, dtype=torch.float64)
        return cls.of_reward(scale * reward, logits.softmax(-1))

    @classmethod
    def of_reward(cls, reward: Float[Tensor, "prompt response"], reference: Probabilities) -> Bandit:
        """The preferences of a reward: σ(r(y) − r(y′))."""
        return cls(reference, torch.sigmoid(reward[..., :, None] - reward[..., None, :]), reward)

    @classmethod
    def game(cls, prompts: int = 1, responses: int = 5, *, seed: int = 0) -> Bandit:
        """Preferences that are uniform on [0, 1], pair by pair, and cyclic as often as not; a uniform
        reference."""
        shape = (prompts, responses, responses)
        above = torch.rand(shape, generator=stream("bandit", "game", seed), dtype=torch.float64).triu(1)
        below = (1 - above).mT.tril(-1)
        reference = torch.full(shape[:2], 1 / responses, dtype=torch.float64)
        return cls(reference, above + below + 0.5 * torch.eye(responses, dtype=torch.float64))

    @classmethod
    def cycle(cls, prompts: int = 1, *, seed: int = 0) -> Bandit:
        """Three responses that beat each other in a circle, by margins from 0.1 to 0.45 of their own;
        references are the softmax of N(0, 1)."""
        numbers = stream("bandit", "cycle", seed)
        margins = 0.1 + 0.35 * torch.rand(prompts, 3, generator=numbers, dtype=torch.float64)
        logits = torch.randn(prompts, 3, generator=numbers, dtype=torch.float64)
        wins = torch.full((prompts, 3, 3), 0.5, dtype=torch.float64)
        for one in range(3):
            wins[:, one, (one + 1) % 3] += margins[:, one]
            wins[:, (one + 1) % 3, one] -= margins[:, one]
        return cls(logits.softmax(-1), wins)

    @cached_property
    def table(self) -> Table:
        prompts, responses = self.reference.shape
        answers = tuple(f"answer {number}" for number in range(1, responses + 1))
        return Table(tuple(f"question {number}" for number in range(1, prompts + 1)), (answers,) * prompts)

    def policy(self, features: Float[Tensor, "prompt response feature"] | None = None) -> TabularPolicy:
        """The policy to start from: the reference, in the class of all policies or in that of the
        features."""
        return TabularPolicy.of(self.table, self.reference, features)

    # Preferences as rows

    def expected_pairs(self, sampling: Probabilities | None = None) -> list[Row]:
        """All pairs in both orders, each with the ``weight`` that it has on average: with ``weight: given``
        a loss is its exact expectation over prompts, two different responses, and the label.

        Prompts are alike probable, responses come from ``sampling``, uniform by default. Weights are 1 on
        average; pairs that never occur are left out.
        """
        met = self._met(sampling) * self.preference
        rows = self._rows([tuple(one) for one in met.nonzero().tolist()])
        weights = met[met > 0]
        weights = weights * len(weights) / weights.sum()
        return [row | {"weight": float(weight)} for row, weight in zip(rows, weights, strict=True)]

    def rated_pairs(self, opponent: Probabilities, sampling: Probabilities | None = None) -> list[Row]:
        """All pairs of different responses, once, each with its ``weight`` and the win rates of both
        responses against the ``opponent``: no label is drawn."""
        rates = self.win_rates(opponent)
        met = self._met(sampling).triu(1)
        places = [tuple(one) for one in met.nonzero().tolist()]
        weights = met[met > 0]
        weights = weights * len(weights) / weights.sum()
        return [
            row
            | {
                "weight": float(weight),
                "chosen_win_rate": float(rates[prompt, one]),
                "rejected_win_rate": float(rates[prompt, other]),
            }
            for row, weight, (prompt, one, other) in zip(self._rows(places), weights, places, strict=True)
        ]

    def sampled_pairs(self, count: int, seed: int, sampling: Probabilities | None = None) -> list[Row]:
        """Comparisons as people make them: a prompt, two different responses, and who won, drawn ``count``
        times; their weights are 1."""
        met = self._met(sampling)
        numbers = stream("bandit", "pairs", seed)
        drawn = torch.multinomial(met.flatten(), count, replacement=True, generator=numbers)
        places = torch.stack(torch.unravel_index(drawn, met.shape), 1)
        wins = torch.rand(count, generator=numbers, dtype=met.dtype) < self.preference[tuple(places.T)]
        swapped = places[:, [0, 2, 1]]
        rows = self._rows([tuple(one) for one in torch.where(wins[:, None], places, swapped).tolist()])
        return [row | {"weight": 1.0} for row in rows]

    def scored_groups(
        self, count: int, size: int, seed: int, sampling: Probabilities | None = None
    ) -> list[Row]:
        """``count`` lists of ``size`` different responses, drawn from ``sampling``, the reference by default,
        to a random prompt each, with their rewards as scores."""
        numbers = stream("bandit", "groups", seed)
        prompts = torch.randint(len(self.reference), (count,), generator=numbers)
        drawn = torch.multinomial(
            (self.reference if sampling is None else sampling)[prompts], size, generator=numbers
        )
        table, scores = self.table, self._gold[prompts].gather(1, drawn)
        each = zip(prompts.tolist(), drawn.tolist(), scores.tolist(), strict=True)
        return [
            {
                "prompt": table.prompts[prompt],
                "responses": [table.responses[prompt][one] for one in some],
                "scores": of,
            }
            for prompt, some, of in each
        ]

    def _met(self, sampling: Probabilities | None) -> Float[Tensor, "prompt response response"]:
        """Weight of each comparison of two different responses."""
        drawn = torch.ones_like(self.reference) if sampling is None else sampling
        met = drawn[..., :, None] * drawn[..., None, :]
        return met * (1 - torch.eye(met.shape[-1], dtype=met.dtype))

    def _rows(self, places: Sequence[tuple[int, ...]]) -> list[Row]:
        table = self.table
        return [
            {
                "prompt": table.prompts[prompt],
                "chosen": table.responses[prompt][chosen],
                "rejected": table.responses[prompt][rejected],
            }
            for prompt, chosen, rejected in places
        ]

    # What policies are worth

    def win_rates(self, opponent: Probabilities) -> Float[Tensor, "prompt response"]:
        """Probability that each response beats a response of the opponent."""
        return (self.preference @ opponent[..., None])[..., 0]

    def optimum(self, beta: float) -> Probabilities:
        """The policies with the largest E[r] − β KL(π ‖ π_ref): π_ref e^{r/β} / Z, which DPO should reach."""
        return reward_optimum(self.reference, self._gold, beta)

    def identity_optimum(self, tau: float, opponent: Probabilities | None = None) -> Probabilities:
        """The policies with the largest win rate against the opponent (uniform by default) less τ KL: what
        IPO should reach on pairs drawn from it."""
        drawn = (
            torch.full_like(self.reference, 1 / self.reference.shape[-1]) if opponent is None else opponent
        )
        each = zip(self.reference, self.preference, drawn, strict=True)
        return torch.stack([psi_optimum(reference, wins, one, tau) for reference, wins, one in each])

    def values(self, policy: Probabilities, beta: float) -> Float[Tensor, " prompt"]:
        """E[r] − β KL(π ‖ π_ref)."""
        return (policy * self._gold).sum(-1) - beta * kl(policy, self.reference)

    @property
    def _gold(self) -> Float[Tensor, "prompt response"]:
        if self.reward is None:
            raise PreferoError("these preferences are a game's, which no reward explains")
        return self.reward


def total_variation(policy: Probabilities, other: Probabilities) -> float:
    """½ Σ |p − q|, of the prompt where it is largest."""
    return (policy - other).abs().sum(-1).max().item() / 2


def ordered_pairs(groups: Sequence[Row]) -> list[Row]:
    """All pairs of responses of each list that do not have the same score, the better one chosen."""
    rows = []
    for group in groups:
        scored = sorted(zip(group["scores"], group["responses"], strict=True), reverse=True)
        for (best, chosen), (worst, rejected) in itertools.combinations(scored, 2):
            if best > worst:
                pair = {"prompt": group["prompt"], "chosen": chosen, "rejected": rejected}
                rows.append(pair | {"chosen_score": best, "rejected_score": worst})
    return rows


def counted(rows: Sequence[Row]) -> list[Row]:
    """Equal rows as one, with their number as its weight; weights are 1 on average, so that the loss of all
    is the same."""
    numbers = Counter(tuple(sorted(row.items())) for row in rows)
    return [dict(row) | {"weight": count * len(numbers) / len(rows)} for row, count in numbers.items()]


def write(bandit: Bandit, folder: Path, *, pairs: int, seed: int) -> None:
    """The start model in ``model/``, all pairs with their weights in ``train.jsonl``, and as many sampled
    comparisons as asked for in ``sampled.jsonl`` and ``held_out.jsonl``."""
    bandit.policy().save_pretrained(folder / "model")
    for name, rows in {
        "train": bandit.expected_pairs(),
        "sampled": bandit.sampled_pairs(pairs, seed),
        "held_out": bandit.sampled_pairs(pairs, seed + 1_000_000),
    }.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> Path:
    """A table of prompts and responses: all pairs with their weights, and sampled comparisons."""
    parser = WorldParser("bandit", main.__doc__)
    parser.add_argument("--game", action="store_true", help="preferences that no reward explains")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--responses", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=1000, help="sampled comparisons")
    given = parser.parse_args(arguments)
    make = Bandit.game if given.game else Bandit.bradley_terry
    write(
        make(given.prompts, given.responses, seed=given.seed),
        given.folder,
        pairs=given.pairs,
        seed=given.seed,
    )
    return given.folder
