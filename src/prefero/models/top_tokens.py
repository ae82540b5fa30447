"""How next-token probability is spread over the likeliest tokens: what turns when likelihood is
over-optimised.

Shi et al., 2024, arXiv 2410.11677. The monitors of :mod:`prefero.training.monitors` watch the same numbers
during training, as signals of the scoring pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.models.signals import TOP


@dataclass(frozen=True, slots=True)
class TopTokens:
    """Of the k likeliest next tokens at each position: their probability together, their part −Σ p log p of
    the entropy, and the entropy of the k renormalised; in nats.

    The first entropy falls with the mass, the renormalised one says how even the k are.
    """

    mass: Float[Tensor, " *position"]
    entropy: Float[Tensor, " *position"]
    renormalised_entropy: Float[Tensor, " *position"]


def top_tokens(logits: Float[Tensor, "*position vocabulary"], k: int = 10) -> TopTokens:
    """The spread over the ``k`` likeliest tokens (all of them, if the vocabulary has no more)."""
    logps = logits.log_softmax(-1)
    # a token that is ruled out adds nothing, and 0 · −∞ is not a number
    logps = logps.clamp(min=torch.finfo(logps.dtype).min / 4)
    mass, even = TOP["top_k_mass"](logps, k), TOP["top_k_entropy"](logps, k)
    return TopTokens(mass, mass * (even - mass.log()), even)
