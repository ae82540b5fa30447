"""Methods on pairs of responses."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from prefero.objectives import Compare, Comparisons, PreferenceBatch, TokenLogps, from_config, method, primary
from prefero.objectives.quantities import log_ratio
from prefero.objectives.signals import LOG_MAX_P, LOG_SUM_P_SQUARED, forward_kl
from prefero.objectives.slots import wpo as wpo_weight
from tests.golden.adapters import adapter
from tests.golden.batches import (
    batch_of,
    gradients,
    loss_and_gradients,
    pairs,
    scores,
    sides,
    values,
)


def rewards(objective, batch) -> dict:
    compared = primary(objective)
    chosen, rejected = compared.reward(batch).T
    return {"chosen_reward": chosen, "rejected_reward": rejected}


def comparisons(objective, batch) -> Comparisons:
    compared = primary(objective)
    assert isinstance(compared, Compare)
    return compared.comparisons(batch)


def pull(objective, batch, scale: float = 1.0) -> torch.Tensor:
    """How strongly each pair pulls its margin: −dℓ/d(chosen log-probability) / scale, one number an
    example."""
    slope = gradients(objective, batch)["grad_policy_chosen"]
    return torch.tensor([-side[0] * len(slope) / scale for side in slope], dtype=torch.float64)


@adapter("p053", "dpo")
def dpo(params, inputs):
    batch, objective = pairs(inputs), method("dpo", beta=params["beta"])
    return {
        **loss_and_gradients(objective, batch),
        **rewards(objective, batch),
        "margin": comparisons(objective, batch).margins[:, 0],
        "gradient_weight": pull(objective, batch, params["beta"]),
    }


@adapter("p053", "cdpo_label_smoothing")
def cdpo(params, inputs):
    batch = pairs(inputs)
    objective = method("cdpo", beta=params["beta"], smoothing=params["label_smoothing"])
    return {"loss": values(objective, batch), "optimal_margin": minimiser(objective)}


def minimiser(objective) -> float:
    """The margin at which the loss of a pair stops falling, by bisection over a tabular policy."""
    low, high = -50.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        reward = middle / primary_scale(objective)
        batch = batch_of({"policy": [[[reward], [0.0]]], "reference": [[[0.0], [0.0]]]})
        slope = gradients(objective, batch)["grad_policy_chosen"][0][0]
        low, high = (middle, high) if slope < 0 else (low, middle)
    return low


def primary_scale(objective) -> float:
    """The reward of a unit of log-ratio."""
    batch = batch_of({"policy": [[[1.0], [0.0]]], "reference": [[[0.0], [0.0]]]})
    return float(comparisons(objective, batch).margins.detach())


@adapter("p035", "ipo")
def ipo(params, inputs):
    return loss_and_gradients(method("ipo", tau=params["tau"], tokens=params["reduction"]), pairs(inputs))


@adapter("p018", "simpo")
def simpo(params, inputs):
    batch, objective = pairs(inputs), method("simpo", beta=params["beta"], gamma=params["gamma"])
    return {**loss_and_gradients(objective, batch), **rewards(objective, batch)}


@adapter("p018", "simpo_variants")
def simpo_variants(params, inputs):
    batch, both = pairs(inputs), {"beta": params["beta"], "gamma": params["gamma"]}
    return {
        "loss_hinge": values(method("simpo", link="hinge", **both), batch),
        "loss_label_smoothed": values(method("simpo", smoothing=params["label_smoothing"], **both), batch),
    }


@adapter("p049", "rdpo")
def rdpo(params, inputs):
    batch, beta, rate = pairs(inputs), params["beta"], params["epsilon"]
    objective = method("rdpo", beta=beta, flip_rate=rate)
    swapped = PreferenceBatch(batch.models, batch.columns, ("rejected", "chosen"))
    return {
        **loss_and_gradients(objective, batch),
        "gradient_weight": pull(objective, batch, beta),
        "loss_cdpo": values(method("cdpo", beta=beta, smoothing=rate), batch),
        "loss_swapped_labels": values(objective, swapped),
        "loss_dpo": values(method("dpo", beta=beta), batch),
    }


@adapter("p014", "pre_dpo")
def pre_dpo(params, inputs):
    objective, beta = method("dpo", beta=params["beta"]), params["beta"]
    guided, standard = (
        batch_of({"policy": sides(inputs, "policy"), "reference": sides(inputs, name)})
        for name in ("guiding", "initial")
    )
    return {
        "loss": values(objective, guided),
        "weight": pull(objective, guided, beta),
        "loss_standard_reference": values(objective, standard),
        "weight_standard_reference": pull(objective, standard, beta),
    }


@adapter("p030", "h_dpo")
def h_dpo(params, inputs):
    return loss_and_gradients(method("h_dpo", **params), pairs(inputs))


@adapter("p046", "f_dpo")
def f_dpo(params, inputs):
    results = {}
    for divergence in ("reverse_kl", "forward_kl", "jsd", "alpha"):
        objective, batch = method("f_dpo", divergence=divergence, **params), pairs(inputs)
        results[f"loss_{divergence}"] = values(objective, batch)
        results |= gradients(objective, batch, f"_{divergence}")
    return results


@adapter("p101", "dpop")
def dpop(params, inputs):
    batch, beta = pairs(inputs), params["beta"]
    objective = method("dpop", beta=beta, lam=params["lambda"])
    # the penalty is what a unit of λ takes from the margin
    plain = comparisons(method("dpop", beta=1.0, lam=0.0), batch).margins
    penalty = (plain - comparisons(method("dpop", beta=1.0, lam=1.0), batch).margins)[:, 0]
    return {**loss_and_gradients(objective, batch), "penalty": penalty, "active": penalty > 0}


@adapter("p043", "odpo")
def odpo(params, inputs):
    batch = pairs(inputs, columns=scores(inputs))
    both = {"beta": params["beta"], "alpha": params["alpha"]}
    objective = method("odpo", offset=params["link"], **both)
    compared = primary(objective)
    return {
        **loss_and_gradients(objective, batch),
        "offset": compared.target(compared.comparisons(batch))[:, 0],
        "loss_identity_offset": values(method("odpo", offset="identity", **both), batch),
    }


@adapter("p027", "ilr_dpo")
def ilr_dpo(params, inputs):
    batch = pairs(inputs)
    chosen, rejected = batch.lengths.T
    return {**loss_and_gradients(method("r_dpo", **params), batch), "length_difference": chosen - rejected}


@adapter("p070", "ld_dpo")
def ld_dpo(params, inputs):
    batch, objective = pairs(inputs), method("ld_dpo", **params)
    return {
        **loss_and_gradients(objective, batch),
        "logits": comparisons(objective, batch).margins[:, 0],
        "public_length": batch.mask.sum(-1).min(1).values,
    }


@adapter("p013", "exo_pref")
def exo_pref(params, inputs):
    objective = method("exo_pref", beta=params["beta_pi"], smoothing=params["label_smoothing"])
    return loss_and_gradients(objective, pairs(inputs))


def plus_nll(beta, coefficient, tokens):
    addition = {"nll": {"coefficient": coefficient, "tokens": tokens}}
    return from_config({"method": "dpo", "beta": beta, "plus": addition})


def parts(objective, batch):
    """The rows' losses of DPO and of the likelihood, the latter with its coefficient."""
    preference, likelihood = objective.double()(batch)
    return preference, likelihood


