"""Losses that a search found, in the words of the search: DiscoPOP and its runners-up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prefero.errors import PreferoError
from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Comparisons
from prefero.objectives.expressions import Written, parse
from prefero.objectives.links import Link, OfStep, capped, exponential, hinge, logistic
from prefero.objectives.quantities import Logp, log_ratio
from prefero.objectives.ranges import Positive
from prefero.objectives.registry import Equal, published

CITATION = "Lu et al., 2024, arXiv 2406.08414"
BATCH = (
    "Its statistics are those of the whole optimizer step and pass gradients, as in the authors' code; the "
    "spread of one pair alone counts as 0."
)


def modulated(tau: float) -> Link:
    """(1 − m) softplus(−z) + m exp(−z), m = σ(z/τ)."""

    def cost(margins: Tensor, comparisons: Comparisons) -> Tensor:
        temperate = margins / tau
        # m exp(−z) as one exponential: far on the wrong side the two factors are 0 and infinity
        exponent = F.logsigmoid(temperate) - margins
        return torch.sigmoid(-temperate) * logistic(margins, comparisons) + capped(exponent).exp()

    return cost


@published(
    title="DiscoPOP (log-ratio modulated loss)",
    paper="p100",
    citation=CITATION + ", eq. 5",
    equation="(1 − m) softplus(−z) + m exp(−z), z = β h, m = σ(z/τ)",
    settings={"default": {"beta": 0.05, "tau": 0.05}},
    relatives="As TRL's discopop. τ → ∞ is cell, the even blend.",
    aliases=("lrml",),
    equals=(Equal("cell", at={"tau": 1e9}),),
    pitfalls=(
        "Not convex, and meant to be so: at τ = 0.05 the slope at z = 0, where training starts, lowers the "
        "margin, and pairs with z between about −0.12 and 0.07 are drawn to −0.12."
    ),
)
def discopop(beta: Positive = 0.05, tau: Positive = 0.05) -> Objective:
    """A logistic loss for pairs on the wrong side that turns into an exponential one on the right side."""
    return Compare(beta * log_ratio().sum(), link=modulated(tau))


@published(
    title="CELL: combined exponential and logistic loss",
    paper="p100",
    citation=CITATION,
    equation="½ exp(−z) + ½ softplus(−z), z = β h",
    relatives="discopop without its modulation.",
    pitfalls="Pairs far on the wrong side pull exponentially hard.",
)
def cell(beta: Positive = 0.05) -> Objective:
    """An even blend of the exponential and the logistic loss."""
    reward = beta * log_ratio().sum()
    return 0.5 * Compare(reward, link=exponential) + 0.5 * Compare(reward)


def padding(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """0.9 softplus(−z), halved on the wrong side."""
    return torch.where(margins < 0, 0.45, 0.9) * logistic(margins, comparisons)


@published(
    title="PADLL: performance-adaptive decay logistic loss",
    paper="p100",
    citation=CITATION,
    equation="0.9 (1 − ½ [z < 0]) softplus(−z), z = β h",
    relatives="dpo with weights 0.9 on the right side and 0.45 on the wrong one.",
    pitfalls="The loss jumps at z = 0, and pairs on the wrong side pull half as hard.",
)
def padll(beta: Positive = 0.05) -> Objective:
    """DPO in which pairs that are ordered wrongly count half."""
    return Compare(beta * log_ratio().sum(), link=padding)


class Tempered(OfStep):
    """A link of the step's margins over a temperature τ."""

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau


class DynamicBlend(Tempered):
    """v softplus(−z/0.9) + (1 − v) exp(−0.9 z), v = σ(variance of z/τ)."""

    def forward(self, margins: Tensor, comparisons: Comparisons) -> Tensor:
        blend = self.variance(margins / self.tau, comparisons.mask).sigmoid()
        first, second = logistic(margins / 0.9, comparisons), exponential(margins * 0.9, comparisons)
        return blend * first + (1 - blend) * second


@published(
    title="DBAQL: dynamic blended adaptive quantile loss",
    paper="p100",
    citation=CITATION,
    equation="v softplus(−z/0.9) + (1 − v) exp(−0.9 z), z = β h, v = σ(var(z/τ))",
    relatives=BATCH,
    pitfalls="v, and with it the loss, falls with the spread of the batch: the step may widen it instead.",
)
def dbaql(beta: Positive = 0.05, tau: Positive = 0.05) -> Objective:
    """The more the margins of a step differ, the more logistic and the less exponential their loss."""
    return Compare(beta * log_ratio().sum(), link=DynamicBlend(tau))


class AdaptiveQuantile(Tempered):
    """w softplus(−z) + (1 − w) max(0, 1 − z), w = σ(Q − z/τ), Q = ½ + 0.01 (σ(mean z/τ) − ½)."""

    def forward(self, margins: Tensor, comparisons: Comparisons) -> Tensor:
        temperate = margins / self.tau
        quantile = 0.5 + 0.01 * (self.mean(temperate, comparisons.mask).sigmoid() - 0.5)
        weight = (quantile - temperate).sigmoid()
        return weight * logistic(margins, comparisons) + (1 - weight) * hinge(margins, comparisons)


