"""Extra references: which one helps, which one harms, and what holds them."""

from __future__ import annotations

from statistics import fmean

import pytest

from prefero_lab.papers.experiments.extra_references import ExtraReferences

EXPERIMENT = ExtraReferences(prompts=4, responses=6, features=3, pairs=30, steps=50)
DPO = {"method": "dpo", "beta": 0.5}


def measured(**settings: object) -> dict[str, float]:
    made = EXPERIMENT.make(0)
    policy = EXPERIMENT.train(made, settings, 0).model if settings else EXPERIMENT.start(made)
    return {name: fmean(values) for name, values in EXPERIMENT.measure(made, policy, 0).items()}


def mrpo(extra: str, epsilon: float) -> dict[str, float]:
    return measured(objective={"method": "mrpo", "beta": 0.5, "epsilon_max": epsilon}, extra=extra)


def test_the_start_knows_nothing_and_dpo_learns() -> None:
    start, dpo = measured(), measured(objective=DPO)
    assert start["accuracy"] == 0.5 and start["kl"] == pytest.approx(0, abs=1e-9)
    assert dpo["accuracy"] > 0.6 and dpo["reward"] > start["reward"]
    assert dpo == measured(objective=DPO)


def test_held_at_the_first_an_extra_reference_is_not_seen() -> None:
    for extra in ("good", "bad"):
        assert mrpo(extra, 0.0) == pytest.approx(measured(objective=DPO))


def test_let_through_the_good_one_gains_more_than_the_bad_one() -> None:
    """With the references exchanged, or the log-ratio's sign, it would be the other way round."""
    assert mrpo("good", 1.0)["reward"] > measured(objective=DPO)["reward"] > mrpo("bad", 1.0)["reward"]


def test_an_extra_reference_may_stand_for_the_first() -> None:
    assert measured(objective=DPO, extra="good", **{"as": "reference"}) != measured(objective=DPO)
