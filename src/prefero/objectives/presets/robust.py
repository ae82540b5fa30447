"""What sees the whole step: aggregation that is robust to noisy pairs, to the worst group, to outliers; β and
margins that follow the step's own margins; and WPO's weight."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.objectives import slots
from prefero.objectives.compare import Compare, Objective, RunningStatistic
from prefero.objectives.contrasts import Comparisons
from prefero.objectives.links import squared
from prefero.objectives.quantities import Column, Logp, log_ratio
from prefero.objectives.ranges import AtLeastOne, NonNegative, NonZeroShare, OpenShare, Positive, Real, Share
from prefero.objectives.reductions import Normalisation, Term, soft_minimum, worst_group
from prefero.objectives.registry import Equal, published


@published(
    title="WPO: weighted preference optimization",
    paper="p139",
    citation="Zhou et al., 2024, arXiv 2406.11827",
    equation="min(1, w(y_w) w(y_l)) · DPO, w(y) = exp(1/|y| Σ_t [log π(y_t) − log Σ_v π(v)²]), no gradient",
    settings={"default": {"beta": 0.01, "learning_rate": 5e-7}},
    relatives=(
        "The mean is over pairs, not over weights, so weights below 1 also shrink the step. As `weight: wpo` "
        "it goes with any method that compares responses. The clamp is on the product, as in the authors' "
        "code; their text has none, nor has TRL (clamp: null). alignment: greedy divides by what greedy text "
        "would score, none by nothing."
    ),
    pitfalls=(
        "Off-policy pairs weigh far less than 1, so the effective learning rate is smaller than DPO's. The "
        "weight is not monotone in a response's probability: more certain than a sample counts above 1."
    ),
)
def wpo(
    beta: Positive = 0.01,
    alignment: Literal["sampled", "greedy", "none"] = "sampled",
    clamp: Positive | None = 1.0,
) -> Objective:
    """DPO whose pairs count as much as the policy itself would write them."""
    return Compare(beta * log_ratio().sum(), weight=slots.wpo(alignment, clamp))


@published(
    title="Dr. DPO: distributionally robust DPO",
    paper="p098",
    citation="Wu et al., 2024, arXiv 2407.07880",
    equation="−β′ log mean_i exp(−ℓ_i/β′), ℓ = DPO",
    relatives=(
        "Pairs with a high loss count less: noise is taken to be there, so the sign is opposite to "
        "worst-case robustness. The mean is over the optimizer step; the authors' code takes it over each "
        "micro-batch of a device and averages (micro_batch: its number of pairs). On other methods' "
        "comparisons it is `reduce: soft_minimum`."
    ),
    equals=(Equal("dpo", at={"beta_prime": 1e9}), Equal("dpo", at={"micro_batch": 1})),
    pitfalls=(
        "At extreme noise (40 % of the labels flipped) a small β′ can lock onto the flipped pairs. Small "
        "micro-batches weaken the effect, and a single pair has none."
    ),
)
def dr_dpo(
    beta: Positive = 0.1, beta_prime: Positive = 1.0, micro_batch: AtLeastOne | None = None
) -> Objective:
    """DPO averaged so that pairs that look mislabelled lose their weight."""
    return Compare(beta * log_ratio().sum(), reduce=soft_minimum(beta_prime, micro_batch))


@published(
    title="Group robust preference optimization",
    paper="p099",
    citation="Ramesh et al., 2024, arXiv 2405.20304",
    equation="max_q Σ_g q_g L_g; q_g ∝ q_g exp(η (L_g + C/√N_g))",
    settings={"gemma-2b, ipo": {"base": "ipo", "beta": 0.01, "step_size": 5e-7, "learning_rate": 6e-5}},
    relatives=(
        "The paper's own name, GRPO, belongs to another algorithm. Its algorithm draws one pair a step; its "
        "code sums over the batch (normalisation: total_count), group_mean averages within each group. "
        "Fixed weights by importance, ∝ 1/N_g, are step_size 0 with start: inverse_count; trade_off below 1 "
        "keeps a share of the uniform weights, as in the authors' bandit code. On other methods' comparisons "
        "it is `reduce: worst_group`."
    ),
    equals=(
        Equal("dpo", at={"counts": [9], "normalisation": "group_mean"}),
        Equal("dpo", at={"normalisation": "group_mean"}),
        Equal(
            "ipo",
            at={"base": "ipo", "beta": 0.2, "normalisation": "group_mean"},
            given={"tau": 0.2, "tokens": "sum"},
        ),
    ),
    pitfalls=(
        "With total_count the loss is a sum over the batch: learning rate and step size scale with the batch "
        "size, and the losses of IPO are in the thousands, so that it wants a far smaller step size than DPO."
    ),
)
def group_robust(
    counts: list[Positive] | None = None,
    beta: Positive = 0.1,
    step_size: NonNegative = 0.01,
    base: Literal["dpo", "ipo"] = "dpo",
    normalisation: Normalisation = "total_count",
    adjustment: Real = 0.0,
    trade_off: Share = 1.0,
    start: Literal["uniform", "inverse_count"] = "uniform",
) -> Objective:
    """DPO or IPO on the group of people that it serves worst.

    ``counts`` are the groups' training pairs. Without them they are counted while training goes on, which
    gives the same shares N_g/N in the long run.
    """
    reduce = worst_group(counts, step_size, normalisation, adjustment, trade_off, start)
    if base == "ipo":
        return Compare(log_ratio().sum(), link=squared, target=1 / (2 * beta), reduce=reduce)
    return Compare(beta * log_ratio().sum(), reduce=reduce)


class DynamicBeta(RunningStatistic):
    """β-DPO's scale, and the pairs that it keeps.

    Running mean and spread of the gaps move once per optimizer step, before use. In training a share ``keep``
    of the pairs is drawn without replacement, likelier the nearer their gap is to the running mean; in
    evaluation all pairs are kept. The draw is a function of the column ``pair_noise``.
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self, beta: float, alpha: float, keep: float, momentum: float, minimum: float, gap_scale: float
    ) -> None:
        super().__init__()
        self.beta, self.alpha, self.keep = beta, alpha, keep
        self.momentum, self.minimum, self.gap_scale = momentum, minimum, gap_scale
        self.register_buffer("center", torch.zeros(()))
        self.register_buffer("spread", torch.zeros(()))

    def gaps(self, comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return self.gap_scale * comparisons.margins.detach()

    def observe(self, comparisons: Comparisons) -> None:
        gaps = self.gaps(comparisons)[comparisons.mask]
        if len(gaps):
            self.center.lerp_(gaps.mean().to(self.center.dtype), 1 - self.momentum)
        if len(gaps) > 1:
            self.spread.lerp_(gaps.std().to(self.spread.dtype), 1 - self.momentum)

    def log_weight(self, comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        """Log of the weight a pair is drawn with, up to a constant."""
        # before the policy moves, all gaps and their spread are 0: no pair is an outlier then
        spread = self.spread.clamp(min=torch.finfo(self.spread.dtype).tiny)
        return -0.5 * ((self.gaps(comparisons) - self.center) / spread).square()

    def kept(self, comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        """1 for the pairs that are kept, 0 for the others."""
        mask = comparisons.mask
        if not self.training:
            return mask.to(comparisons.margins.dtype)
        noise = comparisons.batch.columns["pair_noise"].to(comparisons.margins.dtype)[:, None]
        gumbel = -(-noise.log()).log()
        order = torch.where(mask, self.log_weight(comparisons) + gumbel, -torch.inf).flatten()
        size = max(int(self.keep * int(mask.sum())), 1)
        chosen = torch.zeros_like(order).scatter(0, order.topk(size).indices, 1.0)
        return chosen.view_as(mask) * mask

    def forward(self, comparisons: Comparisons) -> Float[Tensor, ""]:
        kept = self.kept(comparisons)
        gap = (self.gaps(comparisons) * kept).sum() / kept.sum().clamp(min=1)
        return (self.beta * (1 + self.alpha * (gap - self.center))).clamp(min=self.minimum)

    def reduce(self, losses: Float[Tensor, "row comparison"], comparisons: Comparisons) -> list[Term]:
        kept = self.kept(comparisons)
        return [Term((losses * kept).sum(), kept.sum(), False, losses.sum(1))]


@published(
    title="β-DPO: dynamic β",
    paper="p038",
    citation="Wu et al., 2024, arXiv 2407.08639",
    equation="−log σ(β_batch h), β_batch = β [1 + α (mean gap of the kept pairs − running mean)]",
    relatives=(
        "The authors' code takes the gap from the bare log-ratios (gap: log_ratio), the paper reads β times "
        "that (gap: reward); the effective α differs by 1/β. Statistics move in training only."
    ),
    pitfalls=(
        "α < 0 reverses the effect: a large gap then gets a small β. A gap is one of the policy against its "
        "reference, so at the start all are 0 and nothing is filtered."
    ),
    equals=(Equal("dpo", at={"alpha": 0.0, "keep": 1.0}),),
)
def beta_dpo(
    beta: Positive = 0.1,
    alpha: Real = 0.6,
    keep: NonZeroShare = 0.8,
    momentum: OpenShare = 0.9,
    minimum: Positive = 1e-3,
    gap: Literal["log_ratio", "reward"] = "log_ratio",
) -> Objective:
    """DPO whose β follows the batch's reward gap, on the pairs whose gap is not an outlier."""
    scale = DynamicBeta(beta, alpha, keep, momentum, minimum, gap_scale=1.0 if gap == "log_ratio" else beta)
    return Compare(log_ratio().sum(), scale=scale, reduce=scale.reduce)


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
STEP_MARGINS = (
    "γ₀ is in units of reward: the authors give γ₀/β, so multiply it by β. The margins of the whole "
    "optimizer step are solved together, a micro-batch's in the authors' code, whose queue of past margins "
    "starts with eight made-up ones where this starts empty. "
)


@published(
    title="γ-SimPO: dynamic target margins",
    paper="p057",
    citation=GAMMA_PO,
    equation="−log σ(r − γ_i), r = β/|y_w| log π(y_w) − β/|y_l| log π(y_l); " + FIXED_POINT,
    settings={
        "gemma-2-9b-it": {"beta": 10.0, "gamma": 5.0, "tau": 20.0},
        "llama-3-8b-instruct": {"beta": 10.0, "gamma": 4.0, "tau": 10.0},
        "qwen": {"beta": 10.0, "gamma": 3.0, "tau": 3.0},
        "mistral": {"beta": 2.5, "gamma": 0.375, "tau": 10.0},
    },
    relatives=STEP_MARGINS + "τ → ∞ is simpo with γ = γ₀.",
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
    relatives=STEP_MARGINS
    + "The margins are shifted to a mean of 0, so τ → ∞ is dpo. γ₀ = 1 is a suggestion.",
    pitfalls="The margins of DPO at a small β are alike, and so are the targets: a small τ tells them apart.",
    equals=(Equal("dpo", at={"tau": 1e9}), Equal("dpo", at={"gamma": 0.0})),
)
def gamma_dpo(
    beta: Positive = 0.1, gamma: NonNegative = 1.0, tau: Positive = 10.0, iterations: AtLeastOne = 20
) -> Objective:
    """DPO that asks more of pairs the policy is sure of, less of ambiguous ones, and no more on average."""
    return Compare(beta * log_ratio().sum(), target=DynamicMargin(gamma, tau, iterations, shift=gamma))
