"""Triples: a gold response to imitate beside a pair to tell apart."""

from __future__ import annotations

from typing import Literal

from prefero.objectives.compare import Compare, Objective, negative_log_likelihood
from prefero.objectives.links import smoothed
from prefero.objectives.presets.pairs import LINKS
from prefero.objectives.quantities import Logp
from prefero.objectives.ranges import FlipRate, NonNegative, Positive
from prefero.objectives.registry import Equal, published


@published(
    title="Triple preference optimization",
    paper="p083",
    citation="Saeidi et al., 2024, arXiv 2405.16681",
    equation="−log σ(β log π(y_w) − β log π(y_l)) − α · mean over gold tokens of log π(y_gold)",
    feedback={"pairs"},
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
    feedback={"pairs"},
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
