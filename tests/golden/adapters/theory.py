"""Exact solutions on finite sets of responses, and what is measured of likelihoods."""

from __future__ import annotations

import torch
from torch.nn.utils.rnn import pad_sequence

from prefero.doctor.policy import ches, least_displacing
from prefero.evaluate.ranking import PairLogps, ideal_margin, loss_that_orders, ordered, policy_ranking
from prefero.models.signals import entropy, top_k_entropy, top_k_mass
from prefero.objectives import log_ratio, method
from prefero.objectives.contrasts import Pair
from prefero.theory import distributions as information, games, games as proximal, optima
from prefero.theory.misspecified import LogLinearBandit
from prefero.theory.token_trees import ROOT, TokenTree, response_logps, soft_optimum
from prefero.theory.vector_field import dpo_field
from tests.golden.adapters import adapter
from tests.golden.adapters.optima import tensors
from tests.golden.batches import pairs, values


def sums(inputs):
    """log π/π_ref of the chosen and of the rejected responses."""
    return [side.detach()[:, 0] for side in Pair().sides(log_ratio().sum(), pairs(inputs))]


def padded_states(ragged):
    """``[pair][token][hidden]`` as a tensor, NaN where there is no token, and its mask."""
    rows = [torch.tensor(states, dtype=torch.float64) for states in ragged]
    values = pad_sequence(rows, batch_first=True, padding_value=torch.nan)
    lengths = torch.tensor([len(row) for row in rows])
    return values, torch.arange(values.shape[1]) < lengths[:, None]


@adapter("p048", "dpo_vector_field")
def vector_field(params, inputs):
    chosen, rejected = sums(inputs)
    field = dpo_field(chosen, rejected, params["beta"])
    return {
        "loss": field.loss,
        "x1": chosen.exp(),
        "x2": rejected.exp(),
        "dL_dx1": field.slope_chosen,
        "dL_dx2": field.slope_rejected,
        "speed_ratio": field.speed_ratio,
    }


@adapter("p107", "did")
def differential_information(params, inputs):
    known, beta = tensors(inputs), params["beta"]
    policy, reference = known["target_policy"], known["reference_policy"]
    rejected = information.optimal_rejected(policy, reference, beta)
    return {
        "did": information.differential_information(policy, reference),
        "did_entropy": information.information_entropy(policy, reference),
        "optimal_rejected": rejected,
        "preference_matrix": information.information_preference(policy, reference, beta),
        "did_ref_over_rejected": information.differential_information(reference, rejected),
        "did_power_normalised": information.information_power(policy, reference, beta),
    }


@adapter("p103", "token_mdp_soft_q")
def token_tree(params, inputs):
    root, children = inputs["reference_root"], inputs["reference_child"]
    first = len(root)
    parent = [ROOT] * first + [token for token, below in enumerate(children) for _ in below]
    reference = [*root, *(one for below in children for one in below)]
    reward = [0.0] * first + [one for below in inputs["terminal_reward"] for one in below]
    tree = TokenTree(
        parent,
        torch.tensor(reference, dtype=torch.float64),
        torch.tensor(reward, dtype=torch.float64),
    )
    found = soft_optimum(tree, params["beta"])
    widths = [len(below) for below in children]

    def by_level(values):
        return values[:first], [part.tolist() for part in values[first:].split(widths)]

    (q_root, q_child), (pi_root, pi_child) = by_level(found.q), by_level(found.policy)
    credit = [
        [found.token_reward[path].tolist() for path in tree.responses() if path[0] == token]
        for token in range(first)
    ]
    likeliest = tree.responses()[int(response_logps(tree, found.policy).argmax())]
    before = sum(widths[: likeliest[0]])
    return {
        "q_root": q_root,
        "v_root": found.root_value,
        "q_child": q_child,
        "v_child": found.value[:first],
        "pi_root": pi_root,
        "pi_child": pi_child,
        "token_reward": credit,
        "best_sequence_by_likelihood": [likeliest[0], likeliest[1] - first - before],
    }


