"""Building, weighting and selecting preference data."""

from __future__ import annotations

import torch

from prefero.feedback.active import (
    borda_bounds,
    d_optimal,
    log_linear_loss,
    log_linear_preference,
    predictive_entropy,
    preference_uncertainty,
    reward_bounds,
)
from prefero.feedback.implicit import debiased_pairs, ensembled, length_penalty, mean_length_gap
from prefero.feedback.pairing import (
    POINT_PAIRS,
    best_and_worst,
    best_and_worst_of_some,
    confident_pairs,
    easy_to_hard,
    nearest_to,
    score_points,
)
from prefero.feedback.recipes import Candidate, separation, source_pairs
from prefero.feedback.rejection import acceptance, rejection_sample, reward_from_ranker
from prefero.feedback.schedules import stepwise
from prefero.feedback.selection import (
    clipped_margin,
    fused,
    highest,
    region,
    replay_counts,
    representative,
    to_annotate,
    to_annotate_exactly,
    to_regenerate,
)
from prefero.feedback.uncertainty import disagreement, flip_rate, majority_agrees, sampling_probability
from prefero.feedback.yes_no import yes_share
from prefero.objectives import method
from prefero.objectives.compare import Compare
from prefero.objectives.quantities import Logp
from prefero.objectives.slots import score_weight
from tests.golden.adapters import adapter
from tests.golden.batches import (
    batch_of,
    loss_and_gradients,
    pairs,
    sides,
    values,
)


def tensor(numbers) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def summed(ragged_logps) -> torch.Tensor:
    """Sequence log-probabilities of one response an example."""
    return tensor([sum(response) for response in ragged_logps])


def margins(objective, batch) -> torch.Tensor:
    assert isinstance(objective, Compare)
    return objective.double().comparisons(batch).margins[:, 0].detach()


@adapter("p113", "optune_wdpo")
def optune_wdpo(params, inputs):
    score = tensor([inputs["chosen_rewards"], inputs["rejected_rewards"]]).T
    batch = pairs(inputs, columns={"score": score})
    arguments = {"beta": params["beta"], "beta2": params["beta2"]}
    objective = method("optune_wdpo", **arguments)
    assert isinstance(objective, Compare)
    comparisons = objective.double().comparisons(batch)
    return {
        **loss_and_gradients(objective, batch),
        "loss_linear": values(method("optune_wdpo", shape="linear", **arguments), batch),
        **{
            f"weight_{shape}": score_weight(params["beta2"], shape)(comparisons)[:, 0]
            for shape in ("sigmoid", "linear")
        },
    }


@adapter("p113", "optune_prompt_selection")
def optune_selection(params, inputs):
    regenerate, reuse = to_regenerate(inputs["current_rewards"], params["rho"])
    return {"regenerate": regenerate, "reuse": reuse}


@adapter("p144", "upo")
def upo(params, inputs):
    passes = tensor(inputs["mc_probability_chosen_better"])
    bald = disagreement(passes)
    rewards = tensor(inputs["chosen_rewards"])
    score = torch.stack([rewards, rewards], 1)

    def terms(mode, labels):
        alpha = flip_rate(bald, mode, params["mu"])
        batch = pairs(inputs, columns={"score": score, "flip_rate": alpha})
        objective = method("upo", beta=params["beta"], lam=params["nll_lambda"], labels=labels)
        return alpha, [term.values for term in objective.double()(batch)]

    literal, (literal_loss, nll) = terms("literal", "flip_rate")
    unnormalised, (unnormalised_loss, _) = terms("unnormalised", "flip_rate")
    return {
        "bald": bald,
        "sampling_probability": sampling_probability(bald),
        "majority_agrees": majority_agrees(passes),
        "alpha_literal": literal,
        "alpha_unnormalised": unnormalised,
        "loss_alpha_literal": literal_loss,
        "loss_alpha_unnormalised": unnormalised_loss,
        "loss_alpha_zero": terms("none", "trusted")[1][0],
        "nll_term": nll,
    }


