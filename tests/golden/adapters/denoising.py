"""Losses on the errors of denoisers."""

from __future__ import annotations

import torch

from prefero.feedback.win_rates import shares_of_wins
from prefero.models.diffusion.process import denoising_step, pseudo_huber, rectified_flow, squared_error
from prefero.objectives import PreferenceBatch, TokenLogps, method, primary
from prefero.objectives.presets.denoising import label_probability, ranked
from prefero.objectives.slots import exponential_gain, logarithmic_discount
from tests.golden.adapters import adapter
from tests.golden.batches import values

ROLES = ("chosen", "rejected")
MODELS = ("policy", "reference")


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def predictions(inputs) -> dict[tuple[str, str], torch.Tensor]:
    """What each model predicts on each side; the policy's want a gradient."""
    return {
        (model, role): tensor(inputs[f"{model}_pred_{role}"]).requires_grad_(model == "policy")
        for model in MODELS
        for role in ROLES
    }


def batch_of_errors(errors, columns=None) -> PreferenceBatch:
    """One token a response, whose log-probability is minus the error of a model on a side."""
    logps = {model: -torch.stack([errors[model, role] for role in ROLES], 1)[..., None] for model in MODELS}
    mask = torch.ones_like(logps["policy"], dtype=torch.bool)
    return PreferenceBatch({model: TokenLogps(own, mask) for model, own in logps.items()}, columns or {})


def margins(objective, batch) -> torch.Tensor:
    return primary(objective).comparisons(batch).margins[:, 0]


def halved(params) -> float:
    """The library's β is halved."""
    return params["beta"] if params.get("half", True) else 2 * params["beta"]


@adapter("p104", "diffusion_dpo")
def diffusion_dpo(params, inputs):
    predicted, noise = predictions(inputs), tensor(inputs["noise"])
    errors = {which: squared_error(own, noise) for which, own in predicted.items()}
    batch, objective = batch_of_errors(errors), method("diffusion_dpo", beta=halved(params))
    wanted = [predicted["policy", role] for role in ROLES]
    slopes = torch.autograd.grad(objective.loss(batch), wanted, retain_graph=True)
    return {
        **{f"model_mse_{role}": errors["policy", role] for role in ROLES},
        **{f"ref_mse_{role}": errors["reference", role] for role in ROLES},
        "logits": margins(objective, batch),
        "loss": values(objective, batch),
        **{f"grad_policy_pred_{role}": slope for role, slope in zip(ROLES, slopes, strict=True)},
    }


@adapter("p004", "lightgen_mar_dpo")
def lightgen(params, inputs):
    predicted, noise = predictions(inputs), tensor(inputs["noise"])
    patches, mask = noise.shape[:2], tensor(inputs["token_mask"]) > 0
    both = mask[:, None].expand(-1, 2, -1)
    scored = {}
    for model in MODELS:
        errors = [
            squared_error(predicted[model, role].flatten(0, 1), noise.flatten(0, 1)).view(patches)
            for role in ROLES
        ]
        scored[model] = TokenLogps(torch.where(both, -torch.stack(errors, 1), 0), both)
    batch, objective = PreferenceBatch(scored), method("diffusion_dpo", beta=params["beta"])
    policy = method("diffusion_cpo", beta=2.0, lam=0.0)
    masked = -primary(policy).reward(batch)
    return {
        "masked_mse_policy_chosen": masked[:, 0],
        "masked_mse_policy_rejected": masked[:, 1],
        "logits": margins(objective, batch),
        "loss": values(objective, batch),
    }


@adapter("p011", "flow_dpo_fm")
def flow_dpo(params, inputs):
    noise, sigma = tensor(inputs["noise"]), tensor(inputs["sigma"])
    flows = {role: rectified_flow(tensor(inputs[f"data_{role}"]), noise, sigma) for role in ROLES}
    errors = {
        (model, role): squared_error(own, flows[role][1])
        for (model, role), own in predictions(inputs).items()
    }
    batch = batch_of_errors(errors)
    objective = method("flow_dpo", beta=params["beta"], anchor=params["fm_weight"])
    preference, anchor = (term.values for term in objective(batch))
    return {
        "noisy_chosen": flows["chosen"][0],
        "target_chosen": flows["chosen"][1],
        "target_rejected": flows["rejected"][1],
        "logits": margins(objective, batch),
        "dpo_loss": preference,
        "fm_loss_chosen": errors["policy", "chosen"],
        "loss": preference + anchor,
    }


