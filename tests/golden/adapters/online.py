"""Online loops, exploration and games."""

from __future__ import annotations

import torch
from torch import Tensor

from prefero.feedback.aspects import regression_loss, weighted_sum
from prefero.feedback.hindsight import normalised_rating, preferred_index, shopping_utilities
from prefero.feedback.pairing import (
    best_and_worst,
    max_max,
    max_min,
    max_min_penalised,
    max_random,
    teacher_pairs,
    verifiable_candidates,
)
from prefero.feedback.rejection import tempered
from prefero.feedback.schedules import generator_version
from prefero.feedback.win_rates import group_win_rates, preference_matrix
from prefero.models.arithmetic import combination
from prefero.objectives import PreferenceBatch, TokenLogps, method
from prefero.objectives.compare import Compare
from prefero.objectives.presets.iterative import SAMPLES, drift, online_kl
from prefero.objectives.presets.policy_gradients import group_advantage
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


def by_role(inputs, name: str) -> Tensor:
    """``inputs["name_chosen"]`` and ``inputs["name_rejected"]`` as one column."""
    both = [inputs[f"{name}_chosen"], inputs[f"{name}_rejected"]]
    return torch.tensor(both, dtype=torch.float64).T


def with_sample(inputs, name: str) -> PreferenceBatch:
    """Pairs and one more response, which the vector calls ``name``."""
    roles = ("chosen", "rejected", name)
    models = {model: sides(inputs, model, roles) for model in ("policy", "reference")}
    batch = batch_of(models, roles=roles)
    return PreferenceBatch(batch.models, {}, ("chosen", "rejected", "sample"))


def pulls(objective, batch: PreferenceBatch, *names: str) -> dict:
    """The gradient of each response, under the names that the vectors give them."""
    by_response = zip(*gradient(objective, batch), strict=True)
    return {f"grad_policy_{name}": list(side) for name, side in zip(names, by_response, strict=True)}


def parts(objective, batch: PreferenceBatch) -> list[Tensor]:
    """The values of every term, one number an example."""
    return [term.values for term in objective.double()(batch)]


@adapter("p165", "sppo")
def sppo(params, inputs):
    batch = pairs(inputs, columns={"win_rate": by_role(inputs, "win_rate")})
    return {
        **loss_and_gradients(method("sppo", beta=params["beta"]), batch),
        "loss_hard": values(method("sppo", beta=params["beta"], labels="hard"), batch),
    }


@adapter("p081", "dno")
def dno(params, inputs):
    win_rate = by_role(inputs, "win_rate")
    return {
        **loss_and_gradients(method("dno", eta=params["eta"]), pairs(inputs, columns={"win_rate": win_rate})),
        "target": (win_rate[:, 0] - win_rate[:, 1]).sigmoid(),
    }


@adapter("p160", "inpo")
def inpo(params, inputs):
    models = {"policy": "policy", "reference": "reference", "previous": "last"}
    batch = batch_of({name: sides(inputs, prefix) for name, prefix in models.items()})
    objective = method("inpo_nash", eta=params["eta"], mixture=params["tau_over_eta"])
    assert isinstance(objective, Compare)
    return {
        **loss_and_gradients(objective, batch),
        "h": objective.double().comparisons(batch).margins[:, 0],
    }


@adapter("p120", "egpo_online_ipo")
def online_ipo(params, inputs):
    third = [inputs[f"preference_{role}_vs_third"] for role in ("chosen", "rejected")]
    batch = pairs(inputs, columns={"win_rate": torch.tensor(third, dtype=torch.float64).T})
    tokens = "mean" if params["length_normalised"] else "sum"
    return loss_and_gradients(method("online_ipo", beta=params["beta"], tokens=tokens), batch)


@adapter("p133", "spac")
def spac(params, inputs):
    batch = with_sample(inputs, "self")
    objective = method(
        "spac",
        beta=params["beta"],
        lam=params["lambda"],
        relative=params["relative_to_chosen"],
        smooth=params.get("smooth", False),
    )
    preference, *critic = parts(objective, batch)
    return {
        "loss": preference + sum(critic),
        "loss_preference": values(method("dpo", beta=params["beta"]), batch),
        "critic_term": sum(critic),
        **pulls(objective, batch, "chosen", "rejected", "self"),
    }


