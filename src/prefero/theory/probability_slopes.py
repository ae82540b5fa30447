"""How an objective pulls at probabilities themselves, not at their logarithms."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch, TokenLogps
from prefero.objectives.compare import Objective


def probability_slopes(
    objective: Objective,
    policy: Float[Tensor, "example response"],
    reference: Float[Tensor, "example response"],
    roles: tuple[str, ...] = ("chosen", "rejected"),
) -> Float[Tensor, "example response"]:
    """∂ℓ/∂π(y) of each example's own loss, for responses with the probabilities ``policy``.

    For DPO these are −βσ(−βh)/π(y_w) and βσ(−βh)/π(y_l): their ratio −π(y_w)/π(y_l) grows without bound as
    the rejected response becomes unlikely, which then falls drastically while the chosen one no longer moves.
    In the logits of a softmax a factor π(1 − π) compensates, so look at both. Yan et al., 2024, arXiv
    2406.07327. Every response counts as one token.
    """
    probabilities = policy.detach().clone().requires_grad_()
    there = torch.ones((*policy.shape, 1), dtype=torch.bool, device=policy.device)
    models = {
        "policy": TokenLogps(probabilities.log()[..., None], there),
        "reference": TokenLogps(reference.log()[..., None], there),
    }
    loss = objective.loss(PreferenceBatch(models, roles=roles))
    (slope,) = torch.autograd.grad(loss, probabilities)
    return slope * len(policy)