@adapter("p066", "pfpo_dpo_plus_sft")
def pfpo(params, inputs):
    batch, objective = pairs(inputs), plus_nll(params["beta"], params["sft_loss_weight"], "batch")
    return {
        "dpo_loss": parts(objective, batch)[0].values,
        "nll_token_mean": method("nll", tokens="batch").double().loss(batch),
        "batch_loss": objective.loss(batch),
        **gradients(objective, batch),
    }


@adapter("p148", "todo")
def todo(params, inputs):
    batch, objective = pairs(inputs, columns={"tie": inputs["tie"]}), method("todo", **params)

    def likelihood(batch: PreferenceBatch, tie: int) -> torch.Tensor:
        columns = {"tie": torch.full((len(inputs["tie"]),), tie)}
        return (-values(objective, PreferenceBatch(batch.models, columns, batch.roles))).exp()

    return {
        **loss_and_gradients(objective, batch),
        "p_win": likelihood(batch, 0),
        "p_tie": likelihood(batch, 1),
        "p_lose": likelihood(PreferenceBatch(batch.models, {}, ("rejected", "chosen")), 0),
    }


@adapter("p139", "wpo")
def wpo(params, inputs):
    measured = {LOG_SUM_P_SQUARED: "log_sum_sq_prob", LOG_MAX_P: "log_max_prob"}
    signals = {
        signal: list(zip(*(inputs[f"policy_{role}_{name}"] for role in ("chosen", "rejected")), strict=True))
        for signal, name in measured.items()
    }
    batch = pairs(inputs, signals=signals)
    objective = method("wpo", **params)
    compared = comparisons(objective, batch)
    return {
        **loss_and_gradients(objective, batch),
        "weight": wpo_weight(params["alignment"])(compared)[:, 0],
        "weight_unclamped": wpo_weight(params["alignment"], clamp=None)(compared)[:, 0],
        "weight_greedy": wpo_weight("greedy")(compared)[:, 0],
        "base_loss": values(method("dpo", beta=params["beta"]), batch),
    }


