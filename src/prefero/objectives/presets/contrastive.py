"""Likelihoods without a reference in the reward: a preference beside the likelihood of the chosen response
(CPO, ORPO, SLiC) or of a gold one (TPO), each response on its own, or beside a pull to the reference."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective, negative_log_likelihood, penalty
from prefero.objectives.contrasts import Comparisons, Each
from prefero.objectives.links import Link, logistic, rectified, smoothed, squared
from prefero.objectives.presets.pairs import LINKS
from prefero.objectives.quantities import Column, Logp, Measured, log_odds, log_ratio
from prefero.objectives.ranges import FlipRate, NonNegative, Positive
from prefero.objectives.registry import Equal, published
from prefero.objectives.signals import forward_kl

CPO = "Xu et al., 2024, arXiv 2401.08417"


@published(
    title="CPO: contrastive preference optimization",
    citation=CPO,
    equation="−log σ(β log π(y_w) − β log π(y_l)) − λ · mean over chosen tokens of log π(y_w)",
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
    settings={"llama-3-8b-instruct": {"beta": 10.0, "gamma": 5.4, "lam": 0.05, "learning_rate": 1e-6}},
    relatives="tpo_l with the chosen response as the gold one. γ is TRL's simpo_gamma, outside β.",
    equals=(Equal("simpo", at={"lam": 0.0}),),
)
def cpo_simpo(
    beta: Positive = 10.0, gamma: NonNegative = 5.4, lam: NonNegative = 0.05, smoothing: FlipRate = 0.0
) -> Objective:
    """SimPO plus the likelihood of the chosen response."""
    preference = Compare(beta * Logp().mean(), link=smoothed(smoothing), target=gamma)
    return preference + lam * negative_log_likelihood("chosen", "batch")


@published(
    title="ORPO: odds ratio preference optimization",
    citation="Hong et al., 2024, arXiv 2403.07691, eqs. 6 and 7",
    equation=("NLL(y_w) − λ log σ(log p_w/(1−p_w) − log p_l/(1−p_l)), p = exp(1/|y| log π(y))"),
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
    relatives=(
        "No reference: TRL's hinge, max(0, 1 − β h), is rso with the loss hinge_norm. Sums over tokens, of "
        "the calibration and of the likelihood; the paper has no default for λ."
    ),
    pitfalls="Pairs that are won by δ give nothing: then only the likelihood pulls.",
)
def slic(
    delta: NonNegative = 1.0, lam: NonNegative = 0.1, baseline: Literal["chosen", "gold"] = "chosen"
) -> Objective:
    """The chosen response must be likelier than the rejected by δ nats, while demonstrations stay likely."""
    calibration = Compare(Logp().sum(), link=rectified, target=delta)
    return calibration + lam * negative_log_likelihood(baseline, "sum")


@published(
    title="Triple preference optimization",
    paper="p083",
    citation="Saeidi et al., 2024, arXiv 2405.16681",
    equation="−log σ(β log π(y_w) − β log π(y_l)) − α · mean over gold tokens of log π(y_gold)",
    settings={
        "first version": {"beta": 0.2, "alpha": 0.9, "learning_rate": 5e-7},
        "later version": {"beta": 0.01, "alpha": 1.0, "learning_rate": 5e-7},
    },
    relatives=(
        'No reference model: the papers\' "reference" is the gold response, which is another one than the '
        "chosen (best of three, second and worst). With the gold response as the chosen it is like CPO. "
        "tpo_l averages over tokens and has a margin; tpo_tree shares only the letters."
    ),
    pitfalls=(
        "Summed log-probabilities saturate quickly at β = 0.2 on long answers. The likelihood is a mean over "
        "all gold tokens of the step, so long gold answers weigh more."
    ),
    equals=(Equal("cpo", at={"alpha": 0.0}, given={"lam": 0.0}),),
)
def tpo_triple(
    beta: Positive = 0.2,
    alpha: NonNegative = 0.9,
    smoothing: FlipRate = 0.0,
    link: Literal["logistic", "hinge"] = "logistic",
) -> Objective:
    """Supervised learning on the best response and a preference between two others, in one stage."""
    cost = smoothed(smoothing, LINKS[link])
    return Compare(beta * Logp().sum(), link=cost) + alpha * negative_log_likelihood("gold", "batch")


@published(
    title="TPO-L: length-controlled triple preference optimization",
    paper="p083",
    citation="Saeidi et al., 2024, arXiv 2405.16681; code sahsaeedi/triple-preference-optimization",
    equation=(
        "−log σ(β/|y_w| log π(y_w) − β/|y_l| log π(y_l) − γ) − α · mean over gold tokens of log π(y_gold)"
    ),
    settings={"later version": {"beta": 0.01, "alpha": 1.0, "gamma": 0.5, "learning_rate": 5e-7}},
    relatives="SimPO plus the likelihood of a gold response. γ is not multiplied by β.",
    pitfalls="β acts on a mean over tokens: values of tpo_triple do not carry over.",
    equals=(Equal("simpo", at={"alpha": 0.0}),),
)
def tpo_l(
    beta: Positive = 0.01,
    alpha: NonNegative = 1.0,
    gamma: NonNegative = 0.5,
    smoothing: FlipRate = 0.0,
    link: Literal["logistic", "hinge"] = "logistic",
) -> Objective:
    """Triple preference optimization on log-probabilities averaged over tokens, with a margin."""
    cost = smoothed(smoothing, LINKS[link])
    preference = Compare(beta * Logp().mean(), link=cost, target=gamma)
    return preference + alpha * negative_log_likelihood("gold", "batch")


@published(
    title="ASFT: aligned supervised fine-tuning",
    paper="p026",
    citation="Wang et al., 2024, arXiv 2409.10571; code turbo-llm/turbo-alignment",
    equation=("−log p(y_w) + λ [−log σ(β log-odds(y_w)) − log σ(−β log-odds(y_l))], p = exp(1/|y| log π(y))"),
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
    """One stage without a reference: imitate and raise the chosen response, lower the rejected one."""
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
