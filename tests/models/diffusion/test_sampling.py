"""Trajectories that are kept for objectives on their steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prefero.errors import PreferoError
from prefero.models.diffusion.process import NoiseProcess
from prefero.models.diffusion.sampling import paired, score_transitions, trajectory
from prefero.objectives import PreferenceBatch, method
from tests.models.diffusion.test_scoring import CLASSES, made, numbers, randn, scheduler
from tests.models.diffusion.test_states import sampler

PLACES = tuple(range(900, -1, -100))


def sampled(seed: int = 0, **options):
    process = NoiseProcess.of(scheduler("epsilon"))
    options = {"conditions": CLASSES, **options}
    return trajectory(made("unet"), process, randn(3, 2, 8, 8), PLACES, numbers(seed), **options)


def test_a_trajectory_is_that_of_the_library_sampler_with_the_same_noise() -> None:
    own, model, state, noise = sampler("epsilon"), made("unet"), randn(3, 2, 8, 8), numbers()
    found = sampled()
    with torch.no_grad():
        for time, step in zip(own.timesteps, found.steps, strict=True):
            torch.testing.assert_close(step.states[:, 0], state, rtol=1e-6, atol=1e-6)
            drawn = torch.randn(3, 1, 2, 8, 8, generator=noise, dtype=torch.float64)[:, 0]
            torch.randint(1, (3,), generator=noise)
            said = model(state, timestep=time, **CLASSES).sample
            state = own.step(said, time, state, eta=1.0, variance_noise=drawn).prev_sample
    torch.testing.assert_close(found.data, state, rtol=1e-6, atol=1e-6)


def test_the_state_of_a_step_is_the_candidate_that_was_taken_of_the_step_before() -> None:
    found = sampled(candidates=3)
    for before, after, taken in zip(found.steps, found.steps[1:], found.taken, strict=False):
        assert torch.equal(after.states[:, 0], before.reached[torch.arange(3), taken])
        assert torch.equal(after.index, before.to)
    assert {place.item() for taken in found.taken for place in taken} == {0, 1, 2}


def test_a_pick_sees_the_candidates_at_their_own_place() -> None:
    """Not at the place of the state that they came from."""
    seen = []

    def brightest(candidates: Tensor, place: int) -> Tensor:
        seen.append(place)
        return candidates.flatten(2).mean(2).argmax(1)

    found = sampled(candidates=4, pick=brightest)
    assert seen == [*PLACES[1:], -1]
    for step, taken in zip(found.steps[:-1], found.taken, strict=False):
        bright = step.reached.flatten(2).mean(2)
        assert torch.equal(bright.gather(1, taken[:, None])[:, 0], bright.max(1).values)


def test_two_trajectories_from_one_start_train_step_by_step() -> None:
    pairs = paired(sampled(0), sampled(1))
    assert len(pairs) == len(PLACES)
    assert torch.equal(pairs[0].states[:, 0], pairs[0].states[:, 1])
    process, policy, reference = (
        NoiseProcess.of(scheduler("epsilon")),
        made("unet"),
        made("unet", seed=1),
    )
    for step in pairs[:-1]:
        models = {"policy": score_transitions(policy, process, step)}
        with torch.no_grad():
            models["reference"] = score_transitions(reference, process, step)
        columns = {"tie": torch.zeros(3, dtype=torch.bool)}
        assert method("d3po").loss(PreferenceBatch(models, columns)).isfinite()
        assert models["policy"].mask.all()
    last = score_transitions(policy, process, pairs[-1])
    assert not last.mask.any()


def test_places_that_do_not_descend_or_differ_are_refused() -> None:
    process = NoiseProcess.of(scheduler("epsilon"))
    with pytest.raises(PreferoError, match="places of a trajectory descend"):
        trajectory(made("unet"), process, randn(3, 2, 8, 8), [5, 5], numbers(), conditions=CLASSES)
    short = trajectory(made("unet"), process, randn(3, 2, 8, 8), [5], numbers(), conditions=CLASSES)
    with pytest.raises(PreferoError, match="through the same places"):
        paired(sampled(), short)
