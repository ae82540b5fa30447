"""Pairs of steps reach the methods that read which step went wrong."""

from __future__ import annotations

import pytest

from tests.data.test_formats import LAYOUT_ROWS, only


@pytest.mark.parametrize(("taken", "number"), [("Step 1: 2+2=4.\nStep 2: ", 2), ("", 1)])
def test_the_step_of_the_pair_is_the_one_that_went_wrong(taken: str, number: int) -> None:
    """So that step_dpo, which scores the tokens of that step, scores all of them."""
    example = only({**LAYOUT_ROWS["steps"][0], "initial_reason_steps": taken})
    assert example.columns["error_step"] == number
    assert {span.index for response in example.responses for span in response.spans} == {number}
