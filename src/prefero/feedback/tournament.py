"""Tournaments: pairs from a judge that compares two responses, where there are no scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prefero.feedback.pairing import Pair

Beats = Callable[[int, int], bool]
"""Whether the first of two responses, by their places, is preferred."""


def tournament(order: Sequence[int], beats: Beats, *, rounds: int | None = None) -> list[Pair]:
    """The comparisons of a knock-out tournament, as pairs: neighbours in ``order`` meet, winners go on.

    Eight responses make 4 + 2 + 1 pairs, or with ``rounds=1`` the 4 disjoint ones of the first round; without
    a limit the last pair's better response is the winner. One that has no neighbour goes on unbeaten. The
    order should be drawn at random. Liu et al., 2023, arXiv 2309.06657, take either from rejection sampling's
    responses, Zhang et al., 2024, arXiv 2407.00617, the winner and a loser.
    """
    pairs: list[Pair] = []
    standing, played = list(order), 0
    while len(standing) > 1 and (rounds is None or played < rounds):
        meeting = list(zip(standing[::2], standing[1::2], strict=False))
        results = [(a, b) if beats(a, b) else (b, a) for a, b in meeting]
        pairs += results
        unbeaten = standing[-1:] if len(standing) % 2 else []
        standing = [better for better, _ in results] + unbeaten
        played += 1
    return pairs
