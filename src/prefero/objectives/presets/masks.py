"""Learned token masks: which tokens a preference is about, and where the policy may drift."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import EachOf
from prefero.objectives.heads import Fitted, Head, Projection, drawn
from prefero.objectives.links import identity
from prefero.objectives.quantities import Measured, Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.registry import published
from prefero.objectives.signals import TOKEN_STATE, TOKEN_STATES, forward_kl, mean_activations

CITATION = "Christopoulou et al., 2024, arXiv 2410.05102; code huawei-noah/HEBO, SparsePO"
EQUATION = (
    "−log σ(β [Σ_t m_u Δ_t + m_d KL_t]_w − β [Σ_t m_u Δ_t + m_d KL_t]_l), Δ = log π/π_ref, KL = KL(π_ref ‖ π)"
)


class LayersMask(Fitted):
    """m = ReLU(Σ_j c_j ReLU(w_j · LN(h_j) + b_j)) of the states h_j after every layer; one LayerNorm for all.

    Biases start at 1 and the mixer at the mean over layers: a mask that starts at 0 would stay there.
    """

    layer_weight: nn.Parameter | None
    layer_bias: nn.Parameter | None
    mixer: nn.Parameter | None
    scale: nn.Parameter | None
    shift: nn.Parameter | None

    def __init__(self, epsilon: float = 1e-5) -> None:
        super().__init__("layer_weight", "layer_bias", "mixer", "scale", "shift")
        self.epsilon = epsilon

    def make(self, states: Float[Tensor, "*where layer hidden"]) -> None:
        layers, width = states.shape[-2:]
        self.layer_weight = drawn((layers, width), like=states)
        self.layer_bias = nn.Parameter(states.new_ones(layers))
        self.mixer = nn.Parameter(states.new_full((layers,), 1 / layers))
        self.scale, self.shift = nn.Parameter(states.new_ones(width)), nn.Parameter(states.new_zeros(width))

    def per_layer(self, states: Float[Tensor, "*where layer hidden"]) -> Float[Tensor, "*where layer"]:
        """What each layer alone would let through."""
        if self.layer_weight is None:
            self.make(states)
        assert self.layer_weight is not None and self.layer_bias is not None
        normal = F.layer_norm(states, states.shape[-1:], self.scale, self.shift, self.epsilon)
        return F.relu((normal * self.layer_weight).sum(-1) + self.layer_bias)

    def forward(self, states: Float[Tensor, "*where layer hidden"]) -> Float[Tensor, "*where 1"]:
        per_layer = self.per_layer(states)
        assert self.mixer is not None
        return F.relu((per_layer * self.mixer).sum(-1, keepdim=True))


def last_layer_mask() -> nn.Sequential:
    """m = ReLU(w · h + b) of the state h after the last layer."""
    return nn.Sequential(Projection(bias=1.0), nn.ReLU())


def learned_mask(layers: Literal["all", "last"]) -> Quantity:
    """A mask, 0 or more for every token, that a head makes of the reference's states."""
    if layers == "all":
        return Head(LayersMask(), Measured(TOKEN_STATES, "reference").detach())
    return Head(last_layer_mask(), Measured(TOKEN_STATE, "reference").detach())


def masked(
    reward_mask: Quantity, kl_mask: Quantity, beta: float, l1_reward: float = 0.0, l1_kl: float = 0.0
) -> Objective:
    """:func:`sparsepo` with any two quantities per token as masks; with one for both roles, its two
    penalties are halved, which otherwise would both count it in full."""
    objective: Objective = Compare(
        beta * (reward_mask * log_ratio() + kl_mask * Measured(forward_kl())).sum()
    )
    share = 0.5 if reward_mask is kl_mask else 1.0
    for weight, mask in ((l1_reward, reward_mask), (l1_kl, kl_mask)):
        if weight:
            size = mask.map(torch.abs).sum()
            objective = objective + weight * share * Compare(size, EachOf("chosen", "rejected"), identity)
    return objective


