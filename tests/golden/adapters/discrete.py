"""Losses on discrete diffusion models."""

from __future__ import annotations

import torch

from prefero.models.discrete_diffusion.noise import LINEAR, Masking
from prefero.objectives import PreferenceBatch, TokenLogps, method, primary
from tests.golden.adapters import adapter
from tests.golden.batches import values
from tests.models.brute_force import rate_score

ROLES = ("chosen", "rejected")


def tensor(numbers) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@adapter("p075", "d2_dpo_masked")
def masked(params, inputs):
    rate = LINEAR.rate(tensor(inputs["t"]))[:, None]
    scored = {}
    for model in ("policy", "reference"):
        sides = []
        for role in ROLES:
            logits, tokens = tensor(inputs[f"{model}_logits_{role}"]), torch.tensor(inputs[f"tokens_{role}"])
            noise = Masking(mask=logits.shape[-1])
            gone = torch.tensor(inputs[f"masked_{role}"]).bool()
            states = torch.where(gone, noise.mask, tokens)
            sides.append(rate * noise.explained(logits.log_softmax(-1), tokens, states))
        logps = torch.stack(sides, 1)
        scored[model] = TokenLogps(logps, torch.ones_like(logps, dtype=torch.bool))
    batch, objective = PreferenceBatch(scored), method("d2_dpo", beta=params["beta"])
    scores = primary(method("d2_dpo", beta=1.0)).reward(batch)
    return {
        "score_chosen": scores[:, 0],
        "score_rejected": scores[:, 1],
        "logits": primary(objective).comparisons(batch).margins[:, 0],
        "loss": values(objective, batch),
    }


@adapter("p075", "d2_dpo_rate_score")
def rates(params, inputs):
    conditional, policy, reference = (
        tensor(inputs[f"{name}_rates"]) for name in ("conditional", "policy", "reference")
    )
    return {"score": rate_score(conditional, policy) - rate_score(conditional, reference)}
