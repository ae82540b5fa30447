"""Losses compiled from preference structures."""

from __future__ import annotations

from prefero.logic import PUBLISHED
from prefero.objectives import method
from tests.golden.adapters import adapter
from tests.golden.batches import pairs, values

NAMES = {
    "ce": "cross_entropy",
    "ceunl": "unlikelihood",
    "cpo": "cpo",
    "orpo": "orpo",
    "ccpo": "ccpo",
    "funl": "f_unlikelihood",
    "dpo": "dpo",
}


@adapter("p149", "logic_losses")
def logic_losses(params, inputs):
    batch, found = pairs(inputs), {}
    for short, name in NAMES.items():
        objective = method("logic", **PUBLISHED[name].structure.formulas, beta=params["beta"]).double()
        found[f"loss_{short}"] = values(objective, batch)
        found[f"log_ratio_{short}"] = objective.comparisons(batch).margins[:, 0]
    return found
