"""Applications: the losses among them, and the selection of self-made tests."""

from __future__ import annotations

import torch

from prefero.feedback.self_tests import minimax_pair
from prefero.objectives import method, primary
from prefero.objectives.signals import LOG_Z
from tests.golden.adapters import adapter
from tests.golden.batches import batch_of, pairs, values


@adapter("p006", "self_refine_it")
def self_refine(params, inputs):
    return margins(params, inputs)


@adapter("p155", "qdpo_loss")
def qdpo(params, inputs):
    return margins(params, inputs)


def margins(params, inputs):
    batch, objective = pairs(inputs), method("dpo", beta=params["beta"])
    unscaled = primary(method("dpo", beta=1.0)).comparisons(batch).margins[:, 0]
    return {"loss": values(objective, batch), "logratio_margin": unscaled}


@adapter("p155", "qdpo_margin_sign")
def qdpo_margin_sign(params, inputs):
    answers = {"chosen": "fp", "rejected": "q"}
    scored = {
        f"{name}_{role}": [[logp] for logp in inputs[f"logp_{model}_of_{answer}_answer"]]
        for name, model in (("policy", "fp"), ("reference", "q"))
        for role, answer in answers.items()
    }
    batch, objective = pairs(scored), method("dpo", beta=params["beta"])
    return {
        "reward_margin": primary(objective).comparisons(batch).margins[:, 0],
        "bt_prob_fp_preferred": (-values(objective, batch)).exp(),
    }


@adapter("p010", "z_loss")
def z_loss(params, inputs):
    log_z = torch.tensor(inputs["logits"], dtype=torch.float64).logsumexp(-1)
    mask = torch.tensor(inputs["mask"], dtype=torch.bool)
    measured = [[row[keep].tolist()] for row, keep in zip(log_z, mask, strict=True)]
    batch = batch_of({"policy": measured}, roles=(), signals={LOG_Z: measured})
    return {"log_z": log_z, "z_loss": method("z_loss", strength=params["coef"]).loss(batch)}


@adapter("p058", "dstc_minimax")
def minimax(params, inputs):
    passes = inputs["pass_matrix"]
    found = {rule: minimax_pair(passes, rule) for rule in ("fewest", "most")}
    indices = {
        rule: [[one.code, one.test] for one in pair] if pair else [None, None] for rule, pair in found.items()
    }
    chosen, rejected = indices[params["rejected_test"].split()[0]]
    return {
        "code_passes": [sum(row) for row in passes],
        "test_passes": [sum(column) for column in zip(*passes, strict=True)],
        "chosen": chosen,
        "rejected": rejected,
        "rejected_fewest": indices["fewest"][1],
        "rejected_most": indices["most"][1],
    }
