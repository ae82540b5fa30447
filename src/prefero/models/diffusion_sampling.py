"""Trajectories of a stochastic sampler, kept step by step for objectives on denoising steps.

D3PO takes pairs of trajectories from one start, Step-aware Preference Optimization several candidates of
every state and goes on with a random one, TailorPO with the best.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prefero.errors import PreferoError
from prefero.models.diffusion import Denoiser
from prefero.models.diffusion_process import NoiseProcess
from prefero.models.diffusion_steps import Transitions, outcome

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
