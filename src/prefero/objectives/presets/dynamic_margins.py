"""Margins of every pair's own, larger where the pair is already won: γ-PO."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective, RunningStatistic
from prefero.objectives.contrasts import Comparisons
from prefero.objectives.quantities import Column, Logp, log_ratio
from prefero.objectives.ranges import AtLeastOne, NonNegative, Positive
from prefero.objectives.registry import Equal, published

REMEMBERED, JOINTLY = 2048, 256
"""How many past margins are kept, and how many, with those of the step, share one inner problem."""


class DynamicMargin(RunningStatistic):
    """A target for every pair: γ_i = γ₀ N p_i less ``shift``, no gradient.

    p solves min_p Σ_i (1/N) (−log σ(r_i − γ₀ N p_i)) + τ KL(p ‖ uniform) on the simplex over the step's
    margins and some of the past ones, by ``iterations`` − 1 exponentiated-gradient steps from uniform: as in
    the authors' code, γ is formed before the last of them. Pairs with large margins get large targets; their
    mean over all N is γ₀ − ``shift``.

    In training the step's margins join the ``past`` ones, a queue with the newest at its end. The past that
    joins a step is spread evenly over the queue, from an offset out of the column ``pair_noise``, so that
    each of its margins is as likely as any other.
    """

    past: Tensor
    kept: Tensor

    def __init__(self, gamma: float, tau: float, iterations: float, shift: float = 0.0) -> None:
        super().__init__()
        self.gamma, self.tau, self.iterations, self.shift = gamma, tau, iterations, shift
        self.noise = Column("pair_noise")
        self.register_buffer("past", torch.zeros(REMEMBERED))
        self.register_buffer("kept", torch.zeros(()))

    def observe(self, comparisons: Comparisons) -> None:
        new = comparisons.margins.detach()[comparisons.mask].to(self.past.dtype)
        self.past.copy_(torch.cat([self.past, new])[-REMEMBERED:])
        self.kept.copy_((self.kept + len(new)).clamp(max=REMEMBERED))

    def history(self, comparisons: Comparisons) -> Float[Tensor, " past"]:
        """The past margins that join the step's; in training the newest of the queue are the step's own."""
        # read also where nothing is past yet: what is read at the start is what will be drawn
        offset = self.noise(comparisons.batch)[comparisons.mask.any(1)].sum() % 1
        number = int(comparisons.mask.sum())
        end = REMEMBERED - (number if self.training else 0)
        past = self.past[REMEMBERED - int(self.kept) : max(end, 0)]
        count = min(len(past), max(JOINTLY - number, 0))
        places = (torch.arange(count, device=past.device) + offset) * (len(past) / max(count, 1))
        return past[places.long().clamp(max=len(past) - 1)]

    def forward(self, comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        own = comparisons.margins.detach()[comparisons.mask]
        targets = torch.zeros_like(comparisons.margins)
        joined = torch.cat([own, self.history(comparisons).to(own)])
        targets[comparisons.mask] = self.solved(joined)[: len(own)]
        return torch.where(comparisons.mask, targets - self.shift, 0)

    def solved(self, margins: Float[Tensor, " pair"]) -> Float[Tensor, " pair"]:
        """γ₀ N p of the inner problem."""
        log_np = torch.zeros_like(margins)
        if not len(margins):
            return log_np
        rate = min(0.5 / self.tau, 1.0)
        for _ in range(int(self.iterations) - 1):
            pull = self.gamma * torch.sigmoid(self.gamma * log_np.exp() - margins)
            log_np = log_np - rate * (self.tau * (1 + log_np) + pull)
            log_np = F.log_softmax(log_np, dim=0) + math.log(len(margins))
        return self.gamma * log_np.exp()


GAMMA_PO = (
    "Sun et al., 2025, Robust preference optimization via dynamic target margins; code sunjie279/gammaPO"
)
FIXED_POINT = (
    "γ_i = γ₀ N p_i, p_i ∝ exp(−(γ₀/τ) σ(γ_i − r_i)) over the step's margins r and up to 256 with past ones"
)
NAMES = (
    "γ₀ is in units of reward: the authors give γ₀/β, so multiply it by β. The margins of the whole "
    "optimizer step are solved together, a micro-batch's in the authors' code, whose queue of past margins "
    "starts with eight made-up ones where this starts empty. "
)


@published(
    title="γ-SimPO: dynamic target margins",
    paper="p057",
    citation=GAMMA_PO,
    equation="−log σ(r − γ_i), r = β/|y_w| log π(y_w) − β/|y_l| log π(y_l); " + FIXED_POINT,
    feedback={"pairs"},
    settings={
        "gemma-2-9b-it": {"beta": 10.0, "gamma": 5.0, "tau": 20.0},
        "llama-3-8b-instruct": {"beta": 10.0, "gamma": 4.0, "tau": 10.0},
        "qwen": {"beta": 10.0, "gamma": 3.0, "tau": 3.0},
        "mistral": {"beta": 2.5, "gamma": 0.375, "tau": 10.0},
    },
    relatives=NAMES + "τ → ∞ is simpo with γ = γ₀.",
    pitfalls=(
        "The gain over a fixed margin is small; what can be relied on is that pairs which look mislabelled "
        "get the smaller targets."
    ),
    equals=(Equal("simpo", at={"tau": 1e9}),),
)
def gamma_simpo(
    beta: Positive = 10.0, gamma: NonNegative = 4.0, tau: Positive = 10.0, iterations: AtLeastOne = 20
) -> Objective:
    """SimPO whose margin is larger for pairs the policy is sure of, smaller for ambiguous ones."""
    return Compare(beta * Logp().mean(), target=DynamicMargin(gamma, tau, iterations))


@published(
    title="γ-DPO: dynamic target margins",
    paper="p057",
    citation=GAMMA_PO,
    equation="−log σ(r − (γ_i − γ₀)), r = β h; " + FIXED_POINT,
    feedback={"pairs"},
    relatives=NAMES + "The margins are shifted to a mean of 0, so τ → ∞ is dpo. γ₀ = 1 is a suggestion.",
    pitfalls="The margins of DPO at a small β are alike, and so are the targets: a small τ tells them apart.",
    equals=(Equal("dpo", at={"tau": 1e9}), Equal("dpo", at={"gamma": 0.0})),
)
def gamma_dpo(
    beta: Positive = 0.1, gamma: NonNegative = 1.0, tau: Positive = 10.0, iterations: AtLeastOne = 20
) -> Objective:
    """DPO that asks more of pairs the policy is sure of, less of ambiguous ones, and no more on average."""
    return Compare(beta * log_ratio().sum(), target=DynamicMargin(gamma, tau, iterations, shift=gamma))
