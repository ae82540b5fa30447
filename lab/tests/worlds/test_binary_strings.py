"""Binary strings: their structure, a start model that learns it, and what alignment does to both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from prefero.models.discrete_diffusion.timed import TimedForMaskedLM
from prefero_lab.papers.training import trained
from prefero_lab.worlds import binary_strings
from prefero_lab.worlds.binary_strings import (
    OPTIONS,
    Start,
    StringsRecipe,
    corpus,
    draw_strings,
    measure,
    odd,
    preference_pairs,
    start_model,
    valid,
    write,
)

SMALL = StringsRecipe(bits=4, hidden=24, layers=1, heads=2, steps=250, batch=64, lr=1e-2)
LONG = {"learning_rate": 1e-3, "max_steps": 800, "examples_per_step": 32}


def aligned(start: Start, pairs: int, **settings: Any) -> torch.nn.Module:
    rows = preference_pairs(start, pairs, 0)
    budget = {"examples_per_step": 64, "max_grad_norm": 0.0}
    return trained(str(start.folder), rows, {**budget, **settings}, seed=0, kind=start.kind).model


def test_structure_and_preference_are_read_off_the_bits() -> None:
    some = ("10011001", "10011000", "01100110", "11111111", "1001", "", "1001100", "<s>01<s>01")
    assert [valid(one) for one in some] == [True, False, True, True, False, False, False, False]
    assert [odd(one) for one in some] == [True, False, False, True, True, False, False, True]


def test_the_corpus_has_the_structure_and_no_preference() -> None:
    some = corpus(4000, 8, torch.Generator().manual_seed(0))
    assert (some[:, :4] == some[:, 4:]).all()
    assert some[:, -1].double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert len(some.unique(dim=0)) == 16


@pytest.mark.parametrize("noise", OPTIONS)
def test_a_start_model_is_trained_once_per_recipe_and_seed_and_then_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: Any
) -> None:
    recipe = StringsRecipe(noise=noise, bits=4, hidden=8, layers=1, heads=2, steps=2, batch=4)
    state = torch.get_rng_state()
    first = start_model(tmp_path, recipe)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(first.model, TimedForMaskedLM) == (noise == "uniform")
    start_model(tmp_path, recipe, seed=1)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(binary_strings, "_train", lambda *_: pytest.fail("trained a second time"))
    again = start_model(tmp_path, recipe)
    for one, other in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    drawn = draw_strings(first, 20, 3)
    assert drawn == draw_strings(again, 20, 3) != draw_strings(again, 20, 4)
    assert all(len(one) <= 4 and set(one) <= {"0", "1"} for one in drawn)


def test_a_small_policy_learns_the_preference_and_keeps_the_structure(tmp_path: Path) -> None:
    start = start_model(tmp_path, SMALL)
    before = measure(start, count=1000)
    assert before == measure(start, count=1000)
    assert before.valid > 0.9 and 0.35 < before.odd < 0.65
    pairs = preference_pairs(start, 200, 0)
    assert all(odd(pair["chosen"]) and not odd(pair["rejected"]) for pair in pairs)
    assert all(valid(pair[side], 4) for pair in pairs for side in ("chosen", "rejected"))
    unchanged = [weight.detach().clone() for weight in start.model.parameters()]
    policy = aligned(
        start, 200, objective={"method": "d2_dpo", "beta": 0.5}, learning_rate=3e-3, max_steps=60
    )
    assert all(torch.equal(old, new) for old, new in zip(unchanged, start.model.parameters(), strict=True))
    after = measure(start, policy, 1000)
    assert after.odd > 0.9 and after.valid > before.valid - 0.1


def test_what_is_written_is_a_model_with_its_tokenizer_and_pairs(tmp_path: Path) -> None:
    start = start_model(tmp_path / "cache", SMALL)
    write(start, tmp_path / "world", pairs=40, seed=0)
    ids = AutoTokenizer.from_pretrained(tmp_path / "world" / "model")("0110")["input_ids"]
    assert ids == [0, 1, 1, 0]
    AutoModelForMaskedLM.from_pretrained(tmp_path / "world" / "model")
    lines = [
        (tmp_path / "world" / f"{part}.jsonl").read_text().splitlines() for part in ("train", "held_out")
    ]
    assert [len(one) for one in lines] == [40, 4]
    assert json.loads(lines[0][0]).keys() == {"prompt", "chosen", "rejected"}
    assert lines[1] != lines[0][:4]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    return start_model(tmp_path_factory.mktemp("worlds"))


@pytest.mark.slow
@pytest.mark.parametrize(("key", "least"), [("d2_dpo", 0.93), ("slic", 0.9), ("ipo", 0.7)])
def test_objectives_make_the_strings_odd_and_leave_them_valid(start: Start, key: str, least: float) -> None:
    """Less so one that wants a fixed margin, since margins of single draws grow with 1/(1 − t)."""
    before = measure(start)
    assert before.valid > 0.97 and abs(before.odd - 0.5) < 0.05
    after = measure(start, aligned(start, 1000, objective=key, **LONG))
    assert after.gold > least, after


@pytest.mark.slow
def test_a_scale_that_saturates_the_link_costs_the_structure(start: Start) -> None:
    """At β = 5, 1/(1 − t) decides about every pair before the data do."""
    mild, strong = (
        measure(start, aligned(start, 1000, objective={"method": "d2_dpo", "beta": beta}, **LONG))
        for beta in (0.5, 5.0)
    )
    assert strong.gold < mild.gold - 0.03
