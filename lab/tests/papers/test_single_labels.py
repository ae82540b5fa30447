"""Single labels: each kind teaches on its own, and the KL keeps what rejected ones teach."""

from __future__ import annotations

from statistics import fmean

import pytest

from prefero_lab.papers.experiments.single_labels import SingleLabels

EXPERIMENT = SingleLabels(prompts=3, responses=5, labels=90, steps=150)


def measured(**settings: float) -> dict[str, float]:
    made = EXPERIMENT.make(0)
    policy = EXPERIMENT.train(made, settings, 0).model if settings else EXPERIMENT.start(made)
    return {name: fmean(values) for name, values in EXPERIMENT.measure(made, policy, 0).items()}


def test_labels_of_either_kind_raise_the_reward() -> None:
    """With the signs of the two terms exchanged, they would lower it."""
    start = measured()
    assert start["kl"] == pytest.approx(0, abs=1e-9)
    for alpha, beta in ((1.0, 0.5), (0.0, 4.0), (0.5, 1.0)):
        assert measured(alpha=alpha, beta=beta)["reward"] > start["reward"] + 0.05


def test_without_kl_rejected_responses_are_left_for_good() -> None:
    held, free = (measured(alpha=0.0, beta=beta) for beta in (4.0, 0.0))
    assert free["coverage"] > held["coverage"] + 1 and free["entropy"] < held["entropy"]
    assert held == measured(alpha=0.0, beta=4.0)
