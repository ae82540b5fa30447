"""Beside any preference loss: what keeps the numbers of a model in range."""

from __future__ import annotations

import torch

from prefero.objectives.compare import Objective, penalty
from prefero.objectives.quantities import Measured
from prefero.objectives.ranges import NonNegative
from prefero.objectives.reductions import mean_of_tokens
from prefero.objectives.registry import published
from prefero.objectives.signals import LOG_Z


@published(
    title="z-loss",
    paper="p010",
    citation=(
        "Chowdhery et al., 2022, arXiv 2204.02311, section 5; in preference training Preferred Elements, "
        "2024, arXiv 2410.07563"
    ),
    equation="c · mean over tokens of (log Σ_v exp(logit_v))²",
    feedback={"pairs"},
    relatives=(
        "Meant for `plus`; alone it teaches no preference. It moves the level of the logits, which no loss "
        "of log-probabilities sees, and leaves their differences free."
    ),
    pitfalls="The mean is over all tokens of all responses of the step, as large batches of text have it.",
)
def z_loss(strength: NonNegative = 1e-4) -> Objective:
    """The normaliser of the softmax pulled to 1, so that logits do not drift away."""
    return penalty(strength * Measured(LOG_Z).map(torch.square).sum(), reduce=mean_of_tokens)
