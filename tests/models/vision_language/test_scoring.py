"""Images shared in a forest change no number, and are seen once."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from prefero.data.packing import pack
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.models.causal.images import own_inputs
from prefero.models.causal.scoring import Language
from prefero.models.loading import adapters_off
from prefero.objectives.batch import Signal
from tests.models.brute_force import gradients, padded_stack, relative_error, weights_like
from tests.models.vision_language.families import FAMILIES, Seen


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
        packing = Language.adapt(model, images=forest.images)
    assert packing == ("dense" if family == "gemma3" else "trees")
    scored = Language.score(model, forest)[""]
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
    Language.adapt(model, images=forest.images)
    passes = counted(model)
    Language.score(model, forest)
    assert passes == [1]
    Language.score(model, pack(batch_of(seen), images=seen.arrays))
    assert passes == [1, 2], "an image in two examples and a view is seen once, all distinct ones in one call"


@pytest.mark.parametrize("family", ["llava", "qwen2-vl", "qwen3-vl", "idefics3", "gemma3"])
def test_padded_rows_show_images_too(family: str) -> None:
    model, seen = FAMILIES[family](), Seen(family)
    untouched, batch = copy.deepcopy(model), batch_of(seen)
    forest = pack(batch, images=seen.arrays)
    assert Language.adapt(model, packing="padded", images=forest.images) == "padded"
    passes = counted(model)
    scored = Language.score(model, forest)[""].logps
    assert (scored - alone(untouched, seen, [example.cells for example in batch])).abs().max() < 5e-6
    assert len(passes) == (1 if family != "qwen2-vl" and family != "qwen3-vl" else 2), (
        "one call for each shape"
    )


def test_causal_masks_are_refused_where_images_are_seen_whole() -> None:
    """Gemma 3's tokens of an image see each other both ways: branches and causal masks give other numbers."""
    model, seen = FAMILIES["gemma3"](), Seen("gemma3")
    images = pack(batch_of(seen), images=seen.arrays).images
    with pytest.raises(PreferoError, match="log-probabilities differ"):
        Language.adapt(model, packing="trees", images=images)


def test_a_model_that_was_checked_on_text_alone_is_checked_again_with_images() -> None:
    model, seen = FAMILIES["gemma3"](), Seen("gemma3")
    assert Language.adapt(model) == "trees"
    batch = batch_of(seen)
    scored = Language.score(model, pack(batch, images=seen.arrays))[""].logps
    assert Language.adapt(model) == "dense"
    expected = alone(FAMILIES["gemma3"](), seen, [example.cells for example in batch])
    assert (scored - expected).abs().max() < 5e-6


def test_a_corrupted_image_is_another_context() -> None:
    model, seen = FAMILIES["llava"](), Seen("llava")
    context = seen.context(0)
    corrupted = context.copy()
    corrupted[context < 0] = seen.tokens[1]
    example = seen.example(context, 6, 4)
    view = tuple(Cell(corrupted, cell.response) for cell in example.cells)
    forest = pack([replace(example, views={"corrupted": view})], images=seen.arrays)
    shared = len(context) - (context < 0).sum() - 4
    assert len(forest) == 2 * (len(context) + 10) - shared
    scored = Language.score(model, forest)
    for name, cells in {"": example.cells, "corrupted": view}.items():
        expected = alone(FAMILIES["llava"](), seen, [cells])
        assert (scored[name].logps - expected).abs().max() < 5e-6


@pytest.mark.parametrize("family", ["llava", "idefics3", "qwen2-vl"])
def test_signals_and_states_are_those_of_the_text(family: str) -> None:
    """States are of the decoder, whose layers stand behind a vision tower with layers of its own."""
    model, other, seen = FAMILIES[family](), FAMILIES[family](seed=4), Seen(family)
    batch = batch_of(seen)[:2]
    forest = pack(batch, images=seen.arrays)
    state = Signal("token_state", "example response token")
    parts = Signal("mean_activations", options=(("part", "residual"),))
    entropy, kl = Signal("entropy"), Signal("forward_kl", against="reference")
    wanted = frozenset({state, parts, entropy, kl})
    found = Language.score(model, forest, wanted, others={"reference": other})[""].signals
    for place, example in enumerate(batch):
        for response, cell in enumerate(example.cells):
            ids = torch.from_numpy(np.concatenate((cell.context, cell.response)))[None]
            images = pack([TokenExample((cell,), {}, 0)], images=seen.arrays).images
            start, length = len(cell.context) - 1, len(cell.response)
            own, second = (
                type(m).forward(m, **own_inputs(m, images, ids), use_cache=False, output_hidden_states=True)
                for m in (model, other)
            )
            logp, q = (o.logits[0, start : start + length].log_softmax(-1) for o in (own, second))
            last = own.hidden_states[-1][0, start : start + length]
            layers = torch.stack(own.hidden_states[1:-1], -1)[0, start : start + length].mean(1)
            for signal, expected in (
                (entropy, -(logp.exp() * logp).sum(-1)),
                (kl, (q.exp() * (q - logp)).sum(-1)),
                (state, last),
            ):
                assert (found[signal][place, response, :length] - expected).abs().max() < 1e-5
            assert (found[parts][place, response, :length, :-1] - layers).abs().max() < 1e-5


def test_low_rank_adapters_and_their_absence() -> None:
    model, seen = FAMILIES["llava"](), Seen("llava")
    start = copy.deepcopy(model)
    wrapped = get_peft_model(
        model, LoraConfig(target_modules=["q_proj", "linear_1"], init_lora_weights=False)
    )
    forest = pack(batch_of(seen), images=seen.arrays)
    scored = Language.score(wrapped, forest)[""].logps
    with adapters_off(wrapped):
        assert (
            Language.score(wrapped, forest)[""].logps - Language.score(start, forest)[""].logps
        ).abs().max() < 1e-6
    assert (scored - Language.score(start, forest)[""].logps).abs().max() > 1e-2
    scored.sum().backward()
    moved = [name for name, weight in wrapped.named_parameters() if weight.grad is not None]
    assert any("vision_tower" in name for name in moved) and any("linear_1" in name for name in moved)


def test_layers_that_are_recomputed_see_the_same_images() -> None:
    model, seen = FAMILIES["llava"](), Seen("llava")
    forest = pack(batch_of(seen), images=seen.arrays)
    slope = gradients(model, Language.score(model, forest)[""].logps.sum())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    assert relative_error(gradients(model, Language.score(model, forest)[""].logps.sum()), slope) < 1e-5


def test_a_row_without_its_images_says_so() -> None:
    seen = Seen("llava")
    with pytest.raises(PreferoError, match="1 of the 1 images of a micro-batch were not given"):
        pack([seen.example(seen.context(0), 3)])
