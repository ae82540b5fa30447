"""Which corruption of an image or a clip makes a useful rejected view."""

from __future__ import annotations

from collections.abc import Sequence

from prefero.feedback.pairing import known


def close_set(similarity: Sequence[float], count: int) -> list[int]:
    """The ``count`` candidates most like the original, the most alike first; of equal ones the earlier."""
    return sorted(range(len(known(similarity))), key=lambda place: -similarity[place])[:count]


def close_to_far(similarity: Sequence[float], prompt_similarity: Sequence[float], count: int = 4) -> int:
    """The candidate to reject: close to the original by what is seen, far from it by what the prompt asks.

    Among the ``count`` candidates with the largest ``similarity`` (of features that know no prompt), the one
    with the smallest ``prompt_similarity`` (of features after the prompt). In the other order unrelated clips
    would win, whose preference is trivial. How alike two clips are is the caller's measure: the paper's own,
    and its count, are not known exactly. Ding et al., 2025, arXiv 2504.05810.

    Raises ValueError without candidates, or if the two lists differ in length.
    """
    if not similarity or len(similarity) != len(prompt_similarity):
        raise ValueError(
            f"{len(similarity)} similarities and {len(prompt_similarity)} to the prompt; "
            "there is one of each for every candidate, and one candidate at least"
        )
    known(prompt_similarity)
    return min(close_set(similarity, max(count, 1)), key=lambda place: prompt_similarity[place])
