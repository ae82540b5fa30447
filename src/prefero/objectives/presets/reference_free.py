"""No reference: other shapes of reward and loss over the mean log-probability per token."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Comparisons
from prefero.objectives.links import logistic, rectified
from prefero.objectives.quantities import Linear, Logp
from prefero.objectives.ranges import NonNegative, Positive, Real
from prefero.objectives.registry import Equal, published
from prefero.objectives.slots import power_transform


@published(
    title="AlphaPO: the reward's shape",
    paper="p121",
    citation="Gupta et al., 2025, arXiv 2501.03884",
    equation="−log σ(r_w − r_l − γ), r = β (1 − p̄^{−α})/α, p̄ = exp(1/|y| log π(y))",
    settings={
        "mistral-7b-instruct": {"alpha": 0.25, "beta": 2.5, "gamma": 0.25, "learning_rate": 7e-7},
        "llama-3-8b-instruct": {"alpha": 0.25, "beta": 10.0, "gamma": 3.0},
        "gemma-2-9b-it": {"alpha": 0.1, "beta": 10.0, "gamma": 5.0},
    },
    relatives=(
        "α = 0 is SimPO. γ is outside β: where a paper or TRL gives a ratio γ/β, multiply it by "
        "β. f_dpo's alpha divergence has the same shape on the whole response's ratio to a reference."
    ),
    equals=(Equal("simpo", at={"alpha": 0.0}), Equal("simpo", at={"alpha": 1e-9})),
    pitfalls=(
        "Large |α| makes the gradient of ordered pairs vanish, and α near 1 or above lets the reward of an "
        "unlikely response explode: keep |α| well below 1."
    ),
)
def alphapo(beta: Positive = 2.5, alpha: Real = 0.25, gamma: NonNegative = 0.25) -> Objective:
    """SimPO on a power of the likelihood: α > 0 pulls unlikely responses harder, α < 0 likely ones."""
    return Compare(beta * Logp().mean().map(lambda mean: power_transform(mean, alpha)), target=gamma)


def rectified_logistic(margins: Tensor, comparisons: Comparisons) -> Tensor:
    """−log σ(min(z, 0)): the logistic cost until the margin is won, log 2 without a slope from there on."""
    return logistic(-F.relu(-margins), comparisons)


@published(
    title="RePO: ReLU-based preference optimization",
    paper="p128",
    citation="Wu et al., 2025, arXiv 2503.07426",
    equation="max(0, γ − [1/|y_w| log π(y_w) − 1/|y_l| log π(y_l)])",
    settings={"mistral-7b": {"gamma": 0.4}, "gemma-2-9b": {"gamma": 0.4}, "llama-3-8b": {"gamma": 0.6}},
    relatives=(
        "SimPO's loss over β as β → ∞. γ is in units of log-probability per token, which is SimPO's γ/β. "
        "TRL's hinge, max(0, 1 − β h), is another loss. With `final_gamma` γ goes there in a straight line "
        "over the optimizer steps, as in an ablation of the paper."
    ),
    pitfalls=(
        "Pairs beyond γ give nothing; a batch of such pairs has gradient 0, and weight decay and momentum "
        "still move the model."
    ),
)
def repo(gamma: NonNegative = 0.4, final_gamma: NonNegative | None = None) -> Objective:
    """A hinge on the margin of mean log-probabilities: a pair pulls in full until it is won by γ."""
    schedule = Linear(gamma, gamma if final_gamma is None else final_gamma)
    return Compare(
        Logp().mean(),
        link=rectified,
        target=lambda comparisons: schedule(comparisons.batch).expand_as(comparisons.margins),
    )


@published(
    title="RePO++",
    paper="p128",
    citation="Wu et al., 2025, arXiv 2503.07426 (extension)",
    equation="−log σ(−max(0, β (γ − M))), M = 1/|y_w| log π(y_w) − 1/|y_l| log π(y_l)",
    relatives=(
        "SimPO(β, βγ) for pairs that are not won by γ yet, a constant log 2 for the others. The formula is a "
        "reading of the paper's description; β is SimPO's default for lack of a published one."
    ),
    pitfalls="The loss does not fall below log 2: look at the share of pairs that still pull.",
)
def repo_plus(beta: Positive = 2.5, gamma: NonNegative = 0.4) -> Objective:
    """SimPO that leaves pairs alone once they are won by γ."""
    return Compare(beta * Logp().mean(), link=rectified_logistic, target=beta * gamma)
