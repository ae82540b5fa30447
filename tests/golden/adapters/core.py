"""Methods with other references, sides that pull unequally, margins and weights of each pair's own."""

from __future__ import annotations

import torch

from prefero.objectives import Compare, from_config, method, primary
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.presets.rewards import CombinedReference
from prefero.objectives.presets.sides import dpo_shift, prior
from prefero.theory.vector_field import probability_slopes
from tests.golden.adapters import adapter
from tests.golden.batches import batch_of, gradients, loss_and_gradients, padded, pairs, scores, sides, values


def drawing(indices, lengths):
    """Noise of one role with which the drawn tokens come first."""
    return [
        [0.1 if token in drawn else 0.9 for token in range(n)]
        for drawn, n in zip(indices, lengths, strict=True)
    ]


@adapter("p015", "sgdpo")
def sgdpo(params, inputs):
    noise, _ = padded(
        list(
            zip(
                *(
                    drawing(inputs[f"pilot_{role}_index"], [len(row) for row in inputs[f"policy_{role}"]])
                    for role in ("chosen", "rejected")
                ),
                strict=True,
            )
        )
    )
    batch = pairs(inputs, columns={"noise": noise})
    beta = params["beta"]
    objective = method(
        "sgdpo",
        beta=beta,
        chosen_ratio=params["ratio_chosen"],
        rejected_ratio=params["ratio_rejected"],
        smoothing=params.get("label_smoothing", 0.0),
    )
    up, down = objective.double().parts
    return {
        "loss": total(objective, batch),
        "pilot_chosen_logratio": down.reward(batch)[:, 0] / beta,
        "pilot_rejected_logratio": up.reward(batch)[:, 1] / beta,
        **gradients(objective, batch),
    }


def total(objective, batch) -> torch.Tensor:
    """The loss of every example, over all terms, each of which has all examples."""
    return sum(term.values for term in objective.double()(batch))


@adapter("p020", "mrpo")
def mrpo(params, inputs):
    models = {"policy": "policy", "reference": "reference", "reference_2": "extra_reference"}
    batch = batch_of({name: sides(inputs, prefix) for name, prefix in models.items()})
    results = {}
    for weights, suffix in (("adaptive", "paper"), ("swapped", "code"), ("uniform", "fixed_half")):
        objective = method("mrpo", weights=weights, **params)
        results[f"loss_{suffix}"] = values(objective, batch)
        for role in ("chosen", "rejected"):
            names = ("reference", "reference_2")
            combined = CombinedReference(role, names, params["epsilon_max"], weights)
            results[f"ref_{role}_{suffix}"] = combined(batch)[:, 0]
            results[f"weight_extra_{suffix}"] = combined.shares(batch)[:, 1]
            results[f"clipped_extra_{role}"] = combined.clipped(batch)[:, 1]
    return {**results, **loss_and_gradients(method("mrpo", **params), batch)}


@adapter("p026", "asft")
def asft(params, inputs):
    batch, beta = pairs(inputs), params.get("beta", 1.0)
    objective = method("asft", lam=params["lambda"], beta=beta)
    _, up, down = (term.values for term in method("asft", lam=1.0, beta=beta).double()(batch))
    return {"loss": total(objective, batch), "loss_align": up + down, **gradients(objective, batch)}


@adapter("p029", "omni_dpo")
def omni_dpo(params, inputs):
    batch = pairs(inputs, columns=scores(inputs))
    arguments = {
        **{name: params[name] for name in ("beta", "eta", "tau_ref", "gamma", "tau_good")},
        "lam": params["lambda_nll"],
        "tokens": "mean" if params.get("length_norm", True) else "sum",
    }
    objective, detached = method("omni_dpo", **arguments), method("omni_dpo", detach_weight=True, **arguments)

    def weight(**changed) -> torch.Tensor:
        compared = primary(method("omni_dpo", **{**arguments, **changed}))
        assert isinstance(compared, Compare)
        return compared.weight(compared.comparisons(batch))[:, 0]

    # at λ = 1 the likelihood of a response that has it is charged in full
    charged = method("omni_dpo", **{**arguments, "lam": 1.0}).double()(batch)[1].values
    return {
        "loss": total(objective, batch),
        "w_qual": weight(gamma=0.0),
        "w_perf": weight(eta=0.0) * 2,
        "nll_active": (charged > 0).double(),
        **gradients(objective, batch),
        **gradients(detached, batch, "_detached_weight"),
    }


@adapter("p036", "typo")
def typo(params, inputs):
    number, samples = len(inputs["policy_chosen"]), len(inputs["reference_sample_policy"])
    count, lam = max(number, samples), params["lambda"]

    def filled(rows):
        return [*rows, *[[]] * (count - len(rows))]

    models = {}
    for model in ("policy", "reference"):
        # the pairs' own reference log-probabilities are read by nothing
        roles = inputs["policy_chosen"], inputs["policy_rejected"], inputs[f"reference_sample_{model}"]
        models[model] = list(zip(*map(filled, roles), strict=True))
    preference = torch.tensor([*inputs["preference_prob"], *[0.5] * (count - number)], dtype=torch.float64)
    batch = batch_of(models, {"preference": preference}, ("chosen", "rejected", "sample"))

    def terms(labels: str) -> list[torch.Tensor]:
        return [term.values for term in method("typo", lam=1.0, labels=labels).double()(batch)]

    return {
        "loss_sup_hard": terms("hard")[0][:number],
        "loss_sup_soft_ce": terms("soft_cross_entropy")[0][:number],
        "loss_sup_kl": terms("soft")[0][:number],
        "kl_ref_to_policy_estimate": terms("hard")[1][:samples],
        "total_hard": method("typo", lam=lam).double().loss(batch),
        "total_soft_kl": method("typo", lam=lam, labels="soft").double().loss(batch),
    }


