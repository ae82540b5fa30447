"""Robust and reward-aware methods, and those without a reference."""

from __future__ import annotations

from prefero.objectives import method, primary
from tests.golden.adapters import adapter
from tests.golden.batches import loss_and_gradients, pairs, values


@adapter("p121", "alphapo")
def alphapo(params, inputs):
    batch, objective = pairs(inputs), method("alphapo", **params)
    # the vector's rewards are without β
    chosen, rejected = (primary(objective).reward(batch) / params["beta"]).T
    return {
        **loss_and_gradients(objective, batch),
        "reward_chosen": chosen,
        "reward_rejected": rejected,
    }


@adapter("p128", "repo")
def repo(params, inputs):
    batch, objective = pairs(inputs), method("repo", gamma=params["gamma"])
    both = loss_and_gradients(objective, batch)
    softer = method("repo_plus", beta=params["beta_pp"], gamma=params["gamma"])
    return {
        **both,
        "active": [any(side) for side in both["grad_policy_chosen"]],
        "repo_pp_loss": values(softer, batch),
    }
