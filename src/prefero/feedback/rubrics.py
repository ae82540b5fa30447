"""Pairs whose system prompt decides which response is the better: the same two, both ways round.

Gallego, 2025, arXiv 2506.11702 (configurable preference tuning).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Graded:
    """A response written for one ``level`` of a ``rubric``, and the ``system`` prompt that asks for it."""

    prompt: str
    rubric: str
    level: str
    system: str
    response: str


def mirrored_pairs(graded: Sequence[Graded]) -> list[tuple[Graded, Graded]]:
    """All ordered pairs of the same prompt and rubric at different levels; the system prompt is the chosen
    one's. Each pair comes twice, the second time the other way round: keep both in one split."""
    return [
        (chosen, rejected)
        for chosen in graded
        for rejected in graded
        if (chosen.prompt, chosen.rubric) == (rejected.prompt, rejected.rubric)
        and chosen.level != rejected.level
    ]
