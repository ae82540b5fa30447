"""Binary strings: their structure, a start model that learns it, and what alignment does to both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertForMaskedLM

from prefero.objectives import method
from prefero.worlds import binary_strings
from prefero.worlds.binary_strings import (
    Alignment,
    StringsRecipe,
    align,
    corpus,
    draw_strings,
    measure,
    odd,
    outcome,
    preference_pairs,
    start_model,
    valid,
)

SMALL = StringsRecipe(bits=4, hidden=16, layers=1, heads=2, steps=150, batch=64, lr=1e-2)


def strings(*texts: str) -> torch.Tensor:
    return torch.tensor([[int(bit) for bit in text] for text in texts])


def test_structure_and_preference_are_read_off_the_bits() -> None:
    some = strings("10011001", "10011000", "01100110", "11111111")
    assert valid(some).tolist() == [True, False, True, True]
    assert odd(some).tolist() == [True, False, False, True]


def test_the_corpus_has_the_structure_and_no_preference() -> None:
    some = corpus(4000, 8, torch.Generator().manual_seed(0))
    assert valid(some).all()
    assert odd(some).double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert len(some.unique(dim=0)) == 16


def test_a_start_model_is_trained_once_per_recipe_and_seed_and_then_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = StringsRecipe(bits=4, hidden=8, layers=1, heads=2, steps=2, batch=4)
    state = torch.get_rng_state()
    first = start_model(tmp_path, recipe)
    assert torch.equal(torch.get_rng_state(), state)
    start_model(tmp_path, recipe, seed=1)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(binary_strings, "_train", lambda *_: pytest.fail("trained a second time"))
    again = start_model(tmp_path, recipe)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_small_policy_learns_the_preference_and_keeps_the_structure(tmp_path: Path) -> None:
    start = start_model(tmp_path, SMALL)
    before = measure(start, 1000)
    assert before == measure(start, 1000)
    assert before.valid > 0.9 and 0.35 < before.odd < 0.65
    pairs = preference_pairs(start, 200, 0)
    assert odd(pairs.tokens[:, 0]).all() and not odd(pairs.tokens[:, 1]).any()
    assert valid(pairs.tokens).all()
    recipe = Alignment(steps=60, batch=64, lr=2e-3)
    unchanged = [weight.detach().clone() for weight in start.parameters()]
    policy = align(start, pairs, method("d2_dpo", beta=0.5), recipe)
    assert all(torch.equal(old, new) for old, new in zip(unchanged, start.parameters(), strict=True))
    after = measure(policy, 1000)
    assert after.odd > 0.9 and after.valid > before.valid - 0.1
    assert draw_strings(policy, 5, torch.Generator().manual_seed(0)).shape == (5, 4)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> BertForMaskedLM:
    return start_model(tmp_path_factory.mktemp("worlds"))


@pytest.mark.slow
@pytest.mark.parametrize(("key", "least"), [("d2_dpo", 0.97), ("slic", 0.97), ("ipo", 0.75)])
def test_objectives_make_the_strings_odd_and_leave_them_valid(
    start: BertForMaskedLM, key: str, least: float
) -> None:
    """Less so one that wants a fixed margin, since margins of single draws grow with 1/(1 − t)."""
    found = outcome(start, method(key))
    assert found.before.valid > 0.97 and abs(found.before.odd - 0.5) < 0.05
    for after in found.after:
        assert after.gold > least, after


@pytest.mark.slow
def test_a_scale_that_saturates_the_link_costs_the_structure(start: BertForMaskedLM) -> None:
    """At β = 5, 1/(1 − t) decides about every pair before the data do."""
    pairs = preference_pairs(start, 1000, 0)
    mild, strong = (measure(align(start, pairs, method("d2_dpo", beta=beta))) for beta in (0.5, 5.0))
    assert strong.valid < mild.valid - 0.02 and strong.gold < mild.gold - 0.03
