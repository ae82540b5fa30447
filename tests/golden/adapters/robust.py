"""Robust and reward-aware methods, and those without a reference."""

from __future__ import annotations

from dataclasses import replace

import torch

from prefero.models.signals import DIVERGENCES, divergence as measured
from prefero.objectives import method, primary
from prefero.objectives.compare import negative_log_likelihood
from prefero.objectives.presets.kernels import Mahalanobis, Mixture, Polynomial, RadialBasis, Spectral
from prefero.objectives.signals import PROMPT_STATE, STATE, divergence as divergence_from
from prefero.theory.rewards import (
    doubly_robust_mean,
    doubly_robust_values,
    importance_values,
    total_preference,
)
from tests.golden.adapters import adapter
from tests.golden.batches import (
    batch_of,
    gradient,
    gradients,
    loss_and_gradients,
    one,
    padded,
    pairs,
    scores,
    sides,
    values,
)


def summed_values(objective, batch) -> torch.Tensor:
    """Every row's loss, over all terms of the objective."""
    return sum(term.values for term in objective.double()(batch))


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


@adapter("p125", "rpo_sft")
def rpo_sft(params, inputs):
    batch, beta = pairs(inputs), params["beta"]
    summed = method("rpo_sft", beta=beta, eta=params["eta"])
    mean = method("rpo_sft", beta=beta, eta=0.0, alpha=params["alpha"])
    return {
        "loss": summed_values(summed, batch),
        "loss_mean_nll_variant": summed_values(mean, batch),
        **gradients(summed, batch),
    }


@adapter("p117", "rdpo")
def rationale_dpo(params, inputs):
    roles = ("chosen", "rejected", "rationale")
    models = {
        "policy": sides(inputs, "policy", roles),
        # nothing is known of the rationale under the reference, and nothing is asked
        "reference": [[*both, []] for both in sides(inputs, "reference")],
    }
    batch = batch_of(models, roles=roles)
    pair = {"beta": params["beta"], "gamma": params["gamma"]}
    odds = method("rationale_orpo", lam=params["orpo_lambda"], gamma=params["gamma"]).double()
    # the likelihood of the chosen response is a mean over the tokens of all of them
    likelihood = summed_values(negative_log_likelihood("chosen", "batch"), batch)
    return {
        "loss": summed_values(method("rationale_dpo", **pair), batch),
        "loss_code_variant": summed_values(method("rationale_dpo", **pair, likelihood="sigmoid"), batch),
        "rorpo_simple_without_nll": summed_values(odds, batch) - likelihood,
    }


@adapter("p069", "f_sft")
def f_sft(params, inputs):
    batch = batch_of(
        {name: [[row] for row in inputs[f"{name}_chosen"]] for name in ("policy", "reference")},
        roles=("chosen",),
    )
    names = {
        "total_variation": "tv_sft",
        "pearson": "pearson",
        "squared_hellinger": "squared_hellinger",
        "jensen_shannon": "jensen_shannon",
    }
    # the tangent begins where the divergence's own range ends
    floors = {"squared_hellinger": -0.999, "jensen_shannon": -0.69}
    found = {}
    for divergence, name in names.items():
        objective = method("f_sft", divergence=divergence, floor=floors.get(divergence, -0.5), **params)
        found[f"loss_{name}"] = values(objective, batch)
        found[f"grad_{name}"] = [row for (row,) in gradient(objective, batch)]
    return found


def reward_aware(divergence, params, inputs):
    objective = method("rpo_reward_aware", divergence=divergence, **params)
    return loss_and_gradients(objective, pairs(inputs, columns=scores(inputs)))


@adapter("p142", "rpo_bwd_kl")
def rpo_bwd_kl(params, inputs):
    return reward_aware("backward_kl", params, inputs)


@adapter("p142", "rpo_fwd_kl")
def rpo_fwd_kl(params, inputs):
    return reward_aware("forward_kl", params, inputs)


@adapter("p142", "rpo_sq")
def rpo_sq(params, inputs):
    return reward_aware("squared", params, inputs)


@adapter("p142", "rpo_multi_response")
def rpo_multi_response(params, inputs):
    ratios = [[[ratio] for ratio in row] for row in inputs["log_ratio"]]
    score, _ = padded([[[one] for one in row] for row in inputs["score"]])
    nothing = [[[0.0] for _ in row] for row in ratios]
    batch = batch_of({"policy": ratios, "reference": nothing}, {"score": score[..., 0]}, roles=())
    names = {
        "sq_centered": "squared",
        "sq_all_pairs": "squared_pairs",
        "bwd_softmax": "backward_kl",
        "fwd_softmax": "forward_kl",
    }

    def per_list(divergence):
        # a list alone: its loss is then averaged as the method averages
        objective = method("rpo_reward_aware_lists", divergence=divergence, **params).double()
        return [objective.loss(one(batch, example)).detach().item() for example in range(len(ratios))]

    return {name: per_list(divergence) for name, divergence in names.items()}


@adapter("p118", "sr_dpo")
def sr_dpo(params, inputs):
    plain = pairs(inputs)
    prompted = pairs(
        {
            name.removeprefix("prompted_"): rows
            for name, rows in inputs.items()
            if name.startswith("prompted_")
        }
    )
    batch = replace(plain, views={"prompted": prompted})
    objective = method("sr_dpo", beta=params["beta"], lam=params["lambda"])
    squared = method("sr_ipo", tau=params["beta"], lam=params["lambda"])
    return {
        **loss_and_gradients(objective, batch),
        "offset": objective.target(objective.comparisons(batch))[:, 0],
        "sr_ipo_loss": values(squared, batch),
    }


