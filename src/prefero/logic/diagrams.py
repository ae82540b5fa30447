"""Decision diagrams: a set of assignments as questions about one proposition after the other.

A proposition that does not matter is not asked about, so that its probability does not enter a count: the
count of M(y_w) ∧ Ref(y_l) is one product, with no 1 − p in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Decision:
    """A question about proposition ``index``, and what remains if it holds and if it does not; True and False
    are the ends."""

    index: int
    if_true: Decision | bool
    if_false: Decision | bool


@cache
def diagram(assignments: int, propositions: int) -> Decision | bool:
    """The reduced diagram of a set of assignments of so many propositions; the last is asked about first."""
    if assignments == 0:
        return False
    if assignments == (1 << 2**propositions) - 1:
        return True
    half = 2 ** (propositions - 1)
    low = assignments & ((1 << half) - 1)
    if_false = diagram(low, propositions - 1)
    if_true = diagram(assignments >> half, propositions - 1)
    return if_true if if_true == if_false else Decision(propositions - 1, if_true, if_false)