@adapter("p130", "rso_losses")
def rso_losses(params, inputs):
    batch = pairs(inputs)
    return {
        loss: values(method("rso", gamma=params["gamma"], loss=loss), batch)
        for loss in ("sigmoid_norm", "hinge_norm", "hinge")
    }


@adapter("p130", "rso_rejection_sampling")
def rso_sampling(params, inputs):
    draws = iter(inputs["uniforms"])
    accepted = rejection_sample(
        inputs["rewards"], beta=params["beta"], count=params["num_samples"], uniform=lambda: next(draws)
    )
    return {
        "accepted": accepted.indices,
        "uniforms_used": accepted.draws,
        "passes": accepted.passes,
        "first_pass_acceptance_probability": acceptance(tensor(inputs["rewards"]), params["beta"]),
    }


@adapter("p130", "rso_reward_from_ranker")
def rso_reward(params, inputs):
    return {"reward": reward_from_ranker(tensor(inputs["prob_beats_baseline"]))}


@adapter("p095", "mapl_intra")
def mapl_intra(params, inputs):
    prompts = ("y_given_xw", "y_given_xl")
    own, other = (
        batch_of(
            {model: [[response] for response in inputs[f"{model}_{prompt}"]] for model in MODELS},
            roles=("chosen",),
        )
        for prompt in prompts
    )
    own.views["contradicted"] = other  # type: ignore[index]
    objective = method("mapl_intra", beta=params["beta"]).double()
    slopes = torch.autograd.grad(
        objective.loss(own), [batch.models["policy"].logps for batch in (own, other)]
    )
    return {
        "loss": values(objective, own),
        **{
            f"grad_policy_{prompt}": [row[0][keep[0]].tolist() for row, keep in zip(slope, mask, strict=True)]
            for prompt, slope, mask in zip(prompts, slopes, (own.mask, other.mask), strict=True)
        },
    }


MODELS = ("policy", "reference")


@adapter("p095", "mapl_inter")
def mapl_inter(params, inputs):
    strong, weak = pairs(inputs["x1"]), pairs(inputs["x2"])
    strong.views["weaker"] = weak  # type: ignore[index]
    dpo = method("dpo", beta=params["beta"])
    return {
        "margin_x1": margins(dpo, strong),
        "margin_x2": margins(dpo, weak),
        "loss": values(method("mapl_inter", beta=params["beta"]), strong),
    }


@adapter("p093", "sdpo")
def sdpo(params, inputs):
    objective, batch = method("dpo", beta=params["beta"]), pairs(inputs)
    start = pairs({**inputs, **{f"policy_{role}": inputs[f"reference_{role}"] for role in batch.roles}})
    return {
        "loss": values(objective, batch),
        "schedule": [
            {
                "step": number,
                "init": stage.start_from,
                "reference": stage.reference,
                "data": stage.data,
                "output": stage.output,
            }
            for number, stage in enumerate(stepwise(params["n_steps"]), start=1)
        ],
        "first_update_loss": float(objective.loss(start).detach()),
    }


@adapter("p040", "rs_dpo")
def rs_dpo(params, inputs):
    return {"pairs": [[list(pair) for pair in confident_pairs(row, **params)] for row in inputs["rewards"]]}


@adapter("p041", "reward_point_pairs")
def reward_points(params, inputs):
    points = score_points(inputs["rewards"], ddof=params["ddof"])
    return {
        "mu": points["mu"],
        "sigma": points["mu_plus_sigma"] - points["mu"],
        "points": points,
        "index": {name: nearest_to(inputs["rewards"], point) for name, point in points.items()},
        "n_pair_types": len(POINT_PAIRS),
    }


@adapter("p041", "scalable_pairing")
def scalable(params, inputs):
    chosen, rejected = best_and_worst_of_some(inputs["rewards"], inputs["rejected_pool"]) or (None, None)
    return {"chosen": chosen, "rejected": rejected}


@adapter("p042", "curry_pairs")
def curry(params, inputs):
    logps = inputs.get("reference_logps", [None] * len(inputs["ratings"]))
    return {
        "pairs": [
            [list(pair) for pair in easy_to_hard(ratings, own)]
            for ratings, own in zip(inputs["ratings"], logps, strict=True)
        ]
    }


