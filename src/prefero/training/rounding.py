"""Steps that are smaller than what the weights' data type can hold."""

from __future__ import annotations

import torch
from torch import nn

LOOKED_AT = 1 << 16
"""Weights of each tensor that are looked at."""

MOSTLY = 0.5
"""A share of weights from which it is worth a word that they do not move."""

_ADAPTS = ("adam", "lion", "lamb", "rmsprop", "schedule_free")
"""Parts of the names of optimizers whose first steps change a weight by about the learning rate, whatever its
gradient."""


def unmoved_share(policy: nn.Module, step: float) -> float:
    """The share of the trained half-precision weights that a change by ``step`` leaves as they are, because
    it is below half of the distance to the next number that their type can hold; 0 if there are none."""
    still, seen = 0, 0
    for weight in policy.parameters():
        if weight.requires_grad and weight.dtype in (torch.bfloat16, torch.float16):
            some = weight.detach().flatten()[:LOOKED_AT]
            still += int(((some.float() - step).to(weight.dtype) == some).sum())
            seen += len(some)
    return still / seen if seen else 0.0


def rounding_warning(policy: nn.Module, learning_rate: float, optimizer: str) -> str:
    """Say that most weights are too coarse for the learning rate; empty where they are not, or the optimizer
    takes steps of other sizes."""
    adapts = any(part in optimizer for part in _ADAPTS) and "bf16" not in optimizer
    share = unmoved_share(policy, learning_rate) if adapts else 0.0
    if share < MOSTLY:
        return ""
    return (
        f"{share:.0%} of the trained weights would stay as they are: they are kept in half precision, and a "
        f"step of {learning_rate:g} (training.learning_rate) is less than what that can tell apart. Keep the "
        "weights in float32 (model.dtype=float32; training.precision=bfloat16 still computes in bfloat16), "
        "or train adapters (model.lora)"
    )
