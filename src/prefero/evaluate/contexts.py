"""Preferences that depend on a context: how well they are told with it, without it, and against it.

Pitis et al., 2024, arXiv 2407.14916.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

Scores = Sequence[Sequence[float]]
"""The scores of the two responses of each pair."""


@dataclass(frozen=True, slots=True)
class ReversalAccuracy:
    """On pairs whose first response is preferred under context a, the second under b.

    ``context_specific`` is the mean of the two accuracies, ``both`` the share of pairs that are right under
    both contexts. ``no_context`` is exactly ½ for a scorer without ties.
    """

    under_a: float
    under_b: float
    context_specific: float
    both: float
    no_context: float | None


def reversal_accuracy(under_a: Scores, under_b: Scores, without: Scores | None = None) -> ReversalAccuracy:
    """A tie is wrong."""
    right_a = [first > second for first, second in under_a]
    right_b = [second > first for first, second in under_b]
    no_context = None
    if without is not None:
        no_context = sum((a > b) + (b > a) for a, b in without) / (2 * len(without))
    accuracy_a, accuracy_b = _share(right_a), _share(right_b)
    both = [a and b for a, b in zip(right_a, right_b, strict=True)]
    return ReversalAccuracy(accuracy_a, accuracy_b, (accuracy_a + accuracy_b) / 2, _share(both), no_context)


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)


Table = Float[Tensor, "prompt context"]


@dataclass(frozen=True, slots=True)
class ContextError:
    """A preference averaged over contexts, its estimate, and what bounds their difference: the mean error of
    the preference in each context (``specific``), and the total variation between the contexts'
    probabilities (``inference``)."""

    preference: Tensor
    estimate: Tensor
    specific: Tensor
    inference: Tensor

    @property
    def error(self) -> Tensor:
        return (self.preference - self.estimate).abs()

    @property
    def bound(self) -> Tensor:
        return self.specific + self.inference


def context_error(
    contexts: Table, estimated_contexts: Table, preference: Table, estimate: Table
) -> ContextError:
    """|Σ_z p(z) f(z) − Σ_z p̂(z) f̂(z)| ≤ Σ_z p(z) |f − f̂| + TV(p, p̂), for each prompt.

    The tables are the probabilities of contexts and of the first response being preferred in them. The bound
    is derived, the paper states one of its kind.
    """
    return ContextError(
        (contexts * preference).sum(-1),
        (estimated_contexts * estimate).sum(-1),
        (contexts * (preference - estimate).abs()).sum(-1),
        (contexts - estimated_contexts).abs().sum(-1) / 2,
    )
