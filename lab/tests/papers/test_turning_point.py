from __future__ import annotations

import pytest

from prefero.errors import PreferoError
from prefero_lab.papers.turning_point import turning_point


def test_a_rise_and_fall_turns_in_between() -> None:
    values = [-5.0, -4.0, -3.0, -2.0, -1.0]
    found = turning_point(values, [0.4, 0.55, 0.6, 0.55, 0.4])
    assert found.at == pytest.approx(-3)
    assert found.quadratic_error < 0.2 * found.linear_error


def test_a_steady_rise_does_not_turn() -> None:
    values = [-5.0, -4.0, -3.0, -2.0, -1.0]
    found = turning_point(values, [0.1, 0.3, 0.45, 0.55, 0.6])
    assert found.at is None, "the parabola's maximum lies beyond what was measured"
    assert turning_point(values, [0.4, 0.2, 0.1, 0.2, 0.4]).at is None, "a minimum is no turn of quality"


def test_too_little_to_tell_is_refused() -> None:
    with pytest.raises(PreferoError, match="at least four"):
        turning_point([1.0, 2.0, 3.0], [0.1, 0.2, 0.3])
    with pytest.raises(PreferoError, match="different values"):
        turning_point([1.0] * 4, [0.1, 0.2, 0.3, 0.4])
