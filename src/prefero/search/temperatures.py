"""Sampling temperatures that change from step to step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator


def rising(start: float, step: float, highest: float) -> Iterator[float]:
    """The temperature of the i-th regenerated step, counted from the split: min(start + i · step, highest).

    Rising temperatures lead a solution that began well astray. Lu et al., 2024, arXiv 2407.00782.
    """
    return (min(start + i * step, highest) for i in itertools.count())
