"""Steps, turns, trees and unpaired responses."""

from __future__ import annotations

import itertools
import math

import torch

from prefero.objectives import (
    Compare,
    EveryPair,
    PreferenceBatch,
    log_ratio,
    method,
    negative_log_likelihood,
    primary,
)
from prefero.objectives.among import Rank
from prefero.objectives.presets.steps import similarity, step_weight, visited_wrongly
from prefero.objectives.reductions import mean_of_means
from prefero.objectives.signals import forward_kl
from prefero.search.temperatures import rising
from prefero.search.tree import Child, backed_up, puct, step_prior
from tests.golden.adapters import adapter
from tests.golden.batches import (
    batch_of,
    gradient,
    gradients,
    loss_and_gradients,
    padded,
    pairs,
    ragged,
    sides,
    values,
)

ROLES = ("chosen", "rejected")


def steps_of(spans) -> list[int]:
    """The step of every token, from 1, out of [start, end) token ranges."""
    return [number for number, (start, end) in enumerate(spans, 1) for _ in range(start, end)]


def step_column(spans) -> torch.Tensor:
    return padded([[steps_of(response) for response in example] for example in spans])[0].long()


def span_pairs(inputs, kind: str = "step") -> tuple[list, torch.Tensor]:
    spans = list(zip(inputs[f"chosen_{kind}_spans"], inputs[f"rejected_{kind}_spans"], strict=True))
    return spans, step_column(spans)


def at_starts(tokens: torch.Tensor, spans) -> list[list[list[float]]]:
    """What stands at the first token of each step, [example][response][step]."""
    return [
        [[tokens[e, r, start].item() for start, _ in response] for r, response in enumerate(example)]
        for e, example in enumerate(spans)
    ]


def token_weights(objective, batch: PreferenceBatch, beta: float) -> torch.Tensor:
    """What a token's log-probability counts in the reward, per unit of β."""
    (slope,) = torch.autograd.grad(primary(objective).reward(batch).sum(), batch.models["policy"].logps)
    return slope / beta


@adapter("p039", "dmpo")
def dmpo(params, inputs):
    spans, step = span_pairs(inputs, "turn")
    batch, objective = pairs(inputs, columns={"step": step}), method("dmpo", **params)
    undiscounted = method("dmpo", beta=params["beta"], gamma=1.0)
    weights = at_starts(token_weights(objective, batch, params["beta"]), spans)
    even = at_starts(token_weights(undiscounted, batch, params["beta"]), spans)
    return {
        **loss_and_gradients(objective, batch),
        "turn_weights_chosen": [chosen for chosen, _ in weights],
        "turn_weights_rejected": [rejected for _, rejected in weights],
        "turn_weights_gamma_1": [chosen for chosen, _ in even],
    }


def from_error_step(key: str, params, inputs):
    _, step = span_pairs(inputs)
    columns = {"step": step, "error_step": torch.tensor(inputs["error_step"]) + 1}
    batch, objective = pairs(inputs, columns=columns), method(key, beta=params["beta"])
    return {
        **loss_and_gradients(objective, batch),
        "logits": primary(objective).comparisons(batch).margins[:, 0],
    }


@adapter("p135", "step_dpo")
def step_dpo(params, inputs):
    return from_error_step("step_dpo", params, inputs)


@adapter("p123", "scdpo")
def scdpo(params, inputs):
    temperatures = rising(params["temperature_start"], params["temperature_step"], params["temperature_max"])
    return {
        **from_error_step("scdpo", params, inputs),
        "temperatures_first_8_steps": list(itertools.islice(temperatures, 8)),
    }


def spread(spans, scores) -> list[list[float]]:
    """The score of its step at every token."""
    return [
        [score for (start, end), score in zip(response, own, strict=True) for _ in range(start, end)]
        for response, own in zip(spans, scores, strict=True)
    ]


@adapter("p047", "full_step_dpo")
def full_step_dpo(params, inputs):
    spans, step = span_pairs(inputs)
    by_role = [spread(inputs[f"{role}_step_spans"], inputs[f"{role}_step_rewards"]) for role in ROLES]
    score, _ = padded(list(zip(*by_role, strict=True)))
    batch = pairs(inputs, columns={"step": step, "token_score": score})
    objective = method("full_step_dpo", **params)
    weights = at_starts(token_weights(objective, batch, params["beta"]), spans)
    return {
        **loss_and_gradients(objective, batch),
        "logits": primary(objective).comparisons(batch).margins[:, 0],
        "step_weights_chosen": [chosen for chosen, _ in weights],
        "step_weights_rejected": [rejected for _, rejected in weights],
    }


@adapter("p023", "mcts_dpo_conservative")
def mcts_dpo(params, inputs):
    visits = torch.tensor([inputs[f"visits_{role}"] for role in ROLES], dtype=torch.float64).T
    batch, objective = pairs(inputs, columns={"visits": visits}), method("mcts_dpo", **params)
    return {
        **loss_and_gradients(objective, batch),
        "label_smoothing": visited_wrongly(objective.comparisons(batch))[:, 0],
    }


