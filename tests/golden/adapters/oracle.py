"""The comparison oracle."""

from __future__ import annotations

import torch

from prefero.feedback.selection import nearly_equal
from prefero.training.oracle import Direction, oracle
from tests.golden.adapters import adapter


@adapter("p152", "compo_update")
def compo_update(params, inputs):
    perturbations, base_chosen, base_rejected, chosen, rejected = (
        torch.tensor(inputs[name], dtype=torch.float64)
        for name in (
            "perturbations",
            "base_logp_chosen",
            "base_logp_rejected",
            "perturbed_logp_chosen",
            "perturbed_logp_rejected",
        )
    )
    verdicts = oracle((base_chosen, base_rejected), (chosen, rejected))
    direction = Direction(perturbations[0])
    direction.add(perturbations, verdicts)
    threshold, least = params["entry_threshold"], params["min_successes"] / len(perturbations)
    return {
        "oracle": verdicts.int(),
        "successes": direction.successes,
        "direction": direction.unit,
        "sparse_direction": direction.sparse(threshold),
        "parameter_delta": -params["step_size"] * direction.gradient(threshold, least),
    }


@adapter("p152", "compo_split")
def compo_split(params, inputs):
    return {"noisy": nearly_equal(torch.tensor(inputs["reference_margin"]), params["delta"])}
