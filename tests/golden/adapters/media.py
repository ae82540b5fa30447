"""Stored denoising steps, inverted states, and the choice of pairs of images, clips and prompts."""

from __future__ import annotations

import torch

from prefero.feedback import curricula, media_pairs
from prefero.feedback.aspects import weighted_sum
from prefero.feedback.pairing import best_and_worst
from prefero.models.arithmetic import combination
from prefero.models.diffusion.inversion import implied_noise, invert
from prefero.models.diffusion.process import NoiseProcess, squared_error
from prefero.models.diffusion.rewards import renoised, sampled
from prefero.models.diffusion.sampling import (
    Transitions,
    guided,
    moved,
    predicted_data,
    score_transitions,
    step_deviation,
)
from prefero.models.diffusion.users import decoupled_attention
from prefero.objectives import PreferenceBatch, TokenLogps, method
from prefero.objectives.compare import Objective
from prefero.objectives.presets.images import clipped_log_ratio
from prefero.objectives.quantities import log_ratio
from prefero.objectives.signals import NOISE_LEVEL, prediction_distance
from prefero.reference.providers import Moving
from tests.golden.adapters import adapter
from tests.golden.adapters.denoising import MODELS, ROLES, batch_of_errors, margins, predictions, tensor
from tests.golden.batches import values
from tests.language import LANGUAGE


def levels(inputs) -> tuple[torch.Tensor, torch.Tensor]:
    return tensor(inputs["alpha_bar_t"]), tensor(inputs["alpha_bar_prev"])


def scored_steps(inputs, said, states, reached, eta) -> dict[str, TokenLogps]:
    """What models that say ``said[model]`` (``[example source …]``) give the steps, through the library."""
    level = torch.cat(levels(inputs))
    count = len(level) // 2
    process = NoiseProcess("epsilon", level.sqrt(), (1 - level).sqrt(), torch.arange(2 * count))
    steps = Transitions(states, reached, torch.arange(count), torch.arange(count) + count)
    return {
        name: score_transitions(lambda rows, timestep, own=own: own.flatten(0, 1), process, steps, eta=eta)
        for name, own in said.items()
    }


def slope(objective: Objective, batch: PreferenceBatch, *wanted: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(objective.loss(batch), wanted, retain_graph=True))


def scaled_margins(objective, batch: PreferenceBatch) -> torch.Tensor:
    comparisons = objective.comparisons(batch)
    scale = objective.scale(comparisons) if callable(objective.scale) else objective.scale
    return (scale * comparisons.margins)[:, 0]


@adapter("p072", "d3po")
def d3po(params, inputs):
    sides = ("0", "1")
    preference = [
        media_pairs.dominance([one], [other])
        for one, other in zip(inputs["reward_0"], inputs["reward_1"], strict=True)
    ]
    said = {
        name: {side: tensor(inputs[f"{name}_eps_{side}"]).requires_grad_(name == "policy") for side in sides}
        for name in MODELS
    }
    states, reached = (
        torch.stack([tensor(inputs[f"{which}_{side}"]) for side in sides], 1) for which in ("x_t", "x_prev")
    )
    stacked = {name: torch.stack([own[side] for side in sides], 1) for name, own in said.items()}
    models = scored_steps(inputs, stacked, states, reached, params["eta"])
    by_side = PreferenceBatch(models, {}, sides)
    order = torch.tensor([[1, 0] if one < 0 else [0, 1] for one in preference])
    batch = PreferenceBatch(
        {
            name: TokenLogps(own.logps.gather(1, order[..., None]), own.mask.gather(1, order[..., None]))
            for name, own in models.items()
        },
        {"tie": torch.tensor([one == 0 for one in preference])},
    )
    objective = method("d3po", beta=params["beta"], clip=params["ratio_clip"])
    slopes = slope(objective, batch, *(said["policy"][side] for side in sides))
    ratios = log_ratio()(by_side)[..., 0]
    clipped = clipped_log_ratio(params["ratio_clip"])(by_side)[..., 0].exp()
    return {
        "preference_0": [float(one) for one in preference],
        "sigma": step_deviation(*levels(inputs), params["eta"]),
        "logp_policy_0": models["policy"].logps[:, 0, 0],
        "logp_reference_0": models["reference"].logps[:, 0, 0],
        "log_ratio_0": ratios[:, 0],
        "log_ratio_1": ratios[:, 1],
        "ratio_0": clipped[:, 0],
        "ratio_1": clipped[:, 1],
        "logits": scaled_margins(objective, batch),
        "loss": values(objective, batch),
        "grad_policy_eps_0": slopes[0],
        "grad_policy_eps_1": slopes[1],
    }


