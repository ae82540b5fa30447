"""Readings of the same examples under other prompts."""

from __future__ import annotations

import numpy as np
import pytest

from prefero.data.arrange import unprompted
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError


def example(index: int, *contexts: list[int]) -> TokenExample:
    cells = [
        Cell(np.array(context, dtype=np.int64), np.array([90 + index, 99], dtype=np.int64))
        for context in contexts
    ]
    return TokenExample(tuple(cells), {}, index)


def contexts(examples: list[TokenExample]) -> list[list[int]]:
    return [cell.context.tolist() for cells in unprompted(examples, None, 0) for cell in cells]


def test_a_response_without_its_prompt_stands_behind_the_template() -> None:
    data = [example(0, [1, 2, 5, 6, 8, 9], [1, 2, 5, 6, 8, 9]), example(1, [1, 2, 7, 8, 9], [1, 2, 7, 8, 9])]
    assert contexts(data) == [[1, 2, 8, 9]] * 4
    view = unprompted(data, None, 0)
    assert [cells[0].response.tolist() for cells in view] == [[90, 99], [91, 99]]


def test_what_prompts_share_is_not_counted_twice() -> None:
    """[1, 1] begins and ends with the one token that both have."""
    assert contexts([example(0, [1]), example(1, [1, 1])]) == [[1], [1]]


def test_one_prompt_for_all_is_part_of_the_template() -> None:
    assert contexts([example(0, [1, 2, 3]), example(1, [1, 2, 3])]) == [[1, 2, 3]] * 2


def test_responses_that_nothing_stands_before_are_refused() -> None:
    with pytest.raises(PreferoError, match="share no token"):
        unprompted([example(0, [1, 2]), example(1, [3, 4])], None, 0)
