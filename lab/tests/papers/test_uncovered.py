"""The table with a response that no comparison is about."""

from __future__ import annotations

from statistics import fmean

import torch

from prefero_lab.papers.experiments.uncovered import Uncovered

DPO = {"objective": {"method": "dpo", "beta": 0.05, "weight": "given"}, "learning_rate": 0.1}
HEAVY = {
    "objective": {"method": "rpo_sft", "beta": 0.05, "eta": 2.0, "weight": "given"},
    "learning_rate": 0.1,
}


def small() -> Uncovered:
    return Uncovered(prompts=24, steps=60)


def test_the_last_response_is_rare_and_the_worst():
    made = small().make(0)
    assert torch.allclose(made.reference[:, -1], torch.tensor(0.01, dtype=torch.float64))
    assert made.reward is not None and bool((made.reward.argmin(-1) == 5).all())


def test_numbers_are_one_a_prompt_and_the_same_again():
    experiment = small()
    made = experiment.make(0)
    first, second = (experiment.measure(made, experiment.train(made, DPO, 0).model, 0) for _ in range(2))
    assert first == second and {name: len(one) for name, one in first.items()} == {
        "reward": 24,
        "uncovered": 24,
    }


def test_pairs_tell_what_is_good_and_the_likelihood_term_keeps_to_them():
    """Swapped pairs would lower the reward; a sign error in the likelihood would raise the uncovered mass."""
    experiment = small()
    made = experiment.make(0)

    def means(model):
        return {name: fmean(values) for name, values in experiment.measure(made, model, 0).items()}

    start = means(experiment.start(made))
    dpo, heavy = (means(experiment.train(made, settings, 0).model) for settings in (DPO, HEAVY))
    assert dpo["reward"] > start["reward"] + 0.3
    assert heavy["uncovered"] < dpo["uncovered"]