@adapter("p064", "ofs_dpo")
def ofs_dpo(params, inputs):
    names = {"policy": "policy_fast", "slow": "policy_slow", "reference": "reference"}
    batch = batch_of({name: sides(inputs, prefix) for name, prefix in names.items()})
    slow = batch.models["slow"]
    batch.models["slow"] = TokenLogps(slow.logps.requires_grad_(), slow.mask)
    objective = method("ofs_dpo", beta=params["beta"], alpha=params["alpha"], clamp=None).double()
    dpo_fast, ahead, dpo_slow, behind = parts(objective, batch)
    uncoupled = method("ofs_dpo", beta=params["beta"], alpha=1.0, clamp=None)
    found = {"dpo_fast": dpo_fast, "dpo_slow": dpo_slow, "fast_slow": parts(uncoupled, batch)[1]}
    found |= {"loss_fast": dpo_fast + ahead, "loss_slow": dpo_slow + behind}
    leaves = {"fast": batch.models["policy"].logps, "slow": batch.models["slow"].logps}
    slopes = torch.autograd.grad(objective.loss(batch), list(leaves.values()))
    for name, slope in zip(leaves, slopes, strict=True):
        chosen, rejected = zip(*ragged(slope, batch.mask), strict=True)
        found |= {f"grad_{name}_chosen": list(chosen), f"grad_{name}_rejected": list(rejected)}
    return found


@adapter("p154", "xpo")
def xpo(params, inputs):
    """The explored response is one of the pair's, so it stands in the batch twice."""
    explored = [
        inputs["policy_chosen" if is_chosen else "policy_rejected"][example]
        for example, is_chosen in enumerate(inputs["reference_sample_is_chosen"])
    ]
    batch = with_sample({**inputs, "policy_explored": explored, "reference_explored": explored}, "explored")
    objective = method("xpo", beta=params["beta"], alpha=params["alpha"])
    dpo, bonus = parts(objective, batch)
    found = pulls(objective, batch, "chosen", "rejected", "explored")
    for example, is_chosen in enumerate(inputs["reference_sample_is_chosen"]):
        own = found["grad_policy_chosen" if is_chosen else "grad_policy_rejected"]
        both = zip(own[example], found["grad_policy_explored"][example], strict=True)
        own[example] = [first + second for first, second in both]
    return {"loss": dpo + bonus, "loss_dpo": dpo, "loss_exploration": bonus, **found}


def with_value(objective, batch: PreferenceBatch, name: str) -> dict:
    dpo, value = parts(objective, batch)
    return {"loss": dpo + value, "loss_dpo": dpo, name: value}


@adapter("p162", "selm")
def selm(params, inputs):
    batch = with_sample(inputs, "exploration")
    objective = method("selm", beta=params["beta"], alpha=params["alpha"])
    return {
        **with_value(objective, batch, "loss_exploration"),
        **pulls(objective, batch, "chosen", "rejected", "exploration"),
    }


@adapter("p163", "vpo")
def vpo(params, inputs):
    sign = "optimism" if params["sign"] > 0 else "pessimism"
    both = {"beta": params["beta"], "alpha": params["alpha"], "sign": sign}
    if "policy_calibration" in inputs:
        batch = with_sample(inputs, "calibration")
        objective = method("vpo", calibration="sample", **both)
        names = ("chosen", "rejected", "calibration")
    else:
        batch, objective = pairs(inputs), method("vpo", calibration="chosen", **both)
        names = ("chosen", "rejected")
    return {**with_value(objective, batch, "loss_value"), **pulls(objective, batch, *names)}


