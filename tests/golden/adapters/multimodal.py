"""Images and videos, several goals, personal preferences."""

from __future__ import annotations

import torch

from prefero.objectives import PreferenceBatch, method, primary
from prefero.objectives.presets.discounts import position_discount
from tests.golden.adapters import adapter
from tests.golden.batches import batch_of, gradients, loss_and_gradients, padded, pairs, ragged, sides, values


def seen_and_corrupted(inputs, roles, seen: dict[str, str], corrupted: str) -> PreferenceBatch:
    """Responses with the true image, and a view ``corrupted`` of the chosen one with the other image."""
    models = {
        name: list(zip(*(inputs[f"{name}_{seen[role]}"] for role in roles), strict=True))
        for name in ("policy", "reference")
    }
    batch = batch_of(models, roles=roles)
    view = batch_of(
        {name: sides(inputs, name, (corrupted,)) for name in ("policy", "reference")}, roles=("chosen",)
    )
    return PreferenceBatch(batch.models, batch.columns, batch.roles, {"corrupted": view})


def slopes_in_view(objective, batch: PreferenceBatch) -> list[list[float]]:
    view = batch.views["corrupted"]
    (slope,) = torch.autograd.grad(objective.loss(batch), view.models["policy"].logps)
    return [example[0] for example in ragged(slope, view.mask)]


@adapter("p077", "mdpo")
def mdpo(params, inputs):
    roles = ("chosen", "rejected")
    batch = seen_and_corrupted(inputs, roles, dict(zip(roles, roles, strict=True)), "chosen_corrupted")
    objective = method("mdpo", beta=params["beta"], anchor=params["anchor"]).double()
    preference, image, anchor = (term.values for term in objective(batch))
    return {
        "loss": preference + image + anchor,
        "loss_dpo": preference,
        "loss_image_conditional": image,
        "loss_anchor": anchor,
        **gradients(objective, batch),
        "grad_policy_chosen_corrupted": slopes_in_view(objective, batch),
    }


@adapter("p106", "vdpo")
def vdpo(params, inputs):
    batch = seen_and_corrupted(inputs, ("chosen",), {"chosen": "original"}, "augmented")
    objective = method("vdpo", **params)
    return {
        "loss": values(objective, batch),
        "grad_policy_original": gradients(objective, batch)["grad_policy_chosen"],
        "grad_policy_augmented": slopes_in_view(objective, batch),
    }


@adapter("p008", "reasoner_discounted_dpo")
def reasoner(params, inputs):
    batch = pairs(inputs)
    weight = position_discount(params["discount"])(batch).expand(batch.mask.shape)
    weights = [example[0] for example in ragged(weight, batch.mask)]
    return {**loss_and_gradients(method("discounted_dpo", **params), batch), "weights_chosen": weights}


@adapter("p137", "relevance_weighted_dpo")
def relevance(params, inputs):
    relevant, _ = padded(
        list(zip(*(inputs[f"{role}_relevant"] for role in ("chosen", "rejected")), strict=True))
    )
    batch = pairs(inputs, columns={"segment": relevant.long()})
    return loss_and_gradients(method("relevance_weighted_dpo", **params), batch)


@adapter("p067", "modpo")
def modpo(params, inputs):
    share, *others = params["w"]
    weights = torch.tensor(others, dtype=torch.float64)
    by_role = [
        torch.tensor(inputs[f"{role}_margin_rewards"], dtype=torch.float64) @ weights
        for role in ("chosen", "rejected")
    ]
    # the column holds the others' mean by their own weights
    other = torch.stack(by_role, 1) / (1 - share) if others else torch.zeros(len(by_role[0]), 2)
    batch = pairs(inputs, columns={"other_score": other})
    objective = method("modpo", beta=params["beta"], share=share)
    chosen, rejected = primary(objective).reward(batch).T
    return {
        **loss_and_gradients(objective, batch),
        "chosen_reward": chosen,
        "rejected_reward": rejected,
    }


@adapter("p129", "fspo_ipo")
def fspo(params, inputs):
    return loss_and_gradients(method("fspo", tau=params["beta"]), pairs(inputs))
