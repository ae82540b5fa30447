"""P2R: comparisons with one baseline make any reinforcement learner one from preferences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper, Trained
from prefero_lab.papers.theory.sppo import SPPO, Cycles

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Learnt:
    """A policy, and what comparisons it took; one number a world of either."""

    policies: Tensor
    comparisons: Sequence[int]


@dataclass(frozen=True)
class Worlds:
    """``worlds`` bandits, each with a reward in [0, 1] out of a known class of ``candidates``, and noisy
    comparisons.

    A learner from rewards (exponential weights on what it saw) draws a response an episode and asks for its
    reward: of the truth, or by comparisons with the first response, ``repeats`` a question. Measured, one
    number a world: ``reward``, the true one of the learnt policy, in units of the best response's advantage
    over the mean, and ``comparisons``.
    """

    worlds: int = 8
    responses: int = 8
    candidates: int = 64
    repeats: int = 400
    episodes: int = 200

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Tensor:
        """The classes of rewards, whose first members are the truth."""
        import torch

        from prefero.demo.text import stream

        numbers = stream("p2r", "rewards", seed)
        shape = (self.worlds, self.candidates, self.responses)
        return torch.rand(shape, generator=numbers, dtype=torch.float64)

    def start(self, made: Tensor) -> Learnt:
        import torch

        return Learnt(torch.full_like(made[:, 0], 1 / self.responses), [0] * self.worlds)

    def train(self, made: Tensor, settings: Mapping[str, Any], seed: int) -> Trained[Learnt]:
        import torch

        from prefero.demo.text import stream

        learnt = [
            self._learn(candidates, settings, stream("p2r", "episodes", seed, number))
            for number, candidates in enumerate(made)
        ]
        policies, comparisons = zip(*learnt, strict=True)
        return Trained(Learnt(torch.stack(policies), comparisons))

    def _learn(self, candidates: Tensor, settings: Mapping[str, Any], numbers: Any) -> tuple[Tensor, int]:
        import torch

        from prefero.theory.rewards import PreferenceToReward

        truth = candidates[0]

        def beats(response: int, baseline: int) -> float:
            chance = torch.sigmoid(truth[response] - truth[baseline])
            return float(torch.rand((), generator=numbers, dtype=truth.dtype) < chance)

        oracle = PreferenceToReward(
            beats,
            candidates,
            0,
            bound=1.0,
            repeats=self.repeats,
            confidence=1.0 if settings["reward"] == "p2r" else math.inf,
            tolerance=0.1,
        )
        sums, visits = torch.zeros_like(truth), torch.zeros_like(truth)
        for episode in range(self.episodes * settings.get("times", 1)):
            mean = sums / visits.clamp(min=1)
            explored = 0.2 * torch.ones_like(truth) / len(truth) + 0.8 * (mean * math.sqrt(episode)).softmax(
                0
            )
            response = int(torch.multinomial(explored, 1, generator=numbers))
            known = settings["reward"] == "true"
            sums[response] += float(truth[response] - truth[0]) if known else oracle.reward(response)
            visits[response] += 1
        mean = torch.where(visits > 0, sums / visits.clamp(min=1), -math.inf)
        return torch.nn.functional.one_hot(mean.argmax(), len(truth)).to(truth), oracle.comparisons

    def measure(self, made: Tensor, model: Learnt, seed: int) -> Mapping[str, Sequence[float]]:
        truth = made[:, 0]
        mean = truth.mean(-1)
        reward = ((model.policies * truth).sum(-1) - mean) / (truth.amax(-1) - mean)
        return {"reward": reward.tolist(), "comparisons": [float(one) for one in model.comparisons]}


PAPER = Paper(
    id="p068",
    title="Is RLHF More Difficult than Standard RL?",
    citation="Wang et al., 2023, arXiv 2306.14111",
    adds="Learning from preferences reduced to what is known: to reinforcement learning with few comparisons "
    "more where a reward explains them, and to games where none does.",
    evidence=(
        Claim(
            statement="A learner from rewards that gets them from comparisons with a baseline does as well "
            "as from the true ones; once the reward is identified, more episodes take no more comparisons.",
            experiment=Worlds(),
            arms=(
                START,
                Arm("true rewards", {"reward": "true"}),
                Arm("p2r", {"reward": "p2r"}),
                Arm("p2r, three times the episodes", {"reward": "p2r", "times": 3}),
                Arm("asking every time", {"reward": "asked"}),
            ),
            expected=(
                Expectation("p2r", "start", "reward", by=0.5),
                Expectation("p2r", "true rewards", "reward", by=-0.1),
                Expectation("p2r", "asking every time", "comparisons", "lower", by=5000),
                Expectation("p2r, three times the episodes", "p2r", "comparisons", "lower", by=-400),
            ),
            refuted_by="a reward that is lower by more than a tenth of what there is to gain, or comparisons "
            "that continue with the episodes",
            seconds=30,
        ),
        Claim(
            statement="Where no reward explains the preferences, self-play comes to lose to nobody, and a "
            "policy fitted to a reward is easily beaten.",
            experiment=Cycles(),
            arms=(
                Arm("self-play", {"objective": SPPO, "policy": "average"}),
                Arm("reward-fitted", {"objective": {"method": "dpo", "beta": 0.05}}),
            ),
            expected=(Expectation("self-play", "reward-fitted", "worst case", by=0.05),),
            refuted_by="a reward-fitted policy that is beaten no more often than self-play's average",
            seconds=30,
        ),
    ),
)
