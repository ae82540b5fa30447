"""A step plan deals every example once, fits its budget, and is the same on every rank."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from prefero.models.kind import Batching, PackedBatching, PaddedBatching
from prefero.training.batches import RankBatches, StepPlan

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=60)


@st.composite
def plans(draw: st.DrawFn) -> StepPlan:
    lengths = draw(LENGTHS)
    batching: Batching = PackedBatching(lengths)
    if draw(st.booleans()):
        batching = PaddedBatching([1 + length % 3 for length in lengths], lengths)
    return StepPlan(
        len(lengths),
        batching,
        examples_per_step=draw(st.integers(1, 16)),
        tokens_per_row=draw(st.integers(1, 300)),
        world=draw(st.integers(1, 3)),
        epochs=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 5)),
    )


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(0, 2), st.data())
def test_every_example_is_drawn_once_an_epoch(plan: StepPlan, epoch: int, data: st.DataObject) -> None:
    ranks = [list(RankBatches(plan, rank, epoch)) for rank in range(plan.world)]
    count = plan.micro_batches
    assert {len(batches) for batches in ranks} == {count * plan.steps_per_epoch}
    assert all(batch for batches in ranks for batch in batches), "every forward pass has something to do"
    draws = [draw for batches in ranks for batch in batches for draw in batch]
    assert Counter(draw.index for draw in draws if not draw.dummy) == Counter(range(plan.count))
    assert all(draw.epoch == epoch for draw in draws)
    for step, members in enumerate(plan.steps(epoch)):
        mine = [batch for batches in ranks for batch in batches[step * count : (step + 1) * count]]
        assert sorted(draw.index for batch in mine for draw in batch if not draw.dummy) == sorted(members)
        assert all(len(batch) == 1 for batch in mine if batch[0].dummy)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 300), st.integers(1, 12), st.integers(1, 3), st.booleans())
def test_micro_batches_fit_and_are_as_few_as_can_be(
    lengths: list[int], budget: int, per_step: int, world: int, padded: bool
) -> None:
    batching = PaddedBatching([2] * len(lengths), lengths) if padded else PackedBatching(lengths)
    plan = StepPlan(
        len(lengths), batching, examples_per_step=per_step, tokens_per_row=budget, world=world, epochs=2
    )
    largest = max(batching.cost([index]) for index in range(len(lengths)))

    def fits(count: int, epoch: int) -> bool:
        return all(
            batching.cost(batch) <= max(budget, largest)
            for step in plan.steps(epoch)
            for batch in batching.deal(step, count * world)
        )

    count = plan.micro_batches
    assert fits(count, 0) and fits(count, 1)
    if count > 1:
        assert not (fits(count - 1, 0) and fits(count - 1, 1))


@given(LENGTHS, st.integers(1, 12), st.booleans(), st.data())
def test_no_micro_batch_costs_more_than_the_most(
    lengths: list[int], count: int, padded: bool, data: st.DataObject
) -> None:
    responses = [1 + length % 3 for length in lengths]
    batching = PaddedBatching(responses, lengths) if padded else PackedBatching(lengths)
    places = st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=count, unique=True)
    assert batching.cost(data.draw(places)) <= batching.most(count)


def test_a_million_epochs_that_fit_are_planned_at_once() -> None:
    plan = StepPlan(10, PackedBatching([5] * 10), examples_per_step=4, tokens_per_row=64, epochs=10**6)
    assert plan.micro_batches == 1
    assert [plan.examples_until(step) for step in (0, 1, 3, 4, 3 * 10**6)] == [0, 4, 10, 14, 10**7]


def test_epochs_have_orders_of_their_own_and_seeds_repeat_them() -> None:
    batching = PackedBatching([3] * 20)
    plan, same, other = (
        StepPlan(20, batching, examples_per_step=4, tokens_per_row=9, seed=seed) for seed in (1, 1, 2)
    )
    assert plan.steps(0) == same.steps(0) != plan.steps(1)
    assert plan.steps(0) != other.steps(0)


def test_padded_micro_batches_hold_neighbours_by_length() -> None:
    lengths = [10, 1, 9, 2, 10, 1]
    batches = PaddedBatching([1] * 6, lengths).deal(range(6), 2)
    assert [sorted(lengths[i] for i in batch) for batch in batches] == [[9, 10, 10], [1, 1, 2]]


def test_the_longest_go_first_into_the_emptiest() -> None:
    batches = PackedBatching([7, 6, 5, 4, 3]).deal(range(5), 2)
    assert [sorted(batch) for batch in batches] == [[0, 3, 4], [1, 2]]


def test_a_sampler_follows_its_epoch() -> None:
    plan = StepPlan(12, PackedBatching([2] * 12), examples_per_step=4, tokens_per_row=4, world=2)
    sampler = RankBatches(plan, rank=1)
    first = list(sampler)
    sampler.epoch = 1
    assert len(sampler) == len(first) == plan.micro_batches * 3
    assert list(sampler) == list(RankBatches(plan, rank=1, epoch=1)) != first


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_examples_of_a_step_do_not_depend_on_the_processes(world: int) -> None:
    plan = StepPlan(30, PackedBatching(range(1, 31)), examples_per_step=8, tokens_per_row=40, world=world)
    alone = StepPlan(30, PackedBatching(range(1, 31)), examples_per_step=8, tokens_per_row=40)
    assert plan.steps(0) == alone.steps(0)