@adapter("p105", "hypo")
def hypo(params, inputs):
    batch = with_sample(inputs, "online")
    objective = method("hypo", beta=params["beta"], lam=params["lambda"])
    unweighted = method("hypo", beta=params["beta"], lam=1.0)
    dpo, kl = parts(unweighted, batch)
    return {
        "loss": sum(parts(objective, batch)),
        "loss_dpo": dpo,
        "loss_kl": kl,
        "kl_estimate": drift(("sample",), "none")(batch)[:, 2].mean(),
        **pulls(objective, batch, "chosen", "rejected", "online"),
    }


@adapter("p105", "hypo_kl_rloo")
def hypo_rloo(params, inputs):
    count = params["k"]
    roles = SAMPLES.get(count, tuple(f"sample_{i + 1}" for i in range(count)))
    batch = batch_of({name: inputs[f"{name}_online"] for name in ("policy", "reference")}, roles=roles)
    objective = online_kl(roles, "leave_one_out").double()
    return {
        "advantage": drift(roles, "leave_one_out")(batch),
        "loss_kl": objective.comparisons(batch).margins,
        "grad_policy_online": gradient(objective, batch),
    }


@adapter("p108", "irpo")
def irpo(params, inputs):
    batch, objective = pairs(inputs), method("irpo", beta=params["beta"], alpha=params["alpha"])
    dpo, nll = parts(method("irpo", beta=params["beta"], alpha=1.0), batch)
    return {
        "loss": sum(parts(objective, batch)),
        "loss_dpo": dpo,
        "loss_nll": nll,
        **gradients(objective, batch),
    }


@adapter("p076", "pessimistic_dpo")
def pessimistic_dpo(params, inputs):
    batch = pairs(inputs, columns={"uncertainty": by_role(inputs, "uncertainty")})
    return loss_and_gradients(method("pessimistic_dpo", beta=params["beta"]), batch)


@adapter("p112", "group_dpo_plus_grpo")
def group_dpo(params, inputs):
    models = {name: inputs[f"{name}_group"] for name in ("policy", "reference")}
    rewards, _ = padded([[[reward] for reward in row] for row in inputs["rewards"]])
    columns = {"score": rewards[..., 0]}
    batch = batch_of({**models, "behaviour": inputs["policy_group"]}, columns, roles=())
    objective = method("group_dpo_grpo", beta=params["beta"], alpha=params["alpha"]).double()
    pairwise, policy_gradient = objective(batch)
    (slope,) = torch.autograd.grad(pairwise.total + policy_gradient.total, batch.models["policy"].logps)
    mixed = [len(set(row)) > 1 for row in inputs["rewards"]]
    losses = pairwise.values.tolist()
    return {
        "group_dpo_loss": [loss if is_mixed else None for loss, is_mixed in zip(losses, mixed, strict=True)],
        "grpo_advantage": [
            row[: len(own)].tolist()
            for row, own in zip(group_advantage("none")(batch), inputs["rewards"], strict=True)
        ],
        "grpo_loss_value": policy_gradient.values / params["alpha"],
        "grad_policy_group": ragged(slope, batch.mask),
    }


@adapter("p112", "semi_online_schedule")
def semi_online(params, inputs):
    steps = range(params["steps"])
    return {
        "generator_version": [generator_version(step, params["sync_every"]) for step in steps],
        "generator_version_online": [generator_version(step, 1) for step in steps],
        "generator_version_offline": [generator_version(step, None) for step in steps],
    }


@adapter("p165", "sppo_win_rates")
def sppo_win_rates(params, inputs):
    scores = torch.tensor(inputs["scores"], dtype=torch.float64)
    preference = preference_matrix(scores)
    rates = group_win_rates(preference)
    chosen, rejected = best_and_worst(inputs["scores"])
    return {
        "preference_matrix": preference,
        "win_rate": rates,
        "chosen_index": chosen,
        "rejected_index": rejected,
        "win_rate_chosen": float(rates[chosen]),
        "win_rate_rejected": float(rates[rejected]),
        "pairwise_probability": float(preference[chosen, rejected]),
    }


