"""The experiment that looks at held-out pairs token by token."""

from __future__ import annotations

import pytest
import torch

from prefero_lab.papers.experiments.held_out_pairs import HeldOutPairs, held_out_pairs, per_token
from tests.demo.small import WRITING

DPO = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-2}
TGDPO = {"objective": {"method": "tgdpo", "beta": 0.1, "alpha": 5.0}, "learning_rate": 1e-2}
PAIRS = (
    *("chosen_divergence", "rejected_divergence", "chosen_tail", "rejected_tail"),
    *("divergence_gap", "deciding_share"),
)


class Small(HeldOutPairs):
    """A start model that has learnt to stop, not to write."""

    text_world = WRITING


@pytest.fixture(scope="module")
def experiment():
    return Small(pairs=32, epochs=1.0, examples_per_step=8, prompts=16)


@pytest.fixture(scope="module")
def made(experiment, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFERO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield experiment.make(100)


@pytest.fixture(scope="module")
def trained(experiment, made):
    return experiment.train(made, DPO, 100).model


def test_numbers_are_one_a_pair_and_zero_before_training(experiment, made, trained):
    start = experiment.measure(made, experiment.start(made), 100)
    after = experiment.measure(made, trained, 100)
    assert after == experiment.measure(made, trained, 100)
    count = len(held_out_pairs(made))
    assert 2 <= count <= 16
    assert {len(after[name]) for name in PAIRS} == {count}
    assert len(after["per_token"]) == len(after["length_reliance"]) == 1
    for name in (*PAIRS, "per_token"):
        assert start[name] == pytest.approx([0.0] * len(start[name]), abs=1e-5), name
    assert set(start["ranked"]) == {0.0} and set(after["ranked"]) <= {0.0, 1.0}
    assert after["length_reliance"][0] == abs(after["per_token"][0]) > 0
    assert all(0 <= share <= 1 for share in after["deciding_share"])


def test_a_tail_is_worse_than_the_mean_of_its_distribution(experiment, made, trained):
    """What the reversed divergence, or a tail of the policy's own tokens, would not be."""
    after = experiment.measure(made, trained, 100)
    pairs = held_out_pairs(made)
    for i, (chosen, rejected) in enumerate(pairs):
        assert 0 < after["chosen_divergence"][i] / len(chosen.response) < after["chosen_tail"][i]
        assert 0 < after["rejected_divergence"][i] / len(rejected.response) < after["rejected_tail"][i]


def test_the_better_answer_comes_first(made):
    gold = {
        tuple(one.cell.response): made.held_out.gold(one)
        for one in (*made.held_out.before, *made.held_out.opponent)
    }
    assert all(gold[tuple(a.response)] > gold[tuple(b.response)] for a, b in held_out_pairs(made))


def test_the_slope_is_that_of_the_line_whatever_the_intercept():
    lengths = torch.tensor([-3.0, 1.0, 2.0, 7.0], dtype=torch.float64)
    assert float(per_token(0.25 * lengths + 11, lengths)) == pytest.approx(0.25)
    assert float(per_token(lengths * 0 + 11, lengths)) == pytest.approx(0)


def test_a_guide_is_trained_first_and_one_that_learnt_nothing_makes_it_dpo(experiment, made, trained):
    def weights(model):
        return torch.cat([one.detach().flatten() for one in model.parameters()])

    before = weights(made.start.model).clone()
    idle, guided = (
        experiment.train(made, {**TGDPO, "guide": {**DPO, "learning_rate": rate}}, 100).model
        for rate in (1e-12, 1e-2)
    )
    assert torch.allclose(weights(idle), weights(trained), atol=1e-5)
    assert not torch.allclose(weights(guided), weights(trained), atol=1e-4)
    assert torch.equal(before, weights(made.start.model))
