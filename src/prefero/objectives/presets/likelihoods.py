"""Likelihoods with no reference in the reward: each response on its own, or a pair beside a pull to the
reference."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective, negative_log_likelihood, penalty
from prefero.objectives.contrasts import Comparisons, Each
from prefero.objectives.links import Link, logistic, smoothed
from prefero.objectives.quantities import Column, Logp, Measured, log_odds, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.registry import Equal, published
from prefero.objectives.signals import forward_kl


@published(
    title="ASFT: aligned supervised fine-tuning",
    paper="p026",
    citation="Wang et al., 2024, arXiv 2409.10571; code turbo-llm/turbo-alignment",
    equation=("−log p(y_w) + λ [−log σ(β log-odds(y_w)) − log σ(−β log-odds(y_l))], p = exp(1/|y| log π(y))"),
    feedback={"pairs"},
    relatives=(
        "ORPO puts the difference of the same log-odds into one sigmoid; ASFT has a term for each response, "
        "at β = 1 −log p(y_w) − log(1 − p(y_l)), and is never below ORPO at equal λ. The original has "
        "no β. λ = 1 is what a later comparison found best; the paper's own is not certain. Anchored SFT is "
        "another method."
    ),
    pitfalls=(
        "p must be per token: with the whole response's probability 1 − p is 1 and the rejected term "
        "disappears. An unlikely rejected response is hardly pushed."
    ),
    equals=(Equal("nll", at={"lam": 0.0}, given={"tokens": "mean"}),),
)
def asft(lam: NonNegative = 1.0, beta: Positive = 1.0) -> Objective:
    """One stage without a reference: imitate the chosen response, raise its likelihood, lower the rejected
    one's."""
    odds = beta * Logp().mean().map(log_odds)
    up, down = Compare(odds, Each("chosen")), Compare(odds, Each("rejected", sign=-1))
    return negative_log_likelihood("chosen") + lam * (up + down)


Labels = Literal["hard", "soft", "soft_cross_entropy"]


def preference_labels(labels: Labels) -> Link:
    """−log σ(z), or KL or cross-entropy from the share of annotators who agree to σ(z)."""
    if labels == "hard":
        return logistic
    agree = Column("preference")

    def disagree(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return 1 - agree(comparisons.batch)

    cross_entropy = smoothed(disagree)
    if labels == "soft_cross_entropy":
        return cross_entropy

    def divergence(margins: Tensor, comparisons: Comparisons) -> Tensor:
        p = agree(comparisons.batch)
        own_entropy = torch.special.entr(p) + torch.special.entr(1 - p)
        return cross_entropy(margins, comparisons) - own_entropy

    return divergence


@published(
    title="TYPO: preferences without a reference, beside a pull to it",
    paper="p036",
    citation="Hu et al., 2024, arXiv 2407.09072",
    equation="KL(p* ‖ σ(log π(y_w) − log π(y_l))) + λ KL(π_ref ‖ π), on samples y ~ π_ref",
    feedback={"pairs", "samples"},
    relatives=(
        "The pair's term has neither β nor a reference. `sample` is a response of the fixed reference, to "
        "the pair's prompt or one without a pair; its mean log π_ref − log π has the gradient of supervised "
        "fine-tuning on it (divergence: sampled), and adding the divergences of whole next-token "
        "distributions estimates the same with less noise (whole). With soft labels p* is the column "
        "preference; the cross-entropy differs from KL by a constant. The formula is recalled from the paper "
        "and agrees with summaries of it; λ = 0.1 is a suggestion."
    ),
    pitfalls=(
        "Summed log-probabilities make the pair's term sharp on long responses, and there is no β to "
        "soften it: `tokens: mean` does, at the price of the theory."
    ),
    equals=(Equal("dpo_posterior", at={"lam": 0.0}, given={"beta": 1.0}),),
)
def typo(
    lam: NonNegative = 0.1,
    labels: Labels = "hard",
    tokens: Literal["sum", "mean"] = "sum",
    divergence: Literal["sampled", "whole"] = "sampled",
) -> Objective:
    """Goes from the preference model's own policy (λ → 0) to the reference (λ → ∞), and stays where the
    reference is already right.

    Sampled, the divergence of one response may be negative: its mean is not.
    """
    reward = Logp().sum() if tokens == "sum" else Logp().mean()
    away = -log_ratio().sum() if divergence == "sampled" else Measured(forward_kl()).sum()
    return Compare(reward, link=preference_labels(labels)) + lam * penalty(away, "sample")