def tdpo(objective, beta, inputs):
    """Log-probabilities and forward KL of both sides out of logits, which take the gradient."""
    names = ("chosen", "rejected")
    policy = {
        name: [
            torch.tensor(rows, dtype=torch.float64, requires_grad=True)
            for rows in inputs[f"policy_{name}_logits"]
        ]
        for name in names
    }
    reference = {
        name: [torch.tensor(rows, dtype=torch.float64) for rows in inputs[f"reference_{name}_logits"]]
        for name in names
    }
    shape = (len(inputs["chosen_tokens"]), 2, max(len(row) for n in names for row in inputs[f"{n}_tokens"]))
    logps, reference_logps, kl = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))
    mask = torch.zeros(shape, dtype=torch.bool)
    for r, name in enumerate(names):
        for e, tokens in enumerate(inputs[f"{name}_tokens"]):
            log_p, log_q = policy[name][e].log_softmax(-1), reference[name][e].log_softmax(-1)
            at = torch.tensor(tokens)[:, None]
            logps[e, r, : len(tokens)] = log_p.gather(1, at)[:, 0]
            reference_logps[e, r, : len(tokens)] = log_q.gather(1, at)[:, 0]
            kl[e, r, : len(tokens)] = F.kl_div(log_p, log_q, log_target=True, reduction="none").sum(-1)
            mask[e, r, : len(tokens)] = True
    models = {
        "policy": TokenLogps(logps, mask, {forward_kl(): kl}),
        "reference": TokenLogps(reference_logps, mask),
    }
    batch = PreferenceBatch(models)
    ratio = log_ratio().sum()(batch)
    divergence = kl.sum(-1)
    loss = values(objective, batch)
    flat = [rows for name in names for rows in policy[name]]
    slopes = torch.autograd.grad(objective.loss(batch), flat)
    return {
        "seq_logratio_chosen": ratio[:, 0],
        "seq_logratio_rejected": ratio[:, 1],
        "seq_kl_chosen": divergence[:, 0],
        "seq_kl_rejected": divergence[:, 1],
        "loss": loss,
        **rewards(method("tdpo1", beta=beta), batch),
        "grad_policy_chosen_logits": [slope.tolist() for slope in slopes[: shape[0]]],
        "grad_policy_rejected_logits": [slope.tolist() for slope in slopes[shape[0] :]],
    }


@adapter("p131", "tdpo1")
def tdpo1(params, inputs):
    return tdpo(method("tdpo1", **params), params["beta"], inputs)


@adapter("p131", "tdpo2")
def tdpo2(params, inputs):
    return tdpo(method("tdpo2", **params), params["beta"], inputs)
