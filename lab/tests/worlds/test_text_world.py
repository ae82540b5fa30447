from __future__ import annotations

import pytest

from prefero.errors import PreferoError
from prefero_lab.worlds import text_world


@pytest.mark.parametrize("name", ["reviews", "instructions", "safety"])
def test_a_text_world_has_the_name_that_it_is_found_by(name: str) -> None:
    assert text_world(name).name == name


def test_an_unknown_text_world_is_refused_with_the_nearest() -> None:
    with pytest.raises(PreferoError, match="did you mean 'safety'"):
        text_world("safty")