def from_one_state(inputs, reached: torch.Tensor, eta: float) -> tuple[PreferenceBatch, torch.Tensor]:
    """Pairs of steps from one state, and what the policy says of it."""
    said = {name: tensor(inputs[f"{name}_eps"])[:, None].requires_grad_(name == "policy") for name in MODELS}
    models = scored_steps(inputs, said, tensor(inputs["x_t"])[:, None], reached, eta)
    return PreferenceBatch(models), said["policy"]


@adapter("p127", "spo")
def spo(params, inputs):
    reached = torch.stack([tensor(inputs[f"x_prev_{role}"]) for role in ROLES], 1)
    batch, said = from_one_state(inputs, reached, params["eta"])
    objective = method("spo_step_aware", beta=params["beta"], clip=params["ratio_clip"])
    ratios = log_ratio()(batch)[..., 0]
    return {
        "log_ratio_chosen": ratios[:, 0],
        "log_ratio_rejected": ratios[:, 1],
        "logits": margins(objective, batch),
        "loss": values(objective, batch),
        "grad_policy_eps": slope(objective, batch, said)[0][:, 0],
    }


@adapter("p024", "tailorpo")
def tailorpo(params, inputs):
    rewards = zip(inputs["step_reward_a"], inputs["step_reward_b"], strict=True)
    order = torch.tensor([best_and_worst(both) for both in rewards])
    candidates = torch.stack([tensor(inputs[f"candidate_{side}"]) for side in "ab"], 1)
    batch, said = from_one_state(inputs, candidates[torch.arange(len(order))[:, None], order], params["eta"])
    objective = method("tailorpo", beta=params["beta"])
    sigma = step_deviation(*levels(inputs), params["eta"])
    logps = {name: scored.logps[..., 0] for name, scored in batch.models.items()}
    return {
        "winner_is_a": [pair[0] == 0 for pair in order.tolist()],
        "sigma": sigma,
        "policy_mean": moved(tensor(inputs["x_t"]), said[:, 0], *levels(inputs), sigma),
        "logp_policy_winner": logps["policy"][:, 0],
        "logp_policy_loser": logps["policy"][:, 1],
        "logp_ref_winner": logps["reference"][:, 0],
        "logp_ref_loser": logps["reference"][:, 1],
        "logits": margins(objective, batch),
        "loss": values(objective, batch),
        "grad_policy_eps": slope(objective, batch, said)[0][:, 0],
    }


@adapter("p024", "tailorpo_guidance")
def tailorpo_guidance(params, inputs):
    state, level, target = (tensor(inputs[name]) for name in ("x", "alpha_bar", "target"))

    def data(rows: torch.Tensor) -> torch.Tensor:
        return predicted_data(rows, params["eps_slope"] * rows + params["eps_bias"], level)

    def reward(rows: torch.Tensor) -> torch.Tensor:
        return -squared_error(data(rows), target.expand_as(rows))

    pushed = guided(state, reward, params["r_high"], params["guidance_eta"])
    return {
        "x0_hat": data(state),
        "step_reward": reward(state),
        "gradient": state - guided(state, reward, params["r_high"], 1.0),
        "guided_x": pushed,
    }


