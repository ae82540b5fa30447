"""References that move."""

from __future__ import annotations

import torch
from torch import nn

from prefero.reference.providers import Moving
from tests.golden.adapters import adapter
from tests.language import LANGUAGE


def trajectory(inputs, alpha: float, every: int) -> list[list[float]]:
    weights = nn.Parameter(torch.tensor(inputs["initial_reference"], dtype=torch.float64))
    policy = nn.ParameterList([weights])
    reference = Moving(LANGUAGE, policy, alpha=alpha, every=every)
    steps = []
    for step, after in enumerate(inputs["policy_after_step"], start=1):
        weights.data = torch.tensor(after, dtype=torch.float64)
        reference.follow(policy, step)
        steps.append(reference.moved()["0"].tolist())
    return steps


@adapter("p061", "tr_dpo_reference_update")
def tr_dpo(params, inputs):
    return {
        "reference_after_step": trajectory(inputs, params["alpha"], params["sync_steps"]),
        "reference_after_step_hard": trajectory(inputs, 1.0, params["sync_steps"]),
    }
