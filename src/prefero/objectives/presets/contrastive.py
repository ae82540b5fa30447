"""A preference between likelihoods and the likelihood of the chosen response, without a reference: CPO, ORPO,
SLiC."""

from __future__ import annotations

from typing import Literal

from prefero.objectives.compare import Compare, Objective, negative_log_likelihood
from prefero.objectives.links import rectified, smoothed, squared
from prefero.objectives.presets.pairs import LINKS
from prefero.objectives.quantities import Logp, log_odds
from prefero.objectives.ranges import FlipRate, NonNegative, Positive
from prefero.objectives.registry import Equal, published

CPO = "Xu et al., 2024, arXiv 2401.08417"


@published(
    title="CPO: contrastive preference optimization",
    citation=CPO,
    equation="−log σ(β log π(y_w) − β log π(y_l)) − λ · mean over chosen tokens of log π(y_w)",
    feedback={"pairs"},
    settings={"alma-13b": {"beta": 0.1, "lam": 1.0}},
    relatives=(
        "tpo_triple with the chosen response as the gold one. The likelihood is a mean over all chosen "
        "tokens of the step, as in the authors' code and TRL (cpo_alpha). Other papers call other methods "
        "CPO: chain of preference, controllable."
    ),
    pitfalls="Sums of log-probabilities have no reference to be measured from: long responses lose.",
)
def cpo(
    beta: Positive = 0.1,
    lam: NonNegative = 1.0,
    smoothing: FlipRate = 0.0,
    link: Literal["logistic", "hinge"] = "logistic",
) -> Objective:
    """DPO with a uniform reference, plus the likelihood of the chosen response that holds it in place."""
    preference = Compare(beta * Logp().sum(), link=smoothed(smoothing, LINKS[link]))
    return preference + lam * negative_log_likelihood("chosen", "batch")


@published(
    title="CPO with the square loss of IPO",
    citation=CPO + "; TRL's CPO trainer, loss ipo",
    equation=(
        "(1/|y_w| log π(y_w) − 1/|y_l| log π(y_l) − 1/(2τ))² − λ · mean over the tokens of y₀ of log π(y₀), "
        "y₀ = y_w or a gold response"
    ),
    feedback={"pairs"},
    relatives=(
        "ipo (tokens: mean) with a uniform reference, plus a likelihood; τ is TRL's beta. With the gold "
        "response (baseline: gold) it is the square loss of TRL's TPO trainer."
    ),
)
def cpo_ipo(
    tau: Positive = 0.1, lam: NonNegative = 1.0, baseline: Literal["chosen", "gold"] = "chosen"
) -> Objective:
    """The margin of mean log-probabilities regressed on 1/(2τ), plus the likelihood of a response."""
    preference = Compare(Logp().mean(), link=squared, target=1 / (2 * tau))
    return preference + lam * negative_log_likelihood(baseline, "batch")


@published(
    title="CPO-SimPO",
    citation="Xu et al., 2024, github.com/fe1ixxu/CPO_SIMPO; SimPO: Meng et al., 2024, arXiv 2405.14734",
    equation=(
        "−log σ(β/|y_w| log π(y_w) − β/|y_l| log π(y_l) − γ) − λ · mean over chosen tokens of log π(y_w)"
    ),
    feedback={"pairs"},
    settings={"llama-3-8b-instruct": {"beta": 10.0, "gamma": 5.4, "lam": 0.05, "learning_rate": 1e-6}},
    relatives="tpo_l with the chosen response as the gold one. γ is TRL's simpo_gamma, outside β.",
    equals=(Equal("simpo", at={"lam": 0.0}),),
)
def cpo_simpo(
    beta: Positive = 10.0,
    gamma: NonNegative = 5.4,
    lam: NonNegative = 0.05,
    smoothing: FlipRate = 0.0,
) -> Objective:
    """SimPO plus the likelihood of the chosen response."""
    preference = Compare(beta * Logp().mean(), link=smoothed(smoothing), target=gamma)
    return preference + lam * negative_log_likelihood("chosen", "batch")


@published(
    title="ORPO: odds ratio preference optimization",
    citation="Hong et al., 2024, arXiv 2403.07691, eqs. 6 and 7",
    equation=("NLL(y_w) − λ log σ(log p_w/(1−p_w) − log p_l/(1−p_l)), p = exp(1/|y| log π(y))"),
    feedback={"pairs"},
    settings={"mistral-7b": {"lam": 0.1, "learning_rate": 5e-6}, "phi-2": {"lam": 0.25}},
    relatives=(
        "The likelihood is a mean over the tokens of the chosen responses (text: response, as the paper's "
        "equation), or of their prompts too (text: whole), as the authors' code and TRL compute it: the two "
        "are not multiples of each other. λ is TRL's beta. rationale_orpo takes the odds of sums."
    ),
    pitfalls="A likelihood near 1 per token has odds near infinity: a copied response dominates.",
)
def orpo(lam: NonNegative = 0.1, text: Literal["response", "whole"] = "response") -> Objective:
    """Supervised fine-tuning in one stage with a preference between odds; no reference."""
    address = "chosen" if text == "response" else "chosen@with_prompt"
    preference = Compare(Logp().mean().map(log_odds))
    return lam * preference + negative_log_likelihood(address, "batch")


@published(
    title="SLiC-HF: sequence likelihood calibration",
    citation="Zhao et al., 2023, arXiv 2305.10425, eq. 1",
    equation="max(0, δ − log π(y_w) + log π(y_l)) − λ log π(y₀), y₀ = y_w or a demonstration",
    feedback={"pairs"},
    relatives=(
        "No reference: TRL's hinge, max(0, 1 − β h), is rso with the loss hinge_norm. Sums over tokens, of "
        "the calibration and of the likelihood; the paper has no default for λ."
    ),
    pitfalls="Pairs that are won by δ give nothing: then only the likelihood pulls.",
)
def slic(
    delta: NonNegative = 1.0, lam: NonNegative = 0.1, baseline: Literal["chosen", "gold"] = "chosen"
) -> Objective:
    """The chosen response must be likelier than the rejected one by δ nats, while demonstrations stay
    likely."""
    calibration = Compare(Logp().sum(), link=rectified, target=delta)
    return calibration + lam * negative_log_likelihood(baseline, "sum")
