"""Answers to reject because the model looked at the wrong image.

Liu et al., 2024, arXiv 2410.17637 (MIA-DPO), and its released code. Attention is that of one middle layer
(the 17th of 32), averaged over heads and generated tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError

SEQUENCE_THRESHOLDS = {2: 0.8, 3: 0.7, 4: 0.6, 5: 0.6}
"""By the number of images one after the other; at or below is rejected."""

GRID_THRESHOLDS = {2: 0.7, 3: 0.6, 4: 0.5, 6: 0.4, 9: 0.3}
"""By the number of cells of a collage; below is rejected."""

INSERT_THRESHOLD = 0.8
"""For an image inside another; below is rejected."""

LEAST_PERPLEXITY = 1.1
"""Answers that the model is surer of than this are not rejected."""


def image_shares(
    attention: Float[Tensor, "head generated position"], images: Sequence[tuple[int, int]]
) -> Float[Tensor, " image"]:
    """Each image's share of the attention on images: of the means over the places of each, from its start to
    before its end. What the text gets makes no difference."""
    mean = attention.mean((0, 1))
    per_image = [mean[start:end].mean() for start, end in images]
    total = sum(per_image[1:], per_image[0])
    return mean.new_tensor([float(one / total) for one in per_image])


def grid_shares(attention: Float[Tensor, "row column"], rows: int, columns: int) -> Float[Tensor, " cell"]:
    """The share of each cell of a collage in the attention on its patches, row by row.

    Raises:
        PreferoError: the patches do not divide into so many cells.
    """
    height, width = attention.shape
    if height % rows or width % columns:
        raise PreferoError(f"{height} × {width} patches do not divide into {rows} × {columns} cells.")
    cells = attention.reshape(rows, height // rows, columns, width // columns).sum((1, 3))
    return cells.flatten() / attention.sum()


def centre_share(attention: Float[Tensor, "row column"], size: int = 16) -> float:
    """The share of the square of ``size`` patches in the middle."""
    top, left = ((length - size) // 2 for length in attention.shape)
    return float(attention[top : top + size, left : left + size].sum() / attention.sum())


def greedy_perplexity(likeliest: Sequence[float]) -> float:
    """exp(−mean log p) of the likeliest token's probability at each generated token."""
    return math.exp(-math.fsum(map(math.log, likeliest)) / len(likeliest))


def to_reject(
    share: float,
    perplexity: float,
    threshold: float,
    *,
    inclusive: bool,
    least_perplexity: float = LEAST_PERPLEXITY,
) -> bool:
    """Whether a wrong answer is taken as the rejected one: its image got little attention, and the model was
    not quite sure."""
    looked_elsewhere = share <= threshold if inclusive else share < threshold
    return looked_elsewhere and perplexity > least_perplexity