def inverted(inputs, refine: bool):
    data, grid = tensor(inputs["x0"]), tensor(inputs["alpha_bar_grid"])
    slopes, biases = tensor(inputs["eps_slope"]), tensor(inputs["eps_bias"])
    bars = grid[:, None].expand(-1, len(data))
    state = invert(data, bars, lambda rows, step: slopes[step] * rows + biases[step], refine=refine)
    return {"x_t": state, "implied_noise": implied_noise(state, data, bars[-1])}


@adapter("p080", "ddim_inversion")
def ddim_inversion(params, inputs):
    return inverted(inputs, refine=False)


@adapter("p031", "renoise_inversion")
def renoise_inversion(params, inputs):
    return inverted(inputs, refine=True)


@adapter("p080", "inpo")
def inpo(params, inputs):
    errors = {
        (model, role): squared_error(own, tensor(inputs[f"implied_noise_{role}"]))
        for (model, role), own in predictions(inputs).items()
    }
    batch, objective = batch_of_errors(errors), method("inpo_diffusion", beta=params["beta"])
    return {"logits": margins(objective, batch), "loss": values(objective, batch)}


@adapter("p084", "ref_update_timestep_aware")
def timestep_aware(params, inputs):
    predicted, noise = predictions(inputs), tensor(inputs["noise"])
    batch = batch_of_errors({which: squared_error(own, noise) for which, own in predicted.items()})
    level = 1 - tensor(inputs["alpha_bar_t"])
    distance = squared_error(predicted["policy", "chosen"], tensor(inputs["initial_reference_pred_chosen"]))
    signals = {
        NOISE_LEVEL: level[:, None, None].expand(-1, 2, 1),
        prediction_distance("initial"): torch.stack([distance, torch.zeros_like(distance)], 1)[..., None],
    }
    policy = TokenLogps(batch.models["policy"].logps, batch.mask, signals)
    batch = PreferenceBatch({**batch.models, "policy": policy})
    objective = method(
        "timestep_aware_dpo",
        beta=params["beta"],
        power=params["timestep_power"],
        lam=params["reg_weight"],
    )
    preference, scaled = objective.parts
    ((_, penalty),) = scaled.weighted_parts()
    return {
        "dpo_loss": values(method("diffusion_dpo", beta=params["beta"]), batch),
        "timestep_weight": preference.weight(preference.comparisons(batch))[:, 0],
        "reg": values(penalty, batch),
        "loss": sum(term.values for term in objective.double()(batch)),
    }


@adapter("p084", "reference_update")
def reference_update(params, inputs):
    def model(name: str) -> torch.nn.Module:
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(tensor(inputs[f"{name}_params"]))
        return module

    share = 1.0 if params["kind"] == "hard" else 1 - params["keep"]
    reference = Moving(LANGUAGE, model("reference"), alpha=share, every=1)
    reference.follow(model("policy"), step=1)
    return {"reference_params": reference.model.weight}


@adapter("p088", "curriculum_pairs")
def curriculum_pairs(params, inputs):
    scores, least, groups = inputs["scores"], params["keep_threshold"], params["groups"]
    pairs = curricula.clear_pairs(scores, least)
    gaps = [scores[prompt][better] - scores[prompt][worse] for prompt, better, worse in pairs]
    stages = curricula.growing_stages(scores, least=least, groups=groups)
    return {
        "num_pairs": len(pairs),
        "thresholds_desc": curricula.gap_thresholds(gaps, groups),
        "stage_pairs": [[list(pair) for pair in stage] for stage in stages],
    }


@adapter("p088", "rank_difference_batches")
def rank_difference_batches(params, inputs):
    order = media_pairs.ranked(inputs["scores"])
    batches = curricula.rank_batches(inputs["scores"], params["num_batches"])
    return {
        "rank": [order.index(place) for place in range(len(order))],
        "batches": [[list(pair) for pair in batch] for batch in batches],
    }


@adapter("p104", "edit_pair_selection")
def edit_pair_selection(params, inputs):
    rewards = zip(inputs["reward_original"], inputs["reward_edited"], strict=True)
    found = [media_pairs.edited_pair(*both, params["margin"]) for both in rewards]
    return {"keep_edited_wins": [winner == "edited" for winner in found], "relabel": found}


