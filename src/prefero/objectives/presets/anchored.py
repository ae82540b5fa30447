"""Beside a preference loss: the likelihood of the chosen response or of a rationale, other losses, the
z-loss; and likelihood terms that an f-divergence keeps near the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError
from prefero.objectives.compare import Compare, Objective, negative_log_likelihood, penalty
from prefero.objectives.contrasts import Each
from prefero.objectives.presets.pairs import dpo
from prefero.objectives.presets.unpaired import bco_pair
from prefero.objectives.quantities import Logp, Measured, log_odds, log_ratio
from prefero.objectives.ranges import NonNegative, Positive, Range
from prefero.objectives.reductions import mean_of_tokens
from prefero.objectives.registry import Equal, published
from prefero.objectives.signals import LOG_Z


@published(
    title="RPO: regularised preference optimization",
    paper="p125",
    citation="Liu et al., 2024, arXiv 2405.16436",
    equation="−log σ(β h) − η β log π(y₀) − α/|y₀| log π(y₀), y₀ = y_w",
    settings={
        "zephyr-7b-beta": {"beta": 0.01, "eta": 0.005, "learning_rate": 5e-7},
        "gemma-7b": {"beta": 0.05, "eta": 0.005, "learning_rate": 5e-7},
    },
    relatives=(
        "η is the paper's main form: summed over tokens and multiplied by β. α is its appendix's, said to be "
        "better for reasoning: averaged over the response's tokens, with neither β nor a reference, as "
        "OpenRLHF's nll_loss_coef and iterative RPO. A third, the mean over all tokens of the step, is dpo "
        "with `plus: {nll: {coefficient: …, tokens: batch}}`. Other papers call other methods RPO."
    ),
    equals=(Equal("dpo", at={"eta": 0.0, "alpha": 0.0}),),
    pitfalls=(
        "η and α are not interchangeable: the sum grows with the response's length, so values of one are "
        "wrong for the other by a factor of β |y|."
    ),
)
def rpo_sft(
    beta: Positive = 0.01,
    eta: NonNegative = 0.005,
    alpha: NonNegative = 0.0,
    baseline: Literal["chosen", "gold"] = "chosen",
) -> Objective:
    """DPO plus the likelihood of a baseline policy's responses, which is what the most pessimistic reward
    amounts to; the baseline are the chosen responses, or demonstrations (``gold``)."""
    summed = negative_log_likelihood(baseline, "sum")
    mean = negative_log_likelihood(baseline, "mean")
    return Compare(beta * log_ratio().sum()) + eta * beta * summed + alpha * mean


Likelihood = Literal["log", "sigmoid"]


@published(
    title="RDPO: DPO with rationales",
    paper="p117",
    citation="Just et al., 2024, arXiv 2407.14477",
    equation="−log σ(β h) − γ log π(r | x, y_w, y_l)",
    settings={"detailed rationales": {"gamma": 0.001}, "configuration of the code": {"gamma": 0.1}},
    relatives=(
        "rdpo is robust to flipped labels, r_dpo is against length: other methods. The response `rationale` "
        "answers a prompt of its own, which shows both responses and asks why the chosen one is better. The "
        "paper's term is the sum over its tokens; the authors' code takes −log σ(γ log π(r)) instead "
        "(likelihood: sigmoid), where a small γ has half the paper's effect."
    ),
    aliases=("rdpo_rationales",),
    equals=(Equal("dpo", at={"gamma": 0.0}),),
    pitfalls=(
        "γ multiplies a sum over tokens: the longer the rationales, the smaller it must be. A prompt that "
        "always shows the chosen response first teaches the position."
    ),
)
def rationale_dpo(
    beta: Positive = 0.1, gamma: NonNegative = 0.001, likelihood: Likelihood = "log"
) -> Objective:
    """DPO that also learns to say why the chosen response is better."""
    return Compare(beta * log_ratio().sum()) + rationale_term(gamma, likelihood)


@published(
    title="RORPO: ORPO with rationales",
    paper="p117",
    citation="Just et al., 2024, arXiv 2407.14477; ORPO: Hong et al., 2024, arXiv 2403.07691",
    equation=(
        "NLL(y_w) − λ log σ(log odds(y_w) − log odds(y_l)) − γ log π(r | x, y_w, y_l), odds = π/(1 − π)"
    ),
    relatives=(
        "No reference. As in the authors' code the odds are those of whole responses, where ORPO's are "
        "of mean log-probabilities, and NLL is the mean over all chosen tokens of the step."
    ),
    pitfalls=(
        "The odds of a whole response are its probability, for any but the shortest: the comparison is then "
        "one of plain likelihoods. γ multiplies a sum over tokens."
    ),
)
def rationale_orpo(
    lam: NonNegative = 0.1, gamma: NonNegative = 1.0, likelihood: Likelihood = "log"
) -> Objective:
    """The chosen response's likelihood, its odds against the rejected one, the rationale's likelihood."""
    preference = Compare(Logp().sum().map(log_odds))
    rationale = rationale_term(gamma, likelihood)
    return lam * preference + negative_log_likelihood("chosen", "batch") + rationale


def rationale_term(gamma: float, likelihood: Likelihood) -> Objective:
    """What the likelihood of the response ``rationale`` costs: −γ log π(r), or −log σ(γ log π(r))."""
    reward = gamma * Logp().sum()
    return penalty(-reward, "rationale") if likelihood == "log" else Compare(reward, Each("rationale"))


Fit = Literal["total_variation", "pearson", "squared_hellinger", "jensen_shannon"]


@published(
    title="SFT by an f-divergence",
    paper="p069",
    citation="Wang et al., 2025, arXiv 2507.00018",
    equation=(
        "−1/β mean_t φ(β log π(y_t)/π_ref(y_t)); φ(r) = r (total variation), r − r²/4 (Pearson χ²), "
        "r/(1 + r) (squared Hellinger), log(2 − e^{−r}) (Jensen–Shannon)"
    ),
    relatives=(
        "Reads the chosen responses alone: a demonstration is one. Total variation has nll's gradient, token "
        "mean, whatever the reference. The reference is the pretrained model that this stage starts from; in "
        "the DPO after it the reference is what this stage made. The scale 1/β and the value V = 0 are a "
        "reading: with them every φ starts with nll's gradient. β is a suggestion."
    ),
    equals=(
        Equal("f_sft", at={"beta": 1e-8}, given={"divergence": "total_variation"}),
        Equal(
            "f_sft",
            at={"beta": 1e-8, "divergence": "squared_hellinger"},
            given={"divergence": "total_variation"},
        ),
        Equal(
            "f_sft",
            at={"beta": 1e-8, "divergence": "jensen_shannon"},
            given={"divergence": "total_variation"},
        ),
    ),
    pitfalls=(
        "Whole responses (granularity: sequence) leave the range where φ bends gently within a few tokens, "
        "unless β is small. Total variation has no restraint at all: lower the learning rate instead."
    ),
)
def f_sft(
    beta: Positive = 0.1,
    divergence: Fit = "pearson",
    granularity: Literal["token", "sequence"] = "token",
    floor: Annotated[float, Range(-1, 0)] = -0.5,
) -> Objective:
    """Supervised fine-tuning that stops where the policy has left the reference far enough behind.

    Squared Hellinger and Jensen–Shannon are defined for r > −1 and r > −log 2: below ``floor`` they go on
    along their tangent. ``granularity`` is what r is measured on: each token or the whole response.
    """
    phi = FITS[divergence]
    if divergence == "jensen_shannon" and floor <= -math.log(2):
        raise PreferoError(
            f"floor of f_sft lies above −log 2 for the Jensen–Shannon divergence, and {floor!r} does not"
        )
    if divergence in ("squared_hellinger", "jensen_shannon"):
        phi = straight_below(floor, phi)
    if granularity == "token":
        return penalty((beta * log_ratio()).map(phi).mean() * (-1 / beta), "chosen")
    return penalty((beta * log_ratio().sum()).map(phi) * (-1 / beta), "chosen")


FITS: dict[str, Callable[[Tensor], Tensor]] = {
    "total_variation": lambda r: r,
    "pearson": lambda r: r - r.square() / 4,
    "squared_hellinger": lambda r: r / (1 + r),
    "jensen_shannon": lambda r: torch.log1p(-torch.expm1(-r)),
}
"""φ of each divergence: φ(0) = 0 and φ′(0) = 1."""


def straight_below(floor: float, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function, continued by its tangent at ``floor`` for smaller arguments."""
    at = torch.tensor(floor, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(function(at), at)

    def continued(r: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return function(r.clamp(min=floor)) - slope.item() * F.relu(floor - r)

    return continued


@published(
    title="MPO: mixed preference optimization",
    citation="Wang et al., 2024, arXiv 2411.10442",
    equation="w_p · DPO + w_q · [−log σ(r_w) − log σ(−r_l)] − w_g/|y_w| log π(y_w)",
    settings={"internvl2-8b": {"beta": 0.1, "preference": 0.8, "quality": 0.2, "generation": 1.0}},
    relatives=(
        "The quality term is bco_pair, as in TRL; the paper's has the reward shift of bco. The likelihood is "
        "a mean over each response's tokens, or over those of the whole step (tokens: batch), as in TRL. "
        "mpo_set, of several responses, is another method. Any other sum is a method with `plus`."
    ),
    equals=(
        Equal("dpo", at={"preference": 1.0, "quality": 0.0, "generation": 0.0}),
        Equal("bco_pair", at={"preference": 0.0, "quality": 1.0, "generation": 0.0}),
    ),
)
def mpo_mixed(
    beta: Positive = 0.1,
    preference: NonNegative = 0.8,
    quality: NonNegative = 0.2,
    generation: NonNegative = 1.0,
    tokens: Literal["mean", "batch"] = "mean",
) -> Objective:
    """Which response is better, how good each is, and how to write the better one, learnt together."""
    likelihood = negative_log_likelihood("chosen", tokens)
    return preference * dpo(beta) + quality * bco_pair(beta) + generation * likelihood


@published(
    title="z-loss",
    paper="p010",
    citation=(
        "Chowdhery et al., 2022, arXiv 2204.02311, section 5; in preference training Preferred Elements, "
        "2024, arXiv 2410.07563"
    ),
    equation="c · mean over tokens of (log Σ_v exp(logit_v))²",
    relatives=(
        "Meant for `plus`; alone it teaches no preference. It moves the level of the logits, which no loss "
        "of log-probabilities sees, and leaves their differences free."
    ),
    pitfalls="The mean is over all tokens of all responses of the step, as large batches of text have it.",
)
def z_loss(strength: NonNegative = 1e-4) -> Objective:
    """The normaliser of the softmax pulled to 1, so that logits do not drift away."""
    return penalty(strength * Measured(LOG_Z).map(torch.square).sum(), reduce=mean_of_tokens)
