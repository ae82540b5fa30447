"""Methods with parts that learn: values, masks, preference heads. What a head would give is put into the
batch as a signal, so that the vectors' own numbers stand for it."""

from __future__ import annotations

import math

import torch

from prefero.objectives import Measured, PreferenceBatch, Signal, TokenLogps, method
from prefero.objectives.presets.masks import ActivationMask, LayersMask, last_layer_mask, masked
from prefero.objectives.presets.preference_heads import (
    general_preference,
    preference_by,
    preference_scores,
    with_degrees,
)
from prefero.objectives.presets.valued import regression_on_rewards, soft_bellman, step_values
from prefero.objectives.signals import forward_kl
from tests.golden.adapters import adapter
from tests.golden.batches import (
    batch_of,
    gradients,
    loss_and_gradients,
    padded,
    pairs,
    ragged,
    sides,
    values,
)

PER_RESPONSE, PER_TOKEN = "example response", "example response token"


def double(numbers) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def given(name: str, axes: str = PER_RESPONSE) -> Measured:
    """What a head gives, as a number of the vector."""
    return Measured(Signal(name, axes))


def with_signals(
    batch: PreferenceBatch, axes: str = PER_RESPONSE, **signals: torch.Tensor
) -> PreferenceBatch:
    """The batch with more signals of the policy's, which want gradients."""
    policy = batch.models["policy"]
    measured = dict(policy.signals)
    for name, tensor in signals.items():
        measured[Signal(name, axes)] = tensor.requires_grad_()
    models = {**batch.models, "policy": TokenLogps(policy.logps, policy.mask, measured)}
    return PreferenceBatch(models, batch.columns, batch.roles)


def both(inputs, name: str) -> torch.Tensor:
    """``name_chosen`` and ``name_rejected``, ``[example response …]``."""
    return torch.stack([double(inputs[f"{name}_{role}"]) for role in ("chosen", "rejected")], 1)


def slope(objective, batch: PreferenceBatch, name: str, axes: str = PER_RESPONSE) -> torch.Tensor:
    signal = batch.models["policy"].signals[Signal(name, axes)]
    return torch.autograd.grad(objective.double().loss(batch), signal)[0]


@adapter("p019", "svpo")
def svpo(params, inputs):
    batch = with_signals(pairs(inputs, columns={"score": both(inputs, "q")}), value=both(inputs, "value"))
    objective = step_values(given("value"), **params)
    policy, error, ranking = objective.double()(batch)
    chosen, rejected = slope(objective, batch, "value").T
    loss = sum(part.values for part in (policy, error, ranking))
    alone = step_values(given("value"), **{**params, "mse_weight": 1.0, "margin_weight": 1.0})
    _, error, ranking = alone.double()(batch)
    return {
        "policy_loss": policy.values,
        "value_mse": error.values,
        "value_margin": ranking.values,
        "loss": loss,
        "grad_value_chosen": chosen,
        "grad_value_rejected": rejected,
    }


def trajectories(inputs, level: str, beta: float):
    singles = {name: [[one] for one in inputs[name]] for name in ("policy", "reference")}
    reward = double(inputs["terminal_reward"])[:, None]
    columns = {"score": reward}
    if level == "step":
        step = torch.zeros_like(padded(singles["policy"])[0], dtype=torch.int64)
        for example, spans in enumerate(inputs["step_spans"]):
            for number, (start, stop) in enumerate(spans):
                step[example, 0, start:stop] = number + 1
        columns["step"] = step
    batch = batch_of(singles, columns, roles=())
    value, _ = padded([[one] for one in inputs["values"]])
    batch = with_signals(batch, PER_TOKEN, value=value)
    objective = soft_bellman(given("value", PER_TOKEN), beta, 0.0, level)
    of_value, of_policy = objective.double()(batch)
    loss = objective.loss(batch)
    of_values, of_logps = torch.autograd.grad(
        loss, [batch.models["policy"].signals[Signal("value", PER_TOKEN)], batch.models["policy"].logps]
    )
    return {
        "value_loss": of_value.values,
        "policy_loss": of_policy.values,
        "grad_values": [one[0] for one in ragged(of_values, batch.mask)],
        "grad_policy": [one[0] for one in ragged(of_logps, batch.mask)],
    }


@adapter("p079", "oreo_token")
def oreo_token(params, inputs):
    return trajectories(inputs, "token", params["beta"])