@adapter("p054", "drpo_surrogate")
def drpo_surrogate(params, inputs):
    roles = ("chosen", "rejected", "sample")
    models = {
        name: [(a1, a1, star) for a1, star in sides(inputs, name, ("a1", "star"))]
        for name in ("policy", "reference")
    }
    rank = torch.tensor(inputs["rank"], dtype=torch.float64)
    predicted = torch.tensor([inputs["pref_score"]] * 2 + [inputs["pref_score_star"]], dtype=torch.float64).T
    # the response that is read first is the chosen one where it won
    batch = batch_of(models, {"pair_noise": 0.75 - rank / 2, "win_rate": predicted}, roles=roles)
    objective = method("drpo", beta=params["beta"], clip=params["clip"], halves="first").double()
    won, lost, direct, _ = objective(batch)
    *_, divergence = method("drpo", beta=1.0, clip=params["clip"], halves="first").double()(batch)
    found = gradients(objective, batch)
    sides_read = zip(rank.tolist(), found["grad_policy_chosen"], found["grad_policy_rejected"], strict=True)
    return {
        "is_term": won.values + lost.values,
        "dm_term": direct.values,
        "kl": divergence.values,
        "batch_loss": objective.loss(batch),
        "grad_policy_a1": [chosen if first_won else rejected for first_won, chosen, rejected in sides_read],
        "grad_policy_star": found["grad_policy_sample"],
    }


@adapter("p054", "drpo_estimator")
def drpo_estimator(params, inputs):
    known = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in inputs.items() if name != "data"}
    policy, pairs = known["policy"], torch.tensor(inputs["data"])
    reference, preference = known["reference_true"], known["preference_true"]
    no_reference, no_preference = known["reference_wrong"], known["preference_wrong"]

    def mean(reference, preference):
        return doubly_robust_mean(
            policy,
            reference,
            preference,
            true_reference=known["reference_true"],
            true_preference=known["preference_true"],
        )

    return {
        "true_value": total_preference(policy, reference, preference),
        "dr_sample_wrong_ref_wrong_g": doubly_robust_values(policy, no_reference, no_preference, pairs),
        "is_sample_true_ref": importance_values(policy, reference, pairs),
        "population_dr_wrong_ref_true_g": mean(no_reference, preference),
        "population_dr_true_ref_wrong_g": mean(reference, no_preference),
        "population_dr_both_wrong": mean(no_reference, no_preference),
        "population_dm_wrong_g": total_preference(policy, reference, no_preference),
    }


@adapter("p097", "dpo_kernels.kernel_log_ratio")
def kernel_log_ratio(params, inputs):
    prompt, chosen, rejected, precision = (
        torch.tensor(inputs[name], dtype=torch.float64)
        for name in ("emb_prompt", "emb_chosen", "emb_rejected", "sigma_inv")
    )
    kernels = {
        "rbf": RadialBasis(params["sigma"]),
        "poly": Polynomial(params["degree"], params["c"]),
        "spectral": Spectral(params["lambdas"], params["alphas"]),
        "mahalanobis": Mahalanobis(precision),
    }
    mixture = Mixture(*kernels.values()).double()
    for name in ("local_logits", "global_logits", "top_logits"):
        getattr(mixture, name).data = torch.tensor(params[name], dtype=torch.float64)
    kernels["hmk"] = mixture
    ratios = {
        f"log_ratio_{name}": kernel(prompt, chosen) - kernel(prompt, rejected)
        for name, kernel in kernels.items()
    }
    return {**ratios, "hmk_pos": mixture(prompt, chosen).exp()}


@adapter("p097", "dpo_kernels.divergence")
def divergences(params, inputs):
    p, q = (
        torch.tensor(inputs[f"{model}_logits"], dtype=torch.float64).log_softmax(-1)
        for model in ("policy", "reference")
    )
    names = {"jensen_shannon": "js", "wasserstein": "wasserstein1_index_cost", "chi_squared": "f_chi2"}
    options = {"renyi": {"order": params["renyi_alpha"]}}
    return {
        names.get(measure, measure): measured(p, q, {"measure": measure, **options.get(measure, {})})
        for measure in DIVERGENCES
    }


@adapter("p097", "dpo_kernels.hybrid_loss")
def hybrid_loss(params, inputs):
    batch, sigma = pairs(inputs), 0.1
    # unit vectors whose radial basis kernels have the ratios that the vector gives
    cosine = sigma**2 * torch.tensor(inputs["kernel_log_ratio"], dtype=torch.float64)
    prompt = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(len(cosine), 2, 2)
    chosen = torch.stack([cosine, (1 - cosine**2).sqrt()], -1)
    response = torch.stack([chosen, prompt[:, 0].flip(-1)], 1)
    apart = torch.tensor(inputs["divergence"], dtype=torch.float64)[:, None, None].expand_as(batch.mask)
    policy, reference = batch.models["policy"], batch.models["reference"]
    models = {
        "policy": replace(policy, signals={divergence_from("kl"): apart}),
        "reference": replace(reference, signals={PROMPT_STATE: prompt, STATE: response}),
    }
    batch = replace(batch, models=models)
    shared = {"alpha": params["alpha"], "gamma": params["gamma"], "kernel": "rbf", "sigma": sigma}
    linear = method("dpo_kernels", **shared, link="linear", k=params["kappa"])
    sigmoid = method("dpo_kernels", **shared, beta=params["beta"])
    return {"loss": summed_values(linear, batch), "loss_sigmoid_link": summed_values(sigmoid, batch)}
