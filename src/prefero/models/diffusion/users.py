"""One diffusion model for many users: attention to tokens that say whose preferences count.

The policy alone sees a user; the reference is the model without. Users are mixed by
:func:`prefero.models.arithmetic.combination` of their tokens.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def decoupled_attention(
    query: Float[Tensor, "*batch token hidden"],
    text_key: Float[Tensor, "*batch text hidden"],
    text_value: Float[Tensor, "*batch text hidden"],
    user_key: Float[Tensor, "*batch user hidden"],
    user_value: Float[Tensor, "*batch user hidden"],
    scale: float = 1.0,
) -> Float[Tensor, "*batch token hidden"]:
    """softmax(Q Kᵀ/√d) V + s softmax(Q K′ᵀ/√d) V′ with keys and values K′, V′ of the user's tokens.

    Dang et al., 2025, arXiv 2501.06655 (PPD). Projections to V′ that start at zero leave the model as it was.
    diffusers' IP-Adapter processors have it for models that are made of its attention blocks.
    """
    text = F.scaled_dot_product_attention(query, text_key, text_value)
    return text + scale * F.scaled_dot_product_attention(query, user_key, user_value)
