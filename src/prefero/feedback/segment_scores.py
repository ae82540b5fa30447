"""Responses cut into sentences and code blocks, each with a score: what 2D-DPO trains on, and its noise.

Li et al., 2024, arXiv 2410.19720; Shashidhar et al., 2025, arXiv 2505.01706.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import torch

from prefero.errors import PreferoError

CODE_BLOCK = re.compile(r"^```.*?(?:^```[^\S\n]*$\n?|\Z)", re.DOTALL | re.MULTILINE)
SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"'”’)\]]*\s+|\n+|(?<=[。！？])(?=\S)")


def cut(text: str) -> list[str]:
    """The sentences and fenced code blocks of a text, each with the white space behind it: together they are
    the text again."""
    ends = {len(text)}
    done = 0
    for block in (*CODE_BLOCK.finditer(text), None):
        stop = len(text) if block is None else block.start()
        ends |= {match.end() for match in SENTENCE_END.finditer(text, done, stop)} | {stop}
        if block is not None:
            done = block.end()
            ends.add(done)
    edges = sorted(ends - {0})
    parts: list[str] = []
    for start, end in zip([0, *edges], edges, strict=False):
        piece = text[start:end]
        if piece.strip() or not parts:
            parts.append(piece)
        else:
            parts[-1] += piece
    return parts


def segment_spans(text: str, scores: Sequence[float]) -> list[dict[str, Any]]:
    """The segments of a response as a row's ``chosen_spans`` or ``rejected_spans`` holds them, with a score
    for each.

    Raises:
        PreferoError: there are not as many scores as segments.
    """
    parts = cut(text)
    if len(parts) != len(scores):
        raise PreferoError(
            f"{len(scores)} scores for {len(parts)} segments. Expected one for each: {parts!r}"
        )
    spans, start = [], 0
    for number, (part, score) in enumerate(zip(parts, scores, strict=True), 1):
        if part.strip():
            spans.append({"start": start, "end": start + len(part), "segment": number, "score": score})
        start += len(part)
    return spans


Noise = Literal["uniform", "gaussian", "swap"]


def noisy_scores(
    scores: Sequence[float],
    *,
    noise: Noise,
    epsilon: float,
    generator: torch.Generator,
    low: float = 0.0,
    high: float = 4.0,
) -> list[float]:
    """Segment scores as a careless annotator would give them.

    ``uniform`` adds errors within ± ``epsilon``, ``gaussian`` errors of that standard deviation; both stay
    between ``low`` and ``high``. ``swap`` gives each segment, with probability ``epsilon``, the score of
    another one drawn at random.
    """
    exact = torch.tensor(scores, dtype=torch.float64)
    if noise == "swap":
        swapped = torch.rand(len(exact), generator=generator, dtype=torch.float64) < epsilon
        other = torch.randint(max(len(exact) - 1, 1), (len(exact),), generator=generator)
        places = torch.arange(len(exact))
        other = (other + (other >= places)).clamp(max=max(len(exact) - 1, 0))
        return torch.where(swapped, exact[other], exact).tolist()
    if noise == "uniform":
        error = 2 * torch.rand(len(exact), generator=generator, dtype=torch.float64) - 1
    else:
        error = torch.randn(len(exact), generator=generator, dtype=torch.float64)
    return (exact + epsilon * error).clamp(low, high).tolist()
