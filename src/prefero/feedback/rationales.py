"""Rationales that differ: near-copies dropped, and pairs that share the fewest words.

Wang et al., 2024, arXiv 2407.18248 (DPO-ST), and its released code.
"""

from __future__ import annotations

from collections.abc import Sequence

from prefero.evaluate.diversity import jaccard


def deduplicated(texts: Sequence[str], threshold: float = 0.7) -> list[str]:
    """The texts in their order, without those whose words overlap with an earlier kept one's by more than
    ``threshold`` (Jaccard's share of the sets of words)."""
    kept: list[str] = []
    for text in texts:
        if all(jaccard(text.split(), other.split()) <= threshold for other in kept):
            kept.append(text)
    return kept


def right_rationales(gold: str, right: Sequence[str], threshold: float = 0.7) -> list[str]:
    """The gold rationale, which is always kept, and right ones that are no near-copies, in order of their
    text."""
    return deduplicated([gold, *sorted(right)], threshold)


def wrong_rationales(wrong: Sequence[str], threshold: float = 0.7) -> list[str]:
    """Wrong rationales that are no near-copies, in order of their text."""
    return deduplicated(sorted(wrong), threshold)


def least_alike(right: Sequence[str], wrong: Sequence[str], count: int = 3) -> list[tuple[str, str, float]]:
    """The ``count`` pairs (right, wrong) that share the fewest words, with their similarity; of equal ones
    the earlier (the authors draw)."""
    pairs = [(a, b, jaccard(a.split(), b.split())) for a in right for b in wrong]
    return sorted(pairs, key=lambda pair: pair[2])[:count]
