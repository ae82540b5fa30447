"""Ranking accuracy: how often a reward, or the policy's own likelihood, orders pairs as their annotators did.

The two rankings differ, and a method may move one alone: Chen et al., 2024, arXiv 2405.19534. Preferences
under a context (:func:`reversal_accuracy`, :func:`context_error`): Pitis et al., 2024, arXiv 2407.14916.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.evaluate.intervals import Interval, wilson
from prefero.models.scoring import scored_rows

BETAS = (0.01, 0.1, 1.0, 5.0, 10.0)
"""The strengths over which the paper reports the idealised accuracy."""


@dataclass(frozen=True, slots=True)
class RankingAccuracy:
    """``accuracy`` is the share of ``pairs`` whose chosen response has the higher reward; a tie counts
    half."""

    accuracy: float
    interval: Interval
    pairs: int
    ties: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def ranking_accuracy(margins: Sequence[float], *, confidence: float = 0.95) -> RankingAccuracy:
    """The accuracy of rewards, from their margins, chosen minus rejected, one per pair; Wilson's interval.

    The margins of an objective's implicit reward are ``"rewards/margins"`` of
    :meth:`~prefero.training.trainer.PreferenceTrainer.evaluate_examples`; any other reward serves as well.

    Raises:
        PreferoError: there are no pairs, or a margin is not a number.
    """
    if not margins:
        raise PreferoError("a ranking accuracy needs at least one pair; got none.")
    for i, margin in enumerate(margins):
        if math.isnan(margin):
            raise PreferoError(f"the margin of pair {i + 1} is not a number.")
    accuracy = sum((margin > 0) + (margin >= 0) for margin in margins) / (2 * len(margins))
    return RankingAccuracy(
        accuracy,
        wilson(accuracy, len(margins), confidence),
        pairs=len(margins),
        ties=sum(margin == 0 for margin in margins),
    )


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Summed log-probabilities of the chosen and the rejected response of each pair, and their lengths."""

    chosen: Float[Tensor, " pair"]
    rejected: Float[Tensor, " pair"]
    chosen_length: Tensor
    rejected_length: Tensor

    def margin(self, *, per_token: bool = False) -> Float[Tensor, " pair"]:
        """Chosen minus rejected; of the means over each response's own tokens if ``per_token``."""
        if not per_token:
            return self.chosen - self.rejected
        chosen_length, rejected_length = self.chosen_length.clamp(min=1), self.rejected_length.clamp(min=1)
        return self.chosen / chosen_length - self.rejected / rejected_length


def pair_logps(
    model: nn.Module, pairs: Sequence[tuple[Cell, Cell]], *, tokens_per_row: int = 4096
) -> PairLogps:
    """Log-probabilities of (chosen, rejected) pairs under a language model. Raises :class:`PreferoError`
    without pairs."""
    if not pairs:
        raise PreferoError("a ranking accuracy needs at least one pair; got none.")
    examples = [TokenExample(pair, {}, i) for i, pair in enumerate(pairs)]
    totals = torch.zeros(len(pairs), 2, dtype=torch.float64)
    lengths = torch.zeros(len(pairs), 2, dtype=torch.int64)
    for row, scored in scored_rows(model, examples, tokens_per_row=tokens_per_row):
        totals[row] = torch.where(scored.mask, scored.logps, 0).double().sum(-1).cpu()
        lengths[row] = scored.mask.sum(-1).cpu()
    return PairLogps(totals[:, 0], totals[:, 1], lengths[:, 0], lengths[:, 1])


def ordered(margin: Float[Tensor, " pair"]) -> Bool[Tensor, " pair"]:
    """Whether the chosen response is at least as likely."""
    return margin >= 0


def accuracy_of(margin: Float[Tensor, " pair"]) -> float:
    """The share of pairs with a positive margin; a tie counts half."""
    return float((margin.double().sign() + 1).mean() / 2)


def ideal_margin(
    reference_margin: Float[Tensor, " pair"], preference_rate: Float[Tensor, " pair"], beta: float
) -> Float[Tensor, " pair"]:
    """log π*(y_w)/π*(y_l) of DPO's optimum: the reference's margin plus logit(p)/β, p the share of annotators
    who prefer the chosen response. Where all agree, the other share is a thousandth, as in the paper."""
    rate, other = preference_rate, 1 - preference_rate
    rate, other = (torch.where(share == 0, 1e-3, share) for share in (rate, other))
    return reference_margin + (rate.log() - other.log()) / beta


