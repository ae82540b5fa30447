"""What a model answers when it is asked to judge, by the probabilities of its answers, not by one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def yes_share(
    logits: Float[Tensor, "response vocabulary"], yes: Sequence[int], no: Sequence[int]
) -> Float[Tensor, " response"]:
    """P(yes)/(P(yes) + P(no)) from the next-token logits behind the question, one row for each response.

    Several spellings of an answer add up. A word of several tokens is known by its first: give that one's id
    alone. Garg et al., 2025, Implicit preference optimization, arXiv 2502.16182; the squared loss of the same
    initials is another method.
    """
    answers = [torch.logsumexp(logits[:, list(ids)], dim=1) for ids in (yes, no)]
    return torch.sigmoid(answers[0] - answers[1])


def answer_mass(
    logits: Float[Tensor, "response vocabulary"], yes: Sequence[int], no: Sequence[int]
) -> Float[Tensor, " response"]:
    """P(yes) + P(no): where it is tiny the model does not answer the question, and its share means little."""
    return logits.softmax(1)[:, [*yes, *no]].sum(1)


def expected_score(scores: Sequence[float], logps: Sequence[float], *, normalised: bool = True) -> float:
    """Σ p · score over a judge's likeliest first tokens, each of which is a score. Liu et al., 2023, arXiv
    2303.16634 (G-Eval).

    Their probabilities add up to less than 1: normalised, the score is within its scale; Kim et al., 2025,
    whose code leaves that out, get lower ones.
    """
    shares = [math.exp(logp) for logp in logps]
    total = math.fsum(share * score for share, score in zip(shares, scores, strict=True))
    return total / math.fsum(shares) if normalised else total