@published(
    title="AQL: adaptive quantile loss",
    paper="p100",
    citation=CITATION,
    equation=(
        "w softplus(−z) + (1 − w) max(0, 1 − z), z = β h, w = σ(Q − z/τ), Q = ½ + 0.01 (σ(mean z/τ) − ½)"
    ),
    relatives=BATCH,
    pitfalls="Not convex: between the two losses the slope can point the wrong way.",
)
def aql(beta: Positive = 0.05, tau: Positive = 0.05) -> Objective:
    """Logistic below a quantile of the margins that hardly moves, a hinge above it."""
    return Compare(beta * log_ratio().sum(), link=AdaptiveQuantile(tau))


class AdaptiveFeedback(Tempered):
    """b softplus(−z) + (1 − b) max(0, 1 − z), b = σ(0.1 |z/τ − Q|), where Q is 0.95 times the standard
    deviation of z/τ times the mean of σ(−z/τ), plus 0.05 σ(mean z/τ)."""

    def forward(self, margins: Tensor, comparisons: Comparisons) -> Tensor:
        temperate, mask = margins / self.tau, comparisons.mask
        quantile = 0.95 * self.deviation(temperate, mask) * self.mean((-temperate).sigmoid(), mask)
        quantile = quantile + 0.05 * self.mean(temperate, mask).sigmoid()
        blend = (0.1 * (temperate - quantile).abs()).sigmoid()
        return blend * logistic(margins, comparisons) + (1 - blend) * hinge(margins, comparisons)


@published(
    title="AQFL: adaptive quantile feedback loss",
    paper="p100",
    citation=CITATION,
    equation=(
        "b softplus(−z) + (1 − b) max(0, 1 − z), z = β h, b = σ(0.1 |z/τ − Q|), "
        "Q = 0.95 std(z/τ) mean σ(−z/τ) + 0.05 σ(mean z/τ)"
    ),
    relatives=BATCH,
    pitfalls="At equal margins the loss of a hinge never counts more than that of the logistic.",
)
def aqfl(beta: Positive = 0.05, tau: Positive = 0.05) -> Objective:
    """A blend of logistic loss and hinge by how far a margin is from a quantile of its step."""
    return Compare(beta * log_ratio().sum(), link=AdaptiveFeedback(tau))


def performance_factored(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """½ softplus(−z) where the policy finds the chosen response likelier; else 2 max(0, 1 − z)."""
    likelier = comparisons.gap(Logp().sum()) > 0
    return torch.where(likelier, 0.5 * logistic(margins, comparisons), 2 * hinge(margins, comparisons))


@published(
    title="PFL: performance factored loss",
    paper="p100",
    citation=CITATION,
    equation="½ softplus(−z) if log π(y_w) > log π(y_l), else 2 max(0, 1 − z); z = β h",
    relatives="Which of the two it is depends on the policy's own log-probabilities, not on the margin z.",
    pitfalls="The loss jumps where the order of the two likelihoods changes.",
)
def pfl(beta: Positive = 0.05) -> Objective:
    """A steep hinge for pairs that the policy orders wrongly, a gentle logistic loss for the others."""
    return Compare(beta * log_ratio().sum(), link=performance_factored)


@published(
    title="A loss written as an expression",
    paper="p100",
    citation="The losses that a search proposes; the search is that of " + CITATION,
    equation="loss",
    relatives=(
        "What a search finds, as a method (prefero_lab.discovery). The language is that of "
        "prefero.objectives.expressions: numbers, arithmetic, a few functions, and the quantities of a pair. "
        "softplus(-z) is dpo."
    ),
    equals=(
        Equal("dpo", at={"loss": "softplus(-z)"}),
        Equal("discopop", at={"loss": "softplus(-z) * sigmoid(-z/0.05) + exp(logsigmoid(z/0.05) - z)"}),
        Equal(
            "simpo",
            at={"loss": "softplus(1 - 2 * (chosen_mean_logp - rejected_mean_logp))"},
            given={"beta": 2.0, "gamma": 1.0},
        ),
    ),
    pitfalls="Any loss can be written, also one that diverges: the search screens what it proposes.",
)
def expression(loss: str = "softplus(-z)", beta: Positive = 0.1) -> Objective:
    """The loss of a pair as you write it; it is read, never run as code."""
    written = parse(loss)
    if not written.trains:
        raise PreferoError(
            f"the loss {written.text!r} does not depend on the policy, so that it trains nothing. Write it "
            "with z, a ratio or a log-probability, outside of detach and of comparisons"
        )
    reward = log_ratio().sum() if written.reads_reference else Logp().mean()
    return Compare(beta * reward, link=Written(written, beta))
