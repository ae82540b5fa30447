"""Images shared in a forest change no number, and are seen once."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch

from prefero.data.cells import TokenExample
from prefero.data.packing import pack
from prefero.models.language import adapt, score
from prefero.models.vision_language import own_inputs
from tests.models.brute_force import gradients, padded_stack, relative_error, weights_like
from tests.models.vision_families import FAMILIES, Seen


def alone(model, seen: Seen, cells) -> torch.Tensor:
    """Log-probabilities [example, response, token] by the model's own forward, a response and its images at
    a time."""
    rows = []
    for responses in cells:
        found = []
        for cell in responses:
            ids = np.concatenate((cell.context, cell.response))
            images = pack([TokenExample((cell,), {}, 0)], images=seen.arrays).images
            ids = torch.from_numpy(ids)[None]
            inputs = {"input_ids": ids} if images is None else own_inputs(model, images, ids)
            logits = type(model).forward(model, **inputs, use_cache=False).logits[0]
            start = len(cell.context) - 1
            logps = logits[start : start + len(cell.response)].log_softmax(-1)
            found.append(logps.gather(1, torch.from_numpy(cell.response)[:, None])[:, 0])
        rows.append(found)
    return padded_stack(rows)


def batch_of(seen: Seen) -> list[TokenExample]:
    """Pairs with one image, with two, with none; a response of one token; an image in two examples."""
    one, two = seen.context(0), seen.context(1, 0, text=3)
    return [seen.example(one, 12, 5), seen.example(two, 1, 9), seen.example(seen.context(text=6), 4, 4)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forest_with_images_equals_separate_rows(family: str) -> None:
    model, seen = FAMILIES[family](), Seen(family)
    untouched, batch = copy.deepcopy(model), batch_of(Seen(family))
    forest = pack(batch, images=seen.arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layout = adapt(model, images=forest.images)
    assert layout == ("dense" if family == "gemma3" else "trees")
    scored = score(model, forest)[""]
    expected = alone(untouched, seen, [example.cells for example in batch])
    assert (scored.logps - expected).abs().max() < 5e-6
    weights = weights_like(expected)
    slope = gradients(model, (scored.logps * weights).sum())
    assert relative_error(slope, gradients(untouched, (expected * weights).sum())) < 5e-6


def counted(model) -> list[int]:
    """Grows by the number of images at every pass of the vision tower."""
    seen: list[int] = []
    tower = next(
        m
        for name, m in model.named_modules()
        if name.rpartition(".")[2] in ("vision_tower", "vision_model", "visual")
    )
    tower.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(len(args[0] if args else kwargs["pixel_values"])),
        with_kwargs=True,
    )
    return seen


def test_a_pair_costs_one_pass_of_the_tower_over_one_image() -> None:
    model, seen = FAMILIES["llava"](), Seen("llava")
    forest = pack([seen.example(seen.context(0), 7, 9)], images=seen.arrays)
    adapt(model, images=forest.images)
    passes = counted(model)
    score(model, forest)
    assert passes == [1]
    score(model, pack(batch_of(seen), images=seen.arrays))
    assert passes == [1, 2], "an image in two examples and a view is seen once, all distinct ones in one call"
