"""Steps of samplers and inversions, against diffusers' own schedulers on a tiny U-Net."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from prefero.errors import PreferoError
from prefero.models.diffusion.inversion import implied_noise, invert, inverted
from prefero.models.diffusion.process import NoiseProcess
from prefero.models.diffusion.sampling import (
    Transitions,
    guided,
    moved,
    predicted_data,
    score_transitions,
    step_deviation,
    transition_logps,
)
from prefero.models.diffusion.scoring import DiffusionAdapter, Images
from prefero.objectives import PreferenceBatch, method
from tests.models.diffusion.test_scoring import CLASSES, candidates, made, randn, scheduler

DIFFUSIONS = ("epsilon", "v_prediction", "sample")


def sampler(prediction: str) -> DDIMScheduler:
    own = DDIMScheduler.from_config(scheduler(prediction).config, set_alpha_to_one=True)
    own.set_timesteps(10)
    return own


@pytest.mark.parametrize("prediction", DIFFUSIONS)
def test_means_and_deviations_are_those_of_the_library_sampler(prediction: str) -> None:
    """A step without the scheduler's noise, and one with a known one."""
    own, process = sampler(prediction), NoiseProcess.of(scheduler(prediction))
    model, states, noise = made("unet"), randn(3, 2, 8, 8), randn(3, 2, 8, 8, seed=1)
    for place in (2, 9):
        time = own.timesteps[place]
        said = model(states, timestep=time, **CLASSES).sample
        expected = own.step(said, time, states, eta=0.7, variance_noise=noise).prev_sample
        index = time.repeat(3)
        to = index - 100
        level = process.alpha_bar(index)
        target = torch.where(to < 0, 1, process.alpha_bar(to.clamp(min=0)))
        deviation = step_deviation(level, target, 0.7)
        mean = moved(states, process.noise_of(said, states, index), level, target, deviation)
        torch.testing.assert_close(mean + deviation.view(-1, 1, 1, 1) * noise, expected, rtol=1e-6, atol=1e-6)
        steps = Transitions(states[:, None], expected[:, None], index, to, CLASSES)
        scored = score_transitions(model, process, steps, eta=0.7)
        if place == 9:
            assert not scored.mask.any() and (scored.logps == 0).all(), "the last step has no noise"
        else:
            normal = torch.distributions.Normal(mean, deviation.view(-1, 1, 1, 1))
            torch.testing.assert_close(
                scored.logps[:, 0, 0], normal.log_prob(expected).flatten(1).mean(1), rtol=1e-5, atol=1e-6
            )


def test_the_density_at_the_mean() -> None:
    sigma = torch.tensor([0.3, 1.0], dtype=torch.float64)
    mean = randn(2, 3)
    expected = -sigma.log() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(transition_logps(mean, mean, sigma), expected)


def pair_of_steps() -> Transitions:
    states, reached = randn(3, 1, 2, 8, 8), randn(3, 2, 2, 8, 8, seed=2)
    return Transitions(states, reached, torch.tensor([600, 300, 900]), torch.tensor([500, 200, 800]), CLASSES)


def test_candidates_of_one_state_cost_one_call_and_count_like_states_of_their_own() -> None:
    process, model = NoiseProcess.of(scheduler("epsilon")), made("unet")
    steps = pair_of_steps()
    calls = []

    def counted(given: Tensor, **options):
        calls.append(len(given))
        return model(given, **options)

    shared = score_transitions(counted, process, steps)
    apart = Transitions(steps.states.expand(-1, 2, 2, 8, 8), steps.reached, steps.index, steps.to, CLASSES)
    assert calls == [3]
    torch.testing.assert_close(shared.logps, score_transitions(model, process, apart).logps)