@adapter("p028", "dm_mul")
def dm_mul(params, inputs):
    external, implicit = (
        clipped_margin(tensor(inputs[f"{source}_margin"]), params["M1"], params[f"M2_{source}"])
        for source in ("external", "implicit")
    )
    both = fused(external, implicit)
    return {
        "p_external": external,
        "p_implicit": implicit,
        "p_fused": both,
        "selected": highest(both, params["k"]),
    }


@adapter("p028", "dm_add")
def dm_add(params, inputs):
    score = tensor(inputs["external_margin"]) + tensor(inputs["implicit_margin"])
    return {"score": score, "selected": highest(score, params["k"])}


@adapter("p060", "reference_gap")
def reference_gap(params, inputs):
    batch = batch_of({"policy": sides(inputs, "reference")})
    total, mean = (margins(Compare(logp), batch) for logp in (Logp().sum(), Logp().mean()))
    return {
        "gap_sum": total,
        "gap_mean": mean,
        "top_abs_sum": region(total, params["k"], "abs_top"),
        "top_abs_mean": region(mean, params["k"], "abs_top"),
        "top_signed_mean": region(mean, params["k"], "signed_top"),
    }


@adapter("p065", "aepo")
def aepo(params, inputs):
    similarity, penalty = tensor(inputs["similarity"]), params["diversity_penalty"]
    greedy = to_annotate(similarity, params["k"], penalty)
    exact = to_annotate_exactly(similarity, params["k"], penalty)
    best, worst = best_and_worst([inputs["scores_if_queried"][place] for place in greedy])
    return {
        "greedy_order": greedy,
        "greedy_objective": representative(similarity, greedy, penalty),
        "exhaustive_set": exact,
        "exhaustive_objective": representative(similarity, exact, penalty),
        "chosen": greedy[best],
        "rejected": greedy[worst],
    }


@adapter("p016", "adpo_plus")
def adpo_plus(params, inputs):
    differences, bias = tensor(inputs["feature_differences"]), tensor(inputs["reference_bias"])
    estimate, labels = tensor(inputs["theta_hat"]), tensor(inputs["feedback"])
    beta = params["beta"]
    mu = log_linear_preference(differences, bias, estimate, beta)
    design = d_optimal(differences, mu, params["n"], beta=beta, gamma=params["gamma"])

    def loss(parameters):
        return log_linear_loss(differences, bias, parameters, labels, beta)

    return {
        "mu": mu,
        "order": design.order,
        "logdet_gains": design.gains,
        "final_logdet": design.log_determinant,
        "nll": loss(estimate),
        "nll_grad": torch.func.grad(loss)(estimate),
        "nll_hessian": torch.func.hessian(loss)(estimate),
    }


@adapter("p034", "active_preference_scores")
def active_scores(params, inputs):
    entropy = predictive_entropy(torch.stack([summed(samples) for samples in inputs["prompt_samples"]]))
    first, second = (
        params["beta"] * (summed(inputs[f"policy_{side}"]) - summed(inputs[f"reference_{side}"]))
        for side in "ab"
    )
    uncertainty = preference_uncertainty(first, second)
    certain = highest(-uncertainty, len(uncertainty))
    return {
        "entropy": entropy,
        "top_entropy_prompt": highest(entropy, 1)[0],
        "reward_a": first,
        "reward_b": second,
        "uncertainty": uncertainty,
        "certainty_order": certain,
        "selected_certainty": certain[: params["m"]],
        "selected_uncertainty": certain[len(certain) - params["m"] :],
    }


@adapter("p092", "ae_dpo")
def ae_dpo(params, inputs):
    passes = torch.stack([tensor(inputs["mc_logps_1"]), tensor(inputs["mc_logps_2"])], -1)
    reference = torch.stack([tensor(inputs["reference_logps_1"]), tensor(inputs["reference_logps_2"])], -1)
    bounds = reward_bounds(passes, reference, params["active_beta"])
    spread = passes.var(0).mean(-1)
    return {
        "upper": bounds.upper.amax(-1),
        "lower": bounds.lower.amax(-1),
        "acquisition": bounds.acquisition,
        "selected": sorted(highest(bounds.acquisition, params["k"])),
        "us_score": spread,
        "us_selected": sorted(highest(spread, params["k"])),
    }


