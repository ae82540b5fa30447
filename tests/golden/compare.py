"""How far a computed value is from the expected one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from tests.golden.adapters import Adapter
from tests.golden.vector import Vector

TOLERANCE = 1e-6
FLOOR = 1e-6
"""Below this magnitude an expected number is compared absolutely: a gradient of 0 has no relative error."""


def error(expected: Any, actual: Any) -> float:
    """The largest relative error among the numbers; infinite where the structure or an exact value
    differs."""
    if isinstance(actual, torch.Tensor):
        actual = actual.detach().tolist()
    elif hasattr(actual, "tolist"):
        actual = actual.tolist()
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping):
            return math.inf
        return max((error(value, actual.get(name)) for name, value in expected.items()), default=0.0)
    if isinstance(expected, list):
        if not isinstance(actual, list | tuple) or len(expected) != len(actual):
            return math.inf
        return max((error(e, a) for e, a in zip(expected, actual, strict=True)), default=0.0)
    if (
        not is_number(expected)
        or not is_number(actual)
        or (isinstance(expected, int) and isinstance(actual, int))
    ):
        return 0.0 if expected == actual else math.inf
    if not math.isfinite(expected):
        return 0.0 if actual == expected or (math.isnan(expected) and math.isnan(actual)) else math.inf
    difference = abs(expected - actual)
    return difference / max(abs(expected), FLOOR) if math.isfinite(difference) else math.inf


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def errors(vector: Vector, adapter: Adapter) -> dict[str, float]:
    """The error of every expected name; infinite for one that the adapter does not return."""
    actual = adapter(vector.params, vector.inputs)
    return {
        name: error(value, actual[name]) if name in actual else math.inf
        for name, value in vector.expected.items()
    }
