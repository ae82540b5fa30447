"""Sequences drawn from discrete diffusion models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from prefero.models.discrete_diffusion.noise import Masking
from prefero.models.discrete_diffusion.scoring import DiscreteDiffusionAdapter, logits
from prefero.models.head import wide


@torch.no_grad()
def sample(
    model: Callable[..., Any],
    adapter: DiscreteDiffusionAdapter,
    given: Int[Tensor, "row position"],
    generator: torch.Generator,
    *,
    steps: int,
    generated: Bool[Tensor, "row position"] | None = None,
    there: Bool[Tensor, "row position"] | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> Int[Tensor, "row position"]:
    """Sequences from a model: from noise to data in ``steps`` equal steps of time.

    In each, positions jump independently with the probability that the schedule gives: exact in the limit of
    many steps (tau-leaping). ``given`` shows the shape, and the tokens where ``generated`` is False;
    positions that are not ``there`` are padding; None is all. The generator is one of the device of
    ``given``.
    """
    noise, schedule = adapter.noise, adapter.schedule
    present = torch.ones_like(given, dtype=torch.bool) if there is None else there
    drawn = present if generated is None else present & generated
    states = torch.where(drawn, noise.like(given, generator), given)
    for step in range(steps):
        now, then = (torch.tensor(at / steps, device=given.device) for at in (step, step + 1))
        told = {**(conditions or {}), **({"time": now.expand(len(given))} if adapter.timed else {})}
        probabilities = noise.logps(wide(logits(model, states, present, told))).exp()
        tokens = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator).view_as(states)
        share = (schedule.kept(then) - schedule.kept(now)) / (1 - schedule.kept(now))
        if step + 1 == steps:
            share = torch.ones_like(share)
        jumps = torch.rand(states.shape, generator=generator, device=given.device) < share
        states = torch.where(jumps & drawn & noise.moves(states), tokens, states)
    return states


@torch.no_grad()
def unmask(
    model: Callable[..., Any],
    noise: Masking,
    given: Int[Tensor, "row position"],
    generator: torch.Generator,
    *,
    generated: Bool[Tensor, "row position"] | None = None,
    there: Bool[Tensor, "row position"] | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> Int[Tensor, "row position"]:
    """Sequences from a model under masking noise, exactly: one position after another, in random order, which
    is the limit of :func:`sample` for infinitely many steps if the model is not told the time."""
    present = torch.ones_like(given, dtype=torch.bool) if there is None else there
    drawn = present if generated is None else present & generated
    states = torch.where(drawn, noise.like(given, generator), given)
    turn = torch.where(drawn, torch.rand(given.shape, generator=generator, device=given.device), 2)
    order = turn.argsort(-1)
    for step in range(int(drawn.sum(-1).max())):
        place = order[:, step, None]
        every = logits(model, states, present, conditions or {})
        at_place = wide(every.gather(1, place[..., None].expand(-1, -1, every.shape[-1]))[:, 0])
        token = torch.multinomial(noise.logps(at_place).exp(), 1, generator=generator)
        states = states.scatter(1, place, torch.where(drawn.gather(1, place), token, states.gather(1, place)))
    return states
