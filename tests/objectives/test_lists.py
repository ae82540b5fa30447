"""Lists and contrasts across the batch: their limits, and what they leave out."""

from __future__ import annotations

import math

import pytest
import torch

from prefero.objectives import (
    Compare,
    EveryPair,
    PreferenceBatch,
    dry_run,
    log_ratio,
)
from tests.objectives.batches import batch_for, build, pair_batch, random_batch, slope_of


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("dpo_plackett_luce", {}),
        ("mpo_set", {"alpha": 0.7, "p": 1}),
        ("mpo_set", {"alpha": -2.0, "p": 2}),
    ],
)
def test_a_list_of_two_is_a_pair(key, arguments) -> None:
    batch = random_batch(dry_run(build("dpo")), examples=5)
    columns = {"rank": torch.tensor([[0, 1]] * 5), "score": torch.tensor([[1.0, -0.5]] * 5)}
    first = build(key, beta=0.3, **arguments).loss(PreferenceBatch(batch.models, columns, ()))
    second = build("dpo", beta=0.3).loss(batch)
    torch.testing.assert_close(first, second, rtol=1e-12, atol=0)
    torch.testing.assert_close(slope_of(first, batch), slope_of(second, batch), rtol=1e-10, atol=1e-14)


def test_a_scored_list_of_two_is_exo_on_pairs() -> None:
    batch = random_batch(dry_run(build("exo_pref")), examples=5)
    scores = torch.tensor([[0.99, 0.01]] * 5, dtype=torch.float64).log()
    first = build("exo_rw", beta_r=1.0).loss(PreferenceBatch(batch.models, {"score": scores}, ()))
    second = build("exo_pref", smoothing=0.01).loss(batch)
    torch.testing.assert_close(first, second, rtol=1e-10, atol=0)


def test_mpo_is_the_accepted_share_of_the_softmax() -> None:
    objective = build("mpo_set", beta=0.5, alpha=0.0)
    batch = batch_for(objective, complete=True)
    (term,) = objective(batch)
    rewards = (0.5 * log_ratio().sum())(batch)
    score = batch.columns["score"]
    accepted = score > score.mean(1, keepdim=True)
    share = (rewards.softmax(1) * accepted).sum(1)
    torch.testing.assert_close(term.values, -share.log())


def test_mpo_skips_lists_of_equal_scores_and_ignores_a_shift_of_all() -> None:
    objective = build("mpo_set")
    batch = batch_for(objective)
    shifted = PreferenceBatch(batch.models, {"score": batch.columns["score"] + 5}, ())
    torch.testing.assert_close(objective.loss(batch), objective.loss(shifted))
    equal = PreferenceBatch(batch.models, {"score": torch.ones(6, 4).double()}, ())
    (term,) = objective(equal)
    assert term.count == 0
    assert term.total == 0


def test_plackett_luce_is_the_likelihood_of_the_ranking() -> None:
    objective = build("dpo_plackett_luce", beta=0.5)
    batch = batch_for(objective, complete=True, examples=3)
    (term,) = objective(batch)
    rewards = (0.5 * log_ratio().sum())(batch)
    for example in range(3):
        left = rewards[example][batch.columns["rank"][example].argsort()]
        expected = -sum((left[k] - left[k:].logsumexp(0) for k in range(4)), torch.tensor(0.0))
        torch.testing.assert_close(term.values[example], expected)


def test_every_pair_of_two_is_the_pair() -> None:
    batch = pair_batch([1.0, -2.0], [0.5, 0.1])
    scored = PreferenceBatch(batch.models, {"score": torch.tensor([[2.0, 1.0]] * 2)}, ())
    reward = 0.3 * log_ratio().sum()
    torch.testing.assert_close(Compare(reward, EveryPair()).loss(scored), Compare(reward).loss(batch))


def test_every_pair_skips_equal_scores() -> None:
    batch = pair_batch([1.0], [0.5])
    equal = PreferenceBatch(batch.models, {"score": torch.ones(1, 2)}, ())
    (term,) = Compare(log_ratio().sum(), EveryPair())(equal)
    assert term.count == 0


@pytest.mark.parametrize("key", ["rpo_relative", "rpo_relative_uniform", "rpo_relative_diagonal"])
def test_one_pair_across_the_batch_is_dpo(key: str) -> None:
    objective = build(key, beta=0.3)
    batch = batch_for(objective, examples=1)
    torch.testing.assert_close(objective.loss(batch), build("dpo", beta=0.3).loss(batch), rtol=1e-12, atol=0)


def test_rpo_weights_become_the_identity_when_tau_vanishes() -> None:
    objective = build("rpo_relative", beta=0.3, tau=1e-4)
    batch = batch_for(objective, examples=4)
    (term,), (plain,) = objective(batch), build("dpo", beta=0.3)(batch)
    torch.testing.assert_close(term.values, (plain.values + 3 * math.log(2)) / 4, rtol=1e-6, atol=0)


def test_rpo_forgets_the_prompts_when_tau_is_large() -> None:
    objective = build("rpo_relative", beta=0.3, tau=1e12)
    batch = batch_for(objective, examples=4)
    uniform = build("rpo_relative_uniform", beta=0.3 / 4)
    torch.testing.assert_close(objective.loss(batch), uniform.loss(batch), rtol=1e-9, atol=0)