@adapter("p031", "smpo")
def smpo(params, inputs):
    noise = tensor(inputs["noise"])
    errors = {which: squared_error(own, noise) for which, own in predictions(inputs).items()}
    score = torch.stack([tensor(inputs[f"score_{role}"]) for role in ROLES], 1)
    batch = batch_of_errors(errors, {"score": score})
    extent = params["score_min"], params["score_max"]
    objective = method(
        "smpo", beta=params["beta"], gamma=params["gamma"], lowest=extent[0], highest=extent[1]
    )
    comparisons = objective.comparisons(batch)
    scale = objective.scale(comparisons)
    return {
        "prob_chosen": label_probability(comparisons, *extent)[:, 0],
        "weight": scale[:, 0],
        "logits": (scale * comparisons.margins)[:, 0],
        "loss": values(objective, batch),
    }


@adapter("p062", "rankdpo")
def rankdpo(params, inputs):
    noise = tensor(inputs["noise"])
    examples, count = noise.shape[:2]
    logps = {
        model: -squared_error(tensor(inputs[f"{model}_pred"]).flatten(0, 1), noise.flatten(0, 1)).view(
            examples, count, 1
        )
        for model in MODELS
    }
    mask = torch.ones(examples, count, 1, dtype=torch.bool)
    phi = torch.stack([shares_of_wins(tensor(scores)) for scores in inputs["reward_scores"]])
    models = {model: TokenLogps(own, mask) for model, own in logps.items()}
    batch = PreferenceBatch(models, {"win_rate": phi}, ())
    objective = method("rankdpo", beta=halved(params))
    wins, rank = ranked()
    return {
        "phi": phi,
        "rank": rank(batch).int(),
        "gain": exponential_gain(wins)(batch),
        "discount": logarithmic_discount(rank)(batch),
        "pair_weight": objective.weight(objective.comparisons(batch)).view(-1, count, count),
        "score": (logps["reference"] - logps["policy"])[..., 0],
        "loss": values(objective, batch),
    }


@adapter("p088", "consistency_dpo")
def consistency_dpo(params, inputs):
    errors = {
        (model, role): pseudo_huber(own, tensor(inputs[f"target_{role}"]), params["huber_c"])
        for (model, role), own in predictions(inputs).items()
    }
    batch, objective = batch_of_errors(errors), method("consistency_dpo", beta=params["beta"])
    return {
        "huber_policy_chosen": errors["policy", "chosen"],
        "logits": margins(objective, batch),
        "loss": values(objective, batch),
    }


@adapter("p140", "ncp")
def ncp(params, inputs):
    schedule = tensor(inputs["beta_t"]), tensor(inputs["alpha_bar_t"])
    encoder = tensor(inputs["encoder_matrix"])

    def reached(role: str, predicted: torch.Tensor) -> torch.Tensor:
        state, added = (tensor(inputs[f"{which}_{role}"]) for which in ("noisy", "step_noise"))
        return denoising_step(state, predicted, *schedule, added)

    def features(state: torch.Tensor) -> torch.Tensor:
        return torch.tanh(state.flatten(1) @ encoder.T)

    predicted, noise = predictions(inputs), tensor(inputs["noise"])
    errors = {
        (model, role): squared_error(features(reached(role, own)), features(reached(role, noise)))
        for (model, role), own in predicted.items()
    }
    batch = batch_of_errors(errors)
    alone = method("diffusion_cpo", beta=params["beta"], lam=params["cpo_lambda"]).double()
    preference, likelihood = (term.values for term in alone(batch))
    return {
        "x_prev_policy_chosen": reached("chosen", predicted["policy", "chosen"]),
        "x_prev_true_chosen": reached("chosen", noise),
        **{f"perceptual_{model}_{role}": errors[model, role] for model in MODELS for role in ROLES},
        "dpo_loss": values(method("diffusion_dpo", beta=params["beta"]), batch),
        "cpo_loss": preference + likelihood,
    }
