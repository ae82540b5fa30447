"""Token-level divergences: the margin has a part that the whole next-token distributions make."""

from __future__ import annotations

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.quantities import Measured, Sides, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.registry import Equal, published
from prefero.objectives.signals import forward_kl


@published(
    title="Token-level DPO, first variant",
    paper="p131",
    citation="Zeng et al., 2024, arXiv 2404.11999",
    equation="−log σ(β [h − (D(y_l) − D(y_w))]), D(y) = Σ_t KL(π_ref ‖ π) at token t",
    feedback={"pairs"},
    relatives="Its gradient pushes the divergence of the chosen response up: the reason for tdpo2.",
)
def tdpo1(beta: Positive = 0.1) -> Objective:
    """DPO with the difference of the sequential forward KL of the two responses in the margin."""
    return Compare(beta * (log_ratio() + Measured(forward_kl())).sum())


@published(
    title="Token-level DPO",
    paper="p131",
    citation="Zeng et al., 2024, arXiv 2404.11999",
    equation="−log σ(β [h − α (D(y_l) − sg D(y_w))]), D(y) = Σ_t KL(π_ref ‖ π) at token t",
    feedback={"pairs"},
    relatives=(
        "Forward KL, the reference first, over the full vocabulary: cached reference log-probabilities of "
        "the responses alone cannot serve it. α = 0 is DPO; the paper's default variant."
    ),
    aliases=("tdpo",),
    equals=(Equal("dpo", at={"alpha": 0.0}),),
)
def tdpo2(beta: Positive = 0.1, alpha: NonNegative = 0.5) -> Objective:
    """The rejected response's divergence is held down; the chosen one's only sets the level."""
    divergence = alpha * Measured(forward_kl())
    drift = Sides(chosen=divergence.detach(), rejected=divergence)
    return Compare(beta * (log_ratio() + drift).sum())
