"""IPO: the preference itself, not its logit, is what a policy is regularised against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefero_lab.papers.paper import Check, Number, Paper

if TYPE_CHECKING:
    from torch import Tensor

    from prefero.objectives import Objective

TAU = 0.3
PAIRS = ((0, 1), (0, 2), (1, 2))
"""Preferred and other action of each pair of three actions; the preferences are deterministic."""


def fitted(reference: Tensor, objective: Objective, steps: int = 600, lr: float = 0.1) -> Tensor:
    """The probabilities that Adam comes to from the reference's, on all pairs of three actions."""
    import torch

    from prefero.objectives import PreferenceBatch, TokenLogps

    logits = reference.log().clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=lr)

    def scored(logps: Tensor) -> TokenLogps:
        both = logps[torch.tensor(PAIRS)][:, :, None]
        return TokenLogps(both, torch.ones_like(both, dtype=torch.bool))

    for _ in range(steps):
        optimizer.zero_grad()
        models = {"policy": scored(logits.log_softmax(-1)), "reference": scored(reference.log())}
        objective.loss(PreferenceBatch(models)).backward()
        optimizer.step()
    return logits.detach().softmax(-1)


def regularised(seed: int) -> Sequence[Number]:
    """Deterministic preferences a ≻ b ≻ c, from a random reference."""
    import torch

    from prefero.demo.start import one_thread
    from prefero.objectives import method
    from prefero.theory.optima import psi_optimum

    noise = torch.Generator().manual_seed(seed)
    reference = torch.randn(3, generator=noise, dtype=torch.float64).softmax(-1)
    preference = torch.tensor([[0.5, 1, 1], [0, 0.5, 1], [0, 0, 0.5]], dtype=torch.float64)
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    optimum = psi_optimum(reference, preference, uniform, TAU)
    with one_thread():
        ipo = fitted(reference, method("ipo", tau=TAU, tokens="sum"))
        weak, strong = (fitted(reference, method("dpo", beta=beta)) for beta in (0.1, 1.0))
    ratio = (ipo / reference).log()
    return [
        Number.near("IPO: distance to the closed form", (ipo - optimum).abs().max().item(), 0, 1e-4),
        Number.near("IPO: log-ratio of a over b, times 3τ", 3 * TAU * float(ratio[0] - ratio[1]), 1, 1e-3),
        Number.near("IPO: log-ratio of b over c, times 3τ", 3 * TAU * float(ratio[1] - ratio[2]), 1, 1e-3),
        Number("IPO: probability of c, over its reference", float(ipo[2] / reference[2]), low=0.1),
        Number("DPO, β = 0.1: probability of a", float(weak[0]), low=0.99),
        Number("DPO, β = 1: probability of a, all the same", float(strong[0]), low=0.99),
    ]


PAPER = Paper(
    id="p035",
    title="A General Theoretical Paradigm to Understand Learning from Human Preferences",
    citation="Azar et al., 2023, arXiv 2310.12036",
    adds="A family of objectives with any function of the preference probability; with the identity (IPO) "
    "the policy stays near its reference even if preferences are deterministic.",
    methods=("ipo",),
    evidence=(
        Check(
            statement="On three actions with deterministic preferences, IPO comes to its closed form and "
            "keeps the worst action, while DPO gives everything to the best one, whatever its β.",
            run=regularised,
            refuted_by="a fitted policy other than the closed form, or a β with which DPO stays regularised",
            seconds=15,
        ),
    ),
)
