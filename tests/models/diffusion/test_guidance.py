from __future__ import annotations

import torch

from prefero.models.diffusion.process import NoiseProcess
from prefero.models.diffusion.sampling import score_transitions, with_guidance
from prefero.models.diffusion.scoring import DiffusionAdapter
from tests.models.diffusion.test_scoring import CLASSES, candidates, made, numbers, randn, scheduler
from tests.models.diffusion.test_states import pair_of_steps

NOTHING = {"class_labels": torch.tensor([2])}


def said(scale: float) -> torch.Tensor:
    states, times = randn(3, 2, 8, 8), torch.tensor([5, 500, 900])
    return with_guidance(made("unet"), NOTHING, scale)(states, times, **CLASSES)


def test_guidance_goes_from_without_conditions_through_the_model_and_beyond() -> None:
    states, times = randn(3, 2, 8, 8), torch.tensor([5, 500, 900])
    plain = [
        made("unet")(states, times, class_labels=labels).sample
        for labels in (torch.full((3,), 2), CLASSES["class_labels"])
    ]
    torch.testing.assert_close(said(0.0), plain[0])
    torch.testing.assert_close(said(1.0), plain[1])
    torch.testing.assert_close(said(3.0) - plain[0], 3 * (plain[1] - plain[0]))


def test_errors_and_steps_are_scored_with_it() -> None:
    model = made("unet")
    adapter, images = DiffusionAdapter.of(scheduler("epsilon")), candidates("unet")
    states = adapter.draw(images, numbers())
    same, other = (with_guidance(model, NOTHING, scale) for scale in (1.0, 4.0))
    torch.testing.assert_close(adapter.score(same, states).logps, adapter.score(model, states).logps)
    process, steps = NoiseProcess.of(scheduler("epsilon")), pair_of_steps()
    plain, guided = (score_transitions(one, process, steps).logps for one in (model, other))
    assert (plain != guided).all()
    guided.sum().backward()
    assert any(weight.grad is not None for weight in model.parameters())
