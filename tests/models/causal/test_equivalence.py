"""Sharing changes no number: every family's forest scores equal its responses scored one by one."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from prefero.data.packing import pack
from prefero.data.trie import Cell, TokenExample
from prefero.models.causal.scoring import Language
from tests.models.brute_force import PAIRS, examples, gradients, relative_error, token_logps, weights_like
from tests.models.causal.families import FALLBACKS, FAMILIES, build

EAGER = {"llama-eager", "gemma2"}


def check(model, batch, *, packing, **options) -> None:
    alone = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Language.adapt(model) == packing
    scored = Language.score(model, pack(batch, **options))[""]
    expected = token_logps(alone, batch)
    assert (scored.logps - expected).abs().max() < 5e-6
    weights = weights_like(expected)
    slope = gradients(model, (scored.logps * weights).sum())
    assert relative_error(slope, gradients(alone, (expected * weights).sum())) < 2e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_forest_equals_separate_rows(family: str) -> None:
    check(FAMILIES[family](), examples(*PAIRS), packing="dense" if family in EAGER else "trees")


@pytest.mark.parametrize("family", FALLBACKS)
def test_padded_rows_equal_separate_rows(family: str) -> None:
    check(FALLBACKS[family](), examples(*PAIRS), packing="padded")


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "qwen3-moe"])
@pytest.mark.parametrize("packing", ["dense", "padded"])
def test_every_layout_gives_the_same(family: str, packing: str) -> None:
    model, batch = FAMILIES[family](), examples(*PAIRS)
    forest = pack(batch)
    Language.adapt(model)
    trees = Language.score(model, forest)[""].logps
    weights = weights_like(trees)
    slope = gradients(model, (trees * weights).sum())
    assert Language.adapt(model, packing=packing) == packing
    other = Language.score(model, forest)[""].logps
    assert (trees - other).abs().max() < 5e-6
    assert relative_error(gradients(model, (other * weights).sum()), slope) < 2e-6


def test_gemma2_on_sdpa_is_scored_right_or_not_at_all() -> None:
    """SDPA has no soft-cap: whatever transformers makes of it, the forest must agree with the own forward."""
    model = build("gemma2", head_dim=8, sliding_window=6, attention="eager")
    check(model, examples(*PAIRS), packing="dense")


def test_shared_response_prefixes_and_lists() -> None:
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(3, 67, (8,), generator=generator)
    trunk = torch.randint(3, 67, (5,), generator=generator)
    tails = [torch.randint(3, 67, (n,), generator=generator) for n in (1, 4, 7, 3)]
    cells = tuple(Cell(prompt.numpy(), torch.cat((trunk, tail)).numpy()) for tail in tails)
    batch = [TokenExample((*cells, cells[0]), {}, 0), *examples((6, (3, 8, 2, 5, 1)))]
    assert len(pack(batch)) < len(pack(batch, share_response_prefixes=False))
    for share in (True, False):
        check(build("mistral", sliding_window=6), batch, packing="trees", share_response_prefixes=share)


def test_different_prompts_for_the_two_sides() -> None:
    first, second = examples((6, (4,)), (9, (7,)))
    batch = [TokenExample((first.cells[0], second.cells[0]), {}, 0)]
    forest = pack(batch)
    assert len(forest.trees) == 2
    check(build("llama"), batch, packing="trees")


def test_views_are_scored_in_the_same_pass() -> None:
    first, second = examples((8, (5, 3)), (6, (4, 9)))
    swapped = [
        tuple(Cell(one.cells[0].context, cell.response) for cell in other.cells)
        for one, other in ((first, second), (second, first))
    ]
    batch = [
        TokenExample(example.cells, {}, example.index, views={"mismatched": cells})
        for example, cells in zip((first, second), swapped, strict=True)
    ]
    model = build("llama")
    alone = copy.deepcopy(model)
    Language.adapt(model)
    scored = Language.score(model, pack(batch))
    assert set(scored) == {"", "mismatched"}
    assert (scored[""].logps - token_logps(alone, batch)).abs().max() < 5e-6
    mismatched = [TokenExample(cells, {}, n) for n, cells in enumerate(swapped)]
    assert (scored["mismatched"].logps - token_logps(alone, mismatched)).abs().max() < 5e-6


def test_holes_are_masked_and_cost_no_head_row() -> None:
    (example,) = examples((5, (6, 4)))
    keep = torch.tensor([True, False, False, True, True, False]).numpy()
    cells = (Cell(example.cells[0].context, example.cells[0].response, keep), example.cells[1])
    batch = [TokenExample(cells, {}, 0)]
    forest = pack(batch)
    assert len(forest.scored) == 3 + 4
    model = build("llama")
    expected = token_logps(model, batch)
    Language.adapt(model)
    scored = Language.score(model, forest)[""]
    assert scored.mask[0, 0].tolist() == keep.tolist()
    assert scored.mask[0, 1].tolist() == [True] * 4 + [False] * 2
    assert (scored.logps - expected * scored.mask).abs().max() < 5e-6


@pytest.mark.parametrize("packing", ["trees", "dense"])
def test_padding_nodes_change_nothing(packing: str) -> None:
    model, forest = build("gemma3_text", head_dim=8, sliding_window=6), pack(examples(*PAIRS))
    Language.adapt(model, packing=packing)
    padded = forest.padded_to(64)
    assert len(padded) == 64
    assert (
        Language.score(model, forest)[""].logps - Language.score(model, padded)[""].logps
    ).abs().max() < 2e-6


def test_grouped_keys_and_single_chains() -> None:
    """A tree without branches takes the kernel's causal path, with fewer key heads than query heads."""
    batch = examples((5, (9,)), (1, (4,)), (3, (1,)))
    check(build("llama", num_key_value_heads=1), batch, packing="trees")
    check(build("mistral", sliding_window=4, num_key_value_heads=1), batch, packing="trees")


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("packing", ["trees", "dense", "padded"])
def test_gradient_checkpointing(packing: str, reentrant: bool) -> None:
    model, batch = FAMILIES["gemma3"](), examples(*PAIRS)
    alone = copy.deepcopy(model)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.train()
    Language.adapt(model, packing=packing)
    expected = token_logps(alone, batch)
    weights = weights_like(expected)
    slope = gradients(model, (Language.score(model, pack(batch))[""].logps * weights).sum())
    assert relative_error(slope, gradients(alone, (expected * weights).sum())) < 2e-6


def test_double_precision_agrees_to_rounding() -> None:
    model, batch = FAMILIES["gpt2"]().double(), examples(*PAIRS)
    alone = copy.deepcopy(model)
    Language.adapt(model)
    scored = Language.score(model, pack(batch))[""].logps
    assert scored.dtype == torch.float64
    assert (scored - token_logps(alone, batch)).abs().max() < 1e-13


@pytest.mark.slow
def test_flex_attention_forward() -> None:
    """Compiled once, for one length; its CPU build has no backward."""
    model, forest = (
        build("gemma3_text", head_dim=16, hidden_size=64, sliding_window=6),
        pack(examples(*PAIRS)),
    )
    Language.adapt(model)
    with torch.no_grad():
        trees = Language.score(model, forest)[""].logps
        assert Language.adapt(model, packing="flex") == "flex"
        assert (Language.score(model, forest)[""].logps - trees).abs().max() < 5e-6
