"""A step plan deals every example once, fits its budget, and is the same on every rank."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefero.models.kind import PackedRows, PaddedRows
from prefero.training.batches import RankRows, StepPlan

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=60)


@st.composite
def plans(draw: st.DrawFn) -> StepPlan:
    lengths = draw(LENGTHS)
    layout = PackedRows(lengths)
    if draw(st.booleans()):
        layout = PaddedRows([1 + length % 3 for length in lengths], lengths)
    return StepPlan(
        len(lengths),
        layout,
        examples_per_step=draw(st.integers(1, 16)),
        tokens_per_row=draw(st.integers(1, 300)),
        world=draw(st.integers(1, 3)),
        epochs=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 5)),
    )


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(0, 2), st.data())
def test_every_example_is_drawn_once_an_epoch(plan: StepPlan, epoch: int, data: st.DataObject) -> None:
    ranks = [list(plan.rank_rows(epoch, rank)) for rank in range(plan.world)]
    assert {len(rows) for rows in ranks} == {plan.rows * plan.steps_per_epoch}
    assert all(row for rows in ranks for row in rows), "every forward pass has something to do"
    counted = [draw.index for rows in ranks for row in rows for draw in row if not draw.ghost]
    assert Counter(counted) == Counter(range(plan.count))
    assert all(draw.epoch == epoch for rows in ranks for row in rows for draw in row)
    for step, members in enumerate(plan.steps(epoch)):
        mine = [row for rows in ranks for row in rows[step * plan.rows : (step + 1) * plan.rows]]
        assert sorted(draw.index for row in mine for draw in row if not draw.ghost) == sorted(members)
        assert all(len(row) == 1 for row in mine if row[0].ghost)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 300), st.integers(1, 12), st.integers(1, 3), st.booleans())
def test_rows_fit_and_are_as_few_as_can_be(
    lengths: list[int], budget: int, per_step: int, world: int, padded: bool
) -> None:
    layout = PaddedRows([2] * len(lengths), lengths) if padded else PackedRows(lengths)
    plan = StepPlan(
        len(lengths), layout, examples_per_step=per_step, tokens_per_row=budget, world=world, epochs=2
    )
    largest = max(layout.cost([index]) for index in range(len(lengths)))

    def fits(rows: int, epoch: int) -> bool:
        return all(
            layout.cost(row) <= max(budget, largest)
            for step in plan.steps(epoch)
            for row in layout.deal(step, rows * world)
        )

    assert fits(plan.rows, 0) and fits(plan.rows, 1)
    if plan.rows > 1:
        assert not (fits(plan.rows - 1, 0) and fits(plan.rows - 1, 1))


def test_epochs_have_orders_of_their_own_and_seeds_repeat_them() -> None:
    layout = PackedRows([3] * 20)
    plan, same, other = (
        StepPlan(20, layout, examples_per_step=4, tokens_per_row=9, seed=seed) for seed in (1, 1, 2)
    )
    assert plan.steps(0) == same.steps(0) != plan.steps(1)
    assert plan.steps(0) != other.steps(0)


def test_padded_rows_hold_neighbours_by_length() -> None:
    lengths = [10, 1, 9, 2, 10, 1]
    rows = PaddedRows([1] * 6, lengths).deal(range(6), 2)
    assert [sorted(lengths[i] for i in row) for row in rows] == [[9, 10, 10], [1, 1, 2]]


def test_the_longest_go_first_into_the_emptiest() -> None:
    rows = PackedRows([7, 6, 5, 4, 3]).deal(range(5), 2)
    assert [sorted(row) for row in rows] == [[0, 3, 4], [1, 2]]


def test_a_sampler_follows_its_epoch() -> None:
    plan = StepPlan(12, PackedRows([2] * 12), examples_per_step=4, tokens_per_row=4, world=2)
    rows = RankRows(plan, rank=1)
    first = list(rows)
    rows.set_epoch(1)
    assert len(rows) == len(first) == plan.rows * 3
    assert list(rows) == list(plan.rank_rows(1, 1)) != first


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_examples_of_a_step_do_not_depend_on_the_processes(world: int) -> None:
    plan = StepPlan(30, PackedRows(range(1, 31)), examples_per_step=8, tokens_per_row=40, world=world)
    alone = StepPlan(30, PackedRows(range(1, 31)), examples_per_step=8, tokens_per_row=40)
    assert plan.steps(0) == alone.steps(0)
