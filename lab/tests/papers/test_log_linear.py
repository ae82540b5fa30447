"""The experiment on log-linear preferences: numbers and what they say of methods that are known."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from prefero_lab.papers.experiments.log_linear import Fit, LogLinearExperiment, gradient_weights

SMALL = LogLinearExperiment(prompts=200, held_out=64, pairs=600, flips=0.3)
DPO = {"objective": {"method": "dpo"}}


def one(experiment: LogLinearExperiment, settings: dict | None, seed: int = 0) -> dict[str, float]:
    made = experiment.make(seed)
    model = experiment.start(made) if settings is None else experiment.train(made, settings, seed).model
    return {name: fmean(values) for name, values in experiment.measure(made, model, seed).items()}


def test_numbers_are_one_a_held_out_prompt_and_the_same_again():
    made = SMALL.make(0)
    fits = [SMALL.train(made, DPO, 0).model for _ in range(2)]
    first, second = (SMALL.measure(made, fit, 0) for fit in fits)
    assert first == second
    assert all(len(first[name]) == 64 for name in ("accuracy", "gold_reward", "sub_optimality"))
    assert sum(row["flipped"] for row in made.rows) == pytest.approx(180, abs=40)


def test_the_start_knows_nothing_and_the_taste_itself_everything():
    made = SMALL.make(1)
    start = one(SMALL, None, 1)
    assert start["accuracy"] == 0.5 and start["norm"] == 0 and start["cosine"] == 0
    right = made.world.policy()
    right.theta.data = made.world.tastes[0] / SMALL.beta
    found = {name: fmean(values) for name, values in SMALL.measure(made, Fit(right, right), 1).items()}
    assert found["accuracy"] == 1 and found["parameter_error"] < 1e-6 < 1e-3 < start["sub_optimality"]
    assert abs(found["sub_optimality"]) < 1e-9


def test_the_debiased_loss_is_nearer_and_with_the_wrong_sign_it_is_farther():
    """Plus instead of minus, which is label smoothing, would shrink the estimate still more."""
    experiment = LogLinearExperiment(prompts=200, held_out=16, pairs=3000, flips=0.3)
    rdpo, cdpo, dpo = (
        one(experiment, {"objective": objective})["parameter_error"]
        for objective in (
            {"method": "rdpo", "flip_rate": 0.3},
            {"method": "cdpo", "smoothing": 0.3},
            {"method": "dpo"},
        )
    )
    assert rdpo + 0.3 < dpo < cdpo


def test_weights_are_those_of_the_gradient():
    """DPO's are β σ(−margin); all alike at the start, and of a soft minimum smaller for what is flipped."""
    made = SMALL.make(2)
    fit = SMALL.train(made, DPO, 2).model
    start = made.world.policy()
    weights = gradient_weights({"method": "dpo", "beta": 0.1}, made.examples, start, start)
    assert weights is not None and torch.allclose(weights, torch.tensor(0.05, dtype=torch.float64))
    flipped = torch.tensor([row["flipped"] for row in made.rows])

    def share(objective: dict) -> float:
        found = gradient_weights(objective, made.examples, fit.policy, fit.reference)
        assert found is not None
        return float(found[flipped].mean() / found.mean())

    assert share({"method": "dr_dpo", "beta": 0.1, "beta_prime": 0.3}) < share({"method": "dpo", "beta": 0.1})
    assert gradient_weights({"method": "beta_dpo"}, made.examples, fit.policy, fit.reference) is None


def test_the_second_run_starts_anew_against_the_guide():
    """Not from the guide: its weights would be all alike."""
    steps = LogLinearExperiment(prompts=200, held_out=16, pairs=600, flips=0.25, steps=100)
    guided = {"objective": {"method": "dpo"}, "learning_rate": 0.5, "guide": {"method": "dpo", "beta": 0.1}}
    made = steps.make(0)
    at_start = steps.train(made, {**guided, "max_steps": 0}, 0).model
    assert not at_start.policy.theta.any() and at_start.reference.theta.norm() > 1
    plain = one(steps, {"objective": {"method": "dpo"}, "learning_rate": 0.5, "max_steps": 0})
    assert plain["flipped_weight"] == pytest.approx(1)
    assert fmean(steps.measure(made, at_start, 0)["flipped_weight"]) < 0.9


def test_minibatches_go_through_the_trainer_to_about_the_same_place():
    whole = LogLinearExperiment(prompts=200, held_out=64, pairs=600, flips=0.1, steps=200)
    batches = LogLinearExperiment(
        prompts=200, held_out=64, pairs=600, flips=0.1, steps=60, examples_per_step=64
    )
    settings = {"objective": {"method": "dpo"}, "learning_rate": 0.5}
    assert one(batches, settings)["cosine"] > one(whole, settings)["cosine"] - 0.02


def test_groups_have_losses_of_their_own():
    experiment = LogLinearExperiment((2.0, 2.0), (0.8, 0.2), prompts=200, held_out=64, pairs=600)
    start, dpo = one(experiment, None), one(experiment, DPO)
    assert start["worst_loss"] == pytest.approx(0.693, abs=1e-3) and start["loss_gap"] < 1e-9
    assert dpo["mean_loss"] < start["mean_loss"] and dpo["loss_gap"] > 0.1
    assert "margin_clean" not in dpo
