"""Self-play on the world ``bandit``, exactly: rounds of an objective on rated pairs, and single steps of its
gradient against an opponent that moves with the policy."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.models.tabular.policy import TabularPolicy
from prefero.objectives.compare import Objective
from prefero_lab.worlds.bandit import Bandit, Probabilities
from prefero_lab.worlds.tabular_fitting import WholeBatch, minimised

Opponent = Callable[[Probabilities, Probabilities], Probabilities]
"""(policy, reference) → whom the policy meets."""


def itself(policy: Probabilities, reference: Probabilities) -> Probabilities:
    return policy


def towards_reference(share: float) -> Opponent:
    """π^(1−share) π_ref^share / Z, whom Nash-MD meets (Munos et al., 2023, arXiv 2312.00886)."""

    def opponent(policy: Probabilities, reference: Probabilities) -> Probabilities:
        return ((1 - share) * policy.log() + share * reference.log()).softmax(-1)

    return opponent


class Game:
    """An objective that reads win rates, over all pairs of different responses; with ``weight: given``, pairs
    count as often as the sampling policy draws them."""

    def __init__(self, bandit: Bandit, objective: Objective) -> None:
        self.bandit, self.reference = bandit, bandit.policy()
        rows = bandit.rated_pairs(bandit.reference)
        self.batch = WholeBatch(objective, rows, bandit.table)
        places = self.batch.row.views[""]
        self.prompts, self.responses = self.batch.row.prompts[places.prompt], places.response

    def rounds(self, count: int) -> Float[Tensor, "round prompt response"]:
        """The policies of self-play, the first the reference: every round is the objective's minimiser on
        pairs of the last policy, rated against it, from it and with it as the reference."""
        policy = self.bandit.policy()
        path = [self.bandit.reference]
        for _ in range(count):
            self._rate(path[-1], path[-1])
            policy = minimised(self.batch, policy, reference=policy)
            path.append(policy.probabilities().detach())
        return torch.stack(path)

    def descent(self, steps: int, rate: float, meets: Opponent = itself) -> TabularPolicy:
        """Where as many gradient steps end, each against whom the policy then ``meets``; pairs are all alike
        probable."""
        policy = self.bandit.policy()
        for _ in range(steps):
            policy = self._stepped(
                policy, meets(policy.probabilities().detach(), self.bandit.reference), rate
            )
        return policy

    def extragradient(self, steps: int, rate: float) -> TabularPolicy:
        """Where as many steps end, each of two gradients: the first one's policy is whom the second one
        meets, and both are taken from where the step began (EGPO, Zhou et al., 2025, arXiv 2503.08942)."""
        policy = self.bandit.policy()
        for _ in range(steps):
            half = self._stepped(policy, policy.probabilities().detach(), rate)
            policy = self._stepped(policy, half.probabilities().detach(), rate)
        return policy

    def _stepped(self, policy: TabularPolicy, opponent: Probabilities, rate: float) -> TabularPolicy:
        self._rate(opponent)
        slope = torch.autograd.grad(self.batch.loss(policy, reference=self.reference), policy.theta)[0]
        moved = copy.deepcopy(policy)
        with torch.no_grad():
            moved.theta.sub_(rate * slope)
        return moved

    def _rate(self, opponent: Probabilities, sampling: Probabilities | None = None) -> None:
        """Win rates against the opponent, and how often the pairs meet."""
        columns = self.batch.columns
        columns["win_rate"] = self.bandit.win_rates(opponent)[self.prompts, self.responses]
        if "weight" in columns:
            drawn = torch.ones_like(opponent) if sampling is None else sampling
            met = drawn[self.prompts, self.responses].prod(1)
            columns["weight"] = met / met.mean()
