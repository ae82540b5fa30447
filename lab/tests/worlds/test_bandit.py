"""The bandit's rows say what its preferences are, and objectives fitted to them reach the theory's optima."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prefero.errors import PreferoError
from prefero.models.tabular.policy import TabularPolicy
from prefero.objectives import from_config
from prefero.theory.misspecified import LogLinearBandit
from prefero_lab.worlds.bandit import Bandit, counted, main, total_variation
from prefero_lab.worlds.tabular_fitting import WholeBatch, descended, fitted


def uneven(prompts: int, responses: int) -> Tensor:
    """Somebody else's policy."""
    numbers = torch.rand(prompts, responses, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return (2 * numbers).softmax(-1)


def optimal(bandit: Bandit, config: dict[str, Any], sampling: Tensor | None = None) -> Tensor:
    rows = bandit.expected_pairs(sampling)
    start = bandit.policy()
    found = fitted(from_config({"weight": "given", **config}), rows, start, reference=start)
    return found.probabilities().detach()


def test_expected_pairs_are_all_pairs_in_both_orders_with_the_weights_of_their_labels() -> None:
    bandit = Bandit.bradley_terry(2, 3)
    rows = bandit.expected_pairs()
    assert len(rows) == 2 * 3 * 2
    assert sum(row["weight"] for row in rows) == pytest.approx(len(rows))
    weight = {(row["prompt"], row["chosen"], row["rejected"]): row["weight"] for row in rows}
    for prompt, name in enumerate(bandit.table.prompts):
        there, back = weight[name, "answer 1", "answer 3"], weight[name, "answer 3", "answer 1"]
        assert there / (there + back) == pytest.approx(float(bandit.preference[prompt, 0, 2]))


def test_pairs_that_never_occur_are_left_out() -> None:
    certain = Bandit(torch.full((1, 2), 0.5), torch.tensor([[[0.5, 1.0], [0.0, 0.5]]]))
    assert [row["chosen"] for row in certain.expected_pairs()] == ["answer 1"]


def test_sampled_pairs_come_as_often_as_they_are_expected() -> None:
    bandit = Bandit.bradley_terry(2, 3, seed=1)
    sampling = uneven(2, 3)
    expected = bandit.expected_pairs(sampling)
    drawn = bandit.sampled_pairs(20000, 0, sampling)
    counts = Counter((row["prompt"], row["chosen"], row["rejected"]) for row in drawn)
    for row in expected:
        share = counts[row["prompt"], row["chosen"], row["rejected"]] / len(drawn)
        assert share == pytest.approx(row["weight"] / len(expected), abs=0.015)
    assert bandit.sampled_pairs(50, 0) == bandit.sampled_pairs(50, 0) != bandit.sampled_pairs(50, 1)


def test_counted_rows_have_the_loss_of_all_rows() -> None:
    bandit = Bandit.bradley_terry(1, 3)
    rows = bandit.sampled_pairs(50, 0)
    objective = from_config({"method": "dpo", "weight": "given"})
    policy = bandit.policy()
    with torch.no_grad():
        policy.theta.copy_(torch.tensor([[1.0, -2.0, 0.5]]))
    losses = [
        WholeBatch(objective, some, bandit.table).loss(policy, reference=bandit.policy())
        for some in (rows, counted(rows))
    ]
    assert len(counted(rows)) <= 6
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)


def test_rated_pairs_carry_win_rates_against_the_opponent() -> None:
    bandit, opponent = Bandit.game(2, 4), uneven(2, 4)
    rows = bandit.rated_pairs(opponent)
    assert len(rows) == 2 * 6
    rates = (bandit.preference @ opponent[..., None])[..., 0]
    for row in rows:
        prompt = bandit.table.prompts.index(row["prompt"])
        for side in ("chosen", "rejected"):
            place = bandit.table.responses[prompt].index(row[side])
            assert row[f"{side}_win_rate"] == pytest.approx(float(rates[prompt, place]))


@pytest.mark.parametrize("make", [Bandit.bradley_terry, Bandit.game])
def test_preferences_of_both_orders_add_up_to_one(make: Any) -> None:
    one = make(2, 4, seed=0).preference
    torch.testing.assert_close(one + one.mT, torch.ones_like(one))
    assert not torch.equal(one, make(2, 4, seed=1).preference)


