"""Policies recovered from where chosen and rejected responses come from."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from prefero.theory.distributions import information_power, power_law
from prefero_lab.papers.experiments.information import Information

SMALL = Information(prompts=2, responses=5, beta=0.7)
DPO = {"objective": {"method": "dpo", "beta": 0.7}}


def divergence(settings: dict, seed: int = 0) -> float:
    made = SMALL.make(seed)
    return fmean(SMALL.measure(made, SMALL.train(made, settings, seed).model, seed)["divergence"])


def test_the_rejected_distribution_encodes_the_target_to_the_power_beta():
    made = SMALL.make(0)
    for one in zip(made.target, made.reference, made.rejected, strict=True):
        assert power_law(*one).slope == pytest.approx(0.7) and power_law(*one).r_squared == pytest.approx(1)
        turned = information_power(one[1], one[2], 1.0)
        assert torch.allclose(turned, information_power(one[0], one[1], 0.7))


def test_dpo_recovers_the_target_and_nothing_else_does():
    assert divergence({"target": True}) == pytest.approx(0, abs=1e-15)
    assert divergence(DPO) < 1e-9
    others = (
        {"objective": {"method": "dpo", "beta": 1.4}},
        {"objective": {"method": "cpo", "beta": 0.7, "lam": 0.0}},
        DPO | {"rejected": "uniform"},
        DPO | {"power": 1.4},
    )
    assert min(map(divergence, others)) > 1e-3


def test_another_power_is_made_up_for_by_the_same_beta():
    assert divergence({"objective": {"method": "dpo", "beta": 1.4}, "power": 1.4}) < 1e-5


def test_chosen_responses_fall_by_the_divergence_of_the_reference_from_the_target():
    made = SMALL.make(1)
    found = SMALL.measure(made, SMALL.train(made, DPO, 1).model, 1)["chosen_log_ratio"]
    kl = (made.reference * (made.reference / made.target).log()).sum(-1)
    assert found == pytest.approx((-kl).tolist(), abs=1e-4) and SMALL.make(1).target.equal(made.target)
