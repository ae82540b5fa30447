"""Modes: the direction of the divergence decides, and the sign of the scores."""

from __future__ import annotations

from statistics import fmean

from prefero_lab.papers.experiments.modes import Modes

EXPERIMENT = Modes(prompts=2, groups=32, steps=100)
BETAS = {"beta": 0.5, "beta_r": 0.5}


def measured(**settings: object) -> dict[str, float]:
    made = EXPERIMENT.make(0)
    policy = EXPERIMENT.train(made, settings, 0).model if settings else EXPERIMENT.start(made)
    return {name: fmean(values) for name, values in EXPERIMENT.measure(made, policy, 0).items()}


def test_reverse_kl_seeks_and_forward_kl_covers() -> None:
    seeking, covering = (measured(objective={"method": key, **BETAS}) for key in ("exo_rw", "dpo_rw"))
    assert seeking["deviation"] < 0.5 < 0.7 < covering["deviation"]
    assert seeking["reward"] > measured()["reward"] > covering["reward"]
    assert seeking == measured(objective={"method": "exo_rw", **BETAS})


def test_from_beside_the_lower_mode_the_higher_one_is_not_found() -> None:
    lower = measured(objective={"method": "exo_rw", **BETAS}, lower=True)
    assert lower["on the higher mode"] < 0.2 and lower["reward"] > 1.5


def test_pairs_are_comparisons_of_as_many_actions() -> None:
    assert measured(objective={"method": "exo_pref", "beta": 0.5}, pairs=True)["reward"] > 1.0
