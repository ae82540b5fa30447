"""Every stored golden vector that has an adapter, to a relative error of 1e-6, gradients included."""

from __future__ import annotations

import pytest

from tests.golden.adapters import adapters
from tests.golden.compare import TOLERANCE, error, errors
from tests.golden.vector import FOLDER, Vector, read

VECTORS = [
    vector for file in sorted(FOLDER.glob("*.json")) for vector in read(file) if vector.key in adapters()
]


@pytest.mark.parametrize(
    "vector", VECTORS, ids=lambda vector: f"{vector.paper}-{vector.method}-{vector.origin}"
)
def test_vector(vector: Vector) -> None:
    by_name = errors(vector, adapters()[vector.key])
    assert all(value <= TOLERANCE for value in by_name.values()), by_name


@pytest.mark.parametrize(
    ("expected", "actual"),
    [([1.0, 2.0], [1.0]), ([1.0], [1.1]), (1.0, float("nan")), ("a", "b"), (3, 4), (None, 0.0)],
)
def test_comparison_sees_a_difference(expected: object, actual: object) -> None:
    assert not error(expected, actual) <= TOLERANCE
