"""Where the probability of a small network goes, through the real trainer."""

from __future__ import annotations

import pytest
import torch

from prefero_lab.papers.experiments.unseen import OFF_POLICY, ON_POLICY, UnseenExperiment, agreement, reached
from prefero_lab.worlds.unseen import Unseen

DPO = {"objective": {"method": "dpo", "beta": 0.5}}
SHORT = UnseenExperiment(steps=60)


def mean(values):
    return sum(values) / len(values)


@pytest.fixture
def measured():
    def of(settings, experiment=SHORT, made=None):
        made = made or experiment.make(0)
        return experiment.measure(made, experiment.train(made, settings, 0).model, 0)

    return of


def test_the_network_starts_where_it_should_and_shares_what_it_learns():
    world = Unseen.drawn(3)
    start = world.probabilities(*OFF_POLICY)
    policy = world.policy(start)
    torch.testing.assert_close(policy.probabilities(), start)
    for role, about in zip(("chosen", "rejected", "unseen"), OFF_POLICY, strict=True):
        assert world.mass(start)[role].mean().item() == pytest.approx(about, rel=0.5)
    policy(torch.tensor([0])).logits[0, 0].backward()
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.1 * weight.grad
    moved = (policy.probabilities() - start).abs().amax(-1)
    assert (moved > 1e-3).all() and moved[0] > moved[1:].max()


def test_seeds_decide_on_weights_and_roles():
    one, same, other = (Unseen.drawn(seed) for seed in (5, 5, 6))
    assert one.rows() == same.rows() != other.rows()
    weights = [
        next(world.policy(world.probabilities(*OFF_POLICY)).parameters()) for world in (one, same, other)
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert sorted([*one.chosen, *one.rejected, *one.unseen]) == list(range(10))
    for row, gap in zip(one.rows(), one.gaps, strict=True):
        assert row["chosen_score"] - row["rejected_score"] == pytest.approx(float(gap))


def test_training_raises_the_chosen_and_pairs_that_are_swapped_the_rejected(measured):
    world = SHORT.make(0)
    right = measured(DPO)
    assert right == measured(DPO)
    assert len(right["chosen"]) == 4 and len(right["order"]) == 1
    assert mean(right["chosen_log_ratio"]) > 0.5 > -0.5 > mean(right["rejected_log_ratio"])
    assert mean(right["margin"]) == pytest.approx(
        mean(right["chosen_log_ratio"]) - mean(right["rejected_log_ratio"])
    )

    class Swapped(Unseen):
        def rows(self):
            names = {"chosen": "rejected", "rejected": "chosen"}
            return [{names.get(name, name): value for name, value in row.items()} for row in super().rows()]

    wrong = measured(DPO, made=Swapped(**vars(world)))
    assert mean(wrong["margin"]) < -1


def test_arms_may_start_elsewhere_and_move_their_reference(measured):
    assert mean(measured({**DPO, "from": ON_POLICY})["chosen"]) > mean(measured(DPO)["chosen"]) + 0.2
    moving = {"kind": "moving", "alpha": 0.6, "every": 10}
    assert mean(measured({**DPO, "reference": moving})["margin"]) > mean(measured(DPO)["margin"]) + 0.1


def test_orders_and_first_steps():
    one = torch.tensor([0.1, 0.4, 0.2])
    assert agreement(one, one.exp()) == 1.0 and agreement(one, -one) == -1.0
    assert agreement(one, torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(1 / 3)
    there = torch.tensor([[False, False], [True, False], [False, False]])
    assert reached(there).tolist() == [1.0, 3.0]
