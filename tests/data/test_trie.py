"""The token trie against brute force: what is shared, and what may be seen."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from prefero.data.trie import Cell, TokenTrie

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
    roots = np.flatnonzero(trie.parent < 0)
    assert roots.tolist() == [0, 4]
    assert trie.end[roots].tolist() == [4, 6]