@adapter("p033", "pmpo_tabular_reject_only")
def pmpo_reject_only(params, inputs):
    reference = torch.tensor(inputs["reference"], dtype=torch.float64)
    rejected = torch.zeros_like(reference)
    rejected[inputs["rejected_index"]] = 1.0
    policy = optima.pmpo_optimum(
        reference, torch.zeros_like(reference), rejected, 1 - params["reject_weight"], params["beta"]
    )
    return {"optimal_policy": policy, "feasible": policy is not None}


@adapter("p091", "dro_tabular")
def dro(params, inputs):
    known = tensors(inputs)
    problem = known["reference"], known["reward"], params["tau"]
    return {
        "optimal_policy": optima.reward_optimum(*problem),
        "optimal_value": optima.reward_optimum_value(*problem),
    }


@adapter("p086", "sprec_tabular_dpo_optimum")
def sprec(params, inputs):
    known, beta = tensors(inputs), params["beta"]
    reference, data = known["ref"], known["p_chosen"]
    uniform = torch.full_like(reference, 1 / len(reference))
    optimum = optima.independent_pairs_optimum
    return {
        "pi_star": optimum(reference, data, known["p_rejected"], beta),
        "pi_star_uniform_negatives": optimum(reference, data, uniform, beta),
        "pi_star_self_play_negatives": optimum(reference, data, reference, beta),
        "max_prob_uniform_beta_0.1": optimum(reference, data, uniform, 0.1).max(),
        "fixed_point_self_play_when_ref_equals_data": optimum(data, data, data, beta),
    }


@adapter("p022", "apo_exact_trajectory")
def apo_trajectory(params, inputs):
    known = tensors(inputs)
    reference, reward = known["reference_logits"].softmax(-1), known["reward"]
    problem = reference, reward, params["beta"], params["iterations"]
    path, plain = proximal.proximal_path(*problem, params["alpha"]), proximal.proximal_path(*problem)
    return {
        "policies": path.policies,
        "policies_hat": path.before,
        "reward_coefficient_pi": path.coefficients,
        "reward_coefficient_hat": path.coefficients_before,
        "expected_reward_pi": path.policies @ reward,
        "expected_reward_no_momentum": plain.policies @ reward,
    }


@adapter("p120", "egpo_tabular")
def egpo(params, inputs):
    known, beta = tensors(inputs), params["beta"]
    game, logits, anchor = known["preference_matrix"], known["theta"], known["theta_ref"]
    step = games.online_ipo_step_size(params["lr"], len(logits))
    half, following = games.extragradient_step(game, logits, anchor, beta, step)
    reference = anchor.softmax(-1)
    equilibrium = games.regularised_equilibrium(game, reference, beta)

    def gap(policy):
        return games.duality_gap(game, policy, reference, beta)

    return {
        "half_step_policy": half.softmax(-1),
        "next_policy": following.softmax(-1),
        "effective_step": step,
        "duality_gap_before": gap(logits.softmax(-1)),
        "duality_gap_after": gap(following.softmax(-1)),
        "regularised_equilibrium": equilibrium,
        "duality_gap_at_equilibrium": gap(equilibrium),
    }


@adapter("p146", "spo_win_rate_reward")
def spo_reward(params, inputs):
    known = tensors(inputs)
    against_queue = known["preference_vs_queue"].mean(-1)
    return {
        "reward_in_batch": games.win_rate_rewards(known["preference_matrix"]),
        "reward_vs_queue": against_queue,
        "per_step_reward_vs_queue": against_queue / params["horizon"],
    }


@adapter("p146", "spo_soft_policy_iteration")
def spo_iteration(params, inputs):
    known = tensors(inputs)
    steps = params.get("iterations", 3)
    return {
        "trajectory": games.soft_policy_iteration(
            known["preference_matrix"], known["initial_policy"], params["eta"], steps
        )
    }


@adapter("p068", "preference_to_reward")
def preference_to_reward(params, inputs):
    return {
        "reward": games.reward_of_preference(
            tensors(inputs)["mean_preference_over_baseline"], params["reward_bound"]
        )
    }


@adapter("p068", "von_neumann_winner")
def von_neumann_winner(params, inputs):
    game = tensors(inputs)["preference_matrix"]
    winner = games.von_neumann_winner(game)
    uniform = torch.full_like(winner, 1 / len(winner))
    return {
        "winner": winner,
        "value": games.game_value(game),
        "worst_case_win_rate_of_uniform": games.worst_case_win_rate(game, uniform),
        "worst_case_win_rate_of_winner": games.worst_case_win_rate(game, winner),
    }


