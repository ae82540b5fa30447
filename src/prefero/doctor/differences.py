"""How far two texts differ, in words."""

from __future__ import annotations

from collections.abc import Sequence

MOST = 2000
"""Words of a text that are compared; what is behind them is not."""


def words(text: str) -> list[str]:
    return text.split()[:MOST]


def shared_beginning(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words two texts share at their beginning."""
    for at, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return at
    return min(len(one), len(other))


def changed_share(one: Sequence[str], other: Sequence[str]) -> float:
    """The share of the words of both that have to be deleted or inserted to turn one text into the other: 0
    for equal texts, 1 for texts without a common word."""
    total = len(one) + len(other)
    return 1 - 2 * common_words(one, other) / total if total else 0.0


def common_words(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, with the bits of one number for the words of a text.

    Crochemore et al., 2001; Hyyrö, 2004: n additions of numbers of m bits.
    """
    head = shared_beginning(one, other)
    one, other = one[head:], other[head:]
    tail = shared_beginning(one[::-1], other[::-1])
    if tail:
        one, other = one[:-tail], other[:-tail]
    if not one or not other:
        return head + tail
    places: dict[str, int] = {}
    for at, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << len(one)) - 1
    row = full
    for word in other:
        if matches := row & places.get(word, 0):
            row = (row + matches | row - matches) & full
    return head + tail + len(one) - row.bit_count()
