"""Programs and what became of them in their tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from prefero.feedback.pairing import Pair

Outcome = Literal["pass", "fail", "runtime_error", "timeout", "compile_error"]

COARSE: Mapping[str, float] = {
    "pass": 1.0,
    "fail": -0.3,
    "runtime_error": -0.6,
    "timeout": -0.6,
    "compile_error": -1.0,
}
"""The rule rewards of Le et al., 2022, arXiv 2207.01780 (CodeRL)."""


def passed_share(outcomes: Sequence[Outcome]) -> float:
    """Tests passed over tests; 0 without any."""
    return outcomes.count("pass") / len(outcomes) if outcomes else 0.0


def coarse_reward(outcomes: Sequence[Outcome]) -> float:
    """The reward of the worst outcome: programs that pass many tests and few share it."""
    return min((COARSE[outcome] for outcome in outcomes), default=COARSE["compile_error"])


def passing_and_failing(
    outcomes: Sequence[Sequence[Outcome]], *, must_compile: bool = False
) -> tuple[list[int], list[int]]:
    """The programs that pass all their tests, and those that do not; with ``must_compile`` only those of the
    latter that compile. Miao et al., 2024, arXiv 2410.18585."""
    passing = [place for place, of in enumerate(outcomes) if of and set(of) == {"pass"}]
    failing = [
        place
        for place, of in enumerate(outcomes)
        if place not in passing and not (must_compile and "compile_error" in of)
    ]
    return passing, failing


def pairs_by_tests(outcomes: Sequence[Sequence[Outcome]], *, must_compile: bool = False) -> list[Pair]:
    """Every passing program against every failing one."""
    passing, failing = passing_and_failing(outcomes, must_compile=must_compile)
    return [(better, worse) for better in passing for worse in failing]


def faster(first: tuple[float, bool], second: tuple[float, bool], least: float = 0.0) -> bool | None:
    """Of two programs, each its cost (time, memory) and whether it passes, whether the first costs less.

    None if one of them fails or they cost nearly the same: by no more than the share ``least`` of the larger.
    Du et al., 2025, arXiv 2505.23387, compare passing human solutions; costs are noisy, so a margin is wise.
    """
    (ours, passes), (theirs, also) = first, second
    if not (passes and also) or abs(ours - theirs) <= least * max(abs(ours), abs(theirs)):
        return None
    return ours < theirs
