"""Pairs out of a model's own programs and its own tests, neither of which can be trusted alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Tested:
    """A program and a test of it, by their places; they are written one after the other in one response."""

    code: int
    test: int


def minimax_pair(
    passes: Sequence[Sequence[bool]], rejected_test: Literal["fewest", "most"] = "fewest"
) -> tuple[Tested, Tested] | None:
    """The chosen and the rejected combination of a program and a test; None if the matrix tells none apart.

    ``passes[i][j]`` says whether program i passes test j. Chosen: the program that passes most tests, with
    the test that most programs pass among those it passes. Rejected: the program that passes fewest, with a
    test that it fails: the one that fewest programs pass, or most. That a program passes a test is true of
    the two together, however wrong either is. Of equal ones the first is taken. Liu et al., 2024, arXiv
    2411.13611.
    """
    by_code = [sum(row) for row in passes]
    by_test = [sum(column) for column in zip(*passes, strict=True)]
    if not any(by_code) or min(by_code) == len(by_test):
        return None
    best, worst = by_code.index(max(by_code)), by_code.index(min(by_code))
    if best == worst:
        return None
    passed = [test for test, good in enumerate(passes[best]) if good]
    failed = [test for test, good in enumerate(passes[worst]) if not good]
    hardest = min if rejected_test == "fewest" else max
    return (
        Tested(best, max(passed, key=by_test.__getitem__)),
        Tested(worst, hardest(failed, key=by_test.__getitem__)),
    )