@adapter("p073", "misspecified_loglinear_bandit")
def misspecified(params, inputs):
    known = tensors(inputs)
    reward, sampling = known["true_reward"], known["offline_distribution"]
    reference = known.get("reference", torch.full_like(reward, 1 / len(reward)))
    features = known["feature"].reshape(len(reward), -1)
    bandit = LogLinearBandit(features, reward, reference, params["beta"])
    thetas = {
        "dpo": bandit.dpo(sampling),
        "rlhf": bandit.rlhf(sampling),
        "online_dpo": bandit.online_dpo(),
        "class_optimum": bandit.class_optimum(sampling),
    }
    scalar = known["feature"].dim() == 1
    return {
        **{f"theta_{name}": theta[0] if scalar else theta for name, theta in thetas.items()},
        **{f"value_{name}": bandit.value(theta) for name, theta in thetas.items()},
        "value_unrestricted_optimum": bandit.best_value(),
        "value_reference": bandit.value(torch.zeros_like(thetas["dpo"])),
    }


@adapter("p022", "apo_policy_extrapolation")
def apo_policy(params, inputs):
    known = tensors(inputs)
    found = proximal.extrapolate(known["logits_hat_next"], known["logits_hat_current"], params["alpha"])
    return {"log_pi_next": found.logps, "log_Z": found.log_z}


@adapter("p022", "apo_parameter_extrapolation")
def apo_parameters(params, inputs):
    known = tensors(inputs)
    return {
        "theta_next": proximal.extrapolate_parameters(
            known["theta_hat_next"], known["theta_hat_current"], params["alpha"]
        )
    }


@adapter("p143", "ranking_accuracy")
def ranking_accuracy(params, inputs):
    beta, batch = params["beta"], pairs(inputs)

    def logps(model):
        scored = batch.models[model]
        totals, lengths = scored.logps.detach().sum(-1), scored.mask.sum(-1)
        return PairLogps(totals[:, 0], totals[:, 1], lengths[:, 0], lengths[:, 1])

    policy, reference = logps("policy"), logps("reference")
    rate = torch.tensor(inputs["preference_rate"], dtype=torch.float64)
    found = policy_ranking(policy, reference, rate, betas=[beta])
    ideal = ideal_margin(reference.margin(), rate, beta)
    return {
        "ranking_correct": ordered(policy.margin()),
        "ranking_accuracy": found.accuracy,
        "ranking_accuracy_length_normalised": found.per_token,
        "reference_ranking_accuracy": found.reference,
        "ideal_log_ratio": ideal,
        "ideal_correct": ordered(ideal),
        "ideal_accuracy": found.ideal[beta],
        "ideal_log_ratio_length_normalised": ideal_margin(reference.margin(per_token=True), rate, beta),
        "loss_threshold_to_rank": loss_that_orders(reference.margin(), beta),
        "dpo_loss": values(method("dpo", beta=beta), batch),
        "dpo_gamma_loss": values(method("dpo_gamma", beta=beta, gamma=params["gamma"]), batch),
    }


@adapter("p167", "ches")
def hidden_similarity(params, inputs):
    (chosen, chosen_mask), (rejected, rejected_mask) = (
        padded_states(inputs[f"hidden_{role}"]) for role in ("chosen", "rejected")
    )
    found = ches(chosen, rejected, chosen_mask, rejected_mask)
    return {
        "ches": found.score,
        "ches_length_normalised": found.normalised,
        "kept_indices": least_displacing(found, params["keep"]),
    }


@adapter("p147", "topk_indicators")
def top_k(params, inputs):
    logps, k = torch.tensor(inputs["logits"], dtype=torch.float64).log_softmax(-1), params["k"]
    mass, part = top_k_mass(logps, k), entropy(logps.topk(k, -1).values)
    return {
        "topk_mass": mass,
        "topk_entropy": part,
        "topk_entropy_renormalised": top_k_entropy(logps, k),
        "mean_topk_mass": mass.mean(),
        "mean_topk_entropy": part.mean(),
    }