@published(
    title="SparsePO with learned masks",
    paper="p102",
    citation=CITATION,
    equation=EQUATION + " + λ_u Σ_t m_u + λ_d Σ_t m_d, m = ReLU(Σ_j c_j ReLU(w_j · LN(h_j) + b_j))",
    settings={
        "default": {"beta": 0.1},
        "imdb, tl;dr": {"beta": 0.8},
        "hh, common mask": {"beta": 0.1, "l1_reward": 1e-3, "l1_kl": 1e-3},
    },
    relatives=(
        "With both masks 1 it is tdpo1, with m_d = 0 and m_u = 1 DPO. A common mask has both penalties "
        "halved, as in the authors' code. sparsepo_mapo reads its mask off the reference instead. The "
        "authors' dropout of 0.01 on the masks is left out; their weight decay is objective_weight_decay: "
        "0.01."
    ),
    pitfalls=(
        "A mask that is 0 for every token has no gradient and never recovers. At the start policy and "
        "reference are equal, so the first step teaches the masks nothing. The reference's states of all "
        "layers are kept for a row: a live reference, and memory for layers × hidden numbers a token."
    ),
)
def sparsepo(
    beta: Positive = 0.1,
    masks: Literal["common", "independent"] = "common",
    layers: Literal["all", "last"] = "all",
    l1_reward: NonNegative = 0.0,
    l1_kl: NonNegative = 0.0,
) -> Objective:
    """Token-level DPO in which learned masks say which tokens count, and which the divergence holds.

    ``masks`` is one for both, or two. They are made of the reference's states after all ``layers`` or the
    last, at the position that predicts the token, and serve in training alone.
    """
    reward_mask = learned_mask(layers)
    kl_mask = reward_mask if masks == "common" else learned_mask(layers)
    return masked(reward_mask, kl_mask, beta, l1_reward, l1_kl)


class ActivationMask(Quantity):
    """How strongly each token moves a model, from 0 for its response's least to 1 for its most.

    Each quantity has one mean activation per token and hook behind its own axes; a hook's activations are
    rescaled over the tokens of a response, and averaged over the hooks of a quantity, then over quantities.
    """

    def __init__(self, *activations: Quantity) -> None:
        super().__init__()
        self.activations = nn.ModuleList(activations)

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        there = batch.mask[..., None]
        means = [self.rescaled(of(batch).detach(), there).mean(-1) for of in self.activations]
        return torch.stack(means).mean(0).to(batch.lengths.dtype)

    @staticmethod
    def rescaled(activation: Tensor, there: Tensor) -> Float[Tensor, "example response token hook"]:
        # the paper standardises first, which rescaling to [0, 1] undoes
        low = torch.where(there, activation, torch.inf).amin(2, keepdim=True)
        high = torch.where(there, activation, -torch.inf).amax(2, keepdim=True)
        spread = torch.where(high > low, high - low, 1)
        return torch.where(there, (activation - low) / spread, 0)


@published(
    title="SparsePO with masks from activations (MaPO)",
    paper="p102",
    citation=CITATION,
    equation=EQUATION + ", m_u = m_d = mean over parts and layers of π_ref's activations, rescaled to [0, 1]",
    settings={"default": {"beta": 0.1}},
    relatives=(
        "sparsepo learns its masks. Other papers call other methods MaPO. A response whose tokens all have "
        "the same activation, such as one of a single token, has mask 0 there."
    ),
)
def sparsepo_mapo(beta: Positive = 0.1) -> Objective:
    """Token-level DPO on the tokens that move the reference model most: its feed-forwards, attention and
    residual stream, averaged over the hidden dimension."""
    parts = [Measured(mean_activations(part), "reference") for part in ("mlp", "attention", "residual")]
    mask = ActivationMask(*parts)
    return masked(mask, mask, beta)
