"""Other rewards for the same comparison: the log-ratio is reshaped, or its reference is scaled, made of
several models, left out, or the response without its prompt."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError
from prefero.objectives.among import Addressed
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective, Sum
from prefero.objectives.contrasts import cell
from prefero.objectives.quantities import Logp, Quantity, Sides, log_ratio
from prefero.objectives.ranges import NonNegative, OpenShare, Positive, Share
from prefero.objectives.registry import Equal, published
from prefero.objectives.slots import Divergence, Offset, derivative, score_gap


@published(
    title="H-DPO: entropy-controllable DPO",
    paper="p030",
    citation="Omura et al., 2024, arXiv 2411.07595",
    equation="−log σ(αβ [log π(y_w) − log π(y_l)] − β [log π_ref(y_w) − log π_ref(y_l)])",
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


References = Literal[2, 3, 4]
Weights = Literal["adaptive", "swapped", "uniform"]
NAMES = ("reference", "reference_2", "reference_3", "reference_4")
"""What the models are called: the first is where the policy starts."""

MULTIPLE = "Le et al., 2024, arXiv 2405.16388; code thaihungle/MRPO"
OTHER_MODELS = (
    "The first reference is where the policy starts; the others are models of the names reference_2, "
    "reference_3, …"
)


class CombinedReference(Quantity):
    """MRPO's reference: the weighted harmonic mean of several references' probabilities of a whole response,
    as a log-probability ``[example 1]`` of the response with that role.

    The references after the first are held within a share ε of the first's log-probability. The two
    responses of a pair divide ``epsilon_max`` by the size of their mean log-probability, and ``weights``
    come from the unclipped gaps |log π_k(y_w) − log π_k(y_l)|.
    """

    def __init__(self, role: str, names: tuple[str, ...], epsilon_max: float, weights: Weights) -> None:
        super().__init__()
        self.role, self.names, self.epsilon_max, self.weights = role, names, epsilon_max, weights

    def given(self, batch: PreferenceBatch, role: str) -> Float[Tensor, "example reference"]:
        """What each reference gives the response."""
        return torch.cat([cell(Logp(name).sum(), batch, role) for name in self.names], dim=1)

    def clipped(self, batch: PreferenceBatch) -> Float[Tensor, "example reference"]:
        """The same, held near the first."""
        own = self.given(batch, self.role)
        sizes = {role: self.given(batch, role).mean(1, keepdim=True).abs() for role in ("chosen", "rejected")}
        total = (sizes["chosen"] + sizes["rejected"]).clamp(min=torch.finfo(own.dtype).tiny)
        base = own[:, :1]
        room = self.epsilon_max * sizes[self.role] / total * base.abs()
        return torch.maximum(torch.minimum(own, base + room), base - room)

    def shares(self, batch: PreferenceBatch) -> Float[Tensor, "example reference"]:
        """α, which adds up to 1 over the references."""
        gaps = (self.given(batch, "chosen") - self.given(batch, "rejected")).abs()
        if self.weights == "uniform":
            return torch.full_like(gaps, 1 / len(self.names))
        if self.weights == "swapped":
            extra = gaps[:, 1:] / (gaps.sum(1, keepdim=True) + 1e-6)
            return torch.cat([extra, 1 - extra], dim=1)
        gaps = gaps.clamp(min=torch.finfo(gaps.dtype).eps)
        return gaps / gaps.sum(1, keepdim=True)

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example 1"]:
        return -torch.logsumexp(self.shares(batch).log() - self.clipped(batch), dim=1, keepdim=True)


@published(
    title="MRPO: multi-reference preference optimization",
    paper="p020",
    citation=MULTIPLE,
    equation="DPO with π_ref(y) = (Σ_k α_k / π_k(y))⁻¹, α_k ∝ |log π_k(y_w) − log π_k(y_l)|",
    settings={"default": {"beta": 0.1, "epsilon_max": 0.1, "learning_rate": 1e-5}},
    relatives=(
        "A harmonic mean of whole responses, which is at most the geometric one and exact for a bound of "
        "the objective with several KL terms; multi_dpo is the naive sum of losses. The authors' code, for "
        "two references, has their adaptive weights exchanged (weights: swapped); adaptive is what the "
        "paper describes. " + OTHER_MODELS
    ),
    pitfalls=(
        "A poor extra reference does little harm only because it is held within ε of the first: large "
        "epsilon_max lets it through."
    ),
    equals=(Equal("dpo", at={"epsilon_max": 0.0}),),
)
def mrpo(
    beta: Positive = 0.1, epsilon_max: Share = 0.1, weights: Weights = "adaptive", references: References = 2
) -> Objective:
    """DPO against several references, joined so that the least convinced counts most, near the first."""
    names = NAMES[:references]
    if weights == "swapped" and references != 2:
        raise PreferoError(f"weights: swapped exchanges the weights of two references, not of {references}")
    combined = {role: CombinedReference(role, names, epsilon_max, weights) for role in ("chosen", "rejected")}
    return Compare(beta * (Logp().sum() - Sides(**combined)))


@published(
    title="Multi-DPO",
    paper="p020",
    citation=MULTIPLE + " (a baseline there)",
    equation="Σ_k 1/K · DPO with π_k as the reference",
    relatives="The mean of losses, where mrpo has one loss and a mean of references. " + OTHER_MODELS,
)
def multi_dpo(beta: Positive = 0.1, references: References = 2) -> Objective:
    """DPO against each of several references, on average."""
    return Sum(
        *((1 / references, Compare(beta * log_ratio(against=name).sum())) for name in NAMES[:references])
    )


REFDPO = "Liu et al., 2024, arXiv 2407.13709; code yale-nlp/refdpo"
OWN_BETA = "Each parameterisation has its own best β, orders of magnitude apart: never compare at equal β."


@published(
    title="DPO without a reference (posterior parameterisation)",
    paper="p044",
    citation=REFDPO,
    equation="−log σ(β log π(y_w) − β log π(y_l))",
    settings={"mistral-7b": {"beta": 100.0}},
    relatives=(
        "DPO with a constant reference, summed over tokens; simpo averages, and has a margin. DPO's code "
        "calls it reference-free; cpo adds a likelihood."
    ),
    pitfalls=OWN_BETA,
    aliases=("reference_free_dpo",),
    equals=(Equal("cpo", given={"lam": 0.0}),),
)
def dpo_posterior(beta: Positive = 0.1) -> Objective:
    """The log-probability itself is the reward: what a reference does is seen by leaving it out."""
    return Compare(beta * Logp().sum())


@published(
    title="DPO with the likelihood of the prompt",
    paper="p044",
    citation=REFDPO,
    equation="−log σ(β [log π(y_w|x)/p(y_w) − log π(y_l|x)/p(y_l)]), p(y): the reference without the prompt",
    settings={"mistral-7b": {"beta": 0.01}},
    relatives=(
        "log π(y|x) − log p(y) is log p(x|y) but for what does not depend on y. The view `unprompted` has "
        "the responses behind what all prompts share, the chat template."
    ),
    pitfalls=OWN_BETA,
)
def dpo_likelihood(beta: Positive = 0.1) -> Objective:
    """A response is measured against how likely it is with no prompt at all."""
    reference = Logp("reference").sum()
    alone = {role: Addressed(reference, f"{role}@unprompted") for role in ("chosen", "rejected")}
    return Compare(beta * (Logp().sum() - Sides(**alone)))
