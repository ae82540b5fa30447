from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from prefero.data.trie import Cell
from prefero.errors import PreferoError
from prefero.evaluate.ranking import (
    PairLogps,
    ideal_margin,
    loss_that_orders,
    ordered,
    pair_logps,
    policy_ranking,
    ranking_accuracy,
)
from prefero.evaluate.win_rate import win_rate_of
from prefero.theory.optima import reward_optimum
from tests.models.causal.families import VOCABULARY, build
from tests.objectives.batches import build as build_method, pair_batch


def random_logps(count: int, seed: int) -> PairLogps:
    numbers = torch.Generator().manual_seed(seed)
    chosen, rejected = -20 * torch.rand(2, count, generator=numbers, dtype=torch.float64)
    lengths = torch.randint(1, 9, (2, count), generator=numbers)
    return PairLogps(chosen, rejected, lengths[0], lengths[1])


def test_the_policy_orders_a_pair_exactly_when_dpos_loss_is_small_enough() -> None:
    policy, reference = random_logps(500, 0), random_logps(500, 1)
    batch = pair_batch(
        (policy.chosen - reference.chosen).tolist(), (policy.rejected - reference.rejected).tolist()
    )
    (term,) = build_method("dpo", beta=0.1)(batch)
    small_enough = term.values <= loss_that_orders(reference.margin(), 0.1)
    assert (small_enough == ordered(policy.margin())).all()


def test_the_loss_that_orders_by_hand() -> None:
    losses = loss_that_orders(torch.tensor([-5.0, -30.0], dtype=torch.float64), 0.1)
    torch.testing.assert_close(losses, torch.tensor([0.4741, 0.0486]).double(), atol=1e-4, rtol=0)


def test_the_ideal_policy_is_the_optimum_of_rlhf() -> None:
    reference = torch.tensor([0.2, 0.8], dtype=torch.float64)
    rate, beta = torch.tensor([0.7], dtype=torch.float64), 0.3
    reward = torch.cat([torch.logit(rate), torch.zeros(1)])
    policy = reward_optimum(reference, reward, beta).log()
    reference_margin = (reference[0] / reference[1]).log()[None]
    torch.testing.assert_close(ideal_margin(reference_margin, rate, beta), (policy[0] - policy[1])[None])


def test_undecided_annotators_leave_the_references_ranking_and_agreed_ones_decide() -> None:
    reference = random_logps(200, 1)
    margin = reference.margin()
    half, certain = torch.full_like(margin, 0.5), torch.ones_like(margin)
    assert (ordered(ideal_margin(margin, half, 0.1)) == ordered(margin)).all()
    assert ordered(ideal_margin(margin, certain, 0.1)).all()
    assert ordered(ideal_margin(margin, torch.full_like(margin, 0.55), 1e-3)).all()
    assert ideal_margin(margin, certain, 10.0).isfinite().all()


def test_ties_count_half_in_every_accuracy() -> None:
    lengths = torch.tensor([2, 2, 2])
    policy = PairLogps(torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-2.0, -2.0, -2.0]), lengths, lengths)
    reference = PairLogps(torch.full((3,), -2.0), torch.full((3,), -2.0), lengths, lengths)
    found = policy_ranking(policy, reference, 0.5, quantiles=1)
    assert (found.accuracy, found.per_token, found.implicit) == (0.5, 0.5, 0.5)
    assert found.reference == 0.5 and set(found.ideal.values()) == {0.5}
    assert found.by_difficulty[0].accuracy == 0.5
    assert ranking_accuracy([1.0, 0.0, -1.0, 2.0]).accuracy == 0.625
    assert win_rate_of([1.0, 0.5, 0.0, 1.0]).rate == 0.625


def test_the_reference_itself_ranks_as_it_does_and_has_no_implicit_accuracy() -> None:
    reference = random_logps(200, 1)
    found = policy_ranking(reference, reference)
    assert found.accuracy == found.reference
    assert found.implicit == 0.5
    assert found.accuracy in found.interval
    assert found.alignment_gap == max(found.ideal.values()) - found.accuracy
    assert found.ideal[0.01] > found.ideal[10.0]


def test_hard_pairs_are_flipped_less_often_by_the_same_gain() -> None:
    reference = random_logps(800, 1)
    gain = 6 * torch.rand(800, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    policy = PairLogps(
        reference.chosen + gain, reference.rejected, reference.chosen_length, reference.rejected_length
    )
    groups = policy_ranking(policy, reference).by_difficulty
    assert [group.pairs for group in groups] == [200] * 4
    assert groups[0].flipped is None, "the reference orders the easy ones right"
    flipped = [group.flipped for group in groups if group.flipped is not None]
    assert flipped == sorted(flipped, reverse=True)
    assert all(left.high <= right.low for left, right in itertools.pairwise(groups))


def test_means_and_sums_may_disagree() -> None:
    long = PairLogps(*torch.tensor([[-6.0], [-5.0]]).double(), torch.tensor([6]), torch.tensor([2]))
    found = policy_ranking(long, long)
    assert (found.accuracy, found.per_token) == (0, 1)


def test_what_is_no_number_is_refused() -> None:
    good = random_logps(3, 0)
    broken = PairLogps(good.chosen * torch.nan, good.rejected, good.chosen_length, good.rejected_length)
    with pytest.raises(PreferoError, match="the policy's margin of pair 1"):
        policy_ranking(broken, good)
    with pytest.raises(PreferoError, match="at least one pair"):
        policy_ranking(random_logps(0, 0), random_logps(0, 0))


def test_logps_of_a_model() -> None:
    model, rng = build("llama"), np.random.default_rng(0)

    def of(cell: Cell) -> Tensor:
        ids = torch.from_numpy(np.concatenate([cell.context, cell.response]))[None]
        with torch.no_grad():
            logps = model(ids).logits[0, :-1].log_softmax(-1)
        return logps.gather(1, ids[0, 1:, None])[len(cell.context) - 1 :].sum()

    pairs = []
    for _ in range(4):
        prompt, *responses = (rng.integers(3, VOCABULARY, rng.integers(1, 7)) for _ in range(3))
        pairs.append((Cell(prompt, responses[0]), Cell(prompt, responses[1])))
    found = pair_logps(model, pairs, tokens_per_row=16)
    expected = torch.stack([of(chosen) - of(rejected) for chosen, rejected in pairs]).double()
    torch.testing.assert_close(found.margin(), expected, rtol=1e-4, atol=1e-4)
    assert found.chosen_length.tolist() == [len(chosen.response) for chosen, _ in pairs]
    with pytest.raises(PreferoError, match="at least one pair"):
        pair_logps(model, [])
