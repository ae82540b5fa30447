"""Every slot value and every addition on every method: it works, or is refused with the reason."""

from __future__ import annotations

import re

import pytest
import torch

from prefero.errors import PreferoError
from prefero.objectives import Objective, from_config
from prefero.objectives.slots import SLOTS
from tests.objectives.batches import ARGUMENTS, KEYS, batch_for, build, ready, slopes

ADDITIONS = ("nll", "simpo", "kto")
REASONS = (
    "no comparisons of responses",
    "whole sets of responses",
    "several comparisons",
    "reduction of its own",
    "already is the",
    "makes no sense",
    "rule of its own",
    "no log-ratio of whole responses",
    "parts that learn",
)
NEUTRAL = {
    ("target", "score_gap"): {"alpha": 0.0},
    ("target", "length_gap"): {"alpha": 0.0},
}
"""Arguments with which a slot value changes nothing."""

VALUES = [(slot, name) for slot, known in SLOTS.items() for name in known]


def combined(key: str, extra: dict) -> Objective | str:
    """The combination, or why it is refused."""
    try:
        return ready(from_config({"method": key, **ARGUMENTS.get(key, {}), **extra}))
    except PreferoError as refused:
        return str(refused)


def check_that_it_trains(objective: Objective) -> None:
    """Large log-ratios, where what is not made with care overflows."""
    batch = batch_for(objective, spread=300.0)
    loss = objective.loss(batch)
    assert torch.isfinite(loss)
    if loss.requires_grad:
        assert all(torch.isfinite(slope).all() for slope in slopes(loss, batch))


@pytest.mark.parametrize(("slot", "name"), VALUES)
@pytest.mark.parametrize("key", KEYS)
def test_a_slot_value_on_a_method(key: str, slot: str, name: str) -> None:
    made = combined(key, {slot: name})
    if isinstance(made, str):
        assert any(reason in made for reason in REASONS), made
        return
    check_that_it_trains(made)
    if (slot, name) in NEUTRAL:
        neutral = combined(key, {slot: {name: NEUTRAL[slot, name]}})
        assert isinstance(neutral, Objective)
        batch = batch_for(made + build(key))
        torch.testing.assert_close(neutral.loss(batch), build(key).loss(batch))


@pytest.mark.parametrize("addition", ADDITIONS)
@pytest.mark.parametrize("key", KEYS)
def test_an_addition_to_a_method(key: str, addition: str) -> None:
    made = combined(key, {"plus": {addition: 0.5}})
    if isinstance(made, str):
        assert any(reason in made for reason in REASONS), made
        return
    batch = batch_for(made)
    together = build(key).loss(batch) + 0.5 * build(addition).loss(batch)
    # what an objective remembers moves with every call, so it is called here for the first time
    torch.testing.assert_close(made.loss(batch), together)
    check_that_it_trains(made)


@pytest.mark.parametrize("key", ["dpo", "simpo", "ipo", "cdpo", "odpo", "tdpo2"])
@pytest.mark.parametrize(("slot", "name"), VALUES)
def test_what_goes_together_is_not_refused(key: str, slot: str, name: str) -> None:
    made = combined(key, {slot: name})
    if slot == "reward" and key in ("simpo", "tdpo2"):
        assert isinstance(made, str), "it has no log-ratio of whole responses"
    else:
        assert isinstance(made, Objective)


def test_slots_combine() -> None:
    made = combined(
        "simpo", {"weight": "wpo", "target": {"score_gap": {"alpha": 0.5}}, "reduce": "soft_minimum"}
    )
    assert isinstance(made, Objective)
    assert made.arguments["target"] == {"score_gap": {"alpha": 0.5}}
    check_that_it_trains(made)


def test_a_wrong_name_is_named() -> None:
    refused = combined("dpo", {"target": "score_gp"})
    assert isinstance(refused, str)
    assert re.search(r"no target is called 'score_gp'; did you mean 'score_gap'", refused)


def test_a_coefficient_multiplies_the_method_and_not_what_is_added() -> None:
    scaled = from_config({"method": "dpo", "coefficient": 0.3, "plus": {"nll": 0.5}}).double()
    batch = batch_for(scaled)
    expected = 0.3 * build("dpo").loss(batch) + 0.5 * build("nll").loss(batch)
    torch.testing.assert_close(scaled.loss(batch), expected)
    again = from_config({"method": scaled.key, **scaled.arguments}).double()
    torch.testing.assert_close(again.loss(batch), expected)
    with pytest.raises(PreferoError, match=r"coefficient of the objective is a number, not 'much'"):
        from_config({"method": "dpo", "coefficient": "much"})
