"""Sampled chains of thought: judged by their final answers, voted on, cut short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeGuard

from prefero.feedback.pairing import best_and_worst, known


def right_and_wrong(answers: Sequence[str], gold: str) -> tuple[list[int], list[int]]:
    """The places of the chains that end in the gold answer, and of the others."""
    right = [place for place, answer in enumerate(answers) if answer == gold]
    return right, [place for place, answer in enumerate(answers) if answer != gold]


def teaches(
    answers: Sequence[str], gold: str, min_accuracy: float = 0.25, max_accuracy: float = 0.85
) -> bool:
    """Whether a question is neither too hard nor too easy to make pairs of: its accuracy is in the range.

    Zhang et al., 2024, arXiv 2410.16198; the limits are reported, not taken from the code.
    """
    right, wrong = right_and_wrong(answers, gold)
    return bool(right and wrong) and min_accuracy <= len(right) / len(answers) <= max_accuracy


def best_of(answers: Sequence[str], rewards: Sequence[float]) -> str:
    """The answer of the chain with the largest reward; of equal ones the first."""
    return answers[best_and_worst(rewards)[0]]


def voted(answers: Sequence[str | None], rewards: Sequence[float] | None = None) -> str | None:
    """The answer whose chains have the largest sum of rewards; without rewards every chain counts one.

    Of equal ones the first seen. Rewards are implicit ones, log π − log π_ref, and may be negative: an answer
    does not win by being frequent alone. An answer that could not be read, None or empty, has no vote; None
    if there is no other.
    """
    totals: dict[str, float] = {}
    counted = [1.0] * len(answers) if rewards is None else known(rewards)
    for answer, reward in zip(answers, counted, strict=True):
        if is_read(answer):
            totals[answer] = totals.get(answer, 0.0) + reward
    return max(totals, key=totals.__getitem__, default=None)


def is_read(answer: str | None) -> TypeGuard[str]:
    """Whether a final answer could be read: it is there, and not empty."""
    return answer is not None and bool(answer.strip())


def cut(text: str, length: float, fewest: int = 90) -> str:
    """The first words of a response, split at single spaces.

    ``length`` above 1 is a number of words; otherwise a share of them, of which ``fewest`` are kept at least.
    The final answer, and the end with it, is cut off on purpose: chains are compared by how they begin.
    """
    words = text.split(" ")
    kept = int(length) if length > 1 else max(int(length * len(words)), fewest)
    return " ".join(words[:kept])


Source = Literal["student_cot", "student_direct", "teacher"]

Origin = tuple[Source, int]
"""Where a response comes from, and its place there."""


def self_refine_pairs(
    reasoned: Sequence[bool], direct: Sequence[bool], *, reject_right_direct: bool = False
) -> list[tuple[Origin, Origin]]:
    """Pairs from the correctness of a student's samples that reason first, and of those that do not.

    Chosen are the right reasoned ones, or where there is none the teacher's demonstration; rejected the wrong
    direct ones, then the wrong reasoned ones. The paper may mean to reject any direct answer, right ones too
    (``reject_right_direct``), which teaches to be wordy. Ranaldi and Freitas, 2024, arXiv 2405.00402.
    """
    chosen: list[Origin] = [("student_cot", place) for place, right in enumerate(reasoned) if right]
    rejected: list[Origin] = [
        ("student_direct", place) for place, right in enumerate(direct) if reject_right_direct or not right
    ]
    rejected += [("student_cot", place) for place, right in enumerate(reasoned) if not right]
    return [(better, worse) for better in chosen or [("teacher", 0)] for worse in rejected]