@adapter("p079", "oreo_step")
def oreo_step(params, inputs):
    return trajectories(inputs, "step", params["beta"])


@adapter("p091", "dro_v")
def dro_v(params, inputs):
    singles = {name: [[one] for one in inputs[name]] for name in ("policy", "reference")}
    reward, value = (double(inputs[name])[:, None] for name in ("reward", "value"))
    batch = with_signals(batch_of(singles, {"score": reward}, roles=()), value=value)
    objective, divided = (
        regression_on_rewards(given("value"), params["tau"], divide).double() for divide in (False, True)
    )
    comparisons = objective.comparisons(batch)
    of_policy, of_divided = (
        torch.autograd.grad(one.loss(batch), batch.models["policy"].logps)[0] for one in (objective, divided)
    )
    return {
        "log_ratio": (comparisons.margins / params["tau"])[:, 0],
        "residual": (objective.target(comparisons) - comparisons.margins)[:, 0],
        "loss": values(objective, batch),
        "grad_policy": [one[0] for one in ragged(of_policy, batch.mask)],
        "grad_policy_divided_by_tau": [one[0] for one in ragged(of_divided, batch.mask)],
        "grad_value": slope(objective, batch, "value")[:, 0],
    }


def from_logits(inputs):
    """Log-probabilities of both models and KL(reference ‖ policy), per token, by role."""
    found = {"policy": {}, "reference": {}, "kl": {}}
    for role in ("chosen", "rejected"):
        for lists in found.values():
            lists[role] = []
        for tokens, mine, theirs in zip(
            inputs[f"{role}_tokens"],
            inputs[f"policy_{role}_logits"],
            inputs[f"reference_{role}_logits"],
            strict=True,
        ):
            p, q = (double(one).log_softmax(-1) for one in (mine, theirs))
            at = torch.arange(len(tokens)), torch.tensor(tokens)
            found["policy"][role].append(p[at].tolist())
            found["reference"][role].append(q[at].tolist())
            found["kl"][role].append((q.exp() * (q - p)).sum(-1).tolist())
    return {name: list(zip(roles["chosen"], roles["rejected"], strict=True)) for name, roles in found.items()}


@adapter("p102", "sparsepo")
def sparsepo(params, inputs):
    numbers = from_logits(inputs)
    batch = batch_of(
        {name: numbers[name] for name in ("policy", "reference")}, signals={forward_kl(): numbers["kl"]}
    )
    own = ("reward",) if params["shared_mask"] else ("reward", "kl")
    masks = {name: padded(sides(inputs, f"{name}_mask"))[0] for name in own}
    batch = with_signals(batch, PER_TOKEN, **masks)
    reward_mask = given("reward", PER_TOKEN)
    kl_mask = reward_mask if params["shared_mask"] else given("kl", PER_TOKEN)
    objective = masked(reward_mask, kl_mask, params["beta"], params["l1_reward"], params["l1_kl"]).double()
    terms = objective(batch)

    def margin(first, second):
        return masked(first, second, 1.0).comparisons(batch).margins[:, 0]

    of_reward, of_kl = margin(reward_mask, 0 * reward_mask), margin(0 * reward_mask, kl_mask)
    preference = masked(reward_mask, kl_mask, params["beta"])
    result = {
        "u": of_reward,
        "delta": -of_kl,
        "preference_loss": values(preference, batch),
        "loss": sum(term.values for term in terms),
    }
    for name in own:
        chosen, rejected = zip(*ragged(slope(objective, batch, name, PER_TOKEN), batch.mask), strict=True)
        result |= {f"grad_{name}_mask_chosen": list(chosen), f"grad_{name}_mask_rejected": list(rejected)}
    return result


@adapter("p102", "sparsepo_mask_head")
def sparsepo_mask_head(params, inputs):
    states = double(inputs["reference_hidden_states"]).transpose(0, 1)
    head = LayersMask(params["layer_norm_eps"])
    head(states)
    weights = {"layer_weight": "layer_weights", "layer_bias": "layer_biases", "mixer": "mixer_weights"}
    for own, theirs in weights.items():
        getattr(head, own).data = double(inputs[theirs])
    last = last_layer_mask()
    last(states[:, -1])
    last[0].weight.data = double(inputs["layer_weights"][-1:])
    last[0].bias.data = double(inputs["layer_biases"][-1:])
    return {
        "per_layer_mask": head.per_layer(states),
        "mask": head(states)[:, 0],
        "last_layer_only_mask": last(states[:, -1])[:, 0],
    }


