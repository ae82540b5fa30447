"""Which examples to train on, from numbers that somebody has measured of them."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor


def nearly_equal(
    margins: Float[Tensor, "example"], delta: float, order: Literal["any", "right"] = "any"
) -> Bool[Tensor, "example"]:
    """Pairs whose two responses a model finds nearly equally likely: ComPO takes them for noisy.

    ``margins`` are log π_ref(y_w) − log π_ref(y_l), summed over tokens, ``delta`` is how much is near. The
    paper takes |margin| ≤ δ of the reference (``any``), the authors' code 0 < margin < δ of the model trained
    on the other pairs (``right``). Chen et al., 2025, arXiv 2505.05465.
    """
    return margins.abs() <= delta if order == "any" else (margins > 0) & (margins < delta)
