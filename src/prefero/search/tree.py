"""Monte Carlo tree search over reasoning steps: which step to follow, and what a node is worth.

Values, visits and priors as in Xie et al., 2024, arXiv 2405.00451, and their code YuxiXie/MCTS-DPO.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Child:
    """A step that can be taken at a node.

    ``reward`` is the child's own value less its parent's, ``later`` the value that search backed up to the
    child, ``visits`` how often search went through it, ``prior`` how likely the policy is to take it, in
    (0, 1].
    """

    reward: float
    later: float
    visits: int
    prior: float

    def action_value(self, gamma: float = 1.0) -> float:
        """Q = r + γ V(child)."""
        return self.reward + gamma * self.later


def step_prior(logps: Sequence[float], length_penalty: float = 1.25) -> float:
    """exp(Σ log π / n^λ) over the n tokens of a step: with λ > 1 long steps are not held against themselves.

    Raises ValueError for a step without tokens.
    """
    if not logps:
        raise ValueError("a step without tokens has no prior")
    return math.exp(math.fsum(logps) / len(logps) ** length_penalty)


def puct(child: Child, parent_visits: int, gamma: float = 1.0, exploration: float = 1.0) -> float:
    """Q + w · prior · √N_parent / (1 + N): the child with the largest is followed next."""
    bonus = exploration * child.prior * math.sqrt(parent_visits) / (1 + child.visits)
    return child.action_value(gamma) + bonus


def backed_up(children: Sequence[Child], gamma: float = 1.0) -> float:
    """The value of a node, its children's Q averaged by their visits; a child without any counts as one.

    Raises ValueError for a node without children.
    """
    if not children:
        raise ValueError("a node without children backs nothing up: it keeps its own value")
    weights = [max(1, child.visits) for child in children]
    total = math.fsum(
        weight * child.action_value(gamma) for weight, child in zip(weights, children, strict=True)
    )
    return total / sum(weights)
