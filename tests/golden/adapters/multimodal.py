"""Images and videos, several goals, personal preferences."""

from __future__ import annotations

import torch

from prefero.feedback import augmentations, chains
from prefero.objectives import PreferenceBatch, method, primary
from prefero.objectives.presets.length import position_discount
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
    other = torch.stack(by_role, 1) / (1 - share if share < 1 else 1)
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


@adapter("p106", "pami_close_to_far_select")
def close_to_far(params, inputs):
    both = list(zip(inputs["global_similarity"], inputs["prompt_similarity"], strict=True))
    count = params["k_close"]
    return {
        "close_set": [augmentations.close_set(alike, count) for alike, _ in both],
        "selected": [augmentations.close_to_far(*similarities, count) for similarities in both],
    }


@adapter("p008", "reasoner_answer_pairs_and_vote")
def answer_pairs(params, inputs):
    questions = list(zip(inputs["answers"], inputs["gold"], inputs["rewards"], strict=True))
    found = [chains.right_and_wrong(answers, gold) for answers, gold, _ in questions]
    return {
        "accuracy": [len(right) / (len(right) + len(wrong)) for right, wrong in found],
        "kept": [chains.teaches(answers, gold, **params) for answers, gold, _ in questions],
        "correct_index": [right for right, _ in found],
        "wrong_index": [wrong for _, wrong in found],
        "best_of_n_answer": [chains.best_of(answers, rewards) for answers, _, rewards in questions],
        "majority_answer": [chains.voted(answers) for answers, _, _ in questions],
        "weighted_vote_answer": [chains.voted(answers, rewards) for answers, _, rewards in questions],
    }


@adapter("p008", "reasoner_truncate")
def truncate(params, inputs):
    return {
        "truncated": [chains.cut(text, params["truncate_len"], params["min_len"]) for text in inputs["texts"]]
    }
