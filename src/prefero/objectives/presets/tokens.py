"""Every token has its own part in the margin: divergences of next-token distributions, weights, draws."""

from __future__ import annotations

from typing import Literal

from prefero.objectives.among import shorter_length
from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import TotalOf
from prefero.objectives.quantities import Column, Length, Logp, Measured, Quantity, Sides, log_ratio
from prefero.objectives.ranges import NonNegative, NonZeroShare, Positive, Real
from prefero.objectives.registry import Equal, published
from prefero.objectives.segments import RandomTokens
from prefero.objectives.signals import forward_kl, nested_risk

TOKEN_DPO = "Zeng et al., 2024, arXiv 2404.11999"
RISK_AWARE = "Zhang et al., 2025, arXiv 2505.20359"

WHOLE_DISTRIBUTIONS = (
    "It reads both models' whole next-token distributions, so cached reference log-probabilities of the "
    "responses alone cannot serve it."
)


def one_sided(divergence: Quantity) -> Quantity:
    """The divergence of the rejected response, and that of the chosen one without a gradient."""
    return Sides(chosen=divergence.detach(), rejected=divergence)


@published(
    title="Token-level DPO, first variant",
    paper="p131",
    citation=TOKEN_DPO,
    equation="−log σ(β [h − (D(y_l) − D(y_w))]), D(y) = Σ_t KL(π_ref ‖ π) at token t",
    relatives="tdpo2 at α = 1 has the same value and another gradient: it does not differentiate D(y_w).",
    pitfalls=(
        "Its gradient pushes the divergence of the chosen response up: the reason for tdpo2. "
        + WHOLE_DISTRIBUTIONS
    ),
)
def tdpo1(beta: Positive = 0.1) -> Objective:
    """DPO with the difference of the sequential forward KL of the two responses in the margin."""
    return Compare(beta * (log_ratio() + Measured(forward_kl())).sum())


@published(
    title="Token-level DPO",
    paper="p131",
    citation=TOKEN_DPO,
    equation="−log σ(β [h − α (D(y_l) − sg D(y_w))]), D(y) = Σ_t KL(π_ref ‖ π) at token t",
    relatives=(
        "Forward KL, the reference first, summed over tokens. The paper's default variant; ra_dpo2 has a "
        "risk measure in the place of the KL."
    ),
    aliases=("tdpo",),
    equals=(Equal("dpo", at={"alpha": 0.0}),),
    pitfalls="β multiplies the divergences too: α is relative to the log-ratios. " + WHOLE_DISTRIBUTIONS,
)
def tdpo2(beta: Positive = 0.1, alpha: NonNegative = 0.5) -> Objective:
    """The rejected response's divergence is held down; the chosen one's only sets the level."""
    return Compare(beta * (log_ratio() + one_sided(alpha * Measured(forward_kl()))).sum())


Risk = Literal["released_cvar", "cvar", "entropic"]


def token_risk(risk: Risk, confidence: float, split: bool, tail: float, mu: float) -> Quantity:
    """A risk measure of log π_ref − log π under π_ref, at every token."""
    if risk == "cvar":
        return Measured(nested_risk("cvar", tail=tail))
    if risk == "entropic":
        return Measured(nested_risk("entropic", mu=mu))
    return Measured(nested_risk("released_cvar", confidence=confidence, split=split))


RISKS = (
    "Φ is what the authors' code computes (released_cvar): the part of the KL above the 1 − confidence "
    "quantile of the vocabulary's log-ratios, each entry counted once, in two halves of the vocabulary where "
    "split. Beside it stand CVaR in its own sense (the worst `tail` of π_ref's probability; 1 is the KL) and "
    "the entropic risk (μ → 0 is the KL); neither has a published default."
)


@published(
    title="Risk-aware DPO, first variant",
    paper="p114",
    citation=RISK_AWARE,
    equation="−log σ(β [h − (D(y_l) − D(y_w))]), D(y) = Σ_t Φ(log π_ref − log π) under π_ref",
    aliases=("ra_dpo",),
    relatives="tdpo1 with a risk measure in the place of the expectation. " + RISKS,
    pitfalls=(
        "The paper speaks of measures that look at bad outcomes; the code's keeps the upper part of π_ref/π, "
        "so that D is at least the KL. Even at confidence 1 it leaves the smallest entry out. "
        + WHOLE_DISTRIBUTIONS
    ),
)
def ra_dpo1(
    beta: Positive = 0.1,
    risk: Risk = "released_cvar",
    confidence: NonZeroShare = 0.95,
    split: bool = True,
    tail: NonZeroShare = 0.5,
    mu: Positive = 1.0,
) -> Objective:
    """DPO with the difference of the sequential risk of the two responses in the margin."""
    return Compare(beta * (log_ratio() + token_risk(risk, confidence, split, tail, mu)).sum())


@published(
    title="Risk-aware DPO",
    paper="p114",
    citation=RISK_AWARE,
    equation="−log σ(β [h − α (D(y_l) − sg D(y_w))]), D(y) = Σ_t Φ(log π_ref − log π) under π_ref",
    relatives="tdpo2 with a risk measure in the place of the expectation. " + RISKS,
    equals=(Equal("dpo", at={"alpha": 0.0}),),
    pitfalls=WHOLE_DISTRIBUTIONS,
)
def ra_dpo2(
    beta: Positive = 0.1,
    alpha: NonNegative = 0.5,
    risk: Risk = "released_cvar",
    confidence: NonZeroShare = 0.95,
    split: bool = True,
    tail: NonZeroShare = 0.5,
    mu: Positive = 1.0,
) -> Objective:
    """The rejected response's sequential risk is held down; the chosen one's only sets the level."""
    risks = alpha * token_risk(risk, confidence, split, tail, mu)
    return Compare(beta * (log_ratio() + one_sided(risks)).sum())


