"""Rounds of sampling, labelling and training: what the loss of a round adds to DPO."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective, negative_log_likelihood, penalty
from prefero.objectives.contrasts import Comparisons
from prefero.objectives.links import hinge, logistic, smoothed
from prefero.objectives.quantities import Column, Logp, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.registry import Equal, published
from prefero.objectives.weights import score_gap


@published(
    title="Iterative reasoning preference optimization",
    paper="p108",
    citation="Pang et al., 2024, arXiv 2404.19733, eq. 1",
    equation="−log σ(β h) − α log π(c_w, y_w)/(|c_w| + |y_w|)",
    feedback={"pairs"},
    settings={"llama-2-70b-chat": {"beta": 0.1, "alpha": 1.0, "learning_rate": 7e-7}},
    relatives=(
        "The likelihood is a mean over each response's own tokens, then over examples; TRL's mean over all "
        "tokens of the batch differs. The first preprint weighted the DPO term by α instead and counted the "
        "prompt. The reference is the policy at the start of the round."
    ),
    equals=(Equal("dpo", at={"alpha": 0.0}),),
    pitfalls="Without the likelihood the chosen reasoning becomes less likely although it wins.",
)
def irpo(beta: Positive = 0.1, alpha: NonNegative = 1.0) -> Objective:
    """DPO plus the likelihood of the chosen reasoning and answer, on pairs that the answer decides."""
    return Compare(beta * log_ratio().sum()) + alpha * negative_log_likelihood("chosen", "mean")


@published(
    title="Pessimistic DPO (GSHF, offline)",
    paper="p076",
    citation="Xiong et al., 2023, arXiv 2312.11456",
    equation="−log σ(β h + κ [Γ(y_w) − Γ(y_l)])",
    feedback={"pairs", "scores"},
    relatives=(
        "Γ is the column `uncertainty`, for instance the spread of an ensemble of reward models; κ = 1 for "
        "values that are scaled already. The policy absorbs r − Γ: an uncertain chosen response pulls less."
    ),
    equals=(Equal("dpo", at={"scale": 0.0}),),
)
def pessimistic_dpo(beta: Positive = 0.1, scale: NonNegative = 1.0) -> Objective:
    """DPO that takes what a judge is unsure of off its reward."""
    uncertainty = scale * Column("uncertainty")

    def target(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return -comparisons.gap(uncertainty)

    return Compare(beta * log_ratio().sum(), target=target)


@published(
    title="Weighted DPO (OPTune)",
    paper="p113",
    citation="Chen et al., 2024, arXiv 2406.07657",
    equation="−w log σ(β₁ h), w = σ(β₂ (s_w − s_l))",
    feedback={"pairs", "scores"},
    relatives=(
        "The weight stands outside −log σ and has no gradient: dpo with the weight score_gap. Whether it is "
        "a sigmoid or the bare gap (shape: linear) could not be confirmed. Weights are not normalised; β₂ → "
        "∞ is dpo, β₂ = 0 half of it."
    ),
    aliases=("wdpo",),
)
def optune_wdpo(
    beta: Positive = 0.1, beta2: NonNegative = 1.0, shape: Literal["sigmoid", "linear"] = "sigmoid"
) -> Objective:
    """DPO in which pairs with a wide gap of scores count more."""
    return Compare(beta * log_ratio().sum(), weight=score_gap(beta2, shape))


@published(
    title="Uncertainty-enhanced preference optimization",
    paper="p144",
    citation="Wang et al., 2024, arXiv 2409.11212",
    equation="−(1−α) log σ(β h) − α log σ(−β h) − λ log π(y_w)/|s_w|",
    feedback={"pairs", "scores"},
    relatives=(
        "α is the column `flip_rate`, from the disagreement of a classifier's dropout passes "
        "(prefero.feedback.uncertainty). As printed α is never below ½, which would learn the opposite "
        "preference; the released code trains with α = 0 (labels: trusted, the default). The likelihood's "
        "sign is reversed in print. λ has no published value. The reference is the previous round's policy."
    ),
    equals=(Equal("dpo", at={"lam": 0.0}),),
    pitfalls=(
        "With labels: flip_rate, rates above ½ reverse the preference. A score near 0 makes its likelihood "
        "count without bound: scale scores away from 0."
    ),
)
def upo(
    beta: Positive = 0.1, lam: NonNegative = 0.1, labels: Literal["trusted", "flip_rate"] = "trusted"
) -> Objective:
    """DPO on self-made pairs, trusted as far as an estimator is certain of them, plus the chosen's likelihood
    (a sum over its tokens, divided by the size of its score)."""
    flip_rate = Column("flip_rate")

    def wrong(comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return flip_rate(comparisons.batch)

    link = smoothed(wrong) if labels == "flip_rate" else logistic
    size = Column("score").map(lambda score: score.abs().clamp(min=1e-6))
    return Compare(beta * log_ratio().sum(), link=link) + lam * penalty(-Logp().sum() / size, "chosen")


@published(
    title="Statistical rejection sampling optimization",
    paper="p130",
    citation="Liu et al., 2023, arXiv 2309.06657, eqs. 8–10",
    equation="sigmoid_norm: −log σ(γ h); hinge_norm: max(0, 1 − γ h); hinge: max(0, 1 − γ log π(y_w)/π(y_l))",
    feedback={"pairs"},
    settings={"t5-large": {"gamma": 0.05, "learning_rate": 1e-5}},
    relatives=(
        "What is the method's own is where the pairs come from (prefero.feedback.rejection): β there is the "
        "sampling temperature, γ here the loss's. sigmoid_norm is dpo with β = γ, hinge is SLiC without its "
        "regulariser and without a reference. Elsewhere hinge means hinge_norm."
    ),
    equals=(Equal("dpo", at={"loss": "sigmoid_norm", "gamma": 0.05}, given={"beta": 0.05}),),
    pitfalls="The hinges have no gradient beyond their margin.",
)
def rso(
    gamma: Positive = 0.05, loss: Literal["sigmoid_norm", "hinge_norm", "hinge"] = "sigmoid_norm"
) -> Objective:
    """Pairs sampled from an estimate of the optimal policy, by a logistic or a hinge loss."""
    reward = Logp().sum() if loss == "hinge" else log_ratio().sum()
    return Compare(gamma * reward, link=logistic if loss == "sigmoid_norm" else hinge)