@adapter("p102", "sparsepo_mapo_mask")
def sparsepo_mapo_mask(params, inputs):
    activations = double(inputs["reference_activations"]).mean(-1)
    types = inputs["activation_types"]
    tokens = activations.shape[1]
    signals = {
        Signal(kind, PER_TOKEN): activations[[own == kind for own in types]].T[None, None]
        for kind in dict.fromkeys(types)
    }
    mask = torch.ones(1, 1, tokens, dtype=torch.bool)
    policy = TokenLogps(torch.zeros(1, 1, tokens).double(), mask, signals)
    found = ActivationMask(*(Measured(signal) for signal in signals))
    return {"mask": found(PreferenceBatch({"policy": policy}, roles=()))[0, 0]}


@adapter("p078", "dph")
def dph(params, inputs):
    rewards = both(inputs, "reward")
    zeros = torch.zeros(*rewards.shape, 1).double()
    empty = PreferenceBatch({"policy": TokenLogps(zeros, torch.ones_like(zeros, dtype=torch.bool))})
    batch = with_signals(empty, reward=rewards)
    optimum = math.log((1 - params["label_smoothing"]) / params["label_smoothing"])
    result = {"optimum_reward_separable": optimum, "optimum_margin_contrastive": optimum}
    for loss, short in (("separable", "sep"), ("contrastive", "con")):
        objective = preference_by(given("reward"), params["label_smoothing"], loss).double()
        chosen, rejected = slope(objective, batch, "reward").T
        result |= {
            f"loss_{loss}": sum(term.values for term in objective(batch)),
            f"grad_{short}_chosen": chosen,
            f"grad_{short}_rejected": rejected,
        }
    return result


@adapter("p085", "gpm_score")
def gpm_score(params, inputs):
    embeddings = double(inputs["embeddings"])
    scales = double(inputs["eigenvalue_scales"])
    scores = preference_scores(embeddings, scales)
    who = torch.tensor(inputs["pairs"])
    zeros = torch.zeros(len(who), 2, 1).double()
    empty = PreferenceBatch({"policy": TokenLogps(zeros, torch.ones_like(zeros, dtype=torch.bool))})
    batch = with_signals(empty, embedding=embeddings[who], scales=scales.expand(len(who), 2, -1).clone())
    objective = general_preference(given("embedding"), given("scales"), params["tau"])
    return {
        "score_matrix": scores,
        "probability_matrix": (scores / params["tau"]).sigmoid(),
        "loss": values(objective, batch),
    }


@adapter("p085", "gpo")
def gpo(params, inputs):
    score = both_groups(inputs).mean(-1)
    batch = pairs(inputs, columns={"advantage": score})
    return {
        **loss_and_gradients(method("gpo", beta=params["beta"]), batch),
        "mean_score_chosen": score[:, 0],
        "mean_score_rejected": score[:, 1],
    }


def both_groups(inputs) -> torch.Tensor:
    return torch.stack([double(inputs[f"scores_{role}_vs_group"]) for role in ("chosen", "rejected")], 1)


@adapter("p115", "spo_self_supervised")
def spo_self_supervised(params, inputs):
    variants = [[-1.0]] * len(inputs["policy_chosen"])
    roles = ("chosen", "rejected", "chosen_degraded", "rejected_degraded")
    models = {
        name: list(zip(inputs[f"{name}_chosen"], inputs[f"{name}_rejected"], variants, variants, strict=True))
        for name in ("policy", "reference")
    }
    label = both(inputs, "degree_label").long()
    logits = both(inputs, "degree_logits")
    batch = batch_of(models, {"degree": torch.cat([torch.zeros_like(label), label], 1)}, roles=roles)
    batch = with_signals(batch, logits=torch.cat([torch.zeros_like(logits), logits], 1))
    plain = method("dpo", beta=params["beta"])
    heads = given("logits"), given("logits")
    preference, chosen, rejected = with_degrees(plain, heads, params["gamma"]).double()(batch)
    _, first, second = with_degrees(plain, heads, 1.0).double()(batch)
    return {
        "loss": preference.values + chosen.values + rejected.values,
        "po_loss": preference.values,
        "self_supervised_loss": first.values + second.values,
        **gradients(with_degrees(plain, heads, params["gamma"]), batch),
    }
