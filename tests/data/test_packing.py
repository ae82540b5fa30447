"""A packed row holds each example's tree, and every cell finds its nodes again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from prefero.data.packing import Forest, next_fit, pack
from prefero.data.trie import Cell, TokenExample, unique_tokens

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=5).map(np.array)


@st.composite
def cells(draw) -> Cell:
    response = draw(tokens)
    size = len(response)
    holes = draw(st.none() | st.lists(st.booleans(), min_size=size, max_size=size).map(np.array))
    return Cell(draw(tokens), response, holes)


@st.composite
def batches(draw) -> list[TokenExample]:
    responses = st.lists(cells(), min_size=1, max_size=4).map(tuple)
    views = draw(st.lists(st.sampled_from(["mismatched", "corrupted"]), unique=True, max_size=2))
    return [
        TokenExample(draw(responses), {}, index, views={view: draw(responses) for view in views})
        for index in range(draw(st.integers(1, 4)))
    ]


def path_to(forest: Forest, node: int) -> list[int]:
    """Tokens from the root to a node, by the ancestor rule alone."""
    return [int(forest.ids[k]) for k in range(node + 1) if node < forest.end[k]]


@given(batches(), st.booleans())
def test_every_cell_finds_its_tokens(batch, share: bool) -> None:
    forest = pack(batch, share_response_prefixes=share)
    assert set(forest.cells) == {"", *batch[0].views}
    for view, index in forest.cells.items():
        for number, example in enumerate(batch):
            row = example.views[view] if view else example.cells
            for response, cell in enumerate(row):
                places = index.index[number, response]
                keep = np.ones(len(cell.response), bool) if cell.scored is None else cell.scored
                assert (places[: len(keep)] >= 0).tolist() == keep.tolist()
                assert (places[len(keep) :] < 0).all()
                for offset, place in enumerate(places[: len(keep)].tolist()):
                    if place >= 0:
                        whole = [*cell.context.tolist(), *cell.response[: offset + 1].tolist()]
                        assert path_to(forest, int(forest.scored[place])) == whole
                        assert path_to(forest, int(forest.parent[place])) == whole[:-1]
                        assert int(forest.target[place]) == whole[-1]
                last = int(index.last[number, response])
                assert path_to(forest, last) == [*cell.context.tolist(), *cell.response.tolist()]
                context = int(index.prompt_last[number, response])
                assert path_to(forest, context) == cell.context.tolist()
            assert (index.index[number, len(row) :] < 0).all()


@given(batches())
def test_nothing_is_scored_or_read_twice(batch) -> None:
    forest = pack(batch)
    assert len(forest.scored.unique()) == len(forest.scored)
    assert len(forest.readout.unique()) == len(forest.readout)
    used = torch.cat([index.index.flatten() for index in forest.cells.values()])
    assert sorted(set(used[used >= 0].tolist())) == list(range(len(forest.scored)))


@given(batches())
def test_trees_tile_the_row_and_lengths_are_known_before(batch) -> None:
    forest = pack(batch)
    edges = [0, *(stop for _, stop in forest.trees)]
    assert [start for start, _ in forest.trees] == edges[:-1] and edges[-1] == len(forest)
    for start, stop in forest.trees:
        assert forest.depth[start] == 0 and forest.end[start] == stop
        assert (forest.end[start:stop] <= stop).all()
    assert len(forest) == sum(unique_tokens(example.all_cells) for example in batch)


@given(batches(), st.integers(1, 16))
def test_padding_adds_trees_of_one_node(batch, multiple: int) -> None:
    forest = pack(batch)
    padded = forest.padded_to(multiple)
    assert len(padded) % multiple == 0 and len(padded) - len(forest) < multiple
    extra = torch.arange(len(forest), len(padded))
    assert torch.equal(padded.end[len(forest) :], extra + 1)
    assert padded.trees[len(forest.trees) :] == tuple((n, n + 1) for n in extra.tolist())
    assert torch.equal(padded.scored, forest.scored)
    assert torch.equal(padded.ids[: len(forest)], forest.ids)


def test_a_forest_moves_as_a_whole() -> None:
    batch = [TokenExample((Cell(np.array([1, 2]), np.array([3])),), {}, 0)]
    moved = pack(batch).to("meta")
    found = [moved.ids, moved.depth, moved.end, moved.scored, moved.readout, moved.slot]
    found += [moved.cells[""].index, moved.cells[""].last, moved.cells[""].prompt_last]
    assert all(tensor.device.type == "meta" for tensor in found)


def test_gather_puts_zero_where_nothing_is_scored() -> None:
    cell = Cell(np.array([1]), np.array([2, 3, 4]), np.array([True, False, True]))
    batch = [TokenExample((cell, Cell(np.array([1]), np.array([5]))), {}, 0)]
    forest = pack(batch)
    values = torch.tensor([10.0, 20.0, 30.0], requires_grad=True)
    gathered = forest.cells[""].gather(values)
    assert gathered.tolist() == [[[10.0, 0.0, 20.0], [30.0, 0.0, 0.0]]]
    gathered.sum().backward()
    assert values.grad.tolist() == [1.0, 1.0, 1.0]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=30),
    st.integers(10, 60),
    st.randoms(use_true_random=False),
)
def test_next_fit_keeps_the_order_and_the_capacity(lengths, capacity: int, random) -> None:
    order = list(range(len(lengths)))
    random.shuffle(order)
    rows = next_fit(order, lengths, capacity)
    assert [number for row in rows for number in row] == order
    for row in rows:
        assert sum(lengths[number] for number in row) <= capacity or len(row) == 1
    for row, following in pairwise(rows):
        assert sum(lengths[number] for number in row) + lengths[following[0]] > capacity


@pytest.mark.parametrize("share", [True, False])
def test_branches_read_the_prompt_once(share: bool) -> None:
    """Every response's first token is read from one row of logits: that of the last prompt token."""
    responses = [Cell(np.arange(5), np.array([first, 9])) for first in (6, 7, 8)]
    forest = pack([TokenExample(tuple(responses), {}, 0)], share_response_prefixes=share)
    assert forest.readout.tolist() == [4, 5, 7, 9]
    assert len(forest.scored) == 6