@adapter("p076", "multi_step_rso")
def multi_step_rso(params, inputs):
    reward, start = (torch.tensor(inputs[name], dtype=torch.float64) for name in ("reward", "pi0"))
    steps = tempered(reward, start, eta=params["eta"], steps=params["steps"])
    (once,) = tempered(reward, start, eta=params["eta"], steps=1)
    return {
        "steps": [
            {
                "acceptance": step.acceptance.tolist(),
                "expected_acceptance_rate": step.rate,
                "distribution": step.distribution.tolist(),
            }
            for step in steps
        ],
        "one_step_acceptance_rate": once.rate,
        "one_step_distribution": once.distribution,
    }


@adapter("p076", "iterative_dpo_pairing")
def iterative_pairing(params, inputs):
    def pairs_by(rule):
        return [
            None if (pair := rule(rewards, lengths)) is None else [*pair, margin(rewards, pair)]
            for rewards, lengths in zip(inputs["rewards"], inputs["lengths"], strict=True)
        ]

    def margin(rewards, pair):
        return (rewards[pair[0]] - rewards[pair[1]]) * params["margin_scale"]

    penalised = params["length_penalty"]
    return {
        "max_min": pairs_by(lambda rewards, lengths: max_min(rewards)),
        "max_random": pairs_by(lambda rewards, lengths: max_random(rewards)),
        "max_max": pairs_by(lambda rewards, lengths: max_max(rewards)),
        "max_min_p": pairs_by(lambda rewards, lengths: max_min_penalised(rewards, lengths, penalised)),
    }


@adapter("p081", "dno_pair_construction")
def dno_pairs(params, inputs):
    def named(index):
        return "T" if index == 0 else f"S{index - 1}"

    return {
        "pairs": [
            [
                [named(better), named(worse)]
                for better, worse in teacher_pairs([case["teacher"], *case["students"]], **params)
            ]
            for case in inputs["cases"]
        ]
    }


@adapter("p055", "verifiable_pair_selection")
def verifiable(params, inputs):
    candidates = [
        verifiable_candidates(prompt["vr"], prompt["len"], max_tokens=params["max_tokens"])
        for prompt in inputs["prompts"]
    ]
    return {
        "chosen_index": [chosen for chosen, _ in candidates],
        "allowed_rejected_indices": [rejected for _, rejected in candidates],
    }


@adapter("p132", "multi_objective_grpo")
def multi_objective(params, inputs):
    aspects = torch.tensor(inputs["aspect_scores"], dtype=torch.float64)
    reward = weighted_sum(aspects, torch.tensor(params["weights"], dtype=torch.float64))
    batch = batch_of({"policy": [[[0.0]] * len(row) for row in reward]}, {"score": reward}, roles=())
    regression = (
        torch.tensor(inputs[f"regression_{side}"], dtype=torch.float64) for side in ("predictions", "targets")
    )
    return {
        "scalar_reward": reward,
        **{
            f"advantage_{spread}_std": group_advantage(spread, params["eps"])(batch)
            for spread in ("sample", "population")
        },
        "reward_regression_loss": regression_loss(*regression),
    }


@adapter("p158", "rlhs_utility_and_labels")
def rlhs(params, inputs):
    return {
        "true_utility": [shopping_utilities(offer["costs"], offer["meets"]) for offer in inputs["offers"]],
        "normalised_foresight": [
            [normalised_rating(rating) for rating in pair] for pair in inputs["foresight_ratings"]
        ],
        "chosen_by_foresight": [preferred_index(pair) for pair in inputs["foresight_ratings"]],
        "chosen_by_hindsight": [preferred_index(pair) for pair in inputs["hindsight_ratings"]],
    }


@adapter("p064", "cofs_dpo_combination")
def cofs(params, inputs):
    parameters = [
        {"fast": torch.tensor(inputs[f"fast_parameters_task{task}"], dtype=torch.float64)} for task in (1, 2)
    ]
    losses = torch.tensor(inputs["memory_dpo_loss_per_task_per_lambda"], dtype=torch.float64)
    combined = [combination(parameters, [share, 1 - share])["fast"].tolist() for share in params["lambdas"]]
    best = int(losses.sum(0).argmin())
    return {
        "combined": combined,
        "best_lambda": params["lambdas"][best],
        "best_parameters": combined[best],
    }
