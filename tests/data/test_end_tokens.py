"""Every response ends once, whatever it looks like."""

from __future__ import annotations

import pytest

from prefero.data.formats import load_examples
from prefero.data.tokenize import tokenize


@pytest.mark.parametrize("response", [">", "end|>", "|", "a >", "e", "im", "d"])
def test_a_response_that_ends_like_a_mark_is_ended_once(chatml, response: str) -> None:
    """What the template's end mark ends with is no reason to add another end token."""
    row = {
        "prompt": [{"role": "user", "content": "2+2="}],
        "chosen": [{"role": "assistant", "content": response}],
        "rejected": [{"role": "assistant", "content": "5"}],
    }
    (example,) = tokenize(load_examples([row]), chatml, roles=("chosen", "rejected"))
    assert chatml.decode(example.cells[0].response) == f"{response}<|im_end|>"