def test_a_game_has_no_reward() -> None:
    with pytest.raises(PreferoError, match="no reward explains"):
        Bandit.game().optimum(0.1)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_dpo_reaches_the_tilted_reference_whatever_the_pairs_are_drawn_from(beta: float) -> None:
    bandit = Bandit.bradley_terry(3, 5)
    for sampling in (None, uneven(3, 5)):
        found = optimal(bandit, {"method": "dpo", "beta": beta}, sampling)
        assert total_variation(found, bandit.optimum(beta)) < 1e-5


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("make", [Bandit.bradley_terry, Bandit.game])
def test_ipo_reaches_the_optimum_of_psi_po_for_the_opponent_that_pairs_are_drawn_from(
    make: Any, tau: float
) -> None:
    """With the target 1/τ, or with pairs from elsewhere, it would be another optimum."""
    bandit = make(2, 5, seed=2)
    for sampling in (None, uneven(2, 5)):
        found = optimal(bandit, {"method": "ipo", "tau": tau, "tokens": "sum"}, sampling)
        assert total_variation(found, bandit.identity_optimum(tau, sampling)) < 1e-5
    assert total_variation(found, bandit.identity_optimum(tau)) > 1e-3
    assert total_variation(found, bandit.identity_optimum(2 * tau, sampling)) > 1e-3


def test_certain_preferences_leave_ipo_regularised_and_dpo_not() -> None:
    better = torch.tensor([[[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]]]).double()
    certain = Bandit(torch.full((1, 3), 1 / 3, dtype=torch.float64), better)
    ipo = optimal(certain, {"method": "ipo", "tau": 0.3, "tokens": "sum"})
    torch.testing.assert_close(
        ipo, torch.tensor([[0.6957, 0.2290, 0.0754]], dtype=torch.float64), atol=1e-4, rtol=0
    )
    for beta in (0.1, 5.0):
        assert float(optimal(certain, {"method": "dpo", "beta": beta})[0, 0]) > 0.99


def test_a_class_that_is_too_small_ends_where_the_theory_says() -> None:
    numbers = torch.Generator().manual_seed(0)
    features = torch.randn(1, 4, 1, generator=numbers, dtype=torch.float64)
    bandit, sampling = Bandit.bradley_terry(1, 4), uneven(1, 4)
    small = bandit.policy(features)
    objective = from_config({"method": "dpo", "beta": 0.5, "weight": "given"})
    found = fitted(objective, bandit.expected_pairs(sampling), small, reference=small)
    assert bandit.reward is not None
    theory = LogLinearBandit(features[0], bandit.reward[0], bandit.reference[0], 0.5)
    torch.testing.assert_close(found.theta, theory.dpo(sampling[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        bandit.values(found.probabilities(), 0.5)[0], theory.value(theory.dpo(sampling[0])), atol=1e-7, rtol=0
    )


def test_what_reads_more_than_rows_is_refused() -> None:
    bandit = Bandit.bradley_terry(1, 3)
    with pytest.raises(PreferoError, match="kto reads more than log-probabilities"):
        WholeBatch(from_config("kto"), bandit.expected_pairs(), bandit.table)


def test_a_folder_has_what_a_recipe_names(tmp_path: Path) -> None:
    main([str(tmp_path), "--prompts", "2", "--responses", "3", "--pairs", "7"])
    bandit = Bandit.bradley_terry(2, 3)
    loaded = TabularPolicy.from_pretrained(tmp_path / "model", dtype="auto")
    torch.testing.assert_close(loaded.probabilities(), bandit.reference)
    lines = {file.stem: file.read_text().splitlines() for file in tmp_path.glob("*.jsonl")}
    assert {name: len(found) for name, found in lines.items()} == {"train": 12, "sampled": 7, "held_out": 7}
    assert json.loads(lines["train"][0]) == bandit.expected_pairs()[0]
    assert lines["sampled"] != lines["held_out"]


def test_signals_against_the_reference_are_fitted_too() -> None:
    """A divergence the other way round, or one without a gradient, would end elsewhere."""
    bandit = Bandit.bradley_terry(2, 3)
    rows = [row | {"sample": row["chosen"]} for row in bandit.expected_pairs()]
    for strength, goal in ((1e-4, bandit.optimum(1.0) / bandit.reference), (1e3, bandit.reference)):
        config = {"method": "typo", "lam": strength, "divergence": "whole", "weight": "given"}
        start = bandit.policy()
        found = fitted(from_config(config), rows, start, reference=start).probabilities().detach()
        assert total_variation(found, goal / goal.sum(-1, keepdim=True)) < 1e-3


def test_steps_of_adam_come_to_the_same_and_leave_the_start_as_it_was() -> None:
    bandit = Bandit.bradley_terry(2, 3)
    start = bandit.policy()
    batch = WholeBatch(
        from_config({"method": "dpo", "beta": 1.0, "weight": "given"}), bandit.expected_pairs(), bandit.table
    )
    found = descended(batch, start, 300, 0.1, reference=start).probabilities().detach()
    assert total_variation(found, bandit.optimum(1.0)) < 1e-3
    torch.testing.assert_close(start.probabilities().detach(), bandit.reference)