@adapter("p122", "videodpo_omniscore_weight")
def videodpo(params, inputs):
    weights = tensor(params["dimension_weights"])
    omni = weighted_sum(tensor(inputs["dimension_scores"]), weights / weights.sum())
    scores = [[round(score, 6) for score in prompt] for prompt in omni.tolist()]
    pairs = [best_and_worst(prompt) for prompt in scores]
    flat = media_pairs.bin_shares([score for prompt in scores for score in prompt], params["bin_width"])
    count = len(scores[0])
    shares = [
        (flat[prompt * count + best], flat[prompt * count + worst])
        for prompt, (best, worst) in enumerate(pairs)
    ]
    weight = media_pairs.rarity_weights(shares, max(flat), params["alpha"])
    return {
        "omni_score": scores,
        "winner_index": [best for best, _ in pairs],
        "loser_index": [worst for _, worst in pairs],
        "pair_probability": [media_pairs.pair_share(*pair) for pair in shares],
        "max_bin_probability": max(flat),
        "pair_weight": weight,
        "loss": tensor(weight) * tensor(inputs["base_dpo_loss"]),
    }


@adapter("p127", "spo_select")
def spo_select(params, inputs):
    states = zip(*inputs["scores"], strict=True)
    found = [media_pairs.clear_pair(scores, params["threshold"]) for scores in states]
    return {
        "winner_index": [best for (best, _), _, _ in found],
        "loser_index": [worst for (_, worst), _, _ in found],
        "prob_gap": [gap for _, gap, _ in found],
        "valid": [clear for _, _, clear in found],
    }


@adapter("p136", "prompt_pair_filter")
def prompt_pair_filter(params, inputs):
    candidates, weights = inputs["candidate_scores"], params["weights"]
    overall = media_pairs.overall_scores(candidates, weights)
    pairs = media_pairs.prompt_pairs(
        candidates, weights, params["chosen_minimum"], margin=params["margin"], top=params["top"]
    )
    return {
        "overall": overall,
        "order": media_pairs.ranked(overall),
        "pairs": [list(pair) for pair in pairs],
    }


@adapter("p157", "user_interpolation")
def user_interpolation(params, inputs):
    users = [{"tokens": tensor(user)} for user in inputs["users"]]
    return {"mixed_user": combination(users, params["weights"])["tokens"]}


@adapter("p157", "ppd_decoupled_attention")
def decoupled(params, inputs):
    query, key, value, user = (
        tensor(inputs[name]) for name in ("query", "text_key", "text_value", "user_tokens")
    )
    projected = [user @ tensor(inputs[f"user_{name}_proj"]) for name in ("key", "value")]
    alone = decoupled_attention(query, key, value, *projected, scale=0.0)
    return {
        "text_attention": alone,
        "user_attention": decoupled_attention(query, key, 0 * value, *projected),
        "output": decoupled_attention(query, key, value, *projected, scale=params["user_scale"]),
    }


@adapter("p159", "draft")
def draft(params, inputs):
    levels, start, target = (tensor(inputs[name]) for name in ("alpha_bar_levels", "x_T", "target"))
    theta = tensor(params["theta"]).requires_grad_()

    def noise(state, place):
        return theta * state

    def reward(data):
        return -squared_error(data, target.expand_as(data))

    def slope_of(rewards):
        return torch.autograd.grad(-rewards.mean(), theta)[0]

    once = sampled(start, levels, noise, last=1)
    again = [reward(renoised(once, levels, noise, drawn)) for drawn in tensor(inputs["lv_noise"])]
    return {
        "grad_theta_K1": slope_of(reward(sampled(start, levels, noise, last=1))),
        "reward": reward(once),
        "grad_theta_K2": slope_of(reward(sampled(start, levels, noise, last=2))),
        "grad_theta_Kfull": slope_of(reward(sampled(start, levels, noise))),
        "grad_theta_LV": slope_of(reward(once) + sum(again)),
        "sample": once,
    }