def loss_that_orders(reference_margin: Float[Tensor, " pair"], beta: float) -> Float[Tensor, " pair"]:
    """The DPO loss at or below which the policy itself orders the pair right: −log σ(−β margin)."""
    return -F.logsigmoid(-beta * reference_margin)


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Pairs between two quantiles of the reference's margin for the wrong order. ``flipped`` is the share of
    the pairs that the reference orders wrongly and the policy correctly; None without such pairs."""

    low: float
    high: float
    pairs: int
    accuracy: float
    flipped: float | None


@dataclass(frozen=True, slots=True)
class PolicyRanking:
    """Ranking by the policy's likelihood: ``accuracy``, the same ``per_token`` and of the ``reference``; of
    the ``implicit`` reward (what trainers log); ``ideal`` by β, for a perfect optimiser; and
    ``by_difficulty``."""

    accuracy: float
    interval: Interval
    per_token: float
    reference: float
    implicit: float
    ideal: dict[float, float]
    by_difficulty: tuple[Difficulty, ...]
    pairs: int

    @property
    def alignment_gap(self) -> float:
        """The best idealised accuracy minus that of the policy."""
        return max(self.ideal.values()) - self.accuracy

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"alignment_gap": self.alignment_gap}


def policy_ranking(
    policy: PairLogps,
    reference: PairLogps,
    preference_rate: Float[Tensor, " pair"] | float = 0.75,
    *,
    betas: Sequence[float] = BETAS,
    quantiles: int = 4,
    confidence: float = 0.95,
) -> PolicyRanking:
    """The ranking accuracy of a policy, observed and idealised; a tie counts half. Chen et al., 2024, arXiv
    2405.19534.
    ``preference_rate`` is the share of annotators who prefer the chosen response, 0.75 in the paper.

    Raises:
        PreferoError: there are no pairs, or a log-probability is not a number.
    """
    margin, before = policy.margin(), reference.margin()
    if not len(margin):
        raise PreferoError("a ranking accuracy needs at least one pair; got none.")
    for name, values in (("policy", margin), ("reference", before)):
        if values.isnan().any():
            wrong = int(values.isnan().nonzero()[0]) + 1
            raise PreferoError(f"the {name}'s margin of pair {wrong} is not a number.")
    rate = torch.as_tensor(preference_rate, dtype=before.dtype).expand_as(before)
    accuracy = accuracy_of(margin)
    return PolicyRanking(
        accuracy,
        wilson(accuracy, len(margin), confidence),
        accuracy_of(policy.margin(per_token=True)),
        accuracy_of(before),
        accuracy_of(margin - before),
        {beta: accuracy_of(ideal_margin(before, rate, beta)) for beta in betas},
        difficulties(margin, before, quantiles),
        len(margin),
    )


def difficulties(
    margin: Float[Tensor, " pair"], reference_margin: Float[Tensor, " pair"], quantiles: int
) -> tuple[Difficulty, ...]:
    """Accuracy and flips of pairs of similar difficulty, in groups of nearly equal size."""
    wrongness, order = (-reference_margin).sort(stable=True)
    margin, right, was_right = margin[order], ordered(margin)[order], ordered(reference_margin)[order]
    groups = []
    for place in torch.arange(len(order)).tensor_split(min(quantiles, len(order))):
        flippable = ~was_right[place]
        groups.append(
            Difficulty(
                float(wrongness[place[0]]),
                float(wrongness[place[-1]]),
                len(place),
                accuracy_of(margin[place]),
                share(right[place][flippable]) if flippable.any() else None,
            )
        )
    return tuple(groups)


def share(of: Bool[Tensor, " pair"]) -> float:
    """The share of the pairs for which something is true."""
    return float(of.double().mean())


Scores = Sequence[Sequence[float]]
"""The scores of the two responses of each pair."""


@dataclass(frozen=True, slots=True)
class ReversalAccuracy:
    """Accuracies on pairs whose first response is preferred under context a, the second under b; their mean,
    and the share of pairs that are right under both. ``no_context`` is ½ for a scorer without ties."""

    under_a: float
    under_b: float
    context_specific: float
    both: float
    no_context: float | None


def reversal_accuracy(under_a: Scores, under_b: Scores, without: Scores | None = None) -> ReversalAccuracy:
    """The accuracy under contexts that reverse the preference. A tie counts as wrong."""
    right_a = [first > second for first, second in under_a]
    right_b = [second > first for first, second in under_b]
    both = [a and b for a, b in zip(right_a, right_b, strict=True)]
    decided = None if without is None else [first != second for first, second in without]
    accuracy_a, accuracy_b = fmean(right_a), fmean(right_b)
    return ReversalAccuracy(
        accuracy_a,
        accuracy_b,
        (accuracy_a + accuracy_b) / 2,
        fmean(both),
        None if decided is None else fmean(decided) / 2,
    )


Table = Float[Tensor, "prompt context"]


@dataclass(frozen=True, slots=True)
class ContextError:
    """A preference averaged over contexts, its estimate, and the two parts of the bound on their
    difference."""

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
    """|Σ_z p(z) f(z) − Σ_z p̂(z) f̂(z)| ≤ Σ_z p(z) |f − f̂| + TV(p, p̂), per prompt; the paper has a similar
    bound. The tables are the probabilities of contexts and of the first response being preferred in them."""
    return ContextError(
        (contexts * preference).sum(-1),
        (estimated_contexts * estimate).sum(-1),
        (contexts * (preference - estimate).abs()).sum(-1),
        (contexts - estimated_contexts).abs().sum(-1) / 2,
    )