@adapter("p023", "mcts_dpo_search_step")
def search_step(params, inputs):
    children = [
        Child(value - inputs["parent_value"], later, visits, step_prior(logps, params["length_penalty"]))
        for value, later, visits, logps in zip(
            inputs["child_values"],
            inputs["child_V"],
            inputs["child_visits"],
            inputs["child_token_logps"],
            strict=True,
        )
    ]
    bounds = [puct(child, inputs["parent_visits"], params["gamma"], params["w_exp"]) for child in children]
    return {
        "child_reward": [child.reward for child in children],
        "child_Q": [child.action_value(params["gamma"]) for child in children],
        "child_prior": [child.prior for child in children],
        "puct": bounds,
        "selected_child": bounds.index(max(bounds)),
        "parent_V": backed_up(children, params["gamma"]),
    }


@adapter("p033", "pmpo")
def pmpo(params, inputs):
    label = 2 * torch.tensor(inputs["label"], dtype=torch.float64)[:, None] - 1
    # the divergence of a response stands at its first token
    kl = [
        [[total] + [0.0] * (len(logps) - 1)]
        for total, logps in zip(inputs["kl_ref_policy"], inputs["policy"], strict=True)
    ]
    policy = [[logps] for logps in inputs["policy"]]
    batch = batch_of({"policy": policy}, {"label": label}, roles=(), signals={forward_kl(): kl})
    objective = method("pmpo", **params)
    slopes = [example[0] for example in gradient(objective, batch)]
    return {
        "total_loss": objective.loss(batch),
        "per_example_weight": [slope[0] for slope in slopes],
        "grad_policy": slopes,
    }


@adapter("p083", "tpo_triple")
def tpo_triple(params, inputs):
    roles = (*ROLES, "gold")
    batch = batch_of({"policy": sides(inputs, "policy", roles)}, roles=roles)
    both = {"beta": params["beta"], "alpha": params["alpha"]}
    summed, averaged = method("tpo_triple", **both), method("tpo_l", **params)
    preference, preference_averaged = summed(batch)[0], averaged(batch)[0]
    return {
        "preference_loss": preference.values,
        "preference_loss_length_normalised": preference_averaged.values,
        "nll": negative_log_likelihood("gold", "batch").loss(batch),
        "total_loss": summed.loss(batch),
        "total_loss_length_normalised": averaged.loss(batch),
        **gradients(summed, batch),
    }


@adapter("p071", "tpo_tree")
def tpo_tree(params, inputs):
    models = {name: inputs[name] for name in ("policy", "reference")}
    spans, omega = inputs["step_spans"], inputs["step_weights"]
    weight, _ = padded([spread(*example) for example in zip(spans, omega, strict=True)])
    scores, _ = padded([[[score] for score in example] for example in inputs["scores"]])
    columns = {"score": scores[..., 0], "token_weight": weight}
    batch = batch_of(models, columns, roles=())
    # another base multiplies every weight by one number
    scale = 1.0 if params["log_base"] == "e" else math.log(float(params["log_base"]))
    plain, weighted = (
        method("tpo_tree", beta=params["beta"], step_weight=kind) for kind in ("none", "given")
    )
    sizes, most = [len(example) for example in inputs["scores"]], max(map(len, inputs["scores"]))

    def own(table: torch.Tensor) -> list[torch.Tensor]:
        return [row[:size] for row, size in zip(table, sizes, strict=True)]

    weights = weighted.weight(weighted.comparisons(batch)).unflatten(1, (most, most))
    slope = torch.autograd.grad(scale * values(weighted, batch).mean(), batch.models["policy"].logps)[0]
    unweighted = Compare(params["beta"] * log_ratio().sum(), EveryPair("score"), reduce=mean_of_means)
    return {
        "rewards_unweighted": lists(own(plain.reward(batch))),
        "rewards_step_weighted": lists(own(weighted.reward(batch))),
        "rank_step_weighted": lists(own(Rank(weighted.reward)(batch).int())),
        "lambda_step_weighted": lists(
            [scale * table[:, :size] for table, size in zip(own(weights), sizes, strict=True)]
        ),
        "loss": scale * values(weighted, batch),
        "loss_without_step_weights": scale * values(plain, batch),
        "pairwise_mean_without_lambda": values(unweighted, batch),
        "grad_policy": ragged(slope, batch.mask),
    }


def lists(tables) -> list:
    return [table.tolist() for table in tables]


@adapter("p071", "tpo_tree_step_weights")
def tpo_tree_step_weights(params, inputs):
    best, other = (
        torch.tensor(inputs[f"{which}_step_embeddings"], dtype=torch.float64) for which in ("best", "other")
    )
    cosine = similarity(best, other)
    return {
        "cosine": cosine,
        "similarity_weights": step_weight(cosine, "similarity"),
        "dissimilarity_weights": step_weight(cosine, "dissimilarity"),
    }
