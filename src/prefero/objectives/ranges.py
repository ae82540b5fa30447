"""The ranges of method arguments, written where the arguments are: ``beta: Positive = 0.1``."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, slots=True)
class Range:
    """An interval of numbers; round brackets leave the end out."""

    low: float = -math.inf
    high: float = math.inf
    low_included: bool = False
    high_included: bool = False

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.low_included else value > self.low
        below = value <= self.high if self.high_included else value < self.high
        return above and below and abs(value) <= sys.float_info.max  # which no NaN is

    def __str__(self) -> str:
        ends = "[" if self.low_included else "(", "]" if self.high_included else ")"
        low, high = (f"{end:g}".replace("inf", "∞") for end in (self.low, self.high))
        return f"{ends[0]}{low}, {high}{ends[1]}"


Positive = Annotated[float, Range(0)]
NonNegative = Annotated[float, Range(0, low_included=True)]
AtLeastOne = Annotated[float, Range(1, low_included=True)]
Count = Annotated[int, Range(1, 1000, low_included=True, high_included=True)]
"""Of what weights are made for, so that a slip of the hand does not fill the memory."""
Share = Annotated[float, Range(0, 1, low_included=True, high_included=True)]
NonZeroShare = Annotated[float, Range(0, 1, high_included=True)]
OpenShare = Annotated[float, Range(0, 1)]
FlipRate = Annotated[float, Range(0, 0.5, low_included=True)]
NonZeroFlipRate = Annotated[float, Range(0, 0.5)]
Real = Annotated[float, Range()]