@adapter("p092", "ae_borda_dpo")
def ae_borda(params, inputs):
    policy, reference = (
        reward_bounds(
            tensor(inputs[f"mc_logps_{whose}_actions"]),
            tensor(inputs[f"reference_logps_{whose}_actions"]),
            params["active_beta"],
        )
        for whose in ("policy", "reference")
    )
    bounds = borda_bounds(policy, reference, params["beta"])
    return {
        "ucb_borda": bounds.upper,
        "lcb_borda": bounds.lower,
        "acquisition": float(bounds.acquisition),
        "action": int(bounds.upper.argmax()),
    }


@adapter("p094", "dice_length_debias")
def dice(params, inputs):
    scores, lengths = inputs["implicit_scores"], inputs["lengths"]
    count = round((params["alpha_stop"] - params["alpha_start"]) / params["alpha_step"])
    alphas = [params["alpha_start"] + place * params["alpha_step"] for place in range(count + 1)]
    found = length_penalty(scores, lengths, alphas)
    plain, debiased = (debiased_pairs(scores, lengths, alpha) for alpha in (0.0, found.alpha))
    return {
        "mean_length_gap_alpha0": mean_length_gap(plain, lengths),
        "chosen_alpha0": [chosen for chosen, _ in plain],
        "rejected_alpha0": [rejected for _, rejected in plain],
        "alpha": found.alpha,
        "alpha_full_grid": length_penalty(scores, lengths, alphas, stop_early=False).alpha,
        "chosen": [chosen for chosen, _ in debiased],
        "rejected": [rejected for _, rejected in debiased],
        "mean_length_gap": found.gap,
        "scan": [list(one_) for one_ in found.tried],
    }


@adapter("p094", "dice_experience_replay")
def dice_replay(params, inputs):
    fresh, offline = replay_counts(inputs["n_offline"], inputs["n_generated"], params["gamma"])
    return {"n_from_generated": fresh, "n_from_offline": offline}


@adapter("p150", "sera_irm_selection")
def sera_selection(params, inputs):
    margin = margins(method("dpo", beta=1.0), pairs(inputs))
    return {"irm": margin, "selected": highest(margin, params["k"])}


@adapter("p150", "sera_bootstrap_pair")
def sera_bootstrap(params, inputs):
    reference = summed(inputs["candidates_reference"])
    current, previous = (
        summed(inputs[f"candidates_{whose}"]) - reference for whose in ("policy", "previous_policy")
    )
    reward = ensembled(current, previous, params["ensemble_gamma"])
    chosen, rejected = best_and_worst(reward.tolist())
    return {
        "reward_current": current,
        "reward_previous": previous,
        "reward_ensemble": reward,
        "chosen": chosen,
        "rejected": rejected,
        "irm_of_pair": float(reward[chosen] - reward[rejected]),
    }


@adapter("p126", "ipo_yes_no")
def yes_no(params, inputs):
    score = yes_share(tensor(inputs["last_position_logits"]), params["yes_ids"], params["no_ids"])
    chosen, rejected = best_and_worst(score.tolist())
    return {"score": score, "chosen": chosen, "rejected": rejected}


@adapter("p063", "pair_recipes")
def pair_recipes(params, inputs):
    pool = [Candidate(one_["source"], one_["score"]) for one_ in inputs["pool"]]
    found = source_pairs(pool)
    return {"recipes": {name: None if pair is None else list(pair) for name, pair in found.items()}}


@adapter("p063", "linear_separability")
def linear_separability(params, inputs):
    found = separation(tensor(inputs["chosen_features"]), tensor(inputs["rejected_features"]), **params)
    return {
        "weights": found.weights,
        "train_accuracy": found.accuracy,
        "mean_diff_norm": found.distance,
    }
