"""Closed-form optima."""

from __future__ import annotations

import torch

from prefero.theory.optima import psi_optimum, reward_optimum
from tests.golden.adapters import adapter


def tensors(inputs):
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in inputs.items()}


@adapter("p035", "psi_po_tabular")
def psi_po(params, inputs):
    known = tensors(inputs)
    game = known["reference"], known["preference"], known["mu"], params["tau"]
    return {"pi_identity": psi_optimum(*game), "pi_logit": psi_optimum(*game, torch.logit)}


@adapter("p030", "h_dpo_tabular")
def h_dpo(params, inputs):
    known, beta = tensors(inputs), params["beta"]
    policy = reward_optimum(known["reference"], known["reward"], beta, params["alpha"])
    plain = reward_optimum(known["reference"], known["reward"], beta)
    return {
        "pi": policy,
        "entropy": torch.special.entr(policy).sum(),
        "pi_alpha1": plain,
        "entropy_alpha1": torch.special.entr(plain).sum(),
    }
