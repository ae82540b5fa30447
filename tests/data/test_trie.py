"""The token trie against brute force: what is shared, what may be seen, what it costs, how it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from prefero.data.trie import Cell, TokenTrie, sharing_cost, split_cells
from prefero.errors import PreferoError

tokens = st.lists(st.integers(0, 2), min_size=1, max_size=6)
cell_lists = st.lists(st.tuples(tokens, tokens), min_size=1, max_size=6)


def cells_of(pairs) -> list[Cell]:
    return [Cell(np.array(context), np.array(response)) for context, response in pairs]


def sequence(cell: Cell) -> tuple[int, ...]:
    return (*cell.context.tolist(), *cell.response.tolist())


def ancestors(trie: TokenTrie, node: int) -> list[int]:
    """From the root down to the node itself, by the parents alone."""
    path = [node]
    while trie.parent[path[-1]] >= 0:
        path.append(int(trie.parent[path[-1]]))
    return path[::-1]


@given(cell_lists, st.booleans())
def test_paths_reproduce_the_sequences(pairs, share: bool) -> None:
    cells = cells_of(pairs)
    trie = TokenTrie.build(cells, share_response_prefixes=share)
    for cell, path in zip(cells, trie.paths, strict=True):
        assert len(path) == len(cell.response)
        whole = ancestors(trie, int(path[-1]))
        assert trie.ids[whole].tolist() == list(sequence(cell))
        assert whole[len(cell.context) :] == path.tolist()


@given(cell_lists, st.booleans())
def test_order_depth_and_subtrees(pairs, share: bool) -> None:
    trie = TokenTrie.build(cells_of(pairs), share_response_prefixes=share)
    for node in range(len(trie)):
        assert trie.parent[node] < node
        assert trie.depth[node] == len(ancestors(trie, node)) - 1
    query, key = np.mgrid[: len(trie), : len(trie)]
    visible = (key <= query) & (query < trie.end[key])
    for node in range(len(trie)):
        assert np.flatnonzero(visible[node]).tolist() == ancestors(trie, node)
    assert trie.attention_pairs == visible.sum()


@given(cell_lists)
def test_no_prefix_stands_twice(pairs) -> None:
    cells = cells_of(pairs)
    prefixes = {sequence(cell)[:n] for cell in cells for n in range(1, len(sequence(cell)) + 1)}
    assert len(TokenTrie.build(cells)) == len(prefixes)


@given(cell_lists)
def test_without_response_sharing_only_contexts_merge(pairs) -> None:
    cells = cells_of(pairs)
    contexts = {tuple(cell.context[:n].tolist()) for cell in cells for n in range(1, len(cell.context) + 1)}
    responses = sum(len(cell.response) for cell in cells)
    trie = TokenTrie.build(cells, share_response_prefixes=False)
    assert len(trie) == len(contexts) + responses
    assert len(np.unique(np.concatenate(trie.paths))) == responses


@given(cell_lists)
def test_children_stand_in_the_order_of_first_need(pairs) -> None:
    cells = cells_of(pairs)
    trie = TokenTrie.build(cells)
    first_user: dict[int, int] = {}
    for number, path in enumerate(trie.paths):
        for node in ancestors(trie, int(path[-1])):
            first_user.setdefault(node, number)
    for node in range(len(trie)):
        siblings = [child for child in range(len(trie)) if trie.parent[child] == trie.parent[node]]
        assert [first_user[child] for child in siblings] == sorted(first_user[child] for child in siblings)


def test_a_cell_may_end_inside_another() -> None:
    trie = TokenTrie.build(cells_of([([1, 2, 3], [4]), ([1], [2]), ([1, 2], [3, 4, 5])]))
    assert trie.ids.tolist() == [1, 2, 3, 4, 5]
    assert [path.tolist() for path in trie.paths] == [[3], [1], [2, 3, 4]]


def test_equal_responses_are_one_branch() -> None:
    trie = TokenTrie.build(cells_of([([1], [2, 3]), ([1], [2, 3])]))
    assert len(trie) == 3
    assert trie.paths[0].tolist() == trie.paths[1].tolist()


def test_contexts_that_differ_at_once_have_roots_of_their_own() -> None:
    trie = TokenTrie.build(cells_of([([1, 5], [2]), ([3], [2]), ([1], [6])]))
    assert trie.roots.tolist() == [0, 4]
    assert trie.end[trie.roots].tolist() == [4, 6]


@given(cell_lists)
def test_cost_of_sharing(pairs) -> None:
    cells = cells_of(pairs)
    lengths = [len(sequence(cell)) for cell in cells]
    cost = sharing_cost(cells)
    assert cost.unshared_tokens == sum(lengths)
    assert cost.padded_tokens == len(cells) * max(lengths)
    assert cost.unshared_attention_pairs == sum(n * (n + 1) // 2 for n in lengths)
    assert cost.tokens <= cost.unshared_tokens and cost.attention_pairs <= cost.unshared_attention_pairs
    assert cost.sharing_ratio >= 1


def test_sharing_ratio_of_a_pair_tends_to_two() -> None:
    """Paper: (2P + C + R) / (P + C + R), which is 2 for long prompts and 1 for short ones."""

    def ratio(prompt: int) -> float:
        context = np.zeros(prompt, np.int64)
        return sharing_cost(
            [Cell(context, np.full(9, side)) for side in (1, 2)], share_response_prefixes=False
        ).sharing_ratio

    assert ratio(1) == pytest.approx(20 / 19)
    assert ratio(5000) == pytest.approx(2, abs=0.01)


@given(cell_lists, st.integers(12, 20), st.booleans())
def test_split_groups_fit_and_lose_nothing(pairs, budget: int, share: bool) -> None:
    cells = cells_of(pairs)
    groups = split_cells(cells, budget, share_response_prefixes=share)
    assert sorted(number for group in groups for number in group) == list(range(len(cells)))
    for group in groups:
        assert nodes(cells, group, share) <= budget
    if nodes(cells, range(len(cells)), share) <= budget:
        assert len(groups) == 1


@given(cell_lists, st.integers(12, 16))
def test_cuts_are_the_cheapest_of_the_depth_first_order(pairs, budget: int) -> None:
    cells = cells_of(pairs)
    order = np.argsort([path[-1] for path in TokenTrie.build(cells).paths], kind="stable").tolist()

    def cheapest(start: int) -> float:
        if start == len(order):
            return 0
        sizes = {stop: nodes(cells, order[start:stop]) for stop in range(start + 1, len(order) + 1)}
        return min(size + cheapest(stop) for stop, size in sizes.items() if size <= budget)

    assert sum(nodes(cells, group) for group in split_cells(cells, budget)) == cheapest(0)


def nodes(cells, group, share: bool = True) -> int:
    return len(TokenTrie.build([cells[number] for number in group], share_response_prefixes=share))


def test_a_cell_longer_than_the_budget_is_the_users_to_mend() -> None:
    with pytest.raises(PreferoError, match=r"7 tokens, more than the row's budget of 6.*max_length"):
        split_cells(cells_of([([1, 2, 3], [4, 5, 6, 7]), ([1], [2])]), 6)
