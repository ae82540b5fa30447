"""Other rewards for the same comparison: the reference weighs differently, or the log-ratio is reshaped."""

from __future__ import annotations

import torch.nn.functional as F

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.quantities import Logp, Sides, log_ratio
from prefero.objectives.ranges import NonNegative, OpenShare, Positive
from prefero.objectives.registry import Equal, published
from prefero.objectives.targets import Offset, score_gap
from prefero.objectives.transforms import Divergence, derivative


@published(
    title="H-DPO: entropy-controllable DPO",
    paper="p030",
    citation="Omura et al., 2024, arXiv 2411.07595",
    equation="−log σ(αβ [log π(y_w) − log π(y_l)] − β [log π_ref(y_w) − log π_ref(y_l)])",
    feedback={"pairs"},
    settings={"7b": {"beta": 0.01, "alpha": 0.95}},
    relatives=(
        "dpo with β′ = αβ and the reference's log-probabilities over α. α multiplies the policy's terms "
        "only; of the whole margin it would only change β."
    ),
    pitfalls=(
        "At the start the loss is not log 2 unless α = 1: its argument is (α − 1) β times the reference's "
        "margin. α is not a sampling temperature."
    ),
    equals=(Equal("dpo", at={"alpha": 1.0}),),
)
def h_dpo(beta: Positive = 0.1, alpha: Positive = 0.95) -> Objective:
    """DPO whose optimum has its entropy multiplied: α < 1 sharper, α > 1 more diverse."""
    return Compare(alpha * beta * Logp().sum() - beta * Logp("reference").sum())


@published(
    title="DPO with a scaled reference",
    paper="p143",
    citation="Chen et al., 2024, arXiv 2405.19534",
    equation="−log σ(β [log π(y_w)/π(y_l) − γ log π_ref(y_w)/π_ref(y_l)])",
    feedback={"pairs"},
    relatives=(
        "h_dpo scales the policy's terms instead: the two are the same up to β. γ = 0 leaves the reference "
        "out. The default γ is ours: the paper sweeps it."
    ),
    equals=(
        Equal("dpo", at={"gamma": 1.0}),
        Equal("h_dpo", at={"beta": 0.1, "gamma": 0.5}, given={"beta": 0.05, "alpha": 2.0}),
    ),
    pitfalls="A small γ makes wrong rankings of the reference easier to turn, and the policy drift further.",
)
def dpo_gamma(beta: Positive = 0.1, gamma: NonNegative = 0.5) -> Objective:
    """DPO that must make up for only a share γ of what the reference ranks wrongly."""
    return Compare(beta * Logp().sum() - beta * gamma * Logp("reference").sum())


@published(
    title="f-DPO: other divergences than reverse KL",
    paper="p046",
    citation="Wang et al., 2023, arXiv 2309.16240",
    equation="−log σ(β [f′(v_w) − f′(v_l)]), v = π/π_ref of the whole response",
    feedback={"pairs"},
    relatives=(
        "TRL's alpha is 1 − alpha here. Divergences are to be compared at their own best β: at equal β they "
        "differ in sharpness. Total variation and χ² do not qualify: their f′ has no inverse."
    ),
    pitfalls=(
        "The ratio is the whole response's, so e^{−u} is huge once the policy has left a response: the "
        "exponent is capped, and gradients vanish on the other side (σ(−u) for jsd, e^{−u} for forward_kl)."
    ),
    equals=(
        Equal("dpo", at={"divergence": "reverse_kl"}),
        Equal("f_dpo", at={"divergence": "alpha", "alpha": 1e-9}, given={"divergence": "reverse_kl"}),
        Equal("f_dpo", at={"divergence": "alpha", "alpha": 1 - 1e-9}, given={"divergence": "forward_kl"}),
    ),
)
def f_dpo(beta: Positive = 0.1, divergence: Divergence = "reverse_kl", alpha: OpenShare = 0.5) -> Objective:
    """The reward is β f′(π/π_ref) for the divergence f that regularises: reverse KL (DPO), forward KL,
    Jensen–Shannon, or the α-divergence, which goes from reverse (α → 0) to forward KL (α → 1)."""
    return Compare(beta * log_ratio().sum().map(derivative(divergence, alpha)))


@published(
    title="DPO-Positive (Smaug)",
    paper="p101",
    citation="Pal et al., 2024, arXiv 2402.13228",
    equation="−log σ(β [h − λ max(0, log π_ref(y_w) − log π(y_w))])",
    feedback={"pairs"},
    relatives=(
        "The penalty is per response, inside the sigmoid, and multiplied by β; the paper also tried λ = 5 "
        "and 500."
    ),
    pitfalls=(
        "The hinge is on the whole response: one token by token is another method. λ = 50 only bites once "
        "the chosen response is less likely than at the start."
    ),
    equals=(Equal("dpo", at={"lam": 0.0}),),
)
def dpop(beta: Positive = 0.3, lam: NonNegative = 50.0) -> Objective:
    """DPO that is charged when the chosen response gets less likely than under the reference."""
    ratio = log_ratio().sum()
    # relu, not clamp: its gradient at 0, where training starts, is 0, so the first step is DPO's
    shortfall = ratio.map(lambda u: F.relu(-u))
    return Compare(Sides(chosen=beta * (ratio - lam * shortfall), rejected=beta * ratio))


@published(
    title="DPO with an offset",
    paper="p043",
    citation="Amini et al., 2024, arXiv 2402.10571",
    equation="−log σ(β h − α f(s_w − s_l)), f = log",
    feedback={"pairs", "scores"},
    settings={
        "imdb": {"beta": 0.7, "alpha": 0.5},
        "toxicity": {"beta": 0.05, "alpha": 1.0},
        "tl;dr": {"beta": 0.5, "alpha": 1.0},
    },
    relatives=(
        "The offset is outside β. f may also be nothing (identity), or the gap of log-scores, log(s_w/s_l), "
        "for positive ones (log_ratio). modpo's margin is another objective's; dynamic ones are gamma_dpo's."
    ),
    pitfalls=(
        "The logarithm of a gap below 1 is negative and relaxes the margin. What it is taken of is held at "
        "1e-6 and above, which is −13.8, so pairs with equal scores should be left out."
    ),
    equals=(Equal("dpo", at={"alpha": 0.0}),),
)
def odpo(beta: Positive = 0.1, alpha: NonNegative = 1.0, offset: Offset = "log") -> Objective:
    """The better the chosen response is scored, the larger the margin it must win by."""
    return Compare(beta * log_ratio().sum(), target=score_gap(alpha, offset))
