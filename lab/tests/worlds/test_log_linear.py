"""Log-linear worlds: what is drawn is what was asked for, and an estimate finds the taste again."""

from __future__ import annotations

import torch

from prefero.objectives import method
from prefero_lab.worlds.log_linear import LogLinear
from prefero_lab.worlds.tabular_fitting import fitted


def test_responses_differ_by_standard_normals_and_tastes_have_features_of_their_own() -> None:
    world = LogLinear.drawn((3.0, 1.5), features=3, training=300, held_out=100, seed=1)
    apart = world.features[:, 0] - world.features[:, 1]
    assert abs(float(apart.std()) - 1) < 0.1
    assert torch.allclose(world.tastes.norm(dim=1), torch.tensor([3.0, 1.5], dtype=torch.float64))
    assert not world.tastes[0, 3:].any() and not world.tastes[1, :3].any()


def test_pairs_are_of_training_prompts_and_have_the_groups_rewards() -> None:
    world = LogLinear.drawn((3.0, 1.5), features=3, training=20, held_out=30, seed=2)
    rows = world.pairs((40, 10), seed=0)
    assert [row["group"] for row in rows] == [0] * 40 + [1] * 10
    assert rows == world.pairs((40, 10), seed=0) != world.pairs((40, 10), seed=1)
    table = world.bandits[0].table
    for row in rows:
        prompt = table.prompts.index(row["prompt"])
        assert prompt < 20
        reward = world.features[prompt] @ world.tastes[row["group"]]
        for side in ("chosen", "rejected"):
            place = table.responses[prompt].index(row[side])
            assert row[f"{side}_score"] == float(reward[place])
    held_out = {row["prompt"] for row in world.expected_held_out(1)}
    assert held_out == set(table.prompts[20:]) and world.held_out(1).reward.shape == (30, 4)  # type: ignore[union-attr]


def test_dpo_finds_the_taste() -> None:
    world = LogLinear.drawn(features=3, training=200, held_out=10, seed=3)
    start = world.policy()
    found = fitted(method("dpo", beta=0.1), world.pairs((2000,), 0), start, reference=start)
    assert float((0.1 * found.theta.detach() - world.tastes[0]).norm()) < 0.3