def test_from_one_state_the_mean_moves_from_the_worse_to_the_better_step() -> None:
    """With states of their own the two terms would act on different inputs."""
    process = NoiseProcess.of(scheduler("epsilon"))
    steps = pair_of_steps()
    said = torch.zeros(3, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    policy = score_transitions(lambda given, timestep, class_labels: said, process, steps)
    reference = score_transitions(lambda given, **options: 0 * given, process, steps)
    loss = method("tailorpo").loss(PreferenceBatch({"policy": policy, "reference": reference}))
    (slope,) = torch.autograd.grad(loss, said)
    # ∂μ/∂ε is a negative number at every step, so ε moves against the difference
    towards = (steps.reached[:, 0] - steps.reached[:, 1]).flatten(1)
    cosine = torch.nn.functional.cosine_similarity(slope.flatten(1), towards, dim=1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_a_flow_has_no_probabilities_of_steps() -> None:
    process = NoiseProcess.of(scheduler("flow"))
    steps = pair_of_steps()
    with pytest.raises(PreferoError, match="a flow's steps are not random"):
        score_transitions(made("unet"), process, steps)


def test_guidance_raises_a_reward_below_its_target_and_lowers_one_above() -> None:
    state, level = randn(4, 2, 3), torch.full((4,), 0.6, dtype=torch.float64)

    def reward(rows: Tensor) -> Tensor:
        return predicted_data(rows, 0.2 * rows, level).flatten(1).mean(1)

    before = reward(state)
    assert (reward(guided(state, reward, 10.0, 1e-3)) > before).all()
    assert (reward(guided(state, reward, -10.0, 1e-3)) < before).all()
    assert not guided(state, reward, 10.0, 1e-3).requires_grad


@pytest.mark.parametrize("prediction", (*DIFFUSIONS, "flow"))
def test_the_noise_of_a_right_prediction_is_the_noise(prediction: str) -> None:
    process = NoiseProcess.of(scheduler(prediction))
    data, noise, index = randn(3, 2, 4, 4), randn(3, 2, 4, 4, seed=1), torch.tensor([20, 500, 900])
    states, targets = process.noised(data, noise, index)
    torch.testing.assert_close(process.noise_of(targets, states, index), noise)


def bars(*levels: float) -> Tensor:
    return torch.tensor(levels, dtype=torch.float64)[:, None].expand(-1, 2)


@pytest.mark.parametrize("refine", (False, True))
def test_inversion_is_exact_for_noise_that_is_the_same_everywhere(refine: bool) -> None:
    data, noise = randn(2, 3), randn(2, 3, seed=1)
    state = invert(data, bars(0.99, 0.5, 0.1), lambda rows, step: noise, refine=refine)
    torch.testing.assert_close(implied_noise(state, data, bars(0.1)[0]), noise)


def test_sampling_back_returns_the_image_the_better_the_more_steps_and_with_renoise() -> None:
    process, data = NoiseProcess.of(scheduler("epsilon")), randn(2, 3)

    def off(steps: int, refine: bool) -> float:
        grid = (torch.arange(1, steps + 1) * 600 // steps)[:, None].expand(-1, 2)
        levels = process.alpha_bar(grid)

        def noise(state: Tensor, level: Tensor) -> Tensor:
            return torch.tanh(state) * (1 - level).sqrt()[:, None]

        state = invert(data, levels, lambda rows, step: noise(rows, levels[step]), refine=refine)
        for step in reversed(range(steps)):
            below = levels[step - 1] if step else torch.ones(2, dtype=torch.float64)
            state = moved(state, noise(state, levels[step]), levels[step], below)
        return (state - data).abs().max().item()

    assert off(40, False) < off(10, False) / 2
    assert off(10, True) < off(10, False) * 2 / 3


@pytest.mark.parametrize("prediction", DIFFUSIONS)
def test_inverted_states_end_exactly_at_their_time_step_with_targets_of_their_own(prediction: str) -> None:
    """The released codes stop at the last point of a grid below it."""
    adapter, model, images = DiffusionAdapter.of(scheduler(prediction)), made("unet"), candidates("unet")
    index = torch.tensor([[7], [450], [999]])
    states = inverted(adapter, model, images, index, steps=4)
    again = inverted(adapter, model, images, index, steps=4)
    assert torch.equal(states.states, again.states) and not states.states.requires_grad
    process = adapter.process
    # by hand, for the second image of the second example
    data = images.values[1, 1][None]
    state, level = data, torch.ones(1, dtype=torch.float64)
    with torch.no_grad():
        for place in (112, 225, 337, 450):
            at = torch.tensor([place])
            said = model(state, timestep=at, class_labels=torch.tensor([0])).sample
            state = moved(state, process.noise_of(said, state, at), level, process.alpha_bar(at))
            level = process.alpha_bar(at)
    torch.testing.assert_close(states.states[1, 1, 0], state[0])
    noise = implied_noise(state, data, level)
    torch.testing.assert_close(states.targets[1, 1, 0], process.noised(data, noise, at)[1][0])
    assert (states.targets[:, 0] != states.targets[:, 1]).any()
    scored = adapter.score(model, states)
    loss = method("inpo_diffusion").loss(PreferenceBatch({"policy": scored, "reference": scored}))
    assert loss.item() == pytest.approx(math.log(2))


def test_absent_images_are_not_inverted() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True], [True, False, False]])
    images = candidates("unet", 3, mask)
    images.values[~mask] = torch.nan
    adapter, model = DiffusionAdapter.of(scheduler("epsilon")), made("unet")
    states = inverted(adapter, model, images, torch.tensor([[100], [200], [300]]), steps=2, refine=True)
    assert adapter.score(model, states).logps.isfinite().all()


def test_a_flow_is_not_inverted() -> None:
    adapter = DiffusionAdapter.of(scheduler("flow"))
    images = Images(randn(1, 2, 2, 8, 8))
    with pytest.raises(PreferoError, match="inversion is for diffusions"):
        inverted(adapter, made("unet"), images, torch.tensor([[3]]))
