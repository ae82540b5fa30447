"""Trajectories of a stochastic sampler, kept step by step for objectives on denoising steps, and guidance.

D3PO takes pairs of trajectories from one start, Step-aware Preference Optimization several candidates of
every state and continues with a random one, TailorPO with the best.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prefero.errors import PreferoError
from prefero.models.diffusion.process import NoiseProcess, over
from prefero.models.diffusion.scoring import Denoiser, denoise, rows_of
from prefero.objectives.batch import TokenLogps

Pick = Callable[[Tensor, int], Tensor]
"""Of the candidates ``[example candidate *element]`` and the place that they are at (−1: data), which one
each example goes on with, ``[example]``."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The steps, noisiest first, and the data that they end in; ``taken`` says which candidate of each step
    was gone on with."""

    data: Float[Tensor, "example *element"]
    steps: list[Transitions] = field(default_factory=list)
    taken: list[Int[Tensor, " example"]] = field(default_factory=list)


@torch.no_grad()
def trajectory(
    model: Denoiser,
    process: NoiseProcess,
    start: Float[Tensor, "example *element"],
    places: Sequence[int],
    generator: torch.Generator,
    *,
    conditions: Mapping[str, Any] | None = None,
    candidates: int = 1,
    pick: Pick | None = None,
    eta: float = 1.0,
) -> Trajectory:
    """Sample through descending places of the schedule, on to the data.

    Several ``candidates`` are drawn of every state's next one; ``pick`` chooses among them, a random one if
    None. The step to the data has no noise, so its candidates are all the same.

    Raises:
        PreferoError: the places do not descend, or the process is a flow.
    """
    if any(later >= earlier for earlier, later in itertools.pairwise(places)):
        raise PreferoError(f"the places of a trajectory descend; got {list(places)}")
    found = Trajectory(start)
    state, given, examples = start, conditions or {}, len(start)
    every = torch.arange(examples, device=start.device)
    for place, after in zip(places, [*places[1:], -1], strict=True):
        index, to = (torch.full_like(every, at) for at in (place, after))
        mean, deviation = outcome(model, process, state, index, to, given, eta)
        shape = (examples, candidates, *start.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=start.dtype, device=generator.device)
        spread = deviation.view(-1, *[1] * (len(shape) - 1)) * noise.to(start.device)
        reached = mean[:, None] + spread
        if pick is None:
            chosen = torch.randint(candidates, (examples,), generator=generator, device=generator.device)
        else:
            chosen = pick(reached, after)
        found.steps.append(Transitions(state[:, None], reached, index, to, given))
        found.taken.append(chosen.to(every.device))
        state = reached[every, found.taken[-1]]
    return Trajectory(state, found.steps, found.taken)


def paired(first: Trajectory, second: Trajectory) -> list[Transitions]:
    """The steps of two trajectories of one candidate as those of the two sides of pairs.

    Raises:
        PreferoError: they went through different places.
    """
    sides = list(zip(first.steps, second.steps, strict=False))
    same = len(first.steps) == len(second.steps) and all(torch.equal(a.index, b.index) for a, b in sides)
    if not same:
        raise PreferoError("two trajectories are paired step by step, so both go through the same places")
    return [
        Transitions(
            torch.cat([one.states, other.states], 1),
            torch.cat([one.reached, other.reached], 1),
            one.index,
            one.to,
            one.conditions,
        )
        for one, other in sides
    ]


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
    :func:`~prefero.models.diffusion.sampling.with_guidance` of it. Gradients follow the caller's grad mode.

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


def with_guidance(model: Denoiser, unconditional: Mapping[str, Any], scale: float) -> Denoiser:
    """The denoiser that says u + s (c − u), for what the model says with the conditions, c, and with
    ``unconditional`` ones in their place, u: each a tensor with one row, or as many as are asked for.

    ``scale`` 1 is the model itself, 0 the model without conditions. Ho and Salimans, 2022, arXiv 2207.12598.
    """

    def guided(given: Tensor, timestep: Tensor, **conditions: Any) -> Tensor:
        first = torch.zeros(len(given), dtype=torch.int64, device=given.device)
        nothing = {
            name: rows_of(value, first) if is_one_row(value) else value
            for name, value in unconditional.items()
        }
        without = denoise(model, given, timestep, {**conditions, **nothing})
        return without + scale * (denoise(model, given, timestep, conditions) - without)

    return guided


def is_one_row(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, Tensor) and len(value) == 1)
