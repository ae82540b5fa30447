"""Constraints that a program can check, and responses compared by how many they meet.

Yun et al., 2025, arXiv 2502.12375 (UltraGen), and its released code.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from prefero.feedback.pairing import known


class Constraint(Protocol):
    """What a text meets or does not."""

    def met_by(self, text: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class KeywordCount:
    """``token`` occurs exactly ``count`` times, in any case, within words too."""

    token: str
    count: int

    def met_by(self, text: str) -> bool:
        return text.lower().count(self.token.lower()) == self.count


@dataclass(frozen=True, slots=True)
class Paragraphs:
    """Exactly so many pieces between blank lines."""

    count: int

    def met_by(self, text: str) -> bool:
        return len(text.strip().split("\n\n")) == self.count


@dataclass(frozen=True, slots=True)
class WordsBetween:
    """From ``least`` to ``most`` words, both included."""

    least: int
    most: int

    def met_by(self, text: str) -> bool:
        return self.least <= len(text.split()) <= self.most


@dataclass(frozen=True, slots=True)
class Case:
    """All letters are of one case."""

    case: Literal["lowercase", "uppercase"]

    def met_by(self, text: str) -> bool:
        return text == (text.lower() if self.case == "lowercase" else text.upper())


@dataclass(frozen=True, slots=True)
class StartsWith:
    """The first word, without punctuation at its ends and in any case."""

    token: str

    def met_by(self, text: str) -> bool:
        first = text.split()[:1]
        return bool(first) and first[0].strip(string.punctuation).lower() == self.token.lower()


def satisfaction(met: Sequence[bool]) -> float:
    """The share of the constraints that a text meets (CSR); 1 without any."""
    return sum(map(bool, met)) / len(met) if met else 1.0


def diverse(
    similarity: Sequence[Sequence[float]],
    count: int,
    first: int = 0,
    *,
    by: Literal["most_alike", "least_alike"] = "most_alike",
) -> list[int]:
    """``count`` constraints that differ, found one after the other: next is the one that is least like those
    chosen, of equal ones the first.

    ``most_alike`` measures a candidate by the chosen one that it is most like. The released code keeps the
    least similarity instead, so that a copy of one chosen candidate is admitted if it is unlike another.
    """
    for row in similarity:
        known(row)
    aggregate = max if by == "most_alike" else min
    chosen = [first]
    while len(chosen) < min(count, len(similarity)):
        left = [place for place in range(len(similarity)) if place not in chosen]
        chosen.append(min(left, key=lambda place: aggregate(similarity[place][one] for one in chosen)))
    return chosen
