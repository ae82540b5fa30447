"""Other references in the reward: several models at once, none, or the response without its prompt."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective, Sum
from prefero.objectives.contrasts import cell
from prefero.objectives.quantities import Logp, Quantity, Sides, log_ratio
from prefero.objectives.ranges import Positive, Share
from prefero.objectives.registry import Equal, published

References = Literal[2, 3, 4]
Weights = Literal["adaptive", "swapped", "uniform"]
NAMES = ("reference", "reference_2", "reference_3", "reference_4")
"""What the models are called: the first is where the policy starts."""

MULTIPLE = "Le et al., 2024, arXiv 2405.16388; code thaihungle/MRPO"
OTHER_MODELS = (
    "The first reference is where the policy starts; the others are models of the names reference_2, "
    "reference_3, …"
)


class Addressed(Quantity):
    """A quantity of the responses at an address such as ``"chosen@unprompted"``, ``[example 1]``."""

    def __init__(self, of: Quantity, address: str) -> None:
        super().__init__()
        self.of, self.address = of, address

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example 1"]:
        return cell(self.of, batch, self.address)


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
    feedback={"pairs"},
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
    beta: Positive = 0.1,
    epsilon_max: Share = 0.1,
    weights: Weights = "adaptive",
    references: References = 2,
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
    feedback={"pairs"},
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
    feedback={"pairs"},
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
    feedback={"pairs"},
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
