"""Losses that a search found."""

from __future__ import annotations

import torch

from prefero.objectives import method, primary
from tests.golden.adapters import adapter
from tests.golden.batches import loss_and_gradients, pairs


@adapter("p100", "discopop")
def discopop(params, inputs):
    batch, objective = pairs(inputs), method("discopop", **params)
    margins = primary(objective.double()).comparisons(batch).margins[:, 0]
    return {
        **loss_and_gradients(objective, batch),
        "modulation": torch.sigmoid(margins / params["tau"]),
    }


@adapter("p100", "discovered_losses")
def discovered_losses(params, inputs):
    batch, found = pairs(inputs), {}
    for key in ("dbaql", "aql", "aqfl", "padll", "cell", "pfl"):
        tau = {"tau": params["tau"]} if key in ("dbaql", "aql", "aqfl") else {}
        terms = method(key, beta=params["beta"], **tau).double()(batch)
        found[key] = sum(term.values for term in terms)
    return found
