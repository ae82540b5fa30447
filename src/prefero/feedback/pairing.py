"""From scored responses to pairs: pure functions of their arguments and a generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from prefero.errors import PreferoError
from prefero.feedback.judges import Scored


def bradley_terry_pairs(
    scored: Sequence[Scored], *, scale: float, generator: torch.Generator
) -> list[dict[str, Any]]:
    """Pairs of neighbours (0 and 1, 2 and 3, …), labelled as a Bradley–Terry annotator would.

    The first of two is chosen with probability σ(scale · (its score - the other's)); ``scale`` in 1/score,
    from 0 (coin toss) upwards. Two equal texts make no pair, nor does a response that was cut off, as a row
    cannot say that it was. Rows are in the explicit-prompt layout, with the scores.

    Raises:
        PreferoError: neighbours answer different prompts, or their number is odd.
    """
    if len(scored) % 2:
        raise PreferoError(f"pairs need an even number of responses, two a prompt; got {len(scored)}.")
    firsts, seconds = scored[::2], scored[1::2]
    draws = torch.rand(len(firsts), generator=generator, dtype=torch.float64)
    gaps = torch.tensor(
        [a.score - b.score for a, b in zip(firsts, seconds, strict=True)], dtype=torch.float64
    )
    first_chosen = (draws < torch.sigmoid(scale * gaps)).tolist()
    rows = []
    for a, b, first in zip(firsts, seconds, first_chosen, strict=True):
        if a.sample.prompt != b.sample.prompt:
            raise PreferoError(f"two responses of a pair answer {a.sample.prompt!r} and {b.sample.prompt!r}.")
        if a.sample.text == b.sample.text or not (a.sample.ended and b.sample.ended):
            continue
        chosen, rejected = (a, b) if first else (b, a)
        rows.append(
            {
                "prompt": a.sample.prompt,
                "chosen": chosen.sample.text,
                "rejected": rejected.sample.text,
                "chosen_score": chosen.score,
                "rejected_score": rejected.score,
            }
        )
    return rows