@adapter("p044", "reference_parameterisations")
def parameterisations(params, inputs):
    batch = pairs(inputs)
    prior = batch_of({"policy": sides(inputs, "policy"), "reference": sides(inputs, "prior")})
    unprompted = PreferenceBatch(batch.models, {}, batch.roles, {"unprompted": prior})
    return {
        "loss_dpo": values(method("dpo", **params), batch),
        "loss_posterior": values(method("dpo_posterior", **params), batch),
        "loss_likelihood": values(method("dpo_likelihood", **params), unprompted),
    }


@adapter("p051", "dpo_shift")
def shifted(params, inputs):
    low, high, steps = params["lambda_min"], params["lambda_max"], params["max_steps"]
    objective = method("dpo_shift", beta=params["beta"], factor=params["f_lambda"])

    def factors(start: float, end: float) -> list[float]:
        """What the rejected reward is multiplied by."""
        compared = primary(dpo_shift(beta=1.0, factor=start, final_factor=end))
        models = batch_of({"policy": [[[-1.0], [-1.0]]], "reference": [[[-2.0], [-2.0]]]}).models
        batches = [PreferenceBatch(models, progress=step / steps) for step in inputs_steps]
        return [float(compared.reward(batch)[0, 1].detach()) for batch in batches]

    inputs_steps = params.get("schedule_steps", inputs.get("schedule_steps", (0, 1, steps // 2, steps)))
    return {
        **loss_and_gradients(objective, pairs(inputs)),
        "increase_linear": factors(low, high),
        "decrease_linear": factors(high, low),
        "schedule_steps": list(inputs_steps),
    }


@adapter("p052", "mappo")
def mappo(params, inputs):
    batch = pairs(inputs, columns=scores(inputs))
    beta = params["beta"]
    simpo = method("mappo_simpo", beta=params["simpo_beta"], gamma=params["simpo_gamma"])
    return {
        **loss_and_gradients(method("mappo", beta=beta), batch),
        "delta_r": prior("unit")(batch)[:, 0],
        "loss_simpo": values(simpo, batch),
        "loss_ipo": values(method("mappo_ipo", tau=beta), batch),
        "loss_cpo": total(method("mappo_cpo", beta=beta, lam=params["cpo_lambda"]), batch),
    }


def gamma_po(key, params, inputs):
    noise = {"pair_noise": torch.full((len(inputs["policy_chosen"]),), 0.5, dtype=torch.float64)}
    batch, history = pairs(inputs, columns=noise), torch.tensor(inputs["history_gaps"], dtype=torch.float64)

    def started(iterations: int):
        own = {"beta": params["beta"], "gamma": params["gamma0"], "tau": params["tau"]}
        objective = method(key, iterations=iterations, **own).double().eval()
        margin = objective.target
        margin.past[len(margin.past) - len(history) :] = history
        margin.kept.fill_(len(history))
        return objective

    def gamma(iterations: int) -> torch.Tensor:
        objective = started(iterations)
        return objective.target(objective.comparisons(batch))[:, 0] + objective.target.shift

    objective = started(params["iterations"])
    return {
        **loss_and_gradients(objective, batch),
        "gamma": gamma(params["iterations"]),
        "gamma_converged": gamma(1000),
        "reward_gap": objective.comparisons(batch).margins[:, 0],
    }


@adapter("p057", "gamma_simpo")
def gamma_simpo(params, inputs):
    return gamma_po("gamma_simpo", params, inputs)


@adapter("p057", "gamma_dpo")
def gamma_dpo(params, inputs):
    return gamma_po("gamma_dpo", params, inputs)


@adapter("p059", "flex_dpo")
def flex_dpo(params, inputs):
    batch = pairs(inputs)
    betas = {name: params[name] for name in ("beta_plus", "beta_minus")}
    likelihood = {"coefficient": params["sft_weight"], "tokens": "sum"}
    both = from_config({"method": "flex_dpo", **betas, "plus": {"nll": likelihood}})
    return {**loss_and_gradients(method("flex_dpo", **betas), batch), "loss_with_sft": total(both, batch)}


@adapter("p059", "three_d_gradient")
def three_d_gradient(params, inputs):
    policy, reference = (
        torch.tensor([inputs[f"{prefix}_chosen"], inputs[f"{prefix}_rejected"]], dtype=torch.float64).T
        for prefix in ("pi", "ref")
    )
    chosen, rejected = probability_slopes(method("dpo", **params), policy, reference).T
    return {
        "dloss_dpi_chosen": chosen,
        "dloss_dpi_rejected": rejected,
        "ratio_rejected_over_chosen": rejected / chosen,
    }
