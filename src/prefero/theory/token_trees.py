"""Token trees solved exactly: soft-optimal values, policy and token rewards. States are prefixes, actions are
tokens, transitions are certain. Rafailov et al., 2024, arXiv 2404.12358."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError

ROOT = -1
"""The parent of the first tokens: the prompt."""


@dataclass(frozen=True, slots=True)
class TokenTree:
    """Tokens as nodes, every parent before its children; a leaf is a response's last token. ``reference`` is
    the probability of each token after its parent, ``reward`` usually 0 but at leaves."""

    parent: Sequence[int]
    reference: Float[Tensor, " node"]
    reward: Float[Tensor, " node"]

    def __post_init__(self) -> None:
        for node, parent in enumerate(self.parent):
            if not ROOT <= parent < node:
                raise PreferoError(
                    f"node {node} of the token tree has the parent {parent}; a parent comes before its "
                    f"children, and {ROOT} stands for the prompt"
                )

    def responses(self) -> list[list[int]]:
        """The nodes of each response from first token to leaf, in the order of the leaves."""
        inner = set(self.parent)
        paths = []
        for leaf in range(len(self.parent)):
            if leaf not in inner:
                path = [leaf]
                while self.parent[path[-1]] != ROOT:
                    path.append(self.parent[path[-1]])
                paths.append(path[::-1])
        return paths


@dataclass(frozen=True, slots=True)
class SoftOptimum:
    """``q`` of each token, ``value`` behind it (0 at a leaf), ``policy`` its probability after its parent,
    and ``token_reward`` β log(policy/reference), which sum to a response's reward minus ``root_value``."""

    q: Float[Tensor, " node"]
    value: Float[Tensor, " node"]
    policy: Float[Tensor, " node"]
    token_reward: Float[Tensor, " node"]
    root_value: Float[Tensor, ""]


def soft_optimum(tree: TokenTree, beta: float) -> SoftOptimum:
    """Q = r + β log π_ref + V(next), V = β log Σ e^{Q/β}, π = e^{(Q−V)/β}, from the leaves up. Over whole
    responses this policy is π_ref(y) e^{r(y)/β} / Z, which DPO fits."""
    size = len(tree.parent)
    siblings: dict[int, list[int]] = {}
    for node, parent in enumerate(tree.parent):
        siblings.setdefault(parent, []).append(node)
    log_reference = tree.reference.log()
    q, value = torch.zeros_like(log_reference), torch.zeros_like(log_reference)
    log_policy = torch.zeros_like(log_reference)

    def settle(parent: int) -> Tensor:
        below = siblings[parent]
        scaled = q[below] / beta
        log_policy[below] = scaled.log_softmax(0)
        return beta * scaled.logsumexp(0)

    for node in reversed(range(size)):
        if node in siblings:
            value[node] = settle(node)
        q[node] = tree.reward[node] + beta * log_reference[node] + value[node]
    root_value = settle(ROOT)
    # not log_policy − log_reference: a token that the reference excludes has a reward all the same
    above = torch.stack([root_value if parent == ROOT else value[parent] for parent in tree.parent])
    return SoftOptimum(q, value, log_policy.exp(), tree.reward + value - above, root_value)


def response_logps(tree: TokenTree, probability: Float[Tensor, " node"]) -> Float[Tensor, " response"]:
    """log-probability of each response (:meth:`TokenTree.responses`) when tokens have these probabilities."""
    return torch.stack([probability[path].log().sum() for path in tree.responses()])
