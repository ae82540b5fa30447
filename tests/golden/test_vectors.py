"""Every stored golden vector, to a relative error of 1e-6, gradients included."""

from __future__ import annotations

import math

import pytest

from tests.golden.adapters import adapters
from tests.golden.compare import TOLERANCE, error, errors
from tests.golden.not_built import NOT_BUILT, is_built
from tests.golden.vector import FOLDER, Vector, read

VECTORS = [vector for file in sorted(FOLDER.glob("*.json")) for vector in read(file)]
BUILT = [vector for vector in VECTORS if is_built(vector)]
REST = [vector for vector in VECTORS if not is_built(vector)]


def name(vector: Vector) -> str:
    return f"{vector.paper}-{vector.method}-{vector.origin}"


@pytest.mark.parametrize("vector", BUILT, ids=name)
def test_vector(vector: Vector) -> None:
    assert vector.key in adapters(), f"nothing under tests/golden/adapters computes {vector.method}"
    by_name = errors(vector, adapters()[vector.key])
    assert all(value <= TOLERANCE for value in by_name.values()), by_name


@pytest.mark.parametrize("vector", REST, ids=name)
def test_what_is_not_built_does_not_pass(vector: Vector) -> None:
    adapter = adapters().get(vector.key)
    worst = max(errors(vector, adapter).values()) if adapter else math.inf
    assert not worst <= TOLERANCE, "it is built now: take it out of tests/golden/not_built.py"


def test_each_entry_of_what_is_not_built_is_one_vector() -> None:
    """An entry that fits several would excuse more than it says."""
    assert len(REST) == len(NOT_BUILT) == 10


@pytest.mark.parametrize(
    ("expected", "actual"),
    [([1.0, 2.0], [1.0]), ([1.0], [1.1]), (1.0, float("nan")), ("a", "b"), (3, 4), (None, 0.0)],
)
def test_comparison_sees_a_difference(expected: object, actual: object) -> None:
    assert not error(expected, actual) <= TOLERANCE
