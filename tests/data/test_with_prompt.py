"""The whole text as a response: nothing predicts its first token, and holes stay holes."""

from __future__ import annotations

import numpy as np

from prefero.data.arrange import with_prompt
from prefero.data.trie import Cell, TokenExample


def test_the_prompt_is_scored_from_its_second_token_on_and_holes_stay_holes() -> None:
    plain = Cell(np.array([5, 6, 7]), np.array([8, 9]))
    holed = Cell(np.array([5]), np.array([8, 9, 3]), np.array([True, False, True]))
    ((first, second),) = with_prompt([TokenExample((plain, holed), {}, 0)], None, 0)
    assert first.context.tolist() == [5]
    assert first.response.tolist() == [6, 7, 8, 9]
    assert first.scored is None
    assert second.context.tolist() == [5]
    assert second.response.tolist() == [8, 9, 3]
    assert second.scored is not None
    assert second.scored.tolist() == [True, False, True]
