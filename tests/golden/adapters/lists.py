"""Methods on lists of responses."""

from __future__ import annotations

import torch

from prefero.objectives import method, primary
from prefero.objectives.quantities import per_response
from tests.golden.adapters import adapter
from tests.golden.batches import batch_of, gradient, one, padded, values


@adapter("p053", "dpo_plackett_luce")
def plackett_luce(params, inputs):
    models = {name: inputs[name] for name in ("policy", "reference")}
    responses = max(len(example) for example in inputs["policy"])
    rank = torch.arange(responses).repeat(len(inputs["policy"]), 1)
    batch = batch_of(models, {"rank": rank}, roles=())
    return {"loss": values(method("dpo_plackett_luce", beta=params["beta"]), batch)}


def scored_lists(policy, reference, scores, objective):
    column, _ = padded([[[score] for score in row] for row in scores])
    batch = batch_of({"policy": policy, "reference": reference}, {"score": column[..., 0]}, roles=())
    each = [gradient(objective, one(batch, example))[0] for example in range(len(scores))]
    return batch, values(objective, batch), each


def mpo(params, inputs):
    policy, reference, scores = (
        [group[name] for group in inputs["groups"]] for name in ("policy", "reference", "scores")
    )
    objective = method("mpo_set", **params)
    batch, losses, each = scored_lists(policy, reference, scores, objective)
    accepted = per_response(primary(objective).contrast.accepted, batch) > 0
    return {
        "loss": losses,
        "accepted_mask": [row[: len(own)].int().tolist() for row, own in zip(accepted, scores, strict=True)],
        "grad_policy": each,
    }


adapter("p032", "mpo")(mpo)
adapter("p032", "w_mpo")(mpo)


@adapter("p013", "exo_rw")
def exo_rw(params, inputs):
    both = {"beta": params["beta_pi"], "beta_r": params["beta_r"]}
    lists = inputs["policy"], inputs["reference"], inputs["rewards"]
    _, losses, each = scored_lists(*lists, method("exo_rw", **both))
    _, forward, _ = scored_lists(*lists, method("dpo_rw", **both))
    return {"loss": losses, "loss_dpo_rw": forward, "grad_policy_unreduced": each}
