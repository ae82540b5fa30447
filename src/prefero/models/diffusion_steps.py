"""Denoising steps as responses: the Gaussian transitions of a stochastic sampler have true probabilities.

A response is the state that one step of a stored trajectory reached. Candidates of one state (Step-aware
Preference Optimization, TailorPO) share the model's call; two trajectories (D3PO) have states of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prefero.errors import PreferoError
from prefero.models.diffusion import Denoiser, denoise, rows_of
from prefero.models.diffusion_process import NoiseProcess, over
from prefero.objectives.batch import TokenLogps


def predicted_data(
    state: Float[Tensor, "row *element"],
    noise: Float[Tensor, "row *element"],
    alpha_bar: Float[Tensor, " row"],
) -> Float[Tensor, "row *element"]:
    """x̂₀ = (x − √(1 − ᾱ) ε) / √ᾱ, ᾱ being that of the state."""
    level = over(alpha_bar, state)
    return (state - (1 - level).sqrt() * noise) / level.sqrt()


def moved(
    state: Float[Tensor, "row *element"],
    noise: Float[Tensor, "row *element"],
    alpha_bar: Float[Tensor, " row"],
    to: Float[Tensor, " row"],
    deviation: Float[Tensor, " row"] | None = None,
) -> Float[Tensor, "row *element"]:
    """The state at another noise level, up or down, with the same data and noise: a DDIM step.

    With a ``deviation`` it is the mean of what a stochastic step reaches. Song et al., 2020, arXiv
    2010.02502, eq. 12.
    """
    data, level = predicted_data(state, noise, alpha_bar), over(to, state)
    spread = 0.0 if deviation is None else over(deviation, state).square()
    return level.sqrt() * data + (1 - level - spread).clamp(min=0).sqrt() * noise


def step_deviation(
    alpha_bar: Float[Tensor, " row"], to: Float[Tensor, " row"], eta: float = 1.0
) -> Float[Tensor, " row"]:
    """σ = η √((1 − ᾱ′)/(1 − ᾱ) · (1 − ᾱ/ᾱ′)) of a step from ᾱ to ᾱ′ ≥ ᾱ: 0 where it reaches the data, or
    stays."""
    return eta * ((1 - to) / (1 - alpha_bar) * (1 - alpha_bar / to)).clamp(min=0).sqrt()


def transition_logps(
    reached: Float[Tensor, "row *element"],
    mean: Float[Tensor, "row *element"],
    deviation: Float[Tensor, " row"],
) -> Float[Tensor, " row"]:
    """log N(reached; mean, σ²), the mean over elements, as in D3PO's released code; 0 where σ is 0.

    A sum would take ratios of probabilities far from 1 at once.
    """
    certain = deviation <= 0
    sigma = torch.where(certain, 1, deviation)
    distance = ((reached.detach() - mean) / over(sigma, mean)).square().flatten(1).mean(1)
    return torch.where(certain, 0, -distance / 2 - sigma.log() - math.log(2 * math.pi) / 2)


@dataclass(frozen=True, slots=True)
class Transitions:
    """One step of every response: from ``states`` at the schedule's place ``index`` to ``reached`` at the
    place ``to``, which is −1 for the data itself.

    ``states`` have one source for all responses of an example, or one for each.
    """

    states: Float[Tensor, "example source *element"]
    reached: Float[Tensor, "example response *element"]
    index: Int[Tensor, " example"]
    to: Int[Tensor, " example"]
    conditions: Mapping[str, Any] = field(default_factory=dict)


def score_transitions(
    model: Denoiser, process: NoiseProcess, transitions: Transitions, *, eta: float = 1.0
) -> TokenLogps:
    """The log-probabilities of stored steps, one token each; steps without noise are left out.

    A policy that sampled with classifier-free guidance is scored with it: give
    :func:`~prefero.models.diffusion_guidance.with_guidance` of it. Gradients follow the caller's grad mode.

    Raises:
        PreferoError: for a flow, whose sampler has no noise.
    """
    examples, sources = transitions.states.shape[:2]
    responses = transitions.reached.shape[1]
    rows = torch.arange(examples, device=transitions.states.device).repeat_interleave(sources)
    mean, deviation = outcome(
        model,
        process,
        transitions.states.flatten(0, 1),
        transitions.index[rows],
        transitions.to[rows],
        rows_of(transitions.conditions, rows),
        eta,
    )
    spread = mean.view(transitions.states.shape).expand(-1, responses, *mean.shape[1:])
    logps = transition_logps(
        transitions.reached.flatten(0, 1),
        spread.flatten(0, 1),
        deviation.view(examples, sources).expand(-1, responses).flatten(),
    ).view(examples, responses, 1)
    random = (deviation > 0).view(examples, sources, 1).expand(logps.shape)
    return TokenLogps(logps, random)


def outcome(
    model: Denoiser,
    process: NoiseProcess,
    states: Float[Tensor, "row *element"],
    index: Int[Tensor, " row"],
    to: Int[Tensor, " row"],
    conditions: Mapping[str, Any],
    eta: float = 1.0,
) -> tuple[Float[Tensor, "row *element"], Float[Tensor, " row"]]:
    """Mean and deviation of where a step from one place to another ends, in one call of the model.

    Raises:
        PreferoError: for a flow, whose sampler has no noise.
    """
    if process.prediction == "flow":
        raise PreferoError("a flow's steps are not random; give a diffusion's scheduler, or use errors")
    predicted = denoise(model, states, process.times.to(index.device)[index], conditions)
    level = process.alpha_bar(index)
    target = torch.where(to < 0, 1, process.alpha_bar(to.clamp(min=0)))
    deviation = step_deviation(level, target, eta)
    mean = moved(states, process.noise_of(predicted, states, index), level, target, deviation)
    return mean, deviation.to(states)


def guided(
    state: Float[Tensor, "row *element"],
    reward: Callable[[Tensor], Tensor],
    highest: float,
    rate: float,
) -> Float[Tensor, "row *element"]:
    """x − η ∇ₓ (r_high − r(x))²: a state pushed towards a reward ``highest``, without a gradient itself.

    ``reward`` maps states to their rewards ``[row]``; TailorPO-G (Ren et al., 2025, arXiv 2502.01667) takes
    that of the predicted data. A reward above ``highest`` is pushed down.
    """
    with torch.enable_grad():
        leaf = state.detach().requires_grad_()
        (slope,) = torch.autograd.grad((highest - reward(leaf)).square().sum(), leaf)
    return (leaf - rate * slope).detach()
