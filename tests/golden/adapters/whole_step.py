"""Methods that see the whole optimizer step, and those with state."""

from __future__ import annotations

import torch

from prefero.objectives import method, primary
from tests.golden.adapters import adapter
from tests.golden.batches import batch_of, gradients, loss_and_gradients, pairs, values


@adapter("p098", "dr_dpo")
def dr_dpo(params, inputs):
    batch, objective = pairs(inputs), method("dr_dpo", **params)
    base = values(method("dpo", beta=params["beta"]), batch).detach().requires_grad_()
    compared = primary(objective)
    (term,) = compared.reduce(base[:, None], compared.comparisons(batch))
    (slope,) = torch.autograd.grad(term.total / term.count, base)
    return {
        "base_loss": base,
        "batch_loss": objective.loss(batch),
        "weights": slope,
        **gradients(objective, batch),
    }


def group_robust(base, params, inputs):
    batch = pairs(inputs, columns={"group": inputs["group"]})
    objective = method(
        "group_robust",
        counts=inputs["group_counts"],
        beta=params["beta"],
        step_size=params["step_size"],
        base=base,
        normalisation=params["normalisation"],
    ).double()
    weights = objective.reduce
    weights.log_q.copy_(torch.tensor(inputs["q"], dtype=torch.float64).log())
    # training moves q once, before the loss is formed
    loss = objective.train().loss(batch)
    objective.eval()
    (term,) = objective(batch)
    return {
        "base_loss": term.values,
        "group_loss": weights.group_losses(term.values[:, None], objective.comparisons(batch)),
        "q_new": weights.log_q.exp(),
        "batch_loss": loss,
        **gradients(objective, batch),
    }


@adapter("p099", "group_robust.dpo")
def group_robust_dpo(params, inputs):
    return group_robust("dpo", params, inputs)


@adapter("p099", "group_robust.ipo")
def group_robust_ipo(params, inputs):
    return group_robust("ipo", params, inputs)


@adapter("p038", "beta_dpo")
def beta_dpo(params, inputs):
    number = len(inputs["policy_chosen"])
    drawn = torch.zeros(number, 1, dtype=torch.float64)
    drawn[inputs["selected"]] = 1.0
    batch = pairs(inputs, columns={"pair_noise": torch.full((number,), 0.5, dtype=torch.float64)})

    def started(gap="log_ratio"):
        objective = method(
            "beta_dpo",
            beta=params["beta"],
            alpha=params["alpha"],
            keep=params["keep_ratio"],
            momentum=params["momentum"],
            minimum=params["beta_min"],
            gap=gap,
        ).double()
        # the vector says which pairs were drawn, however unlikely some of them are
        objective.scale.kept = lambda comparisons: drawn
        objective.scale.center.fill_(inputs["gap_mean_prev"])
        objective.scale.spread.fill_(inputs["gap_std_prev"])
        return objective

    scale, scaled = started().scale, started("reward").scale
    comparisons = started().comparisons(batch)
    scale.observe(comparisons)
    scaled.observe(comparisons)
    # each call in training moves the statistics once, so each starts anew
    return {
        "gap": scale.gaps(comparisons)[:, 0],
        "gap_mean_new": scale.center,
        "gap_std_new": scale.spread,
        "sampling_weight": scale.log_weight(comparisons)[:, 0].exp(),
        "num_selected": int(type(scale).kept(scale, comparisons).sum()),
        "beta_used": scale(comparisons),
        "loss": values(started(), batch),
        "reduced_loss": started().loss(batch),
        **gradients(started(), batch),
        "beta_used_scaled_gap": scaled(comparisons),
    }


@adapter("p021", "rpo_paired")
def rpo_paired(params, inputs):
    embedding = torch.tensor(inputs["prompt_embeddings"], dtype=torch.float64)
    batch = pairs(inputs, columns={"prompt_embedding": embedding})
    objective = method("rpo_relative", **params)
    return {
        **loss_and_gradients(objective, batch),
        "weights": objective.scale(objective.comparisons(batch)),
    }


@adapter("p021", "rpo_paired_uniform")
def rpo_paired_uniform(params, inputs):
    return loss_and_gradients(method("rpo_relative_uniform", **params), pairs(inputs))


@adapter("p021", "rpo_diagonal")
def rpo_diagonal(params, inputs):
    objective = method("rpo_relative_diagonal", beta=params["beta"], diagonal=params["diagonal_weight"])
    return loss_and_gradients(objective, pairs(inputs))


@adapter("p021", "rpo_unpaired")
def rpo_unpaired(params, inputs):
    waiting = {
        status: [iter(inputs[f"{model}_{side}"]) for model in ("policy", "reference")]
        for status, side in (("chosen", "desirable"), ("rejected", "undesirable"))
    }
    rows = [[next(one) for one in waiting[status]] for status in inputs["status"]]
    label = torch.tensor([[1.0 if status == "chosen" else -1.0] for status in inputs["status"]])
    batch = batch_of(
        {"policy": [[policy] for policy, _ in rows], "reference": [[reference] for _, reference in rows]},
        columns={
            "label": label.double(),
            "prompt_embedding": torch.tensor(inputs["prompt_embeddings"], dtype=torch.float64),
        },
        roles=(),
    )
    losses = values(method("rpo_relative_unpaired", **params), batch)
    return {"loss": losses[label[:, 0] > 0]}