@published(
    title="TGDPO: token-level reward guidance",
    paper="p116",
    citation="Zhu et al., 2025, arXiv 2506.14574",
    equation=(
        "−log σ(Σ_t β (1 + α r̂_t) Δ_t of y_w − Σ_t β (1 − α r̂_t) Δ_t of y_l), "
        "Δ = log π/π_ref, r̂ = β log π_guide/π_ref"
    ),
    relatives=(
        "The model `guide` is an aligned policy (by DPO or SimPO) that the start model became before; r̂ has "
        "the same β, so that a weight is 1 ± αβ times its log-ratio. A guide equal to the reference makes it "
        "dpo. The paper tunes α among 0.5, 1 and 2."
    ),
    equals=(Equal("dpo", at={"alpha": 0.0}),),
    pitfalls=(
        "The weights have no bounds: far from the reference the guide can turn them negative, and a token is "
        "then pushed the wrong way. `lowest_weight` bounds them (the paper does not)."
    ),
)
def tgdpo(beta: Positive = 0.1, alpha: NonNegative = 0.5, lowest_weight: Real | None = None) -> Objective:
    """A token may leave the reference the further, the more an aligned model's own log-ratio says for it."""
    credit = alpha * beta * log_ratio("guide").detach()
    weight: Quantity = Sides(chosen=1 + credit, rejected=1 - credit)
    if lowest_weight is not None:
        bound = lowest_weight
        weight = weight.map(lambda weights: weights.clamp(min=bound))
    return Compare(beta * (weight * log_ratio()).sum())


@published(
    title="SamPO: down-sampled log-ratios",
    paper="p074",
    citation="Lu et al., 2024, arXiv 2406.10957",
    equation=(
        "−log σ(β [Σ_{t∈I_w} Δ_t − Σ_{t∈I_l} Δ_t]), |I_w| = |I_l| = min(|y_w|, |y_l|) random tokens, "
        "Δ = log π/π_ref"
    ),
    settings={"default": {"beta": 0.1}, "pythia-2.8b": {"beta": 0.5}},
    relatives=(
        "Equal lengths make it dpo. The expectation over draws is sampo_averaged with the shorter length in "
        "the place of the mean length. Iterated, the reference becomes the policy after each epoch."
    ),
    pitfalls=(
        "Policy and reference count the same tokens, as in the paper; the authors' code draws for each "
        "(draws: separate), which adds noise as large as the log-probabilities themselves. Evaluation draws "
        "nothing and takes the expected margin."
    ),
)
def sampo(beta: Positive = 0.1, draws: Literal["shared", "separate"] = "shared") -> Objective:
    """Both responses count as many tokens as the shorter one has, so length alone makes no margin."""
    drawn = RandomTokens(shorter_length())
    if draws == "separate":
        return Compare(beta * (drawn * Logp() - drawn.again() * Logp("reference")).sum())
    return Compare(beta * (drawn * log_ratio()).sum())


@published(
    title="SamPO, averaged instead of sampled",
    paper="p074",
    citation="Lu et al., 2024, arXiv 2406.10957",
    equation="−log σ(β (|y_w| + |y_l|)/2 [mean_t Δ_t of y_w − mean_t Δ_t of y_l]), Δ = log π/π_ref",
    relatives="The ablation of sampo without a draw. ipo and simpo average without the lengths' factor.",
)
def sampo_averaged(beta: Positive = 0.1) -> Objective:
    """Mean log-ratios, as many times as the two responses are long on average."""
    return Compare(beta * log_ratio().mean(), scale=TotalOf(0.5 * Length()))


@published(
    title="DPO-BMC: bridging and modeling correlations",
    paper="p025",
    citation="Jiang et al., 2024, arXiv 2408.07471",
    equation=(
        "−log σ(β Σ_t λ_t Δ_t of y_w − β Σ_t λ_t Δ_t of y_l), Δ = log π/π_ref, "
        "λ = 1 + min(sg 1/π, δ) where the responses differ, else 1"
    ),
    settings={
        "question answering, mathematics": {"beta": 0.05, "delta": 2.0, "learning_rate": 5e-7},
        "instruction following": {"beta": 0.01, "delta": 2.0, "learning_rate": 5e-7},
    },
    relatives=(
        "The weights belong to the policy, and the reference has the same ones (reference_weighting: shared)."
        " The authors' code weighs the reference's log-probabilities by min(1/π_ref, δ) instead (own), so "
        "that the reward is no weighted log-ratio."
    ),
    equals=(Equal("dpo", at={"delta": 0.0}),),
    pitfalls=(
        "It is meant for pairs whose chosen response is the rejected one, corrected: of independent responses"
        " nearly every token differs. Function words are never marked."
    ),
)
def dpo_bmc(
    beta: Positive = 0.05, delta: NonNegative = 2.0, reference_weighting: Literal["shared", "own"] = "shared"
) -> Objective:
    """Where the two responses differ, a token counts the more the less the policy believes in it."""
    weight = surprise_weight("policy", delta)
    other = weight if reference_weighting == "shared" else surprise_weight("reference", delta)
    return Compare(beta * (weight * Logp() - other * Logp("reference")).sum())


def surprise_weight(model: str, most: float) -> Quantity:
    """1, and min(1/p, ``most``) more at the tokens in which the responses differ; without a gradient."""
    surprise = Logp(model).detach().map(lambda logp: (-logp).exp().clamp(max=most))
    return 1 + Column("differs") * surprise
